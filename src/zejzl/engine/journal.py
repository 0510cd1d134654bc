"""What the store is told of each request, and whose turn it is in a conversation.

    accepted ──▶ attempt(n) ──▶ settled, with the answer or the reason there is none

Writes are guarded by the `persistence` circuit breaker: a store that keeps failing refuses new
requests at once, before anything is sent; what is under way is still settled if it can be.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TypedDict, Unpack

from zejzl.clock import Clock
from zejzl.errors import CircuitOpen, ConversationBusy, Rejected, RequestUnderWay, StoreError
from zejzl.events import Event
from zejzl.magic import CircuitBreaker
from zejzl.messages import NOTHING, Attempt, Bill, Message
from zejzl.policies.breaker import Refused
from zejzl.ports import USUAL_TERMS, Done, SpendLimits, Store, Terms

log = logging.getLogger(__name__)
MOST_OWED = 10_000  # outcomes that wait for the store to be well


class Answered(TypedDict, total=False):
    """What is written down with an answer; see `Store.settle`."""

    model: str
    finish_reason: str
    maybe_duplicate: bool


class Waiting(TypedDict):
    """What is written down of one that waits; see `Store.park`."""

    tries: int
    due_at: datetime | None


class Journal:
    """The store, as a request sees it.

    Attributes:
        owed: Outcomes that could not be written yet, by request.
    """

    def __init__(self, store: Store, breaker: CircuitBreaker, clock: Clock) -> None:
        self._store = store
        self._breaker = breaker
        self._clock = clock
        self.owed: dict[str, Callable[[], Awaitable[None]]] = {}

    async def accept(
        self,
        message: Message,
        provider: str,
        model: str,
        seconds: float | None,
        *,
        bill: Bill = NOTHING,
        terms: Terms = USUAL_TERMS,
        limits: SpendLimits | None = None,
        at: datetime | None = None,
    ) -> None:
        """Write down a request with its first attempt; raises before anything is sent.

        Raises:
            TimeoutError: If that took longer than `seconds`; it may happen yet.
        """
        token = self._breaker.rule.try_acquire(self._clock.now())
        if isinstance(token, Refused):
            reason = f"the store keeps failing, the last time with: {self._breaker.last_error}"
            raise CircuitOpen(self._breaker.name, token.retry_after, reason)
        with _Watch(self._breaker, token):
            written = self._store.accept(
                message, provider, model, bill=bill, terms=terms, limits=limits, at=at
            )
            if not isinstance(written, Done):
                await self._within(seconds, written)

    async def attempt(
        self,
        message_id: str,
        number: int,
        provider: str,
        model: str,
        seconds: float | None,
        *,
        bill: Bill = NOTHING,
        limits: SpendLimits | None = None,
        at: datetime | None = None,
    ) -> None:
        """Write down that a further attempt begins; raises as `accept` does."""
        with self._watch():
            written = self._store.attempt(
                message_id, number, provider, model, bill=bill, limits=limits, at=at
            )
            await self._within(seconds, written)

    async def settle(
        self,
        message: Message,
        attempts: Sequence[Attempt],
        events: Sequence[Event],
        **answer: Unpack[Answered],
    ) -> None:
        """Write down what became of a request, whole."""
        write = self._store.settle
        try:
            with self._watch():
                written = write(message, attempts, events, **answer)
                if not isinstance(written, Done):
                    await written
        except StoreError:
            self.owe(message.id, partial(write, message, [*attempts], [*events], **answer))
            raise

    async def park(
        self,
        message: Message,
        attempts: Sequence[Attempt],
        events: Sequence[Event],
        **how: Unpack[Waiting],
    ) -> None:
        """Write down that a request waits for better times, or was given up."""
        with self._watch():
            await self._store.park(message, attempts, events, **how)

    def owe(self, message_id: str, write: Callable[[], Awaitable[None]]) -> None:
        """Keep an outcome that could not be written, for `catch_up`."""
        self.owed[message_id] = write
        if len(self.owed) > MOST_OWED:
            gone = next(iter(self.owed))
            del self.owed[gone]
            log.warning("the outcome of request %s is lost: too many could not be written", gone)

    async def catch_up(self) -> None:
        """Write what could not be written before.

        Raises:
            StoreError: If it cannot be now, either.
        """
        for id, write in list(self.owed.items()):
            with suppress(ValueError):  # it is written by now, or was never accepted
                await write()
            self.owed.pop(id, None)

    def write_outcome(
        self, message: Message, attempts: Sequence[Attempt], events: Sequence[Event]
    ) -> Awaitable[None]:
        """Settle without a look at the circuit breaker."""
        return self._store.settle(message, attempts, events)

    def settle_unheard(
        self, message: Message, attempts: Sequence[Attempt], events: Sequence[Event]
    ) -> None:
        """Settle for a caller who has gone: queued now, not waited for."""
        with _told():
            unheard(self._store.settle(message, attempts, events))

    def park_unheard(
        self,
        message: Message,
        attempts: Sequence[Attempt],
        events: Sequence[Event],
        **how: Unpack[Waiting],
    ) -> None:
        """Let a request wait again whose turn was cancelled: queued now, not waited for."""
        with _told():
            unheard(self._store.park(message, attempts, events, **how))

    def _watch(self) -> "_Watch":
        """Return a watch over a write that is made even where the store keeps failing."""
        return _Watch(self._breaker, self._breaker.rule.flowing)

    async def _within(self, seconds: float | None, written: Awaitable[None]) -> None:
        async with self._clock.timeout(seconds):
            await written


class _Watch:
    """Tells the store's circuit breaker how a write ended."""

    __slots__ = ("_breaker", "_token")

    def __init__(self, breaker: CircuitBreaker, token: int) -> None:
        self._breaker = breaker
        self._token = token

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if failure is None:
            self._breaker.ok(self._token)
        elif isinstance(failure, StoreError):
            self._breaker.fail(self._token, failure)
        else:
            self._breaker.void(self._token)


@contextmanager
def _told() -> Iterator[None]:
    """Tell of what cannot be written, and go on."""
    try:
        yield
    except StoreError as problem:
        log.warning("a cancelled request could not be settled: %s", problem)


def unheard(written: Awaitable[object], expected: type[Exception] | None = None) -> None:
    """Let a write happen that nobody waits for; a failure is logged unless it is `expected`."""
    if isinstance(written, asyncio.Future):
        written.add_done_callback(partial(_log_failure, expected))


def _log_failure(expected: type[Exception] | None, written: "asyncio.Future[object]") -> None:
    if written.cancelled() or (problem := written.exception()) is None:
        return
    if expected is None or not isinstance(problem, expected):
        log.warning("a write that nobody waits for failed: %s", problem)


def conversation_busy(conversation_id: str) -> ConversationBusy:
    """Return the error for a turn that did not come in time."""
    return ConversationBusy(
        f"conversation {conversation_id!r} was busy with an earlier turn until the "
        "deadline; send with another conversation_id, or a longer deadline"
    )


def key_busy(key: str) -> RequestUnderWay:
    """Return the error for a request whose like was not over in time."""
    return RequestUnderWay(
        f"a request with the idempotency key {key!r} was under way until the deadline; "
        "ask again with the same key, for its answer"
    )


class Conversations:
    """Serialises the turns of one conversation; different ones run freely.

    The same for requests that share an idempotency key.
    """

    def __init__(self, clock: Clock, busy: Callable[[str], Rejected] = conversation_busy) -> None:
        self._clock = clock
        self._busy = busy
        self._lines: dict[str, _Line] = {}

    async def begin(self, conversation_id: str | None, seconds: float | None) -> None:
        """Wait for one's turn; None is no conversation, and waits for nobody.

        Raises:
            ConversationBusy: If the turn did not come within `seconds`.
        """
        if conversation_id is None:
            return
        line = self._lines.setdefault(conversation_id, _Line())
        line.users += 1
        try:
            async with self._clock.timeout(seconds):
                await line.lock.acquire()
        except BaseException as problem:
            self._leave(conversation_id, line)
            if isinstance(problem, TimeoutError):
                raise self._busy(conversation_id) from None
            raise

    def end(self, conversation_id: str | None) -> None:
        """Let the next one have its turn."""
        if conversation_id is not None:
            line = self._lines[conversation_id]
            line.lock.release()
            self._leave(conversation_id, line)

    def _leave(self, conversation_id: str, line: "_Line") -> None:
        line.users -= 1
        if not line.users:
            del self._lines[conversation_id]


@dataclass(slots=True)
class _Line:
    """Those who want one conversation."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
