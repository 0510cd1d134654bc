"""Diagnosis: what kind of failure this is, whose fault, and what the runbook tries against it.

Pure. An error of ours says its class itself; anything else is judged by its type and by the
status and headers an SDK's error carries, never by words in its message.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from zejzl.errors import FailureClass, ProviderError, Rejected

F = FailureClass


class Verdict(StrEnum):
    """What a failure means to the breaker of the one that was called."""

    FAIL = "fail"  # counts against it
    VOID = "void"  # says nothing about it
    PAUSE = "pause"  # no failure, but it wants to be left alone for a while
    PAUSE_KEY = "pause_key"  # the key is refused: leave it alone for the longest delay


class Remedy(StrEnum):
    """What can be done about a failed call."""

    FIRST = "first"  # no remedy: the first call
    RETRY = "retry"  # the same provider once more, at once
    RECONNECT = "reconnect"  # the same, over fresh connections
    WAIT = "wait"  # the same or another, after a backoff or a Retry-After
    FAILOVER = "failover"  # the next provider that is closed
    SHRINK_CONTEXT = "shrink_context"  # without the older half of the history
    GROW_ANSWER = "grow_answer"  # the same provider once more, with a larger token limit
    HEDGE = "hedge"  # the next provider beside one that is late; the first answer counts


RUNBOOK: dict[FailureClass, tuple[Remedy, ...]] = {
    F.RATE_LIMITED: (Remedy.FAILOVER, Remedy.WAIT),
    F.OVERLOADED: (Remedy.FAILOVER, Remedy.WAIT),
    F.FIRST_TOKEN_TIMEOUT: (Remedy.FAILOVER, Remedy.WAIT),
    F.STALLED: (Remedy.FAILOVER, Remedy.WAIT),
    F.SERVER_ERROR: (Remedy.RETRY, Remedy.FAILOVER, Remedy.WAIT),
    F.CONNECT: (Remedy.RECONNECT, Remedy.FAILOVER, Remedy.WAIT),
    F.CUT_STREAM: (Remedy.RECONNECT, Remedy.FAILOVER, Remedy.WAIT),
    F.UNKNOWN: (Remedy.RETRY, Remedy.FAILOVER, Remedy.WAIT),
    F.MALFORMED: (Remedy.RETRY, Remedy.FAILOVER, Remedy.WAIT),
    F.EMPTY: (Remedy.RETRY, Remedy.FAILOVER, Remedy.WAIT),
    F.CONTEXT_OVERFLOW: (Remedy.FAILOVER, Remedy.SHRINK_CONTEXT),
    F.AUTH: (Remedy.FAILOVER, Remedy.WAIT),
    F.QUOTA_EXHAUSTED: (Remedy.FAILOVER, Remedy.WAIT),
    F.TRUNCATED: (Remedy.GROW_ANSWER,),
    F.CONTENT_FILTERED: (),
    F.BAD_REQUEST: (),
    F.DEADLINE: (),
    F.CANCELLED: (),
}

# Never called again for this request: the answer would be the same.
HOPELESS = frozenset({F.AUTH, F.QUOTA_EXHAUSTED, F.CONTEXT_OVERFLOW, F.BAD_REQUEST})
# The caller's own doing: nothing is tried, whatever was learned.
NEVER_AGAIN = frozenset({F.AUTH, F.BAD_REQUEST, F.CONTENT_FILTERED})
ONCE_MORE = frozenset({F.MALFORMED, F.EMPTY})  # called at most twice for one request
TIMEOUTS = frozenset({F.FIRST_TOKEN_TIMEOUT, F.STALLED})
THROTTLED = frozenset({F.RATE_LIMITED, F.OVERLOADED})
_VOID = frozenset({F.CANCELLED, F.BAD_REQUEST, F.CONTEXT_OVERFLOW, F.CONTENT_FILTERED, F.TRUNCATED})
_KEY = frozenset({F.AUTH, F.QUOTA_EXHAUSTED})
_CLASSES = frozenset(F)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a failure is.

    Attributes:
        failure_class: Its kind.
        verdict: What it means to the breaker.
        retry_after: Seconds the provider asked to wait, if it did.
    """

    failure_class: FailureClass
    verdict: Verdict
    retry_after: float | None = None

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """The runbook's page for it, best first."""
        return RUNBOOK[self.failure_class]

    @property
    def same_again_may_help(self) -> bool:
        """Whether the same request, sent to the same provider later, may succeed."""
        return bool(self.remedies) and self.failure_class not in HOPELESS


def diagnose(failure: BaseException) -> Diagnosis:
    """Return what kind of failure it is and what that means."""
    kind = classify(failure)
    retry_after = _asked_to_wait(failure)
    if kind in _KEY:
        return Diagnosis(kind, Verdict.PAUSE_KEY, retry_after)
    if kind in _VOID or isinstance(failure, Rejected):
        return Diagnosis(kind, Verdict.VOID, retry_after)
    if kind in THROTTLED and retry_after is not None:
        return Diagnosis(kind, Verdict.PAUSE, retry_after)
    return Diagnosis(kind, Verdict.FAIL, retry_after)


def classify(failure: BaseException) -> FailureClass:
    """Return the kind of any exception, an SDK's or a user's own included."""
    if isinstance(failure, ProviderError):
        # A user's own class may leave it out, or spell it as text.
        for said in (fact(failure, "failure_class"), fact(failure, "default_class")):
            if isinstance(said, str) and said in _CLASSES:
                return F(said)
        return F.UNKNOWN
    if not isinstance(failure, Exception):  # CancelledError, KeyboardInterrupt, GeneratorExit
        return F.CANCELLED
    for name in ("status_code", "status", "code"):
        status = fact(failure, name)
        if isinstance(status, int) and 100 <= status < 600:
            return classify_status(status)
    if isinstance(failure, TimeoutError):
        return F.FIRST_TOKEN_TIMEOUT
    if isinstance(failure, OSError | EOFError):
        return F.CONNECT
    return F.UNKNOWN


def classify_status(status: int) -> FailureClass:
    """Return the kind of failure that an HTTP status alone tells."""
    match status:
        case 401 | 403:
            return F.AUTH
        case 402:
            return F.QUOTA_EXHAUSTED
        case 429:
            return F.RATE_LIMITED
        case 503 | 529:
            return F.OVERLOADED
        case 408 | 409:  # it took too long, or came too early: the vendors' own clients ask again
            return F.SERVER_ERROR
        case 413:
            return F.CONTEXT_OVERFLOW
        case _ if 400 <= status < 500:
            return F.BAD_REQUEST
        case _ if status >= 500:
            return F.SERVER_ERROR
        case _:
            return F.MALFORMED


def _asked_to_wait(failure: BaseException) -> float | None:
    """Return the seconds an error of ours or of an SDK says to wait; a date is not read."""
    asked = fact(failure, "retry_after")
    try:
        if asked is None:
            response = fact(failure, "response")
            headers = fact(failure if response is None else response, "headers")
            if isinstance(headers, Mapping):
                asked = headers.get("retry-after", headers.get("Retry-After"))
        seconds = float(asked) if isinstance(asked, int | float | str) else -1.0
    except Exception:  # noqa: BLE001  no number, one too large, or headers that cannot be read
        return None
    return seconds if 0.0 <= seconds < float("inf") else None


def fact(failure: object, name: str) -> object:
    """Return an attribute of somebody's error; None where it has none or fails itself."""
    try:
        return getattr(failure, name, None)
    except Exception:  # noqa: BLE001  an SDK's property may need a response that never came
        return None
