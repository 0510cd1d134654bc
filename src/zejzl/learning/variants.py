"""What cases have in common: variants, edges, rework, loops, features; counted per way they went.

Cases whose tokens are the same differ in nothing but times. So a case adds one to its profile, and
its times to the sketches; what all cases of a profile share is worked out once, when profiles are
settled: before a report, or when there are too many. Durations and counts are whole numbers, and
exemplars are chosen by rule: the order in which cases come changes nothing.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain, pairwise
from operator import sub
from typing import TypeVar

from zejzl.learning.eventlog import OTHERS, Token
from zejzl.learning.exemplars import MOST, Kept, keep, keep_all
from zejzl.learning.outcome import FAILURE, OutcomeRule, decide
from zejzl.learning.patterns import Case
from zejzl.learning.sketch import EDGES, Sketch

VARIANTS = 50_000
STEPS = 2_000_000  # activities in all variants together
PROFILES = 4_096
TOUCHED = 256  # profiles after which all are settled, so that a report finds few
NEVER = -(10**18)  # µs; before all times that can be read
ROOM = 50_000  # edges by agent, features, loops: of each

Ends = list[int]  # cases by outcome code
Key = tuple[str | Token | None, ...]  # task type, then tokens

K = TypeVar("K")
V = TypeVar("V")


class Way:
    """The cases of one variant."""

    __slots__ = ("ends", "firsts", "last", "took")

    def __init__(self) -> None:
        self.last = NEVER
        self.ends: Ends = [0, 0, 0]
        self.took = Sketch()
        self.firsts: Kept = []


class Link:
    """One activity after another, by one agent."""

    __slots__ = ("slowest", "took")

    def __init__(self) -> None:
        self.took = Sketch()
        self.slowest: Kept = []  # by minus the duration


class Repeat:
    """Rework or a loop: how often, in how many cases."""

    __slots__ = ("cases", "firsts", "n")

    def __init__(self) -> None:
        self.n = 0
        self.cases = 0
        self.firsts: Kept = []


class Trait:
    """A feature: how cases that had it ended, by task type."""

    __slots__ = ("ends", "failed")

    def __init__(self) -> None:
        self.ends: dict[str | None, Ends] = {}
        self.failed: Kept = []


class Facts:
    """What follows from a task type and tokens alone."""

    __slots__ = ("activities", "features", "loops", "outcome", "rework", "task")

    def __init__(self, rule: OutcomeRule | None, key: Key) -> None:
        self.task: str | None = key[0]  # type: ignore[assignment]
        tokens: tuple[Token, ...] = key[1:]  # type: ignore[assignment]
        self.activities = tuple([token.activity for token in tokens])
        choose = decide if rule is None else rule.decide
        self.outcome, cut = choose(self.activities, [token.vote for token in tokens])
        self.rework = [(name, n - 1) for name, n in Counter(self.activities).items() if n > 1]
        self.loops = [*Counter(_loops(self.activities)).items()]
        self.features = _features(self.task, self.activities[:cut], tokens[:cut])


class Shared:
    """Where the cases of one profile are counted: the same for all of them."""

    __slots__ = ("activities", "ends", "loops", "outcome", "rework", "traits", "way")

    def __init__(self, facts: Facts, way: Way | None) -> None:
        self.outcome = facts.outcome
        self.activities = tuple(dict.fromkeys(facts.activities))
        self.way = way
        self.ends: list[Ends] = []
        self.rework: list[tuple[Repeat, int]] = []
        self.loops: list[tuple[Repeat, int]] = []
        self.traits: list[Trait] = []  # only of those that failed, for exemplars


class Counted:
    """Cases that differ in nothing but times."""

    __slots__ = ("firsts", "last", "n", "took")

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin at nothing."""
        self.n = 0
        self.last = NEVER
        self.took = Sketch()
        self.firsts: Kept = []


class Profile(Counted):
    """Cases with the same tokens and task type, since they were settled last."""

    __slots__ = ("links", "shared")

    def __init__(self, links: list[Link]) -> None:
        super().__init__()
        self.links = links
        self.shared: Shared | None = None


class Tally:
    """Counts over cases."""

    def __init__(self, rule: OutcomeRule | None = None, variants: int = VARIANTS) -> None:
        self.rule = rule
        self.most = variants
        self.ways: dict[tuple[str, ...], Way] = {}
        self.steps = 0
        self.others = 0
        self.took = Sketch()
        self.tasks: dict[str | None, Ends] = {}
        self.cases: dict[str, int] = {}
        self.links: dict[tuple[str, str, str | None], Link] = {}
        self.rework: dict[str, Repeat] = {}
        self.loops: dict[tuple[str, str], Repeat] = {}
        self.traits: dict[tuple[str, tuple[str, ...]], Trait] = {}
        self._profiles: dict[Key, Profile] = {}
        self._touched: list[tuple[Key, Profile]] = []  # since they were settled last

    def add(self, case: Case, task: str | None, times: list[int], tokens: list[Token]) -> None:
        """Count a case: its events' times and tokens, in order."""
        profile = self.enter(case, (task, *tokens), times[0], times[-1])
        for link, duration in zip(profile.links, map(sub, times[1:], times), strict=True):
            took = link.took  # as in Sketch.add: this is where the time goes
            counts = took.counts
            bucket = bisect_right(EDGES, duration)
            counts[bucket] = counts.get(bucket, 0) + 1
            took.total += duration
            slowest = link.slowest
            if len(slowest) < MOST or -duration <= slowest[-1][0]:
                keep(slowest, -duration, case)

    def enter(self, case: Case, key: Key, start: int, end: int) -> Profile:
        """Count a case, save for its edges, and return its profile."""
        profile = self.touch(key)
        profile.n += 1
        profile.took.add(end - start)
        if end > profile.last:
            profile.last = end
        firsts = profile.firsts
        if len(firsts) < MOST or start <= firsts[-1][0]:
            keep(firsts, start, case)
        return profile

    def touch(self, key: Key) -> Profile:
        """Return the profile of a task type and tokens, in which cases are now counted."""
        profile = self.profile(key)
        if not profile.n:
            if len(self._touched) >= TOUCHED:
                self.settle()
            self._touched.append((key, profile))
        return profile

    def profile(self, key: Key) -> Profile:
        """Return the profile of a task type and tokens."""
        found = self._profiles.get(key)
        if found is None:
            if len(self._profiles) >= PROFILES:
                self.settle()
                self._profiles.clear()
            tokens: tuple[Token, ...] = key[1:]  # type: ignore[assignment]
            links = [
                self.link(before.activity, after.activity, after.agent)
                for before, after in pairwise(tokens)
            ]
            found = self._profiles[key] = Profile(links)
        return found

    def link(self, source: str, target: str, agent: str | None) -> Link:
        return row(self.links, (source, target, agent), (OTHERS, OTHERS, None), Link)

    def settle(self) -> None:
        """Count what the cases of each profile share."""
        for key, profile in self._touched:
            if profile.shared is None:
                profile.shared = self._shared(Facts(self.rule, key))
            self._settle(profile, profile.shared)
            profile.renew()
        self._touched.clear()

    def add_counted(self, facts: Facts, cases: Counted) -> None:
        """Add cases of one task type and tokens, save for their edges."""
        self._settle(cases, self._shared(facts))

    def add_link(self, key: tuple[str, str, str | None], link: Link) -> None:
        """Add what was counted of an edge."""
        own = self.link(*key)
        own.took.merge(link.took)
        keep_all(own.slowest, link.slowest)

    def _shared(self, facts: Facts) -> Shared:
        shared = Shared(facts, self.way(facts.activities))
        task = facts.task
        shared.ends.append(self.tasks.setdefault(task, [0, 0, 0]))
        for activity, times in facts.rework:
            shared.rework.append((self.rework.setdefault(activity, Repeat()), times))
        for pair, times in facts.loops:
            loop = row(self.loops, pair, (OTHERS, OTHERS), Repeat)
            shared.loops.append((loop, times))
        traits = [
            row(self.traits, name, (name[0], (OTHERS,) * len(name[1])), Trait)
            for name in facts.features
        ]
        shared.ends += [trait.ends.setdefault(task, [0, 0, 0]) for trait in traits]
        shared.traits = traits if shared.outcome == FAILURE else []
        return shared

    def _settle(self, cases: Counted, shared: Shared) -> None:
        n, firsts = cases.n, cases.firsts
        self.took.merge(cases.took)
        for ends in shared.ends:
            ends[shared.outcome] += n
        for activity in shared.activities:
            self.cases[activity] = self.cases.get(activity, 0) + n
        way = shared.way
        if way is None:
            self.others += n
        else:
            way.ends[shared.outcome] += n
            way.took.merge(cases.took)
            way.last = max(way.last, cases.last)
            keep_all(way.firsts, firsts)
        for again, times in chain(shared.rework, shared.loops):
            _count(again, times, n, firsts)
        for trait in shared.traits:
            keep_all(trait.failed, firsts)

    def way(self, activities: tuple[str, ...]) -> Way | None:
        """Return the variant of these activities; None beyond the most that are kept."""
        way = self.ways.get(activities)
        if way is None:
            if len(self.ways) >= self.most or self.steps + len(activities) > STEPS:
                return None
            self.steps += len(activities)
            way = self.ways[activities] = Way()
        return way

    def merge(self, other: "Tally") -> None:
        """Add what another tally counted; it is settled by this, and else unchanged."""
        self.settle()
        other.settle()
        self.took.merge(other.took)
        self.others += other.others
        _add_ends(self.tasks, other.tasks)
        for activity, n in other.cases.items():
            self.cases[activity] = self.cases.get(activity, 0) + n
        for sequence, theirs in other.ways.items():
            way = self.way(sequence)
            if way is None:
                self.others += sum(theirs.ends)
                continue
            for code, n in enumerate(theirs.ends):
                way.ends[code] += n
            way.took.merge(theirs.took)
            way.last = max(way.last, theirs.last)
            keep_all(way.firsts, theirs.firsts)
        for key, link in other.links.items():
            self.add_link(key, link)
        for activity, rework in other.rework.items():
            _add(self.rework.setdefault(activity, Repeat()), rework)
        for pair, loop in other.loops.items():
            _add(row(self.loops, pair, (OTHERS, OTHERS), Repeat), loop)
        for name, trait in other.traits.items():
            mine = row(self.traits, name, (name[0], (OTHERS,) * len(name[1])), Trait)
            _add_ends(mine.ends, trait.ends)
            keep_all(mine.failed, trait.failed)


def row(table: dict[K, V], key: K, other: K, make: Callable[[], V]) -> V:
    """Return a row of a table; the one for all others where there is no room for a new one."""
    found = table.get(key)
    if found is None:
        if len(table) >= ROOM:
            key = other
        found = table.setdefault(key, make())
    return found


def _count(repeat: Repeat, times: int, cases: int, firsts: Kept) -> None:
    repeat.n += times * cases
    repeat.cases += cases
    keep_all(repeat.firsts, firsts)


def _add(repeat: Repeat, other: Repeat) -> None:
    repeat.n += other.n
    repeat.cases += other.cases
    keep_all(repeat.firsts, other.firsts)


def _add_ends(ends: dict[str | None, Ends], others: dict[str | None, Ends]) -> None:
    for task, counts in others.items():
        own = ends.setdefault(task, [0, 0, 0])
        for code, n in enumerate(counts):
            own[code] += n


def _loops(activities: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    """Yield (A, B) for each A, B, A."""
    for first, second, third in zip(activities, activities[1:], activities[2:], strict=False):
        if first == third != second:
            yield first, second


def _features(
    task: str | None, activities: tuple[str, ...], tokens: tuple[Token, ...]
) -> set[tuple[str, tuple[str, ...]]]:
    """Return what a case had before its outcome was known."""
    names: set[tuple[str, tuple[str, ...]]] = {("activity", (name,)) for name in activities}
    names |= {("edge", pair) for pair in pairwise(activities)}
    names |= {("rework", (name,)) for name, n in Counter(activities).items() if n > 1}
    names |= {("agent", (token.agent,)) for token in tokens if token.agent is not None}
    if task is not None:
        names.add(("task_type", (task,)))
    return names
