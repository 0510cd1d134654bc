"""What was learned outlives the process: kept in the store, taken up again at the start."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.driving import finished, make_bus, register
from zejzl.engine.learned import DAMAGED, NAME, Learned
from zejzl.errors import ServerError, StoreTooNew
from zejzl.magic import FairyMagic
from zejzl.ports import Store
from zejzl.stores import InMemoryStore, SqliteStore
from zejzl.testing import FakeClock


class Counting(InMemoryStore):
    """Counts how often what was learned is written."""

    written = 0

    def keep_setting(self, name: str, value: str | None) -> Any:
        self.written += name == NAME
        return super().keep_setting(name, value)


async def holding(clock: FakeClock, kept: str) -> InMemoryStore:
    """Return a store in which this was kept."""
    store = InMemoryStore(clock=clock)
    await store.open()
    await store.keep_setting(NAME, kept)
    return store


async def use(clock: FakeClock, store: Store) -> FairyMagic:
    """Let a bus live, learn something and end; return what it knew at its end."""
    magic = FairyMagic(clock=clock)
    async with make_bus(clock, magic=magic, store=store) as bus:
        await register(bus, clock, a=[ServerError("x"), ServerError("x"), "ok"], b="from b")
        await finished(clock, bus.send("hello"))
        magic.prefer("failover", "retry", author="nela")
    return magic


async def started(clock: FakeClock, store: Store) -> FairyMagic:
    """Return what a new bus knows at its start."""
    magic = FairyMagic(clock=clock)
    async with make_bus(clock, magic=magic, store=store):
        return magic


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_restarted_bus_goes_on_to_the_last_bit(tmp_path: Path, kind: str) -> None:
    clock = FakeClock()
    memory = InMemoryStore(clock=clock)

    def store() -> Store:
        return memory if kind == "memory" else SqliteStore(tmp_path / "z.db", clock=clock)

    before = await use(clock, store())
    after = await started(clock, store())

    assert before.preferences() != []
    assert after.snapshot() == before.snapshot()
    assert after.learning_preferences == before.learning_preferences


async def test_it_is_written_within_a_second_of_a_lesson_and_only_if_there_is_one() -> None:
    clock = FakeClock()
    store = Counting(clock=clock)
    magic = FairyMagic(clock=clock)
    async with make_bus(clock, magic=magic, store=store) as bus:
        await register(bus, clock, a=[ServerError("x"), "ok"])
        await clock.advance(2.0)
        at_first = store.written
        await finished(clock, bus.send("hello"))
        await clock.advance(1.0)
        kept = await store.setting(NAME)
        once = store.written - at_first
        for _ in range(3):
            await finished(clock, bus.send("hello"))
            await clock.advance(1.0)

        assert kept == json.dumps(magic.snapshot())
        assert (once, store.written - at_first) == (1, 1)


async def test_a_store_in_which_nothing_was_kept_is_fine() -> None:
    magic = await started(FakeClock(), InMemoryStore())

    assert magic.preferences() == []


@pytest.mark.parametrize(
    "kept",
    [
        *("no json", "[", "[]", "3", "{}", '{"v": 1}', '{"v": "2"}', '{"v": null}'),
        '{"v": 1, "preferences": {"v": 1, "classes": 3, "cells": [], "preferred": []}}',
        '{"v": 0, "preferences": {}}',
        "[" * 100_000,
    ],
    ids=lambda kept: kept[:20],
)
async def test_what_is_damaged_is_set_aside_and_told_and_the_bus_begins_anew(
    kept: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    store = await holding(clock, kept)

    with caplog.at_level(logging.WARNING, logger="zejzl"):
        magic = await started(clock, store)

    assert magic.preferences() == []
    assert DAMAGED in caplog.text
    await store.open()
    assert await store.setting(DAMAGED) == kept
    assert await store.setting(NAME) == json.dumps(magic.snapshot())


async def test_what_a_newer_version_wrote_stops_the_bus_and_stays_as_it_is() -> None:
    clock = FakeClock()
    kept = '{"v": 2, "preferences": "in a way not yet thought of"}'
    store = await holding(clock, kept)
    bus = make_bus(clock, store=store)

    with pytest.raises(StoreTooNew, match=r"version 2.*reads 1"):
        await bus.start()
    await bus.stop()
    await store.open()

    assert (await store.setting(NAME), await store.setting(DAMAGED)) == (kept, None)


async def test_what_was_recalled_is_not_written_again() -> None:
    clock = FakeClock()
    store = Counting(clock=clock)
    await use(clock, store)
    store.written = 0
    magic = FairyMagic(clock=clock)
    learned = Learned(store, magic)
    await store.open()

    await learned.recall()
    await learned.keep()
    unchanged = store.written
    magic.prefer("wait", "retry")
    await learned.keep()

    assert (unchanged, store.written) == (0, 1)
