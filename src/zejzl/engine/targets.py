"""Whom a request may go to, one leave to do so, and how far it may go: values.

Units: seconds.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from zejzl.engine.lifecycle import UnderWay
from zejzl.errors import FailureClass, ProviderError
from zejzl.magic import CircuitBreaker
from zejzl.magic.lanes import Asked, Lane, Permit
from zejzl.messages import NOTHING, Bill
from zejzl.policies.context import ContextLimit
from zejzl.ports import Provider

if TYPE_CHECKING:  # which needs targets itself
    from zejzl.engine.quotas import Reservation


@dataclass(slots=True)
class Seat:
    """A provider's place under one name: another may take it while requests are on their way.

    Attributes:
        provider: Who is called.
        calls: Those under way; they end before their provider is cleaned up.
    """

    provider: Provider
    calls: UnderWay

    @property
    def gone(self) -> bool:
        """Whether the provider was unregistered: it is not called any more."""
        return self.calls.over


@dataclass(slots=True)
class Target:
    """A provider that may answer one request, and how that went so far.

    Attributes:
        context: What is known of the longest prompt it takes.
        calls: How often it was called for this request.
        last: How the newest of these calls failed.
        asked_to_wait: Whether it asked for a pause with that.
        not_before: When it may be called again, by the clock's `now()`.
        hopeless: Whether the same request would fail there again.
        turned_away: Whether its breaker has refused this request before.
    """

    seat: Seat
    name: str
    model: str
    breaker: CircuitBreaker
    lane: Lane
    context: ContextLimit
    calls: int = 0
    last: FailureClass | None = None
    asked_to_wait: bool = False
    not_before: float = 0.0
    hopeless: bool = False
    turned_away: bool = False

    @property
    def provider(self) -> Provider:
        """Who is called now."""
        return self.seat.provider


Failure = tuple[Target, ProviderError | str, FailureClass]  # whose, what it said, its kind


@dataclass(slots=True)
class Pick:
    """Leave to call a provider once: `permit` must be given back with the call's end.

    Attributes:
        against: The failure, or lateness, that its remedy is tried against; None: there is none.
        max_tokens: The limit that a burst credit has grown; None: it stays as it was asked for.
        limit: Seconds that the call, or its last phase, was given.
        waited: Seconds to its answer, or to a stream's first piece.
        bill: What it will cost, as far as can be said.
        at: When it began, aware UTC.
        heard: Bytes of a stream that have arrived.
        turn: Its turn where a rate limit holds.
    """

    target: Target
    permit: Permit
    remedy: str
    cost: float
    number: int
    started: float
    against: Failure | None = None
    max_tokens: int | None = None
    limit: float | None = None
    waited: float = 0.0
    bill: Bill = NOTHING
    at: datetime | None = None
    heard: int = 0
    turn: "Reservation | None" = None


@dataclass(slots=True, kw_only=True)
class Means:
    """How far one request may go.

    Attributes:
        asked: What the gate needs to know of it.
        patience: Seconds to wait for somebody to be well; None: the usual.
        ends: Its deadline, by the clock's `now()`.
        max_attempts: Most calls of one provider.
        told: Whether a part of the answer is out already: only the same answer will do.
    """

    asked: Asked
    patience: float | None
    ends: float
    max_attempts: int
    told: bool = False
