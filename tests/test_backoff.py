"""The wait before a retry: full jitter, or what the provider asked for and a little more."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.policies.backoff import retry_delay

CHANCE = st.randoms(use_true_random=False)


class Always(Random):
    """Chance that always comes out the same, from 0.0 to 1.0."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def random(self) -> float:
        return self._value


@pytest.mark.parametrize(
    ("attempt", "throttled", "longest"),
    [
        (2, False, 0.05),
        (3, False, 0.1),
        (10, False, 12.8),
        (11, False, 20.0),
        (1000, False, 20.0),
        (2, True, 1.0),
        (6, True, 16.0),
        (7, True, 20.0),
        (5000, True, 20.0),
    ],
)
def test_the_wait_is_drawn_from_nothing_up_to_a_doubling_limit(
    attempt: int, throttled: bool, longest: float
) -> None:
    waits = [
        retry_delay(attempt, Always(chance), throttled=throttled) for chance in (0.0, 0.5, 1.0)
    ]

    assert waits == [0.0, longest / 2, longest]


def test_nobody_counts_as_throttled_who_was_not_told_so() -> None:
    assert retry_delay(2, Always(1.0)) == 0.05


@given(st.integers(2, 10_000), CHANCE, st.booleans())
def test_no_computed_wait_is_longer_than_twenty_seconds(
    attempt: int, rng: Random, throttled: bool
) -> None:
    assert 0.0 <= retry_delay(attempt, rng, throttled=throttled) <= 20.0


@given(st.integers(2, 50), CHANCE, st.floats(0, 1e6), st.booleans())
def test_what_the_provider_asked_for_is_kept_and_at_most_a_third_more(
    attempt: int, rng: Random, asked: float, throttled: bool
) -> None:
    wait = retry_delay(attempt, rng, throttled=throttled, retry_after=asked)

    assert asked <= wait <= 1.3 * asked


@pytest.mark.parametrize(("chance", "wait"), [(0.0, 100.0), (0.5, 115.0), (1.0, 130.0)])
def test_callers_told_the_same_do_not_come_back_together(chance: float, wait: float) -> None:
    assert retry_delay(2, Always(chance), retry_after=100.0) == pytest.approx(wait)


@pytest.mark.parametrize("asked", [0.0, -5.0])
def test_being_asked_for_no_wait_is_none(asked: float) -> None:
    assert retry_delay(2, Always(1.0), retry_after=asked) == 0.0


@pytest.mark.parametrize("attempt", [1, 0, -1])
def test_the_first_attempt_does_not_wait(attempt: int) -> None:
    with pytest.raises(ValueError, match=f"^attempt must be at least 2, not {attempt}$"):
        retry_delay(attempt, Random(1), retry_after=1.0)


@given(st.integers(2, 20), st.integers())
def test_the_same_chance_gives_the_same_wait(attempt: int, seed: int) -> None:
    assert retry_delay(attempt, Random(seed)) == retry_delay(attempt, Random(seed))
