"""The whole loop over real sockets: the bad provider is found, the change applied, tried, kept."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from zejzl.agents import AnalyzerAgent, ImproverAgent, LearnerAgent
from zejzl.errors import ZejzlError
from zejzl.providers import OpenAICompatible
from zejzl.settings import Settings
from zejzl.testing import FaultServer, faults

pytestmark = pytest.mark.slow

AT_ONCE = 20


async def send_many(bus: AsyncMessageBus, n: int, prefix: str) -> float:
    """Send so many questions, each in a conversation of its own; return the share answered."""
    answered = 0

    async def ask_some(first: int) -> None:
        nonlocal answered
        for number in range(first, n, AT_ONCE):
            try:
                # Every fifth pins the provider that is asked first, as a caller may.
                how: dict[str, Any] = {"failover": False} if number % 5 == 0 else {}
                await bus.send("hello", conversation_id=f"{prefix}{number}", **how)
                answered += 1
            except ZejzlError:
                pass

    await asyncio.gather(*(ask_some(first) for first in range(AT_ONCE)))
    return answered / n


async def started(server: FaultServer, home: Path) -> AsyncMessageBus:
    """Return a bus that asks a provider first that is slow and fails now and then."""
    server.play("bad", faults.flaky(0.1, faults.status(500), otherwise=faults.ok(delay=0.03)))
    server.play("good", faults.ok())
    bus = AsyncMessageBus(Settings(home=home, hedging=False, max_attempts=1))
    await bus.start()
    for name in ("bad", "good"):
        await bus.register_provider(name, OpenAICompatible(server.base_url(name), "key", "model"))
    return bus


async def test_the_bad_provider_is_found_and_the_change_that_helps_is_kept(tmp_path: Path) -> None:
    async with FaultServer() as server:
        bus = await started(server, tmp_path)
        before = await send_many(bus, 1_000, "a")

        events = await bus.traffic(1_000)
        analysis = await AnalyzerAgent(bus).analyze(events)
        learned = await LearnerAgent(bus).learn(events)
        improved = await ImproverAgent(bus).improve(analysis, learned)
        proposed: Any = improved["improvements"]
        change = next(each for each in proposed if each["action"] == "reorder_providers")
        assert change["target"] == "bad"
        assert change["finding_ids"]
        assert change["settings"] == {"failover": ["good", "bad"]}
        await bus.experiment("order", arms={"as it is": None, "reordered": change})
        while any(each["state"] == "running" for each in bus.experiments):
            await send_many(bus, 200, f"b{len(server.log)}-")
            assert len(server.log) < 6_000
        after = await send_many(bus, 300, "c")

        (ended,) = bus.experiments
        assert ended["state"] == "kept", ended
        assert [each.id for each in bus.changes if each.stands] == [change["id"]]
        assert list(bus.providers) == ["good", "bad"]
        assert after > before
        await bus.stop()


async def test_a_planted_bad_change_is_taken_back_by_itself(tmp_path: Path) -> None:
    async with FaultServer() as server:
        bus = await started(server, tmp_path)
        await bus.apply({"id": "well", "settings": {"failover": ["good", "bad"]}})
        planted = {"id": "planted", "settings": {"failover": ["bad", "good"]}}
        await bus.apply(planted)

        await bus.experiment("watch", arms={"before": None, "planted": planted})
        while any(each["state"] == "running" for each in bus.experiments):
            await send_many(bus, 200, f"b{len(server.log)}-")
            assert len(server.log) < 6_000

        assert [each["state"] for each in bus.experiments] == ["reverted"]
        assert [each.id for each in bus.changes if each.stands] == ["well"]
        assert list(bus.providers) == ["good", "bad"]
        await bus.stop()
