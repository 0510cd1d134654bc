"""A user's own provider of the seed's shape, text in and text out, seen as a full one."""

from zejzl.errors import EmptyAnswer, Malformed
from zejzl.messages import Reply, Request
from zejzl.ports import AIProvider, Provider, SimpleProvider


class Simple:
    """Gives a `SimpleProvider` what the bus asks of every provider.

    `max_tokens` and `temperature` do not reach it: its shape has no place for them.
    """

    def __init__(self, provider: SimpleProvider) -> None:
        self._provider = provider
        self.name = provider.name
        model = getattr(provider, "model", "") or getattr(provider, "default_model", "")
        self.default_model = str(model)

    async def initialize(self) -> None:
        """Let the provider prepare, where it wants to."""
        initialize = getattr(self._provider, "initialize", None)
        if initialize is not None:
            await initialize()

    async def generate(self, request: Request) -> Reply:
        """Answer once; the list of turns is the provider's own to keep or change."""
        turns = [{"role": turn.role, "content": turn.content} for turn in request.history]
        if request.system is not None:
            turns.insert(0, {"role": "system", "content": request.system})
        text = await self._provider.generate_response(request.content, turns)
        if not isinstance(text, str):
            raise Malformed(
                f"generate_response must return str, not {type(text).__name__}",
                provider=self.name,
                model=self.default_model,
            )
        if not text.strip():
            raise EmptyAnswer(
                "the answer holds no text", provider=self.name, model=self.default_model
            )
        return Reply(text=text, provider=self.name, model=self.default_model)

    async def cleanup(self) -> None:
        """Let the provider release what it holds."""
        cleanup = getattr(self._provider, "cleanup", None)
        if cleanup is not None:
            await cleanup()


def full(provider: Provider | SimpleProvider | AIProvider) -> Provider:
    """Return a provider as the bus calls it, wrapped if it has only the simple shape.

    Raises:
        TypeError: If it is no provider.
    """
    if isinstance(provider, type):
        raise TypeError(f"{provider.__name__} is a class: register one made of it")
    mute = getattr(type(provider), "generate_response", None) is AIProvider.generate_response
    if mute and not isinstance(provider, Provider):
        raise TypeError(
            f"{type(provider).__name__} does not define "
            "async def generate_response(self, message, history) -> str"
        )
    if isinstance(provider, Provider):
        return provider
    if isinstance(provider, SimpleProvider):
        return Simple(provider)
    raise TypeError(
        f"{type(provider).__name__} is no provider: it needs a name and generate(request), or "
        "generate_response(message, history)"
    )
