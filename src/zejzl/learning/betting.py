"""Bets against "both arms are alike": evidence that may be looked at after every observation.

An e-value is what a gambler's money has become who bets at fair odds. If the arms are alike he
reaches 20 at most once in 20 worlds, however often he looks and whenever he stops. A block is one
outcome of each arm, or several of the larger one. With a and b the arms' estimates from the blocks
before (Beta(½, ½) mixtures) and m their mean, weighted by the sizes, a block multiplies it by

    p_a(outcome) · p_b(outcome) / (p_m(outcome) · p_m(outcome))

The guarantee is about outcomes that are independent of each other.

Pure. Sources: Turner, Ly & Grünwald, "Generic E-variables for exact sequential k-sample tests that
allow for optional stopping", 2021 (blocks of any sizes); Ville, 1939.
"""

from collections.abc import Sequence
from math import exp, log
from typing import cast

from zejzl.learning.evidence import Fields, as_number
from zejzl.learning.sketch import MICROSECONDS, Sketch

FEW = 20  # first values of each arm, whose quantile a rail is about

Sizes = tuple[int, int]


class Bet:
    """Money that grows where two arms differ in how often something happens.

    Args:
        sizes: Outcomes of each arm in a block: 1 and 1 where they are equally large.

    Attributes:
        totals: Of each arm, how often it happened, and how often not.
    """

    def __init__(self, sizes: Sizes) -> None:
        self.totals = [[0, 0], [0, 0]]
        self._sizes = sizes
        self._waiting: tuple[list[bool], list[bool]] = ([], [])
        self._counts = [[0, 0], [0, 0]]  # as the totals, in whole blocks
        self._ln = 0.0

    @property
    def e_value(self) -> float:
        """The money; it began with 1."""
        return exp(min(self._ln, 700.0))

    @property
    def shares(self) -> tuple[float, float]:
        """How often it happened, in each arm; 0 where nothing was seen."""
        first, second = (yes / (yes + no) if yes + no else 0.0 for yes, no in self.totals)
        return (first, second)

    def see(self, arm: int, happened: bool) -> None:
        """Take in an outcome of one arm, 0 or 1."""
        self.totals[arm][not happened] += 1
        self._waiting[arm].append(happened)
        while all(len(self._waiting[each]) >= self._sizes[each] for each in (0, 1)):
            self._settle()

    def _settle(self) -> None:
        """Multiply the money by what the next block gives."""
        estimates = [(yes + 0.5) / (yes + no + 1) for yes, no in self._counts]
        sizes = self._sizes
        mean = (sizes[0] * estimates[0] + sizes[1] * estimates[1]) / sum(sizes)
        for arm, own in enumerate(estimates):
            for happened in self._waiting[arm][: sizes[arm]]:
                self._ln += log(own / mean if happened else (1 - own) / (1 - mean))
                self._counts[arm][not happened] += 1
            del self._waiting[arm][: sizes[arm]]

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        words = ["".join("01"[each] for each in waiting) for waiting in self._waiting]
        counts, totals = ([list(row) for row in rows] for rows in (self._counts, self.totals))
        return {"ln": self._ln, "counts": counts, "totals": totals, "waiting": words}

    def load(self, body: object) -> None:
        """Become what `to_json` wrote.

        Raises:
            ValueError: If it is none.
        """
        read = Fields(body, "bet", version=None)
        first, second = (
            [sign == "1" for sign in str(word)] for word in _pair(read.body.get("waiting"))
        )
        counts, totals = _square(read.body.get("counts")), _square(read.body.get("totals"))
        self._ln = read.number("ln")
        self._counts, self.totals, self._waiting = counts, totals, (first, second)


def _square(value: object) -> list[list[int]]:
    rows = [list(_pair(row)) for row in _pair(value)]
    if any(type(n) is not int or n < 0 for row in rows for n in row):
        raise ValueError(f"not counts: {value!r:.40}")
    return cast(list[list[int]], rows)


class Rail:
    """Amounts, such as seconds, and a bet on whether one arm's are large more often.

    Large is what exceeds a quantile of the first amounts of that arm where these are smaller: what
    lies between two arms that are far apart tells them best.

    Args:
        sizes: Of a block, as for the bet.
        quantile: From 0 to 1.
        unit: How many of the amounts make one second of a sketch, whose buckets begin at 1 ms.

    Attributes:
        limit: What is large; None until both arms have 20 amounts.
    """

    def __init__(self, sizes: Sizes, quantile: float, unit: float = 1.0) -> None:
        self.bet = Bet(sizes)
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
            return
        if len(self._first[arm]) < FEW:
            self._first[arm].append(amount)
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
            "limit": self.limit,
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
        self.limit = read.maybe_number("limit")
        self._sketches = (Sketch.from_json(one), Sketch.from_json(other))
        self._first = (first, second)


def _list(value: object) -> Sequence[object]:
    if not isinstance(value, Sequence):
        raise ValueError(f"not a list: {value!r:.40}")
    return value


def _pair(value: object) -> tuple[object, object]:
    if len(_list(value)) != 2:
        raise ValueError(f"not a pair: {value!r:.40}")
    first, second = _list(value)
    return (first, second)
