"""Burst credits: when one answer may be longer than was asked for, and by how much.

A credit lets one answer grow by 10 to 50 %, because an answer that stops at its token limit is
paid for and of little use. There are few of them, so that a limit remains a limit.

Pure. Units: tokens, seconds.
Source: the burst credits of AWS's small instances: saved in calm, spent on peaks.
"""

from collections import deque
from math import ceil

CREDITS = 5
REGROWTH = 60.0  # seconds with at least one success that give one credit back
LEAST_FACTOR = 1.1
MOST_FACTOR = 1.5
USUAL_FACTOR = 1.25
LENGTHS = 256


class Credits:
    """Whole credits, at most five.

    Attributes:
        left: How many there are.
    """

    __slots__ = ("_since", "left")

    def __init__(self, now: float) -> None:
        self.left = CREDITS
        self._since = now

    def spend(self, now: float) -> bool:
        """Take one; False when there is none."""
        if not self.left:
            return False
        if self.left == CREDITS:
            self._since = now  # what passed while nothing was missing does not count
        self.left -= 1
        return True

    def give_back(self) -> None:
        """Return one that was taken for a call that was never made."""
        self.left = min(CREDITS, self.left + 1)

    def succeeded(self, now: float) -> None:
        """A call went well: one credit grows back when the last did so 60 s ago."""
        if self.left < CREDITS and now - self._since >= REGROWTH:
            self.left += 1
            self._since = now


class Lengths:
    """The lengths of the last 256 answers."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: deque[int] = deque(maxlen=LENGTHS)

    def push(self, tokens: int) -> None:
        """Take in the length of one answer; the oldest goes."""
        self._seen.append(tokens)

    @property
    def usual_most(self) -> int | None:
        """The length that 95 % of the answers do not exceed; None: none was seen."""
        if not self._seen:
            return None
        return sorted(self._seen)[ceil(0.95 * len(self._seen)) - 1]


def factor(max_tokens: int, seen: Lengths | None) -> float:
    """Return how many times longer an answer limited to `max_tokens` may become."""
    most = seen.usual_most if seen is not None else None
    if most is None:
        return USUAL_FACTOR
    return min(MOST_FACTOR, max(LEAST_FACTOR, most / max_tokens))


def grown(max_tokens: int, by: float, most: int | None = None) -> int:
    """Return the larger limit, never past `most`, the model's own; it may be no larger."""
    larger = int(max_tokens * by)
    return larger if most is None else min(larger, most)
