"""The bus as a program that embeds it sees it."""

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ai_framework import AIProvider, AsyncMessageBus, Message
from src.magic import FairyMagic
from tests.driving import finished, make_bus, register
from zejzl.errors import (
    BusNotRunning,
    ContextOverflow,
    NoSuchProvider,
    ProviderOverloaded,
    ServerError,
    SettingsError,
    StoreError,
    StoreLocked,
)
from zejzl.messages import Turn
from zejzl.settings import Secret, Settings, VendorSettings
from zejzl.stores import InMemoryStore, SqliteStore
from zejzl.testing import FakeClock
from zejzl.testing.scripted import ScriptedProvider

# The seed's tests, by their names ---------------------------------------------------------------


def test_message_creation() -> None:
    before = datetime.now(UTC)

    message = Message.create(content="hello", sender="me", provider="chatgpt")

    assert (message.content, message.sender, message.provider) == ("hello", "me", "chatgpt")
    assert message.conversation_id == "default"
    assert (message.response, message.response_time, message.error) == (None, None, None)
    assert before <= message.timestamp <= datetime.now(UTC)
    assert message.id != Message.create(content="hello", sender="me", provider="chatgpt").id


async def test_message_bus_init() -> None:
    bus = AsyncMessageBus(Settings(), store=InMemoryStore())

    await bus.start()
    try:
        assert isinstance(bus.magic, FairyMagic)
        assert bus.providers == {"offline": "offline"}
    finally:
        await bus.stop()


async def test_pub_sub() -> None:
    async with make_bus(FakeClock()) as bus:
        inbox = await bus.subscribe("agents.plan")
        message = Message.create(content="plan", sender="reasoner", provider="offline")

        heard = await bus.publish("agents.plan", message)

        assert heard == 1
        assert await inbox.get() == message


async def test_messagebus_pub_sub() -> None:
    async with make_bus(FakeClock(), subscriber_queue=2) as bus:
        everything = await bus.subscribe("agents.*")
        other = await bus.subscribe("system.*")
        messages = [
            Message.create(content=str(n), sender="me", provider="offline") for n in range(3)
        ]

        for message in messages:
            await bus.publish("agents.plan", message)

        assert everything.missed == 1
        assert [await everything.get(), await everything.get()] == messages[1:]
        assert len(other) == 0


async def test_messagebus_message_persistence(tmp_path: Path) -> None:
    path = tmp_path / "zejzl.db"
    async with AsyncMessageBus(Settings(), store=SqliteStore(path)) as bus:
        answer = await bus.send_message("remember me", conversation_id="support-42")

    async with AsyncMessageBus(Settings(), store=SqliteStore(path)) as bus:
        (message,) = await bus.history("support-42")

    assert (message.content, message.response, message.provider) == (
        "remember me",
        answer,
        "offline",
    )


# Who may answer ---------------------------------------------------------------------------------


async def test_without_a_key_the_one_provider_says_that_it_is_offline() -> None:
    async with make_bus(FakeClock()) as bus:
        first = await bus.send_message("hello")
        second = await bus.send_message("hello", conversation_id="another")

        assert first == second
        assert "offline" in first and "hello" in first


async def test_offline_leaves_when_a_provider_comes_and_comes_back_when_it_goes() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a="from a")
        with_a = bus.providers

        await bus.unregister_provider("A")

        assert with_a == {"a": "scripted-1"}
        assert bus.providers == {"offline": "offline"}
        assert a.cleaned_up


async def test_offline_is_never_a_fallback() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=ServerError("down"))

        with pytest.raises(ServerError):
            await finished(clock, bus.send("hello", failover=True))


async def test_naming_a_provider_pins_it() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        _, b = await register(bus, clock, a=ProviderOverloaded("full"), b="from b")

        with pytest.raises(ProviderOverloaded):
            await finished(clock, bus.send("hello", "a"))

        assert not b.requests


@pytest.mark.parametrize("failover", [True, ["b"]], ids=["anybody", "by name"])
async def test_a_pinned_provider_may_be_given_others(failover: bool | list[str]) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=ProviderOverloaded("full"), b="from b")

        reply = await finished(clock, bus.send("hello", "a", failover=failover))

        assert reply.provider == "b"


async def test_the_settings_order_the_chain() -> None:
    clock = FakeClock()
    async with make_bus(clock, failover=("c", "a")) as bus:
        _, b, _ = await register(bus, clock, a="a", b="b", c=ProviderOverloaded("full"))

        reply = await finished(clock, bus.send("hello"))

        assert [each.provider for each in reply.attempts] == ["c", "a"]
        assert not b.requests


async def test_the_default_provider_is_asked_first_and_kept_in_the_store() -> None:
    clock = FakeClock()
    bus = make_bus(clock)
    await bus.store.open()
    await bus.store.keep_setting("default_provider", "b")
    async with bus:
        await register(bus, clock, a="from a", b="from b")

        assert (await bus.send("hello")).provider == "b"
        assert list(bus.providers) == ["b", "a"]


@pytest.mark.parametrize(
    ("provider", "model"), [("a/big", None), ("a:big", None), ("A", "big")], ids=str
)
async def test_a_model_can_be_named(provider: str, model: str | None) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a="ok")

        reply = await bus.send("hello", provider, model=model)

        assert a.requests[0].model == "big"
        assert reply.model == "big"
        assert "ai_provider:a/big" in bus.magic.circuit_breakers


async def test_a_named_model_holds_for_its_provider_only() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        _, b = await register(bus, clock, a=ProviderOverloaded("full"), b="ok")

        await finished(clock, bus.send("hello", model="big"))

        assert b.requests[0].model is None


async def test_an_unknown_provider_is_named_with_those_that_are_known() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a="ok", b="ok")

        with pytest.raises(NoSuchProvider, match=r"'claud'.*a, b"):
            await bus.send("hello", "claud")

        assert await bus.store.messages() == []


async def test_a_provider_in_another_ones_place_lets_that_one_go() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (old,) = await register(bus, clock, a="old")

        await register(bus, clock, a="new")

        assert old.cleaned_up
        assert await bus.send_message("hello") == "new"


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "a b", "a\nb", "\x1b[31m"])
async def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    async with make_bus(FakeClock()) as bus:
        with pytest.raises(ValueError):
            await bus.register_provider(name, ScriptedProvider())


async def test_what_is_no_provider_is_refused() -> None:
    async with make_bus(FakeClock()) as bus:
        with pytest.raises(TypeError, match="generate_response"):
            await bus.register_provider("x", object())  # type: ignore[arg-type]


async def test_a_class_or_a_provider_that_cannot_answer_is_refused() -> None:
    class Mute(AIProvider):
        name = "mute"

    async with make_bus(FakeClock()) as bus:
        with pytest.raises(TypeError, match="is a class"):
            await bus.register_provider("x", Mute)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="does not define"):
            await bus.register_provider("x", Mute())


def test_settings_are_settings() -> None:
    with pytest.raises(TypeError, match="settings must be Settings, not dict"):
        AsyncMessageBus({"deadline": 4})  # type: ignore[arg-type]


async def test_the_seeds_own_providers_are_initialised_asked_and_cleaned_up() -> None:
    class Mine(AIProvider):
        name = "mine"
        default_model = "m-1"

        def __init__(self) -> None:
            super().__init__(api_key="k")
            self.log: list[str] = []

        async def initialize(self) -> None:
            self.log.append("initialized")

        async def generate_response(self, message: str, history: list[dict[str, str]]) -> str:
            self.log.append(f"{len(history)} before {message}")
            history.clear()  # it is ours to change
            return message.upper()

        async def cleanup(self) -> None:
            self.log.append("cleaned up")

    mine = Mine()
    async with make_bus(FakeClock()) as bus:
        await bus.register_provider("mine", mine)
        one = await bus.send_message("one", "mine")
        two = await bus.send_message("two", "mine")

    assert (one, two) == ("ONE", "TWO")
    assert mine.log == ["initialized", "0 before one", "2 before two", "cleaned up"]


def test_vendors_come_from_the_keys_that_are_set() -> None:
    settings = Settings(
        vendors={
            "claude": VendorSettings(Secret("sk-ant-1")),
            "local": VendorSettings(base_url="http://127.0.0.1:1/v1", model="tiny"),
        }
    )

    async def names() -> dict[str, str]:
        async with AsyncMessageBus(settings, store=InMemoryStore()) as bus:
            return bus.providers

    assert list(asyncio.run(names())) == ["claude", "local"]


# Conversations ----------------------------------------------------------------------------------


async def test_a_conversation_is_told_to_the_provider_and_others_are_not() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=["first", "second", "third"])
        await bus.send("one", conversation_id="c")
        await bus.send("two", conversation_id="c")

        await bus.send("three", conversation_id="d")

        assert a.requests[1].history == (Turn("user", "one"), Turn("assistant", "first"))
        assert a.requests[2].history == ()


async def test_without_a_conversation_nothing_is_remembered() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a="ok")

        await bus.send("one")
        await bus.send("two")

        assert a.requests[1].history == ()


async def test_a_failed_question_is_no_turn() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=[ContextOverflow("x"), "fine"])
        with pytest.raises(ContextOverflow):
            await finished(clock, bus.send("too long", conversation_id="c"))

        await finished(clock, bus.send("short", conversation_id="c"))

        assert a.requests[1].history == ()
        assert [message.content for message in await bus.history("c")] == ["short"]


async def test_sends_of_one_conversation_are_serialised_and_others_run_freely() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=["one", 5.0, "two", "three"])
        await bus.send("1", conversation_id="c")

        slow = asyncio.create_task(bus.send("2", conversation_id="c"))
        await clock.advance(0.1)
        behind = asyncio.create_task(bus.send("3", conversation_id="c"))
        free = asyncio.create_task(bus.send("4", conversation_id="d"))
        await clock.advance(0.1)

        assert (free.done(), behind.done()) == (True, False)
        await clock.advance(5.0)
        await asyncio.gather(slow, behind)
        assert [len(request.history) for request in a.requests] == [0, 2, 0, 4]


async def test_history_is_trimmed_to_its_budget_newest_kept_and_the_system_message_too() -> None:
    clock = FakeClock()
    async with make_bus(clock, context_tokens=40) as bus:
        (a,) = await register(bus, clock, a="an answer of six words here")
        for n in range(10):
            await bus.send(f"question number {n} of ten", conversation_id="c", system="be brief")

        await bus.send("last", conversation_id="c", system="be brief")

        request = a.requests[-1]
        assert request.system == "be brief"
        assert 2 <= len(request.history) <= 6
        assert len(request.history) % 2 == 0
        assert request.history[-2].content == "question number 9 of ten"


# Bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"content": ""}, ValueError),
        ({"content": "  \n"}, ValueError),
        ({"content": 7}, TypeError),
        ({"content": None}, TypeError),
        ({"content": b"bytes"}, TypeError),
        ({"content": "half \ud800"}, ValueError),
        ({"deadline": 0}, ValueError),
        ({"deadline": -1}, ValueError),
        ({"deadline": float("nan")}, ValueError),
        ({"patience": -0.1}, ValueError),
        ({"max_tokens": 0}, ValueError),
        ({"max_tokens": 1.5}, ValueError),
        ({"max_tokens": True}, ValueError),
        ({"temperature": -1}, ValueError),
        ({"temperature": "hot"}, ValueError),
        ({"model": ""}, ValueError),
        ({"system": ""}, ValueError),
        ({"sender": ""}, ValueError),
        ({"conversation_id": 5}, TypeError),
        ({"conversation_id": "\udfff"}, ValueError),
        ({"failover": "a"}, TypeError),
        ({"provider": 5}, TypeError),
    ],
    ids=str,
)
async def test_an_impossible_argument_is_refused_before_anything_is_sent_or_stored(
    arguments: dict[str, object], error: type[Exception]
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a="ok")

        with pytest.raises(error):
            await bus.send(**({"content": "hello"} | arguments))  # type: ignore[arg-type]

        assert not a.requests
        assert await bus.store.messages() == []


@pytest.mark.parametrize("conversation_id", ["NA", "", "'; DROP TABLE messages; --", "🦊", "a\nb"])
async def test_a_conversation_id_may_be_any_text(tmp_path: Path, conversation_id: str) -> None:
    async with AsyncMessageBus(Settings(), store=SqliteStore(tmp_path / "z.db")) as bus:
        await bus.send("hello", conversation_id=conversation_id)
        await bus.send("hello", conversation_id="another")

        assert len(await bus.history(conversation_id)) == 1


async def test_a_bus_that_is_not_running_says_how_to_start_it() -> None:
    bus = make_bus(FakeClock())

    with pytest.raises(BusNotRunning, match=r"bus.start\(\)"):
        await bus.send("hello")


async def test_the_environment_is_refused_by_the_name_of_its_mistake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEJZL_DEADLIN", "30")

    with pytest.raises(SettingsError, match=r"ZEJZL_DEADLIN.*ZEJZL_DEADLINE"):
        AsyncMessageBus()


# Life -------------------------------------------------------------------------------------------


async def test_stopping_lets_those_under_way_end_and_takes_no_more() -> None:
    clock = FakeClock()
    bus = make_bus(clock)
    await bus.start()
    await register(bus, clock, a=[2.0, "late but whole"])
    under_way = asyncio.create_task(bus.send("hello"))
    await clock.advance(0.1)

    stopping = asyncio.create_task(bus.stop())
    await clock.advance(0.1)
    with pytest.raises(BusNotRunning):
        await bus.send("too late")
    await clock.advance(2.0)
    await stopping

    assert (await under_way).text == "late but whole"
    await bus.stop()  # twice is as good as once


async def test_a_bus_can_be_started_again() -> None:
    bus = make_bus(FakeClock())
    async with bus:
        await bus.send("one", conversation_id="c")
    async with bus:
        await bus.send("two", conversation_id="c")

        assert len(await bus.history("c")) == 2


async def test_a_store_that_cannot_be_written_refuses_before_anything_is_sent() -> None:
    class Full(InMemoryStore):
        def accept(self, message: Message, provider: str, model: str, **kept: object):  # type: ignore[no-untyped-def]
            raise StoreError("the disk is full: make room")

    clock = FakeClock()
    async with AsyncMessageBus(Settings(), store=Full(), clock=clock) as bus:
        (a,) = await register(bus, clock, a="ok")

        with pytest.raises(StoreError, match="disk is full"):
            await bus.send("hello")

        assert not a.requests
        assert bus.magic.circuit_breakers["persistence"].failure_count == 1


async def test_a_store_that_does_not_answer_holds_nobody_past_the_deadline() -> None:
    class Stuck(InMemoryStore):
        def accept(self, message: Message, provider: str, model: str, **kept: object):  # type: ignore[no-untyped-def]
            return asyncio.get_running_loop().create_future()

    clock = FakeClock()
    async with AsyncMessageBus(Settings(), store=Stuck(), clock=clock) as bus:
        (a,) = await register(bus, clock, a="ok")

        with pytest.raises(StoreLocked, match="before the deadline; this call was not sent"):
            await finished(clock, bus.send("hello", deadline=2.0), within=2.1)

        assert not a.requests
        assert bus.magic.circuit_breakers["persistence"].failure_count == 0


@pytest.mark.parametrize("stuck", [False, True], ids=["refuses", "does not answer"])
async def test_a_journal_that_fails_between_two_calls_keeps_the_first_cause_and_the_budget(
    stuck: bool,
) -> None:
    class FailsLater(InMemoryStore):
        def attempt(self, *args: object, **kept: object):  # type: ignore[no-untyped-def]
            if stuck:
                return asyncio.get_running_loop().create_future()
            raise StoreError("the disk is full: make room")

    clock = FakeClock()
    async with AsyncMessageBus(Settings(), store=FailsLater(), clock=clock) as bus:
        a, b = await register(bus, clock, a=ProviderOverloaded("full"), b="ok")

        with pytest.raises(StoreError, match=r"this call was not sent|make room") as caught:
            await finished(clock, bus.send("hello", deadline=2.0), within=2.1)

        assert (len(a.requests), len(b.requests)) == (1, 0)
        assert isinstance(caught.value.__cause__, ProviderOverloaded)
        assert [each.provider for each in caught.value.attempts] == ["a"]  # type: ignore[attr-defined]
        assert bus.magic.energy_level == 100.0


async def test_a_journal_that_had_no_time_is_not_blamed_for_what_a_provider_did() -> None:
    class Stuck(InMemoryStore):
        def attempt(self, *args: object, **kept: object):  # type: ignore[no-untyped-def]
            return asyncio.get_running_loop().create_future()

    clock = FakeClock()
    async with AsyncMessageBus(Settings(), store=Stuck(), clock=clock) as bus:
        await register(bus, clock, a=[1.5, ProviderOverloaded("full")], b="ok")

        with pytest.raises(ProviderOverloaded) as caught:
            await finished(clock, bus.send("hello", deadline=2.0), within=2.1)

        assert any("journal could not be written" in note for note in caught.value.__notes__)


async def test_an_answer_that_cannot_be_written_down_is_not_lost() -> None:
    class FullLater(InMemoryStore):
        def settle(self, message, attempts, events=(), **answer):  # type: ignore[no-untyped-def]
            raise StoreError("the disk is full: make room")

    clock = FakeClock()
    async with AsyncMessageBus(Settings(), store=FullLater(), clock=clock) as bus:
        await register(bus, clock, a="the answer")

        with pytest.raises(StoreError) as caught:
            await bus.send("hello")

        assert getattr(caught.value.reply, "text", None) == "the answer"


async def test_recover_reports_and_settles_what_a_dead_bus_left(tmp_path: Path) -> None:
    path = tmp_path / "z.db"
    left = Message.create(content="in flight", sender="me", provider="a", conversation_id="c")
    dying = f"""
import asyncio, os
from zejzl.messages import Message
from zejzl.stores import SqliteStore

async def main():
    store = SqliteStore({str(path)!r})
    await store.open()
    await store.accept(Message.from_json({left.to_json()!r}), "a", "m")
    os._exit(9)

asyncio.run(main())
"""
    await (await asyncio.create_subprocess_exec(sys.executable, "-c", dying)).wait()

    async with AsyncMessageBus(Settings(), store=SqliteStore(path)) as bus:
        (found,) = await bus.recover()
        again = await bus.recover()

        assert (found.message.id, found.message.content) == (left.id, "in flight")
        assert found.maybe_duplicate
        assert again == []
        assert await bus.history("c") == []
        (event,) = await bus.store.events(type="request_recovered")
        assert getattr(event, "request_id", None) == left.id


async def test_the_state_of_a_bus_is_there_for_other_processes(tmp_path: Path) -> None:
    path = tmp_path / "z.db"
    async with AsyncMessageBus(Settings(), store=SqliteStore(path)) as bus:
        await bus.send("hello")
    other = SqliteStore(path)
    await other.open()

    ((_, _, runs, body),) = await other.snapshots()

    assert not runs
    assert '"state": "stopped"' in body and '"requests": 1' in body
    await other.close()
