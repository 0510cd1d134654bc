"""What was seen, in figures: the shape that mining gives and statistics take.

Frozen values; times in seconds, moments in seconds since 1970. A case is one conversation: its
events, ordered. An outcome that nobody knows is neither success nor failure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Case = str | None


@dataclass(frozen=True, slots=True)
class Endings:
    """How often something ended well, badly, and in no known way."""

    success: int = 0
    failure: int = 0
    unknown: int = 0

    @property
    def known(self) -> int:
        """How many outcomes are known."""
        return self.success + self.failure

    @property
    def rate(self) -> float | None:
        """Share of successes among the known; None where none is."""
        return self.success / self.known if self.known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Durations of one thing: quantiles within 2 %, the rest exact.

    Attributes:
        p50_low: Lower end of the 95 % interval of the median, by rank; `p50_high` the upper.
        peaks: (seconds, share) of each narrow range of durations that holds 15 % or more; none
            below 20 durations.
    """

    n: int = 0
    total_s: float = 0.0
    mean_s: float = 0.0
    p25_s: float = 0.0
    p50_s: float = 0.0
    p75_s: float = 0.0
    p95_s: float = 0.0
    p50_low: float = 0.0
    p50_high: float = 0.0
    peaks: tuple[tuple[float, float], ...] = ()


NO_TIMES = Times()


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One sequence of activities, and the cases that went this way.

    Attributes:
        times: From the first event of a case to its last.
        exemplars: Up to three of these cases.
        last: Moment of the last event of any of them.
    """

    sequence: tuple[str, ...]
    n: int
    outcomes: Endings
    times: Times = NO_TIMES
    exemplars: tuple[Case, ...] = ()
    last: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """One kind of event.

    Attributes:
        n: Events.
        cases: Cases with at least one.
        outcomes: Of the events themselves: a validation that failed, a call that did not.
        times: What the events say of their own duration.
        exemplars: Up to three cases where it failed.
    """

    name: str
    n: int
    cases: int
    outcomes: Endings
    times: Times = NO_TIMES
    exemplars: tuple[Case, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """One activity directly after another, within a case.

    Attributes:
        times: From the one to the other.
        share_of_time: Of the time of all edges, from 0 to 1.
        by_agent: The same, by who did the second one; only where agents are named.
        exemplars: Up to three cases in which it took longest.
    """

    source: str
    target: str
    times: Times
    share_of_time: float
    by_agent: Mapping[str, Times] = field(default_factory=dict)
    exemplars: tuple[Case, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rework:
    """An activity that was done more than once in a case.

    Attributes:
        cases: Cases in which it was.
        extra: How often beyond the first time, in all of them.
        exemplars: Up to three of these cases.
    """

    activity: str
    cases: int
    extra: int
    exemplars: tuple[Case, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A, then B, then A again.

    Attributes:
        n: How often.
        cases: In how many cases.
        exemplars: Up to three of them.
    """

    first: str
    second: str
    n: int
    cases: int
    exemplars: tuple[Case, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What one agent did: its events' outcomes and durations."""

    agent: str
    n: int
    outcomes: Endings
    times: Times = NO_TIMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Errors that say the same but for numbers, names and ids.

    Attributes:
        signature: The text with these replaced.
        activities: Where it happened, with counts.
        agents: To whom, with counts.
        first: When it was first seen, seconds since 1970; `last` the last time.
        exemplars: Up to three cases.
    """

    signature: str
    n: int
    activities: Mapping[str, int]
    agents: Mapping[str, int]
    first: float
    last: float
    exemplars: tuple[Case, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """Something a case had before its outcome was known, and how such cases ended.

    Attributes:
        kind: "activity", "edge", "rework", "agent" or "task_type".
        name: Of an edge both activities, else one name.
        outcomes: Of the cases that had it; those of the others are the rest of all cases.
        by_task: (with it, all cases) by task type, where task types are named.
        exemplars: Up to three cases that had it and failed.
    """

    kind: str
    name: tuple[str, ...]
    outcomes: Endings
    by_task: Mapping[str, tuple[Endings, Endings]] = field(default_factory=dict)
    exemplars: tuple[Case, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patterns:
    """All that was mined. Sequences are in the order of importance, most frequent first.

    Attributes:
        events: Events that count.
        cases: Cases seen, the open ones included.
        open_cases: Cases that may go on: what they give is provisional.
        evicted: Cases closed because too many were open.
        late: Events of closed cases: counted here, and nowhere else.
        skipped: Events that are none, by what is wrong with them.
        others: Cases of variants beyond the most that are kept.
        first: Moment of the first event; `last` of the last.
        outcomes: Of cases.
        times: From the first event of a case to its last.
        coverage: Share of cases in the most frequent variants, by their number (1, 5, 10, 20).
        task_types: Endings of cases by task type.
        features: What cases had before their outcome.
    """

    events: int = 0
    cases: int = 0
    open_cases: int = 0
    evicted: int = 0
    late: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    others: int = 0
    first: float | None = None
    last: float | None = None
    outcomes: Endings = Endings()
    times: Times = NO_TIMES
    coverage: Mapping[int, float] = field(default_factory=dict)
    variants: tuple[Path, ...] = ()
    task_types: Mapping[str, Endings] = field(default_factory=dict)
    activities: tuple[Activity, ...] = ()
    edges: tuple[Edge, ...] = ()
    rework: tuple[Rework, ...] = ()
    loops: tuple[Loop, ...] = ()
    workers: tuple[Worker, ...] = ()
    failures: tuple[Failure, ...] = ()
    features: tuple[Feature, ...] = ()
