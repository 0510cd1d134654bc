"""Improvements: which change a finding asks for, what it could gain, how to verify it.

    finding                                     action
    agent_gap, drift or failing_path of a       reorder_providers: it is asked last
    provider
    slow tail of a provider                     timeout: its late answers are given up earlier
    error: an answer cut off at its limit       raise_max_tokens
    error: too many calls                       lower_concurrency: calls a minute
    error: one that another try may avoid       retry_policy: one attempt more
    validation_failure                          prompt_feedback
    rework_loop, ping_pong                      cache, add_guard
    slow_edge                                   parallelise
    failing_path, agent_gap otherwise           add_guard; KEEP_AWAY where most such cases fail
    any other error                             add_guard

No finding, no improvement; `info` and scheduled waits give none. What concerns providers becomes
settings that a bus takes and gives back; the rest is advice for the program around it.

Pure. Times in seconds, shares from 0 to 1.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Literal

from zejzl.errors import FailureClass
from zejzl.learning.betting import FEW
from zejzl.learning.change import KEEP_AWAY, Action, Improvement, Metric, Verification
from zejzl.learning.evidence import Effect, Finding, place
from zejzl.learning.statistics import needed_for_ratio, needed_for_shares

__all__ = ["Improvement", "propose"]

MOST_ATTEMPTS = 5  # of one provider for one request
MOST_TOKENS = 128_000
FIRST_TOKENS = 4_096  # where only the provider knew the limit
LEAST_GAIN = 0.001  # of shares: less is not worth a change
FEW_FAIL = 0.05  # of the cases: below that, calls that fail are made good, and cost time
LIKELY = 0.5  # a share of failures from which on a path is one to keep people away from
PATIENCE = 4  # times n_needed in all: looking all the time needs more than looking once
BURST = 1.25  # calls a minute over the mean that was accepted
SHORTER = 0.8  # a limit that was too high becomes this part of it

_Cure = Literal["longer", "fewer", "again", "guard", "none"]

# What people thought of a change weighs on where it stands the next time.
_GOOD = {"good", "accepted", "helpful", "kept", "yes"}
_BAD = {"bad", "rejected", "harmful", "reverted", "no"}
_WEIGHTS = {**dict.fromkeys(_GOOD, 1.5), **dict.fromkeys(_BAD, 0.25)}

_CUT_OFF = re.compile(r"\btruncat|\bmax.?tokens\b|\blength\b", re.IGNORECASE)
_THROTTLED = re.compile(r"rate.?limit|too many requests|\boverloaded\b", re.IGNORECASE)
_PASSING = re.compile(
    r"\bconnect|time.?out|timed out|unavailable|\breset\b|temporar|server.?error", re.IGNORECASE
)
_BY_WORDS: tuple[tuple[re.Pattern[str], _Cure], ...] = (
    (_CUT_OFF, "longer"),
    (_THROTTLED, "fewer"),
    (_PASSING, "again"),
)
_CLASSES = frozenset(FailureClass)
_ENDED_BY_US = (FailureClass.CANCELLED, FailureClass.DEADLINE)
_OF_CLASS: Mapping[FailureClass, _Cure] = {
    FailureClass.TRUNCATED: "longer",
    FailureClass.RATE_LIMITED: "fewer",
    FailureClass.OVERLOADED: "fewer",
    **dict.fromkeys(
        (
            FailureClass.SERVER_ERROR,
            FailureClass.CONNECT,
            FailureClass.FIRST_TOKEN_TIMEOUT,
            FailureClass.STALLED,
            FailureClass.CUT_STREAM,
            FailureClass.MALFORMED,
            FailureClass.EMPTY,
            FailureClass.UNKNOWN,
        ),
        "again",
    ),
    **dict.fromkeys(_ENDED_BY_US, "none"),
}


@dataclass(frozen=True, slots=True)
class _Setting:
    """What a bus is set to, as far as changes concern it."""

    values: Mapping[str, object]
    providers: tuple[str, ...]
    worse: tuple[str, ...]  # providers that findings speak against, the worst last

    def provider(self, finding: Finding) -> str | None:
        """Return which provider a finding is about, if about one."""
        activity = finding.where.get("activity", "")
        return self._named(finding.where.get("agent", "")) or self._called(activity)

    def between_calls(self, finding: Finding) -> bool:
        """Say whether a place is a way from or to a provider, or back to it.

        That is what retries and failover look like: they follow from failures, and what can be
        done about these is told by other findings.
        """
        places = (finding.where.get(name, "") for name in ("from", "to", "rework"))
        return any(self._called(place) for place in places)

    def _called(self, activity: str) -> str | None:
        return self._named(activity.partition(":")[2])

    def _named(self, name: str) -> str | None:
        same = (each for each in self.providers if each.lower() == name.lower())
        return next(same, None)


def propose(
    findings: Sequence[Finding],
    *,
    settings: Mapping[str, object],
    feedback: Mapping[str, object] | None = None,
) -> list[Improvement]:
    """Return the changes that findings ask for, most to gain first.

    Args:
        findings: In their own order, most to gain first.
        settings: What the bus is set to: `failover` (its providers in order), `default_provider`,
            `attempt_timeout`, `max_attempts`, `max_tokens`, `rate_limits`. Without `failover`
            there are no providers, and so nothing that could be set for one.
        feedback: By improvement id, what a person thought: a verdict such as "good" or "bad", or
            a mapping with "verdict" and "note".
    """
    found = [finding for finding in findings if finding.level == "finding"]
    known = _setting(settings, found)
    made: dict[str, Improvement] = {}
    for finding in found:
        rule = _nothing if known.between_calls(finding) else _RULES.get(finding.kind, _nothing)
        for improvement in rule(finding, known):
            before = made.setdefault(improvement.id, improvement)
            if finding.id not in before.finding_ids:
                ids = (*before.finding_ids, finding.id)
                made[improvement.id] = replace(before, finding_ids=ids)
    thoughts = {id: _thought(said) for id, said in (feedback or {}).items()}
    ranked = []
    for rank, improvement in enumerate(made.values(), 1):
        thought = thoughts.get(improvement.id, {})
        weight = _WEIGHTS.get(thought.get("verdict", "").lower(), 1.0)
        ranked.append((rank / weight, rank, replace(improvement, feedback=thought)))
    return [improvement for *_, improvement in sorted(ranked, key=lambda each: each[:2])]


def _thought(said: object) -> dict[str, str]:
    if isinstance(said, Mapping):
        return {name: str(said[name]) for name in ("verdict", "note") if said.get(name) is not None}
    return {"verdict": str(said)}


def _setting(values: Mapping[str, object], found: Iterable[Finding]) -> _Setting:
    order = values.get("failover")
    providers = tuple(map(str, order)) if isinstance(order, list | tuple) else ()
    known = _Setting(values, providers, ())
    against: dict[str, float] = {}
    for finding in found:
        provider = known.provider(finding)
        if provider and _speaks_against(finding):
            against[provider] = max(against.get(provider, 0.0), finding.effect.value)
    # What speaks against all of them is no reason to prefer one.
    worse = sorted(against, key=against.__getitem__) if len(against) < len(providers) else []
    return replace(known, worse=tuple(worse))


def _speaks_against(finding: Finding) -> bool:
    return finding.kind in ("agent_gap", "drift", "failing_path")


# From a finding to changes -------------------------------------------------------------------


def _nothing(finding: Finding, known: _Setting) -> list[Improvement]:
    return []


def _invalid(finding: Finding, known: _Setting) -> list[Improvement]:
    return [
        _advice(
            "prompt_feedback",
            finding,
            finding.where["activity"],
            "One more round of work for each result that is turned down.",
            share=finding.effect.value,
        )
    ]


def _error(finding: Finding, known: _Setting) -> list[Improvement]:
    match _cure(finding.where.get("signature", "")):
        case "longer":
            return _raise_max_tokens(finding, known)
        case "fewer":
            return _lower_concurrency(finding, known)
        case "again":
            return _retry(finding, known)
        case "none":
            return []
    cost = "None, if what fails can be known before it is tried."
    return [_advice("add_guard", finding, place(finding.where), cost, share=finding.effect.value)]


def _cure(said: str) -> _Cure:
    """Return what helps against an error: by the class that it begins with, or by its words."""
    first = said.partition(":")[0].strip()
    if first in _CLASSES:
        return _OF_CLASS.get(FailureClass(first), "guard")
    for words, cure in _BY_WORDS:
        if words.search(said):
            return cure
    return "guard"


def _raise_max_tokens(finding: Finding, known: _Setting) -> list[Improvement]:
    now = known.values.get("max_tokens")
    limit = 2 * now if isinstance(now, int) else FIRST_TOKENS
    if (limit := min(limit, MOST_TOKENS)) <= (now if isinstance(now, int) else 0):
        return []
    return [
        _improvement(
            "raise_max_tokens",
            finding,
            "max_tokens",
            "Longer answers take longer and cost more.",
            settings={"max_tokens": limit},
            parameters={"before": now, "after": limit},
            share=finding.effect.value,
        )
    ]


def _lower_concurrency(finding: Finding, known: _Setting) -> list[Improvement]:
    provider = known.provider(finding)
    target, counts = provider or place(finding.where), finding.evidence.counts
    limits = _limits(known.values.get("rate_limits"))
    before = limits.get((provider or "").lower(), {}).get("requests")
    after = None
    if before:
        after = max(1, floor(SHORTER * before))
    elif "events_per_minute" in counts:
        after = max(1, ceil(BURST * counts["events_per_minute"] * (1 - finding.effect.value)))
    settings: dict[str, object] = {}
    if provider and after and after != before:
        mine = {**limits.get(provider.lower(), {}), "requests": after}
        settings = {"rate_limits": {**limits, provider.lower(): mine}}
    return [
        _improvement(
            "lower_concurrency",
            finding,
            target,
            "Calls beyond the limit wait, or go to another provider.",
            settings=settings,
            parameters={"requests_per_minute": after, "before": before},
            share=finding.effect.value,
        )
    ]


def _limits(value: object) -> dict[str, dict[str, int]]:
    """Return rate limits as plain values, whatever holds them."""
    if not isinstance(value, Mapping):
        return {}
    plain: dict[str, dict[str, int]] = {}
    for name, limit in value.items():
        of = limit.get if isinstance(limit, Mapping) else lambda what, own=limit: getattr(own, what)
        counts = {what: of(what) for what in ("requests", "tokens")}
        plain[str(name).lower()] = {what: n for what, n in counts.items() if n is not None}
    return plain


def _retry(finding: Finding, known: _Setting) -> list[Improvement]:
    share, attempts = finding.effect.value, known.values.get("max_attempts")
    cost = "Every further attempt costs a call and its time, most when a provider is down."
    if known.provider(finding) is None or not isinstance(attempts, int):
        return [_advice("retry_policy", finding, place(finding.where), cost, share=share)]
    # A request fails when all its attempts do, if they fail independently of one another.
    ends = [each**attempts * (1 - each) for each in (share, *(finding.effect.ci95 or ()))]
    lost = finding.evidence.counts.get("failed_cases", 0.0)
    if attempts >= MOST_ATTEMPTS or ends[0] < LEAST_GAIN or not lost:
        return []
    made = _improvement(
        "retry_policy",
        finding,
        "max_attempts",
        cost,
        settings={"max_attempts": attempts + 1},
        parameters={"before": attempts, "after": attempts + 1},
        share=share**attempts,
        gain=Effect(ends[0], "difference of shares", (min(ends), max(ends))),
    )
    return [made]


def _gap(finding: Finding, known: _Setting) -> list[Improvement]:
    if known.provider(finding):
        return _reorder(finding, known)
    if finding.where.get("by") == "time":
        return []  # who is slower is told; what to do about it nobody knows from here
    return _guard(finding, known)


def _drift(finding: Finding, known: _Setting) -> list[Improvement]:
    return _reorder(finding, known) if known.provider(finding) else []


def _path(finding: Finding, known: _Setting) -> list[Improvement]:
    return (_reorder if known.provider(finding) else _guard)(finding, known)


def _reorder(finding: Finding, known: _Setting) -> list[Improvement]:
    provider = known.provider(finding)
    if provider is None or provider not in known.worse:
        return []
    order = [each for each in known.providers if each not in known.worse] + [*known.worse]
    settings: dict[str, object] = {}
    if order != [*known.providers]:
        settings["failover"] = order
    first = known.values.get("default_provider")
    if isinstance(first, str) and first.lower() in {each.lower() for each in known.worse}:
        settings["default_provider"] = order[0]
    if not settings:
        return []
    return [
        _improvement(
            "reorder_providers",
            finding,
            provider,
            "The others take its calls: their cost and their limits apply.",
            settings=settings,
            parameters={"before": [*known.providers], "after": order},
            share=_failing(finding),
        )
    ]


def _guard(finding: Finding, known: _Setting) -> list[Improvement]:
    share = _failing(finding)
    action: Action = KEEP_AWAY if share >= LIKELY else "add_guard"
    cost = "Cases that would have gone well are held up too."
    return [_advice(action, finding, place(finding.where), cost, share=share)]


def _slow(finding: Finding, known: _Setting) -> list[Improvement]:
    if known.provider(finding):
        return _timeout(finding, known)
    cost = "Work that needs the result of other work cannot go on beside it."
    return [_advice("parallelise", finding, place(finding.where), cost)]


def _timeout(finding: Finding, known: _Setting) -> list[Improvement]:
    counts = finding.evidence.counts
    late = max(3 * counts["p75_s"], 1.5 * counts.get("peers_p95_s", 0.0), 0.05)
    limit = float(f"{late:.3g}")
    now = known.values.get("attempt_timeout")
    if limit >= counts["p95_s"] or (isinstance(now, int | float) and limit >= now):
        return []
    return [
        _improvement(
            "timeout",
            finding,
            "attempt_timeout",
            f"Answers that take longer than {limit:g} s are lost, good ones too.",
            settings={"attempt_timeout": limit},
            parameters={"before": now, "after": limit, "provider": known.provider(finding)},
        )
    ]


def _rework(finding: Finding, known: _Setting) -> list[Improvement]:
    if known.provider(finding):
        return []  # retries, once more
    cost = "A kept result may be out of date."
    return [_advice("cache", finding, place(finding.where), cost)]


def _ping_pong(finding: Finding, known: _Setting) -> list[Improvement]:
    cost = "A case that would have ended well after one more round is stopped."
    return [_advice("add_guard", finding, place(finding.where), cost)]


_RULES: Mapping[str, Callable[[Finding, _Setting], list[Improvement]]] = {
    "validation_failure": _invalid,
    "execution_error": _error,
    "slow_edge": _slow,
    "rework_loop": _rework,
    "ping_pong": _ping_pong,
    "failing_path": _path,
    "agent_gap": _gap,
    "drift": _drift,
}


# What they have in common --------------------------------------------------------------------


def _failing(finding: Finding) -> float:
    """Return the share that fails, of the cases or events that a comparison is about."""
    counts = finding.evidence.counts
    known = counts.get("failures", 0.0) + counts.get("successes", 0.0)
    return counts.get("failures", 0.0) / known if known else finding.effect.value


def _advice(
    action: Action, finding: Finding, target: str, cost_risk: str, *, share: float | None = None
) -> Improvement:
    """Return a change that only the program around the bus can make."""
    return _improvement(action, finding, target, cost_risk, share=share)


def _improvement(
    action: Action,
    finding: Finding,
    target: str,
    cost_risk: str,
    *,
    settings: Mapping[str, object] | None = None,
    parameters: Mapping[str, object] | None = None,
    share: float | None = None,
    gain: Effect | None = None,
) -> Improvement:
    """Return a change; `share` is what fails at present, and without one it is about time."""
    cases = _failed_cases(finding) if settings else None
    timed = share is None or finding.where.get("by") == "time"
    # Where other calls make good those that fail, what there is to gain is time.
    healed = cases is not None and cases < FEW_FAIL and bool(finding.wasted_s_per_100_cases)
    if gain is None and (timed or healed):
        gain = Effect((finding.wasted_s_per_100_cases or 0.0) / 100, "s per case")
    gain = gain or replace(finding.effect, unit="difference of shares")
    if share is not None and cases:
        share = min(share, cases)
    return Improvement(
        finding_ids=(finding.id,),
        action=action,
        target=target,
        parameters=parameters or {},
        settings=settings or {},
        expected_gain=gain,
        cost_risk=cost_risk,
        evidence=finding.evidence,
        how_to_verify=_verification(finding, gain, share),
    )


def _failed_cases(finding: Finding) -> float | None:
    """Return the share of all cases that failed; None where no outcome is known."""
    counts = finding.evidence.counts
    known = counts.get("known_cases", 0.0)
    return counts.get("failed_cases", 0.0) / known if known else None


def _verification(finding: Finding, gain: Effect, share: float | None) -> Verification:
    """Return how to verify a gain, of which half is worth having: a certain half, if more is.

    Args:
        share: What fails at present, of which no more can be gained.
    """
    least = max(gain.value / 2, gain.ci95[0] if gain.ci95 else 0.0)
    metric: Metric = "success"
    if share is None or gain.unit == "s per case":
        metric = "seconds"
        counts = finding.evidence.counts
        mean = counts.get("mean_s", 0.0)
        ratio = max(0.1, 1 - least / mean) if mean else 0.5
        needed = needed_for_ratio(counts.get("p25_s", 1.0), counts.get("p75_s", 2.0), ratio)
    else:
        least = least if least < share else share / 2
        needed = needed_for_shares(share, share - least)
    needed = max(FEW, needed)
    rule = (
        "stop when the e-value reaches 20, for better or worse, with 20 in each arm at least; "
        f"undecided after {PATIENCE * needed} in all"
    )
    return Verification(metric=metric, minimum_effect=least, n_needed=needed, stop_rule=rule)
