"""How long to wait before trying again.

Pure: `rng` is handed in. Units: seconds.
Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from random import Random

BASE = 0.05
THROTTLED_BASE = 1.0
CAP = 20.0
SPREAD = 0.3  # callers told the same Retry-After come back over this share of it


def retry_delay(
    attempt: int, rng: Random, *, throttled: bool = False, retry_after: float | None = None
) -> float:
    """Return the seconds to wait before `attempt` starts.

    Without `retry_after` the wait is drawn evenly from 0 to base · 2^(attempt - 2), at most
    20 s ("full jitter"), so that callers failing together do not return together. With it, the
    wait is between 1.0 and 1.3 times what was asked: sooner is certain to fail.

    Args:
        attempt: The attempt about to start; 2 is the first retry.
        rng: Where the draw comes from; seed it to repeat a run.
        throttled: Whether the provider said that it gets too much: the base is 1 s, not 0.05 s.
        retry_after: Seconds the provider asked for, if it did.

    Raises:
        ValueError: If `attempt` is below 2; the first attempt does not wait.
    """
    if attempt < 2:
        raise ValueError(f"attempt must be at least 2, not {attempt!r}")
    if retry_after is not None:
        return max(0.0, retry_after) * (1.0 + SPREAD * rng.random())
    base = THROTTLED_BASE if throttled else BASE
    return rng.uniform(0.0, min(CAP, base * 2.0 ** min(attempt - 2, 60)))
