"""Patterns as JSON that people and other agents read: shares with their intervals, the most first.

Bounded: of each kind only the most frequent are told; the counts beside them are of all.
"""

from collections.abc import Mapping

from zejzl.learning.bottlenecks import is_timer
from zejzl.learning.patterns import Edge, Endings, Path, Patterns, Times, Worker
from zejzl.learning.statistics import wilson

MOST = 100  # of each kind

Row = dict[str, object]


def lessons(patterns: Patterns) -> Row:
    """Return {success, variants, coverage, edges, rework, loops, agents, errors, …}."""
    return {
        "events": patterns.events,
        "cases": patterns.cases,
        "open_cases": patterns.open_cases,
        "late": patterns.late,
        "evicted": patterns.evicted,
        "skipped": dict(patterns.skipped),
        "window": [patterns.first, patterns.last],
        "success": rated(patterns.outcomes),
        "times": _timed(patterns.times),
        "coverage": {str(most): share for most, share in patterns.coverage.items()},
        "variants_n": len(patterns.variants),
        "others": patterns.others,
        "variants": [_path(path, patterns) for path in patterns.variants[:MOST]],
        "task_types": {task: rated(of) for task, of in [*patterns.task_types.items()][:MOST]},
        "edges": [_edge(edge) for edge in patterns.edges[:MOST]],
        "rework": [
            {
                "activity": again.activity,
                "cases": again.cases,
                "share": again.cases / patterns.cases,
                "extra": again.extra,
                "exemplar_ids": list(again.exemplars),
            }
            for again in patterns.rework[:MOST]
        ],
        "loops": [
            {
                "first": loop.first,
                "second": loop.second,
                "n": loop.n,
                "cases": loop.cases,
                "exemplar_ids": list(loop.exemplars),
            }
            for loop in patterns.loops[:MOST]
        ],
        "agents": [_worker(worker) for worker in patterns.workers[:MOST]],
        "errors": [
            {
                "signature": failure.signature,
                "n": failure.n,
                "activities": dict(failure.activities),
                "agents": dict(failure.agents),
                "first": failure.first,
                "last": failure.last,
                "exemplar_ids": list(failure.exemplars),
            }
            for failure in patterns.failures[:MOST]
        ],
    }


def rated(outcomes: Endings) -> Row:
    """Return how things ended: counts, the rate of the known (null where none is), its interval."""
    return {
        "success": outcomes.success,
        "failure": outcomes.failure,
        "unknown": outcomes.unknown,
        "success_rate": outcomes.rate,
        "success_rate_n": outcomes.known,
        "ci95": list(wilson(outcomes.success, outcomes.known)) if outcomes.known else None,
    }


def newly(
    patterns: Patterns, before: Mapping[tuple[str, ...], Endings]
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Return the paths that succeeded since then, and those that failed: the latest last."""
    latest = sorted(patterns.variants, key=lambda path: path.last or 0.0)
    well, badly = [], []
    for path in latest:
        was = before.get(path.sequence, Endings())
        if path.outcomes.success > was.success:
            well.append(path.sequence)
        if path.outcomes.failure > was.failure:
            badly.append(path.sequence)
    return well, badly


def sequences(body: object, most: int) -> list[tuple[str, ...]]:
    """Return paths that JSON made lists.

    Raises:
        ValueError: If they are none, or more than this.
    """
    if not isinstance(body, list) or len(body) > most:
        raise ValueError(f"not paths: no list, or of more than {most}")
    for path in body:
        if not isinstance(path, list) or not all(isinstance(step, str) for step in path):
            raise ValueError("not a path: other than a list of names")
    return [tuple(path) for path in body]


def _timed(times: Times) -> Row:
    known = times.n > 0
    return {
        "n": times.n,
        "mean_s": times.mean_s if known else None,
        "p50_s": times.p50_s if known else None,
        "p95_s": times.p95_s if known else None,
        "total_s": times.total_s,
    }


def _path(path: Path, patterns: Patterns) -> Row:
    return {
        "sequence": list(path.sequence),
        "n": path.n,
        "share": path.n / patterns.cases,
        **rated(path.outcomes),
        "p50_s": path.times.p50_s,
        "p95_s": path.times.p95_s,
        "exemplar_ids": list(path.exemplars),
    }


def _edge(edge: Edge) -> Row:
    return {
        "from": edge.source,
        "to": edge.target,
        **_timed(edge.times),
        "share_of_time": edge.share_of_time,
        "timer": is_timer(edge.times),
        "exemplar_ids": list(edge.exemplars),
    }


def _worker(worker: Worker) -> Row:
    return {"agent": worker.agent, "n": worker.n, **rated(worker.outcomes), **_told(worker.times)}


def _told(times: Times) -> Row:
    return {name: _timed(times)[name] for name in ("p50_s", "p95_s")}
