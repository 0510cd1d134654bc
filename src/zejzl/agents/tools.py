"""Tools: typed async functions that a plan may call by name.

What a plan passes to a tool is checked against the function's own annotations. A tool says what
it reaches beside its inputs ("files", "model", "network", "commands"); nothing of that is
possible by saying it, but who performs and who validates a plan can refuse what says so.
"""

import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, get_args, get_type_hints

from zejzl.agents.schemas import shallow
from zejzl.agents.workspace import OutOfBounds, Workspace, checked_path
from zejzl.errors import shorten

if TYPE_CHECKING:
    from pydantic import BaseModel

Reach = Literal["files", "model", "network", "commands"]
USUAL_REACH: frozenset[Reach] = frozenset({"files", "model"})

MOST_TOOLS = 200
LONGEST_RESULT = 1_000_000  # characters of JSON
DEEPEST = 100  # levels of lists and objects in a result
LONGEST_WRITE = 1_000_000  # characters of one file

ToolFn = Callable[..., Awaitable[object]]
F = TypeVar("F", bound=ToolFn)


class InputRefused(ValueError):
    """What a plan passes to a tool is not what the tool takes."""


class ResultRefused(ValueError):
    """What a tool returned is no JSON, or too much of it."""


class NoWorkspace(ValueError):
    """Files are to be read or written, and nobody has said where."""


@dataclass(slots=True, eq=False)
class Desk:
    """What a tool that asks for it, by a parameter of this type, is given beside its inputs.

    Attributes:
        key: Of this subtask of this run: the same again when the run is resumed. A tool that does
            something to the world passes it on as its idempotency key.
        criticality: Of the subtask.
        staged: Path → text that earlier subtasks of the run want written.
        writes: Path → text that this one does.
    """

    key: str
    criticality: str = "normal"
    staged: Mapping[str, str] = field(default_factory=dict)
    writes: dict[str, str] = field(default_factory=dict)

    def write(self, path: str, text: str) -> str:
        """Want a file written; it is, when the whole work has been validated.

        Returns the path in its usual form.

        Raises:
            OutOfBounds: If the path leads out of any workspace.
            ValueError: If it is no text for a file, too long, or another subtask's file.
        """
        found = checked_path(path)
        if not found:
            raise OutOfBounds(path, "it names no file")
        if len(text) > LONGEST_WRITE:
            raise ValueError(f"{found}: the text has more than {LONGEST_WRITE} characters")
        try:
            text.encode()
        except UnicodeEncodeError as problem:
            raise ValueError(f"{found}: UTF-8 has no bytes for it: {problem}") from None
        if found in self.staged:
            raise ValueError(f"{found} is written by another subtask already")
        self.writes[found] = text
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tool:
    """A function with what is known of it.

    Attributes:
        name: As plans call it.
        description: In a line.
        fn: The function.
        reach: What it touches beside its inputs.
        again: Whether it may be called again after a failure; only what changes nothing may.
        seconds: It may take.
        desk: The name of the parameter that takes a `Desk`, or None.
        parameters: What its inputs are checked with.
    """

    name: str
    description: str
    fn: ToolFn
    reach: frozenset[Reach]
    again: bool
    seconds: float
    desk: str | None
    parameters: "type[BaseModel]"

    def checked(self, inputs: Mapping[str, object]) -> dict[str, object]:
        """Return the inputs as the function takes them.

        Raises:
            InputRefused: Says which one is wrong, and why.
        """
        from pydantic import ValidationError

        try:
            checked = self.parameters.model_validate(dict(inputs))
        except ValidationError as wrong:
            found = [
                f"{'.'.join(str(step) for step in error['loc']) or 'inputs'}: {error['msg']}"
                for error in wrong.errors(include_url=False, include_input=False)
            ]
            raise InputRefused(f"tool {self.name!r}: {shorten('; '.join(found))}") from None
        fields = type(checked).model_fields
        return {
            str(fields[each].alias): getattr(checked, each) for each in checked.model_fields_set
        }

    async def call(self, inputs: Mapping[str, object], desk: Desk) -> object:
        """Call it with inputs that were checked; return what it returns, JSON-ready.

        Raises:
            ResultRefused: If that is no JSON, or more than 1,000,000 characters of it.
        """
        more = {} if self.desk is None else {self.desk: desk}
        result = await self.fn(**inputs, **more)
        try:
            body = json.dumps(result, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as problem:
            raise ResultRefused(f"tool {self.name!r} returned no JSON: {problem}") from None
        if len(body) > LONGEST_RESULT:
            raise ResultRefused(
                f"tool {self.name!r} returned {len(body)} characters of JSON, "
                f"{LONGEST_RESULT} may be: let it return less"
            )
        value: object = json.loads(body)
        if not shallow(value, DEEPEST):
            raise ResultRefused(f"tool {self.name!r} returned more than {DEEPEST} levels")
        return value  # what others hold of it cannot change any more

    def described(self) -> dict[str, object]:
        """Return what a model that plans must know, JSON-ready."""
        schema = self.parameters.model_json_schema()
        schema.pop("title", None)
        return {"name": self.name, "description": self.description, "inputs": schema}


class Toolbox:
    """The tools that there are, by name.

    Args:
        seconds: That a tool may take, unless it says otherwise.
    """

    def __init__(self, *, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._tools: dict[str, Tool] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    def get(self, name: str) -> Tool:
        """Return the tool of that name.

        Raises:
            LookupError: If there is none; lists those that there are.
        """
        if name not in self._tools:
            raise LookupError(f"no tool named {name!r}; there are: {', '.join(sorted(self))}")
        return self._tools[name]

    def remove(self, name: str) -> None:
        """Take a tool out: plans that name it are refused.

        Raises:
            LookupError: If there is none of that name.
        """
        del self._tools[self.get(name).name]

    def described(self) -> list[dict[str, object]]:
        """Return what a model that plans must know of each tool."""
        return [tool.described() for tool in self._tools.values()]

    def add(
        self,
        fn: ToolFn,
        *,
        name: str | None = None,
        reach: Iterable[Reach] = (),
        again: bool = False,
        seconds: float | None = None,
    ) -> Tool:
        """Add a function under its own name or another.

        Args:
            fn: Async; every parameter has a name and a type. One of the type `Desk` is given that
                by who performs the plan, and is no input.
            reach: What it touches beside its inputs: "files", "model", "network", "commands".
            again: Whether it may be called again after a failure.
            seconds: It may take; None: as usual in this box.

        Raises:
            TypeError: If it is not such a function.
            ValueError: If the name is taken or cannot be one, or `reach` is unknown.
        """
        if not inspect.iscoroutinefunction(fn):
            raise TypeError(f"{fn!r} must be an async function")
        name = name or str(getattr(fn, "__name__", ""))
        if not name.isidentifier() or not name.isascii() or len(name) > 64:
            raise ValueError(f"a tool's name is an identifier of at most 64 letters, not {name!r}")
        if name in self._tools:
            raise ValueError(f"there is a tool named {name!r} already")
        if len(self._tools) >= MOST_TOOLS:
            raise ValueError(f"there are {MOST_TOOLS} tools already")
        reached = frozenset(reach)
        if unknown := reached - {*get_args(Reach)}:
            raise ValueError(f"{name}: unknown reach {', '.join(sorted(unknown))}")
        desk, parameters = _parameters(fn, name)
        tool = Tool(
            name=name,
            description=(inspect.getdoc(fn) or "").partition("\n")[0],
            fn=fn,
            reach=reached,
            again=again,
            seconds=self._seconds if seconds is None else seconds,
            desk=desk,
            parameters=parameters,
        )
        self._tools[name] = tool
        return tool


def _parameters(fn: ToolFn, name: str) -> tuple[str | None, "type[BaseModel]"]:
    """Return the name of the parameter for a desk, and a model of the others.

    The model's own fields have numbers, and the parameters' names are aliases: a name that means
    something to pydantic, such as `schema`, is as good as any other.
    """
    from pydantic import ConfigDict, Field, PydanticUserError, create_model

    try:
        hints = get_type_hints(fn, include_extras=True)
    except Exception as problem:  # noqa: BLE001 - an annotation in quotes may be any expression
        told = f"{type(problem).__name__}: {problem}"
        raise TypeError(f"tool {name!r} has a type that cannot be read: {told}") from None
    desk: str | None = None
    fields: dict[str, object] = {}
    for number, each in enumerate(inspect.signature(fn).parameters.values()):
        if each.kind not in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
            raise TypeError(f"tool {name!r}: {each} cannot be passed by name")
        if each.name not in hints:
            raise TypeError(f"tool {name!r}: parameter {each.name!r} needs a type")
        hint = hints[each.name]
        if _has_desk(hint):
            if desk is not None or not (hint is Desk or {*get_args(hint)} == {Desk, NoneType}):
                raise TypeError(f"tool {name!r}: {each} must be the only desk, of the type Desk")
            desk = each.name
        else:
            default = ... if each.default is each.empty else each.default
            fields[f"p{number}"] = (Annotated[hint, Field(alias=each.name)], default)
    config = ConfigDict(extra="forbid", protected_namespaces=())
    try:
        model = create_model(name, __config__=config, **fields)  # type: ignore[call-overload]
        model.model_json_schema()
    except (PydanticUserError, NameError) as problem:
        raise TypeError(f"tool {name!r} has a parameter that JSON cannot fill: {problem}") from None
    return desk, model


def _has_desk(hint: object) -> bool:
    """Say whether a type is that of a desk, or holds it."""
    return hint is Desk or any(_has_desk(each) for each in get_args(hint))


def room(workspace: Workspace | None) -> Workspace:
    """Return the workspace.

    Raises:
        NoWorkspace: If there is none.
    """
    if workspace is None:
        raise NoWorkspace("there is no workspace: pass workspace=FOLDER to work with files")
    return workspace
