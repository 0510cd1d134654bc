"""`./orchestrate.sh infinite`: the Infinite Panda Adventure.

    every cycle      health (no provider is asked: that would cost tokens), quality (lint, types)
    every 3rd        security
    every 5th        performance
    every 7th        documentation
    every 10th       maintenance

It goes on until Ctrl-C, or for `--cycles N`, with `--interval S` seconds between two. Achievements
are earned by what really happened and are kept in `.zejzl/achievements.json`, which is written
after each cycle; so is the number of all cycles, which decides what is next.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workflows import dev, docs, health, kept, maintenance, optimize, security
from workflows.steps import Result, Workflow, coloured

FILE = "achievements.json"
EVERY = {"security": 3, "performance": 5, "documentation": 7, "maintenance": 10}

WISDOM = (
    "A panda eats bamboo all day, one stalk at a time. Ship small.",
    "Who naps after every cycle arrives with a clear log.",
    "The bamboo that bends has a timeout.",
    "Climb only as high as you have tested the branch.",
    "A retry is a promise to somebody who is already tired.",
    "Count your nuts before winter, and your tokens before the bill.",
    "The loudest alarm is the one nobody has turned off.",
    "What was not measured was not fast; it was hoped.",
    "Two backups and one restore make a backup.",
    "The forest does not heal faster when all pandas run at once: wait a random while.",
    "Black and white is a fine way to mark what passed and what failed.",
    "A closed door with a sign is kinder than an open one that leads nowhere.",
)


@dataclass(slots=True)
class Journal:
    """What the adventure remembers from run to run.

    Attributes:
        cycles: How many were ended, in all runs.
        clear: How many in a row had no step that failed.
        failed: The steps that failed in the last cycle.
        achievements: When each was earned, and by what.
    """

    cycles: int = 0
    clear: int = 0
    failed: list[str] = field(default_factory=list)
    achievements: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cycle:
    """What happened in one cycle: each activity's steps, and which figures got better."""

    done: dict[str, list[Result]]
    faster: list[str] = field(default_factory=list)

    def named(self, name: str) -> Result | None:
        """Return the step of a name."""
        steps = (result for results in self.done.values() for result in results)
        return next((result for result in steps if result.name == name), None)

    def went_well(self, activity: str) -> bool:
        """Whether an activity took place, and no step of it failed."""
        results = self.done.get(activity, [])
        return bool(results) and not any(result.outcome == "FAILED" for result in results)

    @property
    def failed(self) -> list[str]:
        """The steps that failed."""
        steps = (result for results in self.done.values() for result in results)
        return [result.name for result in steps if result.outcome == "FAILED"]


def read(found: dict[str, Any]) -> Journal:
    """Return the journal of a file's values; what has no meaning is passed over."""

    def whole(name: str) -> int:
        value = found.get(name)
        return value if type(value) is int and value >= 0 else 0

    names, earned = found.get("failed"), found.get("achievements")
    return Journal(
        whole("cycles"),
        whole("clear"),
        [name for name in names if isinstance(name, str)] if isinstance(names, list) else [],
        {
            name: {key: str(value) for key, value in each.items()}
            for name, each in (earned.items() if isinstance(earned, dict) else ())
            if isinstance(each, dict)
        },
    )


def earned(journal: Journal, cycle: Cycle) -> dict[str, str]:
    """Return what a cycle has earned for the first time, and by what; the journal is of before."""
    mended = [
        name
        for name in journal.failed
        if (result := cycle.named(name)) is not None and result.outcome == "ok"
    ]
    backup = cycle.named("backup")
    clear = not cycle.failed
    why: dict[str, str | bool] = {
        "First steps": "the first cycle ended",
        "Bamboo grove": journal.cycles >= 9 and "ten cycles ended",
        "Bamboo forest": journal.cycles >= 99 and "a hundred cycles ended",
        "Clear water": clear and "a cycle without a step that failed",
        "Seven clear days": clear and journal.clear >= 6 and "seven such cycles in a row",
        "Nothing in the bushes": cycle.went_well("security") and "security found nothing",
        "Lighter paws": bool(cycle.faster) and f"better: {', '.join(cycle.faster)}",
        "True words": cycle.went_well("documentation") and "the documents are what the code says",
        "Nuts for winter": backup is not None and backup.outcome == "ok" and backup.text,
        "Up again": bool(mended) and f"mended since the last cycle: {', '.join(mended)}",
    }
    return {
        name: str(text) for name, text in why.items() if text and name not in journal.achievements
    }


def activities(number: int) -> list[str]:
    """Return what is done in a cycle, by its number from 1."""
    return ["health", "quality", *(name for name, every in EVERY.items() if number % every == 0)]


def adventure(flow: Workflow, options: argparse.Namespace) -> int:
    """Go on until Ctrl-C, or for so many cycles."""
    path = flow.root / ".zejzl" / FILE
    if flow.dry_run:
        for name, every in {"health": 1, "quality": 1, **EVERY}.items():
            flow.say(f"would do {name} every {f'{every} cycles' if every > 1 else 'cycle'}")
        return flow.ended()
    found, trouble = kept.load(path)
    if trouble:
        flow.say(trouble)
    journal = read(found)
    ended, new = 0, []
    flow.say(f"The Infinite Panda Adventure. So far: {_so_far(journal)}. Ctrl-C ends it.")
    try:
        while options.cycles is None or ended < options.cycles:
            if ended:
                time.sleep(options.interval)
            new += _cycle(flow, journal, path)
            ended += 1
    finally:  # by Ctrl-C as well
        flow.say(f"\nThe panda rests after {ended} cycles of this run. {_so_far(journal)}.")
        flow.say(f"Earned now: {', '.join(new) or 'nothing new'}.")
    return flow.ended()


def _so_far(journal: Journal) -> str:
    return f"{journal.cycles} cycles in all, {len(journal.achievements)} achievements"


def _cycle(flow: Workflow, journal: Journal, path: Path) -> list[str]:
    """Do one cycle, write what it earned, and return that."""
    number = journal.cycles + 1
    todo = activities(number)
    flow.say(f"\n── cycle {number}: {', '.join(todo)}")
    flow.results.clear()
    faster: list[str] = []
    works: dict[str, Callable[[], object]] = {
        "health": lambda: health.well(flow, ask=False),
        "quality": lambda: dev.quality(flow),
        "security": lambda: security.guard(flow),
        "performance": lambda: faster.extend(optimize.measure(flow)),
        "documentation": lambda: docs.true(flow),
        "maintenance": lambda: maintenance.care(flow),
    }
    done: dict[str, list[Result]] = {}
    for name in todo:
        before = len(flow.results)
        works[name]()
        done[name] = flow.results[before:]
    cycle = Cycle(done, faster)
    found = earned(journal, cycle)
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    journal.achievements.update({name: {"at": at, "by": why} for name, why in found.items()})
    journal.cycles = number
    journal.clear = 0 if cycle.failed else journal.clear + 1
    journal.failed = cycle.failed
    try:
        kept.save(path, asdict(journal))
    except OSError as exc:
        flow.say(f"the achievements cannot be kept: {path}: {exc.strerror}")
    for name, why in found.items():
        flow.say(coloured(f"achievement: {name} – {why}", "35;1"))
    flow.say(f"panda wisdom: {WISDOM[number % len(WISDOM)]}")
    return list(found)
