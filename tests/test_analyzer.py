"""The analyzer says what happened in figures, and what of that deserves a look."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.agents.analyzer import MANY, AnalyzerAgent
from zejzl.learning.evidence import Finding
from zejzl.testing import FakeClock

START = 1_700_000_000.0 - 50_000
STEPS = ("observation", "plan", "execution", "validation", "executor")


class Remembered:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    async def store(self, event: Any) -> None:
        self.events.append(event)


def case(
    name: str, *, at: float = START, valid: bool = True, error: str | None = None, took: float = 1.0
) -> list[dict[str, Any]]:
    """Return the events of one conversation; its execution takes as long as it is told to."""
    moments = (at, at + 1, at + 1 + took, at + 2 + took, at + 3 + took)
    data: dict[str, dict[str, Any]] = {"validation": {"is_valid": valid}}
    data["executor"] = {"error": error} if error else {"status": "done"}
    steps = STEPS if valid else STEPS[:4]
    return [
        {"type": step, "data": data.get(step, {}), "conversation_id": name, "timestamp": moment}
        for step, moment in zip(steps, moments, strict=False)
    ]


def cases(number: int, **more: Any) -> list[dict[str, Any]]:
    return [
        event
        for each in range(number)
        for event in case(f"{each} {more}", at=START + 10 * each, **more)
    ]


async def analyzed(events: Any, **more: Any) -> dict[str, Any]:
    analysis: dict[str, Any] = await AnalyzerAgent(clock=FakeClock()).analyze(events, **more)
    assert json.loads(json.dumps(analysis)) == analysis
    return analysis


async def test_figures_tell_how_many_cases_ended_well() -> None:
    analysis = await analyzed([*cases(8), *cases(2, error="disk full"), *case("open")[:2]])

    metrics = analysis["metrics"]
    assert (metrics["cases"], metrics["events"], metrics["open_cases"]) == (11, 52, 1)
    assert (metrics["successes"], metrics["failures"], metrics["unknown"]) == (8, 2, 1)
    assert (metrics["success_rate"], metrics["success_rate_n"]) == (0.8, 10)
    assert metrics["success_rate_ci95"] == pytest.approx([0.4902, 0.9433], abs=1e-4)
    assert metrics["durations"]["p50_s"] == pytest.approx(4.0, rel=0.02)
    assert metrics["successful_patterns"] == 1
    assert metrics["success_paths"] == [
        {"sequence": list(STEPS), "n": 10, "successes": 8, "failures": 2}
    ]
    assert analysis["timestamp"] == "2023-11-14T22:13:20+00:00"


async def test_where_no_outcome_is_known_the_rate_rests_on_none() -> None:
    metrics = (await analyzed([]))["metrics"]

    assert (metrics["success_rate"], metrics["success_rate_n"]) == (0.0, 0)
    assert metrics["success_rate_ci95"] == [0.0, 1.0]


async def test_agents_and_task_types_have_figures_of_their_own() -> None:
    events = [{**event, "agent": "ann", "task_type": "sums"} for event in cases(5)]

    metrics = (await analyzed(events))["metrics"]

    assert metrics["agents"]["ann"]["n"] == 25
    assert metrics["agents"]["ann"]["p50_s"] is None
    assert metrics["task_types"] == {"sums": {"success_rate": 1.0, "success_rate_n": 5}}


async def test_findings_carry_the_types_of_the_pantheon() -> None:
    events = [*cases(20, took=30.0), *cases(3, valid=False), *cases(2, error="disk full")]

    findings = (await analyzed(events))["findings"]

    types = {each["type"]: each for each in findings if each["level"] == "finding"}
    assert {"validation_failure", "execution_error", "performance_bottleneck"} <= set(types)
    assert types["validation_failure"]["n"] == 3
    assert types["execution_error"]["where"] == {"activity": "executor", "signature": "disk full"}
    assert types["performance_bottleneck"]["where"] == {"from": "plan", "to": "execution"}
    assert all(Finding.from_json(each).id == each["id"] for each in findings)


async def test_what_is_no_event_is_counted_and_changes_nothing_else() -> None:
    garbage: list[Any] = [
        None,
        3,
        "text",
        {},
        {"type": 5},
        {"type": "plan"},
        b"",
        [],
        {"data": "x" * 9999},
    ]

    clean = await analyzed(cases(5))
    dirty = await analyzed([*garbage, *cases(5), *garbage])

    skipped = dirty["metrics"].pop("skipped")
    assert sum(skipped.values()) == 2 * len(garbage)
    assert clean["metrics"].pop("skipped") == {}
    assert dirty == clean


@given(
    st.lists(
        st.none()
        | st.integers()
        | st.text()
        | st.dictionaries(
            st.sampled_from(["type", "data", "conversation_id", "timestamp", "agent", "status"]),
            st.none()
            | st.integers()
            | st.floats()
            | st.text()
            | st.dictionaries(st.text(), st.text()),
        ),
        max_size=8,
    )
)
async def test_garbage_is_never_an_exception(events: list[Any]) -> None:
    metrics = (await analyzed(events))["metrics"]

    assert metrics["events"] + metrics["late"] + sum(metrics["skipped"].values()) == len(events)


async def test_an_event_of_tomorrow_is_skipped() -> None:
    metrics = (await analyzed(case("later", at=START + 200_000)))["metrics"]

    assert metrics["skipped"] == {"future": 5}


async def test_moments_may_be_dates() -> None:
    began = datetime(2023, 11, 14, tzinfo=UTC)
    events = [
        {**event, "timestamp": (began + timedelta(seconds=second)).isoformat()}
        for second, event in enumerate(case("dated"))
    ]

    assert (await analyzed(events))["metrics"]["durations"]["p50_s"] == pytest.approx(4, rel=0.02)


async def test_what_changed_since_an_earlier_time_is_drift() -> None:
    before = [*cases(90), *cases(10, error="disk full")]

    findings = (await analyzed([*cases(50), *cases(50, error="disk full")], reference=before))[
        "findings"
    ]

    (drift,) = [each for each in findings if each["type"] == "drift"]
    assert drift["effect"]["value"] == pytest.approx(0.4)


async def test_many_events_give_the_same_as_few_at_a_time() -> None:
    events = cases(MANY // 5 + 1)

    analysis = await analyzed(iter(events))

    assert analysis["metrics"]["cases"] == MANY // 5 + 1
    assert analysis["metrics"]["events"] == len(events) > MANY


async def test_an_analysis_becomes_known() -> None:
    agent, memory = AnalyzerAgent(clock=FakeClock()), Remembered()
    agent.memory = memory

    analysis = await agent.analyze(cases(3), conversation_id="c1")

    (event,) = memory.events
    assert (event["type"], event["agent"], event["conversation_id"]) == (
        "analysis",
        "analyzer",
        "c1",
    )
    assert event["data"]["metrics"] == analysis["metrics"]
