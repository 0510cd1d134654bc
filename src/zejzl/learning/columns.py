"""Many events read together, a column at a time: of those that are plain, with numpy.

Plain is an event of simple values in a form that many share. Which are not is said, and of which
cases they are; they are for `EventReader.read`, one by one.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING, TypeAlias

from zejzl.learning.eventlog import FIRST, LAST, WHOLE, EventReader, Odd, Shape, Token
from zejzl.learning.patterns import Case
from zejzl.learning.sketch import MICROSECONDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Whole: TypeAlias = NDArray[np.int64]

BLOCK = 4_096  # events that are read together: few enough to stay near the processor
KINDS = 50  # kinds of events beyond which setting up takes longer than it saves
EXACT = 9e9  # seconds up to which a whole number stays exact as a float of microseconds
TEXT = 50_000  # characters of all texts of an event that surely leave it small
NAMES = {str, type(None)}
SIMPLE = {*NAMES, int, float, bool}

Event = dict[str, object]


class EventColumns:
    """What was read of a portion, by position.

    Attributes:
        plain: Which events were read; of the others the rest says nothing.
        at: Times in µs.
        case: Numbers of cases, in `numbers` by name.
        kind: Places in `kinds`.
        kinds: What the events are; more than one place may say the same.
        mixed: Cases of events that are not plain.
    """

    def __init__(self, size: int) -> None:
        import numpy as np

        self.plain = np.zeros(size, dtype=bool)
        self.seconds = np.zeros(size, dtype=np.float64)
        self.at: Whole = np.zeros(size, dtype=np.int64)
        self.case: Whole = np.zeros(size, dtype=np.int64)
        self.kind: Whole = np.zeros(size, dtype=np.int64)
        self.numbers: defaultdict[Case, int] = defaultdict(count().__next__)
        self.kinds: list[Token] = []
        self.mixed: set[Case] = set()

    def fix_times(self) -> None:
        """Turn seconds into µs; an event whose time is none is not plain."""
        import numpy as np

        # Not a number is neither.
        sound = (self.seconds >= FIRST) & (self.seconds <= LAST)
        if not sound.all():
            names = [*self.numbers]
            self.mixed.update(names[n] for n in self.case[self.plain & ~sound].tolist())
            self.plain &= sound
            self.seconds[~sound] = 0.0
        self.at = np.rint(self.seconds * MICROSECONDS).astype(np.int64)


def read(reader: EventReader, events: list[Event]) -> EventColumns | None:
    """Return what the events say; None where their kinds cannot be told."""
    columns = EventColumns(len(events))
    try:
        for start in range(0, len(events), BLOCK):
            if not _read_block(reader, events[start : start + BLOCK], start, columns):
                return None
    except Exception:  # noqa: BLE001 - somebody else's class; which event has it, is seen one by one
        return None
    columns.fix_times()
    return columns


def _read_block(
    reader: EventReader, events: list[Event], start: int, columns: EventColumns
) -> bool:
    """Read the events that begin at this position; False where their kinds cannot be told."""
    import numpy as np

    try:
        kinds = [*map(itemgetter("type"), events)]
    except KeyError:
        return False
    if set(map(type, kinds)) != {str}:
        return False
    codes = {kind: code for code, kind in enumerate(dict.fromkeys(kinds))}
    if len(codes) > KINDS:
        return False
    code = np.fromiter(map(codes.__getitem__, kinds), np.uint16, len(kinds))
    order = np.argsort(code, kind="stable")
    for places in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
        group = [*map(events.__getitem__, places.tolist())]
        if not _read_group(reader, group, places + start, columns):
            for event in group:
                try:
                    columns.mixed.add(reader.read(event)[2])
                except Odd:
                    continue  # it is counted when it is learned by itself
    return True


def _read_group(
    reader: EventReader, group: list[Event], where: "Whole", columns: EventColumns
) -> bool:
    """Read events of one kind; False if they are not all alike and simple."""
    import numpy as np

    data = group[0].get("data")
    shape = reader.known_shape(group[0], data) if isinstance(data, dict) else None
    if shape is None or not shape.simple:
        return False
    values = _values(group, shape.keys[0], {"type"})  # these are all the same
    if values is None or set(map(type, values["data"])) != {dict}:
        return False
    inner = _values(values["data"], shape.keys[1], set())  # type: ignore[arg-type]
    if inner is None:
        return False
    times: list[float] = values["timestamp"]  # type: ignore[assignment]
    cases: list[Case] = values["conversation_id"]  # type: ignore[assignment]
    forms = set(map(type, times))
    if not forms <= {float, int}:
        return False
    if int in forms and not -EXACT <= min(times) <= max(times) <= EXACT:
        return False
    beyond = [values[name] for name in shape.keys[0] if name not in shape.framed]
    beyond += [inner[name] for name in shape.keys[1] if name not in shape.categories[1]]
    # Such that what Python writes of it is not oversized, with ten letters for each.
    most = TEXT // max(1, len(beyond))
    if not all(_is_small(column, most) for column in beyond):
        return False
    kind = _kinds(reader, shape, group, values, inner, columns.kinds)
    if kind is None:
        return False
    columns.kind[where] = kind
    columns.seconds[where] = times
    if not set(map(type, cases)) <= NAMES:
        raise TypeError("cases with names of which more than one may be the same")
    columns.case[where] = np.fromiter(map(columns.numbers.__getitem__, cases), np.int64, len(cases))
    columns.plain[where] = True
    return True


def _values(
    events: Sequence[Event], keys: tuple[str, ...], but: set[str]
) -> dict[str, list[object]] | None:
    """Return the values of dicts by key; None if they do not have exactly these keys."""
    if set(map(len, events)) != {len(keys)}:
        return None
    try:
        return {key: [*map(itemgetter(key), events)] for key in keys if key not in but}
    except KeyError:
        return None


def _is_small(values: list[object], most: int) -> bool:
    """Say whether an event with such values is surely one that can be written, and small."""
    kinds = set(map(type, values))
    if not kinds <= SIMPLE:
        return False
    if kinds == {str}:
        return max(map(len, values)) <= most  # type: ignore[arg-type]
    if kinds == {int}:
        return -WHOLE < min(values) <= max(values) < WHOLE  # type: ignore
    return all(
        len(value) <= most
        if isinstance(value, str)
        else not isinstance(value, int) or -WHOLE < value < WHOLE
        for value in values
    )


def _kinds(
    reader: EventReader,
    shape: Shape,
    group: list[Event],
    values: Mapping[str, list[object]],
    inner: Mapping[str, list[object]],
    kinds: list[Token],
) -> "Whole | int | None":
    """Return the places of the events' kinds, put at the end of `kinds`; None if not simple."""
    import numpy as np

    columns = [values[name] for name in values if name in shape.categories[0]]
    columns += [inner[name] for name in inner if name in shape.categories[1]]
    if not all(set(map(type, column)) <= SIMPLE for column in columns):
        return None
    start = len(kinds)
    try:
        varied = [column for column in columns if len(set(column)) > 1]
        if not varied:
            firsts, code = [0], None
        else:
            keys: list[object] = varied[0]
            if len(varied) > 1:
                keys = [*zip(*varied, strict=True)]
            codes = {key: start + n for n, key in enumerate(dict.fromkeys(keys))}
            if len(codes) > KINDS:
                return None
            firsts = [*map(keys.index, codes)]
            code = np.fromiter(map(codes.__getitem__, keys), np.int64, len(keys))
        tokens = [
            reader.known(shape, group[place], values["data"][place])[0]  # type: ignore[arg-type]
            for place in firsts
        ]
    except Odd:
        return None
    kinds += tokens
    return start if code is None else code
