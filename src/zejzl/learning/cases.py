"""Cases that may go on: their events in order, until they close.

    (first event) ──▶ open ──(terminal event | idle | too many open | too long)──▶ closed

Order is (time, arrival). A closed case takes no event: what comes later is late. Of closed cases
the last ones are remembered by name, 25,000 at least; an event of one that is forgotten opens a
new case.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from zejzl.learning.eventlog import Token
from zejzl.learning.patterns import Case

if TYPE_CHECKING:
    from zejzl.learning.standing import Group

LENGTH = 10_000  # events of a case
HELD = 1_000_000  # events of all open cases
REMEMBERED = 25_000  # closed cases, in each of two generations


class OpenCase:
    """One conversation so far. `steps` is flat: time in µs, token, mark, and again.

    `group`, `counted` and `was` are how the last report counted it (`standing`): among which
    cases, how long `steps` were, and the times of its events where these are no longer the first.
    """

    __slots__ = ("case", "counted", "group", "ids", "steps", "task", "task_at", "was")

    def __init__(self, case: Case) -> None:
        self.case = case
        self.steps: list[int | Token] = []
        self.ids: set[str] | None = None
        self.task: str | None = None
        self.task_at = 0
        self.group: Group | None = None
        self.counted = 0
        self.was: list[int] | None = None

    def add(self, at: int, token: Token, mark: int | str) -> bool:
        """Put an event in its place; False: it is a duplicate, and nothing was done."""
        if isinstance(mark, str):
            if self.ids is None:
                self.ids = set()
            elif mark in self.ids:
                return False
            self.ids.add(mark)
            mark = -1  # equal to no checksum
        steps = self.steps
        if not steps or steps[-3] < at:  # type: ignore[operator]
            steps += (at, token, mark)
            return True
        times = self.times()
        end = bisect_right(times, at)
        if mark != -1:
            for place in range(3 * bisect_left(times, at), 3 * end, 3):
                if steps[place + 1] is token and steps[place + 2] == mark:
                    return False
        self._insert(3 * end, at, token, mark)
        return True

    def _insert(self, place: int, at: int, token: Token, mark: int) -> None:
        if place < self.counted and self.was is None:
            self.was = self.counted_times()
        self.steps[place:place] = (at, token, mark)

    def counted_times(self) -> list[int]:
        """Return when its events were, of those that the last report counted."""
        return self.steps[0 : self.counted : 3] if self.was is None else self.was  # type: ignore

    def absorb(self, other: "OpenCase", tokens: Mapping[Token, Token]) -> int:
        """Put another one's events in, translated by `tokens`; return how many."""
        before = len(self.steps)
        steps = other.steps
        for at, token, mark in zip(steps[0::3], steps[1::3], steps[2::3], strict=True):
            end = 3 * bisect_right(self.times(), at)  # type: ignore[type-var]
            self._insert(end, at, tokens[token], mark)  # type: ignore[index, arg-type]
        if other.ids:
            self.ids = (self.ids or set()) | other.ids
        if other.task is not None:
            self.name_task(other.task_at, other.task)
        return (len(self.steps) - before) // 3

    def name_task(self, at: int, task: str) -> None:
        """Take the task type of the earliest event that names one."""
        if self.task is None or at < self.task_at:
            self.task, self.task_at = task, at

    def times(self) -> list[int]:
        """Return when its events were, in order."""
        return self.steps[0::3]  # type: ignore[return-value]

    def tokens(self) -> list[Token]:
        """Return its events' tokens, in order."""
        return self.steps[1::3]  # type: ignore[return-value]


class Closed:
    """Names of the cases closed last."""

    __slots__ = ("newer", "older")

    def __init__(self) -> None:
        self.newer: set[Case] = set()
        self.older: set[Case] = set()

    def __contains__(self, case: Case) -> bool:
        return case in self.newer or case in self.older

    def merge(self, other: "Closed") -> None:
        """Remember another one's cases too."""
        self.older = self.older | other.older
        self.newer = self.newer | other.newer

    def add_all(self, cases: list[Case]) -> None:
        """Remember cases, in this order."""
        if len(self.newer) + len(cases) <= REMEMBERED:
            self.newer.update(cases)
        else:
            for case in cases:
                self.add(case)

    def add(self, case: Case) -> None:
        """Remember a case; beyond two generations the elder is forgotten."""
        if len(self.newer) >= REMEMBERED:
            self.older = self.newer
            self.newer = set()
        self.newer.add(case)


Open = OrderedDict[Case, OpenCase]
