"""The storms: what each provider plays, what is measured beside the common figures, what must be.

Times are seconds since the start. Errors take 10–30 ms, answers 40–80 ms, unless a storm says
otherwise. `GATE` holds for every scored storm but the total outage.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

from storm_run import RATE, SECONDS, Figures, Outcome, Scenario, Storm, is_bad
from storm_stage import ANSWER, ERROR, WIRES, Stage, answer_of, asked, head

from zejzl.testing import Call, faults
from zejzl.testing.behaviours import Play

LEAST = {"ok2 %": 99.5}
MOST = {"wrong": 0.0, "ampl": 1.10}
ALL_DOWN = "all down 5.5 s"

Plays = Mapping[str, Play]


def times(span: tuple[float, float], factor: float) -> tuple[float, float]:
    return span[0] * factor, span[1] * factor


# ── Figures ───────────────────────────────────────────────────────────────────────────────────────


def back(end: float) -> Callable[[Storm], Figures]:
    """Seconds from the fault's end to the end of the primary's first good answer after it."""

    def figures(storm: Storm) -> Figures:
        healed = end * storm.stage.scale
        good = (
            call.at + call.seconds
            for call in storm.calls["a"]
            if call.at >= healed and call.seconds is not None and served(call)
        )
        return {"back s": min(good, default=float("inf")) - healed}

    return figures


def served(call: Call) -> bool:
    return call.outcome == "ok" and call.status == 200 and not call.hung_up


def inside_windows(storm: Storm) -> Figures:
    """Calls that came after a provider had told to wait, and before it was to be called again."""
    inside = 0
    for calls in storm.calls.values():
        windows = [
            (call.at + call.seconds, call.at + call.seconds + wait)
            for call in calls
            if (wait := storm.stage.told.get((call.provider, call.request_id)))
            and call.seconds is not None
        ]
        inside += sum(any(told <= call.at < over for told, over in windows) for call in calls)
    return {"inside": inside}


def tries(storm: Storm) -> Figures:
    """Most refusals that one bad request met, and calls with the key that is refused."""
    every = storm.every_call
    refused = Counter(head(asked(call)) for call in every if call.status == 400)
    return {
        "tries at a 400": max(refused.values(), default=0),
        "key calls": sum(call.status == 401 for call in every),
    }


def tries_of_long(storm: Storm) -> Figures:
    """Calls for each prompt that is too long for A."""
    long = [each for each in storm.outcomes if words(each.prompt) > CONTEXT]
    return {"tries of long": storm.calls_of(long) / len(long)}


def waste(storm: Storm) -> Figures:
    """Share of the answers that providers began to work on whose caller left before their end."""
    used = sum(served(call) for call in storm.every_call)
    return {"waste %": 100.0 * (1.0 - used / sum(storm.stage.begun.values()))}


def dark(start: float, end: float) -> Callable[[Storm], Figures]:
    """What became of requests that came in the outage, and how soon all is well after it.

    each        calls for each of them, whenever they were made
    dark ok %   how many of them were answered in the end
    well s      when the first request came that was answered, after the outage's end
    after %     how many of those that came a second after the end, or later, were answered
    """

    def figures(storm: Storm) -> Figures:
        scale, outcomes = storm.stage.scale, storm.outcomes
        inside = [each for each in outcomes if start * scale <= each.at < end * scale]
        late = [each for each in outcomes if each.at >= (end + 1.0) * scale]
        right = [each.at for each in outcomes if each.at >= end * scale and is_right(each)]
        return {
            "each": storm.calls_of(inside) / len(inside),
            "dark ok %": 100.0 * sum(map(is_right, inside)) / len(inside),
            "well s": min(right, default=float("inf")) - end * scale,
            "after %": 100.0 * sum(map(is_right, late)) / len(late),
        }

    return figures


def is_right(outcome: Outcome) -> bool:
    return outcome.verdict == "right"


# ── What is played ────────────────────────────────────────────────────────────────────────────────


def healthy(stage: Stage) -> Plays:
    return {name: stage.well(name) for name in WIRES}


def transient(stage: Stage) -> Plays:
    kinds = [
        stage.error(500),
        stage.error(503),
        stage.after(ERROR, faults.html(502)),
        stage.after(ERROR, faults.reset()),
    ]
    return {name: stage.some(0.01, kinds, stage.well(name)) for name in WIRES}


def primary(start: float, end: float, fault: Callable[[Stage], Play]) -> Callable[[Stage], Plays]:
    """A plays `fault` between two times; B and C are well."""

    def plays(stage: Stage) -> Plays:
        well = healthy(stage)
        return {**well, "a": stage.during(start, end, fault(stage), well["a"])}

    return plays


def rotating(stage: Stage) -> Plays:
    """A, B, C are down in turn for three seconds each, and once more: one of them always is."""
    plays: dict[str, Play] = {}
    for place, name in enumerate(WIRES):
        first, second, down = 4.0 + 3.0 * place, 13.0 + 3.0 * place, stage.error(503)
        again = stage.during(second, second + 3.0, down, stage.well(name))
        plays[name] = stage.during(first, first + 3.0, down, again)
    return plays


def throttled(stage: Stage) -> Plays:
    well = healthy(stage)
    return {
        "a": stage.during(5.0, 13.0, stage.limiting(2.0, 3.0), well["a"]),
        "b": stage.during(7.0, 10.0, stage.limiting(2.0, 3.0), well["b"]),
        "c": well["c"],
    }


def limited(*slots: int, queue: int, overload: int = 503) -> Callable[[Stage], Plays]:
    """Each provider answers so many at once and lets `queue` wait; one that is not named, all."""

    def plays(stage: Stage) -> Plays:
        rooms = dict(zip(WIRES, slots, strict=False))
        return {
            name: stage.well(name, slots=rooms[name], queue=queue, overload=overload)
            if name in rooms
            else stage.well(name)
            for name in WIRES
        }

    return plays


def cut(after: int | None) -> Callable[[Stage], Plays]:
    """Three of ten of A's streams break off: after so many words, or before a header."""

    def broken(call: Call) -> Play:
        if after is None:
            return faults.reset()
        return replace(faults.cut(after), words=faults.ok(answer_of(asked(call))).words)

    def fault(stage: Stage) -> Play:
        return stage.some(0.3, [stage.after(times(ANSWER, 0.5), broken)], stage.well("a"))

    return primary(5.0, 20.0, fault)


def refusing(stage: Stage) -> Plays:
    """All refuse bad requests; from the tenth second on, A's key is not valid any more."""
    bad, key = stage.error(400), stage.error(401)
    plays: dict[str, Play] = {name: _unless_bad(bad, stage.well(name)) for name in WIRES}
    return {**plays, "a": stage.during(10.0, SECONDS, key, plays["a"])}


def _unless_bad(bad: Play, well: Play) -> Play:
    return lambda call: bad if is_bad(asked(call)) else well


CONTEXT = 250  # words that A takes


def words(prompt: str) -> int:
    return len(prompt.split())


def short_context(stage: Stage) -> Plays:
    well = healthy(stage)
    too_long = stage.after(ERROR, faults.context_overflow())

    def a(call: Call) -> Play:
        return too_long if words(asked(call)) > CONTEXT else well["a"]

    return {**well, "a": a}


def broken(stage: Stage) -> Plays:
    kinds: list[Play] = [faults.empty(), faults.malformed(), faults.html(200), faults.error_event()]
    late = [stage.after(ANSWER, kind) for kind in kinds]
    well = healthy(stage)
    return {**well, "a": stage.some(0.05, late, well["a"])}


def grey(stage: Stage) -> Play:
    return stage.some(0.2, [faults.silence()], stage.well("a", times(ANSWER, 3.0)))


def all_down(stage: Stage) -> Plays:
    return {
        name: stage.during(5.0, 10.5, stage.error(503), play)
        for name, play in healthy(stage).items()
    }


# ── What is asked ─────────────────────────────────────────────────────────────────────────────────


def some_bad(rng: Random) -> str:
    return "bad" if rng.random() < 0.03 else "what do rivers carry?"


def some_long(rng: Random) -> str:
    long = rng.random() < 0.2
    return "word " * (rng.randint(300, 900) if long else rng.randint(5, 150))


def burst(at: float) -> float:
    return 3.0 * RATE if 5.0 <= at < 8.0 else RATE


SCENARIOS = (
    Scenario(name="healthy", plays=healthy, most={"p99 ms": 80.0, "ampl": 1.01}),
    Scenario(name="1 % transient errors", plays=transient, most={"p99 ms": 80.0, "ampl": 1.02}),
    *(
        Scenario(
            name="primary down 3.5 s",
            variant=variant,
            plays=plays,
            ports=ports,
            figures=back(8.5),
            most={"p99 ms": 110.0, "ampl": 1.03, "back s": 1.25},
            least={"ok %": 100.0},
        )
        for variant, plays, ports in (
            ("503", primary(5.0, 8.5, lambda stage: stage.error(503)), {}),
            ("port closed", healthy, {"a": (5.0, 8.5)}),
        )
    ),
    Scenario(
        name="primary 15× slower",
        plays=primary(5.0, SECONDS, lambda stage: stage.well("a", times(ANSWER, 15.0))),
        most={"p95 ms": 110.0, "p99 ms": 250.0, "ampl": 1.05},
    ),
    Scenario(
        name="primary hangs 4 s",
        plays=primary(5.0, 9.0, lambda stage: faults.silence()),
        figures=back(9.0),
        most={"p95 ms": 110.0, "p99 ms": 250.0, "ampl": 1.05},
    ),
    Scenario(
        name="429 storm with Retry-After",
        plays=throttled,
        figures=inside_windows,
        most={"p99 ms": 140.0, "inside": 3.0},
    ),
    *(
        Scenario(
            name="overload, limited capacity",
            variant=variant,
            plays=plays,
            figures=waste,
            most={"p99 ms": 800.0, "waste %": 3.5},
            peer=peer,
        )
        for variant, plays, peer in (
            ("A queues", limited(2, queue=40), True),
            ("all queue, 429", limited(2, 1, 1, queue=40, overload=429), False),
            ("A refuses", limited(2, queue=0), True),
        )
    ),
    *(
        Scenario(
            name="streams cut",
            variant=variant,
            plays=cut(after),
            stream=True,
            most={"ampl": 1.20},
            scored=scored,
        )
        for variant, after, scored in (
            ("before the headers", None, True),
            ("before a word", 0, True),
            ("midway", 6, True),
        )
    ),
    Scenario(
        name="rotating outages",
        plays=rotating,
        most={"p99 ms": 145.0, "ampl": 1.06},
        least={"ok %": 100.0},
    ),
    Scenario(
        name="400s and a 401 mixed in",
        plays=refusing,
        prompt=some_bad,
        figures=tries,
        most={"tries at a 400": 1.0, "key calls": 4.0},
    ),
    Scenario(
        name="context too long for A",
        plays=short_context,
        prompt=some_long,
        figures=tries_of_long,
        most={"tries of long": 1.1},
    ),
    Scenario(name="broken 200s", plays=broken, most={"p99 ms": 145.0, "ampl": 1.08}),
    Scenario(
        name="grey failure",
        plays=primary(5.0, SECONDS, grey),
        most={"p95 ms": 120.0, "p99 ms": 220.0, "ampl": 1.02},
    ),
    Scenario(
        name="retry storm, limited capacity",
        plays=limited(3, 3, 3, queue=200),
        rate=burst,
        figures=waste,
        most={"p99 ms": 1300.0, "ampl": 1.04},
    ),
    Scenario(
        name=ALL_DOWN,
        variant="patience 0",
        plays=all_down,
        patience=0.0,
        figures=dark(5.0, 10.5),
        most={"each": 0.16, "well s": 0.5, "wrong": 0.0},
        least={"after %": 99.5},
    ),
    Scenario(
        name=ALL_DOWN,
        variant="patience 9",
        plays=all_down,
        patience=9.0,
        figures=dark(5.0, 10.5),
        most={"each": 1.3, "wrong": 0.0},
        least={"dark ok %": 99.0},
        peer=False,
    ),
)
"""Fourteen names, and the total outage; the order is that of the table."""
