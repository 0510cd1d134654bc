"""Counts turned into patterns: sorted, in seconds, the most frequent first."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from zejzl.learning.error_counts import ErrorCounts
from zejzl.learning.eventlog import Token
from zejzl.learning.exemplars import Kept, keep_all, names
from zejzl.learning.outcome import endings
from zejzl.learning.patterns import (
    Activity,
    Edge,
    Endings,
    Failure,
    Feature,
    Loop,
    Path,
    Rework,
    Worker,
)
from zejzl.learning.sketch import MICROSECONDS, merged
from zejzl.learning.variants import Ends, Repeat, Tally

N = TypeVar("N", str, tuple[str, str])


def paths(tally: Tally) -> tuple[Path, ...]:
    """Return the variants."""
    ranked = sorted(tally.ways.items(), key=lambda item: (-sum(item[1].ends), item[0]))
    return tuple(
        Path(
            sequence=sequence,
            n=sum(way.ends),
            outcomes=endings(way.ends),
            times=way.took.times(),
            exemplars=names(way.firsts),
            last=way.last / MICROSECONDS,
        )
        for sequence, way in ranked
    )


def coverage(variants: tuple[Path, ...], cases: int) -> dict[int, float]:
    """Return the share of cases in the most frequent variants, by how many of them."""
    if not cases:
        return {}
    return {most: sum(path.n for path in variants[:most]) / cases for most in (1, 5, 10, 20)}


def activities(tokens: Iterable[Token], cases: Mapping[str, int]) -> tuple[Activity, ...]:
    """Return what is known of each kind of event."""
    found = []
    for name, group in _grouped((token.activity, token) for token in tokens):
        failed: Kept = []
        for token in group:
            keep_all(failed, token.failed)
        found.append(
            Activity(
                name=name,
                n=sum(token.n for token in group),
                cases=cases.get(name, 0),
                outcomes=_outcomes(group),
                times=merged([token.took for token in group]).times(),
                exemplars=names(failed),
            )
        )
    return tuple(sorted(found, key=lambda activity: (-activity.n, activity.name)))


def workers(tokens: Iterable[Token]) -> tuple[Worker, ...]:
    """Return what is known of each agent."""
    found = [
        Worker(
            agent=agent,
            n=sum(token.n for token in group),
            outcomes=_outcomes(group),
            times=merged([token.took for token in group]).times(),
        )
        for agent, group in _grouped(
            (token.agent, token) for token in tokens if token.agent is not None
        )
    ]
    return tuple(sorted(found, key=lambda worker: (-worker.n, worker.agent)))


def edges(tally: Tally) -> tuple[Edge, ...]:
    """Return what follows what, with times."""
    pairs: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    for source, target, agent in tally.links:
        pairs[source, target].append(agent)
    everything = sum(link.took.total for link in tally.links.values())
    found = []
    for (source, target), agents in pairs.items():
        links = [(agent, tally.links[source, target, agent]) for agent in agents]
        slowest: Kept = []
        for _, link in links:
            keep_all(slowest, link.slowest)
        whole = links[0][1].took if len(links) == 1 else merged([link.took for _, link in links])
        times = whole.times()
        by_agent = {
            agent: times if len(links) == 1 else link.took.times()
            for agent, link in sorted(links, key=lambda item: item[0] or "")
            if agent is not None
        }
        found.append(
            Edge(
                source=source,
                target=target,
                times=times,
                share_of_time=whole.total / everything if everything else 0.0,
                by_agent=by_agent,
                exemplars=names(slowest),
            )
        )
    return tuple(sorted(found, key=lambda edge: (-edge.times.n, edge.source, edge.target)))


def rework(tally: Tally) -> tuple[Rework, ...]:
    """Return what was done more than once in a case."""
    return tuple(
        Rework(activity=name, cases=again.cases, extra=again.n, exemplars=names(again.firsts))
        for name, again in _ranked(tally.rework, lambda repeat: repeat.cases)
    )


def loops(tally: Tally) -> tuple[Loop, ...]:
    """Return what went to and fro."""
    return tuple(
        Loop(first=a, second=b, n=again.n, cases=again.cases, exemplars=names(again.firsts))
        for (a, b), again in _ranked(tally.loops, lambda repeat: repeat.n)
    )


def failures(faults: ErrorCounts) -> tuple[Failure, ...]:
    """Return the errors."""
    ranked = sorted(faults.by_signature.items(), key=lambda item: (-item[1].n, item[0]))
    return tuple(
        Failure(
            signature=said,
            n=fault.n,
            activities=_counted(fault.activities),
            agents=_counted(fault.agents),
            first=fault.first / MICROSECONDS,
            last=fault.last / MICROSECONDS,
            exemplars=names(fault.firsts),
        )
        for said, fault in ranked
    )


def features(tally: Tally) -> tuple[Feature, ...]:
    """Return what cases had before their outcome was known."""
    everybody = task_types(tally)
    named = any(task is not None for task in tally.tasks)
    found = [
        Feature(
            kind=kind,
            name=name,
            outcomes=endings(_sum(trait.ends.values())),
            by_task={
                task: (endings(ends), everybody[task])
                for task, ends in sorted(trait.ends.items(), key=lambda item: item[0] or "")
                if named and task is not None
            },
            exemplars=names(trait.failed),
        )
        for (kind, name), trait in tally.traits.items()
    ]
    return tuple(sorted(found, key=lambda feature: (-_all(feature), feature.kind, feature.name)))


def task_types(tally: Tally) -> dict[str, Endings]:
    """Return how cases of each task type ended, the most frequent first."""
    ranked = sorted(tally.tasks.items(), key=lambda item: (-sum(item[1]), item[0] or ""))
    return {task: endings(ends) for task, ends in ranked if task is not None}


def outcomes(tally: Tally) -> Endings:
    """Return how all cases ended."""
    return endings(_sum(tally.tasks.values()))


def _all(feature: Feature) -> int:
    return feature.outcomes.known + feature.outcomes.unknown


def _sum(counts: Iterable[Ends]) -> Ends:
    total = [0, 0, 0]
    for ends in counts:
        for code, n in enumerate(ends):
            total[code] += n
    return total


def _outcomes(tokens: list[Token]) -> Endings:
    counts = [0, 0, 0]
    for token in tokens:
        counts[token.outcome] += token.n
    return endings(counts)


def _grouped(pairs: Iterable[tuple[str, Token]]) -> Iterable[tuple[str, list[Token]]]:
    """Return tokens by name, those that have been counted."""
    groups: dict[str, list[Token]] = defaultdict(list)
    for name, token in pairs:
        if token.n:
            groups[name].append(token)
    return groups.items()


def _ranked(repeats: Mapping[N, Repeat], figure: Callable[[Repeat], int]) -> list[tuple[N, Repeat]]:
    return sorted(repeats.items(), key=lambda item: (-figure(item[1]), item[0]))


def _counted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
