"""The running bus reached from another process: healed, reset, shielded, asked what it learned."""

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread, Timer
from typing import Any, TypeVar

import pytest

from ai_framework import AsyncMessageBus
from tests.shell import HOSTILE, STEERING, Shell, Typing, until
from zejzl.errors import ServerError
from zejzl.settings import Settings
from zejzl.stores import SqliteStore
from zejzl.testing import ScriptedProvider

T = TypeVar("T")
Wait = Callable[[float], None]

ROW = {
    "component": "ai_provider:claude", "failure_class": "overloaded", "remedy": "failover",
    "probability": 0.9, "score": 0.8, "success_rate": 0.95, "cost": 0.15, "tried": 12,
    "offset": 0.0, "author": None,
}  # fmt: skip


class Loop:
    """An event loop in a thread: a command runs one of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    made = Shell(tmp_path, monkeypatch, capsys)
    yield made
    made.end()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.end()


@pytest.fixture
def run(shell: Shell, loop: Loop) -> Iterator[Callable[[], AsyncMessageBus]]:
    """What starts a bus that other processes see; stopped at the end."""
    buses: list[AsyncMessageBus] = []

    def start() -> AsyncMessageBus:
        bus = AsyncMessageBus(Settings.from_env())
        loop.do(bus.start())
        buses.append(bus)
        until(lambda: len(seen(shell)) == len(buses))
        return bus

    yield start
    for bus in buses:
        loop.do(bus.stop())


@pytest.fixture
def bus(run: Callable[[], AsyncMessageBus]) -> AsyncMessageBus:
    return run()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Wait:
    """Sets the seconds that a command waits for its answer."""
    return lambda seconds: monkeypatch.setattr("zejzl.cli.controls.PATIENCE", seconds)


def seen(shell: Shell) -> list[str]:
    """Return the ids of the buses that run."""
    found = shell("status", "--json").json["buses"]
    return [bus["owner"] for bus in found if bus["running"]]


def shown(shell: Shell, loop: Loop, **magic: object) -> SqliteStore:
    """Return an open store that shows a running bus in that state."""
    store = SqliteStore(shell.folder / "home/zejzl.db")
    loop.do(store.open())
    body = {"v": 1, "state": "running", "requests": 0, "providers": {"a": "m"}, "magic": magic}

    async def keep() -> None:
        await store.keep_snapshot("0123456789abcdef", json.dumps(body))

    loop.do(keep())
    return store


async def trip(bus: AsyncMessageBus) -> None:
    """Open the store's circuit breaker."""
    breaker = bus.magic.circuit_breakers["persistence"]
    while breaker.state != "open":
        with suppress(RuntimeError):
            await breaker.call(fails)


async def fails() -> None:
    raise RuntimeError("oh")


# Nobody there, and several


@pytest.mark.parametrize(
    "words", [("heal", "claude"), ("reset", "claude"), ("ritual", "mana_surge"), ("shield", "up")]
)
def test_without_a_running_bus_that_is_said_with_what_to_do(
    shell: Shell, words: tuple[str, ...]
) -> None:
    before = shell(*words)
    made = (shell.folder / "home").exists()
    shell("ask", "hello")
    after, found = shell(*words), shell(*words, "--json").json

    assert (before.code, before.out, made) == (1, "", False)
    assert f"no bus is running on {shell.folder}/home/zejzl.db\n" in before.err
    assert re.search(r"zejzl\.db, last seen \d s ago\n  → start your program", after.err)
    assert found["error"]["type"] == "ConnectionError"


def test_of_several_buses_one_must_be_meant(
    shell: Shell, loop: Loop, run: Callable[[], AsyncMessageBus]
) -> None:
    one, two = run(), run()
    for bus in (one, two):
        loop.do(trip(bus))
    ids = seen(shell)

    unclear, nobody = shell("reset", "persistence"), shell("reset", "persistence", "--bus", "xyz")
    done = [shell("reset", "persistence", "--bus", id[:6]).code for id in ids]

    assert (unclear.code, nobody.code, done) == (2, 2, [0, 0])
    for id in ids:
        assert f"{id[:8]} (offline; requests: 0; state of " in unclear.err
        assert id[:8] in nobody.err
    assert "say which with --bus" in unclear.err and "begins with 'xyz'" in nobody.err
    assert [bus.magic.circuit_breakers["persistence"].state for bus in (one, two)] == ["closed"] * 2


def test_a_look_at_several_buses_says_which_it_is(
    shell: Shell, run: Callable[[], AsyncMessageBus]
) -> None:
    run()
    run()
    one, other = seen(shell)

    newest, named, nobody = (
        shell("preferences"),
        shell("preferences", "--bus", other),
        shell("rituals", "--bus", "xyz"),
    )

    assert newest.code == named.code == 0
    assert newest.err.startswith("2 buses run, this is ")
    assert one[:8] in newest.err or other[:8] in newest.err
    assert (named.err, nobody.code) == ("", 2)


# No answer


def test_a_bus_that_stands_still_does_nothing_later(
    shell: Shell, patience: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience(0.3)
    process = shell.start("chat", stdin=subprocess.PIPE)
    until(lambda: seen(shell))
    process.send_signal(signal.SIGSTOP)

    done = shell("reset", "persistence")

    assert done.code == 1
    assert "did not take the command within 0.3 s" in done.err
    assert "nothing will be" in done.err


def test_a_bus_that_ends_meanwhile_is_said_to_have_ended(shell: Shell, patience: Wait) -> None:
    patience(1.0)
    process = shell.start("chat", stdin=subprocess.PIPE)
    until(lambda: seen(shell))
    process.send_signal(signal.SIGSTOP)
    Timer(0.2, process.kill).start()

    done = shell("reset", "persistence")

    assert done.code == 1
    assert "ended before it took the command" in done.err


def test_one_that_is_still_at_it_goes_on_and_that_is_said(
    shell: Shell, loop: Loop, bus: AsyncMessageBus, patience: Wait
) -> None:
    patience(1.0)
    ended = asyncio.Event()

    @bus.magic.ritual("long_one")
    async def long_one() -> str:
        await ended.wait()
        return "ended"

    done = shell("ritual", "long_one")

    async def end() -> None:
        ended.set()

    loop.do(end())
    assert done.code == 1
    assert "is still at it after 1 s" in done.err
    assert "goes on without you" in done.err and "runbook_performed" in done.err


@pytest.mark.parametrize("answer", ["[]", '"no"', "null"])
def test_an_answer_that_cannot_be_read_is_told(shell: Shell, loop: Loop, answer: str) -> None:
    store = shown(shell, loop)

    async def serve() -> None:
        while not (taken := await store.take_commands("0123456789abcdef")):
            pass
        await store.answer_command(taken[0][0], True, answer)

    serving = Thread(target=loop.do, args=(serve(),))
    serving.start()
    done = shell("reset", "x")

    serving.join()
    loop.do(store.close())
    assert done.code == 1
    assert "cannot read" in done.err


def test_what_a_bus_answers_is_shown_and_not_obeyed(shell: Shell, loop: Loop) -> None:
    store = shown(shell, loop)
    said = {"type": "ValueError", "message": HOSTILE}

    async def serve(ok: bool, answer: dict[str, object]) -> None:
        while not (taken := await store.take_commands("0123456789abcdef")):
            pass
        await store.answer_command(taken[0][0], ok, json.dumps(answer))

    told = []
    for ok, answer in ((True, {"name": HOSTILE, "state": HOSTILE}), (False, said)):
        serving = Thread(target=loop.do, args=(serve(ok, dict(answer)),))
        serving.start()
        told.append(shell("reset", "x"))
        serving.join()

    loop.do(store.close())
    assert [done.code for done in told] == [0, 2]
    for done in told:
        assert "[red]" in done.out + done.err
        assert not STEERING.search(done.out + done.err)


# heal and reset


def test_heal_makes_the_bus_try_once_and_tells_what_it_did(
    shell: Shell, bus: AsyncMessageBus
) -> None:
    done = shell("heal", "persistence", "--issue", "the disk was full")
    row = shell("heal", "persistence", "--json").json

    assert (done.code, done.err) == (0, "")
    assert re.match(r"persistence: \w+ helped: .* \(retry budget spent: 10 energy\)\n", done.out)
    assert (row["target"], row["success"], row["issue"]) == (
        "persistence",
        True,
        "asked for by hand",
    )
    assert [one.issue for one in bus.magic.healing_history] == [
        "the disk was full",
        "asked for by hand",
    ]
    until(lambda: shell("heal", "persistence", "--log", "--json").json["counted"] == 2)


def test_heal_that_does_not_help_is_unhealthy_and_says_why(
    shell: Shell, loop: Loop, bus: AsyncMessageBus
) -> None:
    loop.do(trip(bus))

    done = shell("heal", "persistence")
    loop.do(bus.magic.reset_circuit_breaker("persistence"))
    shell("heal", "persistence")
    log = shell("heal", "--log", "--json").json
    status = shell("status", "--json").json

    assert done.code == 3
    assert re.match(r"persistence: nothing was tried: circuit breaker is open for \d", done.out)
    assert re.search(r"→ `.+ reset persistence` closes it now\n$", done.out)
    assert [row["remedy"] for row in log["recoveries"]] == ["wait", "none"]
    assert (log["counted"], log["success_rate"]) == (1, 1.0)
    assert status["recoveries"] == {"all": 1, "helped": 1}
    assert re.search(r"none +– +circuit breaker is open", shell("heal").out)
    assert "1 of 1 remedies helped (100%)" in shell("heal").out


def test_a_log_of_nothing_that_was_tried_has_no_rate(
    shell: Shell, loop: Loop, bus: AsyncMessageBus
) -> None:
    loop.do(trip(bus))
    shell("heal", "persistence")

    log = shell("heal", "--log", "--json").json

    assert (len(log["recoveries"]), log["counted"], log["success_rate"]) == (1, 0, None)
    assert shell("heal").out.endswith("\n0 of 0 remedies helped\n")


@pytest.mark.parametrize("command", ["heal", "reset"])
def test_a_provider_that_nobody_has_called_yet_is_known(
    shell: Shell, loop: Loop, bus: AsyncMessageBus, command: str
) -> None:
    loop.do(bus.register_provider("alpha", ScriptedProvider(["pong"])))

    done = shell(command, "Alpha")

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("alpha: ")


def test_the_state_is_the_one_after_a_command_as_soon_as_that_is_answered(
    shell: Shell, bus: AsyncMessageBus
) -> None:
    for position, raised in (("up", True), ("down", False), ("up", True)):
        shell("shield", position)

        (seen,) = shell("status", "--json").json["buses"]
        assert seen["body"]["magic"]["is_shielded"] is raised


def test_holly_blessing_tells_who_is_unwell_and_why(
    shell: Shell, loop: Loop, bus: AsyncMessageBus
) -> None:
    well = shell("ritual", "holly_blessing")
    down = ServerError("down", provider="chatgpt")
    loop.do(bus.register_provider("alpha", ScriptedProvider([down])))

    done = shell("ritual", "holly_blessing")

    assert (well.code, done.code) == (0, 3)
    assert "answered: persistence" in well.out and "closed" not in well.out
    assert "did not answer: ai_provider:alpha (ServerError: alpha: down)" in done.out


@pytest.mark.parametrize("command", ["heal", "reset"])
def test_a_name_that_the_bus_does_not_know_is_a_usage_error(
    shell: Shell, bus: AsyncMessageBus, command: str
) -> None:
    done, error = shell(command, "persistance"), shell(command, "persistance", "--json").json

    assert (done.code, done.out) == (2, "")
    assert "no component named 'persistance'; known: ai_provider, persistence" in done.err
    assert error["error"]["type"] == "ValueError"


def test_reset_closes_the_breaker(shell: Shell, loop: Loop, bus: AsyncMessageBus) -> None:
    loop.do(trip(bus))

    done = shell("reset", "persistence")

    assert (done.code, done.out) == (0, "persistence: circuit breaker closed\n")
    assert bus.magic.circuit_breakers["persistence"].state == "closed"


def test_on_a_terminal_the_waiting_is_seen(shell: Shell, bus: AsyncMessageBus) -> None:
    shell.set(TERM="xterm")
    typing = Typing(shell, "reset", "persistence")

    assert typing.end() == 0
    assert "asking the bus" in typing.seen
    assert "persistence: circuit breaker closed" in typing.seen


# Shield and rituals


def test_the_shield_goes_up_and_down(shell: Shell, bus: AsyncMessageBus) -> None:
    up = shell("shield", "up")
    raised = bus.magic.is_shielded
    until(lambda: "critical requests alone" in shell("status").out)
    down = shell("shield", "down", "--json")

    assert (up.code, down.code) == (0, 0)
    assert re.fullmatch(r"critical requests alone .* budget: 90 \(energy\)\n", up.out)
    assert (raised, bus.magic.is_shielded, down.json["raised"]) == (True, False, False)


def test_a_shield_that_cannot_be_paid_stays_down(shell: Shell, bus: AsyncMessageBus) -> None:
    bus.magic.charge(95.0)

    done = shell("shield", "up")

    assert (done.code, done.out) == (1, "")
    assert re.search(r"not raised: retry budget is short \(energy \d\.\d of 100\)", done.err)
    assert not bus.magic.is_shielded


def test_a_ritual_is_performed_in_the_bus_with_the_whole_path_of_its_file(
    shell: Shell, bus: AsyncMessageBus
) -> None:
    (shell.folder / "precious").write_text("x")

    surge, ward = shell("ritual", "mana_surge"), shell("ritual", "fairy_ward", "--file", "precious")

    assert (surge.code, ward.code) == (0, 0)
    assert surge.out.startswith("mana_surge")
    assert str(shell.folder / "precious") in ward.out
    assert "only critical work pass" in ward.out and "shield down` lets everybody" in ward.out


def test_guarded_files_are_checked_restored_and_forgotten(
    shell: Shell, bus: AsyncMessageBus
) -> None:
    precious = shell.folder / "precious"
    precious.write_text("x")
    none = shell("wards")
    shell("ritual", "fairy_ward", "--file", "precious")

    intact = shell("wards")
    precious.write_text("y")
    changed, found = shell("wards"), shell("wards", "--json")
    restored = shell("wards", "--restore", "precious")
    content = precious.read_text(), (shell.folder / "precious.tampered-1").read_text()
    forgotten = shell("wards", "--forget", "precious", "--json")
    unknown = shell("wards", "--restore", "precious")

    assert (none.code, intact.code, changed.code, found.code) == (0, 0, 3, 3)
    assert "no file is guarded" in none.out
    assert re.search(rf"^{precious} +intact +yes$", intact.out, re.M)
    assert re.search(rf"^{precious} +changed +yes$", changed.out, re.M)
    assert "wards --restore FILE" in changed.out
    assert [(one["path"], one["state"], one["mendable"]) for one in found.json] == [
        (str(precious), "changed", True)
    ]
    assert (restored.code, content) == (0, ("x", "y"))
    assert "what was there is now precious.tampered-1" in restored.err
    assert (forgotten.code, forgotten.json) == (0, [])
    assert unknown.code == 2 and "is not guarded" in unknown.err


def test_a_file_whose_copy_is_damaged_is_not_restored_and_that_is_said(
    shell: Shell, bus: AsyncMessageBus
) -> None:
    precious = shell.folder / "precious"
    precious.write_text("x")
    shell("ritual", "fairy_ward", "--file", "precious")
    (copy,) = (shell.folder / "home/guarded").glob("*.copy")
    copy.write_text("evil")
    precious.write_text("y")

    done = shell("wards", "--restore", "precious")

    assert (done.code, precious.read_text()) == (3, "y")
    assert "its copy is damaged" in done.err
    assert re.search(r"precious +changed +no$", done.out, re.M)


def test_ones_own_ritual_is_listed_and_performed(shell: Shell, bus: AsyncMessageBus) -> None:
    @bus.magic.ritual("deploy_blessing")
    async def deploy_blessing() -> str:
        """Migrates the tables."""
        return "three tables"

    done = shell("ritual", "deploy_blessing")

    assert (done.code, done.out) == (0, "deploy_blessing: three tables.\n")
    until(lambda: "deploy_blessing" in shell("rituals").out)
    assert re.search(r"^deploy_blessing +Migrates the tables", shell("rituals").out, re.M)


def test_a_ritual_that_fails_has_failed(shell: Shell, bus: AsyncMessageBus) -> None:
    @bus.magic.ritual("broken")
    async def broken() -> str:
        raise RuntimeError(HOSTILE)

    done = shell("ritual", "broken")

    assert done.code == 1
    assert "RuntimeError" in done.out and not STEERING.search(done.out)


def test_an_unknown_ritual_is_a_usage_error_that_lists_the_known(
    shell: Shell, bus: AsyncMessageBus
) -> None:
    done = shell("ritual", "fly")

    assert done.code == 2
    assert "'fly'" in done.err and "holly_blessing" in done.err


def test_the_four_rituals_are_listed_without_a_bus(shell: Shell) -> None:
    done, found = shell("rituals"), shell("rituals", "--json").json

    four = ["holly_blessing", "oak_fortification", "fairy_ward", "mana_surge"]
    assert re.findall(r"^(\w+) {2,}\w", done.out, re.M)[-4:] == list(found) == four
    assert "no bus is running" in done.err


def test_hostile_rituals_are_listed_and_not_obeyed(shell: Shell, loop: Loop) -> None:
    store = shown(shell, loop, rituals={HOSTILE: HOSTILE, "mana_surge": "taken over"})

    done = shell("rituals")

    loop.do(store.close())
    assert "[red]" in done.out and not STEERING.search(done.out)
    assert "taken over" not in done.out


# Preferences


@pytest.mark.parametrize("runs", [True, False])
def test_without_anything_learned_the_runbook_holds(shell: Shell, loop: Loop, runs: bool) -> None:
    if runs:
        loop.do(shown(shell, loop, preferences=[]).close())

    assert shell("preferences").out == "nothing learned yet: the runbook's order holds\n"
    assert shell("preferences", "--json").json == []


def test_preferences_are_told_with_counts_and_why_the_first_is_first(
    shell: Shell, loop: Loop
) -> None:
    rows = [
        {
            **ROW,
            "remedy": "again",
            "probability": 0.1,
            "success_rate": 0.5,
            "cost": 0.1,
            "tried": 1,
        },
        ROW,
        {**ROW, "failure_class": "cut_stream", "tried": 0, "offset": 0.1, "author": "ann"},
    ]
    loop.do(shown(shell, loop, preferences=rows).close())

    done, found = shell("preferences"), shell("preferences", "--json").json

    *table, why, other = done.out.splitlines()
    assert "no bus is running; this is the one last seen" in done.err
    assert re.match(r"claude +overloaded +failover +90% +95% +0\.15 +12 +–", table[2])
    assert re.match(r"claude +cut_stream +failover +90% +95% +0\.15 +0 +\+0\.1 +ann", table[1])
    assert other == (
        "claude, overloaded: failover first: it is expected to help in 95% at a cost of 0.15 "
        "(tried 12×), again in 50% at a cost of 0.10 (tried 1×)"
    )
    assert why == (
        "claude, cut_stream: failover first: nothing was tried yet, so the runbook's order holds; "
        "ann adds +0.1"
    )
    assert [row["remedy"] for row in found] == ["failover", "failover", "again"]


def test_what_an_operator_prefers_is_shown_at_once(
    shell: Shell, loop: Loop, bus: AsyncMessageBus
) -> None:
    async def prefer() -> None:
        bus.magic.prefer("wait", "failover", author="ann")

    loop.do(prefer())
    until(lambda: shell("preferences", "--json").json)

    done = shell("preferences")

    assert re.search(r"^anywhere +any +wait +\d+% .* \+0\.1 +ann$", done.out, re.M)
    assert "anywhere, any: wait first: " in done.out


def test_why_a_remedy_is_first_stays_within_the_terminal(shell: Shell, loop: Loop) -> None:
    rows = [ROW, {**ROW, "remedy": "again", "probability": 0.1}]
    loop.do(shown(shell, loop, preferences=rows).close())
    shell.set(COLUMNS="80", TERM="xterm", NO_COLOR="1")

    typing = Typing(shell, "preferences")

    assert typing.end() == 0
    assert "it is expected to help" in " ".join(typing.seen.split())
    assert max(map(len, typing.seen.splitlines())) <= 80


def test_hostile_preferences_are_shown_and_not_obeyed(shell: Shell, loop: Loop) -> None:
    texts = ("component", "failure_class", "remedy", "author")
    row = {**ROW, **dict.fromkeys(texts, HOSTILE), "tried": HOSTILE, "offset": 1.0}
    loop.do(shown(shell, loop, preferences=[row]).close())

    done = shell("preferences")

    assert done.code == 0
    assert "[red]" in done.out and not STEERING.search(done.out)


# Status


def test_status_shows_all_of_a_running_bus(shell: Shell, loop: Loop) -> None:
    open_one = {"state": "open", "retry_after": 30.0, "failure_count": 3, "last_error": HOSTILE}
    store = shown(
        shell,
        loop,
        energy_level=42.0,
        max_energy=100.0,
        acorn_reserve=4,
        is_shielded=True,
        hardened_for=600.0,
        circuit_breakers={"ai_provider:claude": open_one},
        limits={HOSTILE: {"limit": 20.4, "in_flight": 3, "queued": 2, "strained": True}},
    )

    running = shell("status").out
    loop.do(store.close())
    dead = shell("status").out

    assert re.search(r"^bus: +01234567$", running, re.M)
    assert re.search(r"^retry budget: +42 of 100 \(energy\)$", running, re.M)
    assert re.search(r"^burst credits: +4 \(acorns\)$", running, re.M)
    assert re.search(r"^admission: +critical requests alone", running, re.M)
    assert re.search(r"^hardened: +for 10 min$", running, re.M)
    assert re.search(r"^claude +open +in \d\d s +3", running, re.M)
    assert re.search(r" 3 +20 +2 +yes$", running, re.M)
    assert re.search(r"^claude +open +3", dead, re.M)
    assert "hardened" not in dead
    assert not STEERING.search(running)


def test_a_component_that_is_as_badly_off_as_its_worst_child_is_not_listed_twice(
    shell: Shell, loop: Loop
) -> None:
    child = {"state": "open", "retry_after": 30.0, "failure_count": 5, "last_error": "down"}
    breakers = {"ai_provider": {**child, "worst": "ai_provider:claude"}, "persistence": child}
    breakers["ai_provider:claude"] = child
    store = shown(shell, loop, circuit_breakers=breakers)

    listed = shell("status").out

    loop.do(store.close())
    assert re.findall(r"^(\w+) +open", listed, re.M) == ["persistence", "claude"]


DAMAGED = [
    *["{x", "", "[]", "5", "null", "[" * 100_000],
    *[{"v": 2}, {"magic": []}, {"magic": None}, {"providers": 5}, {"providers": [5]}],
    *[{"magic": {name: value}} for name in ("circuit_breakers", "limits") for value in ([1], 5)],
    *[{"magic": {name: {"a": value}}} for name in ("circuit_breakers", "limits") for value in (5,)],
    *[{"magic": {"preferences": [5]}}, {"magic": {"rituals": [1]}}],
]


@pytest.mark.parametrize("body", DAMAGED, ids=lambda body: str(body)[:40])
def test_a_damaged_state_hides_neither_the_database_nor_other_buses(
    shell: Shell, loop: Loop, body: str | dict[str, object]
) -> None:
    store = shown(shell, loop, energy_level=42.0)
    text = body if isinstance(body, str) else json.dumps({"v": 1, "state": "running", **body})

    async def spoil() -> None:
        await store.keep_snapshot("damaged", text)

    loop.do(spoil())

    for words in (
        ("status",),
        ("status", "--json"),
        ("preferences",),
        ("rituals",),
        ("providers",),
    ):
        done = shell(*words)
        assert done.code == 0
        assert "the state of the bus damaged is damaged and left out" in done.err
    assert "42 of" in shell("status").out
    assert shell("set-default", "a").code == 0
    loop.do(store.close())


@pytest.mark.parametrize("value", [None, "x", [], {}, True, float("nan")], ids=repr)
def test_a_value_that_is_none_is_shown_as_none(shell: Shell, loop: Loop, value: object) -> None:
    breaker = dict.fromkeys(["retry_after", "failure_count", "success_count", "last_error"], value)
    row = {**ROW, **dict.fromkeys(["probability", "success_rate", "cost", "tried"], value)}
    limit = dict.fromkeys(["in_flight", "limit", "queued"], value)
    store = shown(
        shell,
        loop,
        energy_level=value,
        acorn_reserve=value,
        hardened_for=value,
        circuit_breakers={"ai_provider:claude": {**breaker, "state": "open"}},
        limits={"claude": limit},
        preferences=[row],
    )

    found = [shell(words) for words in ("status", "preferences", "providers")]
    plain = [shell(words, "--json") for words in ("status", "preferences")]

    loop.do(store.close())
    assert [done.code for done in found] == [0, 0, 0]
    for done in plain:
        assert "NaN" not in done.out
