"""What `bus.send` costs over one bare aiohttp POST to the same server, interleaved in one run.

    python bench/bus.py [--rounds 40] [--store memory|sqlite|both]

Prints medians in milliseconds, their difference and ratio, for 1, 32 and 256 calls at once. The
server runs in a process of its own and answers at once.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
from machine import print_machine

from ai_framework import AsyncMessageBus
from zejzl.ports import Store
from zejzl.providers import OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore, SqliteStore

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "An answer of a few words."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11},
    }
).encode()
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: 1\r\n"
    b"content-length: %d\r\n\r\n" % len(ANSWER)
)


def serve(ready: Connection) -> None:
    """Answer every POST at once and as cheaply as can be: the client is what is measured."""

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            self.rest = b""

        def data_received(self, data: bytes) -> None:
            self.rest += data
            while True:
                head, found, rest = self.rest.partition(b"\r\n\r\n")
                if not found:
                    return
                lower = head.lower()
                at = lower.find(b"content-length:")
                size = int(lower[at + 15 :].split(b"\r\n", 1)[0])
                if len(rest) < size:
                    return
                self.rest = rest[size:]
                self.transport.write(HEAD + ANSWER)  # type: ignore[attr-defined]

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


async def timed(call: Callable[[], Awaitable[object]], calls: int, at_once: int) -> float:
    """Return milliseconds per call."""

    async def worker() -> None:
        for _ in range(calls // at_once):
            await call()

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return (time.perf_counter() - started) * 1000.0 / (calls // at_once * at_once)


async def compare(store: Store, base_url: str, rounds: int) -> list[tuple[int, float, float]]:
    """Return (calls at once, median ms of a bare POST, median ms of the bus)."""
    settings = Settings(home=Path(tempfile.gettempdir()))
    found = []
    async with aiohttp.ClientSession() as session, AsyncMessageBus(settings, store=store) as bus:
        await bus.register_provider("server", OpenAICompatible(base_url, "key", "m"))
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}

        async def bare() -> object:
            async with session.post(f"{base_url}/chat/completions", json=body) as response:
                return await response.json()

        async def ours() -> object:
            return await bus.send("hello")

        for at_once in (1, 32, 256):
            calls = max(256, at_once * 2)
            await timed(bare, calls, at_once)
            await timed(ours, calls, at_once)
            pairs = [
                (await timed(bare, calls, at_once), await timed(ours, calls, at_once))
                for _ in range(rounds)
            ]
            theirs = statistics.median(pair[0] for pair in pairs)
            extra = statistics.median(pair[1] - pair[0] for pair in pairs)
            found.append((at_once, theirs, extra))
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=40)
    arguments.add_argument("--store", choices=("memory", "sqlite", "both"), default="both")
    chosen = arguments.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    base_url = f"http://127.0.0.1:{ours.recv()}/v1"
    print_machine()
    print(f"{'store':8} {'at once':>7} {'POST ms':>9} {'bus adds ms':>12} {'ratio':>6}")
    for name, goal in (("memory", 0.15), ("sqlite", 0.30)):
        if chosen.store not in (name, "both"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            store = InMemoryStore() if name == "memory" else SqliteStore(f"{folder}/bench.db")
            for at_once, bare, extra in asyncio.run(compare(store, base_url, chosen.rounds)):
                ratio = (bare + extra) / bare
                verdict = "" if extra <= goal else f"  over the goal of {goal}"
                print(f"{name:8} {at_once:7} {bare:9.3f} {extra:12.3f} {ratio:6.2f}{verdict}")
    server.terminate()


if __name__ == "__main__":
    main()
