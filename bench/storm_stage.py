"""What the servers of a storm play: every behaviour takes its time, drawn from the run's seed.

Times are given for scale 1 and multiplied by the stage's scale, so that the same storm can be
played with everything so many times slower.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from zejzl.testing import Call, faults
from zejzl.testing.behaviours import Play, Rule, WireName

WIRES: dict[str, WireName] = {"a": "openai", "b": "openai", "c": "anthropic"}  # in order of choice
ANSWER = 0.04, 0.08  # seconds an answer takes
ERROR = 0.01, 0.03  # seconds an error takes
ENDLESS = 10**6  # slots of a provider whose capacity is not what matters
PACE = 0.0015  # seconds between a stream's words: a fifth of an answer's time in all
WORDS = "rivers carry mountains slowly toward every waiting sea"


def answer_of(prompt: str) -> str:
    """Return the one right answer to a prompt, everybody's: a broken one can be completed."""
    return f"this answers {head(prompt)}: {WORDS}"


def head(prompt: str) -> str:
    """Return what tells a prompt from all others."""
    return prompt.partition(":")[0]


def asked(call: Call) -> str:
    return str(call.body["messages"][-1]["content"])


class Stage:
    """Behaviours for one run.

    Attributes:
        scale: How many times slower everything is.
        begun: Answers that each provider began to work on.
        told: Seconds that a refusal told to wait, by provider and id of the call.
    """

    def __init__(self, seed: int, scale: float) -> None:
        self.scale = scale
        self.begun: Counter[str] = Counter()
        self.told: dict[tuple[str, str], float] = {}
        self._seeds = Random(f"stage {seed}")

    def chance(self) -> Random:
        return Random(self._seeds.getrandbits(64))

    def well(
        self,
        provider: str,
        span: tuple[float, float] = ANSWER,
        *,
        slots: int = ENDLESS,
        queue: int = 0,
        overload: int = 503,
    ) -> Play:
        """Right answers that take a time within `span`, `slots` at once.

        `queue` more wait for a slot; who comes then gets the status `overload`.
        """
        draw = self._seconds(span)

        def begin() -> float:
            self.begun[provider] += 1
            return draw()

        def answer(call: Call) -> Play:
            pace = PACE * self.scale if call.stream else 0.0
            return faults.ok(answer_of(asked(call)), pace=pace)

        return faults.capacity(
            slots, begin, queue=queue, overload=self.error(overload), then=answer
        )

    def after(self, span: tuple[float, float], fault: Play) -> Play:
        """`fault`, after a time within `span`."""
        return faults.capacity(ENDLESS, self._seconds(span), then=fault)

    def error(self, status: int = 503) -> Play:
        return self.after(ERROR, faults.status(status))

    def during(self, start: float, end: float, fault: Play, otherwise: Play) -> Rule:
        return faults.outage(start * self.scale, end * self.scale, fault, otherwise=otherwise)

    def some(self, share: float, kinds: Sequence[Play], otherwise: Play) -> Rule:
        """One of `kinds` for a random share of the calls."""
        rng = self.chance()
        return lambda call: rng.choice(kinds) if rng.random() < share else otherwise

    def limiting(self, low: float, high: float) -> Play:
        """429, each telling to wait for a time between `low` and `high`."""
        rng = self.chance()

        def refuse(call: Call) -> Play:
            wait = round(rng.uniform(low, high) * self.scale, 1)
            self.told[call.provider, call.request_id] = wait
            return faults.rate_limited(wait)

        return self.after(ERROR, refuse)

    def _seconds(self, span: tuple[float, float]) -> Callable[[], float]:
        rng, (low, high) = self.chance(), span
        return lambda: rng.uniform(low, high) * self.scale
