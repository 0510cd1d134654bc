"""Runs a program on a terminal of its own, and returns what that terminal showed at the end."""

import fcntl
import getpass
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LONGEST = 120.0  # seconds that a program may run
# What steers a terminal and is no text: control sequences, and the two that move within a line.
_STEERING = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b[()][A-Z0-9]|([\r\n])")


@dataclass(frozen=True, slots=True)
class Recording:
    """What a program showed, and how it ended.

    Attributes:
        screen: The lines of its terminal, with their colours as ANSI codes.
        code: Its exit code.
    """

    screen: str
    code: int


def record(
    command: Sequence[str],
    folder: Path,
    *,
    columns: int,
    rows: int,
    settings: Mapping[str, str] | None = None,
    interrupt: tuple[float, signal.Signals] | None = None,
) -> Recording:
    """Run `command` in `folder` on a terminal, with an environment that holds nothing of ours.

    Args:
        command: The program and its arguments.
        folder: Where it runs, and what it has for a home.
        columns, rows: The size of its terminal.
        settings: Names that its environment holds beside the usual ones.
        interrupt: After how many seconds it gets which signal; None: it ends by itself.

    Raises:
        TimeoutError: If it runs longer than two minutes.
    """
    env = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
        "HOME": str(folder),
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        **(settings or {}),
    }
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with subprocess.Popen(
        command, cwd=folder, env=env, stdin=its, stdout=its, stderr=its, start_new_session=True
    ) as program:
        os.close(its)
        try:
            said = _read(ours, program, interrupt)
        finally:
            os.close(ours)
            if program.poll() is None:
                program.kill()
    return Recording(screen(said.decode("utf-8", "replace")), program.returncode)


def _read(
    terminal: int,
    program: "subprocess.Popen[bytes]",
    interrupt: tuple[float, signal.Signals] | None,
) -> bytes:
    """Return everything the program writes until it ends."""
    said = bytearray()
    began = time.monotonic()
    while True:
        passed = time.monotonic() - began
        if interrupt is not None and passed >= interrupt[0]:
            program.send_signal(interrupt[1])
            interrupt = None
        if passed > LONGEST:
            raise TimeoutError(f"{program.args!r} has not ended after {LONGEST:g} s")
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                piece = os.read(terminal, 65_536)
            except OSError:  # Linux says so when the other side is closed
                piece = b""
            if not piece:
                program.wait()
                return bytes(said)
            said += piece


def screen(said: str) -> str:
    """Return the lines that a terminal shows after it was told `said`; colours stay as they are.

    It knows what rich's live displays use: up, line ends, erasing a line or what is below.
    """
    lines = [""]
    row = place = 0
    for found in _STEERING.finditer(said):
        lines[row] += said[place : found.start()]
        place = found.end()
        numbers, what, end = found[1], found[2], found[3]
        if end == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif what == "m":
            lines[row] += found[0]
        elif what == "A":
            row = max(0, row - int(numbers or 1))
        elif what == "K":
            lines[row] = ""
        elif what == "J":
            del lines[row + 1 :]
            lines[row] = ""
    lines[row] += said[place:]
    return "\n".join(lines).strip("\n")


def traces(shown: str, root: Path) -> list[str]:
    """Return what in a text tells of the machine: its name, its user, its folders."""
    told = {str(root), str(Path.home()), socket.gethostname(), getpass.getuser()} - {"root"}
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    named = [word for word in told if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", plain)]
    return sorted(named) + re.findall(r"/(?:root|home|tmp|work|Users)/\S*|sk-[\w-]{8,}", plain)
