"""The seed's integration test, its eight checks in its order, on a bus over real sockets."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ai_framework import AsyncMessageBus
from zejzl.errors import Shielded
from zejzl.providers import OpenAICompatible
from zejzl.settings import Settings
from zejzl.testing import FaultServer, faults


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer() as running:
        yield running


@pytest.fixture
async def bus(server: FaultServer, tmp_path: Path) -> AsyncIterator[AsyncMessageBus]:
    """A bus with the SQLite file of a user, and two providers."""
    async with AsyncMessageBus(Settings(home=tmp_path)) as started:
        for name in ("alpha", "beta"):
            provider = OpenAICompatible(server.base_url(name), "key", "model")
            await started.register_provider(name, provider)
        yield started


async def test_the_message_bus_starts_with_its_magic(bus: AsyncMessageBus) -> None:
    text = await bus.send_message("hello", "alpha")

    assert text
    assert {"ai_provider", "persistence", "agent_coordinator", "tool_call"} <= {
        *bus.magic.circuit_breakers
    }


async def test_the_status_tells_how_things_are(bus: AsyncMessageBus) -> None:
    status = await bus.magic.get_system_status()

    assert (status["energy_level"], status["acorn_reserve"]) == (100.0, 5)
    assert status["is_shielded"] is False
    assert isinstance(status["circuit_breakers"], dict)
    assert status["circuit_breakers"]["ai_provider"]["state"] == "closed"
    assert (status["healing_history_count"], status["learning_preferences_count"]) == (0, 0)


async def test_an_acorn_makes_an_answer_longer(bus: AsyncMessageBus, server: FaultServer) -> None:
    server.play("alpha", faults.ok())  # sixty words

    boost = await bus.magic.acorn_vitality_boost("agent", {"max_tokens": 1024})
    reply = await bus.send("hello", "alpha", max_tokens=50)

    factor, config = boost["vitality_boost"], boost["new_config"]
    assert isinstance(factor, float) and 1.1 <= factor <= 1.5
    assert config == {"max_tokens": int(1024 * factor)}
    assert boost["acorns_remaining"] == 4
    assert (len(reply.text.split()), reply.truncated) == (60, False)
    assert [call.max_tokens for call in server.calls("alpha")] == [50, 62]
    assert bus.magic.acorn_reserve == 3


async def test_the_shield_lets_only_critical_work_pass(
    bus: AsyncMessageBus, server: FaultServer
) -> None:
    raised = await bus.magic.fairy_shield(True)

    with pytest.raises(Shielded):
        await bus.send("hello")
    async with bus.magic.critical("checkout"):
        inside = await bus.send("hello")
    await bus.magic.fairy_shield(False)
    after = await bus.send("hello")

    assert raised
    assert (inside.provider, after.provider) == ("alpha", "alpha")
    assert len(server.log) == 2


async def test_a_blue_spark_heals_what_answers_again(
    bus: AsyncMessageBus, server: FaultServer
) -> None:
    server.play("beta", faults.status(500))

    well = await bus.magic.blue_spark_heal("ai_provider:alpha", "it was slow")
    ill = await bus.magic.blue_spark_heal("ai_provider:beta", "it was slow")

    assert (well, ill) == (True, False)
    assert [record.verified for record in bus.magic.healing_history] == [True, False]
    assert bus.magic.energy_level < 85


async def test_a_ritual_closes_what_answers_again(
    bus: AsyncMessageBus, server: FaultServer
) -> None:
    server.play("alpha", [*[faults.overloaded()] * 3, faults.ok()])
    for _ in range(3):
        await bus.send("hello")
    before = bus.magic.circuit_breakers["ai_provider:alpha"].state

    sentence = await bus.magic.perform_ritual("holly_blessing")

    assert before == "open"
    assert bus.magic.circuit_breakers["ai_provider:alpha"].state == "closed"
    assert "alpha" in sentence
    with pytest.raises(ValueError, match=r"moon_dance.*holly_blessing"):
        await bus.magic.perform_ritual("moon_dance")


async def test_the_breakers_tell_who_is_down(bus: AsyncMessageBus, server: FaultServer) -> None:
    server.play("alpha", faults.overloaded())
    replies = [await bus.send("hello") for _ in range(4)]

    alpha = await bus.magic.get_circuit_breaker_status("ai_provider:alpha")
    beta = await bus.magic.get_circuit_breaker_status("ai_provider:beta")

    assert alpha is not None and beta is not None
    assert (alpha["state"], beta["state"]) == ("open", "closed")
    assert [reply.provider for reply in replies] == ["beta"] * 4
    assert len(server.calls("alpha")) == 3


async def test_what_was_healed_is_remembered_and_learned_from(
    bus: AsyncMessageBus, server: FaultServer, tmp_path: Path
) -> None:
    server.play("alpha", faults.overloaded())
    for _ in range(3):
        await bus.send("hello")
    learned = bus.magic.learning_preferences

    await bus.stop()
    async with AsyncMessageBus(Settings(home=tmp_path)) as again:
        kept = again.magic.learning_preferences

    records = list(bus.magic.healing_history)
    assert [(record.remedy, record.success) for record in records] == [("failover", True)] * 3
    assert learned["ai_provider:alpha:overloaded"]["failover"] > 0.9
    assert kept == learned
