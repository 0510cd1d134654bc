"""What only the store in memory must see to: that it does not grow for ever."""

import pytest

from zejzl.events import BudgetRestored, utc
from zejzl.messages import Attempt, Message
from zejzl.stores import InMemoryStore

OK = Attempt("a", "m", "ok", 0.1)


def question(id: str) -> Message:
    return Message(
        id=id,
        content=id,
        timestamp=utc(0.0),
        sender="me",
        provider="a",
        conversation_id="c",
    )


async def test_the_oldest_settled_messages_go_when_there_are_too_many() -> None:
    store = InMemoryStore(limit=3)
    await store.open()
    await store.accept(question("under way"), "a", "m")

    for n in range(10):
        await store.accept(question(f"{n}"), "a", "m")
        await store.settle(question(f"{n}").answered("yes", "a", 0.1), [OK])

    assert [message.id for message in await store.messages()] == ["under way", "8", "9"]
    assert [message.id for message in await store.history("c", 99)] == ["8", "9"]
    assert await store.attempts("7") == []


async def test_the_oldest_events_go_when_there_are_too_many() -> None:
    store = InMemoryStore(limit=3)
    await store.open()

    for n in range(10):
        await store.record([BudgetRestored(amount=n, reason="x", timestamp=utc(n))])

    assert [getattr(event, "amount", None) for event in await store.events()] == [7, 8, 9]


async def test_the_oldest_commands_go_when_there_are_too_many() -> None:
    store = InMemoryStore(limit=3)
    await store.open()

    ids = [await store.post_command("bus", f"{n}", "{}") for n in range(10)]

    assert [id for id, _, _ in await store.take_commands("bus")] == ids[-3:]


async def test_a_conversation_that_was_forgotten_can_begin_again() -> None:
    store = InMemoryStore(limit=1)
    await store.open()
    for id in ("one", "two"):
        await store.accept(question(id), "a", "m")
        await store.settle(question(id).answered("yes", "a", 0.1), [OK])

    assert [message.id for message in await store.history("c", 9)] == ["two"]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        InMemoryStore(limit=limit)
