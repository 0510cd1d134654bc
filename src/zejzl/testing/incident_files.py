"""Incidents as TOML, `schema = 1`: read whole or not at all, written so that it reads the same."""

import difflib
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from zejzl.errors import shorten
from zejzl.policies.prices import Price
from zejzl.testing.incidents import (
    Fault,
    Incident,
    IncidentError,
    Load,
    ProviderScript,
    RecordedCall,
)

T = TypeVar("T")

SCHEMA = 1
MOST_BYTES = 256 * 2**20
WORDS = {"start": "from", "end": "to"}  # fields that TOML calls otherwise


def load(path: Path) -> Incident:
    """Return the incident in a file.

    Raises:
        IncidentError: If it is none, or of another schema; says which place is wrong.
        OSError: If the file cannot be read.
    """
    if path.stat().st_size > MOST_BYTES:
        raise IncidentError("", f"{path} has more than {MOST_BYTES:,} bytes: it is no incident")
    try:
        return parse(path.read_bytes())
    except IncidentError as wrong:
        place = f"{path}: {wrong.place}" if wrong.place else str(path)
        raise IncidentError(place, wrong.problem) from None


def parse(text: str | bytes) -> Incident:
    """Return the incident that TOML tells.

    Raises:
        IncidentError: If it is none, or of another schema.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")  # some editors write a byte order mark
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as problem:  # no UTF-8, no TOML, or an absurd one
        raise IncidentError("", f"this is no TOML: {shorten(str(problem))}") from None
    if "schema" not in found:
        raise IncidentError("schema", f"is missing: an incident begins with schema = {SCHEMA}")
    if (schema := found.pop("schema")) is not SCHEMA:
        said = shorten(repr(schema))
        raise IncidentError("schema", f"is {said}: another one; this zejzl reads {SCHEMA}")
    if isinstance(found.get("requests"), dict):  # one table alone
        found["requests"] = [found["requests"]]
    return _made(
        Incident,
        found,
        requests=lambda each: _made(Load, each),
        providers=lambda each: _made(
            ProviderScript,
            each,
            faults=lambda fault: _made(Fault, fault),
            calls=lambda call: _made(RecordedCall, call),
        ),
    )


def _made(cls: type[T], table: object, **parts: Callable[[object], object]) -> T:
    """Return the value that a table tells.

    Args:
        cls: Its class.
        table: From TOML.
        parts: Fields that are lists, with what makes one of each.
    """
    if not isinstance(table, dict):
        raise IncidentError("", f"must be a table, not {shorten(repr(table))}")
    known = {WORDS.get(field.name, field.name): field for field in fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise IncidentError(shorten(name), f"unknown; {hint}")
        values[known[name].name] = _value(name, value, parts.get(name))
    for name, field in known.items():
        if field.default is MISSING and field.name not in values:
            raise IncidentError(name, "is missing")
    return cls(**values)


def _value(name: str, value: object, part: Callable[[object], object] | None) -> object:
    if name == "price":
        return _price(value)
    if name == "began" and not isinstance(value, datetime):
        raise IncidentError(name, f"must be a time, as 2026-11-22T10:00:00Z, not {value!r}")
    if part is None:
        return tuple(value) if isinstance(value, list) else value
    if not isinstance(value, list):
        raise IncidentError(name, f"must be a list of tables, written as [[{name}]]")
    made = []
    for at, each in enumerate(value):
        try:
            made.append(part(each))
        except IncidentError as wrong:
            raise wrong.below(f"{name}[{at}]") from None
    return tuple(made)


def _price(value: object) -> Price:
    if not isinstance(value, dict) or value.keys() != {"prompt", "completion"}:
        problem = f"must be {{ prompt = …, completion = … }}, not {shorten(repr(value))}"
        raise IncidentError("price", problem)
    try:
        return Price(**value)
    except ValueError as wrong:
        raise IncidentError("price", str(wrong)) from None


# Writing -----------------------------------------------------------------------------------------


def dump(incident: Incident) -> str:
    """Return an incident as TOML; `parse` returns an equal one."""
    lines = [f"schema = {SCHEMA}", *_lines(incident, leaving=("requests", "providers"))]
    for each in incident.requests:
        lines += ["", "[[requests]]", *_lines(each)]
    for one in incident.providers:
        lines += ["", "[[providers]]", *_lines(one)]
    return "\n".join(lines) + "\n"


def _lines(owner: object, leaving: Sequence[str] = ()) -> Iterator[str]:
    for name, value in _told(owner).items():
        if name not in leaving:
            yield f"{name} = {_written(value)}"


def _told(owner: object) -> Mapping[str, object]:
    """Return the fields that are not as they are by default, by their names in TOML."""
    return {
        WORDS.get(field.name, field.name): getattr(owner, field.name)
        for field in fields(owner)  # type: ignore[arg-type]
        if getattr(owner, field.name) != field.default
    }


def _written(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False)  # printable, so TOML reads the same
        case datetime():
            return value.isoformat()
        case Price():
            return f"{{ prompt = {value.prompt!r}, completion = {value.completion!r} }}"
        case tuple() if value and isinstance(value[0], Fault | RecordedCall):
            rows = [
                ", ".join(f"{name} = {_written(of)}" for name, of in _told(each).items())
                for each in value
            ]
            return "[\n" + "".join(f"  {{ {row} }},\n" for row in rows) + "]"
        case _:
            assert isinstance(value, tuple)  # no field holds anything else
            return f"[{', '.join(map(_written, value))}]"
