"""Arithmetic: numbers are computed, and nothing else happens."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.agents.arithmetic import evaluate

VALUES: dict[str, float] = {
    "2 + 3 * 4": 14,
    "(2 + 3) * 4": 20,
    "-2 ** 2": -4,
    "2 ^ 10": 1024,
    "7 // 2 + 7 % 2": 4,
    "1e3 / 8": 125.0,
    "+1_000": 1000,
    "2 ** -1": 0.5,
    "(-1) ** 1000000001": -1,
}


@pytest.mark.parametrize(("text", "value"), VALUES.items(), ids=VALUES)
def test_an_expression_has_its_value(text: str, value: float) -> None:
    assert evaluate(text) == value


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_whole_numbers_are_exact(one: int, two: int) -> None:
    assert evaluate(f"{one} * ({two}) + {one}") == one * two + one


REFUSED = {
    "a call": "__import__('os').system('id')",
    "a name": "x",
    "an attribute": "(1).real",
    "a text": "'a' * 3",
    "a list": "[1] * 9",
    "a comparison": "1 < 2",
    "an imaginary number": "1j",
    "true": "True",
    "nothing": "",
    "two lines": "1\n2",
    "a huge power": "9 ** 9 ** 9",
    "a power of a power": "((9 ** 999) ** 999) ** 999",
    "a huge product": "*".join(["9999999999"] * 90 + ["9" * 90]),
    "a product of large numbers": "(9 ** 1000) * (9 ** 1000)",
    "a huge float": "9.0 ** 9999",
    "infinity": "1e999",
    "a root of a negative number": "(-8) ** 0.5",
    "a division by zero": "1 / 0",
    "zero to a negative power": "0 ** -1",
    "too long": "1+" * 600 + "1",
    "too deep": "(" * 300 + "1" + ")" * 300,
    "many signs": "-" * 900 + "1",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_is_no_arithmetic_or_too_much_of_it_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        evaluate(text)


@given(st.text(st.sampled_from("0123456789eE+-*/%()._ ^"), max_size=40))
def test_whatever_is_written_has_a_finite_value_or_is_refused(text: str) -> None:
    try:
        value = evaluate(text)
    except ValueError:
        return

    assert isinstance(value, int | float)
    assert not isinstance(value, float) or math.isfinite(value)
