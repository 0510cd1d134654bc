"""Burst credits: few, slow to grow back, and what one of them buys."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.policies.boost import Credits, Lengths, factor, grown

ACTS = st.sampled_from(["spend", "succeed", "give back"])
LENGTHS = st.lists(st.integers(1, 100_000), min_size=1, max_size=300)


def spent(credits: int, now: float = 0.0) -> Credits:
    """Return what is left of five after so many were spent."""
    purse = Credits(now)
    for _ in range(credits):
        purse.spend(now)
    return purse


def seen(*tokens: int) -> Lengths:
    lengths = Lengths()
    for each in tokens:
        lengths.push(each)
    return lengths


def test_there_are_five_credits_and_then_none() -> None:
    purse = Credits(0.0)

    paid = [purse.spend(0.0) for _ in range(6)]

    assert paid == [True] * 5 + [False]
    assert purse.left == 0


@pytest.mark.parametrize(
    ("seconds", "left"), [(59.5, 4), (60.0, 5)], ids=["nearly a minute", "a minute"]
)
def test_a_success_a_minute_after_the_first_was_spent_gives_one_back(
    seconds: float, left: int
) -> None:
    purse = Credits(0.0)
    purse.spend(1_000.0)  # what passed while nothing was missing does not count

    purse.succeeded(1_000.0 + seconds)

    assert purse.left == left


def test_one_grows_back_a_minute_however_many_calls_succeed() -> None:
    purse = spent(5)
    left = []

    for now in range(301):
        purse.succeeded(float(now))
        left.append(purse.left)

    assert left == [now // 60 for now in range(301)]


def test_hours_without_a_success_give_nothing_back_and_the_next_success_one() -> None:
    purse = spent(5)

    for _ in range(3):
        purse.succeeded(7_200.0)

    assert purse.left == 1


def test_spending_another_does_not_put_off_the_growth() -> None:
    purse = spent(1)

    purse.spend(30.0)
    purse.succeeded(60.0)

    assert purse.left == 4


def test_there_are_never_more_than_five() -> None:
    purse = Credits(0.0)

    purse.give_back()
    purse.succeeded(1_000.0)

    assert purse.left == 5


def test_what_was_taken_for_a_call_that_was_never_made_comes_back() -> None:
    purse = spent(5)

    purse.give_back()

    assert purse.left == 1
    assert [purse.spend(0.0), purse.spend(0.0)] == [True, False]


@given(st.lists(st.tuples(ACTS, st.integers(0, 200)), max_size=80))
def test_no_window_spends_more_than_five_and_one_a_minute(acts: list[tuple[str, int]]) -> None:
    purse = Credits(0.0)
    now = 0.0
    spendings: list[float] = []
    for act, seconds in acts:
        now += seconds
        before = purse.left
        if act == "spend":
            assert purse.spend(now) is (before > 0)
            spendings += [now] * (before > 0)
        elif act == "succeed":
            purse.succeeded(now)
            assert purse.left - before in (0, 1)
        elif spendings:
            purse.give_back()
            spendings.pop()
        assert 0 <= purse.left <= 5

    for start in spendings:
        within = [at for at in spendings if at >= start]
        assert len(within) <= 5 + (now - start) / 60


@given(LENGTHS)
def test_of_the_last_256_answers_95_percent_are_no_longer_than_the_usual_most(
    tokens: list[int],
) -> None:
    last = tokens[-256:]

    most = seen(*tokens).usual_most

    assert most in last
    assert sum(each <= most for each in last) >= 0.95 * len(last)
    assert sum(each < most for each in last) < 0.95 * len(last)


def test_answers_before_the_last_256_are_forgotten() -> None:
    lengths = seen(*[900] * 300, *[100] * 255)

    before = lengths.usual_most
    for _ in range(256):
        lengths.push(50)

    assert (before, lengths.usual_most) == (100, 50)


def test_nothing_is_known_of_answers_that_were_not_seen() -> None:
    assert Lengths().usual_most is None


@pytest.mark.parametrize(
    ("max_tokens", "lengths", "by"),
    [
        (100, None, 1.25),
        (100, seen(), 1.25),
        (100, seen(130), 1.3),
        (100, seen(110), 1.1),
        (100, seen(20), 1.1),
        (100, seen(150), 1.5),
        (100, seen(900), 1.5),
        (100, seen(*[120] * 19, 900), 1.2),
        (100, seen(*[120] * 18, 900, 900), 1.5),
    ],
    ids=[
        "no lengths are kept",
        "none was seen",
        "in between",
        "just the least",
        "shorter than the limit",
        "just the most",
        "far longer",
        "one of twenty is longer",
        "two of twenty are",
    ],
)
def test_an_answer_may_grow_to_what_is_usual_by_a_tenth_to_a_half(
    max_tokens: int, lengths: Lengths | None, by: float
) -> None:
    assert factor(max_tokens, lengths) == by


@pytest.mark.parametrize(
    ("max_tokens", "by", "most", "larger"),
    [
        (100, 1.25, None, 125),
        (1_001, 1.25, None, 1_251),
        (100, 1.25, 125, 125),
        (100, 1.25, 124, 124),
        (100, 1.25, 8_000, 125),
        (100, 1.5, 100, 100),
        (100, 1.5, 50, 50),
        (1, 1.25, None, 1),
    ],
    ids=[
        "no limit is known",
        "whole tokens",
        "just the model's limit",
        "past the model's limit",
        "far below it",
        "at the limit already",
        "beyond it already",
        "too small to grow",
    ],
)
def test_the_larger_limit_is_never_past_the_models_own(
    max_tokens: int, by: float, most: int | None, larger: int
) -> None:
    assert grown(max_tokens, by, most) == larger


@given(st.integers(1, 10**7), LENGTHS | st.none())
def test_no_answer_grows_by_more_than_half(max_tokens: int, tokens: list[int] | None) -> None:
    lengths = None if tokens is None else seen(*tokens)

    larger = grown(max_tokens, factor(max_tokens, lengths))

    assert max_tokens <= larger <= ceil(1.5 * max_tokens)
