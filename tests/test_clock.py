"""The system's clock: durations, timers and timeouts agree with the event loop's."""

import asyncio
import time

import pytest

from zejzl.clock import Clock, SystemClock


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
