"""What a running bus does on the side."""

import json

from tests.driving import make_bus, register
from zejzl.errors import StoreError
from zejzl.stores import InMemoryStore
from zejzl.testing import FakeClock


async def test_the_state_is_written_after_a_change_at_most_once_a_second() -> None:
    written: list[str] = []

    class Watched(InMemoryStore):
        def keep_snapshot(self, owner: str, body: str):  # type: ignore[no-untyped-def]
            written.append(body)
            return super().keep_snapshot(owner, body)

    clock = FakeClock()
    bus = make_bus(clock, store=Watched(clock=clock))
    async with bus:
        await register(bus, clock, a="ok")
        await clock.advance(0.01)
        begun = len(written)

        for _ in range(50):
            await bus.send("hello")
            await clock.advance(0.1)
        busy = len(written) - begun
        await clock.advance(60.0)
        idle = len(written) - begun - busy

    assert begun == 1
    assert 4 <= busy <= 6
    assert idle <= 1
    assert json.loads(written[-1])["state"] == "stopped"
    assert json.loads(written[-1])["requests"] == 50


async def test_what_is_older_than_its_retention_is_deleted() -> None:
    clock = FakeClock()
    async with make_bus(clock, retention_days=1.0) as bus:
        await bus.send("old", conversation_id="c")
        await clock.advance(3_600.0 * 23)
        await bus.send("young", conversation_id="c")
        assert len(await bus.history("c")) == 2

        await clock.advance(3_600.0 * 3)

        assert [message.content for message in await bus.history("c")] == ["young"]


async def test_a_store_that_refuses_upkeep_stops_nothing() -> None:
    class Refusing(InMemoryStore):
        def keep_snapshot(self, owner: str, body: str):  # type: ignore[no-untyped-def]
            raise StoreError("no")

        def prune(self, *, before: object):  # type: ignore[no-untyped-def]
            raise StoreError("no")

    clock = FakeClock()
    async with make_bus(clock, store=Refusing(clock=clock)) as bus:
        await clock.advance(10_000.0)

        assert "offline" in await bus.send_message("hello")
