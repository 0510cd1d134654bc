"""What the journal holds of one run of the nine, and how it changes.

    begun ──▶ steps, one after the other ──▶ finished: completed │ failed
      ▲                                                            │
      └──────────────(begun again: a new life of it)───────────────┘

A record belongs to whoever took it up last: each change says who makes it, and one that somebody
else has taken up meanwhile is left alone. Pure: a change takes a record and alters it in place.
"""

import json
from collections.abc import Mapping

from zejzl.agents.base import plain
from zejzl.agents.runs import Record
from zejzl.errors import ZejzlError, shorten

LONGEST_KEPT = 1_000_000  # characters of JSON that are kept of a step that may be cut, or of all

Document = dict[str, object]

_EXACT = ("reasoner", "actor", "validator", "executor")  # what later steps stand on
_NESTED = {"observation", "plan", "execution"}  # each is in the journal already, by itself


class OtherTask(ValueError):
    """The key belongs to a run of another task, or in another workspace."""


class RunUnderWay(ZejzlError):
    """The run is in other hands: another process is at work on it."""


def held_by(record: Record) -> str:
    """Return who is at work on a run; "": nobody."""
    return str(record.get("held_by", ""))


def begin(
    record: Record, *, key: str, task: object, workspace: str | None, me: str, gone: bool
) -> Record:
    """Take a run up, or begin a new life of one that failed; return a copy of its record.

    Args:
        gone: Whether who was at work on it is known to be gone.

    Raises:
        OtherTask: If it is another task's.
        RunUnderWay: If somebody else is at work on it.
    """
    task = plain(task, longest=LONGEST_KEPT)
    if record.get("task", task) != task:
        raise OtherTask(f"key {key!r} belongs to a run of another task: use another key")
    if record.get("workspace", workspace) != workspace:
        place = shorten(str(record["workspace"]))
        raise OtherTask(f"key {key!r} belongs to a run in {place}: use another key, or go there")
    if not record.get("finished"):
        if held_by(record) and not gone:
            raise RunUnderWay(f"run {key!r} is under way in another process: wait for its end")
    elif record.get("status") != "completed":
        lives = record.get("lives")
        record.clear()
        record["lives"] = (lives if isinstance(lives, int) else 1) + 1
    if completed(record) is None:
        record |= {"workspace": workspace, "held_by": me}
        for name, empty in {"task": task, "lives": 1, "steps": {}, "results": {}}.items():
            record.setdefault(name, empty)
    copy: Record = json.loads(json.dumps(record))
    return copy


def release(record: Record, *, me: str) -> None:
    """Let others have a run."""
    if held_by(record) == me:
        del record["held_by"]


def completed(record: Record) -> Document | None:
    """Return what came of a run; None: it is not completed."""
    outcome = record.get("outcome")
    if record.get("status") != "completed" or not isinstance(outcome, dict):
        return None
    steps = outcome["steps"]
    return {**outcome, "steps": nested(steps) if steps else {}}


def nested(steps: Mapping[str, Document]) -> dict[str, Document]:
    """Return the steps' documents as the agents give them: each holds the one it stands on."""
    plan = {**steps["reasoner"], "observation": steps["observer"]}
    execution = {**steps["actor"], "plan": plan}
    validation = {**steps["validator"], "execution": execution}
    return {**steps, "reasoner": plan, "actor": execution, "validator": validation}


def enter_step(record: Record, *, key: str, me: str, agent: str, found: Document) -> None:
    """Write down what a step found."""
    _check(record, key, me)
    steps = record["steps"]
    assert isinstance(steps, dict)
    if agent == "actor":
        record["results"] = {}  # they are in the document now
    steps[agent] = _sized(found, agent)


def enter_result(record: Record, *, key: str, me: str, id: str, result: Document) -> None:
    """Write down what came of one subtask, before all of them are done."""
    _check(record, key, me)
    results = record["results"]
    assert isinstance(results, dict)
    results[id] = result


def fail(record: Record, *, key: str, me: str, error: str) -> None:
    """Write down that a run has failed."""
    _check(record, key, me)
    record |= {"finished": True, "status": "failed", "error": shorten(error)}


def end(record: Record, *, key: str, me: str, outcome: Document) -> None:
    """Keep what came of a run in place of what it took.

    Results and files are kept whole; of the steps' documents only what there is room for.
    """
    _check(record, key, me)
    steps = outcome["steps"]
    assert isinstance(steps, dict)
    kept = {agent: _sized(found, agent) for agent, found in steps.items()}
    room = len(json.dumps(kept)) <= LONGEST_KEPT
    record["outcome"] = {**outcome, "steps": kept if room else {}}
    record |= {"finished": True, "status": outcome["status"], "steps": {}, "results": {}}


def _check(record: Record, key: str, me: str) -> None:
    if held_by(record) != me:
        raise RunUnderWay(f"run {key!r} was taken up by another process, which goes on with it")


def _sized(found: Document, agent: str) -> Document:
    """Return a step's document as JSON has it; of an observation only what there is room for.

    Nothing else is cut short: what cannot be kept whole is refused by the journal.
    """
    document = {name: value for name, value in found.items() if name not in _NESTED}
    text = json.dumps(document if agent in _EXACT else plain(document, longest=LONGEST_KEPT))
    if agent == "observer" and len(text) > LONGEST_KEPT:
        left_out = {"left_out": f"it has {len(text)} characters, {LONGEST_KEPT} are kept"}
        text = json.dumps({**document, "data": left_out})
    kept: Document = json.loads(text)
    return kept
