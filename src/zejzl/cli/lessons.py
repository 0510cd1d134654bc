"""What was learned, as people read it: what was read, how it went, what to do first.

All names and texts come from the log. Tables and lines of `terminal` make them safe; here they
are shortened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path as FilePath

from zejzl.agents.analyzer import told
from zejzl.agents.improver import sentences
from zejzl.agents.lessons import lessons
from zejzl.cli.findings import (
    advised,
    late,
    percent,
    rated,
    sentence,
    steps,
    stop_rule,
    usual,
)
from zejzl.cli.terminal import Terminal, counted, facts, in_brief
from zejzl.events import utc
from zejzl.learning.bottlenecks import is_timer, spoken
from zejzl.learning.change import Improvement
from zejzl.learning.evidence import Finding
from zejzl.learning.patterns import Endings, Patterns, Times

NAME, PATH = 60, 160  # letters of a name in a table, and of a path
STEPS = 12  # of a path; of a longer one the middle is left out
EXAMPLE = "failure = case contains 'Rejected'"


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnReport:
    """What was learned from a log, or from the bus's own requests.

    Attributes:
        source: The log, or "the bus's own requests".
        columns: Of the log: which was read as what; None where its rows are events.
        ruled: Whether a rule for the outcome was given.
        skipped: What is no event, by what is wrong with it; rows that are none included.
        notes: What a person should know about the source.
        map: The process map, where one was written.
    """

    source: str
    patterns: Patterns
    findings: Sequence[Finding]
    improvements: Sequence[Improvement]
    columns: Mapping[str, str | None] | None = None
    ruled: bool = False
    skipped: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    map: FilePath | None = None


def to_json(found: LearnReport) -> dict[str, object]:
    """Return all of it, ready for JSON; of each kind of pattern the most frequent 100."""
    return {
        "source": found.source,
        "columns": found.columns,
        "notes": list(found.notes),
        "patterns": {**lessons(found.patterns), "skipped": dict(found.skipped)},
        "findings": [{"sentence": sentence(each), **told(each)} for each in found.findings],
        "improvements": [
            {"suggestion": advised(each), "steps": list(steps(each)), **each.to_json()}
            for each in found.improvements
        ],
        "suggestions": sentences(found.findings, found.improvements, found.patterns),
        "map": None if found.map is None else str(found.map),
    }


def show(terminal: Terminal, found: LearnReport, top: int) -> None:
    """Print the report; of each table the first `top` rows."""
    _show_source(terminal, found)
    patterns = found.patterns
    if not patterns.cases:
        return
    _show_paths(terminal, patterns, top)
    _show_steps(terminal, patterns, top)
    _show_work(terminal, patterns, top)
    _show_failing(terminal, patterns, top)
    _show_again(terminal, patterns, top)
    _show_errors(terminal, patterns, top)
    _show_agents(terminal, patterns, top)
    _show_findings(terminal, found.findings)
    _show_improvements(terminal, found, top)


# What was read -------------------------------------------------------------------------------


def _show_source(terminal: Terminal, found: LearnReport) -> None:
    patterns = found.patterns
    for note in found.notes:
        terminal.note(note)
    pairs: dict[str, object] = {"read": in_brief(found.source, PATH)}
    pairs["events"] = f"{patterns.events:,}{_window(patterns)}"
    cases = f"{patterns.cases:,}"
    if patterns.open_cases:
        cases += f", {patterns.open_cases:,} of them open: what they give is provisional"
    pairs["cases"] = cases
    if found.skipped:
        every = sum(found.skipped.values())
        kinds = ", ".join(f"{word} {n:,}" for word, n in found.skipped.items())
        pairs["skipped"] = f"{every:,} that are no events: {kinds}"
    if patterns.late:
        pairs["late"] = (
            f"{counted(patterns.late, 'event')} of cases that were closed: they are counted, and "
            "change nothing else; a log with many cases at once is best sorted by case"
        )
    if patterns.cases:
        outcomes = patterns.outcomes
        pairs["success rate"] = rated(outcomes)
        if outcomes.unknown:
            pairs["unknown"] = f"{outcomes.unknown:,} of the cases: neither success nor failure"
        if patterns.times.n:
            pairs["a case takes"] = _range(patterns.times)
    for said in facts(pairs):
        terminal.say(said, prose=True)
    if patterns.cases and not patterns.outcomes.known and not found.ruled:
        terminal.say(
            f'nothing says how cases ended: --outcome tells it, such as "{EXAMPLE}" or '
            '"success = reward >= 1"',
            "yellow",
            prose=True,
        )
    if found.map is not None:
        terminal.say(f"the process map is in {found.map}")


def _window(patterns: Patterns) -> str:
    if patterns.first is None or patterns.last is None:
        return ""
    first, last = (
        utc(at).isoformat(sep=" ", timespec="minutes")[:16]
        for at in (patterns.first, patterns.last)
    )
    return f", {first} to {last} UTC"


def _range(times: Times) -> str:
    return f"{spoken(usual(times))} at the median, {spoken(late(times))} at the slow end (p95)"


# How it went ---------------------------------------------------------------------------------


def _headed(terminal: Terminal, heading: str) -> None:
    terminal.say("")
    terminal.say(heading, "bold", prose=True)


def path_name(sequence: Sequence[str]) -> str:
    """Return a path on one line: what is repeated once with its number, the middle left out."""
    runs = [(name, len(list(same))) for name, same in groupby(sequence)]
    parts = [in_brief(name, 40) + (f" ×{n}" if n > 1 else "") for name, n in runs]
    if len(parts) > STEPS:
        left = len(parts) - STEPS + 1
        parts = [*parts[: STEPS // 2], f"… {left} more …", *parts[1 - STEPS // 2 :]]
    return " → ".join(parts) or "(nothing)"


def _rate(outcomes: Endings) -> str:
    return "–" if outcomes.rate is None else percent(outcomes.rate)


def _show_paths(terminal: Terminal, patterns: Patterns, top: int) -> None:
    _headed(terminal, "Most frequent paths")
    known = bool(patterns.outcomes.known)
    terminal.table(
        ["cases", "share", *(["success"] if known else []), "median", "path"],
        [
            [
                f"{path.n:,}",
                percent(path.n / patterns.cases),
                *([_rate(path.outcomes)] if known else []),
                spoken(usual(path.times)),
                path_name(path.sequence),
            ]
            for path in patterns.variants[:top]
        ],
        right=["cases", "share", "success", "median"],
    )
    covered = ", ".join(f"{most}: {percent(share)}" for most, share in patterns.coverage.items())
    others = f", and {patterns.others:,} cases on others" if patterns.others else ""
    terminal.say(
        f"{counted(len(patterns.variants), 'path')}{others}; cases on the first {covered}",
        "dim",
        prose=True,
    )


def _show_steps(terminal: Terminal, patterns: Patterns, top: int) -> None:
    ranked = sorted(patterns.edges, key=lambda edge: -edge.share_of_time)
    ranked = [edge for edge in ranked if edge.times.total_s][:top]
    if not ranked:
        return
    _headed(terminal, "Slowest steps, by share of the time between events")
    waits = any(is_timer(edge.times) for edge in ranked)
    terminal.table(
        ["share", "times", "median", "p95", "step", *(["note"] if waits else [])],
        [
            [
                percent(edge.share_of_time),
                f"{edge.times.n:,}",
                spoken(usual(edge.times)),
                spoken(late(edge.times)),
                f"{in_brief(edge.source, NAME)} → {in_brief(edge.target, NAME)}",
                *([_wait(edge.times)] if waits else []),
            ]
            for edge in ranked
        ],
        right=["share", "times", "median", "p95"],
        bars=[edge.share_of_time for edge in ranked],
    )


def _wait(times: Times) -> str:
    return "scheduled wait: not slow" if is_timer(times) else ""


def _show_work(terminal: Terminal, patterns: Patterns, top: int) -> None:
    """Print what events say of themselves: how long they took, and how they ended."""
    ranked = [each for each in patterns.activities if each.times.n or each.outcomes.failure]
    ranked.sort(key=lambda each: (-each.times.total_s, -each.outcomes.failure))
    if not ranked:
        return
    _headed(terminal, "Work, as the events tell of themselves")
    terminal.table(
        ["events", "failed", "median", "p95", "activity"],
        [
            [
                f"{each.n:,}",
                f"{each.outcomes.failure:,}",
                spoken(usual(each.times)) if each.times.n else "–",
                spoken(late(each.times)) if each.times.n else "–",
                in_brief(each.name, NAME),
            ]
            for each in ranked[:top]
        ],
        right=["events", "failed", "median", "p95"],
    )


def _show_failing(terminal: Terminal, patterns: Patterns, top: int) -> None:
    failing = [path for path in patterns.variants if path.outcomes.failure]
    if not failing:
        return
    _headed(terminal, "Failing paths")
    failing.sort(key=lambda path: -path.outcomes.failure)
    terminal.table(
        ["failed", "of", "share", "path"],
        [
            [
                f"{path.outcomes.failure:,}",
                f"{path.outcomes.known:,}",
                percent(path.outcomes.failure / path.outcomes.known),
                path_name(path.sequence),
            ]
            for path in failing[:top]
        ],
        right=["failed", "of", "share"],
    )


def _show_again(terminal: Terminal, patterns: Patterns, top: int) -> None:
    if not patterns.rework and not patterns.loops:
        return
    _headed(terminal, "Done again (rework), and to and fro (loops)")
    rows = [
        [
            f"{again.cases:,}",
            percent(again.cases / patterns.cases),
            f"{again.extra:,}",
            f"{in_brief(again.activity, NAME)} again",
        ]
        for again in sorted(patterns.rework, key=lambda again: -again.cases)[:top]
    ]
    rows += [
        [
            f"{loop.cases:,}",
            percent(loop.cases / patterns.cases),
            f"{loop.n:,}",
            f"{in_brief(loop.first, NAME)} → {in_brief(loop.second, NAME)} → "
            f"{in_brief(loop.first, NAME)}",
        ]
        for loop in sorted(patterns.loops, key=lambda loop: -loop.cases)[:top]
    ]
    terminal.table(["cases", "share", "times", "what"], rows, right=["cases", "share", "times"])


def _show_errors(terminal: Terminal, patterns: Patterns, top: int) -> None:
    if not patterns.failures:
        return
    _headed(terminal, "Errors")
    terminal.table(
        ["times", "where", "error"],
        [
            [
                f"{failure.n:,}",
                ", ".join(in_brief(name, NAME) for name in [*failure.activities][:3]),
                in_brief(failure.signature, PATH) or "(no text)",
            ]
            for failure in sorted(patterns.failures, key=lambda failure: -failure.n)[:top]
        ],
        right=["times"],
    )


def _show_agents(terminal: Terminal, patterns: Patterns, top: int) -> None:
    workers = sorted(patterns.workers, key=lambda worker: -worker.n)
    if not workers:
        return
    _headed(terminal, "Agents")
    known = any(worker.outcomes.known for worker in workers)
    timed = any(worker.times.n for worker in workers)
    terminal.table(
        [
            "events",
            *(["success", "of"] if known else []),
            *(["median", "p95"] if timed else []),
            "agent",
        ],
        [
            [
                f"{worker.n:,}",
                *([_rate(worker.outcomes), f"{worker.outcomes.known:,}"] if known else []),
                *(_median_and_p95(worker.times) if timed else []),
                in_brief(worker.agent, NAME),
            ]
            for worker in workers[:top]
        ],
        right=["events", "success", "of", "median", "p95"],
    )
    if len(workers) > top:
        terminal.say(f"{top} of {len(workers)} agents", "dim")


def _median_and_p95(times: Times) -> list[str]:
    return [spoken(usual(times)), spoken(late(times))] if times.n else ["–", "–"]


# What to do ----------------------------------------------------------------------------------


def _show_findings(terminal: Terminal, findings: Sequence[Finding]) -> None:
    sure = [finding for finding in findings if finding.level == "finding"]
    if sure:
        _headed(terminal, "Findings, those with most to gain first")
    for finding in sure:
        terminal.say(f"• {sentence(finding)}", prose=True)
    unsure = [finding for finding in findings if finding.level == "info"]
    if unsure:
        _headed(terminal, "Worth knowing, and no proof of anything")
    for finding in unsure:
        terminal.say(f"• {sentence(finding)}", "dim", prose=True)


def _show_improvements(terminal: Terminal, found: LearnReport, top: int) -> None:
    _headed(terminal, "What to do first")
    if not found.improvements:
        terminal.say("nothing: no finding asks for a change", prose=True)
    for number, improvement in enumerate(found.improvements[:top], 1):
        terminal.say(f"{number}. {advised(improvement)}", "bold", prose=True)
        for said in steps(improvement):
            terminal.say(f"   {said}", prose=True)
    if found.improvements:
        terminal.say(stop_rule(found.improvements[0]), "dim", prose=True)
    if left := len(found.improvements[top:]):
        terminal.say(f"--top {top + left} shows {left} more", "dim", prose=True)
