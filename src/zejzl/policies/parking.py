"""Parking: which failed work is worth keeping for better times, and when it is tried again.

Pure. Units: seconds.
"""

from dataclasses import dataclass

from zejzl.errors import FailureClass, NotNow, ProviderError
from zejzl.policies.diagnosis import classify

LONGEST = 3600.0  # between two tries
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

    def wait(self, tries: int) -> float | None:
        """Return the seconds until the next try, after `tries` in vain; None: there is none."""
        if tries >= self.tries:
            return None
        return min(self.first * 2.0 ** min(tries, 60), LONGEST)


def may_wait(failure: Exception) -> bool:
    """Say whether the same request may be answered at a better time."""
    if isinstance(failure, NotNow):
        return True
    return isinstance(failure, ProviderError) and classify(failure) not in _NEVER
