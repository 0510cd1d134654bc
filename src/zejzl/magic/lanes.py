"""What stands before each provider: its lane, the permits to enter it, and those who wait.

Values and state only; who decides is `zejzl.magic.gate`.
"""

from dataclasses import dataclass
from typing import Protocol

from zejzl.magic.breakers import CircuitBreaker
from zejzl.policies.admission import Criticality, Limiter, loyalty
from zejzl.policies.boost import Lengths
from zejzl.policies.breaker import Refused
from zejzl.policies.context import ContextLimit

MOST_MODELS = 1_000  # of a provider that are told apart
FOREVER = float("inf")


class Waiter(Protocol):
    """Somebody in line for a place."""

    def grant(self, lane: "Lane") -> bool:
        """Hand over a place that has already been taken; False: it comes too late."""

    def look_again(self) -> None:
        """Say that something else has changed."""


class Full(Refused):
    """Refused for want of a place."""

    __slots__ = ()


class Raised(Refused):
    """Refused because only critical work passes."""

    __slots__ = ()


class Lane:
    """What is known of one provider beside its breakers.

    Attributes:
        name: The provider's.
        limiter: How many of its calls may be under way, and who waits.
        answers: How often it has answered.
        lengths: Tokens of its last answers.
    """

    __slots__ = ("_contexts", "answers", "lengths", "limiter", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.limiter: Limiter[Waiter] = Limiter()
        self.answers = 0
        self.lengths = Lengths()
        self._contexts: dict[str, ContextLimit] = {}

    def context(self, model: str) -> ContextLimit:
        """Return what is known of the longest prompt one of its models takes."""
        if len(self._contexts) < MOST_MODELS:
            return self._contexts.setdefault(model, ContextLimit())
        return self._contexts.get(model) or ContextLimit()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the gate needs to know of a request.

    Attributes:
        criticality: Its class.
        share: Of its class's room, how much it may fill before its conversation is shed.
        streamed: Whether its answer comes in pieces.
    """

    criticality: Criticality = Criticality.NORMAL
    share: float = 1.0
    streamed: bool = False


_USUAL = {streamed: Asked(streamed=streamed) for streamed in (False, True)}


def asked_by(criticality: Criticality, conversation_id: str | None, *, streamed: bool) -> Asked:
    """Return what the gate needs to know; most calls are alike."""
    if criticality is Criticality.NORMAL and conversation_id is None:
        return _USUAL[streamed]
    return Asked(criticality, loyalty(conversation_id), streamed)


class Permit:
    """Leave to call a provider once; it goes back to the gate with the call's end.

    Attributes:
        token: The breaker's.
        placed: Whether it holds one of its lane's places; a probe does not.
        crowd: How many held one when this was given, itself included.
        started: When the call began.
        late_at: When the call becomes late.
        late: Whether it did.
        tempo: What is known of the pace of such answers there.
    """

    __slots__ = (
        "breaker",
        "crowd",
        "lane",
        "late",
        "late_at",
        "placed",
        "started",
        "tempo",
        "token",
    )

    def __init__(
        self, breaker: CircuitBreaker, lane: Lane, token: int, placed: bool, streamed: bool
    ) -> None:
        self.breaker = breaker
        self.lane = lane
        self.token = token
        self.placed = placed
        self.crowd = lane.limiter.in_flight
        self.tempo = breaker.tempo(streamed)
        self.started = 0.0
        self.late_at = FOREVER
        self.late = False

    @property
    def is_open(self) -> bool:
        """Whether the call's end has not been told yet."""
        return self.placed or self.breaker.rule.probing(self.token)

    @property
    def streamed(self) -> bool:
        """Whether the answer comes in pieces."""
        return self.tempo is self.breaker.tempo(True)
