"""ExecutorAgent: commits validated work, once, and takes back what cannot be finished."""

from asyncio import Lock
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from uuid import uuid4
from weakref import WeakValueDictionary

from zejzl.agents.actor import as_workspace
from zejzl.agents.base import Agent, Bus
from zejzl.agents.committing import Commit
from zejzl.agents.runs import Runs, checked_key
from zejzl.agents.tools import NoWorkspace
from zejzl.agents.validator import writes_of
from zejzl.agents.workspace import ReadOnly, Workspace, checked_path
from zejzl.clock import Clock
from zejzl.errors import shorten, words
from zejzl.magic import FairyMagic


class ExecutorAgent(Agent):
    """Commits.

    Args:
        bus: Whose store keeps the journal; without one it is kept in memory.
        clock: Where time comes from.
        workspace: The folder that work is committed to.
        runs: The journal; default is one of its own.
    """

    name: ClassVar[str] = "executor"

    def __init__(
        self,
        bus: Bus | None = None,
        *,
        clock: Clock | None = None,
        workspace: Workspace | Path | str | None = None,
        runs: Runs | None = None,
    ) -> None:
        super().__init__(bus, clock=clock)
        self.workspace = as_workspace(workspace)
        self._magic = FairyMagic(clock=self._clock) if bus is None else bus.magic
        self._runs = runs or Runs(None if bus is None else bus.store)
        self._turn = Lock()  # so that only one thread waits for others in the workspace
        self._under_way: WeakValueDictionary[str, Lock] = WeakValueDictionary()

    async def execute(self, validation: Mapping[str, object]) -> dict[str, object]:
        """Commit what was validated; return task, status, key, committed, timestamp.

        `status` is "completed", or "failed" with an `error`; nothing is left half done then.
        Executed again under the same `key`, also after a crash and in another process, work that
        is committed is not committed again (`repeated`), and what was begun is finished.

        Args:
            validation: As a validator returns it.

        Raises:
            ValueError: If it is no validation.
            ReadOnly: If it wants files written and the workspace is only for reading; nothing was
                done, and the work can be committed elsewhere.
            StoreError: If the journal cannot be read or written.
        """
        if not isinstance(validation, Mapping) or "is_valid" not in validation:
            raise ValueError("a validation says is_valid; ValidatorAgent.validate makes one")
        key = checked_key(str(validation.get("key") or uuid4().hex))
        started = self._clock.now()
        result: dict[str, object] = {"task": _task(validation), "key": key, "committed": []}
        if validation["is_valid"] is True and validation.get("valid", True) is True:
            # Two of one key in this process: the second finds it done.
            async with self._under_way.setdefault(key, Lock()):
                result |= await self._commit(key, _writes(validation))
        else:
            notes = validation.get("notes")
            said = "; ".join(map(str, notes)) if isinstance(notes, list) else ""
            result |= {"status": "failed", "error": f"it is not valid: {shorten(said)}"}
        error = {"error": result["error"]} if "error" in result else {}
        await self._tell(
            "executor",
            result,
            conversation_id=key,
            id=f"{key}:executor",
            status=result["status"],
            duration_ms=round(1000 * (self._clock.now() - started), 3),
            **error,
        )
        return {**result, "timestamp": self._timestamp()}

    async def _commit(self, key: str, writes: Mapping[str, str]) -> dict[str, object]:
        """Return what came of it; what is wrong with the work is told, not raised."""
        try:
            if not writes:
                return {"status": "completed", "repeated": False}
            if self.workspace is None:
                raise NoWorkspace("there is no workspace: pass workspace=FOLDER to commit files")
            self.workspace.check_writable(", ".join(writes))
            texts = {checked_path(path): text for path, text in writes.items()}
            commit = Commit(key, texts, self.workspace, self._runs, self._magic)
            async with self._turn:
                new = await commit.run()
        except ReadOnly:
            raise
        except (OSError, ValueError) as problem:
            error = shorten(f"{type(problem).__name__}: {words(problem)}")
            return {"status": "failed", "error": error}
        return {"status": "completed", "committed": sorted(texts), "repeated": not new}


def _task(validation: Mapping[str, object]) -> str:
    summary = validation.get("execution_summary")
    return str(summary.get("task", "")) if isinstance(summary, Mapping) else ""


def _writes(validation: Mapping[str, object]) -> dict[str, str]:
    """Return path → text of all that the validated work wants written."""
    execution = validation.get("execution")
    results = execution.get("results") if isinstance(execution, Mapping) else None
    return {
        path: text
        for result in (results if isinstance(results, list) else [])
        if isinstance(result, Mapping) and result.get("status") == "done"
        for path, text in writes_of(result)
    }
