"""A plan being performed: subtasks in the order of their needs, in parallel where they are free.

One that fails takes none of the others with it; those that need it are skipped and say why.
"""

import asyncio
import errno
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from types import MappingProxyType

from zejzl.agents.plans import Plan, Subtask, resolved
from zejzl.agents.tools import Desk, Reach, Tool, Toolbox
from zejzl.clock import Clock
from zejzl.errors import NotNow, Rejected, shorten, words
from zejzl.magic import CircuitBreaker, FairyMagic

COMPONENT = "tool_call"
MOST_TRIES = 3  # of one subtask
MOST_RESULTS = 8_000_000  # characters of JSON of all results together

_ASKED_WRONG = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
_WRONG_NUMBERS = (errno.EFBIG, errno.EINVAL, errno.ENAMETOOLONG)

_FROM_OUTSIDE = (KeyboardInterrupt, asyncio.CancelledError, GeneratorExit)

Result = dict[str, object]
OnResult = Callable[[Result], Awaitable[object]]


class ToolBroke(RuntimeError):
    """A tool raised what would end more than itself."""


class Performance:
    """One plan's way through.

    Args:
        key: Of the run; each subtask's own is made of it.
        known: Results of an earlier life of the run: those that are "done" are not done again.
        on_result: Is awaited with each new result before anything that needs it begins.

    Attributes:
        results: By subtask; each is as `ActorAgent.act` describes.
    """

    def __init__(
        self,
        plan: Plan,
        tools: Toolbox,
        magic: FairyMagic,
        clock: Clock,
        *,
        key: str,
        allow: frozenset[Reach],
        parallel: int,
        known: Mapping[str, Result] | None = None,
        on_result: OnResult | None = None,
    ) -> None:
        self._plan = plan
        self._tools = tools
        self._magic = magic
        self._clock = clock
        self._key = key
        self._allow = allow
        self._places = asyncio.Semaphore(parallel)
        self._on_result = on_result
        self._over = {each.id: asyncio.Event() for each in plan.subtasks}
        self._staged: dict[str, str] = {}
        self._size = 0
        self.results: dict[str, Result] = {}
        for id, result in (known or {}).items():
            if id in self._over and result.get("status") == "done":
                self._book(result, _writes(result))
                self._keep(id, dict(result))

    async def run(self) -> None:
        """Perform what is not done; when this is cancelled, every tool is."""
        try:
            async with asyncio.TaskGroup() as group:
                for each in self._plan.subtasks:
                    if each.id not in self.results:
                        group.create_task(self._perform(each))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    def _keep(self, id: str, result: Result) -> None:
        self.results[id] = result
        self._over[id].set()

    def _book(self, result: Result, writes: Mapping[str, str]) -> None:
        self._staged.update(writes)
        self._size += len(json.dumps(result))

    async def _perform(self, subtask: Subtask) -> None:
        for need in subtask.needs:
            await self._over[need].wait()
        result: Result = {"id": subtask.id, "tool": subtask.tool}
        missing = [need for need in subtask.needs if self.results[need]["status"] != "done"]
        if missing:
            result |= {"status": "skipped", "error": self._why(missing)}
        else:
            async with self._places:
                started = self._clock.now()
                result |= await self._done(subtask)
                result["seconds"] = round(self._clock.now() - started, 6)
        if self._on_result is not None:
            await self._on_result(result)
        self._keep(subtask.id, result)

    def _why(self, missing: list[str]) -> str:
        states = [f"{need!r}, which was {self.results[need]['status']}" for need in missing]
        return f"it needs {' and '.join(states)}"

    async def _done(self, subtask: Subtask) -> Result:
        """Return what came of a subtask whose needs are done."""
        try:
            tool = self._tools.get(subtask.tool)
            self._check_reach(tool)
            values = {each: self.results[each]["result"] for each in subtask.needs}
            inputs = resolved(subtask.inputs, values)
            assert isinstance(inputs, dict)
            checked = tool.checked(inputs)
        except (ValueError, LookupError) as wrong:
            return _failed(wrong, 0)
        breaker = self._magic.circuit_breaker(COMPONENT, tool.name)
        tries = 0
        while True:
            tries += 1
            desk = self._desk(subtask)
            try:
                async with self._marked(subtask):
                    found = await breaker.call(self._call, tool, checked, desk)
                if isinstance(found, _Wrong):
                    return _failed(found.problem, tries)
                return self._fitting(tool, found.value, desk, tries)
            except asyncio.CancelledError as cancelled:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                return _failed(cancelled, tries)  # the tool's own work, not this task
            except NotNow as refused:
                return _failed(refused, tries)
            except Exception as failure:  # noqa: BLE001 - a tool may raise anything; it is told
                if not await self._again(tool, breaker, failure, tries):
                    return _failed(failure, tries)

    async def _call(self, tool: Tool, inputs: Mapping[str, object], desk: Desk) -> "_Found":
        """Call a tool within its time. What the caller is to blame for is returned, not raised."""
        try:
            async with self._clock.timeout(tool.seconds):
                return _Right(await tool.call(inputs, desk))
        except TimeoutError as late:
            if str(late):
                raise
            raise TimeoutError(f"tool {tool.name!r} had no end in {tool.seconds:g} s") from None
        except (ValueError, Rejected, OSError) as wrong:
            if isinstance(wrong, NotNow) or (
                isinstance(wrong, OSError) and not _asked_wrong(wrong)
            ):
                raise
            return _Wrong(wrong)  # it says nothing about the tool's health
        except (Exception, *_FROM_OUTSIDE):
            raise
        except BaseException as odd:  # such as SystemExit: a tool ends nothing but itself
            problem = f"tool {tool.name!r} raised {type(odd).__name__}: {words(odd)}"
            raise ToolBroke(problem) from odd

    async def _again(
        self, tool: Tool, breaker: CircuitBreaker, failure: Exception, tries: int
    ) -> bool:
        """Say whether to try again; the retry budget pays, and the backoff has passed then."""
        if not tool.again or tries >= MOST_TRIES:
            return False
        return await self._magic.auto_heal(breaker.name, failure)

    def _fitting(self, tool: Tool, value: object, desk: Desk, tries: int) -> Result:
        """Return a result, if there is room for it and for what it wants written."""
        result: Result = {"status": "done", "result": value, "tries": tries}
        result["reach"] = sorted(tool.reach)
        if desk.writes:
            result["writes"] = [{"path": path, "text": text} for path, text in desk.writes.items()]
        both = sorted(path for path in desk.writes if path in self._staged)
        if both:  # by a subtask that ran beside this one
            return _failed(ValueError(f"{both[0]} is written by another subtask"), tries)
        if self._size + len(json.dumps(result)) > MOST_RESULTS:
            problem = f"the plan's results have more than {MOST_RESULTS} characters together"
            return _failed(ValueError(problem), tries)
        self._book(result, desk.writes)
        return result

    def _check_reach(self, tool: Tool) -> None:
        beyond = sorted(tool.reach - self._allow)
        if beyond:
            raise ValueError(f"tool {tool.name!r} reaches {', '.join(beyond)}: not allowed here")

    def _desk(self, subtask: Subtask) -> Desk:
        return Desk(
            key=f"{self._key}:{subtask.id}",
            criticality=subtask.criticality,
            staged=MappingProxyType(self._staged),
        )

    def _marked(self, subtask: Subtask) -> AbstractAsyncContextManager[None]:
        if subtask.criticality.startswith("critical"):
            return self._magic.critical(subtask.id)
        return nullcontext()


class _Right:
    def __init__(self, value: object) -> None:
        self.value = value


class _Wrong:
    def __init__(self, problem: Exception) -> None:
        self.problem = problem


_Found = _Right | _Wrong


def _asked_wrong(problem: OSError) -> bool:
    """Say whether it is about what was asked for, and not about the disk or the machine."""
    return isinstance(problem, _ASKED_WRONG) or problem.errno in _WRONG_NUMBERS


def _writes(result: Mapping[str, object]) -> dict[str, str]:
    """Return what a result wants written."""
    writes = result.get("writes")
    if not isinstance(writes, list):
        return {}
    return {str(each["path"]): str(each["text"]) for each in writes}


def _failed(failure: BaseException, tries: int) -> Result:
    return {
        "status": "failed",
        "error": f"{type(failure).__name__}: {shorten(words(failure))}",
        "tries": tries,
    }
