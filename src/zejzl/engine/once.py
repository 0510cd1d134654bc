"""Requests that the store knows already: answered, under way, or to be taken up again."""

import json
from dataclasses import dataclass, replace

from zejzl.clock import Clock
from zejzl.engine.journal import Conversations, Journal, key_busy
from zejzl.engine.ledger import total_cost
from zejzl.engine.record import GIVEN_UP, NEW, WAITS, Work
from zejzl.errors import FailureClass, GivenUp, Parked
from zejzl.messages import Attempt, Message, Reply, Usage
from zejzl.policies.diagnosis import Remedy
from zejzl.ports import Kept, Store, Terms

POLL_SPACING = 0.1  # seconds between looks at a request that another process has in hand
SAME = ("provider", "model", "system")  # or it is another request
INTERRUPTED = "interrupted"  # outcome of a call whose end nobody saw


@dataclass(frozen=True, slots=True)
class Start:
    """Where a request begins: anew, or where an earlier life of it ended.

    Attributes:
        message: Of the earlier life.
        reply: The answer it got then.
    """

    work: Work = NEW
    message: Message | None = None
    reply: Reply | None = None


FRESH = Start()


class Once:
    """Lets one request of several with the same idempotency key be made."""

    def __init__(self, store: Store, clock: Clock, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        self._clock = clock
        self._turns = Conversations(clock, key_busy)

    async def begin(
        self, terms: Terms, content: str, conversation_id: str | None, seconds: float | None
    ) -> Start:
        """Wait until no other request has the key, and return where this one begins.

        Raises:
            ValueError: If the key belongs to another question.
            RequestUnderWay: If the other one was not over within `seconds`.
            Parked, GivenUp: If it waits for better times, or was given up.
        """
        key = terms.key
        if key is None:
            return Start(Work(terms=terms))
        ends = None if seconds is None else self._clock.now() + seconds
        await self._turns.begin(key, seconds)
        try:
            while True:
                await self._journal.catch_up()
                kept = await self._store.kept(key=key)
                if kept is None:
                    return Start(Work(terms=terms))
                if (kept.message.content, kept.message.conversation_id) != (
                    content,
                    conversation_id,
                ):
                    raise ValueError(
                        f"the idempotency key {key!r} belongs to another question, or to another "
                        "conversation: one key is for one request"
                    )
                if other := _asked_otherwise(kept.terms, terms):
                    raise ValueError(
                        f"the idempotency key {key!r} belongs to a request with another {other}: "
                        "one key is for one request"
                    )
                if kept.message.response is not None:
                    return Start(reply=reply_of(kept))
                if kept.state in ("parked", "dead"):
                    raise ticket_of(kept)
                if await self._store.reopen(kept.message.id):
                    return Start(again(kept), kept.message)
                if ends is not None and self._clock.now() >= ends:
                    raise key_busy(key)
                await self._clock.sleep(POLL_SPACING)
        except BaseException:
            self._turns.end(key)
            raise

    def end(self, terms: Terms) -> None:
        """Let the next request with this key have its turn."""
        self._turns.end(terms.key)


def _asked_otherwise(before: Terms, now: Terms) -> str:
    """Return what of a request makes it another one; "": nothing, or the earlier cannot be read."""
    try:
        then, these = json.loads(before.options or "{}"), json.loads(now.options or "{}")
        return next((name for name in SAME if _plain(then, name) != _plain(these, name)), "")
    except (ValueError, AttributeError, RecursionError):
        return ""  # of another version: its answer is the key's all the same


def _plain(options: dict[str, object], name: str) -> object:
    value = options.get(name)
    return value.strip().lower() if name == "provider" and isinstance(value, str) else value


def again(kept: Kept, *, waited: bool = False) -> Work:
    """Return a request that is taken up again, with what was done of it before."""
    earlier = interrupted(kept.attempts)
    return Work(terms=kept.terms, kept=True, waited=waited, tries=kept.tries, earlier=earlier)


def interrupted(attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """Return attempts of one that died; those whose end it did not see are marked."""
    return tuple(
        attempt
        if attempt.outcome
        else replace(attempt, outcome=INTERRUPTED, bill=replace(attempt.bill, settled=False))
        for attempt in attempts
    )


def reply_of(kept: Kept) -> Reply:
    """Return the answer of a request as its caller got it."""
    message, attempts = kept.message, kept.attempts
    assert message.response is not None
    bill = attempts[-1].bill if attempts else None
    counted = bill is not None and bill.settled
    return Reply(
        text=message.response,
        provider=message.provider,
        model=kept.model,
        usage=Usage(bill.prompt_tokens, bill.completion_tokens) if bill and counted else Usage(),
        finish_reason=kept.finish_reason or "stop",  # type: ignore[arg-type]
        attempts=attempts,
        healed=any(each.outcome not in ("ok", FailureClass.CANCELLED) for each in attempts[:-1])
        or any(each.remedy != Remedy.FIRST for each in attempts[-1:]),
        latency_s=message.response_time or 0.0,
        cost_usd=total_cost(attempts),
        maybe_duplicate=kept.maybe_duplicate,
        id=message.id,
    )


def causes_of(kept: Kept) -> tuple[str, ...]:
    """Return what a request without an answer failed with, oldest first."""
    causes = [attempt.error for attempt in kept.attempts if attempt.error]
    last = kept.message.error or ""
    for state in (WAITS, GIVEN_UP):
        last = last.removeprefix(f"{state}: ")
    if last and not any(cause in last for cause in causes):
        causes.append(last)
    return tuple(dict.fromkeys(causes))


def ticket_of(kept: Kept) -> Parked | GivenUp:
    """Return what its caller is told of a request that has no answer."""
    causes = causes_of(kept)
    ticket: Parked | GivenUp
    if kept.state in ("dead", "settled"):
        ticket = GivenUp(kept.message.id, causes, over=kept.state == "settled")
    else:
        reason = causes[-1] if causes else "nobody has answered yet"
        ticket = Parked(kept.message.id, kept.tries, kept.due_at, reason)
    ticket.attempts = kept.attempts
    return ticket
