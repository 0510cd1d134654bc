"""What every store refuses before it writes anything, and how it writes a time.

A refusal is a ValueError that names the field: the caller's mistake, not the database's.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from zejzl.events import Event, to_json
from zejzl.messages import Attempt, Message


def check_texts(**texts: str | None) -> None:
    """Refuse text that UTF-8 cannot hold."""
    for name, text in texts.items():
        if text is None or text.isascii():
            continue
        try:
            text.encode()
        except UnicodeEncodeError as problem:
            raise ValueError(
                f"{name} is not storable: half a character (a lone surrogate) "
                f"at position {problem.start}"
            ) from None


def check_request(message: Message, model: str) -> None:
    """Refuse a request that could not be read back as it was."""
    check_texts(
        id=message.id,
        conversation_id=message.conversation_id,
        sender=message.sender,
        provider=message.provider,
        content=message.content,
        model=model,
    )
    check_zone(message.timestamp)


def check_outcome(message: Message, attempts: Sequence[Attempt], events: Sequence[Event]) -> None:
    """Refuse an outcome that is none, or that could not be read back."""
    if message.response is None and message.error is None:
        raise ValueError(f"message {message.id!r} has neither response nor error: not an outcome")
    check_texts(
        id=message.id, provider=message.provider, response=message.response, error=message.error
    )
    for attempt in attempts:
        check_texts(
            provider=attempt.provider,
            model=attempt.model,
            outcome=attempt.outcome,
            remedy=attempt.remedy,
            error=attempt.error,
        )
    check_events(events)


def check_events(events: Sequence[Event]) -> None:
    """Refuse events whose text UTF-8 cannot hold, or whose time has no zone."""
    for event in events:
        check_zone(event.timestamp)
        body = to_json(event)
        check_texts(**{name: text for name, text in body.items() if isinstance(text, str)})


def check_limit(limit: int) -> None:
    """Refuse a negative number of rows."""
    if limit < 0:
        raise ValueError(f"limit must be 0 or more, not {limit!r}")


def check_zone(moment: datetime) -> None:
    """Refuse a time without a zone: it means something else on another machine."""
    if moment.tzinfo is None:
        raise ValueError(f"a time must be aware (have a zone), not {moment!r}")


def stamp(moment: datetime) -> str:
    """Return `moment` as ISO 8601 in UTC, always as long, so that text sorts as time does."""
    check_zone(moment)
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
