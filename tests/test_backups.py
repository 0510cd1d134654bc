"""A copy of the database is whole or absent, and putting one back loses nothing."""

import asyncio
import fcntl
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from zejzl.errors import StoreCorrupt, StoreError, StoreFull, StoreLocked, StoreTooNew
from zejzl.messages import Message
from zejzl.stores import SqliteStore
from zejzl.stores.arguments import stamp
from zejzl.stores.backups import back_up, backups, newest_good, restore, verify
from zejzl.stores.compaction import compactable, refuse_unless_compactable, vacuum
from zejzl.stores.examine import examine, size_of

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "zejzl.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def question(id: str) -> Message:
    return Message(id=id, content="q" * 500, timestamp=NOON, sender="ann", provider="claude")


@contextmanager
def in_use(path: Path) -> Iterator[Callable[[str], None]]:
    """Keep a store open for the length of a block; yield what has it accept a question."""
    store = SqliteStore(path)

    async def accept(id: str) -> None:
        await store.accept(question(id), "claude", "opus")

    with asyncio.Runner() as runner:
        runner.run(store.open())
        yield lambda id: runner.run(accept(id))
        runner.run(store.close())


def written(path: Path, *ids: str) -> None:
    """Have a store accept questions, and close it."""
    with in_use(path) as accept:
        for id in ids:
            accept(id)


def ids(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [id for (id,) in connection.execute("SELECT id FROM messages ORDER BY seq")]


def ask(path: Path, query: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(query)


def damaged(path: Path) -> bytes:
    """Write over the middle of a file; return what it is then."""
    content = bytearray(path.read_bytes())
    content[100:6000] = b"\xa5" * 5900
    path.write_bytes(content)
    return bytes(content)


# Making one ----------------------------------------------------------------------------------


def test_a_backup_holds_what_an_open_store_has_committed(path: Path, folder: Path) -> None:
    with in_use(path) as accept:
        accept("1")
        made = back_up(path, folder, at=NOON)
        accept("2")

    assert made.path == folder / "zejzl-20261122T120000.000000Z.db"
    assert ids(made.path) == ["1"]
    assert verify(made.path).schema == made.schema == 4


def test_a_backup_is_for_its_owner_only_and_its_digest_is_as_sha256sum_wants_it(
    path: Path, folder: Path
) -> None:
    written(path, "1")

    made = back_up(path, folder, at=NOON)

    beside = made.path.with_name(f"{made.path.name}.sha256")
    digest = sha256(made.path.read_bytes()).hexdigest()
    assert beside.read_text() == f"{digest}  {made.path.name}\n"
    assert (made.sha256, made.bytes) == (digest, made.path.stat().st_size)
    assert {stat.S_IMODE(each.stat().st_mode) for each in (made.path, beside)} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_last_backups_stay_and_older_ones_go(path: Path, folder: Path) -> None:
    written(path, "1")
    for hour in range(3):
        back_up(path, folder, at=NOON + timedelta(hours=hour), keep=2)

    assert [each.name for each in backups(folder)] == [
        "zejzl-20261122T140000.000000Z.db",
        "zejzl-20261122T130000.000000Z.db",
    ]
    assert len(list(folder.glob("*.sha256"))) == 2
    with pytest.raises(ValueError, match="at least one backup"):
        back_up(path, folder, at=NOON, keep=0)


def test_a_damaged_database_is_not_backed_up_and_costs_no_older_backup(
    path: Path, folder: Path
) -> None:
    written(path, "1")
    good = back_up(path, folder, at=NOON, keep=1)
    damaged(path)

    with pytest.raises(StoreCorrupt):
        back_up(path, folder, at=NOON + timedelta(hours=1), keep=1)

    assert backups(folder) == [good.path]
    assert not list(folder.glob("*.part"))


def test_what_a_killed_backup_left_is_cleared_by_the_next(path: Path, folder: Path) -> None:
    written(path, "1")
    folder.mkdir()
    (folder / "zejzl-20261122T110000.000000Z.part").write_text("half")
    (folder / "zejzl-20261122T110000.000000Z.db.sha256").write_text("lone")
    (folder / "notes.txt").write_text("not ours")

    made = back_up(path, folder, at=NOON)

    assert backups(folder) == [made.path]
    assert sorted(each.name for each in folder.iterdir()) == [
        ".lock",
        "notes.txt",
        made.path.name,
        f"{made.path.name}.sha256",
    ]


def test_two_backups_into_one_folder_do_not_meet(path: Path, folder: Path) -> None:
    written(path, "1")
    folder.mkdir()
    other = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(other, fcntl.LOCK_EX)

    with pytest.raises(StoreLocked, match="under way"):
        back_up(path, folder, at=NOON)
    os.close(other)

    assert back_up(path, folder, at=NOON).path.exists()


def test_no_database_is_no_backup(path: Path, folder: Path) -> None:
    with pytest.raises(StoreError, match="there is no database"):
        back_up(path, folder, at=NOON)

    assert backups(folder) == []


def test_a_folder_that_cannot_be_made_is_told(path: Path, tmp_path: Path) -> None:
    written(path, "1")
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="cannot be opened"):
        back_up(path, tmp_path / "file" / "backups", at=NOON)


# Looking at one ------------------------------------------------------------------------------


def test_a_backup_that_was_changed_is_told_by_its_digest(path: Path, folder: Path) -> None:
    written(path, "1")
    made = back_up(path, folder, at=NOON)
    ask(made.path, "DELETE FROM messages")

    with pytest.raises(StoreCorrupt, match="SHA-256 differs"):
        verify(made.path)


def test_a_damaged_copy_without_a_digest_is_told_too(path: Path, tmp_path: Path) -> None:
    written(path, "1")
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    ask(copy, "DELETE FROM messages")  # and not their attempts

    with pytest.raises(StoreCorrupt, match="is damaged: row"):
        verify(copy)


def test_the_newest_whole_backup_is_found_past_damaged_ones(path: Path, folder: Path) -> None:
    written(path, "1")
    made = [back_up(path, folder, at=NOON + timedelta(hours=hour)) for hour in range(3)]
    damaged(made[2].path)

    found, wrong = newest_good(folder)

    assert found is not None
    assert found.path == made[1].path
    assert [type(each) for each in wrong] == [StoreCorrupt]
    assert newest_good(folder / "none") == (None, [])


# Putting one back ----------------------------------------------------------------------------


def test_a_restored_database_is_what_the_backup_holds_and_the_old_one_stays(
    path: Path, folder: Path
) -> None:
    written(path, "1")
    made = back_up(path, folder, at=NOON)
    written(path, "2")
    content = damaged(path)

    done = restore(made.path, path, at=NOON + timedelta(hours=1))

    assert ids(path) == ["1"]
    assert done.kept == path.with_name("zejzl.db.replaced-20261122T130000.000000Z")
    assert done.kept.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert examine(path).problems == ()


def test_a_restored_database_never_meets_the_log_of_the_old_one(path: Path, folder: Path) -> None:
    written(path, "1")
    made = back_up(path, folder, at=NOON)
    # Killed with its writes in the log only.
    code = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute(\"INSERT INTO settings VALUES ('a', 'b')\"); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    log = path.with_name("zejzl.db-wal")
    assert killed.returncode == -signal.SIGKILL
    assert log.stat().st_size > 0

    done = restore(made.path, path, at=NOON)

    assert not log.exists()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM settings").fetchall() == []
    assert done.kept is not None
    with closing(sqlite3.connect(done.kept)) as connection:  # which has its log beside it
        assert connection.execute("SELECT * FROM settings").fetchall() == [("a", "b")]


def test_nothing_is_restored_under_a_running_bus(path: Path, folder: Path) -> None:
    written(path, "1")
    made = back_up(path, folder, at=NOON)

    with in_use(path) as accept:
        with pytest.raises(StoreLocked, match=r"is in use \(1 open\)"):
            restore(made.path, path, at=NOON)
        accept("2")

    assert ids(path) == ["1", "2"]


def test_a_damaged_backup_is_not_put_back(path: Path, folder: Path) -> None:
    written(path, "1")
    made = back_up(path, folder, at=NOON)
    damaged(made.path)

    with pytest.raises(StoreCorrupt):
        restore(made.path, path, at=NOON)

    assert ids(path) == ["1"]
    assert not list(path.parent.glob("*.re*"))


@pytest.mark.parametrize("pragma", ["user_version = 99", "application_id = 7"])
def test_a_backup_of_a_newer_or_another_program_is_not_put_back(
    pragma: str, path: Path, tmp_path: Path
) -> None:
    written(path, "1")
    other = tmp_path / "other.db"
    other.write_bytes(path.read_bytes())
    ask(other, f"PRAGMA {pragma}")

    with pytest.raises(StoreTooNew if "99" in pragma else StoreError):
        restore(other, path, at=NOON)

    assert ids(path) == ["1"]


def test_a_backup_is_put_where_nothing_is_and_through_a_link(
    path: Path, folder: Path, tmp_path: Path
) -> None:
    written(path, "1")
    made = back_up(path, folder, at=NOON)
    elsewhere = tmp_path / "elsewhere" / "zejzl.db"
    link = tmp_path / "linked" / "zejzl.db"
    link.parent.mkdir()
    link.symlink_to(path)

    first = restore(made.path, elsewhere, at=NOON)
    second = restore(made.path, link, at=NOON)

    assert (first.kept, ids(elsewhere)) == (None, ["1"])
    assert link.is_symlink()
    assert second.kept is not None
    assert second.kept.parent == path.parent
    elsewhere.unlink()
    elsewhere.mkdir()
    with pytest.raises(StoreError, match="is a folder"):
        restore(made.path, elsewhere, at=NOON)


def test_the_old_database_is_kept_where_files_cannot_have_two_names(
    path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(path, "1")
    made = back_up(path, folder, at=NOON)
    written(path, "2")

    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    done = restore(made.path, path, at=NOON)

    assert done.kept is not None
    assert (ids(path), ids(done.kept)) == (["1"], ["1", "2"])


# Examining and compacting --------------------------------------------------------------------


def test_an_examined_database_is_left_as_it_is_damaged_or_not(path: Path) -> None:
    written(path, "1")
    before = path.read_bytes()

    whole = examine(path)
    unchanged = path.read_bytes() == before
    content = damaged(path)
    broken = examine(path)

    assert (whole.problems, whole.schema, whole.known_schema) == ((), 4, 4)
    assert unchanged
    assert broken.problems
    assert (whole.damaged, broken.damaged) == (False, True)
    assert path.read_bytes() == content


def test_an_examined_database_tells_who_has_it_open(path: Path) -> None:
    with in_use(path):
        during = examine(path).open_stores

    assert (during, examine(path).open_stores) == (1, 0)


@pytest.mark.parametrize(
    ("pragma", "problem"),
    [
        ("user_version = 99", "has schema 99, this zejzl knows 4"),
        ("application_id = 7", "is not a zejzl database"),
    ],
)
def test_a_database_that_is_not_for_this_zejzl_is_a_problem(
    path: Path, pragma: str, problem: str
) -> None:
    written(path)
    ask(path, f"PRAGMA {pragma}")

    found = examine(path)

    assert problem in found.problems[0]
    assert not found.damaged


def test_an_older_database_is_judged_by_what_it_can_hold(path: Path) -> None:
    first = Path(__file__).parents[1] / "src/zejzl/stores/schema/001_first.sql"
    written(path)
    pragmas = "PRAGMA application_id = 0x7A656A7A; PRAGMA user_version = 1"
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{first.read_text()}; {pragmas}")

    found = examine(path)

    assert (found.problems, found.schema) == ((), 1)


def test_what_is_no_database_is_a_problem_and_what_is_not_there_an_error(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("no database " * 500)

    assert "not a database" in examine(path).problems[0]
    with pytest.raises(StoreError):
        examine(path.with_name("none.db"))


def test_compacting_gives_the_room_of_deleted_rows_back(path: Path) -> None:
    written(path, *map(str, range(400)))
    ask(path, "UPDATE messages SET state = 'settled', settled_at = '2026', error = 'x'")
    plan = compactable(path, before=NOON + timedelta(days=1))
    ask(path, "DELETE FROM attempts")
    ask(path, "DELETE FROM messages")
    empty = compactable(path, before=None)
    before = size_of(path)

    refuse_unless_compactable(path)
    vacuum(path)

    assert (plan.old, empty.old) == (400, 0)
    assert empty.free > 200_000
    assert size_of(path) <= before - empty.free
    assert examine(path).problems == ()


def test_old_events_are_counted_among_what_compacting_deletes(path: Path) -> None:
    written(path)
    ask(path, f"INSERT INTO events (type, at, body) VALUES ('x', '{stamp(NOON)}', '{{}}')")

    old = [compactable(path, before=NOON + timedelta(seconds=side)).old for side in (-1, 1)]

    assert old == [0, 1]


def test_compacting_is_refused_where_the_disk_lacks_room_or_a_bus_runs(path: Path) -> None:
    written(path, "1")
    size = size_of(path)

    with pytest.raises(StoreFull, match="Nothing was changed"):
        refuse_unless_compactable(path, room=lambda _: 2 * size - 1)
    refuse_unless_compactable(path, room=lambda _: 2 * size)
    with in_use(path), pytest.raises(StoreLocked, match="stop the bus"):
        refuse_unless_compactable(path)
