"""Steps run in order; each says how long it took and what came of it, and all of it is logged.

    flow = Workflow("docs", root=root)
    if flow.step("build", [python, "-m", "mkdocs", "build"]):
        flow.step("links", check_links)
    return flow.ended()

A step that fails does not stop the workflow: whoever writes it asks what `step` returned. Ctrl-C
and SIGTERM stop it at once, with the step's own processes, and the summary says where.

The log is `NAME-<UTC time>.log` in `$ZEJZL_LOGS` or `.zejzl/logs/`, for its owner only; the last
20 are kept. Where none can be written (a read-only folder, a full disk) that is said once, and the
steps run without.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

KEPT_LOGS = 20
SHOWN_LINES = 15  # of a failed command; the log has the rest
PAUSE = 1.0  # seconds before a step is tried again, doubled each time
GRACE = 5.0  # seconds that an interrupted command has to end by itself
COLOURS = {"ok": "32", "FAILED": "31;1", "skipped": "33", "would": "36", "stopped": "33"}


class Failed(Exception):
    """A step did not do what it is for; the message says why, and what to do."""


class Skipped(Exception):
    """A step cannot be done here; the message says why, and the remedy."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came: everything ends as after Ctrl-C, with another exit code."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a step: `outcome` is ok, FAILED, skipped, would or stopped."""

    name: str
    outcome: str
    text: str
    seconds: float


def on_terminal() -> bool:
    """Whether somebody looks at what is printed, on a terminal that can be steered."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb")


def coloured(text: str, style: str) -> str:
    """Return the text in an ANSI style, or plain where nobody looks at colours."""
    if os.environ.get("NO_COLOR") or not on_terminal():
        return text
    return f"\x1b[{style}m{text}\x1b[0m"


def logs_folder(root: Path) -> Path:
    """Return where the logs of a project's workflows are."""
    return Path(os.environ.get("ZEJZL_LOGS") or root / ".zejzl" / "logs")


def prune_logs(folder: Path, keep: int = KEPT_LOGS) -> list[Path]:
    """Remove all but the last `keep` logs, and return those that went."""
    found = sorted(folder.glob("*-*.log"), key=lambda path: path.stat().st_mtime)
    old = found[: max(0, len(found) - keep)]
    for path in old:
        path.unlink(missing_ok=True)
    return old


class Workflow:
    """Steps run in order; each prints a line with its time and result; all goes to the log too.

    `failed` names the steps that failed.

    Args:
        name: Stands in the summary and the log's name.
        root: The project's folder; commands run in it.
        dry_run: Steps that change something are only told.
        log: Where the log goes, if not to its usual place.
    """

    def __init__(
        self, name: str, *, root: Path, dry_run: bool = False, log: Path | None = None
    ) -> None:
        self.name = name
        self.root = root
        self.dry_run = dry_run
        self.results: list[Result] = []  # whoever repeats its steps for days may clear it
        self.failed: list[str] = []
        self._counts: Counter[str] = Counter()
        self._began = time.monotonic()
        self._summed_up = False
        self.log = self._open_log(log)

    def step(
        self,
        name: str,
        work: Callable[[], str | None] | Sequence[str],
        *,
        attempts: int = 1,
        changes: bool = True,
    ) -> bool:
        """Do one step, and return whether it went well.

        Args:
            name: What it is, in a word or three.
            work: What to do: a callable that returns a short sentence and raises where it fails
                (`Skipped` where it cannot be done here), or a command line.
            attempts: How often it is tried, with growing pauses.
            changes: Whether it changes anything; a dry run only tells such a step.
        """
        if self.dry_run and changes:
            self._tell(Result(name, "would", _plan(work), 0.0))
            return True
        began = time.monotonic()
        pause = PAUSE
        for attempt in range(1, attempts + 1):
            result = self._attempt(name, work, began)
            if result.outcome != "FAILED" or attempt == attempts:
                break
            self.say(f"           {name}: {result.text}; again in {pause:g} s")
            time.sleep(pause)
            pause *= 2
        self._tell(result)
        return result.outcome != "FAILED"

    def skip(self, name: str, why: str) -> None:
        """Tell that a step is not done, why, and what would let it be done."""
        self._tell(Result(name, "skipped", why, 0.0))

    def say(self, text: str) -> None:
        """Print a line, and log it."""
        print(text, flush=True)
        self.note(text)

    def note(self, text: str) -> None:
        """Log a line that nobody needs to see."""
        if self.log is None:
            return
        try:
            with self.log.open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"{text}\n")
        except OSError as exc:  # the disk is full: the steps matter more than their log
            self.log = None
            print(f"the log ends here: {exc.strerror}", file=sys.stderr, flush=True)

    def ended(self) -> int:
        """Print one summary; return 0, or 1 where a step failed."""
        self._sum_up("")
        return 1 if self.failed else 0

    def stopped(self, by: str) -> None:
        """Print the summary of a workflow that somebody stopped."""
        self._sum_up(f"stopped by {by}, ")

    def _attempt(
        self, name: str, work: Callable[[], str | None] | Sequence[str], began: float
    ) -> Result:
        outcome = "ok"
        if on_terminal():  # the step's line takes this one's place
            print(f"{'…':<8}{'':9}  {name}\r", end="", flush=True)
        try:
            text = (work() or "") if callable(work) else self._command(work)
        except KeyboardInterrupt:
            self._tell(Result(name, "stopped", "", time.monotonic() - began))
            raise
        except Skipped as exc:
            outcome, text = "skipped", str(exc)
        except Failed as exc:
            outcome, text = "FAILED", str(exc)
        except OSError as exc:
            self.note(traceback.format_exc())
            what = f"{exc.filename}: " if exc.filename else ""
            outcome, text = "FAILED", f"{what}{exc.strerror or exc}"
        except Exception as exc:  # noqa: BLE001 - whatever it was, it is told, and the next step runs
            self.note(traceback.format_exc())
            outcome, text = "FAILED", f"{type(exc).__name__}: {exc}"
        return Result(name, outcome, text, time.monotonic() - began)

    def _command(self, command: Sequence[str]) -> str:
        """Run a command line; its output goes to the log."""
        self.note(f"$ {shlex.join(command)}")
        last: deque[str] = deque(maxlen=SHOWN_LINES)

        def heard(line: str) -> None:
            last.append(line)
            self.note(line)

        try:
            code = run(command, self.root, heard)
        except OSError as exc:
            raise Failed(f"{command[0]} cannot be run: {exc.strerror}") from exc
        if code:
            lines = "".join(f"\n           | {line}" for line in last)
            raise Failed(f"exit code {code}: {shlex.join(command)}{lines}")
        return last[-1].strip() if last else ""

    def _tell(self, result: Result) -> None:
        self.results.append(result)
        self._counts[result.outcome] += 1
        if result.outcome == "FAILED" and result.name not in self.failed:
            self.failed.append(result.name)
        seconds = f"{result.seconds:7.1f} s"
        head = f"{result.outcome:<8}"
        rest = f"{seconds}  {result.name}" + (f": {result.text}" if result.text else "")
        print(f"{coloured(head, COLOURS[result.outcome])}{rest}", flush=True)
        self.note(head + rest)

    def _sum_up(self, how: str) -> None:
        if self._summed_up:
            return
        self._summed_up = True
        shown = ("ok", "FAILED", "skipped", "would")
        words = [f"{self._counts[each]} {each}" for each in shown if self._counts[each]]
        seconds = time.monotonic() - self._began
        text = f"── {self.name}: {how}{', '.join(words) or 'no step was done'}, in {seconds:.1f} s"
        if self.failed:
            text += f"; failed: {', '.join(self.failed)}"
        self.say(text + (f"; log: {self._shown_log()}" if self.log else ""))

    def _shown_log(self) -> str:
        if self.log is not None and self.log.is_relative_to(self.root):
            return str(self.log.relative_to(self.root))
        return str(self.log)

    def _open_log(self, path: Path | None) -> Path | None:
        if self.dry_run and path is None:
            return None  # it leaves nothing behind
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        chosen = path or logs_folder(self.root).absolute() / f"{self.name}-{stamp}.log"
        try:
            chosen.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(chosen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
            if path is None:
                prune_logs(chosen.parent)
        except OSError as exc:
            print(f"no log is kept: {chosen}: {exc.strerror}", file=sys.stderr, flush=True)
            return None
        return chosen


def _plan(work: Callable[[], str | None] | Sequence[str]) -> str:
    """Return what a step would do: its command line, or what its function says of itself."""
    if not callable(work):
        return f"would run {shlex.join(work)}"
    if isinstance(work, partial):
        return _plan(work.func)
    return (work.__doc__ or "").partition("\n")[0]


def run(
    command: Sequence[str],
    folder: Path,
    told: Callable[[str], object],
    *,
    env: dict[str, str] | None = None,
) -> int:
    """Run a command line, tell each line of its output, and return its exit code.

    Its processes are a group of their own, which ends with it, and when this one is stopped.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env or _environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            told(line.rstrip("\n"))
        return process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()


def _environment(folder: Path) -> dict[str, str] | None:
    """Return what lets the checks do without their caches where none can be written."""
    if os.access(folder, os.W_OK):
        return None
    return {**os.environ, "RUFF_NO_CACHE": "true", "MYPY_CACHE_DIR": os.devnull}


def _end(process: "subprocess.Popen[str]") -> None:
    """Ask a command's processes to end, and make them."""
    for number, patience in (
        (signal.SIGINT, GRACE),
        (signal.SIGTERM, GRACE),
        (signal.SIGKILL, None),
    ):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(patience)
            return
