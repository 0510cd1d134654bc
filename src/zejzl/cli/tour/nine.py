"""The tour, 3: the nine agents on one small task, in a folder that is gone afterwards."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from ai_framework import AsyncMessageBus
from zejzl.agents import Pantheon
from zejzl.agents.pantheon import Progress
from zejzl.cli.terminal import Terminal
from zejzl.clock import SystemClock
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore

TASK = "index the folder notes, count the tokens of each file, then write a report to report.md"
NOTES = {
    "forest.txt": "A fox, an oak and nine acorns.",
    "river.txt": "The river carries leaves to the sea, and nobody hurries it.",
    "night.txt": "At night the panda keeps watch.",
}
DOES = {
    "observer": "gathers what there is: texts, files, the bus's state",
    "reasoner": "makes a plan: steps, what each needs, what must come out",
    "actor": "does the steps with tools, side by side where it can",
    "validator": "checks every result against what was expected",
    "executor": "writes files, once, and only what is valid",
    "memory": "remembers what happened",
    "analyzer": "measures it",
    "learner": "finds patterns, slow steps and failing paths",
    "improver": "proposes changes that can be tried and taken back",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NineTour:
    """What the nine did.

    Attributes:
        task: As they were asked.
        status: "completed", or how else it ended.
        steps: Agent → seconds that its step took.
        subtasks: What the plan came to, in words.
        report: The file that they wrote.
    """

    task: str
    status: str
    steps: dict[str, float]
    subtasks: tuple[str, ...]
    report: str


async def look() -> NineTour:
    """Let the nine do the task; no model is asked."""
    clock = SystemClock()
    took: dict[str, float] = {}
    began: dict[str, float] = {}

    def on_step(news: Progress) -> None:
        if news.stage == "begun":
            began[news.agent] = clock.now()
        elif not news.detail:
            took[news.agent] = round(clock.now() - began.get(news.agent, clock.now()), 4)

    with tempfile.TemporaryDirectory(prefix="zejzl-tour-") as name:
        folder = Path(name)
        (folder / "notes").mkdir()
        for file, text in NOTES.items():
            (folder / "notes" / file).write_text(text, encoding="utf-8")
        async with AsyncMessageBus(Settings(home=folder), store=InMemoryStore()) as bus:
            outcome = await Pantheon(bus, workspace=folder).run(TASK, on_step=on_step)
        report = (folder / "report.md").read_text(encoding="utf-8")
    steps = outcome["steps"]
    assert isinstance(steps, dict)
    return NineTour(
        task=TASK,
        status=str(outcome["status"]),
        steps=took,
        subtasks=tuple(
            f"{each['id']} {each['tool']}: {each['description']}"
            for each in steps["reasoner"]["subtasks"]
        ),
        report=report,
    )


def show(terminal: Terminal, found: NineTour) -> None:
    """Print what the nine did."""
    terminal.say(f"task:  {found.task}", prose=True)
    terminal.say("")
    terminal.table(
        ["agent", "what it does", "ms"],
        [(name, DOES[name], f"{1000 * took:.0f}") for name, took in found.steps.items()],
        right=["ms"],
    )
    terminal.say("\nIts plan, made without a model", "bold")
    for each in found.subtasks:
        terminal.say(each, prose=True)
    terminal.say(f"\nWhat it wrote ({found.status})", "bold")
    for row in found.report.splitlines():
        if row.strip():
            terminal.say(f"  {row}", "dim", prose=True)
