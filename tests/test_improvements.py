"""A change rests on a finding, says what it could gain, and is what a bus can take, or advice."""

import json
from collections.abc import Mapping
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.errors import StoreTooNew
from zejzl.learning.betting import FEW
from zejzl.learning.change import KEEP_AWAY, Action, Improvement
from zejzl.learning.evidence import Effect, Evidence, Finding, Kind
from zejzl.learning.findings import find
from zejzl.learning.improvements import propose
from zejzl.learning.mining import Miner
from zejzl.settings import RateLimit, Settings

ASKED: Mapping[str, object] = {
    "failover": ("a", "b", "c"),
    "default_provider": None,
    "attempt_timeout": 30.0,
    "max_attempts": 3,
    "max_tokens": 500,
    "rate_limits": {},
}


def gap(agent: str, difference: float = 0.25, by: str = "events") -> Finding:
    return Finding(
        kind="agent_gap",
        where={"agent": agent, "by": by},
        effect=Effect(difference, "difference of shares", (difference - 0.1, difference + 0.1)),
        n=200,
        n_reference=200,
        q=0.001,
        wasted_s_per_100_cases=50.0 if by == "time" else None,
        evidence=Evidence(counts={"failures": 60, "successes": 140}, case_ids=("4",)),
    )


def path(difference: float = 0.4, failures: int = 60, **where: str) -> Finding:
    return Finding(
        kind="failing_path",
        where=where,
        effect=Effect(difference, "difference of shares", (0.3, 0.5)),
        n=80,
        evidence=Evidence(counts={"failures": failures, "successes": 80 - failures}),
    )


def error(said: str, activity: str = "call:b", share: float = 0.2, **counts: float) -> Finding:
    return Finding(
        kind="execution_error",
        where={"activity": activity, "signature": said},
        effect=Effect(share, "share", (share - 0.1, share + 0.1)),
        n=int(200 * share),
        n_reference=200,
        evidence=Evidence(counts={"failed_cases": 9, **counts}),
    )


def slow(**where: str) -> Finding:
    counts = {"mean_s": 3.0, "p25_s": 0.8, "p50_s": 1.0, "p75_s": 1.5, "p95_s": 12.0}
    return Finding(
        kind="slow_edge",
        where=where,
        effect=Effect(12.0, "ratio"),
        n=200,
        wasted_s_per_100_cases=150.0,
        evidence=Evidence(counts=counts),
    )


def only(*findings: Finding, **settings: object) -> Improvement:
    (improvement,) = propose(findings, settings={**ASKED, **settings})
    return improvement


def taken(settings: Mapping[str, object]) -> Settings:
    """Return the settings of a bus that took a change."""
    return Settings(**settings)  # type: ignore[arg-type]


# No finding, no improvement ------------------------------------------------------------------


@pytest.mark.parametrize(
    "finding",
    [
        replace(gap("b"), level="info"),
        Finding(kind="timer", where={"from": "a", "to": "b"}, effect=Effect(1.0, "s"), n=100),
        gap("ann", by="time"),
        replace(gap("ann"), kind="drift", where={"of": "all cases"}),
    ],
    ids=["a mere fact", "a scheduled wait", "somebody slower", "drift of all"],
)
def test_what_asks_for_no_change_gets_none(finding: Finding) -> None:
    assert propose([finding], settings=ASKED) == []


@pytest.mark.parametrize(
    "where",
    [
        {"from": "call:b", "to": "call:a"},
        {"from": "call:b", "to": "executor"},
        {"rework": "call:b"},
    ],
    ids=["failover", "the end", "a retry"],
)
@pytest.mark.parametrize("kind", ["failing_path", "slow_edge", "ping_pong"])
def test_retries_and_failover_follow_from_failures_and_ask_for_nothing_themselves(
    kind: Kind, where: dict[str, str]
) -> None:
    assert propose([replace(slow(**where), kind=kind)], settings=ASKED) == []


def test_a_call_that_is_made_again_is_not_kept_in_a_cache() -> None:
    assert propose([of("rework_loop", activity="call:b")], settings=ASKED) == []


def test_nothing_found_is_nothing_to_improve() -> None:
    assert propose([], settings=ASKED) == []


# Providers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "finding",
    [
        gap("B"),
        gap("b", by="time"),
        path(activity="call:b"),
        replace(gap("b"), kind="drift", where={"agent": "b"}),
    ],
    ids=["fails more", "is slower", "leads to failure", "got worse"],
)
def test_a_provider_that_is_worse_is_asked_last(finding: Finding) -> None:
    improvement = only(finding)

    assert (improvement.action, improvement.target) == ("reorder_providers", "b")
    assert improvement.settings == {"failover": ["a", "c", "b"]}
    assert improvement.applicable
    assert improvement.reversible
    assert taken(improvement.settings).failover == ("a", "c", "b")
    assert improvement.finding_ids == (finding.id,)
    assert improvement.evidence == finding.evidence


def test_a_bad_provider_that_is_asked_first_by_default_no_longer_is() -> None:
    improvement = only(gap("c"), default_provider="C")

    assert improvement.settings == {"default_provider": "a"}


def test_of_two_bad_providers_the_worse_one_is_last() -> None:
    orders = [
        each.settings["failover"]
        for each in propose([gap("a", 0.5), gap("b", 0.2)], settings=ASKED)
    ]

    assert orders == [["c", "b", "a"]] * 2


@pytest.mark.parametrize(
    "providers", [("a", "c", "b"), ("b",)], ids=["is the last", "is the only one"]
)
def test_a_bad_provider_that_cannot_come_later_stays(providers: tuple[str, ...]) -> None:
    assert propose([gap("b")], settings={**ASKED, "failover": providers}) == []


def test_what_speaks_against_one_provider_twice_is_one_change() -> None:
    improvement = only(gap("b"), path(activity="call:b"))

    assert improvement.finding_ids == (gap("b").id, path(activity="call:b").id)


def test_a_slow_tail_is_cut_off_where_usual_answers_are_not() -> None:
    improvement = only(slow(agent="b"))

    assert improvement.action == "timeout"
    assert improvement.settings == {"attempt_timeout": 4.5}
    assert improvement.expected_gain == Effect(1.5, "s per case")
    assert improvement.how_to_verify.metric == "seconds"
    assert taken(improvement.settings).attempt_timeout == 4.5


def test_a_timeout_leaves_the_other_providers_their_time() -> None:
    finding = slow(agent="b")
    counts = {**finding.evidence.counts, "peers_p95_s": 6.0}

    improvement = only(replace(finding, evidence=Evidence(counts=counts)))

    assert improvement.settings == {"attempt_timeout": 9.0}


@pytest.mark.parametrize(
    ("now", "peers"), [(4.5, 0.0), (30.0, 8.0)], ids=["is so already", "would help nothing"]
)
def test_a_timeout_that_changes_nothing_is_not_proposed(now: float, peers: float) -> None:
    finding = slow(activity="call:b")
    counts = {**finding.evidence.counts, "peers_p95_s": peers}
    finding = replace(finding, evidence=Evidence(counts=counts))

    assert propose([finding], settings={**ASKED, "attempt_timeout": now}) == []


# Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["truncated", "finish_reason: length", "hit max_tokens"])
@pytest.mark.parametrize(("now", "limit"), [(500, 1_000), (None, 4_096), (100_000, 128_000)])
def test_answers_that_are_cut_off_may_be_longer(said: str, now: int | None, limit: int) -> None:
    improvement = only(error(said), max_tokens=now)

    assert improvement.action == "raise_max_tokens"
    assert improvement.settings == {"max_tokens": limit}
    assert improvement.parameters == {"before": now, "after": limit}
    assert taken(improvement.settings).max_tokens == limit


def test_an_answer_may_not_grow_for_ever() -> None:
    assert propose([error("truncated")], settings={**ASKED, "max_tokens": 128_000}) == []


def test_a_provider_that_is_asked_too_often_is_asked_less() -> None:
    improvement = only(error("rate_limited", events_per_minute=60.0))

    assert (improvement.action, improvement.target) == ("lower_concurrency", "b")
    assert improvement.settings == {"rate_limits": {"b": {"requests": 60}}}
    assert taken(improvement.settings).rate_limits == {"b": RateLimit(60)}


@pytest.mark.parametrize(
    "limits",
    [
        {"B": RateLimit(50, 9_000), "a": RateLimit(tokens=7)},
        {"b": {"requests": 50, "tokens": 9_000}, "a": {"tokens": 7}},
    ],
    ids=["as settings hold it", "as JSON holds it"],
)
def test_a_limit_that_is_too_high_is_lowered_and_the_others_stay(limits: object) -> None:
    improvement = only(error("Too many requests"), rate_limits=limits)

    assert improvement.settings == {
        "rate_limits": {"b": {"requests": 40, "tokens": 9_000}, "a": {"tokens": 7}}
    }


@pytest.mark.parametrize(
    ("activity", "counts", "limits"),
    [
        ("call:b", {}, {}),
        ("fetch", {"events_per_minute": 60.0}, {}),
        ("call:b", {}, {"b": RateLimit(1)}),
    ],
    ids=["nobody knows the rate", "no provider", "no less is possible"],
)
def test_a_limit_that_nobody_can_name_is_advice(
    activity: str, counts: dict[str, float], limits: dict[str, RateLimit]
) -> None:
    improvement = only(error("overloaded", activity, **counts), rate_limits=limits)

    assert improvement.action == "lower_concurrency"
    assert not improvement.applicable


def test_what_may_pass_is_tried_once_more() -> None:
    improvement = only(error("server_error", share=0.5))

    assert improvement.settings == {"max_attempts": 4}
    assert improvement.expected_gain.value == pytest.approx(0.5**3 * 0.5)
    assert taken(improvement.settings).max_attempts == 4


@pytest.mark.parametrize(
    ("share", "attempts", "lost"),
    [(0.5, 5, 9), (0.05, 3, 9), (0.5, 3, 0)],
    ids=["five times are enough", "nothing to gain", "no request failed"],
)
def test_another_try_is_not_asked_for_in_vain(share: float, attempts: int, lost: int) -> None:
    finding = error("connect", share=share, failed_cases=lost)

    assert propose([finding], settings={**ASKED, "max_attempts": attempts}) == []


@pytest.mark.parametrize(
    ("said", "activity", "action"),
    [
        ("timed out", "fetch", "retry_policy"),
        ("auth: connection refused", "call:b", "add_guard"),
        ("server_error: content filter of length 3", "fetch", "retry_policy"),
        ("rate_limited", "fetch", "lower_concurrency"),
        ("KeyError", "fetch", "add_guard"),
    ],
)
def test_errors_of_other_steps_and_hopeless_ones_are_advice(
    said: str, activity: str, action: Action
) -> None:
    improvement = only(error(said, activity))

    assert (improvement.action, improvement.target) == (action, activity)
    assert not improvement.applicable
    assert not improvement.reversible
    assert improvement.settings == {}


@pytest.mark.parametrize("said", ["cancelled", "deadline: 60 s are over"])
def test_what_we_ended_ourselves_asks_for_nothing(said: str) -> None:
    assert propose([error(said)], settings=ASKED) == []


# Advice --------------------------------------------------------------------------------------


def of(kind: str, **where: str) -> Finding:
    effect = Effect(0.2, "share", (0.1, 0.3))
    made = Finding(kind="rework_loop", where=where, effect=effect, n=9, wasted_s_per_100_cases=30)
    return replace(made, kind=kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("finding", "action", "target"),
    [
        (of("validation_failure", activity="validation"), "prompt_feedback", "validation"),
        (of("rework_loop", activity="fetch"), "cache", "fetch"),
        (of("ping_pong", **{"from": "x", "to": "y"}), "add_guard", "x → y"),
        (slow(**{"from": "x", "to": "y"}), "parallelise", "x → y"),
        (slow(**{"from": "x", "to": "y", "agent": "ann"}), "parallelise", "x → y (ann)"),
        (path(activity="delete"), KEEP_AWAY, "delete"),
        (path(rework="delete"), KEEP_AWAY, "delete again"),
        (path(task_type="sums", failures=30), "add_guard", "sums"),
        (gap("ann"), "add_guard", "ann"),
    ],
)
def test_what_no_setting_changes_is_advice(finding: Finding, action: Action, target: str) -> None:
    improvement = only(finding)

    assert (improvement.action, improvement.target) == (action, target)
    assert not improvement.applicable


def test_without_providers_nothing_is_set_for_one() -> None:
    (improvement,) = propose([gap("b")], settings={})

    assert (improvement.action, improvement.applicable) == ("add_guard", False)


# Verifying -----------------------------------------------------------------------------------


def test_half_of_a_gain_is_looked_for_and_the_certain_part_if_that_is_more() -> None:
    least = only(gap("b", 0.25)).how_to_verify.minimum_effect
    certain = only(gap("b", 0.15)).how_to_verify.minimum_effect

    assert least == pytest.approx(0.15)
    assert certain == pytest.approx(0.075)


def test_a_change_says_how_many_requests_would_show_it() -> None:
    # From 30 % that fail to 15 %: 121 in each arm.
    verification = only(gap("b")).how_to_verify

    assert (verification.metric, verification.n_needed) == ("success", 121)
    assert verification.stop_rule.endswith("undecided after 484 in all")


def counted(finding: Finding, **counts: float) -> Finding:
    evidence = Evidence(counts={**finding.evidence.counts, **counts})
    return replace(finding, evidence=evidence, wasted_s_per_100_cases=40.0)


def test_where_other_calls_make_good_what_fails_the_gain_is_time() -> None:
    times = {"mean_s": 2.0, "p25_s": 1.0, "p75_s": 3.0}

    improvement = only(counted(gap("b"), failed_cases=4, known_cases=100, **times))

    assert improvement.expected_gain == Effect(0.4, "s per case")
    assert improvement.how_to_verify.metric == "seconds"
    assert improvement.how_to_verify.minimum_effect == 0.2
    # ln(3)/1.349 deviations, and a tenth less.
    assert improvement.how_to_verify.n_needed == 938


def test_no_more_cases_can_be_won_than_are_lost() -> None:
    verification = only(counted(gap("b"), failed_cases=10, known_cases=100)).how_to_verify

    assert verification.metric == "success"
    assert verification.minimum_effect == pytest.approx(0.05)
    assert verification.n_needed == 435


def test_fewer_than_an_experiment_takes_are_never_enough() -> None:
    assert only(slow(**{"from": "x", "to": "y"})).how_to_verify.n_needed >= FEW
    assert only(path(activity="x", difference=0.7)).how_to_verify.n_needed >= FEW


# What people thought -------------------------------------------------------------------------


def ranked(feedback: Mapping[str, object]) -> list[str]:
    found = [error("KeyError", "one"), error("KeyError", "two"), error("KeyError", "three")]
    return [each.target for each in propose(found, settings=ASKED, feedback=feedback)]


def test_what_a_person_thought_weighs_on_the_order_and_is_shown() -> None:
    one, two, _ = propose(
        [error("KeyError", "one"), error("KeyError", "two"), error("KeyError", "three")],
        settings=ASKED,
    )

    assert ranked({}) == ["one", "two", "three"]
    assert ranked({one.id: {"verdict": "bad", "note": "did not help"}}) == ["two", "three", "one"]
    assert ranked({two.id: "good"}) == ["one", "two", "three"]
    assert ranked({one.id: "No", two.id: "good"})[0] == "two"
    assert ranked({one.id: "perhaps"}) == ["one", "two", "three"]
    (shown,) = propose(
        [error("KeyError", "one")],
        settings=ASKED,
        feedback={one.id: {"verdict": "bad", "note": "did not help", "more": 3}},
    )
    assert shown.feedback == {"verdict": "bad", "note": "did not help"}


# As JSON -------------------------------------------------------------------------------------

IMPROVEMENTS = st.sampled_from(
    propose(
        [
            gap("b"),
            slow(agent="b"),
            error("truncated"),
            error("rate_limited", events_per_minute=60.0),
            error("server_error", share=0.5),
            of("validation_failure", activity="validation"),
        ],
        settings=ASKED,
    )
)


@given(IMPROVEMENTS, st.text(), st.sampled_from(["proposed", "applied", "kept"]))
def test_an_improvement_comes_back_from_json_as_it_was(
    improvement: Improvement, target: str, status: str
) -> None:
    improvement = replace(improvement, target=target, status=status, feedback={"verdict": "good"})

    again = Improvement.from_json(json.loads(json.dumps(improvement.to_json())))

    assert again == improvement
    assert again.id == improvement.id


def test_an_improvement_is_the_same_one_as_long_as_it_is_the_same_change() -> None:
    assert only(gap("b", 0.25)).id == only(gap("b", 0.35)).id != only(gap("a")).id


def test_an_improvement_of_a_newer_version_is_left_alone() -> None:
    with pytest.raises(StoreTooNew):
        Improvement.from_json({**only(gap("b")).to_json(), "v": 99})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("action", "pray"),
        ("action", None),
        ("finding_ids", [3]),
        ("finding_ids", None),
        ("settings", []),
        ("how_to_verify", None),
        ("how_to_verify", {"metric": "luck"}),
        ("expected_gain", {}),
        ("status", 3),
    ],
)
def test_a_damaged_improvement_is_told_not_believed(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"not|cannot"):
        Improvement.from_json({**only(gap("b")).to_json(), name: value})


# From traffic to a setting -------------------------------------------------------------------


def traffic(requests: int, seed: int = 1) -> list[dict[str, object]]:
    """Return requests that b, asked first, often fails or is late with; then a answers."""
    rng, events = Random(seed), list[dict[str, object]]()

    def call(case: int, at: float, provider: str, error: str | None, took: float) -> None:
        events.append(
            {
                "type": f"call:{provider}",
                "data": {"error": error} if error else {},
                "agent": provider,
                "status": "error" if error else "ok",
                "duration_ms": 1000 * took,
                "conversation_id": f"r{case}",
                "timestamp": at,
            }
        )

    for case in range(requests):
        at = case * 2.0
        if rng.random() < 0.7:
            failed = rng.random() < 0.3
            took = rng.lognormvariate(0, 0.2) * (20 if rng.random() < 0.1 else 1)
            call(case, at, "b", "server_error" if failed else None, took)
            at += took
        else:
            failed = True
        if failed:
            call(case, at + 0.1, "a", None, rng.lognormvariate(0, 0.2))
        events.append(
            {
                "type": "executor",
                "data": {"status": "ok"},
                "conversation_id": f"r{case}",
                "timestamp": at + 1,
            }
        )
    return events


def test_from_two_thousand_requests_the_bad_provider_is_found_and_put_last() -> None:
    miner = Miner()
    miner.learn(traffic(2_000))

    findings = find(miner.patterns())
    improvements = propose(findings, settings={**ASKED, "failover": ("b", "a")})

    changes = {each.action: each.settings for each in improvements if each.applicable}
    assert changes["reorder_providers"] == {"failover": ["a", "b"]}
    assert {each.how_to_verify.metric for each in improvements} == {"seconds"}
    limit = changes["timeout"]["attempt_timeout"]
    assert isinstance(limit, float)
    assert 1.5 < limit < 10
    (gap,) = [each for each in findings if each.kind == "agent_gap"]
    assert gap.where == {"agent": "b", "by": "events"}
    assert gap.effect.value == pytest.approx(0.3, abs=0.05)


def test_from_providers_that_are_alike_nothing_is_proposed() -> None:
    rng, events = Random(4), list[dict[str, object]]()
    for case in range(1_000):
        for step, data in ((f"call:{rng.choice('ab')}", {}), ("executor", {"status": "ok"})):
            events.append(
                {
                    "type": step,
                    "agent": step.partition(":")[2] or "executor",
                    "data": data,
                    "status": "ok",
                    "duration_ms": 1000 * rng.lognormvariate(0, 0.2),
                    "conversation_id": case,
                    "timestamp": case * 2.0 + (step == "executor"),
                }
            )
    miner = Miner()
    miner.learn(events)

    assert propose(find(miner.patterns()), settings={**ASKED, "failover": ("b", "a")}) == []
