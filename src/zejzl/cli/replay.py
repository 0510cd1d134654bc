"""`zejzl replay`: an incident played to a bus with the present settings, and with others.

The incident is a TOML script or a span of what the database has; see `zejzl.testing.simulate`.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from zejzl.cli.reports import kept
from zejzl.cli.terminal import WELL, Terminal, counted, moment, number, safe, word
from zejzl.clock import SystemClock
from zejzl.errors import SettingsError
from zejzl.events import utc
from zejzl.settings import Settings
from zejzl.testing.incidents import Incident, IncidentError
from zejzl.testing.recorded import newest_trouble, recorded
from zejzl.testing.simulate import Minute, Simulation, simulate

LAST = "last"
AS_IT_IS = "as it is"
BAR = 60  # letters of a timeline
LEVELS = "▁▂▃▄▅▆▇█"
_AGO = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|m|h|d)")
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Which incident: a file, or what the database has of a time.

    Attributes:
        incident: A file's name, or "last"; None: `since` says it.
        stream: Whether the answers of that time were streamed.
    """

    incident: str | None
    since: str | None
    until: str | None
    stream: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Settings to compare.

    Attributes:
        name: What is other than at present.
        changes: That, as it was written.
    """

    name: str
    changes: Mapping[str, str]
    settings: Settings


def replay(
    terminal: Terminal,
    span: Span,
    *,
    changes: Sequence[str],
    against: Sequence[str],
    save: Path | None,
    seed: int,
) -> int:
    """Replay an incident and show what each variant of the settings made of it.

    Raises:
        IncidentError: If there is no such incident.
        SettingsError: If a setting is unknown or impossible.
    """
    given = {name: value for each in changes for name, value in _pairs(each).items()}
    present = _settings(given)
    if save is not None and save.exists():
        raise ValueError(f"{save} exists already: choose another name")
    with _progress(terminal, "reading") as told:
        incident = _incident(span, present, told)
    variants = _variants(terminal, incident, given, against)
    if save is not None:
        _save(incident, save)
        terminal.note(f"saved as {save}: `{word()} replay {save}` replays it")
    found = []
    for at, variant in enumerate(variants, 1):
        with _progress(terminal, f"{at} of {len(variants)}: {variant.name}") as told, _quiet():
            try:
                found.append(simulate(incident, variant.settings, seed=seed, progress=told))
            except SettingsError as wrong:
                raise _noted(wrong, {**given, **variant.changes}) from None
    if terminal.as_json:
        terminal.json(_told(incident, seed, variants, found))
    else:
        _show(terminal, incident, list(zip(variants, found, strict=True)))
    return WELL


# Which incident ----------------------------------------------------------------------------------


def _incident(span: Span, settings: Settings, told: Callable[[float], None]) -> Incident:
    name = span.incident
    if name is None and span.since is None:
        raise IncidentError("", f"which one? Give a file, `{LAST}`, or --since")
    if name is not None and (span.since or span.until):
        raise IncidentError("", f"--since and --until are for what the database has, not {name}")
    if name not in (None, LAST) and span.stream:
        problem = "is for what the database has: a file says itself what was streamed"
        raise IncidentError("--stream", problem)
    if name is not None and name != LAST:
        try:
            return Incident.from_toml(name)
        except FileNotFoundError:
            problem = f"there is no such file; `{LAST}` is the newest that the database has"
            raise IncidentError(name, problem) from None
        except OSError as problem:
            raise IncidentError(name, f"cannot be read: {problem.strerror}") from problem
    times = _times(span)
    return asyncio.run(_of_database(times, settings, told, stream=span.stream))


def _times(span: Span) -> tuple[datetime, datetime | None] | None:
    """Return from when to when; None: the newest incident."""
    if span.since is None:
        return None
    since = _time("--since", span.since)
    until = None if span.until is None else _time("--until", span.until)
    if until is not None and until <= since:
        raise IncidentError("--until", "must be later than --since")
    return since, until


async def _of_database(
    times: tuple[datetime, datetime | None] | None,
    settings: Settings,
    told: Callable[[float], None],
    *,
    stream: bool,
) -> Incident:
    async with kept(settings) as store:
        if store is None:
            path = settings.home / "zejzl.db"
            raise IncidentError(str(path), "there is no database yet: no bus has kept anything")
        since, until = times or await newest_trouble(store)
        return await recorded(
            store, since=since, until=until, stream=stream, settings=settings, progress=told
        )


def _time(option: str, text: str) -> datetime:
    """Return a point in time: written out (local, if it has no zone), or so long ago."""
    if (ago := _AGO.fullmatch(text.strip())) is not None:
        seconds = float(ago[1]) * _UNITS[ago[2]]
        return utc(max(0.0, SystemClock().wall() - seconds))
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise IncidentError(
            option, f"must be a time as 2026-11-22T10:00, or so long ago as 90min or 2h: {text!r}"
        ) from None


def _save(incident: Incident, path: Path) -> None:
    text = incident.to_toml()
    try:
        with path.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
            except BaseException:
                path.unlink()  # half of one is none
                raise
    except OSError as problem:
        raise OSError(f"{path} cannot be written: {problem.strerror}") from problem


# Which settings ----------------------------------------------------------------------------------


def _pairs(text: str) -> dict[str, str]:
    """Return "a=1,b=2" as pairs; a part without "=" goes on with the value before it.

    So does one that is no setting's after rate limits, which are written like pairs themselves.
    """
    found: dict[str, str] = {}
    name, known = "", [item.name for item in fields(Settings)]
    for part in text.split(","):
        before, equals, value = part.partition("=")
        if equals and (name != "rate_limits" or before.strip() in known):
            name = before.strip()
            found[name] = value.strip()
        elif name:
            found[name] += f",{part.strip()}"
        else:
            wrong = SettingsError(text.strip() or "''", "must be NAME=VALUE")
            raise _noted(wrong, {wrong.setting: text})
    return found


def _settings(changes: Mapping[str, str]) -> Settings:
    """Return the present settings with some changes."""
    flags = [item.name for item in fields(Settings) if item.type is bool]
    values: dict[str, Any] = dict(changes)
    for name in flags:
        if values.get(name, "").lower() in ("off", "none"):
            values[name] = False
    try:
        return Settings.from_env(**values)
    except SettingsError as wrong:
        raise _noted(wrong, values) from None


def _noted(wrong: SettingsError, given: Mapping[str, object]) -> SettingsError:
    """Return what is wrong with a setting, with where it is if it was given here."""
    if wrong.setting.partition(".")[0] in given:
        wrong.add_note("as --set or --against has it")
    return wrong


def _variants(
    terminal: Terminal, incident: Incident, given: Mapping[str, str], against: Sequence[str]
) -> list[Variant]:
    """Return the present settings and those that they are compared with."""
    first = incident.providers[0].name
    alone = {"failover": first, "default_provider": first}
    others: list[tuple[str, Mapping[str, str]]] = [(each, _pairs(each)) for each in against]
    if not against:
        once = {**alone, "max_attempts": "1", "hedging": "false"}
        others = [
            ("patience=3", {"patience": "3"}),
            ("hedging=false", {"hedging": "false"}),
            ("max_attempts=1", {"max_attempts": "1"}),
        ]
        if len(incident.providers) > 1:
            others.append((f"{first} alone", alone))
        others.append((f"{first} alone, once", once))
    names = [one.name for one in incident.providers]
    found = [Variant(name=AS_IT_IS, changes={}, settings=_fitting(terminal, given, names))]
    for name, changes in others:
        try:
            settings = _fitting(None, {**given, **changes}, names)
        except SettingsError:
            if against:
                raise
            continue  # patience=3 goes with no shorter deadline
        if against or all(settings != each.settings for each in found):
            found.append(Variant(name=name, changes=changes, settings=settings))
    return found


def _fitting(
    terminal: Terminal | None, changes: Mapping[str, str], known: Sequence[str]
) -> Settings:
    """Return settings that ask nobody who is not in the incident, unless that was asked for."""
    settings = _settings(changes)
    failover, first = settings.failover, settings.default_provider
    if failover is not None and "failover" not in changes:
        failover = tuple(name for name in failover if _is_among(name, known)) or None
    if first is not None and "default_provider" not in changes and not _is_among(first, known):
        first = None
    fitting = replace(settings, failover=failover, default_provider=first)
    if fitting != settings and terminal is not None:
        terminal.note("failover, default_provider: who is not in the incident is left out")
    return fitting


def _is_among(name: str, known: Sequence[str]) -> bool:
    return name.strip().lower() in known


# Showing it --------------------------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log of a simulated bus from what would look like a real one's."""
    log = logging.getLogger("zejzl")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


@contextmanager
def _progress(terminal: Terminal, what: str) -> Iterator[Callable[[float], None]]:
    """Show how far something is, where a person sees it."""
    if not terminal.err.is_terminal:
        yield lambda share: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn()
    with Progress(*columns, console=terminal.err, transient=True) as progress:
        task = progress.add_task(safe(what), total=1.0)
        yield lambda share: progress.update(task, completed=share)


def _told(
    incident: Incident, seed: int, variants: Sequence[Variant], found: Sequence[Simulation]
) -> dict[str, object]:
    return {
        "incident": {
            "name": incident.name,
            "duration": incident.duration,
            "began": incident.began,
            "providers": [one.name for one in incident.providers],
        },
        "seed": seed,
        "variants": [
            {"name": variant.name, "changes": variant.changes, **one.to_json()}
            for variant, one in zip(variants, found, strict=True)
        ],
    }


def _show(
    terminal: Terminal, incident: Incident, found: Sequence[tuple[Variant, Simulation]]
) -> None:
    asked = found[0][1].requests
    names = ", ".join(one.name for one in incident.providers)
    when = f"from {moment(incident.began)}, " if incident.began is not None else ""
    lasts = timedelta(seconds=round(incident.duration))
    name = f"{incident.name}: " if incident.name else ""
    terminal.say(f"{name}{when}{lasts} long, {counted(asked, 'request')} to {names}\n")
    heads = ["answers", "failed", "p50", "p95", "p99", "calls", "healed", "tokens", "USD"]
    terminal.table(  # narrow: it should have room in 80 columns
        ["settings", *heads],
        [[variant.name.replace(",", ", "), *_cells(one)] for variant, one in found],
        right=heads,
    )
    terminal.say("p50, p95, p99: seconds to an answer; calls: of providers, for each request")
    wide = max(len(variant.name) for variant, _ in found)
    per = -(-len(found[0][1].timeline) // BAR)  # minutes of a letter
    each = "each minute" if per == 1 else f"{per} minutes"
    terminal.say(f"\nfailed, of the requests of {each} (none · all █)")
    for variant, one in found:
        terminal.say(f"  {variant.name:<{wide}}  {bar(one.timeline, per)}")
    terminal.say("")
    for variant, one in found:
        failed = ", ".join(f"{count:,} {error}" for error, count in one.failed.items())
        wrong = f"; {one.wrong:,} answers were wrong" if one.wrong else ""
        helped, tried = (sum(each) for each in zip((0, 0), *one.remedies.values(), strict=True))
        healed = f"; {helped:,} of {tried:,} remedies helped" if tried else ""
        terminal.say(f"{variant.name}: {failed or 'nothing failed'}{wrong}{healed}")
        if terminal.verbose:
            _show_calls(terminal, one)


def _cells(one: Simulation) -> list[object]:
    failed = sum(one.failed.values())
    helped = sum(helped for helped, _ in one.remedies.values())
    return [
        f"{one.answered / one.requests:.2%}",
        f"{failed:,}",
        *(number(each, ".2f") for each in (one.p50, one.p95, one.p99)),
        f"{one.calls_per_request:.2f}",
        f"{helped:,}",
        f"{(one.prompt_tokens + one.completion_tokens) / 1000.0:,.0f}k",
        number(one.cost_usd, ",.2f"),
    ]


def bar(timeline: Sequence[Minute], per: int) -> str:
    """Return a letter for every `per` minutes: how many of their requests failed."""
    letters = []
    for at in range(0, len(timeline), per):
        minutes = timeline[at : at + per]
        asked, failed = sum(m.requests for m in minutes), sum(m.failed for m in minutes)
        share = failed / asked if asked else 0.0
        level = min(len(LEVELS) - 1, int(share * len(LEVELS)))
        letters.append(" " if not asked else LEVELS[level] if failed else "·")
    return "".join(letters)


def _show_calls(terminal: Terminal, one: Simulation) -> None:
    """Print how the calls ended, and what was done about failures."""
    for provider, ends in one.attempts.items():
        said = ", ".join(f"{count:,} {outcome}" for outcome, count in ends.items())
        terminal.say(f"    calls of {provider}: {said}")
    for heal in one.heals:
        terminal.say(
            f"    {heal.provider} {heal.failure_class}: {heal.remedy} helped {heal.helped:,} of "
            f"{heal.tried:,} times"
        )
