"""A late answer, and a second call beside it: `engine.hedging` through the public bus."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import (
    PACE,
    assert_nothing_is_left,
    break_down,
    finished,
    learn_pace,
    make_bus,
    register,
)
from zejzl.errors import (
    AuthFailed,
    Malformed,
    ProviderOverloaded,
    ServerError,
    StoreLocked,
    ZejzlError,
)
from zejzl.messages import Delta, Reply, Request
from zejzl.stores import InMemoryStore
from zejzl.testing import FakeClock, ScriptedProvider

LATE, HEDGED = 1.5 * PACE, 3.0 * PACE


async def make_hedged(
    bus: AsyncMessageBus, clock: FakeClock, **scripts: Any
) -> list[ScriptedProvider]:
    """Register providers of which the first has a pace to be late by."""
    made = await register(bus, clock, **scripts)
    learn_pace(bus, made[0].name)
    return made


def outcomes(attempts: Sequence[object]) -> list[tuple[str, str, str]]:
    return [(each.provider, each.outcome, each.remedy) for each in attempts]  # type: ignore[attr-defined]


async def read(bus: AsyncMessageBus, **options: Any) -> tuple[str, Reply]:
    """Return what a stream yielded, and its reply."""
    text, reply = "", None
    async with aclosing(bus.stream("hello", **options)) as deltas:
        async for delta in deltas:
            text += delta.text
            reply = delta.reply
    assert reply is not None
    return text, reply


async def ask(bus: AsyncMessageBus, streamed: bool) -> Reply:
    return (await read(bus))[1] if streamed else await bus.send("hello")


class Watched:
    """Is silent for some seconds, then answers; notes how its calls end.

    Attributes:
        until: What it is silent for instead of some seconds, if anything.
        cancelled: Calls that were cancelled.
        closed: Streams that were closed before their end.
        lingers: Seconds that a cancelled call takes to end.
    """

    default_model = "watched-1"

    def __init__(self, name: str, clock: FakeClock, seconds: float, *, lingers: float = 0) -> None:
        self.name = name
        self.seconds = seconds
        self.lingers = lingers
        self.until: asyncio.Event | None = None
        self.asked = self.cancelled = self.closed = 0
        self._clock = clock

    async def generate(self, request: Request) -> Reply:
        self.asked += 1
        try:
            await (self.until.wait() if self.until else self._clock.sleep(self.seconds))
        except asyncio.CancelledError:
            self.cancelled += 1
            if self.lingers:
                await self._clock.sleep(self.lingers)
            raise
        return Reply(text=f"from {self.name}", provider=self.name)

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        try:
            reply = await self.generate(request)
            for word in reply.text.split():
                yield Delta(f"{word} ")
            yield Delta("", reply=reply)
        except GeneratorExit:
            self.closed += 1
            raise

    async def cleanup(self) -> None:
        pass


async def make_watched(
    bus: AsyncMessageBus, clock: FakeClock, a: float, b: float, **options: float
) -> tuple[Watched, Watched]:
    """Register two that answer after so many seconds, the first of them with a pace."""
    first, second = Watched("a", clock, a, **options), Watched("b", clock, b)
    await bus.register_provider("a", first)
    await bus.register_provider("b", second)
    learn_pace(bus, "a")
    return first, second


# When -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_late_answer_is_hedged_and_the_first_answer_counts(streamed: bool) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a, b = await make_watched(bus, clock, a=60.0, b=0.0)

        reply = await finished(clock, ask(bus, streamed), step=0.01)

        assert reply.text == "from b"
        assert reply.latency_s == pytest.approx(HEDGED)
        assert outcomes(reply.attempts) == [("a", "cancelled", "first"), ("b", "ok", "hedge")]
        assert (a.asked, a.cancelled, b.asked) == (1, 1, 1)
        assert bus.magic.energy_level == pytest.approx(95.0, abs=0.1)
        await assert_nothing_is_left(bus)


@pytest.mark.parametrize(("seconds", "asked"), [(0.29, 0), (0.31, 1)], ids=["just not", "just"])
async def test_late_by_chance_it_is_hedged_at_twice_the_time_of_lateness(
    seconds: float, asked: int
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        _, b = await make_watched(bus, clock, a=seconds, b=60.0)

        reply = await finished(clock, bus.send("hello"), step=0.01)

        assert (reply.text, b.asked) == ("from a", asked)


@pytest.mark.parametrize(("seconds", "asked"), [(0.14, 0), (0.16, 1)], ids=["on time", "late"])
async def test_late_as_a_rule_it_is_hedged_at_once(seconds: float, asked: int) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        _, b = await make_watched(bus, clock, a=seconds, b=60.0)
        for _ in range(4):
            bus.magic.gate.lane("a").limiter.late(clock.now())

        reply = await finished(clock, bus.send("hello"), step=0.01)

        assert (reply.text, b.asked) == ("from a", asked)


async def test_a_late_answer_is_hedged_once() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await make_watched(bus, clock, a=2.0, b=60.0)
        (c,) = await register(bus, clock, c="from c")
        for _ in range(4):
            bus.magic.gate.lane("a").limiter.late(clock.now())

        reply = await finished(clock, bus.send("hello"))

        assert (reply.text, c.requests) == ("from a", [])


async def test_while_its_pace_is_unknown_nothing_is_late() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        _, b = await register(bus, clock, a=[20.0, "from a"], b="from b")

        reply = await finished(clock, bus.send("hello"))

        assert (reply.text, len(b.requests)) == ("from a", 0)


@pytest.mark.parametrize(
    "why", ["a setting", "on guard", "pinned", "no budget", "b is open", "b is full"]
)
async def test_a_late_answer_is_waited_for_where_it_cannot_be_hedged(why: str) -> None:
    clock = FakeClock()
    async with make_bus(clock, hedging=why != "a setting") as bus:
        _, b = await make_watched(bus, clock, a=1.0, b=0.0)
        magic = bus.magic
        match why:
            case "on guard":
                magic.harden(600.0)
            case "no budget":
                magic.charge(97.0)
            case "b is open":
                break_down(magic, magic.gate.provider("b"), "b")
            case "b is full":
                magic.gate.lane("b").limiter.in_flight = 500

        reply = await finished(clock, bus.send("hello", "a" if why == "pinned" else None))

        assert outcomes(reply.attempts) == [("a", "ok", "first")]
        assert b.asked == 0


async def test_a_hedge_is_paid_for_as_soon_as_there_is_five_and_not_before() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        _, b = await make_watched(bus, clock, a=60.0, b=0.0)
        bus.magic.charge(100.0)
        await clock.advance(5.0 - HEDGED)

        reply = await finished(clock, bus.send("hello"), step=0.01)

        assert (reply.text, b.asked) == ("from b", 1)
        assert bus.magic.energy_level < 0.1


async def test_a_hedge_of_which_the_journal_cannot_tell_is_not_sent_and_not_paid() -> None:
    clock = FakeClock()
    store = Locked(clock=clock)
    async with make_bus(clock, store=store) as bus:
        _, b = await make_watched(bus, clock, a=1.0, b=0.0)

        reply = await finished(clock, bus.send("hello"))

        assert outcomes(reply.attempts) == [("a", "ok", "first")]
        assert (b.asked, bus.magic.energy_level) == (0, 100.0)
        await assert_nothing_is_left(bus)


class Locked(InMemoryStore):
    """Takes no second attempt."""

    def attempt(self, message_id: str, number: int, provider: str, model: str, **kept: Any) -> Any:
        raise StoreLocked("another process holds it")


# What comes of it -------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_the_late_answer_counts_if_it_comes_first_after_all(streamed: bool) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        _, b = await make_watched(bus, clock, a=0.4, b=0.5)

        reply = await finished(clock, ask(bus, streamed), step=0.01)

        assert reply.text == "from a"
        assert not reply.healed
        assert outcomes(reply.attempts) == [("b", "cancelled", "hedge"), ("a", "ok", "first")]
        assert (b.asked, b.cancelled) == (1, 1)
        await assert_nothing_is_left(bus)


async def test_a_hedge_is_a_row_of_the_recovery_log_that_teaches_nothing() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        _, b = await make_watched(bus, clock, a=0.4, b=0.0)

        won = await finished(clock, bus.send("one"), step=0.01)
        b.seconds = 0.5
        lost = await finished(clock, bus.send("two"), step=0.01)

        rows = [
            (row.target, row.remedy, row.success, row.verified, row.outcome, row.request_id)
            for row in bus.magic.healing_history
        ]
        assert rows == [
            ("ai_provider:a", "hedge", True, True, "ok", won.id),
            ("ai_provider:a", "hedge", False, None, "cancelled", lost.id),
        ]
        assert {row.energy_used for row in bus.magic.healing_history} == {5.0}
        assert bus.magic.preferences() == []


async def test_a_hedge_beside_a_failover_is_told_of_the_one_that_was_late() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=ProviderOverloaded("full"), b=None, c="from c")
        learn_pace(bus, "b")

        reply = await finished(clock, bus.send("hello"), step=0.01)

        assert outcomes(reply.attempts) == [
            ("a", "overloaded", "first"),
            ("b", "cancelled", "failover"),
            ("c", "ok", "hedge"),
        ]
        assert bus.magic.healing_history[-1].target == "ai_provider:b"


async def test_a_first_call_that_ends_well_after_its_hedge_failed_is_no_remedy() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await make_hedged(bus, clock, a=[0.5, "from a"], b=ServerError("x"))

        reply = await finished(clock, bus.send("hello"), step=0.01)

        assert outcomes(reply.attempts) == [("b", "server_error", "hedge"), ("a", "ok", "first")]
        assert [row.remedy for row in bus.magic.healing_history] == ["hedge"]
        assert bus.magic.preferences() == []


async def test_a_remedy_is_told_of_the_failure_it_was_tried_against() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        scripts = {"a": ProviderOverloaded("full"), "b": [0.5, "from b"], "c": Malformed("x")}
        await register(bus, clock, **scripts)
        learn_pace(bus, "b")

        reply = await finished(clock, bus.send("hello"), step=0.01)

        assert outcomes(reply.attempts) == [
            ("a", "overloaded", "first"),
            ("c", "malformed", "hedge"),
            ("b", "ok", "failover"),
        ]
        last = bus.magic.healing_history[-1]
        assert (last.target, last.failure_class) == ("ai_provider:a", "overloaded")


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_when_both_fail_healing_goes_on(streamed: bool) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a = [0.5, ProviderOverloaded("full")]
        await make_hedged(bus, clock, a=a, b=[0.1, AuthFailed("wrong key")], c="from c")

        reply = await finished(clock, ask(bus, streamed), step=0.01)

        assert outcomes(reply.attempts) == [
            ("b", "auth", "hedge"),
            ("a", "overloaded", "first"),
            ("c", "ok", "failover"),
        ]
        await assert_nothing_is_left(bus)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_when_all_fail_what_failed_first_is_raised(streamed: bool) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a = [0.35, ProviderOverloaded("full")]
        await make_hedged(bus, clock, a=a, b=[0.1, AuthFailed("wrong key")])

        with pytest.raises(ProviderOverloaded, match="full") as caught:
            await finished(clock, ask(bus, streamed), step=0.01)

        assert [each.provider for each in caught.value.attempts][:2] == ["a", "b"]  # type: ignore[attr-defined]
        await assert_nothing_is_left(bus)


async def test_a_call_in_a_race_whose_own_work_was_cancelled_has_failed() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await make_hedged(bus, clock, a=asyncio.CancelledError(), b="from b")

        reply = await finished(clock, bus.send("hello"))

        assert reply.text == "from b" or reply.healed
        assert reply.attempts[0].outcome == "unknown"
        assert "its own work was cancelled" in reply.attempts[0].error


async def test_in_a_race_as_without_one_an_answer_that_is_none_is_healed() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await make_hedged(bus, clock, a=["", "from a"], b="from b")

        reply = await finished(clock, bus.send("hello"))

        assert outcomes(reply.attempts) == [("a", "empty", "first"), ("a", "ok", "retry")]


# Letting go -------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_cancelled_call_that_hangs_in_its_cleanup_does_not_hold_the_answer(
    streamed: bool,
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a, _ = await make_watched(bus, clock, a=60.0, b=0.0, lingers=1e6)

        reply = await finished(clock, ask(bus, streamed), step=0.01)

        assert len(bus._engine.abandoned) == 1  # the loop alone might let go of it
        assert (reply.text, a.cancelled) == ("from b", 1)
        assert reply.latency_s == pytest.approx(HEDGED)
        limits: Any = (await bus.magic.get_system_status())["limits"]
        assert limits["a"]["in_flight"] == 0


async def test_a_caller_who_leaves_is_held_by_a_hanging_cleanup_for_a_second_at_most() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a, b = await make_watched(bus, clock, a=60.0, b=60.0, lingers=1e6)
        task = asyncio.create_task(bus.send("hello"))
        await clock.advance(0.5)

        task.cancel()
        await clock.advance(0.99)
        waits = not task.done()
        await clock.advance(0.01)

        assert waits and task.cancelled()
        assert (a.cancelled, b.cancelled) == (1, 1)


class Spiteful(Watched):
    """Ends otherwise than by being cancelled."""

    end: Exception | None = None

    async def generate(self, request: Request) -> Reply:
        try:
            return await super().generate(request)
        except asyncio.CancelledError:
            if self.end is not None:
                raise self.end from None
            return Reply(text="too late", provider=self.name)


@pytest.mark.parametrize("end", [None, ServerError("x")], ids=["an answer", "an error"])
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_how_a_loser_ends_is_told_to_nobody(streamed: bool, end: Exception | None) -> None:
    clock = FakeClock()
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with make_bus(clock) as bus:
        a = Spiteful("a", clock, 60.0)
        a.end = end
        await bus.register_provider("a", a)
        await register(bus, clock, b="from b")
        learn_pace(bus, "a")

        reply = await finished(clock, ask(bus, streamed), step=0.01)
        await clock.advance(1.0)
        gc.collect()

        assert (reply.text, a.cancelled, told) == ("from b", 1, [])
        await assert_nothing_is_left(bus)


async def test_a_cancelled_loser_is_told_to_nobody() -> None:
    clock = FakeClock()
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with make_bus(clock) as bus:
        await make_watched(bus, clock, a=60.0, b=0.0)

        await finished(clock, read(bus), step=0.01)
        await clock.advance(1.0)

        assert told == []


class Interrupt(BaseException):
    """Not an error: something larger ends."""


@pytest.mark.parametrize("raced", [True, False])
async def test_what_is_no_error_is_nobodys_failure_and_passes(raced: bool) -> None:
    clock = FakeClock()
    async with make_bus(clock, hedging=raced) as bus:
        await make_hedged(bus, clock, a=Interrupt(), b="from b")

        with pytest.raises(Interrupt):
            await finished(clock, bus.send("hello"))

        assert bus.magic.circuit_breakers["ai_provider:a"].failure_count == 0
        await assert_nothing_is_left(bus)


async def test_a_loser_that_ends_well_in_the_same_turn_is_dropped_and_its_stream_closed() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a, b = await make_watched(bus, clock, a=60.0, b=60.0)
        a.until = b.until = asyncio.Event()
        task = asyncio.create_task(read(bus))
        await clock.advance(0.4)

        a.until.set()
        await clock.advance(0.0)

        assert (await task)[0] == "from a "
        assert (a.asked, b.asked) == (1, 1)
        assert (a.closed, b.closed) == (0, 1)
        await assert_nothing_is_left(bus)


async def test_nothing_of_a_losing_stream_is_emitted_and_it_is_closed() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        _, b = await make_watched(bus, clock, a=0.4, b=60.0)

        text, reply = await finished(clock, read(bus), step=0.01)

        assert (text, reply.text) == ("from a ", "from a")
        assert (b.asked, b.cancelled) == (1, 1)
        await assert_nothing_is_left(bus)


async def test_a_stream_that_has_spoken_is_not_hedged_however_slow_it_becomes() -> None:
    clock = FakeClock()

    class Slows(Watched):
        async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
            yield Delta("one ")
            await self._clock.sleep(9.0)
            yield Delta("two", reply=Reply(text="one two", provider="a"))

    async with make_bus(clock) as bus:
        await bus.register_provider("a", Slows("a", clock, 0.0))
        (b,) = await register(bus, clock, b="from b")
        learn_pace(bus, "a")

        text, reply = await finished(clock, read(bus))

        assert (text, len(b.requests)) == ("one two", 0)
        assert outcomes(reply.attempts) == [("a", "ok", "first")]


async def leave(clock: FakeClock, task: "asyncio.Task[Reply]", at: float, turns: int) -> None:
    await clock.sleep(at)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("second", [60.0, 0.0], ids=["both silent", "the second answers"])
@pytest.mark.parametrize("at", [0.0, HEDGED], ids=["at its start", "as it is hedged"])
async def test_a_caller_who_leaves_at_any_turn_ends_both_and_leaves_nothing(
    streamed: bool, second: float, at: float
) -> None:
    answered = False
    for turns in range(40):
        clock = FakeClock()
        async with make_bus(clock) as bus:
            await make_watched(bus, clock, a=60.0, b=second)
            task = asyncio.create_task(ask(bus, streamed))

            leaving = asyncio.create_task(leave(clock, task, at, turns))
            await clock.advance(at + 0.001)  # the wait is counted in floats
            while not (leaving.done() and task.done()):
                await clock.advance(0.0)

            answered = not task.cancelled()
            assert task.cancelled() or task.result().text == "from b"
            await clock.advance(0.0)
            await assert_nothing_is_left(bus)
    assert answered == (at == HEDGED and second == 0.0)  # then every turn was tried


async def test_both_calls_end_at_the_deadline() -> None:
    clock = FakeClock()
    async with make_bus(clock, deadline=2.0) as bus:
        a, b = await make_watched(bus, clock, a=60.0, b=60.0)

        with pytest.raises(ZejzlError):
            await finished(clock, bus.send("hello"))

        assert clock.now() == pytest.approx(2.0, abs=0.06)
        assert (a.cancelled, b.cancelled) == (1, 1)
        await assert_nothing_is_left(bus)
