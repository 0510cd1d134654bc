"""`zejzl experiment` and `zejzl changes`: what is tried on the bus, and what was changed of it.

Both are read from the database. To end or take back something, the running bus is asked; where
none runs, it is done in the database, and holds from the next start.
"""

import json
from collections.abc import Coroutine, Mapping, Sequence
from secrets import token_hex
from typing import Any

import click

from zejzl.cli.controls import have
from zejzl.cli.group import command, of_bus, shown
from zejzl.cli.reports import kept
from zejzl.cli.terminal import WELL, Terminal, amount, line, number, word
from zejzl.clock import SystemClock
from zejzl.engine.changes import Changes
from zejzl.engine.journal import unheard
from zejzl.engine.trial_shelf import read_experiments
from zejzl.engine.trials import Trials
from zejzl.engine.tuning import tuning_handlers
from zejzl.settings import Settings
from zejzl.stores import SqliteStore


async def _opened(store: SqliteStore, settings: Settings) -> tuple[Changes, Trials]:
    clock = SystemClock()
    changes = Changes(
        store, clock, settings, lambda _: None, lambda event: unheard(store.record([event]))
    )
    await changes.recall(mend=False)
    trials = Trials(
        store, clock, changes, lambda event: unheard(store.record([event])), owner=token_hex(8)
    )
    return changes, trials


async def found_changes(settings: Settings) -> list[dict[str, object]]:
    """Return every change that the database knows, the oldest first."""
    async with kept(settings) as store:
        if store is None:
            return []
        changes, _ = await _opened(store, settings)
        return [each.to_json() for each in changes.all]


async def found_experiments(settings: Settings) -> list[dict[str, object]]:
    """Return every experiment that the database knows, those that are over first."""
    async with kept(settings) as store:
        if store is None:
            return []
        return await read_experiments(store)


async def done(
    terminal: Terminal, settings: Settings, bus: str, what: str, **arguments: object
) -> dict[str, Any]:
    """Have it done by the running bus, or in the database where none runs."""
    try:
        return await have(terminal, settings, bus, what, **arguments)
    except ConnectionError:
        if bus:
            raise
    async with kept(settings) as store:
        if store is None:
            raise ValueError("there is no database yet, and so nothing to end or take back")
        changes, trials = await _opened(store, settings)
        await trials.recall()  # no bus runs: whatever runs there is nobody's
        handlers = tuning_handlers(changes, trials)
        answer = await handlers[what](arguments)
        assert isinstance(answer, dict)
        return answer


@command("experiment")
@click.argument("name", required=False)
@click.option("--stop", is_flag=True, help="End NAME now, undecided: what there was stays.")
@of_bus
def experiment(
    terminal: Terminal, name: str | None, stop: bool, bus: str
) -> Coroutine[None, None, int]:
    """Show what is tried on the bus.

    All experiments and what came of them; only NAME, if it is given. An experiment is begun by
    your program: `await bus.experiment(…)`, or by the bus itself where the setting auto_improve
    is on. It ends by itself.
    """
    if stop and name is None:
        raise click.UsageError("--stop needs the NAME of the experiment")
    return _experiment(terminal, name, stop, bus)


async def _experiment(terminal: Terminal, name: str | None, stop: bool, bus: str) -> int:
    settings = Settings.from_env()
    if stop:
        ended = await done(terminal, settings, bus, "stop_experiment", name=name)
        return shown(terminal, [ended], show_experiments)
    found = await found_experiments(settings)
    if name is not None:
        known = ", ".join(sorted({str(each["name"]) for each in found})) or "none"
        found = [each for each in found if each["name"] == name]
        if not found:
            raise ValueError(f"no experiment {name!r}; known: {known}")
    return shown(terminal, found, show_experiments)


def show_experiments(terminal: Terminal, found: Sequence[Mapping[str, Any]]) -> None:
    """Print experiments with both arms' figures."""
    if not found:
        terminal.say("nothing was tried yet: `await bus.experiment(…)` in your program begins one")
        return
    for each in found:
        terminal.say(f"{line(str(each['name']))}: {each['state']}", "bold")
        terminal.say(f"  {line(str(each['reason']))}", prose=True)
        terminal.say(f"  tried: {line(_settings(each['settings']))}", prose=True)
        if each["ruling"] is not None:  # else it cannot be taken up, and has no figures
            _show_arms(terminal, each["ruling"])


def _show_arms(terminal: Terminal, ruling: Mapping[str, Any]) -> None:
    rows = []
    for side in ("control", "treatment"):
        arm = ruling[side]
        low, high = arm["ci95"] or (None, None)
        rows.append(
            (
                str(arm["name"]),
                "is" if side == "control" else "tried",
                number(arm["n"], ",d"),
                number(arm["share"], ".1%") if arm["n"] else "",
                f"{amount(low):.0%} to {amount(high):.0%}" if arm["n"] else "",
                number(arm["p95_s"], ".2f"),
                number(arm["mean_usd"], ".5f"),
            )
        )
    heads = ["arm", "", "requests", "success", "95 % interval", "p95 s", "mean USD"]
    terminal.table(heads, rows, right=["requests", "success", "p95 s", "mean USD"])


@command("changes")
@click.option("--revert", metavar="ID", help="Take this change back.")
@of_bus
def changes(terminal: Terminal, revert: str | None, bus: str) -> Coroutine[None, None, int]:
    """Show which improvements are in use.

    With those that were taken back, and why.
    """
    return _changes(terminal, revert, bus)


async def _changes(terminal: Terminal, revert: str | None, bus: str) -> int:
    settings = Settings.from_env()
    if revert is not None:
        back = await done(terminal, settings, bus, "revert", id=revert)
        if terminal.as_json:
            terminal.json(back)
        else:
            terminal.say(f"{line(str(back['id']))} was taken back")
        return WELL
    return shown(terminal, await found_changes(settings), show_changes)


def show_changes(terminal: Terminal, found: Sequence[Mapping[str, Any]]) -> None:
    """Print changes, those in use last."""
    if not found:
        terminal.say(
            f"nothing was changed: `{word()} learn` shows what could be, and "
            "`await bus.apply(…)` in your program puts it to use",
            prose=True,
        )
        return
    rows = [
        (
            str(each["id"]),
            _settings(each["settings"]),
            str(each["applied_at"])[:16].replace("T", " "),
            "in use" if each["reverted_at"] is None else f"taken back: {each['reverted_because']}",
        )
        for each in found
    ]
    terminal.table(["change", "settings", "since (UTC)", "state"], rows)
    terminal.say(f"`{word()} changes --revert ID` takes one back")


def _settings(settings: object) -> str:
    if not isinstance(settings, Mapping):
        return ""
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in settings.items())
