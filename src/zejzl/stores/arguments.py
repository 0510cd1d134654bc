"""What every store refuses before it writes anything, and how it writes a time.

A refusal is a ValueError that names the field: the caller's mistake, not the database's.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from zejzl.events import Event, check_text, tag, to_json
from zejzl.messages import Attempt, Message
from zejzl.ports import Terms

MOST_ROWS = 2**63 - 1  # SQLite's largest number


def _plain(*texts: str | None) -> bool:
    """Return whether nothing in `texts` needs a closer look; on the path of every call."""
    return all([text is None or text.isascii() for text in texts])


def check_texts(**texts: str | None) -> None:
    """Refuse text that UTF-8 cannot hold."""
    for name, text in texts.items():
        if text is not None and not text.isascii():
            check_text(name, text)


def check_request(message: Message, model: str) -> None:
    """Refuse a request that could not be read back as it was."""
    check_zone(message.timestamp)
    if _plain(
        message.id,
        message.conversation_id,
        message.sender,
        message.provider,
        message.content,
        model,
    ):
        return
    check_texts(
        id=message.id,
        conversation_id=message.conversation_id,
        sender=message.sender,
        provider=message.provider,
        content=message.content,
        model=model,
    )


def check_terms(terms: Terms) -> None:
    """Refuse terms that could not be read back."""
    check_texts(idempotency_key=terms.key, options=terms.options)


def check_outcome(
    message: Message,
    attempts: Sequence[Attempt],
    events: Sequence[Event],
    model: str = "",
    finish_reason: str = "",
) -> None:
    """Refuse an outcome that is none, or that could not be read back."""
    if message.response is None and message.error is None:
        raise ValueError(f"message {message.id!r} has neither response nor error: not an outcome")
    if not _plain(
        message.id, message.provider, message.response, message.error, model, finish_reason
    ):
        _check_outcome_texts(message, model, finish_reason)
    for attempt in attempts:
        if not _plain(
            attempt.provider, attempt.model, attempt.outcome, attempt.remedy, attempt.error
        ):
            check_texts(
                provider=attempt.provider,
                model=attempt.model,
                outcome=attempt.outcome,
                remedy=attempt.remedy,
                error=attempt.error,
            )
    check_events(events)


def _check_outcome_texts(message: Message, model: str, finish_reason: str) -> None:
    check_texts(
        id=message.id,
        provider=message.provider,
        response=message.response,
        error=message.error,
        model=model,
        finish_reason=finish_reason,
    )


def check_events(events: Sequence[Event]) -> None:
    """Refuse events whose text UTF-8 cannot hold, or whose time has no zone."""
    for event in events:
        check_zone(event.timestamp)
        body = to_json(event)
        check_texts(**{name: text for name, text in body.items() if isinstance(text, str)})


def check_limit(limit: int) -> None:
    """Refuse what is no number of rows."""
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit must be a whole number, not {type(limit).__name__}")
    if limit < 0:
        raise ValueError(f"limit must be 0 or more, not {limit!r}")
    if limit > MOST_ROWS:
        raise ValueError(f"limit must be at most {MOST_ROWS}")


def check_zone(moment: datetime) -> None:
    """Refuse a time without a zone: it means something else on another machine."""
    if moment.tzinfo is None:
        raise ValueError(f"a time must be aware (have a zone), not {moment!r}")


def stamp(moment: datetime) -> str:
    """Return `moment` as ISO 8601 in UTC, always as long, so that text sorts as time does."""
    check_zone(moment)
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def event_rows(events: Sequence[Event]) -> list[tuple[str, str, str]]:
    """Return type, time and JSON of each event, as a database keeps them."""
    return [
        (tag(event), stamp(event.timestamp), json.dumps(to_json(event), ensure_ascii=False))
        for event in events
    ]
