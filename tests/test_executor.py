"""The executor: all of the work is committed or none, once, whoever dies on the way."""

import asyncio
import base64
import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.driving import finished, make_bus
from zejzl.agents.executor import ExecutorAgent
from zejzl.agents.runs import INDEX, Record, Runs, RunTooLarge
from zejzl.agents.workspace import Workspace
from zejzl.errors import StoreError, StoreTooNew
from zejzl.stores import InMemoryStore, SqliteStore
from zejzl.testing import FakeClock

Document = dict[str, object]


def validation(key: str | None = "k", valid: bool = True, **writes: str) -> Document:
    """Return a validation of work that wants `writes`: name → text, with ".txt" behind it."""
    wanted = [{"path": f"{name}.txt", "text": text} for name, text in writes.items()]
    result = {"id": "a", "status": "done", "result": 1, "reach": ["files"], "writes": wanted}
    return {
        "execution_summary": {"task": "t"},
        "is_valid": valid,
        "valid": valid,
        "notes": [] if valid else ["a: no good"],
        "execution": {"results": [result]},
        "key": key,
    }


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


async def opened() -> InMemoryStore:
    store = InMemoryStore()
    await store.open()
    return store


def names_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def put(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)


async def test_validated_work_is_committed(tmp_path: Path) -> None:
    executor = ExecutorAgent(workspace=tmp_path)

    found = await executor.execute(validation(a="1", b="2"))

    assert contents(tmp_path) == {"a.txt": "1", "b.txt": "2"}
    assert (found["task"], found["status"]) == ("t", "completed")
    assert found["committed"] == ["a.txt", "b.txt"]
    assert found["timestamp"]
    assert "error" not in found


async def test_what_is_not_valid_is_not_committed(tmp_path: Path) -> None:
    executor = ExecutorAgent(workspace=tmp_path)

    found = await executor.execute(validation(valid=False, a="1"))
    half = await executor.execute({**validation(a="1"), "valid": False})

    assert (found["status"], found["error"]) == ("failed", "it is not valid: a: no good")
    assert half["status"] == "failed"
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("wrong", [None, {}, {"valid": True}, "x"])
async def test_what_is_no_validation_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="a validation says is_valid"):
        await ExecutorAgent().execute(wrong)  # type: ignore[arg-type]


async def test_work_without_files_needs_no_workspace_and_work_with_files_does() -> None:
    executor = ExecutorAgent()

    assert (await executor.execute(validation()))["status"] == "completed"
    found = await executor.execute(validation(a="1"))

    assert found["status"] == "failed"
    assert "pass workspace=FOLDER" in str(found["error"])


async def test_a_path_that_leads_out_is_refused_though_somebody_called_it_valid(
    tmp_path: Path,
) -> None:
    (tmp_path / "work").mkdir()
    executor = ExecutorAgent(workspace=tmp_path / "work")
    work = validation(a="1")
    work["execution"] = {
        "results": [
            {"status": "done", "writes": [{"path": "../../etc/cron.d/x", "text": "* * * * * id"}]}
        ]
    }

    found = await executor.execute(work)

    assert str(found["error"]).startswith("OutOfBounds")
    assert contents(tmp_path / "work") == {}


# Once ------------------------------------------------------------------------------------------


async def test_the_same_work_is_committed_once(tmp_path: Path) -> None:
    executor = ExecutorAgent(workspace=tmp_path)

    await executor.execute(validation(a="1"))
    put(tmp_path, a="changed since by its owner")
    again = await executor.execute(validation(a="1"))

    assert (again["status"], again["repeated"]) == ("completed", True)
    assert contents(tmp_path) == {"a.txt": "changed since by its owner"}


async def test_work_without_a_key_is_new_work_each_time(tmp_path: Path) -> None:
    executor = ExecutorAgent(workspace=tmp_path)

    for text in ("1", "2"):
        assert (await executor.execute(validation(None, a=text)))["status"] == "completed"

    assert contents(tmp_path) == {"a.txt": "2"}


async def test_a_key_belongs_to_one_piece_of_work(tmp_path: Path) -> None:
    executor = ExecutorAgent(workspace=tmp_path)
    await executor.execute(validation(a="1"))

    found = await executor.execute(validation(a="other"))

    assert "belongs to work that writes other files" in str(found["error"])
    assert contents(tmp_path) == {"a.txt": "1"}


async def test_many_at_once_commit_once(tmp_path: Path) -> None:
    store = await opened()
    executors = [ExecutorAgent(workspace=tmp_path, runs=Runs(store)) for _ in range(4)]

    found = await asyncio.gather(*(each.execute(validation(a="1")) for each in executors * 2))

    assert [each["status"] for each in found] == ["completed"] * 8
    assert sum(each["repeated"] is False for each in found) == 1


async def test_others_work_in_the_same_workspace_is_waited_for(tmp_path: Path) -> None:
    executor, others = ExecutorAgent(workspace=tmp_path), Workspace(tmp_path)
    lock = others.lock(1.0, threading.Event())

    work = asyncio.create_task(executor.execute(validation(a="1")))
    await asyncio.sleep(0.05)
    assert contents(tmp_path) == {}
    others.unlock(lock)

    assert (await work)["status"] == "completed"


async def test_who_is_cancelled_while_waiting_leaves_no_lock(tmp_path: Path) -> None:
    executor, others = ExecutorAgent(workspace=tmp_path), Workspace(tmp_path)
    lock = others.lock(1.0, threading.Event())

    work = asyncio.create_task(executor.execute(validation(a="1")))
    await asyncio.sleep(0.05)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    others.unlock(lock)

    others.unlock(others.lock(0.0, threading.Event()))
    assert contents(tmp_path) == {}


async def test_a_lock_that_comes_after_the_cancellation_is_given_back(tmp_path: Path) -> None:
    class Late(Workspace):
        def lock(self, patience: float, stop: threading.Event) -> int:
            stop.wait(10.0)
            return super().lock(patience, threading.Event())

    work = asyncio.create_task(ExecutorAgent(workspace=Late(tmp_path)).execute(validation(a="1")))
    await asyncio.sleep(0.05)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work

    others = Workspace(tmp_path)
    others.unlock(others.lock(0.0, threading.Event()))


# All or nothing --------------------------------------------------------------------------------


class Failing(Workspace):
    """A workspace on a disk that fails: at each write of a path, with the next of these errors."""

    def __init__(self, folder: Path, **failures: list[OSError | BaseException]) -> None:
        super().__init__(folder)
        self.failures = {f"{name}.txt": rest for name, rest in failures.items()}

    def write_bytes(self, path: str, content: bytes) -> None:
        if self.failures.get(path):
            raise self.failures[path].pop(0)
        super().write_bytes(path, content)


def broken(number: int) -> OSError:
    return OSError(number, "broken")


async def test_what_was_there_is_put_back_when_a_file_cannot_be_written(tmp_path: Path) -> None:
    put(tmp_path, a="old a")
    executor = ExecutorAgent(workspace=Failing(tmp_path, c=[broken(errno.ENOSPC)]))

    found = await executor.execute(validation(a="new a", b="new b", c="new c"))

    assert found["status"] == "failed"
    assert "broken" in str(found["error"])
    assert contents(tmp_path) == {"a.txt": "old a"}


async def test_folders_that_were_made_go_again_and_those_that_were_there_stay(
    tmp_path: Path,
) -> None:
    (tmp_path / "there").mkdir()
    workspace = Failing(tmp_path, z=[broken(errno.ENOSPC)])
    executor = ExecutorAgent(workspace=workspace)
    wanted = {"there/new/a": "1", "made/b": "2", "made/deep/c": "3", "z": "4"}

    found = await executor.execute(validation("k", True, **wanted))

    assert found["status"] == "failed"
    assert names_below(tmp_path) == ["there"]


async def test_a_made_folder_in_which_somebody_has_put_a_file_stays(tmp_path: Path) -> None:
    class Shared(Failing):
        def write_bytes(self, path: str, content: bytes) -> None:
            super().write_bytes(path, content)
            (tmp_path / "made" / "theirs.txt").write_text("theirs")

    executor = ExecutorAgent(workspace=Shared(tmp_path, z=[broken(errno.ENOSPC)]))

    await executor.execute(validation("k", True, **{"made/b": "2", "z": "4"}))

    assert names_below(tmp_path) == ["made", "theirs.txt"]


async def test_work_that_was_taken_back_can_be_done_again(tmp_path: Path) -> None:
    executor = ExecutorAgent(workspace=Failing(tmp_path, b=[broken(errno.ENOSPC)]))

    first = await executor.execute(validation(a="1", b="2"))
    again = await executor.execute(validation(a="1", b="2"))

    assert (first["status"], again["status"], again["repeated"]) == ("failed", "completed", False)
    assert contents(tmp_path) == {"a.txt": "1", "b.txt": "2"}


async def test_a_disk_that_fails_for_a_moment_is_tried_again_and_the_retry_budget_pays(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    workspace = Failing(tmp_path, a=[broken(errno.EIO), broken(errno.EBUSY)])
    executor = ExecutorAgent(workspace=workspace, clock=clock)
    executor._magic.probe("tool_call")(_well)

    task = asyncio.create_task(executor.execute(validation(a="1")))
    while not task.done():  # the work is done in threads, which know no fake clock
        await clock.advance(1.0)
        await asyncio.sleep(0.001)

    assert (await task)["status"] == "completed"
    assert executor._magic.energy_level < 100.0


async def _well() -> bool:
    return True


async def test_without_retry_budget_it_is_not_tried_again(tmp_path: Path) -> None:
    executor = ExecutorAgent(workspace=Failing(tmp_path, a=[broken(errno.EIO)]), clock=FakeClock())
    executor._magic.charge(100.0)

    found = await executor.execute(validation(a="1"))

    assert found["status"] == "failed"
    assert contents(tmp_path) == {}


async def test_a_cancellation_takes_back_what_was_committed(tmp_path: Path) -> None:
    put(tmp_path, a="old")
    executor = ExecutorAgent(workspace=Failing(tmp_path, b=[asyncio.CancelledError()]))

    with pytest.raises(asyncio.CancelledError):
        await executor.execute(validation(a="new", b="2"))

    assert contents(tmp_path) == {"a.txt": "old"}


async def test_a_file_that_somebody_changes_meanwhile_is_left_to_them(tmp_path: Path) -> None:
    put(tmp_path, a="old a", b="old b")

    class Shared(Workspace):
        def write_bytes(self, path: str, content: bytes) -> None:
            super().write_bytes(path, content)
            if path == "a.txt" and content == b"new a":
                put(tmp_path, b="theirs")

    executor = ExecutorAgent(workspace=Shared(tmp_path))

    found = await executor.execute(validation(a="new a", b="new b"))

    assert str(found["error"]).startswith("Conflict: b.txt was changed by somebody else")
    assert contents(tmp_path) == {"a.txt": "old a", "b.txt": "theirs"}


async def test_what_could_not_be_put_back_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 1_000_001)

    found = await ExecutorAgent(workspace=tmp_path).execute(validation(a="1"))

    assert "could not be put back" in str(found["error"])
    assert (tmp_path / "a.txt").stat().st_size == 1_000_001


async def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()

    found = await ExecutorAgent(workspace=tmp_path).execute(validation(a="1", b="2"))

    assert "no regular file" in str(found["error"])
    assert os.listdir(tmp_path) == ["a.txt"]


async def test_a_write_without_a_path_is_no_write(tmp_path: Path) -> None:
    work = validation()
    work["execution"] = {"results": [{"status": "done", "writes": [{"text": "x"}]}]}

    with pytest.raises(ValueError, match="has a path and a text"):
        await ExecutorAgent(workspace=tmp_path).execute(work)


async def test_what_cannot_be_put_back_is_told_in_the_journal(tmp_path: Path) -> None:
    put(tmp_path, a="old")
    runs = Runs()
    # The first write of a is well, putting it back is not.
    workspace = Failing(tmp_path, b=[broken(errno.ENOSPC)])
    writes = workspace.write_bytes

    def once(path: str, content: bytes) -> None:
        if content == b"old":
            raise broken(errno.EROFS)
        writes(path, content)

    workspace.write_bytes = once  # type: ignore[method-assign]
    await ExecutorAgent(workspace=workspace, runs=runs).execute(validation(a="new", b="2"))

    kept = await runs.load("k")
    assert kept is not None
    assert kept["commit"]["left"] == ["a.txt: [Errno 30] broken"]  # type: ignore[index]


# After a crash ---------------------------------------------------------------------------------


def begun(**before: str | None) -> Callable[[Record], None]:
    """Return what a process that died in the middle of a="new a", b="new b" has left behind."""

    def enter(record: Record) -> None:
        record["commit"] = {
            "state": "begun",
            "digests": {
                f"{name}.txt": hashlib.sha256(f"new {name}".encode()).hexdigest() for name in "ab"
            },
            "before": {
                f"{name}.txt": None if text is None else base64.b64encode(text.encode()).decode()
                for name, text in before.items()
            },
        }

    return enter


@pytest.mark.parametrize(
    "there",
    [{}, {"a": "new a"}, {"a": "new a", "b": "new b"}],
    ids=["nothing yet", "half of it", "all of it"],
)
async def test_what_a_process_that_died_had_begun_is_finished(
    tmp_path: Path, there: dict[str, str]
) -> None:
    store = SqliteStore(tmp_path / "z.db")
    await store.open()
    folder = tmp_path / "work"
    folder.mkdir()
    put(folder, **{"b": "old b", **there})
    (folder / ".a.txt.00112233.zejzl-part").write_text("new")
    await Runs(store).change("k", begun(a=None, b="old b"))

    executor = ExecutorAgent(workspace=folder, runs=Runs(store))
    found = await executor.execute(validation(a="new a", b="new b"))
    await store.close()

    assert found["status"] == "completed"
    assert contents(folder) == {"a.txt": "new a", "b.txt": "new b"}


async def test_what_is_finished_after_a_crash_can_still_be_taken_back(tmp_path: Path) -> None:
    runs = Runs()
    put(tmp_path, a="new a", b="old b")
    await runs.change("k", begun(a="old a", b="old b"))

    workspace = Failing(tmp_path, b=[broken(errno.ENOSPC)])
    found = await ExecutorAgent(workspace=workspace, runs=runs).execute(
        validation(a="new a", b="new b")
    )

    assert found["status"] == "failed"
    assert contents(tmp_path) == {"a.txt": "old a", "b.txt": "old b"}


# The journal -----------------------------------------------------------------------------------


@pytest.fixture(params=["alone", "in a store"])
async def runs(request: pytest.FixtureRequest) -> Runs:
    return Runs(await opened() if request.param == "in a store" else None, most=3)


def finish(record: Record) -> None:
    record["finished"] = True


def touch(record: Record) -> None:
    record["x"] = 1


async def test_what_is_kept_of_a_run_is_changed_in_place(runs: Runs) -> None:
    assert await runs.load("k") is None

    assert await runs.change("k", lambda record: record.setdefault("n", 1)) == 1
    await runs.change("k", touch)

    assert await runs.load("k") == {"n": 1, "x": 1}


async def test_only_so_many_runs_are_kept_and_those_that_may_go_on_stay(runs: Runs) -> None:
    for key, change in (("a", touch), ("b", finish), ("c", finish), ("d", touch), ("e", touch)):
        await runs.change(key, change)

    assert await runs.keys() == ["a", "d", "e"]
    assert await runs.load("a") is not None
    assert await runs.load("b") is None


async def test_what_is_too_much_is_not_kept(runs: Runs) -> None:
    await runs.change("k", touch)

    with pytest.raises(RunTooLarge):
        await runs.change("k", lambda record: record.update(much="x" * 16_000_001))

    assert await runs.load("k") == {"x": 1}


async def test_keys_of_any_printable_kind_are_kept_apart(runs: Runs) -> None:
    keys = ["a", "ä" * 100, "x" * 100]

    for key in keys:
        await runs.change(key, lambda record, key=key: record.update(key=key))  # type: ignore[misc]

    assert [(await runs.load(key) or {})["key"] for key in keys] == keys
    for wrong in ("", "x" * 201, "a\nb"):
        with pytest.raises(ValueError, match="a key is"):
            await runs.load(wrong)


async def test_a_damaged_run_is_told_and_a_damaged_index_begun_anew() -> None:
    store = await opened()
    runs = Runs(store)
    for key, body in {"bad": "{", "list": "[]", "old": "{}", "new": '{"v": 99}'}.items():
        await store.keep_setting(f"agents.run.{key}", body)

    for key in ("bad", "list", "old"):
        with pytest.raises(StoreError):
            await runs.load(key)
    with pytest.raises(StoreTooNew, match="version 99"):
        await runs.load("new")
    for damaged in ("{", "[]"):
        await store.keep_setting(INDEX, damaged)
        assert await runs.keys() == []


async def test_the_journal_of_a_bus_lies_in_its_store(tmp_path: Path) -> None:
    clock = FakeClock()

    async with make_bus(clock) as bus:
        inbox = await bus.subscribe("agents.executor")
        await finished(clock, ExecutorAgent(bus, workspace=tmp_path).execute(validation(a="1")))
        kept = json.loads(await bus.store.setting("agents.run.k") or "")
        told = json.loads((await inbox.get()).content)

    assert kept["commit"]["state"] == "done"
    assert (told["type"], told["status"]) == ("executor", "completed")


@pytest.mark.parametrize("gap", [1, 3, 10])
async def test_the_journal_and_the_folder_say_the_same_however_often_one_is_cancelled(
    tmp_path: Path, gap: int
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    store = SqliteStore(tmp_path / "z.db")
    await store.open()
    for steps in range(0, 60, 3):
        key = f"k{steps}"
        name = f"f{steps}"
        wanted = validation(key)
        wanted |= {"execution": validation(**{name: "new"})["execution"]}  # type: ignore[arg-type]
        executor = ExecutorAgent(workspace=folder, runs=Runs(store))
        task = asyncio.create_task(executor.execute(wanted))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        for _ in range(gap):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

        again = ExecutorAgent(workspace=folder, runs=Runs(store))
        assert (await again.execute(wanted))["status"] == "completed"
        assert (folder / f"{name}.txt").read_text() == "new"
    await store.close()
