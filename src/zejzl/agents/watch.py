"""What a memory hears of its bus: what agents tell, and the bus's own event log.

Nobody waits for it. One that falls behind loses the oldest, and says how many.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from hashlib import sha256
from types import TracebackType
from typing import Protocol, Self
from weakref import ref

from zejzl.agents.base import Bus, Inbox
from zejzl.agents.remembered import NotAnEvent
from zejzl.errors import StoreError
from zejzl.events import Event, to_json
from zejzl.magic import FairyMagic
from zejzl.messages import Message

log = logging.getLogger(__name__)

TOPICS = "agents.*"
MOST_WAITING = 10_000  # events of the bus that wait to be written, or are read from its log
AT_ONCE = 100  # of them that are written together


class Remembering(Protocol):
    """Where it is kept: a `MemoryAgent`."""

    async def store(self, event: Mapping[str, object]) -> object: ...

    async def store_all(self, events: Iterable[object]) -> object: ...


class Watch:
    """Remembers what it hears until it is closed, or its bus stops.

    An async context manager: at its end, all that was told before is remembered. Close it before
    the bus: a store that is closed keeps nothing more.

    Attributes:
        lost: Events that could not be kept; the log says why.
    """

    def __init__(self, memory: Remembering, bus: Bus) -> None:
        self.lost = 0
        self._memory = memory
        self._bus = bus
        self._ear = _Ear(self, bus.magic)
        self._inbox: Inbox | None = None
        self._waiting: deque[Event] = deque()
        self._dropped = 0
        self._there = asyncio.Event()
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def missed(self) -> int:
        """Events that were lost because it fell behind."""
        return self._dropped + (0 if self._inbox is None else self._inbox.missed)

    async def start(self) -> None:
        """Begin: what the bus's log holds first, then what comes.

        Raises:
            BusNotRunning: If the bus is not.
            StoreError: If its log cannot be read.
        """
        self._inbox = await self._bus.subscribe(TOPICS)
        # Listen, then read: an event that is heard and read has one id, and is kept once.
        self._bus.magic.listen(self._ear)
        try:
            read = await self._bus.store.events(limit=MOST_WAITING)
        except BaseException:
            await self.close()
            raise
        self._waiting.extendleft(reversed(read))
        self._there.set()
        self._tasks = [
            asyncio.create_task(self._follow_topics(self._inbox)),
            asyncio.create_task(self._follow_log()),
        ]

    async def close(self) -> None:
        """Hear no more; return when what was heard is remembered."""
        self._end()
        if self._inbox is not None:
            await self._inbox.close()
        await asyncio.gather(*self._tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def hear(self, event: Event) -> None:
        """Take an event of the bus in, if it is not too late."""
        if self._ending:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(event)
        self._there.set()

    def _end(self) -> None:
        self._ending = True
        self._bus.magic.unlisten(self._ear)
        self._there.set()

    async def _follow_topics(self, inbox: Inbox) -> None:
        async for message in inbox:
            try:
                await self._memory.store(told(message, inbox.topic))
            except (NotAnEvent, StoreError) as problem:
                self._lose(1, problem)
        self._end()  # the bus stops: nothing comes from its log either

    async def _follow_log(self) -> None:
        while self._waiting or not self._ending:
            await self._there.wait()
            batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            if not self._waiting and not self._ending:
                self._there.clear()
            try:
                await self._memory.store_all(map(fact, batch))
            except StoreError as problem:
                self._lose(len(batch), problem)

    def _lose(self, count: int, problem: Exception) -> None:
        self.lost += count
        log.warning("%d events that were heard could not be remembered: %s", count, problem)


class _Ear:
    """Listens for a watch, and does not keep one alive that nobody closed."""

    __slots__ = ("_magic", "_watch")

    def __init__(self, watch: Watch, magic: FairyMagic) -> None:
        self._watch = ref(watch)
        self._magic = magic

    def __call__(self, event: Event) -> None:
        watch = self._watch()
        if watch is None:
            self._magic.unlisten(self)
        else:
            watch.hear(event)


def fact(event: Event) -> dict[str, object]:
    """Return an event of the bus's own as agents keep events; the same one has the same id."""
    body = to_json(event)
    digest = sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return {
        "id": digest[:32],
        "type": body.pop("type"),
        "timestamp": body.pop("timestamp"),
        "conversation_id": body.get("conversation_id"),
        "agent": "bus",
        "data": {name: value for name, value in body.items() if name != "v"},
    }


def told(message: Message, topic: str) -> dict[str, object]:
    """Return the event that a message on an agents' topic holds, or one that says what it says."""
    event = {
        "id": message.id,
        "timestamp": message.timestamp.isoformat(),
        "conversation_id": message.conversation_id,
        "agent": message.sender,
    }
    try:
        body = json.loads(message.content)
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict) and isinstance(body.get("type"), str):
        return {**event, **body}
    return {**event, "type": "message", "data": {"topic": topic, "content": message.content}}
