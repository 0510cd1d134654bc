"""What response headers say of a provider's rate limits.

    x-ratelimit-{limit,remaining,reset}-{requests,tokens}       OpenAI and those who speak its wire
    anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}                        Anthropic
    anthropic-ratelimit-{input,output}-tokens-{limit,remaining,reset}                   its parts

`reset` is a duration as Go writes it ("6m0s", "1h23m31s", "12ms") or plain seconds; with Anthropic
a time (RFC 3339). What cannot be is ignored, each value by itself: servers that have no limit send
-1 and 0. Gemini has no such headers.

Where Anthropic tells of input and output tokens only, they are taken together as its own `tokens`
are: the limit is their sum, of which so much is left as of the scarcer of the two, until both are
whole again.

Sources: https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers,
https://docs.anthropic.com/en/api/rate-limits#response-headers,
https://console.groq.com/docs/rate-limits#rate-limit-headers,
https://learn.microsoft.com/en-us/answers/questions/5625878 (-1 and 0).
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from zejzl.policies.quota import Seen
from zejzl.providers.faults import http_date

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
CLOCKS_AGREE = 2.0  # seconds; a Date has whole ones, and takes its time to come
_COUNT = re.compile(r"[0-9]{1,15}")  # more than that is no limit
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_SECONDS = re.compile(_NUMBER)
_PART = re.compile(rf"({_NUMBER})(h|ms|m|s|us|µs|ns)")
_DURATION = re.compile(rf"(?:{_PART.pattern}){{1,6}}")


class _Limit(NamedTuple):
    most: int
    left: int
    reset: float  # seconds from now


def seen(
    headers: Mapping[str, str], wall: float, *, age: float = 0.0, refused: bool = False
) -> Seen | None:
    """Return the limits of which the headers tell all three values; None: of none. Never raises.

    Args:
        headers: A response's, case-insensitive.
        wall: Seconds since 1970 at which they came. Where the response's own Date is another time,
            the machine's clock is wrong, and a time is measured against the Date.
        age: Seconds between the request and its headers.
        refused: Whether it was.
    """
    if "x-ratelimit-limit-requests" in headers or "x-ratelimit-limit-tokens" in headers:
        requests, tokens = _openai(headers, "requests"), _openai(headers, "tokens")
    elif (
        "anthropic-ratelimit-requests-limit" in headers
        or "anthropic-ratelimit-tokens-limit" in headers
        or "anthropic-ratelimit-input-tokens-limit" in headers
        or "anthropic-ratelimit-output-tokens-limit" in headers
    ):
        wall = _clock(headers, wall)
        requests = _anthropic(headers, "requests", wall)
        tokens = _anthropic(headers, "tokens", wall) or _together(
            _anthropic(headers, "input-tokens", wall), _anthropic(headers, "output-tokens", wall)
        )
    else:
        return None
    if requests is None and tokens is None:
        return None
    return Seen(
        limit_requests=requests and requests.most,
        remaining_requests=None if requests is None else requests.left,
        reset_requests=None if requests is None else requests.reset,
        limit_tokens=tokens and tokens.most,
        remaining_tokens=None if tokens is None else tokens.left,
        reset_tokens=None if tokens is None else tokens.reset,
        age=age,
        refused=refused,
    )


def _openai(headers: Mapping[str, str], what: str) -> _Limit | None:
    most = _count(headers.get(f"x-ratelimit-limit-{what}"))
    left = _count(headers.get(f"x-ratelimit-remaining-{what}"))
    reset = _duration(headers.get(f"x-ratelimit-reset-{what}", ""))
    return _limit(most, left, reset)


def _anthropic(headers: Mapping[str, str], what: str, wall: float) -> _Limit | None:
    most = _count(headers.get(f"anthropic-ratelimit-{what}-limit"))
    left = _count(headers.get(f"anthropic-ratelimit-{what}-remaining"))
    reset = _until(headers.get(f"anthropic-ratelimit-{what}-reset", ""), wall)
    return _limit(most, left, reset)


def _limit(most: int | None, left: int | None, reset: float | None) -> _Limit | None:
    """Return a limit, if it is one."""
    return _Limit(most, left, reset) if most and left is not None and reset is not None else None


def _together(asked: _Limit | None, answered: _Limit | None) -> _Limit | None:
    if asked is None or answered is None:
        return asked or answered
    most = asked.most + answered.most
    scarcer = min(asked, answered, key=lambda limit: limit.left / limit.most)
    return _Limit(most, most * scarcer.left // scarcer.most, max(asked.reset, answered.reset))


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and _COUNT.fullmatch(text) else None


def _duration(text: str) -> float | None:
    """Return the seconds of a duration."""
    if _SECONDS.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * UNITS[unit] for number, unit in _PART.findall(text))


def _until(text: str, wall: float) -> float | None:
    """Return the seconds from now until a time; one that is over is now."""
    try:
        time = datetime.fromisoformat(text)
        return max(0.0, (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() - wall)
    except (ValueError, OverflowError):
        return None


def _clock(headers: Mapping[str, str], wall: float) -> float:
    """Return the time that it is where the response comes from."""
    date = http_date(headers.get("date", ""))
    return wall if date is None or abs(date - wall) <= CLOCKS_AGREE else date
