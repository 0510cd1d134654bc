"""The sixteen public failover scenarios: one primary, one fallback, the published timings.

    python bench/failover.py [--only NAME ...] [--wire anthropic] [--no-peer] [--json]

Each is played twice to the bus: with defaults, where every answer has to be right, and with
`patience=3`, two retries and one fallback, where a scenario passes if the providers' logs are as
they should be, too. Beside it the bare openai SDK with its two retries and a time-out of ten
seconds, which knows the primary alone; published for it is 6 of 16. The sockets are real, time is
virtual (`zejzl.testing.virtual`). Exit code 1 when one of ours is missed. The scenarios and their
limits: `failover_scenarios.py`.
"""

import argparse
import asyncio
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from failover_scenarios import ASKED, DOWN, SCENARIOS, UP, Scenario, arrivals
from machine import print_machine
from storms import shown
from ten_stage import ADAPTERS, World, world

from zejzl.errors import ZejzlError
from zejzl.messages import Reply
from zejzl.testing import Call, FaultServer, virtual
from zejzl.testing.behaviours import WireName

Figures = dict[str, float]

PATIENT: Mapping[str, Any] = {"patience": 3.0, "max_attempts": 3}  # a call and two retries
WAYS = {False: "plain", True: "streamed"}
LIMITED = 2.0  # seconds that a 429 of these scenarios asks to wait
CODES = {"ContextOverflow": "context_length_exceeded", "ContentFiltered": "content_filter"}
SDK_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What one caller got.

    Attributes:
        text: What he had at the end, with restarts applied.
        error: What was raised.
        right: Whether it is what the scenario wants.
    """

    text: str
    error: BaseException | None
    seconds: float
    right: bool
    reply: Reply | None = None


@dataclass(frozen=True, slots=True)
class Played:
    """One scenario, played once.

    Attributes:
        figures: What was measured.
        caller: The caller's view, in words.
        providers: The providers' logs, in words.
        missed: The limits that did not hold.
    """

    figures: Figures
    caller: str
    providers: str
    missed: tuple[str, ...]


def play(
    scenario: Scenario, *, stream: bool, patient: bool = False, wire: WireName = "openai"
) -> Played:
    """Play a scenario to the bus; takes some hundredths of the processor's seconds."""
    return virtual.run(_play(scenario, stream, patient, wire))


async def _play(scenario: Scenario, stream: bool, patient: bool, wire: WireName) -> Played:
    settings = PATIENT if patient else {}
    async with world(lambda stage: {}, seed=1, **settings) as found:
        for name, script, of in (
            ("primary", scenario.primary, wire),
            ("fallback", scenario.fallback, "openai"),
        ):
            found.server.play(name, script())
            url = found.server.base_url(name, of)
            clock = virtual.VirtualClock()
            made = ADAPTERS[of](base_url=url, api_key="key", model=f"{name}'s", clock=clock)
            await found.bus.register_provider(name, made)
        asked = []
        for at in arrivals(scenario):
            await found.until(at)
            asked.append(asyncio.create_task(ask(found, scenario, stream)))
        heard = [await each for each in asked]
        figures = measured(heard, found.server)
        missed = scenario.missed(figures, patient=patient, stream=stream)
        return Played(figures, callers_view(heard), providers_view(found.server.log), missed)


async def ask(found: World, scenario: Scenario, stream: bool) -> Heard:
    """Ask the bus once."""
    began, text, reply, error = found.now, "", None, None
    try:
        if stream:
            async for delta in found.bus.stream(ASKED, allow_restart=scenario.allow_restart):
                text = delta.text if delta.restart else text + delta.text
                reply = delta.reply
        else:
            reply = await found.bus.send(ASKED)
            text = reply.text
    except ZejzlError as raised:
        error = raised.with_traceback(None)
    if scenario.error is None:
        right = error is None and text in scenario.answers and reply is not None
        right = right and reply is not None and reply.text == text
    else:  # what had come is a part of the right answer, and the error says which
        right = type(error) is scenario.error and getattr(error, "prefix", text) == text
        right = right and scenario.answers[0].startswith(text)
    return Heard(text, error, found.now - began, right, reply)


def measured(heard: Sequence[Heard], server: FaultServer) -> Figures:
    """Return every figure that a scenario may limit."""
    calls = {name: server.calls(name) for name in ("primary", "fallback")}
    refused = [call for call in calls["primary"] if call.outcome == "rate_limited"]
    good = [call.at for call in calls["primary"] if call.outcome == "ok"]
    return {
        "right %": 100.0 * sum(each.right for each in heard) / len(heard),
        "seconds": max(each.seconds for each in heard),
        **{f"{name} calls": len(made) / len(heard) for name, made in calls.items()},
        "open": sum(call.seconds is None for call in server.log),
        "early": sum(
            first.at < later.at < first.at + LIMITED
            for first, later in itertools.pairwise([*refused, *calls["primary"][len(refused) :]])
        ),
        "prefills": sum(bool(call.prefill) for call in server.log),
        "calls in the outage": sum(DOWN <= call.at < UP for call in calls["primary"]),
        "misreported": sum(misreported(each.reply, server.log) for each in heard),
        "back s": min((at - UP for at in good if at >= UP), default=float("inf")),
    }


def misreported(reply: Reply | None, log: Iterable[Call]) -> bool:
    """Say whether a reply names another provider, model or bill than that of who answered."""
    if reply is None:
        return False
    served = [call for call in log if call.provider == reply.provider and call.outcome == "ok"]
    if not served:
        return reply.provider not in {call.provider for call in log}
    call = served[-1]
    bill = (call.model, call.prompt_tokens, call.words)
    usage = reply.usage
    return bill != (reply.model, usage.prompt_tokens, usage.completion_tokens)


# ── The peer ──────────────────────────────────────────────────────────────────────────────────────


def play_peer(scenario: Scenario, *, stream: bool) -> Played:
    """Play a scenario to the bare openai SDK, which knows the primary alone."""
    return virtual.run(_play_peer(scenario, stream))


async def _play_peer(scenario: Scenario, stream: bool) -> Played:
    import openai

    async with FaultServer() as server:
        server.play("primary", scenario.primary())
        async with openai.AsyncOpenAI(
            base_url=server.base_url("primary"), api_key="key", timeout=SDK_TIMEOUT
        ) as client:
            asked = []
            for at in arrivals(scenario):
                await asyncio.sleep(max(0.0, at - server.now()))
                asked.append(asyncio.create_task(ask_peer(client, server, scenario, stream)))
            heard = [await each for each in asked]
            figures = measured(heard, server)
        missed = scenario.missed(figures, patient=True, stream=stream)
        return Played(figures, callers_view(heard), providers_view(server.log), missed)


async def ask_peer(client: Any, server: FaultServer, scenario: Scenario, stream: bool) -> Heard:
    began, text, error = server.now(), "", None
    options = {"model": "primary's", "messages": [{"role": "user", "content": ASKED}]}
    try:
        answer = await client.chat.completions.create(**options, stream=stream)
        if stream:
            async for chunk in answer:
                text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        else:
            text = answer.choices[0].message.content or ""
    except Exception as raised:  # noqa: BLE001 - whatever a client raises is its answer
        error = raised.with_traceback(None)
    if scenario.error is None:
        right = error is None and text in scenario.answers
    else:
        right = getattr(error, "code", None) == CODES.get(scenario.error.__name__)
    return Heard(text, error, server.now() - began, right)


# ── The table ─────────────────────────────────────────────────────────────────────────────────────


def callers_view(heard: Sequence[Heard]) -> str:
    """Say what became of the requests, and what the latest took."""

    def said(each: Heard) -> str:
        if each.error is not None:
            return type(each.error).__name__ + (f" after {words(each)}" if each.text else "")
        by = f"{each.reply.provider}'s" if each.reply is not None else "the"
        return f"{by} {'answer' if each.right else 'WRONG ANSWER'}"

    def words(each: Heard) -> str:
        return f"{len(each.text.split())} words"

    return f"{runs(map(said, heard))} in {max(each.seconds for each in heard):.1f} s"


def providers_view(log: Iterable[Call]) -> str:
    """Say what each provider played, in order."""
    calls = sorted(log, key=lambda call: call.provider, reverse=True)
    return "; ".join(
        f"{name}: {runs(call.outcome for call in of)}"
        for name, of in itertools.groupby(calls, key=lambda call: call.provider)
    )


def runs(names: Iterable[str]) -> str:
    found = [(name, len(list(same))) for name, same in itertools.groupby(names)]
    return ", ".join(f"{name} ×{times}" if times > 1 else name for name, times in found)


@dataclass(frozen=True, slots=True)
class Row:
    """One reading of a scenario, one way, to both settings and the peer."""

    scenario: Scenario
    stream: bool
    default: Played
    patient: Played
    peer: Played | None

    @property
    def title(self) -> str:
        return f"{self.scenario.title}, {WAYS[self.stream]}"


def rows(chosen: Sequence[Scenario], wire: WireName, *, peer: bool) -> Iterator[Row]:
    for scenario in chosen:
        for stream in scenario.ways:
            beside = play_peer(scenario, stream=stream) if peer and scenario.peer else None
            yield Row(
                scenario,
                stream,
                play(scenario, stream=stream, wire=wire),
                play(scenario, stream=stream, patient=True, wire=wire),
                beside,
            )


def print_row(row: Row) -> None:
    print(row.title)
    for name, good, played in (
        ("defaults", "right", row.default),
        ("patience 3", "pass", row.patient),
        ("openai SDK", "pass", row.peer),
    ):
        if played is not None:
            verdict = "MISS" if played.missed else good
            missed = "".join(f"  {each} {shown(played.figures[each])}" for each in played.missed)
            print(f"    {name:<11} {verdict:<6} {played.caller:<52} {played.providers}{missed}")
    sys.stdout.flush()


def count(verdicts: Iterable[tuple[int, bool]]) -> str:
    """Return how many scenarios passed, all their readings and ways."""
    passed: dict[int, bool] = {}
    for number, good in verdicts:
        passed[number] = passed.get(number, True) and good
    return f"{sum(passed.values())} of {len(passed)}"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--only", nargs="+", default=[], metavar="NAME", help="part of a title")
    arguments.add_argument("--wire", choices=list(ADAPTERS), default="openai", help="primary's")
    arguments.add_argument("--no-peer", action="store_true")
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    chosen = [
        each
        for each in SCENARIOS
        if not given.only or any(part.lower() in each.title.lower() for part in given.only)
    ]
    if not chosen:
        known = ", ".join(each.title for each in SCENARIOS)
        arguments.error(f"no scenario of that name; known: {known}")
    found = []
    if not given.json:
        print_machine()
    for row in rows(chosen, given.wire, peer=not given.no_peer):
        found.append(row)
        if not given.json:
            print_row(row)
    if given.json:
        print(json.dumps([as_json(row) for row in found], indent=2))
    else:
        print_end(found)
    return 1 if any(row.default.missed or row.patient.missed for row in found) else 0


def print_end(found: Sequence[Row]) -> None:
    right = count((row.scenario.number, not row.default.missed) for row in found)
    passed = count((row.scenario.number, not row.patient.missed) for row in found)
    print(f"\nanswered rightly with defaults: {right}; pass with patience=3: {passed}")
    beside = [(row.scenario.number, not row.peer.missed) for row in found if row.peer is not None]
    if beside:
        print(f"openai SDK: {count(beside)} (published: 6 of 16)")


def as_json(row: Row) -> dict[str, object]:
    played = {"defaults": row.default, "patience": row.patient, "peer": row.peer}
    return {
        "scenario": row.title,
        **{
            name: each
            and {
                "figures": each.figures,
                "caller": each.caller,
                "providers": each.providers,
                "missed": each.missed,
            }
            for name, each in played.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
