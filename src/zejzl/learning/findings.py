"""Findings: what in these patterns deserves a look, most worth first.

Failed validations and errors are counted, from the first one on, with the interval of their
share; everything that says "more than" or "slower than" comes from `comparisons` and
`bottlenecks`, whose rules it keeps.

Ranked by what would be gained: the share of all time that is wasted, plus the failures that could
be avoided in a hundred cases. At most ten. Scheduled waits keep their place among them, since
they explain where the time goes though nothing can be gained.

Pure.
"""

from collections.abc import Iterator

from zejzl.learning.bottlenecks import bottlenecks, total_time
from zejzl.learning.comparisons import AVOIDABLE, comparisons
from zejzl.learning.evidence import (
    Effect,
    Evidence,
    Finding,
    per_100_cases,
    window,
)
from zejzl.learning.patterns import Activity, Case, Failure, Patterns
from zejzl.learning.statistics import wilson

MOST = 10
_TIMERS = 3  # places that scheduled waits keep

__all__ = ["MOST", "Finding", "find", "is_validation"]


def find(patterns: Patterns, reference: Patterns | None = None) -> list[Finding]:
    """Return at most ten findings, those with most to gain first, `info` last.

    Args:
        patterns: What was mined.
        reference: An earlier window of the same process, to see drift and slower steps.
    """
    found = [
        *_counts(patterns),
        *comparisons(patterns, reference),
        *bottlenecks(patterns, reference),
    ]
    worth = {finding.id: _worth(finding, patterns) for finding in found}
    found.sort(key=lambda finding: (finding.level == "info", -worth[finding.id], finding.id))
    timers = sorted(
        (finding for finding in found if finding.kind == "timer"),
        key=lambda finding: -(finding.share_of_time or 0.0),
    )[:_TIMERS]
    others = [finding for finding in found if finding.kind != "timer"][: MOST - len(timers)]
    kept = {finding.id for finding in (*timers, *others)}
    return [finding for finding in found if finding.id in kept]


def is_validation(activity: str) -> bool:
    """Say whether an activity checks work, so that its failure is no error."""
    return activity.partition(":")[0].strip().lower().startswith("validat")


def _worth(finding: Finding, patterns: Patterns) -> float:
    """Return what could be gained: a share of all time, and of all cases."""
    total = per_100_cases(total_time(patterns), patterns)
    time = (finding.wasted_s_per_100_cases or 0.0) / total if total else 0.0
    return min(1.0, time) + min(1.0, finding.evidence.counts.get(AVOIDABLE, 0.0) / 100)


def _counts(patterns: Patterns) -> Iterator[Finding]:
    """Yield failed validations by activity, and errors by activity and what they say."""
    for activity in patterns.activities:
        said = [failure for failure in patterns.failures if failure.activities.get(activity.name)]
        if is_validation(activity.name):
            if failed := max(activity.outcomes.failure, _spoken(activity, said)):
                where, shown = {"activity": activity.name}, _exemplars(activity, said)
                yield _counted(where, failed, activity, patterns, shown)
            continue
        for failure in said:
            where = {"activity": activity.name, "signature": failure.signature}
            n = failure.activities[activity.name]
            yield _counted(where, n, activity, patterns, failure.exemplars, failure)
        silent = activity.outcomes.failure - _spoken(activity, said)
        if silent > 0:
            where = {"activity": activity.name}
            yield _counted(where, silent, activity, patterns, activity.exemplars)


def _spoken(activity: Activity, said: list[Failure]) -> int:
    return sum(failure.activities[activity.name] for failure in said)


def _exemplars(activity: Activity, said: list[Failure]) -> tuple[Case, ...]:
    return activity.exemplars or tuple(case for each in said for case in each.exemplars)[:3]


def _counted(
    where: dict[str, str],
    n: int,
    activity: Activity,
    patterns: Patterns,
    exemplars: tuple[Case, ...],
    failure: Failure | None = None,
) -> Finding:
    """Return the finding that says how often something failed."""
    events = max(n, activity.n)
    counts: dict[str, float] = {
        "failures": n,
        "events": events,
        "failed_cases": patterns.outcomes.failure,
        "known_cases": patterns.outcomes.known,
        AVOIDABLE: per_100_cases(n, patterns),
    }
    if failure:
        counts |= {f"agent {agent}": many for agent, many in failure.agents.items()}
    if (minutes := ((patterns.last or 0.0) - (patterns.first or 0.0)) / 60) >= 1:
        counts["events_per_minute"] = events / minutes
    times = activity.times
    # Where a case has it once, failures are cases; otherwise only the cases themselves would tell.
    once = activity.n == activity.cases
    seen = window(patterns) if failure is None else (failure.first, failure.last)
    return Finding(
        kind="validation_failure" if is_validation(activity.name) else "execution_error",
        where=where,
        effect=Effect(n / events, "share", wilson(n, events)),
        n=n,
        n_reference=events,
        cases_affected=n if once else None,
        wasted_s_per_100_cases=per_100_cases(n * times.mean_s, patterns) if times.n else None,
        evidence=Evidence(case_ids=exemplars, window=seen, counts=counts),
    )
