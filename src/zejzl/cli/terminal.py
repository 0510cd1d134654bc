"""What reaches the terminal: outside text made harmless, tables, JSON, failures as plain lines.

Answers, prompts, names and error texts come from outside. They are never read as markup, and what
in them would steer a terminal (escape sequences, bidirectional overrides) is shown, not obeyed.
Answers and reports go to stdout, everything about them to stderr.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cached_property
from io import StringIO
from pathlib import Path
from shlex import quote
from shutil import which
from typing import TYPE_CHECKING, Literal

from zejzl import errors
from zejzl.cli.advice import SHELL, Place, advice
from zejzl.messages import Attempt

if TYPE_CHECKING:  # rich is heavy: loaded when something is printed
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

WELL, FAILED, USAGE, UNHEALTHY, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143
ROOT = Path(__file__).resolve().parents[3]  # where start.sh lies, in a clone
PIPED_WIDTH = 10_000  # columns of what is no terminal: nothing is wrapped or cut there
GAP = 2  # columns between those of a table
FOLDED = 18  # a table may fold words that are longer, such as addresses
BRIEFEST = 12  # columns that a text keeps which is cut so that its row has one line
BAR, LEAST_BAR = 20, 5  # columns of the longest bar beside a table, and of one worth drawing
EIGHTHS = "▏▎▍▌▋▊▉█"
LEAST_USD = 0.0001  # the smallest amount that is shown to people

_EXPECTED = (errors.ZejzlError, ValueError, TypeError, ImportError, OSError)  # they say it all
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_STYLES = {
    **dict.fromkeys(["ok", "closed", "running", "yes", "intact"], "green"),
    **dict.fromkeys(["half_open", "paused", "slow", "limited", "interrupted"], "yellow"),
    **dict.fromkeys(["failed", "open", "died", "no", "cut", "given up"], "red"),
    **dict.fromkeys(["changed", "missing", "copy damaged"], "red"),
    **dict.fromkeys(["no key", "–"], "dim"),
}


def word() -> str:
    """Return what calls the command line here: `zejzl` if it is on PATH, else as it was called."""
    called = Path(sys.argv[0])
    if which("zejzl"):
        return "zejzl"
    in_clone = called == Path(".venv/bin/zejzl") or called.name == "token_haze.py"
    if in_clone and Path.cwd() == ROOT:
        return "./start.sh"
    if called.name == "zejzl":
        return quote(str(called))
    return "python ai_framework.py" if called.name == "ai_framework.py" else "python -m zejzl"


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
    usage = ValueError, TypeError, errors.NoSuchProvider, errors.NoSuchRequest
    return USAGE if isinstance(problem, usage) else FAILED


def explained(problem: BaseException, *, verbose: bool = False, place: Place = SHELL) -> list[str]:
    """Return what happened, why, and what to do, in a few lines."""
    text = str(problem) or type(problem).__name__
    if not isinstance(problem, _EXPECTED):
        text = f"unexpected {type(problem).__name__}: {text} (-v shows where)"
    lines = [f"zejzl: {line(text)}"]
    lines += [f"  {line(note)}" for note in getattr(problem, "__notes__", ())]
    if verbose:
        lines += [f"  {said}" for said in map(_attempt, enumerate(_attempts(problem), 1))]
    return lines + [f"  → {line(said)}" for said in advice(problem, place, word())]


def told(problem: BaseException) -> dict[str, object]:
    """Return a failure for programs."""
    facts = {
        name: None if value == float("inf") else value  # JSON has no word for it
        for name, value in errors.attributes(problem).items()
        if not name.startswith("_")
    }
    if isinstance(problem, errors.Incomplete):
        facts["prefix"] = problem.prefix
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
        place: Where they are told: what can be typed there.
    """

    def __init__(self, *, as_json: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.verbose = verbose
        self.place = SHELL

    @cached_property
    def out(self) -> "Console":
        """The console of stdout."""
        return _console(sys.stdout.isatty())

    @cached_property
    def err(self) -> "Console":
        """The console of stderr."""
        return _console(sys.stderr.isatty(), stderr=True)

    @property
    def aside(self) -> "Console":
        """The console for what people read: stdout, unless that belongs to JSON."""
        return self.err if self.as_json else self.out

    def write(self, text: str) -> None:
        """Write part of an answer as it is, made safe, at once."""
        sys.stdout.write(safe(text))
        sys.stdout.flush()

    def say(self, text: str, style: str = "", *, prose: bool = False) -> None:
        """Say something to people; prose goes on in the next line where a terminal ends."""
        from rich.text import Text

        self.aside.print(Text(safe(text), style), soft_wrap=not prose)

    def note(self, text: str) -> None:
        """Say something by the way: one dim line on stderr."""
        from rich.text import Text

        self.err.print(Text(line(text), "dim"), soft_wrap=True)

    def fail(self, problem: BaseException) -> int:
        """Tell a failure; return the exit code for it."""
        for said in explained(problem, verbose=self.verbose, place=self.place):
            print(said, file=sys.stderr)
        if not isinstance(problem, _EXPECTED):
            logging.getLogger(__name__).debug("where it happened:", exc_info=problem)
        return exit_code(problem)

    def json(self, value: object, *, indent: int | None = 2) -> None:
        """Print one JSON value; ASCII only, so that nothing in it can steer a terminal."""
        print(json.dumps(value, default=_plain, indent=indent), flush=True)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show for the length of a block that something is waited for, where a person sees it."""
        with self.err.status(safe(text)) if self.err.is_terminal else nullcontext():
            yield

    def drawn(self, draw: Callable[["Terminal"], None]) -> "Text":
        """Return what `draw` prints on a terminal like this one."""
        from rich.console import Console
        from rich.text import Text

        page = Terminal()
        page.out = Console(
            file=StringIO(),
            force_terminal=True,
            highlight=False,
            width=self.out.width,
            color_system="standard" if self.out.color_system else None,
        )
        draw(page)
        return Text.from_ansi(page.out.file.getvalue())  # type: ignore[attr-defined]

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        right: Sequence[str] = (),
        brief: Sequence[str] = (),
        bars: Sequence[float] = (),
    ) -> None:
        """Print a table.

        Args:
            columns: Their headings.
            rows: Their cells; a cell's style comes from its word.
            right: Headings of the columns that hold numbers.
            brief: Headings of the columns whose texts are cut where they have no room.
            bars: A share of 1 for each row, drawn beside it where a terminal has room for that.
        """
        console = self.aside
        cells = [[line(str(cell)) for cell in row] for row in rows]
        if console.is_terminal and not console.options.ascii_only and any(bars):
            columns, cells = _with_bars(columns, cells, bars, console.width)
        with console.capture() as rendered:
            console.print(in_columns(columns, cells, right=right, brief=brief, room=console.width))
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


def _console(on_terminal: bool, *, stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(
        stderr=stderr,
        highlight=False,
        color_system=None if os.environ.get("NO_COLOR") else "auto",  # nothing bold either
        width=None if on_terminal else PIPED_WIDTH,
    )


def in_columns(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    brief: Sequence[str] = (),
    room: int,
) -> "Table | Text":
    """Return a table for rich to print; see `Terminal.table`.

    Nothing is left out. Where `room`, the terminal's columns, is short, the widest columns are
    folded; where not even their words have room, each row becomes a few lines. A table with
    columns that are `brief` is not folded: these alone are cut.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    cells = [[line(str(cell)) for cell in row] for row in rows]
    wide = _wide(columns, cells)
    least = [
        max(min(cell_len(word), FOLDED) for text in column for word in text.split() or [""])
        for column in zip(columns, *cells, strict=True)
    ]
    if brief:
        least = [
            min(width, BRIEFEST) if name in brief else width
            for name, width in zip(columns, wide, strict=True)
        ]
    left = room - GAP * (len(columns) - 1)
    in_lines = sum(least) > left
    widths = _narrowed(wide, least, left)
    if brief:
        alone = [room - cell_len(f"{name}: ") for name in columns]
        cells = [_cut(columns, row, brief, alone if in_lines else widths) for row in cells]
    if in_lines:
        return Text("\n\n".join(_in_lines(columns, row) for row in cells))
    made = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for name, width in zip(columns, widths, strict=True):
        side: Literal["left", "right"] = "right" if name in right else "left"
        made.add_column(Text(name), justify=side, width=width, overflow="fold")
    for row in cells:
        made.add_row(*(Text(text, _STYLES.get(text, "")) for text in row))
    return made


def _wide(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    """Return how many columns of a terminal the columns of a table take."""
    from rich.cells import cell_len

    return [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]


def _cut(
    columns: Sequence[str], row: Sequence[str], brief: Sequence[str], widths: Sequence[int]
) -> list[str]:
    """Return a row whose cells in the columns `brief` are not wider than they may be."""
    from rich.text import Text

    cut = []
    for name, text, width in zip(columns, row, widths, strict=True):
        shown = Text(text)
        if name in brief:
            shown.truncate(width, overflow="ellipsis")
        cut.append(shown.plain)
    return cut


def _with_bars(
    columns: Sequence[str], cells: list[list[str]], bars: Sequence[float], room: int
) -> tuple[list[str], list[list[str]]]:
    """Return a table with a bar beside each row, or as it is where there is no room for that."""
    size = min(BAR, room - sum(_wide(columns, cells)) - GAP * len(columns))
    if size < LEAST_BAR:
        return list(columns), cells
    drawn = zip(cells, bars, strict=True)
    return [*columns, ""], [[*row, _bar(share, size)] for row, share in drawn]


def _bar(share: float, size: int) -> str:
    """Return a bar; one of more than nothing is seen."""
    eighths = max(round(share * size * 8), 1 if share > 0.0 else 0)
    return EIGHTHS[-1] * (eighths // 8) + (EIGHTHS[eighths % 8 - 1] if eighths % 8 else "")


def _narrowed(wide: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Return widths that have room together: the widest gives way first, none below its least."""
    widths = list(wide)
    while sum(widths) > room:
        widest = max(range(len(widths)), key=lambda at: (widths[at] > least[at], widths[at]))
        widths[widest] -= 1
    return widths


def _in_lines(columns: Sequence[str], row: Sequence[str]) -> str:
    named = zip(columns, row, strict=True)
    return "\n".join(f"{name}: {text}" if name else text for name, text in named if text)


def counted(number: float, noun: str) -> str:
    """Return a number of things."""
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def number(value: object, form: str) -> str:
    """Return a number as the format `form` says; "–" where there is none."""
    return format(value, form) if isinstance(value, int | float) else "–"


def amount(value: object) -> float:
    """Return a number; 0 where there is none."""
    return float(value) if isinstance(value, int | float) else 0.0


def usd(amount: float) -> str:
    """Return money as people read it, in USD."""
    if 0.0 < amount < LEAST_USD:
        return f"<{LEAST_USD}"
    return f"{amount:,.4f}" if amount < 100.0 else f"{amount:,.2f}"


def facts(pairs: Mapping[str, object]) -> list[str]:
    """Return lines of "name: value", the values below one another."""
    wide = max(map(len, pairs), default=0) + 1
    return [f"{f'{name}:':<{wide}} {value}" for name, value in pairs.items()]
