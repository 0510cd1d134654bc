"""What a running bus does on the side: show its state to others, do what they ask, forget."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping

from zejzl.clock import Clock
from zejzl.engine.commands import Commands, Handler
from zejzl.engine.improving import Improving
from zejzl.engine.journal import Journal
from zejzl.engine.learned import Learned
from zejzl.engine.parking import ParkedWork
from zejzl.errors import StoreError, words
from zejzl.events import utc
from zejzl.ports import Store

log = logging.getLogger(__name__)

SNAPSHOT_SPACING = 1.0
PRUNE_SPACING = 3600.0
SECONDS_A_DAY = 86_400.0


class Upkeep:
    """Snapshots after a change, at most one a second; pruning at the start and every hour.

    Where the store is shared, other processes' commands as well.

    Args:
        owner: The bus's own key among the snapshots.
        look: Returns the bus's state, JSON-ready.
        retention_days: Days that messages and events are kept; None keeps them for good.
        handlers: What other processes may ask, see `Commands`.
        learned: What is to outlive the process.
        parking: Work that waits to be taken up again.
        journal: Outcomes that could not be written are written here.
        improving: What looks for improvements; None: nobody does.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        owner: str,
        look: Callable[[], Awaitable[dict[str, object]]],
        retention_days: float | None,
        handlers: Mapping[str, Handler],
        learned: Learned,
        parking: ParkedWork,
        journal: Journal,
        improving: Improving | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._owner = owner
        self._look = look
        self._retention_days = retention_days
        shown = {name: self._shown(handler) for name, handler in handlers.items()}
        self._commands = Commands(store, clock, owner, shown)
        self._learned = learned
        self._parking = parking
        self._journal = journal
        self._improving = improving
        self._troubles: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; the first snapshot is written now."""
        self._changed = asyncio.Event()  # of this loop: a bus may be used in one after another
        self._changed.set()
        self._tasks = [
            asyncio.create_task(self._snapshots(), name="zejzl-snapshots"),
            asyncio.create_task(self._pruning(), name="zejzl-pruning"),
            asyncio.create_task(self._parking.run(), name="zejzl-parking"),
        ]
        if self._improving is not None:
            task = asyncio.create_task(self._improving.run(), name="zejzl-improving")
            self._tasks.append(task)
        if self._store.shared:
            self._tasks.append(asyncio.create_task(self._commands.run(), name="zejzl-commands"))

    def changed(self) -> None:
        """Say that the state is another now."""
        self._changed.set()

    async def stop(self) -> None:
        """End, with a last snapshot; do nothing when it has not begun."""
        if not self._tasks:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._snapshot()

    def _shown(self, handler: Handler) -> Handler:
        """Return a handler that answers when the state is written: who asked may look at once."""

        async def done(asked: Mapping[str, object]) -> object:
            answer = await handler(asked)
            await self._snapshot()
            return answer

        return done

    async def _snapshots(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._snapshot()
            await self._clock.sleep(SNAPSHOT_SPACING)
            if self._journal.owed:
                self._changed.set()

    async def _snapshot(self) -> None:
        await self._contained("outcomes of requests", self._journal.catch_up)
        await self._contained("the state", self._keep_state)
        await self._contained("what was learned", self._learned.keep)

    async def _keep_state(self) -> None:
        body = _as_json({"v": 1, **await self._look()})
        await self._store.keep_snapshot(self._owner, body)

    async def _contained(self, what: str, write: Callable[[], Awaitable[None]]) -> None:
        """Write something; where that fails it is told, once as long as it stays the same."""
        trouble = ""
        try:
            await write()
        except Exception as problem:  # noqa: BLE001 - the next may do better, and stop() must end
            trouble = f"{type(problem).__name__}: {words(problem)}"
            if trouble != self._troubles.get(what):
                log.warning("%s could not be written to the store: %s", what, trouble)
        self._troubles[what] = trouble

    async def _pruning(self) -> None:
        while self._retention_days is not None:
            before = utc(max(0.0, self._clock.wall() - self._retention_days * SECONDS_A_DAY))
            try:
                await self._store.prune(before=before)
                self.changed()  # so that the state of one that idles for months is not old
            except StoreError as problem:
                log.warning("old messages could not be deleted: %s", problem)
            await self._clock.sleep(PRUNE_SPACING)


def _as_json(state: Mapping[str, object]) -> str:
    """Return JSON that anybody can read: NaN and infinity are none, and become null."""
    try:
        return json.dumps(state, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(state), parse_constant=lambda name: None))
