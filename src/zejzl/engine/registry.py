"""Who may answer: the registered providers, and the chain of them for one request."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from zejzl.clock import Clock, SystemClock
from zejzl.engine.arguments import checked_name, checked_text
from zejzl.engine.failures import in_words, own_failure
from zejzl.engine.lifecycle import UnderWay
from zejzl.engine.probes import provider_answers
from zejzl.engine.targets import Seat, Target
from zejzl.errors import BusNotRunning, NoSuchProvider
from zejzl.magic import FairyMagic
from zejzl.magic.gate import PROVIDERS
from zejzl.ports import Provider
from zejzl.settings import Settings

log = logging.getLogger(__name__)

LETTING_GO = 5.0  # seconds that a provider is given to release what it holds


class Registry:
    """The providers of one bus by name, in the order in which they came.

    Args:
        deadline: Seconds to wait for the calls of a provider that leaves; None: to their end.

    Attributes:
        kept_default: Who is asked first if the settings name nobody; may be unknown, or "".
        changed: Settings in use in place of the given ones; None: there are none.
    """

    def __init__(
        self,
        magic: FairyMagic,
        failover: tuple[str, ...] | None,
        default: str | None,
        clock: Clock | None = None,
        deadline: float | None = None,
    ) -> None:
        self._gate = magic.gate
        self._remedies = magic.remedies
        self._clock = clock or SystemClock()
        self._deadline = deadline
        self._failover = failover
        self._seats: dict[str, Seat] = {}
        self._default = default
        self._clearings = 0
        self.kept_default = ""
        self.changed: Settings | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._seats

    def __len__(self) -> int:
        return len(self._seats)

    async def add(self, name: str, provider: Provider, *, probed: bool = False) -> None:
        """Register a provider; one of the same name makes room for it.

        Args:
            probed: Whether it is looked at where its breaker is to be healed.

        Raises:
            ValueError: If the name cannot be one.
            TypeError: If its own name or model is no text.
            BusNotRunning: If the bus was stopped before it was ready.
        """
        key = checked_name(name)
        for what in ("name", "default_model"):
            checked_text(f"the provider's {what}", getattr(provider, what), empty=True)
        initialize = getattr(provider, "initialize", None)
        if initialize is not None:
            clearings = self._clearings
            await initialize()
            if self._clearings != clearings:
                await self._clean_up(key, provider)
                raise BusNotRunning(f"the bus was stopped while provider {key!r} made itself ready")
        seat = self._seats.get(key)
        if probed:
            self._remedies.watch(f"{PROVIDERS}:{key}", partial(provider_answers, provider))
        if seat is None:
            self._seats[key] = Seat(provider, UnderWay(self._clock))
        elif seat.provider is not provider:
            self._gate.forget_provider(key)
            old = replace(seat)
            seat.provider, seat.calls = provider, UnderWay(self._clock)
            await self.let_go(key, old)

    async def remove(self, name: str) -> None:
        """Let go of a provider.

        Raises:
            NoSuchProvider: If there is none of that name.
        """
        await self.let_go(name, self.take(name))

    def take(self, name: str) -> Seat:
        """Forget a provider and return its seat, to be let go of; no call of it begins any more.

        Raises:
            NoSuchProvider: If there is none of that name.
        """
        key = self.known(name)
        self._gate.forget_provider(key)
        self._remedies.watch(f"{PROVIDERS}:{key}", None)
        seat = self._seats.pop(key)
        seat.calls.over = True
        return seat

    async def let_go(self, name: str, seat: Seat) -> None:
        """Clean up a provider once its calls have ended, at the latest after the deadline."""
        try:
            await seat.calls.drain(self._deadline)
        finally:
            await self._clean_up(name, seat.provider)

    async def clear(self) -> None:
        """Let go of all, whether or not their calls have ended."""
        self._clearings += 1
        names = list(self._seats)
        await asyncio.gather(*(self._clean_up(name, self.take(name).provider) for name in names))

    async def _clean_up(self, name: str, provider: Provider) -> None:
        """Let a provider release what it holds; one that fails or hangs at that is left alone."""
        cleanup = getattr(provider, "cleanup", None)
        if cleanup is None:
            return
        try:
            async with self._clock.timeout(LETTING_GO):
                await cleanup()
        except TimeoutError:
            log.warning("provider %s hangs in its cleanup(): it is left alone", name)
        except BaseException as problem:
            if (failure := own_failure(problem)) is None:
                raise
            log.warning("provider %s did not end well: %s", name, in_words(failure))

    def known(self, name: str) -> str:
        """Return the name as it is kept.

        Raises:
            NoSuchProvider: If there is none of that name.
        """
        key = name.strip().lower()
        if key not in self._seats:
            raise NoSuchProvider(name, tuple(self._seats))
        return key

    def models(self) -> dict[str, str]:
        """Return the default model of each provider; first those asked by default, in order."""
        names = [self._default or self.kept_default, *(self._failover or ()), *self._seats]
        if self.changed is not None:
            first = self._first(self.changed)
            if not first and self.changed.failover == self._failover:
                first = self.kept_default
            names = [first, *self._rearranged(list(self._seats), self.changed.failover)]
        keys = [name.strip().lower() for name in names]
        return {key: self._seats[key].provider.default_model for key in keys if key in self._seats}

    def _in_order(self, changed: Settings | None) -> list[str]:
        try:
            names = [self.known(name) for name in self._failover or self._seats]
            first = self.known(self._default) if self._default else self.kept_default
        except NoSuchProvider as unknown:
            unknown.add_note("the settings name it: failover or default_provider")
            raise
        if changed is not None:
            names = self._rearranged(names, changed.failover)
            first = self._first(changed) or first
            if changed.failover != self._failover and not self._default:
                first = self._first(changed)  # an order that was tried beats a kept default
        return [first, *(name for name in names if name != first)] if first in self else names

    @staticmethod
    def _first(changed: Settings) -> str:
        return (changed.default_provider or "").strip().lower()

    def _rearranged(self, names: list[str], order: tuple[str, ...] | None) -> list[str]:
        """Return `names` in another order; a change keeps nobody out, and names nobody in vain."""
        keys = [name.strip().lower() for name in order or ()]
        ahead = [key for key in dict.fromkeys(keys) if key in names]
        return [*ahead, *(name for name in names if name not in ahead)]

    def chain(
        self,
        provider: str | None,
        failover: bool | Sequence[str] | None,
        model: str | None,
        changed: Settings | None = None,
    ) -> list[Target]:
        """Return who may answer one request, in order.

        Naming a provider pins it, so that a prompt goes to no other vendor, unless `failover`
        is True or names who else may answer. `model` holds for the first; the others use their
        own default.

        Args:
            changed: Settings whose order is to be used in place of the given one.
        """
        if not (failover is None or isinstance(failover, bool)) and (
            isinstance(failover, str)
            or not isinstance(failover, Sequence)
            or not all(isinstance(name, str) for name in failover)
        ):
            raise TypeError(f"failover must be True, False or a list of names, not {failover!r}")
        if provider is not None and not isinstance(provider, str):
            raise TypeError(f"provider must be a name, not {type(provider).__name__}")
        if model is not None and not (isinstance(model, str) and model.strip()):
            raise ValueError(f"model must be a model's name, not {model!r}")
        if provider is not None and model is None:
            provider, model = self._split(provider)
        names = [] if provider is None else [self.known(provider)]
        if failover and isinstance(failover, Sequence):
            names += [self.known(name) for name in failover]
        elif failover or (failover is None and not names):
            names += self._in_order(changed)
        elif not names:
            names = self._in_order(changed)[:1]
        return [
            self._target(name, model if at == 0 else None)
            for at, name in enumerate(dict.fromkeys(names))
        ]

    def _split(self, provider: str) -> tuple[str, str | None]:
        """Return name and model of "provider/model" or "provider:model"."""
        for separator in "/:":
            name, _, model = provider.partition(separator)
            if model and name.strip().lower() in self._seats:
                return name, model
        return provider, None

    def _target(self, name: str, model: str | None) -> Target:
        seat = self._seats[name]
        default = seat.provider.default_model
        model = model or default
        lane = self._gate.lane(name)
        breaker = self._gate.provider(name, model if model != default else None)
        return Target(seat, name, model, breaker, lane, lane.context(model))
