"""Incidents as values: what can be is kept, what cannot is refused by its place."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.errors import FailureClass
from zejzl.policies.prices import Price
from zejzl.testing.incidents import (
    KINDS,
    Fault,
    Incident,
    IncidentError,
    Load,
    ProviderScript,
    RecordedCall,
)

ALPHA = ProviderScript(name="alpha", latency=(0.1, 0.2))
CALL = RecordedCall(at=1.0, outcome="ok", seconds=0.5, request=0)
LATE = datetime(9999, 12, 31, tzinfo=UTC)
NAN, INFINITE = float("nan"), float("inf")


def incident(*loads: Load, duration: float = 60.0, **how: Any) -> Incident:
    """Return one with these requests, and one provider unless others are given."""
    return Incident(**{"duration": duration, "requests": loads, "providers": (ALPHA,), **how})


def provider(**how: Any) -> ProviderScript:
    return ProviderScript(**{"name": "alpha", "latency": (0.1, 0.2), **how})


@pytest.mark.parametrize(
    ("make", "place", "says"),
    [
        (lambda: Fault(kind="explodes"), "kind", "must be one of rate_limited"),
        (lambda: Fault(kind="cancelled"), "kind", "not 'cancelled'"),
        (lambda: Fault(kind="slow"), "latency", "is missing"),
        (lambda: Fault(kind="connect", start=-1.0), "from", "a number from 0"),
        (lambda: Fault(kind="connect", start=NAN), "from", "not nan"),
        (lambda: Fault(kind="connect", start=5.0, end=5.0), "to", "is not after from, 5"),
        (lambda: Fault(kind="connect", end=INFINITE), "to", "not inf"),
        (lambda: Fault(kind="connect", share=1.5), "share", "from 0 to 1"),
        (lambda: Fault(kind="connect", after=-0.1), "after", "from 0 to 1"),
        (lambda: Fault(kind="connect", retry_after=True), "retry_after", "not True"),
        (lambda: Fault(kind="connect", latency=(2.0, 1.0)), "latency", "low and high"),
        (lambda: Fault(kind="connect", latency=(2.0,)), "latency", "low and high"),  # type: ignore[arg-type]
        (lambda: Fault(kind="connect", latency=(0, "x")), "latency[1]", "not 'x'"),  # type: ignore[arg-type]
        (lambda: Fault(kind="connect", latency=3.0), "latency", "must be a list"),  # type: ignore[arg-type]
        (lambda: RecordedCall(at=0, outcome="fine", seconds=0, request=0), "outcome", "'fine'"),
        (lambda: RecordedCall(at=-1, outcome="ok", seconds=0, request=0), "at", "from 0"),
        (lambda: RecordedCall(at=0, outcome="ok", seconds=0, request=-1), "request", "from 0"),
        (
            lambda: RecordedCall(at=0, outcome="ok", seconds=0, request=0, retry_after=-1),
            "retry_after",
            "from 0",
        ),
        (lambda: provider(name="a b"), "name", "letters, digits"),
        (lambda: provider(name=7), "name", "must be str"),
        (lambda: provider(model="\n"), "model", "printable text"),
        (lambda: provider(pace=-1), "pace", "from 0"),
        (lambda: provider(capacity=0), "capacity", "whole number from 1"),
        (lambda: provider(queue=1.5), "queue", "whole number from 0"),
        (lambda: provider(latency=None), "latency", "is missing"),
        (lambda: provider(calls=(CALL,)), "calls", "have no place beside"),
        (lambda: Load(), "rate", "must be given"),
        (lambda: Load(rate=1.0, times=(1.0,)), "rate", "not both"),
        (lambda: Load(rate=0.0), "rate", "above 0"),
        (lambda: Load(rate="often"), "rate", "not 'often'"),  # type: ignore[arg-type]
        (lambda: Load(times=(1.0, -1.0)), "times[1]", "from 0"),
        (lambda: Load(times=(2.0, 1.0)), "times[1]", "is before the one at 2"),
        (lambda: Load(times=(2.0,), start=1.0), "from", "times say by themselves"),
        (lambda: Load(rate=1.0, start=3.0, end=2.0), "to", "is not after from"),
        (lambda: Load(rate=1.0, stream=1), "stream", "true or false"),  # type: ignore[arg-type]
        (lambda: Load(rate=1.0, repeats="no"), "repeats", "true or false"),  # type: ignore[arg-type]
        (lambda: Load(rate=1.0, prompt_tokens=-1), "prompt_tokens", "from 0"),
        (lambda: Load(rate=1.0, answer_tokens=0), "answer_tokens", "from 1"),
        (lambda: Load(rate=1.0, prompt_tokens=(1,)), "prompt_tokens", "1 values for a rate"),
        (lambda: Load(times=(1.0, 2.0), answer_tokens=(1,)), "answer_tokens", "for 2 times"),
        (lambda: Load(times=(1.0,), answer_tokens=(0,)), "answer_tokens[0]", "from 1"),
        (lambda: Load(rate=1.0, conversation=7), "conversation", "text"),  # type: ignore[arg-type]
        (lambda: Load(rate=1.0, deadline=0.0), "deadline", "above 0"),
        (lambda: Load(rate=1.0, patience=-1.0), "patience", "from 0"),
        (lambda: Load(rate=1.0, max_tokens=0), "max_tokens", "from 1"),
        (lambda: Load(rate=1.0, criticality="huge"), "criticality", "huge"),
        (lambda: Load(rate=1.0, provider=3), "provider", "text"),  # type: ignore[arg-type]
        (lambda: Load(rate=1.0, failover="a"), "failover", "must be a list"),  # type: ignore[arg-type]
        (lambda: incident(Load(rate=1.0), duration=0.0), "duration", "above 0"),
        (lambda: incident(Load(rate=1.0), duration=-1.0), "duration", "from 0"),
        (lambda: incident(), "requests", "are missing"),
        (lambda: incident(Load(rate=1.0, start=60.0)), "requests", "are missing"),
        (lambda: incident(Load(rate=1e9)), "requests", "are the most"),
        (lambda: incident(Load(rate=1.0), providers=()), "providers", "are missing"),
        (
            lambda: incident(Load(rate=1.0), providers=(ALPHA, ALPHA)),
            "providers[1].name",
            "already",
        ),
        (lambda: incident(Load(rate=1.0), name="\x1b[2J"), "name", "printable"),
        (lambda: incident(Load(rate=1.0), began=datetime(2026, 1, 1)), "began", "zone"),  # noqa: DTZ001
        (lambda: incident(Load(rate=1.0), began=LATE), "began", "in the years 1970 to 2199"),
        (lambda: provider(name="Offline"), "name", "is the bus's own"),
        (lambda: incident(Load(times=(61.0,))), "requests[0].times[0]", "after the end, 60"),
        (
            lambda: incident(Load(rate=1.0), Load(rate=1.0, provider="beta/big")),
            "requests[1].provider",
            "'beta' is none of the providers: alpha",
        ),
        (
            lambda: incident(
                Load(times=(1.0,)),
                providers=(
                    provider(
                        latency=None,
                        calls=(CALL, RecordedCall(at=2, outcome="ok", seconds=0, request=1)),
                    ),
                ),
            ),
            "providers[0].calls[1].request",
            "none of the 1 requests",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_its_place(
    make: Callable[[], object], place: str, says: str
) -> None:
    with pytest.raises(IncidentError) as refused:
        make()

    assert refused.value.place == place
    assert says in refused.value.problem
    assert str(refused.value).startswith(f"{place}: ")


def test_recorded_calls_are_in_order_of_time() -> None:
    later = RecordedCall(at=0.5, outcome="ok", seconds=0.1, request=0)

    with pytest.raises(IncidentError, match=r"calls\[1\]: 0.5 is before the one at 1"):
        provider(latency=None, calls=(CALL, later))


def test_every_failure_that_a_provider_can_cause_is_a_kind_of_fault() -> None:
    callers = {FailureClass.CANCELLED, FailureClass.DEADLINE}

    assert {*KINDS} == {*FailureClass} - callers | {"slow"}


def test_a_fault_holds_from_its_beginning_until_before_its_end() -> None:
    fault = Fault(kind="connect", start=10.0, end=20.0)

    assert [fault.holds(at) for at in (9.9, 10.0, 19.9, 20.0)] == [False, True, True, False]


def test_a_fault_without_an_end_holds_to_the_last() -> None:
    assert Fault(kind="connect").holds(1e9)


def test_lists_are_kept_as_tuples_and_numbers_as_floats() -> None:
    load = Load(times=[1, 2], prompt_tokens=[3, 4], failover=["alpha"])  # type: ignore[arg-type]

    assert (load.times, load.prompt_tokens, load.failover) == ((1.0, 2.0), (3, 4), ("alpha",))


@given(st.floats(0.5, 20.0), st.integers(0, 5))
def test_a_rate_lets_each_request_come_in_its_own_slot(rate: float, seed: int) -> None:
    arrivals = incident(Load(rate=rate, start=10.0, end=40.0)).arrivals(seed)

    assert len(arrivals) == round(30.0 * rate)
    for number, arrival in enumerate(arrivals):
        assert arrival.number == number
        assert number <= (arrival.at - 10.0) * rate + 1e-6
        assert (arrival.at - 10.0) * rate <= number + 1 + 1e-6


def test_the_same_seed_lets_the_same_requests_come() -> None:
    found = incident(Load(rate=3.0))

    assert found.arrivals(1) == found.arrivals(1)
    assert found.arrivals(1) != found.arrivals(2)


def test_requests_of_all_loads_come_in_order_of_time_each_with_its_own_sizes() -> None:
    early = Load(times=(1.0, 5.0), prompt_tokens=(10, 11), answer_tokens=(20, 21))
    late = Load(times=(3.0,), conversation=("c1",), prompt_tokens=7)

    arrivals = incident(early, late).arrivals(1)

    assert [(each.at, each.prompt_tokens, each.answer_tokens) for each in arrivals] == [
        (1.0, 10, 20),
        (3.0, 7, 50),
        (5.0, 11, 21),
    ]
    assert [each.conversation for each in arrivals] == [None, "c1", None]


def test_a_load_names_the_providers_that_must_be_there() -> None:
    load = Load(rate=1.0, provider="Alpha:big", failover=("beta",))

    assert load.named == ("alpha", "beta")


def test_an_incident_of_now_knows_when_it_was() -> None:
    began = datetime(2026, 11, 22, 10, tzinfo=UTC)

    assert incident(Load(rate=1.0), began=began, name="Tuesday").began == began


def test_a_price_is_per_million_tokens() -> None:
    price = provider(price=Price(2.0, 8.0)).price

    assert price is not None
    assert price.cost(500_000, 250_000) == 3.0
