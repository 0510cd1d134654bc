"""Copies of a database file: made while it is in use, checked, and put back.

A backup is one file, `zejzl-<UTC time>.db`, with its SHA-256 beside it in the form of
`sha256sum -c`. It has its name only once it is whole, checked and on disk, so a process that is
killed leaves a `.part` behind and nothing else; the next backup removes that.

To put one back never deletes: what was there stays beside it as `zejzl.db.replaced-<UTC time>`.

Source: sqlite.org/backup.html (the online backup API), sqlite.org/howtocorrupt.html section 1.4
(a database must never meet the write-ahead log of another).
"""

import fcntl
import hashlib
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from zejzl.errors import StoreCorrupt, StoreError, StoreLocked
from zejzl.stores.check import damage
from zejzl.stores.connection import connect_still, explain, schema_of
from zejzl.stores.owners import OwnerLock, open_stores

KEPT = 5  # backups, unless somebody says otherwise
_NAMES = re.compile(r"zejzl-\d{8}T\d{6}\.\d{6}Z\.db", re.ASCII)
_BUSY_TIMEOUT = 5.0  # seconds to wait for another process that holds the file


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A whole, checked copy.

    Attributes:
        sha256: Of the file, in hexadecimal.
        schema: How many migrations the copied database has had.
        removed: Older backups that went to make room for it.
    """

    path: Path
    bytes: int
    sha256: str
    schema: int
    removed: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A database that was put back.

    Attributes:
        kept: What was there before; None where nothing was.
    """

    path: Path
    backup: Path
    schema: int
    kept: Path | None


def back_up(database: Path, folder: Path, *, at: datetime, keep: int = KEPT) -> Backup:
    """Copy a database, whether or not a bus uses it, and keep the last `keep` copies.

    Raises:
        StoreCorrupt: If the database is damaged; then no backup is made, and none goes.
        StoreLocked: If another backup into that folder is under way.
        StoreError: If the file cannot be read or the copy not be written; says why.
    """
    if keep < 1:
        raise ValueError(f"at least one backup must be kept, not {keep}")
    target = folder / f"zejzl-{_stamp(at)}.db"
    part = target.with_suffix(".part")
    with _in_words(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(folder):
            for left in folder.glob("zejzl-*.part"):  # by somebody who was killed
                left.unlink()
            try:
                schema = _copy(database, part)
                made = Backup(
                    path=target, bytes=part.stat().st_size, sha256=_digest(part), schema=schema
                )
                _write_digest(made)
                part.replace(target)
                _sync(folder)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            gone = tuple(backups(folder)[keep:])
            for old in gone:
                old.unlink()
                _beside(old).unlink(missing_ok=True)
            for lone in folder.glob("zejzl-*.db.sha256"):
                if not lone.with_suffix("").exists():
                    lone.unlink()
    return Backup(path=made.path, bytes=made.bytes, sha256=made.sha256, schema=schema, removed=gone)


def backups(folder: Path) -> list[Path]:
    """Return the backups in a folder, newest first; what has no such name is none."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if _NAMES.fullmatch(path.name)), reverse=True)


def verify(backup: Path) -> Backup:
    """Return what a backup holds, having read all of it.

    Raises:
        StoreCorrupt: If it is damaged, or not what its SHA-256 was taken of.
        StoreTooNew: If a newer zejzl made it.
        StoreError: If it is no database of zejzl's, or cannot be read.
    """
    with _in_words(backup):
        digest = _digest(backup)
        if _beside(backup).exists() and _beside(backup).read_text().split()[:1] != [digest]:
            raise StoreCorrupt(
                f"{backup} is not what was backed up: its SHA-256 differs from the one in "
                f"{_beside(backup).name}; take another backup"
            )
        with closing(connect_still(backup, busy_timeout=_BUSY_TIMEOUT)) as connection:
            schema = _checked(connection, backup)
        size = backup.stat().st_size
    return Backup(path=backup, bytes=size, sha256=digest, schema=schema)


def newest_good(folder: Path) -> tuple[Backup | None, list[StoreError]]:
    """Return the newest backup that can be put back, and what is wrong with newer ones."""
    wrong: list[StoreError] = []
    for path in backups(folder):
        try:
            return verify(path), wrong
        except StoreError as problem:
            wrong.append(problem)
    return None, wrong


def restore(backup: Path, database: Path, *, at: datetime) -> Restored:
    """Put a backup in a database's place; what was there stays beside it.

    Raises:
        StoreLocked: If a bus or a command has the database open; then nothing was changed.
        StoreCorrupt: If the backup is damaged; then nothing was changed.
        StoreError: If it is no backup of ours, too new, or cannot be read or written.
    """
    place = database.resolve()  # a link goes on pointing where it pointed
    part = place.with_name(f"{place.name}.restoring")
    with _in_words(database):
        if database.is_dir():
            raise StoreError(f"{database} is a folder, and was left as it is")
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = OwnerLock(database)  # two who restore at once see each other
        try:
            if others := open_stores(database) - 1:
                raise StoreLocked(
                    f"{database} is in use ({others} open); stop the bus and try again. "
                    "Nothing was changed"
                )
            schema = verify(backup).schema
            part.unlink(missing_ok=True)
            _copy(backup, part)
            kept = _set_aside(place, at)
            part.replace(place)
            _sync(place.parent)
        finally:
            part.unlink(missing_ok=True)
            lock.release()
    return Restored(path=database, backup=backup, schema=schema, kept=kept)


def _copy(source: Path, target: Path) -> int:
    """Copy a database as it is at one moment, check the copy, and return its schema."""
    if not source.exists():
        raise StoreError(f"there is no database {source}")
    try:
        with closing(connect_still(source, busy_timeout=_BUSY_TIMEOUT)) as old:
            os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            with closing(sqlite3.connect(target, isolation_level=None)) as new:
                old.backup(new)
                new.execute("PRAGMA journal_mode = DELETE")  # one file, with no log beside it
                schema = _checked(new, source)
    except sqlite3.Error as error:
        raise explain(error, source) from error
    file = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
    return schema


def _checked(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema of a database that is whole and ours."""
    schema = schema_of(connection, path)
    if found := damage(connection):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise StoreCorrupt(f"{path} is damaged: {found[0]}{more}")
    return schema


def _set_aside(place: Path, at: datetime) -> Path | None:
    """Give what is there a second name, and take its log away; it is never without a name."""
    if not place.exists():
        return None
    kept = place.with_name(f"{place.name}.replaced-{_stamp(at)}")
    log = place.with_name(f"{place.name}-wal")
    if log.exists() and log.stat().st_size:
        _twin(log, kept.with_name(f"{kept.name}-wal"))
    _twin(place, kept)
    log.unlink(missing_ok=True)
    place.with_name(f"{place.name}-shm").unlink(missing_ok=True)
    return kept


def _twin(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:  # a file system without hard links
        shutil.copy2(path, other)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time make backups in a folder."""
    file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StoreLocked(
            f"another backup into {folder} is under way; wait for its end and try again"
        ) from None
    finally:
        os.close(file)


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise explain(error, path) from error


def _stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"


def _beside(backup: Path) -> Path:
    return backup.with_name(f"{backup.name}.sha256")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_digest(made: Backup) -> None:
    """Write it before the backup has its name: no backup is ever without one."""
    file = os.open(_beside(made.path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, f"{made.sha256}  {made.path.name}\n".encode())
        os.fsync(file)
    finally:
        os.close(file)


def _sync(folder: Path) -> None:
    """Have the names in a folder on disk as well."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
