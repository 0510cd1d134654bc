"""Starting, being in use, and stopping without leaving anybody behind."""

import asyncio
from types import TracebackType

from zejzl.clock import Clock
from zejzl.errors import BusNotRunning, Rejected

ELSEWHERE = (
    "the bus was started in another event loop, where its connections belong: start, use and stop "
    "it inside one asyncio.run(…), or make a new bus for this one"
)


class UnderWay:
    """How many requests are under way. Enter it for the length of one.

    Attributes:
        requests: That many.
        over: Whether no more may begin: the provider that they call was unregistered.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._idle = asyncio.Event()
        self.requests = 0
        self.over = False

    def __enter__(self) -> None:
        if self.over:
            raise Rejected("the provider was unregistered before it could be called")
        self.requests += 1

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
        """Return whether those under way ended within `seconds`."""
        if not self.requests:
            return True
        self._idle = asyncio.Event()  # of this loop: a bus may be used in one after another
        try:
            async with self._clock.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


class Lifecycle(UnderWay):
    """Whether requests are taken, too.

    Attributes:
        started: Whether there is something to stop.
        running: Whether requests are taken.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._changing = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.started = False
        self.running = False

    @property
    def changing(self) -> asyncio.Lock:
        """Held while the bus starts or stops; each event loop it is used in has its own.

        Raises:
            BusNotRunning: If it was started in another one and has not been stopped there.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self.started:
                raise BusNotRunning(ELSEWHERE)
            self._loop, self._changing = loop, asyncio.Lock()
        return self._changing

    def check(self) -> None:
        """Raise BusNotRunning unless requests are taken, and in this event loop."""
        if not self.running:
            raise BusNotRunning("the bus is not running: await bus.start() first")
        if self._loop is not asyncio.get_running_loop():
            raise BusNotRunning(ELSEWHERE)

    def __enter__(self) -> None:
        self.check()
        super().__enter__()

    async def drain(self, seconds: float | None) -> bool:
        """Take no more requests; return whether those under way ended within `seconds`."""
        self.running = False
        return await super().drain(seconds)
