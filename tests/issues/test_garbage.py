"""Providers of users that answer, stream, fail and end in ways nobody asked for."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import finished, make_bus, register
from zejzl.errors import CircuitOpen, Incomplete, Malformed, ProviderError
from zejzl.messages import Delta, Reply, Request
from zejzl.settings import Settings
from zejzl.stores import SqliteStore
from zejzl.testing import FakeClock


class Mine:
    """A full provider whose answers are what a function says."""

    name = "mine"
    default_model = "m"

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer
        self.calls = 0

    async def generate(self, request: Request) -> Reply:
        self.calls += 1
        return self._answer()  # type: ignore[no-any-return]

    async def cleanup(self) -> None:
        pass


class Streams(Mine):
    """The same, streaming what a function yields."""

    def __init__(self, pieces: Callable[[], AsyncIterator[Any]]) -> None:
        super().__init__(lambda: Reply(text="whole", provider="mine"))
        self._pieces = pieces

    def stream(self, request: Request) -> AsyncIterator[Delta]:
        self.calls += 1
        return self._pieces()


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        {"text": "x"},
        "text",
        Reply(text=None, provider="mine"),  # type: ignore[arg-type]
        Reply(text=b"x", provider="mine"),  # type: ignore[arg-type]
        Reply(text="half \ud800", provider="mine"),
        Reply(text=" \n", provider="mine"),
    ],
    ids=["None", "dict", "str", "no text", "bytes", "half a character", "blank"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_what_is_no_answer_is_healed_like_any_failure(garbage: Any, streamed: bool) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("mine", Mine(lambda: garbage))
        await register(bus, clock, b="from b")

        if streamed:
            *_, last = await finished(clock, _read(bus))
            reply = last.reply
        else:
            reply = await finished(clock, bus.send("hello"))

        assert reply is not None and reply.text.strip() == "from b"
        assert {each.outcome for each in reply.attempts[:-1]} <= {"malformed", "empty"}
        assert bus.magic.circuit_breakers["ai_provider:mine"].failure_count > 0


async def _read(bus: AsyncMessageBus, **options: Any) -> list[Delta]:
    return [delta async for delta in bus.stream("hello", **options)]


async def _pieces(*pieces: Any) -> AsyncIterator[Any]:
    for piece in pieces:
        if isinstance(piece, BaseException):
            raise piece
        yield piece


WHOLE = Delta("", reply=Reply(text="one", provider="mine"))


@pytest.mark.parametrize(
    "piece", [None, "text", {}, Delta(5), Delta(None), Delta(b"x"), Delta("\ud800")],  # type: ignore[arg-type]
    ids=["None", "str", "dict", "number", "no text", "bytes", "half a character"],
)  # fmt: skip
@pytest.mark.parametrize("late", [False, True])
async def test_a_piece_that_is_none_breaks_the_stream_and_never_the_bus(
    piece: Any, late: bool
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        before = [Delta("one ")] if late else []
        provider = Streams(lambda: _pieces(*before, piece, WHOLE))
        await bus.register_provider("mine", provider)

        with pytest.raises(ProviderError) as caught:
            await finished(clock, _read(bus))

        assert not isinstance(caught.value, Incomplete) or caught.value.prefix == "one "
        assert bus.magic.circuit_breakers["ai_provider:mine"].failure_count > 0


@pytest.mark.parametrize(
    "after", [Delta("more"), RuntimeError("late"), ProviderError("late"), None], ids=str
)
async def test_what_comes_after_the_last_piece_changes_nothing(after: Any) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("mine", Streams(lambda: _pieces(Delta("one"), WHOLE, after)))

        deltas = await finished(clock, _read(bus))

        assert [delta.text for delta in deltas] == ["one", ""]
        assert bus.magic.circuit_breakers["ai_provider:mine"].failure_count == 0


async def test_a_stream_that_does_not_let_itself_be_closed_is_whole_all_the_same() -> None:
    async def stubborn() -> AsyncIterator[Delta]:
        yield Delta("one")
        try:
            yield WHOLE
            yield Delta("more")
        except GeneratorExit:
            yield Delta("still here")

    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("mine", Streams(stubborn))

        deltas = await finished(clock, _read(bus), within=5.0)

        assert deltas[-1].reply is not None


async def test_a_stream_that_hangs_when_it_is_closed_holds_nobody_up() -> None:
    clock = FakeClock()

    async def hangs() -> AsyncIterator[Delta]:
        try:
            await clock.sleep(float("inf"))
            yield Delta("never")
        finally:
            await clock.sleep(1_000.0)

    async with make_bus(clock, first_token_timeout=1.0) as bus:
        await bus.register_provider("mine", Streams(hangs))
        await register(bus, clock, b="from b")

        deltas = await finished(clock, _read(bus), within=5.0)

        assert deltas[-1].reply is not None and deltas[-1].reply.provider == "b"


async def test_a_provider_whose_own_work_was_cancelled_has_failed_and_is_healed() -> None:
    clock = FakeClock()

    async def cancelled(streams: bool) -> None:
        async with make_bus(clock) as bus:
            source = lambda: _pieces(asyncio.CancelledError())  # noqa: E731
            broken = Streams(source) if streams else Mine(_raises(asyncio.CancelledError()))
            await bus.register_provider("mine", broken)
            await register(bus, clock, b="from b")
            if streams:
                *_, last = await _read(bus)
                reply = last.reply
            else:
                reply = await bus.send("hello")
            assert reply is not None and reply.provider == "b"

    await finished(clock, cancelled(False))
    await finished(clock, cancelled(True))


def _raises(failure: BaseException) -> Callable[[], Any]:
    def answer() -> Any:
        raise failure

    return answer


class Unprintable(Exception):
    def __str__(self) -> str:
        raise AttributeError("'Unprintable' object has no attribute 'message'")


class Moody(Exception):
    @property
    def status_code(self) -> int:
        raise RuntimeError("no response")


@pytest.mark.parametrize("failure", [Unprintable(), Moody("x")], ids=["str", "status"])
async def test_a_failure_that_cannot_be_looked_at_is_a_failure_like_any_other(
    failure: Exception,
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("mine", Mine(_raises(failure)))
        await register(bus, clock, b="from b")

        reply = await finished(clock, bus.send("hello"))

        assert reply.provider == "b"
        assert reply.attempts[0].outcome == "unknown"


@pytest.mark.parametrize("way", ["leaves at the last piece", "reads on"])
async def test_a_stream_that_was_read_to_its_last_piece_warns_of_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    async with AsyncMessageBus(Settings(), store=SqliteStore(tmp_path / "z.db")) as bus:
        with caplog.at_level(logging.WARNING):
            async for delta in (deltas := bus.stream("hello", conversation_id="c")):
                if delta.reply is not None and way == "leaves at the last piece":
                    break
            await deltas.aclose()
            await bus.send("hello", conversation_id="c")

        assert len(await bus.history("c")) == 2
    assert caplog.messages == []


async def test_malformed_is_what_a_wrong_answer_is_called() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("mine", Mine(lambda: {"text": "x"}))

        with pytest.raises(Malformed, match=r"mine: .*Reply.*dict"):
            await finished(clock, bus.send("hello"))


async def test_a_refusal_from_a_bus_within_is_not_held_against_the_provider() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=CircuitOpen("inner", 9.0), b="from b")

        reply = await finished(clock, bus.send("hello"))

        assert reply.text == "from b"
        assert bus.magic.circuit_breakers["ai_provider:a"].failure_count == 0
