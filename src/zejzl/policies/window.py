"""What is remembered of recent calls: who failed among the last 64, and how long good ones took.

Pure. An outcome window is one int (newest outcome in bit 0) and a count, so that a push costs
three operations and a breaker that never failed holds no window at all.

Units: seconds.
"""

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field
from math import ceil

from zejzl.policies.kept import whole

OUTCOMES = 64
SAMPLES = 256
ENOUGH = 20  # samples to say anything by
_MASK = (1 << OUTCOMES) - 1


@dataclass(slots=True)
class Outcomes:
    """The last 64 outcomes; mutable because it is pushed on every call after a first failure."""

    bits: int = 0
    calls: int = 0

    @classmethod
    def of(cls, kept: object) -> "Outcomes":
        """Return the window that was kept as [bits, calls].

        Raises:
            ValueError: If it is none.
        """
        if not isinstance(kept, list) or len(kept) != 2:
            raise ValueError(f"not a window: {kept!r}")
        bits, calls = whole(kept[0]), whole(kept[1])
        if calls > OUTCOMES or bits >> calls:
            raise ValueError(f"not a window: {kept!r}")
        return cls(bits, calls)

    def push(self, failed: bool) -> None:
        """Take in one more outcome; the oldest goes."""
        self.bits = (self.bits << 1 | failed) & _MASK
        if self.calls < OUTCOMES:
            self.calls += 1

    @property
    def failures(self) -> int:
        """How many of the remembered calls failed."""
        return self.bits.bit_count()


@dataclass(slots=True)
class Latencies:
    """The seconds of the last 256 good answers, oldest first, and the same in order of size."""

    recent: deque[float] = field(default_factory=deque)
    ordered: list[float] = field(default_factory=list)

    def push(self, seconds: float) -> None:
        """Take in one good answer; the oldest goes when there are more than 256."""
        if len(self.recent) == SAMPLES:
            del self.ordered[bisect_left(self.ordered, self.recent.popleft())]
        self.recent.append(seconds)
        insort(self.ordered, seconds)

    def quantile(self, share: float) -> float | None:
        """Return the smallest sample with `share` of all at or below it; None below 20 samples."""
        n = len(self.ordered)
        if n < ENOUGH:
            return None
        return self.ordered[max(1, ceil(share * n)) - 1]
