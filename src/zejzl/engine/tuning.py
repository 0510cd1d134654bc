"""What a bus can change of itself: improvements, and experiments with them."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields

from zejzl.engine.changes import LOOK, Change, Changes
from zejzl.engine.commands import Handler
from zejzl.engine.lifecycle import Lifecycle
from zejzl.engine.record import Engine
from zejzl.engine.traffic import traffic
from zejzl.engine.trials import Trials
from zejzl.errors import NoSuchChange
from zejzl.learning.experiment import MOST, Goal
from zejzl.ports import Store
from zejzl.settings import Settings, check_count


class Tuning:
    """The part of a bus that changes how it works; `AsyncMessageBus` is made of it.

    Attributes:
        store: Where messages are kept.
    """

    store: Store
    _engine: Engine
    _lifecycle: Lifecycle
    _changes: Changes
    _trials: Trials

    async def traffic(self, limit: int = 1_000) -> list[dict[str, object]]:
        """Return what happened to the newest `limit` requests, as events that the Learner reads.

        Each request is a case: its calls, and how it ended. Nothing of what was asked is in it.
        """
        self._lifecycle.check()
        check_count("limit", limit)
        return await traffic(self.store, limit)

    async def apply(self, improvement: object) -> Change:
        """Put an improvement to use for all requests from now on, also after a restart.

        Args:
            improvement: What the Improver proposed, or anything with an `id` and `settings`: a
                table of settings and their new values.

        Raises:
            TypeError, ValueError: It is none, stands already, or is advice for your own program.
            SettingsError: One of its settings cannot be, or not while the bus runs.
            StoreError: It could not be written down; nothing has changed.
        """
        self._lifecycle.check()
        with _no_deeper():
            return await self._changes.apply(improvement)

    async def revert(self, id: str) -> Change:
        """Take a change back, whatever came after it.

        Raises:
            NoSuchChange: If none of that id stands.
        """
        self._lifecycle.check()
        return await self._changes.revert(id)

    @property
    def changes(self) -> list[Change]:
        """Every change, the oldest first, with those that were taken back."""
        return self._changes.all

    async def experiment(
        self,
        name: str,
        *,
        arms: Mapping[str, object],
        share: float = 0.5,
        goal: Goal | None = None,
        most: int = MOST,
    ) -> dict[str, object]:
        """Try one way of working against another, on requests divided by their conversation.

        It ends by itself: "kept" (the treatment is in use from then on, as a change), "reverted"
        (what there was stays, or is put back if the treatment stood already) or "undecided".

        Args:
            name: Its name; another one divides the same conversations anew.
            arms: Two, by name: None or {} is what there is, else an improvement, or a table of
                settings. The one that is not empty is tried; of two, the second.
            share: Of requests that get what is tried.
            goal: "success", "seconds" or "cost": what it is tried for; None: what an improvement
                is to be verified by, else success. All three are watched all the same.
            most: Requests after which it ends undecided.

        Raises:
            ValueError: One of them cannot be, or an experiment of that name runs.
            SettingsError: A setting cannot be, or not while the bus runs.
        """
        self._lifecycle.check()
        with _no_deeper():
            return await self._trials.begin(name, arms, share=share, goal=goal, most=most)

    async def stop_experiment(self, name: str) -> dict[str, object]:
        """End an experiment early, undecided: what there was before stays. Return its end.

        Raises:
            NoSuchChange: If none of that name runs.
        """
        self._lifecycle.check()
        return await self._trials.stop(name)

    @property
    def experiments(self) -> list[dict[str, object]]:
        """Every experiment with its figures, those that are over first."""
        return self._trials.all()


@contextmanager
def _no_deeper() -> Iterator[None]:
    """Tell of values that are nested so deeply that nothing can be done with them."""
    try:
        yield
    except RecursionError:
        raise ValueError(
            "it is nested too deeply: a setting is a number, a text, a list of names or a table"
        ) from None


def tuning_handlers(changes: Changes, trials: Trials) -> dict[str, Handler]:
    """Return what may be asked of a bus: revert {id}; stop_experiment {name}; to look at changes.

    The last is what buses ask of each other.
    """

    async def revert(asked: Mapping[str, object]) -> object:
        try:
            return (await changes.revert(str(asked.get("id")))).to_json()
        except NoSuchChange as unknown:
            raise ValueError(str(unknown)) from None

    async def stop_experiment(asked: Mapping[str, object]) -> object:
        try:
            return await trials.stop(str(asked.get("name")))
        except NoSuchChange as unknown:
            raise ValueError(str(unknown)) from None

    async def look(_: Mapping[str, object]) -> object:
        await changes.look()
        return [each.id for each in changes.all if each.stands]

    return {"revert": revert, "stop_experiment": stop_experiment, LOOK: look}


def tunable(settings: Settings, providers: Collection[str]) -> dict[str, object]:
    """Return what a bus is set to, as `learning.improvements.propose` takes it.

    Args:
        providers: Their names, in the order in which they are asked.
    """
    values = {each.name: getattr(settings, each.name) for each in fields(settings)}
    order = settings.failover or tuple(name for name in providers if name != "offline")
    return {**values, "failover": order}
