"""ObserverAgent: gathers what a task is about, and says what it could not read."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import ClassVar, TypeAlias, cast

from zejzl.agents.base import Agent, Bus, plain
from zejzl.agents.files import MOST_FILES, Reading, gather
from zejzl.agents.pages import fetch
from zejzl.clock import Clock
from zejzl.errors import StoreError
from zejzl.events import to_json

Task: TypeAlias = str | Mapping[str, object]

RECENT = 20  # events of the bus that are shown
MOST_TOLD = 20  # of what could not be read, that the event of an observation names
FIELDS = "task", "text", "files", "folder", "glob", "urls"
USUAL_GLOB = "**/*"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A task, checked."""

    task: str
    text: str | None
    files: tuple[str, ...]
    folder: str | None
    globs: tuple[str, ...]
    urls: tuple[str, ...]


class ObserverAgent(Agent):
    """Gathers text, files and folders, pages, the bus's status and its recent events.

    Args:
        bus: Whose status and events are gathered.
        clock: Where time comes from.
        urls: Whether pages may be fetched; they are asked for from this machine's place in the
            network, with whatever it can reach.
        largest: Bytes that are read of one file or page, at most; a larger one is not read.
        total: Bytes that are read of all together.
        most_files: Files that are read.
        seconds: That a page may take.
    """

    name: ClassVar[str] = "observer"

    def __init__(
        self,
        bus: Bus | None = None,
        *,
        clock: Clock | None = None,
        urls: bool = False,
        largest: int = 1_000_000,
        total: int = 10_000_000,
        most_files: int = MOST_FILES,
        seconds: float = 10.0,
    ) -> None:
        super().__init__(bus, clock=clock)
        if min(largest, total, most_files) < 1 or not seconds > 0:
            raise ValueError("largest, total, most_files and seconds must be positive")
        self._urls = urls
        self._largest = largest
        self._total = total
        self._most_files = most_files
        self._seconds = seconds

    async def observe(self, task: Task, *, conversation_id: str | None = None) -> dict[str, object]:
        """Return task, data and timestamp; what cannot be read is in `data["unread"]`, with why.

        Args:
            task: What is to be done; or a mapping of "task", "text", "files" (paths), "folder"
                with "glob" (one or several; "**" stands for folders, hidden files only match a
                dot) and "urls".
            conversation_id: Under which the observation is remembered.

        Raises:
            TypeError, ValueError: If the task is none of that; nothing was read.
        """
        asked = _asked(task)
        started = self._clock.now()
        reading = Reading(self._largest, self._total, self._most_files)
        data: dict[str, object] = {"text": asked.text if asked.text is not None else asked.task}
        if asked.files or asked.folder is not None:
            data["files"] = await asyncio.to_thread(
                gather, reading, asked.files, asked.folder, asked.globs
            )
        if asked.urls:
            data["urls"] = await self._pages(asked.urls, reading)
        if self.bus is not None:
            data["bus"] = await self._status(self.bus)
            data["events"] = await self._events(self.bus, reading)
        gathered = {name: len(each) for name, each in data.items() if isinstance(each, list)}
        data["unread"] = unread = reading.told()
        await self._tell(
            "observation",
            {"task": asked.task, "gathered": gathered, "unread": unread[:MOST_TOLD]},
            conversation_id=conversation_id,
            duration_ms=round(1000 * (self._clock.now() - started), 3),
        )
        return {"task": asked.task, "data": data, "timestamp": self._timestamp()}

    async def _pages(self, urls: Sequence[str], reading: Reading) -> list[dict[str, object]]:
        """Fetch one after the other, so that what all may hold together is known."""
        pages = []
        for url in urls:
            if not self._urls:
                reading.tell(url, "pages are not fetched: ObserverAgent(urls=True) allows it")
            elif page := await fetch(url, reading, self._clock, seconds=self._seconds):
                pages.append(page)
        return pages

    async def _status(self, bus: Bus) -> object:
        return plain({"providers": bus.providers, "magic": await bus.magic.get_system_status()})

    async def _events(self, bus: Bus, reading: Reading) -> list[object]:
        try:
            return [plain(to_json(event)) for event in await bus.store.events(limit=RECENT)]
        except StoreError as problem:
            reading.tell("the bus's recent events", problem)
            return []


def checked_task(task: Task) -> Task:
    """Return a task; raises TypeError or ValueError where it is none, as `observe` does."""
    _asked(task)
    return task


def _asked(task: Task) -> _Asked:
    if isinstance(task, str):
        return _Asked(task, None, (), None, (USUAL_GLOB,), ())
    if not isinstance(task, Mapping):
        raise TypeError(f"a task is text or a mapping, not {type(task).__name__}")
    if unknown := [str(name) for name in task if name not in FIELDS]:
        raise ValueError(f"a task has no {', '.join(unknown)}; it may have {', '.join(FIELDS)}")
    folder = task.get("folder")
    return _Asked(
        task=_text(task, "task") or "",
        text=_text(task, "text"),
        files=_texts(task, "files"),
        folder=None if folder is None else _path("folder", folder),
        globs=_texts(task, "glob") or (USUAL_GLOB,),
        urls=_texts(task, "urls"),
    )


def _text(task: Mapping[str, object], name: str) -> str | None:
    value = task.get(name)
    if not isinstance(value, str | None):
        raise TypeError(f"{name} must be text, not {type(value).__name__}")
    return value


def _texts(task: Mapping[str, object], name: str) -> tuple[str, ...]:
    """Return the texts or paths of a field that has one or several."""
    value = task.get(name)
    if value is None:
        return ()
    if isinstance(value, str | PathLike):
        return (_path(name, value),)
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise TypeError(f"{name} must be a list, not {type(value).__name__}")
    return tuple(_path(name, each) for each in value)


def _path(name: str, value: object) -> str:
    if isinstance(value, PathLike):
        value = fspath(cast("PathLike[str]", value))
    if not isinstance(value, str):
        raise TypeError(f"{name} must hold text, not {type(value).__name__}")
    return value
