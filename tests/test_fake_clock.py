import asyncio

import pytest

from zejzl.clock import Clock
from zejzl.testing import FakeClock


def test_is_a_clock_that_starts_at_zero() -> None:
    clock: Clock = FakeClock(wall=1000.0)

    assert (clock.now(), clock.wall()) == (0.0, 1000.0)


async def test_moves_only_when_told_to() -> None:
    clock = FakeClock(wall=1000.0)

    await clock.advance(2.5)

    assert (clock.now(), clock.wall()) == (2.5, 1002.5)


async def test_the_wall_clock_jumps_either_way_and_now_does_not_notice() -> None:
    clock = FakeClock(wall=1000.0)
    await clock.advance(5.0)

    clock.set_wall(10.0)
    await clock.advance(1.0)

    assert (clock.now(), clock.wall()) == (6.0, 11.0)


async def test_sleepers_wake_in_the_order_of_their_time_each_at_its_own() -> None:
    clock = FakeClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.now()))

    tasks = [asyncio.create_task(sleeper(*who)) for who in (("c", 3.0), ("a", 1.0), ("b", 1.0))]
    await clock.advance(2.0)
    before = list(woken)
    await clock.advance(1.0)
    await asyncio.gather(*tasks)

    assert before == [("a", 1.0), ("b", 1.0)]
    assert woken == [*before, ("c", 3.0)]


async def test_a_sleeper_that_sleeps_again_is_woken_within_one_advance() -> None:
    clock = FakeClock()
    ticks: list[float] = []

    async def ticker() -> None:
        while True:
            await clock.sleep(1.0)
            ticks.append(clock.now())

    task = asyncio.create_task(ticker())
    await clock.advance(3.5)
    task.cancel()

    assert ticks == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_no_sleep_at_all_needs_no_advance(seconds: float) -> None:
    await FakeClock().sleep(seconds)


async def test_a_cancelled_sleeper_leaves_nothing_to_wake() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(1.0))
    await asyncio.sleep(0)
    task.cancel()

    await clock.advance(1.0)

    assert task.cancelled()


async def test_a_late_block_times_out_and_a_finished_one_does_not() -> None:
    clock = FakeClock()

    async def late() -> None:
        async with clock.timeout(1.0):
            await clock.sleep(60.0)

    async with clock.timeout(1.0):
        pass
    task = asyncio.create_task(late())
    await clock.advance(1.0)

    with pytest.raises(TimeoutError):
        await task


async def test_a_timeout_of_none_is_no_limit() -> None:
    clock = FakeClock()

    async def patient() -> str:
        async with clock.timeout(None):
            await clock.sleep(1e6)
        return "done"

    task = asyncio.create_task(patient())
    await clock.advance(1e6)

    assert await task == "done"


async def test_a_timeout_of_nothing_is_over_at_the_first_await() -> None:
    with pytest.raises(TimeoutError):
        async with FakeClock().timeout(0.0):
            await asyncio.sleep(0)
            await asyncio.sleep(0)


async def test_the_inner_of_two_timeouts_may_fire_alone() -> None:
    clock = FakeClock()

    async def nested() -> str:
        async with clock.timeout(10.0):
            try:
                async with clock.timeout(1.0):
                    await clock.sleep(60.0)
            except TimeoutError:
                await clock.sleep(2.0)
        return "recovered"

    task = asyncio.create_task(nested())
    await clock.advance(20.0)

    assert await task == "recovered"


async def test_now_never_goes_back() -> None:
    with pytest.raises(ValueError, match="negative"):
        await FakeClock().advance(-1.0)
