"""What a Store means, in as few words as possible; nothing outlives the object.

Every write is done when its method returns, so what comes back is an awaitable that never waits:
this store lies on the path of every call, and a turn of the event loop costs more than it does.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import TypeVar

from zejzl.clock import Clock, SystemClock
from zejzl.errors import SpendLimitReached, StoreError
from zejzl.events import Event, tag, utc
from zejzl.messages import NOTHING, Attempt, Bill, Message
from zejzl.ports import (
    USUAL_TERMS,
    Done,
    InFlight,
    Kept,
    KeyTaken,
    Spending,
    SpendLimits,
    Terms,
)
from zejzl.stores.arguments import (
    check_events,
    check_limit,
    check_outcome,
    check_request,
    check_terms,
    check_texts,
    check_zone,
    stamp,
)
from zejzl.stores.memories import MemoriesInMemory
from zejzl.stores.rows import CommandRow, Declined, RequestRow, Tables, under_way
from zejzl.stores.spending import Spendings, account_of, check_spend, day_of, sums

T = TypeVar("T")


_DONE = Done(None)


class InMemoryStore(MemoriesInMemory):
    """A Store without a file: fast, bounded, and gone with the process.

    What it keeps outlives `close`, for another `open`.

    Args:
        limit: Most messages, and most events, memories and commands, that are kept; the oldest go
            first. A message that is not settled stays.
    """

    shared = False

    def __init__(self, *, limit: int = 10_000, clock: Clock | None = None) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit!r}")
        self._limit = limit
        self._clock = clock or SystemClock()
        self._kept = Tables(events=deque(maxlen=limit))
        self._state = "not open yet: call open() first"

    @property
    def _rows(self) -> Tables:
        if self._state:
            raise StoreError(f"the store in memory is {self._state}")
        return self._kept

    async def open(self) -> None:
        self._state = ""

    async def close(self) -> None:
        self._state = "closed"

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
        rows = self._rows
        check_texts(attempt_provider=provider)
        check_request(message, model)
        if message.id in rows.messages:
            return Declined(ValueError(f"a message of id {message.id!r} exists already"))
        if terms is not USUAL_TERMS:
            check_terms(terms)
            if terms.key in rows.keys:
                return Declined(KeyTaken(f"a request with the key {terms.key!r} exists already"))
        now = at or utc(self._clock.wall())
        if limits is not None:
            try:
                self._check_spend(limits, bill, now, (provider, model), message.conversation_id)
            except SpendLimitReached as refused:
                return Declined(refused)
        attempt = Attempt(provider, model, "", 0.0, "first", "", bill, now)
        row = RequestRow(message, {1: attempt}, terms)
        rows.messages[message.id] = rows.under_way[message.id] = row
        if terms.key is not None:
            rows.keys[terms.key] = message.id
        return _DONE

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
        rows = self._rows
        check_texts(id=message_id, provider=provider, model=model)
        now = at or utc(self._clock.wall())
        try:
            row = under_way(rows.messages, message_id)
            if number in row.attempts:
                raise ValueError(f"attempt {number} of {message_id!r} has begun already")
            whose = row.message.conversation_id
            if limits is not None:
                self._check_spend(limits, bill, now, (provider, model), whose)
        except (ValueError, SpendLimitReached) as refused:
            return Declined(refused)
        row.attempts[number] = Attempt(provider, model, "", 0.0, "", "", bill, now)
        return _DONE

    def _check_spend(
        self,
        limits: SpendLimits,
        bill: Bill,
        now: datetime,
        account: tuple[str, str],
        conversation_id: str | None,
    ) -> None:
        """Raise SpendLimitReached unless a call may be paid for."""
        day = day_of(now)
        check_spend(
            limits,
            bill,
            now,
            account=account,
            conversation_id=conversation_id,
            spent_today=sum(each.cost_usd for each in self._spent() if each.day == day),
            spent_there=sum(each.cost_usd for each in self._spent_in(conversation_id)),
        )

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
        rows = self._rows
        check_outcome(message, attempts, events, model, finish_reason)
        try:
            row = self._conclude(rows, message, attempts, "settled")
        except ValueError as refused:
            return Declined(refused)
        row.model, row.finish_reason = model, finish_reason
        row.maybe_duplicate = maybe_duplicate
        if row.message.response is not None and row.message.conversation_id is not None:
            rows.turns.setdefault(row.message.conversation_id, []).append(row.message)
        rows.events.extend(events)
        if len(rows.messages) > self._limit:
            self._forget_oldest(rows)
        return _DONE

    def _conclude(
        self, rows: Tables, message: Message, attempts: Sequence[Attempt], state: str
    ) -> RequestRow:
        """Write what became of an accepted request, and return its row."""
        row = under_way(rows.messages, message.id)
        asked = row.message
        row.message = message if _same(asked, message) else _with_outcome(asked, message)
        wall = self._clock.wall()
        for each in attempts[row.counted :]:
            rows.spending[account_of(each, wall)].add(each.bill)
        row.attempts = dict(enumerate(attempts, 1))
        row.counted = len(attempts)
        row.state = state
        del rows.under_way[asked.id]
        return row

    def _forget_oldest(self, rows: "Tables") -> None:
        row = next(row for row in rows.messages.values() if row.state == "settled")
        del rows.messages[row.message.id]
        rows.keys.pop(row.terms.key or "", None)
        conversation = row.message.conversation_id
        if conversation is not None and row.message.response is not None:
            turns = rows.turns[conversation]
            turns.remove(row.message)
            if not turns:
                del rows.turns[conversation]

    async def orphans(self) -> list[InFlight]:
        """Return []: what a dead owner left in memory died with it."""
        _ = self._rows
        return []

    async def kept(self, *, id: str | None = None, key: str | None = None) -> Kept | None:
        check_texts(id=id, key=key)
        rows = self._rows
        row = rows.messages.get(id if id is not None else rows.keys.get(key or "", ""))
        return None if row is None else row.kept

    def reopen(self, message_id: str) -> Awaitable[bool]:
        check_texts(id=message_id)
        row = self._rows.messages.get(message_id)
        if row is None or row.state == "accepted" or row.message.response is not None:
            return Done(False)
        self._rows.take_up(row)
        return Done(True)

    def park(
        self,
        message: Message,
        attempts: Sequence[Attempt],
        events: Sequence[Event] = (),
        *,
        tries: int,
        due_at: datetime | None,
    ) -> Awaitable[None]:
        rows = self._rows
        check_outcome(message, attempts, events)
        if due_at is not None:
            check_zone(due_at)
        try:
            row = self._conclude(rows, message, attempts, "dead" if due_at is None else "parked")
        except ValueError as refused:
            return Declined(refused)
        row.tries, row.due_at = tries, due_at
        rows.events.extend(events)
        return _DONE

    async def parked(self, *, limit: int = 1_000) -> list[Kept]:
        check_limit(limit)
        found = (
            row.kept
            for row in self._rows.messages.values()
            if row.state in ("parked", "dead") or (row.state == "accepted" and row.terms.parks)
        )
        return list(islice(found, limit))

    async def take_parked(self, *, before: datetime, limit: int = 100) -> list[Kept]:
        check_limit(limit)
        check_zone(before)
        due = [
            (row.due_at, row)
            for row in self._rows.messages.values()
            if row.state == "parked" and row.due_at is not None and row.due_at <= before
        ]
        taken = [row for _, row in sorted(due, key=lambda pair: pair[0])[:limit]]
        for row in taken:
            self._rows.take_up(row)
        return [row.kept for row in taken]

    async def next_due(self) -> datetime | None:
        due = (row.due_at for row in self._rows.messages.values() if row.state == "parked")
        return min((at for at in due if at is not None), default=None)

    async def history(self, conversation_id: str, limit: int) -> list[Message]:
        check_limit(limit)
        check_texts(conversation_id=conversation_id)
        turns = self._rows.turns.get(conversation_id, [])
        return turns[max(0, len(turns) - limit) :]

    async def messages(
        self, *, conversation_id: str | None = None, limit: int = 100
    ) -> list[Message]:
        check_limit(limit)
        check_texts(conversation_id=conversation_id)
        newest_first = (
            row.message
            for row in reversed(self._rows.messages.values())
            if conversation_id is None or row.message.conversation_id == conversation_id
        )
        return list(islice(newest_first, limit))[::-1]

    async def attempts(self, message_id: str) -> list[Attempt]:
        check_texts(id=message_id)
        row = self._rows.messages.get(message_id)
        return [] if row is None else row.tried

    async def spending(
        self, *, since: str = "", conversation_id: str | None = None
    ) -> list[Spending]:
        check_texts(since=since, conversation_id=conversation_id)
        spent = self._spent() if conversation_id is None else self._spent_in(conversation_id)
        return [each for each in spent if each.day >= since]

    def _spent(self) -> list[Spending]:
        """Return what all calls cost, those under way included."""
        rows, found = self._rows, Spendings()
        for account, spent in rows.spending.items():
            found[account].merge(spent)
        for row in rows.under_way.values():
            for attempt in row.tried[row.counted :]:
                found[account_of(attempt, self._clock.wall())].add(attempt.bill)
        return [spent.of(account) for account, spent in sorted(found.items())]

    def _spent_in(self, conversation_id: str | None) -> list[Spending]:
        if conversation_id is None:
            return []
        tried = [
            attempt
            for row in self._rows.messages.values()
            if row.message.conversation_id == conversation_id
            for attempt in row.attempts.values()
        ]
        found = sums(tried, self._clock.wall())
        return [spent.of(account) for account, spent in sorted(found.items())]

    def record(self, events: Sequence[Event]) -> Awaitable[None]:
        rows = self._rows
        check_events(events)
        rows.events.extend(events)
        return _DONE

    async def events(
        self, *, type: str | None = None, since: datetime | None = None, limit: int = 100
    ) -> list[Event]:
        check_limit(limit)
        if since is not None:
            stamp(since)
        newest_first = (
            event
            for event in reversed(self._rows.events)
            if (type is None or tag(event) == type) and (since is None or event.timestamp >= since)
        )
        return list(islice(newest_first, limit))[::-1]

    async def setting(self, name: str) -> str | None:
        check_texts(name=name)
        return self._rows.settings.get(name)

    def keep_setting(self, name: str, value: str | None) -> Awaitable[None]:
        rows = self._rows
        check_texts(name=name, value=value)
        if value is None:
            rows.settings.pop(name, None)
        else:
            rows.settings[name] = value
        return _DONE

    def revise(
        self, name: str, change: Callable[[str | None], tuple[str | None, T]]
    ) -> Awaitable[T]:
        rows = self._rows
        check_texts(name=name)
        value, result = change(rows.settings.get(name))
        self.keep_setting(name, value)
        return Done(result)

    def keep_snapshot(self, owner: str, body: str) -> Awaitable[None]:
        rows = self._rows
        check_texts(owner=owner, body=body)
        rows.snapshots[owner] = utc(self._clock.wall()), body
        return _DONE

    async def snapshots(self) -> list[tuple[str, datetime, bool, str]]:
        kept = [(owner, at, True, body) for owner, (at, body) in self._rows.snapshots.items()]
        return sorted(kept, key=lambda snapshot: snapshot[1], reverse=True)

    def post_command(self, owner: str, name: str, body: str) -> Awaitable[int]:
        rows = self._rows
        check_texts(owner=owner, name=name, body=body)
        rows.last_command += 1
        rows.commands[rows.last_command] = CommandRow(owner, name, body, utc(self._clock.wall()))
        if len(rows.commands) > self._limit:
            del rows.commands[next(iter(rows.commands))]
        return Done(rows.last_command)

    async def take_commands(self, owner: str) -> list[tuple[int, str, str]]:
        check_texts(owner=owner)
        waiting = [
            (id, command)
            for id, command in self._rows.commands.items()
            if command.owner == owner and command.state == "waiting"
        ]
        for _, command in waiting:
            command.state = "taken"
        return [(id, command.name, command.body) for id, command in waiting]

    def answer_command(self, id: int, ok: bool, body: str) -> Awaitable[None]:
        rows = self._rows
        check_texts(body=body)
        command = rows.commands.get(id)
        if command is None or command.state != "taken":
            return Declined(ValueError(f"command {id} awaits no answer"))
        command.state, command.answer = "done" if ok else "failed", body
        return _DONE

    async def command(self, id: int) -> tuple[str, str] | None:
        command = self._rows.commands.get(id)
        return None if command is None else (command.state, command.answer)

    async def check(self) -> list[str]:
        _ = self._rows
        return []

    def prune(self, *, before: datetime) -> Awaitable[int]:
        rows = self._rows
        stamp(before)
        old = [
            id
            for id, row in rows.messages.items()
            if row.state in ("settled", "dead") and row.message.timestamp < before
        ]
        for id in old:
            rows.keys.pop(rows.messages.pop(id).terms.key or "", None)
        told = {
            conversation: [turn for turn in turns if turn.timestamp >= before]
            for conversation, turns in rows.turns.items()
        }
        rows.turns = {conversation: turns for conversation, turns in told.items() if turns}
        count = len(old) + len(rows.events) + len(rows.snapshots) + len(rows.commands)
        young = [event for event in rows.events if event.timestamp >= before]
        rows.events = deque(young, maxlen=self._limit)
        rows.snapshots = {
            owner: kept for owner, kept in rows.snapshots.items() if kept[0] >= before
        }
        rows.commands = {
            id: command for id, command in rows.commands.items() if command.at >= before
        }
        count += self._shelf.forget(before)
        return Done(count - len(rows.events) - len(rows.snapshots) - len(rows.commands))


def _same(asked: Message, message: Message) -> bool:
    """Return whether `message` is surely what was accepted, but for the outcome."""
    return (
        message.content is asked.content
        and message.timestamp is asked.timestamp
        and message.sender is asked.sender
        and message.conversation_id is asked.conversation_id
    )


def _with_outcome(asked: Message, message: Message) -> Message:
    """Return what was accepted with the outcome that `message` has."""
    return replace(
        asked,
        provider=message.provider,
        response=message.response,
        response_time=message.response_time,
        error=message.error,
    )
