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


def cost_of(last: FailureClass | None, *, waited: bool) -> Cost:
    """Return what an extra call of a provider costs.

    Args:
        last: How this provider failed this request before; None: it was not called for it.
        waited: Whether the Retry-After it asked for has been waited out.
    """
    if last is None:
        return Cost.FAILOVER
    if waited:
        return Cost.WAITED
    return Cost.AFTER_TIMEOUT if last in TIMEOUTS else Cost.SAME
