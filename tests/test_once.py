"""A request with a key is made once, whoever asks again, and whenever."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import assert_nothing_is_left, finished, make_bus, register
from zejzl.errors import GivenUp, Incomplete, Parked, RequestUnderWay, ServerError
from zejzl.messages import Attempt, Bill, Delta, Message
from zejzl.ports import Terms
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore, SqliteStore
from zejzl.testing import FakeClock, ScriptedProvider

DOWN = ServerError("down", status=500)


async def test_a_second_request_with_the_key_gets_the_first_ones_answer() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=["first", "second"])

        one = await bus.send("hello", idempotency_key="k")
        two = await bus.send("hello", idempotency_key="k", max_tokens=5)

        assert (two.text, two.id, two.provider, two.model) == (one.text, one.id, "a", "scripted-1")
        assert (two.usage, two.attempts, two.cost_usd) == (one.usage, one.attempts, one.cost_usd)
        assert not two.maybe_duplicate
        assert len(a.requests) == 1


async def test_a_stream_with_the_key_gets_it_as_well() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=["first", "second"])
        await bus.send("hello", idempotency_key="k")

        pieces = [delta async for delta in bus.stream("hello", idempotency_key="k")]

        assert [each.text for each in pieces] == ["first", ""]
        assert pieces[-1].reply is not None
        assert len(a.requests) == 1


async def test_of_many_at_once_one_is_made() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=[1.0, "answer"])

        async def all_at_once() -> list[str]:
            asked = (bus.send("hello", idempotency_key="k") for _ in range(20))
            return [reply.text for reply in await asyncio.gather(*asked)]

        texts = await finished(clock, all_at_once())

        assert texts == ["answer"] * 20
        assert len(a.requests) == 1
        await assert_nothing_is_left(bus)


async def test_a_failed_request_is_made_again_and_says_that_it_may_be_a_duplicate() -> None:
    clock = FakeClock()
    async with make_bus(clock, max_attempts=1) as bus:
        (a,) = await register(bus, clock, a=[Incomplete("cut"), "well"])
        with pytest.raises(Incomplete):
            await finished(clock, bus.send("hello", idempotency_key="k"))

        reply = await finished(clock, bus.send("hello", idempotency_key="k"))

        assert reply.maybe_duplicate
        assert [each.outcome for each in reply.attempts] == ["cut_stream", "ok"]
        assert len(a.requests) == 2
        assert [each.response for each in await bus.store.messages()] == ["well"]


async def test_a_refused_call_makes_no_duplicate() -> None:
    clock = FakeClock()
    async with make_bus(clock, max_attempts=1) as bus:
        await register(bus, clock, a=[DOWN, "well"])
        with pytest.raises(ServerError):
            await finished(clock, bus.send("hello", idempotency_key="k"))

        reply = await finished(clock, bus.send("hello", idempotency_key="k"))

        assert not reply.maybe_duplicate


@pytest.mark.parametrize(
    ("content", "conversation_id"), [("other", None), ("hello", "c")], ids=["words", "place"]
)
async def test_a_key_belongs_to_one_question(content: str, conversation_id: str | None) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a="well")
        await bus.send("hello", idempotency_key="k")

        with pytest.raises(ValueError, match="'k' belongs to another question"):
            await bus.send(content, idempotency_key="k", conversation_id=conversation_id)

        assert len(a.requests) == 1
        await assert_nothing_is_left(bus)


@pytest.mark.parametrize("key", ["", "  ", 5, "\ud83d"], ids=repr)
async def test_what_is_no_key_is_refused(key: object) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a="well")

        with pytest.raises((ValueError, TypeError), match="idempotency_key"):
            await bus.send("hello", idempotency_key=key)  # type: ignore[arg-type]

        assert not a.requests


async def test_whoever_waits_for_the_same_key_waits_until_the_deadline() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=[None])
        first = asyncio.create_task(bus.send("hello", idempotency_key="k"))
        await clock.advance(0.1)

        with pytest.raises(RequestUnderWay, match="'k' was under way"):
            await finished(clock, bus.send("hello", idempotency_key="k", deadline=2.0))

        first.cancel()
        await clock.advance(0.1)
        await assert_nothing_is_left(bus)


async def test_a_request_of_another_process_is_waited_for(tmp_path: Path) -> None:
    here, there = SqliteStore(tmp_path / "z.db"), SqliteStore(tmp_path / "z.db")
    await there.open()
    asked = Message.create("hello", "user", "a", None)
    await there.accept(asked, "a", "m", terms=Terms(key="k"))
    async with AsyncMessageBus(Settings(), store=here) as bus:
        provider = ScriptedProvider(["not asked"])
        await bus.register_provider("a", provider)
        asking = asyncio.create_task(bus.send("hello", idempotency_key="k"))
        await asyncio.sleep(0.15)
        early = asking.done()

        await there.settle(asked.answered("theirs", "a", 0.1), [])
        reply = await asking

        assert (early, reply.text, provider.requests) == (False, "theirs", [])
    await there.close()


async def test_a_request_of_a_process_that_died_is_taken_over(tmp_path: Path) -> None:
    there = SqliteStore(tmp_path / "z.db")
    await there.open()
    asked = Message.create("hello", "user", "a", None)
    await there.accept(asked, "a", "m", terms=Terms(key="k"), bill=Bill(5, 5, None, settled=False))
    await there.close()
    async with AsyncMessageBus(Settings(), store=SqliteStore(tmp_path / "z.db")) as bus:
        await bus.register_provider("a", ScriptedProvider(["here"]))

        reply = await bus.send("hello", idempotency_key="k")
        again = await bus.send("hello", idempotency_key="k")

        assert (reply.text, reply.id, reply.maybe_duplicate) == ("here", asked.id, True)
        assert [each.outcome for each in reply.attempts] == ["interrupted", "ok"]
        assert (again.text, again.maybe_duplicate) == ("here", True)
        assert await bus.recover() == []


async def test_a_parked_request_is_not_made_a_second_time() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_tries=1) as bus:
        (a,) = await register(bus, clock, a=DOWN)
        with pytest.raises(Parked) as first:
            await finished(clock, bus.send("hello", idempotency_key="k", park=True))

        with pytest.raises(Parked) as second:
            await bus.send("hello", idempotency_key="k", park=True)

        assert first.value.id == second.value.id
        await clock.advance(3600.0)
        with pytest.raises(GivenUp) as third:
            await bus.send("hello", idempotency_key="k")
        assert third.value.id == first.value.id
        assert a.requests


async def test_a_consumer_who_leaves_a_known_answer_leaves_nothing() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a="first")
        await bus.send("hello", idempotency_key="k")
        pieces = bus.stream("hello", idempotency_key="k")

        assert await anext(pieces) == Delta("first")
        await pieces.aclose()

        await assert_nothing_is_left(bus)
        assert (await bus.send("hello", idempotency_key="k")).text == "first"


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"system": "be brief"}, "system"),
        ({"model": "large"}, "model"),
        ({"provider": "b"}, "provider"),
    ],
)
async def test_a_key_is_for_one_request_and_not_for_the_same_words_asked_otherwise(
    how: dict[str, Any], what: str
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a, b = await register(bus, clock, a="first", b="second")
        await bus.send("hello", idempotency_key="k")

        with pytest.raises(ValueError, match=f"another {what}"):
            await bus.send("hello", idempotency_key="k", **how)

        assert (len(a.requests), len(b.requests)) == (1, 0)


async def test_a_providers_name_in_capitals_is_the_same_request() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a="first")

        replies = [await bus.send("hello", name, idempotency_key="k") for name in ("a", " A")]

        assert [reply.text for reply in replies] == ["first", "first"]
        assert len(a.requests) == 1


@pytest.mark.parametrize("options", ["no json", "[]", '{"of_another_version": 1}'])
async def test_what_cannot_be_compared_has_its_answer_all_the_same(options: str) -> None:
    clock = FakeClock()
    store = InMemoryStore(clock=clock)
    async with make_bus(clock, store=store) as bus:
        asked = Message.create("hello", "user", "a", None)
        await store.accept(asked, "a", "m", terms=Terms(key="k", options=options))
        await store.settle(asked.answered("first", "a", 0.1), [Attempt("a", "m", "ok", 0.1)])

        assert (await bus.send("hello", idempotency_key="k")).text == "first"
