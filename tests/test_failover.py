"""What another call costs, and how rarely one is tried while everybody is down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.errors import FailureClass
from zejzl.policies.budget import Cost
from zejzl.policies.failover import LEAST_FAIR_TRY, cost_of, dark_spacing

F = FailureClass


@pytest.mark.parametrize(
    ("last", "waited", "cost"),
    [
        (None, False, 3),
        (None, True, 3),
        (F.SERVER_ERROR, False, 10),
        (F.CONNECT, False, 10),
        (F.RATE_LIMITED, False, 10),
        (F.RATE_LIMITED, True, 5),
        (F.OVERLOADED, True, 5),
        (F.FIRST_TOKEN_TIMEOUT, False, 20),
        (F.STALLED, False, 20),
        (F.STALLED, True, 5),
    ],
)
def test_what_an_extra_call_costs(last: FailureClass | None, waited: bool, cost: float) -> None:
    assert cost_of(last, waited=waited) == cost


@given(st.sampled_from([None, *F]), st.booleans())
def test_every_extra_call_costs_something(last: FailureClass | None, waited: bool) -> None:
    assert cost_of(last, waited=waited) in list(Cost)


@given(st.sampled_from(F), st.booleans())
def test_a_call_elsewhere_is_free_when_the_one_that_failed_lets_nobody_in_and_only_there(
    last: FailureClass, waited: bool
) -> None:
    assert cost_of(None, waited=waited, diverted=True) == 0.0
    assert cost_of(last, waited=waited, diverted=True) == cost_of(last, waited=waited)


@given(st.sampled_from([None, *F]), st.booleans(), st.booleans())
def test_after_one_too_many_every_call_is_free(
    last: FailureClass | None, waited: bool, diverted: bool
) -> None:
    assert cost_of(last, waited=waited, diverted=diverted, one_too_many=True) == 0.0


@pytest.mark.parametrize(
    ("dark_for", "spacing"),
    [(0.0, 0.5), (10.0, 0.5), (20.0, 1.0), (60.0, 3.0), (3600.0, 180.0)],
)
def test_the_longer_the_dark_the_rarer_the_probes(dark_for: float, spacing: float) -> None:
    assert dark_spacing(dark_for) == spacing


def test_a_minute_of_dark_costs_few_probes() -> None:
    now, probes = 0.0, 0

    while now < 60.0:
        now += dark_spacing(now)
        probes += 1

    assert probes <= 60


def test_a_call_cut_short_within_a_second_was_no_fair_try() -> None:
    assert LEAST_FAIR_TRY == 1.0
