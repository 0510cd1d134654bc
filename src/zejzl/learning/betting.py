"""Bets on the arm, given the outcome: evidence that may be looked at after every observation.

An e-value is what a gambler's money has become who bets at fair odds. Here he is shown an outcome
and bets on the arm that it is of. A hash has drawn that arm, by shares that are known, before
anything happened. So if the arms are alike, the outcome says nothing of it, and the shares are fair
odds: whatever outcomes depend on, on each other, on an outage that hits everybody, on a world that
changes. He reaches 20 in at most one of 20 drawings, however often he looks and whenever he stops.

With p_t and p_c how likely each arm made this outcome so far (Beta(½, ½) mixtures), and p_m their
mean, weighted by the shares, the chance that it is of the treatment is share · p_t / p_m; its odds
pay 1 / share. So an outcome of an arm multiplies the money by

    p_arm(outcome) / p_m(outcome)

Alike means that the arm of a conversation changes nothing, neither what comes of it nor of others.
One outcome of each may count: a second one of the same conversation has no arm drawn for it.

Pure. The test is the design's alone, as in R. A. Fisher, "The Design of Experiments", 1935; to bet
is after G. Shafer, "Testing by betting", 2021, and that one may stop at any time J. Ville's, 1939.
Randomised trials are monitored by such bets in F. G. Zampieri, "Sequential Randomization Tests
Using e-values", arXiv:2512.04366, with stakes of another kind.
"""

from collections.abc import Sequence
from math import exp, log
from typing import cast

from zejzl.learning.evidence import Fields, as_number
from zejzl.learning.sketch import MICROSECONDS, Sketch

FEW = 20  # first values of each arm, whose quantile a rail is about
_MOST_COUNT = 10**15  # more outcomes than anybody has


class Bet:
    """Money that grows where two arms differ in how often something happens.

    Args:
        share: Of the first arm, above 0 and below 1: how likely a conversation was to get it.

    Attributes:
        counts: Of each arm, how often it happened, and how often not.
    """

    def __init__(self, share: float) -> None:
        self.counts = [[0, 0], [0, 0]]
        self._share = share
        self._ln = 0.0

    @property
    def e_value(self) -> float:
        """The money; it began with 1."""
        return exp(min(self._ln, 700.0))

    @property
    def shares(self) -> tuple[float, float]:
        """How often it happened, in each arm; 0 where nothing was seen."""
        first, second = (yes / (yes + no) if yes + no else 0.0 for yes, no in self.counts)
        return (first, second)

    def see(self, arm: int, happened: bool) -> None:
        """Take in an outcome of one arm, 0 or 1: bet on the arm by what was seen before."""
        first, second = ((row[not happened] + 0.5) / (sum(row) + 1) for row in self.counts)
        mean = self._share * first + (1 - self._share) * second
        self._ln += log((second if arm else first) / mean)
        self.counts[arm][not happened] += 1

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        return {"ln": self._ln, "counts": [list(row) for row in self.counts]}

    def load(self, body: object) -> None:
        """Become what `to_json` wrote.

        Raises:
            ValueError: If it is none.
        """
        read = Fields(body, "bet", version=None)
        rows = [list(_pair(row)) for row in _pair(read.body.get("counts"))]
        if any(type(n) is not int or not 0 <= n <= _MOST_COUNT for row in rows for n in row):
            raise ValueError(f"not counts: {rows!r:.60}")
        self._ln = float(read.number("ln"))
        self.counts = cast(list[list[int]], rows)


class Rail:
    """Amounts, such as seconds, and a bet on whether one arm's are large more often.

    Large is what exceeds a quantile of the first amounts of that arm where these are smaller: what
    lies between two arms that are far apart tells them best. That limit stands before the first
    bet, so that the arm of what is bet on has no part in it.

    Args:
        share: Of the first arm, as for the bet.
        quantile: From 0 to 1.
        unit: How many of the amounts make one second of a sketch, whose buckets begin at 1 ms.

    Attributes:
        limit: What is large; None until both arms have 20 amounts.
    """

    def __init__(self, share: float, quantile: float, unit: float = 1.0) -> None:
        self.bet = Bet(share)
        self.limit: float | None = None
        self._sketches = (Sketch(), Sketch())
        self._quantile = quantile
        self._unit = unit
        self._first: tuple[list[float], list[float]] = ([], [])

    def see(self, arm: int, amount: float) -> None:
        """Take in an amount of one arm, 0 or 1."""
        self._sketches[arm].add(round(max(0.0, amount) / self._unit * MICROSECONDS))
        if self.limit is not None:
            self.bet.see(arm, amount > self.limit)
        elif len(self._first[arm]) < FEW:
            self._first[arm].append(amount)
            self._limit()

    def _limit(self) -> None:
        """Choose what is large, if there is enough to choose it by."""
        if all(len(each) == FEW for each in self._first):
            self.limit = min(sorted(each)[int(self._quantile * FEW) - 1] for each in self._first)

    def mean(self, arm: int) -> float | None:
        """Return the mean amount of an arm; None where there is none."""
        sketch = self._sketches[arm]
        n = sum(sketch.counts.values())
        return sketch.total / MICROSECONDS / n * self._unit if n else None

    def p95(self, arm: int) -> float | None:
        """Return the amount that 95 % of an arm's do not exceed; None where there is none."""
        times = self._sketches[arm].times()
        return times.p95_s * self._unit if times.n else None

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        return {
            "bet": self.bet.to_json(),
            "sketches": [sketch.to_json() for sketch in self._sketches],
            "first": [list(each) for each in self._first],
        }

    def load(self, body: object) -> None:
        """Become what `to_json` wrote.

        Raises:
            ValueError: If it is none.
        """
        read = Fields(body, "rail", version=None)
        one, other = _pair(read.body.get("sketches"))
        first, second = (
            [as_number(value, "first") for value in _list(each)]
            for each in _pair(read.body.get("first"))
        )
        self.bet.load(read.body.get("bet"))
        self._sketches = (Sketch.from_json(one), Sketch.from_json(other))
        self._first = (first, second)
        self._limit()
        if self.limit is None and (
            max(map(len, self._first)) > FEW or any(map(any, self.bet.counts))
        ):
            raise ValueError("not a rail: it bets without a limit")


def _list(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        raise ValueError(f"not a list: {value!r:.40}")
    return value


def _pair(value: object) -> tuple[object, object]:
    if len(_list(value)) != 2:
        raise ValueError(f"not a pair: {value!r:.40}")
    first, second = _list(value)
    return (first, second)
