"""Pantheon: the nine agents in their order, over one bus, on one task.

    observer → reasoner → actor → validator → executor → memory → analyzer → learner → improver

What each step found is in a journal before the next begins. A run that is begun again under its
key, after a crash or a cancellation, in whatever process, goes on where it was: no step that is
over is done again, nor any subtask, nothing is committed twice and each event is remembered once.
A run belongs to one process at a time: what another one is at work on is not begun.
"""

import asyncio
import logging
import re
from asyncio import Lock
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar
from uuid import uuid4
from weakref import WeakValueDictionary

from zejzl.agents.actor import ActorAgent
from zejzl.agents.analyzer import AnalyzerAgent
from zejzl.agents.base import Agent, Bus
from zejzl.agents.committing import ended
from zejzl.agents.executor import ExecutorAgent
from zejzl.agents.improver import ImproverAgent
from zejzl.agents.learner import LearnerAgent
from zejzl.agents.memory import MemoryAgent
from zejzl.agents.observer import ObserverAgent, Task, checked_task
from zejzl.agents.reasoner import ReasonerAgent
from zejzl.agents.run_records import (
    RunUnderWay,
    begin,
    completed,
    end,
    enter_result,
    enter_step,
    fail,
    held_by,
    release,
)
from zejzl.agents.runs import Record, Runs, checked_key
from zejzl.agents.tools import USUAL_REACH, Reach
from zejzl.agents.validator import ValidatorAgent
from zejzl.agents.workspace import Workspace
from zejzl.clock import Clock
from zejzl.errors import StoreError, shorten, words
from zejzl.magic import FairyMagic

_BEFORE_COMMIT = ("observer", "reasoner", "actor", "validator")  # what fails here, fails the run
BREAKER = "agent_coordinator"
MOST_RECALLED = 10_000  # events that are analysed

_LATER_LIFE = re.compile(r"#\d+$")

log = logging.getLogger(__name__)

Stage = Literal["begun", "done", "kept", "failed"]
Document = dict[str, object]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """News of a run.

    Attributes:
        key: The run's.
        agent: Whose step it is.
        stage: "kept": done in an earlier life of the run.
        detail: A subtask and what became of it, or why the step failed; "" is the step itself.
    """

    key: str
    agent: str
    stage: Stage
    detail: str = ""


OnStep = Callable[[Progress], object]


class _Refused:
    def __init__(self, problem: Exception) -> None:
        self.problem = problem


class _Once(Agent):
    """An agent whose events are the same ones when a run's step is done again."""

    async def _tell(
        self,
        type: str,
        data: Mapping[str, object],
        *,
        conversation_id: str | None = None,
        **more: object,
    ) -> dict[str, object]:
        more |= {"conversation_id": conversation_id, "id": f"{conversation_id}:{type}"}
        return await super()._tell(type, data, **more)  # type: ignore[arg-type]  # it is a text


class _Observer(_Once, ObserverAgent):
    pass


class _Analyzer(_Once, AnalyzerAgent):
    pass


class _Learner(_Once, LearnerAgent):
    pass


class _Improver(_Once, ImproverAgent):
    pass


class Pantheon:
    """The nine agents on one bus.

    Args:
        bus: Whose model, store, topics and circuit breakers they use; without one they work
            alone, and nothing outlives the process.
        clock: Where time comes from.
        workspace: The folder that they read and write; `Workspace(…, read_only=True)` only read.
        allow: What tools may reach beside their inputs.
        parallel: Tools that run at the same time, at most.

    Attributes:
        observer, reasoner, actor, validator, executor, memory, analyzer, learner, improver: The
            nine. `pantheon.actor.tool` registers tools, `pantheon.validator.invariant` rules.
        runs: The journal.
    """

    def __init__(
        self,
        bus: Bus | None = None,
        *,
        clock: Clock | None = None,
        workspace: Workspace | Path | str | None = None,
        allow: Collection[Reach] = USUAL_REACH,
        parallel: int = 8,
    ) -> None:
        self._bus = bus
        self.runs = Runs(None if bus is None else bus.store)
        self.memory = MemoryAgent(bus, clock=clock)
        self.observer = _Observer(bus, clock=clock)
        self.actor = ActorAgent(
            bus, clock=clock, workspace=workspace, allow=allow, parallel=parallel
        )
        if self.actor.workspace is not None and self.actor.workspace.read_only:
            self.actor.tools.remove("write_file")  # so that no plan counts on it
        self.reasoner = ReasonerAgent(bus, clock=clock, tools=self.actor.tools)
        self.validator = ValidatorAgent(bus, clock=clock, allow=allow, tools=self.actor.tools)
        self.executor = ExecutorAgent(
            bus, clock=clock, workspace=self.actor.workspace, runs=self.runs
        )
        self.analyzer = _Analyzer(bus, clock=clock)
        self.learner = _Learner(bus, clock=clock)
        self.improver = _Improver(bus, clock=clock)
        for agent in (
            *(self.observer, self.reasoner, self.actor, self.validator, self.executor),
            *(self.analyzer, self.learner, self.improver),
        ):
            agent.memory = self.memory
        self._clock = self.actor._clock
        self._magic = FairyMagic(clock=self._clock) if bus is None else bus.magic
        self._under_way: WeakValueDictionary[str, Lock] = WeakValueDictionary()

    def new_learner(self) -> LearnerAgent:
        """Put a learner that knows nothing but people's feedback in place of the last one."""
        opinions = self.learner._opinions
        self.learner = _Learner(self._bus, clock=self._clock)
        self.learner.memory = self.memory
        self.learner._opinions = opinions
        return self.learner

    async def run(
        self, task: Task, key: str | None = None, *, on_step: OnStep | None = None
    ) -> dict[str, object]:
        """Do a task and return what came of it.

        It holds task, key, status ("completed", or "failed" with an `error`), results by subtask,
        the files that were `committed`, notes of the validation, the documents of the nine steps,
        seconds, timestamp, and whether it was `resumed`. A run that is completed is not done
        again: what came of it is returned. One that failed is begun anew.

        Args:
            task: As for `ObserverAgent.observe`.
            key: The run's name; begun again under the same one, it goes on.
            on_step: Is called with each piece of news; it must not raise.

        Raises:
            TypeError, ValueError: If the task or the key is none.
            OtherTask: If the key belongs to another task, or another workspace.
            RunUnderWay: If another process is at work on it.
            NeedsModel, PlanRefused: As `ReasonerAgent.reason`; the run has failed.
            CircuitOpen: If runs are paused because they keep failing; it can be resumed.
            ZejzlError: As `bus.send` and its store; it can be resumed.
        """
        key = checked_key(uuid4().hex if key is None else key)
        if _LATER_LIFE.search(key):
            raise ValueError(f"a key cannot end in {key[key.rindex('#') :]}: runs begun anew do")
        task = checked_task(task)
        async with self._under_way.setdefault(key, Lock()):
            me = f"{'' if self._bus is None else self._bus.id}/{uuid4().hex}"
            change = partial(begin, key=key, task=task, workspace=self._folder(), me=me)
            gone = await self._gone(await self.runs.load(key))
            record = await self.runs.change(key, partial(change, gone=gone))
            if (outcome := completed(record)) is not None:
                return {**outcome, "resumed": True}
            try:
                return await _Run(self, task, key, me, record, on_step).run()
            finally:
                await self._release(key, me)

    def _folder(self) -> str | None:
        return None if self.actor.workspace is None else str(self.actor.workspace.folder)

    async def _gone(self, record: Record | None) -> bool:
        """Say whether nobody else is at work on a run any more: our own bus, or none that runs."""
        holder = held_by(record or {}).partition("/")[0]
        if self._bus is None or holder in ("", self._bus.id):
            return True
        running = {owner for owner, _, runs, _ in await self._bus.store.snapshots() if runs}
        return holder not in running

    async def _release(self, key: str, me: str) -> None:
        """Let others have the run, unless it is theirs already; cancelled or not."""
        released = asyncio.ensure_future(self.runs.change(key, partial(release, me=me)))
        left = await ended(released)
        if isinstance(problem := released.exception(), StoreError):
            log.warning("run %r stays with this bus until it stops: %s", key, problem)
        elif problem is not None:
            raise problem
        if left is not None:
            raise left


class _Run:
    """One run's way through the nine."""

    def __init__(
        self,
        nine: Pantheon,
        task: Task,
        key: str,
        me: str,
        record: Record,
        on_step: OnStep | None,
    ) -> None:
        steps, results = record["steps"], record["results"]
        assert isinstance(steps, dict)
        assert isinstance(results, dict)
        self._nine = nine
        self._task = task
        self._key = key
        self._me = me
        # What was said and committed in a life that failed is not to be found again.
        self._life = key if record["lives"] == 1 else f"{key}#{record['lives']}"
        self._kept: dict[str, Document] = steps
        self._results: dict[str, Document] = results
        self._resumed = bool(steps)
        self._on_step = on_step

    async def run(self) -> dict[str, object]:
        nine, started = self._nine, self._nine._clock.now()
        observation = await self._step("observer", self._observe)
        plan = await self._step("reasoner", partial(nine.reasoner.reason, observation))
        plan = {**plan, "observation": observation}
        execution = {**await self._step("actor", partial(self._act, plan)), "plan": plan}
        validation = await self._step("validator", partial(nine.validator.validate, execution))
        validation = {**validation, "execution": execution}
        result = await self._step("executor", partial(nine.executor.execute, validation))
        await self._step("memory", self._remember)
        events = await nine.memory.recall(limit=MOST_RECALLED)
        life = {"conversation_id": self._life}
        analysis = await self._step("analyzer", partial(nine.analyzer.analyze, events, **life))
        learned = await self._step("learner", partial(self._learn, events))
        improvement = await self._step(
            "improver", partial(nine.improver.improve, analysis, learned, **life)
        )
        outcome: Document = {
            "task": observation["task"],
            "key": self._key,
            "status": result["status"],
            **({"error": result["error"]} if "error" in result else {}),
            "results": _results(execution),
            "committed": result["committed"],
            "notes": validation["notes"],
            "steps": {
                "observer": observation,
                "reasoner": plan,
                "actor": execution,
                "validator": validation,
                "executor": result,
                "analyzer": analysis,
                "learner": learned,
                "improver": improvement,
            },
            "seconds": round(nine._clock.now() - started, 6),
            "timestamp": result["timestamp"],
        }
        await self._change(partial(end, outcome=outcome))
        return {**outcome, "resumed": self._resumed}

    async def _step(self, agent: str, work: Callable[[], Awaitable[Document]]) -> Document:
        """Return what a step found, now or in an earlier life of the run."""
        if agent in self._kept:
            self._tell(agent, "kept")
            return self._kept[agent]
        self._tell(agent, "begun")
        breaker = self._nine._magic.circuit_breakers[BREAKER]
        try:
            found = await breaker.call(_guarded, work)
            if isinstance(found, _Refused):
                raise found.problem
            await self._change(partial(enter_step, agent=agent, found=found))
        except ValueError as wrong:
            self._tell(agent, "failed", words(wrong))
            if agent in _BEFORE_COMMIT:
                await self._change(partial(fail, error=f"{agent}: {words(wrong)}"))
            raise
        except Exception as failure:
            self._tell(agent, "failed", words(failure))
            raise
        failed = found.get("status") == "failed"
        self._tell(agent, "failed" if failed else "done", str(found.get("error", "")))
        return found

    async def _observe(self) -> Document:
        found = await self._nine.observer.observe(self._task, conversation_id=self._life)
        return {**found, "key": self._life}

    async def _act(self, plan: Document) -> Document:
        async def on_result(result: Document) -> None:
            id = str(result["id"])
            await self._change(partial(enter_result, id=id, result=result))
            stage: Stage = "done" if result["status"] == "done" else "failed"
            self._tell("actor", stage, f"{id} {result['tool']}: {result.get('error', 'done')}")

        return await self._nine.actor.act(plan, known=self._results, on_result=on_result)

    async def _remember(self) -> Document:
        """Return what is remembered of the run."""
        events = await self._nine.memory.recall(conversation_id=self._life)
        return {"events": [str(event["id"]) for event in events]}

    async def _learn(self, events: list[Document]) -> Document:
        """Return what is to be learned of all that is remembered.

        Of that, and not of what a learner has in mind from former runs: the memory outlives the
        process, holds each event once, and forgets in its own time.
        """
        learner = self._nine.new_learner()
        return await learner.learn(events, conversation_id=self._life)

    async def _change(self, change: Callable[..., None]) -> None:
        await self._nine.runs.change(self._key, partial(change, key=self._key, me=self._me))

    def _tell(self, agent: str, stage: Stage, detail: str = "") -> None:
        if self._on_step is not None:
            news = Progress(key=self._key, agent=agent, stage=stage, detail=shorten(detail))
            self._on_step(news)


async def _guarded(work: Callable[[], Awaitable[Document]]) -> Document | _Refused:
    """Do a step; what the task itself is to blame for is no failure of the agents."""
    try:
        return await work()
    except (ValueError, RunUnderWay) as wrong:
        return _Refused(wrong)


def _results(execution: Mapping[str, object]) -> dict[str, object]:
    results = execution["results"]
    assert isinstance(results, list)
    return {each["id"]: each["result"] for each in results if each["status"] == "done"}
