"""Findings and improvements in sentences: what was seen, what to do, how to know that it helped.

Names come from the log: each is put on one line and shortened here, and made safe where printed.
"""

from collections.abc import Callable, Iterator, Mapping

from zejzl.cli.terminal import counted, in_brief
from zejzl.learning.bottlenecks import spoken
from zejzl.learning.change import KEEP_AWAY, Improvement
from zejzl.learning.evidence import Effect, Finding, place
from zejzl.learning.patterns import Case, Endings, Times
from zejzl.learning.statistics import wilson

LONG = 90  # letters of a name in a sentence
EXACT = 0.02  # how far off a median may be that a sketch gives


def usual(times: Times) -> float:
    """Return how long something usually takes, in seconds.

    The median; or the mean where both are the same but for what the sketch of the quantiles
    blurs, since the mean is exact: 60 days are then 60 and not 59.9.
    """
    near = abs(times.mean_s - times.p50_s) <= EXACT * times.p50_s
    return times.mean_s if near else times.p50_s


def late(times: Times) -> float:
    """Return how long it takes at the slow end (p95), in seconds; as exact as `usual`."""
    typical = usual(times)
    return typical if abs(times.p95_s - typical) <= EXACT * typical else times.p95_s


def percent(share: float) -> str:
    """Return a share as people read it; next to nothing is not nothing, nor nearly all all."""
    if 0.0 < share < 0.0005:
        return "<0.1%"
    if 0.9995 <= share < 1.0:
        return ">99.9%"
    return f"{share:.1%}" if 0.0 < share < 0.1 or 0.99 <= share < 1.0 else f"{share:.0%}"


def rated(outcomes: Endings) -> str:
    """Return how things ended: the rate, of how many, how sure."""
    if outcomes.rate is None:
        return "unknown"
    low, high = wilson(outcomes.success, outcomes.known)
    return f"{outcomes.rate:.1%} of {outcomes.known:,} (95 %: {low:.1%} to {high:.1%})"


def case_name(case: Case) -> str:
    """Return what a case is called, so that none and an empty name can be told apart."""
    return "(none)" if case is None else in_brief(case, 40) or "''"


# Findings ------------------------------------------------------------------------------------


def sentence(finding: Finding) -> str:
    """Return what was seen, with how sure that is."""
    said = _SENTENCES[finding.kind](finding)
    if finding.caveat is None or finding.kind == "timer":
        return said
    return f"{said}; {in_brief(finding.caveat, 300)}"


def _counted(finding: Finding) -> str:
    said = finding.where.get("signature")
    words = f" with {_brief(said)!r}" if said else ""
    return (
        f"{place(finding.where, _brief)} failed {finding.n:,} of {finding.n_reference or 0:,} times"
        f"{words} ({_interval(finding.effect)})"
    )


def _slow(finding: Finding) -> str:
    counts, share = finding.evidence.counts, finding.share_of_time
    mean, median, most = (counts.get(name, 0.0) for name in ("mean_s", "p50_s", "p95_s"))
    times = Times(mean_s=mean, p50_s=median, p95_s=most)
    of_all = f", {percent(share)} of all time" if share else ""
    return (
        f"{place(finding.where, _brief)} takes {spoken(usual(times))} at the median and "
        f"{spoken(late(times))} at the slow end{of_all}: "
        f"{finding.effect.value:.1f} × ({finding.test or 'compared'})"
    )


def _timer(finding: Finding) -> str:
    counts, median = finding.evidence.counts, finding.effect.value
    length = usual(Times(p50_s=median, mean_s=counts.get("mean_s", 0.0)))
    return (
        f"{place(finding.where, _brief)} is a scheduled wait of {spoken(length)} "
        f"({finding.n:,} times): as long as somebody set it, nothing to speed up"
    )


def _again(finding: Finding) -> str:
    counts = finding.evidence.counts
    where = finding.where
    what = f"{place(where, _brief)} is done more than once"
    if finding.kind == "ping_pong":
        times = counted(counts.get("loops", 0), "time")
        what = f"{_brief(where['from'])} ⇄ {_brief(where['to'])} goes to and fro {times}"
    return f"{what} in {finding.n:,} of {finding.n_reference or 0:,} cases"


def _gap(finding: Finding) -> str:
    return _slow(finding) if finding.where.get("by") == "time" else _failing(finding)


def _failing(finding: Finding) -> str:
    counts = finding.evidence.counts
    with_it = _share(counts, "failures", "successes")
    without = _share(counts, "failures_without", "successes_without")
    who = "agent " if "agent" in finding.where else ""
    return (
        f"with {who}{place(finding.where, _brief)} {with_it} fail, without {without} "
        f"(n = {finding.n:,} and {finding.n_reference or 0:,}, {_chance(finding)})"
    )


def _drift(finding: Finding) -> str:
    counts = finding.evidence.counts
    now = _share(counts, "failures", "successes")
    before = _share(counts, "failures_without", "successes_without")
    return f"{place(finding.where, _brief)}: {now} fail, {before} did before ({_chance(finding)})"


def _chance(finding: Finding) -> str:
    """Return how likely chance alone would do it, with all that was compared."""
    q = finding.q or 0.0
    return "q < 0.001" if q < 0.001 else f"q = {q:.1g}"


_SENTENCES: Mapping[str, Callable[[Finding], str]] = {
    "validation_failure": _counted,
    "execution_error": _counted,
    "slow_edge": _slow,
    "timer": _timer,
    "rework_loop": _again,
    "ping_pong": _again,
    "failing_path": _failing,
    "agent_gap": _gap,
    "drift": _drift,
}


def _brief(text: str) -> str:
    return in_brief(text, LONG)


def _share(counts: Mapping[str, float], failures: str, successes: str) -> str:
    failed = counts.get(failures, 0.0)
    return percent(failed / max(1.0, failed + counts.get(successes, 0.0)))


def _interval(effect: Effect) -> str:
    if effect.ci95 is None:
        return percent(effect.value)
    low, high = effect.ci95
    return f"{percent(effect.value)}, 95 %: {percent(low)} to {percent(high)}"


# Improvements --------------------------------------------------------------------------------


def advised(improvement: Improvement) -> str:
    """Return what to do."""
    target, of = _brief(improvement.target), improvement.parameters
    after = of.get("after")
    order = ", ".join(map(str, after)) if isinstance(after, list) else ""
    calls = of.get("requests_per_minute")
    return {
        "retry_policy": f"Allow one attempt more: {after} in all"
        if improvement.applicable
        else f"Try {target} once more where it fails in passing",
        "timeout": f"Give up a late answer of {_brief(str(of.get('provider')))} after {after} s",
        "reorder_providers": f"Ask {target} last{f': {_brief(order)}' if order else ''}",
        "cache": f"Keep the result of {target} instead of doing it again",
        "add_guard": _guarded(improvement, target),
        "lower_concurrency": f"Call {target} less often"
        + (f": at most {calls} times a minute" if calls else ""),
        "raise_max_tokens": f"Allow longer answers: {after} tokens",
        KEEP_AWAY: f"Keep cases away from {target} unless somebody insists",
        "parallelise": f"Do other work beside {target}, or begin it earlier",
        "prompt_feedback": f"Give back what {target} turns down, with the reason",
    }[improvement.action]


def _guarded(improvement: Improvement, target: str) -> str:
    kinds = {id.rpartition("-")[0] for id in improvement.finding_ids}
    if "agent_gap" in kinds:
        return f"See what agent {target} does otherwise than the others, and check its work"
    if "ping_pong" in kinds:
        return f"Stop {target} where it turns in circles"
    return f"Check before {target} what makes it fail"


def gain(improvement: Improvement) -> str:
    """Return what it could bring at most."""
    effect = improvement.expected_gain
    if effect.unit == "s per case":
        return f"could save {spoken(effect.value)} a case, at most"
    low, high = effect.ci95 or (effect.value, effect.value)
    return (
        f"could make {100 * effect.value:.3g} points fewer fail where it applies, at most "
        f"(95 %: {100 * low:.3g} to {100 * high:.3g})"
    )


def verified(improvement: Improvement) -> str:
    """Return how to find out whether it helped; `stop_rule` is what this has in common."""
    how = improvement.how_to_verify
    least = spoken(how.minimum_effect)
    if how.metric == "success":
        least = f"{100 * how.minimum_effect:.3g} points"
    metric = "how long they take" if how.metric == "seconds" else "how many end well"
    last = how.stop_rule.rpartition("; ")[2]
    return (
        f"{metric}: {how.n_needed:,} cases with it and as many without show a difference of "
        f"{least} 8 times in 10 ({last})"
    )


def stop_rule(improvement: Improvement) -> str:
    """Return when to stop looking whether it helped."""
    rule = improvement.how_to_verify.stop_rule.partition("; ")[0]
    return f"to verify, divide cases at random, with the change and without; {rule}"


def steps(improvement: Improvement) -> Iterator[str]:
    """Yield all that there is to say about an improvement but what to do, a line each."""
    yield f"gain: {gain(improvement)}"
    yield f"cost: {improvement.cost_risk}"
    if improvement.applicable:
        changes = ", ".join(f"{name} = {value}" for name, value in improvement.settings.items())
        yield f"how: bus.apply sets {in_brief(changes, 200)}, bus.revert takes it back"
    yield f"verify: {verified(improvement)}"
    if cases := improvement.evidence.case_ids:
        yield f"look at: {', '.join(map(case_name, cases))}"
    if said := improvement.feedback.get("verdict"):
        note = improvement.feedback.get("note")
        yield f"you said: {in_brief(said)}{f' ({in_brief(note, 200)})' if note else ''}"
