"""An incident as values: which requests came, and what each provider did when.

    Incident
    ├── Load             requests: at a rate or at given times, and how they were asked
    └── ProviderScript   a provider: how quick, how much room, what it costs
        ├── Fault        what goes wrong there, from when to when
        └── RecordedCall a call that was really made, in place of latency and faults

It holds times and sizes, no prompt and no answer. `incident_files` reads and writes it as TOML;
`recorded` makes one of what a store has. Units: seconds from the incident's beginning, tokens.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from zejzl.engine.arguments import checked_criticality, checked_name
from zejzl.errors import FailureClass, shorten, words
from zejzl.policies.prices import Price

MOST_REQUESTS = 1_000_000  # of one incident
MOST_SECONDS = 366 * 86_400.0  # that anything in one lasts
MOST_COUNT = 1_000_000_000
YEARS = 1970, 2200  # from the first until before the other an incident may have been
OFFLINE = "offline"  # the bus's own provider
OK = "ok"
SLOW = "slow"  # a fault that is no failure: answers take the fault's latency
CALLERS = frozenset({FailureClass.CANCELLED, FailureClass.DEADLINE})  # no provider's doing
KINDS = (*(kind.value for kind in FailureClass if kind not in CALLERS), SLOW)
OUTCOMES = (OK, *(kind.value for kind in FailureClass))

Span = tuple[float, float]  # seconds, drawn evenly between the two


class IncidentError(ValueError):
    """An incident cannot be: something in it is unknown or missing, or a value is none.

    Attributes:
        place: What, as `providers[0].faults[1].from`.
        problem: What is wrong with it.
    """

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}" if place else problem)
        self.place = place
        self.problem = problem

    def below(self, place: str) -> "IncidentError":
        """Return it as it is told from further out."""
        dot = "." if place and self.place else ""
        return IncidentError(f"{place}{dot}{self.place}", self.problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong at a provider for a while.

    Attributes:
        kind: A `FailureClass` value that a provider can cause, or "slow". The silent ones
            (first_token_timeout, and stalled in the middle of a stream) last until somebody gives
            up.
        start: From when on it is played (in TOML `from`).
        end: Until before when (in TOML `to`); None: to the end.
        share: Of the calls, 0 to 1.
        retry_after: Seconds the provider asks to wait.
        latency: Seconds until it shows; None: refusals at once, all else when an answer would
            have come.
        after: Share of a stream that has come before; None: half of it where one is cut or
            stalls, else nothing.
    """

    kind: str
    start: float = 0.0
    end: float | None = None
    share: float = 1.0
    retry_after: float | None = None
    latency: Span | None = None
    after: float | None = None

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, KINDS)
        _check_window(self)
        _keep(self, "share", _number("share", self.share, most=1.0))
        if self.after is not None:
            _keep(self, "after", _number("after", self.after, most=1.0))
        if self.retry_after is not None:
            _keep(self, "retry_after", _seconds("retry_after", self.retry_after))
        if self.latency is not None:
            _keep(self, "latency", _span("latency", self.latency))
        elif self.kind == SLOW:
            raise IncidentError("latency", "is missing: how slow is it, as [5, 9]?")

    def holds(self, at: float) -> bool:
        """Say whether it is played at a time."""
        return self.start <= at and (self.end is None or at < self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCall:
    """One call of a provider as it really went.

    Attributes:
        at: When it began.
        outcome: "ok" or a `FailureClass` value.
        seconds: Until it ended. Of one that was given up (cancelled, deadline,
            first_token_timeout): so long there was no answer. Of one that stalled: until it did.
        request: Number of the request it was for, from 0 in the order of arrival.
        retry_after: Seconds the provider asked to wait.
    """

    at: float
    outcome: str
    seconds: float
    request: int
    retry_after: float | None = None

    def __post_init__(self) -> None:
        _one_of("outcome", self.outcome, OUTCOMES)
        for name in ("at", "seconds"):
            _keep(self, name, _seconds(name, getattr(self, name)))
        if self.retry_after is not None:
            _keep(self, "retry_after", _seconds("retry_after", self.retry_after))
        _whole_from_0("request", self.request)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderScript:
    """A provider of an incident.

    Attributes:
        name: In the bus.
        model: Its model, for the price table.
        latency: Seconds to a plain answer, or to a stream's first piece; None: as recorded.
        pace: Seconds between the tokens of a stream.
        capacity: Calls that it serves at once; further ones are refused as overloaded. None: any
            number.
        queue: Calls that may wait for one of these places.
        price: USD per million tokens; None: what the price table says.
        faults: What goes wrong; of several at one time the first that strikes is played.
        calls: What it really did, oldest first.
    """

    name: str
    model: str = ""
    latency: Span | None = None
    pace: float = 0.0
    capacity: int | None = None
    queue: int = 0
    price: Price | None = None
    faults: tuple[Fault, ...] = ()
    calls: tuple[RecordedCall, ...] = ()

    def __post_init__(self) -> None:
        _keep(self, "name", _as_ours("name", checked_name, self.name))
        if self.name == OFFLINE:
            raise IncidentError("name", f"{OFFLINE!r} is the bus's own, there while nobody else is")
        _text("model", self.model)
        _keep(self, "pace", _seconds("pace", self.pace))
        if self.capacity is not None:
            _whole_from_1("capacity", self.capacity)
        _whole_from_0("queue", self.queue)
        for name in ("faults", "calls"):
            _keep(self, name, tuple(getattr(self, name)))
        if self.calls and (self.latency is not None or self.faults):
            problem = "are what really happened: latency and faults have no place beside them"
            raise IncidentError("calls", problem)
        if self.latency is not None:
            _keep(self, "latency", _span("latency", self.latency))
        elif not self.calls:
            raise IncidentError("latency", "is missing: seconds to an answer, as [0.3, 0.9]")
        _check_order("calls", [call.at for call in self.calls])


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Requests that were asked alike.

    Attributes:
        rate: So many a second, each at a random moment of its own slot; or
        times: When each came.
        start: From when on a rate holds (in TOML `from`).
        end: Until before when (in TOML `to`); None: to the end.
        stream: Whether the answers are streamed.
        repeats: Whether a streamed answer that is begun again says the same again, as models may
            at temperature 0; else it is another text, and no stream can go on with it.
        prompt_tokens, answer_tokens: Of each request; or of each of `times`, as a list.
        conversation: To which they belong, "" being none; or each of `times`, as a list.
        provider, model, failover, deadline, patience, criticality, max_tokens: As in
            `AsyncMessageBus.send`.
    """

    rate: float | None = None
    times: tuple[float, ...] | None = None
    start: float = 0.0
    end: float | None = None
    stream: bool = False
    repeats: bool = False
    prompt_tokens: int | tuple[int, ...] = 100
    answer_tokens: int | tuple[int, ...] = 50
    conversation: str | tuple[str, ...] = ""
    provider: str | None = None
    model: str | None = None
    failover: bool | tuple[str, ...] | None = None
    deadline: float | None = None
    patience: float | None = None
    criticality: str = "normal"
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        self._check_times()
        for name in ("stream", "repeats"):
            if not isinstance(getattr(self, name), bool):
                raise IncidentError(name, f"must be true or false, not {_shown(self, name)}")
        self._check_each("prompt_tokens", _whole_from_0)
        self._check_each("answer_tokens", _whole_from_1)
        self._check_each("conversation", _text)
        for name in ("deadline", "patience"):
            if (value := getattr(self, name)) is not None:
                _keep(self, name, _seconds(name, value))
        if self.deadline == 0.0:
            raise IncidentError("deadline", "must be above 0")
        if self.max_tokens is not None:
            _whole_from_1("max_tokens", self.max_tokens)
        _as_ours("criticality", checked_criticality, self.criticality)
        for name in ("provider", "model"):
            if (value := getattr(self, name)) is not None:
                _text(name, value)
        if not isinstance(self.failover, bool | None):
            _keep(self, "failover", tuple(_list("failover", self.failover)))
            for name in self.failover:
                _text("failover", name)

    def _check_times(self) -> None:
        if (self.rate is None) == (self.times is None):
            raise IncidentError("rate", "must be given, or times in its place, and not both")
        _check_window(self)
        if self.rate is not None:
            _keep(self, "rate", _number("rate", self.rate))
            if not self.rate:
                raise IncidentError("rate", "must be above 0")
            return
        if self.start or self.end is not None:
            raise IncidentError("from", "and to are for a rate: times say by themselves when")
        found = _list("times", self.times)
        _keep(self, "times", tuple(_seconds(f"times[{at}]", when) for at, when in enumerate(found)))
        _check_order("times", self.times or ())

    def _check_each(self, name: str, check: Callable[[str, Any], None]) -> None:
        value = getattr(self, name)
        if not isinstance(value, tuple | list):
            check(name, value)
            return
        if self.times is None or len(value) != len(self.times):
            there = "a rate" if self.times is None else f"{len(self.times)} times"
            raise IncidentError(name, f"holds {len(value)} values for {there}: each needs its own")
        for at, one in enumerate(value):
            check(f"{name}[{at}]", one)
        _keep(self, name, tuple(value))

    @property
    def named(self) -> tuple[str, ...]:
        """The providers that are named in it."""
        others = () if isinstance(self.failover, bool | None) else self.failover
        first = () if self.provider is None else (re.split("[/:]", self.provider)[0],)
        return tuple(name.strip().lower() for name in (*first, *others))

    def moments(self, duration: float, rng: Random) -> Sequence[float]:
        """Return when its requests come."""
        if self.times is not None:
            return self.times
        assert self.rate is not None
        return [self.start + (at + rng.random()) / self.rate for at in range(self.count(duration))]

    def count(self, duration: float) -> int:
        """Return how many requests it has."""
        if self.times is not None:
            return len(self.times)
        assert self.rate is not None
        lasts = min(duration, duration if self.end is None else self.end) - self.start
        return max(0, round(lasts * self.rate))


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of an incident.

    Attributes:
        number: From 0, in the order of arrival.
        at: When it comes.
        load: How it is asked.
        conversation: To which it belongs; None: to none.
    """

    number: int
    at: float
    load: Load
    prompt_tokens: int
    answer_tokens: int
    conversation: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """What came, and what went wrong.

    Attributes:
        duration: Seconds in which requests come.
        requests: They.
        providers: Who answers, in the order in which they are asked.
        name: For people.
        began: When it really was, aware; None: it is made up.
    """

    duration: float
    requests: tuple[Load, ...]
    providers: tuple[ProviderScript, ...]
    name: str = ""
    began: datetime | None = None

    def __post_init__(self) -> None:
        _keep(self, "duration", _seconds("duration", self.duration))
        if not self.duration:
            raise IncidentError("duration", "must be above 0")
        for name in ("requests", "providers"):
            _keep(self, name, tuple(getattr(self, name)))
        _text("name", self.name)
        if self.began is not None and self.began.tzinfo is None:
            raise IncidentError("began", "needs a zone: as 2026-11-22T10:00:00Z")
        if self.began is not None and not YEARS[0] <= self.began.year < YEARS[1]:
            raise IncidentError("began", f"must be in the years {YEARS[0]} to {YEARS[1] - 1}")
        if not self.providers:
            raise IncidentError("providers", "are missing: somebody must be asked")
        names = [one.name for one in self.providers]
        for at, name in enumerate(names):
            if name in names[:at]:
                raise IncidentError(f"providers[{at}].name", f"{name!r} is there already")
        for at, load in enumerate(self.requests):
            for name in load.named:
                if name not in names:
                    problem = f"{name!r} is none of the providers: {', '.join(names)}"
                    raise IncidentError(f"requests[{at}].provider", problem)
            if load.times and load.times[-1] > self.duration:
                last = len(load.times) - 1
                problem = f"{load.times[-1]:g} is after the end, {self.duration:g}"
                raise IncidentError(f"requests[{at}].times[{last}]", problem)
        self._check_count()

    def _check_count(self) -> None:
        count = sum(load.count(self.duration) for load in self.requests)
        if not count:
            raise IncidentError("requests", "are missing: at least one must come")
        if count > MOST_REQUESTS:
            raise IncidentError("requests", f"are {count:,}, and {MOST_REQUESTS:,} are the most")
        for at, one in enumerate(self.providers):
            for place, call in enumerate(one.calls):
                if call.request >= count:
                    problem = f"{call.request} is none of the {count} requests"
                    raise IncidentError(f"providers[{at}].calls[{place}].request", problem)

    @classmethod
    def from_toml(cls, path: Path | str) -> "Incident":
        """Return the incident in a TOML file.

        Raises:
            IncidentError: If it is none, or of another schema; says which place is wrong.
            OSError: If the file cannot be read.
        """
        from zejzl.testing.incident_files import load  # which knows this module

        return load(Path(path))

    def to_toml(self) -> str:
        """Return it as TOML."""
        from zejzl.testing.incident_files import dump

        return dump(self)

    def arrivals(self, seed: int) -> list[Arrival]:
        """Return its requests in the order in which they come; the same ones for the same seed."""
        found = []
        for place, load in enumerate(self.requests):
            rng = Random(f"{seed}/arrivals/{place}")
            for at, moment in enumerate(load.moments(self.duration, rng)):
                found.append((moment, place, at, load))
        return [
            Arrival(
                number,
                moment,
                load,
                _of(load.prompt_tokens, at),
                _of(load.answer_tokens, at),
                _of(load.conversation, at) or None,
            )
            for number, (moment, _, at, load) in enumerate(sorted(found, key=lambda one: one[:3]))
        ]


def _of(each: Any, at: int) -> Any:
    return each[at] if isinstance(each, tuple) else each


# What values may be ------------------------------------------------------------------------------

_keep = object.__setattr__  # of a frozen value, while it is being made


def _shown(owner: object, name: str = "") -> str:
    return shorten(words(repr(getattr(owner, name) if name else owner)))


def _number(place: str, value: object, *, most: float = math.inf) -> float:
    """Return a number from 0; neither NaN nor infinite."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not 0.0 <= value <= min(most, 1e15):  # type: ignore[operator]
        upto = "" if most == math.inf else f" to {most:g}"
        raise IncidentError(place, f"must be a number from 0{upto}, not {_shown(value)}")
    return float(value)  # type: ignore[arg-type]


def _seconds(place: str, value: object) -> float:
    return _number(place, value, most=MOST_SECONDS)


def _span(place: str, value: object) -> Span:
    found = [_seconds(f"{place}[{at}]", one) for at, one in enumerate(_list(place, value))]
    if len(found) != 2 or found[0] > found[1]:
        raise IncidentError(place, f"must be two numbers, low and high, not {_shown(value)}")
    return found[0], found[1]


def _list(place: str, value: object) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise IncidentError(place, f"must be a list, not {_shown(value)}")
    return value


def _whole(place: str, value: object, least: int) -> None:
    fits = isinstance(value, int) and not isinstance(value, bool)
    if not fits or not least <= value <= MOST_COUNT:  # type: ignore[operator]
        raise IncidentError(place, f"must be a whole number from {least}, not {_shown(value)}")


def _whole_from_0(place: str, value: object) -> None:
    _whole(place, value, 0)


def _whole_from_1(place: str, value: object) -> None:
    _whole(place, value, 1)


def _text(place: str, value: object) -> None:
    if not isinstance(value, str) or not value.isprintable():
        raise IncidentError(place, f"must be printable text, not {_shown(value)}")


def _one_of(place: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise IncidentError(place, f"must be one of {', '.join(known)}, not {_shown(value)}")


def _as_ours(place: str, check: Callable[[Any], Any], value: object) -> Any:
    """Return what the bus makes of an argument."""
    try:
        return check(value)
    except (TypeError, ValueError) as wrong:
        raise IncidentError(place, str(wrong)) from None


def _check_order(place: str, times: Sequence[float]) -> None:
    for at, (one, after) in enumerate(pairwise(times), 1):
        if after < one:
            raise IncidentError(f"{place}[{at}]", f"{after:g} is before the one at {one:g}")


def _check_window(owner: Fault | Load) -> None:
    _keep(owner, "start", _seconds("from", owner.start))
    if owner.end is None:
        return
    _keep(owner, "end", _seconds("to", owner.end))
    if owner.end <= owner.start:
        raise IncidentError("to", f"{owner.end:g} is not after from, {owner.start:g}")
