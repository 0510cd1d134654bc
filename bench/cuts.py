"""Answers that break at random bytes, over three wires: none passes cut, none comes twice.

    python bench/cuts.py [--runs 10000] [--seed 1] [--only 17 ...]

Each run is a bus of its own with two providers on random wires. The first one's answer breaks: at
a random byte of its body (inside a character, between CR and LF, inside an escape, in the last
events), by FIN, by RST or by a clean end, or it stalls, holds garbage, an error or no end mark.
What the next calls bring is drawn, too: the same answer whole, another one, one that breaks again,
a refusal. The caller may or may not be able to discard what he has.

What has to hold, each time: a success is the whole text of the call that gave it; a caller without
one has a typed error, and where he had a part, `Incomplete` with exactly that as its prefix; what
he has is the beginning of one answer, never two; who cannot discard is never asked to; where every
further call would say the same, he is answered; every call is told in `attempts`; afterwards no
connection is open, no place taken. Time is virtual, the sockets are real. Exit code 1 when
something did not hold; `--only` plays single runs again, told by their numbers.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Literal

from machine import print_machine

from ai_framework import AsyncMessageBus
from zejzl.errors import Incomplete, ZejzlError
from zejzl.magic import FairyMagic
from zejzl.messages import Reply
from zejzl.providers import Anthropic, Gemini, OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore
from zejzl.testing import Call, FaultServer, faults, virtual
from zejzl.testing.behaviours import Answer, Play, WireName, pieces

WIRES: tuple[WireName, ...] = ("openai", "anthropic", "gemini")
ADAPTERS: dict[WireName, type[Any]] = {
    "openai": OpenAICompatible,
    "anthropic": Anthropic,
    "gemini": Gemini,
}
NAMES = ("primary", "fallback")
MOST_TRIES = 3  # of one provider
BROKEN_LATE = "(broken after the first words)"

# What could be taken for the format's own, and what is torn where bytes are.
WORDS = (
    *("rivers", "carry", "mountains", "slowly", "toward", "every", "waiting", "sea"),
    *("žluťoučký", "кофе", "水", "東京都", "naïve", "e\u0301", "ﬁ", "\u2028", "\ufeff", "\x00"),
    *("🐎", "👩‍👩‍👧‍👦", "🇨🇿", "𝄞", "🏴‍☠️"),
    *("data:", "[DONE]", "data: [DONE]", "event: error", ": ping", "id: 7", "retry: 1"),
    *('{"error":', '{"a":"b"}', '"}]}', '"', "\\", "\\n\\n", "\\u00e9", "\\ud83d", "</s>", "null"),
)
BLANKS = (" ", " ", " ", " ", "\n", "\n\n", "\r\n", "\t")
LINE_ENDS = ("\n", "\r\n", "\r")

Place = Callable[[bytes], int]


def some_text(rng: Random) -> str:
    words = (rng.choice(WORDS) + rng.choice(BLANKS) for _ in range(rng.randint(2, 30)))
    return "so: " + "".join(words) + rng.choice(("end.", "konec 🐎", "}", "\n\n"))


def another(text: str, rng: Random) -> str:
    """Return another answer: one that begins alike, is a part of it, goes on longer, or neither."""
    share = rng.randint(4, len(text))
    return rng.choice((text[:share] + "?!", text[: max(share, 5)], f"{text} more", some_text(rng)))


def somewhere(rng: Random) -> Place:
    """Return where a body is to be cut: anywhere, or where it hurts."""
    share, kind = rng.random(), rng.choice(("any", "any", "char", "crlf", "escape", "end"))

    def place(body: bytes) -> int:
        places: range | list[int] = range(len(body) + 1)
        match kind:
            case "char":
                hurts = [at for at, byte in enumerate(body) if byte & 0xC0 == 0x80]
            case "crlf":
                hurts = [at + 1 for at in _all(body, b"\r\n")]
            case "escape":
                hurts = [at + 1 + round(share * 5) for at in _all(body, b"\\")]
            case "end":
                hurts = list(range(max(0, len(body) - 400), len(body) + 1))
            case _:
                hurts = []
        places = hurts or places
        return places[int(share * len(places))]

    return place


def _all(body: bytes, what: bytes) -> Iterator[int]:
    at = body.find(what)
    while at >= 0:
        yield at
        at = body.find(what, at + 1)


def in_pieces(text: str, rng: Random) -> tuple[str, ...]:
    """Return a text in pieces as they come: words, or such that end anywhere."""
    if rng.random() < 0.5:
        return pieces(text)
    found = []
    while text:
        length = rng.randint(1, 9)
        found.append(text[:length])
        text = text[length:]
    return tuple(found)


def whole(text: str, rng: Random) -> Answer:
    return replace(faults.ok(), words=in_pieces(text, rng))


def broken(text: str, rng: Random) -> Play:
    """Return an answer that breaks, or what is none at all."""
    words = in_pieces(text, rng)
    if rng.random() < 0.7:
        how: Literal["cut", "reset", "end"] = rng.choice(("cut", "reset", "end"))
        return replace(faults.cut_at(somewhere(rng), how=how), words=words)
    if rng.random() < 0.1:
        return rng.choice((faults.html(200), faults.html(502), faults.empty()))
    after = rng.randint(0, len(words))
    play = rng.choice(
        (
            faults.cut(after),
            faults.reset(after),
            faults.stall(after),
            faults.malformed(after),
            faults.error_event(after),
            faults.error_event(after, error=faults.status(500)),
            faults.no_finish(after),
            faults.no_finish(after, sentinel=True),
            faults.no_sentinel(),
        )
    )
    return replace(play, words=words[:after] if play.finish is None else words)


@dataclass(slots=True)
class Script:
    """What the providers of one run play, drawn beforehand.

    Attributes:
        plays: Of each provider, in order; the last repeats.
        same: Whether every call after the first says the same, and whole.
    """

    rng: Random
    text: str = ""
    stream: bool = True
    allow_restart: bool = False
    wires: tuple[WireName, ...] = ()
    plays: dict[str, list[Play]] = field(default_factory=dict)
    same: bool = False

    def __post_init__(self) -> None:
        rng = self.rng
        self.text, self.stream = some_text(rng), rng.random() < 0.85
        self.allow_restart, self.same = rng.random() < 0.5, rng.random() < 0.2
        self.wires = tuple(rng.choice(WIRES) for _ in NAMES)
        first = broken(self.text, rng)
        self.plays = {
            "primary": [self._dressed(first), *(self._next() for _ in range(2))],
            "fallback": [self._next() for _ in range(2)],
        }

    def _next(self) -> Play:
        rng, draw = self.rng, self.rng.random()
        if self.same or draw < 0.3:
            return self._dressed(whole(self.text, rng))
        if draw < 0.6:
            return self._dressed(whole(another(self.text, rng), rng))
        if draw < 0.9:
            return self._dressed(broken(self.text, rng))
        return rng.choice((faults.overloaded(), faults.status(500), faults.rate_limited()))

    def _dressed(self, play: Play) -> Play:
        rng = self.rng
        if not isinstance(play, Answer):
            return play
        return faults.dressed(play, line_end=rng.choice(LINE_ENDS), escaped=rng.random() < 0.3)


@dataclass(slots=True)
class Told:
    """What the caller of one run has, and what was wrong with it.

    Attributes:
        text: What he has, restarts applied.
        since: The number of the call under way when he got his first words; 0: he got none.
        calls: How many there were.
        wrong: The laws that did not hold, in words.
    """

    text: str = ""
    since: int = 0
    calls: int = 0
    restarts: int = 0
    reply: Reply | None = None
    error: ZejzlError | None = None
    wrong: list[str] = field(default_factory=list)

    @property
    def end(self) -> str:
        if self.reply is not None:
            if self.restarts:
                return "another answer in its place"
            return "answered" if len(self.reply.attempts) == 1 else "healed"
        if isinstance(self.error, Incomplete):
            return "incomplete, as it says" if self.text else "incomplete, nothing told"
        return "another typed error"


async def run(seed: int, number: int) -> Told:
    """Play one run; return what the caller was told and what was wrong with it."""
    script = Script(Random(f"cut {seed} {number}"))
    said: dict[str, str] = {}  # the text that each call was to say, by its id
    async with stage(script, said) as (server, bus, adapters):
        told = Told()
        try:
            if script.stream:
                await listen(bus, script, told, said)
            else:
                told.reply = await bus.send("what do rivers carry?")
                told.text = told.reply.text
        except ZejzlError as raised:
            told.error = raised.with_traceback(None)
        except Exception as raised:  # noqa: BLE001 - it is what has gone wrong
            told.wrong.append(f"raised {raised!r}")
        told.calls = len(server.log)
        told.wrong += judged(script, told, said, server.log)
        told.wrong += await left_behind(server, bus, adapters)
    return told


@asynccontextmanager
async def stage(
    script: Script, said: dict[str, str]
) -> AsyncIterator[tuple[FaultServer, AsyncMessageBus, list[Any]]]:
    """Yield a server that plays the script, a bus before it, and its adapters."""
    clock = virtual.VirtualClock()
    settings = Settings(home=Path(tempfile.gettempdir()), max_attempts=MOST_TRIES)
    magic, store = FairyMagic(clock=clock, rng=Random(0)), InMemoryStore(clock=clock)
    adapters: list[Any] = []
    async with (
        FaultServer() as server,
        AsyncMessageBus(settings, store=store, clock=clock, magic=magic) as bus,
    ):
        for name, wire in zip(NAMES, script.wires, strict=True):
            server.play(name, recorded(script.plays[name], said))
            url = server.base_url(name, wire)
            adapters.append(ADAPTERS[wire](url, "key", "m", clock=clock))
            await bus.register_provider(name, adapters[-1])
        yield server, bus, adapters


def recorded(plays: list[Play], said: dict[str, str]) -> Callable[[Call], Play]:
    """Return a rule that plays in turn, and writes down what each call was to say."""
    left = list(plays)

    def rule(call: Call) -> Play:
        play = left.pop(0) if len(left) > 1 else left[0]
        said[call.request_id] = "".join(play.words) if isinstance(play, Answer) else ""
        return play

    return rule


async def listen(bus: AsyncMessageBus, script: Script, told: Told, said: dict[str, str]) -> None:
    """Read a stream as a program does, and look at each piece."""
    async for delta in bus.stream("what do rivers carry?", allow_restart=script.allow_restart):
        if delta.restart:
            told.restarts += 1
            if not script.allow_restart or not told.text:
                told.wrong.append("a restart that was not asked for")
            told.text = ""
        told.text += delta.text
        told.since = told.since or (len(said) if delta.text else 0)
        told.reply = delta.reply
        if not any(text.startswith(told.text) for text in said.values()):
            told.wrong.append("what he has is the beginning of no answer")


def judged(script: Script, told: Told, said: dict[str, str], log: list[Call]) -> list[str]:
    """Return the laws that the end did not keep."""
    wrong, reply, error = [], told.reply, told.error
    ended = reply if reply is not None else error
    if reply is not None:
        whole = said[[call for call in log if call.provider == reply.provider][-1].request_id]
        if reply.text != told.text:
            wrong.append("what he has is not what the reply says")
        if told.text != whole:
            wrong.append(f"not the whole answer: {told.text!r} of {whole!r}")
        if reply.finish_reason != "stop":
            wrong.append(f"finished with {reply.finish_reason}")
    elif error is None:
        wrong.append("neither an answer nor an error")
    elif told.text and not (isinstance(error, Incomplete) and error.prefix == told.text):
        wrong.append(f"a part is out, and the error does not say it: {error!r}")
    if script.same and reply is None:
        wrong.append(f"everybody would have said the same, and he has no answer: {error!r}")
    if len(getattr(ended, "attempts", ())) != len(log):
        wrong.append(f"{len(log)} calls, {len(getattr(ended, 'attempts', ()))} told")
    tries = Counter(call.provider for call in log)
    if max(tries.values(), default=0) > MOST_TRIES:
        wrong.append(f"too many calls: {dict(tries)}")
    return wrong


async def left_behind(
    server: FaultServer, bus: AsyncMessageBus, adapters: Iterable[Any]
) -> list[str]:
    """Return what still stands for the request, some time after its end."""
    for _ in range(50):
        if not any(server.in_flight(name) for name in NAMES):
            break
        await asyncio.sleep(0.02)
    wrong = [f"{name} still answers" for name in NAMES if server.in_flight(name)]
    for adapter in adapters:
        pool = adapter._http._pool
        if pool is not None and (pool.busy or pool.session.connector._acquired):
            wrong.append("a connection is in use")
    limits: Any = (await bus.magic.get_system_status())["limits"]
    taken = {name: lane for name, lane in limits.items() if lane["in_flight"] or lane["queued"]}
    if taken:
        wrong.append(f"places are taken: {taken}")
    for name, breaker in bus.magic.circuit_breakers.items():
        outage = breaker.rule._outage
        if outage is not None and outage.leases:
            wrong.append(f"{name} waits for a probe")
    return wrong


async def run_all(seed: int, numbers: Iterable[int]) -> tuple[Counter[str], list[str]]:
    """Play runs one after another; return how they ended, and what was wrong."""
    ends: Counter[str] = Counter()
    wrong = []
    for number in numbers:
        told = await run(seed, number)
        ends[told.end] += 1
        ends[BROKEN_LATE] += 0 < told.since < told.calls
        wrong += [f"run {number}: {each}" for each in told.wrong]
    return ends, wrong


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--runs", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--only", type=int, nargs="+", metavar="NUMBER")
    given = arguments.parse_args()
    numbers = given.only or range(given.runs)
    print_machine()
    began = time.perf_counter()
    ends, wrong = virtual.run(run_all(given.seed, numbers))
    seconds = time.perf_counter() - began
    for each in wrong:
        print(each)
    for end, times in sorted(ends.items()):
        print(f"{end:<28} {times:>6}  {100.0 * times / len(numbers):.1f} %")
    rate = len(numbers) / seconds
    print(f"{len(numbers)} runs in {seconds:.0f} s, {rate:.0f} a second; wrong: {len(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
