"""Memories: words and bounds, and their index in a SQLite file."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tree import SRC
from zejzl.ports import Memory
from zejzl.stores import InMemoryStore, SqliteStore, memory_tables
from zejzl.stores import statements as sql
from zejzl.stores.connection import APPLICATION_ID
from zejzl.stores.memories import LONGEST_QUERY, MOST_WORDS, Shelf, Wanted, line_of, words_of

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def memory(id: str = "1", text: str = "", *, seconds: float = 0.0, type: str = "plan") -> Memory:
    return Memory(
        id=id,
        type=type,
        conversation_id="c",
        at=NOON + timedelta(seconds=seconds),
        body="{}",
        text=text,
    )


def ids(found: list[Memory]) -> list[str]:
    return [each.id for each in found]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "zejzl.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def without_fts5(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Python whose SQLite has no full-text search."""
    monkeypatch.setattr(memory_tables, "has_fts5", lambda: False)
    yield


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(query).fetchall()


# Words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, hello WORLD!", ["hello", "world"]),
        ("snake_case a-b c.d", ["snake", "case", "a", "b", "c", "d"]),
        ("Straße STRASSE", ["strasse"]),
        ("a\u030angström \u212bngström", ["ångström"]),
        ("私は日本", ["私", "は", "日", "本"]),
        ("한국어 x2", ["한국어", "x2"]),
        ('" OR ) NEAR(* --', ["or", "near"]),
        ("a\x00b", ["a", "b"]),
        ("x" * 200, ["x" * 100]),
        ("!?_", []),
    ],
    ids=["case", "signs", "sharp s", "accents", "unspaced", "spaced", "syntax", "nul", "long",
         "none"],
)  # fmt: skip
def test_a_text_is_split_into_its_different_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(st.text())
def test_the_words_of_words_are_the_same(text: str) -> None:
    words = words_of(text)

    assert words_of(line_of(words)) == words


@given(st.lists(st.text(max_size=20), max_size=5), st.text(max_size=20).filter(words_of))
def test_the_index_finds_what_the_shelf_finds(texts: list[str], wanted: str) -> None:
    shelf = Shelf()
    shelf.put([memory(str(n), text) for n, text in enumerate(texts)], keep=9)

    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(sql.CREATE_INDEX)
        for n, text in enumerate(texts):
            connection.execute(sql.INDEX, (n, line_of(words_of(text))))
        query = " AND ".join(f'"{word}"' for word in words_of(wanted))
        matches = "SELECT rowid FROM memory_words WHERE memory_words MATCH ? ORDER BY rowid"
        found = [str(n) for (n,) in connection.execute(matches, (query,))]

    assert found == ids(shelf.find(Wanted(text=wanted)))


# The shelf


def test_a_shelf_that_is_full_lets_go_of_what_came_first() -> None:
    shelf = Shelf()

    shelf.put([memory("late", seconds=9.0)], keep=2)
    shelf.put([memory("1", seconds=1.0), memory("2", seconds=2.0)], keep=2)

    assert (len(shelf), ids(shelf.find(Wanted()))) == (2, ["1", "2"])


async def test_a_store_in_memory_keeps_no_more_memories_than_its_limit() -> None:
    store = InMemoryStore(limit=2)
    await store.open()

    await store.remember([memory(str(n)) for n in range(5)])

    assert ids(await store.recall()) == ["3", "4"]


# The file


async def test_a_file_of_schema_3_is_brought_up_to_date_and_remembers(path: Path) -> None:
    scripts = sorted((SRC / "zejzl/stores/schema").glob("*.sql"))[:3]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for script in scripts:
            connection.executescript(script.read_text(encoding="utf-8"))
        connection.execute("INSERT INTO settings VALUES ('default_provider', 'claude')")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 3")
    store = SqliteStore(path)
    await store.open()

    await store.remember([memory(text="hello")])

    assert await store.setting("default_provider") == "claude"
    assert await store.recall(text="HELLO") == [memory(text="hello")]
    assert await store.check() == []
    await store.close()
    assert rows(path, "PRAGMA user_version") == [(4,)]


async def test_memories_and_their_words_outlive_the_process(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    store.remember([memory(text="kept")])
    await store.close()

    again = SqliteStore(path)
    await again.open()
    await again.remember([memory("2", "kept too")])

    assert ids(await again.recall(text="kept")) == ["1", "2"]
    await again.close()


async def test_what_is_forgotten_leaves_the_index_too(store: SqliteStore, path: Path) -> None:
    await store.remember([memory(str(n), f"word{n}", seconds=n) for n in range(10)])

    await store.prune(before=NOON + timedelta(seconds=4))
    await store.remember([memory("10", "word10", seconds=10)], keep=5)

    assert ids(await store.recall()) == ["6", "7", "8", "9", "10"]
    assert rows(path, "SELECT count(*) FROM memory_words") == [(5,)]
    assert await store.check() == []


async def test_gaps_do_not_count_as_memories(store: SqliteStore) -> None:
    await store.remember([memory("0", seconds=9.0), *(memory(str(n)) for n in range(1, 9))])
    await store.prune(before=NOON + timedelta(seconds=1))

    await store.remember([memory("9")], keep=2)

    assert ids(await store.recall()) == ["9", "0"]


async def test_thousands_are_pruned(store: SqliteStore) -> None:
    await store.remember([memory(str(n), "x") for n in range(1_200)])

    assert await store.prune(before=NOON + timedelta(seconds=1)) == 1_200

    assert await store.recall(text="x") == []


@pytest.mark.usefixtures("without_fts5")
async def test_without_full_text_search_the_same_is_found(store: SqliteStore, path: Path) -> None:
    texts = ["the quick brown fox", "the lazy dog", "quicker", "日本語", "Straße"]
    await store.remember([memory(str(n), text) for n, text in enumerate(texts)])

    found = {
        wanted: ids(await store.recall(text=wanted))
        for wanted in ("the", "dog THE", "quick", "本", "STRASSE", "none", '"; --')
    }

    assert found == {
        "the": ["0", "1"],
        "dog THE": ["1"],
        "quick": ["0"],
        "本": ["3"],
        "STRASSE": ["4"],
        "none": [],
        '"; --': [],
    }
    assert await store.prune(before=NOON + timedelta(seconds=1)) == 5
    assert rows(path, "SELECT name FROM sqlite_master WHERE name LIKE 'memory_words%'") == []
    assert await store.check() == []


async def test_a_file_may_go_from_a_python_without_full_text_search_to_one_with_it_and_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for n, has in enumerate([False, True, False, True]):
        monkeypatch.setattr(memory_tables, "has_fts5", lambda has=has: has)
        store = SqliteStore(path)
        await store.open()
        await store.remember([memory(str(n), f"same word{n}", seconds=n)])
        found.append((ids(await store.recall(text="same")), ids(await store.recall(text="word0"))))
        if n == 2:
            await store.prune(before=NOON + timedelta(seconds=2))
        assert await store.check() == []
        await store.close()

    assert found == [
        (["0"], ["0"]),
        (["0", "1"], ["0"]),
        (["0", "1", "2"], ["0"]),
        (["2", "3"], []),
    ]


async def test_a_memory_that_no_search_finds_is_a_problem(store: SqliteStore, path: Path) -> None:
    await store.remember([memory(text="x"), memory("2", "x")])

    rows(path, "DELETE FROM memory_words WHERE rowid = 2")

    assert await store.check() == ["memories that no search finds: '2'"]


async def test_a_memory_of_no_time_hides_no_other(store: SqliteStore, path: Path) -> None:
    await store.remember([memory("1"), memory("2")])

    rows(path, "UPDATE memories SET at = 'yesterday' WHERE id = '1'")

    assert ids(await store.recall()) == ["2"]


async def test_a_query_of_very_many_words_is_still_a_search(store: SqliteStore) -> None:
    words = " ".join(f"w{n}" for n in range(MOST_WORDS))
    await store.remember([memory(text=words), memory("2", "w1")])

    assert ids(await store.recall(text=words)) == ["1"]
    with pytest.raises(ValueError, match=f"has {MOST_WORDS + 1} words, {MOST_WORDS} may be"):
        await store.recall(text=f"{words} more")


@pytest.mark.parametrize(
    ("asked", "error", "problem"),
    [
        ({"type": 5}, TypeError, "type must be text, not int"),
        ({"text": 5}, TypeError, "text must be text, not int"),
        ({"conversation_id": 5}, TypeError, "conversation_id must be text, not int"),
        ({"since": "today"}, TypeError, "since must be a datetime, not str"),
        ({"until": 5}, TypeError, "until must be a datetime, not int"),
        ({"limit": -1}, ValueError, "limit must be 0 or more"),
        ({"limit": "all"}, TypeError, "limit must be a whole number"),
        ({"text": "x" * (LONGEST_QUERY + 1)}, ValueError, "characters"),
    ],
    ids=range(8),
)
async def test_a_recall_of_what_cannot_be_is_refused(
    store: SqliteStore, asked: dict[str, Any], error: type[Exception], problem: str
) -> None:
    for each in (store, InMemoryStore()):
        await each.open()
        with pytest.raises(error, match=problem):
            await each.recall(**asked)


@pytest.mark.parametrize(
    ("conditions", "index"),
    [
        ("", "memories_at"),
        ("WHERE at >= ? AND at < ?", "memories_at"),
        ("WHERE type = ? AND at >= ?", "memories_type"),
        ("WHERE conversation_id IS ? AND at < ?", "memories_conversation"),
    ],
    ids=["all", "time", "type", "conversation"],
)
async def test_a_recall_reads_no_more_rows_than_it_returns(
    store: SqliteStore, path: Path, conditions: str, index: str
) -> None:
    query = f"{sql.MEMORIES} {conditions} ORDER BY at DESC, seq DESC LIMIT ?"
    plan = rows(path, f"EXPLAIN QUERY PLAN {query.replace('?', '1')}")

    assert f"USING INDEX {index}" in str(plan)
    assert "TEMP B-TREE" not in str(plan)
