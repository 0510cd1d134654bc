"""Cancelled at every turn of the loop: nothing counted, nothing held, nothing left in flight."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import make_bus, register
from zejzl.errors import ProviderOverloaded, ServerError
from zejzl.magic import FairyMagic
from zejzl.providers import OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore, SqliteStore
from zejzl.testing import FakeClock, FaultServer, faults


async def ask(bus: AsyncMessageBus, streamed: bool, **options: Any) -> None:
    if not streamed:
        await bus.send("hello", conversation_id="c", **options)
        return
    async with aclosing(bus.stream("hello", conversation_id="c", **options)) as deltas:
        async for _ in deltas:
            await asyncio.sleep(0)


def assert_clean(bus: AsyncMessageBus) -> None:
    assert bus._lifecycle.requests == 0
    assert not bus._intake.conversations._lines
    for breaker in bus.magic.circuit_breakers.values():
        outage = breaker.rule._outage
        assert outage is None or not outage.leases, breaker.name


@asynccontextmanager
async def sqlite_bus(path: Path) -> AsyncIterator[AsyncMessageBus]:
    async with AsyncMessageBus(Settings(), store=SqliteStore(path)) as bus:
        yield bus


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("half_open", [False, True], ids=["closed", "half open"])
async def test_a_request_cancelled_at_any_turn_of_the_loop_leaves_nothing_behind(
    streamed: bool, half_open: bool
) -> None:
    finished = False
    for turns in range(60):
        clock = FakeClock()
        magic = FairyMagic(clock=clock)
        async with make_bus(clock, magic=magic) as bus:
            a, _ = await register(bus, clock, a=ServerError("x"), b=ProviderOverloaded("full"))
            if half_open:
                breaker = magic.gate.provider("a")
                for _ in range(3):
                    breaker.fail(breaker.rule.generation, ServerError("down"))
                await clock.advance(1.0)
            a.play(ServerError("x"), "one two three")
            task = asyncio.create_task(ask(bus, streamed))
            for _ in range(turns):
                await asyncio.sleep(0)
            finished = task.done()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await asyncio.sleep(0)

            assert_clean(bus)
            assert all(message.response or message.error for message in await bus.store.messages())
    assert finished or half_open  # then it waits for the clock at last


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_over_sockets_and_a_file_too(tmp_path: Path, streamed: bool) -> None:
    async with FaultServer() as server, sqlite_bus(tmp_path / "z.db") as bus:
        server.play("a", faults.ok("one two three"))
        await bus.register_provider("a", OpenAICompatible(server.base_url("a"), "k", "m"))
        for turns in range(120):
            task = asyncio.create_task(ask(bus, streamed))
            for turn in range(turns):
                await asyncio.sleep(0.0002 if turn % 3 == 2 else 0)
                if task.done():
                    break
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert_clean(bus)

        for _ in range(200):
            if not server.in_flight("a"):
                break
            await asyncio.sleep(0.01)
        assert server.in_flight("a") == 0
        await bus.send("last", conversation_id="c")
        messages = await bus.store.messages(limit=1_000)
        assert all(message.response or message.error for message in messages)
        assert await bus.store.check() == []
        breaker = bus.magic.circuit_breakers["ai_provider:a"]
        assert (breaker.state, breaker.failure_count) == ("closed", 0)


async def test_a_stream_dropped_at_any_piece_leaves_nothing_behind() -> None:
    clock = FakeClock()
    for pieces in range(5):
        async with make_bus(clock) as bus:
            await register(bus, clock, a="one two three")
            deltas = bus.stream("hello", conversation_id="c")
            for _ in range(pieces):
                await anext(deltas)
            del deltas  # no aclose(): the loop does it
            gc.collect()
            for _ in range(20):
                await asyncio.sleep(0)

            assert_clean(bus)
            messages = await bus.store.messages()
            assert all(message.response or message.error for message in messages)


async def test_a_cancelled_request_is_cancelled_though_the_store_is_closed() -> None:
    clock = FakeClock()
    store = InMemoryStore()
    bus = make_bus(clock, store=store, deadline=1.0, attempt_timeout=None)
    await bus.start()
    await register(bus, clock, a=None)
    task = asyncio.create_task(bus.send("hello", deadline=1e6))
    await clock.advance(0.1)
    stop = asyncio.create_task(bus.stop())
    await clock.advance(2.0)
    await stop

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_bus_can_be_used_in_one_loop_after_another(tmp_path: Path) -> None:
    bus = AsyncMessageBus(Settings(), store=SqliteStore(tmp_path / "z.db"))

    async def use() -> int:
        async with bus:
            await asyncio.gather(*(bus.send("hello", conversation_id="c") for _ in range(5)))
            stop = asyncio.create_task(bus.stop())
            await asyncio.gather(bus.stop(), stop)
            return 1

    assert sum(asyncio.run(use()) for _ in range(3)) == 3
