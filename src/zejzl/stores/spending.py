"""What calls cost, in sums by day, provider and model, and whether one more may be paid for.

Every store keeps the same sums: what they are is said here, where they lie is the store's affair.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from zejzl.errors import SpendLimitReached
from zejzl.events import utc
from zejzl.messages import Attempt, Bill
from zejzl.ports import Spending, SpendLimits

Account = tuple[str, str, str]  # day, provider, model


@dataclass(slots=True)
class Sum:
    """What the calls of one account cost."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    unsettled: int = 0
    unsettled_usd: float = 0.0

    def add(self, bill: Bill) -> None:
        """Take in one call's bill."""
        cost = bill.cost_usd
        self.calls += 1
        self.prompt_tokens += bill.prompt_tokens
        self.completion_tokens += bill.completion_tokens
        if cost is None:
            self.unpriced += 1
        else:
            self.cost_usd += cost
        if not bill.settled:
            self.unsettled += 1
            self.unsettled_usd += cost or 0.0

    def merge(self, other: "Sum") -> None:
        """Add what other calls cost."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def of(self, account: Account) -> Spending:
        """Return it as callers get it."""
        day, provider, model = account
        return Spending(
            day=day,
            provider=provider,
            model=model,
            calls=self.calls,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cost_usd=self.cost_usd,
            unpriced=self.unpriced,
            unsettled=self.unsettled,
            unsettled_usd=self.unsettled_usd,
        )


class Spendings(defaultdict[Account, Sum]):
    """What was spent, by account."""

    def __init__(self) -> None:
        super().__init__(Sum)


def day_of(moment: datetime) -> str:
    """Return the day of UTC, ISO."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.date().isoformat()


def account_of(attempt: Attempt, wall: float) -> Account:
    """Return what an attempt is counted under; `wall` where its beginning is not known."""
    return day_of(attempt.at or utc(wall)), attempt.provider, attempt.model


def sums(attempts: Iterable[Attempt], wall: float) -> dict[Account, Sum]:
    """Return what attempts cost, by account.

    Args:
        wall: The time of an attempt whose beginning is not known.
    """
    found: dict[Account, Sum] = {}
    for attempt in attempts:
        found.setdefault(account_of(attempt, wall), Sum()).add(attempt.bill)
    return found


def check_spend(
    limits: SpendLimits,
    bill: Bill,
    now: datetime,
    *,
    account: tuple[str, str],
    conversation_id: str | None,
    spent_today: float,
    spent_there: float,
) -> None:
    """Raise SpendLimitReached unless a call of this bill may be paid for.

    Args:
        account: Provider and model.
        spent_today, spent_there: USD on this day, and in this conversation, estimates included.
    """
    wait = (_midnight(now) - now).total_seconds()
    bounds = [("day", limits.day, spent_today, wait)]
    if conversation_id is not None:
        bounds.append((conversation_id, limits.conversation, spent_there, float("inf")))
    for name, limit, spent, wait in bounds:
        if limit is None:
            continue
        if bill.cost_usd is None:
            who = "/".join(account)
            reason = f"no price is known for {who}: add it to your price table (setting prices)"
            raise SpendLimitReached(name, float("inf"), reason)
        if spent + bill.cost_usd > limit:
            reason = f"${spent:.4f} of ${limit:g} are spent, and this call may cost "
            if bill.cost_usd > limit:
                wait = float("inf")  # it is beyond the limit by itself
            raise SpendLimitReached(name, wait, f"{reason}${bill.cost_usd:.4f}")


def _midnight(now: datetime) -> datetime:
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today + timedelta(days=1)
