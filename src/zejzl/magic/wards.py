"""Wards: integrity guards on files.

A guard keeps a file's SHA-256 and a copy of its content. `check` tells which files are no longer
what they were; `restore` puts the copy in place, if the copy's own hash is still right.

    <folder>/index.json       what is guarded; replaced whole, never written in place
    <folder>/<sha256>.copy    one for each content
    <folder>/lock             held by whoever works here, in whatever process

A copy is named by its content, so that guarding a file anew cannot spoil the guard it had: the
index goes from the old copy to the new one in one rename, and what nobody needs then, or what one
that died left lying here, is swept by whoever comes next.

This is for accidents and for other users: who may write here with our own rights can change the
index and the copies as well.
"""

import asyncio
import errno
import fcntl
import hashlib
import io
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar, TypeVarTuple

from zejzl.clock import Clock
from zejzl.errors import StoreTooNew
from zejzl.events import Event, GuardedFileChanged, utc

VERSION = 1
FOLDER = ".wards"
INDEX = "index.json"
COPIES = "[0-9a-f]" * 64 + ".copy"
PART = "new.part"
TRIES = 3
CHUNK = 1 << 20

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
WardState = Literal["intact", "changed", "missing", "copy damaged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ward:
    """Integrity guard on one file.

    Attributes:
        path: The file, symbolic links resolved.
        sha256: Of its content, hexadecimal.
        size: Of its content, in bytes.
        mode: Its permissions, without set-user-id and the like.
        copy: Where the copy is.
        at: When it was guarded.
    """

    path: Path
    sha256: str
    size: int
    mode: int
    copy: Path
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WardReport:
    """How a guarded file was found.

    Attributes:
        path: The file.
        state: "changed" is also what is no regular file now, or cannot be read; "copy damaged"
            is a file that is intact and could not be restored: guard it again.
        sha256: Of the content that is guarded.
        found: Of the content that is there; None where none could be read.
        mendable: Whether the copy is whole.
        problem: Why it could not be read, or "".
    """

    path: Path
    state: WardState
    sha256: str
    found: str | None
    mendable: bool
    problem: str = ""


class Wards:
    """Integrity guards on files, kept on disk: a later process finds them.

    The work is done in one thread, each in its turn; what has begun there goes on to its end,
    also when the caller is cancelled.

    Args:
        clock: For the time at which a file was guarded.
        folder: Where index and copies are kept; made when there is something to keep. None: in a
            folder `.wards` beside each file, and `check` looks only where this object has been.
        emit: Gets a `GuardedFileChanged` whenever a file's state is another; it must not raise.
    """

    def __init__(
        self,
        clock: Clock,
        folder: Path | None,
        emit: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._clock = clock
        self._folder = None if folder is None else folder.absolute()
        self._emit = emit
        self._folders = set() if self._folder is None else {self._folder}
        self._known: dict[Path, str] = {}
        # Not the loop's threads: those look up addresses, and a large file takes minutes.
        self._thread = ThreadPoolExecutor(1, "zejzl-guards")

    async def guard(self, path: str | Path) -> Ward:
        """Record a file's hash and a copy of it, in place of those recorded before.

        Raises:
            OSError: If it is missing, a folder, no regular file, cannot be read, keeps changing
                while it is copied, or the copy cannot be written. What was guarded before still is.
            ValueError: If it cannot be a path, or the index is damaged.
        """
        at = utc(self._clock.wall())
        ward, anew = await self._done(self._guard, Path(path), at)
        self._tell(
            ward, "intact", "guarded anew" if anew else "guarded", "intact" if anew else "unguarded"
        )
        return ward

    async def check(self) -> list[WardReport]:
        """Compare every guarded file, and every copy, with the hash on record; sorted by path.

        Raises:
            OSError: If the folder with the copies cannot be worked in.
            ValueError: If the index is damaged.
        """
        found = await self._done(self._check)
        for ward, report in found:
            if report.state != self._known.get(ward.path, "intact"):
                self._tell(ward, report.state, report.problem or "checked")
        return [report for _, report in found]

    async def restore(self, path: str | Path) -> bool:
        """Make a file what it was when it was guarded; False when the copy is damaged, too.

        What is there instead is kept beside it as `<name>.tampered-<n>`. A file that is intact
        is left alone. The new file has the old one's permissions and belongs to whoever restores.

        Raises:
            ValueError: If it is not guarded.
            OSError: If it cannot be written; what was there is still there then.
        """
        ward, state, aside = await self._done(self._restore, Path(path))
        if state == "restored":
            what = f"restored; what was there is now {aside.name}" if aside else "restored"
            self._tell(ward, "intact", what)
        return state != "copy damaged"

    async def forget(self, path: str | Path) -> None:
        """Guard a file no longer, and drop its copy.

        Raises:
            ValueError: If it is not guarded.
        """
        ward = await self._done(self._forget, Path(path))
        self._tell(ward, "unguarded", "forgotten")

    async def _done(self, act: Callable[[*Ts], T], *arguments: *Ts) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, act, *arguments)

    def _tell(self, ward: Ward, after: str, reason: str, first: str = "intact") -> None:
        before = self._known.get(ward.path, first)
        self._known[ward.path] = after
        self._emit(
            GuardedFileChanged(
                path=_storable(str(ward.path)),
                before=before,
                after=after,
                sha256=ward.sha256,
                reason=_storable(reason),
                timestamp=utc(self._clock.wall()),
            )
        )

    # In a thread -----------------------------------------------------------------------------

    def _guard(self, path: Path, at: datetime) -> tuple[Ward, bool]:
        real = Path(os.path.realpath(path, strict=True))
        if real.is_dir():
            what = "is a folder; guard the files in it one by one"
            raise IsADirectoryError(errno.EISDIR, what, str(path))
        folder = self._folder or real.parent / FOLDER
        with _opened(folder) as wards:
            anew = real in wards
            ward = wards[real] = _copied(real, folder, at)
        self._folders.add(folder)
        return ward, anew

    def _check(self) -> list[tuple[Ward, WardReport]]:
        found = []
        for folder in sorted(self._folders):
            if (folder / INDEX).exists():
                with _opened(folder) as wards:
                    found += [(ward, _report(ward)) for ward in wards.values()]
        return sorted(found, key=lambda each: each[0].path)

    def _restore(self, path: Path) -> tuple[Ward, str, Path | None]:
        with self._found(path) as (ward, _):
            if _holds(ward.path, ward.sha256):
                return ward, "intact", None
            if not _holds(ward.copy, ward.sha256):
                return ward, "copy damaged", None
            home = ward.path.parent
            home.mkdir(parents=True, exist_ok=True)
            # One name for each folder of copies: what a restore that died left here is replaced.
            name = hashlib.sha256(os.fsencode(ward.copy.parent)).hexdigest()[:16]
            part = home / f".{name}.part"
            with _copy(ward.copy, part) as (sha256, _):
                if sha256 != ward.sha256:
                    return ward, "copy damaged", None
                os.chmod(part, ward.mode)
                aside = _set_aside(ward.path)
                os.replace(part, ward.path)
            _sync(home)
            return ward, "restored", aside

    def _forget(self, path: Path) -> Ward:
        with self._found(path) as (ward, wards):
            return wards.pop(ward.path)

    @contextmanager
    def _found(self, path: Path) -> Iterator[tuple[Ward, dict[Path, Ward]]]:
        """Find the guard on a path; one on the path itself comes before one on its target.

        A link that was put in a guarded file's place must not lead away from the guard.
        """
        itself = Path(os.path.realpath(path.parent), path.name)
        for real in (itself, Path(os.path.realpath(path))):
            folder = self._folder or real.parent / FOLDER
            if (folder / INDEX).exists():
                with _opened(folder) as wards:
                    if real in wards:
                        self._folders.add(folder)
                        yield wards[real], wards
                        return
        raise ValueError(f"{path} is not guarded, so it is not known what it was")


@contextmanager
def _opened(folder: Path) -> Iterator[dict[Path, Ward]]:
    """Hold the folder; yield what is guarded there, and write that down if it was changed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(folder / "lock", "ab", opener=_privately) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wards = _read(folder)
        before = dict(wards)
        try:
            yield wards
            if wards != before:
                _write(folder, wards)
        finally:
            # By what is on disk: an index that could not be replaced still needs its copies.
            needed = {ward.copy for ward in _read(folder).values()}
            for path in {*folder.glob(COPIES), folder / PART} - needed:
                with suppress(OSError):
                    path.unlink()


def _read(folder: Path) -> dict[Path, Ward]:
    index = folder / INDEX
    try:
        body = json.loads(index.read_bytes())
        if body["v"] != VERSION:
            raise StoreTooNew(f"{index} is of version {body['v']!r}; this zejzl reads {VERSION}")
        wards = [_ward(folder, **row) for row in body["wards"]]
    except FileNotFoundError:
        return {}
    except (KeyError, TypeError, ValueError) as wrong:
        raise ValueError(
            f"{index} cannot be read ({wrong!r}): move it away and guard the files again"
        ) from None
    return {ward.path: ward for ward in wards}


def _ward(folder: Path, *, path: str, sha256: str, size: int, mode: int, at: str) -> Ward:
    return Ward(
        path=Path(path),
        sha256=sha256,
        size=int(size),
        mode=int(mode),
        copy=folder / f"{sha256}.copy",
        at=datetime.fromisoformat(at),
    )


def _write(folder: Path, wards: dict[Path, Ward]) -> None:
    rows = [
        {
            "path": str(ward.path),
            "sha256": ward.sha256,
            "size": ward.size,
            "mode": ward.mode,
            "at": ward.at.isoformat(),
        }
        for ward in wards.values()
    ]
    part = folder / PART
    with _new(part) as file:
        file.write(json.dumps({"v": VERSION, "wards": rows}, indent=1).encode())
        file.flush()
        os.fsync(file.fileno())
        os.replace(part, folder / INDEX)
    _sync(folder)


def _copied(real: Path, folder: Path, at: datetime) -> Ward:
    """Copy a file that stays the same meanwhile; a copy of two halves would be no guard."""
    part = folder / PART
    for _ in range(TRIES):
        with _copy(real, part) as (sha256, looked):
            # What is written through memory shows in the content only, permissions in its life.
            if _digest(real) == sha256 and _life(os.lstat(real)) == _life(looked):
                there = folder / f"{sha256}.copy"
                os.replace(part, there)
                _sync(folder)
                mode = looked.st_mode & 0o777  # a restored one may belong to somebody else
                size = looked.st_size
                return Ward(path=real, sha256=sha256, size=size, mode=mode, copy=there, at=at)
    what = "keeps changing while it is copied; guard it when nobody writes to it"
    raise OSError(errno.EBUSY, what, str(real))


@contextmanager
def _copy(path: Path, part: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Copy to `part`; yield the copy's own hash, and the original's state before it was read."""
    with _new(part) as copy:
        with _readable(path) as source:
            looked = os.fstat(source.fileno())
            while chunk := source.read(CHUNK):
                copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
        yield _digest(part), looked


@contextmanager
def _new(part: Path) -> Iterator[io.BufferedWriter]:
    """Yield a new private file; it is gone afterwards unless it was renamed."""
    part.unlink(missing_ok=True)
    try:
        with open(part, "xb", opener=_privately) as file:
            yield file
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _readable(path: Path) -> Iterator[io.BufferedReader]:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    with open(path, "rb", opener=_as_it_lies) as file:
        yield file


def _as_it_lies(path: str, flags: int) -> int:
    # Should it become a link or a pipe in this very moment: neither followed nor waited for.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _digest(path: Path) -> str:
    with _readable(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _holds(path: Path, sha256: str) -> bool:
    try:
        return _digest(path) == sha256
    except OSError:
        return False


def _report(ward: Ward) -> WardReport:
    state: WardState
    found, problem, mendable = None, "", _holds(ward.copy, ward.sha256)
    try:
        found = _digest(ward.path)
        intact: WardState = "intact" if mendable else "copy damaged"
        state = intact if found == ward.sha256 else "changed"
    except (FileNotFoundError, NotADirectoryError):
        state = "missing"
    except OSError as wrong:
        state, problem = "changed", str(wrong)
    return WardReport(
        path=ward.path,
        state=state,
        sha256=ward.sha256,
        found=found,
        mendable=mendable,
        problem=problem,
    )


def _set_aside(path: Path) -> Path | None:
    """Give what lies at `path` another name beside it, and keep the old one where possible."""
    if not os.path.lexists(path):
        return None
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.tampered-{number}")
        if os.path.lexists(aside):
            continue
        try:
            # A link and not a rename: whoever reads the path meanwhile finds a file.
            os.link(path, aside, follow_symlinks=False)
        except FileExistsError:  # by now
            continue
        except OSError:  # a folder, or a file system without links
            os.rename(path, aside)
        return aside
    raise AssertionError("counting does not end")


def _life(looked: os.stat_result) -> tuple[int, ...]:
    """What is another once a file was written, replaced or given other permissions."""
    times = looked.st_mtime_ns, looked.st_ctime_ns
    return looked.st_dev, looked.st_ino, looked.st_size, looked.st_mode, *times


def _sync(folder: Path) -> None:
    """Make renames outlive a power cut, where the file system can; they are done already."""
    with suppress(OSError):
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _storable(text: str) -> str:
    """File names may hold bytes that are no text; what is stored may not."""
    return os.fsencode(text).decode(errors="backslashreplace")
