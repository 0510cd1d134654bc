"""A caller who leaves, at whichever await: everything comes back, and nothing stays counted."""

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import (
    assert_nothing_is_left,
    break_down,
    finished,
    learn_pace,
    make_bus,
    register,
)
from zejzl.errors import ProviderOverloaded, RateLimited, ServerError, Transient, ZejzlError
from zejzl.messages import Reply, Request
from zejzl.ports import Store
from zejzl.stores import InMemoryStore, SqliteStore
from zejzl.testing import FakeClock

T = TypeVar("T")
Way = Callable[[AsyncMessageBus, FakeClock], Awaitable[Coroutine[Any, Any, object]]]
MOST_AWAITS = 200


@types.coroutine
def leaving(work: Coroutine[Any, Any, T], at: int) -> Generator[Any, Any, T]:
    """Run `work`, and cancel the task it runs in while it is in its await number `at`."""
    failure: BaseException | None = None
    number = 0
    while True:
        try:
            waited = work.throw(failure) if failure is not None else work.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        failure = None
        if number == at:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)
        number += 1
        try:
            yield waited
        except BaseException as raised:  # noqa: BLE001 - it is for `work` to judge
            failure = raised


class Cut:
    """Stops at any limit below forty words."""

    name, default_model = "a", "cut-1"

    async def generate(self, request: Request) -> Reply:
        await asyncio.sleep(0)
        words = ["word"] * min(40, request.max_tokens or 40)
        reason = "stop" if len(words) == 40 else "length"
        return Reply(text=" ".join(words), provider="a", finish_reason=reason)  # type: ignore[arg-type]

    async def cleanup(self) -> None:
        pass


async def read(bus: AsyncMessageBus, **options: Any) -> None:
    async with aclosing(bus.stream("hello", **options)) as deltas:
        async for _ in deltas:
            await asyncio.sleep(0)


async def answered(bus: AsyncMessageBus, clock: FakeClock) -> Coroutine[Any, Any, object]:
    await register(bus, clock, a=[0.1, "from a"])
    return bus.send("hello", conversation_id="ours")


async def failed_over(bus: AsyncMessageBus, clock: FakeClock) -> Coroutine[Any, Any, object]:
    await register(bus, clock, a=[0.1, ProviderOverloaded("full")], b=[0.1, "from b"])
    return bus.send("hello")


async def tried_again(bus: AsyncMessageBus, clock: FakeClock) -> Coroutine[Any, Any, object]:
    await register(bus, clock, a=[ServerError("x"), ServerError("y"), 0.1, "from a"])
    return bus.send("hello")


async def failed(bus: AsyncMessageBus, clock: FakeClock) -> Coroutine[Any, Any, object]:
    await register(bus, clock, a=ServerError("x"), b=ServerError("y"))
    return bus.send("hello", conversation_id="ours")


async def hedged(bus: AsyncMessageBus, clock: FakeClock) -> Coroutine[Any, Any, object]:
    await register(bus, clock, a=[60.0, "from a"], b=[0.1, "from b"])
    learn_pace(bus, "a")
    return bus.send("hello")


async def streamed(bus: AsyncMessageBus, clock: FakeClock) -> Coroutine[Any, Any, object]:
    await register(bus, clock, a=[0.1, "some words of a"])
    return read(bus)


async def begun_again(bus: AsyncMessageBus, clock: FakeClock) -> Coroutine[Any, Any, object]:
    broken = ("some words", Transient("it broke"))
    await register(bus, clock, a=[broken, broken], b=[0.1, "some words of both"])
    return read(bus)


async def hedged_stream(bus: AsyncMessageBus, clock: FakeClock) -> Coroutine[Any, Any, object]:
    await register(bus, clock, a=[60.0, "from a"], b=[0.1, "from b"])
    learn_pace(bus, "a")
    return read(bus)


async def in_line(bus: AsyncMessageBus, clock: FakeClock) -> Coroutine[Any, Any, object]:
    await register(bus, clock, a=[1.0, "first", 1.0, "second"])
    bus.magic.gate.lane("a").limiter.limit = 1.0

    async def two() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(bus.send("first"))
            await asyncio.sleep(0)
            await bus.send("second")

    return two()


async def one_by_one(bus: AsyncMessageBus, clock: FakeClock) -> Coroutine[Any, Any, object]:
    await register(bus, clock, a=[1.0, "first", 1.0, "second"])

    async def two() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(bus.send("first", conversation_id="ours"))
            await asyncio.sleep(0)
            await bus.send("second", conversation_id="ours")

    return two()


async def waited(bus: AsyncMessageBus, clock: FakeClock) -> Coroutine[Any, Any, object]:
    await register(bus, clock, a=[RateLimited("slow down", retry_after=1.0), "from a"])
    return bus.send("hello", patience=5.0)


async def probed(bus: AsyncMessageBus, clock: FakeClock) -> Coroutine[Any, Any, object]:
    await register(bus, clock, a=[0.2, "well again"])
    break_down(bus.magic, bus.magic.gate.provider("a"))
    return bus.send("hello", patience=5.0)


async def grown(bus: AsyncMessageBus, clock: FakeClock) -> Coroutine[Any, Any, object]:
    await bus.register_provider("a", Cut())
    return bus.send("hello", max_tokens=32)


async def mended(bus: AsyncMessageBus, clock: FakeClock) -> Coroutine[Any, Any, object]:
    await register(bus, clock, a=[ServerError("x"), ServerError("y"), "from a"])

    @bus.magic.remedy("ai_provider")
    async def wake(failure: Exception) -> bool:
        await clock.sleep(0.1)
        return True

    return bus.send("hello")


WAYS = [
    answered,
    failed_over,
    tried_again,
    failed,
    hedged,
    streamed,
    begun_again,
    hedged_stream,
    in_line,
    one_by_one,
    waited,
    probed,
    grown,
    mended,
]


async def leave_at(at: int, way: Way, store: Callable[[FakeClock], Store]) -> bool:
    """Play one way in a world of its own and leave at that await; False: it was over before."""
    clock = FakeClock()
    async with make_bus(clock, store=store(clock)) as bus:
        work = await way(bus, clock)
        left = False
        try:
            await finished(clock, _as_coroutine(leaving(work, at)), within=30.0)
        except asyncio.CancelledError:
            left = True
        except ZejzlError:
            pass
        await clock.advance(3.0)
        for _ in range(50):  # a settled row may still be on its way to the disk
            if all(message.response or message.error for message in await bus.store.messages()):
                break
            await asyncio.sleep(0.01)

        await assert_nothing_is_left(bus)
        assert 0.0 <= bus.magic.energy_level <= 100.0
        # And it works on, in the same conversation.
        bus.magic.gate.lane("a").limiter.limit = 200.0
        await bus.magic.reset_circuit_breaker("ai_provider")
        await register(bus, clock, b="well")
        reply = await finished(clock, bus.send("again", "b", conversation_id="ours"))
        assert reply.text == "well"
    return left


async def _as_coroutine(work: Awaitable[T]) -> T:
    return await work


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_whoever_leaves_at_any_await_leaves_nothing_behind(way: Way) -> None:
    at = 0
    while await leave_at(at, way, lambda clock: InMemoryStore(clock=clock)):
        at += 1
        assert at < MOST_AWAITS

    assert at >= 1


async def test_nor_where_what_is_written_goes_to_a_file(tmp_path: Path) -> None:
    def in_a_file(clock: FakeClock) -> Store:
        return SqliteStore(tmp_path / f"{len(list(tmp_path.iterdir()))}.db", clock=clock)

    at = 0
    while await leave_at(at, failed_over, in_a_file):
        at += 1
        assert at < MOST_AWAITS

    assert at >= 4
