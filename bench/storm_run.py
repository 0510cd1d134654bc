"""One storm, played to one client in virtual time, and what is measured of it.

    ok, ok2     share of requests that were answered rightly; within two seconds
    wrong       answers that were not right and came as a success
    p50 … p99   milliseconds of all requests, of failed ones until they failed
    ampl        requests in the providers' logs per request of ours

Virtual time holds no CPU time (see `zejzl.testing.virtual`): these are the latencies of decisions,
and the same on a busy machine. What a call costs the processor is measured by `bus.py`.
"""

import asyncio
import math
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from storm_stage import WIRES, Stage, answer_of, asked, head

from ai_framework import AsyncMessageBus
from zejzl.magic import FairyMagic
from zejzl.providers import Anthropic, OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore
from zejzl.testing import Call, FaultServer, virtual
from zejzl.testing.behaviours import Play

SECONDS = 25.0
RATE = 40.0  # requests a second
ATTEMPT_TIMEOUT = 1.5
DEADLINE = 10.0
SOON = 2.0  # seconds within which an answer counts for ok2

Ask = Callable[[str], Awaitable[str]]  # prompt → answer
Figures = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A storm, and what has to come of it.

    Figures whose name ends in " s" or " ms" are times: their limits grow with the scale.

    Attributes:
        name: What is wrong; scenarios of one name are one row that passes whole.
        variant: Which reading of it.
        plays: Returns what each provider plays.
        most: Upper limits of figures.
        least: Lower limits.
        figures: Returns what is measured beside the common figures.
        prompt: Returns the words of a request; "bad" is what every provider has to refuse.
        rate: Returns the requests a second at a time.
        ports: When (seconds) a provider's port closes and opens again.
        stream: Whether the answers are streamed.
        patience: Seconds; None is the default.
        scored: Whether its limits decide; if not, it only informs.
        peer: Whether the peer is asked, too.
    """

    name: str
    plays: Callable[[Stage], Mapping[str, Play]]
    variant: str = ""
    most: Mapping[str, float] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)
    figures: Callable[["Storm"], Figures] = lambda storm: {}
    prompt: Callable[[Random], str] = lambda rng: "what do rivers carry?"
    rate: Callable[[float], float] = lambda at: RATE
    ports: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    stream: bool = False
    patience: float | None = None
    scored: bool = True
    peer: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request.

    Attributes:
        at: When it came, in seconds since the start; the same time as `Call.at`.
        verdict: "right", "wrong" or "failed".
    """

    prompt: str
    at: float
    seconds: float
    verdict: str


@dataclass(slots=True)
class Storm:
    """A storm that is over."""

    stage: Stage
    outcomes: list[Outcome]
    calls: dict[str, list[Call]]

    @property
    def every_call(self) -> list[Call]:
        return [call for calls in self.calls.values() for call in calls]

    def calls_of(self, outcomes: list[Outcome]) -> int:
        """Return how many requests to providers were made for these."""
        made = Counter(head(asked(call)) for call in self.every_call)
        return sum(made[head(each.prompt)] for each in outcomes)

    def common(self) -> Figures:
        outcomes, soon = self.outcomes, SOON * self.stage.scale
        right = [each for each in outcomes if each.verdict == "right"]
        times = sorted(each.seconds * 1000.0 for each in outcomes)
        return {
            "ok %": 100.0 * len(right) / len(outcomes),
            "ok2 %": 100.0 * sum(each.seconds <= soon for each in right) / len(outcomes),
            "wrong": sum(each.verdict == "wrong" for each in outcomes),
            **{f"p{p} ms": times[math.ceil(len(times) * p / 100) - 1] for p in (50, 95, 99)},
            "ampl": len(self.every_call) / len(outcomes),
        }


@asynccontextmanager
async def bus(
    scenario: Scenario, urls: Mapping[str, str], seed: int, scale: float
) -> AsyncIterator[Ask]:
    """Yield a way to ask our bus."""
    clock = virtual.VirtualClock()
    settings = Settings(
        home=Path(tempfile.gettempdir()),  # nothing is written there: the store is in memory
        attempt_timeout=ATTEMPT_TIMEOUT * scale,
        first_token_timeout=ATTEMPT_TIMEOUT * scale,
        deadline=DEADLINE * scale,
        patience=None if scenario.patience is None else scenario.patience * scale,
    )
    magic = FairyMagic(clock=clock, rng=Random(seed))
    store = InMemoryStore(clock=clock)
    async with AsyncMessageBus(settings, store=store, clock=clock, magic=magic) as ours:
        for name, url in urls.items():
            adapter = OpenAICompatible if WIRES[name] == "openai" else Anthropic
            provider = adapter(base_url=url, api_key=f"key-{name}", model="m", clock=clock)
            await ours.register_provider(name, provider)

        async def plain(prompt: str) -> str:
            return (await ours.send(prompt)).text

        async def streamed(prompt: str) -> str:
            return "".join([delta.text async for delta in ours.stream(prompt)])

        yield streamed if scenario.stream else plain


@asynccontextmanager
async def sdk(
    scenario: Scenario, urls: Mapping[str, str], seed: int, scale: float
) -> AsyncIterator[Ask]:
    """Yield a way to ask the bare openai SDK, its retries as they come; it knows A alone."""
    import openai

    async with openai.AsyncOpenAI(
        base_url=urls["a"], api_key="key-a", timeout=ATTEMPT_TIMEOUT * scale
    ) as client:

        async def plain(prompt: str) -> str:
            reply = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": prompt}]
            )
            return reply.choices[0].message.content or ""

        async def streamed(prompt: str) -> str:
            text = ""
            async for chunk in await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": prompt}], stream=True
            ):
                text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            return text

        yield streamed if scenario.stream else plain


CLIENTS = {"bus": bus, "sdk": sdk}


def arrivals(scenario: Scenario, seed: int) -> list[tuple[float, str]]:
    """Return when each request comes, for scale 1, and its prompt: the same for every client."""
    rng, at = Random(f"arrivals {seed}"), 0.0
    found: list[tuple[float, str]] = []
    while at < SECONDS:
        gap = 1.0 / scenario.rate(at)
        found.append((at + rng.uniform(0.0, gap), f"request {len(found)}: {scenario.prompt(rng)}"))
        at += gap
    return found


async def judged(ask: Ask, prompt: str) -> str:
    try:
        text = await ask(prompt)
    except Exception as failure:  # noqa: BLE001 - whatever a client raises is its answer
        status: Any = getattr(failure, "status", None) or getattr(failure, "status_code", None)
        return "right" if is_bad(prompt) and status == 400 else "failed"
    return "right" if text == answer_of(prompt) and not is_bad(prompt) else "wrong"


def is_bad(prompt: str) -> bool:
    return prompt.endswith(": bad")


async def storm(scenario: Scenario, client: str, seed: int, scale: float) -> Storm:
    """Play it."""
    stage, loop = Stage(seed, scale), asyncio.get_running_loop()
    outcomes: list[Outcome] = []
    async with AsyncExitStack() as stack:
        servers = {name: await stack.enter_async_context(FaultServer()) for name in WIRES}
        for name, play in scenario.plays(stage).items():
            servers[name].play(name, play)
        urls = {name: servers[name].base_url(name, wire) for name, wire in WIRES.items()}
        ask = await stack.enter_async_context(CLIENTS[client](scenario, urls, seed, scale))
        begun = loop.time()

        async def until(at: float) -> None:
            await asyncio.sleep(begun + at * scale - loop.time())

        async def request(prompt: str) -> None:
            came = loop.time()
            verdict = await judged(ask, prompt)
            outcomes.append(Outcome(prompt, came - begun, loop.time() - came, verdict))

        async def port(server: FaultServer, closes: float, opens: float) -> None:
            await until(closes)
            await server.stop_listening()
            await until(opens)
            await server.resume()

        async with asyncio.TaskGroup() as tasks:
            for name, (closes, opens) in scenario.ports.items():
                tasks.create_task(port(servers[name], closes, opens))
            for at, prompt in arrivals(scenario, seed):
                await until(at)
                tasks.create_task(request(prompt))
    return Storm(stage, outcomes, {name: servers[name].log for name in WIRES})


def measure(scenario: Scenario, client: str = "bus", seed: int = 1, scale: float = 1.0) -> Figures:
    """Return the figures of one run; takes a few seconds of the processor's time."""
    over = virtual.run(storm(scenario, client, seed, scale))
    return over.common() | scenario.figures(over)
