"""Starting, being in use, stopping; in one event loop, and not in another one."""

import asyncio
import logging
from collections.abc import Coroutine
from threading import Thread
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import finished, make_bus
from zejzl.engine.lifecycle import Lifecycle, UnderWay
from zejzl.engine.upkeep import Upkeep
from zejzl.errors import BusNotRunning, Rejected
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore
from zejzl.testing import FakeClock, ScriptedProvider


async def running(clock: FakeClock) -> Lifecycle:
    lifecycle = Lifecycle(clock)
    async with lifecycle.changing:
        lifecycle.started = lifecycle.running = True
    return lifecycle


async def test_draining_waits_for_the_last_request() -> None:
    clock = FakeClock()
    lifecycle = await running(clock)

    with lifecycle:
        draining = asyncio.create_task(lifecycle.drain(5.0))
        await clock.advance(1.0)
        waited = not draining.done()

    assert waited
    assert await draining is True


async def test_draining_gives_up_after_its_time() -> None:
    clock = FakeClock()
    lifecycle = await running(clock)

    with lifecycle:
        draining = asyncio.create_task(lifecycle.drain(5.0))
        await clock.advance(5.0)

        assert await draining is False
        assert lifecycle.requests == 1


async def test_nothing_is_taken_while_it_does_not_run() -> None:
    lifecycle = Lifecycle(FakeClock())

    with pytest.raises(BusNotRunning, match="start"), lifecycle:
        raise AssertionError("it was taken")

    assert lifecycle.requests == 0


async def test_nothing_begins_once_it_is_over() -> None:
    calls = UnderWay(FakeClock())
    with calls:
        calls.over = True

        with pytest.raises(Rejected, match="unregistered"), calls:
            raise AssertionError("it began")

    assert calls.requests == 0


# Event loops ------------------------------------------------------------------------------------


@pytest.fixture(params=["over", "running"])
def elsewhere(request: pytest.FixtureRequest) -> Any:
    """A bus that was started in another event loop, which is over by now, or runs in a thread."""
    bus = AsyncMessageBus(Settings(), store=InMemoryStore())
    if request.param == "over":
        asyncio.run(bus.start())
        yield bus
        return
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()

    def there(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result()

    there(bus.start())
    yield bus
    there(bus.stop())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def read(bus: AsyncMessageBus) -> None:
    async for _ in bus.stream("hello"):
        pass


@pytest.mark.parametrize(
    "use",
    [
        lambda bus: bus.send("hello"),
        read,
        lambda bus: bus.register_provider("a", ScriptedProvider()),
        lambda bus: bus.subscribe("topic"),
        AsyncMessageBus.start,
        AsyncMessageBus.stop,
    ],
    ids=["send", "stream", "register", "subscribe", "start", "stop"],
)
def test_a_bus_of_another_event_loop_says_so_and_what_to_do(elsewhere: Any, use: Any) -> None:
    async def here() -> None:
        with pytest.raises(BusNotRunning, match=r"another event loop.*make a new bus"):
            await use(elsewhere)

    asyncio.run(here())


def test_a_bus_that_was_stopped_may_be_stopped_and_used_in_another_loop() -> None:
    bus = AsyncMessageBus(Settings(), store=InMemoryStore())

    async def use() -> str:
        async with bus:
            return (await bus.send("hello")).provider

    first = asyncio.run(use())
    asyncio.run(bus.stop())

    assert (first, asyncio.run(use())) == ("offline", "offline")


# Stopping, whatever fails -----------------------------------------------------------------------


class Cut(ScriptedProvider):
    async def cleanup(self) -> None:
        raise asyncio.CancelledError


async def test_a_provider_whose_own_work_is_cancelled_at_its_end_does_not_keep_the_bus_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    store = InMemoryStore(clock=clock)
    bus = make_bus(clock, store=store)
    await bus.start()
    other = ScriptedProvider()
    await bus.register_provider("cut", Cut())
    await bus.register_provider("other", other)

    with caplog.at_level(logging.WARNING):
        await finished(clock, bus.stop())

    assert other.cleaned_up
    assert not bus._lifecycle.started
    assert "cut did not end well" in caplog.text
    with pytest.raises(Exception, match="closed"):
        await store.orphans()


async def test_providers_are_let_go_of_though_the_last_snapshot_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    store = InMemoryStore(clock=clock)
    bus = make_bus(clock, store=store)
    await bus.start()
    provider = ScriptedProvider()
    await bus.register_provider("a", provider)
    stop = Upkeep.stop

    async def fails(upkeep: Upkeep) -> None:
        await stop(upkeep)
        raise RuntimeError("the state cannot be written")

    monkeypatch.setattr(Upkeep, "stop", fails)
    with pytest.raises(RuntimeError, match="the state cannot be written"):
        await bus.stop()

    assert provider.cleaned_up
    with pytest.raises(Exception, match="closed"):
        await store.orphans()


async def test_a_provider_that_is_ready_only_after_the_stop_is_let_go_of_again() -> None:
    class Slow(ScriptedProvider):
        async def initialize(self) -> None:
            await clock.sleep(5.0)

    clock = FakeClock()
    bus = make_bus(clock)
    await bus.start()
    slow = Slow()
    registering = asyncio.create_task(bus.register_provider("slow", slow))
    await clock.advance(1.0)

    await finished(clock, bus.stop())
    await clock.advance(5.0)

    with pytest.raises(BusNotRunning, match="stopped"):
        await registering
    assert slow.cleaned_up
    assert bus.providers == {}
