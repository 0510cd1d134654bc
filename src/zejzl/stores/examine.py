"""What state a database file is in, asked without changing it."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from zejzl.errors import StoreError
from zejzl.stores.check import damage, problems
from zejzl.stores.connection import connect_still, explain, known_schema, schema_of
from zejzl.stores.memory_tables import memory_problems
from zejzl.stores.owners import open_stores


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A database file as it was found.

    Attributes:
        bytes: Size with its write-ahead log.
        schema: How many migrations it has had; None where that cannot be read.
        known_schema: How many this zejzl knows. An older file is migrated when it is opened.
        open_stores: How many buses and commands have it open.
        problems: A sentence for everything that is wrong; empty when nothing is.
        damaged: Whether that is damage; else the file is another program's, or a newer zejzl's.
    """

    path: Path
    bytes: int
    schema: int | None
    known_schema: int
    open_stores: int
    problems: tuple[str, ...] = ()
    damaged: bool = False


def examine(database: Path, *, busy_timeout: float = 5.0) -> Examined:
    """Return the state of a database, damaged or not.

    Raises:
        StoreError: If nobody can look: no such file, no permission, locked.
    """
    schema: int | None = None
    damaged = True
    try:
        size = size_of(database)
        with closing(connect_still(database, busy_timeout=busy_timeout)) as connection:
            connection.execute("BEGIN")
            schema = int(connection.execute("PRAGMA user_version").fetchone()[0])
            found = _looked_through(connection, database)
    except StoreError as not_for_us:
        found, damaged = [str(not_for_us)], False
    except (sqlite3.Error, OSError) as error:
        explained = explain(error, database)
        if not is_damage(error):
            raise explained from error
        found = [str(explained)]
    return Examined(
        path=database,
        bytes=size,
        schema=schema,
        known_schema=known_schema(),
        open_stores=open_stores(database),
        problems=tuple(found),
        damaged=damaged and bool(found),
    )


def _looked_through(connection: sqlite3.Connection, database: Path) -> list[str]:
    if schema_of(connection, database) == known_schema():
        return problems(connection) + memory_problems(connection)
    return damage(connection)  # what it must hold is known of today's tables only


def is_damage(error: sqlite3.Error | OSError) -> bool:
    """Say whether the file is what is wrong, and not the way to it."""
    extended = getattr(error, "sqlite_errorcode", None)
    return extended is not None and extended & 0xFF in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )


def size_of(database: Path) -> int:
    """Return the bytes of a database with its write-ahead log."""
    log = database.with_name(f"{database.name}-wal")
    return database.stat().st_size + (log.stat().st_size if log.exists() else 0)
