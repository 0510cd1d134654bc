"""What the database and a bus tell about themselves: found here, shown as a table or as JSON.

`status`, `history` and the recovery log open the database alone: a bus that is opened only to be
looked at would be one more bus to look at.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ai_framework import AsyncMessageBus
from zejzl.cli.terminal import Terminal, age, facts, in_brief, moment
from zejzl.clock import Clock, SystemClock
from zejzl.errors import EmptyAnswer, StoreError, ZejzlError
from zejzl.events import RecoveryRecorded
from zejzl.messages import Message
from zejzl.providers.vendors import VENDORS
from zejzl.settings import VENDOR_KEYS, Secret, Settings, VendorSettings
from zejzl.stores import InMemoryStore, SqliteStore

RECENT = 1_000  # newest messages and recoveries that the counts are about
PROBE_TOKENS = 16
PROBE_DEADLINE = 10.0
SHOWN_AT_LEAST = 12  # characters of a key before its last four are shown


@asynccontextmanager
async def kept(settings: Settings) -> AsyncIterator[SqliteStore | None]:
    """Open the database by itself; None where there is none yet, and none is made."""
    path = settings.home / "zejzl.db"
    if not path.exists():
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


# Providers -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderReport:
    """A provider that is registered, or a vendor that could be.

    Attributes:
        default: Whether it is asked first where none is named.
        breaker: Its circuit breaker's state in the newest bus that runs; None: none runs.
        key: Its key, masked; "" where it has none.
        key_names: The settings that would hold it.
    """

    name: str
    registered: bool
    default: bool
    model: str
    breaker: str | None
    key: str
    key_names: tuple[str, ...]
    base_url: str


def masked(key: Secret) -> str:
    """Return the end of a key, so that its owner can tell it from others; nobody else can."""
    text = key.get_secret_value()
    if len(text) < SHOWN_AT_LEAST:
        return "****" if text else ""
    return f"{'sk-' if text.startswith('sk-') else ''}…{text[-4:]}"


async def providers(settings: Settings) -> list[ProviderReport]:
    """Return the registered providers in the order in which they are asked, then the others."""
    running: dict[str, Any] = {}
    async with kept(settings) as store:
        if store is not None:
            default = settings.default_provider or await store.setting("default_provider")
            settings = replace(settings, default_provider=default)
            running = next((bus.body for bus in await buses(store) if bus.running), {})
    # A bus of one moment: who is registered, and in which order, is for it to say.
    async with AsyncMessageBus(settings, store=InMemoryStore()) as bus:
        registered = bus.providers
    breakers = running.get("magic", {}).get("circuit_breakers", {})
    first = next(iter(registered))
    return [
        ProviderReport(
            name=name,
            registered=name in registered,
            default=name == first,
            model=registered.get(name) or of.model or (VENDORS[name].model if vendor else ""),
            breaker=breakers.get(f"ai_provider:{name}", {}).get("state") if running else None,
            key=masked(of.api_key),
            key_names=VENDOR_KEYS.get(name, ()),
            base_url=of.base_url or (VENDORS[name].base_url if vendor else ""),
        )
        for name in dict.fromkeys([*registered, *VENDOR_KEYS])
        for of in [settings.vendors.get(name, VendorSettings())]
        for vendor in [name in VENDORS]
    ]


def show_providers(terminal: Terminal, found: Sequence[ProviderReport]) -> None:
    """Print who can be asked, and what is missing for the others."""
    columns = ["", "provider", "model", "breaker", "key", "address"]
    rows = [
        (
            "*" if one.default else "",
            one.name,
            one.model,
            one.breaker or ("–" if one.registered else "no key"),
            one.key or ("none" if one.registered else f"set {' or '.join(_needs(one))}"),
            one.base_url,
        )
        for one in found
    ]
    terminal.table(columns, rows)
    terminal.say("* is asked first. Keys go into .env or the environment.", "dim")


def _needs(one: ProviderReport) -> tuple[str, ...]:
    return ("LOCAL_BASE_URL",) if one.name == "local" else one.key_names


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
        messages: How the newest messages (at most 1,000) ended: answered, failed, under way.
        recoveries: Of the newest (at most 1,000), how many helped and how many there were.
    """

    running: bool
    path: Path
    bytes: int
    buses: list[BusReport]
    messages: dict[str, int]
    failures: list[Message]
    recoveries: dict[str, int]


async def buses(store: SqliteStore, clock: Clock | None = None) -> list[BusReport]:
    """Return the snapshots that can be read, newest first."""
    wall = (clock or SystemClock()).wall()
    found = []
    for owner, at, held, text in await store.snapshots():
        body = json.loads(text)
        if isinstance(body, dict) and body.get("v") == 1:
            running = held and body.get("state") == "running"
            old = max(0.0, wall - at.timestamp())
            found.append(BusReport(owner=owner, at=at, age_s=old, running=running, body=body))
    return found


async def status(settings: Settings) -> StatusReport:
    """Return the state of things, as the database has it."""
    path = settings.home / "zejzl.db"
    async with kept(settings) as store:
        if store is None:
            return StatusReport(
                running=False,
                path=path,
                bytes=0,
                buses=[],
                messages={},
                failures=[],
                recoveries={},
            )
        seen = await buses(store)
        messages = await store.messages(limit=RECENT)
        log = await recoveries(store)
        size = sum(
            file.stat().st_size for file in path.parent.glob(f"{path.name}*") if file.is_file()
        )
    failures = [message for message in messages if message.error is not None]
    return StatusReport(
        running=any(bus.running for bus in seen),
        path=path,
        bytes=size,
        buses=[bus for bus in seen if bus.running] or seen[:1],
        messages=dict(Counter(map(_ending, messages))),
        failures=failures[:-4:-1],
        recoveries={"all": len(log), "helped": sum(one.success for one in log)},
    )


def _ending(message: Message) -> str:
    if message.response is not None:
        return "answered"
    return "failed" if message.error is not None else "under way"


def show_status(terminal: Terminal, found: StatusReport) -> None:
    """Print the state of things."""
    if not found.buses:
        terminal.say("no bus has run yet: `zejzl ask hello` starts one, `zejzl demo` shows one")
    for bus in found.buses:
        _show_bus(terminal, bus)
    said: dict[str, object] = {"database": f"{found.path} ({found.bytes / 1024:,.0f} KiB)"}
    if found.messages:
        ends = ", ".join(f"{count} {end}" for end, count in sorted(found.messages.items()))
        said[f"newest {sum(found.messages.values()):,} messages"] = ends
    if found.recoveries.get("all"):
        said[f"newest {found.recoveries['all']:,} remedies"] = (
            f"{found.recoveries['helped']} helped; `zejzl heal` lists them"
        )
    terminal.say("\n".join(facts(said)))
    for message in found.failures:
        terminal.say(
            f"failed at {moment(message.timestamp)}: {in_brief(message.content)}"
            f"\n  {in_brief(message.error or '', 160)}"
        )


def _show_bus(terminal: Terminal, bus: BusReport) -> None:
    seen = f"{age(bus.age_s)} ago"
    body, magic = bus.body, bus.body.get("magic", {})
    if bus.running:
        terminal.say(f"a bus is running (state of {seen})", "green")
    elif body.get("state") == "running":
        terminal.say(f"no bus is running: the last one died; last seen {seen}", "red")
    else:
        terminal.say(f"no bus is running, last seen {seen}")
    terminal.say(
        "\n".join(
            facts(
                {
                    "requests": f"{body.get('requests')}, {body.get('under_way', 0)} under way",
                    "providers": ", ".join(body.get("providers", ())),
                    "retry budget": f"{magic.get('energy_level', 0):.0f} of "
                    f"{magic.get('max_energy', 0):.0f} (energy)",
                }
            )
        )
    )
    breakers = magic.get("circuit_breakers", {})
    busy = {
        name: of
        for name, of in breakers.items()
        if ":" in name or of.get("failure_count") or of.get("state") != "closed"
    }
    if busy:
        terminal.table(
            ["circuit breaker", "state", "failures in a row", "good calls", "last failure"],
            [
                (
                    name,
                    of.get("state"),
                    of.get("failure_count"),
                    of.get("success_count"),
                    in_brief(of.get("last_error", "")),
                )
                for name, of in busy.items()
            ],
            right=["failures in a row", "good calls"],
        )


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
                one.target,
                one.failure_class,
                one.remedy,
                "yes" if one.success else "no",
                in_brief(one.outcome),
                f"{one.energy_used:g}",
            )
            for one in found[:limit]
        ],
        right=["energy"],
    )
    helped = sum(one.success for one in found)
    terminal.say(f"{helped} of {len(found)} remedies helped ({helped / len(found):.0%})")


# Health --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One thing that was looked at.

    Attributes:
        problem: What is wrong; "" when nothing is.
        seconds: How long it took.
    """

    name: str
    healthy: bool
    problem: str = ""
    seconds: float | None = None


async def health(settings: Settings, *, asks: bool) -> list[Checked]:
    """Check the database and, if `asks`, let every registered provider answer one tiny request."""
    try:
        async with AsyncMessageBus(settings) as bus:
            problems = await bus.store.check()
            store = Checked(name="database", healthy=not problems, problem="; ".join(problems))
            return [store, *(await probed(bus) if asks else [])]
    except StoreError as problem:
        return [Checked(name="database", healthy=False, problem=str(problem))]


async def probed(bus: AsyncMessageBus) -> list[Checked]:
    """Ask every registered provider one tiny request, all at once."""
    return list(await asyncio.gather(*(_probe(bus, name) for name in bus.providers)))


async def _probe(bus: AsyncMessageBus, name: str) -> Checked:
    try:
        reply = await bus.send(
            "Answer with one word: ready?",
            name,
            max_tokens=PROBE_TOKENS,
            deadline=PROBE_DEADLINE,
            failover=False,
            sender="health",
        )
    except EmptyAnswer:  # a model that thinks first may spend so few tokens on that alone
        return Checked(name=name, healthy=True, problem="answered without a word")
    except ZejzlError as problem:
        return Checked(name=name, healthy=False, problem=str(problem))
    return Checked(name=name, healthy=True, seconds=reply.latency_s)


def show_health(terminal: Terminal, found: Sequence[Checked]) -> None:
    """Print what was checked."""
    terminal.table(
        ["checked", "", "seconds", "what is wrong"],
        [
            (
                one.name,
                "ok" if one.healthy else "failed",
                "" if one.seconds is None else f"{one.seconds:.2f}",
                one.problem,
            )
            for one in found
        ],
        right=["seconds"],
    )
