"""Parking: which failed work is worth keeping for better times, and when it is tried again.

Pure. Units: seconds.
"""

from dataclasses import dataclass
from math import inf

from zejzl.errors import FailureClass, NotNow, ProviderError, SpendLimitReached
from zejzl.policies.diagnosis import classify

LONGEST = 3600.0  # between two tries
MOST_TOLD = 86_400.0  # that is believed of a wait which somebody names
# The request's own fault: it fails at any time, everywhere.
_NEVER = frozenset(
    {FailureClass.BAD_REQUEST, FailureClass.CONTEXT_OVERFLOW, FailureClass.CONTENT_FILTERED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spacing:
    """How often, and how far apart, parked work is taken up again.

    Attributes:
        tries: In vain, after which it is given up.
        first: Seconds before the first; each further wait is twice as long, at most an hour.
    """

    tries: int = 8
    first: float = 30.0

    def wait(self, tries: int, *, age: float = 0.0, told: float = 0.0) -> float | None:
        """Return the seconds until the next try, after `tries` in vain; None: there is none.

        Args:
            age: Since it was asked, of one that was refused without a call: that is no try, but
                it is looked at less and less often.
            told: That whoever refused it wants to be left alone; infinity: nobody knows.
        """
        if tries >= self.tries:
            return None
        spaced = max(self.first * 2.0 ** min(tries, 60), age)
        return max(min(spaced, LONGEST), min(told, MOST_TOLD) if told < inf else 0.0)


def may_wait(failure: Exception) -> bool:
    """Say whether the same request may be answered at a better time."""
    if isinstance(failure, SpendLimitReached) and failure.retry_after == float("inf"):
        return False  # no time makes room for it
    if isinstance(failure, NotNow):
        return True
    return isinstance(failure, ProviderError) and classify(failure) not in _NEVER
