"""FairyMagic on its own: the seed's lines, and what a program may rely on."""

import asyncio
import random
from typing import Any

import pytest

from src.magic import CircuitBreakerConfig, FairyMagic, HealingRecord
from tests.driving import ask, break_down, finished
from zejzl.errors import AuthFailed, BadRequest, ContentFiltered, RateLimited, ServerError
from zejzl.events import BudgetRestored, Event
from zejzl.magic.gate import LEAST_PATIENCE
from zejzl.magic.lanes import Permit
from zejzl.testing import FakeClock


def make(clock: FakeClock, **options: Any) -> FairyMagic:
    return FairyMagic(clock=clock, rng=random.Random(1), **options)


async def test_the_seeds_healing_lines_run_as_written() -> None:
    magic = FairyMagic()

    healed = await magic.blue_spark_heal("component", "error_description")
    success = await magic.auto_heal("ai_provider", ConnectionError("reset"))
    status = await magic.get_system_status()

    assert (healed, success) == (True, True)
    assert status["healing_history_count"] == 2


async def test_the_status_tells_everything_a_program_relies_on() -> None:
    magic = make(FakeClock(), energy_level=80.0, max_energy=90.0)

    status = await magic.get_system_status()

    assert (status["energy_level"], status["max_energy"]) == (80.0, 90.0)
    breakers: Any = status["circuit_breakers"]
    assert set(breakers) == {"ai_provider", "persistence", "agent_coordinator", "tool_call"}
    assert {"state", "failure_count", "success_count", "last_failure"} <= set(
        breakers["ai_provider"]
    )
    assert {
        name: (breaker["failure_threshold"], breaker["recovery_timeout"])
        for name, breaker in breakers.items()
    } == {
        "ai_provider": (3, 30.0),
        "persistence": (5, 60.0),
        "agent_coordinator": (2, 15.0),
        "tool_call": (3, 45.0),
    }


async def test_components_replace_or_add() -> None:
    magic = make(
        FakeClock(),
        components={
            "ai_provider": CircuitBreakerConfig(7, 70),
            "printer": CircuitBreakerConfig(1, 10),
        },
    )

    provider = await magic.get_circuit_breaker_status("ai_provider")
    printer = await magic.get_circuit_breaker_status("printer")

    assert provider is not None and provider["failure_threshold"] == 7
    assert printer is not None and printer["recovery_timeout"] == 10
    assert await magic.get_circuit_breaker_status("toaster") is None


async def test_a_component_is_as_badly_off_as_its_worst_child() -> None:
    clock = FakeClock()
    magic = make(clock)
    good, bad = magic.gate.provider("good"), magic.gate.provider("bad")
    break_down(magic, bad)

    whole: Any = await magic.get_circuit_breaker_status("ai_provider")

    assert good.state == "closed"
    assert (whole["state"], whole["worst"]) == ("open", "ai_provider:bad")


async def test_healing_costs_ten_and_leaves_a_record() -> None:
    clock = FakeClock()
    magic = make(clock)

    healed = await finished(clock, magic.blue_spark_heal("tool_call", "it broke"))

    record = magic.healing_history[-1]
    assert healed
    assert magic.energy_level == pytest.approx(90.0, abs=1.0)
    assert isinstance(record, HealingRecord)
    assert (record.target, record.issue, record.success) == ("tool_call", "it broke", True)
    assert (record.energy_used, record.verified) == (10.0, None)


@pytest.mark.parametrize(
    "failure",
    [BadRequest("x"), ContentFiltered("x"), AuthFailed("x"), asyncio.CancelledError()],
    ids=lambda failure: type(failure).__name__,
)
async def test_what_a_retry_cannot_mend_is_not_healed(failure: BaseException) -> None:
    magic = make(FakeClock())

    healed = await magic.auto_heal("ai_provider", failure)

    assert not healed
    assert magic.energy_level == 100.0
    assert magic.healing_history[-1].success is False


async def test_an_unknown_component_is_not_auto_healed() -> None:
    magic = make(FakeClock())

    assert await magic.auto_heal("toaster", ServerError("x")) is False
    assert not magic.healing_history


async def test_nothing_is_healed_without_energy() -> None:
    magic = make(FakeClock(), energy_level=9.0)

    healed = await magic.blue_spark_heal("ai_provider", ServerError("x"))

    assert not healed
    assert "retry budget is short" in magic.healing_history[-1].outcome


async def test_nothing_is_healed_behind_an_open_breaker() -> None:
    clock = FakeClock()
    magic = make(clock)
    breaker = magic.circuit_breakers["tool_call"]

    async def broken() -> None:
        raise RuntimeError("broken")

    for _ in range(3):
        with pytest.raises(RuntimeError):
            await breaker.call(broken)

    assert breaker.state == "open"
    assert await magic.auto_heal("tool_call", RuntimeError("broken")) is False
    assert "open" in magic.healing_history[-1].outcome


async def test_auto_heal_counts_no_failure() -> None:
    clock = FakeClock()
    magic = make(clock)

    await finished(clock, magic.auto_heal("ai_provider", ServerError("x")))

    assert magic.circuit_breakers["ai_provider"].failure_count == 0


async def test_healing_waits_out_a_retry_after() -> None:
    clock = FakeClock()
    magic = make(clock)

    await finished(clock, magic.auto_heal("ai_provider", RateLimited("x", retry_after=4.0)))

    assert 4.0 <= clock.now() <= 5.3


async def test_energy_comes_back_with_time_and_by_hand() -> None:
    clock = FakeClock()
    magic = make(clock, energy_level=20.0)
    heard: list[Event] = []
    magic.listen(heard.append)

    await clock.advance(5.0)
    with_time = magic.energy_level
    full = await magic.recharge_magic()

    assert (with_time, full) == (25.0, 100.0)
    (event,) = heard
    assert isinstance(event, BudgetRestored) and event.amount == 75.0


async def test_whoever_listens_no_more_hears_nothing_and_the_others_all_of_it() -> None:
    magic = make(FakeClock(), energy_level=20.0)
    heard: list[Event] = []
    once: list[Event] = []

    def hear_once(event: Event) -> None:
        once.append(event)
        magic.unlisten(hear_once)  # in the middle of an event

    magic.listen(hear_once)
    magic.listen(heard.append)
    magic.restore_energy(1.0, "first")
    magic.restore_energy(1.0, "second")
    magic.unlisten(heard.append)
    magic.unlisten(heard.append)
    magic.restore_energy(1.0, "third")

    assert [isinstance(each, BudgetRestored) and each.reason for each in once] == ["first"]
    assert [isinstance(each, BudgetRestored) and each.reason for each in heard] == [
        "first",
        "second",
    ]


async def test_a_program_may_use_the_breaker_of_a_callee_of_its_own() -> None:
    magic = make(FakeClock())

    mine = magic.circuit_breaker("tool_call", "search")

    assert magic.circuit_breaker("tool_call", "search") is mine
    assert magic.circuit_breakers["tool_call:search"] is mine


async def test_resetting_a_breaker_closes_its_children_too_and_unknown_names_are_false() -> None:
    clock = FakeClock()
    magic = make(clock)
    child = magic.gate.provider("a")
    break_down(magic, child)
    before = child.state

    done = await magic.reset_circuit_breaker("ai_provider")

    assert (before, child.state, done) == ("open", "closed", True)
    assert await magic.reset_circuit_breaker("toaster") is False


@pytest.mark.parametrize("name", ["a", "A", "ai_provider:a", " ai_provider:A"])
async def test_a_provider_goes_by_its_own_name_as_well(name: str) -> None:
    clock = FakeClock()
    magic = make(clock)
    child = magic.gate.provider("a")
    break_down(magic, child)

    status: Any = await magic.get_circuit_breaker_status(name.strip())
    done = await magic.reset_circuit_breaker(name.strip())
    healed = await finished(clock, magic.blue_spark_heal(name.strip(), "it broke"))
    auto = await finished(clock, magic.auto_heal(name.strip(), ServerError("x")))

    assert (status["state"], done, child.state, healed, auto) == (
        *("open", True, "closed", True, True),
    )
    assert {row.target for row in magic.healing_history} == {"ai_provider:a"}


async def test_a_provider_that_nobody_has_called_yet_is_known_by_its_probe() -> None:
    clock = FakeClock()
    magic = make(clock)

    async def well() -> bool:
        return True

    magic.remedies.watch("ai_provider:a", well)

    assert await magic.reset_circuit_breaker("a") is True
    assert await finished(clock, magic.auto_heal("a", ServerError("x"))) is True
    assert magic.healing_history[-1].target == "ai_provider:a"


async def test_what_is_no_component_at_all_is_refused_before_anything_is_paid() -> None:
    magic = make(FakeClock())

    with pytest.raises(ValueError, match="component is not storable"):
        await magic.blue_spark_heal("tool\ud800", "it broke")
    with pytest.raises(TypeError, match="component must be text"):
        await magic.blue_spark_heal(None, "it broke")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="agent is not storable"):
        await magic.acorn_vitality_boost("a\ud800", {"max_tokens": 10})
    with pytest.raises(ValueError, match="reason is not storable"):
        magic.restore_energy(5.0, "\ud800")

    assert (magic.energy_level, magic.acorn_reserve, list(magic.healing_history)) == (100.0, 5, [])


NO_AMOUNT = [float("nan"), float("inf"), -1.0, 10**400, True, "5", None]


@pytest.mark.parametrize("value", NO_AMOUNT, ids=lambda value: repr(value)[:10])
def test_what_is_no_amount_is_refused_by_name_and_changes_nothing(value: Any) -> None:
    magic = make(FakeClock(), energy_level=50.0)

    for name, call in (
        ("cost", lambda: magic.charge(value)),
        ("amount", lambda: magic.restore_energy(value, "x")),
        ("seconds", lambda: magic.harden(value)),
        ("energy_level", lambda: FairyMagic(energy_level=value)),
        ("max_energy", lambda: FairyMagic(max_energy=value)),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{name} must be a "):
            call()

    assert (magic.energy_level, magic.gate.hardened_for) == (50.0, 0.0)


@pytest.mark.parametrize("raised", ["down", float("nan"), 1, 0, None])
async def test_a_shield_is_up_or_down_and_nothing_else(raised: Any) -> None:
    magic = make(FakeClock())

    with pytest.raises(TypeError, match="raised must be True or False, not "):
        await magic.fairy_shield(raised)

    assert (magic.is_shielded, magic.energy_level) == (False, 100.0)


async def test_time_earns_nothing_while_no_provider_is_well() -> None:
    clock = FakeClock()
    magic = make(clock, energy_level=50.0)
    child = magic.gate.provider("a")
    break_down(magic, child)

    await clock.advance(10.0)

    assert magic.energy_level == 50.0


async def test_providers_and_their_models_have_breakers_of_their_own() -> None:
    magic = make(FakeClock())

    assert magic.gate.provider("a") is magic.gate.provider("a")
    assert magic.gate.provider("a", "big") is not magic.gate.provider("a")
    magic.gate.forget_provider("a")

    assert not [name for name in magic.circuit_breakers if name.startswith("ai_provider:")]


async def test_patience_is_about_a_second_or_the_slowest_providers_usual_answer() -> None:
    magic = make(FakeClock())
    quick = magic.gate.patience()
    slow = magic.gate.provider("slow")
    for _ in range(20):
        permit = ask(magic, slow, "slow")
        assert isinstance(permit, Permit)
        magic.gate.succeeded(permit, 3.0, first=True)

    assert (quick, magic.gate.patience()) == (LEAST_PATIENCE, 3.0)
