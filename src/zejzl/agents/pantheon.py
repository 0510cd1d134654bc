"""Pantheon: the nine agents in their order, over one bus, on one task.

    observer → reasoner → actor → validator → executor → memory → analyzer → learner → improver

What each step found is in a journal before the next begins. A run that is begun again under its
key, after a crash or a cancellation, in whatever process, goes on where it was: no step that is
over is done again, nor any subtask, nothing is committed twice and each event is remembered once.
"""

import json
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
from zejzl.agents.base import Agent, Bus, plain
from zejzl.agents.executor import ExecutorAgent
from zejzl.agents.improver import ImproverAgent
from zejzl.agents.learner import LearnerAgent
from zejzl.agents.memory import MemoryAgent
from zejzl.agents.observer import ObserverAgent, Task
from zejzl.agents.reasoner import ReasonerAgent
from zejzl.agents.runs import Record, Runs, checked_key
from zejzl.agents.tools import USUAL_REACH, Reach
from zejzl.agents.validator import ValidatorAgent
from zejzl.agents.workspace import Workspace
from zejzl.clock import Clock
from zejzl.errors import shorten, words
from zejzl.magic import FairyMagic

_BEFORE_COMMIT = ("observer", "reasoner", "actor", "validator")  # what fails here, fails the run
BREAKER = "agent_coordinator"
LONGEST_KEPT = 1_000_000  # characters of one step's JSON that the journal keeps
MOST_RECALLED = 10_000  # events that are analysed

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


class OtherTask(ValueError):
    """The key belongs to a run of another task."""


class _Refused:
    def __init__(self, problem: ValueError) -> None:
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
        workspace: The folder that they read and write.
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
            OtherTask: If the key belongs to another task.
            NeedsModel, PlanRefused: As `ReasonerAgent.reason`; the run has failed.
            CircuitOpen: If runs are paused because they keep failing; it can be resumed.
            ZejzlError: As `bus.send` and its store; it can be resumed.
        """
        key = checked_key(uuid4().hex if key is None else key)
        async with self._under_way.setdefault(key, Lock()):
            begun = partial(_begun, task=plain(task, longest=LONGEST_KEPT), key=key)
            record = await self.runs.change(key, begun)
            if isinstance(record.get("outcome"), dict) and record.get("status") == "completed":
                outcome = record["outcome"]
                assert isinstance(outcome, dict)
                return {**outcome, "resumed": True}
            return await _Run(self, task, key, record, on_step).run()


def _begun(record: Record, *, task: object, key: str) -> Record:
    """Enter a run into its record, or a new life of one that failed; return a copy."""
    if record.get("task", task) != task:
        raise OtherTask(f"key {key!r} belongs to a run of another task: use another key")
    if record.get("finished") and record.get("status") != "completed":
        lives = record.get("lives")
        record.clear()
        record["lives"] = (lives if isinstance(lives, int) else 1) + 1
    record.setdefault("task", task)
    record.setdefault("lives", 1)
    record.setdefault("steps", {})
    record.setdefault("results", {})
    copy: Record = json.loads(json.dumps(record))
    return copy


class _Run:
    """One run's way through the nine."""

    def __init__(
        self, nine: Pantheon, task: Task, key: str, record: Record, on_step: OnStep | None
    ) -> None:
        steps, results = record["steps"], record["results"]
        assert isinstance(steps, dict)
        assert isinstance(results, dict)
        self._nine = nine
        self._task = task
        self._key = key
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
        await nine.runs.change(self._key, partial(_finished, outcome=outcome))
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
            await self._nine.runs.change(self._key, partial(_enter, agent=agent, found=found))
        except ValueError as wrong:
            self._tell(agent, "failed", words(wrong))
            if agent in _BEFORE_COMMIT:
                failed = partial(_failed, agent=agent, problem=wrong)
                await self._nine.runs.change(self._key, failed)
            raise
        except Exception as failure:
            self._tell(agent, "failed", words(failure))
            raise
        self._tell(agent, "done")
        return found

    async def _observe(self) -> Document:
        found = await self._nine.observer.observe(self._task, conversation_id=self._life)
        return {**found, "key": self._life}

    async def _act(self, plan: Document) -> Document:
        async def on_result(result: Document) -> None:
            id = str(result["id"])

            def enter(record: Record) -> None:
                results = record["results"]
                assert isinstance(results, dict)
                results[id] = result

            await self._nine.runs.change(self._key, enter)
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

    def _tell(self, agent: str, stage: Stage, detail: str = "") -> None:
        if self._on_step is not None:
            news = Progress(key=self._key, agent=agent, stage=stage, detail=shorten(detail))
            self._on_step(news)


async def _guarded(work: Callable[[], Awaitable[Document]]) -> Document | _Refused:
    """Do a step; what the task itself is to blame for is no failure of the agents."""
    try:
        return await work()
    except ValueError as wrong:
        return _Refused(wrong)


def _results(execution: Mapping[str, object]) -> dict[str, object]:
    results = execution["results"]
    assert isinstance(results, list)
    return {each["id"]: each["result"] for each in results if each["status"] == "done"}


# In the journal --------------------------------------------------------------------------------

_KEPT_APART = {"observation", "plan", "execution"}  # each is in the journal already, by itself


def _enter(record: Record, *, agent: str, found: Document) -> None:
    steps = record["steps"]
    assert isinstance(steps, dict)
    document = {name: value for name, value in found.items() if name not in _KEPT_APART}
    if agent == "actor":
        record["results"] = {}  # they are in the document now
    steps[agent] = _sized(document, agent)


def _sized(document: Document, agent: str) -> Document:
    """Return a step's document as JSON has it; of an observation only what there is room for.

    Nothing else is cut short: what cannot be kept whole is refused by the journal.
    """
    exact = agent in ("reasoner", "actor", "validator", "executor")
    text = json.dumps(document if exact else plain(document, longest=LONGEST_KEPT))
    if agent == "observer" and len(text) > LONGEST_KEPT:
        left_out = {"left_out": f"it has {len(text)} characters, {LONGEST_KEPT} are kept"}
        text = json.dumps({**document, "data": left_out})
    kept: Document = json.loads(text)
    return kept


def _finished(record: Record, *, outcome: Document) -> None:
    """Keep what came of a run in place of what it took."""
    small = outcome if len(json.dumps(outcome, default=str)) <= LONGEST_KEPT else {
        **outcome, "steps": {}, "results": plain(outcome["results"], longest=1_000)
    }  # fmt: skip
    record["outcome"] = plain(small, longest=LONGEST_KEPT)
    record |= {"finished": True, "status": outcome["status"], "steps": {}, "results": {}}


def _failed(record: Record, *, agent: str, problem: ValueError) -> None:
    error = shorten(f"{agent}: {words(problem)}")
    record |= {"finished": True, "status": "failed", "error": error}
