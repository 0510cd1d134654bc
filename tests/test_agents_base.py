"""What all agents share: a clock, a topic, and events that anybody can read."""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_framework import AsyncMessageBus
from tests.driving import make_bus
from zejzl.agents.base import DEEPEST, Agent, Bus, plain
from zejzl.agents.memory import MemoryAgent
from zejzl.errors import StoreError
from zejzl.testing import FakeClock


class Walker(Agent):
    name = "walker"

    async def walk(self, **more: object) -> dict[str, object]:
        return await self._tell("walk", {"steps": 3}, conversation_id="c", **more)  # type: ignore[arg-type]


class FullMemory:
    async def store(self, event: Mapping[str, object]) -> object:
        raise StoreError("the disk is full")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(wall=1_700_000_000.0)


@pytest.fixture
async def bus(clock: FakeClock) -> AsyncIterator[AsyncMessageBus]:
    async with make_bus(clock) as bus:
        yield bus


def as_agents_see_it(bus: AsyncMessageBus) -> Bus:
    return bus


async def test_an_event_says_who_did_what_when_and_in_which_conversation(clock: FakeClock) -> None:
    event = await Walker(clock=clock).walk(status="done", duration_ms=1.5)

    id = event.pop("id")
    assert event == {
        "type": "walk",
        "data": {"steps": 3},
        "conversation_id": "c",
        "timestamp": "2023-11-14T22:13:20+00:00",
        "agent": "walker",
        "status": "done",
        "duration_ms": 1.5,
    }
    assert isinstance(id, str)
    assert len(id) == 32


async def test_an_agent_alone_knows_the_time() -> None:
    event = await Walker().walk()

    assert datetime.fromisoformat(str(event["timestamp"])).tzinfo is not None


async def test_an_agent_with_a_bus_goes_by_its_clock(
    bus: AsyncMessageBus, clock: FakeClock
) -> None:
    await clock.advance(60.0)

    event = await Walker(as_agents_see_it(bus)).walk()

    assert event["timestamp"] == "2023-11-14T22:14:20+00:00"


async def test_what_an_agent_does_is_heard_on_its_topic(bus: AsyncMessageBus) -> None:
    inbox = await bus.subscribe("agents.walker")

    event = await Walker(bus).walk(id="first")
    message = await inbox.get()

    assert (json.loads(message.content), event["id"]) == (event, "first")
    assert (message.id, message.sender, message.conversation_id) == ("first", "walker", "c")


async def test_what_an_agent_does_is_remembered_where_there_is_a_memory() -> None:
    agent = Walker()
    agent.memory = memory = MemoryAgent()

    event = await agent.walk()

    assert await memory.recall() == [event]


@pytest.mark.parametrize("trouble", ["a bus that is stopped", "a memory that is full"])
async def test_a_step_of_which_nobody_hears_is_done_all_the_same(
    clock: FakeClock, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Walker(make_bus(clock) if trouble == "a bus that is stopped" else None, clock=clock)
    agent.memory = FullMemory()

    with caplog.at_level(logging.WARNING, "zejzl"):
        event = await agent.walk()

    assert (event["type"], agent.untold) == ("walk", 1)
    assert "event of type walk of agent walker is lost" in caplog.text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({1: (1, 2), "b": None}, {"1": [1, 2], "b": None}),
        ([float("nan"), float("inf"), 0.5], [None, None, 0.5]),
        (2**80, "0x10000000… (13 characters more)"),
        (b"abc", "3 bytes"),
        ("half \ud83d", "half ?"),
        ("x" * 12, "xxxxxxxxxx… (2 characters more)"),
        (ValueError("no"), "ValueError… (6 characters more)"),
    ],
    ids=["mapping", "no numbers", "large", "bytes", "surrogate", "long", "object"],
)
def test_what_json_cannot_hold_is_put_into_words(value: object, expected: object) -> None:
    assert plain(value, longest=10) == expected


def test_a_value_that_holds_itself_is_cut_off() -> None:
    endless: list[object] = []
    endless += [endless, endless]

    text = json.dumps(plain(endless), ensure_ascii=False)

    assert "…" in text
    assert text.count("[") <= 20_000
    assert text.startswith("[" * DEEPEST)


def test_of_a_large_value_the_rest_is_left_out_with_a_mark() -> None:
    copy = plain([[1] * 30_000, {key: [1] for key in range(10)}])

    assert isinstance(copy, list)
    assert copy[0][-1] == "…"
    assert copy[1:] == ["…"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    )
)
def test_everything_becomes_json(value: object) -> None:
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)

    assert text.encode()
