"""FairyMagic: the resilience controller of one bus.

It holds the state of every policy and decides; it sends nothing and stores nothing. A decision is
made synchronously between two awaits, so no locks are needed on one event loop. The engine asks
it before a call (`acquire`, `pay`), tells it afterwards (`succeeded`, `failed`, `void`), and
people ask it how things are (`get_system_status`).
"""

from collections import deque
from collections.abc import Callable, Iterable
from random import Random

from zejzl.clock import Clock, SystemClock
from zejzl.errors import FailureClass, shorten
from zejzl.events import BreakerChanged, BudgetRestored, Event, RecoveryRecorded, utc
from zejzl.magic.breakers import (
    Breakers,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerState,
)
from zejzl.policies.backoff import retry_delay
from zejzl.policies.breaker import Refused, State, Transition
from zejzl.policies.budget import HEALING_COST, Budget
from zejzl.policies.diagnosis import THROTTLED, Diagnosis, Remedy, Verdict, diagnose
from zejzl.policies.failover import dark_spacing

__all__ = [
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "CircuitBreakerState",
    "FairyMagic",
    "HealingRecord",
]

HealingRecord = RecoveryRecorded
HISTORY = 1_000  # recoveries kept in memory; a store keeps them all
PROVIDERS = "ai_provider"
LEAST_PATIENCE = 1.0


class FairyMagic:
    """Resilience controller: circuit breakers, retry budget ("energy"), recovery log.

    Attributes:
        max_energy: Upper end of the retry budget.
        healing_history: The newest 1,000 rows of the recovery log, oldest first.
    """

    def __init__(
        self,
        energy_level: float = 100.0,
        max_energy: float = 100.0,
        components: dict[str, CircuitBreakerConfig] | None = None,
        *,
        clock: Clock | None = None,
        rng: Random | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._rng = rng or Random()
        self._budget = Budget(self._clock.now(), balance=energy_level, maximum=max_energy)
        self._breakers = Breakers(components, self._clock, self._rng, self._breaker_changed)
        self._listeners: list[Callable[[Event], None]] = []
        self._dark_since: float | None = None
        self._dark_probe_at = 0.0
        self._wanted: dict[str, float] = {}
        self.max_energy = max_energy
        self.healing_history: deque[HealingRecord] = deque(maxlen=HISTORY)

    # For people ------------------------------------------------------------------------------

    @property
    def energy_level(self) -> float:
        """The retry budget's balance, 0 to `max_energy`."""
        return self._budget.balance(self._clock.now())

    @property
    def circuit_breakers(self) -> dict[str, CircuitBreaker]:
        """Every circuit breaker by name: components, and "component:child" below them."""
        return self._breakers.all

    async def get_system_status(self) -> dict[str, object]:
        """Return the whole controller's state, JSON-ready; times in seconds."""
        history = self.healing_history
        return {
            "energy_level": round(self.energy_level, 3),
            "max_energy": self.max_energy,
            "circuit_breakers": {name: self._breakers.status(name) for name in self._breakers.all},
            "healing_history_count": len(history),
            "healed_count": sum(record.success for record in history),
            "all_providers_down": self._dark_since is not None,
        }

    async def get_circuit_breaker_status(self, name: str) -> dict[str, object] | None:
        """Return one breaker's status, a component's being its worst child's; None: unknown."""
        return self._breakers.status(name)

    async def reset_circuit_breaker(self, name: str) -> bool:
        """Close a breaker, with its children; False when there is none of that name."""
        if name not in self._breakers.all:
            return False
        for breaker in [self._breakers.all[name], *self._breakers.children(name).values()]:
            breaker.reset()
        self._look_for_light(self._clock.now())
        return True

    async def recharge_magic(self) -> float:
        """Fill the retry budget ("energy") and return it; a new window of its bound begins."""
        self._restore(self.max_energy, "recharged by hand")
        return self.energy_level

    async def auto_heal(self, component: str, exception: BaseException) -> bool:
        """Say whether a retry is worth making now, after waiting the backoff.

        Nothing is counted in the breaker: the failed call did that. False for a component that
        is unknown, whose breaker is open, for a failure that a retry cannot mend, and when the
        retry budget is short.
        """
        if component not in self._breakers.all:
            return False
        return await self._heal(component, exception)

    async def blue_spark_heal(self, component: str, issue: str | BaseException) -> bool:
        """Make one recovery attempt: diagnose, wait the backoff, spend 10 of the retry budget.

        Args:
            component: What failed; one that is unknown has no breaker to ask.
            issue: The failure, or a description of it.
        """
        return await self._heal(component, issue)

    async def _heal(self, component: str, issue: str | BaseException) -> bool:
        if isinstance(issue, BaseException):
            diagnosis = diagnose(issue)
        else:
            diagnosis = Diagnosis(FailureClass.UNKNOWN, Verdict.FAIL)
        now = self._clock.now()
        if refusal := self._why_not(component, diagnosis, now):
            self.recovered(
                component,
                issue,
                diagnosis,
                Remedy.WAIT,
                success=False,
                verified=None,
                energy_used=0.0,
                outcome=refusal,
            )
            return False
        self._budget.spend(HEALING_COST, now)
        await self._clock.sleep(self.backoff(2, diagnosis))
        self.recovered(
            component,
            issue,
            diagnosis,
            Remedy.WAIT,
            success=True,
            verified=None,
            energy_used=HEALING_COST,
            outcome="a retry may be made",
        )
        return True

    def _why_not(self, component: str, diagnosis: Diagnosis, now: float) -> str:
        """Return why a recovery attempt would be in vain, or ""."""
        if not diagnosis.same_again_may_help:
            return f"a retry cannot mend {diagnosis.failure_class}"
        breaker = self._breakers.all.get(component)
        if breaker is not None and breaker.state is State.OPEN:
            return f"circuit breaker is open for {breaker.rule.wait(now):.1f} s"
        if self._budget.balance(now) < HEALING_COST:
            return self.short_of(HEALING_COST)
        return ""

    # For the engine: before a call -----------------------------------------------------------

    def provider(self, name: str, model: str | None = None) -> CircuitBreaker:
        """Return the breaker of a provider, or of one of its models named by the caller."""
        return self._breakers.child(PROVIDERS, f"{name}/{model}" if model else name)

    def forget_provider(self, name: str) -> None:
        """Drop what is known of a provider that was unregistered."""
        self._breakers.forget(PROVIDERS, name)
        self._wanted = {
            wanted: at for wanted, at in self._wanted.items() if wanted in self._breakers.all
        }
        self._look_for_light(self._clock.now())

    def acquire(self, breaker: CircuitBreaker, *, again: bool = False) -> int | Refused:
        """Ask to call a provider: a token for the report afterwards, or a refusal.

        Args:
            breaker: The provider's.
            again: Whether this request was turned away here before.
        """
        now = self._clock.now()
        rule = breaker.rule
        if self._dark_since is not None:
            self._look_for_light(now)
            if self._dark_since is not None and rule.state is State.OPEN:
                wait = self._dark_wait(breaker, now)
                if wait > 0.0:
                    rule.refused += 1
                    return Refused(wait, "no provider is well")
        got = rule.try_acquire(now, lease=breaker.lease(), again=again)
        if rule.news is not None:
            breaker.tell()
        return got

    def _dark_wait(self, breaker: CircuitBreaker, now: float) -> float:
        """Return the seconds until this breaker may be tried while nobody is well; 0.0: now.

        Only providers that somebody asked for of late take turns: one that nobody calls would
        never be tried, and all would wait for it.
        """
        assert self._dark_since is not None
        paused = breaker.rule.paused_until - now
        if paused > 0.0:
            return paused
        spacing = dark_spacing(now - self._dark_since)
        self._wanted[breaker.name] = now
        due = self._dark_probe_at + spacing - now
        if due > 0.0:
            return due
        rivals = [
            rival
            for rival in self._breakers.children(PROVIDERS).values()
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

    def pay(self, cost: float) -> bool:
        """Take the price of an extra call; False, and nothing taken, when there is less."""
        return cost == 0.0 or self._budget.spend(cost, self._clock.now())

    def affordable_in(self, cost: float) -> float:
        """Return the seconds until the retry budget holds `cost`."""
        return self._budget.wait_for(cost, self._clock.now())

    def short_of(self, cost: float) -> str:
        """Return the note for a retry that the budget does not allow."""
        return (
            f"retry budget is short: {cost:g} needed "
            f"(energy {self.energy_level:.1f} of {self.max_energy:g})"
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
        """Return how long a request waits by default when nobody can take it, in seconds.

        A second, or the slowest provider's usual answer.
        """
        known = (
            child.latency(0.95) or 0.0 for child in self._breakers.children(PROVIDERS).values()
        )
        return max(LEAST_PATIENCE, *known, 0.0)

    # For the engine: after a call ------------------------------------------------------------

    def succeeded(self, breaker: CircuitBreaker, token: int, seconds: float, first: bool) -> None:
        """A provider answered; `seconds` to the answer, or to a stream's first piece."""
        breaker.ok(token, seconds)
        if first:
            self._budget.earn()

    def failed(
        self, breaker: CircuitBreaker, token: int, failure: BaseException, diagnosis: Diagnosis
    ) -> None:
        """A provider's call ended badly; its breaker learns what that means."""
        match diagnosis.verdict:
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
        self._look_for_light(self._clock.now())

    def give_back(self, breaker: CircuitBreaker, token: int, cost: float) -> None:
        """A call that was allowed and paid for was never made."""
        breaker.void(token)
        self._budget.restore(cost, self._clock.now())

    def void(self, breaker: CircuitBreaker, token: int) -> None:
        """A provider's call was abandoned; that says nothing about it."""
        breaker.void(token)

    def recovered(
        self,
        target: str,
        issue: str | BaseException,
        diagnosis: Diagnosis,
        remedy: Remedy,
        *,
        success: bool,
        verified: bool | None,
        energy_used: float,
        outcome: str,
        request_id: str | None = None,
    ) -> RecoveryRecorded:
        """Write one row of the recovery log and return it."""
        record = RecoveryRecorded(
            target=target,
            issue=shorten(str(issue)),
            failure_class=diagnosis.failure_class.value,
            remedy=remedy.value,
            success=success,
            verified=verified,
            energy_used=energy_used,
            timestamp=utc(self._clock.wall()),
            outcome=outcome,
            request_id=request_id,
        )
        self.healing_history.append(record)
        self._emit(record)
        return record

    # Listening -------------------------------------------------------------------------------

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every event from here on; it must not raise."""
        self._listeners.append(listener)

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)

    def _breaker_changed(self, breaker: CircuitBreaker, edge: Transition) -> None:
        self._look_for_light(edge.now)
        self._emit(
            BreakerChanged(
                name=breaker.name,
                before=edge.before.value,
                after=edge.after.value,
                generation=edge.generation,
                reason=edge.reason,
                timestamp=utc(self._clock.wall()),
            )
        )

    def _look_for_light(self, now: float) -> None:
        """Notice whether any provider is well, for the budget's income and the probes' clock."""
        providers: Iterable[CircuitBreaker] = self._breakers.children(PROVIDERS).values()
        if not providers or any(child.available() for child in providers):
            self._dark_since = None
        elif self._dark_since is None:
            self._dark_since = self._dark_probe_at = now
        self._budget.darken(self._dark_since is not None, now)

    def _restore(self, amount: float, reason: str) -> None:
        given = self._budget.restore(amount, self._clock.now())
        self._emit(BudgetRestored(amount=given, reason=reason, timestamp=utc(self._clock.wall())))
