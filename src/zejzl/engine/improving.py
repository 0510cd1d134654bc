"""The loop that runs by itself: findings ─▶ an improvement ─▶ tried on a share ─▶ kept or not.

Off unless the setting `auto_improve` is on. One experiment at a time, on half of the requests by
their conversation; what is decided is carried out by the experiment itself. What was tried lately
is not tried again, whatever became of it; nor is, ever, what somebody took back by hand.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from zejzl.clock import Clock
from zejzl.engine.changes import Changes
from zejzl.engine.traffic import traffic
from zejzl.engine.trials import Trials
from zejzl.errors import words
from zejzl.events import utc
from zejzl.learning.change import Improvement
from zejzl.learning.findings import find
from zejzl.learning.improvements import propose
from zejzl.learning.mining import Miner
from zejzl.ports import Store

log = logging.getLogger(__name__)

NAME = "auto_improve"  # the setting that remembers what was tried
SPACING = 600.0  # seconds between looks
ENOUGH = 200  # requests that must have ended since the last look
LOOKED_AT = 2_000  # newest requests that are looked at
AGAIN_AFTER = timedelta(days=7)
PREFIX = "auto "  # begins the names of its experiments


class Improving:
    """Finds improvements and tries them.

    Args:
        tunable: Returns what the bus is set to, as `learning.improvements.propose` takes it.
        ended: Returns how many requests there have been.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        trials: Trials,
        changes: Changes,
        tunable: Callable[[], Mapping[str, object]],
        ended: Callable[[], int],
    ) -> None:
        self._store = store
        self._clock = clock
        self._trials = trials
        self._changes = changes
        self._tunable = tunable
        self._ended = ended
        self._seen = 0

    async def run(self) -> None:
        """Look every ten minutes, until cancelled."""
        while True:
            await self._clock.sleep(SPACING)
            try:
                await self.look()
            except Exception as problem:  # noqa: BLE001 - the next look may do better; and it is told
                log.warning("no improvement was looked for: %s", words(problem))

    async def look(self) -> str | None:
        """Look once; return the name of the experiment that was begun, if one was.

        Raises:
            StoreError: If the store cannot be read or written.
        """
        if self._trials.running or self._ended() - self._seen < ENOUGH:
            return None
        self._seen = self._ended()
        events = await traffic(self._store, LOOKED_AT)
        found = await asyncio.to_thread(_improvements, events, self._tunable())
        tried = await self._tried()
        unwanted = {each.id.partition(" ")[0] for each in self._changes.all if each.by_hand}
        for improvement in found:
            if improvement.applicable and improvement.id not in (*tried, *unwanted):
                return await self._try(improvement, tried)
        return None

    async def _try(self, improvement: Improvement, tried: Mapping[str, datetime]) -> str:
        now = utc(self._clock.wall())
        name = f"{PREFIX}{improvement.id} {now:%Y-%m-%d}"
        # An id of its own: the like of it, with other values, may stand already.
        change = improvement.to_json() | {"id": f"{improvement.id} {now:%Y-%m-%d}"}
        await self._trials.begin(name, {"as it is": None, "improved": change})
        kept = {**tried, improvement.id: now}
        body = {id: at.isoformat() for id, at in kept.items()}
        await self._store.keep_setting(NAME, json.dumps(body))
        log.info("experiment %s was begun: %s", name, dict(improvement.settings))
        return name

    async def _tried(self) -> dict[str, datetime]:
        """Return what was tried lately, and when."""
        kept = await self._store.setting(NAME)
        since = utc(self._clock.wall()) - AGAIN_AFTER
        try:
            found = {
                str(id): datetime.fromisoformat(at) for id, at in json.loads(kept or "{}").items()
            }
            return {id: at for id, at in found.items() if at > since}
        except (ValueError, TypeError, AttributeError) as wrong:
            log.warning("what was tried cannot be read, and is forgotten: %s", wrong)
            return {}


def _improvements(
    events: list[dict[str, object]], set_to: Mapping[str, object]
) -> list[Improvement]:
    miner = Miner()
    miner.learn(events)
    return propose(find(miner.patterns()), settings=set_to)
