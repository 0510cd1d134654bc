"""`python -m workflows NAME [OPTIONS]`: what `./orchestrate.sh NAME` runs.

A workflow is a function `(flow: Workflow, options: Namespace) -> int` that adds its steps to
`flow` and returns its exit code, mostly `flow.ended()`. It is imported when it is asked for, so
that one that does not import keeps no other from running.
"""

import argparse
import difflib
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from workflows.steps import Terminated, Workflow

ROOT = Path(__file__).resolve().parents[1]
Options = tuple[tuple[str, dict[str, Any]], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a workflow is, and the options it has beside --dry-run.

    Attributes:
        place: `module:function` in this package.
        help: One line for its --help.
        options: What argparse gets for each.
    """

    place: str
    help: str
    options: Options = ()

    def load(self) -> Callable[[Workflow, argparse.Namespace], int]:
        """Import the workflow's function."""
        module, _, name = self.place.partition(":")
        function: Callable[[Workflow, argparse.Namespace], int]
        function = getattr(import_module(f"workflows.{module}"), name)
        return function


def count(text: str) -> int:
    """Return a whole number of at least 1."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Return seconds, from 0 to a day."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= 86_400.0:
        raise argparse.ArgumentTypeError(f"must be seconds from 0 to 86400, not {text!r}")
    return number


def _flag(name: str, told: str) -> tuple[str, dict[str, Any]]:
    return name, {"action": "store_true", "help": told}


YES = _flag("--yes", "do not ask")
ASK_NOBODY = _flag("--no-providers", "ask no provider: each costs a few tokens")
DEPENDENCIES: Options = (
    ("--find-links", {"metavar": "FOLDER", "help": "install from wheels there, ask no index"}),
    _flag("--reuse-environment", "share the dependencies of .venv: for trials, or offline"),
)

WORKFLOWS = {
    "dev": Entry(
        "dev:develop",
        "format, lint, types, tests with coverage, and what changed",
        (
            ("-k", {"metavar": "EXPRESSION", "help": "only these tests, as pytest selects them"}),
            _flag("--quick", "no tests"),
        ),
    ),
    "deploy-staging": Entry(
        "releases:deploy_staging", "build, verify and install a release", DEPENDENCIES
    ),
    "deploy-production": Entry(
        "releases:deploy_production", "take what staging passed", (YES, *DEPENDENCIES)
    ),
    "recovery": Entry(
        "releases:recovery",
        "back to the last good release and backup",
        (YES, _flag("--staging", "staging, not production")),
    ),
    "maintenance": Entry("maintenance:maintain", "backup, integrity, retention, room, old files"),
    "optimize": Entry(
        "optimize:optimize",
        "benchmarks against the last run's figures, and what the log suggests",
        (_flag("--all", "every benchmark of bench/: takes an hour"),),
    ),
    "security": Entry("security:patrol", "dependencies, secrets, permissions, code, SQL, shell"),
    "docs": Entry("docs:document", "examples, links, reference, pictures, the site"),
    "health": Entry("health:check", "environment, store, providers, disk", (ASK_NOBODY,)),
    "infinite": Entry(
        "infinite:adventure",
        "the Infinite Panda Adventure: all of it, again and again",
        (
            ("--cycles", {"type": count, "metavar": "N", "help": "end after so many"}),
            (
                "--interval",
                {
                    "type": seconds,
                    "default": 60.0,
                    "metavar": "S",
                    "help": "seconds between two cycles (60)",
                },
            ),
        ),
    ),
}


def main(arguments: Sequence[str]) -> int:
    """Run a workflow and return its exit code; after --parse only look at what is asked."""
    only_parse = list(arguments[:1]) == ["--parse"]
    arguments = arguments[only_parse:]
    name = arguments[0] if arguments else ""
    if name not in WORKFLOWS:
        near = difflib.get_close_matches(name, WORKFLOWS, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; known: {' '.join(WORKFLOWS)}"
        print(f"workflows: unknown command '{name}'{hint}", file=sys.stderr)
        return 2
    entry = WORKFLOWS[name]
    options = _parser(name, entry).parse_args(arguments[1:])
    if only_parse:
        return 0
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    flow: Workflow | None = None
    try:
        function = entry.load()
        flow = Workflow(name, root=ROOT, dry_run=options.dry_run)
        return function(flow, options)
    except KeyboardInterrupt as exc:
        by, code = ("SIGTERM", 143) if isinstance(exc, Terminated) else ("Ctrl-C", 130)
        if flow is not None:
            flow.stopped(by)
        return code


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and what is nearest."""

    known: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        start = "unrecognized arguments: "
        if message.startswith(start):
            wrong = message.removeprefix(start).split()[0].partition("=")[0]
            near = difflib.get_close_matches(wrong, self.known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {' '.join(self.known)}"
            message = f"unknown option '{wrong}'; {hint}"
        self.exit(2, f"{self.prog}: {message}\n")


def _parser(name: str, entry: Entry) -> _Parser:
    parser = _Parser(f"./orchestrate.sh {name}", description=entry.help, allow_abbrev=False)
    parser.add_argument(
        "--dry-run", action="store_true", help="tell what would be done, and change nothing"
    )
    for option, how in entry.options:
        parser.add_argument(option, **how)
    parser.known = ["--dry-run", "--help", *(option for option, _ in entry.options)]
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
