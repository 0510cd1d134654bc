"""The edge: what a caller passes is checked here, before anything is sent or stored."""

import math
from collections.abc import Callable

from zejzl.errors import SettingsError
from zejzl.messages import Request
from zejzl.settings import check_count, check_seconds


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


def checked_times(deadline: float | None, patience: float | None) -> None:
    """Raise ValueError unless both are None or seconds; patience may be 0."""
    _as_setting(check_seconds, "deadline", deadline)
    _as_setting(check_seconds, "patience", patience, zero=True)


def _as_setting(check: Callable[..., None], name: str, value: object, **how: bool) -> None:
    """Check an argument by the rule of the setting of its kind."""
    try:
        check(name, value, **how)
    except SettingsError as wrong:
        raise ValueError(str(wrong)) from None
