"""The gate before every provider: may this call go ahead, and what does its end teach?

    acquire:  pins and pauses ─▶ breaker ─▶ admission ─▶ a Permit, or a Refused that says why
    begun, spoke:  the call's clock runs; one that is late is noticed, not waited for
    succeeded, failed, void, lost:  the permit comes back, and breaker, limit, budget learn

Lateness is marked when its moment has passed and anybody looks: at every `acquire` of the same
provider, when the call ends, and by whoever waits for it. Every decision is made between two
awaits.
"""

from collections.abc import Callable, Iterable, Iterator
from random import Random

from zejzl.clock import Clock
from zejzl.errors import shorten
from zejzl.events import AdmissionChanged, Event, utc
from zejzl.magic.breakers import Breakers, CircuitBreaker
from zejzl.magic.lanes import FOREVER, Asked, Full, Lane, Permit, Raised
from zejzl.policies.admission import LEAST_STANDBY, START, USUAL, Criticality
from zejzl.policies.backoff import retry_delay
from zejzl.policies.breaker import Refused, State, Transition
from zejzl.policies.budget import Budget
from zejzl.policies.diagnosis import THROTTLED, Diagnosis, Verdict
from zejzl.policies.failover import dark_spacing

PROVIDERS = "ai_provider"
LEAST_PATIENCE = 1.35  # seconds: a Retry-After of one, the commonest, is drawn up to 1.3
HEDGE_AFTER = 2.0  # times the moment of lateness, which is 1.5 times the learned p95
STRAY = -2  # the token of a call that a breaker open for lateness let pass; it reports nothing
LOW = 15.0  # of the retry budget: below it admission control closes by itself
WELL = 30.0  # and at which it opens again
UNKNOWN_WAIT = 1.0
TICK = 1e-6  # seconds by which a timer may come early


class Gate:
    """Holds the state of all admission and breaker policies of the providers.

    Attributes:
        raised: "" while everybody passes; else why only critical work does.
        dark_since: Since when no provider is well; None: one is.
        lanes: Every lane by its provider's name.
    """

    def __init__(
        self,
        breakers: Breakers,
        budget: Budget,
        clock: Clock,
        rng: Random,
        emit: Callable[[Event], None],
    ) -> None:
        self._breakers = breakers
        self._children = breakers.children(PROVIDERS)
        self._budget = budget
        self._clock = clock
        self._now = clock.now
        self._rng = rng
        self._emit = emit
        self._dark_probe_at = 0.0
        self._wanted: dict[str, float] = {}
        self.lanes: dict[str, Lane] = {}
        self._guarded_until: float | None = None
        self.dark_since: float | None = None
        self.raised = ""
        self.by_itself = False

    # Before a call ---------------------------------------------------------------------------

    def provider(self, name: str, model: str | None = None) -> CircuitBreaker:
        """Return the breaker of a provider, or of one of its models named by the caller."""
        breaker = self._breakers.child(PROVIDERS, f"{name}/{model}" if model else name)
        if self._guarded_until is not None:
            breaker.harden()
        return breaker

    def lane(self, name: str) -> Lane:
        """Return a provider's lane; made when it is first asked for."""
        if (lane := self.lanes.get(name)) is None:
            lane = self.lanes[name] = Lane(name)
            lane.limiter.scale = 1.0 if self._guarded_until is None else 0.5
        return lane

    def forget_provider(self, name: str) -> None:
        """Drop what is known of a provider that was unregistered."""
        self._breakers.forget(PROVIDERS, name)
        self._wanted = {
            wanted: at for wanted, at in self._wanted.items() if wanted in self._breakers.all
        }
        lane = self.lanes.pop(name, None)
        self.look_again([lane] if lane is not None else [])
        self.look_for_light(self._now())

    def acquire(
        self,
        breaker: CircuitBreaker,
        lane: Lane,
        asked: Asked,
        *,
        first: bool = True,
        again: bool = False,
        placed: bool = False,
        nobody_else: bool = False,
    ) -> Permit | Refused:
        """Ask to call a provider: a permit, or why there is none.

        Args:
            breaker, lane: The provider's.
            asked: By whom.
            first: Whether it is this request's first choice.
            again: Whether this request was turned away here before.
            placed: Whether a place in this lane has been handed to this request already.
            nobody_else: Whether one that is only slow is better than no answer.
        """
        now, rule, limiter = self._now(), breaker.rule, lane.limiter
        self._sweep(breaker, now)
        if self._guarded_until is not None and now >= self._guarded_until:
            self._relax()
        token = rule.flowing
        if token < 0:
            found = self._ask(breaker, now, again)
            if isinstance(found, Refused):
                if not (nobody_else and rule.only_slow and rule.paused_until <= now):
                    return found
                token = STRAY
            elif not rule.probing(found):
                token = found
            elif self.by_itself or not self._shut_to(asked, now):
                return Permit(breaker, lane, found, False, asked.streamed)
            else:
                breaker.void(found)
        if self.raised and self._shut_to(asked, now):
            return Raised(self._raised_for(now), f"only critical work passes: {self.raised}")
        if not placed:
            if not first and not lane.answers and not limiter.in_flight:
                limiter.begin_at(self._standby_limit(lane))
            # A class that never waits is shed by its conversation's share of the room.
            share = 1.0 if asked.criticality else asked.share
            if not limiter.admits(asked.criticality, share):
                crowd = limiter.in_flight
                return Full(0.0, f"{crowd} calls are under way (limit {limiter.limit:.1f})")
            limiter.in_flight += 1
        return Permit(breaker, lane, token, True, asked.streamed)

    def _ask(self, breaker: CircuitBreaker, now: float, again: bool) -> int | Refused:
        rule = breaker.rule
        if self.dark_since is not None:
            self.look_for_light(now)
            if self.dark_since is not None and rule.state is State.OPEN:
                wait = self._dark_wait(breaker, now)
                if wait > 0.0:
                    rule.refused += 1
                    return Refused(wait, "no provider is well")
        lease, wary = breaker.lease(), self.dark_since is None
        got = rule.try_acquire(now, lease=lease, again=again, wary=wary)
        if rule.news is not None:
            breaker.tell()
        return got

    def _standby_limit(self, lane: Lane) -> float:
        """Return where the limit of one that has never answered starts.

        A flood that is turned away from another provider must not drown it: as many as that one
        has proven to bear.
        """
        proven = (other.limiter.proven for other in self.lanes.values() if other is not lane)
        return min(START, max(LEAST_STANDBY, *proven, 0) / USUAL)

    def _dark_wait(self, breaker: CircuitBreaker, now: float) -> float:
        """Return the seconds until this breaker may be tried while nobody is well; 0.0: now.

        Only providers that somebody asked for of late take turns: one that nobody calls would
        never be tried, and all would wait for it.
        """
        assert self.dark_since is not None
        paused = breaker.rule.paused_until - now
        if paused > 0.0:
            return paused
        spacing = dark_spacing(now - self.dark_since)
        self._wanted[breaker.name] = now
        due = self._dark_probe_at + spacing - now
        if due > 0.0:
            return due
        rivals = [
            rival
            for rival in self._children.values()
            if rival.state is State.OPEN
            and rival.rule.paused_until <= now
            and self._wanted.get(rival.name, float("-inf")) >= now - 2.0 * spacing
        ]
        if breaker not in rivals:  # its provider has left, or it stands for too many models
            rivals.append(breaker)
        if min(rivals, key=lambda rival: rival.rule.probed_at) is not breaker:
            return spacing
        breaker.rule.allow_probe()
        self._dark_probe_at = now
        return 0.0

    def release(self, lane: Lane) -> None:
        """Give back a place that was handed over and is not used."""
        lane.limiter.leave()
        self._serve(lane)

    def begun(self, permit: Permit, started: float) -> None:
        """The call began at `started`: from then on it can become late."""
        tempo = permit.tempo
        after = tempo.late_after
        permit.started = started
        if after is not None:
            permit.late_at = started + after
            tempo.flying[permit] = None

    def spoke(self, permit: Permit) -> None:
        """The first piece of a stream is there."""
        self.look(permit)
        permit.breaker.rule.spoke(permit.token)
        permit.tempo.flying.pop(permit, None)
        permit.late_at = FOREVER  # how long it talks says nothing of how late it was

    def look(self, permit: Permit) -> bool:
        """Return whether the call is late, having marked it if it has just become so."""
        return self._late_by(permit, self._now())

    def _late_by(self, permit: Permit, now: float) -> bool:
        if now >= permit.late_at - TICK and not permit.late:
            self._mark_late(permit, now)
        return permit.late

    def hedge_times(self, permit: Permit) -> tuple[float, float] | None:
        """Return when a second call is worth its price, by the clock; None: that is not known.

        The first is the moment of lateness, and only for a provider that is in trouble.
        """
        if permit.late_at == FOREVER or self._guarded_until is not None:
            return None
        after = permit.late_at - permit.started
        return permit.late_at, permit.started + after * HEDGE_AFTER

    def in_trouble(self, permit: Permit) -> bool:
        """Whether the provider of a late call is late as a rule, or not trusted at all."""
        return permit.lane.limiter.strained or not permit.breaker.rule.closed

    # The budget ------------------------------------------------------------------------------

    def pay(self, cost: float) -> bool:
        """Take the price of an extra call; False, and nothing taken, when there is less."""
        if cost == 0.0:
            return True
        paid = self._budget.spend(cost, self._now())
        self._consider_raising()
        return paid

    def affordable_in(self, cost: float) -> float:
        """Return the seconds until the retry budget holds `cost`."""
        return self._budget.wait_for(cost, self._now())

    def short_of(self, cost: float) -> str:
        """Return the note for a retry that the budget does not allow."""
        budget = self._budget
        return (
            f"retry budget is short: {cost:g} needed "
            f"(energy {budget.balance(self._now()):.1f} of {budget.maximum:g})"
        )

    def backoff(self, attempt: int, diagnosis: Diagnosis) -> float:
        """Return the seconds to wait before `attempt` (2 is the first retry)."""
        return retry_delay(
            attempt,
            self._rng,
            throttled=diagnosis.failure_class in THROTTLED,
            retry_after=diagnosis.retry_after,
        )

    def patience(self) -> float:
        """Return the seconds a request waits by default: one, or the slowest usual answer."""
        usual = (child.latency(0.95) or 0.0 for child in self._children.values())
        return max(LEAST_PATIENCE, max(usual, default=0.0))

    # After a call ----------------------------------------------------------------------------

    def succeeded(self, permit: Permit, seconds: float, first: bool) -> None:
        """A provider answered; `seconds` to the answer, or to a stream's first piece."""
        now, lane, tempo = self._now(), permit.lane, permit.tempo
        if not self._late_by(permit, now):
            lane.limiter.on_time(now, permit.started, swift=tempo.swift(seconds))
        if permit.placed:
            lane.limiter.answered(now, permit.crowd)
        lane.answers += 1
        tempo.push(seconds)
        permit.breaker.ok(permit.token)
        if first:
            self._budget.earn()
        self._end(permit)

    def failed(self, permit: Permit, failure: BaseException, diagnosis: Diagnosis) -> bool:
        """A provider's call ended badly; its breaker learns what that means.

        Returns whether it was one too many: the limit is lower now, and a place is all it wants.
        """
        self.look(permit)
        breaker, token = permit.breaker, permit.token
        verdict, too_many = diagnosis.verdict, False
        if diagnosis.failure_class in THROTTLED and permit.placed and breaker.rule.closed:
            usual = permit.tempo.late_after or UNKNOWN_WAIT
            too_many = permit.lane.limiter.overloaded(self._now(), permit.crowd, usual)
            if too_many and verdict is Verdict.FAIL:
                verdict = Verdict.VOID
        match verdict:
            case Verdict.FAIL:
                breaker.fail(token, failure)
            case Verdict.VOID:
                breaker.void(token)
            case Verdict.PAUSE:
                seconds = diagnosis.retry_after or 0.0
                breaker.pause(token, seconds, f"it asked for a pause of {seconds:g} s")
            case Verdict.PAUSE_KEY:
                seconds = breaker.config.recovery_timeout
                breaker.pause(token, seconds, f"its key was refused: {shorten(str(failure))}")
        self.look_for_light(self._now())
        self._end(permit, full=diagnosis.failure_class in THROTTLED)
        return too_many

    def give_back(self, permit: Permit, cost: float) -> None:
        """A call that was allowed and paid for was never made."""
        permit.breaker.void(permit.token)
        self._budget.restore(cost, self._now())
        self._end(permit)

    def void(self, permit: Permit) -> None:
        """A call was abandoned; that says nothing about its provider, save that it was late."""
        self.look(permit)
        permit.breaker.void(permit.token)
        self._end(permit)

    def _end(self, permit: Permit, *, full: bool = False) -> None:
        """Take the place back; where there was none in truth, it is handed to nobody."""
        permit.tempo.flying.pop(permit, None)
        if permit.placed:
            permit.placed = False
            permit.lane.limiter.leave()
            if not full or not permit.lane.limiter.in_flight:
                self._serve(permit.lane)

    def _serve(self, lane: Lane) -> None:
        for waiter in lane.limiter.served() if lane.limiter.waiting else ():
            if not waiter.grant(lane):
                lane.limiter.leave()

    # Lateness --------------------------------------------------------------------------------

    def _sweep(self, breaker: CircuitBreaker, now: float) -> None:
        """Mark who has become late since anybody looked; the oldest come first."""
        for tempo in breaker.tempos:
            flying = tempo.flying
            while flying:
                permit = next(iter(flying))
                if permit.late_at > now:
                    break
                self._mark_late(permit, now)

    def _mark_late(self, permit: Permit, now: float) -> None:
        permit.late = True
        breaker, limiter, rule = permit.breaker, permit.lane.limiter, permit.breaker.rule
        permit.tempo.flying.pop(permit, None)
        limiter.late(now)
        if rule.probing(permit.token):
            if any(True for _ in self._others(permit.lane)):
                rule.slow(permit.token, now, "its answer was not there in time")
        elif limiter.browned_out and rule.flowing == permit.token and self._someone_better(permit):
            rule.slow(permit.token, now, "half of its last 20 answers were late")
            limiter.forget_lateness()
        if rule.news is not None:
            breaker.tell()

    def _others(self, lane: Lane) -> Iterator[tuple[CircuitBreaker, Lane]]:
        """Yield every other provider that is well."""
        for name, child in self._children.items():
            other = self.lanes.get(name.partition("/")[0])
            if other is not None and other is not lane and child.available():
                yield child, other

    def _someone_better(self, permit: Permit) -> bool:
        mine, streamed = permit.tempo.latencies.quantile(0.5) or 0.0, permit.streamed
        for child, lane in self._others(permit.lane):
            usual = child.tempo(streamed).latencies.quantile(0.5)
            if lane.limiter.has_room and (usual is None or usual < mine):
                return True
        return False

    # Guarding --------------------------------------------------------------------------------

    def raise_by_hand(self, reason: str) -> None:
        """Let only critical work pass."""
        self._raise(reason, by_itself=False)

    def lower(self, reason: str, *, by_itself: bool = False) -> None:
        """Let everybody pass again."""
        if self.raised:
            self.raised, self.by_itself = "", by_itself
            self._tell_admission(reason)

    def _raise(self, reason: str, *, by_itself: bool) -> None:
        self.raised, self.by_itself = reason, by_itself
        self._tell_admission(reason)
        self.look_again()

    def _tell_admission(self, reason: str) -> None:
        self._emit(
            AdmissionChanged(
                raised=bool(self.raised),
                automatic=self.by_itself,
                reason=reason,
                timestamp=utc(self._clock.wall()),
            )
        )

    def _consider_raising(self) -> None:
        """Keep what is left for critical work when retries are used up and nobody has room."""
        now = self._now()
        if self.raised or self._budget.balance(now) >= LOW:
            return
        trouble = any(child.state is not State.CLOSED for child in self._children.values())
        if trouble and not self._room(Criticality.NORMAL):
            self._raise(f"retry budget is below {LOW:g} and no provider has room", by_itself=True)

    def _shut_to(self, asked: Asked, now: float) -> bool:
        """Return whether only others pass; lowers what rose by itself, once its reason is gone."""
        if asked.criticality >= Criticality.CRITICAL:
            return False
        reason_gone = self._budget.balance(now) >= WELL or self._room(Criticality.SHEDDABLE)
        if self.by_itself and reason_gone:
            self.lower("retry budget or room is back", by_itself=True)
        return bool(self.raised)

    def _room(self, criticality: Criticality) -> bool:
        """Return whether one that is well has room for a call of this class, or may yet."""
        return any(
            child.available()
            and (lane := self.lanes.get(name.partition("/")[0])) is not None
            and (lane.limiter.admits(criticality) or lane.limiter.proving)
            for name, child in self._children.items()
        )

    def _raised_for(self, now: float) -> float:
        """Return the seconds until it is worth asking again."""
        wait = self._budget.wait_for(WELL, now) if self.by_itself else UNKNOWN_WAIT
        return min(max(wait, 0.001), WELL) if wait < float("inf") else UNKNOWN_WAIT

    def harden(self, seconds: float) -> None:
        """For `seconds`, halve thresholds and limits and make no second calls for lateness."""
        self._guarded_until = self._now() + seconds
        for child in self._children.values():
            child.harden()
        for lane in self.lanes.values():
            lane.limiter.scale = 0.5

    @property
    def hardened_for(self) -> float:
        """Seconds that hardening lasts on; 0.0: it does not."""
        if self._guarded_until is not None and self._now() >= self._guarded_until:
            self._relax()
        return 0.0 if self._guarded_until is None else self._guarded_until - self._now()

    def _relax(self) -> None:
        self._guarded_until = None
        for child in self._children.values():
            child.relax()
        for lane in self.lanes.values():
            lane.limiter.scale = 1.0
            self._serve(lane)

    # Looking around --------------------------------------------------------------------------

    def look_again(self, lanes: Iterable[Lane] | None = None) -> None:
        """Tell everybody in line that something has changed; None: in all lines."""
        for lane in self.lanes.values() if lanes is None else lanes:
            for waiter in lane.limiter.outwaited():
                waiter.look_again()

    def changed(self, breaker: CircuitBreaker, edge: Transition) -> None:
        """A breaker went over an edge."""
        if edge.after is State.OPEN and (lane := self._lane_of(breaker)) is not None:
            lane.limiter.outage()
        self.look_for_light(edge.now)
        self._consider_raising()

    def _lane_of(self, breaker: CircuitBreaker) -> Lane | None:
        """Return the lane of a provider's or a model's breaker; None: it is another's."""
        component, _, name = breaker.name.partition(":")
        return self.lanes.get(name.partition("/")[0]) if component == PROVIDERS else None

    def look_for_light(self, now: float) -> None:
        """Notice whether any provider is well, for the budget's income and the probes' clock."""
        providers = self._children.values()
        if not providers or any(child.available() for child in providers):
            self.dark_since = None
        elif self.dark_since is None:
            self.dark_since = self._dark_probe_at = now
        self._budget.darken(self.dark_since is not None, now)
