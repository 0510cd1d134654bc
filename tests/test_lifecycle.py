"""Starting, being in use, stopping."""

import asyncio

import pytest

from zejzl.engine.lifecycle import Lifecycle
from zejzl.errors import BusNotRunning
from zejzl.testing import FakeClock


async def test_draining_waits_for_the_last_request() -> None:
    clock = FakeClock()
    lifecycle = Lifecycle(clock)
    lifecycle.running = True

    with lifecycle:
        draining = asyncio.create_task(lifecycle.drain(5.0))
        await clock.advance(1.0)
        waited = not draining.done()

    assert waited
    assert await draining is True


async def test_draining_gives_up_after_its_time() -> None:
    clock = FakeClock()
    lifecycle = Lifecycle(clock)
    lifecycle.running = True

    with lifecycle:
        draining = asyncio.create_task(lifecycle.drain(5.0))
        await clock.advance(5.0)

        assert await draining is False
        assert lifecycle.requests == 1


async def test_nothing_is_taken_while_it_does_not_run() -> None:
    lifecycle = Lifecycle(FakeClock())

    with pytest.raises(BusNotRunning), lifecycle:
        raise AssertionError("it was taken")

    assert lifecycle.requests == 0
