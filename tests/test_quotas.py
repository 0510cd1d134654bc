"""A rate limit on the caller's side: all callers share one wait, and come in their order."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import assert_nothing_is_left, finished, make_bus, register
from zejzl.engine.quotas import KEPT_AS, Quotas
from zejzl.errors import Overloaded, ServerError, SettingsError, StoreError
from zejzl.messages import Reply, Request, Usage
from zejzl.policies.quota import Seen
from zejzl.settings import RateLimit, Settings
from zejzl.stores import InMemoryStore, SqliteStore
from zejzl.testing import FakeClock, ScriptedProvider


class Timed(ScriptedProvider):
    """Remembers when it was asked, and says what it was told to say of its limits."""

    def __init__(self, clock: FakeClock, script: list[object] | None = None) -> None:
        super().__init__(script or ["ok"], name="a", clock=clock)  # type: ignore[arg-type]
        self.times: list[float] = []
        self.seen: tuple[float, Seen] | None = None
        self.tokens = 1

    async def generate(self, request: Request) -> Reply:
        self.times.append(self._clock.now())
        reply = await super().generate(request)
        return Reply(text=reply.text, provider="a", usage=Usage(self.tokens, 0))

    def quota(self, model: str) -> tuple[float, Seen] | None:
        return self.seen


def most_in_a_minute(times: list[float], drift: float = 0.0) -> int:
    minute = 60.0 - drift
    return max((sum(at <= other < at + minute for other in times) for at in times), default=0)


@pytest.mark.parametrize("name", ["a", "a/scripted-1", "A"])
async def test_no_minute_ever_sees_more_calls_than_the_limit_and_nobody_is_refused(
    name: str,
) -> None:
    clock = FakeClock()
    limits = {name: RateLimit(requests=5)}
    async with make_bus(clock, rate_limits=limits, deadline=600.0) as bus:
        provider = Timed(clock)
        await bus.register_provider("a", provider)

        async def crowd() -> list[Reply]:
            return await asyncio.gather(*(bus.send(f"question {n}") for n in range(20)))

        replies = await finished(clock, crowd(), within=400.0)

        assert len(replies) == 20
        assert most_in_a_minute(provider.times) == 5
        assert max(provider.times) < 185.0
        assert [each.content for each in provider.requests] == [f"question {n}" for n in range(20)]
        await assert_nothing_is_left(bus)


async def test_tokens_are_limited_as_they_are_counted_in_the_end() -> None:
    clock = FakeClock()
    limits = {"a": RateLimit(tokens=1_000)}
    async with make_bus(clock, rate_limits=limits, deadline=600.0, max_tokens=100) as bus:
        provider = Timed(clock)
        provider.tokens = 400
        await bus.register_provider("a", provider)
        for _ in range(7):
            await finished(clock, bus.send("hello"), within=200.0)

        spent = [(at, 400) for at in provider.times]
        fullest = max(
            sum(tokens for other, tokens in spent if at <= other < at + 60.0) for at, _ in spent
        )

        assert fullest <= 1_200  # the first was taken for less: nobody had counted yet
        assert max(provider.times) >= 60.0


async def test_whoever_cannot_have_a_turn_before_the_deadline_is_told_at_once() -> None:
    clock = FakeClock()
    async with make_bus(clock, rate_limits={"a": RateLimit(requests=1)}) as bus:
        provider = Timed(clock)
        await bus.register_provider("a", provider)
        await bus.send("first")
        before = clock.now()

        with pytest.raises(Overloaded, match="its rate limit lets the next call begin in") as told:
            await bus.send("second", deadline=30.0)

        assert clock.now() == before
        assert 55.0 < told.value.retry_after <= 60.7
        reply = await finished(clock, bus.send("third", deadline=90.0), within=90.0)
        assert reply.text == "ok"
        assert len(provider.times) == 2
        await assert_nothing_is_left(bus)


async def test_another_provider_answers_meanwhile() -> None:
    clock = FakeClock()
    async with make_bus(clock, rate_limits={"a": RateLimit(requests=1)}) as bus:
        await register(bus, clock, a="from a", b="from b")

        texts = [(await bus.send("hello")).text for _ in range(3)]

        assert texts == ["from a", "from b", "from b"]


async def test_within_its_patience_a_request_waits_for_the_preferred_one() -> None:
    clock = FakeClock()
    limits = {"a": RateLimit(requests=1)}
    async with make_bus(clock, rate_limits=limits, deadline=300.0) as bus:
        await register(bus, clock, a="from a", b="from b")
        await bus.send("hello")

        patient = await finished(clock, bus.send("hello", patience=100.0), within=100.0)

        assert (patient.text, patient.healed) == ("from a", False)


async def test_a_caller_who_leaves_gives_the_turn_back() -> None:
    clock = FakeClock()
    limits = {"a": RateLimit(requests=1)}
    async with make_bus(clock, rate_limits=limits, deadline=600.0) as bus:
        provider = Timed(clock)
        await bus.register_provider("a", provider)
        await bus.send("first")
        leaving = [asyncio.create_task(bus.send(f"leaves {n}")) for n in range(5)]
        await clock.advance(1.0)
        for task in leaving:
            task.cancel()
        await clock.advance(0.0)

        await finished(clock, bus.send("stays"), within=100.0)

        assert provider.times[-1] <= 61.0
        assert [each.content for each in provider.requests] == ["first", "stays"]
        await assert_nothing_is_left(bus)


async def test_a_call_that_could_not_be_written_down_gives_its_turn_back() -> None:
    class Full(InMemoryStore):
        full = True

        def accept(self, *args, **kept):  # type: ignore[no-untyped-def]
            if self.full:
                raise StoreError("the disk is full")
            return super().accept(*args, **kept)

    clock = FakeClock()
    store = Full(clock=clock)
    async with make_bus(clock, store=store, rate_limits={"a": RateLimit(requests=1)}) as bus:
        await register(bus, clock, a="ok")
        with pytest.raises(StoreError):
            await bus.send("hello")
        store.full = False

        assert (await bus.send("hello")).text == "ok"


async def test_a_retry_has_a_turn_of_its_own() -> None:
    clock = FakeClock()
    limits = {"a": RateLimit(requests=2)}
    async with make_bus(clock, rate_limits=limits, deadline=600.0) as bus:
        provider = Timed(clock, [ServerError("x", status=500), ServerError("x", status=500), "ok"])
        await bus.register_provider("a", provider)

        reply = await finished(clock, bus.send("hello", patience=300.0), within=300.0)

        assert reply.text == "ok"
        assert most_in_a_minute(provider.times) == 2


# Learned from the provider


async def test_what_a_provider_says_of_its_limits_is_kept_to() -> None:
    clock = FakeClock()
    async with make_bus(clock, deadline=600.0) as bus:
        provider = Timed(clock)
        await bus.register_provider("a", provider)
        provider.seen = (
            0.0,
            Seen(limit_requests=10, remaining_requests=0, reset_requests=60.0),
        )
        await bus.send("first")

        reply = await finished(clock, bus.send("second"), within=120.0)

        assert reply.text == "ok"
        assert provider.times[1] >= 5.0
        limits = (await bus._look())["rate_limits"]
        assert isinstance(limits, list) and limits[0]["most"] == 10 and limits[0]["told"]


async def test_a_provider_that_says_nothing_is_not_limited() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        provider = Timed(clock)
        await bus.register_provider("a", provider)

        for _ in range(50):
            await bus.send("hello")

        assert len(provider.times) == 50
        assert (await bus._look())["rate_limits"] == []


# Shared


async def test_two_buses_on_one_database_share_a_limit(tmp_path: Path) -> None:
    clock = FakeClock()
    limits = {"a": RateLimit(requests=10)}
    settings = Settings(rate_limits=limits, deadline=None)
    buses = [
        AsyncMessageBus(settings, store=SqliteStore(tmp_path / "z.db", clock=clock), clock=clock)
        for _ in range(2)
    ]
    providers = [Timed(clock), Timed(clock)]
    for bus, provider in zip(buses, providers, strict=True):
        await bus.start()
        await bus.register_provider("a", provider)

    asked = [asyncio.create_task(bus.send(f"question {n}")) for n in range(15) for bus in buses]
    while not all(task.done() for task in asked):
        await clock.advance(0.25)
        for _ in range(5):  # the database is real: what was written is there before time goes on
            await asyncio.gather(*(bus.store.setting("any") for bus in buses))

    times = sorted(time for provider in providers for time in provider.times)
    assert len(times) == 30
    # The clock goes on while the database works: a call may begin a little after its turn.
    assert most_in_a_minute(times, drift=5.0) == 10
    assert max(times) < 135.0
    kept = await buses[0].store.setting(f"{KEPT_AS}a")
    assert kept is not None and len(json.dumps(kept)) < 20_000
    for bus in buses:
        await bus.stop()


async def test_a_damaged_state_is_begun_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(rate_limits={"a": RateLimit(requests=10)})
    async with AsyncMessageBus(settings, store=SqliteStore(tmp_path / "z.db")) as bus:
        await bus.register_provider("a", ScriptedProvider(["ok"]))
        await bus.store.keep_setting(f"{KEPT_AS}a", "{broken")

        assert (await bus.send("hello")).text == "ok"

    assert "begun anew" in caplog.text


# Bad input


def test_a_limit_of_nobody_is_told(caplog: pytest.LogCaptureFixture) -> None:
    limits = {"a/x": RateLimit(1), "b": RateLimit(1)}
    quotas = Quotas(InMemoryStore(), FakeClock(), limits)

    quotas.warn(["a", "c"])

    assert caplog.messages == ["the rate limit of b holds for nobody; registered: a, c"]


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"a": RateLimit(requests=0)}, "limit of 0 would wait for ever"),
        ({"a": RateLimit(tokens=-1)}, "whole number"),
        ({"a": RateLimit()}, "sets no limit"),
        ({"a": {"calls": 5}}, "unknown; known: requests, tokens"),
        ({"a": True}, "must be a number of calls, calls/tokens, or a table"),
        ({"a": 5.5}, "must be a number of calls, calls/tokens, or a table"),
        ({"a": -5}, "whole number"),
        ({"a": "many"}, "must be like claude=50/40000"),
        ({"": RateLimit(requests=1)}, "name of a provider"),
        ({5: RateLimit(requests=1)}, "name of a provider"),
        ("a", "must be like claude=50/40000"),
        ("a=x", "must be like claude=50/40000"),
        ("5", "must be like claude=50/40000"),
        (7, "must be a table"),
        ("local/=5", "provider/model, not 'local/'"),
        ("/x=5", "provider/model, not '/x'"),
        ("local/*=5", "provider/model, not 'local/*'"),
        ("a=5, A=6", "rate_limits.a: is there twice"),
        ({"a/x": RateLimit(1), "A / x": RateLimit(2)}, "rate_limits.a/x: is there twice"),
    ],
    ids=str,
)
def test_what_is_no_limit_is_refused_by_name(limits: object, problem: str) -> None:
    with pytest.raises(SettingsError, match="rate_limits") as refused:
        Settings(rate_limits=limits)  # type: ignore[arg-type]

    assert problem in str(refused.value)


def test_limits_are_read_from_the_environment_and_from_a_file(tmp_path: Path) -> None:
    words = {"ZEJZL_RATE_LIMITS": "Claude=50/40000, claude/opus=5, grok=/9000"}
    (tmp_path / "zejzl.toml").write_text("[rate_limits.claude]\nrequests = 5\n")

    told = Settings.from_env(env=words, folder=tmp_path / "nowhere").rate_limits
    filed = Settings.from_env(env={}, folder=tmp_path).rate_limits

    assert told == {
        "claude": RateLimit(50, 40_000),
        "claude/opus": RateLimit(5),
        "grok": RateLimit(None, 9_000),
    }
    assert filed == {"claude": RateLimit(5)}
    assert Settings.from_env(env={"ZEJZL_RATE_LIMITS": "none"}, folder=tmp_path).rate_limits == {}


def test_a_limit_in_a_file_may_be_as_short_as_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / "zejzl.toml").write_text('[rate_limits]\nlocal = 5\n"Local / X" = "5/10000"\n')

    limits = Settings.from_env(env={}, folder=tmp_path).rate_limits

    assert limits == {"local": RateLimit(5), "local/x": RateLimit(5, 10_000)}


async def test_a_models_limit_holds_however_its_name_is_written() -> None:
    clock = FakeClock()
    limits = {"A / Scripted-1": RateLimit(requests=1)}
    async with make_bus(clock, rate_limits=limits, deadline=300.0) as bus:
        await register(bus, clock, a="well")
        await finished(clock, bus.send("hello", model="SCRIPTED-1"))
        began = clock.now()

        await finished(clock, bus.send("hello", model="SCRIPTED-1"))

        assert clock.now() - began > 30.0


# A limit that changes while calls wait for their turn ------------------------------------------

SLOW = {"id": "slow", "settings": {"rate_limits": {"a": RateLimit(requests=1)}}}


class Shared(InMemoryStore):
    """A store in memory that says that others reach it; limits may fail, or take some time."""

    shared = True
    fails = False
    free: asyncio.Event | None = None

    def revise(self, name: str, change: Any) -> Any:
        if not name.startswith(KEPT_AS):
            return super().revise(name, change)
        if self.fails:
            raise StoreError("the disk is full")
        if self.free is None:
            return super().revise(name, change)
        return asyncio.ensure_future(self._later(name, change))

    async def _later(self, name: str, change: Any) -> Any:
        assert self.free is not None
        await self.free.wait()
        return await super().revise(name, change)


async def lines(shared: bool, clock: FakeClock, **settings: Any) -> AsyncMessageBus:
    """Return a bus that runs, on a store that others reach or do not."""
    store = Shared(clock=clock) if shared else InMemoryStore(clock=clock)
    bus = make_bus(clock, store=store, deadline=3_600.0, **settings)
    await bus.start()
    return bus


async def go_on(clock: FakeClock, seconds: float, tasks: Sequence[asyncio.Task[Any]] = ()) -> None:
    """Let time pass, at most until all tasks are done."""
    for _ in range(int(seconds / 0.2)):
        await clock.advance(0.2)
        if tasks and all(task.done() for task in tasks):
            return


async def waiting_for(clock: FakeClock, bus: AsyncMessageBus, n: int) -> list[asyncio.Task[Reply]]:
    """Return calls that wait for their turn, the first being done."""
    await finished(clock, bus.send("first"))
    tasks = [asyncio.create_task(bus.send(f"waits {number}")) for number in range(n)]
    await go_on(clock, 1.0)
    assert not any(task.done() for task in tasks)
    return tasks


@pytest.mark.parametrize("shared", [False, True])
async def test_calls_that_wait_for_a_limit_go_on_when_it_is_taken_back(
    shared: bool,
) -> None:
    clock = FakeClock()
    bus = await lines(shared, clock, rate_limits={"other": RateLimit(requests=1)})
    provider = Timed(clock)
    await bus.register_provider("a", provider)
    await bus.apply(SLOW)
    tasks = await waiting_for(clock, bus, 4)
    before = clock.now()

    await bus.revert("slow")
    await go_on(clock, 30.0, tasks)

    assert len(provider.requests) == 5
    assert max(provider.times) - before < 10.0  # and not minutes
    await assert_nothing_is_left(bus)
    await bus.stop()


@pytest.mark.parametrize("shared", [False, True])
async def test_calls_that_wait_for_a_limit_take_their_turn_under_the_one_that_comes(
    shared: bool,
) -> None:
    clock = FakeClock()
    bus = await lines(shared, clock, rate_limits={"a": RateLimit(requests=3)})
    provider = Timed(clock)
    await bus.register_provider("a", provider)
    await bus.apply(SLOW)
    tasks = await waiting_for(clock, bus, 4)

    await bus.revert("slow")
    await go_on(clock, 10.0)
    at_once = [task.done() for task in tasks]
    await go_on(clock, 70.0, tasks)

    assert at_once == [True, True, False, False]  # the first call counts, too
    assert most_in_a_minute(provider.times, drift=1.0) == 3  # begun a little after their turn
    assert [each.content for each in provider.requests] == [
        "first",
        *(f"waits {n}" for n in range(4)),
    ]
    await assert_nothing_is_left(bus)
    await bus.stop()


@pytest.mark.parametrize("turns", [0, 1, 2, 4])
@pytest.mark.parametrize("shared", [False, True])
async def test_whoever_leaves_while_limits_change_leaves_no_turn_behind(
    shared: bool, turns: int
) -> None:
    clock = FakeClock()
    bus = await lines(shared, clock, rate_limits={"a": RateLimit(requests=3)})
    provider = Timed(clock)
    await bus.register_provider("a", provider)
    await bus.apply(SLOW)
    tasks: list[asyncio.Task[Any]] = [*await waiting_for(clock, bus, 4)]

    tasks.append(asyncio.create_task(bus.revert("slow")))
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in tasks[:3]:
        task.cancel()
    await go_on(clock, 2.0)
    tasks.append(asyncio.create_task(bus.send("last")))
    await go_on(clock, 70.0, tasks)

    assert all(task.done() for task in tasks)
    answered = [task for task in tasks if not task.cancelled()]
    assert len(provider.requests) == len(answered)  # the first of all, less the change
    assert most_in_a_minute(provider.times, drift=1.0) <= 3
    await asyncio.gather(*tasks, return_exceptions=True)
    await assert_nothing_is_left(bus)
    await bus.stop()


async def test_a_turn_that_is_being_taken_while_its_limit_changes_is_taken_anew() -> None:
    clock = FakeClock()
    store = Shared(clock=clock)
    limits = {"a": RateLimit(requests=3)}
    async with make_bus(clock, store=store, deadline=600.0, rate_limits=limits) as bus:
        provider = Timed(clock)
        await bus.register_provider("a", provider)
        await bus.apply(SLOW)
        await finished(clock, bus.send("first"))
        store.free = asyncio.Event()
        task = asyncio.create_task(bus.send("second"))
        await go_on(clock, 1.0)

        await bus.revert("slow")
        store.free.set()
        await go_on(clock, 10.0, [task])

        assert provider.times[1] - provider.times[0] < 10.0
        await assert_nothing_is_left(bus)


async def test_limits_that_change_twice_at_once_leave_no_turn_behind() -> None:
    clock = FakeClock()
    store = Shared(clock=clock)
    limits = {"a": RateLimit(requests=3)}
    async with make_bus(clock, store=store, deadline=600.0, rate_limits=limits) as bus:
        provider = Timed(clock)
        await bus.register_provider("a", provider)
        await bus.apply(SLOW)
        tasks = await waiting_for(clock, bus, 2)
        store.free = asyncio.Event()

        await bus.revert("slow")
        await clock.advance(0.1)
        await bus.apply({"id": "two", "settings": {"rate_limits": {"a": RateLimit(requests=4)}}})
        await clock.advance(0.1)
        store.free.set()
        await go_on(clock, 10.0, tasks)
        tasks.append(asyncio.create_task(bus.send("fourth")))
        await go_on(clock, 10.0, tasks)

        assert [each.content for each in provider.requests] == [
            "first",
            "waits 0",
            "waits 1",
            "fourth",
        ]
        await asyncio.gather(*tasks)
        await assert_nothing_is_left(bus)


async def test_a_call_whose_turn_cannot_be_taken_anew_keeps_the_one_it_had(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    store = Shared(clock=clock)
    limits = {"a": RateLimit(requests=3)}
    async with make_bus(clock, store=store, deadline=600.0, rate_limits=limits) as bus:
        provider = Timed(clock)
        await bus.register_provider("a", provider)
        await bus.apply(SLOW)
        (task,) = await waiting_for(clock, bus, 1)

        store.fails = True
        await bus.revert("slow")
        await go_on(clock, 30.0)
        waits = not task.done()
        store.fails = False
        await go_on(clock, 40.0, [task])

        assert waits
        assert (await task).text == "ok"
        assert provider.times[1] - provider.times[0] >= 60.0
        await assert_nothing_is_left(bus)
    assert "a call of a keeps its turn: the disk is full" in caplog.text
