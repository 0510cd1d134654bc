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
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from secrets import token_hex
from typing import Any, TypeVar, get_args

from zejzl.clock import Clock
from zejzl.engine.arguments import checked_text
from zejzl.engine.changes import Changes, checked_difference, checked_id, part_of, word_of
from zejzl.engine.trial_shelf import Running, TrialShelf, shown
from zejzl.engine.usual import Usual, usual
from zejzl.errors import (
    FailureClass,
    NoSuchChange,
    Parked,
    ProviderError,
    Rejected,
    SettingsError,
    StoreError,
)
from zejzl.events import Event, ExperimentEnded, utc
from zejzl.learning.experiment import MOST, Goal, Trial
from zejzl.messages import Reply
from zejzl.policies.diagnosis import diagnose
from zejzl.ports import Store

T = TypeVar("T")
log = logging.getLogger(__name__)

LETTING_GO = 5.0  # seconds that verdicts are given to be carried out at the end
WRITE_SPACING = 50  # requests after which counts are written down again
OUR_OWN = frozenset(  # failures that say nothing of how the bus works
    {FailureClass.BAD_REQUEST, FailureClass.CONTENT_FILTERED, FailureClass.CANCELLED}
)

# What matters in later turns of a conversation, of which only the first outcome counts.
LATER = frozenset({"context_tokens", "history_turns"})
LONGEST = timedelta(days=30)  # that an experiment runs; then it is undecided


class Part:
    """A request's part in the experiments that run.

    Attributes:
        usual: How it is to be treated.
    """

    __slots__ = ("_arms", "_conversation", "_started", "_trials", "usual")

    def __init__(
        self,
        trials: "Trials",
        arms: Sequence[tuple[Running, str]],
        usual: Usual,
        conversation: str | None,
    ) -> None:
        self._trials = trials
        self._arms = arms
        self._conversation = conversation
        self._started = trials.clock.now()
        self.usual = usual

    def ended(self, how: Reply | Exception) -> None:
        """Take in how the request ended; what says nothing of the arms is left out."""
        if isinstance(how, Reply):
            success, cost = True, how.cost_usd
        elif is_telling(how):
            success, cost = False, cost_of(how)
        else:
            return
        seconds = self._trials.clock.now() - self._started
        for running, arm in self._arms:
            if not running.over and running.is_first(self._conversation):
                self._trials.observe(running, arm, success, seconds, cost)


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

    An experiment belongs to the process that began it, or that found it after that one's end; all
    others go on as things are, so that one counts and one decides.

    Args:
        changes: Where a treatment that is kept goes.
        tell: Called with what happened, to be written down.
        owner: The bus's own key among the snapshots.

    Attributes:
        running: Those under way, by name.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        changes: Changes,
        tell: Callable[[Event], None],
        owner: str,
    ) -> None:
        self._store = store
        self._changes = changes
        self._tell = tell
        self._owner = owner
        self._shelf = TrialShelf(store, owner)
        self._both: dict[tuple[str, ...], Usual] = {}
        self._closing: dict[str, dict[str, object]] = {}  # decided, and not written down yet
        self._ending: set[asyncio.Future[Any]] = set()
        self.clock = clock
        self.running: dict[str, Running] = {}

    def part(self, conversation: str | None) -> Part:
        """Return the part that a request has in what runs.

        Args:
            conversation: What it belongs to; None: it is one of its own.
        """
        key = conversation if conversation is not None else token_hex(8)
        arms = [(each, each.trial.arm(key)) for each in self.running.values()]
        sides = tuple(arm for _, arm in arms)
        usual = self._both.get(sides)
        if usual is None:
            usual = self._both[sides] = self._usual(arms)
        return Part(self, arms, usual, conversation)

    def _usual(self, arms: Sequence[tuple[Running, str]]) -> Usual:
        """Return how a request with these arms is treated."""
        tried = [each.change for each, _ in arms]
        chosen = [each.settings if arm == each.treatment else each.control for each, arm in arms]
        try:
            return usual(self._changes.in_use(without=tried, plus=chosen))
        except SettingsError as wrong:  # what came after it does not go together with it
            names = ", ".join(arm for _, arm in arms)
            log.warning("the arms %s are as things are now: %s", names, wrong)
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
        id = checked_id(part_of(tried, "id") or f"experiment:{name}")
        now = utc(self.clock.wall())
        running = Running(
            trial=Trial(
                name,
                treatment,
                control,
                share=share,
                goal=goal or _goal(tried),
                most=most,
                token=now.isoformat(),  # begun again, it is another trial
            ),
            treatment=treatment,
            settings=_difference(tried),
            control=_difference(arms[control]),
            change=id,
            action=word_of(part_of(tried, "action"), f"experiment {name}"),
            stood=self._changes.stands(id),
            until=now + LONGEST,
        )
        self._check(running)
        self.running[name] = running
        self._both = {}
        try:
            await self._shelf.begin(name, running)
        except BaseException:
            self.running.pop(name, None)
            self._both = {}
            raise
        return shown(running)

    def _check(self, running: Running) -> None:
        """Raise where an experiment could not tell what it is to tell."""
        for settings in (running.settings, running.control):
            self._changes.in_use(plus=[settings])  # raises where they cannot be
            if later := LATER & settings.keys():
                raise SettingsError(
                    min(later),
                    "matters in later turns of a conversation, and an experiment counts the "
                    "first alone: apply it, and look for yourself",
                )
        if running.stood and not self._changes.stands(running.change, running.settings):
            raise ValueError(
                f"a change {running.change!r} is in use with other settings: take it back first, "
                "or give what you try another id"
            )

    async def stop(self, name: str) -> dict[str, object]:
        """End an experiment early, undecided: what there was before stays. Return its end.

        Raises:
            NoSuchChange: If none of that name runs.
        """
        running = self.running.get(name)
        if running is None:
            raise NoSuchChange(str(name), tuple(self.running), "experiment runs")
        return await asyncio.shield(self._end(running, "undecided", "it was stopped by hand"))

    def observe(
        self, running: Running, arm: str, success: bool, seconds: float, cost_usd: float | None
    ) -> None:
        """Count one request; a verdict is carried out beside it."""
        state = running.trial.observe(arm, success, seconds, cost_usd)
        running.unwritten += 1
        if state != "running":
            self._end(running, state, running.trial.ruling().reason)
        elif utc(self.clock.wall()) > running.until:
            self._end(running, "undecided", f"{LONGEST.days} days are over")
        elif running.unwritten >= WRITE_SPACING:
            self._beside(self._shelf.count(self.running))

    def _end(
        self, running: Running, verdict: str, reason: str
    ) -> "asyncio.Future[dict[str, object]]":
        """Let nobody have a part in it any more, and carry the verdict out."""
        running.over = True
        self.running.pop(running.trial.name, None)
        self._both = {}
        end = shown(running) | {"state": verdict, "reason": reason}
        self._closing[running.trial.name] = end
        return self._beside(self._carry_out(running, verdict, reason))

    def _beside(self, work: Coroutine[Any, Any, T]) -> "asyncio.Future[T]":
        """Do something beside the request that was the occasion; what goes wrong is told."""
        task = asyncio.ensure_future(work)
        self._ending.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Future[Any]") -> None:
        self._ending.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            log.warning("an experiment's state could not be written down: %s", problem)

    async def _carry_out(self, running: Running, verdict: str, reason: str) -> dict[str, object]:
        """Say first that it is over, so that one process alone acts on it; then act."""
        stands = self._changes.stands(running.change)
        if verdict == "kept" and running.stood and not stands:
            verdict, reason = "undecided", f"it was taken back meanwhile; {reason}"
        elif verdict == "kept" and not stands:
            try:
                self._changes.in_use(plus=[running.settings])
            except SettingsError as wrong:
                verdict, reason = "undecided", f"{reason}; but it does not fit any more: {wrong}"
        end = shown(running) | {"state": verdict, "reason": reason, "action": running.action}
        try:
            claimed = await self._shelf.end(end)
            self._closing.pop(running.trial.name, None)
            if not claimed:
                return end  # it was ended already
            await self._act_on(end)
        except StoreError:
            self._closing.pop(running.trial.name, None)
            running.over = False  # its next request tries again
            self.running[running.trial.name] = running
            self._both = {}
            raise
        self._tell(
            ExperimentEnded(
                name=running.trial.name,
                verdict=verdict,
                reason=reason,
                evidence=json.dumps(end["ruling"], sort_keys=True),
                timestamp=utc(self.clock.wall()),
            )
        )
        return end

    async def _act_on(self, end: Mapping[str, Any]) -> None:
        """Put what was kept to use, or take back what was not; done again, it does nothing."""
        id, why = str(end["change"]), f"experiment {end['name']}: {end['reason']}"
        stands = self._changes.stands(id)
        if end["state"] == "kept" and not stands:
            change = {"id": id, "settings": end["settings"], "action": why}
            await self._changes.apply(change)
        elif end["state"] == "reverted" and stands:
            with suppress(NoSuchChange):  # another process took it back meanwhile
                await self._changes.revert(id, why)
        await self._shelf.carried_out(str(end["name"]))

    def all(self) -> list[dict[str, object]]:
        """Return every experiment, those that are over first."""
        return [*self._shelf.over, *self._closing.values(), *map(shown, self.running.values())]

    async def recall(self) -> None:
        """Go on with what was kept, if its process is gone; what does not fit is told and left.

        Raises:
            StoreTooNew: If a newer version wrote it.
        """
        self.running, self._both = {}, {}
        for name, running in (await self._shelf.recall()).items():
            try:
                self._changes.in_use(plus=[running.settings])
                self._changes.in_use(plus=[running.control])
            except (ValueError, TypeError) as wrong:
                log.warning("experiment %s cannot go on, and is left as it is: %s", name, wrong)
            else:
                self.running[name] = running
        for end in self._shelf.pending:  # its process died between word and deed
            try:
                await self._act_on(end)
            except (ValueError, TypeError, KeyError) as wrong:
                log.warning("the verdict of %s cannot be carried out: %s", end["name"], wrong)

    async def keep(self) -> None:
        """Write down what was counted since the last time; wait for verdicts a moment at most."""
        if self._ending:
            with suppress(TimeoutError):
                async with self.clock.timeout(LETTING_GO):
                    await asyncio.wait(self._ending)
        if any(each.unwritten for each in self.running.values()):
            await self._shelf.count(self.running)


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
