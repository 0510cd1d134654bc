"""What a `FaultServer` can be told to do: a function with a good name for each.

Every fault means something on every wire, plain or streamed; where a vendor has no such thing, the
function says what happens there instead. A plain answer is words inside a JSON string, so "after 40
words" holds for it as well. Units: seconds, words. One word is one token.

A script is one of these, a sequence of them, or a function of your own from the `Call` to one.
"""

from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Literal

from zejzl.policies.quota import Rates
from zejzl.testing.behaviours import (
    CANONICAL,
    Answer,
    Break,
    Call,
    Capacity,
    Kind,
    Page,
    Place,
    Play,
    Refusal,
    Rule,
    Seconds,
    pieces,
)
from zejzl.testing.quotas import Quota


def between(low: float, high: float, *, seed: int = 0) -> Seconds:
    """Return seconds to be drawn evenly from `low` to `high`, the same ones for the same seed."""
    rng = Random(seed)
    return lambda: rng.uniform(low, high)


# ── Good answers, and answers that are wrong in themselves ───────────────────────────────────────


def ok(
    text: str = CANONICAL,
    *,
    tokens: int | None = None,
    delay: Seconds = 0.0,
    first_token: Seconds = 0.0,
    pace: Seconds = 0.0,
) -> Answer:
    """A good answer: `text`, cut with the vendor's "length" at the request's own token limit.

    Args:
        text: The answer.
        tokens: Make it so many words long, by cutting or repeating `text`.
        delay: Seconds before anything is sent; see `between` for drawn ones.
        first_token: Seconds between headers and first word.
        pace: Seconds between the words of a stream; a plain answer takes as long in all.

    Anthropic and Gemini continue an assistant's turn at the end of the request where it is the
    beginning of the answer; OpenAI answers anew.
    """
    words = pieces(text)
    if tokens is not None:
        endless = (*words, *pieces(f" {text}") * (tokens // max(1, len(words))))
        words = endless[:tokens]
    return Answer(words=words, delay=delay, first_token=first_token, pace=pace)


def empty() -> Answer:
    """A well-formed answer without any text, finished in good order."""
    return Answer(name="empty")


def truncated(tokens: int = 20) -> Answer:
    """An answer of `tokens` words that ends for its length, whatever the request allowed."""
    return Answer(name="truncated", words=pieces(CANONICAL)[:tokens], finish="length")


def filtered_midway(after: int = 20) -> Answer:
    """`after` words, then the finish reason content_filter; Anthropic refusal, Gemini SAFETY."""
    words = pieces(CANONICAL)[:after]
    return Answer(name="filtered_midway", words=words, finish="content_filter")


def no_sentinel() -> Answer:
    """All words and the finish reason, but not what marks the end: [DONE], or message_stop.

    Gemini and plain answers have no such mark but HTTP's own, which is then missing: the
    connection closes before the last chunk.
    """
    return Answer(name="no_sentinel", words=pieces(CANONICAL), sentinel=False)


def no_finish(after: int | None = None, *, sentinel: bool = False) -> Answer:
    """`after` words (None: all), then a clean end without any finish reason.

    `sentinel` sends the end mark all the same, as a careless proxy does. A plain answer holds
    null where the reason belongs; so does Gemini's by leaving it out.
    """
    words = pieces(CANONICAL)[:after]
    return Answer(name="no_finish", words=words, finish=None, sentinel=sentinel)


# ── Answers that break on their way ──────────────────────────────────────────────────────────────


def _broken(name: str, broken: Break) -> Answer:
    return replace(ok(), name=name, broken=broken)


def cut(after: int = 40) -> Answer:
    """The connection is closed after `after` words; a plain body is shorter than announced."""
    return _broken("cut", Break(how="cut", after=after))


def cut_at(
    place: Place, text: str = CANONICAL, *, how: Literal["cut", "reset", "end"] = "cut"
) -> Answer:
    """The body stops after so many bytes: inside an event, a character, a line end, anywhere.

    Args:
        place: The bytes that are sent; a function is given the whole body. Beyond the body's end
            is its end, without what HTTP sends after it.
        text: The answer.
        how: The connection is closed ("cut"), reset ("reset"), or the response ends in good order
            ("end"), as through a proxy that has noticed nothing.
    """
    return replace(ok(text), name="cut_at", broken=Break(how=how, at=place))


def stall(after: int = 20, *, seconds: float | None = None) -> Answer:
    """Nothing follows `after` words for `seconds` (None: for ever); then the rest does."""
    return _broken("stall", Break(how="stall", after=after, seconds=seconds))


def malformed(after: int = 20) -> Answer:
    """The event after `after` words is broken JSON; the others follow in good order.

    One word is lost by who skips it. A plain answer's body is not JSON, at that place.
    """
    return _broken("malformed", Break(how="malformed", after=after))


def error_event(after: int = 20, *, error: Refusal | None = None) -> Answer:
    """After `after` words of a stream with status 200 comes `error` (default: overloaded).

    A plain answer has status 200 and nothing but the error's body.
    """
    return _broken("error_event", Break(how="error", after=after, error=error or overloaded()))


def slow_first_token(seconds: float) -> Answer:
    """Headers at once, the first word after `seconds`, the rest with it."""
    return replace(ok(first_token=seconds), name="slow_first_token")


def dressed(
    answer: Answer, *, line_end: str = "\n", escaped: bool = False, charset: str = "utf-8"
) -> Answer:
    """The same answer, written in another way.

    Args:
        answer: A good one, or one that breaks.
        line_end: What ends the lines of a stream: the standard allows "\\r\\n" and "\\r", too.
        escaped: In ASCII, with an escape for every other character, as some servers write JSON.
        charset: Python's name of an encoding; the header says UTF-8 all the same.
    """
    return replace(answer, line_end=line_end, escaped=escaped, charset=charset)


# ── No answer ────────────────────────────────────────────────────────────────────────────────────


def reset(after: int | None = None) -> Answer:
    """The connection is reset (TCP RST): before any header, or after headers and `after` words."""
    return _broken("reset", Break(how="reset", after=after))


def silence(seconds: float | None = None, *, headers: bool = False) -> Answer:
    """Nothing for `seconds` (None: for ever), then a good answer.

    `headers` sends status 200 and the headers at once, and no body.
    """
    silent = ok(first_token=seconds) if headers else ok(delay=seconds)
    return replace(silent, name="silence")


def html(status: int = 502) -> Page:
    """A proxy's HTML page in place of an answer; with status 200 the worst of its kind."""
    text = f"<html><head><title>{status}</title></head><body><h1>Bad gateway</h1></body></html>\n"
    return Page(name="html", status=status, text=text)


# ── The vendor's errors ──────────────────────────────────────────────────────────────────────────

_KINDS: dict[int, Kind] = {
    401: "auth",
    402: "quota_exhausted",
    403: "forbidden",
    404: "not_found",
    429: "rate_limited",
    503: "overloaded",
    529: "overloaded",
}


def status(
    status: int,
    *,
    code: str | None = None,
    message: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Refusal:
    """The vendor's error body for this HTTP status; `code`, `message`, `headers` change or add."""
    kind = _KINDS.get(status, "failed" if status >= 500 else "bad_request")
    name = f"status {status}"
    return Refusal(
        name=name, kind=kind, status=status, code=code, message=message, headers=headers or {}
    )


def rate_limited(
    retry_after: float | None = None,
    *,
    written: Literal["seconds", "date", "milliseconds"] = "seconds",
) -> Refusal:
    """429: too many requests. `retry_after` seconds are told the way `written` says, or not (None).

    Gemini puts them into a RetryInfo of the body as well.
    """
    return Refusal(
        name="rate_limited", kind="rate_limited", retry_after=retry_after, written=written
    )


def quota_exhausted() -> Refusal:
    """No money left: OpenAI's 429 insufficient_quota, Anthropic's 400 "credit balance is too low",
    Gemini's 429 with a daily quota in its QuotaFailure and no RetryInfo."""
    return Refusal(name="quota_exhausted", kind="quota_exhausted")


def overloaded(retry_after: float | None = None) -> Refusal:
    """No capacity: 503, Anthropic's 529 overloaded_error."""
    return Refusal(name="overloaded", kind="overloaded", retry_after=retry_after)


def auth() -> Refusal:
    """The key is refused: 401; Gemini's 400 with the reason API_KEY_INVALID."""
    return Refusal(name="auth", kind="auth")


def not_found() -> Refusal:
    """404: no such model."""
    return Refusal(name="not_found", kind="not_found")


def bad_request(message: str | None = None) -> Refusal:
    """400: the request is wrong."""
    return Refusal(name="bad_request", kind="bad_request", message=message)


def context_overflow() -> Refusal:
    """400: longer than the model's context; only OpenAI has a code for it, the others a message."""
    return Refusal(name="context_overflow", kind="context_overflow")


def content_filtered(*, code: str | None = None) -> Rule:
    """The prompt is refused for its content, before any word.

    OpenAI: 400 with `code` "content_filter" (or "content_policy_violation"). Anthropic: a 200 with
    stop_reason "refusal" and no text. Gemini: a 200 with promptFeedback.blockReason, no candidates.
    """
    name = "content_filtered"
    refusal = Refusal(name=name, kind="content_filtered", code=code)
    blocked = Answer(name=name, finish="blocked")
    return lambda call: refusal if call.wire == "openai" else blocked


def rejects_prefill(otherwise: Play | None = None) -> Rule:
    """400 for a request that ends in an assistant's turn, `otherwise` (default: ok) for others."""
    message = (
        "This model does not support assistant message prefill. "
        "The conversation must end with a user message."
    )
    refusal = Refusal(name="rejects_prefill", kind="bad_request", message=message)
    up = otherwise or ok()
    return lambda call: refusal if call.prefill else up


# ── Scripts: which behaviour when ────────────────────────────────────────────────────────────────


def in_turn(*plays: Play) -> Rule:
    """One after another; the last repeats for ever. A probe sees the next one and leaves it there.

    Raises:
        ValueError: If there are none.
    """
    if not plays:
        raise ValueError("a script needs at least one behaviour")
    played = 0

    def rule(call: Call) -> Play:
        nonlocal played
        play = plays[min(played, len(plays) - 1)]
        played += not call.probe
        return play

    return rule


def outage(
    start: float, end: float, fault: Play | None = None, *, otherwise: Play | None = None
) -> Rule:
    """`fault` (default: overloaded) from `start` until before `end`, in seconds since the server's
    start, `otherwise` (default: ok) at other times; give another outage there for a second one."""
    down, up = fault or overloaded(), otherwise or ok()
    return lambda call: down if start <= call.at < end else up


def flaky(share: float, fault: Play, *, seed: int = 0, otherwise: Play | None = None) -> Rule:
    """`fault` for a random `share` (0 to 1) of the calls, `otherwise` (default: ok) for the rest.

    The same seed fails the same calls, counted in the order of their arrival. Probes never fail.
    """
    rng, up = Random(seed), otherwise or ok()
    return lambda call: fault if not call.probe and rng.random() < share else up


def capacity(
    limit: int,
    seconds: Seconds,
    *,
    queue: int = 0,
    overload: Play | None = None,
    then: Play | None = None,
) -> Capacity:
    """At most `limit` calls are served at once, `seconds` each, and `queue` more wait their turn.

    Whoever comes when the queue is full is told `overload` (default: overloaded) at once. A client
    that hangs up gives its slot or its place back. The answer is `then` (default: ok), which may
    take time of its own within the slot. Calls count together wherever one `capacity` is played.
    """
    return Capacity(limit, seconds, queue, overload or overloaded(), then or ok())


def quota(
    requests: int | None = None,
    tokens: int | None = None,
    window: float = 60.0,
    then: Play | None = None,
) -> Rule:
    """At most so many calls, and tokens asked and answered, in `window` seconds; refilled evenly.

    One too many is told 429 and how long to wait, truly. Every other call gets `then` (default:
    ok), and every response says what is left, in the vendor's headers; Gemini has none. A refused
    call costs nothing and moves no script on. Calls count together wherever one `quota` is played.
    What a `capacity` answers in the end is not counted: put the quota into it, not around it.

    Raises:
        ValueError: If a limit or the window is not above 0.
    """
    return Quota(Rates(requests, tokens, window), then or ok())
