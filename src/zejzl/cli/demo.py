"""`zejzl demo`: the same traffic with healing and without, over real sockets, measured.

Three providers live on this machine. While requests come, alpha's connections are reset, beta
limits its rate, and gamma is slow all along. Every request is sent twice at the same moment:
through a bus, and to alpha alone, once. Each half has a fault server of its own with the same
timetable, so that neither disturbs the other. No number here is anything but measured.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from textwrap import wrap
from typing import TYPE_CHECKING

from ai_framework import AsyncMessageBus
from zejzl.cli.reports import breaker_state
from zejzl.cli.terminal import FAILED, WELL, Terminal, counted, in_columns, word
from zejzl.clock import Clock, SystemClock
from zejzl.errors import ZejzlError
from zejzl.magic import FairyMagic
from zejzl.messages import Reply, Request
from zejzl.providers import Anthropic, OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore
from zejzl.testing import FaultServer, faults
from zejzl.testing.behaviours import Rule

if TYPE_CHECKING:  # rich is heavy: loaded when something is printed
    from rich.console import Group

RATE = 20.0  # requests a second
PROMISED = 0.99  # share of requests that the bus must answer
NAMES = ("alpha", "beta", "gamma")

# What happens when, in shares of the whole time.
CUT = 0.2, 0.6
LIMITED = 0.3, 0.5
RETRY_AFTER = 0.1

ALPHA, BETA, GAMMA = (0.02, 0.05), (0.03, 0.06), (0.25, 0.45)  # seconds an answer takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one half of the demo came to.

    Attributes:
        requests: That were sent.
        wrong: Answers to another question than the one asked.
        healed: Answers that came after a failure.
        p50_ms: Half of the answers came within so many milliseconds; None: there were none.
        p99_ms: And 99 of 100 within so many.
        upstream_calls: Calls that the fault server saw.
    """

    requests: int
    answered: int
    wrong: int
    healed: int
    p50_ms: float | None
    p99_ms: float | None
    upstream_calls: int

    @property
    def share(self) -> float:
        return self.answered / self.requests

    @property
    def calls_per_request(self) -> float:
        return self.upstream_calls / self.requests


@dataclass(slots=True)
class Half:
    """One half of the demo while it runs: `send` asks one question of `server`'s providers."""

    server: FaultServer
    send: Callable[[str], Awaitable[Reply]]
    clock: Clock
    asked: int = 0
    failed: int = 0
    healed: int = 0
    wrong: int = 0
    latencies: list[float] = field(default_factory=list)

    async def ask(self, question: str) -> None:
        """Ask, and keep what came of it."""
        self.asked += 1
        began = self.clock.now()
        try:
            reply = await self.send(question)
        except ZejzlError:
            self.failed += 1
            return
        self.latencies.append(self.clock.now() - began)
        self.healed += reply.healed
        self.wrong += reply.text != _answer(question)

    def measured(self) -> Measured:
        return Measured(
            requests=self.asked,
            answered=len(self.latencies),
            wrong=self.wrong,
            healed=self.healed,
            p50_ms=_quantile(self.latencies, 0.5),
            p99_ms=_quantile(self.latencies, 0.99),
            upstream_calls=len(self.server.log),
        )


class Demo:
    """One run.

    Args:
        seconds: How long requests keep coming.
        seed: Decides when each comes, and how long the providers take.
    """

    def __init__(self, clock: Clock, *, seconds: float, seed: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._seed = seed
        self._began = clock.now()

    @asynccontextmanager
    async def prepared(self) -> AsyncIterator["Demo"]:
        """Start servers, bus and adapters."""
        async with AsyncExitStack() as stack:
            healing = await stack.enter_async_context(FaultServer())
            alone = await stack.enter_async_context(FaultServer())
            self.magic = FairyMagic(clock=self._clock, rng=Random(self._seed))
            self._bus = await stack.enter_async_context(
                AsyncMessageBus(
                    Settings(deadline=self._seconds), store=InMemoryStore(), magic=self.magic
                )
            )
            for name in NAMES:
                await self._bus.register_provider(name, _adapter(healing, name))
            alpha = _adapter(alone, "alpha")
            stack.push_async_callback(alpha.cleanup)

            self.healing = Half(healing, self._bus.send, self._clock)
            self.alone = Half(
                alone, lambda question: alpha.generate(Request(content=question)), self._clock
            )
            self._began = self._clock.now()
            for server in (healing, alone):
                self._play(server)
            yield self

    def _play(self, server: FaultServer) -> None:
        """Give a server's providers the timetable."""
        cut, limited = ([server.now() + at for at in window] for window in _windows(self._seconds))
        pause = faults.rate_limited(RETRY_AFTER * self._seconds)
        alpha, beta, gamma = (_answers(took, self._seed) for took in (ALPHA, BETA, GAMMA))
        server.play("alpha", faults.outage(cut[0], cut[1], faults.reset(), otherwise=alpha))
        server.play("beta", faults.outage(limited[0], limited[1], pause, otherwise=beta))
        server.play("gamma", gamma)

    async def run(self) -> None:
        """Send all requests to both halves, and return when each has its outcome."""
        rng = Random(self._seed)
        times = sorted(rng.uniform(0.0, self._seconds) for _ in range(round(RATE * self._seconds)))
        async with asyncio.TaskGroup() as requests:
            for number, at in enumerate(times, 1):
                await self._clock.sleep(at - self.elapsed)
                for half in (self.healing, self.alone):
                    requests.create_task(half.ask(f"question {number}"))

    # Looking at it ---------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return self._clock.now() - self._began

    def weather(self) -> dict[str, str]:
        """Return what each provider suffers from now."""
        at = self.elapsed / self._seconds
        return {
            "alpha": "cut" if CUT[0] <= at < CUT[1] else "ok",
            "beta": "limited" if LIMITED[0] <= at < LIMITED[1] else "ok",
            "gamma": "slow",
        }

    def breakers(self) -> dict[str, str]:
        """Return the state of each provider's circuit breaker."""
        return {name: breaker_state(self.magic.gate.provider(name).get_status()) for name in NAMES}


def _adapter(server: FaultServer, name: str) -> OpenAICompatible | Anthropic:
    if name == "gamma":
        return Anthropic(server.base_url(name, "anthropic"), "no-key", "demo", name=name)
    return OpenAICompatible(server.base_url(name), "no-key", "demo", name=name)


def _windows(seconds: float) -> tuple[list[float], list[float]]:
    """Return from when to when alpha is cut and beta limited, in seconds."""
    cut, limited = ([round(share * seconds, 3) for share in window] for window in (CUT, LIMITED))
    return cut, limited


def _answer(question: str) -> str:
    return f"this is the answer to {question}"


def _answers(took: tuple[float, float], seed: int) -> Rule:
    """Return a script that answers what it is asked, within `took` seconds."""
    delay = faults.between(*took, seed=seed)

    return lambda call: faults.ok(_answer(call.body["messages"][-1]["content"]), delay=delay)


def _quantile(values: Sequence[float], share: float) -> float | None:
    """Return a quantile of seconds in milliseconds, by nearest rank."""
    if not values:
        return None
    return round(1000.0 * sorted(values)[math.ceil(share * len(values)) - 1], 1)


# Showing it ------------------------------------------------------------------------------------

INTRODUCTION = """\
zejzl demo: {lasts}, {rate:g} requests a second, three providers on this machine.
  alpha  is fast, but its connections are reset from {cut[0]:g} s to {cut[1]:g} s
  beta   is fast, but limits its rate from {limited[0]:g} s to {limited[1]:g} s (429, Retry-After)
  gamma  is slow all along
Every request goes through a bus that heals, and to alpha alone. All of it over real sockets."""
NEXT = """\
next: put a key into .env; `{zejzl} providers` lists all
next: `{zejzl} chat` talks with a model through the same bus"""
PROSE = 80  # columns, at most


async def run(terminal: Terminal, *, seconds: float, seed: int) -> int:
    """Run the demo and show it; return the exit code: 1 if the bus answered less than 99 %."""
    clock = SystemClock()
    cut, limited = _windows(seconds)
    lasts = counted(seconds, "second")
    _tell(terminal, INTRODUCTION.format(lasts=lasts, rate=RATE, cut=cut, limited=limited))
    terminal.say("")
    async with Demo(clock, seconds=seconds, seed=seed).prepared() as demo:
        live = terminal.out.is_interactive and not terminal.as_json
        watch = asyncio.create_task((_watch_live if live else _watch)(terminal, demo, clock))
        try:
            await demo.run()
            if not live:
                terminal.say(_row(demo, "end"))
        finally:
            watch.cancel()
            await asyncio.wait([watch])
        healing, alone = demo.healing.measured(), demo.alone.measured()
        breakers, energy = demo.breakers(), demo.magic.energy_level
    if terminal.as_json:
        terminal.json(
            {
                "seconds": seconds,
                "seed": seed,
                "requests_per_second": RATE,
                "alpha_cut_s": cut,
                "beta_limited_s": limited,
                "with_healing": healing,
                "without_healing": alone,
                "breakers": breakers,
                "energy": round(energy, 1),
            }
        )
    else:
        terminal.say("")
        terminal.table(*_compared(healing, alone), right=["with healing", "without"])
        _tell(terminal, f"\n{verdict(healing, alone)}\n\n{NEXT.format(zejzl=word())}")
    return WELL if healing.share >= PROMISED and not healing.wrong else FAILED


async def _watch(terminal: Terminal, demo: Demo, clock: Clock) -> None:
    """Say every second how things are."""
    terminal.say("  time asked    ok healed failed  alpha     beta      gamma    energy | alone ok")
    second = 0
    while True:
        second += 1
        await clock.sleep(second - demo.elapsed)
        terminal.say(_row(demo, f"{second} s"))


def _row(demo: Demo, when: str) -> str:
    half = demo.healing
    alpha, beta, gamma = demo.breakers().values()
    return (
        f"{when:>6}{half.asked:>6}{len(half.latencies):>6}"
        f"{half.healed:>7}{half.failed:>7}  "
        f"{alpha:<10}{beta:<10}{gamma:<9}{demo.magic.energy_level:>6.0f} "
        f"| {len(demo.alone.latencies):>8}"
    )


def _tell(terminal: Terminal, text: str) -> None:
    """Say prose, in lines that are easily read."""
    room = min(terminal.aside.width, PROSE)
    for paragraph in text.split("\n"):
        lead = len(paragraph) - len(paragraph.lstrip())
        below = " " * (9 if lead else 0)  # what is told of a provider, below one another
        lines = wrap(paragraph, room, subsequent_indent=below, break_on_hyphens=False)
        terminal.say("\n".join(lines))


async def _watch_live(terminal: Terminal, demo: Demo, clock: Clock) -> None:
    """Keep a table of how things are in its place on the terminal."""
    from rich.live import Live

    room = terminal.out.width
    with Live(_board(demo, room), console=terminal.out, auto_refresh=False) as live:
        try:
            while True:
                await clock.sleep(0.1)
                live.update(_board(demo, room), refresh=True)
        finally:
            live.update(_board(demo, room), refresh=True)


def _board(demo: Demo, room: int) -> "Group":
    from rich.console import Group

    half, alone = demo.healing, demo.alone
    breakers, calls = demo.breakers(), [call.provider for call in half.server.log]
    providers = in_columns(
        [f"{demo.elapsed:.0f} s", "is", "breaker", "calls"],
        [
            (name, weather, breakers[name], calls.count(name))
            for name, weather in demo.weather().items()
        ],
        right=["calls"],
        room=room,
    )
    heads = ["asked", "answered", "failed", "healed", "energy"]
    halves = in_columns(
        ["", *heads],
        [
            (
                "with healing",
                half.asked,
                len(half.latencies),
                half.failed,
                half.healed,
                f"{demo.magic.energy_level:.0f}",
            ),
            ("without", alone.asked, len(alone.latencies), alone.failed, "", ""),
        ],
        right=heads,
        room=room,
    )
    return Group(providers, "", halves)


def _compared(healing: Measured, alone: Measured) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return headings and rows that compare both halves."""
    halves = healing, alone
    return ["", "with healing", "without"], [
        ["answered", *(f"{half.answered} of {half.requests}" for half in halves)],
        ["", *(f"{half.share:.1%}" for half in halves)],
        ["wrong answers", *(str(half.wrong) for half in halves)],
        ["answered after a failure", *(str(half.healed) for half in halves)],
        ["p50 of the answers", *(_milliseconds(half.p50_ms) for half in halves)],
        ["p99 of the answers", *(_milliseconds(half.p99_ms) for half in halves)],
        ["provider calls per request", *(f"{half.calls_per_request:.2f}" for half in halves)],
    ]


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} ms"


def verdict(healing: Measured, alone: Measured) -> str:
    """Return one sentence that says what the numbers say."""
    extra = healing.calls_per_request - alone.calls_per_request
    return (
        f"With healing {healing.answered} of {healing.requests} requests were answered, "
        f"without it {alone.answered}; that took {extra:+.2f} provider calls per request, "
        f"and {healing.wrong} of the answers were wrong."
    )
