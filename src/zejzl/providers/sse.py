"""Server-sent events: bytes as they come from a socket in, whole events out.

Pure. Understands LF, CRLF and CR line ends, comments, several data lines, a byte order mark, and
characters torn in two by the network. `id` and `retry` fields mean nothing to us.
Source: WHATWG HTML, "Server-sent events", §9.2.6.
"""

import codecs
from typing import NamedTuple

MAX_EVENT = 4 * 1024 * 1024  # characters; a longer one is an attack or a defect


class Event(NamedTuple):
    """One event: its name ("" where the stream gives none) and its data lines joined."""

    name: str
    data: str


class TooLong(ValueError):
    """One event is longer than MAX_EVENT."""


class Parser:
    """Feed it bytes; it returns the events that have become whole."""

    __slots__ = ("_data", "_decoder", "_name", "_rest", "_size")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("strict")
        self._rest = ""
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that end in `chunk`.

        Raises:
            UnicodeDecodeError: If the bytes are no UTF-8.
            TooLong: If one event outgrows MAX_EVENT.
        """
        text = self._rest + self._decoder.decode(chunk)
        if "\r" in text:
            # A CR at the end may be half of a CRLF: it waits for what comes next.
            held = "\r" if text.endswith("\r") else ""
            text = text.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n") + held
        *lines, self._rest = text.split("\n")
        found = []
        for line in lines:
            if line:
                self._take(line)
                continue
            if self._data:
                found.append(Event(self._name, "\n".join(self._data)))
            self._name, self._data, self._size = "", [], 0
        self._check(len(self._rest))
        return found

    def rest(self) -> list[Event]:
        """Return the event that the end of the stream cut off from its blank line, if any.

        The standard drops it. Some servers leave the last blank line out; whether its data is
        whole is for the caller to find out.
        """
        if self._rest.strip("\r"):
            self._take(self._rest.rstrip("\r"))
            self._rest = ""
        return [Event(self._name, "\n".join(self._data))] if self._data else []

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(value)
            self._check()
        elif name == "event":
            self._name = value

    def _check(self, more: int = 0) -> None:
        if self._size + more > MAX_EVENT:
            raise TooLong(f"an event is longer than {MAX_EVENT} characters")
