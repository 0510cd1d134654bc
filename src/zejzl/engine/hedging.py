"""Hedging: when an answer is late, a second call of the next provider; the first answer counts.

A call that nobody could stand in for is made in the caller's own task, and costs nothing more. One
that can be hedged is made in a task of its own, so that another can run beside it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from zejzl.engine.journey import Journey
from zejzl.engine.targets import Pick
from zejzl.errors import Transient

T = TypeVar("T")
LETTING_GO = 1.0  # seconds that cancelled calls are given to end before their caller goes on


async def race(
    journey: Journey,
    pick: Pick,
    work: Callable[[Pick], Coroutine[Any, Any, T]],
    drop: Callable[[T], Awaitable[None]] | None = None,
) -> tuple[Pick, T] | None:
    """Return the call that ended well first, with its result; None: none did.

    What ended badly has been told to the journey then.

    Args:
        work: Makes one call.
        drop: Lets go of the result of a call that ended well too late.
    """
    times = journey.hedge_times(pick)
    if times is not None:
        return await _Race(journey, work, drop).run(pick, times)
    try:
        return pick, await work(pick)
    except BaseException as failure:  # noqa: BLE001 - raised again if it is not to be healed
        journey.failed(pick, journey.healable(pick, failure))
        return None


class _Race(Generic[T]):
    """One call, and at most one more beside it."""

    def __init__(
        self,
        journey: Journey,
        work: Callable[[Pick], Coroutine[Any, Any, T]],
        drop: Callable[[T], Awaitable[None]] | None,
    ) -> None:
        self._journey = journey
        self._work = work
        self._drop = drop
        self._abandoned = journey.abandoned
        self._running: dict[asyncio.Task[T], Pick] = {}

    async def run(self, first: Pick, times: tuple[float, float]) -> tuple[Pick, T] | None:
        stages = list(times)
        self._start(first)
        try:
            while self._running:
                done = await self._wait(stages[0] if stages else None)
                if done is None:
                    del stages[0]
                    if self._journey.is_late(first) and not (
                        stages and not self._journey.in_trouble(first)
                    ):
                        stages.clear()
                        other = await self._journey.beside(first)
                        if other is not None:
                            self._start(other)
                elif (won := self._ended(done)) is not None:
                    self._let_go()
                    return won
            return None
        except BaseException:
            await self._cancel_all()
            raise

    def _start(self, pick: Pick) -> None:
        task = asyncio.create_task(self._work(pick), name="zejzl-call")
        self._running[task] = pick

    async def _wait(self, until: float | None) -> asyncio.Task[T] | None:
        """Return a call that has ended; None: the time has come first."""
        clock = self._journey.clock
        for task in self._running:
            if task.done():
                return task
        try:
            async with clock.timeout(None if until is None else max(0.0, until - clock.now())):
                done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            return None
        return next(task for task in self._running if task in done)

    def _ended(self, task: asyncio.Task[T]) -> tuple[Pick, T] | None:
        """Return a good end; take in a bad one."""
        pick = self._running.pop(task)
        if task.cancelled():  # nobody here has cancelled it: the provider's own work was
            self._journey.failed(pick, Transient("its own work was cancelled"))
            return None
        failure = task.exception()
        if failure is None:
            return pick, task.result()
        if not isinstance(failure, Exception):
            self._journey.void(pick)
            raise failure
        self._journey.failed(pick, failure)
        return None

    def _let_go(self) -> None:
        """End those that were slower; nobody waits for their end."""
        for task, pick in self._running.items():
            self._journey.void(pick)
            task.cancel()
            self._abandoned.add(task)
            task.add_done_callback(self._dropped)
        self._running = {}

    def _dropped(self, task: asyncio.Task[T]) -> None:
        self._abandoned.discard(task)
        if task.cancelled() or task.exception() is not None or self._drop is None:
            return
        dropping = asyncio.ensure_future(self._drop(task.result()))
        self._abandoned.add(dropping)
        dropping.add_done_callback(self._abandoned.discard)

    async def _cancel_all(self) -> None:
        """The caller leaves: end the calls, so that their sockets are closed when that is told."""
        running = dict(self._running)
        self._let_go()
        if running:
            clock = self._journey.clock
            try:
                async with clock.timeout(LETTING_GO):
                    await asyncio.wait(running)
            except TimeoutError:
                pass
