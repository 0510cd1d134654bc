"""The command line as people and programs use it: in this process, in another, on a terminal."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from zejzl.cli import main
from zejzl.testing import FaultServer

KEY = "sk-test-0123456789abcdefWXYZ"
OURS = re.compile(r"^ZEJZL_|_API_KEY$|_BASE_URL$|_MODEL$|^NO_COLOR$|^FORCE_COLOR$|^COLUMNS$")
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
HOSTILE = "[red]\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J \u202egnp.exe\rover [/red] :boom:"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """The command line in a folder of its own, without anything of this machine's environment."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self._started: list[subprocess.Popen[str]] = []
        for name in filter(OURS.search, list(os.environ)):
            monkeypatch.delenv(name)
        monkeypatch.chdir(folder)
        self.set(ZEJZL_HOME=str(folder / "home"), PYTHONDONTWRITEBYTECODE="1")

    def set(self, **env: str) -> None:
        for name, value in env.items():
            self._monkeypatch.setenv(name, value)

    def with_vendors(self, server: FaultServer) -> None:
        """Set the addresses of chatgpt and claude to the server's, and their keys."""
        self.set(
            OPENAI_API_KEY=KEY,
            CHATGPT_BASE_URL=server.base_url("chatgpt"),
            ANTHROPIC_API_KEY=f"{KEY}-too",
            CLAUDE_BASE_URL=server.base_url("claude", "anthropic"),
        )

    def __call__(self, *words: str, stdin: str = "") -> Done:
        """Run a command in this process."""
        self._monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        self._capsys.readouterr()
        code = main(words)
        return Done(code, *self._capsys.readouterr())

    def start(self, *words: str, **how: Any) -> "subprocess.Popen[str]":
        """Start a command in a process of its own."""
        pipes = dict.fromkeys(["stdin", "stdout", "stderr"], subprocess.PIPE)
        command = [sys.executable, "-m", "zejzl", *words]
        process = subprocess.Popen(command, cwd=self.folder, text=True, **{**pipes, **how})
        self._started.append(process)
        return process

    def end(self) -> None:
        """Leave no process behind, whatever became of the test."""
        for process in self._started:
            process.kill()
            with process:
                pass


def until(true: Callable[[], object]) -> None:
    """Return as soon as another process or thread has made it so; pytest's timeout is the end."""
    while not true():
        select.select([], [], [], 0.005)


class Typing:
    """A command on a terminal, and somebody who types."""

    def __init__(self, shell: Shell, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = shell.start(*words, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def press_ctrl_c(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def press_ctrl_c_until(self, text: str) -> None:
        """Press it again where nothing happens: CPython may miss it right after its prompt."""
        while text not in self.seen:
            self.press_ctrl_c()
            if select.select([self._ours], [], [], 1.0)[0]:
                self.seen += self._read()

    def read_until(self, text: str) -> str:
        """Return what is shown up to `text`, which must come."""
        while text not in self.seen:
            self.seen += self._read()
        before, _, self.seen = self.seen.partition(text)
        return before

    def end(self) -> int:
        """Return the exit code, having read the rest."""
        try:
            while True:
                self.seen += self._read()
        except OSError:  # how Linux tells that nobody has the terminal open any more
            os.close(self._ours)
        return self.process.wait()

    def _read(self) -> str:
        return os.read(self._ours, 65536).decode(errors="replace")
