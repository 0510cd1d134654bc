"""Upstream requests for each request of ours, refused ones included: total outages, transient ones.

    python bench/amplification.py [--seeds 1,2] [--only NAME ...] [--json]

A minute in which every provider is down, at several rates and in several ways; and a provider of
which a tenth of all calls fails, alone and with a healthy one behind it. Default settings, virtual
time. Figures are the worst of the seeds; those with a limit decide. Exit code 1 when one is missed.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from random import Random

from storm_stage import ERROR, WIRES, Stage
from ten_stage import Figures, firsts, most_tries, percent, steadily, world
from ten_table import Row, main

from zejzl.testing import Call, faults
from zejzl.testing.behaviours import Play, Rule

CALM, OUTAGE, AFTERWARDS = 5.0, 60.0, 10.0
REQUESTS = 2_000
MOST = 1.115  # 1.11, rounded: where a tenth fails and all is repeated, it is 1 / 0.9
FAULTS: Mapping[str, Play] = {
    "503": faults.status(503),
    "500": faults.status(500),
    "429": faults.rate_limited(),
    "reset": faults.reset(),
    "cut": faults.cut(0),
}


async def outage(seed: int, *, rate: float, providers: int, fault: str) -> Figures:
    """Every provider plays `fault` for a minute."""
    up = CALM + OUTAGE

    def plays(stage: Stage) -> Mapping[str, Play]:
        return {
            name: stage.during(CALM, up, stage.after(ERROR, FAULTS[fault]), stage.well(name))
            for name in list(WIRES)[:providers]
        }

    rng, usual = Random(f"outage {seed}"), min(rate, 20.0)
    async with world(plays, seed) as found:
        await found.play(
            [
                *steadily(0.0, CALM, usual, rng, "calm"),
                *steadily(CALM, up, rate, rng),
                *steadily(up, up + AFTERWARDS, usual, rng, "after"),
            ]
        )
    dark = found.asked(CALM, up)
    calls = [call for name in WIRES for call in found.calls(name, CALM, up)]
    late = found.asked(up + 5.0)
    return {
        "amplification": len(calls) / len(dark),
        "latest s": max(each.seconds for each in found.outcomes),
        "well s": min(found.back(up, name) for name in WIRES),
        "answered 5 s after it %": percent(sum(each.right for each in late), len(late)),
        "calls": len(calls),
        "for requests": firsts(calls),
        "most tries": most_tries(calls),
    }


async def transient(seed: int, *, rate: float, fallback: bool) -> Figures:
    """One of ten calls of A fails, in four ways."""

    def plays(stage: Stage) -> Mapping[str, Play]:
        kinds = [stage.after(ERROR, FAULTS[name]) for name in ("503", "500", "reset", "cut")]
        a = one_of_ten(kinds, stage.well("a"), stage.chance())
        return {"a": a, "b": stage.well("b")} if fallback else {"a": a}

    rng = Random(f"transient {seed}")
    async with world(plays, seed) as found:
        await found.play(steadily(0.0, REQUESTS / rate, rate, rng))
    calls = found.server.log
    return {
        "answered %": percent(sum(each.right for each in found.outcomes), REQUESTS),
        "amplification": len(calls) / REQUESTS,
        "latest s": max(each.seconds for each in found.outcomes),
        "failed calls": sum(call.outcome != "ok" for call in calls),
        "opened": len(found.opened()),
    }


def one_of_ten(kinds: Sequence[Play], otherwise: Play, rng: Random) -> Rule:
    """Fail one call of every ten, so that the share holds no chance of its own."""
    deck: list[bool] = []

    def rule(call: Call) -> Play:
        if not deck:
            deck.extend([True, *[False] * 9])
            rng.shuffle(deck)
        return rng.choice(kinds) if deck.pop() else otherwise

    return rule


ROWS = (
    *(
        Row(
            name=f"total outage at {rate} a second",
            variant=f"{'one provider' if providers == 1 else 'three providers'}, {fault}",
            play=partial(outage, rate=float(rate), providers=providers, fault=fault),
            most={"amplification": MOST, "well s": 10.0},
        )
        for rate, faulty in ((5, ("503", "500")), (50, ("503", "500", "reset")), (500, ("503",)))
        for providers in (1, 3)
        for fault in faulty
    ),
    *(
        Row(
            name=f"a tenth of the calls fails, {'a fallback' if fallback else 'alone'}",
            variant=f"{rate} a second",
            play=partial(transient, rate=float(rate), fallback=fallback),
            most={"amplification": MOST},
            least={"answered %": 100.0 if fallback else 97.0},
        )
        for fallback in (False, True)
        for rate in (5, 50)
    ),
)

if __name__ == "__main__":
    sys.exit(main(ROWS, __doc__))
