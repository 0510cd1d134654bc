"""One contract for every adapter, over real sockets against the fault server.

The bytes that no vendor sends are in `test_transport.py`; each vendor's own words in
`test_openai.py`, `test_anthropic.py` and `test_gemini.py`.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.errors import (
    AuthFailed,
    BadRequest,
    ConnectFailed,
    ContentFiltered,
    ContextOverflow,
    EmptyAnswer,
    Incomplete,
    Malformed,
    ProviderError,
    ProviderOverloaded,
    QuotaExhausted,
    RateLimited,
    ServerError,
)
from zejzl.messages import MOST_TOKENS, Delta, Reply, Request, Turn, Usage
from zejzl.ports import Provider, StreamingProvider
from zejzl.providers import Anthropic, Gemini, Offline, OpenAICompatible
from zejzl.providers.adapter import Adapter
from zejzl.testing import Call, FaultServer, faults
from zejzl.testing.behaviours import CANONICAL, Play, WireName, pieces

WIRES: tuple[WireName, ...] = ("openai", "anthropic", "gemini")
KEY = "sk-0123456789abcdef"
ASKED = Request(content="what do rivers do")

Ask = Callable[[Request], Awaitable[Reply]]


def adapter(wire: WireName, base_url: str, **options: Any) -> Adapter:
    match wire:
        case "openai":
            return OpenAICompatible(base_url, KEY, "m", name="alpha", **options)
        case "anthropic":
            return Anthropic(base_url, KEY, "m", name="alpha", **options)
        case "gemini":
            return Gemini(base_url, KEY, "m", name="alpha", **options)


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer() as running:
        yield running


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> WireName:
    name: WireName = request.param
    return name


@pytest.fixture
async def provider(server: FaultServer, wire: WireName) -> AsyncIterator[Adapter]:
    made = adapter(wire, server.base_url("alpha", wire))
    yield made
    await made.cleanup()


async def streamed(source: AsyncIterator[Delta]) -> Reply:
    """Return what a stream comes to, having checked that its pieces are what it says."""
    deltas = [delta async for delta in source]
    *parts, last = deltas
    assert last.reply is not None
    assert all(part.reply is None and part.text and not part.restart for part in parts)
    assert "".join(delta.text for delta in deltas) == last.reply.text
    return last.reply


@pytest.fixture(params=["plain", "streamed"])
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def ask(way: str, provider: Adapter) -> Ask:
    if way == "plain":
        return provider.generate
    return lambda request: streamed(provider.stream(request))


async def until(claim: Callable[[], object]) -> None:
    """Return once `claim` holds; the test's own limit ends a wait in vain."""
    while not claim():
        await asyncio.sleep(0.002)


def id_of(call: Call, *, in_error: bool = False) -> str:
    """Return the id that the vendor gives a call; Gemini's is in its answers only."""
    if call.wire == "gemini":
        return "" if in_error else call.request_id
    return f"req_{call.request_id}"


# ── good answers ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cls", [OpenAICompatible, Anthropic, Gemini, Offline])
def test_every_provider_keeps_the_protocol(cls: type[Provider]) -> None:
    assert isinstance(cls(), Provider)
    assert isinstance(cls(), StreamingProvider) is (cls is not Offline)


async def test_a_good_answer_is_the_text_with_usage_model_and_finish_reason(
    server: FaultServer, ask: Ask
) -> None:
    reply = await ask(ASKED)

    assert reply == Reply(
        text=CANONICAL,
        provider="alpha",
        model="m",
        usage=Usage(4, 60),
        finish_reason="stop",
        request_id=id_of(server.log[0]),
    )


async def test_a_stream_comes_word_by_word_before_it_is_over(
    server: FaultServer, provider: Adapter
) -> None:
    server.play("alpha", faults.stall(20))

    async with aclosing(provider.stream(ASKED)) as stream:
        words = [(await anext(stream)).text for _ in range(20)]

    assert tuple(words) == pieces(CANONICAL)[:20]


async def test_the_requests_model_wins_over_the_default(server: FaultServer, ask: Ask) -> None:
    reply = await ask(Request(content="hi", model="other-1.5"))

    assert (server.log[0].model, reply.model) == ("other-1.5", "other-1.5")


async def test_an_answer_cut_at_its_limit_says_so(server: FaultServer, ask: Ask) -> None:
    reply = await ask(Request(content="hi", max_tokens=7))

    assert reply.text == "".join(pieces(CANONICAL)[:7])
    assert (reply.truncated, reply.usage.completion_tokens) == (True, 7)
    assert server.log[0].max_tokens == 7


SENT: dict[WireName, dict[str, Any]] = {
    "openai": {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "one 🐎"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "three"},
        ],
        "max_tokens": 9,
        "temperature": 0.5,
    },
    "anthropic": {
        "model": "m",
        "system": "be brief",
        "messages": [
            {"role": "user", "content": "one 🐎"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "three"},
        ],
        "max_tokens": 9,
        "temperature": 0.5,
    },
    "gemini": {
        "systemInstruction": {"parts": [{"text": "be brief"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "one 🐎"}]},
            {"role": "model", "parts": [{"text": "two"}]},
            {"role": "user", "parts": [{"text": "three"}]},
        ],
        "generationConfig": {"maxOutputTokens": 9, "temperature": 0.5},
    },
}
STREAMED: dict[WireName, dict[str, Any]] = {
    "openai": {"stream": True, "stream_options": {"include_usage": True}},
    "anthropic": {"stream": True},
    "gemini": {},
}
HEADERS: dict[WireName, dict[str, str]] = {
    "openai": {"authorization": f"Bearer {KEY}"},
    "anthropic": {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
    "gemini": {"x-goog-api-key": KEY},
}


async def test_a_request_arrives_in_the_vendors_own_shape(
    server: FaultServer, wire: WireName, way: str, ask: Ask
) -> None:
    history = (Turn("user", "one 🐎"), Turn("assistant", "two"))

    await ask(
        Request(content="three", history=history, system="be brief", max_tokens=9, temperature=0.5)
    )

    call = server.log[0]
    assert call.body == SENT[wire] | (STREAMED[wire] if way == "streamed" else {})
    assert call.headers.items() >= HEADERS[wire].items()
    assert call.headers["content-type"] == "application/json"
    assert (call.wire, call.stream, call.model) == (wire, way == "streamed", "m")


@pytest.mark.parametrize("wire", WIRES)
async def test_without_a_key_none_is_sent(server: FaultServer, wire: WireName) -> None:
    made = {"openai": OpenAICompatible, "anthropic": Anthropic, "gemini": Gemini}[wire]
    provider: Adapter = made(server.base_url("alpha", wire), model="m")

    with pytest.raises(AuthFailed):
        await provider.generate(ASKED)

    assert not {"authorization", "x-api-key", "x-goog-api-key"} & server.log[0].headers.keys()
    await provider.cleanup()


# ── connections ───────────────────────────────────────────────────────────────────────────────


async def test_a_connection_is_used_again_after_answers_streams_and_refusals(
    server: FaultServer, provider: Adapter
) -> None:
    server.play("alpha", [faults.ok(), faults.bad_request(), faults.empty(), faults.ok()])
    await provider.generate(ASKED)
    for _ in range(2):
        with pytest.raises(ProviderError):
            await provider.generate(ASKED)

    for _ in range(3):
        await streamed(provider.stream(ASKED))
        await provider.generate(ASKED)

    assert {call.connection for call in server.log} == {1}


async def test_a_stream_closed_at_its_last_piece_costs_its_connection_only(
    server: FaultServer, provider: Adapter
) -> None:
    async with aclosing(provider.stream(ASKED)) as stream:
        async for delta in stream:
            if delta.reply is not None:
                break

    reply = await provider.generate(ASKED)

    assert reply.text == CANONICAL


async def test_as_many_calls_as_one_likes_are_under_way_at_once(
    server: FaultServer, provider: Adapter
) -> None:
    server.play("alpha", faults.silence(0.2))

    await asyncio.gather(*(provider.generate(ASKED) for _ in range(120)))

    assert server.max_in_flight("alpha") == 120


async def test_reconnect_gives_fresh_connections_and_calls_under_way_keep_theirs(
    server: FaultServer, provider: Adapter
) -> None:
    server.play("alpha", [faults.stall(20, seconds=0.1), faults.ok()])
    stream = provider.stream(ASKED)
    first = await anext(stream)

    await provider.reconnect()
    await provider.generate(ASKED)
    rest = await streamed_on(first, stream)
    await provider.generate(ASKED)
    await provider.reconnect()
    await provider.generate(ASKED)

    assert rest.text == CANONICAL
    assert [call.connection for call in server.log] == [1, 2, 2, 3]


async def streamed_on(first: Delta, rest: AsyncIterator[Delta]) -> Reply:
    async def both() -> AsyncIterator[Delta]:
        yield first
        async for delta in rest:
            yield delta

    return await streamed(both())


async def test_reconnect_before_any_request_is_nothing(provider: Adapter) -> None:
    await provider.reconnect()

    assert (await provider.generate(ASKED)).text == CANONICAL


async def test_many_may_reconnect_at_once(server: FaultServer, provider: Adapter) -> None:
    server.play("alpha", faults.stall(20, seconds=0.02))
    streams = []
    for _ in range(3):  # each over connections of its own, which are idle once it is over
        streams.append(provider.stream(ASKED))
        await anext(streams[-1])
        await provider.reconnect()
    for stream in streams:
        async for _ in stream:
            pass

    await asyncio.gather(*(provider.reconnect() for _ in range(3)))

    assert (await provider.generate(ASKED)).text == CANONICAL
    assert [call.connection for call in server.log] == [1, 2, 3, 4]


async def test_cleanup_may_come_first_and_twice(provider: Adapter) -> None:
    await provider.cleanup()
    await provider.cleanup()

    with pytest.raises(ConnectFailed, match="closed"):
        await provider.generate(ASKED)


async def test_cleanup_ends_calls_under_way_those_of_older_connections_too(
    server: FaultServer, provider: Adapter
) -> None:
    server.play("alpha", [faults.silence(), faults.silence(headers=True), faults.stall(20)])
    calls: list[asyncio.Future[Reply]] = []
    for ask in (
        provider.generate,
        provider.generate,
        lambda asked: streamed(provider.stream(asked)),
    ):
        calls.append(asyncio.ensure_future(ask(ASKED)))
        await until(lambda: len(server.log) == len(calls))
        await asyncio.sleep(0.02)  # so that what the server says has come
        await provider.reconnect()

    await provider.cleanup()
    ends = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(end) for end in ends] == [ConnectFailed, Incomplete, Incomplete]
    await until(lambda: all(call.hung_up for call in server.log))
    assert {call.connection for call in server.log} == {1, 2, 3}
    gc.collect()  # a socket left open would say so now, and warnings are errors


# ── leaving ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("headers", [False, True], ids=["no header", "headers only"])
async def test_cancelling_a_call_closes_its_socket(
    server: FaultServer, ask: Ask, headers: bool
) -> None:
    server.play("alpha", [faults.silence(headers=headers), faults.ok()])
    task = asyncio.ensure_future(ask(ASKED))
    await until(lambda: server.log)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: server.log[0].hung_up)

    assert (await ask(ASKED)).text == CANONICAL
    assert [call.connection for call in server.log] == [1, 2]
    gc.collect()  # as above


async def test_leaving_a_stream_early_closes_its_socket(
    server: FaultServer, provider: Adapter
) -> None:
    server.play("alpha", faults.stall(20))

    async with aclosing(provider.stream(ASKED)) as stream:
        async for _ in stream:
            break

    await until(lambda: server.log[0].hung_up)


async def test_a_stream_that_nobody_reads_asks_nothing(
    server: FaultServer, provider: Adapter
) -> None:
    stream = provider.stream(ASKED)

    await stream.aclose()

    assert server.log == []


# ── failures ──────────────────────────────────────────────────────────────────────────────────

# What the server plays → the error, the HTTP status and the code, on OpenAI, Anthropic, Gemini.
INVALID, FAILED = "invalid_request_error", "FAILED_PRECONDITION"
Three = tuple[int, int, int]
Codes = tuple[str, str, str]
REFUSALS: dict[str, tuple[Play, type[ProviderError], Three, Codes]] = {
    "400": (
        faults.bad_request(),
        BadRequest,
        (400, 400, 400),
        (INVALID, INVALID, "INVALID_ARGUMENT"),
    ),
    "401": (
        faults.auth(),
        AuthFailed,
        (401, 401, 400),
        ("invalid_api_key", "authentication_error", "API_KEY_INVALID"),
    ),
    "402": (
        faults.status(402),
        QuotaExhausted,
        (402, 402, 402),
        ("insufficient_quota", "billing_error", FAILED),
    ),
    "403": (
        faults.status(403),
        AuthFailed,
        (403, 403, 403),
        ("unsupported_country_region_territory", "permission_error", "PERMISSION_DENIED"),
    ),
    "404": (
        faults.not_found(),
        BadRequest,
        (404, 404, 404),
        ("model_not_found", "not_found_error", "NOT_FOUND"),
    ),
    "408": (faults.status(408), ServerError, (408, 408, 408), (INVALID, INVALID, FAILED)),
    "413": (
        faults.status(413),
        ContextOverflow,
        (413, 413, 413),
        (INVALID, "request_too_large", FAILED),
    ),
    "429": (
        faults.rate_limited(),
        RateLimited,
        (429, 429, 429),
        ("rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED"),
    ),
    "no money left": (
        faults.quota_exhausted(),
        QuotaExhausted,
        (429, 400, 429),
        ("insufficient_quota", INVALID, "RESOURCE_EXHAUSTED"),
    ),
    "500": (
        faults.status(500),
        ServerError,
        (500, 500, 500),
        ("server_error", "api_error", "INTERNAL"),
    ),
    "503": (
        faults.status(503),
        ProviderOverloaded,
        (503, 503, 503),
        ("server_is_overloaded", "api_error", "UNAVAILABLE"),
    ),
    "504": (
        faults.status(504),
        ServerError,
        (504, 504, 504),
        ("server_error", "timeout_error", "DEADLINE_EXCEEDED"),
    ),
    "529": (
        faults.status(529),
        ProviderOverloaded,
        (529, 529, 529),
        ("server_is_overloaded", "overloaded_error", "INTERNAL"),
    ),
    "overloaded": (
        faults.overloaded(),
        ProviderOverloaded,
        (503, 529, 503),
        ("server_is_overloaded", "overloaded_error", "UNAVAILABLE"),
    ),
    "too long": (
        faults.context_overflow(),
        ContextOverflow,
        (400, 400, 400),
        ("context_length_exceeded", INVALID, "INVALID_ARGUMENT"),
    ),
    "a prefill that is refused": (
        faults.bad_request("This model does not support assistant message prefill."),
        BadRequest,
        (400, 400, 400),
        (INVALID, INVALID, "INVALID_ARGUMENT"),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_is_the_error_of_its_kind_with_all_that_is_known(
    server: FaultServer, wire: WireName, ask: Ask, name: str
) -> None:
    play, expected, statuses, codes = REFUSALS[name]
    server.play("alpha", play)

    with pytest.raises(ProviderError) as caught:
        await ask(ASKED)

    failure = caught.value
    assert type(failure) is expected
    assert failure.status == statuses[WIRES.index(wire)]
    assert failure.code == codes[WIRES.index(wire)]
    assert (failure.provider, failure.model, failure.retry_after) == ("alpha", "m", None)
    assert failure.request_id == id_of(server.log[0], in_error=True)
    assert len(server.log) == 1  # retries are the engine's


async def test_a_page_of_a_proxy_is_judged_by_its_status(server: FaultServer, ask: Ask) -> None:
    server.play("alpha", faults.html(502))

    with pytest.raises(ServerError, match="Bad gateway") as caught:
        await ask(ASKED)

    assert (caught.value.status, caught.value.code) == (502, "")


@pytest.mark.parametrize("written", ["seconds", "milliseconds", "date"])
async def test_the_wait_that_is_asked_for_is_told(
    server: FaultServer, ask: Ask, written: Any
) -> None:
    server.play("alpha", faults.rate_limited(3.5, written=written))

    with pytest.raises(RateLimited) as caught:
        await ask(ASKED)

    wait = caught.value.retry_after
    assert wait == 3.5 if written != "date" else wait in (4.0, 5.0)  # a date has whole seconds


async def test_an_overload_may_ask_for_a_wait_too(server: FaultServer, ask: Ask) -> None:
    server.play("alpha", faults.overloaded(2))

    with pytest.raises(ProviderOverloaded) as caught:
        await ask(ASKED)

    assert caught.value.retry_after == 2.0


# What the server plays → the error of a plain answer and of a stream.
BROKEN: dict[str, tuple[Play, type[ProviderError], type[ProviderError]]] = {
    "empty": (faults.empty(), EmptyAnswer, EmptyAnswer),
    "no finish reason": (faults.no_finish(), Incomplete, Incomplete),
    "no finish reason midway": (faults.no_finish(20), Incomplete, Incomplete),
    "an end mark without a reason": (faults.no_finish(sentinel=True), Incomplete, Incomplete),
    "cut": (faults.cut(40), Incomplete, Incomplete),
    "cut before the first word": (faults.cut(0), Incomplete, Incomplete),
    "reset midway": (faults.reset(20), Incomplete, Incomplete),
    "reset before headers": (faults.reset(), ConnectFailed, ConnectFailed),
    "malformed": (faults.malformed(20), Malformed, Malformed),
    "malformed at once": (faults.malformed(0), Malformed, Malformed),
    "a page in a 200": (faults.html(200), Malformed, Malformed),
    "overload inside": (faults.error_event(20), ProviderOverloaded, ProviderOverloaded),
    "overload inside, at once": (faults.error_event(0), ProviderOverloaded, ProviderOverloaded),
    "limit inside": (faults.error_event(error=faults.rate_limited()), RateLimited, RateLimited),
    "failure inside": (faults.error_event(error=faults.status(500)), ServerError, ServerError),
    "bad request inside": (faults.error_event(error=faults.bad_request()), BadRequest, BadRequest),
    "too long inside": (
        faults.error_event(error=faults.context_overflow()),
        ContextOverflow,
        ContextOverflow,
    ),
    "content refused": (faults.content_filtered(), ContentFiltered, ContentFiltered),
    "content refused midway": (faults.filtered_midway(20), ContentFiltered, ContentFiltered),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_is_never_taken_for_a_good_one(
    server: FaultServer, way: str, ask: Ask, name: str
) -> None:
    play, plain, stream = BROKEN[name]
    server.play("alpha", play)

    with pytest.raises(ProviderError) as caught:
        await ask(ASKED)

    assert type(caught.value) is (plain if way == "plain" else stream)
    assert (caught.value.provider, caught.value.model) == ("alpha", "m")
    assert len(server.log) == 1


@pytest.mark.parametrize(
    ("play", "words", "lost"),
    [(faults.cut(40), 40, True), (faults.reset(20), 20, True), (faults.no_finish(30), 30, False)],
    ids=["cut", "reset", "no finish reason"],
)
async def test_a_stream_that_breaks_off_tells_what_had_arrived_and_what_broke(
    server: FaultServer, provider: Adapter, play: Play, words: int, lost: bool
) -> None:
    server.play("alpha", play)

    with pytest.raises(Incomplete) as caught:
        await streamed(provider.stream(ASKED))

    assert caught.value.prefix == "".join(pieces(CANONICAL)[:words])
    assert (caught.value.__cause__ is not None) is lost


async def test_an_error_inside_an_answer_has_the_id_of_the_call(
    server: FaultServer, ask: Ask
) -> None:
    server.play("alpha", faults.error_event(20))

    with pytest.raises(ProviderOverloaded) as caught:
        await ask(ASKED)

    assert caught.value.status is None
    assert caught.value.request_id == id_of(server.log[0], in_error=True)


REASONS: dict[WireName, tuple[str, str]] = {
    "openai": ("content_filter", "content management policy"),
    "anthropic": ("refusal", "refusal"),
    "gemini": ("PROHIBITED_CONTENT", "PROHIBITED_CONTENT"),
}


async def test_refused_content_comes_with_the_providers_reason(
    server: FaultServer, wire: WireName, ask: Ask
) -> None:
    server.play("alpha", faults.content_filtered())
    code, words = REASONS[wire]

    with pytest.raises(ContentFiltered, match=words) as caught:
        await ask(ASKED)

    assert caught.value.code == code


async def test_a_stream_without_its_end_mark_is_a_good_answer(
    server: FaultServer, provider: Adapter
) -> None:
    server.play("alpha", faults.no_sentinel())

    reply = await streamed(provider.stream(ASKED))

    assert (reply.text, reply.usage) == (CANONICAL, Usage(4, 60))


async def test_a_plain_body_without_its_end_is_cut(server: FaultServer, provider: Adapter) -> None:
    server.play("alpha", faults.no_sentinel())

    with pytest.raises(Incomplete):
        await provider.generate(ASKED)


async def test_nobody_there_is_no_connection_and_somebody_again_is_one(
    server: FaultServer, ask: Ask
) -> None:
    await ask(ASKED)
    await server.stop_listening()

    with pytest.raises(ConnectFailed):
        await ask(ASKED)
    await server.resume()

    assert (await ask(ASKED)).text == CANONICAL


# ── any answer at all ─────────────────────────────────────────────────────────────────────────

NAMES = ["choices", "message", "delta", "content", "finish_reason", "refusal", "usage", "model"]
NAMES += ["prompt_tokens", "completion_tokens", "type", "text", "stop_reason", "stop_details"]
NAMES += ["content_block", "category", "input_tokens", "output_tokens", "candidates", "parts"]
NAMES += ["finishReason", "promptFeedback", "blockReason", "usageMetadata", "promptTokenCount"]
NAMES += ["candidatesTokenCount", "thoughtsTokenCount", "modelVersion", "responseId", "thought"]
VALUES = ["stop", "length", "content_filter", "end_turn", "refusal", "STOP", "SAFETY", "text"]
VALUES += ["message_start", "content_block_start", "content_block_delta", "text_delta"]
VALUES += ["message_delta", "message_stop", "message", "insufficient_system_resource", "a\ud83d"]
keys = st.sampled_from(NAMES)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([2**60, 10**400, 1.5, float("inf"), float("nan")])
    | st.sampled_from(VALUES)
    | st.text(max_size=3)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=15,
)


def near(good: Any, data: st.DataObject) -> Any:
    """Return a good answer with some of its parts replaced by anything."""
    if data.draw(st.integers(0, 9)) == 0:
        return data.draw(anything)
    if isinstance(good, dict):
        return {name: near(value, data) for name, value in good.items()}
    return [near(value, data) for value in good] if isinstance(good, list) else good


GOOD: dict[WireName, list[dict[str, Any]]] = {
    "openai": [
        {
            "model": "m",
            "choices": [{"message": {"content": "a", "refusal": None}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        },
        {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]},
        {"choices": [{"delta": {}, "finish_reason": "length"}], "usage": None},
    ],
    "anthropic": [
        {
            "type": "message",
            "model": "m",
            "content": [{"type": "text", "text": "a"}],
            "stop_reason": "refusal",
            "stop_details": {"category": "c"},
            "usage": {"input_tokens": 1, "output_tokens": 1},
        },
        {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 1}}},
        {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
    ],
    "gemini": [
        {
            "candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1},
            "modelVersion": "m",
            "responseId": "r",
        },
        {"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "no"}},
    ],
}


def check(reply: Reply) -> None:
    assert isinstance(reply.text, str)
    assert reply.text.strip()
    assert reply.text.encode()
    assert reply.finish_reason in ("stop", "length", "tool_calls")
    for count in (reply.usage.prompt_tokens, reply.usage.completion_tokens):
        assert count is None or (type(count) is int and 0 <= count <= 2 * MOST_TOKENS)
    assert isinstance(reply.model, str)
    assert isinstance(reply.request_id, str)


@pytest.mark.parametrize("wire", WIRES)
@given(st.data())
def test_any_plain_answer_is_a_reply_or_a_provider_error(
    wire: WireName, data: st.DataObject
) -> None:
    body = near(data.draw(st.sampled_from(GOOD[wire])), data)
    reader = adapter(wire, "http://127.0.0.1").reader("m")

    try:
        reader.whole(body if isinstance(body, dict) else {"choices": body})
        check(reader.reply())
    except ProviderError as failure:
        assert str(failure).isprintable()
        assert len(failure.args[0]) <= 600


@pytest.mark.parametrize("wire", WIRES)
@given(st.data())
def test_any_events_are_a_reply_of_their_pieces_or_a_provider_error(
    wire: WireName, data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(GOOD[wire]), max_size=6))
    reader = adapter(wire, "http://127.0.0.1").reader("m")
    texts = []

    try:
        for good in chosen:
            event = near(good, data)
            texts.append(reader.piece(event if isinstance(event, dict) else {"type": event}))
        reply = reader.reply()
        check(reply)
        assert reply.text == "".join(texts)
    except ProviderError as failure:
        assert str(failure).isprintable()
        assert len(failure.args[0]) <= 600


@pytest.mark.parametrize(
    ("text", "kept"),
    [("a\ud83d", "a\ufffd"), ("\ud83d\ude00", "😀"), ("\ude00b", "\ufffdb"), ("é", "é")],
    ids=["half at the end", "both halves", "half at the start", "none"],
)
@pytest.mark.parametrize("wire", WIRES)
def test_half_a_character_that_nobody_could_write_is_replaced(
    wire: WireName, text: str, kept: str
) -> None:
    reader = adapter(wire, "http://127.0.0.1").reader("m")

    assert (reader.keep(text), reader.text) == (kept, kept)
