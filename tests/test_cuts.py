"""Answers that break at any byte (`bench/cuts.py`), and consumers who do not behave."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Literal

import aiohttp
import cuts
import pytest

from ai_framework import AsyncMessageBus
from tests.driving import assert_nothing_is_left
from zejzl.errors import Incomplete, Malformed, ProviderError
from zejzl.messages import Reply, Request
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore
from zejzl.testing import Call, FaultServer, faults, virtual
from zejzl.testing.behaviours import Answer, Play, WireName

TEXT = 'naïve кони 🐎 a\\b "c" end.'
KEYS = {"authorization": "Bearer k", "x-api-key": "k", "x-goog-api-key": "k"}
every_wire = pytest.mark.parametrize("wire", ["openai", "anthropic", "gemini"])
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


@asynccontextmanager
async def one(
    wire: WireName, play: Play, **settings: Any
) -> AsyncIterator[tuple[FaultServer, AsyncMessageBus]]:
    """Give a bus whose one provider plays something, in the running loop's time."""
    clock = virtual.VirtualClock()
    store = InMemoryStore(clock=clock)
    async with (
        FaultServer() as server,
        AsyncMessageBus(Settings(**settings), store=store, clock=clock) as bus,
    ):
        server.play("alpha", play)
        adapter = cuts.ADAPTERS[wire](server.base_url("alpha", wire), "key", "m", clock=clock)
        await bus.register_provider("alpha", adapter)
        yield server, bus


# ── Three hundred runs ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("part", range(6))
def test_no_cut_answer_passes_and_nothing_comes_twice(part: int) -> None:
    ends, wrong = virtual.run(cuts.run_all(seed=1, numbers=range(50 * part, 50 * part + 50)))

    assert wrong == []
    assert ends["healed"] and ends[cuts.BROKEN_LATE]


def test_the_judge_sees_what_is_wrong() -> None:
    """An answer that is only a beginning, as if nothing were wrong with it, and a lost call."""
    script = cuts.Script(Random(0))
    told = cuts.Told(text="so", reply=Reply(text="so", provider="primary"))
    log = [Call(provider="primary", request_id="1")]

    wrong = cuts.judged(script, told, {"1": "so: end."}, log)

    assert [each.partition(":")[0] for each in wrong] == ["not the whole answer", "1 calls, 0 told"]


# ── The fault itself ──────────────────────────────────────────────────────────────────────────────


async def body_of(
    server: FaultServer, wire: WireName, play: Play, *, stream: bool
) -> tuple[bytes, bool]:
    """Return what of a body arrives, and whether HTTP says that it was all."""
    server.play("alpha", play)
    model = f"/v1beta/models/m:{'streamGenerateContent' if stream else 'generateContent'}"
    paths = {"openai": "/chat/completions", "anthropic": "/v1/messages", "gemini": model}
    turn = {"role": "user", "content": "x", "parts": [{"text": "x"}]}
    asked = {"model": "m", "max_tokens": 99, "messages": [turn], "contents": [turn]}
    got, whole = b"", False
    async with aiohttp.ClientSession(headers={**KEYS, "anthropic-version": "x"}) as client:
        try:
            async with client.post(
                server.base_url("alpha", wire) + paths[wire], json={**asked, "stream": stream}
            ) as response:
                async for chunk in response.content.iter_any():
                    got += chunk
                whole = True
        except aiohttp.ClientPayloadError:
            pass
    return got, whole


@both_ways
@every_wire
@pytest.mark.parametrize("how", ["cut", "reset", "end"])
def test_a_body_stops_at_the_byte_it_is_told_to(
    how: Literal["cut", "reset", "end"], wire: WireName, stream: bool
) -> None:
    async def main() -> None:
        async with FaultServer() as server:
            server.play("alpha", faults.ok(TEXT))
            body, _ = await body_of(server, wire, faults.ok(TEXT), stream=stream)
            for place in (0, 1, len(body) // 2, len(body) - 1, len(body), len(body) + 9):
                got, whole = await body_of(
                    server, wire, faults.cut_at(place, TEXT, how=how), stream=stream
                )

                assert len(got) == min(place, len(body))
                # A plain body of the length that was announced is whole, whatever comes then.
                assert whole == (how == "end" or (not stream and place >= len(body)))

    virtual.run(main())


def test_a_place_may_be_told_by_the_body() -> None:
    async def main() -> bytes:
        async with FaultServer() as server:
            torn = faults.cut_at(lambda body: body.index("🐎".encode()) + 2, TEXT)
            return (await body_of(server, "openai", torn, stream=True))[0]

    assert virtual.run(main()).endswith("🐎".encode()[:2])


@every_wire
@pytest.mark.parametrize("line_end", ["\r\n", "\r"])
def test_an_answer_in_another_dress_is_the_same_answer(wire: WireName, line_end: str) -> None:
    async def main() -> tuple[bytes, list[str]]:
        async with FaultServer() as server:
            play = faults.dressed(faults.ok(TEXT), line_end=line_end, escaped=True)
            body, _ = await body_of(server, wire, play, stream=True)
            adapter = cuts.ADAPTERS[wire](server.base_url("alpha", wire), "key", "m")
            asked = Request(content="x")
            heard = [
                "".join([delta.text async for delta in adapter.stream(asked)]),
                (await adapter.generate(asked)).text,
            ]
            await adapter.cleanup()
            return body, heard

    body, heard = virtual.run(main())

    assert heard == [TEXT, TEXT]
    assert body.isascii() and b"\\u" in body
    assert body.replace(line_end.encode(), b"").count(b"\n") == 0


def test_words_are_written_as_the_vendors_write_them() -> None:
    half = "half a character \ud83d"

    async def main() -> list[bytes]:
        async with FaultServer() as server:
            return [
                (await body_of(server, "openai", faults.ok(text), stream=False))[0]
                for text in (TEXT, half)
            ]

    bodies = virtual.run(main())

    assert "naïve кони 🐎".encode() in bodies[0]
    said = [json.loads(body)["choices"][0]["message"]["content"] for body in bodies]
    assert said == [TEXT, half]


# ── Another encoding ──────────────────────────────────────────────────────────────────────────────


@both_ways
@every_wire
@pytest.mark.parametrize(
    ("charset", "odd"),
    [
        ("latin-1", "naïve café"),
        ("cp1251", "кони"),
        ("gbk", "東京 水"),
        ("shift_jis", "東京 ソ"),
        ("utf-16-le", "naïve 🐎"),
        ("utf-16-be", "naïve 🐎"),
    ],
)
def test_an_answer_in_another_encoding_is_a_typed_error_and_no_part_of_one_passes(
    charset: str, odd: str, wire: WireName, stream: bool
) -> None:
    text = f"plain words first, then {odd} ones."
    heard: list[str] = []

    async def main() -> ProviderError | None:
        play = faults.dressed(faults.ok(text), charset=charset)
        async with one(wire, play) as (_, bus):
            try:
                if stream:
                    async for delta in bus.stream("hello"):
                        heard.append(delta.text)
                else:
                    heard.append((await bus.send("hello")).text)
            except ProviderError as error:
                await assert_nothing_is_left(bus)
                return error
        return None

    error = virtual.run(main())

    told = "".join(heard)
    if error is None:  # JSON may be UTF-16, and its first bytes say so
        assert told == text and not stream and charset.startswith("utf-16")
    else:
        assert isinstance(error, Incomplete | Malformed)
        assert text.startswith(told) and len(told) < len(text)
        assert not told or (isinstance(error, Incomplete) and error.prefix == told)


# ── Consumers ─────────────────────────────────────────────────────────────────────────────────────


class Fails(Exception):
    pass


@pytest.mark.parametrize("leaves", ["raises", "breaks", "is cancelled"])
@every_wire
def test_a_consumer_who_leaves_in_the_middle_closes_the_socket_and_counts_nothing(
    wire: WireName, leaves: str
) -> None:
    async def read(bus: AsyncMessageBus) -> None:
        number = 0
        async for _ in bus.stream("hello"):  # without aclosing, as most programs do it
            number += 1
            if number == 20 and leaves == "raises":
                raise Fails
            if number == 20 and leaves == "breaks":
                return
            if number == 20:
                await asyncio.sleep(1e9)

    async def main() -> None:
        async with one(wire, faults.ok(pace=0.5)) as (server, bus):
            for _ in range(4):  # as failures, three in a row would open the breaker
                reading = asyncio.create_task(read(bus))
                await asyncio.sleep(25.0)
                reading.cancel()
                (ended,) = await asyncio.gather(reading, return_exceptions=True)
                assert isinstance(ended, Fails) == (leaves == "raises")
                del ended, reading
                await asyncio.sleep(0.1)

            assert all(call.hung_up and call.words < 60 for call in server.log)
            assert server.in_flight("alpha") == 0
            breaker = bus.magic.circuit_breakers["ai_provider:alpha"]
            counted = breaker.failure_count, breaker.success_count
            assert (breaker.state, *counted) == ("closed", 0, 0)
            await assert_nothing_is_left(bus)

    virtual.run(main())


@every_wire
def test_a_slow_consumer_holds_back_the_socket_and_not_memory(wire: WireName) -> None:
    word, words = " " + "x" * 250_000, 160  # 40 MB
    play = Answer(words=(word,) * words, pace=1e-9)  # so that each word is a write of its own

    async def main() -> None:
        async with one(wire, play) as (server, bus):
            length = 0
            async for delta in bus.stream("hello"):
                if length in (0, 10 * len(word)):
                    await asyncio.sleep(60.0)
                    sent = server.log[0].words
                    await asyncio.sleep(60.0)  # nobody counts it as a stall

                    assert sent * len(word) < 16_000_000  # this, the kernel's buffers hold
                    assert server.log[0].words == sent
                length += len(delta.text)

            assert length == words * len(word)
            assert server.log[0].words == words

    virtual.run(main())


# ── What a broken stream teaches ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("play", "failure", "remedies"),
    [
        (faults.cut(40), "cut_stream", ["reconnect", "failover"]),
        (faults.no_finish(40), "cut_stream", ["reconnect", "failover"]),
        (faults.malformed(40), "malformed", ["retry", "failover"]),
        (faults.error_event(40), "overloaded", ["failover"]),
        (faults.stall(40), "stalled", ["failover"]),
    ],
    ids=["cut", "no finish reason", "malformed", "error event", "stall"],
)
def test_a_stream_that_breaks_after_its_words_is_counted_at_its_end(
    play: Play, failure: str, remedies: list[str]
) -> None:
    async def main() -> None:
        async with one("openai", play) as (server, bus):
            clock = virtual.VirtualClock()
            spare = cuts.ADAPTERS["openai"](server.base_url("beta"), "key", "m", clock=clock)
            await bus.register_provider("beta", spare)
            deltas = bus.stream("hello")
            await anext(deltas)
            alpha = bus.magic.circuit_breakers["ai_provider:alpha"]
            early = alpha.failure_count, alpha.success_count
            async for _ in deltas:
                pass
            beta = bus.magic.circuit_breakers["ai_provider:beta"]

            assert early == (0, 0)
            assert (alpha.failure_count, beta.failure_count) == (len(remedies), 0)
            assert (alpha.success_count, beta.success_count) == (0, 1)
            learned = [
                (each.failure_class, each.remedy, each.success)
                for each in bus.magic.healing_history
            ]
            assert learned == [(failure, each, each == "failover") for each in remedies]

    virtual.run(main())
