"""A miner written down as JSON-ready values, and read back: all of it, with a version.

What is read back is checked whole: that each part is what it should be, and that the parts fit
together. So damage is told when it is loaded, and never later.
"""

from typing import TYPE_CHECKING, TypeVar

from zejzl.errors import StoreTooNew
from zejzl.learning.cases import OpenCase
from zejzl.learning.error_counts import ErrorCount
from zejzl.learning.eventlog import FIRST, LAST, Token
from zejzl.learning.exemplars import read_kept
from zejzl.learning.outcome import FAILURE, UNKNOWN, OutcomeRule
from zejzl.learning.patterns import Case
from zejzl.learning.sketch import FAR, MICROSECONDS, MOST, Sketch
from zejzl.learning.variants import Ends, Link, Repeat, Tally, Trait

if TYPE_CHECKING:
    from zejzl.learning.mining import Miner

K = TypeVar("K")
V = TypeVar("V")

VERSION = 1
FEATURES = {"activity": 1, "edge": 2, "rework": 1, "agent": 1, "task_type": 1}  # names of each


def to_json(miner: "Miner") -> dict[str, object]:
    """Return a miner as values that JSON can hold."""
    miner.tally.settle()
    tokens = [*miner.reader.tokens.values()]
    places = {token: place for place, token in enumerate(tokens)}
    return {
        "v": VERSION,
        "outcome": miner.outcome.text if miner.outcome else None,
        "open_cases": miner.limit,
        "variants": miner.tally.most,
        "idle_timeout": miner.idle_timeout,
        "counts": {"late": miner.late, "evicted": miner.evicted},
        "skipped": dict(miner.skipped),
        "window": [miner.first, miner.last, miner.unnamed_until],
        "names": {kind: [*names] for kind, names in miner.reader.names.items()},
        "tokens": [
            [t.activity, t.agent, t.outcome, t.vote, t.n, t.took.to_json(), t.failed]
            for t in tokens
        ],
        "open": [_open(held, places) for held in miner.open.values()],
        "closed": [_listed(miner.closed.newer), _listed(miner.closed.older)],
        "faults": [
            [said, f.n, f.activities, f.agents, f.first, f.last, f.firsts]
            for said, f in miner.faults.by_signature.items()
        ],
        "tally": _tally(miner.tally),
    }


def fill(miner: "Miner", body: object) -> None:
    """Put into a new miner what `to_json` returned.

    Raises:
        StoreTooNew: If a newer version wrote it.
        ValueError: If it is damaged or something else.
    """
    if not isinstance(body, dict) or type(body.get("v")) is not int or body["v"] < 1:
        raise ValueError(f"not what a miner wrote: {_said(body)}")
    if body["v"] > VERSION:
        raise StoreTooNew(f"patterns of version {_said(body['v'])}; this zejzl reads {VERSION}")
    try:
        _fill(miner, body)
    except KeyError as problem:
        raise ValueError(f"what a miner wrote is damaged: no {problem} in it") from problem
    except (LookupError, TypeError, AttributeError, ValueError) as problem:
        raise ValueError(f"what a miner wrote is damaged: {problem}") from problem


def _open(held: OpenCase, places: dict[Token, int]) -> list[object]:
    steps = [places[step] if isinstance(step, Token) else step for step in held.steps]
    ids = None if held.ids is None else sorted(held.ids)
    return [held.case, steps, ids, held.task, held.task_at]


def _listed(cases: set[Case]) -> list[Case]:
    return sorted(cases, key=lambda case: (case is not None, case or ""))


def _tally(tally: Tally) -> dict[str, object]:
    return {
        "others": tally.others,
        "took": tally.took.to_json(),
        "tasks": [[task, ends] for task, ends in tally.tasks.items()],
        "cases": dict(tally.cases),
        "ways": [
            [[*sequence], way.ends, way.took.to_json(), way.firsts, way.last]
            for sequence, way in tally.ways.items()
        ],
        "links": [[*key, link.took.to_json(), link.slowest] for key, link in tally.links.items()],
        "rework": [[name, r.n, r.cases, r.firsts] for name, r in tally.rework.items()],
        "loops": [[*pair, r.n, r.cases, r.firsts] for pair, r in tally.loops.items()],
        "traits": [
            [kind, [*name], [[task, ends] for task, ends in trait.ends.items()], trait.failed]
            for (kind, name), trait in tally.traits.items()
        ],
    }


def _fill(miner: "Miner", body: dict[str, object]) -> None:
    rule = _text(body["outcome"])
    miner.__init__(  # type: ignore[misc]
        outcome=None if rule is None else OutcomeRule.parse(rule),
        open_cases=_count(body["open_cases"]),
        variants=_count(body["variants"]),
        idle_timeout=_seconds(body["idle_timeout"]),
    )
    counts = _counts(body["counts"])
    miner.late, miner.evicted = counts["late"], counts["evicted"]
    miner.skipped = _counts(body["skipped"])
    kinds = _dict(body["names"])
    for kind, names in miner.reader.names.items():
        names.update((_name(name), _name(name)) for name in _list(kinds[kind]))
    tokens: list[Token] = []
    for activity, agent, outcome, vote, n, took, failed in _rows(body["tokens"]):
        token = Token(_name(activity), _text(agent), _code(outcome), _code(vote))
        token.n, token.took, token.failed = _count(n), Sketch.from_json(took), read_kept(failed)
        _new(miner.reader.tokens, (token.activity, token.agent, token.outcome, token.vote), token)
        token.number = len(tokens)
        tokens.append(token)
    for row in _rows(body["open"]):
        held = _held(row, tokens)
        _new(miner.open, held.case, held)
        miner.held += len(held.steps) // 3
    newer, older = _rows(body["closed"])
    miner.closed.newer = {_text(case) for case in newer}
    miner.closed.older = {_text(case) for case in older}
    for said, n, activities, agents, first, last, firsts in _rows(body["faults"]):
        fault = miner.faults.by_signature[_name(said)] = ErrorCount()
        fault.seen(_moment(first), _moment(last), _count(n))
        fault.activities, fault.agents = _counts(activities), _counts(agents)
        fault.firsts = read_kept(firsts)
    _fill_tally(miner.tally, _dict(body["tally"]))
    _fill_window(miner, _list(body["window"]))
    if len(miner.open) > miner.limit:
        raise ValueError(f"{len(miner.open)} open cases, where {miner.limit} may be")


def _fill_window(miner: "Miner", window: list[object]) -> None:
    first, last, unnamed_until = window
    miner.unnamed_until = -FAR if unnamed_until == -FAR else _moment(unnamed_until)
    if first == FAR and last == -FAR and not miner.open and not miner.tally.tasks:
        return
    miner.first, miner.last = _moment(first), _moment(last)
    if miner.first > miner.last:
        raise ValueError("the first event is after the last")


def _held(row: list[object], tokens: list[Token]) -> OpenCase:
    case, flat, ids, task, task_at = row
    held = OpenCase(_text(case))
    steps = _list(flat)
    for at, place, mark in zip(steps[0::3], steps[1::3], steps[2::3], strict=True):
        held.steps += (_moment(at), tokens[_count(place)], _whole(mark))
    held.ids = None if ids is None else {_name(name) for name in _list(ids)}
    held.task, held.task_at = _text(task), _whole(task_at)
    if not held.steps or held.times() != sorted(held.times()):
        raise ValueError("an open case is empty or out of order")
    return held


def _fill_tally(tally: Tally, body: dict[str, object]) -> None:
    tally.others = _count(body["others"])
    tally.took = Sketch.from_json(body["took"])
    tally.tasks = {_text(task): _ends(ends) for task, ends in _rows(body["tasks"])}
    tally.cases = _counts(body["cases"])
    for sequence, ends, took, firsts, last in _rows(body["ways"]):
        way = tally.way(tuple(_name(name) for name in _list(sequence)))
        if way is None or not sequence:
            raise ValueError("an empty variant, or more variants than may be kept")
        way.ends, way.took, way.firsts = _ends(ends), Sketch.from_json(took), read_kept(firsts)
        way.last = _moment(last)
    for source, target, agent, took, slowest in _rows(body["links"]):
        link = tally.links[_name(source), _name(target), _text(agent)] = Link()
        link.took, link.slowest = Sketch.from_json(took), read_kept(slowest)
    for name, *again in _rows(body["rework"]):
        tally.rework[_name(name)] = _repeat(again)
    for first, second, *again in _rows(body["loops"]):
        tally.loops[_name(first), _name(second)] = _repeat(again)
    for kind, names, by_task, failed in _rows(body["traits"]):
        name = tuple(_name(name) for name in _list(names))
        if len(name) != FEATURES[_name(kind)]:
            raise ValueError(f"not the name of a feature: {_said(names)}")
        trait = tally.traits[_name(kind), name] = Trait()
        trait.ends = {_text(task): _ends(ends) for task, ends in _rows(by_task)}
        trait.failed = read_kept(failed)
        if not trait.ends.keys() <= tally.tasks.keys():
            raise ValueError(f"the task types of a feature are not those of cases: {_said(names)}")
    cases = sum(map(sum, tally.tasks.values()))
    in_ways = tally.others + sum(sum(way.ends) for way in tally.ways.values())
    if not cases == in_ways == sum(tally.took.counts.values()):
        raise ValueError("the cases by task type, by variant and by time are not equally many")


def _repeat(body: list[object]) -> Repeat:
    repeat = Repeat()
    n, cases, firsts = body
    repeat.n, repeat.cases, repeat.firsts = _count(n), _count(cases), read_kept(firsts)
    if not 1 <= repeat.cases <= repeat.n:
        raise ValueError("something is repeated in no case, or in more cases than times")
    return repeat


def _new(table: dict[K, V], key: K, value: V) -> None:
    if key in table:
        raise ValueError(f"twice the same: {_said(key)}")
    table[key] = value


def _said(value: object) -> str:
    """Return a value as it is told of: short, and without looking into it."""
    if isinstance(value, str):
        return repr(value[:60])
    small = value is None or isinstance(value, bool | float)
    if small or (isinstance(value, int) and abs(value) <= FAR):
        return repr(value)
    return f"a {type(value).__name__}"


def _list(body: object) -> list[object]:
    if not isinstance(body, list):
        raise ValueError(f"not a list: {_said(body)}")
    return body


def _rows(body: object) -> list[list[object]]:
    return [_list(row) for row in _list(body)]


def _dict(body: object) -> dict[str, object]:
    if not isinstance(body, dict):
        raise ValueError(f"not a mapping: {_said(body)}")
    return body


def _whole(value: object) -> int:
    if type(value) is not int or abs(value) > FAR:
        raise ValueError(f"not a whole number below 10**18: {_said(value)}")
    return value


def _moment(value: object) -> int:
    if not FIRST <= _whole(value) / MICROSECONDS <= LAST + 1:
        raise ValueError(f"not a moment: {_said(value)}")
    return value  # type: ignore[return-value]


def _count(value: object) -> int:
    if not 0 <= _whole(value) <= MOST:
        raise ValueError(f"not a count: {_said(value)}")
    return value  # type: ignore[return-value]


def _seconds(value: object) -> float | None:
    if value is not None and type(value) not in (int, float):
        raise ValueError(f"not seconds: {_said(value)}")
    return value  # type: ignore[return-value]


def _code(value: object) -> int:
    if not UNKNOWN <= _whole(value) <= FAILURE:
        raise ValueError(f"not an outcome: {_said(value)}")
    return value  # type: ignore[return-value]


def _ends(value: object) -> Ends:
    ends = [_count(n) for n in _list(value)]
    if len(ends) != FAILURE + 1:
        raise ValueError(f"not three counts: {_said(value)}")
    return ends


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"not a name: {_said(value)}")
    return value


def _text(value: object) -> str | None:
    return None if value is None else _name(value)


def _counts(value: object) -> dict[str, int]:
    return {_name(name): _count(n) for name, n in _dict(value).items()}
