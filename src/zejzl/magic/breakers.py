"""Circuit breakers as programs use them: a clock inside, an `await` around, names above.

`CircuitBreaker` puts a clock and a call around the pure `policies.breaker.Breaker`. `Breakers`
keeps one for every component and a child for every provider, model and tool of it, so that one
bad vendor does not silence the others; a component is as badly off as its worst child.
"""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from zejzl.clock import Clock, SystemClock
from zejzl.errors import CircuitOpen, Permanent, Rejected, shorten, words
from zejzl.events import utc
from zejzl.policies.breaker import Breaker, Pin, Refused, State, Transition
from zejzl.policies.breaker_rules import BreakerRules
from zejzl.policies.window import Latencies

if TYPE_CHECKING:
    from zejzl.magic.lanes import Permit

P = ParamSpec("P")
T = TypeVar("T")

CircuitBreakerState = State
MOST_CHILDREN = 1_000  # of a component that anybody may name: models, tools
LEAST_LEASE = 1.0
LATE = 1.5  # times the learned p95
PATIENT = 1.01
WORSE = 3.0
FORGETFUL = 1.001
LEAST_LATE = 0.02  # seconds: below that it is this process that is late

# Stateless; ones of its own would weigh on every breaker.
_SYSTEM_CLOCK: Final = SystemClock()
_SYSTEM_NOW: Final = _SYSTEM_CLOCK.now

# Breaker and token of the `async with` blocks this task is in, innermost last: a breaker entered
# by many tasks at once must not mix their tokens up, nor one task those of many breakers.
_ENTERED: ContextVar[tuple[tuple["CircuitBreaker", int], ...]] = ContextVar(
    "zejzl_entered_breakers", default=()
)


@dataclass(frozen=True, slots=True)
class CircuitBreakerConfig:
    """When a breaker opens.

    Attributes:
        failure_threshold: Failures in a row that open it.
        recovery_timeout: Seconds until it lets a probe through.
        expected_exception: What counts as a failure; anything else counts nothing. What is no
            `Exception` never does: a cancelled call says nothing about the callee.
        rules: The same, as the policy reads it.
    """

    failure_threshold: int = 3
    recovery_timeout: float = 30.0
    expected_exception: tuple[type[BaseException], ...] = (Exception,)
    rules: BreakerRules = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rules = BreakerRules(
            failure_threshold=self.failure_threshold, recovery_timeout=self.recovery_timeout
        )
        expected = self.expected_exception
        if isinstance(expected, type):
            expected = (expected,)
        if not isinstance(expected, tuple) or not all(
            isinstance(kind, type) and issubclass(kind, BaseException) for kind in expected
        ):
            raise TypeError(f"expected_exception must be classes of exceptions, not {expected!r}")
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "expected_exception", expected)


DEFAULTS: Final = {
    "ai_provider": CircuitBreakerConfig(3, 30.0),
    "persistence": CircuitBreakerConfig(5, 60.0),
    "agent_coordinator": CircuitBreakerConfig(2, 15.0),
    "tool_call": CircuitBreakerConfig(3, 45.0),
}


@dataclass(slots=True, eq=False)
class Tempo:
    """How fast one kind of answer of one callee comes.

    Attributes:
        latencies: Seconds of the last good ones.
        flying: Calls under way that can become late and are not yet, oldest first.
        late_after: Seconds after which a call is late; None while too little is known.
    """

    latencies: Latencies = field(default_factory=Latencies)
    flying: dict["Permit", None] = field(default_factory=dict)
    late_after: float | None = None
    _best: float = float("inf")

    def swift(self, seconds: float) -> bool:
        """Whether an answer came as fast as in this callee's best days, as far as is known."""
        if self._best < float("inf"):
            return seconds <= LATE * self._best
        seen = self.latencies.ordered
        return not seen or seconds <= WORSE * seen[0]

    def push(self, seconds: float) -> None:
        """Take in how long a good answer took.

        As far as it goes: one answer that took an hour does not make the next hour usual. What
        is late follows the learned p95 down at once, but up only by 1 % an answer, or a queue
        that grows slowly would never be noticed.
        """
        known, latencies = self.late_after, self.latencies
        latencies.push(seconds if known is None or seconds < known else known)
        p95 = latencies.quantile(0.95)
        if p95 is None:
            return
        best = self._best * FORGETFUL
        self._best = best = p95 if p95 < best else best
        found = LATE * (p95 if p95 < WORSE * best else WORSE * best)
        if found < LEAST_LATE:
            found = LEAST_LATE
        if known is not None and found > known * PATIENT:
            found = known * PATIENT
        self.late_after = found


class CircuitBreaker:
    """Stops calling something that keeps failing.

    Attributes:
        config: When it opens.
        name: What it guards.
        rule: The policy itself.
        success_count: Good calls, in all.
        tempos: Of plain calls and of streams, where latencies are learned.
        last_error: What the last failure that was reported said.
        on_change: Is told of each transition, after the decision that it came from.
    """

    __slots__ = (
        "_clock",
        "_failed_at",
        "_now",
        "_usual_rules",
        "config",
        "last_error",
        "name",
        "on_change",
        "rule",
        "success_count",
        "tempos",
    )

    def __init__(
        self,
        config: CircuitBreakerConfig | None = None,
        *,
        name: str = "breaker",
        rules: BreakerRules | None = None,
        clock: Clock | None = None,
        rng: Random | None = None,
        on_change: Callable[["CircuitBreaker", Transition], None] | None = None,
    ) -> None:
        self.config = config or CircuitBreakerConfig()
        self.name = name
        self._usual_rules = rules = rules or self.config.rules
        self.rule = Breaker(rules, (rng or Random()) if rules.jitter else None)
        self._clock = clock or _SYSTEM_CLOCK
        self._now = _SYSTEM_NOW if clock is None else clock.now
        self.tempos: tuple[Tempo, ...] = ()
        self.on_change = on_change
        self.success_count = 0
        self._failed_at: float | None = None
        self.last_error = ""

    @property
    def state(self) -> State:
        return self.rule.state

    @property
    def failure_count(self) -> int:
        """Failures in a row since the last good call."""
        return self.rule.consecutive_failures

    @property
    def last_ok(self) -> bool:
        """Whether the newest counted outcome was good; so too when there was none."""
        return not self.rule.consecutive_failures

    @property
    def last_failure(self) -> datetime | None:
        """When the last failure was reported, aware UTC; None: there was none."""
        return None if self._failed_at is None else utc(self._failed_at)

    # Calling --------------------------------------------------------------------------------

    async def call(self, fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `fn(*args, **kwargs)` and learn from how it ends.

        Raises:
            CircuitOpen: If calls are paused; `retry_after` says for how long.
        """
        rule = self.rule
        token = rule.flowing
        if token < 0:
            token = self._ask()
        try:
            result = await fn(*args, **kwargs)
        except BaseException as failure:
            self._ended(token, failure)
            raise
        if rule.ok_while_closed(token):
            self.success_count += 1
        else:
            self.ok(token)
        return result

    async def __aenter__(self) -> "CircuitBreaker":
        _ENTERED.set((*_ENTERED.get(), (self, self._ask())))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        entered = _ENTERED.get()
        for place in reversed(range(len(entered))):
            breaker, token = entered[place]
            if breaker is self:
                _ENTERED.set(entered[:place] + entered[place + 1 :])
                if failure is None:
                    self.ok(token)
                else:
                    self._ended(token, failure)
                return
        # Left by another task than entered it, as an async generator's last breath may be: the
        # token is out of reach, and a probe's place comes free when its lease ends.

    def _ask(self) -> int:
        """Return a token, or raise why there is none."""
        rule = self.rule
        found = rule.try_acquire(self._now())
        if rule.news is not None:
            self.tell()
        if isinstance(found, Refused):
            seen = self.last_error if rule.consecutive_failures else ""
            raise CircuitOpen(self.name, found[0], found[1], seen)
        return found

    def _ended(self, token: int, failure: BaseException) -> None:
        mine = isinstance(failure, Exception) and not isinstance(failure, (Rejected, Permanent))
        if mine and isinstance(failure, self.config.expected_exception):
            self.fail(token, failure)
        else:
            self.void(token)

    # Reporting ------------------------------------------------------------------------------

    def ok(self, token: int) -> None:
        """The call went well."""
        self.success_count += 1
        if not self.rule.ok_while_closed(token):
            self.rule.ok(token, self._now())
            self.tell()

    def fail(self, token: int, failure: BaseException) -> None:
        """The call failed, and that counts."""
        self._failed_at = self._clock.wall()
        self.last_error = shorten(f"{type(failure).__name__}: {words(failure)}")
        self.rule.fail(token, self._now(), self.last_error)
        self.tell()

    def void(self, token: int) -> None:
        """The call says nothing about the callee."""
        self.rule.void(token)
        self.tell()

    def pause(self, token: int, seconds: float, reason: str) -> None:
        """The callee asked to be left alone for `seconds`; that is no failure."""
        self.rule.pause(token, self._now(), seconds, reason)
        self.tell()

    def reset(self) -> None:
        """Close it, and forget failures, pin and pause."""
        self.rule.reset(self._now())
        self.tell()

    def tell(self) -> None:
        """Hand the transitions that are not yet told to `on_change`."""
        news, self.rule.news = self.rule.news, None
        if self.on_change is not None:
            for transition in news or ():
                self.on_change(self, transition)

    # Looking --------------------------------------------------------------------------------

    def tempo(self, streamed: bool) -> Tempo:
        """Return what is known of the pace of plain answers, or of streams' first pieces."""
        if not self.tempos:
            self.tempos = (Tempo(), Tempo())
        return self.tempos[streamed]

    def latency(self, share: float) -> float | None:
        """Return a quantile of the last 256 good answers in seconds; None below 20 of them.

        Of plain answers or of streams, whichever take longer.
        """
        known = [tempo.latencies.quantile(share) for tempo in self.tempos]
        return max((seconds for seconds in known if seconds is not None), default=None)

    def lease(self) -> float:
        """Return the seconds a probe may stay silent before its place may be taken.

        Twice what is usual, as far as that is known; the policy doubles what proves too short.
        """
        return max(LEAST_LEASE, 2.0 * (self.latency(0.99) or 0.0))

    def available(self) -> bool:
        """Whether a call would flow now: closed, and not paused."""
        return self.rule.closed and self.rule.wait(self._now()) <= 0.0

    def harden(self) -> None:
        """Open twice as soon from here on."""
        if self.rule.rules is self._usual_rules:
            self.rule.rules = self._usual_rules.hardened()

    def relax(self) -> None:
        """Open as soon as usual again."""
        self.rule.rules = self._usual_rules

    def badness(self) -> tuple[int, int]:
        """Return how badly off it is, to be compared: more is worse."""
        rule = self.rule
        if rule.pin is Pin.DISABLED:
            rank = 0
        elif rule.pin is Pin.FORCED_OPEN or self.state is State.OPEN:
            rank = 3
        elif self.state is State.HALF_OPEN:
            rank = 2
        else:
            rank = int(rule.paused_until > self._now())
        return rank, rule.consecutive_failures

    def get_status(self) -> dict[str, object]:
        """Return the state for people and programs: times in seconds, `last_failure` ISO 8601."""
        rule = self.rule
        return {
            "state": rule.state.value,
            "failure_count": rule.consecutive_failures,
            "success_count": self.success_count,
            "last_failure": self.last_failure.isoformat() if self.last_failure else None,
            "last_error": self.last_error,
            "retry_after": round(rule.wait(self._now()), 3),
            "paused": rule.paused_until > self._now(),
            "pin": rule.pin.value,
            "generation": rule.generation,
            "refused": rule.refused,
            "failure_threshold": self.config.failure_threshold,
            "recovery_timeout": self.config.recovery_timeout,
        }


class Breakers:
    """One breaker for every component, and a child for each of what it calls.

    Attributes:
        all: Every breaker by its name, "component" or "component:child".
    """

    def __init__(
        self,
        components: dict[str, CircuitBreakerConfig] | None,
        clock: Clock,
        rng: Random,
        on_change: Callable[[CircuitBreaker, Transition], None],
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._on_change = on_change
        self._children: dict[str, dict[str, CircuitBreaker]] = {}
        self.all: dict[str, CircuitBreaker] = {}
        for name, config in (DEFAULTS | (components or {})).items():
            if not isinstance(config, CircuitBreakerConfig):
                raise TypeError(f"{name} needs a CircuitBreakerConfig, not {config!r}")
            self.all[name] = CircuitBreaker(
                config, name=name, clock=clock, rng=rng, on_change=on_change
            )
            self._children[name] = {}

    def child(self, component: str, name: str) -> CircuitBreaker:
        """Return the breaker of one callee of a component; made at its first call.

        When there are too many, a model ("provider/model") shares its provider's, and whatever
        else is not registered shares the component's own.
        """
        children = self._children[component]
        found = children.get(name)
        if found is None:
            if len(children) >= MOST_CHILDREN:
                provider, _, model = name.partition("/")
                if model:
                    return self.child(component, provider)
                if component != "ai_provider":
                    return self.all[component]
            config = self.all[component].config
            found = CircuitBreaker(
                config,
                name=f"{component}:{name}",
                rules=BreakerRules(
                    failure_threshold=config.failure_threshold,
                    recovery_timeout=config.recovery_timeout,
                    first_probe_after=min(0.5, config.recovery_timeout),
                    jitter=0.1,
                    failure_ratio=0.5,
                ),
                clock=self._clock,
                rng=self._rng,
                on_change=self._on_change,
            )
            children[name] = self.all[found.name] = found
        return found

    def children(self, component: str) -> dict[str, CircuitBreaker]:
        """Return a component's children by their own names."""
        return self._children.get(component, {})

    def forget(self, component: str, name: str) -> None:
        """Drop a child that will not be called again, with those of its models."""
        children = self._children[component]
        for key in [key for key in children if key == name or key.startswith(f"{name}/")]:
            del self.all[children.pop(key).name]

    def status(self, name: str) -> dict[str, object] | None:
        """Return a breaker's status, a component's being its worst child's; None: no such name."""
        own = self.all.get(name)
        if own is None:
            return None
        family = [own, *self.children(name).values()]
        worst = max(family, key=CircuitBreaker.badness)
        return worst.get_status() | ({"worst": worst.name} if worst is not own else {})
