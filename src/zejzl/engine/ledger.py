"""What calls cost: estimated when they are sent, settled when they end.

    sent ──▶ estimate ──┬── answered, and the provider counted ──▶ settled
                        ├── refused, or never reached it ────────▶ settled: nothing
                        └── cut, late, cancelled, not counted ───▶ unsettled: as far as is known

What is unsettled counts all the same, in sums and against limits: a provider that was asked bills,
whether or not anybody heard the end of its answer.
"""

from collections.abc import Sequence

from zejzl.engine.arguments import checked_usage
from zejzl.errors import (
    ConnectFailed,
    ContentFiltered,
    EmptyAnswer,
    Incomplete,
    Malformed,
    ProviderError,
    Rejected,
)
from zejzl.messages import NOTHING, Attempt, Bill, Reply, Request
from zejzl.policies.density import Density
from zejzl.policies.prices import Prices
from zejzl.ports import SpendLimits
from zejzl.settings import Settings

MOST_MODELS = 1_000  # whose densities are told apart
COUNTED = ContentFiltered, EmptyAnswer  # failures in which a whole answer came
UNREAD = Incomplete, Malformed  # in which one came, of which nothing may be readable


class Ledger:
    """Prices, and what was learned of how models count.

    Attributes:
        prices: What tokens cost.
        limits: What may be spent; None: no limit is set.
    """

    def __init__(self, limits: SpendLimits | None = None) -> None:
        self.prices = Prices()
        self.limits = limits
        self._densities: dict[tuple[str, str], Density] = {}

    def _density(self, provider: str, model: str) -> Density:
        known = self._densities.get((provider, model))
        if known is None:
            known = Density()
            if len(self._densities) < MOST_MODELS:
                self._densities[provider, model] = known
        return known

    def estimate(self, provider: str, model: str, asked: int, max_tokens: int | None) -> Bill:
        """Return what a call will cost, as far as can be said before it is made.

        Args:
            asked: Bytes of the question, here and below.
            max_tokens: The answer's limit.
        """
        density = self._density(provider, model)
        prompt = density.prompt_tokens(asked)
        answer = round(density.usual)
        if max_tokens is not None and max_tokens < answer:
            answer = max_tokens
        return self._bill(provider, model, prompt, answer, settled=False)

    def answered(self, provider: str, model: str, asked: int, reply: Reply) -> Bill:
        """Return what a call that was answered cost."""
        density, usage = self._density(provider, model), reply.usage
        said = octets_of(reply.text)
        prompt, answer = usage.prompt_tokens, usage.completion_tokens
        if prompt is None:
            prompt, settled = density.prompt_tokens(asked), False
        else:
            density.asked(asked, prompt)
            settled = True
        if answer is None:
            answer, settled = density.answer_tokens(said), False
        else:
            density.answered(said, answer)
        return self._bill(provider, model, prompt, answer, settled=settled)

    def ended_badly(
        self, provider: str, model: str, asked: int, heard: int, failure: BaseException
    ) -> Bill:
        """Return what a call cost that failed or was abandoned.

        Args:
            heard: Bytes of its answer that had arrived.
            failure: What it ended with.
        """
        if _is_free(failure):
            return NOTHING
        density = self._density(provider, model)
        usage = checked_usage(getattr(failure, "usage", None))
        prompt, answer = usage.prompt_tokens, usage.completion_tokens
        settled = isinstance(failure, COUNTED) and usage.total_tokens is not None
        if prompt is None:
            prompt = density.prompt_tokens(asked)
        if not settled:  # a count on the way is of what was said until then
            answer = max(answer or 0, density.answer_tokens(heard))
            if not answer and isinstance(failure, UNREAD):
                answer = round(density.usual)
        return self._bill(provider, model, prompt, answer or 0, settled=settled)

    def _bill(self, provider: str, model: str, prompt: int, answer: int, *, settled: bool) -> Bill:
        return Bill(prompt, answer, self.prices.cost(provider, model, prompt, answer), settled)


def spend_limits(settings: Settings) -> SpendLimits | None:
    """Return what may be spent; None: no limit is set."""
    day, conversation = settings.spend_limit_day, settings.spend_limit_conversation
    if day is None and conversation is None:
        return None
    return SpendLimits(day=day, conversation=conversation)


def total_cost(attempts: Sequence[Attempt]) -> float | None:
    """Return the money for all attempts together; None where a price is not known."""
    total = 0.0
    for attempt in attempts:
        if attempt.bill.cost_usd is None:
            return None
        total += attempt.bill.cost_usd
    return total


def octets(request: Request) -> int:
    """Return how many bytes a question has, its history and instructions included."""
    size = octets_of(request.content) + octets_of(request.system or "")
    for turn in request.history:
        size += octets_of(turn.content)
    return size


def octets_of(text: str) -> int:
    """Return how many bytes a text has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _is_free(failure: BaseException) -> bool:
    """Say whether a call is not billed: it was refused, or never reached the provider."""
    if isinstance(failure, ConnectFailed):
        return not failure.sent
    if isinstance(failure, Rejected):  # by a bus that a provider uses itself
        return True
    return isinstance(failure, ProviderError) and failure.status is not None
