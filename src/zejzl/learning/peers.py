"""Agents that do the same kind of work, so that one can be compared with the others.

An agent's kinds of work are those of the activities it did, as far as edges tell who did them; an
activity "call:claude" is of the kind "call", and where an agent is called "claude", it did it.
A validator that finds faults is no worse an agent than an observer that never does.

Pure.
"""

from collections.abc import Mapping
from typing import NamedTuple

from zejzl.learning.patterns import Endings, Patterns, Times, Worker

ENOUGH = 30  # observations, before a median is compared with another
SLOWER = 1.5  # times as long is worth a word
TICK = 0.001  # seconds; no shorter time is told from none

_Kinds = Mapping[str, set[str]]


class Slower(NamedTuple):
    """How much longer one thing takes than another, by their medians and the intervals of these."""

    ratio: float
    low: float
    high: float


def peers(patterns: Patterns) -> dict[str, list[Worker]]:
    """Return of each agent those others that do, in part at least, the same kind of work."""
    kinds = _kinds_of_work(patterns)
    return {
        one.agent: [
            other
            for other in patterns.workers
            if other.agent != one.agent and _alike(kinds[one.agent], kinds[other.agent])
        ]
        for one in patterns.workers
    }


def together(workers: list[Worker]) -> Endings:
    """Return the outcomes of them all."""
    return Endings(
        sum(worker.outcomes.success for worker in workers),
        sum(worker.outcomes.failure for worker in workers),
        sum(worker.outcomes.unknown for worker in workers),
    )


def typical(times: list[Times]) -> Times | None:
    """Return those with the median p50, by number of observations; None where all are too few."""
    enough = sorted((each for each in times if each.n >= ENOUGH), key=lambda each: each.p50_s)
    half = sum(each.n for each in enough) / 2
    for each in enough:
        half -= each.n
        if half <= 0:
            return each
    return None


def slower(times: Times, than: Times | None) -> Slower | None:
    """Return how much slower, if clearly so: 1.5 times by the medians, whose intervals are apart.

    Both need 30 observations.
    """
    if than is None or min(times.n, than.n) < ENOUGH:
        return None
    ratio = times.p50_s / max(than.p50_s, TICK)
    low = times.p50_low / max(than.p50_high, TICK)
    if ratio <= SLOWER or low <= 1:
        return None
    return Slower(ratio, low, max(ratio, times.p50_high / max(than.p50_low, TICK)))


def _kinds_of_work(patterns: Patterns) -> _Kinds:
    kinds: dict[str, set[str]] = {worker.agent: set() for worker in patterns.workers}
    for edge in patterns.edges:
        for agent in edge.by_agent:
            kinds.setdefault(agent, set()).add(_kind(edge.target))
    for activity in patterns.activities:
        kind, sign, agent = activity.name.partition(":")
        if sign and agent in kinds:
            kinds[agent].add(kind)
    return kinds


def _kind(activity: str) -> str:
    return activity.partition(":")[0]


def _alike(one: set[str], other: set[str]) -> bool:
    """Say whether the two share work; those of whom nothing is known are compared too."""
    return bool(one & other) if one or other else True
