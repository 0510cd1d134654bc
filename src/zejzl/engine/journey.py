"""One request's journey: journal, call, judge, heal or answer.

    accept ──▶ ask the healer whom to call ──▶ journal the attempt ──▶ call, within its limits
                 ▲            │ nobody                                    │ failed      │ well
                 │            ▼                                           │             ▼
                 │   raise the first cause                                │     settle, answer
                 └────────── breaker, recovery log learn ◀────────────────┘

A request is in the journal, together with its first attempt, before a byte is sent; it is settled
there before the caller hears of it. A cancelled caller leaves nothing behind: the permit is given
back, the socket closed, the journal settled without being waited for.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from zejzl.clock import Clock
from zejzl.engine.arguments import checked_reply
from zejzl.engine.healing import Healer, Pick, Recovered, Target
from zejzl.engine.history import without_older_half
from zejzl.engine.journal import Journal
from zejzl.errors import (
    ERRORS,
    AttemptTimeout,
    CircuitOpen,
    FailureClass,
    ProviderError,
    Rejected,
    StoreError,
    StoreLocked,
    Transient,
    ZejzlError,
    shorten,
)
from zejzl.events import RecoveryRecorded
from zejzl.magic import CircuitBreaker, FairyMagic
from zejzl.messages import Attempt, Message, Reply, Request
from zejzl.policies.breaker import State
from zejzl.policies.diagnosis import Diagnosis, Remedy, Verdict, diagnose
from zejzl.policies.failover import LEAST_FAIR_TRY

NEVER = float("inf")
GRACE = 1.0  # seconds that a late call is given to end, before it is cancelled once more


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long things may take, in seconds (None: as long as they like), and how often."""

    deadline: float | None
    attempt: float | None
    first_token: float | None
    idle: float | None
    patience: float | None
    max_attempts: int
    whole_stream: bool = False  # the deadline covers all of a stream, not only its beginning


@dataclass(frozen=True, slots=True)
class Engine:
    """What all journeys share."""

    clock: Clock
    magic: FairyMagic
    journal: Journal
    recovered: Recovered


class Journey:
    """One request on its way to an answer.

    Attributes:
        request: What is sent; a remedy may shorten its history.
    """

    def __init__(
        self,
        engine: Engine,
        message: Message,
        request: Request,
        chain: Sequence[Target],
        limits: Limits,
        started: float,
    ) -> None:
        self.request = request
        self.clock = engine.clock
        self.limits = limits
        self._engine = engine
        self._magic = engine.magic
        self._message = message
        self._chain = chain
        self._started = started
        self.ends = self._started + limits.deadline if limits.deadline is not None else NEVER
        self._healer = Healer(
            engine.magic,
            engine.clock,
            engine.recovered,
            chain,
            patience=limits.patience,
            ends=self.ends,
            max_attempts=limits.max_attempts,
        )
        self._attempts: list[Attempt] = []
        self._recoveries: list[RecoveryRecorded] = []
        self._first_cause: ProviderError | None = None
        self._newest: tuple[Target, ProviderError, Diagnosis] | None = None
        self._accepted = False
        self._answered = False

    async def next(self) -> Pick:
        """Return leave to call a provider, journalled.

        Raises:
            ProviderError: The first cause, when nothing more can be done.
            CircuitOpen: When nobody could be called at all.
            StoreError: When the journal cannot be written; nothing was sent then.
        """
        pick = await self._healer.next()
        if pick is None:
            raise self._give_up()
        target = pick.target
        try:
            if pick.remedy is Remedy.SHRINK_CONTEXT:
                self.request = without_older_half(self.request)
            async with self.clock.timeout(self.time_left(None)):
                await self._journalled(pick)
        except BaseException as problem:
            self._magic.give_back(target.breaker, pick.token, pick.cost)
            self.place_is_free(target.breaker)
            if isinstance(problem, TimeoutError):
                raise StoreLocked(
                    "the journal could not be written before the deadline; this call was not sent"
                ) from self._first_cause
            if isinstance(problem, Exception) and pick.number == 1:
                self._accepted = False  # a write that was given up, in contrast, may still happen
            if isinstance(problem, Exception) and self._first_cause is not None:
                raise problem from self._first_cause
            raise
        pick.started = self.clock.now()
        return pick

    async def _journalled(self, pick: Pick) -> None:
        """Write down that this call begins, the first one together with its request."""
        journal, target = self._engine.journal, pick.target
        if self._accepted:
            await journal.attempt(self._message.id, pick.number, target.name, target.model)
        else:
            self._accepted = True
            await journal.accept(self._message, target.name, target.model)

    def time_left(self, limit: float | None) -> float | None:
        """Return the seconds that a phase with `limit` may take before the deadline."""
        left = self.ends - self.clock.now()
        if limit is None:
            return None if left == NEVER else left
        return min(limit, left)

    async def succeeded(self, pick: Pick, reply: Reply, waited: float) -> Reply:
        """Settle a good answer and return it as the caller gets it.

        Args:
            pick: The call that gave it.
            reply: What the provider returned.
            waited: Seconds to the answer, or to a stream's first piece.
        """
        now = self.clock.now()
        target = pick.target
        self._magic.succeeded(target.breaker, pick.token, waited, first=pick.number == 1)
        self._attempts.append(
            Attempt(target.name, target.model, "ok", now - pick.started, pick.remedy.value)
        )
        self._log_recovery(pick, "ok")
        latency = now - self._started
        reply = replace(
            reply,
            provider=target.name,
            model=reply.model or target.model,
            attempts=tuple(self._attempts),
            healed=pick.number > 1,
            latency_s=latency,
            id=self._message.id,
        )
        self._answered = True
        try:
            await self._engine.journal.settle(
                self._message.answered(reply.text, target.name, latency),
                self._attempts,
                self._recoveries,
            )
        except StoreError as problem:
            problem.reply = reply
            problem.attempts = reply.attempts
            problem.add_note("the answer had arrived: it is this error's `reply`")
            raise
        return reply

    def failed(self, pick: Pick, failure: Exception, *, limited: float | None) -> ProviderError:
        """Take in how a call ended badly, and return it as an error of the tree.

        Args:
            pick: The call.
            failure: What was raised.
            limited: The limit in seconds that the call, or its last phase, was given.
        """
        target = pick.target
        seconds = self.clock.now() - pick.started
        error = self._as_provider_error(pick, failure, limited)
        # A refusal from further in, by a bus that a provider uses itself, is not this one's fault.
        diagnosis = diagnose(failure if isinstance(failure, Rejected) else error)
        if diagnosis.failure_class is FailureClass.DEADLINE:
            fair = max(LEAST_FAIR_TRY, target.breaker.latency(0.95) or 0.0)
            verdict = Verdict.FAIL if seconds >= fair else Verdict.VOID
            diagnosis = replace(diagnosis, verdict=verdict)
        was_well = target.breaker.last_ok
        self._magic.failed(target.breaker, pick.token, error, diagnosis)
        self.place_is_free(target.breaker)
        self._attempts.append(
            Attempt(
                target.name,
                target.model,
                diagnosis.failure_class.value,
                seconds,
                pick.remedy.value,
                shorten(str(error)),
            )
        )
        self._log_recovery(pick, diagnosis.failure_class.value)
        self._newest = (target, error, diagnosis)
        if self._first_cause is None:
            self._first_cause = error
        self._healer.failed(
            pick, diagnosis, was_well=was_well, can_shrink=bool(self.request.history)
        )
        return error

    def healable(self, pick: Pick, failure: BaseException) -> Exception:
        """Return a call's failure; take the call back and raise it if it is not the provider's.

        A CancelledError is the caller's leaving, unless nobody has cancelled this task: then the
        provider's own work was cancelled, and that is a failure like any other.
        """
        if isinstance(failure, Exception):
            return failure
        task = asyncio.current_task()
        if isinstance(failure, asyncio.CancelledError) and task and not task.cancelling():
            error = Transient("its own work was cancelled")
            error.__cause__ = failure
            return error
        self.void(pick)
        raise failure

    def place_is_free(self, breaker: CircuitBreaker) -> None:
        """Wake those who wait for a probe, if this breaker may let another in now."""
        if breaker.state is State.HALF_OPEN:
            self._engine.recovered.announce()

    def void(self, pick: Pick) -> None:
        """Take back a call that was abandoned: it says nothing about its provider."""
        target = pick.target
        self._magic.void(target.breaker, pick.token)
        self.place_is_free(target.breaker)
        outcome, seconds = FailureClass.CANCELLED, self.clock.now() - pick.started
        self._attempts.append(
            Attempt(target.name, target.model, outcome.value, seconds, pick.remedy.value)
        )

    async def ended_badly(self, why: BaseException) -> None:
        """Settle the journal for a request without an answer, not waiting if it was cancelled."""
        if isinstance(why, ZejzlError):
            why.attempts = tuple(self._attempts)
        if not self._accepted or self._answered:
            return  # there is nothing to settle, or it is settled with its answer
        text = _words(why)
        message = replace(self._message, error=text)
        if not isinstance(why, Exception) or isinstance(why, StoreLocked):
            self._engine.journal.settle_unheard(message, self._attempts, self._recoveries)
            return
        try:
            await self._engine.journal.settle(message, self._attempts, self._recoveries)
        except StoreError as problem:
            why.add_note(f"and the journal could not be settled: {problem}")

    def _give_up(self) -> ZejzlError:
        cause = self._first_cause
        if cause is None:
            first = self._chain[0]
            reason = "; ".join(self._healer.notes) or "nobody could be called"
            refused = CircuitOpen(first.name, self._healer.retry_after, reason)
            if first.breaker.last_error:
                refused.add_note(f"the last failure of {first.name}: {first.breaker.last_error}")
            return refused
        others = {each.provider: each.error for each in self._attempts}
        others.pop(cause.provider, None)
        for error in others.values():
            cause.add_note(f"failed too: {error}")
        for note in self._healer.notes:
            cause.add_note(f"no further call: {note}")
        return cause

    def _as_provider_error(
        self, pick: Pick, failure: Exception, limited: float | None
    ) -> ProviderError:
        target = pick.target
        if isinstance(failure, ProviderError):
            failure.provider = target.name  # the name in this bus, not the adapter's own
            failure.model = failure.model or target.model
            return failure
        error: ProviderError
        ours = limited is not None and self.clock.now() - pick.started >= 0.99 * limited
        if isinstance(failure, TimeoutError) and ours:
            at_end = self.clock.now() >= self.ends
            error = AttemptTimeout(
                "no answer before the deadline" if at_end else f"no answer in {limited:g} s",
                provider=target.name,
                model=target.model,
                failure_class=FailureClass.DEADLINE if at_end else None,
            )
        else:
            found = diagnose(failure)
            error = ERRORS.get(found.failure_class, Transient)(
                _words(failure),
                provider=target.name,
                model=target.model,
                retry_after=found.retry_after,
                failure_class=found.failure_class,
            )
        error.__cause__ = failure
        return error

    def _log_recovery(self, pick: Pick, outcome: str) -> None:
        """Write the row for the remedy that this call was, now that it is known what it did."""
        if self._newest is None:
            return
        target, error, diagnosis = self._newest
        record = self._magic.recovered(
            target.breaker.name,
            error,
            diagnosis,
            pick.remedy,
            success=outcome == "ok",
            verified=True,
            energy_used=pick.cost,
            outcome=outcome,
            request_id=self._message.id,
        )
        self._recoveries.append(record)


async def call(journey: Journey) -> Reply:
    """Return the answer of one plain request."""
    try:
        while True:
            pick = await journey.next()
            limit = journey.time_left(journey.limits.attempt)
            try:
                with pick.target.seat.calls:
                    async with journey.clock.timeout(late(limit)), journey.clock.timeout(limit):
                        answer = await pick.target.provider.generate(
                            for_target(pick.target, journey.request)
                        )
                reply = checked_reply(answer)
            except BaseException as failure:  # noqa: BLE001 - raised again if it is not to be healed
                journey.failed(pick, journey.healable(pick, failure), limited=limit)
            else:
                return await journey.succeeded(pick, reply, journey.clock.now() - pick.started)
    except BaseException as why:
        await journey.ended_badly(why)
        raise


def late(limit: float | None) -> float | None:
    """Return the seconds after which a call that has not ended at its limit is cancelled again.

    The first cancellation may be held up by what a provider does `finally`.
    """
    return None if limit is None else max(0.0, limit) + GRACE


def _words(failure: BaseException) -> str:
    if isinstance(failure, asyncio.CancelledError | GeneratorExit):
        return "cancelled: the caller left"
    try:
        text = str(failure)
    except Exception:  # noqa: BLE001 - somebody else's class: what it did is told, not what it says
        text = "it cannot be shown"
    return shorten(f"{type(failure).__name__}: {text}")


def for_target(target: Target, request: Request) -> Request:
    """Return the request as this provider gets it."""
    if target.model == target.provider.default_model:
        return request  # it names no model: the provider's own is meant
    return replace(request, model=target.model)
