"""Our ledger against the server's own bill, over a storm of mixed faults on three wires.

    python bench/ledger.py [--seeds 1 2] [--requests 3000]

The fault server bills what it was asked and every word it sent, whatever became of the answer; of
a plain answer all of it, which was made before its first word was sent. A call that it refused, or
that never reached it, is free. Printed are, for each provider, the calls
and the tokens of both sides, and what of ours is unsettled, by how those calls ended. Time is
virtual. Exit code 1 if a call is missing or the tokens differ by more than 1 %.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from machine import print_machine
from ten_stage import ADAPTERS

from ai_framework import AsyncMessageBus
from zejzl.errors import ZejzlError
from zejzl.magic import FairyMagic
from zejzl.messages import Attempt
from zejzl.ports import Spending
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore
from zejzl.testing import Call, FaultServer, faults, virtual
from zejzl.testing.behaviours import CANONICAL, Answer, Play, WireName

WIRES: dict[str, WireName] = {"a": "openai", "b": "anthropic", "c": "gemini"}
RATE = 20.0
FAULTY = 0.3  # of the calls
LATE = 5.0
PACE = 0.002  # seconds between the words of a stream
LEAVING = 0.03  # of the callers leave before the end
TOLERANCE = 0.01
BROKEN = "cut", "reset", "malformed"
WORDS = len(CANONICAL.split())


def kinds() -> list[Play]:
    """Return what goes wrong: one of these for a share of the calls."""
    broken: list[Play] = [
        faults.status(500),
        faults.overloaded(),
        faults.rate_limited(1.0),
        faults.html(),
        faults.reset(),
        faults.reset(after=10),
        faults.cut(30),
        faults.stall(20),
        faults.malformed(20),
        faults.error_event(20),
        faults.silence(),
        faults.slow_first_token(LATE),
        faults.empty(),
        faults.no_sentinel(),
        faults.no_finish(),
        faults.filtered_midway(20),
    ]
    return [replace(each, pace=PACE) if isinstance(each, Answer) else each for each in broken]


def billed(call: Call) -> tuple[int, int] | None:
    """Return prompt and answer tokens of a call as the server bills it; None: it is free."""
    refused = call.status is not None and call.status >= 300
    if refused or call.outcome.startswith("rejected"):
        return None
    whole = call.words > 0 and not call.stream and call.outcome in BROKEN
    return call.prompt_tokens, WORDS if whole else call.words


@dataclass(slots=True)
class Books:
    """Both sides' books.

    Attributes:
        spent: Ours, by provider.
        attempts: Each of ours.
        bills: The server's, by provider: tokens of question and answer, a call each.
        refused: Its calls that are free, by provider.
    """

    spent: dict[str, Spending] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    bills: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)


def play(name: str, seed: int) -> Play:
    chance, broken = Random(f"{seed} {name}"), kinds()

    def rule(call: Call) -> Play:
        if not call.probe and chance.random() < FAULTY:
            return chance.choice(broken)
        return faults.ok(delay=chance.uniform(0.04, 0.4), pace=PACE)

    return rule


async def ask(bus: AsyncMessageBus, prompt: str, streams: bool, leaves: float | None) -> None:
    async def asked() -> None:
        if streams:
            async for _ in bus.stream(prompt, allow_restart=True):
                pass
        else:
            await bus.send(prompt)

    with suppress(ZejzlError, TimeoutError):
        async with asyncio.timeout(leaves):
            await asked()


async def storm(seed: int, requests: int) -> Books:
    """Play it."""
    rng, clock, books = Random(f"ledger {seed}"), virtual.VirtualClock(), Books()
    settings = Settings(
        home=Path(tempfile.gettempdir()),
        first_token_timeout=2.0,
        idle_timeout=2.0,
        attempt_timeout=3.0,
        deadline=10.0,
    )
    store = InMemoryStore(limit=2 * requests, clock=clock)
    magic = FairyMagic(clock=clock, rng=Random(seed))
    async with (
        FaultServer() as server,
        AsyncMessageBus(settings, store=store, clock=clock, magic=magic) as bus,
    ):
        for name, wire in WIRES.items():
            server.play(name, play(name, seed))
            url = server.base_url(name, wire)
            adapter = ADAPTERS[wire](base_url=url, api_key="key", model="m", clock=clock)
            await bus.register_provider(name, adapter)
        async with asyncio.TaskGroup() as tasks:
            for number in range(requests):
                await asyncio.sleep(rng.expovariate(RATE))
                prompt = f"question {number} {'word ' * rng.randrange(80)}"
                leaves = rng.uniform(0.0, 0.5) if rng.random() < LEAVING else None
                tasks.create_task(ask(bus, prompt, rng.random() < 0.5, leaves))
        await asyncio.sleep(5.0)  # until the server has noticed who left
        books.spent = {each.provider: each for each in await bus.costs()}
        for message in await store.messages(limit=2 * requests):
            books.attempts += await store.attempts(message.id)
        for name in WIRES:
            told = [billed(call) for call in server.calls(name)]
            books.bills[name] = [bill for bill in told if bill is not None]
            books.refused[name] = sum(bill is None for bill in told)
    return books


def show(books: Books, tolerance: float = TOLERANCE) -> bool:
    """Print both sides; return whether they agree."""
    agree = True
    print(f"{'':10} {'calls':>7} {'server':>7}   {'tokens':>8} {'server':>8} {'off':>7}", end="")
    print(f"   {'unsettled':>9} {'tokens':>7}")
    for name, spent in books.spent.items():
        ours = spent.prompt_tokens + spent.completion_tokens
        theirs = sum(map(sum, books.bills[name]))
        calls = len(books.bills[name]) + books.refused[name]
        off = ours / theirs - 1.0
        loose = [each for each in books.attempts if each.provider == name and not each.bill.settled]
        tokens = sum(each.bill.prompt_tokens + each.bill.completion_tokens for each in loose)
        print(f"{name:10} {spent.calls:7} {calls:7}   {ours:8} {theirs:8} {off:+7.2%}", end="")
        print(f"   {spent.unsettled:9} {tokens:7}")
        agree &= spent.calls == calls and abs(off) <= tolerance and len(loose) == spent.unsettled
    ends = Counter(each.outcome for each in books.attempts if not each.bill.settled)
    print("unsettled:", ", ".join(f"{count} {end}" for end, count in ends.most_common()))
    return agree


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--requests", type=int, default=3_000)
    args = parser.parse_args()
    print_machine()
    agree = True
    for seed in args.seeds:
        print(f"\nseed {seed}, {args.requests:,} requests")
        agree &= show(virtual.run(storm(seed, args.requests)))
    print("\nthe books agree" if agree else "\nthe books DISAGREE")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
