"""The fault server speaks three vendors' formats: their own SDKs are the judges."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import Any, Literal, NamedTuple, Protocol

import aiohttp
import pytest
import pytest_asyncio

from zejzl.testing import Call, FaultServer, faults
from zejzl.testing.behaviours import CANONICAL, Play, Refusal, WireName

pytestmark = pytest.mark.filterwarnings(
    "ignore:Inheritance class AiohttpClientSession:DeprecationWarning"  # google-genai's
)
one_loop = pytest.mark.asyncio(loop_scope="module")  # so that an SDK, which is slow, is set up once

WIRES: tuple[WireName, ...] = ("openai", "anthropic", "gemini")
ASKED = "what do rivers do"
SHORT = 0.1  # seconds a client waits for one who is silent


class Heard(NamedTuple):
    text: str
    finish: str | None
    tokens: int | None


class Sdk(Protocol):
    """A vendor's own client, its retries off, made to look like the others."""

    async def plain(self, limit: int, seconds: float) -> Heard: ...
    async def stream(self, limit: int, seconds: float) -> Heard: ...
    async def aclose(self) -> None: ...


class OpenAISdk:
    def __init__(self, server: FaultServer) -> None:
        import openai

        self.client = openai.AsyncOpenAI(
            base_url=server.base_url("alpha"), api_key="k", max_retries=0
        )

    async def plain(self, limit: int, seconds: float) -> Heard:
        reply = await self.client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": ASKED}],
            max_completion_tokens=limit,
            timeout=seconds,
        )
        choice = reply.choices[0]
        tokens = reply.usage.completion_tokens if reply.usage else None
        return Heard(choice.message.content or "", choice.finish_reason, tokens)

    async def stream(self, limit: int, seconds: float) -> Heard:
        text, finish, tokens = "", None, None
        async for chunk in await self.client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": ASKED}],
            max_completion_tokens=limit,
            stream=True,
            stream_options={"include_usage": True},
            timeout=seconds,
        ):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
        return Heard(text, finish, tokens)

    async def aclose(self) -> None:
        await self.client.close()


class AnthropicSdk:
    def __init__(self, server: FaultServer) -> None:
        import anthropic

        self.client = anthropic.AsyncAnthropic(
            base_url=server.base_url("alpha", "anthropic"), api_key="k", max_retries=0
        )

    async def plain(self, limit: int, seconds: float) -> Heard:
        reply = await self.client.messages.create(
            model="m",
            messages=[{"role": "user", "content": ASKED}],
            max_tokens=limit,
            timeout=seconds,
        )
        text = "".join(block.text for block in reply.content if block.type == "text")
        return Heard(text, reply.stop_reason, reply.usage.output_tokens)

    async def stream(self, limit: int, seconds: float) -> Heard:
        async with self.client.messages.stream(
            model="m",
            messages=[{"role": "user", "content": ASKED}],
            max_tokens=limit,
            timeout=seconds,
        ) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            reply = await stream.get_final_message()
        return Heard(text, reply.stop_reason, reply.usage.output_tokens)

    async def aclose(self) -> None:
        await self.client.close()


class GeminiSdk:
    def __init__(self, server: FaultServer) -> None:
        from google.genai import Client, types

        self.types = types
        self.client = Client(
            api_key="k",
            http_options=types.HttpOptions(
                base_url=server.base_url("alpha", "gemini"),
                retry_options=types.HttpRetryOptions(attempts=1),
                api_version="v1beta",
            ),
        )

    async def plain(self, limit: int, seconds: float) -> Heard:
        reply = await self.client.aio.models.generate_content(
            model="m", contents=ASKED, config=self._config(limit, seconds)
        )
        return self._heard("", reply)

    async def stream(self, limit: int, seconds: float) -> Heard:
        heard = Heard("", None, None)
        async for reply in await self.client.aio.models.generate_content_stream(
            model="m", contents=ASKED, config=self._config(limit, seconds)
        ):
            heard = self._heard(heard.text, reply)
        return heard

    def _config(self, limit: int, seconds: float) -> Any:
        options = self.types.HttpOptions(timeout=int(seconds * 1000))
        return self.types.GenerateContentConfig(max_output_tokens=limit, http_options=options)

    @staticmethod
    def _heard(before: str, reply: Any) -> Heard:
        reason = reply.candidates[0].finish_reason if reply.candidates else None
        tokens = reply.usage_metadata.candidates_token_count
        return Heard(before + (reply.text or ""), reason and reason.value, tokens)

    async def aclose(self) -> None:
        await self.client.aio.aclose()
        self.client.close()


SDKS: dict[WireName, Callable[[FaultServer], Sdk]] = {
    "openai": OpenAISdk,
    "anthropic": AnthropicSdk,
    "gemini": GeminiSdk,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[FaultServer]:
    """The server the SDKs talk to, as provider alpha."""
    async with FaultServer() as server:
        yield server


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    """A server of the test's own."""
    async with FaultServer() as server:
        yield server


@pytest.fixture(scope="module", params=WIRES)
def wire(request: pytest.FixtureRequest) -> WireName:
    name: WireName = request.param
    return name


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sdk(stage: FaultServer, wire: WireName) -> AsyncIterator[Sdk]:
    sdk = SDKS[wire](stage)
    yield sdk
    await sdk.aclose()


@pytest.fixture(params=["plain", "stream"])
def ask(request: pytest.FixtureRequest, stage: FaultServer, sdk: Sdk) -> Callable[..., Any]:
    """One way of asking one vendor's SDK, of a provider that answers well until told otherwise."""
    stage.play("alpha", faults.ok())
    method = getattr(sdk, request.param)

    async def ask(limit: int = 1000, seconds: float = 5.0) -> Heard:
        heard: Heard = await method(limit, seconds)
        return heard

    return ask


@pytest.fixture
async def raw() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


PATHS: dict[WireName, tuple[str, str]] = {
    "openai": ("/v1/chat/completions", "/v1/chat/completions"),
    "anthropic": ("/v1/messages", "/v1/messages"),
    "gemini": (
        "/v1beta/models/m:generateContent",
        "/v1beta/models/m:streamGenerateContent?alt=sse",
    ),
}
KEYS: dict[WireName, dict[str, str]] = {
    "openai": {"Authorization": "Bearer k"},
    "anthropic": {"x-api-key": "k", "anthropic-version": "2023-06-01"},
    "gemini": {"x-goog-api-key": "k"},
}
BODIES: dict[WireName, dict[str, Any]] = {
    "openai": {"model": "m", "messages": [{"role": "user", "content": ASKED}]},
    "anthropic": {
        "model": "m",
        "messages": [{"role": "user", "content": ASKED}],
        "max_tokens": 1000,
    },
    "gemini": {"contents": [{"role": "user", "parts": [{"text": ASKED}]}]},
}


class Got(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        lines = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def post(
    raw: aiohttp.ClientSession,
    server: FaultServer,
    wire: WireName,
    *,
    stream: bool = False,
    body: object = None,
    headers: dict[str, str] | None = None,
    provider: str = "alpha",
    seconds: float = 5.0,
    **more: object,
) -> Got:
    path = PATHS[wire][stream]
    if body is None:
        body = {**BODIES[wire], **({"stream": True} if stream and wire != "gemini" else {}), **more}
    async with raw.post(
        server.base_url(provider, "gemini") + path,
        data=BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode()),
        headers=KEYS[wire] if headers is None else headers,
        timeout=aiohttp.ClientTimeout(total=seconds),
    ) as response:
        names = {name.lower(): value for name, value in response.headers.items()}
        return Got(response.status, names, await response.read())


async def eventually(claim: Callable[[], bool]) -> None:
    """Return as soon as the server has noticed; what it does next is not the client's to await."""
    async with asyncio.timeout(2):
        while not claim():
            await asyncio.sleep(0.001)


# ── What the vendors' own SDKs make of it ─────────────────────────────────────────────────────────

STOP = {"openai": "stop", "anthropic": "end_turn", "gemini": "STOP"}
LENGTH = {"openai": "length", "anthropic": "max_tokens", "gemini": "MAX_TOKENS"}
FILTERED = {"openai": "content_filter", "anthropic": "refusal", "gemini": "SAFETY"}


@one_loop
async def test_an_sdk_hears_a_good_answer_whole(ask: Callable[..., Any], wire: WireName) -> None:
    assert await ask() == Heard(CANONICAL, STOP[wire], 60)


@one_loop
async def test_a_token_limit_cuts_the_answer_with_the_vendors_reason(
    ask: Callable[..., Any], wire: WireName
) -> None:
    heard = await ask(limit=7)

    assert heard == Heard(" ".join(CANONICAL.split()[:7]), LENGTH[wire], 7)


@one_loop
async def test_a_truncated_answer_says_so(
    stage: FaultServer, ask: Callable[..., Any], wire: WireName
) -> None:
    stage.play("alpha", faults.truncated(20))

    heard = await ask()

    assert (len(heard.text.split()), heard.finish) == (20, LENGTH[wire])


@one_loop
async def test_a_filter_midway_ends_with_the_vendors_reason(
    stage: FaultServer, ask: Callable[..., Any], wire: WireName
) -> None:
    stage.play("alpha", faults.filtered_midway(20))

    heard = await ask()

    assert (len(heard.text.split()), heard.finish) == (20, FILTERED[wire])


@one_loop
async def test_an_empty_answer_is_well_formed(
    stage: FaultServer, ask: Callable[..., Any], wire: WireName
) -> None:
    stage.play("alpha", faults.empty())

    assert await ask() == Heard("", STOP[wire], 0)


@one_loop
async def test_an_answer_without_a_finish_reason_is_otherwise_whole(
    stage: FaultServer, ask: Callable[..., Any]
) -> None:
    stage.play("alpha", faults.no_finish())

    heard = await ask()

    assert (heard.text, heard.finish) == (CANONICAL, None)


def same(name: str, status: int) -> dict[WireName, tuple[str, int]]:
    """OpenAI and Anthropic have a class for each status, Google one for each hundred."""
    google = "ClientError" if status < 500 else "ServerError"
    return {"openai": (name, status), "anthropic": (name, status), "gemini": (google, status)}


ERRORS: list[tuple[Refusal, dict[WireName, tuple[str, int]]]] = [
    (faults.bad_request(), same("BadRequestError", 400)),
    (faults.context_overflow(), same("BadRequestError", 400)),
    (faults.auth(), {**same("AuthenticationError", 401), "gemini": ("ClientError", 400)}),
    (faults.status(401), same("AuthenticationError", 401)),
    (faults.status(403), same("PermissionDeniedError", 403)),
    (faults.not_found(), same("NotFoundError", 404)),
    (faults.rate_limited(), same("RateLimitError", 429)),
    (faults.status(500), same("InternalServerError", 500)),
    (
        faults.status(503),
        {**same("InternalServerError", 503), "anthropic": ("ServiceUnavailableError", 503)},
    ),
    (
        faults.overloaded(),
        {**same("InternalServerError", 503), "anthropic": ("OverloadedError", 529)},
    ),
]


@one_loop
@pytest.mark.parametrize(("fault", "expected"), ERRORS, ids=[fault.name for fault, _ in ERRORS])
async def test_an_error_comes_out_as_the_sdks_own_class(
    stage: FaultServer,
    ask: Callable[..., Any],
    wire: WireName,
    fault: Refusal,
    expected: dict[WireName, tuple[str, int]],
) -> None:
    stage.play("alpha", fault)

    with pytest.raises(Exception) as caught:
        await ask()

    status = getattr(caught.value, "status_code", None) or getattr(caught.value, "code", None)
    assert (type(caught.value).__name__, status) == expected[wire]


@one_loop
@pytest.mark.parametrize(
    ("fault", "names"),
    [
        (faults.reset(), {"APIConnectionError", "ClientOSError"}),
        (faults.silence(), {"APITimeoutError", "TimeoutError"}),
        (faults.silence(headers=True), {"APITimeoutError", "TimeoutError", "ReadTimeout"}),
        (faults.stall(20), {"APITimeoutError", "TimeoutError", "ReadTimeout"}),
        (
            faults.cut(40),
            {"APIConnectionError", "ClientPayloadError", "RemoteProtocolError"},
        ),
        (faults.reset(after=3), {"APIConnectionError", "ClientPayloadError", "ReadError"}),
        (faults.malformed(), {"JSONDecodeError", "UnknownApiResponseError"}),
    ],
    ids=["reset", "silence", "headers only", "stall", "cut", "reset midway", "malformed"],
)
async def test_a_broken_connection_breaks_the_sdks_call(
    stage: FaultServer, ask: Callable[..., Any], fault: Play, names: set[str]
) -> None:
    stage.play("alpha", fault)

    with pytest.raises(Exception) as caught:
        await ask(seconds=SHORT if "TimeoutError" in names else 5.0)

    assert type(caught.value).__name__ in names


@one_loop
@pytest.mark.parametrize("wire", WIRES, indirect=True)
async def test_an_error_inside_a_stream_is_raised_by_the_sdk(
    stage: FaultServer, sdk: Sdk, wire: WireName
) -> None:
    stage.play("alpha", faults.error_event(after=20))

    with pytest.raises(Exception, match=r"(?i)overloaded"):
        await sdk.stream(1000, 5.0)


@one_loop
@pytest.mark.parametrize("wire", ["openai", "anthropic"], indirect=True)
async def test_a_stream_without_its_end_mark_is_whole_to_an_sdk(
    stage: FaultServer, sdk: Sdk, wire: WireName
) -> None:
    stage.play("alpha", faults.no_sentinel())

    assert (await sdk.stream(1000, 5.0)).text == CANONICAL


# ── On the wire ───────────────────────────────────────────────────────────────────────────────────

REQUEST_ID: dict[WireName, str] = {"openai": "x-request-id", "anthropic": "request-id"}


def code(wire: WireName, body: Any) -> Any:
    return body["error"][{"openai": "code", "anthropic": "type", "gemini": "status"}[wire]]


@pytest.mark.parametrize(
    ("fault", "status", "codes"),
    [
        (
            faults.context_overflow(),
            [400, 400, 400],
            ["context_length_exceeded", "invalid_request_error", "INVALID_ARGUMENT"],
        ),
        (
            faults.quota_exhausted(),
            [429, 400, 429],
            ["insufficient_quota", "invalid_request_error", "RESOURCE_EXHAUSTED"],
        ),
        (
            faults.rate_limited(),
            [429, 429, 429],
            ["rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED"],
        ),
        (
            faults.overloaded(),
            [503, 529, 503],
            ["server_is_overloaded", "overloaded_error", "UNAVAILABLE"],
        ),
        (
            faults.auth(),
            [401, 401, 400],
            ["invalid_api_key", "authentication_error", "INVALID_ARGUMENT"],
        ),
        (faults.status(402), [402, 402, 402], ["insufficient_quota", "billing_error", None]),
        (faults.status(418, code="teapot"), [418] * 3, ["teapot"] * 3),
    ],
    ids=lambda value: value.name if isinstance(value, Refusal) else "",
)
async def test_an_error_has_the_vendors_status_and_code(
    server: FaultServer,
    raw: aiohttp.ClientSession,
    wire: WireName,
    fault: Refusal,
    status: list[int],
    codes: list[str | None],
) -> None:
    server.play("alpha", fault)
    place = WIRES.index(wire)

    got = await post(raw, server, wire)

    assert got.status == status[place]
    assert codes[place] in (code(wire, got.json), None)


async def test_gemini_tells_a_bad_key_a_minutes_quota_and_a_days_apart(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    server.play("alpha", [faults.auth(), faults.rate_limited(2.5), faults.quota_exhausted()])

    key, minute, day = [
        (await post(raw, server, "gemini")).json["error"]["details"] for _ in range(3)
    ]

    assert key[0]["reason"] == "API_KEY_INVALID"
    assert "PerMinute" in minute[0]["violations"][0]["quotaId"]
    assert minute[-1]["retryDelay"] == "2.5s"
    assert "PerDay" in day[0]["violations"][0]["quotaId"]
    assert len(day) == 1


async def test_a_filtered_prompt_is_refused_the_vendors_way(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    server.play("alpha", faults.content_filtered())

    openai, claude, gemini = [await post(raw, server, wire) for wire in WIRES]

    assert (openai.status, openai.json["error"]["code"]) == (400, "content_filter")
    assert (claude.status, claude.json["stop_reason"], claude.json["content"]) == (
        200,
        "refusal",
        [],
    )
    assert gemini.json["promptFeedback"]["blockReason"] == "PROHIBITED_CONTENT"
    assert "candidates" not in gemini.json


@pytest.mark.parametrize(
    ("written", "header", "value"),
    [("seconds", "retry-after", "2"), ("milliseconds", "retry-after-ms", "2000")],
)
async def test_a_rate_limit_says_when_to_come_back(
    server: FaultServer,
    raw: aiohttp.ClientSession,
    wire: WireName,
    written: Literal["seconds", "milliseconds"],
    header: str,
    value: str,
) -> None:
    server.play("alpha", faults.rate_limited(2, written=written))

    assert (await post(raw, server, wire)).headers[header] == value


async def test_a_retry_date_is_never_too_early(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    server.play("alpha", faults.rate_limited(2, written="date"))
    before = time.time()

    got = await post(raw, server, "openai")

    at = parsedate_to_datetime(got.headers["retry-after"]).timestamp()
    assert before + 2 <= at <= time.time() + 3


async def test_a_rate_limit_may_say_nothing(
    server: FaultServer, raw: aiohttp.ClientSession, wire: WireName
) -> None:
    server.play("alpha", faults.rate_limited())

    got = await post(raw, server, wire)

    assert not {"retry-after", "retry-after-ms"} & got.headers.keys()


async def test_a_call_has_one_id_in_header_and_log(
    server: FaultServer, raw: aiohttp.ClientSession, wire: WireName
) -> None:
    server.play("alpha", [faults.ok(), faults.status(500)])

    good, bad = [await post(raw, server, wire) for _ in range(2)]

    ids = [call.request_id for call in server.calls("alpha")]
    assert len(set(ids)) == 2
    if wire == "gemini":
        assert good.json["responseId"] == ids[0]
    else:
        sent = [got.headers[REQUEST_ID[wire]] for got in (good, bad)]
        assert sent == [f"req_{id}" for id in ids]


async def test_openai_counts_a_streams_tokens_only_when_asked(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    silent = await post(raw, server, "openai", stream=True)
    counted = await post(raw, server, "openai", stream=True, stream_options={"include_usage": True})

    assert not any("usage" in event for event in silent.events[:-1])
    assert counted.events[-2]["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 60,
        "total_tokens": 64,
    }


async def test_anthropics_events_come_in_their_order(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    got = await post(raw, server, "anthropic", stream=True)

    names = [event["type"] for event in got.events]
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert names[3:-3] == ["content_block_delta"] * 60
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]


UNFINISHED: dict[str, Play] = {
    "status": faults.status(500),
    "html": faults.html(),
    "html with 200": faults.html(200),
    "empty": faults.empty(),
    "truncated": faults.truncated(),
    "filtered": faults.content_filtered(),
    "filtered midway": faults.filtered_midway(),
    "reset": faults.reset(),
    "reset after headers": faults.reset(after=0),
    "reset midway": faults.reset(after=40),
    "silence": faults.silence(),
    "headers only": faults.silence(headers=True),
    "slow first token": faults.slow_first_token(60),
    "cut at once": faults.cut(0),
    "cut": faults.cut(40),
    "cut after the last word": faults.cut(60),
    "stall": faults.stall(20),
    "malformed": faults.malformed(20),
    "malformed after the last word": faults.malformed(60),
    "error event": faults.error_event(20),
    "no finish": faults.no_finish(),
    "no finish, cut short": faults.no_finish(after=40, sentinel=True),
}


def whole(wire: WireName, stream: bool, got: Got) -> bool:
    """Whether a strict reader would take this for the whole answer."""
    parts = got.events if stream else [got.json]
    match wire:
        case "openai":
            key = "delta" if stream else "message"
            choices = [c for p in parts if p != "[DONE]" for c in p["choices"]]
            text = "".join(choice[key].get("content") or "" for choice in choices)
            ended = [c["finish_reason"] for c in choices if c["finish_reason"]] == ["stop"]
        case "anthropic" if stream:
            text = "".join(part.get("delta", {}).get("text", "") for part in parts)
            ended = any(part.get("delta", {}).get("stop_reason") == "end_turn" for part in parts)
        case "anthropic":
            text = parts[0]["content"][0]["text"]
            ended = parts[0]["stop_reason"] == "end_turn"
        case "gemini":
            candidates = [part["candidates"][0] for part in parts]
            texts = [p["text"] for c in candidates for p in c["content"].get("parts", [])]
            text, ended = "".join(texts), candidates[-1].get("finishReason") == "STOP"
    return got.status == 200 and text == CANONICAL and ended


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_no_fault_looks_like_a_whole_answer(
    server: FaultServer, wire: WireName, stream: bool
) -> None:
    async def verdict(name: str, fault: Play, *, seconds: float) -> tuple[str, bool]:
        server.play(name, fault)
        try:
            # A session each: one that is reset must not take another's connection along.
            async with aiohttp.ClientSession() as raw:
                got = await post(raw, server, wire, stream=stream, provider=name, seconds=SHORT * 5)
            return name, whole(wire, stream, got)
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError):
            return name, False

    names: dict[str, Play] = {name.replace(" ", "-"): fault for name, fault in UNFINISHED.items()}
    verdicts = await asyncio.gather(*(verdict(*item, seconds=0.2) for item in names.items()))
    good = await verdict("good", faults.ok(), seconds=5.0)

    assert [name for name, passed in verdicts if passed] == []
    assert good == ("good", True)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_without_its_end_mark_an_answer_is_all_there_and_not_ended(
    server: FaultServer, raw: aiohttp.ClientSession, wire: WireName, stream: bool
) -> None:
    server.play("alpha", faults.no_sentinel())

    if stream and wire != "gemini":
        got = await post(raw, server, wire, stream=True)
        assert whole(wire, True, got)
        assert not {"[DONE]", "message_stop"} & {
            str(e if e == "[DONE]" else e.get("type")) for e in got.events
        }
    else:
        with pytest.raises(aiohttp.ClientPayloadError):
            await post(raw, server, wire, stream=stream)
    assert server.log[-1].words == 60


async def test_a_stall_that_ends_goes_on_where_it_was(
    server: FaultServer, raw: aiohttp.ClientSession, wire: WireName
) -> None:
    server.play("alpha", faults.stall(20, seconds=0.01))

    assert whole(wire, True, await post(raw, server, wire, stream=True))


@pytest.mark.parametrize(
    "fault",
    [
        faults.ok(delay=0.02),
        faults.ok(first_token=0.02),
        faults.ok(pace=0.02 / 60),
        faults.silence(0.02),
        faults.slow_first_token(0.02),
        faults.ok(delay=faults.between(0.02, 0.03, seed=1)),
    ],
    ids=["delay", "first token", "pace", "silence", "slow first token", "drawn"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_slow_answer_takes_its_time_and_is_whole(
    server: FaultServer, raw: aiohttp.ClientSession, wire: WireName, fault: Play, stream: bool
) -> None:
    server.play("alpha", fault)
    begun = time.monotonic()

    got = await post(raw, server, wire, stream=stream)

    assert time.monotonic() - begun >= 0.019
    assert whole(wire, stream, got)


# ── What a vendor would not take ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        ("openai", b"{"),
        ("openai", b"[]"),
        ("openai", {"model": "m"}),
        ("openai", {"model": "m", "messages": []}),
        ("openai", {"messages": [{"role": "user", "content": "hi"}]}),
        ("openai", {"model": "m", "messages": [{"role": "pirate", "content": "hi"}]}),
        ("openai", {**BODIES["openai"], "max_tokens": 0}),
        ("anthropic", b"{"),
        ("anthropic", {**BODIES["anthropic"], "messages": []}),
        ("anthropic", {**BODIES["anthropic"], "messages": "hi"}),
        ("anthropic", {**BODIES["anthropic"], "max_tokens": None}),
        ("anthropic", {**BODIES["anthropic"], "max_tokens": 0}),
        ("anthropic", {**BODIES["anthropic"], "model": ""}),
        ("anthropic", {**BODIES["anthropic"], "messages": [{"role": "system", "content": "hi"}]}),
        ("anthropic", {**BODIES["anthropic"], "messages": [{"role": "user", "content": ""}]}),
        (
            "anthropic",
            {**BODIES["anthropic"], "messages": [{"role": "assistant", "content": "Rivers "}]},
        ),
        ("gemini", b"{"),
        ("gemini", {}),
        ("gemini", {"contents": []}),
        ("gemini", {"contents": [{"role": "assistant", "parts": [{"text": "hi"}]}]}),
        ("gemini", {"contents": [{"role": "user", "parts": []}]}),
        ("gemini", {**BODIES["gemini"], "generationConfig": {"maxOutputTokens": 0}}),
    ],
)
async def test_a_bad_request_is_rejected_whatever_the_script(
    server: FaultServer, raw: aiohttp.ClientSession, wire: WireName, body: object
) -> None:
    server.play("alpha", [faults.status(500), faults.ok()])

    got = await post(raw, server, wire, body=body)

    assert got.status == 400
    assert got.json["error"]["message"]
    assert server.log[0].outcome.startswith("rejected: ")
    assert (await post(raw, server, wire)).status == 500  # the script is where it was


async def test_a_caller_without_a_key_is_turned_away(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    seen = [await post(raw, server, wire, headers={}) for wire in WIRES]

    assert [got.status for got in seen] == [401, 401, 403]


async def test_anthropic_takes_a_key_either_way_and_insists_on_a_version(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    version = {"anthropic-version": "2023-06-01"}

    good = await post(raw, server, "anthropic", headers={"Authorization": "Bearer k", **version})
    bad = await post(raw, server, "anthropic", headers={"x-api-key": "k"})

    assert (good.status, bad.status) == (200, 400)


async def test_gemini_takes_a_key_in_the_query_and_either_version(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    url = server.base_url("alpha", "gemini") + "/v1/models/m:generateContent?key=k"

    async with raw.post(url, json=BODIES["gemini"]) as response:
        assert response.status == 200


async def test_an_unknown_address_is_a_404(server: FaultServer, raw: aiohttp.ClientSession) -> None:
    async with raw.post(server.base_url("alpha") + "/embeddings", json={}) as response:
        assert response.status == 404


# ── The log ───────────────────────────────────────────────────────────────────────────────────────


async def test_the_log_holds_what_was_asked_and_what_was_played(
    server: FaultServer, raw: aiohttp.ClientSession, wire: WireName
) -> None:
    await post(raw, server, wire, stream=True)

    (call,) = server.log
    body = {**BODIES[wire]} if wire == "gemini" else {**BODIES[wire], "stream": True}
    assert (call.provider, call.model, call.wire, call.stream) == ("alpha", "m", wire, True)
    assert (call.outcome, call.status, call.words, call.hung_up) == ("ok", 200, 60, False)
    assert (call.body, call.body_bytes) == (body, len(json.dumps(body)))
    assert call.prompt_tokens == 4
    assert 0 < call.at < server.now()
    assert call.seconds is not None
    assert call.headers.items() >= {name.lower(): key for name, key in KEYS[wire].items()}.items()


async def test_a_connection_that_is_kept_has_one_number(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    await post(raw, server, "openai")
    await post(raw, server, "openai", stream=True)
    async with aiohttp.ClientSession() as another:
        await post(another, server, "openai")

    assert [call.connection for call in server.log] == [1, 1, 2]


@pytest.mark.parametrize(
    "fault",
    [faults.silence(), faults.stall(20), faults.ok(pace=0.05)],
    ids=["silent", "stalled", "slow"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_the_log_knows_a_client_that_left(
    server: FaultServer, raw: aiohttp.ClientSession, fault: Play, stream: bool
) -> None:
    server.play("alpha", fault)

    call = asyncio.create_task(post(raw, server, "openai", stream=stream))
    await eventually(lambda: server.in_flight("alpha") == 1)
    call.cancel()

    await eventually(lambda: server.log[0].hung_up)
    assert server.log[0].words < 60
    assert server.in_flight("alpha") == 0


async def test_a_connection_the_server_broke_is_not_the_clients_doing(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    server.play("alpha", [faults.reset(), faults.cut(), faults.reset(after=10)])

    for _ in range(3):
        with pytest.raises(aiohttp.ClientError):
            await post(raw, server, "openai", stream=True)

    await eventually(lambda: server.in_flight("alpha") == 0)
    assert [(call.outcome, call.words, call.hung_up) for call in server.log] == [
        ("reset", 0, False),
        ("cut", 40, False),
        ("reset", 10, False),
    ]


async def test_calls_in_flight_are_counted(server: FaultServer, raw: aiohttp.ClientSession) -> None:
    server.play("alpha", faults.ok(delay=0.02))

    calls = [asyncio.create_task(post(raw, server, "openai")) for _ in range(5)]
    await eventually(lambda: server.in_flight("alpha") == 5)
    await asyncio.gather(*calls)

    assert (server.in_flight("alpha"), server.max_in_flight("alpha")) == (0, 5)
    assert server.max_in_flight("beta") == 0


# ── Scripts ───────────────────────────────────────────────────────────────────────────────────────


async def played(raw: aiohttp.ClientSession, server: FaultServer, count: int) -> list[str]:
    for _ in range(count):
        await post(raw, server, "openai")
    return [call.outcome for call in server.log]


async def test_a_sequence_is_played_in_order_and_its_last_repeats(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    server.play("alpha", [faults.status(500), faults.overloaded(), faults.ok()])

    assert await played(raw, server, 4) == ["status 500", "overloaded", "ok", "ok"]


def test_a_sequence_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        FaultServer().play("alpha", [])


async def test_providers_do_not_share_a_script(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    server.play("alpha", faults.status(500))

    alpha = await post(raw, server, "openai", provider="alpha")
    beta = await post(raw, server, "openai", provider="beta")

    assert (alpha.status, beta.status) == (500, 200)
    assert [call.provider for call in server.calls("beta")] == ["beta"]


async def test_a_models_own_script_wins(
    server: FaultServer, raw: aiohttp.ClientSession, wire: WireName
) -> None:
    server.play("alpha", faults.overloaded())
    server.play("alpha", faults.ok(), model="m")
    server.play("alpha", faults.ok(), model="other")

    assert (await post(raw, server, wire)).status == 200
    assert len(server.calls("alpha", "m")) == 1


async def test_a_rule_sees_the_call_and_may_return_a_rule(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    def rule(call: Call) -> Play:
        return faults.context_overflow() if call.prompt_tokens > 10 else faults.in_turn(faults.ok())

    server.play("alpha", rule)
    long = [{"role": "user", "content": "word " * 11}]

    short_answer = await post(raw, server, "openai")
    long_answer = await post(raw, server, "openai", messages=long)

    assert (short_answer.status, long_answer.status) == (200, 400)


async def test_a_prompt_may_be_megabytes_long(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    long = [{"role": "user", "content": "word " * 1_000_000}]

    assert (await post(raw, server, "openai", messages=long)).status == 200
    assert server.log[0].prompt_tokens == 1_000_000


@pytest.mark.parametrize(
    ("at", "down"), [(1.9, False), (2.0, True), (2.9, True), (3.0, False), (7.0, True)]
)
def test_an_outage_has_a_beginning_and_an_end(at: float, down: bool) -> None:
    fault, up = faults.status(500), faults.ok()
    rule = faults.outage(2, 3, fault, otherwise=faults.outage(6, 8, fault, otherwise=up))

    play = rule(Call(provider="alpha", at=at))
    while callable(play):
        play = play(Call(provider="alpha", at=at))

    assert (play is fault) == down


async def test_an_outage_is_played(server: FaultServer, raw: aiohttp.ClientSession) -> None:
    server.play("alpha", faults.outage(0, server.now() + 3600))

    assert await played(raw, server, 1) == ["overloaded"]


def test_a_flaky_provider_fails_its_share_and_the_same_calls_for_a_seed() -> None:
    fault, call = faults.status(500), Call(provider="alpha")

    runs = [
        [rule(call) is fault for _ in range(1000)]
        for rule in (faults.flaky(0.2, fault, seed=seed) for seed in (1, 1, 2))
    ]

    assert runs[0] == runs[1] != runs[2]
    assert 150 < sum(runs[0]) < 250


async def test_a_provider_of_limited_capacity_queues_and_then_refuses(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    server.play("alpha", faults.capacity(2, 0.02, queue=1))
    begun = time.monotonic()

    seen = await asyncio.gather(*(post(raw, server, "openai") for _ in range(5)))

    assert sorted(got.status for got in seen) == [200, 200, 200, 503, 503]
    assert time.monotonic() - begun >= 0.039  # the third waited for its turn
    assert (await post(raw, server, "openai")).status == 200


async def test_a_client_that_leaves_gives_its_place_back(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    server.play("alpha", faults.capacity(1, 0.05, queue=1))
    serving, queued = (asyncio.create_task(post(raw, server, "openai")) for _ in range(2))
    await eventually(lambda: server.in_flight("alpha") == 2)

    for task in (serving, queued):
        task.cancel()
    await eventually(lambda: server.in_flight("alpha") == 0)

    assert [call.hung_up for call in server.log] == [True, True]
    assert (await post(raw, server, "openai")).status == 200


async def test_an_assistants_turn_is_continued_where_the_vendor_does_so(
    server: FaultServer, raw: aiohttp.ClientSession, wire: WireName
) -> None:
    begun = " ".join(CANONICAL.split()[:40])
    if wire == "gemini":
        turn: dict[str, Any] = {"role": "model", "parts": [{"text": begun}]}
        body = {"contents": [*BODIES[wire]["contents"], turn]}
    else:
        turn = {"role": "assistant", "content": begun}
        body = {**BODIES[wire], "messages": [*BODIES[wire]["messages"], turn]}

    await post(raw, server, wire, body=body)
    server.play("alpha", faults.rejects_prefill())
    rejected = await post(raw, server, wire, body=body)

    assert server.log[0].words == (60 if wire == "openai" else 20)
    assert server.log[0].prefill == begun
    assert rejected.status == 400


async def test_an_answer_may_be_any_text_of_any_length(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    odd = '  "tab\there",\n  snow ☃ and \x1a  '
    server.play("alpha", [faults.ok(odd), faults.ok(tokens=3), faults.ok("a b", tokens=5)])

    texts = [
        (await post(raw, server, "openai")).json["choices"][0]["message"]["content"]
        for _ in range(3)
    ]

    assert texts == [odd, "Rivers carry mountains", "a b a b a"]


# ── Probes, and the server's own life ─────────────────────────────────────────────────────────────


async def probe(raw: aiohttp.ClientSession, server: FaultServer, wire: WireName) -> tuple[int, Any]:
    path = "/v1beta/models" if wire == "gemini" else "/v1/models"
    url = server.base_url("alpha", "gemini") + path
    timeout = aiohttp.ClientTimeout(total=SHORT)
    async with raw.get(url, headers=KEYS[wire], timeout=timeout) as response:
        return response.status, await response.json(content_type=None)


async def test_a_probe_lists_the_models_and_moves_no_script_on(
    server: FaultServer, raw: aiohttp.ClientSession, wire: WireName
) -> None:
    server.play("alpha", [faults.cut(), faults.ok()])
    server.play("alpha", faults.ok(), model="tiny")

    status, body = await probe(raw, server, wire)

    names = [model.get("id") or model["name"] for model in body.get("data") or body["models"]]
    assert status == 200
    assert [name.removeprefix("models/") for name in names] == ["big", "small", "tiny"]
    assert (len(server.log), len(server.probes)) == (0, 1)
    with pytest.raises(aiohttp.ClientPayloadError):
        await post(raw, server, "openai")  # the script's first, still


async def test_a_probe_finds_an_outage(
    server: FaultServer, raw: aiohttp.ClientSession, wire: WireName
) -> None:
    server.play("alpha", [faults.status(503), faults.ok()])
    first, _ = await probe(raw, server, wire)
    server.play("alpha", faults.reset())
    with pytest.raises(aiohttp.ClientError):
        await probe(raw, server, wire)
    server.play("alpha", faults.silence())
    with pytest.raises(TimeoutError):
        await probe(raw, server, wire)

    assert first == 503


async def test_a_server_that_stops_listening_refuses_and_drops_and_comes_back(
    server: FaultServer, raw: aiohttp.ClientSession
) -> None:
    server.play("alpha", [faults.silence(), faults.ok()])
    port = server.port
    waiting = asyncio.create_task(post(raw, server, "openai"))
    await eventually(lambda: server.in_flight("alpha") == 1)

    await server.stop_listening()
    with pytest.raises(aiohttp.ClientError):
        await waiting
    with pytest.raises(aiohttp.ClientConnectorError):
        await post(raw, server, "openai")
    await server.resume()

    assert (await post(raw, server, "openai")).status == 200
    assert server.port == port
    assert not server.log[0].hung_up


async def test_stopping_is_quick_however_many_hang(raw: aiohttp.ClientSession) -> None:
    async with FaultServer() as server:
        server.play("alpha", faults.stall(3))
        tasks = [
            asyncio.create_task(post(raw, server, "openai", stream=bool(n % 2))) for n in range(50)
        ]
        await eventually(lambda: server.in_flight("alpha") == 50)
        begun = time.monotonic()
    took = time.monotonic() - begun

    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert took < 1.0
    assert all(isinstance(result, aiohttp.ClientError) for result in results)


def test_a_server_that_is_not_running_has_no_address() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        FaultServer().base_url("alpha")


@pytest.mark.parametrize("script", ["hello", b"x", ["hello"], 500, None], ids=repr)
async def test_what_is_no_script_is_refused_at_once(script: Any) -> None:
    async with FaultServer() as server:
        with pytest.raises(TypeError, match="script is"):
            server.play("alpha", script)
