"""The tools that are always there: they stay in the workspace, and know no shell or network."""

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial

from zejzl.agents.arithmetic import evaluate
from zejzl.agents.base import Bus
from zejzl.agents.models import ask
from zejzl.agents.reports import markdown
from zejzl.agents.tools import Desk, Toolbox, room
from zejzl.agents.workspace import OutOfBounds, Workspace, checked_path
from zejzl.engine.tokens import count_all

MOST_HITS = 1_000  # lines that a search returns
LONGEST_LINE = 500  # characters of a line that it shows
MOST_SEARCHED = 64_000_000  # bytes that it reads
LONGEST_ANSWER = 200_000  # characters of a model's answer

Room = Callable[[], Workspace]


def basic_tools(workspace: Workspace | None, bus: Bus | None, *, seconds: float = 60.0) -> Toolbox:
    """Return a box with the tools that are always there."""
    box = Toolbox(seconds=seconds)
    add_file_tools(box, partial(room, workspace))
    add_text_tools(box, partial(room, workspace))

    async def arithmetic(expression: str) -> float | int:
        """Compute an expression of numbers, + - * / // % ** and parentheses."""
        return evaluate(expression)

    async def ask_model(prompt: str, desk: Desk, context: object = None) -> str:
        """Ask the language model; `context` is shown to it as data."""
        reply = await ask(bus, prompt, context=context, key=desk.key, criticality=desk.criticality)
        if len(reply) > LONGEST_ANSWER:
            raise ValueError(
                f"the answer has {len(reply)} characters, {LONGEST_ANSWER} may be: ask for less"
            )
        return reply

    box.add(arithmetic, again=True)
    box.add(ask_model, reach=("model",))
    return box


def add_file_tools(box: Toolbox, there: Room) -> None:
    """Add the tools that read and write files of the workspace."""

    async def list_files(folder: str = "", suffix: str = "") -> list[str]:
        """List the files below a folder of the workspace, those that end in `suffix`."""
        files = await asyncio.to_thread(there().files, folder)
        return [path for path in files if path.endswith(suffix)]

    async def read_file(path: str, desk: Desk) -> str:
        """Read a text file of the workspace."""
        known = checked_path(path)
        if known in desk.staged:
            return desk.staged[known]
        return await asyncio.to_thread(there().read_text, path)

    async def write_file(path: str, text: str, desk: Desk) -> dict[str, object]:
        """Write a text file into the workspace, when the whole work has been validated."""
        there()
        written = desk.write(path, text)
        content = text.encode()
        return {
            "path": written,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }

    box.add(list_files, reach=("files",), again=True)
    box.add(read_file, reach=("files",), again=True)
    box.add(write_file, reach=("files",), again=True)


def add_text_tools(box: Toolbox, there: Room) -> None:
    """Add the tools that search, count and report."""

    async def search_text(query: str, folder: str = "", path: str = "") -> dict[str, object]:
        """Find the lines that hold a text, in a file or in all files below a folder."""
        return await asyncio.to_thread(search, there(), query, folder, path)

    async def count_tokens(text: str | None = None, paths: list[str] | None = None) -> object:
        """Count the tokens of a text, or of each of some files of the workspace."""
        if (text is None) == (paths is None):
            raise ValueError("count_tokens takes either text or paths")
        if text is not None:
            return dict((await count_all([text]))[0]._asdict())
        texts, unread = await asyncio.to_thread(read_all, there(), paths or [])
        counts = await count_all([*texts.values()])
        return {
            "files": [
                {"path": path, "tokens": each.tokens}
                for path, each in zip(texts, counts, strict=True)
            ],
            "unread": unread,
            "tokens": sum(each.tokens for each in counts),
            "exact": all(each.exact for each in counts),
        }

    async def report(title: str, sections: dict[str, object]) -> str:
        """Make a text of results, in Markdown: tables of lists, lists of objects."""
        return markdown(title, sections)

    box.add(search_text, reach=("files",), again=True)
    box.add(count_tokens, reach=("files",), again=True)
    box.add(report, again=True)


def read_all(workspace: Workspace, paths: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the texts of files by path, and which could not be read; one at least could."""
    texts: dict[str, str] = {}
    unread: list[str] = []
    read = 0
    for path in map(checked_path, paths):
        try:
            texts[path] = workspace.read_text(path)
        except OutOfBounds:
            raise
        except (OSError, ValueError) as problem:
            if path == checked_path(paths[-1]) and not texts:
                raise
            unread.append(_why(path, problem))
        else:
            read += len(texts[path])
            if read > MOST_SEARCHED:
                raise ValueError(f"the files have more than {MOST_SEARCHED} characters together")
    return texts, unread


def search(workspace: Workspace, query: str, folder: str, path: str) -> dict[str, object]:
    """Return the lines that hold `query`, and which files could not be read."""
    if not query:
        raise ValueError("search_text needs a text to look for")
    hits: list[dict[str, object]] = []
    unread: list[str] = []
    read = 0
    for each in [checked_path(path)] if path else workspace.files(folder):
        try:
            content = workspace.read_text(each)
        except (OSError, ValueError) as problem:
            if path:
                raise
            unread.append(_why(each, problem))
            continue
        read += len(content)
        for number, line in enumerate(content.splitlines(), 1):
            if query in line:
                hits.append({"path": each, "line": number, "text": line[:LONGEST_LINE]})
        if len(hits) >= MOST_HITS or read > MOST_SEARCHED:
            return {"hits": hits[:MOST_HITS], "unread": unread[:MOST_HITS], "complete": False}
    return {"hits": hits, "unread": unread[:MOST_HITS], "complete": True}


def _why(path: str, problem: OSError | ValueError) -> str:
    """Return why a file could not be read, its path first."""
    said = f"{path}: {problem.strerror}" if isinstance(problem, OSError) else str(problem)
    return said[:LONGEST_LINE]
