"""Retry budget: how much may be spent on second chances.

A balance between 0 and 100. Every extra call of a provider costs; every request that
succeeds at its first call earns 1, and so does every second in which some provider is well. When
everything fails nothing is earned, so the extra calls of a storm are bounded by what was saved:

    10·same + 20·after_timeout + 5·waited + 3·failover + 5·hedge
        ≤ 100 + first successes + seconds + what was restored by hand

Going to the next provider because an earlier one *refused* is a first call and costs nothing. So
is going there when the one that failed lets nobody in by now, and trying again after one too many
for a provider that is well (see `failover.cost_of`): each happens once for a call under way.

Pure: `now` is handed in. Units: seconds, and points of balance.
Sources: the retry quota of the AWS SDKs ("standard" mode: 5 and 10 tokens), Finagle's RetryBudget.
"""

from enum import Enum

INCOME_PER_SUCCESS = 1.0
INCOME_PER_SECOND = 1.0
HEALING_COST = 10.0


class Cost(float, Enum):
    """What one extra call costs."""

    SAME = 10.0
    AFTER_TIMEOUT = 20.0
    WAITED = 5.0
    FAILOVER = 3.0
    HEDGE = 5.0


class Budget:
    """The balance. Mutable: it is asked on every call.

    Attributes:
        maximum: Upper end of the balance.
    """

    __slots__ = ("_balance", "_dark", "_seen", "maximum")

    def __init__(self, now: float, *, balance: float = 100.0, maximum: float = 100.0) -> None:
        if not 0 < maximum < float("inf"):
            raise ValueError(f"maximum must be above 0, not {maximum!r}")
        if not 0 <= balance <= maximum:
            raise ValueError(f"balance must be between 0 and {maximum:g}, not {balance!r}")
        self.maximum = maximum
        self._balance = balance
        self._seen = now
        self._dark = False

    def balance(self, now: float) -> float:
        """Return what is left at `now`."""
        if now > self._seen:
            if not self._dark:
                self._add((now - self._seen) * INCOME_PER_SECOND)
            self._seen = now
        return self._balance

    def darken(self, dark: bool, now: float) -> None:
        """Stop the income of time while no provider is well, or begin it again."""
        if dark is not self._dark:
            self.balance(now)
            self._dark = dark

    def spend(self, cost: float, now: float) -> bool:
        """Take `cost`, or nothing and return False when there is less."""
        if self.balance(now) < cost:
            return False
        self._balance -= cost
        return True

    def earn(self) -> None:
        """A request succeeded at its first call."""
        if self._balance < self.maximum:
            self._add(INCOME_PER_SUCCESS)

    def restore(self, amount: float, now: float) -> float:
        """Give `amount` by hand; return what there was room for."""
        before = self.balance(now)
        self._add(amount)
        return self._balance - before

    def wait_for(self, cost: float, now: float) -> float:
        """Return the seconds until time alone has earned `cost`; infinity where it will not."""
        short = cost - self.balance(now)
        if short <= 0:
            return 0.0
        return float("inf") if self._dark or cost > self.maximum else short / INCOME_PER_SECOND

    def _add(self, amount: float) -> None:
        self._balance = min(self.maximum, self._balance + amount)
