"""`zejzl store …` says what it found, does what it says, and leaves alone what it must."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.shell import STEERING, Shell
from zejzl.messages import Attempt, Message
from zejzl.stores import SqliteStore

OLD = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    made = Shell(tmp_path, monkeypatch, capsys)
    yield made
    made.end()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "zejzl.db"


def written(path: Path, *ids: str) -> None:
    """Have a store settle questions of long ago."""

    async def write() -> None:
        store = SqliteStore(path)
        await store.open()
        for id in ids:
            asked = Message(
                id=id, content="q" * 2000, timestamp=OLD, sender="a", provider="claude", error="no"
            )
            await store.accept(asked, "claude", "opus")
            await store.settle(asked, [Attempt("claude", "opus", "failed", 0.1)])
        await store.close()

    asyncio.run(write())


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM messages").fetchone()[0])


def contents(folder: Path) -> dict[Path, bytes]:
    """Return what is in a folder's files; SQLite's own empty log and its index do not count."""
    found = [each for each in folder.rglob("*") if each.is_file()]
    return {
        each: each.read_bytes()
        for each in found
        if not each.name.endswith("-shm") and (not each.name.endswith("-wal") or each.read_bytes())
    }


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xa5" * 8000 + content[8100:])


def test_a_whole_database_is_well_and_a_damaged_one_unhealthy(shell: Shell, path: Path) -> None:
    none = shell("store", "check", "--json")
    written(path, "1")
    whole = shell("store", "check", "--json")
    said = shell("store", "check")
    damage(path)
    broken = shell("store", "check", "--json")
    told = shell("store", "check")

    assert (none.code, none.json["exists"], path.exists()) == (0, False, True)
    assert (whole.code, whole.json["problems"], whole.json["schema"]) == (0, [], 4)
    assert "is whole" in said.out
    assert (broken.code, told.code) == (3, 3)
    assert broken.json["problems"]
    assert "store restore" in told.out


def test_a_look_at_no_database_makes_none(shell: Shell, path: Path) -> None:
    for words in (["check"], ["backup", "--list"], ["backup"], ["compact"], ["restore"]):
        shell("store", *words)

    assert not path.parent.exists()


def test_a_backup_is_made_listed_and_put_back(shell: Shell, path: Path) -> None:
    written(path, "1")
    made = shell("store", "backup", "--json")
    written(path, "2")
    damage(path)

    listed = shell("store", "backup", "--list", "--json")
    done = shell("store", "restore", "--json")

    backup = path.parent / "backups" / Path(made.json["path"]).name
    assert (made.code, made.json["schema"]) == (0, 4)
    assert [each["path"] for each in listed.json] == [str(backup)]
    assert (done.code, done.json["backup"]) == (0, str(backup))
    assert Path(done.json["kept"]).exists()
    assert count(path) == 1
    assert shell("store", "check").code == 0


def test_backups_go_where_they_are_sent_and_the_last_stay(
    shell: Shell, path: Path, tmp_path: Path
) -> None:
    written(path, "1")
    folder = tmp_path / "elsewhere"

    for _ in range(3):
        done = shell("store", "backup", "--folder", str(folder), "--keep", "2")

    assert "removed, as older than those kept: 1" in done.out
    assert len(list(folder.glob("*.db"))) == 2
    assert "elsewhere" in shell("store", "backup", "--list", "--folder", str(folder)).out
    assert shell("store", "backup", "--keep", "0").code == 2


def test_a_dry_run_tells_and_changes_nothing(shell: Shell, path: Path) -> None:
    written(path, "1")
    shell("store", "backup")
    written(path, "2")
    before = contents(path.parent)

    planned = shell("store", "backup", "--keep", "1", "--dry-run")
    said = [shell("store", what, "--dry-run") for what in ("restore", "compact")]

    assert {done.code for done in (planned, *said)} == {0}
    assert "would remove" in planned.out
    assert "would put" in said[0].out
    assert "would delete 2 old" in said[1].out
    assert contents(path.parent) == before


def test_a_file_can_be_named_and_a_damaged_one_is_refused(
    shell: Shell, path: Path, tmp_path: Path
) -> None:
    written(path, "1")
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    written(path, "2")

    back = shell("store", "restore", str(copy))
    damage(copy)
    refused = shell("store", "restore", str(copy), "--json")

    assert (back.code, count(path)) == (0, 1)
    assert "what was there is kept" in back.out
    assert (refused.code, refused.json["error"]["type"]) == (1, "StoreCorrupt")
    assert shell("store", "restore", "none.db").code == 1


def test_damaged_backups_are_passed_over_and_none_is_told(shell: Shell, path: Path) -> None:
    written(path, "1")
    nothing = shell("store", "restore")
    shell("store", "backup")
    newest = shell("store", "backup", "--json")
    damage(Path(newest.json["path"]))

    done = shell("store", "restore")
    for backup in (path.parent / "backups").glob("*.db"):
        damage(backup)
    bad = shell("store", "restore")

    assert (nothing.code, done.code, bad.code) == (1, 0, 1)
    assert "nothing to go back to" in nothing.err
    assert "passed over" in done.err
    assert "does not hold a backup that is whole" in bad.err


def test_nothing_is_restored_or_compacted_under_a_running_bus(shell: Shell, path: Path) -> None:
    written(path, "1")
    shell("store", "backup")

    async def run() -> list[int]:
        store = SqliteStore(path)
        await store.open()
        words = ("restore", "compact", "backup")
        done = [await asyncio.to_thread(shell, "store", word) for word in words]
        await store.close()
        return [each.code for each in done]

    assert asyncio.run(run()) == [1, 1, 0]


def test_compacting_deletes_what_is_old_and_says_what_was_saved(shell: Shell, path: Path) -> None:
    written(path, *map(str, range(200)))
    before = path.stat().st_size

    done = shell("store", "compact", "--json")

    assert (done.code, done.json["rows_deleted"], count(path)) == (0, 200, 0)
    assert done.json["bytes_saved"] > 200_000
    assert done.json["bytes_after"] == path.stat().st_size < before


def test_compacting_keeps_everything_where_retention_is_off(shell: Shell, path: Path) -> None:
    written(path, "1")
    shell.set(ZEJZL_RETENTION_DAYS="none")

    done = shell("store", "compact")

    assert (done.code, count(path)) == (0, 1)
    assert "0 old rows deleted" in done.out


def test_an_unknown_subcommand_names_the_nearest(shell: Shell) -> None:
    done = shell("store", "bakup")

    assert done.code == 2
    assert "backup" in done.err
    assert shell("store").code == 2


def test_no_name_of_a_file_steers_the_terminal(shell: Shell, path: Path, tmp_path: Path) -> None:
    written(path, "1")
    folder = tmp_path / "back\x1b[31mups"

    done = [
        shell("store", "backup", "--folder", str(folder)),
        shell("store", "backup", "--folder", str(folder), "--list"),
        shell("store", "restore", "--folder", str(folder)),
    ]

    assert [each.code for each in done] == [0, 0, 0]
    assert not any(STEERING.search(each.out + each.err) for each in done)


def test_a_folder_that_is_out_of_reach_is_told(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shell.set(ZEJZL_HOME=str(tmp_path / "file" / "home"))

    done = [shell("store", word) for word in ("check", "backup", "compact")]

    assert {each.code for each in done} <= {0, 1}
    assert all("Traceback" not in each.err for each in done)
