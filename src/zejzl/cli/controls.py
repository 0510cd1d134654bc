"""What the running bus is asked to do from here, and what it has learned.

It is found by its snapshot and reached through the commands table of the database that both share.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from zejzl.cli.reports import PROVIDER, SHORT, BusReport, admission, buses, kept
from zejzl.cli.terminal import Terminal, age, amount, number, word
from zejzl.clock import SystemClock
from zejzl.engine.commands import PATIENCE, ask
from zejzl.errors import ZejzlError
from zejzl.events import UNTRIED
from zejzl.magic import FairyMagic
from zejzl.magic.rituals import FAIRY_WARD
from zejzl.policies.preferences import ALL
from zejzl.settings import Settings

# Asking --------------------------------------------------------------------------------------


async def have(
    terminal: Terminal, settings: Settings, bus: str, command: str, **arguments: object
) -> dict[str, Any]:
    """Have the running bus do something; return its answer.

    Args:
        bus: The beginning of its id; "" where only one runs.

    Raises:
        ConnectionError: If no bus runs there.
        TimeoutError: If there is no answer in time; says what becomes of the command.
        ValueError: If several run and it is not clear which is meant, or if the bus knows
            nothing of the name that was given.
        ZejzlError: If it could not do it.
    """
    async with kept(settings) as store:
        seen = [] if store is None else await buses(store)
        found = _meant(seen, bus, settings.home / "zejzl.db")
        assert store is not None  # something runs on it
        with terminal.waiting(f"asking the bus {found.owner[:SHORT]} …"):
            state, answer = await ask(
                store, SystemClock(), found.owner, command, arguments, patience=PATIENCE
            )
        if state in ("done", "failed"):
            return _read(state, answer)
        runs = any(one.running for one in await buses(store) if one.owner == found.owner)
    raise _silence(found.owner[:SHORT], command, state, runs)


def _meant(seen: Sequence[BusReport], start: str, path: Path) -> BusReport:
    running = [one for one in seen if one.running]
    if not running:
        last = f", last seen {age(seen[0].age_s)} ago" if seen else ""
        nobody = ConnectionError(f"no bus is running on {path}{last}")
        nobody.add_note("→ start your program first; `ZEJZL_HOME` must be the same as here")
        raise nobody
    found = [one for one in running if one.owner.startswith(start)]
    if len(found) == 1:
        return found[0]
    known = "; ".join(map(_named, running))
    if start and not found:
        raise ValueError(f"no running bus has an id that begins with {start!r}; running: {known}")
    raise ValueError(f"several buses run, say which with --bus ID: {known}")


def _named(bus: BusReport) -> str:
    providers = ", ".join(bus.body["providers"]) or "no providers"
    requests = number(bus.body.get("requests"), "g")
    return f"{bus.owner[:SHORT]} ({providers}; requests: {requests}; state of {age(bus.age_s)} ago)"


def _read(state: str, answer: object) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise ZejzlError("the bus gave an answer that this version cannot read")
    if state == "done":
        return answer
    kind, said = answer.get("type"), str(answer.get("message"))
    if kind == "ValueError":
        raise ValueError(said)
    raise ZejzlError(said if kind == "ZejzlError" else f"{kind}: {said}")


def _silence(bus: str, command: str, state: str, runs: bool) -> OSError:
    if not runs:
        before = "before it answered" if state == "taken" else "before it took the command"
        return ConnectionError(f"the bus {bus} ended {before}")
    if state == "taken":
        slow = TimeoutError(f"the bus {bus} is still at it after {PATIENCE:g} s")
        where = f"`{word()} {'heal --log' if command == 'heal' else 'status'}` shows what it does"
        if command == "ritual":
            where += ", and the stored event runbook_performed tells how it ended"
        slow.add_note(f"→ it goes on without you; {where}")
        return slow
    silent = TimeoutError(f"the bus {bus} did not take the command within {PATIENCE:g} s")
    silent.add_note("nothing was done, and nothing will be: what nobody waits for is not done")
    silent.add_note("→ is it stopped, or blocked? A chat listens only while it waits for an answer")
    return silent


def show_healed(terminal: Terminal, row: Mapping[str, Any]) -> None:
    """Print what one recovery attempt came to."""
    target = str(row.get("target")).removeprefix(PROVIDER)
    if row.get("remedy") == UNTRIED:
        terminal.say(f"{target}: nothing was tried: {row.get('outcome')}")
        if "circuit breaker is open" in str(row.get("outcome")):
            terminal.say(f"→ `{word()} reset {target}` closes it now")
        return
    helped = "helped" if row["success"] else "did not help"
    spent = number(row.get("energy_used"), "g")
    terminal.say(
        f"{target}: {row.get('remedy')} {helped}: {row.get('outcome')} "
        f"(retry budget spent: {spent} energy)"
    )


def show_reset(terminal: Terminal, done: Mapping[str, Any]) -> None:
    """Print what a breaker is now."""
    name = str(done.get("name")).removeprefix(PROVIDER)
    terminal.say(f"{name}: circuit breaker {done.get('state')}")


def show_ritual(terminal: Terminal, done: Mapping[str, Any]) -> None:
    """Print the sentence that tells what was done."""
    terminal.say(str(done.get("said")))
    if done.get("name") == FAIRY_WARD and done["success"]:
        terminal.say(f"→ `{word()} shield down` lets everybody pass again")


def show_shield(terminal: Terminal, done: Mapping[str, Any]) -> None:
    """Print what admission control is now."""
    energy = number(done.get("energy_level"), ".0f")
    terminal.say(f"{admission(done.get('raised'))}; retry budget: {energy} (energy)")


# Looking -------------------------------------------------------------------------------------


async def looked_at(terminal: Terminal, settings: Settings, start: str) -> BusReport | None:
    """Return the bus to look at: the newest that runs, else the one that was seen last."""
    async with kept(settings) as store:
        seen = [] if store is None else await buses(store)
    found = [one for one in seen if one.owner.startswith(start)]
    if start and not found:
        raise ValueError(f"no bus has an id that begins with {start!r}")
    running = [one for one in found if one.running]
    if len(running) > 1:
        terminal.note(f"{len(running)} buses run, this is {_named(running[0])}; --bus ID: another")
    elif not running:
        last = f"; this is the one last seen {age(found[0].age_s)} ago" if found else ""
        terminal.note(f"no bus is running{last}")
    return next(iter(running or found), None)


def rituals(bus: BusReport | None) -> dict[str, str]:
    """Return every runbook that is known and what it does, the user's own last."""
    built_in = FairyMagic().rituals
    known = {} if bus is None else bus.body["magic"]["rituals"]
    return built_in | {name: str(does) for name, does in known.items() if name not in built_in}


def show_rituals(terminal: Terminal, found: Mapping[str, str]) -> None:
    """Print the runbooks."""
    terminal.table(["ritual (runbook)", "what it does"], list(found.items()))
    terminal.say(f"`{word()} ritual NAME` performs one in the running bus")


def preferences(bus: BusReport | None) -> list[dict[str, Any]]:
    """Return what the recovery policy has learned: rows, the best remedy of a failure first."""
    rows = [] if bus is None else bus.body["magic"]["preferences"]
    return sorted(rows, key=lambda row: (*_failure(row), -amount(row.get("probability"))))


def show_preferences(terminal: Terminal, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what the recovery policy prefers, with counts, and why."""
    if not rows:
        terminal.say("nothing learned yet: the runbook's order holds")
        return
    terminal.table(
        [
            *("component", "failure", "remedy", "chosen", "helps", "cost", "tried"),
            *("operator", "says"),
        ],
        [
            (
                *_failure(row),
                row.get("remedy", ""),
                number(row.get("probability"), ".0%"),
                number(row.get("success_rate"), ".0%"),
                number(row.get("cost"), ".2f"),
                number(row.get("tried"), "g"),
                number(row.get("offset") or None, "+g"),
                row.get("author") or "",
            )
            for row in rows
        ],
        right=["chosen", "helps", "cost", "tried", "operator"],
    )
    terminal.say("\n".join(reasons(rows)), prose=True)


def reasons(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield for each failure of each component why its first remedy comes first."""
    for (component, failure), remedies in groupby(rows, _failure):
        first, *others = remedies
        yield f"{component}, {failure}: {first.get('remedy')} first: {_why(first, others)}"


def _why(first: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    if not any(row.get("tried") for row in (first, *others)):
        said = "nothing was tried yet, so the runbook's order holds"
    else:
        said = f"it is expected to help in {_record(first)}"
        said += f", {others[0].get('remedy')} in {_record(others[0])}" if others else ""
    if first.get("offset"):
        said += f"; {first.get('author')} adds {number(first.get('offset'), '+g')}"
    return said


def _record(row: Mapping[str, Any]) -> str:
    helps, cost = number(row.get("success_rate"), ".0%"), number(row.get("cost"), ".2f")
    return f"{helps} at a cost of {cost} (tried {number(row.get('tried'), 'g')}×)"


def _failure(row: Mapping[str, Any]) -> tuple[str, str]:
    component, failure = str(row.get("component", "")), str(row.get("failure_class", ""))
    if component == ALL:
        component = "anywhere"
    return component.removeprefix(PROVIDER), "any" if failure == ALL else failure
