"""Everything the bus can raise, and the words in which it says why.

    ZejzlError
    ├── SettingsError           a setting is unknown or impossible; also a ValueError
    ├── Rejected                not sent: no provider was called and nothing was spent
    │   ├── NotNow              it may work later; `retry_after` says when
    │   │   ├── CircuitOpen     calls to it are paused
    │   │   ├── Overloaded      no place is free, and waiting for one is in vain
    │   │   ├── Shielded        only critical work passes at present
    │   │   └── SpendLimitReached   the money of the day or the conversation is spent
    │   ├── NoSuchProvider      also a LookupError
    │   ├── NoSuchRequest       the store has none of that id; also a LookupError
    │   ├── RequestUnderWay     one of the same key took until the deadline; also a TimeoutError
    │   ├── ConversationBusy    an earlier turn took until the deadline; also a TimeoutError
    │   └── BusNotRunning       before start(), after stop() or in another event loop
    ├── NoSuchChange            no such change is in use, or experiment runs; also a LookupError
    ├── Parked                  kept until somebody can answer; `id` is its ticket
    ├── GivenUp                 it has no answer and is tried no more; `causes` tell why
    ├── ProviderError           sent, and it failed
    │   ├── Transient           may work if tried again, here or elsewhere
    │   │   ├── RateLimited     429
    │   │   ├── ProviderOverloaded   503, 529
    │   │   ├── ServerError     other 5xx
    │   │   ├── ConnectFailed   no connection, or one lost before the answer began
    │   │   ├── AttemptTimeout  a phase took longer than its limit; also a TimeoutError
    │   │   ├── Incomplete      the answer broke off; `prefix` is what had arrived
    │   │   ├── Malformed       the answer could not be read
    │   │   └── EmptyAnswer     the answer held no text
    │   └── Permanent           the same request will fail there again
    │       ├── AuthFailed      the key was refused: 401, 403
    │       ├── QuotaExhausted  the account has no money or quota left: 402
    │       ├── BadRequest      the provider says the request is wrong
    │       │   └── ContextOverflow   it is too long for the model
    │       └── ContentFiltered the provider refused the content
    └── StoreError              the database would not answer
        ├── StoreLocked         another process holds it
        ├── StoreFull           the disk is full
        ├── StoreReadOnly       no permission to write
        ├── StoreCorrupt        the file is damaged
        └── StoreTooNew         written by a newer zejzl

A bad argument is Python's own ValueError or TypeError. A retry that a policy refused is no
error of its own: the first ProviderError is raised, with a note that says why it stayed alone.
Every error that a call raises carries `attempts`, what was tried before it.
"""

from datetime import datetime
from enum import StrEnum

MESSAGE_LIMIT = 500  # characters of a provider's own words that an error repeats


class FailureClass(StrEnum):
    """What went wrong, as far as recovery is concerned. These words are stored and counted."""

    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    CONNECT = "connect"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"
    STALLED = "stalled"
    DEADLINE = "deadline"
    CUT_STREAM = "cut_stream"
    MALFORMED = "malformed"
    EMPTY = "empty"
    TRUNCATED = "truncated"
    CONTEXT_OVERFLOW = "context_overflow"
    CONTENT_FILTERED = "content_filtered"
    AUTH = "auth"
    BAD_REQUEST = "bad_request"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class ZejzlError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        attempts: What was tried before this was raised (`messages.Attempt`), oldest first.
    """

    attempts: tuple[object, ...] = ()

    def __reduce__(self) -> tuple[object, ...]:
        """Let a copy, also one in another process, be made of what an error carries.

        Python's own way would call `__init__` with `args`, which are not what that takes.
        """
        return type(self).__new__, (type(self),), {"args": self.args, **attributes(self)}


class SettingsError(ZejzlError, ValueError):
    """A setting is unknown, or its value cannot be.

    Attributes:
        setting: The name as the user wrote it.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting


class Rejected(ZejzlError):
    """The call was refused before any provider saw it."""


class NotNow(Rejected):
    """It may work later.

    Attributes:
        name: The provider's or component's name.
        retry_after: Seconds after which it is worth asking again.
        reason: Why not now, in words.
    """

    # No super().__init__(): Exception.__new__ has kept the arguments already. Slots, because the
    # dictionary of each would be the dearest part of a refusal, and they come in floods; for the
    # same reason each is put into words only when asked.
    __slots__ = ("name", "reason", "retry_after")

    def __init__(self, name: str, retry_after: float, reason: str) -> None:
        self.name = name
        self.retry_after = retry_after
        self.reason = reason


class CircuitOpen(NotNow):
    """Calls to it are paused because it keeps failing or asked for a pause.

    Attributes:
        last_error: What its last failure said; "" if that is not known.
    """

    __slots__ = ("last_error",)

    def __init__(
        self,
        name: str,
        retry_after: float,
        reason: str = "it keeps failing",
        last_error: str = "",
    ) -> None:
        self.name = name
        self.retry_after = retry_after
        self.reason = reason
        self.last_error = last_error

    def __str__(self) -> str:
        seen = f", the last time with: {self.last_error}" if self.last_error else ""
        when = f"; try again in {self.retry_after:.1f} s" if self.retry_after < float("inf") else ""
        return f"circuit breaker of {self.name!r} is open: {self.reason}{seen}{when}"


class Overloaded(NotNow):
    """Too many calls are under way, and waiting for a place would take too long."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"{self.name!r} is full: {self.reason}; try again in {self.retry_after:.1f} s"


class Shielded(NotNow):
    """Admission control lets only critical work pass."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"admission control: {self.reason}; try again in {self.retry_after:.1f} s"


class SpendLimitReached(NotNow):
    """What may be spent is spent, or this call would go beyond it.

    Attributes:
        name: Whose limit: "day", or the conversation's id.
    """

    __slots__ = ()

    def __str__(self) -> str:
        wait = self.retry_after
        whose = "the day" if self.name == "day" else f"conversation {self.name!r}"
        span = f"{wait / 3600.0:.1f} h" if wait >= 3600.0 else f"{max(1.0, wait / 60.0):.0f} min"
        when = f"; try again in {span}" if wait < float("inf") else ""
        return f"spend limit of {whose}: {self.reason}{when}"


class NoSuchProvider(Rejected, LookupError):
    """No provider of that name is registered.

    Attributes:
        name: The name asked for.
        known: The names that are registered.
    """

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"no provider named {name!r}; registered: {', '.join(known) or 'none'}")
        self.name = name
        self.known = known


class NoSuchRequest(Rejected, LookupError):
    """The store has no request of that id (any more).

    Attributes:
        id: The id asked for.
    """

    def __init__(self, id: str, why: str = "it may be older than retention") -> None:
        super().__init__(f"no such request as {id!r}: {why}")
        self.id = id


class NoSuchChange(ZejzlError, LookupError):
    """No change of that id is in use, or no experiment of that name runs.

    Attributes:
        id: The id, or the name.
    """

    def __init__(self, id: str, known: tuple[str, ...], what: str = "change is in use") -> None:
        super().__init__(f"no such {what}: {id!r}; there is {', '.join(known) or 'none'}")
        self.id = id


class RequestUnderWay(Rejected, TimeoutError):
    """A request with the same idempotency key was not over before this one's deadline."""


class ConversationBusy(Rejected, TimeoutError):
    """An earlier turn of the same conversation was not over before this one's deadline."""


class BusNotRunning(Rejected):
    """The bus has not been started, has been stopped, or belongs to another event loop."""


class Parked(ZejzlError):
    """Nobody can answer at present: the request is kept, and will be taken up again by itself.

    Its `__cause__` is why nobody could.

    Attributes:
        id: The request's: `bus.result(id)` has the answer once there is one.
        tries: How often it was taken up again in vain.
        due_at: When it is taken up again at the latest, aware UTC; None: it is just now.
    """

    def __init__(self, id: str, tries: int, due_at: datetime | None, reason: str) -> None:
        when = "under way again"
        if due_at is not None:
            when = f"taken up again by {due_at:%Y-%m-%d %H:%M:%S} UTC"
        super().__init__(f"parked as {id}, {when}: {reason}")
        self.id = id
        self.tries = tries
        self.due_at = due_at


class GivenUp(ZejzlError):
    """It has no answer and is tried no more: parked work, as a rule, that is a dead letter now.

    Attributes:
        id: The request's: `bus.replay(id)` tries it again, `bus.drop(id)` forgets it.
        causes: What it failed with, oldest first.
        over: Whether it is over for good: it failed, or was dropped.
    """

    def __init__(self, id: str, causes: tuple[str, ...], *, over: bool = False) -> None:
        said = causes[-1] if causes else "no cause is known"
        what = "ended without an answer" if over else "was given up"
        then = "" if over else "; replay it when that is mended, or drop it"
        super().__init__(f"request {id} {what}: {said}{then}")
        self.id = id
        self.causes = causes
        self.over = over


class ProviderError(ZejzlError):
    """The provider was called and the call failed; `__cause__` is the transport's own error.

    Attributes:
        provider: Name of the provider.
        model: Model asked for, as far as known.
        status: HTTP status, if there was one.
        code: The provider's own error code.
        request_id: The provider's id for this call, to quote to its support.
        retry_after: Seconds the provider asked to wait.
        failure_class: What kind of failure this is.
        usage: Tokens that the provider counted all the same (`messages.Usage`), or None.
    """

    default_class = FailureClass.UNKNOWN
    # So that one of a user's own class that does not call this `__init__` can be shown at least;
    # before the bus raises it, a whole one is made of it.
    provider = model = code = request_id = ""
    status: int | None = None
    retry_after: float | None = None
    usage: object = None

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        model: str = "",
        status: int | None = None,
        code: str = "",
        request_id: str = "",
        retry_after: float | None = None,
        failure_class: FailureClass | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.failure_class = failure_class or self.default_class

    def __str__(self) -> str:
        wait = self.retry_after
        facts = [
            text
            for text in (
                f"HTTP {self.status}" if self.status else "",
                f"{self.code}" if self.code else "",
                f"model {self.model}" if self.model else "",
                f"retry after {_number(wait)} s" if wait is not None else "",
                f"request {self.request_id}" if self.request_id else "",
            )
            if text
        ]
        where = f"{self.provider}: " if self.provider else ""
        what = self.args[0] if self.args else type(self).__name__
        return f"{where}{what}" + (f" ({', '.join(facts)})" if facts else "")


class Transient(ProviderError):
    """Trying again may help, here or elsewhere."""


class RateLimited(Transient):
    """The provider says: too many requests or tokens."""

    default_class = FailureClass.RATE_LIMITED


class ProviderOverloaded(Transient):
    """The provider says it has no capacity."""

    default_class = FailureClass.OVERLOADED


class ServerError(Transient):
    """The provider failed inside."""

    default_class = FailureClass.SERVER_ERROR


class ConnectFailed(Transient):
    """No connection, or one that was lost before the answer began.

    Attributes:
        sent: Whether the request may have reached the provider.
    """

    default_class = FailureClass.CONNECT
    sent = True


class AttemptTimeout(Transient, TimeoutError):
    """One phase of the attempt took longer than its limit; `failure_class` says which."""

    default_class = FailureClass.FIRST_TOKEN_TIMEOUT


class Incomplete(Transient):
    """The answer broke off before it was finished.

    Attributes:
        prefix: The text that had arrived.
    """

    default_class = FailureClass.CUT_STREAM
    prefix = ""


class Malformed(Transient):
    """The answer could not be read as what the provider's API promises."""

    default_class = FailureClass.MALFORMED


class EmptyAnswer(Transient):
    """The answer was well-formed and held no text."""

    default_class = FailureClass.EMPTY


class Permanent(ProviderError):
    """The same request will fail there again: never retried, never held against the provider."""


class AuthFailed(Permanent):
    """The provider refused the key."""

    default_class = FailureClass.AUTH


class QuotaExhausted(Permanent):
    """The account behind the key has no quota or money left."""

    default_class = FailureClass.QUOTA_EXHAUSTED


class BadRequest(Permanent):
    """The provider says that the request is wrong."""

    default_class = FailureClass.BAD_REQUEST


class ContextOverflow(BadRequest):
    """The request is longer than the model's context."""

    default_class = FailureClass.CONTEXT_OVERFLOW


class ContentFiltered(Permanent):
    """The provider refused the content; the message holds its reason."""

    default_class = FailureClass.CONTENT_FILTERED


_KINDS: list[type[ProviderError]] = [
    *Transient.__subclasses__(),
    *Permanent.__subclasses__(),
    ContextOverflow,
]
ERRORS = {kind.default_class: kind for kind in _KINDS}  # class → the error that tells it


class StoreError(ZejzlError):
    """The database would not do what was asked.

    Attributes:
        reply: The answer that had arrived when it could not be written down, or None.
    """

    reply: object = None


class StoreLocked(StoreError):
    """Another process holds the database."""


class StoreFull(StoreError):
    """The disk is full."""


class StoreReadOnly(StoreError):
    """The database cannot be written."""


class StoreCorrupt(StoreError):
    """The database file is damaged."""


class StoreTooNew(StoreError):
    """The database was written by a newer version of zejzl."""


def shorten(text: str) -> str:
    """Return `text` on one line, at most MESSAGE_LIMIT characters, control characters dropped."""
    line = " ".join(text[: MESSAGE_LIMIT * 4].split())
    line = "".join(char for char in line if char.isprintable())
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 1] + "…"


def _number(value: object) -> str:
    """Return a number as short as it may be; whatever else it is, as it says."""
    return f"{value:g}" if isinstance(value, float) else words(value)


def attributes(failure: BaseException) -> dict[str, object]:
    """Return what an error carries beside its `args`, by name, slots included."""
    slots = [name for kind in type(failure).__mro__ for name in vars(kind).get("__slots__", ())]
    found = {name: getattr(failure, name) for name in slots if hasattr(failure, name)}
    return found | vars(failure)


def words(failure: object) -> str:
    """Return what a failure says; a user's own may fail even at that."""
    try:
        return str(failure)
    except Exception:  # noqa: BLE001 - somebody else's class: what it did is told, not what it says
        return "it cannot be shown"
