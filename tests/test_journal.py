"""What the store is told of each request, and whose turn it is in a conversation."""

import asyncio
import logging
from typing import Any

import pytest

from ai_framework import Message
from zejzl.engine.journal import Conversations, Journal, unheard
from zejzl.errors import CircuitOpen, ConversationBusy, StoreError
from zejzl.magic.breakers import CircuitBreaker, CircuitBreakerConfig
from zejzl.stores import InMemoryStore
from zejzl.testing import FakeClock


def question() -> Message:
    return Message.create(content="hello", sender="me", provider="a")


async def test_a_store_that_keeps_failing_is_left_alone_and_tried_again_later() -> None:
    clock = FakeClock()
    calls = []

    class Broken(InMemoryStore):
        well = False

        def accept(self, message: Message, provider: str, model: str, **kept: Any):  # type: ignore[no-untyped-def]
            calls.append(message)
            if not self.well:
                raise StoreError("the disk is full")
            return super().accept(message, provider, model, **kept)

    store = Broken()
    await store.open()
    breaker = CircuitBreaker(CircuitBreakerConfig(5, 60.0), name="persistence", clock=clock)
    journal = Journal(store, breaker, clock)
    for _ in range(5):
        with pytest.raises(StoreError):
            await journal.accept(question(), "a", "m", None)

    with pytest.raises(CircuitOpen, match="disk is full"):
        await journal.accept(question(), "a", "m", None)
    called = len(calls)
    store.well = True
    await clock.advance(60.0)
    await journal.accept(question(), "a", "m", None)

    assert called == 5
    assert breaker.state == "closed"


async def test_a_callers_mistake_does_not_count_against_the_store() -> None:
    clock = FakeClock()
    store = InMemoryStore()
    await store.open()
    breaker = CircuitBreaker(name="persistence", clock=clock)
    journal = Journal(store, breaker, clock)
    message = question()
    await journal.accept(message, "a", "m", None)

    for _ in range(9):
        with pytest.raises(ValueError):
            await journal.accept(message, "a", "m", None)

    assert (breaker.state, breaker.failure_count) == ("closed", 0)


async def test_a_write_that_nobody_waits_for_is_logged_when_it_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    written: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    unheard(written)

    with caplog.at_level(logging.WARNING):
        written.set_exception(StoreError("the disk is full"))
        await asyncio.sleep(0)

    assert "the disk is full" in caplog.text


async def test_a_conversation_is_held_by_one_and_passed_on_in_order() -> None:
    conversations = Conversations(FakeClock())
    order = []

    async def turn(name: str) -> None:
        await conversations.begin("c", None)
        order.append(name)
        await asyncio.sleep(0)
        order.append(name)
        conversations.end("c")

    await asyncio.gather(*(turn(name) for name in "xyz"))

    assert order == list("xxyyzz")


async def test_a_turn_that_does_not_come_in_time_is_refused_and_leaves_nothing_behind() -> None:
    clock = FakeClock()
    conversations = Conversations(clock)
    await conversations.begin("c", None)

    waiting = asyncio.create_task(conversations.begin("c", 2.0))
    await clock.advance(2.0)
    with pytest.raises(ConversationBusy, match="'c' was busy"):
        await waiting
    conversations.end("c")
    await conversations.begin("c", 0.1)
    conversations.end("c")

    assert not conversations._lines


async def test_a_cancelled_wait_for_a_turn_lets_the_next_one_have_it() -> None:
    conversations = Conversations(FakeClock())
    await conversations.begin("c", None)
    first = asyncio.create_task(conversations.begin("c", None))
    second = asyncio.create_task(conversations.begin("c", None))
    await asyncio.sleep(0)

    first.cancel()
    conversations.end("c")
    await second
    conversations.end("c")

    assert first.cancelled()
    assert not conversations._lines
