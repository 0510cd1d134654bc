"""Publish and subscribe within one process."""

import asyncio

import pytest

from zejzl.engine.channels import Channels
from zejzl.errors import BusNotRunning
from zejzl.messages import Message


def message(text: str) -> Message:
    return Message.create(content=text, sender="me", provider="offline")


@pytest.mark.parametrize(
    ("pattern", "topic", "hears"),
    [
        ("agents.plan", "agents.plan", True),
        ("agents.*", "agents.plan", True),
        ("agents.*", "agents.plan.step", True),
        ("agents.*", "agent.plan", False),
        ("*", "anything", True),
        ("a?c", "abc", True),
        ("[ab].x", "b.x", True),
        ("[ab].x", "c.x", False),
        ("a.b", "a-b", False),
    ],
)
def test_a_pattern_hears_what_it_matches(pattern: str, topic: str, hears: bool) -> None:
    channels = Channels(10)
    subscription = channels.subscribe(pattern)

    heard = channels.publish(topic, message("x"))

    assert (heard, len(subscription)) == ((1, 1) if hears else (0, 0))


async def test_a_slow_subscriber_misses_the_oldest_and_holds_nobody_up() -> None:
    channels = Channels(3)
    slow, quick = channels.subscribe("t"), channels.subscribe("t")

    got = []
    for n in range(10):
        channels.publish("t", message(str(n)))
        got.append((await quick.get()).content)

    assert got == [str(n) for n in range(10)]
    assert slow.missed == 7
    assert [(await slow.get()).content for _ in range(3)] == ["7", "8", "9"]
    assert quick.missed == 0


async def test_a_waiting_subscriber_is_woken_by_a_message_and_knows_its_topic() -> None:
    channels = Channels(3)
    subscription = channels.subscribe("a.*")
    waiting = asyncio.create_task(subscription.get())
    await asyncio.sleep(0)

    channels.publish("a.b", message("x"))

    assert (await waiting).content == "x"
    assert subscription.topic == "a.b"


async def test_two_who_wait_on_one_subscription_share_its_messages() -> None:
    channels = Channels(3)
    subscription = channels.subscribe("t")
    waiting = [asyncio.create_task(subscription.get()) for _ in range(2)]
    await asyncio.sleep(0)

    channels.publish("t", message("1"))
    channels.publish("t", message("2"))

    assert sorted([(await each).content for each in waiting]) == ["1", "2"]


async def test_a_cancelled_waiter_takes_no_message_with_it() -> None:
    channels = Channels(3)
    subscription = channels.subscribe("t")
    first = asyncio.create_task(subscription.get())
    second = asyncio.create_task(subscription.get())
    await asyncio.sleep(0)

    channels.publish("t", message("x"))  # wakes the first
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)

    assert (await asyncio.wait_for(second, 1.0)).content == "x"


async def test_iteration_ends_when_the_subscription_is_closed_and_its_queue_is_empty() -> None:
    channels = Channels(3)
    async with channels.subscribe("t") as subscription:
        channels.publish("t", message("1"))
        channels.publish("t", message("2"))

    assert [each.content async for each in subscription] == ["1", "2"]
    assert channels.publish("t", message("3")) == 0
    with pytest.raises(BusNotRunning, match="closed"):
        await subscription.get()


async def test_closing_all_wakes_those_who_wait() -> None:
    channels = Channels(3)
    waiting = asyncio.create_task(channels.subscribe("t").get())
    await asyncio.sleep(0)

    await channels.close()

    with pytest.raises(BusNotRunning):
        await waiting
