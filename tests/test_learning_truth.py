"""The miner against two real logs whose truth was computed by others, in three ways that agree.

The logs are not part of the tree; where they are absent, these tests are skipped.
"""

import csv
import gzip
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from zejzl.learning.mining import Miner
from zejzl.learning.outcome import OutcomeRule
from zejzl.learning.patterns import Endings, Patterns

DATA = Path(__file__).parents[2] / "shared/data"
LOGS = ("traffic_fines_10k", "taubench_gpt4o_airline")
CREDIT = "failure = case contains 'Send for Credit Collection'"
RULES = {"traffic_fines_10k": CREDIT, "taubench_gpt4o_airline": "success = reward == 1"}

both = pytest.mark.parametrize("log", LOGS)
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the logs of ../shared/data are absent")


@cache
def events(log: str) -> list[dict[str, object]]:
    """Return a log's events; two rows that are equal are two events, as their `id` says."""
    with gzip.open(DATA / f"{log}.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        return [
            {
                "id": number,
                "type": row.pop("activity"),
                "conversation_id": row.pop("case"),
                "timestamp": float(row.pop("ts")),
                "agent": row.pop("resource"),
                "data": row,
            }
            for number, row in enumerate(csv.DictReader(lines))
        ]


@cache
def truth(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / f"{name}.truth.json").read_text("utf-8"))
    return found


@cache
def mined(log: str, rule: str = "") -> Patterns:
    miner = Miner(outcome=OutcomeRule.parse(rule or RULES[log]))
    miner.learn(events(log))
    return miner.patterns()


def by_feature(found: Patterns) -> dict[tuple[str, ...], Endings]:
    kinds = {"activity": "act", "edge": "edge", "rework": "rework"}
    return {
        (kinds[feature.kind], *feature.name): feature.outcomes
        for feature in found.features
        if feature.kind in kinds
    }


@both
def test_events_cases_and_activities_are_exact(log: str) -> None:
    found, expected = mined(log), truth(log)

    assert found.skipped == {}
    assert (found.events, found.cases) == (expected["events"], expected["cases"])
    assert (found.first, found.last) == (expected["first_ts"], expected["last_ts"])
    assert {a.name: a.n for a in found.activities} == expected["activity_counts"]


@both
def test_variants_and_their_coverage_are_exact(log: str) -> None:
    found, expected = mined(log), truth(log)

    by_sequence = {path.sequence: path.n for path in found.variants}

    assert len(found.variants) == expected["variants"]
    assert sum(path.n == 1 for path in found.variants) == expected["variants_once"]
    for variant in expected["top_variants"]:
        assert by_sequence[tuple(variant["seq"])] == variant["n"]
    ranked = [path.n for path in found.variants[: len(expected["top_variants"])]]
    assert ranked == [variant["n"] for variant in expected["top_variants"]]
    assert found.coverage == {
        most: pytest.approx(expected["coverage"][f"top{most}"], abs=1e-12)
        for most in (1, 5, 10, 20)
    }
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    for path in found.variants:
        starts[path.sequence[0]] = starts.get(path.sequence[0], 0) + path.n
        ends[path.sequence[-1]] = ends.get(path.sequence[-1], 0) + path.n
    assert (starts, ends) == (expected["start"], expected["end"])


@both
def test_edges_are_exact_and_their_quantiles_within_two_percent(log: str) -> None:
    found, expected = mined(log), truth(log)

    edges = {(edge.source, edge.target): edge for edge in found.edges}

    assert len(edges) == expected["dfg_edges"]
    for edge in expected["top_edges_by_count"]:
        assert edges[tuple(edge["edge"])].times.n == edge["n"]
    for slow in expected["slow_by_total"] + expected["slow_by_median_n30"]:
        times = edges[tuple(slow["edge"])].times
        assert times.n == slow["n"]
        assert times.total_s == slow["total"]
        assert times.mean_s == pytest.approx(slow["mean"], rel=1e-12)
        assert times.p50_s == pytest.approx(slow["p50"], rel=0.02)
        assert times.p95_s == pytest.approx(slow["p95"], rel=0.02)
    total = sum(edge.times.total_s for edge in found.edges)
    count = sum(edge.times.n for edge in found.edges)
    assert total / count == pytest.approx(expected["mean_edge_s"], rel=1e-12)
    top = sorted((edge.share_of_time for edge in found.edges), reverse=True)[:5]
    assert sum(top) == pytest.approx(expected["total_share_top5"], rel=1e-12)


@both
def test_durations_of_cases_are_exact_on_average_and_within_two_percent_else(log: str) -> None:
    times, expected = mined(log).times, truth(log)["case_duration_s"]

    assert times.mean_s == pytest.approx(expected["mean"], rel=1e-12)
    assert times.p50_s == pytest.approx(expected["p50"], rel=0.02)
    assert times.p95_s == pytest.approx(expected["p95"], rel=0.02)


@both
def test_rework_and_loops_are_exact(log: str) -> None:
    found, expected = mined(log), truth(log)

    assert {r.activity: r.cases for r in found.rework} == expected["rework_cases_per_activity"]
    loops = {(loop.first, loop.second): loop.n for loop in found.loops}
    for loop in expected["len2_loops"]:
        assert loops[loop["a"], loop["b"]] == loop["n"]
    assert sorted(loops.values(), reverse=True)[:15] == [n["n"] for n in expected["len2_loops"]]
    selfloops = {edge.source: edge.times.n for edge in found.edges if edge.source == edge.target}
    assert selfloops == expected["selfloops"]


@both
def test_outcomes_are_exact(log: str) -> None:
    found, expected = mined(log).outcomes, truth(log)["outcome"]

    assert (found.success, found.failure) == (expected["success"], expected["failure"])
    assert found.unknown == 0
    assert found.rate == pytest.approx(expected["success_rate"])


def test_features_are_those_of_the_whole_case_where_the_outcome_is_a_column_of_it() -> None:
    features, expected = by_feature(mined(LOGS[1])), truth(LOGS[1])["outcome"]

    for feature in expected["top_failure"] + expected["top_success"]:
        outcomes = features[tuple(feature["feature"])]
        assert (outcomes.known, outcomes.failure) == (feature["cases"], feature["failed"])
    tested = [name for name, outcomes in features.items() if 10 <= outcomes.known <= 190]
    assert len(tested) == expected["tests"]


def test_features_are_only_those_from_before_the_outcome() -> None:
    found = mined(LOGS[0], f"{CREDIT} before 'Add penalty'")
    features, expected = by_feature(found), truth("extra")[LOGS[0]]["prefix"]

    assert found.outcomes == Endings(success=expected["success"], failure=expected["failure"])
    for feature in expected["top_failure"] + expected["top_success"]:
        outcomes = features[tuple(feature["feature"])]
        assert (outcomes.known, outcomes.failure) == (feature["cases"], feature["failed"])
    tested = [name for name, outcomes in features.items() if 10 <= outcomes.known <= 9990]
    assert len(tested) == expected["tests"]
    assert not [name for name in features if {"Add penalty", CREDIT[23:-1]} & {*name}]


def test_the_outcome_itself_is_never_one_of_the_features() -> None:
    features = by_feature(mined(LOGS[0]))

    assert not [name for name in features if "Send for Credit Collection" in name]
    assert ("act", "Add penalty") in features


def test_one_edge_is_a_timer() -> None:
    found, expected = mined(LOGS[0]), truth("extra")[LOGS[0]]["timers"]

    timers = [
        edge
        for edge in found.edges
        if edge.times.n >= 100 and edge.times.p75_s < 1.05 * edge.times.p25_s
    ]

    assert [[edge.source, edge.target] for edge in timers] == [expected[0]["edge"]]
    assert timers[0].times.p50_s == pytest.approx(expected[0]["p50"], rel=0.02)
    assert [share for _, share in timers[0].times.peaks] == [1.0]


def test_calls_that_failed_are_found_in_the_agent_runs() -> None:
    found, expected = mined(LOGS[1]), truth("extra")[LOGS[1]]

    errors = {a.name: a.outcomes.failure for a in found.activities if a.outcomes.failure}
    counted: dict[str, int] = {}
    for failure in found.failures:
        for activity, n in failure.activities.items():
            counted[activity] = counted.get(activity, 0) + n

    assert errors == counted == expected["exec_errors"]


@both
def test_the_order_of_rows_matters_only_within_a_case(log: str) -> None:
    rows = sorted(events(log), key=lambda event: str(event["conversation_id"])[::-1])
    miner = Miner(outcome=OutcomeRule.parse(RULES[log]))

    miner.learn(rows[: len(rows) // 3])
    miner = Miner.from_json(json.loads(json.dumps(miner.to_json())))
    miner.learn(rows[len(rows) // 3 :])
    miner.finish()

    found = miner.patterns()
    assert found.open_cases == 0
    assert found == replace(mined(log), open_cases=0)
