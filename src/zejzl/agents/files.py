"""Files as an observer reads them: each once, whole or not at all, and never an exception.

Whatever is not a plain file (a device, a pipe, a socket) is not opened; what says that it is empty
and is not (`/proc`) is read up to the limit. Links lead nowhere outside of the folder that is
looked through.
"""

import codecs
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypedDict

MOST_FILES = 1_000
MOST_ENTRIES = 100_000  # names that are looked at in a folder and those below it
MOST_DEPTH = 50  # folders within folders
MOST_UNREAD = 1_000  # of what could not be read, that is named

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe would hold one up
_MARKS = (  # the longer first: one begins like another
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What no text in a single-byte encoding holds: control characters save layout and escape.
_BINARY = bytes({*range(32)} - {7, 8, 9, 10, 11, 12, 13, 27} | {127})


class Unread(TypedDict):
    """What could not be read, and why."""

    what: str
    why: str


@dataclass(slots=True)
class Reading:
    """What one observation may read, and what it could not.

    Attributes:
        largest: Bytes of one thing.
        left: Bytes of all that is still to be read.
        files: Files that still may be read.
        unread: What could not be, the first of it.
        more: How much more could not be.
    """

    largest: int
    left: int
    files: int
    unread: list[Unread] = field(default_factory=list)
    more: int = 0

    @property
    def most(self) -> int:
        """Bytes that the next thing may have."""
        return min(self.largest, self.left)

    def tell(self, what: str, why: str | Exception) -> None:
        """Note what could not be read."""
        if isinstance(why, Exception):
            why = (why.strerror if isinstance(why, OSError) else str(why)) or type(why).__name__
        if len(self.unread) < MOST_UNREAD:
            self.unread.append(Unread(what=shown(what), why=why))
        else:
            self.more += 1

    def told(self) -> list[Unread]:
        """Return all that could not be read, or its beginning and a count."""
        rest = Unread(what="…", why=f"{self.more} more could not be read")
        return [*self.unread, rest] if self.more else self.unread

    def too_much(self, size: int | None = None) -> str:
        """Return why something of this size is not read; None: of nobody knows which."""
        if self.left < self.largest and (size is None or size <= self.largest):
            return f"the observation is full: it has room for {self.left} more bytes"
        if size is None:
            return f"more than {self.largest} bytes"
        return f"{size} bytes; {self.largest} are the most"


def shown(path: str) -> str:
    """Return a path as UTF-8 can hold it."""
    return path.encode("utf-8", "replace").decode()


def gather(
    reading: Reading, files: Sequence[str], folder: str | None, globs: Sequence[str]
) -> list[dict[str, object]]:
    """Return the files that can be read: path, text, encoding, bytes; the others are told."""
    found, seen, beyond = [], set[tuple[int, int]](), 0
    for path in (*files, *([] if folder is None else _within(folder, globs, reading))):
        if reading.files < 1:
            beyond += 1
            continue
        try:
            read = _read(path, reading, seen)
        except (OSError, ValueError) as problem:
            reading.tell(path, problem)
        else:
            found += [read] if read is not None else []
    if beyond:
        reading.tell("further files", f"{beyond} of them: {len(found)} are the most")
    return found


def _read(path: str, reading: Reading, seen: set[tuple[int, int]]) -> dict[str, object] | None:
    """Return a file; None: it was read already. Raises OSError or ValueError: why it cannot be."""
    known = os.stat(path)
    if not stat.S_ISREG(known.st_mode):
        raise ValueError(f"{_kind(known.st_mode)}, not a file")
    if (known.st_dev, known.st_ino) in seen:
        return None
    if known.st_size > reading.most:
        raise ValueError(reading.too_much(known.st_size))
    content = _content(path, reading.most + 1)
    if len(content) > reading.most:  # it has grown, or never says how large it is
        raise ValueError(reading.too_much())
    text, encoding = decoded(content)
    seen.add((known.st_dev, known.st_ino))
    reading.files -= 1
    reading.left -= len(content)
    return {"path": shown(path), "text": text, "encoding": encoding, "bytes": len(content)}


def _content(path: str, most: int) -> bytes:
    handle = os.open(path, _FLAGS)
    with open(handle, "rb", buffering=0) as file:
        mode = os.fstat(handle).st_mode  # it may be another than a moment ago
        if not stat.S_ISREG(mode):
            raise ValueError(f"{_kind(mode)}, not a file")
        pieces, left = [], most
        while left and (piece := file.read(left)) != b"":
            if piece is None:
                raise ValueError("it would have to be waited for")
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def decoded(content: bytes) -> tuple[str, str]:
    """Return text and the name of its encoding; "latin-1" is a guess, where it is no UTF-8.

    Raises:
        ValueError: If it is no text.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            try:
                return content.decode(encoding), encoding
            except UnicodeDecodeError as problem:
                raise ValueError(f"not {encoding}, as its mark says: {problem.reason}") from None
    if b"\0" in content:
        raise ValueError("binary, not text")
    try:
        return content.decode(), "utf-8"
    except UnicodeDecodeError:
        if content.translate(None, _BINARY) != content:
            raise ValueError("binary, not text") from None
        return content.decode("latin-1"), "latin-1"


# Folders


def _within(folder: str, globs: Sequence[str], reading: Reading) -> Iterator[str]:
    """Yield the paths of files in a folder that match, sorted; tell what cannot be looked at."""
    patterns = [tuple(glob.split("/")) for glob in globs]
    for glob, pattern in zip(globs, patterns, strict=True):
        if glob.startswith("/") or ".." in pattern:
            reading.tell(glob, "a glob stays in its folder: no leading / and no ..")
            return
    left = MOST_ENTRIES
    waiting: list[tuple[str, tuple[str, ...]]] = [(folder, ())]
    while waiting:
        place, parts = waiting.pop()
        try:
            root = os.path.realpath(folder)
            with os.scandir(place) as entries:
                names = sorted(entries, key=lambda entry: entry.name)
        except (OSError, ValueError) as problem:
            reading.tell(place, problem)
            continue
        left -= len(names)
        if left < 0:
            reading.tell(place, f"more than {MOST_ENTRIES} names; the rest is not looked at")
            return
        below = []
        for entry in names:
            where = (*parts, entry.name)
            if _is_folder(entry):
                below += [(entry.path, where)] if _may_match(where, patterns) else []
            elif not any(fits(where, pattern) for pattern in patterns):
                continue
            elif entry.is_symlink() and not _inside(entry.path, root):
                reading.tell(entry.path, "a link that leads to no file in the folder")
            else:
                yield entry.path
        if below and len(parts) >= MOST_DEPTH:
            reading.tell(place, f"more than {MOST_DEPTH} folders deep")
        else:
            waiting += reversed(below)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _inside(path: str, root: str) -> bool:
    try:
        real = os.path.realpath(path)
    except OSError:  # it may lead somewhere that must not be known
        return False
    return os.path.commonpath([real, root]) == root and os.path.isfile(real)


def fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a glob, both in parts; `**` is any folders, none as well."""
    return len(pattern) in _reached(parts, pattern)


def _may_match(parts: Sequence[str], patterns: Sequence[Sequence[str]]) -> bool:
    """Whether something below a folder could match."""
    return any(min(_reached(parts, each), default=len(each)) < len(each) for each in patterns)


def _reached(parts: Sequence[str], pattern: Sequence[str]) -> set[int]:
    """Return how far into the pattern the parts may lead."""
    reached = _beyond({0}, pattern)
    for part in parts:
        hidden = part.startswith(".")
        after = set[int]()
        for place in reached - {len(pattern)}:
            wanted = pattern[place]
            if hidden and not wanted.startswith("."):
                continue
            if wanted == "**":
                after.add(place)
            elif fnmatchcase(part, wanted):
                after.add(place + 1)
        reached = _beyond(after, pattern)
    return reached


def _beyond(places: set[int], pattern: Sequence[str]) -> set[int]:
    """Add what is reached where `**` stands for nothing."""
    reached = set(places)
    for place in sorted(places):
        while place < len(pattern) and pattern[place] == "**":
            place += 1
            reached.add(place)
    return reached
