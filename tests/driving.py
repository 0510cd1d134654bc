"""A bus on a fake clock, and the patience to see what it does."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ai_framework import AsyncMessageBus
from zejzl.errors import ServerError
from zejzl.magic import CircuitBreaker, FairyMagic
from zejzl.magic.lanes import Asked, Permit
from zejzl.policies.breaker import Refused
from zejzl.policies.diagnosis import diagnose
from zejzl.ports import Store
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore
from zejzl.testing import FakeClock, ScriptedProvider

T = TypeVar("T")
PACE = 0.1  # seconds of a usual answer: one is late after 0.15 s, and worth a second call at 0.3


async def finished(
    clock: FakeClock, work: Coroutine[Any, Any, T], *, within: float = 120.0, step: float = 0.05
) -> T:
    """Return what `work` comes to, moving the clock until it does."""
    task = asyncio.create_task(work)
    for _ in range(int(within / step)):
        await clock.advance(0.0 if task.done() else step)
        if task.done():
            return await task
    task.cancel()
    raise AssertionError(f"not finished within {within} s of the fake clock")


def make_bus(
    clock: FakeClock,
    *,
    magic: FairyMagic | None = None,
    store: Store | None = None,
    **settings: Any,
) -> AsyncMessageBus:
    """Return a bus in memory that reads no environment."""
    return AsyncMessageBus(
        Settings(**settings), store=store or InMemoryStore(clock=clock), clock=clock, magic=magic
    )


def ask(magic: FairyMagic, breaker: CircuitBreaker, name: str = "a") -> Permit | Refused:
    """Ask the gate to let a call of a provider pass."""
    return magic.gate.acquire(breaker, magic.gate.lane(name), Asked())


def break_down(magic: FairyMagic, breaker: CircuitBreaker, name: str = "a") -> None:
    """Let three calls of a provider fail."""
    for _ in range(3):
        permit = ask(magic, breaker, name)
        if isinstance(permit, Permit):
            magic.gate.failed(permit, ServerError("x"), diagnose(ServerError("x")))


async def register(
    bus: AsyncMessageBus, clock: FakeClock, **scripts: Any
) -> list[ScriptedProvider]:
    """Register a scripted provider for each keyword, in order."""
    made = []
    for name, script in scripts.items():
        provider = ScriptedProvider(
            script if isinstance(script, list) else [script], name=name, clock=clock
        )
        await bus.register_provider(name, provider)
        made.append(provider)
    return made


def learn_pace(bus: AsyncMessageBus, *names: str, seconds: float = PACE) -> None:
    """Let providers have answered twenty times, plainly and in streams."""
    gate = bus.magic.gate
    for name in names:
        for streamed in (False, True):
            for _ in range(20):
                permit = gate.acquire(
                    gate.provider(name), gate.lane(name), Asked(streamed=streamed)
                )
                assert isinstance(permit, Permit)
                gate.succeeded(permit, seconds, first=True)


async def assert_nothing_is_left(bus: AsyncMessageBus) -> None:
    """Fail where anything still stands for a request, once all have ended."""
    limits: Any = (await bus.magic.get_system_status())["limits"]
    found = {name: (lane["in_flight"], lane["queued"]) for name, lane in limits.items()}
    assert found == dict.fromkeys(limits, (0, 0))
    assert not bus._intake.conversations._lines
    assert not bus._intake._once._turns._lines
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "zejzl-call"]
    assert all(seat.calls.requests == 0 for seat in bus._registry._seats.values())
    assert bus._lifecycle.requests == 0
    assert not bus._engine.abandoned
    assert all(message.response or message.error for message in await bus.store.messages())
    for breaker in bus.magic.circuit_breakers.values():
        outage = breaker.rule._outage
        assert outage is None or not outage.leases, breaker.name
        assert not any(tempo.flying for tempo in breaker.tempos), breaker.name
