"""An event loop whose time jumps: what takes a minute of waiting takes none of anybody's.

    ready callbacks ──▶ sockets, polled really ──▶ nothing anywhere? time jumps to the next timer

Sockets, and the bytes in them, are real; only the waiting is not. Time stands still while code
runs, so a latency measured in it holds no CPU time: it is the same on a busy machine as on an idle
one, and says nothing about what the code costs.

Two things are waited for really. Bytes that are on their way through loopback get `GRACE` to come
before time jumps over them. And while a thread of the loop's executors works (a DNS lookup, a
database), time passes as it does on the machine. Other threads and processes are not known of.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack

from zejzl.clock import Limit

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

GRACE = 0.0001  # seconds; sent to loopback, bytes are as a rule there before `send` returns


class VirtualClock:
    """The running loop's time as a `zejzl.clock.Clock`: durations and timers by one clock."""

    wall = staticmethod(time.time)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    def timeout(self, seconds: float | None) -> Limit:
        return Limit(seconds)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at the machine's monotonic time and is ahead of it ever after."""

    def __init__(self) -> None:
        self._virtual = time.monotonic()
        self._threads = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._virtual

    def pass_time(self, seconds: float) -> None:
        self._virtual += seconds

    @property
    def threads_work(self) -> bool:
        return self._threads > 0

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[Unpack[Ts]], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, future: asyncio.Future[Any]) -> None:
        self._threads -= 1


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


def run(main: Coroutine[Any, Any, T]) -> T:
    """Return what `main` returns, as asyncio.run does, on a loop whose time jumps."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
