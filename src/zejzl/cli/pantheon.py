"""`zejzl pantheon TASK`: the nine agents do a task, and say what each of them does."""

import json
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zejzl.cli.group import command
from zejzl.cli.terminal import FAILED, WELL, Terminal, in_brief, line, number, word

if TYPE_CHECKING:
    from zejzl.agents.pantheon import Progress

SIGNS = {"begun": "…", "done": "✓", "kept": "✓ (done before)", "failed": "✗"}
LONGEST = 100  # characters of a result in the table


@command("pantheon")
@click.argument("task", nargs=-1, required=True)
@click.option(
    "-w",
    "--workspace",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="The folder that is read and written, and nothing beside it; default: this one.",
)
@click.option("--key", help="Your own name for the run: begun again under it, it goes on.")
@click.option("--read-only", is_flag=True, help="Write no file: a plan that would is refused.")
def pantheon(
    terminal: Terminal, task: tuple[str, ...], workspace: Path, key: str | None, read_only: bool
) -> Coroutine[None, None, int]:
    """Let the nine agents do TASK.

    They observe, plan, act, check, commit, remember and learn. With a model it is asked for the
    plan; without one, TASK is split by its own structure: "count the tokens of each file in
    notes, then write a report to report.md".
    """
    return _pantheon(terminal, " ".join(task), workspace, key, read_only)


async def _pantheon(
    terminal: Terminal, task: str, workspace: Path, key: str | None, read_only: bool
) -> int:
    from ai_framework import AsyncMessageBus
    from zejzl.agents import Pantheon
    from zejzl.agents.workspace import Workspace

    def on_step(news: "Progress") -> None:
        if news.stage != "begun" and not terminal.as_json:
            detail = f": {line(news.detail)}" if news.detail else ""
            terminal.note(f"{SIGNS[news.stage]} {news.agent}{detail}")

    async with AsyncMessageBus() as bus:
        nine = Pantheon(bus, workspace=Workspace(workspace, read_only=read_only))
        outcome = await nine.run(task, key, on_step=on_step)
    if terminal.as_json:
        terminal.json(outcome)
    else:
        show_outcome(terminal, outcome)
    return WELL if outcome["status"] == "completed" else FAILED


def show_outcome(terminal: Terminal, outcome: Mapping[str, Any]) -> None:
    """Print what came of a run."""
    results: Mapping[str, object] = outcome["results"]
    if results:
        said = {each["id"]: each["description"] for each in _subtasks(outcome)}
        rows = [
            (id, in_brief(str(said.get(id, ""))), in_brief(_text(result), LONGEST))
            for id, result in results.items()
        ]
        terminal.table(["subtask", "what", "result"], rows)
    for note in _texts(outcome["notes"]):
        terminal.say(f"the validator: {line(note)}", prose=True)
    for path in _texts(outcome["committed"]):
        terminal.say(f"written: {line(path)}")
    seconds = number(outcome["seconds"], ".1f")
    if outcome["status"] == "completed":
        again = ", resumed" if outcome["resumed"] else ""
        terminal.say(f"completed in {seconds} s{again} (key {line(str(outcome['key']))})")
        return
    error = line(str(outcome.get("error", "it was not valid")))
    terminal.say(f"{outcome['status']}: {error}", "red", prose=True)
    terminal.say(f"→ mend it, then: {word()} pantheon --key {line(str(outcome['key']))} …")


def _subtasks(outcome: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the plan; a run that was completed in an earlier life keeps none."""
    plan: Mapping[str, Any] = outcome["steps"].get("reasoner", {})
    subtasks: Sequence[Mapping[str, Any]] = plan.get("subtasks", ())
    return subtasks


def _text(result: object) -> str:
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def _texts(found: object) -> list[str]:
    return [_text(each) for each in found] if isinstance(found, Sequence) else []
