"""Open cases, counted as they stand, so that a report costs what changed since the last one.

    open ──(report)──▶ counted ──(more events, report)──▶ counted anew ──(closed)──▶ taken out

What is counted here can be taken out again, unlike in a tally. Counts and durations are whole
numbers, so that taking out leaves no trace. Of the smallest few, that exemplars are chosen from, a
reserve is kept; where cases that closed have used it up, it is looked for among the open ones.
"""

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable
from itertools import pairwise, starmap, takewhile
from operator import sub

from zejzl.learning.cases import Open, OpenCase
from zejzl.learning.eventlog import OTHERS, Token
from zejzl.learning.exemplars import MOST, Kept, keep, order
from zejzl.learning.outcome import OutcomeRule
from zejzl.learning.patterns import Case
from zejzl.learning.variants import NEVER, Counted, Facts, Key, Link, Tally, row

RESERVE = 256  # entries of which the smallest three may be taken out, one after another

Entry = tuple[int, bool, str]  # figure and case, as exemplars are sorted


class Least:
    """The smallest of many entries, of which any may be taken out again."""

    __slots__ = ("kept", "whole")

    def __init__(self, entries: Iterable[tuple[int, Case]] = ()) -> None:
        best: dict[Case, int] = {}
        for figure, case in entries:
            best[case] = min(figure, best.get(case, figure))
        self.whole = len(best) <= RESERVE  # nothing was left out
        if not self.whole:
            most = sorted(best.values())[RESERVE - 1]
            best = {case: figure for case, figure in best.items() if figure <= most}
        ordered = sorted(order((figure, case)) for case, figure in best.items())
        self.kept: list[Entry] = ordered[:RESERVE]

    def add(self, figure: int, case: Case) -> None:
        """Put an entry in; beyond the reserve the largest is forgotten."""
        kept = self.kept
        if not self.whole and (not kept or figure > kept[-1][0]):
            return
        insort(kept, order((figure, case)))
        if len(kept) > RESERVE:
            kept.pop()
            self.whole = False

    def remove(self, figure: int, case: Case) -> None:
        """Take an entry out; all those of a case for one thing go together."""
        kept = self.kept
        if kept and figure <= kept[-1][0]:
            entry = order((figure, case))
            place = bisect_left(kept, entry)
            if place < len(kept) and kept[place] == entry:
                del kept[place]

    def first(self) -> Kept | None:
        """Return the smallest of different cases; None where too few are left to tell."""
        found: Kept = []
        for figure, named, name in self.kept:
            keep(found, figure, name if named else None)
            if len(found) == MOST:
                return found
        return found if self.whole else None


class Between(Link):
    """One activity after another, in open cases."""

    __slots__ = ("ranks",)

    def __init__(self) -> None:
        super().__init__()
        self.ranks = Least()  # by minus the duration

    def choose(self) -> bool:
        """Choose the slowest; False: too few are left to tell."""
        first = self.ranks.first()
        self.slowest = first or []
        return first is not None


class Group(Counted):
    """The open cases with the same tokens and task type, as they were counted."""

    __slots__ = ("chosen", "ends", "facts", "links", "starts")

    def __init__(self, facts: Facts, links: list[Between]) -> None:
        super().__init__()
        self.facts = facts
        self.chosen = False  # since it changed last
        self.links = links
        self.starts = Least()
        self.ends = Least()  # by minus the time

    def put_in(self, case: Case, times: list[int]) -> None:
        """Count a case, save for its edges."""
        self.chosen = False
        self.n += 1
        self.took.add(times[-1] - times[0])
        self.starts.add(times[0], case)
        self.ends.add(-times[-1], case)

    def take_out(self, case: Case, times: list[int]) -> None:
        """Count a case no longer, save for its edges."""
        self.chosen = False
        self.n -= 1
        self.took.remove(times[-1] - times[0])
        self.starts.remove(times[0], case)
        self.ends.remove(-times[-1], case)

    def choose(self) -> bool:
        """Choose the exemplars; False: too few are left to tell."""
        if self.chosen:
            return True
        first, last = self.starts.first(), self.ends.first()
        self.firsts = first or []
        self.last = -last[0][0] if last else NEVER
        self.chosen = first is not None and last is not None
        return self.chosen


class Standing:
    """All open cases that have been counted."""

    def __init__(self, rule: OutcomeRule | None) -> None:
        self._rule = rule
        self.groups: dict[Key, Group] = {}
        self.links: dict[tuple[str, str, str | None], Between] = {}
        self.changed: set[OpenCase] = set()  # since they were counted

    def count(self, cases: Open) -> None:
        """Count those cases that are not yet, or have changed."""
        new = takewhile(lambda held: not held.counted, reversed(cases.values()))
        for held in [*new, *self.changed]:
            self._enter(held)
        self.changed.clear()
        self.groups = {key: group for key, group in self.groups.items() if group.n}
        self.links = {key: link for key, link in self.links.items() if link.took.counts}
        self._refill(cases.values())

    def remove(self, held: OpenCase) -> None:
        """Take a case out, as it was counted."""
        group, times = held.group, held.counted_times()
        if group is not None:
            group.take_out(held.case, times)
            _unlink(held.case, group.links, times)
        held.group, held.counted, held.was = None, 0, None
        self.changed.discard(held)

    def add_to(self, tally: Tally) -> None:
        """Add what was counted to a tally."""
        for group in self.groups.values():
            tally.add_counted(group.facts, group)
        for name, link in self.links.items():
            tally.add_link(name, link)

    def _enter(self, held: OpenCase) -> None:
        key: Key = (held.task, *held.tokens())
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = self._group(key)
        case, times = held.case, held.times()
        since = 0  # edges that are counted already
        if held.group is not None:
            # Most cases have only grown; their former edges stay as they are.
            before = held.group.links
            if held.was is None and group.links[: len(before)] == before:
                since = len(before)
                held.group.take_out(case, times[: since + 1])
            else:
                self.remove(held)
        group.put_in(case, times)
        links = group.links[since:]
        for link, duration in zip(links, map(sub, times[since + 1 :], times[since:]), strict=False):
            link.took.add(duration)
            link.ranks.add(-duration, case)
        held.group, held.counted, held.was = group, len(held.steps), None

    def _group(self, key: Key) -> Group:
        return Group(Facts(self._rule, key), [*starmap(self._link, pairwise(key[1:]))])

    def _link(self, before: Token, after: Token) -> Between:
        key = (before.activity, after.activity, after.agent)
        return row(self.links, key, (OTHERS, OTHERS, None), Between)

    def _refill(self, cases: Collection[OpenCase]) -> None:
        """Choose the exemplars; look for them among all cases where a reserve is used up."""
        groups = {group for group in self.groups.values() if not group.choose()}
        links = {link for link in self.links.values() if not link.choose()}
        if not groups and not links:
            return
        starts: dict[Group, list[tuple[int, Case]]] = {group: [] for group in groups}
        ends: dict[Group, list[tuple[int, Case]]] = {group: [] for group in groups}
        took: dict[Between, list[tuple[int, Case]]] = {link: [] for link in links}
        # Where edges are looked for, that may be in any case.
        for held in cases if links else [held for held in cases if held.group in starts]:
            group = held.group
            if group in starts:
                starts[group].append((held.steps[0], held.case))  # type: ignore[arg-type]
                ends[group].append((-held.steps[-3], held.case))  # type: ignore[operator]
            if links and group is not None and not links.isdisjoint(group.links):
                times = held.times()
                for link, duration in zip(group.links, map(sub, times[1:], times), strict=True):
                    if link in links:
                        took[link].append((-duration, held.case))
        for group in groups:
            group.starts, group.ends = Least(starts[group]), Least(ends[group])
            group.choose()
        for link in links:
            link.ranks = Least(took[link])
            link.choose()


def _unlink(case: Case, links: list[Between], times: list[int]) -> None:
    for link, duration in zip(links, map(sub, times[1:], times), strict=True):
        link.took.remove(duration)
        link.ranks.remove(-duration, case)
