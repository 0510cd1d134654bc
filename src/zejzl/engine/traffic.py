"""What happened on the bus, as events that the Learner reads: a request is a case.

    call:claude (error) ──▶ call:grok (ok) ──▶ executor (ok)

Nothing of what was asked or answered is in them: who was called, how long it took, how it ended.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from zejzl.engine.parking import DROPPED
from zejzl.errors import shorten
from zejzl.messages import Attempt, Message
from zejzl.ports import Store

OK = "ok"


async def traffic(store: Store, limit: int) -> list[dict[str, object]]:
    """Return the events of the newest `limit` requests that have ended, in order of time.

    Raises:
        StoreError: If the store cannot be read.
    """
    events: list[dict[str, object]] = []
    for message in await store.messages(limit=limit):
        if message.response is not None or message.error is not None:
            events += events_of(message, await store.attempts(message.id))
    return sorted(events, key=lambda event: str(event["timestamp"]))


def events_of(message: Message, attempts: Sequence[Attempt]) -> Iterator[dict[str, object]]:
    """Yield the events of one request that has ended: its calls, and then how it ended."""
    last = message.timestamp
    for attempt in attempts:
        began = attempt.at or last
        ended = began + timedelta(seconds=attempt.seconds)
        last = max(last, ended)
        well = attempt.outcome == OK
        event: dict[str, object] = {
            "type": f"call:{attempt.provider}",
            "conversation_id": message.id,
            "timestamp": ended.isoformat(timespec="microseconds"),
            "agent": attempt.provider,
            "status": "ok" if well else "error",
            "duration_ms": attempt.seconds * 1_000.0,
            "data": {"model": attempt.model, "remedy": attempt.remedy, "outcome": attempt.outcome},
        }
        if not well:
            said = f"{attempt.outcome}: {attempt.error}" if attempt.error else attempt.outcome
            event["error"] = shorten(said)
        yield event
    end = message.timestamp + timedelta(seconds=message.response_time or 0.0)
    answered = message.response is not None
    # Somebody has changed their mind: that is neither a success nor a failure.
    dropped = not answered and (message.error or "").startswith(DROPPED)
    event = {
        "type": "executor",
        "conversation_id": message.id,
        "timestamp": max(last, end).isoformat(timespec="microseconds"),
        "status": "ok" if answered else "dropped" if dropped else "error",
        "data": {"provider": message.provider},
    }
    if not answered and not dropped:
        event["error"] = shorten(message.error or "")
    yield event
