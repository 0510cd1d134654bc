"""The same learning for many events at once, with numpy (extra `learn`): same results, less time.

Only what is plain goes this way: cases that begin and end within one portion, in events of simple
values at different times. Everything else is handed back, to be learned event by event. numpy is
imported by the first large portion; where it is missing, all is handed back.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, TypeAlias

from zejzl.learning.cases import HELD, LENGTH
from zejzl.learning.eventlog import FIRST, LAST, NAME, EventReader, Odd, Shape, Token
from zejzl.learning.exemplars import MOST, keep
from zejzl.learning.outcome import EXECUTOR, FAILURE
from zejzl.learning.patterns import Case
from zejzl.learning.sketch import EDGES, MICROSECONDS
from zejzl.learning.variants import Link

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zejzl.learning.mining import Miner

    Whole: TypeAlias = NDArray[np.int64]

PORTION = 16_384
BLOCK = 2_048  # events that are read together: few enough to stay near the processor
LEAST = 1_024  # events below which setting up takes longer than it saves
KINDS = 50  # kinds of events beyond which it does
EXACT = 9e9  # seconds up to which a whole number stays exact as a float of microseconds
TEXT = 10_000  # characters of a text that surely leave its event small
NUMBER = 10**18
SIMPLE = {str, int, float, bool, type(None)}

Event = dict[str, object]


@cache
def is_there() -> bool:
    """Say whether numpy is installed; where it is, it is imported by this."""
    try:
        import numpy  # noqa: F401
    except ImportError:
        return False
    return True


class _Columns:
    """What was read of a portion, by position; `plain` says of which events."""

    def __init__(self, size: int) -> None:
        import numpy as np

        self.token: Whole = np.zeros(size, dtype=np.int64)
        self.at: Whole = np.zeros(size, dtype=np.int64)
        self.case: Whole = np.zeros(size, dtype=np.int64)
        self.plain = np.zeros(size, dtype=bool)
        self.numbers: dict[Case, int] = {}  # of cases, by name
        self.mixed: set[Case] = set()  # cases of events that are not plain


def learn(miner: "Miner", events: list[object], horizon: int | None) -> Sequence[object]:
    """Take in what is plain, and return the rest, in its order."""
    if len(events) < LEAST or not is_there() or set(map(type, events)) != {dict}:
        return events
    import numpy as np

    if len(miner.open) + len(events) > miner.limit or miner.held + len(events) > HELD:
        return events  # a limit could be met in between
    read = _read(miner.reader, events)  # type: ignore[arg-type]
    if read is None:
        return events
    order = np.lexsort((read.at, read.case))
    order = order[read.plain[order]]
    if not len(order):
        return events
    case = read.case[order]
    at = read.at[order]
    starts = np.flatnonzero(np.concatenate(([True], case[1:] != case[:-1])))
    names = [*read.numbers]
    tokens = [*miner.reader.tokens.values()]
    ends = np.array([bool(t.vote) and t.activity == EXECUTOR for t in tokens])[read.token[order]]
    last = np.maximum.reduceat(order, starts)
    end = np.maximum.reduceat(np.where(ends, order, -1), starts)
    tied = np.concatenate(([False], (case[1:] == case[:-1]) & (at[1:] == at[:-1])))
    good = (np.add.reduceat(ends, starts, dtype=np.int64) == 1) & (end == last)
    good &= ~np.logical_or.reduceat(tied, starts)
    good &= np.diff(np.append(starts, len(order))) < LENGTH
    if horizon is not None:
        good &= np.maximum.reduceat(at, starts) <= horizon
    known = [
        name is not None
        and len(name) <= NAME
        and name not in miner.open
        and name not in miner.closed
        and name not in read.mixed
        for name in map(names.__getitem__, case[starts].tolist())
    ]
    good &= np.array(known)
    chosen = np.zeros(len(names), dtype=bool)
    chosen[case[starts[good]]] = True
    inside = chosen[case]
    for place in case[starts[good]][np.argsort(end[good])].tolist():
        miner.closed.add(names[place])
    _take(miner, case[inside], at[inside], read.token[order[inside]], tokens, names)
    left = np.ones(len(events), dtype=bool)
    left[order[inside]] = False
    return [events[place] for place in np.flatnonzero(left).tolist()]


def _read(reader: EventReader, events: list[Event]) -> _Columns | None:
    """Return what the events say; None where their kinds cannot be told."""
    read = _Columns(len(events))
    for start in range(0, len(events), BLOCK):
        if not _read_block(reader, events[start : start + BLOCK], start, read):
            return None
    return read


def _read_block(reader: EventReader, events: list[Event], start: int, read: _Columns) -> bool:
    """Read the events that begin at this position; False where their kinds cannot be told."""
    import numpy as np

    try:
        kinds = [*map(itemgetter("type"), events)]
        codes = {kind: code for code, kind in enumerate(dict.fromkeys(kinds))}
    except (KeyError, TypeError):
        return False
    if len(codes) > KINDS:
        return False
    code = np.array([*map(codes.__getitem__, kinds)], dtype=np.uint16)
    order = np.argsort(code, kind="stable")
    numbers = read.numbers
    number = numbers.setdefault
    for places in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
        group = [events[place] for place in places.tolist()]
        found = _group(reader, group)
        if found is None:
            for event in group:
                try:
                    read.mixed.add(reader.read(event)[2])
                except Odd:
                    continue  # it is counted when it is learned by itself
            continue
        where = places + start
        read.plain[where] = True
        tokens, cases, at = found
        read.token[where] = tokens
        read.at[where] = at
        read.case[where] = [number(case, len(numbers)) for case in cases]
    return True


def _group(
    reader: EventReader, group: list[Event]
) -> "tuple[list[int] | int, list[Case], Whole] | None":
    """Return tokens, cases and times of events of one kind; None if they are not all alike."""
    import numpy as np

    data = group[0].get("data")
    shape = reader.known_shape(group[0], data) if isinstance(data, dict) else None
    if shape is None or not shape.simple:
        return None
    columns = _values(group, shape.keys[0])
    inner = None if columns is None else _values(columns["data"], shape.keys[1])
    if columns is None or inner is None:
        return None
    times, cases = columns["timestamp"], columns["conversation_id"]
    if not set(map(type, cases)) <= {str, type(None)}:
        return None
    kinds = set(map(type, times))
    if not kinds <= {float, int}:
        return None
    try:
        seconds = np.array(times, dtype=np.float64)
    except OverflowError:
        return None
    if not ((seconds >= FIRST) & (seconds <= LAST)).all():
        return None
    if int in kinds and np.abs(seconds).max() > EXACT:
        return None
    frame = {"conversation_id", "timestamp", "data", *shape.categories[0]}
    beyond = [columns[name] for name in shape.keys[0] if name not in frame]
    beyond += [inner[name] for name in shape.keys[1] if name not in shape.categories[1]]
    if not all(map(_is_small, beyond)):
        return None
    tokens = _tokens(reader, shape, group, columns, inner)
    if tokens is None:
        return None
    return tokens, cases, np.rint(seconds * MICROSECONDS).astype(np.int64)  # type: ignore


def _values(events: Sequence[object], keys: tuple[str, ...]) -> dict[str, list[object]] | None:
    """Return the values of dicts by key; None if they do not have exactly these keys."""
    if set(map(type, events)) != {dict}:
        return None
    bodies: Sequence[Event] = events  # type: ignore[assignment]
    if set(map(len, bodies)) != {len(keys)}:
        return None
    try:
        return {key: [*map(itemgetter(key), bodies)] for key in keys}
    except KeyError:
        return None


def _is_small(values: list[object]) -> bool:
    """Say whether an event with such values is surely one that can be written, and small."""
    kinds = set(map(type, values))
    if not kinds <= SIMPLE:
        return False
    if kinds == {str}:
        return max(map(len, values)) <= TEXT  # type: ignore[arg-type]
    if kinds == {int}:
        return -NUMBER < min(values) <= max(values) < NUMBER  # type: ignore
    return all(
        len(value) <= TEXT
        if isinstance(value, str)
        else not isinstance(value, int) or -NUMBER < value < NUMBER
        for value in values
    )


def _tokens(
    reader: EventReader,
    shape: Shape,
    group: list[Event],
    columns: Mapping[str, list[object]],
    inner: Mapping[str, list[object]],
) -> list[int] | int | None:
    """Return the numbers of the events' tokens, or the one number of all of them."""
    top = [columns[name] for name in shape.categories[0]]
    low = [inner[name] for name in shape.categories[1]]
    try:
        if all(len(set(column)) == 1 for column in chain(top, low)):
            token, _, _, _, _, _, error = reader.read(group[0])
            return token.number if error is None else None
        keys = [*zip(*top, strict=True)]
        if low:
            keys = [*zip(keys, zip(*low, strict=True), strict=True)]
        found = [*map(shape.known.get, keys)]
        if None in found:
            for place in [place for place, known in enumerate(found) if known is None]:
                if keys[place] not in shape.known:
                    reader.read(group[place])
            found = [*map(shape.known.get, keys)]
    except (TypeError, Odd):
        return None
    return None if None in found else [known[0].number for known in found if known]


def _take(
    miner: "Miner",
    case: "Whole",
    at: "Whole",
    token: "Whole",
    tokens: list[Token],
    names: list[Case],
) -> None:
    """Count events of whole cases, sorted by case and time."""
    import numpy as np

    if not len(case):
        return
    for number, n in enumerate(np.bincount(token, minlength=len(tokens)).tolist()):
        tokens[number].n += n
    miner.first = min(miner.first, int(at.min()))
    miner.last = max(miner.last, int(at.max()))
    failed = np.array([token.outcome == FAILURE for token in tokens])[token]
    for place in np.flatnonzero(failed).tolist():
        keep(tokens[token[place]].failed, int(at[place]), names[case[place]])
    edges = np.flatnonzero(case[1:] != case[:-1]) + 1
    starts, ends = [0, *edges.tolist()], [*edges.tolist(), len(case)]
    steps = [*map(tokens.__getitem__, token.tolist())]
    enter = miner.tally.enter
    for name, start, end, first, last in zip(
        map(names.__getitem__, case[starts].tolist()),
        starts,
        ends,
        at[starts].tolist(),
        at[np.array(ends) - 1].tolist(),
        strict=True,
    ):
        enter(name, (None, *steps[start:end]), first, last)
    _link(miner, case, at, token, tokens, names)


def _link(
    miner: "Miner",
    case: "Whole",
    at: "Whole",
    token: "Whole",
    tokens: list[Token],
    names: list[Case],
) -> None:
    """Count the edges between events of the same case."""
    import numpy as np

    same = np.flatnonzero(case[1:] == case[:-1])
    if not len(same):
        return
    took = at[same + 1] - at[same]
    pair = token[same] * len(tokens) + token[same + 1]
    order = np.argsort(pair, kind="stable")
    pair, took, where = pair[order], took[order], case[same[order]]
    starts = np.flatnonzero(np.concatenate(([True], pair[1:] != pair[:-1])))
    sums = np.add.reduceat(took, starts).tolist()
    width = len(EDGES) + 1
    bucket = np.searchsorted(_edges(), took, side="right")
    cells, counts = np.unique(pair * width + bucket, return_counts=True)
    links: dict[int, Link] = {}
    bounds = [*starts.tolist(), len(pair)]
    for key, total, start, end in zip(
        pair[starts].tolist(), sums, bounds, bounds[1:], strict=False
    ):
        source, target = tokens[key // len(tokens)], tokens[key % len(tokens)]
        link = links[key] = miner.tally.link(source.activity, target.activity, target.agent)
        link.took.total += total
        _keep_slowest(link, took[start:end], where[start:end], names)
    for cell, n in zip(cells.tolist(), counts.tolist(), strict=True):
        key, number = divmod(cell, width)
        held = links[key].took.counts
        held[number] = held.get(number, 0) + n


@cache
def _edges() -> "Whole":
    import numpy as np

    edges: Whole = np.array(EDGES, dtype=np.int64)
    return edges


def _keep_slowest(link: Link, took: "Whole", where: "Whole", names: list[Case]) -> None:
    import numpy as np

    slowest = link.slowest
    if len(slowest) == MOST:
        near = np.flatnonzero(took >= -slowest[-1][0])
        took, where = took[near], where[near]
    for place in np.argsort(-took, kind="stable").tolist():
        duration = int(took[place])
        if len(slowest) == MOST and -duration > slowest[-1][0]:
            return
        keep(slowest, -duration, names[where[place]])
