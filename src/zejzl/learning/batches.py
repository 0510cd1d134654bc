"""The same learning for many events at once, with numpy (extra `learn`): same results, less time.

Only what is plain goes this way: cases that begin and end within one portion, in events of simple
values at different times. Everything else is handed back, to be learned event by event: taken in
here, it would not be faster. numpy is imported by the first large portion; where it is missing, all
is handed back.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import count
from typing import TYPE_CHECKING

from zejzl.learning import columns
from zejzl.learning.cases import HELD, LENGTH
from zejzl.learning.columns import EventColumns
from zejzl.learning.eventlog import NAME, Token
from zejzl.learning.exemplars import MOST, Kept, keep
from zejzl.learning.outcome import EXECUTOR, FAILURE, UNKNOWN
from zejzl.learning.patterns import Case
from zejzl.learning.sketch import EDGES, Sketch
from zejzl.learning.variants import Tally

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zejzl.learning.columns import Whole
    from zejzl.learning.mining import Miner

PORTION = 16_384
WIDTH = len(EDGES) + 1  # buckets of a sketch
LEAST = 1_024  # events below which setting up takes longer than it saves


@cache
def is_there() -> bool:
    """Say whether numpy is installed; where it is, it is imported by this."""
    try:
        import numpy  # noqa: F401
    except ImportError:
        return False
    return True


class CaseRuns:
    """Plain events, sorted by case and time; those of one case are a run.

    Attributes:
        order: Their positions in the portion.
        starts, ends: Where runs begin and end, in `order`.
        case: Each run's case, as a number.
        good: Which runs are whole cases that can be learned here.
    """

    def __init__(self, read: EventColumns) -> None:
        import numpy as np

        order = _sorted(read)
        self.order = order = order[read.plain[order]]
        case, at = read.case[order], read.at[order]
        new = np.flatnonzero(case[1:] != case[:-1]) + 1
        self.starts: Whole = np.concatenate(([0], new))
        self.ends: Whole = np.concatenate((new, [len(order)]))
        self.case = case[self.starts]
        self.names: list[Case] = [*read.numbers]
        self.at, self.last = at, np.maximum.reduceat(order, self.starts)
        deciding = [token.vote != UNKNOWN and token.activity == EXECUTOR for token in read.kinds]
        ends = np.array(deciding, dtype=bool)[read.kind[order]]
        many = np.add.reduceat(ends, self.starts, dtype=np.int64)
        end = np.maximum.reduceat(np.where(ends, order, -1), self.starts)
        self.good: NDArray[np.bool_] = (many == 1) & (end == self.last)
        tied = np.flatnonzero((case[1:] == case[:-1]) & (at[1:] == at[:-1]))
        self.leave_out(case[tied])
        self.good &= self.ends - self.starts < LENGTH

    def leave_out(self, cases: "Whole | list[int]") -> None:
        """Have nothing of these cases learned here."""
        import numpy as np

        out = np.zeros(len(self.names), dtype=bool)
        out[np.array(cases, dtype=np.int64)] = True
        self.good &= ~out[self.case]


def learn(miner: "Miner", events: list[object], horizon: int | None) -> Sequence[object]:
    """Take in what is plain, and return the rest, in its order."""
    if len(events) < LEAST or not is_there() or set(map(type, events)) != {dict}:
        return events
    import numpy as np

    bodies: list[columns.Event] = events  # type: ignore[assignment]
    if len(miner.open) + len(events) > miner.limit or miner.held + len(events) > HELD:
        return events  # a limit could be met in between
    read = columns.read(miner.reader, bodies)
    if read is None or not read.plain.any():
        return events
    runs = CaseRuns(read)
    if horizon is not None:
        runs.good &= runs.at[runs.ends - 1] <= horizon
    runs.leave_out(_elsewhere(miner, read))
    inside = np.repeat(runs.good, runs.ends - runs.starts)
    order = runs.order[inside]
    if not len(order):
        return events
    _note(miner, read, order, runs.names)
    _take(miner, read, runs, inside)
    left = np.ones(len(events), dtype=bool)
    left[order] = False
    return [events[place] for place in np.flatnonzero(left).tolist()]


def _elsewhere(miner: "Miner", read: EventColumns) -> list[int]:
    """Return the cases, as numbers, that are not to be found in these plain events alone."""
    numbers = read.numbers
    known = [miner.closed.newer, miner.closed.older, read.mixed]
    out = [numbers[name] for names in known for name in names.intersection(numbers)]
    out += [n for name, n in numbers.items() if name in miner.open]
    out += [n for name, n in numbers.items() if name is None or len(name) > NAME]
    return out


def _note(miner: "Miner", read: EventColumns, order: "Whole", names: list[Case]) -> None:
    """Count events for themselves."""
    import numpy as np

    kind, at = read.kind[order], read.at[order]
    miner.first = min(miner.first, int(at.min()))
    miner.last = max(miner.last, int(at.max()))
    for number, n in enumerate(np.bincount(kind, minlength=len(read.kinds)).tolist()):
        token = read.kinds[number]
        token.n += n
        if n and token.outcome == FAILURE:
            places = np.flatnonzero(kind == number)
            _keep_least(token.failed, at[places], read.case[order[places]], names)


def _take(miner: "Miner", read: EventColumns, runs: CaseRuns, inside: "NDArray[np.bool_]") -> None:
    """Close and count the good runs, of which these are the events."""
    import numpy as np

    names = [*map(runs.names.__getitem__, runs.case[runs.good].tolist())]
    ended = np.argsort(runs.last[runs.good]).tolist()
    miner.closed.add_all([*map(names.__getitem__, ended)])
    numbers = np.array([token.number for token in read.kinds])
    token = numbers[read.kind[runs.order[inside]]]
    tokens = [*miner.reader.tokens.values()]
    lengths = (runs.ends - runs.starts)[runs.good]
    _count(miner.tally, tokens, token, runs.at[inside], lengths, names)


def _count(
    tally: Tally,
    tokens: list[Token],
    token: "Whole",
    at: "Whole",
    lengths: "Whole",
    names: list[Case],
) -> None:
    """Count whole cases: their events' tokens and times, one case behind the other."""
    import numpy as np

    ends = np.cumsum(lengths)
    starts = ends - lengths
    first, last = at[starts], at[ends - 1]
    text = token.astype(np.uint32).tobytes()
    bounds = zip((4 * starts).tolist(), (4 * ends).tolist(), strict=True)
    ways: defaultdict[bytes, int] = defaultdict(count().__next__)
    way = np.array([ways[text[a:b]] for a, b in bounds])
    groups = _Groups(way)
    took = (last - first)[groups.order]
    latest = np.maximum.reduceat(last[groups.order], groups.starts).tolist()
    sketches = groups.sketches(took)
    for places, newest, sketch in zip(groups, latest, sketches, strict=True):
        one = places[0]
        key = (None, *map(tokens.__getitem__, token[starts[one] : ends[one]].tolist()))
        profile = tally.touch(key)
        profile.n += len(places)
        profile.last = max(profile.last, newest)
        profile.took.merge(sketch)
        _keep_least(profile.firsts, first[places], places, names)
    _link(tally, tokens, token, at, np.repeat(np.arange(len(names)), lengths), names)


def _link(
    tally: Tally, tokens: list[Token], token: "Whole", at: "Whole", case: "Whole", names: list[Case]
) -> None:
    """Count the edges between events of the same case."""
    import numpy as np

    same = np.flatnonzero(case[1:] == case[:-1])
    if not len(same):
        return
    took = at[same + 1] - at[same]
    pair = token[same] * len(tokens) + token[same + 1]
    groups = _Groups(pair)
    ordered = took[groups.order]
    longest = np.maximum.reduceat(ordered, groups.starts).tolist()
    for places, most, sketch in zip(groups, longest, groups.sketches(ordered), strict=True):
        source, target = divmod(int(pair[places[0]]), len(tokens))
        after = tokens[target]
        link = tally.link(tokens[source].activity, after.activity, after.agent)
        link.took.merge(sketch)
        if len(link.slowest) < MOST or -most <= link.slowest[-1][0]:
            _keep_least(link.slowest, -took[places], case[same[places]], names)


class _Groups:
    """Places of equal values, side by side."""

    def __init__(self, values: "Whole") -> None:
        import numpy as np

        if values.max() < 1 << 16:
            values = values.astype(np.uint16)  # sorted by digits, at this size
        self.order: Whole = np.argsort(values, kind="stable")
        ordered = values[self.order]
        new = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        self.starts: Whole = np.concatenate(([0], new))
        self.ends: Whole = np.concatenate((new, [len(values)]))

    def __iter__(self) -> "Iterator[Whole]":
        for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):
            yield self.order[start:end]

    def sketches(self, durations: "Whole") -> list[Sketch]:
        """Return the durations of each group, which are in the groups' order."""
        import numpy as np

        group = np.repeat(np.arange(len(self.starts)), self.ends - self.starts)
        bucket = np.searchsorted(_edges(), durations, side="right")
        cells, counts = np.unique(group * WIDTH + bucket, return_counts=True)
        bounds = np.searchsorted(cells, WIDTH * np.arange(len(self.starts) + 1)).tolist()
        buckets, times = (cells % WIDTH).tolist(), counts.tolist()
        found = []
        for number, total in enumerate(np.add.reduceat(durations, self.starts).tolist()):
            sketch = Sketch()
            sketch.total = total
            start, end = bounds[number : number + 2]
            sketch.counts = dict(zip(buckets[start:end], times[start:end], strict=True))
            found.append(sketch)
        return found


@cache
def _edges() -> "Whole":
    import numpy as np

    edges: Whole = np.array(EDGES, dtype=np.int64)
    return edges


def _keep_least(kept: Kept, figures: "Whole", cases: "Whole", names: list[Case]) -> None:
    """Keep the cases of the smallest figures; of cases there are numbers."""
    import numpy as np

    if len(kept) == MOST:
        near = np.flatnonzero(figures <= kept[-1][0])
        figures, cases = figures[near], cases[near]
    for place in np.argsort(figures, kind="stable").tolist():
        figure = int(figures[place])
        if len(kept) == MOST and figure > kept[-1][0]:
            return
        keep(kept, figure, names[cases[place]])


def _sorted(read: EventColumns) -> "Whole":
    """Return positions by case, then time, then arrival."""
    import numpy as np

    if len(read.numbers) < 1 << 16 and (read.at[1:] >= read.at[:-1]).all():
        return np.argsort(read.case.astype(np.uint16), kind="stable")  # by digits, at this size
    return np.lexsort((read.at, read.case))
