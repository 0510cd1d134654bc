"""From a user's event to a memory: read, checked, and made findable by its words."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import uuid4

from zejzl.events import utc
from zejzl.ports import Memory

LARGEST = 1_000_000  # characters of an event as JSON


class NotAnEvent(ValueError, TypeError):
    """What was to be remembered is no event, or cannot be written down.

    Attributes:
        kind: The reason in few words, to count by.
    """

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind


def memory_of(event: object, now: datetime) -> Memory:
    """Return an event as it is kept.

    Args:
        event: See `MemoryAgent.store`.
        now: Its time, if it has none.

    Raises:
        NotAnEvent: If it is none, or cannot be written down.
    """
    if not isinstance(event, Mapping):
        problem = f"an event is a mapping with a type, not {type(event).__name__}"
        raise NotAnEvent("not a mapping", problem)
    kind = field(event, "type")
    if not isinstance(kind, str) or not kind:
        raise NotAnEvent(
            "no type", f"an event needs a type, a text such as 'plan', not {kind!r:.40}"
        )
    conversation = field(event, "conversation_id")
    if not isinstance(conversation, str | None):
        problem = f"conversation_id must be text or None, not {type(conversation).__name__}"
        raise NotAnEvent("no conversation", problem)
    id = event.get("id")
    if id is None:
        id = uuid4().hex
    if not isinstance(id, str) or not id:
        raise NotAnEvent("no id", f"id must be text, not {id!r:.40}")
    given = field(event, "timestamp")
    at = now if given is None else moment(given)
    timestamp = given if isinstance(given, str) else at.isoformat()
    whole = {**event, "id": id, "type": kind, "timestamp": timestamp}
    body = written(whole)
    return Memory(
        id=id, type=kind, conversation_id=conversation, at=at, body=body, text=text_of(body)
    )


def field(event: Mapping[str, object], name: str) -> object:
    """Return a field that is at the top level or in `data`; None: it has none."""
    value = event.get(name)
    data = event.get("data")
    return data.get(name) if value is None and isinstance(data, Mapping) else value


def moment(given: object) -> datetime:
    """Return a time: ISO text, a datetime, or seconds since 1970; without a zone it is UTC.

    Raises:
        NotAnEvent: If it is none.
    """
    try:
        match given:
            case datetime():
                at = given
            case str():
                at = datetime.fromisoformat(given)
            case int() | float() if not isinstance(given, bool):
                at = utc(given)
            case _:
                raise TypeError(type(given).__name__)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        problem = f"timestamp must be ISO text, a datetime or seconds since 1970, not {given!r:.40}"
        raise NotAnEvent("no time", problem) from None


def written(event: Mapping[str, object]) -> str:
    """Return an event as JSON.

    Raises:
        NotAnEvent: If that cannot be, or is too large.
    """
    kind = event["type"]
    try:
        # A time is the one thing beyond JSON that everybody puts into events.
        body = json.dumps(event, ensure_ascii=False, allow_nan=False, default=_time)
        body.encode()
    except UnicodeEncodeError:
        problem = f"the event of type {kind!r:.40} holds half a character (a lone surrogate)"
        raise NotAnEvent("not storable", problem) from None
    except (ValueError, TypeError, RecursionError) as wrong:
        problem = f"the event of type {kind!r:.40} cannot be written as JSON: {wrong}"
        raise NotAnEvent("not storable", problem) from None
    if len(body) > LARGEST:
        problem = (
            f"the event of type {kind!r:.40} is {len(body)} characters long, {LARGEST} are the "
            "most; keep what is large in a file, and its path in the event"
        )
        raise NotAnEvent("too large", problem)
    return body


def _time(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not a thing of JSON")


def text_of(body: str) -> str:
    """Return the words and numbers of an event's values, its id and time left out."""
    event = json.loads(body)
    waiting = [value for name, value in event.items() if name not in ("id", "timestamp")]
    found = []
    while waiting:
        match waiting.pop():
            case dict() as each:
                waiting.extend(each.values())
            case list() as each:
                waiting.extend(each)
            case str() as each:
                found.append(each)
            case int() | float() as each if not isinstance(each, bool):
                found.append(str(each))
    return "\n".join(reversed(found))
