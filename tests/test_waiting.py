"""Those who wait: for a provider that will be well, or for a place with one that is full."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import finished, make_bus, register
from zejzl.engine.waiting import InLine, Recovered
from zejzl.errors import Overloaded, RateLimited, Rejected, ServerError, Shielded, ZejzlError
from zejzl.magic import FairyMagic
from zejzl.magic.lanes import Asked, Lane, Permit
from zejzl.messages import Reply, Request
from zejzl.policies.admission import LINE, Criticality, loyalty
from zejzl.testing import FakeClock

NORMAL, CRITICAL = Criticality.NORMAL, Criticality.CRITICAL


class Counter:
    """Takes some seconds for each answer, and counts who is there.

    Attributes:
        seconds: How long it takes.
        answered: What it was asked, in the order in which it answered.
        most: How many were there at the same time, at most.
    """

    default_model = "counter-1"

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        self.name = "counter"
        self.answered: list[str] = []
        self.most = 0
        self._clock = clock
        self.seconds = seconds
        self._present = 0

    async def generate(self, request: Request) -> Reply:
        self._present += 1
        self.most = max(self.most, self._present)
        try:
            await self._clock.sleep(self.seconds)
        finally:
            self._present -= 1
        self.answered.append(request.content)
        return Reply(text=f"to {request.content}", provider=self.name)

    async def cleanup(self) -> None:
        pass


async def make_counter(bus: AsyncMessageBus, clock: FakeClock, seconds: float) -> Counter:
    """Register one that takes so long, and is known to."""
    counter = Counter(clock, seconds)
    await bus.register_provider("a", counter)
    gate = bus.magic.gate
    for _ in range(20):
        permit = gate.acquire(gate.provider("a"), gate.lane("a"), Asked())
        assert isinstance(permit, Permit)
        gate.succeeded(permit, seconds, first=True)
    return counter


def one_at_a_time(bus: AsyncMessageBus) -> Lane:
    lane = bus.magic.gate.lane("a")
    lane.limiter.limit = 1.0
    return lane


async def begun(clock: FakeClock, *work: Coroutine[Any, Any, Reply]) -> list[asyncio.Task[Reply]]:
    """Return requests that are under way, each after the one before."""
    tasks = []
    for each in work:
        tasks.append(asyncio.create_task(each))
        await clock.advance(0.0)
    return tasks


class Stranger:
    """Somebody else in line, who does nothing."""

    def grant(self, lane: Lane) -> bool:
        return True

    def look_again(self) -> None:
        pass


# For somebody to be well --------------------------------------------------------------------------


async def test_whoever_waits_is_woken_by_an_announcement_or_by_the_time() -> None:
    clock, recovered = FakeClock(), Recovered()
    recovered.announce()  # before: for nobody
    long, short = [asyncio.create_task(recovered.wait(clock, each)) for each in (9.0, 1.0)]

    await clock.advance(1.0)
    timed_out = long.done(), short.done()
    recovered.announce()
    await clock.advance(0.0)

    assert timed_out == (False, True)
    assert long.done()


async def test_an_announcement_wakes_all_who_wait_at_that_moment() -> None:
    clock, recovered = FakeClock(), Recovered()
    waiting = [asyncio.create_task(recovered.wait(clock, 60.0)) for _ in range(100)]
    await clock.advance(1.0)

    recovered.announce()
    later = asyncio.create_task(recovered.wait(clock, 60.0))
    await clock.advance(0.0)

    assert all(task.done() for task in waiting) and not later.done()
    later.cancel()


# In line ------------------------------------------------------------------------------------------


async def in_line(
    magic: FairyMagic, clock: FakeClock, *lanes: Lane, seconds: float | None = None
) -> asyncio.Task[Lane | None]:
    """Return somebody who waits."""
    task = asyncio.create_task(InLine(magic.gate, NORMAL).wait(lanes, clock, seconds))
    await asyncio.sleep(0)
    return task


def make_full(*names: str) -> tuple[FakeClock, FairyMagic, list[Lane]]:
    """Return lanes with one place each, which is taken."""
    clock = FakeClock()
    magic = FairyMagic(clock=clock)
    lanes = [magic.gate.lane(name) for name in names]
    for lane in lanes:
        lane.limiter.limit = 1.0
        lane.limiter.in_flight = 1
    return clock, magic, lanes


async def test_a_place_that_comes_free_is_handed_over() -> None:
    clock, magic, (a, b) = make_full("a", "b")
    task = await in_line(magic, clock, a, b)

    magic.gate.release(b)

    assert await task is b
    assert (a.limiter.in_flight, b.limiter.in_flight) == (1, 1)
    assert (a.limiter.waiting, b.limiter.waiting) == (0, 0)


async def test_who_is_told_to_look_again_gets_no_place() -> None:
    clock, magic, (a,) = make_full("a")
    task = await in_line(magic, clock, a)

    magic.gate.look_again()

    assert await task is None
    assert a.limiter.waiting == 0


async def test_whose_time_is_up_gets_no_place_and_leaves_the_line() -> None:
    clock, magic, (a,) = make_full("a")
    task = await in_line(magic, clock, a, seconds=2.0)

    await clock.advance(2.0)
    magic.gate.release(a)

    assert await task is None
    assert (a.limiter.waiting, a.limiter.in_flight) == (0, 0)


async def test_of_two_places_in_the_same_turn_one_comes_back_to_the_next_in_line() -> None:
    clock, magic, (a, b) = make_full("a", "b")
    first, second = await in_line(magic, clock, a, b), await in_line(magic, clock, b)

    magic.gate.release(a)
    magic.gate.release(b)

    assert (await first, await second) == (a, b)
    assert (a.limiter.in_flight, b.limiter.in_flight) == (1, 1)


async def test_hundreds_may_be_handed_places_by_two_providers_in_the_same_turn() -> None:
    clock, magic, lanes = make_full("a", "b")
    tasks = [await in_line(magic, clock, *lanes) for _ in range(400)]
    for lane in lanes:
        lane.limiter.limit = 500.0

    for lane in lanes:
        magic.gate.release(lane)

    assert [await task for task in tasks] == [lanes[0]] * 400
    assert [lane.limiter.in_flight for lane in lanes] == [400, 0]


async def test_a_place_granted_in_the_turn_of_the_cancellation_comes_back() -> None:
    clock, magic, (a,) = make_full("a")
    leaving, staying = await in_line(magic, clock, a), await in_line(magic, clock, a)

    magic.gate.release(a)
    leaving.cancel()

    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await staying is a
    assert (a.limiter.in_flight, a.limiter.waiting) == (1, 0)


async def test_who_leaves_before_a_place_is_granted_is_passed_by() -> None:
    clock, magic, (a,) = make_full("a")
    leaving, staying = await in_line(magic, clock, a), await in_line(magic, clock, a)

    leaving.cancel()
    magic.gate.release(a)

    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await staying is a
    assert (a.limiter.in_flight, a.limiter.waiting) == (1, 0)


async def test_a_place_granted_in_the_turn_in_which_time_is_up_is_taken() -> None:
    clock, magic, (a,) = make_full("a")
    task = asyncio.create_task(InLine(magic.gate, NORMAL).wait([a], clock, 0.0))

    asyncio.get_running_loop().call_soon(magic.gate.release, a)

    assert await task is a
    assert (a.limiter.in_flight, a.limiter.waiting) == (1, 0)


async def test_who_does_not_wait_any_more_is_handed_nothing() -> None:
    clock, magic, (a,) = make_full("a")
    one = InLine(magic.gate, NORMAL)
    task = asyncio.create_task(one.wait([a], clock, 1.0))
    await clock.advance(1.0)

    one.look_again()

    assert (await task, one.grant(a)) == (None, False)


async def test_who_waits_again_keeps_the_old_place_in_line() -> None:
    clock, magic, (a,) = make_full("a")
    first, second = InLine(magic.gate, NORMAL), InLine(magic.gate, NORMAL)
    tasks = {}

    for name, one in (("second", second), ("first", first)):
        tasks[name] = asyncio.create_task(one.wait([a], clock, None))
        await asyncio.sleep(0)
    magic.gate.release(a)
    await asyncio.sleep(0)

    assert (tasks["first"].done(), tasks["second"].done()) == (True, False)
    magic.gate.release(a)
    assert await tasks["second"] is a


# Through the bus ----------------------------------------------------------------------------------


async def test_a_thousand_callers_are_served_in_turn_and_none_is_refused() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        counter = await make_counter(bus, clock, 0.1)
        names = [str(n) for n in range(1_000)]

        async def everybody() -> list[Reply]:
            return await asyncio.gather(*(bus.send(name) for name in names))

        replies = await finished(clock, everybody())

        assert [reply.text for reply in replies] == [f"to {name}" for name in names]
        assert counter.answered == names
        assert 160 <= counter.most <= 250  # 0.8 of the limit of 200, which grows as they come back
        assert clock.now() < 1.0
        assert bus.magic.gate.lane("a").limiter.in_flight == 0


async def test_sheddable_work_does_not_wait() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await make_counter(bus, clock, 1.0)
        one_at_a_time(bus)
        (waiting,) = await begun(clock, bus.send("usual"))

        with pytest.raises(Overloaded, match="sheddable work does not wait") as caught:
            await bus.send("sheddable", criticality="sheddable")

        assert 0.0 < caught.value.retry_after < 60.0
        assert caught.value.name == "a"
        assert (await finished(clock, _result(waiting))).text == "to usual"


async def _result(task: "asyncio.Task[Reply]") -> Reply:
    return await task


async def test_who_would_wait_longer_than_the_deadline_is_refused_at_once() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await make_counter(bus, clock, 1.0)
        one_at_a_time(bus)
        tasks = await begun(clock, *(bus.send(str(n)) for n in range(6)))

        with pytest.raises(Overloaded, match=r"may take 14\.0 s, and 5\.0 s are left") as caught:
            await bus.send("too late", deadline=5.0)
        in_time = await begun(clock, bus.send("in time", deadline=30.0))

        refused = caught.value
        assert (refused.name, refused.retry_after, refused.attempts) == ("a", 4.5, ())
        assert "try again in 4.5 s" in str(refused)
        assert clock.now() == 0.0
        assert (await finished(clock, _result(in_time[0]))).text == "to in time"
        assert all(task.done() for task in tasks)


async def test_who_waits_in_vain_until_the_deadline_is_told_that_it_was_full() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a="from a")
        one_at_a_time(bus).limiter.in_flight = 1  # and nobody leaves

        with pytest.raises(Overloaded, match="no place came free before the deadline") as caught:
            await finished(clock, bus.send("hello", deadline=3.0))

        assert clock.now() == pytest.approx(3.0, abs=0.06)
        assert 0.0 < caught.value.retry_after < 60.0


async def test_a_place_that_comes_too_late_for_an_answer_is_not_used() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        counter = await make_counter(bus, clock, 1.0)
        lane = one_at_a_time(bus)
        counter.seconds = 5.5
        first, late = await begun(clock, bus.send("first"), bus.send("late", deadline=6.0))

        with pytest.raises(Overloaded):
            await finished(clock, _result(late))

        assert clock.now() == pytest.approx(5.5, abs=0.06)
        assert (await finished(clock, _result(first))).text == "to first"
        assert (counter.answered, lane.limiter.in_flight) == (["first"], 0)


async def test_the_line_is_bounded() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        counter = await make_counter(bus, clock, 0.001)
        lane = one_at_a_time(bus)
        lane.limiter.in_flight = 1
        for n in range(LINE - 1):
            lane.limiter.join(Stranger(), CRITICAL, n)

        (last,) = await begun(clock, bus.send("the last"))
        with pytest.raises(Overloaded, match="2000 calls wait for a place already"):
            await bus.send("one too many")

        assert (LINE, last.done(), counter.answered) == (2_000, False, [])
        last.cancel()


async def test_a_full_line_of_others_turns_away_nobody_who_goes_first() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        counter = await make_counter(bus, clock, 0.001)
        lane = one_at_a_time(bus)
        lane.limiter.in_flight = 1
        for n in range(LINE):
            lane.limiter.join(Stranger(), NORMAL, n)

        (urgent,) = await begun(clock, bus.send("fire", criticality="critical"))
        bus.magic.gate.release(lane)
        await clock.advance(0.1)

        assert (urgent.done(), counter.answered) == (True, ["fire"])


async def test_whoever_waits_for_one_that_leaves_calls_it_no_more() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a, _ = await register(bus, clock, a=[1.0, "from a"], b="from b")
        one_at_a_time(bus)
        first, second = await begun(
            clock, bus.send("first", "a", failover=True), bus.send("second", "a", patience=30.0)
        )

        leaving = asyncio.create_task(bus.unregister_provider("a"))
        await clock.advance(5.0)

        assert leaving.done() and a.cleaned_up
        assert first.result().text == "from a"
        assert isinstance(second.exception(), Rejected)
        assert "a was unregistered" in str(second.exception())
        assert len(a.requests) == 1


async def test_who_does_not_wait_is_told_a_time_that_makes_sense() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await make_counter(bus, clock, 4.0)
        one_at_a_time(bus).limiter.in_flight = 1

        with pytest.raises(Overloaded) as caught:
            await bus.send("whenever", criticality="sheddable")

        assert (caught.value.name, caught.value.retry_after) == ("a", 4.0)


async def test_a_conversation_is_kept_whole_or_shed_whole() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await make_counter(bus, clock, 0.001)
        lane = one_at_a_time(bus)
        lane.limiter.in_flight = 1
        for n in range(round(0.75 * LINE)):
            lane.limiter.join(Stranger(), CRITICAL, n)
        names = [f"conversation {n}" for n in range(20)]
        shed: dict[str, list[bool]] = {name: [] for name in names}

        for name in names * 3:
            (task,) = await begun(clock, bus.send("hello", conversation_id=name))
            shed[name].append(task.done())
            task.cancel()
            with suppress(asyncio.CancelledError, Overloaded):
                await task

        assert shed == {name: [loyalty(name) <= 0.75] * 3 for name in names}
        assert {True, False} == {each[0] for each in shed.values()}


@pytest.mark.parametrize("how", ["by name", "inside a block"])
async def test_critical_work_overtakes_usual_work_in_line(how: str) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        counter = await make_counter(bus, clock, 0.1)
        one_at_a_time(bus)

        async def critical() -> Reply:
            if how == "by name":
                return await bus.send("critical", criticality="critical")
            async with bus.magic.critical("a test"):
                return await bus.send("critical")

        tasks = await begun(clock, bus.send("first"), bus.send("usual"), critical())
        for task in tasks:
            await finished(clock, _result(task))

        assert counter.answered == ["first", "critical", "usual"]


async def test_who_is_in_line_when_only_critical_work_passes_is_shielded_from_waiting_on() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await make_counter(bus, clock, 1.0)
        one_at_a_time(bus)
        first, usual, critical = await begun(
            clock, bus.send("first"), bus.send("usual"), bus.send("c", criticality="critical")
        )

        await bus.magic.fairy_shield()
        await clock.advance(0.0)

        with pytest.raises(Shielded, match="only critical work passes: raised by hand") as caught:
            await usual
        assert (caught.value.name, caught.value.retry_after) == ("a", 1.0)
        assert (await finished(clock, _result(first))).text == "to first"
        assert (await finished(clock, _result(critical))).text == "to c"


async def test_who_finds_it_raised_is_refused_before_anything_is_sent() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        counter = await make_counter(bus, clock, 1.0)
        await bus.magic.fairy_shield()

        with pytest.raises(Shielded):
            await bus.send("hello", patience=30.0)

        assert (counter.most, clock.now(), await bus.store.messages()) == (0, 0.0, [])


async def test_who_waits_for_two_takes_the_first_place_there_is() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a="from a", b="from b")
        lanes = [bus.magic.gate.lane(name) for name in "ab"]
        for lane in lanes:
            lane.limiter.limit = 1.0
            lane.limiter.in_flight = 1
        (task,) = await begun(clock, bus.send("hello"))

        lanes[1].limiter.in_flight -= 1
        bus.magic.gate._serve(lanes[1])
        reply = await finished(clock, _result(task))

        assert (reply.text, reply.healed) == ("from b", False)
        assert [lane.limiter.in_flight for lane in lanes] == [1, 0]
        assert [lane.limiter.waiting for lane in lanes] == [0, 0]


async def test_a_place_with_a_provider_that_has_broken_down_meanwhile_goes_back() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=[*[ServerError("x")] * 2, 1.0, ServerError("x")])
        lane = one_at_a_time(bus)
        with suppress(ZejzlError):
            await finished(clock, bus.send("hello", patience=0.0))
        options = {"patience": 0.0, "deadline": 20.0}
        tasks = await begun(clock, *(bus.send(str(n), **options) for n in range(4)))  # type: ignore[arg-type]

        await clock.advance(30.0)
        ends = await asyncio.gather(*tasks, return_exceptions=True)

        assert all(isinstance(end, ZejzlError) for end in ends)
        assert bus.magic.circuit_breakers["ai_provider:a"].state == "open"
        assert (lane.limiter.in_flight, lane.limiter.waiting) == (0, 0)
        assert len(a.requests) <= 4


async def test_a_caller_who_leaves_the_line_at_any_turn_leaves_nothing() -> None:
    for turns in range(20):
        clock = FakeClock()
        async with make_bus(clock) as bus:
            counter = await make_counter(bus, clock, 1.0)
            lane = one_at_a_time(bus)
            first, leaving, last = await begun(clock, *(bus.send(str(n)) for n in range(3)))

            async def leave(task: "asyncio.Task[Reply]", clock: FakeClock, turns: int) -> None:
                await clock.sleep(1.0)  # until a place comes free
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()

            going = asyncio.create_task(leave(leaving, clock, turns))
            await clock.advance(1.0)
            while not going.done():
                await clock.advance(0.0)
            with suppress(asyncio.CancelledError):
                await leaving
            await finished(clock, _result(last))

            assert (first.done(), leaving.cancelled()) == (True, True)
            assert counter.answered == ["0", "2"]
            assert (lane.limiter.in_flight, lane.limiter.waiting) == (0, 0)


@pytest.mark.parametrize("seed", range(10))
async def test_a_retry_after_of_one_second_is_waited_out_where_there_is_nobody_else(
    seed: int,
) -> None:
    clock = FakeClock()
    magic = FairyMagic(clock=clock, rng=Random(seed))
    async with make_bus(clock, magic=magic) as bus:
        await register(bus, clock, a=[RateLimited("slow down", status=429, retry_after=1.0), "ok"])

        assert (await finished(clock, bus.send("hello"))).text == "ok"
