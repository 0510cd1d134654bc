"""What a finding is: something that was seen in figures, with how sure that is and where to look.

A finding is a value: its id follows from its kind and its place, so that the same thing found
again tomorrow is the same finding. Times are in seconds, shares from 0 to 1.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from zejzl.errors import StoreTooNew
from zejzl.learning.patterns import Case, Patterns

VERSION = 1
_LARGEST = 1.7976931348623157e308  # a whole number may be larger than any float

Kind = Literal[
    "validation_failure",
    "execution_error",
    "slow_edge",
    "rework_loop",
    "ping_pong",
    "timer",
    "failing_path",
    "agent_gap",
    "drift",
]
Level = Literal["finding", "info"]


@dataclass(frozen=True, slots=True)
class Effect:
    """How large it is.

    Attributes:
        unit: "share", "difference of shares", "ratio" or "s".
        ci95: Its 95 % interval, where there is one.
    """

    value: float
    unit: str
    ci95: tuple[float, float] | None = None

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        return {"value": self.value, "unit": self.unit, "ci95": self.ci95 and list(self.ci95)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Where to look.

    Attributes:
        case_ids: Up to three cases that show it.
        window: Moments of the first and last event looked at, seconds since 1970.
        counts: What was counted and measured, by name; seconds end in `_s`.
    """

    case_ids: tuple[Case, ...] = ()
    window: tuple[float | None, float | None] = (None, None)
    counts: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        return {
            "case_ids": list(self.case_ids),
            "window": list(self.window),
            "counts": dict(self.counts),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found.

    Attributes:
        where: Its place: `activity`, `from` and `to`, `agent`, `task_type`, `signature` and so on.
        n: Observations that it rests on; of failures, how many there were.
        n_reference: Observations it was compared with, or taken out of.
        test: What says that it is no chance; None where nothing was compared.
        q: p, corrected for all comparisons of the same search.
        share_of_time: Of all time between events, or of all durations.
        cases_affected: In how many cases; None where only events were counted.
        wasted_s_per_100_cases: Time that would be saved; None where no time is known.
        caveat: Why it may be less than it seems.
        level: "finding", or "info" for what is worth knowing and proves nothing.
    """

    kind: Kind
    where: Mapping[str, str]
    effect: Effect
    n: int
    n_reference: int | None = None
    test: str | None = None
    p: float | None = None
    q: float | None = None
    share_of_time: float | None = None
    cases_affected: int | None = None
    wasted_s_per_100_cases: float | None = None
    evidence: Evidence = Evidence()
    caveat: str | None = None
    level: Level = "finding"

    @property
    def id(self) -> str:
        """Kind and a digest of the place: the same wherever and whenever it is found."""
        return f"{self.kind}-{digest(self.where)}"

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values: v, id and the fields."""
        return {
            "v": VERSION,
            "id": self.id,
            "kind": self.kind,
            "where": dict(self.where),
            "effect": self.effect.to_json(),
            "n": self.n,
            "n_reference": self.n_reference,
            "test": self.test,
            "p": self.p,
            "q": self.q,
            "share_of_time": self.share_of_time,
            "cases_affected": self.cases_affected,
            "wasted_s_per_100_cases": self.wasted_s_per_100_cases,
            "evidence": self.evidence.to_json(),
            "caveat": self.caveat,
            "level": self.level,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, object]) -> "Finding":
        """Return the finding that `to_json` wrote.

        Raises:
            StoreTooNew: If a newer version wrote it.
            ValueError: If it is no finding.
        """
        read = Fields(body, "finding")
        kind, level = read.text("kind"), read.text("level")
        if kind not in get_args(Kind) or level not in get_args(Level):
            raise ValueError(f"not a finding: kind {kind!r:.40}, level {level!r:.40}")
        return cls(
            kind=cast(Kind, kind),
            where=read.texts("where"),
            effect=effect_of(body.get("effect")),
            n=read.count("n"),
            n_reference=read.maybe_count("n_reference"),
            test=read.maybe_text("test"),
            p=read.maybe_number("p"),
            q=read.maybe_number("q"),
            share_of_time=read.maybe_number("share_of_time"),
            cases_affected=read.maybe_count("cases_affected"),
            wasted_s_per_100_cases=read.maybe_number("wasted_s_per_100_cases"),
            evidence=evidence_of(body.get("evidence")),
            caveat=read.maybe_text("caveat"),
            level=cast(Level, level),
        )


def place(where: Mapping[str, str], brief: Callable[[str], str] = str) -> str:
    """Return a finding's place as people write it; each name in it by way of `brief`."""
    named = f"{brief(where['from'])} → {brief(where['to'])}" if "from" in where else ""
    for name in ("activity", "rework", "task_type", "agent"):
        if name in where:
            said = brief(where[name]) + (" again" if name == "rework" else "")
            return f"{named} ({said})" if named else said
    return named or brief(next(iter(where.values()), ""))


def digest(where: Mapping[str, str]) -> str:
    """Return ten hexadecimal digits that stand for a place."""
    text = repr(sorted(where.items()))
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:10]


def window(patterns: Patterns) -> tuple[float | None, float | None]:
    """Return the moments of the first and the last event."""
    return (patterns.first, patterns.last)


def per_100_cases(amount: float, patterns: Patterns) -> float:
    """Return the amount that falls to a hundred cases."""
    return amount * 100 / max(1, patterns.cases)


def both(*caveats: str | None) -> str | None:
    """Return the caveats that there are, as one text."""
    return "; ".join(caveat for caveat in caveats if caveat) or None


def effect_of(body: object) -> Effect:
    """Return the effect that `Effect.to_json` wrote.

    Raises:
        ValueError: If it is none.
    """
    read = Fields(body, "effect", version=None)
    ends = read.body.get("ci95")
    if ends is None:
        return Effect(read.number("value"), read.text("unit"))
    low, high = _pair(ends, "ci95")
    if low is None or high is None:
        raise ValueError("not an effect: its interval is open")
    return Effect(read.number("value"), read.text("unit"), (low, high))


def evidence_of(body: object) -> Evidence:
    """Return the evidence that `Evidence.to_json` wrote.

    Raises:
        ValueError: If it is none.
    """
    read = Fields(body, "evidence", version=None)
    cases = read.body.get("case_ids")
    if not isinstance(cases, Sequence) or not all(
        case is None or isinstance(case, str) for case in cases
    ):
        raise ValueError(f"not evidence: case_ids cannot be {cases!r:.40}")
    return Evidence(
        case_ids=tuple(cases),
        window=_pair(read.body.get("window"), "window"),
        counts=read.numbers("counts"),
    )


def _pair(value: object, name: str) -> tuple[float | None, float | None]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError(f"{name!r} cannot be {value!r:.40}")
    first, last = (None if end is None else as_number(end, name) for end in value)
    return (first, last)


def as_number(value: object, name: str) -> float:
    """Return a finite number as it is.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name!r} cannot be {value!r:.40}")
    if not abs(value) <= _LARGEST:
        raise ValueError(f"{name!r} must be finite")
    return value


class Fields:
    """Reads fields of a JSON object: what was damaged is told, not believed.

    Raises:
        StoreTooNew: From the constructor: a newer version wrote it.
        ValueError: From all of it: this is no such thing.
    """

    def __init__(self, body: object, what: str, *, version: int | None = VERSION) -> None:
        if not isinstance(body, Mapping):
            raise ValueError(f"not a {what}: {type(body).__name__}")
        if version is not None and body.get("v") != version:
            raise StoreTooNew(f"{what} of version {body.get('v')!r}; this zejzl reads {version}")
        self.body: Mapping[str, object] = body

    def text(self, name: str) -> str:
        value = self.body.get(name)
        if not isinstance(value, str):
            raise ValueError(f"{name!r} cannot be {value!r:.40}")
        return value

    def maybe_text(self, name: str) -> str | None:
        return None if self.body.get(name) is None else self.text(name)

    def number(self, name: str) -> float:
        return as_number(self.body.get(name), name)

    def maybe_number(self, name: str) -> float | None:
        return None if self.body.get(name) is None else self.number(name)

    def count(self, name: str) -> int:
        value = self.body.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{name!r} cannot be {value!r:.40}")
        return value

    def maybe_count(self, name: str) -> int | None:
        return None if self.body.get(name) is None else self.count(name)

    def mapping(self, name: str) -> dict[str, object]:
        value = self.body.get(name)
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ValueError(f"{name!r} cannot be {value!r:.40}")
        return dict(value)

    def texts(self, name: str) -> dict[str, str]:
        inside = Fields(self.mapping(name), name, version=None)
        return {key: inside.text(key) for key in inside.body}

    def numbers(self, name: str) -> dict[str, float]:
        return {key: as_number(value, key) for key, value in self.mapping(name).items()}
