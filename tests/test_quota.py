"""A limit holds in every window, makes nobody wait in vain, and learns from what providers tell.

Times are multiples of 1/64 s, so that sums of them are exact.
"""

import heapq
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from zejzl.policies.quota import Booking, LimitInForce, Meter, Rates, Seen
from zejzl.policies.starts import SLOTS

WINDOW = 64.0
SLOT = WINDOW / SLOTS + 1e-6
MONDAY = 1_760_000_000.0
RATES = st.builds(
    Rates,
    st.none() | st.integers(1, 6),
    st.none() | st.integers(1, 100),
    st.just(WINDOW),
)
PAUSES = st.integers(0, 64 * 40).map(lambda ticks: ticks / 64) | st.just(0.0)
TOKENS = st.integers(0, 60) | st.just(150)


# ── what is configured ────────────────────────────────────────────────────────────────────────


class Ledger:
    """Every start by itself: slow, and plainly right."""

    def __init__(self, rates: Rates) -> None:
        self.rates = rates
        self.starts: dict[int, tuple[float, int]] = {}

    def fits(self, start: float, tokens: int) -> bool:
        inside = [spent for at, spent in self.starts.values() if at + self.rates.window > start]
        calls, limit = self.rates.requests, self.rates.tokens
        return (calls is None or len(inside) < calls) and (
            limit is None or sum(inside) + tokens <= limit or sum(inside) == 0
        )

    def earliest(self, now: float, tokens: int) -> float:
        """Return the first time from now, and from the last start, at which a call fits."""
        first = max([now, *(at for at, _ in self.starts.values())])
        ends = [at + self.rates.window for at, _ in self.starts.values()]
        return min(at for at in (first, *ends) if at >= first and self.fits(at, tokens))

    def most_in_a_window(self) -> tuple[int, int]:
        windows = [
            [spent for at, spent in self.starts.values() if end - self.rates.window < at <= end]
            for end, _ in self.starts.values()
        ]
        return max(map(len, windows), default=0), max(map(sum, windows), default=0)


class AgainstTheLedger(RuleBasedStateMachine):
    """The meter starts a call as soon as the ledger would, or within a slot of it."""

    @initialize(rates=RATES, begin=st.sampled_from([0.0, MONDAY]))
    def begin(self, rates: Rates, begin: float) -> None:
        self.now = begin
        self.ledger = Ledger(rates)
        self.meter = Meter(rates)
        self.bookings: list[Booking] = []

    @rule(seconds=PAUSES)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(tokens=TOKENS, times=st.integers(1, 5))
    def calls_are_booked(self, tokens: int, times: int) -> None:
        for _ in range(times):
            earliest = self.ledger.earliest(self.now, tokens)
            wait = self.meter.wait(self.now, tokens)
            booking = self.meter.book(self.now, tokens)

            assert earliest <= booking.start <= earliest + SLOT
            assert self.now + wait == pytest.approx(booking.start, abs=1e-6)

            self.ledger.starts[len(self.bookings)] = (booking.start, tokens)
            self.bookings.append(booking)

    @rule(which=st.integers(0, 100), tokens=TOKENS)
    def a_call_is_settled(self, which: int, tokens: int) -> None:
        if which in self.ledger.starts:
            start, reserved = self.ledger.starts[which]
            if reserved == self.bookings[which].tokens:
                self.meter.settle(self.bookings[which], tokens)
                self.ledger.starts[which] = (start, tokens)
                self.bookings[which] = Booking(start, -1, start)  # only once

    @rule(which=st.integers(0, 100))
    def a_call_is_cancelled(self, which: int) -> None:
        if which in self.ledger.starts and self.bookings[which].tokens >= 0:
            self.meter.cancel(self.bookings[which])
            del self.ledger.starts[which]

    @rule()
    def another_process_goes_on(self) -> None:
        self.meter = Meter.from_json(json.loads(json.dumps(self.meter.to_json())), self.meter.rates)


AgainstTheLedger.TestCase.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None
)
TestAMeterIsItsLedger = AgainstTheLedger.TestCase


@given(RATES, st.lists(st.tuples(PAUSES, st.integers(0, 60)), max_size=60))
def test_no_window_holds_more_than_its_limit(rates: Rates, calls: list[tuple[float, int]]) -> None:
    ledger, meter, now = Ledger(rates), Meter(rates), 0.0

    for place, (pause, tokens) in enumerate(calls):
        now += pause
        ledger.starts[place] = (meter.book(now, tokens).start, tokens)

    requests, spent = ledger.most_in_a_window()
    largest = max((tokens for _, tokens in calls), default=0)
    assert rates.requests is None or requests <= rates.requests
    assert rates.tokens is None or spent <= max(rates.tokens, largest)


@given(RATES, st.lists(st.tuples(PAUSES, TOKENS), max_size=60))
def test_calls_start_in_the_order_in_which_they_were_booked(
    rates: Rates, calls: list[tuple[float, int]]
) -> None:
    meter, now, starts = Meter(rates), 0.0, [0.0]

    for pause, tokens in calls:
        now += pause
        starts.append(meter.book(now, tokens).start)

    assert starts == sorted(starts)


def test_a_limit_is_used_up_at_once_and_then_slides() -> None:
    meter = Meter(Rates(requests=3))

    starts = [meter.book(now, 0).start for now in (0.0, 10.0, 20.0, 20.0, 20.0)]

    assert starts == [0.0, 10.0, 20.0, 60.0, 70.0]


def test_tokens_are_limited_beside_requests() -> None:
    meter = Meter(Rates(requests=100, tokens=100))

    starts = [meter.book(0.0, tokens).start for tokens in (60, 40, 1, 99)]

    assert starts == [0.0, 0.0, 60.0, 60.0]


def test_a_call_beyond_the_limit_of_tokens_goes_alone() -> None:
    meter = Meter(Rates(tokens=100))

    starts = [meter.book(0.0, tokens).start for tokens in (1, 500, 1, 0)]

    assert starts == [0.0, 60.0, 120.0, 120.0]


def test_without_limits_nobody_waits() -> None:
    meter = Meter(Rates())

    starts = {meter.book(5.0, 10**9).start for _ in range(1000)}

    assert (starts, meter.wait(5.0, 10**9), meter.limits()) == ({5.0}, 0.0, [])


def test_asking_how_long_it_takes_books_nothing() -> None:
    meter = Meter(Rates(requests=1))

    waits = [meter.wait(1.0, 0) for _ in range(3)]
    meter.book(1.0, 0)

    assert (waits, meter.wait(21.0, 0)) == ([0.0] * 3, 40.0)


def test_what_was_not_used_is_there_again() -> None:
    meter = Meter(Rates(tokens=100))
    booking = meter.book(0.0, 100)

    full = meter.wait(0.0, 10)
    meter.settle(booking, 90)

    assert (full, meter.wait(0.0, 10), meter.wait(0.0, 11)) == (60.0, 0.0, 60.0)


def test_what_was_used_beyond_the_reserve_counts() -> None:
    meter = Meter(Rates(tokens=100))
    booking = meter.book(0.0, 10)

    meter.settle(booking, 95)

    assert (meter.wait(0.0, 5), meter.wait(0.0, 6)) == (0.0, 60.0)


def test_a_cancelled_call_was_never_there() -> None:
    meter = Meter(Rates(requests=1, tokens=100))
    first = meter.book(0.0, 100)
    second = meter.book(0.0, 100)

    meter.cancel(second)
    third = meter.book(0.0, 100)
    meter.cancel(third)
    meter.cancel(first)

    assert (second.start, third.start, meter.wait(0.0, 100)) == (60.0, 60.0, 0.0)


def test_a_cancelled_place_in_the_middle_is_given_to_the_next() -> None:
    meter = Meter(Rates(requests=2))
    early, _, late = (meter.book(now, 0) for now in (0.0, 30.0, 30.0))

    meter.cancel(early)

    assert late.start == 60.0
    assert meter.book(30.0, 0).start == 90.0


def test_news_of_a_call_that_is_out_of_every_window_changes_nothing() -> None:
    meter = Meter(Rates(requests=2, tokens=100))
    old, other = meter.book(0.0, 50), meter.book(0.0, 50)
    meter.book(100.0, 50)

    meter.settle(old, 1000)
    meter.cancel(other)

    assert (meter.wait(100.0, 50), meter.wait(100.0, 51)) == (0.0, 60.0)


def test_news_of_a_call_that_another_state_knew_takes_nothing_from_this_one() -> None:
    lost = Meter(Rates(tokens=100))
    booking = lost.book(0.0, 80)
    meter = Meter(Rates(tokens=100))
    meter.settle(booking, 0)
    meter.book(0.0, 30)

    meter.settle(booking, 0)
    meter.book(0.0, 100)

    assert meter.wait(0.0, 1) == 60.0


def test_a_million_calls_are_remembered_in_a_hundred_slots() -> None:
    meter = Meter(Rates(requests=1_000_000))

    for call in range(20_000):
        meter.book(call / 128, 1)

    assert len(json.dumps(meter.to_json())) < 4_000


def test_many_that_wait_are_remembered_by_slots_too() -> None:
    meter = Meter(Rates(requests=1_000))

    for _ in range(10_000):
        meter.book(0.0, 1)

    assert len(json.dumps(meter.to_json())) < 1_000


def test_a_call_that_another_limit_keeps_waiting_has_its_place_then() -> None:
    meter = Meter(Rates(requests=2))

    starts = [meter.book(0.0, 0, begin=begin).start for begin in (10.0, 5.0, 30.0)]

    assert starts == [10.0, 10.0, 70.0]
    assert meter.wait(0.0, 0) == 70.0


def test_a_beginning_that_is_over_is_no_wait() -> None:
    assert Meter(Rates(requests=2)).book(50.0, 0, begin=10.0).start == 50.0


def test_a_negative_reserve_is_named() -> None:
    with pytest.raises(ValueError, match=r"^tokens must not be negative, not -1$"):
        Meter(Rates()).book(0.0, -1)


@pytest.mark.parametrize("what", ["requests", "tokens"])
@pytest.mark.parametrize("most", [0, -1, 1.5, "60", True], ids=repr)
def test_a_limit_that_cannot_be_is_named_with_what_to_do(what: str, most: object) -> None:
    with pytest.raises(
        ValueError, match=rf"^{what} must be .* not {most!r}: None is no limit.*out of"
    ):
        Rates(**{what: most})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "window", [0.0, -1.0, 0.0009, float("inf"), float("nan"), "60", True, None], ids=repr
)
def test_a_window_that_cannot_be_is_named(window: object) -> None:
    with pytest.raises(ValueError, match=rf"^window must be .* not {window!r}$"):
        Rates(60, window=window)  # type: ignore[arg-type]


def test_the_shortest_window_works_at_any_date() -> None:
    meter = Meter(Rates(requests=1, window=0.001))

    starts = [meter.book(MONDAY, 0).start for _ in range(3)]

    assert starts == pytest.approx([MONDAY, MONDAY + 0.001, MONDAY + 0.002], abs=1e-5)


def test_the_limits_in_force_can_be_seen() -> None:
    assert Meter(Rates(60, 1000, 30.0)).limits() == [
        LimitInForce("requests", 60, 30.0, told=False),
        LimitInForce("tokens", 1000, 30.0, told=False),
    ]


# ── a clock that jumps ────────────────────────────────────────────────────────────────────────


SOME = st.lists(st.tuples(PAUSES, TOKENS), min_size=1, max_size=20)


@given(RATES, SOME, st.integers(1, 10**6), SOME)
def test_a_clock_that_was_set_back_is_one_that_stood_still(
    rates: Rates, before: list[tuple[float, int]], back: int, after: list[tuple[float, int]]
) -> None:
    steady, jumping, now = Meter(rates), Meter(rates), 0.0
    for pause, tokens in before:
        now += pause
        pair = steady.book(now, tokens), jumping.book(now, tokens)
    jump = WINDOW + back

    steady.settle(pair[0], 7)
    jumping.settle(pair[1], 7)
    # It is seen to have been set back when it is asked.
    assert jumping.wait(now - jump, 0) == steady.wait(now, 0)
    for pause, tokens in after:
        now += pause
        expected = steady.book(now, tokens).start

        assert jumping.book(now - jump, tokens).start == expected - jump


@given(RATES, SOME, st.floats(0.0, 64.0), SOME)
def test_while_time_stands_still_nobody_starts_earlier_or_much_later(
    rates: Rates, before: list[tuple[float, int]], back: float, after: list[tuple[float, int]]
) -> None:
    steady, late, now = Meter(rates), Meter(rates), 0.0
    for pause, tokens in before:
        now += pause
        steady.book(now, tokens)
        late.book(now, tokens)

    for pause, tokens in after:
        now += pause
        wait = steady.book(now, tokens).start - now
        found = late.book(now - back, tokens).start - (now - back)

        assert wait - 1e-6 <= found <= wait + back + 2 * SLOT


@pytest.mark.parametrize("lag", [0.25, 5.0, 59.0])
def test_a_process_that_read_the_clock_a_moment_earlier_wins_no_time(lag: float) -> None:
    meter = Meter(Rates(requests=100))

    for call in range(1_000):
        meter.book(call / 64, 0)
        meter.book(call / 64 - lag, 0)

    # Had each step back been taken for a jump, all that time would have been won.
    assert meter.wait(1_000 / 64, 0) > 1_100


def test_who_was_slower_to_ask_starts_at_once_where_there_is_room() -> None:
    meter = Meter(Rates(requests=2))
    meter.book(100.0, 0)

    assert meter.wait(99.0, 0) == 0.0
    assert meter.book(99.0, 0).start == 99.0
    assert meter.book(99.0, 0).start == 159.0


def test_a_clock_may_be_set_back_again_and_again() -> None:
    meter = Meter(Rates(requests=1))

    starts = [meter.book(now, 0).start - now for now in (1_000.0, 500.0, 300.0, 0.0)]

    assert starts == [0.0, 60.0, 120.0, 180.0]


def test_headers_that_come_after_the_clock_was_set_back_are_of_the_present() -> None:
    meter = Meter(Rates())
    meter.book(1_000.0, 0)
    meter.book(0.0, 0)

    meter.observe(0.0, told(60, 20, 40.0))

    assert (at_once(meter, 0.0), meter.wait(0.0, 0)) == (20, 40.0)


def test_a_clock_that_was_set_back_closes_for_no_longer_than_a_window() -> None:
    meter = Meter(Rates(requests=1))
    meter.book(MONDAY, 0)

    assert meter.wait(MONDAY - 86_400.0, 0) == 60.0
    assert meter.wait(MONDAY - 86_400.0 + 61.0, 0) == 0.0


# ── kept as JSON ──────────────────────────────────────────────────────────────────────────────


def kept() -> dict[str, object]:
    meter = Meter(Rates(requests=10))
    meter.book(100.0, 7)
    meter.observe(
        101.0,
        Seen(limit_requests=60, remaining_requests=20, reset_requests=40.0, age=0.5),
    )
    state: dict[str, object] = json.loads(json.dumps(meter.to_json()))
    return state


def test_all_that_was_learned_is_kept() -> None:
    meter = Meter.from_json(kept(), Rates(requests=10))

    assert Meter.from_json(meter.to_json(), Rates(requests=10)).to_json() == kept()
    assert meter.limits() == [
        LimitInForce("requests", 10, 60.0, told=False),
        LimitInForce("requests", 60, 60.0, told=True),
    ]


def test_a_fresh_meter_can_be_kept() -> None:
    state = json.loads(json.dumps(Meter(Rates()).to_json()))

    assert Meter.from_json(state, Rates()).book(5.0, 0).start == 5.0


def test_a_limit_that_is_configured_anew_counts_what_was_started() -> None:
    meter = Meter(Rates())
    meter.book(0.0, 0)
    limited = Meter.from_json(meter.to_json(), Rates(requests=1))
    free = Meter.from_json(limited.to_json(), Rates())
    back = Meter.from_json(free.to_json(), Rates(requests=1))

    assert [each.wait(1.0, 0) for each in (limited, free, back)] == [59.0, 0.0, 59.0]


def test_what_was_started_before_no_limit_was_configured_counts_for_the_provider() -> None:
    meter = Meter(Rates(requests=100))
    for _ in range(30):
        meter.book(0.0, 0)
    free = Meter.from_json(meter.to_json(), Rates())

    free.observe(1.0, Seen(limit_requests=30, remaining_requests=29, reset_requests=2.0))

    assert free.wait(1.0, 0) == 59.0


@given(
    st.lists(st.tuples(PAUSES, st.integers(0, 30)), max_size=20),
    st.integers(1, 40),
    st.integers(0, 40),
    st.sampled_from([0.0, 1.0, 20.0, 59.0, 80.0, 3_000.0, 86_400.0]),
    st.lists(st.tuples(PAUSES, st.integers(0, 30)), min_size=1, max_size=20),
    st.sampled_from([0.0, 500.0]),
)
def test_a_meter_that_was_kept_behaves_the_same_ever_after(
    before: list[tuple[float, int]],
    limit: int,
    remaining: int,
    reset: float,
    after: list[tuple[float, int]],
    jump: float,
) -> None:
    meter, now, bookings = Meter(Rates(requests=20, tokens=200)), 1_000.0, []
    for pause, tokens in before:
        now += pause
        bookings.append(meter.book(now, tokens))
        meter.observe(now, told(limit, remaining, reset, age=pause))
        meter.observe(now, told_tokens(limit * 10, remaining * 10, reset))
    twin = Meter.from_json(json.loads(json.dumps(meter.to_json())), meter.rates)

    now -= jump
    for booking in bookings[::2]:
        meter.settle(booking, 3)
        twin.settle(booking, 3)
    for pause, tokens in after:
        now += pause

        assert meter.book(now, tokens) == twin.book(now, tokens)
    assert meter.to_json() == twin.to_json()


DAMAGE: dict[str, Callable[[dict[str, object]], object]] = {
    "no object": lambda _: [],
    "another version": lambda state: {**state, "version": 2},
    "no version": lambda state: {**state, "version": None},
    "a time of day": lambda state: {**state, "newest": "noon"},
    "a time that is no number": lambda state: {**state, "newest": float("nan")},
    "a time beyond all": lambda state: {**state, "newest": 1e300},
    "a truth for a time": lambda state: {**state, "newest": True},
    "a clock behind": lambda state: {**state, "skew": -1.0},
    "no clock": lambda state: {**state, "skew": None},
    "nothing started": lambda state: {**state, "own": None, "told": None},
    "a line that is none": lambda state: {**state, "own": 5},
    "no views": lambda state: {**state, "views": None},
    "too few views": lambda state: {**state, "views": [None]},
    "a view that is none": lambda state: {**state, "views": [None, {}]},
    "a short view": lambda state: {**state, "views": [[60, 60.0], None]},
}
LINES: dict[str, dict[str, object]] = {
    "slots of two lengths": {"latest": [1.0], "calls": [1, 1], "tokens": [1]},
    "no calls": {"latest": [1.0], "tokens": [1]},
    "no list": {"latest": 1.0, "calls": [1], "tokens": [1]},
    "a count below nothing": {"latest": [1.0], "calls": [-1], "tokens": [1]},
    "half a token": {"latest": [1.0], "calls": [1], "tokens": [0.5]},
    "no time": {"latest": [None], "calls": [1], "tokens": [1]},
    "out of order": {"latest": [2.0, 1.0], "calls": [1, 1], "tokens": [1, 1]},
    "twice the same": {"latest": [1.0, 1.0], "calls": [1, 1], "tokens": [1, 1]},
    "forgotten and known": {"latest": [1.0], "calls": [1], "tokens": [1], "forgotten": 1.0},
}
VIEW = [60, 60.0, 39, False, 0, 221.0, 101.0, 141.0, 100.5, 3701.0]
VIEWS = {
    "no limit": (0, 0),
    "half a limit": (0, 1.5),
    "a window of nothing": (1, 0.0),
    "a window of a year": (1, 86_400.0 * 365),
    "a window of ever": (1, None),
    "a negative use": (2, -1),
    "half a call": (4, 0.5),
    "a time that is none": (5, "now"),
    "forgiven before it was told": (7, 100.0),
}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ([], r" of version None; this zejzl reads 1"),
        ({"version": 2}, r" of version 2; this zejzl reads 1"),
        ({**kept(), "skew": -1.0}, r" damaged: its clock cannot be -1.0"),
        ({**kept(), "views": 5}, r" damaged: what the provider said cannot be 5"),
        ({**kept(), "views": [7, None]}, r" damaged: what the provider said cannot be 7"),
        (
            {**kept(), "views": [[0, 1.0, 0, True, 0, 0, 0, 0, 0, 0], None]},
            r" damaged: what the provider said cannot be \[0, 1.0, 0, True, 0, 0, 0, 0, 0, 0\]",
        ),
    ],
    ids=["no object", "another version", "a clock behind", "no views", "no view", "no limit"],
)
def test_damage_is_named(damage: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^the state of a rate limit is{message}$"):
        Meter.from_json(damage, Rates(requests=10))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_state_is_told(damage: Callable[[dict[str, object]], object]) -> None:
    with pytest.raises(ValueError, match=r"the state of a rate limit is|not a count"):
        Meter.from_json(damage(kept()), Rates(requests=10))


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
@pytest.mark.parametrize("which", ["own", "told"])
def test_damaged_slots_are_told(which: str, line: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"the state of a rate limit is damaged|not a count"):
        Meter.from_json({**kept(), which: line}, Rates(requests=10))


@pytest.mark.parametrize(("place", "value"), VIEWS.values(), ids=VIEWS)
def test_a_damaged_word_of_the_provider_is_told(place: int, value: object) -> None:
    view = [value if at == place else good for at, good in enumerate(VIEW)]
    good = {**kept(), "views": [VIEW, None]}

    with pytest.raises(ValueError, match=r"the state of a rate limit is damaged|not a count"):
        Meter.from_json({**kept(), "views": [view, None]}, Rates(requests=10))
    assert Meter.from_json(good, Rates(requests=10)).limits()[1].told


@pytest.mark.parametrize(
    "view",
    [
        [1, 1.0, 0, False, 0, 0.0, 0.0, 0.0, 0.0, 3_600.0],
        [1, 86_400.0, 0, True, 5, 0.0, 0.0, 9.0, 0.0, 3_600.0],
    ],
    ids=["the shortest window", "the longest window"],
)
def test_the_least_and_the_most_that_a_provider_can_say_is_kept(view: list[object]) -> None:
    state = {**kept(), "views": [view, None]}

    assert Meter.from_json(state, Rates(requests=10)).to_json() == state


# ── what a provider tells ─────────────────────────────────────────────────────────────────────


def told(limit: int, remaining: int, reset: float, *, age: float = 0.0) -> Seen:
    return Seen(limit_requests=limit, remaining_requests=remaining, reset_requests=reset, age=age)


def told_tokens(limit: int, remaining: int, reset: float) -> Seen:
    return Seen(limit_tokens=limit, remaining_tokens=remaining, reset_tokens=reset)


def at_once(meter: Meter, now: float, *, most: int = 1_000) -> int:
    """Return how many calls may start now; they are booked."""
    for calls in range(most):
        if meter.wait(now, 0) > 0:
            return calls
        meter.book(now, 0)
    return most


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "window"),
    [
        (60, 59, 1.0, 60.0),
        (5_000, 4_999, 0.012, 60.0),
        (5_000_000, 4_999_999, 0.0, 60.0),
        (6_000, 5_488, 5.12, 60.0),
        (50, 50, 0.0, 60.0),
        (5, 4, 0.0, 5.0),
        (1, 0, 60.0, 60.0),
        (60, 59, 60.0, 60.0),
        (200_000, 0, 79.0, 60.0),
        (100, 99, 59.0, 60.0),
        (100, 40, 59.0, 60.0),
        (100, 100, 30.0, 60.0),
        (1_000, 942, 5_011.0, 86_400.0),
        (14_400, 14_370, 179.56, 86_400.0),
        (14_400, 14_399, 6.0, 60.0),
        (100, 40, 1_800.0, 3_600.0),
        (100, 90, 3_000.0, 3_600.0),
        (100, 40, 30_000.0, 86_400.0),
        (1_000, 500, 3_600.0, 3_600.0),
        (100, 0, 90_000.0, 86_400.0),
        (100, 50, 90_000.0, 86_400.0),
        (150_000, 149_984, 360.0, 3_600.0),
        (20, 10, 5.0, 10.0),
        (5, 4, 0.2, 1.0),
        (10, 9, 0.01, 1.0),
    ],
    ids=[
        "OpenAI's documented",
        "OpenAI's, of many",
        "OpenAI's, rounded to nothing",
        "Groq's tokens",
        "Anthropic's, whole again",
        "a few in seconds, rounded to nothing",
        "one a minute",
        "a minute from the first",
        "in debt",
        "a minute by the clock, first",
        "a minute by the clock, later",
        "a minute by the clock, unused",
        "Groq's requests of a day",
        "a day's, a little later",
        "a day's first, as good as a minute's",
        "an hour, evenly",
        "an hour by the clock",
        "a day by the clock",
        "an hour by the clock, just begun",
        "a day, in debt",
        "a day by the clock, in debt",
        "a longer reset than anything tells",
        "ten seconds",
        "a second",
        "less than a second",
    ],
)
def test_a_window_is_derived_from_what_is_told(
    limit: int, remaining: int, reset: float, window: float
) -> None:
    meter = Meter(Rates())

    meter.observe(0.0, told(limit, remaining, reset))

    (found,) = meter.limits()
    assert found[:2] == ("requests", limit)
    assert found.window == pytest.approx(window)


@pytest.mark.parametrize(
    "seen",
    [
        Seen(),
        Seen(limit_requests=3, remaining_requests=0),
        Seen(limit_requests=3, reset_requests=1.0),
        Seen(remaining_requests=0, reset_requests=1.0),
        told(0, 0, 1.0),
        told(-1, -1, 0.0),
        told(2**65, 0, 1.0),
        told(60, 0, -1.0),
        told(60, 0, float("nan")),
        told(60, 0, 86_400.0 * 1.2),
        told_tokens(0, 0, 1.0),
    ],
    ids=[
        "nothing",
        "no reset",
        "nothing remaining told",
        "no limit",
        "a limit of 0",
        "no limit by -1",
        "a limit beyond all",
        "a negative reset",
        "a reset that is no number",
        "a reset beyond a day",
        "no tokens at all",
    ],
)
def test_what_cannot_be_learned_from_teaches_nothing(seen: Seen) -> None:
    meter = Meter(Rates())

    meter.observe(0.0, seen)

    assert (meter.limits(), at_once(meter, 0.0, most=100)) == ([], 100)


def test_a_limit_that_is_told_is_kept() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(60, 60, 10.0))

    calls = at_once(meter, 0.0)

    assert (calls, meter.wait(0.0, 0), meter.wait(60.0, 0)) == (60, 60.0, 0.0)


@pytest.mark.parametrize("rates", [Rates(), Rates(requests=100)], ids=["free", "configured"])
def test_what_was_started_before_anything_was_told_counts(rates: Rates) -> None:
    meter = Meter(rates)
    for _ in range(40):
        meter.book(0.0, 0)

    meter.observe(1.0, told(60, 59, 1.0, age=1.0))

    assert (at_once(meter, 1.0), meter.wait(1.0, 0)) == (20, 59.0)


def test_what_others_use_is_added_until_it_is_forgiven() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(60, 20, 40.0))

    assert (at_once(meter, 0.0), meter.wait(0.0, 0)) == (20, 40.0)
    assert at_once(meter, 40.0) == 40


def test_beside_what_others_use_ones_own_calls_slide() -> None:
    meter = Meter(Rates())
    for now in (0.0, 10.0):
        for _ in range(10):
            meter.book(now, 0)
    meter.observe(10.0, told(60, 0, 60.0))

    assert meter.wait(10.0, 0) == 50.0
    assert (at_once(meter, 60.0), meter.wait(60.0, 0)) == (10, 10.0)


def test_a_provider_that_counts_less_lowers_nothing() -> None:
    meter = Meter(Rates())
    for _ in range(60):
        meter.book(0.0, 0)

    meter.observe(1.0, told(60, 59, 1.0))

    assert meter.wait(1.0, 0) == 59.0


def test_what_was_started_after_the_request_is_not_in_its_headers() -> None:
    meter = Meter(Rates())
    for _ in range(5):
        meter.book(0.0, 0)
    for _ in range(20):
        meter.book(3.0, 0)

    # 35 were counted when the request came: 5 from here, and so 30 of others.
    meter.observe(5.0, told(60, 25, 35.0, age=5.0))

    assert (at_once(meter, 5.0), meter.wait(5.0, 0)) == (5, 35.0)


def test_a_call_that_took_a_minute_tells_of_what_was_started_before_it() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(60, 60, 0.0))
    for _ in range(30):
        meter.book(0.0, 0)
    for now in (20.0, 78.0):
        meter.book(now, 0)

    meter.observe(79.0, told(60, 29, 40.0, age=59.0))

    assert at_once(meter, 79.0) == 58


def test_what_was_started_a_minute_before_the_first_header_is_known() -> None:
    meter = Meter(Rates())
    for now in (0.0, 0.0, 59.0, 61.0):
        meter.book(now, 0)

    meter.observe(62.0, told(60, 57, 3.0, age=3.0))

    assert at_once(meter, 62.0) == 58


def test_an_answer_to_an_older_request_says_nothing_new() -> None:
    meter = Meter(Rates())
    meter.observe(11.0, told(60, 10, 50.0, age=1.0))

    meter.observe(30.0, told(60, 59, 1.0, age=30.0))

    assert at_once(meter, 30.0) == 10


def test_the_newest_limit_counts() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(60, 59, 1.0))

    meter.observe(0.0, told(100, 99, 0.6))

    assert at_once(meter, 0.0) == 99


def test_a_window_is_not_shortened_for_two_minutes() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(100, 99, 59.0))

    windows = []
    for now, reset in ((58.0, 1.0), (100.0, 59.0), (219.0, 1.0), (221.0, 1.0)):
        meter.observe(now, told(100, 50, reset))
        windows.append(meter.limits()[0].window)

    assert windows == [60.0, 60.0, 60.0, 2.0]


def test_a_window_that_turns_out_longer_is_believed_at_once() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(14_400, 14_399, 6.0))

    meter.observe(1.0, told(14_400, 14_370, 180.0))

    assert meter.limits()[0].window == 86_400.0


def test_of_a_day_that_is_refilled_evenly_each_call_waits_for_its_share() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(1_000, 0, 86_400.0))

    assert meter.wait(0.0, 0) == pytest.approx(86.4)
    assert meter.book(0.0, 0).start == pytest.approx(86.4)
    assert meter.wait(0.0, 0) == pytest.approx(172.8)


def test_of_an_hour_that_is_refilled_evenly_the_last_but_one_waits_for_half() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(2, 0, 3_600.0))

    assert meter.wait(0.0, 0) == pytest.approx(1_800.0)


def test_of_an_hour_by_the_clock_all_waits_for_its_end() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(1_000, 500, 3_500.0))

    assert (at_once(meter, 0.0), meter.wait(0.0, 0)) == (500, 3_500.0)


def test_of_a_day_what_was_started_since_is_added_to_the_count() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(1_000, 10, 85_536.0))

    assert at_once(meter, 1.0) == 10
    assert meter.wait(1.0, 0) == pytest.approx(85.4)


def test_of_a_day_what_was_cancelled_or_counted_since_is_not_added() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(1_000, 2, 86_227.2))
    meter.book(10.0, 0)
    gone = meter.book(20.0, 0)

    meter.cancel(gone)
    free = meter.wait(30.0, 0)
    meter.book(30.0, 0)
    full = meter.wait(30.0, 0)
    meter.observe(40.0, told(1_000, 1, 86_313.6, age=25.0))
    again = meter.wait(40.0, 0)

    # The call at 10 is in what was counted at 15, the one at 30 is not.
    assert [free, full, again] == pytest.approx([0.0, 56.4, 86.4])


def test_of_a_day_tokens_are_settled_and_given_back_too() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told_tokens(100_000, 1_000, 85_536.0))
    meter.observe(0.0, told(1_000, 2, 86_227.2))
    booking = meter.book(10.0, 1_000)

    full = meter.wait(10.0, 600)
    meter.settle(booking, 400)
    meter.cancel(meter.book(10.0, 600))
    settled = meter.wait(10.0, 600)
    meter.book(10.0, 600)

    assert (full > 500, settled, meter.wait(10.0, 0) > 50) == (True, 0.0, True)


def test_of_a_day_nothing_is_taken_off_that_was_not_put_on() -> None:
    meter = Meter(Rates())
    early = meter.book(0.0, 0)
    meter.observe(20.0, told(1_000, 1, 86_313.6, age=15.0))

    meter.cancel(early)

    assert at_once(meter, 20.0) == 1


def test_a_short_window_is_cut_into_short_slots() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(20, 10, 5.0))
    for now in (5.0, 5.3):
        for _ in range(10):
            meter.book(now, 0)

    assert meter.book(6.0, 0).start == 15.0


def test_of_an_hour_by_the_clock_nothing_is_forgiven_before_its_end() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(1_000, 0, 600.0))

    assert (meter.wait(0.0, 0), meter.wait(599.0, 0)) == (600.0, 1.0)


def test_a_provider_is_closed_for_an_hour_at_most() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(1_000, 0, 50_000.0))

    assert (meter.wait(0.0, 0), meter.wait(3_600.0, 0)) == (3_600.0, 0.0)


def test_a_limit_that_is_not_told_any_more_is_forgotten_within_an_hour() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(60, 60, 0.0))

    early, late = at_once(meter, 3_000.0), at_once(meter, 3_601.0)

    assert (early, late, meter.limits()) == (60, 1_000, [])


def test_a_limit_told_with_a_refusal_alone_holds_until_its_reset() -> None:
    meter = Meter(Rates())

    meter.observe(0.0, replace(told(50, 0, 2.0), refused=True))

    assert (meter.wait(0.0, 0), at_once(meter, 2.0, most=100)) == (2.0, 100)


def test_a_limit_that_answers_told_outlives_a_refusal() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(60, 59, 1.0))

    meter.observe(
        1.0, Seen(limit_requests=60, remaining_requests=0, reset_requests=60.0, refused=True)
    )

    assert (meter.wait(1.0, 0), at_once(meter, 61.0)) == (60.0, 60)


def test_the_stricter_of_two_limits_counts() -> None:
    mine, theirs = Meter(Rates(requests=10)), Meter(Rates(requests=100))

    for meter in (mine, theirs):
        meter.observe(0.0, told(20, 20, 0.0))

    assert (at_once(mine, 0.0), at_once(theirs, 0.0)) == (10, 20)


def test_tokens_are_learned_beside_requests() -> None:
    meter = Meter(Rates())
    meter.observe(
        0.0,
        Seen(
            limit_requests=60,
            remaining_requests=60,
            reset_requests=0.0,
            limit_tokens=1_000,
            remaining_tokens=400,
            reset_tokens=36.0,
        ),
    )

    first = meter.book(0.0, 300)
    waits = [meter.wait(0.0, 100), meter.wait(0.0, 101)]
    meter.settle(first, 350)

    assert (waits, meter.wait(0.0, 51)) == ([0.0, 36.0], 36.0)
    assert [limit.what for limit in meter.limits()] == ["requests", "tokens"]


def test_a_call_beyond_a_told_limit_of_tokens_goes_once_all_is_forgiven() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told_tokens(1_000, 999, 10.0))
    others = meter.wait(0.0, 5_000)

    booking = meter.book(20.0, 5_000)

    assert (others, booking.start, meter.wait(20.0, 0)) == (10.0, 20.0, 60.0)


def test_of_two_windows_each_limit_has_its_own() -> None:
    meter = Meter(Rates())
    meter.observe(
        0.0,
        Seen(
            limit_requests=5,
            remaining_requests=4,
            reset_requests=0.2,
            limit_tokens=100,
            remaining_tokens=90,
            reset_tokens=6.0,
        ),
    )
    for _ in range(5):
        meter.book(1.0, 18)

    assert meter.wait(1.0, 0) == pytest.approx(1.0)
    assert [meter.wait(1.0, tokens) for tokens in (10, 11)] == [5.0, 60.0]


def test_a_call_cancelled_after_headers_came_frees_its_place() -> None:
    meter = Meter(Rates())
    meter.observe(0.0, told(1, 1, 0.0))
    booking = meter.book(0.0, 0)

    meter.cancel(booking)

    assert meter.wait(0.0, 0) == 0.0


# ── whole providers ───────────────────────────────────────────────────────────────────────────


@dataclass
class Evenly:
    """A limit that is refilled evenly."""

    limit: int
    window: float
    used: float = 0.0
    at: float = 0.0

    def call(self, now: float) -> tuple[bool, Seen]:
        self.used = max(0.0, self.used - (now - self.at) * self.limit / self.window)
        self.at = now
        good = self.used + 1 <= self.limit + 1e-9
        self.used += good
        remaining = int(self.limit - self.used + 1e-9)
        return good, told(self.limit, remaining, self.used * self.window / self.limit)


@dataclass
class ByTheClock:
    """A limit that is whole again whenever its time comes."""

    limit: int
    window: float
    used: int = 0
    began: float = -17.0

    def call(self, now: float) -> tuple[bool, Seen]:
        while now >= self.began + self.window:
            self.began, self.used = self.began + self.window, 0
        good = self.used < self.limit
        self.used += good
        return good, told(self.limit, self.limit - self.used, self.began + self.window - now)


class Deaf(Meter):
    """Goes by what is configured alone."""

    def observe(self, now: float, seen: Seen) -> None:
        """Learn nothing."""


def played(
    provider: Evenly | ByTheClock, meters: list[Meter], *, seconds: float, at_once: int, seed: int
) -> tuple[int, int]:
    """Return how many calls were answered and refused.

    Each meter's program has `at_once` callers, who do nothing but call; answers take up to 5 s.
    """
    rng, order = Random(seed), itertools.count()
    answered = refused = 0
    due: list[tuple[float, int, Meter, float | None, Seen | None]] = []
    for meter in meters * at_once:
        heapq.heappush(due, (rng.random(), next(order), meter, None, None))
    while due[0][0] < seconds:
        now, _, meter, sent, seen = heapq.heappop(due)
        if sent is None:
            start = meter.book(now, 0).start
            heapq.heappush(due, (start, next(order), meter, start, None))
        elif seen is None:
            good, seen = provider.call(now)
            answered, refused = answered + good, refused + (not good)
            latency = rng.uniform(0.5, 5.0)
            heapq.heappush(due, (now + latency, next(order), meter, sent, seen))
        else:
            reset = max(0.0, (seen.reset_requests or 0.0) - (now - sent))
            aged = replace(seen, reset_requests=reset, age=now - sent)
            meter.observe(now, aged)
            heapq.heappush(due, (now, next(order), meter, None, None))
    return answered, refused


@pytest.mark.parametrize("provider", [Evenly, ByTheClock])
@pytest.mark.parametrize("seed", range(5))
def test_who_keeps_to_what_is_told_is_never_refused_and_never_idle(
    provider: type[Evenly | ByTheClock], seed: int
) -> None:
    answered, refused = played(
        provider(60, 60.0), [Meter(Rates())], seconds=600.0, at_once=20, seed=seed
    )

    assert (answered, refused) == (600, 0)


@pytest.mark.parametrize("seed", range(5))
def test_a_configured_limit_keeps_one_within_what_is_refilled_evenly(seed: int) -> None:
    deaf = Deaf(Rates(requests=60))

    assert played(Evenly(60, 60.0), [deaf], seconds=600.0, at_once=200, seed=seed) == (600, 0)


@pytest.mark.parametrize("seed", range(3))
def test_programs_that_know_nothing_of_each_other_share_a_limit_by_what_is_told(seed: int) -> None:
    meters = [Meter(Rates()) for _ in range(3)]

    answered, refused = played(Evenly(60, 60.0), meters, seconds=600.0, at_once=20, seed=seed)

    assert answered >= 590
    assert refused < answered  # of calls that are booked ahead, others take the room


def test_a_day_that_is_refilled_evenly_is_used_as_it_is_refilled() -> None:
    answered, refused = played(
        Evenly(1_000, 86_400.0), [Meter(Rates())], seconds=86_400.0, at_once=20, seed=0
    )

    assert (answered, refused <= 10) == (1999, True)
