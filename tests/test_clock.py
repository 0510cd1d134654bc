"""The system's clock: durations, timers and timeouts agree with the event loop's."""

import asyncio
import time
from contextlib import suppress

import pytest

from zejzl.clock import AGAIN, Clock, SystemClock
from zejzl.testing import FakeClock


async def test_durations_are_measured_by_the_clock_that_the_loops_timers_go_by() -> None:
    loop, clock = asyncio.get_running_loop(), SystemClock()

    before, now, after = loop.time(), clock.now(), loop.time()

    assert before <= now <= after


def test_durations_can_be_measured_without_a_loop() -> None:
    before, now, after = time.monotonic(), SystemClock().now(), time.monotonic()

    assert before <= now <= after


def test_wall_time_is_seconds_since_1970() -> None:
    before, wall, after = time.time(), SystemClock().wall(), time.time()

    assert before <= wall <= after


@pytest.mark.parametrize("seconds", [0.0, -5.0], ids=["none", "less than none"])
async def test_a_sleep_without_length_lets_others_run_and_returns(seconds: float) -> None:
    ran: list[str] = []

    async def other() -> None:
        ran.append("other")

    task = asyncio.create_task(other())
    await SystemClock().sleep(seconds)

    assert ran == ["other"]
    await task


async def test_a_block_that_runs_out_of_time_raises_timeout_error() -> None:
    clock: Clock = SystemClock()

    with pytest.raises(TimeoutError):
        async with clock.timeout(0.0):
            await asyncio.get_running_loop().create_future()


async def test_no_limit_is_no_limit() -> None:
    async with SystemClock().timeout(None):
        await asyncio.sleep(0)


async def stubborn(clock: Clock, seconds: float, cancellations: int, seen: list[float]) -> str:
    """Go on after so many cancellations; note when each came."""
    async with clock.timeout(seconds):
        for _ in range(cancellations):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                seen.append(clock.now())
        await asyncio.get_running_loop().create_future()
    return "ended"


@pytest.mark.parametrize("seconds", [2.0, 0.0, -5.0])
async def test_a_block_that_holds_one_cancellation_up_is_cancelled_once_more(
    seconds: float,
) -> None:
    clock, seen = FakeClock(), list[float]()
    task = asyncio.create_task(stubborn(clock, seconds, 1, seen))

    await clock.advance(max(0.0, seconds) + AGAIN - 0.1)
    done_before = task.done()
    await clock.advance(0.2)

    assert (done_before, seen) == (False, [max(0.0, seconds)])
    assert isinstance(task.exception(), TimeoutError)
    assert task.cancelling() == 0


async def test_the_systems_clock_cancels_once_more_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zejzl.clock.AGAIN", 0.01)
    clock, seen = SystemClock(), list[float]()
    task = asyncio.create_task(stubborn(clock, 0.01, 1, seen))

    await asyncio.wait([task])

    assert isinstance(task.exception(), TimeoutError)
    assert (len(seen), task.cancelling()) == (1, 0)


@pytest.mark.parametrize("clock", [SystemClock(), FakeClock()], ids=["system", "fake"])
async def test_who_is_cancelled_by_somebody_else_is_cancelled_and_not_late(clock: Clock) -> None:
    async def work() -> None:
        async with clock.timeout(30.0):
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()


async def test_who_is_cancelled_by_somebody_else_in_the_moment_of_the_limit_is_cancelled() -> None:
    async def work() -> None:
        async with SystemClock().timeout(0.0):
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.0, task.cancel)
    await asyncio.wait([task])

    assert task.cancelled()


async def test_a_block_that_ends_well_after_its_cancellation_ended_well() -> None:
    async def work() -> str:
        async with SystemClock().timeout(0.0):
            with suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()
        await asyncio.sleep(0)
        return "ended"

    assert await asyncio.create_task(work()) == "ended"


async def test_a_limit_inside_of_a_limit_is_told_apart() -> None:
    clock, told = SystemClock(), []
    with pytest.raises(TimeoutError):
        async with clock.timeout(0.02):
            try:
                async with clock.timeout(0.0):
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                told.append("inner")
            await asyncio.get_running_loop().create_future()

    task = asyncio.current_task()
    assert told == ["inner"] and task is not None and task.cancelling() == 0
