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
from weakref import WeakKeyDictionary

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


@dataclass(slots=True, eq=False, weakref_slot=True)
class Reservation:
    """A call's turn.

    Attributes:
        target: Whose call.
        tokens: That it was taken for.
        start: When it may begin, by the clock's `now()`.
        here: Its place with each meter of this bus.
        there: Its place with each limit in the store.
        given_back: Whether the call was never made.
    """

    target: Target
    tokens: int
    start: float
    here: Sequence[tuple[Meter, Booking]]
    there: Sequence[tuple[str, Booking]] = ()
    given_back: bool = False


class Quotas:
    """The rate limits of one bus.

    Args:
        limits: Those that are configured, by provider or "provider/model".

    Attributes:
        any: Whether there is any limit at all.
        moved: Called when turns that calls wait for have come nearer or gone further away.
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
        self._ahead: WeakKeyDictionary[Reservation, None] = WeakKeyDictionary()  # in their order
        self._moving: set[asyncio.Future[None]] = set()
        self.moved: Callable[[], None] = lambda: None

    def use(self, limits: Mapping[str, RateLimit]) -> None:
        """Take in other limits: what was started counts, what waits takes its turn anew."""
        rates = {name: rates_of(limit) for name, limit in limits.items()}
        others = {name for name in rates | self._rates if rates.get(name) != self._rates.get(name)}
        now = self._clock.now()
        waiting = [
            each
            for each in self._ahead
            if each.start > now + SOON and not others.isdisjoint(_names_of(each.target))
        ]
        for each in waiting:
            self._give_back(each)
        self._own = {name: self._meter(name, rate) for name, rate in rates.items()}
        self._rates = rates
        self.any = bool(rates or self._learned)
        if waiting:
            self._move(waiting)

    def _meter(self, name: str, rates: Rates) -> Meter:
        """Return the meter for a limit that may be another one from now on."""
        own = self._own.get(name)
        if own is None or own.rates == rates:
            return own or Meter(rates)
        return Meter.from_json(own.to_json(), rates)

    def _move(self, waiting: Sequence[Reservation]) -> None:
        """Take turns anew; in a shared store that is done beside."""
        if self._store.shared:
            moving = asyncio.ensure_future(self._reserve_anew(waiting))
            self._moving.add(moving)
            moving.add_done_callback(self._moving.discard)
            return
        for each in waiting:
            booked = self.book(each.target, each.tokens)
            each.start, each.here = booked.start, booked.here
        self.moved()

    async def _reserve_anew(self, waiting: Sequence[Reservation]) -> None:
        for each in waiting:
            try:
                booked = await self.reserve(each.target, each.tokens)
            except StoreError as problem:
                log.warning("a call of %s keeps its turn: %s", each.target.name, problem)
                continue
            del self._ahead[booked]  # it is that of `each`
            if each.given_back:
                self._give_back(booked)
            else:
                self._give_back(each)  # what another change has taken for it meanwhile
                each.start, each.here, each.there = booked.start, booked.here, booked.there
        self.moved()

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
        return Reservation(target, tokens, start, here)

    async def reserve(self, target: Target, tokens: int) -> Reservation:
        """Take a call's turn, with everybody's where the store is shared.

        Raises:
            StoreError: If the store would not tell.
        """
        while True:
            before = self._rates
            booked = await self._reserve(target, tokens)
            if all(before.get(name) == self._rates.get(name) for name in _names_of(target)):
                self._ahead[booked] = None
                return booked
            self._give_back(booked)  # its limit became another one meanwhile

    async def _reserve(self, target: Target, tokens: int) -> Reservation:
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
        reservation.given_back = True
        self._give_back(reservation)

    def _give_back(self, reservation: Reservation) -> None:
        for meter, booking in reservation.here:
            meter.cancel(booking)
        for name, booking in reservation.there:
            self._revise_unheard(name, partial(_cancel, booking))
        reservation.here = reservation.there = ()

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
        return [name for name in _names_of(target) if name in self._rates]

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


def _names_of(target: Target) -> tuple[str, str]:
    """Return the names that a limit may have which holds for a call."""
    return target.name, f"{target.name}/{target.model}".lower()


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
