"""What the nine agents have in common: a bus or none, a clock, and how a step becomes known.

An agent sees messages and ports, never a vendor or a database. What it did is an event:

    {"id", "type", "data", "conversation_id", "timestamp", "agent"}

published as JSON on the topic "agents.<name>", and remembered where there is a memory.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from itertools import islice
from typing import ClassVar, Protocol, Self
from uuid import uuid4

from zejzl.clock import Clock, SystemClock
from zejzl.errors import BusNotRunning, StoreError
from zejzl.events import utc
from zejzl.magic import FairyMagic
from zejzl.messages import Message, Reply
from zejzl.ports import Store
from zejzl.settings import Settings

log = logging.getLogger(__name__)

LONGEST_TEXT = 20_000  # characters of one text that an event of a step keeps
DEEPEST = 40  # levels of lists and mappings that it keeps
MOST_VALUES = 20_000  # and values of all levels together
LEFT_OUT = "…"


class Inbox(Protocol):
    """A subscription, as the bus gives it: iterate over it, or call `get`."""

    missed: int
    topic: str

    async def get(self) -> Message:
        """Return the next message; raises `BusNotRunning` at the end."""

    async def close(self) -> None:
        """Hear no more."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Message: ...


class Bus(Protocol):
    """What agents use of `AsyncMessageBus`, which says what each does."""

    id: str

    @property
    def settings(self) -> Settings: ...

    @property
    def magic(self) -> FairyMagic: ...

    @property
    def store(self) -> Store: ...

    @property
    def providers(self) -> dict[str, str]: ...

    async def send(
        self,
        content: str,
        provider: str | None = None,
        *,
        conversation_id: str | None = None,
        model: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        deadline: float | None = None,
        failover: bool | Sequence[str] | None = None,
        criticality: str = "normal",
        sender: str = "user",
        idempotency_key: str | None = None,
    ) -> Reply: ...

    async def publish(self, topic: str, message: Message) -> int: ...

    async def subscribe(self, pattern: str) -> Inbox: ...


class Remembers(Protocol):
    """Where events of steps are kept: a `MemoryAgent`."""

    async def store(self, event: Mapping[str, object]) -> object:
        """Keep one event."""


class Agent:
    """Base of the nine.

    Args:
        bus: Whose model, tools, store and topics it uses; without one it works alone.
        clock: Where time comes from; default is the bus's, or the machine's.

    Attributes:
        name: One lower-case word; its topic is "agents.<name>".
        memory: Where its events are remembered, if anywhere.
        untold: Events that neither a topic nor a memory took; the log says why.
    """

    name: ClassVar[str] = "agent"

    def __init__(self, bus: Bus | None = None, *, clock: Clock | None = None) -> None:
        self.bus = bus
        self.memory: Remembers | None = None
        self.untold = 0
        self._clock = clock or (SystemClock() if bus is None else bus.magic.clock)

    def _timestamp(self) -> str:
        """Return the present as results carry it: aware UTC, ISO 8601."""
        return utc(self._clock.wall()).isoformat()

    async def _tell(
        self,
        type: str,
        data: Mapping[str, object],
        *,
        conversation_id: str | None = None,
        id: str | None = None,
        **more: object,
    ) -> dict[str, object]:
        """Make a step known, and return its event. Nobody to tell it to is no failure.

        Args:
            type: Of the event, such as "plan".
            data: What happened; what JSON cannot hold is put into words.
            id: Of the event: one that is told again is remembered once. None: a new one.
            more: Further fields beside `data`: task_type, status, error, duration_ms.
        """
        event: dict[str, object] = {
            "id": id or uuid4().hex,
            "type": type,
            "data": plain(data),
            "conversation_id": conversation_id,
            "timestamp": self._timestamp(),
            "agent": self.name,
            **{name: plain(value) for name, value in more.items()},
        }
        try:
            if self.bus is not None:
                await self.bus.publish(f"agents.{self.name}", _message(event, self.name))
            if self.memory is not None:
                await self.memory.store(event)
        except (BusNotRunning, StoreError, ValueError) as problem:
            # The step itself is done: that nobody heard of it must not undo it.
            self.untold += 1
            log.warning("an event of type %s of agent %s is lost: %s", type, self.name, problem)
        return event


def _message(event: Mapping[str, object], sender: str) -> Message:
    conversation_id = event["conversation_id"]
    return Message(
        id=str(event["id"]),
        content=json.dumps(event, ensure_ascii=False),
        timestamp=datetime.fromisoformat(str(event["timestamp"])),
        sender=sender,
        provider="",
        conversation_id=None if conversation_id is None else str(conversation_id),
    )


def plain(value: object, *, longest: int = LONGEST_TEXT) -> object:
    """Return a copy that JSON and UTF-8 can hold: other things as words, long text cut short.

    Numbers that JSON has no word for (NaN, infinities) become None. Of very deep or very large
    values the rest is left out, with a mark where that was.
    """
    return _Copy(longest).of(value, 0)


class _Copy:
    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._left = MOST_VALUES

    def of(self, value: object, depth: int) -> object:
        self._left -= 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return value if value.bit_length() < 64 else self._words(f"{value:#x}")
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, str):
            return self._words(value)
        if isinstance(value, bytes | bytearray):
            return f"{len(value)} bytes"
        if depth == DEEPEST or self._left < 0:
            return LEFT_OUT
        if isinstance(value, Mapping):
            pairs = islice(value.items(), self._left)
            copy = {self._words(str(key)): self.of(each, depth + 1) for key, each in pairs}
            return copy if len(copy) == len(value) else {**copy, LEFT_OUT: LEFT_OUT}
        if isinstance(value, Sequence | Set):
            items = [self.of(each, depth + 1) for each in islice(value, self._left)]
            return items if len(items) == len(value) else [*items, LEFT_OUT]
        return self._words(repr(value))

    def _words(self, text: str) -> str:
        more = len(text) - self._longest
        kept = text if more <= 0 else f"{text[: self._longest]}… ({more} characters more)"
        return kept if kept.isascii() else kept.encode("utf-8", "replace").decode()
