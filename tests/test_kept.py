"""What was kept on disk is read back as what it is, or told as damaged."""

import pytest

from zejzl.policies.kept import amount, whole


@pytest.mark.parametrize("value", [0, 1, 10**30])
def test_a_count_is_a_whole_number_from_0(value: int) -> None:
    assert whole(value) == value


@pytest.mark.parametrize("value", [-1, 1.0, True, "1", None, []], ids=repr)
def test_anything_else_is_no_count(value: object) -> None:
    with pytest.raises(ValueError, match=r"^not a count: "):
        whole(value)


@pytest.mark.parametrize("value", [0, 0.5, 3, float("inf")])
def test_an_amount_is_a_number_from_0(value: float) -> None:
    found = amount(value)

    assert (found, type(found)) == (value, float)


@pytest.mark.parametrize("value", [-0.5, float("nan"), True, "1", None, []], ids=repr)
def test_anything_else_is_no_amount(value: object) -> None:
    with pytest.raises(ValueError, match=r"^not an amount: "):
        amount(value)
