"""A provider that plays its part in an incident: no socket, no vendor, time from the clock.

    a call ──▶ what it gets (a `Cue`: drawn from latency and faults, or recorded)
           ──▶ a place, or "overloaded" ──▶ silence ──▶ the answer, or the error of the tree

Chance is drawn anew for each request, from the seed, the provider's name and how often it was
asked this: what one request gets does not depend on what became of others, so that two runs with
other settings differ in what the settings did, and in nothing else.
"""

import asyncio
import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from random import Random

from zejzl.clock import Clock
from zejzl.errors import (
    ERRORS,
    ConnectFailed,
    FailureClass,
    Incomplete,
    ProviderError,
    Transient,
)
from zejzl.messages import Delta, FinishReason, Reply, Request, Usage
from zejzl.testing.incidents import (
    CALLERS,
    OK,
    SLOW,
    Arrival,
    Fault,
    ProviderScript,
    RecordedCall,
)

F = FailureClass

PIECES = 16  # of a streamed answer; more where it is so long that each would be many tokens
PIECE = 32  # tokens
NEAR = 1.0  # seconds between a call and a recorded one that is as good as the nearest
NEIGHBOURS = 5  # recorded calls of which one is played
HALFWAY = frozenset({F.CUT_STREAM, F.STALLED, F.TRUNCATED})
AT_ONCE = {
    F.RATE_LIMITED: 429,
    F.QUOTA_EXHAUSTED: 402,
    F.OVERLOADED: 503,
    F.SERVER_ERROR: 500,
    F.AUTH: 401,
    F.BAD_REQUEST: 400,
    F.CONTEXT_OVERFLOW: 400,
    F.CONNECT: None,
}  # refusals, with their HTTP status: they take no time unless a fault says so, and cost nothing
SILENT = frozenset({F.FIRST_TOKEN_TIMEOUT, F.STALLED})
GIVEN_UP = frozenset({F.FIRST_TOKEN_TIMEOUT, *CALLERS})  # recorded: no answer in so many seconds
ANSWERED = frozenset({OK, F.TRUNCATED})
ITS_OWN = frozenset({F.BAD_REQUEST, F.CONTENT_FILTERED})  # what a request gets from everybody
ITS_OWN_THERE = ITS_OWN | {F.CONTEXT_OVERFLOW}  # and from this provider always
NOBODY_ELSES = ITS_OWN_THERE | {F.TRUNCATED}


@dataclass(frozen=True, slots=True)
class Cue:
    """What one call gets.

    Attributes:
        kind: "ok" or a `FailureClass` value.
        latency: Seconds until the first of it is there; None: nothing ever is.
        lasts: Seconds that the rest of a whole stream takes.
        after: Share of a stream that comes before it fails.
        retry_after: Seconds it is asked to wait.
    """

    kind: str
    latency: float | None
    lasts: float = 0.0
    after: float = 0.0
    retry_after: float | None = None


class SimulatedProvider:
    """See the module.

    Args:
        script: Its part.
        arrivals: The requests; a prompt begins with the number of its own.
        seed: Of chance.
        clock: Where time comes from.
        said: Takes every answer that is given, by request.
        their_own: Recorded outcomes that are the request's doing, by request.

    Attributes:
        served: Tokens of questions and of answers that it will bill, by model.
    """

    def __init__(
        self,
        script: ProviderScript,
        arrivals: Sequence[Arrival],
        *,
        seed: int,
        clock: Clock,
        said: dict[int, list[str]],
        their_own: Mapping[int, RecordedCall],
    ) -> None:
        self.name = script.name
        self.default_model = script.model or "simulated"
        self.served: dict[str, tuple[int, int]] = {}
        self._script = script
        self._arrivals = arrivals
        self._seed = seed
        self._clock = clock
        self._began = clock.now()
        self._said = said
        self._asked: Counter[int] = Counter()
        self._tape = Tape(script.calls, their_own) if script.calls else None
        self._inside = 0
        self._places = asyncio.Semaphore(script.capacity or 1)

    async def cleanup(self) -> None:
        """Hold nothing."""

    async def generate(self, request: Request) -> Reply:
        """Answer once, wholly."""
        call = self._call(request, streamed=False)
        try:
            async with self._place(call):
                cue = call.cue
                call.prompts = cue.kind not in AT_ONCE
                call.awaits = cue.latency if cue.kind in ANSWERED else None
                await self._silence(None if cue.kind in SILENT else cue.latency)
                call.awaits = None
                return self._reply(call) if cue.kind in ANSWERED else self._fail(call)
        finally:
            self._end(call)

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """Yield the answer piece by piece; the last piece carries the Reply."""
        call = self._call(request, streamed=True)
        try:
            async with self._place(call):
                cue, pieces = call.cue, call.pieces
                ends = cue.kind == OK or cue.kind == F.TRUNCATED
                last = len(pieces) if ends else math.floor(cue.after * len(call.whole))
                call.prompts = cue.kind not in AT_ONCE or last > 0
                await self._silence(None if cue.kind in SILENT and not last else cue.latency)
                gap = cue.lasts / len(call.whole)
                for at, piece in enumerate(pieces[:last]):
                    if at and gap:
                        await self._clock.sleep(gap)
                    call.heard = at + 1
                    yield Delta(piece)
                if not ends:
                    await self._silence(None if cue.kind in SILENT else gap)
                    self._fail(call)
                yield Delta("", reply=self._reply(call))
        finally:
            self._end(call)

    # One call --------------------------------------------------------------------------------

    def _call(self, request: Request, *, streamed: bool) -> "_Call":
        number = int(request.content.partition(":")[0])
        arrival = self._arrivals[number]
        again = self._asked[number]
        self._asked[number] += 1
        now = self._clock.now()
        rng = Random(f"{self._seed}/{self.name}/{number}/{again}")
        if self._tape is not None:
            cue = self._tape.cue(arrival, now - self._began, rng, streamed=streamed)
        else:
            cue = self._drawn(now - self._began, rng, arrival)
        variant = "" if arrival.load.repeats else f"{self.name}.{again}."
        count = min(arrival.answer_tokens, max(PIECES, arrival.answer_tokens // PIECE))
        whole = [f"{number}.{variant}{at} " for at in range(count)]
        tokens = arrival.answer_tokens
        if cue.kind == F.TRUNCATED:
            tokens = max(1, math.floor(tokens * cue.after))
        if request.max_tokens is not None:
            tokens = min(tokens, request.max_tokens)
        return _Call(
            arrival=arrival,
            cue=cue,
            model=request.model or self.default_model,
            began=now,
            whole=whole,
            pieces=whole[: math.ceil(count * tokens / arrival.answer_tokens)],
            tokens=tokens,
        )

    def _drawn(self, at: float, rng: Random, arrival: Arrival) -> Cue:
        """Return what a call at some time gets by the script."""
        script = self._script
        assert script.latency is not None
        latency = rng.uniform(*script.latency)
        lasts = script.pace * arrival.answer_tokens
        for fault in script.faults:
            if fault.holds(at) and rng.random() < fault.share:
                return _faulty(fault, latency, lasts, rng)
        return Cue(OK, latency, lasts)

    @asynccontextmanager
    async def _place(self, call: "_Call") -> AsyncIterator[None]:
        """Hold one of its places, waiting for it where there is a queue."""
        capacity = self._script.capacity
        if capacity is None:
            yield
            return
        if self._inside >= capacity + self._script.queue:
            call.cue = Cue(F.OVERLOADED.value, 0.0)
            await self._clock.sleep(0.0)
            self._fail(call)
        self._inside += 1
        try:
            async with self._places:
                yield
        finally:
            self._inside -= 1

    async def _silence(self, seconds: float | None) -> None:
        if seconds is None:
            await asyncio.get_running_loop().create_future()
        else:
            await self._clock.sleep(seconds)

    def _reply(self, call: "_Call") -> Reply:
        text = "".join(call.pieces)
        call.heard = len(call.pieces)
        self._said.setdefault(call.arrival.number, []).append(text)
        cut = call.tokens < call.arrival.answer_tokens
        finish: FinishReason = "length" if cut else "stop"
        usage = Usage(call.arrival.prompt_tokens, call.tokens)
        return Reply(
            text=text, provider=self.name, model=call.model, usage=usage, finish_reason=finish
        )

    def _fail(self, call: "_Call") -> Reply:
        """Raise what a call ends with."""
        cue = call.cue
        raise failure(
            F(cue.kind),
            self.name,
            call.model,
            retry_after=cue.retry_after,
            prefix="".join(call.pieces[: call.heard]),
        )

    def _end(self, call: "_Call") -> None:
        """Count what the call came to, as its provider would bill it."""
        if not call.prompts:
            return
        share = call.heard / len(call.pieces)
        if call.awaits:  # a plain answer that was being written
            share = min(1.0, (self._clock.now() - call.began) / call.awaits)
        prompt, completion = self.served.get(call.model, (0, 0))
        self.served[call.model] = (
            prompt + call.arrival.prompt_tokens,
            completion + round(call.tokens * share),
        )


@dataclass(slots=True, kw_only=True)
class _Call:
    """One call while it lasts."""

    arrival: Arrival
    cue: Cue
    model: str
    began: float
    whole: Sequence[str]
    pieces: Sequence[str]  # as far as its token limit allows
    tokens: int
    heard: int = 0  # pieces that were sent
    prompts: bool = False  # whether its prompt was read
    awaits: float | None = None


def _faulty(fault: Fault, latency: float, lasts: float, rng: Random) -> Cue:
    if fault.latency is not None:
        latency = rng.uniform(*fault.latency)
    elif fault.kind in AT_ONCE and not fault.after:
        latency = 0.0
    after = fault.after
    if after is None:
        after = 0.5 if fault.kind in HALFWAY else 0.0
    kind = OK if fault.kind == SLOW else fault.kind
    return Cue(kind, latency, lasts, after, fault.retry_after)


def failure(
    kind: FailureClass,
    provider: str,
    model: str,
    *,
    retry_after: float | None = None,
    prefix: str = "",
) -> ProviderError:
    """Return the error that tells of a failure of some class, as an adapter raises it.

    Args:
        kind: The class.
        provider: Whose.
        model: Asked for.
        retry_after: Seconds it asks to wait.
        prefix: What of the answer had come; then there is no HTTP status to tell.
    """
    error = ERRORS.get(kind, Transient)(
        f"simulated: {kind.value}",
        provider=provider,
        model=model,
        status=None if prefix else AT_ONCE.get(kind),
        retry_after=retry_after,
        failure_class=kind,
    )
    if isinstance(error, Incomplete):
        error.prefix = prefix
    if isinstance(error, ConnectFailed):
        error.sent = bool(prefix)
    return error


class Tape:
    """What a provider was recorded to do, for calls that may come at other times.

    A call gets what its own request got there, if that was about then. Else one of the recorded
    calls nearest in time is played. What was the request's own doing goes with the request: a
    prompt that was refused for its content is refused always, and no other is for its sake.

    Of a recorded call that was given up it is known only that it took longer than so much. The
    answered call nearest in time that took longer is played in its place, and silence where none
    did.
    """

    def __init__(
        self, calls: Sequence[RecordedCall], their_own: Mapping[int, RecordedCall]
    ) -> None:
        self._their_own = their_own
        self._of_request: defaultdict[int, list[int]] = defaultdict(list)
        self._calls = calls
        self._played: set[int] = set()
        for place, call in enumerate(calls):
            self._of_request[call.request].append(place)
        anybodys = [place for place, call in enumerate(calls) if call.outcome not in NOBODY_ELSES]
        self._anybodys = anybodys or list(range(len(calls)))
        self._times = [calls[place].at for place in self._anybodys]
        self._answered = sorted(
            (call for call in calls if call.outcome in ANSWERED), key=lambda call: call.seconds
        )
        self._seconds = [call.seconds for call in self._answered]
        self._longer: dict[int, RecordedCall | None] = {}

    def cue(self, arrival: Arrival, at: float, rng: Random, *, streamed: bool) -> Cue:
        """Return what a call of a request gets at some time."""
        place = self._place(arrival.number, at, rng)
        call = self._calls[place]
        own = self._their_own.get(arrival.number)
        if own is not None and call.request != arrival.number:
            call = own
        if call.outcome in GIVEN_UP:
            longer = self._longer_than(place)
            if longer is None:
                return Cue(F.FIRST_TOKEN_TIMEOUT.value, None)
            call = replace(longer, outcome=OK)
        return _as_recorded(call, arrival, streamed=streamed)

    def _place(self, number: int, at: float, rng: Random) -> int:
        own = self._of_request.get(number, ())
        for place in own:
            if place not in self._played and abs(self._calls[place].at - at) <= NEAR:
                self._played.add(place)
                return place
        for place in own:
            if self._calls[place].outcome in ITS_OWN_THERE:
                return place
        return rng.choice(self._nearest(at))

    def _nearest(self, at: float) -> list[int]:
        """Return the recorded calls nearest in time, in order of time."""
        times = self._times
        after = bisect_left(times, at)
        around = range(max(0, after - NEIGHBOURS), min(len(times), after + NEIGHBOURS))
        nearest = sorted(around, key=lambda place: abs(times[place] - at))[:NEIGHBOURS]
        most = abs(times[nearest[0]] - at) + NEAR
        return sorted(self._anybodys[one] for one in nearest if abs(times[one] - at) <= most)

    def _longer_than(self, place: int) -> RecordedCall | None:
        if place not in self._longer:
            call = self._calls[place]
            longer = self._answered[bisect_left(self._seconds, call.seconds) :]
            self._longer[place] = min(
                longer, key=lambda other: (abs(other.at - call.at), other.at), default=None
            )
        return self._longer[place]


def _as_recorded(call: RecordedCall, arrival: Arrival, *, streamed: bool) -> Cue:
    """Return what a recorded call is; of a stream it is not known when each piece came."""
    if not streamed or call.outcome not in (*ANSWERED, F.CUT_STREAM, F.STALLED):
        after = 0.5 if call.outcome == F.TRUNCATED else 0.0
        return Cue(call.outcome, call.seconds, 0.0, after, call.retry_after)
    pieces = min(arrival.answer_tokens, max(PIECES, arrival.answer_tokens // PIECE))
    after = 1.0 if call.outcome == OK else 0.5
    gap = call.seconds / (math.floor(pieces * after) + 1)
    return Cue(call.outcome, gap, gap * pieces, after, call.retry_after)
