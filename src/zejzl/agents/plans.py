"""Plans: subtasks that need one another's results, as a graph without circles.

    {"subtasks": [
        {"id": "s1", "tool": "read_file", "description": "…", "inputs": {"path": "a.txt"}},
        {"id": "s2", "tool": "count_tokens", "inputs": {"text": {"result_of": "s1"}},
         "expected": [{"rule": "range", "at": "tokens", "at_least": 1}]}]}

An input may be what another subtask has found: {"result_of": "s1"}, or a part of it:
{"result_of": "s1", "at": "files.0"}. What is referred to is needed; "needs" names what must be
over before, without its result being used. Whoever wrote a plan, it is checked as a stranger's.
"""

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, ClassVar, Literal, NoReturn

from zejzl.agents.rules import Expectation, places
from zejzl.agents.schemas import shallow
from zejzl.events import check_text

if TYPE_CHECKING:
    from pydantic import TypeAdapter

MOST_SUBTASKS = 200
LONGEST_NAME = 64
LONGEST_TEXT = 200_000  # characters of a plan as a model writes it
LONGEST_VALUE = 2_000_000  # characters of one subtask as JSON
LARGEST_INPUTS = 16_000_000  # characters of one subtask's inputs, with the results in them
DEEPEST = 40  # levels of lists and objects in an input
MOST_TOLD = 5  # problems that an error names

PlanCriticality = Literal["sheddable", "normal", "critical", "critical_plus"]


class PlanRefused(ValueError):
    """A plan is none, or cannot be performed: it says which subtask, and why.

    Attributes:
        subtasks: The ids it is about.
    """

    def __init__(self, problem: str, subtasks: Iterable[str] = ()) -> None:
        super().__init__(problem)
        self.subtasks = tuple(subtasks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subtask:
    """One call of one tool.

    Attributes:
        id: Its name in the plan.
        description: What it is for, for people.
        tool: The tool's name.
        inputs: Its arguments, by name.
        expected: What the result is to be.
        criticality: As of a request; a "sheddable" one may fail without failing the whole.
        needs: Ids of the subtasks that must be over before, with those referred to in `inputs`.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    id: str
    description: str = ""
    tool: str
    inputs: dict[str, object] = field(default_factory=dict)
    expected: tuple[Expectation, ...] = ()
    criticality: PlanCriticality = "normal"
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (self.id, self.tool):
            if not (0 < len(name) <= LONGEST_NAME and name.isascii() and name.isprintable()):
                raise ValueError(f"a name has 1 to {LONGEST_NAME} printable ASCII characters")
        if not shallow(self.inputs, DEEPEST):
            raise ValueError(f"inputs are nested deeper than {DEEPEST} levels")
        check_text("description", self.description)
        try:
            size = len(json.dumps(self.inputs, default=str, allow_nan=False))
        except ValueError as problem:
            raise ValueError(f"inputs are no JSON: {problem}") from None
        if size > LONGEST_VALUE:
            raise ValueError(f"inputs are longer than {LONGEST_VALUE} characters")
        found = dict.fromkeys((*self.needs, *references(self.inputs)))
        object.__setattr__(self, "needs", tuple(found))

    def to_json(self) -> dict[str, object]:
        """Return it JSON-ready."""
        return {
            "id": self.id,
            "description": self.description,
            "tool": self.tool,
            "inputs": self.inputs,
            "expected": [each.to_json() for each in self.expected],
            "criticality": self.criticality,
            "needs": list(self.needs),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Subtasks in the order in which they can be done.

    Raises:
        PlanRefused: If there is none or too many, an id is twice, one that is needed is missing,
            or they need one another in a circle.
    """

    subtasks: tuple[Subtask, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.subtasks) <= MOST_SUBTASKS:
            raise PlanRefused(f"a plan has 1 to {MOST_SUBTASKS} subtasks, not {len(self.subtasks)}")
        by_id: dict[str, Subtask] = {}
        for each in self.subtasks:
            if each.id in by_id:
                raise PlanRefused(f"two subtasks have the id {each.id!r}", [each.id])
            by_id[each.id] = each
        for each in self.subtasks:
            for need in each.needs:
                if need not in by_id:
                    known = ", ".join(by_id)
                    raise PlanRefused(
                        f"subtask {each.id!r} needs {need!r}, which is not in the plan: {known}",
                        [each.id],
                    )
        sorter = TopologicalSorter({each.id: each.needs for each in self.subtasks})
        try:
            order = list(sorter.static_order())
        except CycleError as circle:
            ids = list(dict.fromkeys(circle.args[1]))
            raise PlanRefused(
                f"subtasks need one another in a circle: {' → '.join(circle.args[1])}", ids
            ) from None
        object.__setattr__(self, "subtasks", tuple(by_id[id] for id in order))

    @classmethod
    def of(cls, subtasks: object, tools: Collection[str] | None = None) -> "Plan":
        """Return the plan of these JSON-ready subtasks.

        Args:
            subtasks: A list of objects; what the module's text shows.
            tools: Names of the tools that there are; None: not checked.

        Raises:
            PlanRefused: Says what is wrong, and where.
        """
        from pydantic import ValidationError

        if isinstance(subtasks, list | tuple) and len(subtasks) > MOST_SUBTASKS:
            raise PlanRefused(f"a plan has at most {MOST_SUBTASKS} subtasks, not {len(subtasks)}")
        try:
            checked = _adapter().validate_python(subtasks)
        except ValidationError as wrong:
            raise PlanRefused(
                _told(wrong.errors(include_url=False)), _named(wrong, subtasks)
            ) from None
        plan = cls(subtasks=tuple(checked))
        for each in plan.subtasks:
            if tools is not None and each.tool not in tools:
                raise PlanRefused(
                    f"subtask {each.id!r} wants the tool {each.tool!r}, which is unknown; "
                    f"there are: {', '.join(sorted(tools))}",
                    [each.id],
                )
        return plan

    def to_json(self) -> list[dict[str, object]]:
        """Return the subtasks, JSON-ready, in an order in which they can be done."""
        return [each.to_json() for each in self.subtasks]


def schema() -> dict[str, object]:
    """Return the JSON schema of a plan's subtasks, for a model that is to write one."""
    return _adapter().json_schema()


@lru_cache(maxsize=1)
def _adapter() -> "TypeAdapter[list[Subtask]]":
    from pydantic import TypeAdapter

    return TypeAdapter(list[Subtask])


def _told(errors: Iterable[Mapping[str, object]]) -> str:
    """Return what pydantic found, in a line."""
    found = [
        f"subtasks.{'.'.join(str(step) for step in _steps(error['loc']))}: {error['msg']}"[:300]
        for error in errors
    ]
    more = f"; and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
    return "; ".join(found[:MOST_TOLD]) + more


def _steps(loc: object) -> tuple[object, ...]:
    return loc if isinstance(loc, tuple) else (loc,)


def _named(wrong: object, subtasks: object) -> list[str]:
    """Return the ids of the subtasks that an error is about, as far as they have any."""
    from pydantic import ValidationError

    assert isinstance(wrong, ValidationError)
    numbers = {error["loc"][0] for error in wrong.errors(include_url=False) if error["loc"]}
    return [
        str(each["id"])[:LONGEST_NAME]
        for number, each in enumerate(subtasks if isinstance(subtasks, list) else [])
        if number in numbers and isinstance(each, dict) and "id" in each
    ]


# References ------------------------------------------------------------------------------------


def is_reference(value: object) -> bool:
    """Say whether an input stands for another subtask's result."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("result_of"), str)
        and set(value) <= {"result_of", "at"}
        and isinstance(value.get("at", ""), str)
    )


def references(value: object) -> Iterator[str]:
    """Yield the ids of the subtasks whose results an input uses, at any depth."""
    if is_reference(value):
        assert isinstance(value, Mapping)
        yield value["result_of"]
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from references(each)


def resolved(value: object, results: Mapping[str, object]) -> object:
    """Return an input with results in the place of what refers to them.

    Raises:
        LookupError: If a result has no such part.
        ValueError: If it would have more than 16,000,000 characters as JSON.
    """
    return _Filling(results).of(value)


class _Filling:
    """Puts results into inputs; what is referred to often is looked up and weighed once."""

    def __init__(self, results: Mapping[str, object]) -> None:
        self._results = results
        self._left = LARGEST_INPUTS
        self._known: dict[tuple[str, str], tuple[object, int]] = {}

    def of(self, value: object) -> object:
        if is_reference(value):
            assert isinstance(value, Mapping)
            return self._found(str(value["result_of"]), str(value.get("at", "")))
        if isinstance(value, Mapping):
            return {key: self.of(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.of(each) for each in value]
        return value

    def _found(self, id: str, at: str) -> object:
        if (id, at) not in self._known:
            try:
                found = [each for _, each in places(self._results[id], at)]
            except LookupError as nowhere:
                raise LookupError(f"the result of {id!r}: {nowhere.args[0]}") from None
            part = found if "*" in at.split(".") else found[0]
            self._known[id, at] = part, len(json.dumps(part, default=str))
        part, size = self._known[id, at]
        self._left -= size
        if self._left < 0:
            raise ValueError(
                f"the inputs would have more than {LARGEST_INPUTS} characters, with the results "
                "that they refer to: refer to less"
            )
        return part


# What a model wrote ----------------------------------------------------------------------------


def read_plan(text: str, tools: Collection[str]) -> Plan:
    """Return the plan that a model's answer holds, wherever in the answer it stands.

    Raises:
        PlanRefused: Says what is wrong, in words that the model can use.
    """
    body = read_object(text)
    if "subtasks" not in body:
        raise PlanRefused('the object has no "subtasks"')
    return Plan.of(body["subtasks"], tools)


def read_object(text: str) -> dict[str, object]:
    """Return the first JSON object in a text.

    Raises:
        PlanRefused: If there is none, it is cut short, too long or too deep.
    """
    if len(text) > LONGEST_TEXT:
        raise PlanRefused(f"the answer has {len(text)} characters, {LONGEST_TEXT} may be")
    start = text.find("{")
    if start < 0:
        raise PlanRefused("the answer holds no JSON object")
    try:
        body, _ = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite).raw_decode(
            text[start:]
        )
    except (ValueError, RecursionError) as problem:
        raise PlanRefused(f"the answer is no JSON: {problem}") from None
    assert isinstance(body, dict)
    return body


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        _refuse(digits[:40])
    return number
