"""Publish and subscribe within one process: fire and forget, to bounded queues.

A topic is text with dots ("agents.plan"); a pattern may hold `*` (any characters), `?` (one) and
`[…]` (one of these). A subscriber that falls behind loses the oldest and is told how many; it
never holds up a publisher or another subscriber.
"""

import asyncio
import re
from collections import deque
from fnmatch import translate
from types import TracebackType
from typing import NamedTuple, Self

from zejzl.errors import BusNotRunning
from zejzl.messages import Message


class Delivery(NamedTuple):
    """A message and the topic it came on."""

    topic: str
    message: Message


class Subscription:
    """One subscriber's queue. Iterate over it, or call `get`.

    Attributes:
        pattern: The topics it hears.
        missed: Messages it lost because it fell behind.
        topic: The topic of the message that `get` returned last.
    """

    def __init__(self, channels: "Channels", pattern: str, size: int) -> None:
        self._channels = channels
        self._size = size
        self._matches = re.compile(translate(pattern)).match
        self._queue: deque[Delivery] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self.pattern = pattern
        self.missed = 0
        self.topic = ""

    async def get(self) -> Message:
        """Return the next message; wait for it if there is none.

        Raises:
            BusNotRunning: If the subscription is closed and nothing is left in its queue.
        """
        while not self._queue:
            if self._closed:
                raise BusNotRunning(f"the subscription to {self.pattern!r} is closed")
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except BaseException:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # woken and cancelled at once: let another take the message
                elif waiter in self._waiting:  # not, if it was passed over or all were let go
                    self._waiting.remove(waiter)
                raise
        self.topic, message = self._queue.popleft()
        return message

    async def close(self) -> None:
        """Hear no more; what is in the queue can still be had."""
        self._closed = True
        self._channels.drop(self)
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()

    def hears(self, topic: str) -> bool:
        """Whether `topic` matches the pattern."""
        return self._matches(topic) is not None

    def put(self, delivery: Delivery) -> None:
        """Queue a message; the oldest goes when the queue is full."""
        if len(self._queue) >= self._size:
            self._queue.popleft()
            self.missed += 1
        self._queue.append(delivery)
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def __len__(self) -> int:
        return len(self._queue)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.get()
        except BusNotRunning:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class Channels:
    """All subscriptions of one bus."""

    def __init__(self, queue_size: int) -> None:
        self._queue_size = queue_size
        self._subscriptions: dict[Subscription, None] = {}

    def subscribe(self, pattern: str) -> Subscription:
        """Return a new subscription to every topic that matches `pattern`."""
        subscription = Subscription(self, pattern, self._queue_size)
        self._subscriptions[subscription] = None
        return subscription

    def publish(self, topic: str, message: Message) -> int:
        """Queue `message` for all who hear `topic`; return how many that were."""
        heard = [each for each in self._subscriptions if each.hears(topic)]
        for subscription in heard:
            subscription.put(Delivery(topic, message))
        return len(heard)

    def drop(self, subscription: Subscription) -> None:
        """Forget a subscription."""
        self._subscriptions.pop(subscription, None)

    async def close(self) -> None:
        """End all subscriptions."""
        for subscription in list(self._subscriptions):
            await subscription.close()
