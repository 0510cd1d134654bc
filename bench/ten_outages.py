"""Scenarios 1 to 3: a provider that is down, one that comes back, one that says nothing."""

from collections.abc import Mapping
from dataclasses import replace
from random import Random

from storm_stage import ANSWER, ERROR, Stage, answer_of, asked
from ten_stage import NEVER, Figures, World, firsts, most_tries, percent, steadily, world

from zejzl.policies.failover import dark_spacing
from zejzl.testing import faults
from zejzl.testing.behaviours import Answer, Play, Refusal

Plays = Mapping[str, Play]

# ── 1: a thousand callers of one provider that is down for a minute ──────────────────────────────

DOWN, UP, CALLERS = 5.0, 65.0, 1_000


async def retry_storm(seed: int, *, over: float, calm: float, patience: float | None) -> Figures:
    """503 for a minute from the fifth second on, while a thousand callers come.

    Args:
        over: Seconds within which they do.
        calm: Requests a second before that.
        patience: The setting.
    """

    def plays(stage: Stage) -> Plays:
        return {"a": stage.during(DOWN, UP, stage.error(503), stage.well("a"))}

    rng = Random(f"callers {seed}")
    async with world(plays, seed, patience=patience) as found:
        await found.play(
            [
                *steadily(0.0, DOWN, calm, rng, "calm"),
                *(
                    (DOWN + rng.uniform(0.0, over), f"caller {at}: what is up?", {})
                    for at in range(CALLERS)
                ),
                *steadily(UP, UP + 15.0, 5.0, rng, "after"),
            ]
        )
    inside = found.calls("a", DOWN, UP)
    callers = [each for each in found.outcomes if each.prompt.startswith("caller")]
    return {
        "upstream ÷ first attempts": len(inside) / firsts(inside),
        "probes an interval": probes_an_interval(found),
        "told an answer or a typed error %": percent(sum(e.told for e in callers), CALLERS),
        "latest s": max(each.seconds for each in callers),
        "back s": found.back(UP),
        "first attempts": firsts(inside),
        "calls": len(inside),
        "most tries": most_tries(inside),
        "answered": sum(each.right for each in callers),
    }


def probes_an_interval(found: World) -> float:
    """Return the most calls that came within one probe interval while the breaker was open.

    There is one provider, so the interval is that of the dark: half a second, or a twentieth of
    the time since it opened.
    """
    opened = found.opened(DOWN)
    if not opened:
        return NEVER
    dark = opened[0]
    probes = [call.at for call in found.calls("a", dark, UP)]
    most = 0
    for probe in probes:
        end = probe + 0.99 * dark_spacing(probe - dark)
        most = max(most, sum(probe <= other < end for other in probes))
    return most


# ── 2: one request a second, streamed; the first of two providers is down for a minute ───────────

CALM, OUTAGE, AFTERWARDS = 25.0, 60.0, 15.0
PHASES = 4  # outages a seed, each beginning at another moment between two requests
OTHER = "I beg to differ."


FLAPS: Mapping[str, Answer | Refusal] = {
    "503": faults.status(503),
    "reset": faults.reset(),
    "silence": faults.silence(),
    "cut": faults.cut(6),
    "error event": faults.error_event(6),
    "stall": faults.stall(6),
}


async def flap(seed: int, *, fault: str, alike: bool = True) -> Figures:
    """A plays `fault` for a minute; each figure is the worst of several outages.

    Args:
        alike: Whether both give the same answers, so that one can complete the other's.
    """
    runs = [await one_flap(PHASES * seed + phase, fault, alike) for phase in range(PHASES)]
    return {
        name: (min if name in ("answered %", "opened") else max)(run[name] for run in runs)
        for name in runs[0]
    }


async def one_flap(seed: int, fault: str, alike: bool) -> Figures:
    down = CALM + Random(f"flap {seed}").random()
    up = down + OUTAGE

    def plays(stage: Stage) -> Plays:
        a = stage.during(down, up, stage.after(ERROR, breaking(fault)), stage.well("a"))
        b = stage.well("b")
        return {"a": a, "b": b if alike else stage.after(ANSWER, faults.ok(OTHER))}

    async with world(plays, seed, also=OTHER) as found:
        await found.play(
            (float(at), f"request {at}: what do rivers carry?", {"stream": True})
            for at in range(int(up + AFTERWARDS))
        )
    inside = found.calls("a", down, up)
    return {
        "answered %": percent(sum(each.right for each in found.outcomes), len(found.outcomes)),
        "wrong": found.wrong(),
        "primary attempts": len(inside),
        "back s": found.back(up),
        "opened": len(found.opened(down)),
        "latest s": max(each.seconds for each in found.outcomes),
        "most tries": most_tries(inside),
    }


def breaking(fault: str) -> Play:
    """Return what breaks off the right answer."""
    play = FLAPS[fault]
    if isinstance(play, Refusal):
        return play
    return lambda call: replace(play, words=faults.ok(answer_of(asked(call))).words)


# ── 3: a provider that takes the request and says nothing ────────────────────────────────────────


async def silent(seed: int, *, stream: bool, headers: bool, warm: bool) -> Figures:
    """A says nothing, from its first call on or (`warm`) after it has been well for a while."""
    begins = 20.0 if warm else 0.0

    def plays(stage: Stage) -> Plays:
        silence = faults.silence(headers=headers)
        a = stage.during(begins, 1e9, silence, stage.well("a"))
        return {"a": a, "b": stage.well("b")}

    rng = Random(f"silent {seed}")
    async with world(plays, seed) as found:
        settings = found.bus.settings
        limit = settings.first_token_timeout if stream else settings.attempt_timeout
        assert limit is not None
        await found.play(
            [
                *steadily(0.0, begins, 5.0, rng, "calm", stream=stream),
                *steadily(begins, begins + 20.0, 1.0, rng, "silent", stream=stream),
            ]
        )
        # What is still open now is closed by the server's own end, which tells nothing.
        unheard = [call for call in found.calls("a") if asked(call).startswith("silent")]
        closed = [call.seconds for call in unheard if call.hung_up and call.seconds is not None]
    outcomes = found.asked(begins)
    return {
        "answered %": percent(sum(each.right for each in outcomes), len(outcomes)),
        "beyond the limit s": max(each.seconds for each in outcomes) - limit,
        "tries": most_tries(unheard),
        "sockets left open": len(unheard) - len(closed),
        "closed after s": max(closed, default=0.0),
        "calls of the silent one": len(unheard),
    }
