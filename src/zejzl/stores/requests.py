"""The requests in a SQLite file: their journal, what waits, what they cost.

accept ──▶ attempt(n) ──▶ settle
  ▲                        └─▶ park ──▶ (due, or somebody asks)
  └──────────── taken up again ─────────────────┘
"""

import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from zejzl.clock import Clock
from zejzl.errors import StoreTooNew, shorten
from zejzl.events import Event, utc
from zejzl.messages import NOTHING, Attempt, Bill, Message
from zejzl.ports import USUAL_TERMS, InFlight, Kept, KeyTaken, Spending, SpendLimits, Terms
from zejzl.stores import statements as sql
from zejzl.stores.arguments import (
    check_limit,
    check_outcome,
    check_request,
    check_terms,
    check_texts,
    check_zone,
    event_rows,
    stamp,
)
from zejzl.stores.database import Database
from zejzl.stores.spending import Account, Sum, check_spend, day_of, sums

T = TypeVar("T")
Row = TypeVar("Row")
log = logging.getLogger(__name__)


class Requests:
    """What of a `SqliteStore` is about requests."""

    _database: Database
    _clock: Clock

    def accept(
        self,
        message: Message,
        provider: str,
        model: str,
        *,
        bill: Bill = NOTHING,
        terms: Terms = USUAL_TERMS,
        limits: SpendLimits | None = None,
        at: datetime | None = None,
    ) -> Awaitable[None]:
        check_texts(attempt_provider=provider)
        check_request(message, model)
        if terms is not USUAL_TERMS:
            check_terms(terms)
        now = at or utc(self._clock.wall())
        row = (
            message.id,
            message.conversation_id,
            message.sender,
            message.provider,
            message.content,
            stamp(message.timestamp),
            self._database.lock.owner,
            terms.key,
            terms.options,
            terms.parks,
        )
        attempt = Attempt(provider, model, "", 0.0, "first", "", bill, now)

        def work(connection: sqlite3.Connection) -> None:
            try:
                seq = connection.execute(sql.ACCEPT, row).lastrowid
            except sqlite3.IntegrityError as taken:
                if "idempotency_key" in str(taken):
                    raise KeyTaken(f"a request with the key {terms.key!r} exists already") from None
                raise ValueError(f"a message of id {message.id!r} exists already") from None
            assert seq is not None  # an INSERT has one
            _begin(connection, seq, 1, attempt, limits, message.conversation_id)

        return self._database.write(work)

    def attempt(
        self,
        message_id: str,
        number: int,
        provider: str,
        model: str,
        *,
        bill: Bill = NOTHING,
        limits: SpendLimits | None = None,
        at: datetime | None = None,
    ) -> Awaitable[None]:
        check_texts(id=message_id, provider=provider, model=model)
        now = at or utc(self._clock.wall())
        attempt = Attempt(provider, model, "", 0.0, "", "", bill, now)

        def work(connection: sqlite3.Connection) -> None:
            seq, conversation_id, _, _ = _under_way(connection, message_id)
            try:
                _begin(connection, seq, number, attempt, limits, conversation_id)
            except sqlite3.IntegrityError:
                raise ValueError(f"attempt {number} of {message_id!r} has begun already") from None

        return self._database.write(work)

    def settle(
        self,
        message: Message,
        attempts: Sequence[Attempt],
        events: Sequence[Event] = (),
        *,
        model: str = "",
        finish_reason: str = "",
        maybe_duplicate: bool = False,
    ) -> Awaitable[None]:
        check_outcome(message, attempts, events, model, finish_reason)
        rows = event_rows(events)
        now = utc(self._clock.wall())

        def work(connection: sqlite3.Connection) -> None:
            seq, conversation_id, counted, begun = _under_way(connection, message.id)
            turn = None
            if message.response is not None and conversation_id is not None:
                (turn,) = connection.execute(sql.NEXT_TURN, (conversation_id,)).fetchone()
            outcome = message.provider, message.response, message.response_time, message.error
            told = model, finish_reason, maybe_duplicate, stamp(now), turn
            connection.execute(sql.SETTLE, (*outcome, *told, len(attempts), seq))
            _conclude(connection, seq, attempts, rows, now, counted, begun)

        return self._database.write(work)

    def park(
        self,
        message: Message,
        attempts: Sequence[Attempt],
        events: Sequence[Event] = (),
        *,
        tries: int,
        due_at: datetime | None,
    ) -> Awaitable[None]:
        check_outcome(message, attempts, events)
        rows = event_rows(events)
        now = utc(self._clock.wall())
        state = ("dead", None) if due_at is None else ("parked", stamp(due_at))
        outcome = message.provider, message.response_time, message.error, stamp(now)

        def work(connection: sqlite3.Connection) -> None:
            seq, _, counted, begun = _under_way(connection, message.id)
            connection.execute(sql.PARK, (*state, tries, *outcome, len(attempts), seq))
            _conclude(connection, seq, attempts, rows, now, counted, begun)

        return self._database.write(work)

    def reopen(self, message_id: str) -> Awaitable[bool]:
        check_texts(id=message_id)

        def work(connection: sqlite3.Connection) -> bool:
            lock = self._database.lock
            row = connection.execute(sql.FIND, (message_id,)).fetchone()
            if row is None:
                return False
            seq, state, _, owner, answered, _, _ = row
            if answered or (state == "accepted" and lock.runs(owner)):
                return False
            connection.execute(sql.TAKE_UP, (lock.owner, seq))
            return True

        return self._database.write(work)

    async def orphans(self) -> list[InFlight]:
        return await self._database.write(self._claim)

    def _claim(self, connection: sqlite3.Connection) -> list[InFlight]:
        lock = self._database.lock
        claimed: list[tuple[int, InFlight]] = []
        for (owner,) in connection.execute(sql.OWNERS).fetchall():
            if not lock.runs(owner):
                rows = connection.execute(sql.ORPHANS, (owner,))
                claimed += self._readable(
                    "requests",
                    rows,
                    lambda row: (row[0], InFlight(message_of(row[1:-1]), row[-1])),
                )
                connection.execute(sql.CLAIM, (lock.owner, owner))
        lock.sweep()
        return [orphan for _, orphan in sorted(claimed, key=lambda pair: pair[0])]

    async def take_parked(self, *, before: datetime, limit: int = 100) -> list[Kept]:
        check_limit(limit)
        due = stamp(before)

        def found(connection: sqlite3.Connection) -> list[int]:
            runs = self._database.lock.runs
            owners = connection.execute(sql.PARKING_OWNERS).fetchall()
            gone = [owner for (owner,) in owners if not runs(owner)]
            left = [seq for owner in gone for (seq,) in connection.execute(sql.LEFT, (owner,))]
            return left + [seq for (seq,) in connection.execute(sql.DUE, (due, limit))]

        def take(connection: sqlite3.Connection) -> list[Kept]:
            seqs = found(connection)[:limit]
            rows = [connection.execute(sql.KEPT_AT, (seq,)).fetchone() for seq in seqs]
            return self._readable("requests", rows, lambda row: taken_up(connection, row))

        def taken_up(connection: sqlite3.Connection, row: Sequence[Any]) -> Kept:
            self._kept(connection, row)  # what cannot be read is not taken
            connection.execute(sql.TAKE_UP, (self._database.lock.owner, row[0]))
            return self._kept(connection, connection.execute(sql.KEPT_AT, row[:1]).fetchone())

        return await self._database.write(take) if await self._database.read(found) else []

    async def kept(self, *, id: str | None = None, key: str | None = None) -> Kept | None:
        check_texts(id=id, key=key)
        query, value = (sql.KEPT_BY_ID, id) if id is not None else (sql.KEPT_BY_KEY, key)

        def work(connection: sqlite3.Connection) -> Kept | None:
            row = connection.execute(query, (value,)).fetchone()
            return None if row is None else self._kept(connection, row)

        return await self._database.read(work)

    async def parked(self, *, limit: int = 1_000) -> list[Kept]:
        check_limit(limit)

        def work(connection: sqlite3.Connection) -> list[Kept]:
            rows = connection.execute(sql.PARKED, (limit,)).fetchall()
            return self._readable("requests", rows, lambda row: self._kept(connection, row))

        return await self._database.read(work)

    async def next_due(self) -> datetime | None:
        def work(connection: sqlite3.Connection) -> datetime | None:
            rows = connection.execute(sql.NEXT_DUE).fetchall()
            due = self._readable("requests", rows, lambda row: time_of(row[0]))
            return due[0] if due else None

        return await self._database.read(work)

    def _kept(self, connection: sqlite3.Connection, row: Sequence[Any]) -> Kept:
        seq, state, owner, key, options, parks, tries, due_at, model, *answer = row
        finish, duplicate, *message = answer
        return Kept(
            message=message_of(message),
            state=state,
            attempts=tuple(map(attempt_of, connection.execute(sql.ATTEMPTS_AT, (seq,)))),
            terms=Terms(key=key, options=options, parks=bool(parks)),
            model=model,
            finish_reason=finish,
            maybe_duplicate=bool(duplicate),
            tries=tries,
            due_at=None if due_at is None else time_of(due_at),
            abandoned=state == "accepted" and not self._database.lock.runs(owner),
        )

    async def attempts(self, message_id: str) -> list[Attempt]:
        check_texts(id=message_id)
        return await self._database.read(
            lambda connection: [
                attempt_of(row) for row in connection.execute(sql.ATTEMPTS, (message_id,))
            ]
        )

    async def spending(
        self, *, since: str = "", conversation_id: str | None = None
    ) -> list[Spending]:
        check_texts(since=since, conversation_id=conversation_id)

        def work(connection: sqlite3.Connection) -> list[Spending]:
            if conversation_id is None:
                rows = connection.execute(sql.SPENDING, (since,))
            else:
                rows = connection.execute(sql.SPENDING_OF_ONE, (conversation_id, since))
            return [Sum(*row[3:]).of(row[:3]) for row in rows]

        return await self._database.read(work)

    def _readable(self, what: str, rows: Iterable[Row], read: Callable[[Row], T]) -> list[T]:
        """Return what can be read of `rows`; what cannot is told, and hides none of the others."""
        found, unread = [], []
        for row in rows:
            try:
                found.append(read(row))
            except (ValueError, TypeError, RecursionError, StoreTooNew) as wrong:
                unread.append(wrong)
        if unread:
            told = f"{len(unread)} {what} could not be read by this version and are left out"
            log.warning("%s: %s: %s", self._database.path, told, shorten(str(unread[0])))
        return found


def _under_way(connection: sqlite3.Connection, message_id: str) -> tuple[int, str | None, int, int]:
    """Return row number, conversation, and attempts (in the sums, all) of what is under way."""
    row = connection.execute(sql.FIND, (message_id,)).fetchone()
    if row is None:
        raise ValueError(f"no message of id {message_id!r} was accepted")
    seq, state, conversation_id, _, _, counted, begun = row
    if state == "settled":
        raise ValueError(f"message {message_id!r} is settled already; the first outcome stands")
    if state != "accepted":
        raise ValueError(f"message {message_id!r} is {state}: take it up again first")
    return seq, conversation_id, counted, begun


def _begin(
    connection: sqlite3.Connection,
    seq: int,
    number: int,
    attempt: Attempt,
    limits: SpendLimits | None,
    conversation_id: str | None,
) -> None:
    """Write down that a call begins, if it may be paid for."""
    assert attempt.at is not None
    if limits is not None:
        _check_spend(connection, attempt, limits, attempt.at, conversation_id)
    connection.execute(sql.ATTEMPT, _attempt_row(seq, number, attempt, outcome=None))


def _check_spend(
    connection: sqlite3.Connection,
    attempt: Attempt,
    limits: SpendLimits,
    now: datetime,
    conversation_id: str | None,
) -> None:
    (today,) = connection.execute(sql.SPENT_ON, (day_of(now),)).fetchone()
    there = 0.0
    if limits.conversation is not None and conversation_id is not None:
        (there,) = connection.execute(sql.SPENT_IN, (conversation_id,)).fetchone()
    check_spend(
        limits,
        attempt.bill,
        now,
        account=(attempt.provider, attempt.model),
        conversation_id=conversation_id,
        spent_today=today,
        spent_there=there,
    )


def _conclude(
    connection: sqlite3.Connection,
    seq: int,
    attempts: Sequence[Attempt],
    events: Sequence[tuple[str, str, str]],
    now: datetime,
    counted: int,
    begun: int,
) -> None:
    """Replace what was written of calls that began by how they ended.

    Args:
        counted: So many of them are in the sums already, from an earlier life of the request.
        begun: So many were written.
    """
    _add(connection, sums(attempts[counted:], now.timestamp()))
    for number, attempt in enumerate(attempts, 1):
        row = _attempt_row(seq, number, attempt, outcome=attempt.outcome)
        connection.execute(sql.REPLACE_ATTEMPT, row)
    if begun > len(attempts):
        connection.execute(sql.FORGET_ATTEMPTS, (seq, len(attempts)))
    if events:
        connection.executemany(sql.EVENT, events)


def _add(connection: sqlite3.Connection, changes: dict[Account, Sum]) -> None:
    for account, by in changes.items():
        connection.execute(
            sql.SPEND,
            (
                *account,
                by.calls,
                by.prompt_tokens,
                by.completion_tokens,
                by.cost_usd,
                by.unpriced,
                by.unsettled,
                by.unsettled_usd,
            ),
        )


def _attempt_row(
    seq: int, number: int, attempt: Attempt, *, outcome: str | None
) -> tuple[object, ...]:
    bill = attempt.bill
    return (
        seq,
        number,
        attempt.provider,
        attempt.model,
        outcome,
        None if outcome is None else attempt.seconds,
        attempt.remedy,
        attempt.error,
        None if attempt.at is None else stamp(attempt.at),
        bill.prompt_tokens,
        bill.completion_tokens,
        bill.cost_usd,
        bill.settled,
    )


def attempt_of(row: Sequence[Any]) -> Attempt:
    """Return an attempt as `ATTEMPTS` reads it."""
    provider, model, outcome, seconds, remedy, error, at, prompt, completion, cost, settled = row
    bill = Bill(prompt, completion, cost, bool(settled))
    began = None if at is None else time_of(at)
    return Attempt(provider, model, outcome, seconds, remedy, error, bill, began)


def message_of(row: Sequence[Any]) -> Message:
    """Return a message as `MESSAGE` reads it."""
    id, content, asked_at, sender, provider, response, response_time, error, conversation_id = row
    return Message(
        id=id,
        content=content,
        timestamp=time_of(asked_at),
        sender=sender,
        provider=provider,
        response=response,
        response_time=response_time,
        error=error,
        conversation_id=conversation_id,
    )


def time_of(text: str) -> datetime:
    """Return a stored time."""
    moment = datetime.fromisoformat(text)
    check_zone(moment)
    return moment
