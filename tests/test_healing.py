"""Who is called next, what for, at what price: `engine.healing` through the public bus."""

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import finished, make_bus, register
from zejzl.errors import (
    AuthFailed,
    BadRequest,
    CircuitOpen,
    ConnectFailed,
    ContentFiltered,
    ContextOverflow,
    EmptyAnswer,
    Malformed,
    NoSuchProvider,
    ProviderError,
    ProviderOverloaded,
    QuotaExhausted,
    RateLimited,
    ServerError,
)
from zejzl.magic import FairyMagic
from zejzl.messages import Reply, Request
from zejzl.testing import FakeClock


def outcomes(attempts: object) -> list[tuple[str, str, str]]:
    return [(each.provider, each.outcome, each.remedy) for each in attempts]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (ServerError("x"), [("a", "server_error", "first"), ("a", "ok", "retry")]),
        (ConnectFailed("x"), [("a", "connect", "first"), ("a", "ok", "reconnect")]),
        (Malformed("x"), [("a", "malformed", "first"), ("a", "ok", "retry")]),
        (EmptyAnswer("x"), [("a", "empty", "first"), ("a", "ok", "retry")]),
        (RuntimeError("x"), [("a", "unknown", "first"), ("a", "ok", "retry")]),
        (ProviderOverloaded("x"), [("a", "overloaded", "first"), ("b", "ok", "failover")]),
        (RateLimited("x"), [("a", "rate_limited", "first"), ("b", "ok", "failover")]),
        (TimeoutError(), [("a", "first_token_timeout", "first"), ("b", "ok", "failover")]),
        (AuthFailed("x"), [("a", "auth", "first"), ("b", "ok", "failover")]),
        (QuotaExhausted("x"), [("a", "quota_exhausted", "first"), ("b", "ok", "failover")]),
        (ContextOverflow("x"), [("a", "context_overflow", "first"), ("b", "ok", "failover")]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_each_kind_of_failure_has_its_remedy(
    failure: Exception, expected: list[tuple[str, str, str]]
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=[failure, "from a"], b="from b")

        reply = await finished(clock, bus.send("hello"))

        assert outcomes(reply.attempts) == expected
        assert reply.healed
        assert reply.text == f"from {expected[-1][0]}"


@pytest.mark.parametrize("failure", [BadRequest("x"), ContentFiltered("x")], ids=["400", "filter"])
async def test_a_callers_mistake_is_sent_once_and_nowhere_else(failure: ProviderError) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a, b = await register(bus, clock, a=failure, b="from b")

        with pytest.raises(type(failure)) as caught:
            await finished(clock, bus.send("hello"))

        assert (len(a.requests), len(b.requests)) == (1, 0)
        assert outcomes(caught.value.attempts) == [("a", failure.failure_class, "first")]
        assert bus.magic.circuit_breakers["ai_provider:a"].failure_count == 0


async def test_a_provider_that_keeps_failing_is_not_retried_at_once() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=ServerError("x"), b="from b")

        await finished(clock, bus.send("one"))
        second = await finished(clock, bus.send("two"))

        assert outcomes(second.attempts) == [
            ("a", "server_error", "first"),
            ("b", "ok", "failover"),
        ]


async def test_an_open_provider_is_passed_by_for_nothing() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a, _ = await register(bus, clock, a=ServerError("x"), b="from b")
        for _ in range(3):
            await finished(clock, bus.send("hello"))
        called, energy = len(a.requests), bus.magic.energy_level

        reply = await bus.send("hello")

        assert outcomes(reply.attempts) == [("b", "ok", "first")]
        assert not reply.healed
        assert len(a.requests) == called
        assert bus.magic.energy_level >= energy


async def test_the_first_cause_is_the_one_that_is_raised() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=AuthFailed("the first"), b=ServerError("the second"))

        with pytest.raises(AuthFailed, match="the first") as caught:
            await finished(clock, bus.send("hello"))

        assert [each.provider for each in caught.value.attempts][:2] == ["a", "b"]  # type: ignore[attr-defined]


async def test_nobody_is_called_more_often_than_the_setting_says() -> None:
    clock = FakeClock()
    async with make_bus(clock, patience=30.0, max_attempts=3) as bus:
        (a,) = await register(bus, clock, a=ServerError("x"))

        with pytest.raises(ServerError):
            await finished(clock, bus.send("hello"))

        assert len(a.requests) == 3


async def test_with_nobody_else_a_request_waits_a_second_for_the_provider() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=[ServerError("x"), ServerError("x"), "well again"])

        reply = await finished(clock, bus.send("hello"))

        assert outcomes(reply.attempts)[-1] == ("a", "ok", "wait")
        assert reply.latency_s <= 1.0
        assert len(a.requests) == 3


async def test_a_retry_after_beyond_patience_is_not_waited_for() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=RateLimited("slow down", retry_after=120.0))

        with pytest.raises(RateLimited) as caught:
            await finished(clock, bus.send("hello"), within=1.0)

        assert caught.value.retry_after == 120.0
        assert any("no further call" in note for note in caught.value.__notes__)
        assert any("patience" in note for note in caught.value.__notes__)


async def test_patience_waits_out_a_retry_after_on_the_preferred_provider() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        _, b = await register(
            bus, clock, a=[RateLimited("slow down", retry_after=2.0), "from a"], b="from b"
        )

        reply = await finished(clock, bus.send("hello", patience=3.0))

        assert outcomes(reply.attempts) == [("a", "rate_limited", "first"), ("a", "ok", "wait")]
        assert 2.0 <= reply.latency_s <= 2.7
        assert not b.requests
        assert bus.magic.healing_history[-1].energy_used == 5.0


async def test_patience_waits_for_the_preferred_provider_before_the_first_call() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(
            bus, clock, a=[RateLimited("slow down", retry_after=2.0), "from a"], b="from b"
        )
        first = await finished(clock, bus.send("one"))

        second = await finished(clock, bus.send("two", patience=3.0))

        assert first.provider == "b"
        assert outcomes(second.attempts) == [("a", "ok", "first")]


async def test_zero_patience_fails_fast() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=ProviderOverloaded("x"))

        with pytest.raises(ProviderOverloaded):
            await finished(clock, bus.send("hello", patience=0.0), within=0.05)


async def test_all_who_wait_share_one_pause() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=[RateLimited("slow down", retry_after=0.5), "well"])
        with pytest.raises(RateLimited):
            await finished(clock, bus.send("hello", patience=0.0))

        waiting = [asyncio.create_task(bus.send(f"{n}")) for n in range(20)]
        await clock.advance(0.4)
        during = len(a.requests)
        replies = await finished(clock, _all(waiting))

        assert during == 1
        assert all(reply.attempts[0].outcome == "ok" for reply in replies)
        assert len(a.requests) == 21


async def test_a_short_budget_refuses_the_retry_and_says_so() -> None:
    clock = FakeClock()
    magic = FairyMagic(energy_level=0.0, clock=clock)
    async with make_bus(clock, magic=magic) as bus:
        (a,) = await register(bus, clock, a=ServerError("x"))

        with pytest.raises(ServerError) as caught:
            await finished(clock, bus.send("hello", patience=0.0), within=1.0)

        assert len(a.requests) == 1
        assert any("retry budget is short" in note for note in caught.value.__notes__)


async def test_a_retry_short_of_budget_waits_for_it_within_its_patience() -> None:
    clock = FakeClock()
    magic = FairyMagic(energy_level=5.0, clock=clock)
    async with make_bus(clock, magic=magic) as bus:
        await register(bus, clock, a=[ServerError("x"), "from a"])

        reply = await finished(clock, bus.send("hello", patience=10.0))

        assert reply.text == "from a"
        assert reply.latency_s >= 4.0


async def test_nothing_is_tried_past_the_deadline() -> None:
    clock = FakeClock()
    async with make_bus(clock, attempt_timeout=None) as bus:
        a, b = await register(bus, clock, a=None, b="from b")

        with pytest.raises(TimeoutError) as caught:
            await finished(clock, bus.send("hello", deadline=5.0), within=6.0)

        assert outcomes(getattr(caught.value, "attempts", ())) == [("a", "deadline", "first")]
        assert (len(a.requests), len(b.requests)) == (1, 0)


@pytest.mark.parametrize(
    ("deadline", "failures"), [(0.5, 0), (5.0, 1)], ids=["no fair try", "a fair try"]
)
async def test_a_deadline_counts_against_a_provider_only_after_a_fair_try(
    deadline: float, failures: int
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=None)

        with pytest.raises(TimeoutError):
            await finished(clock, bus.send("hello", deadline=deadline))

        assert bus.magic.circuit_breakers["ai_provider:a"].failure_count == failures


async def test_a_silent_provider_is_given_up_and_the_next_one_answers() -> None:
    clock = FakeClock()
    async with make_bus(clock, attempt_timeout=3.0) as bus:
        await register(bus, clock, a=None, b="from b")

        reply = await finished(clock, bus.send("hello"))

        assert reply.text == "from b"
        assert 3.0 <= reply.latency_s <= 3.1


async def test_when_nobody_can_be_called_the_refusal_says_why_and_for_how_long() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=AuthFailed("bad key"))
        with pytest.raises(AuthFailed):
            await finished(clock, bus.send("hello"))

        with pytest.raises(CircuitOpen, match=r"key was refused.*bad key") as caught:
            await finished(clock, bus.send("hello"))

        assert 20.0 <= caught.value.retry_after <= 30.0
        assert len(a.requests) == 1


async def test_a_dead_provider_sees_hardly_more_calls_than_there_are_callers() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=[0.05, ServerError("down")])
        a.play(ServerError("down"))

        results = await finished(
            clock, _all([asyncio.create_task(bus.send(f"{n}")) for n in range(1_000)])
        )

        assert len(a.requests) <= 1_100
        assert all(isinstance(result, ServerError | CircuitOpen) for result in results)


async def test_while_all_are_down_one_probe_is_sent_in_half_a_second() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a, b = await register(bus, clock, a=ServerError("down"), b=ServerError("down"))
        for _ in range(4):
            await finished(clock, _all([asyncio.create_task(bus.send("x", patience=0.0))]))
        before, began = len(a.requests) + len(b.requests), clock.now()

        for _ in range(100):
            await finished(clock, _all([asyncio.create_task(bus.send("x", patience=0.0))]))
            await clock.advance(0.05)

        probes = len(a.requests) + len(b.requests) - before
        assert 0.7 <= probes / ((clock.now() - began) / 0.5) <= 1.1
        assert abs(len(a.requests) - len(b.requests)) <= 6  # they take turns


async def test_a_provider_that_comes_back_wakes_those_who_wait() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=ServerError("down"))
        for _ in range(2):
            await finished(clock, _all([asyncio.create_task(bus.send("x"))]))
        a.play("well")

        replies = await finished(
            clock, _all([asyncio.create_task(bus.send("x", patience=9.0)) for _ in range(50)])
        )

        assert [reply.text for reply in replies] == ["well"] * 50
        assert max(reply.latency_s for reply in replies) <= 1.5


async def test_three_cancelled_calls_leave_nothing_counted() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=None)
        energy = bus.magic.energy_level

        for _ in range(3):
            task = asyncio.create_task(bus.send("hello"))
            await clock.advance(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        breaker = bus.magic.circuit_breakers["ai_provider:a"]
        assert (breaker.state, breaker.failure_count) == ("closed", 0)
        assert bus.magic.energy_level >= energy
        assert not bus.magic.healing_history


async def test_a_cancelled_probe_gives_its_place_back() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=ServerError("down"))
        for _ in range(2):
            await finished(clock, _all([asyncio.create_task(bus.send("x"))]))
        a.play(None)
        await clock.advance(5.0)
        probe = asyncio.create_task(bus.send("hello"))
        await clock.advance(0.01)
        assert bus.magic.circuit_breakers["ai_provider:a"].state == "half_open"

        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        a.play("well")
        reply = await finished(clock, bus.send("hello"))

        assert reply.text == "well"


async def test_a_long_history_is_halved_when_it_overflows_and_nobody_else_takes_it() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a="fine")
        for n in range(8):
            await finished(clock, bus.send(f"question {n}", conversation_id="c"))
        a.play(ContextOverflow("too long"), "shorter now")

        reply = await finished(clock, bus.send("the last", conversation_id="c"))

        assert outcomes(reply.attempts) == [
            ("a", "context_overflow", "first"),
            ("a", "ok", "shrink_context"),
        ]
        assert len(a.requests[-1].history) < len(a.requests[-2].history) == 16
        assert a.requests[-1].history[-2:] == a.requests[-2].history[-2:]


async def test_a_long_question_without_history_is_not_sent_again() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=ContextOverflow("too long"))

        with pytest.raises(ContextOverflow):
            await finished(clock, bus.send("hello"))

        assert len(a.requests) == 1


async def test_a_failover_goes_to_closed_providers_only() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a, b, _ = await register(bus, clock, a="from a", b=ServerError("down"), c="from c")
        for _ in range(2):
            await finished(clock, _all([asyncio.create_task(bus.send("x", "b"))]))
        await clock.advance(20.0)  # b's breaker is open still, and its probe is due
        called = len(b.requests)
        a.play(ProviderOverloaded("x"))

        reply = await finished(clock, bus.send("hello"))

        assert reply.text == "from c"
        assert len(b.requests) == called


async def test_every_remedy_is_a_row_of_the_recovery_log_in_memory_and_in_the_store() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=ServerError("broken"), b="from b")

        reply = await finished(clock, bus.send("hello"))

        rows = list(bus.magic.healing_history)
        assert [(row.remedy, row.success, row.outcome, row.energy_used) for row in rows] == [
            ("retry", False, "server_error", 10.0),
            ("failover", True, "ok", 3.0),
        ]
        assert {row.request_id for row in rows} == {reply.id}
        assert {row.target for row in rows} == {"ai_provider:a"}
        assert await bus.store.events(type="recovery_recorded") == rows


async def test_a_transient_tenth_of_failures_is_healed_on_one_provider() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a="ok")
        good = 0
        for n in range(500):
            a.play(*([ServerError("blip")] if n % 10 == 9 else []), "ok")
            with contextlib.suppress(ServerError):
                await finished(clock, bus.send("hello"))
                good += 1

        assert good >= 0.97 * 500
        assert len(a.requests) <= 1.11 * 500


async def _all(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_timeout_that_a_provider_raises_itself_is_told_in_its_own_words() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=TimeoutError("my own limit"))

        with pytest.raises(TimeoutError, match="my own limit"):
            await finished(clock, bus.send("hello"))


async def test_an_error_tells_of_the_others_that_failed_and_why_nothing_more_was_done() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=ProviderOverloaded("full"), b=AuthFailed("wrong key"))

        with pytest.raises(ProviderOverloaded) as caught:
            await finished(clock, bus.send("hello"))

        notes = caught.value.__notes__
        assert any(note.startswith("failed too: b: wrong key") for note in notes)
        assert any(note.startswith("no further call: a") for note in notes)


async def test_a_setting_that_names_an_unknown_provider_is_told_with_the_error() -> None:
    for settings in ({"failover": ("claude",)}, {"default_provider": "claude"}):
        clock = FakeClock()
        async with make_bus(clock, **settings) as bus:
            await register(bus, clock, a="from a")

            with pytest.raises(NoSuchProvider, match="claude") as caught:
                await finished(clock, bus.send("hello"))

            assert "failover or default_provider" in caught.value.__notes__[0]


async def test_what_is_healed_is_logged_without_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    with caplog.at_level(logging.INFO, logger="zejzl"):
        async with make_bus(clock) as bus:
            await register(bus, clock, a=ServerError("a secret in it"), b="from b")
            for _ in range(3):
                await finished(clock, bus.send("hello"))

    assert "ai_provider:a: server_error; failover: ok" in caplog.text
    assert "circuit breaker of ai_provider:a: open, was closed" in caplog.text
    assert "a secret in it" not in caplog.text


# Crowds -------------------------------------------------------------------------------------------


class Small:
    """Takes so many calls at once and refuses the others."""

    name, default_model = "a", "small-1"

    def __init__(self, clock: FakeClock, room: int) -> None:
        self.calls = self._inside = 0
        self._clock, self._room = clock, room

    async def generate(self, request: Request) -> Reply:
        self.calls += 1
        await self._clock.sleep(0.01)
        if self._inside >= self._room:
            raise ProviderOverloaded("full")
        self._inside += 1
        try:
            await self._clock.sleep(0.3)
            return Reply(text="from a", provider="a")
        finally:
            self._inside -= 1

    async def cleanup(self) -> None:
        pass


async def crowd(bus: AsyncMessageBus, clock: FakeClock, size: int, **options: Any) -> list[Reply]:
    return await finished(clock, _gathered(bus, size, options), step=0.01)


async def _gathered(bus: AsyncMessageBus, size: int, options: dict[str, Any]) -> list[Reply]:
    return await asyncio.gather(*(bus.send("hello", **options) for _ in range(size)))


@pytest.mark.parametrize("known", [False, True], ids=["cold", "known"])
async def test_a_crowd_gets_over_an_outage_and_whoever_comes_next_too(known: bool) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a, _ = await register(bus, clock, a=[0.02, "from a"], b=[0.5, "from b"] * 1_000)
        if known:
            await crowd(bus, clock, 20)
        down: list[Any] = [0.02, ProviderOverloaded("down")]
        a.play(*down * 1_000)

        first = await crowd(bus, clock, 150)
        second = await crowd(bus, clock, 150)

        assert {reply.text for reply in [*first, *second]} == {"from b"}
        assert not bus.magic.is_shielded
        assert bus.magic.energy_level > 50.0


@pytest.mark.parametrize("size", [20, 80, 300])
async def test_a_crowd_is_served_in_turn_by_one_that_takes_few_at_once(size: int) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("a", small := Small(clock, 5))

        replies = await crowd(bus, clock, size)

        assert len(replies) == size
        assert bus.magic.circuit_breakers["ai_provider:a"].state == "closed"
        assert bus.magic.energy_level > 50.0
        assert small.calls <= 2.1 * size


async def test_a_crowd_whose_only_provider_is_down_learns_it_soon() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=[0.02, ProviderOverloaded("down")] * 1_000)
        crowd = [asyncio.create_task(bus.send("hello")) for _ in range(150)]

        await clock.advance(5.0)

        assert all(isinstance(each.exception(), ProviderOverloaded | CircuitOpen) for each in crowd)
        assert len(a.requests) <= 1.1 * len(crowd)
