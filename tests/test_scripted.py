"""A provider that plays a script."""

import asyncio
from typing import Any

import pytest

from zejzl.messages import Request, Usage
from zejzl.testing import FakeClock, ScriptedProvider


async def test_a_script_is_played_in_order_and_its_last_step_repeats() -> None:
    provider = ScriptedProvider([RuntimeError("x"), "one", "two"])

    with pytest.raises(RuntimeError):
        await provider.generate(Request(content="a b"))
    replies = [await provider.generate(Request(content="a b")) for _ in range(3)]

    assert [reply.text for reply in replies] == ["one", "two", "two"]
    assert replies[0].usage == Usage(2, 1)
    assert len(provider.requests) == 4


async def test_seconds_are_silence_on_its_clock() -> None:
    clock = FakeClock()
    provider = ScriptedProvider([3.0, "late"], clock=clock)

    asking = asyncio.create_task(provider.generate(Request(content="x")))
    await clock.advance(2.9)
    early = asking.done()
    await clock.advance(0.2)

    assert not early
    assert (await asking).text == "late"


@pytest.mark.parametrize("script", ["hello", [b"x"], [object()]], ids=["a text", "bytes", "object"])
def test_what_is_no_script_is_refused_at_once(script: Any) -> None:
    with pytest.raises(TypeError):
        ScriptedProvider(script)


def test_an_empty_script_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        ScriptedProvider([])
