"""One bus in virtual time before one fault server, and what became of each of its requests.

Beside what `storm_stage` plays, this knows who asked, what they were told, and when the bus's
breakers went over an edge. All times are virtual seconds since the server's start, those of
`Call.at`; `Outcome.work` alone is the machine's.
"""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

from storm_stage import WIRES, Stage, answer_of, asked, head

from ai_framework import AsyncMessageBus
from zejzl.errors import ZejzlError
from zejzl.events import BreakerChanged, Event
from zejzl.magic import FairyMagic
from zejzl.providers import Anthropic, Gemini, OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore
from zejzl.testing import Call, FaultServer, virtual
from zejzl.testing.behaviours import Play, WireName

ADAPTERS = {"openai": OpenAICompatible, "anthropic": Anthropic, "gemini": Gemini}
KEPT = 200  # messages in the store: it is not what is measured
NEVER = float("inf")

Figures: TypeAlias = dict[str, float]
Options: TypeAlias = Mapping[str, Any]  # of AsyncMessageBus.send, and `stream`
Arrival: TypeAlias = tuple[float, str, Options]  # when, the prompt, how


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a request.

    Attributes:
        at: When it was sent.
        seconds: Until its end.
        provider: Who answered; "" where nobody did.
        text: What had come at its end.
        right: Whether it came as a success, with the one right text.
        error: What was raised, without its traceback.
        work: The machine's seconds until its end; its own work if it never waited.
    """

    prompt: str
    options: Options
    at: float
    seconds: float
    provider: str
    text: str
    right: bool
    error: BaseException | None
    work: float

    @property
    def ends(self) -> float:
        return self.at + self.seconds

    @property
    def told(self) -> bool:
        """Whether it was answered rightly, or raised an error of the library's tree."""
        return self.right or isinstance(self.error, ZejzlError)


@dataclass(slots=True)
class World:
    """A bus, its providers, and what has happened so far.

    Attributes:
        also: An answer that is right, too, whatever the prompt.
        edges: When a breaker changed, and how.
    """

    bus: AsyncMessageBus
    server: FaultServer
    also: str
    outcomes: list[Outcome] = field(default_factory=list)
    edges: list[tuple[float, BreakerChanged]] = field(default_factory=list)

    @property
    def now(self) -> float:
        return self.server.now()

    async def register(self, name: str, wire: WireName, *, served_as: str = "") -> None:
        """Add a provider with a key of its own; `served_as` names another's script it gets."""
        adapter, url = ADAPTERS[wire], self.server.base_url(served_as or name, wire)
        clock = virtual.VirtualClock()
        provider = adapter(base_url=url, api_key=f"key-{name}", model="m", clock=clock)
        await self.bus.register_provider(name, provider)

    async def until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self.now))

    async def ask(self, prompt: str, **options: Any) -> Outcome:
        """Send a prompt; return what became of it."""
        at, began, error = self.now, time.perf_counter(), None
        streams = options.pop("stream", False)
        heard: list[str] = []
        provider = ""
        try:
            if streams:
                async for delta in self.bus.stream(prompt, **options):
                    heard.append(delta.text)
                    provider = delta.reply.provider if delta.reply is not None else ""
            else:
                reply = await self.bus.send(prompt, **options)
                heard, provider = [reply.text], reply.provider
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - it is what became of it
            error = raised.with_traceback(None)
        text = "".join(heard)
        right = error is None and text in (answer_of(prompt), self.also)
        outcome = Outcome(
            prompt=prompt,
            options=options,
            at=at,
            seconds=self.now - at,
            provider=provider,
            text=text,
            right=right,
            error=error,
            work=time.perf_counter() - began,
        )
        self.outcomes.append(outcome)
        return outcome

    async def play(self, arrivals: Iterable[Arrival]) -> None:
        """Send every prompt at its time; return when all have ended."""
        async with asyncio.TaskGroup() as tasks:
            for at, prompt, options in sorted(arrivals, key=lambda each: each[0]):
                await self.until(at)
                tasks.create_task(self.ask(prompt, **options))

    def calls(self, provider: str = "a", start: float = 0.0, end: float = NEVER) -> list[Call]:
        """Return a provider's calls that came from `start` until before `end`."""
        return [call for call in self.server.calls(provider) if start <= call.at < end]

    def asked(self, start: float = 0.0, end: float = NEVER) -> list[Outcome]:
        """Return what became of requests sent from `start` until before `end`."""
        return [each for each in self.outcomes if start <= each.at < end]

    def opened(self, after: float = 0.0) -> list[float]:
        """Return when breakers opened that had been closed."""
        return [
            at for at, edge in self.edges if at >= after and (edge.before, edge.after) == OPENING
        ]

    def failures(self) -> int:
        """Return how many breakers have ever counted a failure."""
        return sum(bool(each.last_error) for each in self.bus.magic.circuit_breakers.values())

    def back(self, end: float, provider: str = "a") -> float:
        """Return the seconds from an outage's end until a request was answered by `provider`."""
        right = (each.ends for each in self.outcomes if each.right and each.provider == provider)
        return min((at for at in right if at >= end), default=NEVER) - end

    def wrong(self) -> int:
        """Return how many were given what is no right answer, or with an error, no part of one."""
        return sum(
            not (each.right or (each.error and answer_of(each.prompt).startswith(each.text)))
            for each in self.outcomes
        )


OPENING = ("closed", "open")


@asynccontextmanager
async def world(
    plays: Callable[[Stage], Mapping[str, Play]],
    seed: int,
    *,
    wires: Mapping[str, WireName] = WIRES,
    also: str = "",
    **settings: Any,
) -> AsyncIterator[World]:
    """Yield a bus with the providers that have something to play, in their order.

    Args:
        plays: Returns what each provider plays.
        seed: Of every chance in it.
        wires: Which format a provider speaks.
        also: See World.
        settings: Those that are not the defaults.
    """
    clock = virtual.VirtualClock()
    chosen = Settings(home=Path(tempfile.gettempdir()), **settings)
    store = InMemoryStore(limit=KEPT, clock=clock)
    magic = FairyMagic(clock=clock, rng=Random(seed))
    async with (
        FaultServer() as server,
        AsyncMessageBus(chosen, store=store, clock=clock, magic=magic) as bus,
    ):
        found = World(bus, server, also)
        for name, play in plays(Stage(seed, 1.0)).items():
            server.play(name, play)
            await found.register(name, wires[name])

        def heard(event: Event) -> None:
            if isinstance(event, BreakerChanged):
                found.edges.append((server.now(), event))

        magic.listen(heard)
        yield found


def steadily(
    start: float, end: float, rate: float, rng: Random, word: str = "request", **options: Any
) -> list[Arrival]:
    """Return `rate` requests a second, each at a random moment of its own slot.

    Above a hundred a second they come in groups, a hundred a second of those.
    """
    together = max(1, round(rate / 100.0))
    moments = [rng.random() for _ in range(round((end - start) * rate / together))]
    return [
        (start + (at + moment) * together / rate, f"{word} {at}.{one}: what is up?", options)
        for at, moment in enumerate(moments)
        for one in range(together)
    ]


def firsts(calls: Iterable[Call]) -> int:
    """Return how many different requests these calls are for."""
    return len({head(prompt_of(call)) for call in calls})


def most_tries(calls: Iterable[Call]) -> int:
    """Return how many of these calls are for one and the same request, at most."""
    return max(Counter(head(prompt_of(call)) for call in calls).values(), default=0)


def prompt_of(call: Call) -> str:
    """Return the last words that were asked, on any wire."""
    if call.wire == "gemini":
        return str(call.body["contents"][-1]["parts"][0]["text"])
    return asked(call)


def percent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole else NEVER
