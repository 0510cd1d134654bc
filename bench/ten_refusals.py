"""Scenarios 5 and 6: a provider that asks to wait, and failures that are not the provider's."""

import asyncio
from collections.abc import Mapping
from math import ceil
from random import Random
from typing import Literal

from storm_stage import ANSWER, ERROR, Stage
from ten_stage import Figures, World, most_tries, percent, prompt_of, steadily, world

from zejzl.errors import (
    BadRequest,
    ContentFiltered,
    ContextOverflow,
    ProviderError,
)
from zejzl.testing import Call, faults
from zejzl.testing.behaviours import CANONICAL, Play, WireName

Plays = Mapping[str, Play]

# ── 5: a provider that limits the rate, and tells in four ways how long to wait ──────────────────

RATE = 40.0  # requests a second
LIMITED = 5.0  # when the limit begins
AFTERWARDS = 15.0
PATIENCE = 3.0


async def limited(
    seed: int,
    *,
    wait: float,
    written: Literal["seconds", "date"] | None,
    rate: float = RATE,
    alone: bool = False,
) -> Figures:
    """A answers 429 for `wait` seconds; B is well.

    Args:
        wait: How long the limit lasts; each refusal tells what is left of it.
        written: How that is told; None: not at all.
        rate: Requests a second.
        alone: Whether there is no B.
    """
    over = LIMITED + wait

    def plays(stage: Stage) -> Plays:
        def refuse(call: Call) -> Play:
            if written is None:
                return faults.rate_limited()
            # A provider rounds up. This is asked when the answer is sent, not when the call came.
            left = ceil(10.0 * (over - found.now)) / 10.0
            return faults.rate_limited(max(0.1, left), written=written)

        a = stage.during(LIMITED, over, stage.after(ERROR, refuse), stage.well("a"))
        return {"a": a} if alone else {"a": a, "b": stage.well("b")}

    async with world(plays, seed, patience=PATIENCE) as found:
        rng = Random(f"limited {seed}")
        await found.play(steadily(0.0, over + AFTERWARDS, rate, rng))
    inside = found.asked(LIMITED, over)
    # Whoever would have to wait for longer than the patience goes elsewhere instead.
    moved = [each for each in inside if over - each.at > PATIENCE]
    waited = sum(each.provider == "a" for each in inside)
    refused = found.calls("a", LIMITED, over)
    known = min((call.at + (call.seconds or 0.0) for call in refused), default=over)
    return {
        "answered %": percent(sum(each.right for each in found.outcomes), len(found.outcomes)),
        "by the preferred one %": percent(waited, len(inside)),
        "calls inside the window": len(found.calls("a", known, over)),
        "refused calls": len(refused),
        "latest s": max(each.seconds for each in inside),
        "latest moved s": max((each.seconds for each in moved), default=0.0),
        "back s": found.back(over),
        "at once when it ends": crowd(found, over),
        "opened": len(found.opened()),
    }


def crowd(found: World, over: float) -> float:
    """Return the most calls that reached A within 50 ms after the limit's end."""
    calls = [call.at for call in found.calls("a", over, over + AFTERWARDS)]
    return max((sum(at <= other < at + 0.05 for other in calls) for at in calls), default=0)


# ── 6: refusals that say nothing about the provider ──────────────────────────────────────────────

BAD = 40  # requests; as failures, three of them in a row would open the breaker
SPAN = 20.0
EVERY_WIRE: tuple[WireName, ...] = ("openai", "anthropic", "gemini")
FAULTS: Mapping[str, tuple[Play, type[ProviderError]]] = {
    "context too long": (faults.context_overflow(), ContextOverflow),
    "content filter": (faults.content_filtered(), ContentFiltered),
    "400": (faults.bad_request(), BadRequest),
    "404": (faults.not_found(), BadRequest),
}


async def not_my_fault(seed: int, *, fault: str, stream: bool) -> Figures:
    """A refuses every bad request and answers the others, on each wire in turn."""
    runs = [await refused(seed, fault, wire, stream) for wire in EVERY_WIRE]
    return {
        name: (min if name.endswith("%") else max)(run[name] for run in runs) for name in runs[0]
    }


async def refused(seed: int, fault: str, wire: WireName, stream: bool) -> Figures:
    play, error = FAULTS[fault]

    def plays(stage: Stage) -> Plays:
        refusing, well = stage.after(ERROR, play), stage.after(ANSWER, faults.ok())

        def a(call: Call) -> Play:
            return refusing if prompt_of(call).startswith("bad") else well

        return {"a": a, "b": well}

    rng = Random(f"refused {seed}")
    wires: dict[str, WireName] = {"a": wire, "b": wire}
    async with world(plays, seed, wires=wires, also=CANONICAL) as found:
        bad = steadily(0.0, SPAN, BAD / SPAN, rng, "bad", stream=stream)
        await found.play(
            [
                *((at, f"{prompt}{' and more' * 99}", options) for at, prompt, options in bad),
                *steadily(0.0, SPAN, 5.0, rng, "good", stream=stream),
            ]
        )
        failures = found.failures()
    ill = [each for each in found.outcomes if each.prompt.startswith("bad")]
    good = [each for each in found.outcomes if each.prompt.startswith("good")]
    named = [each for each in ill if type(each.error) is error]
    calls = [call for call in found.calls("a") if prompt_of(call).startswith("bad")]
    elsewhere = [call for call in found.calls("b") if prompt_of(call).startswith("bad")]
    return {
        "tries on that model": most_tries(calls),
        "calls elsewhere": len(elsewhere),
        "refused as what it is %": percent(len(named), len(ill)),
        "answered elsewhere %": percent(sum(each.right for each in ill), len(ill)),
        "good ones by it %": percent(sum(each.provider == "a" for each in good), len(good)),
        "breaker's edges": len(found.edges),
        "breakers that counted failures": failures,
    }


async def leaving(seed: int, *, stream: bool) -> Figures:
    """Every other caller cancels while it waits, more than it takes to open a breaker."""

    def plays(stage: Stage) -> Plays:
        return {"a": stage.well("a"), "b": stage.well("b")}

    rng = Random(f"leaving {seed}")
    async with world(plays, seed) as found:

        async def leave(prompt: str) -> None:
            asking = asyncio.create_task(found.ask(prompt, stream=stream))
            await asyncio.sleep(rng.uniform(0.0, 0.03))
            asking.cancel()
            await asking

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(found.play(steadily(0.0, SPAN, 5.0, rng, "good", stream=stream)))
            for at, prompt, _ in steadily(0.0, SPAN, 10.0, rng, "leaving"):
                await found.until(at)
                tasks.create_task(leave(prompt))
        failures, lanes = found.failures(), found.bus.magic.gate.lanes.values()
        places = sum(lane.limiter.in_flight for lane in lanes)
        left = [call for call in found.calls("a") if prompt_of(call).startswith("leaving")]
        left_open = sum(not call.hung_up for call in left)  # before the bus ends: that closes all
    good = [each for each in found.outcomes if each.prompt.startswith("good")]
    return {
        "tries on that model": most_tries(left),
        "calls elsewhere": len(found.calls("b")),
        "sockets left open": left_open,
        "good ones by it %": percent(sum(each.right for each in good), len(good)),
        "breaker's edges": len(found.edges),
        "breakers that counted failures": failures,
        "places kept": places,
        "calls left": len(left),
        "callers left": sum(isinstance(e.error, asyncio.CancelledError) for e in found.outcomes),
    }


async def key_refused(seed: int, *, status: int) -> Figures:
    """From the fifth second on, one of two keys for the same provider is refused."""

    def plays(stage: Stage) -> Plays:
        well = stage.well("a")
        refusing = stage.during(5.0, FOREVER, stage.error(status), well)
        return {"a": lambda call: refusing if call.headers["authorization"] == REFUSED else well}

    async with world(plays, seed) as found:
        await found.register("spare", "openai", served_as="a")
        await found.play(steadily(0.0, 64.0, 10.0, Random(f"key {seed}")))
        failures = found.failures()
    refusals = [call.at for call in found.calls("a") if call.status == status]
    outcomes = found.outcomes
    return {
        "answered %": percent(sum(each.right for each in outcomes), len(outcomes)),
        "latest s": max(each.seconds for each in outcomes),
        "calls with the refused key": len(refusals),
        "of them in 30 s": sum(at < refusals[0] + 29.9 for at in refusals),
        "breaker's edges": len(found.edges),
        "breakers that counted failures": failures,
    }


REFUSED = "Bearer key-a"
FOREVER = 1e9
