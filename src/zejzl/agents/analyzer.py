"""The analyzer: what events say about how work goes, in figures, and what deserves a look."""

import asyncio
from collections.abc import Iterable

from zejzl.agents.base import Agent
from zejzl.learning.evidence import Finding
from zejzl.learning.findings import find
from zejzl.learning.mining import Miner
from zejzl.learning.patterns import Patterns
from zejzl.learning.statistics import wilson

MANY = 5_000  # events from which on the work is done beside the loop
SKEW = 60.0  # seconds that other machines' clocks may be ahead
PATHS = 5  # successful paths that are shown
MOST_NAMES = 50  # agents and task types that are shown


class AnalyzerAgent(Agent):
    """Looks at events, as a memory recalls them, and says what it found.

    Works alone; with a bus it makes its steps known there.
    """

    name = "analyzer"

    async def analyze(
        self,
        events: Iterable[object],
        *,
        reference: Iterable[object] = (),
        conversation_id: str | None = None,
    ) -> dict[str, object]:
        """Return {metrics, findings, timestamp}, ready for JSON.

        A finding is a mapping as `learning.evidence` describes it, with its type in the words of
        the pantheon: a slow step is a `performance_bottleneck`. What is no event is counted under
        `skipped`, by what is wrong with it, and changes nothing else.

        Args:
            events: In any order, of any number of conversations.
            reference: Events of an earlier time; what changed since becomes a finding.
            conversation_id: Whose step this is.
        """
        started = self._clock.now()
        now, before = list(events), list(reference)
        if len(now) + len(before) < MANY:
            metrics, findings = _analyzed(now, before, self._clock.wall() + SKEW)
        else:
            metrics, findings = await asyncio.to_thread(
                _analyzed, now, before, self._clock.wall() + SKEW
            )
        await self._tell(
            "analysis",
            {"metrics": metrics, "findings": [finding["id"] for finding in findings]},
            conversation_id=conversation_id,
            duration_ms=round(1000 * (self._clock.now() - started), 3),
        )
        return {"metrics": metrics, "findings": findings, "timestamp": self._timestamp()}


def told(finding: Finding) -> dict[str, object]:
    """Return a finding in JSON, with its type in the words of the pantheon."""
    type = "performance_bottleneck" if finding.kind == "slow_edge" else finding.kind
    return {"type": type, **finding.to_json()}


def _analyzed(
    events: list[object], reference: list[object], now: float
) -> tuple[dict[str, object], list[dict[str, object]]]:
    patterns = _mined(events, now)
    earlier = _mined(reference, now) if reference else None
    return _metrics(patterns), [told(finding) for finding in find(patterns, earlier)]


def _mined(events: list[object], now: float) -> Patterns:
    miner = Miner()
    miner.learn(events, now=now)
    return miner.patterns()


def _metrics(patterns: Patterns) -> dict[str, object]:
    """Return the figures of all cases; a rate is 0.0 with n = 0 where no outcome is known."""
    outcomes, times = patterns.outcomes, patterns.times
    well = [path for path in patterns.variants if path.outcomes.success > path.outcomes.failure]
    return {
        "events": patterns.events,
        "cases": patterns.cases,
        "open_cases": patterns.open_cases,
        "late": patterns.late,
        "skipped": dict(patterns.skipped),
        "success_rate": outcomes.rate or 0.0,
        "success_rate_n": outcomes.known,
        "success_rate_ci95": list(wilson(outcomes.success, outcomes.known)),
        "successes": outcomes.success,
        "failures": outcomes.failure,
        "unknown": outcomes.unknown,
        "durations": {
            "n": times.n,
            "mean_s": times.mean_s,
            "p50_s": times.p50_s,
            "p95_s": times.p95_s,
        },
        "agents": {
            worker.agent: {
                "n": worker.n,
                "success_rate": worker.outcomes.rate,
                "success_rate_n": worker.outcomes.known,
                "p50_s": worker.times.p50_s if worker.times.n else None,
            }
            for worker in patterns.workers[:MOST_NAMES]
        },
        "task_types": {
            task: {"success_rate": of.rate, "success_rate_n": of.known}
            for task, of in [*patterns.task_types.items()][:MOST_NAMES]
        },
        "successful_patterns": len(well),
        "success_paths": [
            {
                "sequence": list(path.sequence),
                "n": path.n,
                "successes": path.outcomes.success,
                "failures": path.outcomes.failure,
            }
            for path in well[:PATHS]
        ],
    }
