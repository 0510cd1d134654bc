"""The improver: which changes the findings ask for, and what it says about them.

The sentences are the story's. Each stands for something that was found, and says what; where
nothing was found, there is none.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence

from zejzl.agents.base import Agent, Bus, plain
from zejzl.engine.tuning import tunable
from zejzl.errors import StoreTooNew, shorten
from zejzl.learning.bottlenecks import spoken
from zejzl.learning.change import Improvement
from zejzl.learning.evidence import Finding, place
from zejzl.learning.improvements import propose
from zejzl.learning.patterns import Endings, Path, Patterns

log = logging.getLogger(__name__)

LONGEST = 120  # characters of a name in a sentence
_NOBODY = "offline"  # the provider that is there while no other is


class ImproverAgent(Agent):
    """Turns findings into changes; with a bus, into settings that this bus can take."""

    name = "improver"

    async def improve(
        self,
        analysis: Mapping[str, object],
        learned: Mapping[str, object] | None = None,
        *,
        conversation_id: str | None = None,
    ) -> dict[str, object]:
        """Return {suggestions: {topic: sentence}, improvements, timestamp}, ready for JSON.

        An improvement is a mapping as `learning.change` describes it; the first has most to gain.
        Empty is a right answer: no finding, no improvement.

        Args:
            analysis: What an `AnalyzerAgent` returned.
            learned: What a `LearnerAgent` returned, or its `learned_patterns`. Its findings count
                too, and what people thought of its improvements weighs on the order.
            conversation_id: Whose step this is.
        """
        started = self._clock.now()
        learned = learned or {}
        inside = learned.get("learned_patterns")
        patterns = inside if isinstance(inside, Mapping) else learned
        findings = _findings(
            analysis.get("findings"), learned.get("bottlenecks"), patterns.get("findings")
        )
        feedback = patterns.get("feedback")
        improvements = propose(
            findings,
            settings=settings_of(self.bus),
            feedback=feedback if isinstance(feedback, Mapping) else None,
        )
        metrics = analysis.get("metrics")
        paths = _paths(patterns) or (_paths(metrics) if isinstance(metrics, Mapping) else ())
        suggestions = sentences(findings, improvements, Patterns(variants=paths))
        await self._tell(
            "improvement",
            {"suggestions": suggestions, "improvements": [each.id for each in improvements]},
            conversation_id=conversation_id,
            duration_ms=round(1000 * (self._clock.now() - started), 3),
        )
        return {
            "suggestions": suggestions,
            "improvements": [plain(each.to_json()) for each in improvements],
            "timestamp": self._timestamp(),
        }


def settings_of(bus: Bus | None) -> dict[str, object]:
    """Return what a bus is set to, its providers in their order; nothing where there is no bus."""
    return {} if bus is None else tunable(bus.settings, bus.providers)


def _findings(*sources: object) -> list[Finding]:
    """Return the findings in these lists, each once; what is none is left out."""
    found: dict[str, Finding] = {}
    for source in sources:
        for body in source if isinstance(source, list | tuple) else ():
            try:
                finding = Finding.from_json(body)
            except (ValueError, StoreTooNew) as problem:
                log.debug("left out: %s", problem)
                continue
            found.setdefault(finding.id, finding)
    return [*found.values()]


def _paths(body: Mapping[str, object]) -> tuple[Path, ...]:
    """Return the paths that were learned, with how they ended."""
    rows = next((body[name] for name in ("variants", "success_paths") if name in body), ())
    paths = []
    for row in rows if isinstance(rows, list | tuple) else ():
        if not isinstance(row, Mapping):
            continue
        sequence, n, outcomes = row.get("sequence"), row.get("n"), _endings(row)
        if isinstance(sequence, list | tuple) and type(n) is int and outcomes.known:
            steps = tuple(str(step) for step in sequence)
            paths.append(Path(sequence=steps, n=n, outcomes=outcomes))
    return tuple(paths)


def _endings(row: Mapping[str, object]) -> Endings:
    inside = row.get("outcomes")
    counts = inside if isinstance(inside, Mapping) else row
    for well, badly in (("success", "failure"), ("successes", "failures")):
        success, failure = counts.get(well), counts.get(badly)
        if type(success) is int and type(failure) is int and min(success, failure) >= 0:
            return Endings(success, failure)
    return Endings()


# In words ------------------------------------------------------------------------------------


def sentences(
    findings: Iterable[Finding], improvements: Sequence[Improvement], patterns: Patterns
) -> dict[str, str]:
    """Return what to do, by topic, in the words of the story. `info` findings give none.

    Args:
        improvements: Those a bus can take are told as the settings that they are.
        patterns: Its variants are the paths that succeed.
    """
    sure = [finding for finding in findings if finding.level == "finding"]
    invalid = [finding for finding in sure if finding.kind == "validation_failure"]
    errors = [finding for finding in sure if finding.kind == "execution_error"]
    slow = [finding for finding in sure if _is_slow(finding)]
    risky = [finding for finding in sure if finding.kind in ("failing_path", "agent_gap")]
    risky = [finding for finding in risky if not _is_slow(finding)]
    well = [path for path in patterns.variants if path.outcomes.success > path.outcomes.failure]
    told: dict[str, str] = {}
    if invalid:
        told["validation_failures"] = (
            f"Enable blue spark healing for validation failures: {_often(invalid[0])}."
        )
    if errors:
        told["execution_errors"] = (
            f"Implement circuit breaker for execution errors: {_often(errors[0])}."
        )
    if slow:
        told["performance"] = f"Apply acorn vitality boost for performance: {_slowly(slow[0])}."
    if well:
        first = well[0]
        told["success_patterns"] = (
            f"Reinforce {len(well)} successful pattern{'s' * (len(well) != 1)}: "
            f"{_brief(' → '.join(first.sequence))} ended well in "
            f"{first.outcomes.success} of {first.outcomes.known} cases."
        )
    if risky:
        told["high_risk"] = (
            f"Activate fairy shield during high-risk operations: {_riskily(risky[0])}."
        )
    if errors:
        failures = sum(finding.n for finding in errors)
        told["energy"] = (
            "Monitor energy levels and implement automatic recharging: each retry after an error "
            f"spends energy, and there were {failures} errors."
        )
    for improvement in improvements:
        if improvement.applicable:
            told[f"{improvement.action} {_brief(improvement.target)}"] = _set(improvement)
    return told


def _brief(text: str) -> str:
    """Return a text on one line, without control characters, shortened in the middle."""
    line = shorten(text)
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[:half]}…{line[1 - half :]}"


def _is_slow(finding: Finding) -> bool:
    return finding.kind == "slow_edge" or finding.where.get("by") == "time"


def _often(finding: Finding) -> str:
    said = finding.where.get("signature")
    low, high = finding.effect.ci95 or (0.0, 1.0)
    words = f", {_brief(said)!r}" if said else ""
    return (
        f"{finding.n} of {finding.n_reference} at {place(finding.where, _brief)}{words} "
        f"({finding.effect.value:.0%}, {low:.0%} to {high:.0%})"
    )


def _slowly(finding: Finding) -> str:
    counts = finding.evidence.counts
    share = f", {finding.share_of_time:.0%} of all time" if finding.share_of_time else ""
    return (
        f"{place(finding.where, _brief)} takes {spoken(counts.get('p50_s', 0.0))} at the median, "
        f"{spoken(counts.get('p95_s', 0.0))} at the slow end{share}"
    )


def _riskily(finding: Finding) -> str:
    counts = finding.evidence.counts
    with_it = _share(counts.get("failures", 0), counts.get("successes", 0))
    without = _share(counts.get("failures_without", 0), counts.get("successes_without", 0))
    return (
        f"with {place(finding.where, _brief)} {with_it} fail, without it {without} "
        f"(q = {finding.q or 0.0:.2g}, n = {finding.n} and {finding.n_reference})"
    )


def _share(failures: float, successes: float) -> str:
    return f"{failures / max(1.0, failures + successes):.0%}"


def _set(improvement: Improvement) -> str:
    changes = ", ".join(f"{name} = {value}" for name, value in improvement.settings.items())
    gain = improvement.expected_gain
    much = spoken(gain.value) + " a case" if gain.unit.startswith("s ") else f"{gain.value:.1%}"
    needed = improvement.how_to_verify.n_needed
    return (
        f"Set {_brief(changes)}: it could gain {much} at most; "
        f"{needed} requests in each arm would show it."
    )
