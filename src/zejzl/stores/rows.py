"""What the store in memory holds: one row a message, and what lies beside them."""

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from datetime import datetime

from zejzl.events import Event
from zejzl.messages import Attempt, Message
from zejzl.ports import USUAL_TERMS, Kept, Terms
from zejzl.stores.spending import Spendings


class Declined:
    """An awaitable that is over and went wrong, for nobody but the one who awaits it."""

    __slots__ = ("_error",)

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __await__(self) -> Generator[None, None, None]:
        raise self._error
        yield


@dataclass(slots=True)
class RequestRow:
    """One message and its journal."""

    message: Message
    attempts: dict[int, Attempt]
    terms: Terms = USUAL_TERMS
    state: str = "accepted"
    model: str = ""
    finish_reason: str = ""
    maybe_duplicate: bool = False
    tries: int = 0
    due_at: datetime | None = None
    counted: int = 0

    @property
    def tried(self) -> list[Attempt]:
        """What was tried, in order."""
        return [self.attempts[number] for number in sorted(self.attempts)]

    @property
    def kept(self) -> Kept:
        return Kept(
            message=self.message,
            state=self.state,
            attempts=tuple(self.tried),
            terms=self.terms,
            model=self.model,
            finish_reason=self.finish_reason,
            maybe_duplicate=self.maybe_duplicate,
            tries=self.tries,
            due_at=self.due_at,
        )


@dataclass(slots=True)
class CommandRow:
    """One command and its answer."""

    owner: str
    name: str
    body: str
    at: datetime
    state: str = "waiting"
    answer: str = ""


@dataclass(slots=True)
class Tables:
    """Everything that is kept."""

    messages: dict[str, RequestRow] = field(default_factory=dict)
    turns: dict[str, list[Message]] = field(default_factory=dict)
    events: deque[Event] = field(default_factory=deque)
    settings: dict[str, str] = field(default_factory=dict)
    snapshots: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    commands: dict[int, CommandRow] = field(default_factory=dict)
    last_command: int = 0
    keys: dict[str, str] = field(default_factory=dict)
    spending: Spendings = field(default_factory=Spendings)
    under_way: dict[str, RequestRow] = field(default_factory=dict)

    def take_up(self, row: RequestRow) -> None:
        """Make a request accepted again."""
        row.state, row.due_at = "accepted", None
        row.message = replace(row.message, error=None, response_time=None)
        self.under_way[row.message.id] = row


def under_way(rows: dict[str, RequestRow], message_id: str) -> RequestRow:
    row = rows.get(message_id)
    if row is None:
        raise ValueError(f"no message of id {message_id!r} was accepted")
    if row.state == "settled":
        raise ValueError(f"message {message_id!r} is settled already; the first outcome stands")
    if row.state != "accepted":
        raise ValueError(f"message {message_id!r} is {row.state}: take it up again first")
    return row
