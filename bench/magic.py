"""Does the magic help? No magic, a fixed runbook, and what is learned, randomised per request.

    python bench/magic.py [--seeds 20] [--only NAME ...]

    none      one provider, asked once
    fixed     the bus with learning frozen: the runbook's order for ever
    learned   the bus as it is

In every world (`magic_worlds.py`) requests come at `RATE` for `SECONDS` of virtual time, in
blocks of three whose members are dealt to the arms at random. All arms meet the same world at the
same time, but each has providers of its own: on shared ones, one arm's calls would heal or hurt
the others' breakers and limits, and the arms would be compared with their own echo.

    reward = right (1 or 0) − CALL · calls beyond the first − LATENCY · latency / deadline

A request that failed has the latency of its failure. The interval is Student's over the seeds, one
difference of mean rewards each: requests of one run share what was learned, and are not
independent. "worst seed" is the worst of these differences; chance is in it.

Exit code 1 unless, over all worlds, the interval of learned − fixed lies above 0, and in no world
learned is worse by more than 2 % of fixed.
"""

import argparse
import asyncio
import math
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import NormalDist, fmean, stdev

from machine import print_machine
from magic_worlds import SECONDS, WORLDS, World
from storm_stage import answer_of, asked, head

from ai_framework import AsyncMessageBus
from zejzl.events import RecoveryRecorded
from zejzl.magic import FairyMagic
from zejzl.messages import Request
from zejzl.providers import OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore
from zejzl.testing import FaultServer, virtual

ARMS = ("none", "fixed", "learned")
RATE = 12.0  # requests a second, of all arms together
ATTEMPT_TIMEOUT = 1.5
DEADLINE = 4.0
CALL = 0.1  # of a right answer's worth: what a further call costs
LATENCY = 0.5  # of a right answer's worth: what it costs to take the whole deadline
WORSE = 0.02  # share of the fixed runbook's reward
SURE = 0.95

Ask = Callable[[str], Awaitable[str]]


@dataclass(slots=True)
class Outcome:
    """What became of a request."""

    prompt: str
    right: bool
    seconds: float
    calls: int = 0

    @property
    def reward(self) -> float:
        extra = max(0, self.calls - 1)
        return self.right - CALL * extra - LATENCY * min(1.0, self.seconds / DEADLINE)


@dataclass(frozen=True, slots=True)
class Arm:
    """What one arm got in one run.

    Attributes:
        reward: Mean.
        right: Share.
        p95: Seconds.
        calls: A request.
    """

    reward: float
    right: float
    p95: float
    calls: float


def frozen(magic: FairyMagic) -> FairyMagic:
    """Return it with its learned preferences as they are now, for good."""

    def learn(row: RecoveryRecorded) -> None:
        pass

    magic.recoveries.learn = learn  # type: ignore[method-assign]
    return magic


async def asker(arm: str, server: FaultServer, seed: int, stack: AsyncExitStack) -> Ask:
    """Return a way to ask one arm."""
    clock = virtual.VirtualClock()
    a, b = (
        OpenAICompatible(server.base_url(f"{arm}-{role}"), "key", "m", clock=clock) for role in "ab"
    )
    if arm == "none":
        stack.push_async_callback(a.cleanup)

        async def bare(prompt: str) -> str:
            async with clock.timeout(ATTEMPT_TIMEOUT):
                return (await a.generate(Request(content=prompt))).text

        return bare
    settings = Settings(
        home=Path(tempfile.gettempdir()),  # nothing is written there: the store is in memory
        attempt_timeout=ATTEMPT_TIMEOUT,
        deadline=DEADLINE,
    )
    magic = FairyMagic(clock=clock, rng=Random(seed))
    if arm == "fixed":
        frozen(magic)
    store = InMemoryStore(clock=clock)
    bus = await stack.enter_async_context(
        AsyncMessageBus(settings, store=store, clock=clock, magic=magic)
    )
    for name, provider in (("a", a), ("b", b)):
        await bus.register_provider(name, provider)

    async def healed(prompt: str) -> str:
        return (await bus.send(prompt)).text

    return healed


async def play(world: World, seed: int) -> dict[str, list[Outcome]]:
    """Return every arm's outcomes of one run."""
    loop, rng = asyncio.get_running_loop(), Random(f"deal {seed}")
    outcomes: dict[str, list[Outcome]] = {arm: [] for arm in ARMS}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(FaultServer())
        asks: dict[str, Ask] = {}
        for arm in ARMS:
            for role, make in world.rules(seed).items():
                server.play(f"{arm}-{role}", make())
            asks[arm] = await asker(arm, server, seed, stack)
        begun = loop.time()

        async def request(arm: str, prompt: str) -> None:
            came = loop.time()
            try:
                right = await asks[arm](prompt) == answer_of(prompt)
            except Exception:  # noqa: BLE001 - whatever an arm raises is its answer
                right = False
            outcomes[arm].append(Outcome(head(prompt), right, loop.time() - came))

        async with asyncio.TaskGroup() as tasks:
            hand: list[str] = []
            for number in range(int(SECONDS * RATE)):
                hand = hand or rng.sample(ARMS, len(ARMS))
                at = (number + rng.random()) / RATE
                await asyncio.sleep(begun + at - loop.time())
                prompt = f"request {number}: what do rivers carry?"
                tasks.create_task(request(hand.pop(), prompt))
        made: defaultdict[str, int] = defaultdict(int)
        for call in server.log:
            made[head(asked(call))] += 1
    for each in (each for arm in outcomes.values() for each in arm):
        each.calls = made[each.prompt]
    return outcomes


def summed(outcomes: Sequence[Outcome]) -> Arm:
    times = sorted(each.seconds for each in outcomes)
    return Arm(
        fmean(each.reward for each in outcomes),
        fmean(each.right for each in outcomes),
        times[math.ceil(len(times) * 0.95) - 1],
        fmean(each.calls for each in outcomes),
    )


def measure(at: int, seed: int) -> dict[str, Arm]:
    """Play one world, told by its place: its functions do not travel to another process."""
    found = virtual.run(play(WORLDS[at], seed))
    return {arm: summed(outcomes) for arm, outcomes in found.items()}


@dataclass(frozen=True, slots=True)
class Gain:
    """Difference of two arms' mean rewards, over seeds; `margin` is half of its interval."""

    mean: float
    margin: float
    worst: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.margin:.4f}   worst seed {self.worst:+.4f}"


def gain(differences: Sequence[float]) -> Gain:
    mean, worst = fmean(differences), min(differences)
    if len(differences) < 2:
        return Gain(mean, math.inf, worst)
    margin = student(len(differences) - 1) * stdev(differences) / math.sqrt(len(differences))
    return Gain(mean, margin, worst)


def student(freedom: int) -> float:
    """Return Student's two-sided quantile; off by less than 1 % from 5 degrees of freedom on.

    Source: Abramowitz & Stegun, 26.7.5.
    """
    z = NormalDist().inv_cdf(0.5 + SURE / 2.0)
    return (
        z
        + (z**3 + z) / (4.0 * freedom)
        + (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / (96.0 * freedom**2)
    )


Runs = list[dict[str, Arm]]  # by seed


def rows(chosen: Sequence[World], seeds: int) -> Iterator[tuple[World, Runs]]:
    """Yield each world with its runs; they take turns on all cores."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        under_way = [
            (world, [pool.submit(measure, WORLDS.index(world), seed) for seed in range(seeds)])
            for world in chosen
        ]
        for world, runs in under_way:
            yield world, [run.result() for run in runs]


def differences(runs: Runs, other: str) -> list[float]:
    return [run["learned"].reward - run[other].reward for run in runs]


def averaged(runs: Runs, arm: str) -> Arm:
    found = [run[arm] for run in runs]
    return Arm(
        fmean(each.reward for each in found),
        fmean(each.right for each in found),
        fmean(each.p95 for each in found),
        fmean(each.calls for each in found),
    )


def print_row(world: World, runs: Runs) -> bool:
    """Print what the arms got; return whether learned is not worse than is allowed."""
    print(f"\n{world.name}    runbook: {world.runbook}")
    means = {arm: averaged(runs, arm) for arm in ARMS}
    for arm, each in means.items():
        print(
            f"    {arm:<8}{each.reward:8.4f}{100.0 * each.right:9.2f}{1000.0 * each.p95:8.0f}"
            f"{each.calls:8.3f}"
        )
    over = gain(differences(runs, "fixed"))
    share = over.mean / means["fixed"].reward
    ok = share >= -WORSE
    print(f"    learned − fixed {over}   {100.0 * share:+.2f} %{'' if ok else '   MISS'}")
    sys.stdout.flush()
    return ok


def asked_for(names: Sequence[str]) -> list[World]:
    return [world for world in WORLDS if not names or any(name in world.name for name in names)]


def print_total(everywhere: Sequence[Runs]) -> bool:
    """Print what learned gains over all worlds; return whether it surely beats the runbook."""
    print("\nall worlds alike, per request")
    for other in ("none", "fixed"):
        by_seed = zip(*(differences(runs, other) for runs in everywhere), strict=True)
        over = gain([fmean(each) for each in by_seed])
        print(f"    learned − {other:<6}{over}")
    return over.mean > over.margin


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--only", nargs="+", default=[], metavar="NAME", help="part of a name")
    given = arguments.parse_args()
    chosen = asked_for(given.only)
    if not chosen:
        arguments.error(f"no such world; known: {'; '.join(world.name for world in WORLDS)}")
    print_machine()
    print(f"{given.seeds} seeds, {SECONDS:g} s at {RATE:g} requests/s dealt to {len(ARMS)} arms")
    print(f"reward = right − {CALL:g} · further calls − {LATENCY:g} · latency / {DEADLINE:g} s")
    print(f"    {'arm':<8}{'reward':>8}{'right %':>9}{'p95 ms':>8}{'calls':>8}")
    everywhere, worse = [], 0
    for world, runs in rows(chosen, given.seeds):
        worse += not print_row(world, runs)
        everywhere.append(runs)
    beats = print_total(everywhere)
    print(f"learned beats the fixed runbook: {'yes' if beats else 'MISS'}")
    print(f"worlds in which it is worse by more than {100.0 * WORSE:g} %: {worse}")
    return 0 if beats and not worse else 1


if __name__ == "__main__":
    sys.exit(main())
