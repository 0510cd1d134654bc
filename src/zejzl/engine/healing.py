"""Healing: who is called next for one request, what for, and at what price.

The first call goes to the first provider of the chain that lets it in. After a failure the
remedies that may help are tried, the best first as far as was learned, else in the runbook's
order. When none can be had at once, the request waits, within its patience and its deadline, for
whoever will be well first; for a place with one that is well but full it waits to the deadline.
An extra call is paid from the retry budget; a refusal is free.
"""

import math
from collections.abc import Sequence

from zejzl.clock import Clock
from zejzl.engine.entrance import Entrance
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
from zejzl.magic.lanes import Lane
from zejzl.policies.admission import LINE, Criticality
from zejzl.policies.budget import Cost
from zejzl.policies.diagnosis import HOPELESS, ONCE_MORE, Diagnosis, Remedy

LEAST_NAP = 0.001
LEAST_WAIT = 0.1  # that is asked of a caller who found no place
DOUBT = 2.0  # an expected wait may turn out longer: others overtake, limits shrink


class Healer:
    """Finds the next call for one request.

    Args:
        entrance: Where it gets leave to call one.
    """

    def __init__(
        self,
        magic: FairyMagic,
        clock: Clock,
        recovered: Recovered,
        chain: Sequence[Target],
        means: Means,
        entrance: Entrance,
    ) -> None:
        self._magic = magic
        self._gate = magic.gate
        self._clock = clock
        self._recovered = recovered
        self._chain = chain
        self._means = means
        self._entrance = entrance
        self._enter = entrance.enter
        self.note = entrance.note
        self._persistent = means.patience is not None
        self._patience = means.patience
        self._failed: Target | None = None
        self._was_well = True
        self._diagnosis: Diagnosis | None = None
        self._failure: ProviderError | None = None
        self._tried: set[str] = set()
        self._can_shrink = False
        self._in_line: InLine | None = None
        self._overloaded: Overloaded | None = None  # why waiting for a place is in vain

    async def next(self) -> Pick | None:
        """Return the next call, once it may be made; None: there is none, see `notes`."""
        self._entrance.forget_notes()
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
        self._entrance.failed, self._entrance.one_too_many = target, too_many
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
        raised = self._entrance.raised
        if raised is not None:
            return Shielded(first.name, *raised)
        if self._overloaded is not None:
            return self._overloaded
        reason = "; ".join(self.notes) or "nobody could be called"
        refused = CircuitOpen(first.name, self._entrance.retry_after, reason)
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
        try:
            return await self._waited_for(targets, remedy, last=last)
        finally:
            self._entrance.let_go()

    async def _waited_for(
        self, targets: Sequence[Target], remedy: str, *, last: bool
    ) -> Pick | None:
        entrance = self._entrance
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
            worth_it = last or limit > 0.0
            if entrance.limited and worth_it and await self._turn_ahead(left if last else limit):
                continue
            if entrance.full and worth_it:
                if self._shed(left):
                    return None
                longest = left if last else limit
                place = await self._in_line_for(entrance.full, min(longest, found))
                if place is not None and self._in_vain(place):
                    self._gate.release(place)
                    return None
                if not last:
                    self._patience -= self._clock.now() - now
                continue
            if entrance.raised is not None and not entrance.probing:
                return None
            if last and any(target.breaker.rule.only_slow for target in targets):
                # For those who have nobody else, one that is only slow is better than nobody.
                pick = _only_pick(self._enter(targets, remedy, nobody_else=True))
                if pick is not None:
                    return pick
            turn_comes = last and entrance.held is not None
            if turn_comes:  # that is worth waiting for until the deadline, as a place is
                limit = left
            if entrance.probing:  # it may come back at any moment
                found = min(found, limit)
            if found > limit or limit <= 0.0:
                if math.isfinite(found):
                    self.note(f"no longer wait than {max(0.0, limit):.1f} s (patience, deadline)")
                return None
            await self._recovered.wait(self._clock, max(LEAST_NAP, found))
            if not turn_comes:
                self._patience -= self._clock.now() - now

    async def _turn_ahead(self, seconds: float) -> bool:
        """Take a turn with the one whose rate limit wants the shortest wait; False: too late."""
        wait, target = min(self._entrance.limited, key=lambda each: each[0])
        began = self._clock.now()
        try:
            async with self._clock.timeout(seconds if seconds < math.inf else None):
                wait = await self._entrance.reserve(target, seconds)
        except TimeoutError:
            wait = max(LEAST_WAIT, self._clock.now() - began)
        else:
            if wait <= seconds:
                return True
        reason = (
            f"its rate limit lets the next call begin in {wait:.1f} s, "
            f"and {max(0.0, seconds):.1f} s are left for that"
        )
        self._overloaded = Overloaded(target.name, max(LEAST_WAIT, wait), reason)
        self.note(f"{target.name}: {reason}")
        return False

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
                if target.lane in self._entrance.full
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

    @property
    def notes(self) -> list[str]:
        """Why no (further) call was made, in words for the error."""
        return self._entrance.notes

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


def _only_pick(found: Pick | float) -> Pick | None:
    return found if isinstance(found, Pick) else None
