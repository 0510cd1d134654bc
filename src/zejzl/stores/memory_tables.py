"""Memories in a SQLite file, and the index that finds their words.

The index (`memory_words`, FTS5) is given words that `words_of` has split, joined by blanks; its
tokenizer "ascii" takes every run of letters, digits and characters beyond ASCII for one word, and
so finds exactly these. Where this SQLite has no FTS5, rows are marked as not indexed, and a search
looks through their text: slower, with the same result.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import closing
from datetime import datetime
from functools import cache
from typing import Any, Literal, TypeVar

from zejzl.ports import ANY, MOST_MEMORIES, Memory, Whichever
from zejzl.stores import statements as sql
from zejzl.stores.arguments import stamp
from zejzl.stores.database import Database
from zejzl.stores.memories import Wanted, check_memories, holds, line_of, words_of
from zejzl.stores.requests import time_of

T = TypeVar("T")
Row = TypeVar("Row")
_SHOWN = 5  # ids that a problem names


@cache
def has_fts5() -> bool:
    """Whether the SQLite of this Python has full-text search, version 5."""
    with closing(sqlite3.connect(":memory:")) as connection:
        return ("fts5",) in connection.execute("PRAGMA module_list").fetchall()


class Memories:
    """What of a `SqliteStore` is about memories."""

    _database: Database
    _readable: Callable[[str, Iterable[Any], Callable[[Any], Any]], list[Any]]

    def remember(self, memories: Sequence[Memory], *, keep: int = MOST_MEMORIES) -> Awaitable[None]:
        check_memories(memories, keep)
        indexed = has_fts5()
        rows = [
            (each.id, each.type, each.conversation_id, stamp(each.at), each.body, each.text)
            for each in memories
        ]
        lines = [line_of(words_of(each.text)) if indexed else "" for each in memories]

        def work(connection: sqlite3.Connection) -> None:
            if indexed and not _has_index(connection):
                connection.execute(sql.CREATE_INDEX)
            for row, line in zip(rows, lines, strict=True):
                written = connection.execute(sql.REMEMBER, (*row, indexed))
                if written.rowcount and indexed:
                    connection.execute(sql.INDEX, (written.lastrowid, line))
            _forget_beyond(connection, keep)

        return self._database.write(work)

    async def recall(
        self,
        *,
        type: str | None = None,
        conversation_id: str | Literal[Whichever.ANY] | None = ANY,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        limit: int = 100,
    ) -> list[Memory]:
        wanted = Wanted(type, conversation_id, since, until, text, limit)
        words = wanted.words
        if text is not None and not words:
            return await self._database.read(lambda connection: [])

        def work(connection: sqlite3.Connection) -> list[Memory]:
            searched = _searched(connection, words)
            conditions, values = _conditions(wanted, searched, words)
            query = f"{sql.MEMORIES}{conditions} ORDER BY at DESC, seq DESC LIMIT ?"
            rows = connection.execute(query, (*values, limit)).fetchall()
            return self._readable("memories", rows[::-1], _memory)

        return await self._database.read(work)


def _searched(connection: sqlite3.Connection, words: Sequence[str]) -> str:
    """Return the condition that finds words, after making `holds` known to the connection."""
    if not words:
        return ""

    def found(text: str) -> bool:
        return holds(line_of(words_of(text)), words)

    connection.create_function("holds_words", 1, found)
    usable = has_fts5() and _has_index(connection)
    return sql.IN_INDEX if usable else sql.IN_TEXT


def _conditions(
    wanted: Wanted, searched: str, words: Sequence[str]
) -> tuple[str, list[str | None]]:
    """Return the WHERE clause of what is wanted, and its values."""
    found: dict[str, str | None] = {}
    if wanted.type is not None:
        found["type = ?"] = wanted.type
    if wanted.conversation_id is not ANY:
        found["conversation_id IS ?"] = wanted.conversation_id
    if wanted.since is not None:
        found["at >= ?"] = stamp(wanted.since)
    if wanted.until is not None:
        found["at < ?"] = stamp(wanted.until)
    if searched == sql.IN_INDEX:
        found[searched] = " AND ".join(f'"{word}"' for word in words)
    clauses = [*found, *([sql.IN_TEXT] if searched == sql.IN_TEXT else [])]
    return (f" WHERE {' AND '.join(clauses)}" if clauses else ""), [*found.values()]


def _memory(row: tuple[str, str, str | None, str, str, str]) -> Memory:
    id, type, conversation_id, at, body, text = row
    return Memory(
        id=id, type=type, conversation_id=conversation_id, at=time_of(at), body=body, text=text
    )


def _has_index(connection: sqlite3.Connection) -> bool:
    return connection.execute(sql.INDEX_EXISTS).fetchone() is not None


def _forget_beyond(connection: sqlite3.Connection, keep: int) -> None:
    """Drop those that were remembered first, until `keep` are left."""
    (span,) = connection.execute(sql.MEMORY_SPAN).fetchone()
    if span > keep:  # counted only then: there may be gaps
        (count,) = connection.execute(sql.COUNT_MEMORIES).fetchone()
        if count > keep:
            _forget(connection, connection.execute(sql.FIRST_MEMORIES, (count - keep,)).fetchall())


def _forget(connection: sqlite3.Connection, seqs: list[tuple[int]]) -> int:
    # What is left in an index that cannot be reached finds nothing: no number is used twice.
    if has_fts5() and _has_index(connection):
        connection.executemany(sql.UNINDEX, seqs)
    connection.executemany(sql.FORGET_MEMORY, seqs)
    return len(seqs)


def prune_memories(connection: sqlite3.Connection, limit: str, most: int) -> int:
    """Delete at most `most` memories older than `limit`; return how many they were."""
    return _forget(connection, connection.execute(sql.OLD_MEMORIES, (limit, most)).fetchall())


def memory_problems(connection: sqlite3.Connection) -> list[str]:
    """Return a sentence for everything that is wrong with memories and their index."""
    if not (has_fts5() and _has_index(connection)):
        return []
    ids = [id for (id,) in connection.execute(sql.LOST_WORDS, (_SHOWN + 1,))]
    more = " and more" if len(ids) > _SHOWN else ""
    told = f"memories that no search finds: {', '.join(map(repr, ids[:_SHOWN]))}{more}"
    return [told] if ids else []
