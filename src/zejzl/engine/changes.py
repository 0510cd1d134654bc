"""Changes to a running bus: improvements that were applied, and how to take them back.

    settings as given ── change ── change ── change ──▶ settings in use

Each change is a difference of settings. What is in use is what was given with all changes that
stand on top of it, the newest last, so that any one can be taken back whatever came after it.
They are kept in the store and stand again after a restart. Whoever makes one asks the other
processes on the same store to look; they do so when they next look for commands.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from secrets import token_hex
from typing import Any

from zejzl.clock import Clock
from zejzl.engine.arguments import checked_text
from zejzl.errors import NoSuchChange, SettingsError, StoreError, StoreTooNew
from zejzl.events import Event, SettingsChanged, utc
from zejzl.ports import Store
from zejzl.settings import RateLimit, Settings

log = logging.getLogger(__name__)

VERSION = 1
NAME = "changes"  # the setting they are kept as
DAMAGED = "changes.damaged"
LONGEST_ID = 500
BY_HAND = "by hand"
LOOK = "look_at_changes"  # the command that asks another process to
MOST_KEPT = 200  # changes that were taken back and are remembered
# What may be changed while requests are under way. Money, keys and files are for people.
UNREADABLE = ValueError, TypeError, KeyError, AttributeError, RecursionError
CHANGEABLE = frozenset(
    {
        "attempt_timeout",
        "context_tokens",
        "deadline",
        "default_provider",
        "failover",
        "first_token_timeout",
        "hedging",
        "history_turns",
        "idle_timeout",
        "max_attempts",
        "max_tokens",
        "patience",
        "rate_limits",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A difference of settings that was put to use.

    Attributes:
        id: What `revert` takes: that of the improvement, or one of its own.
        settings: The difference: values by the name of the setting, JSON-ready.
        reason: Why it was made, in words.
        applied_at: When, aware UTC.
        reverted_at: When it was taken back; None: it stands.
        reverted_because: Why it was.
    """

    id: str
    settings: Mapping[str, object]
    reason: str
    applied_at: datetime
    reverted_at: datetime | None = None
    reverted_because: str = ""

    @property
    def stands(self) -> bool:
        """Whether it is in use."""
        return self.reverted_at is None

    @property
    def by_hand(self) -> bool:
        """Whether a person took it back."""
        return not self.stands and self.reverted_because == BY_HAND

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        back = self.reverted_at
        return asdict(self) | {
            "applied_at": self.applied_at.isoformat(),
            "reverted_at": None if back is None else back.isoformat(),
        }


class Changes:
    """The changes of one bus.

    Args:
        settings: As given, without any change.
        use: Called with the settings that are to be in use from now on.
        tell: Called with what happened, to be written down.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        use: Callable[[Settings], None],
        tell: Callable[[Event], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._given = settings
        self._use = use
        self._tell = tell
        self._all: list[Change] = []

    @property
    def all(self) -> list[Change]:
        """Every change, the oldest first."""
        return list(self._all)

    async def recall(self, *, mend: bool = True) -> None:
        """Put to use what stands in the store; what no longer fits is told, and left out.

        Args:
            mend: Whether what cannot be read is set aside.

        Raises:
            ValueError: If it cannot be read and is not to be set aside.
            StoreTooNew: If a newer version wrote it.
        """
        kept = await self._store.setting(NAME)
        if not kept:
            return
        try:
            self._all = _from_json(kept)
        except UNREADABLE as wrong:
            if not mend:
                raise ValueError(f"the changes in the store cannot be read: {wrong}") from None
            log.warning("the changes cannot be read and are kept as %s: %s", DAMAGED, wrong)
            await self._store.keep_setting(DAMAGED, kept)
            await self._store.keep_setting(NAME, None)
            return
        self._use(self.in_use())

    async def apply(self, improvement: object) -> Change:
        """Put an improvement to use, and return the change that it is.

        Args:
            improvement: With `id` and `settings`, as attributes or as keys.

        Raises:
            TypeError, ValueError: It is none, it stands already, or nothing of it can be changed.
            SettingsError: One of its settings cannot be.
            StoreError: It could not be written down; nothing has changed.
        """
        change = self._change(improvement)
        changed(self.in_use(), change.settings)  # raises where it does not fit
        return await _to_the_end(self._apply(change))

    async def _apply(self, change: Change) -> Change:
        def add(kept: list[Change]) -> tuple[list[Change], Change]:
            if any(each.id == change.id and each.stands for each in kept):
                raise ValueError(
                    f"{change.id} is in use already; take it back first: "
                    f"await bus.revert({change.id!r})"
                )
            return [*kept, change], change

        return await self._revise(add)

    async def revert(self, id: str, because: str = BY_HAND) -> Change:
        """Take a change back, and return it.

        Raises:
            NoSuchChange: If none of that id stands.
        """
        checked_text("id", id)
        return await _to_the_end(self._revert(id, because))

    async def _revert(self, id: str, because: str) -> Change:
        at = utc(self._clock.wall())

        def take_back(kept: list[Change]) -> tuple[list[Change], Change]:
            found = next((each for each in kept if each.id == id and each.stands), None)
            if found is None:
                raise NoSuchChange(id, tuple(each.id for each in kept if each.stands))
            back = replace(found, reverted_at=at, reverted_because=because)
            return [back if each is found else each for each in kept], back

        return await self._revise(take_back)

    async def look(self) -> None:
        """Put to use what other processes have changed, and tell it; what cannot be read is left.

        Raises:
            StoreError: If the store cannot be read.
        """

        def read(kept: str | None) -> tuple[str | None, list[Change]]:
            return kept, _from_json(kept) if kept else []

        try:
            # In line with what is written: what this process changes meanwhile is not forgotten.
            self._take_in(await self._store.revise(NAME, read))
        except (*UNREADABLE, StoreTooNew) as wrong:
            log.warning("what another process has changed cannot be read: %s", wrong)

    def stands(self, id: str, settings: Mapping[str, object] | None = None) -> bool:
        """Say whether a change of that id is in use; with these settings, if any are given."""
        return any(
            each.id == id and (settings is None or dict(each.settings) == dict(settings))
            for each in self._standing
        )

    def in_use(
        self, *, without: Collection[str] = (), plus: Sequence[Mapping[str, object]] = ()
    ) -> Settings:
        """Return the settings in use, without some changes and with some differences more.

        A change that does not fit (any more) is left out, and told: another process, with other
        settings, may have made it.

        Raises:
            SettingsError: If `plus` does not fit.
        """
        settings = self._given
        for change in self._standing:
            if change.id in without:
                continue
            try:
                settings = changed(settings, change.settings)
            except (SettingsError, TypeError) as wrong:
                log.warning("change %s does not fit these settings: %s", change.id, wrong)
        for difference in plus:
            settings = changed(settings, difference)
        return settings

    @property
    def _standing(self) -> list[Change]:
        return [each for each in self._all if each.stands]

    def _change(self, improvement: object) -> Change:
        difference = checked_difference(part_of(improvement, "settings"))
        id = checked_id(part_of(improvement, "id") or token_hex(8))
        reason = word_of(part_of(improvement, "action"), BY_HAND)
        at = utc(self._clock.wall())
        return Change(id=id, settings=difference, reason=reason, applied_at=at)

    async def _revise(self, make: Callable[[list[Change]], tuple[list[Change], Change]]) -> Change:
        """Write down what `make` makes of all changes, and put it to use; return its own one."""

        def work(kept: str | None) -> tuple[str, tuple[list[Change], Change]]:
            changes, own = make(_from_json(kept) if kept else [])
            back = [each for each in changes if each.reverted_at is not None]
            back.sort(key=lambda each: (each.reverted_at or each.applied_at, each is own))
            gone = back[:-MOST_KEPT]
            changes = [each for each in changes if each not in gone]
            return _to_json(changes), (changes, own)

        changes, own = await self._store.revise(NAME, work)
        self._take_in(changes, own)
        await self._announce()
        return own

    def _take_in(self, changes: list[Change], own: Change | None = None) -> None:
        """Put to use what has changed, by whomever, and tell it once."""
        stood, stand = map(_marks, (self._all, changes))
        self._all = changes
        if stood != stand:
            self._use(self.in_use())
        for each in changes:
            begun, ended = each.stands and _mark(each) not in stood, _mark(each) in stood - stand
            if begun or ended or each is own:
                self._tell(_told(each))

    async def _announce(self) -> None:
        """Ask the other processes that run to look; who does not run looks at its start."""
        if not self._store.shared:
            return
        try:
            for owner, _, runs, body in await self._store.snapshots():
                if runs and json.loads(body).get("state") == "running":
                    await self._store.post_command(owner, LOOK, "{}")
        except (StoreError, *UNREADABLE) as problem:
            log.warning("other processes were not told of a change: %s", problem)


def _mark(change: Change) -> tuple[str, datetime]:
    """Return what tells a change from all others, whether it stands or not."""
    return change.id, change.applied_at


def _marks(changes: Sequence[Change]) -> set[tuple[str, datetime]]:
    """Return the marks of those that stand."""
    return {_mark(each) for each in changes if each.stands}


def _told(change: Change) -> SettingsChanged:
    return SettingsChanged(
        change_id=change.id,
        settings=json.dumps(change.settings, sort_keys=True),
        reverted=not change.stands,
        reason=change.reason if change.stands else change.reverted_because,
        timestamp=change.applied_at if change.reverted_at is None else change.reverted_at,
    )


async def _to_the_end(work: Coroutine[Any, Any, Change]) -> Change:
    """Return what comes of `work`, which is done whole even where its caller leaves."""
    return await asyncio.shield(asyncio.ensure_future(work))


def changed(settings: Settings, difference: Mapping[str, object]) -> Settings:
    """Return the settings with a difference on top; rate limits that it does not name stay.

    Raises:
        SettingsError: If they cannot be together.
    """
    if not difference:
        return settings
    merged: dict[str, Any] = dict(difference)
    if isinstance(failover := merged.get("failover"), list):
        merged["failover"] = tuple(failover)
    if isinstance(limits := merged.get("rate_limits"), Mapping):
        named = {str(name).strip().lower(): limit for name, limit in limits.items()}
        merged["rate_limits"] = {**settings.rate_limits, **named}
    return replace(settings, **merged)


def checked_difference(settings: object) -> dict[str, object]:
    """Return a difference of settings, JSON-ready.

    Raises:
        TypeError, ValueError: It is none, or holds what may not be changed while running.
    """
    if not isinstance(settings, Mapping):
        raise TypeError(
            "an improvement has `settings`, a table of setting and value, "
            f"not {type(settings).__name__}"
        )
    if not settings:
        raise ValueError(
            "there is nothing in it that the bus can change: it is advice for your own program"
        )
    if wrong := [name for name in settings if name not in CHANGEABLE]:
        known = {item.name for item in fields(Settings)}
        why = "cannot be changed while the bus runs" if wrong[0] in known else "is no setting"
        raise SettingsError(str(wrong[0]), f"{why}; these can: {', '.join(sorted(CHANGEABLE))}")
    return {name: _plain(value) for name, value in settings.items()}


def checked_id(id: object) -> str:
    """Return what a change is taken back by.

    Raises:
        TypeError, ValueError: If it is no short text.
    """
    if not isinstance(id, str):
        raise TypeError(f"an improvement's id must be text, not {type(id).__name__}")
    if len(checked_text("id", id)) > LONGEST_ID:
        raise ValueError(f"an improvement's id has at most {LONGEST_ID} characters")
    return id


def part_of(improvement: object, name: str) -> Any:
    """Return one part of an improvement, whether it is an object or a table."""
    if isinstance(improvement, Mapping):
        return improvement.get(name)
    return getattr(improvement, name, None)


def word_of(action: object, otherwise: str) -> str:
    """Return what an improvement does, in a word; `otherwise` where it has none."""
    return action if isinstance(action, str) and action else otherwise


def _plain(value: object) -> object:
    if isinstance(value, RateLimit):
        return asdict(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _to_json(changes: Sequence[Change]) -> str:
    rows = [each.to_json() for each in changes]
    return json.dumps({"v": VERSION, "changes": rows}, allow_nan=False)


def _from_json(text: str) -> list[Change]:
    body = json.loads(text, parse_constant=_no_number)
    if isinstance(version := body["v"], int) and version > VERSION:
        raise StoreTooNew(
            f"the changes are of version {version}, this zejzl reads {VERSION}: "
            "use the newer zejzl, or another ZEJZL_HOME"
        )
    return [_change_of(row) for row in body["changes"]]


def _change_of(row: Mapping[str, Any]) -> Change:
    back = row["reverted_at"]
    return Change(
        id=checked_id(row["id"]),
        settings=checked_difference(row["settings"]),
        reason=str(row["reason"]),
        applied_at=_moment(row["applied_at"]),
        reverted_at=None if back is None else _moment(back),
        reverted_because=str(row["reverted_because"]),
    )


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    return moment


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")
