"""What reaches the terminal: outside text made harmless, tables, JSON, failures as plain lines.

Answers, prompts, names and error texts come from outside. They are never read as markup, and what
in them would steer a terminal (escape sequences, bidirectional overrides) is shown, not obeyed.
Answers and reports go to stdout, everything about them to stderr.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from zejzl import errors
from zejzl.messages import Attempt
from zejzl.settings import VENDOR_KEYS

if TYPE_CHECKING:  # rich is heavy: loaded when something is printed
    from rich.console import Console
    from rich.table import Table

WELL, FAILED, USAGE, UNHEALTHY, INTERRUPTED = 0, 1, 2, 3, 130
PIPED_WIDTH = 10_000  # columns of what is no terminal: nothing is wrapped or cut there

_EXPECTED = (errors.ZejzlError, ValueError, TypeError, ImportError, OSError)  # they say it all
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_STYLES = {
    **dict.fromkeys(["ok", "closed", "running", "yes"], "green"),
    **dict.fromkeys(["half_open", "paused", "slow", "limited"], "yellow"),
    **dict.fromkeys(["failed", "open", "died", "no", "cut"], "red"),
    **dict.fromkeys(["no key", "–"], "dim"),
}

# What to do about a failure; the first class that fits. {key} is the vendor's setting.
_ADVICE: tuple[tuple[type[BaseException], str], ...] = (
    (errors.SettingsError, "correct it in the environment, .env or zejzl.toml"),
    (errors.NoSuchProvider, "see `zejzl providers` for who can be asked and which keys to set"),
    (errors.CircuitOpen, "try again later, or let others answer too: --failover"),
    (errors.ConversationBusy, "wait for the earlier answer, or use another --conversation"),
    (errors.RateLimited, "try again later, or let others answer too: --failover"),
    (errors.ProviderOverloaded, "try again later, or let others answer too: --failover"),
    (errors.ConnectFailed, "check the network and the address that `zejzl providers` shows"),
    (errors.AttemptTimeout, "allow more time (--deadline, ZEJZL_ATTEMPT_TIMEOUT), or --failover"),
    (errors.Incomplete, "what had arrived is shown above; ask again for the whole answer"),
    (errors.Transient, "try again, or let others answer too: --failover"),
    (errors.AuthFailed, "check {key} in the environment or .env"),
    (errors.QuotaExhausted, "add credit to the account behind {key}, or ask another provider"),
    (errors.ContextOverflow, "ask something shorter, or begin another --conversation"),
    (errors.ContentFiltered, "put it in other words, or ask another provider"),
    (ImportError, "run ./start.sh, or pip install zejzl"),
    (errors.BadRequest, "check the model's name: --model, `zejzl providers`"),
)


def safe(text: str) -> str:
    """Return `text` with everything shown that would steer a terminal; line ends and tabs stay."""
    return _STEERING.sub(
        lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n")
    )


def line(text: str) -> str:
    """Return `text` made safe, on one line."""
    return safe(" ".join(text.split()))


def in_brief(text: str, limit: int = 60) -> str:
    """Return the beginning of `text` on one line of at most `limit` characters."""
    short = " ".join(text[: 4 * limit].split())
    return short if len(short) <= limit and len(text) <= 4 * limit else f"{short[: limit - 1]}…"


def moment(when: datetime) -> str:
    """Return a time as a person on this machine would say it."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def age(seconds: float) -> str:
    """Return a duration in its largest fitting unit."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def exit_code(problem: BaseException) -> int:
    """Return the exit code for a failure: 2 where the command or a setting must be corrected."""
    usage = ValueError, TypeError, errors.NoSuchProvider
    return USAGE if isinstance(problem, usage) else FAILED


def explained(problem: BaseException, *, verbose: bool = False) -> list[str]:
    """Return what happened, why, and what to do, in a few lines."""
    text = str(problem) or type(problem).__name__
    if not isinstance(problem, _EXPECTED):
        text = f"unexpected {type(problem).__name__}: {text} (-v shows where)"
    lines = [f"zejzl: {line(text)}"]
    lines += [f"  {line(note)}" for note in getattr(problem, "__notes__", ())]
    if verbose:
        lines += [f"  {said}" for said in map(_attempt, enumerate(_attempts(problem), 1))]
    if advice := next((advice for kind, advice in _ADVICE if isinstance(problem, kind)), None):
        lines.append(f"  → {advice.format(key=_key(problem))}")
    return lines


def told(problem: BaseException) -> dict[str, object]:
    """Return a failure for programs."""
    facts = {name: value for name, value in vars(problem).items() if not name.startswith("_")}
    return {
        "type": type(problem).__name__,
        "message": str(problem),
        **facts,
        "attempts": list(_attempts(problem)),
        "notes": list(getattr(problem, "__notes__", ())),
    }


def _attempts(problem: BaseException) -> Iterator[Attempt]:
    for attempt in getattr(problem, "attempts", ()):
        if isinstance(attempt, Attempt):
            yield attempt


def _attempt(numbered: tuple[int, Attempt]) -> str:
    number, tried = numbered
    return line(
        f"{number}. {tried.provider}/{tried.model} ({tried.remedy}): {tried.outcome} "
        f"after {tried.seconds:.2f} s {tried.error}"
    )


def _key(problem: BaseException) -> str:
    """Return the settings that hold the key of the provider that failed."""
    keys = VENDOR_KEYS.get(getattr(problem, "provider", ""), ("its key",))
    return line(" or ".join(keys))


def _plain(value: object) -> object:
    """Return JSON's own types for a value of ours."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    return value.isoformat() if isinstance(value, datetime) else str(value)


class _SafeFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return safe(super().format(record))


class Terminal:
    """One command's way to speak.

    Attributes:
        as_json: Whether stdout belongs to one JSON value.
        verbose: Whether failures are told with all that was tried.
    """

    def __init__(self, *, as_json: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.verbose = verbose

    @cached_property
    def out(self) -> "Console":
        """The console of stdout."""
        from rich.console import Console

        return Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)

    @cached_property
    def err(self) -> "Console":
        """The console of stderr."""
        from rich.console import Console

        return Console(
            stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPED_WIDTH
        )

    @property
    def aside(self) -> "Console":
        """The console for what people read: stdout, unless that belongs to JSON."""
        return self.err if self.as_json else self.out

    def write(self, text: str) -> None:
        """Write part of an answer as it is, made safe, at once."""
        sys.stdout.write(safe(text))
        sys.stdout.flush()

    def say(self, text: str, style: str = "") -> None:
        """Say something to people."""
        from rich.text import Text

        self.aside.print(Text(safe(text), style), soft_wrap=True)

    def note(self, text: str) -> None:
        """Say something by the way: one dim line on stderr."""
        from rich.text import Text

        self.err.print(Text(line(text), "dim"), soft_wrap=True)

    def fail(self, problem: BaseException) -> int:
        """Tell a failure; return the exit code for it."""
        for said in explained(problem, verbose=self.verbose):
            print(said, file=sys.stderr)
        if not isinstance(problem, _EXPECTED):
            logging.getLogger(__name__).debug("where it happened:", exc_info=problem)
        return exit_code(problem)

    def json(self, value: object) -> None:
        """Print one JSON value; ASCII only, so that nothing in it can steer a terminal."""
        print(json.dumps(value, default=_plain, indent=2))

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        right: Sequence[str] = (),
    ) -> None:
        """Print a table.

        Args:
            columns: Their headings.
            rows: Their cells; a cell's style comes from its word.
            right: Headings of the columns that hold numbers.
        """
        console = self.aside
        with console.capture() as rendered:
            console.print(in_columns(columns, rows, right=right))
        # Without the blanks that fill the last column.
        console.file.writelines(f"{row.rstrip()}\n" for row in rendered.get().splitlines())
        console.file.flush()

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Show the package's log on stderr: warnings, and everything where it is verbose."""
        log = logging.getLogger("zejzl")
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_SafeFormatter("%(levelname)s %(name)s: %(message)s"))
        before = log.level
        log.addHandler(handler)
        log.setLevel(logging.DEBUG if self.verbose else logging.WARNING)
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.setLevel(before)


def in_columns(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
) -> "Table":
    """Return a table for rich to print; see `Terminal.table`."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(Text(column), justify="right" if column in right else "left")
    for row in rows:
        words = [line(str(cell)) for cell in row]
        made.add_row(*(Text(word, _STYLES.get(word, "")) for word in words))
    return made


def facts(pairs: Mapping[str, object]) -> list[str]:
    """Return lines of "name: value", the values below one another."""
    wide = max(map(len, pairs), default=0) + 1
    return [f"{f'{name}:':<{wide}} {value}" for name, value in pairs.items()]
