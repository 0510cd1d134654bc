"""What a bus that died left in flight is settled, and asked once more where that is wanted."""

import asyncio
from pathlib import Path

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import make_bus
from zejzl.errors import Rejected, ServerError
from zejzl.events import RequestRecovered
from zejzl.messages import Bill, Message
from zejzl.ports import Terms
from zejzl.settings import Settings
from zejzl.stores import SqliteStore
from zejzl.testing import FakeClock, ScriptedProvider

ESTIMATE = Bill(5, 5, None, settled=False)


def asked(content: str, conversation_id: str | None = None) -> Message:
    return Message.create(content, "user", "a", conversation_id)


async def left_by_the_dead(path: Path, *messages: Message, terms: Terms | None = None) -> None:
    """Leave requests accepted whose owner is gone."""
    dead = SqliteStore(path)
    await dead.open()
    for message in messages:
        await dead.accept(message, "a", "m", bill=ESTIMATE, terms=terms or Terms())
    await dead.close()


def bus_on(path: Path) -> AsyncMessageBus:
    return AsyncMessageBus(Settings(), store=SqliteStore(path))


async def test_without_resending_they_are_settled_as_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "z.db"
    await left_by_the_dead(path, asked("one"))
    async with bus_on(path) as bus:
        provider = ScriptedProvider(["not asked"])
        await bus.register_provider("a", provider)

        (found,) = await bus.recover()
        (attempt,) = await bus.store.attempts(found.message.id)

        assert found.message.error is not None and "interrupted" in found.message.error
        assert (found.maybe_duplicate, found.reply, found.error) == (True, None, None)
        assert (attempt.outcome, attempt.bill) == ("interrupted", ESTIMATE)
        assert provider.requests == []


async def test_what_was_in_flight_is_asked_once_more_as_it_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "z.db"
    terms = Terms(options='{"system": "be brief", "max_tokens": 7, "provider": "a"}')
    message = asked("one", "c")
    await left_by_the_dead(path, message, terms=terms)
    async with bus_on(path) as bus:
        provider = ScriptedProvider(["answer"])
        await bus.register_provider("a", provider)

        (found,) = await bus.recover(resend=True)
        (event,) = await bus.store.events(type="request_recovered")

        assert found.reply is not None
        assert (found.reply.text, found.reply.maybe_duplicate) == ("answer", True)
        assert (found.reply.id, found.message.response) == (message.id, "answer")
        assert [each.outcome for each in found.reply.attempts] == ["interrupted", "ok"]
        assert (provider.requests[0].system, provider.requests[0].max_tokens) == ("be brief", 7)
        assert [each.content for each in await bus.history("c")] == ["one"]
        assert isinstance(event, RequestRecovered) and event.maybe_duplicate
        assert await bus.recover(resend=True) == []
        assert (await bus.result(message.id)).text == "answer"


async def test_many_are_asked_a_few_at_a_time_and_told_oldest_first(tmp_path: Path) -> None:
    path = tmp_path / "z.db"
    messages = [asked(f"question {number}") for number in range(60)]
    await left_by_the_dead(path, *messages)
    most = now = 0

    class Counting(ScriptedProvider):
        async def generate(self, request):  # type: ignore[no-untyped-def]
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1
            return await super().generate(request)

    async with bus_on(path) as bus:
        await bus.register_provider("a", Counting(["answer"]))

        found = await bus.recover(resend=True)

        assert [each.message.id for each in found] == [message.id for message in messages]
        assert all(each.reply is not None for each in found)
        assert 1 < most <= 16


async def test_one_that_fails_again_is_settled_and_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "z.db"
    bad, good = asked("bad"), asked("good")
    await left_by_the_dead(path, bad, good)

    class Picky(ScriptedProvider):
        async def generate(self, request):  # type: ignore[no-untyped-def]
            if request.content == "bad":
                raise ServerError("no", status=500)
            return await super().generate(request)

    settings = Settings(max_attempts=1, patience=0.0)
    async with AsyncMessageBus(settings, store=SqliteStore(path)) as bus:
        await bus.register_provider("a", Picky(["answer"]))

        first, second = await bus.recover(resend=True)

        assert isinstance(first.error, ServerError)
        assert first.message.error is not None and "no" in first.message.error
        assert second.reply is not None
        assert await bus.recover(resend=True) == []
        assert await bus.store.check() == []


async def test_one_whose_provider_is_gone_is_settled_with_that_reason(tmp_path: Path) -> None:
    path = tmp_path / "z.db"
    await left_by_the_dead(path, asked("one"), terms=Terms(options='{"provider": "gone"}'))
    async with bus_on(path) as bus:
        await bus.register_provider("other", ScriptedProvider(["not asked"]))
        (found,) = await bus.recover(resend=True)

        assert found.message.error is not None and "no provider named 'gone'" in found.message.error
        assert await bus.store.check() == []
        assert await bus.recover() == []


async def test_where_nobody_but_offline_is_there_nothing_is_asked_and_nothing_settled(
    tmp_path: Path,
) -> None:
    path = tmp_path / "z.db"
    await left_by_the_dead(path, asked("one", "c"))
    async with bus_on(path) as bus:
        with pytest.raises(Rejected, match="register a provider first"):
            await bus.recover(resend=True)

        assert await bus.history("c") == []
        assert [each.message.content for each in await bus.recover()] == ["one"]


async def test_a_recovery_that_was_cancelled_goes_on_at_the_next(tmp_path: Path) -> None:
    path = tmp_path / "z.db"
    await left_by_the_dead(path, *(asked(f"question {number}") for number in range(5)))
    async with bus_on(path) as bus:
        provider = ScriptedProvider([None])
        await bus.register_provider("a", provider)
        recovering = asyncio.create_task(bus.recover(resend=True))
        while len(provider.requests) < 5:
            await asyncio.sleep(0.01)
        recovering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await recovering
        provider.play("answer")

        found = await bus.recover(resend=True)

        assert [each.message.content for each in found] == [f"question {n}" for n in range(5)]
        assert all(each.reply or each.message.error for each in found)
        assert await bus.store.check() == []


async def test_options_that_nobody_understands_are_told_and_settled(tmp_path: Path) -> None:
    path = tmp_path / "z.db"
    await left_by_the_dead(path, asked("one"), terms=Terms(options='{"colour": "red"}'))
    async with bus_on(path) as bus:
        await bus.register_provider("a", ScriptedProvider(["answer"]))

        (found,) = await bus.recover(resend=True)

        assert found.message.error is not None and "no options of a request" in found.message.error
        assert await bus.recover() == []


async def test_whether_to_ask_again_is_yes_or_no() -> None:
    async with make_bus(FakeClock()) as bus:
        with pytest.raises(TypeError, match="resend must be True or False"):
            await bus.recover(resend="no")  # type: ignore[arg-type]
