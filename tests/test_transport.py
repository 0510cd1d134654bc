"""Bytes on a socket: whatever a server sends or fails to send becomes an answer or an error."""

import asyncio
import gc
import gzip
import json
import logging
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zejzl.errors import (
    AuthFailed,
    ConnectFailed,
    Incomplete,
    Malformed,
    ProviderError,
    RateLimited,
    ServerError,
    SettingsError,
)
from zejzl.messages import Delta, Request
from zejzl.providers import Anthropic, Gemini, OpenAICompatible
from zejzl.providers.adapter import Adapter
from zejzl.providers.sse import MAX_EVENT
from zejzl.providers.transport import MAX_ANSWER, MAX_ERROR, checked_key, checked_url
from zejzl.settings import Secret

KEY = "sk-0123456789abcdef"
ASKED = Request(content="what do rivers do")
TEXT = "žluťoučký kůň 🐎 水"

ADAPTERS: dict[str, type[Adapter]] = {
    "openai": OpenAICompatible,
    "anthropic": Anthropic,
    "gemini": Gemini,
}
PLAIN: dict[str, Any] = {
    "openai": {"choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}]},
    "anthropic": {
        "type": "message",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
    },
    "gemini": {"candidates": [{"content": {"parts": [{"text": TEXT}]}, "finishReason": "STOP"}]},
}
START = {"type": "content_block_start", "content_block": {"type": "text", "text": ""}}
EVENTS: dict[str, list[Any]] = {
    "openai": [
        {"choices": [{"delta": {"content": TEXT}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    ],
    "anthropic": [
        START,
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": TEXT}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    ],
    "gemini": [
        {"candidates": [{"content": {"parts": [{"text": TEXT}]}}]},
        {"candidates": [{"finishReason": "STOP"}]},
    ],
}
every_wire = pytest.mark.parametrize("wire", ADAPTERS)


# ── what a server says, byte for byte ─────────────────────────────────────────────────────────


def dumped(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def http(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    """Return a response; a header is named with _ for - and left out when ""."""
    usual = {"content-type": "application/json", "content-length": str(len(body))}
    usual |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in usual.items() if value)
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def sse(events: list[Any], end: str = "\n") -> bytes:
    return b"".join(b"data: " + dumped(event) + f"{end}{end}".encode() for event in events)


def streamed(raw: bytes, **headers: str) -> bytes:
    return http(raw, **{"content_type": "text/event-stream", **headers})


class Canned:
    """A server that says the same to every request, and knows what it was asked."""

    def __init__(self, answer: bytes, *, hold: bool, torn: bool) -> None:
        self.requests: list[bytes] = []
        self.left = asyncio.Event()
        self._answer = answer
        self._hold = hold
        self._torn = torn
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                for piece in self._pieces():
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if not self._hold:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()

    def _pieces(self) -> list[bytes]:
        if not self._torn:
            return [self._answer]
        return [self._answer[place : place + 1] for place in range(len(self._answer))]

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def canned(
    answer: bytes, *, hold: bool = False, torn: bool = False
) -> AsyncIterator[tuple[str, Canned]]:
    """Serve `answer`, then close the connection unless `hold`; `torn`: byte for byte."""
    server = Canned(answer, hold=hold, torn=torn)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", server
    finally:
        listening.close()
        server.close()
        await asyncio.sleep(0)


@contextmanager
def blackhole() -> Iterator[str]:
    """Yield an address that never accepts: its queue is full, so that connecting hangs."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        queue = [socket.socket() for _ in range(3)]
        for waiting in queue:
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield f"http://127.0.0.1:{full.getsockname()[1]}"
        for waiting in queue:
            waiting.close()


blackholed = pytest.mark.skipif(sys.platform != "linux", reason="others refuse when it is full")


async def plain(provider: Adapter) -> str:
    return (await provider.generate(ASKED)).text


async def pieces(provider: Adapter) -> str:
    deltas = [delta async for delta in provider.stream(ASKED)]
    assert deltas[-1].reply is not None
    assert "".join(delta.text for delta in deltas) == deltas[-1].reply.text
    return deltas[-1].reply.text


ASK: dict[str, Callable[[Adapter], Any]] = {"plain": plain, "streamed": pieces}
either_way = pytest.mark.parametrize("ask", ASK.values(), ids=ASK)


@asynccontextmanager
async def speaking(wire: str, base_url: str, **options: Any) -> AsyncIterator[Adapter]:
    provider = ADAPTERS[wire](base_url, KEY, "m", **options)
    try:
        yield provider
    finally:
        await provider.cleanup()


async def outcome(
    answer: bytes, ask: Callable[[Adapter], Any], wire: str = "openai", **served: bool
) -> Any:
    """Return what asking a server that says `answer` comes to: a text or an error."""
    async with canned(answer, **served) as (base_url, _), speaking(wire, base_url) as provider:
        try:
            return await ask(provider)
        except ProviderError as failure:
            return failure


# ── answers that differ in form only ──────────────────────────────────────────────────────────


@every_wire
@pytest.mark.parametrize(
    "answer",
    [
        lambda body: http(body),
        lambda body: http(body, content_type="text/plain"),
        lambda body: http(body, content_type=""),
        lambda body: http(body, content_length=""),
        lambda body: http(body, "201 Created"),
        lambda body: http(gzip.compress(body), content_encoding="gzip"),
        lambda body: http(b"\xef\xbb\xbf" + body),
        lambda body: b"HTTP/1.1 100 Continue\r\n\r\n" + http(body),
    ],
    ids=["json", "text", "no type", "no length", "201", "gzip", "byte order mark", "100 first"],
)
async def test_a_plain_answer_is_read_in_any_dress(
    wire: str, answer: Callable[[bytes], bytes]
) -> None:
    assert await outcome(answer(dumped(PLAIN[wire])), plain, wire) == TEXT


@every_wire
@pytest.mark.parametrize(
    "answer",
    [
        lambda events: streamed(sse(events)),
        lambda events: streamed(sse(events), content_type="text/plain"),
        lambda events: streamed(sse(events), content_type=""),
        lambda events: streamed(sse(events), content_length=""),
        lambda events: streamed(gzip.compress(sse(events)), content_encoding="gzip"),
        lambda events: streamed(sse(events, "\r\n")),
        lambda events: streamed(sse(events, "\r")),
        lambda events: streamed(
            b"\xef\xbb\xbf: hello\n\n" + sse(events).replace(b"\n\n", b"\n\n:\n")
        ),
        lambda events: streamed(sse(events).removesuffix(b"\n\n")),
        lambda events: streamed(sse(events) + b"data:\n\ndata: [DONE]\n\n"),
    ],
    ids=[
        "events",
        "as text",
        "no type",
        "no length",
        "gzip",
        "CRLF",
        "CR",
        "comments and a byte order mark",
        "no last blank line",
        "an empty datum and [DONE]",
    ],
)
async def test_a_stream_is_read_in_any_dress(
    wire: str, answer: Callable[[list[Any]], bytes]
) -> None:
    assert await outcome(answer(EVENTS[wire]), pieces, wire) == TEXT


@every_wire
async def test_characters_torn_by_the_network_come_out_whole(wire: str) -> None:
    assert await outcome(streamed(sse(EVENTS[wire])), pieces, wire, torn=True) == TEXT


@every_wire
@pytest.mark.parametrize("indent", [None, 2], ids=["on one line", "on many"])
async def test_a_server_that_ignores_stream_is_understood(wire: str, indent: int | None) -> None:
    body = json.dumps(PLAIN[wire], indent=indent).encode()

    assert await outcome(http(body), pieces, wire) == TEXT


@every_wire
async def test_what_breaks_after_the_end_of_an_answer_loses_nothing(wire: str) -> None:
    stop: list[Any] = [{"type": "message_stop"}] if wire == "anthropic" else []
    whole = sse([*EVENTS[wire], *stop]) + (b"data: [DONE]\n\n" if wire == "openai" else b"")

    cut = await outcome(streamed(whole, content_length="100000"), pieces, wire)
    torn = await outcome(streamed(whole + b'data: {"typ'), pieces, wire)

    assert (cut, torn) == (TEXT, TEXT)


@pytest.mark.parametrize(
    ("wire", "mark"),
    [("openai", b"data: [DONE]\n\n"), ("anthropic", b'data: {"type": "message_stop"}\n\n')],
    ids=["openai", "anthropic"],
)
async def test_after_its_end_mark_an_answer_does_not_wait_for_the_connections_end(
    wire: str, mark: bytes
) -> None:
    open_ended = streamed(sse(EVENTS[wire]) + mark, content_length="99999")
    async with canned(open_ended, hold=True) as (base_url, server):
        async with speaking(wire, base_url) as provider, aclosing(provider.stream(ASKED)) as stream:
            replies = [delta.reply async for delta in taken(stream)]

        await server.left.wait()

    assert [reply.text for reply in replies if reply] == [TEXT]


async def taken(stream: AsyncIterator[Delta]) -> AsyncIterator[Delta]:
    """Yield a stream's pieces up to its reply."""
    async for delta in stream:
        yield delta
        if delta.reply is not None:
            return


async def test_garbage_after_done_is_not_looked_at() -> None:
    raw = sse(EVENTS["openai"]) + b"data: [DONE]\n\ndata: \xff{\n\n"

    assert await outcome(streamed(raw), pieces) == TEXT


# ── answers that are none ─────────────────────────────────────────────────────────────────────

GZIPPED = gzip.compress(dumped(PLAIN["openai"]))
BROKEN: dict[str, tuple[bytes, type[ProviderError], type[ProviderError]]] = {
    "nothing": (b"", ConnectFailed, ConnectFailed),
    "no HTTP": (b"HELLO\r\n\r\n", Malformed, Malformed),
    "a header without end": (http(b"", x="y" * 20_000), Malformed, Malformed),
    "a length that is none": (http(b"{}", content_length="two"), Malformed, Malformed),
    "chunks that are none": (
        http(b"zz\r\n{}\r\n", content_length="", transfer_encoding="chunked"),
        Malformed,
        Malformed,
    ),
    "half a status line": (b"HTTP/1.1 20", ConnectFailed, ConnectFailed),
    "headers only": (http(b"", content_length="99"), Incomplete, Incomplete),
    "half a body": (http(b'{"choices": [', content_length="99"), Incomplete, Incomplete),
    "an empty body": (http(b""), Malformed, Incomplete),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", Malformed, Malformed),
    "a switch of protocols": (
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        Malformed,
        Malformed,
    ),
    "a page": (http(b"<html>", content_type="text/html"), Malformed, Malformed),
    "half a JSON": (http(b'{"choices": ['), Malformed, Malformed),
    "no UTF-8": (http(b'{"choices": "\xff"}'), Malformed, Malformed),
    "a list": (http(b"[1]"), Malformed, Malformed),
    "a text": (http(b'"choices"'), Malformed, Malformed),
    "null": (http(b"null"), Malformed, Malformed),
    "an object of another kind": (http(b"{}"), Malformed, Malformed),
    "nested without end": (http(b"[" * 100_000), Malformed, Malformed),
    "a number without end": (http(b'{"choices": ' + b"9" * 5_000 + b"}"), Malformed, Malformed),
    "gzip that is none": (http(b"gzip?" * 9, content_encoding="gzip"), Malformed, Malformed),
    "half a gzip": (http(GZIPPED[:40], content_encoding="gzip"), Malformed, Malformed),
    "an unknown packing": (http(b"?", content_encoding="br"), Malformed, Malformed),
    "an answer without end": (http(b" " * (MAX_ANSWER + 1)), Malformed, Malformed),
    "an event without end": (streamed(b"data: " + b"x" * MAX_EVENT), Malformed, Malformed),
    "no event": (streamed(b""), Malformed, Incomplete),
    "comments only": (streamed(b": ping\n\n"), Malformed, Incomplete),
    "a torn event": (streamed(b'data: {"choices": [{"del'), Malformed, Incomplete),
    "an event that is no JSON": (streamed(b"data: {,}\n\n"), Malformed, Malformed),
    "an event that is no object": (streamed(b"data: [1]\n\n"), Malformed, Malformed),
    "an event that is no UTF-8": (streamed(b"data: \xff\n\n"), Malformed, Malformed),
    "[DONE] alone": (streamed(b"data: [DONE]\n\n"), Malformed, Incomplete),
    "an error event by name": (
        streamed(b'event: error\ndata: {"code": "rate_limit_exceeded", "message": "x"}\n\n'),
        Malformed,
        RateLimited,
    ),
}


@either_way
@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_no_answer_becomes_the_error_that_says_so(
    name: str, ask: Callable[[Adapter], Any]
) -> None:
    answer, as_plain, as_stream = BROKEN[name]

    failure = await outcome(answer, ask)

    assert type(failure) is (as_plain if ask is plain else as_stream)
    assert (failure.provider, failure.model) == ("chatgpt", "m")
    assert len(failure.args[0]) <= 600
    assert "\n" not in str(failure)


@either_way
async def test_an_answer_too_long_is_called_so_and_not_read_to_its_end(
    ask: Callable[[Adapter], Any],
) -> None:
    endless = http(b" " * (MAX_ANSWER + 1), content_length="999999999")

    failure = await outcome(endless, ask, hold=True)

    assert type(failure) is Malformed
    assert failure.args[0] == f"the answer is longer than {MAX_ANSWER} bytes"


@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=200), ask=st.sampled_from([plain, pieces]), kind=st.booleans())
async def test_any_bytes_become_an_answer_or_an_error(
    body: bytes, ask: Callable[[Adapter], Any], kind: bool
) -> None:
    got = await outcome(streamed(body) if kind else http(body), ask)

    assert isinstance(got, ProviderError)


@either_way
async def test_the_status_of_an_error_counts_even_if_its_body_breaks_off(
    ask: Callable[[Adapter], Any],
) -> None:
    answer = http(b'{"err', "429 Too Many", content_length="99", retry_after="7", x_request_id="r1")

    failure = await outcome(answer, ask)

    assert type(failure) is RateLimited
    assert (failure.status, failure.retry_after, failure.request_id) == (429, 7.0, "r1")


@either_way
async def test_an_error_without_end_is_not_waited_for(ask: Callable[[Adapter], Any]) -> None:
    endless = http(b"x" * (MAX_ERROR + 1), "500 No", content_length="999999999")

    failure = await outcome(endless, ask, hold=True)

    assert type(failure) is ServerError


@either_way
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed_so_the_key_stays_at_home(
    status: str, ask: Callable[[Adapter], Any]
) -> None:
    async with canned(http(dumped(PLAIN["openai"]))) as (elsewhere, other):
        failure = await outcome(http(b"", status, location=elsewhere), ask)

        assert type(failure) is Malformed
        assert failure.status == int(status.partition(" ")[0])
        assert other.requests == []


async def test_no_cookie_is_kept() -> None:
    answer = http(dumped(PLAIN["openai"]), set_cookie="who=me; Path=/")
    async with (
        canned(answer, hold=True) as (base_url, server),
        speaking("openai", base_url.replace("127.0.0.1", "localhost")) as provider,
    ):
        await provider.generate(ASKED)
        await provider.generate(ASKED)

        assert len(server.requests) == 2
        assert b"cookie" not in server.requests[1].lower()


# ── no connection ─────────────────────────────────────────────────────────────────────────────


@either_way
@pytest.mark.parametrize(
    ("base_url", "words"),
    [
        ("http://127.0.0.1:1/v1", "no connection: .*Connect call failed"),
        ("http://nowhere.invalid/v1", "no connection: "),
    ],
    ids=["refused", "unknown host"],
)
async def test_no_connection_says_where_to_and_why(
    base_url: str, words: str, ask: Callable[[Adapter], Any]
) -> None:
    async with speaking("openai", base_url) as provider:
        with pytest.raises(ConnectFailed, match=f"{base_url}: {words}") as caught:
            await ask(provider)

    assert caught.value.__cause__ is not None


async def test_tls_spoken_to_who_does_not_is_no_connection() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(b"", "400 Bad"))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with speaking("openai", f"https://127.0.0.1:{port}") as provider:
            with pytest.raises(ConnectFailed):
                await provider.generate(ASKED)


@blackholed
@either_way
async def test_connecting_takes_no_longer_than_its_limit(ask: Callable[[Adapter], Any]) -> None:
    with blackhole() as base_url:
        async with speaking("openai", base_url, connect_timeout=0.05) as provider:
            with pytest.raises(ConnectFailed, match="no connection in time"):
                await ask(provider)


async def no_answer(*arguments: object, **options: object) -> None:
    await asyncio.get_running_loop().create_future()


async def test_looking_up_the_host_is_part_of_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", no_answer)
    async with speaking("openai", "http://host.invalid", connect_timeout=0.05) as provider:
        with pytest.raises(ConnectFailed, match="no connection in time"):
            await provider.generate(ASKED)


# ── the end ───────────────────────────────────────────────────────────────────────────────────


async def started(*coroutines: Any) -> list["asyncio.Task[Any]"]:
    """Return tasks that have run as far as they get without the network."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


@blackholed
async def test_cleanup_ends_calls_that_are_connecting() -> None:
    with blackhole() as base_url:
        async with speaking("openai", base_url, connect_timeout=None) as provider:
            tasks = await started(plain(provider), pieces(provider))

            await provider.cleanup()
            ends = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(end) for end in ends] == [ConnectFailed, ConnectFailed]
    assert [task.cancelling() for task in tasks] == [0, 0]


async def test_cleanup_ends_calls_that_look_up_their_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", no_answer)
    async with speaking("openai", "http://host.invalid", connect_timeout=None) as provider:
        tasks = await started(plain(provider), plain(provider), pieces(provider))

        await provider.cleanup()
        ends = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(end) for end in ends] == [ConnectFailed] * 3


async def test_a_caller_who_cancels_while_cleanup_runs_is_cancelled() -> None:
    async with (
        canned(b"", hold=True) as (base_url, server),
        speaking("openai", base_url) as provider,
    ):
        (task,) = await started(plain(provider))
        while not server.requests:
            await asyncio.sleep(0.001)

        task.cancel()
        await provider.cleanup()

        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        http(b"{", content_length="99"),
        http(b"1\r\n{\r\n", content_length="", transfer_encoding="chunked"),
        streamed(b"4\r\ndata\r\n", content_length="", transfer_encoding="chunked"),
        http(b"{", "500 No", content_length="99"),
    ],
    ids=["before headers", "in the body", "between chunks", "in the stream", "in an error"],
)
@either_way
async def test_cleanup_ends_calls_under_way_and_leaks_nothing(
    answer: bytes, ask: Callable[[Adapter], Any]
) -> None:
    async with canned(answer, hold=True) as (base_url, server):
        async with speaking("openai", base_url) as provider:
            (task,) = await started(ask(provider))
            while not server.requests:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)  # so that what is said has come

            await provider.cleanup()

            with pytest.raises((ConnectFailed, Incomplete, ServerError)):
                await task
        await server.left.wait()
    gc.collect()  # a socket left open would say so now, and warnings are errors


@either_way
async def test_reconnect_closes_what_nobody_uses(ask: Callable[[Adapter], Any]) -> None:
    async with (
        canned(http(dumped(PLAIN["openai"])), hold=True) as (base_url, server),
        speaking("openai", base_url) as provider,
    ):
        await ask(provider)

        await provider.reconnect()

        await server.left.wait()


async def test_after_cleanup_nothing_is_sent() -> None:
    async with (
        canned(http(dumped(PLAIN["openai"])), hold=True) as (base_url, server),
        speaking("openai", base_url) as provider,
    ):
        await provider.generate(ASKED)
        await provider.cleanup()

        for ask in ASK.values():
            with pytest.raises(ConnectFailed, match="closed"):
                await ask(provider)

        assert len(server.requests) == 1


# ── the key ───────────────────────────────────────────────────────────────────────────────────


def shown(failure: BaseException | None) -> str:
    """Return all that an error and what led to it show of themselves."""
    text = ""
    while failure is not None:
        text += f"{failure!s} {failure!r} {failure.args!r}"
        text += "".join(traceback.format_exception(failure))
        failure = failure.__cause__ or failure.__context__
    return text


SAID = f"the key {KEY} is not known"
ECHOES: dict[str, bytes] = {
    "an error": http(dumped({"error": {"message": SAID, "code": KEY}}), "401 No"),
    "a page": http(f"<pre>authorization: Bearer {KEY}</pre>".encode(), "500 No"),
    "a page that is cut within the key": http(b"x" * 490 + KEY.encode() * 2, "500 No"),
    "an error inside a 200": http(dumped({"error": {"message": SAID, "type": KEY}})),
    "an error inside a stream": streamed(sse([{"error": SAID}])),
    "no HTTP": b"HELLO\r\n\r\n",
    "nothing": b"",
    "half a body": http(b"{", content_length="99"),
}


@either_way
@every_wire
@pytest.mark.parametrize("name", ECHOES)
async def test_the_key_is_never_shown_even_where_the_provider_repeats_it(
    name: str, wire: str, ask: Callable[[Adapter], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with canned(ECHOES[name]) as (base_url, server), speaking(wire, base_url) as provider:
        with pytest.raises(ProviderError) as caught:
            await ask(provider)

        assert KEY.encode() in server.requests[0]
        assert KEY[:10] not in shown(caught.value) + repr(provider) + caplog.text


async def test_a_key_too_short_to_be_one_is_no_reason_to_spoil_a_message() -> None:
    async with canned(http(dumped({"error": "Incorrect API key"}), "401 No")) as (base_url, _):
        provider = OpenAICompatible(base_url, "k", "m")

        with pytest.raises(AuthFailed, match="Incorrect API key"):
            await provider.generate(ASKED)

        await provider.cleanup()


@pytest.mark.parametrize("wrap", [str, Secret], ids=["text", "secret"])
def test_a_key_is_taken_as_text_or_as_secret(wrap: Callable[[str], str | Secret]) -> None:
    assert checked_key(wrap(KEY)) == KEY


@pytest.mark.parametrize(
    "key",
    ["se cr", " secr", "secr\n", "a\r\nx-evil: 1", "se\tcr", "ключ", "se\x7f", "se\x00"],
    ids=["blank", "led in", "line end", "header", "tab", "not ASCII", "delete", "null"],
)
def test_a_key_that_no_header_can_carry_is_refused_unseen(key: str) -> None:
    for wire in ADAPTERS.values():
        with pytest.raises(SettingsError, match="api_key") as caught:
            wire("http://127.0.0.1", key, "m")  # type: ignore[call-arg]

        assert key not in str(caught.value)


# ── the address ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080/v1"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://münchen.example/ü", "https://xn--mnchen-3ya.example/%C3%BC"),
    ],
    ids=["plain", "slash at the end", "IPv6", "not ASCII"],
)
def test_an_address_is_kept_as_it_will_be_sent(given_: str, kept: str) -> None:
    assert checked_url(given_) == kept


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "api.openai.com/v1",
        "ftp://host/v1",
        "http://",
        "http:///v1",
        "http://host:99999/v1",
        "http://host:port/v1",
        "http://ho st/v1",
        "http://host/v1\n",
        "http://a..b/v1",
        f"http://{'a' * 70}.com/v1",
        "http://host/v1?version=1",
        "http://host/v1#top",
        "http://me:passw0rd@host/v1",
        "ftp://me:passw0rd@host/v1",
    ],
)
def test_an_address_that_cannot_be_is_refused(base_url: str) -> None:
    with pytest.raises(SettingsError, match="base_url") as caught:
        OpenAICompatible(base_url)

    assert "passw0rd" not in str(caught.value)
