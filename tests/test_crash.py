"""kill -9 at random moments: nothing accepted is lost, nothing is half written."""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest

from ai_framework import AsyncMessageBus
from zejzl.settings import Settings
from zejzl.stores import SqliteStore

# Sends for ever, 200 at once, in 50 conversations. Says which requests it is about to send and
# which were answered, each in one write, so that what it said last is known after its death.
SENDER = """
import asyncio, os, sys
from ai_framework import AsyncMessageBus
from zejzl.providers import OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import SqliteStore
from zejzl.testing import FaultServer, faults

async def main(path):
    async with FaultServer() as server:
        server.play("a", faults.ok(delay=faults.between(0.0, 0.02, seed=1)))
        async with AsyncMessageBus(Settings(), store=SqliteStore(path)) as bus:
            await bus.register_provider("a", OpenAICompatible(server.base_url("a"), "k", "m"))

            async def worker(n):
                for turn in range(10_000):
                    words = f"{os.getpid()}-{n}-{turn}"
                    await bus.send(words, conversation_id=f"c{n % 50}")
                    os.write(1, f"answered {words}\\n".encode())

            os.write(1, b"started\\n")
            await asyncio.gather(*(worker(n) for n in range(200)))

asyncio.run(main(sys.argv[1]))
"""


async def start_sender(path: Path) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SENDER, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"started\n"
    return process


async def kill(process: asyncio.subprocess.Process) -> set[str]:
    """Kill it and return what it had said was answered."""
    process.send_signal(signal.SIGKILL)
    assert process.stdout is not None
    said = (await process.stdout.read()).decode()
    await process.wait()
    whole = said[: said.rfind("\n") + 1]
    return {line.removeprefix("answered ") for line in whole.splitlines()}


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_kill_9_loses_nothing_accepted_and_leaves_no_half_turn(tmp_path: Path) -> None:
    path, rng = tmp_path / "z.db", random.Random(9)
    answered: set[str] = set()
    for _ in range(20):
        process = await start_sender(path)
        await asyncio.sleep(rng.uniform(0.02, 0.6))
        answered |= await kill(process)

        async with AsyncMessageBus(Settings(), store=SqliteStore(path)) as bus:
            assert await bus.store.check() == []
            recovered = await bus.recover()
            assert len(recovered) <= 200
            assert all(each.maybe_duplicate for each in recovered)
            assert await bus.recover() == []

    store = SqliteStore(path)
    await store.open()
    messages = await store.messages(limit=1_000_000)
    kept = {message.content for message in messages if message.response is not None}
    assert answered
    assert answered <= kept
    assert all((message.response is None) != (message.error is None) for message in messages)
    for n in range(50):
        history = await store.history(f"c{n}", 1_000_000)
        assert all(message.response for message in history)
    assert sum([len(await store.history(f"c{n}", 1_000_000)) for n in range(50)]) == len(kept)
    await store.close()


async def test_killing_one_of_two_processes_leaves_the_others_requests_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "z.db"
    one, other = await start_sender(path), await start_sender(path)
    await asyncio.sleep(0.3)

    await kill(one)
    async with AsyncMessageBus(Settings(), store=SqliteStore(path)) as bus:
        recovered = await bus.recover()

    assert {each.message.content.split("-")[0] for each in recovered} <= {str(one.pid)}
    await asyncio.sleep(0.1)
    assert other.returncode is None
    await kill(other)


async def test_a_full_disk_refuses_before_anything_is_sent(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk, in a process of its own."""
    script = f"""
import asyncio, resource, signal
from ai_framework import AsyncMessageBus
from zejzl.errors import CircuitOpen, StoreError
from zejzl.settings import Settings
from zejzl.stores import SqliteStore
from zejzl.testing import ScriptedProvider

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with AsyncMessageBus(Settings(), store=SqliteStore({str(tmp_path / "z.db")!r})) as bus:
        provider = ScriptedProvider(["ok"])
        await bus.register_provider("a", provider)
        await bus.send("before")
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        sent, refused = 0, None
        for _ in range(200):
            try:
                await bus.send("x" * 10_000)
                sent += 1
            except (StoreError, CircuitOpen) as problem:
                refused = refused or problem
        assert isinstance(refused, StoreError), refused
        print(sent + 1, len(provider.requests), refused)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ},
    )
    out, err = await process.communicate()

    assert process.returncode == 0, err.decode()
    answered, called, *_ = out.decode().split()
    assert int(answered) <= int(called) <= int(answered) + 1
    assert "z.db" in out.decode()
