"""Work that can wait: kept when nobody can answer, taken up again when somebody may.

    parked ──(due, or a circuit breaker has closed)──▶ under way ──▶ answered
       ▲                                                  │ in vain
       └──────────────(fewer tries than allowed)──────────┴──▶ given up: a dead letter

What a dead process had in hand is found here as well: nobody waits for it but its ticket.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from zejzl.clock import Clock
from zejzl.engine.failures import in_words
from zejzl.engine.journal import unheard
from zejzl.engine.once import POLL_SPACING, causes_of, interrupted, reply_of, ticket_of
from zejzl.engine.record import GIVEN_UP, WAITS
from zejzl.errors import (
    GivenUp,
    NoSuchRequest,
    Parked,
    RequestUnderWay,
    StoreError,
    ZejzlError,
)
from zejzl.events import utc
from zejzl.messages import Attempt, Message, Reply
from zejzl.policies.parking import MOST_TOLD, Spacing
from zejzl.ports import Kept, Store

log = logging.getLogger(__name__)

MOST_AT_ONCE = 8
DROPPED = "dropped by hand"  # the error of what somebody has given up
FIRST_LOOK = 5.0  # seconds after the start: a bus that lives for one question takes nothing up
GRACE = 10.0  # seconds that what is under way is given to end when the bus stops
LOOK_SPACING = 1.0  # seconds between looks at a store that others write to as well
LATEST = datetime.max.replace(tzinfo=UTC)
STATES = {"parked": "waiting", "dead": "given up", "accepted": "under way"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedRequest:
    """A request that waits for better times, or did so in vain.

    Attributes:
        id: Its ticket, for `result`, `replay` and `drop`.
        state: "waiting", "under way" or "given up".
        tries: How often it was taken up again in vain.
        due_at: When it is taken up again at the latest, aware UTC.
        causes: What it failed with, oldest first.
        attempts: Every call that was made for it.
    """

    id: str
    message: Message
    state: str
    tries: int
    due_at: datetime | None
    causes: tuple[str, ...]
    attempts: tuple[Attempt, ...]


class ParkedWork:
    """The parked work of one bus.

    Args:
        take_up: Makes a request again; ends with its reply, or with the ticket of one that is
            parked or was given up. Whatever else it raises means that it could not begin.
        ready: Whether there is anybody to ask.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        spacing: Spacing,
        take_up: Callable[[Kept], Awaitable[Reply]],
        ready: Callable[[], bool],
    ) -> None:
        self._store = store
        self._clock = clock
        self._spacing = spacing
        self._take_up = take_up
        self._ready = ready
        self._news = asyncio.Event()
        self._hopeful = False  # whether what is not due yet is worth a try, too
        self._under_way: set[asyncio.Task[None]] = set()
        self._closing = False
        self._wanted = False  # whether somebody waits for what is parked

    def look(self, *, hopeful: bool = False) -> None:
        """Say that something may be due; `hopeful`: that a provider is well again."""
        self._hopeful |= hopeful
        self._news.set()

    async def close(self) -> None:
        """Take up no more; what is under way may end, and is parked again if it does not."""
        self._closing = True
        if self._under_way:
            with suppress(TimeoutError):
                async with self._clock.timeout(GRACE):
                    await asyncio.wait(set(self._under_way))
        self._cancel()

    def _cancel(self) -> None:
        for task in self._under_way:
            task.cancel()

    @property
    def has_whom_to_ask(self) -> bool:
        """Whether there is anybody to ask; `offline` is nobody."""
        return self._ready()

    def hurry(self) -> None:
        """Say that somebody waits for what is parked: look at once."""
        self._wanted = True
        self._news.set()

    # For its owners --------------------------------------------------------------------------

    async def all(self, limit: int) -> list[ParkedRequest]:
        """Return what waits, is under way or was given up, oldest first."""
        return [
            ParkedRequest(
                id=kept.message.id,
                message=kept.message,
                state=STATES[kept.state],
                tries=kept.tries,
                due_at=kept.due_at,
                causes=causes_of(kept),
                attempts=kept.attempts,
            )
            for kept in await self._store.parked(limit=limit)
        ]

    async def result(self, id: str, wait: float) -> Reply:
        """Return the answer of a request; see `AsyncMessageBus.result`."""
        ends = self._clock.now() + wait
        if wait:
            self.hurry()
        while True:
            kept = await self._store.kept(id=id)
            if kept is None:
                why = (
                    "it may be older than retention, or the beginning of an id: the whole is needed"
                )
                raise NoSuchRequest(id, why)
            if kept.message.response is not None:
                return reply_of(kept)
            if kept.state in ("dead", "settled") or self._clock.now() >= ends:
                raise ticket_of(kept)
            await self._clock.sleep(POLL_SPACING)

    async def replay(self, id: str) -> None:
        """Let parked work, or a dead letter, be taken up again now, with all its tries."""
        kept = await self._claimed(id)
        message = replace(kept.message, error=kept.message.error or WAITS)
        now = utc(self._clock.wall())
        attempts = interrupted(kept.attempts)
        await self._store.park(message, attempts, tries=0, due_at=now)
        self.hurry()

    async def drop(self, id: str) -> None:
        """Settle parked work, or a dead letter, without an answer."""
        kept = await self._claimed(id)
        why = "" if kept.attempts else f"; {kept.message.error}"  # its attempts tell it
        message = replace(kept.message, error=f"{DROPPED}{why}")
        await self._store.settle(message, interrupted(kept.attempts))

    async def _claimed(self, id: str) -> Kept:
        kept = await self._store.kept(id=id)
        if kept is None:
            raise NoSuchRequest(id)
        if kept.state == "settled" or not kept.terms.parks:
            end = "was answered" if kept.message.response is not None else "ended without an answer"
            never = "it was sent without `park`, so it never waits"
            raise NoSuchRequest(id, f"it waits no more, it {end}" if kept.terms.parks else never)
        if not await self._store.reopen(id):
            raise RequestUnderWay(f"request {id} is under way at this moment: wait for its end")
        return kept

    # The watch -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take up what is due until cancelled; what is under way then is parked again."""
        self._news, self._closing = asyncio.Event(), False
        self._hopeful = self._wanted = False
        try:
            await self._settle_in()
            while True:
                self._news.clear()
                try:
                    await self._take_due()
                    seconds = await self._pause()
                except Exception as problem:  # noqa: BLE001 - damaged rows must not end the watch
                    log.warning("parked work cannot be read: %s", in_words(problem))
                    seconds = self._spacing.first
                with suppress(TimeoutError):
                    async with self._clock.timeout(seconds):
                        await self._news.wait()
        finally:
            self._cancel()
            if self._under_way:
                await asyncio.wait(set(self._under_way))

    async def _settle_in(self) -> None:
        """Wait until it is worth looking, or somebody waits for it."""
        with suppress(TimeoutError):
            async with self._clock.timeout(FIRST_LOOK):
                while not self._wanted:
                    self._news.clear()
                    await self._news.wait()

    async def _take_due(self) -> None:
        room = MOST_AT_ONCE - len(self._under_way)
        if room <= 0 or self._closing or not self._ready():
            return
        before = LATEST if self._hopeful else utc(self._clock.wall())
        taken = await self._store.take_parked(before=before, limit=room)
        if len(taken) < room:
            self._hopeful = False  # there is no more
        for kept in taken:
            task = asyncio.create_task(self._one(kept), name="zejzl-parked")
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        self._news.set()

    async def _pause(self) -> float:
        """Return the seconds until it is worth looking again, if there is no news before."""
        due_at = await self._store.next_due() if self._ready() else None
        wait = None
        if due_at is not None and len(self._under_way) < MOST_AT_ONCE:
            now = utc(self._clock.wall())
            wait = max(0.001, (due_at - now) / timedelta(seconds=1))
            if wait > MOST_TOLD + self._spacing.first:  # the wall's clock was another then
                self._hopeful, wait = True, 0.001
        # What is parked meanwhile is not due before its spacing is over.
        soon = LOOK_SPACING if self._store.shared else self._spacing.first
        return soon if wait is None else min(wait, soon)

    async def _one(self, kept: Kept) -> None:
        """Take one request up again."""
        try:
            await self._take_up(kept)
        except (Parked, GivenUp) as ticket:
            self._hopeful = False  # nobody is well after all: wait until the next is due
            log.info("parked work in vain: %s", ticket)
        except BaseException as problem:
            self._hopeful = False
            self._put_back(kept, problem)
            if not isinstance(problem, Exception):
                raise

    def _put_back(self, kept: Kept, problem: BaseException) -> None:
        """Park what could not even begin; where it did, what became of it is written already."""
        if getattr(problem, "reply", None) is not None:
            return  # it is answered: the journal writes that down as soon as the store lets it
        said = in_words(problem)
        log.info("parked request %s was put back: %s", kept.message.id, said)
        # How it was asked cannot be read: no time mends that.
        hopeless = isinstance(problem, ValueError | TypeError | RecursionError)
        hopeless &= not isinstance(problem, ZejzlError)
        due_at = None if hopeless else utc(self._clock.wall() + self._spacing.first)
        message = replace(kept.message, error=f"{GIVEN_UP if hopeless else WAITS}: {said}")
        attempts = getattr(problem, "attempts", ()) or interrupted(kept.attempts)
        with suppress(StoreError, ValueError):
            # It is refused where the request is parked or settled already.
            parked = self._store.park(message, attempts, tries=kept.tries, due_at=due_at)
            unheard(parked, expected=ValueError)
