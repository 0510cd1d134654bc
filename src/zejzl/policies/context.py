"""Which part of a conversation is sent when not all of it fits.

Pure. Units: tokens; of a `ContextLimit`, any measure of length that its owner sticks to.
"""

from collections.abc import Sequence

KEPT_SHARE = 0.5  # of the history, when a provider says that it was too long


def trim(counts: Sequence[int], budget: int) -> int:
    """Return how many of the oldest items must go so that the rest fits into `budget`.

    Args:
        counts: Tokens of each item, oldest first. Items are whole turns, question and answer.
        budget: Most tokens that may stay.
    """
    total = sum(counts)
    for dropped, count in enumerate(counts):
        if total <= budget:
            return dropped
        total -= count
    return len(counts)


def shrink(counts: Sequence[int]) -> int:
    """Return how many of the oldest items to drop after a context overflow; 0: nothing to drop.

    The limit is not known, only that the whole was too much: half of the tokens go.
    """
    return max(1, trim(counts, int(sum(counts) * KEPT_SHARE))) if counts else 0


class ContextLimit:
    """What a model's answers have told about the longest prompt it takes.

    Attributes:
        refused: Size of the shortest prompt that was refused; infinity: none was.
    """

    __slots__ = ("refused",)

    def __init__(self) -> None:
        self.refused = float("inf")

    def refuse(self, size: int) -> None:
        """A prompt of this size was too long."""
        self.refused = min(self.refused, size)

    def take(self, size: int) -> None:
        """A prompt of this size was taken: a refusal of a shorter one says less than it seemed."""
        if size >= self.refused:
            self.refused = float("inf")

    def too_long(self, size: int) -> bool:
        """Whether a prompt of this size would be refused, as far as is known."""
        return size >= self.refused
