"""An improvement is put to use and taken back, whatever came between, and after a restart."""

import asyncio
import json
from pathlib import Path

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import finished, make_bus, register
from zejzl.errors import (
    BusNotRunning,
    NoSuchChange,
    ServerError,
    SettingsError,
    StoreError,
    StoreTooNew,
)
from zejzl.events import Event, SettingsChanged
from zejzl.settings import RateLimit, Settings
from zejzl.stores import InMemoryStore, SqliteStore
from zejzl.testing import FakeClock

REORDER = {"id": "reorder-b", "action": "reorder_providers", "settings": {"failover": ["b", "a"]}}


async def who_answers(bus: AsyncMessageBus, clock: FakeClock) -> str:
    return (await finished(clock, bus.send("hello"))).provider


async def test_an_improvement_changes_what_happens_and_taken_back_it_does_not() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a="ok", b="ok")
        assert await who_answers(bus, clock) == "a"

        change = await bus.apply(REORDER)
        with_it = await who_answers(bus, clock), list(bus.providers), bus.settings.failover
        back = await bus.revert("reorder-b")

        assert with_it == ("b", ["b", "a"], ("b", "a"))
        assert (change.id, change.stands, back.stands) == ("reorder-b", True, False)
        assert await who_answers(bus, clock) == "a"
        assert list(bus.providers) == ["a", "b"]
        assert [each.id for each in bus.changes] == ["reorder-b"]
        told = await bus.store.events(type="settings_changed")
        assert [isinstance(each, SettingsChanged) and each.reverted for each in told] == [
            False,
            True,
        ]


async def test_changes_are_taken_back_in_any_order() -> None:
    async with make_bus(FakeClock()) as bus:
        await bus.apply({"id": "one", "settings": {"max_attempts": 5, "hedging": False}})
        await bus.apply({"id": "two", "settings": {"max_attempts": 2, "max_tokens": 64}})

        await bus.revert("one")
        first_gone = bus.settings
        await bus.revert("two")

        assert (first_gone.max_attempts, first_gone.hedging, first_gone.max_tokens) == (2, True, 64)
        assert bus.settings == Settings()


async def test_each_setting_that_may_change_takes_effect_at_the_next_request() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=ServerError("down", status=503))

        await bus.apply({"id": "t", "settings": {"max_tokens": 17, "max_attempts": 1}})
        with pytest.raises(ServerError) as failed:
            await finished(clock, bus.send("hello", patience=30.0))

        assert a.requests[0].max_tokens == 17
        assert len(failed.value.attempts) == 1


async def test_a_limit_of_calls_can_be_put_to_use_and_taken_back() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a="ok")
        limit = {"id": "slow", "settings": {"rate_limits": {"a": RateLimit(requests=1)}}}

        change = await bus.apply(limit)
        limited = [each["name"] for each in bus._engine.quotas.status()]
        await bus.revert("slow")

        assert change.settings == {"rate_limits": {"a": {"requests": 1, "tokens": None}}}
        assert limited == ["a"]
        assert bus._engine.quotas.status() == []


async def test_a_change_stands_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "z.db"
    clock = FakeClock()
    async with make_bus(clock, store=SqliteStore(path)) as bus:
        await bus.apply(REORDER)
        await bus.apply({"id": "gone", "settings": {"max_attempts": 9}})
        await bus.revert("gone")

    async with make_bus(clock, store=SqliteStore(path)) as again:
        await register(again, clock, a="ok", b="ok")
        answering = await who_answers(again, clock)
        history = [(each.id, each.stands, each.reverted_because) for each in again.changes]

    assert answering == "b"
    assert history == [("reorder-b", True, ""), ("gone", False, "by hand")]


async def test_a_provider_that_a_change_does_not_name_is_asked_all_the_same() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.apply({"id": "x", "settings": {"failover": ["nobody", "b"]}})
        await register(bus, clock, a="ok", b=ServerError("down", status=503))

        reply = await finished(clock, bus.send("hello"))

        assert reply.attempts[0].provider == "b"
        assert reply.provider == "a"


async def test_two_processes_lose_no_change_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "z.db"
    async with (
        make_bus(FakeClock(), store=SqliteStore(path)) as one,
        make_bus(FakeClock(), store=SqliteStore(path)) as other,
    ):
        await one.apply({"id": "one", "settings": {"max_attempts": 2}})
        await other.apply({"id": "other", "settings": {"max_tokens": 5}})
        await one.revert("one")

        assert [(each.id, each.stands) for each in one.changes] == [("one", False), ("other", True)]
        assert one.settings.max_tokens == 5


async def go_on(clock: FakeClock, seconds: float = 3.0) -> None:
    for _ in range(int(seconds / 0.1)):
        await clock.advance(0.1)
        await asyncio.sleep(0.003)  # the database is real


async def test_a_change_reaches_the_other_processes_that_run_and_each_tells_it_once(
    tmp_path: Path,
) -> None:
    clock, path = FakeClock(), tmp_path / "z.db"
    async with (
        make_bus(clock, store=SqliteStore(path, clock=clock)) as one,
        make_bus(clock, store=SqliteStore(path, clock=clock)) as other,
    ):
        heard: list[tuple[str, bool]] = []

        def hear(event: Event) -> None:
            assert isinstance(event, SettingsChanged)
            heard.append((event.change_id, event.reverted))

        other._changes._tell = hear
        await go_on(clock)  # both are seen to run

        await one.apply({"id": "x", "settings": {"max_attempts": 2}})
        await go_on(clock)
        with_it = other.settings.max_attempts
        await one.revert("x")
        await go_on(clock)
        without = other.settings.max_attempts
        await other.apply({"id": "y", "settings": {"max_tokens": 5}})
        await go_on(clock)

        assert (with_it, without) == (2, Settings().max_attempts)
        assert one.settings.max_tokens == 5
        assert heard == [("x", False), ("x", True), ("y", False)]
        assert [each.id for each in other.changes] == ["x", "y"]
        assert await told_of(one) == [("x", False), ("x", True), ("y", False)]


async def told_of(bus: AsyncMessageBus) -> list[tuple[str, bool]]:
    """Return what the log says of changes."""
    events = await bus.store.events(type="settings_changed")
    return [(each.change_id, each.reverted) for each in events if isinstance(each, SettingsChanged)]


async def test_what_was_applied_and_taken_back_before_anybody_looked_is_told_by_nobody_else(
    tmp_path: Path,
) -> None:
    clock, path = FakeClock(), tmp_path / "z.db"
    async with (
        make_bus(clock, store=SqliteStore(path, clock=clock)) as one,
        make_bus(clock, store=SqliteStore(path, clock=clock)) as other,
    ):
        await one.apply({"id": "x", "settings": {"max_attempts": 2}})
        await one.revert("x")
        told = len(await one.store.events(type="settings_changed"))

        await other._changes.look()

        assert [(each.id, each.stands) for each in other.changes] == [("x", False)]
        assert len(await one.store.events(type="settings_changed")) == told


@pytest.mark.parametrize("kept", ["{", '{"v": 1}', '{"v": 99, "changes": []}'])
async def test_changes_of_another_process_that_cannot_be_read_change_nothing(
    kept: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_bus(FakeClock()) as bus:
        await bus.apply({"id": "x", "settings": {"max_attempts": 2}})
        await bus.store.keep_setting("changes", kept)

        await bus._changes.look()

        assert bus.settings.max_attempts == 2
        assert await bus.store.setting("changes") == kept
    assert "what another process has changed cannot be read" in caplog.text


async def test_a_change_that_others_cannot_be_told_of_holds_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_bus(FakeClock(), store=SqliteStore(tmp_path / "z.db")) as bus:

        async def broken() -> list[object]:
            raise StoreError("no")

        monkeypatch.setattr(bus.store, "snapshots", broken)
        await bus.apply({"id": "x", "settings": {"max_attempts": 2}})

        assert bus.settings.max_attempts == 2
    assert "other processes were not told" in caplog.text


@pytest.mark.parametrize(
    ("improvement", "wrong", "says"),
    [
        ({"id": " ", "settings": {"max_attempts": 2}}, ValueError, "must not be empty"),
        ({"id": "\ud800", "settings": {"max_attempts": 2}}, ValueError, "lone surrogate"),
        ({"id": "x" * 501, "settings": {"max_attempts": 2}}, ValueError, "at most 500"),
        ({"id": "a", "settings": {}}, ValueError, "advice for your own program"),
        ({"id": "a"}, TypeError, "has `settings`"),
        ("reorder", TypeError, "has `settings`"),
        ({"id": 5, "settings": {"max_attempts": 2}}, TypeError, "id must be text"),
        ({"id": "a", "settings": {"home": "/"}}, SettingsError, "cannot be changed while"),
        ({"id": "a", "settings": {"spend_limit_day": 9}}, SettingsError, "cannot be changed while"),
        ({"id": "a", "settings": {"max_atempts": 2}}, SettingsError, "is no setting"),
        ({"id": "a", "settings": {"max_attempts": 0}}, SettingsError, "whole number from 1"),
        ({"id": "a", "settings": {"patience": 99.0}}, SettingsError, "longer than the deadline"),
        ({"id": "a", "settings": {"failover": "b"}}, SettingsError, "tuple of names"),
    ],
)
async def test_what_is_no_improvement_changes_nothing(
    improvement: object, wrong: type[Exception], says: str
) -> None:
    async with make_bus(FakeClock()) as bus:
        with pytest.raises(wrong, match=says):
            await bus.apply(improvement)

        assert bus.changes == []
        assert bus.settings == Settings()


async def test_an_improvement_stands_once() -> None:
    async with make_bus(FakeClock()) as bus:
        await bus.apply(REORDER)

        with pytest.raises(ValueError, match="in use already"):
            await bus.apply(REORDER)

        await bus.revert("reorder-b")
        await bus.apply(REORDER)
        assert [each.stands for each in bus.changes] == [False, True]


async def test_only_what_stands_is_taken_back() -> None:
    async with make_bus(FakeClock()) as bus:
        await bus.apply(REORDER)

        with pytest.raises(NoSuchChange, match="in use: 'other'; there is reorder-b"):
            await bus.revert("other")

        await bus.revert("reorder-b")
        with pytest.raises(NoSuchChange, match="'reorder-b'; there is none"):
            await bus.revert("reorder-b")


async def test_a_bus_that_does_not_run_changes_nothing() -> None:
    bus = make_bus(FakeClock())

    with pytest.raises(BusNotRunning):
        await bus.apply(REORDER)
    with pytest.raises(BusNotRunning):
        await bus.revert("x")


@pytest.mark.parametrize("kept", ["{", "[]", '{"v": 1}', '{"v": 1, "changes": [{"id": 1}]}'])
async def test_changes_that_cannot_be_read_are_set_aside(kept: str) -> None:
    store = InMemoryStore()
    await store.open()
    await store.keep_setting("changes", kept)

    async with make_bus(FakeClock(), store=store) as bus:
        assert bus.changes == []
        assert await store.setting("changes.damaged") == kept
        await bus.apply(REORDER)
        assert [each.id for each in bus.changes] == ["reorder-b"]


async def test_changes_of_a_newer_version_are_left_alone() -> None:
    store = InMemoryStore()
    await store.open()
    await store.keep_setting("changes", json.dumps({"v": 2, "changes": []}))

    with pytest.raises(StoreTooNew, match="version 2"):
        await make_bus(FakeClock(), store=store).start()


async def test_a_change_that_no_longer_fits_is_left_out_and_the_others_stand() -> None:
    clock, store = FakeClock(), InMemoryStore()
    async with make_bus(clock, store=store) as bus:
        await bus.apply({"id": "patient", "settings": {"patience": 50.0}})
        await bus.apply({"id": "fine", "settings": {"max_attempts": 7}})

    async with make_bus(clock, store=store, deadline=10.0) as bus:
        assert (bus.settings.patience, bus.settings.max_attempts) == (None, 7)


async def test_old_changes_are_forgotten_and_those_that_stand_are_not() -> None:
    async with make_bus(FakeClock()) as bus:
        await bus.apply({"id": "stays", "settings": {"max_attempts": 7}})
        for number in range(205):
            await bus.apply({"id": f"c{number}", "settings": {"max_tokens": 9}})
            await bus.revert(f"c{number}")

        assert len(bus.changes) == 201
        assert bus.changes[0].id == "stays"


async def test_one_that_is_cancelled_is_whole_or_not_at_all(tmp_path: Path) -> None:
    async with make_bus(FakeClock(), store=SqliteStore(tmp_path / "z.db")) as bus:
        task = asyncio.create_task(bus.apply({"id": "x", "settings": {"max_attempts": 9}}))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await bus.apply({"id": "y", "settings": {"max_tokens": 9}})  # after it

        assert [each.id for each in bus.changes] == ["x", "y"]
        assert bus.settings.max_attempts == 9


async def test_a_change_of_one_limit_leaves_the_others() -> None:
    limits = {"a": RateLimit(requests=5), "b": RateLimit(requests=7)}
    async with make_bus(FakeClock(), rate_limits=limits) as bus:
        await bus.apply({"id": "x", "settings": {"rate_limits": {"b": {"requests": 1}}}})

        assert bus.settings.rate_limits == {"a": RateLimit(5), "b": RateLimit(1)}


async def test_an_order_that_was_tried_beats_a_default_that_was_kept() -> None:
    clock = FakeClock()
    store = InMemoryStore()
    await store.open()
    await store.keep_setting("default_provider", "a")
    async with make_bus(clock, store=store) as bus:
        await register(bus, clock, a="ok", b="ok")
        assert await who_answers(bus, clock) == "a"

        await bus.apply(REORDER)

        assert await who_answers(bus, clock) == "b"
        assert list(bus.providers) == ["b", "a"]


async def test_a_change_of_another_process_that_does_not_fit_here_is_left_out(
    tmp_path: Path,
) -> None:
    path = tmp_path / "z.db"
    async with (
        make_bus(FakeClock(), store=SqliteStore(path)) as patient,
        make_bus(FakeClock(), store=SqliteStore(path), deadline=10.0) as hasty,
    ):
        await patient.apply({"id": "long", "settings": {"patience": 50.0}})
        await hasty.apply({"id": "few", "settings": {"max_attempts": 2}})

        assert (hasty.settings.patience, hasty.settings.max_attempts) == (None, 2)


async def test_the_one_that_was_just_taken_back_is_remembered_however_old_it_is() -> None:
    async with make_bus(FakeClock()) as bus:
        await bus.apply({"id": "old", "settings": {"max_tokens": 7}})
        for number in range(201):
            await bus.apply({"id": f"c{number}", "settings": {"max_attempts": 2}})
            await bus.revert(f"c{number}")

        await bus.revert("old")

        assert bus.settings.max_tokens is None
        assert "old" in [each.id for each in bus.changes]


@pytest.mark.parametrize(
    "settings",
    ['"ab"', '{"max_tokens": Infinity}', '{"spend_limit_day": 9}', "{}"],
)
async def test_what_a_store_says_is_checked_like_what_a_caller_says(settings: str) -> None:
    row = f"""{{"id": "x", "settings": {settings}, "reason": "", "reverted_because": "",
        "applied_at": "2026-01-01T00:00:00+00:00", "reverted_at": null}}"""
    kept = f'{{"v": 1, "changes": [{row}]}}'
    store = InMemoryStore()
    await store.open()
    await store.keep_setting("changes", kept)

    async with make_bus(FakeClock(), store=store) as bus:
        assert bus.changes == []
        assert await store.setting("changes.damaged") == kept


def nested(depth: int, kind: type) -> object:
    """Return a table in a table, or a list in a list, and so on."""
    value: object = {} if kind is dict else []
    for _ in range(depth):
        value = {"a": value} if kind is dict else [value]
    return value


@pytest.mark.parametrize(
    "improvement",
    [
        {"id": "a", "settings": {"rate_limits": nested(5_000, dict)}},
        {"id": "a", "settings": {"failover": nested(5_000, list)}},
        {"id": "a", "settings": {"max_attempts": nested(5_000, list)}},
        {"id": "a", "settings": nested(5_000, list)},
        {"id": nested(5_000, list), "settings": {"max_attempts": 2}},
        {"id": "a", "action": nested(5_000, list), "settings": {"max_attempts": "x"}},
    ],
)
async def test_what_is_nested_without_end_is_told_as_a_wrong_value(improvement: object) -> None:
    async with make_bus(FakeClock()) as bus:
        with pytest.raises((TypeError, ValueError)):
            await bus.apply(improvement)

        assert bus.changes == []
        assert bus.settings == Settings()
