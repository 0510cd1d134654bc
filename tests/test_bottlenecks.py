"""Slow is what is clearly slower than something else; a wait on purpose is not slow."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.learning.bottlenecks import bottlenecks, is_timer, narrow, spoken, total_time
from zejzl.learning.evidence import Finding
from zejzl.learning.patterns import (
    Activity,
    Edge,
    Endings,
    Loop,
    Patterns,
    Rework,
    Times,
    Worker,
)
from zejzl.learning.peers import peers, typical

DAY = 86_400.0


def times(p50: float, *, n: int = 100, spread: float = 0.5, tail: float = 2.0) -> Times:
    """Return durations around a median, whose interval is 5 % on either side."""
    return Times(
        n=n,
        total_s=n * p50 * 1.2,
        mean_s=p50 * 1.2,
        p25_s=p50 * (1 - spread / 2),
        p50_s=p50,
        p75_s=p50 * (1 + spread / 2),
        p95_s=p50 * tail,
        p50_low=p50 * 0.95,
        p50_high=p50 * 1.05,
    )


def edge(source: str, target: str, of: Times, share: float, **agents: Times) -> Edge:
    return Edge(
        source=source,
        target=target,
        times=of,
        share_of_time=share,
        by_agent=agents,
        exemplars=("7",),
    )


def log(*edges: Edge, **more: object) -> Patterns:
    total = sum(each.times.total_s for each in edges)
    base = Patterns(cases=100, first=10.0, last=20.0, edges=edges)
    return replace(base, times=Times(n=100, total_s=total), **more)  # type: ignore[arg-type]


QUICK = (edge("a", "b", times(1.0), 0.1), edge("b", "c", times(1.2), 0.1))


def found(patterns: Patterns, reference: Patterns | None = None) -> list[Finding]:
    return bottlenecks(patterns, reference)


def only(patterns: Patterns, reference: Patterns | None = None) -> Finding:
    (finding,) = found(patterns, reference)
    return finding


# Slow ----------------------------------------------------------------------------------------


def test_a_step_that_takes_much_time_and_longer_than_the_median_edge_is_slow() -> None:
    finding = only(log(*QUICK, edge("c", "d", times(6.0), 0.8)))

    assert (finding.kind, finding.level) == ("slow_edge", "finding")
    assert finding.where == {"from": "c", "to": "d"}
    assert finding.effect.value == pytest.approx(5.0)
    assert finding.effect.ci95 == pytest.approx((4.75, 5.25))
    assert (finding.n, finding.share_of_time) == (100, 0.8)
    assert finding.wasted_s_per_100_cases == pytest.approx(100 * 7.2 - 100 * 1.2)
    assert finding.evidence.case_ids == ("7",)
    assert finding.evidence.window == (10.0, 20.0)
    assert finding.evidence.counts["p95_s"] == pytest.approx(12.0)


@pytest.mark.parametrize(
    ("p50", "share"), [(1.7, 0.8), (6.0, 0.04)], ids=["not slower", "little time"]
)
def test_a_step_that_is_not_slower_or_takes_little_time_proves_nothing(
    p50: float, share: float
) -> None:
    steps = (*QUICK, edge("c", "d", times(p50, n=5), share), edge("d", "e", times(1.2), 0.1))

    assert not [each for each in found(log(*steps)) if each.level == "finding"]


def test_a_step_above_the_mean_alone_is_told_as_a_mere_fact() -> None:
    finding = only(log(*QUICK, edge("c", "d", times(6.0, n=3), 0.04)))

    assert (finding.level, finding.caveat) == (
        "info",
        "slower than the mean edge, which proves little",
    )


@pytest.mark.parametrize(
    ("n", "low", "level"),
    [(30, 1.0, "finding"), (6, 5.0, "finding"), (6, 1.0, "info"), (5, 5.0, "info")],
    ids=["thirty", "few but clear", "few and unclear", "too few for an interval"],
)
def test_few_observations_count_where_their_interval_is_clear(
    n: int, low: float, level: str
) -> None:
    of = replace(times(6.0, n=n), p50_low=low)

    finding = only(log(*QUICK, edge("c", "d", of, 0.5)))

    assert finding.level == level
    assert (finding.caveat is None) == (level == "finding")
    assert (finding.effect.ci95 is None) == (n < 6)


@pytest.mark.parametrize(("n", "level"), [(30, "finding"), (29, "info")])
def test_a_heavy_tail_that_takes_a_fifth_of_the_time_is_slow(n: int, level: str) -> None:
    finding = only(log(*QUICK, edge("c", "d", times(1.2, n=n, tail=6.0), 0.2)))

    assert (finding.test, finding.level) == ("heavy tail: p95 over p50", level)
    assert finding.effect.value == pytest.approx(6.0)


def test_a_heavy_tail_that_takes_little_time_is_not_slow() -> None:
    assert found(log(*QUICK, edge("c", "d", times(1.2, tail=6.0), 0.19))) == []


def test_a_step_slower_than_it_was_is_slow_by_comparison() -> None:
    before = log(edge("a", "b", times(0.5, n=40), 0.5))

    finding = only(log(*QUICK), before)

    assert finding.where == {"from": "a", "to": "b"}
    assert finding.n_reference == 40
    assert finding.effect.value == pytest.approx(2.0)
    assert finding.effect.ci95 == pytest.approx((0.95 / 0.525, 1.05 / 0.475))


@pytest.mark.parametrize(
    "before",
    [times(0.5, n=29), times(0.7), replace(times(0.5), p50_high=1.0)],
    ids=["too few", "not so much slower", "intervals overlap"],
)
def test_a_step_is_not_called_slower_without_proof(before: Times) -> None:
    assert found(log(*QUICK), log(edge("a", "b", before, 0.5))) == []


def test_an_agent_slower_than_the_others_at_the_same_step_is_named() -> None:
    step = edge("a", "b", times(1.0), 0.1, ann=times(1.0), bob=times(2.0), eve=times(1.1, n=80))

    finding = only(log(step))

    assert finding.where == {"from": "a", "to": "b", "agent": "bob"}
    assert finding.effect.value == pytest.approx(2.0)
    assert finding.share_of_time == pytest.approx(0.2)


def test_times_of_no_length_are_no_reason_to_divide_by_nothing() -> None:
    steps = (
        edge("a", "b", times(0.0), 0.0),
        edge("b", "c", times(0.0), 0.0),
        edge("c", "d", times(1.0), 1.0),
    )

    assert only(log(*steps)).effect.value == pytest.approx(1000.0)


def test_nothing_seen_is_nothing_slow() -> None:
    assert found(Patterns()) == []
    assert total_time(Patterns()) == 0.0


# What events say of themselves -----------------------------------------------------------------


def act(name: str, of: Times, n: int | None = None) -> Activity:
    return Activity(name=name, n=n or of.n, cases=100, outcomes=Endings(), times=of)


def test_an_activity_that_takes_long_by_its_own_account_is_slow() -> None:
    finding = only(
        log(activities=(act("plan", times(1.0)), act("x", times(1.0)), act("y", times(9.0))))
    )

    assert finding.where == {"activity": "y"}
    assert finding.share_of_time == pytest.approx(9 / 11)


def test_what_an_edge_has_told_its_activity_does_not_tell_again() -> None:
    steps = (act("a", times(1.0)), act("b", times(1.0)), act("d", times(9.0)))

    finding = only(log(*QUICK, edge("c", "d", times(9.0), 0.8), activities=steps))

    assert finding.where == {"from": "c", "to": "d"}


def workers(**of: Times) -> tuple[Worker, ...]:
    return tuple(
        Worker(agent=agent, n=each.n, outcomes=Endings(), times=each) for agent, each in of.items()
    )


def test_an_agent_slower_than_its_peers_is_a_gap() -> None:
    finding = only(log(workers=workers(ann=times(1.0), bob=times(2.0))))

    assert (finding.kind, finding.where) == ("agent_gap", {"agent": "bob", "by": "time"})
    assert finding.evidence.counts["peers_p95_s"] == pytest.approx(2.0)


def test_an_agent_that_is_at_times_very_slow_has_a_tail() -> None:
    slow = times(1.0, tail=9.0)
    finding = only(
        log(workers=workers(ann=times(1.0), bob=slow), activities=(act("call:bob", slow),))
    )

    assert (finding.kind, finding.where) == ("slow_edge", {"agent": "bob"})
    assert finding.evidence.counts["p75_s"] == pytest.approx(1.25)


def test_agents_with_different_work_are_not_compared() -> None:
    steps = (
        edge("a", "plan", times(1.0), 0.1, ann=times(1.0)),
        edge("plan", "act", times(1.0), 0.1, bob=times(1.0)),
    )

    patterns = log(*steps, workers=workers(ann=times(1.0), bob=times(3.0)))

    assert peers(patterns) == {"ann": [], "bob": []}
    assert found(patterns) == []


def test_an_activity_named_after_an_agent_is_its_work() -> None:
    steps = (act("call:ann", times(1.0)), act("call:bob", times(1.0)), act("judge:eve", times(1.0)))
    patterns = log(
        workers=workers(ann=times(1.0), bob=times(1.0), eve=times(1.0)), activities=steps
    )

    named = {agent: [each.agent for each in group] for agent, group in peers(patterns).items()}

    assert named == {"ann": ["bob"], "bob": ["ann"], "eve": []}


def test_the_typical_one_of_several_is_that_in_the_middle_by_number() -> None:
    few, many = times(1.0, n=30), times(5.0, n=300)

    assert typical([many, few, times(9.0, n=29)]) == many
    assert typical([few]) == few
    assert typical([times(1.0, n=29)]) is None


# Waits on purpose ----------------------------------------------------------------------------


def test_a_wait_of_a_fixed_length_is_a_timer_and_never_slow() -> None:
    steps = (*QUICK, edge("c", "d", times(60 * DAY, spread=0.0), 0.99))

    finding = only(log(*steps))

    assert (finding.kind, finding.wasted_s_per_100_cases) == ("timer", 0.0)
    assert finding.effect.value == 60 * DAY


@pytest.mark.parametrize(
    "of",
    [times(DAY, n=99, spread=0.0), times(DAY, spread=0.06), times(60.0, spread=0.0), Times()],
    ids=["too few", "too wide", "too short", "none"],
)
def test_what_varies_is_short_or_rare_is_no_timer(of: Times) -> None:
    assert not is_timer(of)


def test_where_many_times_lie_close_together_it_is_said() -> None:
    of = replace(times(2 * DAY), peaks=((DAY, 0.31), (2 * DAY, 0.15), (1.0, 0.2)))

    finding = only(log(*QUICK, edge("c", "d", of, 0.9)))

    assert finding.caveat == (
        "in part a scheduled wait, perhaps: many times lie close together, at 24 h (31%), 2 d (15%)"
    )
    assert narrow(replace(of, n=29)) is None


@given(st.floats(0.001, 1e12))
def test_a_duration_is_told_in_a_unit_that_suits_it(seconds: float) -> None:
    number, unit = spoken(seconds).split()

    length = {"s": 1.0, "min": 60.0, "h": 3_600.0, "d": DAY}[unit]
    assert float(number.replace(",", "")) * length == pytest.approx(seconds, rel=0.006)
    assert unit == "d" or float(number) < 125
    assert "e" not in number


def test_very_long_and_very_short_durations_are_told_as_people_say_them() -> None:
    told = [spoken(seconds) for seconds in (0, 1e-5, 0.5, 90, 7_200, 9 * DAY, 1_480.2 * DAY)]

    assert told == ["0 s", "<0.001 s", "0.5 s", "90 s", "2 h", "9 d", "1,480 d"]


# Done more than once -------------------------------------------------------------------------


def rework(cases: int, extra: int) -> Rework:
    return Rework(activity="b", cases=cases, extra=extra, exemplars=("3", None))


def test_work_done_again_that_costs_time_is_found() -> None:
    finding = only(log(*QUICK, rework=(rework(20, 40),)))

    assert (finding.kind, finding.level) == ("rework_loop", "finding")
    assert (finding.effect.value, finding.n, finding.cases_affected) == (0.2, 20, 20)
    assert finding.effect.ci95 == pytest.approx((0.1334, 0.2888), abs=1e-4)
    assert finding.wasted_s_per_100_cases == pytest.approx(40 * 1.2)
    assert finding.evidence.case_ids == ("3", None)


@pytest.mark.parametrize(
    "repeated",
    [rework(9, 40), rework(20, 1), rework(51, 200)],
    ids=["few cases", "little time", "most cases"],
)
def test_work_done_again_that_is_rare_cheap_or_usual_is_a_mere_fact(repeated: Rework) -> None:
    finding = only(log(*QUICK, rework=(repeated,)))

    assert finding.level == "info"
    assert (finding.caveat is not None) == (repeated.cases == 51)


def test_an_activity_that_says_how_long_it_takes_is_believed() -> None:
    patterns = log(*QUICK, rework=(rework(20, 40),), activities=(act("b", times(3.0)),))

    (finding,) = [each for each in found(patterns) if each.kind == "rework_loop"]

    assert finding.wasted_s_per_100_cases == pytest.approx(40 * 3.6)


def test_without_any_time_repetition_wastes_nobody_knows_how_much() -> None:
    finding = only(Patterns(cases=40, rework=(rework(20, 40),)))

    assert (finding.wasted_s_per_100_cases, finding.share_of_time) == (None, None)
    assert finding.level == "info"


def test_to_and_fro_is_told_once_with_what_a_round_costs() -> None:
    loops = (
        Loop(first="c", second="b", n=10, cases=10),
        Loop(first="b", second="c", n=30, cases=25, exemplars=("5",)),
    )
    steps = (*QUICK, edge("c", "b", times(2.0), 0.1))

    (finding,) = [each for each in found(log(*steps, loops=loops)) if each.kind == "ping_pong"]

    assert (finding.where, finding.level) == ({"from": "b", "to": "c"}, "finding")
    assert finding.wasted_s_per_100_cases == pytest.approx(30 * (1.44 + 2.4))
    assert finding.evidence.counts == {"loops": 30, "cases": 25}
