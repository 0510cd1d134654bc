"""Rate limits of the caller's own making, or learned from a provider's headers: whose turn is when.

A call is booked before it is made and settled after it, so that all callers share one wait and
come in the order in which they asked. What a provider says of its limits is looked at whenever a
call of it has ended.

A limit that is configured holds for everybody who uses the store: its state lies there, and one
transaction books one call. What was learned is this bus's own; the provider's count of what others
do is in it already.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from zejzl.clock import Clock
from zejzl.engine.journal import unheard
from zejzl.engine.targets import Target
from zejzl.errors import StoreError
from zejzl.policies.quota import Booking, Meter, Rates, Seen
from zejzl.ports import Store
from zejzl.settings import RateLimit

T = TypeVar("T")
log = logging.getLogger(__name__)

MOST_METERS = 1_000  # models of which limits were learned
SOON = 1e-3  # seconds that are not worth a wait
KEPT_AS = "rate_limit:"  # begins the setting that holds a limit's state


@dataclass(slots=True)
class Reservation:
    """A call's turn.

    Attributes:
        target: Whose call.
        start: When it may begin, by the clock's `now()`.
        here: Its place with each meter of this bus.
        there: Its place with each limit in the store.
    """

    target: Target
    start: float
    here: Sequence[tuple[Meter, Booking]]
    there: Sequence[tuple[str, Booking]] = ()


class Quotas:
    """The rate limits of one bus.

    Args:
        limits: Those that are configured, by provider or "provider/model".

    Attributes:
        any: Whether there is any limit at all.
    """

    def __init__(self, store: Store, clock: Clock, limits: Mapping[str, RateLimit]) -> None:
        self._store = store
        self._clock = clock
        self._rates = {name: rates_of(limit) for name, limit in limits.items()}
        self._own = {name: Meter(rates) for name, rates in self._rates.items()}
        self._learned: dict[tuple[str, str], Meter] = {}
        self.any = bool(limits)
        self._heard: dict[tuple[str, str], float] = {}
        self._rubbish: set[str] = set()  # providers whose words made no sense; told once

    def use(self, limits: Mapping[str, RateLimit]) -> None:
        """Take in other limits; those that stay the same keep their counts."""
        rates = {name: rates_of(limit) for name, limit in limits.items()}
        same = {name for name, each in rates.items() if self._rates.get(name) == each}
        self._own = {
            name: self._own[name] if name in same else Meter(each) for name, each in rates.items()
        }
        self._rates = rates
        self.any = bool(rates or self._learned)

    def warn(self, providers: Collection[str]) -> None:
        """Tell of limits that hold for nobody: none of the registered providers has their name."""
        for name in self._rates:
            provider = name.partition("/")[0]
            if provider not in providers:
                known = ", ".join(providers) or "none"
                log.warning("the rate limit of %s holds for nobody; registered: %s", name, known)

    def limits(self, target: Target) -> bool:
        """Say whether any limit holds for a call."""
        return bool(self._meters(target) or self._names(target))

    def wait(self, target: Target, tokens: int) -> float:
        """Return the seconds that a call of so many tokens would have to wait.

        Infinity where only the store can tell: it has to be reserved then.
        """
        if self._store.shared and self._names(target):
            return float("inf")
        now = self._clock.now()
        return max((meter.wait(now, tokens) for meter in self._meters(target)), default=0.0)

    def book(self, target: Target, tokens: int) -> Reservation:
        """Take a call's turn; not for limits that lie in a shared store."""
        now, meters = self._clock.now(), self._meters(target)
        # With all of them at the same time, the latest: each counts a call when it begins.
        start = now + max((meter.wait(now, tokens) for meter in meters), default=0.0)
        here = [(meter, meter.book(now, tokens, begin=start)) for meter in meters]
        return Reservation(target, start, here)

    async def reserve(self, target: Target, tokens: int) -> Reservation:
        """Take a call's turn, with everybody's where the store is shared.

        Raises:
            StoreError: If the store would not tell.
        """
        booked = self.book(target, tokens)
        if not self._store.shared:
            return booked
        there: list[tuple[str, Booking]] = []
        booked.there = there
        try:
            for name in self._names(target):
                ahead = booked.start - self._clock.now()
                booking = await self._booked(name, partial(_book, tokens, ahead))
                there.append((name, booking))
                ahead = booking.start - self._clock.wall()
                booked.start = max(booked.start, self._clock.now() + ahead)
        except BaseException:
            self.cancel(booked)
            raise
        return booked

    async def _booked(self, name: str, work: Callable[[Meter, float], Booking]) -> Booking:
        """Return a booking in the store; one that comes after its caller has left is cancelled."""
        booking = asyncio.ensure_future(self._revise(name, work))
        try:
            return await asyncio.shield(booking)
        except BaseException:
            booking.add_done_callback(partial(self._come_too_late, name))
            raise

    def _come_too_late(self, name: str, booking: "asyncio.Future[Booking]") -> None:
        if not booking.cancelled() and booking.exception() is None:
            self._revise_unheard(name, partial(_cancel, booking.result()))

    def cancel(self, reservation: Reservation) -> None:
        """Give back the turn of a call that was never made."""
        for meter, booking in reservation.here:
            meter.cancel(booking)
        for name, booking in reservation.there:
            self._revise_unheard(name, partial(_cancel, booking))

    def settle(self, reservation: Reservation, tokens: int) -> None:
        """Count a call's real tokens in place of those that were reserved."""
        for meter, booking in reservation.here:
            meter.settle(booking, tokens)
        for name, booking in reservation.there:
            limits = self._rates.get(name)
            if limits and limits.tokens is not None and booking.tokens != tokens:
                self._revise_unheard(name, partial(_settle, booking, tokens))

    def look(self, target: Target) -> None:
        """Take in what the provider has said of its limits, if it has said anything new."""
        told = getattr(target.provider, "quota", None)
        if told is None:
            return
        try:
            found = told(target.model)
            if found is not None:
                self._learn((target.name, target.model), *found)
        except Exception as problem:  # noqa: BLE001 - a user's own may say anything; the answer counts
            if target.name not in self._rubbish:
                log.warning("what %s says of its rate limits is no use: %r", target.name, problem)
            self._rubbish.add(target.name)

    def _learn(self, key: tuple[str, str], at: float, seen: Seen) -> None:
        if self._heard.get(key) == at:
            return
        meter = self._learned.get(key)
        if meter is None and len(self._learned) >= MOST_METERS:
            return
        meter = meter or Meter(Rates())
        meter.observe(at, seen)
        self._learned[key], self._heard[key], self.any = meter, at, True

    def status(self) -> list[dict[str, object]]:
        """Return what limits are in force, JSON-ready."""
        meters = [*self._own.items(), *(("/".join(key), it) for key, it in self._learned.items())]
        return [
            {"name": name, "what": it.what, "most": it.most, "window": it.window, "told": it.told}
            for name, meter in meters
            for it in meter.limits()
        ]

    def _names(self, target: Target) -> list[str]:
        """Return the names of the configured limits that hold for a call."""
        if not self._rates:
            return []
        names = target.name, f"{target.name}/{target.model}".lower()
        return [name for name in names if name in self._rates]

    def _meters(self, target: Target) -> list[Meter]:
        """Return the meters of this bus that a call has to pass."""
        own = [] if self._store.shared else [self._own[name] for name in self._names(target)]
        learned = self._learned.get((target.name, target.model))
        return own if learned is None else [*own, learned]

    def _revise(self, name: str, work: Callable[[Meter, float], T]) -> Awaitable[T]:
        """Let `work` change the state of a limit in the store, by the wall's clock."""
        rates = self._rates.get(name, Rates())  # a call may outlive its limit

        def change(kept: str | None) -> tuple[str, T]:
            meter = _read(name, kept, rates)
            result = work(meter, self._clock.wall())  # when it is this one's turn, not before
            return json.dumps(meter.to_json()), result

        return self._store.revise(f"{KEPT_AS}{name}", change)

    def _revise_unheard(self, name: str, work: Callable[[Meter, float], None]) -> None:
        try:
            unheard(self._revise(name, work))
        except StoreError as problem:
            log.warning("the rate limit of %s could not be corrected: %s", name, problem)


def _book(tokens: int, ahead: float, meter: Meter, now: float) -> Booking:
    return meter.book(now, tokens, begin=now + max(0.0, ahead))


def _cancel(booking: Booking, meter: Meter, now: float) -> None:
    meter.cancel(booking)


def _settle(booking: Booking, tokens: int, meter: Meter, now: float) -> None:
    meter.settle(booking, tokens)


def _read(name: str, kept: str | None, rates: Rates) -> Meter:
    """Return the meter whose state was kept; a new one where that is damaged."""
    if kept is None:
        return Meter(rates)
    try:
        return Meter.from_json(json.loads(kept), rates)
    except (ValueError, RecursionError) as wrong:
        log.warning("the state of the rate limit of %s is begun anew: %s", name, wrong)
        return Meter(rates)


def rates_of(limit: RateLimit) -> Rates:
    """Return a configured limit as the policy has it."""
    return Rates(limit.requests, limit.tokens)
