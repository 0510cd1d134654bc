"""One request's journey where what was learned, or a provider's own doing, changes its way."""

from collections.abc import Sequence
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import break_down, finished, make_bus, register
from zejzl.errors import (
    AuthFailed,
    BadRequest,
    CircuitOpen,
    ConnectFailed,
    ContentFiltered,
    ContextOverflow,
    ProviderError,
    ProviderOverloaded,
)
from zejzl.magic import FairyMagic
from zejzl.messages import Reply, Request
from zejzl.testing import FakeClock


def outcomes(attempts: Sequence[object]) -> list[tuple[str, str, str]]:
    return [(each.provider, each.outcome, each.remedy) for each in attempts]  # type: ignore[attr-defined]


# Context limits are learned -----------------------------------------------------------------------


class Short:
    """Takes prompts of so many characters; its other models take any.

    Attributes:
        sizes: How long the prompts it was asked were, oldest first.
    """

    default_model = "short-1"

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.most = most
        self.sizes: list[int] = []

    async def generate(self, request: Request) -> Reply:
        size = len(request.content) + sum(len(turn.content) for turn in request.history)
        self.sizes.append(size)
        if size > self.most and request.model is None:
            raise ContextOverflow("it is too long")
        return Reply(text=f"from {self.name}", provider=self.name)

    async def cleanup(self) -> None:
        pass


async def make_short(bus: AsyncMessageBus, clock: FakeClock) -> Short:
    """Register one that takes a thousand characters, and one that takes all."""
    short = Short("a", 1_000)
    await bus.register_provider("a", short)
    await register(bus, clock, b="from b")
    return short


async def test_after_two_refusals_long_prompts_go_straight_to_who_takes_them() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a = await make_short(bus, clock)

        replies = [
            await finished(clock, bus.send("x" * size))
            for size in (3_000, 2_000, 2_500, 5_000, 2_000, 900)
        ]

        assert a.sizes == [3_000, 2_000, 900]
        assert [outcomes(reply.attempts) for reply in replies[2:]] == [
            *[[("b", "ok", "first")]] * 3,
            [("a", "ok", "first")],
        ]
        assert not replies[2].healed
        assert bus.magic.circuit_breakers["ai_provider:a"].failure_count == 0


async def test_passing_by_a_model_that_is_too_short_costs_nothing() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await make_short(bus, clock)
        await finished(clock, bus.send("x" * 2_000))
        await bus.magic.recharge_magic()

        await finished(clock, bus.send("x" * 2_000))

        assert bus.magic.energy_level == 100.0


async def test_another_model_of_the_same_provider_is_not_taken_for_as_short() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await make_short(bus, clock)
        await finished(clock, bus.send("x" * 2_000))

        reply = await finished(clock, bus.send("x" * 2_000, model="large-1"))

        assert outcomes(reply.attempts) == [("a", "ok", "first")]


async def test_who_has_nobody_else_is_sent_all_the_same_and_what_was_learned_is_put_right() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a = await make_short(bus, clock)
        await finished(clock, bus.send("x" * 2_000))
        a.most = 4_000

        alone = await finished(clock, bus.send("x" * 3_000, "a"))
        reply = await finished(clock, bus.send("x" * 3_000))

        assert (alone.text, reply.text) == ("from a", "from a")
        assert reply.attempts[0].remedy == "first"


async def test_nobody_fails_over_to_a_model_that_is_too_short() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, first=ProviderOverloaded("full"))
        a = await make_short(bus, clock)
        await finished(clock, bus.send("x" * 2_000, "a", failover=["b"]))

        reply = await finished(clock, bus.send("x" * 2_000))

        assert [each.provider for each in reply.attempts] == ["first", "b"]
        assert a.sizes == [2_000]


async def test_a_history_counts_as_much_as_the_question() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a = await make_short(bus, clock)
        for _ in range(2):
            await finished(clock, bus.send("x" * 600, conversation_id="c"))

        reply = await finished(clock, bus.send("x" * 600, conversation_id="c"))

        assert len(a.sizes) == 2
        assert outcomes(reply.attempts) == [("b", "ok", "first")]


# Slow, and nobody else ----------------------------------------------------------------------------


async def test_one_that_is_only_slow_answers_those_who_have_nobody_else() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a="from a", b="from b")
        breaker = bus.magic.gate.provider("a")
        breaker.rule.slow(breaker.rule.flowing, clock.now(), "its answers come late")

        anybody = await bus.send("hello")
        pinned = await bus.send("hello", "a")
        await bus.unregister_provider("b")
        alone = await bus.send("hello")

        assert [reply.text for reply in (anybody, pinned, alone)] == ["from b", "from a", "from a"]
        assert not pinned.healed and clock.now() == 0.0
        assert breaker.state == "open"


async def test_one_that_fails_is_not_asked_even_by_those() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        a, _ = await register(bus, clock, a="from a", b="from b")
        break_down(bus.magic, bus.magic.gate.provider("a"))

        with pytest.raises(CircuitOpen):
            await finished(clock, bus.send("hello", "a", patience=0.0))

        assert a.requests == []


# Guards that no lesson moves ----------------------------------------------------------------------


def teach(magic: FairyMagic, kind: str, *remedies: str) -> None:
    """Let remedies have helped a hundred times, and an operator want them."""
    for remedy in remedies:
        for _ in range(100):
            magic.recoveries.record(
                "ai_provider:a",
                "a lesson",
                kind,
                remedy,
                success=True,
                verified=True,
                energy_used=0.0,
                outcome="ok",
                cost=0.0,
            )
        magic.prefer(remedy, "failover", failure_class=kind)


@pytest.mark.parametrize(
    ("failure", "others"),
    [(AuthFailed("x"), 1), (BadRequest("x"), 0), (ContentFiltered("x"), 0)],
    ids=["auth", "bad request", "filtered"],
)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with another"])
async def test_what_the_same_model_will_refuse_again_is_never_put_to_it_again(
    failure: ProviderError, others: int, alone: bool
) -> None:
    clock = FakeClock()
    async with make_bus(clock, patience=20.0) as bus:
        a, b = await register(bus, clock, a=failure, b="from b")
        teach(bus.magic, failure.failure_class, "retry", "reconnect", "wait", "own")

        try:
            await finished(clock, bus.send("hello", "a" if alone else None))
        except ProviderError as raised:
            assert raised is failure

        assert len(a.requests) == 1
        assert len(b.requests) == (0 if alone else others)


# A provider's own doing ---------------------------------------------------------------------------


class Reconnects:
    """Loses its connections once; what it does to get fresh ones is up to the test."""

    default_model = "m"

    def __init__(self, reconnect: Any) -> None:
        self.name = "a"
        self.calls = 0
        self.reconnect = reconnect

    async def generate(self, request: Request) -> Reply:
        self.calls += 1
        if self.calls == 1:
            raise ConnectFailed("the connection was lost")
        return Reply(text="over a fresh connection", provider="a")

    async def cleanup(self) -> None:
        pass


async def test_a_lost_connection_is_asked_again_over_a_fresh_one() -> None:
    clock = FakeClock()
    fresh = []

    async def reconnect() -> None:
        fresh.append(a.calls)

    a = Reconnects(reconnect)
    async with make_bus(clock) as bus:
        await bus.register_provider("a", a)

        reply = await finished(clock, bus.send("hello"))

        assert (reply.text, fresh) == ("over a fresh connection", [1])
        assert outcomes(reply.attempts)[-1] == ("a", "ok", "reconnect")


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with another"])
async def test_a_provider_that_fails_to_reconnect_is_left_for_another(alone: bool) -> None:
    clock = FakeClock()

    async def reconnect() -> None:
        raise RuntimeError("the pool is gone")

    async with make_bus(clock, patience=0.0) as bus:
        a = Reconnects(reconnect)
        await bus.register_provider("a", a)
        await register(bus, clock, b="from b")

        if alone:
            with pytest.raises(ConnectFailed, match="the connection was lost") as caught:
                await finished(clock, bus.send("hello", "a"))
            assert any("the pool is gone" in note for note in caught.value.__notes__)
        else:
            reply = await finished(clock, bus.send("hello"))
            assert outcomes(reply.attempts) == [
                ("a", "connect", "first"),
                ("b", "ok", "failover"),
            ]

        assert a.calls == 1


async def test_a_provider_that_hangs_at_reconnecting_holds_nobody_past_the_deadline() -> None:
    clock = FakeClock()

    async def reconnect() -> None:
        await clock.sleep(1e6)

    async with make_bus(clock, deadline=4.0) as bus:
        await bus.register_provider("a", Reconnects(reconnect))
        (b,) = await register(bus, clock, b="from b")

        with pytest.raises(ConnectFailed):
            await finished(clock, bus.send("hello"))

        assert clock.now() == pytest.approx(4.0, abs=0.06)
        assert b.requests == []
