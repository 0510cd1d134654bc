"""Healing: who is called next for one request, what for, and at what price.

The first call goes to the first provider of the chain that lets it in. After a failure the
remedies that may help are tried, the best first as far as was learned, else in the runbook's
order. When none can be had at once, the request waits, within its patience and its deadline, for
whoever will be well first; for a place with one that is well but full it waits to the deadline.
An extra call is paid from the retry budget; a refusal is free.
"""

import math
from collections.abc import Callable, Sequence

from zejzl.clock import Clock
from zejzl.engine.targets import Means, Pick, Target
from zejzl.engine.waiting import InLine, Recovered
from zejzl.errors import (
    CircuitOpen,
    Overloaded,
    ProviderError,
    Rejected,
    Shielded,
    shorten,
    words,
)
from zejzl.magic import FairyMagic
from zejzl.magic.lanes import Full, Lane, Permit, Raised
from zejzl.policies.admission import LINE, Criticality
from zejzl.policies.breaker import Refused, State
from zejzl.policies.budget import Cost
from zejzl.policies.diagnosis import HOPELESS, ONCE_MORE, Diagnosis, Remedy
from zejzl.policies.failover import cost_of

LEAST_NAP = 0.001
LEAST_WAIT = 0.1  # that is asked of a caller who found no place
DOUBT = 2.0  # an expected wait may turn out longer: others overtake, limits shrink
INCOME_NAP = 0.25  # between looks at a retry budget that is short


class Healer:
    """Finds the next call for one request.

    Args:
        size: Returns how long the prompt is at present, in characters.
    """

    def __init__(
        self,
        magic: FairyMagic,
        clock: Clock,
        recovered: Recovered,
        chain: Sequence[Target],
        means: Means,
        size: Callable[[], int],
    ) -> None:
        self._magic = magic
        self._gate = magic.gate
        self._clock = clock
        self._recovered = recovered
        self._chain = chain
        self._means = means
        self._size = size
        self._persistent = means.patience is not None
        self._patience = means.patience
        self._calls = 0
        self._failed: Target | None = None
        self._was_well = True
        self._diagnosis: Diagnosis | None = None
        self._failure: ProviderError | None = None
        self._tried: set[str] = set()
        self._can_shrink = False
        self._one_too_many = False
        self._in_line: InLine | None = None
        self._probing = False  # whether this may change at any moment
        self._full: list[Lane] = []  # those that are well and have no place
        self._raised: Raised | None = None
        self._overloaded: Overloaded | None = None  # why waiting for a place is in vain
        self._notes: dict[str, str] = {}
        self.retry_after = float("inf")

    async def next(self) -> Pick | None:
        """Return the next call, once it may be made; None: there is none, see `notes`."""
        self._notes = {}
        if self._diagnosis is None:
            return await self._first()
        failed, target = self._diagnosis, self._failed
        assert target is not None
        order = self._magic.recoveries.best_first(
            target.breaker.name, failed.failure_class, failed.remedies
        )
        if not order or self._too_late():
            return None
        if self._persistent and target is self._chain[0] and target.asked_to_wait:
            pick = await self._wait([target], last=len(self._chain) == 1)
            if pick is not None:
                return pick
        for remedy in order:
            if self._too_late():  # a remedy may have taken all the time there was
                return None
            pick = await self._try(remedy)
            if pick is not None:
                return pick
        return None

    def failed(
        self,
        pick: Pick,
        error: ProviderError,
        diagnosis: Diagnosis,
        *,
        was_well: bool,
        can_shrink: bool,
        too_many: bool = False,
    ) -> None:
        """Take in how a call ended badly.

        Args:
            pick: The call.
            error: What it raised.
            diagnosis: What was wrong.
            was_well: Whether that provider's outcome before this one was good.
            can_shrink: Whether there is history that could be left out.
            too_many: Whether it was one too many for a provider that is well.
        """
        target = pick.target
        self._failed, self._failure = target, error
        self._diagnosis = diagnosis
        self._was_well = was_well
        self._can_shrink = can_shrink
        target.last = diagnosis.failure_class
        target.asked_to_wait = diagnosis.retry_after is not None
        self._one_too_many = too_many
        # The line for a place is wait enough.
        wait = 0.0 if too_many else self._gate.backoff(target.calls + 1, diagnosis)
        target.not_before = self._clock.now() + wait
        if diagnosis.failure_class in HOPELESS or (
            diagnosis.failure_class in ONCE_MORE and target.calls > 1
        ):
            target.hopeless = True

    def beside(self) -> Pick | None:
        """Return a second call of another provider beside a late one; None: nobody can take it."""
        others = [
            target for target in self._chain if not target.calls and target.breaker.available()
        ]
        if not others or self._gate.affordable_in(Cost.HEDGE) > 0.0:
            return None
        return _only_pick(self._enter(others, Remedy.HEDGE, price=Cost.HEDGE))

    @property
    def refusal(self) -> Rejected:
        """Why not even a first call could be made."""
        first = self._chain[0]
        if self._raised is not None:
            return Shielded(first.name, *self._raised)
        if self._overloaded is not None:
            return self._overloaded
        reason = "; ".join(self.notes) or "nobody could be called"
        refused = CircuitOpen(first.name, self.retry_after, reason)
        if first.breaker.last_error:
            refused.add_note(f"the last failure of {first.name}: {first.breaker.last_error}")
        return refused

    async def _first(self) -> Pick | None:
        if self._persistent and len(self._chain) > 1:
            pick = await self._wait(self._chain[:1], Remedy.FIRST, last=False)
            if pick is not None:
                return pick
        return await self._wait(self._chain, Remedy.FIRST)

    async def _try(self, remedy: str) -> Pick | None:
        failed = self._failed
        assert failed is not None
        match remedy:
            case Remedy.RETRY | Remedy.RECONNECT:
                # Where a part of the answer is out, if anybody the same one says the same again.
                if not self._means.told and (failed.calls > 1 or not self._was_well):
                    return None
                if remedy == Remedy.RECONNECT and not await self._reconnected(failed):
                    return None
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
                return _only_pick(self._enter([failed], remedy, at_once=True, any_size=True))
            case Remedy.GROW_ANSWER:
                return _only_pick(self._enter([failed], remedy, at_once=True))
            case Remedy.WAIT:
                return await self._wait(self._chain)
            case _:
                return await self._users_own(remedy)

    async def _reconnected(self, target: Target) -> bool:
        """Say whether the next call goes over fresh connections, as far as the provider has any."""
        reconnect = getattr(target.provider, "reconnect", None)
        if reconnect is None:
            return True
        try:
            async with self._clock.timeout(self._left):
                await reconnect()
        except Exception as problem:  # noqa: BLE001 - a user's own provider may raise anything
            self.note(f"{target.name} has no fresh connections: {shorten(words(problem))}")
            return False
        return True

    async def _users_own(self, remedy: str) -> Pick | None:
        """Let a user's remedy do its work, and call again where it says that this is worth it."""
        failed, diagnosis = self._failed, self._diagnosis
        assert failed is not None and diagnosis is not None and self._failure is not None
        if remedy in self._tried or failed.calls >= self._means.max_attempts:
            return None
        cost = float(Cost.SAME)
        if not self._gate.pay(cost):
            self.note(self._gate.short_of(cost))
            return None
        self._tried.add(remedy)
        try:
            async with self._clock.timeout(self._left):
                ok, said = await self._magic.remedies.apply(
                    failed.breaker.name, remedy, self._failure
                )
        except TimeoutError:
            ok, said = False, "no end before the deadline"
        if ok:
            failed.hopeless = False
            failed.not_before = 0.0
            failed.breaker.rule.unpause()
            pick = _only_pick(self._enter([failed], remedy, at_once=True, price=0.0))
            if pick is not None:
                pick.cost = cost
                return pick
            said = "; ".join(self.notes)
        self._magic.recoveries.record(
            failed.breaker.name,
            self._failure,
            diagnosis.failure_class,
            remedy,
            success=False,
            verified=None if ok else False,
            energy_used=cost,
            outcome=said,
            cost=None if ok else 0.5,
        )
        return None

    async def _wait(
        self, targets: Sequence[Target], remedy: str = Remedy.WAIT, *, last: bool = True
    ) -> Pick | None:
        """Return a call of one of `targets` as soon as patience and deadline allow one.

        Args:
            last: Whether nobody else can be asked after these: then a place is worth waiting
                for until the deadline.
        """
        place: Lane | None = None
        while True:
            found = self._enter(targets, remedy, place=place)
            place = None
            if isinstance(found, Pick):
                return found
            if self._patience is None:
                self._patience = self._gate.patience()
            now = self._clock.now()
            left = self._means.ends - now
            limit = min(self._patience, left)
            if self._full and (last or limit > 0.0):
                if self._shed(left):
                    return None
                longest = left if last else limit
                place = await self._in_line_for(self._full, min(longest, found))
                if place is not None and self._in_vain(place):
                    self._gate.release(place)
                    return None
                if not last:
                    self._patience -= self._clock.now() - now
                continue
            if self._raised is not None and not self._probing:
                return None
            if last and any(target.breaker.rule.only_slow for target in targets):
                # For those who have nobody else, one that is only slow is better than nobody.
                pick = _only_pick(self._enter(targets, remedy, nobody_else=True))
                if pick is not None:
                    return pick
            if self._probing:  # it may come back at any moment
                found = min(found, limit)
            if found > limit or limit <= 0.0:
                if math.isfinite(found):
                    self.note(f"no longer wait than {max(0.0, limit):.1f} s (patience, deadline)")
                return None
            await self._recovered.wait(self._clock, max(LEAST_NAP, found))
            self._patience -= self._clock.now() - now

    async def _in_line_for(self, lanes: Sequence[Lane], seconds: float) -> Lane | None:
        if self._in_line is None:
            self._in_line = InLine(self._gate, self._means.asked.criticality)
        limit = None if seconds == math.inf else max(LEAST_NAP, seconds)
        return await self._in_line.wait(list(lanes), self._clock, limit)

    def _shed(self, left: float) -> bool:
        """Say whether waiting for a place is in vain, or not for this class; tells why."""
        asked = self._means.asked
        wait, usual, target = min(
            (
                (target.lane.limiter.expected_wait(asked.criticality, usual), usual, target)
                for target in self._chain
                if target.lane in self._full
                for usual in (target.breaker.latency(0.5) or 0.0,)
            ),
            key=lambda each: each[:2],
        )
        longest = (wait + usual) * DOUBT
        ahead = target.lane.limiter.ahead(asked.criticality)
        if left <= 0.0:
            reason = "no place came free before the deadline"
        elif asked.criticality is Criticality.SHEDDABLE:
            reason = "no place is free, and sheddable work does not wait"
        elif ahead >= LINE * asked.share:
            reason = f"{ahead} calls wait for a place already"
        elif longest > left * asked.share:
            reason = (
                f"waiting for a place and the answer may take {longest:.1f} s, "
                f"and {left * asked.share:.1f} s are left for that"
            )
            wait = (longest - left * asked.share) / DOUBT
        else:
            return False
        self._overloaded = Overloaded(target.name, max(LEAST_WAIT, wait), reason)
        return True

    def _in_vain(self, place: Lane) -> bool:
        """Say whether a place came too late for an answer; tells why."""
        left = self._means.ends - self._clock.now()
        usual = min(
            target.breaker.latency(0.5) or 0.0 for target in self._chain if target.lane is place
        )
        if left >= usual:
            return False
        reason = f"a place was free when {left:.1f} s were left for the answer"
        self._overloaded = Overloaded(place.name, max(LEAST_WAIT, usual), reason)
        return True

    def _enter(
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
        self._probing, self._raised = False, None
        self._full = []
        soonest = float("inf")
        pick: Pick | None = None
        for target in targets:
            if not self._eligible(target, any_size):
                continue
            if target.not_before > now and not at_once:
                self.note(f"{target.name}: next call in {target.not_before - now:.1f} s")
                soonest = min(soonest, target.not_before - now)
                continue
            cost = self._cost(target) if price is None else price
            wait = self._gate.affordable_in(cost) if cost else 0.0
            if wait > 0.0:
                self.note(self._gate.short_of(cost))
                self._probing = True  # the income of others' successes is not foreseen
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
                self._gate.pay(cost)
                self._calls += 1
                target.calls += 1
                pick = Pick(target, found, str(remedy), cost, self._calls, now)
                break
            soonest = min(soonest, self._turned_away(target, found))
        if place is not None:
            self._gate.release(place)
        return pick if pick is not None else soonest

    def _turned_away(self, target: Target, refused: Refused) -> float:
        """Take in why a provider let nobody in; return the seconds until it may."""
        if isinstance(refused, Full):
            self.note(f"{target.name} is full: {refused.reason}")
            self._full.append(target.lane)
            return float("inf")
        if isinstance(refused, Raised):
            self._raised = refused
            self.note(f"{target.name}: {refused.reason}")
            return float("inf")
        target.turned_away = True
        self.note(f"{target.name}: {refused.reason}, for {refused.retry_after:.1f} s")
        self.retry_after = min(self.retry_after, refused.retry_after)
        self._probing |= target.breaker.state is State.HALF_OPEN
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
            diverted=self._failed is not None and not self._failed.breaker.available(),
            one_too_many=self._one_too_many,
        )
        return float(cost)

    def _too_late(self) -> bool:
        if self._clock.now() < self._means.ends:
            return False
        self.note("the deadline has passed")
        return True

    @property
    def _left(self) -> float | None:
        """Seconds to the deadline; None: there is none."""
        left = self._means.ends - self._clock.now()
        return left if left < math.inf else None

    @property
    def notes(self) -> list[str]:
        """Why no (further) call was made, in words for the error."""
        return list(self._notes.values())

    def note(self, text: str) -> None:
        """Keep a reason; the newest of each kind and provider."""
        self._notes[text.partition(":")[0].partition(" is full")[0]] = text


def _only_pick(found: Pick | float) -> Pick | None:
    return found if isinstance(found, Pick) else None
