"""The laws of policies.admission: a naive crowd to compare with, and each law by an example.

All times are multiples of 1/64 s, so that sums of them are exact.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, inf, sqrt
from weakref import ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zejzl.policies.admission import (
    LEAST_STANDBY,
    LINE,
    START,
    TOO_MANY,
    USUAL,
    Criticality,
    Limiter,
    loyalty,
)

SHEDDABLE, NORMAL, CRITICAL, PLUS = Criticality
WAITING = [NORMAL, CRITICAL, PLUS]
SHARES = {SHEDDABLE: 0.5, NORMAL: 0.8, CRITICAL: 0.95, PLUS: 1.0}


# The model: it remembers everything that happened, and recounts it whenever it is asked.


@dataclass(eq=False)
class Caller:
    """Somebody who cannot be compared with anybody: only class and age may decide."""

    criticality: Criticality
    order: int
    started: float = 0.0
    crowd: int = 0


@dataclass
class Learned:
    limit: float
    # What, when, and of an answer in time when its call began, of any answer beside how many, of
    # a refusal the limit before it.
    news: list[tuple[str, float, float]] = field(default_factory=list)
    proven: int = 0
    proving: bool = False

    def late_ones(self) -> int:
        seen: list[str] = []
        for what, _, _ in self.news:
            if what == "forgotten":
                seen = []
            elif what in ("answer", "late"):
                seen.append(what)
        return seen[-20:].count("late")

    def last(self, *kinds: str) -> float:
        return max((when for what, when, _ in self.news if what in kinds), default=-inf)

    def lesson(self) -> tuple[float, float | None]:
        """Return when it was last refused for overload, and the limit an outage would restore."""
        when, restores = -inf, None
        for what, at, value in self.news:
            if what == "refusal":
                when, restores = at, value if restores is None else restores
            elif what == "answer" and value > when:
                restores = None
            elif what == "outage" and restores is not None:
                when, restores = -inf, None
        return when, restores

    def on_time(self, now: float, started: float, swift: bool, flying: int) -> None:
        self.news.append(("answer", now, started))
        if swift:
            self.proven = max(self.proven, flying)
        calm = now - self.last("late", "refusal")
        before = self.limit
        self.proving &= before < 200
        if flying >= before / 2 and self.proving:
            self.limit = min(200.0, before + swift)
        elif flying >= before / 2:
            steps = [0.1 if self.late_ones() >= 4 else 1 / sqrt(before)]
            steps += [] if swift else [0.01]
            steps += [0.003 * before] if now - self.lesson()[0] < 60 else []
            self.limit = min(500.0, before + min(steps))
        if swift and before < 200 and 60 <= calm < inf:
            self.limit = 200.0

    def late(self, now: float, flying: int) -> None:
        self.news.append(("late", now, 0.0))
        self.proving = False
        if self.late_ones() >= 4:
            self.limit = max(1.0, min(self.limit, flying) - 1)

    def overloaded(self, now: float, crowd: int, usual: float, flying: int) -> bool:
        served = [beside for what, _, beside in self.news if what == "served"][-20:]
        as_many = [beside for beside in served if beside >= crowd]
        if not served and (flying == 1 or crowd == 1):
            return False
        if served and (now - self.last("served") > usual or len(as_many) >= len(served) / 5):
            return False
        self.news.append(("refusal", now, self.limit))
        self.proving = False
        self.limit = max(1.0, min(self.limit, crowd - TOO_MANY))
        return True

    def outage(self, now: float) -> None:
        _, restores = self.lesson()
        self.news.append(("outage", now, 0.0))
        self.limit = max(self.limit, restores or 0.0)


class AgainstTheCrowd(RuleBasedStateMachine):
    """Whoever comes, leaves or gives up, in any order, a naive crowd comes to the same."""

    @initialize(limit=st.sampled_from([1.0, 2.5, 7.0, 20.0, 199.0]))
    def begin(self, limit: float) -> None:
        self.limiter: Limiter[Caller] = Limiter(limit)
        self.learned = Learned(limit)
        self.now = 0.0
        self.scale = 1.0
        self.came = 0
        self.inside: list[Caller] = []
        self.line: list[Caller] = []
        self.away: list[Caller] = []

    def places(self, criticality: Criticality) -> int:
        return ceil(SHARES[criticality] * max(1.0, self.learned.limit * self.scale))

    def first_in_line(self) -> Caller:
        return min(self.line, key=lambda who: (-who.criticality, who.order))

    def come(self, criticality: Criticality) -> None:
        self.came += 1
        who = Caller(criticality, self.came)
        if not self.limiter.admits(criticality):
            assert len(self.inside) >= self.places(criticality)
            if criticality is not SHEDDABLE:
                self.limiter.join(who, criticality, who.order)
                self.line.append(who)
            return
        assert all(waiting.criticality < criticality for waiting in self.line), "slipped in"
        self.limiter.in_flight += 1
        self.take_place(who)

    def take_place(self, who: Caller) -> None:
        assert len(self.inside) < self.places(who.criticality) <= self.places(PLUS)
        self.inside.append(who)
        who.started, who.crowd = self.now, len(self.inside)
        assert self.limiter.in_flight == len(self.inside)

    def leave(self, who: Caller, too_late: int = 0) -> None:
        self.inside.remove(who)
        self.limiter.leave()
        self.serve(too_late)

    def serve(self, too_late: int = 0) -> None:
        """Hand places over; `too_late` of those who get one have given up in that moment."""
        for who in self.limiter.served():
            assert who is self.first_in_line()
            self.line.remove(who)
            self.take_place(who)
            if too_late:
                too_late -= 1
                self.leave(who)
        assert not self.line or len(self.inside) >= self.places(self.first_in_line().criticality)

    @rule(classes=st.lists(st.sampled_from(Criticality), min_size=1, max_size=30))
    def a_crowd_comes(self, classes: list[Criticality]) -> None:
        for criticality in classes:
            self.come(criticality)

    @precondition(lambda self: self.inside)
    @rule(data=st.data(), too_late=st.integers(0, 2))
    def somebody_leaves(self, data: st.DataObject, too_late: int) -> None:
        self.leave(data.draw(st.sampled_from(self.inside)), too_late)

    @precondition(lambda self: self.inside)
    @rule(data=st.data(), swift=st.booleans())
    def somebody_is_answered(self, data: st.DataObject, swift: bool) -> None:
        self.answer(data.draw(st.sampled_from(self.inside)), late=False, swift=swift)

    @precondition(lambda self: self.inside)
    @rule(ends=st.lists(st.booleans(), min_size=1, max_size=25))
    def many_calls_end_and_others_begin(self, ends: list[bool]) -> None:
        for late in ends:
            self.answer(self.inside[0], late=late, swift=True)
            self.come(NORMAL)

    def answer(self, who: Caller, *, late: bool, swift: bool) -> None:
        if late:
            self.somebody_is_late()
        else:
            self.learned.on_time(self.now, who.started, swift, len(self.inside))
            self.limiter.on_time(self.now, who.started, swift=swift)
        self.learned.news.append(("served", self.now, who.crowd))
        self.limiter.answered(self.now, who.crowd)
        self.leave(who)

    @precondition(lambda self: self.inside)
    @rule()
    def somebody_is_late(self) -> None:
        self.learned.late(self.now, len(self.inside))
        self.limiter.late(self.now)

    @precondition(lambda self: self.inside)
    @rule(data=st.data(), more=st.integers(0, 20), usual=st.sampled_from([0.5, 2.0]))
    def somebody_is_refused(self, data: st.DataObject, more: int, usual: float) -> None:
        who = data.draw(st.sampled_from(self.inside))
        crowd = who.crowd + more  # so many, as if others had been there when it came
        expected = self.learned.overloaded(self.now, crowd, usual, len(self.inside))
        assert self.limiter.overloaded(self.now, crowd, usual) is expected
        self.leave(who)

    @precondition(lambda self: not self.inside and not self.line)
    @rule(limit=st.sampled_from([5.0, 120.0, 199.5]))
    def nobody_knows_it_yet(self, limit: float) -> None:
        self.learned.limit, self.learned.proving = limit, True
        self.limiter.begin_at(limit)

    @rule()
    def it_goes_down(self) -> None:
        self.learned.outage(self.now)
        self.limiter.outage()
        self.serve()  # the owner sends all who wait to look again

    @rule()
    def lateness_has_had_its_effect(self) -> None:
        self.learned.news.append(("forgotten", self.now, 0.0))
        self.limiter.forget_lateness()

    @rule(seconds=st.sampled_from([1 / 64, 0.5, 2.0, 30.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(scale=st.sampled_from([0.5, 1.0]))
    def its_owner_is_on_guard_or_not(self, scale: float) -> None:
        self.limiter.scale = self.scale = scale
        self.serve()

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def somebody_gives_up(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(self.line))
        self.line.remove(who)
        self.away.append(who)
        self.limiter.quit(who)

    @precondition(lambda self: self.inside + self.away)
    @rule(data=st.data())
    def somebody_quits_who_does_not_wait(self, data: st.DataObject) -> None:
        self.limiter.quit(data.draw(st.sampled_from(self.inside + self.away)))

    @precondition(lambda self: self.away)
    @rule(data=st.data())
    def somebody_is_back_in_the_old_place(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(self.away))
        self.away.remove(who)
        self.line.append(who)
        self.limiter.join(who, who.criticality, who.order)
        self.serve()

    @rule()
    def all_who_wait_are_sent_to_look_again(self) -> None:
        everybody = self.limiter.outwaited()
        assert sorted(who.order for who in everybody) == sorted(who.order for who in self.line)
        self.away += self.line
        self.line = []

    @invariant()
    def they_agree(self) -> None:
        limiter, learned = self.limiter, self.learned
        assert (limiter.in_flight, limiter.waiting) == (len(self.inside), len(self.line))
        assert limiter.limit == learned.limit
        assert 1.0 <= limiter.limit <= 500.0
        assert limiter.proven == learned.proven
        assert limiter.strained is (learned.late_ones() >= 4)
        assert limiter.browned_out is (learned.late_ones() >= 10)

    @invariant()
    def a_lower_class_is_never_let_in_where_a_higher_one_is_not(self) -> None:
        admitted = [self.limiter.admits(criticality) for criticality in Criticality]
        assert admitted == sorted(admitted)
        assert self.limiter.has_room is (not self.line and admitted[NORMAL])

    @invariant()
    def the_wait_is_that_of_those_ahead(self) -> None:
        for criticality in Criticality:
            ahead = sum(who.criticality >= criticality for who in self.line)
            places = max(1.0, SHARES[criticality] * self.learned.limit * self.scale)
            assert self.limiter.expected_wait(criticality, 2.0) == (ahead + 1) * 2.0 / places


AgainstTheCrowd.TestCase.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None
)
TestALimiterIsItsCrowd = AgainstTheCrowd.TestCase


# Each law by an example.


def busy(limit: float, in_flight: int = 0) -> Limiter[str]:
    limiter: Limiter[str] = Limiter(limit)
    limiter.in_flight = in_flight
    return limiter


def refuse(limiter: Limiter[str], now: float, crowd: int) -> None:
    """Refuse one of a crowd while others are served; none began in so large a one."""
    limiter.answered(now, 0)
    assert limiter.overloaded(now, crowd, 1.0)


def refuse_and_go_down(limiter: Limiter[str], now: float) -> None:
    refuse(limiter, now, 100)
    limiter.outage()


def strain(limiter: Limiter[str], now: float = 0.0) -> None:
    for _ in range(4):
        limiter.late(now)


@pytest.mark.parametrize(
    ("criticality", "places"),
    [(SHEDDABLE, 100), (NORMAL, 160), (CRITICAL, 190), (PLUS, 200)],
    ids=lambda value: getattr(value, "name", None),
)
def test_each_class_fills_its_share_of_the_limit(criticality: Criticality, places: int) -> None:
    limiter = busy(200.0, places - 1)

    one_left = limiter.admits(criticality)
    limiter.in_flight += 1

    assert (one_left, limiter.admits(criticality)) == (True, False)


@pytest.mark.parametrize("criticality", Criticality, ids=lambda each: each.name)
def test_an_empty_provider_has_a_place_for_every_class(criticality: Criticality) -> None:
    limiter = busy(1.0)
    limiter.scale = 0.5

    assert limiter.admits(criticality, 0.5)
    limiter.in_flight = 1
    assert not limiter.admits(criticality)


def test_a_fraction_of_a_place_is_a_place() -> None:
    limiter = busy(2.5, 2)

    assert limiter.admits(PLUS)
    limiter.in_flight = 3
    assert not limiter.admits(PLUS)


def test_a_limit_that_shrank_takes_nobody_out() -> None:
    limiter = busy(20.0, 18)

    strain(limiter)
    limiter.limit = 5.0

    assert (limiter.in_flight, limiter.admits(PLUS)) == (18, False)


def test_on_guard_half_of_the_limit_holds() -> None:
    limiter = busy(200.0, 79)
    limiter.scale = 0.5

    assert limiter.admits(NORMAL)
    limiter.in_flight = 80
    assert not limiter.admits(NORMAL)


def test_a_new_limiter_is_empty_and_starts_at_two_hundred() -> None:
    limiter: Limiter[str] = Limiter()

    assert (limiter.limit, limiter.in_flight, limiter.proven) == (200.0, 0, 0)
    assert (limiter.waiting, limiter.strained, limiter.has_room) == (0, False, True)


def test_the_numbers_that_others_go_by() -> None:
    assert (START, LINE, LEAST_STANDBY, USUAL) == (200.0, 2_000, 4, 0.8)


@pytest.mark.parametrize(
    ("asked", "limit"), [(0.0, 1.0), (-5.0, 1.0), (3.5, 3.5), (500.0, 500.0), (1e9, 500.0)]
)
def test_a_limit_begins_between_one_and_five_hundred(asked: float, limit: float) -> None:
    assert busy(asked).limit == limit


def test_a_usual_call_has_no_room_while_anybody_waits() -> None:
    limiter = busy(20.0)

    before = limiter.has_room
    limiter.join("ann", NORMAL, 1)
    while_waiting = limiter.has_room
    limiter.quit("ann")
    limiter.in_flight = 16

    assert (before, while_waiting, limiter.has_room) == (True, False, False)


@pytest.mark.parametrize(
    ("late", "is_so"),
    [(4, lambda limiter: limiter.strained), (10, lambda limiter: limiter.browned_out)],
    ids=["strained", "browned out"],
)
def test_lateness_is_counted_in_the_last_twenty_calls(
    late: int, is_so: Callable[[Limiter[str]], bool]
) -> None:
    limiter = busy(200.0, 1)
    told = []

    for _ in range(late):
        told.append(is_so(limiter))
        limiter.late(0.0)
    for _ in range(20 - late):
        limiter.on_time(0.0, 0.0)
    at_twenty = is_so(limiter)
    limiter.on_time(0.0, 0.0)

    assert told == [False] * late
    assert (at_twenty, is_so(limiter)) == (True, False)


def test_what_is_forgotten_of_lateness_is_counted_anew() -> None:
    limiter = busy(200.0, 100)
    strain(limiter)

    limiter.forget_lateness()
    forgotten = limiter.strained
    limiter.late(0.0)

    assert (forgotten, limiter.strained, limiter.limit) == (False, False, 99.0)


def test_a_few_late_calls_change_nothing() -> None:
    limiter = busy(200.0, 10)

    for _ in range(3):
        limiter.late(0.0)

    assert limiter.limit == 200.0


@pytest.mark.parametrize(
    ("limit", "in_flight", "after"),
    [(200.0, 50, 49.0), (20.0, 50, 19.0), (200.0, 1, 1.0), (1.5, 9, 1.0), (200.0, 0, 1.0)],
    ids=["below what is in flight", "below itself", "of one call", "at the least", "of none"],
)
def test_under_strain_a_late_call_lowers_the_limit(
    limit: float, in_flight: int, after: float
) -> None:
    limiter = busy(limit, in_flight)

    strain(limiter)

    assert limiter.limit == after


@pytest.mark.parametrize(
    ("swift", "strained", "wary", "step"),
    [
        (True, False, False, 0.1),
        (False, False, False, 0.01),
        (True, True, False, 0.1),
        (False, True, False, 0.01),
        (True, False, True, 0.3),
        (False, False, True, 0.01),
    ],
    ids=[
        "swift: one over the root",
        "not swift: a hundredth",
        "strained: a tenth",
        "strained and not swift",
        "wary, but the root is less",
        "wary and not swift",
    ],
)
def test_an_answer_on_time_raises_a_limit_of_a_hundred(
    swift: bool, strained: bool, wary: bool, step: float
) -> None:
    limiter = busy(100.0, 50)
    if strained:
        strain(limiter)
    if wary:
        refuse(limiter, 10.0, 100)
    limiter.limit = 100.0

    limiter.on_time(10.0, 9.5, swift=swift)

    assert limiter.limit == pytest.approx(100.0 + min(step, 0.1))


@pytest.mark.parametrize(
    ("swift", "strained", "step"),
    [(True, False, 0.5), (True, True, 0.1), (False, False, 0.01), (False, True, 0.01)],
)
@pytest.mark.parametrize(
    ("seconds", "wary"), [(59.5, True), (60.0, False)], ids=["just before", "a minute later"]
)
def test_for_a_minute_after_an_overload_a_limit_grows_by_three_thousandths_at_most(
    swift: bool, strained: bool, step: float, seconds: float, wary: bool
) -> None:
    limiter = busy(4.0, 2)
    refuse(limiter, 10.0, 100)
    if strained:
        strain(limiter, 10.0 + seconds)
    else:
        limiter.late(10.0 + seconds)  # so that calm does not lift it
    limiter.limit = 4.0

    limiter.on_time(10.0 + seconds, 10.0 + seconds, swift=swift)

    assert limiter.limit == pytest.approx(4.0 + (min(step, 0.012) if wary else step))


@pytest.mark.parametrize(
    ("in_flight", "grows"), [(49, False), (50, True)], ids=["less than half", "half"]
)
def test_a_limit_that_is_not_used_does_not_grow(in_flight: int, grows: bool) -> None:
    limiter = busy(100.0, in_flight)

    limiter.on_time(0.0, 0.0)

    assert (limiter.limit > 100.0) is grows


def test_a_limit_grows_to_five_hundred_and_no_further() -> None:
    limiter = busy(499.99, 500)

    for _ in range(2):
        limiter.on_time(0.0, 0.0)

    assert limiter.limit == 500.0


def test_proven_is_the_largest_number_in_flight_at_a_swift_answer() -> None:
    limiter = busy(200.0)
    proven = []

    for in_flight, swift in ((7, True), (3, True), (50, False), (8, True)):
        limiter.in_flight = in_flight
        limiter.on_time(0.0, 0.0, swift=swift)
        proven.append(limiter.proven)
    limiter.in_flight = 90
    limiter.late(0.0)

    assert proven == [7, 7, 7, 8]
    assert limiter.proven == 8


@pytest.mark.parametrize(
    "trouble",
    [
        lambda limiter, now: limiter.late(now),
        lambda limiter, now: refuse(limiter, now, 100),
        refuse_and_go_down,
    ],
    ids=["a late call", "a refusal", "a refusal that began an outage"],
)
def test_a_minute_of_calm_lifts_what_was_learned_in_the_storm(
    trouble: Callable[[Limiter[str], float], object],
) -> None:
    limiter = busy(20.0, 1)
    trouble(limiter, 100.0)

    limiter.on_time(159.5, 159.0)
    before = limiter.limit
    limiter.on_time(160.0, 159.5)

    assert (before <= 20.0, limiter.limit) == (True, 200.0)


def test_in_calm_an_answer_that_only_is_not_late_lifts_nothing() -> None:
    limiter = busy(20.0, 1)
    limiter.late(0.0)

    limiter.on_time(1000.0, 999.0, swift=False)

    assert limiter.limit == 20.0


def test_calm_begins_with_the_last_trouble() -> None:
    limiter = busy(20.0, 1)
    limiter.late(100.0)
    refuse(limiter, 130.0, 100)
    limiter.late(150.0)

    limiter.on_time(205.0, 204.0)

    assert limiter.limit == 20.0


@pytest.mark.parametrize("limit", [200.0, 300.0])
def test_calm_lowers_no_limit(limit: float) -> None:
    limiter = busy(limit, 1)
    limiter.late(0.0)

    limiter.on_time(1000.0, 999.0)

    assert limiter.limit == limit


def test_a_low_limit_that_saw_no_trouble_is_not_lifted() -> None:
    limiter = busy(5.0, 1)

    limiter.on_time(1000.0, 999.0)

    assert limiter.limit == 5.0


def test_a_refusal_lowers_the_limit_to_those_beside_whom_it_was_too_much() -> None:
    limiter = busy(100.0, 3)

    refuse(limiter, 0.0, 9)
    first = limiter.limit
    refuse(limiter, 0.0, 4)
    second = limiter.limit
    refuse(limiter, 0.0, 7)

    assert (first, second, limiter.limit) == (9 - TOO_MANY, 4 - TOO_MANY, 4 - TOO_MANY)


@pytest.mark.parametrize(
    ("served", "crowd"),
    [
        ([], 1),
        ([(8.9375, 1)], 9),
        ([(10.0, 9)], 9),
        ([(10.0, 12)], 9),
        ([(10.0, 2)] * 15 + [(10.0, 9)] * 5, 9),
    ],
    ids=["it is the first", "not lately", "as many were", "more were", "a fifth of them were"],
)
def test_a_refusal_is_none_of_its_crowd_when(served: list[tuple[float, int]], crowd: int) -> None:
    limiter = busy(100.0, 9)
    for when, beside in served:
        limiter.answered(when, beside)

    too_many = limiter.overloaded(10.0, crowd, 1.0)

    assert (too_many, limiter.limit) == (False, 100.0)


def test_what_a_few_answers_began_with_does_not_prove_what_is_borne() -> None:
    limiter = busy(100.0, 9)
    for beside in [2] * 17 + [9] * 3:
        limiter.answered(10.0, beside)

    too_many = limiter.overloaded(10.0, 9, 1.0)

    assert (too_many, limiter.limit) == (True, 9 - TOO_MANY)


def test_what_was_borne_long_ago_proves_nothing() -> None:
    limiter = busy(100.0, 9)
    for crowd in [50] * 100 + [2] * 20:
        limiter.answered(10.0, crowd)

    assert limiter.overloaded(10.0, 9, 1.0)


@pytest.mark.parametrize(
    ("flying", "crowd", "too_many"), [(1, 9, False), (2, 9, True), (2, 1, False), (2, 2, True)]
)
def test_of_one_that_has_never_answered_a_refusal_is_of_the_crowd_if_others_are_under_way(
    flying: int, crowd: int, too_many: bool
) -> None:
    limiter = busy(100.0, flying)

    assert limiter.overloaded(10.0, crowd, 1.0) is too_many


@pytest.mark.parametrize(("flying", "limit"), [(3, 8.0), (4, 9.0)])
def test_of_one_that_nobody_knows_only_a_limit_that_is_half_used_grows(
    flying: int, limit: float
) -> None:
    limiter: Limiter[str] = Limiter()
    limiter.begin_at(8.0)
    limiter.in_flight = flying

    limiter.on_time(1.0, 0.5)

    assert limiter.limit == limit


def test_a_lesson_holds_for_some_twenty_answers() -> None:
    limiter = busy(100.0, 6)
    refuse(limiter, 0.0, 6)
    limiter.in_flight = 5
    answers = 0

    while not limiter.admits(PLUS):
        limiter.on_time(1.0, 0.5)
        answers += 1

    assert 15 <= answers <= 30


def test_the_limit_of_one_that_nobody_knows_doubles_with_every_round_of_swift_answers() -> None:
    limiter: Limiter[str] = Limiter()
    limiter.begin_at(5.0)
    limits = []

    for _ in range(7):
        limiter.in_flight = int(limiter.limit)
        for _ in range(limiter.in_flight):
            limiter.on_time(1.0, 0.5)
            limiter.leave()
        limits.append(limiter.limit)

    # The last answers of a round come when less than half of the limit is in use, and do not count.
    assert [round(after / before, 1) for before, after in pairwise([5.0, *limits[:5]])] == [
        pytest.approx(1.5, abs=0.2)
    ] * 5
    assert limits[-1] < 210.0


@pytest.mark.parametrize("end", ["late", "refused", "grown"])
def test_one_is_known_when_an_answer_was_late_or_refused_or_its_limit_is_the_usual(
    end: str,
) -> None:
    limiter: Limiter[str] = Limiter()
    limiter.begin_at(START if end == "grown" else 9.0)
    limiter.in_flight = 200
    match end:
        case "late":
            limiter.late(1.0)
        case "refused":
            refuse(limiter, 1.0, 20)
        case "grown":
            limiter.on_time(1.0, 0.5)
    before = limiter.limit

    limiter.on_time(1.0, 0.5)

    assert not limiter.proving
    assert 0.0 < limiter.limit - before < 0.4


def test_an_answer_that_is_not_swift_proves_nothing_of_one_that_nobody_knows() -> None:
    limiter: Limiter[str] = Limiter()
    limiter.begin_at(5.0)
    limiter.in_flight = 4

    limiter.on_time(1.0, 0.5, swift=False)

    assert (limiter.limit, limiter.proving) == (5.0, True)


def test_a_refusal_of_one_alone_leaves_a_limit_of_one() -> None:
    limiter = busy(100.0, 1)

    refuse(limiter, 0.0, 1)

    assert limiter.limit == 1.0


def test_after_an_outage_the_limit_is_what_it_was_before_the_first_refusal() -> None:
    limiter = busy(100.0, 5)
    refuse(limiter, 0.0, 5)
    refuse(limiter, 0.5, 2)

    limiter.outage()
    back = limiter.limit
    limiter.in_flight = 50
    limiter.on_time(1.0, 0.75)

    assert back == 100.0
    assert limiter.limit == pytest.approx(100.1)


def test_one_that_serves_and_refuses_in_turns_was_not_down() -> None:
    limiter = busy(100.0, 5)
    refuse(limiter, 0.0, 5)
    limiter.on_time(1.0, 0.5)
    learned = limiter.limit

    limiter.outage()

    assert limiter.limit == learned < 5.0


def test_an_answer_to_a_call_from_before_the_refusal_does_not_prove_that_it_serves() -> None:
    limiter = busy(100.0, 5)
    refuse(limiter, 1.0, 5)
    limiter.on_time(2.0, 1.0)

    limiter.outage()

    assert limiter.limit == 100.0


def test_what_an_outage_gave_back_the_next_one_does_not() -> None:
    limiter = busy(100.0, 5)
    refuse(limiter, 0.0, 5)
    limiter.outage()
    limiter.limit = 7.0

    limiter.outage()

    assert limiter.limit == 7.0


def test_an_outage_gives_back_what_was_lost_since_the_last_answer_and_no_more() -> None:
    limiter = busy(100.0, 1)
    refuse(limiter, 0.0, 50)
    limiter.on_time(1.0, 0.5)
    refuse(limiter, 2.0, 20)
    refuse(limiter, 3.0, 10)

    limiter.outage()

    assert limiter.limit == 50 - TOO_MANY


def test_an_outage_lowers_no_limit_that_has_grown_since() -> None:
    limiter = busy(2.0, 2)
    refuse(limiter, 0.0, 3)
    limiter.limit = 5.0

    limiter.outage()

    assert limiter.limit == 5.0


def test_the_line_is_served_by_class_and_age_as_far_as_each_class_may() -> None:
    limiter = busy(20.0, 15)
    for order, (who, criticality) in enumerate(
        [("ann", NORMAL), ("bob", PLUS), ("cid", NORMAL), ("dan", CRITICAL), ("eve", CRITICAL)]
    ):
        limiter.join(who, criticality, order)

    served = list(limiter.served())
    limiter.in_flight = 15
    later = list(limiter.served())

    assert (served, later) == (["bob", "dan", "eve"], ["ann"])
    assert (limiter.in_flight, limiter.waiting) == (16, 1)


def test_a_place_is_counted_when_it_is_handed_over_and_not_before() -> None:
    limiter = busy(20.0)
    limiter.join("ann", NORMAL, 1)
    limiter.join("bob", NORMAL, 2)

    serving = limiter.served()
    before = limiter.in_flight
    first = next(serving)

    assert (before, first, limiter.in_flight, limiter.waiting) == (0, "ann", 1, 1)


def test_whoever_waits_again_keeps_the_old_place_and_is_served_once() -> None:
    limiter = busy(20.0, 20)
    limiter.join("ann", NORMAL, 1)
    limiter.join("bob", NORMAL, 2)
    limiter.quit("ann")
    limiter.join("ann", NORMAL, 1)
    limiter.in_flight = 0

    assert list(limiter.served()) == ["ann", "bob"]
    assert (limiter.in_flight, limiter.waiting) == (2, 0)


def test_sending_all_to_look_again_empties_the_line() -> None:
    limiter = busy(20.0, 20)
    limiter.join("ann", NORMAL, 1)
    limiter.join("bob", CRITICAL, 2)

    everybody = limiter.outwaited()
    limiter.in_flight = 0

    assert sorted(everybody) == ["ann", "bob"]
    assert (list(limiter.served()), limiter.expected_wait(NORMAL, 16.0)) == ([], 1.0)


def test_those_who_gave_up_are_let_go_however_many_they_were() -> None:
    limiter: Limiter[Caller] = Limiter(1.0)
    limiter.in_flight = 1
    patient = [Caller(NORMAL, order) for order in range(10)]
    for who in patient:
        limiter.join(who, NORMAL, who.order)
    gone, held = [], []

    for order in range(10, 1_000):
        who = Caller(NORMAL, order)
        gone.append(ref(who))
        limiter.join(who, NORMAL, order)
        limiter.quit(who)
        del who
        held.append(sum(each() is not None for each in gone))
    limiter.limit = 500.0

    assert 0 < max(held) <= len(patient) + 64
    assert list(limiter.served()) == patient


def test_when_the_last_has_given_up_nobody_is_held() -> None:
    limiter: Limiter[Caller] = Limiter(1.0)
    limiter.in_flight = 1
    everybody = [Caller(NORMAL, order) for order in range(10)]
    for who in everybody:
        limiter.join(who, NORMAL, who.order)

    for who in everybody:
        limiter.quit(who)
    gone = [ref(who) for who in everybody]
    del who, everybody

    assert [each() for each in gone] == [None] * 10


@pytest.mark.parametrize(
    ("criticality", "seconds"),
    [(SHEDDABLE, 0.8), (NORMAL, 0.5), (CRITICAL, 4 / 19), (PLUS, 0.1)],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_expected_wait_is_that_of_those_ahead_over_the_places_of_the_class(
    criticality: Criticality, seconds: float
) -> None:
    limiter = busy(20.0, 20)
    for order, waiting in enumerate([NORMAL, NORMAL, CRITICAL]):
        limiter.join(str(order), waiting, order)

    wait = limiter.expected_wait(criticality, 2.0)

    assert wait == pytest.approx(seconds)
    assert limiter.expected_wait(criticality, 0.0) == 0.0


@given(
    limit=st.floats(1, 500),
    scale=st.sampled_from([0.5, 1.0]),
    usual=st.floats(0, 100),
    joining=st.lists(st.sampled_from(WAITING), max_size=30),
    criticality=st.sampled_from(Criticality),
)
def test_more_ahead_is_never_a_shorter_wait(
    limit: float,
    scale: float,
    usual: float,
    joining: list[Criticality],
    criticality: Criticality,
) -> None:
    limiter = busy(limit)
    limiter.scale = scale
    waits = [limiter.expected_wait(criticality, usual)]

    for order, other in enumerate(joining):
        limiter.join(str(order), other, order)
        waits.append(limiter.expected_wait(criticality, usual))

    assert waits == sorted(waits)
    assert limiter.expected_wait(PLUS, usual) <= waits[-1]


@given(st.text())
def test_loyalty_is_a_number_of_the_id_from_a_half_to_one(conversation_id: str) -> None:
    share = loyalty(conversation_id)

    assert 0.5 <= share <= 1.0
    assert share == loyalty(conversation_id)


@pytest.mark.parametrize(
    ("conversation_id", "share"),
    [
        (None, 1.0),
        ("", 0.5),
        ("a", 0.9545268495),
        ("conversation-1", 0.7140812870),
        ("ünï", 0.9292319094),
        ("\ud800", 0.5581409084),
    ],
    ids=["none", "empty", "short", "usual", "not ASCII", "half a character"],
)
def test_loyalty_is_the_same_in_every_process(conversation_id: str | None, share: float) -> None:
    assert loyalty(conversation_id) == pytest.approx(share, abs=1e-9)


def test_loyalties_are_spread_evenly() -> None:
    shares = sorted(loyalty(f"conversation-{number}") for number in range(1_000))

    assert all(abs(share - (0.5 + at / 2_000)) < 0.05 for at, share in enumerate(shares))


@given(
    limit=st.floats(1, 500),
    in_flight=st.integers(0, 500),
    one=st.text(),
    other=st.text(),
    criticality=st.sampled_from(Criticality),
)
def test_at_any_load_the_less_loyal_are_shed_first_and_whole(
    limit: float, in_flight: int, one: str, other: str, criticality: Criticality
) -> None:
    limiter = busy(limit, in_flight)
    less, more = sorted([loyalty(one), loyalty(other)])

    kept = limiter.admits(criticality, less)

    assert kept <= limiter.admits(criticality, more) <= limiter.admits(criticality)
    assert kept is (in_flight < SHARES[criticality] * less * limit)
