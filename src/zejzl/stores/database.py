"""One open database file: the thread that writes, the threads that read, the lock that says so.

Nothing here blocks the event loop; what the file does not do becomes a StoreError.
"""

import asyncio
import atexit
import logging
import os
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, LifoQueue
from threading import Lock
from typing import Literal, TypeVar

from zejzl.errors import StoreError
from zejzl.stores.connection import code, connect_reader, connect_writer, explain, lenient
from zejzl.stores.owners import OwnerLock
from zejzl.stores.writer import Unfinished, Writer

T = TypeVar("T")
log = logging.getLogger(__name__)

READERS = 2  # threads, each with a connection


class Database:
    """A file that is opened, written, read and closed.

    Attributes:
        path: The file, absolute.
    """

    def __init__(
        self, path: Path, *, durability: Literal["normal", "full"], busy_timeout: float
    ) -> None:
        self.path = path
        self._durability = durability
        self._busy_timeout = busy_timeout
        self._state = "not open yet: call open() first"
        self._changing = Lock()  # taken by the threads that open and close, never by the loop
        self._connection: sqlite3.Connection | None = None
        self._file: os.stat_result | None = None
        self._lock: OwnerLock | None = None
        self._writer: Writer | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._idle: LifoQueue[sqlite3.Connection] = LifoQueue()

    async def open(self) -> None:
        """Make ready; do nothing when open already."""
        await asyncio.get_running_loop().run_in_executor(None, self._open)

    async def close(self) -> None:
        """Write what is queued and let go; do nothing when closed already."""
        self._state = self._state or "closed"  # here, so that no write is queued behind the end
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    def write(self, work: Callable[[sqlite3.Connection], T | Unfinished]) -> Awaitable[T]:
        """Queue `work` for the next commit."""
        if self._state or self._writer is None:
            raise self._unusable()
        return self._writer.put(work)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` finds; it sees what was committed when it began."""
        if self._state or self._readers is None:
            raise self._unusable()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._with_reader, work)

    @property
    def lock(self) -> OwnerLock:
        """This store's sign of life, and how to see those of others."""
        if self._lock is None:
            raise self._unusable()
        return self._lock

    def _unusable(self) -> StoreError:
        return StoreError(f"the store {self.path} is {self._state}")

    def _explain(self, error: sqlite3.Error | OSError) -> StoreError:
        return explain(error, self.path)

    def _open(self) -> None:
        with self._changing:
            if self._connection is not None:
                return
            try:
                connection = connect_writer(
                    self.path, busy_timeout=self._busy_timeout, durability=self._durability
                )
                try:
                    self._file = os.stat(self.path)
                    self._lock = OwnerLock(self.path)
                except OSError:
                    connection.close()
                    raise
            except (sqlite3.Error, OSError) as error:
                raise self._explain(error) from error
            self._connection = connection
            self._readers = ThreadPoolExecutor(READERS, "zejzl-store-reader")
            self._writer = Writer(connection, self._explain, self._is_there)
            self._state = ""
            # A host that forgets close() still gets its dropped writes on disk.
            atexit.register(self._close)

    def _close(self) -> None:
        with self._changing:
            self._state = self._state or "closed"
            if self._writer is not None:
                self._writer.stop()
            if self._readers is not None:
                self._readers.shutdown()
            while not self._idle.empty():
                self._idle.get_nowait().close()
            if self._connection is not None:
                self._checkpoint(self._connection)
                self._connection.close()
            if self._lock is not None:
                self._lock.release()
            self._writer = self._readers = self._connection = self._lock = None
            atexit.unregister(self._close)

    def _is_there(self) -> None:
        """Raise StoreError unless the path still leads to the open file.

        SQLite itself would go on writing into a file that nobody can open any more.
        """
        try:
            if self._file and os.path.samestat(os.stat(self.path), self._file):
                return
        except OSError:
            pass
        raise StoreError(
            f"{self.path} was deleted or replaced while it was in use; nothing was written; "
            "stop the bus and start it again"
        )

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:  # what is committed is safe in the WAL
            log.warning("checkpoint at close: %s", self._explain(error))

    def _with_reader(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            try:
                connection = self._idle.get_nowait()
            except Empty:
                connection = connect_reader(self.path, busy_timeout=self._busy_timeout)
            try:
                return _read(work, connection)
            finally:
                self._idle.put(connection)
        except sqlite3.Error as error:
            raise self._explain(error) from error


def _read(work: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    try:
        return work(connection)
    except sqlite3.OperationalError as error:
        if code(error) is not None:
            raise
        lenient(connection)  # Python could not decode a text; from here on it reads more slowly
        return work(connection)
