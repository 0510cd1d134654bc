"""Rate limits kept on the caller's side: when a call may start without being one too many.

    Rates (configured) ──▶ at most so many starts in a window ──────────┐
                                                                         ├──▶ the later start
    Seen (a provider's headers) ──▶ the same, and what others started ──┘

The window slides, see `starts`: what keeps to it suits a provider whose limit is refilled evenly
as well as one that counts by the clock. Calls start in the order in which they were booked.

**What a provider tells.** Its limit is adopted. What it counts beyond what was started here is
somebody else's, and counts as well until the provider forgives it; where it counts less, what was
started here counts all the same. A header is as old as its request: what was started later is not
in it. Where the answer to an older request comes later, it says nothing new.

`reset` is the time until the whole limit is there again, which says how long the window is: where
a limit is refilled evenly, `reset * limit / used` is a minute, an hour or a day. A window longer
than a minute shows itself once its reset is, long before it is used up. Of such a one nobody here
remembers the starts: the provider's count is taken as it is, with what was started since, and if
it is refilled evenly, so much of it is forgiven in each second.

Pure: `now` is handed in, from any clock. Where it goes back, time stands still: what was started a
second ago still was. By less than a window it may be another process that was slower to ask, and
time goes on when the clock is where it was; by more the clock was set back, and time goes on.

Units: seconds, calls, tokens.
Sources: https://platform.openai.com/docs/guides/rate-limits (of 60 a minute one is used: "1s");
https://docs.anthropic.com/en/api/rate-limits ("continuously replenished"; `remaining` tokens in
thousands, `reset` in whole seconds); https://console.groq.com/docs/rate-limits (`requests` are a
day's, `tokens` a minute's; of 1,000 a day 58 are used: "1h23m31s").
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from zejzl.policies.kept import MOST_COUNT, whole
from zejzl.policies.starts import NEVER, Starts, as_number, as_time, damaged

VERSION = 1  # of the state as JSON
SHORTEST = 0.001  # seconds of a window; below, a float of today's date cannot tell slots apart
MINUTE = 60.0
DAY = 86400.0
PERIODS = (MINUTE, 3600.0, DAY)
BELIEVED = 120.0  # seconds that a window, once told, is not shortened
TWICE = 2  # as far back as a window: what was counted for a call may be as old as the call
LONGEST = 3600.0  # seconds that a header is believed; then it may be asked again


@dataclass(frozen=True, slots=True)
class Rates:
    """How much may be started in any stretch of time.

    Attributes:
        requests: Calls; None is no limit.
        tokens: Of questions and answers together; None is no limit.
        window: Seconds of that stretch.
    """

    requests: int | None = None
    tokens: int | None = None
    window: float = MINUTE

    def __post_init__(self) -> None:
        for name, most in (("requests", self.requests), ("tokens", self.tokens)):
            if most is not None and (type(most) is not int or most < 1):
                raise ValueError(
                    f"{name} must be a whole number from 1, not {most!r}: None is no limit, and a "
                    "provider that is not to be called is better taken out of the chain"
                )
        window = self.window
        if isinstance(window, bool) or not isinstance(window, int | float):
            raise ValueError(f"window must be a number of seconds, not {window!r}")
        if not SHORTEST <= window < inf:
            raise ValueError(f"window must be finite, from {SHORTEST} seconds on, not {window!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the headers of one response say of a provider's limits; None: nothing.

    A limit is learned from only where all three of its values are told.

    Attributes:
        reset_requests: Seconds from the headers until all of the limit is there again.
        reset_tokens: The same, for tokens.
        age: Seconds from the request to its headers. What was started in them is not counted.
        refused: Whether the request was. Some servers speak of limits only then, at random: that
            holds until their `reset`, and no longer.
    """

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens: float | None = None
    age: float = 0.0
    refused: bool = False


class Booking(NamedTuple):
    """A call's place. A tuple, because one is made for every call.

    Attributes:
        slot: Where the meter finds it again; its own time.
        tokens: That were reserved.
        start: The earliest time at which the call may start, by the caller's clock.
    """

    slot: float
    tokens: int
    start: float


class LimitInForce(NamedTuple):
    """A limit in force, for people to see.

    Attributes:
        what: "requests" or "tokens".
        most: How many.
        window: In how many seconds.
        told: Whether the provider said so; else it is configured.
    """

    what: str
    most: int
    window: float
    told: bool


class Meter:
    """The limits of one provider's model, and what was started. Mutable: asked on every call.

    Each booking is settled or cancelled at most once, in any order.

    Attributes:
        rates: The configured ones.
    """

    __slots__ = (
        "_far",
        "_learned",
        "_lines",
        "_most",
        "_newest",
        "_own",
        "_skew",
        "_told",
        "_views",
        "rates",
    )

    def __init__(self, rates: Rates) -> None:
        self.rates = rates
        self._newest = NEVER  # the latest time, by the meter's own clock, which never goes back
        self._skew = 0.0  # what that clock is ahead of the caller's
        limits = (rates.requests, rates.tokens)
        self._most = tuple(inf if most is None else most for most in limits)
        # With nothing configured, what was started is remembered for the provider to limit it.
        limited = limits != (None, None)
        self._own = Starts(rates.window) if limited else None
        self._told = None if limited else _remembered()
        self._views: list[_View | None] = [None, None]  # of requests, and of tokens
        self._learned = False  # whether there is any
        self._far = False  # whether one is of a window longer than a minute
        self._order()

    def book(self, now: float, tokens: int, *, begin: float = NEVER) -> Booking:
        """Take the next place: a call of so many tokens, as far as one knows.

        One that alone is beyond the limit of tokens has its place once nothing else counts.

        Args:
            begin: Not before this time: when another meter lets the call start.

        Raises:
            ValueError: If `tokens` is negative.
        """
        if tokens < 0:
            raise ValueError(f"tokens must not be negative, not {tokens!r}")
        moment = self._moment(now)
        ahead = moment - now
        for line in self._lines:
            if line.latest and line.latest[0] + line.reach <= moment:
                line.forget(moment)
        start = self._earliest(begin + ahead if begin > now else moment, tokens)
        for line in self._lines:
            line.add(start, tokens)
        if self._far:
            self._correct(inf, 1, tokens)
        return Booking(start, tokens, max(now, start - ahead))

    def wait(self, now: float, tokens: int) -> float:
        """Return the seconds that a booking would have to wait; 0.0: none."""
        moment = self._moment(now)
        return self._earliest(moment, tokens) - moment

    def settle(self, booking: Booking, tokens: int) -> None:
        """Count a call's real tokens, more or less, in place of those reserved."""
        more = tokens - booking.tokens
        if more:
            for line in self._lines:
                line.recount(booking.slot, more)
            if self._far:
                self._correct(booking.slot, 0, more)

    def cancel(self, booking: Booking) -> None:
        """Give back the place of a call that was never started."""
        for line in self._lines:
            line.remove(booking.slot, booking.tokens)
        if self._far:
            self._correct(booking.slot, -1, -booking.tokens)

    def observe(self, now: float, seen: Seen) -> None:
        """Learn from a response's headers, which came at `now`; later calls may be booked since."""
        moment = now + self._skew
        self._newest = max(self._newest, moment)
        if self._told is None:
            self._told = _remembered()
            if self._own is not None:
                self._told.copy(self._own)
            self._order()
        as_of = moment - max(0.0, seen.age)
        requests = _told(seen.limit_requests, seen.remaining_requests, seen.reset_requests)
        tokens = _told(seen.limit_tokens, seen.remaining_tokens, seen.reset_tokens)
        for column, told in enumerate((requests, tokens)):
            view = self._views[column] or _View()
            if told is not None and as_of >= view.as_of:  # else it was counted before what is known
                view.take(told, moment, as_of, self._told, column)
                view.last(moment, refused=seen.refused)
                self._views[column] = view
        self._remember()

    def limits(self) -> list[LimitInForce]:
        """Return what holds, the configured first."""
        rates, names = self.rates, ("requests", "tokens")
        own = zip(names, (rates.requests, rates.tokens), strict=True)
        found = [
            LimitInForce(what, most, rates.window, False) for what, most in own if most is not None
        ]
        told = zip(names, self._views, strict=True)
        found += [
            LimitInForce(what, view.most, view.window, True)
            for what, view in told
            if view is not None and view.lasts > self._newest
        ]
        return found

    def to_json(self) -> dict[str, object]:
        """Return the state, all but the configured rates; `from_json` reads it.

        Three numbers for each slot: of the last window, and of what is booked ahead.
        """
        return {
            "version": VERSION,
            "newest": as_number(self._newest),
            "skew": self._skew,
            "own": self._own and self._own.to_json(),
            "told": self._told and self._told.to_json(),
            "views": [view and view.to_json() for view in self._views],
        }

    @classmethod
    def from_json(cls, kept: object, rates: Rates) -> "Meter":
        """Return the meter that `to_json` told of, under these rates, which may be others.

        Raises:
            ValueError: If it is damaged, or of another version.
        """
        if not isinstance(kept, Mapping) or kept.get("version") != VERSION:
            version = kept.get("version") if isinstance(kept, Mapping) else None
            raise ValueError(
                f"the state of a rate limit is of version {version!r}; this zejzl reads {VERSION}"
            )
        meter = cls(rates)
        meter._newest, meter._skew = as_time(kept.get("newest")), as_time(kept.get("skew"))
        if meter._skew < 0:
            raise damaged("its clock", kept.get("skew"))
        own, told, views = kept.get("own"), kept.get("told"), kept.get("views")
        if meter._own is not None:
            meter._own.restore(told if own is None else own)  # other rates may be configured by now
        if meter._told is not None or told is not None:
            meter._told = meter._told or _remembered()
            meter._told.restore(own if told is None else told)
        if not isinstance(views, list) or len(views) != 2:
            raise damaged("what the provider said", views)
        meter._views = [None if view is None else _View.of(view) for view in views]
        meter._order()
        meter._remember()
        return meter

    def _correct(self, start: float, calls: int, tokens: int) -> None:
        """Count more or less beside what the provider has counted, if it did so before `start`."""
        requests, spent = self._views
        if requests is not None and start > requests.as_of:
            requests.fresh = max(0, requests.fresh + calls)
        if spent is not None and start > spent.as_of:
            spent.fresh = max(0, spent.fresh + tokens)

    def _order(self) -> None:
        """Keep those that are added to."""
        self._lines = tuple(line for line in (self._own, self._told) if line is not None)

    def _remember(self) -> None:
        """Remember what counts against what the provider allows."""
        longest = max((view.window for view in self._views if view), default=0.0)
        self._learned, self._far = longest > 0, longest > MINUTE
        if self._told is not None and self._learned:
            window = min(longest, MINUTE)
            self._told.remember(window, TWICE * window)

    def _earliest(self, start: float, tokens: int) -> float:
        """Return when a call may start, from `start` on: no limit minds if it is later."""
        for line in self._lines:
            if line.latest and line.latest[-1] > start:
                start = line.latest[-1]  # in turn
        own, window = self._own, self.rates.window
        if own is not None:
            calls, most = self._most
            if own.all_calls >= calls:
                start = own.after(start, own.calls, 1, calls, window)
            if own.all_tokens + tokens > most:
                start = own.after(start, own.tokens, tokens, most, window)
        if self._learned and self._told is not None:
            requests, spent = self._views
            if requests is not None:
                start = requests.earliest(start, 1, self._told, 0)
            if spent is not None:
                start = spent.earliest(start, tokens, self._told, 1)
        return start

    def _moment(self, now: float) -> float:
        """Return the time by the meter's own clock, which never goes back."""
        moment = now + self._skew
        back = self._newest - moment
        if back <= 0.0:
            self._newest = moment
        elif back > self.rates.window:
            self._skew += back
        return self._newest


class _View:
    """What a provider says of one of its limits.

    Attributes:
        most: The limit.
        window: Seconds; not shortened before `until`.
        extra: What counts against it besides the starts remembered here: what others started, or,
            of a window longer than a minute, all.
        since: When that was told.
        full: When it is forgiven.
        even: Whether it is forgiven little by little; of a window longer than a minute.
        fresh: What was started here, and was not in it.
        as_of: When it was counted.
        lasts: Until when all that is believed.
    """

    __slots__ = (
        "as_of",
        "even",
        "extra",
        "fresh",
        "full",
        "lasts",
        "most",
        "since",
        "until",
        "window",
    )

    def __init__(self) -> None:
        self.most = self.extra = self.fresh = 0
        self.window = 0.0
        self.until = self.since = self.full = self.as_of = self.lasts = NEVER
        self.even = False

    @property
    def near(self) -> float:
        """Seconds for which starts here count."""
        return min(self.window, MINUTE)

    def take(self, told: "_Told", moment: float, as_of: float, starts: Starts, column: int) -> None:
        """Take in what a response said: of limits, it is the newest."""
        used = max(0, told.most - told.left)
        window, self.even = _window(told.most, used, told.reset)
        if window >= self.window or moment > self.until:
            self.window, self.until = window, moment + BELIEVED
        if self.window <= MINUTE:
            used = max(0, used - starts.between(as_of - self.window, as_of)[column])
        self.most, self.extra, self.fresh = told.most, used, starts.since(as_of)[column]
        self.since, self.full, self.as_of = moment, moment + told.reset, as_of

    def last(self, moment: float, *, refused: bool) -> None:
        """Believe it for an hour; said with a refusal and never else, until it is forgiven."""
        longest = moment + LONGEST
        self.lasts = max(self.lasts, min(self.full, longest)) if refused else longest

    def earliest(self, start: float, amount: int, starts: Starts, column: int) -> float:
        """Return when there is room for `amount`, from `start` on."""
        counts, counted = starts.column(column)
        if self.extra + counted + amount <= self.most or start >= self.lasts:
            return start
        free = self._forgiven(start, amount, starts, column)
        return min(starts.after(free, counts, amount, self.most, self.near), self.lasts)

    def _forgiven(self, start: float, amount: int, starts: Starts, column: int) -> float:
        """Return when there is room beside what is not remembered here."""
        if start >= self.full or not self.extra:
            return start
        if self.window <= MINUTE:
            room = self.most - self.extra
            if amount > room:
                return self.full
            counts, _ = starts.column(column)
            return min(self.full, starts.after(start, counts, amount, room, self.near))
        room = self.most - self.fresh - amount
        if self.extra <= room:
            return start
        free = self.full
        if self.even and room > 0:
            free -= (self.full - self.since) * room / self.extra
        return max(start, free)

    def to_json(self) -> list[object]:
        """Return what is known; `of` reads it."""
        times = (self.until, self.since, self.full, self.as_of, self.lasts)
        known = [self.most, self.window, self.extra, self.even, self.fresh]
        return [*known, *map(as_number, times)]

    @classmethod
    def of(cls, kept: object) -> "_View":
        """Return what was known.

        Raises:
            ValueError: If it is damaged.
        """
        if not isinstance(kept, list) or len(kept) != 10:
            raise damaged("what the provider said", kept)
        view = cls()
        view.most, view.window, view.extra = whole(kept[0]), as_time(kept[1]), whole(kept[2])
        view.even, view.fresh = kept[3] is True, whole(kept[4])
        view.until, view.since, view.full, view.as_of, view.lasts = map(as_time, kept[5:])
        if not view.most or not 1 <= view.window <= DAY or not view.since <= view.full:
            raise damaged("what the provider said", kept)
        return view


def _remembered() -> Starts:
    """Return what remembers starts for a provider to limit them."""
    return Starts(MINUTE, TWICE * MINUTE)


class _Told(NamedTuple):
    most: int
    left: int
    reset: float


def _told(most: int | None, left: int | None, reset: float | None) -> _Told | None:
    if most is None or left is None or reset is None:
        return None  # a limit of a window that nobody knows
    good = 1 <= most <= MOST_COUNT and 0 <= reset <= 1.1 * DAY
    return _Told(most, left, reset) if good else None


def _window(most: int, used: int, reset: float) -> tuple[float, bool]:
    """Return the window of a limit that is whole again after `reset`.

    And whether it is refilled evenly, for one longer than a minute. A `reset` of 0 is less than a
    second, rounded; one longer than its window is a debt.
    """
    refill = (reset or 1.0) * most / used if used else inf
    for period in PERIODS:
        if 0.8 * period <= refill <= 1.5 * period and (reset > MINUTE or period == MINUTE):
            return period, period > MINUTE
    if refill < MINUTE:
        return max(1.0, refill), False
    return next((period for period in PERIODS if reset <= period), DAY), False
