"""What a wire format must be able to do, and what the three of them share.

A `Wire` reads a request (`problem`, `ask`), words an error (`error`), and renders an answer as
`Frames`: the bytes before the words, each word's, those that say why it ended, and those that say
that nothing follows. A plain answer has frames too: its JSON text taken apart at its words. So one
player can break off any answer anywhere.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from math import ceil
from typing import Any, Protocol, TypeAlias

from zejzl.testing.behaviours import Answer, Call, Refusal, WireName

Json: TypeAlias = dict[str, Any]
ErrorParts: TypeAlias = tuple[int, dict[str, str], Json]

CREATED = 1_760_000_000  # the models' and the answers' time of making, seconds since 1970
PLACE = "\x1a"  # stands where an answer's words belong
MARK = json.dumps(PLACE).encode()
GARBLED = b'"\x00'  # breaks JSON inside a string and outside of one


@dataclass(frozen=True, slots=True)
class Frames:
    """An answer's bytes, taken apart.

    Attributes:
        head: Before the first word.
        words: One event, or one piece of a JSON string, a word.
        finish: What says why the answer ended; b"" if nothing does.
        sentinel: What says that nothing follows; b"" where the format has no such thing.
        garbled: What stands for a word that is broken.
    """

    head: bytes
    words: Sequence[bytes]
    finish: bytes
    sentinel: bytes
    garbled: bytes


class Wire(Protocol):
    """One vendor's format.

    Attributes:
        name: What a `Call` calls it.
        continues: Whether an assistant's turn at the request's end is continued.
    """

    name: WireName
    continues: bool

    def problem(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Refusal | None:
        """Return the error for a caller who shows no key, or not as the vendor wants it."""

    def ask(self, call: Call) -> Refusal | None:
        """Fill in what the body asks (`prompt_tokens`, `max_tokens`, `prefill`).

        Returns the vendor's error if the body is not a request.
        """

    def headers(self, call: Call) -> dict[str, str]:
        """Return the headers of every response."""

    def error(self, refusal: Refusal, call: Call) -> ErrorParts:
        """Return status, headers beyond `headers()`, and body."""

    def error_event(self, refusal: Refusal, call: Call) -> bytes:
        """Return the error as an event inside a stream."""

    def plain(self, answer: Answer, words: Sequence[str], call: Call) -> Frames:
        """Return the answer as one JSON object."""

    def stream(self, answer: Answer, words: Sequence[str], call: Call) -> Frames:
        """Return the answer as server-sent events."""

    def models(self, names: Sequence[str]) -> Json:
        """Return the list of models."""


def event(data: Json, name: str = "") -> bytes:
    """Return one server-sent event."""
    line = f"event: {name}\n" if name else ""
    return f"{line}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


@lru_cache(maxsize=512)
def _quoted(words: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(map(_json_string, words))


def _json_string(word: str) -> bytes:
    """Return a word as the vendors write it: UTF-8, and escaped only what JSON wants escaped."""
    try:
        return json.dumps(word, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can carry
        return json.dumps(word).encode()


def ascii_only(data: bytes) -> bytes:
    """Return JSON, or a stream of it, with every character beyond ASCII escaped."""
    return b"".join(
        char.encode() if char.isascii() else json.dumps(char)[1:-1].encode()
        for char in data.decode()
    )


def around(template: bytes, words: Sequence[str]) -> tuple[list[bytes], bytes]:
    """Return the event with each word at its PLACE, and the event that breaks off there."""
    before, _, after = template.partition(MARK)
    return [before + word + after for word in _quoted(tuple(words))], before + b"\n\n"


def split(body: Json, words: Sequence[str]) -> Frames:
    """Return a plain answer's frames: `body` taken apart at its PLACE, if it has one."""
    before, mark, after = json.dumps(body, separators=(",", ":")).encode().partition(MARK)
    quote = mark[:1]
    inside = [word[1:-1] for word in _quoted(tuple(words))]
    return Frames(before + quote, inside, quote + after, b"", GARBLED)


def _texts(content: object) -> list[str]:
    """Return the texts of a message's content: a string, or a list of parts that may hold some."""
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return [text for text in texts if isinstance(text, str)]


def count(*contents: object) -> int:
    return sum(len(text.split()) for content in contents for text in _texts(content))


def prefill(turns: Sequence[object], role: str, key: str) -> str:
    """Return the text of the last turn if it is the assistant's, whose role is `role`."""
    last = turns[-1]
    return (
        "".join(_texts(last.get(key)))
        if isinstance(last, dict) and last.get("role") == role
        else ""
    )


def whole(number: object) -> int | None:
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def retry_headers(refusal: Refusal) -> dict[str, str]:
    """Return the header that tells to wait, or none."""
    if refusal.retry_after is None:
        return {}
    match refusal.written:
        case "seconds":
            return {"retry-after": f"{refusal.retry_after:g}"}
        case "milliseconds":
            return {"retry-after-ms": f"{refusal.retry_after * 1000:g}"}
        case "date":
            # A date has whole seconds: rounded up, or the client would come back too soon.
            return {"retry-after": formatdate(ceil(time.time() + refusal.retry_after), usegmt=True)}


def invalid(message: str) -> Refusal:
    return Refusal(name=f"rejected: {message}", kind="bad_request", message=message)
