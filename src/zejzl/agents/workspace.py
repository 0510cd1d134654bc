"""A folder that work may read and write, and nothing outside of it.

A path is text that a stranger may have written. It is relative, its parts are plain names, and no
part of it may be a symbolic link: each folder is opened by itself, without following links, so
that what was checked is what is used, also where somebody swaps a folder for a link in between.
Hidden files (".env", ".git/hooks") are out of reach: they steer shells, tools and editors.

What is written is written whole: a new file beside it, on disk, then renamed into its place.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from zejzl.errors import shorten

LONGEST_PATH = 1_000
LONGEST_PART = 200  # with the marks of the new file beside it, below what file systems take
MOST_FILES = 10_000  # of one listing
MOST_DEPTH = 50  # folders within folders
LARGEST = 1_000_000  # bytes of one file
PART = ".zejzl-part"
PAUSE = 0.02  # seconds between two looks at a lock

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe would hold one up


class OutOfBounds(ValueError):
    """A path that leads out of the workspace, or to what is out of reach inside of it."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"path {shorten(path)!r} is not allowed: {why}")
        self.path = path


class ReadOnly(ValueError):
    """Something is to be written where nothing may be."""


class WorkspaceBusy(OSError):
    """Somebody else, in whatever process, writes in this workspace at present."""


def checked_path(path: str) -> str:
    """Return a path in its usual form, such as "notes/a.txt"; "" is the workspace itself.

    Raises:
        OutOfBounds: If it is absolute, goes up, is hidden, or holds what no name should.
        TypeError: If it is no text.
    """
    if not isinstance(path, str):
        raise TypeError(f"a path is text, not {type(path).__name__}")
    if len(path) > LONGEST_PATH:
        raise OutOfBounds(path, f"it has {len(path)} characters, {LONGEST_PATH} may be")
    if not path.isprintable() or "\\" in path:
        raise OutOfBounds(path, "it holds control characters or a backslash")
    if path.startswith(("/", "~")) or (path[1:2] == ":" and path[:1].isalpha()):
        raise OutOfBounds(path, "it is not relative to the workspace")
    parts = PurePosixPath(path).parts
    for part in parts:
        if part == "..":
            raise OutOfBounds(path, "it goes up")
        if part.startswith("."):
            raise OutOfBounds(path, "hidden files are out of reach")
        if len(part.encode()) > LONGEST_PART:
            raise OutOfBounds(path, f"a name in it has more than {LONGEST_PART} bytes")
    return "/".join(parts)


class Workspace:
    """A folder for work.

    Every method does its work at once; from an event loop call it in a thread.

    Args:
        folder: An existing folder; it may itself be reached through links.
        read_only: Whether nothing in it is to be changed.

    Attributes:
        folder: Where it is, links resolved.
        read_only: As given.

    Raises:
        NotADirectoryError, FileNotFoundError: If there is no such folder.
    """

    def __init__(self, folder: str | Path, *, read_only: bool = False) -> None:
        self.read_only = read_only
        self.folder = Path(folder).resolve(strict=True)
        if not self.folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a workspace is a folder", str(folder))

    @contextmanager
    def _opened(self, parts: list[str], path: str, *, make: bool = False) -> Iterator[int]:
        """Open the folder at `parts`, one after the other, following no link."""
        here = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=here)
                        os.fsync(here)
                try:
                    inner = os.open(part, _FOLDER, dir_fd=here)
                except OSError as problem:
                    if problem.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(part, here):
                        raise OutOfBounds(path, "it goes through a symbolic link") from None
                    raise _named(problem, path) from None
                os.close(here)
                here = inner
            yield here
        finally:
            os.close(here)

    def read_bytes(self, path: str) -> bytes:
        """Return a file's content.

        Raises:
            OutOfBounds: If the path leads out, or to a link.
            OSError: If it cannot be read; it is no regular file, or larger than 1 MB.
        """
        folder, name = _split(path)
        with self._opened(folder, path) as here:
            try:
                file = os.open(name, _FILE, dir_fd=here)
            except OSError as problem:
                if problem.errno == errno.ELOOP:
                    raise OutOfBounds(path, "it is a symbolic link") from None
                raise _named(problem, path) from None
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise OSError(errno.EINVAL, "it is no regular file", path)
                with open(file, "rb", closefd=False) as opened:
                    content = opened.read(LARGEST + 1)
            finally:
                os.close(file)
        if len(content) > LARGEST:
            raise OSError(errno.EFBIG, f"it has more than {LARGEST} bytes", path)
        return content

    def read_text(self, path: str) -> str:
        """Return a file's text; raises ValueError where it is not UTF-8, and as `read_bytes`."""
        try:
            return self.read_bytes(path).decode("utf-8-sig")
        except UnicodeDecodeError as problem:
            raise ValueError(f"{path}: it is no UTF-8 text: {problem.reason}") from None

    def digest(self, path: str) -> str | None:
        """Return the SHA-256 of a file's content, hexadecimal; None: there is no file."""
        try:
            return hashlib.sha256(self.read_bytes(path)).hexdigest()
        except FileNotFoundError:
            return None

    def write_bytes(self, path: str, content: bytes) -> None:
        """Put a file in place, whole and on disk when this returns; make missing folders.

        Raises:
            OutOfBounds: If the path leads out, or through a link.
            ReadOnly: If nothing may be written here.
            OSError: If it cannot be written; what was there is still there then.
        """
        self.check_writable(path)
        if len(content) > LARGEST:
            raise OSError(errno.EFBIG, f"it would have more than {LARGEST} bytes", path)
        folder, name = _split(path)
        with self._opened(folder, path, make=True) as here:
            there = _mode(name, here)
            if there and not stat.S_ISREG(there):
                raise OutOfBounds(path, "something is there that is no regular file")
            part = f".{name}.{secrets.token_hex(4)}{PART}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            # Who could not read the old one is not to read the new one, at no moment.
            try:
                file = os.open(part, flags, 0o600 if there else 0o666, dir_fd=here)
            except OSError as problem:
                raise _named(problem, path) from None
            try:
                with open(file, "wb") as opened:
                    if there:
                        os.fchmod(file, stat.S_IMODE(there) & 0o777)
                    opened.write(content)
                    opened.flush()
                    os.fsync(file)
                os.replace(part, name, src_dir_fd=here, dst_dir_fd=here)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=here)
                raise
            os.fsync(here)

    def check_writable(self, path: str) -> None:
        """Raise ReadOnly where nothing may be written."""
        if self.read_only:
            raise ReadOnly(f"{path} is to be written, and this workspace is only for reading")

    def remove(self, path: str) -> None:
        """Remove a file; that it is gone already is no error."""
        self.check_writable(path)
        folder, name = _split(path)
        with suppress(FileNotFoundError), self._opened(folder, path) as here:
            os.unlink(name, dir_fd=here)
            os.fsync(here)

    def missing_folders(self, path: str) -> list[str]:
        """Return the folders that writing this file would make, the outermost first.

        Raises:
            OutOfBounds: If the path leads out, or through a link.
        """
        folder, _ = _split(path)
        for depth in range(len(folder), 0, -1):
            try:
                with self._opened(folder[:depth], path):
                    return ["/".join(folder[: n + 1]) for n in range(depth, len(folder))]
            except FileNotFoundError:
                continue
        return ["/".join(folder[: n + 1]) for n in range(len(folder))]

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder; one that holds something, or is gone already, is let be."""
        self.check_writable(path)
        folder, name = _split(path)
        with suppress(OSError), self._opened(folder, path) as here:
            os.rmdir(name, dir_fd=here)
            os.fsync(here)

    def files(self, folder: str = "") -> list[str]:
        """Return the paths of all regular files below a folder, sorted.

        Hidden files, links, names that are no allowed paths, and what is in folders that cannot be
        opened are left out.

        Raises:
            OutOfBounds, OSError: As `read_bytes`; also where there are more than 10,000.
        """
        parts = checked_path(folder).split("/") if checked_path(folder) else []
        found: list[str] = []
        with self._opened(parts, folder) as here:
            self._walk(here, "/".join(parts), 0, found)
        return sorted(found)

    def _walk(self, here: int, prefix: str, depth: int, found: list[str]) -> None:
        with os.scandir(here) as entries:
            inside = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_folder in inside:
            path = f"{prefix}/{name}" if prefix else name
            try:
                checked_path(path)
            except OutOfBounds:
                continue
            if is_folder and depth < MOST_DEPTH:
                # One that is gone meanwhile, or may not be read, hides its own files and no others.
                with (
                    suppress(FileNotFoundError, PermissionError),
                    self._opened(path.split("/"), path) as inner,
                ):
                    self._walk(inner, path, depth + 1, found)
            elif stat.S_ISREG(_mode(name, here)):
                found.append(path)
                if len(found) > MOST_FILES:
                    raise OSError(errno.EFBIG, f"it has more than {MOST_FILES} files", prefix)

    def sweep(self, path: str) -> None:
        """Remove what a writer of this file that died has left beside it."""
        folder, name = _split(path)
        ours = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}{re.escape(PART)}")
        with suppress(FileNotFoundError), self._opened(folder, path) as here:
            for left in os.listdir(here):
                if ours.fullmatch(left) and stat.S_ISREG(_mode(left, here)):
                    os.unlink(left, dir_fd=here)

    def lock(self, patience: float, stop: threading.Event) -> int:
        """Return a lock that nobody else, in whatever process, has until `unlock`.

        It is gone with whoever held it, also when that was killed.

        Args:
            patience: Seconds to wait for it.
            stop: Set by somebody else, it ends the wait.

        Raises:
            WorkspaceBusy: If somebody else has it all that time.
        """
        here = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for _ in range(max(1, int(patience / PAUSE))):
            try:
                fcntl.flock(here, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return here
            except BlockingIOError:
                if stop.wait(PAUSE):
                    break
        os.close(here)
        raise WorkspaceBusy(
            errno.EWOULDBLOCK, "somebody else writes in this workspace", str(self.folder)
        )

    @staticmethod
    def unlock(lock: int) -> None:
        """Give the lock back."""
        os.close(lock)


def _split(path: str) -> tuple[list[str], str]:
    *folder, name = checked_path(path).split("/")
    if not name:
        raise OutOfBounds(path, "it names no file")
    return folder, name


def _mode(name: str, folder: int) -> int:
    """Return what kind of thing is there and who may use it, as `stat` tells it; 0: nothing."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _is_link(name: str, folder: int) -> bool:
    return stat.S_ISLNK(_mode(name, folder))


def _named(problem: OSError, path: str) -> OSError:
    """Return the error with the path as it was given, not the last part of it."""
    return type(problem)(problem.errno, problem.strerror, path)
