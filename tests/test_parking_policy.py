"""Which failed work may wait, and when it is tried again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.errors import (
    AuthFailed,
    BadRequest,
    BusNotRunning,
    CircuitOpen,
    ContentFiltered,
    ContextOverflow,
    Overloaded,
    QuotaExhausted,
    ServerError,
    SpendLimitReached,
    StoreFull,
)
from zejzl.policies.parking import LONGEST, MOST_TOLD, Spacing, may_wait


@pytest.mark.parametrize(
    "failure",
    [
        ServerError("x"),
        AuthFailed("x"),
        QuotaExhausted("x"),
        CircuitOpen("a", 1.0),
        Overloaded("a", 1.0, "full"),
        SpendLimitReached("day", 1.0, "spent"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_what_another_time_may_mend_may_wait(failure: Exception) -> None:
    assert may_wait(failure)


@pytest.mark.parametrize(
    "failure",
    [
        BadRequest("x"),
        ContextOverflow("x"),
        ContentFiltered("x"),
        StoreFull("x"),
        BusNotRunning("x"),
        ValueError("x"),
        SpendLimitReached("c", float("inf"), "it is beyond the limit by itself"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_what_no_time_mends_may_not(failure: Exception) -> None:
    assert not may_wait(failure)


def test_a_wait_that_somebody_names_is_waited_up_to_a_day() -> None:
    spacing = Spacing(tries=8, first=30.0)

    assert spacing.wait(0, told=7_200.0) == 7_200.0
    assert spacing.wait(0, told=5.0) == 30.0
    assert spacing.wait(0, told=1e9) == MOST_TOLD
    assert spacing.wait(0, told=float("inf")) == 30.0
    assert spacing.wait(8, told=5.0) is None


def test_what_is_refused_is_looked_at_less_and_less_often() -> None:
    spacing = Spacing(tries=8, first=30.0)
    age = 0.0
    waits = []
    for _ in range(10):
        wait = spacing.wait(0, age=age)
        assert wait is not None
        waits.append(wait)
        age += wait

    assert waits == [30, 30, 60, 120, 240, 480, 960, 1920, LONGEST, LONGEST]


def test_waits_double_up_to_an_hour() -> None:
    spacing = Spacing(tries=20, first=30.0)

    assert [spacing.wait(tries) for tries in (0, 1, 2, 7, 19)] == [30, 60, 120, LONGEST, LONGEST]


@given(st.integers(1, 10**6), st.floats(0.001, 1e6), st.integers(0, 2 * 10**6))
def test_there_are_as_many_waits_as_tries(most: int, first: float, tries: int) -> None:
    wait = Spacing(tries=most, first=first).wait(tries)

    assert (wait is None) == (tries >= most)
    assert wait is None or 0.0 < wait <= LONGEST
