"""Whatever a provider raises is an error of the tree, and nothing stays counted."""

import asyncio
from collections.abc import Callable
from typing import Any, Never

import pytest

from tests.driving import assert_nothing_is_left, finished, make_bus
from zejzl.engine.failures import own_failure
from zejzl.errors import (
    AttemptTimeout,
    ConnectFailed,
    FailureClass,
    ProviderError,
    RateLimited,
    ServerError,
    Transient,
)
from zejzl.testing import FakeClock, ScriptedProvider


class Curt(Transient):
    """Never calls super().__init__()."""

    def __init__(self, why: str) -> None:
        self.why = why


class Late(AttemptTimeout):
    def __init__(self) -> None:
        pass


class Named(Curt):
    """The same, but says its class."""

    failure_class = FailureClass.OVERLOADED


class Stubborn(Named):
    """And knows its provider better than the bus."""

    @property
    def provider(self) -> str:  # type: ignore[override]
        return "mine"


class Headers(dict[str, str]):
    def get(self, *names: object) -> Never:
        raise KeyError("no headers were read")


class Sdk(Exception):
    def __init__(self, **fields: object) -> None:
        super().__init__("from the SDK")
        vars(self).update(fields)


class Mute(Transient):
    def __str__(self) -> str:
        raise RuntimeError("not a word")


def rate_limited(**fields: Any) -> RateLimited:
    return RateLimited("slow down", **fields)


def server_error(message: Any = "it broke", **fields: Any) -> ServerError:
    return ServerError(message, **fields)


ODD: dict[str, tuple[Callable[[], Exception], str]] = {
    "no super().__init__()": (lambda: Curt("x"), "unknown"),
    "no super().__init__() of a late one": (Late, "first_token_timeout"),
    "a name that cannot be set": (lambda: Stubborn("x"), "overloaded"),
    "a wait as text": (lambda: rate_limited(retry_after="5"), "rate_limited"),
    "a wait too large": (lambda: rate_limited(retry_after=10**400), "rate_limited"),
    "a wait beyond words": (lambda: rate_limited(retry_after=10**5000), "rate_limited"),
    "a wait of an SDK too large": (lambda: Sdk(retry_after=10**400, status=429), "rate_limited"),
    "a wait that is no number": (lambda: rate_limited(retry_after=float("nan")), "rate_limited"),
    "a wait for ever": (lambda: rate_limited(retry_after=float("inf")), "rate_limited"),
    "a wait below nothing": (lambda: rate_limited(retry_after=-5), "rate_limited"),
    "headers that cannot be read": (lambda: Sdk(headers=Headers(), code=503), "overloaded"),
    "a class as text": (lambda: server_error(failure_class="overloaded"), "overloaded"),
    "a class that is none": (lambda: server_error(failure_class="garbage"), "server_error"),
    "a code as number": (lambda: server_error(code=500), "server_error"),
    "a status as text": (lambda: server_error(status="500"), "server_error"),
    "a model that is none": (lambda: server_error(model=5), "server_error"),
    "an id that is none": (lambda: server_error(request_id=5), "server_error"),
    "no message": (lambda: server_error(None), "server_error"),
    "not a word": (lambda: Mute("x"), "unknown"),
}

odd = pytest.mark.parametrize(("make", "outcome"), ODD.values(), ids=ODD.keys())


async def raised(bus: Any, clock: FakeClock, *, streamed: bool) -> ProviderError:
    async def ask() -> None:
        if streamed:
            async for _ in bus.stream("hello", patience=0):
                pass
        else:
            await bus.send("hello", patience=0)

    with pytest.raises(ProviderError) as caught:
        await finished(clock, ask())
    return caught.value


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@odd
async def test_an_error_of_an_odd_shape_is_a_failure_like_any_other(
    make: Callable[[], Exception], outcome: str, streamed: bool
) -> None:
    clock = FakeClock()
    failure = make()
    async with make_bus(clock) as bus:
        await bus.register_provider("a", ScriptedProvider([("", failure)], clock=clock))

        error = await raised(bus, clock, streamed=streamed)

        assert error.failure_class is FailureClass(outcome)
        assert (error.provider, error.model) == ("a", "scripted-1")
        assert error.retry_after is None or 0.0 <= error.retry_after < float("inf")
        assert {each.outcome for each in error.attempts} == {outcome}  # type: ignore[attr-defined]
        assert str(error).startswith("a: ")
        assert error.__cause__ is failure
        await assert_nothing_is_left(bus)


async def test_a_wait_as_text_is_waited_for() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        slow = rate_limited(retry_after="5")
        await bus.register_provider("a", ScriptedProvider([slow, "ok"], clock=clock))

        reply = await finished(clock, bus.send("hello", patience=10.0))

        assert reply.text == "ok"
        assert reply.latency_s >= 5.0


@pytest.mark.parametrize(
    "failure", [Named("x"), server_error(code="e"), ConnectFailed("x")], ids=str
)
async def test_an_error_that_is_whole_is_raised_itself(failure: ProviderError) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("a", ScriptedProvider([failure], clock=clock))

        error = await raised(bus, clock, streamed=False)

        assert error is failure
        assert (error.provider, error.model) == ("a", "scripted-1")


async def test_cancelled_work_of_its_own_is_a_failure_and_a_caller_who_leaves_is_none() -> None:
    cancelled = asyncio.CancelledError()

    async def look() -> Exception | None:
        try:
            await asyncio.sleep(60.0)
        except asyncio.CancelledError as left:
            return own_failure(left)
        return None

    leaving = asyncio.create_task(look())
    await asyncio.sleep(0)
    leaving.cancel()

    failure = own_failure(cancelled)
    assert isinstance(failure, Transient) and failure.__cause__ is cancelled
    assert own_failure(ValueError("x")) is not None
    assert own_failure(KeyboardInterrupt()) is None
    assert await leaving is None
