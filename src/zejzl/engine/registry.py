"""Who may answer: the registered providers, and the chain of them for one request."""

from collections.abc import Sequence

from zejzl.engine.arguments import checked_name
from zejzl.engine.healing import Target
from zejzl.errors import NoSuchProvider
from zejzl.magic import FairyMagic
from zejzl.ports import Provider


class Registry:
    """The providers of one bus by name, in the order in which they came.

    Attributes:
        default: Who is asked first when no provider is named.
    """

    def __init__(
        self, magic: FairyMagic, failover: tuple[str, ...] | None, default: str | None
    ) -> None:
        self._magic = magic
        self._failover = failover
        self._providers: dict[str, Provider] = {}
        self.default = default

    def __contains__(self, name: str) -> bool:
        return name in self._providers

    def __len__(self) -> int:
        return len(self._providers)

    async def add(self, name: str, provider: Provider) -> None:
        """Register a provider; one of the same name makes room for it.

        Raises:
            ValueError: If the name cannot be one.
        """
        key = checked_name(name)
        initialize = getattr(provider, "initialize", None)
        if initialize is not None:
            await initialize()
        if key in self._providers:
            await self.remove(key)
        self._providers[key] = provider

    async def remove(self, name: str) -> None:
        """Let go of a provider.

        Raises:
            NoSuchProvider: If there is none of that name.
        """
        key = self.known(name)
        provider = self._providers.pop(key)
        self._magic.forget_provider(key)
        await provider.cleanup()

    async def clear(self) -> None:
        """Let go of all."""
        while self._providers:
            _, provider = self._providers.popitem()
            await provider.cleanup()

    def known(self, name: str) -> str:
        """Return the name as it is kept.

        Raises:
            NoSuchProvider: If there is none of that name.
        """
        key = name.strip().lower()
        if key not in self._providers:
            raise NoSuchProvider(name, tuple(self._providers))
        return key

    def models(self) -> dict[str, str]:
        """Return the default model of each provider; first those asked by default, in order."""
        names = [self.default or "", *(self._failover or ()), *self._providers]
        keys = [name.strip().lower() for name in names]
        return {key: self._providers[key].default_model for key in keys if key in self._providers}

    def _in_order(self) -> list[str]:
        names = list(self._providers)
        if self._failover is not None:
            names = [self.known(name) for name in self._failover]
        first = self.default.strip().lower() if self.default else None
        if first in self._providers:
            names = [first, *(name for name in names if name != first)]
        return names

    def chain(
        self, provider: str | None, failover: bool | Sequence[str] | None, model: str | None
    ) -> list[Target]:
        """Return who may answer one request, in order.

        Naming a provider pins it, so that a prompt goes to no other vendor, unless `failover`
        is True or names who else may answer. `model` holds for the first; the others use their
        own default.
        """
        if isinstance(failover, str):
            raise TypeError("failover must be True, False or a list of names, not one name")
        if provider is not None and not isinstance(provider, str):
            raise TypeError(f"provider must be a name, not {type(provider).__name__}")
        if model is not None and not (isinstance(model, str) and model.strip()):
            raise ValueError(f"model must be a model's name, not {model!r}")
        if provider is not None and model is None:
            provider, model = self._split(provider)
        names = [] if provider is None else [self.known(provider)]
        if isinstance(failover, Sequence):
            names += [self.known(name) for name in failover]
        elif failover or (failover is None and not names):
            names += self._in_order()
        elif not names:
            names = self._in_order()[:1]
        return [
            self._target(name, model if at == 0 else None)
            for at, name in enumerate(dict.fromkeys(names))
        ]

    def _split(self, provider: str) -> tuple[str, str | None]:
        """Return name and model of "provider/model" or "provider:model"."""
        for separator in "/:":
            name, _, model = provider.partition(separator)
            if model and name.strip().lower() in self._providers:
                return name, model
        return provider, None

    def _target(self, name: str, model: str | None) -> Target:
        provider = self._providers[name]
        own = model if model != provider.default_model else None
        breaker = self._magic.provider(name, own)
        return Target(provider, name, model or provider.default_model, breaker)
