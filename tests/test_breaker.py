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
    BreakerRules,
    Pin,
    Refused,
    State,
    Transition,
)

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

    def streak(self) -> int:
        return next(
            (n for n, failed in enumerate(reversed(self.counted)) if not failed),
            len(self.counted),
        )

    def silent(self) -> list[float]:
        return sorted(p.ends for p in self.probes if not p.over and not p.spoke)

    def wait(self) -> float:
        if self.pin is DISABLED:
            return 0.0
        waits = [0.0, *(until - self.now for until, _ in self.pauses)]
        if self.pin is FORCED:
            waits.append(self.rules.recovery_timeout)
        elif self.state is OPEN:
            waits.append(self.until - self.now)
        elif self.state is HALF_OPEN:
            live = [end for end in self.silent() if end > self.now]
            if len(live) >= self.rules.permits:
                waits.append(live[0] - self.now)
        return max(waits)

    def crowd(self) -> bool:
        return (
            self.state is OPEN
            and self.pin is UNPINNED
            and self.rules.first_probe_after is not None
            and self.heads >= 40
            and self.now - self.last_probe >= 0.5
            and all(until <= self.now for until, _ in self.pauses)
        )

    def acquire(self, lease: float | None, again: bool) -> tuple[bool, float]:
        """Return whether a call is let through, and else for how long it is not."""
        wait = self.wait()
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
                self.failed_probes += 1
                self.open()
            return True
        if ticket.era != self.era or self.pin is not UNPINNED or self.state is not CLOSED:
            self.late += 1
            return False
        if end in ("ok", "fail"):
            self.counted.append(end == "fail")
            if end == "fail" and self.trips():
                self.failed_probes = 0
                self.open()
        return True

    def trips(self) -> bool:
        rules, seen = self.rules, self.counted[-64:]
        if self.streak() >= rules.failure_threshold:
            return True
        if rules.failure_ratio is None or len(seen) < rules.minimum_calls:
            return False
        return sum(seen) >= rules.failure_ratio * len(seen)

    def open(self) -> None:
        rules = self.rules
        delay = rules.recovery_timeout
        if rules.first_probe_after is not None:
            delay = rules.first_probe_after
            for _ in range(self.failed_probes):
                delay = min(delay * 3, rules.recovery_timeout, rules.max_probe_delay)
            delay = min(delay, rules.recovery_timeout, rules.max_probe_delay)
        self.until = self.now + delay
        self.last_probe = self.now
        self.heads = 0
        self.move(OPEN)

    def close(self) -> None:
        self.counted = []
        self.heads = 0
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
        self.rules = BreakerRules(
            failure_threshold=threshold,
            recovery_timeout=recovery_timeout,
            first_probe_after=first,
            permits=permits,
            failure_ratio=ratio,
            minimum_calls=minimum,
        )
        self.model = Model(self.rules)
        self.breaker = Breaker(self.rules)
        self.tickets: list[Ticket] = []
        self.told: list[Transition] = []
        self.generation = 0

    @rule(seconds=st.sampled_from([1 / 64, 0.5, 1.0, 3.0, 30.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.model.now += seconds

    @rule()
    def time_passes_until_a_call_may_be_let_through(self) -> None:
        self.model.now += self.model.wait()

    @rule(lease=st.sampled_from(LEASES), again=st.booleans())
    def asks(self, lease: float | None, again: bool) -> None:
        self.ask(lease, again)

    def ask(self, lease: float | None = None, again: bool = False) -> Ticket | None:
        before = self.breaker.generation
        expected, wait = self.model.acquire(lease, again)
        found = self.breaker.try_acquire(self.model.now, lease=lease, again=again)
        if isinstance(found, Refused):
            assert (expected, wait) == (False, found.retry_after)
            return None
        assert expected
        if self.model.state is not CLOSED and self.model.pin is UNPINNED:
            assert found > before, "every probe is a generation of its own"
        ticket = self.model.admit(found, lease)
        assert len([end for end in self.model.silent() if end > self.model.now]) <= (
            self.rules.permits
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
        if self.model.report(ticket, "pause"):
            until = self.model.now + min(seconds, 3600.0)
            self.model.pauses.append((until, f"{seconds} s"))
        self.breaker.pause(ticket.token, self.model.now, seconds, f"{seconds} s")

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def a_stream_speaks(self, data: st.DataObject) -> None:
        ticket = self.any_ticket(data)
        if ticket in self.model.probes and not ticket.over:
            ticket.spoke = True
        self.breaker.spoke(ticket.token)

    @rule(pin=st.sampled_from(Pin))
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
        model.begin()
        self.breaker = Breaker(self.rules)
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
        assert calls <= self.rules.permits

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
        assert breaker.generation >= self.generation
        self.generation = breaker.generation

    @invariant()
    def the_window_is_the_last_64_outcomes(self) -> None:
        if self.model.state is CLOSED:
            bits, calls = self.breaker.snapshot(self.model.now)["window"]  # type: ignore[misc]
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
            case _:
                self.breaker.void(ticket.token)

    def take_news(self) -> list[Transition]:
        news, self.breaker.news = self.breaker.news, None
        return news or []


AgainstTheModel.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None
)
TestABreakerIsItsModel = AgainstTheModel.TestCase
