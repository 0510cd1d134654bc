"""The worlds of `magic.py`: how two providers fail, and whether the runbook is right about it.

What a provider does to a call depends on the seed, the provider's role, the prompt, and, where
luck is meant, on how often that prompt has come; never on who else asks, or in what order. So
every arm meets the same world, though each has providers of its own.

Times are seconds since the start. Halfway through, at `HALF`, the worlds that drift do.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from storm_stage import ANSWER, ENDLESS, answer_of, asked, head

from zejzl.testing import Call, faults
from zejzl.testing.behaviours import Play, Rule

SECONDS = 90.0
HALF = SECONDS / 2.0
QUICK = 0.01, 0.03  # seconds until an error comes
SLOW = 0.6, 1.0


@dataclass(frozen=True, slots=True)
class Moment:
    """One call, as far as chance is concerned.

    Attributes:
        at: When it came.
        prompt: In [0, 1); the same whenever this provider gets this prompt.
        luck: In [0, 1); this call's own.
    """

    at: float
    prompt: float
    luck: float


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and how long that takes."""

    play: Play
    seconds: tuple[float, float] = QUICK


Nature = Callable[[Moment], Fault | None]  # None: it answers well


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How A, the first choice, and B fail.

    Attributes:
        name: What happens.
        runbook: What the runbook does about it, and whether that is right.
        a, b: The providers' natures.
        pace: How much slower than A a good answer of B is.
    """

    name: str
    runbook: str
    a: Nature
    b: Nature = lambda moment: None
    pace: float = 1.0

    def rules(self, seed: int) -> Mapping[str, Callable[[], Rule]]:
        """Return for each role what makes one arm's provider of that role."""
        return {
            "a": lambda: _rule(self.a, f"{seed} a", 1.0),
            "b": lambda: _rule(self.b, f"{seed} b", self.pace),
        }


def _rule(nature: Nature, seed: str, pace: float) -> Rule:
    seen: Counter[str] = Counter()

    def rule(call: Call) -> Play:
        prompt = head(asked(call))
        seen[prompt] += 1
        luck = Random(f"{seed} {prompt} {seen[prompt]}")
        fault = nature(Moment(call.at, Random(f"{seed} {prompt}").random(), luck.random()))
        low, high = fault.seconds if fault else (ANSWER[0] * pace, ANSWER[1] * pace)
        play = fault.play if fault else faults.ok(answer_of(asked(call)))
        return faults.capacity(ENDLESS, luck.uniform(low, high), then=play)

    return rule


# ── Natures ───────────────────────────────────────────────────────────────────────────────────────


def sometimes(share: float, fault: Fault) -> Nature:
    """A share of the calls fails; the same prompt, asked again, need not."""
    return lambda moment: fault if moment.luck < share else None


def prompts(share: float, fault: Fault) -> Nature:
    """A share of the prompts fails there, however often they are asked."""
    return lambda moment: fault if moment.prompt < share else None


def spells(lasting: float, every: float, fault: Fault) -> Nature:
    """Every so many seconds everything fails for a while."""
    return lambda moment: fault if moment.at % every < lasting else None


def then(before: Nature, after: Nature) -> Nature:
    """One nature in the first half, another in the second."""
    return lambda moment: (before if moment.at < HALF else after)(moment)


def well(moment: Moment) -> None:
    """Nothing fails."""


ERROR = Fault(faults.status(500))
GATEWAY = Fault(faults.status(504), SLOW)
BUSY = Fault(faults.status(503))
RESET = Fault(faults.reset())
GARBAGE = Fault(faults.malformed(0), ANSWER)
HANG = Fault(faults.silence())

WORLDS = (
    World(name="nothing fails", runbook="-", a=well),
    World(name="passing 500s", runbook="again at once: right", a=sometimes(0.10, ERROR)),
    World(
        name="passing resets, B slow",
        runbook="again at once: right",
        a=sometimes(0.10, RESET),
        pace=8.0,
    ),
    World(name="spells of 503", runbook="failover: right", a=spells(2.0, 12.0, BUSY)),
    World(
        name="500s, always for the same prompts",
        runbook="again at once: in vain",
        a=prompts(0.12, ERROR),
    ),
    World(
        name="504s after a second, same prompts",
        runbook="again at once: in vain",
        a=prompts(0.08, GATEWAY),
    ),
    World(
        name="malformed, always for the same prompts",
        runbook="again at once: in vain",
        a=prompts(0.12, GARBAGE),
    ),
    World(name="short spells of 500", runbook="again at once: in vain", a=spells(0.6, 4.0, ERROR)),
    World(
        name="503s that pass at once, B bad",
        runbook="failover: wrong",
        a=sometimes(0.10, BUSY),
        b=sometimes(0.40, GATEWAY),
        pace=4.0,
    ),
    World(
        name="hangs that pass at once, B bad",
        runbook="failover: wrong",
        a=sometimes(0.05, HANG),
        b=sometimes(0.40, GATEWAY),
        pace=4.0,
    ),
    World(
        name="500s: same prompts, then passing",
        runbook="in vain, then right (B fails then)",
        a=then(prompts(0.12, ERROR), sometimes(0.12, ERROR)),
        b=then(well, sometimes(0.5, GATEWAY)),
    ),
    World(
        name="500s: passing, then same prompts",
        runbook="right, then in vain",
        a=then(sometimes(0.12, ERROR), prompts(0.12, ERROR)),
    ),
)
