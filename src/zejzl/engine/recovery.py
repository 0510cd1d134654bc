"""After a crash: find what a bus that died left in flight, and settle it."""

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace

from zejzl.clock import Clock
from zejzl.events import RequestRecovered, utc
from zejzl.messages import Message
from zejzl.ports import InFlight, Store


@dataclass(frozen=True, slots=True)
class RecoveredRequest:
    """A request of a bus that died, found in flight by `recover`, and settled as such.

    Attributes:
        message: The request; `error` says that it was interrupted.
        maybe_duplicate: Whether a provider may have been called: asking again may pay twice.
    """

    message: Message
    maybe_duplicate: bool


class Recovery:
    """Settles what the dead left; a recovery that is cancelled goes on at the next."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._claimed: deque[InFlight] = deque()  # ours, and not yet settled
        self._settled: list[RecoveredRequest] = []  # and not yet returned

    async def run(self) -> list[RecoveredRequest]:
        """Return what was in flight, settled, oldest first."""
        self._claimed.extend(await self._store.orphans())
        while self._claimed:
            orphan = self._claimed.popleft()
            try:
                self._settled.append(await self._settle(orphan))
            except BaseException:
                self._claimed.appendleft(orphan)  # it is ours now: nobody else will find it
                raise
        settled, self._settled = self._settled, []
        return settled

    async def _settle(self, orphan: InFlight) -> RecoveredRequest:
        message = replace(
            orphan.message, error="interrupted: the process ended before there was an answer"
        )
        maybe_duplicate = orphan.attempts > 0
        event = RequestRecovered(
            request_id=message.id,
            conversation_id=message.conversation_id,
            maybe_duplicate=maybe_duplicate,
            timestamp=utc(self._clock.wall()),
        )
        attempts = [
            replace(attempt, outcome=attempt.outcome or "interrupted")
            for attempt in await self._store.attempts(message.id)
        ]
        with suppress(ValueError):  # one that was cancelled may have settled it already
            await self._store.settle(message, attempts, [event])
        return RecoveredRequest(message, maybe_duplicate)
