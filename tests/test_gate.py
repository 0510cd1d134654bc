"""The gate before every provider: who may go ahead, and what the end of a call teaches."""

import asyncio
from collections.abc import Iterable
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.driving import break_down
from zejzl.engine.waiting import InLine
from zejzl.errors import (
    AuthFailed,
    BadRequest,
    ProviderError,
    ProviderOverloaded,
    RateLimited,
    ServerError,
)
from zejzl.events import AdmissionChanged, BreakerChanged, Event
from zejzl.magic import CircuitBreaker, FairyMagic
from zejzl.magic.gate import HEDGE_AFTER, LEAST_PATIENCE, STRAY
from zejzl.magic.lanes import Asked, Full, Lane, Permit, Raised
from zejzl.policies.admission import LEAST_STANDBY, START, Criticality
from zejzl.policies.breaker import Pin, Refused, State
from zejzl.policies.diagnosis import diagnose
from zejzl.testing import FakeClock

PACE = 0.1  # seconds of a usual answer here: one is late after 0.15 s
LATE_AFTER = 0.15
FULL = ProviderOverloaded("full")
NORMAL, CRITICAL, SHEDDABLE = Criticality.NORMAL, Criticality.CRITICAL, Criticality.SHEDDABLE


class Fleet:
    """A controller and some providers of it, called through the gate."""

    def __init__(self, *names: str, **options: Any) -> None:
        self.clock = FakeClock()
        self.magic = FairyMagic(clock=self.clock, rng=Random(1), **options)
        self.gate = self.magic.gate
        self.events: list[Event] = []
        self.magic.listen(self.events.append)
        for name in names:
            self.breaker(name)
            self.lane(name)

    def breaker(self, name: str) -> CircuitBreaker:
        return self.gate.provider(name)

    def lane(self, name: str) -> Lane:
        return self.gate.lane(name)

    def ask(self, name: str, criticality: Criticality = NORMAL, **options: Any) -> Permit | Refused:
        asked = Asked(criticality, streamed=options.pop("streamed", False))
        return self.gate.acquire(self.breaker(name), self.lane(name), asked, **options)

    def begin(self, name: str, **options: Any) -> Permit:
        """Call a provider that lets everybody in."""
        permit = self.ask(name, **options)
        assert isinstance(permit, Permit)
        self.gate.begun(permit, self.clock.now())
        return permit

    def begin_many(self, name: str, count: int) -> list[Permit]:
        return [self.begin(name) for _ in range(count)]

    def learn_pace(self, name: str, seconds: float = PACE, times: int = 20) -> None:
        """Let a provider have answered in so many seconds, plainly and in streams."""
        for _ in range(times):
            for streamed in (False, True):
                self.gate.succeeded(self.begin(name, streamed=streamed), seconds, first=True)

    def fail(self, permit: Permit, failure: ProviderError) -> None:
        self.gate.failed(permit, failure, diagnose(failure))

    def break_down(self, *names: str) -> None:
        for name in names:
            break_down(self.magic, self.breaker(name), name)

    async def brown_out(self, name: str, calls: int = 10) -> list[Permit]:
        """Let so many calls of a provider with a pace become late, each noticed as it is left."""
        permits = self.begin_many(name, calls)
        await self.clock.advance(LATE_AFTER + 0.01)
        for permit in permits:
            self.gate.void(permit)
        return permits

    def edges(self, name: str) -> list[str]:
        """Return what a breaker has become, as far as it was told."""
        changes = [event for event in self.events if isinstance(event, BreakerChanged)]
        return [event.after for event in changes if event.name == f"ai_provider:{name}"]

    def states(self, names: Iterable[str]) -> list[str]:
        return [self.breaker(name).state.value for name in names]


# The order of asking ------------------------------------------------------------------------------


def test_a_pin_comes_before_a_pause_before_the_breaker_before_admission() -> None:
    fleet = Fleet("a", "b")
    breaker = fleet.breaker("a")
    fleet.lane("a").limiter.in_flight = 500
    full = fleet.ask("a")
    fleet.gate.raise_by_hand("a test")
    raised = fleet.ask("a")
    for _ in range(3):
        breaker.fail(breaker.rule.generation, ServerError("x"))
    broken = fleet.ask("a")
    breaker.rule.reset(0.0)
    breaker.pause(breaker.rule.generation, 60.0, "it asked for a minute")
    paused = fleet.ask("a")
    breaker.rule.pin = Pin.FORCED_OPEN
    pinned = fleet.ask("a")

    assert isinstance(full, Full) and isinstance(raised, Raised)
    reasons = [refused.reason for refused in (broken, paused, pinned)]  # type: ignore[union-attr]
    assert reasons == ["it keeps failing", "it asked for a minute", "it is pinned open"]
    assert paused == (60.0, "it asked for a minute")
    assert fleet.lane("a").limiter.in_flight == 500


def test_a_breaker_that_is_switched_off_refuses_nothing_and_admission_still_does() -> None:
    fleet = Fleet("a")
    fleet.break_down("a")
    fleet.breaker("a").rule.pin = Pin.DISABLED

    let_in = fleet.ask("a")
    fleet.lane("a").limiter.in_flight = 500

    assert isinstance(let_in, Permit) and let_in.placed
    assert isinstance(fleet.ask("a"), Full)


def test_who_is_turned_away_for_want_of_a_place_is_told_so() -> None:
    fleet = Fleet("a")
    fleet.begin_many("a", 160)  # 0.8 of the limit of 200 is for usual calls

    refused = fleet.ask("a")
    critical = fleet.ask("a", CRITICAL)

    assert refused == Full(0.0, "160 calls are under way (limit 200.0)")
    assert isinstance(critical, Permit)
    assert fleet.lane("a").limiter.in_flight == 161


def test_a_class_that_never_waits_is_shed_by_its_conversations_share() -> None:
    fleet = Fleet("a")
    fleet.lane("a").limiter.in_flight = 50  # half of what sheddable work may fill: 0.5 of 200
    asked = {share: Asked(SHEDDABLE, share) for share in (0.5, 0.51)}

    found = {
        share: fleet.gate.acquire(fleet.breaker("a"), fleet.lane("a"), each)
        for share, each in asked.items()
    }

    assert isinstance(found[0.5], Full) and isinstance(found[0.51], Permit)
    kept = Asked(NORMAL, 0.5)
    fleet.lane("a").limiter.in_flight = 150
    assert isinstance(fleet.gate.acquire(fleet.breaker("a"), fleet.lane("a"), kept), Permit)


def test_a_place_that_was_handed_over_is_not_taken_twice() -> None:
    fleet = Fleet("a")
    fleet.lane("a").limiter.in_flight += 1

    permit = fleet.ask("a", placed=True)

    assert isinstance(permit, Permit) and permit.placed
    assert fleet.lane("a").limiter.in_flight == 1


# How a call ends ----------------------------------------------------------------------------------

ENDS: dict[str, Any] = {
    "well": lambda fleet, permit: fleet.gate.succeeded(permit, PACE, first=True),
    "failed": lambda fleet, permit: fleet.fail(permit, ServerError("x")),
    "refused": lambda fleet, permit: fleet.fail(permit, BadRequest("x")),
    "paused": lambda fleet, permit: fleet.fail(permit, RateLimited("x", retry_after=1.0)),
    "no key": lambda fleet, permit: fleet.fail(permit, AuthFailed("x")),
    "abandoned": lambda fleet, permit: fleet.gate.void(permit),
    "never made": lambda fleet, permit: fleet.gate.give_back(permit, 0.0),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_every_end_gives_the_place_back_once(end: Any) -> None:
    fleet = Fleet("a")
    permits = fleet.begin_many("a", 2)

    end(fleet, permits[0])
    once = fleet.lane("a").limiter.in_flight
    end(fleet, permits[0])

    assert (once, fleet.lane("a").limiter.in_flight) == (1, 1)


@pytest.mark.parametrize("end", ["abandoned", "never made", "refused"])
async def test_a_probe_that_says_nothing_gives_its_place_to_the_next_at_once(end: str) -> None:
    fleet = Fleet("a", "b")
    fleet.break_down("a")
    await fleet.clock.advance(0.6)
    probe = fleet.begin("a")
    meanwhile = fleet.ask("a")

    ENDS[end](fleet, probe)

    assert isinstance(meanwhile, Refused) and isinstance(fleet.ask("a"), Permit)


def test_a_good_end_earns_at_the_first_call_only() -> None:
    fleet = Fleet("a", energy_level=50.0)

    for first in (True, False, False):
        fleet.gate.succeeded(fleet.begin("a"), PACE, first=first)

    assert fleet.magic.energy_level == 51.0
    assert (fleet.lane("a").answers, fleet.breaker("a").success_count) == (3, 3)


def test_an_end_means_to_the_breaker_what_the_diagnosis_says() -> None:
    fleet = Fleet("a", "b", "c", "d")

    fleet.fail(fleet.begin("a"), ServerError("x"))
    fleet.fail(fleet.begin("b"), BadRequest("x"))
    fleet.fail(fleet.begin("c"), RateLimited("x", retry_after=7.0))
    fleet.fail(fleet.begin("d"), AuthFailed("the wrong key"))

    assert [fleet.breaker(name).failure_count for name in "abcd"] == [1, 0, 0, 0]
    assert [fleet.breaker(name).available() for name in "abcd"] == [True, True, False, False]
    assert fleet.ask("c") == (7.0, "it asked for a pause of 7 s")
    assert fleet.ask("d") == (30.0, "its key was refused: the wrong key")


async def test_after_a_pause_failures_count_as_before() -> None:
    fleet = Fleet("a", "b")
    fleet.fail(fleet.begin("a"), RateLimited("x", retry_after=2.0))
    await fleet.clock.advance(2.0)

    fleet.break_down("a")

    assert fleet.breaker("a").state == "open"


def test_a_call_that_was_never_made_is_paid_back() -> None:
    fleet = Fleet("a")
    fleet.gate.pay(10.0)

    fleet.gate.give_back(fleet.begin("a"), 10.0)

    assert fleet.magic.energy_level == 100.0
    assert fleet.breaker("a").success_count == 0


def test_a_refusal_beside_answers_was_one_too_many_and_no_failure() -> None:
    fleet = Fleet("a", "b")
    fleet.learn_pace("a")
    crowded, dead = fleet.begin_many("a", 3)[2], fleet.begin("b")

    too_many = [fleet.gate.failed(each, FULL, diagnose(FULL)) for each in (crowded, dead)]

    assert too_many == [True, False]
    assert fleet.lane("a").limiter.limit < 3.0 and fleet.lane("b").limiter.limit == START
    assert [fleet.breaker(name).failure_count for name in "ab"] == [0, 1]


async def test_the_place_of_a_refused_call_is_handed_to_nobody_while_others_hold_theirs() -> None:
    fleet = Fleet("a")
    fleet.lane("a").limiter.limit = 3.0
    first, second = fleet.begin_many("a", 2)
    line = [InLine(fleet.gate, NORMAL) for _ in range(2)]
    waiting = [
        asyncio.create_task(each.wait([fleet.lane("a")], fleet.clock, None)) for each in line
    ]
    await fleet.clock.advance(0.0)

    fleet.fail(second, ProviderOverloaded("full"))
    await fleet.clock.advance(0.0)
    handed = [task.done() for task in waiting]
    fleet.gate.succeeded(first, 0.1, first=True)
    await fleet.clock.advance(0.0)

    assert (handed, waiting[0].done()) == ([False, False], True)
    for task in waiting:
        task.cancel()


def test_one_too_many_that_asks_for_a_pause_gets_it() -> None:
    fleet = Fleet("a")
    fleet.learn_pace("a")

    fleet.fail(fleet.begin_many("a", 3)[2], RateLimited("x", retry_after=7.0))

    assert fleet.ask("a") == (7.0, "it asked for a pause of 7 s")


async def test_what_a_probe_or_a_straggler_is_refused_says_nothing_about_the_limit() -> None:
    fleet = Fleet("a", "b")
    fleet.learn_pace("a")
    *others, straggler = fleet.begin_many("a", 9)
    fleet.break_down("a")

    fleet.fail(straggler, FULL)
    for permit in others:
        fleet.gate.void(permit)
    await fleet.clock.advance(0.6)
    fleet.fail(fleet.begin("a"), FULL)

    assert fleet.lane("a").limiter.limit >= START


def test_an_outage_says_nothing_about_how_much_a_provider_can_take() -> None:
    fleet = Fleet("a", "b")
    fleet.learn_pace("a")
    fleet.learn_pace("b")
    for name in "ab":
        fleet.fail(fleet.begin_many(name, 3)[2], FULL)
    lowered = fleet.lane("a").limiter.limit

    for _ in range(3):
        fleet.breaker("a").fail(fleet.breaker("a").rule.generation, ServerError("x"))
        tool = fleet.magic._breakers.child("tool_call", "b")
        tool.fail(tool.rule.generation, ServerError("x"))

    assert tool.state == "open"  # a tool of a provider's name is no provider
    limits = [fleet.lane(name).limiter.limit for name in "ab"]
    assert limits[0] >= START > lowered == limits[1]


def test_a_retry_waits_its_backoff_or_what_was_asked() -> None:
    fleet = Fleet()

    waits = {
        failure: [fleet.gate.backoff(2, diagnose(failure)) for _ in range(50)]
        for failure in (ServerError("x"), ProviderOverloaded("x"), RateLimited("x", retry_after=4))
    }

    quick, throttled, asked = waits.values()
    assert 0.0 <= min(quick) < max(quick) <= 0.05
    assert 0.05 < max(throttled) <= 1.0
    assert 4.0 <= min(asked) < max(asked) <= 5.2


def test_patience_is_about_a_second_or_the_slowest_providers_usual_answer() -> None:
    fleet = Fleet("a", "b")
    fleet.learn_pace("a")

    quick = fleet.gate.patience()
    fleet.learn_pace("b", seconds=3.0)

    assert (quick, fleet.gate.patience()) == (LEAST_PATIENCE, 3.0)


def test_what_is_paid_and_what_is_short_are_told() -> None:
    fleet = Fleet(energy_level=12.0)

    paid = [fleet.gate.pay(cost) for cost in (10.0, 10.0, 0.0)]

    assert paid == [True, False, True]
    assert fleet.gate.affordable_in(2.0) == 0.0
    assert fleet.gate.affordable_in(5.0) == 3.0
    assert fleet.gate.short_of(10.0) == ("retry budget is short: 10 needed (energy 2.0 of 100)")


# Late ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_call_is_late_when_its_time_has_passed_though_it_has_not_ended(
    streamed: bool,
) -> None:
    fleet = Fleet("a")
    fleet.learn_pace("a")
    permit = fleet.begin("a", streamed=streamed)

    await fleet.clock.advance(LATE_AFTER - 0.001)
    before = fleet.gate.look(permit)
    await fleet.clock.advance(0.001)

    assert (before, fleet.gate.look(permit)) == (False, True)
    assert permit.late


async def test_while_too_little_is_known_no_call_is_late() -> None:
    fleet = Fleet("a")
    fleet.learn_pace("a", times=19)
    permit = fleet.begin("a")

    await fleet.clock.advance(1_000.0)

    assert not fleet.gate.look(permit)
    assert fleet.gate.hedge_times(permit) is None


async def test_whoever_comes_next_finds_who_is_late() -> None:
    fleet = Fleet("a")
    fleet.learn_pace("a")
    fleet.begin_many("a", 3)
    await fleet.clock.advance(LATE_AFTER + 0.01)
    late = fleet.begin("a")
    strained_by_three = fleet.lane("a").limiter.strained

    await fleet.clock.advance(LATE_AFTER + 0.01)
    fleet.ask("a")

    assert (strained_by_three, fleet.lane("a").limiter.strained) == (False, True)
    assert late.late


@pytest.mark.parametrize(
    "end", [ENDS[each] for each in ("well", "failed", "abandoned")], ids=["well", "bad", "left"]
)
async def test_a_late_call_counts_as_late_once_however_it_ends(end: Any) -> None:
    fleet = Fleet("a")
    fleet.learn_pace("a")
    permits = fleet.begin_many("a", 3)
    await fleet.clock.advance(LATE_AFTER)
    fleet.gate.look(permits[0])

    for permit in permits:
        end(fleet, permit)

    limiter = fleet.lane("a").limiter
    assert (limiter.strained, all(permit.late for permit in permits)) == (False, True)
    limiter.late(fleet.clock.now())
    assert limiter.strained  # that was the fourth


async def test_a_stream_that_has_spoken_in_time_is_late_no_more() -> None:
    fleet = Fleet("a")
    fleet.learn_pace("a")
    spoke, silent = fleet.begin("a", streamed=True), fleet.begin("a", streamed=True)

    fleet.gate.spoke(spoke)
    await fleet.clock.advance(1.0)
    fleet.ask("a")

    assert (spoke.late, silent.late) == (False, True)


async def test_a_stream_that_speaks_late_was_late() -> None:
    fleet = Fleet("a")
    fleet.learn_pace("a")
    permit = fleet.begin("a", streamed=True)

    await fleet.clock.advance(1.0)
    fleet.gate.spoke(permit)

    assert permit.late


async def test_a_streaming_probe_that_has_spoken_lets_others_in_where_nobody_else_is_well() -> None:
    fleet = Fleet("a")
    fleet.break_down("a")
    await fleet.clock.advance(0.6)
    probe = fleet.begin("a", streamed=True)
    silent = fleet.ask("a")

    fleet.gate.spoke(probe)

    assert isinstance(silent, Refused)
    for _ in range(3):
        fleet.gate.spoke(fleet.begin("a", streamed=True))


async def test_where_somebody_is_well_streaming_probes_keep_the_ladders_pace() -> None:
    fleet = Fleet("a", "b")
    fleet.break_down("a")
    await fleet.clock.advance(0.75)
    let_in = []

    for _ in range(120):  # each begins well, and nobody knows yet how it ends
        found = fleet.ask("a", streamed=True)
        if isinstance(found, Permit):
            let_in.append(fleet.clock.now())
            fleet.gate.spoke(found)
        await fleet.clock.advance(0.25)
    pauses = [after - before for before, after in pairwise(let_in)]

    assert pauses[:5] == [0.5, 1.5, 4.5, 9.0, 9.0]


async def test_streams_and_plain_answers_are_measured_apart() -> None:
    fleet = Fleet("a")
    for _ in range(20):
        fleet.gate.succeeded(fleet.begin("a"), 4.0, first=True)
        fleet.gate.succeeded(fleet.begin("a", streamed=True), 0.2, first=True)

    plain, streamed = fleet.begin("a"), fleet.begin("a", streamed=True)

    assert plain.late_at == pytest.approx(6.0)
    assert streamed.late_at == pytest.approx(0.3)


async def test_a_second_call_is_worth_its_price_at_twice_the_time_of_lateness() -> None:
    fleet = Fleet("a", "b")
    fleet.learn_pace("a")
    await fleet.clock.advance(7.0)
    permit = fleet.begin("a")

    assert fleet.gate.hedge_times(permit) == pytest.approx((7 + LATE_AFTER, 7 + 2 * LATE_AFTER))
    assert HEDGE_AFTER == 2.0
    assert fleet.gate.hedge_times(fleet.begin("b")) is None


async def test_a_provider_is_in_trouble_when_it_is_strained_or_not_closed() -> None:
    fleet = Fleet("a", "b", "c")
    for name in "abc":
        fleet.learn_pace(name)
    permits = {name: fleet.begin(name) for name in "abc"}

    await fleet.brown_out("b", calls=4)
    fleet.break_down("c")

    troubled = {name: fleet.gate.in_trouble(permit) for name, permit in permits.items()}
    assert troubled == {"a": False, "b": True, "c": True}


# Slow ---------------------------------------------------------------------------------------------


async def test_half_of_the_last_twenty_late_opens_a_breaker_if_somebody_else_is_faster() -> None:
    fleet = Fleet("a", "b")
    fleet.learn_pace("a")
    fleet.learn_pace("b", seconds=0.09)

    await fleet.brown_out("a", calls=9)
    nine = fleet.breaker("a").state
    await fleet.brown_out("a", calls=1)

    assert (nine, fleet.breaker("a").state) == ("closed", "open")
    assert fleet.breaker("a").failure_count == 0
    assert fleet.breaker("a").rule.only_slow


@pytest.mark.parametrize(
    ("other", "opens"),
    [
        ("faster", True),
        ("unknown", True),
        ("as fast", False),
        ("slower", False),
        ("full", False),
        ("with a queue", False),
        ("open", False),
        ("paused", False),
        ("its own other model", False),
        ("unknown to the gate", False),
    ],
)
async def test_a_brownout_is_an_outage_only_if_somebody_is_better(other: str, opens: bool) -> None:
    fleet = Fleet("a")
    fleet.learn_pace("a")
    pace = {"faster": 0.05, "as fast": PACE, "slower": 0.2, "its own other model": 0.01}
    if other == "its own other model":
        fleet.gate.provider("a", "other")
    else:
        fleet.breaker("b")
        if other != "unknown to the gate":
            fleet.lane("b")
        if not other.startswith("unknown"):
            fleet.learn_pace("b", pace.get(other, 0.05))
    match other:
        case "full":
            fleet.lane("b").limiter.in_flight = 160
        case "with a queue":
            fleet.lane("b").limiter.join(Queued(), NORMAL, 1)
        case "open":
            fleet.break_down("b")
        case "paused":
            fleet.fail(fleet.begin("b"), RateLimited("x", retry_after=60.0))

    await fleet.brown_out("a")

    assert (fleet.breaker("a").state == "open") is opens


class Queued:
    """Somebody in line.

    Attributes:
        got: The lanes of which a place was handed over.
        woken: How often there was another reason to look.
    """

    def __init__(self) -> None:
        self.got: list[Lane] = []
        self.woken = 0

    def grant(self, lane: Lane) -> bool:
        self.got.append(lane)
        return True

    def look_again(self) -> None:
        self.woken += 1


async def test_a_brownout_trips_once_and_a_new_count_begins() -> None:
    fleet = Fleet("a", "b")
    fleet.learn_pace("a")

    await fleet.brown_out("a", calls=12)

    assert fleet.breaker("a").state == "open"
    assert not fleet.lane("a").limiter.strained


async def test_one_that_is_only_slow_still_answers_those_who_have_nobody_else() -> None:
    fleet = Fleet("a", "b")
    fleet.learn_pace("a")
    await fleet.brown_out("a")

    refused = fleet.ask("a")
    alone = fleet.ask("a", nobody_else=True)

    assert isinstance(refused, Refused)
    assert isinstance(alone, Permit)
    assert (alone.token, alone.placed) == (STRAY, True)
    in_flight = fleet.lane("a").limiter.in_flight
    fleet.gate.succeeded(alone, PACE, first=True)
    assert fleet.lane("a").limiter.in_flight == in_flight - 1
    assert fleet.breaker("a").state == "open"  # it was no probe


async def test_one_that_fails_or_wants_a_pause_is_refused_to_those_too() -> None:
    fleet = Fleet("a", "b", "c")
    for name in "ac":
        fleet.learn_pace(name)
    fleet.break_down("a")
    permits = await fleet.brown_out("c")
    breaker = fleet.breaker("c")
    breaker.rule.paused_until = fleet.clock.now() + 60.0

    assert permits and breaker.rule.only_slow
    assert isinstance(fleet.ask("a", nobody_else=True), Refused)
    assert isinstance(fleet.ask("c", nobody_else=True), Refused)


async def slow_probe(fleet: Fleet) -> Permit:
    """Return the probe of a provider that broke down, when it is late."""
    fleet.learn_pace("a")
    fleet.break_down("a")
    await fleet.clock.advance(0.6)
    probe = fleet.begin("a")
    assert fleet.breaker("a").state == "half_open"
    await fleet.clock.advance(LATE_AFTER + 0.01)
    return probe


async def test_a_slow_probe_opens_again_at_the_moment_it_is_late() -> None:
    fleet = Fleet("a", "b")
    probe = await slow_probe(fleet)

    fleet.gate.look(probe)
    opened = fleet.breaker("a").state
    told = fleet.edges("a")
    fleet.gate.succeeded(probe, 2.0, first=True)

    assert (opened, fleet.breaker("a").state) == ("open", "open")
    assert told == ["open", "half_open", "open"]


@pytest.mark.parametrize("other", ["nobody", "another model of its own", "broken", "paused"])
async def test_a_slow_probe_does_not_open_again_if_nobody_else_is_well(other: str) -> None:
    fleet = Fleet("a")
    match other:
        case "another model of its own":
            fleet.gate.provider("a", "large")
        case "broken":
            fleet.break_down("b")
        case "paused":
            fleet.fail(fleet.begin("b"), RateLimited("x", retry_after=60.0))
    probe = await slow_probe(fleet)

    fleet.gate.look(probe)
    still = fleet.breaker("a").state
    fleet.gate.succeeded(probe, 2.0, first=True)

    assert (still, fleet.breaker("a").state) == ("half_open", "closed")


async def test_a_probe_is_told_when_it_begins_and_needs_no_place() -> None:
    fleet = Fleet("a", "b")
    fleet.break_down("a")
    fleet.lane("a").limiter.in_flight = 500
    await fleet.clock.advance(0.6)

    probe = fleet.begin("a")

    assert fleet.edges("a") == ["open", "half_open"]
    assert (probe.placed, fleet.lane("a").limiter.in_flight) == (False, 500)
    fleet.gate.succeeded(probe, PACE, first=True)
    assert fleet.lane("a").limiter.in_flight == 500


# Standing by --------------------------------------------------------------------------------------


def test_a_standby_that_has_never_answered_begins_with_what_another_has_proven_to_bear() -> None:
    fleet = Fleet("a", "b", "c")
    fleet.learn_pace("a")
    for permit in fleet.begin_many("a", 40):
        fleet.gate.succeeded(permit, PACE, first=True)

    fleet.begin("b", first=False)
    fleet.begin("c")

    assert fleet.lane("a").limiter.proven == 40
    assert fleet.lane("b").limiter.limit == 40 / 0.8
    assert fleet.lane("c").limiter.limit == START


def test_where_nobody_has_proven_anything_it_begins_with_four_at_once() -> None:
    fleet = Fleet("a", "b")

    let_in = [fleet.ask("b", first=False) for _ in range(5)]

    assert fleet.lane("b").limiter.limit == LEAST_STANDBY / 0.8
    assert [isinstance(each, Permit) for each in let_in] == [True] * 4 + [False]


def test_it_begins_so_only_once_and_never_above_the_usual() -> None:
    fleet = Fleet("a", "b", "c")
    fleet.lane("a").limiter.proven = 400

    fleet.begin("b", first=False)
    first = fleet.lane("b").limiter.limit
    fleet.gate.succeeded(fleet.begin("c"), PACE, first=True)
    answered = fleet.lane("c").limiter.limit
    fleet.lane("a").limiter.proven = 0
    fleet.begin("b", first=False)
    fleet.begin("c", first=False)

    assert (first, fleet.lane("b").limiter.limit) == (START, START)
    assert fleet.lane("c").limiter.limit == answered


# While nobody is well -----------------------------------------------------------------------------


async def test_while_nobody_is_well_one_is_tried_in_half_a_second_in_turn() -> None:
    fleet = Fleet("a", "b")
    fleet.break_down("a", "b")
    tried = []

    for _ in range(100):
        await fleet.clock.advance(0.05)
        for name in "ab":
            found = fleet.ask(name, again=True)
            if isinstance(found, Permit):
                tried.append((fleet.clock.now(), name))
                fleet.fail(found, ServerError("x"))

    times = [0.0, *(at for at, _ in tried)]
    gaps = [after - before for before, after in pairwise(times)]
    assert [name for _, name in tried] == (["a", "b"] * 5)[: len(tried)]
    assert all(0.499 < gap < 0.551 for gap in gaps) and len(gaps) >= 9


async def test_the_longer_it_is_dark_the_more_rarely_one_is_tried() -> None:
    fleet = Fleet("a")
    await fleet.clock.advance(1_000.0)
    fleet.break_down("a")
    await fleet.clock.advance(100.0)
    probe = fleet.ask("a")
    assert isinstance(probe, Permit)
    fleet.fail(probe, ServerError("x"))

    refused = fleet.ask("a")

    assert isinstance(refused, Refused) and refused.reason == "no provider is well"
    assert refused.retry_after == pytest.approx(5.0)
    assert fleet.breaker("a").rule.refused == 1


async def test_a_probe_in_the_dark_that_is_given_up_is_followed_by_another_at_once() -> None:
    fleet = Fleet("a")
    fleet.break_down("a")
    await fleet.clock.advance(1.0)

    fleet.gate.void(fleet.begin("a"))

    assert isinstance(fleet.ask("a"), Permit)


async def test_probes_in_the_dark_do_not_advance_the_ladder() -> None:
    fleet = Fleet("a", "b")
    fleet.break_down("a", "b")
    for _ in range(40):
        await fleet.clock.advance(0.25)
        probe = fleet.ask("a", again=True)
        if isinstance(probe, Permit):
            fleet.fail(probe, ServerError("x"))

    await fleet.magic.reset_circuit_breaker("ai_provider:b")
    refused = fleet.ask("a")

    assert isinstance(refused, Refused) and refused.reason == "it keeps failing"
    assert 0.0 < refused.retry_after <= 0.5


async def test_in_the_light_they_do() -> None:
    fleet = Fleet("a", "b")
    fleet.break_down("a")
    waits = []

    for _ in range(4):
        refused = fleet.ask("a")
        assert isinstance(refused, Refused)
        waits.append(refused.retry_after)
        await fleet.clock.advance(refused.retry_after)
        fleet.fail(fleet.begin("a"), ServerError("x"))

    assert waits == [pytest.approx(most, rel=0.1) for most in (0.5, 1.5, 4.5, 9.0)]


async def test_a_provider_that_nobody_asks_for_holds_up_nobody_in_the_dark() -> None:
    fleet = Fleet("a", "b")
    fleet.break_down("b", "a")  # b would be the next in turn

    tried = 0
    for _ in range(20):
        await fleet.clock.advance(0.5)
        found = fleet.ask("a")
        if isinstance(found, Permit):
            tried += 1
            fleet.fail(found, ServerError("x"))

    assert tried >= 9


async def test_a_paused_provider_is_not_tried_in_the_dark_and_says_for_how_long() -> None:
    fleet = Fleet("a", "b")
    breaker = fleet.breaker("a")
    fleet.break_down("a", "b")
    breaker.rule.paused_until = fleet.clock.now() + 20.0
    await fleet.clock.advance(5.0)

    assert fleet.ask("a") == (15.0, "no provider is well")
    assert isinstance(fleet.ask("b"), Permit)


def test_it_is_dark_while_no_provider_is_closed_and_not_paused() -> None:
    fleet = Fleet()
    fleet.gate.look_for_light(0.0)
    empty = fleet.gate.dark_since
    fleet.breaker("a")
    fleet.breaker("b")
    fleet.break_down("a")
    one_left = fleet.gate.dark_since

    fleet.fail(fleet.begin("b"), RateLimited("x", retry_after=60.0))
    none_left = fleet.gate.dark_since
    fleet.breaker("b").reset()
    fleet.gate.look_for_light(0.0)

    assert (empty, one_left, none_left, fleet.gate.dark_since) == (None, None, 0.0, None)


async def test_the_first_good_probe_brings_light() -> None:
    fleet = Fleet("a", "b")
    fleet.break_down("a", "b")
    await fleet.clock.advance(1.0)
    probe = fleet.begin("a")

    fleet.gate.succeeded(probe, PACE, first=True)

    assert fleet.gate.dark_since is None


async def test_time_earns_nothing_in_the_dark() -> None:
    fleet = Fleet("a", energy_level=50.0)
    fleet.break_down("a")

    await fleet.clock.advance(10.0)
    dark = fleet.magic.energy_level
    await fleet.magic.reset_circuit_breaker("ai_provider:a")
    await fleet.clock.advance(10.0)

    assert (dark, fleet.magic.energy_level) == (50.0, 60.0)


def test_a_provider_that_has_left_leaves_nothing_and_wakes_who_waits_for_it() -> None:
    fleet = Fleet("a", "b")
    fleet.gate.provider("a", "large")
    fleet.break_down("b")
    waiting = Queued()
    fleet.lane("a").limiter.join(waiting, NORMAL, 1)

    for name in ("a", "never called"):
        fleet.gate.forget_provider(name)

    assert set(fleet.gate.lanes) == {"b"}
    assert [name for name in fleet.magic.circuit_breakers if ":" in name] == ["ai_provider:b"]
    assert waiting.woken == 1
    assert fleet.gate.dark_since is not None


# Only critical work -------------------------------------------------------------------------------


def test_raised_only_critical_work_passes() -> None:
    fleet = Fleet("a")

    fleet.gate.raise_by_hand("a test")
    found = {each: fleet.ask("a", each) for each in Criticality}

    passed = {each for each, permit in found.items() if isinstance(permit, Permit)}
    assert passed == {CRITICAL, Criticality.CRITICAL_PLUS}
    assert found[NORMAL] == Raised(1.0, "only critical work passes: a test")


@pytest.mark.parametrize("by_itself", [True, False], ids=["by itself", "by hand"])
def test_what_rose_by_itself_lets_anybody_probe_and_what_was_raised_by_hand_nobody(
    by_itself: bool,
) -> None:
    fleet = Fleet("a", "b")
    fleet.break_down("b")
    fleet.begin_many("a", 160)
    assert fleet.gate.pay(90.0)
    fleet.gate._raise("a test", by_itself=by_itself)
    fleet.breaker("b").rule.allow_probe()

    found = fleet.ask("b", SHEDDABLE)
    critical = fleet.ask("b", CRITICAL)

    assert [isinstance(each, Permit) for each in (found, critical)] == [by_itself, not by_itself]


def test_raised_and_lowered_are_events_and_lowering_twice_is_one() -> None:
    fleet = Fleet("a")

    fleet.gate.raise_by_hand("up")
    fleet.gate.lower("down")
    fleet.gate.lower("down")

    told = [
        (event.raised, event.automatic, event.reason)
        for event in fleet.events
        if isinstance(event, AdmissionChanged)
    ]
    assert told == [(True, False, "up"), (False, False, "down")]


async def test_raising_costs_ten_and_lowering_gives_half_of_it_back() -> None:
    fleet = Fleet("a", energy_level=50.0)

    done = [await fleet.magic.fairy_shield(up) for up in (True, True, False, False)]

    assert done == [True] * 4
    assert fleet.magic.energy_level == 45.0
    assert not fleet.magic.is_shielded


async def test_it_is_not_raised_by_hand_with_less_than_ten() -> None:
    fleet = Fleet("a", energy_level=9.0)

    assert await fleet.magic.fairy_shield() is False
    assert isinstance(fleet.ask("a"), Permit)


def exhausted(*, energy: float = 14.0) -> Fleet:
    """Return a fleet with little budget, one provider broken and the other one full."""
    fleet = Fleet("a", "b", energy_level=energy)
    fleet.lane("b").limiter.in_flight = 160
    fleet.break_down("a")
    return fleet


def test_it_rises_by_itself_when_the_budget_is_low_and_nobody_has_room() -> None:
    fleet = exhausted()

    assert (fleet.gate.by_itself, bool(fleet.gate.raised)) == (True, True)
    event = fleet.events[0]
    assert isinstance(event, AdmissionChanged)
    assert (event.raised, event.automatic) == (True, True)
    assert fleet.magic.energy_level == 14.0  # for nothing
    assert isinstance(fleet.ask("b"), Raised) and isinstance(fleet.ask("b", CRITICAL), Permit)


@pytest.mark.parametrize("why", ["enough budget", "room", "nobody is broken"])
def test_it_does_not_rise_while_one_of_the_three_is_missing(why: str) -> None:
    fleet = Fleet("a", "b", energy_level=15.0 if why == "enough budget" else 14.0)
    if why != "room":
        fleet.lane("a").limiter.in_flight = fleet.lane("b").limiter.in_flight = 160
    if why != "nobody is broken":
        for _ in range(3):
            fleet.breaker("a").fail(fleet.breaker("a").rule.generation, ServerError("x"))
    fleet.gate.pay(0.001 if why == "nobody is broken" else 0.0)

    assert not fleet.gate.raised


def test_paying_may_raise_it_too() -> None:
    fleet = exhausted(energy=20.0)
    before = fleet.gate.raised

    fleet.gate.pay(10.0)

    assert (before, bool(fleet.gate.raised)) == ("", True)


async def test_while_it_is_raised_it_does_not_rise_again() -> None:
    fleet = exhausted()
    told = len(fleet.events)

    fleet.gate.pay(1.0)
    await fleet.magic.fairy_shield(True)
    fleet.gate.pay(1.0)

    reasons = [event.reason for event in fleet.events[told:] if hasattr(event, "reason")]
    assert reasons == ["raised by hand"]
    assert not fleet.gate.by_itself


def test_where_time_will_not_bring_enough_it_is_worth_asking_again_in_a_second() -> None:
    fleet = Fleet("a", "b", energy_level=14.0, max_energy=20.0)
    fleet.lane("b").limiter.in_flight = 160
    fleet.break_down("a")

    refused = fleet.ask("b")

    assert isinstance(refused, Raised) and refused.retry_after == 1.0


async def test_it_falls_by_itself_with_hysteresis() -> None:
    fleet = exhausted()
    fleet.lane("b").limiter.in_flight = 100  # room again, for usual work but not for all
    await fleet.clock.advance(15.9)

    still = fleet.ask("b")
    await fleet.clock.advance(0.1)
    fallen = fleet.ask("b")

    assert isinstance(still, Raised) and still.retry_after == pytest.approx(0.1)
    assert isinstance(fallen, Permit)
    last = fleet.events[-1]
    assert isinstance(last, AdmissionChanged)
    assert (last.raised, last.automatic, last.reason) == (
        *(False, True, "retry budget or room is back"),
    )


def test_it_falls_as_soon_as_there_is_room_for_everybody() -> None:
    fleet = exhausted()

    fleet.lane("b").limiter.in_flight = 99
    fallen = fleet.ask("b")

    assert isinstance(fallen, Permit) and not fleet.gate.raised


async def test_what_was_raised_by_hand_stays_until_it_is_lowered_by_hand() -> None:
    fleet = exhausted()

    await fleet.magic.fairy_shield(True)
    energy = fleet.magic.energy_level
    fleet.lane("b").limiter.in_flight = 0
    refused = fleet.ask("b")
    await fleet.magic.fairy_shield(False)

    assert energy == 14.0  # what has risen by itself is kept up for nothing
    assert isinstance(refused, Raised)
    assert isinstance(fleet.ask("b"), Permit)


async def test_what_has_risen_by_itself_and_is_lowered_by_hand_is_told_as_by_hand() -> None:
    fleet = exhausted()

    await fleet.magic.fairy_shield(False)

    last = fleet.events[-1]
    assert isinstance(last, AdmissionChanged)
    assert (last.raised, last.automatic, last.reason) == (False, False, "lowered by hand")


def test_those_in_line_hear_of_it_when_it_is_raised() -> None:
    fleet = Fleet("a")
    waiting = Queued()
    fleet.lane("a").limiter.join(waiting, NORMAL, 1)

    fleet.gate.raise_by_hand("a test")

    assert (waiting.woken, waiting.got) == (1, [])


# In line ------------------------------------------------------------------------------------------


def test_a_place_that_comes_free_is_handed_to_who_waits_longest() -> None:
    fleet = Fleet("a")
    permits = fleet.begin_many("a", 160)
    queue = [Queued(), Queued()]
    for order, waiting in enumerate(queue):
        fleet.lane("a").limiter.join(waiting, NORMAL, order)

    fleet.gate.void(permits[0])

    assert [len(waiting.got) for waiting in queue] == [1, 0]
    assert fleet.lane("a").limiter.in_flight == 160
    fleet.gate.release(fleet.lane("a"))
    assert [len(waiting.got) for waiting in queue] == [1, 1]


# On guard -----------------------------------------------------------------------------------------


async def test_on_guard_thresholds_and_limits_are_half_and_nothing_is_hedged_for_ten_minutes() -> (
    None
):
    fleet = Fleet("a", "b")
    fleet.learn_pace("a")
    under_way = fleet.begin_many("b", 2)
    await fleet.clock.advance(50.0)
    fleet.magic.harden(600.0)
    for permit in under_way:
        fleet.fail(permit, ServerError("x"))
    at_once = fleet.magic.circuit_breakers["ai_provider:b"].state.value
    fleet.magic.circuit_breakers["ai_provider:b"].reset()
    fleet.breaker("new")
    for name in ("a", "new"):
        for _ in range(2):
            fleet.fail(fleet.begin(name), ServerError("x"))

    states = fleet.states(["a", "b", "new"])
    places = [fleet.ask("b") for _ in range(81)]

    assert (at_once, states) == ("open", ["open", "closed", "open"])
    assert [isinstance(each, Permit) for each in places] == [True] * 80 + [False]
    assert fleet.lane("newest").limiter.scale == 0.5
    permit = Permit(fleet.breaker("b"), fleet.lane("b"), 0, True, False)
    permit.late_at = 1.0
    assert fleet.gate.hedge_times(permit) is None
    assert fleet.gate.hardened_for == 600.0


async def test_it_undoes_itself_when_its_time_is_over_and_serves_who_waits() -> None:
    fleet = Fleet("a", "b")
    fleet.magic.harden(600.0)
    fleet.begin_many("a", 80)
    waiting = Queued()
    fleet.lane("a").limiter.join(waiting, NORMAL, 1)
    await fleet.clock.advance(599.9)
    before = fleet.ask("a")

    await fleet.clock.advance(0.1)
    after = fleet.ask("b")

    assert isinstance(before, Full) and isinstance(after, Permit)
    assert waiting.got == [fleet.lane("a")]
    assert [lane.limiter.scale for lane in fleet.gate.lanes.values()] == [1.0] * 2
    for _ in range(2):
        fleet.fail(fleet.begin("b"), ServerError("x"))
    assert fleet.breaker("b").state == "closed"
    await fleet.clock.advance(5.0)
    assert fleet.gate.hardened_for == 0.0


async def test_that_it_is_over_is_seen_without_a_call() -> None:
    fleet = Fleet("a")
    fleet.magic.harden(600.0)
    await fleet.clock.advance(600.0)

    status: Any = await fleet.magic.get_system_status()

    assert status["hardened_for"] == 0.0
    assert status["limits"]["a"]["limit"] == START


async def test_even_the_breaker_that_many_models_share_is_as_patient_as_before() -> None:
    fleet = Fleet()
    fleet.magic.harden(600.0)
    for n in range(1_001):
        shared = fleet.gate.provider("a", f"model-{n}")
    await fleet.clock.advance(600.0)
    fleet.ask("a")

    for _ in range(2):
        shared.fail(shared.rule.generation, ServerError("x"))

    assert shared is fleet.magic.circuit_breakers["ai_provider:a"]
    assert shared.state == "closed"


# Whatever happens ---------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask as the last", "pass time", *ENDS]),
        st.sampled_from("ab"),
        st.integers(0, 30),
    ),
    max_size=120,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_whatever_happens_places_and_probes_come_back(log: list[tuple[str, str, int]]) -> None:
    fleet = Fleet("a", "b")
    for name in "ab":
        fleet.learn_pace(name)
    flying: list[Permit] = []

    for what, name, which in log:
        if what == "pass time":
            fleet.clock._now += 0.03 * which
        elif what.startswith("ask"):
            found = fleet.ask(name, list(Criticality)[which % 4], nobody_else=what != "ask")
            if isinstance(found, Permit):
                fleet.gate.begun(found, fleet.clock.now())
                flying.append(found)
        elif flying:
            ENDS[what](fleet, flying.pop(which % len(flying)))
        for lane in fleet.gate.lanes.values():
            placed = sum(permit.placed for permit in flying if permit.lane is lane)
            assert lane.limiter.in_flight == placed
            assert 1.0 <= lane.limiter.limit <= 500.0

    for permit in flying:
        fleet.gate.void(permit)
    for name in "ab":
        assert fleet.lane(name).limiter.in_flight == 0
        assert not fleet.breaker(name).tempo(False).flying
        breaker = fleet.breaker(name)
        assert breaker.rule.wait(fleet.clock.now()) == 0 or breaker.state is not State.HALF_OPEN
