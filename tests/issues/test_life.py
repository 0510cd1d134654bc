"""Starting, stopping, registering: at the wrong moment, twice at once, with parts that fail."""

import asyncio
import logging

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import finished, make_bus, register
from zejzl.clock import Clock
from zejzl.errors import BusNotRunning, NoSuchProvider, ServerError
from zejzl.providers import OpenAICompatible
from zejzl.settings import Settings, VendorSettings
from zejzl.stores import InMemoryStore
from zejzl.testing import FakeClock, FaultServer, ScriptedProvider, faults


class Slow(ScriptedProvider):
    """Takes ten seconds to be let go of."""

    def __init__(self, clock: Clock, name: str = "slow", seconds: float = 10.0) -> None:
        super().__init__([name], name=name, clock=clock)
        self._seconds = seconds

    async def cleanup(self) -> None:
        await self._clock.sleep(self._seconds)
        await super().cleanup()


class Fails(ScriptedProvider):
    async def cleanup(self) -> None:
        raise ServerError("it will not end")


async def test_a_provider_that_fails_to_end_does_not_keep_the_bus_from_stopping() -> None:
    clock = FakeClock()
    store = InMemoryStore()
    bus = make_bus(clock, store=store)
    await bus.start()
    (a,) = await register(bus, clock, a="ok")
    await bus.register_provider("fails", Fails())

    await bus.stop()

    assert a.cleaned_up
    with pytest.raises(Exception, match="closed"):
        await store.orphans()


async def test_a_provider_that_hangs_at_its_end_does_not_keep_the_bus_from_stopping() -> None:
    clock = FakeClock()
    store = InMemoryStore()
    bus = make_bus(clock, store=store)
    await bus.start()
    await bus.register_provider("slow", Slow(clock, seconds=float("inf")))

    await finished(clock, bus.stop())

    with pytest.raises(Exception, match="closed"):
        await store.orphans()


async def test_whoever_stops_a_bus_that_is_stopping_waits_until_it_has() -> None:
    clock = FakeClock()
    bus = make_bus(clock)
    await bus.start()
    (a,) = await register(bus, clock, a=[5.0, "late"])
    under_way = asyncio.create_task(bus.send("hello"))
    await clock.advance(0.1)

    stops = [asyncio.create_task(bus.stop()) for _ in range(2)]
    await clock.advance(1.0)
    early = [stop.done() for stop in stops]
    await clock.advance(5.0)

    assert early == [False, False]
    assert [stop.done() for stop in stops] == [True, True]
    assert a.cleaned_up
    assert (await under_way).text == "late"


async def test_a_bus_that_is_started_while_it_stops_is_running_afterwards() -> None:
    clock = FakeClock()
    bus = make_bus(clock)
    await bus.start()
    await register(bus, clock, a=[5.0, "late"])
    under_way = asyncio.create_task(bus.send("hello"))
    await clock.advance(0.1)
    stop = asyncio.create_task(bus.stop())
    await clock.advance(0.1)

    start = asyncio.create_task(bus.start())
    await clock.advance(6.0)
    await asyncio.gather(stop, start, under_way)

    assert (await bus.send("hello")).provider == "offline"
    await bus.stop()


async def test_a_bus_that_is_started_twice_at_once_is_started_once() -> None:
    before = asyncio.all_tasks()
    clock = FakeClock()
    bus = make_bus(
        clock, vendors={"local": VendorSettings(base_url="http://127.0.0.1:9/v1", model="m")}
    )

    await asyncio.gather(*(bus.start() for _ in range(5)))

    assert len(asyncio.all_tasks() - before) == 3  # snapshots, pruning, parked work
    await bus.stop()
    assert asyncio.all_tasks() == before


async def test_a_stop_that_was_cancelled_can_be_done_again() -> None:
    clock = FakeClock()
    store = InMemoryStore()
    bus = make_bus(clock, store=store)
    await bus.start()
    (a,) = await register(bus, clock, a=[5.0, "late"])
    under_way = asyncio.create_task(bus.send("hello"))
    await clock.advance(0.1)
    stop = asyncio.create_task(bus.stop())
    await clock.advance(0.1)
    stop.cancel()
    await asyncio.gather(stop, return_exceptions=True)

    await finished(clock, bus.stop())

    assert a.cleaned_up
    assert (await under_way).text == "late"
    with pytest.raises(Exception, match="closed"):
        await store.orphans()


async def test_what_happens_to_the_last_requests_of_a_bus_that_stops_is_written_down() -> None:
    clock = FakeClock()
    store = InMemoryStore(clock=clock)
    bus = make_bus(clock, store=store)
    await bus.start()
    await register(bus, clock, a=[0.5, ServerError("down")])
    under_way = [asyncio.create_task(bus.send("hello", patience=0)) for _ in range(5)]
    await clock.advance(0.1)

    await finished(clock, bus.stop())

    await asyncio.gather(*under_way, return_exceptions=True)
    await store.open()
    changes = await store.events(type="breaker_changed")
    assert [getattr(change, "after", "") for change in changes] == ["open"]


async def test_an_event_of_a_bus_that_is_closed_hurts_nobody() -> None:
    bus = make_bus(FakeClock())
    await bus.magic.recharge_magic()
    await bus.start()
    await bus.stop()

    assert await bus.magic.recharge_magic() == 100.0


# Providers that come and go ---------------------------------------------------------------------


async def test_a_provider_is_there_while_another_takes_its_place() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("a", Slow(clock, "old"))
        await register(bus, clock, b="from b")

        replacing = asyncio.create_task(
            bus.register_provider("a", ScriptedProvider(["new"], name="a", clock=clock))
        )
        await clock.advance(0.1)

        assert (await bus.send("hello")).text == "new"
        assert (await bus.send("hello", "a")).text == "new"
        assert list(bus.providers) == ["a", "b"]  # in its place, not behind the others
        await clock.advance(10.0)
        await replacing


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_key_can_be_changed_under_load_and_nobody_notices(streamed: bool) -> None:
    async with (
        FaultServer() as server,
        AsyncMessageBus(Settings(), store=InMemoryStore()) as bus,
    ):
        server.play("a", faults.ok("one two", delay=0.02, pace=0.005))
        over = False

        async def ask() -> list[bool]:
            healed = []
            while not over:
                if streamed:
                    replies = [delta.reply async for delta in bus.stream("hello")]
                else:
                    replies = [await bus.send("hello")]
                healed += [reply.healed for reply in replies if reply is not None]
            return healed

        async def change_key(n: int) -> None:
            provider = OpenAICompatible(server.base_url("a"), f"key-{n}", "m")
            await bus.register_provider("a", provider)

        await change_key(0)
        asking = [asyncio.create_task(ask()) for _ in range(20)]
        for n in range(10):
            await asyncio.sleep(0.03)
            await change_key(n)
        over = True

        assert not any(any(healed) for healed in await asyncio.gather(*asking))


async def test_a_provider_is_cleaned_up_when_its_calls_have_ended_and_not_before() -> None:
    clock = FakeClock()
    async with make_bus(clock, deadline=60.0) as bus:
        (old,) = await register(bus, clock, a=[5.0, "old"])
        under_way = asyncio.create_task(bus.send("hello"))
        await clock.advance(0.1)

        leaving = asyncio.create_task(bus.unregister_provider("a"))
        await clock.advance(1.0)
        early = old.cleaned_up
        await clock.advance(5.0)

        assert not early
        assert old.cleaned_up
        assert (await under_way).text == "old"
        await leaving


async def test_a_provider_that_fails_to_end_is_replaced_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("a", Fails())
        with caplog.at_level(logging.WARNING):
            await bus.register_provider("a", ScriptedProvider(["new"], name="a", clock=clock))

        assert (await bus.send("hello", "a")).text == "new"
        assert "provider a did not end well: ServerError: it will not end" in caplog.text


async def test_somebody_answers_while_the_last_provider_leaves() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("a", Slow(clock))

        leaving = asyncio.create_task(bus.unregister_provider("a"))
        await clock.advance(0.1)

        assert (await bus.send("hello")).provider == "offline"
        with pytest.raises(NoSuchProvider):
            await bus.send("hello", "a")
        await clock.advance(10.0)
        await leaving


async def test_offline_comes_though_the_last_provider_fails_to_end() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("a", Fails())

        await bus.unregister_provider("a")

        assert (await bus.send("hello")).provider == "offline"


@pytest.mark.parametrize("failover", [[], ()])
async def test_a_failover_to_nobody_is_no_failover(failover: list[str]) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a="from a", b="from b")

        assert (await bus.send("hello", failover=failover)).provider == "a"
        assert (await bus.send("hello", "b", failover=failover)).provider == "b"


@pytest.mark.parametrize("failover", [{"b"}, {"b": 1}, [5], b"b", 1, [None]], ids=str)
async def test_a_failover_that_is_no_list_of_names_is_refused_and_nobody_is_asked(
    failover: object,
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a, b = await register(bus, clock, a=ServerError("x"), b="from b")

        with pytest.raises(TypeError, match="failover"):
            await bus.send("hello", "a", failover=failover)  # type: ignore[arg-type]

        assert not a.requests + b.requests


async def test_a_restarted_bus_remembers_no_provider_that_is_gone() -> None:
    clock = FakeClock()
    bus = make_bus(clock)
    for name in ("a", "b", "c"):
        async with bus:
            await register(bus, clock, **{name: "ok"})
            await bus.send("hello")

    names = [name for name in bus.magic.circuit_breakers if name.startswith("ai_provider:")]
    assert names in ([], ["ai_provider:c"])


async def test_after_stop_nothing_is_taken() -> None:
    bus = make_bus(FakeClock())
    await bus.start()
    await bus.stop()
    await bus.stop()

    with pytest.raises(BusNotRunning):
        await bus.send("hello")
