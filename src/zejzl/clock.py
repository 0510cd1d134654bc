"""Time, handed in: nothing else in the package reads a clock or sleeps on its own.

Two clocks that are never mixed: `now()` for durations, `wall()` for what is written down.
"""

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

AGAIN = 1.0  # seconds after which a block that goes on all the same is cancelled once more


class Clock(Protocol):
    """The four verbs of time."""

    def now(self) -> float:
        """Return seconds from a monotonic origin: for durations. Means nothing after a restart."""

    def wall(self) -> float:
        """Return seconds since 1970, UTC: for what is written to disk. May jump either way."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Raise TimeoutError in the block that runs longer than `seconds`; None is no limit.

        A block that has not ended a second later is cancelled once more: what it does `finally`
        may hold the first cancellation up.
        """


class Limit:
    """What `timeout` returns where timers are the running event loop's.

    Like asyncio.timeout, but it cancels twice, for the price of one timer while nothing is late.
    """

    __slots__ = ("_before", "_seconds", "_task", "_timer", "_times")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._times = 0
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in a task
        self._task, self._before = task, task.cancelling()
        if self._seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, self._seconds), self._cancel, loop)

    def _cancel(self, loop: asyncio.AbstractEventLoop) -> None:
        self._times += 1
        self._task.cancel()
        self._timer = loop.call_later(AGAIN, self._cancel, loop) if self._times == 1 else None

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left = self._before + 1
        for _ in range(self._times):
            left = self._task.uncancel()
        if left <= self._before and isinstance(failure, asyncio.CancelledError):
            raise TimeoutError from failure  # nobody else wants it cancelled


class SystemClock:
    """The machine's clocks and the event loop's timers."""

    # Looked up at every call, as asyncio's own loops do it for their timers: whoever puts another
    # time there moves both together. To ask for the running loop each time would cost 0.2 µs more.
    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        return Limit(seconds)
