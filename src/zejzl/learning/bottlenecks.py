"""Where the time goes: slow steps, slow agents, work done twice, and waits that are on purpose.

    timer       n ≥ 100, (p75 − p25)/p50 < 0.05, p50 > 60 s: a scheduled wait, nothing to speed up
    slow        p50 > 1.5× its reference window or its peers, n ≥ 30 each, intervals apart
                or share of time ≥ 5 % and p50 > 1.5× the median edge
                or p95 > 5× p50 and share of time ≥ 20 %
    info        mean > 1.5× the mean of all edges, and none of these

What nearly every case does more than once is how the process works: repetition is a finding only
where it costs 5 % of the time, in ten cases at least, and not in most.

Pure. Units: seconds.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median

from zejzl.learning.evidence import Effect, Evidence, Finding, Level, both, per_100_cases, window
from zejzl.learning.patterns import Case, Edge, Patterns, Times
from zejzl.learning.peers import ENOUGH, SLOWER, TICK, Slower, peers, slower, typical
from zejzl.learning.statistics import wilson

MUCH_TIME, MOST_TIME = 0.05, 0.20  # shares of time
TAIL = 5.0  # p95 over p50
TIMER_N, TIMER_SPREAD, TIMER_S = 100, 0.05, 60.0
FEW_CASES, MOST_CASES = 10, 0.5
_SURE = 6  # observations from which on the extremes hold the median with 95 %
_DAY, _HOUR = 86_400.0, 3_600.0

Place = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Step:
    """Something that takes time, with what it is measured by."""

    where: Place
    times: Times
    share: float
    exemplars: tuple[Case, ...] = ()


@dataclass(frozen=True, slots=True)
class _Slow:
    """Why a step is slow: the effect, the time it would take otherwise, and what says so."""

    effect: Effect
    otherwise_s: float
    test: str
    n_reference: int | None = None
    level: Level = "finding"
    caveat: str | None = None


def bottlenecks(patterns: Patterns, reference: Patterns | None = None) -> list[Finding]:
    """Return what takes time, in no order: slow_edge, agent_gap, timer, rework_loop, ping_pong.

    Args:
        reference: An earlier window of the same process, to compare each edge with.
    """
    edges = list(_edges(patterns, reference))
    reached = {
        finding.where["to"]
        for finding in edges
        if "to" in finding.where and finding.level == "finding"
    }
    agents = list(_agents(patterns))
    told = {finding.where["agent"] for finding in agents}
    activities = [
        finding
        for finding in _activities(patterns)
        # The same time once more, by another name.
        if (name := finding.where["activity"]) not in reached and name.partition(":")[2] not in told
    ]
    return [*edges, *agents, *activities, *_rework(patterns), *_loops(patterns)]


def is_timer(times: Times) -> bool:
    """Say whether these times are a wait of a fixed length."""
    spread = times.p75_s - times.p25_s
    long = times.p50_s > TIMER_S
    return times.n >= TIMER_N and long and spread / times.p50_s < TIMER_SPREAD


def total_time(patterns: Patterns) -> float:
    """Return the seconds that all cases took, or their events where those say more."""
    own = sum(activity.times.total_s for activity in patterns.activities)
    return max(patterns.times.total_s, own)


def measured(times: Times) -> dict[str, float]:
    """Return the figures of some durations by name, as evidence."""
    return {
        "mean_s": times.mean_s,
        "p25_s": times.p25_s,
        "p50_s": times.p50_s,
        "p75_s": times.p75_s,
        "p95_s": times.p95_s,
    }


# Edges, activities, agents -------------------------------------------------------------------


def _edges(patterns: Patterns, reference: Patterns | None) -> Iterator[Finding]:
    edges = [edge for edge in patterns.edges if edge.times.n]
    if not edges:
        return
    usual = median(edge.times.p50_s for edge in edges)
    mean = sum(edge.times.total_s for edge in edges) / sum(edge.times.n for edge in edges)
    earlier = {(edge.source, edge.target): edge.times for edge in (reference or Patterns()).edges}
    for edge in edges:
        where = {"from": edge.source, "to": edge.target}
        step = _Step(where, edge.times, edge.share_of_time, edge.exemplars)
        if is_timer(edge.times):
            yield _timer(step, patterns)
            continue
        since = slower(edge.times, earlier.get((edge.source, edge.target)))
        slow = (
            _than(since, earlier[edge.source, edge.target], "the reference window")
            if since
            else _by_itself(step, usual, "edge") or _above_the_mean(step, mean)
        )
        if slow:
            yield _slow_step(step, slow, patterns)
        yield from _by_agent(edge, patterns)


def _by_agent(edge: Edge, patterns: Patterns) -> Iterator[Finding]:
    for agent, times in edge.by_agent.items():
        others = typical([each for other, each in edge.by_agent.items() if other != agent])
        if (than := slower(times, others)) and others:
            where = {"from": edge.source, "to": edge.target, "agent": agent}
            share = edge.share_of_time * times.total_s / max(edge.times.total_s, TICK)
            step = _Step(where, times, share)
            yield _slow_step(step, _than(than, others, "the other agents"), patterns)


def _activities(patterns: Patterns) -> Iterator[Finding]:
    """Yield what events say of their own durations."""
    timed = [activity for activity in patterns.activities if activity.times.n]
    total = sum(activity.times.total_s for activity in timed)
    for activity in timed if total else ():
        step = _Step({"activity": activity.name}, activity.times, activity.times.total_s / total)
        usual = median(each.times.p50_s for each in timed)
        if not is_timer(activity.times) and (slow := _by_itself(step, usual, "activity")):
            yield _slow_step(step, slow, patterns)


def _agents(patterns: Patterns) -> Iterator[Finding]:
    """Yield agents that are slower than their peers, or at times very slow."""
    groups = peers(patterns)
    total = sum(worker.times.total_s for worker in patterns.workers)
    for worker in patterns.workers if total else ():
        others = typical([each.times for each in groups[worker.agent]])
        share = worker.times.total_s / total
        where = {"agent": worker.agent, "by": "time"}
        step = _Step(where, worker.times, share)
        more = {"peers_p95_s": max((each.times.p95_s for each in groups[worker.agent]), default=0)}
        if others and (than := slower(worker.times, others)):
            slow = _than(than, others, "the agents with the same work")
            yield _slow_step(step, slow, patterns, kind="agent_gap", more=more)
        elif worker.times.n >= ENOUGH and (tail := _tail(worker.times, share)):
            yield _slow_step(
                replace(step, where={"agent": worker.agent}), tail, patterns, more=more
            )


def _by_itself(step: _Step, usual: float, what: str) -> _Slow | None:
    """Return why a step is slow beside the others of the same window."""
    times, base = step.times, max(usual, TICK)
    if step.share >= MUCH_TIME and times.p50_s > SLOWER * base:
        ratio = times.p50_s / base
        ends = (min(ratio, times.p50_low / base), max(ratio, times.p50_high / base))
        sure = times.n >= ENOUGH or (times.n >= _SURE and ends[0] > SLOWER)
        return _Slow(
            Effect(ratio, "ratio", ends if times.n >= _SURE else None),
            usual,
            f"median over that of the median {what}",
            level="finding" if sure else "info",
            caveat=None if sure else f"rests on {times.n} observations",
        )
    return _tail(times, step.share)


def _tail(times: Times, share: float) -> _Slow | None:
    if times.p50_s <= 0 or times.p95_s <= TAIL * times.p50_s or share < MOST_TIME:
        return None
    sure = times.n >= ENOUGH
    return _Slow(
        Effect(times.p95_s / times.p50_s, "ratio"),
        times.p50_s,
        "heavy tail: p95 over p50",
        level="finding" if sure else "info",
        caveat=None if sure else f"rests on {times.n} observations",
    )


def _above_the_mean(step: _Step, mean: float) -> _Slow | None:
    if step.times.mean_s <= SLOWER * mean or mean <= 0:
        return None
    caveat = "slower than the mean edge, which proves little"
    effect = Effect(step.times.mean_s / mean, "ratio")
    return _Slow(effect, mean, "mean over that of all edges", level="info", caveat=caveat)


def _than(than: Slower, reference: Times, whom: str) -> _Slow:
    return _Slow(
        Effect(than.ratio, "ratio", (than.low, than.high)),
        reference.mean_s,
        f"95 % intervals of the medians are apart, against {whom}",
        reference.n,
    )


def _slow_step(
    step: _Step,
    slow: _Slow,
    patterns: Patterns,
    *,
    kind: str = "slow_edge",
    more: Mapping[str, float] | None = None,
) -> Finding:
    times = step.times
    wasted = max(0.0, times.total_s - times.n * slow.otherwise_s)
    return Finding(
        kind="agent_gap" if kind == "agent_gap" else "slow_edge",
        where=step.where,
        effect=slow.effect,
        n=times.n,
        n_reference=slow.n_reference,
        test=slow.test,
        share_of_time=step.share,
        wasted_s_per_100_cases=per_100_cases(wasted, patterns),
        evidence=Evidence(
            case_ids=step.exemplars,
            window=window(patterns),
            counts={**measured(times), "otherwise_s": slow.otherwise_s, **(more or {})},
        ),
        caveat=both(slow.caveat, narrow(times)),
        level=slow.level,
    )


def _timer(step: _Step, patterns: Patterns) -> Finding:
    times = step.times
    return Finding(
        kind="timer",
        where=step.where,
        effect=Effect(times.p50_s, "s", (times.p50_low, times.p50_high)),
        n=times.n,
        test="quartiles within 5 % of the median, 100 times or more, above 60 s",
        share_of_time=step.share,
        wasted_s_per_100_cases=0.0,
        evidence=Evidence(case_ids=step.exemplars, window=window(patterns), counts=measured(times)),
        caveat="a scheduled wait: it is as long as somebody set it, and no work is slow here",
    )


def narrow(times: Times) -> str | None:
    """Return a caveat where a part of the times looks scheduled; None where none does."""
    peaks = [(length, share) for length, share in times.peaks if length > TIMER_S]
    if not peaks or times.n < ENOUGH:
        return None
    named = ", ".join(f"{spoken(length)} ({share:.0%})" for length, share in peaks)
    return f"in part a scheduled wait, perhaps: many times lie close together, at {named}"


def spoken(seconds: float) -> str:
    """Return a duration in the unit that suits it; of days there may be thousands."""
    if seconds >= 100 * _DAY:
        return f"{seconds / _DAY:,.0f} d"
    for unit, length in (("d", _DAY), ("h", _HOUR), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return "<0.001 s" if 0 < seconds < 0.001 else f"{seconds:.3g} s"


# Done more than once -------------------------------------------------------------------------


def _rework(patterns: Patterns) -> Iterator[Finding]:
    own = {activity.name: activity.times for activity in patterns.activities}
    for rework in patterns.rework:
        name = rework.activity
        times = own.get(name)
        each = times.mean_s if times and times.n else _mean(patterns.edges, target=name)
        found = _repeated(patterns, rework.cases, None if each is None else rework.extra * each)
        yield replace(
            found,
            kind="rework_loop",
            where={"activity": name},
            evidence=Evidence(
                case_ids=rework.exemplars,
                window=window(patterns),
                counts={"extra": rework.extra, "cases": rework.cases},
            ),
        )


def _loops(patterns: Patterns) -> Iterator[Finding]:
    told: set[frozenset[str]] = set()
    for loop in sorted(patterns.loops, key=lambda loop: -loop.n):
        if (pair := frozenset((loop.first, loop.second))) in told:
            continue  # to and fro is fro and to
        told.add(pair)
        there = _mean(patterns.edges, source=loop.first, target=loop.second)
        back = _mean(patterns.edges, source=loop.second, target=loop.first)
        each = None if there is None or back is None else there + back
        found = _repeated(patterns, loop.cases, None if each is None else loop.n * each)
        yield replace(
            found,
            kind="ping_pong",
            where={"from": loop.first, "to": loop.second},
            evidence=Evidence(
                case_ids=loop.exemplars,
                window=window(patterns),
                counts={"loops": loop.n, "cases": loop.cases},
            ),
        )


def _repeated(patterns: Patterns, cases: int, wasted: float | None) -> Finding:
    """Return what repetition comes to, whose place is still to be named."""
    total, all_cases = total_time(patterns), max(cases, patterns.cases)
    share = min(1.0, wasted / total) if wasted is not None and total else None
    usual = cases > MOST_CASES * all_cases
    costly = share is not None and share >= MUCH_TIME and cases >= FEW_CASES
    return Finding(
        kind="rework_loop",
        where={},
        effect=Effect(cases / all_cases, "share", wilson(cases, all_cases)),
        n=cases,
        n_reference=all_cases,
        share_of_time=share,
        cases_affected=cases,
        wasted_s_per_100_cases=None if wasted is None else per_100_cases(wasted, patterns),
        caveat="most cases do it: it may be how the process works" if usual else None,
        level="finding" if costly and not usual else "info",
    )


def _mean(edges: Iterable[Edge], *, target: str, source: str | None = None) -> float | None:
    """Return the mean time of the edges that lead to an activity, from one or from all."""
    leading = [
        edge.times
        for edge in edges
        if edge.target == target and (source is None or edge.source == source)
    ]
    n = sum(times.n for times in leading)
    return sum(times.total_s for times in leading) / n if n else None
