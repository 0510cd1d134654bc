"""Healing: who is called next for one request, what for, and at what price.

The first call goes to the first provider of the chain that lets it in. After a failure the
runbook's remedies are tried in order. When none can be had at once, the request waits, within its
patience and its deadline, for whoever will be well first. An extra call is paid from the retry
budget; a refusal is free.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from zejzl.clock import Clock
from zejzl.engine.lifecycle import UnderWay
from zejzl.errors import FailureClass
from zejzl.magic import CircuitBreaker, FairyMagic
from zejzl.policies.breaker import Refused, State
from zejzl.policies.diagnosis import HOPELESS, ONCE_MORE, Diagnosis, Remedy
from zejzl.policies.failover import cost_of
from zejzl.ports import Provider

LEAST_NAP = 0.001


@dataclass(slots=True)
class Seat:
    """A provider's place under one name: another may take it while requests are on their way.

    Attributes:
        provider: Who is called.
        calls: Those under way; they end before their provider is cleaned up.
    """

    provider: Provider
    calls: UnderWay


@dataclass(slots=True)
class Target:
    """A provider that may answer one request, and how that went so far.

    Attributes:
        calls: How often it was called for this request.
        last: How the newest of these calls failed.
        asked_to_wait: Whether it asked for a pause with that.
        not_before: When it may be called again, by the clock's `now()`.
        hopeless: Whether the same request would fail there again.
        turned_away: Whether its breaker has refused this request before.
    """

    seat: Seat
    name: str
    model: str
    breaker: CircuitBreaker
    calls: int = 0
    last: FailureClass | None = None
    asked_to_wait: bool = False
    not_before: float = 0.0
    hopeless: bool = False
    turned_away: bool = False

    @property
    def provider(self) -> Provider:
        """Who is called now."""
        return self.seat.provider


@dataclass(slots=True)
class Pick:
    """Leave to call a provider once: `token` must be given back with the call's end."""

    target: Target
    token: int
    remedy: Remedy
    cost: float
    number: int
    started: float


@dataclass(slots=True)
class Recovered:
    """Wakes whoever waits for a provider, at the moment that one becomes well or may be probed."""

    _event: asyncio.Event = field(default_factory=asyncio.Event)

    def announce(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, clock: Clock, seconds: float) -> None:
        """Return after `seconds`, or sooner when it is worth looking again."""
        try:
            async with clock.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            pass


class Healer:
    """Finds the next call for one request.

    Attributes:
        notes: Why no (further) call was made, in words for the error.
    """

    def __init__(
        self,
        magic: FairyMagic,
        clock: Clock,
        recovered: Recovered,
        chain: Sequence[Target],
        *,
        patience: float | None,
        ends: float,
        max_attempts: int,
    ) -> None:
        self._magic = magic
        self._clock = clock
        self._recovered = recovered
        self._chain = chain
        self._persistent = patience is not None
        self._patience = patience
        self._ends = ends
        self._max_attempts = max_attempts
        self._calls = 0
        self._failed: Target | None = None
        self._was_well = True
        self._diagnosis: Diagnosis | None = None
        self._can_shrink = False
        self._probing = False  # whether somebody who refused had a probe under way
        self.notes: list[str] = []
        self.retry_after = float("inf")

    async def next(self) -> Pick | None:
        """Return the next call, once it may be made; None: there is none, see `notes`."""
        self.notes = []
        if self._diagnosis is None:
            return await self._first()
        if not self._diagnosis.remedies:
            return None
        if self._clock.now() >= self._ends:
            self._note("the deadline has passed")
            return None
        if self._persistent and self._failed is self._chain[0] and self._failed.asked_to_wait:
            pick = await self._wait([self._failed])
            if pick is not None:
                return pick
        for remedy in self._diagnosis.remedies:
            pick = await self._try(remedy)
            if pick is not None:
                return pick
        return None

    def failed(self, pick: Pick, diagnosis: Diagnosis, *, was_well: bool, can_shrink: bool) -> None:
        """Take in how a call ended badly.

        Args:
            pick: The call.
            diagnosis: What was wrong.
            was_well: Whether that provider's outcome before this one was good.
            can_shrink: Whether there is history that could be left out.
        """
        target = pick.target
        self._failed = target
        self._diagnosis = diagnosis
        self._was_well = was_well
        self._can_shrink = can_shrink
        target.last = diagnosis.failure_class
        target.asked_to_wait = diagnosis.retry_after is not None
        target.not_before = self._clock.now() + self._magic.backoff(target.calls + 1, diagnosis)
        if diagnosis.failure_class in HOPELESS or (
            diagnosis.failure_class in ONCE_MORE and target.calls > 1
        ):
            target.hopeless = True

    async def _first(self) -> Pick | None:
        if self._persistent:
            pick = await self._wait(self._chain[:1], Remedy.FIRST)
            if pick is not None:
                return pick
        return await self._wait(self._chain, Remedy.FIRST)

    async def _try(self, remedy: Remedy) -> Pick | None:
        failed = self._failed
        assert failed is not None
        match remedy:
            case Remedy.RETRY | Remedy.RECONNECT:
                if failed.calls > 1 or not self._was_well:
                    return None
                if remedy is Remedy.RECONNECT:
                    reconnect = getattr(failed.provider, "reconnect", None)
                    if reconnect is not None:
                        await reconnect()
                return _only_pick(self._enter([failed], remedy, at_once=True))
            case Remedy.FAILOVER:
                others = [
                    target
                    for target in self._chain
                    if not target.calls and target.breaker.available()
                ]
                return _only_pick(self._enter(others, remedy, at_once=True))
            case Remedy.SHRINK_CONTEXT:
                if not self._can_shrink:
                    return None
                failed.hopeless = False
                return _only_pick(self._enter([failed], remedy, at_once=True))
            case _:
                return await self._wait(self._chain)

    async def _wait(self, targets: Sequence[Target], remedy: Remedy = Remedy.WAIT) -> Pick | None:
        """Return a call of one of `targets` as soon as patience and deadline allow one."""
        while True:
            found = self._enter(targets, remedy)
            if isinstance(found, Pick):
                return found
            if self._patience is None:
                self._patience = self._magic.patience()
            now = self._clock.now()
            limit = min(self._patience, self._ends - now)
            if self._probing:  # it may come back at any moment: that is worth the wait
                found = min(found, limit)
            if found > limit or limit <= 0.0:
                if math.isfinite(found):
                    self._note(f"the wait may last {max(0.0, limit):.1f} s (patience, deadline)")
                return None
            await self._recovered.wait(self._clock, max(LEAST_NAP, found))
            self._patience -= self._clock.now() - now

    def _enter(
        self, targets: Sequence[Target], remedy: Remedy, *, at_once: bool = False
    ) -> Pick | float:
        """Return a call of the first of `targets` that may be called now.

        Else the seconds until one may be; infinity where waiting will not help.
        """
        now = self._clock.now()
        self._probing = False
        soonest = float("inf")
        for target in targets:
            if target.hopeless:
                continue
            if target.calls >= self._max_attempts:
                self._note(f"{target.name} was called {target.calls} times (max_attempts)")
                continue
            if target.not_before > now and not at_once:
                self._note(f"{target.name}: next call in {target.not_before - now:.1f} s")
                soonest = min(soonest, target.not_before - now)
                continue
            cost = self._cost(target)
            wait = self._magic.affordable_in(cost) if cost else 0.0
            if wait > 0.0:
                self._note(self._magic.short_of(cost))
                soonest = min(soonest, wait)
                continue
            token = self._magic.acquire(target.breaker, again=target.turned_away)
            if isinstance(token, Refused):
                target.turned_away = True
                self._note(f"{target.name}: {token.reason}, for {token.retry_after:.1f} s")
                self.retry_after = min(self.retry_after, token.retry_after)
                self._probing |= target.breaker.state is State.HALF_OPEN
                soonest = min(soonest, token.retry_after)
                continue
            self._magic.pay(cost)
            self._calls += 1
            target.calls += 1
            return Pick(target, token, remedy, cost, self._calls, now)
        return soonest

    def _cost(self, target: Target) -> float:
        if not self._calls:
            return 0.0
        return float(cost_of(target.last, waited=target.asked_to_wait))

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _only_pick(found: Pick | float) -> Pick | None:
    return found if isinstance(found, Pick) else None
