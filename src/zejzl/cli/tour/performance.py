"""The tour, 2: what the bus does on this machine, measured while one looks.

Two buses send the same to a real server on loopback, at the same time or in turns, so that what
else the machine does hits both. One heals: it has two providers. The other one has one of them and
tries once (`max_attempts=1`, no hedging).
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from ai_framework import AsyncMessageBus
from zejzl.cli.terminal import Terminal
from zejzl.clock import Clock, SystemClock
from zejzl.errors import ZejzlError
from zejzl.providers import OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore
from zejzl.testing import FaultServer, faults
from zejzl.testing.behaviours import Behaviour, Call, Rule

HEALS, TRIES_ONCE = "healing on", "healing off"
ANSWER = 0.010, 0.015  # seconds that an answer takes: a model's takes a hundred times as long
ALONE, ROUNDS, TOGETHER = 60, 6, 50  # of each bus: requests, and rounds of so many at once
FAILING = 10  # one call in so many fails, in the last part
FAULTY, FEW = 120, 5  # requests of that part, and how many of them at once
PART = 1.0  # seconds after which a part is brief, where the machine is slow
CERTAIN = 0.1  # share by which a speed must be less before a look so short can tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What one bus came to.

    Attributes:
        p50_ms: Half of the requests, sent one after the other, took no longer.
        p95_ms: And 95 of 100.
        per_second: Requests a second, fifty at once, in the best round.
        answered: Share of requests that was answered while every tenth call failed.
    """

    p50_ms: float
    p95_ms: float
    per_second: float
    answered: float


async def look(clock: Clock | None = None) -> dict[str, Speed]:
    """Measure; takes about two seconds, and a few on a slow machine."""
    clock = clock or SystemClock()
    waits: dict[str, list[float]] = {HEALS: [], TRIES_ONCE: []}
    rates: dict[str, list[float]] = {HEALS: [], TRIES_ONCE: []}
    answered: dict[str, float] = {}
    async with _buses() as (server, buses):
        server.play("alpha", _answers())
        server.play("beta", _answers())

        async def alone(name: str, bus: AsyncMessageBus) -> None:
            for _ in _rounds(clock, most=ALONE, least=20):
                began = clock.now()
                await bus.send("hello")
                waits[name].append(clock.now() - began)

        await asyncio.gather(*(alone(name, bus) for name, bus in buses.items()))
        for _ in _rounds(clock, most=ROUNDS, least=1):
            for name, bus in buses.items():
                began = clock.now()
                await asyncio.gather(*(bus.send("hello") for _ in range(TOGETHER)))
                rates[name].append(TOGETHER / (clock.now() - began))
        for name, bus in buses.items():
            server.play("alpha", _now_and_then())
            ended = [
                await asyncio.gather(*(_ends_well(bus) for _ in range(FEW)))
                for _ in _rounds(clock, most=FAULTY // FEW, least=2 * FAILING // FEW)
            ]
            answered[name] = sum(map(sum, ended)) / (FEW * len(ended))
    return {
        name: Speed(
            p50_ms=_quantile(waits[name], 0.5),
            p95_ms=_quantile(waits[name], 0.95),
            per_second=round(max(rates[name])),  # the round that others disturbed least
            answered=answered[name],
        )
        for name in buses
    }


def _rounds(clock: Clock, *, most: int, least: int) -> Iterator[int]:
    """Yield the numbers of `most` rounds, and fewer where these take longer than a part may."""
    end = clock.now() + PART
    for number in range(most):
        if number >= least and clock.now() > end:
            return
        yield number


@asynccontextmanager
async def _buses() -> AsyncIterator[tuple[FaultServer, dict[str, AsyncMessageBus]]]:
    once = Settings(max_attempts=1, hedging=False)
    settings = {HEALS: (Settings(), ("alpha", "beta")), TRIES_ONCE: (once, ("alpha",))}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(FaultServer())
        buses = {}
        for name, (own, providers) in settings.items():
            bus = AsyncMessageBus(own, store=InMemoryStore())
            buses[name] = await stack.enter_async_context(bus)
            for provider in providers:
                adapter = OpenAICompatible(server.base_url(provider), "no-key", "tour")
                await bus.register_provider(provider, adapter)
        yield server, buses


def _answers() -> Behaviour:
    return faults.ok("well", delay=faults.between(*ANSWER))


def _now_and_then() -> Rule:
    """Return a script in which every tenth call is refused as overloaded."""
    calls = 0

    def rule(call: Call) -> Behaviour:
        nonlocal calls
        calls += 1
        return faults.overloaded() if calls % FAILING == 0 else _answers()

    return rule


async def _ends_well(bus: AsyncMessageBus) -> bool:
    try:
        await bus.send("hello")
    except ZejzlError:
        return False
    return True


def _quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile of seconds in milliseconds, by nearest rank."""
    return round(1000.0 * sorted(values)[math.ceil(share * len(values)) - 1], 2)


def show(terminal: Terminal, found: dict[str, Speed]) -> None:
    """Print what was measured."""
    terminal.say(
        "Two buses on this machine, now: real requests to a real server on loopback that takes "
        f"{1000 * ANSWER[0]:.0f} to {1000 * ANSWER[1]:.0f} ms to answer. One bus heals; the other "
        "has one provider and tries once.",
        prose=True,
    )
    for heading, unit, form, values in (
        (
            "requests, fifty at once, best round",
            "a second",
            ",.0f",
            {n: s.per_second for n, s in found.items()},
        ),
        ("half of the answers came within", "ms", ".2f", {n: s.p50_ms for n, s in found.items()}),
        ("95 of 100 came within", "ms", ".2f", {n: s.p95_ms for n, s in found.items()}),
        (
            "while every tenth call fails",
            "answered",
            ".1%",
            {n: s.answered for n, s in found.items()},
        ),
    ):
        most = max(values.values()) or 1.0
        terminal.say(f"\n{heading}", "bold", prose=True)
        terminal.table(
            ["", unit],
            [(name, format(value, form)) for name, value in values.items()],
            right=[unit],
            bars=[value / most for value in values.values()],
        )
    terminal.say(f"\n{verdict(found[HEALS], found[TRIES_ONCE])}", prose=True)


def verdict(on: Speed, off: Speed) -> str:
    """Return what the figures say, and no more."""
    costs = 1.0 - on.per_second / off.per_second
    slower = f"{costs:.0%} less than the other one's"
    told = slower if costs >= CERTAIN else "no less, as far as so short a look can tell"
    return (
        f"While every tenth call failed, the bus that heals answered {on.answered:.1%}, the other "
        f"one {off.answered:.1%}. While none did, its speed was {told}. Other programs at work "
        "change speeds."
    )
