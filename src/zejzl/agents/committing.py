"""Putting files in place so that all of them are there in the end, or none.

    nothing ──(what was there is written down)──▶ begun ──(every file is in place)──▶ done
       ▲                                            │
       └──────────(what was there is put back)──────┘ undone

A process that dies on the way leaves "begun" behind: whoever comes next with the same work sees
from each file's digest whether it is in place already, and goes on.
"""

import asyncio
import base64
import errno
import hashlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, TypeVarTuple

from zejzl.agents.runs import Record, Runs
from zejzl.agents.workspace import LARGEST, Workspace
from zejzl.magic import FairyMagic

MOST_TRIES = 3  # of one file
PATIENCE = 10.0  # seconds to wait for somebody else who writes in this workspace
COMPONENT = "tool_call"

_PASSING = (errno.EAGAIN, errno.EBUSY, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Conflict(ValueError):
    """A file is no longer what it was when the work began, or the key belongs to other work."""


async def in_thread(fn: Callable[[*Ts], T], *arguments: *Ts) -> T:
    """Return what `fn` returns in a thread; wait for its end also when this is cancelled."""
    work = asyncio.ensure_future(asyncio.to_thread(fn, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await ended(work)
        raise


class Commit:
    """The files of one piece of work on their way into a workspace.

    Args:
        writes: Path → text.
    """

    def __init__(
        self,
        key: str,
        writes: Mapping[str, str],
        workspace: Workspace,
        runs: Runs,
        magic: FairyMagic,
    ) -> None:
        self._key = key
        self._texts = {path: text.encode() for path, text in writes.items()}
        self._digests = {path: _digest(text) for path, text in self._texts.items()}
        self._folders: list[str] = []  # that the work makes, the outermost first
        self._workspace = workspace
        self._runs = runs
        self._magic = magic

    async def run(self) -> bool:
        """Put the files in place; False where that was done before.

        Raises:
            Conflict: If the key belongs to other work, or somebody has changed a file since.
            OutOfBounds, OSError: If a file cannot be written. What was in place is put back.
            StoreError: If the journal cannot be written.
        """
        lock = await self._alone()
        try:
            begun = await self._begin()
            if begun is None:
                return False
            try:
                for path in self._texts:
                    await self._write(path, begun[path])
            except BaseException:
                await self._undo(begun)
                raise
            await self._done(begun)
            return True
        finally:
            self._workspace.unlock(lock)

    async def _done(self, begun: Mapping[str, bytes | None]) -> None:
        """Write down that all files are in place; whoever leaves meanwhile, it is written or not.

        Nothing is put back once it is: the journal and the folder say the same at all times.
        """
        written = asyncio.ensure_future(
            self._runs.change(self._key, lambda record: _enter(record, "done"))
        )
        left = await ended(written)
        if written.exception() is not None:
            await self._undo(begun)
        if left is not None:
            raise left
        await written

    async def _alone(self) -> int:
        """Return the workspace's lock."""
        # Not in one of the loop's own threads: who has the lock needs one of those to go on.
        thread, stop = ThreadPoolExecutor(1, "zejzl-workspace"), threading.Event()
        loop = asyncio.get_running_loop()
        taking = loop.run_in_executor(thread, self._workspace.lock, PATIENCE, stop)
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            stop.set()
            await ended(taking)
            if taking.exception() is None:
                self._workspace.unlock(taking.result())
            raise
        finally:
            thread.shutdown(wait=False)

    async def _begin(self) -> dict[str, bytes | None] | None:
        """Return what was at each path before the work began; None: the work is done."""
        present = await in_thread(self._present)
        folders = await in_thread(self._missing_folders)

        def enter(record: Record) -> dict[str, bytes | None] | None:
            kept = record.get("commit")
            if isinstance(kept, dict) and kept.get("state") in ("begun", "done"):
                if kept["digests"] != self._digests:
                    raise Conflict(f"key {self._key!r} belongs to work that writes other files")
                self._folders = kept.get("folders", [])
                return None if kept["state"] == "done" else _decoded(kept["before"])
            self._folders = folders
            record["commit"] = {
                "state": "begun",
                "digests": self._digests,
                "folders": folders,
                "before": {
                    path: None if content is None else base64.b64encode(content).decode()
                    for path, content in present.items()
                },
            }
            return present

        return await self._runs.change(self._key, enter)

    def _missing_folders(self) -> list[str]:
        return sorted(
            {each for path in self._texts for each in self._workspace.missing_folders(path)}
        )

    def _present(self) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        for path in self._texts:
            try:
                found[path] = self._workspace.read_bytes(path)
            except FileNotFoundError:
                found[path] = None
            except OSError as problem:
                if problem.errno == errno.EFBIG:
                    why = f"what is there has more than {LARGEST} bytes, and could not be put back"
                    raise OSError(errno.EFBIG, why, path) from None
                raise
        return found

    async def _write(self, path: str, before: bytes | None) -> None:
        for tries in range(1, MOST_TRIES + 1):
            try:
                await in_thread(self._put, path, before)
                return
            except OSError as failure:
                if failure.errno not in _PASSING or tries == MOST_TRIES:
                    raise
                if not await self._magic.auto_heal(COMPONENT, failure):
                    failure.add_note("not tried again: the retry budget or a breaker refused")
                    raise

    def _put(self, path: str, before: bytes | None) -> None:
        self._workspace.sweep(path)
        found = self._workspace.digest(path)
        if found == self._digests[path]:
            return  # in an earlier life of this work
        if found != (None if before is None else _digest(before)):
            raise Conflict(f"{path} was changed by somebody else since the work began")
        self._workspace.write_bytes(path, self._texts[path])

    async def _undo(self, before: Mapping[str, bytes | None]) -> None:
        """Put back what was there, as far as it is still what this work has put in place."""
        left = await in_thread(self._put_back, before)
        await self._runs.change(self._key, lambda record: _enter(record, "undone", left))

    def _put_back(self, before: Mapping[str, bytes | None]) -> list[str]:
        left = []
        for path, content in reversed([*before.items()]):
            try:
                if self._workspace.digest(path) != self._digests[path]:
                    continue
                if content is None:
                    self._workspace.remove(path)
                elif _digest(content) != self._digests[path]:
                    self._workspace.write_bytes(path, content)
            except (OSError, ValueError) as problem:
                left.append(f"{path}: {problem}")
        for folder in reversed(self._folders):
            self._workspace.remove_folder(folder)
        return left


def _enter(record: Record, state: str, left: list[str] | None = None) -> None:
    kept = record.get("commit")
    digests = kept.get("digests") if isinstance(kept, dict) else {}
    record["commit"] = {"state": state, "digests": digests, **({"left": left} if left else {})}


def _decoded(before: Mapping[str, str | None]) -> dict[str, bytes | None]:
    return {
        path: None if content is None else base64.b64decode(content)
        for path, content in before.items()
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def ended(work: "asyncio.Future[Any]") -> asyncio.CancelledError | None:
    """Wait for the end of `work`, however often one is cancelled; return the last of these."""
    left = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as leaving:
            left = leaving
    return left
