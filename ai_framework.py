"""The bus: one request's story from a user's words to a provider's socket and back into the store.

    send ─▶ whose turn it is in the conversation ─▶ its history ─▶ the chain of who may answer
         ─▶ journey (zejzl.engine.call): journal, breaker, budget, provider, healing ─▶ Reply

Everything is wired here and only here: stores and providers are built, the rest is handed them.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("zejzl") is None:  # a bare clone, nothing installed
    sys.path.append(str(Path(__file__).resolve().parent / "src"))
if __name__ == "__main__":  # before the classes below: they would exist twice
    from zejzl.cli import main

    sys.exit(main())

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from zejzl.clock import Clock, SystemClock
from zejzl.engine.archive import Archive
from zejzl.engine.arguments import checked_name, checked_text
from zejzl.engine.changes import Changes
from zejzl.engine.channels import Channels, Subscription
from zejzl.engine.commands import handlers
from zejzl.engine.improving import Improving
from zejzl.engine.intake import Intake
from zejzl.engine.journal import Journal, unheard
from zejzl.engine.learned import Learned
from zejzl.engine.ledger import Ledger, spend_limits
from zejzl.engine.lifecycle import Lifecycle
from zejzl.engine.options import Options
from zejzl.engine.parking import ParkedRequest, ParkedWork
from zejzl.engine.probes import store_answers
from zejzl.engine.quotas import Quotas
from zejzl.engine.record import Engine
from zejzl.engine.recovery import RecoveredRequest, Recovery
from zejzl.engine.registry import Registry
from zejzl.engine.stream import stream
from zejzl.engine.trials import Trials
from zejzl.engine.tuning import Tuning, tunable, tuning_handlers
from zejzl.engine.upkeep import Upkeep
from zejzl.engine.usual import usual
from zejzl.engine.waiting import Recovered
from zejzl.errors import StoreError
from zejzl.events import BreakerChanged, Event, RecoveryRecorded
from zejzl.magic import FairyMagic
from zejzl.messages import Delta, Message, Reply
from zejzl.policies.parking import Spacing
from zejzl.ports import AIProvider, Kept, KeyTaken, Provider, SimpleProvider, Store
from zejzl.settings import Settings

__all__ = ["AIProvider", "AsyncMessageBus", "Message", "ParkedRequest", "RecoveredRequest"]

log = logging.getLogger("zejzl.bus")

OFFLINE = "offline"


class AsyncMessageBus(Archive, Tuning):
    """Sends prompts to language models and heals what fails on the way.

    Args:
        settings: How it behaves; default is what environment, `.env` and `zejzl.toml` say.
        store: Where messages are kept; default is the SQLite file in `settings.home`.
        clock: Where time comes from.
        magic: The resilience controller; default is a new one. An attribute as well.

    Attributes:
        id: Its own, new each time; its snapshot in the store has it.
        settings: As given, with what the store keeps.
        store: Where messages are kept.

    Raises:
        SettingsError: If a setting is unknown or impossible.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        store: Store | None = None,
        clock: Clock | None = None,
        magic: FairyMagic | None = None,
    ) -> None:
        if not isinstance(settings, Settings | None):
            raise TypeError(f"settings must be Settings, not {type(settings).__name__}")
        self.settings = settings if settings is not None else _settings_from_env()
        self._clock = clock or SystemClock()
        self.magic = magic or FairyMagic(clock=self._clock, folder=self.settings.home / "guarded")
        self.store = store if store is not None else self._default_store()
        self._registry = Registry(
            self.magic,
            self.settings.failover,
            self.settings.default_provider,
            self._clock,
            self.settings.deadline,
        )
        self._lifecycle = Lifecycle(self._clock)
        self._channels = Channels(self.settings.subscriber_queue)
        spacing = Spacing(tries=self.settings.park_tries, first=self.settings.park_spacing)
        self._engine = Engine(
            clock=self._clock,
            magic=self.magic,
            journal=Journal(self.store, self.magic.circuit_breakers["persistence"], self._clock),
            recovered=Recovered(),
            ledger=Ledger(spend_limits(self.settings)),
            spacing=spacing,
            quotas=Quotas(self.store, self._clock, self.settings.rate_limits),
        )
        self._changes = Changes(self.store, self._clock, self.settings, self._use, self._on_event)
        self.id = uuid4().hex
        self._trials = Trials(self.store, self._clock, self._changes, self._on_event, self.id)
        self._intake = Intake(
            self._engine, self._registry, self.store, self.settings, self._on_request, self._trials
        )
        self._parking = ParkedWork(
            self.store,
            self._clock,
            spacing,
            partial(self._take_up, waited=True),
            lambda: len(self._registry) > 0 and OFFLINE not in self._registry,
        )
        self._learned = Learned(self.store, self.magic)
        self._improving = Improving(
            self.store,
            self._clock,
            self._trials,
            self._changes,
            lambda: tunable(self.settings, self.providers),
            lambda: self._requests,
        )
        self._upkeep = self._make_upkeep()
        self._requests = 0
        self._recovery = Recovery(self.store, self._clock)
        self.magic.remedies.watch("persistence", partial(store_answers, self.store))
        self.magic.listen(self._on_event)

    def _make_upkeep(self) -> Upkeep:
        return Upkeep(
            self.store,
            self._clock,
            self.id,
            self._look,
            self.settings.retention_days,
            handlers(self.magic) | tuning_handlers(self._changes, self._trials),
            self._learned,
            self._parking,
            self._engine.journal,
            self._improving if self.settings.auto_improve else None,
        )

    def _default_store(self) -> Store:
        from zejzl.stores import SqliteStore

        path = self.settings.home / "zejzl.db"
        return SqliteStore(path, durability=self.settings.durability, clock=self._clock)

    # Life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store and register the vendors whose keys are set; `offline` if none is.

        Raises:
            StoreError: If the database cannot be used.
            SettingsError: If a vendor's address or key cannot be.
        """
        try:
            from zejzl.engine.prices import load
            from zejzl.providers.vendors import build, configured
        except ImportError as missing:
            raise _install_hint(missing) from missing

        async with self._lifecycle.changing:
            if self._lifecycle.running:
                return
            await self._stop()  # what a cancelled stop has left
            self._lifecycle.started = True
            try:
                self._engine.ledger.prices = load(self.settings.prices)
                await self.store.open()
                await self._learned.recall()
                await self._changes.recall()
                await self._trials.recall()
                self._lifecycle.running = True
                kept = await self.store.setting("default_provider")
                self._registry.kept_default = (kept or "").strip().lower()
                for name in configured(self.settings):
                    await self.register_provider(name, build(name, self.settings, self._clock))
                await self._offer_offline()
            except BaseException:
                await self._stop()
                raise
            self._upkeep.start()

    async def stop(self) -> None:
        """Take no more requests, let those under way end, write what is queued, close.

        One that is cancelled can be done again.
        """
        async with self._lifecycle.changing:
            await self._stop()

    async def _stop(self) -> None:
        if not self._lifecycle.started:
            return
        self._lifecycle.running = False
        await self._parking.close()
        if not await self._lifecycle.drain(self.settings.deadline):
            log.warning("stopped with %d requests under way", self._lifecycle.requests)
        await self._channels.close()
        try:
            try:
                await self._upkeep.stop()
                with suppress(StoreError):  # counts of a few requests; the state is kept
                    await self._trials.keep()
            finally:
                await self._registry.clear()
        finally:
            await self.store.close()
        self._lifecycle.started = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # Providers -------------------------------------------------------------------------------

    async def register_provider(
        self, name: str, provider: Provider | SimpleProvider | AIProvider
    ) -> None:
        """Add a provider, or put another in its name's place; `offline` leaves when one comes.

        New calls go to the new one at once. The old one is cleaned up when its calls have ended,
        at the latest after the setting `deadline`; what fails at that is logged.

        Raises:
            ValueError: If the name cannot be one, or is the bus's own `offline`.
            TypeError: If it lacks what a provider needs; says what.
        """
        from zejzl.providers.simple import full

        self._lifecycle.check()
        if (key := checked_name(name)) == OFFLINE:
            raise ValueError("'offline' is the bus's own, there while nobody else is: rename yours")
        await self._registry.add(key, full(provider), probed=True)
        if OFFLINE in self._registry and len(self._registry) > 1:
            await self._registry.remove(OFFLINE)
        self._parking.look()

    async def unregister_provider(self, name: str) -> None:
        """Remove a provider and release what it holds; `offline` comes when the last one goes.

        Waits for its calls to end, at most for the setting `deadline`.

        Raises:
            NoSuchProvider: If there is none of that name.
        """
        self._lifecycle.check()
        seat = self._registry.take(name)
        await self._offer_offline()
        await self._registry.let_go(name, seat)

    async def _offer_offline(self) -> None:
        if not self._registry:
            from zejzl.providers.offline import Offline

            await self._registry.add(OFFLINE, Offline())

    @property
    def providers(self) -> dict[str, str]:
        """The registered providers in the order in which they are asked, with their models."""
        return self._registry.models()

    # Messages --------------------------------------------------------------------------------

    async def send_message(
        self,
        content: str,
        provider_name: str | None = None,
        conversation_id: str | None = "default",
        **options: Any,
    ) -> str:
        """Return the text of the answer; in the conversation "default" unless another is named.

        Takes the options of `send` and raises what it raises.
        """
        reply = await self.send(content, provider_name, conversation_id=conversation_id, **options)
        return reply.text

    async def send(
        self,
        content: str,
        provider: str | None = None,
        *,
        conversation_id: str | None = None,
        model: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        deadline: float | None = None,
        patience: float | None = None,
        failover: bool | Sequence[str] | None = None,
        criticality: str = "normal",
        sender: str = "user",
        idempotency_key: str | None = None,
        park: bool = False,
    ) -> Reply:
        """Return a model's answer to `content`.

        Args:
            content: The question.
            provider: Who is to answer, and nobody else unless `failover` says so; None is the
                chain of all providers in order. "name/model" names a model as well.
            conversation_id: Its earlier turns are sent along, and this one is added to it once
                it is answered. None: a question on its own.
            model: The first provider's model; others use their own default.
            system: Instructions for the model.
            max_tokens: Longest answer in tokens.
            temperature: Sampling temperature as the provider defines it.
            deadline: Seconds for everything together; None is the setting.
            patience: Seconds to wait for the preferred provider; None is the setting.
            failover: True: everybody else may answer too; names: these may.
            criticality: "sheddable", "normal", "critical" or "critical_plus": who goes first
                where not all can, and who is turned away.
            sender: Who asks, for the record.
            idempotency_key: Your own name for this request: sent again with the same one, also
                after a crash, it has the answer that there is, and no provider is called.
            park: Where nobody can answer, keep it and take it up again by itself, also after a
                restart: `Parked` is raised, and its `id` is the ticket for `result`.

        Raises:
            ValueError, TypeError: An argument cannot be; nothing was sent or stored.
            Rejected: Nothing was sent; says why, and for how long.
            ProviderError: The first cause, when everything allowed was tried; `attempts` tells.
            StoreError: The journal cannot be written; if an answer had come, it is `reply`.
            Parked: Nobody could answer what was sent with `park`; GivenUp: often enough.
        """
        options = Options(
            provider, model, system, max_tokens, temperature, deadline, patience, failover,
            criticality,
        )  # fmt: skip
        question = self._intake.question(
            content, conversation_id, sender, options, key=idempotency_key, parks=park
        )
        with self._lifecycle:
            return await self._intake.answer(question)

    async def stream(
        self,
        content: str,
        provider: str | None = None,
        *,
        conversation_id: str | None = None,
        model: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        deadline: float | None = None,
        patience: float | None = None,
        failover: bool | Sequence[str] | None = None,
        criticality: str = "normal",
        sender: str = "user",
        idempotency_key: str | None = None,
        allow_restart: bool = False,
    ) -> AsyncGenerator[Delta, None]:
        """Yield a model's answer piece by piece; the last piece carries the Reply.

        Takes the arguments of `send` and raises what it raises, at the first piece. A stream that
        breaks is begun again and goes on where the new answer repeats what was yielded. If it
        becomes another answer, `Delta(restart=True)` says "discard what you have" where
        `allow_restart` permits that; else `Incomplete` is raised with what had been yielded as
        its `prefix`. The setting `deadline` covers the time to the first piece; one passed, all.
        """
        options = Options(
            provider, model, system, max_tokens, temperature, deadline, patience, failover,
            criticality,
        )  # fmt: skip
        question = self._intake.question(
            content, conversation_id, sender, options, key=idempotency_key, streamed=True
        )
        with self._lifecycle:
            while True:
                begun = await self._intake.begin(question)
                try:
                    if isinstance(begun, Reply):
                        yield Delta(begun.text)
                        yield Delta("", reply=begun)
                        return
                    async with aclosing(stream(begun, allow_restart=allow_restart)) as deltas:
                        async for delta in deltas:
                            if delta.reply is not None:
                                question.ended(delta.reply)
                            yield delta
                    return
                except KeyTaken:
                    continue  # by another process, in this moment: wait for its answer
                except Exception as why:
                    question.ended(why)
                    raise
                finally:
                    self._intake.end(question)

    def _use(self, settings: Settings) -> None:
        """Treat requests that begin from now on by these settings."""
        self.settings = settings
        self._intake.usual = usual(settings)
        self._registry.changed = settings
        self._engine.quotas.use(settings.rate_limits)
        self._trials.rebase()

    async def _take_up(self, kept: Kept, *, waited: bool = False) -> Reply:
        """Return the answer to a question that was asked in an earlier life."""
        with self._lifecycle:
            return await self._intake.take_up(kept, waited=waited)

    # Publish and subscribe -------------------------------------------------------------------

    async def publish(self, topic: str, message: Message) -> int:
        """Hand `message` to everybody who hears `topic`; return how many that are."""
        self._lifecycle.check()
        if not isinstance(message, Message):
            raise TypeError(f"message must be a Message, not {type(message).__name__}")
        return self._channels.publish(checked_text("topic", topic), message)

    async def subscribe(self, pattern: str) -> Subscription:
        """Return a subscription to every topic that matches; `*` stands for any characters."""
        self._lifecycle.check()
        return self._channels.subscribe(checked_text("pattern", pattern))

    # Behind the scenes -----------------------------------------------------------------------

    def _on_request(self) -> None:
        """Count a request that goes on its way."""
        self._requests += 1
        if self._requests == 1:
            self._engine.quotas.warn(self.providers)
        self._upkeep.changed()

    def _on_event(self, event: Event) -> None:
        """Write an event down, and wake those who wait for a provider that is another now."""
        match event:
            case BreakerChanged(name=name, before=before, after=after, reason=reason):
                log.info("circuit breaker of %s: %s, was %s", name, after, before)
                log.debug("circuit breaker of %s: %s", name, reason)
                if after != "half_open":
                    self._engine.recovered.announce()
                    self.magic.gate.look_again()
                    self._parking.look(hopeful=after == "closed")
            case RecoveryRecorded(target=target, remedy=remedy, outcome=outcome):
                log.info("%s: %s; %s: %s", target, event.failure_class, remedy, outcome)
                log.debug("%s: %s", target, event.issue)
        if not self._lifecycle.started:
            return
        self._upkeep.changed()
        if isinstance(event, RecoveryRecorded) and event.request_id is not None:
            return  # written together with its request
        with suppress(StoreError, ValueError):  # not open (any more), or of words no store takes
            unheard(self.store.record([event]))

    async def _look(self) -> dict[str, object]:
        """Return the state that other processes see."""
        return {
            "state": "running" if self._lifecycle.running else "stopped",
            "requests": self._requests,
            "under_way": self._lifecycle.requests,
            "providers": self.providers,
            "rate_limits": self._engine.quotas.status(),
            "magic": await self.magic.get_system_status(),
        }


def _settings_from_env() -> Settings:
    try:
        return Settings.from_env()
    except ImportError as missing:
        raise _install_hint(missing) from missing


def _install_hint(missing: ImportError) -> ImportError:
    return ImportError(
        f"{missing.name} is missing: zejzl's dependencies are not installed; run ./start.sh",
        name=missing.name,
    )
