"""The learner: what many runs have in common, learned a portion at a time and kept.

events ──▶ patterns ──▶ bottlenecks ──▶ optimizations ──(what people think of them)──┐
             ▲ kept by save, back by load                ◀───────────────────────────┘
"""

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import ClassVar, TypeVar

from zejzl.agents.analyzer import told
from zejzl.agents.base import Agent, Bus, plain
from zejzl.agents.improver import sentences, settings_of
from zejzl.agents.lessons import Row, lessons, newly, sequences
from zejzl.clock import Clock
from zejzl.errors import StoreTooNew
from zejzl.learning.change import Improvement
from zejzl.learning.evidence import Finding
from zejzl.learning.findings import find
from zejzl.learning.improvements import propose
from zejzl.learning.mining import Miner
from zejzl.learning.outcome import OutcomeRule
from zejzl.learning.patterns import Endings, Patterns

VERSION = 1
SETTING = "learner.patterns"  # where a bus's store keeps it
PORTION = 16_384  # events that are taken in at once
SKEW = 60.0  # seconds that other machines' clocks may be ahead
SUCCESSES, FAILURES = 5, 3  # paths kept of each learning
LEARNINGS = 20  # and of how many learnings
OPINIONS = 1_000  # improvements of which feedback is kept
LONGEST = 1_000  # characters of each part of it
KINDS = ("validation_failure", "execution_error", "performance_bottleneck")
TOPICS = {
    "validation_failure": "validation_failures",
    "execution_error": "execution_errors",
    "slow_edge": "performance",
    "failing_path": "high_risk",
    "agent_gap": "high_risk",
}

T = TypeVar("T")


class LearnerAgent(Agent):
    """Learns from events, and says where work gets stuck and what could be done.

    Args:
        bus: Whose settings are looked at for what could be changed, and whose store keeps what
            was learned; without one, files do.
        outcome: What a success is, if not what the executor or else the validation says; a rule
            or its text, as `learning.outcome` reads it.

    Attributes:
        success_patterns: The last 5 paths that succeeded in each learning, the latest last.
        failure_patterns: The last 3 that failed.
    """

    name: ClassVar[str] = "learner"

    def __init__(
        self,
        bus: Bus | None = None,
        *,
        clock: Clock | None = None,
        outcome: OutcomeRule | str | None = None,
    ) -> None:
        super().__init__(bus, clock=clock)
        rule = OutcomeRule.parse(outcome) if isinstance(outcome, str) else outcome
        self.success_patterns: list[tuple[str, ...]] = []
        self.failure_patterns: list[tuple[str, ...]] = []
        self._miner = Miner(outcome=rule)
        self._opinions: dict[str, dict[str, str]] = {}
        self._proposed: list[str] = []  # ids of the improvements that were told last
        self._before: dict[tuple[str, ...], Endings] = {}
        self._one = asyncio.Lock()  # one learning after the other
        self._guard = Lock()  # and no thread beside one whose caller has gone away

    async def learn(
        self, events: Iterable[object], *, conversation_id: str | None = None
    ) -> dict[str, object]:
        """Add events to what was learned, and return all that is known then, ready for JSON.

        The keys: patterns_analyzed (paths), success_rate (0 to 1; 0.0 with success_rate_n = 0
        where no outcome is known), success_rate_n, bottlenecks_identified,
        optimizations_suggested, learned_patterns, bottlenecks, optimizations, timestamp. A
        bottleneck is a finding of the type validation_failure, execution_error or
        performance_bottleneck; an optimization is an improvement with a `suggestion` in words.
        What is no event is counted in `learned_patterns["skipped"]`, and changes nothing else.

        Args:
            events: In any order, of any number of conversations; what was learned before is
                not to be given again, though open conversations would notice.
            conversation_id: Whose step this is.
        """
        started = self._clock.now()
        async with self._one:
            horizon = self._clock.wall() + SKEW
            for portion in _portions(events):
                await self._beside(partial(self._miner.learn, portion, now=horizon))
            patterns = await self._beside(self._miner.patterns)
            well, badly = newly(patterns, self._before)
            self._remember(patterns, well, badly)
        answer = self._answer(patterns)
        await self._tell(
            "learning",
            {name: answer[name] for name in answer if isinstance(answer[name], int | float)},
            conversation_id=conversation_id,
            duration_ms=round(1000 * (self._clock.now() - started), 3),
        )
        return answer

    def feedback(self, improvement_id: str, verdict: str, note: str = "") -> dict[str, str]:
        """Record what a person thinks of an improvement, and return it.

        It weighs on the ranking from the next learning on, and is shown with the improvement.
        `save` keeps it.

        Args:
            verdict: In a word, such as "good" or "bad"; the last one counts. What else it may be
                is in `learning.improvements`; any other word is kept and weighs nothing.
            note: Why.

        Raises:
            ValueError: If one of them is no text or too long, or the id or the verdict is empty.
        """
        known = ", ".join(self._proposed) or "none so far"
        _check("improvement_id", improvement_id, f"the `id` of an optimization; known: {known}")
        opinion = _opinion(verdict, note)
        self._opinions.pop(improvement_id, None)
        self._opinions[improvement_id] = opinion
        while len(self._opinions) > OPINIONS:
            del self._opinions[next(iter(self._opinions))]
        return dict(self._opinions[improvement_id])

    async def save(self, path: str | Path | None = None) -> None:
        """Keep all that was learned: in this file, or else in the bus's store.

        Raises:
            ValueError: If there is neither.
            OSError: If the file cannot be written; one that was there is as before then.
            StoreError: If the store does not answer.
        """
        async with self._one:
            body = await self._beside(lambda: json.dumps(self._body()))
        if path is not None:
            await asyncio.to_thread(_write, Path(path), body)
        elif self.bus is not None:
            await self.bus.store.keep_setting(SETTING, body)
        else:
            raise ValueError("nowhere to save: without a bus, give the path of a file")

    async def load(self, path: str | Path | None = None) -> bool:
        """Take back what `save` kept, in place of what is known; False: nothing was kept.

        Raises:
            ValueError: If there is neither a bus nor a path, or what is there is something else.
            StoreTooNew: If a newer version wrote it.
            OSError: If the file is there and cannot be read.
        """
        if path is not None:
            body = await asyncio.to_thread(_read, Path(path))
        elif self.bus is not None:
            body = await self.bus.store.setting(SETTING)
        else:
            raise ValueError("nowhere to load from: without a bus, give the path of a file")
        if body is None:
            return False
        async with self._one:
            await self._beside(partial(self._take, body))
        return True

    async def _beside(self, work: Callable[[], T]) -> T:
        """Do some work beside the loop."""

        def alone() -> T:
            with self._guard:
                return work()

        return await asyncio.to_thread(alone)

    def _answer(self, patterns: Patterns) -> dict[str, object]:
        findings = find(patterns)
        improvements = propose(findings, settings=settings_of(self.bus), feedback=self._opinions)
        self._proposed = [each.id for each in improvements]
        suggestions = sentences(findings, improvements, patterns)
        rows = [told(finding) for finding in findings]
        sure = [row for row in rows if row["type"] in KINDS and row["level"] == "finding"]
        outcomes = patterns.outcomes
        learned = lessons(patterns) | {
            "success_paths": [list(path) for path in self.success_patterns],
            "failure_paths": [list(path) for path in self.failure_patterns],
            "findings": rows,
            "suggestions": suggestions,
            "feedback": {id: dict(opinion) for id, opinion in self._opinions.items()},
        }
        return {
            "patterns_analyzed": len(patterns.variants),
            "success_rate": outcomes.rate or 0.0,
            "success_rate_n": outcomes.known,
            "bottlenecks_identified": len(sure),
            "optimizations_suggested": len(improvements),
            "learned_patterns": learned,
            "bottlenecks": sure,
            "optimizations": [_worded(each, findings, suggestions) for each in improvements],
            "timestamp": self._timestamp(),
        }

    def _remember(
        self, patterns: Patterns, well: list[tuple[str, ...]], badly: list[tuple[str, ...]]
    ) -> None:
        self._before = {path.sequence: path.outcomes for path in patterns.variants}
        self.success_patterns += well[-SUCCESSES:]
        self.failure_patterns += badly[-FAILURES:]
        del self.success_patterns[: -SUCCESSES * LEARNINGS]
        del self.failure_patterns[: -FAILURES * LEARNINGS]

    def _body(self) -> Row:
        return {
            "v": VERSION,
            "miner": self._miner.to_json(),
            "success_patterns": self.success_patterns,
            "failure_patterns": self.failure_patterns,
            "feedback": self._opinions,
        }

    def _take(self, text: str) -> None:
        try:
            body = json.loads(text)
        except (ValueError, RecursionError) as problem:
            raise ValueError(f"not what a learner kept: {problem}") from problem
        if not isinstance(body, dict) or type(body.get("v")) is not int or body["v"] < 1:
            raise ValueError(f"not what a learner kept: {text[:60]!r}")
        if body["v"] > VERSION:
            raise StoreTooNew(f"learned by version {body['v']}; this zejzl reads {VERSION}")
        miner = Miner.from_json(body.get("miner"))
        well = sequences(body.get("success_patterns"), SUCCESSES * LEARNINGS)
        badly = sequences(body.get("failure_patterns"), FAILURES * LEARNINGS)
        opinions = _opinions(body.get("feedback"))
        before = {path.sequence: path.outcomes for path in miner.patterns().variants}
        self._miner, self._opinions, self._before = miner, opinions, before
        self.success_patterns, self.failure_patterns = well, badly
        self._proposed = []


def _opinions(body: object) -> dict[str, dict[str, str]]:
    """Return what people thought of improvements, by their ids."""
    if not isinstance(body, dict) or len(body) > OPINIONS:
        raise ValueError(f"not feedback: no mapping, or of more than {OPINIONS:,} improvements")
    found = {}
    for id, said in body.items():
        _check("improvement_id", id, "the `id` of an optimization")
        if not isinstance(said, dict) or said.keys() != {"verdict", "note"}:
            raise ValueError(f"not feedback: of {id!r:.60} other than verdict and note")
        found[id] = _opinion(said["verdict"], said["note"])
    return found


def _opinion(verdict: object, note: object) -> dict[str, str]:
    _check("verdict", verdict, "a word such as 'good' or 'bad'")
    _check("note", note, "why", needed=False)
    return {"verdict": str(verdict), "note": str(note)}


def _check(name: str, text: object, what: str, *, needed: bool = True) -> None:
    if not isinstance(text, str):
        raise ValueError(f"{name} is not a text but of type {type(text).__name__}: it is {what}")
    if needed and not text:
        raise ValueError(f"{name} is empty: it is {what}")
    if len(text) > LONGEST:
        raise ValueError(f"{name} has at most {LONGEST:,} characters, not {len(text):,}")


def _portions(events: Iterable[object]) -> Iterator[list[object]]:
    rest = iter(events)
    while portion := list(islice(rest, PORTION)):
        yield portion


def _worded(improvement: Improvement, findings: list[Finding], said: dict[str, str]) -> Row:
    """Return an improvement in JSON with the sentence that stands for it."""
    row = plain(improvement.to_json())
    assert isinstance(row, dict)
    kinds = [finding.kind for finding in findings if finding.id in improvement.finding_ids]
    topics = [
        f"{improvement.action} {improvement.target}",
        *(TOPICS.get(kind, "") for kind in kinds),
    ]
    found = [said[topic] for topic in topics if topic in said]
    return {"suggestion": found[0] if found else improvement.cost_risk, **row}


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as problem:
        raise ValueError(f"not what a learner kept: {path} is no text in UTF-8") from problem
