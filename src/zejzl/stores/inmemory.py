"""What a Store means, in as few words as possible; nothing outlives the object.

Every write is done when its method returns, so what comes back is an awaitable that never waits:
this store lies on the path of every call, and a turn of the event loop costs more than it does.
"""

from collections import deque
from collections.abc import Awaitable, Generator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from zejzl.clock import Clock, SystemClock
from zejzl.errors import StoreError
from zejzl.events import Event, tag, utc
from zejzl.messages import Attempt, Message
from zejzl.ports import Done, InFlight
from zejzl.stores.arguments import (
    check_events,
    check_limit,
    check_outcome,
    check_request,
    check_texts,
    stamp,
)


class _Refused:
    """An awaitable that is over and went wrong, for nobody but the one who awaits it."""

    __slots__ = ("_error",)

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __await__(self) -> Generator[None, None, None]:
        raise self._error
        yield


_DONE = Done(None)


@dataclass(slots=True)
class _Row:
    """One message and its journal."""

    message: Message
    attempts: dict[int, Attempt]
    settled: bool = False


@dataclass(slots=True)
class _Command:
    """One command and its answer."""

    owner: str
    name: str
    body: str
    at: datetime
    state: str = "waiting"
    answer: str = ""


@dataclass(slots=True)
class _Rows:
    """Everything that is kept."""

    messages: dict[str, _Row] = field(default_factory=dict)
    turns: dict[str, list[Message]] = field(default_factory=dict)
    events: deque[Event] = field(default_factory=deque)
    settings: dict[str, str] = field(default_factory=dict)
    snapshots: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    commands: dict[int, _Command] = field(default_factory=dict)
    last_command: int = 0


class InMemoryStore:
    """A Store without a file: fast, bounded, and gone with the process.

    What it keeps outlives `close`, for another `open`.

    Args:
        limit: Most messages, and most events and commands, that are kept; the oldest go first. A
            message that is not settled stays.
    """

    shared = False

    def __init__(self, *, limit: int = 10_000, clock: Clock | None = None) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit!r}")
        self._limit = limit
        self._clock = clock or SystemClock()
        self._kept = _Rows(events=deque(maxlen=limit))
        self._state = "not open yet: call open() first"

    @property
    def _rows(self) -> _Rows:
        if self._state:
            raise StoreError(f"the store in memory is {self._state}")
        return self._kept

    async def open(self) -> None:
        self._state = ""

    async def close(self) -> None:
        self._state = "closed"

    def accept(self, message: Message, provider: str, model: str) -> Awaitable[None]:
        rows = self._rows.messages
        check_texts(attempt_provider=provider)
        check_request(message, model)
        if message.id in rows:
            return _Refused(ValueError(f"a message of id {message.id!r} exists already"))
        rows[message.id] = _Row(message, {1: Attempt(provider, model, "", 0.0)})
        return _DONE

    def attempt(self, message_id: str, number: int, provider: str, model: str) -> Awaitable[None]:
        rows = self._rows.messages
        check_texts(id=message_id, provider=provider, model=model)
        try:
            row = _unsettled(rows, message_id)
        except ValueError as refused:
            return _Refused(refused)
        if number in row.attempts:
            return _Refused(ValueError(f"attempt {number} of {message_id!r} has begun already"))
        row.attempts[number] = Attempt(provider, model, "", 0.0, remedy="")
        return _DONE

    def settle(
        self, message: Message, attempts: Sequence[Attempt], events: Sequence[Event] = ()
    ) -> Awaitable[None]:
        rows = self._rows
        check_outcome(message, attempts, events)
        try:
            row = _unsettled(rows.messages, message.id)
        except ValueError as refused:
            return _Refused(refused)
        asked = row.message
        row.message = Message(
            id=asked.id,
            content=asked.content,
            timestamp=asked.timestamp,
            sender=asked.sender,
            provider=message.provider,
            response=message.response,
            response_time=message.response_time,
            error=message.error,
            conversation_id=asked.conversation_id,
        )
        row.attempts = dict(enumerate(attempts, 1))
        row.settled = True
        if row.message.response is not None and row.message.conversation_id is not None:
            rows.turns.setdefault(row.message.conversation_id, []).append(row.message)
        rows.events.extend(events)
        if len(rows.messages) > self._limit:
            self._forget_oldest(rows)
        return _DONE

    def _forget_oldest(self, rows: "_Rows") -> None:
        row = next(row for row in rows.messages.values() if row.settled)
        del rows.messages[row.message.id]
        conversation = row.message.conversation_id
        if conversation is not None and row.message.response is not None:
            turns = rows.turns[conversation]
            turns.remove(row.message)
            if not turns:
                del rows.turns[conversation]

    async def orphans(self) -> list[InFlight]:
        """Return []: what a dead owner left in memory died with it."""
        _ = self._rows
        return []

    async def history(self, conversation_id: str, limit: int) -> list[Message]:
        check_limit(limit)
        check_texts(conversation_id=conversation_id)
        turns = self._rows.turns.get(conversation_id, [])
        return turns[max(0, len(turns) - limit) :]

    async def messages(
        self, *, conversation_id: str | None = None, limit: int = 100
    ) -> list[Message]:
        check_limit(limit)
        check_texts(conversation_id=conversation_id)
        newest_first = (
            row.message
            for row in reversed(self._rows.messages.values())
            if conversation_id is None or row.message.conversation_id == conversation_id
        )
        return list(islice(newest_first, limit))[::-1]

    async def attempts(self, message_id: str) -> list[Attempt]:
        check_texts(id=message_id)
        row = self._rows.messages.get(message_id)
        return [] if row is None else [row.attempts[number] for number in sorted(row.attempts)]

    def record(self, events: Sequence[Event]) -> Awaitable[None]:
        rows = self._rows
        check_events(events)
        rows.events.extend(events)
        return _DONE

    async def events(
        self, *, type: str | None = None, since: datetime | None = None, limit: int = 100
    ) -> list[Event]:
        check_limit(limit)
        if since is not None:
            stamp(since)
        newest_first = (
            event
            for event in reversed(self._rows.events)
            if (type is None or tag(event) == type) and (since is None or event.timestamp >= since)
        )
        return list(islice(newest_first, limit))[::-1]

    async def setting(self, name: str) -> str | None:
        check_texts(name=name)
        return self._rows.settings.get(name)

    def keep_setting(self, name: str, value: str | None) -> Awaitable[None]:
        rows = self._rows
        check_texts(name=name, value=value)
        if value is None:
            rows.settings.pop(name, None)
        else:
            rows.settings[name] = value
        return _DONE

    def keep_snapshot(self, owner: str, body: str) -> Awaitable[None]:
        rows = self._rows
        check_texts(owner=owner, body=body)
        rows.snapshots[owner] = utc(self._clock.wall()), body
        return _DONE

    async def snapshots(self) -> list[tuple[str, datetime, bool, str]]:
        kept = [(owner, at, True, body) for owner, (at, body) in self._rows.snapshots.items()]
        return sorted(kept, key=lambda snapshot: snapshot[1], reverse=True)

    def post_command(self, owner: str, name: str, body: str) -> Awaitable[int]:
        rows = self._rows
        check_texts(owner=owner, name=name, body=body)
        rows.last_command += 1
        rows.commands[rows.last_command] = _Command(owner, name, body, utc(self._clock.wall()))
        if len(rows.commands) > self._limit:
            del rows.commands[next(iter(rows.commands))]
        return Done(rows.last_command)

    async def take_commands(self, owner: str) -> list[tuple[int, str, str]]:
        check_texts(owner=owner)
        waiting = [
            (id, command)
            for id, command in self._rows.commands.items()
            if command.owner == owner and command.state == "waiting"
        ]
        for _, command in waiting:
            command.state = "taken"
        return [(id, command.name, command.body) for id, command in waiting]

    def answer_command(self, id: int, ok: bool, body: str) -> Awaitable[None]:
        rows = self._rows
        check_texts(body=body)
        command = rows.commands.get(id)
        if command is None or command.state != "taken":
            return _Refused(ValueError(f"command {id} awaits no answer"))
        command.state, command.answer = "done" if ok else "failed", body
        return _DONE

    async def command(self, id: int) -> tuple[str, str] | None:
        command = self._rows.commands.get(id)
        return None if command is None else (command.state, command.answer)

    async def check(self) -> list[str]:
        _ = self._rows
        return []

    def prune(self, *, before: datetime) -> Awaitable[int]:
        rows = self._rows
        stamp(before)
        old = [
            id
            for id, row in rows.messages.items()
            if row.settled and row.message.timestamp < before
        ]
        for id in old:
            del rows.messages[id]
        told = {
            conversation: [turn for turn in turns if turn.timestamp >= before]
            for conversation, turns in rows.turns.items()
        }
        rows.turns = {conversation: turns for conversation, turns in told.items() if turns}
        count = len(old) + len(rows.events) + len(rows.snapshots) + len(rows.commands)
        young = [event for event in rows.events if event.timestamp >= before]
        rows.events = deque(young, maxlen=self._limit)
        rows.snapshots = {
            owner: kept for owner, kept in rows.snapshots.items() if kept[0] >= before
        }
        rows.commands = {
            id: command for id, command in rows.commands.items() if command.at >= before
        }
        return Done(count - len(rows.events) - len(rows.snapshots) - len(rows.commands))


def _unsettled(rows: dict[str, _Row], message_id: str) -> _Row:
    row = rows.get(message_id)
    if row is None:
        raise ValueError(f"no message of id {message_id!r} was accepted")
    if row.settled:
        raise ValueError(f"message {message_id!r} is settled already; the first outcome stands")
    return row
