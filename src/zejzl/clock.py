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

    # Bound directly: a call of `now()` costs what time.monotonic() costs, on the hottest path.
    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(seconds)
