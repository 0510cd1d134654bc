"""What learned preferences are worth: healing with hidden odds that change at half time.

    python bench/preferences.py [SEEDS]

A world has 8 failure classes, 8 components and 6 remedies. Each remedy has a hidden success rate
(even between 0.05 and 0.95 for a class; a component's own lies about it, σ 0.1) and a mean cost
(0.02 to 0.30; σ 0.03; an attempt takes 0.5 to 1.5 times it). An incident strikes a component with
a failure at random; the best remedy is tried, on failure the next best, at most 3. At half time
every class gets new odds and another best remedy. Runbooks are right (best first, by the mean of
the components), reversed, or random; all of them are equally common in a total.

The reward of an incident is what is to be expected of the remedies chosen: 1 if it is healed, less
the costs. The oracle goes by the hidden odds in the same way, best p − c first. (It is not the last
word: the best three remedies in the best order, found by trying all, is printed beside it.) The
seed's scheme adds 0.1 for a success and takes 0.05 for a failure from a preference; here it has
one for each remedy, component and class, the kindest reading. All schemes meet the same incidents.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from random import Random
from statistics import fmean
from typing import Protocol

from machine import print_machine

from zejzl.policies.preferences import Preferences

REMEDIES = tuple(f"remedy{number}" for number in range(6))
PLACES = tuple((f"component{c}", f"class{f}") for f in range(8) for c in range(8))
KINDS = tuple(dict.fromkeys(kind for _, kind in PLACES))
INCIDENTS, HALF, LEARNED, TRIES = 4_000, 2_000, 1_000, 3
SHARE_GOAL, BACK, BACK_GOAL, REGRET_GOAL = 0.97, 0.9, 25, 0.85

Place = tuple[str, str]
Runbook = dict[str, list[str]]


class Scheme(Protocol):
    def order(self, component: str, kind: str, candidates: Sequence[str], /) -> list[str]: ...

    def learn(
        self, component: str, kind: str, remedy: str, /, *, success: bool, cost: float
    ) -> object: ...


@dataclass
class SeedScheme:
    preference: dict[tuple[str, str, str], float] = field(default_factory=dict)

    def order(self, component: str, kind: str, candidates: Sequence[str]) -> list[str]:
        return sorted(candidates, key=lambda it: -self.preference.get((component, kind, it), 0.0))

    def learn(self, component: str, kind: str, remedy: str, *, success: bool, cost: float) -> None:
        place = component, kind, remedy
        self.preference[place] = self.preference.get(place, 0.0) + (0.1 if success else -0.05)


class FixedRunbook:
    def order(self, component: str, kind: str, candidates: Sequence[str]) -> list[str]:
        return [*candidates]

    def learn(self, component: str, kind: str, remedy: str, *, success: bool, cost: float) -> None:
        pass


class Odds:
    """The hidden rates and costs of one half, and what can be had with them."""

    def __init__(self, rng: Random) -> None:
        self.hidden: dict[Place, dict[str, tuple[float, float]]] = {place: {} for place in PLACES}
        for kind in KINDS:
            for remedy in REMEDIES:
                rate, cost = rng.uniform(0.05, 0.95), rng.uniform(0.02, 0.30)
                for place in PLACES:
                    if place[1] == kind:
                        near = min(0.98, max(0.02, rng.gauss(rate, 0.1)))
                        self.hidden[place][remedy] = near, max(0.01, rng.gauss(cost, 0.03))
        self.oracle = {
            place: self.reward(place, sorted(REMEDIES, key=self.worth(place))) for place in PLACES
        }

    def worth(self, place: Place) -> Callable[[str], float]:
        """Return a key that sorts the best remedy of the place to the front."""
        odds = self.hidden[place]
        return lambda remedy: odds[remedy][1] - odds[remedy][0]

    def ranking(self, kind: str) -> list[str]:
        """Return the remedies by what they are worth on average over the components."""
        keys = [self.worth(place) for place in PLACES if place[1] == kind]
        return sorted(REMEDIES, key=lambda remedy: fmean(key(remedy) for key in keys))

    def reward(self, place: Place, order: Sequence[str]) -> float:
        """Return what the first three of the order can be expected to bring."""
        reward, reached = 0.0, 1.0
        for remedy in order[:TRIES]:
            rate, cost = self.hidden[place][remedy]
            reward += reached * (rate - cost)
            reached *= 1.0 - rate
        return reward

    def best(self, place: Place) -> float:
        return max(self.reward(place, order) for order in permutations(REMEDIES, TRIES))


@dataclass
class Tally:
    """What a scheme got and what the oracle would have got, in one run or more.

    Attributes:
        got: Reward by incident.
        oracle: The oracle's.
        again: Both, summed, by the number of the incident in its place since half time.
    """

    got: list[float] = field(default_factory=lambda: [0.0] * INCIDENTS)
    oracle: list[float] = field(default_factory=lambda: [0.0] * INCIDENTS)
    again: list[list[float]] = field(default_factory=lambda: [[0.0, 0.0] for _ in range(INCIDENTS)])

    def __iadd__(self, other: "Tally") -> "Tally":
        self.got = [a + b for a, b in zip(self.got, other.got, strict=True)]
        self.oracle = [a + b for a, b in zip(self.oracle, other.oracle, strict=True)]
        for mine, its in zip(self.again, other.again, strict=True):
            mine[:] = mine[0] + its[0], mine[1] + its[1]
        return self

    def share(self, start: int, end: int) -> float:
        return sum(self.got[start:end]) / sum(self.oracle[start:end])

    def back_after(self) -> int | None:
        """Return how many incidents a place needs after the drift to be well for good; None: all.

        Places have about thirty incidents then; what only half of them live to see is left out.
        """
        shares = [got / oracle for got, oracle in self.again if oracle > self.again[0][1] / 2]
        behind = [number for number, share in enumerate(shares) if share < BACK]
        if not behind:
            return 0
        return behind[-1] + 1 if behind[-1] + 1 < len(shares) else None

    @property
    def regret(self) -> float:
        return sum(self.oracle) - sum(self.got)


def runbook_of(kind: str, odds: Odds, rng: Random) -> Runbook:
    match kind:
        case "right":
            return {each: odds.ranking(each) for each in KINDS}
        case "reversed":
            return {each: odds.ranking(each)[::-1] for each in KINDS}
        case _:
            return {each: rng.sample(REMEDIES, len(REMEDIES)) for each in KINDS}


def live(scheme: Scheme, runbook: Runbook, halves: tuple[Odds, Odds], rng: Random) -> Tally:
    tally, seen = Tally(), dict.fromkeys(PLACES, 0)
    for number in range(INCIDENTS):
        odds = halves[number >= HALF]
        place = rng.choice(PLACES)
        fate = {remedy: (rng.random(), rng.uniform(0.5, 1.5)) for remedy in REMEDIES}
        order = scheme.order(*place, runbook[place[1]])
        tally.got[number] = odds.reward(place, order)
        tally.oracle[number] = odds.oracle[place]
        if number >= HALF:
            again = tally.again[seen[place]]
            again[0] += tally.got[number]
            again[1] += tally.oracle[number]
            seen[place] += 1
        for remedy in order[:TRIES]:
            rate, cost = odds.hidden[place][remedy]
            luck, dear = fate[remedy]
            scheme.learn(*place, remedy, success=luck < rate, cost=min(1.0, cost * dear))
            if luck < rate:
                break
    return tally


def world(rng: Random) -> tuple[Odds, Odds]:
    before = Odds(rng)
    while True:
        after = Odds(rng)
        if all(before.ranking(kind)[0] != after.ranking(kind)[0] for kind in KINDS):
            return before, after


def show(name: str, tally: Tally, runs: int) -> None:
    early, late = tally.share(LEARNED, HALF), tally.share(HALF + LEARNED, INCIDENTS)
    back = tally.back_after()
    after = "never" if back is None else str(back)
    print(f"{name:<22}{early:9.3f}{late:11.3f}{after:>11}{tally.regret / runs:9.1f}")


def main() -> int:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    schemes: dict[str, Callable[[Runbook], Scheme]] = {
        "ours": Preferences,
        "the seed's": lambda _: SeedScheme(),
        "the runbook": lambda _: FixedRunbook(),
    }
    runbooks = ("right", "reversed", "random")
    tallies = {(name, kind): Tally() for name in schemes for kind in (*runbooks, "all")}
    oracle = best = 0.0
    for seed in range(seeds):
        halves = world(Random(f"world {seed}"))
        oracle += sum(odds.oracle[place] for odds in halves for place in PLACES)
        best += sum(odds.best(place) for odds in halves for place in PLACES)
        for kind in runbooks:
            runbook = runbook_of(kind, halves[0], Random(f"runbook {seed}"))
            for name, begin in schemes.items():
                lived = live(begin(runbook), runbook, halves, Random(f"{kind} {seed}"))
                tallies[name, kind] += lived
                tallies[name, "all"] += lived
    print_machine()
    print(f"\n{seeds} worlds, {INCIDENTS:,} incidents each, drift after {HALF:,}")
    print(f"the oracle gets {oracle / best:.3f} of what the best three in the best order would")
    print("share: of the oracle's reward, from incident 1,000 of each half on")
    print(f"\n{'scheme, runbook':<22}{'share':>9}{'2nd half':>11}{'90 % after':>11}{'regret':>9}")
    for (name, kind), tally in tallies.items():
        show(f"{name}, {kind}", tally, seeds * len(runbooks) if kind == "all" else seeds)
    ours = tallies["ours", "all"]
    share, back = ours.share(LEARNED, HALF), ours.back_after()
    regret = ours.regret / tallies["the seed's", "all"].regret
    met = [share >= SHARE_GOAL, back is not None and back <= BACK_GOAL, regret <= REGRET_GOAL]
    print(f"\nshare of the oracle's reward after 1,000 incidents  {share:.3f}  goal ≥ {SHARE_GOAL}")
    print(f"incidents in one place until back at 90 % of it     {back!s:>5}  goal ≤ {BACK_GOAL}")
    print(f"total regret over that of the seed's scheme         {regret:.3f}  goal ≤ {REGRET_GOAL}")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
