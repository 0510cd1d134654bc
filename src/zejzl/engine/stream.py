"""A streamed answer: restarted freely before its first piece, never passed off as whole when cut.

What a provider did is known at the end: only a stream that finishes with a reason counts as well.
A consumer who leaves closes the socket and counts nothing; a slow one holds back the socket,
because nothing is read ahead.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from zejzl.clock import Clock
from zejzl.engine.arguments import checked_delta, checked_reply
from zejzl.engine.call import GRACE, Journey, for_target, late
from zejzl.engine.healing import Pick
from zejzl.errors import AttemptTimeout, FailureClass, Incomplete, Malformed, ProviderError
from zejzl.messages import Delta, Reply, Request
from zejzl.ports import Provider

log = logging.getLogger(__name__)

DRAIN = 0.05  # seconds given to a finished stream to end, so that its connection can be kept


async def stream(journey: Journey) -> AsyncGenerator[Delta, None]:
    """Yield the answer of one request piece by piece; the last piece carries the Reply.

    Raises:
        Incomplete: If it broke off after its first piece; `prefix` is what had been yielded.
    """
    try:
        while True:
            pick = await journey.next()
            attempt = _Attempt(journey, pick)
            try:
                with pick.target.seat.calls:
                    async with aclosing(attempt.pieces()) as pieces:
                        async for text in pieces:
                            yield Delta(text)
            except BaseException as problem:  # noqa: BLE001 - raised again if it is not to be healed
                failure = journey.healable(pick, problem)
                error = journey.failed(pick, attempt.name(failure), limited=attempt.limit)
                if attempt.texts:
                    raise attempt.broken(error) from error
                continue
            assert attempt.reply is not None
            yield Delta("", reply=await journey.succeeded(pick, attempt.reply, attempt.waited))
            return
    except BaseException as why:
        await journey.ended_badly(why)
        raise


class _Attempt:
    """One provider's stream, read within the limits of its phases."""

    def __init__(self, journey: Journey, pick: Pick) -> None:
        self._journey = journey
        self._pick = pick
        self._clock: Clock = journey.clock
        self.texts: list[str] = []
        self.reply: Reply | None = None
        self.waited = 0.0
        self.limit: float | None = None

    async def pieces(self) -> AsyncGenerator[str, None]:
        """Yield the texts as they come; `reply` is there at the end."""
        target = self._pick.target
        source = _open(target.provider, for_target(target, self._journey.request))
        try:
            while self.reply is None:
                self.limit = self._limit()
                try:
                    delta = checked_delta(await self._next(source))
                except StopAsyncIteration:
                    raise Malformed("the stream ended without its last piece") from None
                if not self.texts:
                    self.waited = self._clock.now() - self._pick.started
                    target.breaker.rule.spoke(self._pick.token)
                    self._journey.place_is_free(target.breaker)
                if delta.text:
                    self.texts.append(delta.text)
                    yield delta.text
                self.reply = delta.reply and checked_reply(delta.reply)
            await self._drain(source)
        finally:
            await self._close(source)

    async def _next(self, source: AsyncGenerator[Delta, None]) -> Delta:
        """Return the next piece; a first one that does not end when late is cancelled again."""
        if self.texts:  # pieces come by the thousand: one timer each is enough
            async with self._clock.timeout(self.limit):
                return await anext(source)
        async with self._clock.timeout(late(self.limit)), self._clock.timeout(self.limit):
            return await anext(source)

    def _limit(self) -> float | None:
        """Return the seconds until the next piece must be there."""
        journey, limits = self._journey, self._journey.limits
        if self.texts:
            return journey.time_left(limits.idle) if limits.whole_stream else limits.idle
        streams = hasattr(self._pick.target.provider, "stream")
        return journey.time_left(limits.first_token if streams else limits.attempt)

    async def _drain(self, source: AsyncGenerator[Delta, None]) -> None:
        try:
            async with self._clock.timeout(DRAIN):
                async for _ in source:
                    pass
        except Exception as problem:  # noqa: BLE001 - a user's own provider may raise anything
            # The answer is whole: the connection is closed instead of kept.
            log.debug("a stream did not end after its last piece: %r", problem)

    async def _close(self, source: AsyncGenerator[Delta, None]) -> None:
        """Close a provider's stream; one that fails or hangs at that changes nothing."""
        try:
            async with self._clock.timeout(GRACE):
                await source.aclose()
        except Exception as problem:  # noqa: BLE001 - what the stream said before is what counts
            log.warning("a stream of %s did not close: %r", self._pick.target.name, problem)

    def name(self, failure: Exception) -> Exception:
        """Return a stall after the first piece as such; anything else as it is."""
        if not self.texts or isinstance(failure, ProviderError):
            return failure
        if not isinstance(failure, TimeoutError):
            return failure
        at_end = self._journey.limits.whole_stream and self._clock.now() >= self._journey.ends
        stalled = AttemptTimeout(
            "the stream was not finished before the deadline"
            if at_end
            else f"the stream fell silent for {self.limit:g} s",
            failure_class=FailureClass.DEADLINE if at_end else FailureClass.STALLED,
        )
        stalled.__cause__ = failure
        return stalled

    def broken(self, error: ProviderError) -> Incomplete:
        """Return the error for a stream that broke after its first piece."""
        text = "".join(self.texts)
        if isinstance(error, Incomplete):
            broken = error
        else:
            broken = Incomplete(
                f"the answer broke off after {len(text)} characters: {error.args[0]}",
                provider=error.provider,
                model=error.model,
                status=error.status,
                code=error.code,
                request_id=error.request_id,
                failure_class=error.failure_class,
            )
        broken.prefix = text
        return broken


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
