"""What was started is remembered in slots: all of it, as long as it is of interest."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.policies.starts import LATEST, NEVER, SLOTS, Starts, as_number, as_time

WINDOW = 64.0
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "recount", "remove", "forget"]),
        st.integers(0, 64 * 20).map(lambda ticks: ticks / 64),
        st.integers(0, 100),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_sums_are_those_of_the_slots_and_of_the_calls(
    steps: list[tuple[str, float, int]],
) -> None:
    starts, now = Starts(WINDOW), 0.0
    calls: dict[int, tuple[float, int]] = {}

    for number, (what, pause, amount) in enumerate(steps):
        now += pause
        which = [*calls][amount % len(calls)] if calls else None
        if what == "add":
            starts.add(now, amount)
            calls[number] = (now, amount)
        elif what == "forget":
            starts.forget(now)
            calls = {key: call for key, call in calls.items() if call[0] + WINDOW > now - 1}
        elif which is not None and what == "recount":
            start, tokens = calls[which]
            starts.recount(start, amount - tokens)
            calls[which] = (start, amount)
        elif which is not None:
            starts.remove(*calls.pop(which))

    inside = [tokens for start, tokens in calls.values() if start + WINDOW > now]
    starts.forget(now)
    assert (starts.all_calls, starts.all_tokens) == (sum(starts.calls), sum(starts.tokens))
    assert starts.all_calls >= len(inside)
    assert starts.latest == sorted(set(starts.latest))
    assert all(count > 0 for count in starts.calls)


def test_calls_of_one_slot_are_counted_together_and_of_two_apart() -> None:
    starts = Starts(100.0)

    for start, tokens in ((0.0, 1), (0.5, 2), (0.999, 3), (1.0, 4), (7.0, 5)):
        starts.add(start, tokens)

    assert (starts.latest, starts.calls, starts.tokens) == (
        [0.999, 1.0, 7.0],
        [3, 1, 1],
        [6, 4, 5],
    )
    assert (starts.all_calls, starts.all_tokens) == (5, 15)


def test_a_window_may_be_cut_anew() -> None:
    starts = Starts(100.0)
    starts.add(10.0, 1)

    starts.remember(1.0, 2.0)
    starts.add(10.5, 1)
    starts.forget(12.0)

    assert (starts.latest, starts.reach) == ([10.5], 2.0)


def test_what_is_dropped_is_not_corrected_in_its_neighbour() -> None:
    starts = Starts(100.0)
    for start in (0.0, 50.0, 60.0):
        starts.add(start, 10)

    starts.forget(150.0)
    starts.recount(50.0, 5)
    starts.remove(0.0, 10)
    starts.recount(60.0, 7)

    assert (starts.calls, starts.tokens) == ([1], [17])
    assert (starts.all_calls, starts.all_tokens) == (1, 17)


def test_what_was_never_there_is_not_corrected() -> None:
    starts = Starts(100.0)
    starts.add(1.0, 10)

    starts.recount(5.0, 5)
    starts.remove(5.0, 5)

    assert (starts.calls, starts.tokens) == ([1], [10])


def test_of_two_calls_in_a_slot_one_can_be_removed() -> None:
    starts = Starts(100.0)
    starts.add(1.0, 10)
    starts.add(1.5, 20)

    starts.remove(1.0, 10)
    first = (starts.all_calls, starts.all_tokens, [*starts.calls], [*starts.tokens])
    starts.remove(1.5, 20)

    assert first == (1, 20, [1], [20])
    assert (starts.all_calls, starts.all_tokens, starts.latest) == (0, 0, [])


def test_what_is_left_of_an_emptied_slot_goes_with_it() -> None:
    starts = Starts(100.0)
    starts.add(1.0, 10)
    starts.add(5.0, 10)

    starts.remove(1.0, 3)

    assert (starts.all_calls, starts.all_tokens) == (1, 10)


def test_the_wait_is_for_the_newest_slot_that_is_too_much() -> None:
    starts = Starts(100.0)
    for start in (0.0, 10.0, 20.0):
        starts.add(start, 5)

    waits = [starts.after(30.0, starts.calls, 1, most, 100.0) for most in (4, 3, 2, 1)]
    tokens = [starts.after(30.0, starts.tokens, amount, 15, 100.0) for amount in (0, 1, 6, 11, 99)]

    assert waits == [30.0, 100.0, 110.0, 120.0]
    assert tokens == [30.0, 100.0, 110.0, 120.0, 120.0]


def test_what_began_with_the_window_is_out_of_it() -> None:
    starts = Starts(100.0)
    starts.add(0.0, 5)

    assert starts.after(100.0, starts.calls, 1, 1, 100.0) == 100.0
    assert starts.after(99.0, starts.calls, 1, 1, 100.0) == 100.0


def test_starts_of_a_stretch_are_counted_by_slots() -> None:
    starts = Starts(100.0)
    for start, tokens in ((0.0, 1), (10.0, 2), (10.5, 3), (20.0, 4)):
        starts.add(start, tokens)

    # 10.2 lies in a slot: what is in it counts as before.
    assert starts.between(0.0, 10.2) == (2, 5)
    assert starts.between(NEVER, 9.0) == (1, 1)
    assert [starts.since(moment) for moment in (9.0, 10.2, 10.5, 20.0)] == [
        (3, 9),
        (1, 4),
        (1, 4),
        (0, 0),
    ]


def test_a_column_is_calls_or_tokens() -> None:
    starts = Starts(100.0)
    starts.add(0.0, 7)

    assert (starts.column(0), starts.column(1)) == (([1], 1), ([7], 7))


def test_a_copy_goes_its_own_way() -> None:
    starts, other = Starts(100.0), Starts(100.0)
    starts.add(0.0, 7)
    starts.add(150.0, 7)
    starts.forget(150.0)

    other.copy(starts)
    other.recount(0.0, 5)
    other.add(160.0, 1)

    assert (starts.tokens, other.tokens, starts.all_calls) == ([7], [7, 1], 1)
    assert (other.all_calls, other.all_tokens) == (2, 8)


def test_what_was_dropped_stays_dropped_when_it_is_kept() -> None:
    starts, other = Starts(100.0), Starts(100.0)
    for start in (0.0, 150.0):
        starts.add(start, 7)
    starts.forget(150.0)

    other.restore(json.loads(json.dumps(starts.to_json())))
    other.recount(0.0, 5)

    assert other.to_json() == starts.to_json()
    assert (other.all_calls, other.all_tokens) == (1, 7)


def test_memory_is_bounded_by_slots() -> None:
    starts = Starts(1.0)

    for number in range(10_000):
        starts.add(number / 1_000, 1)
        starts.forget(number / 1_000)

    assert len(starts.latest) <= SLOTS + 1


@pytest.mark.parametrize("time", [0, 1.5, LATEST, -LATEST])
def test_a_time_is_a_number(time: float) -> None:
    assert as_time(as_number(time)) == time


def test_never_is_kept_as_nothing() -> None:
    assert (as_number(NEVER), as_time(None)) == (None, NEVER)


@pytest.mark.parametrize(
    ("kept", "shown"),
    [
        ("noon", "'noon'"),
        (float("inf"), "inf"),
        (1.1e30, "1.1e+30"),
        (True, "True"),
        ("x" * 500, "'" + "x" * 79),
    ],
    ids=["a word", "infinity", "too late", "a truth", "a long word"],
)
def test_what_is_no_time_is_named(kept: object, shown: str) -> None:
    with pytest.raises(ValueError) as wrong:
        as_time(kept)

    assert str(wrong.value) == f"the state of a rate limit is damaged: a time cannot be {shown}"


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ([], r"what was started cannot be \[\]"),
        ({"latest": [1.0]}, r"what was started cannot be \[\[1.0\], None, None\]"),
        (
            {"latest": [2.0, 1.0], "calls": [1, 1], "tokens": [1, 1]},
            r"the order of what was started cannot be \[2.0, 1.0\]",
        ),
    ],
    ids=["no object", "columns missing", "out of order"],
)
def test_damage_is_named(kept: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^the state of a rate limit is damaged: {message}$"):
        Starts(1.0).restore(kept)
