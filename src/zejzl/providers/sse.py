"""Server-sent events: bytes as they come from a socket in, whole events out.

Pure. Understands LF, CRLF and CR line ends, comments, several data lines, a byte order mark, and
characters torn in two by the network. `id` and `retry` fields mean nothing to us.
Source: WHATWG HTML, "Server-sent events", §9.2.6.
"""

import codecs
from collections.abc import Iterator
from typing import NamedTuple

MAX_EVENT = 4 * 1024 * 1024  # bytes; a longer one is an attack or a defect


class Event(NamedTuple):
    """One event: its name ("" where the stream gives none) and its data lines joined."""

    name: str
    data: str


class TooLong(ValueError):
    """An event, or an answer in one piece, is longer than any good one."""


class Parser:
    """Feed it bytes; it yields the events that have become whole."""

    __slots__ = ("_begun", "_data", "_name", "_rest", "_size")

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that end in `chunk`; go to the end before feeding again.

        Raises:
            UnicodeDecodeError: If a name or datum is no UTF-8.
            TooLong: If one event outgrows MAX_EVENT.
        """
        # Line ends are single bytes in UTF-8, so a character is never torn by looking for them.
        raw = self._rest + chunk
        if b"\r" in raw:
            # A CR at the end may be half of a CRLF: it waits for what comes next.
            held = b"\r" if raw.endswith(b"\r") else b""
            raw = raw.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        *lines, self._rest = raw.split(b"\n")
        for line in lines:
            if event := self._take(line):
                yield event
        self._check(len(self._rest))

    def rest(self) -> Event | None:
        """Return the event that the end of the stream cut off from its blank line, if any.

        The standard drops it. Some servers leave the last blank line out; whether its data is
        whole is for the caller to find out.
        """
        return self._take(self._rest.removesuffix(b"\r")) or self._take(b"")

    def _take(self, line: bytes) -> Event | None:
        """Take in a line; return the event that it ends."""
        if not self._begun:
            self._begun = True
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line:
            event = Event(self._name, "\n".join(self._data)) if self._data else None
            self._name, self._data, self._size = "", [], 0
            return event
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value.decode())
            self._size += len(value)
            self._check()
        elif name == b"event":
            self._name = value.decode()
        return None

    def _check(self, more: int = 0) -> None:
        if self._size + more > MAX_EVENT:
            raise TooLong(f"an event is longer than {MAX_EVENT} bytes")
