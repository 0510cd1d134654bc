"""What the database tells: which buses run, how requests ended, the recovery log.

The database is opened alone: a bus that is opened only to be looked at would be one more bus to
look at.
"""

import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from zejzl.cli.terminal import Terminal, age, amount, facts, in_brief, moment, number, usd, word
from zejzl.clock import Clock, SystemClock
from zejzl.engine.parking import STATES
from zejzl.errors import StoreError
from zejzl.events import UNTRIED, RecoveryRecorded, utc
from zejzl.messages import Message
from zejzl.ports import Kept, Spending
from zejzl.settings import Settings
from zejzl.stores import SqliteStore

log = logging.getLogger(__name__)

PROVIDER = "ai_provider:"  # begins the name of a provider's circuit breaker
UNDER_WAY = "under way"
INTERRUPTED = "interrupted"  # it was under way when its process died; a bus takes it up again
RECENT = 1_000  # newest messages and recoveries that the counts are about
LAST = 5  # newest recoveries that are shown
SHORT = 8  # letters of a bus's id that tell it from others


@asynccontextmanager
async def kept(settings: Settings) -> AsyncIterator[SqliteStore | None]:
    """Open the database by itself; None where there is none yet, and none is made."""
    path = settings.home / "zejzl.db"
    try:
        there = path.exists()
    except OSError as problem:
        raise StoreError(f"the database {path} cannot be opened: {problem.strerror}") from problem
    if not there:
        yield None
        return
    async with opened(settings) as store:
        yield store


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[SqliteStore]:
    """Open the database by itself, making it where there is none."""
    store = SqliteStore(settings.home / "zejzl.db", durability=settings.durability)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


# Status --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BusReport:
    """A bus as its last snapshot shows it.

    Attributes:
        at: When that was.
        age_s: Seconds since then.
        running: Whether it still runs.
        body: The snapshot.
    """

    owner: str
    at: datetime
    age_s: float
    running: bool
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """What the database tells.

    Attributes:
        running: Whether a bus runs.
        bytes: Size of the database's files.
        buses: Those that run; without any, the one that was seen last.
        messages: How the newest messages (at most 1,000) ended: answered, failed, under way, or
            parked.
        parked: Parked work (of the oldest 1,000) by state: waiting, interrupted, under way, or
            given up.
        spent_today_usd: What this day of UTC has cost, as far as prices are known.
        spend_limit_day_usd: The setting `spend_limit_day`.
        recoveries: Of the newest (at most 1,000) that were tried, how many helped, and all.
        last_recoveries: The newest of them, newest first.
    """

    path: Path
    running: bool = False
    bytes: int = 0
    buses: Sequence[BusReport] = ()
    messages: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[Message] = ()
    parked: Mapping[str, int] = field(default_factory=dict)
    spent_today_usd: float = 0.0
    spend_limit_day_usd: float | None = None
    recoveries: Mapping[str, int] = field(default_factory=lambda: {"all": 0, "helped": 0})
    last_recoveries: Sequence[RecoveryRecorded] = ()


async def buses(store: SqliteStore, clock: Clock | None = None) -> list[BusReport]:
    """Return the snapshots that can be read, newest first; the others are told."""
    wall = (clock or SystemClock()).wall()
    found = []
    for owner, at, held, text in await store.snapshots():
        try:
            body = _read(text)
        except (ValueError, TypeError, AttributeError, RecursionError) as wrong:
            log.warning("the state of the bus %s is damaged and left out: %s", owner[:SHORT], wrong)
            continue
        running = held and body.get("state") == "running"
        old = max(0.0, wall - at.timestamp())
        found.append(BusReport(owner=owner, at=at, age_s=old, running=running, body=body))
    return found


def _read(text: str) -> dict[str, Any]:
    """Return a snapshot of the shape that the commands rely on; single values may be anything.

    Raises:
        ValueError, TypeError, AttributeError, RecursionError: If it is none.
    """
    body: dict[str, Any] = json.loads(text, parse_constant=lambda name: None)
    if body.get("v") != 1:
        raise ValueError(f"it is of version {body.get('v')!r}, and 1 is read")
    magic = body.setdefault("magic", {})
    ", ".join(body.setdefault("providers", {}))
    for name in ("circuit_breakers", "limits"):
        for of in magic.setdefault(name, {}).values():
            of.items()
    for row in [*magic.setdefault("preferences", []), *body.setdefault("rate_limits", [])]:
        row.items()
    magic.setdefault("rituals", {}).items()
    return body


async def status(settings: Settings) -> StatusReport:
    """Return the state of things, as the database has it."""
    path = settings.home / "zejzl.db"
    async with kept(settings) as store:
        if store is None:
            return StatusReport(path=path, spend_limit_day_usd=settings.spend_limit_day)
        seen = await buses(store)
        messages = await store.messages(limit=RECENT)
        newest = await recoveries(store)
        states = {one.message.id: state_of(one) for one in await store.parked()}
        today = utc(SystemClock().wall()).date().isoformat()
        spent = spent_on(await store.spending(since=today), today)
        size = sum(
            file.stat().st_size for file in path.parent.glob(f"{path.name}*") if file.is_file()
        )
    helped, tried = counts(newest)
    ends = [_ending(message, states.get(message.id)) for message in messages]
    failures = [message for message, end in zip(messages, ends, strict=True) if end == "failed"]
    return StatusReport(
        running=any(bus.running for bus in seen),
        path=path,
        bytes=size,
        buses=[bus for bus in seen if bus.running] or seen[:1],
        messages=dict(Counter(ends)),
        failures=failures[:-4:-1],
        parked=dict(Counter(states.values())),
        spent_today_usd=spent,
        spend_limit_day_usd=settings.spend_limit_day,
        recoveries={"all": tried, "helped": helped},
        last_recoveries=newest[:LAST],
    )


def breaker_state(status: Mapping[str, object]) -> str:
    """Return a breaker's state in one word, a pause that its provider asked for being one too."""
    state = str(status.get("state"))
    return "paused" if state == "closed" and status.get("paused") else state


def state_of(kept: Kept) -> str:
    """Return what is told of parked work."""
    return INTERRUPTED if kept.abandoned else STATES[kept.state]


def spent_on(spent: Iterable[Spending], day: str) -> float:
    """Return the USD that a day has cost."""
    return sum((one.cost_usd for one in spent if one.day == day), 0.0)


def _ending(message: Message, parked: str | None) -> str:
    """Return how a message ended, in a word.

    Args:
        parked: Its state where it is parked work.
    """
    if message.response is not None:
        return "answered"
    if parked in ("waiting", INTERRUPTED):
        return "parked"
    return "failed" if message.error is not None else UNDER_WAY


def show_status(terminal: Terminal, found: StatusReport) -> None:
    """Print the state of things."""
    if not found.buses:
        terminal.say(
            f"no bus has run yet: `{word()} ask hello` starts one, `{word()} demo` shows one"
        )
    for bus in found.buses:
        _show_bus(terminal, bus)
    said: dict[str, object] = {"database": f"{found.path} ({found.bytes / 1024:,.0f} KiB)"}
    if found.messages:
        ends = ", ".join(f"{count} {end}" for end, count in sorted(found.messages.items()))
        said[_newest(sum(found.messages.values()), "message")] = ends
    if found.recoveries["all"]:
        said[_newest(found.recoveries["all"], "remed", "y", "ies")] = (
            f"{found.recoveries['helped']} helped; `{word()} heal` lists them"
        )
    if found.parked:
        states = ", ".join(f"{count:,} {state}" for state, count in sorted(found.parked.items()))
        said["parked work"] = f"{states}; `{word()} parked` lists it"
    if found.spent_today_usd:
        limit = found.spend_limit_day_usd
        of = f" of ${limit:g}" if limit is not None else ""
        said["spent today (UTC)"] = f"${usd(found.spent_today_usd)}{of}; `{word()} costs` has more"
    terminal.say("\n".join(facts(said)))
    if not found.running and found.messages.get(UNDER_WAY):
        terminal.say(f"`{word()} recover --dry-run` shows what a dead process left under way")
    for message in found.failures:
        terminal.say(
            f"failed at {moment(message.timestamp)}: {in_brief(message.content)}"
            f"\n  {in_brief(message.error or '', 160)}"
        )


def _newest(number: int, noun: str, one: str = "", more: str = "s") -> str:
    return f"newest {noun}{one}" if number == 1 else f"newest {number:,} {noun}{more}"


def _show_bus(terminal: Terminal, bus: BusReport) -> None:
    seen = f"{age(bus.age_s)} ago"
    if bus.running:
        terminal.say(f"a bus is running (state of {seen})", "green")
    elif bus.body.get("state") == "running":
        terminal.say(f"no bus is running: the last one died; last seen {seen}", "red")
    else:
        terminal.say(f"no bus is running, last seen {seen}")
    terminal.say("\n".join(facts(_known(bus))))
    _show_breakers(terminal, bus)
    limits = bus.body["magic"]["limits"]
    if limits and bus.running:
        terminal.table(
            ["provider", "in flight", "limit", "queued", "strained"],
            [
                (
                    name,
                    number(of.get("in_flight"), "g"),
                    number(of.get("limit"), ".0f"),
                    number(of.get("queued"), "g"),
                    "yes" if of.get("strained") else "",
                )
                for name, of in limits.items()
            ],
            right=["in flight", "limit", "queued"],
        )


def _known(bus: BusReport) -> dict[str, object]:
    body, magic = bus.body, bus.body["magic"]
    known: dict[str, object] = {
        "bus": bus.owner[:SHORT],
        "requests": f"{body.get('requests')}, {body.get('under_way', 0)} under way",
        "providers": ", ".join(body["providers"]),
        "retry budget": f"{number(magic.get('energy_level'), '.0f')} of "
        f"{number(magic.get('max_energy'), '.0f')} (energy)",
    }
    if "acorn_reserve" in magic:
        known["burst credits"] = f"{number(magic['acorn_reserve'], 'g')} (acorns)"
    if "is_shielded" in magic:
        known["admission"] = admission(magic["is_shielded"])
    nobodys = [str(of.get("name")) for of in body["rate_limits"] if not _holds(of, body)]
    if nobodys:
        known["rate limits of nobody"] = f"{', '.join(dict.fromkeys(nobodys))}: check their names"
    hardened = amount(magic.get("hardened_for")) - bus.age_s
    if bus.running and hardened > 0.0:
        known["hardened"] = f"for {age(hardened)}"
    return known


def _holds(limit: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Say whether a rate limit is a registered provider's; one that was told is somebody's."""
    return bool(limit.get("told")) or str(limit.get("name")).partition("/")[0] in body["providers"]


def admission(raised: object) -> str:
    """Return in words who is admitted."""
    if raised:
        return "critical requests alone (fairy shield is up)"
    return "every request (fairy shield is down)"


def _show_breakers(terminal: Terminal, bus: BusReport) -> None:
    busy = {
        name: of
        for name, of in bus.body["magic"]["circuit_breakers"].items()
        if "worst" not in of  # a component that is as badly off as one of those listed
        and (":" in name or of.get("failure_count") or of.get("state") != "closed")
    }
    if not busy:
        return
    if not bus.running:
        terminal.say("its circuit breakers, as that bus last had them (it has ended):")
    terminal.table(
        ["circuit breaker", "state", "next try", "failures in a row", "good calls", "last failure"],
        [
            (
                name.removeprefix(PROVIDER),
                breaker_state(of),
                next_try(of, bus),
                of.get("failure_count"),
                of.get("success_count"),
                in_brief(str(of.get("last_error") or "")),
            )
            for name, of in busy.items()
        ],
        right=["failures in a row", "good calls"],
    )


def next_try(breaker: Mapping[str, Any], bus: BusReport) -> str:
    """Return when a running bus tries again what a breaker refuses; "" where it flows."""
    wait = amount(breaker.get("retry_after"))
    if not bus.running or breaker_state(breaker) in ("closed", "half_open"):
        return ""
    return f"in {age(wait - bus.age_s)}" if wait - bus.age_s >= 0.5 else "now"


# Recovery log --------------------------------------------------------------------------------


async def recoveries(
    store: SqliteStore | None, component: str | None = None
) -> list[RecoveryRecorded]:
    """Return the recovery log's newest rows, newest first; those of one component or provider."""
    if store is None:
        return []
    rows = await store.events(type="recovery_recorded", limit=RECENT)
    return [
        row
        for row in reversed(rows)
        if isinstance(row, RecoveryRecorded)
        and (component is None or component in (row.target, *row.target.split(":")))
    ]


def counts(found: Sequence[RecoveryRecorded]) -> tuple[int, int]:
    """Return how many remedies helped, and how many were tried."""
    tried = [one for one in found if one.remedy != UNTRIED]
    return sum(one.success for one in tried), len(tried)


def show_recoveries(terminal: Terminal, found: Sequence[RecoveryRecorded], *, limit: int) -> None:
    """Print the recovery log's newest rows and how many helped."""
    if not found:
        terminal.say("the recovery log is empty: nothing has failed that could be healed")
        return
    terminal.table(
        ["when", "what failed", "how", "remedy", "helped", "outcome", "energy"],
        [
            (
                moment(one.timestamp),
                one.target.removeprefix(PROVIDER),
                one.failure_class,
                one.remedy,
                "–" if one.remedy == UNTRIED else "yes" if one.success else "no",
                in_brief(one.outcome),
                f"{one.energy_used:g}",
            )
            for one in found[:limit]
        ],
        right=["energy"],
    )
    helped, tried = counts(found)
    share = f" ({helped / tried:.0%})" if tried else ""
    terminal.say(f"{helped} of {tried} remedies helped{share}")
