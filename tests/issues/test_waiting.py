"""Those who wait: for a message, for a provider, for a store."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest

from ai_framework import AsyncMessageBus, Message
from tests.driving import ask, break_down, make_bus, register
from zejzl.engine.channels import Channels
from zejzl.errors import ServerError, StoreError, ZejzlError
from zejzl.magic import FairyMagic
from zejzl.messages import Attempt
from zejzl.policies.breaker import Refused
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore, SqliteStore
from zejzl.testing import FakeClock


def message(text: str) -> Message:
    return Message.create(content=text, sender="me", provider="x")


async def test_a_message_that_comes_as_its_reader_leaves_stays_and_the_reader_is_just_cancelled() -> (  # noqa: E501
    None
):
    channels = Channels(10)
    inbox = channels.subscribe("*")
    reader = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)

    reader.cancel()
    channels.publish("x", message("one"))

    with pytest.raises(asyncio.CancelledError):
        await reader
    assert (await inbox.get()).content == "one"


async def test_an_inbox_that_closes_as_its_reader_leaves_raises_nothing_else() -> None:
    channels = Channels(10)
    inbox = channels.subscribe("*")
    reader = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)

    reader.cancel()
    await inbox.close()

    with pytest.raises(asyncio.CancelledError):
        await reader


# While nobody is well ---------------------------------------------------------------------------


async def test_a_provider_that_was_unregistered_while_all_are_down_can_be_given_up() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=ServerError("down"), b=ServerError("down"))
        for _ in range(6):
            with suppress(ZejzlError):
                task = asyncio.create_task(bus.send("hello", patience=0))
                await clock.advance(1.0)
                await task
        waiter = asyncio.create_task(bus.send("hello", "a", patience=20, deadline=30))
        await clock.advance(0.05)

        await bus.unregister_provider("a")
        await clock.advance(40.0)

        with pytest.raises(ZejzlError):
            await waiter


async def test_more_models_than_are_told_apart_share_a_breaker_that_opens_and_closes() -> None:
    clock = FakeClock()
    magic = FairyMagic(clock=clock)
    breaker = None
    for n in range(1_001):
        breaker = magic.gate.provider("a", f"model-{n}")
        break_down(magic, breaker)

    assert breaker is magic.circuit_breakers["ai_provider:a"]
    assert isinstance(ask(magic, breaker), Refused)
    await clock.advance(31.0)
    assert not isinstance(ask(magic, breaker), Refused)


async def test_those_who_wait_hear_at_once_that_a_probe_was_given_up() -> None:
    clock = FakeClock()
    async with make_bus(clock, attempt_timeout=None) as bus:
        (a,) = await register(bus, clock, a=[*[ServerError("down")] * 4, 25.0, "slow", "well"])
        for _ in range(3):
            with suppress(ZejzlError):
                task = asyncio.create_task(bus.send("hello", patience=0))
                await clock.advance(0.01)
                await task
        assert bus.magic.circuit_breakers["ai_provider:a"].state == "open"
        await clock.advance(0.5)
        a.play(25.0, "well")
        probe = asyncio.create_task(bus.send("probe", patience=0))
        await clock.advance(0.01)
        waiter = asyncio.create_task(bus.send("hello", patience=40))
        await clock.advance(0.5)
        assert bus.magic.circuit_breakers["ai_provider:a"].state == "half_open"

        probe.cancel()
        a.play("well")
        await clock.advance(2.0)

        assert waiter.done()
        assert (await waiter).text == "well"


async def test_those_who_wait_hear_at_once_that_a_probe_failed() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=ServerError("down"))
        for _ in range(3):
            with suppress(ZejzlError):
                task = asyncio.create_task(bus.send("hello", patience=0))
                await clock.advance(0.01)
                await task
        await clock.advance(0.5)
        a.play(1.0, ServerError("still down"))
        probe = asyncio.create_task(bus.send("probe", patience=0))
        await clock.advance(0.01)
        waiter = asyncio.create_task(bus.send("hello", patience=40))
        await clock.advance(1.5)
        a.play("well")
        await clock.advance(3.0)

        assert waiter.done()
        assert (await waiter).text == "well"
        await asyncio.gather(probe, return_exceptions=True)


# Recovering -------------------------------------------------------------------------------------


class FailsOnce(InMemoryStore):
    """Holds three orphans; the second cannot be settled at first."""

    def __init__(self) -> None:
        super().__init__()
        self.left = [message(text) for text in ("one", "two", "three")]
        self.refuses = True

    async def orphans(self) -> list:  # type: ignore[type-arg]
        from zejzl.ports import InFlight

        left, self.left = self.left, []
        for each in left:
            await self.accept(each, "a", "m")
        return [InFlight(each, 1) for each in left]

    def settle(self, message: Message, attempts, events=(), **answer):  # type: ignore[no-untyped-def]
        if message.content == "two" and self.refuses:
            self.refuses = False
            raise StoreError("the disk is full")
        return super().settle(message, attempts, events, **answer)


async def test_what_a_recovery_could_not_settle_is_recovered_by_the_next() -> None:
    async with AsyncMessageBus(Settings(), store=FailsOnce()) as bus:
        with pytest.raises(StoreError):
            await bus.recover()

        recovered = await bus.recover()

        assert [each.message.content for each in recovered] == ["one", "two", "three"]
        assert await bus.recover() == []


# The file ---------------------------------------------------------------------------------------


def take_away(folder: Path) -> None:
    for file in folder.glob("z.db*"):
        if file.is_file():
            file.unlink()


@pytest.mark.parametrize("replaced", [False, True], ids=["deleted", "replaced"])
async def test_a_database_that_was_taken_away_is_told_and_no_answer_is_lost_in_it(
    tmp_path: Path, replaced: bool
) -> None:
    path = tmp_path / "z.db"
    async with AsyncMessageBus(Settings(), store=SqliteStore(path)) as bus:
        await bus.send("before")
        take_away(tmp_path)
        if replaced:
            other = SqliteStore(path)
            await other.open()
            await other.close()

        with pytest.raises(StoreError, match=r"z\.db"):
            await bus.send("after")


async def test_a_reader_makes_no_empty_database(tmp_path: Path) -> None:
    path = tmp_path / "z.db"
    async with AsyncMessageBus(Settings(), store=SqliteStore(path)) as bus:
        take_away(tmp_path)

        await asyncio.gather(*(bus.history("c") for _ in range(9)), return_exceptions=True)

        assert "z.db" not in os.listdir(tmp_path)


async def test_pruning_outlives_a_retention_longer_than_the_calendar() -> None:
    clock = FakeClock()
    before = asyncio.all_tasks()
    async with make_bus(clock, retention_days=1e9) as bus:
        await clock.advance(3_700.0)

        assert len(asyncio.all_tasks() - before) == 3
        assert (await bus.send("hello")).provider == "offline"


async def test_an_attempt_is_kept_as_it_was() -> None:
    assert Attempt("a", "m", "ok", 0.0).remedy == "first"
