"""Rituals: runbooks, each a named list of typed steps.

    perform ─▶ plan ─▶ step ─▶ step ─▶ … ─▶ sentence and event
                 └───────┴── raised, hung or returned rubbish: stops here, and says so

A step is somebody's own code: it may do anything, and its end is told in words instead of being
raised. What the sentence says was done was done.
"""

import asyncio
import inspect
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from zejzl.clock import Clock
from zejzl.errors import shorten
from zejzl.events import Event, RecoveryRecorded, RunbookPerformed, RunbookStep, utc
from zejzl.magic.remedies import Ended
from zejzl.magic.wards import Wards
from zejzl.policies.budget import HEALING_COST
from zejzl.policies.kept import finite

HOLLY_BLESSING = "holly_blessing"
FAIRY_WARD = "fairy_ward"
HARDENED_SECONDS = 600.0
SURGE = 30.0
SURGE_SPACING = 60.0

BUILT_IN = {
    HOLLY_BLESSING: "probes every provider and the store, closes the breakers of what answers",
    "oak_fortification": "halves thresholds and limits for ten minutes, hedges no more",
    FAIRY_WARD: "lets only critical work pass; with a file, guards that file",
    "mana_surge": f"restores {SURGE:g} of the retry budget, at most once a minute",
}

UNDESCRIBED = "one of your own; its function has no docstring"

Runbook = Callable[..., Awaitable[str | None] | Sequence["Step"]]
R = TypeVar("R", bound=Runbook)


class Keeper(Protocol):
    """What runbooks may do; FairyMagic can."""

    @property
    def clock(self) -> Clock: ...

    @property
    def wards(self) -> Wards: ...

    @property
    def energy_level(self) -> float: ...

    @property
    def max_energy(self) -> float: ...

    @property
    def healing_history(self) -> Iterable[RecoveryRecorded]: ...

    async def check_all(self) -> Mapping[str, Ended]:
        """Probe every provider and store, close the breakers of what answers; say who did."""

    def harden(self, seconds: float, /) -> None:
        """Halve thresholds and concurrency limits and hedge no more, for `seconds`."""

    async def fairy_shield(self, raised: bool, /) -> bool:
        """Raise or lower admission control; False when the retry budget does not allow it."""

    def restore_energy(self, amount: float, reason: str, /) -> float:
        """Give retry budget by hand; return what there was room for."""

    def charge(self, cost: float, /) -> float:
        """Take retry budget, at most what is there; return what was taken."""

    def emit(self, event: Event, /) -> None:
        """Tell the listeners; never raises."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a runbook.

    Attributes:
        what: What it does, in a few words: "warm the cache".
        act: Does it; returns a sentence that tells what was done, or None.
        seconds: How long it may take; it is cancelled then.
    """

    what: str
    act: Callable[[], Awaitable[object]]
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if not isinstance(self.what, str) or not self.what.strip():
            raise ValueError(f"what must say what the step does, not {self.what!r}")
        if not callable(self.act):
            raise ValueError(f"act of {self.what!r} must be an async function, not {self.act!r}")
        if not finite(f"seconds of {self.what!r}", self.seconds):
            raise ValueError(f"seconds of {self.what!r} must be above 0")


class _NotDone(Exception):
    """A step of ours cannot be done now; the message is the whole sentence."""


class Rituals:
    """Runbooks by name: the four built-in ones, and the users' own."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._built_in: dict[str, Callable[[str | Path | None], Sequence[Step]]] = {
            HOLLY_BLESSING: self._holly_blessing,
            "oak_fortification": self._oak_fortification,
            FAIRY_WARD: self._fairy_ward,
            "mana_surge": self._mana_surge,
        }
        self._own: dict[str, Runbook] = {}
        self._surged_at: float | None = None

    def names(self) -> tuple[str, ...]:
        """Return every runbook's name, the built-in ones first."""
        return (*self._built_in, *self._own)

    def described(self) -> dict[str, str]:
        """Return what each runbook does, in a line, by its name."""
        own = {name: (inspect.getdoc(made) or "").strip() for name, made in self._own.items()}
        lines = {name: shorten(told.partition("\n")[0]) for name, told in own.items()}
        return BUILT_IN | {name: line or UNDESCRIBED for name, line in lines.items()}

    def add(self, name: str, made: Runbook) -> None:
        """Keep a runbook of the user's, in place of an earlier one of that name.

        Args:
            name: Any text but the name of a built-in one.
            made: Takes nothing, or the controller. Async: it is the one step, has 30 seconds, and
                returns a sentence or None. Plain: it returns the steps, which set their own time.

        Raises:
            ValueError: If the name is taken or no name, or `made` wants more than one argument.
            TypeError: If `made` cannot be called.
        """
        self._check_name(name)
        if _fitting(made, self._keeper) is None:
            raise ValueError(f"{name} must take nothing, or one argument: the controller")
        self._own[name] = made

    def decorate(self, name: str) -> Callable[[R], R]:
        """Return a decorator that adds a function as `add` does and leaves it as it is."""
        self._check_name(name)

        def added(made: R) -> R:
            self.add(name, made)
            return made

        return added

    async def perform(self, name: str, target_file: str | Path | None = None) -> str:
        """Carry a runbook out, step by step until one fails, and tell what was really done.

        Emits one `RunbookPerformed`, also when it is cancelled. A runbook of the user's takes 10
        of the retry budget, or what is left of it.

        Args:
            name: One of `names()`.
            target_file: For fairy_ward: the file to guard.

        Raises:
            ValueError: If there is no such runbook, or it takes no file.
        """
        if name not in self.names():
            raise ValueError(f"no runbook named {name!r}; known: {', '.join(self.names())}")
        if target_file is not None and name != FAIRY_WARD:
            raise ValueError(f"{name} takes no target_file; {FAIRY_WARD} does")
        if name in self._own:
            self._keeper.charge(HEALING_COST)
        done: list[RunbookStep] = []
        steps: tuple[Step, ...] = ()
        problem = ""
        try:
            steps = self._planned(name, target_file)
        except Exception as failure:  # noqa: BLE001 - a user's code may raise anything; it is told
            problem = _told(failure)
        try:
            for step in steps:
                if not await self._run(step, done):
                    break
        finally:
            success = not problem and all(one["ok"] for one in done)
            sentence = _sentence(name, len(steps), done, problem)
            self._keeper.emit(
                RunbookPerformed(
                    name=name,
                    success=success,
                    steps=tuple(done),
                    sentence=sentence,
                    timestamp=utc(self._keeper.clock.wall()),
                )
            )
        return sentence

    def _check_name(self, name: str) -> None:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise ValueError(f"a runbook's name must be text, not {name!r}")
        if name in self._built_in:
            raise ValueError(f"{name} is built in; give yours another name")

    def _planned(self, name: str, target_file: str | Path | None) -> tuple[Step, ...]:
        if name in self._built_in:
            return tuple(self._built_in[name](target_file))
        made = self._own[name]
        plan: object = made(*(_fitting(made, self._keeper) or ()))
        if inspect.isawaitable(plan):
            return (Step(name.replace("_", " "), lambda: plan),)
        if (
            not isinstance(plan, Sequence)
            or isinstance(plan, str | bytes)
            or not all(isinstance(step, Step) for step in plan)
        ):
            raise TypeError(f"it must be async or return a list of Steps, not {_kind(plan)}")
        return tuple(plan)

    async def _run(self, step: Step, done: list[RunbookStep]) -> bool:
        """Run one step within its time and note how it ended, however it ended."""
        clock = self._keeper.clock
        began = clock.now()
        ok, said = False, ""
        try:
            async with clock.timeout(step.seconds):
                ok, said = await _tried(step)
        except TimeoutError:  # ours: the step's own does not get here
            said = f"TimeoutError: no end within {step.seconds:g} s"
        except BaseException as leaving:
            said = type(leaving).__name__
            raise
        finally:
            seconds = clock.now() - began
            done.append(RunbookStep(what=shorten(step.what), ok=ok, seconds=seconds, said=said))
        return ok

    # The four that are built in --------------------------------------------------------------

    def _holly_blessing(self, _: str | Path | None) -> Sequence[Step]:
        well: list[str] = []
        unwell: list[str] = []

        async def probe() -> str:
            for name, ended in (await self._keeper.check_all()).items():
                told = name if ended.said == "ok" else f"{name} ({ended.said})"
                (well if ended.ok else unwell).append(told)
            if well:
                return f"answered: {', '.join(well)}"
            return "nobody answered" if unwell else "there is nothing to probe"

        async def look() -> str:
            if unwell:
                raise _NotDone(f"did not answer: {', '.join(unwell)}")
            return "nobody is unwell"

        return [Step("probe every provider and store", probe, 60.0), Step("find all well", look)]

    def _oak_fortification(self, _: str | Path | None) -> Sequence[Step]:
        async def harden() -> str:
            self._keeper.harden(HARDENED_SECONDS)
            for_long = f"for {HARDENED_SECONDS / 60:g} minutes"
            return f"thresholds and concurrency limits halved, hedging off, {for_long}"

        async def name_failures() -> str:
            counts = Counter(row.failure_class for row in self._keeper.healing_history)
            ranked = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
            told = ", ".join(f"{failure} ({count})" for failure, count in ranked)
            return f"guards against {told}" if told else "nothing in the recovery log yet"

        return [Step("harden", harden), Step("look into the recovery log", name_failures)]

    def _fairy_ward(self, target_file: str | Path | None) -> Sequence[Step]:
        async def guard() -> str:
            assert target_file is not None
            ward = await self._keeper.wards.guard(target_file)
            return f"guards {ward.path} ({ward.size} bytes, sha256 {ward.sha256})"

        async def raise_shield() -> str:
            if not await self._keeper.fairy_shield(True):
                raise _NotDone(f"retry budget is too low ({self._energy()}), shield not raised")
            return "admission control lets only critical work pass (shield raised)"

        # The file first: a path that is wrong then costs nothing, and a file is guarded even
        # when there is no budget left for the shield.
        guarding = [] if target_file is None else [Step("guard the file", guard, 600.0)]
        return [*guarding, Step("raise the shield", raise_shield)]

    def _mana_surge(self, _: str | Path | None) -> Sequence[Step]:
        async def surge() -> str:
            now = self._keeper.clock.now()
            wait = 0.0 if self._surged_at is None else self._surged_at + SURGE_SPACING - now
            if wait > 0.0:
                raise _NotDone(f"nothing restored, next possible in {math.ceil(wait)} s")
            given = self._keeper.restore_energy(SURGE, "restored by a runbook")
            if given > 0.0:
                self._surged_at = now
            return f"retry budget restored by {round(given, 1):g} ({self._energy()})"

        return [Step("restore the retry budget", surge)]

    def _energy(self) -> str:
        return f"energy {self._keeper.energy_level:.1f} of {self._keeper.max_energy:g}"


async def _tried(step: Step) -> tuple[bool, str]:
    """Return whether a step was done, and what is to be said of it; "" if it said nothing."""
    try:
        said = await step.act()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return False, "CancelledError: its own work was cancelled"
    except _NotDone as refusal:
        return False, str(refusal)
    except Exception as failure:  # noqa: BLE001 - a user's code may raise anything; it is told
        return False, _told(failure)
    if said is None or isinstance(said, str):
        return True, shorten(said or "")
    return False, f"it must return a sentence or None, not {_kind(said)}"


def _fitting(made: Runbook, keeper: Keeper) -> tuple[Keeper, ...] | None:
    """Return the arguments that `made` takes; None: it takes others."""
    signature = inspect.signature(made)
    for arguments in ((keeper,), ()):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return arguments
    return None


def _sentence(name: str, steps: int, done: Sequence[RunbookStep], problem: str) -> str:
    told = [one["said"].rstrip(". ") or f"{one['what']}: done" for one in done if one["ok"]]
    so_far = "; ".join(told)
    if problem:
        return f"{name} stopped before its first step: {problem}"
    if not done or done[-1]["ok"]:
        return f"{name}: {so_far or 'nothing to do'}."
    last = done[-1]
    where = f"step {len(done)} of {steps} ({last['what']})"
    return f"{name} stopped at {where}: {last['said']}; done before: {so_far or 'nothing'}."


def _told(failure: Exception) -> str:
    try:
        words = str(failure)
    except Exception:  # noqa: BLE001 - somebody else's class
        words = "it cannot be shown"
    return shorten(f"{_kind(failure)}: {words}" if words else _kind(failure))


def _kind(thing: object) -> str:
    return type(thing).__name__
