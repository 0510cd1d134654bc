"""From what a provider sends when it fails to the error tree, by status, code, headers and phase.

One table of codes serves all vendors: their words do not collide. A telling code decides before
the status, the status before a general code ("invalid_request_error" says nothing that 400 did
not), and words in a message only where none of them tells: Anthropic, Gemini and DeepSeek have no
code for a prompt that is too long.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from zejzl.errors import ERRORS, FailureClass, ProviderError, shorten
from zejzl.policies.diagnosis import classify_status

F = FailureClass

# Codes as the vendors write them, in `code`, `type`, `status` or a detail's `reason`.
CODES: dict[str, FailureClass] = {
    # OpenAI and those who speak its wire
    "context_length_exceeded": F.CONTEXT_OVERFLOW,
    "exceed_context_size_error": F.CONTEXT_OVERFLOW,  # llama.cpp
    "content_filter": F.CONTENT_FILTERED,
    "content_policy_violation": F.CONTENT_FILTERED,
    "insufficient_quota": F.QUOTA_EXHAUSTED,
    "billing_hard_limit_reached": F.QUOTA_EXHAUSTED,
    "billing_not_active": F.QUOTA_EXHAUSTED,
    "rate_limit_exceeded": F.RATE_LIMITED,
    "invalid_api_key": F.AUTH,
    "server_is_overloaded": F.OVERLOADED,
    "service_unavailable_error": F.OVERLOADED,
    # Anthropic
    "rate_limit_error": F.RATE_LIMITED,
    "overloaded_error": F.OVERLOADED,
    "authentication_error": F.AUTH,
    "permission_error": F.AUTH,
    "billing_error": F.QUOTA_EXHAUSTED,
    "request_too_large": F.CONTEXT_OVERFLOW,
    # Gemini
    "API_KEY_INVALID": F.AUTH,
    "PERMISSION_DENIED": F.AUTH,
    "UNAUTHENTICATED": F.AUTH,
    "RESOURCE_EXHAUSTED": F.RATE_LIMITED,
    "UNAVAILABLE": F.OVERLOADED,
    # Those of Alibaba and Zhipu
    "data_inspection_failed": F.CONTENT_FILTERED,
    "Arrearage": F.QUOTA_EXHAUSTED,
    "1113": F.QUOTA_EXHAUSTED,
    "1261": F.CONTEXT_OVERFLOW,
    "1301": F.CONTENT_FILTERED,
    "1302": F.RATE_LIMITED,
    "1305": F.OVERLOADED,
}

# Codes that say less than a status does. They count inside a 200; what is in neither table is the
# provider's own trouble.
GENERAL_CODES: dict[str, FailureClass] = {
    "invalid_request_error": F.BAD_REQUEST,
    "not_found_error": F.BAD_REQUEST,
    "INVALID_ARGUMENT": F.BAD_REQUEST,
    "NOT_FOUND": F.BAD_REQUEST,
}

# Words that tell one bad request from another where the vendor has no code for it.
WORDS: dict[FailureClass, re.Pattern[str]] = {
    F.CONTEXT_OVERFLOW: re.compile(
        r"maximum (context|prompt) length|(prompt|input) is too long|range of input length"
        r"|exceeds? (the )?(available )?context (length|limit|size|window)"
        r"|exceeds the maximum number of (input )?tokens",
        re.IGNORECASE,
    ),
    F.QUOTA_EXHAUSTED: re.compile(r"credit balance is too low", re.IGNORECASE),
}

REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-goog-request-id")
CODE_LIMIT = 80  # characters of a code or an id that an error repeats
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]+)?")  # more than that, some thirty years, is no wait
_SECRET = 8  # characters; a shorter key is none: local servers take any word


def parse(text: str | bytes) -> Any:
    """Return what JSON means.

    Raises:
        ValueError: If it is none, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as deep:
        raise ValueError("nested too deeply") from deep


def from_response(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    provider: str,
    model: str,
    wall: float,
    key: str = "",
) -> ProviderError:
    """Return the error that a response of status 300 or more means.

    Args:
        status: HTTP status.
        headers: The response's, case-insensitive.
        body: The response's; need not be JSON.
        provider: Its name, for the error.
        model: The model asked for.
        wall: Seconds since 1970, to judge an HTTP date when the response has no date of its own.
        key: Never repeated, even where the provider does.
    """
    try:
        parsed = parse(body)
    except ValueError:
        parsed = None
    failure = from_error(
        _error_object(parsed),
        provider=provider,
        model=model,
        status=status,
        otherwise=body[:2000].decode("utf-8", "replace"),
        key=key,
    )
    failure.request_id = request_id(headers, parsed)
    wait = retry_after(headers, wall)
    if wait is not None:
        failure.retry_after = wait
    return failure


def from_error(
    error: Mapping[str, Any],
    *,
    provider: str,
    model: str,
    status: int | None = None,
    otherwise: str = "",
    key: str = "",
) -> ProviderError:
    """Return the error that a vendor's error object means.

    Args:
        error: The object; {} if there is none.
        provider: Its name, for the error.
        model: The model asked for.
        status: HTTP status, if it was one that tells: 300 or more.
        otherwise: What is said where the object says nothing.
        key: Never repeated, even where the provider does.
    """
    codes = list(_codes(error))
    said = [error[name] for name in ("message", "msg") if isinstance(error.get(name), str)]
    message = _without(key, next((text for text in (*said, otherwise) if text.strip()), ""))
    kind = _kind(codes, status or _number(error), message)
    if kind is F.RATE_LIMITED and _daily(error):
        kind = F.QUOTA_EXHAUSTED
    return ERRORS[kind](
        shorten(message) or "no message",
        provider=provider,
        model=model,
        status=status,
        code=_short(_without(key, codes[0])) if codes else "",
        retry_after=_retry_info(error),
    )


def _kind(codes: list[str], number: int | None, message: str) -> FailureClass:
    kind = next((CODES[code] for code in codes if code in CODES), None)
    if kind is None and number is not None:
        kind = classify_status(number)
    if kind is None:
        general = (GENERAL_CODES[code] for code in codes if code in GENERAL_CODES)
        kind = next(general, F.SERVER_ERROR)
    if kind is F.BAD_REQUEST:
        kind = next((told for told, words in WORDS.items() if words.search(message)), kind)
    return kind


def _error_object(parsed: Any) -> Mapping[str, Any]:
    """Return the part of an error body that describes the error; {} when there is none."""
    if isinstance(parsed, list) and parsed:  # Gemini wraps a stream's error in a list
        parsed = parsed[0]
    if not isinstance(parsed, dict):
        return {}
    inner = parsed.get("error")
    if isinstance(inner, dict):
        return inner
    if isinstance(inner, str):  # xAI's and Ollama's; whatever else there is stands beside it
        return {"message": inner, **parsed}
    return parsed if {"message", "msg", "code"} & parsed.keys() else {}


def error_in(parsed: Any, *, announced: bool = False) -> Mapping[str, Any] | None:
    """Return the error object inside an answer that came with status 200, or None.

    `announced` says that it came as an event named "error", which needs no member of that name.
    """
    if isinstance(parsed, dict) and not parsed.get("error") and not announced:
        return None
    return _error_object(parsed) or None


def _codes(error: Mapping[str, Any]) -> Iterator[str]:
    """Yield the vendor's codes, the most telling first."""
    for detail in _details(error):
        if isinstance(detail.get("reason"), str):
            yield detail["reason"]
    for name in ("code", "type", "status"):
        if isinstance(error.get(name), str) and error[name]:
            yield error[name]


def _number(error: Mapping[str, Any]) -> int | None:
    """Return the HTTP status that the object repeats, if it does."""
    for name in ("code", "status"):
        text = str(error[name]) if isinstance(error.get(name), int | str) else ""
        if re.fullmatch(r"[45][0-9][0-9]", text):
            return int(text)
    return None


def _details(error: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return Gemini's details (google.rpc)."""
    details = error.get("details")
    found = details if isinstance(details, list) else []
    return [detail for detail in found if isinstance(detail, dict)]


def _daily(error: Mapping[str, Any]) -> bool:
    """Say whether a QuotaFailure names a quota of the day: no wait of seconds brings it back."""
    for detail in _details(error):
        violations = detail.get("violations")
        for violation in violations if isinstance(violations, list) else ():
            quota = violation.get("quotaId") if isinstance(violation, dict) else None
            if isinstance(quota, str) and "PerDay" in quota:
                return True
    return False


def _retry_info(error: Mapping[str, Any]) -> float | None:
    """Return the seconds of a RetryInfo ("13s"), if there is one."""
    for detail in _details(error):
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and _SECONDS.fullmatch(delay.removesuffix("s")):
            return float(delay.removesuffix("s"))
    return None


def retry_after(headers: Mapping[str, str], wall: float) -> float | None:
    """Return the seconds a response asks to wait: milliseconds, seconds or an HTTP date.

    A date is measured against the response's own Date where it has one, so that a wrong clock
    on either side does not matter. None: it does not ask, or not in a form that means anything.
    """
    text = headers.get("retry-after-ms", "").strip()
    if _SECONDS.fullmatch(text):
        return float(text) / 1000.0
    text = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    until = http_date(text)
    if until is None:
        return None
    own = http_date(headers.get("date", ""))
    return max(0.0, until - (own if own is not None else wall))


def http_date(text: str) -> float | None:
    """Return the seconds since 1970 of an HTTP date; None: it is none."""
    try:
        when: datetime = parsedate_to_datetime(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def request_id(headers: Mapping[str, str], parsed: Any = None) -> str:
    """Return the provider's id of the call, or ""."""
    for name in REQUEST_ID_HEADERS:
        if headers.get(name):
            return _short(headers[name])
    if isinstance(parsed, dict) and isinstance(parsed.get("request_id"), str):
        return _short(parsed["request_id"])
    return ""


def _short(text: str) -> str:
    return shorten(text)[:CODE_LIMIT]


def _without(key: str, text: str) -> str:
    return text.replace(key, "[key]") if len(key) >= _SECRET else text
