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

from collections.abc import Sequence
from dataclasses import dataclass, replace

from zejzl.engine.entrance import Entrance
from zejzl.engine.failures import as_provider_error, own_failure
from zejzl.engine.healing import Healer
from zejzl.engine.history import without_older_half
from zejzl.engine.record import NEW, Engine, Record, Work
from zejzl.engine.targets import Failure, Means, Pick, Target
from zejzl.errors import (
    FailureClass,
    Incomplete,
    ProviderError,
    Rejected,
    SpendLimitReached,
    StoreError,
    StoreLocked,
    ZejzlError,
    shorten,
)
from zejzl.magic import CircuitBreaker
from zejzl.magic.lanes import Asked
from zejzl.messages import Message, Reply, Request
from zejzl.policies.admission import Criticality
from zejzl.policies.breaker import State
from zejzl.policies.diagnosis import Diagnosis, Remedy, Verdict, diagnose
from zejzl.policies.failover import LEAST_FAIR_TRY

NEVER = float("inf")
USUAL_DEADLINE = 60.0  # seconds that a remedy's time is compared with where there is no deadline
TOO_LONG = frozenset({FailureClass.BAD_REQUEST, FailureClass.CONTEXT_OVERFLOW})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long things may take, in seconds (None: as long as they like), and how often."""

    deadline: float | None
    attempt: float | None
    first_token: float | None
    idle: float | None
    patience: float | None
    max_attempts: int
    hedging: bool = True  # whether a late call may have a second one beside it
    whole_stream: bool = False  # the deadline covers all of a stream, not only its beginning


class Journey:
    """One request on its way to an answer.

    Attributes:
        request: What is sent; a remedy may shorten its history.
        record: What is written down of it.
    """

    def __init__(
        self,
        engine: Engine,
        message: Message,
        request: Request,
        chain: Sequence[Target],
        limits: Limits,
        started: float,
        asked: Asked,
        work: Work = NEW,
    ) -> None:
        self.request = request
        self.clock = engine.clock
        self.abandoned = engine.abandoned
        self.limits = limits
        self._engine = engine
        self._magic = engine.magic
        self.record = Record(engine, message, chain[0], work)
        self._gate = engine.magic.gate
        self._asked = asked
        self._chain = chain
        self._started = started
        self._means = Means(
            asked=asked,
            patience=limits.patience,
            ends=started + limits.deadline if limits.deadline is not None else NEVER,
            max_attempts=limits.max_attempts,
        )
        entrance = Entrance(
            engine.magic,
            engine.clock,
            engine.quotas,
            chain,
            self._means,
            self._size,
            self._weight,
        )
        self._healer = Healer(
            engine.magic, engine.clock, engine.recovered, chain, self._means, entrance
        )
        self._who = message.conversation_id or message.sender
        self._kept: tuple[Pick, Reply] | None = None
        self._grown: int | None = None
        self._begun: list[Pick] = []
        self._first_cause: ProviderError | None = None
        self._newest: Failure | None = None

    @property
    def first_cause(self) -> ProviderError | None:
        """The first failure of a call."""
        return self._first_cause

    @property
    def ends(self) -> float:
        """The deadline, by the clock's `now()`."""
        return self._means.ends

    def told(self) -> None:
        """Take in that the consumer of a stream has a piece: its deadline covers no more.

        Whatever is begun again has the time to its first piece that the stream had.
        """
        self._means.told = True
        if not self.limits.whole_stream and self.limits.deadline is not None:
            self._means.ends = self.clock.now() + self.limits.deadline

    def differs(self, pick: Pick) -> None:
        """Take in that an answer begun again is not the one of which the consumer has a part."""
        self._gate.void(pick.permit)
        pick.target.hopeless = True
        self._log_recovery(pick, "differs", self.record.abandoned(pick, self.request))

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
        pick.against = self._newest
        began = self.clock.now()
        try:
            if pick.remedy == Remedy.SHRINK_CONTEXT:
                self.request = without_older_half(self.request)
            await self._begin(pick)
        except TimeoutError:
            late = "the journal could not be written before the deadline; this call was not sent"
            if self._first_cause is None or self.clock.now() - began >= LEAST_FAIR_TRY:
                raise StoreLocked(late) from self._first_cause
            self._healer.note(late)
            raise self._give_up() from None
        except Exception as problem:
            self.record.not_begun(pick)  # a write that was given up, in contrast, may still happen
            if self._first_cause is None:
                raise
            if not isinstance(problem, SpendLimitReached):
                raise problem from self._first_cause
            self._healer.note(str(problem))
            raise self._give_up() from None
        return pick

    async def beside(self, late: Pick) -> Pick | None:
        """Return leave for a second call beside one that is late; None: it stays alone."""
        pick = self._healer.beside()
        if pick is None:
            return None
        pick.against = late.target, "its answer was late", FailureClass.FIRST_TOKEN_TIMEOUT
        try:
            await self._begin(pick)
        except (StoreError, TimeoutError, SpendLimitReached):
            return None  # the first call is under way all the same
        return pick

    async def _begin(self, pick: Pick) -> None:
        """Journal that a call begins; where that fails, give everything back."""
        permit = pick.permit
        try:
            await self.record.begin(pick, self.request, self.time_left(None))
        except BaseException:
            self._gate.give_back(permit, pick.cost)
            if pick.turn is not None:
                self._engine.quotas.cancel(pick.turn)
            self.place_is_free(permit.breaker)
            raise
        if pick.remedy == Remedy.GROW_ANSWER:
            pick.max_tokens = self._grown
        elif self.request.max_tokens is not None and permit.placed and self._asked.criticality:
            asked, target = self.request.max_tokens, pick.target
            larger = self._magic.acorns.before(target.lane, target.model, self._who, asked)
            pick.max_tokens = larger if larger != asked else None
        pick.started = self.clock.now()
        self._begun.append(pick)
        self._gate.begun(permit, pick.started)

    def time_left(self, limit: float | None) -> float | None:
        """Return the seconds that a phase with `limit` may take before the deadline."""
        left = self.ends - self.clock.now()
        if limit is None:
            return None if left == NEVER else left
        return min(limit, left)

    def for_target(self, pick: Pick) -> Request:
        """Return the request as this call sends it."""
        target, request = pick.target, self.request
        if pick.max_tokens is not None:
            request = replace(request, max_tokens=pick.max_tokens)
        if target.model == target.provider.default_model:
            return request  # it names no model: the provider's own is meant
        return replace(request, model=target.model)

    def hedge_times(self, pick: Pick) -> tuple[float, float] | None:
        """Return when a late call is worth a second one beside it; None: never. See the gate."""
        if not self.limits.hedging or len(self._chain) < 2:
            return None
        return self._gate.hedge_times(pick.permit)

    def spoke(self, pick: Pick) -> None:
        """Take in that a stream has sent its first piece."""
        self._gate.spoke(pick.permit)
        self.place_is_free(pick.target.breaker)

    def is_late(self, pick: Pick) -> bool:
        """Say whether a call under way is late."""
        return self._gate.look(pick.permit)

    def in_trouble(self, pick: Pick) -> bool:
        """Say whether its provider is late as a rule, or not trusted at present."""
        return self._gate.in_trouble(pick.permit)

    def grows(self, pick: Pick, reply: Reply) -> bool:
        """Say whether an answer that was cut at its token limit is asked for again, longer.

        It is kept: whatever becomes of the longer one, there is an answer.
        """
        limit = self.request.max_tokens or reply.usage.completion_tokens
        sheddable = self._asked.criticality is Criticality.SHEDDABLE
        grown = self._kept is not None or pick.max_tokens is not None  # once is enough
        if not reply.truncated or grown or not limit or sheddable:
            return False
        target = pick.target
        self._grown = self._magic.acorns.after(target.lane, target.model, limit)
        if self._grown is None:
            return False
        self._landed(pick, reply, FailureClass.TRUNCATED.value)
        self._kept = pick, reply
        error = Incomplete(
            f"the answer stopped at its limit of {limit} tokens",
            provider=target.name,
            model=target.model,
            failure_class=FailureClass.TRUNCATED,
        )
        self._take_in(pick, error, Diagnosis(FailureClass.TRUNCATED, Verdict.VOID), was_well=True)
        return True

    @property
    def has_answer(self) -> bool:
        """Whether an answer is kept, cut as it is, while a longer one is asked for."""
        return self._kept is not None and not self.record.answered

    async def settle_kept(self) -> Reply:
        """Settle the kept answer: there is no better one."""
        assert self._kept is not None
        self._never_grown()
        return await self._settle(*self._kept)

    def _never_grown(self) -> None:
        """Give the credit back if the longer answer that it was spent on was never asked for."""
        if self._newest is not None and self._newest[2] is FailureClass.TRUNCATED:
            self._magic.acorns.give_back()

    async def succeeded(self, pick: Pick, reply: Reply) -> Reply:
        """Settle a good answer and return it as the caller gets it."""
        kept = self._kept
        still_cut = kept is not None and reply.truncated
        self._landed(pick, reply, FailureClass.TRUNCATED.value if still_cut else "ok")
        if kept is not None and reply.truncated and len(kept[1].text) > len(reply.text):
            return await self._settle(*kept)
        return await self._settle(pick, reply)

    def _landed(self, pick: Pick, reply: Reply, outcome: str) -> None:
        """Take in what a call that was answered teaches."""
        target, seconds = pick.target, self.clock.now() - pick.started
        self._gate.succeeded(pick.permit, pick.waited, first=pick.number == 1)
        self._magic.acorns.answered(
            target.lane, self._who, reply.usage.completion_tokens, cut=reply.truncated
        )
        if target.context.refused < NEVER:
            target.context.take(self._size())
        self.record.landed(pick, self.request, reply, outcome, seconds)
        self._log_recovery(pick, outcome, seconds)

    async def _settle(self, pick: Pick, reply: Reply) -> Reply:
        """Write the answer to the journal and return it as the caller gets it."""
        target, healed = pick.target, pick.number > 1
        if healed and reply.truncated and self._kept is not None:
            # It grew in vain; a failure before it was healed all the same.
            no_failure = "ok", FailureClass.TRUNCATED.value, FailureClass.CANCELLED.value
            healed = any(each.outcome not in no_failure for each in self.record.attempts)
        return await self.record.settle(
            reply,
            target,
            healed=healed,
            latency_s=self.clock.now() - self._started,
        )

    def failed(self, pick: Pick, failure: Exception) -> ProviderError:
        """Take in how a call ended badly, and return it as an error of the tree."""
        target = pick.target
        seconds = self.clock.now() - pick.started
        error = as_provider_error(pick, failure, self.clock.now(), self.ends)
        # A refusal from further in, by a bus that a provider uses itself, is not this one's fault.
        diagnosis = diagnose(failure if isinstance(failure, Rejected) else error)
        if diagnosis.failure_class is FailureClass.DEADLINE:
            fair = max(LEAST_FAIR_TRY, target.breaker.latency(0.95) or 0.0)
            verdict = Verdict.FAIL if seconds >= fair else Verdict.VOID
            diagnosis = replace(diagnosis, verdict=verdict)
        was_well = target.breaker.last_ok
        too_many = self._gate.failed(pick.permit, error, diagnosis)
        self.place_is_free(target.breaker)
        outcome, unsent = diagnosis.failure_class.value, isinstance(failure, Rejected)
        said, ended = shorten(str(error)), failure if unsent else error
        self.record.failed(pick, self.request, ended, outcome, seconds, said)
        self._log_recovery(pick, outcome, seconds)
        if self._first_cause is None:
            self._first_cause = error
        if diagnosis.failure_class in TOO_LONG and pick.max_tokens is not None:
            # Our own doing: the model takes no such limit. As it was asked for, it may.
            self._magic.acorns.too_much(target.lane, target.model, self.request.max_tokens or 1)
            diagnosis = Diagnosis(FailureClass.UNKNOWN, Verdict.VOID)
        elif diagnosis.failure_class is FailureClass.CONTEXT_OVERFLOW:
            target.context.refuse(self._size())
        self._take_in(pick, error, diagnosis, was_well=was_well, too_many=too_many)
        return error

    def _take_in(
        self, pick: Pick, error: ProviderError, diagnosis: Diagnosis, **facts: bool
    ) -> None:
        """Let the healer know what is to be healed now."""
        self._newest = pick.target, error, diagnosis.failure_class
        can_shrink = bool(self.request.history)
        self._healer.failed(pick, error, diagnosis, can_shrink=can_shrink, **facts)

    def healable(self, pick: Pick, failure: BaseException) -> Exception:
        """Return a call's failure; take the call back and raise it if it is not the provider's."""
        own = own_failure(failure)
        if own is None:
            self.void(pick)
            raise failure
        return own

    def place_is_free(self, breaker: CircuitBreaker) -> None:
        """Wake those who wait for a probe, if this breaker may let another in now."""
        if breaker.state is State.HALF_OPEN:
            self._engine.recovered.announce()

    def void(self, pick: Pick) -> None:
        """Take back a call that was abandoned: by its caller, or for another that was faster."""
        target = pick.target
        self._gate.void(pick.permit)
        self.place_is_free(target.breaker)
        seconds = self.record.abandoned(pick, self.request)
        if pick.remedy == Remedy.HEDGE:
            self._log_recovery(pick, FailureClass.CANCELLED.value, seconds)

    async def ended_badly(self, why: BaseException) -> None:
        """Settle the journal for a request without an answer, not waiting if it was cancelled."""
        for pick in self._begun:
            if pick.permit.is_open:  # taking in how it ended has failed
                self._gate.void(pick.permit)
        if self.has_answer:
            self._never_grown()
        if isinstance(why, ZejzlError):
            why.attempts = tuple(self.record.attempts)
        await self.record.end_without(why, self.time_left(None))

    def _give_up(self) -> ZejzlError:
        cause = self._first_cause
        if cause is None:
            return self._healer.refusal
        others = {each.provider: each.error for each in self.record.attempts if each.error}
        others.pop(cause.provider, None)
        for error in others.values():
            cause.add_note(f"failed too: {error}")
        for note in self._healer.notes:
            cause.add_note(f"no further call: {note}")
        return cause

    def _log_recovery(self, pick: Pick, outcome: str, seconds: float) -> None:
        """Write the row for the remedy that this call was, now that it is known what it did."""
        if pick.against is None:
            return
        target, issue, failure_class = pick.against
        share = min(1.0, seconds / (self.limits.deadline or USUAL_DEADLINE))
        cost = 0.5 / pick.number + 0.5 * share
        self.record.recoveries.append(
            self._magic.recoveries.record(
                target.breaker.name,
                issue,
                failure_class,
                pick.remedy,
                success=outcome == "ok",
                verified=None if outcome == FailureClass.CANCELLED else True,
                energy_used=pick.cost,
                outcome=outcome,
                request_id=self.record.message.id,
                cost=None if pick.remedy == Remedy.HEDGE else cost,  # no remedy competes with it
            )
        )

    def _weight(self, target: Target) -> int:
        """Return how many tokens a call will be counted as, about."""
        return self.record.weight(target, self.request)

    def _size(self) -> int:
        """Return how long the prompt is, in characters."""
        request = self.request
        told = sum(len(turn.content) for turn in request.history)
        return len(request.content) + len(request.system or "") + told
