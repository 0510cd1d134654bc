"""A Store in one SQLite file that several processes may share.

Here are the rows and what is asked of them. Writes go through one thread that commits them in
groups (`writer.py`); reads have threads and connections of their own (`database.py`), so that
neither waits for the other, nor the event loop for either. A read sees every write that had been
awaited when it was called.

What survives: durability "normal" a killed process, "full" a power cut as well (an fsync for
every group). Who still runs is told by file locks (`owners.py`).
"""

import json
import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar

from zejzl.clock import Clock, SystemClock
from zejzl.errors import StoreCorrupt
from zejzl.events import Event, from_json, utc
from zejzl.messages import Message
from zejzl.stores import statements as sql
from zejzl.stores.arguments import check_events, check_limit, check_texts, event_rows, stamp
from zejzl.stores.check import problems
from zejzl.stores.database import Database
from zejzl.stores.memory_tables import Memories, memory_problems, prune_memories
from zejzl.stores.requests import Requests, message_of, time_of
from zejzl.stores.writer import UNFINISHED, Unfinished

T = TypeVar("T")

PRUNE_ROWS = 500  # rows deleted in one transaction, so that no other write waits long
PRUNE = sql.PRUNE_MESSAGES, sql.PRUNE_EVENTS, sql.PRUNE_SNAPSHOTS, sql.PRUNE_COMMANDS


class SqliteStore(Requests, Memories):
    """A Store in a file.

    Args:
        path: The database; its folder is made if there is none.
        durability: "normal" survives a killed process, "full" a power cut as well.
        busy_timeout: Seconds to wait for another process that holds the file.
        clock: Where the times of snapshots and outcomes come from.

    Attributes:
        unread_events: Stored events that this version could not read, and skipped.
    """

    shared = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["normal", "full"] = "normal",
        busy_timeout: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        if durability not in ("normal", "full"):
            raise ValueError(f"durability must be normal or full, not {durability!r}")
        self.unread_events = 0
        self._clock = clock or SystemClock()
        self._database = Database(
            Path(path).absolute(), durability=durability, busy_timeout=busy_timeout
        )

    @property
    def path(self) -> Path:
        """The database file."""
        return self._database.path

    @property
    def owner(self) -> str:
        """This store's id in the file, new with every `open`."""
        return self._database.lock.owner

    async def open(self) -> None:
        """Make ready: create the file or migrate it. Does nothing when open already.

        Raises:
            StoreTooNew: If a newer zejzl has migrated the file; it is left as it was.
            StoreError: If the file cannot be used; the class and the message say why.
        """
        await self._database.open()

    async def close(self) -> None:
        """Write what is queued and let go. Does nothing when closed already."""
        await self._database.close()

    async def history(self, conversation_id: str, limit: int) -> list[Message]:
        check_limit(limit)
        check_texts(conversation_id=conversation_id)
        return await self._newest(sql.HISTORY, conversation_id, limit)

    async def messages(
        self, *, conversation_id: str | None = None, limit: int = 100
    ) -> list[Message]:
        check_limit(limit)
        check_texts(conversation_id=conversation_id)
        if conversation_id is None:
            return await self._newest(sql.NEWEST, limit)
        return await self._newest(sql.NEWEST_OF_ONE, conversation_id, limit)

    async def _newest(self, query: str, *values: str | int) -> list[Message]:
        """Return the messages that a query for the newest finds, oldest first."""

        def work(connection: sqlite3.Connection) -> list[Message]:
            rows = connection.execute(query, values).fetchall()
            return self._readable("messages", rows[::-1], message_of)

        return await self._database.read(work)

    def record(self, events: Sequence[Event]) -> Awaitable[None]:
        check_events(events)
        rows = event_rows(events)

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(sql.EVENT, rows)

        return self._database.write(work)

    async def events(
        self, *, type: str | None = None, since: datetime | None = None, limit: int = 100
    ) -> list[Event]:
        check_limit(limit)
        wanted = {"type = ?": type, "at >= ?": since and stamp(since)}
        wanted = {condition: value for condition, value in wanted.items() if value is not None}
        where = f"WHERE {' AND '.join(wanted)}" if wanted else ""
        query = f"{sql.EVENTS} {where} ORDER BY seq DESC LIMIT ?"
        rows = await self._database.read(
            lambda connection: connection.execute(query, (*wanted.values(), limit)).fetchall()
        )
        events = self._readable("events", rows[::-1], _event)
        self.unread_events += len(rows) - len(events)
        return events

    async def setting(self, name: str) -> str | None:
        check_texts(name=name)
        row = await self._database.read(
            lambda connection: connection.execute(sql.SETTING, (name,)).fetchone()
        )
        return None if row is None else str(row[0])

    def keep_setting(self, name: str, value: str | None) -> Awaitable[None]:
        check_texts(name=name, value=value)

        def work(connection: sqlite3.Connection) -> None:
            if value is None:
                connection.execute(sql.FORGET_SETTING, (name,))
            else:
                connection.execute(sql.KEEP_SETTING, (name, value))

        return self._database.write(work)

    def revise(
        self, name: str, change: Callable[[str | None], tuple[str | None, T]]
    ) -> Awaitable[T]:
        check_texts(name=name)

        def work(connection: sqlite3.Connection) -> T:
            row = connection.execute(sql.SETTING, (name,)).fetchone()
            value, result = change(None if row is None else str(row[0]))
            if value is None:
                connection.execute(sql.FORGET_SETTING, (name,))
            else:
                connection.execute(sql.KEEP_SETTING, (name, value))
            return result

        return self._database.write(work)

    def keep_snapshot(self, owner: str, body: str) -> Awaitable[None]:
        check_texts(owner=owner, body=body)
        row = owner, self.owner, stamp(utc(self._clock.wall())), body

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(sql.KEEP_SNAPSHOT, row)

        return self._database.write(work)

    async def snapshots(self) -> list[tuple[str, datetime, bool, str]]:
        def read(row: tuple[str, str, str, str]) -> tuple[str, datetime, bool, str]:
            owner, held_by, at, body = row
            return owner, time_of(at), self._database.lock.runs(held_by), body

        return await self._database.read(
            lambda connection: self._readable("snapshots", connection.execute(sql.SNAPSHOTS), read)
        )

    def post_command(self, owner: str, name: str, body: str) -> Awaitable[int]:
        check_texts(owner=owner, name=name, body=body)
        row = owner, name, body, stamp(utc(self._clock.wall()))

        def work(connection: sqlite3.Connection) -> int:
            id = connection.execute(sql.POST_COMMAND, row).lastrowid
            assert id is not None  # an INSERT has one
            return id

        return self._database.write(work)

    async def take_commands(self, owner: str) -> list[tuple[int, str, str]]:
        check_texts(owner=owner)

        def waiting(connection: sqlite3.Connection) -> list[tuple[int, str, str]]:
            return connection.execute(sql.WAITING_COMMANDS, (owner,)).fetchall()

        def take(connection: sqlite3.Connection) -> list[tuple[int, str, str]]:
            found = waiting(connection)
            connection.execute(sql.TAKE_COMMANDS, (owner,))
            return found

        return await self._database.write(take) if await self._database.read(waiting) else []

    def answer_command(self, id: int, ok: bool, body: str) -> Awaitable[None]:
        check_texts(body=body)

        def work(connection: sqlite3.Connection) -> None:
            row = "done" if ok else "failed", body, id
            if not connection.execute(sql.ANSWER_COMMAND, row).rowcount:
                raise ValueError(f"command {id} awaits no answer")

        return self._database.write(work)

    async def command(self, id: int) -> tuple[str, str] | None:
        return await self._database.read(
            lambda connection: connection.execute(sql.COMMAND, (id,)).fetchone()
        )

    async def check(self) -> list[str]:
        try:
            found = await self._database.read(problems)
            return found + await self._database.read(memory_problems)
        except StoreCorrupt as damage:
            return [str(damage)]

    def prune(self, *, before: datetime) -> Awaitable[int]:
        """Delete what is older than `before`, unsettled messages excepted; return how many rows.

        A message goes with its attempts, which are not counted. Other writes come between:
        a few hundred rows are deleted at a time.
        """
        limit = stamp(before)
        gone = 0

        def work(connection: sqlite3.Connection) -> int | Unfinished:
            nonlocal gone
            for query in PRUNE:
                deleted = connection.execute(query, (limit, PRUNE_ROWS)).rowcount
                gone += deleted
                if deleted == PRUNE_ROWS:
                    return UNFINISHED
            forgotten = prune_memories(connection, limit, PRUNE_ROWS)
            gone += forgotten
            return UNFINISHED if forgotten == PRUNE_ROWS else gone

        return self._database.write(work)


def _event(row: tuple[str]) -> Event:
    return from_json(json.loads(row[0]))
