"""An incident played to the real bus on virtual time: what would these settings have done?

    incident ──▶ requests, each at its time ──▶ AsyncMessageBus, the real policies
                                                   └──▶ simulated providers
    Simulation: answers, failures, latencies, calls, remedies, tokens, money

Policies, healing and journal are those that a program has; providers, sockets and time are not.
An hour takes seconds, holds no CPU time, and comes out the same for the same seed, to the last
bit. Whatever the settings say, no vendor is asked and nothing is written to disk.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from ai_framework import AsyncMessageBus
from zejzl.engine import prices
from zejzl.errors import Rejected, SettingsError, ZejzlError
from zejzl.events import UNTRIED, Event, RecoveryRecorded
from zejzl.magic import FairyMagic
from zejzl.magic.gate import PROVIDERS
from zejzl.messages import Attempt, Reply
from zejzl.policies.prices import Prices
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore
from zejzl.testing import virtual
from zejzl.testing.incidents import Arrival, Incident, IncidentError, RecordedCall
from zejzl.testing.simulated_provider import ITS_OWN, SimulatedProvider

__all__ = ["Heal", "Incident", "IncidentError", "Minute", "Simulation", "simulate", "simulated"]

WALL = 1_700_000_000.0  # where the wall clock of an incident begins that is made up
LEAST_DRAIN = 3_600.0  # seconds after the last request in which what is under way may end
KEPT = 100  # messages in the store: nobody asks for more
MINUTE = 60.0
PROGRESS = 100  # requests between two reports
BYTES = 4  # of a prompt for each token

UNFINISHED = "unfinished"  # a request that even so had no end


@dataclass(frozen=True, slots=True, kw_only=True)
class Heal:
    """A remedy against a kind of failure.

    Attributes:
        provider: That failed.
        failure_class: How.
        remedy: What was done about it.
        tried: How often.
        helped: How often that was well.
    """

    provider: str
    failure_class: str
    remedy: str
    tried: int
    helped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """What became of the requests that came in one minute.

    Attributes:
        requests: So many.
        calls: That were made for them.
        slowest: Seconds of the slowest answer; None: there was none.
    """

    requests: int = 0
    answered: int = 0
    failed: int = 0
    calls: int = 0
    slowest: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What an incident came to.

    Attributes:
        requests: That were made.
        answered: That had the right answer.
        wrong: That had another one.
        cut: Of the answers, those that stopped at a token limit.
        healed: Of the answers, those that came after a failure.
        failed: Errors that were raised, by class.
        refused: Of these, how many were raised without any call: `Rejected`.
        p50, p95, p99: Seconds within which such a share of the answers came; None: there are none.
        attempts: How calls ended, as the bus saw it, by provider.
        heals: What was done about failures.
        prompt_tokens, completion_tokens: As the providers count, abandoned calls included.
        cost_usd: Money for these; None where a price is not known.
        timeline: The minutes in which requests came.
        seconds: Until the last of them had its end.
    """

    requests: int
    answered: int
    wrong: int
    cut: int
    healed: int
    failed: Mapping[str, int]
    refused: int
    p50: float | None
    p95: float | None
    p99: float | None
    attempts: Mapping[str, Mapping[str, int]]
    heals: Sequence[Heal]
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    timeline: Sequence[Minute]
    seconds: float

    @property
    def calls(self) -> int:
        """Calls of all providers."""
        return sum(sum(ends.values()) for ends in self.attempts.values())

    @property
    def calls_per_request(self) -> float:
        """Amplification: calls of providers for each request."""
        return self.calls / self.requests

    @property
    def remedies(self) -> dict[str, tuple[int, int]]:
        """By remedy, how often it helped, and how often it was tried."""
        found: dict[str, tuple[int, int]] = {}
        for heal in self.heals:
            helped, tried = found.get(heal.remedy, (0, 0))
            found[heal.remedy] = helped + heal.helped, tried + heal.tried
        return found

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        counted = {"calls": self.calls, "calls_per_request": self.calls_per_request}
        return {**asdict(self), **counted}


def simulate(
    incident: Incident,
    settings: Settings | None = None,
    *,
    seed: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Simulation:
    """Play an incident, on an event loop of its own, and return what it came to.

    Args:
        incident: What happens.
        settings: How the bus behaves; None: the defaults.
        seed: Of all chance; the same one gives the same result.
        progress: Is told now and then which share of the incident is over.

    Raises:
        TypeError: If an argument is none of its kind.
        SettingsError: If the settings name a provider that the incident does not have.
        RuntimeError: If an event loop runs here already.
    """
    _check(incident, settings, seed, progress)
    if _loop_runs():
        raise RuntimeError(
            "simulate() runs an event loop of its own, and one runs here already: use "
            "`await asyncio.to_thread(simulate, …)`, or `await simulated(…)` in a program that "
            "zejzl.testing.virtual.run runs"
        )
    wall = WALL if incident.began is None else incident.began.timestamp()
    work = simulated(incident, settings, seed=seed, progress=progress)
    return virtual.run(work, wall=wall, sealed=True)


def _check(incident: object, settings: object, seed: object, progress: object) -> None:
    """Raise TypeError unless each is what it should be."""
    if not isinstance(incident, Incident):
        wrong = f"incident must be an Incident, not {type(incident).__name__}"
        raise TypeError(f"{wrong}: Incident.from_toml reads one from a file")
    if not isinstance(settings, Settings | None):
        raise TypeError(f"settings must be Settings, not {type(settings).__name__}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be a whole number, not {type(seed).__name__}")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be a function, not {type(progress).__name__}")


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def simulated(
    incident: Incident,
    settings: Settings | None = None,
    *,
    seed: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Simulation:
    """Do what `simulate` does in a program that runs on virtual time already.

    The result is the same to the last bit where that program is `virtual.run(…, sealed=True)`.

    Raises:
        TypeError: If an argument is none of its kind.
        SettingsError: If the settings name a provider that the incident does not have.
        RuntimeError: If the running event loop's time is not virtual.
    """
    _check(incident, settings, seed, progress)
    if not isinstance(asyncio.get_running_loop(), virtual.VirtualLoop):
        raise RuntimeError(
            "simulated() needs an event loop on virtual time (zejzl.testing.virtual.run), and this "
            "is none: use `await asyncio.to_thread(simulate, …)`"
        )
    stage = _Stage(incident, _harmless(settings or Settings(), incident), seed)
    return await stage.play(progress or (lambda share: None))


def _harmless(settings: Settings, incident: Incident) -> Settings:
    """Return settings with which nobody is asked who is not in the incident."""
    names = [one.name for one in incident.providers]
    for setting, asked in (
        ("failover", settings.failover or ()),
        ("default_provider", (settings.default_provider or names[0],)),
    ):
        for name in asked:
            if name.strip().lower() not in names:
                known = ", ".join(names)
                raise SettingsError(setting, f"{name!r} is not in the incident; there are: {known}")
    return replace(settings, vendors={})


@dataclass(slots=True)
class _Tally:
    """What is counted while an incident is played."""

    answered: int = 0
    wrong: int = 0
    cut: int = 0
    healed: int = 0
    refused: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    attempts: dict[str, Counter[str]] = field(default_factory=dict)
    tried: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    helped: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    minutes: dict[int, Minute] = field(default_factory=dict)

    def heard(self, event: Event) -> None:
        """Take in what the bus did about a failure."""
        if isinstance(event, RecoveryRecorded) and event.remedy != UNTRIED:
            row = event.target.removeprefix(f"{PROVIDERS}:"), event.failure_class, event.remedy
            self.tried[row] += 1
            self.helped[row] += event.success

    def ended(
        self, arrival: Arrival, seconds: float, attempts: Sequence[Attempt], *, failed: bool
    ) -> None:
        """Take in that a request had its end."""
        for attempt in attempts:
            self.attempts.setdefault(attempt.provider, Counter())[attempt.outcome] += 1
        at = int(arrival.at // MINUTE)
        before = self.minutes.get(at) or Minute()
        slowest = before.slowest
        if not failed:
            self.latencies.append(seconds)
            slowest = max(seconds, slowest or 0.0)
        self.minutes[at] = Minute(
            requests=before.requests + 1,
            answered=before.answered + (not failed),
            failed=before.failed + failed,
            calls=before.calls + len(attempts),
            slowest=slowest,
        )


class _Stage:
    """One bus, its simulated providers, and what becomes of the requests."""

    def __init__(self, incident: Incident, settings: Settings, seed: int) -> None:
        self._incident = incident
        self._settings = settings
        self._seed = seed
        self._clock = virtual.VirtualClock()
        self._began = self._clock.now()
        self._arrivals = incident.arrivals(seed)
        self._said: dict[int, list[str]] = {}
        self._tally = _Tally()
        their_own = _their_own(incident)
        self._providers = [
            SimulatedProvider(
                script,
                self._arrivals,
                seed=seed,
                clock=self._clock,
                said=self._said,
                their_own=their_own,
            )
            for script in incident.providers
        ]
        magic = FairyMagic(clock=self._clock, rng=Random(f"{seed}/magic"))
        magic.listen(self._tally.heard)
        store = InMemoryStore(limit=KEPT, clock=self._clock)
        self._bus = AsyncMessageBus(settings, store=store, clock=self._clock, magic=magic)

    async def play(self, progress: Callable[[float], None]) -> Simulation:
        """Send every request at its time and return what became of them."""
        async with self._bus:
            for provider in self._providers:
                await self._bus.register_provider(provider.name, provider)
            requests: list[asyncio.Task[None]] = []
            for arrival in self._arrivals:
                if arrival.number % PROGRESS == 0:
                    progress(min(1.0, arrival.at / self._incident.duration))
                await self._clock.sleep(self._began + arrival.at - self._clock.now())
                requests.append(asyncio.create_task(self._request(arrival)))
            drain = max(LEAST_DRAIN, 2.0 * (self._settings.deadline or 0.0))
            await asyncio.wait(requests, timeout=drain)
            seconds = self._clock.now() - self._began
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests)
        progress(1.0)
        return self._simulation(seconds)

    async def _request(self, arrival: Arrival) -> None:
        """Send one request, and take in what became of it."""
        tally, began = self._tally, self._clock.now()
        attempts: Sequence[Attempt] = ()
        failed = True
        try:
            reply = await self._ask(arrival)
            attempts, failed = reply.attempts, False
            tally.answered += reply.text in self._said.get(arrival.number, ())
            tally.wrong += reply.text not in self._said.get(arrival.number, ())
            tally.cut += reply.truncated
            tally.healed += reply.healed
        except ZejzlError as error:
            attempts = [each for each in error.attempts if isinstance(each, Attempt)]
            tally.failed[type(error).__name__] += 1
            tally.refused += isinstance(error, Rejected)
        except asyncio.CancelledError:
            tally.failed[UNFINISHED] += 1
        finally:
            self._said.pop(arrival.number, None)
            tally.ended(arrival, self._clock.now() - began, attempts, failed=failed)

    async def _ask(self, arrival: Arrival) -> Reply:
        load = arrival.load
        how: dict[str, Any] = {
            "provider": load.provider,
            "model": load.model,
            "failover": load.failover,
            "conversation_id": arrival.conversation,
            "deadline": load.deadline,
            "patience": load.patience,
            "criticality": load.criticality,
            "max_tokens": load.max_tokens,
        }
        content = f"{arrival.number}:".ljust(BYTES * arrival.prompt_tokens, "x")
        if not load.stream:
            return await self._bus.send(content, **how)
        reply: Reply | None = None
        text = ""
        async for delta in self._bus.stream(content, **how):
            text += delta.text
            reply = delta.reply
        assert reply is not None  # the last piece carries it
        return replace(reply, text=text)

    def _simulation(self, seconds: float) -> Simulation:
        tally = self._tally
        latencies = sorted(tally.latencies)
        counts = [of for one in self._providers for of in one.served.values()]
        minutes = range(max(tally.minutes, default=-1) + 1)
        return Simulation(
            requests=len(self._arrivals),
            answered=tally.answered,
            wrong=tally.wrong,
            cut=tally.cut,
            healed=tally.healed,
            failed=dict(sorted(tally.failed.items())),
            refused=tally.refused,
            p50=_quantile(latencies, 0.5),
            p95=_quantile(latencies, 0.95),
            p99=_quantile(latencies, 0.99),
            attempts={
                name: dict(sorted(of.items())) for name, of in sorted(tally.attempts.items())
            },
            heals=[
                Heal(
                    provider=row[0],
                    failure_class=row[1],
                    remedy=row[2],
                    tried=tried,
                    helped=tally.helped[row],
                )
                for row, tried in sorted(tally.tried.items())
            ],
            prompt_tokens=sum(prompt for prompt, _ in counts),
            completion_tokens=sum(completion for _, completion in counts),
            cost_usd=self._cost(),
            timeline=[tally.minutes.get(at, Minute()) for at in minutes],
            seconds=seconds,
        )

    def _cost(self) -> float | None:
        """Return what the providers ask for, or None where a price is not known."""
        total, table = 0.0, _price_table(self._settings)
        for script, provider in zip(self._incident.providers, self._providers, strict=True):
            for model, counts in provider.served.items():
                price = script.price or table.find(provider.name, model)
                if price is not None:
                    total += price.cost(*counts)
                elif any(counts):
                    return None
        return total


def _price_table(settings: Settings) -> Prices:
    path = getattr(settings, "prices", None)
    return prices.load(path if isinstance(path, Path) else None)


def _their_own(incident: Incident) -> dict[int, RecordedCall]:
    """Return the recorded outcomes that were the request's own doing, by request."""
    return {
        call.request: call
        for script in incident.providers
        for call in script.calls
        if call.outcome in ITS_OWN
    }


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return a quantile by nearest rank."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None
