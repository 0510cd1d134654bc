"""Fourteen load scenarios and a total outage: three providers A > B > C, 40 requests a second.

    python bench/storms.py [--seeds 1,2] [--only NAME ...] [--scale 1] [--json] [--no-peer]

Each storm runs 25 seconds of virtual time on every seed, over real sockets against fault servers
of its own, once for the bus and once for the bare openai SDK, which has the same arrivals and the
same script but knows A alone. Figures are the worst of the seeds. What they mean, and that they
hold no CPU time: `storm_run.py`. The storms and their limits: `storm_scenarios.py`.

Exit code 1 when a limit is missed. `--scale 20` makes every time, limit and pause twenty times
longer, requests come twenty times more slowly.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from machine import print_machine
from storm_run import Figures, Scenario, measure
from storm_scenarios import ALL_DOWN, LEAST, MOST, SCENARIOS

USUAL = ("ok2 %", "wrong", "p50 ms", "p95 ms", "p99 ms", "ampl")  # columns of every row


@dataclass(frozen=True, slots=True)
class Row:
    """A storm's figures, each the worst of the seeds.

    Attributes:
        missed: The limits that did not hold, in words.
    """

    scenario: Scenario
    ours: Figures
    peer: Figures | None
    missed: tuple[str, ...]


def limits(scenario: Scenario, scale: float) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Return what figures may be at most and must be at least, the gate's among them."""
    gated = scenario.name != ALL_DOWN
    most = {
        name: limit * (scale if name.endswith((" s", " ms")) else 1.0)
        for name, limit in {**(MOST if gated else {}), **scenario.most}.items()
    }
    return most, {**(LEAST if gated else {}), **scenario.least}


def missed(scenario: Scenario, figures: Figures, scale: float = 1.0) -> tuple[str, ...]:
    """Return the limits that `figures` do not keep."""
    most, least = limits(scenario, scale)
    return (
        *(f"{n} {shown(figures[n])} > {shown(x)}" for n, x in most.items() if figures[n] > x),
        *(f"{n} {shown(figures[n])} < {shown(x)}" for n, x in least.items() if figures[n] < x),
    )


def worst(scenario: Scenario, runs: Sequence[Figures]) -> Figures:
    good_when_high = {"ok %", *LEAST, *scenario.least}
    return {
        name: (min if name in good_when_high else max)(run[name] for run in runs)
        for name in runs[0]
    }


def rows(
    chosen: Sequence[Scenario], seeds: Sequence[int], scale: float, *, peer: bool
) -> Iterator[Row]:
    """Yield a row for each storm, in order; the runs take turns on all cores."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:

        def started(at: int, client: str) -> list[Future[Figures]]:
            return [pool.submit(run, at, client, seed, scale) for seed in seeds]

        under_way = [
            (
                scenario,
                started(SCENARIOS.index(scenario), "bus"),
                started(SCENARIOS.index(scenario), "sdk") if peer and scenario.peer else [],
            )
            for scenario in chosen
        ]
        for scenario, ours, theirs in under_way:
            figures = worst(scenario, [each.result() for each in ours])
            beside = worst(scenario, [each.result() for each in theirs]) if theirs else None
            yield Row(scenario, figures, beside, missed(scenario, figures, scale))


def run(at: int, client: str, seed: int, scale: float) -> Figures:
    """Measure one storm, told by its place: its functions do not travel to another process."""
    return measure(SCENARIOS[at], client, seed, scale)


def shown(figure: float) -> str:
    return f"{figure:.0f}" if figure == int(figure) or figure >= 100 else f"{figure:.4g}"


def title(scenario: Scenario) -> str:
    return f"{scenario.name}: {scenario.variant}" if scenario.variant else scenario.name


def line(name: str, figures: Figures, verdict: str) -> str:
    usual = " ".join(f"{shown(figures[each]):>6}" for each in USUAL)
    own = "  ".join(
        f"{name} {shown(figure)}" for name, figure in figures.items() if name not in USUAL
    )
    return f"{name:<46} {usual}  {verdict:<5} {own}"


def print_row(row: Row, scale: float) -> None:
    scenario = row.scenario
    most, least = limits(scenario, scale)
    wanted = [f"{name} ≤ {shown(limit)}" for name, limit in most.items()]
    wanted += [f"{name} ≥ {shown(limit)}" for name, limit in least.items()]
    verdict = ("MISS" if row.missed else "pass") if scenario.scored else "info"
    print(line(title(scenario), row.ours, verdict))
    if row.peer is not None:
        print(line("    openai SDK, A alone", row.peer, ""))
    print(f"    wanted: {', '.join(wanted)}")
    if row.missed:
        print(f"    missed: {', '.join(row.missed)}")
    sys.stdout.flush()


def verdicts(found: Sequence[Row]) -> dict[str, bool]:
    """Return for each scenario whether all its scored readings kept their limits."""
    passed: dict[str, bool] = {}
    for row in found:
        if row.scenario.scored:
            name = row.scenario.name
            passed[name] = passed.get(name, True) and not row.missed
    return passed


def asked_for(names: Sequence[str]) -> list[Scenario]:
    return [
        each
        for each in SCENARIOS
        if not names or any(name.lower() in title(each).lower() for name in names)
    ]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--seeds", default="1,2", help="comma-separated")
    arguments.add_argument("--only", nargs="+", default=[], metavar="NAME", help="part of a name")
    arguments.add_argument("--scale", type=float, default=1.0)
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--no-peer", action="store_true")
    given = arguments.parse_args()
    seeds = [int(seed) for seed in given.seeds.split(",")]
    chosen = asked_for(given.only)
    if not chosen:
        arguments.error(f"no storm of that name; known: {', '.join(map(title, SCENARIOS))}")
    found = []
    if not given.json:
        print_machine()
        print(f"{'':<46} {' '.join(f'{each:>6}' for each in USUAL)}")
    for row in rows(chosen, seeds, given.scale, peer=not given.no_peer):
        found.append(row)
        if not given.json:
            print_row(row, given.scale)
    passed = verdicts(found)
    outage = passed.pop(ALL_DOWN, None)
    if given.json:
        print(json.dumps([as_json(row) for row in found], indent=2))
    else:
        print(f"\n{sum(passed.values())} of {len(passed)}", end="")
        print("" if outage is None else f", {ALL_DOWN}: {'pass' if outage else 'MISS'}")
    return 0 if all(passed.values()) and outage is not False else 1


def as_json(row: Row) -> dict[str, object]:
    return {
        "scenario": title(row.scenario),
        "scored": row.scenario.scored,
        "ours": row.ours,
        "peer": row.peer,
        "missed": row.missed,
    }


if __name__ == "__main__":
    sys.exit(main())
