"""A finding is there because figures say so, not because somebody looked long enough."""

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as File
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tree import ROOT
from zejzl.errors import StoreTooNew
from zejzl.learning.comparisons import AVOIDABLE
from zejzl.learning.evidence import Effect, Evidence, Finding, Kind
from zejzl.learning.findings import MOST, find, is_validation
from zejzl.learning.mining import Miner
from zejzl.learning.outcome import OutcomeRule
from zejzl.learning.patterns import (
    Activity,
    Edge,
    Endings,
    Failure,
    Feature,
    Patterns,
    Times,
    Worker,
)

DATA = ROOT.parent / "shared/data"
EXACT = "Fisher exact, two-sided; Benjamini-Hochberg"


def feature(
    name: str, success: int, failure: int, kind: str = "activity", **tasks: tuple[Endings, Endings]
) -> Feature:
    return Feature(
        kind=kind,
        name=tuple(name.split(">")),
        outcomes=Endings(success, failure),
        by_task=tasks,
        exemplars=("9",),
    )


def log(*features: Feature, success: int = 100, failure: int = 100, **more: object) -> Patterns:
    base = Patterns(
        cases=success + failure,
        first=0.0,
        last=600.0,
        outcomes=Endings(success, failure),
        features=features,
    )
    return replace(base, **more)  # type: ignore[arg-type]


def only(patterns: Patterns, reference: Patterns | None = None) -> Finding:
    (finding,) = find(patterns, reference)
    return finding


# Failing paths -------------------------------------------------------------------------------


def test_a_step_whose_cases_fail_more_often_is_a_failing_path() -> None:
    finding = only(log(feature("x", 20, 60)))

    assert (finding.kind, finding.where) == ("failing_path", {"activity": "x"})
    assert finding.effect.value == pytest.approx(0.75 - 40 / 120)
    assert finding.effect.unit == "difference of shares"
    assert finding.effect.ci95 == pytest.approx((0.2799, 0.5289), abs=1e-3)
    assert (finding.n, finding.n_reference, finding.cases_affected) == (80, 120, 60)
    assert finding.test == EXACT
    assert finding.p == finding.q == pytest.approx(1.0636e-8, rel=1e-4)
    assert finding.evidence.case_ids == ("9",)
    assert finding.evidence.counts == {
        "failures": 60,
        "successes": 20,
        "failures_without": 40,
        "successes_without": 80,
        "failed_cases": 100,
        "known_cases": 200,
        AVOIDABLE: pytest.approx(100 / 3 / 2),
    }


@pytest.mark.parametrize(
    "seen",
    [
        feature("x", 0, 9),
        feature("x", 91, 100),
        feature("x", 40, 48),
        feature("x", 60, 20),
    ],
    ids=["nine with it", "nine without it", "no significance", "fewer failures"],
)
def test_few_cases_chance_and_success_are_no_failing_path(seen: Feature) -> None:
    assert find(log(seen)) == []


def test_a_difference_below_five_points_is_none_however_sure() -> None:
    seen = feature("x", 40_000, 10_000)

    assert find(log(seen, success=167_650, failure=32_350)) != []
    assert find(log(seen, success=167_350, failure=32_650)) == []


def test_many_comparisons_need_more_than_one() -> None:
    odd = feature("x", 36, 54)
    noise = [feature(str(number), 50, 50) for number in range(20)]

    assert only(log(odd)).where == {"activity": "x"}
    assert find(log(odd, *noise)) == []


@pytest.mark.parametrize(
    ("kind", "name", "where"),
    [
        ("edge", "a>b", {"from": "a", "to": "b"}),
        ("rework", "a", {"rework": "a"}),
        ("task_type", "sums", {"task_type": "sums"}),
        ("agent", "ann", {"agent": "ann", "by": "cases"}),
    ],
)
def test_every_kind_of_feature_has_its_place(kind: str, name: str, where: dict[str, str]) -> None:
    finding = only(log(feature(name, 20, 60, kind)))

    assert (finding.where, finding.cases_affected) == (where, 60)
    assert finding.kind == ("agent_gap" if kind == "agent" else "failing_path")


def test_paths_that_nearly_the_same_cases_took_are_told_once() -> None:
    finding = only(log(feature("a>x", 20, 59, "edge"), feature("x", 20, 60), feature("y", 20, 60)))

    assert finding.where == {"activity": "x"}


def test_paths_of_other_cases_are_told_each() -> None:
    found = find(log(feature("x", 20, 60), feature("x>y", 5, 40, "edge")))

    assert [each.where for each in found] == [{"activity": "x"}, {"from": "x", "to": "y"}]


def test_what_only_failing_cases_have_may_be_the_outcome_itself() -> None:
    finding = only(log(feature("x", 0, 100)))

    assert finding.caveat == ("nothing else fails and all of it does: it may be the outcome itself")


def test_a_difference_that_turns_round_between_task_types_is_confounded() -> None:
    # Kidney stones (Charig et al., BMJ 1986), with the signs turned: x is the worse one in all,
    # and the better one for small stones and for large.
    small, large = Endings(81, 6), Endings(192, 71)
    seen = feature(
        "x",
        273,
        77,
        small=(small, Endings(81 + 234, 6 + 36)),
        large=(large, Endings(192 + 55, 71 + 25)),
    )
    others = {"success": 273 + 330, "failure": 77 + 20}

    finding = only(log(seen, **others))

    assert finding.effect.value > 0.05
    assert finding.level == "info"
    assert finding.caveat == (
        "confounded by task type: within types the difference is -5 points, turned round in small"
    )


def test_a_difference_that_is_gone_within_task_types_is_confounded() -> None:
    seen = feature(
        "x",
        20,
        60,
        hard=(Endings(10, 58), Endings(16, 92)),
        easy=(Endings(10, 2), Endings(84, 8)),
    )

    finding = only(log(seen))

    assert (finding.level, finding.evidence.counts["failures"]) == ("info", 60)
    assert str(finding.caveat).startswith("confounded by task type")


def test_a_difference_that_holds_within_task_types_is_a_finding() -> None:
    seen = feature(
        "x",
        20,
        60,
        hard=(Endings(10, 30), Endings(50, 50)),
        easy=(Endings(10, 30), Endings(50, 50)),
    )

    finding = only(log(seen))

    assert (finding.level, finding.caveat) == ("finding", None)


# Agents --------------------------------------------------------------------------------------


def worker(agent: str, success: int, failure: int, n: int | None = None) -> Worker:
    return Worker(agent=agent, n=n or success + failure, outcomes=Endings(success, failure))


def test_an_agent_that_fails_more_than_its_peers_is_a_gap() -> None:
    finding = only(log(workers=(worker("a", 190, 10), worker("b", 140, 60))))

    assert (finding.kind, finding.where) == ("agent_gap", {"agent": "b", "by": "events"})
    assert finding.effect.value == pytest.approx(0.25)
    assert finding.test == EXACT


def test_what_an_agent_fails_at_takes_time_that_is_known_or_not() -> None:
    slow = replace(worker("b", 140, 60), times=Times(n=200, mean_s=3.0))
    took = Times(n=200, total_s=900.0, mean_s=4.5, p25_s=3.0, p75_s=6.0)

    timed = find(log(workers=(worker("a", 190, 10), slow), times=took))[0]
    untimed = only(log(workers=(worker("a", 190, 10), worker("b", 140, 60))))

    assert timed.wasted_s_per_100_cases == pytest.approx(0.25 * 200 * 3.0 / 2)
    assert (timed.evidence.counts["mean_s"], timed.evidence.counts["p75_s"]) == (4.5, 6.0)
    assert untimed.wasted_s_per_100_cases is None
    assert (timed.cases_affected, "mean_s" in untimed.evidence.counts) == (None, False)


def test_an_agent_without_peers_has_no_gap() -> None:
    assert find(log(workers=(worker("b", 140, 60),))) == []


def test_events_of_one_case_count_as_one_witness() -> None:
    crew = (worker("a", 46, 4), worker("b", 36, 14))
    alone = log(workers=crew)
    crowded = log(feature("b", 10, 0, "agent"), feature("a", 9, 1, "agent"), workers=crew)

    assert only(alone).where["agent"] == "b"
    assert find(crowded) == []


def test_an_agent_is_told_of_once() -> None:
    crew = (worker("a", 190, 10), worker("b", 140, 60))

    finding = only(log(feature("b", 20, 60, "agent"), workers=crew))

    assert finding.where["by"] == "events"


def test_cases_in_which_only_one_agent_failed_are_its_evidence() -> None:
    error = failure("late", {"call:b": 60}, b=60)

    found = find(log(workers=(worker("a", 190, 10), worker("b", 140, 60)), failures=(error,)))

    assert found[0].evidence.case_ids == ("4",)


# Drift ---------------------------------------------------------------------------------------


def test_more_failures_than_in_an_earlier_window_are_drift() -> None:
    finding = only(log(success=60, failure=40), log(success=90, failure=10))

    assert (finding.kind, finding.where) == ("drift", {"of": "all cases"})
    assert finding.effect.value == pytest.approx(0.3)


def test_fewer_failures_than_before_are_no_drift() -> None:
    assert find(log(success=90, failure=10), log(success=60, failure=40)) == []


def test_drift_names_the_task_type_and_the_agent() -> None:
    def window(failing: int) -> Patterns:
        return log(
            success=1_000,
            failure=1_000,
            task_types={"sums": Endings(100 - failing, failing)},
            workers=(worker("a", 100 - failing, failing), worker("new", 100, 100)),
        )

    found = find(window(60), replace(window(10), workers=(worker("a", 90, 10),)))

    drift = [each.where for each in found if each.kind == "drift"]
    assert sorted(map(repr, drift)) == ["{'agent': 'a'}", "{'task_type': 'sums'}"]


# Counts --------------------------------------------------------------------------------------


def failure(signature: str, where: dict[str, int], **agents: int) -> Failure:
    return Failure(
        signature=signature,
        n=sum(where.values()),
        activities=where,
        agents=agents,
        first=60.0,
        last=90.0,
        exemplars=("4",),
    )


def act(name: str, n: int, failing: int, **more: object) -> Activity:
    made = Activity(name=name, n=n, cases=n, outcomes=Endings(n - failing, failing))
    return replace(made, **more)  # type: ignore[arg-type]


def test_one_failed_validation_is_reported_with_how_sure_that_is() -> None:
    finding = only(log(activities=(act("validation", 20, 1, exemplars=("5",)),)))

    assert (finding.kind, finding.where) == ("validation_failure", {"activity": "validation"})
    assert (finding.n, finding.n_reference, finding.cases_affected) == (1, 20, 1)
    assert finding.effect.ci95 == pytest.approx((0.0089, 0.2361), abs=1e-4)
    assert (finding.test, finding.p) == (None, None)
    assert finding.evidence.case_ids == ("5",)


def test_what_validations_say_belongs_to_them() -> None:
    said = failure("too short", {"validation": 3}, judge=3)

    finding = only(log(activities=(act("validation", 20, 2),), failures=(said,)))

    assert (finding.kind, finding.n) == ("validation_failure", 3)
    assert finding.evidence.case_ids == ("4",)


def test_errors_are_counted_by_step_and_by_what_they_say() -> None:
    patterns = log(
        activities=(act("call:b", 50, 7, times=Times(n=50, mean_s=2.0)), act("read", 20, 1)),
        failures=(failure("late", {"call:b": 5, "read": 1}, b=5, c=1),),
    )

    found = {tuple(each.where.values()): each for each in find(patterns)}

    assert {where: each.n for where, each in found.items()} == {
        ("call:b", "late"): 5,
        ("call:b",): 2,
        ("read", "late"): 1,
    }
    late = found["call:b", "late"]
    assert late.kind == "execution_error"
    assert late.effect.value == 0.1
    assert late.wasted_s_per_100_cases == pytest.approx(5 * 2.0 / 2)
    assert late.evidence.window == (60.0, 90.0)
    counts = late.evidence.counts
    assert (counts["agent b"], counts["events_per_minute"]) == (5, 5.0)
    assert (counts["failed_cases"], counts["known_cases"]) == (100, 200)


def test_where_a_case_fails_more_than_once_failures_are_not_called_cases() -> None:
    finding = only(log(activities=(act("call", 50, 7, cases=20),)))

    assert (finding.n, finding.cases_affected) == (7, None)


def test_a_log_without_time_has_no_rate() -> None:
    finding = only(log(activities=(act("call", 50, 7),), last=0.0))

    assert "events_per_minute" not in finding.evidence.counts


@pytest.mark.parametrize(
    ("name", "checks"),
    [("validation", True), ("Validator", True), ("validate:schema", True), ("plan:valid", False)],
)
def test_a_validation_is_known_by_its_name(name: str, checks: bool) -> None:
    assert is_validation(name) is checks


# All of them ---------------------------------------------------------------------------------


def test_nothing_seen_is_nothing_found() -> None:
    assert find(Patterns()) == []
    assert find(Patterns(), Patterns()) == []


def test_at_most_ten_are_told_those_with_most_to_gain_first() -> None:
    errors = tuple(act(f"step {number}", 200, number) for number in range(1, 15))

    found = find(log(activities=errors))

    assert [each.n for each in found] == [14, 13, 12, 11, 10, 9, 8, 7, 6, 5]
    assert len(found) == MOST


def test_seconds_and_failures_are_weighed_against_each_other() -> None:
    slow = Times(n=100, total_s=900.0, mean_s=9.0, p50_s=9.0, p50_low=9, p50_high=9, p95_s=9.0)
    quick = Times(n=100, total_s=50.0, mean_s=0.5, p50_s=0.5, p50_low=0.5, p50_high=0.5, p95_s=1)
    edges = (
        Edge(source="a", target="b", times=quick, share_of_time=0.05),
        Edge(source="b", target="c", times=quick, share_of_time=0.05),
        Edge(source="c", target="d", times=slow, share_of_time=0.9),
    )
    patterns = log(
        activities=(act("read", 200, 4), act("write", 200, 190)),
        edges=edges,
        times=Times(n=200, total_s=1_000.0),
    )

    assert [each.kind for each in find(patterns)] == [
        "execution_error",
        "slow_edge",
        "execution_error",
    ]


def test_what_is_certain_comes_before_what_is_not() -> None:
    maybe = feature("x", 20, 60, hard=(Endings(20, 60), Endings(20, 92)))
    patterns = log(maybe, activities=(act("read", 200, 1),))

    assert [each.level for each in find(patterns)] == ["finding", "info"]


def test_a_scheduled_wait_keeps_its_place_among_ten() -> None:
    wait = Times(n=100, total_s=9e6, mean_s=9e4, p25_s=9e4, p50_s=9e4, p75_s=9e4, p95_s=9e4)
    edge = Edge(source="a", target="b", times=wait, share_of_time=1.0)
    errors = tuple(act(f"step {number}", 200, number) for number in range(1, 15))

    kinds = [each.kind for each in find(log(activities=errors, edges=(edge,)))]

    assert kinds == ["execution_error"] * 9 + ["timer"]


# As JSON -------------------------------------------------------------------------------------

NUMBER = st.floats(allow_nan=False, allow_infinity=False)
FINDINGS = st.builds(
    Finding,
    kind=st.sampled_from(list(Kind.__args__)),  # type: ignore[attr-defined]
    where=st.dictionaries(st.text(), st.text(), max_size=3),
    effect=st.builds(
        Effect, NUMBER, st.sampled_from(["s", "ratio"]), st.none() | st.tuples(NUMBER, NUMBER)
    ),
    n=st.integers(0, 10**9),
    n_reference=st.none() | st.integers(0, 10**9),
    test=st.none() | st.text(max_size=5),
    p=st.none() | st.floats(0, 1),
    share_of_time=st.none() | st.floats(0, 1),
    evidence=st.builds(
        Evidence,
        case_ids=st.tuples(st.none() | st.text(max_size=5), st.just("NA")),
        window=st.tuples(st.none() | NUMBER, NUMBER),
        counts=st.dictionaries(st.text(max_size=5), NUMBER | st.integers(0, 9), max_size=2),
    ),
    level=st.sampled_from(["finding", "info"]),
)


@given(FINDINGS)
def test_a_finding_comes_back_from_json_as_it_was(finding: Finding) -> None:
    again = Finding.from_json(json.loads(json.dumps(finding.to_json())))

    assert again == finding
    assert again.id == finding.id


def test_a_finding_is_the_same_one_as_long_as_kind_and_place_are() -> None:
    one, later = only(log(feature("x", 20, 60))), only(log(feature("x", 20, 70), failure=200))
    elsewhere = only(log(feature("y", 20, 60)))

    assert one.id == later.id
    assert one.id != elsewhere.id


def test_half_characters_in_a_name_have_an_id_too() -> None:
    assert only(log(feature("\udc80", 20, 60))).id.startswith("failing_path-")


def test_a_finding_of_a_newer_version_is_left_alone() -> None:
    with pytest.raises(StoreTooNew):
        Finding.from_json({**only(log(feature("x", 20, 60))).to_json(), "v": 99})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "rumour"),
        ("kind", None),
        ("level", "loud"),
        ("where", {"activity": 3}),
        ("where", {3: "x"}),
        ("where", None),
        ("n", -1),
        ("n", True),
        ("n", 2.5),
        ("p", "small"),
        ("p", float("nan")),
        ("q", True),
        ("share_of_time", 10**400),
        ("effect", None),
        ("effect", {"value": 1.0, "unit": "s", "ci95": [1.0]}),
        ("effect", {"value": 1.0, "unit": "s", "ci95": [None, 1.0]}),
        ("evidence", {"case_ids": [3], "window": [None, None], "counts": {}}),
        ("evidence", {"case_ids": [], "window": "ab", "counts": {}}),
        ("evidence", {"case_ids": [], "window": [None, None], "counts": []}),
    ],
)
def test_a_damaged_finding_is_told_not_believed(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"not|cannot|must|open"):
        Finding.from_json({**only(log(feature("x", 20, 60))).to_json(), name: value})


# The real logs -------------------------------------------------------------------------------


def read(name: str) -> list[dict[str, str]]:
    path = DATA / f"{name}.csv.gz"
    if not path.is_file():
        pytest.skip(f"{name} is not here")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def events(rows: list[dict[str, str]], outcome: dict[str, int] | None = None) -> Iterator[object]:
    for row in rows:
        case = row["case"]
        yield {
            "type": row["activity"],
            "data": {"error": row.get("error", "")},
            "conversation_id": case,
            "timestamp": float(row["ts"]),
            "won": row.get("reward") if outcome is None else outcome[case],
        }


def mined(rows: list[dict[str, str]], rule: str, outcome: dict[str, int] | None = None) -> Patterns:
    miner = Miner(outcome=OutcomeRule.parse(rule))
    miner.learn(events(rows, outcome))
    return miner.patterns()


FINES = "failure = case contains 'Send for Credit Collection' before 'Add penalty'"


def test_of_the_fines_the_sixty_days_are_a_timer_and_nothing_else_is() -> None:
    patterns = mined(read("traffic_fines_10k"), FINES)

    timers = [each for each in find(patterns) if each.kind == "timer"]

    assert [each.where for each in timers] == [
        {"from": "Insert Fine Notification", "to": "Add penalty"}
    ]
    assert timers[0].n == 4417
    assert timers[0].effect.value == pytest.approx(60 * 86_400, rel=0.01)


def test_of_the_fines_no_failing_path_is_the_outcome() -> None:
    rows = read("traffic_fines_10k")
    truth = json.loads(File(DATA / "extra.truth.json").read_text())["traffic_fines_10k"]["prefix"]

    paths = [each for each in find(mined(rows, FINES)) if each.kind == "failing_path"]

    known = {tuple(each["feature"][1:]): each for each in truth["top_failure"]}
    places = [tuple(each.where.values()) for each in paths]
    leaked = {"Add penalty", "Send for Credit Collection"}
    assert places
    assert not leaked & {name for place in places for name in place}
    for place, each in zip(places, paths, strict=True):
        told = known[place]
        assert (each.n, each.cases_affected) == (told["cases"], told["failed"])
        assert each.effect.value == pytest.approx(told["diff"], abs=1e-5)
        assert each.q == pytest.approx(told["q_bh"], rel=1e-6)


def test_of_the_agent_runs_some_paths_fail_and_some_errors_are_counted() -> None:
    found = find(mined(read("taubench_gpt4o_airline"), "success = won >= 1"))

    assert {"failing_path", "execution_error"} <= {each.kind for each in found}
    assert not [each for each in found if each.kind in ("timer", "slow_edge")]


def shuffled(rows: list[dict[str, str]], failing: int, seed: int) -> dict[str, int]:
    cases = sorted({row["case"] for row in rows})
    lost = set(Random(seed).sample(cases, failing))
    return {case: int(case not in lost) for case in cases}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "most_rows"), [("taubench_gpt4o_airline", 5_108), ("traffic_fines_10k", 7_000)]
)
def test_with_outcomes_by_chance_hardly_any_path_fails(name: str, most_rows: int) -> None:
    rows = read(name)[:most_rows]
    failing = len({row["case"] for row in rows}) * 2 // 5

    alarms = 0
    for seed in range(200):
        patterns = mined(rows, "success = won >= 1", shuffled(rows, failing, seed))
        kinds = {each.kind for each in find(patterns)}
        alarms += bool(kinds & {"failing_path", "agent_gap"})

    assert alarms <= 10


@pytest.mark.slow
def test_of_agents_and_paths_drawn_by_chance_hardly_any_fails() -> None:
    alarms = 0
    for seed in range(300):
        rng = Random(seed)
        drawn = []
        for number in range(30):
            size = rng.randint(10, 150)
            failed = sum(rng.sample([0] * 100 + [1] * 100, size))
            drawn.append(feature(str(number), size - failed, failed))
        crew = []
        for agent in "abcde":
            failed = sum(rng.random() < 0.3 for _ in range(80))
            crew.append(worker(agent, 80 - failed, failed))
        alarms += bool(find(log(*drawn, workers=tuple(crew))))

    assert alarms <= 15
