"""One event read: what it says of whom and when, or what is wrong with it.

An event is a mapping `{type, data, conversation_id, timestamp, agent?, task_type?, status?, error?,
duration_ms?, is_valid?, valid?, id?}`. A field is read at the top level, then in `data`; None is
none. Only `id` is read at the top level alone: in `data` it is the id of something else.

What is wrong is one of these words, and the event is then skipped:

    not_an_event   no mapping, or one that cannot be read
    no_type        without `type`, or an empty one
    no_time        without `timestamp`
    wrong_time     a `timestamp` that is no time: unreadable text, or outside the years 1 to 9999
    no_data        without `data`, and with nothing else but type, case, time and id
    wrong_type     a field at the top level, or the type or time wherever it is, of a wrong kind:
                   texts are str, `conversation_id` str or int, `duration_ms` a number of 0 to
                   1e15, `is_valid` and `valid` true or false, `data` a mapping. In `data`, which
                   is the user's own, an optional field of another kind is not this field.
    oversized      a name of more than 500 characters, or all of it of more than 1,000,000
    duplicate      the same `id` as an event of the same open case, or equal to one (`mining`)
    future         later than the `now` handed in (`mining`)

A time is epoch seconds, ISO 8601 text or a datetime; without a zone it is UTC.

Outcome of an event: `is_valid` or else `valid`; a failure where `error` is not empty; else by the
word in `status`. An executor's event without `error` and `status` is a success.
"""

from collections.abc import Mapping
from operator import itemgetter
from zlib import crc32

from zejzl.events import utc
from zejzl.learning.exemplars import Kept, keep_all
from zejzl.learning.outcome import EXECUTOR, FAILURE, SUCCESS, UNKNOWN, VALIDATION, OutcomeRule
from zejzl.learning.patterns import Case
from zejzl.learning.signatures import READ
from zejzl.learning.sketch import MICROSECONDS, Sketch

NAME = 500  # characters of a name, at most
WHOLE = 10**18  # what a whole number that names something is below, with either sign
SIZE = 1_000_000  # characters of an event as Python writes it, at most
OTHERS = "(others)"  # the name of all names beyond the most that are kept
ACTIVITIES = 1_000
AGENTS = 1_000
TASKS = 200
TOKENS = 50_000
FIRST, LAST = -62_135_596_800, 253_402_300_799  # the years 1 to 9999 in seconds since 1970

GOOD = frozenset(
    ("ok", "success", "successful", "succeeded", "complete", "completed", "done", "passed")
)
BAD = frozenset(
    ("error", "errored", "fail", "failed", "failure", "exception", "invalid", "rejected")
) | {"aborted", "crashed", "timeout", "timed_out"}
CATEGORIES = ("type", "agent", "task_type", "status", "error", "is_valid", "valid")
_FRAME = ("type", "conversation_id", "timestamp", "id", "data")
_DATETIME = type(utc(0.0))  # a name for the class; the module of clocks stays outside

Nothing: dict[str, object] = {}


class Token:
    """What an event is, apart from its case and time; counted here. Compared by identity."""

    __slots__ = ("activity", "agent", "failed", "n", "number", "outcome", "took", "vote")

    def __init__(self, activity: str, agent: str | None, outcome: int, vote: int) -> None:
        self.activity = activity
        self.agent = agent
        self.outcome = outcome
        self.vote = vote
        self.number = -1  # its place among the tokens of its log
        self.n = 0
        self.took = Sketch()  # durations that events state
        self.failed: Kept = []


# token, task type, checksum of the categories, error
Known = tuple[Token, str | None, int, str | None]
# token, task type, case, time in µs, mark (equal events have equal ones), duration in µs, error
Reading = tuple[Token, str | None, Case, int, int | str, int | None, str | None]


class Odd(Exception):
    """An event that is none; its text is the word for what is wrong."""


class Shape:
    """Where the fields are in all events of one shape, and what was read of their categories."""

    __slots__ = (
        *("categories", "duration", "framed", "inner", "keys", "known", "mark", "simple", "top"),
    )

    def __init__(self, event: dict[str, object], data: dict[str, object], field: str) -> None:
        wanted = {*CATEGORIES, field}
        top = [name for name in event if name in wanted]
        inner = [name for name in data if name in wanted]
        self.keys = tuple(event), tuple(data)
        self.categories = tuple(top), tuple(inner)
        self.framed = {"conversation_id", "timestamp", "data", *self.categories[0]}
        # What only a category tells, in the way that most events have it.
        self.simple = not {"id", "error", "task_type", "duration_ms"} & {*event, *data}
        # Two names at least, since a getter of one gives no tuple.
        self.top = itemgetter(*(top if len(top) > 1 else 2 * top))
        self.inner = itemgetter(*(inner if len(inner) > 1 else 2 * inner)) if inner else None
        self.duration = "duration_ms" in event or "duration_ms" in data
        # Which part of an event its categories do not tell: none, `data`, or all of it.
        beyond = event.keys() - {*_FRAME, *wanted} or {"id", "error"} & event.keys()
        self.mark = 2 if beyond else 1 if data.keys() - wanted or "error" in data else 0
        # By the values' classes, then the values: True, 1 and 1.0 are equal, and not the same.
        self.known: dict[tuple[type, ...], dict[tuple[object, ...], Known]] = {}


class EventReader:
    """Reads events of one log, and knows the tokens of it."""

    def __init__(self, rule: OutcomeRule | None = None) -> None:
        self.tokens: dict[tuple[str, str | None, int, int], Token] = {}
        self._rule = rule
        self._shapes: dict[object, Shape] = {}
        self._memo = 0
        self.names: dict[str, dict[str, str]] = {"activities": {}, "agents": {}, "tasks": {}}

    def read(self, event: object) -> Reading:
        """Return what an event says.

        Raises:
            Odd: If it is none; nothing else is ever raised.
        """
        try:
            if type(event) is not dict:
                return self._unplanned(event)
            data = event.get("data")
            if type(data) is not dict:
                return self._unplanned(event)
            shape = self._shapes.get((len(event), *event, *data))
            if shape is None and (shape := self.shape(event, data)) is None:
                return self._unplanned(event)
            when = event["timestamp"]
            if (type(when) is float or type(when) is int) and FIRST <= when <= LAST:
                at = round(when * MICROSECONDS)
            else:
                at = moment(when)
            case = event["conversation_id"]
            if case is not None and (type(case) is not str or len(case) > NAME):
                case = case_of(case, outer=True)
            token, task, mark, error = self.known(shape, event, data)
            name: int | str = mark
            if shape.mark == 1:
                name = mark ^ mark_of(data)
            elif shape.mark:
                name = name_of(event, mark_of(event))
            duration = duration_of(event, data) if shape.duration else None
            return token, task, case, at, name, duration, error
        except Odd:
            raise
        except Exception:  # noqa: BLE001 - somebody else's class in it, whose methods raise
            raise Odd("not_an_event") from None

    def known(self, shape: Shape, event: dict[str, object], data: dict[str, object]) -> Known:
        """Return what the categories of an event of this shape say; remembered if that is little.

        Raises:
            Odd: If they are none.
        """
        values = shape.top(event)
        if shape.inner is not None:
            values += shape.inner(data)
        # Asked for first: of other classes nothing is remembered, and no value is made a key.
        table = shape.known.get((*map(type, values),))
        found = None if table is None else table.get(values)
        return self._looked_up(shape, values, event, data) if found is None else found

    def known_shape(self, event: dict[str, object], data: dict[str, object]) -> Shape | None:
        """Return where the fields of such events are, if that is or can be remembered."""
        found = self._shapes.get((len(event), *event, *data))
        return self.shape(event, data) if found is None else found

    def shape(self, event: dict[str, object], data: dict[str, object]) -> Shape | None:
        """Return where the fields of such events are; None where it is not worth remembering."""
        # A field in both places depends on values; a large event would keep large names.
        if len(event) + len(data) > 64 or event.keys() & data.keys():
            return None
        if not all(name in event for name in ("type", "timestamp", "conversation_id")):
            return None
        if not all(isinstance(name, str) and len(name) <= NAME for name in (*event, *data)):
            return None
        if len(self._shapes) >= 1_000:
            self._shapes.clear()
        shape = Shape(event, data, self._rule.field if self._rule else "")
        self._shapes[len(event), *event, *data] = shape
        return shape

    def _looked_up(
        self,
        shape: Shape,
        values: tuple[object, ...],
        event: dict[str, object],
        data: dict[str, object],
    ) -> Known:
        """Return what the categories say; kept, unless that could become much."""
        token, task, error = self._categories(event, data)
        found = token, task, mark_of(values), error
        if error is None and all(map(_small, values)):
            if self._memo >= 10_000:
                self._memo = 0
                for other in self._shapes.values():
                    other.known.clear()
            self._memo += 1
            shape.known.setdefault((*map(type, values),), {})[values] = found
        return found

    def _unplanned(self, event: object) -> Reading:
        body, data = opened(event)
        if data is None:
            if not any(value is not None for name, value in body.items() if name not in _FRAME):
                # Told last: without a type or a time it is that which is missing first.
                text(body, Nothing, "type", needed="no_type")
                moment(body.get("timestamp"))
                raise Odd("no_data")
            data = Nothing
        text(body, data, "type", needed="no_type")
        at = body.get("timestamp")
        case = body.get("conversation_id")
        outer = case is not None
        token, task, error = self._categories(body, data)
        return (
            token,
            task,
            case_of(case if outer else data.get("conversation_id"), outer=outer),
            moment(data.get("timestamp") if at is None else at),
            name_of(body, mark_of(body)),
            duration_of(body, data),
            error,
        )

    def _categories(
        self, event: Mapping[str, object], data: Mapping[str, object]
    ) -> tuple[Token, str | None, str | None]:
        """Return an event's token, its task type, and the text of its error."""
        activity = text(event, data, "type", needed="no_type")
        agent = text(event, data, "agent")
        task = text(event, data, "task_type")
        status = text(event, data, "status")
        error = error_of(event, data)
        valid = flag(event, data, "is_valid")
        valid = flag(event, data, "valid") if valid is None else valid
        if valid is not None:
            outcome = SUCCESS if valid else FAILURE
        elif error is not None:
            outcome = FAILURE
        elif status is not None:
            word = status.strip().lower().replace(" ", "_").replace("-", "_")
            outcome = SUCCESS if word in GOOD else FAILURE if word in BAD else UNKNOWN
        else:
            outcome = SUCCESS if activity == EXECUTOR else UNKNOWN
        if self._rule is None:
            vote = outcome if activity in (EXECUTOR, VALIDATION) else UNKNOWN
        else:
            vote = self._rule.vote(event, data) if self._rule.field else UNKNOWN
        token = self.token(activity or "", agent, outcome, vote)
        task = None if task is None else _kept(self.names["tasks"], task, TASKS)
        return token, task, error

    def adopt(self, token: Token) -> Token:
        """Return this log's token for one of another log, with its counts added."""
        own = self.token(token.activity, token.agent, token.outcome, token.vote)
        own.n += token.n
        own.took.merge(token.took)
        keep_all(own.failed, token.failed)
        return own

    def token(self, activity: str, agent: str | None, outcome: int, vote: int) -> Token:
        """Return the one token that is this."""
        activity = _kept(self.names["activities"], activity, ACTIVITIES)
        if agent is not None:
            agent = _kept(self.names["agents"], agent, AGENTS)
        key = (activity, agent, outcome, vote)
        token = self.tokens.get(key)
        if token is None:
            if len(self.tokens) >= TOKENS and agent not in (None, OTHERS):
                return self.token(activity, OTHERS, outcome, vote)
            token = self.tokens[key] = Token(activity, agent, outcome, vote)
            token.number = len(self.tokens) - 1
        return token


def _kept(names: dict[str, str], name: str, most: int) -> str:
    """Return this name, or the one for all beyond the most that are kept."""
    found = names.get(name)
    if found is None:
        if len(names) >= most:
            return OTHERS
        found = names[name] = name
    return found


def opened(event: object) -> tuple[dict[str, object], dict[str, object] | None]:
    """Return an event and its `data` as dicts; None where it has none.

    Raises:
        Odd: If they are no mappings.
    """
    if type(event) is not dict:
        if not isinstance(event, Mapping):
            raise Odd("not_an_event")
        event = _copied(event, "not_an_event")
    data = event.get("data")
    if data is None or type(data) is dict:
        return event, data
    if not isinstance(data, Mapping):
        raise Odd("wrong_type")
    return event, _copied(data, "wrong_type")


def _copied(mapping: Mapping[object, object], word: str) -> dict[str, object]:
    try:
        return dict(mapping)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - somebody else's class; the event is counted as odd
        raise Odd(word) from None


def text(
    event: Mapping[str, object], data: Mapping[str, object], name: str, *, needed: str = ""
) -> str | None:
    """Return a text field, or None; `needed` is the word for its absence."""
    value = event.get(name)
    outer = value is not None
    value = value if outer else data.get(name)
    if isinstance(value, str):
        value = str.__str__(value)  # of an enumeration: its value
        if len(value) > NAME:
            raise Odd("oversized")
        if value or not needed:
            return value or None
    elif value is not None and (outer or needed):
        raise Odd("wrong_type")
    if needed:
        raise Odd(needed)
    return None


def flag(event: Mapping[str, object], data: Mapping[str, object], name: str) -> bool | None:
    """Return a field that is true or false, or None."""
    value = event.get(name)
    outer = value is not None
    value = value if outer else data.get(name)
    # 1 and 0 too: they are equal to True and False wherever they are looked up.
    if isinstance(value, bool) or _plain(value) in (0, 1):
        return bool(value)
    if outer:
        raise Odd("wrong_type")
    return None


def error_of(event: Mapping[str, object], data: Mapping[str, object]) -> str | None:
    """Return what an error says, shortened; "" where one only is there; None without one."""
    value = event.get("error")
    outer = value is not None
    value = value if outer else data.get("error")
    if isinstance(value, dict):
        said = value.get("message") or value.get("type")
        return str.__str__(said)[:READ] if isinstance(said, str) else "" if value else None
    if isinstance(value, list | tuple):
        value = value[0] if value and isinstance(value[0], str) else bool(value)
    if isinstance(value, BaseException):
        value = _said(value)
    if isinstance(value, str):
        value = str.__str__(value)
        if len(value) > SIZE:
            raise Odd("oversized")
        return value[:READ] if value else None
    if isinstance(value, bool) or value is None:
        return "" if value else None
    if outer:
        raise Odd("wrong_type")
    return None


def _said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - somebody else's class; its name must do
        return type(error).__name__


def case_of(value: object, *, outer: bool) -> Case:
    """Return the case that an event names."""
    if isinstance(value, str):
        value = str.__str__(value)
        if len(value) > NAME:
            raise Odd("oversized")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        value = int.__int__(value)
        if -WHOLE < value < WHOLE:
            return str(value)
    if value is not None and outer:
        raise Odd("wrong_type")
    return None


def moment(value: object) -> int:
    """Return a time in µs since 1970.

    Raises:
        Odd: If it is none.
    """
    if value is None:
        raise Odd("no_time")
    if isinstance(value, str):
        value = str.__str__(value)
        try:
            value = _DATETIME.fromisoformat(value.strip()) if len(value) <= NAME else None
        except ValueError:
            value = None
        if value is None:
            raise Odd("wrong_time")
    if isinstance(value, _DATETIME):
        try:
            zoned = value if value.tzinfo else value.replace(tzinfo=utc(0.0).tzinfo)
            past = _DATETIME.__sub__(zoned, utc(0.0))
        except Exception:  # noqa: BLE001 - out of range, or what somebody else's zone raised
            raise Odd("wrong_time") from None
        return (past.days * 86_400 + past.seconds) * MICROSECONDS + past.microseconds
    value = _plain(value)
    if value is None:
        raise Odd("wrong_type")
    if not FIRST <= value <= LAST:  # not a number is neither
        raise Odd("wrong_time")
    return round(value * MICROSECONDS)


def duration_of(event: Mapping[str, object], data: Mapping[str, object]) -> int | None:
    """Return the duration that an event states, in µs."""
    value = event.get("duration_ms")
    outer = value is not None
    value = value if outer else data.get("duration_ms")
    number = _plain(value)
    if number is not None and 0 <= number <= 1e15:
        return round(number * 1000)
    if outer:
        raise Odd("wrong_type")
    return None


def mark_of(content: object) -> int:
    """Return a checksum of something as Python writes it: equal events have equal ones.

    Raises:
        Odd: If it is too large, or cannot be written.
    """
    try:
        written = repr(content)
    except Exception:  # noqa: BLE001 - a user's own object in it; the event is counted as odd
        raise Odd("wrong_type") from None
    if len(written) > SIZE:
        raise Odd("oversized")
    try:
        return crc32(written.encode())
    except UnicodeEncodeError:  # what half a character looks like, to a user's own object
        return crc32(written.encode("utf-8", "surrogatepass"))


def name_of(event: Mapping[str, object], otherwise: int) -> int | str:
    """Return the event's own id."""
    name = event.get("id")
    if name is None:
        return otherwise
    if isinstance(name, str):
        name = str.__str__(name)
    elif isinstance(name, int) and not isinstance(name, bool):
        name = f"{int.__int__(name):x}"
    else:
        raise Odd("wrong_type")
    if len(name) > NAME:
        raise Odd("oversized")
    return name


def _plain(value: object) -> int | float | None:
    """Return a number as one of Python's own, whatever a class derived from them makes of it."""
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__int__(value)
    return None


def _small(value: object) -> bool:
    """Say whether a value may be kept as part of a key: it is little, and equal to no other."""
    if type(value) is str:
        return len(value) <= NAME
    if type(value) is int:
        return -WHOLE < value < WHOLE
    # 0.0 equals -0.0, which is written otherwise.
    return value is None or type(value) is bool or (type(value) is float and value != 0.0)
