"""The provider that is there when no other is: it answers at once and says what it is.

Never a fallback for a provider that fails: an answer that nobody asked a model for must not look
like one.
"""

from zejzl.messages import Reply, Request, Usage

SIGN = "[offline]"


class Offline:
    """Deterministic: the same question has the same answer, which names itself as offline."""

    name = "offline"
    default_model = "offline"

    async def generate(self, request: Request) -> Reply:
        """Answer with what was asked, marked as offline."""
        words = len(request.content.split())
        turns = len(request.history) // 2
        text = (
            f"{SIGN} No model has seen this: no provider key is set. "
            f"You wrote {words} word{'' if words == 1 else 's'}"
            f"{f' after {turns} earlier turn' + ('s' if turns > 1 else '') if turns else ''}: "
            f"{request.content}"
        )
        answer = text.split()
        cut = request.max_tokens is not None and len(answer) > request.max_tokens
        return Reply(
            text=" ".join(answer[: request.max_tokens]) if cut else text,
            provider=self.name,
            model=self.default_model,
            usage=Usage(words, min(len(answer), request.max_tokens or len(answer))),
            finish_reason="length" if cut else "stop",
        )

    async def cleanup(self) -> None:
        """Nothing to release."""
