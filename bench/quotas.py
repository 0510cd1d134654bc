"""Two processes with four tasks each on one SQLite file, sharing one rate limit: overshoot?

    python bench/quotas.py [--requests 300] [--tokens 20000] [--seconds 130]

Each task asks as fast as it may. The provider's log tells the most calls and tokens in any minute;
what it sees differs from what was booked by the time on the way. Also printed is what a booking
costs. Exit code 1 where a minute held more than 2 % above the limit, or less than 90 % of it was
used.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from kills import ROOT
from machine import print_machine

from zejzl.testing import Call, FaultServer, faults

TOLERANCE = 0.02
LEAST_USE = 0.9
TASKS = 4

SENDER = """
import asyncio, sys
from ai_framework import AsyncMessageBus
from zejzl.errors import ZejzlError
from zejzl.providers import OpenAICompatible
from zejzl.settings import RateLimit, Settings
from zejzl.stores import SqliteStore

async def main(path, url, requests, tokens, seconds, tasks):
    limit = RateLimit(requests or None, tokens or None)
    settings = Settings(rate_limits={"a": limit}, deadline=None, max_tokens=60)
    async with AsyncMessageBus(settings, store=SqliteStore(path)) as bus:
        await bus.register_provider("a", OpenAICompatible(url, "key", "m"))

        async def task(number):
            turn = 0
            while True:
                turn += 1
                try:
                    await bus.send(f"question {number} {turn}")
                except ZejzlError:
                    await asyncio.sleep(0.1)

        running = [asyncio.create_task(task(number)) for number in range(tasks)]
        await asyncio.sleep(seconds)
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)

asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
"""


async def shared(requests: int, tokens: int, seconds: int) -> list[Call]:
    """Let two processes ask; return what the provider was asked."""
    with tempfile.TemporaryDirectory() as folder:
        async with FaultServer() as server:
            server.play("a", faults.ok(tokens=40, delay=faults.between(0.0, 0.02, seed=1)))
            numbers = map(str, (requests, tokens, seconds, TASKS))
            words = [str(Path(folder) / "z.db"), server.base_url("a"), *numbers]
            processes = [
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-c",
                    SENDER,
                    *words,
                    cwd=ROOT,
                    env={**os.environ, "PYTHONPATH": f"{ROOT}/src{os.pathsep}{ROOT}"},
                )
                for _ in range(2)
            ]
            await asyncio.gather(*(process.wait() for process in processes))
            return server.calls("a")


def most_in_a_minute(calls: list[Call], weigh: bool) -> int:
    """Return the most calls, or tokens, that began in any minute."""
    weights = [call.prompt_tokens + call.words if weigh else 1 for call in calls]
    most = total = first = 0
    for call, weight in zip(calls, weights, strict=True):
        total += weight
        while calls[first].at <= call.at - 60.0:
            total -= weights[first]
            first += 1
        most = max(most, total)
    return most


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--seconds", type=int, default=130)
    args = parser.parse_args()
    print_machine()
    good = True
    for what, limit in (("requests", args.requests), ("tokens", args.tokens)):
        requests, tokens = (limit, 0) if what == "requests" else (0, limit)
        began = time.monotonic()
        calls = asyncio.run(shared(requests, tokens, args.seconds))
        most = most_in_a_minute(calls, weigh=what == "tokens")
        over = most / limit - 1.0
        print(f"{what:9} {limit:6} a minute: {most:6} at most ({over:+.1%}), ", end="")
        print(f"{len(calls)} calls in {time.monotonic() - began:.0f} s")
        good &= over <= TOLERANCE and most >= LEAST_USE * limit
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
