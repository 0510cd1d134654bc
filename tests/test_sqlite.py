"""What only a file can do wrong: full, locked, read-only, damaged, newer, shared, abandoned."""

import asyncio
import json
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from zejzl.errors import (
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreTooNew,
)
from zejzl.events import BudgetRestored
from zejzl.messages import Attempt, Message
from zejzl.stores import SqliteStore
from zejzl.stores import statements as sql
from zejzl.stores.connection import APPLICATION_ID

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
OK = Attempt("claude", "opus", "ok", 0.25)
SRC = Path(__file__).parents[1] / "src"

# What every child process begins with; its arguments are the database and what the test gives.
CHILD = """
import asyncio, os, select, sys
from datetime import UTC, datetime
from zejzl.errors import StoreError
from zejzl.messages import Attempt, Message
from zejzl.stores import SqliteStore

path = sys.argv[1]

def question(id, conversation_id="c"):
    return Message(id=id, content="q", timestamp=datetime(2026, 11, 22, 12, tzinfo=UTC),
                   sender="ann", provider="claude", conversation_id=conversation_id)

def say(*words):
    print(*words, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "zejzl.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, busy_timeout=0.05)
    await store.open()
    yield store
    await store.close()


@contextmanager
def child(path: Path, script: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run `script` in a process that is killed at the end, if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CHILD + textwrap.dedent(script), path, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: "subprocess.Popen[str]") -> str:
    """Return what the child says next."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def question(id: str, conversation_id: str | None = "c", content: str = "q") -> Message:
    return Message(
        id=id,
        content=content,
        timestamp=NOON,
        sender="ann",
        provider="claude",
        conversation_id=conversation_id,
    )


def answer(message: Message) -> Message:
    return message.answered("a", "claude", 0.5)


async def open_store(path: Path, busy_timeout: float = 5.0) -> SqliteStore:
    store = SqliteStore(path, busy_timeout=busy_timeout)
    await store.open()
    return store


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    """Ask the file behind the store's back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def folder(path: Path) -> Path:
    """A folder where the database should be."""
    path.mkdir(parents=True)
    return path


@pytest.fixture
def garbage(path: Path) -> Path:
    """Something else where the database should be."""
    path.parent.mkdir()
    path.write_bytes(b"garbage" * 1_000)
    return path


def content(path: Path) -> bytes:
    return path.read_bytes()


# The file


def test_making_a_store_touches_nothing(path: Path) -> None:
    SqliteStore(path)

    assert not path.parent.exists()


async def test_only_its_user_may_read_what_is_stored(store: SqliteStore, path: Path) -> None:
    await store.accept(question("1"), "claude", "opus")

    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert modes == {
        "zejzl.db": 0o600,
        "zejzl.db-shm": 0o600,
        "zejzl.db-wal": 0o600,
        "zejzl.db.owners": 0o700,
    }


async def test_a_closed_store_leaves_one_file(store: SqliteStore, path: Path) -> None:
    await store.accept(question("1"), "claude", "opus")

    await store.close()

    assert sorted(p.name for p in path.parent.iterdir()) == ["zejzl.db", "zejzl.db.owners"]
    assert list(path.with_name("zejzl.db.owners").iterdir()) == []


@pytest.mark.parametrize("name", ["a b?c#d%20e.db", ":memory:", "žluťoučký.db", "file:x?mode=ro"])
async def test_any_file_name_is_a_file_name(tmp_path: Path, name: str) -> None:
    store = await open_store(tmp_path / name)
    await store.accept(question("1"), "claude", "opus")
    await store.close()

    assert query(tmp_path / name, "SELECT id FROM messages") == [("1",)]


async def test_a_store_stays_where_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("zejzl.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    await store.open()
    await store.close()

    assert (tmp_path / "zejzl.db").exists()


@pytest.mark.parametrize(("durability", "level"), [("normal", 1), ("full", 2)])
async def test_durability_is_sqlites_own(path: Path, durability: str, level: int) -> None:
    store = SqliteStore(path, durability=durability)  # type: ignore[arg-type]
    await store.open()

    found = [await pragma(store, "synchronous"), await pragma(store, "journal_mode")]
    await store.close()

    assert found == [level, "wal"]


def test_an_unknown_durability_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="normal or full, not 'extra'"):
        SqliteStore(path, durability="extra")  # type: ignore[arg-type]


async def pragma(store: SqliteStore, setting: str) -> object:
    """Ask the writing connection, which only its own queue can reach."""

    def work(connection: sqlite3.Connection) -> object:
        return connection.execute(f"PRAGMA {setting}").fetchone()[0]

    return await store._database.write(work)


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (sql.FIND, "sqlite_autoindex_messages_1"),
        (sql.ATTEMPTS, "sqlite_autoindex_messages_1"),
        (sql.NEXT_TURN, "messages_turn"),
        (sql.HISTORY, "messages_turn"),
        (sql.NEWEST_OF_ONE, "messages_conversation"),
        (sql.OWNERS, "messages_state"),
        (sql.ORPHANS, "messages_state"),
        (sql.CLAIM, "messages_state"),
        (sql.PRUNE_MESSAGES, "messages_state"),
        (sql.PRUNE_EVENTS, "events_at"),
        (sql.WAITING_COMMANDS, "commands_waiting"),
        (sql.TAKE_COMMANDS, "commands_waiting"),
        (sql.PRUNE_COMMANDS, "commands_at"),
        (f"{sql.EVENTS} WHERE type = ? ORDER BY seq DESC LIMIT ?", "events_type"),
    ],
)
async def test_no_statement_reads_a_whole_table(
    store: SqliteStore, path: Path, statement: str, index: str
) -> None:
    rows = query(path, f"EXPLAIN QUERY PLAN {statement.replace('?', '1')}")
    plan = " / ".join(str(row[3]) for row in rows)

    assert f"USING INDEX {index}" in plan or f"USING COVERING INDEX {index}" in plan
    assert not any(f"SCAN {table}" in plan for table in ("messages", "events", "commands"))


# Full, locked, read-only, failing


async def test_on_a_full_disk_nothing_is_half_written(store: SqliteStore) -> None:
    pages = await pragma(store, "page_count")
    await pragma(store, f"max_page_count = {pages}")
    big = [question(str(n), content="x" * 100_000) for n in range(3)]

    writes = [store.accept(message, "claude", "opus") for message in big]
    writes.append(store.keep_setting("small", "but of the same group"))
    results = await asyncio.gather(*writes, return_exceptions=True)

    assert {type(result) for result in results} == {StoreFull}
    assert len({id(result) for result in results}) == 4  # an error each
    assert "free some space" in str(results[0]) and str(store.path) in str(results[0])
    assert await store.messages() == []
    assert await store.setting("small") is None


async def test_a_disk_that_has_room_again_is_used_again(store: SqliteStore) -> None:
    pages = await pragma(store, "page_count")
    await pragma(store, f"max_page_count = {pages}")
    with pytest.raises(StoreFull):
        await store.accept(question("1", content="x" * 100_000), "claude", "opus")

    await pragma(store, "max_page_count = 1000000")
    await store.accept(question("1", content="x" * 100_000), "claude", "opus")

    assert await store.check() == []


async def test_a_file_that_may_not_grow_is_a_store_error(path: Path) -> None:
    script = """
        import resource

        async def main():
            store = SqliteStore(path)
            await store.open()
            await store.accept(question("1"), "claude", "opus")
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
            try:
                for n in range(2, 1_000):
                    await store.accept(question(str(n)), "claude", "opus")
            except StoreError as error:
                say(type(error).__name__, n)
                say(error)
            say(len(await store.messages(limit=2_000)))
            await store.close()

        asyncio.run(main())
    """
    with child(path, script) as process:
        name, failed = line(process).split()
        message, kept = line(process), line(process)

        assert name in ("StoreError", "StoreFull")
        assert "nothing was written" in message and str(path) in message
        assert int(kept) == int(failed) - 1
        assert process.wait() == 0


async def test_a_file_that_another_holds_is_locked(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        writes = [store.accept(question(str(n)), "claude", "opus") for n in range(3)]
        results = await asyncio.gather(*writes, return_exceptions=True)

    await store.accept(question("later"), "claude", "opus")

    assert [type(result) for result in results] == [StoreLocked] * 3
    assert "another process holds it" in str(results[0])
    assert [m.id for m in await store.messages()] == ["later"]


async def test_a_writer_waits_for_one_who_lets_go_in_time(path: Path) -> None:
    store = await open_store(path, busy_timeout=10.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        write = asyncio.ensure_future(store.accept(question("1"), "claude", "opus"))
        done, _ = await asyncio.wait([write], timeout=0.1)
        other.execute("COMMIT")
        await write
    await store.close()

    assert not done


async def test_reading_does_not_wait_for_a_writer(store: SqliteStore, path: Path) -> None:
    await store.accept(question("1"), "claude", "opus")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")

        assert [m.id for m in await store.messages()] == ["1"]


async def test_a_folder_is_no_database(folder: Path) -> None:
    with pytest.raises(StoreReadOnly, match=r"zejzl\.db cannot be opened: Is a directory"):
        await open_store(folder)


async def test_a_file_is_no_folder(path: Path) -> None:
    path.parent.write_text("")

    with pytest.raises(StoreReadOnly, match="cannot be opened: File exists"):
        await open_store(path)


@pytest.mark.parametrize("what", ["folder", "file", "neither there"])
async def test_no_permission_is_said_with_the_path(what: str) -> None:
    script = """
        async def main():
            if os.getuid() == 0:
                os.setuid(65534)  # root may do anything
            store = SqliteStore(path)
            try:
                await store.open()
            except StoreError as error:
                say(type(error).__name__)
                say(error)
            await store.close()

        asyncio.run(main())
    """
    with tempfile.TemporaryDirectory() as name:  # pytest's own is closed to others altogether
        path = Path(name) / "zejzl.db"
        if what != "neither there":
            await (await open_store(path)).close()
        path.parent.chmod(0o555)
        if what != "neither there":
            path.chmod(0o444 if what == "folder" else 0o000)

        with child(path, script) as process:
            kind, message = line(process), line(process)

            assert kind == "StoreReadOnly"
            assert str(path) in message and "belong to this user" in message
            assert process.wait() == 0
        path.parent.chmod(0o755)


async def test_a_store_that_could_not_be_opened_can_be_later(folder: Path) -> None:
    store = SqliteStore(folder)
    with pytest.raises(StoreReadOnly):
        await store.open()
    os.rmdir(folder)

    await store.open()
    await store.accept(question("1"), "claude", "opus")

    await store.close()


# Damaged, foreign, newer


async def test_garbage_is_no_database_and_is_left_as_it_is(garbage: Path) -> None:
    with pytest.raises(StoreCorrupt, match="move it away") as caught:
        await open_store(garbage)

    assert str(garbage) in str(caught.value)
    assert content(garbage) == b"garbage" * 1_000


async def test_damaged_pages_are_found_and_named(path: Path) -> None:
    store = await open_store(path)
    await asyncio.gather(
        *(store.accept(question(str(n), content="x" * 500), "claude", "opus") for n in range(500))
    )
    await store.close()
    with path.open("r+b") as file:
        for page in range(50, 80):
            file.seek(page * 4096)
            file.write(os.urandom(512))

    store = await open_store(path)
    found = await store.check()
    with pytest.raises(StoreCorrupt, match=r"zejzl\.db: .* \(SQLITE_CORRUPT"):
        await store.messages(limit=500)
    await store.close()

    assert found


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("UPDATE messages SET error = NULL, response = NULL, turn = NULL", "settled without"),
        ("UPDATE messages SET state = 'accepted'", "not settled, but with an outcome"),
        ("UPDATE messages SET turn = NULL", "missing in its history"),
        ("UPDATE messages SET response = NULL, error = 'e'", "in a history without an answer"),
        ("UPDATE attempts SET outcome = NULL", "with an attempt that still runs"),
        ("UPDATE messages SET state = 'parked'", "waiting without a time"),
        ("UPDATE messages SET due_at = 'x'", "to be taken up, but not parked"),
        ("DELETE FROM messages", "belongs to no messages"),
    ],
)
async def test_a_broken_law_is_named(
    store: SqliteStore, path: Path, sql: str, problem: str
) -> None:
    await store.accept(question("1"), "claude", "opus")
    await store.settle(answer(question("1")), [OK])
    assert await store.check() == []

    query(path, sql)

    assert any(problem in found for found in await store.check())


async def test_a_newer_schema_is_refused_and_left_as_it_is(path: Path) -> None:
    await (await open_store(path)).close()
    query(path, "PRAGMA journal_mode = DELETE")
    query(path, "PRAGMA user_version = 99")
    before = content(path)

    with pytest.raises(StoreTooNew, match="has schema 99, this zejzl knows 4"):
        await open_store(path)

    assert content(path) == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["zejzl.db", "zejzl.db.owners"]


async def test_an_older_schema_is_brought_up_to_date_with_its_rows(path: Path) -> None:
    first = (SRC / "zejzl/stores/schema/001_first.sql").read_text()
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(first)
        connection.execute("INSERT INTO settings VALUES ('default_provider', 'claude')")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")

    store = await open_store(path)
    kept, id = await store.setting("default_provider"), await store.post_command("b", "c", "{}")
    problems = await store.check()
    await store.close()

    assert (kept, id, problems) == ("claude", 1, [])


async def test_another_programs_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    query(path, "CREATE TABLE theirs (x)")
    before = content(path)

    with pytest.raises(StoreError, match="is not a zejzl database"):
        await open_store(path)

    assert content(path) == before


async def test_an_empty_file_becomes_a_database(path: Path) -> None:
    path.parent.mkdir()
    query(path, "VACUUM")  # makes the file, and nothing in it

    store = await open_store(path)

    assert await store.check() == []
    await store.close()


async def test_events_of_a_later_version_are_counted_and_skipped(
    store: SqliteStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = BudgetRestored(amount=1.0, reason="by hand", timestamp=NOON)
    await store.record([known])
    for body in ({"v": 1, "type": "unheard_of"}, {"v": 2, "type": "budget_restored"}, {"v": 1}):
        query(path, f"INSERT INTO events (type, at, body) VALUES ('x', 'x', '{json.dumps(body)}')")

    with caplog.at_level(logging.WARNING, "zejzl.stores"):
        events = await store.events()

    assert (events, store.unread_events) == ([known], 3)
    assert "3 events could not be read" in caplog.text


# Rows that cannot be read

BAD_TEXT = "CAST(x'7bff' AS TEXT)"  # no UTF-8


@pytest.mark.parametrize(
    "body",
    ["'{x'", "''", "'[]'", "'5'", "'null'", f"'{'[' * 100_000}'", BAD_TEXT, "x'ff'"],
    ids=["{x", "empty", "[]", "5", "null", "deep", "no UTF-8", "blob"],
)
async def test_an_event_that_cannot_be_read_hides_no_other(
    store: SqliteStore, path: Path, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    known = BudgetRestored(amount=1.0, reason="by hand", timestamp=NOON)
    await store.record([known])
    query(path, f"INSERT INTO events (type, at, body) VALUES ('budget_restored', 'x', {body})")

    with caplog.at_level(logging.WARNING, "zejzl.stores"):
        events = await store.events(type="budget_restored")

    assert (events, store.unread_events) == ([known], 1)
    assert "1 events could not be read" in caplog.text


@pytest.mark.parametrize("at", ["'yesterday'", "'2026-11-22T12:00:00'", "5", BAD_TEXT, "x'ff'"])
async def test_a_message_or_snapshot_of_no_time_hides_no_other(
    store: SqliteStore, path: Path, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    for id in ("1", "2"):
        await store.accept(question(id), "claude", "opus")
        await store.settle(answer(question(id)), [OK])
        await store.keep_snapshot(id, "{}")

    query(path, f"UPDATE messages SET asked_at = {at} WHERE id = '1'")
    query(path, f"UPDATE snapshots SET at = {at} WHERE owner = '1'")

    with caplog.at_level(logging.WARNING, "zejzl.stores"):
        assert [message.id for message in await store.messages()] == ["2"]
        assert [message.id for message in await store.history("c", 9)] == ["2"]
        assert [owner for owner, *_ in await store.snapshots()] == ["2"]
    assert "1 messages could not be read" in caplog.text
    assert "1 snapshots could not be read" in caplog.text


async def test_text_that_is_no_utf_8_is_shown_with_marks(store: SqliteStore, path: Path) -> None:
    for id in ("1", "2"):
        await store.accept(question(id), "claude", "opus")
        await store.settle(answer(question(id)), [OK])
    await store.keep_setting("default_provider", "claude")
    command = await store.post_command("bus", "reset", "{}")
    await store.post_command("bus", "reset", "{}")

    query(path, f"UPDATE messages SET response = {BAD_TEXT} WHERE id = '1'")
    query(path, f"UPDATE settings SET value = {BAD_TEXT}")
    query(path, f"UPDATE commands SET body = {BAD_TEXT} WHERE id = {command}")

    assert [m.response for m in await store.messages()] == ["{\ufffd", "a"]
    assert await store.setting("default_provider") == "{\ufffd"
    assert [body for *_, body in await store.take_commands("bus")] == ["{\ufffd", "{}"]


@pytest.mark.parametrize(
    "owner",
    ["'x' || char(0)", f"'{'x' * 5_000}'", "'../../home/zejzl.db.owners/x'", "''", "x'ff'"],
    ids=["NUL", "long", "a path", "empty", "blob"],
)
async def test_an_owner_that_can_be_none_is_gone_and_its_requests_are_claimed(
    store: SqliteStore, path: Path, owner: str
) -> None:
    for id in ("1", "2"):
        await store.accept(question(id), "claude", "opus")
    query(path, f"UPDATE messages SET owner = {owner} WHERE id = '1'")
    query(path, "UPDATE messages SET owner = 'dead' WHERE id = '2'")

    assert [orphan.message.id for orphan in await store.orphans()] == ["1", "2"]
    assert await store.orphans() == []


async def test_a_request_that_cannot_be_read_keeps_no_other_from_being_claimed(
    store: SqliteStore, path: Path
) -> None:
    for id in ("1", "2"):
        await store.accept(question(id), "claude", "opus")
    query(path, "UPDATE messages SET owner = 'dead'")
    query(path, "UPDATE messages SET asked_at = 'yesterday' WHERE id = '1'")

    assert [orphan.message.id for orphan in await store.orphans()] == ["2"]


# Several stores on one file


async def test_two_stores_see_one_another_alive(path: Path) -> None:
    one, two = await open_store(path), await open_store(path)
    await one.accept(question("1"), "claude", "opus")
    await one.keep_snapshot("bus one", "{}")

    orphans, (snapshot,) = await two.orphans(), await two.snapshots()
    await one.close()
    (orphan,), (last,) = await two.orphans(), await two.snapshots()
    await two.close()

    assert (orphans, snapshot[2]) == ([], True)
    assert (orphan.message.id, last[2]) == ("1", False)


async def test_an_orphan_is_claimed_by_one_of_two(path: Path) -> None:
    gone = await open_store(path)
    asked = [question(str(n)) for n in range(50)]
    for message in asked:
        gone.accept(message, "claude", "opus")
    gone.attempt("7", 2, "grok", "g4")
    await gone.close()
    stores = [await open_store(path) for _ in range(4)]

    claims = await asyncio.gather(*(store.orphans() for store in stores))
    again = await asyncio.gather(*(store.orphans() for store in stores))

    assert sorted(len(claim) for claim in claims) == [0, 0, 0, 50]
    (claim,) = (claim for claim in claims if claim)
    assert [orphan.message for orphan in claim] == asked
    assert [orphan.attempts for orphan in claim] == [1] * 7 + [2] + [1] * 42
    assert again == [[]] * 4
    for store in stores:
        await store.close()


async def test_a_claimed_orphan_can_be_settled_once(path: Path) -> None:
    gone = await open_store(path)
    await gone.accept(question("1"), "claude", "opus")
    await gone.close()
    one, two = await open_store(path), await open_store(path)

    (orphan,) = await one.orphans()
    await one.settle(answer(orphan.message), [])
    with pytest.raises(ValueError, match="settled already"):
        await two.settle(answer(orphan.message), [])

    assert [m.id for m in await two.history("c", 9)] == ["1"]
    await one.close()
    await two.close()


async def test_a_claim_that_is_not_settled_can_be_claimed_again_after_its_owner(
    path: Path,
) -> None:
    for _ in range(3):
        store = await open_store(path)
        await store.accept(question(store.owner), "claude", "opus")
        await store.orphans()
        await store.close()

    store = await open_store(path)
    orphans = await store.orphans()
    await store.close()

    assert len(orphans) == 3


async def test_stores_that_open_together_make_one_database(path: Path) -> None:
    stores = [SqliteStore(path) for _ in range(8)]

    await asyncio.gather(*(store.open() for store in stores))
    await asyncio.gather(
        *(store.accept(question(str(n)), "claude", "opus") for n, store in enumerate(stores))
    )

    assert len(await stores[0].messages()) == 8
    for store in stores:
        await store.close()


async def test_processes_that_start_together_share_the_file(path: Path) -> None:
    script = """
        async def main():
            store = SqliteStore(path)
            input()
            await store.open()
            await asyncio.gather(*(talk(store, f"{sys.argv[2]}-{n}") for n in range(200)))
            say(len(await store.orphans()))
            await store.close()

        async def talk(store, id):
            await store.accept(question(id), "claude", "opus")
            await store.settle(question(id).answered("a", "claude", 0.1), [])

        asyncio.run(main())
    """
    with (
        child(path, script, "a") as a,
        child(path, script, "b") as b,
        child(path, script, "c") as c,
    ):
        for process in (a, b, c):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        orphans = [line(process) for process in (a, b, c)]
        codes = [process.wait() for process in (a, b, c)]

    store = await open_store(path)
    turns = await store.history("c", 1_000)
    problems = await store.check()
    await store.close()
    assert (orphans, codes, problems) == (["0"] * 3, [0] * 3, [])
    assert len({message.id for message in turns}) == 600


async def test_commands_are_shared_out_among_those_who_take_at_once(path: Path) -> None:
    script = """
        async def main():
            store = SqliteStore(path)
            await store.open()
            say("ready")
            while (taken := await store.take_commands("bus")) or not enough():
                for id, _, body in taken:
                    await store.answer_command(id, True, body)
                    say(id)
            await store.close()

        def enough():
            return select.select([sys.stdin], [], [], 0.001)[0]

        asyncio.run(main())
    """
    store = await open_store(path)
    with child(path, script) as a, child(path, script) as b:
        assert [line(a), line(b)] == ["ready", "ready"]
        ids = [await store.post_command("bus", "do", str(n)) for n in range(200)]
        alien = await store.post_command("another bus", "do", "{}")
        said = [process.communicate("\n")[0].split() for process in (a, b)]
    answers = [await store.command(id) for id in ids]
    left = await store.command(alien)
    await store.close()

    assert sorted(int(id) for taken in said for id in taken) == ids
    assert answers == [("done", str(n)) for n in range(200)]
    assert left == ("waiting", "")


async def test_where_no_command_waits_nothing_is_written(store: SqliteStore, path: Path) -> None:
    await store.take_commands("bus")

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")  # whoever would write now is told that it is locked

        assert await store.take_commands("bus") == []


# Killed


ACCEPTING = """
    async def main():
        store = SqliteStore(path)
        await store.open()
        await store.keep_snapshot("bus", "{}")
        await asyncio.gather(*(talk(store, n) for n in range(250)))
        say("all in flight")
        await asyncio.Event().wait()

    async def talk(store, n):
        await store.accept(question(str(n)), "claude", "opus")
        if n < 50:
            say("accepted", n)
            await store.settle(question(str(n)).answered("a", "claude", 0.1), [])
            say("settled", n)
        else:
            say("accepted", n)

    asyncio.run(main())
"""


async def test_what_a_living_process_has_in_flight_is_no_orphan(path: Path) -> None:
    with child(path, ACCEPTING) as process:
        while line(process) != "all in flight":
            pass
        store = await open_store(path)

        alive = await store.orphans()
        process.send_signal(signal.SIGSTOP)  # silent, but there
        stopped = await store.orphans()
        process.kill()
        process.wait()
        dead = await store.orphans()

    (snapshot,) = await store.snapshots()
    await store.close()
    assert (alive, stopped, len(dead)) == ([], [], 200)
    assert (snapshot[0], snapshot[2]) == ("bus", False)


@pytest.mark.parametrize("lines", [1, 40, 150, 301], ids=lambda n: f"after {n} lines")
async def test_a_killed_process_loses_nothing_that_was_awaited(path: Path, lines: int) -> None:
    with child(path, ACCEPTING) as process:
        said = {line(process) for _ in range(lines)}
        process.send_signal(signal.SIGKILL)
        assert process.stdout is not None
        said |= {rest.strip() for rest in process.stdout if rest.endswith("\n")}
        process.wait()

    store = await open_store(path)
    orphans = {orphan.message.id for orphan in await store.orphans()}
    settled = {message.id for message in await store.history("c", 1_000)}
    problems = await store.check()
    await store.close()
    accepted = {words.split()[1] for words in said if words.startswith("accepted")}
    assert accepted <= orphans | settled
    assert {words.split()[1] for words in said if words.startswith("settled")} <= settled
    assert not orphans & settled
    assert problems == []


async def test_the_locks_of_the_dead_are_cleared_away(path: Path) -> None:
    with child(path, ACCEPTING) as process:
        line(process)
    folder = path.with_name("zejzl.db.owners")
    left = list(folder.iterdir())

    store = await open_store(path)
    await store.orphans()
    kept = [p.name for p in folder.iterdir()]
    pid = (folder / kept[0]).read_text()
    await store.close()

    assert len(left) == 1
    assert (kept, pid) == ([f"{store_owner(kept)}.lock"], f"{os.getpid()}\n")


def store_owner(names: list[str]) -> str:
    (name,) = names
    return name.removesuffix(".lock")


async def test_a_process_that_forgets_to_close_still_writes_what_it_dropped(path: Path) -> None:
    script = """
        async def main():
            store = SqliteStore(path)
            await store.open()
            for n in range(500):
                store.accept(question(str(n)), "claude", "opus")

        asyncio.run(main())
    """
    with child(path, script) as process:
        assert process.wait() == 0

    assert query(path, "SELECT count(*) FROM messages") == [(500,)]


# Event loops that go away


def test_a_write_outlives_its_event_loop(path: Path) -> None:
    store = SqliteStore(path)

    async def begin() -> None:
        await store.open()
        store.accept(question("1"), "claude", "opus")

    async def end() -> list[Message]:
        await store.accept(question("2"), "claude", "opus")
        found = await store.messages()
        await store.close()
        return found

    asyncio.run(begin())

    assert [m.id for m in asyncio.run(end())] == ["1", "2"]


async def test_close_writes_what_nobody_waits_for(store: SqliteStore, path: Path) -> None:
    for n in range(1_000):
        store.accept(question(str(n)), "claude", "opus")
    pruned = store.prune(before=datetime(2030, 1, 1, tzinfo=UTC))

    await store.close()

    assert query(path, "SELECT count(*) FROM messages") == [(1_000,)]
    assert await pruned == 0


async def test_an_open_that_was_cancelled_can_be_closed(path: Path) -> None:
    store = SqliteStore(path)
    opening = asyncio.create_task(store.open())
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)

    await store.close()

    with pytest.raises(StoreError, match="is closed"):
        await store.messages()


async def test_a_mistake_in_a_value_is_its_callers_alone(store: SqliteStore) -> None:
    wrong = Attempt("claude", "opus", "ok", {})  # type: ignore[arg-type]
    for n in range(3):
        await store.accept(question(str(n)), "claude", "opus")

    results = await asyncio.gather(
        store.settle(answer(question("0")), [OK]),
        store.settle(answer(question("1")), [OK, wrong]),
        store.settle(answer(question("2")), [OK]),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [type(None), StoreError, type(None)]
    assert [m.id for m in await store.history("c", 9)] == ["0", "2"]
    assert [a.outcome for a in await store.attempts("1")] == [""]


async def test_a_failure_nobody_waits_for_is_logged(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    await store.accept(question("1"), "claude", "opus")
    write = asyncio.ensure_future(store.accept(question("1"), "claude", "opus"))
    write.cancel()

    with caplog.at_level(logging.WARNING, "zejzl.stores"):
        await store.accept(question("2"), "claude", "opus")

    assert "a write that nobody waits for failed: a message of id '1' exists" in caplog.text
