"""The entrance: lets one request in with the first provider that takes it now, or says why not.

hopeless, gone, tried often enough, too long ─▶ not at all
backoff, rate limit, retry budget, breaker, admission ─▶ not now
"""

import math
from collections.abc import Callable, Sequence

from zejzl.clock import Clock
from zejzl.engine.quotas import SOON, Quotas, Reservation
from zejzl.engine.targets import Means, Pick, Target
from zejzl.magic import FairyMagic
from zejzl.magic.lanes import Full, Lane, Permit, Raised
from zejzl.policies.breaker import Refused, State
from zejzl.policies.failover import cost_of

INCOME_NAP = 0.25  # between looks at a retry budget that is short


class Entrance:
    """Where one request gets leave to call a provider.

    Args:
        size: Returns how long the prompt is at present, in characters.
        weigh: Returns how many tokens a call will be counted as, about.

    Attributes:
        failed: Whose call has failed last.
        one_too_many: Whether that was one too many for a provider that is well.
        held: A turn that was taken ahead; whoever is let in uses it up.
        retry_after: Seconds until the first of those who refused may let somebody in.
        probing: Of the last look: whether what it found may change at any moment.
        full: Of the last look: those that are well and have no place.
        limited: Of the last look: those whose rate limit wants a wait, with its seconds.
        raised: Of the last look: who lets only critical work in.
    """

    def __init__(
        self,
        magic: FairyMagic,
        clock: Clock,
        quotas: Quotas,
        chain: Sequence[Target],
        means: Means,
        size: Callable[[], int],
        weigh: Callable[[Target], int],
    ) -> None:
        self._gate = magic.gate
        self._clock = clock
        self._quotas = quotas
        self._chain = chain
        self._means = means
        self._size = size
        self._weigh = weigh
        self._calls = 0
        self._notes: dict[str, str] = {}
        self.failed: Target | None = None
        self.one_too_many = False
        self.held: Reservation | None = None
        self.retry_after = float("inf")
        self.probing = False
        self.full: list[Lane] = []
        self.limited: list[tuple[float, Target]] = []
        self.raised: Raised | None = None

    def enter(
        self,
        targets: Sequence[Target],
        remedy: str,
        *,
        at_once: bool = False,
        any_size: bool = False,
        nobody_else: bool = False,
        place: Lane | None = None,
        price: float | None = None,
    ) -> Pick | float:
        """Return a call of the first of `targets` that may be called now.

        Else the seconds until one may be; infinity where waiting will not help.

        Args:
            place: A lane a place of which was handed over; it goes back if it is not used.
        """
        now = self._clock.now()
        self.probing, self.raised = False, None
        self.full, self.limited = [], []
        soonest = float("inf")
        pick: Pick | None = None
        for target in targets:
            if not self._eligible(target, any_size):
                continue
            if target.not_before > now and not at_once:
                self.note(f"{target.name}: next call in {target.not_before - now:.1f} s")
                soonest = min(soonest, target.not_before - now)
                continue
            if self._quotas.any and (wait := self._turn(target, now)) > 0.0:
                soonest = min(soonest, wait)
                continue
            cost = self._cost(target) if price is None else price
            wait = self._gate.affordable_in(cost) if cost else 0.0
            if wait > 0.0:
                self.note(self._gate.short_of(cost))
                self.probing = True  # the income of others' successes is not foreseen
                soonest = min(soonest, wait, INCOME_NAP)
                continue
            found = self._gate.acquire(
                target.breaker,
                target.lane,
                self._means.asked,
                first=target is self._chain[0],
                again=target.turned_away,
                placed=target.lane is place,
                nobody_else=nobody_else,
            )
            if isinstance(found, Permit):
                if found.placed and target.lane is place:
                    place = None
                pick = self._let_in(target, found, str(remedy), cost, now)
                break
            soonest = min(soonest, self._turned_away(target, found))
        if place is not None:
            self._gate.release(place)
        return pick if pick is not None else soonest

    def _let_in(self, target: Target, permit: Permit, remedy: str, cost: float, now: float) -> Pick:
        self._gate.pay(cost)
        self._calls += 1
        target.calls += 1
        pick = Pick(target, permit, remedy, cost, self._calls, now)
        if self._quotas.any:
            pick.turn = self._taken(target)
        return pick

    def _turn(self, target: Target, now: float) -> float:
        """Return the seconds until a rate limit lets a call begin; 0.0: now."""
        if self.held is not None and self.held.target is target:
            wait = self.held.start - now
        elif self._quotas.limits(target):
            wait = self._quotas.wait(target, self._weigh(target))
        else:
            return 0.0
        if wait <= SOON:
            return 0.0
        if self.held is None:
            self.limited.append((wait, target))
        if math.isfinite(wait):
            self.note(f"{target.name}: its rate limit lets the next call begin in {wait:.1f} s")
        return wait

    def _taken(self, target: Target) -> Reservation | None:
        """Return the turn of a call that is let in."""
        if self.held is not None and self.held.target is target:
            turn, self.held = self.held, None
            return turn
        if self._quotas.limits(target):
            return self._quotas.book(target, self._weigh(target))
        return None

    async def reserve(self, target: Target, seconds: float) -> float:
        """Take a turn ahead, and hold it; return the seconds until it comes.

        It is given back where it does not come within `seconds`.
        """
        held = await self._quotas.reserve(target, self._weigh(target))
        wait = held.start - self._clock.now()
        if wait > seconds:
            self._quotas.cancel(held)
        else:
            self.held = held
        return wait

    def let_go(self) -> None:
        """Give back a turn that is not used."""
        if self.held is not None:
            held, self.held = self.held, None
            self._quotas.cancel(held)

    def _turned_away(self, target: Target, refused: Refused) -> float:
        """Take in why a provider let nobody in; return the seconds until it may."""
        if isinstance(refused, Full):
            self.note(f"{target.name} is full: {refused.reason}")
            self.full.append(target.lane)
            return float("inf")
        if isinstance(refused, Raised):
            self.raised = refused
            self.note(f"{target.name}: {refused.reason}")
            return float("inf")
        target.turned_away = True
        self.note(f"{target.name}: {refused.reason}, for {refused.retry_after:.1f} s")
        self.retry_after = min(self.retry_after, refused.retry_after)
        self.probing |= target.breaker.state is State.HALF_OPEN
        return refused.retry_after

    def _eligible(self, target: Target, any_size: bool) -> bool:
        """Return whether a call there could succeed at all."""
        if target.hopeless:
            return False
        if target.seat.gone:
            self.note(f"{target.name} was unregistered")
            return False
        if target.calls >= self._means.max_attempts:
            self.note(f"{target.name} was called {target.calls} times (max_attempts)")
            return False
        if not any_size and target.context.refused < math.inf and not target.calls:
            size = self._size()
            if target.context.too_long(size) and any(
                not (other.hopeless or other.context.too_long(size)) for other in self._chain
            ):
                self.note(f"{target.name}: its model has refused shorter prompts")
                return False
        return True

    def _cost(self, target: Target) -> float:
        if not self._calls:
            return 0.0
        cost = cost_of(
            target.last,
            waited=target.asked_to_wait,
            diverted=self.failed is not None and not self.failed.breaker.available(),
            one_too_many=self.one_too_many,
        )
        return float(cost)

    # Why not ---------------------------------------------------------------------------------

    @property
    def notes(self) -> list[str]:
        """Why no (further) call was made, in words for the error."""
        return list(self._notes.values())

    def note(self, text: str) -> None:
        """Keep a reason; the newest of each kind and provider."""
        self._notes[text.partition(":")[0].partition(" is full")[0]] = text

    def forget_notes(self) -> None:
        """Begin anew with the reasons."""
        self._notes = {}
