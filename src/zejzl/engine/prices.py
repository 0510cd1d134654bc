"""The price table: the one that comes with zejzl, and the user's own over it.

Both are TOML of the same form:

    as_of = "2026-11-22"                                  # day of the oldest figures
    [sources]                                             # for people: who said so, and when
    [prices]                                              # USD per million tokens
    "chatgpt/gpt-5-mini" = { prompt = 0.25, completion = 2.0 }
"""

import difflib
import importlib.resources
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from zejzl.errors import SettingsError, shorten
from zejzl.policies.prices import Price, Prices

TABLE = "prices.toml"  # in the package

_TABLES = ("as_of", "sources", "prices")
_AMOUNTS = ("prompt", "completion")


def load(path: Path | None) -> Prices:
    """Return the built-in prices; with `path`, the user's file over them.

    Where a row of the user's fits, no built-in one is asked, be it the more exact one.

    Raises:
        SettingsError: If the file cannot be read, or anything in it cannot be. Nothing of such
            a file is used.
    """
    builtin = _read(TABLE, (importlib.resources.files("zejzl") / TABLE).read_bytes())
    if path is None:
        return builtin
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        raise SettingsError("prices", f"there is no file {path}") from None
    except (OSError, ValueError) as problem:  # ValueError: no file can have such a name
        said = problem.strerror if isinstance(problem, OSError) else problem
        raise SettingsError("prices", f"{path} cannot be read: {said}") from problem
    return _read(str(path), body, over=builtin)


def _read(file: str, body: bytes, *, over: Prices | None = None) -> Prices:
    """Return the prices that a file's text gives, over those of another table."""
    try:
        found = tomllib.loads(body.decode("utf-8-sig"))  # some editors write a byte order mark
    except (ValueError, RecursionError) as problem:  # no UTF-8, no TOML, or an absurd one
        raise _wrong(file, f"is no TOML: {shorten(str(problem))}") from problem
    _check_keys(file, found, _TABLES)
    if "prices" not in found:
        raise _wrong(file, "has no table [prices]")
    prices = found["prices"]
    if not isinstance(prices, dict):
        raise _wrong(file, "prices must be a table, written as [prices]")
    as_of = "" if over is None else over.as_of
    if "as_of" in found:
        as_of = _day(file, found["as_of"])
    rows = {name: _price(f"{file}, row {shorten(repr(name))}", row) for name, row in prices.items()}
    try:
        return Prices(as_of, rows, over)
    except ValueError as problem:
        raise _wrong(file, str(problem)) from None


def _price(where: str, row: object) -> Price:
    if not isinstance(row, dict):
        raise _wrong(where, "must be { prompt = …, completion = … }")
    _check_keys(where, row, _AMOUNTS)
    for name in _AMOUNTS:
        if name not in row:
            raise _wrong(where, f"has no {name}: 0 says that it is free")
    try:
        return Price(**row)
    except ValueError as problem:
        raise _wrong(where, str(problem)) from None


def _day(file: str, written: object) -> str:
    try:
        return date.fromisoformat(str(written)).isoformat()
    except ValueError:
        raise _wrong(
            file, f"as_of must be a day such as 2026-11-22, not {shorten(repr(written))}"
        ) from None


def _check_keys(where: str, found: Mapping[str, object], known: tuple[str, ...]) -> None:
    for name, value in found.items():
        if name in known:
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        if isinstance(value, dict):  # `gpt-4.1 = …` is a table `gpt-4` with a table `1` to TOML
            hint += "; a name with a dot needs quotes, and rows go below [prices]"
        raise _wrong(where, f"unknown {shorten(repr(name))}; {hint}")


def _wrong(where: str, problem: str) -> SettingsError:
    return SettingsError("prices", f"{where}: {problem}")
