"""Every fact worth remembering that is not a message: a tagged union, to and from JSON.

`type` is the tag, in lower case with underscores; names are those of the field, not of a story,
because stored data outlives it. Times are aware UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from zejzl.errors import StoreTooNew

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryRecorded:
    """One remedy was tried against one failure: a row of the recovery log.

    Attributes:
        target: Provider or component that failed.
        issue: What the failure said.
        failure_class: A `FailureClass` value.
        remedy: What was done about it.
        success: Whether it helped.
        verified: By a retried call or a probe; None when there was nothing to verify with.
        energy_used: Retry budget that was spent.
        outcome: "ok", or the failure class of the retried call, or why nothing was done.
        request_id: The bus's id of the request, if there was one.
        timestamp: When it was known.
    """

    target: str
    issue: str
    failure_class: str
    remedy: str
    success: bool
    verified: bool | None
    energy_used: float
    timestamp: datetime
    outcome: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerChanged:
    """A circuit breaker went over one edge of its diagram."""

    name: str
    before: str
    after: str
    generation: int
    reason: str
    timestamp: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRestored:
    """Retry budget was given by hand."""

    amount: float
    reason: str
    timestamp: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecovered:
    """A request of a bus that died was found in flight and settled."""

    request_id: str
    conversation_id: str | None
    maybe_duplicate: bool
    timestamp: datetime


Event = RecoveryRecorded | BreakerChanged | BudgetRestored | RequestRecovered

TYPES: dict[str, type[Event]] = {
    "recovery_recorded": RecoveryRecorded,
    "breaker_changed": BreakerChanged,
    "budget_restored": BudgetRestored,
    "request_recovered": RequestRecovered,
}
_TAGS = {cls: tag for tag, cls in TYPES.items()}


def utc(wall: float) -> datetime:
    """Return the aware UTC time of `wall` seconds since 1970."""
    return datetime.fromtimestamp(wall, UTC)


def tag(event: Event) -> str:
    """Return the event's `type` word."""
    return _TAGS[type(event)]


def to_json(event: Event) -> dict[str, object]:
    """Return JSON-ready values: v, type and the fields."""
    body = {name: getattr(event, name) for name in event.__dataclass_fields__}
    return {"v": VERSION, "type": tag(event), **body, "timestamp": event.timestamp.isoformat()}


def from_json(body: Mapping[str, object]) -> Event:
    """Return the event that `to_json` wrote.

    Raises:
        StoreTooNew: If a newer version wrote it.
        ValueError: If it is no event of ours.
    """
    if body.get("v") != VERSION:
        raise StoreTooNew(f"event of version {body.get('v')!r}; this zejzl reads {VERSION}")
    cls = TYPES.get(str(body.get("type")))
    if cls is None:
        raise ValueError(f"unknown event type {body.get('type')!r}")
    try:
        fields = {name: body[name] for name in cls.__dataclass_fields__}
    except KeyError as missing:
        raise ValueError(f"not a {body['type']}: {missing} is missing") from None
    fields["timestamp"] = datetime.fromisoformat(str(fields["timestamp"]))
    return cls(**fields)  # type: ignore[arg-type]
