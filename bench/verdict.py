"""An outside judge: llmock breaks a bus's providers in each of its ways, and gives its verdict.

    python bench/verdict.py [--only NAME ...]

llmock (PyPI) is a server of its own on loopback that sees every attempt with its time and its body,
and judges by that alone: whether a Retry-After was waited out, a 400 sent again, a cut stream taken
for whole, an outage stormed. Each of its fault modes is played on the OpenAI, the Anthropic and the
Gemini wire, plain and streamed, to a bus that has this provider alone and to one that has a
fallback behind it. Beside its verdict stands ours: whether the caller got the answer, or a typed
error where there is none to be had.

A FAIL fails; so does a caller who was told something wrong. A WARN is shown with our reason for it.
Faults of tool calls are left out: the bus sends no tools. Time is the machine's: some ten seconds.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from llmock.chaos import ChaosSettings
from llmock.ratelimit import LimitSettings
from llmock.scenarios import Behavior, Delay, Fail, Match, Reply, SlowFirstToken, StreamFault
from llmock.testing import LLMockServer
from llmock.verdict import Finding, judge
from machine import print_machine

from ai_framework import AsyncMessageBus
from zejzl.errors import ZejzlError
from zejzl.providers import Anthropic, Gemini, OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore
from zejzl.testing import CANONICAL

ADAPTERS = {"openai": OpenAICompatible, "anthropic": Anthropic, "gemini": Gemini}
WORDS = "what do rivers carry?"
LONG = "word " * 2_000
AT_ONCE = 60  # cases under way together; more would make the machine late, not the provider

# Why we do what llmock warns of: alone, and with a fallback.
AGAIN = "asked for again: it had sent the whole stream by then, and takes that for another request"
QUICK = "three calls at most; the second goes at once, the third after a drawn wait of up to 0.1 s"
REASONS = {
    "gave_up": ("the wait it asks for is beyond the patience", "it has moved on to the fallback"),
    "no_backoff": (QUICK, QUICK),
    "malformed_chunk_ignored": (AGAIN, AGAIN),
}


Faults: TypeAlias = Callable[[Match], Sequence[Behavior]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One way to break a provider.

    Attributes:
        name: As llmock calls it.
        faults: What its next requests meet, for the given model.
        ways: Streamed, plain or both.
        answered: Whether an answer is to be had alone, and with a fallback; None: by chance.
        settings: Of the bus, that are not the defaults.
        requests: How many are sent, one after another.
        prompt: What is asked.
        max_tokens: Longest answer.
        server: Which of the servers, by what is set for it.
        why: The reason for what it is warned of, where it is not the usual one.
    """

    name: str
    faults: Faults = lambda match: ()
    ways: tuple[bool, ...] = (False, True)
    answered: tuple[bool | None, bool] = (True, True)
    settings: dict[str, float] = field(default_factory=dict)
    requests: int = 1
    prompt: str = WORDS
    max_tokens: int | None = None
    server: str = "plain"
    why: str = ""


STATUSES: dict[
    int, tuple[bool | None, bool]
] = {  # whether an answer is to be had alone, and with a fallback
    **dict.fromkeys((400, 404, 422), (False, False)),
    **dict.fromkeys((401, 403), (False, True)),
    413: (None, True),  # on Gemini's wire with the code of a quota, which is waited for
    **dict.fromkeys((408, 409, 500, 502), (True, True)),
    **dict.fromkeys((429, 503, 504, 529), (True, True)),
}
PATIENT = {"patience": 3.0}
HASTY = {"first_token_timeout": 1.5, "idle_timeout": 1.5, "attempt_timeout": 1.5}


def failing(status: int, **how: Any) -> Faults:
    return lambda match: [Fail(status, match=match, **how)]


def broken(kind: str, after: int, seconds: float = 5.0) -> Faults:
    return lambda match: [
        StreamFault(
            kind,  # type: ignore[arg-type]
            after_chunks=after,
            stall_seconds=seconds,
            match=replace(match, stream=True),
        )
    ]


MODES = (
    *(
        Mode(
            name=f"fail {status}",
            faults=failing(status),
            answered=answered,
            settings=PATIENT,
        )
        for status, answered in STATUSES.items()
    ),
    Mode(
        name="rate_limit, retry_after 0.5",
        faults=failing(429, retry_after=0.5),
    ),
    Mode(
        name="rate_limit, retry_after 0.4, twice",
        faults=failing(429, retry_after=0.4, times=2),
        settings=PATIENT,
    ),
    Mode(
        name="rate_limit, retry_after 60",
        faults=failing(429, retry_after=60),
        answered=(False, True),
    ),
    *(
        Mode(
            name=f"outage, {status}",
            faults=failing(status, times=None),
            answered=(False, True),
            settings=settings,
        )
        for status in (500, 503, 529)
        for settings in ({}, PATIENT)
    ),
    Mode(
        name="context_overflow",
        faults=failing(400, code="context_length_exceeded", message="too long"),
        answered=(False, True),
    ),
    Mode(name="limits, context_window", prompt=LONG, answered=(False, True), server="window"),
    Mode(name="limits, rpm", requests=31, server="rpm", settings=PATIENT),
    Mode(name="limits, tpm", requests=27, server="tpm", settings=PATIENT, max_tokens=270),
    Mode(name="delay 0.3", faults=lambda match: [Delay(0.3, match=match)]),
    Mode(
        name="delay beyond our limit",
        faults=lambda match: [Delay(3.0, match=match)],
        settings=HASTY | PATIENT,
    ),
    Mode(
        name="slow_first_token 0.3",
        faults=lambda match: [SlowFirstToken(0.3, match=match)],
        ways=(True,),
    ),
    Mode(
        name="slow_first_token beyond our limit",
        faults=lambda match: [SlowFirstToken(3.0, match=match)],
        ways=(True,),
        settings=HASTY | PATIENT,
    ),
    *(
        Mode(name=f"{kind} after {after}", faults=broken(kind, after), ways=(True,))
        for kind in ("disconnect", "truncate", "malformed")
        for after in (0, 1, 2, 3, 5)
    ),
    Mode(name="stall for 0.3", faults=broken("stall", 4, 0.3), ways=(True,)),
    *(
        Mode(
            name=f"stall after {after} beyond our limit",
            faults=broken("stall", after),
            ways=(True,),
            settings=HASTY | PATIENT,
        )
        for after in (0, 1, 4)
    ),
    Mode(name="pace", server="pace", ways=(True,)),
    Mode(
        name="chaos, a quarter fails",
        requests=10,
        server="chaos",
        settings=PATIENT,
        answered=(None, True),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One mode on one wire, one way, alone or with a fallback.

    Attributes:
        model: A name of its own: llmock tells requests apart by it.
    """

    mode: Mode
    wire: str
    stream: bool
    fallback: bool
    model: str

    @property
    def title(self) -> str:
        return f"{self.wire}, {'streamed' if self.stream else 'plain'}"

    @property
    def answered(self) -> bool | None:
        return self.mode.answered[self.fallback]


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of a case.

    Attributes:
        attempts: Requests that llmock saw for it.
        findings: What llmock has to say.
        wrong: What the caller was told wrongly, in words.
    """

    case: Case
    attempts: int
    findings: tuple[Finding, ...]
    wrong: tuple[str, ...]

    @property
    def failed(self) -> bool:
        return bool(self.wrong) or any(each.severity == "error" for each in self.findings)


def servers() -> dict[str, LLMockServer]:
    """Return the servers, not started; what is set for one holds for all its requests."""
    found = {name: LLMockServer() for name in ("plain", "window", "rpm", "tpm", "pace")}
    found["window"].state.limiter.configure(LimitSettings(context_window=1_000))
    found["rpm"].state.limiter.configure(LimitSettings(rpm=30))
    found["tpm"].state.limiter.configure(LimitSettings(tpm=7_500))
    pace = found["pace"].state
    pace.stream_chaos = replace(pace.stream_chaos, chunk_delay_ms=20)
    rates = {429: 0.05, 500: 0.1, 503: 0.1}
    found["chaos"] = LLMockServer(chaos=ChaosSettings(error_rates=rates))
    for server in found.values():
        server.state.scenarios.add(Reply(CANONICAL, times=None))
    return found


def cases(modes: Sequence[Mode]) -> Iterator[Case]:
    for mode in modes:
        for wire in ADAPTERS:
            for stream in mode.ways:
                for fallback in (False, True):
                    number = f"{MODES.index(mode)}-{int(stream)}-{int(fallback)}"
                    yield Case(
                        mode=mode,
                        wire=wire,
                        stream=stream,
                        fallback=fallback,
                        model=f"{wire}-{number}",
                    )


async def play(case: Case, started: dict[str, LLMockServer]) -> Judged:
    """Play a case and ask for llmock's verdict on it."""
    server = started[case.mode.server]
    server.state.scenarios.add(*case.mode.faults(Match(model=case.model)))
    settings = Settings(home=Path(tempfile.gettempdir()), **case.mode.settings)  # type: ignore[arg-type]
    wrong: list[str] = []
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(AsyncMessageBus(settings, store=InMemoryStore()))
        adapter, url = ADAPTERS[case.wire], server.base_url(case.wire)
        # A key of its own: llmock's quotas are per key.
        await bus.register_provider(
            "primary", adapter(url, f"key-{case.model}", case.model, name="primary")
        )
        if case.fallback:
            other = started["plain"].base_url("openai")
            spare = OpenAICompatible(other, "key", f"{case.model}-spare", name="spare")
            await bus.register_provider("spare", spare)
        for number in range(case.mode.requests):
            wrong += await ask(bus, case, number)
    records = [
        record
        for each in started.values()
        for record in each.state.journal.records(wait=0.0)
        if record.model is not None and record.model.startswith(case.model)
    ]
    return Judged(case, len(records), judge(records).findings, tuple(wrong))


async def ask(bus: AsyncMessageBus, case: Case, number: int) -> list[str]:
    """Ask once; return what was wrong with what the caller was told."""
    prompt, told, finished = f"{case.mode.prompt} {number}", "", False
    try:
        if case.stream:
            async for delta in bus.stream(
                prompt, allow_restart=True, max_tokens=case.mode.max_tokens
            ):
                told = delta.text if delta.restart else told + delta.text
                if delta.reply is not None:
                    finished = delta.reply.text == told and not delta.reply.truncated
        else:
            reply = await bus.send(prompt, max_tokens=case.mode.max_tokens)
            told, finished = reply.text, not reply.truncated
    except ZejzlError as error:
        return [f"no answer: {error!r}"] if case.answered else []
    if case.answered is False:
        return [f"an answer where there is none to be had: {told!r}"]
    return [] if finished and told == CANONICAL else [f"not the whole answer: {told!r}"]


async def play_all(chosen: Sequence[Case], started: dict[str, LLMockServer]) -> list[Judged]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> Judged:
        async with room:
            return await play(case, started)

    return await asyncio.gather(*(one(case) for case in chosen))


def verdict(modes: Sequence[Mode] = MODES) -> list[Judged]:
    """Play the modes on every wire; return what came of each case."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it breaks on purpose
    started = servers()
    with ExitStack() as stack:
        for server in started.values():
            stack.enter_context(server)
        return asyncio.run(play_all(list(cases(modes)), started))


def reason(case: Case, finding: Finding) -> str:
    """Return why we do what llmock warns of."""
    usual = REASONS.get(finding.code, ("", ""))[case.fallback]
    return case.mode.why or usual or "UNEXPLAINED"


def print_mode(mode: Mode, found: Sequence[Judged]) -> None:
    """Print one line for a mode, and one for each thing that was found."""
    attempts = sum(each.attempts for each in found)
    failed = sum(each.failed for each in found)
    warned = Counter(
        (each.code, reason(one.case, each))
        for one in found
        for each in one.findings
        if not one.failed
    )
    mark = "FAIL" if failed else "WARN" if warned else "PASS"
    patience = f", patience {mode.settings['patience']:g}" if "patience" in mode.settings else ""
    print(f"{mark}  {mode.name + patience:<46} {len(found):>3} cases {attempts:>5} attempts")
    for (code, why), times in warned.items():
        print(f"      {times} × {code}: {why}")
    for one in found:
        if one.failed:
            where = f"{one.case.title}, {'with a fallback' if one.case.fallback else 'alone'}"
            for each in one.findings:
                print(f"      {each.severity} {each.code}: {where}: {each.title}")
            for told in one.wrong:
                print(f"      {where}: {told}")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--only", nargs="+", default=[], metavar="NAME", help="part of a mode")
    given = arguments.parse_args()
    chosen = [
        mode for mode in MODES if not given.only or any(part in mode.name for part in given.only)
    ]
    if not chosen:
        arguments.error(f"no mode of that name; known: {', '.join(mode.name for mode in MODES)}")
    print_machine()
    began = time.perf_counter()
    found = verdict(chosen)
    for mode in chosen:
        print_mode(mode, [each for each in found if each.case.mode is mode])
    errors = sum(each.failed for each in found)
    seconds = time.perf_counter() - began
    print(f"\n{len(found)} cases in {seconds:.0f} s, FAIL: {errors}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
