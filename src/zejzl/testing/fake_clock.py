"""A clock that moves only when told to."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from zejzl.clock import AGAIN

TURNS = 10  # of the loop: enough for a woken task to reach its next await


class FakeClock:
    """A `zejzl.clock.Clock` that moves only when told to.

    >>> clock = FakeClock()
    >>> clock.now()
    0.0

    Use it from one event loop. It does not wait for sockets, threads or processes: what a task
    awaits there goes on in real time.
    """

    def __init__(self, *, wall: float = 1_700_000_000.0) -> None:
        self._now = 0.0
        self._offset = wall
        self._ticks = itertools.count()  # ties wake in the order they were set
        self._timers: list[tuple[float, int, Callable[[], bool]]] = []

    def now(self) -> float:
        """Return the seconds it was advanced by."""
        return self._now

    def wall(self) -> float:
        """Return seconds since 1970, UTC: moves with `now()`, jumps with `set_wall`."""
        return self._offset + self._now

    def set_wall(self, wall: float) -> None:
        """Let the wall clock jump to `wall`, either way; `now()` does not notice."""
        self._offset = wall - self._now

    async def sleep(self, seconds: float) -> None:
        """Return once advanced by `seconds`; without any, at the next turn of the loop."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waker = asyncio.get_running_loop().create_future()

        def wake() -> bool:
            sleeping = not waker.done()
            if sleeping:
                waker.set_result(None)
            return sleeping

        self._at(seconds, wake)
        await waker

    @asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncIterator[None]:
        """Raise TimeoutError in a block still running after `seconds`; None is no limit.

        One that goes on all the same is cancelled once more, `AGAIN` later.
        """
        again = None if seconds is None else max(0.0, seconds) + AGAIN
        async with self._once(again), self._once(seconds):
            yield

    @asynccontextmanager
    async def _once(self, seconds: float | None) -> AsyncIterator[None]:
        async with asyncio.timeout(None if seconds is None or seconds > 0 else 0.0) as scope:
            inside = True

            def expire() -> bool:
                if inside:
                    scope.reschedule(0.0)
                return inside

            if seconds is not None and seconds > 0:
                self._at(seconds, expire)
            try:
                yield
            finally:
                inside = False

    async def advance(self, seconds: float) -> None:
        """Move on by `seconds`, waking whoever is due, earliest first, each at its own time.

        Raises:
            ValueError: If `seconds` is negative; only the wall clock goes back.
        """
        if seconds < 0:
            raise ValueError(f"seconds must not be negative, not {seconds!r}")
        await self._settle()
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            self._now, _, wake = heapq.heappop(self._timers)
            if wake():
                await self._settle()
        self._now = end

    def _at(self, seconds: float, wake: Callable[[], bool]) -> None:
        heapq.heappush(self._timers, (self._now + seconds, next(self._ticks), wake))

    @staticmethod
    async def _settle() -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)
