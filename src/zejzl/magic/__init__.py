"""FairyMagic: the resilience controller of one bus.

It holds the state of every policy and decides; it sends nothing and stores nothing. A decision is
made synchronously between two awaits, so no locks are needed on one event loop. The engine asks
its `gate` before a call and tells it afterwards; people ask it how things are
(`get_system_status`), and teach it remedies, probes and runbooks of their own.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from random import Random
from typing import TypeVar

from zejzl.clock import Clock, SystemClock
from zejzl.errors import FailureClass
from zejzl.events import BreakerChanged, BudgetRestored, Event, RecoveryRecorded, check_text, utc
from zejzl.magic.acorns import Acorns
from zejzl.magic.breakers import Breakers, CircuitBreaker, CircuitBreakerConfig, CircuitBreakerState
from zejzl.magic.gate import Gate
from zejzl.magic.recoveries import Recoveries
from zejzl.magic.remedies import Ended, Remedies, RemedyFn
from zejzl.magic.rituals import Rituals, Runbook, Step
from zejzl.magic.wards import WardReport, Wards
from zejzl.policies.breaker import Transition
from zejzl.policies.budget import HEALING_COST, Budget
from zejzl.policies.kept import finite

__all__ = [
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "CircuitBreakerState",
    "FairyMagic",
    "HealingRecord",
    "Step",
    "WardReport",
]

HealingRecord = RecoveryRecorded
REFUND = 0.5

Fn = TypeVar("Fn", bound=RemedyFn)
Made = TypeVar("Made", bound=Runbook)
_CRITICAL: ContextVar[tuple[str, ...]] = ContextVar("zejzl_critical", default=())


class FairyMagic:
    """Resilience controller: breakers, retry budget ("energy"), admission, recovery log.

    Attributes:
        max_energy: Upper end of the retry budget.
        recoveries: The recovery log, and what was learned from it.
        clock: Where time comes from.
        gate: What the engine asks before and after every call.
        acorns: Burst credits.
        remedies: The users' own remedies and probes.
        wards: Integrity guards on files.

    Args:
        energy_level, max_energy: The retry budget, now and at most; a new one is full.
        components: Breakers of components by name; they replace or add.
        clock, rng: Where time and chance come from.
        folder: Where the copies of guarded files are kept; None: beside each file.

    Raises:
        TypeError, ValueError: If the budget cannot be.
    """

    def __init__(
        self,
        energy_level: float = 100.0,
        max_energy: float = 100.0,
        components: dict[str, CircuitBreakerConfig] | None = None,
        *,
        clock: Clock | None = None,
        rng: Random | None = None,
        folder: Path | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self._budget = Budget(
            self.clock.now(),
            balance=finite("energy_level", energy_level),
            maximum=finite("max_energy", max_energy),
        )
        rng = rng or Random()
        self._breakers = Breakers(components, self.clock, rng, self._breaker_changed)
        self._listeners: list[Callable[[Event], None]] = []
        self._shield_paid = 0.0
        self.max_energy = self._budget.maximum
        self.gate = Gate(self._breakers, self._budget, self.clock, rng, self.emit)
        self.acorns = Acorns(self.clock, self.emit)
        self.remedies = Remedies(self.clock)
        self.recoveries = Recoveries(
            self._breakers, self.gate, self.remedies, self.clock, self.emit
        )
        self.wards = Wards(self.clock, folder, self.emit)
        self._rituals = Rituals(self)

    # For people ------------------------------------------------------------------------------

    @property
    def energy_level(self) -> float:
        """The retry budget's balance, 0 to `max_energy`."""
        return self._budget.balance(self.clock.now())

    @property
    def acorn_reserve(self) -> int:
        """Burst credits that are left, 0 to 5."""
        return self.acorns.left

    @property
    def is_shielded(self) -> bool:
        """Whether admission control lets only critical work pass."""
        return bool(self.gate.raised)

    @property
    def healing_history(self) -> deque[HealingRecord]:
        """The newest 1,000 rows of the recovery log, oldest first."""
        return self.recoveries.history

    @property
    def circuit_breakers(self) -> dict[str, CircuitBreaker]:
        """Every circuit breaker by name: components, and "component:child" below them."""
        return self._breakers.all

    @property
    def learning_preferences(self) -> dict[str, dict[str, float]]:
        """The learned recovery policy: "component:class" → {remedy: probability}."""
        return self.recoveries.probabilities()

    async def get_system_status(self) -> dict[str, object]:
        """Return the whole controller's state, JSON-ready; times in seconds."""
        history = self.healing_history
        return {
            "energy_level": round(self.energy_level, 3),
            "max_energy": self.max_energy,
            "acorn_reserve": self.acorn_reserve,
            "is_shielded": self.is_shielded,
            "shield_reason": self.gate.raised,
            "hardened_for": round(self.gate.hardened_for, 3),
            "circuit_breakers": {name: self._breakers.status(name) for name in self._breakers.all},
            "limits": {
                name: {
                    "limit": round(lane.limiter.limit * lane.limiter.scale, 3),
                    "in_flight": lane.limiter.in_flight,
                    "queued": lane.limiter.waiting,
                    "strained": lane.limiter.strained,
                }
                for name, lane in self.gate.lanes.items()
            },
            "healing_history_count": len(history),
            "healed_count": sum(record.success for record in history),
            "learning_preferences_count": len(self.recoveries.places),
            "preferences": self.preferences(),
            "rituals": self.rituals,
            "all_providers_down": self.gate.dark_since is not None,
        }

    async def get_circuit_breaker_status(self, name: str) -> dict[str, object] | None:
        """Return one breaker's status, a component's being its worst child's; None: there is none.

        Args:
            name: As in `circuit_breakers`; a provider's goes by the provider's name, too.
        """
        return self._breakers.status(self.recoveries.named(name) or name)

    def circuit_breaker(self, component: str, child: str) -> CircuitBreaker:
        """Return the breaker of one callee of a component; made at its first call."""
        return self._breakers.child(component, child)

    async def reset_circuit_breaker(self, name: str) -> bool:
        """Close a breaker, with its children; False when there is none of that name.

        Args:
            name: As in `circuit_breakers`; a provider's goes by the provider's name, too.
        """
        return self.recoveries.reset(name)

    async def recharge_magic(self) -> float:
        """Fill the retry budget ("energy") and return it; a new window of its bound begins."""
        self.restore_energy(self.max_energy, "recharged by hand")
        return self.energy_level

    def restore_energy(self, amount: float, reason: str) -> float:
        """Give retry budget by hand; return what there was room for.

        Raises:
            TypeError, ValueError: If `amount` is no finite number from 0, or `reason` no text.
        """
        check_text("reason", reason)
        given = self._budget.restore(finite("amount", amount), self.clock.now())
        self.emit(BudgetRestored(amount=given, reason=reason, timestamp=self._wall()))
        return given

    def charge(self, cost: float) -> float:
        """Take at most `cost` from the retry budget; return what was there to take.

        Raises:
            TypeError, ValueError: If it is no finite number from 0.
        """
        taken = min(finite("cost", cost), self.energy_level)
        self.gate.pay(taken)
        return taken

    # Admission control -----------------------------------------------------------------------

    async def fairy_shield(self, raised: bool = True) -> bool:
        """Admission control: let only critical work pass, or everybody again.

        Raising costs 10 of the retry budget and lowering refunds half of what was paid; what has
        risen by itself is kept up for nothing. False when the budget is short.

        Raises:
            TypeError: If `raised` is not True or False.
        """
        if not isinstance(raised, bool):
            raise TypeError(f"raised must be True or False, not {raised!r}")
        if not raised:
            self.gate.lower("lowered by hand")
            if self._shield_paid:
                paid, self._shield_paid = self._shield_paid, 0.0
                self.restore_energy(REFUND * paid, "admission control was lowered")
            return True
        if self.gate.raised and not self.gate.by_itself:
            return True
        if not self.gate.raised:
            if not self.gate.pay(HEALING_COST):
                return False
            self._shield_paid = HEALING_COST
        self.gate.raise_by_hand("raised by hand")
        return True

    @asynccontextmanager
    async def critical(self, name: str) -> AsyncIterator[None]:
        """Mark what is sent in this block, and in tasks begun in it, as critical work.

        Args:
            name: What it is, for people.
        """
        token = _CRITICAL.set((*_CRITICAL.get(), name))
        try:
            yield
        finally:
            _CRITICAL.reset(token)

    @property
    def is_critical(self) -> bool:
        """Whether this is asked inside of `critical`."""
        return bool(_CRITICAL.get())

    # Burst credits ---------------------------------------------------------------------------

    async def acorn_vitality_boost(
        self, agent: str, config: Mapping[str, object]
    ) -> dict[str, object]:
        """Burst credit: spend one to let an answer grow by 10 to 50 %.

        Args:
            agent: Whose answer; "provider_NAME" or a provider's name knows its lengths.
            config: Its `max_tokens` grows, the rest stays.

        Returns:
            vitality_boost (1.0 when there was none), new_config, acorns_remaining, and the
            reason where nothing was spent: "no_acorns", "no_max_tokens".

        Raises:
            ValueError: If `max_tokens` is no whole number from 1.
            TypeError: If `agent` is no text.
        """
        check_text("agent", agent)
        lane = self.gate.lanes.get(agent.removeprefix("provider_"))
        return self.acorns.boost(agent, config, lane.lengths if lane else None)

    # Healing ---------------------------------------------------------------------------------

    async def auto_heal(self, component: str, exception: BaseException) -> bool:
        """Say whether a retry is worth making now, after one recovery attempt.

        Nothing is counted in the breaker: the failed call did that. False for a component that
        is unknown, whose breaker is open, for a failure that a retry cannot mend, and when the
        retry budget is short.

        Args:
            component: As in `circuit_breakers`, or a registered provider's name.
        """
        known = self.recoveries.named(component)
        return known is not None and await self.recoveries.heal(known, exception)

    async def blue_spark_heal(self, component: str, issue: str | BaseException) -> bool:
        """Make one recovery attempt: diagnose, choose a remedy, apply it, verify.

        The remedies are waiting the backoff and the users' own; each that is tried costs 10 of
        the retry budget. A registered probe has the last word.

        Args:
            component: What failed: as in `circuit_breakers`, a registered provider's name, or
                anything else: what is unknown has no breaker to ask and no probe.
            issue: The failure, or a description of it.

        Raises:
            TypeError, ValueError: If `component` is no text that can be written down.
        """
        check_text("component", component)
        return await self.recoveries.heal(self.recoveries.named(component) or component, issue)

    def remedy(
        self, component: str, classes: Iterable[FailureClass | str] | None = None
    ) -> Callable[[Fn], Fn]:
        """Return a decorator that adds a remedy of your own for failures of `component`.

        The function is async, takes nothing, the failure, or the failure and the component's
        name, and returns True (or None) when a retry is worth making. It has 10 s, its errors
        are contained, and it competes with the built-in remedies by what comes of it.

        Args:
            component: As in `circuit_breakers`, or a registered provider's name; "ai_provider" is
                every provider, "ai_provider:NAME" one that may come later.
            classes: For which failures; None: for all but refused keys and callers' mistakes.

        Raises:
            ValueError: If there is no such component, nothing can be done about such failures,
                or the name is taken.
            TypeError: If it is not async.
        """
        return self.remedies.remedy(self.recoveries.known(component, later=True), classes)

    def probe(self, component: str) -> Callable[[Fn], Fn]:
        """Return a decorator that adds a check of `component`: True when it is well.

        The function is async and takes nothing, or the component's name. It verifies what
        remedies did, and holly_blessing closes the breakers of what it finds well.

        Args:
            component: As in `remedy`.

        Raises:
            ValueError: If there is no such component.
            TypeError: If it is not async.
        """
        return self.remedies.probe(self.recoveries.known(component, later=True))

    def prefer(
        self,
        winner: str,
        loser: str,
        *,
        component: str | None = None,
        failure_class: FailureClass | str | None = None,
        author: str = "operator",
        withdraw: bool = False,
    ) -> None:
        """State that one remedy is to be preferred to another; it weighs as much as 0.1 success.

        Args:
            winner, loser: Remedies: the runbook's, users' own, or any that was tried before.
            component: Where it holds, as in `remedy`; None: everywhere.
            failure_class: For which failures; None: for all.
            author: Who says so; shown with it.
            withdraw: Take it back.

        Raises:
            ValueError: If both are the same, or there is no such remedy, component or class;
                lists those that are known.
            TypeError: If one is no text.
        """
        self.recoveries.prefer(
            winner,
            loser,
            component=component,
            kind=failure_class,
            author=author,
            withdraw=withdraw,
        )

    def preferences(self) -> list[dict[str, object]]:
        """Return what was learned or stated, a row for each component, class and remedy.

        A row holds the fields of `zejzl.policies.preferences.Row`. What was stated for every
        component or class has rows of its own, with "*" in their place.
        """
        return self.recoveries.rows()

    # Runbooks and guarded files --------------------------------------------------------------

    def ritual(self, name: str) -> Callable[[Made], Made]:
        """Return a decorator that adds a runbook of your own under `name`.

        The function takes nothing or this controller. Async, it does the work and returns a
        sentence (or None); not async, it returns `Step`s, which are done in turn. To perform it
        takes 10 of the retry budget, or what is left of it; its docstring is what lists show.

        Raises:
            ValueError: If `name` cannot be one or is a built-in runbook's.
        """
        return self._rituals.decorate(name)

    async def perform_ritual(self, name: str, target_file: str | Path | None = None) -> str:
        """Perform a runbook; return a sentence that tells what was really done.

        holly_blessing probes every provider and the store and closes the breakers of what
        answers; oak_fortification halves thresholds and limits for ten minutes; fairy_ward
        lets only critical work pass and, with `target_file`, guards that file; mana_surge
        restores 30 of the retry budget, at most once a minute. One of your own takes 10 of the
        retry budget, or what is left of it. A step that fails is told, not raised.

        Raises:
            ValueError: If there is no runbook of that name.
        """
        return await self._rituals.perform(name, target_file)

    @property
    def rituals(self) -> dict[str, str]:
        """What each runbook does, in a line, by its name."""
        return self._rituals.described()

    async def check_wards(self) -> list[WardReport]:
        """Return how each guarded file is: intact, changed, missing, or its copy damaged."""
        return await self.wards.check()

    async def restore_file(self, path: str | Path) -> bool:
        """Make a guarded file what it was when it was guarded; False when its copy is damaged.

        True also where it was intact. What was there instead is kept beside it, as
        `<name>.tampered-<n>`. A file is guarded by the runbook fairy_ward.

        Raises:
            ValueError: If it is not guarded.
            OSError: If it cannot be written; what was there is still there then.
        """
        return await self.wards.restore(path)

    def harden(self, seconds: float) -> None:
        """Halve thresholds and concurrency limits and hedge no more, for `seconds`.

        Raises:
            TypeError, ValueError: If that is no finite number from 0.
        """
        self.gate.harden(finite("seconds", seconds))

    async def check_all(self) -> dict[str, Ended]:
        """Probe everything there is a probe for; close the breakers of what is well.

        Returns how each is, by name: whether it is well, and "ok", "circuit breaker closed" or
        what is wrong.
        """
        return await self.recoveries.check_all()

    # Keeping ---------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, object]:
        """Return what was learned, JSON-ready; `restore` goes on from it, to the last bit."""
        return self.recoveries.snapshot()

    def restore(self, kept: Mapping[str, object]) -> None:
        """Go on from a snapshot.

        Raises:
            ValueError: If it is none, or of another version; nothing was changed then.
        """
        self.recoveries.restore(kept)

    # Listening -------------------------------------------------------------------------------

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every event from here on; it must not raise."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` no more; do nothing where it does not listen."""
        self._listeners = [each for each in self._listeners if each != listener]

    def emit(self, event: Event) -> None:
        """Hand an event to everybody who listens."""
        for listener in self._listeners:
            listener(event)

    def _breaker_changed(self, breaker: CircuitBreaker, edge: Transition) -> None:
        self.gate.changed(breaker, edge)
        self.emit(
            BreakerChanged(
                name=breaker.name,
                before=edge.before.value,
                after=edge.after.value,
                generation=edge.generation,
                reason=edge.reason,
                timestamp=self._wall(),
            )
        )

    def _wall(self) -> datetime:
        return utc(self.clock.wall())
