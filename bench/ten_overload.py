"""Scenario 9: three times what a provider can take, every tenth request critical."""

import gc
import statistics
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from random import Random

from storm_stage import ANSWER, Stage
from ten_stage import Arrival, Figures, percent, steadily, world

from zejzl.engine.journey import Journey
from zejzl.engine.waiting import InLine
from zejzl.errors import AttemptTimeout, CircuitOpen, Overloaded, ProviderError, Shielded
from zejzl.magic.lanes import Permit
from zejzl.testing.behaviours import Play

SLOTS = 3
CAPACITY = SLOTS / statistics.mean(ANSWER)  # answers a second
TIMES, CRITICAL = 3.0, 0.1
DEADLINE = 10.0
CALM, FLOOD, ENDS = 5.0, 12.0, 36.0  # when the flood begins, from when it is measured, its end
BURSTS = (5.0, 20.0), (32.0, 47.0)  # floods after each of which memory is measured, when all ended
OURS = [
    tracemalloc.Filter(True, f"*/{part}")
    for part in ("zejzl/engine/*", "zejzl/magic/*", "zejzl/policies/*", "ai_framework.py")
]


def arrivals(seed: int) -> Iterator[Arrival]:
    rng = Random(f"overload {seed}")
    yield from steadily(0.0, CALM, 0.5 * CAPACITY, rng, "calm", deadline=DEADLINE)
    for at, prompt, options in steadily(CALM, ENDS, TIMES * CAPACITY, rng, deadline=DEADLINE):
        criticality = "critical" if rng.random() < CRITICAL else "normal"
        yield at, prompt, {**options, "criticality": criticality}


def limited(queue: int, refusal: int) -> Callable[[Stage], Mapping[str, Play]]:
    return lambda stage: {"a": stage.well("a", slots=SLOTS, queue=queue, overload=refusal)}


async def overload(seed: int, *, queue: int, refusal: int = 503) -> Figures:
    """A answers `SLOTS` at once; `queue` more wait there, and who comes then gets `refusal`."""
    async with world(limited(queue, refusal), seed) as found:
        await found.play(arrivals(seed))
    flood = found.asked(CALM)
    critical = [each for each in flood if each.options.get("criticality") == "critical"]
    good = sum(each.right and FLOOD <= each.ends < ENDS for each in found.outcomes)
    refused = [each for each in flood if isinstance(each.error, Overloaded | Shielded)]
    work = [each.work for each in refused if each.seconds == 0.0] or [0.0]  # none but its own
    calls = found.calls("a", CALM)
    return {
        "critical ones answered %": percent(sum(each.right for each in critical), len(critical)),
        "goodput %": percent(good, CAPACITY * (ENDS - FLOOD)),
        "99 % refused after ms": 1000.0 * at_99([each.seconds for each in refused]),
        "refusal's work ms": 1000.0 * statistics.median(work),
        "99 % of them ms": 1000.0 * at_99(work),
        "requests": len(flood),
        "answered": sum(each.right for each in flood),
        "refused": len(refused),
        "refused late": sum(each.seconds > 0.01 for each in refused),
        "last refused after ms": 1000.0 * max((each.seconds for each in refused), default=0.0),
        "paused": sum(isinstance(each.error, CircuitOpen) for each in flood),
        "failed": sum(isinstance(each.error, ProviderError) for each in flood),
        "of them at the deadline": sum(isinstance(e.error, AttemptTimeout) for e in flood),
        "calls": len(calls),
        "of them refused": sum(call.status == refusal for call in calls),
        "of them left": sum(call.hung_up for call in calls),
        "opened": len(found.opened()),
        "usual answer s": statistics.median(each.seconds for each in flood if each.right),
        "usual critical s": statistics.median(each.seconds for each in critical),
    }


def at_99(times: list[float]) -> float:
    return sorted(times)[-1 - len(times) // 100] if times else 0.0


async def growth(seed: int, *, queue: int) -> Figures:
    """What the library's own code holds after a flood, and after one more."""
    sizes: list[int] = []
    async with world(limited(queue, 503), seed) as found:
        tracemalloc.start()
        for start, end in BURSTS:
            rate = TIMES * CAPACITY
            rng = Random(f"burst {seed}")
            await found.play(steadily(start, end, rate, rng, deadline=DEADLINE))
            found.outcomes.clear()
            found.server.log.clear()
            gc.collect()
            held = tracemalloc.take_snapshot().filter_traces(OURS)
            sizes.append(sum(trace.size for trace in held.traces))
        tracemalloc.stop()
        left = sum(isinstance(each, Journey | Permit | InLine) for each in gc.get_objects())
    before, after = sizes
    return {
        "bytes a request": (after - before) / (rate * (end - start)),
        "objects left": left,
        "held KiB": after / 1024.0,
    }
