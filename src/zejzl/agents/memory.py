"""What happened, kept to be recalled: by type, conversation, time, words, or a function.

With a bus the memories lie in its store and outlive it; alone they are kept in memory. Either way
their number is bounded.
"""

import asyncio
import inspect
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from zejzl.agents.base import Agent, Bus
from zejzl.agents.remembered import NotAnEvent, memory_of
from zejzl.clock import Clock
from zejzl.events import utc
from zejzl.ports import ANY, MOST_MEMORIES, Memory, Whichever

if TYPE_CHECKING:
    from zejzl.agents.watch import Watch
    from zejzl.stores.memories import Shelf

Recalled: TypeAlias = dict[str, object]
log = logging.getLogger(__name__)

AT_ONCE = 100  # events that are written together: what the event loop may be held up for


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of many events.

    Attributes:
        kept: How many can be recalled.
        refused: How many could not be kept, by reason.
    """

    kept: int
    refused: Mapping[str, int]


class MemoryAgent(Agent):
    """Stores and recalls events.

    Args:
        bus: Whose store keeps them.
        clock: Where the time of events without one comes from.
        keep: Most that are kept; what was stored first goes first.

    Attributes:
        unread: Memories that could not be read, and were left out.
    """

    name: ClassVar[str] = "memory"

    def __init__(
        self, bus: Bus | None = None, *, clock: Clock | None = None, keep: int = MOST_MEMORIES
    ) -> None:
        super().__init__(bus, clock=clock)
        if keep < 1:
            raise ValueError(f"keep must be 1 or more, not {keep!r}")
        self.unread = 0
        self._keep = keep

    @cached_property
    def _shelf(self) -> "Shelf":
        from zejzl.stores.memories import Shelf  # only where there is no bus to keep them

        return Shelf()

    async def store(self, event: Mapping[str, object]) -> Recalled:
        """Keep an event and return it as it will be recalled: with `id` and `timestamp`.

        Args:
            event: `type`, and what else JSON can hold; `conversation_id`, `timestamp` and `id`
                are read at its top level, then in its `data`. A time without a zone is UTC. Of
                two with one id the first is kept.

        Raises:
            NotAnEvent: If it is none, or cannot be written down; says why.
            StoreError: If the bus's store will not.
        """
        memory = memory_of(event, utc(self._clock.wall()))
        await self._remember([memory])
        return _event(memory)

    async def store_all(self, events: Iterable[object]) -> Stored:
        """Keep many events; those that are none are counted and left out.

        Raises:
            StoreError: If the bus's store will not; up to then they are kept.
        """
        if isinstance(events, Mapping | str):
            raise TypeError("store_all() takes many events; store() takes one")
        kept, refused, rest = 0, Counter[str](), iter(events)
        while batch := list(islice(rest, AT_ONCE)):
            memories = []
            for event in batch:
                try:
                    memories.append(memory_of(event, utc(self._clock.wall())))
                except NotAnEvent as problem:
                    refused[problem.kind] += 1
            await self._remember(memories)
            kept += len(memories)
        return Stored(kept, dict(refused))

    async def recall(
        self,
        filter_fn: Callable[[Recalled], object] | None = None,
        *,
        type: str | None = None,
        conversation_id: str | Literal[Whichever.ANY] | None = ANY,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        limit: int | None = None,
    ) -> list[Recalled]:
        """Return the newest `limit` events that fit, oldest first; None: all of them.

        Args:
            filter_fn: Says of an event whether it fits. What it raises is raised, with a note
                that names the event.
            type, conversation_id, since, until, text: As for `zejzl.ports.Store.recall`.
        """
        if filter_fn is not None and not callable(filter_fn):
            raise TypeError(
                f"filter_fn must be a function of an event, not {filter_fn!r:.80}; "
                "say type=… for a type"
            )
        if inspect.iscoroutinefunction(filter_fn):
            raise TypeError("filter_fn must be a plain function, not an async one")
        most = self._keep if limit is None else limit
        if isinstance(most, bool) or not isinstance(most, int) or most < 0:
            raise ValueError(f"limit must be a whole number from 0, not {limit!r}")
        found = await self._find(
            type=type,
            conversation_id=conversation_id,
            since=since,
            until=until,
            text=text,
            limit=most if filter_fn is None else self._keep,
        )
        events = await asyncio.to_thread(lambda: [*self._readable(found)])
        if filter_fn is None:
            return events
        newest_first = (event for event in reversed(events) if _fits(filter_fn, event))
        return list(islice(newest_first, most))[::-1]

    async def watch(self) -> "Watch":
        """Begin to remember the bus's own events and what agents tell; see `Watch`.

        Raises:
            TypeError: If there is no bus to watch.
        """
        from zejzl.agents.watch import Watch

        if self.bus is None:
            raise TypeError("a memory without a bus has nothing to watch: MemoryAgent(bus)")
        watch = Watch(self, self.bus)
        await watch.start()
        return watch

    async def _remember(self, memories: list[Memory]) -> None:
        if self.bus is None:
            self._shelf.put(memories, self._keep)
        elif memories:
            await self.bus.store.remember(memories, keep=self._keep)

    async def _find(
        self,
        *,
        type: str | None,
        conversation_id: str | Literal[Whichever.ANY] | None,
        since: datetime | None,
        until: datetime | None,
        text: str | None,
        limit: int,
    ) -> list[Memory]:
        if self.bus is None:
            from zejzl.stores.memories import Wanted

            wanted = Wanted(type, conversation_id, since, until, text, limit)
            return self._shelf.find(wanted)
        return await self.bus.store.recall(
            type=type,
            conversation_id=conversation_id,
            since=since,
            until=until,
            text=text,
            limit=limit,
        )

    def _readable(self, found: list[Memory]) -> Iterator[Recalled]:
        for memory in found:
            try:
                yield _event(memory)
            except (ValueError, RecursionError) as problem:
                self.unread += 1
                log.warning("memory %s cannot be read and is left out: %s", memory.id, problem)


def _event(memory: Memory) -> Recalled:
    event = json.loads(memory.body)
    if not isinstance(event, dict):
        raise ValueError(f"not an event: {memory.body:.40}")
    return event


def _fits(filter_fn: Callable[[Recalled], object], event: Recalled) -> bool:
    try:
        return bool(filter_fn(event))
    except Exception as problem:
        problem.add_note(f"raised by filter_fn at the event {event['id']} of type {event['type']}")
        raise
