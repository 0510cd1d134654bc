"""Experiments: one way of working against another, on shares of the real requests.

    running ──(surely better)──▶ kept
       │ ├───(surely worse, later or dearer)──▶ reverted
       │ └───(enough seen, no difference)──▶ undecided

Which arm a request belongs to follows from its conversation, so that a conversation never changes
sides, in no process and after no restart. What decides is in `learning.experiment`; here its
verdict is carried out.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, get_args

from zejzl.clock import Clock
from zejzl.engine.arguments import checked_text
from zejzl.engine.changes import Changes, checked_difference, part_of
from zejzl.engine.journal import unheard
from zejzl.engine.usual import Usual, usual
from zejzl.errors import (
    FailureClass,
    NoSuchChange,
    Parked,
    ProviderError,
    Rejected,
    SettingsError,
    StoreError,
    StoreTooNew,
)
from zejzl.events import Event, ExperimentEnded, utc
from zejzl.learning.experiment import MOST, Goal, Trial
from zejzl.messages import Reply
from zejzl.policies.diagnosis import diagnose
from zejzl.ports import Store

log = logging.getLogger(__name__)

VERSION = 1
NAME = "experiments"  # the setting they are kept as
DAMAGED = "experiments.damaged"
WRITE_SPACING = 50  # requests after which counts are written down again
MOST_KEPT = 100  # experiments that are over and are remembered
OUR_OWN = frozenset(  # failures that say nothing of how the bus works
    {FailureClass.BAD_REQUEST, FailureClass.CONTENT_FILTERED, FailureClass.CANCELLED}
)

Difference = Mapping[str, object]  # of settings; empty is what is in use anyway


@dataclass(slots=True, kw_only=True)
class Running:
    """An experiment under way.

    Attributes:
        trial: What was counted.
        treatment: The arm that is tried.
        settings: How it differs from what there is; `control` how the other arm does.
        change: The id of the change that is tried, whether it stands already or is to be made.
        action: What the change is, in a word.
        stands: Whether it does.
        unwritten: Requests counted since it was written down last.
        heard: Conversations that are counted, as hashes.
    """

    trial: Trial
    treatment: str
    settings: Difference
    control: Difference
    change: str
    action: str
    stands: bool
    unwritten: int = 0
    heard: set[int] = field(default_factory=set)


class Part:
    """A request's part in the experiments that run.

    Attributes:
        usual: How it is to be treated.
    """

    __slots__ = ("_arms", "_clock", "_conversation_id", "_started", "_trials", "usual")

    def __init__(
        self,
        trials: "Trials",
        arms: Mapping[str, str],
        usual: Usual,
        conversation_id: str | None,
    ) -> None:
        self._trials = trials
        self._arms = arms
        self._conversation_id = conversation_id
        self._clock = trials.clock
        self._started = trials.clock.now()
        self.usual = usual

    async def ended(self, how: Reply | BaseException) -> None:
        """Take in how the request ended; what says nothing of the arms is left out."""
        if isinstance(how, Reply):
            success, cost = True, how.cost_usd
        elif is_telling(how):
            success, cost = False, cost_of(how)
        else:
            return
        seconds = self._clock.now() - self._started
        for name, arm in self._arms.items():
            if self._trials.is_first(name, self._conversation_id):
                await self._trials.observe(name, arm, success, seconds, cost)


def is_telling(failure: BaseException) -> bool:
    """Say whether a failure says something of how the bus works."""
    if isinstance(failure, Rejected | Parked):
        return True
    return isinstance(failure, ProviderError) and diagnose(failure).failure_class not in OUR_OWN


def cost_of(failure: BaseException) -> float | None:
    """Return what the calls of a request without an answer cost; None: that is not known."""
    bills = [attempt.bill.cost_usd for attempt in getattr(failure, "attempts", ())]
    return None if None in bills else sum(bill for bill in bills if bill is not None)


class Trials:
    """The experiments of one bus.

    Args:
        changes: Where a treatment that is kept goes.
        tell: Called with what happened, to be written down.

    Attributes:
        running: Those under way, by name.
    """

    def __init__(
        self, store: Store, clock: Clock, changes: Changes, tell: Callable[[Event], None]
    ) -> None:
        self._store = store
        self._changes = changes
        self._tell = tell
        self._over: list[dict[str, object]] = []
        self._both: dict[tuple[str, ...], Usual] = {}
        self._ending: set[asyncio.Future[dict[str, object]]] = set()
        self.clock = clock
        self.running: dict[str, Running] = {}

    def part(self, conversation_id: str | None) -> Part:
        """Return the part that a request has in what runs."""
        key = conversation_id if conversation_id is not None else token_hex(8)
        arms = {name: each.trial.arm(key) for name, each in self.running.items()}
        sides = tuple(arms.values())
        usual = self._both.get(sides)
        if usual is None:
            usual = self._both[sides] = self._usual(arms)
        return Part(self, arms, usual, conversation_id)

    def _usual(self, arms: Mapping[str, str]) -> Usual:
        """Return how a request with these arms is treated."""
        standing = [each.change for each in self.running.values() if each.stands]
        chosen = [
            each.settings if arms[name] == each.treatment else each.control
            for name, each in self.running.items()
        ]
        try:
            return usual(self._changes.in_use(without=standing, plus=chosen))
        except SettingsError as wrong:  # what came after it does not go together with it
            log.warning("the arms %s are as things are now: %s", ", ".join(arms.values()), wrong)
            return usual(self._changes.in_use())

    def rebase(self) -> None:
        """Take in that other settings are in use."""
        self._both = {}

    # Life ------------------------------------------------------------------------------------

    async def begin(
        self,
        name: str,
        arms: Mapping[str, object],
        *,
        share: float = 0.5,
        goal: Goal | None = None,
        most: int = MOST,
    ) -> dict[str, object]:
        """Begin an experiment and return how it stands; see `AsyncMessageBus.experiment`."""
        checked_text("name", name)
        if name in self.running:
            raise ValueError(f"an experiment {name!r} runs already; stop it first, or name another")
        if not isinstance(arms, Mapping) or len(arms) != 2:
            raise ValueError(
                "arms must be a table of two: what there is (None, or {}), and what is tried "
                "(an improvement, or a table of settings)"
            )
        control, treatment = _sides(arms)
        tried = arms[treatment]
        id = str(part_of(tried, "id") or f"experiment:{name}")
        running = Running(
            trial=Trial(
                name, treatment, control, share=share, goal=goal or _goal(tried), most=most
            ),
            treatment=treatment,
            settings=_difference(tried),
            control=_difference(arms[control]),
            change=id,
            action=str(part_of(tried, "action") or f"experiment {name}"),
            stands=self._changes.stands(id),
        )
        for settings in (running.settings, running.control):
            self._changes.in_use(plus=[settings])  # raises where they cannot be
        self.running[name] = running
        self._both = {}
        try:
            await self._write(begun=name)
        except BaseException:
            self.running.pop(name, None)
            self._both = {}
            raise
        return _shown(running)

    async def stop(self, name: str) -> dict[str, object]:
        """End an experiment early, undecided: what there was before stays. Return its end.

        Raises:
            NoSuchChange: If none of that name runs.
        """
        running = self.running.get(name)
        if running is None:
            raise NoSuchChange(str(name), tuple(self.running), "experiment runs")
        return await self._end(name, running, "undecided", "it was stopped by hand")

    def is_first(self, name: str, conversation_id: str | None) -> bool:
        """Say whether an outcome is the first of its conversation; None is one of its own.

        Only that one counts: outcomes of one conversation resemble each other, and what is
        claimed holds for independent ones.
        """
        running = self.running.get(name)
        if running is None or conversation_id is None:
            return running is not None
        before = len(running.heard)
        running.heard.add(hash(conversation_id))
        return len(running.heard) > before

    async def observe(
        self, name: str, arm: str, success: bool, seconds: float, cost_usd: float | None
    ) -> None:
        """Count one request; where that decides it, carry the verdict out."""
        running = self.running.get(name)
        if running is None:
            return  # it has ended meanwhile
        state = running.trial.observe(arm, success, seconds, cost_usd)
        running.unwritten += 1
        try:
            if state != "running":
                await self._end(name, running, state, running.trial.ruling().reason)
            elif running.unwritten >= WRITE_SPACING:
                unheard(asyncio.ensure_future(self._write()))
        except (StoreError, ValueError) as problem:
            # The request that happened to be the last has its answer all the same.
            log.warning("experiment %s: its state could not be written down: %s", name, problem)

    async def _end(
        self, name: str, running: Running, verdict: str, reason: str
    ) -> dict[str, object]:
        """Carry a verdict out, to the end even where the caller leaves."""
        self.running.pop(name, None)  # nobody else ends it, and no request has a part in it
        self._both = {}
        ending = asyncio.ensure_future(self._carry_out(name, running, verdict, reason))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return await asyncio.shield(ending)

    async def _carry_out(
        self, name: str, running: Running, verdict: str, reason: str
    ) -> dict[str, object]:
        end = _shown(running) | {"state": verdict, "reason": reason}
        try:
            if verdict == "kept" and not running.stands:
                await self._keep(running, reason)
            elif verdict == "reverted" and running.stands:
                with suppress(NoSuchChange):  # somebody took it back meanwhile
                    await self._changes.revert(running.change, f"experiment {name}: {reason}")
            if not await self._write(ended=end):
                return end  # another process has ended it
        except StoreError:
            self.running[name] = running  # its next request tries again
            raise
        self._tell(
            ExperimentEnded(
                name=name,
                verdict=verdict,
                reason=reason,
                evidence=json.dumps(end["ruling"], sort_keys=True),
                timestamp=utc(self.clock.wall()),
            )
        )
        return end

    async def _keep(self, running: Running, reason: str) -> None:
        change = {"id": running.change, "settings": running.settings}
        try:
            await self._changes.apply(change | {"action": f"{running.action}: {reason}"})
        except ValueError:
            await (
                self._changes.recall()
            )  # it stands already: by another process, or an earlier life

    def all(self) -> list[dict[str, object]]:
        """Return every experiment, those that are over first."""
        return [*self._over, *map(_shown, self.running.values())]

    # In the store ----------------------------------------------------------------------------

    async def recall(self) -> None:
        """Go on with what was kept; what cannot be read is set aside and told.

        Raises:
            StoreTooNew: If a newer version wrote it.
        """
        kept = await self._store.setting(NAME)
        self.running, self._over, self._both = {}, [], {}
        if not kept:
            return
        try:
            body = json.loads(kept)
            if isinstance(body["v"], int) and body["v"] > VERSION:
                raise StoreTooNew(
                    f"the experiments are of version {body['v']}, this zejzl reads {VERSION}: "
                    "use the newer zejzl, or another ZEJZL_HOME"
                )
            running = {each["name"]: self._read(each) for each in body["running"]}
            self._over, self.running = list(body["over"]), running
        except (ValueError, TypeError, KeyError, RecursionError) as wrong:
            log.warning("the experiments cannot be read and are kept as %s: %s", DAMAGED, wrong)
            await self._store.keep_setting(DAMAGED, kept)
            await self._store.keep_setting(NAME, None)

    def _read(self, body: Mapping[str, Any]) -> Running:
        settings, control = _difference(body["settings"]), _difference(body["control"])
        for each in (settings, control):
            self._changes.in_use(plus=[each])
        return Running(
            trial=Trial.from_json(body["trial"]),
            treatment=str(body["treatment"]),
            settings=settings,
            control=control,
            change=str(body["change"]),
            action=str(body["action"]),
            stands=self._changes.stands(body["change"]),
        )

    async def keep(self) -> None:
        """Write down what was counted since the last time."""
        if self._ending:
            await asyncio.wait(self._ending)
        if any(each.unwritten for each in self.running.values()):
            await self._write()

    def _write(self, *, begun: str = "", ended: Mapping[str, Any] | None = None) -> Awaitable[bool]:
        """Write down what was counted; return whether one that `ended` ran until then.

        Those of other processes stay as they are: each judges by what it has seen itself.
        """
        rows = {name: _kept(name, each) for name, each in self.running.items()}
        for each in self.running.values():
            each.unwritten = 0
        now = "" if ended is None else str(ended["name"])

        def work(kept: str | None) -> tuple[str, tuple[list[dict[str, object]], bool]]:
            body = json.loads(kept) if kept else {"running": [], "over": []}
            there = {str(each["name"]): each for each in body["running"]}
            ran = now in there
            # One that is not there any more was ended by another process.
            there |= {name: row for name, row in rows.items() if name in there or name == begun}
            over = list(body["over"])
            if ended is not None and ran:
                del there[now]
                over = [*over, ended][-MOST_KEPT:]
            written = {"v": VERSION, "running": list(there.values()), "over": over}
            return json.dumps(written), (over, ran)

        return self._taken_in(self._store.revise(NAME, work))

    async def _taken_in(self, written: Awaitable[tuple[list[dict[str, object]], bool]]) -> bool:
        self._over, ran = await written
        return ran


def _sides(arms: Mapping[str, object]) -> tuple[str, str]:
    """Return the names of the arm that is compared with, and of the one that is tried."""
    control, tried = (checked_text("an arm's name", name) for name in arms)
    if not arms[tried]:
        control, tried = tried, control
    if not arms[tried]:
        raise ValueError("the arms are alike: one of them must differ from what there is")
    return control, tried


def _difference(arm: object) -> dict[str, object]:
    """Return how an arm differs from what there is."""
    if not arm:
        return {}
    is_table = isinstance(arm, Mapping) and "settings" not in arm
    return checked_difference(arm if is_table else part_of(arm, "settings"))


def _goal(tried: object) -> Goal:
    """Return what an improvement is to be verified by."""
    metric = part_of(part_of(tried, "how_to_verify") or {}, "metric")
    return metric if metric in get_args(Goal) else "success"


def _kept(name: str, running: Running) -> dict[str, object]:
    return {
        "name": name,
        "trial": running.trial.to_json(),
        "treatment": running.treatment,
        "settings": dict(running.settings),
        "control": dict(running.control),
        "change": running.change,
        "action": running.action,
    }


def _shown(running: Running) -> dict[str, object]:
    """Return how an experiment stands, JSON-ready."""
    ruling = running.trial.ruling()
    return {
        "name": running.trial.name,
        "state": ruling.state,
        "reason": ruling.reason,
        "settings": dict(running.settings),
        "change": running.change,
        "ruling": ruling.to_json(),
    }
