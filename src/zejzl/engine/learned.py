"""What was learned outlives the process: kept in the store, taken up again at the start."""

import json
import logging

from zejzl.errors import StoreTooNew
from zejzl.magic import FairyMagic
from zejzl.magic.recoveries import VERSION
from zejzl.ports import Store

log = logging.getLogger(__name__)

NAME = "recovery_preferences"  # the setting it is kept as
DAMAGED = "recovery_preferences.damaged"


class Learned:
    """The learned preferences of one controller, in a store."""

    def __init__(self, store: Store, magic: FairyMagic) -> None:
        self._store = store
        self._magic = magic
        self._kept = ""
        self._kept_at: int | None = None  # of the changes there have been

    async def recall(self) -> None:
        """Go on from what was kept; what cannot be read is set aside and told.

        Raises:
            StoreTooNew: If a newer version wrote it.
        """
        kept = await self._store.setting(NAME)
        if not kept:
            return
        try:
            body = json.loads(kept)
            version = body.get("v") if isinstance(body, dict) else None
            if isinstance(version, int) and version > VERSION:
                raise StoreTooNew(
                    f"what was learned is of version {version}, this zejzl reads {VERSION}: "
                    "use the newer zejzl, or another ZEJZL_HOME"
                )
            self._magic.restore(body)
            self._kept = kept
        except (ValueError, RecursionError) as wrong:
            log.warning("what was learned cannot be read and is kept as %s: %s", DAMAGED, wrong)
            await self._store.keep_setting(DAMAGED, kept)

    async def keep(self) -> None:
        """Write it down if it has changed."""
        changes = self._magic.recoveries.changes
        if changes == self._kept_at:  # asked once a second: most often there is nothing to do
            return
        body = json.dumps(self._magic.snapshot(), allow_nan=False)
        if body != self._kept:
            await self._store.keep_setting(NAME, body)
            self._kept = body
        self._kept_at = changes
