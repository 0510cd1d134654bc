"""What can be asked of a bus about the requests it has had."""

from datetime import UTC, date, datetime

from zejzl.engine.arguments import checked_text, checked_wait
from zejzl.engine.lifecycle import Lifecycle
from zejzl.engine.parking import ParkedRequest, ParkedWork
from zejzl.engine.record import Engine
from zejzl.engine.recovery import RecoveredRequest, Recovery, Resend
from zejzl.errors import Rejected
from zejzl.messages import Message, Reply
from zejzl.ports import Spending, Store


class Archive:
    """The part of a bus that looks back; `AsyncMessageBus` is made of it.

    Attributes:
        store: Where messages are kept.
    """

    store: Store
    _engine: Engine
    _lifecycle: Lifecycle
    _parking: ParkedWork
    _recovery: Recovery
    _take_up: Resend

    async def history(self, conversation_id: str, limit: int = 100) -> list[Message]:
        """Return the newest `limit` answered messages of a conversation, oldest first."""
        self._lifecycle.check()
        checked_text("conversation_id", conversation_id, empty=True)
        return await self.store.history(conversation_id, limit)

    async def result(self, id: str, *, wait: float = 0.0) -> Reply:
        """Return the answer to a request, by the `id` of its `Parked` or of its reply.

        Args:
            wait: Seconds to wait for it.

        Raises:
            Parked: There is none yet.
            GivenUp: There will be none.
            NoSuchRequest: Nothing is known of it.
        """
        self._lifecycle.check()
        await self._engine.journal.catch_up()
        return await self._parking.result(checked_text("id", id), checked_wait(wait))

    async def parked(self, limit: int = 1_000) -> list[ParkedRequest]:
        """Return what waits for better times, is under way again or was given up, oldest first."""
        self._lifecycle.check()
        await self._engine.journal.catch_up()
        return await self._parking.all(limit)

    async def replay(self, id: str) -> None:
        """Have parked work, or a dead letter, taken up now, with all its tries before it.

        Raises:
            NoSuchRequest: If none of that id is parked.
            RequestUnderWay: If it is just being tried.
        """
        self._lifecycle.check()
        await self._engine.journal.catch_up()
        await self._parking.replay(checked_text("id", id))

    async def drop(self, id: str) -> None:
        """Give parked work, or a dead letter, up for good; raises what `replay` does."""
        self._lifecycle.check()
        await self._engine.journal.catch_up()
        await self._parking.drop(checked_text("id", id))

    async def costs(
        self, *, since: date | None = None, conversation_id: str | None = None
    ) -> list[Spending]:
        """Return what calls cost, by day of UTC, provider and model, oldest first.

        Every call is in it: failed, cancelled, hedged and cut ones, too, and those under way.

        Args:
            since: The first day, or a moment in it that knows its zone; None: from the beginning.
            conversation_id: Of this conversation alone.

        Raises:
            TypeError: If one of them is none.
        """
        self._lifecycle.check()
        first = "" if since is None else _day(since).isoformat()
        if conversation_id is not None:
            checked_text("conversation_id", conversation_id, empty=True)
        return await self.store.spending(since=first, conversation_id=conversation_id)

    async def recover(self, *, resend: bool = False) -> list[RecoveredRequest]:
        """Settle what a bus that died left in flight, and return it, oldest first.

        Only requests whose owner is gone are touched; another live process on the same
        database keeps its own. What was sent with `park` is taken up again by itself.

        Args:
            resend: Ask once more for each, as it was asked, and settle it with the answer.

        Raises:
            Rejected: If there is nobody to ask but `offline`.
        """
        self._lifecycle.check()
        if not isinstance(resend, bool):
            raise TypeError(f"resend must be True or False, not {resend!r}")
        if resend and not self._parking.has_whom_to_ask:
            raise Rejected("nobody can be asked: register a provider first, then recover")
        return await self._recovery.run(self._take_up if resend else None)


def _day(since: object) -> date:
    """Return the day of UTC; a moment is a date to Python, and its day is not always the same."""
    if isinstance(since, datetime):
        if since.tzinfo is None:
            raise TypeError("since must be a date, or a datetime that knows its zone")
        return since.astimezone(UTC).date()
    if not isinstance(since, date):
        raise TypeError(f"since must be a date, not {type(since).__name__}")
    return since
