"""What has been done of a piece of work, kept so that another process can go on with it.

Each run is one setting of the store, "agents.run.<key>", changed by `revise` alone: one change
after the other, over all processes. Only so many runs are kept; finished ones go first.
"""

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TypeVar

from zejzl.errors import StoreError, StoreTooNew
from zejzl.ports import Store

VERSION = 1
MOST_RUNS = 100  # kept; those that may go on stay beyond that
MOST_OPEN = 2_000  # that may go on
LONGEST_KEY = 200
LONGEST_RUN = 16_000_000  # characters of one run's JSON
PREFIX = "agents.run."
INDEX = "agents.runs"  # key → whether it is finished, oldest first

T = TypeVar("T")
Record = dict[str, object]


class RunTooLarge(ValueError):
    """What is to be kept of a run is more than a journal takes."""


def checked_key(key: object) -> str:
    """Return a run's key.

    Raises:
        ValueError: If it cannot be one.
    """
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or not key.isprintable():
        raise ValueError(f"a key is 1 to {LONGEST_KEY} printable characters, not {key!r:.80}")
    return key


class Runs:
    """The runs of a store; without one they are kept in memory.

    Args:
        store: Where they are kept.
        most: Runs that are kept.
    """

    def __init__(self, store: Store | None = None, *, most: int = MOST_RUNS) -> None:
        self._store = store
        self._most = most
        self._alone: dict[str, str] = {}

    async def load(self, key: str) -> Record | None:
        """Return what is kept of a run; None: nothing.

        Raises:
            StoreError: If it cannot be read, or a newer zejzl wrote it.
        """
        name = _name(key)
        kept = self._alone.get(name) if self._store is None else await self._store.setting(name)
        return None if kept is None else _read(kept, key)

    async def change(self, key: str, change: Callable[[Record], T]) -> T:
        """Let `change` alter what is kept of a run, in place, and return what it returns.

        Where nothing is kept it starts with an empty record, and the run becomes known. `change`
        may run in another thread.

        Raises:
            RunTooLarge: If that would be too much to keep; nothing was changed.
            StoreError: As `load`, or it cannot be written.
        """

        def revised(kept: str | None) -> tuple[str, tuple[bool, T]]:
            record = {} if kept is None else _read(kept, key)
            result = change(record)
            body = json.dumps({"v": VERSION, **record}, allow_nan=False)
            if len(body) > LONGEST_RUN:
                raise RunTooLarge(
                    f"run {key!r}: {len(body)} characters are to be kept, {LONGEST_RUN} may be"
                )
            return body, (bool(record.get("finished")), result)

        if await self.load(key) is None:
            await self._list(key, False)  # before it is there, or nobody would ever forget it
        finished, result = await self._revise(_name(key), revised)
        if finished:
            await self._list(key, True)
        return result

    async def keys(self) -> list[str]:
        """Return the keys of the runs that are kept, oldest first."""
        kept = self._alone.get(INDEX) if self._store is None else await self._store.setting(INDEX)
        return list(_index(kept))

    async def _list(self, key: str, finished: bool) -> None:
        """Enter a run into the index, and forget what is too much."""

        def entered(kept: str | None) -> tuple[str, list[str]]:
            index = _index(kept)
            index[key] = finished
            # The oldest that are finished; one that may go on only where there are far too many.
            done = [each for each in index if each != key and index[each]]
            gone = done[: max(0, len(index) - self._most)]
            may_go_on = [each for each in index if each != key and not index[each]]
            gone += may_go_on[: max(0, len(may_go_on) - MOST_OPEN)]
            return json.dumps({each: index[each] for each in index if each not in gone}), gone

        for old in await self._revise(INDEX, entered):
            if self._store is None:
                self._alone.pop(_name(old), None)
            else:
                await self._store.keep_setting(_name(old), None)

    async def _revise(self, name: str, change: Callable[[str | None], tuple[str, T]]) -> T:
        if self._store is not None:
            return await self._store.revise(name, change)
        self._alone[name], result = change(self._alone.get(name))
        return result


def _name(key: str) -> str:
    checked_key(key)
    short = key if len(key) <= 80 and key.isascii() else sha256(key.encode()).hexdigest()
    return f"{PREFIX}{short}"


def _read(kept: str, key: str) -> Record:
    try:
        body = json.loads(kept)
    except (ValueError, RecursionError) as problem:
        raise StoreError(f"what is kept of run {key!r} cannot be read: {problem}") from None
    version = body.pop("v", None) if isinstance(body, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise StoreTooNew(f"run {key!r} is of version {version}; this zejzl reads {VERSION}")
    if version != VERSION:
        raise StoreError(f"what is kept of run {key!r} is no run: use another key")
    assert isinstance(body, dict)
    return body


def _index(kept: str | None) -> dict[str, bool]:
    """Return the index; one that is damaged is begun anew, the runs themselves are still there."""
    try:
        body = json.loads(kept or "{}")
    except ValueError:
        return {}
    if not isinstance(body, Mapping):
        return {}
    return {str(key): bool(value) for key, value in body.items()}
