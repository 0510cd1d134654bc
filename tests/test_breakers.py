"""Circuit breakers as programs use them: calls, blocks, tasks, and the registry of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zejzl.errors import (
    BadRequest,
    BusNotRunning,
    CircuitOpen,
    NoSuchProvider,
    ProviderError,
    ServerError,
    shorten,
)
from zejzl.magic.breakers import (
    DEFAULTS,
    MOST_CHILDREN,
    Breakers,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerState,
)
from zejzl.policies.breaker import Pin, State, Transition
from zejzl.policies.breaker_rules import BreakerRules
from zejzl.testing import FakeClock

WALL = 1_700_000_000.0


async def well(answer: str = "well") -> str:
    return answer


async def ill(failure: BaseException | None = None) -> str:
    raise failure or ValueError("it broke")


def breaker_of(
    clock: FakeClock | None = None, threshold: int = 3, timeout: float = 30.0
) -> CircuitBreaker:
    return CircuitBreaker(CircuitBreakerConfig(threshold, timeout), clock=clock or FakeClock())


async def fails(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(ValueError, match="it broke"):
            await breaker.call(ill)


async def half_open(clock: FakeClock) -> CircuitBreaker:
    """Return a breaker whose next call will be its probe."""
    breaker = breaker_of(clock)
    await fails(breaker, 3)
    await clock.advance(30.0)
    return breaker


# Configuration


def test_a_config_without_arguments_is_three_failures_and_thirty_seconds() -> None:
    config = CircuitBreakerConfig()

    assert (config.failure_threshold, config.recovery_timeout) == (3, 30.0)
    assert config.expected_exception == (Exception,)
    assert config == CircuitBreakerConfig(3, 30.0, (Exception,))


def test_one_expected_exception_needs_no_tuple() -> None:
    config = CircuitBreakerConfig(expected_exception=OSError)  # type: ignore[arg-type]

    assert config.expected_exception == (OSError,)


@pytest.mark.parametrize(
    "wrong",
    [{"failure_threshold": 0}, {"recovery_timeout": 0.0}, {"recovery_timeout": True}],
    ids=str,
)
def test_a_config_that_cannot_be_is_a_mistake_at_once(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CircuitBreakerConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [5, None, "OSError", (OSError, 5), (OSError, str)], ids=repr)
def test_what_is_expected_are_exceptions(wrong: Any) -> None:
    with pytest.raises(TypeError, match="expected_exception"):
        CircuitBreakerConfig(expected_exception=wrong)


def test_a_component_is_configured_by_a_config_and_nothing_else() -> None:
    with pytest.raises(TypeError, match="search needs a CircuitBreakerConfig"):
        registry(search={"failure_threshold": 3})  # type: ignore[arg-type]


async def test_a_breaker_needs_no_arguments() -> None:
    breaker = CircuitBreaker()

    assert breaker.config == CircuitBreakerConfig()
    assert await breaker.call(well) == "well"


# Calling


async def test_a_call_is_handed_through() -> None:
    async def join(*words: str, end: str) -> str:
        return " ".join(words) + end

    assert await breaker_of().call(join, "a", "b", end=".") == "a b."


async def test_the_call_that_trips_it_raises_its_own_exception() -> None:
    breaker = breaker_of(threshold=2)
    await fails(breaker)
    last = ValueError("the last straw")

    with pytest.raises(ValueError) as raised:
        await breaker.call(ill, last)

    assert raised.value is last
    assert breaker.state is CircuitBreakerState.OPEN
    assert breaker.state.value == "open"


async def test_a_refused_call_is_never_made_and_says_for_how_long() -> None:
    clock = FakeClock()
    breaker = breaker_of(clock)
    await fails(breaker, 3)
    await clock.advance(10.0)
    made: list[str] = []

    async def call() -> None:
        made.append("made")

    with pytest.raises(CircuitOpen) as refused:
        await breaker.call(call)

    assert (made, refused.value.retry_after, refused.value.name) == ([], 20.0, "breaker")
    assert str(refused.value) == (
        "circuit breaker of 'breaker' is open: it keeps failing, the last time with: "
        "ValueError: it broke; try again in 20.0 s"
    )


async def test_on_its_own_it_waits_exactly_its_recovery_timeout() -> None:
    clock = FakeClock()
    breaker = breaker_of(clock, timeout=8.0)
    await fails(breaker, 3)

    for _ in range(100):  # no crowd shortens it
        with pytest.raises(CircuitOpen):
            await breaker.call(well)
    await clock.advance(7.75)
    with pytest.raises(CircuitOpen):
        await breaker.call(well)
    await clock.advance(0.25)

    assert await breaker.call(well) == "well"
    assert (breaker.state, breaker.failure_count) == (State.CLOSED, 0)


async def test_on_its_own_only_failures_in_a_row_trip_it() -> None:
    breaker = breaker_of()

    for _ in range(50):
        await fails(breaker, 2)
        await breaker.call(well)

    assert (breaker.state, breaker.failure_count) == (State.CLOSED, 0)


async def test_a_failed_probe_opens_it_for_as_long_again() -> None:
    clock = FakeClock()
    breaker = await half_open(clock)

    await fails(breaker)

    assert breaker.state is State.OPEN
    assert breaker.get_status()["retry_after"] == 30.0


async def test_when_it_is_due_one_of_a_thousand_callers_probes() -> None:
    clock = FakeClock()
    breaker = await half_open(clock)
    made: list[int] = []

    async def call(number: int) -> None:
        made.append(number)
        await clock.sleep(1.0)

    calls = [asyncio.create_task(breaker.call(call, number)) for number in range(1000)]
    await clock.advance(0.5)
    under_way = len(made)
    await clock.advance(0.5)
    ends = await asyncio.gather(*calls, return_exceptions=True)

    assert under_way == 1
    assert sum(isinstance(end, CircuitOpen) for end in ends) == 999
    assert breaker.state is State.CLOSED


async def test_a_probe_may_take_as_long_as_the_recovery_timeout() -> None:
    clock = FakeClock()
    breaker = await half_open(clock)

    async def slow() -> None:
        await clock.sleep(20.0)

    probe = asyncio.create_task(breaker.call(slow))
    await clock.advance(19.0)
    with pytest.raises(CircuitOpen) as refused:
        await breaker.call(well)
    await clock.advance(1.0)
    await probe

    assert refused.value.retry_after == 11.0
    assert breaker.state is State.CLOSED


@pytest.mark.parametrize(
    "failure",
    [
        BadRequest("no such model"),
        NoSuchProvider("a", ()),
        CircuitOpen("inner", 5.0),
        BusNotRunning("not running"),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_a_callers_mistake_and_an_inner_refusal_count_nothing(failure: Exception) -> None:
    clock = FakeClock()
    breaker, probing = breaker_of(clock), await half_open(clock)

    for which in [breaker] * 5 + [probing] * 5:
        with pytest.raises(type(failure)):
            await which.call(ill, failure)

    assert (breaker.state, breaker.failure_count) == (State.CLOSED, 0)
    assert probing.state is State.HALF_OPEN
    assert await probing.call(well) == "well"


async def test_only_what_is_expected_counts() -> None:
    config = CircuitBreakerConfig(2, 30.0, (OSError, LookupError))
    breaker = CircuitBreaker(config, clock=FakeClock())

    for failure in (ValueError(), TypeError(), KeyError(), TypeError(), ConnectionError()):
        with pytest.raises(type(failure)):
            await breaker.call(ill, failure)

    assert breaker.state is State.OPEN


async def test_our_own_transient_errors_count() -> None:
    breaker = breaker_of()

    for _ in range(3):
        with pytest.raises(ProviderError):
            await breaker.call(ill, ServerError("HTTP 500"))

    assert breaker.state is State.OPEN


# Cancelling


@pytest.mark.parametrize("expected", [(Exception,), (BaseException,), (asyncio.CancelledError,)])
@pytest.mark.parametrize("turns", range(6))
async def test_a_call_cancelled_anywhere_counts_nothing_and_gives_its_place_back(
    turns: int, expected: tuple[type[BaseException], ...]
) -> None:
    clock = FakeClock()
    config = CircuitBreakerConfig(1, 30.0, expected)
    breaker = CircuitBreaker(config, clock=clock)
    breaker.fail(breaker.rule.generation, ValueError("it broke"))
    await clock.advance(30.0)

    async def call() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    task = asyncio.create_task(breaker.call(call))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert breaker.state == ("half_open" if turns else "open")
    assert breaker.failure_count == 1
    assert await breaker.call(well) == "well"
    assert breaker.state == "closed"


@pytest.mark.parametrize("end", [KeyboardInterrupt, GeneratorExit, SystemExit])
async def test_what_is_no_exception_says_nothing_about_the_callee(
    end: type[BaseException],
) -> None:
    breaker = breaker_of(threshold=1)
    call = breaker.call(ill, end())

    with pytest.raises(end):
        call.send(None)

    assert (breaker.state, breaker.failure_count) == (State.CLOSED, 0)


STEPS = st.lists(
    st.one_of(
        st.just(("call", 0)),
        st.tuples(st.sampled_from(["ok", "fail", "cancel"]), st.integers(0, 5)),
        st.tuples(st.just("pass"), st.sampled_from([1, 5, 40])),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=150)
@given(STEPS)
def test_whatever_tasks_do_nothing_stays_behind(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        clock = FakeClock()
        breaker = breaker_of(clock, threshold=2, timeout=8.0)
        calls: list[tuple[asyncio.Future[None], asyncio.Task[None]]] = []
        for step, number in [*steps, *[("cancel", 0)] * len(steps)]:
            if step == "pass":
                await clock.advance(float(number))
            elif step == "call":
                gate = asyncio.get_running_loop().create_future()
                task = asyncio.create_task(breaker.call(_through, gate))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                if task.done():
                    assert isinstance(task.exception(), CircuitOpen)
                else:
                    calls.append((gate, task))
            elif calls:
                gate, task = calls.pop(number % len(calls))
                if step == "ok":
                    gate.set_result(None)
                elif step == "fail":
                    gate.set_exception(ValueError("it broke"))
                else:
                    task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() or task.exception() is None or step == "fail"

        if breaker.state is not State.CLOSED:
            await clock.advance(8.0)
        assert await breaker.call(well) == "well"
        assert breaker.state is State.CLOSED

    asyncio.run(run())


async def _through(gate: "asyncio.Future[None]") -> None:
    await gate


# Blocks


async def test_a_block_counts_as_a_call() -> None:
    clock = FakeClock()
    breaker = breaker_of(clock, threshold=1)

    async with breaker as entered:
        pass
    assert (entered, breaker.success_count) == (breaker, 1)

    with pytest.raises(ValueError):
        async with breaker:
            raise ValueError("it broke")
    assert breaker.state is State.OPEN

    with pytest.raises(CircuitOpen):
        async with breaker:
            pytest.fail("entered")

    await clock.advance(30.0)
    async with breaker:
        assert breaker.get_status()["state"] == "half_open"
    assert breaker.get_status()["state"] == "closed"


async def test_a_mistake_in_a_probing_block_gives_its_place_back() -> None:
    breaker = await half_open(FakeClock())

    with pytest.raises(BadRequest):
        async with breaker:
            raise BadRequest("no such model")

    async with breaker:
        pass
    assert breaker.state is State.CLOSED


async def test_a_probing_block_refuses_itself_and_loses_nothing() -> None:
    breaker = await half_open(FakeClock())

    with pytest.raises(CircuitOpen):
        async with breaker, breaker:
            pytest.fail("entered twice")

    async with breaker:
        pass
    assert breaker.state is State.CLOSED


async def test_nested_blocks_settle_innermost_first() -> None:
    outer, inner = breaker_of(threshold=1), breaker_of(threshold=1)

    async with outer:
        with pytest.raises(ValueError):
            async with outer, inner:
                raise ValueError("it broke")

    assert inner.state is State.OPEN
    assert outer.rule.late == 1  # the outermost block was of an earlier life by then


async def test_tasks_in_one_breaker_do_not_mix_their_tokens_up() -> None:
    clock = FakeClock()
    breaker = breaker_of(clock, threshold=1)

    async def block(seconds: float, failure: Exception | None = None) -> None:
        async with breaker:
            await clock.sleep(seconds)
            if failure is not None:
                raise failure

    early = asyncio.create_task(block(100.0))
    failing = asyncio.create_task(block(1.0, ValueError("it broke")))
    await clock.advance(31.0)
    probe = asyncio.create_task(block(100.0))
    await clock.advance(69.0)
    await early
    while_probing = breaker.state

    await clock.advance(31.0)
    await probe

    assert isinstance(failing.exception(), ValueError)
    assert (while_probing, breaker.rule.late) == (State.HALF_OPEN, 1)
    assert breaker.state is State.CLOSED


async def test_a_task_begun_in_a_block_has_blocks_of_its_own() -> None:
    breaker = await half_open(FakeClock())

    async def child() -> None:
        with pytest.raises(CircuitOpen):
            async with breaker:
                pytest.fail("entered")

    async with breaker:
        await asyncio.create_task(child())
        assert breaker.state == "half_open"

    assert breaker.state == "closed"


async def test_blocks_of_two_generators_in_one_task_may_end_in_any_order() -> None:
    first, second = breaker_of(), breaker_of()

    async def stream(breaker: CircuitBreaker) -> AsyncIterator[str]:
        async with breaker:
            yield "piece"
            if breaker is second:
                raise ValueError("it broke")

    one, two = stream(first), stream(second)
    await anext(one)
    await anext(two)
    with pytest.raises(StopAsyncIteration):
        await anext(one)
    with pytest.raises(ValueError):
        await anext(two)

    assert (first.success_count, first.failure_count) == (1, 0)
    assert (second.success_count, second.failure_count) == (0, 1)


async def test_a_block_left_by_another_task_settles_nothing_and_raises_nothing() -> None:
    clock = FakeClock()
    breaker = await half_open(clock)
    stack = AsyncExitStack()

    await asyncio.create_task(stack.enter_async_context(breaker))
    await stack.aclose()
    waits = breaker.get_status()["retry_after"]
    await clock.advance(30.0)

    assert (waits, await breaker.call(well)) == (30.0, "well")
    assert breaker.state is State.CLOSED


# Telling


async def test_each_edge_is_told_once_when_it_is_taken() -> None:
    clock = FakeClock()
    told: list[tuple[str, str, float]] = []

    def hear(breaker: CircuitBreaker, edge: Transition) -> None:
        assert breaker.state is edge.after
        told.append((breaker.name, edge.after.value, clock.now()))

    config = CircuitBreakerConfig(1, 30.0)
    breaker = CircuitBreaker(config, name="it", clock=clock, on_change=hear)

    async def slow() -> None:
        await clock.sleep(5.0)

    await fails(breaker)
    await clock.advance(40.0)
    probe = asyncio.create_task(breaker.call(slow))
    await clock.advance(5.0)
    await probe
    await fails(breaker)
    breaker.reset()

    assert told == [
        ("it", "open", 0.0),
        ("it", "half_open", 40.0),
        ("it", "closed", 45.0),
        ("it", "open", 45.0),
        ("it", "closed", 45.0),
    ]


async def test_a_block_tells_its_edge_when_it_begins() -> None:
    clock = FakeClock()
    told: list[State] = []
    config = CircuitBreakerConfig(1, 30.0)
    breaker = CircuitBreaker(config, clock=clock, on_change=lambda _, edge: told.append(edge.after))
    await fails(breaker)
    await clock.advance(30.0)

    async with breaker:
        inside = list(told)

    assert inside == [State.OPEN, State.HALF_OPEN]
    assert told == [*inside, State.CLOSED]


# Looking


async def test_the_status_of_a_breaker() -> None:
    clock = FakeClock(wall=WALL)
    breaker = breaker_of(clock)
    await breaker.call(well)
    await fails(breaker, 3)
    await clock.advance(10.0)
    with pytest.raises(CircuitOpen):
        await breaker.call(well)

    status = breaker.get_status()

    assert status == {
        "state": "open",
        "failure_count": 3,
        "success_count": 1,
        "last_failure": datetime.fromtimestamp(WALL, UTC).isoformat(),
        "last_error": "ValueError: it broke",
        "retry_after": 20.0,
        "paused": False,
        "pin": "none",
        "generation": 1,
        "refused": 1,
        "failure_threshold": 3,
        "recovery_timeout": 30.0,
    }


async def test_a_new_breaker_has_failed_never() -> None:
    status = breaker_of().get_status()

    assert (status["state"], status["last_failure"], status["retry_after"]) == ("closed", None, 0)


async def test_what_an_error_said_is_kept_on_one_short_line() -> None:
    breaker = breaker_of()

    with pytest.raises(ValueError):
        await breaker.call(ill, ValueError("x\n" * 10_000))

    assert breaker.last_error == shorten("ValueError: " + "x\n" * 10_000)
    assert "\n" not in breaker.last_error


async def test_a_failure_that_cannot_be_read_is_a_failure_all_the_same() -> None:
    class Unreadable(Exception):
        def __str__(self) -> str:
            raise AttributeError("no message")

    breaker = breaker_of(threshold=1)

    with pytest.raises(Unreadable):
        await breaker.call(ill, Unreadable())

    assert breaker.state is State.OPEN
    assert breaker.last_error == "Unreadable: it cannot be shown"


@pytest.mark.parametrize("how", ["call", "report"])
async def test_the_newest_outcome_is_remembered_however_it_was_reported(how: str) -> None:
    breaker = breaker_of()
    seen = [breaker.last_ok]
    await fails(breaker)
    seen.append(breaker.last_ok)
    if how == "call":
        await breaker.call(well)
    else:
        breaker.ok(breaker.rule.generation)
    seen.append(breaker.last_ok)

    assert seen == [True, False, True]


async def test_a_breaker_is_available_while_it_is_closed_and_not_paused() -> None:
    clock = FakeClock()
    breaker = breaker_of(clock)
    token = breaker.rule.generation
    seen = [breaker.available()]
    breaker.pause(token, 5.0, "429")
    seen.append(breaker.available())
    assert breaker.get_status()["paused"] is True
    await clock.advance(5.0)
    seen.append(breaker.available())
    for _ in range(3):
        breaker.fail(token, ValueError("it broke"))
    await clock.advance(1000.0)
    seen.append(breaker.available())
    breaker.rule.pin = Pin.DISABLED
    seen.append(breaker.available())

    assert seen == [True, False, True, False, True]


async def test_a_paused_call_is_refused_with_the_reason() -> None:
    breaker = breaker_of()
    breaker.pause(breaker.rule.generation, 5.0, "it asked for a pause of 5 s")

    with pytest.raises(CircuitOpen, match=r"a pause of 5 s; try again in 5\.0 s"):
        await breaker.call(well)


@pytest.mark.parametrize(
    ("seconds", "lease"),
    [(None, 1.0), (0.1, 1.0), (4.0, 8.0), (20.0, 40.0)],
    ids=["unknown", "quick", "slow", "slower than the recovery timeout"],
)
def test_a_lease_is_twice_what_is_usual(seconds: float | None, lease: float) -> None:
    breaker = breaker_of()

    for _ in range(19 if seconds is None else 20):
        breaker.tempo(False).push(seconds or 1.0)

    assert breaker.lease() == lease
    assert breaker.latency(0.5) == seconds


async def test_a_reset_closes_it_and_forgets_pause_pin_and_failures() -> None:
    breaker = breaker_of()
    await fails(breaker, 3)
    breaker.pause(breaker.rule.generation, 60.0, "429")
    breaker.rule.pin = Pin.FORCED_OPEN

    breaker.reset()

    assert (breaker.failure_count, breaker.last_ok) == (0, True)
    assert await breaker.call(well) == "well"


# The registry


def registry(
    clock: FakeClock | None = None,
    hear: Callable[[CircuitBreaker, Transition], None] = lambda breaker, edge: None,
    **components: CircuitBreakerConfig,
) -> Breakers:
    return Breakers(components, clock or FakeClock(), Random(1), hear)


def trip(breaker: CircuitBreaker) -> None:
    for _ in range(breaker.config.failure_threshold):
        breaker.fail(breaker.rule.generation, ValueError("it broke"))
    assert breaker.state is State.OPEN


def test_the_four_components_and_their_limits() -> None:
    limits = {
        name: (config.failure_threshold, config.recovery_timeout)
        for name, config in DEFAULTS.items()
    }

    assert limits == {
        "ai_provider": (3, 30.0),
        "persistence": (5, 60.0),
        "agent_coordinator": (2, 15.0),
        "tool_call": (3, 45.0),
    }
    assert {name: breaker.config for name, breaker in registry().all.items()} == DEFAULTS


def test_a_component_can_be_replaced_and_added() -> None:
    breakers = registry(
        ai_provider=CircuitBreakerConfig(7, 8.0), search=CircuitBreakerConfig(1, 2.0)
    )

    assert breakers.all["ai_provider"].config == CircuitBreakerConfig(7, 8.0)
    assert breakers.child("search", "a").rule.rules.failure_threshold == 1
    assert len(breakers.all) == 6


def test_a_child_is_made_once_and_found_by_both_names() -> None:
    breakers = registry()

    child = breakers.child("ai_provider", "claude")

    assert breakers.child("ai_provider", "claude") is child
    assert breakers.all["ai_provider:claude"] is child
    assert breakers.children("ai_provider") == {"claude": child}
    assert child.name == "ai_provider:claude"


def test_a_child_probes_sooner_than_its_component_and_has_the_window() -> None:
    child = registry().child("ai_provider", "claude")
    hasty = registry(ai_provider=CircuitBreakerConfig(3, 0.25)).child("ai_provider", "claude")

    assert child.rule.rules == BreakerRules(
        failure_threshold=3,
        recovery_timeout=30.0,
        first_probe_after=0.5,
        jitter=0.1,
        failure_ratio=0.5,
    )
    assert hasty.rule.rules.first_probe_after == 0.25


def test_one_bad_child_does_not_silence_the_others() -> None:
    breakers = registry()
    bad, good = breakers.child("ai_provider", "bad"), breakers.child("ai_provider", "good")

    trip(bad)

    assert (good.available(), breakers.all["ai_provider"].available()) == (True, True)


def test_children_tell_their_edges_under_their_names() -> None:
    told: list[str] = []
    breakers = registry(hear=lambda breaker, edge: told.append(f"{breaker.name} {edge.after}"))

    trip(breakers.child("ai_provider", "claude"))
    trip(breakers.all["tool_call"])

    assert told == ["ai_provider:claude open", "tool_call open"]


def paused(breaker: CircuitBreaker) -> None:
    breaker.pause(breaker.rule.generation, 60.0, "429")


def one_failure(breaker: CircuitBreaker) -> None:
    breaker.fail(breaker.rule.generation, ValueError("it broke"))


def probing(breaker: CircuitBreaker) -> None:
    trip(breaker)
    breaker.rule.allow_probe()
    breaker.rule.try_acquire(0.0)


def pinned_open(breaker: CircuitBreaker) -> None:
    breaker.rule.pin = Pin.FORCED_OPEN


def disabled(breaker: CircuitBreaker) -> None:
    trip(breaker)
    breaker.rule.pin = Pin.DISABLED


def untouched(breaker: CircuitBreaker) -> None:
    pass


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (one_failure, untouched),
        (paused, one_failure),
        (probing, paused),
        (trip, probing),
        (pinned_open, probing),
        (one_failure, untouched),
        (paused, disabled),
    ],
    ids=lambda how: how.__name__,
)
@pytest.mark.parametrize("order", [1, -1])
def test_a_component_is_as_badly_off_as_its_worst_child(
    worse: Callable[[CircuitBreaker], None], better: Callable[[CircuitBreaker], None], order: int
) -> None:
    breakers = registry()
    for name, how in [("worst", worse), ("better", better), ("fine", untouched)][::order]:
        how(breakers.child("ai_provider", name))

    status = breakers.status("ai_provider")

    worst = breakers.all["ai_provider:worst"]
    assert status == worst.get_status() | {"worst": "ai_provider:worst"}


def test_a_component_without_children_in_trouble_speaks_for_itself() -> None:
    breakers = registry()
    breakers.child("ai_provider", "claude")

    assert breakers.status("ai_provider") == breakers.all["ai_provider"].get_status()
    assert breakers.status("tool_call") == breakers.all["tool_call"].get_status()
    child = breakers.all["ai_provider:claude"].get_status()
    assert breakers.status("ai_provider:claude") == child
    assert breakers.status("nothing") is None


def test_more_children_than_fit_share_the_components_own() -> None:
    breakers = registry()
    for number in range(MOST_CHILDREN):
        breakers.child("tool_call", str(number))

    extra = [breakers.child("tool_call", name) for name in ("a", "b")]

    assert extra == [breakers.all["tool_call"]] * 2
    assert breakers.child("tool_call", "0").name == "tool_call:0"
    assert len(breakers.children("tool_call")) == MOST_CHILDREN == 1_000
    assert breakers.child("ai_provider", "a").name == "ai_provider:a"


def test_models_beyond_the_thousandth_share_their_providers_breaker_and_nobody_elses() -> None:
    breakers = registry()
    for number in range(MOST_CHILDREN):
        breakers.child("ai_provider", f"a/{number}")

    found = [breakers.child("ai_provider", name).name for name in ("a/new", "b/new", "c")]

    assert found == ["ai_provider:a", "ai_provider:b", "ai_provider:c"]


def test_a_forgotten_child_begins_anew_with_its_models_and_nobody_elses() -> None:
    breakers = registry()
    names = ["claude", "claude/opus", "claude-2", "gpt/claude"]
    for name in names:
        trip(breakers.child("ai_provider", name))

    breakers.forget("ai_provider", "claude")
    breakers.forget("ai_provider", "never heard of")

    assert list(breakers.children("ai_provider")) == ["claude-2", "gpt/claude"]
    assert not {"ai_provider:claude", "ai_provider:claude/opus"} & {*breakers.all}
    assert breakers.child("ai_provider", "claude").state is State.CLOSED


def test_nobody_has_children_who_is_no_component() -> None:
    breakers = registry()
    breakers.child("ai_provider", "claude")

    assert breakers.children("ai_provider:claude") == {}


async def test_a_call_through_a_child_is_a_call_through_its_policy() -> None:
    clock = FakeClock()
    breakers = registry(clock)
    child = breakers.child("ai_provider", "claude")
    refuse: Callable[[], Awaitable[str]] = ill

    for _ in range(3):
        with pytest.raises(ValueError):
            await child.call(refuse)
    with pytest.raises(CircuitOpen) as refused:
        await child.call(well)
    await clock.advance(refused.value.retry_after)

    assert 0.45 <= refused.value.retry_after <= 0.5
    assert await child.call(well) == "well"
