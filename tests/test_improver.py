"""The improver proposes what findings ask for, and tells it in the words of the story."""

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest

from tests.test_analyzer import Remembered, cases
from zejzl.agents.analyzer import AnalyzerAgent
from zejzl.agents.base import Bus
from zejzl.agents.improver import ImproverAgent, sentences, settings_of
from zejzl.learning.evidence import Effect, Evidence, Finding
from zejzl.learning.improvements import propose
from zejzl.learning.patterns import Endings, Path, Patterns
from zejzl.magic import FairyMagic
from zejzl.settings import Settings
from zejzl.testing import FakeClock

TROUBLE = [*cases(20, took=30.0), *cases(3, valid=False), *cases(2, error="disk full")]


class Asked:
    """As much of a bus as an improver looks at."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.providers = {"mine": "m1", "claude": "c1", "offline": "o"}
        self.magic = FairyMagic()
        self.said: list[str] = []

    async def publish(self, topic: str, message: object) -> int:
        self.said.append(topic)
        return 1


def a_bus(**settings: Any) -> Bus:
    return cast(Bus, Asked(**settings))


async def analyzed(events: list[dict[str, Any]]) -> dict[str, Any]:
    return await AnalyzerAgent(clock=FakeClock()).analyze(events)


async def improved(
    analysis: Mapping[str, Any], learned: Mapping[str, Any] | None = None, bus: Bus | None = None
) -> dict[str, Any]:
    agent = ImproverAgent(bus, clock=FakeClock())
    improvement: dict[str, Any] = await agent.improve(analysis, learned)
    assert json.loads(json.dumps(improvement)) == improvement
    return improvement


def gap(agent: str) -> dict[str, object]:
    finding = Finding(
        kind="agent_gap",
        where={"agent": agent, "by": "events"},
        effect=Effect(0.25, "difference of shares", (0.2, 0.3)),
        n=200,
        n_reference=100,
        q=0.001,
        evidence=Evidence(
            counts={
                "failures": 60,
                "successes": 140,
                "failures_without": 5,
                "successes_without": 95,
            }
        ),
    )
    return finding.to_json()


async def test_where_nothing_was_found_nothing_is_said_or_proposed() -> None:
    improvement = await improved({"metrics": {}, "findings": []})

    assert improvement == {
        "suggestions": {},
        "improvements": [],
        "timestamp": "2023-11-14T22:13:20+00:00",
    }


async def test_each_trouble_has_its_sentence_in_the_words_of_the_story() -> None:
    suggestions = (await improved(await analyzed(TROUBLE)))["suggestions"]

    assert suggestions["validation_failures"] == (
        "Enable blue spark healing for validation failures: 3 of 25 at validation (12%, 4% to 30%)."
    )
    assert suggestions["execution_errors"].startswith(
        "Implement circuit breaker for execution errors: 2 of 22 at executor, 'disk full' (9%"
    )
    assert suggestions["performance"].startswith(
        "Apply acorn vitality boost for performance: plan → execution takes "
    )
    assert suggestions["success_patterns"] == (
        "Reinforce 1 successful pattern: observation → plan → execution → validation → executor "
        "ended well in 20 of 22 cases."
    )
    assert suggestions["energy"].startswith(
        "Monitor energy levels and implement automatic recharging"
    )
    assert "high_risk" not in suggestions


async def test_cases_that_all_go_well_ask_for_more_of_the_same_only() -> None:
    improvement = await improved(await analyzed(cases(9)))

    assert [*improvement["suggestions"]] == ["success_patterns"]
    assert improvement["improvements"] == []


async def test_what_fails_more_is_an_operation_of_high_risk() -> None:
    suggestions = (await improved({"findings": [gap("b")]}))["suggestions"]

    assert suggestions == {
        "high_risk": "Activate fairy shield during high-risk operations: with b 30% fail, "
        "without it 5% (q = 0.001, n = 200 and 100)."
    }


async def test_improvements_are_typed_and_rest_on_findings() -> None:
    analysis = await analyzed(TROUBLE)

    improvements = (await improved(analysis))["improvements"]

    ids = {each["id"] for each in analysis["findings"]}
    assert {each["action"] for each in improvements} >= {"prompt_feedback", "parallelise"}
    assert all({*each["finding_ids"]} <= ids for each in improvements)
    assert not any(each["applicable"] for each in improvements)


async def test_with_a_bus_a_change_is_a_setting_that_it_can_take() -> None:
    improvement = await improved({"findings": [gap("mine")]}, bus=a_bus())

    (change,) = improvement["improvements"]
    assert change["settings"] == {"failover": ["claude", "mine"]}
    assert change["applicable"]
    assert improvement["suggestions"]["reorder_providers mine"].startswith(
        "Set failover = ['claude', 'mine']: it could gain 25.0% at most"
    )


def test_the_order_that_is_set_wins_over_that_of_registration() -> None:
    values = settings_of(a_bus(failover=("claude", "mine"), max_tokens=70))

    assert (values["failover"], values["max_tokens"]) == (("claude", "mine"), 70)
    assert settings_of(a_bus())["failover"] == ("mine", "claude")
    assert settings_of(None) == {}


@pytest.mark.parametrize("inside", [True, False], ids=["all of it", "its patterns"])
async def test_what_was_learned_is_taken_whole_or_in_part(inside: bool) -> None:
    patterns: dict[str, Any] = {
        "variants": [
            {"sequence": ["a", "b"], "n": 9, "outcomes": {"success": 7, "failure": 2}},
            {"sequence": ["a"], "n": 4, "successes": 1, "failures": 3},
            {"sequence": ["c"], "n": 4, "successes": 4, "failures": 0},
            {"sequence": "abc", "n": 4, "successes": 4, "failures": 0},
            {"sequence": ["d"], "n": "many"},
            {"sequence": ["e"], "n": 3},
            "nonsense",
        ]
    }

    suggestions = (
        await improved({"findings": []}, {"learned_patterns": patterns} if inside else patterns)
    )["suggestions"]

    assert suggestions == {
        "success_patterns": "Reinforce 2 successful patterns: a → b ended well in 7 of 9 cases."
    }


async def test_findings_of_the_learner_count_too_and_each_once() -> None:
    analysis = {"findings": [gap("a")]}
    learned = {
        "bottlenecks": [gap("a"), gap("b")],
        "learned_patterns": {"findings": [gap("b"), gap("c")]},
    }

    improvements = (await improved(analysis, learned))["improvements"]

    assert [each["target"] for each in improvements] == ["a", "b", "c"]


async def test_feedback_is_shown_with_what_it_is_about() -> None:
    (before,) = (await improved({"findings": [gap("a")]}))["improvements"]

    (after,) = (
        await improved(
            {"findings": [gap("a")]},
            {
                "learned_patterns": {
                    "feedback": {before["id"]: {"verdict": "good", "note": "it held"}}
                }
            },
        )
    )["improvements"]

    assert after["feedback"] == {"verdict": "good", "note": "it held"}


@pytest.mark.parametrize(
    ("analysis", "learned"),
    [
        ({}, None),
        ({"findings": "none", "metrics": 3}, {"learned_patterns": 4, "feedback": []}),
        ({"findings": [3, {}, {"v": 99}, None]}, {"variants": 7, "bottlenecks": {"a": 1}}),
    ],
)
async def test_what_is_no_analysis_is_left_out(
    analysis: dict[str, Any], learned: dict[str, Any] | None
) -> None:
    improvement = await improved(analysis, learned)

    assert (improvement["suggestions"], improvement["improvements"]) == ({}, [])


async def test_an_improvement_becomes_known_on_the_bus_and_in_memory() -> None:
    bus = Asked()
    agent, memory = ImproverAgent(cast(Bus, bus), clock=FakeClock()), Remembered()
    agent.memory = memory

    improvement = await agent.improve(await analyzed(TROUBLE), conversation_id="c1")

    (event,) = memory.events
    assert bus.said == ["agents.improver"]
    assert (event["type"], event["conversation_id"]) == ("improvement", "c1")
    assert event["data"]["suggestions"] == improvement["suggestions"]


def test_a_hostile_name_is_one_short_line_in_a_sentence() -> None:
    name = "x\x1b[31m\n" + "y" * 5_000
    finding = Finding(
        kind="execution_error",
        where={"activity": name, "signature": name},
        effect=Effect(0.5, "share", (0.4, 0.6)),
        n=5,
        n_reference=10,
    )

    told = sentences([finding], propose([finding], settings={}), Patterns())

    assert all(len(each) < 500 and each.isprintable() for each in told.values())


def test_mere_facts_are_no_reason_for_a_sentence() -> None:
    finding = Finding(
        kind="slow_edge",
        where={"from": "a", "to": "b"},
        effect=Effect(2.0, "ratio"),
        n=5,
        level="info",
    )

    assert sentences([finding], [], Patterns()) == {}


def test_a_path_that_mostly_fails_is_not_reinforced() -> None:
    paths = (Path(sequence=("a",), n=9, outcomes=Endings(4, 5)),)

    assert sentences([], [], Patterns(variants=paths)) == {}


async def test_the_example_of_the_seed_runs_as_it_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    events = TROUBLE
    learned_patterns: dict[str, Any] = {}
    analyzer = AnalyzerAgent()
    improver = ImproverAgent()

    analysis = await analyzer.analyze(events)
    improvement = await improver.improve(analysis, learned_patterns)

    print(f"Suggestions: {improvement['suggestions']}")
    assert "Enable blue spark healing for validation failures" in capsys.readouterr().out
