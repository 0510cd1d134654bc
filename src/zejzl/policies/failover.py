"""Failover: what another call costs, and whom to try while everybody is down.

Pure. Units: seconds.
"""

from zejzl.errors import FailureClass
from zejzl.policies.budget import Cost
from zejzl.policies.diagnosis import TIMEOUTS

DARK_SPACING = 0.5
DARK_SHARE = 0.05
LEAST_FAIR_TRY = 1.0  # a caller's deadline that cuts a call shorter says nothing about the callee


def dark_spacing(dark_for: float) -> float:
    """Return the seconds between probes while no provider at all is closed.

    The ladders of the single breakers rest then, because nobody is better off being spared:
    one shared clock lets the least recently probed provider be tried, the more rarely the
    longer the dark has lasted.
    """
    return max(DARK_SPACING, DARK_SHARE * dark_for)


def cost_of(
    last: FailureClass | None, *, waited: bool, diverted: bool = False, one_too_many: bool = False
) -> float:
    """Return what an extra call of a provider costs.

    Args:
        last: How this provider failed this request before; None: it was not called for it.
        waited: Whether the Retry-After it asked for has been waited out.
        diverted: Whether the one that failed lets nobody in by now. A moment later this request
            would have been refused there, and a call here would have cost nothing: so it does
            now, or of a crowd only the first few would get over an outage.
        one_too_many: Whether the call before was more than a provider that is well could take: its
            refusal is as free as our own would have been, had we known.
    """
    if one_too_many:
        return 0.0
    if last is None:
        return 0.0 if diverted else Cost.FAILOVER
    if waited:
        return Cost.WAITED
    return Cost.AFTER_TIMEOUT if last in TIMEOUTS else Cost.SAME
