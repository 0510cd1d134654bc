"""The edge: what a caller passes and a provider returns is checked before it goes any further."""

import math
from collections.abc import Callable
from typing import get_args

from zejzl.errors import EmptyAnswer, Malformed, SettingsError, shorten
from zejzl.messages import MOST_TOKENS, Delta, FinishReason, Reply, Request, Usage
from zejzl.policies.admission import Criticality
from zejzl.settings import check_count, check_seconds

_REASONS: tuple[str, ...] = get_args(FinishReason)
_CRITICALITIES = {each.name.lower(): each for each in Criticality}


def checked_text(name: str, value: str, *, empty: bool = False) -> str:
    """Return `value` if it is text that can be stored and sent.

    Raises:
        TypeError: If it is no text.
        ValueError: If it is blank and may not be, or cannot be encoded.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, not {type(value).__name__}")
    if not empty and not value.strip():
        raise ValueError(f"{name} must not be empty")
    try:
        value.encode()
    except UnicodeEncodeError as wrong:
        raise ValueError(f"{name} holds half a character (a lone surrogate): {wrong}") from None
    return value


def checked_name(name: str) -> str:
    """Return a provider's name in the form in which it is kept.

    Raises:
        ValueError: If it holds more than letters, digits, - _ and dots.
    """
    key = checked_text("a provider's name", name).strip().lower()
    if not all(char.isalnum() or char in "-_." for char in key):
        raise ValueError(f"a provider's name is letters, digits, - _ and . only, not {name!r}")
    return key


def checked_request(
    content: str, system: str | None, max_tokens: int | None, temperature: float | None
) -> Request:
    """Return the request that these arguments make, without its history."""
    if system is not None:
        checked_text("system", system)
    if max_tokens is not None:
        _as_setting(check_count, "max_tokens", max_tokens)
    if temperature is not None and not (
        isinstance(temperature, int | float)
        and not isinstance(temperature, bool)
        and 0 <= temperature < math.inf
    ):
        raise ValueError(f"temperature must be a number from 0, not {temperature!r}")
    return Request(
        content=checked_text("content", content),
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
    )


def checked_criticality(name: str) -> Criticality:
    """Return the class of that name.

    Raises:
        ValueError: If there is none.
    """
    if not isinstance(name, str) or name not in _CRITICALITIES:
        raise ValueError(f"criticality must be one of {', '.join(_CRITICALITIES)}, not {name!r}")
    return _CRITICALITIES[name]


def checked_times(deadline: float | None, patience: float | None) -> None:
    """Raise ValueError unless both are None or seconds; patience may be 0."""
    _as_setting(check_seconds, "deadline", deadline)
    _as_setting(check_seconds, "patience", patience, zero=True)


def checked_wait(wait: float) -> float:
    """Return `wait` if it is a number of seconds from 0."""
    if wait is None:
        raise TypeError("wait must be a number of seconds, not None")
    _as_setting(check_seconds, "wait", wait, zero=True)
    return wait


def checked_reply(reply: object) -> Reply:
    """Return what a provider answered, if it is an answer: a user's own may return anything.

    Only what is used is looked at: the bus itself fills in who answered, and how that went.

    Raises:
        Malformed: If it is no Reply, its text cannot be stored, or its model, usage or
            finish_reason is none.
        EmptyAnswer: If it holds no text.
    """
    if not isinstance(reply, Reply):
        raise Malformed(f"the answer must be a Reply, not {type(reply).__name__}")
    if not _checked_words(reply.text).strip():
        raise EmptyAnswer("the answer holds no text")
    usage = reply.usage
    if not isinstance(reply.model, str):
        raise _wrong("model", "str", reply.model)
    if not isinstance(usage, Usage):
        raise _wrong("usage", "Usage", usage)
    if not _is_count(usage.prompt_tokens):
        raise _wrong("prompt_tokens", "a number of tokens or None", usage.prompt_tokens)
    if not _is_count(usage.completion_tokens):
        raise _wrong("completion_tokens", "a number of tokens or None", usage.completion_tokens)
    if reply.finish_reason not in _REASONS:
        raise _wrong("finish_reason", f"one of {', '.join(_REASONS)}", reply.finish_reason)
    return reply


def _is_count(tokens: object) -> bool:
    return tokens is None or (type(tokens) is int and 0 <= tokens <= MOST_TOKENS)


def checked_usage(usage: object) -> Usage:
    """Return what a failed call's provider says it counted; nothing of what cannot be."""
    if not isinstance(usage, Usage):
        return Usage()
    counts = usage.prompt_tokens, usage.completion_tokens
    return Usage(*(count if _is_count(count) else None for count in counts))


def _wrong(name: str, wanted: str, found: object) -> Malformed:
    what = repr(found) if isinstance(found, str | float | None) else type(found).__name__
    return Malformed(f"the answer's {name} must be {wanted}, not {shorten(what)}")


def checked_delta(delta: object) -> Delta:
    """Return a piece of a provider's answer, if it is one.

    Raises:
        Malformed: If it is no Delta, or its text cannot be stored.
    """
    if not isinstance(delta, Delta):
        raise Malformed(f"a piece of the answer must be a Delta, not {type(delta).__name__}")
    _checked_words(delta.text)
    return delta


def _checked_words(text: str) -> str:
    if isinstance(text, str) and text.isascii():  # most are, and pieces come by the thousand
        return text
    try:
        return checked_text("the answer's text", text, empty=True)
    except (TypeError, ValueError) as wrong:
        raise Malformed(str(wrong)) from None


def _as_setting(check: Callable[..., None], name: str, value: object, **how: bool) -> None:
    """Check an argument by the rule of the setting of its kind."""
    try:
        check(name, value, **how)
    except SettingsError as wrong:
        raise ValueError(str(wrong)) from None
