"""`zejzl status --watch`: redrawn on a terminal, one block per change elsewhere."""

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shell import HOSTILE, STEERING, Shell, Typing
from zejzl.stores import SqliteStore

WATCH = ("status", "--watch", "--interval", "0.1")


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    made = Shell(tmp_path, monkeypatch, capsys)
    yield made
    made.end()


def show(shell: Shell, **magic: object) -> None:
    """Write the snapshot of a bus that has ended."""

    async def keep() -> None:
        store = SqliteStore(shell.folder / "home/zejzl.db")
        await store.open()
        body = {"v": 1, "state": "running", "requests": 0, "providers": {}, "magic": magic}
        await store.keep_snapshot("0123456789abcdef", json.dumps(body))
        await store.close()

    asyncio.run(keep())


class Piped:
    """A watch whose output is read line by line."""

    def __init__(self, shell: Shell, *words: str) -> None:
        self._process = shell.start(*WATCH, *words)
        self.seen = ""

    def read_until(self, text: str) -> None:
        assert self._process.stdout is not None
        while text not in self.seen.rpartition("──")[2]:
            self.seen += self._process.stdout.readline()

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def end(self) -> tuple[int, str]:
        """Press Ctrl-C; return the exit code and what is on stderr."""
        self._process.send_signal(signal.SIGINT)
        out, err = self._process.communicate()
        self.seen += out
        return self._process.returncode, err


def test_piped_there_is_one_block_for_each_change(shell: Shell) -> None:
    watch = Piped(shell)

    watch.read_until("no bus has run yet")
    show(shell, energy_level=100.0, max_energy=100.0)
    watch.read_until("100 of 100")
    show(shell, energy_level=100.0, max_energy=100.0)  # anew, and nothing has changed
    show(shell, energy_level=42.0, max_energy=100.0)
    watch.read_until("42 of 100")

    assert watch.end() == (0, "")
    assert watch.seen.count("── ") == 3
    assert "\x1b" not in watch.seen


def test_in_json_there_is_one_line_for_each_change(shell: Shell) -> None:
    watch = Piped(shell, "--json")

    nothing = json.loads(watch.line())
    show(shell, energy_level=42.0)
    (bus,) = json.loads(watch.line())["buses"]

    assert watch.end() == (0, "")
    assert nothing["buses"] == []
    assert bus["body"]["magic"]["energy_level"] == 42.0


def test_a_bus_that_begins_and_dies_is_seen_doing_so(shell: Shell) -> None:
    watch = Piped(shell)
    watch.read_until("no bus has run yet")
    bus = shell.start("chat", stdin=subprocess.PIPE)

    watch.read_until("a bus is running")
    bus.kill()
    watch.read_until("the last one died")

    assert watch.end() == (0, "")


def test_a_database_that_cannot_be_read_is_shown_and_looked_at_again(shell: Shell) -> None:
    path = shell.folder / "home/zejzl.db"
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 100)
    watch = Piped(shell)

    watch.read_until("move it away")
    path.unlink()
    watch.read_until("no bus has run yet")

    assert watch.end() == (0, "")


@pytest.mark.parametrize("coloured", [True, False])
def test_on_a_terminal_it_is_redrawn_and_ctrl_c_ends_it_well(shell: Shell, coloured: bool) -> None:
    shell.set(TERM="xterm-256color", **({} if coloured else {"NO_COLOR": "1"}))
    show(shell, energy_level=100.0, max_energy=100.0)
    watch = Typing(shell, *WATCH)

    before = watch.read_until("100 of 100")
    show(shell, energy_level=42.0, max_energy=100.0)
    between = watch.read_until("42 of 100")
    watch.press_ctrl_c()

    assert watch.end() == 0
    assert "Traceback" not in watch.seen
    assert "\x1b[31mno bus is running: the last one died" in before or not coloured
    assert coloured or not re.search(r"\x1b\[[0-9;]*m", before)
    assert "\x1b[1A" in between  # the cursor goes up to draw over what was there


def test_a_terminal_that_cannot_be_drawn_over_is_told_line_by_line(shell: Shell) -> None:
    shell.set(TERM="dumb")
    show(shell, energy_level=42.0, max_energy=100.0)
    watch = Typing(shell, *WATCH)

    watch.read_until("42 of 100")
    watch.press_ctrl_c()

    assert watch.end() == 0


def test_a_hostile_state_is_redrawn_and_not_obeyed(shell: Shell) -> None:
    show(shell, circuit_breakers={HOSTILE: {"state": "open", "last_error": HOSTILE}})
    shell.set(TERM="xterm", NO_COLOR="1")
    watch = Typing(shell, *WATCH)

    shown = watch.read_until("database:")
    watch.press_ctrl_c()

    assert watch.end() == 0
    assert "[red]" in shown
    ours = re.compile(r"\r\n|\x1b\[\d*[A-Z]|\x1b\[\?25[lh]|\r\x1b\[2K")
    assert not STEERING.search(ours.sub("", shown).replace("\r", ""))
