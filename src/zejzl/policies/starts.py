"""What was started of late, in slots: when may the next call start under a limit a window?

A window slides: no stretch of so many seconds ever holds more than the limit. What is remembered
are slots of a hundredth of a window, not calls: for each its latest start, its calls and its
tokens. So memory does not grow with the limit, and a wait is at most a slot longer than it had to
be. Slots lie on a grid; those that are booked ahead are slots like others.

Pure. Units: seconds, calls, tokens.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from math import inf

from zejzl.policies.kept import whole

SLOTS = 100  # of a window
NEVER = -inf
LATEST = 1e11  # seconds, of any clock: the year 5138


class Starts:
    """Calls by their start, oldest first. Mutable: every call is added.

    Attributes:
        latest: Start in each slot.
        calls: In each slot.
        tokens: In each slot.
        all_calls: In all slots.
        all_tokens: In all slots.
        reach: Seconds after which a start is of no interest any more.
    """

    __slots__ = (
        "_forgotten",
        "_slot",
        "all_calls",
        "all_tokens",
        "calls",
        "latest",
        "reach",
        "tokens",
    )

    def __init__(self, window: float, reach: float | None = None) -> None:
        self.latest: list[float] = []
        self.calls: list[int] = []
        self.tokens: list[int] = []
        self.all_calls = self.all_tokens = 0
        self._forgotten = NEVER  # the latest start that was dropped
        self.remember(window, reach)

    def remember(self, window: float, reach: float | None = None) -> None:
        """Cut so many seconds into slots from here on; reach back as far, or `reach` seconds."""
        self._slot = window / SLOTS
        self.reach = reach or window

    def column(self, which: int) -> tuple[Sequence[int], int]:
        """Return `calls` (0) or `tokens` (1) by slot, and in all."""
        if which:
            return self.tokens, self.all_tokens
        return self.calls, self.all_calls

    def after(
        self, start: float, counts: Sequence[int], amount: int, most: float, window: float
    ) -> float:
        """Return the first time from `start` at which `amount` more is within the limit.

        An amount that alone is beyond it is within it where the window holds nothing else.

        Args:
            start: Not before the latest of all.
            counts: `calls` or `tokens`.
            amount: One call, or its tokens.
            most: The limit.
            window: Seconds; at most `reach`.
        """
        counted = 0
        for place in range(len(counts) - 1, -1, -1):
            last = self.latest[place]
            if last + window <= start:
                break
            counted += counts[place]
            if counted and counted + amount > most:
                return last + window  # so that this slot is out of it, and all that are older
        return start

    def add(self, start: float, tokens: int) -> None:
        """Count a call, which starts not before the latest of all."""
        latest = self.latest
        if latest and latest[-1] // self._slot == start // self._slot:
            latest[-1] = start
            self.calls[-1] += 1
            self.tokens[-1] += tokens
        else:
            latest.append(start)
            self.calls.append(1)
            self.tokens.append(tokens)
        self.all_calls += 1
        self.all_tokens += tokens

    def recount(self, start: float, tokens: int) -> None:
        """Count so many tokens more or less for a call, if it is still remembered."""
        place = bisect_left(self.latest, start)
        if place == len(self.latest) or start <= self._forgotten:
            return
        if tokens < -self.tokens[place]:  # the state was lost since, and has begun anew
            tokens = -self.tokens[place]
        self.tokens[place] += tokens
        self.all_tokens += tokens

    def remove(self, start: float, tokens: int) -> None:
        """Count a call no more, if it is still remembered."""
        self.recount(start, -tokens)
        place = bisect_left(self.latest, start)
        if place == len(self.latest) or start <= self._forgotten:
            return
        self.all_calls -= 1
        self.calls[place] -= 1
        if not self.calls[place]:
            self._drop(place, place + 1)

    def forget(self, moment: float) -> None:
        """Drop what is of no interest any more."""
        gone = bisect_right(self.latest, moment, key=lambda start: start + self.reach)
        if gone:
            self._forgotten = self.latest[gone - 1]
            self._drop(0, gone)

    def between(self, after: float, until: float) -> tuple[int, int]:
        """Return calls and tokens that started later than one and not later than the other.

        The slots at either end count whole.
        """
        first, end = bisect_right(self.latest, after), self._end(until)
        return sum(self.calls[first:end]), sum(self.tokens[first:end])

    def since(self, moment: float) -> tuple[int, int]:
        """Return calls and tokens of the slots that begin later than `moment`."""
        first = self._end(moment)
        return sum(self.calls[first:]), sum(self.tokens[first:])

    def copy(self, other: "Starts") -> None:
        """Take over what another has counted."""
        self.latest, self.calls, self.tokens = [*other.latest], [*other.calls], [*other.tokens]
        self.all_calls, self.all_tokens = other.all_calls, other.all_tokens
        self._forgotten = other._forgotten

    def to_json(self) -> dict[str, object]:
        """Return what is counted; `restore` reads it."""
        return {
            "forgotten": as_number(self._forgotten),
            "latest": [*self.latest],
            "calls": [*self.calls],
            "tokens": [*self.tokens],
        }

    def restore(self, kept: object) -> None:
        """Count what was kept, in place of what was counted.

        Raises:
            ValueError: If it is damaged.
        """
        if not isinstance(kept, Mapping):
            raise damaged("what was started", kept)
        columns = [kept.get(name) for name in ("latest", "calls", "tokens")]
        lists = [column for column in columns if isinstance(column, list)]
        if len(lists) != 3 or len({len(column) for column in lists}) != 1:
            raise damaged("what was started", columns)
        self.latest = [as_time(start) for start in lists[0]]
        self.calls = [whole(count) for count in lists[1]]
        self.tokens = [whole(count) for count in lists[2]]
        self._forgotten = as_time(kept.get("forgotten"))
        before = [self._forgotten, *self.latest]
        if any(one >= other for one, other in zip(before, self.latest, strict=False)):
            raise damaged("the order of what was started", self.latest)
        self.all_calls, self.all_tokens = sum(self.calls), sum(self.tokens)

    def _end(self, moment: float) -> int:
        """Return the place after the slot in which `moment` lies."""
        place = bisect_right(self.latest, moment)
        inside = (
            place < len(self.latest) and self.latest[place] // self._slot == moment // self._slot
        )
        return place + inside

    def _drop(self, first: int, end: int) -> None:
        self.all_calls -= sum(self.calls[first:end])
        self.all_tokens -= sum(self.tokens[first:end])
        for column in (self.latest, self.calls, self.tokens):
            del column[first:end]


def as_number(time: float) -> float | None:
    """Return a time as JSON has it: None for never."""
    return None if time == NEVER else time


def as_time(kept: object) -> float:
    """Return the time that was kept.

    Raises:
        ValueError: If it is none.
    """
    if kept is None:
        return NEVER
    if isinstance(kept, bool) or not isinstance(kept, int | float) or not abs(kept) <= LATEST:
        raise damaged("a time", kept)
    return float(kept)


def damaged(what: str, kept: object) -> ValueError:
    """Return the error for a kept state that cannot be."""
    return ValueError(f"the state of a rate limit is damaged: {what} cannot be {kept!r:.80}")
