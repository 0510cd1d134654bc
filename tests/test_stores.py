"""The contract of a Store (`zejzl.ports.Store`), on every store there is."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zejzl.errors import StoreError
from zejzl.events import BreakerChanged, BudgetRestored, Event, RecoveryRecorded, RequestRecovered
from zejzl.messages import Attempt, Message
from zejzl.ports import ANY, Memory, Store
from zejzl.stores import InMemoryStore, SqliteStore

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
OK = Attempt("claude", "opus", "ok", 0.25)
HALF = "half an emoji: \ud83d"
HOSTILE = [
    "default", "NA", "null", "None", "", " ", "0", "a'b", 'a"b', "a;DROP TABLE messages--", "%",
    "_", "å", "a\u030a", "日本語", "👩‍👩‍👧", "a\x00b", "a", "A", "a ", "x" * 10_000, "\n", "\\",
]  # fmt: skip


class SetClock:
    """A clock that says what it is told; only its wall is asked."""

    def __init__(self, wall: float = NOON.timestamp()) -> None:
        self.time = wall

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a store never sleeps")

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        raise AssertionError("a store sets no deadline")


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture(params=["memory", "sqlite"])
def unopened(request: pytest.FixtureRequest, tmp_path: Path, clock: SetClock) -> Store:
    if request.param == "memory":
        return InMemoryStore(clock=clock)
    return SqliteStore(tmp_path / "zejzl.db", clock=clock)


@pytest.fixture
async def store(unopened: Store) -> AsyncIterator[Store]:
    await unopened.open()
    yield unopened
    assert await unopened.check() == []
    await unopened.close()


def question(id: str = "m1", conversation_id: str | None = "c", at: datetime = NOON) -> Message:
    return Message(
        id=id,
        content=f"question {id}",
        timestamp=at,
        sender="ann",
        provider="claude",
        conversation_id=conversation_id,
    )


def answer(message: Message) -> Message:
    return message.answered(f"answer {message.id}", "grok", 0.5)


async def tell(store: Store, message: Message, *events: Event) -> None:
    """Accept and settle with an answer."""
    await store.accept(message, "claude", "opus")
    await store.settle(answer(message), [OK], events)


def restored(amount: float, at: datetime = NOON) -> BudgetRestored:
    return BudgetRestored(amount=amount, reason="by hand", timestamp=at)


EVENTS: list[Event] = [
    RecoveryRecorded(
        target="claude", issue="503 – «überlastet» 🔥", failure_class="overloaded",
        remedy="failover", success=True, verified=None, energy_used=10.0, timestamp=NOON,
        outcome="ok", request_id="m",
    ),
    BreakerChanged(
        name="ai_provider:claude", before="closed", after="open", generation=3, reason="3 failures",
        timestamp=NOON + timedelta(microseconds=1),
    ),
    restored(30.0, NOON + timedelta(seconds=1)),
    RequestRecovered(
        request_id="m", conversation_id=None, maybe_duplicate=True,
        timestamp=NOON + timedelta(seconds=2),
    ),
]  # fmt: skip


# The journal


async def test_an_accepted_request_is_kept_as_it_was(store: Store) -> None:
    asked = replace(question(), content="line\nline 👍 'quoted'", conversation_id=None)

    await store.accept(asked, "claude", "opus")

    assert await store.messages() == [asked]


async def test_accepting_journals_the_first_attempt_too(store: Store) -> None:
    await store.accept(question(), "claude", "opus")

    assert await store.attempts("m1") == [Attempt("claude", "opus", "", 0.0, "first", at=NOON)]


async def test_an_id_is_accepted_once(store: Store) -> None:
    await store.accept(question(), "claude", "opus")

    with pytest.raises(ValueError, match="'m1' exists already"):
        await store.accept(replace(question(), content="other"), "claude", "opus")

    assert await store.messages() == [question()]


async def test_a_settled_id_is_not_accepted_again(store: Store) -> None:
    await tell(store, question())

    with pytest.raises(ValueError, match="exists already"):
        await store.accept(question(), "claude", "opus")


async def test_a_further_attempt_is_seen_before_it_ends(store: Store) -> None:
    await store.accept(question(), "claude", "opus")

    await store.attempt("m1", 2, "grok", "g4")

    assert [a.provider for a in await store.attempts("m1")] == ["claude", "grok"]


async def test_an_attempt_begins_once(store: Store) -> None:
    await store.accept(question(), "claude", "opus")

    with pytest.raises(ValueError, match="attempt 1 of 'm1' has begun already"):
        await store.attempt("m1", 1, "grok", "g4")

    assert [a.provider for a in await store.attempts("m1")] == ["claude"]


async def test_an_attempt_needs_an_accepted_request(store: Store) -> None:
    with pytest.raises(ValueError, match="no message of id 'm1'"):
        await store.attempt("m1", 2, "grok", "g4")


async def test_nothing_is_attempted_after_the_outcome(store: Store) -> None:
    await tell(store, question())

    with pytest.raises(ValueError, match="settled already"):
        await store.attempt("m1", 2, "grok", "g4")

    assert await store.attempts("m1") == [OK]


@pytest.mark.parametrize(
    "attempts",
    [
        [],
        [OK],
        [Attempt("claude", "opus", "overloaded", 1.5, error="503"), replace(OK, remedy="failover")],
        [replace(OK, seconds=n / 8) for n in range(5)],
    ],
    ids=["none", "one", "two", "more than begun"],
)
async def test_the_attempts_of_an_outcome_are_the_last_word(
    store: Store, attempts: list[Attempt]
) -> None:
    await store.accept(question(), "claude", "opus")
    await store.attempt("m1", 2, "grok", "g4")

    await store.settle(answer(question()), attempts)

    assert await store.attempts("m1") == attempts


async def test_an_outcome_keeps_the_question_and_writes_the_answer(store: Store) -> None:
    await store.accept(question(), "claude", "opus")

    await store.settle(replace(answer(question()), content="changed", sender="bob"), [OK])

    assert await store.messages() == [answer(question())]


async def test_a_failure_is_an_outcome(store: Store) -> None:
    failed = replace(question(), error="Overloaded: claude")
    await store.accept(question(), "claude", "opus")

    await store.settle(failed, [replace(OK, outcome="overloaded")])

    assert await store.messages() == [failed]
    assert await store.history("c", 10) == []


async def test_an_outcome_has_a_response_or_an_error(store: Store) -> None:
    await store.accept(question(), "claude", "opus")

    with pytest.raises(ValueError, match="neither response nor error"):
        await store.settle(question(), [])


async def test_an_empty_answer_is_an_answer(store: Store) -> None:
    await store.accept(question(), "claude", "opus")

    await store.settle(question().answered("", "claude", 0.1), [OK])

    assert [m.response for m in await store.history("c", 1)] == [""]


async def test_only_an_accepted_request_has_an_outcome(store: Store) -> None:
    with pytest.raises(ValueError, match="no message of id 'm1' was accepted"):
        await store.settle(answer(question()), [OK], [restored(1.0)])

    assert (await store.messages(), await store.events()) == ([], [])


async def test_the_first_outcome_stands(store: Store) -> None:
    await tell(store, question())

    with pytest.raises(ValueError, match="settled already"):
        await store.settle(replace(question(), error="late"), [], [restored(1.0)])

    assert await store.messages() == [answer(question())]
    assert (await store.attempts("m1"), await store.events()) == ([OK], [])


async def test_what_was_learned_is_written_with_the_outcome(store: Store) -> None:
    await tell(store, question(), *EVENTS)

    assert await store.events() == EVENTS


async def test_a_stores_own_requests_are_no_orphans(store: Store) -> None:
    await store.accept(question(), "claude", "opus")

    assert await store.orphans() == []


# Conversations


async def test_history_is_in_the_order_of_the_answers(store: Store) -> None:
    asked = [question(str(n)) for n in range(3)]
    for message in asked:
        await store.accept(message, "claude", "opus")

    for n in (2, 0, 1):
        await store.settle(answer(asked[n]), [OK])

    assert [m.id for m in await store.history("c", 10)] == ["2", "0", "1"]
    assert [m.id for m in await store.messages()] == ["0", "1", "2"]


async def test_half_a_turn_is_no_history(store: Store) -> None:
    await tell(store, question("1"))
    await store.accept(question("2"), "claude", "opus")

    assert await store.history("c", 10) == [answer(question("1"))]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(0, []), (2, ["3", "4"]), (5, ["0", "1", "2", "3", "4"]), (99, ["0", "1", "2", "3", "4"])],
)
async def test_the_newest_are_kept_and_the_oldest_comes_first(
    store: Store, limit: int, expected: list[str]
) -> None:
    for n in range(5):
        await tell(store, question(str(n)), restored(float(n), NOON + timedelta(seconds=n)))

    assert [m.id for m in await store.history("c", limit)] == expected
    assert [m.id for m in await store.messages(limit=limit)] == expected
    assert [m.id for m in await store.messages(conversation_id="c", limit=limit)] == expected
    amounts = [e.amount for e in await store.events(limit=limit) if isinstance(e, BudgetRestored)]
    assert amounts == [float(n) for n in expected]


async def test_a_negative_limit_is_refused(store: Store) -> None:
    for read in (store.history("c", -1), store.messages(limit=-1), store.events(limit=-1)):
        with pytest.raises(ValueError, match="limit must be 0 or more, not -1"):
            await read


@pytest.mark.parametrize(
    ("limit", "error"),
    [(2**63, ValueError), (10**5_000, ValueError), (1.0, TypeError), (True, TypeError)],
    ids=["too many", "far too many", "no whole number", "a yes"],
)
async def test_what_is_no_number_of_rows_is_refused(
    store: Store, limit: Any, error: type[Exception]
) -> None:
    reads = store.history("c", limit), store.messages(limit=limit), store.events(limit=limit)

    for read in reads:
        with pytest.raises(error, match=r"limit must be "):
            await read


async def test_every_text_names_its_own_conversation(store: Store) -> None:
    for n, conversation in enumerate(HOSTILE):
        await tell(store, question(str(n), conversation))

    for n, conversation in enumerate(HOSTILE):
        assert [m.id for m in await store.history(conversation, 9)] == [str(n)]
        assert await store.messages(conversation_id=conversation) == [
            answer(question(str(n), conversation))
        ]


async def test_none_is_no_conversation(store: Store) -> None:
    await tell(store, question("1", None))
    await tell(store, question("2", "None"))

    assert [m.id for m in await store.history("None", 9)] == ["2"]
    assert [m.conversation_id for m in await store.messages()] == [None, "None"]


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=8))
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_any_text_comes_back_as_it_was(kind: str, texts: list[str]) -> None:
    async def there_and_back() -> list[Message]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "zejzl.db"
            store: Store = InMemoryStore() if kind == "memory" else SqliteStore(path)
            await store.open()
            for message in sent:
                await store.accept(message, message.provider, message.content)
                await store.settle(message, [Attempt(message.content, "", "ok", 0.0)])
            kept = [m for text in set(texts) for m in await store.history(text, 99)]
            assert await store.check() == []
            await store.close()
        return kept

    sent = [
        Message(
            id=f"{n}{text}", content=text, timestamp=NOON, sender=text, provider=text,
            response=text, error=text, response_time=0.1, conversation_id=text,
        )
        for n, text in enumerate(texts)
    ]  # fmt: skip

    kept = asyncio.run(there_and_back())

    assert sorted(kept, key=lambda m: m.id) == sorted(sent, key=lambda m: m.id)


# What cannot be written


@pytest.mark.parametrize("field", ["id", "content", "sender", "provider", "conversation_id"])
async def test_half_a_character_is_refused_by_the_name_of_its_field(
    store: Store, field: str
) -> None:
    broken = replace(question(), **{field: HALF})  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=f"^{field} is not storable"):
        await store.accept(broken, "claude", "opus")

    assert await store.messages() == []


@pytest.mark.parametrize("field", ["provider", "response", "error"])
async def test_half_a_character_in_an_outcome_leaves_the_request_open(
    store: Store, field: str
) -> None:
    await store.accept(question(), "claude", "opus")
    broken = replace(answer(question()), **{field: HALF})  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=f"^{field} is not storable"):
        await store.settle(broken, [OK])

    await store.settle(answer(question()), [OK])


async def test_half_a_character_is_refused_wherever_text_is_written(store: Store) -> None:
    await store.accept(question(), "claude", "opus")
    broken = replace(restored(1.0), reason=HALF)
    done = answer(question())

    writes: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: store.accept(question("m2"), HALF, "opus"),
        lambda: store.accept(question("m2"), "claude", HALF),
        lambda: store.attempt("m1", 2, HALF, "opus"),
        lambda: store.attempt("m1", 2, "claude", HALF),
        lambda: store.settle(done, [replace(OK, error=HALF)]),
        lambda: store.settle(done, [OK], [broken]),
        lambda: store.record([broken]),
        lambda: store.keep_setting(HALF, "x"),
        lambda: store.keep_setting("x", HALF),
        lambda: store.keep_snapshot("x", HALF),
        lambda: store.post_command(HALF, "x", "x"),
        lambda: store.post_command("x", HALF, "x"),
        lambda: store.post_command("x", "x", HALF),
        lambda: store.answer_command(1, True, HALF),
    )
    for write in writes:
        with pytest.raises(ValueError, match="is not storable: half a character"):
            await write()

    assert await store.messages() == [question()]
    assert (await store.events(), await store.snapshots()) == ([], [])


async def test_a_time_without_a_zone_is_refused(store: Store) -> None:
    naive = NOON.replace(tzinfo=None)

    for write in (
        lambda: store.accept(question(at=naive), "claude", "opus"),
        lambda: store.record([restored(1.0, naive)]),
        lambda: store.prune(before=naive),
    ):
        with pytest.raises(ValueError, match="must be aware"):
            await write()
    with pytest.raises(ValueError, match="must be aware"):
        await store.events(since=naive)


async def test_a_moment_is_the_same_moment_in_any_zone(store: Store) -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))

    await store.accept(question(at=elsewhere), "claude", "opus")
    await store.record([restored(1.0, elsewhere)])

    assert (await store.messages())[0].timestamp == NOON
    assert await store.events(since=elsewhere) == [restored(1.0)]


# Events, settings, snapshots


async def test_every_event_comes_back_equal_and_in_order(store: Store) -> None:
    await store.record(EVENTS[:1])
    await store.record([])
    await store.record(EVENTS[1:])

    assert await store.events() == EVENTS


@pytest.mark.parametrize(
    ("type", "since", "expected"),
    [
        ("budget_restored", None, [2]),
        ("no_such_type", None, []),
        (None, NOON + timedelta(seconds=1), [2, 3]),
        (None, NOON + timedelta(microseconds=1), [1, 2, 3]),
        ("breaker_changed", NOON + timedelta(microseconds=2), []),
    ],
    ids=["a type", "an unknown type", "a time, itself included", "a microsecond", "both"],
)
async def test_events_are_found_by_type_and_time(
    store: Store, type: str | None, since: datetime | None, expected: list[int]
) -> None:
    await store.record(EVENTS)

    assert await store.events(type=type, since=since) == [EVENTS[n] for n in expected]


async def test_a_setting_is_kept_changed_and_forgotten(store: Store) -> None:
    seen = [await store.setting("default_provider")]
    for value in ("claude", "", None, None):
        await store.keep_setting("default_provider", value)
        seen.append(await store.setting("default_provider"))

    assert seen == [None, "claude", "", None, None]


async def test_a_snapshot_replaces_its_owners_last_and_the_newest_comes_first(
    store: Store, clock: SetClock
) -> None:
    for owner, body in (("a", "1"), ("b", "2"), ("a", "3")):
        clock.time += 1
        await store.keep_snapshot(owner, body)

    assert await store.snapshots() == [
        ("a", NOON + timedelta(seconds=3), True, "3"),
        ("b", NOON + timedelta(seconds=2), True, "2"),
    ]


# Commands


async def test_a_command_goes_from_the_one_who_asks_to_its_owner_and_back(store: Store) -> None:
    id = await store.post_command("bus", "reset", '{"name": "claude"}')
    states = [await store.command(id)]

    taken = await store.take_commands("bus")
    states.append(await store.command(id))
    await store.answer_command(id, True, '"closed"')
    states.append(await store.command(id))

    assert taken == [(id, "reset", '{"name": "claude"}')]
    assert states == [("waiting", ""), ("taken", ""), ("done", '"closed"')]


async def test_a_command_that_failed_says_so(store: Store) -> None:
    id = await store.post_command("bus", "reset", "{}")
    await store.take_commands("bus")

    await store.answer_command(id, False, '"no"')

    assert await store.command(id) == ("failed", '"no"')


async def test_commands_are_given_out_once_oldest_first_and_to_their_owner_alone(
    store: Store,
) -> None:
    ids = [await store.post_command(f"bus {n % 2}", str(n), "{}") for n in range(6)]

    taken = [await store.take_commands(owner) for owner in ("bus 1", "bus 1", "bus", "bus 0")]

    assert [[id for id, _, _ in some] for some in taken] == [ids[1::2], [], [], ids[::2]]
    assert ids == sorted({*ids})


async def test_a_command_for_one_who_is_gone_stays_waiting(store: Store) -> None:
    id = await store.post_command("gone", "reset", "{}")

    assert await store.take_commands("bus") == []
    assert await store.command(id) == ("waiting", "")


@pytest.mark.parametrize("state", ["unknown", "waiting", "answered"])
async def test_only_what_was_taken_and_has_no_answer_is_answered(store: Store, state: str) -> None:
    id = await store.post_command("bus", "reset", "{}")
    if state == "answered":
        await store.take_commands("bus")
        await store.answer_command(id, True, "1")
    before = await store.command(id)

    with pytest.raises(ValueError, match=r"command \d+ awaits no answer"):
        await store.answer_command(99 if state == "unknown" else id, False, "2")

    assert await store.command(id) == before


async def test_an_unknown_command_is_none(store: Store) -> None:
    assert await store.command(1) is None


async def test_every_text_of_a_command_comes_back_as_it_was(store: Store) -> None:
    ids = [await store.post_command(text, text, text) for text in HOSTILE]

    for id, text in zip(ids, HOSTILE, strict=True):
        assert await store.take_commands(text) == [(id, text, text)]
        await store.answer_command(id, True, text)
        assert await store.command(id) == ("done", text)


async def test_pruning_takes_commands_and_no_id_is_used_twice(
    store: Store, clock: SetClock
) -> None:
    old = await store.post_command("bus", "old", "{}")
    clock.time += 60.0
    new = await store.post_command("bus", "new", "{}")

    gone = [await store.prune(before=NOON + timedelta(seconds=s)) for s in (30, 90)]

    assert gone == [1, 1]
    assert [await store.command(id) for id in (old, new)] == [None, None]
    assert await store.post_command("bus", "newer", "{}") > new


# Memories


def memory(
    id: str = "1",
    text: str = "",
    *,
    type: str = "plan",
    conversation_id: str | None = "c",
    at: datetime = NOON,
) -> Memory:
    return Memory(
        id=id,
        type=type,
        conversation_id=conversation_id,
        at=at,
        body=f'{{"id": "{id}"}}',
        text=text,
    )


async def recalled(store: Store, **wanted: Any) -> list[str]:
    return [each.id for each in await store.recall(**wanted)]


async def test_a_memory_comes_back_as_it_was(store: Store) -> None:
    kept = [memory("1", "some 👍 text"), memory("2", conversation_id=None, type="x")]

    await store.remember(kept)

    assert await store.recall() == kept


async def test_memories_are_in_the_order_of_their_times_then_as_they_came(store: Store) -> None:
    second = timedelta(seconds=1)
    await store.remember([memory("b"), memory("a"), memory("late", at=NOON + second)])
    await store.remember([memory("early", at=NOON - second), memory("c")])

    assert await recalled(store) == ["early", "b", "a", "c", "late"]
    assert await recalled(store, limit=2) == ["c", "late"]
    assert await recalled(store, limit=0) == []


async def test_of_memories_with_one_id_the_first_is_kept(store: Store) -> None:
    await store.remember([memory("1", "first"), memory("1", "second")])
    await store.remember([memory("1", "third"), memory("2")])

    assert await store.recall() == [memory("1", "first"), memory("2")]
    assert await recalled(store, text="third") == []


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"type": "plan"}, ["1", "2"]),
        ({"type": "Plan"}, []),
        ({"conversation_id": "c"}, ["1", "3"]),
        ({"conversation_id": None}, ["2"]),
        ({"conversation_id": ANY}, ["1", "2", "3"]),
        ({"conversation_id": ""}, []),
        ({"since": NOON + timedelta(seconds=1)}, ["2", "3"]),
        ({"until": NOON + timedelta(seconds=1)}, ["1"]),
        ({"text": "deploy"}, ["1", "3"]),
        ({"text": "FRIDAY, deploy!"}, ["3"]),
        ({"text": "deploy", "type": "plan", "conversation_id": "c", "since": NOON}, ["1"]),
        ({"text": "deploy", "limit": 1}, ["3"]),
    ],
    ids=[
        "type", "another case", "conversation", "no conversation", "any", "empty", "since", "until",
        "word", "words", "all together", "newest",
    ],
)  # fmt: skip
async def test_memories_are_found_by_what_they_are(
    store: Store, wanted: dict[str, Any], found: list[str]
) -> None:
    await store.remember(
        [
            memory("1", "Deploy the shop"),
            memory("2", "nothing", conversation_id=None, at=NOON + timedelta(seconds=1)),
            memory("3", "no deploy on Friday", type="note", at=NOON + timedelta(seconds=2)),
        ]
    )

    assert await recalled(store, **wanted) == found


@pytest.mark.parametrize(
    "text",
    [
        *(
            '"',
            "'",
            "a AND",
            "NOT",
            "NEAR(a b",
            "*",
            "^a",
            "words:a",
            "{a b}: c",
            "a OR b)",
            "-- a",
        ),
        *("a\x00b", "%", "_", "a;DROP TABLE memories", "(" * 500, "\\", '""" a', "", " "),
    ],
)
async def test_any_text_is_a_search_for_its_words(store: Store, text: str) -> None:
    await store.remember([memory("1", "a b"), memory("2", text)])

    found = await recalled(store, text=text)

    assert set(found) <= {"1", "2"}
    assert ("2" in found) == any(letter.isalnum() for letter in text)


async def test_no_more_memories_are_kept_than_are_to_be(store: Store) -> None:
    for n in range(10):
        await store.remember([memory(str(n), at=NOON - timedelta(seconds=n))], keep=3)
    one_by_one = await recalled(store)

    await store.remember([memory(f"all {n}") for n in range(10)], keep=4)

    assert one_by_one == ["9", "8", "7"]
    assert await recalled(store) == ["all 6", "all 7", "all 8", "all 9"]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (replace(memory(), text=HALF), "text is not storable"),
        (replace(memory(), conversation_id=HALF), "conversation_id is not storable"),
        (replace(memory(), at=NOON.replace(tzinfo=None)), "must be aware"),
    ],
    ids=["text", "conversation", "time"],
)
async def test_of_memories_with_a_wrong_one_none_is_written(
    store: Store, wrong: Memory, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        await store.remember([memory("fine"), wrong])

    assert await store.recall() == []


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ({"since": NOON.replace(tzinfo=None)}, "aware"),
        ({"until": NOON.replace(tzinfo=None)}, "aware"),
        ({"limit": -1}, "limit must be 0 or more"),
        ({"text": HALF}, "text is not storable"),
    ],
    ids=["since", "until", "limit", "text"],
)
async def test_a_recall_that_cannot_be_is_refused(
    store: Store, wanted: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        await store.recall(**wanted)
    with pytest.raises(ValueError, match="keep must be 1 or more"):
        await store.remember([memory()], keep=0)


async def test_pruning_takes_old_memories(store: Store) -> None:
    old = NOON - timedelta(days=1)
    await store.remember([memory("old", "word", at=old), memory("new", "word")])

    gone = await store.prune(before=NOON)

    assert (gone, await recalled(store, text="word")) == (1, ["new"])


# Pruning


async def test_pruning_takes_the_old_and_settled_only(store: Store) -> None:
    old = NOON - timedelta(days=1)
    await tell(store, question("old", at=old), restored(1.0, old))
    await tell(store, question("new"), restored(2.0))
    await store.accept(question("old and open", at=old), "claude", "opus")

    gone = await store.prune(before=NOON)

    assert gone == 2
    assert [m.id for m in await store.messages()] == ["new", "old and open"]
    assert [m.id for m in await store.history("c", 9)] == ["new"]
    assert await store.events() == [restored(2.0)]
    assert (await store.attempts("old"), await store.prune(before=NOON)) == ([], 0)


async def test_pruning_takes_snapshots_that_nobody_renewed(store: Store, clock: SetClock) -> None:
    await store.keep_snapshot("old", "{}")
    clock.time += 60.0
    await store.keep_snapshot("new", "{}")

    gone = await store.prune(before=NOON + timedelta(seconds=30))

    assert gone == 1
    assert [owner for owner, *_ in await store.snapshots()] == ["new"]


async def test_a_conversation_goes_on_after_all_of_it_was_pruned(store: Store) -> None:
    await tell(store, question("1"))
    await store.prune(before=NOON + timedelta(days=1))

    await tell(store, question("2"))
    await tell(store, question("3"))

    assert [m.id for m in await store.history("c", 9)] == ["2", "3"]


async def test_pruning_takes_thousands(store: Store) -> None:
    later = NOON + timedelta(days=1)
    await asyncio.gather(*(tell(store, question(str(n), None)) for n in range(1_200)))
    await store.record([restored(float(n)) for n in range(1_001)])
    await store.record([restored(0.0, later)])

    assert await store.prune(before=later) == 2_201

    assert (await store.messages(), await store.events()) == ([], [restored(0.0, later)])


# Many at once, and those who do not wait


async def test_a_write_that_is_wrong_fails_alone(store: Store) -> None:
    writes = [store.accept(question(str(n // 2)), "claude", "opus") for n in range(20)]

    results = await asyncio.gather(*writes, return_exceptions=True)

    assert [type(result) for result in results] == [type(None), ValueError] * 10
    assert [m.id for m in await store.messages()] == [str(n) for n in range(10)]


async def test_a_thousand_writers_lose_nothing(store: Store) -> None:
    async def talk(n: int) -> None:
        await tell(store, question(str(n), f"c{n % 100}"), restored(float(n)))

    await asyncio.gather(*(talk(n) for n in range(1_000)))

    assert len(await store.messages(limit=2_000)) == 1_000
    histories = [await store.history(f"c{n}", 20) for n in range(100)]
    assert {len(turns) for turns in histories} == {10}
    assert len(await store.events(limit=2_000)) == 1_000


async def test_a_write_nobody_waits_for_still_happens_in_its_turn(store: Store) -> None:
    store.accept(question("1"), "claude", "opus")
    store.settle(answer(question("1")), [OK])
    store.keep_setting("name", "first")
    await store.keep_setting("name", "second")

    assert await store.history("c", 9) == [answer(question("1"))]
    assert await store.setting("name") == "second"


async def test_a_write_whose_waiter_is_cancelled_still_happens(store: Store) -> None:
    async def write() -> None:
        await store.accept(question("1"), "claude", "opus")

    task = asyncio.create_task(write())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.accept(question("2"), "claude", "opus")

    assert [m.id for m in await store.messages()] == ["1", "2"]


# Open and closed


async def test_what_was_written_outlives_closing(unopened: Store) -> None:
    await unopened.open()
    unopened.record(EVENTS)
    await unopened.close()

    await unopened.open()

    assert await unopened.events() == EVENTS
    await unopened.close()


async def test_opening_and_closing_twice_is_once(unopened: Store) -> None:
    await unopened.close()
    await asyncio.gather(unopened.open(), unopened.open())
    await tell(unopened, question())

    await asyncio.gather(unopened.close(), unopened.close())
    await unopened.close()


@pytest.mark.parametrize("state", ["not open yet", "closed"])
async def test_only_an_open_store_answers(unopened: Store, state: str) -> None:
    if state == "closed":
        await unopened.open()
        await unopened.close()

    for use in (
        lambda: unopened.accept(question(), "claude", "opus"),
        lambda: unopened.attempt("m1", 2, "claude", "opus"),
        lambda: unopened.settle(answer(question()), [OK]),
        lambda: unopened.orphans(),
        lambda: unopened.history("c", 1),
        lambda: unopened.messages(),
        lambda: unopened.attempts("m1"),
        lambda: unopened.record(EVENTS),
        lambda: unopened.remember([memory()]),
        lambda: unopened.recall(),
        lambda: unopened.events(),
        lambda: unopened.setting("x"),
        lambda: unopened.keep_setting("x", "y"),
        lambda: unopened.keep_snapshot("x", "y"),
        lambda: unopened.snapshots(),
        lambda: unopened.post_command("x", "y", "z"),
        lambda: unopened.take_commands("x"),
        lambda: unopened.answer_command(1, True, "x"),
        lambda: unopened.command(1),
        lambda: unopened.check(),
        lambda: unopened.prune(before=NOON),
    ):
        with pytest.raises(StoreError, match=state):
            await use()
