"""What is left out when not all of a conversation fits: the oldest, and no more than must be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.policies.context import shrink, trim

COUNTS = st.lists(st.integers(0, 1000), max_size=30)


@given(COUNTS, st.integers(-10, 5000))
def test_the_rest_fits_and_one_more_would_not(counts: list[int], budget: int) -> None:
    dropped = trim(counts, budget)

    assert 0 <= dropped <= len(counts)
    assert dropped == len(counts) or sum(counts[dropped:]) <= budget
    assert dropped == 0 or sum(counts[dropped - 1 :]) > budget


@pytest.mark.parametrize(
    ("counts", "budget", "dropped"),
    [
        ([], 10, 0),
        ([3, 4, 5], 12, 0),
        ([3, 4, 5], 11, 1),
        ([3, 4, 5], 9, 1),
        ([3, 4, 5], 5, 2),
        ([3, 4, 5], 4, 3),
        ([3, 4, 5], -1, 3),
    ],
)
def test_the_oldest_go_first(counts: list[int], budget: int, dropped: int) -> None:
    assert trim(counts, budget) == dropped


@given(COUNTS)
def test_shrinking_halves_the_tokens_and_always_gets_on(counts: list[int]) -> None:
    dropped = shrink(counts)

    assert (dropped > 0) is bool(counts)
    assert 2 * sum(counts[dropped:]) <= sum(counts)
    assert dropped <= 1 or 2 * sum(counts[dropped - 1 :]) > sum(counts) - 1


@pytest.mark.parametrize(
    ("counts", "dropped"),
    [([], 0), ([7], 1), ([0, 0], 1), ([5, 5], 1), ([1, 9], 2), ([9, 1], 1), ([2, 2, 2, 2], 2)],
    ids=str,
)
def test_what_is_dropped_of_an_overflow(counts: list[int], dropped: int) -> None:
    assert shrink(counts) == dropped
