"""A streamed answer: begun again when it breaks, never passed off as whole when it was cut.

Before its first piece it is begun again freely. After it the new answer is listened to in silence
as long as it repeats what the consumer has, and goes on from there; if it becomes another one,
only a consumer who can discard what it has is given that.

What a provider did is known at the end: only a stream that finishes with a reason counts as well.
A consumer who leaves closes the socket and counts nothing; a slow one holds back the socket,
because nothing is read ahead.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from zejzl.clock import Clock
from zejzl.engine.arguments import checked_delta, checked_reply
from zejzl.engine.failures import in_words, own_failure
from zejzl.engine.hedging import race
from zejzl.engine.journey import Journey
from zejzl.engine.ledger import octets_of
from zejzl.engine.lifecycle import UnderWay
from zejzl.engine.targets import Pick
from zejzl.errors import (
    AttemptTimeout,
    FailureClass,
    Incomplete,
    Malformed,
    ProviderError,
    Rejected,
)
from zejzl.messages import Delta, Reply, Request
from zejzl.ports import Provider

log = logging.getLogger(__name__)

MOST_MISSES = 2  # answers begun again that became others, before nobody is asked any more
DRAIN = 0.05  # seconds given to a finished stream to end, so that its connection can be kept
CLOSING = 1.0  # that a stream is given to close


async def stream(journey: Journey, *, allow_restart: bool = False) -> AsyncGenerator[Delta, None]:
    """Yield the answer of one request piece by piece; the last piece carries the Reply.

    Args:
        allow_restart: Whether the consumer can discard what it has, for another answer.

    Raises:
        Incomplete: If it broke off after its first piece and could not be completed exactly;
            `prefix` is what had been yielded.
    """

    async def begun(pick: Pick) -> _Attempt:
        attempt = _Attempt(journey, pick)
        await attempt.begin()
        return attempt

    told = _Told(allow_restart)
    try:
        while True:
            won = await race(journey, await journey.next(), begun, _Attempt.close)
            if won is None:
                continue
            pick, attempt = won
            told.begin()
            try:
                async with aclosing(attempt.pieces()) as pieces:
                    async for text in pieces:
                        if not told.text:
                            journey.told()
                        if (delta := told.fit(text)) is not None:
                            yield delta
                if (delta := told.end()) is not None:
                    yield delta
            except _Differs:
                journey.differs(pick)
                told.misses += 1
                if told.misses == MOST_MISSES:
                    raise
                continue
            except BaseException as problem:  # noqa: BLE001 - raised again if it is not to be healed
                failure = journey.healable(pick, problem)
                journey.failed(pick, attempt.name(failure))
                continue
            assert attempt.reply is not None
            yield Delta("", reply=await journey.succeeded(pick, attempt.reply))
            return
    except BaseException as why:
        error = told.broken(why, journey.first_cause)
        await journey.ended_badly(error)
        if error is why:
            raise
        raise error from error.__cause__


class _Differs(Exception):
    """An answer begun again is another than the one of which the consumer has a part."""


class _Told:
    """What the consumer of a stream has, and how an answer that is begun again is fitted to it.

    Attributes:
        text: What the consumer has, in pieces.
        misses: How many answers became others.
    """

    def __init__(self, allow_restart: bool) -> None:
        self._allow_restart = allow_restart
        self._prefix = ""  # what the consumer had when the present answer began
        self._at = 0  # so much of it the present answer has said again
        self.text: list[str] = []
        self.misses = 0

    def begin(self) -> None:
        """Take in that an answer begins."""
        self._prefix, self._at = "".join(self.text), 0
        self.text = [self._prefix] if self._prefix else []

    def fit(self, piece: str) -> Delta | None:
        """Return what of a piece is new to the consumer; None: nothing is."""
        if self._at < len(self._prefix):
            room = len(self._prefix) - self._at
            if not self._prefix.startswith(piece[:room], self._at):
                return self._other(self._prefix[: self._at] + piece)
            self._at += len(piece[:room])
            piece = piece[room:]
            if not piece:
                return None
        self.text.append(piece)
        return Delta(piece)

    def end(self) -> Delta | None:
        """Take in that the answer ended; one that is shorter than what was said is another."""
        if self._at < len(self._prefix):
            return self._other(self._prefix[: self._at])
        return None

    def _other(self, text: str) -> Delta:
        if not self._allow_restart:
            raise _Differs
        self._prefix, self._at, self.text = "", 0, [text]
        return Delta(text, restart=True)

    def broken(self, why: BaseException, cause: ProviderError | None) -> BaseException:
        """Return the error for the consumer: `Incomplete` where it has a part of the answer."""
        if not self.text or not isinstance(why, ProviderError | Rejected | _Differs):
            return why
        error = cause or why
        text = "".join(self.text)
        if isinstance(error, Incomplete):
            broken = error
        else:
            broken = Incomplete(
                f"the answer broke off after {len(text)} characters: {error.args[0]}",
                provider=getattr(error, "provider", ""),
                model=getattr(error, "model", ""),
                status=getattr(error, "status", None),
                code=getattr(error, "code", ""),
                request_id=getattr(error, "request_id", ""),
                failure_class=getattr(error, "failure_class", None),
            )
            broken.__cause__ = error
        if self.misses:
            broken.add_note("begun again, it became another answer than the one it was before")
        broken.prefix = text
        return broken


class _Attempt:
    """One provider's stream, read within the limits of its phases."""

    def __init__(self, journey: Journey, pick: Pick) -> None:
        self._journey = journey
        self._pick = pick
        self._clock: Clock = journey.clock
        self._source: AsyncGenerator[Delta, None] | None = None
        self._calls: UnderWay | None = None
        self._first: Delta | None = None
        self.texts: list[str] = []
        self.reply: Reply | None = None

    async def begin(self) -> None:
        """Open the stream and wait for its first piece."""
        pick = self._pick
        calls = pick.target.seat.calls  # of this provider: another may take its seat
        calls.__enter__()
        self._calls = calls
        try:
            self._source = _open(pick.target.provider, self._journey.for_target(pick))
            self._first = await self._piece()
        except BaseException:
            await self.close()
            raise
        pick.waited = self._clock.now() - pick.started

    async def pieces(self) -> AsyncGenerator[str, None]:
        """Yield the texts as they come; `reply` is there at the end."""
        try:
            self._journey.spoke(self._pick)
            delta = self._first
            assert delta is not None
            while True:
                if delta.text:
                    self.texts.append(delta.text)
                    self._pick.heard += octets_of(delta.text)
                    yield delta.text
                if delta.reply is not None:
                    self.reply = checked_reply(delta.reply)
                    break
                delta = await self._piece()
            await self._drain()
        finally:
            await self.close()

    async def close(self) -> None:
        """Close a provider's stream; one that fails or hangs at that changes nothing."""
        source, self._source = self._source, None
        if self._calls is not None:
            calls, self._calls = self._calls, None
            calls.__exit__(None, None, None)
        if source is None:
            return
        try:
            async with self._clock.timeout(CLOSING):
                await source.aclose()
        except BaseException as problem:
            if (failure := own_failure(problem)) is None:
                raise
            name = self._pick.target.name
            log.warning("a stream of %s did not close: %s", name, in_words(failure))

    async def _piece(self) -> Delta:
        """Return the next piece with words, or the last; those without do not put its limit off."""
        source = self._source
        assert source is not None
        self._pick.limit = limit = self._limit()
        try:
            async with self._clock.timeout(limit):
                while True:
                    delta = checked_delta(await anext(source))
                    if delta.text or delta.reply is not None:
                        return delta
                    await self._clock.sleep(0.0)  # a source that never waits would stop the loop
        except StopAsyncIteration:
            raise Malformed("the stream ended without its last piece") from None

    def _limit(self) -> float | None:
        """Return the seconds until the next piece must be there."""
        journey, limits = self._journey, self._journey.limits
        if self._first is not None:
            return journey.time_left(limits.idle) if limits.whole_stream else limits.idle
        streams = hasattr(self._pick.target.provider, "stream")
        return journey.time_left(limits.first_token if streams else limits.attempt)

    async def _drain(self) -> None:
        assert self._source is not None
        try:
            async with self._clock.timeout(DRAIN):
                async for _ in self._source:
                    pass
        except BaseException as problem:
            if (failure := own_failure(problem)) is None:
                raise
            # The answer is whole: the connection is closed instead of kept.
            log.debug("a stream did not end after its last piece: %s", in_words(failure))

    def name(self, failure: Exception) -> Exception:
        """Return a stall after the first piece as such; anything else as it is."""
        if not self.texts or isinstance(failure, ProviderError):
            return failure
        if not isinstance(failure, TimeoutError):
            return failure
        at_end = self._journey.limits.whole_stream and self._clock.now() >= self._journey.ends
        limit = self._pick.limit
        stalled = AttemptTimeout(
            "the stream was not finished before the deadline"
            if at_end
            else f"the stream fell silent{f' for {limit:g} s' if limit is not None else ''}",
            failure_class=FailureClass.DEADLINE if at_end else FailureClass.STALLED,
        )
        stalled.__cause__ = failure
        return stalled


async def _whole_as_pieces(provider: Provider, request: Request) -> AsyncGenerator[Delta, None]:
    """Yield the answer of a provider that cannot stream as one piece."""
    reply = checked_reply(await provider.generate(request))
    yield Delta(reply.text)
    yield Delta("", reply=reply)


def _open(provider: Provider, request: Request) -> AsyncGenerator[Delta, None]:
    opener = getattr(provider, "stream", None)
    source = opener(request) if opener is not None else _whole_as_pieces(provider, request)
    if not hasattr(source, "aclose"):
        source = _closable(source)
    return source


async def _closable(source: AsyncIterator[Delta]) -> AsyncGenerator[Delta, None]:
    async for delta in source:
        yield delta
