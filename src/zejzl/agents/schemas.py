"""The part of JSON Schema that expectations may use, checked without a library. Pure.

Keywords: type, properties, required, additionalProperties (true or false), items, enum, minimum,
maximum, minLength, maxLength, minItems, maxItems, pattern; title and description say nothing. Any
other keyword is refused: a rule that is not checked would look like one that holds.
"""

import json
from collections.abc import Iterator, Mapping

from zejzl.agents.regexes import check_pattern, matches

DEEPEST = 20
MOST_LEVELS = 100  # of all lists and objects of a schema, those of its enum too
MOST_PROBLEMS = 20  # that one comparison tells

_TYPES = {
    "string": "text",
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "array": "list",
    "object": "object",
    "null": "null",
}
_END = object()
_BOUNDS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")
_KNOWN = {"type", "properties", "required", "additionalProperties", "items", "enum", "pattern"}
_KNOWN |= {*_BOUNDS, "title", "description"}


def type_of(value: object) -> str:
    """Return what a JSON value is, in a word: text, number, integer, boolean, list, object, null.

    What JSON does not have is called by its Python type.
    """
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "text"
        case list():
            return "list"
        case dict():
            return "object"
    return type(value).__name__


def shallow(value: object, levels: int) -> bool:
    """Say whether lists and objects lie at most so many levels deep in one another."""
    if not isinstance(value, Mapping | list):
        return True
    inner = value.values() if isinstance(value, Mapping) else value
    return levels > 0 and all(shallow(each, levels - 1) for each in inner)


def as_json(value: object) -> str | None:
    """Return a value as JSON, by which values are compared; None: it is no JSON."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None


def larger(value: object, size: int) -> bool:
    """Say whether a value has surely more than `size` characters as JSON, without writing it.

    It ends where that is known: a value that refers to one text often costs no more than others.
    """
    waiting = [iter((value,))]
    while waiting and size >= 0:
        each = next(waiting[-1], _END)
        if each is _END:
            waiting.pop()
        elif isinstance(each, str):
            size -= len(each) + 2
        elif isinstance(each, Mapping):
            size -= 1 + sum(len(str(key)) + 1 for key in each)
            waiting.append(iter(each.values()))
        elif isinstance(each, list | tuple):
            size -= 1 + len(each)
            waiting.append(iter(each))
        else:
            size -= 1
    return size < 0


def amount(number: float) -> str:
    """Return a number short enough for a sentence."""
    try:
        return f"{number:g}"
    except OverflowError:  # a whole number may have more digits than anybody would read
        return f"a whole number of {int(number).bit_length()} bits"


def check_schema(schema: object, *, _depth: int = 0) -> None:
    """Refuse a schema that could not be checked wholly.

    Raises:
        ValueError: Names what is unknown or wrong.
    """
    if _depth > DEEPEST:
        raise ValueError(f"schema is nested deeper than {DEEPEST} levels")
    if not isinstance(schema, Mapping):
        raise ValueError(f"schema must be an object, not {type_of(schema)}")
    if not _depth and not shallow(schema, MOST_LEVELS):
        raise ValueError(f"schema is nested deeper than {MOST_LEVELS} levels")
    if not _depth and as_json(schema) is None:
        raise ValueError("schema is no JSON")
    unknown = sorted(str(key) for key in schema if key not in _KNOWN)
    if unknown:
        raise ValueError(f"schema has keywords that are not checked here: {', '.join(unknown)}")
    if schema.get("type", "string") not in _TYPES:
        raise ValueError(f"schema has an unknown type {schema['type']!r}: {', '.join(_TYPES)}")
    for bound in _BOUNDS:
        limit = schema.get(bound, 0)
        if isinstance(limit, bool) or not isinstance(limit, int | float):
            raise ValueError(f"schema: {bound} must be a number")
    if not isinstance(schema.get("enum", []), list):
        raise ValueError("schema: enum must be a list")
    if not isinstance(schema.get("additionalProperties", True), bool):
        raise ValueError("schema: additionalProperties must be true or false")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise ValueError("schema: required must be a list of names")
    if not isinstance(schema.get("pattern", ""), str):
        raise ValueError("schema: pattern must be text")
    check_pattern(schema.get("pattern", ""))
    inner = schema.get("properties", {})
    if not isinstance(inner, Mapping):
        raise ValueError("schema: properties must be an object")
    for each in (*inner.values(), *([schema["items"]] if "items" in schema else [])):
        check_schema(each, _depth=_depth + 1)


def schema_problems(schema: Mapping[str, object], value: object) -> list[tuple[str, str]]:
    """Return (where, what is wrong) for each way in which a value is not of a checked schema."""
    found: list[tuple[str, str]] = []
    for problem in _problems(schema, value, ""):
        if len(found) == MOST_PROBLEMS:
            return [*found, ("", "and more")]
        found.append(problem)
    return found


def _problems(schema: Mapping[str, object], value: object, where: str) -> Iterator[tuple[str, str]]:
    found, wanted = type_of(value), _TYPES.get(str(schema.get("type")))
    if wanted and found != wanted and (wanted, found) != ("number", "integer"):
        yield where, f"it is {found}, not {wanted}"
        return
    enum = schema.get("enum")
    if isinstance(enum, list) and as_json(value) not in {as_json(each) for each in enum}:
        yield where, "it is none of the values of the enum"
    for problem in _beyond(schema, value):
        yield where, problem
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and isinstance(value, str):
        try:
            if not matches(pattern, value):
                yield where, f"it is not of the pattern {pattern!r}"
        except ValueError as problem:
            yield where, str(problem)
    yield from _inside(schema, value, where)


def _beyond(schema: Mapping[str, object], value: object) -> Iterator[str]:
    sizes: tuple[tuple[str, str, object], ...] = (
        ("minimum", "maximum", value if type_of(value) in ("number", "integer") else None),
        ("minLength", "maxLength", len(value) if isinstance(value, str) else None),
        ("minItems", "maxItems", len(value) if isinstance(value, list) else None),
    )
    for low, high, size in sizes:
        least, most = schema.get(low), schema.get(high)
        if not isinstance(size, int | float):
            continue
        if isinstance(least, int | float) and not size >= least:
            yield f"{low} is {amount(least)}, and it has {amount(size)}"
        if isinstance(most, int | float) and not size <= most:
            yield f"{high} is {amount(most)}, and it has {amount(size)}"


def _inside(schema: Mapping[str, object], value: object, where: str) -> Iterator[tuple[str, str]]:
    prefix = f"{where}." if where else ""
    if isinstance(value, dict):
        properties, required = schema.get("properties", {}), schema.get("required", [])
        assert isinstance(properties, Mapping)
        assert isinstance(required, list)
        for name in required:
            if name not in value:
                yield where, f"it has no {name!r}"
        for name, each in value.items():
            if name in properties:
                yield from _problems(properties[name], each, f"{prefix}{name}")
            elif schema.get("additionalProperties", True) is False:
                yield f"{prefix}{name}", "nothing of that name may be there"
    if isinstance(value, list) and isinstance(items := schema.get("items"), Mapping):
        for number, each in enumerate(value):
            yield from _problems(items, each, f"{prefix}{number}")
