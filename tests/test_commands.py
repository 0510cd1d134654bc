"""What other processes may ask of a running bus, and what they are told."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

import pytest

from tests.driving import break_down, finished, make_bus, register
from zejzl.engine.commands import MOST_AT_ONCE, Commands, Handler, ask, every, handlers
from zejzl.errors import StoreError
from zejzl.events import utc
from zejzl.magic import FairyMagic
from zejzl.stores import InMemoryStore
from zejzl.testing import FakeClock


class Shared(InMemoryStore):
    """As if other processes could reach it."""

    shared = True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(clock: FakeClock) -> AsyncIterator[Shared]:
    made = Shared(clock=clock)
    await made.open()
    yield made


class Serving:
    """Commands that run for the length of a block."""

    def __init__(self, store: InMemoryStore, clock: FakeClock, **known: Handler) -> None:
        self._commands = Commands(store, clock, "bus", known)

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._commands.run())

    async def __aexit__(self, *failure: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def echo(asked: Mapping[str, object]) -> object:
    return {name: value for name, value in asked.items() if name != "expires_at"}


async def hang(asked: Mapping[str, object]) -> object:
    return await asyncio.Event().wait()


async def test_what_is_asked_is_done_within_half_a_second(store: Shared, clock: FakeClock) -> None:
    async with Serving(store, clock, echo=echo):
        await clock.advance(7.3)
        asked_at = clock.now()

        answer = await finished(clock, ask(store, clock, "bus", "echo", {"a": ["ü", None]}))

    assert answer == ("done", {"a": ["ü", None]})
    assert clock.now() - asked_at <= 0.6


async def test_a_handler_that_fails_is_an_answer_in_its_own_words(
    store: Shared, clock: FakeClock
) -> None:
    async def broken(asked: Mapping[str, object]) -> object:
        raise KeyError("oh")

    async def endless(asked: Mapping[str, object]) -> object:
        return object()

    async with Serving(store, clock, broken=broken, endless=endless, echo=echo):
        failed = await finished(clock, ask(store, clock, "bus", "broken", {}))
        unspeakable = await finished(clock, ask(store, clock, "bus", "endless", {}))
        well = await finished(clock, ask(store, clock, "bus", "echo", {}))

    assert failed == ("failed", {"type": "KeyError", "message": "'oh'"})
    assert unspeakable[0] == "failed" and "not JSON serializable" in str(unspeakable[1])
    assert well[0] == "done"


async def test_an_unknown_command_is_told_the_known_ones(store: Shared, clock: FakeClock) -> None:
    async with Serving(store, clock, echo=echo, another=echo):
        state, answer = await finished(clock, ask(store, clock, "bus", "fly", {}))

    assert (state, answer) == (
        "failed",
        {"type": "ValueError", "message": "unknown command 'fly'; known: another, echo"},
    )


@pytest.mark.parametrize("body", ["", "{", "[]", "1", '"\\ud800"', "[" * 100_000])
async def test_a_body_that_is_none_fails_and_nothing_else_does(
    store: Shared, clock: FakeClock, body: str
) -> None:
    id = await store.post_command("bus", "echo", body)

    async with Serving(store, clock, echo=echo):
        well = await finished(clock, ask(store, clock, "bus", "echo", {}))

    found = await store.command(id)
    assert found is not None and found[0] == "failed"
    assert well[0] == "done"


async def test_at_most_sixteen_are_under_way_at_once_and_all_get_their_turn(
    store: Shared, clock: FakeClock
) -> None:
    under_way, most = 0, 0

    async def slow(asked: Mapping[str, object]) -> object:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await clock.sleep(1.0)
        under_way -= 1
        return None

    ids = [await store.post_command("bus", "slow", "{}") for _ in range(50)]
    async with Serving(store, clock, slow=slow):
        await clock.advance(5.0)

    assert most == MOST_AT_ONCE == 16
    assert [await store.command(id) for id in ids] == [("done", "null")] * 50


async def test_one_that_hangs_holds_up_no_other_and_is_answered_at_the_end(
    store: Shared, clock: FakeClock
) -> None:
    id = await store.post_command("bus", "hang", "{}")

    async with Serving(store, clock, hang=hang, echo=echo):
        well = await finished(clock, ask(store, clock, "bus", "echo", {}))
        before = await store.command(id)
    after = await store.command(id)

    assert well[0] == "done"
    assert before == ("taken", "")
    assert after is not None and after[0] == "failed" and "the bus stops" in after[1]


async def test_one_that_is_taken_in_the_moment_of_the_end_is_answered(
    store: Shared, clock: FakeClock
) -> None:
    id = await store.post_command("bus", "hang", "{}")

    async with Serving(store, clock, hang=hang):
        await asyncio.sleep(0)  # it is taken, and its task has not begun
        taken = await store.command(id)

    found = await store.command(id)
    assert taken == ("taken", "")
    assert found is not None and found[0] == "failed"


async def test_one_that_goes_on_although_cancelled_is_not_waited_for_longer_than_five_seconds(
    store: Shared, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    ended = asyncio.Event()

    async def stubborn(asked: Mapping[str, object]) -> object:
        while not ended.is_set():
            with suppress(asyncio.CancelledError):
                await ended.wait()
        return "at last"

    id = await store.post_command("bus", "stubborn", json.dumps({"name": "slow"}))
    task = asyncio.create_task(Commands(store, clock, "bus", {"stubborn": stubborn}).run())
    await clock.advance(1.0)

    task.cancel()
    await clock.advance(4.9)
    waits = not task.done()
    await clock.advance(0.2)
    gone_on = task.done()
    ended.set()
    await clock.advance(0.0)

    assert (waits, gone_on) == (True, True)
    assert "stopped with 1 commands that go on although cancelled" in caplog.text
    assert await store.command(id) == ("done", '"at last"')


async def test_the_log_tells_what_was_asked_and_of_whom(
    store: Shared, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    bodies = [
        {"name": "mana_surge", "issue": "private"},
        {"component": "alpha"},
        {"raised": True},
        ["x"],
    ]

    with caplog.at_level(logging.INFO, "zejzl"):
        async with Serving(store, clock, echo=echo):
            for body in bodies:
                await store.post_command("bus", "echo", json.dumps(body))
            await clock.advance(1.0)

    assert [record.getMessage() for record in caplog.records] == [
        "command 'echo' (mana_surge): done",
        "command 'echo' (alpha): done",
        "command 'echo': done",
        "command 'echo': failed",
    ]


async def test_what_nobody_waits_for_any_more_is_not_done(store: Shared, clock: FakeClock) -> None:
    done = []

    async def note(asked: Mapping[str, object]) -> object:
        done.append(asked)
        return None

    given_up = await finished(clock, ask(store, clock, "bus", "note", {}, patience=3.0))
    async with Serving(store, clock, note=note):
        await clock.advance(10.0)

    found = await store.command(1)
    assert given_up == ("waiting", None)
    assert found is not None and found[0] == "failed" and "too late" in found[1]
    assert not done


async def test_one_who_asks_waits_no_longer_than_the_patience(
    store: Shared, clock: FakeClock
) -> None:
    async with Serving(store, clock, hang=hang):
        answer = await finished(clock, ask(store, clock, "bus", "hang", {}, patience=4.0))

    assert answer == ("taken", None)
    assert clock.now() == pytest.approx(4.0, abs=0.2)


async def test_a_command_that_was_deleted_is_no_endless_wait(
    store: Shared, clock: FakeClock
) -> None:
    asking = asyncio.create_task(ask(store, clock, "bus", "echo", {}))
    await clock.advance(0.2)
    await store.prune(before=utc(clock.wall()))
    await clock.advance(0.2)

    with pytest.raises(StoreError, match="was deleted before it was answered"):
        await asking


async def test_a_store_that_cannot_be_read_is_told_once_and_tried_again(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Shared(clock=clock)

    with caplog.at_level(logging.WARNING, "zejzl"):
        async with Serving(store, clock, echo=echo):
            await clock.advance(60.0)
            await store.open()
            well = await finished(clock, ask(store, clock, "bus", "echo", {}))

    assert caplog.text.count("commands cannot be read") == 1
    assert well[0] == "done"


async def test_a_store_that_cannot_be_written_ends_nothing(
    store: Shared, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def closes(asked: Mapping[str, object]) -> object:
        await store.close()
        return None

    await store.post_command("bus", "closes", "{}")
    with caplog.at_level(logging.WARNING, "zejzl"):
        async with Serving(store, clock, closes=closes, echo=echo):
            await clock.advance(1.0)
            await store.open()
            well = await finished(clock, ask(store, clock, "bus", "echo", {}))

    assert "command 'closes' was not answered" in caplog.text
    assert well[0] == "done"


async def test_a_turn_comes_at_once_and_then_after_each_pause(clock: FakeClock) -> None:
    turns = []

    async def count() -> None:
        async for _ in every(clock, 2.0):
            turns.append(clock.now())

    task = asyncio.create_task(count())
    await clock.advance(5.0)
    task.cancel()

    assert turns == [0.0, 2.0, 4.0]


# On a bus


async def owner_of(store: InMemoryStore, clock: FakeClock) -> str:
    """Return the key of the one bus that has shown itself."""
    await clock.advance(0.1)
    ((owner, *_),) = await store.snapshots()
    return owner


async def test_a_bus_whose_store_is_shared_does_what_is_asked(clock: FakeClock) -> None:
    store = Shared(clock=clock)
    async with make_bus(clock, store=store) as bus:
        await register(bus, clock, a="ok")
        owner = await owner_of(store, clock)
        breaker = bus.magic.gate.provider("a")
        break_down(bus.magic, breaker)
        before = breaker.state

        answer = await finished(clock, ask(store, clock, owner, "reset", {"name": "a"}))

    assert before == "open"
    assert answer == ("done", {"name": "ai_provider:a", "state": "closed"})


async def test_a_store_that_nobody_shares_is_not_asked(clock: FakeClock) -> None:
    polls = []

    class Watched(InMemoryStore):
        async def take_commands(self, owner: str) -> list[tuple[int, str, str]]:
            polls.append(owner)
            return await super().take_commands(owner)

    async with make_bus(clock, store=Watched(clock=clock)):
        await clock.advance(60.0)

    assert not polls


async def test_a_bus_answers_what_is_under_way_when_it_stops(clock: FakeClock) -> None:
    store = Shared(clock=clock)
    async with make_bus(clock, store=store):
        owner = await owner_of(store, clock)
        asked = {"component": "persistence", "issue": "x"}  # waits a backoff
        id = await store.post_command(owner, "heal", json.dumps(asked))
        while await store.command(id) == ("waiting", ""):
            await clock.advance(0.01)

    await store.open()
    found = await store.command(id)
    assert found is not None and found[0] == "failed" and "the bus stops" in found[1]


# What can be asked


async def test_heal_makes_one_recovery_attempt_and_tells_its_row(clock: FakeClock) -> None:
    magic = FairyMagic(clock=clock)
    asked = {"component": "persistence", "issue": "the disk was full"}

    row = await finished(clock, _done(handlers(magic)["heal"], asked))

    assert isinstance(row, dict)
    assert (row["type"], row["target"]) == ("recovery_recorded", "persistence")
    assert (row["issue"], row["success"]) == ("the disk was full", True)
    assert len(magic.healing_history) == 1


async def _done(handler: Handler, asked: Mapping[str, object]) -> object:
    return await handler(asked)


async def test_a_runbook_is_performed_and_whether_it_went_well_is_told(clock: FakeClock) -> None:
    magic = FairyMagic(clock=clock)
    ritual = handlers(magic)["ritual"]

    @magic.ritual("broken")
    async def broken() -> str:
        raise RuntimeError("oh")

    told = [await ritual({"name": name}) for name in ("mana_surge", "broken")]

    assert [one["success"] for one in told if isinstance(one, dict)] == [True, False]
    assert "oh" in str(told[1])


@pytest.mark.parametrize("raised", [True, False])
async def test_admission_control_is_raised_and_lowered(clock: FakeClock, raised: bool) -> None:
    magic = FairyMagic(clock=clock)
    await magic.fairy_shield(not raised)

    answer = await handlers(magic)["shield"]({"raised": raised})

    assert magic.is_shielded is raised
    assert isinstance(answer, dict) and answer["raised"] is raised


@pytest.mark.parametrize("name", ["ai_provider:claude", "claude", "Claude"])
@pytest.mark.parametrize("called", [True, False])
async def test_a_provider_goes_by_its_name_and_by_its_breakers_from_the_start(
    clock: FakeClock, name: str, called: bool
) -> None:
    async with make_bus(clock) as bus:
        await register(bus, clock, claude="ok")
        if called:
            await finished(clock, bus.send("hello"))
        known = handlers(bus.magic)

        answer = await known["reset"]({"name": name})
        asked = {"component": name, "issue": "x"}
        row = await finished(clock, _done(known["heal"], asked))

    assert answer == {"name": "ai_provider:claude", "state": "closed"}
    assert isinstance(row, dict)
    assert (row["target"], row["verified"]) == ("ai_provider:claude", True)


@pytest.mark.parametrize(
    ("command", "asked", "said"),
    [
        ("reset", {"name": "nobody"}, "no component named 'nobody'; known: ai_provider, pers"),
        ("heal", {"component": "nobody", "issue": "x"}, "no component named 'nobody'; known:"),
        ("heal", {"component": "persistence"}, "issue must be text, not None"),
        ("reset", {"name": 1}, "name must be text, not 1"),
        ("ritual", {}, "name must be text, not None"),
        ("ritual", {"name": "x", "target_file": 3}, "target_file must be text, not 3"),
        ("shield", {"raised": "up"}, "raised must be true or false, not 'up'"),
    ],
)
async def test_what_cannot_be_asked_says_why_and_changes_nothing(
    clock: FakeClock, command: str, asked: dict[str, object], said: str
) -> None:
    magic = FairyMagic(clock=clock)
    before = await magic.get_system_status()

    with pytest.raises(ValueError, match=said):
        await handlers(magic)[command](asked)

    assert await magic.get_system_status() == before
