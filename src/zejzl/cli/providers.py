"""Who can be asked, which keys are missing, and whether everybody answers."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ai_framework import OFFLINE, AsyncMessageBus
from zejzl.cli.reports import breaker_state, buses, kept, opened
from zejzl.cli.terminal import Terminal, word
from zejzl.errors import EmptyAnswer, StoreError, ZejzlError
from zejzl.providers.vendors import VENDORS, configured
from zejzl.settings import VENDOR_KEYS, Secret, Settings, VendorSettings
from zejzl.stores import InMemoryStore

PROBE_TOKENS = 16
PROBE_DEADLINE = 10.0  # seconds
SHOWN_AT_LEAST = 12  # characters of a key before its last four are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderReport:
    """A provider that is registered, or a vendor that could be.

    Attributes:
        default: Whether it is asked first where none is named.
        breaker: Its circuit breaker's state in the newest bus that runs; None: no bus uses it.
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


def _shown(url: str) -> str:
    """Return an address without the name and password that may be in it."""
    return re.sub("//.*@", "//****@", url)


async def providers(settings: Settings) -> list[ProviderReport]:
    """Return the registered providers in the order in which they are asked, then the others."""
    breakers: dict[str, Any] = {}
    async with kept(settings) as store:
        if store is not None:
            default = settings.default_provider or await store.setting("default_provider") or ""
            settings = replace(settings, default_provider=default.strip() or None)
            running = [bus.body for bus in await buses(store) if bus.running]
            breakers = running[0]["magic"]["circuit_breakers"] if running else {}
    # A bus of one moment: who is registered, and in which order, is for it to say.
    async with AsyncMessageBus(settings, store=InMemoryStore()) as bus:
        models = bus.providers
    first = next(iter(models))
    found = []
    for name in dict.fromkeys([*models, *VENDORS]):
        of, vendor = settings.vendors.get(name, VendorSettings()), VENDORS.get(name)
        breaker = breakers.get(f"ai_provider:{name}")
        found.append(
            ProviderReport(
                name=name,
                registered=name in models,
                default=name == first,
                model=models.get(name) or of.model or (vendor.model if vendor else ""),
                breaker=breaker and breaker_state(breaker),
                key=masked(of.api_key),
                key_names=VENDOR_KEYS.get(name, ()),
                base_url=_shown(of.base_url or (vendor.base_url if vendor else "")),
            )
        )
    return found


def show_providers(terminal: Terminal, found: Sequence[ProviderReport]) -> None:
    """Print who can be asked, and what is missing for the others."""
    columns = ["", "provider", "model", "breaker", "key", "address"]
    rows = [
        (
            "*" if one.default else "",
            one.name,
            one.model,
            one.breaker or ("–" if one.registered else "no key"),
            one.key or ("none" if one.registered else f"set {' or '.join(needs(one.name))}"),
            one.base_url,
        )
        for one in found
    ]
    terminal.table(columns, rows)
    terminal.say("* is asked first. Keys go into .env or the environment.", "dim")


def needs(name: str) -> tuple[str, ...]:
    """Return the settings of which one makes a vendor usable."""
    return ("LOCAL_BASE_URL",) if name == "local" else VENDOR_KEYS.get(name, ())


def missing(settings: Settings, name: str) -> tuple[str, ...]:
    """Return the settings of which one must be set before a vendor can be asked."""
    return () if name in configured(settings) else needs(name)


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
    """Check the database and, if `asks`, let every registered provider answer one tiny request.

    The database learns nothing of these requests.
    """
    found = [await _database(settings)]
    if asks:
        async with AsyncMessageBus(settings, store=InMemoryStore()) as bus:
            found += await asyncio.gather(*(_probe(bus, name) for name in bus.providers))
    return found


async def _database(settings: Settings) -> Checked:
    try:
        async with opened(settings) as store:
            problems = await store.check()
    except StoreError as problem:
        problems = [str(problem)]
    return Checked(name="database", healthy=not problems, problem="; ".join(problems))


async def _probe(bus: AsyncMessageBus, name: str) -> Checked:
    try:
        reply = await bus.send(
            "Answer with one word: ready?",
            name,
            max_tokens=PROBE_TOKENS,
            deadline=PROBE_DEADLINE,
            failover=False,
            criticality="sheddable",  # one call, not grown and not waited for
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
    if any(one.name == OFFLINE for one in found):
        terminal.say(
            "No provider's key is set: only the offline stand-in answers, which is no model. "
            f"`{word()} providers` lists the keys."
        )
