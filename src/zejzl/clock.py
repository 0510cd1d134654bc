"""Time, handed in: nothing else in the package reads a clock or sleeps on its own.

Two clocks that are never mixed: `now()` for durations, `wall()` for what is written down.
"""

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Clock(Protocol):
    """The four verbs of time."""

    def now(self) -> float:
        """Return seconds from a monotonic origin: for durations. Means nothing after a restart."""

    def wall(self) -> float:
        """Return seconds since 1970, UTC: for what is written to disk. May jump either way."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Raise TimeoutError in the block that runs longer than `seconds`; None is no limit."""


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
        return asyncio.timeout(seconds)
