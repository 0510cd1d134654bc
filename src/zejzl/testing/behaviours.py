"""What a `FaultServer` sees and plays, as values.

    Behaviour         one call's fate
    ├── Answer        an answer, whole or broken off (`Break`) on its way
    ├── Refusal       the vendor's own error, as its API words it
    ├── Page          something that is no API answer at all: a proxy's HTML
    └── Capacity      room for so many at once, and a queue before it
    Rule              a function from the call to a behaviour (or to another rule)

`faults` has a function with a good name for each. Units: seconds, words. One word is one token.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias

WireName = Literal["openai", "anthropic", "gemini"]
Finish = Literal["stop", "length", "content_filter", "blocked"]
Kind = Literal[
    "auth",
    "bad_request",
    "content_filtered",
    "context_overflow",
    "failed",
    "forbidden",
    "not_found",
    "overloaded",
    "quota_exhausted",
    "rate_limited",
]
Place: TypeAlias = int | Callable[[bytes], int]  # bytes of a body; given the body, if a function
Seconds: TypeAlias = float | Callable[[], float] | None  # drawn, if a function; None: for ever

CANONICAL = (
    "Rivers carry mountains slowly toward every waiting sea, while herons stand among tall reeds "
    "and watch silver fish turn under evening light; farmers mend old walls, children count "
    "swallows, bakers warm their ovens before dawn, somewhere a lighthouse keeper trims his lamp, "
    "writes tomorrow's tide into one worn blue ledger, then sleeps soundly until morning bells "
    "ring softly across harbours."
)
"""The answer unless another is given: sixty words, no two alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What is left of a rate limit.

    Attributes:
        limit: In one window.
        remaining: That may still be used at once.
        reset: Seconds until all of it is there again.
        until: Seconds since 1970, at that time.
    """

    limit: int
    remaining: int
    reset: float
    until: float


@dataclass(slots=True, kw_only=True)
class Call:
    """One request as the server saw it, and what became of it.

    Attributes:
        provider: The name in the path.
        model: The model asked for; "" where none was named.
        wire: The format spoken.
        stream: Whether a stream was asked for.
        at: Seconds since the server's start.
        headers: The request's headers; names in lower case.
        body: Its JSON object; {} if it was none.
        body_bytes: Its length as sent.
        connection: Number of the TCP connection, from 1; equal numbers mean that it was reused.
        request_id: The id the server gave the call, as the vendor's header or body repeats it.
        prompt_tokens: Words asked.
        max_tokens: Longest answer asked for.
        prefill: The last turn's text if it is the assistant's, for the answer to continue.
        known: Whether the address is one of the server's.
        probe: Whether this asked for the list of models only.
        allowances: What is told of its limits, by "requests" and "tokens", if it has any.
        outcome: Name of the behaviour that was played; "rejected: …" for a request that the vendor
            would not take, whatever the script.
        status: The HTTP status sent; None if none was.
        words: Words of the answer that were sent.
        seconds: How long it took; None while it goes on.
        hung_up: Whether the client was gone before the answer ended.
    """

    provider: str
    model: str = ""
    wire: WireName = "openai"
    stream: bool = False
    at: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    body_bytes: int = 0
    connection: int = 0
    request_id: str = ""
    prompt_tokens: int = 0
    max_tokens: int | None = None
    prefill: str = ""
    known: bool = True
    probe: bool = False
    allowances: Mapping[str, Allowance] = field(default_factory=dict)
    outcome: str = ""
    status: int | None = None
    words: int = 0
    seconds: float | None = None
    hung_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The vendor's error. Fields left None are the vendor's own for this kind.

    Attributes:
        name: What the log calls it.
        kind: What is wrong.
        status: HTTP status.
        code: The error's code: OpenAI's `code`, Anthropic's `type`, Gemini's `status`.
        message: The error's words.
        retry_after: Seconds the client is told to wait.
        written: How that is told: `retry-after` in seconds or as an HTTP date, or `retry-after-ms`.
        headers: Further headers.
    """

    name: str
    kind: Kind
    status: int | None = None
    code: str | None = None
    message: str | None = None
    retry_after: float | None = None
    written: Literal["seconds", "date", "milliseconds"] = "seconds"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """What goes wrong on the way of an answer.

    Attributes:
        how: What happens.
        after: Words that are sent before; None: not even a header is.
        at: Bytes of the body that are sent before, in place of `after`, for those that end it:
            "cut" (FIN), "reset" (RST) and "end" (the response ends in good order). A function is
            given the whole body.
        seconds: How long a stall lasts; None: for ever.
        error: The error of an error event.
    """

    how: Literal["cut", "reset", "end", "stall", "malformed", "error"]
    after: int | None = None
    at: Place | None = None
    seconds: float | None = None
    error: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer with HTTP status 200.

    Attributes:
        name: What the log calls it.
        words: The answer in pieces, blanks included; one piece is one token and one stream event.
        finish: Why it ends; None: it is never said.
        sentinel: Whether what marks the end of a stream is sent.
        delay: Seconds before anything is sent; None: for ever.
        first_token: Seconds between the headers and the first word; None: for ever.
        pace: Seconds between words; a plain answer is delayed by their sum.
        line_end: What ends the lines of a stream.
        escaped: Whether JSON is written in ASCII alone.
        charset: How the body is encoded, whatever its header says.
        broken: What goes wrong.
    """

    name: str = "ok"
    words: tuple[str, ...] = ()
    finish: Finish | None = "stop"
    sentinel: bool = True
    delay: Seconds = 0.0
    first_token: Seconds = 0.0
    pace: Seconds = 0.0
    line_end: str = "\n"
    escaped: bool = False
    charset: str = "utf-8"
    broken: Break | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An HTML page."""

    name: str
    status: int
    text: str


class Capacity:
    """See `capacity`."""

    name = "capacity"

    def __init__(
        self, limit: int, seconds: Seconds, queue: int, overload: "Play", then: "Play"
    ) -> None:
        self.seconds = seconds
        self.overload = overload
        self.then = then
        self._room = limit + queue
        self._inside = 0
        self._slots = asyncio.Semaphore(limit)

    @property
    def is_full(self) -> bool:
        """Whether one more would find neither a slot nor a place in the queue."""
        return self._inside >= self._room

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot, waiting in the queue for it; leaving gives it back."""
        self._inside += 1
        try:
            async with self._slots:
                yield
        finally:
            self._inside -= 1


Behaviour: TypeAlias = Answer | Refusal | Page | Capacity
BEHAVIOURS = (Answer, Refusal, Page, Capacity)
Rule: TypeAlias = Callable[[Call], "Play"]
Play: TypeAlias = Behaviour | Rule
Script: TypeAlias = Play | Sequence[Play]


@lru_cache(maxsize=256)
def pieces(text: str) -> tuple[str, ...]:
    """Return `text` in words with the blanks before them; joined they are `text`."""
    return tuple(re.findall(r"\s*\S+(?:\s+\Z)?", text))
