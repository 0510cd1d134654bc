"""The one thread that writes: everything that waits goes into one transaction.

    put ─▶ queue ─▶ BEGIN · item · item · item · COMMIT ─▶ one wake-up of the event loop

A commit costs about as much for one write as for a hundred, so the group that gathers while one
commits shares the next: nobody waits for company, and a crowd costs little more than one.
A write that is wrong in itself is undone alone (a savepoint); when the database will not have
the group, nothing of it is kept and all are told.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Final, NamedTuple, TypeVar

from zejzl.errors import StoreError
from zejzl.stores.connection import code

T = TypeVar("T")
log = logging.getLogger(__name__)

GROUP_LIMIT = 1_000  # items; what one group may keep the next waiting for
_OWN_FAULT = (
    None,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_RANGE,
    sqlite3.SQLITE_TOOBIG,
)


class Unfinished:
    """What a write returns that has more to do: it is put back into the queue, at the end."""


UNFINISHED: Final = Unfinished()


class Job(NamedTuple):
    """A write that waits."""

    work: Callable[[sqlite3.Connection], object]
    future: "asyncio.Future[object]"


class Outcome(NamedTuple):
    """What became of it."""

    job: Job
    result: object
    error: Exception | None


class Writer:
    """Runs writes in the order in which they were put, until `stop`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        explain: Callable[[sqlite3.Error], StoreError],
        check: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._explain = explain
        self._check = check
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="zejzl-store-writer", daemon=True)
        self._thread.start()

    def put(self, work: Callable[[sqlite3.Connection], T | Unfinished]) -> "asyncio.Future[T]":
        """Queue `work` and return what will be done when it is committed, or has failed."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(Job(work, future))  # type: ignore[arg-type]
        return future

    def stop(self) -> None:
        """Write what is queued; return when the thread has ended. The connection stays open."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        stopping = False
        while not (stopping and self._queue.empty()):
            group = [self._queue.get()]
            waiting = min(self._queue.qsize(), GROUP_LIMIT)
            group += [self._queue.get_nowait() for _ in range(waiting)]
            jobs = [job for job in group if job is not None]
            stopping = stopping or len(jobs) < len(group)
            if jobs:
                self._tell(self._commit(jobs))

    def _commit(self, jobs: list[Job]) -> list[Outcome]:
        execute = self._connection.execute
        try:
            self._check()
        except StoreError as error:
            log.warning("a group of %d writes failed: %s", len(jobs), error)
            return [Outcome(job, None, type(error)(str(error))) for job in jobs]
        try:
            execute("BEGIN IMMEDIATE")
            if len(jobs) == 1:  # its own savepoint: saves a tenth of the time
                outcomes = [self._try(jobs[0])]
                execute("COMMIT" if outcomes[0].error is None else "ROLLBACK")
            else:
                outcomes = [self._try_alone(job) for job in jobs]
                execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):  # SQLite may have rolled back itself; or it cannot
                execute("ROLLBACK")
            log.warning("a group of %d writes failed: %s", len(jobs), error)
            # An error each: whoever catches one may write on it.
            return [Outcome(job, None, self._explain(error)) for job in jobs]
        for outcome in outcomes:
            if outcome.result is UNFINISHED:
                self._queue.put(outcome.job)
        return [outcome for outcome in outcomes if outcome.result is not UNFINISHED]

    def _try_alone(self, job: Job) -> Outcome:
        execute = self._connection.execute
        execute("SAVEPOINT item")
        outcome = self._try(job)
        if outcome.error is not None:
            execute("ROLLBACK TO item")
        execute("RELEASE item")
        return outcome

    def _try(self, job: Job) -> Outcome:
        """Return what `job` did; raise what the database will not do for anyone."""
        try:
            return Outcome(job, job.work(self._connection), None)
        except sqlite3.Error as error:
            if code(error) not in _OWN_FAULT or not self._connection.in_transaction:
                raise
            return Outcome(job, None, self._explain(error))
        except Exception as error:  # noqa: BLE001 - the thread must outlive any caller's mistake
            return Outcome(job, None, error)

    def _tell(self, outcomes: list[Outcome]) -> None:
        for loop in {outcome.job.future.get_loop() for outcome in outcomes}:
            theirs = [each for each in outcomes if each.job.future.get_loop() is loop]
            try:
                loop.call_soon_threadsafe(_resolve, theirs)
            except RuntimeError:
                log.debug("%d writes are done, but their event loop is closed", len(theirs))


def _resolve(outcomes: Sequence[Outcome]) -> None:
    for job, result, error in outcomes:
        if job.future.done():  # cancelled meanwhile; what was written stays
            if error is not None:
                log.warning("a write that nobody waits for failed: %s", error)
        elif error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)
