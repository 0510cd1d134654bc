"""Starting, being in use, and stopping without leaving anybody behind."""

import asyncio
from types import TracebackType

from zejzl.clock import Clock
from zejzl.errors import BusNotRunning


class Lifecycle:
    """Whether requests are taken, and how many are under way. Enter it for the length of one.

    Attributes:
        running: Whether requests are taken.
        requests: How many are under way.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._idle = asyncio.Event()
        self._idle.set()
        self.running = False
        self.requests = 0

    def check(self) -> None:
        """Raise BusNotRunning unless requests are taken."""
        if not self.running:
            raise BusNotRunning("the bus is not running: await bus.start() first")

    def __enter__(self) -> None:
        self.check()
        self.requests += 1
        self._idle.clear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.requests -= 1
        if not self.requests:
            self._idle.set()

    async def drain(self, seconds: float | None) -> bool:
        """Take no more requests; return whether those under way ended within `seconds`."""
        self.running = False
        try:
            async with self._clock.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
