"""Giving the room of deleted rows back to the disk."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from zejzl.errors import StoreFull, StoreLocked
from zejzl.stores.arguments import stamp
from zejzl.stores.connection import connect, connect_still, explain, schema_of
from zejzl.stores.examine import size_of
from zejzl.stores.owners import open_stores

# VACUUM writes the rows to a temporary file and then to the log: sqlite.org/lang_vacuum.html
ROOM = 2  # times the file
_BUSY_TIMEOUT = 5.0
_OLD = (
    "SELECT count(*) FROM messages WHERE state IN ('settled', 'dead') AND asked_at < ?",
    "SELECT count(*) FROM events WHERE at < ?",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What can be saved.

    Attributes:
        bytes: Size of the file with its log.
        free: Bytes of it that hold nothing.
        old: Messages and events that are older than they are kept.
    """

    bytes: int
    free: int
    old: int


def compactable(database: Path, *, before: datetime | None) -> Compaction:
    """Return what compacting would find; `before` is when what is older is not kept.

    Raises:
        StoreError: If the file cannot be read.
    """
    try:
        with closing(connect_still(database, busy_timeout=_BUSY_TIMEOUT)) as connection:
            connection.execute("BEGIN")
            tables = schema_of(connection, database)
            pages = connection.execute("PRAGMA freelist_count").fetchone()[0]
            size = connection.execute("PRAGMA page_size").fetchone()[0]
            old = 0
            if before is not None and tables:
                limit = stamp(before)
                old = sum(connection.execute(query, (limit,)).fetchone()[0] for query in _OLD)
        return Compaction(bytes=size_of(database), free=pages * size, old=old)
    except (sqlite3.Error, OSError) as error:
        raise explain(error, database) from error


def refuse_unless_compactable(database: Path, *, room: Callable[[Path], int] | None = None) -> None:
    """Raise unless a database may be rewritten now.

    Args:
        room: Returns the free bytes of a folder's disk; default asks the system.

    Raises:
        StoreLocked: If a bus has it open: its writes would have to wait, and fail.
        StoreFull: If the disk lacks room.
    """
    if others := open_stores(database):
        raise StoreLocked(
            f"{database} is in use ({others} open); stop the bus and try again. A running bus "
            "deletes what is old by itself; only the room stays taken"
        )
    try:
        needed = ROOM * size_of(database)
        free = (room or _room)(database.parent)
    except OSError as error:
        raise explain(error, database) from error
    if free < needed:
        raise StoreFull(
            f"{database}: to compact it takes {needed:,} bytes for a while, the disk has "
            f"{free:,}; free some space and try again. Nothing was changed"
        )


def vacuum(database: Path) -> None:
    """Rewrite a database without what is empty.

    Raises:
        StoreError: If it cannot be done; then the file is what it was.
    """
    try:
        with closing(connect(database, busy_timeout=_BUSY_TIMEOUT)) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise explain(error, database) from error


def _room(folder: Path) -> int:
    return shutil.disk_usage(folder).free
