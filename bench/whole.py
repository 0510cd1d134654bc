"""What the whole resilience stack costs a call, a refusal and a provider; where `bus.send` spends.

    python bench/whole.py [--rounds 300]
    python bench/whole.py --profile [--sends 40000]

A call takes what the engine takes for it, in the same order: a permit (breaker and admission),
the retry budget, a look at the burst credits, then the same backwards. It is measured against a
bare await, the two taking turns within one run; figures are medians over the rounds, less what an
empty loop takes. The time is the processor's: who else is at work distorts it less. What a breaker
costs alone: `breaker.py`. Exit code 1 when a goal is missed.

`--profile` sends over a socket to a server that answers at once, store in memory, one at a time,
and looks every millisecond of processor time where the program is. Figures are microseconds of
that time a send: by line of ours, whatever it calls outside of us included, and by function.
"""

import argparse
import asyncio
import gc
import linecache
import multiprocessing
import signal
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median
from types import CodeType, FrameType

import aiohttp
from bus import serve
from machine import print_machine

from ai_framework import AsyncMessageBus
from zejzl.clock import SystemClock
from zejzl.magic import FairyMagic
from zejzl.magic.breakers import CircuitBreaker
from zejzl.magic.gate import PROVIDERS
from zejzl.magic.lanes import Asked, Lane
from zejzl.policies.breaker import Refused
from zejzl.providers import OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore

CALLS = 1_000  # per round
PROVIDERS_WEIGHED = 500
ANSWERS = 300  # after which every window is full
GOAL = 5_000.0  # nanoseconds over a bare await
REFUSAL_GOAL = 10_000_000.0  # nanoseconds
TOP = 15

PLAIN, STREAMED = Asked(), Asked(streamed=True)


async def nothing() -> None:
    pass


class Stack:
    """One provider with everything that stands before it, warm.

    Attributes:
        seconds: What its answers take; the wall does not wait for them.
    """

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.magic = FairyMagic(clock=self.clock)
        self.gate = self.magic.gate
        self.lane, self.breaker = self.gate.lane("a"), self.gate.provider("a")
        self.gate.lane("b"), self.gate.provider("b")
        self.seconds = [0.04 + 0.04 * number / CALLS for number in range(CALLS)]

    async def calls(self, asked: Asked) -> None:
        """Make CALLS calls as the engine does, one after the other."""
        gate, acorns, clock = self.gate, self.magic.acorns, self.clock
        breaker, lane = self.breaker, self.lane
        for seconds in self.seconds:
            permit = gate.acquire(breaker, lane, asked)
            if isinstance(permit, Refused):
                raise AssertionError(permit)
            gate.pay(0.0)
            acorns.before(lane, "m", "user", 100)
            gate.begun(permit, clock.now())
            await nothing()
            if asked.streamed:
                gate.spoke(permit)
            gate.succeeded(permit, seconds, True)
            acorns.answered(lane, "user", 60, cut=False)

    def refused(self) -> None:
        found = self.gate.acquire(self.breaker, self.lane, PLAIN)
        assert isinstance(found, Refused)


def kinds() -> dict[str, Callable[[], Awaitable[None]]]:
    """Return what is measured: each makes CALLS calls of its kind."""
    usual, paused, full, raised = Stack(), Stack(), Stack(), Stack()
    paused.breaker.pause(paused.breaker.rule.flowing, 3600.0, "its key was refused")
    full.lane.limiter.in_flight = 500
    raised.gate.raise_by_hand("raised by hand")

    async def empty_loop() -> None:
        for _ in usual.seconds:
            pass

    async def bare_await() -> None:
        for _ in usual.seconds:
            await nothing()

    def refusing(stack: Stack) -> Callable[[], Awaitable[None]]:
        async def refusals() -> None:
            for _ in stack.seconds:
                stack.refused()

        return refusals

    return {
        "empty loop": empty_loop,
        "bare await": bare_await,
        "whole stack, plain answer": partial(usual.calls, PLAIN),
        "whole stack, stream": partial(usual.calls, STREAMED),
        "refused: paused": refusing(paused),
        "refused: full": refusing(full),
        "refused: only critical work passes": refusing(raised),
    }


async def measure(rounds: int) -> dict[str, float]:
    """Return the nanoseconds of one call of each kind, the kinds taking turns."""
    every = kinds()
    taken: dict[str, list[float]] = {what: [] for what in every}
    for _ in range(rounds):
        for what, calls in every.items():
            started = time.thread_time_ns()
            await calls()
            taken[what].append((time.thread_time_ns() - started) / CALLS)
    return {what: median(each) for what, each in taken.items()}


# ── Memory ────────────────────────────────────────────────────────────────────────────────────────


def weigh(make: Callable[[int], object]) -> float:
    """Return the bytes that each of many takes."""
    kept: list[object] = [None] * PROVIDERS_WEIGHED
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for place in range(PROVIDERS_WEIGHED):
        kept[place] = make(place)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / PROVIDERS_WEIGHED


def weights() -> dict[str, float]:
    gate = FairyMagic().gate

    def provider(place: int) -> tuple[CircuitBreaker, Lane]:
        return gate.provider(f"new {place}"), gate.lane(f"new {place}")

    def used(place: int) -> None:
        lane, breaker = gate.lane(f"used {place}"), gate.provider(f"used {place}")
        for number in range(ANSWERS):
            for asked in (PLAIN, STREAMED):
                permit = gate.acquire(breaker, lane, asked)
                assert not isinstance(permit, Refused)
                gate.succeeded(permit, 0.04 + 0.001 * number, True)
            lane.lengths.push(300 + number)

    return {
        "lane": weigh(lambda place: Lane("name")),
        "provider: breaker and lane, never called": weigh(provider),
        "provider, plain answers and streams learned": weigh(used),
    }


# ── Profile ───────────────────────────────────────────────────────────────────────────────────────


class Sampler:
    """Looks where the program is, every millisecond of processor time, or as often as it may."""

    def __init__(self) -> None:
        self.lines: Counter[tuple[CodeType | None, int]] = Counter()
        self.functions: Counter[CodeType] = Counter()
        self.seconds = 0.0

    def __enter__(self) -> "Sampler":
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
        self._began = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        self.seconds += time.process_time() - self._began

    def _look(self, _: int, frame: FrameType | None) -> None:
        if frame is not None:
            self.functions[frame.f_code] += 1
        while frame is not None and not is_ours(frame.f_code):
            frame = frame.f_back
        self.lines[(frame.f_code, frame.f_lineno or 0) if frame else (None, 0)] += 1

    @property
    def rooms(self) -> Counter[str]:
        """Looks by room of ours, or by package of others."""
        found: Counter[str] = Counter()
        for code, seen in self.functions.items():
            found[room(code)] += seen
        return found

    def unit(self, sends: int) -> float:
        """Return the microseconds a send that one look stands for."""
        return 1e6 * self.seconds / sends / max(1, self.lines.total())

    def print(self, sends: int) -> None:
        unit = self.unit(sends)
        print(f"\nby line of ours, with what it calls outside of us; {self.lines.total():,} looks")
        for (code, number), seen in self.lines.most_common(TOP):
            place = source(code, number) if code else "(the event loop, outside of any call)"
            print(f"    {seen * unit:7.1f} µs  {place}")
        print("\nby function, anybody's")
        for code, seen in self.functions.most_common(TOP):
            print(f"    {seen * unit:7.1f} µs  {short(code)} {code.co_qualname}")


def is_ours(code: CodeType) -> bool:
    return "/zejzl/" in code.co_filename or code.co_filename.endswith("ai_framework.py")


def room(code: CodeType) -> str:
    parts = Path(code.co_filename).parts
    if is_ours(code):
        return "/".join(parts[-2:-1] if "zejzl" in parts else parts[-1:])
    for home in ("site-packages", f"python{sys.version_info[0]}.{sys.version_info[1]}"):
        if home in parts:
            return parts[parts.index(home) + 1]
    return parts[-1]


def short(code: CodeType) -> str:
    return "/".join(Path(code.co_filename).parts[-2:])


def source(code: CodeType, number: int) -> str:
    text = linecache.getline(code.co_filename, number).strip()
    return f"{short(code)}:{number} {text[:70]}"


async def profile(base_url: str, sends: int) -> tuple[Sampler, Sampler]:
    """Return what was seen of bare POSTs and of sends."""
    theirs, ours = Sampler(), Sampler()
    settings = Settings(home=Path(tempfile.gettempdir()))
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    async with (
        aiohttp.ClientSession() as session,
        AsyncMessageBus(settings, store=InMemoryStore()) as bus,
    ):
        await bus.register_provider("server", OpenAICompatible(base_url, "key", "m"))
        for number in range(-500, sends):
            if number == 0:
                theirs, ours = Sampler(), Sampler()
            if number % 500 == 0:
                with theirs:
                    for _ in range(500):
                        async with session.post(f"{base_url}/chat/completions", json=body) as got:
                            await got.json()
                with ours:
                    for _ in range(500):
                        await bus.send("hello")
    return theirs, ours


def print_profile(sends: int) -> None:
    near, far = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=serve, args=(far,), daemon=True)
    server.start()
    base_url = f"http://127.0.0.1:{near.recv()}/v1"
    theirs, ours = asyncio.run(profile(base_url, sends))
    server.terminate()
    bare, whole = (1e6 * each.seconds / sends for each in (theirs, ours))
    print(f"\nprocessor time: bare POST {bare:.0f} µs, bus.send {whole:.0f} µs, of {sends:,} each")
    print(f"{'by room':<34}{'send':>8}{'POST':>8}  µs")
    for name, seen in ours.rooms.most_common(TOP):
        bare = theirs.rooms[name] * theirs.unit(sends)
        print(f"    {name:<30}{seen * ours.unit(sends):8.1f}{bare:8.1f}")
    ours.print(sends)


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=300)
    arguments.add_argument("--profile", action="store_true")
    arguments.add_argument("--sends", type=int, default=40_000)
    given = arguments.parse_args()
    print_machine()
    if given.profile:
        print_profile(given.sends)
        return 0
    figures = asyncio.run(measure(given.rounds))
    loop = figures.pop("empty loop")
    bare = figures.pop("bare await") - loop
    print(f"\nmedians of {given.rounds} rounds of {CALLS:,} calls, in nanoseconds")
    print(f"  {'bare await':<38}{bare:8,.0f}")
    met = True
    for what, whole in figures.items():
        refusal = what.startswith("refused")
        spent, goal = whole - loop - (0.0 if refusal else bare), REFUSAL_GOAL if refusal else GOAL
        met &= spent <= goal
        over = "" if refusal else " over it"
        miss = "" if spent <= goal else "   MISS"
        print(f"  {what:<38}{spent:8,.0f}{over:<9} goal {goal:,.0f}{miss}")
    print(f"\nbytes each, of {PROVIDERS_WEIGHED} providers ({PROVIDERS})")
    for what, size in weights().items():
        print(f"  {what:<46}{size:8,.0f}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
