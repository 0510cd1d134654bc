"""Intervals, tests and sizes agree with published figures, and hold their laws on any counts."""

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.learning.statistics import (
    benjamini_hochberg,
    difference_interval,
    fisher_exact,
    needed_for_ratio,
    needed_for_shares,
    stratified_difference,
    wilson,
)

COUNT = st.integers(0, 40)
TABLE = st.tuples(COUNT, COUNT, COUNT, COUNT)


@st.composite
def shares(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(1, 10_000))
    return draw(st.integers(0, n)), n


def chance(table: tuple[int, int, int, int]) -> float:
    a, b, c, d = table
    return comb(a + b, a) * comb(c + d, c) / comb(a + b + c + d, a + c)


def summed(table: tuple[int, int, int, int]) -> float:
    """Return Fisher's p by its definition: every table with these margins, one by one."""
    a, b, c, d = table
    tables = [
        (x, a + b - x, a + c - x, d - a + x)
        for x in range(max(0, a - d), min(a + b, a + c) + 1)
        if a + c - x >= 0
    ]
    limit = chance(table) * (1 + 1e-7)
    return sum(each for each in map(chance, tables) if each <= limit)


# Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_a_share_has_the_interval_that_newcombe_prints(
    successes: int, n: int, expected: tuple[float, float]
) -> None:
    assert wilson(successes, n) == pytest.approx(expected, abs=5e-5)


@given(shares())
def test_an_interval_holds_the_share_and_stays_between_none_and_all(share: tuple[int, int]) -> None:
    low, high = wilson(*share)

    assert 0.0 <= low <= share[0] / share[1] <= high <= 1.0


@given(shares())
def test_more_of_the_same_makes_an_interval_no_wider(share: tuple[int, int]) -> None:
    low, high = wilson(*share)
    low4, high4 = wilson(4 * share[0], 4 * share[1])

    assert high4 - low4 < high - low


def test_nothing_seen_allows_every_share() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert difference_interval(0, 0, 5, 10) == (-1.0, 1.0)


@pytest.mark.parametrize("counts", [(3, 2), (-1, 5)])
def test_more_successes_than_trials_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="successes must be between"):
        wilson(*counts)


# Newcombe, "Interval estimation for the difference", 1998, table II, method 10.
@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((10, 10, 0, 10), (0.6075, 1.0)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
    ],
)
def test_a_difference_has_the_interval_that_newcombe_prints(
    counts: tuple[int, int, int, int], expected: tuple[float, float]
) -> None:
    assert difference_interval(*counts) == pytest.approx(expected, abs=5e-5)


@given(shares(), shares())
def test_a_difference_turned_round_has_its_interval_turned_round(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    low, high = difference_interval(*one, *other)
    back = difference_interval(*other, *one)

    assert (low, high) == pytest.approx((-back[1], -back[0]))
    assert -1.0 <= low <= one[0] / one[1] - other[0] / other[1] <= high <= 1.0


# The lady tasting tea (Fisher, 1935); the twins and criminals (1934, two-sided); R's fisher.test.
@pytest.mark.parametrize(
    ("table", "p"),
    [
        ((3, 1, 1, 3), 0.485714),
        ((2, 15, 10, 3), 0.000537),
        ((1, 9, 11, 3), 0.002759),
        ((300, 499_700, 400, 499_600), 0.000177547720),
        ((250_000, 250_000, 249_000, 251_000), 0.04571617),
    ],
    ids=["tea", "convicts", "men and women", "rare, a million", "half, a million"],
)
def test_a_table_has_the_p_that_is_known_of_it(table: tuple[int, int, int, int], p: float) -> None:
    assert fisher_exact(*table) == pytest.approx(p, rel=1e-3)


@given(TABLE)
def test_p_is_the_sum_over_all_tables_that_are_no_likelier(
    table: tuple[int, int, int, int],
) -> None:
    assert fisher_exact(*table) == pytest.approx(min(1.0, summed(table)), rel=1e-6)


@given(TABLE)
def test_p_does_not_depend_on_which_row_or_column_comes_first(
    table: tuple[int, int, int, int],
) -> None:
    a, b, c, d = table

    for turned in ((c, d, a, b), (b, a, d, c), (a, c, b, d)):
        assert fisher_exact(*turned) == pytest.approx(fisher_exact(*table), rel=1e-6)


def test_a_table_that_could_not_be_otherwise_proves_nothing() -> None:
    assert fisher_exact(0, 0, 5, 7) == 1.0
    assert fisher_exact(5, 0, 7, 0) == 1.0


def test_a_table_of_complete_separation_is_as_unlikely_as_it_is() -> None:
    assert fisher_exact(10, 0, 0, 10) == pytest.approx(2 / comb(20, 10))


def test_counts_below_none_are_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        fisher_exact(1, -1, 2, 3)


def test_q_values_are_those_of_the_procedure() -> None:
    # Benjamini & Hochberg, 1995, section 4: of these 15 the first four are rejected at 0.05.
    p_values = [
        *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344),
        *(0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0),
    ]

    q_values = benjamini_hochberg(p_values)

    assert [q < 0.05 for q in q_values] == [True] * 4 + [False] * 11
    assert q_values[3] == pytest.approx(0.0095 * 15 / 4)


@given(st.lists(st.floats(0, 1), max_size=30))
def test_q_values_are_in_the_order_of_p_and_none_is_smaller(p_values: list[float]) -> None:
    q_values = benjamini_hochberg(p_values)

    assert all(p <= q * (1 + 1e-12) <= 1.000001 for p, q in zip(p_values, q_values, strict=True))
    by_p = [q for _, q in sorted(zip(p_values, q_values, strict=True))]
    assert by_p == sorted(by_p)


def test_within_strata_a_difference_may_turn_round() -> None:
    # Kidney stones (Charig et al., BMJ 1986): open surgery is better for small and for large ones,
    # and worse in all: 273 of 350 against 289 of 350.
    strata = [(81, 87, 234, 270), (192, 263, 55, 80)]

    assert 273 / 350 - 289 / 350 < 0
    assert stratified_difference(strata) == pytest.approx(0.0538, abs=0.0001)


def test_where_no_stratum_has_both_sides_nothing_is_compared() -> None:
    assert stratified_difference([(1, 2, 0, 0), (0, 0, 3, 4)]) is None


# R's power.prop.test; the last is the example of its help page, n = 76.7.
@pytest.mark.parametrize(
    ("shares", "power", "needed"),
    [((0.9, 0.7), 0.8, 62), ((0.5, 0.6), 0.8, 388), ((0.5, 0.75), 0.9, 77)],
)
def test_a_difference_needs_the_trials_that_are_known_of_it(
    shares: tuple[float, float], power: float, needed: int
) -> None:
    assert needed_for_shares(*shares, power=power) == needed


def test_no_difference_needs_more_than_anybody_has() -> None:
    assert needed_for_shares(0.5, 0.5) == needed_for_shares(0.5, 0.5 + 1e-9) == 10_000_000
    assert needed_for_ratio(1.0, 2.0, 1.0) == 10_000_000


def test_durations_that_vary_more_need_more_trials() -> None:
    # ln(3)/1.349 = 0.814 deviations; 2·(2.802·0.814/ln 2)² = 21.7
    assert needed_for_ratio(1.0, 3.0, 0.5) == 22
    assert needed_for_ratio(1.0, 9.0, 0.5) > needed_for_ratio(1.0, 3.0, 0.5)
    assert needed_for_ratio(1.0, 1.0, 0.5) == 2
