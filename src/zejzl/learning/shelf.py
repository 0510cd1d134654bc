"""A miner written down as JSON-ready values, and read back: all of it, with a version."""

from typing import TYPE_CHECKING

from zejzl.errors import StoreTooNew
from zejzl.learning.cases import OpenCase
from zejzl.learning.error_counts import ErrorCount
from zejzl.learning.eventlog import Token
from zejzl.learning.exemplars import read_kept
from zejzl.learning.outcome import FAILURE, UNKNOWN, OutcomeRule
from zejzl.learning.patterns import Case
from zejzl.learning.sketch import Sketch
from zejzl.learning.variants import Link, Repeat, Tally, Trait, Way

if TYPE_CHECKING:
    from zejzl.learning.mining import Miner

VERSION = 1


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
    if not isinstance(body, dict) or type(body.get("v")) is not int:
        raise ValueError(f"not what a miner wrote: {body!r:.60}")
    if body["v"] != VERSION:
        raise StoreTooNew(f"patterns of version {body['v']}; this zejzl reads {VERSION}")
    try:
        _fill(miner, body)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as problem:
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
        idle_timeout=body["idle_timeout"],
    )
    counts = _counts(body["counts"])
    miner.late, miner.evicted = counts["late"], counts["evicted"]
    miner.skipped = _counts(body["skipped"])
    window = [_whole(at) for at in _list(body["window"])]
    miner.first, miner.last, miner.unnamed_until = window
    kinds = _dict(body["names"])
    for kind, names in miner.reader.names.items():
        names.update((_name(name), _name(name)) for name in _list(kinds[kind]))
    tokens: list[Token] = []
    for activity, agent, outcome, vote, n, took, failed in _rows(body["tokens"]):
        token = Token(_name(activity), _text(agent), _code(outcome), _code(vote))
        token.n, token.took, token.failed = _count(n), Sketch.from_json(took), read_kept(failed)
        miner.reader.tokens[token.activity, token.agent, token.outcome, token.vote] = token
        token.number = len(tokens)
        tokens.append(token)
    for row in _rows(body["open"]):
        held = _held(row, tokens)
        miner.open[held.case] = held
        miner.held += len(held.steps) // 3
    newer, older = _rows(body["closed"])
    miner.closed.newer = {_text(case) for case in newer}
    miner.closed.older = {_text(case) for case in older}
    for said, n, activities, agents, first, last, firsts in _rows(body["faults"]):
        fault = miner.faults.by_signature[_name(said)] = ErrorCount()
        fault.seen(_whole(first), _whole(last), _count(n))
        fault.activities, fault.agents = _counts(activities), _counts(agents)
        fault.firsts = read_kept(firsts)
    _fill_tally(miner.tally, _dict(body["tally"]))


def _held(row: list[object], tokens: list[Token]) -> OpenCase:
    case, flat, ids, task, task_at = row
    held = OpenCase(_text(case))
    steps = _list(flat)
    for at, place, mark in zip(steps[0::3], steps[1::3], steps[2::3], strict=True):
        held.steps += (_whole(at), tokens[_count(place)], _whole(mark))
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
        way = tally.way(tuple(_name(name) for name in _list(sequence))) or Way()
        way.ends, way.took, way.firsts = _ends(ends), Sketch.from_json(took), read_kept(firsts)
        way.last = _whole(last)
    for source, target, agent, took, slowest in _rows(body["links"]):
        link = tally.links[_name(source), _name(target), _text(agent)] = Link()
        link.took, link.slowest = Sketch.from_json(took), read_kept(slowest)
    for name, *again in _rows(body["rework"]):
        tally.rework[_name(name)] = _repeat(again)
    for first, second, *again in _rows(body["loops"]):
        tally.loops[_name(first), _name(second)] = _repeat(again)
    for kind, names, by_task, failed in _rows(body["traits"]):
        trait = tally.traits[_name(kind), tuple(_name(name) for name in _list(names))] = Trait()
        trait.ends = {_text(task): _ends(ends) for task, ends in _rows(by_task)}
        trait.failed = read_kept(failed)


def _repeat(body: list[object]) -> Repeat:
    repeat = Repeat()
    repeat.n, repeat.cases, repeat.firsts = _count(body[0]), _count(body[1]), read_kept(body[2])
    return repeat


def _list(body: object) -> list[object]:
    if not isinstance(body, list):
        raise ValueError(f"not a list: {body!r:.60}")
    return body


def _rows(body: object) -> list[list[object]]:
    return [_list(row) for row in _list(body)]


def _dict(body: object) -> dict[str, object]:
    if not isinstance(body, dict):
        raise ValueError(f"not a mapping: {body!r:.60}")
    return body


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"not a whole number: {value!r:.60}")
    return value


def _count(value: object) -> int:
    if _whole(value) < 0:
        raise ValueError(f"not a count: {value!r:.60}")
    return value  # type: ignore[return-value]


def _code(value: object) -> int:
    if not UNKNOWN <= _whole(value) <= FAILURE:
        raise ValueError(f"not an outcome: {value!r:.60}")
    return value  # type: ignore[return-value]


def _ends(value: object) -> list[int]:
    ends = [_count(n) for n in _list(value)]
    if len(ends) != FAILURE + 1:
        raise ValueError(f"not three counts: {value!r:.60}")
    return ends


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"not a name: {value!r:.60}")
    return value


def _text(value: object) -> str | None:
    return None if value is None else _name(value)


def _counts(value: object) -> dict[str, int]:
    return {_name(name): _count(n) for name, n in _dict(value).items()}
