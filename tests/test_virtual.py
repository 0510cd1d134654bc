"""The loop whose time jumps: only waiting is skipped, and nothing else."""

import asyncio
import threading
import time

import pytest

from zejzl.testing import FaultServer, faults, virtual


def now() -> float:
    return asyncio.get_running_loop().time()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


def test_a_day_of_sleep_takes_a_day_of_the_loops_time_and_none_of_ours() -> None:
    async def main() -> float:
        began = now()
        await asyncio.sleep(86_400.0)
        return now() - began

    began = time.monotonic()
    slept = virtual.run(main())

    assert slept == pytest.approx(86_400.0)
    assert time.monotonic() - began < 10.0


def test_timers_go_off_in_order_each_at_its_time() -> None:
    async def main() -> list[tuple[str, float]]:
        began, heard = now(), []

        async def wake(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            heard.append((name, round(now() - began, 6)))

        await asyncio.gather(wake("late", 7.5), wake("early", 0.25), wake("middle", 3.0))
        return heard

    assert virtual.run(main()) == [("early", 0.25), ("middle", 3.0), ("late", 7.5)]


def test_time_stands_still_while_code_runs() -> None:
    async def main() -> float:
        began = now()
        end = time.monotonic() + 0.01
        while time.monotonic() < end:
            await asyncio.sleep(0)
        return now() - began

    assert virtual.run(main()) == 0.0


def test_no_time_passes_over_bytes_that_are_under_way() -> None:
    async def main() -> float:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        tick = asyncio.create_task(asyncio.sleep(0.001))  # what time would jump to
        began = now()
        for _ in range(200):
            writer.write(b"x")
            await reader.readexactly(1)
        passed = now() - began
        writer.close()
        server.close()
        await tick
        return passed

    assert virtual.run(main()) == 0.0


def test_while_a_thread_works_time_passes_as_it_really_does() -> None:
    async def main() -> float:
        began = now()
        alarm = asyncio.create_task(asyncio.sleep(60.0))
        await asyncio.to_thread(time.sleep, 0.05)
        passed = now() - began
        alarm.cancel()
        return passed

    assert 0.02 <= virtual.run(main()) < 5.0


def test_time_jumps_again_after_a_thread_that_failed() -> None:
    def fail() -> None:
        raise OSError("it broke")

    async def main() -> float:
        with pytest.raises(OSError, match="it broke"):
            await asyncio.to_thread(fail)
        began = now()
        await asyncio.sleep(3_600.0)
        return now() - began

    assert virtual.run(main()) == pytest.approx(3_600.0)


def test_the_clock_measures_what_its_own_timeouts_last() -> None:
    async def main() -> float:
        clock = virtual.VirtualClock()
        began = clock.now()
        with pytest.raises(TimeoutError):
            async with clock.timeout(30.0):
                await clock.sleep(31.0)
        return float(clock.now() - began)

    assert virtual.run(main()) == pytest.approx(30.0)


def test_a_fault_server_lives_in_the_loops_time() -> None:
    async def main() -> tuple[float, float | None]:
        async with FaultServer() as server:
            server.play("alpha", faults.ok(delay=5.0))
            await asyncio.sleep(100.0)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(
                b"POST /alpha/v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
                b"authorization: Bearer k\r\ncontent-length: 63\r\nconnection: close\r\n\r\n"
                b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
            )
            await reader.read()
            writer.close()
            call = server.log[0]
            return call.at, call.seconds

    at, seconds = virtual.run(main())

    assert at == pytest.approx(100.0, abs=0.01)
    assert seconds == pytest.approx(5.0, abs=0.01)


def test_the_wall_clock_begins_where_it_is_told_and_an_hour_passes_on_it() -> None:
    async def main() -> tuple[float, float]:
        clock = virtual.VirtualClock()
        began = clock.wall()
        await clock.sleep(3_600.0)
        return began, clock.wall() - began

    began, passed = virtual.run(main(), wall=1_700_000_000.0)

    assert began == 1_700_000_000.0
    assert passed == pytest.approx(3_600.0)


def test_the_wall_clock_begins_at_the_machines_where_nothing_is_told() -> None:
    async def main() -> float:
        return virtual.VirtualClock().wall()

    assert virtual.run(main()) == pytest.approx(time.time(), abs=60.0)


def test_a_virtual_clock_on_another_loop_has_no_wall() -> None:
    async def main() -> float:
        return virtual.VirtualClock().wall()

    with pytest.raises(RuntimeError, match=r"zejzl\.testing\.virtual\.run"):
        asyncio.run(main())


# Sealed ------------------------------------------------------------------------------------------


def test_a_sealed_loop_begins_at_nothing_and_tells_the_same_times_to_the_last_bit() -> None:
    async def main() -> list[float]:
        times = [now()]
        for _ in range(100):
            await asyncio.sleep(0.1)
            times.append(now())
        return times

    found = virtual.run(main(), sealed=True)

    assert found[0] == 0.0
    assert virtual.run(main(), sealed=True) == found


def test_in_a_sealed_loop_a_threads_work_takes_no_time() -> None:
    async def main() -> tuple[float, int]:
        here = threading.get_ident()
        there = await asyncio.to_thread(threading.get_ident)
        await asyncio.to_thread(time.sleep, 0.01)
        return now(), there - here

    assert virtual.run(main(), sealed=True) == (0.0, 0)


def test_in_a_sealed_loop_a_threads_failure_is_raised() -> None:
    def fail() -> None:
        raise OSError("it broke")

    async def main() -> None:
        await asyncio.to_thread(fail)

    with pytest.raises(OSError, match="it broke"):
        virtual.run(main(), sealed=True)


def test_a_sealed_loop_in_which_nobody_will_ever_wake_says_so() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="every task waits"):
        virtual.run(main(), sealed=True)
