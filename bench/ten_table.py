"""Rows of figures with limits: played on all cores, judged, printed.

A row's figures are each the worst of the seeds. Limits named in `most` and `least` decide; figures
without one inform.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from machine import print_machine
from storms import shown
from ten_stage import NEVER, Figures

from zejzl.testing import virtual


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Something to be measured, and what has to come of it.

    Attributes:
        name: What is played; rows of one name pass together.
        variant: Which reading of it.
        play: Plays it with a seed. Another process does: a function of a module, or a `partial`.
        most: Upper limits of figures.
        least: Lower limits.
        scored: Whether its limits decide.
    """

    name: str
    play: Callable[[int], Coroutine[Any, Any, Figures]]
    variant: str = ""
    most: Mapping[str, float] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)
    scored: bool = True

    @property
    def title(self) -> str:
        return f"{self.name}: {self.variant}" if self.variant else self.name

    def worst(self, runs: Sequence[Figures]) -> Figures:
        """Return each figure's worst; percents are good when they are high."""
        return {
            name: (min if name in self.least or name.endswith("%") else max)(
                run[name] for run in runs
            )
            for name in runs[0]
        }

    def missed(self, figures: Figures) -> list[str]:
        """Return the figures that do not keep their limits."""
        return [
            name
            for name, figure in figures.items()
            if figure > self.most.get(name, figure) or figure < self.least.get(name, figure)
        ]


def measure(row: Row, seed: int) -> Figures:
    return virtual.run(row.play(seed))


def measured(rows: Sequence[Row], seeds: Sequence[int]) -> Iterator[tuple[Row, Figures]]:
    """Yield each row with its figures, in order; the runs take turns on all cores."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        under_way = [(row, [pool.submit(measure, row, seed) for seed in seeds]) for row in rows]
        for row, runs in under_way:
            yield row, row.worst([run.result() for run in runs])


def print_row(row: Row, figures: Figures) -> None:
    missed = row.missed(figures)
    print(f"{row.title:<64} {('MISS' if missed else 'pass') if row.scored else 'info'}")
    for name, figure in figures.items():
        limits = [f"≤ {shown(row.most[name])}"] if name in row.most else []
        limits += [f"≥ {shown(row.least[name])}"] if name in row.least else []
        limits += ["MISS"] if name in missed else []
        measured = "never" if figure == NEVER else shown(figure)
        print(f"    {name:<36} {measured:>9}  {' '.join(limits)}".rstrip())
    sys.stdout.flush()


def main(rows: Sequence[Row], about: str) -> int:
    """Measure the rows asked for on the command line; return the exit code."""
    arguments = argparse.ArgumentParser(description=about.partition("\n")[0])
    arguments.add_argument("--seeds", default="1,2", help="comma-separated")
    arguments.add_argument("--only", nargs="+", default=[], metavar="NAME", help="part of a title")
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    chosen = [
        row
        for row in rows
        if not given.only or any(part.lower() in row.title.lower() for part in given.only)
    ]
    if not chosen:
        arguments.error(f"no row of that name; known: {', '.join(row.title for row in rows)}")
    if not given.json:
        print_machine()
    found: list[tuple[Row, Figures]] = []
    for row, figures in measured(chosen, [int(seed) for seed in given.seeds.split(",")]):
        found.append((row, figures))
        if not given.json:
            print_row(row, figures)
    passed: dict[str, bool] = {}
    for row, figures in found:
        if row.scored:
            passed[row.name] = passed.get(row.name, True) and not row.missed(figures)
    if given.json:
        print(json.dumps([as_json(row, figures) for row, figures in found], indent=2))
    else:
        print(f"\n{sum(passed.values())} of {len(passed)}")
    return 0 if all(passed.values()) else 1


def as_json(row: Row, figures: Figures) -> dict[str, object]:
    return {
        "row": row.title,
        "scored": row.scored,
        "figures": figures,
        "most": row.most,
        "least": row.least,
        "missed": row.missed(figures),
    }
