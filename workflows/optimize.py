"""`./orchestrate.sh optimize`: is it slower than last time, and what would help?

The figures of a run are kept in `.zejzl/figures.json` with their date, machine and commit, and
compared where the machine is the same. A figure that seems slower is measured once more, and the
better of the two counts: another program may have been in the way.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from workflows import kept
from workflows.maintenance import zejzl
from workflows.steps import Failed, Skipped, Workflow, run

QUICK: dict[str, dict[str, str]] = {  # what is measured within seconds; each figure and its line
    "import": {
        "seconds that an import adds": r"^time .* import adds +([\d.]+) s",
        "MB that an import adds": r"^memory .* import adds +([\d.]+) MB",
    },
    "breaker": {
        "ns of a good call": r"^ *good call +([\d,]+)",
        "ns of the rule alone": r"^ *policy: try_acquire and ok +([\d,]+)",
        "ns of a refusal": r"^ *refusal, by token +([\d,]+)",
    },
    "whole": {
        "ns of the stack, plain answer": r"^ *whole stack, plain answer +([\d,]+)",
        "ns of the stack, stream": r"^ *whole stack, stream +([\d,]+)",
        "ns of a refused call": r"^ *refused: paused +([\d,]+)",
    },
}
NOTABLE = 0.25  # of the last figure; less is the weather
FILE = "figures.json"


@dataclass(slots=True)
class Run:
    """A benchmark's figures, and what they need beside them."""

    date: str
    machine: str
    commit: str
    command: str
    figures: dict[str, float]


@dataclass(slots=True)
class Compared:
    """What a benchmark's figures came to."""

    said: str
    better: list[str] = field(default_factory=list)
    worse: list[str] = field(default_factory=list)


def optimize(flow: Workflow, options: argparse.Namespace) -> int:
    """Benchmarks against the last run's figures, and what the log suggests."""
    measure(flow, every=options.all)
    flow.step("the Learner's suggestions", lambda: suggestions(flow), changes=False)
    flow.step("learned preferences", lambda: preferences(flow), changes=False)
    return flow.ended()


def measure(flow: Workflow, *, every: bool = False) -> list[str]:
    """Run benchmarks, compare and keep their figures; return those that are better."""
    better: list[str] = []
    for script in scripts(flow.root, every=every):

        def work(script: Path = script) -> str:
            """Run a benchmark and keep its figures."""
            found = benchmark(flow, script)
            better.extend(found.better)
            return found.said

        flow.step(f"bench/{script.name}", work)
    return better


def scripts(root: Path, *, every: bool) -> list[Path]:
    """Return the benchmarks to run: the quick ones, or all of bench/ that can be run."""
    found = sorted((root / "bench").glob("*.py"))
    if every:
        return [path for path in found if "__main__" in path.read_text(encoding="utf-8")]
    return [path for path in found if path.stem in QUICK]


def benchmark(flow: Workflow, script: Path) -> Compared:
    """Run one benchmark, compare its figures with the last ones, and keep them."""
    path = flow.root / ".zejzl" / FILE
    held, trouble = kept.load(path)
    if trouble:
        flow.say(f"           {trouble}")
    benches = held.get("benches")
    benches = benches if isinstance(benches, dict) else {}
    before = benches.get(script.stem)
    now = _measured(flow, script)
    found = compare(now, before)
    if found.worse:
        flow.say(f"           {script.name}: slower than before; measured once more")
        again = _measured(flow, script)
        for name, value in again.figures.items():
            now.figures[name] = min(value, now.figures.get(name, value))
        found = compare(now, before)
    kept.save(path, {"benches": {**benches, script.stem: asdict(now)}})
    return found


def _measured(flow: Workflow, script: Path) -> Run:
    lines: list[str] = []
    flow.note(f"$ python bench/{script.name}")
    code = run([sys.executable, str(script)], flow.root, lines.append)
    flow.note("\n".join(lines))
    if code:
        last = "".join(f"\n           | {line}" for line in lines[-10:])
        raise Failed(f"exit code {code}{last}")
    return Run(
        date=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        machine=machine(),
        commit=commit(flow.root),
        command=f"python bench/{script.name}",
        figures=figures(script.stem, lines),
    )


def figures(bench: str, lines: list[str]) -> dict[str, float]:
    """Return the figures in a benchmark's output: the named ones, or each row's first."""
    named = QUICK.get(bench)
    found: dict[str, float] = {}
    if named is None:
        for line in lines:
            row = re.match(r"\s*(\S.*?)\s{2,}([\d,]+(?:\.\d+)?)(?=\s|$)", line)
            if row:
                found.setdefault(row[1], float(row[2].replace(",", "")))
        return found
    for name, pattern in named.items():
        for line in lines:
            row = re.match(pattern, line)
            if row:
                found[name] = float(row[1].replace(",", ""))
                break
        else:
            raise Failed(f"its output does not tell the {name}")
    return found


def compare(now: Run, before: object) -> Compared:
    """Compare a run's figures with the last run's; lower is better for every named one."""
    new = now.figures
    told = ", ".join(f"{value:,g} {name}" for name, value in list(new.items())[:3])
    if not isinstance(before, dict) or not isinstance(before.get("figures"), dict):
        return Compared(f"{told}; the first run")
    if before.get("machine") != now.machine:
        return Compared(f"{told}; the last run was on another machine")
    found = Compared("")
    changes = []
    for name, value in new.items():
        old = before["figures"].get(name)
        if not isinstance(old, int | float) or not old:
            continue
        change = value / old - 1.0
        if abs(change) > NOTABLE:
            (found.worse if change > 0 else found.better).append(name)
            changes.append(f"{name}: {old:,g} → {value:,g} ({change:+.0%})")
    since = f"since {before.get('date')} ({before.get('commit')})"
    found.said = (
        f"{told}; nothing notable {since}" if not changes else (f"{since}: {'; '.join(changes)}")
    )
    return found


def machine() -> str:
    """Say what figures can be compared on."""
    return f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def commit(root: Path) -> str:
    """Return the commit's short name, with + where files differ from it."""
    words = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def suggestions(flow: Workflow) -> str:
    """Say what the requests in the database suggest."""
    _, found, said = zejzl(flow, "learn")
    if not isinstance(found, dict):
        raise Failed(said)
    if not found["patterns"]["events"]:
        raise Skipped("no request has ended yet; `./start.sh ask hello` makes one")
    lines = [str(text) for text in (found.get("suggestions") or {}).values()]
    for line in lines:
        flow.say(f"           | {line}")
    return f"{len(lines)} of them" if lines else "none"


def preferences(flow: Workflow) -> str:
    """Say which remedies the running bus has learned to prefer."""
    code, found, said = zejzl(flow, "preferences")
    if not isinstance(found, list) or code:
        raise Skipped(f"{said}; they are those of a running bus")
    if not found:
        raise Skipped("nothing is learned yet, or no bus is running: `./start.sh status` tells")
    for each in found[:10]:
        share = f"{each['probability']:.0%}"
        told = f"{each['component']}, {each['failure_class']}: {each['remedy']} ({share})"
        flow.say(f"           | {told}")
    return f"{len(found)} remedies; `./start.sh preferences` shows all"
