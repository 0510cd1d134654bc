"""Learned preferences: which remedy to try first, by what the remedies have done so far.

For a failure class, a component and a remedy, with discounted counts of good and bad attempts
A, B (the remedy against that class anywhere) and a, b (in this component, a *cell*):

    m = (8·M + A) / (8 + A + B)        what the class suggests; M = 0.80 for the runbook's pick,
    p = (6·m + a) / (6 + a + b)        0.60 for the others; what the cell makes of it
    u = p − ĉ + offset                 ĉ: mean cost; offset: an operator's ±0.1, or 0
    order by u + w·β·log π_ref         π_ref: 0.70 for the pick, the rest shares 0.30 equally

Every attempt teaches, whatever its rank, because what is tried first is the only one that would
ever be seen to lose. An attempt discounts the counts of its own remedy alone (class and cell), so
that a remedy not tried is not forgotten. A cumulative sum of bad surprises tells drift: what was
known of the remedy against that class then counts a tenth, in every component.

Not here: guards that forbid a remedy. They come first; only what they leave is a candidate.

Pure: no clock, no chance. Reading changes nothing, so that replaying the calls of `learn`,
`prefer` and `withdraw` gives the same state. Units: costs and rates are shares, 0 to 1.
Sources: π ∝ π_ref·exp(u/β) is the optimum that Rafailov et al., "Direct Preference Optimization",
2023, start from; discounting after Garivier & Moulines, 2011; Page's cumulative sum, 1954.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log, sqrt
from typing import NamedTuple, TypeVar

from zejzl.policies.kept import whole

CELLS = 10_000
VERSION = 1
PICK_PRIOR, OTHER_PRIOR = 0.80, 0.60
PICK_SHARE, OTHER_SHARE = 0.70, 0.30
CLASS_WEIGHT, CELL_WEIGHT = 8.0, 6.0  # attempts that a prior is worth
DISCOUNT = 0.95
BETA, REFERENCE_WEIGHT = 0.05, 0.3
OFFSET = 0.1
FIRST_COST, COST_RATE = 0.1, 0.1
SLACK, DRIFT, SHRINK = 0.5, 4.0, 0.1
WORST_SURPRISE = 4.0  # less than DRIFT + SLACK: one failure after a long good run is no drift
ALL = "*"  # the component or class of rows about a preference that holds for every one
_FULL = 1.0 / (1.0 - DISCOUNT) + 1e-9  # discounted counts never exceed this

_Kind = TypeVar("_Kind", bound=str)
_Scope = tuple[str | None, str | None]  # component, failure class; None: every one


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is known of one remedy, for people to read.

    Attributes:
        component: Where it is tried.
        failure_class: Against what.
        remedy: Its name.
        probability: Its share among the remedies known for that component and class.
        score: u, that is success_rate − cost + offset.
        success_rate: p, estimated.
        cost: ĉ, the mean cost of an attempt.
        tried: Attempts counted, none discounted.
        offset: What operators' preferences add to the score.
        author: Who expressed those, joined by commas; None: nobody did.
    """

    component: str
    failure_class: str
    remedy: str
    probability: float
    score: float
    success_rate: float
    cost: float
    tried: int
    offset: float
    author: str | None


class _Preferred(NamedTuple):
    winner: str
    loser: str
    author: str


class _Estimate(NamedTuple):
    rate: float
    cell: "_Cell"
    offset: float

    @property
    def score(self) -> float:
        return self.rate - self.cell.cost + self.offset


@dataclass(slots=True)
class _Counts:
    good: float = 0.0
    bad: float = 0.0

    def add(self, success: bool) -> None:
        self.good = DISCOUNT * self.good + success
        self.bad = DISCOUNT * self.bad + (not success)

    def shrink(self) -> None:
        self.good *= SHRINK
        self.bad *= SHRINK

    def rate(self, prior: float, weight: float) -> float:
        return (weight * prior + self.good) / (weight + self.good + self.bad)


@dataclass(slots=True)
class _Cell(_Counts):
    cost: float = FIRST_COST
    drift: float = 0.0
    tried: int = 0


@dataclass(slots=True)
class _Against(_Counts):
    """A remedy against a failure class, with its cells by component."""

    cells: dict[str, _Cell] = field(default_factory=dict)


class Preferences:
    """What has been learned, at most 10,000 cells; the one learned from longest ago goes first.

    Names are plain strings: remedies of a user's own need no entry in the runbook. What operators
    prefer is kept until it is withdrawn.

    Attributes:
        changes: How often anything has changed; as long as it stays, so do all answers.
    """

    def __init__(self, runbook: Mapping[_Kind, Sequence[str]]) -> None:
        """Begin with a runbook: failure class → remedies, best first."""
        self._runbook = {str(kind): tuple(map(str, page)) for kind, page in runbook.items()}
        self._known: dict[str, dict[str, _Against]] = {}
        self._recent: OrderedDict[tuple[str, str, str], _Cell] = OrderedDict()
        self._preferred: dict[_Scope, dict[frozenset[str], _Preferred]] = {}
        self.changes = 0

    # Asking ---------------------------------------------------------------------------------

    def order(self, component: str, failure_class: str, candidates: Sequence[str]) -> list[str]:
        """Return the candidates, best first; equally good ones as they were given."""
        scores = self._scores(failure_class, self._estimates(component, failure_class, candidates))
        return sorted(scores, key=scores.__getitem__, reverse=True)

    def probabilities(
        self, component: str, failure_class: str, candidates: Sequence[str] = ()
    ) -> dict[str, float]:
        """Return each candidate's share; they sum to 1.

        Without candidates: for the runbook's page and what else was tried there.
        """
        candidates = candidates or self._remedies(component, failure_class)
        return self._shares(failure_class, self._estimates(component, failure_class, candidates))

    @property
    def remedies(self) -> set[str]:
        """Every remedy of the runbook, and whatever else was tried."""
        tried = {remedy for known in self._known.values() for remedy in known}
        return tried.union(*self._runbook.values())

    @property
    def places(self) -> set[tuple[str, str]]:
        """Every component and class that something was learned of, or is preferred in."""
        learned = {(component, kind) for component, kind, _ in self._recent}
        return learned | {(where, kind) for where, kind in self._preferred if where and kind}

    def rows(
        self, own: Callable[[str, str], Iterable[str]] = lambda component, kind: ()
    ) -> list[Row]:
        """Return a row for each remedy of each component and class with anything to tell.

        By component and class; the best remedy first. What is preferred in every component or
        class has rows of its own, under "*".

        Args:
            own: Says what else can be tried in a component against a class.
        """
        places = self.places | {(where or ALL, kind or ALL) for where, kind in self._preferred}
        return [row for place in sorted(places) for row in self._rows(*place, own(*place))]

    def _rows(self, component: str, kind: str, own: Iterable[str]) -> Iterable[Row]:
        stated = self._preferred.get((_unless_all(component), _unless_all(kind)), {}).values()
        named = [remedy for wish in stated for remedy in (wish.winner, wish.loser)]
        known = self._estimates(component, kind, [*self._remedies(component, kind), *own, *named])
        shares = self._shares(kind, known)
        bearing = self._bearing(component, kind)
        for remedy in sorted(shares, key=shares.__getitem__, reverse=True):
            rate, cell, offset = known[remedy]
            authors = dict.fromkeys(each.author for each in bearing if remedy in each[:2])
            yield Row(
                component=component,
                failure_class=kind,
                remedy=remedy,
                probability=shares[remedy],
                score=known[remedy].score,
                success_rate=rate,
                cost=cell.cost,
                tried=cell.tried,
                offset=offset,
                author=", ".join(authors) or None,
            )

    def _estimates(
        self, component: str, kind: str, candidates: Iterable[str]
    ) -> dict[str, _Estimate]:
        bearing = self._bearing(component, kind)
        return {
            name: _Estimate(*self._estimate(component, kind, name), _offset(name, bearing))
            for name in candidates
        }

    def _scores(self, kind: str, known: Mapping[str, _Estimate]) -> dict[str, float]:
        pick = self._pick(kind)
        others = len(known) - (pick in known)
        return {
            name: found.score
            + REFERENCE_WEIGHT * BETA * log(PICK_SHARE if name == pick else OTHER_SHARE / others)
            for name, found in known.items()
        }

    def _shares(self, kind: str, known: Mapping[str, _Estimate]) -> dict[str, float]:
        scores = self._scores(kind, known)
        best = max(scores.values(), default=0.0)
        weights = {name: exp((score - best) / BETA) for name, score in scores.items()}
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    def _estimate(self, component: str, kind: str, remedy: str) -> tuple[float, _Cell]:
        against = self._known.get(kind, {}).get(remedy) or _Against()
        cell = against.cells.get(component) or _Cell()
        return self._rate(kind, remedy, against, cell), cell

    def _rate(self, kind: str, remedy: str, against: _Against, cell: _Cell) -> float:
        prior = PICK_PRIOR if remedy == self._pick(kind) else OTHER_PRIOR
        return cell.rate(against.rate(prior, CLASS_WEIGHT), CELL_WEIGHT)

    def _pick(self, kind: str) -> str | None:
        page = self._runbook.get(kind)
        return page[0] if page else None

    def _remedies(self, component: str, kind: str) -> list[str]:
        known = self._known.get(kind, {}).items()
        tried = [remedy for remedy, against in known if component in against.cells]
        return list(dict.fromkeys([*self._runbook.get(kind, ()), *tried]))

    # Learning -------------------------------------------------------------------------------

    def learn(
        self, component: str, failure_class: str, remedy: str, *, success: bool, cost: float
    ) -> bool:
        """Take in one attempt; return whether it showed drift, so that little is believed now.

        Args:
            component: Where it was made.
            failure_class: Against what.
            remedy: What was tried.
            success: Whether it helped.
            cost: What it took, 0 to 1; more counts as 1.

        Raises:
            ValueError: If `cost` is below 0 or no number.
        """
        if not cost >= 0:
            raise ValueError(f"cost must be from 0 to 1, not {cost!r}")
        self.changes += 1
        against, cell = self._cell(str(component), str(failure_class), str(remedy))
        expected = self._rate(failure_class, remedy, against, cell)
        against.add(success)
        cell.add(success)
        cell.tried += 1
        fallen = max(0.0, expected - self._rate(failure_class, remedy, against, cell))
        # The first costs are averaged with the guess: at a tenth each they would leave it in place
        # for longer than most cells are tried. A remedy is no better for having failed cheaply.
        step = (min(cost, 1.0) - cell.cost) * max(COST_RATE, 1.0 / (cell.tried + 1))
        cell.cost += step if success else max(step, -fallen)
        surprise = (success - expected) / sqrt(expected * (1.0 - expected))
        cell.drift = max(0.0, cell.drift - max(surprise, -WORST_SURPRISE) - SLACK)
        if cell.drift <= DRIFT:
            return False
        against.shrink()
        for each in against.cells.values():
            each.shrink()
            # Its sum was of surprises at what is no longer believed. Kept, the same drift would
            # be told once more for each component, and wipe out what was learned since.
            each.drift = 0.0
        return True

    def _cell(self, component: str, kind: str, remedy: str) -> tuple[_Against, _Cell]:
        against = self._known.setdefault(kind, {}).setdefault(remedy, _Against())
        cell = against.cells.setdefault(component, _Cell())
        self._recent[component, kind, remedy] = cell
        self._recent.move_to_end((component, kind, remedy))
        if len(self._recent) > CELLS:
            self._forget(*self._recent.popitem(last=False)[0])
        return against, cell

    def _forget(self, component: str, kind: str, remedy: str) -> None:
        known = self._known[kind]
        del known[remedy].cells[component]
        if not known[remedy].cells:
            del known[remedy]
        if not known:
            del self._known[kind]

    # Operators ------------------------------------------------------------------------------

    def prefer(
        self,
        winner: str,
        loser: str,
        *,
        author: str,
        component: str | None = None,
        failure_class: str | None = None,
    ) -> None:
        """Score `winner` 0.1 higher and `loser` 0.1 lower, for a component and class, or all.

        However many preferences name a remedy, 0.1 is all they move it; above one and below
        another it stays where it is. Of the same two remedies the last word counts, and one for a
        class or component overrides one for all (where both are given, the class's).

        Raises:
            ValueError: If winner and loser are the same.
        """
        if winner == loser:
            raise ValueError(f"{winner!r} cannot be preferred to itself")
        said = self._preferred.setdefault(_scope(component, failure_class), {})
        wish = _Preferred(str(winner), str(loser), author)
        said[frozenset(wish[:2])] = wish
        self.changes += 1

    def withdraw(
        self,
        winner: str,
        loser: str,
        *,
        component: str | None = None,
        failure_class: str | None = None,
    ) -> bool:
        """Take a preference back; return whether there was one, for just that scope."""
        scope = _scope(component, failure_class)
        said = self._preferred.get(scope, {})
        pair = frozenset((winner, loser))
        if pair not in said or said[pair].winner != winner:
            return False
        del said[pair]
        if not said:
            del self._preferred[scope]
        self.changes += 1
        return True

    def _bearing(self, component: str, kind: str) -> list[_Preferred]:
        if not self._preferred:
            return []
        said: dict[frozenset[str], _Preferred] = {}
        for scope in ((None, None), (component, None), (None, kind), (component, kind)):
            said |= self._preferred.get(scope, {})
        return list(said.values())

    # Keeping --------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, object]:
        """Return all that was learned and preferred, ready for JSON; floats survive it exactly."""
        return {
            "v": VERSION,
            "classes": [
                [kind, remedy, against.good, against.bad]
                for kind, known in self._known.items()
                for remedy, against in known.items()
            ],
            "cells": [
                [*place, cell.good, cell.bad, cell.cost, cell.drift, cell.tried]
                for place, cell in self._recent.items()
            ],
            "preferred": [
                [*scope, *wish] for scope, said in self._preferred.items() for wish in said.values()
            ],
        }

    def restore(self, kept: object) -> None:
        """Go on from a snapshot, in place of what is known; the runbook stays.

        Raises:
            ValueError: If it is damaged or of another version. Nothing was changed then.
        """
        if not isinstance(kept, dict):
            raise ValueError(f"not a snapshot: {kept!r}")
        version = kept.get("v")
        if isinstance(version, bool) or version != VERSION:
            raise ValueError(f"a snapshot of version {version!r}, but version {VERSION} is read")
        fresh = Preferences(self._runbook)
        fresh._read(kept)
        # What was written is read back as it was: no twins, nothing missing, nothing unknown.
        if fresh.snapshot() != kept or len(fresh._recent) > CELLS:
            raise ValueError("a snapshot that contradicts itself")
        self._known, self._recent = fresh._known, fresh._recent
        self._preferred = fresh._preferred
        self.changes += 1

    def _read(self, kept: Mapping[str, object]) -> None:
        for row in _lists(kept.get("classes"), 4):
            kind, remedy = map(_name, row[:2])
            self._known.setdefault(kind, {})[remedy] = _Against(*_counts(*row[2:]))
        for row in _lists(kept.get("cells"), 8):
            component, kind, remedy = map(_name, row[:3])
            cell = _Cell(
                *_counts(*row[3:5]), _upto(1.0, row[5]), _upto(DRIFT, row[6]), whole(row[7])
            )
            against = self._known.setdefault(kind, {}).setdefault(remedy, _Against())
            against.cells[component] = self._recent[component, kind, remedy] = cell
        if not all(against.cells for known in self._known.values() for against in known.values()):
            raise ValueError("a class without a cell")
        for row in _lists(kept.get("preferred"), 5):
            where, what = (None if name is None else _name(name) for name in row[:2])
            winner, loser, author = map(_name, row[2:])
            self.prefer(winner, loser, author=author, component=where, failure_class=what)


def _offset(remedy: str, bearing: Iterable[_Preferred]) -> float:
    wins = any(each.winner == remedy for each in bearing)
    loses = any(each.loser == remedy for each in bearing)
    return OFFSET * (wins - loses)


def _scope(component: str | None, kind: str | None) -> _Scope:
    return component and str(component), kind and str(kind)


def _unless_all(name: str) -> str | None:
    return None if name == ALL else name


def _lists(value: object, length: int) -> list[list[object]]:
    if not isinstance(value, list):
        raise ValueError(f"not a list: {value!r}")
    for row in value:
        if not isinstance(row, list) or len(row) != length:
            raise ValueError(f"not a list of {length}: {row!r}")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"not a name: {value!r}")
    return value


def _counts(good: object, bad: object) -> tuple[float, float]:
    counts = _upto(_FULL, good), _upto(_FULL, bad)
    if sum(counts) > _FULL:
        raise ValueError(f"more than can be counted: {counts!r}")
    return counts


def _upto(top: float, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= top:
        raise ValueError(f"not a number from 0 to {top:g}: {value!r}")
    return float(value)
