"""`zejzl learn`: what a log, or the bus's own requests, has to teach."""

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zejzl.cli.group import command
from zejzl.cli.terminal import FAILED, WELL, Terminal, word
from zejzl.settings import Settings

if TYPE_CHECKING:
    from zejzl.cli.lessons import LearnReport
    from zejzl.cli.logs import Columns
    from zejzl.learning.mining import Miner
    from zejzl.learning.outcome import OutcomeRule
    from zejzl.stores import SqliteStore

NEWEST = 1_000  # requests of the bus's own
SKEW = 60.0  # seconds that other machines' clocks may be ahead
OFFLINE = "offline"  # the provider that is there while no other is
OWN = "the bus's own requests"


@command("learn")
@click.argument("log", required=False)
@click.option("--case", metavar="COLUMN", help="What belongs together.")
@click.option("--activity", metavar="COLUMN", help="What was done.")
@click.option("--time", metavar="COLUMN", help="When.")
@click.option("--agent", metavar="COLUMN", help="By whom.")
@click.option("--outcome", metavar="RULE", help="What a success or a failure is; see above.")
@click.option("--encoding", help="Of the log, where it is not UTF-8.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help=f"Without LOG: the newest so many requests.  [default: {NEWEST}]",
)
@click.option(
    "--top", type=click.IntRange(min=1), default=10, show_default=True, help="Rows of a table."
)
@click.option(
    "--map", "drawn", type=click.Path(path_type=Path), help="Draw the process map: an SVG file."
)
def learn(
    terminal: Terminal,
    log: str | None,
    case: str | None,
    activity: str | None,
    time: str | None,
    agent: str | None,
    outcome: str | None,
    encoding: str | None,
    limit: int | None,
    top: int,
    drawn: Path | None,
) -> int:
    """Find slow steps and failing paths, and what to do first.

    Without LOG it looks at the bus's own requests, as the database has them; nobody is asked.
    LOG is CSV or JSONL, gzipped or not, or - for stdin. Its columns are guessed by their names
    where none is named. Nothing of it is kept.

    A RULE says how cases end. It is one of the forms:

    \b
      failure = case contains 'Rejected'
      success = reward >= 1
    """
    from zejzl.cli.lessons import show, to_json
    from zejzl.cli.logs import Columns
    from zejzl.learning.outcome import OutcomeRule

    columns = Columns(case=case, activity=activity, time=time, agent=agent)
    named = [each.name for each in fields(columns) if getattr(columns, each.name) is not None]
    if log is None and (named or encoding):
        raise click.UsageError(f"--{(named or ['encoding'])[0]} is for a LOG, and none is given")
    if log is not None and limit is not None:
        raise click.UsageError(f"--limit is for {OWN}: a log is read whole")
    rule = None if outcome is None else OutcomeRule.parse(outcome)
    if drawn is not None:
        from zejzl.cli.process_map import check_place, library

        library()
        check_place(drawn)
    with terminal.waiting("learning …"):
        if log is None:
            found = asyncio.run(_own(rule, limit or NEWEST))
        else:
            found = _of_log(log, columns, rule, encoding)
        if drawn is not None:
            found = _drawn(found, drawn)
    terminal.json(to_json(found)) if terminal.as_json else show(terminal, found, top)
    return _judged(terminal, found, log)


def _judged(terminal: Terminal, found: "LearnReport", log: str | None) -> int:
    """Return the exit code; say what to do where there was nothing to learn from."""
    if found.patterns.cases:
        return WELL
    if log is None:
        terminal.note(f"no request has ended so far: `{word()} ask hello` makes one")
        return WELL
    if not found.skipped:
        terminal.note("there are no events in it")
        return WELL
    terminal.note(
        "none of its rows is an event: name the columns with --case, --activity and --time; a "
        "time is ISO 8601, or seconds or milliseconds since 1970"
    )
    return FAILED


def _drawn(found: "LearnReport", path: Path) -> "LearnReport":
    from zejzl.cli.process_map import process_map, save

    save(path, process_map(found.patterns, title=found.source))
    return replace(found, map=path)


def _of_log(
    path: str, columns: "Columns", rule: "OutcomeRule | None", encoding: str | None
) -> "LearnReport":
    """Learn from a log, read once."""
    from zejzl.cli.logs import opened_log

    name = "stdin" if path == "-" else Path(path).name
    field = rule.field if rule is not None else ""
    with opened_log(path, columns, field=field, encoding=encoding) as log:
        miner = _mined(log.events, rule)
        if rule is not None or not miner.patterns().outcomes.known:
            miner.finish()  # nothing in it ends a case: the log is taken to be whole
        return _report(
            miner,
            source=name,
            settings={},
            columns=None if log.columns is None else asdict(log.columns),
            skipped=log.skipped,
            notes=log.notes,
        )


def _mined(events: Iterable[object], rule: "OutcomeRule | None") -> "Miner":
    from zejzl.clock import SystemClock
    from zejzl.learning.mining import Miner

    miner = Miner(outcome=rule)
    miner.learn(events, now=SystemClock().wall() + SKEW)
    return miner


def _report(
    miner: "Miner",
    *,
    source: str,
    settings: dict[str, object],
    feedback: dict[str, object] | None = None,
    columns: dict[str, str | None] | None = None,
    skipped: Counter[str] | None = None,
    notes: Collection[str] = (),
) -> "LearnReport":
    from zejzl.cli.lessons import LearnReport
    from zejzl.learning.findings import find
    from zejzl.learning.improvements import propose

    patterns = miner.patterns()
    findings = find(patterns)
    return LearnReport(
        source=source,
        patterns=patterns,
        findings=findings,
        improvements=propose(findings, settings=settings, feedback=feedback),
        columns=columns,
        ruled=miner.outcome is not None,
        skipped=dict(sorted((Counter(patterns.skipped) + (skipped or Counter())).items())),
        notes=list(notes),
    )


# The bus's own -------------------------------------------------------------------------------


async def _own(rule: "OutcomeRule | None", limit: int) -> "LearnReport":
    """Learn from the requests that the database has; no bus is started."""
    from zejzl.cli.reports import kept
    from zejzl.engine.traffic import traffic

    settings = Settings.from_env()
    async with kept(settings) as store:
        if store is None:
            return _report(_mined((), rule), source=OWN, settings={})
        return _report(
            _mined(await traffic(store, limit), rule),
            source=OWN,
            settings=await _set(store, settings),
            feedback=await _opinions(store),
        )


async def _set(store: "SqliteStore", settings: Settings) -> dict[str, object]:
    """Return what a bus is set to: changes that stand, and its providers in their order."""
    from zejzl.cli.reports import buses
    from zejzl.clock import SystemClock
    from zejzl.engine.changes import Changes
    from zejzl.providers.vendors import configured

    in_use = [settings]
    await Changes(store, SystemClock(), settings, in_use.append, lambda event: None).recall()
    values = {each.name: getattr(in_use[-1], each.name) for each in fields(settings)}
    seen = [list(bus.body["providers"]) for bus in await buses(store)]
    order = [name for name in (seen[0] if seen else configured(settings)) if name != OFFLINE]
    return {**values, "failover": in_use[-1].failover or order}


async def _opinions(store: "SqliteStore") -> dict[str, object]:
    """Return what people thought of improvements, as the Learner keeps it."""
    from zejzl.agents.learner import SETTING

    try:
        kept = json.loads(await store.setting(SETTING) or "{}")
    except (ValueError, RecursionError):  # told by the Learner, whose it is
        return {}
    opinions = kept.get("feedback") if isinstance(kept, dict) else None
    return opinions if isinstance(opinions, dict) else {}
