"""A connection to the database file: made, migrated, and its errors put into words.

A file is ours when its application_id is; user_version counts the migrations it has had.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Literal

from zejzl.errors import (
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreTooNew,
)

APPLICATION_ID = 0x7A656A7A  # "zejz"
_TRIES = 20  # to switch to a write-ahead log while others start as well
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_NOT_OURS = "is not a zejzl database, and was left alone; give another path"


def connect(path: Path, *, busy_timeout: float) -> sqlite3.Connection:
    """Return a connection in autocommit that any one thread at a time may use."""
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw",  # it must exist: an empty file would be mistaken for ours
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def connect_writer(
    path: Path, *, busy_timeout: float, durability: Literal["normal", "full"]
) -> sqlite3.Connection:
    """Return a connection to write with, to a file that has today's tables.

    Raises:
        StoreTooNew: If a newer zejzl has migrated it; then nothing was written.
        StoreError: If it is another program's.
        sqlite3.Error, OSError: If the file would not do it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(path.resolve(), flags, 0o600))
    except FileExistsError:  # left alone: to close it would drop this process's locks on it
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path)) from None
    connection = connect(path, busy_timeout=busy_timeout)
    lenient(connection)  # it reads little
    try:
        connection.execute("BEGIN")  # one look at one moment: another process may be migrating
        version = schema_of(connection, path)
        connection.execute("COMMIT")
        _write_ahead(connection)
        connection.execute(f"PRAGMA synchronous = {durability}")
        if version < len(_migrations()):
            _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log. SQLite does not wait for others here: wait in another line."""
    for _ in range(_TRIES):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if code(error) != sqlite3.SQLITE_BUSY:
                raise
            connection.execute("BEGIN IMMEDIATE")  # waits, at most for the busy timeout
            connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL")


def lenient(connection: sqlite3.Connection) -> None:
    """Read text that is no UTF-8 as well, with marks in it: one such row must hide no others."""
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")


def connect_still(path: Path, *, busy_timeout: float) -> sqlite3.Connection:
    """Return a connection that leaves the file as it is, even at its close: it may be damaged."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=busy_timeout, isolation_level=None
    )
    lenient(connection)
    return connection


def connect_reader(path: Path, *, busy_timeout: float) -> sqlite3.Connection:
    """Return a connection that cannot change anything."""
    connection = connect(path, busy_timeout=busy_timeout)
    connection.execute("PRAGMA query_only = ON")
    return connection


@cache
def _migrations() -> list[Path]:
    return sorted((Path(__file__).parent / "schema").glob("*.sql"))


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the tables up to date, once, however many processes start together."""
    connection.execute("PRAGMA foreign_keys = OFF")  # to drop a table would drop what refers to it
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = schema_of(connection, path)
        for number, migration in enumerate(_migrations(), 1):
            if number > done:
                for statement in _statements(migration.read_text(encoding="utf-8")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("PRAGMA foreign_keys = ON")


def known_schema() -> int:
    """Return the schema that this zejzl writes: how many migrations it knows."""
    return len(_migrations())


def schema_of(connection: sqlite3.Connection, path: Path) -> int:
    """Return how many migrations the file has had; ask within a transaction.

    Raises:
        StoreTooNew: If that is more than this zejzl knows.
        StoreError: If it is another program's.
    """
    version = _number(connection, "PRAGMA user_version")
    owner = _number(connection, "PRAGMA application_id")
    empty = not _number(connection, "SELECT count(*) FROM sqlite_master")
    if owner != APPLICATION_ID and not (empty and version == 0):
        raise StoreError(f"{path} {_NOT_OURS}")
    if version > (known := len(_migrations())):
        raise StoreTooNew(
            f"{path} has schema {version}, this zejzl knows {known}: a newer version wrote it; "
            "upgrade zejzl, or give another path. Nothing was changed"
        )
    return version


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script: executescript() would commit between them."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code; None when the Python module itself complains."""
    extended: int | None = getattr(error, "sqlite_errorcode", None)
    return None if extended is None else extended & 0xFF


def explain(error: sqlite3.Error | OSError, path: Path) -> StoreError:
    """Return the error to raise instead: the file, what happened, and what to do."""
    explained = _in_words(error, path)
    explained.__cause__ = error
    return explained


def _in_words(error: sqlite3.Error | OSError, path: Path) -> StoreError:
    if isinstance(error, OSError):
        if error.errno in _FULL_DISK:
            return StoreFull(f"{path}: {error.strerror}; free some space and try again")
        return StoreReadOnly(
            f"{path} cannot be opened: {error.strerror} ({error.filename}); check that file and "
            "folder belong to this user, or set ZEJZL_HOME to a folder that does"
        )
    what = f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
    match code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreLocked(
                f"{path}: {what}: another process holds it; end that one (a backup? a database "
                "browser? a bus that hangs?) and try again"
            )
        case sqlite3.SQLITE_FULL:
            return StoreFull(f"{path}: {what}; nothing was written; free some space and try again")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StoreReadOnly(
                f"{path}: {what}; check that file and folder exist and belong to this user, or "
                "set ZEJZL_HOME to a folder that does"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreCorrupt(
                f"{path}: {what}; move it away to start anew, or save its rows with "
                "`sqlite3 FILE .recover`"
            )
        case sqlite3.SQLITE_IOERR:
            return StoreError(
                f"{path}: {what}; nothing was written; look at the disk and the system's log"
            )
        case _:
            return StoreError(f"{path}: {what}; nothing was written")
