"""Quantiles of durations in little memory: counts in buckets that grow by 2 %.

A duration is a whole number of microseconds, so that sums are exact in any order and two sketches
merge without a trace. Bucket i holds durations from 1.02**i ms on, up to 1e9 s; a bucket is told
by its geometric middle, so that a quantile is at most 1 % off. What is shorter than 1 ms counts as
1 ms, and 0 as 0.

Source: log-bucket sketches after C. Masson, J. Rim, H. Lee, "DDSketch", VLDB 2019.
"""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from math import ceil, floor, sqrt

from zejzl.learning.patterns import NO_TIMES, Times

BASE = 1.02
MICROSECONDS = 1_000_000
# The first duration of each bucket; one search in it gives the same bucket on every machine,
# where a logarithm may differ in its last digit.
EDGES = (1, *(ceil(1000 * BASE**i) for i in range(1, 1396)))
FAR = 10**18  # µs; beyond all times, and no duration can be read that is longer
MOST = 10**12  # more than anybody can count up to
_BORDERS = (0, *EDGES, FAR)
_MIDDLES: tuple[float, ...] = (0.0, *(BASE ** (i + 0.5) / 1000 for i in range(len(EDGES))))
_PEAK = 0.15  # the least share of all that a peak holds
_PEAK_N = 20  # durations below which any few would be one


class Sketch:
    """Durations of one thing. Mutable for speed; `counts` and `total` (µs) are all of it."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total = 0

    def add(self, duration: int) -> None:
        """Count a duration, in µs."""
        bucket = bisect_right(EDGES, duration)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.total += duration

    def remove(self, duration: int) -> None:
        """Count a duration no longer that was counted."""
        bucket = bisect_right(EDGES, duration)
        left = self.counts[bucket] - 1
        if left:
            self.counts[bucket] = left
        else:
            del self.counts[bucket]
        self.total -= duration

    def merge(self, other: "Sketch") -> None:
        """Add what another one counted."""
        counts = self.counts
        for bucket, n in other.counts.items():
            counts[bucket] = counts.get(bucket, 0) + n
        self.total += other.total

    def times(self) -> Times:
        """Return the durations in figures, in seconds."""
        if not self.counts:
            return NO_TIMES
        buckets = sorted(self.counts)
        upto = list(accumulate(map(self.counts.__getitem__, buckets)))
        n = upto[-1]

        def ranked(rank: float) -> float:
            """Return the duration of this rank from 0, between two ranks linearly."""
            low = floor(rank)
            first = _MIDDLES[buckets[bisect_right(upto, low)]]
            if rank == low:
                return first
            return first + (rank - low) * (_MIDDLES[buckets[bisect_right(upto, low + 1)]] - first)

        spread = 1.96 * sqrt(n) / 2  # ranks beside the median that hold it 95 times in 100
        total = self.total / MICROSECONDS
        return Times(
            n=n,
            total_s=total,
            mean_s=total / n,
            p25_s=ranked((n - 1) * 0.25),
            p50_s=ranked((n - 1) * 0.50),
            p75_s=ranked((n - 1) * 0.75),
            p95_s=ranked((n - 1) * 0.95),
            p50_low=ranked(max(0, floor(n / 2 - spread) - 1)),
            p50_high=ranked(min(n - 1, ceil(n / 2 + spread))),
            peaks=_peaks(self.counts, n) if n >= _PEAK_N else (),
        )

    def to_json(self) -> list[object]:
        """Return total, then buckets and their counts."""
        return [self.total, *(number for pair in sorted(self.counts.items()) for number in pair)]

    @classmethod
    def from_json(cls, body: object) -> "Sketch":
        """Return what `to_json` wrote.

        Raises:
            ValueError: If it is none.
        """
        if not isinstance(body, list) or {*map(type, body)} != {int} or len(body) % 2 != 1:
            raise ValueError("not a sketch of durations: other than total, buckets and counts")
        sketch = cls()
        sketch.total = body[0]
        sketch.counts = dict(zip(body[1::2], body[2::2], strict=True))
        low = high = 0
        for bucket, n in sketch.counts.items():
            if not (0 <= bucket <= len(EDGES) and 1 <= n <= MOST):
                raise ValueError("not a sketch of durations: a bucket that cannot be")
            low += n * _BORDERS[bucket]
            high += n * _BORDERS[bucket + 1]
        if not low <= sketch.total <= high:
            raise ValueError("not a sketch of durations: their sum cannot be")
        return sketch


def merged(sketches: Mapping[object, Sketch] | list[Sketch]) -> Sketch:
    """Return one sketch of all that these counted."""
    everything = Sketch()
    for sketch in sketches.values() if isinstance(sketches, Mapping) else sketches:
        everything.merge(sketch)
    return everything


def _peaks(counts: Mapping[int, int], n: int) -> tuple[tuple[float, float], ...]:
    """Return (seconds, share) of each two buckets side by side, a band of 4 %, that hold much.

    The fullest first; no bucket is in two of them.
    """
    bar = _PEAK * n
    tall = [bucket for bucket, count in counts.items() if 2 * count >= bar]
    starts = {start for bucket in tall for start in (bucket - 1, bucket)}
    bands = [(counts.get(start, 0) + counts.get(start + 1, 0), start) for start in starts]
    peaks = []
    taken: set[int] = set()
    for held, start in sorted(bands, key=lambda band: (-band[0], band[1])):
        if held >= bar and not taken & {start, start + 1}:
            taken |= {start, start + 1}
            full = max((start, start + 1), key=lambda bucket: counts.get(bucket, 0))
            peaks.append((_MIDDLES[full], held / n))
    return tuple(peaks)
