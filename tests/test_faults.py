"""Whatever a vendor says when it fails, it becomes the error that recovery understands."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.errors import (
    MESSAGE_LIMIT,
    AuthFailed,
    BadRequest,
    ContentFiltered,
    ContextOverflow,
    Malformed,
    ProviderError,
    ProviderOverloaded,
    QuotaExhausted,
    RateLimited,
    ServerError,
)
from zejzl.providers.faults import (
    CODE_LIMIT,
    CODES,
    error_in,
    from_error,
    from_response,
    parse,
    request_id,
    retry_after,
)

NOW = 1_760_000_000.0  # Thu, 09 Oct 2025 08:53:20 GMT
DATE = "Thu, 09 Oct 2025 08:53:20 GMT"
LATER = "Thu, 09 Oct 2025 08:53:50 GMT"
RPC = "type.googleapis.com/google.rpc."


def of(
    status: int, body: Any = b"", headers: dict[str, str] | None = None, key: str = ""
) -> ProviderError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return from_response(status, headers or {}, raw, provider="p", model="m", wall=NOW, key=key)


def gemini(status: int, state: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    error = {"code": status, "message": message, "status": state, "details": [*details]}
    return {"error": error}


def quota(period: str) -> dict[str, Any]:
    violation = {"quotaId": f"GenerateRequestsPer{period}PerProjectPerModel-FreeTier"}
    return {"@type": f"{RPC}QuotaFailure", "violations": [violation]}


# ── the status ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (300, Malformed),
        (302, Malformed),
        (400, BadRequest),
        (401, AuthFailed),
        (402, QuotaExhausted),
        (403, AuthFailed),
        (404, BadRequest),
        (408, ServerError),
        (413, ContextOverflow),
        (422, BadRequest),
        (429, RateLimited),
        (500, ServerError),
        (502, ServerError),
        (503, ProviderOverloaded),
        (504, ServerError),
        (529, ProviderOverloaded),
        (101, Malformed),
    ],
)
def test_where_nothing_else_is_said_the_status_decides(
    status: int, expected: type[ProviderError]
) -> None:
    failure = of(status)

    assert type(failure) is expected
    assert (failure.status, failure.args[0]) == (status, "no message")
    assert (failure.provider, failure.model, failure.code) == ("p", "m", "")


# ── bodies as vendors send them ───────────────────────────────────────────────────────────────

SEEN: dict[str, tuple[int, Any, type[ProviderError], str, str]] = {
    "OpenAI: key": (
        401,
        {
            "error": {
                "message": "Incorrect",
                "type": "invalid_request_error",
                "code": "invalid_api_key",
            }
        },
        AuthFailed,
        "invalid_api_key",
        "Incorrect",
    ),
    "OpenAI: no money, told as 429": (
        429,
        {"error": {"message": "quota", "type": "insufficient_quota", "code": "insufficient_quota"}},
        QuotaExhausted,
        "insufficient_quota",
        "quota",
    ),
    "OpenAI: country": (
        403,
        {
            "error": {
                "message": "no",
                "type": "invalid_request_error",
                "code": "unsupported_country",
            }
        },
        AuthFailed,
        "unsupported_country",
        "no",
    ),
    "OpenAI: a general code with a telling status": (
        503,
        {"error": {"message": "slow down", "type": "server_error", "code": None}},
        ProviderOverloaded,
        "server_error",
        "slow down",
    ),
    "OpenAI: too long": (
        400,
        {
            "error": {
                "message": "x",
                "type": "invalid_request_error",
                "code": "context_length_exceeded",
            }
        },
        ContextOverflow,
        "context_length_exceeded",
        "x",
    ),
    "OpenAI: content": (
        400,
        {"error": {"message": "x", "type": None, "code": "content_policy_violation"}},
        ContentFiltered,
        "content_policy_violation",
        "x",
    ),
    "Anthropic: too long": (
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "prompt is too long: 208310 tokens > 200000 maximum",
            },
        },
        ContextOverflow,
        "invalid_request_error",
        "prompt is too long: 208310 tokens > 200000 maximum",
    ),
    "Anthropic: too long with its answer": (
        400,
        {"error": {"message": "input length and `max_tokens` exceed context limit: 1 + 2 > 2"}},
        ContextOverflow,
        "",
        "input length and `max_tokens` exceed context limit: 1 + 2 > 2",
    ),
    "Anthropic: no money, told as 400": (
        400,
        {
            "error": {
                "type": "invalid_request_error",
                "message": "Your credit balance is too low to",
            }
        },
        QuotaExhausted,
        "invalid_request_error",
        "Your credit balance is too low to",
    ),
    "Anthropic: overloaded": (
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        ProviderOverloaded,
        "overloaded_error",
        "Overloaded",
    ),
    "Anthropic: too large": (
        413,
        {"error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}},
        ContextOverflow,
        "request_too_large",
        "Request exceeds the maximum size",
    ),
    "Gemini: key, told as 400": (
        400,
        gemini(400, "INVALID_ARGUMENT", "API key not valid.", {"reason": "API_KEY_INVALID"}),
        AuthFailed,
        "API_KEY_INVALID",
        "API key not valid.",
    ),
    "Gemini: a reason that tells nothing": (
        403,
        gemini(403, "PERMISSION_DENIED", "no", {"reason": "SERVICE_DISABLED"}),
        AuthFailed,
        "SERVICE_DISABLED",
        "no",
    ),
    "Gemini: too long": (
        400,
        gemini(
            400,
            "INVALID_ARGUMENT",
            "The input token count (9) exceeds the maximum number of tokens allowed (8).",
        ),
        ContextOverflow,
        "INVALID_ARGUMENT",
        "The input token count (9) exceeds the maximum number of tokens allowed (8).",
    ),
    "Gemini: a quota of the minute": (
        429,
        gemini(429, "RESOURCE_EXHAUSTED", "quota", quota("Minute")),
        RateLimited,
        "RESOURCE_EXHAUSTED",
        "quota",
    ),
    "Gemini: a quota of the day": (
        429,
        gemini(429, "RESOURCE_EXHAUSTED", "quota", quota("Day")),
        QuotaExhausted,
        "RESOURCE_EXHAUSTED",
        "quota",
    ),
    "Gemini: in a list": (
        503,
        [gemini(503, "UNAVAILABLE", "busy")],
        ProviderOverloaded,
        "UNAVAILABLE",
        "busy",
    ),
    "DeepSeek: too long": (
        400,
        {"error": {"message": "This model's maximum context length is 131072 tokens."}},
        ContextOverflow,
        "",
        "This model's maximum context length is 131072 tokens.",
    ),
    "xAI: a text beside a code": (
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "maximum prompt length is 131072",
        },
        ContextOverflow,
        "Client specified an invalid argument",
        "maximum prompt length is 131072",
    ),
    "Qwen: too long": (
        400,
        {"error": {"message": "Range of input length should be [1, 30720]", "code": "x"}},
        ContextOverflow,
        "x",
        "Range of input length should be [1, 30720]",
    ),
    "Qwen: no money": (
        400,
        {"error": {"message": "Access denied", "type": "Arrearage", "code": "Arrearage"}},
        QuotaExhausted,
        "Arrearage",
        "Access denied",
    ),
    "Qwen: content": (
        400,
        {"error": {"message": "inappropriate", "code": "data_inspection_failed"}},
        ContentFiltered,
        "data_inspection_failed",
        "inappropriate",
    ),
    "Z.ai: no money, told as 429": (
        429,
        {"error": {"code": "1113", "message": "Insufficient balance"}},
        QuotaExhausted,
        "1113",
        "Insufficient balance",
    ),
    "llama.cpp: too long": (
        400,
        {"error": {"code": 400, "type": "exceed_context_size_error", "message": "x"}},
        ContextOverflow,
        "exceed_context_size_error",
        "x",
    ),
    "Ollama: a text": (
        404,
        {"error": "model 'm' not found"},
        BadRequest,
        "",
        "model 'm' not found",
    ),
    "a gateway: msg": (500, {"code": "E7", "msg": "failed"}, ServerError, "E7", "failed"),
    "a framework: detail": (422, {"detail": "no"}, BadRequest, "", '{"detail": "no"}'),
    "a page": (502, b"<h1>Bad\n gateway</h1>", ServerError, "", "<h1>Bad gateway</h1>"),
    "no UTF-8": (500, b"\xff\x00oops", ServerError, "", "�oops"),
    "a message that is none": (
        400,
        {"error": {"message": {"a": 1}}},
        BadRequest,
        "",
        '{"error": {"message": {"a": 1}}}',
    ),
    "nested without end": (500, b"[" * 100_000, ServerError, "", "[" * (MESSAGE_LIMIT - 1) + "…"),
}


@pytest.mark.parametrize("name", SEEN)
def test_a_vendors_words_become_the_error_they_mean(name: str) -> None:
    status, body, expected, code, message = SEEN[name]

    failure = of(status, body)

    assert type(failure) is expected
    assert (failure.status, failure.code, failure.args[0]) == (status, code, message)


@pytest.mark.parametrize("place", ["code", "type", "status"])
@pytest.mark.parametrize("code", CODES)
def test_a_telling_code_decides_before_the_status(code: str, place: str) -> None:
    failure = of(500, {"error": {place: code, "message": "x"}})

    assert (failure.failure_class, failure.code) == (CODES[code], code)


def test_words_in_a_message_do_not_decide_against_a_code() -> None:
    failure = of(400, {"error": {"code": "invalid_api_key", "message": "prompt is too long"}})

    assert type(failure) is AuthFailed


# ── errors inside a 200 ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"type": "overloaded_error", "message": "x"}, ProviderOverloaded),
        ({"type": "invalid_request_error", "message": "x"}, BadRequest),
        ({"type": "not_found_error", "message": "x"}, BadRequest),
        ({"type": "invalid_request_error", "message": "prompt is too long"}, ContextOverflow),
        ({"type": "api_error", "message": "x"}, ServerError),
        ({"message": "x"}, ServerError),
        ({"code": 429, "message": "x"}, RateLimited),
        ({"code": "429", "message": "x"}, RateLimited),
        ({"status": 503, "message": "x"}, ProviderOverloaded),
        ({"code": 200, "message": "x"}, ServerError),
        ({"code": True, "status": 1e3, "message": "x"}, ServerError),
        ({"code": 502, "type": "rate_limit_error", "message": "x"}, RateLimited),
    ],
)
def test_without_a_status_codes_tell_and_then_the_number_they_hold(
    error: dict[str, Any], expected: type[ProviderError]
) -> None:
    failure = from_error(error, provider="p", model="m")

    assert type(failure) is expected
    assert failure.status is None


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"error": {"message": "x"}}, {"message": "x"}),
        ({"error": "x"}, {"message": "x", "error": "x"}),
        ([{"error": {"message": "x"}}], {"message": "x"}),
        ({"error": True, "message": "x"}, {"error": True, "message": "x"}),
        ({"error": None, "choices": []}, None),
        ({"error": {}, "choices": []}, None),
        ({"choices": [], "message": "x"}, None),
        ({"error": ["x"]}, None),
        ([], None),
        ([1], None),
        ("error", None),
        (None, None),
    ],
)
def test_an_error_is_found_where_vendors_put_it(body: Any, found: Any) -> None:
    assert error_in(body) == found


def test_an_announced_error_needs_no_member_of_that_name() -> None:
    assert error_in({"message": "x"}, announced=True) == {"message": "x"}
    assert error_in({"choices": []}, announced=True) is None


# ── how long to wait ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "250.5", "retry-after": "1"}, 0.2505),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": LATER}, 30.0),
        ({"retry-after": LATER, "date": "Thu, 09 Oct 2025 08:53:45 GMT"}, 5.0),
        ({"retry-after": LATER, "date": "today"}, 30.0),
        ({"retry-after": "Thursday, 09-Oct-25 08:53:50 GMT"}, 30.0),
        ({"retry-after": "Thu, 09 Oct 2025 10:53:50 +0200"}, 30.0),
        ({"retry-after": "Thu, 09 Oct 2025 08:53:50 -0000"}, 30.0),
        ({"retry-after": DATE, "date": LATER}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "Thu, 09 Oct 2025 08:53:50 +9999999999"}, None),
        ({"retry-after": "Thu, 09 Oct 99999 08:53:50 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 0001 00:00:00 +2359"}, 0.0),
    ],
)
def test_a_wait_is_told_in_seconds_milliseconds_or_as_a_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("delay", "headers", "seconds"),
    [
        ("13s", {}, 13.0),
        ("38.984513719s", {}, 38.984513719),
        ("13s", {"retry-after": "7"}, 7.0),
        ("soon", {}, None),
        (13, {}, None),
    ],
    ids=["seconds", "with nanoseconds", "the header wins", "no time", "no text"],
)
def test_gemini_tells_the_wait_in_its_body(
    delay: Any, headers: dict[str, str], seconds: float | None
) -> None:
    info = {"@type": f"{RPC}RetryInfo", "retryDelay": delay}
    body = gemini(429, "RESOURCE_EXHAUSTED", "x", quota("Minute"), info)

    assert of(429, body, headers).retry_after == seconds


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_any_header_asks_for_a_finite_wait_or_for_none(ms: str, after: str, date: str) -> None:
    found = retry_after({"retry-after-ms": ms, "retry-after": after, "date": date}, NOW)

    assert found is None or 0 <= found < 1e12


# ── the id of the call, the key ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"x-request-id": "r1"}, None, "r1"),
        ({"request-id": "r1"}, {"request_id": "r2"}, "r1"),
        ({"x-goog-request-id": "r1"}, None, "r1"),
        ({}, {"request_id": "r2"}, "r2"),
        ({}, {"request_id": 7}, ""),
        ({"x-request-id": ""}, [], ""),
        ({"x-request-id": "r" * 999}, None, "r" * CODE_LIMIT),
    ],
)
def test_the_id_of_the_call_is_in_a_header_or_in_the_body(
    headers: dict[str, str], body: Any, expected: str
) -> None:
    assert request_id(headers, body) == expected


def test_the_key_is_not_repeated() -> None:
    key = "sk-0123456789"
    body = {"error": {"message": "x" * 490 + key, "code": key}}

    failure = of(401, body, key=key)

    assert failure.args[0] == "x" * 490 + "[key]"
    assert failure.code == "[key]"
    assert of(500, f"oops {key}".encode(), key=key).args[0] == "oops [key]"


# ── anything at all ───────────────────────────────────────────────────────────────────────────

WORDS = ["error", "message", "msg", "code", "type", "status", "details", "reason", "retryDelay"]
WORDS += ["violations", "quotaId", "request_id", "13s", "429", "PerDay", *list(CODES)[:4]]
keys = st.sampled_from(WORDS) | st.text(max_size=5)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | keys
anything = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=12
)
bodies = st.binary() | anything.map(lambda value: json.dumps(value).encode())
texts = st.text(max_size=30)
names = st.sampled_from(["retry-after", "retry-after-ms", "date", "x-request-id", "request-id"])


def check(failure: ProviderError) -> None:
    assert isinstance(failure, ProviderError)
    assert 0 < len(failure.args[0]) <= MESSAGE_LIMIT
    assert len(str(failure)) <= MESSAGE_LIMIT + 2 * CODE_LIMIT + 100
    assert len(str(failure).splitlines()) == 1
    assert str(failure).isprintable()


@given(st.integers(100, 999), st.dictionaries(names, texts), bodies)
def test_any_response_becomes_an_error_of_one_short_line(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    check(of(status, body, headers))


@given(anything)
def test_any_error_object_becomes_an_error_of_one_short_line(body: Any) -> None:
    error = error_in(body)

    if error is not None:
        check(from_error(error, provider="p", model="m"))


@given(st.text() | st.binary())
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with suppress(ValueError):
        parse(text)


def test_what_is_nested_too_deeply_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="nested"):
        parse("[" * 100_000)
