"""A plain answer: called, hedged where it is late, asked for again where it was cut short."""

from zejzl.engine.arguments import checked_reply
from zejzl.engine.hedging import race
from zejzl.engine.journey import Journey
from zejzl.engine.targets import Pick
from zejzl.errors import ProviderError, Rejected, StoreError
from zejzl.messages import Reply


async def call(journey: Journey) -> Reply:
    """Return the answer of one plain request."""

    async def answer(pick: Pick) -> Reply:
        pick.limit = limit = journey.time_left(journey.limits.attempt)
        with pick.target.seat.calls:
            async with journey.clock.timeout(limit):
                found = await pick.target.provider.generate(journey.for_target(pick))
        pick.waited = journey.clock.now() - pick.started
        return checked_reply(found)

    try:
        while True:
            won = await race(journey, await journey.next(), answer)
            if won is None:
                if journey.has_answer:
                    return await journey.settle_kept()
                continue
            pick, reply = won
            if not journey.grows(pick, reply):
                return await journey.succeeded(pick, reply)
    except BaseException as why:
        if journey.has_answer and isinstance(why, ProviderError | Rejected | StoreError):
            return await journey.settle_kept()
        await journey.ended_badly(why)
        raise
