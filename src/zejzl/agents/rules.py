"""What a result is expected to be, and how it is compared with that. Pure.

A rule names what it asks and where: `at` leads into the result by keys and numbers, "*" stands
for every element: "files.*.tokens".
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from zejzl.agents.regexes import check_pattern, matches
from zejzl.agents.schemas import amount, as_json, check_schema, schema_problems, type_of
from zejzl.events import check_text

MOST_DIGITS = 20  # of an element's number
LONGEST_SHOWN = 80  # characters of a value in a sentence

RuleName = Literal["type", "range", "pattern", "one_of", "schema", "invariant", "judge"]
TypeName = Literal["text", "number", "integer", "boolean", "list", "object", "null"]

NEEDS: dict[RuleName, tuple[str, ...]] = {
    "type": ("type",),
    "range": ("at_least", "at_most"),
    "pattern": ("pattern",),
    "one_of": ("one_of",),
    "schema": ("schema",),
    "invariant": ("name",),
    "judge": ("question",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """One thing that is expected of a result.

    Attributes:
        rule: What kind of rule it is; each kind uses the fields named below.
        at: Where in the result; "" is all of it.
        type: type: What it is.
        at_least, at_most: range: Bounds, of a number or of a text's or list's length.
        pattern: pattern: The regular expression that the whole text matches.
        one_of: one_of: What it may be.
        schema: schema: A JSON schema; the keywords are those of `zejzl.agents.schemas`.
        name: invariant: Of a function that the validator knows.
        question: judge: What a model is asked about it; yes is well.

    Raises:
        ValueError: If the rule lacks what it needs, or could not be checked.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    rule: RuleName
    at: str = ""
    type: TypeName | None = None
    at_least: float | None = None
    at_most: float | None = None
    pattern: str | None = None
    one_of: tuple[str | int | float | bool | None, ...] | None = None
    schema: dict[str, object] | None = None
    name: str | None = None
    question: str | None = None

    def __post_init__(self) -> None:
        needed = NEEDS[self.rule]
        if all(getattr(self, field) is None for field in needed):
            raise ValueError(f"rule {self.rule!r} needs {' or '.join(needed)}")
        for field in ("at_least", "at_most"):
            bound = getattr(self, field)
            if bound is not None and not math.isfinite(bound):
                raise ValueError(f"{field} must be a finite number, not {bound!r}")
        for field in ("at", "pattern", "name", "question"):
            check_text(field, getattr(self, field) or "")
        if as_json(self.one_of) is None:
            raise ValueError("one_of is no JSON")
        if self.pattern is not None:
            check_pattern(self.pattern)
        if self.schema is not None:
            check_schema(self.schema)

    def to_json(self) -> dict[str, object]:
        """Return the fields that are set, JSON-ready."""
        body = {each.name: getattr(self, each.name) for each in fields(self)}
        if self.one_of is not None:
            body["one_of"] = list(self.one_of)
        body["at"] = self.at or None
        return {name: value for name, value in body.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A rule that does not hold.

    Attributes:
        subtask: Whose result it is about.
        rule: Which rule.
        where: In the result, such as "files.2.tokens"; "" is all of it.
        problem: What is wrong, in words.
    """

    subtask: str
    rule: str
    where: str
    problem: str

    def __str__(self) -> str:
        place = f" at {self.where}" if self.where else ""
        return f"{self.subtask}: rule {self.rule!r} does not hold{place}: {self.problem}"


def places(value: object, at: str) -> Iterator[tuple[str, object]]:
    """Yield (where, value) for each place that `at` leads to.

    Raises:
        LookupError: If it leads nowhere.
    """
    yield from _places(value, at.split(".") if at else [], "")


def _places(value: object, path: list[str], where: str) -> Iterator[tuple[str, object]]:
    if not path:
        yield where, value
        return
    step, rest = path[0], path[1:]
    found: list[tuple[str, object]]
    match value:
        case Mapping():
            if step != "*" and step not in value:
                raise LookupError(f"{where or 'the result'} has no {step!r}")
            found = list(value.items()) if step == "*" else [(step, value[step])]
        case list():
            # Only so many digits are read: more than a list can have elements.
            if step != "*" and not (
                step.isdecimal() and len(step) < MOST_DIGITS and int(step) < len(value)
            ):
                raise LookupError(f"{where or 'the result'} has no element {step!r}")
            found = (
                [(str(n), each) for n, each in enumerate(value)]
                if step == "*"
                else [(step, value[int(step)])]
            )
        case _:
            raise LookupError(f"{where or 'the result'} is {type_of(value)}, it has no {step!r}")
    for key, inner in found:
        yield from _places(inner, rest, f"{where}.{key}" if where else key)


def breaches(subtask: str, expected: Expectation, value: object) -> list[Breach]:
    """Return where a result is not as expected.

    Invariants and judges are not asked here: they are a program's and a model's.
    """

    def breach(where: str, problem: str) -> Breach:
        return Breach(subtask=subtask, rule=expected.rule, where=where, problem=problem)

    try:
        found = list(places(value, expected.at))
    except LookupError as nowhere:
        return [breach(expected.at, str(nowhere.args[0]))]
    return [
        breach(f"{where}{deeper}", problem)
        for where, each in found
        for deeper, problem in _problems(expected, each)
    ]


def _problems(expected: Expectation, value: object) -> Iterator[tuple[str, str]]:
    match expected.rule:
        case "type":
            if not is_a(value, expected.type or "null"):
                yield "", f"it is {type_of(value)}, not {expected.type}"
        case "range":
            yield from (("", problem) for problem in _beyond(expected, value))
        case "pattern":
            yield from (("", problem) for problem in _unlike(expected.pattern or "", value))
        case "one_of":
            # As JSON, because True == 1 in Python.
            allowed = {as_json(each) or "" for each in expected.one_of or ()}
            if isinstance(value, dict | list) or as_json(value) not in allowed:
                yield "", f"{shown(value)} is none of {', '.join(sorted(allowed))}"
        case "schema":
            for where, problem in schema_problems(expected.schema or {}, value):
                yield f".{where}" if where else "", problem


def is_a(value: object, name: str) -> bool:
    """Say whether a JSON value is of the type of that name; an integer is a number, too."""
    found = type_of(value)
    return found == name or (name == "number" and found == "integer")


def _beyond(expected: Expectation, value: object) -> Iterator[str]:
    size: float
    if isinstance(value, str | list | dict):
        size, what = len(value), "its length is"
    elif isinstance(value, float) and math.isfinite(value):
        size, what = value, "it is"
    elif isinstance(value, int) and not isinstance(value, bool):
        size, what = value, "it is"  # as it is: not every whole number is a float
    else:
        yield f"it is {type_of(value)}, which has no size"
        return
    if expected.at_least is not None and size < expected.at_least:
        yield f"{what} {amount(size)}, less than {amount(expected.at_least)}"
    if expected.at_most is not None and size > expected.at_most:
        yield f"{what} {amount(size)}, more than {amount(expected.at_most)}"


def _unlike(pattern: str, value: object) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"it is {type_of(value)}, not text"
        return
    try:
        if not matches(pattern, value):
            yield f"{shown(value)} is not of the pattern {pattern!r}"
    except ValueError as problem:  # too long a text for it: not checked is not well
        yield str(problem)


def shown(value: object) -> str:
    """Return a value short enough for a sentence."""
    try:
        text = json.dumps(value, ensure_ascii=True, default=str)
    except (TypeError, ValueError, RecursionError):
        return f"a value that is no JSON ({type_of(value)})"
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"
