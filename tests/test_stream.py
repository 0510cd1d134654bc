"""Streams: restarted freely before the first piece, never passed off as whole when cut."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import assert_nothing_is_left, finished, make_bus, register
from zejzl.errors import (
    ConnectFailed,
    Incomplete,
    Malformed,
    ProviderError,
    ProviderOverloaded,
    ServerError,
)
from zejzl.messages import Delta, Reply, Request
from zejzl.testing import FakeClock


async def read(bus: AsyncMessageBus, content: str = "hello", **options: object) -> list[Delta]:
    return [delta async for delta in bus.stream(content, **options)]  # type: ignore[arg-type]


async def test_a_stream_yields_the_text_and_ends_with_the_reply() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a="three short words")

        deltas = await finished(clock, read(bus))

        assert "".join(delta.text for delta in deltas) == "three short words "
        assert [delta.reply is None for delta in deltas] == [True, True, True, False]
        reply = deltas[-1].reply
        assert reply is not None and reply.text == "three short words"


async def test_a_stream_that_fails_before_its_first_piece_goes_elsewhere() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=("", ProviderOverloaded("full")), b="from b")

        deltas = await finished(clock, read(bus))

        reply = deltas[-1].reply
        assert reply is not None
        assert [each.provider for each in reply.attempts] == ["a", "b"]
        assert "".join(delta.text for delta in deltas).strip() == "from b"


@pytest.mark.parametrize(
    "failure", [ConnectFailed("cut"), Incomplete("cut"), Malformed("garbage"), ServerError("in it")]
)
async def test_a_stream_that_breaks_after_its_first_piece_is_incomplete(
    failure: Exception,
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=("one two", failure), b="from b")
        got: list[str] = []

        async def consume() -> None:
            async for delta in bus.stream("hello", conversation_id="c"):
                got.append(delta.text)

        with pytest.raises(Incomplete) as caught:
            await finished(clock, consume())

        assert caught.value.prefix == "".join(got) == "one two "
        assert caught.value.provider == "a"
        assert [each.outcome for each in caught.value.attempts].count("ok") == 0  # type: ignore[attr-defined]
        assert await bus.history("c") == []


async def streamed(bus: AsyncMessageBus, **how: Any) -> tuple[list[str], list[bool], Reply]:
    """Return the pieces with words, which of them ask to begin anew, and the reply."""
    deltas = [delta async for delta in bus.stream("hello", **how)]
    reply = deltas[-1].reply
    assert reply is not None
    told = [delta for delta in deltas if delta.text]
    return [delta.text for delta in told], [delta.restart for delta in told], reply


@pytest.mark.parametrize(
    ("scripts", "answered_by"),
    [
        ({"a": [("one two three", Incomplete("cut")), "one two three four"], "b": "x"}, "a"),
        ({"a": ("one two three", ProviderOverloaded("x")), "b": "one two three four"}, "b"),
    ],
    ids=["by the same one", "by the next one"],
)
async def test_a_broken_stream_goes_on_where_the_new_answer_repeats_what_was_told(
    scripts: dict[str, Any], answered_by: str
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, **scripts)

        texts, restarts, reply = await finished(clock, streamed(bus))

        assert "".join(texts).strip() == reply.text == "one two three four"
        assert not any(restarts)
        assert (reply.provider, reply.healed) == (answered_by, True)


async def test_another_answer_is_begun_anew_for_who_can_discard_what_there_is() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=("one two", ProviderOverloaded("x")), b="one second answer")

        texts, restarts, reply = await finished(clock, streamed(bus, allow_restart=True))

        anew = restarts.index(True)
        assert "".join(texts[:anew]) == "one two "
        assert "".join(texts[anew:]).strip() == reply.text == "one second answer"
        assert restarts.count(True) == 1


async def test_an_answer_shorter_than_what_was_told_is_another_one() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=("one two three", ProviderOverloaded("x")), b="one")

        with pytest.raises(Incomplete) as caught:
            await finished(clock, streamed(bus))

        assert caught.value.prefix == "one two three "
        assert caught.value.provider == "a"
        assert any("another answer" in note for note in caught.value.__notes__)


async def test_a_stream_that_falls_silent_is_stalled() -> None:
    clock = FakeClock()

    class Stalls:
        name = "stalls"
        default_model = "m"

        async def generate(self, request: Request) -> Reply:
            raise NotImplementedError

        async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
            yield Delta("one ")
            await clock.sleep(1e9)

        async def cleanup(self) -> None:
            return None

    async with make_bus(clock, idle_timeout=4.0) as bus:
        await bus.register_provider("a", Stalls())

        with pytest.raises(Incomplete, match=r"fell silent for 4 s") as caught:
            await finished(clock, read(bus), within=60.0)

        assert caught.value.failure_class == "stalled"
        assert caught.value.prefix == "one "


async def test_the_wait_for_the_first_piece_has_a_limit_of_its_own() -> None:
    clock = FakeClock()
    async with make_bus(clock, first_token_timeout=2.0) as bus:
        await register(bus, clock, a=None, b="from b")

        deltas = await finished(clock, read(bus))

        reply = deltas[-1].reply
        assert reply is not None
        assert [(each.provider, each.outcome) for each in reply.attempts] == [
            ("a", "first_token_timeout"),
            ("b", "ok"),
        ]
        assert 2.0 <= reply.latency_s <= 2.1


async def test_the_deadline_of_the_settings_does_not_cut_a_stream_that_flows() -> None:
    clock = FakeClock()

    class Slow:
        name = "slow"
        default_model = "m"

        async def generate(self, request: Request) -> Reply:
            raise NotImplementedError

        async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
            for _ in range(10):
                await clock.sleep(1.0)
                yield Delta("word ")
            yield Delta("", reply=Reply(text="word " * 10, provider="slow"))

        async def cleanup(self) -> None:
            return None

    async with make_bus(clock, deadline=3.0) as bus:
        await bus.register_provider("slow", Slow())

        whole = await finished(clock, read(bus))
        with pytest.raises(Incomplete, match="deadline"):
            await finished(clock, read(bus, deadline=3.0))

        assert len(whole) == 11


async def test_a_consumer_who_leaves_closes_the_provider_and_counts_nothing() -> None:
    clock = FakeClock()
    closed = []

    class Endless:
        name = "endless"
        default_model = "m"

        async def generate(self, request: Request) -> Reply:
            raise NotImplementedError

        async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
            try:
                while True:
                    yield Delta("more ")
            finally:
                closed.append(True)

        async def cleanup(self) -> None:
            return None

    async with make_bus(clock) as bus:
        await bus.register_provider("a", Endless())

        deltas = bus.stream("hello")
        async for _ in deltas:
            break
        await deltas.aclose()

        breaker = bus.magic.circuit_breakers["ai_provider:a"]
        assert closed == [True]
        assert (breaker.failure_count, breaker.success_count) == (0, 0)
        (message,) = await bus.store.messages()
        assert message.error is not None and "cancelled" in message.error


async def test_a_slow_consumer_is_not_held_against_the_provider() -> None:
    clock = FakeClock()
    async with make_bus(clock, idle_timeout=1.0) as bus:
        await register(bus, clock, a="one two three")

        async def consume() -> Reply | None:
            async for delta in bus.stream("hello"):
                await clock.sleep(5.0)
                if delta.reply:
                    return delta.reply
            return None

        reply = await finished(clock, consume())

        assert reply is not None and reply.text == "one two three"


async def test_a_provider_that_cannot_stream_answers_in_one_piece() -> None:
    clock = FakeClock()

    class Simple:
        name = "simple"

        async def generate_response(self, message: str, history: list[dict[str, str]]) -> str:
            return f"you said {message}"

    async with make_bus(clock) as bus:
        await bus.register_provider("simple", Simple())

        deltas = await finished(clock, read(bus))

        assert [delta.text for delta in deltas] == ["you said hello", ""]


async def test_a_streaming_probe_that_has_spoken_lets_another_in_and_closes_at_its_clean_end() -> (
    None
):
    clock = FakeClock()
    gate = asyncio.Event()

    class Gated:
        name = "gated"
        default_model = "m"
        down = True

        async def generate(self, request: Request) -> Reply:
            raise NotImplementedError

        async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
            if self.down:
                raise ServerError("down")
            yield Delta("one ")
            await gate.wait()
            yield Delta("", reply=Reply(text="one", provider="gated"))

        async def cleanup(self) -> None:
            return None

    provider = Gated()
    async with make_bus(clock, idle_timeout=None) as bus:
        await bus.register_provider("a", provider)
        for _ in range(2):
            with pytest.raises(ServerError):
                await finished(clock, read(bus))
        provider.down = False
        await clock.advance(2.0)

        first = asyncio.create_task(read(bus))
        await clock.advance(0.01)
        second = asyncio.create_task(read(bus))
        await clock.advance(0.01)
        state = bus.magic.circuit_breakers["ai_provider:a"].state
        gate.set()
        await asyncio.gather(first, second)

        assert state == "half_open"
        assert bus.magic.circuit_breakers["ai_provider:a"].state == "closed"


class Plays:
    """A full provider that streams what a function yields."""

    name, default_model = "plays", "m"

    def __init__(self, pieces: Callable[[], AsyncIterator[Delta]]) -> None:
        self._pieces = pieces

    async def generate(self, request: Request) -> Reply:
        raise NotImplementedError

    def stream(self, request: Request) -> AsyncIterator[Delta]:
        return self._pieces()

    async def cleanup(self) -> None:
        return None


WHOLE = Delta("", reply=Reply(text="one", provider="plays"))


async def test_an_answer_that_is_whole_is_there_though_its_provider_hangs_at_its_end() -> None:
    clock = FakeClock()

    async def pieces() -> AsyncIterator[Delta]:
        try:
            yield Delta("one")
            yield WHOLE
            await clock.sleep(float("inf"))
        finally:
            await clock.sleep(float("inf"))

    async with make_bus(clock) as bus:
        await bus.register_provider("a", Plays(pieces))

        deltas = await finished(clock, read(bus, conversation_id="c"), within=5.0)

        assert [delta.text for delta in deltas] == ["one", ""]
        assert [message.response for message in await bus.history("c")] == ["one"]
        assert bus.magic.circuit_breakers["ai_provider:a"].failure_count == 0
        await assert_nothing_is_left(bus)


async def test_a_stream_that_falls_silent_and_then_hangs_when_it_is_ended_is_stalled() -> None:
    clock = FakeClock()

    async def pieces() -> AsyncIterator[Delta]:
        try:
            yield Delta("one ")
            await clock.sleep(float("inf"))
        finally:
            await clock.sleep(float("inf"))

    async with make_bus(clock, idle_timeout=2.0) as bus:
        await bus.register_provider("a", Plays(pieces))

        with pytest.raises(Incomplete, match=r"fell silent for 2 s") as caught:
            await finished(clock, read(bus, patience=0), within=30.0)

        assert caught.value.failure_class == "stalled"
        await assert_nothing_is_left(bus)


async def test_a_stream_that_hangs_twice_when_it_is_closed_holds_its_consumer_up_for_seconds() -> (
    None
):
    clock = FakeClock()

    async def pieces() -> AsyncIterator[Delta]:
        try:
            while True:
                yield Delta("more ")
        finally:
            try:
                await clock.sleep(float("inf"))
            finally:
                await clock.sleep(float("inf"))

    async with make_bus(clock) as bus:
        await bus.register_provider("a", Plays(pieces))

        async def leave() -> None:
            async with aclosing(bus.stream("hello")) as deltas:
                async for _ in deltas:
                    break

        await finished(clock, leave(), within=5.0)

        await assert_nothing_is_left(bus)


@pytest.mark.parametrize("where", ["after its last piece", "when it is closed"])
async def test_an_answer_that_is_whole_is_there_though_its_providers_own_work_was_cancelled(
    where: str,
) -> None:
    async def pieces() -> AsyncIterator[Delta]:
        try:
            yield Delta("one")
            yield WHOLE
            if where == "after its last piece":
                raise asyncio.CancelledError
            yield Delta("more")
            await asyncio.Event().wait()
        finally:
            if where == "when it is closed":
                raise asyncio.CancelledError

    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("a", Plays(pieces))

        deltas = await finished(clock, read(bus), within=5.0)

        reply = deltas[-1].reply
        assert reply is not None and not reply.healed


async def test_a_time_out_of_the_providers_own_is_a_stall_where_there_is_no_limit_too() -> None:
    async def pieces() -> AsyncIterator[Delta]:
        yield Delta("one ")
        raise TimeoutError

    clock = FakeClock()
    async with make_bus(clock, idle_timeout=None) as bus:
        await bus.register_provider("a", Plays(pieces))

        with pytest.raises(Incomplete, match="the stream fell silent") as caught:
            await finished(clock, read(bus, patience=0))

        assert caught.value.failure_class == "stalled"
        await assert_nothing_is_left(bus)


@pytest.mark.parametrize("begun", [True, False], ids=["after words", "before any"])
async def test_pieces_without_words_do_not_put_off_the_limit_of_the_next_one(begun: bool) -> None:
    clock = FakeClock()

    async def pieces() -> AsyncIterator[Delta]:
        if begun:
            yield Delta("one ")
        while True:
            await clock.sleep(0.1)
            yield Delta("")

    async with make_bus(clock, first_token_timeout=2.0, idle_timeout=2.0) as bus:
        await bus.register_provider("a", Plays(pieces))

        with pytest.raises(ProviderError) as caught:
            await finished(clock, read(bus, patience=0, max_tokens=5), within=10.0)

        expected = "stalled" if begun else "first_token_timeout"
        assert caught.value.failure_class == expected
        assert caught.value.attempts[0].seconds == pytest.approx(2.0, abs=0.1)  # type: ignore[attr-defined]
        await assert_nothing_is_left(bus)


async def test_pieces_without_words_that_come_without_end_let_others_go_on() -> None:
    clock = FakeClock()

    async def pieces() -> AsyncIterator[Delta]:
        while True:
            yield Delta("")

    async with make_bus(clock, first_token_timeout=2.0) as bus:
        await bus.register_provider("a", Plays(pieces))
        await register(bus, clock, b="from b")
        reading = asyncio.create_task(read(bus))
        await clock.advance(1.0)

        reply = await finished(clock, bus.send("hello", "b"))
        await clock.advance(2.0)

        assert reply.text == "from b"
        assert (await reading)[-1].reply is not None


@pytest.mark.parametrize("reply", [0, "", "an answer", {}], ids=repr)
async def test_a_last_piece_whose_reply_is_none_breaks_the_stream(reply: Any) -> None:
    async def pieces() -> AsyncIterator[Delta]:
        yield Delta("one ")
        yield Delta("", reply=reply)

    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("a", Plays(pieces))

        with pytest.raises(Incomplete, match="must be a Reply") as caught:
            await finished(clock, read(bus, patience=0))

        assert caught.value.failure_class == "malformed"
        await assert_nothing_is_left(bus)
