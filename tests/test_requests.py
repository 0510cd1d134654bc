"""What every store knows of a request beside its words: terms, waiting, costs, claims."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.test_stores import NOON, SetClock, answer, question
from zejzl.errors import SpendLimitReached
from zejzl.messages import Attempt, Bill
from zejzl.ports import KeyTaken, SpendLimits, Store, Terms
from zejzl.stores import InMemoryStore, SqliteStore

LATER = NOON + timedelta(minutes=5)
ESTIMATE = Bill(100, 50, 0.5, settled=False)
SETTLED = Bill(90, 10, 0.2)
OK = Attempt("claude", "opus", "ok", 0.25, bill=SETTLED, at=NOON)
FAILED = Attempt("claude", "opus", "server_error", 0.1, error="it broke", at=NOON)
PARKS = Terms(parks=True, options='{"model": "opus"}')


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture(params=["memory", "sqlite"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: SetClock
) -> AsyncIterator[Store]:
    made: Store
    if request.param == "memory":
        made = InMemoryStore(clock=clock)
    else:
        made = SqliteStore(tmp_path / "zejzl.db", clock=clock)
    await made.open()
    yield made
    assert await made.check() == []
    await made.close()


async def park(
    store: Store, id: str = "m1", due_at: datetime | None = LATER, tries: int = 0
) -> None:
    await store.accept(question(id), "claude", "opus", terms=PARKS)
    waiting = replace(question(id), error="parked: it broke")
    await store.park(waiting, [FAILED], tries=tries, due_at=due_at)


# Keys


async def test_a_key_is_taken_once(store: Store) -> None:
    await store.accept(question("m1"), "claude", "opus", terms=Terms(key="k"))

    with pytest.raises(KeyTaken, match="'k' exists"):
        await store.accept(question("m2"), "claude", "opus", terms=Terms(key="k"))

    assert [each.id for each in await store.messages()] == ["m1"]
    await store.settle(answer(question("m1")), [OK])


async def test_a_request_is_found_by_its_key_and_by_its_id(store: Store) -> None:
    terms = Terms(key="k", options='{"max_tokens": 5}')
    await store.accept(question("m1"), "claude", "opus", terms=terms)
    await store.settle(answer(question("m1")), [OK], model="opus-1", finish_reason="length")

    by_key, by_id = await store.kept(key="k"), await store.kept(id="m1")

    assert by_key == by_id
    assert by_id is not None
    assert (by_id.state, by_id.terms, by_id.attempts) == ("settled", terms, (OK,))
    assert (by_id.model, by_id.finish_reason) == ("opus-1", "length")
    assert by_id.message.response == "answer m1"
    assert await store.kept(key="other") is None
    assert await store.kept(id="other") is None


async def test_the_key_of_a_message_that_was_forgotten_is_free_again(store: Store) -> None:
    await store.accept(question("m1"), "claude", "opus", terms=Terms(key="k"))
    await store.settle(answer(question("m1")), [OK])
    await store.prune(before=LATER)

    await store.accept(question("m2"), "claude", "opus", terms=Terms(key="k"))

    await store.settle(answer(question("m2")), [OK])


# Taking up again


async def test_a_failed_request_is_taken_up_again_with_its_attempts(store: Store) -> None:
    await store.accept(question(), "claude", "opus")
    await store.settle(replace(question(), error="it broke"), [FAILED])

    assert await store.reopen("m1")
    await store.attempt("m1", 2, "grok", "g")
    kept = await store.kept(id="m1")
    await store.settle(answer(question()), [FAILED, OK])

    assert kept is not None
    assert (kept.state, kept.message.error) == ("accepted", None)
    assert [each.outcome for each in kept.attempts] == ["server_error", ""]
    assert [each.content for each in await store.history("c", 9)] == ["question m1"]


@pytest.mark.parametrize("how", ["answered", "under way", "unknown"])
async def test_what_is_answered_or_under_way_is_not_taken_up_again(store: Store, how: str) -> None:
    await store.accept(question(), "claude", "opus")
    if how == "answered":
        await store.settle(answer(question()), [OK])

    assert not await store.reopen("other" if how == "unknown" else "m1")

    if how != "answered":
        await store.settle(answer(question()), [OK])


# Parking


async def test_parked_work_is_listed_and_claimed_once_when_it_is_due(store: Store) -> None:
    await park(store)

    early = await store.take_parked(before=LATER - timedelta(seconds=1))
    listed, due = await store.parked(), await store.next_due()
    taken = await store.take_parked(before=LATER)
    again = await store.take_parked(before=LATER)

    assert early == again == []
    assert [(each.state, each.due_at, each.message.error) for each in listed] == [
        ("parked", LATER, "parked: it broke")
    ]
    assert due == LATER
    assert [(each.message.id, each.state, each.terms) for each in taken] == [
        ("m1", "accepted", PARKS)
    ]
    assert taken[0].attempts == (FAILED,)
    assert [each.state for each in await store.parked()] == ["accepted"]
    assert await store.next_due() is None
    await store.settle(answer(question()), [FAILED, OK])
    assert await store.parked() == []


async def test_the_longest_due_is_taken_first_and_no_more_than_asked_for(store: Store) -> None:
    for minutes, id in ((3, "m3"), (1, "m1"), (2, "m2")):
        await park(store, id, NOON + timedelta(minutes=minutes))

    taken = await store.take_parked(before=LATER, limit=2)

    assert [each.message.id for each in taken] == ["m1", "m2"]
    for each in taken:
        await store.park(replace(each.message, error="x"), [], tries=1, due_at=LATER)


async def test_what_is_given_up_stays_until_somebody_takes_it_up(store: Store) -> None:
    await park(store, due_at=None, tries=3)

    taken = await store.take_parked(before=LATER)
    (dead,) = await store.parked()

    assert taken == []
    assert (dead.state, dead.tries, dead.due_at) == ("dead", 3, None)
    assert await store.reopen("m1")
    await store.settle(answer(question()), [OK])


async def test_parked_work_is_not_pruned_and_dead_letters_are(store: Store) -> None:
    await park(store, "waits")
    await park(store, "dead", due_at=None)

    await store.prune(before=LATER + timedelta(days=1))

    assert [each.message.id for each in await store.parked()] == ["waits"]


async def test_only_what_is_under_way_can_be_parked_or_settled(store: Store) -> None:
    await park(store)

    with pytest.raises(ValueError, match="is parked: take it up again first"):
        await store.settle(answer(question()), [OK])
    with pytest.raises(ValueError, match="is parked"):
        await store.park(replace(question(), error="x"), [], tries=1, due_at=LATER)


async def test_what_a_dead_process_had_in_hand_is_found_as_parked_work_and_not_as_an_orphan(
    tmp_path: Path, clock: SetClock
) -> None:
    dead = SqliteStore(tmp_path / "zejzl.db", clock=clock)
    await dead.open()
    await dead.accept(question("parks"), "claude", "opus", terms=PARKS, bill=ESTIMATE)
    await dead.accept(question("orphan"), "claude", "opus", bill=ESTIMATE)
    await dead.close()  # lets go of its lock, as the kernel does when a process dies
    live = SqliteStore(tmp_path / "zejzl.db", clock=clock)
    await live.open()

    found = await live.kept(id="orphan")
    orphans = await live.orphans()
    taken = await live.take_parked(before=NOON)

    assert found is not None and found.abandoned
    assert [each.message.id for each in orphans] == ["orphan"]
    assert [each.message.id for each in taken] == ["parks"]
    assert taken[0].attempts[0].bill == ESTIMATE
    await live.close()


async def test_two_who_take_parked_work_at_once_get_other_rows(
    tmp_path: Path, clock: SetClock
) -> None:
    stores = [SqliteStore(tmp_path / "zejzl.db", clock=clock) for _ in range(2)]
    for store in stores:
        await store.open()
    for number in range(20):
        await park(stores[0], f"m{number}")

    taken = await asyncio.gather(*(store.take_parked(before=LATER, limit=15) for store in stores))

    ids = [each.message.id for some in taken for each in some]
    assert len(ids) == len(set(ids)) == 20
    for store in stores:
        await store.close()


# Costs


async def test_a_call_is_in_the_sums_from_the_moment_it_begins(store: Store) -> None:
    await store.accept(question(), "claude", "opus", bill=ESTIMATE)

    (begun,) = await store.spending()
    await store.settle(answer(question()), [OK])
    (settled,) = await store.spending()

    assert (begun.calls, begun.unsettled, begun.unsettled_usd) == (1, 1, 0.5)
    assert (begun.day, begun.provider, begun.model) == ("2026-11-22", "claude", "opus")
    assert (settled.calls, settled.unsettled, round(settled.cost_usd, 9)) == (1, 0, 0.2)
    assert (settled.prompt_tokens, settled.completion_tokens) == (90, 10)


async def test_every_call_of_a_request_counts_and_one_that_never_was_does_not(
    store: Store,
) -> None:
    await store.accept(question(), "claude", "opus", bill=ESTIMATE)
    await store.attempt("m1", 2, "grok", "g", bill=ESTIMATE)
    await store.attempt("m1", 3, "grok", "g", bill=ESTIMATE)
    cut = replace(FAILED, bill=replace(ESTIMATE, completion_tokens=7))
    await store.settle(answer(question()), [cut, replace(OK, provider="grok", model="g")])

    claude, grok = await store.spending()

    assert (claude.calls, claude.completion_tokens, claude.unsettled) == (1, 7, 1)
    assert (grok.calls, grok.unsettled) == (1, 0)


async def test_calls_of_unknown_price_are_counted_as_such(store: Store) -> None:
    await store.accept(question(), "claude", "opus", bill=Bill(5, 5, None, settled=False))

    (found,) = await store.spending()

    assert (found.unpriced, found.cost_usd) == (1, 0.0)
    await store.settle(answer(question()), [OK])


async def test_spending_outlives_the_messages(store: Store) -> None:
    await store.accept(question(), "claude", "opus", bill=ESTIMATE)
    await store.settle(answer(question()), [OK])
    await store.prune(before=LATER)

    assert [each.calls for each in await store.spending()] == [1]
    assert await store.spending(since="2026-11-23") == []


async def test_the_spending_of_one_conversation_is_its_own(store: Store) -> None:
    for id, conversation_id in (("m1", "c"), ("m2", "d"), ("m3", None)):
        await store.accept(question(id, conversation_id), "claude", "opus", bill=ESTIMATE)
        await store.settle(answer(question(id, conversation_id)), [OK])

    (found,) = await store.spending(conversation_id="c")

    assert (found.calls, round(found.cost_usd, 9)) == (1, 0.2)


@pytest.mark.parametrize("scope", ["day", "conversation"])
async def test_a_call_beyond_a_limit_is_refused_and_nothing_is_written(
    store: Store, scope: str
) -> None:
    limits = SpendLimits(**{scope: 0.9})
    await store.accept(question("m1"), "claude", "opus", bill=ESTIMATE, limits=limits)

    with pytest.raises(SpendLimitReached, match=r"\$0\.5000 of \$0\.9 are spent") as refused:
        await store.accept(question("m2"), "claude", "opus", bill=ESTIMATE, limits=limits)
    with pytest.raises(SpendLimitReached):
        await store.attempt("m1", 2, "claude", "opus", bill=ESTIMATE, limits=limits)

    assert [each.id for each in await store.messages()] == ["m1"]
    assert [each.calls for each in await store.spending()] == [1]
    assert refused.value.name == ("day" if scope == "day" else "c")
    assert refused.value.retry_after == (12 * 3600.0 if scope == "day" else float("inf"))
    await store.settle(answer(question("m1")), [OK])
    await store.accept(question("m3"), "claude", "opus", bill=ESTIMATE, limits=limits)
    await store.settle(answer(question("m3")), [OK])


async def test_a_conversations_limit_says_nothing_of_others(store: Store) -> None:
    limits = SpendLimits(conversation=0.9)
    for id, conversation_id in (("m1", "c"), ("m2", "d"), ("m3", None)):
        asked = question(id, conversation_id)
        await store.accept(asked, "claude", "opus", bill=ESTIMATE, limits=limits)
        await store.settle(answer(asked), [OK])


async def test_a_limit_refuses_what_it_cannot_price(store: Store) -> None:
    unpriced = Bill(5, 5, None, settled=False)

    with pytest.raises(SpendLimitReached, match="no price is known for claude/opus: add it"):
        await store.accept(
            question(), "claude", "opus", bill=unpriced, limits=SpendLimits(day=100.0)
        )


async def test_a_new_day_has_its_limit_for_itself(store: Store, clock: SetClock) -> None:
    limits = SpendLimits(day=0.6)
    await store.accept(question("m1"), "claude", "opus", bill=ESTIMATE, limits=limits)
    clock.time += 12 * 3600.0

    await store.accept(question("m2"), "claude", "opus", bill=ESTIMATE, limits=limits)

    assert [each.day for each in await store.spending()] == ["2026-11-22", "2026-11-23"]
    for id in ("m1", "m2"):
        await store.settle(answer(question(id)), [OK])


async def test_a_crowd_at_once_does_not_spend_beyond_a_limit(store: Store) -> None:
    limits = SpendLimits(day=5.0)

    async def ask(number: int) -> bool:
        try:
            asked = question(f"m{number}")
            await store.accept(asked, "claude", "opus", bill=ESTIMATE, limits=limits)
        except SpendLimitReached:
            return False
        return True

    accepted = await asyncio.gather(*map(ask, range(30)))

    assert sum(accepted) == 10
    for number, ok in enumerate(accepted):
        if ok:
            await store.settle(answer(question(f"m{number}")), [OK])


# Settings that several change


async def test_a_setting_is_revised_by_one_after_the_other(store: Store) -> None:
    def count(value: str | None) -> tuple[str | None, int]:
        number = int(value or 0) + 1
        return str(number), number

    numbers = await asyncio.gather(*(store.revise("n", count) for _ in range(20)))

    assert sorted(numbers) == list(range(1, 21))
    assert await store.setting("n") == "20"
    assert await store.revise("n", lambda value: (None, value)) == "20"
    assert await store.setting("n") is None


async def test_a_revision_that_fails_changes_nothing(store: Store) -> None:
    await store.keep_setting("n", "1")

    def fail(value: str | None) -> tuple[str | None, None]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.revise("n", fail)

    assert await store.setting("n") == "1"
