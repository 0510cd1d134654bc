"""What the simulator takes, and whether a replay tells what really happened.

    python bench/simulate.py [--seed 1] [--requests 10000]
    python bench/simulate.py --recorded [--seed 1] [--minutes 10] [--rate 5] [--stream]
                             [--real] [--sqlite]

Without `--recorded`: an hour in which of three providers first one is down and then two, played
twice, in processes whose hashes differ. It must take at most 30 s of one core, and come out the
same to the last bit. What is recorded follows, with the defaults.

With it: a bus with three providers over real sockets, before a fault server that plays ten minutes
of mixed faults, in virtual time or with `--real` in the machine's. What its store has kept is made
an incident, written as TOML, read again and replayed with the same settings. The remedies of both
are set side by side: who failed, how, what was tried, how often, and how often it helped. First the
replay has the chance of the run; then that of others, because backoffs and probes have jitter and
calls come at other times then.

Exit code 1 if the hour misses its limit or is not the same, or if the replay with the run's own
chance differs in more than `DIFFERS` of the remedies. With `--stream` that is only told, because no
journal has when a stream's pieces came; and with `--sqlite` in virtual time, which stands still
while code runs, but not while a thread writes.
"""

import argparse
import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from machine import print_machine
from storm_stage import Stage, answer_of, asked

from ai_framework import AsyncMessageBus
from zejzl.clock import Clock, SystemClock
from zejzl.errors import ZejzlError
from zejzl.events import UNTRIED, Event, RecoveryRecorded, utc
from zejzl.magic import FairyMagic
from zejzl.ports import Store
from zejzl.providers import Anthropic, OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore, SqliteStore
from zejzl.testing import FaultServer, faults, virtual
from zejzl.testing.behaviours import Play, WireName
from zejzl.testing.incident_files import dump, parse
from zejzl.testing.incidents import Fault, Incident, Load, ProviderScript
from zejzl.testing.recorded import recorded
from zejzl.testing.simulate import Simulation, simulate

HOUR = 3_600.0
LIMIT = 30.0  # seconds of one core
DIFFERS = 0.02
MINUTES = 10.0
WIRES: dict[str, WireName] = {"alpha": "openai", "beta": "anthropic", "gamma": "openai"}
SETTINGS = Settings(home=Path(tempfile.gettempdir()))  # nothing is written there
OTHERS = 3  # further seeds a record is replayed with

Row = tuple[str, str, str]  # who failed, how, what was tried


# An hour's outage --------------------------------------------------------------------------------


def outage(requests: int) -> Incident:
    """Return an hour: alpha is down for forty minutes, for ten of them beta is, too."""
    down = Fault(kind="overloaded", start=600.0, end=3_000.0, share=0.95)
    limits = Fault(kind="rate_limited", start=900.0, end=1_500.0, share=0.3, retry_after=5.0)
    gone = Fault(kind="connect", start=1_500.0, end=2_100.0)
    return Incident(
        duration=HOUR,
        requests=(Load(rate=requests / HOUR),),
        providers=(
            ProviderScript(name="alpha", latency=(0.4, 1.2), faults=(down,)),
            ProviderScript(name="beta", latency=(0.5, 1.5), faults=(limits, gone)),
            ProviderScript(name="gamma", latency=(1.0, 3.0), capacity=8, queue=8),
        ),
    )


def print_hour(requests: int, seed: int) -> None:
    """Play it and print it as JSON, with the time it took."""
    began = time.process_time()
    found = simulate(outage(requests), SETTINGS, seed=seed)
    print(json.dumps({"seconds": time.process_time() - began, "result": found.to_json()}))


def hour(requests: int, seed: int) -> bool:
    """Play it in two processes, tell of it, and return whether all is as it must be."""
    digests = []
    ok = True
    for hashes in ("0", "4711"):
        done = subprocess.run(
            [sys.executable, __file__, "--hour", "--seed", str(seed), "--requests", str(requests)],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        )
        told = json.loads(done.stdout)
        result = told["result"]
        digests.append(hashlib.sha256(json.dumps(result).encode()).hexdigest())
        ok &= told["seconds"] <= LIMIT
        print(
            f"{'pass' if told['seconds'] <= LIMIT else 'MISS'}  an hour with {requests:,} requests "
            f"took {told['seconds']:.1f} s of one core (≤ {LIMIT:g}); answered "
            f"{result['answered']:,}, failed {sum(result['failed'].values()):,}, wrong "
            f"{result['wrong']}, {result['calls_per_request']:.3f} calls a request, "
            f"p50 {result['p50']:.2f} s, p99 {result['p99']:.2f} s"
        )
    same = len(set(digests)) == 1
    print(f"{'pass' if same else 'MISS'}  the same in both processes: sha256 {digests[0][:16]}…")
    return ok and same


# Ten minutes that really were --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """What really happened.

    Attributes:
        heals: By row, how often it was tried, and how often it helped.
    """

    answered: int
    failed: int
    heals: dict[Row, tuple[int, int]]
    incident: Incident


def plays(seed: int, scale: float) -> dict[str, Play]:
    """Return what each provider does in ten minutes."""
    stage = Stage(seed, scale)

    def well(name: str, low: float, high: float) -> Play:
        play = stage.well(name, (low / scale, high / scale))
        return lambda call: faults.bad_request() if "bad" in asked(call) else play

    alpha = stage.some(0.04, [faults.status(500), faults.reset()], well("alpha", 0.2, 0.6))
    beta, gamma = well("beta", 0.3, 0.8), well("gamma", 0.5, 1.0)
    # Each outage is played while none of those below it is.
    for start, end, fault in (
        (60.0, 150.0, stage.some(0.9, [faults.overloaded()], alpha)),
        (200.0, 230.0, faults.reset()),
        (300.0, 330.0, stage.limiting(2.0 / scale, 5.0 / scale)),
        (400.0, 440.0, stage.some(0.7, [well("alpha", 4.0, 8.0)], alpha)),
    ):
        alpha = stage.during(start, end, fault, alpha)
    beta = stage.during(100.0, 140.0, stage.some(0.8, [faults.status(500)], beta), beta)
    beta = stage.during(405.0, 425.0, faults.silence(), beta)
    gamma = stage.some(0.03, [faults.empty(), faults.malformed(3), faults.cut(3)], gamma)
    return {"alpha": alpha, "beta": beta, "gamma": gamma}


async def run(given: argparse.Namespace, clock: Clock, store: Store, *, chance: int) -> Run:
    """Let ten minutes happen, and return them with what the store tells of them.

    Args:
        chance: Seed of the bus's own chance.
    """
    seed, minutes, rate, stream = given.seed, given.minutes, given.rate, given.stream
    rng, scale = Random(f"arrivals {seed}"), minutes / MINUTES
    heals: Counter[tuple[Row, bool]] = Counter()
    ends: Counter[bool] = Counter()
    magic = FairyMagic(clock=clock, rng=Random(f"{chance}/magic"))
    magic.listen(lambda event: count(event, heals))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(FaultServer())
        bus = await stack.enter_async_context(
            AsyncMessageBus(SETTINGS, store=store, clock=clock, magic=magic)
        )
        for name, play in plays(seed, scale).items():
            server.play(name, play)
            adapter = OpenAICompatible if WIRES[name] == "openai" else Anthropic
            provider = adapter(server.base_url(name, WIRES[name]), f"key-{name}", "m", clock=clock)
            await bus.register_provider(name, provider)
        since = utc(clock.wall())

        async def request(number: int) -> None:
            prompt = f"request {number}: {'bad' if number % 97 == 96 else 'what is up?'}"
            try:
                right = await ask(bus, prompt, stream=stream) == answer_of(prompt)
            except ZejzlError:
                right = False
            ends[right] += 1

        async with asyncio.TaskGroup() as requests:
            for number in range(round(60.0 * minutes * rate)):
                await clock.sleep(server.now() * -1.0 + (number + rng.random()) / rate)
                requests.create_task(request(number))
        incident = await recorded(store, since=since, settings=SETTINGS, stream=stream)
    return Run(ends[True], ends[False], by_row(heals), incident)


async def ask(bus: AsyncMessageBus, prompt: str, *, stream: bool) -> str:
    if not stream:
        return (await bus.send(prompt)).text
    return "".join([delta.text async for delta in bus.stream(prompt)])


def count(event: Event, heals: Counter[tuple[Row, bool]]) -> None:
    if isinstance(event, RecoveryRecorded) and event.remedy != UNTRIED:
        provider = event.target.removeprefix("ai_provider:")
        heals[(provider, event.failure_class, event.remedy), event.success] += 1


def by_row(heals: Counter[tuple[Row, bool]]) -> dict[Row, tuple[int, int]]:
    rows = sorted({row for row, _ in heals})
    return {row: (heals[row, True] + heals[row, False], heals[row, True]) for row in rows}


def heals_of(found: Simulation) -> dict[Row, tuple[int, int]]:
    return {
        (heal.provider, heal.failure_class, heal.remedy): (heal.tried, heal.helped)
        for heal in found.heals
    }


def failed(heals: dict[Row, tuple[int, int]]) -> dict[Row, tuple[int, int]]:
    """Return how often something was tried against each failure, whatever that was."""
    found: Counter[Row] = Counter()
    for (provider, how, _), (tried, _) in heals.items():
        found[provider, how, ""] += tried
    return {row: (tried, 0) for row, tried in found.items()}


def differing(real: dict[Row, tuple[int, int]], again: dict[Row, tuple[int, int]]) -> int:
    """Return how many remedies would have to be tried, left or end otherwise to make both equal."""
    rows, none = {*real, *again}, (0, 0)
    return sum(
        max(
            abs(real.get(row, none)[0] - again.get(row, none)[0]),
            abs(real.get(row, none)[1] - again.get(row, none)[1]),
        )
        for row in rows
    )


def replay(found: Run, others: Run, seed: int, *, judged: bool) -> bool:
    """Replay what happened, tell how that differs, and return whether it is little.

    Args:
        found: What happened.
        others: What happened when the bus had other luck.
        seed: Of the luck it had the first time.
        judged: Whether all is known that a replay needs to be the same.
    """
    text = dump(found.incident)
    incident = parse(text)
    assert incident == found.incident  # a file says all there is
    total = sum(tried for tried, _ in found.heals.values())
    print(
        f"\nten minutes: {found.answered} answered, {found.failed} failed, {total} remedies tried; "
        f"as TOML {len(text) / 1024:,.0f} KiB"
    )
    agains = [simulate(incident, SETTINGS, seed=each) for each in range(seed, seed + 1 + OTHERS)]
    columns = [found.heals, others.heals, *map(heals_of, agains)]
    print(f"{'':<44}{'really':>10}{'really*':>10}{'replayed':>10}" + f"{'replayed*':>10}" * OTHERS)
    for row in sorted({row for each in columns for row in each}):
        told = [each.get(row, (0, 0)) for each in columns]
        cells = "".join(f"{f'{helped}/{tried}':>10}" for tried, helped in told)
        print(f"{' · '.join(row):<44}{cells}")
    ends = [(each.answered, each.failed) for each in (found, others)]
    ends += [(again.answered, sum(again.failed.values())) for again in agains]
    print(f"{'answered':<44}" + "".join(f"{answered:>10}" for answered, _ in ends))
    print(f"{'failed':<44}" + "".join(f"{failed:>10}" for _, failed in ends))
    differ = [differing(found.heals, each) for each in columns[1:]]
    ok = differ[1] <= DIFFERS * total or not judged
    shares = [f"{each / total:.1%}" for each in differ]
    verdict = ("pass" if ok else "MISS") if judged else "info"
    print(
        f"{verdict}  of {total} remedies {differ[1]} differ ({shares[1]}, ≤ {DIFFERS:.0%})\n"
        f"      * with other chance: really {shares[0]}, replayed {', '.join(shares[2:])}"
    )
    failures = [failed(each) for each in columns]
    shares = [f"{differing(failures[0], each) / total:.1%}" for each in failures[1:]]
    print(
        f"      by who failed and how, whatever was tried: {shares[1]} differ; "
        f"with other chance really {shares[0]}, replayed {', '.join(shares[2:])}"
    )
    return ok


def ten_minutes(given: argparse.Namespace) -> bool:
    runs = []
    for chance in (given.seed, given.seed + 1):
        with tempfile.TemporaryDirectory() as folder:
            clock: Clock = SystemClock() if given.real else virtual.VirtualClock()
            store: Store = InMemoryStore(limit=1_000_000, clock=clock)
            if given.sqlite:
                store = SqliteStore(Path(folder) / "zejzl.db", clock=clock)
            work = run(given, clock, store, chance=chance)
            runs.append(asyncio.run(work) if given.real else virtual.run(work))
    judged = not given.stream and (given.real or not given.sqlite)
    return replay(runs[0], runs[1], given.seed, judged=judged)


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--requests", type=int, default=10_000)
    arguments.add_argument("--recorded", action="store_true", help="only ten minutes that were")
    arguments.add_argument("--minutes", type=float, default=MINUTES)
    arguments.add_argument("--rate", type=float, default=5.0, help="requests a second")
    arguments.add_argument("--stream", action="store_true", help="every answer is streamed")
    arguments.add_argument("--real", action="store_true", help="by the machine's clock")
    arguments.add_argument("--sqlite", action="store_true", help="keep it in a file")
    arguments.add_argument("--hour", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.hour:
        print_hour(given.requests, given.seed)
        return 0
    print_machine()
    ok = given.recorded or hour(given.requests, given.seed)
    return 0 if ten_minutes(given) and ok else 1


if __name__ == "__main__":
    sys.exit(main())
