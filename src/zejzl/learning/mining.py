"""Events in, patterns out: whatever the order of cases and the size of portions, the same.

    events ──▶ read ──▶ open cases ──(closed)──▶ tally ──▶ patterns
                 └─ skipped, with the word for it      (open cases are counted in, provisionally)

Not a store: of an event remain its time, what it is, and a checksum, until its case closes.
Events that name no conversation are one case after another: when it is closed, the next begins with
the first event of a later time. A named case is closed once and for all.

Exact below the caps: open cases (20,000; the oldest is closed and counted), variants (50,000; what
is beyond counts in `others`), and names of activities (1,000), agents (1,000) and task types (200).
Quantiles are within 2 %.
"""

from collections.abc import Iterable
from itertools import islice

from zejzl.learning import batches, picture, shelf
from zejzl.learning.cases import HELD, LENGTH, Closed, Open, OpenCase
from zejzl.learning.error_counts import ErrorCounts
from zejzl.learning.eventlog import EventReader, Odd
from zejzl.learning.exemplars import keep
from zejzl.learning.outcome import EXECUTOR, FAILURE, OutcomeRule
from zejzl.learning.patterns import Case, Patterns
from zejzl.learning.sketch import FAR, MICROSECONDS
from zejzl.learning.standing import Standing
from zejzl.learning.variants import VARIANTS, Tally

LONGEST = 1e12  # seconds; longer than all of them


class Miner:
    """Learns from events, a portion at a time.

    >>> miner = Miner()
    >>> miner.learn([
    ...     {"type": "plan", "data": {}, "conversation_id": "a", "timestamp": 0},
    ...     {"type": "executor", "data": {}, "conversation_id": "a", "timestamp": 5},
    ... ])
    >>> found = miner.patterns()
    >>> found.outcomes.success, found.edges[0].times.total_s
    (1, 5.0)
    """

    def __init__(
        self,
        *,
        outcome: OutcomeRule | None = None,
        open_cases: int = 20_000,
        variants: int = VARIANTS,
        idle_timeout: float | None = None,
        vectors: bool | None = None,
    ) -> None:
        """Make one that has seen nothing.

        Args:
            outcome: What a success is; without it the executor's event says, which also closes
                its case, or else the last validation. With it only `finish`, idleness and the cap
                close cases.
            open_cases: Cases kept open at most; beyond, the one opened first is closed.
            variants: Variants kept at most.
            idle_timeout: Seconds without an event after which a case is closed; the event that
                comes after that is late. None: never.
            vectors: Whether numpy may do what it can; the results are the same. None: where it
                is installed.

        Raises:
            ValueError: If a number is none of its kind.
        """
        if open_cases < 1 or variants < 1:
            raise ValueError("open_cases and variants must be at least 1")
        if idle_timeout is not None and not 0 < idle_timeout <= LONGEST:
            raise ValueError(
                f"idle_timeout must be above 0 and at most {LONGEST:.0e} s, not {idle_timeout!r}"
            )
        self.outcome = outcome
        self.vectors = vectors
        self.limit = open_cases
        self.idle_timeout = idle_timeout
        self._idle = None if idle_timeout is None else round(idle_timeout * MICROSECONDS)
        self.reader = EventReader(outcome)
        self.tally = Tally(outcome, variants)
        self.faults = ErrorCounts()
        self.open: Open = Open()
        self.closed = Closed()
        self.standing = Standing(outcome)  # open cases, as the last report counted them
        self.skipped: dict[str, int] = {}
        self.late = 0
        self.evicted = 0
        self.held = 0
        self.first, self.last = FAR, -FAR  # the window of all events
        self.unnamed_until = -FAR  # when the last case without a name was over

    def learn(self, events: Iterable[object], *, now: float | None = None) -> None:
        """Take events in; what is none is counted by what is wrong with it.

        Args:
            now: Seconds since 1970; what is later is skipped as "future". None: nothing is.
        """
        horizon = None if now is None else round(now * MICROSECONDS)
        if self.vectors is False or self.outcome is not None or self._idle is not None:
            return self._learn(events, horizon)
        rest = iter(events)
        while portion := [*islice(rest, batches.PORTION)]:
            self._learn(batches.learn(self, portion, horizon), horizon)

    def _learn(self, events: Iterable[object], horizon: int | None) -> None:
        read = self.reader.read
        known = self.open.get
        changed = self.standing.changed.add
        idle = self._idle
        for event in events:
            try:
                token, task, case, at, mark, duration, error = read(event)
            except Odd as problem:
                self._skip(str(problem))
                continue
            if horizon is not None and at > horizon:
                self._skip("future")
                continue
            held = known(case)
            if held is None:
                if case in self.closed and (case is not None or at <= self.unnamed_until):
                    self.late += 1
                    continue
                held = self._begin(case)
            elif idle is not None and at > held.steps[-3] + idle:  # type: ignore
                self.late += 1
                self._close(held)
                continue
            if held.counted:
                changed(held)
            steps = held.steps
            if mark.__class__ is int and (not steps or steps[-3] < at):  # type: ignore[operator]
                steps += (at, token, mark)  # as `add` does, without the call
            elif not held.add(at, token, mark):
                self._skip("duplicate")
                continue
            self.held += 1
            token.n += 1
            if at > self.last:
                self.last = at
            if at < self.first:
                self.first = at
            if task is not None:
                held.name_task(at, task)
            if duration is not None:
                token.took.add(duration)
            if token.outcome == FAILURE:
                keep(token.failed, at, case)
                if error is not None:
                    self.faults.add(error, at, token, case)
            if token.vote and token.activity == EXECUTOR and self.outcome is None:
                self._close(held)
            elif len(steps) >= 3 * LENGTH or self.held > HELD:
                self._evict(held if len(steps) >= 3 * LENGTH else None)

    def finish(self) -> None:
        """Close all open cases: the log is complete, and what comes later is late."""
        cases = [*self.open.values()]
        self.open.clear()
        self.standing = Standing(self.outcome)
        self.held = 0
        self.closed.add_all([held.case for held in cases])
        for held in cases:
            if held.case is None:
                self.unnamed_until = max(self.unnamed_until, held.times()[-1])
            self.tally.add(held.case, held.task, held.times(), held.tokens())

    def patterns(self) -> Patterns:
        """Return all that is known; open cases are counted as they stand."""
        tally = self.tally
        tally.settle()
        if self.open:
            tally = Tally(self.outcome, self.tally.most)
            tally.merge(self.tally)
            self.standing.count(self.open)
            self.standing.add_to(tally)
        tokens = [token for token in self.reader.tokens.values() if token.n]
        variants = picture.paths(tally)
        outcomes = picture.outcomes(tally)
        cases = outcomes.known + outcomes.unknown
        return Patterns(
            events=sum(token.n for token in tokens),
            cases=cases,
            open_cases=self._still_open(),
            evicted=self.evicted,
            late=self.late,
            skipped=dict(sorted(self.skipped.items())),
            others=tally.others,
            first=self.first / MICROSECONDS if cases else None,
            last=self.last / MICROSECONDS if cases else None,
            outcomes=outcomes,
            times=tally.took.times(),
            coverage=picture.coverage(variants, cases),
            variants=variants,
            task_types=picture.task_types(tally),
            activities=picture.activities(tokens, tally.cases),
            edges=picture.edges(tally),
            rework=picture.rework(tally),
            loops=picture.loops(tally),
            workers=picture.workers(tokens),
            failures=picture.failures(self.faults),
            features=picture.features(tally),
        )

    def merge(self, other: "Miner") -> None:
        """Add what another one learned of other cases; it stays as it was.

        Exact where no case was seen by both. A case that is open in both becomes one, in order of
        time; one that is closed in either and open in the other counts twice.

        Raises:
            ValueError: If the two have different rules for the outcome.
        """
        if self.outcome != other.outcome:
            raise ValueError("miners with different outcome rules cannot be merged")
        own = {token: self.reader.adopt(token) for token in other.reader.tokens.values()}
        self.tally.merge(other.tally)
        self.faults.merge(other.faults)
        self.closed.merge(other.closed)
        for word, n in other.skipped.items():
            self.skipped[word] = self.skipped.get(word, 0) + n
        self.late += other.late
        self.evicted += other.evicted
        self.first = min(self.first, other.first)
        self.last = max(self.last, other.last)
        self.unnamed_until = max(self.unnamed_until, other.unnamed_until)
        for theirs in other.open.values():
            held = self.open.get(theirs.case) or self._begin(theirs.case)
            if held.counted:
                self.standing.changed.add(held)
            self.held += held.absorb(theirs, own)

    def to_json(self) -> dict[str, object]:
        """Return all of it, ready for JSON; `from_json` goes on from there as if never stopped."""
        return shelf.to_json(self)

    @classmethod
    def from_json(cls, body: object) -> "Miner":
        """Return the miner that `to_json` wrote.

        Raises:
            StoreTooNew: If a newer version wrote it.
            ValueError: If it is damaged or something else.
        """
        miner = cls()
        shelf.fill(miner, body)
        return miner

    def _still_open(self) -> int:
        if self._idle is None:
            return len(self.open)
        since = self.last - self._idle
        return sum(held.steps[-3] >= since for held in self.open.values())  # type: ignore

    def _skip(self, word: str) -> None:
        self.skipped[word] = self.skipped.get(word, 0) + 1

    def _begin(self, case: Case) -> OpenCase:
        if len(self.open) >= self.limit:
            self._evict(None)
        held = self.open[case] = OpenCase(case)
        return held

    def _evict(self, held: OpenCase | None) -> None:
        """Close this case, or the oldest one, because of a limit."""
        self.evicted += 1
        self._close(held or next(iter(self.open.values())))

    def _close(self, held: OpenCase) -> None:
        del self.open[held.case]
        self.closed.add(held.case)
        if held.counted:
            self.standing.remove(held)
        self.held -= len(held.steps) // 3
        if held.case is None:
            self.unnamed_until = max(self.unnamed_until, held.times()[-1])
        self.tally.add(held.case, held.task, held.times(), held.tokens())
