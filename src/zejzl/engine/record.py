"""What is written down of one request: every call with its bill, and how it all ended.

accepted ──▶ attempt(n) ──▶ settled, with the answer or without
                             └─▶ parked, if it may wait and nobody could answer
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from zejzl.clock import Clock
from zejzl.engine.failures import in_words
from zejzl.engine.journal import Journal, Waiting
from zejzl.engine.ledger import Ledger, octets, total_cost
from zejzl.engine.quotas import Quotas
from zejzl.engine.targets import Pick, Target
from zejzl.engine.waiting import Recovered
from zejzl.errors import AuthFailed, FailureClass, GivenUp, Parked, StoreError, StoreLocked
from zejzl.events import RecoveryRecorded, RequestParked, utc
from zejzl.magic import FairyMagic
from zejzl.messages import Attempt, Bill, Message, Reply, Request
from zejzl.policies.parking import Spacing, may_wait
from zejzl.ports import USUAL_TERMS, Terms

WAITS, GIVEN_UP = "parked", "given up"  # begin the error of a request that is
OFFLINE = "offline"  # the stand-in that the bus has while nobody can be asked


@dataclass(frozen=True, slots=True)
class Engine:
    """What all requests share.

    Attributes:
        ledger: What calls cost.
        spacing: When parked work is taken up again.
        quotas: Whose turn is when, where a rate limit holds.
        abandoned: Calls that lost a race and have not ended yet; the loop holds tasks weakly.
    """

    clock: Clock
    magic: FairyMagic
    journal: Journal
    recovered: Recovered
    ledger: Ledger
    spacing: Spacing
    quotas: Quotas
    abandoned: set[asyncio.Future[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.quotas.moved = self.recovered.announce  # a limit that changed wakes calls that wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is kept with a request, and what was done of it in an earlier life.

    Attributes:
        kept: Whether it is in the journal already: it was taken up again.
        waited: Whether it was parked: nobody waits for its answer.
        tries: How often it was taken up again in vain.
        earlier: What was tried before.
    """

    terms: Terms = USUAL_TERMS
    kept: bool = False
    waited: bool = False
    tries: int = 0
    earlier: tuple[Attempt, ...] = ()


NEW = Work()


class Record:
    """The story of one request, as the store gets it.

    Attributes:
        message: The question.
        attempts: Every call that has ended.
        recoveries: What was tried against what.
        answered: Whether there is an answer.
        parked: The ticket of a request that nobody could answer and that may wait.
    """

    def __init__(self, engine: Engine, message: Message, first: Target, work: Work) -> None:
        self.message = message
        self.attempts = list(work.earlier)
        self.recoveries: list[RecoveryRecorded] = []
        self.answered = False
        self.parked: Parked | GivenUp | None = None
        self._clock = engine.clock
        self._journal = engine.journal
        self._ledger = engine.ledger
        self._spacing = engine.spacing
        self._quotas = engine.quotas
        self._first = first
        self._work = work
        self._accepted = work.kept
        self._measured: tuple[Request | None, int] = None, 0

    # A call ----------------------------------------------------------------------------------

    async def begin(self, pick: Pick, request: Request, seconds: float | None) -> None:
        """Write down that a call begins, the first one together with its request.

        Raises:
            TimeoutError: If that took longer than `seconds`; it may happen yet.
            SpendLimitReached: If the call may not be paid for.
            AuthFailed: If it may wait for a model, and nobody but the stand-in would answer.
        """
        if pick.target.name == OFFLINE and self._work.terms.parks:
            raise AuthFailed("nobody can be asked: no provider's key is set", provider=OFFLINE)
        target, number = pick.target, len(self._work.earlier) + pick.number
        asked, pick.at = self._octets(request), utc(self._clock.wall())
        name, model, journal, limits = target.name, target.model, self._journal, self._ledger.limits
        bill = pick.bill = self._ledger.estimate(name, model, asked, request.max_tokens)
        if self._accepted:
            id = self.message.id
            await journal.attempt(
                id, number, name, model, seconds, bill=bill, limits=limits, at=pick.at
            )
        else:
            self._accepted = True
            terms = self._work.terms
            await journal.accept(
                self.message,
                name,
                model,
                seconds,
                bill=bill,
                terms=terms,
                limits=limits,
                at=pick.at,
            )

    def weight(self, target: Target, request: Request) -> int:
        """Return how many tokens a call will be counted as, about."""
        asked = self._octets(request)
        bill = self._ledger.estimate(target.name, target.model, asked, request.max_tokens)
        return bill.prompt_tokens + bill.completion_tokens

    def not_begun(self, pick: Pick) -> None:
        """Take in that a call could not be written down, and was not made."""
        if pick.number == 1:
            self._accepted = self._work.kept

    def landed(
        self, pick: Pick, request: Request, reply: Reply, outcome: str, seconds: float
    ) -> None:
        """Add a call that was answered."""
        asked = self._octets(request)
        bill = self._ledger.answered(pick.target.name, pick.target.model, asked, reply)
        self._add(pick, outcome, seconds, bill)

    def failed(
        self,
        pick: Pick,
        request: Request,
        failure: BaseException,
        outcome: str,
        seconds: float,
        error: str,
    ) -> None:
        """Add a call that failed."""
        name, model, asked = pick.target.name, pick.target.model, self._octets(request)
        bill = self._ledger.ended_badly(name, model, asked, pick.heard, failure)
        self._add(pick, outcome, seconds, bill, error)

    def abandoned(self, pick: Pick, request: Request) -> float:
        """Add a call whose end nobody waited for; return how long it took."""
        seconds = self._clock.now() - pick.started
        left = asyncio.CancelledError()
        self.failed(pick, request, left, FailureClass.CANCELLED.value, seconds, "")
        return seconds

    def _octets(self, request: Request) -> int:
        """Return how many bytes a question has; each is measured once."""
        if self._measured[0] is not request:
            self._measured = request, octets(request)
        return self._measured[1]

    def _add(self, pick: Pick, outcome: str, seconds: float, bill: Bill, error: str = "") -> None:
        target, at = pick.target, pick.at
        self.attempts.append(
            Attempt(target.name, target.model, outcome, seconds, pick.remedy, error, bill, at)
        )
        self._quotas.look(target)
        if pick.turn is not None:
            self._quotas.settle(pick.turn, bill.prompt_tokens + bill.completion_tokens)

    # The end ---------------------------------------------------------------------------------

    async def settle(
        self, reply: Reply, target: Target, *, healed: bool, latency_s: float
    ) -> Reply:
        """Write the answer down and return it as the caller gets it.

        Args:
            target: Who has given it.
            healed: Whether it took more than one call.
            latency_s: Seconds since the request came.
        """
        earlier = self._work.earlier
        # Not `replace`, on the path of every call: it looks every field up by name.
        reply = Reply(
            text=reply.text,
            provider=target.name,
            model=reply.model or target.model,
            usage=reply.usage,
            finish_reason=reply.finish_reason,
            attempts=tuple(self.attempts),
            healed=healed or bool(earlier),
            latency_s=latency_s,
            cost_usd=total_cost(self.attempts),
            maybe_duplicate=any(not each.bill.settled for each in earlier) if earlier else False,
            id=self.message.id,
            request_id=reply.request_id,
        )
        self.answered = True
        try:
            await self._journal.settle(
                self.message.answered(reply.text, reply.provider, reply.latency_s),
                self.attempts,
                self.recoveries,
                model=reply.model,
                finish_reason=reply.finish_reason,
                maybe_duplicate=reply.maybe_duplicate,
            )
        except StoreError as problem:
            problem.reply = reply
            problem.attempts = reply.attempts
            problem.add_note("the answer had arrived: it is this error's `reply`")
            raise
        return reply

    async def end_without(self, why: BaseException, seconds: float | None) -> None:
        """Write down that there is no answer, not waiting for that if the caller has left.

        Args:
            seconds: Until the deadline.
        """
        if self.answered:
            return  # it is settled with its answer
        try:
            if not await self._park(why, seconds) and self._accepted:
                await self._settle_without(why)
        except (StoreError, TimeoutError) as problem:
            why.add_note(f"and the journal could not be settled: {problem}")
            if not self._work.waited:  # its caller is told; else the watch parks it again
                message, told = replace(self.message, error=in_words(why)), [*self.recoveries]
                settle = partial(self._journal.write_outcome, message, [*self.attempts], told)
                self._journal.owe(message.id, settle)

    async def _settle_without(self, why: BaseException) -> None:
        message = replace(self.message, error=in_words(why))
        if not isinstance(why, Exception) or isinstance(why, StoreLocked):
            self._journal.settle_unheard(message, self.attempts, self.recoveries)
        else:
            await self._journal.settle(message, self.attempts, self.recoveries)

    async def _park(self, why: BaseException, seconds: float | None) -> bool:
        """Let a request wait that may, and that nobody could answer; False: it is to be settled."""
        work, left = self._work, not isinstance(why, Exception)
        hopeful = not isinstance(why, Exception) or may_wait(why)
        if not work.terms.parks or not (work.waited or (hopeful and not left)):
            return False
        called = len(self.attempts) > len(work.earlier)  # a refusal alone is no try
        tries = work.tries + (work.waited and called and not left)
        now, said = self._clock.wall(), in_words(why)
        refused = work.waited and not called
        age = max(0.0, now - self.message.timestamp.timestamp()) if refused else 0.0
        told = getattr(why, "retry_after", None) or 0.0
        wait = self._spacing.wait(tries, age=age, told=told) if hopeful else None
        wait = 0.0 if left else wait
        if left:  # that says nothing of the request
            causes = (each.error for each in reversed(work.earlier) if each.error)
            said = next(causes, "it was interrupted")
        how = Waiting(tries=tries, due_at=None if wait is None else utc(now + wait))
        message = replace(self.message, error=f"{GIVEN_UP if wait is None else WAITS}: {said}")
        events = self._events(message, how, said)
        if left:
            self._journal.park_unheard(message, self.attempts, events, **how)
            return True
        if not self._accepted:  # nobody could be called at all
            first, terms = self._first, work.terms
            await self._journal.accept(message, first.name, first.model, seconds, terms=terms)
        await self._journal.park(message, self.attempts, events, **how)
        self.parked = self._ticket(how, said)
        return True

    def _events(
        self, message: Message, how: Waiting, said: str
    ) -> Sequence[RecoveryRecorded | RequestParked]:
        work = self._work
        if work.waited and how["due_at"] is not None and how["tries"] == work.tries:
            return self.recoveries  # refused again: that is no news
        event = RequestParked(
            request_id=message.id,
            conversation_id=message.conversation_id,
            given_up=how["due_at"] is None,
            tries=how["tries"],
            reason=said,
            timestamp=utc(self._clock.wall()),
        )
        return [*self.recoveries, event]

    def _ticket(self, how: Waiting, said: str) -> Parked | GivenUp:
        due_at, id = how["due_at"], self.message.id
        ticket: Parked | GivenUp
        if due_at is None:
            causes = [each.error for each in self.attempts if each.error]
            ticket = GivenUp(id, tuple(dict.fromkeys([*causes, said])))
        else:
            ticket = Parked(id, how["tries"], due_at, said)
        ticket.attempts = tuple(self.attempts)
        return ticket
