"""An incident as it really was: made of what a bus has kept in its store.

Arrivals are the messages' times; what each provider did are the attempts, each with its time, its
outcome and how long it took. Of questions and answers nothing is taken but how many tokens they
had; of conversations, which requests belong to the same one.

Some things no store knows. What a bus had learned when the span began: the replay begins with a
new one. When the pieces of a stream came: they are spread evenly. What a provider would have done
that nobody called: it is left out.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from zejzl.engine.ledger import octets_of
from zejzl.errors import FailureClass
from zejzl.events import UNTRIED, RecoveryRecorded
from zejzl.messages import Attempt, Message
from zejzl.policies.density import PER_BYTE
from zejzl.ports import Kept, Store
from zejzl.settings import Settings
from zejzl.testing.incidents import (
    MOST_SECONDS,
    OFFLINE,
    OUTCOMES,
    Incident,
    IncidentError,
    Load,
    ProviderScript,
    RecordedCall,
)

MOST = 50_000  # newest messages, or recoveries, that are looked at
APART = timedelta(minutes=10)  # between two failures of one incident, at most
AROUND = timedelta(minutes=1)  # before the first and after the last of them
PRECISE = 6  # digits of a second: a store keeps no more
ASKED = "provider", "model", "failover", "deadline", "patience", "criticality", "max_tokens"
_WAIT = re.compile(
    r"\([^()]*retry after (\d+(?:\.\d+)?(?:e\+?\d+)?) s[^()]*\)\Z"
)  # `ProviderError`


async def newest_trouble(store: Store) -> tuple[datetime, datetime]:
    """Return from when to when the newest incident was: failures at most ten minutes apart.

    Raises:
        IncidentError: If nothing has failed.
    """
    failed = [
        message.timestamp
        for message in await store.messages(limit=MOST)
        if message.error is not None
    ]
    failed += [
        event.timestamp
        for event in await store.events(type="recovery_recorded", limit=MOST)
        if isinstance(event, RecoveryRecorded) and event.remedy != UNTRIED
    ]
    if not failed:
        raise IncidentError("last", "nothing has failed that is kept: say since when to replay")
    newest_first = sorted(failed, reverse=True)
    first = last = newest_first[0]
    for when in newest_first:
        if first - when > APART:
            break
        first = when
    return first - AROUND, last + AROUND


async def recorded(
    store: Store,
    *,
    since: datetime,
    until: datetime | None = None,
    stream: bool = False,
    settings: Settings | None = None,
    progress: Callable[[float], None] | None = None,
) -> Incident:
    """Return what happened in a span of time, as an incident that can be replayed.

    Args:
        store: An open one.
        since: Its beginning, aware.
        until: Its end; None: the newest request.
        stream: Whether the answers were streamed, where the store does not say that.
        settings: As they were then: a stream that stalled did so `idle_timeout` before its end.
        progress: Is told now and then which share of the requests was read.

    Raises:
        IncidentError: If nothing was asked in that time, or nobody was called.
    """
    messages = await store.messages(limit=MOST)
    within = [
        message
        for message in messages
        if since <= message.timestamp and (until is None or message.timestamp < until)
    ]
    if len(messages) == MOST and messages[0].timestamp > since:
        problem = f"is before the newest {MOST:,} messages: no more are looked at"
        raise IncidentError("since", problem)
    if not within:
        upto = f" and before {until:%Y-%m-%d %H:%M:%S %Z}" if until is not None else ""
        raise IncidentError("", f"nothing was asked since {since:%Y-%m-%d %H:%M:%S %Z}{upto}")
    requests = []
    for at, message in enumerate(sorted(within, key=lambda message: message.timestamp)):
        if progress is not None and at % 100 == 0:
            progress(at / len(within))
        kept = await store.kept(id=message.id)
        if kept is not None:  # nobody has deleted it meanwhile
            requests.append(_Asked(kept, stream))
    idle = (settings or Settings()).idle_timeout or 0.0
    snapshots = [body for _, _, _, body in await store.snapshots()]
    events = await store.events(type="recovery_recorded", since=since, limit=MOST)
    repeats = not any(getattr(event, "outcome", "") == "differs" for event in events)
    return _incident(requests, since, until, idle, _in_order(snapshots), repeats)


def _incident(
    requests: Sequence["_Asked"],
    since: datetime,
    until: datetime | None,
    idle: float,
    order: Sequence[str],
    repeats: bool,
) -> Incident:
    newest = requests[-1].message.timestamp
    duration = _seconds((until or newest) - since)
    alike: defaultdict[str, list[_Asked]] = defaultdict(list)
    for request in requests:
        alike[json.dumps(request.how)].append(request)
    pseudonyms = _pseudonyms(request.message.conversation_id for request in requests)
    loads = tuple(
        _load(of, since, pseudonyms, repeats and bool(of[0].how["stream"])) for of in alike.values()
    )
    calls: defaultdict[str, list[RecordedCall]] = defaultdict(list)
    models: dict[str, str] = {}
    for number, request in enumerate(_numbered(alike, since)):
        for attempt, began in request.tried():
            if attempt.provider != OFFLINE:  # which is there where nobody is
                model = "".join(char for char in attempt.model if char.isprintable())
                models.setdefault(attempt.provider, model)
                calls[attempt.provider].append(_call(attempt, began - since, number, idle))
    if not calls:
        raise IncidentError("", "nobody was called in that time: there is nothing to replay")
    names = [name for name in order if name in calls]
    names += [name for name in calls if name not in names]
    known = frozenset(names)
    return Incident(
        duration=max(duration, 1e-6),
        requests=tuple(_among(load, known) for load in loads),
        providers=tuple(
            ProviderScript(
                name=name,
                model=models[name],
                calls=tuple(sorted(calls[name], key=lambda call: call.at)),
            )
            for name in names
        ),
        name="recorded",
        began=since.astimezone(UTC),
    )


@dataclass(slots=True)
class _Asked:
    """One request that was kept."""

    kept: Kept
    streamed: bool

    @property
    def message(self) -> Message:
        return self.kept.message

    @property
    def how(self) -> dict[str, Any]:
        """How it was asked, as far as that matters and is known."""
        options: dict[str, Any] = json.loads(self.kept.terms.options or "{}")
        asked = {name: options[name] for name in ASKED if options.get(name) is not None}
        return {**asked, "stream": bool(options.get("stream", self.streamed))}

    def tried(self) -> list[tuple[Attempt, datetime]]:
        """Return its attempts with when they began."""
        found, before = [], timedelta()
        for attempt in self.kept.attempts:
            found.append((attempt, attempt.at or self.message.timestamp + before))
            before += timedelta(seconds=attempt.seconds)
        return found

    def tokens(self) -> tuple[int, int]:
        """Return those of question and answer, as counted, or else as their lengths make likely."""
        bills = [attempt.bill for attempt in self.kept.attempts]
        counted = [bill for bill in bills if bill.settled and bill.prompt_tokens] or bills
        prompt = max((bill.prompt_tokens for bill in counted), default=0)
        answer = bills[-1].completion_tokens if bills and self.message.response else 0
        return (
            prompt or round(octets_of(self.message.content) * PER_BYTE),
            answer or round(octets_of(self.message.response or "") * PER_BYTE),
        )


def _load(
    requests: Sequence[_Asked], since: datetime, pseudonyms: Mapping[str | None, str], repeats: bool
) -> Load:
    tokens = [request.tokens() for request in requests]
    answers = [answer for _, answer in tokens if answer]
    usual = sorted(answers)[len(answers) // 2] if answers else 1
    how = requests[0].how
    return Load(
        times=tuple(_seconds(request.message.timestamp - since) for request in requests),
        prompt_tokens=tuple(prompt for prompt, _ in tokens),
        answer_tokens=tuple(answer or usual for _, answer in tokens),  # of one that had none
        conversation=tuple(pseudonyms[request.message.conversation_id] for request in requests),
        repeats=repeats,
        **how,
    )


def _numbered(alike: Mapping[str, Sequence[_Asked]], since: datetime) -> list[_Asked]:
    """Return the requests in the order of `Incident.arrivals`."""
    places = [
        (_seconds(request.message.timestamp - since), place, at, request)
        for place, requests in enumerate(alike.values())
        for at, request in enumerate(requests)
    ]
    return [request for *_, request in sorted(places, key=lambda one: one[:3])]


def _call(attempt: Attempt, at: timedelta, number: int, idle: float) -> RecordedCall:
    outcome = attempt.outcome
    if outcome not in OUTCOMES:  # interrupted, or never told
        outcome = FailureClass.CANCELLED.value
    seconds = attempt.seconds - (idle if outcome == FailureClass.STALLED else 0.0)
    return RecordedCall(
        at=_seconds(at),
        outcome=outcome,
        seconds=min(max(0.0, seconds), MOST_SECONDS),
        request=number,
        retry_after=_asked_to_wait(attempt.error),
    )


def _asked_to_wait(error: str) -> float | None:
    """Return the seconds a provider asked to wait, as the error's own facts at its end tell it."""
    found = _WAIT.search(error)
    seconds = float(found[1]) if found is not None else MOST_SECONDS
    return seconds if seconds < MOST_SECONDS else None


def _among(load: Load, known: frozenset[str]) -> Load:
    """Return a load that names nobody of whom nothing is known."""
    provider = load.provider
    if isinstance(load.failover, tuple):
        others = tuple(name for name in load.failover if name.strip().lower() in known)
        load = replace(load, failover=others)
    if provider is not None and load.named[0] not in known:
        load = replace(load, provider=None)
    return load


def _pseudonyms(conversations: Iterable[str | None]) -> dict[str | None, str]:
    """Return another name for each conversation: its own may tell something."""
    found: dict[str | None, str] = {None: ""}
    for conversation in conversations:
        if conversation not in found:
            found[conversation] = f"c{len(found)}"
    return found


def _in_order(snapshots: Sequence[str]) -> list[str]:
    """Return the providers in the order in which the newest bus asked them, as far as is known."""
    for body in snapshots:
        try:
            found = json.loads(body)["providers"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if isinstance(found, dict):
            return list(found)
    return []


def _seconds(span: timedelta) -> float:
    return round(max(0.0, span.total_seconds()), PRECISE)
