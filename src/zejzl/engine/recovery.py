"""After a crash: find what a bus that died left in flight, and settle it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from zejzl.clock import Clock
from zejzl.engine.failures import in_words
from zejzl.engine.once import interrupted, reply_of
from zejzl.errors import ZejzlError
from zejzl.events import RequestRecovered, utc
from zejzl.messages import Message, Reply
from zejzl.ports import InFlight, Kept, Store

Resend = Callable[[Kept], Awaitable[Reply]]
MOST_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class RecoveredRequest:
    """A request of a bus that died, found in flight by `recover`, and settled as such.

    Attributes:
        message: The request, as it was asked; without an answer, `error` says why.
        maybe_duplicate: Whether a provider may have been called before: to ask again pays twice.
        reply: The answer, if it was asked once more and got one.
        error: Why it got none, if it was asked once more.
    """

    message: Message
    maybe_duplicate: bool
    reply: Reply | None = None
    error: Exception | None = None


class Recovery:
    """Settles what the dead left; a recovery that is cancelled goes on at the next."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._claimed: dict[str, InFlight] = {}  # ours, and not yet returned; oldest first
        self._settled: dict[str, RecoveredRequest] = {}
        self._claiming: asyncio.Future[list[InFlight]] | None = None

    async def run(self, resend: Resend | None) -> list[RecoveredRequest]:
        """Return what was in flight, settled, oldest first.

        Args:
            resend: Asks for one once more and settles it; None: they are settled as they are.
        """
        if self._claiming is None:
            self._claiming = asyncio.ensure_future(self._store.orphans())
        try:
            # To the end, whoever leaves: what is claimed is ours, and nobody else will find it.
            found = await asyncio.shield(self._claiming)
        finally:
            if self._claiming.done():
                self._claiming = None
        for orphan in found:
            self._claimed[orphan.message.id] = orphan
        room = asyncio.Semaphore(MOST_AT_ONCE)

        async def settle(id: str, orphan: InFlight) -> None:
            async with room:
                self._settled[id] = await (
                    self._settle(orphan) if resend is None else self._again(orphan, resend)
                )

        left = [(id, orphan) for id, orphan in self._claimed.items() if id not in self._settled]
        ended = await asyncio.gather(*(settle(*each) for each in left), return_exceptions=True)
        for end in ended:
            if end is not None:
                raise end  # what is claimed is ours: the next run goes on with it
        settled = [self._settled[id] for id in self._claimed]
        self._claimed, self._settled = {}, {}
        return settled

    async def _again(self, orphan: InFlight, resend: Resend) -> RecoveredRequest:
        """Ask for an orphan once more, and return what came of it."""
        id, maybe_duplicate = orphan.message.id, orphan.attempts > 0
        kept = await self._store.kept(id=id)
        if kept is None or kept.message.response is not None:
            reply = None if kept is None else reply_of(kept)  # a run that was cancelled has it
            return RecoveredRequest(orphan.message, maybe_duplicate, reply)
        if kept.state == "settled":  # by the cancellation
            await self._store.reopen(id)
        else:
            await self._store.record([self._event(orphan)])
        try:
            reply = await resend(kept)
        except (ZejzlError, ValueError, TypeError) as problem:
            message = replace(orphan.message, error=in_words(problem))
            with suppress(ValueError):  # as a rule the one that failed has settled it
                tried = getattr(problem, "attempts", ()) or interrupted(kept.attempts)
                await self._store.settle(message, tried)
            return RecoveredRequest(message, maybe_duplicate, error=problem)
        message = orphan.message.answered(reply.text, reply.provider, reply.latency_s)
        return RecoveredRequest(message, maybe_duplicate, reply)

    async def _settle(self, orphan: InFlight) -> RecoveredRequest:
        message = replace(
            orphan.message, error="interrupted: the process ended before there was an answer"
        )
        attempts = interrupted(tuple(await self._store.attempts(message.id)))
        with suppress(ValueError):  # one that was cancelled may have settled it already
            await self._store.settle(message, attempts, [self._event(orphan)])
        return RecoveredRequest(message, orphan.attempts > 0)

    def _event(self, orphan: InFlight) -> RequestRecovered:
        return RequestRecovered(
            request_id=orphan.message.id,
            conversation_id=orphan.message.conversation_id,
            maybe_duplicate=orphan.attempts > 0,
            timestamp=utc(self._clock.wall()),
        )
