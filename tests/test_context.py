"""What is left out when not all of a conversation fits, and how long one may be that does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.policies.context import ContextLimit, shrink, trim

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


def test_any_prompt_is_tried_while_none_was_refused() -> None:
    limit = ContextLimit()

    assert not limit.too_long(10**9)
    assert limit.refused == float("inf")


@pytest.mark.parametrize(
    ("size", "too_long"), [(99, False), (100, True), (101, True)], ids=["shorter", "it", "longer"]
)
def test_what_was_refused_once_and_all_that_is_longer_is_too_long(
    size: int, too_long: bool
) -> None:
    limit = ContextLimit()

    limit.refuse(100)

    assert limit.too_long(size) is too_long


def test_the_shortest_refused_prompt_is_the_one_that_tells() -> None:
    limit = ContextLimit()

    for size in (100, 80, 120):
        limit.refuse(size)

    assert limit.refused == 80


@pytest.mark.parametrize(
    ("taken", "refused"),
    [(99, 100), (100, float("inf")), (101, float("inf"))],
    ids=["a shorter one", "the same", "a longer one"],
)
def test_taking_what_would_be_too_long_withdraws_the_refusal(taken: int, refused: float) -> None:
    limit = ContextLimit()
    limit.refuse(100)

    limit.take(taken)

    assert limit.refused == refused


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1000)), min_size=1))
def test_the_last_prompt_is_judged_as_it_went_and_whatever_is_longer_too(
    prompts: list[tuple[bool, int]],
) -> None:
    limit = ContextLimit()

    for taken, size in prompts:
        (limit.take if taken else limit.refuse)(size)

    taken, size = prompts[-1]
    assert limit.too_long(size) is not taken
    verdicts = [limit.too_long(each) for each in range(1001)]
    assert verdicts == sorted(verdicts)
