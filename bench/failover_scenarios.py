"""Sixteen public failover scenarios, written from their description, with its timings.

One primary and one fallback, both of which would say the same sixty words. Each scenario is seen
from two sides: what the caller got, and what the providers' logs hold. Figures that a scenario
limits decide; "calls" are requests at a provider, "early" those inside a wait it had asked for,
"open" those that were still open when the caller had his answer, seconds are the caller's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias

from zejzl.errors import ContentFiltered, ContextOverflow, Incomplete, ZejzlError
from zejzl.testing import CANONICAL, faults
from zejzl.testing.behaviours import Script

Limits: TypeAlias = Mapping[str, float]

ASKED = "what do rivers carry?"
OTHER = "I beg to differ."
DOWN, UP, END = 10.5, 70.5, 110.0  # seconds of the sixty seconds' outage, and of its scenario
SOON = 1.5  # seconds that finding out, and asking somebody else, may take beyond a limit
ONCE_EACH: Limits = {"primary calls": 1, "fallback calls": 1}
TWICE: Limits = {"primary calls": 2, "fallback calls": 0}  # the same provider once more
TRIES: Limits = {"primary calls": 3, "fallback calls": 1}  # a call, two retries, one fallback


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What the primary does, and what has to come of it.

    Attributes:
        number: Of the sixteen.
        name: What is wrong; scenarios of one number pass together.
        variant: Which reading of it.
        primary: Makes its script.
        fallback: Makes the fallback's.
        ways: Streamed, plain or both.
        error: What is to be raised; None: an answer is wanted.
        answers: What is the right one.
        allow_restart: Whether the caller of a stream can discard what he has.
        most: Upper limits of figures, whatever the settings.
        patient: Those with `patience=3` in addition, or in their place.
        least: Lower limits with `patience=3`.
        spaced: Whether one request a second is asked until `END`, in place of one alone.
        peer: Whether it is the reading that a client without a fallback is asked.
    """

    number: int
    name: str
    primary: Callable[[], Script]
    variant: str = ""
    fallback: Callable[[], Script] = faults.ok
    ways: tuple[bool, ...] = (True, False)
    error: type[ZejzlError] | None = None
    answers: tuple[str, ...] = (CANONICAL,)
    allow_restart: bool = False
    most: Limits = field(default_factory=dict)
    patient: Limits = field(default_factory=dict)
    least: Limits = field(default_factory=dict)
    spaced: bool = False
    peer: bool = True

    @property
    def title(self) -> str:
        return f"{self.number} {self.name}" + (f": {self.variant}" if self.variant else "")

    def missed(self, figures: Limits, *, patient: bool, stream: bool) -> tuple[str, ...]:
        """Return the figures that do not keep their limits; none may be wrong."""
        most = _of_way({**self.most, **(self.patient if patient else {})}, stream)
        least = {"right %": 100.0, **(self.least if patient else {})}
        return (
            *(name for name, limit in most.items() if figures[name] > limit),
            *(name for name, limit in least.items() if figures[name] < limit),
        )


def _of_way(limits: Limits, stream: bool) -> Limits:
    """Return the limits; a name that ends in ", streamed" or ", plain" is of that way alone."""
    own, others = (", streamed", ", plain") if stream else (", plain", ", streamed")
    return {
        name.removesuffix(own): limit for name, limit in limits.items() if not name.endswith(others)
    }


def waits(first: float, plain: float) -> Limits:
    """Return the seconds that a limit of ours may keep a caller waiting."""
    return {"seconds, streamed": first + SOON, "seconds, plain": plain + SOON, "open": 0}


def slow() -> Script:
    return faults.slow_first_token(20.0)


def down() -> Script:
    return faults.outage(DOWN, UP, faults.overloaded())


SCENARIOS = (
    Scenario(
        number=1,
        name="429 with Retry-After 2",
        primary=lambda: [faults.rate_limited(2), faults.ok()],
        most={"early": 0, "primary calls": 2, "fallback calls": 1, "seconds": SOON},
        patient={**TWICE, "seconds": 2.6},
        least={"seconds": 2.0},
    ),
    Scenario(
        number=2,
        name="429 for ever",
        variant="each tells to wait for 2 s",
        primary=lambda: faults.rate_limited(2),
        most={"early": 0, **TRIES, "seconds": SOON},
        patient={"seconds": 3.0 + SOON},
    ),
    Scenario(
        number=2,
        name="429 for ever",
        variant="nothing is told",
        primary=faults.rate_limited,
        most={**TRIES, "seconds": SOON},
        patient={"seconds": 3.0 + SOON},
        peer=False,
    ),
    Scenario(
        number=3,
        name="one 500",
        primary=lambda: [faults.status(500), faults.ok()],
        most={**TWICE, "seconds": SOON},
    ),
    Scenario(
        number=4,
        name="503 for ever",
        primary=faults.overloaded,
        most={**TRIES, "seconds": SOON},
        patient={"seconds": 3.0 + SOON},
    ),
    Scenario(
        number=5,
        name="reset before headers",
        variant="once",
        primary=lambda: [faults.reset(), faults.ok()],
        most={**TWICE, "seconds": SOON},
    ),
    Scenario(
        number=5,
        name="reset before headers",
        variant="for ever",
        primary=faults.reset,
        most={**TRIES, "seconds": SOON},
        patient={"seconds": 3.0 + SOON},
        peer=False,
    ),
    Scenario(
        number=6,
        name="silent provider",
        primary=faults.silence,
        most={**ONCE_EACH, **waits(10.0, 30.0)},
    ),
    Scenario(
        number=7,
        name="first token after 20 s",
        primary=slow,
        # A plain caller waits for it: that is less than a plain answer may take.
        most={**ONCE_EACH, **waits(10.0, 20.0)},
    ),
    Scenario(
        number=8,
        name="stream cut at 40 of 60 tokens",
        primary=lambda: faults.cut(40),
        most={**TRIES, "seconds": SOON},
        patient={"seconds": 3.0 + SOON},
    ),
    Scenario(
        number=8,
        name="stream cut at 40 of 60 tokens",
        variant="the fallback says something else",
        primary=lambda: faults.cut(40),
        fallback=lambda: faults.ok(OTHER),
        ways=(True,),
        error=Incomplete,
        most={**TRIES, "seconds": 3.0 + SOON},
        peer=False,
    ),
    Scenario(
        number=8,
        name="stream cut at 40 of 60 tokens",
        variant="the fallback says something else, and a restart is allowed",
        primary=lambda: faults.cut(40),
        fallback=lambda: faults.ok(OTHER),
        ways=(True,),
        answers=(OTHER,),
        allow_restart=True,
        most={**TRIES, "seconds": 3.0 + SOON},
        peer=False,
    ),
    Scenario(
        number=9,
        name="stream stalls at 20",
        primary=lambda: faults.stall(20),
        most={**ONCE_EACH, **waits(10.0, 30.0)},
    ),
    Scenario(
        number=10,
        name="malformed SSE event",
        primary=lambda: faults.malformed(20),
        most={**TRIES, "seconds": SOON},
        patient={"seconds": 3.0 + SOON},
    ),
    Scenario(
        number=11,
        name="no [DONE]",
        primary=faults.no_sentinel,
        ways=(True,),
        most={"primary calls": 1, "fallback calls": 0, "seconds": SOON},
    ),
    Scenario(
        number=12,
        name="context_length_exceeded",
        primary=faults.context_overflow,
        most={**ONCE_EACH, "seconds": SOON},
        peer=False,
    ),
    Scenario(
        number=12,
        name="context_length_exceeded",
        variant="by both",
        primary=faults.context_overflow,
        fallback=faults.context_overflow,
        error=ContextOverflow,
        most={**ONCE_EACH, "seconds": SOON},
    ),
    Scenario(
        number=13,
        name="content filter",
        primary=faults.content_filtered,
        error=ContentFiltered,
        most={"primary calls": 1, "fallback calls": 0, "seconds": SOON},
    ),
    Scenario(
        number=14,
        name="cut stream whose fallback rejects an assistant prefill",
        primary=lambda: faults.cut(40),
        fallback=faults.rejects_prefill,
        ways=(True,),
        most={**TRIES, "prefills": 0, "seconds": SOON},
        patient={"seconds": 3.0 + SOON},
    ),
    Scenario(
        number=15,
        name="primary down 60 s, then well",
        primary=down,
        spaced=True,
        most={"calls in the outage": 15, "back s": 30, "seconds": SOON},
        # Who is patient asks it more often, as each probe may be the one that finds it well.
        patient={"seconds": 3.0 + SOON},
    ),
    Scenario(
        number=16,
        name="failover accounting",
        primary=faults.overloaded,
        most={"misreported": 0, **TRIES},
    ),
    Scenario(
        number=16,
        name="failover accounting",
        variant="of a stream that was cut",
        primary=lambda: faults.cut(40),
        ways=(True,),
        most={"misreported": 0, **TRIES},
        peer=False,
    ),
)


def arrivals(scenario: Scenario) -> list[float]:
    """Return when each request comes."""
    if not scenario.spaced:
        return [0.0]
    begins = Random(scenario.number).random()
    return [begins + second for second in range(int(END))]
