"""An event loop whose time jumps: what takes a minute of waiting takes none of anybody's.

    ready callbacks ──▶ sockets, polled really ──▶ nothing anywhere? time jumps to the next timer

    >>> async def main() -> float:
    ...     clock = VirtualClock()
    ...     await clock.sleep(3_600.0)
    ...     return clock.wall()
    >>> run(main(), wall=1_700_000_000.0)
    1700003600.0

Sockets, and the bytes in them, are real; only the waiting is not. Time stands still while code
runs, so a latency measured in it holds no CPU time: it is the same on a busy machine as on an idle
one, and says nothing about what the code costs.

Two things are waited for really. Bytes that are on their way through loopback get `GRACE` to come
before time jumps over them. And while a thread of the loop's executors works (a DNS lookup, a
database), time passes as it does on the machine. Other threads and processes are not known of.

A **sealed** loop waits for neither: it looks at no socket, and does a thread's work by itself
before it goes on. Nothing of the machine reaches what runs in it, so the same program does the
same at the same times, to the last bit; and it is quicker.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar, TypeVarTuple, Unpack

from zejzl.clock import Limit

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

GRACE = 0.0001  # seconds; sent to loopback, bytes are as a rule there before `send` returns


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at the machine's monotonic time and is ahead of it ever after; a sealed one at 0.

    Args:
        wall: Seconds since 1970 at which its wall clock begins; None: the machine's time.
        sealed: Whether nothing outside is waited for, see above.
    """

    def __init__(self, *, wall: float | None = None, sealed: bool = False) -> None:
        self._virtual = self._began = 0.0 if sealed else time.monotonic()
        self._wall = time.time() if wall is None else wall
        self._threads = 0
        self._sealed = sealed
        super().__init__(_SealedSelector(self) if sealed else _JumpingSelector(self))

    def time(self) -> float:
        """Return the loop's time, in seconds."""
        return self._virtual

    def wall(self) -> float:
        """Return seconds since 1970: as many have passed as of `time`."""
        return self._wall + (self._virtual - self._began)

    def pass_time(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self._virtual += seconds

    @property
    def threads_work(self) -> bool:
        """Whether a thread of its executors is busy."""
        return self._threads > 0

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[Unpack[Ts]], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        """As any loop does; a sealed one returns when the work is done."""
        if self._sealed:
            return self._done_here(func, *args)
        future = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    def _done_here(self, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as problem:  # noqa: BLE001 - whoever awaits the work gets it
            future.set_exception(problem)
        return future

    async def shutdown_default_executor(self, *limit: float | None) -> None:
        """Wait really: from Python 3.12 on there is a limit, over which time would jump."""
        self._threads += 1
        try:
            await super().shutdown_default_executor(*limit)
        finally:
            self._threads -= 1

    def _thread_ended(self, future: asyncio.Future[Any]) -> None:
        self._threads -= 1


class VirtualClock:
    """The running `VirtualLoop`'s time as a `zejzl.clock.Clock`."""

    def now(self) -> float:
        """Return the loop's time."""
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        """Return the loop's wall time.

        Raises:
            RuntimeError: If the running loop has none: it is no `VirtualLoop`.
        """
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            raise RuntimeError("a VirtualClock needs a VirtualLoop: use zejzl.testing.virtual.run")
        return loop.wall()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of the loop's time."""
        await asyncio.sleep(max(0.0, seconds))

    def timeout(self, seconds: float | None) -> Limit:
        """Raise TimeoutError in the block that runs longer than `seconds` of the loop's time."""
        return Limit(seconds)


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0.0 or self._loop.threads_work:
            return self._really(timeout)
        events = super().select(0)
        if not events:
            time.sleep(GRACE)
            events = super().select(0)
        if not events:
            self._loop.pass_time(timeout)
        return events

    def _really(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        began = time.monotonic()
        events = super().select(timeout)
        if self._loop.threads_work:
            self._loop.pass_time(time.monotonic() - began)
        return events


class _SealedSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("every task waits, and in a sealed loop nothing will wake any")
        if timeout > 0.0:
            self._loop.pass_time(timeout)
        return []


def run(main: Coroutine[Any, Any, T], *, wall: float | None = None, sealed: bool = False) -> T:
    """Return what `main` returns, as asyncio.run does, on a `VirtualLoop`.

    Args:
        main: The program.
        wall: Seconds since 1970 at which its wall clock begins; None: the machine's time.
        sealed: Whether nothing outside is waited for, see above.
    """
    with asyncio.Runner(loop_factory=partial(VirtualLoop, wall=wall, sealed=sealed)) as runner:
        return runner.run(main)
