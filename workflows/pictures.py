"""The terminal pictures of docs/pictures/: what the real programs show, as SVG.

    python -m workflows.pictures [NAME ...]   records those that are stale, or the named ones
    python -m workflows.pictures --check      only says which are stale; exit code 1 if one is

Each program runs on a terminal of its own (`workflows.recording`), in an empty folder, without keys
or settings, so that a picture tells nothing of the machine it was made on. A picture is stale when
what draws it has changed since; its figures are those of the day it was made.
"""

import argparse
import asyncio
import hashlib
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ai_framework import AsyncMessageBus
from workflows.recording import Recording, record, traces
from zejzl.errors import ZejzlError
from zejzl.providers import OpenAICompatible
from zejzl.settings import Settings
from zejzl.testing import FaultServer, faults

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "pictures"
COLUMNS, ROWS = 96, 200  # nothing may scroll away
WATCHED = 6.0  # seconds that `status --watch` is looked at
FONTS = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
STAMP = re.compile(r"<!-- drawn by ([0-9a-f]{16}) -->")


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture.

    Attributes:
        title: What was typed; it stands in the window's title.
        drawn_by: What decides how it looks: files, or folders of them.
        take: Runs the program in an empty folder, and returns what its terminal showed.
    """

    title: str
    drawn_by: tuple[str, ...]
    take: Callable[[Path], Recording]

    @property
    def exists(self) -> bool:
        """Whether the program is there at all."""
        return all((ROOT / path).exists() for path in self.drawn_by)

    def stamp(self) -> str:
        """Return what changes whenever a file changes that draws it."""
        digest = hashlib.sha256()
        for path in sorted(_files(ROOT / each for each in self.drawn_by)):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]


def demo(folder: Path) -> Recording:
    """Record the demo to its end."""
    return record([sys.executable, "-m", "zejzl", "demo"], folder, columns=COLUMNS, rows=ROWS)


def tour(folder: Path) -> Recording:
    """Record the tour's topics that say nothing of this machine's places."""
    topics = [word for topic in ("1", "2", "3") for word in ("--topic", topic)]
    command = [sys.executable, "-m", "zejzl", "tour", *topics]
    return record(command, folder, columns=COLUMNS, rows=ROWS)


def status(folder: Path) -> Recording:
    """Record `status --watch` beside a bus whose first provider is down."""
    return asyncio.run(_watched(folder))


async def _watched(folder: Path) -> Recording:
    settings = Settings(home=folder / "state", attempt_timeout=2.0)
    command = [sys.executable, "-m", "zejzl", "status", "--watch"]
    async with FaultServer() as server, AsyncMessageBus(settings) as bus:
        server.play("alpha", faults.outage(1.0, 60.0, faults.overloaded()))
        server.play("beta", faults.ok(delay=faults.between(0.02, 0.05, seed=1)))
        for name in ("alpha", "beta"):
            await bus.register_provider(
                name, OpenAICompatible(server.base_url(name), "no-key", "m")
            )
        traffic = asyncio.create_task(_ask(bus))
        try:
            return await asyncio.to_thread(
                record,
                command,
                folder,
                columns=COLUMNS,
                rows=ROWS,
                settings={"ZEJZL_HOME": str(folder / "state")},
                interrupt=(WATCHED, signal.SIGINT),
            )
        finally:
            traffic.cancel()
            await asyncio.wait([traffic])


async def _ask(bus: AsyncMessageBus) -> None:
    for number in range(1000):
        with suppress(ZejzlError):
            await bus.send(f"question {number}")
        await asyncio.sleep(0.05)


PICTURES = {
    "demo": Picture("zejzl demo", ("src/zejzl/cli/demo.py", "src/zejzl/cli/terminal.py"), demo),
    "status": Picture(
        "zejzl status --watch",
        ("src/zejzl/cli/reports.py", "src/zejzl/cli/terminal.py", "src/zejzl/cli/watch.py"),
        status,
    ),
    "tour": Picture("zejzl tour", ("src/zejzl/cli/tour",), tour),
}


def svg(shown: str, *, title: str, name: str, stamp: str) -> str:
    """Return a picture of what a terminal showed, which fetches nothing from anywhere."""
    console = Console(
        record=True,
        width=COLUMNS,
        file=StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    console.print(Text.from_ansi(shown, no_wrap=True), end="")
    text = console.export_svg(title=title, unique_id=name)
    # Without the fonts that rich would have fetched, and with the stamp for its advertisement.
    text = re.sub(r"\n *@font-face \{.*?\n *\}", "", text, flags=re.S)
    text = text.replace("Fira Code, monospace", FONTS).replace("arial", "sans-serif")
    return re.sub(r"<!--.*?-->", f"<!-- drawn by {stamp} -->", text, count=1)


def stale(folder: Path | None = None) -> list[str]:
    """Return the names of the pictures that what draws them has left behind."""
    folder = folder or FOLDER
    return [
        name
        for name, picture in PICTURES.items()
        if picture.exists and _stamp_of(folder / f"{name}.svg") != picture.stamp()
    ]


def take(name: str, folder: Path | None = None) -> None:
    """Record one picture.

    Raises:
        RuntimeError: If the program failed, or what it showed tells of this machine.
    """
    folder = folder or FOLDER
    picture = PICTURES[name]
    with tempfile.TemporaryDirectory(prefix="zejzl-") as empty:
        made = picture.take(Path(empty))
        shown = made.screen.replace(empty, "~")
    if made.code not in (0, -signal.SIGINT, 130):
        raise RuntimeError(f"{picture.title} ended with exit code {made.code}:\n{shown[-1000:]}")
    if told := traces(shown, ROOT):
        raise RuntimeError(f"{picture.title} shows something of this machine: {', '.join(told)}")
    folder.mkdir(parents=True, exist_ok=True)
    text = svg(shown, title=picture.title, name=name, stamp=picture.stamp())
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")


def _stamp_of(path: Path) -> str:
    try:
        found = STAMP.search(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    return found[1] if found else ""


def _files(paths: Iterable[Path]) -> list[Path]:
    return [
        file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Record or compare; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m workflows.pictures", description="Record the terminal pictures."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}")
    parser.add_argument("--check", action="store_true", help="only say which are stale")
    given = parser.parse_args(arguments)
    if wrong := [name for name in given.names if name not in PICTURES]:
        parser.error(f"there is no picture {wrong[0]!r}; there is {', '.join(PICTURES)}")
    old = stale()
    if given.check:
        if old:
            remedy = "record them with `.venv/bin/python -m workflows.pictures`"
            print(f"stale pictures: {', '.join(old)}; {remedy}", file=sys.stderr)
        return 1 if old else 0
    for name in given.names or old:
        take(name)
        print(f"recorded docs/pictures/{name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
