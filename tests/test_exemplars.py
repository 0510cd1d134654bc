from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.learning.exemplars import MOST, Kept, keep, keep_all, names, read_kept

SEEN = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([None, "", "a", "b", "c", "d"])))


def kept(seen: Kept) -> Kept:
    found: Kept = []
    for figure, case in seen:
        keep(found, figure, case)
    return found


@given(SEEN)
def test_the_three_of_the_smallest_figures_are_kept(seen: Kept) -> None:
    least: dict[str | None, int] = {}
    for figure, case in seen:
        least[case] = min(figure, least.get(case, figure))

    expected = sorted((figure, case is not None, case or "") for case, figure in least.items())
    assert [(f, c is not None, c or "") for f, c in kept(seen)] == expected[:MOST]


@given(SEEN, SEEN)
def test_kept_apart_and_put_together_they_are_the_same(some: Kept, others: Kept) -> None:
    both = kept(some)
    keep_all(both, kept(others))

    assert both == kept(others + some)


def test_the_order_in_which_they_come_changes_nothing() -> None:
    seen: Kept = [(1, "a"), (1, None), (2, "b"), (1, "b"), (0, "c")]

    assert {tuple(kept([*order])) for order in permutations(seen)} == {
        ((0, "c"), (1, None), (1, "a"))
    }
    assert names(kept(seen)) == ("c", None, "a")


@pytest.mark.parametrize(
    "body",
    [
        *(None, [1], [["1", "a"]], [[1, 2]], [[1, "a"]] * 4, [[True, "a"]]),
        *([[2, "a"], [1, "b"]], [[1, "a"], [1, None]], [[10**19, "a"]], [[-(10**19), "a"]]),
    ],
    ids=str,
)
def test_what_are_no_exemplars_is_refused(body: object) -> None:
    with pytest.raises(ValueError, match=r"not .*exemplar"):
        read_kept(body)
