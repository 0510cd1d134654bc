"""The laws of policies.breaker: a naive model to compare with, and each law by an example.

All times are multiples of 1/64 s, so that sums of them are exact.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zejzl.policies.breaker import (
    CROWD,
    MAX_PAUSE,
    Breaker,
    Pin,
    Refused,
    State,
    Transition,
)
from zejzl.policies.breaker_rules import BreakerRules

FORCED, DISABLED, UNPINNED = Pin.FORCED_OPEN, Pin.DISABLED, Pin.NONE
CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
LEGAL = {(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, OPEN), (HALF_OPEN, CLOSED)}
BY_HAND = {(OPEN, CLOSED), (HALF_OPEN, CLOSED)}

BUS = BreakerRules(first_probe_after=0.5, failure_ratio=0.5)


# The model: it remembers everything that happened, and recounts it whenever it is asked.


@dataclass
class Ticket:
    """A call that was let through: in which era, with which token, as which probe."""

    token: int
    era: int
    probe: bool = False
    ends: float = 0.0
    spoke: bool = False
    over: bool = False  # reported, or its place was taken


@dataclass
class Model:
    rules: BreakerRules
    now: float = 0.0
    state: State = CLOSED
    pin: Pin = UNPINNED
    era: int = 0
    counted: list[bool] = field(default_factory=list)  # failed? of each since it last closed
    until: float = 0.0
    last_probe: float = 0.0
    failed_probes: int = 0
    good_probes: int = 0
    outlived: int = 0
    heads: int = 0
    pauses: list[tuple[float, str]] = field(default_factory=list)
    probes: list[Ticket] = field(default_factory=list)
    late: int = 0
    refused: int = 0
    edges: list[tuple[State, State]] = field(default_factory=list)
    only_slow: bool = False
    off_the_ladder: bool = False  # the next probe, or the one under way, was its owner's idea

    def streak(self) -> int:
        return next(
            (n for n, failed in enumerate(reversed(self.counted)) if not failed),
            len(self.counted),
        )

    def silent(self) -> list[float]:
        return sorted(p.ends for p in self.probes if not p.over and not p.spoke)

    def wait(self, wary: bool = False) -> float:
        if self.pin is DISABLED:
            return 0.0
        waits = [0.0, *(until - self.now for until, _ in self.pauses)]
        if self.pin is FORCED:
            waits.append(self.rules.recovery_timeout)
        elif self.state is OPEN:
            waits.append(self.until - self.now)
        elif self.state is HALF_OPEN:
            live = [end for end in self.silent() if end > self.now]
            begun = [p for p in self.probes if not p.over and p.spoke]
            if len(live) >= self.rules.permits:
                waits.append(live[0] - self.now)
            elif wary and begun:
                pace = self.delay(self.failed_probes + len(begun) - 1)
                waits.append(self.last_probe + pace - self.now)
        return max(waits)

    def why(self, wait: float) -> str:
        if self.pin is FORCED:
            return "it is pinned open"
        pauses = [why for until, why in self.pauses if until - self.now == wait]
        return pauses[0] if pauses else "it keeps failing"

    def crowd(self) -> bool:
        return (
            self.state is OPEN
            and self.pin is UNPINNED
            and not self.only_slow
            and self.rules.first_probe_after is not None
            and self.heads >= 40
            and self.now - self.last_probe >= 0.5
            and all(until <= self.now for until, _ in self.pauses)
        )

    def acquire(self, again: bool, wary: bool) -> tuple[bool, float]:
        """Return whether a call is let through, and else for how long it is not."""
        wait = self.wait(wary)
        if wait > 0 and not self.crowd():
            self.refused += 1
            self.heads += self.state is not CLOSED and self.pin is UNPINNED and not again
            return False, wait
        return True, 0.0

    def admit(self, token: int, lease: float | None) -> Ticket:
        ticket = Ticket(token, self.era)
        if self.pin is DISABLED or self.state is CLOSED:
            return ticket
        if self.state is OPEN:
            self.move(HALF_OPEN)
            self.good_probes = self.outlived = 0
        lost = [p for p in self.probes if not p.over and not p.spoke and p.ends <= self.now]
        for probe in lost:
            probe.over = True
        self.outlived += bool(lost)
        longest = self.rules.recovery_timeout
        seconds = longest if lease is None else min(lease, longest)
        ticket = Ticket(token, self.era, probe=True)
        ticket.ends = self.now + min(seconds * 2**self.outlived, 3600.0)
        self.probes.append(ticket)
        self.last_probe = self.now
        self.heads = 0
        return ticket

    def report(self, ticket: Ticket, end: str) -> bool:
        """Take in how a call ended; whether that was news."""
        if ticket.probe and ticket in self.probes and not ticket.over:
            ticket.over = True
            if end == "ok":
                self.counted.append(False)
                self.good_probes += 1
                if self.good_probes == self.rules.permits:
                    self.close()
            elif end == "fail":
                self.counted.append(True)
                self.only_slow = False
                self.reopen()
            elif end == "slow":
                self.reopen()
            return True
        if ticket.era != self.era or self.pin is not UNPINNED or self.state is not CLOSED:
            self.late += 1
            return False
        if end in ("ok", "fail"):
            self.counted.append(end == "fail")
        if end == "slow" or (end == "fail" and self.trips()):
            self.failed_probes = 0
            self.only_slow = end == "slow"
            self.open()
        return True

    def trips(self) -> bool:
        rules, seen = self.rules, self.counted[-64:]
        if self.streak() >= rules.failure_threshold:
            return True
        if rules.failure_ratio is None or len(seen) < rules.minimum_calls:
            return False
        return sum(seen) >= rules.failure_ratio * len(seen)

    def reopen(self) -> None:
        self.failed_probes += not self.off_the_ladder
        self.open()

    def open(self) -> None:
        self.until = self.now + self.delay(self.failed_probes)
        self.last_probe = self.now
        self.heads = 0
        self.off_the_ladder = False
        self.move(OPEN)

    def delay(self, rung: int) -> float:
        rules = self.rules
        if rules.first_probe_after is None:
            return rules.recovery_timeout
        delay = rules.first_probe_after
        for _ in range(rung):
            delay = min(delay * 3, rules.recovery_timeout, rules.max_probe_delay)
        return min(delay, rules.recovery_timeout, rules.max_probe_delay)

    def close(self) -> None:
        self.counted = []
        self.heads = 0
        self.only_slow = self.off_the_ladder = False
        if self.state is not CLOSED:
            self.move(CLOSED)
        else:
            self.era += 1

    def move(self, after: State) -> None:
        self.edges.append((self.state, after))
        self.state = after
        self.begin()

    def begin(self) -> None:
        self.era += 1
        self.probes = []


PAUSES = [0.0, 0.5, 1.0, 20.0, 1e9]
LEASES = [None, 0.25, 1.0, 5.0, 100.0]


class AgainstTheModel(RuleBasedStateMachine):
    """Whatever is done to a breaker, in any order, a naive recount comes to the same."""

    @initialize(
        threshold=st.integers(1, 4),
        recovery_timeout=st.sampled_from([1.0, 8.0, 30.0]),
        first=st.sampled_from([None, 0.5]),
        permits=st.integers(1, 3),
        ratio=st.sampled_from([None, 0.5]),
        minimum=st.integers(1, 12),
    )
    def begin(
        self,
        threshold: int,
        recovery_timeout: float,
        first: float | None,
        permits: int,
        ratio: float | None,
        minimum: int,
    ) -> None:
        self.limits = BreakerRules(
            failure_threshold=threshold,
            recovery_timeout=recovery_timeout,
            first_probe_after=first,
            permits=permits,
            failure_ratio=ratio,
            minimum_calls=minimum,
        )
        self.model = Model(self.limits)
        self.breaker = Breaker(self.limits)
        self.tickets: list[Ticket] = []
        self.told: list[Transition] = []
        self.generation = 0

    @rule(seconds=st.sampled_from([1 / 64, 0.5, 1.0, 3.0, 30.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.model.now += seconds

    @rule()
    def time_passes_until_a_call_may_be_let_through(self) -> None:
        self.model.now += self.model.wait()

    @rule(lease=st.sampled_from(LEASES), again=st.booleans(), wary=st.booleans())
    def asks(self, lease: float | None, again: bool, wary: bool) -> None:
        self.ask(lease, again, wary)

    def ask(
        self, lease: float | None = None, again: bool = False, wary: bool = False
    ) -> Ticket | None:
        before = self.breaker.generation
        expected, wait = self.model.acquire(again, wary)
        found = self.breaker.try_acquire(self.model.now, lease=lease, again=again, wary=wary)
        if isinstance(found, Refused):
            assert (expected, wait) == (False, found.retry_after)
            assert found.reason == self.model.why(wait)
            return None
        assert expected
        if self.model.state is not CLOSED and self.model.pin is UNPINNED:
            assert found > before, "every probe is a generation of its own"
        ticket = self.model.admit(found, lease)
        assert len([end for end in self.model.silent() if end > self.model.now]) <= (
            self.limits.permits
        )
        self.tickets.append(ticket)
        return ticket

    @rule(again=st.booleans())
    def a_crowd_asks(self, again: bool) -> None:
        for _ in range(CROWD):
            self.ask(again=again)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), end=st.sampled_from(["ok", "ok", "fail", "fail", "void"]))
    def a_call_ends(self, data: st.DataObject, end: str) -> None:
        self.ends(self.any_ticket(data), end)

    @precondition(lambda self: self.tickets and self.model.state is CLOSED)
    @rule(ends=st.lists(st.booleans(), max_size=80))
    def many_calls_end(self, ends: list[bool]) -> None:
        for good in ends:
            self.ends(self.tickets[-1], "ok" if good else "fail")

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), seconds=st.sampled_from(PAUSES))
    def a_call_ends_with_a_pause(self, data: st.DataObject, seconds: float) -> None:
        ticket = self.any_ticket(data)
        reason = f"pause {len(self.model.pauses)}"
        if self.model.report(ticket, "pause"):
            self.model.pauses.append((self.model.now + min(seconds, 3600.0), reason))
        self.breaker.pause(ticket.token, self.model.now, seconds, reason)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def a_call_is_late(self, data: st.DataObject) -> None:
        ticket = self.any_ticket(data)
        if not (ticket in self.model.probes and self.model.off_the_ladder):
            self.ends(ticket, "slow")

    @rule()
    def what_a_pause_was_asked_for_is_mended(self) -> None:
        self.model.pauses = []
        self.breaker.unpause()

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def a_stream_speaks(self, data: st.DataObject) -> None:
        ticket = self.any_ticket(data)
        if ticket in self.model.probes and not ticket.over:
            ticket.spoke = True
        self.breaker.spoke(ticket.token)

    @precondition(lambda self: self.model.state is not CLOSED)
    @rule(lease=st.sampled_from(LEASES))
    def a_probe_is_let_through_when_it_is_due(self, lease: float | None) -> None:
        self.model.now += self.model.wait()
        assert self.ask(lease) is not None or self.model.pin is FORCED

    @precondition(lambda self: any(not probe.over for probe in self.model.probes))
    @rule(data=st.data(), end=st.sampled_from(["ok", "fail", "void"]))
    def a_probe_ends(self, data: st.DataObject, end: str) -> None:
        under_way = [probe for probe in self.model.probes if not probe.over]
        self.ends(data.draw(st.sampled_from(under_way)), end)

    @rule(pin=st.sampled_from([UNPINNED, UNPINNED, FORCED, DISABLED]))
    def somebody_pins_it(self, pin: Pin) -> None:
        if pin is not self.model.pin:
            self.model.pin = pin
            self.model.begin()
        self.breaker.pin = pin

    @rule()
    def somebody_resets_it(self) -> None:
        self.model.pin = UNPINNED
        self.model.pauses = []
        self.model.close()
        self.breaker.reset(self.model.now)

    @rule()
    def its_owner_wants_a_probe(self) -> None:
        if self.model.state is OPEN:
            self.model.until = self.model.now
            self.model.off_the_ladder = True
        self.breaker.allow_probe()

    @rule(shift=st.sampled_from([-50.0, 0.0, 1000.0]))
    def it_is_kept_and_restored_in_another_life(self, shift: float) -> None:
        self.take_news()
        kept = json.loads(json.dumps(self.breaker.snapshot(self.model.now)))
        model = self.model
        running = [(until, why) for until, why in model.pauses if until > model.now]
        model.pauses = [(until + shift, why) for until, why in running]
        model.now += shift
        model.until += shift
        model.last_probe += shift
        if model.state is HALF_OPEN:
            model.state, model.until = OPEN, model.now
        model.late = model.refused = 0
        model.off_the_ladder = False
        model.begin()
        self.breaker = Breaker(self.limits)
        self.breaker.restore(kept, model.now)
        assert self.breaker.generation > kept["generation"]

    @rule()
    def a_healthy_callee_in_demand_is_closed_within_one_wait(self) -> None:
        if self.model.pin is FORCED:
            self.somebody_pins_it(UNPINNED)
        if self.model.pin is DISABLED:
            return
        calls = waits = 0
        while self.model.state is not CLOSED:
            ticket = self.ask()
            if ticket is None:
                waits += 1
                self.time_passes_until_a_call_may_be_let_through()
            else:
                calls += 1
                self.ends(ticket, "ok")
        assert waits <= 1
        assert calls <= self.limits.permits

    @invariant()
    def they_agree(self) -> None:
        model, breaker = self.model, self.breaker
        assert breaker.state is model.state
        assert breaker.pin is model.pin
        assert breaker.wait(model.now) == model.wait()
        assert breaker.consecutive_failures == model.streak()
        assert (breaker.late, breaker.refused) == (model.late, model.refused)
        unpinned = model.state is CLOSED and model.pin is UNPINNED
        assert breaker.closed is (unpinned or model.pin is DISABLED)
        assert breaker.flowing == (breaker.generation if unpinned and not model.pauses else -1)
        if model.state is not CLOSED:
            assert breaker.probed_at == model.last_probe
        assert breaker.only_slow is (model.only_slow and model.pin is UNPINNED)
        probing = [probe for probe in model.probes if not probe.over]
        assert all(breaker.probing(ticket.token) is (ticket in probing) for ticket in self.tickets)
        assert breaker.generation >= self.generation
        self.generation = breaker.generation

    @invariant()
    def the_window_is_the_last_64_outcomes(self) -> None:
        if self.model.state is CLOSED:
            kept = self.breaker.snapshot(self.model.now)["window"]
            assert isinstance(kept, list)
            bits, calls = kept
            window = [bool(bits >> place & 1) for place in reversed(range(calls))]
            assert window == self.model.counted[-64:]

    @invariant()
    def every_edge_is_legal_and_told_once(self) -> None:
        for news in self.take_news():
            edge = (news.before, news.after)
            assert edge in (BY_HAND if news.reason == "reset by hand" else LEGAL)
            assert not self.told or news.generation > self.told[-1].generation
            assert news.now == self.model.now or self.told
            self.told.append(news)
        assert [(news.before, news.after) for news in self.told] == self.model.edges

    def any_ticket(self, data: st.DataObject) -> Ticket:
        return data.draw(st.sampled_from(self.tickets[-8:]))

    def ends(self, ticket: Ticket, end: str) -> None:
        self.model.report(ticket, end)
        match end:
            case "ok":
                self.breaker.ok(ticket.token, self.model.now)
            case "fail":
                self.breaker.fail(ticket.token, self.model.now)
            case "slow":
                self.breaker.slow(ticket.token, self.model.now, "late")
            case _:
                self.breaker.void(ticket.token)

    def take_news(self) -> list[Transition]:
        news, self.breaker.news = self.breaker.news, None
        return news or []


AgainstTheModel.TestCase.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None
)
TestABreakerIsItsModel = AgainstTheModel.TestCase


# Each law by an example.


def failing(breaker: Breaker, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        breaker.fail(token_of(breaker, now), now, "HTTP 500")


def token_of(breaker: Breaker, now: float, lease: float | None = None) -> int:
    token = breaker.try_acquire(now, lease=lease)
    assert not isinstance(token, Refused)
    return token


def refusal_of(breaker: Breaker, now: float, *, again: bool = False) -> Refused:
    refused = breaker.try_acquire(now, again=again)
    assert isinstance(refused, Refused)
    return refused


def opened(rules: BreakerRules | None = None, rng: Random | None = None) -> Breaker:
    breaker = Breaker(rules or BreakerRules(), rng)
    failing(breaker, breaker.rules.failure_threshold)
    assert breaker.state is OPEN
    return breaker


def test_opens_at_the_third_failure_in_a_row_and_not_before() -> None:
    breaker = Breaker(BreakerRules())

    failing(breaker, 2)
    breaker.ok(token_of(breaker, 0.0), 0.0)
    failing(breaker, 2)
    before = breaker.state
    failing(breaker, 1)

    assert (before, breaker.state) == (CLOSED, OPEN)


def test_what_happened_is_told_once_for_each_edge_with_its_reason() -> None:
    breaker = opened()
    breaker.ok(token_of(breaker, 30.0), 31.0)
    failing(breaker, 3, now=32.0)
    breaker.fail(token_of(breaker, 62.0), 63.0)
    breaker.reset(64.0)

    assert breaker.news == [
        (CLOSED, OPEN, 1, "3 failures in a row; the last: HTTP 500", 0.0),
        (OPEN, HALF_OPEN, 2, "a probe is due", 30.0),
        (HALF_OPEN, CLOSED, 4, "a probe came back well", 31.0),
        (CLOSED, OPEN, 5, "3 failures in a row; the last: HTTP 500", 32.0),
        (OPEN, HALF_OPEN, 6, "a probe is due", 62.0),
        (HALF_OPEN, OPEN, 8, "a probe failed: a call failed", 63.0),
        (OPEN, CLOSED, 9, "reset by hand", 64.0),
    ]


@pytest.mark.parametrize(
    ("before", "now", "after"),
    [(0, 0.0, 30.0), (0, 29.5, 0.5), (50, 29.0, 1.0)],
    ids=["just opened", "nearly over", "a crowd is turned away"],
)
def test_a_breaker_on_its_own_refuses_until_its_recovery_timeout_is_over(
    before: int, now: float, after: float
) -> None:
    breaker = opened()
    for _ in range(before):
        refusal_of(breaker, now)

    refused = refusal_of(breaker, now)

    assert refused == (after, "it keeps failing")
    assert breaker.refused == before + 1
    assert isinstance(breaker.try_acquire(now + after), int)


def test_half_the_calls_failing_opens_it_once_there_were_ten() -> None:
    breaker = Breaker(BreakerRules(failure_threshold=99, failure_ratio=0.5))
    for _ in range(4):
        failing(breaker, 1)
        breaker.ok(token_of(breaker, 0.0), 0.0)
    breaker.ok(token_of(breaker, 0.0), 0.0)

    at_nine = breaker.state
    failing(breaker, 1)

    assert (at_nine, breaker.state) == (CLOSED, OPEN)
    assert breaker.news is not None
    assert breaker.news[-1].reason == "5 of the last 10 calls failed; the last: HTTP 500"


def test_good_calls_before_the_first_failure_count_in_the_window() -> None:
    breaker = Breaker(BreakerRules(failure_threshold=99, failure_ratio=0.5))
    for _ in range(1000):
        breaker.ok(token_of(breaker, 0.0), 0.0)

    failing(breaker, 31)
    at_31_of_64 = breaker.state
    failing(breaker, 1)

    assert (at_31_of_64, breaker.state) == (CLOSED, OPEN)


def test_without_a_ratio_only_failures_in_a_row_open_it() -> None:
    breaker = Breaker(BreakerRules())

    for _ in range(100):
        failing(breaker, 2)
        breaker.ok(token_of(breaker, 0.0), 0.0)

    assert breaker.state is CLOSED


def test_the_window_forgets_a_failure_after_64_calls() -> None:
    rules = BreakerRules(failure_threshold=99, failure_ratio=0.5, minimum_calls=2)
    breaker = Breaker(rules)
    breaker.ok(token_of(breaker, 0.0), 0.0)
    breaker.ok(token_of(breaker, 0.0), 0.0)
    failing(breaker, 1)
    windows = []

    for _ in range(66):
        breaker.ok(token_of(breaker, 0.0), 0.0)
        windows.append(breaker.snapshot(0.0)["window"])
    failing(breaker, 1)

    assert windows[0] == [0b10, 4]
    assert windows[62:] == [[2**63, 64], [0, 64], [0, 64], [0, 64]]
    assert breaker.snapshot(0.0)["window"] == [1, 64]
    assert breaker.state is CLOSED


@pytest.mark.parametrize("end", ["void", "pause"])
def test_a_probe_that_says_nothing_gives_its_place_back_at_once(end: str) -> None:
    breaker = opened()
    token = token_of(breaker, 30.0)

    if end == "void":
        breaker.void(token)
    else:
        breaker.pause(token, 30.0, 0.0, "429")

    assert (breaker.state, breaker.wait(30.0), breaker.late) == (HALF_OPEN, 0.0, 0)
    assert token_of(breaker, 30.0) > token


def test_as_many_probes_as_permits_go_out_together_and_all_must_come_back_well() -> None:
    breaker = opened(BreakerRules(permits=2))
    first, second = token_of(breaker, 30.0), token_of(breaker, 30.0)
    third = refusal_of(breaker, 30.0)

    breaker.ok(first, 31.0)
    after_one = (breaker.state, breaker.consecutive_failures)
    breaker.ok(first, 31.0)
    after_its_double = (breaker.state, breaker.late)
    breaker.ok(second, 31.0)

    assert third.retry_after == 30.0
    assert after_one == (HALF_OPEN, 0)
    assert after_its_double == (HALF_OPEN, 1)
    assert breaker.state is CLOSED


def test_one_bad_probe_of_many_opens_it_again() -> None:
    breaker = opened(BreakerRules(permits=2))
    first, second = token_of(breaker, 30.0), token_of(breaker, 30.0)

    breaker.ok(first, 31.0)
    breaker.fail(second, 32.0)

    assert (breaker.state, breaker.wait(32.0)) == (OPEN, 30.0)


def test_a_restored_ladder_goes_on_where_it_was() -> None:
    breaker, other = opened(BUS), Breaker(BUS)
    breaker.fail(token_of(breaker, 0.5), 0.5)

    other.restore(breaker.snapshot(0.5), 0.0)
    other.fail(token_of(other, 1.5), 1.5)

    assert (breaker.wait(0.5), other.wait(1.5)) == (1.5, 4.5)


def test_the_ladder_of_probes_triples_up_to_nine_seconds() -> None:
    breaker = opened(BUS)
    now, waits = 0.0, []

    for _ in range(6):
        waits.append(refusal_of(breaker, now).retry_after)
        now += waits[-1]
        breaker.fail(token_of(breaker, now), now)

    assert waits == [0.5, 1.5, 4.5, 9.0, 9.0, 9.0]


def test_the_ladder_ends_at_a_recovery_timeout_below_nine_seconds() -> None:
    breaker = opened(BreakerRules(first_probe_after=0.5, recovery_timeout=2.0))
    breaker.fail(token_of(breaker, 1.0), 1.0)
    breaker.fail(token_of(breaker, 4.0), 4.0)

    assert refusal_of(breaker, 4.0).retry_after == 2.0


@given(st.randoms(use_true_random=False), st.floats(0, 1e6), st.floats(0, 0.99))
def test_jitter_only_shortens_a_delay(rng: Random, now: float, jitter: float) -> None:
    breaker = Breaker(BreakerRules(jitter=jitter, failure_threshold=1), Random(rng.random()))
    breaker.fail(token_of(breaker, now), now)

    wait = refusal_of(breaker, now).retry_after

    assert 30.0 * (1.0 - jitter) - 1e-6 <= wait <= 30.0 + 1e-6
    assert isinstance(breaker.try_acquire(now + wait + 1e-6), int)


def test_jitter_spreads_delays_over_the_whole_share() -> None:
    rng = Random(1)
    waits = [refusal_of(opened(BreakerRules(jitter=0.1), rng), 0.0).retry_after for _ in range(200)]

    assert 27.0 <= min(waits) < 27.2
    assert 29.8 < max(waits) <= 30.0


def test_jitter_without_a_source_of_chance_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"^jitter needs an rng to be drawn from$"):
        Breaker(BreakerRules(jitter=0.1))


def test_forty_heads_turned_away_earn_the_next_one_an_early_probe() -> None:
    breaker = opened(BUS)
    breaker.fail(token_of(breaker, 0.5), 1.0)  # the next probe is due at 2.5 s

    for _ in range(39):
        refusal_of(breaker, 1.5)
    for _ in range(100):
        refusal_of(breaker, 1.5, again=True)
    refusal_of(breaker, 1.5)

    assert breaker.try_acquire(1.5, again=True) == breaker.generation
    assert breaker.state is HALF_OPEN


def test_a_crowd_earns_a_probe_at_most_twice_a_second() -> None:
    breaker = opened(BUS)
    breaker.fail(token_of(breaker, 0.5), 0.5)
    breaker.fail(token_of(breaker, 2.0), 2.0)  # the next probe is due at 6.5 s
    probed = []

    for tick in range(32):
        now = 2.0 + tick / 16
        for _ in range(50):
            token = breaker.try_acquire(now)
            if not isinstance(token, Refused):
                probed.append(now)
                breaker.fail(token, now)

    assert probed == [2.5, 3.0, 3.5]


def test_a_crowd_does_not_break_a_pause_that_was_asked_for() -> None:
    breaker = Breaker(BUS)
    token = token_of(breaker, 0.0)
    breaker.pause(token, 0.0, 20.0, "429")
    for _ in range(3):
        breaker.fail(token, 0.0)

    refusals = {refusal_of(breaker, 10.0) for _ in range(100)}

    assert refusals == {(10.0, "429")}


def test_a_crowd_may_probe_in_the_moment_a_pause_ends() -> None:
    breaker = opened(BreakerRules(first_probe_after=0.5, permits=2))
    asks_for_a_pause, fails = token_of(breaker, 0.5), token_of(breaker, 0.5)
    breaker.pause(asks_for_a_pause, 0.5, 1.25, "429")
    breaker.fail(fails, 1.0)  # the next probe is due at 2.5 s

    for _ in range(CROWD):
        refusal_of(breaker, 1.625)

    assert isinstance(breaker.try_acquire(1.75), int)


def test_a_lost_probe_does_not_wedge_the_breaker() -> None:
    breaker = opened()
    lost = token_of(breaker, 30.0, lease=2.0)

    in_between = refusal_of(breaker, 31.0)
    second = token_of(breaker, 32.0, lease=2.0)
    breaker.fail(lost, 33.0)

    assert in_between == (1.0, "it keeps failing")
    assert (breaker.state, breaker.late) == (HALF_OPEN, 1)
    breaker.ok(second, 33.0)
    assert breaker.state is CLOSED


def test_a_probe_that_outlives_its_lease_still_counts_while_nobody_took_its_place() -> None:
    breaker = opened()
    token = token_of(breaker, 30.0, lease=1.0)

    breaker.ok(token, 90.0)

    assert breaker.state is CLOSED


@pytest.mark.parametrize("needs", [0.5, 5.0, 45.0, 1000.0], ids="{} s".format)
def test_a_callee_slower_than_the_lease_is_closed_again_all_the_same(needs: float) -> None:
    breaker = opened()
    now, under_way = 30.0, []

    while breaker.state is not CLOSED:
        token = breaker.try_acquire(now, lease=1.0)
        if not isinstance(token, Refused):
            under_way.append((now + needs, token))
        now += 0.5
        for ready, token in [call for call in under_way if call[0] <= now]:
            under_way.remove((ready, token))
            breaker.ok(token, now)

    assert now <= 30.0 + 3 * needs + 2.0


def test_a_lease_is_at_most_the_recovery_timeout_and_that_when_none_is_named() -> None:
    unnamed, long = opened(), opened()
    token_of(unnamed, 30.0)
    token_of(long, 30.0, lease=1e9)

    assert (unnamed.wait(30.0), long.wait(30.0)) == (30.0, 30.0)


def test_no_lease_is_longer_than_an_hour() -> None:
    breaker = opened()
    now = 30.0
    for _ in range(50):
        token_of(breaker, now)
        now += breaker.wait(now)

    token_of(breaker, now)

    assert breaker.wait(now) == MAX_PAUSE == 3600.0


def test_a_streaming_probe_that_spoke_bars_no_other_and_keeps_its_place() -> None:
    breaker = opened()
    stream = token_of(breaker, 30.0, lease=1.0)
    breaker.spoke(stream)

    token_of(breaker, 30.0, lease=1.0)
    refused = refusal_of(breaker, 30.5)
    token_of(breaker, 1000.0)
    breaker.ok(stream, 1000.0)

    assert refused.retry_after == 0.5
    assert breaker.state is CLOSED


def test_to_the_wary_a_stream_that_has_begun_proves_nothing_and_others_keep_the_ladders_pace() -> (
    None
):
    breaker = opened(BUS)
    for waited in (0.5, 0.5, 1.5, 4.5, 9.0):
        now = breaker.probed_at + waited
        soon = breaker.try_acquire(now - 0.25, wary=True)
        probe = breaker.try_acquire(now, wary=True)

        assert isinstance(soon, Refused) and soon.retry_after == 0.25
        assert isinstance(probe, int)
        breaker.spoke(probe)

    assert isinstance(breaker.try_acquire(now), int), "to others they prove enough"


@pytest.mark.parametrize("rules", [BreakerRules(), BUS], ids=["on its own", "of the bus"])
def test_the_longer_of_pause_and_delay_is_told(rules: BreakerRules) -> None:
    short, long = Breaker(rules), Breaker(rules)
    for breaker, seconds in ((short, 0.25), (long, 50.0)):
        token = token_of(breaker, 0.0)
        breaker.pause(token, 0.0, seconds, "429")
        for _ in range(3):
            breaker.fail(token, 0.0)

    assert refusal_of(short, 0.0) == (rules.delay(0), "it keeps failing")
    assert refusal_of(long, 0.0) == (50.0, "429")


@pytest.mark.parametrize("rules", [BreakerRules(), BUS], ids=["on its own", "of the bus"])
def test_of_a_pause_and_a_delay_as_long_the_pause_is_told(rules: BreakerRules) -> None:
    breaker = Breaker(rules)
    token = token_of(breaker, 0.0)
    breaker.pause(token, 0.0, rules.delay(0), "429")
    for _ in range(3):
        breaker.fail(token, 0.0)

    assert refusal_of(breaker, 0.0) == (rules.delay(0), "429")


def test_of_two_pauses_as_long_the_first_is_told() -> None:
    breaker = Breaker(BreakerRules())
    token = token_of(breaker, 0.0)

    breaker.pause(token, 0.0, 20.0, "429")
    breaker.pause(token, 0.0, 20.0, "503")

    assert refusal_of(breaker, 0.0) == (20.0, "429")


def test_a_pause_is_never_shortened_and_its_reason_stays() -> None:
    breaker = Breaker(BreakerRules())
    token = token_of(breaker, 0.0)
    breaker.pause(token, 0.0, 20.0, "long")

    breaker.pause(token, 1.0, 5.0, "short")
    breaker.pause(token, 1.0, -5.0, "negative")

    assert refusal_of(breaker, 1.0) == (19.0, "long")
    assert token_of(breaker, 20.0) == token
    assert breaker.state is CLOSED


def test_a_pause_of_a_week_is_over_after_an_hour() -> None:
    breaker = Breaker(BreakerRules())

    breaker.pause(token_of(breaker, 0.0), 0.0, 604_800.0, "429")

    assert refusal_of(breaker, 0.0).retry_after == 3600.0


def test_a_late_pause_is_dropped() -> None:
    breaker = opened()

    breaker.pause(0, 0.0, 500.0, "429")

    assert (breaker.wait(0.0), breaker.late) == (30.0, 1)


def test_pinned_open_refuses_everything_for_as_long_as_it_is_pinned() -> None:
    breaker = Breaker(BreakerRules())
    under_way = token_of(breaker, 0.0)

    breaker.pin = FORCED

    assert refusal_of(breaker, 1e9) == (30.0, "it is pinned open")
    for _ in range(5):
        breaker.fail(under_way, 0.0)
    breaker.pin = UNPINNED
    assert (breaker.state, breaker.consecutive_failures, breaker.late) == (CLOSED, 0, 5)


def test_pinned_disabled_refuses_nothing_and_counts_nothing() -> None:
    breaker = opened()
    breaker.pin = DISABLED

    for _ in range(50):
        breaker.fail(token_of(breaker, 1.0), 1.0)

    assert (breaker.state, breaker.wait(1.0), breaker.consecutive_failures) == (OPEN, 0.0, 3)
    breaker.pin = UNPINNED
    assert refusal_of(breaker, 1.0).retry_after == 29.0


def test_a_call_let_through_by_a_pin_is_no_probe() -> None:
    breaker = opened()
    probe = token_of(breaker, 30.0)
    breaker.pin = DISABLED

    breaker.ok(token_of(breaker, 30.0), 30.0)
    breaker.ok(probe, 30.0)

    assert (breaker.state, breaker.late) == (HALF_OPEN, 2)


def test_a_snapshot_is_json_with_times_as_seconds_to_go() -> None:
    breaker = opened(BUS)
    breaker.fail(token_of(breaker, 0.5), 1.0)
    refusal_of(breaker, 1.25)

    assert json.loads(json.dumps(breaker.snapshot(1.25))) == {
        "state": "open",
        "pin": "none",
        "generation": 4,
        "consecutive_failures": 4,
        "open_for": 1.25,
        "step": 1,
        "since_probe": 0.25,
        "turned_away": 1,
        "slow": False,
        "paused_for": 0.0,
        "pause_reason": "",
        "window": [0, 0],
    }


def test_a_restored_pause_goes_on_with_its_reason() -> None:
    breaker, other = Breaker(BreakerRules()), Breaker(BreakerRules())
    breaker.pause(token_of(breaker, 0.0), 0.0, 60.0, "429")

    other.restore(breaker.snapshot(20.0), 1000.0)

    assert refusal_of(other, 1000.0) == (40.0, "429")


def test_a_probe_of_an_earlier_life_is_late_and_another_is_due() -> None:
    breaker, other = opened(), Breaker(BreakerRules())
    probe = token_of(breaker, 30.0)

    other.restore(breaker.snapshot(30.0), 0.0)
    other.ok(probe, 0.0)

    assert (other.state, other.late, other.wait(0.0)) == (OPEN, 1, 0.0)


@pytest.mark.parametrize(
    ("rules", "kept", "wait"),
    [
        (BreakerRules(), {"open_for": 1e9}, 30.0),
        (BUS, {"open_for": 1e9, "step": 1}, 1.5),
        (BreakerRules(), {"paused_for": 1e9}, 3600.0),
        (BreakerRules(), {"state": "half_open"}, 0.0),
    ],
    ids=["a delay", "a rung of the ladder", "a pause", "a probe"],
)
def test_restored_waits_are_cut_to_what_the_rules_allow(
    rules: BreakerRules, kept: dict[str, object], wait: float
) -> None:
    breaker = Breaker(rules)

    breaker.restore(opened(rules).snapshot(1000.0) | kept, 5.0)

    assert breaker.wait(5.0) == wait
    assert isinstance(breaker.try_acquire(5.0 + wait), int)


@pytest.mark.parametrize(
    "damage",
    [
        {"state": "ajar"},
        {"pin": "needle"},
        {"generation": -1},
        {"consecutive_failures": 1.5},
        {"open_for": float("nan")},
        {"since_probe": -1.0},
        {"turned_away": True},
        {"paused_for": "long"},
        {"step": None},
        {"window": [1]},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_a_damaged_snapshot_is_told_and_changes_nothing(damage: dict[str, object]) -> None:
    breaker = Breaker(BreakerRules())
    failing(breaker, 1)
    before = breaker.snapshot(0.0)

    with pytest.raises(ValueError):
        breaker.restore(opened().snapshot(0.0) | damage, 0.0)
    incomplete = {name: value for name, value in before.items() if name not in damage}
    with pytest.raises(KeyError):
        breaker.restore(incomplete, 0.0)

    assert breaker.snapshot(0.0) == before


@given(st.lists(st.booleans(), max_size=100), st.lists(st.booleans(), max_size=100))
def test_a_restored_breaker_trips_when_the_first_would_have(
    before: list[bool], after: list[bool]
) -> None:
    rules = BreakerRules(failure_threshold=6, failure_ratio=0.5, jitter=0.1)
    one, two = Breaker(rules, Random(1)), Breaker(rules, Random())
    for failed in before:
        (one.fail if failed else one.ok)(one.generation, 0.0)
    two.restore(one.snapshot(1.0), 1.0)
    two._rng = Random()
    assert one._rng is not None
    two._rng.setstate(one._rng.getstate())

    for step, failed in enumerate(after):
        now = 1.0 + step
        tokens = [breaker.try_acquire(now) for breaker in (one, two)]
        assert [isinstance(token, int) for token in tokens] == [one.state is not OPEN] * 2
        for breaker, token in zip((one, two), tokens, strict=True):
            if isinstance(token, int):
                (breaker.fail if failed else breaker.ok)(token, now)

        assert one.state is two.state
        assert abs(one.wait(now) - two.wait(now)) < 1e-9


@pytest.mark.parametrize(
    "read",
    [lambda b: b.wait(7.0), lambda b: b.snapshot(7.0), lambda b: (b.closed, b.probed_at)],
    ids=["wait", "snapshot", "properties"],
)
def test_looking_changes_nothing(read: Callable[[Breaker], object]) -> None:
    breaker = opened(BreakerRules(recovery_timeout=1.0))
    probe = token_of(breaker, 1.0)

    read(breaker)
    breaker.ok(probe, 7.0)

    assert breaker.state is CLOSED


@pytest.mark.parametrize("rules", [BreakerRules(), BUS], ids=["on its own", "of the bus"])
def test_its_owner_may_end_a_delay_but_not_a_pause(rules: BreakerRules) -> None:
    breaker, paused = opened(rules), Breaker(rules)
    token = token_of(paused, 0.0)
    paused.pause(token, 0.0, 20.0, "429")
    for _ in range(3):
        paused.fail(token, 0.0)

    breaker.allow_probe()
    paused.allow_probe()

    assert (breaker.wait(0.0), paused.wait(0.0)) == (0.0, 20.0)
    assert token_of(breaker, 0.0) == breaker.generation
    assert refusal_of(paused, 0.0) == (20.0, "429")


def test_a_pause_that_is_nearly_over_is_not_the_reason() -> None:
    breaker = Breaker(BUS)
    token = token_of(breaker, 1000.0)
    breaker.pause(token, 1000.0, 0.25, "429")
    for _ in range(3):
        breaker.fail(token, 1000.0)

    assert refusal_of(breaker, 1000.0) == (0.5, "it keeps failing")


def test_an_early_probe_is_kept_as_due() -> None:
    breaker = opened(BUS)
    breaker.fail(token_of(breaker, 0.5), 0.5)
    for _ in range(CROWD):
        refusal_of(breaker, 1.0)
    token_of(breaker, 1.0)

    kept = breaker.snapshot(1.0)

    assert (kept["state"], kept["open_for"]) == ("open", 0.0)


def test_a_restored_crowd_keeps_its_distance_from_the_last_probe() -> None:
    breaker, other = opened(BUS), Breaker(BUS)
    breaker.fail(token_of(breaker, 0.5), 0.5)
    for _ in range(CROWD):
        refusal_of(breaker, 0.75)

    other.restore(breaker.snapshot(0.75), 1000.0)

    assert other.probed_at == 999.75
    assert refusal_of(other, 1000.0) == (1.25, "it keeps failing")
    assert isinstance(other.try_acquire(1000.25), int)


def slowed(rules: BreakerRules = BUS) -> Breaker:
    breaker = Breaker(rules)
    breaker.slow(token_of(breaker, 0.0), 0.0, "half of its answers were late")
    return breaker


def test_it_opens_for_lateness_when_its_owner_says_so_and_that_is_no_failure() -> None:
    breaker = Breaker(BUS)
    failing(breaker, 2)

    breaker.slow(token_of(breaker, 1.0), 1.0, "half of its answers were late")

    assert breaker.news == [(CLOSED, OPEN, 1, "half of its answers were late", 1.0)]
    assert (breaker.only_slow, breaker.consecutive_failures) == (True, 2)
    assert refusal_of(breaker, 1.0).retry_after == 0.5


def test_one_that_opened_for_failures_is_not_only_slow() -> None:
    breaker, closed = opened(BUS), Breaker(BUS)

    assert (breaker.only_slow, closed.only_slow) == (False, False)


def test_lateness_of_an_earlier_life_opens_nothing() -> None:
    breaker = opened()
    breaker.ok(token_of(breaker, 30.0), 30.0)

    breaker.slow(0, 31.0, "late")

    assert (breaker.state, breaker.late) == (CLOSED, 1)


def test_a_late_probe_opens_it_again_and_climbs_the_ladder() -> None:
    breaker = slowed()

    breaker.slow(token_of(breaker, 0.5), 0.5, "no answer in time")
    again = refusal_of(breaker, 0.5).retry_after
    breaker.slow(token_of(breaker, 2.0), 2.0, "no answer in time")

    assert (again, refusal_of(breaker, 2.0).retry_after) == (1.5, 4.5)
    assert breaker.only_slow
    assert breaker.news is not None
    assert breaker.news[-1].reason == "a probe was late: no answer in time"


def test_a_late_probe_of_one_that_failed_does_not_make_it_only_slow() -> None:
    breaker = opened(BUS)

    breaker.slow(token_of(breaker, 0.5), 0.5, "no answer in time")

    assert (breaker.state, breaker.only_slow, breaker.consecutive_failures) == (OPEN, False, 3)


def test_a_failed_probe_of_one_that_was_slow_is_a_failure() -> None:
    breaker = slowed()

    breaker.fail(token_of(breaker, 0.5), 0.5)

    assert (breaker.state, breaker.only_slow, breaker.consecutive_failures) == (OPEN, False, 1)


def test_a_good_probe_closes_one_that_was_slow() -> None:
    breaker = slowed()

    breaker.ok(token_of(breaker, 0.5), 0.6)

    assert (breaker.state, breaker.only_slow) == (CLOSED, False)


@pytest.mark.parametrize("pin", [FORCED, DISABLED])
def test_one_that_is_pinned_is_not_only_slow(pin: Pin) -> None:
    breaker = slowed()

    breaker.pin = pin
    pinned = breaker.only_slow
    breaker.pin = UNPINNED

    assert (pinned, breaker.only_slow) == (False, True)


def test_a_crowd_earns_no_early_probe_of_one_that_is_only_slow() -> None:
    breaker = slowed()
    breaker.slow(token_of(breaker, 0.5), 0.5, "late")  # the next probe is due at 2 s

    for _ in range(3 * CROWD):
        refusal_of(breaker, 1.5)
    breaker.fail(token_of(breaker, 2.0), 2.0)  # and now at 6.5 s, as of one that fails
    for _ in range(CROWD):
        refusal_of(breaker, 2.5)

    assert isinstance(breaker.try_acquire(2.5), int)


@pytest.mark.parametrize("rules", [BreakerRules(), BUS], ids=["on its own", "of the bus"])
def test_a_restored_slow_breaker_is_only_slow(rules: BreakerRules) -> None:
    breaker, other = slowed(rules), Breaker(rules)

    other.restore(json.loads(json.dumps(breaker.snapshot(0.25))), 1000.0)
    for _ in range(2 * CROWD):
        refusal_of(other, 1000.0)

    assert (other.state, other.only_slow) == (OPEN, True)
    assert other.wait(1000.0) == rules.delay(0) - 0.25


def test_a_snapshot_that_does_not_say_whether_it_was_slow_is_damaged() -> None:
    breaker = Breaker(BUS)
    kept = slowed().snapshot(0.0)
    del kept["slow"]

    with pytest.raises(KeyError):
        breaker.restore(kept, 0.0)

    assert breaker.state is CLOSED


def test_a_pause_whose_cause_was_mended_is_over() -> None:
    breaker = Breaker(BUS)
    token = token_of(breaker, 0.0)
    breaker.pause(token, 0.0, 30.0, "its key was refused")

    paused = refusal_of(breaker, 1.0)
    breaker.unpause()

    assert paused == (29.0, "its key was refused")
    assert (breaker.flowing, breaker.wait(1.0)) == (token, 0.0)
    assert token_of(breaker, 1.0) == token


def test_ending_a_pause_ends_no_delay() -> None:
    breaker = Breaker(BUS)
    token = token_of(breaker, 0.0)
    breaker.pause(token, 0.0, 30.0, "429")
    for _ in range(3):
        breaker.fail(token, 0.0)

    breaker.unpause()
    breaker.unpause()

    assert refusal_of(breaker, 0.0) == (0.5, "it keeps failing")


def test_a_shorter_pause_counts_once_a_longer_one_was_ended() -> None:
    breaker = Breaker(BUS)
    token = token_of(breaker, 0.0)
    breaker.pause(token, 0.0, 30.0, "long")
    breaker.unpause()

    breaker.pause(token, 1.0, 2.0, "short")

    assert refusal_of(breaker, 1.0) == (2.0, "short")


def test_a_probe_is_known_by_its_token_until_it_ends() -> None:
    breaker = opened(BreakerRules(permits=2))
    first, second = token_of(breaker, 30.0), token_of(breaker, 30.0)
    before = [breaker.probing(token) for token in (first, second, second + 1)]

    breaker.void(first)

    assert before == [True, True, False]
    assert [breaker.probing(token) for token in (first, second)] == [False, True]


def test_a_probe_whose_lease_is_over_is_one_until_another_takes_its_place() -> None:
    breaker = opened()
    lost = token_of(breaker, 30.0, lease=1.0)

    outlived = breaker.probing(lost)
    token_of(breaker, 40.0, lease=1.0)

    assert (outlived, breaker.probing(lost)) == (True, False)


def test_a_call_of_a_closed_breaker_is_no_probe() -> None:
    breaker = Breaker(BUS)

    assert not breaker.probing(token_of(breaker, 0.0))


def test_probes_before_their_time_do_not_climb_the_ladder() -> None:
    breaker = opened(BUS)

    for now in (0.125, 0.25, 0.375):
        breaker.allow_probe()
        breaker.fail(token_of(breaker, now), now)
    resting = breaker.wait(0.375)
    breaker.fail(token_of(breaker, 0.875), 0.875)

    assert (resting, breaker.wait(0.875)) == (0.5, 1.5)
    assert breaker.consecutive_failures == 7


def test_a_probe_before_its_time_of_an_outage_that_is_over_means_nothing_for_the_next() -> None:
    breaker = opened(BUS)
    breaker.allow_probe()
    breaker.ok(token_of(breaker, 0.0), 0.0)

    failing(breaker, 3, now=1.0)
    breaker.fail(token_of(breaker, 1.5), 1.5)

    assert breaker.wait(1.5) == 1.5


def test_only_an_open_breaker_can_be_allowed_a_probe() -> None:
    breaker, closed = opened(BUS), Breaker(BUS)
    probe = token_of(breaker, 0.5)

    breaker.allow_probe()
    closed.allow_probe()
    breaker.fail(probe, 0.5)

    assert (breaker.wait(0.5), closed.wait(0.0)) == (1.5, 0.0)
