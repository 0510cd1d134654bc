"""The recovery log, what is learned from it, and recovery attempts made by hand."""

import asyncio
import json
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.driving import finished, make_bus, register
from zejzl.errors import (
    AuthFailed,
    BadRequest,
    ConnectFailed,
    ContentFiltered,
    FailureClass,
    ProviderError,
    RateLimited,
    ServerError,
)
from zejzl.events import DriftDetected, Event, PreferenceStated, to_json
from zejzl.magic import CircuitBreakerConfig, FairyMagic
from zejzl.policies.budget import Cost
from zejzl.policies.diagnosis import Remedy, diagnose
from zejzl.testing import FakeClock

COMPONENT = "tool_call"


def make(clock: FakeClock, **options: Any) -> FairyMagic:
    return FairyMagic(clock=clock, rng=Random(1), **options)


def offer(magic: FairyMagic, tried: list[str], **answers: object) -> None:
    """Add remedies that give these answers and write down that they were tried."""

    def add(name: str, answer: object) -> None:
        async def own() -> object:
            tried.append(name)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        own.__name__ = name
        magic.remedy(COMPONENT)(own)

    for name, answer in answers.items():
        add(name, answer)


def teach(
    magic: FairyMagic,
    remedy: str,
    *,
    component: str = COMPONENT,
    kind: str = "unknown",
    helped: bool = True,
    times: int = 30,
) -> None:
    for _ in range(times):
        magic.recoveries.record(
            component,
            "a lesson",
            kind,
            remedy,
            success=helped,
            verified=True,
            energy_used=0.0,
            outcome="ok" if helped else "it said no",
            cost=0.1,
        )


def heard(magic: FairyMagic) -> list[Event]:
    events: list[Event] = []
    magic.listen(events.append)
    return events


# By hand ----------------------------------------------------------------------------------------


async def test_at_most_three_remedies_are_tried_and_each_costs_ten() -> None:
    clock = FakeClock()
    magic = make(clock)
    tried: list[str] = []
    offer(magic, tried, one=False, two=False, three=False, four=False)

    healed = await finished(clock, magic.blue_spark_heal(COMPONENT, "it broke"))

    assert (healed, tried) == (False, ["one", "two", "three"])
    assert magic.energy_level == pytest.approx(70.0, abs=1.0)
    assert [(row.remedy, row.energy_used, row.outcome) for row in magic.healing_history] == [
        (name, 10.0, "it said no") for name in tried
    ]


async def test_the_first_that_helps_is_the_last() -> None:
    clock = FakeClock()
    magic = make(clock)
    tried: list[str] = []
    offer(magic, tried, one=False, two=True, three=True)

    healed = await finished(clock, magic.blue_spark_heal(COMPONENT, "it broke"))

    assert (healed, tried) == (True, ["one", "two"])
    assert [row.success for row in magic.healing_history] == [False, True]


async def test_what_has_helped_most_is_tried_first() -> None:
    clock = FakeClock()
    magic = make(clock)
    tried: list[str] = []
    offer(magic, tried, one=False, two=False, three=False)
    teach(magic, "three")
    teach(magic, "one", helped=False, times=3)

    await finished(clock, magic.blue_spark_heal(COMPONENT, "it broke"))

    assert tried == ["three", "two"]  # the wait of the runbook is better than one that fails
    assert [row.remedy for row in magic.healing_history][-3:] == ["three", "two", "wait"]


async def test_it_ends_where_the_budget_does() -> None:
    clock = FakeClock()
    magic = make(clock, energy_level=15.0)
    tried: list[str] = []
    offer(magic, tried, one=False, two=True)

    healed = await finished(clock, magic.blue_spark_heal(COMPONENT, "it broke"))

    assert (healed, tried) == (False, ["one"])


@pytest.mark.parametrize("well", [True, False])
async def test_a_probe_has_the_last_word(well: bool) -> None:
    clock = FakeClock()
    magic = make(clock)
    tried: list[str] = []
    offer(magic, tried, mended=True)

    @magic.probe(COMPONENT)
    async def is_well() -> bool:
        return well

    healed = await finished(clock, magic.blue_spark_heal(COMPONENT, "it broke"))

    row = magic.healing_history[0]
    assert (healed, tried, row.remedy) == (well, ["mended"], "mended")
    assert (row.success, row.verified, row.outcome) == (
        well,
        well,
        "ok" if well else "it said no",
    )


async def test_a_probe_is_not_asked_about_what_failed_by_its_own_word() -> None:
    clock = FakeClock()
    magic = make(clock)
    offer(magic, [], one=False, two=RuntimeError("stuck"))
    asked = []

    @magic.probe(COMPONENT)
    async def is_well() -> bool:
        asked.append(len(magic.healing_history))
        return True

    await finished(clock, magic.blue_spark_heal(COMPONENT, "it broke"))

    assert asked == [2]
    assert [row.outcome for row in magic.healing_history] == [
        *("it said no", "RuntimeError: stuck", "ok")
    ]


async def test_what_nobody_verified_teaches_nothing() -> None:
    clock = FakeClock()
    magic = make(clock)
    offer(magic, [], mended=True)

    healed = await finished(clock, magic.blue_spark_heal(COMPONENT, "it broke"))

    (row,) = magic.healing_history
    assert (healed, row.success, row.verified, row.cost) == (True, True, None, None)
    assert magic.preferences() == []


async def test_what_was_verified_and_what_failed_by_its_own_word_does() -> None:
    clock = FakeClock()
    magic = make(clock)
    offer(magic, [], stuck=False, mended=True)

    @magic.probe(COMPONENT)
    async def is_well() -> bool:
        return True

    await finished(clock, magic.blue_spark_heal(COMPONENT, "it broke"))

    learned = {row["remedy"]: row["tried"] for row in magic.preferences() if row["tried"]}
    assert learned == {"stuck": 1, "mended": 1}


async def test_an_attempt_that_was_cancelled_is_told_and_teaches_nothing() -> None:
    clock = FakeClock()
    magic = make(clock)

    @magic.remedy(COMPONENT)
    async def restart() -> None:
        await clock.sleep(9.0)

    task = asyncio.create_task(magic.blue_spark_heal(COMPONENT, "it broke"))
    await clock.advance(1.0)
    task.cancel()
    await clock.advance(0.0)

    assert task.cancelled()
    (row,) = magic.healing_history
    assert (row.remedy, row.success, row.verified, row.outcome) == (
        *("restart", False, None, "cancelled"),
    )
    assert (row.energy_used, row.cost, magic.preferences()) == (10.0, None, [])


async def test_a_remedy_whose_own_work_was_cancelled_has_failed_and_the_next_is_tried() -> None:
    clock = FakeClock()
    magic = make(clock)
    tried: list[str] = []
    offer(magic, tried, one=asyncio.CancelledError(), two=True)

    healed = await finished(clock, magic.blue_spark_heal(COMPONENT, "it broke"))

    assert (healed, tried) == (True, ["one", "two"])


async def test_a_refused_attempt_is_a_row_too_that_costs_and_teaches_nothing() -> None:
    magic = make(FakeClock(), energy_level=9.0)

    healed = await magic.blue_spark_heal(COMPONENT, "it broke")

    (row,) = magic.healing_history
    assert (healed, row.success, row.verified, row.energy_used) == (False, False, None, 0.0)
    assert (row.cost, magic.energy_level) == (None, 9.0)
    assert row.remedy == "none"


async def test_behind_an_open_breaker_nothing_is_tried() -> None:
    magic = make(FakeClock())
    tried: list[str] = []
    offer(magic, tried, one=True)
    breaker = magic.circuit_breakers[COMPONENT]
    for _ in range(3):
        breaker.fail(breaker.rule.generation, ServerError("x"))

    healed = await magic.auto_heal(COMPONENT, ServerError("x"))

    (row,) = magic.healing_history
    assert (healed, tried, row.energy_used) == (False, [], 0.0)
    assert (row.remedy, row.outcome) == ("none", "circuit breaker is open for 45.0 s")


async def test_behind_an_open_breaker_that_awaits_its_probe_something_is_tried() -> None:
    clock = FakeClock()
    magic = make(clock)
    breaker = magic.circuit_breakers[COMPONENT]
    for _ in range(3):
        breaker.fail(breaker.rule.generation, ServerError("x"))

    await clock.advance(45.0)
    healed = await finished(clock, magic.auto_heal(COMPONENT, ServerError("x")))

    assert (healed, breaker.state) == (True, "open")


@pytest.mark.parametrize(
    ("issue", "tried", "healed"),
    [
        (AuthFailed("x"), ["new_key"], True),
        (BadRequest("x"), [], False),
        (ContentFiltered("x"), [], False),
        (asyncio.CancelledError(), [], False),
    ],
    ids=["auth", "bad request", "filtered", "cancelled"],
)
async def test_a_mistake_is_mended_by_what_was_made_for_it_alone(
    issue: BaseException, tried: list[str], healed: bool
) -> None:
    clock = FakeClock()
    magic = make(clock)
    done: list[str] = []
    offer(magic, done, anything=True)

    @magic.remedy(COMPONENT, classes="auth")
    async def new_key() -> None:
        done.append("new_key")

    assert await finished(clock, magic.auto_heal(COMPONENT, issue)) is healed
    row = magic.healing_history[-1]
    outcome = "ok" if healed else f"a retry cannot mend {row.failure_class}"
    assert (done, row.outcome) == (tried, outcome)


# The log ----------------------------------------------------------------------------------------


def test_the_newest_thousand_rows_are_kept() -> None:
    magic = make(FakeClock())

    teach(magic, "wait", times=999)
    teach(magic, "restart", times=2)

    assert len(magic.healing_history) == 1_000
    assert [row.remedy for row in magic.healing_history][-3:] == ["wait", "restart", "restart"]


def test_a_failure_is_told_in_its_words_on_one_short_line_if_it_has_any() -> None:
    class Unshowable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even that")

    magic = make(FakeClock())
    told: Any = {"success": False, "verified": None, "energy_used": 0.0, "outcome": "x"}

    rows = [
        magic.recoveries.record(COMPONENT, issue, "unknown", Remedy.WAIT, **told)
        for issue in ("two\nlines", ServerError("x" * 1_000), Unshowable())
    ]

    assert rows[0].issue == "two lines"
    assert len(rows[1].issue) == 500
    assert rows[2].issue == "it cannot be shown"
    assert list(magic.healing_history) == rows
    assert {type(row.remedy) for row in rows} == {str}


def test_a_row_holds_plain_values_whatever_it_is_told() -> None:
    row = make(FakeClock()).recoveries.record(
        COMPONENT,
        "x",
        FailureClass.CONNECT,
        Remedy.WAIT,
        success=True,
        verified=True,
        energy_used=Cost.WAITED,
        outcome=FailureClass.CONNECT,
        cost=Cost.HEDGE,
    )

    kinds = {name: type(value) for name, value in to_json(row).items()}
    assert kinds["energy_used"] is kinds["cost"] is float
    assert kinds["failure_class"] is kinds["remedy"] is kinds["outcome"] is str
    assert "Cost" not in repr(row)


def test_drift_is_an_event_that_names_what_is_no_longer_as_it_was() -> None:
    magic = make(FakeClock())
    events = heard(magic)
    teach(magic, "restart", kind="connect", times=40)

    teach(magic, "restart", kind="connect", helped=False, times=3)

    (drift,) = [event for event in events if isinstance(event, DriftDetected)]
    assert (drift.target, drift.failure_class, drift.remedy) == (COMPONENT, "connect", "restart")
    assert events.index(drift) > 40


# Preferences ------------------------------------------------------------------------------------


async def test_a_preference_changes_the_order_and_is_shown_with_its_author() -> None:
    clock = FakeClock()
    magic = make(clock)
    tried: list[str] = []
    offer(magic, tried, one=False, two=False)
    events = heard(magic)

    scope: dict[str, Any] = {"component": COMPONENT, "failure_class": "unknown"}
    magic.prefer("two", "one", author="nela", **scope)
    await finished(clock, magic.blue_spark_heal(COMPONENT, "it broke"))

    assert tried[0] == "two"
    shown = {row["remedy"]: (row["offset"], row["author"]) for row in magic.preferences()}
    assert (shown["two"], shown["retry"]) == ((0.1, "nela"), (0.0, None))
    stated = events[0]
    assert isinstance(stated, PreferenceStated)
    assert (stated.winner, stated.loser, stated.author) == ("two", "one", "nela")
    assert (stated.target, stated.failure_class, stated.withdrawn) == (
        *(COMPONENT, "unknown", False),
    )


def test_a_preference_that_is_withdrawn_leaves_nothing_but_the_event() -> None:
    magic = make(FakeClock())
    before = magic.snapshot()
    magic.prefer("failover", "retry")
    stated = magic.snapshot()
    events = heard(magic)

    magic.prefer("failover", "retry", withdraw=True)

    assert (magic.snapshot() == before, stated == before) == (True, False)
    (event,) = events
    assert isinstance(event, PreferenceStated) and event.withdrawn
    assert (event.author, event.target, event.failure_class) == ("operator", None, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"winner": "retry", "loser": "retry"},
        {"failure_class": "bad luck"},
        {"winner": "wiat"},
        {"loser": "wiat"},
        {"component": "nope"},
        {"winner": "wait\ud800"},
        {"author": "\ud800"},
        {"author": " "},
        {"component": "ai_provider:\ud800"},
    ],
    ids=lambda wrong: ascii(wrong),
)
def test_a_preference_that_cannot_be_is_refused_and_told_to_nobody(wrong: Any) -> None:
    magic = make(FakeClock())
    before, events = magic.snapshot(), heard(magic)

    with pytest.raises(ValueError, match=r"known: |itself|storable|empty"):
        magic.prefer(**{"winner": "retry", "loser": "wait"} | wrong)

    assert (magic.snapshot(), events) == (before, [])


@pytest.mark.parametrize("name", ["winner", "loser", "author", "component"])
@pytest.mark.parametrize("value", [7, b"wait", ["wait"]])
@pytest.mark.parametrize("withdraw", [True, False])
def test_a_preference_is_made_of_texts(name: str, value: Any, withdraw: bool) -> None:
    magic = make(FakeClock())
    before = magic.snapshot()

    with pytest.raises(TypeError, match=f"{name} must be text, not "):
        magic.prefer(**{"winner": "retry", "loser": "wait", name: value}, withdraw=withdraw)

    assert magic.snapshot() == before


def test_what_is_unknown_is_told_with_what_is_known() -> None:
    magic = make(FakeClock())
    offer(magic, [], mend=True)
    teach(magic, "prayer")

    with pytest.raises(ValueError, match=r"no remedy named 'wiat'; known: .*mend.*prayer.*wait"):
        magic.prefer("wiat", "retry")
    with pytest.raises(ValueError, match="no component named 'nope'; known: ai_provider, persist"):
        magic.prefer("wait", "retry", component="nope")
    with pytest.raises(ValueError, match="no failure class 'odd'; known: rate_limited, "):
        magic.prefer("wait", "retry", failure_class="odd")

    for known in ("mend", "prayer", Remedy.FAILOVER):
        magic.prefer(known, "wait")


@pytest.mark.parametrize(
    ("component", "full"),
    [
        (COMPONENT, COMPONENT),
        ("Alpha", "ai_provider:alpha"),
        ("ai_provider:alpha", "ai_provider:alpha"),
        ("ai_provider:Later", "ai_provider:later"),
        (f"{COMPONENT}:later", f"{COMPONENT}:later"),
        (None, "*"),
    ],
)
def test_what_is_preferred_is_shown_at_once_with_its_author(
    component: str | None, full: str
) -> None:
    magic = make(FakeClock())
    magic.gate.provider("alpha")

    magic.prefer("wait", "failover", component=component, failure_class="connect", author="nela")

    shown = {row["remedy"]: (row["offset"], row["author"]) for row in magic.preferences()}
    assert {row["component"] for row in magic.preferences()} == {full}
    assert shown["wait"] == (0.1, "nela") and shown["failover"] == (-0.1, "nela")

    magic.prefer("wait", "failover", component=component, failure_class="connect", withdraw=True)

    assert magic.preferences() == []


async def test_of_a_component_that_has_gone_a_word_can_be_taken_back() -> None:
    kept = make(FakeClock(), components={"printer": CircuitBreakerConfig()})
    kept.prefer("wait", "retry", component="printer")
    magic = make(FakeClock())
    magic.restore(kept.snapshot())

    magic.prefer("wait", "retry", component="printer", withdraw=True)

    assert magic.preferences() == []


def test_a_users_remedy_is_shown_before_it_was_tried() -> None:
    magic = make(FakeClock())
    teach(magic, "wait", kind="connect", times=1)
    before = {row["remedy"] for row in magic.preferences()}

    offer(magic, [], mend=True)

    assert {row["remedy"]: row["tried"] for row in magic.preferences()} == {
        **dict.fromkeys(before, 0),
        "wait": 1,
        "mend": 0,
    }


async def test_a_look_at_what_was_learned_is_worked_out_once_and_is_the_askers_own() -> None:
    magic = make(FakeClock())
    teach(magic, "wait", kind="connect")
    first = magic.preferences()
    kept = magic.recoveries._rows

    magic.preferences()[0].clear()
    status: Any = await magic.get_system_status()

    assert magic.recoveries._rows is kept
    assert (magic.preferences(), status["preferences"]) == (first, first)
    assert status["learning_preferences_count"] == len(magic.learning_preferences) == 1
    teach(magic, "wait", kind="connect", times=1)
    assert magic.preferences() != first


async def test_what_is_shown_are_the_runbooks_remedies_and_ones_own_of_what_has_failed() -> None:
    clock = FakeClock()
    magic = make(clock)
    offer(magic, [], restart=True)

    @magic.remedy(COMPONENT, classes="auth")
    async def new_key() -> None:
        pass

    await finished(clock, magic.auto_heal(COMPONENT, ConnectFailed("x")))
    await finished(clock, magic.auto_heal("persistence", ConnectFailed("x")))
    teach(magic, "prayer", kind="connect", helped=False)

    shown = magic.learning_preferences
    runbook = {"reconnect", "failover", "wait"}
    assert set(shown) == {f"{COMPONENT}:connect", "persistence:connect"}
    assert set(shown[f"{COMPONENT}:connect"]) == {*runbook, "restart", "prayer"}
    assert set(shown["persistence:connect"]) == runbook
    for shares in shown.values():
        assert sum(shares.values()) == pytest.approx(1.0)
        assert max(shares, key=shares.__getitem__) == "reconnect"


@pytest.mark.parametrize("kind", ["auth", "bad_request", "content_filtered"])
def test_no_lesson_and_no_preference_puts_a_mistake_to_the_same_model_again(kind: str) -> None:
    magic = make(FakeClock())
    for remedy in ("retry", "reconnect", "wait", "grow_answer", "own"):
        teach(magic, remedy, kind=kind, component="ai_provider:a")
        magic.prefer(remedy, "failover", failure_class=kind)
    offered = magic.recoveries.best_first(
        "ai_provider:a", FailureClass(kind), diagnose(ERRORS[kind]).remedies
    )

    assert set(offered) <= {"failover", "wait"}
    assert bool(offered) == (kind == "auth")


ERRORS: dict[str, ProviderError] = {
    str(error.failure_class): error
    for error in (AuthFailed("x"), BadRequest("x"), ContentFiltered("x"))
}


# Keeping ----------------------------------------------------------------------------------------

lessons = st.lists(
    st.tuples(
        st.sampled_from([COMPONENT, "ai_provider:a"]),
        st.sampled_from(["connect", "server_error"]),
        st.sampled_from(["retry", "reconnect", "failover", "own"]),
        st.booleans(),
        st.none() | st.floats(0, 1),
    ),
    max_size=40,
)


def learn_all(magic: FairyMagic, log: Sequence[tuple[str, str, str, bool, float | None]]) -> None:
    for component, kind, remedy, helped, cost in log:
        magic.recoveries.record(
            component,
            "a lesson",
            kind,
            remedy,
            success=helped,
            verified=cost is not None,
            energy_used=0.0,
            outcome="ok",
            cost=cost,
        )


@settings(max_examples=40)
@given(lessons, lessons)
def test_restored_it_goes_on_to_the_last_bit(past: Any, future: Any) -> None:
    one, other = make(FakeClock()), make(FakeClock())
    learn_all(one, past)
    one.prefer("failover", "retry", author="nela")

    other.restore(json.loads(json.dumps(one.snapshot())))
    for magic in (one, other):
        learn_all(magic, future)

    assert other.snapshot() == one.snapshot()
    assert other.preferences() == one.preferences()
    assert other.learning_preferences == one.learning_preferences


@settings(max_examples=40)
@given(lessons)
def test_the_log_told_again_gives_what_was_learned(log: Any) -> None:
    one, other = make(FakeClock()), make(FakeClock())
    learn_all(one, log)

    for row in one.healing_history:
        other.recoveries.learn(row)

    assert other.snapshot() == one.snapshot()
    assert not other.healing_history


@pytest.mark.parametrize(
    "kept",
    [
        {"v": 2, "preferences": {"v": 1, "classes": [], "cells": [], "preferred": []}},
        *({}, {"v": "1"}, {"v": None, "preferences": {}}, [], "text", None),
        {"v": 1, "preferences": None},
        {"v": 1, "preferences": {"v": 1, "classes": [], "cells": [["a"]], "preferred": []}},
    ],
    ids=repr,
)
def test_what_is_no_snapshot_of_this_version_is_refused_and_changes_nothing(kept: Any) -> None:
    magic = make(FakeClock())
    teach(magic, "restart")
    before = magic.snapshot()

    with pytest.raises(ValueError):
        magic.restore(kept)

    assert magic.snapshot() == before


async def test_what_failed_in_a_thousand_places_is_shown_and_no_more() -> None:
    clock = FakeClock()
    magic = make(clock)
    offer(magic, [], mended=True)

    for n in range(1_001):
        await magic.recharge_magic()
        await magic.blue_spark_heal(f"{COMPONENT}:{n}", "it broke")

    assert len(magic.learning_preferences) == 1_000
    assert (await magic.get_system_status())["healed_count"] == 1_000


async def test_a_lesson_about_a_failure_that_is_not_known_here_spoils_no_status() -> None:
    magic, newer = make(FakeClock()), make(FakeClock())
    teach(newer, "restart", kind="gremlins")

    magic.restore(newer.snapshot())

    assert magic.learning_preferences == {f"{COMPONENT}:gremlins": {"restart": 1.0}}
    assert (await magic.get_system_status())["learning_preferences_count"] == 1


# What the bus makes of it ------------------------------------------------------------------------


async def test_after_enough_failures_the_bus_tries_what_helps_first() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a, _ = await register(bus, clock, a="ok", b="from b")
        ways = []

        for _ in range(30):
            a.play("ok")
            for _ in range(5):
                await finished(clock, bus.send("hello"))
            a.play(ServerError("x"))
            reply = await finished(clock, bus.send("hello"))
            ways.append([each.remedy for each in reply.attempts])
            await bus.magic.recharge_magic()

        assert ways[0] == ["first", "retry", "failover"]
        assert ways[-1] == ["first", "failover"]
        assert ways == sorted(ways, key=len, reverse=True)
        assert ways.count(["first", "retry", "failover"]) <= 15
        shares = bus.magic.learning_preferences["ai_provider:a:server_error"]
        assert max(shares, key=shares.__getitem__) == "failover"


async def test_what_was_learned_of_one_failure_says_nothing_of_another() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a, _ = await register(bus, clock, a="ok", b="from b")
        for helped, remedy in ((False, "retry"), (True, "failover")):
            teach(bus.magic, remedy, component="ai_provider:a", kind="server_error", helped=helped)
        ways = {}

        for failure in (ServerError("x"), ConnectFailed("x"), RateLimited("x", retry_after=9.0)):
            a.play(failure, "from a")
            reply = await finished(clock, bus.send("hello"))
            ways[type(failure)] = [each.remedy for each in reply.attempts]
            await bus.magic.reset_circuit_breaker("ai_provider:a")

        assert ways == {
            ServerError: ["first", "failover"],
            ConnectFailed: ["first", "reconnect"],
            RateLimited: ["first", "failover"],
        }
