"""The whole way over real sockets, defaults only: the right answer or the right error, and the
attempts that the rules allow and no more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from zejzl.errors import (
    AttemptTimeout,
    CircuitOpen,
    ConnectFailed,
    ContentFiltered,
    Incomplete,
    ProviderOverloaded,
    RateLimited,
    ServerError,
    ZejzlError,
)
from zejzl.messages import Reply
from zejzl.providers import Anthropic, Gemini, OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore
from zejzl.testing import CANONICAL, FaultServer, faults

WIRES = {"openai": OpenAICompatible, "anthropic": Anthropic, "gemini": Gemini}


@asynccontextmanager
async def two(
    wire: str = "openai", **settings: Any
) -> AsyncIterator[tuple[FaultServer, AsyncMessageBus]]:
    """Give a server and a bus with `alpha` on the wire and `beta` on OpenAI's behind it."""
    async with (
        FaultServer() as server,
        AsyncMessageBus(Settings(**settings), store=InMemoryStore()) as bus,
    ):
        for name, of in (("alpha", wire), ("beta", "openai")):
            provider = WIRES[of](server.base_url(name, wire=of), "key", "m")  # type: ignore[arg-type]
            await bus.register_provider(name, provider)
        yield server, bus


async def ask(bus: AsyncMessageBus, streamed: bool, **options: Any) -> Reply:
    if not streamed:
        return await bus.send("hello", **options)
    async for delta in bus.stream("hello", **options):
        if delta.reply is not None:
            return delta.reply
    raise AssertionError("no reply")


HEALED: dict[str, tuple[Any, list[str]]] = {
    "one 500": ([faults.status(500), faults.ok()], ["alpha", "alpha"]),
    "one reset": ([faults.reset(), faults.ok()], ["alpha", "alpha"]),
    "429 with Retry-After 2": (faults.rate_limited(2), ["alpha", "beta"]),
    "503 for ever": (faults.overloaded(), ["alpha", "beta"]),
    "malformed event": (faults.malformed(0), ["alpha", "alpha", "beta"]),
    "error inside a 200": (faults.error_event(0), ["alpha", "beta"]),
    "empty answer": (faults.empty(), ["alpha", "alpha", "beta"]),
    "context overflow": (faults.context_overflow(), ["alpha", "beta"]),
    "401": (faults.auth(), ["alpha", "beta"]),
    "out of quota": (faults.quota_exhausted(), ["alpha", "beta"]),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("fault", HEALED)
async def test_a_failing_provider_is_healed_with_the_attempts_the_rules_allow(
    fault: str, wire: str, streamed: bool
) -> None:
    script, expected = HEALED[fault]
    async with two(wire) as (server, bus):
        server.play("alpha", script)

        reply = await ask(bus, streamed)

        assert reply.text == CANONICAL
        assert [call.provider for call in server.log][: len(expected)] == expected
        assert [each.provider for each in reply.attempts] == expected
        assert reply.healed


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("wire", WIRES)
async def test_refused_content_is_asked_once_and_the_reason_is_in_the_error(
    wire: str, streamed: bool
) -> None:
    async with two(wire) as (server, bus):
        server.play("alpha", faults.content_filtered())

        with pytest.raises(ContentFiltered) as caught:
            await ask(bus, streamed)

        assert len(server.log) == 1
        assert len(str(caught.value)) > len("alpha: ")
        assert bus.magic.circuit_breakers["ai_provider:alpha"].failure_count == 0


@pytest.mark.parametrize("wire", WIRES)
async def test_a_stream_without_its_sentinel_is_whole_if_it_has_a_finish_reason(wire: str) -> None:
    async with two(wire) as (server, bus):
        server.play("alpha", faults.no_sentinel())

        reply = await ask(bus, streamed=True)

        assert (reply.text, reply.provider) == (CANONICAL, "alpha")


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "script", [faults.cut(40), faults.no_finish(40), faults.malformed(40), faults.error_event(40)]
)
async def test_a_stream_that_breaks_in_the_middle_is_never_a_success(
    wire: str, script: Any
) -> None:
    async with two(wire) as (server, bus):
        server.play("alpha", script)
        server.play("beta", faults.ok("Another answer."))

        with pytest.raises(Incomplete) as caught:
            await ask(bus, streamed=True)

        assert CANONICAL.startswith(caught.value.prefix)
        assert len(caught.value.prefix.split()) == 40


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "script", [faults.cut(40), faults.no_finish(40), faults.malformed(40), faults.error_event(40)]
)
async def test_a_stream_that_breaks_in_the_middle_is_completed_by_who_says_the_same(
    wire: str, script: Any
) -> None:
    async with two(wire) as (server, bus):
        server.play("alpha", script)

        texts = [delta.text async for delta in bus.stream("hello")]

        assert "".join(texts) == CANONICAL


@pytest.mark.parametrize("wire", WIRES)
async def test_a_plain_answer_cut_in_the_middle_is_asked_for_again(wire: str) -> None:
    async with two(wire) as (server, bus):
        server.play("alpha", [faults.cut(40), faults.ok()])

        reply = await ask(bus, streamed=False)

        assert reply.text == CANONICAL
        assert [call.provider for call in server.log] == ["alpha", "alpha"]


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_silent_provider_is_left_in_time_and_its_socket_closed(streamed: bool) -> None:
    async with two(attempt_timeout=0.2, first_token_timeout=0.2) as (server, bus):
        server.play("alpha", faults.silence())

        reply = await ask(bus, streamed)

        assert reply.provider == "beta"
        assert reply.latency_s <= 1.7
        await until(lambda: server.calls("alpha")[0].hung_up)
        assert len(server.calls("alpha")) == 1


async def test_a_slow_first_token_is_left_in_time() -> None:
    async with two(first_token_timeout=0.2) as (server, bus):
        server.play("alpha", faults.slow_first_token(20.0))

        reply = await ask(bus, streamed=True)

        assert reply.provider == "beta"
        assert reply.attempts[0].outcome == "first_token_timeout"


async def test_a_truncated_answer_says_so() -> None:
    async with two() as (server, bus):
        server.play("alpha", faults.truncated(20))

        reply = await ask(bus, streamed=False)

        assert reply.truncated
        assert reply.finish_reason == "length"


async def test_a_caller_who_cancels_closes_the_socket_and_counts_nothing() -> None:
    async with two() as (server, bus):
        server.play("alpha", faults.silence())

        for _ in range(3):
            task = asyncio.create_task(bus.send("hello"))
            await until(lambda: server.in_flight("alpha") == 1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await until(lambda: server.in_flight("alpha") == 0)

        breaker = bus.magic.circuit_breakers["ai_provider:alpha"]
        assert all(call.hung_up for call in server.calls("alpha"))
        assert (breaker.state, breaker.failure_count) == ("closed", 0)


async def test_a_consumer_who_leaves_a_stream_closes_the_socket() -> None:
    async with two() as (server, bus):
        server.play("alpha", faults.ok(pace=0.02))

        deltas = bus.stream("hello")
        async for _ in deltas:
            break
        await deltas.aclose()

        await until(lambda: server.calls("alpha")[0].hung_up)


async def test_answers_share_one_connection() -> None:
    async with two() as (server, bus):
        for streamed in (False, True, False, True, False):
            await ask(bus, streamed)

        assert len({call.connection for call in server.log}) == 1


async def test_a_dead_provider_and_a_thousand_callers() -> None:
    async with (
        FaultServer() as server,
        AsyncMessageBus(Settings(), store=InMemoryStore()) as bus,
    ):
        server.play("alpha", faults.overloaded())
        await bus.register_provider("alpha", OpenAICompatible(server.base_url("alpha"), "k", "m"))

        results = await asyncio.gather(
            *(bus.send(f"question {n}", deadline=15.0) for n in range(1_000)),
            return_exceptions=True,
        )

        assert len(server.log) <= 1_100
        assert all(isinstance(result, ProviderOverloaded | CircuitOpen) for result in results)
        assert all(isinstance(getattr(result, "attempts", None), tuple) for result in results)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (faults.status(500), ServerError),
        (faults.reset(), ConnectFailed),
        (faults.rate_limited(120), RateLimited),
        (faults.overloaded(), ProviderOverloaded),
        (faults.silence(), AttemptTimeout),
    ],
    ids=["500", "reset", "429", "503", "silence"],
)
async def test_with_nobody_else_the_error_is_typed_and_in_time(
    script: Any, error: type[ZejzlError]
) -> None:
    async with two(attempt_timeout=0.3) as (server, bus):
        server.play("alpha", script)

        with pytest.raises(error) as caught:
            await bus.send("hello", "alpha", deadline=5.0)

        assert 1 <= len(caught.value.attempts) <= 3
        assert "beta" not in {call.provider for call in server.log}


async def test_nobody_listening_is_a_connect_failure() -> None:
    async with two() as (server, bus):
        await server.stop_listening()

        with pytest.raises(ConnectFailed, match="no connection"):
            await bus.send("hello")

        await server.resume()


async def test_a_restarted_server_is_reached_over_fresh_connections() -> None:
    async with two() as (server, bus):
        await bus.send("hello")
        await server.stop_listening()
        await server.resume()

        reply = await bus.send("hello", "alpha")

        assert reply.text == CANONICAL


async def until(condition: Any, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
