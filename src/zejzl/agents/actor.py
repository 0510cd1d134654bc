"""ActorAgent: performs a plan with tools, and leaves the world as it is until that is validated."""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import ClassVar, overload
from uuid import uuid4

from zejzl.agents.base import Agent, Bus
from zejzl.agents.basic_tools import basic_tools
from zejzl.agents.performance import OnResult, Performance, Result
from zejzl.agents.plans import Plan, PlanRefused
from zejzl.agents.tools import USUAL_REACH, F, Reach
from zejzl.agents.workspace import Workspace
from zejzl.clock import Clock
from zejzl.magic import FairyMagic


class ActorAgent(Agent):
    """Performs subtasks with registered tools.

    Args:
        bus: Whose model and circuit breakers are used.
        clock: Where time comes from.
        workspace: The folder for files; without one the file tools fail and say so.
        allow: What tools may reach beside their inputs.
        parallel: Tools that run at the same time, at most.
        seconds: That a tool may take, unless it says otherwise.

    Attributes:
        tools: What plans can call.
        workspace: The folder, or None.
    """

    name: ClassVar[str] = "actor"

    def __init__(
        self,
        bus: Bus | None = None,
        *,
        clock: Clock | None = None,
        workspace: Workspace | Path | str | None = None,
        allow: Collection[Reach] = USUAL_REACH,
        parallel: int = 8,
        seconds: float = 60.0,
    ) -> None:
        super().__init__(bus, clock=clock)
        if parallel < 1 or not seconds > 0:
            raise ValueError("parallel must be at least 1, and seconds positive")
        self._magic = FairyMagic(clock=self._clock) if bus is None else bus.magic
        self._allow = frozenset(allow)
        self._parallel = parallel
        self.workspace = as_workspace(workspace)
        self.tools = basic_tools(self.workspace, bus, seconds=seconds)

    @overload
    def tool(self, fn: F) -> F: ...

    @overload
    def tool(
        self,
        *,
        name: str | None = None,
        reach: Iterable[Reach] = (),
        again: bool = False,
        seconds: float | None = None,
    ) -> Callable[[F], F]: ...

    def tool(
        self,
        fn: F | None = None,
        *,
        name: str | None = None,
        reach: Iterable[Reach] = (),
        again: bool = False,
        seconds: float | None = None,
    ) -> F | Callable[[F], F]:
        """Register an async function as a tool: `@actor.tool`, or `@actor.tool(again=True)`.

        Takes what `Toolbox.add` takes and raises what it raises.
        """

        def add(function: F) -> F:
            self.tools.add(function, name=name, reach=reach, again=again, seconds=seconds)
            return function

        return add if fn is None else add(fn)

    async def act(
        self,
        plan: Mapping[str, object],
        *,
        known: Mapping[str, Result] | None = None,
        on_result: OnResult | None = None,
    ) -> dict[str, object]:
        """Perform a plan; return plan, results, key and timestamp.

        Nothing is raised for a subtask that fails. Each result has id, tool, status ("done",
        "failed", "skipped"), result or error, tries, seconds, and the writes that it wants.

        Args:
            plan: As a reasoner returns it: `subtasks`, and the run's `key` if it has one.
            known: Results by subtask from an earlier life of the run, which are not done again.
            on_result: Is awaited with each new result before what needs it begins.

        Raises:
            PlanRefused: If it is no plan, or names tools that there are not.
        """
        if not isinstance(plan, Mapping) or "subtasks" not in plan:
            raise PlanRefused("a plan is an object with subtasks; ReasonerAgent.reason makes one")
        key = str(plan.get("key") or uuid4().hex)
        checked = Plan.of(plan["subtasks"], set(self.tools))
        started = self._clock.now()
        performance = Performance(
            checked,
            self.tools,
            self._magic,
            self._clock,
            key=key,
            allow=self._allow,
            parallel=self._parallel,
            known=known,
            on_result=on_result,
        )
        await performance.run()
        results = [performance.results[each.id] for each in checked.subtasks]
        await self._tell(
            "execution",
            {"task": plan.get("task", ""), "results": results},
            conversation_id=key,
            id=f"{key}:execution",
            duration_ms=round(1000 * (self._clock.now() - started), 3),
        )
        return {"plan": plan, "results": results, "key": key, "timestamp": self._timestamp()}


def as_workspace(place: Workspace | Path | str | None) -> Workspace | None:
    """Return the workspace at a place."""
    return place if isinstance(place, Workspace | None) else Workspace(place)
