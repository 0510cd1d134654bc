"""What is left of a rate limit is read from any vendor's headers, and told in them truly."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from zejzl.errors import ProviderError, RateLimited
from zejzl.messages import Request
from zejzl.policies.quota import LimitInForce, Meter, Rates, Seen
from zejzl.providers import Anthropic, Gemini, OpenAICompatible
from zejzl.providers.adapter import Adapter
from zejzl.providers.quotas import seen
from zejzl.providers.transport import MOST_MODELS
from zejzl.testing import Call, FakeClock, FaultServer, faults
from zejzl.testing.behaviours import Answer, Play, Refusal, WireName
from zejzl.testing.openai_wire import OpenAIWire

NOW = 1_760_000_000.0  # Thu, 09 Oct 2025 08:53:20 GMT
DATE = "Thu, 09 Oct 2025 08:53:20 GMT"
ASKED = Request(content="what do rivers do")  # four words
OPENAI = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-tokens": "6m0s",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "1000",
    "anthropic-ratelimit-requests-remaining": "999",
    "anthropic-ratelimit-requests-reset": "2025-10-09T08:53:21Z",
    "anthropic-ratelimit-tokens-limit": "96000",
    "anthropic-ratelimit-tokens-remaining": "90000",
    "anthropic-ratelimit-tokens-reset": "2025-10-09T08:53:24Z",
}


# ── read ──────────────────────────────────────────────────────────────────────────────────────


def openai(what: str, limit: str, remaining: str, reset: str) -> dict[str, str]:
    names = (f"x-ratelimit-{part}-{what}" for part in ("limit", "remaining", "reset"))
    return dict(zip(names, (limit, remaining, reset), strict=True))


def anthropic(what: str, limit: str, remaining: str, reset: str) -> dict[str, str]:
    names = (f"anthropic-ratelimit-{what}-{part}" for part in ("limit", "remaining", "reset"))
    return dict(zip(names, (limit, remaining, reset), strict=True))


def requests_of(found: Seen | None) -> Any:
    if found is None:
        return None
    return found.limit_requests, found.remaining_requests, found.reset_requests


def tokens_of(found: Seen | None) -> Any:
    if found is None:
        return None
    return found.limit_tokens, found.remaining_tokens, found.reset_tokens


def test_openai_tells_of_both_limits() -> None:
    found = seen(CIMultiDict(OPENAI), NOW, age=2.5, refused=True)

    assert found == Seen(
        limit_requests=60,
        remaining_requests=59,
        reset_requests=1.0,
        limit_tokens=150_000,
        remaining_tokens=149_984,
        reset_tokens=360.0,
        age=2.5,
        refused=True,
    )


def test_anthropic_tells_of_both_limits() -> None:
    found = seen(CIMultiDict(ANTHROPIC), NOW)

    assert requests_of(found) == (1_000, 999, 1.0)
    assert tokens_of(found) == (96_000, 90_000, 4.0)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("1h2m", 3_720.0),
        ("1h23m31s", 5_011.0),
        ("2m59.56s", 179.56),
        ("7.66s", 7.66),
        ("500µs", 0.0005),
        ("500us", 0.0005),
        ("30ns", 0.0),
        ("0s", 0.0),
        ("60", 60.0),
        ("0.5", 0.5),
        ("0", 0.0),
    ],
)
def test_a_reset_is_a_duration_or_plain_seconds(written: str, seconds: float) -> None:
    found = requests_of(seen(openai("requests", "60", "59", written), NOW))

    assert found == (60, 59, pytest.approx(seconds, abs=1e-6))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json", "x-request-id": "req_1"},
        {"x-ratelimit-limit-requests": "3", "x-ratelimit-remaining-requests": "0"},
        openai("requests", "-1", "-1", "0"),
        openai("requests", "0", "0", "1s"),
        openai("requests", "60", "", "1s"),
        openai("requests", "60", "59", ""),
        openai("requests", "60", "59", "soon"),
        openai("requests", "60", "59", "-1s"),
        openai("requests", "60", "59", "1s1"),
        openai("requests", "60", "59", "1d"),
        openai("requests", "60", "59", "1m" * 1_000),
        openai("requests", "60", "59", "9" * 10_000),
        openai("requests", "60", "59", "inf"),
        openai("requests", "60", "59", "1e3"),
        openai("requests", "60.0", "59", "1s"),
        openai("requests", "6_0", "59", "1s"),
        openai("requests", "٦٠", "59", "1s"),
        openai("requests", "9" * 16, "59", "1s"),
        openai("tokens", "100, 100;w=60", "59", "1s"),
        anthropic("requests", "60", "59", "soon"),
        anthropic("requests", "60", "59", "1s"),
        anthropic("requests", "60", "59", "0001-01-01T00:00:00+23:59"),
        anthropic("requests", "60", "59", "2025-10-09T08:53:61Z"),
        {"anthropic-ratelimit-unified-reset": "1760000000"},
        {"anthropic-ratelimit-tokens-limit": "60"},
    ],
    ids=lambda headers: str([*headers.values()])[:40],
)
def test_what_is_no_limit_is_ignored(headers: dict[str, str]) -> None:
    found = requests_of(seen(CIMultiDict(headers), NOW))

    # A time that long ago is over.
    assert found is None or found == (60, 59, 0.0)


def test_a_value_that_cannot_be_spoils_only_its_own_limit() -> None:
    found = seen({**OPENAI, "x-ratelimit-reset-requests": "soon"}, NOW)

    assert requests_of(found) == (None, None, None)
    assert tokens_of(found) == (150_000, 149_984, 360.0)


def test_who_limits_tokens_alone_is_read() -> None:
    found = seen(openai("tokens", "1000", "0", "79s"), NOW)

    assert (requests_of(found), tokens_of(found)) == ((None,) * 3, (1_000, 0, 79.0))


NAMES = st.sampled_from([*OPENAI, *ANTHROPIC, "date"])
TEXTS = st.text(max_size=40) | st.sampled_from(["0", "1", "9" * 30, "1s", "NaN", DATE, "-1"])


@given(st.dictionaries(NAMES, TEXTS), st.floats(-1e12, 1e12))
def test_no_header_raises(headers: dict[str, str], wall: float) -> None:
    found = seen(CIMultiDict(headers), wall)

    assert found is None or requests_of(found) is not None


@pytest.mark.parametrize(
    "written", ["2025-10-09T08:53:24Z", "2025-10-09T10:53:24.000+02:00", "2025-10-09T08:53:24"]
)
def test_a_time_is_read_however_it_is_written(written: str) -> None:
    assert requests_of(seen(anthropic("requests", "50", "0", written), NOW)) == (50, 0, 4.0)


@pytest.mark.parametrize(
    ("date", "wall", "seconds"),
    [
        (DATE, NOW + 1.5, 2.5),
        (DATE, NOW + 300.0, 4.0),
        (DATE, NOW - 86_400.0, 4.0),
        ("yesterday", NOW + 1.0, 3.0),
        (None, NOW + 1.0, 3.0),
        (DATE, NOW + 2.0, 2.0),
    ],
    ids=["a moment later", "a clock ahead", "a clock behind", "no date", "none", "the last moment"],
)
def test_a_time_is_measured_against_the_responses_own_date_where_the_clock_is_wrong(
    date: str | None, wall: float, seconds: float
) -> None:
    headers = anthropic("requests", "50", "0", "2025-10-09T08:53:24Z")
    if date is not None:
        headers["date"] = date

    assert requests_of(seen(headers, wall)) == (50, 0, seconds)


def test_input_and_output_tokens_count_together_as_far_as_the_scarcer_goes() -> None:
    asked = anthropic("input-tokens", "80000", "60000", "2025-10-09T08:53:35Z")
    answered = anthropic("output-tokens", "16000", "4000", "2025-10-09T08:54:05Z")

    found = tokens_of(seen({**asked, **answered}, NOW))

    # A quarter of the output is left, and so of the sum; the output takes longer to come back.
    assert found == (96_000, 24_000, 45.0)


@pytest.mark.parametrize("what", ["input-tokens", "output-tokens"])
def test_one_of_input_and_output_stands_for_both(what: str) -> None:
    found = seen(anthropic(what, "8000", "6000", "2025-10-09T08:53:35Z"), NOW)

    assert tokens_of(found) == (8_000, 6_000, 15.0)


def test_what_anthropic_says_of_all_tokens_goes_before_their_parts() -> None:
    parts = anthropic("input-tokens", "8000", "1", "2025-10-09T08:53:35Z")

    assert tokens_of(seen({**ANTHROPIC, **parts}, NOW)) == (96_000, 90_000, 4.0)


# ── kept by the adapter ───────────────────────────────────────────────────────────────────────


def adapter(wire: WireName, base_url: str, **options: Any) -> Adapter:
    make = {"openai": OpenAICompatible, "anthropic": Anthropic, "gemini": Gemini}[wire]
    made: Adapter = make(base_url, "key", "m", **options)
    return made


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer() as running:
        yield running


async def ask(provider: Adapter, way: str, request: Request = ASKED) -> None:
    if way == "plain":
        await provider.generate(request)
    else:
        async with aclosing(provider.stream(request)) as deltas:
            async for _ in deltas:
                pass


@pytest.mark.parametrize("way", ["plain", "streamed"])
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_an_adapter_remembers_what_the_newest_response_said(
    server: FaultServer, wire: WireName, way: str
) -> None:
    server.play("alpha", faults.quota(requests=2, tokens=1_000, window=600.0))
    clock = FakeClock(wall=time.time())
    provider = adapter(wire, server.base_url("alpha", wire), clock=clock)
    told: list[tuple[float, Seen] | None] = [provider.quota("m")]

    for _ in range(3):
        await clock.advance(1.0)
        try:
            await ask(provider, way)
        except RateLimited:
            told.append(provider.quota("m"))
        else:
            told.append(provider.quota("m"))
    await provider.cleanup()

    assert told[0] is None
    newest = [each for each in told if each is not None]
    assert [at for at, _ in newest] == [1.0, 2.0, 3.0]
    assert [requests_of(found) for _, found in newest] == [
        (2, 1, pytest.approx(300.0, abs=3.0)),
        (2, 0, pytest.approx(600.0, abs=3.0)),
        (2, 0, pytest.approx(600.0, abs=3.0)),
    ]
    # Of words, four were asked and sixty answered; the third call got none.
    assert [found.remaining_tokens for _, found in newest] == [936, 872, 872]
    assert [found.refused for _, found in newest] == [False, False, True]


async def test_what_is_told_is_as_old_as_its_request(server: FaultServer) -> None:
    server.play("alpha", faults.quota(requests=2, then=faults.ok(delay=0.2)))
    clock = FakeClock()
    provider = adapter("openai", server.base_url("alpha"), clock=clock)

    asking = asyncio.create_task(provider.generate(ASKED))
    while not server.calls("alpha"):
        await asyncio.sleep(0.01)
    await clock.advance(30.0)
    await asking
    await provider.cleanup()

    at, found = provider.quota("m") or (0.0, Seen())
    assert (at, found.age) == (30.0, 30.0)


@pytest.mark.parametrize("play", [faults.status(500), faults.cut(10), faults.no_finish()])
async def test_answers_that_are_none_tell_of_limits_too(server: FaultServer, play: Play) -> None:
    server.play("alpha", faults.quota(requests=2, then=play))
    provider = adapter("openai", server.base_url("alpha"))

    with pytest.raises(ProviderError):
        await provider.generate(ASKED)
    await provider.cleanup()

    assert provider.quota("m") is not None


async def test_each_model_has_its_own(server: FaultServer) -> None:
    server.play("alpha", faults.quota(requests=2), model="big")
    provider = adapter("openai", server.base_url("alpha"))

    await provider.generate(replace(ASKED, model="small"))
    await provider.generate(replace(ASKED, model="big"))
    await provider.cleanup()

    assert [provider.quota(model) is None for model in ("m", "small", "big")] == [True, True, False]


async def test_a_response_that_tells_nothing_takes_nothing_back(server: FaultServer) -> None:
    server.play("alpha", [faults.quota(requests=2), faults.ok()])
    provider = adapter("openai", server.base_url("alpha"))

    await provider.generate(ASKED)
    before = provider.quota("m")
    await provider.generate(ASKED)
    await provider.cleanup()

    assert before is not None
    assert provider.quota("m") is before


async def test_of_more_than_a_thousand_models_the_first_are_forgotten(
    server: FaultServer,
) -> None:
    server.play("alpha", faults.quota(requests=10_000))
    provider = adapter("openai", server.base_url("alpha"))

    for number in (*range(MOST_MODELS), 1, MOST_MODELS):
        await provider.generate(replace(ASKED, model=f"m{number}"))
    await provider.cleanup()

    known = [provider.quota(f"m{number}") is not None for number in (0, 1, 999, 1_000)]
    assert known == [False, True, True, True]


async def test_gemini_tells_nothing(server: FaultServer) -> None:
    server.play("alpha", faults.quota(requests=1, window=600.0))
    provider = adapter("gemini", server.base_url("alpha", "gemini"))

    await provider.generate(ASKED)
    with pytest.raises(RateLimited) as refused:
        await provider.generate(ASKED)
    await provider.cleanup()

    assert provider.quota("m") is None
    assert refused.value.retry_after == pytest.approx(600.0, abs=3.0)


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_who_books_by_what_an_adapter_heard_is_never_refused(
    server: FaultServer, wire: WireName
) -> None:
    server.play("alpha", faults.quota(requests=20, window=1.0))
    provider = adapter(wire, server.base_url("alpha", wire))
    loop, meter = asyncio.get_running_loop(), Meter(Rates())

    for _ in range(40):
        booking = meter.book(loop.time(), 0)
        await asyncio.sleep(booking.start - loop.time())
        await provider.generate(ASKED)
        at, found = provider.quota("m") or (0.0, Seen())
        meter.observe(at, found)
    await provider.cleanup()

    assert {call.status for call in server.calls("alpha")} == {200}
    assert [limit.most for limit in meter.limits()] == [20]


# ── a provider that limits ────────────────────────────────────────────────────────────────────


def call(at: float, prompt: int = 0, **more: Any) -> Call:
    return Call(provider="alpha", model="m", at=at, prompt_tokens=prompt, **more)


def played(rule: Any, asked: Call) -> Play:
    play: Play = rule(asked)
    return play


def test_a_limit_is_refilled_evenly() -> None:
    rule = faults.quota(requests=2, window=10.0)
    times = [0.0, 0.0, 0.0, 4.9, 5.0, 5.0, 30.0, 30.0, 30.0]

    names = [getattr(played(rule, call(at)), "name", "") for at in times]

    assert names == ["ok", "ok", "quota", "quota", "ok", "quota", "ok", "ok", "quota"]


def test_what_is_left_and_when_it_is_whole_again_is_true() -> None:
    rule = faults.quota(requests=4, window=10.0)
    asked = [call(at) for at in (0.0, 0.0, 5.0, 20.0)]

    for each in asked:
        played(rule, each)

    told = [each.allowances["requests"] for each in asked]
    assert [(each.limit, each.remaining, each.reset) for each in told] == [
        (4, 3, 2.5),
        (4, 2, 5.0),
        (4, 3, 2.5),
        (4, 3, 2.5),
    ]
    assert told[-1].until == pytest.approx(time.time() + 2.5, abs=1.0)


def test_who_is_refused_is_told_when_to_come_and_is_served_then() -> None:
    rule = faults.quota(requests=3, window=1.0)
    for _ in range(3):
        played(rule, call(0.0))

    refusal = played(rule, call(0.1))
    later = played(rule, call(0.1 + 0.234))

    assert isinstance(refusal, Refusal)
    assert refusal.retry_after == 0.234
    assert isinstance(later, Answer)


def test_tokens_are_the_words_asked_and_answered() -> None:
    rule = faults.quota(tokens=100, window=10.0, then=faults.ok(tokens=30))
    asked = [
        call(0.0, 10),
        call(0.0, 10, max_tokens=5),
        call(0.0, 10),
        call(0.0, 10),
        call(0.0, 6),
    ]

    names = [getattr(played(rule, each), "name", "") for each in asked]

    assert [each.allowances["tokens"].remaining for each in asked] == [60, 45, 5, 5, 5]
    assert names == ["ok", "ok", "ok", "quota", "quota"]


def test_an_answer_may_leave_a_debt() -> None:
    rule = faults.quota(tokens=100, window=10.0, then=faults.ok(tokens=150))
    first, second = call(0.0, 50), call(0.0, 1)

    played(rule, first)
    refusal = played(rule, second)

    assert (first.allowances["tokens"].remaining, first.allowances["tokens"].reset) == (0, 20.0)
    assert isinstance(refusal, Refusal)
    assert refusal.retry_after == pytest.approx(10.1)


def test_a_question_beyond_the_limit_is_answered_when_all_of_it_is_left() -> None:
    rule = faults.quota(tokens=10, window=10.0, then=faults.empty())

    names = [getattr(played(rule, call(at, 50)), "name", "") for at in (0.0, 49.0, 50.0)]

    assert names == ["empty", "quota", "empty"]


def test_of_a_continued_answer_only_the_rest_counts() -> None:
    rule = faults.quota(tokens=100, then=faults.ok("one two three"))
    continued = call(0.0, wire="anthropic", prefill="one two")

    played(rule, continued)

    assert continued.allowances["tokens"].remaining == 99


def test_a_prompt_that_was_blocked_answers_nothing() -> None:
    rule = faults.quota(tokens=100, then=faults.content_filtered())
    blocked = call(0.0, 7, wire="gemini")

    played(rule, blocked)

    assert blocked.allowances["tokens"].remaining == 93


def test_a_refused_call_moves_no_script_on_and_a_probe_costs_nothing() -> None:
    script = faults.in_turn(faults.ok("first"), faults.status(500))
    rule = faults.quota(requests=1, window=10.0, then=script)
    probe = call(0.0, probe=True)

    names = [getattr(played(rule, call(at)), "name", "") for at in (0.0, 0.0, 0.0, 10.0)]

    assert names == ["ok", "quota", "quota", "status 500"]
    assert played(rule, probe) is script
    assert not probe.allowances


def test_a_call_that_came_earlier_and_is_asked_later_wins_no_time() -> None:
    rule = faults.quota(requests=1, window=10.0)

    names = [getattr(played(rule, call(at)), "name", "") for at in (5.0, 0.0, 9.0, 15.0)]

    assert names == ["ok", "quota", "quota", "ok"]


def test_without_limits_nothing_is_told() -> None:
    asked = call(0.0)

    assert isinstance(played(faults.quota(), asked), Answer)
    assert not asked.allowances


@pytest.mark.parametrize("limits", [{"requests": 0}, {"tokens": 0}, {"window": 0.0}], ids=str)
def test_a_limit_of_nothing_is_named(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(limits))} must be"):
        faults.quota(**limits)


@pytest.mark.parametrize(
    ("used", "written"),
    [(0, "0s"), (1, "12ms"), (100, "1.2s"), (4_999, "59.988s"), (5_000, "1m0s")],
)
def test_openai_writes_a_reset_as_go_does(used: int, written: str) -> None:
    rule, asked = faults.quota(tokens=5_000, then=faults.empty()), call(0.0, used)
    played(rule, asked)

    assert OpenAIWire().headers(asked)["x-ratelimit-reset-tokens"] == written


@pytest.mark.parametrize(("window", "written"), [(5_400.0, "1h30m0s"), (360.5, "6m0.5s")])
def test_openai_writes_long_resets_as_go_does(window: float, written: str) -> None:
    rule, asked = faults.quota(requests=1, window=window), call(0.0)
    played(rule, asked)

    assert OpenAIWire().headers(asked)["x-ratelimit-reset-requests"] == written


async def test_openais_own_client_finds_the_headers_on_every_response(server: FaultServer) -> None:
    import openai as sdk

    server.play("alpha", faults.quota(requests=3, tokens=1_000, window=600.0))
    client = sdk.AsyncOpenAI(base_url=server.base_url("alpha"), api_key="k", max_retries=0)
    create = client.chat.completions.with_raw_response.create
    found = []

    plain = await create(model="m", messages=[{"role": "user", "content": "one two"}])
    found.append(seen(plain.headers, time.time()))
    streaming = await create(
        model="m", messages=[{"role": "user", "content": "one two"}], stream=True
    )
    found.append(seen(streaming.headers, time.time()))
    async for _ in streaming.parse():
        pass
    await create(model="m", messages=[{"role": "user", "content": "one two"}])
    with pytest.raises(sdk.RateLimitError) as refused:
        await create(model="m", messages=[{"role": "user", "content": "one two"}])
    found.append(seen(refused.value.response.headers, time.time()))
    await client.close()

    usage = plain.parse().usage
    assert usage is not None
    assert [tokens_of(each) for each in found] == [
        (1_000, 1_000 - usage.total_tokens, pytest.approx(37.2, abs=1.0)),
        (1_000, 1_000 - 2 * usage.total_tokens, pytest.approx(74.4, abs=1.0)),
        (1_000, 1_000 - 3 * usage.total_tokens, pytest.approx(111.6, abs=1.0)),
    ]
    assert [requests_of(each) for each in found] == [
        (3, 2, pytest.approx(200.0, abs=1.0)),
        (3, 1, pytest.approx(400.0, abs=1.0)),
        (3, 0, pytest.approx(600.0, abs=1.0)),
    ]
    assert float(refused.value.response.headers["retry-after"]) == pytest.approx(200.0, abs=1.0)


async def test_anthropics_own_client_finds_the_headers_on_every_response(
    server: FaultServer,
) -> None:
    import anthropic as sdk

    server.play("alpha", faults.quota(requests=2, tokens=1_000, window=600.0))
    client = sdk.AsyncAnthropic(
        base_url=server.base_url("alpha", "anthropic"), api_key="k", max_retries=0
    )
    create = client.messages.with_raw_response.create
    found = []

    plain = await create(
        model="m", max_tokens=100, messages=[{"role": "user", "content": "one two"}]
    )
    found.append(seen(plain.headers, time.time()))
    streaming = await create(
        model="m", max_tokens=100, messages=[{"role": "user", "content": "one two"}], stream=True
    )
    found.append(seen(streaming.headers, time.time()))
    async for _ in await streaming.parse():
        pass
    with pytest.raises(sdk.RateLimitError) as refused:
        await create(model="m", max_tokens=1, messages=[{"role": "user", "content": "one two"}])
    found.append(seen(refused.value.response.headers, time.time()))
    await client.close()

    message = await plain.parse()
    spent = message.usage.input_tokens + message.usage.output_tokens
    assert [tokens_of(each) for each in found] == [
        (1_000, 1_000 - spent, pytest.approx(37.2, abs=1.0)),
        (1_000, 1_000 - 2 * spent, pytest.approx(74.4, abs=1.0)),
        (1_000, 1_000 - 2 * spent, pytest.approx(74.4, abs=1.0)),
    ]
    assert [requests_of(each) for each in found] == [
        (2, 1, pytest.approx(300.0, abs=1.0)),
        (2, 0, pytest.approx(600.0, abs=1.0)),
        (2, 0, pytest.approx(600.0, abs=1.0)),
    ]
    assert float(refused.value.response.headers["retry-after"]) == pytest.approx(300.0, abs=1.0)


async def test_a_client_that_waits_as_told_is_served(server: FaultServer) -> None:
    server.play("alpha", faults.quota(requests=5, window=0.5))
    provider = adapter("openai", server.base_url("alpha"))

    for _ in range(10):
        try:
            await provider.generate(ASKED)
        except RateLimited as refused:
            assert refused.retry_after is not None
            await asyncio.sleep(refused.retry_after + 0.002)
            await provider.generate(ASKED)
    await provider.cleanup()

    statuses = [each.status for each in server.calls("alpha")]
    assert (statuses[:6], statuses.count(200)) == ([200] * 5 + [429], 10)


async def test_a_page_of_a_proxy_tells_of_no_limit(server: FaultServer) -> None:
    server.play("alpha", faults.quota(requests=5, then=faults.html()))
    address = server.base_url("alpha") + "/chat/completions"

    async with aiohttp.ClientSession() as session:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        async with session.post(address, json=body, headers={"api-key": "k"}) as response:
            assert (response.status, seen(response.headers, NOW)) == (502, None)


def test_limits_that_are_told_hold_for_who_learns_them() -> None:
    rule, meter = faults.quota(tokens=1_000, then=faults.empty()), Meter(Rates())
    asked = call(0.0, 400)
    played(rule, asked)
    left = asked.allowances["tokens"]

    meter.observe(
        0.0,
        Seen(limit_tokens=left.limit, remaining_tokens=left.remaining, reset_tokens=left.reset),
    )

    assert meter.limits() == [LimitInForce("tokens", 1_000, 60.0, told=True)]
    assert [meter.wait(0.0, tokens) for tokens in (600, 601)] == [0.0, 24.0]
