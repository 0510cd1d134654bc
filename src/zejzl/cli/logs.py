"""Logs of other programs, read a row at a time as events that the Learner takes.

    bytes ──(gunzip, decode)──▶ lines ──▶ rows ──(columns named or guessed)──▶ events
                                  └ oversized   └ what is no row is counted by what is wrong

CSV has a header; its delimiter is the one of `, ; TAB |` that gives the header most cells. JSONL
has an object a line; one that has a `type` already is an event as it stands. Text is text: a case
may be called "NA". Times are ISO 8601, or seconds, ms, µs or ns since 1970, told by their size.

Read once, and never held: memory does not grow with the log.
"""

import codecs
import csv
import gzip
import io
import json
import sys
import zlib
from collections import ChainMap, Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import chain, islice
from typing import cast

from zejzl.cli.terminal import in_brief

LINE = 1_000_000  # characters of a line, at most; what an event may have as well
SAMPLE = 65_536  # bytes that are looked at for what the file is
ROWS = 100  # objects of JSONL that are looked at for their keys
DELIMITERS = ",;\t|"
LISTED = 30  # columns that are named where one is not found
FRAME = ("type", "conversation_id", "timestamp")
# Numbers from here on are milliseconds, microseconds, nanoseconds since 1970.
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What columns are called, the likeliest first; compared without case, blanks and signs.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "case": (
        *("case", "caseid", "conversationid", "caseconceptname", "conversation", "traceid"),
        *("trace", "sessionid", "session", "threadid", "thread", "runid", "run"),
    ),
    "activity": (
        *("activity", "activityname", "conceptname", "type", "eventtype", "eventname"),
        *("event", "action", "step", "task", "operation"),
    ),
    "time": (
        *("time", "timestamp", "ts", "timetimestamp", "eventtime", "datetime"),
        *("completetimestamp", "endtime", "starttime", "createdat", "at", "date"),
    ),
    "agent": ("agent", "resource", "orgresource", "worker", "provider", "user"),
}
_YES, _NO = {"true", "yes", "1", "t", "y"}, {"false", "no", "0", "f", "n"}
_NO_ERROR = {"", "none", "null", "nan", "false", "0", "-"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which column of a log has what; None: its name is guessed, an agent's may be missing."""

    case: str | None = None
    activity: str | None = None
    time: str | None = None
    agent: str | None = None


class EventLog:
    """A log that is being read.

    Attributes:
        name: Its path, as it was given.
        columns: The columns that are read; None of a log whose rows are events already.
        skipped: Rows that are none, by what is wrong with them; complete at the end of `events`.
        notes: What a person should know about the file.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.columns: Columns | None = None
        self.skipped: Counter[str] = Counter()
        self.notes: list[str] = []
        self.events: Iterator[object] = iter(())

    def lines(self, text: io.TextIOBase) -> Iterator[str]:
        """Yield lines; one that is too long is counted, and read past."""
        read = text.readline
        while line := read(LINE):
            if len(line) == LINE and line[-1] not in "\r\n":
                self.skipped["oversized"] += 1
                while (rest := read(LINE)) and rest[-1] not in "\r\n":
                    pass
            else:
                yield line


@contextmanager
def opened_log(
    path: str, columns: Columns, *, field: str = "", encoding: str | None = None
) -> Iterator[EventLog]:
    """Open a log for one reading.

    Args:
        path: CSV or JSONL, also compressed by gzip; "-" is stdin.
        field: A further column that is handed on, for an outcome rule to look at.
        encoding: None is UTF-8, or what a byte order mark says.

    Raises:
        ValueError: It is empty, binary, or has no such column; the message names those it has.
        OSError: It cannot be read; from the events too, where an archive is damaged.
    """
    with _bytes(path) as raw:
        log = EventLog(path)
        with _damage_told(path):
            sample = raw.peek(SAMPLE)[:SAMPLE]
        if encoding is None or encoding.lower() in ("utf-8", "utf8"):
            encoding = next((name for mark, name in _MARKS if sample.startswith(mark)), encoding)
        _check_text(path, sample, encoding, log)
        try:
            text = io.TextIOWrapper(raw, encoding or "utf-8", errors="backslashreplace", newline="")
        except LookupError:
            raise ValueError(
                f"{encoding!r:.60} is no encoding of text; one is utf-8, latin-1 or utf-16"
            ) from None
        try:
            read = _objects if _is_jsonl(path, sample.decode(text.encoding, "ignore")) else _csv
            with _damage_told(path):
                log.events = _guarded(path, read(log, text, columns, field))
            yield log
        finally:
            text.detach()  # the bytes are closed by who opened them


@contextmanager
def _bytes(path: str) -> Iterator[io.BufferedReader]:
    if path == "-":
        if not hasattr(sys.stdin, "buffer"):
            raise ValueError("there is no stdin to read the log from")
        yield _unpacked(cast(io.BufferedReader, sys.stdin.buffer))
    else:
        with open(path, "rb", SAMPLE) as file:
            yield _unpacked(cast(io.BufferedReader, file))


def _unpacked(file: io.BufferedReader) -> io.BufferedReader:
    if file.peek(2)[:2] != b"\x1f\x8b":
        return file
    return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=file, mode="rb")), SAMPLE)


@contextmanager
def _damage_told(path: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise OSError(f"{path} is damaged, or only a part of an archive: {problem}") from problem


def _guarded(path: str, events: Iterable[object]) -> Iterator[object]:
    with _damage_told(path):
        yield from events


def _check_text(path: str, sample: bytes, encoding: str | None, log: EventLog) -> None:
    """Refuse what is no text; note where letters may be wrong."""
    if encoding is None:
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            decoder.decode(sample)
        except UnicodeDecodeError:
            log.notes.append(
                "some bytes are not UTF-8 and are shown as \\x…: name the encoding of the file, "
                "such as --encoding latin-1"
            )
        signs = sum(byte < 32 and byte not in b"\t\n\v\f\r\x1b" for byte in sample)
        if signs > len(sample) / 10 or (b"\0" in sample and log.notes):
            raise ValueError(f"{path} is a binary file: a log is CSV or JSONL, or these gzipped")


def _is_jsonl(path: str, beginning: str) -> bool:
    """Say whether it is JSONL: by its name, or else by its first letter."""
    name = path.lower().removesuffix(".gz")
    first = beginning.lstrip("\ufeff \t\r\n")[:1]
    if first == "[" and not name.endswith((".csv", ".tsv")):
        raise ValueError(f"{path} is one JSON array: a log has one object a line (JSONL)")
    return (
        first == "{"
        if not name.endswith((".jsonl", ".ndjson", ".csv", ".tsv"))
        else (name.endswith(("jsonl", "ndjson")))
    )


# CSV -----------------------------------------------------------------------------------------


def _csv(log: EventLog, text: io.TextIOBase, columns: Columns, field: str) -> Iterator[object]:
    """Read the header; return the events of the rows."""
    lines = log.lines(text)
    first = next((line for line in lines if line.strip()), "")
    if not first:
        raise ValueError(f"{log.name} is empty: there is nothing to learn from")
    counted = {sign: len(_cells(first, sign)) for sign in DELIMITERS}
    delimiter = max(counted, key=lambda sign: counted[sign])
    rows = _rows(log, chain([first], lines), delimiter)
    header = [name.strip() for name in next(rows, [])]
    log.columns = _found(columns, header, field)
    return _rows_as_events(log, header, rows, field)


def _cells(line: str, delimiter: str) -> Sequence[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _rows(log: EventLog, lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        before = reader.line_num
        try:
            for row in reader:
                before = reader.line_num
                if row:
                    yield row
            return
        except csv.Error as problem:  # of all rows that a lost quote had swallowed
            word = "oversized" if "field larger" in str(problem) else "not_csv"
            log.skipped[word] += max(1, reader.line_num - before)


def _rows_as_events(
    log: EventLog, header: Sequence[str], rows: Iterable[list[str]], field: str
) -> Iterator[object]:
    """Yield rows as events of one form, with nothing in them but what is looked at."""
    assert log.columns is not None
    at = {name: place for place, name in reversed([*enumerate(header)])}
    case, activity, time = (
        at[name] for name in (log.columns.case, log.columns.activity, log.columns.time) if name
    )
    agent = None if log.columns.agent is None else at[log.columns.agent]
    used = {log.columns.case, log.columns.activity, log.columns.time, log.columns.agent}
    more = [(name, at[column], read) for name, column, read in _more(header, used, field)]
    width, needed = len(header), max(case, activity, time)
    for number, row in enumerate(rows):
        if len(row) != width:
            if len(row) <= needed:
                log.skipped["too_few_cells"] += 1
                continue
            if any(row[width:]):
                log.skipped["too_many_cells"] += 1
                continue
            row += [""] * (width - len(row))
        data: dict[str, object] = {"row": number}  # two rows that say the same are two events
        for name, place, read in more:
            data[name] = read(row[place])
        yield {
            "type": row[activity],
            "conversation_id": row[case],
            "timestamp": moment_of(row[time]),
            "agent": None if agent is None else row[agent] or None,
            "data": data,
        }


def _more(
    header: Iterable[str], used: Iterable[str | None], field: str
) -> Iterator[tuple[str, str, Callable[[str], object]]]:
    """Yield (field of an event, column, how its text is read) of what may say how it ended."""
    by_name = {_bare(name): name for name in header} | {name: name for name in header}
    taken = set(used)
    for name, read in _READ.items():
        column = by_name.get(name, by_name.get(_bare(name)))
        if column is not None and column not in taken and name != field:
            yield name, column, read
    if field:
        yield field, field, str


def _text(cell: str) -> object:
    return cell or None


def _said(cell: str) -> object:
    return None if cell.strip().lower() in _NO_ERROR else cell


def _truth(cell: str) -> object:
    word = cell.strip().lower()
    return True if word in _YES else False if word in _NO else None


def _number(cell: str) -> object:
    try:
        return float(cell)
    except ValueError:
        return None


_READ: Mapping[str, Callable[[str], object]] = {
    "status": _text,
    "error": _said,
    "task_type": _text,
    "duration_ms": _number,
    "is_valid": _truth,
    "valid": _truth,
}


def moment_of(value: object) -> object:
    """Return a time as events have it: numbers in seconds since 1970, other text as it is."""
    if isinstance(value, str):
        if value[4:5] == "-":  # ISO 8601
            return value
        try:
            value = float(value)
        except ValueError:
            return value or None
    if isinstance(value, int | float) and not isinstance(value, bool):
        size = abs(value)
        for least, unit in _UNITS:
            if size >= least:
                try:
                    return value / unit
                except OverflowError:  # thousands of digits are no time
                    return None
    return value


# JSONL ---------------------------------------------------------------------------------------


def _objects(log: EventLog, text: io.TextIOBase, columns: Columns, field: str) -> Iterator[object]:
    """Look at the first objects; return the events of all."""
    values = _values(log, log.lines(text))
    sample = list(islice(values, ROWS))
    keys: dict[str, None] = {}
    for value in sample:
        if isinstance(value, dict):
            keys |= dict.fromkeys(value)
            data = value.get("data")
            keys |= dict.fromkeys(data if isinstance(data, dict) else ())
    if not keys:
        raise ValueError(f"{log.name} has no JSON object in it: JSONL has one a line")
    every = chain(sample, values)
    chosen = any(getattr(columns, each.name) is not None for each in fields(columns))
    if not chosen and "type" in keys and "timestamp" in keys:
        return map(_as_event, every)
    log.columns = _found(columns, [*keys], field)
    return _objects_as_events(log.columns, every, field)


def _values(log: EventLog, lines: Iterable[str]) -> Iterator[object]:
    for line in lines:
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                log.skipped["not_json"] += 1


def _as_event(value: object) -> object:
    """Return what is an event already, with its time in seconds."""
    if isinstance(value, dict) and value.get("timestamp") is not None:
        value["timestamp"] = moment_of(value["timestamp"])
    return value


def _objects_as_events(columns: Columns, values: Iterable[object], field: str) -> Iterator[object]:
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            yield value  # told by the miner for what it is
            continue
        inside = value.get("data")
        data = inside if isinstance(inside, dict) else {}

        both = ChainMap(value, data)
        more: dict[str, object] = {name: both.get(name) for name in (*_READ, field) if name}
        if "duration_ms" not in value and isinstance(more["duration_ms"], str):
            more["duration_ms"] = _number(more["duration_ms"])
        more["row"] = number
        yield {
            "type": both.get(columns.activity),
            "conversation_id": both.get(columns.case),
            "timestamp": moment_of(both.get(columns.time)),
            "agent": both.get(columns.agent),
            "data": more,
        }


# Names of columns ----------------------------------------------------------------------------


def _found(columns: Columns, header: Sequence[str], field: str) -> Columns:
    """Return the columns by the names that they have in this log.

    Raises:
        ValueError: If one is named that is not there, or cannot be guessed.
    """
    by_name = {_bare(name): name for name in reversed(header)}
    found: dict[str, str | None] = {}
    for what, guesses in _NAMES.items():
        named = getattr(columns, what)
        if named is not None:
            found[what] = _named(named, header, f"--{what}")
            continue
        free = (by_name[guess] for guess in guesses if guess in by_name)
        found[what] = next((name for name in free if name not in found.values()), None)
        if found[what] is None and what != "agent":
            raise ValueError(
                f"which column is the {what}? Name it with --{what}; {_listed(header)}"
            )
    if field:
        _named(field, header, "the outcome rule")
    return Columns(**found)


def _named(name: str, header: Sequence[str], where: str) -> str:
    if name in header:
        return name
    alike = [column for column in header if _bare(column) == _bare(name)]
    if len(alike) == 1 and where.startswith("--"):
        return alike[0]
    raise ValueError(f"there is no column {name!r:.60} for {where}; {_listed(header)}")


def _listed(header: Sequence[str]) -> str:
    more = f" and {len(header) - LISTED} more" if len(header) > LISTED else ""
    return f"the log has: {', '.join(in_brief(name, 40) for name in header[:LISTED])}{more}"


def _bare(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
