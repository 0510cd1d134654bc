"""Admission control: how many calls of one provider may be under way, and who goes first.

The limit is learned from *late* answers and refusals, in counts and ratios: no figure here is a
second of latency. While four of the last twenty calls were late the provider is *strained*: each
late call lowers the limit below what is in flight, each one on time raises it by a tenth. In calm
a call on time raises it by 1/√limit, so that as many answers as it holds add about its root; but
only while half of it is used, because an unused limit proves nothing.

A call may enter while fewer than its class's share of the limit are in flight, so a class never
gets in where a higher one would not. Whoever finds no place may wait in a line, highest class
first, oldest first within a class, and at the head of the line places are handed over, not thrown
open: nobody who comes later slips in between.

Pure: no clock, no asyncio; a waiting call is any object. Mutable: it is asked on every call.
Units: seconds, calls.
Sources: additive increase and multiplicative decrease after TCP; a limit learned from latency
after Netflix's concurrency-limits; classes and shares after Google SRE, ch. 21 ("criticality").
"""

import heapq
from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from math import sqrt
from typing import Generic, TypeVar
from zlib import crc32

START = 200.0
LEAST = 1.0
MOST = 500.0
LEAST_STANDBY = 4
RECENT = 20  # calls that are remembered as late or not
STRAINED = 4  # of those, late ones from which on the provider is strained
BROWNOUT = 10  # and from which on somebody else is the better choice
CALM = 60.0  # seconds without a late call after which what was learned in the storm is forgotten
LINE = 2_000  # calls that may wait for one provider
LEAST_LOYALTY = 0.5
SLOWLY = 0.01  # growth an answer that was not late and not swift either
TOO_MANY = 1.3  # below a refused crowd: one, and what some twenty answers must make good first
WARY = 0.003  # growth an answer while refusals for overload are remembered: one in about 30 calls
_MASK = (1 << RECENT) - 1

W = TypeVar("W")


class Criticality(IntEnum):
    """How much a call matters: who is let in last, and who is turned away first."""

    SHEDDABLE = 0  # never waits in line
    NORMAL = 1
    CRITICAL = 2
    CRITICAL_PLUS = 3


SHARES = (0.5, 0.8, 0.95, 1.0)  # of the limit, for each class
USUAL = SHARES[Criticality.NORMAL]


def loyalty(conversation_id: str | None) -> float:
    """Return a number in [0.5, 1]: the share of a gate's room at which this conversation is shed.

    It depends on the id alone, so at any load a conversation is kept whole or shed whole,
    instead of every one losing some of its turns. A call of no conversation is the last to go.
    """
    if conversation_id is None:
        return 1.0
    share = crc32(conversation_id.encode("utf-8", "surrogatepass")) / 0xFFFFFFFF
    return LEAST_LOYALTY + (1.0 - LEAST_LOYALTY) * share


class Limiter(Generic[W]):
    """The limit of one provider, those under way and those who wait.

    Attributes:
        limit: Most calls of the highest class that may be in flight.
        in_flight: Calls that are.
        proven: Largest number in flight at which an answer came on time.
        proving: Whether the limit is where one began that nobody knows yet: it doubles with every
            round of swift answers, until one is late or refused.
        scale: Share of the limit that holds at present; 0.5 while the owner is on guard.
    """

    __slots__ = (
        "_before",
        "_counts",
        "_late_bits",
        "_line",
        "_lowered_at",
        "_refused_at",
        "_served",
        "_served_at",
        "_troubled_at",
        "_waiting",
        "in_flight",
        "limit",
        "proven",
        "proving",
        "scale",
    )

    def __init__(self, limit: float = START) -> None:
        self.limit = min(MOST, max(LEAST, limit))
        self.in_flight = 0
        self.proven = 0
        self.proving = False
        self.scale = 1.0
        self._late_bits = 0
        self._troubled_at = float("-inf")  # by a late call, or by a refusal that was counted
        self._lowered_at = float("-inf")
        self._refused_at = float("-inf")
        self._served: deque[int] = deque(maxlen=RECENT)  # how many were in flight with each answer
        self._served_at = float("-inf")
        self._before: float | None = None  # the limit before the first of the last refusals
        self._line: list[tuple[int, int, W]] = []
        self._waiting: dict[W, Criticality] = {}
        self._counts = [0] * len(SHARES)  # of those who wait, by class

    # Asking ---------------------------------------------------------------------------------

    def admits(self, criticality: int, share: float = 1.0) -> bool:
        """Return whether a call of this class finds a place now.

        Args:
            criticality: Its class.
            share: Of the class's room, how much this call may fill; for those that never wait.
        """
        return self.in_flight < SHARES[criticality] * share * self.limit * self.scale

    @property
    def has_room(self) -> bool:
        """Whether a usual call finds a place, with nobody waiting before it."""
        return not self._waiting and self.admits(Criticality.NORMAL)

    @property
    def strained(self) -> bool:
        """Whether so many of the last calls were late that the limit follows them."""
        return self._late_bits.bit_count() >= STRAINED

    @property
    def browned_out(self) -> bool:
        """Whether half of the last twenty calls were late."""
        return self._late_bits.bit_count() >= BROWNOUT

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        return len(self._waiting)

    def leave(self) -> None:
        """A call gives its place back."""
        self.in_flight -= 1

    # Learning -------------------------------------------------------------------------------

    def begin_at(self, limit: float) -> None:
        """Begin with a limit for one that nobody knows yet."""
        self.limit = limit
        self.proving = True

    def on_time(self, now: float, started: float, *, swift: bool = True) -> None:
        """An answer of a call that began at `started` came in time; it still holds its place.

        `swift` says that it came as fast as in better days: one that is merely not late may have
        waited in the provider's own queue, and proves little.
        """
        if started > self._refused_at:
            self._before = None  # it serves and refuses in turns: that is no outage
        self._late_bits = self._late_bits << 1 & _MASK
        flying = self.in_flight
        if swift and flying > self.proven:
            self.proven = flying
        limit = self.limit
        if self.proving and limit >= START:
            self.proving = False
        if flying * 2.0 >= limit and self.proving:
            self.limit = min(START, limit + swift)
        elif flying * 2.0 >= limit:
            step = 0.1 if self.strained else 1.0 / sqrt(limit)
            if not swift:
                step = min(step, SLOWLY)
            if now - self._lowered_at < CALM:
                step = min(step, limit * WARY)
            self.limit = min(MOST, limit + step)
        if swift and limit < START and CALM <= now - self._troubled_at < float("inf"):
            self.limit = START

    def late(self, now: float) -> None:
        """A call became late; called while it still holds its place."""
        self.proving = False
        self._late_bits = (self._late_bits << 1 | 1) & _MASK
        self._troubled_at = now
        if self.strained:
            self.limit = max(LEAST, min(self.limit, float(self.in_flight)) - 1.0)

    def answered(self, now: float, crowd: int) -> None:
        """A call that began with `crowd` in flight, itself included, was answered."""
        self._served.append(crowd)
        self._served_at = now

    def overloaded(self, now: float, crowd: int, usual: float) -> bool:
        """The provider said that it gets too much, when `crowd` calls were in flight with that one.

        Returns whether it was one too many: others are served, within `usual` seconds, but none
        of the last began with so many in flight. Then one less is what it can take. Of one that
        has never answered it is taken so, too, while others are under way: they will tell. If it
        turns out to be an outage after all, the limit becomes what it was.
        """
        if not self._served:
            if crowd <= 1 or self.in_flight <= 1:
                return False
        elif now - self._served_at > usual or crowd <= self._held:
            return False
        if self._before is None:
            self._before = self.limit
        self.proving = False
        self._refused_at = self._lowered_at = self._troubled_at = now
        self.limit = max(LEAST, min(self.limit, crowd - TOO_MANY))
        return True

    @property
    def _held(self) -> int:
        """As many as it has borne: all but a fifth of its last answers began with fewer.

        Not the most, because those that were about to be refused were counted as in flight, too.
        """
        return sorted(self._served)[len(self._served) * 4 // 5]

    def outage(self) -> None:
        """The provider is down: what it refused says nothing about how much it can take."""
        if self._before is not None:
            self.limit = max(self.limit, self._before)
            self._before = None
            self._lowered_at = float("-inf")

    def forget_lateness(self) -> None:
        """Begin a new count of late calls: the old one has had its effect."""
        self._late_bits = 0

    # Waiting --------------------------------------------------------------------------------

    def expected_wait(self, criticality: int, usual: float) -> float:
        """Return the seconds until somebody who joins now may enter, as far as that is known.

        Args:
            criticality: Their class.
            usual: Seconds of the usual answer; 0.0 while it is unknown.
        """
        places = max(1.0, SHARES[criticality] * self.limit * self.scale)
        return (self.ahead(criticality) + 1) * usual / places

    def ahead(self, criticality: int) -> int:
        """Return how many in line would be served before somebody of this class who joins now."""
        return sum(self._counts[criticality:])

    def join(self, who: W, criticality: Criticality, order: int) -> None:
        """Wait in line; `order` is when they came, smaller is earlier."""
        self._waiting[who] = criticality
        self._counts[criticality] += 1
        heapq.heappush(self._line, (-criticality, order, who))

    def quit(self, who: W) -> None:
        """Wait no longer."""
        self._forget(who)
        if not self._waiting:
            self._line.clear()
        elif len(self._line) > 2 * len(self._waiting) + 64:
            self._line = [place for place in self._line if place[2] in self._waiting]
            heapq.heapify(self._line)

    def served(self) -> Iterator[W]:
        """Yield those who may enter now, each with its place already taken."""
        while self._line:
            minus, _, who = self._line[0]
            if who in self._waiting:
                if not self.admits(-minus):
                    return
                self._forget(who)
                self.in_flight += 1
                heapq.heappop(self._line)
                yield who
            else:
                heapq.heappop(self._line)

    def outwaited(self) -> list[W]:
        """Return everybody in line, and empty it: there is another reason to look again."""
        everybody = list(self._waiting)
        self._waiting.clear()
        self._counts = [0] * len(SHARES)
        self._line.clear()
        return everybody

    def _forget(self, who: W) -> None:
        criticality = self._waiting.pop(who, None)
        if criticality is not None:
            self._counts[criticality] -= 1
