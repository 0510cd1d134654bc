"""Waiting: for a provider that will be well, or for a place with one that is full."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from zejzl.clock import Clock
from zejzl.magic.gate import Gate
from zejzl.magic.lanes import Lane
from zejzl.policies.admission import Criticality

_ORDER = itertools.count()  # of arrival: who waits again keeps the old place in line


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


class InLine:
    """One request in line for a place, with as many providers as could take it."""

    __slots__ = ("_gate", "_order", "_woken", "criticality")

    def __init__(self, gate: Gate, criticality: Criticality) -> None:
        self._gate = gate
        self._order = next(_ORDER)
        self._woken: asyncio.Future[Lane | None] | None = None
        self.criticality = criticality

    def grant(self, lane: Lane) -> bool:
        """A place is handed over; False where it comes too late."""
        if self._woken is None or self._woken.done():
            return False
        self._woken.set_result(lane)
        return True

    def look_again(self) -> None:
        """Something has changed."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def wait(self, lanes: Sequence[Lane], clock: Clock, seconds: float | None) -> Lane | None:
        """Return the lane a place of which is handed over; None: look again, or time is up.

        Whoever is cancelled in the moment of the grant gives the place back.
        """
        self._woken = woken = asyncio.get_running_loop().create_future()
        for lane in lanes:
            lane.limiter.join(self, self.criticality, self._order)
        try:
            async with clock.timeout(seconds):
                granted: Lane | None = await woken
                return granted
        except TimeoutError:
            return self._late_grant(woken)
        except BaseException:
            granted = self._late_grant(woken)
            if granted is not None:
                self._gate.release(granted)
            raise
        finally:
            self._woken = None
            for lane in lanes:
                lane.limiter.quit(self)

    @staticmethod
    def _late_grant(woken: "asyncio.Future[Lane | None]") -> Lane | None:
        """Return what was granted in the very turn in which the wait ended otherwise."""
        return woken.result() if woken.done() and not woken.cancelled() else None
