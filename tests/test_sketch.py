import json
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.learning.patterns import NO_TIMES
from zejzl.learning.sketch import EDGES, Sketch, merged

MS = 1_000
DURATIONS = st.lists(st.integers(MS, 10**15), min_size=2, max_size=80)


def sketched(durations: list[int]) -> Sketch:
    sketch = Sketch()
    for duration in durations:
        sketch.add(duration)
    return sketch


@given(DURATIONS)
def test_quantiles_are_within_two_percent_of_the_exact_ones(durations: list[int]) -> None:
    times = sketched(durations).times()

    exact = quantiles(durations, n=20, method="inclusive")
    found = (times.p25_s, times.p50_s, times.p75_s, times.p95_s)
    for near, true in zip(found, (exact[4], exact[9], exact[14], exact[18]), strict=True):
        assert near == pytest.approx(true / 1e6, rel=0.02)


@given(DURATIONS)
def test_number_total_and_mean_are_exact(durations: list[int]) -> None:
    times = sketched(durations).times()

    assert times.n == len(durations)
    assert times.total_s == sum(durations) / 1e6
    assert times.mean_s == sum(durations) / 1e6 / len(durations)


@given(DURATIONS, DURATIONS)
def test_merged_it_is_the_sketch_of_both(some: list[int], others: list[int]) -> None:
    both = merged([sketched(others), sketched(some)])

    assert both.times() == sketched(some + others).times()


@given(DURATIONS)
def test_written_and_read_it_is_the_same(durations: list[int]) -> None:
    sketch = sketched(durations)

    again = Sketch.from_json(json.loads(json.dumps(sketch.to_json())))

    assert (again.counts, again.total) == (sketch.counts, sketch.total)


@pytest.mark.parametrize(
    "body",
    [
        *(None, [], [1, 2], ["1"], [1, 2.0, 3], [1, -1, 1], [1, len(EDGES) + 1, 1], [1, 5, 0]),
        # A sum that none of these durations, or only too many of them, would have.
        *([2, 0, 1], [0, 1, 1], [EDGES[1] + 1, 1, 1], [-1, 0, 1], [10**30, len(EDGES), 1]),
        *([10**13, 1, 10**13], [True, 1, 1], [10**400]),
    ],
    ids=str,
)
def test_what_is_no_sketch_is_refused(body: object) -> None:
    with pytest.raises(ValueError, match="not a sketch"):
        Sketch.from_json(body)


def test_without_durations_there_are_no_times() -> None:
    assert Sketch().times() is NO_TIMES


def test_nothing_lasts_nothing_and_less_than_a_millisecond_lasts_one() -> None:
    assert sketched([0, 0]).times().p50_s == 0.0
    assert sketched([1]).times().p50_s == pytest.approx(0.001, rel=0.02)


def test_the_median_lies_between_its_bounds_by_rank() -> None:
    times = sketched([n * 1_000_000 for n in range(1, 101)]).times()

    # Ranks 40 and 61 of 100 hold the median with 95 %.
    assert times.p50_low == pytest.approx(40, rel=0.02)
    assert times.p50_high == pytest.approx(61, rel=0.02)


def test_bounds_of_few_durations_are_the_least_and_the_most() -> None:
    times = sketched([1_000_000, 2_000_000, 9_000_000]).times()

    assert times.p50_low == pytest.approx(1, rel=0.02)
    assert times.p50_high == pytest.approx(9, rel=0.02)


def test_a_narrow_range_that_holds_much_is_a_peak() -> None:
    day = 86_400_000_000
    spread = [day * 2 + n * day // 7 for n in range(60)]

    times = sketched([day] * 25 + [day * 30] * 15 + spread).times()

    seconds, shares = zip(*times.peaks, strict=True)
    assert seconds == (pytest.approx(86_400, rel=0.02), pytest.approx(86_400 * 30, rel=0.02))
    assert shares == (0.25, 0.15)


def test_few_durations_have_no_peaks() -> None:
    assert sketched([1_000_000] * 19).times().peaks == ()


def test_two_buckets_side_by_side_are_one_peak() -> None:
    edge = EDGES[500]

    (peak,) = sketched([edge - 1] * 10 + [edge] * 10).times().peaks

    seconds, share = peak
    assert seconds == pytest.approx(edge / 1e6, rel=0.02)
    assert share == 1.0
