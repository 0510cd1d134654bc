"""Work that can wait is kept when nobody can answer, and answered when somebody can."""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import assert_nothing_is_left, finished, make_bus, register
from zejzl.errors import (
    BadRequest,
    BusNotRunning,
    CircuitOpen,
    GivenUp,
    NoSuchRequest,
    Parked,
    RateLimited,
    RequestUnderWay,
    ServerError,
    SpendLimitReached,
    StoreError,
)
from zejzl.events import RequestParked, utc
from zejzl.messages import Bill, Message
from zejzl.ports import Kept, Terms
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore, SqliteStore
from zejzl.testing import FakeClock, ScriptedProvider

DEAR = '[prices]\n"a/*" = { prompt = 9e3, completion = 9e3 }\n'
DOWN = ServerError("down", status=503)


async def parked(bus: AsyncMessageBus, clock: FakeClock, text: str = "hello", **how: Any) -> Parked:
    """Send something that nobody can answer at present."""
    with pytest.raises(Parked) as ticket:
        await finished(clock, bus.send(text, park=True, **how))
    return ticket.value


async def test_a_request_that_nobody_can_answer_is_parked_with_its_cause() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_spacing=600.0) as bus:
        await register(bus, clock, a=DOWN)

        ticket = await parked(bus, clock, conversation_id="c", system="be brief")
        (waiting,) = await bus.parked()

        assert isinstance(ticket.__cause__, ServerError)
        assert {each.provider for each in ticket.attempts} == {"a"}  # type: ignore[attr-defined]
        assert (waiting.id, waiting.state, waiting.tries) == (ticket.id, "waiting", 0)
        assert waiting.due_at == ticket.due_at
        assert "down" in waiting.causes[0]
        assert waiting.message.content == "hello"
        assert await bus.history("c") == []
        events = await bus.store.events(type="request_parked")
        assert [isinstance(each, RequestParked) and each.given_up for each in events] == [False]
        await assert_nothing_is_left(bus)


async def test_one_that_is_refused_without_a_call_is_parked_as_well() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_spacing=600.0) as bus:
        (a,) = await register(bus, clock, a=DOWN)
        for _ in range(4):
            with pytest.raises((ServerError, CircuitOpen)):
                await finished(clock, bus.send("hello", patience=0.0))
        called = len(a.requests)

        ticket = await parked(bus, clock, patience=0.0)

        assert isinstance(ticket.__cause__, CircuitOpen)
        assert len(a.requests) == called
        assert [each.id for each in await bus.parked()] == [ticket.id]


async def test_parked_work_is_answered_when_its_circuit_breaker_closes() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_spacing=600.0) as bus:
        (a,) = await register(bus, clock, a=DOWN)
        ticket = await parked(
            bus, clock, conversation_id="c", system="be brief", max_tokens=50, provider="a"
        )
        a.play("well again")

        while bus.magic.circuit_breakers["ai_provider:a"].state != "closed":
            await clock.advance(1.0)
            with pytest.raises(CircuitOpen):
                await finished(clock, bus.send("are you there?", patience=0.0))
                raise CircuitOpen("a", 0.0)
        reply = await finished(clock, bus.result(ticket.id, wait=10.0))

        assert (reply.text, reply.provider, reply.id) == ("well again", "a", ticket.id)
        assert not reply.maybe_duplicate
        asked = next(each for each in a.requests[::-1] if each.content == "hello")
        assert (asked.system, asked.max_tokens) == ("be brief", 50)
        assert [each.response for each in await bus.history("c")] == ["well again"]
        assert await bus.parked() == []
        await assert_nothing_is_left(bus)


async def test_without_news_it_is_taken_up_when_it_is_due() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_spacing=120.0) as bus:
        (a,) = await register(bus, clock, a=DOWN)
        ticket = await parked(bus, clock)
        a.play("well again")
        await clock.advance(100.0)
        early = [each.state for each in await bus.parked()]

        await clock.advance(30.0)

        assert early == ["waiting"]
        assert (await bus.result(ticket.id)).text == "well again"


async def test_after_as_many_tries_as_allowed_it_is_a_dead_letter_with_its_causes() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_spacing=60.0, park_tries=2) as bus:
        (a,) = await register(bus, clock, a=DOWN)
        ticket = await parked(bus, clock)
        states = []
        for _ in range(3):
            (found,) = await bus.parked()
            states.append((found.state, found.tries))
            await clock.advance(300.0)
        called = len(a.requests)
        await clock.advance(7200.0)

        with pytest.raises(GivenUp, match="down") as given_up:
            await bus.result(ticket.id)

        assert states == [("waiting", 0), ("given up", 2), ("given up", 2)]
        assert len(a.requests) == called
        (dead,) = await bus.parked()
        assert (dead.state, dead.tries, dead.due_at) == ("given up", 2, None)
        assert dead.causes == given_up.value.causes
        events = await bus.store.events(type="request_parked")
        assert [getattr(each, "given_up", None) for each in events] == [False, False, True]


async def test_a_refusal_is_no_try() -> None:
    clock = FakeClock()
    limited = RateLimited("too many", status=429, retry_after=3600.0)
    async with make_bus(clock, park_spacing=5.0, park_tries=2, patience=0.0) as bus:
        await register(bus, clock, a=limited)
        await parked(bus, clock)

        await clock.advance(1800.0)  # all the time it is paused, as its provider has asked

        (found,) = await bus.parked()
        assert (found.state, found.tries) == ("waiting", 0)


async def test_a_dead_letter_is_replayed_with_all_its_tries() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_spacing=60.0, park_tries=1) as bus:
        (a,) = await register(bus, clock, a=DOWN)
        ticket = await parked(bus, clock)
        await clock.advance(3600.0)
        a.play("well again")
        await bus.magic.reset_circuit_breaker("a")

        await bus.replay(ticket.id)
        reply = await finished(clock, bus.result(ticket.id, wait=10.0))

        assert reply.text == "well again"
        assert len(reply.attempts) >= 3


async def test_what_is_dropped_is_settled_without_an_answer() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_spacing=600.0) as bus:
        (a,) = await register(bus, clock, a=DOWN)
        ticket = await parked(bus, clock)
        called = len(a.requests)

        await bus.drop(ticket.id)
        await clock.advance(3600.0)

        assert await bus.parked() == []
        assert len(a.requests) == called
        (message,) = await bus.store.messages()
        assert message.error is not None and message.error.startswith("dropped by hand")
        with pytest.raises(GivenUp, match="dropped by hand"):
            await bus.result(ticket.id)
        with pytest.raises(NoSuchRequest, match="it waits no more, it ended without an answer"):
            await bus.replay(ticket.id)


@pytest.mark.parametrize("what", ["result", "replay", "drop"])
async def test_an_unknown_ticket_is_told(what: str) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        with pytest.raises(NoSuchRequest, match="'nobody'") as unknown:
            await getattr(bus, what)("nobody")
        assert ("the whole is needed" in str(unknown.value)) == (what == "result")
        with pytest.raises(ValueError, match="id"):
            await getattr(bus, what)("  ")


@pytest.mark.parametrize("what", ["replay", "drop"])
async def test_what_was_never_parked_cannot_be_replayed_or_dropped(what: str) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=["well", None])
        done = (await bus.send("hello")).id
        under_way = asyncio.create_task(bus.send("hello", park=True))
        await clock.advance(0.1)
        (open_one,) = await bus.parked()

        with pytest.raises(NoSuchRequest, match="it was sent without `park`, so it never waits"):
            await getattr(bus, what)(done)
        with pytest.raises(RequestUnderWay, match="at this moment"):
            await getattr(bus, what)(open_one.id)

        under_way.cancel()
        await clock.advance(0.1)


async def test_the_callers_own_mistake_is_raised_and_not_parked() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=BadRequest("no", status=400))

        with pytest.raises(BadRequest):
            await finished(clock, bus.send("hello", park=True))

        assert await bus.parked() == []


async def test_parked_work_that_proves_wrong_is_given_up_at_once() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_spacing=60.0) as bus:
        (a,) = await register(bus, clock, a=DOWN)
        ticket = await parked(bus, clock)
        a.play(BadRequest("no", status=400))

        await clock.advance(600.0)

        with pytest.raises(GivenUp, match="no"):
            await bus.result(ticket.id)


async def test_a_caller_who_leaves_does_not_park() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=[None])
        asking = asyncio.create_task(bus.send("hello", park=True))
        await clock.advance(0.1)

        asking.cancel()
        await clock.advance(0.1)

        assert await bus.parked() == []
        await assert_nothing_is_left(bus)


async def test_many_are_taken_up_a_few_at_a_time() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_spacing=60.0) as bus:
        (a,) = await register(bus, clock, a=DOWN)
        tickets = [await parked(bus, clock, f"question {n}", patience=0.0) for n in range(30)]
        a.play(*(step for _ in range(40) for step in (1.0, "well again")))
        most = 0
        for _ in range(3000):
            await clock.advance(0.5)
            busy = [each for each in await bus.parked() if each.state == "under way"]
            most = max(most, len(busy))
            if not await bus.parked():
                break

        texts = [(await bus.result(ticket.id)).text for ticket in tickets]

        assert texts == ["well again"] * 30
        assert 1 < most <= 8
        await assert_nothing_is_left(bus)


async def test_the_offline_provider_answers_no_parked_work() -> None:
    clock = FakeClock()
    store = InMemoryStore(clock=clock)
    async with make_bus(clock, store=store, park_spacing=60.0) as bus:
        await register(bus, clock, a=DOWN)
        ticket = await parked(bus, clock)
        await bus.unregister_provider("a")
        await clock.advance(600.0)
        states = [each.state for each in await bus.parked()]

        await register(bus, clock, b="from b")
        await clock.advance(600.0)

        assert states == ["waiting"]
        assert (await bus.result(ticket.id)).provider == "b"


async def test_what_may_wait_waits_where_there_is_nobody_but_the_offline_provider() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_spacing=60.0) as bus:
        ticket = await parked(bus, clock, conversation_id="c")
        (waiting,) = await bus.parked()

        await register(bus, clock, a="from a")
        await clock.advance(600.0)

        assert "no provider's key is set" in str(ticket)
        assert waiting.attempts == ()
        assert (await bus.result(ticket.id)).text == "from a"
        await assert_nothing_is_left(bus)


async def test_work_for_a_provider_that_is_not_there_waits_for_it() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_spacing=60.0, park_tries=1) as bus:
        await register(bus, clock, a=DOWN, b="from b")
        ticket = await parked(bus, clock, provider="a")
        await bus.unregister_provider("a")
        await clock.advance(600.0)
        (waiting,) = await bus.parked()

        await register(bus, clock, a="from a")
        await clock.advance(600.0)

        assert (waiting.state, waiting.tries) == ("waiting", 0)
        assert "no provider named 'a'" in waiting.causes[-1]
        assert (await bus.result(ticket.id)).text == "from a"


async def test_what_is_under_way_when_the_bus_stops_waits_again() -> None:
    clock = FakeClock()
    store = InMemoryStore(clock=clock)
    bus = make_bus(clock, store=store, park_spacing=60.0)
    await bus.start()
    (a,) = await register(bus, clock, a=DOWN)
    ticket = await parked(bus, clock)
    a.play(None)
    await clock.advance(400.0)
    while (await bus.parked())[0].state != "under way":
        await clock.advance(1.0)
    await finished(clock, bus.stop())

    async with make_bus(clock, store=store) as again:
        await register(again, clock, a="well again")
        reply = await finished(clock, again.result(ticket.id, wait=10.0))

    assert reply.text == "well again"
    assert reply.maybe_duplicate


async def test_parked_work_survives_a_restart_and_belongs_to_whoever_comes(tmp_path: Path) -> None:
    clock = FakeClock()
    path = tmp_path / "z.db"
    async with AsyncMessageBus(Settings(), store=SqliteStore(path)) as bus:
        await bus.register_provider("a", ScriptedProvider([DOWN]))
        with pytest.raises(Parked) as ticket:
            await bus.send("hello", park=True, patience=0.0)
    assert clock.now() == 0.0

    async with AsyncMessageBus(Settings(), store=SqliteStore(path)) as bus:
        await bus.register_provider("a", ScriptedProvider(["well again"]))
        await bus.replay(ticket.value.id)
        reply = await bus.result(ticket.value.id, wait=10.0)

    assert reply.text == "well again"


async def test_what_a_dead_process_had_in_hand_is_answered_by_the_next(tmp_path: Path) -> None:
    dead = SqliteStore(tmp_path / "z.db")
    await dead.open()
    asked = Message.create("hello", "user", "a", None)
    bill = Bill(5, 5, None, settled=False)
    await dead.accept(asked, "a", "m", terms=Terms(parks=True), bill=bill)
    await dead.close()

    async with AsyncMessageBus(Settings(), store=SqliteStore(tmp_path / "z.db")) as bus:
        await bus.register_provider("a", ScriptedProvider(["well again"]))
        recovered = await bus.recover()
        reply = await bus.result(asked.id, wait=10.0)

    assert recovered == []
    assert (reply.text, reply.maybe_duplicate) == ("well again", True)


async def test_the_result_of_any_request_is_had_by_its_id() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a="well")
        sent = await bus.send("hello")

        again = await bus.result(sent.id)

        assert (again.text, again.attempts, again.usage) == (sent.text, sent.attempts, sent.usage)


async def test_there_is_no_result_yet_while_a_request_waits() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_spacing=600.0) as bus:
        await register(bus, clock, a=DOWN)
        ticket = await parked(bus, clock)

        with pytest.raises(Parked, match="taken up again by"):
            await finished(clock, bus.result(ticket.id, wait=5.0))
        with pytest.raises(ValueError, match="wait"):
            await bus.result(ticket.id, wait=-1.0)


async def test_a_store_that_cannot_park_leaves_the_first_cause_standing() -> None:
    class Full(InMemoryStore):
        def park(self, *args, **how):  # type: ignore[no-untyped-def]
            raise StoreError("the disk is full")

    clock = FakeClock()
    async with make_bus(clock, store=Full(clock=clock)) as bus:
        await register(bus, clock, a=DOWN)

        with pytest.raises(ServerError, match="down") as raised:
            await finished(clock, bus.send("hello", park=True))

        assert any("the disk is full" in note for note in raised.value.__notes__)


async def test_a_store_that_cannot_be_read_is_looked_at_again() -> None:
    class Broken(InMemoryStore):
        broken = True

        async def take_parked(self, **how):  # type: ignore[no-untyped-def]
            if self.broken:
                raise StoreError("not now")
            return await super().take_parked(**how)

    clock = FakeClock()
    store = Broken(clock=clock)
    async with make_bus(clock, store=store, park_spacing=60.0) as bus:
        (a,) = await register(bus, clock, a=DOWN)
        ticket = await parked(bus, clock)
        a.play("well again")
        await clock.advance(300.0)
        early = [each.state for each in await bus.parked()]

        store.broken = False
        await clock.advance(300.0)

        assert early == ["waiting"]
        assert (await bus.result(ticket.id)).text == "well again"


async def test_a_bus_that_does_not_run_tells_nothing_of_parked_work() -> None:
    bus = make_bus(FakeClock())

    for asked in (bus.parked(), bus.result("x"), bus.replay("x"), bus.drop("x"), bus.costs()):
        with pytest.raises(BusNotRunning):
            await asked


@pytest.mark.parametrize("park", [1, "yes", None], ids=repr)
async def test_park_is_yes_or_no(park: object) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        with pytest.raises(TypeError, match="park must be True or False"):
            await bus.send("hello", park=park)  # type: ignore[arg-type]


async def test_a_bus_that_lives_for_one_question_takes_nothing_up() -> None:
    clock = FakeClock()
    store = InMemoryStore(clock=clock)
    async with make_bus(clock, store=store, park_spacing=1.0) as bus:
        await register(bus, clock, a=DOWN)
        ticket = await parked(bus, clock, patience=0.0)
    await clock.advance(600.0)

    for _ in range(3):
        async with make_bus(clock, store=store) as bus:
            (a,) = await register(bus, clock, a="well")
            await bus.send("another question")
            assert [each.content for each in a.requests] == ["another question"]

    async with make_bus(clock, store=store) as bus:
        await register(bus, clock, a="well")
        await clock.advance(6.0)
        assert (await bus.result(ticket.id)).text == "well"


async def test_a_stop_lets_what_is_under_way_end_if_that_is_soon() -> None:
    clock = FakeClock()
    store = InMemoryStore(clock=clock)
    bus = make_bus(clock, store=store, park_spacing=60.0)
    await bus.start()
    (a,) = await register(bus, clock, a=DOWN)
    ticket = await parked(bus, clock)
    a.play(3.0, "late")
    await bus.magic.reset_circuit_breaker("a")
    await bus.replay(ticket.id)
    await clock.advance(1.0)

    await finished(clock, bus.stop())

    async with make_bus(clock, store=store) as again:
        assert (await again.result(ticket.id)).text == "late"


async def test_what_a_stop_has_interrupted_keeps_its_last_cause(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    store = SqliteStore(tmp_path / "z.db", clock=clock)
    bus = make_bus(clock, store=store, park_spacing=60.0, patience=0.0)
    await bus.start()
    (a,) = await register(bus, clock, a=DOWN)
    sending = asyncio.create_task(bus.send("hello", park=True))
    while not sending.done():
        await clock.advance(0.01)
        await asyncio.sleep(0.001)
    with pytest.raises(Parked) as ticket:
        await sending
    a.play(None)
    await bus.magic.reset_circuit_breaker("a")
    await bus.replay(ticket.value.id)
    while len(a.requests) < 2:
        await asyncio.sleep(0.001)
    stopping = asyncio.create_task(bus.stop())
    while not stopping.done():
        await clock.advance(1.0)
        await asyncio.sleep(0.001)
    await stopping

    await store.open()
    (kept,) = await store.parked()
    await store.close()
    assert kept.state == "parked"
    assert kept.message.error is not None and "down" in kept.message.error
    assert not caplog.records


async def test_a_cause_is_told_once_and_in_the_words_of_its_failure() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_spacing=600.0, max_attempts=1, patience=0.0) as bus:
        await register(bus, clock, a=DOWN)
        ticket = await parked(bus, clock)

        with pytest.raises(Parked) as told:
            await bus.result(ticket.id)
        (waiting,) = await bus.parked()

        assert len(waiting.causes) == 1
        assert "parked: parked" not in str(told.value)
        assert str(told.value).count("down") == 1


# ── What refuses it says when


class Watched(InMemoryStore):
    """Remembers what was taken up."""

    taken: tuple[str, ...] = ()

    async def take_parked(self, *, before: datetime, limit: int = 100) -> list[Kept]:
        found = await super().take_parked(before=before, limit=limit)
        self.taken += tuple(each.message.id for each in found)
        return found


async def test_work_that_the_days_money_refuses_waits_for_the_next_day(tmp_path: Path) -> None:
    clock = FakeClock()
    prices = tmp_path / "prices.toml"
    prices.write_text(DEAR)
    how: dict[str, Any] = {"prices": prices, "spend_limit_day": 5.0, "park_spacing": 1.0}
    store = Watched(clock=clock)
    async with make_bus(clock, store=store, **how) as bus:
        await register(bus, clock, a="ok")
        await finished(clock, bus.send("hello", max_tokens=300))  # 2.7 of 5 USD, about
        with pytest.raises(SpendLimitReached):
            while True:
                await finished(clock, bus.send("hello", max_tokens=300))

        ticket = await parked(bus, clock, max_tokens=300)
        for _ in range(60):
            await clock.advance(60.0)
        (waiting,) = await bus.parked()
        taken = store.taken
        for _ in range(60):
            await clock.advance(60.0)

        assert waiting.due_at is not None
        assert (waiting.due_at.hour, waiting.due_at.minute) == (0, 0)
        assert taken == ()
        assert store.taken == (ticket.id,)
        assert (await bus.result(ticket.id)).text == "ok"
        assert len(await bus.store.events(type="request_parked")) == 1


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"spend_limit_day": 0.001}, "may cost"),
        ({"spend_limit_conversation": 0.001}, "may cost"),
    ],
    ids=["the day", "the conversation"],
)
async def test_what_no_time_makes_room_for_is_refused_and_not_parked(
    tmp_path: Path, limits: dict[str, Any], says: str
) -> None:
    clock = FakeClock()
    prices = tmp_path / "prices.toml"
    prices.write_text(DEAR)
    async with make_bus(clock, prices=prices, **limits) as bus:
        await register(bus, clock, a="ok")

        with pytest.raises(SpendLimitReached, match=says):
            await finished(clock, bus.send("hello", conversation_id="c", park=True))

        assert await bus.parked() == []


async def test_what_was_parked_and_has_no_room_in_any_day_is_given_up(tmp_path: Path) -> None:
    clock = FakeClock()
    prices = tmp_path / "prices.toml"
    prices.write_text(DEAR)
    store = InMemoryStore(clock=clock)
    async with make_bus(clock, store=store, park_spacing=60.0) as bus:
        await register(bus, clock, a=DOWN)
        ticket = await parked(bus, clock)

    async with make_bus(clock, store=store, prices=prices, spend_limit_day=0.001) as bus:
        await register(bus, clock, a="ok")
        await clock.advance(600.0)

        with pytest.raises(GivenUp, match="may cost"):
            await bus.result(ticket.id)


async def test_a_model_without_a_price_is_refused_under_a_limit_and_not_parked() -> None:
    clock = FakeClock()
    async with make_bus(clock, spend_limit_day=9.0) as bus:
        await register(bus, clock, a="ok")

        with pytest.raises(SpendLimitReached, match="no price is known"):
            await finished(clock, bus.send("hello", park=True))

        assert await bus.parked() == []


async def test_a_providers_retry_after_is_when_it_is_tried_again() -> None:
    clock = FakeClock()
    async with make_bus(clock, park_spacing=1.0) as bus:
        limited = RateLimited("slow down", status=429, retry_after=7_200.0)
        (a,) = await register(bus, clock, a=limited)

        ticket = await parked(bus, clock)
        called = len(a.requests)
        for _ in range(30):
            await clock.advance(60.0)

        assert ticket.due_at is not None
        assert (ticket.due_at - utc(clock.wall())).total_seconds() > 5_000.0
        assert len(a.requests) == called
