"""What an attack on ledger, parked work, keys and rate limits has found."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import assert_nothing_is_left, finished, make_bus, register
from zejzl.errors import (
    EmptyAnswer,
    GivenUp,
    Malformed,
    Parked,
    ServerError,
    SpendLimitReached,
    StoreFull,
)
from zejzl.messages import Message, Reply, Request, Usage
from zejzl.policies.prices import Price, Prices
from zejzl.ports import Kept, KeyTaken, Terms
from zejzl.settings import RateLimit, Settings
from zejzl.stores import InMemoryStore, SqliteStore
from zejzl.testing import FakeClock, ScriptedProvider

DOWN = ServerError("down", status=503)


class FullOnce(InMemoryStore):
    """Cannot write one kind of outcome, once."""

    refuses = ""

    def _full(self, what: str) -> None:
        if self.refuses == what:
            self.refuses = ""
            raise StoreFull("no room")

    def settle(self, *args: Any, **answer: Any) -> Any:
        self._full("settle")
        return super().settle(*args, **answer)

    def park(self, *args: Any, **how: Any) -> Any:
        self._full("park")
        return super().park(*args, **how)


async def test_an_answer_that_could_not_be_written_is_written_later_and_given_to_its_key() -> None:
    clock = FakeClock()
    store = FullOnce(clock=clock)
    async with make_bus(clock, store=store) as bus:
        (a,) = await register(bus, clock, a=["first", "second"])
        store.refuses = "settle"
        with pytest.raises(StoreFull) as refused:
            await bus.send("hello", idempotency_key="k")

        again = await bus.send("hello", idempotency_key="k")

        assert getattr(refused.value.reply, "text", "") == again.text == "first"
        assert len(a.requests) == 1
        await assert_nothing_is_left(bus)


async def test_without_anybody_who_asks_it_is_written_within_seconds() -> None:
    clock = FakeClock()
    store = FullOnce(clock=clock)
    async with make_bus(clock, store=store) as bus:
        await register(bus, clock, a="first")
        store.refuses = "settle"
        with pytest.raises(StoreFull):
            await bus.send("hello")

        await clock.advance(3.0)

        assert [each.response for each in await store.messages()] == ["first"]


async def test_what_could_not_be_parked_is_settled_as_its_caller_was_told() -> None:
    clock = FakeClock()
    store = FullOnce(clock=clock)
    async with make_bus(clock, store=store) as bus:
        await register(bus, clock, a=DOWN)
        store.refuses = "park"
        with pytest.raises(ServerError):
            await finished(clock, bus.send("hello", park=True))

        assert await bus.parked() == []
        (message,) = await store.messages()
        assert message.error is not None and "down" in message.error


async def test_parked_work_whose_answer_could_not_be_written_is_not_asked_again() -> None:
    clock = FakeClock()
    store = FullOnce(clock=clock)
    async with make_bus(clock, store=store, park_spacing=60.0, patience=0.0) as bus:
        (a,) = await register(bus, clock, a=DOWN)
        with pytest.raises(Parked) as ticket:
            await finished(clock, bus.send("hello", park=True))
        a.play("well")
        await bus.magic.reset_circuit_breaker("a")
        asked = len(a.requests)
        store.refuses = "settle"

        await bus.replay(ticket.value.id)
        await clock.advance(300.0)

        assert (await bus.result(ticket.value.id)).text == "well"
        assert len(a.requests) == asked + 1


class Counts(ScriptedProvider):
    """Counts as it was told to."""

    usage: Any = Usage()

    async def generate(self, request: Request) -> Reply:
        return Reply(text="ok", provider="a", usage=self.usage)


@pytest.mark.parametrize("usage", [Usage(-(10**6), -5), Usage(True, 1), Usage(5, 2**60)], ids=str)
async def test_counts_that_cannot_be_are_no_answer_and_change_no_sum(usage: Usage) -> None:
    clock = FakeClock()
    async with make_bus(
        clock, spend_limit_day=1.0, rate_limits={"a": RateLimit(tokens=100_000)}, max_attempts=1
    ) as bus:
        bus._engine.ledger.prices = Prices(rows={"a/*": Price(1.0, 1.0)})
        provider = Counts(name="a", clock=clock)
        provider.usage = usage
        await bus.register_provider("a", provider)

        for _ in range(2):
            with pytest.raises(Malformed, match="tokens"):
                await finished(clock, bus.send("hello"))

        (spent,) = await bus.costs()
        assert 0.0 <= spent.cost_usd < 1.0
        await assert_nothing_is_left(bus)


@pytest.mark.parametrize("counts", [("x", 1), (2**70, 1), (float("nan"), 1), (-5, 1)], ids=str)
async def test_hostile_counts_on_an_error_are_not_believed(counts: Any) -> None:
    failure = EmptyAnswer("nothing")
    failure.usage = Usage(*counts)
    clock = FakeClock()
    async with make_bus(clock, max_attempts=1) as bus:
        await register(bus, clock, a=failure)

        with pytest.raises(EmptyAnswer):
            await finished(clock, bus.send("hello"))

        (spent,) = await bus.costs()
        assert (spent.prompt_tokens, spent.unsettled) == (1, 1)


async def test_parked_work_that_cannot_begin_is_no_hot_loop() -> None:
    taken = 0

    class Counting(InMemoryStore):
        async def take_parked(self, **how: Any) -> list[Kept]:
            nonlocal taken
            found = await super().take_parked(**how)
            taken += len(found)
            return found

    clock = FakeClock()
    async with make_bus(clock, store=Counting(clock=clock), park_spacing=600.0) as bus:
        await register(bus, clock, a=DOWN, b="from b")
        for number in range(20):
            with pytest.raises(Parked):
                await finished(clock, bus.send(f"{number}", "a", park=True, patience=0.0))
        await bus.unregister_provider("a")
        await clock.advance(10.0)

        bus._parking.look(hopeful=True)
        await clock.advance(5.0)

        assert taken <= 40


async def test_what_cannot_be_read_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "z.db"
    dead = SqliteStore(path)
    await dead.open()
    terms = Terms(parks=True, options='{"colour": "red"}')
    asked = Message.create("hello", "user", "a", None)
    await dead.accept(asked, "a", "m", terms=terms)
    await dead.close()

    async with AsyncMessageBus(Settings(), store=SqliteStore(path)) as bus:
        await bus.register_provider("a", ScriptedProvider(["ok"]))
        with pytest.raises(GivenUp, match="no options of a request"):
            await bus.result(asked.id, wait=10.0)


async def test_of_two_processes_with_one_new_key_the_slower_waits_for_the_answer(
    tmp_path: Path,
) -> None:
    path = tmp_path / "z.db"
    asked = []

    class Slow(ScriptedProvider):
        async def generate(self, request: Request) -> Reply:
            asked.append(request.content)
            await asyncio.sleep(0.02)
            return await super().generate(request)

    buses = [AsyncMessageBus(Settings(), store=SqliteStore(path)) for _ in range(2)]
    for bus in buses:
        await bus.start()
        await bus.register_provider("a", Slow(["ok"]))

    async def streamed(bus: AsyncMessageBus, key: str) -> str:
        pieces = [each.text async for each in bus.stream("hello", idempotency_key=key)]
        return "".join(pieces)

    sent = [bus.send("hello", idempotency_key=f"k{n}") for n in range(20) for bus in buses]
    told = [streamed(bus, f"s{n}") for n in range(5) for bus in buses]
    replies = await asyncio.gather(*sent)
    texts = await asyncio.gather(*told)

    assert {reply.text for reply in replies} == {"ok"}
    assert {text.strip() for text in texts} == {"ok"}
    assert len(asked) <= 25
    for bus in buses:
        await bus.stop()


def test_a_taken_key_is_a_value_error_of_the_stores() -> None:
    assert issubclass(KeyTaken, ValueError)


@pytest.mark.parametrize("said", [RuntimeError("boom"), "rubbish", (1.0, "x"), 5], ids=repr)
async def test_a_provider_whose_words_on_limits_make_no_sense_still_answers(
    said: object, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(ScriptedProvider):
        def quota(self, model: str) -> Any:
            if isinstance(said, Exception):
                raise said
            return said

    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("a", Odd(["ok"], name="a", clock=clock))

        texts = [(await bus.send("hello")).text for _ in range(3)]

        assert texts == ["ok"] * 3
        assert caplog.text.count("rate limits is no use") == 1
        await assert_nothing_is_left(bus)


async def test_turns_whose_callers_left_while_they_were_booked_are_given_back(
    tmp_path: Path,
) -> None:
    settings = Settings(rate_limits={"a": RateLimit(requests=40)}, deadline=20.0)
    async with AsyncMessageBus(settings, store=SqliteStore(tmp_path / "z.db")) as bus:
        await bus.register_provider("a", ScriptedProvider(["ok"]))
        leaving = [asyncio.create_task(bus.send("leaves")) for _ in range(30)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        await asyncio.sleep(0.1)

        replies = await asyncio.gather(*(bus.send("stays", deadline=5.0) for _ in range(30)))

        assert len(replies) == 30


async def test_a_recovery_that_is_cancelled_while_it_claims_goes_on_at_the_next(
    tmp_path: Path,
) -> None:
    path = tmp_path / "z.db"
    dead = SqliteStore(path)
    await dead.open()
    await dead.accept(Message.create("hello", "user", "a", None), "a", "m")
    await dead.close()
    async with AsyncMessageBus(Settings(), store=SqliteStore(path)) as bus:
        recovering = asyncio.create_task(bus.recover())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        recovering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await recovering

        assert [each.message.content for each in await bus.recover()] == ["hello"]


async def test_a_refused_spend_is_the_same_after_a_clock_was_set_back() -> None:
    clock = FakeClock()
    async with make_bus(clock, spend_limit_day=0.0003) as bus:
        bus._engine.ledger.prices = Prices(rows={"a/*": Price(0.0, 1.0)})
        await register(bus, clock, a="well")
        await bus.send("hello")
        with pytest.raises(SpendLimitReached):
            for _ in range(300):
                await bus.send("hello")
        clock.set_wall(clock.wall() - 3600.0)

        with pytest.raises(SpendLimitReached):
            for _ in range(300):
                await bus.send("hello")


async def test_work_parked_while_the_clock_was_a_year_ahead_does_not_wait_for_a_year() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_spacing=60.0, patience=0.0) as bus:
        (a,) = await register(bus, clock, a=DOWN)
        right = clock.wall()
        clock.set_wall(right + 365 * 86_400.0)
        with pytest.raises(Parked) as ticket:
            await finished(clock, bus.send("hello", park=True))
        clock.set_wall(right)
        a.play("well")

        await clock.advance(2 * 3600.0)

        assert (await bus.result(ticket.value.id)).text == "well"
