"""What a store adds to a call, and how many writes it commits in a second.

    python bench/store.py [--folder FOLDER] [--calls 3000]

A call is one `accept` and one `settle`, both awaited, as the bus makes them. `hop` is the floor
under every file store: two trips to an idle thread and back, with nothing done there. The rounds
of all stores are interleaved, so that a noisy neighbour is noise to all; ratios count.
"""

import argparse
import asyncio
import os
import platform
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue

from zejzl.messages import Attempt, Message
from zejzl.ports import Store
from zejzl.stores import InMemoryStore, SqliteStore

ROUNDS = 5
TRIED = [Attempt("claude", "opus", "ok", 0.1)]

Call = Callable[[Message], Awaitable[None]]


def call_of(store: Store) -> Call:
    """Return one call's writes."""

    async def call(message: Message) -> None:
        await store.accept(message, "claude", "opus")
        await store.settle(message.answered("an answer " * 20, "claude", 0.1), TRIED)

    return call


def hop() -> Call:
    """Return two trips to a thread and back."""
    waiting: SimpleQueue[asyncio.Future[None]] = SimpleQueue()

    def run() -> None:
        while True:
            future = waiting.get()
            future.get_loop().call_soon_threadsafe(future.set_result, None)

    async def call(_: Message) -> None:
        for _trip in range(2):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting.put(future)
            await future

    threading.Thread(target=run, daemon=True).start()
    return call


async def seconds_per_call(call: Call, *, calls: int, concurrency: int) -> list[float]:
    """Return how long each of `calls` took, `concurrency` of them at any time."""
    taken: list[float] = []
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            message = Message.create("a question " * 20, "bench", "claude", None)
            begun = time.perf_counter()
            await call(message)
            taken.append(time.perf_counter() - begun)

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return taken


async def compare(calls_of: dict[str, Call], *, calls: int, concurrency: int) -> None:
    taken: dict[str, list[float]] = {name: [] for name in calls_of}
    spent = dict.fromkeys(calls_of, 0.0)
    for _ in range(ROUNDS):
        for name, call in calls_of.items():
            begun = time.perf_counter()
            taken[name] += await seconds_per_call(
                call, calls=calls // ROUNDS, concurrency=concurrency
            )
            spent[name] += time.perf_counter() - begun
    for name, times in taken.items():
        times.sort()
        p10, p50, p99 = (times[int(len(times) * share)] * 1e6 for share in (0.1, 0.5, 0.99))
        rate = len(times) / spent[name]
        print(f"{concurrency:>4} {name:<14}{p10:>9.0f}{p50:>9.0f}{p99:>9.0f}{rate:>11,.0f}")


async def commits(store: Store, *, writers: int, writes: int) -> float:
    """Return committed writes per second of `writers` who each wait for their own."""
    left = iter(range(writes))

    async def write() -> None:
        for n in left:
            await store.keep_setting(f"bench {n % 100}", "value")

    begun = time.perf_counter()
    await asyncio.gather(*(write() for _ in range(writers)))
    return writes / (time.perf_counter() - begun)


def print_machine() -> None:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} × {platform.machine()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"commit {commit or 'none'}"
    )


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, help="where the databases are made")
    arguments.add_argument("--calls", type=int, default=3_000)
    options = arguments.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        stores: dict[str, Store] = {
            "memory": InMemoryStore(),
            "sqlite": SqliteStore(Path(name) / "normal.db"),
            "sqlite, full": SqliteStore(Path(name) / "full.db", durability="full"),
        }
        for store in stores.values():
            await store.open()
        calls_of = {"hop": hop(), **{name: call_of(store) for name, store in stores.items()}}
        print("\none call, µs\nat once             p10      p50      p99    calls/s")
        for concurrency in (1, 32, 256):
            await compare(calls_of, calls=options.calls, concurrency=concurrency)
        print("\nwrites committed per second\nwriters " + "".join(f"{n:>14}" for n in stores))
        for writers in (1, 32, 256, 1_000):
            rates = [
                await commits(store, writers=writers, writes=options.calls)
                for store in stores.values()
            ]
            print(f"{writers:>7} " + "".join(f"{rate:>14,.0f}" for rate in rates))
        for store in stores.values():
            await store.close()


if __name__ == "__main__":
    asyncio.run(main())
