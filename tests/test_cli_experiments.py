"""Experiments and changes from the command line, with a bus that runs and without."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.shell import HOSTILE, STEERING, Shell
from zejzl.settings import Settings
from zejzl.testing import ScriptedProvider

ARMS = {"as it is": None, "short": {"max_tokens": 5}}


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    made = Shell(tmp_path, monkeypatch, capsys)
    yield made
    made.end()


def with_bus(shell: Shell, work: Callable[[AsyncMessageBus], Coroutine[Any, Any, object]]) -> None:
    """Do something with a bus on the shell's database, and stop it."""

    async def run() -> None:
        async with AsyncMessageBus(Settings(home=shell.folder / "home")) as bus:
            await bus.register_provider("a", ScriptedProvider(["yes"]))
            await work(bus)

    asyncio.run(run())


async def try_and_change(bus: AsyncMessageBus) -> None:
    await bus.apply({"id": "patient", "action": "timeout", "settings": {"attempt_timeout": 12.0}})
    await bus.apply({"id": "gone", "settings": {"max_attempts": 9}})
    await bus.revert("gone")
    await bus.experiment("short answers", arms=ARMS)
    for number in range(10):
        await bus.send("hello", conversation_id=f"c{number}")


def test_a_new_database_has_neither(shell: Shell) -> None:
    assert shell("experiment").out.startswith("nothing was tried yet")
    assert shell("changes").out.startswith("nothing was changed")
    assert shell("experiment", "--json").json == []
    assert shell("changes", "--json").json == []
    assert not (shell.folder / "home").exists()


def test_changes_are_shown_with_what_became_of_them(shell: Shell) -> None:
    with_bus(shell, try_and_change)

    shown = shell("changes")

    assert shown.code == 0
    assert "patient" in shown.out
    assert "attempt_timeout = 12.0" in shown.out
    assert "taken back: by hand" in shown.out
    assert [each["id"] for each in shell("changes", "--json").json] == ["patient", "gone"]


def test_an_experiment_is_shown_with_both_arms(shell: Shell) -> None:
    with_bus(shell, try_and_change)

    shown = shell("experiment")
    (found,) = shell("experiment", "short answers", "--json").json

    assert "short answers: running" in shown.out
    assert "max_tokens = 5" in shown.out
    assert "as it is" in shown.out
    assert found["ruling"]["treatment"]["n"] + found["ruling"]["control"]["n"] == 10


def test_an_experiment_of_an_older_version_is_shown_as_ended_beside_the_others(
    shell: Shell,
) -> None:
    with_bus(shell, try_and_change)

    async def age(bus: AsyncMessageBus) -> None:
        await bus.experiment("other", arms=ARMS)
        body = json.loads(await bus.store.setting("experiments") or "")
        body["running"][0]["trial"]["v"] = 1
        await bus.store.keep_setting("experiments", json.dumps(body))

    with_bus(shell, age)

    shown = shell("experiment")

    assert shown.code == 0
    assert "short answers: undecided" in shown.out
    assert "version 1 cannot go on" in shown.out.replace("\n ", "")
    assert "other: running" in shown.out


def test_where_no_bus_runs_it_is_done_in_the_database(shell: Shell) -> None:
    with_bus(shell, try_and_change)

    back = shell("changes", "--revert", "patient")
    ended = shell("experiment", "short answers", "--stop", "--json")

    assert (back.code, back.out) == (0, "patient was taken back\n")
    assert ended.json[0]["state"] == "undecided"
    assert [each["reverted_because"] for each in shell("changes", "--json").json] == ["by hand"] * 2

    async def look(bus: AsyncMessageBus) -> None:
        assert bus.settings.attempt_timeout == Settings().attempt_timeout
        assert [each["state"] for each in bus.experiments] == ["undecided"]

    with_bus(shell, look)


def test_a_bus_that_runs_does_it_itself(shell: Shell) -> None:
    ready, over = asyncio.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    seen: list[object] = []

    async def run() -> None:
        async with AsyncMessageBus(Settings(home=shell.folder / "home")) as bus:
            await bus.register_provider("a", ScriptedProvider(["yes"]))
            await try_and_change(bus)
            ready.set()
            await over.wait()
            seen.extend([bus.settings.attempt_timeout, bus.experiments[0]["state"]])

    thread = Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    asyncio.run_coroutine_threadsafe(ready.wait(), loop).result()
    try:
        back = shell("changes", "--revert", "patient", "--json")
        ended = shell("experiment", "short answers", "--stop")
        unknown = shell("changes", "--revert", "nothing")
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()

    assert back.json["reverted_because"] == "by hand"
    assert "short answers: undecided" in ended.out
    assert (unknown.code, unknown.err) == (
        2,
        "zejzl: no such change is in use: 'nothing'; there is none\n",
    )
    assert seen == [Settings().attempt_timeout, "undecided"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["experiment", "--stop"], "--stop needs the NAME"),
        (["experiment", "foo"], "no experiment 'foo'; known: none"),
        (["experiment", "foo", "--stop"], "nothing to end or take back"),
        (["changes", "--revert", "foo"], "nothing to end or take back"),
    ],
)
def test_what_is_not_there_is_told_in_a_line(shell: Shell, words: list[str], says: str) -> None:
    done = shell(*words)

    assert (done.code, done.out) == (2, "")
    assert says in done.err


def test_names_cannot_steer_the_terminal(shell: Shell) -> None:
    async def hostile(bus: AsyncMessageBus) -> None:
        name = HOSTILE.replace("\r", "")
        await bus.apply({"id": name, "settings": {"max_attempts": 9}})
        await bus.experiment(name, arms={HOSTILE: None, "b": {"max_tokens": 5}})

    with_bus(shell, hostile)

    for words in (["experiment"], ["changes"]):
        shown = shell(*words)
        assert shown.code == 0
        assert not STEERING.search(shown.out.replace("\n", ""))
        assert "[red]" in shown.out
