"""The loop that runs by itself: it finds the bad provider, tries the other order, and keeps it."""

import json
from random import Random
from typing import Any

from ai_framework import AsyncMessageBus
from tests.driving import finished, make_bus
from zejzl.engine.improving import ENOUGH, SPACING
from zejzl.errors import Rejected, ServerError
from zejzl.messages import Reply, Request, Usage
from zejzl.testing import FakeClock


class Unsteady:
    """Answers at once, and fails a share of its calls."""

    default_model = "m"

    def __init__(self, name: str, fails: float) -> None:
        self.name = name
        self.fails = fails
        self._rng = Random(name)

    async def generate(self, request: Request) -> Reply:
        if self._rng.random() < self.fails:
            raise ServerError("it fails now and then", status=500)
        return Reply(text="yes", provider=self.name, model="m", usage=Usage(1, 1))

    async def cleanup(self) -> None:
        pass


async def unsteady_bus(clock: FakeClock, **settings: Any) -> AsyncMessageBus:
    """Return a bus whose first provider fails a third of its calls."""
    bus = make_bus(clock, max_attempts=1, hedging=False, **settings)
    await bus.start()
    await bus.register_provider("bad", Unsteady("bad", 0.33))
    await bus.register_provider("good", Unsteady("good", 0.01))
    return bus


async def send_many(bus: AsyncMessageBus, clock: FakeClock, n: int, prefix: str) -> float:
    """Return the share of requests that are answered; every other one pins its provider."""
    answered = 0
    for number in range(n):
        await clock.advance(20.0)
        try:
            pinned = None if number % 2 else False
            how: dict[str, Any] = {"conversation_id": f"{prefix}{number}", "failover": pinned}
            await finished(clock, bus.send("hello", **how))
            answered += 1
        except (ServerError, Rejected):
            pass
    return answered / n


async def test_it_finds_the_bad_provider_tries_the_other_order_and_keeps_what_is_better() -> None:
    clock = FakeClock()
    bus = await unsteady_bus(clock)
    before = await send_many(bus, clock, 300, "a")

    tried = []
    for round in range(3):
        tried.append(await bus._improving.look())
        await send_many(bus, clock, 600, f"b{round}-")
    after = await send_many(bus, clock, 200, "c")

    assert any(name and name.startswith("auto reorder_providers-") for name in tried)
    ended = {str(each["name"]): each["state"] for each in bus.experiments}
    assert "kept" in ended.values()
    assert list(bus.providers) == ["good", "bad"]
    assert after > max(before, 0.97)
    await bus.stop()


async def test_one_thing_is_tried_at_a_time_and_not_again_for_a_week() -> None:
    clock = FakeClock()
    bus = await unsteady_bus(clock)
    await send_many(bus, clock, 300, "a")
    first = await bus._improving.look()
    await send_many(bus, clock, ENOUGH, "b")

    while_it_runs = await bus._improving.look()
    assert first is not None
    await bus.stop_experiment(first)
    again = await bus._improving.look()

    assert while_it_runs is None
    assert again != first
    kept = json.loads(await bus.store.setting("auto_improve") or "")
    assert any(id in first for id in kept)
    await bus.stop()


async def test_what_somebody_took_back_is_never_tried_again() -> None:
    clock = FakeClock()
    bus = await unsteady_bus(clock)
    await send_many(bus, clock, 300, "a")
    first = await bus._improving.look()
    assert first is not None
    await bus.stop_experiment(first)
    change = str(bus.experiments[0]["change"])
    await bus.apply({"id": change, "settings": {"max_attempts": 3}})
    await bus.revert(change)
    await clock.advance(8 * 86_400.0)
    await send_many(bus, clock, ENOUGH, "b")

    again = await bus._improving.look()

    assert again is None or again.split()[1] != first.split()[1]
    await bus.stop()


async def test_nothing_is_looked_for_before_there_is_enough_to_look_at() -> None:
    clock = FakeClock()
    bus = await unsteady_bus(clock)
    await send_many(bus, clock, 20, "a")

    assert await bus._improving.look() is None
    assert bus.experiments == []
    await bus.stop()


async def test_a_bus_whose_providers_are_alike_is_left_alone() -> None:
    clock = FakeClock()
    bus = make_bus(clock, hedging=False)
    await bus.start()
    for name in ("a", "b"):
        await bus.register_provider(name, Unsteady(name, 0.0))
    await send_many(bus, clock, ENOUGH, "a")

    assert await bus._improving.look() is None
    await bus.stop()


async def test_what_cannot_be_read_of_the_past_is_forgotten() -> None:
    clock = FakeClock()
    bus = await unsteady_bus(clock)
    await bus.store.keep_setting("auto_improve", '["rubbish"]')
    await send_many(bus, clock, 300, "a")

    assert await bus._improving.look() is not None
    await bus.stop()


async def test_it_is_off_unless_the_setting_says_so() -> None:
    clock = FakeClock()
    for on, tasks in ((False, []), (True, ["zejzl-improving"])):
        bus = make_bus(clock, auto_improve=on)
        await bus.start()

        names = [task.get_name() for task in bus._upkeep._tasks]

        assert [name for name in names if name == "zejzl-improving"] == tasks
        await clock.advance(SPACING + 1.0)
        await bus.stop()
