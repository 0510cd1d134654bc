"""A user's own provider of the seed's shape, text in and text out, seen as a full one."""

import inspect
from typing import cast

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
        models = [getattr(provider, name, "") for name in ("model", "default_model")]
        # A user's own may keep the model itself there.
        self.default_model = next((it for it in models if isinstance(it, str) and it), "")

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

    A full one has name, default_model and generate; stream, initialize, reconnect and cleanup
    are used where it has them.

    Raises:
        TypeError: If it is no provider; says what it lacks.
    """
    if isinstance(provider, type):
        raise TypeError(f"{provider.__name__} is a class: register one made of it")
    kind = type(provider).__name__
    lacks = [name for name in ("name", "default_model", "generate") if not hasattr(provider, name)]
    if not lacks:
        _check_async(provider, "generate")
        return cast(Provider, provider)
    if getattr(type(provider), "generate_response", None) is AIProvider.generate_response:
        raise TypeError(
            f"{kind} does not define async def generate_response(self, message, history) -> str"
        )
    if isinstance(provider, SimpleProvider):
        _check_async(provider, "generate_response")
        return Simple(provider)
    raise TypeError(
        f"{kind} has no {', no '.join(lacks)}: a provider needs name, default_model and "
        "async def generate(self, request) -> Reply; or name and "
        "async def generate_response(self, message, history) -> str"
    )


def _check_async(provider: object, name: str) -> None:
    """Raise TypeError where a method is a plain function: what it returns cannot be awaited."""
    method = inspect.unwrap(getattr(provider, name))
    plain = inspect.isfunction(method) or inspect.ismethod(method)  # an object may be anything
    if plain and not inspect.iscoroutinefunction(method):
        raise TypeError(
            f"{type(provider).__name__}.{name} must be async: write `async def {name}(…)`, "
            "without a yield, and await what it waits for"
        )
