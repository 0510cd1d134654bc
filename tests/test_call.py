"""A plain answer, and one that was cut at its token limit: `engine.call` through the public bus."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import finished, make_bus, register
from zejzl.errors import (
    AttemptTimeout,
    BadRequest,
    ContentFiltered,
    ContextOverflow,
    ServerError,
    StoreFull,
)
from zejzl.messages import Delta, Reply, Request, Usage
from zejzl.stores import InMemoryStore
from zejzl.testing import FakeClock

WHOLE = " ".join(f"word{n}" for n in range(120))  # a token each


class Author:
    """Tells the same story, as far as the limit goes.

    Attributes:
        most: The largest limit its model takes; what it raises where that is passed is `refusal`.
        usual: The limit where none is asked for.
        instead: What its next calls do instead: raise an error, return what a function returns,
            or, None, nothing else.
        asked: The limits it was asked for, oldest first.
    """

    name = "author"
    default_model = "author-1"

    def __init__(
        self,
        *instead: Exception | Callable[[int], Any] | None,
        most: int = 10_000,
        usual: int = 10_000,
        refusal: type[Exception] = BadRequest,
    ) -> None:
        self.most = most
        self.usual = usual
        self.refusal = refusal
        self.instead = list(instead)
        self.asked: list[int | None] = []

    async def generate(self, request: Request) -> Reply:
        self.asked.append(request.max_tokens)
        limit = request.max_tokens or self.usual
        if limit > self.most:
            raise self.refusal("max_tokens is too large")
        instead = self.instead.pop(0) if self.instead else None
        if isinstance(instead, BaseException):
            raise instead
        found = told(WHOLE, limit) if instead is None else instead(limit)
        return await found if isinstance(found, Awaitable) else found

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        reply = await self.generate(request)
        yield Delta(reply.text, reply=reply)

    async def cleanup(self) -> None:
        pass


def told(story: str, limit: int) -> Reply:
    words = story.split()
    return Reply(
        text=" ".join(words[:limit]),
        provider="author",
        usage=Usage(1, min(limit, len(words))),
        finish_reason="length" if len(words) > limit else "stop",
    )


async def make_author(
    bus: AsyncMessageBus, *instead: Any, name: str = "a", **options: Any
) -> Author:
    author = Author(*instead, **options)
    await bus.register_provider(name, author)
    return author


def outcomes(attempts: Sequence[object]) -> list[tuple[str, str, str]]:
    return [(each.provider, each.outcome, each.remedy) for each in attempts]  # type: ignore[attr-defined]


def spend_acorns(bus: AsyncMessageBus, left: int = 0) -> None:
    lane = bus.magic.gate.lane("spent")
    while bus.magic.acorn_reserve > left:
        bus.magic.acorns.after(lane, "any", 100)


# Cut short -------------------------------------------------------------------------------------


async def test_an_answer_that_was_cut_is_asked_for_again_with_a_larger_limit() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        author = await make_author(bus)

        reply = await finished(clock, bus.send("hello", max_tokens=100))

        assert (reply.text, reply.truncated, reply.healed) == (WHOLE, False, True)
        assert author.asked == [100, 125]
        assert outcomes(reply.attempts) == [
            ("a", "truncated", "first"),
            ("a", "ok", "grow_answer"),
        ]
        assert bus.magic.acorn_reserve == 4
        (row,) = bus.magic.healing_history
        assert (row.failure_class, row.remedy, row.success) == ("truncated", "grow_answer", True)
        assert row.energy_used == 10.0


async def test_an_answer_that_is_cut_again_was_not_healed() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        author = await make_author(bus)

        reply = await finished(clock, bus.send("hello", max_tokens=50))

        assert (reply.truncated, reply.healed, len(reply.text.split())) == (True, False, 62)
        assert author.asked == [50, 62]
        assert outcomes(reply.attempts) == [
            ("a", "truncated", "first"),
            ("a", "truncated", "grow_answer"),
        ]
        assert {type(each.outcome) for each in reply.attempts} == {str}
        (row,) = bus.magic.healing_history
        assert (row.outcome, row.success) == ("truncated", False)


async def test_an_answer_that_stays_cut_was_healed_of_what_failed_before_it() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await make_author(bus, *[ServerError("down")] * 3)
        await make_author(bus, name="b")

        reply = await finished(clock, bus.send("hello", max_tokens=50))

        assert [each.provider for each in reply.attempts][-2:] == ["b", "b"]
        assert (reply.truncated, reply.healed) == (True, True)


async def test_an_answer_grows_once_before_the_call_or_after_it_and_not_both() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        author = await make_author(bus)
        await finished(clock, bus.send("hello", max_tokens=50))

        reply = await finished(clock, bus.send("hello", max_tokens=50))

        assert reply.truncated
        assert author.asked[:2] == [50, 62]
        assert [51 <= (limit or 0) <= 75 for limit in author.asked[2:]] == [True]
        assert bus.magic.acorn_reserve == 3


async def test_a_caller_who_leaves_before_the_longer_answer_is_asked_for_costs_no_credit() -> None:
    class Slow(InMemoryStore):
        async def attempt(self, *args: object, **kept: Any) -> None:
            await asyncio.sleep(3600.0)

    clock = FakeClock()
    async with make_bus(clock, store=Slow(clock=clock)) as bus:
        author = await make_author(bus)
        task = asyncio.create_task(bus.send("hello", max_tokens=100))
        await clock.advance(0.1)
        spent = bus.magic.acorn_reserve

        task.cancel()
        await clock.advance(0.1)

        assert (task.cancelled(), author.asked) == (True, [100])
        assert (spent, bus.magic.acorn_reserve) == (4, 5)


async def test_a_limit_that_nobody_asked_for_grows_from_what_was_used() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        author = await make_author(bus, usual=100)

        reply = await finished(clock, bus.send("hello"))

        assert (reply.text, author.asked) == (WHOLE, [None, 125])


async def test_how_much_it_grows_follows_the_answers_seen() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        author = await make_author(bus)
        await finished(clock, bus.send("hello"))

        reply = await finished(clock, bus.send("hello", max_tokens=90))

        assert (reply.text, author.asked) == (WHOLE, [None, 90, 120])


async def test_a_cut_answer_is_no_failure_of_its_provider() -> None:
    clock = FakeClock()
    async with make_bus(clock, store=(store := InMemoryStore(clock=clock))) as bus:
        await make_author(bus)

        reply = await finished(clock, bus.send("hello", max_tokens=100, conversation_id="c"))

        breaker = bus.magic.circuit_breakers["ai_provider:a"]
        assert (breaker.failure_count, breaker.success_count) == (0, 2)
        (message,) = await store.messages()
        assert message.response == WHOLE
        assert outcomes(await store.attempts(reply.id)) == outcomes(reply.attempts)


@pytest.mark.parametrize("why", ["no acorns", "sheddable", "no room to grow", "streamed"])
async def test_where_it_cannot_grow_it_is_returned_as_it_is_and_marked(why: str) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        author = await make_author(bus)
        if why == "no acorns":
            spend_acorns(bus)
        kept = bus.magic.acorn_reserve
        limit = 1 if why == "no room to grow" else 100
        options: dict[str, Any] = {"criticality": "sheddable"} if why == "sheddable" else {}

        if why == "streamed":
            deltas = [delta async for delta in bus.stream("hello", max_tokens=limit)]
            reply = deltas[-1].reply
            assert reply is not None
        else:
            reply = await finished(clock, bus.send("hello", max_tokens=limit, **options))

        assert (reply.text, reply.truncated) == (told(WHOLE, limit).text, True)
        assert (author.asked, bus.magic.acorn_reserve) == ([limit], kept)


async def test_it_grows_once_and_the_longer_answer_is_marked_if_it_was_cut_too() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        author = await make_author(bus)

        reply = await finished(clock, bus.send("hello", max_tokens=80))

        assert (author.asked, reply.truncated) == ([80, 100], True)
        assert reply.text == told(WHOLE, 100).text


async def test_of_two_answers_that_were_cut_the_one_that_says_more_is_kept() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        author = await make_author(bus, None, lambda limit: told("oh " * 200, limit))

        reply = await finished(clock, bus.send("hello", max_tokens=100))

        assert (author.asked, reply.truncated) == ([100, 125], True)
        assert reply.text == told(WHOLE, 100).text


# The kept answer ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "longer",
    [
        ServerError("x"),
        AttemptTimeout("silent"),
        RuntimeError("a bug"),
        ContextOverflow("too much"),
        ContentFiltered("no"),
        lambda limit: "no reply at all",
        lambda limit: told(" ", limit),
        lambda limit: asyncio.Event().wait(),
        asyncio.CancelledError(),
    ],
    ids=[
        *("fails", "late", "raises", "refuses", "filtered", "garbage", "empty", "hangs"),
        "its own work is cancelled",
    ],
)
async def test_an_answer_in_hand_is_not_lost_when_the_longer_one_does_not_come(
    longer: Any,
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        author = await make_author(bus, None, longer)
        await register(bus, clock, b="from b")

        reply = await finished(clock, bus.send("hello", max_tokens=100), step=0.5)

        assert (reply.text, reply.truncated) == (told(WHOLE, 100).text, True)
        assert (reply.provider, reply.healed, author.asked) == ("a", False, [100, 125])
        assert [each.remedy for each in reply.attempts] == ["first", "grow_answer"]
        assert (await bus.store.messages())[0].response == reply.text


@pytest.mark.parametrize("why", ["no budget", "one attempt", "on guard", "full", "paused"])
async def test_nor_when_the_longer_one_cannot_be_asked_for_and_its_credit_comes_back(
    why: str,
) -> None:
    clock = FakeClock()
    async with make_bus(clock, max_attempts=1 if why == "one attempt" else 3) as bus:
        magic, breaker = bus.magic, bus.magic.gate.provider("a")

        def meanwhile(limit: int) -> Reply:
            match why:
                case "no budget":
                    magic.charge(95.0)
                case "on guard":
                    magic.gate.raise_by_hand("a test")
                case "full":
                    magic.gate.lane("a").limiter.in_flight += 500
                case "paused":
                    breaker.pause(breaker.rule.generation, 60.0, "it asked for a minute")
            return told(WHOLE, limit)

        author = await make_author(bus, meanwhile)

        reply = await finished(clock, bus.send("hello", max_tokens=100))

        assert (reply.text, reply.truncated) == (told(WHOLE, 100).text, True)
        assert (author.asked, magic.acorn_reserve) == ([100], 5)
        assert outcomes(reply.attempts) == [("a", "truncated", "first")]


async def test_nor_when_a_failure_came_before_it() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        author = await make_author(bus, ServerError("x"), None, ServerError("y"))

        reply = await finished(clock, bus.send("hello", max_tokens=100))

        assert (reply.text, author.asked) == (told(WHOLE, 100).text, [100, 100, 125])


class Fills(InMemoryStore):
    """Takes so many writes of the journal, and no more."""

    writes = 0

    def _write(self) -> None:
        self.writes -= 1
        if self.writes < 0:
            raise StoreFull("the disk is full")

    def accept(self, *args: Any, **kept: Any) -> Any:
        self._write()
        return super().accept(*args, **kept)

    def attempt(self, *args: Any, **kept: Any) -> Any:
        self._write()
        return super().attempt(*args, **kept)

    def settle(self, *args: Any, **kept: Any) -> Any:
        self._write()
        return super().settle(*args, **kept)


async def test_nor_when_the_journal_cannot_tell_of_the_longer_one() -> None:
    class Once(Fills):
        def settle(self, *args: Any, **kept: Any) -> Any:
            return InMemoryStore.settle(self, *args, **kept)

    clock = FakeClock()
    store = Once(clock=clock)
    async with make_bus(clock, store=store) as bus:
        author = await make_author(bus)
        store.writes = 1

        reply = await finished(clock, bus.send("hello", max_tokens=100))

        assert (reply.text, author.asked) == (told(WHOLE, 100).text, [100])
        assert bus.magic.acorn_reserve == 5
        assert (await store.messages())[0].response == reply.text


@pytest.mark.parametrize("writes", [1, 2], ids=["the longer one", "the end"])
async def test_nor_when_the_journal_fails_for_good(writes: int) -> None:
    clock = FakeClock()
    store = Fills(clock=clock)
    async with make_bus(clock, store=store) as bus:
        await make_author(bus)
        store.writes = writes

        with pytest.raises(StoreFull) as caught:
            await finished(clock, bus.send("hello", max_tokens=100))

        reply = caught.value.reply
        assert isinstance(reply, Reply)
        assert reply.text == (told(WHOLE, 100).text if writes == 1 else WHOLE)


async def test_a_caller_who_leaves_while_the_longer_one_is_written_leaves_nothing() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await make_author(bus, None, lambda limit: asyncio.Event().wait())
        task = asyncio.create_task(bus.send("hello", max_tokens=100))
        await clock.advance(1.0)

        task.cancel()
        await clock.advance(0.0)

        assert task.cancelled()
        (message,) = await bus.store.messages()
        assert (message.response, message.error) == (None, "cancelled: the caller left")
        assert bus.magic.gate.lane("a").limiter.in_flight == 0


# The next time ----------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_where_the_last_answer_was_cut_the_next_may_be_longer_from_the_start(
    streamed: bool,
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        author = await make_author(bus)
        spend_acorns(bus)
        await finished(clock, bus.send("hello", max_tokens=100, conversation_id="c"))
        bus.magic.acorns.give_back()
        author.asked.clear()

        for conversation in ("other", "c"):
            if streamed:
                options: dict[str, Any] = {"max_tokens": 110, "conversation_id": conversation}
                deltas = [delta async for delta in bus.stream("hello", **options)]
                reply = deltas[-1].reply
            else:
                spend = bus.send("hello", max_tokens=130, conversation_id=conversation)
                reply = await finished(clock, spend)

        assert reply is not None and (reply.text, reply.healed) == (WHOLE, False)
        assert author.asked == ([110, 121] if streamed else [130, 143])
        assert bus.magic.acorn_reserve == 0


async def test_sheddable_work_is_given_no_larger_limit_from_the_start() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        author = await make_author(bus)
        options: Any = {"max_tokens": 100, "criticality": "sheddable"}

        for _ in range(2):
            await finished(clock, bus.send("hello", **options))

        assert (author.asked, bus.magic.acorn_reserve) == ([100, 100], 5)


@pytest.mark.parametrize("refusal", [BadRequest, ContextOverflow], ids=["bad", "too long"])
async def test_a_model_that_refuses_the_grown_limit_gets_the_asked_one_and_is_remembered(
    refusal: type[Exception],
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        author = await make_author(bus, most=100, refusal=refusal)
        spend_acorns(bus)
        await finished(clock, bus.send("hello", max_tokens=100))
        await bus.magic.perform_ritual("mana_surge")
        for _ in range(5):
            bus.magic.acorns.give_back()
        author.asked.clear()

        second = await finished(clock, bus.send("hello", max_tokens=100))
        third = await finished(clock, bus.send("hello", max_tokens=100))

        assert author.asked == [110, 100, 100]
        assert (second.truncated, third.truncated) == (True, True)
        assert bus.magic.circuit_breakers["ai_provider:a"].failure_count == 0
        assert bus.magic.acorn_reserve == 4


async def test_a_model_that_refuses_the_longer_answer_is_remembered_too() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        author = await make_author(bus, most=100)

        for _ in range(2):
            reply = await finished(clock, bus.send("hello", max_tokens=100))

        assert (reply.truncated, author.asked) == (True, [100, 125, 100])
        assert bus.magic.acorn_reserve == 4


# Late -------------------------------------------------------------------------------------------


async def test_a_provider_that_does_not_heed_its_first_cancellation_is_cancelled_again() -> None:
    clock = FakeClock()
    cancelled = []

    async def deaf() -> Reply:
        for _ in range(9):
            try:
                await clock.sleep(1e6)
            except asyncio.CancelledError:
                cancelled.append(clock.now())
                if len(cancelled) == 2:
                    raise
        raise AssertionError("never reached")

    async with make_bus(clock) as bus:
        await make_author(bus, lambda limit: deaf())
        await register(bus, clock, b="from b")

        reply = await finished(clock, bus.send("hello"), step=0.5)

        assert (reply.text, cancelled) == ("from b", [30.0, 31.0])
