"""What a circuit breaker is told: when it opens, and for how long.

Pure. Units: seconds.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """When a breaker opens, and for how long.

    Attributes:
        failure_threshold: Failures in a row that open it.
        recovery_timeout: Seconds an open breaker refuses calls, at most.
        first_probe_after: Seconds until the first probe; it grows threefold with every probe
            that fails, up to `max_probe_delay`. None: `recovery_timeout` every time.
        max_probe_delay: See there.
        jitter: Share of a delay that may be taken off it; never added.
        permits: Probes that may be under way together, and that must come back well.
        failure_ratio: Share of failed calls in the window that opens it; None: no such rule.
        minimum_calls: Calls in the window before that share means anything.
    """

    failure_threshold: int = 3
    recovery_timeout: float = 30.0
    first_probe_after: float | None = None
    max_probe_delay: float = 9.0
    jitter: float = 0.0
    permits: int = 1
    failure_ratio: float | None = None
    minimum_calls: int = 10

    def __post_init__(self) -> None:
        for name in ("failure_threshold", "permits", "minimum_calls"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1, not {value!r}")
        for name in ("recovery_timeout", "max_probe_delay"):
            value = getattr(self, name)
            if isinstance(value, bool) or not 0 < value < float("inf"):
                raise ValueError(f"{name} must be above 0 seconds, not {value!r}")
        if self.first_probe_after is not None and not 0 < self.first_probe_after < float("inf"):
            raise ValueError(f"first_probe_after must be above 0, not {self.first_probe_after!r}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must be in [0, 1), not {self.jitter!r}")
        if self.failure_ratio is not None and not 0 < self.failure_ratio <= 1:
            raise ValueError(f"failure_ratio must be in (0, 1], not {self.failure_ratio!r}")

    def delay(self, step: int) -> float:
        """Return the seconds until the next probe after `step` failed ones, before jitter."""
        if self.first_probe_after is None:
            return self.recovery_timeout
        top = min(self.recovery_timeout, self.max_probe_delay)
        return min(top, self.first_probe_after * 3.0 ** min(step, 40))

    def hardened(self) -> "BreakerRules":
        """Return rules that open twice as soon."""
        return replace(
            self,
            failure_threshold=(self.failure_threshold + 1) // 2,
            failure_ratio=None if self.failure_ratio is None else self.failure_ratio / 2.0,
        )
