"""Ten minutes at 200 requests a second under rotating faults: does anything stay behind?

    python bench/soak.py [--minutes 10] [--rate 200] [--seed 1] [--real]

Three providers, one of each wire, over real sockets, in virtual time (`zejzl.testing.virtual`) or
with `--real` in the machine's. Every six seconds another fault is played for four, in the last four
seconds all are down. A third of the requests is streamed, a tenth belongs to conversations, all
classes of criticality occur, some answers are cut at `max_tokens`, some callers leave before the
answer or in its middle. Two processes run side by side: one at the full rate, and one at a quarter
of it that counts the bytes which Python holds, because counting makes everything slower. What the
bus keeps up to a bound is filled first.

Exit code 1 when one of these does not hold:

    wrong       no answer that was not right came as a success
    memory      after `WARM` of the run, the bytes that Python holds grow by at most `TRACED` for
                1,000 requests, and those of the process by at most `RESIDENT` (least squares over
                samples between two faults, after a collection); the fault servers are in it
    containers  none of the bus is longer at the end than at half time by a tenth and `ROOM`
    calm        the retry budget is full `CALM` seconds after the last fault, at two requests/s
    left        no request's objects are alive then, and no task of theirs; once all is closed no
                task, timer or socket is open that was not before
"""

import argparse
import asyncio
import gc
import os
import sys
import tempfile
import tracemalloc
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import linear_regression
from typing import Any
from uuid import uuid4

from machine import print_machine
from storm_stage import ANSWER, ENDLESS, ERROR, PACE, answer_of

from ai_framework import AsyncMessageBus
from zejzl.clock import Clock, SystemClock
from zejzl.errors import ProviderError, Rejected
from zejzl.magic import FairyMagic
from zejzl.magic.acorns import REMEMBERED
from zejzl.providers import Anthropic, Gemini, OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore
from zejzl.testing import Call, FaultServer, faults, virtual
from zejzl.testing.behaviours import Answer, Play, Rule, WireName, pieces

WIRES: dict[str, WireName] = {"a": "openai", "b": "gemini", "c": "anthropic"}
ADAPTERS = {"openai": OpenAICompatible, "gemini": Gemini, "anthropic": Anthropic}
PHASE, FAULTY = 6.0, 4.0  # seconds of a phase, and those of its fault
TRACED_RATE = 0.25  # share of the requests that the process which counts bytes gets
PACED = 0.1  # share of the streams whose words come one by one
KEPT = 1_000  # messages in the store, and events, and rows of the recovery log
WARM = 0.25  # share of the run before which memory is not judged: stores and windows fill
CYCLE = 12  # phases
TRACED = 8.0 * 1024.0  # bytes for 1,000 requests: what is open at a sample varies so much
RESIDENT = 32.0 * 1024.0
ROOM = 100  # entries that a container may gain in the second half, besides a tenth
ALL_DOWN = 7  # the phase
CALM = 60.0
FULL = 100.0 - 1e-6
OF_A_REQUEST = frozenset(
    {"Permit", "Journey", "Healer", "InLine", "Pick", "Target", "_Race", "_Attempt", "_Told"}
)
OURS = ("zejzl.", "ai_framework")

Plays = Mapping[str, Play]


# ── What is played ────────────────────────────────────────────────────────────────────────────────


def asked(call: Call) -> str:
    """Return the words of the question, on any wire."""
    if call.wire == "gemini":
        return str(call.body["contents"][-1]["parts"][0]["text"])
    return str(call.body["messages"][-1]["content"])


class Stage:
    """Behaviours that take their time, drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(f"stage {seed}")

    def after(self, span: tuple[float, float], play: Play) -> Play:
        return faults.capacity(ENDLESS, lambda: self._rng.uniform(*span), then=play)

    def well(self, factor: float = 1.0) -> Play:
        def answer(call: Call) -> Play:
            paced = call.stream and self._rng.random() < PACED
            return faults.ok(answer_of(asked(call)), pace=PACE if paced else 0.0)

        return self.after((ANSWER[0] * factor, ANSWER[1] * factor), answer)

    def phases(self) -> tuple[Plays, ...]:
        """Return who plays what, phase by phase; who is not named is well."""
        down, limited = self.after(ERROR, faults.status(503)), faults.rate_limited(1)
        late = {name: self.after(ANSWER, _worded(fault)) for name, fault in BROKEN.items()}
        return (
            {"a": down},
            {"a": self.after(ERROR, limited), "b": self.some(0.3, faults.status(500))},
            {"a": late["cut"]},
            {"a": faults.silence()},
            {"a": late["malformed"], "c": self.after(ANSWER, faults.empty())},
            {"a": self.some(0.2, faults.silence()), "b": self.well(3.0)},
            {"a": down, "b": down},
            {"a": down, "b": down, "c": down},
            {"a": late["stall"]},
            {"a": late["error"], "b": faults.reset()},
            {"a": self.well(15.0)},
            {"a": self.some(0.1, faults.context_overflow()), "b": self.after(ERROR, faults.auth())},
        )

    def some(self, share: float, fault: Play) -> Play:
        well, late = self.well(), self.after(ERROR, fault)
        return lambda call: late if self._rng.random() < share else well

    def rule(self, name: str, end: float) -> Rule:
        """Return what one provider plays: its part of the phases, an outage until `end`."""
        phases, well = self.phases(), self.well()

        def rule(call: Call) -> Play:
            number, into = divmod(call.at, PHASE)
            if end - FAULTY <= call.at < end:
                return phases[ALL_DOWN][name]
            if into >= FAULTY or call.at >= end:
                return well
            return phases[int(number) % len(phases)].get(name, well)

        return rule


def _worded(fault: Answer) -> Rule:
    """The right answer, broken off as `fault` is: begun again, it can be completed."""
    return lambda call: replace(fault, words=pieces(answer_of(asked(call))))


BROKEN = {
    "cut": faults.cut(6),
    "error": faults.error_event(3),
    "malformed": faults.malformed(3),
    "stall": faults.stall(5),
}


# ── Who asks ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Asking:
    """One request.

    Attributes:
        leaves_after: Seconds after which its caller gives up; None: never.
        pieces: Of a stream, after which its caller has heard enough; None: never.
    """

    prompt: str
    streamed: bool
    options: dict[str, Any]
    leaves_after: float | None
    pieces: int | None


def request(number: int, rng: Random) -> Asking:
    options: dict[str, Any] = {
        "criticality": rng.choices(
            ("sheddable", "normal", "critical", "critical_plus"), (10, 80, 8, 2)
        )[0]
    }
    if rng.random() < 0.10:
        options["conversation_id"] = f"talk {number // 500} {rng.randrange(10)}"  # ever new ones
    if rng.random() < 0.05:
        options["max_tokens"] = 8
    if rng.random() < 0.05:
        options |= {"provider": rng.choice([*WIRES]), "failover": rng.random() < 0.5}
    if rng.random() < 0.05:
        options["deadline"] = 0.5
    streamed = rng.random() < 0.33
    return Asking(
        f"request {number}: what do rivers carry?",
        streamed,
        options,
        rng.uniform(0.0, 0.1) if rng.random() < 0.05 else None,
        rng.randrange(1, 8) if streamed and rng.random() < 0.1 else None,
    )


async def outcome(bus: AsyncMessageBus, clock: Clock, asking: Asking) -> str:
    """Ask; return what became of it, in a word."""
    wanted = answer_of(asking.prompt)
    try:
        async with clock.timeout(asking.leaves_after):
            if not asking.streamed:
                reply = await bus.send(asking.prompt, **asking.options)
                text, cut = reply.text, reply.truncated
            else:
                text, cut = "", True
                async with aclosing(bus.stream(asking.prompt, **asking.options)) as deltas:
                    heard = 0
                    async for delta in deltas:
                        text += delta.text
                        cut = delta.reply is None or delta.reply.truncated
                        heard += 1
                        if heard == asking.pieces:
                            return "left" if wanted.startswith(text) else "wrong"
    except Rejected:
        return "refused"
    except ProviderError:
        return "failed"
    except TimeoutError:
        return "left"
    if cut:
        limited = "max_tokens" in asking.options and wanted.startswith(text)
        return "cut at max_tokens" if limited else "wrong"
    return "right" if text == wanted else "wrong"


# ── What is looked at ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory at one moment, in bytes, and how many requests had come."""

    requests: int
    traced: int
    resident: int


def sample(requests: int) -> Sample:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    traced = tracemalloc.get_traced_memory()[0]
    return Sample(requests, traced, pages * os.sysconf("SC_PAGE_SIZE"))


def slope(samples: list[Sample], of: Callable[[Sample], int]) -> float:
    """Return the bytes that 1,000 requests leave behind."""
    thousands = [each.requests / 1000.0 for each in samples]
    return float(linear_regression(thousands, [of(each) for each in samples]).slope)


def lengths(root: object) -> dict[str, int]:
    """Return the length of each container that objects of ours hold, by its path from `root`.

    Containers inside of containers count together; a deque with a bound does not.
    """
    found: defaultdict[str, int] = defaultdict(int)
    seen: set[int] = set()
    line = deque([("bus", root)])
    while line:
        path, thing = line.popleft()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, dict | list | set | deque):
            if getattr(thing, "maxlen", None) is None:
                found[path] += len(thing)
            inside = thing.values() if isinstance(thing, dict) else thing
            line.extend((f"{path}[]", each) for each in inside)
        elif type(thing).__module__.startswith(OURS) and not isinstance(thing, type):
            line.extend((f"{path}.{name}", each) for name, each in attributes(thing))
    return found


def attributes(thing: object) -> list[tuple[str, object]]:
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    kept = {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
    return [*(kept | getattr(thing, "__dict__", {})).items()]


def alive() -> Counter[str]:
    """Return how many objects that belong to single requests there are, by class."""
    gc.collect()
    return Counter(
        kind.__name__
        for kind in map(type, gc.get_objects())
        if kind.__name__ in OF_A_REQUEST and kind.__module__.startswith(OURS)
    )


def tasks() -> Counter[str]:
    """Return the tasks beside this one, by name; the servers' are left out while they live."""
    return Counter(
        task.get_name()
        for task in asyncio.all_tasks()
        if task is not asyncio.current_task() and task.get_name().startswith("zejzl-")
    )


def timers() -> int:
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())
    return sum(not handle.cancelled() for handle in scheduled)


def sockets() -> int:
    """Return how many sockets this process has open."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the folder's own
            found += os.readlink(each).startswith("socket:")
    return found


# ── The run ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Soak:
    """What was found."""

    outcomes: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    halfway: dict[str, int] = field(default_factory=dict)
    at_end: dict[str, int] = field(default_factory=dict)
    lowest: float = 100.0  # of the retry budget
    at_last: float = 100.0  # of it, when the last fault ends
    full_after: float = float("inf")  # seconds of calm
    alive: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    open_tasks: int = 0
    open_timers: int = 0
    open_sockets: int = 0


@asynccontextmanager
async def world(seed: int, end: float, clock: Clock) -> AsyncIterator[tuple[Any, Any]]:
    """Yield a bus and its servers."""
    async with AsyncExitStack() as stack:
        servers = {name: await stack.enter_async_context(FaultServer()) for name in WIRES}
        settings = Settings(
            home=Path(tempfile.gettempdir()),  # nothing is written there: the store is in memory
            attempt_timeout=1.5,
            first_token_timeout=1.5,
            idle_timeout=1.5,
            deadline=10.0,
        )
        magic = FairyMagic(clock=clock, rng=Random(seed))
        bus = await stack.enter_async_context(
            AsyncMessageBus(
                settings, store=InMemoryStore(limit=KEPT, clock=clock), clock=clock, magic=magic
            )
        )
        stage = Stage(seed)
        for name, wire in WIRES.items():
            servers[name].play(name, stage.rule(name, end))
            address = servers[name].base_url(name, wire)
            await bus.register_provider(name, ADAPTERS[wire](address, "key", "m", clock=clock))
        for number in range(KEPT):
            magic.recoveries.record(
                "ai_provider:a",
                "as long as most are: " * 4,
                energy_used=float(number),
                request_id=uuid4().hex,
                **NOTHING_LEARNED,
            )
        for number in range(REMEMBERED):
            magic.acorns.answered(magic.gate.lane("a"), f"conversation {number}", None, cut=True)
        yield bus, servers


NOTHING_LEARNED: dict[str, Any] = {
    "failure_class": "unknown",
    "remedy": "wait",
    "success": False,
    "verified": None,
    "outcome": "filled",
}


async def soak(seconds: float, rate: float, seed: int, clock: Clock) -> Soak:
    """Play it."""
    found, rng = Soak(), Random(f"requests {seed}")
    before = sockets()
    async with world(seed, seconds, clock) as (bus, servers):
        begun = clock.now()

        async def ask(asking: Asking) -> None:
            found.outcomes[await outcome(bus, clock, asking)] += 1

        async def watch() -> None:
            for number in range(1, int(seconds / PHASE) + 1):
                await clock.sleep(begun + number * PHASE - 0.1 - clock.now())
                for server in servers.values():
                    server.log.clear()
                found.samples.append(sample(found.outcomes.total()))
                if not found.halfway and number * PHASE >= seconds / 2.0:
                    found.halfway = lengths(bus)

        async with asyncio.TaskGroup() as group:
            group.create_task(watch())
            for number in range(int(seconds * rate)):
                await clock.sleep(begun + (number + rng.random()) / rate - clock.now())
                group.create_task(ask(request(number, rng)))
                found.lowest = min(found.lowest, bus.magic.energy_level)
            found.at_last = bus.magic.energy_level
            calming = group.create_task(calm(bus, clock))
        found.full_after = calming.result()
        found.at_end = lengths(bus)
        found.alive, found.tasks = alive(), tasks()
    await clock.sleep(1.0)
    gc.collect()
    found.open_tasks = len(asyncio.all_tasks()) - 1
    found.open_timers, found.open_sockets = timers(), sockets() - before
    return found


async def calm(bus: AsyncMessageBus, clock: Clock) -> float:
    """Ask twice a second, of providers that are well; return when the retry budget was full."""
    began, full = clock.now(), float("inf")
    while clock.now() - began < CALM:
        if bus.magic.energy_level >= FULL:
            full = min(full, clock.now() - began)
        with suppress(Rejected, ProviderError):
            await bus.send("is all well?")
        await clock.sleep(0.5)
    return full


def verdicts(found: Soak, traced: bool) -> Iterator[tuple[str, bool]]:
    """Yield what was found, in words, and whether it holds."""
    yield f"wrong answers: {found.outcomes['wrong']}", not found.outcomes["wrong"]
    warm = found.samples[int(len(found.samples) * WARM) :]
    warm = warm[len(warm) % CYCLE if len(warm) > CYCLE else 0 :]  # each phase as often
    grows = slope(warm, lambda each: each.traced if traced else each.resident)
    what, most = ("held", TRACED) if traced else ("resident", RESIDENT)
    yield f"bytes {what}, per 1,000 requests: {grows:+,.0f} (≤ {most:,.0f})", grows <= most
    grown = {
        path: (found.halfway.get(path, 0), length)
        for path, length in found.at_end.items()
        if length > 1.1 * found.halfway.get(path, 0) + ROOM
    }
    yield f"containers that grew: {grown or 'none'} of {len(found.at_end)}", not grown
    yield (
        f"retry budget: {found.lowest:.1f} at least, {found.at_last:.1f} at the last fault, "
        f"full {found.full_after:.1f} s after it (≤ {CALM:g})",
        found.full_after <= CALM,
    )
    yield f"objects of requests alive in calm: {dict(found.alive) or 'none'}", not found.alive
    usual = Counter({"zejzl-snapshots": 1, "zejzl-pruning": 1})
    yield f"tasks in calm: {', '.join(found.tasks.elements())}", found.tasks == usual
    yield (
        f"open at the end: {found.open_tasks} tasks, {found.open_timers} timers, "
        f"{found.open_sockets} sockets",
        not (found.open_tasks or found.open_timers or found.open_sockets),
    )


def run(seconds: float, rate: float, seed: int, *, traced: bool, real: bool) -> Soak:
    if traced:
        tracemalloc.start()
    if real:
        return asyncio.run(soak(seconds, rate, seed, SystemClock()))
    return virtual.run(soak(seconds, rate, seed, virtual.VirtualClock()))


def print_found(found: Soak, seconds: float, rate: float, *, traced: bool) -> bool:
    """Print it; return whether everything holds."""
    total = found.outcomes.total()
    print(f"\n{seconds:g} s at {rate:g} requests/s: {total:,} requests")
    for name, count in found.outcomes.most_common():
        print(f"    {name:<18}{count:9,}{100.0 * count / total:7.2f} %")
    for each in found.samples[:: max(1, len(found.samples) // 6)]:
        size = each.traced if traced else each.resident
        print(f"    after {each.requests:7,} requests {size / 2**20:8.2f} MB")
    checked = list(verdicts(found, traced))
    for text, ok in checked:
        print(f"{'pass' if ok else 'MISS'}  {text}")
    return all(ok for _, ok in checked)


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--rate", type=float, default=200.0, help="requests a second")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--real", action="store_true", help="by the machine's clock")
    given = arguments.parse_args()
    print_machine()
    seconds, well = 60.0 * given.minutes, True
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        runs = [
            (
                rate,
                traced,
                pool.submit(run, seconds, rate, given.seed, traced=traced, real=given.real),
            )
            for rate, traced in ((given.rate, False), (given.rate * TRACED_RATE, True))
        ]
        for rate, traced, found in runs:
            well &= print_found(found.result(), seconds, rate, traced=traced)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
