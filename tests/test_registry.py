"""What only the registry itself shows; the rest is in `test_ai_framework.py`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.driving import assert_nothing_is_left, finished, make_bus, register
from zejzl.engine.registry import Registry
from zejzl.errors import Rejected, ServerError
from zejzl.magic import FairyMagic
from zejzl.messages import Reply
from zejzl.stores import InMemoryStore
from zejzl.testing import FakeClock, ScriptedProvider


async def test_a_chain_holds_nobody_twice() -> None:
    registry = Registry(FairyMagic(clock=FakeClock()), None, None)
    for name in ("a", "b"):
        await registry.add(name, ScriptedProvider(name=name))

    chain = registry.chain("b", True, None)

    assert [target.name for target in chain] == ["b", "a"]


async def test_a_removed_provider_takes_its_breakers_along() -> None:
    magic = FairyMagic(clock=FakeClock())
    registry = Registry(magic, None, None)
    await registry.add("a", ScriptedProvider())
    registry.chain("a/big", None, None)
    registry.chain("a", None, None)

    await registry.remove("A")

    assert not [name for name in magic.circuit_breakers if name.startswith("ai_provider:")]


async def test_clearing_lets_everybody_go() -> None:
    registry = Registry(FairyMagic(clock=FakeClock()), None, None)
    providers = [ScriptedProvider(), ScriptedProvider()]
    for name, provider in zip("ab", providers, strict=True):
        await registry.add(name, provider)

    await registry.clear()

    assert len(registry) == 0
    assert all(provider.cleaned_up for provider in providers)


# Those who leave --------------------------------------------------------------------------------


class Ends(ScriptedProvider):
    """Is let go of as a function says."""

    def __init__(self, end: Callable[[], Awaitable[None]], clock: FakeClock) -> None:
        super().__init__(["old"], clock=clock)
        self._end = end

    async def cleanup(self) -> None:
        await self._end()


@pytest.mark.parametrize("hangs", ["once", "twice"])
@pytest.mark.parametrize("way", ["unregistered", "replaced", "stopped"])
async def test_a_provider_that_hangs_at_its_end_is_waited_for_some_seconds_only(
    hangs: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def end() -> None:
        try:
            await clock.sleep(float("inf"))
        finally:
            if hangs == "twice":
                await clock.sleep(float("inf"))

    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("a", Ends(end, clock))
        leave = {
            "unregistered": lambda: bus.unregister_provider("a"),
            "replaced": lambda: register(bus, clock, a="new"),
            "stopped": bus.stop,
        }[way]

        with caplog.at_level(logging.WARNING):
            await finished(clock, leave(), within=7.0)

        assert "provider a hangs in its cleanup()" in caplog.text


async def test_a_provider_in_anothers_place_is_the_one_that_is_probed_though_that_ends_badly() -> (
    None
):
    async def end() -> None:
        raise ServerError("it will not end")

    clock = FakeClock()
    async with make_bus(clock) as bus:
        old = Ends(end, clock)
        await bus.register_provider("a", old)
        (new,) = await register(bus, clock, a="new")

        assert await finished(clock, bus.magic.blue_spark_heal("ai_provider:a", "it was down"))

        assert (len(old.requests), len(new.requests)) == (0, 1)


async def test_a_provider_that_waits_for_the_end_of_the_old_ones_calls_is_probed_already() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (old,) = await register(bus, clock, a=[5.0, "old"])
        under_way = asyncio.create_task(bus.send("hello"))
        await clock.advance(0.1)
        new = ScriptedProvider(["new"], clock=clock)
        replacing = asyncio.create_task(bus.register_provider("a", new))
        await clock.advance(0.1)

        await finished(clock, bus.magic.blue_spark_heal("ai_provider:a", "it was down"), within=1.0)

        assert (len(old.requests), len(new.requests)) == (1, 1)
        await clock.advance(6.0)
        await asyncio.gather(under_way, replacing)


async def test_a_seat_says_that_its_provider_is_gone_and_lets_no_call_begin() -> None:
    registry = Registry(FairyMagic(clock=FakeClock()), None, None)
    await registry.add("a", ScriptedProvider())
    (target,) = registry.chain("a", None, None)
    before = target.seat.gone

    await registry.remove("a")

    assert (before, target.seat.gone) == (False, True)
    with pytest.raises(Rejected, match="unregistered"), target.seat.calls:
        raise AssertionError("it was called")


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_request_that_was_about_to_call_a_provider_that_left_calls_another(
    streamed: bool,
) -> None:
    class Slow(InMemoryStore):
        async def accept(self, *args: Any, **kept: Any) -> None:
            await clock.sleep(1.0)
            await super().accept(*args, **kept)

    clock = FakeClock()
    async with make_bus(clock, store=Slow(clock=clock)) as bus:
        a, _ = await register(bus, clock, a="from a", b="from b")

        async def ask() -> Reply | None:
            if not streamed:
                return await bus.send("hello")
            *_, last = [delta async for delta in bus.stream("hello")]
            return last.reply

        asking = asyncio.create_task(ask())
        await clock.advance(0.5)
        await finished(clock, bus.unregister_provider("a"), within=0.2)
        await clock.advance(2.0)
        reply = await asking

        assert reply is not None and reply.provider == "b"
        assert (a.cleaned_up, a.requests) == (True, [])
        await assert_nothing_is_left(bus)
