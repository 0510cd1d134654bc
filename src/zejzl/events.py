"""Every fact worth remembering that is not a message: a tagged union, to and from JSON.

`type` is the tag, in lower case with underscores; names are those of the field, not of a story,
because stored data outlives it. Times are aware UTC.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from sys import float_info
from types import UnionType
from typing import TypedDict, get_args, get_origin

from zejzl.errors import StoreTooNew

VERSION = 1
UNTRIED = "none"  # the remedy of a row that tells why nothing was tried


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryRecorded:
    """One remedy was tried against one failure, or why none was: a row of the recovery log.

    Attributes:
        target: Provider or component that failed.
        issue: What the failure said.
        failure_class: A `FailureClass` value.
        remedy: What was done about it; "none": nothing, and `outcome` says why.
        success: Whether it helped.
        verified: By a retried call or a probe; None when there was nothing to verify with.
        energy_used: Retry budget that was spent.
        outcome: "ok", or the failure class of the retried call, or why nothing was done.
        request_id: The bus's id of the request, if there was one.
        cost: What it cost, from 0 to 1, as learning took it in; None: nothing was learned.
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
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftDetected:
    """A remedy no longer does what was learned of it; most of that was forgotten."""

    target: str
    failure_class: str
    remedy: str
    timestamp: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceStated:
    """Somebody said which of two remedies is to be preferred, or took that back.

    Attributes:
        target: Where it holds; None: everywhere.
        failure_class: For which failures; None: for all.
        withdrawn: Whether it holds no longer.
    """

    winner: str
    loser: str
    author: str
    target: str | None
    failure_class: str | None
    withdrawn: bool
    timestamp: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionChanged:
    """Admission control began to let only critical work pass, or ended that.

    Attributes:
        automatic: Whether it did so by itself.
    """

    raised: bool
    automatic: bool
    reason: str
    timestamp: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditSpent:
    """A burst credit let an answer grow.

    Attributes:
        target: Whose.
        max_tokens: Its limit, grown.
        left: Credits that remain.
    """

    target: str
    factor: float
    max_tokens: int
    left: int
    timestamp: datetime


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestParked:
    """Nobody could answer a request that may wait: it is kept, or was given up.

    Attributes:
        given_up: Whether it is tried no more.
        tries: How often it was taken up again in vain.
        reason: Why nobody could.
        timestamp: When that was.
    """

    request_id: str
    conversation_id: str | None
    given_up: bool
    tries: int
    reason: str
    timestamp: datetime


class RunbookStep(TypedDict):
    """How one step of a runbook ended: `seconds` it took, and what it `said` of itself."""

    what: str
    ok: bool
    seconds: float
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunbookPerformed:
    """A runbook was carried out, to its end or until a step failed.

    Attributes:
        name: The runbook's.
        success: Whether every step was done.
        steps: Those that were begun, in order: what, ok, seconds, said.
        sentence: What was really done, in words.
        timestamp: When it ended.
    """

    name: str
    success: bool
    steps: tuple[RunbookStep, ...]
    sentence: str
    timestamp: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedFileChanged:
    """A guarded file was found, or put, in another state than before.

    Attributes:
        path: The file, symbolic links resolved.
        before: "unguarded", "intact", "changed", "missing" or "copy damaged".
        after: The same words.
        sha256: Of the content that is guarded.
        reason: What was done or found, in words.
        timestamp: When it was known.
    """

    path: str
    before: str
    after: str
    sha256: str
    reason: str
    timestamp: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChanged:
    """An improvement was put to use, or taken back.

    Attributes:
        change_id: What takes it back.
        settings: The difference, JSON.
        reverted: Whether it was taken back.
        reason: Why, in words.
    """

    change_id: str
    settings: str
    reverted: bool
    reason: str
    timestamp: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentEnded:
    """A trial of one way of working against another is over.

    Attributes:
        name: The experiment's.
        verdict: "kept", "reverted" or "undecided".
        reason: What decided it, in words.
        evidence: Counts and figures of both arms, JSON.
    """

    name: str
    verdict: str
    reason: str
    evidence: str
    timestamp: datetime


Event = (
    RecoveryRecorded
    | DriftDetected
    | PreferenceStated
    | AdmissionChanged
    | CreditSpent
    | BreakerChanged
    | BudgetRestored
    | RequestRecovered
    | RequestParked
    | RunbookPerformed
    | GuardedFileChanged
    | SettingsChanged
    | ExperimentEnded
)

TYPES: dict[str, type[Event]] = {
    "recovery_recorded": RecoveryRecorded,
    "drift_detected": DriftDetected,
    "preference_stated": PreferenceStated,
    "admission_changed": AdmissionChanged,
    "credit_spent": CreditSpent,
    "breaker_changed": BreakerChanged,
    "budget_restored": BudgetRestored,
    "request_recovered": RequestRecovered,
    "request_parked": RequestParked,
    "runbook_performed": RunbookPerformed,
    "guarded_file_changed": GuardedFileChanged,
    "settings_changed": SettingsChanged,
    "experiment_ended": ExperimentEnded,
}
_TAGS = {cls: tag for tag, cls in TYPES.items()}


def _kinds(hint: object) -> tuple[object, ...]:
    """Return the types that a field's value may have in JSON."""
    if hint is datetime:
        return (str,)
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return tuple(list if get_origin(option) is tuple else option for option in options)


_KINDS = {cls: {field.name: _kinds(field.type) for field in fields(cls)} for cls in _TAGS}


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
    """Return the event that `to_json` wrote, or an older version of it with fewer fields.

    Raises:
        StoreTooNew: If a newer version wrote it.
        ValueError: If it is no event of ours.
    """
    if not isinstance(body, Mapping):
        raise ValueError(f"not an event: {type(body).__name__}")
    if body.get("v") != VERSION:
        raise StoreTooNew(f"event of version {body.get('v')!r}; this zejzl reads {VERSION}")
    cls = TYPES.get(str(body.get("type")))
    if cls is None:
        raise ValueError(f"unknown event type {body.get('type')!r}")
    values: dict[str, object] = {}
    for field in fields(cls):
        if field.name in body:
            values[field.name] = _read(body, field.name, _KINDS[cls][field.name])
        elif field.default is MISSING:
            raise ValueError(f"not a {body['type']}: {field.name!r} is missing")
    timestamp = datetime.fromisoformat(str(values["timestamp"]))
    if timestamp.tzinfo is None:
        raise ValueError(f"not a {body['type']}: its time has no zone")
    return cls(**{**values, "timestamp": timestamp})  # type: ignore[arg-type]


def _read(body: Mapping[str, object], name: str, kinds: tuple[object, ...]) -> object:
    """Return a field's value, if it is one: what was damaged is told, not believed."""
    value = body[name]
    fits = type(value) in kinds
    if float in kinds and type(value) in (int, float):
        fits = abs(value) <= float_info.max  # type: ignore[arg-type]
    if not fits:
        raise ValueError(f"not a {body['type']}: {name!r} cannot be {value!r:.40}")
    return tuple(value) if isinstance(value, list) else value


def check_text(name: str, text: object) -> None:
    """Refuse what could not be written down in an event.

    Raises:
        TypeError: If it is no text.
        ValueError: If UTF-8 cannot hold it.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name} must be text, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise ValueError(
            f"{name} is not storable: half a character (a lone surrogate) "
            f"at position {problem.start}"
        ) from None
