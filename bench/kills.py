"""kill -9 with 500 requests in flight or parked, restart, again and again: is anything lost?

    python bench/kills.py [--times 50] [--requests 500] [--seed 1]

A process sends requests over real sockets and keeps them in SQLite, half of them with `park`; the
provider is down at first, then well, then limps. At a random moment the process is killed. The next
one recovers with `resend`, waits until nothing is parked any more, and its store is held against
the provider's log:

    lost         accepted requests that are neither answered nor given up nor failed
    unanswered   parked requests that are neither answered nor dead letters
    twice        requests that the provider answered twice; more than twice is a failure
    unflagged    requests answered twice whose reply does not say `maybe_duplicate`

Exit code 1 if anything is lost, unanswered, unflagged, answered three times, or if the database
breaks one of its laws.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

from machine import print_machine

from zejzl.stores import SqliteStore
from zejzl.testing import Call, FaultServer, faults
from zejzl.testing.behaviours import Play

ROOT = str(Path(__file__).resolve().parents[1])
LATEST = 2.0  # seconds after which it is killed
MENDING = 120.0  # seconds that the next one has to mend everything
DOWN, WELL = 0.25, 1.0  # seconds since the start of a run: when the outage ends, when it limps

# Sends for ever; says when it has begun. Killed at any moment.
SENDER = """
import asyncio, os, sys
from ai_framework import AsyncMessageBus
from zejzl.providers import OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import SqliteStore

async def main(path, url, run, requests):
    settings = Settings(park_spacing=0.2, park_tries=100, patience=0.0, attempt_timeout=1.0)
    async with AsyncMessageBus(settings, store=SqliteStore(path)) as bus:
        await bus.register_provider("a", OpenAICompatible(url, "key", "m"))

        async def worker(number):
            for turn in range(1_000):
                words = f"{run}-{number}-{turn}:"
                try:
                    if number % 2:
                        await bus.send(words, park=True)
                    else:
                        await bus.send(words, conversation_id=f"c{number % 50}")
                except Exception:
                    await asyncio.sleep(0.05)

        os.write(1, b"started" + bytes([10]))
        await asyncio.gather(*(worker(number) for number in range(requests)))

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
"""

# Recovers what the dead has left, and waits until nothing is parked any more.
MENDER = """
import asyncio, sys
from ai_framework import AsyncMessageBus
from zejzl.providers import OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import SqliteStore

async def main(path, url):
    settings = Settings(park_spacing=0.2, park_tries=100)
    async with AsyncMessageBus(settings, store=SqliteStore(path)) as bus:
        await bus.register_provider("a", OpenAICompatible(url, "key", "m"))
        found = await bus.recover(resend=True)
        while any(each.state != "given up" for each in await bus.parked(limit=100_000)):
            await asyncio.sleep(0.05)
        print(len(found))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@dataclass(slots=True)
class Damage:
    """What one kill did.

    Attributes:
        accepted: Requests of this run in the store.
        in_flight, parked: Of them when the process died.
        lost, unanswered, unflagged, thrice, broken: See the module.
    """

    accepted: int = 0
    in_flight: int = 0
    parked: int = 0
    lost: int = 0
    unanswered: int = 0
    twice: int = 0
    unflagged: int = 0
    thrice: int = 0
    broken: int = 0

    @property
    def is_whole(self) -> bool:
        return not (self.lost or self.unanswered or self.unflagged or self.thrice or self.broken)


def provider(began: float, seed: str) -> Play:
    """Return a provider that is down, then well, then limps."""
    chance = Random(seed)
    well = faults.ok(delay=faults.between(0.0, 0.05, seed=chance.getrandbits(32)))
    broken: list[Play] = [faults.overloaded(), faults.reset(), faults.cut(20), faults.status(500)]

    def play(call: Call) -> Play:
        if call.at < began + DOWN:
            return faults.overloaded()
        limps = call.at > began + WELL and chance.random() < 0.2
        return chance.choice(broken) if limps else well

    return play


async def started(program: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/src{os.pathsep}{ROOT}"},
    )


async def kill_once(
    server: FaultServer, path: Path, run: int, requests: int, rng: Random
) -> Damage:
    """Let a process send, kill it, let another one mend; return what that came to."""
    url = server.base_url("a")
    sender = await started(SENDER, str(path), url, str(run), str(requests))
    assert sender.stdout is not None
    assert await sender.stdout.readline() == b"started\n"
    server.play("a", provider(server.now(), f"{run} {rng.random()}"))
    await asyncio.sleep(rng.uniform(0.02, LATEST))
    sender.send_signal(signal.SIGKILL)
    await sender.wait()
    damage = Damage()
    await look(path, run, damage)
    server.play("a", faults.ok(delay=faults.between(0.0, 0.02, seed=run)))
    mender = await started(MENDER, str(path), url)
    try:
        async with asyncio.timeout(MENDING):
            assert await mender.wait() == 0, "the next process did not end well"
    finally:
        if mender.returncode is None:
            mender.kill()
    await judge(server, path, run, damage)
    return damage


async def look(path: Path, run: int, damage: Damage) -> None:
    """Take in what was under way when the process died."""
    store = SqliteStore(path)
    await store.open()
    try:
        for message in await store.messages(limit=1_000_000):
            if message.content.startswith(f"{run}-"):
                damage.accepted += 1
                damage.in_flight += message.response is None and message.error is None
        damage.parked = sum(kept.state == "parked" for kept in await store.parked(limit=1_000_000))
    finally:
        await store.close()


async def judge(server: FaultServer, path: Path, run: int, damage: Damage) -> None:
    """Hold the store against the provider's log."""
    answered = Counter(
        str(call.body["messages"][-1]["content"])
        for call in server.calls("a")
        if call.status == 200 and call.words and call.outcome == "ok"
    )
    store = SqliteStore(path)
    await store.open()
    try:
        damage.broken = len(await store.check())
        for message in await store.messages(limit=1_000_000):
            if not message.content.startswith(f"{run}-"):
                continue
            kept = await store.kept(id=message.id)
            assert kept is not None
            damage.lost += kept.state == "accepted"
            damage.unanswered += kept.terms.parks and (
                kept.state == "parked" or (kept.state == "settled" and message.response is None)
            )
            times = answered[message.content]
            damage.twice += times == 2
            damage.thrice += times > 2
            damage.unflagged += times == 2 and not kept.maybe_duplicate
    finally:
        await store.close()


async def kill_many(times: int, requests: int, seed: int) -> list[Damage]:
    """Do it so many times on one database; show each."""
    rng, found = Random(seed), []
    print(f"{'run':>4} {'accepted':>9} {'in flight':>10} {'parked':>7} {'lost':>5}", end="")
    print(f" {'unanswered':>11} {'twice':>6} {'unflagged':>10} {'seconds':>8}")
    with tempfile.TemporaryDirectory() as folder:
        async with FaultServer() as server:
            for run in range(times):
                began = time.monotonic()
                one = await kill_once(server, Path(folder) / "z.db", run, requests, rng)
                found.append(one)
                print(f"{run:4} {one.accepted:9} {one.in_flight:10} {one.parked:7}", end="")
                print(f" {one.lost:5} {one.unanswered:11} {one.twice:6} {one.unflagged:10}", end="")
                print(f" {time.monotonic() - began:8.1f}" + ("" if one.is_whole else "  FAILED"))
                server.log.clear()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print_machine()
    found = asyncio.run(kill_many(args.times, args.requests, args.seed))
    total = sum(each.accepted for each in found)
    whole = all(each.is_whole for each in found)
    print(f"{len(found)} kills, {total:,} accepted requests: ", end="")
    print("nothing lost" if whole else "DAMAGED")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
