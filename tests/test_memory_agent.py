"""MemoryAgent: what is stored is recalled, alone and on a bus's store."""

import asyncio
import gc
import inspect
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import finished, make_bus, register
from zejzl.agents.memory import MemoryAgent, Stored
from zejzl.agents.remembered import LARGEST, NotAnEvent
from zejzl.agents.watch import MOST_WAITING, fact
from zejzl.errors import ServerError, StoreError
from zejzl.events import BudgetRestored
from zejzl.messages import Message
from zejzl.ports import Memory
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore, SqliteStore
from zejzl.testing import FakeClock

START = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(wall=START.timestamp())


@pytest.fixture
async def bus(clock: FakeClock) -> AsyncIterator[AsyncMessageBus]:
    async with make_bus(clock) as bus:
        yield bus


@pytest.fixture(params=["alone", "bus"])
def memory(request: pytest.FixtureRequest, bus: AsyncMessageBus, clock: FakeClock) -> MemoryAgent:
    return MemoryAgent(bus if request.param == "bus" else None, clock=clock)


def types(events: list[dict[str, object]]) -> list[object]:
    return [event["type"] for event in events]


async def test_memory_agent_recall_by_type() -> None:
    memory = MemoryAgent()
    await memory.store({"type": "plan", "data": {"steps": ["a", "b"]}})
    await memory.store({"type": "execution", "data": {"done": True}})
    await memory.store({"type": "plan", "data": {"steps": []}})

    by_function = await memory.recall(lambda event: event["type"] == "plan")
    by_type = await memory.recall(type="plan")

    assert [event["data"] for event in by_function] == [{"steps": ["a", "b"]}, {"steps": []}]
    assert by_type == by_function
    assert await memory.recall(type="observation") == []


async def test_an_event_comes_back_as_it_was_with_an_id_and_a_time(memory: MemoryAgent) -> None:
    event = {"type": "plan", "data": {"text": "naïve 👍", "n": [1, 2.5, None]}, "status": "ok"}

    kept = await memory.store(event)

    assert kept == {**event, "id": kept["id"], "timestamp": START.isoformat()}
    assert await memory.recall() == [kept]
    assert "id" not in event


@pytest.mark.parametrize(
    ("given", "kept", "at"),
    [
        ("2026-01-01T12:00:00+02:00", "2026-01-01T12:00:00+02:00", "2026-01-01T10:00:00+00:00"),
        ("2026-01-01T12:00:00", "2026-01-01T12:00:00", "2026-01-01T12:00:00+00:00"),
        ("2026-01-01", "2026-01-01", "2026-01-01T00:00:00+00:00"),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00", None),
        (1_767_225_600, "2026-01-01T00:00:00+00:00", None),
        (1_767_225_600.5, "2026-01-01T00:00:00.500000+00:00", None),
        (None, START.isoformat(), None),
    ],
    ids=["zone", "no zone", "day", "datetime", "seconds", "half", "none"],
)
async def test_a_given_time_is_kept_and_is_utc_without_a_zone(
    memory: MemoryAgent, given: object, kept: str, at: str | None
) -> None:
    moment = datetime.fromisoformat(at or kept)

    stored = await memory.store({"type": "plan", "timestamp": given})

    assert stored["timestamp"] == kept
    assert await memory.recall(since=moment, until=moment + timedelta(seconds=0.1)) == [stored]


async def test_fields_are_read_at_the_top_then_in_data(memory: MemoryAgent) -> None:
    below = {"type": "plan", "conversation_id": "c", "timestamp": "2026-01-01T00:00:00Z"}
    await memory.store({"data": below})
    await memory.store({"type": "execution", "conversation_id": "d", "data": below})

    found = await memory.recall(conversation_id="c", until=datetime(2026, 1, 2, tzinfo=UTC))

    assert types(found) == ["plan"]
    assert types(await memory.recall(conversation_id="d")) == ["execution"]


async def test_events_are_found_by_conversation_time_and_words(memory: MemoryAgent) -> None:
    for n, (whose, words) in enumerate([("c", "Deploy shop"), (None, "deploy"), ("", "x 42")]):
        at = (START + timedelta(seconds=n)).isoformat()
        event = {"type": f"{n}", "data": {"words": [words]}, "timestamp": at}
        await memory.store({**event, "conversation_id": whose})

    assert types(await memory.recall(conversation_id="c")) == ["0"]
    assert types(await memory.recall(conversation_id=None)) == ["1"]
    assert types(await memory.recall(conversation_id="")) == ["2"]
    assert types(await memory.recall(text="DEPLOY")) == ["0", "1"]
    assert types(await memory.recall(text="42")) == ["2"]
    assert types(await memory.recall(text='" OR')) == []
    assert types(await memory.recall(since=START + timedelta(seconds=1))) == ["1", "2"]
    assert types(await memory.recall(limit=1)) == ["2"]


async def test_the_limit_counts_what_the_filter_lets_pass(memory: MemoryAgent) -> None:
    for n in range(10):
        await memory.store({"type": "n", "data": n})

    found = await memory.recall(lambda event: event["data"] in (1, 2, 3), limit=2)

    assert [event["data"] for event in found] == [2, 3]


async def test_an_id_is_remembered_once(memory: MemoryAgent) -> None:
    await memory.store({"type": "first", "id": "a"})
    await memory.store({"type": "second", "id": "a"})

    assert types(await memory.recall()) == ["first"]


async def test_the_number_of_events_is_bounded(bus: AsyncMessageBus) -> None:
    for memory in (MemoryAgent(keep=2), MemoryAgent(bus, keep=2)):
        for n in range(5):
            await memory.store({"type": f"{n}"})

        assert types(await memory.recall()) == ["3", "4"]
    with pytest.raises(ValueError, match="keep must be 1 or more"):
        MemoryAgent(keep=0)


class Odd:
    """A thing that JSON does not know."""


def endless() -> dict[str, object]:
    event: dict[str, object] = {"type": "plan"}
    event["data"] = event
    return event


def deep() -> dict[str, object]:
    data: list[object] = []
    for _ in range(100_000):
        data = [data]
    return {"type": "plan", "data": data}


BAD: list[tuple[object, str, str]] = [
    ([], "not a mapping", "an event is a mapping with a type, not list"),
    (None, "not a mapping", "not NoneType"),
    ("plan", "not a mapping", "not str"),
    ({}, "no type", "needs a type"),
    ({"type": ""}, "no type", "not ''"),
    ({"type": 3}, "no type", "not 3"),
    ({"type": "plan", "conversation_id": 7}, "no conversation", "must be text or None, not int"),
    ({"type": "plan", "id": 7}, "no id", "id must be text, not 7"),
    ({"type": "plan", "timestamp": "soon"}, "no time", "not 'soon'"),
    ({"type": "plan", "timestamp": True}, "no time", "not True"),
    ({"type": "plan", "timestamp": float("nan")}, "no time", "not nan"),
    ({"type": "plan", "timestamp": 1e300}, "no time", "not 1e"),
    ({"type": "plan", "timestamp": "9999-12-31T23:59:59-05:00"}, "no time", "not '9999"),
    ({"type": "plan", "data": Odd()}, "not storable", "Odd is not a thing of JSON"),
    ({"type": "plan", "data": {1, 2}}, "not storable", "set is not a thing of JSON"),
    ({"type": "plan", "data": float("nan")}, "not storable", "cannot be written as JSON"),
    ({"type": "plan", "data": "half \ud83d"}, "not storable", "half a character"),
    ({"type": "half \ud83d"}, "not storable", "half a character"),
    ({"type": "plan", "id": "\ud83d"}, "not storable", "half a character"),
    (endless(), "not storable", "Circular"),
    (deep(), "not storable", "cannot be written as JSON"),
    ({"type": "plan", "data": "x" * 10_000_000}, "too large", f"{LARGEST} are the most"),
]


@pytest.mark.parametrize(("event", "kind", "problem"), BAD)
async def test_what_is_no_event_is_refused_with_its_reason(
    memory: MemoryAgent, event: Any, kind: str, problem: str
) -> None:
    with pytest.raises(NotAnEvent, match=problem) as refused:
        await memory.store(event)

    assert isinstance(refused.value, ValueError)
    assert isinstance(refused.value, TypeError)
    assert refused.value.kind == kind
    assert await memory.recall() == []


async def test_of_many_events_the_good_ones_are_kept_and_the_bad_ones_counted(
    memory: MemoryAgent,
) -> None:
    good = [{"type": f"{n}"} for n in range(1_200)]
    bad = [event for event, _, _ in BAD]

    stored = await memory.store_all(iter([*good[:300], *bad, *good[300:]]))

    assert types(await memory.recall()) == [event["type"] for event in good]
    assert stored.kept == 1_200
    assert sum(stored.refused.values()) == len(bad)
    assert set(stored.refused) == {kind for _, kind, _ in BAD}
    assert await memory.store_all([]) == Stored(0, {})


@pytest.mark.parametrize("one", [{"type": "plan"}, "plan"])
async def test_one_event_is_not_many(memory: MemoryAgent, one: Any) -> None:
    with pytest.raises(TypeError, match=r"store\(\) takes one"):
        await memory.store_all(one)


async def test_what_the_filter_raises_names_the_event(memory: MemoryAgent) -> None:
    await memory.store({"type": "plan", "id": "e1"})

    with pytest.raises(KeyError) as raised:
        await memory.recall(lambda event: event["nothing"])

    assert raised.value.__notes__ == ["raised by filter_fn at the event e1 of type plan"]


async def test_a_filter_is_a_plain_function(memory: MemoryAgent) -> None:
    async def later(event: dict[str, object]) -> bool:
        return True

    assert inspect.iscoroutinefunction(later)
    with pytest.raises(TypeError, match="not an async one"):
        await memory.recall(later)
    with pytest.raises(TypeError, match="not 'plan'; say type="):
        await memory.recall("plan")  # type: ignore[arg-type]


async def test_what_was_stored_outlives_the_bus(tmp_path: Path, clock: FakeClock) -> None:
    for n in range(2):
        store = SqliteStore(tmp_path / "zejzl.db", clock=clock)
        async with make_bus(clock, store=store) as bus:
            memory = MemoryAgent(bus)
            await memory.store({"type": "plan", "data": f"life {n}"})
            found = await memory.recall(text="life")

    assert [event["data"] for event in found] == ["life 0", "life 1"]


async def test_a_memory_that_cannot_be_read_is_counted_and_hides_no_other(
    bus: AsyncMessageBus, caplog: pytest.LogCaptureFixture
) -> None:
    memory = MemoryAgent(bus)
    for id, body in [("a", "{"), ("b", "[]")]:
        await bus.store.remember(
            [Memory(id=id, type="x", conversation_id=None, at=START, body=body)]
        )
    await memory.store({"type": "plan"})

    with caplog.at_level(logging.WARNING, "zejzl"):
        assert types(await memory.recall()) == ["plan"]

    assert memory.unread == 2
    assert "memory a cannot be read" in caplog.text


async def test_a_store_that_will_not_is_a_store_error(clock: FakeClock) -> None:
    memory = MemoryAgent(make_bus(clock))  # not started: its store is closed

    with pytest.raises(StoreError):
        await memory.store({"type": "plan"})


# Watching


async def until(condition: Any) -> None:
    for _ in range(1_000):
        if await condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came true")


def said(content: str, conversation_id: str | None = "c") -> Message:
    return Message.create(content, "planner", "", conversation_id)


async def test_what_agents_tell_is_remembered_while_they_are_watched(
    bus: AsyncMessageBus,
) -> None:
    memory = MemoryAgent(bus)
    event = {"type": "plan", "data": {"n": 1}, "id": "e1", "conversation_id": "d"}
    plain_text, half = said("just words"), said('{"no": "type"}', None)

    async with await memory.watch() as watch:
        await bus.publish("agents.planner", said(json.dumps(event)))
        await bus.publish("agents.planner", said(json.dumps(event)))
        await bus.publish("agents.planner", plain_text)
        await bus.publish("agents.x", half)
        await bus.publish("other", said("not heard"))
    await bus.publish("agents.planner", said("too late"))

    words, odd, told = await memory.recall()
    assert (told["id"], told["data"], told["conversation_id"]) == ("e1", {"n": 1}, "d")
    assert told["agent"] == "planner"
    assert words == {
        "id": plain_text.id,
        "type": "message",
        "timestamp": plain_text.timestamp.isoformat(),
        "conversation_id": "c",
        "agent": "planner",
        "data": {"topic": "agents.planner", "content": "just words"},
    }
    assert (odd["id"], odd["type"], odd["conversation_id"]) == (half.id, "message", None)
    assert (watch.missed, watch.lost) == (0, 0)


async def test_the_buss_own_events_are_remembered_those_before_too(
    bus: AsyncMessageBus, clock: FakeClock
) -> None:
    before = BudgetRestored(amount=1.0, reason="before", timestamp=START)
    await bus.store.record([before])
    memory = MemoryAgent(bus)

    async with await memory.watch():
        bus.magic.emit(BudgetRestored(amount=2.0, reason="live", timestamp=START))

    first, second = await memory.recall(type="budget_restored")
    assert first["data"] == {"amount": 1.0, "reason": "before"}
    assert (first["agent"], first["conversation_id"]) == ("bus", None)
    assert first["timestamp"] == START.isoformat()
    assert second["data"] == {"amount": 2.0, "reason": "live"}


async def test_what_is_heard_and_read_again_later_is_kept_once(
    bus: AsyncMessageBus, clock: FakeClock
) -> None:
    await register(bus, clock, bad=[ServerError("x")])
    memory = MemoryAgent(bus)

    for _ in range(2):
        async with await memory.watch():
            await bus.magic.recharge_magic()
            with pytest.raises(ServerError):
                await finished(clock, bus.send("hello", "bad"))

    log = [fact(event) for event in await bus.store.events(limit=1_000)]
    heard = await memory.recall(lambda event: event["agent"] == "bus")
    assert {"recovery_recorded", "breaker_changed", "budget_restored"} <= {*types(heard)}
    assert sorted(heard, key=str) == sorted(log, key=str)


async def test_one_that_falls_behind_loses_the_oldest_and_says_how_many(
    clock: FakeClock,
) -> None:
    store = InMemoryStore(limit=2 * MOST_WAITING)
    async with make_bus(clock, store=store, subscriber_queue=2) as bus:
        memory = MemoryAgent(bus)
        watch = await memory.watch()

        for n in range(5):
            await bus.publish("agents.x", said(f"{n}"))
        for n in range(MOST_WAITING + 1):
            watch.hear(BudgetRestored(amount=float(n), reason="r", timestamp=START))
        await watch.close()

        assert watch.missed == 4
        words = await memory.recall(type="message")
        assert [event["data"]["content"] for event in words] == ["3", "4"]  # type: ignore[index]
        assert len(await memory.recall(type="budget_restored")) == MOST_WAITING
        watch.hear(BudgetRestored(amount=0.0, reason="late", timestamp=START))
        assert await memory.recall(text="late") == []


async def test_what_cannot_be_kept_is_counted_and_the_rest_goes_on(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Moody(InMemoryStore):
        well = False

        def remember(self, memories: Any, **more: Any) -> Any:
            if not self.well:
                raise StoreError("the disk is full")
            return super().remember(memories, **more)

    store = Moody(clock=clock)
    async with make_bus(clock, store=store) as bus:
        memory = MemoryAgent(bus)
        watch = await memory.watch()

        async def lost() -> bool:
            return watch.lost == 2

        await bus.publish("agents.x", said("full"))
        watch.hear(BudgetRestored(amount=1.0, reason="full", timestamp=START))
        await until(lost)
        store.well = True
        await bus.publish("agents.x", said("x" * (LARGEST + 1)))
        await bus.publish("agents.x", said("well"))
        await watch.close()

        assert watch.lost == 3
        assert len(await memory.recall()) == 1
    assert "the disk is full" in caplog.text


async def test_a_watch_ends_with_its_bus(clock: FakeClock) -> None:
    bus = make_bus(clock)
    await bus.start()
    watch = await MemoryAgent(bus).watch()

    await bus.stop()

    await watch.close()


async def test_what_has_ended_listens_no_more(clock: FakeClock) -> None:
    bus = make_bus(clock)
    await bus.start()
    before = list(bus.magic._listeners)
    closed, left, forgotten = [await MemoryAgent(bus).watch() for _ in range(3)]
    for task in forgotten._tasks:
        task.cancel()
    await asyncio.gather(*forgotten._tasks, return_exceptions=True)
    del forgotten, task

    await closed.close()
    gc.collect()
    await bus.magic.recharge_magic()
    while_open = len(bus.magic._listeners) - len(before)
    await bus.stop()
    await left.close()

    assert while_open == 1
    assert bus.magic._listeners == before


async def test_a_watch_that_cannot_begin_leaves_nothing_behind(
    bus: AsyncMessageBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(**_: object) -> list[object]:
        raise StoreError("no")

    monkeypatch.setattr(bus.store, "events", broken)
    with pytest.raises(StoreError):
        await MemoryAgent(bus).watch()

    assert await bus.publish("agents.x", said("x")) == 0


async def test_there_is_nothing_to_watch_without_a_bus() -> None:
    with pytest.raises(TypeError, match="has nothing to watch"):
        await MemoryAgent().watch()


async def test_a_memory_on_default_settings_needs_no_more_than_a_bus(tmp_path: Path) -> None:
    async with AsyncMessageBus(Settings(home=tmp_path)) as bus:
        await MemoryAgent(bus).store({"type": "plan", "data": "hello"})

        assert types(await MemoryAgent(bus).recall(text="hello")) == ["plan"]
