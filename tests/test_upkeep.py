"""What a running bus does on the side."""

import json
from collections.abc import Awaitable

import pytest

from tests.driving import finished, make_bus, register
from zejzl.engine.commands import ask
from zejzl.errors import StoreError
from zejzl.stores import InMemoryStore
from zejzl.testing import FakeClock, ScriptedProvider


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


class Kept(InMemoryStore):
    """Remembers every state that was written; reachable by others."""

    shared = True

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.states: list[str] = []

    def keep_snapshot(self, owner: str, body: str) -> Awaitable[None]:
        self.states.append(body)
        return super().keep_snapshot(owner, body)


async def test_a_command_is_answered_when_the_state_after_it_is_written() -> None:
    clock = FakeClock()
    store = Kept(clock)
    async with make_bus(clock, store=store):
        await clock.advance(0.1)
        ((owner, *_),) = await store.snapshots()

        for raised in (True, False, True, False):  # faster than a state a second
            answer = await finished(clock, ask(store, clock, owner, "shield", {"raised": raised}))

            assert answer[0] == "done"
            assert json.loads(store.states[-1])["magic"]["is_shielded"] is raised


async def test_a_state_that_cannot_be_written_is_told_once_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    store = Kept(clock)
    bus = make_bus(clock, store=store)
    await bus.start()
    provider = ScriptedProvider(["ok"], clock=clock)
    await bus.register_provider("a", provider)
    await clock.advance(2.0)
    before = len(store.states)

    provider.default_model = object()  # type: ignore[assignment]
    bus.magic.prefer("wait", "retry", author="ann")
    for _ in range(5):
        await bus.magic.recharge_magic()
        await clock.advance(2.0)
    during = len(store.states)
    provider.default_model = "m"
    await bus.magic.recharge_magic()
    await clock.advance(2.0)
    after = len(store.states)
    provider.default_model = object()  # type: ignore[assignment]
    await bus.stop()

    assert (before, during, after) == (before, before, before + 1)
    assert caplog.text.count("the state could not be written to the store: TypeError") == 2
    await store.open()
    assert '"ann"' in str(await store.setting("recovery_preferences"))


async def test_what_json_has_no_word_for_is_null_in_the_state() -> None:
    clock = FakeClock()
    store = Kept(clock)

    async with make_bus(clock, store=store) as bus:
        bus.magic.max_energy = float("inf")
        bus.magic.gate.lane("a").limiter.limit = float("nan")

    def none(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    magic = json.loads(store.states[-1], parse_constant=none)["magic"]
    assert (magic["max_energy"], magic["limits"]["a"]["limit"]) == (None, None)
