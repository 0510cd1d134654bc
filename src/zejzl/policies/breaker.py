"""Circuit breaker: when to stop calling something that keeps failing.

    CLOSED ──(failures in a row, or a share of the window)──▶ OPEN ──(delay over)──▶ HALF_OPEN
      ▲                                                        ▲                       │
      │                                                        └───(a probe failed)────┤
      └──────────────────────────────(as many probes as permits came back well)────────┘

Beside the state stand a *pin* (FORCED_OPEN refuses everything, DISABLED refuses nothing) and a
*pause* (the callee asked for one, or refused the key): neither is a failure.

A call has one of three ends. `fail` counts. `ok` counts. `void` gives the permit back and counts
nothing: a cancelled call, a caller's mistake, a refusal further in. `pause` is a void that also
stops calls for a while.

A permit is a *token*: the generation in which it was given. Every change of state or pin begins a
new generation, and every probe is one of its own, so that late news from an earlier life is told
apart and dropped. A probe is a lease, not a flag: when the lease of one that hangs or is lost has
ended, another may take its place, and what is heard of it after that is late news.

Pure: no clock, no chance, no I/O; `now` is handed in. Mutable and slotted, with the laws of a
frozen machine, because a state allocated per call cost more than the whole decision; a call reads
what `_derive` worked out at the last change (bench/breaker.py).
Everything that can change a breaker is in this file.

Units: seconds, from any monotonic origin.
Sources: Nygard, *Release It!*, 2nd ed., ch. 5; generations after sony/gobreaker; three outcomes
after resilience4j's "ignored" calls; probe leases after Polly v8.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Final, NamedTuple

from zejzl.policies.breaker_rules import BreakerRules
from zejzl.policies.kept import amount, whole
from zejzl.policies.window import OUTCOMES, Outcomes

MAX_PAUSE = 3600.0  # a callee may ask for a week; after an hour one call may ask again
CROWD = 40  # calls turned away that together justify a probe before its time
CROWD_SPACING = 0.5
KEEPS_FAILING = "it keeps failing"
NEVER: Final = float("-inf")  # as a time that is long past
FOREVER: Final = float("inf")
_tuple = tuple.__new__


class State(StrEnum):
    """Where a circuit breaker is in the diagram: calls flow, are refused, or one tries."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Pin(StrEnum):
    NONE = "none"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"


class Refused(NamedTuple):
    """A call that may not go ahead.

    Attributes:
        retry_after: Seconds after which one may be let through; an upper bound.
        reason: Why, in words.
    """

    retry_after: float
    reason: str


class Transition(NamedTuple):
    """One edge of the diagram that was taken, at `now`, beginning `generation`."""

    before: State
    after: State
    generation: int
    reason: str
    now: float


@dataclass(slots=True)
class _Outage:
    """What is kept from the opening of a breaker until it closes; a closed one has none.

    Attributes:
        until: When the delay is over.
        step: Rung of the ladder: probes that failed in a row.
        probed_at: When the last probe was let through or failed, or the breaker opened.
        turned_away: Calls turned away since the last probe failed, each counted once.
        leases: When each probe's lease ends; never for one that spoke.
        oks: Probes that came back well since the last delay was over.
        outlived: How often since then a lease ran out and another probe took the place.
        slow: Whether it opened because answers came late, not because they failed.
        resting: Whether the probe under way was let through before its time, by the owner: the
            ladder does not count it.
    """

    until: float = 0.0
    step: int = 0
    probed_at: float = 0.0
    turned_away: int = 0
    leases: dict[int, float] = field(default_factory=dict)
    oks: int = 0
    outlived: int = 0
    slow: bool = False
    resting: bool = False


class Breaker:
    """One circuit breaker. See the module's docstring for its laws.

    Attributes:
        consecutive_failures: Counted failures since the last good call.
        flowing: The token of every call while nothing is in its way; -1: ask `try_acquire`.
        refused: Calls turned away, in all.
        news: Transitions not yet taken away by the owner, oldest first; None: there are none.
        late: Reports that were dropped: of an earlier generation, or of a time under a pin.
        paused_until: When the last pause is over.
        state: Where in the diagram it is; only this file changes it.
    """

    __slots__ = (
        "_flows_from",
        "_goods",
        "_outage",
        "_outcomes",
        "_pause_reason",
        "_pin",
        "_refuses_until",
        "_rng",
        "_settles",
        "_token",
        "_why",
        "consecutive_failures",
        "flowing",
        "late",
        "news",
        "paused_until",
        "refused",
        "rules",
        "state",
    )

    def __init__(self, rules: BreakerRules, rng: Random | None = None) -> None:
        if rng is None and rules.jitter:
            raise ValueError("jitter needs an rng to be drawn from")
        self.rules = rules
        self.state = State.CLOSED
        self.consecutive_failures = 0
        self.late = 0
        self.refused = 0
        self.news: list[Transition] | None = None
        self._rng = rng
        self._pin = Pin.NONE
        self._token = 0
        self._goods = 0  # good calls before the window's first failure
        self._outcomes: Outcomes | None = None  # there is one while it holds a failure
        self._outage: _Outage | None = None
        self.paused_until = NEVER
        self._pause_reason = ""
        self._derive()

    def _derive(self) -> None:
        """Work out what a call needs to know, once for each change instead of at every call."""
        free, outage = self._pin is Pin.NONE, self._outage
        closed = free and outage is None
        # Reports with this token count at once; there is no generation -1.
        self._settles = self._token if closed else -1
        self.flowing = self._settles if self.paused_until == NEVER else -1
        # From here on every call flows.
        self._flows_from = self.paused_until if closed else FOREVER
        # Until here every call is refused, without a thought for crowds and leases.
        self._refuses_until = self.paused_until if closed else NEVER
        self._why = self._pause_reason
        if self._pin is Pin.DISABLED:
            self._flows_from = NEVER
        elif free and self.state is State.OPEN and outage and self.rules.first_probe_after is None:
            self._refuses_until = max(self.paused_until, outage.until)
            if outage.until > self.paused_until:
                self._why = KEEPS_FAILING

    @property
    def generation(self) -> int:
        """The number of the present era; grows with every transition, probe and pin."""
        return self._token

    @property
    def closed(self) -> bool:
        """Whether calls flow, save for a pause: closed, or pinned so."""
        return self._flows_from < FOREVER

    @property
    def pin(self) -> Pin:
        """What somebody decided over the breaker's head; while it lasts nothing is counted."""
        return self._pin

    @pin.setter
    def pin(self, pin: Pin) -> None:
        if pin is self._pin:
            return
        self._pin = pin
        self._token += 1
        if self._outage is not None:
            self._outage.leases.clear()
        self._derive()

    # Asking ---------------------------------------------------------------------------------

    def try_acquire(
        self, now: float, *, lease: float | None = None, again: bool = False, wary: bool = False
    ) -> int | Refused:
        """Return a token, to be given back with the call's end, or a refusal.

        Args:
            now: The present.
            lease: Seconds after which the place of a probe that has not come back may be taken
                by another; None, and at most: `recovery_timeout`. It doubles whenever that
                happens, so that a callee that is well but slow is not probed forever.
            again: Whether this same call was turned away before: a crowd counts heads.
            wary: Whether somebody else can take the call. A stream that has begun proves nothing
                until it has ended well: then others follow it at the ladder's pace, not at once.
        """
        if now >= self._flows_from:
            return self._token
        until = self._refuses_until
        if now < until:
            self.refused += 1
            # As Refused(…) does it, at a third of the price: refusals come in floods.
            return _tuple(Refused, (until - now, self._why))
        return self._acquire_with_care(now, lease, again, wary)

    def _acquire_with_care(
        self, now: float, lease: float | None, again: bool, wary: bool
    ) -> int | Refused:
        wait, outage = self.wait(now, wary=wary), self._outage
        if self._pin is Pin.FORCED_OPEN or outage is None:
            self.refused += 1
            return Refused(wait, "it is pinned open")
        if wait <= 0.0 or self._crowd_may_probe(outage, now):
            return self._admit_probe(outage, now, lease)
        self.refused += 1
        outage.turned_away += not again
        paused = self.paused_until - now >= wait
        return Refused(wait, self._pause_reason if paused else KEEPS_FAILING)

    def _crowd_may_probe(self, outage: _Outage, now: float) -> bool:
        return (
            outage.turned_away >= CROWD
            and not outage.slow
            and now - outage.probed_at >= CROWD_SPACING
            and now >= self.paused_until
            and self.state is State.OPEN
            and self.rules.first_probe_after is not None
        )

    def _admit_probe(self, outage: _Outage, now: float, lease: float | None) -> int:
        if self.state is State.OPEN:
            self._move(State.HALF_OPEN, now, "a probe is due")
            outage.oks = outage.outlived = 0
        live = {token: end for token, end in outage.leases.items() if end > now}
        outage.outlived += len(live) < len(outage.leases)
        outage.leases = live
        seconds = min(lease or FOREVER, self.rules.recovery_timeout)
        self._token += 1
        live[self._token] = now + min(seconds * 2.0 ** min(outage.outlived, 60), MAX_PAUSE)
        outage.probed_at = now
        return self._token

    def wait(self, now: float, *, wary: bool = False) -> float:
        """Return the seconds until a call may be let through; 0.0: at once. Changes nothing."""
        if self._pin is Pin.DISABLED:
            return 0.0
        wait = max(0.0, self.paused_until - now)
        outage = self._outage
        if self._pin is Pin.FORCED_OPEN:
            wait = max(wait, self.rules.recovery_timeout)
        elif self.state is State.OPEN and outage is not None:
            wait = max(wait, outage.until - now)
        elif outage is not None:
            silent = [end for end in outage.leases.values() if now < end < FOREVER]
            begun = list(outage.leases.values()).count(FOREVER)
            if len(silent) >= self.rules.permits:
                wait = max(wait, min(silent) - now)
            elif wary and begun:
                pace = self.rules.delay(outage.step + begun - 1)
                wait = max(wait, outage.probed_at + pace - now)
        return wait

    # Reporting ------------------------------------------------------------------------------

    def ok(self, token: int, now: float) -> None:
        """The callee did its part."""
        if not self.ok_while_closed(token) and (outage := self._give_back(token)) is not None:
            self.consecutive_failures = 0
            outage.oks += 1
            if outage.oks >= self.rules.permits:
                self._close(now, "a probe came back well")

    def ok_while_closed(self, token: int) -> bool:
        """Take in a good call that needs no look at the clock; False: it is for `ok` to judge."""
        if token != self._settles:
            return False
        seen = self._outcomes
        if seen is None:
            if self._goods < OUTCOMES:
                self._goods += 1
            return True
        self.consecutive_failures = 0
        seen.push(False)
        if not seen.bits:
            self._goods = seen.calls
            self._outcomes = None
        return True

    def fail(self, token: int, now: float, why: str = "a call failed") -> None:
        """The callee failed."""
        if token == self._settles:
            self.consecutive_failures += 1
            if self._outcomes is None:
                self._outcomes = Outcomes(calls=self._goods)
            self._outcomes.push(True)
            if reason := self._trip(self._outcomes):
                self._open(now, f"{reason}; the last: {why}", _Outage())
        elif (outage := self._give_back(token)) is not None:
            self.consecutive_failures += 1
            outage.step += not outage.resting
            outage.slow = False
            self._open(now, f"a probe failed: {why}", outage)

    def slow(self, token: int, now: float, why: str) -> None:
        """Open because answers come late, as the owner finds; a late probe opens again.

        Lateness is no failure and counts as none.
        """
        if token == self._settles:
            self._open(now, why, _Outage(slow=True))
        elif (outage := self._give_back(token)) is not None:
            outage.step += 1
            self._open(now, f"a probe was late: {why}", outage)

    def _trip(self, seen: Outcomes) -> str:
        rules = self.rules
        if self.consecutive_failures >= rules.failure_threshold:
            return f"{self.consecutive_failures} failures in a row"
        if (
            rules.failure_ratio is not None
            and seen.calls >= rules.minimum_calls
            and seen.failures >= rules.failure_ratio * seen.calls
        ):
            return f"{seen.failures} of the last {seen.calls} calls failed"
        return ""

    def void(self, token: int) -> None:
        """The call says nothing about the callee: it was cancelled, or the caller's mistake."""
        if token != self._settles:
            self._give_back(token)

    def pause(self, token: int, now: float, seconds: float, reason: str) -> None:
        """Give the permit back and stop calls for `seconds`, at most an hour.

        A longer pause extends a shorter one, never the reverse.
        """
        if token != self._settles and self._give_back(token) is None:
            return
        until = now + min(max(0.0, seconds), MAX_PAUSE)
        if until > self.paused_until:
            self.paused_until = until
            self._pause_reason = reason
            self._derive()

    def unpause(self) -> None:
        """End a pause: what it was asked for has been mended."""
        if self.paused_until != NEVER:
            self.paused_until = NEVER
            self._derive()

    def spoke(self, token: int) -> None:
        """A streaming probe has sent its first piece: it lives on and no longer bars another."""
        if self._outage is not None and token in self._outage.leases:
            self._outage.leases[token] = FOREVER

    def reset(self, now: float) -> None:
        """Close, and forget failures, pin and pause: somebody knows better."""
        self._pin = Pin.NONE
        self.paused_until = NEVER
        self._close(now, "reset by hand")

    def allow_probe(self) -> None:
        """End the delay of an open breaker: the owner has reason to try now."""
        if self.state is State.OPEN and self._outage is not None:
            self._outage.until = NEVER
            self._outage.resting = True
            self._derive()

    @property
    def only_slow(self) -> bool:
        """Whether it is open for lateness alone: it still answers those who have nobody else."""
        return self._outage is not None and self._outage.slow and self._pin is Pin.NONE

    def probing(self, token: int) -> bool:
        """Whether `token` is that of a probe whose lease has not ended by a report."""
        return self._outage is not None and token in self._outage.leases

    @property
    def probed_at(self) -> float:
        """When the last probe was let through or failed, or the breaker opened."""
        return NEVER if self._outage is None else self._outage.probed_at

    # Changing state -------------------------------------------------------------------------

    def _give_back(self, token: int) -> _Outage | None:
        """End a probe's lease; None when the report comes from an earlier life."""
        outage = self._outage
        if outage is None or outage.leases.pop(token, None) is None:
            self.late += 1
            return None
        return outage

    def _open(self, now: float, reason: str, outage: _Outage) -> None:
        jitter = self.rules.jitter * self._rng.random() if self._rng is not None else 0.0
        outage.until = now + self.rules.delay(outage.step) * (1.0 - jitter)
        outage.probed_at = now
        outage.turned_away = 0
        outage.resting = False
        outage.leases.clear()
        self._outage = outage
        self._outcomes = None
        self._move(State.OPEN, now, reason)

    def _close(self, now: float, reason: str) -> None:
        self._outage = self._outcomes = None
        self.consecutive_failures = self._goods = 0
        self._move(State.CLOSED, now, reason)

    def _move(self, after: State, now: float, reason: str) -> None:
        self._token += 1
        if after is not self.state:
            self.news = self.news or []
            self.news.append(Transition(self.state, after, self._token, reason, now))
            self.state = after
        self._derive()

    # Keeping --------------------------------------------------------------------------------

    def snapshot(self, now: float) -> dict[str, object]:
        """Return the state as JSON-ready values, times as remaining or past seconds.

        Probes under way are not part of it: their reports would be late in another life. A
        breaker that was probing goes on as one whose probe is due.
        """
        seen = self._outcomes or Outcomes(calls=self._goods)
        outage = self._outage or _Outage(probed_at=now)
        return {
            "state": (State.CLOSED if self._outage is None else State.OPEN).value,
            "pin": self._pin.value,
            "generation": self._token,
            "consecutive_failures": self.consecutive_failures,
            "open_for": max(0.0, outage.until - now) if self.state is State.OPEN else 0.0,
            "step": outage.step,
            "since_probe": max(0.0, now - outage.probed_at),
            "turned_away": outage.turned_away,
            "slow": outage.slow,
            "paused_for": max(0.0, self.paused_until - now),
            "pause_reason": self._pause_reason,
            "window": [seen.bits, seen.calls],
        }

    def restore(self, kept: Mapping[str, object], now: float) -> None:
        """Go on from a snapshot; waits are cut to what these rules allow.

        Raises:
            KeyError: If a value is missing.
            ValueError: If one cannot be. Nothing was changed then.
        """
        state, pin = State(str(kept["state"])), Pin(str(kept["pin"]))
        token, failures = whole(kept["generation"]), whole(kept["consecutive_failures"])
        seen = Outcomes.of(kept["window"])
        step = whole(kept["step"])
        outage = _Outage(
            until=now + min(amount(kept["open_for"]), self.rules.delay(step)),
            step=step,
            probed_at=now - amount(kept["since_probe"]),
            turned_away=whole(kept["turned_away"]),
            slow=kept["slow"] is True,
        )
        paused_for = min(amount(kept["paused_for"]), MAX_PAUSE)
        self._pause_reason = str(kept["pause_reason"])
        self._outage = None if state is State.CLOSED else outage
        self.state, self._pin = State.OPEN if self._outage else State.CLOSED, pin
        self._token = max(self._token, token) + 1
        self.consecutive_failures = failures
        self._goods, self._outcomes = seen.calls, seen if seen.bits or failures else None
        self.paused_until = now + paused_for if paused_for else NEVER
        self._derive()
