"""`./orchestrate.sh dev`: what to run before a change is given away."""

import argparse
import subprocess
import sys
from functools import partial

from workflows.steps import Failed, Skipped, Workflow, run

SHOWN = 20  # changed files
COVERED = "src/zejzl,ai_framework"


def develop(flow: Workflow, options: argparse.Namespace) -> int:
    """Format, lint, types, tests with coverage, and what changed."""
    flow.step("format", [sys.executable, "-m", "ruff", "format", "."])
    quality(flow)
    if not options.quick:
        _tests(flow, options.k)
    flow.step("what changed", lambda: changed(flow), changes=False)
    return flow.ended()


def quality(flow: Workflow) -> bool:
    """Lint and types: what can be said without running anything."""
    lint = flow.step("lint", [sys.executable, "-m", "ruff", "check", "."], changes=False)
    types = flow.step("types", [sys.executable, "-m", "mypy"], changes=False)
    return lint and types


def _tests(flow: Workflow, expression: str | None) -> None:
    pytest = ["-m", "pytest", *(["-k", expression] if expression else [])]
    measured = ["-m", "coverage", "run", f"--source={COVERED}"]
    flow.step("tests", [sys.executable, *measured, *pytest])
    flow.step("coverage", partial(coverage, flow))


def coverage(flow: Workflow) -> str:
    """Say how much of the code the tests ran, and where it is least."""
    lines: list[str] = []
    command = [sys.executable, "-m", "coverage", "report", "--skip-empty", "--sort=cover"]
    code = run(command, flow.root, lines.append)
    flow.note("\n".join(lines))
    rows = [line.split() for line in lines]
    rows = [row for row in rows if len(row) == 4 and row[-1].endswith("%")]
    if code or not rows:
        raise Failed(f"no report: {lines[-1] if lines else f'exit code {code}'}")
    least = ", ".join(f"{row[0]} {row[-1]}" for row in rows[:3] if row[0] != "TOTAL")
    return f"{rows[-1][-1]} of the statements in this process; least: {least}"


def changed(flow: Workflow) -> str:
    """Say what differs from the last commit."""
    command = ["git", "status", "--porcelain"]
    try:
        done = subprocess.run(command, cwd=flow.root, capture_output=True, text=True, check=False)
    except OSError:
        raise Skipped(
            "git is not installed; `./orchestrate.sh tools` tells how to get it"
        ) from None
    if done.returncode:
        raise Skipped("this folder is no git repository")
    lines = done.stdout.splitlines()
    flow.note(done.stdout)
    for line in lines[:SHOWN]:
        flow.say(f"           | {line}")
    if len(lines) > SHOWN:
        flow.say(f"           | … and {len(lines) - SHOWN} more; `git status` shows all")
    return f"{len(lines)} files differ from the last commit" if lines else "nothing"
