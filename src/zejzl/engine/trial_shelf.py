"""Experiments as the store has them: those that run, with their counts, and those that are over.

One setting holds all of them; each process changes its own rows and leaves the others. A verdict is
claimed here before anybody acts on it, and marked when it was carried out.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from zejzl.engine.changes import UNREADABLE, checked_difference, checked_id
from zejzl.errors import StoreTooNew, shorten, words
from zejzl.learning.experiment import Trial
from zejzl.ports import Store

log = logging.getLogger(__name__)

VERSION = 1
NAME = "experiments"  # the setting they are kept as
DAMAGED = "experiments.damaged"
MOST_KEPT = 100  # experiments that are over and are remembered
PENDING = "pending"  # of one that is over: whose process acts on its verdict

Difference = Mapping[str, object]  # of settings; empty is what is in use anyway
Body = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Running:
    """An experiment under way.

    Attributes:
        trial: What was counted.
        treatment: The arm that is tried.
        settings: How it differs from what there is; `control` how the other arm does.
        change: The id of the change that is tried, whether it stood already or is to be made.
        action: What the change is, in a word.
        stood: Whether it stood when the experiment began.
        until: When it ends at the latest.
        over: Whether it has ended.
        unwritten: Requests counted since it was written down last.
        heard: Conversations that are counted, as short hashes.
    """

    trial: Trial
    treatment: str
    settings: Difference
    control: Difference
    change: str
    action: str
    stood: bool
    until: datetime
    over: bool = False
    unwritten: int = 0
    heard: set[str] = field(default_factory=set)

    def is_first(self, conversation: str | None) -> bool:
        """Say whether an outcome is the first of its conversation; None is one of its own.

        Only that one counts: outcomes of one conversation share their arm, and what is claimed
        holds for arms that are drawn one by one.
        """
        if conversation is None:
            return True
        before = len(self.heard)
        text = f"{self.trial.name}:{conversation}".encode("utf-8", "backslashreplace")
        self.heard.add(hashlib.blake2b(text, digest_size=5).hexdigest())
        return len(self.heard) > before

    def to_json(self) -> Body:
        """Return JSON-ready values."""
        return {
            "name": self.trial.name,
            "trial": self.trial.to_json(),
            "treatment": self.treatment,
            "settings": dict(self.settings),
            "control": dict(self.control),
            "change": self.change,
            "action": self.action,
            "stood": self.stood,
            "until": self.until.isoformat(),
            "heard": sorted(self.heard),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Running":
        """Return what `to_json` wrote.

        Raises:
            ValueError, TypeError, KeyError: If it is none.
            StoreTooNew: If a newer version wrote it.
        """
        until = datetime.fromisoformat(body["until"])
        if until.tzinfo is None:
            raise ValueError("the end of an experiment has no zone")
        return cls(
            trial=Trial.from_json(body["trial"]),
            treatment=str(body["treatment"]),
            settings=_difference(body["settings"]),
            control=_difference(body["control"]),
            change=checked_id(body["change"]),
            action=str(body["action"]),
            stood=bool(body["stood"]),
            until=until,
            heard={str(each) for each in body["heard"]},
        )


def shown(running: Running) -> Body:
    """Return how an experiment stands, JSON-ready."""
    ruling = running.trial.ruling()
    return {
        "name": running.trial.name,
        "state": ruling.state,
        "reason": ruling.reason,
        "settings": dict(running.settings),
        "change": running.change,
        "ruling": ruling.to_json(),
    }


def cut_short(row: Body) -> Body | None:
    """Return the end of an experiment that cannot go on; None: it can, or a newer version's can."""
    try:
        Running.from_json(row)
    except StoreTooNew:
        return None
    except UNREADABLE as wrong:
        return _without_figures(row, "undecided", wrong)
    return None


def _without_figures(row: Body, state: str, wrong: Exception) -> Body:
    settings = row.get("settings")
    return {
        "name": row["name"],
        "state": state,
        "reason": f"it cannot be taken up: {shorten(words(wrong))}",
        "settings": settings if isinstance(settings, dict) else {},
        "change": str(row.get("change", "")),
        "ruling": None,
    }


class TrialShelf:
    """The experiments in a store.

    Args:
        owner: The bus's own key among the snapshots.

    Attributes:
        over: Those that are over, the oldest first.
    """

    def __init__(self, store: Store, owner: str) -> None:
        self._store = store
        self._owner = owner
        self.over: list[Body] = []

    @property
    def pending(self) -> list[Body]:
        """Those whose verdict is ours to carry out."""
        return [each for each in self.over if each.get(PENDING) == self._owner]

    async def begin(self, name: str, running: Running) -> None:
        """Write down one that begins.

        Raises:
            ValueError: If another process has one of that name, and it can go on.
        """

        def work(body: Body) -> None:
            if (row := body["running"].pop(name, None)) is not None:
                if (end := cut_short(row)) is None:
                    raise ValueError(f"an experiment {name!r} runs already, in another process")
                _put_away(body, end)
            body["running"][name] = running.to_json() | {"owner": self._owner}

        await self._change(work)

    async def count(self, running: Mapping[str, Running]) -> None:
        """Write down what was counted; those that somebody else has ended are over."""
        rows = {name: each.to_json() for name, each in running.items()}
        for each in running.values():
            each.unwritten = 0

        def work(body: Body) -> None:
            there = body["running"]
            for name, row in rows.items():
                if there.get(name, {}).get("owner") == self._owner:
                    there[name] = row | {"owner": self._owner}

        await self._change(work)

    async def end(self, end: Mapping[str, object]) -> bool:
        """Claim the end of one; False: it has ended already, and somebody else acts on it."""
        name, claimed = str(end["name"]), False

        def work(body: Body) -> None:
            nonlocal claimed
            claimed = any(
                each["name"] == name and each.get(PENDING) == self._owner for each in body["over"]
            )
            if name in body["running"]:
                del body["running"][name]
                _put_away(body, {**end, PENDING: self._owner})
                claimed = True

        await self._change(work)
        return claimed

    async def carried_out(self, name: str) -> None:
        """Mark that the verdict of one was acted on."""

        def work(body: Body) -> None:
            for each in body["over"]:
                if each["name"] == name:
                    each.pop(PENDING, None)

        await self._change(work)

    async def recall(self) -> dict[str, Running]:
        """Take over those whose process is gone, and return them; what cannot go on is over.

        Raises:
            StoreTooNew: If a newer version wrote all of it; one such experiment is left alone.
        """
        alive = set()
        if self._store.shared:
            alive = {owner for owner, _, runs, _ in await self._store.snapshots() if runs}
        if await self._store.setting(NAME) is None:
            self.over = []
            return {}
        found: dict[str, Running] = {}
        left: list[str] = []

        def work(body: Body) -> None:
            found.clear()
            left.clear()
            for name, row in list(body["running"].items()):
                if row.get("owner") in alive:
                    continue
                try:
                    found[name] = Running.from_json(row)
                    row["owner"] = self._owner
                except StoreTooNew as newer:
                    left.append(f"experiment {name} is left alone: {newer}")
                except UNREADABLE as wrong:
                    end = _without_figures(body["running"].pop(name), "undecided", wrong)
                    left.append(f"experiment {name} is over: {end['reason']}")
                    _put_away(body, end)
            for each in body["over"]:
                if PENDING in each and each[PENDING] not in alive:
                    each[PENDING] = self._owner

        await self._change(work)
        for told in left:
            log.warning("%s", told)
        return found

    async def _change(self, work: Callable[[Body], None]) -> None:
        """Let `work` change what is kept; what cannot be read is set aside before."""
        damaged: list[str] = []

        def revise(kept: str | None) -> tuple[str, list[Body]]:
            damaged.clear()
            try:
                body, lost = _read(kept)
            except UNREADABLE as wrong:
                (body, _), lost = _read(None), words(wrong)
            if lost:
                log.warning("experiments cannot be read, kept as %s: %s", DAMAGED, lost)
                damaged.append(kept or "")
            work(body)
            return json.dumps({**body, "running": list(body["running"].values())}), body["over"]

        self.over = await self._store.revise(NAME, revise)
        if damaged:
            await self._store.keep_setting(DAMAGED, damaged[0])


async def read_experiments(store: Store) -> list[Body]:
    """Return every experiment that the store knows, those that are over first; change nothing.

    One that cannot go on is shown as it will end.

    Raises:
        ValueError: If they cannot be read.
        StoreTooNew: If a newer version wrote them.
    """
    try:
        body, lost = _read(await store.setting(NAME))
    except (TypeError, KeyError, AttributeError, RecursionError) as wrong:
        raise ValueError(f"the experiments in the store cannot be read: {wrong}") from None
    if lost:
        log.warning("experiments in the store cannot be read: %s", lost)
    return [*body["over"], *map(_shown_row, body["running"].values())]


def _shown_row(row: Body) -> Body:
    try:
        return shown(Running.from_json(row))
    except StoreTooNew as newer:
        return _without_figures(row, "running", newer)
    except UNREADABLE as wrong:
        return _without_figures(row, "undecided", wrong)


def _put_away(body: Body, end: Body) -> None:
    body["over"] = [*body["over"], end][-MOST_KEPT:]


def _read(kept: str | None) -> tuple[Body, str]:
    """Return what is kept, the running ones by name; and what could not be read of it, in words."""
    if not kept:
        return {"v": VERSION, "running": {}, "over": []}, ""
    body = json.loads(kept)
    if isinstance(body["v"], int) and body["v"] > VERSION:
        raise StoreTooNew(
            f"the experiments are of version {body['v']}, this zejzl reads {VERSION}: "
            "use the newer zejzl, or another ZEJZL_HOME"
        )
    running, over = _named(body["running"]), _named(body["over"])
    lost = len(body["running"]) + len(body["over"]) - len(running) - len(over)
    return (
        {"v": VERSION, "running": {row["name"]: row for row in running}, "over": over},
        f"{lost} without a name" if lost else "",
    )


def _named(rows: Iterable[object]) -> list[Body]:
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("name"), str)]


def _difference(settings: object) -> dict[str, object]:
    return checked_difference(settings) if settings else {}
