"""What goes with failure: paths, agents and times whose cases fail more often than the others.

Everything that could be compared is tested once, and all of these tests are corrected together
(Benjamini and Hochberg), so that a log of chance alone gives any finding in one search of twenty
at most. To count, a comparison needs 10 cases on both sides, q < 0.05 and 5 points of difference.

    with it      failed / known   against   failed / known      without it (the rest)

Two things can make such a difference without being its cause. Where the cases with it are of
other task types, the difference within task types tells: if it is gone or turned round, the
finding is marked as confounded, and is `info`. And what all failing cases have and no other may
be the outcome itself, which is said.

Pure.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from zejzl.learning.bottlenecks import measured
from zejzl.learning.evidence import (
    Effect,
    Evidence,
    Finding,
    Kind,
    both,
    per_100_cases,
    window,
)
from zejzl.learning.patterns import Case, Endings, Feature, Patterns, Worker
from zejzl.learning.peers import peers, together
from zejzl.learning.statistics import (
    benjamini_hochberg,
    difference_interval,
    fisher_exact,
    stratified_difference,
)

FEW, SIGNIFICANT, POINTS = 10, 0.05, 0.05
NEARLY = 0.05  # of the cases: paths that differ by no more, and share a step, are told once
AVOIDABLE = "avoidable_failures_per_100_cases"  # the count by which findings are ranked
# Of features that the same cases have, the first of these stands for all.
_ORDER = ("agent", "task_type", "activity", "edge", "rework")


@dataclass(frozen=True, slots=True)
class _Compared:
    """One comparison: the outcomes with something, and those of the rest."""

    kind: Kind
    where: Mapping[str, str]
    having: Endings
    rest: Endings
    exemplars: tuple[Case, ...] = ()
    caveat: str | None = None
    confounded: bool = False
    shrink: float = 1.0  # how much less n events tell than n cases would
    each_s: float | None = None  # what one of them takes, where that is wasted if it fails

    @property
    def p(self) -> float:
        counts = (self.having.failure, self.having.success, self.rest.failure, self.rest.success)
        failed, well, failed0, well0 = (round(count * self.shrink) for count in counts)
        return fisher_exact(failed, well, failed0, well0)

    @property
    def enough(self) -> bool:
        return min(self.having.known, self.rest.known) * self.shrink >= FEW

    @property
    def difference(self) -> float:
        return _failing(self.having) - _failing(self.rest)


def comparisons(patterns: Patterns, reference: Patterns | None = None) -> list[Finding]:
    """Return what fails more often, in no order: failing_path, agent_gap and drift.

    What fails *less* often than an earlier window, or than the rest, is no finding.

    Args:
        reference: An earlier window of the same process: what changed since is drift.
    """
    tested = [*_features(patterns), *_workers(patterns)]
    if reference is not None:
        tested += _drift(patterns, reference)
    tested = [each for each in tested if each.enough]
    p_values = [each.p for each in tested]
    found = [
        (each, p, q)
        for each, p, q in zip(tested, p_values, benjamini_hochberg(p_values), strict=True)
        if q < SIGNIFICANT and each.difference >= POINTS
    ]
    kept = _once(each for each, _, _ in found)
    return [_finding(each, p, q, patterns) for each, p, q in found if id(each) in kept]


def _failing(outcomes: Endings) -> float:
    return outcomes.failure / outcomes.known


def _rest(all_of_them: Endings, having: Endings) -> Endings:
    return Endings(
        max(0, all_of_them.success - having.success),
        max(0, all_of_them.failure - having.failure),
        max(0, all_of_them.unknown - having.unknown),
    )


def _finding(compared: _Compared, p: float, q: float, patterns: Patterns) -> Finding:
    having, rest = compared.having, compared.rest
    ends = difference_interval(having.failure, having.known, rest.failure, rest.known)
    avoidable = compared.difference * having.known
    wasted = (
        None if compared.each_s is None else per_100_cases(avoidable * compared.each_s, patterns)
    )
    of_cases = "agent" not in compared.where or compared.where.get("by") == "cases"
    only = compared.kind == "failing_path" and not rest.failure and not having.success
    itself = "nothing else fails and all of it does: it may be the outcome itself" if only else None
    return Finding(
        kind=compared.kind,
        where=compared.where,
        effect=Effect(compared.difference, "difference of shares", ends),
        n=having.known,
        n_reference=rest.known,
        test="Fisher exact, two-sided; Benjamini-Hochberg",
        p=p,
        q=q,
        cases_affected=having.failure if of_cases else None,
        wasted_s_per_100_cases=wasted,
        evidence=Evidence(
            case_ids=compared.exemplars,
            window=window(patterns),
            counts={
                "failures": having.failure,
                "successes": having.success,
                "failures_without": rest.failure,
                "successes_without": rest.success,
                "failed_cases": patterns.outcomes.failure,
                "known_cases": patterns.outcomes.known,
                AVOIDABLE: per_100_cases(avoidable, patterns),
                **(measured(patterns.times) if wasted is not None else {}),
            },
        ),
        caveat=both(compared.caveat, itself),
        level="info" if compared.confounded else "finding",
    )


def _once(found: Iterable[_Compared]) -> set[int]:
    """Return the ids of what is to be told: of what says nearly the same, the first."""
    told: list[_Compared] = []
    for each in sorted(found, key=lambda each: _rank(each.where)):
        if not any(_same(each, other) for other in told):
            told.append(each)
    return {id(each) for each in told}


def _same(one: _Compared, other: _Compared) -> bool:
    """Say whether both tell of one agent, or of paths that nearly the same cases took."""
    if one.kind != other.kind or one.kind == "drift":
        return False
    if one.kind == "agent_gap":
        return one.where["agent"] == other.where["agent"]
    n, m = one.having, other.having
    alike = abs(n.known - m.known) <= NEARLY * m.known
    alike = alike and abs(n.failure - m.failure) <= NEARLY * m.failure
    return alike and ({*one.where.values()} & {*other.where.values()} != set() or n == m)


def _rank(where: Mapping[str, str]) -> int:
    if "agent" in where:
        return 0 if where.get("by") == "events" else 1
    return next((2 + at for at, kind in enumerate(_ORDER) if kind in where), 9)


# Features of cases ---------------------------------------------------------------------------


def _features(patterns: Patterns) -> Iterator[_Compared]:
    for feature in patterns.features:
        rest = _rest(patterns.outcomes, feature.outcomes)
        caveat = _confounded(feature)
        yield _Compared(
            "agent_gap" if feature.kind == "agent" else "failing_path",
            _place(feature),
            feature.outcomes,
            rest,
            feature.exemplars,
            caveat,
            caveat is not None,
        )


def _place(feature: Feature) -> dict[str, str]:
    if feature.kind == "edge":
        return {"from": feature.name[0], "to": feature.name[-1]}
    if feature.kind == "agent":
        return {"agent": feature.name[0], "by": "cases"}
    return {feature.kind: feature.name[0]}


def _confounded(feature: Feature) -> str | None:
    """Return how the difference changes within task types, where it does."""
    strata = {
        task: (having, _rest(everything, having))
        for task, (having, everything) in feature.by_task.items()
    }
    strata = {task: pair for task, pair in strata.items() if pair[0].known and pair[1].known}
    within = stratified_difference(
        (having.failure, having.known, rest.failure, rest.known) for having, rest in strata.values()
    )
    if within is None or feature.kind == "task_type":
        return None
    turned = [
        task
        for task, (having, rest) in strata.items()
        if min(having.known, rest.known) >= FEW and _failing(having) - _failing(rest) <= -POINTS
    ]
    if within >= POINTS and not turned:
        return None
    where = f", turned round in {', '.join(turned[:3])}" if turned else ""
    return f"confounded by task type: within types the difference is {100 * within:+.0f} points" + (
        where
    )


# Agents --------------------------------------------------------------------------------------


def _workers(patterns: Patterns) -> Iterator[_Compared]:
    """Yield each agent's own outcomes against those of agents with the same work.

    Events of one case are no independent witnesses, so an agent with three events a case counts
    for a third.
    """
    groups = peers(patterns)
    cases = {
        feature.name[0]: feature.outcomes
        for feature in patterns.features
        if feature.kind == "agent"
    }
    for worker in patterns.workers:
        others = together(groups[worker.agent])
        # Peers share a case with it at most, so that all of theirs are counted alike.
        crowd = max(_crowding(each, cases) for each in (worker, *groups[worker.agent]))
        where = {"agent": worker.agent, "by": "events"}
        failed = next(
            (each.exemplars for each in patterns.failures if set(each.agents) == {worker.agent}), ()
        )
        took = worker.times.mean_s if worker.times.n else None
        yield _Compared(
            "agent_gap", where, worker.outcomes, others, failed, shrink=1.0 / crowd, each_s=took
        )


def _crowding(worker: Worker, cases: Mapping[str, Endings]) -> float:
    """Return how many events an agent has in a case, on average; 1 where nobody knows."""
    having = cases.get(worker.agent, Endings())
    return max(1.0, worker.n / (having.known + having.unknown or worker.n or 1))


# Drift ---------------------------------------------------------------------------------------


def _drift(patterns: Patterns, reference: Patterns) -> Iterator[_Compared]:
    """Yield outcomes against those of an earlier window: of all, of task types, of agents."""
    yield _Compared("drift", {"of": "all cases"}, patterns.outcomes, reference.outcomes)
    for task, now in patterns.task_types.items():
        before = reference.task_types.get(task, Endings())
        yield _Compared("drift", {"task_type": task}, now, before)
    earlier = {worker.agent: worker for worker in reference.workers}
    cases = {
        feature.name[0]: feature.outcomes
        for feature in patterns.features
        if feature.kind == "agent"
    }
    for worker in patterns.workers:
        if worker.agent in earlier:
            crowd = _crowding(worker, cases)
            yield replace(
                _Compared(
                    "drift",
                    {"agent": worker.agent},
                    worker.outcomes,
                    earlier[worker.agent].outcomes,
                ),
                shrink=1.0 / crowd,
            )
