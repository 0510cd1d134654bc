"""What a provider is told of a conversation: its newest turns, as many as fit."""

from collections.abc import Sequence
from dataclasses import replace

from zejzl.engine.tokens import count_all, estimate
from zejzl.messages import Message, Request, Turn
from zejzl.policies.context import shrink, trim


async def fitting(messages: Sequence[Message], budget: int) -> tuple[Turn, ...]:
    """Return the newest turns that hold at most `budget` tokens, oldest first, each whole."""
    sizes = [sum(len(turn.content.encode()) for turn in message.turns()) for message in messages]
    # A token is at least one byte: most conversations fit without being counted.
    if sum(sizes) > budget:
        texts = ["\n".join(turn.content for turn in message.turns()) for message in messages]
        counts = [counted.tokens for counted in await count_all(texts)]
        messages = messages[trim(counts, budget) :]
    return tuple(turn for message in messages for turn in message.turns())


def without_older_half(request: Request) -> Request:
    """Return the request with about half of its history, the newer one; whole turns go."""
    turns = request.history
    pairs = [turns[at : at + 2] for at in range(0, len(turns), 2)]
    counts = [sum(estimate(turn.content).tokens for turn in pair) for pair in pairs]
    return replace(request, history=turns[2 * shrink(counts) :])
