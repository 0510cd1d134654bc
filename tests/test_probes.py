"""Whether a provider or the store answers."""

from typing import Any

import pytest

from tests.driving import break_down, finished, make_bus, register
from zejzl.engine.probes import PROBE_TOKENS, provider_answers, store_answers
from zejzl.errors import EmptyAnswer, ServerError, StoreFull
from zejzl.magic.remedies import Ended
from zejzl.stores import InMemoryStore
from zejzl.testing import FakeClock, ScriptedProvider


class Full(InMemoryStore):
    def keep_setting(self, name: str, value: str | None) -> Any:
        raise StoreFull("the disk is full")


async def test_a_provider_is_asked_the_least_there_is() -> None:
    provider = ScriptedProvider(["pong"])

    assert await provider_answers(provider, "ai_provider:a") is True
    (request,) = provider.requests
    assert (request.content, request.max_tokens, request.history) == ("ping", PROBE_TOKENS, ())


async def test_an_empty_answer_to_so_short_a_question_is_an_answer() -> None:
    assert await provider_answers(ScriptedProvider([EmptyAnswer("x")]), "ai_provider:a") is True


async def test_a_provider_that_fails_is_not_well() -> None:
    with pytest.raises(ServerError, match="down"):
        await provider_answers(ScriptedProvider([ServerError("down")]), "ai_provider:a")


async def test_a_failure_is_told_under_the_name_that_the_bus_has_for_the_provider() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider(
            "alpha", ScriptedProvider([ServerError("down", provider="chatgpt")], clock=clock)
        )

        found = await finished(clock, bus.magic.check_all())

    assert found["ai_provider:alpha"] == Ended(False, "ServerError: alpha: down")


async def test_a_failure_that_takes_no_name_is_a_failure_all_the_same() -> None:
    class Frozen(ServerError):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "provider" and value:
                raise AttributeError("frozen")
            super().__setattr__(name, value)

    with pytest.raises(Frozen, match="down"):
        await provider_answers(ScriptedProvider([Frozen("down")]), "ai_provider:a")


async def test_a_store_is_well_if_it_can_be_written_and_nothing_is_changed_by_that() -> None:
    store = InMemoryStore()
    await store.open()
    await store.keep_setting("default_provider", "a")

    assert await store_answers(store) is True
    assert (await store.setting("probe"), await store.setting("default_provider")) == (None, "a")


async def test_a_store_that_fails_is_not_well() -> None:
    with pytest.raises(StoreFull):
        await store_answers(Full())


async def test_a_bus_probes_its_store_and_each_provider_and_closes_what_answers() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        scripts = {"A": "well", "b": ServerError("x"), "c": None, "d": "leaves"}
        await register(bus, clock, **scripts)
        await bus.unregister_provider("d")
        for name in "abc":
            break_down(bus.magic, bus.magic.gate.provider(name), name)

        found = await finished(clock, bus.magic.check_all())

        assert found == {
            "persistence": (True, "ok"),
            "ai_provider:a": (True, "circuit breaker closed"),
            "ai_provider:b": (False, "ServerError: b: x"),
            "ai_provider:c": (False, "no end within 10 s"),
        }
        assert clock.now() == pytest.approx(10.0, abs=0.1)  # for the one that is silent
        states = [bus.magic.gate.provider(name).state for name in "abc"]
        assert states == ["closed", "open", "open"]


@pytest.mark.parametrize("well", [True, False])
async def test_a_recovery_by_hand_is_verified_by_the_providers_own_answer(well: bool) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a="pong" if well else ServerError("down"))

        # Nobody has called it yet: it has no breaker, and is known by its probe.
        healed = await finished(clock, bus.magic.auto_heal("ai_provider:a", ServerError("x")))

        row = bus.magic.healing_history[-1]
        assert (healed, row.verified) == (well, well)
        assert row.outcome == ("ok" if well else "ServerError: a: down")
