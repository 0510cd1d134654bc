"""An incident made of what a store has: times and sizes as they were, and no word of anybody's."""

import asyncio
import json
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest

from ai_framework import AsyncMessageBus
from zejzl.errors import RateLimited, ServerError, ZejzlError
from zejzl.events import RecoveryRecorded
from zejzl.magic import FairyMagic
from zejzl.messages import Attempt, Bill, Message
from zejzl.ports import Store, Terms
from zejzl.providers import OpenAICompatible
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore, SqliteStore
from zejzl.testing import FaultServer, ScriptedProvider, faults, virtual
from zejzl.testing.faults import between
from zejzl.testing.incident_files import dump, parse
from zejzl.testing.incidents import Incident, IncidentError, Load, RecordedCall
from zejzl.testing.recorded import newest_trouble, recorded
from zejzl.testing.simulate import simulate

T = TypeVar("T")

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
SECRET = "what nobody else may read"


def run(work: Coroutine[Any, Any, T]) -> T:
    return virtual.run(work, wall=TEN.timestamp(), sealed=True)


def after(seconds: float) -> datetime:
    return TEN + timedelta(seconds=seconds)


def message(at: float, id: str = "", **how: Any) -> Message:
    told = {"sender": "user", "provider": "alpha", "conversation_id": None, "content": SECRET}
    return Message(**{**told, "id": id or f"m{at}", "timestamp": after(at), **how})


def attempt(outcome: str = "ok", seconds: float = 0.5, **how: Any) -> Attempt:
    return Attempt(
        **{"provider": "alpha", "model": "m", "outcome": outcome, "seconds": seconds, **how}
    )


async def keep(
    store: Store, asked: Message, *attempts: Attempt, options: dict[str, Any] | None = None
) -> None:
    """Let a store have a request with its attempts."""
    terms = Terms(options=None if options is None else json.dumps(options))
    await store.accept(asked, asked.provider, "m", terms=terms)
    well = asked if asked.response or asked.error else replace(asked, response="well")
    await store.settle(well, attempts)


async def opened() -> InMemoryStore:
    store = InMemoryStore(clock=virtual.VirtualClock())
    await store.open()
    return store


def calls_of(found: Any) -> Sequence[RecordedCall]:
    (one,) = found.providers
    calls: Sequence[RecordedCall] = one.calls
    return calls


async def live(store: Store) -> None:
    """Let a bus have a bad minute."""
    clock = virtual.VirtualClock()
    settings = Settings(attempt_timeout=5.0)
    async with AsyncMessageBus(
        settings, store=store, clock=clock, magic=FairyMagic(clock=clock, rng=Random(1))
    ) as bus:
        wait = RateLimited("slowly", retry_after=1.5)
        zeta = ScriptedProvider(["well", ServerError("oh"), wait, None], clock=clock)
        await bus.register_provider("zeta", zeta)
        await bus.register_provider("beta", ScriptedProvider([0.5, "well too"], clock=clock))
        for at in range(6):
            await clock.sleep(10.0)
            await bus.send(f"{SECRET} {at}", conversation_id="alice" if at % 2 else None)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_what_a_bus_did_is_recorded_as_it_was(kind: str, tmp_path: Path) -> None:
    async def main() -> Any:
        clock = virtual.VirtualClock()
        store: Store = InMemoryStore(clock=clock)
        if kind == "sqlite":
            store = SqliteStore(tmp_path / "zejzl.db", clock=clock)
        await live(store)
        await store.open()
        found = await recorded(store, since=TEN)
        await store.close()
        return found

    found = virtual.run(main(), wall=TEN.timestamp(), sealed=kind == "memory")

    zeta, beta = found.providers
    assert (zeta.name, beta.name) == ("zeta", "beta")  # as the bus asked them
    assert zeta.model == "scripted-1"
    assert [call.outcome for call in zeta.calls][:3] == ["ok", "server_error", "rate_limited"]
    assert zeta.calls[2].retry_after == 1.5
    assert [call.request for call in zeta.calls][:3] == [0, 1, 1]
    assert found.began == TEN
    (load,) = found.requests
    times = load.times or ()
    assert len(times) == 6
    if kind == "memory":  # a thread's work takes its time
        assert times[:2] == (10.0, 20.0)
        assert [call.at for call in zeta.calls][:2] == [10.0, 20.0]
        assert beta.calls[0].seconds == 0.5
    assert load.conversation == ("", "c1", "", "c1", "", "c1")


def test_a_record_holds_no_prompt_no_answer_and_no_name_of_a_conversation() -> None:
    async def main() -> str:
        store = InMemoryStore(clock=virtual.VirtualClock())
        await live(store)
        await store.open()
        return dump(await recorded(store, since=TEN))

    text = run(main())

    assert not any(word in text for word in (SECRET, "well", "alice", "slowly"))


def test_a_record_says_how_each_request_was_asked_and_how_long_it_was() -> None:
    async def main() -> Any:
        store = await opened()
        bill = Bill(120, 30, None, settled=True)
        how = {"deadline": 9.0, "criticality": "critical", "system": SECRET, "temperature": 1.0}
        await keep(store, message(1.0, response="yes"), attempt(bill=bill), options=how)
        await keep(store, message(2.0, response="a" * 400), attempt())
        return await recorded(store, since=TEN)

    critical, usual = run(main()).requests

    assert critical == Load(
        times=(1.0,),
        prompt_tokens=(120,),
        answer_tokens=(30,),
        conversation=("",),
        deadline=9.0,
        criticality="critical",
    )
    assert (usual.times, usual.answer_tokens) == ((2.0,), (100,))
    assert usual.prompt_tokens == (round(len(SECRET) / 4),)


def test_the_order_of_the_providers_is_that_of_the_newest_state_that_can_be_read() -> None:
    async def main() -> Any:
        store = await opened()
        for name in ("alpha", "beta", "gamma"):
            await keep(store, message(1.0, name, provider=name), attempt(provider=name))
        await store.keep_snapshot("old", json.dumps({"providers": {"gamma": "m", "beta": "m"}}))
        await virtual.VirtualClock().sleep(1.0)
        for at, body in enumerate(("no JSON", "[]", "{}", '{"providers": 3}')):
            await store.keep_snapshot(f"damaged {at}", body)
        return await recorded(store, since=TEN)

    assert [one.name for one in run(main()).providers] == ["gamma", "beta", "alpha"]


def test_calls_are_numbered_as_their_requests_arrive() -> None:
    async def main() -> Any:
        store = await opened()
        await keep(store, message(2.0, "b"), attempt(seconds=2.0, at=after(2.0)))
        await keep(
            store, message(1.0, "a"), attempt(seconds=1.0, at=after(1.0)), options={"patience": 1}
        )
        return await recorded(store, since=TEN)

    found = run(main())

    arrivals = found.arrivals(1)
    assert [(arrivals[call.request].at, call.seconds) for call in calls_of(found)] == [
        (1.0, 1.0),
        (2.0, 2.0),
    ]


def test_an_attempt_of_unknown_time_began_when_those_before_it_had_ended() -> None:
    async def main() -> Any:
        store = await opened()
        await keep(store, message(1.0), attempt("connect", 0.25), attempt("ok", 0.5))
        return await recorded(store, since=TEN)

    assert [call.at for call in calls_of(run(main()))] == [1.0, 1.25]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (str(RateLimited("slowly", provider="a", status=429, retry_after=2.5)), 2.5),
        (str(RateLimited("retry after 9 s", provider="a", retry_after=1.0)), 1.0),
        ("a: please retry after 9 s", None),
        ("a: oh (retry after . s)", None),
        ("a: oh (retry after 1e+400 s)", None),
        ("a: oh (HTTP 429)", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_wait_is_known_from_the_errors_own_facts(error: str, seconds: float | None) -> None:
    async def main() -> Any:
        store = await opened()
        await keep(store, message(1.0), attempt("rate_limited", error=error))
        return await recorded(store, since=TEN)

    assert calls_of(run(main()))[0].retry_after == seconds


def test_who_answers_where_nobody_is_there_has_no_part() -> None:
    async def main() -> Any:
        store = await opened()
        await keep(store, message(1.0), attempt(provider="offline"), attempt(model="m\n"))
        return await recorded(store, since=TEN)

    (one,) = run(main()).providers

    assert (one.name, one.model, len(one.calls)) == ("alpha", "m", 1)


def test_an_end_that_nobody_saw_counts_as_given_up() -> None:
    async def main() -> Any:
        store = await opened()
        await keep(store, message(1.0), attempt("interrupted"), attempt(""))
        return await recorded(store, since=TEN)

    assert [call.outcome for call in calls_of(run(main()))] == ["cancelled", "cancelled"]


def test_a_stream_stalled_when_its_silence_began() -> None:
    async def main() -> Any:
        store = await opened()
        await keep(store, message(1.0), attempt("stalled", 12.0))
        return await recorded(store, since=TEN, stream=True, settings=Settings(idle_timeout=8.0))

    found = run(main())

    assert calls_of(found)[0].seconds == 4.0
    assert found.requests[0].stream


@pytest.mark.parametrize("differs", [False, True])
def test_streams_repeat_themselves_unless_one_was_seen_to_differ(differs: bool) -> None:
    async def main() -> Any:
        store = await opened()
        await keep(store, message(1.0), attempt())
        await store.record([recovery(2.0, "differs" if differs else "ok")])
        return await recorded(store, since=TEN, stream=True)

    assert run(main()).requests[0].repeats is not differs


def test_nobody_is_named_of_whom_nothing_is_known() -> None:
    async def main() -> Any:
        store = await opened()
        how = {"provider": "gone/big", "failover": ["Alpha", "gone"]}
        await keep(store, message(1.0), attempt(), options=how)
        return await recorded(store, since=TEN)

    (load,) = run(main()).requests

    assert (load.provider, load.failover) == (None, ("Alpha",))


def test_only_the_span_is_recorded() -> None:
    async def main() -> Any:
        store = await opened()
        for at in (5.0, 10.0, 15.0, 20.0):
            await keep(store, message(at), attempt(at=after(at)))
        return await recorded(store, since=after(10.0), until=after(20.0))

    found = run(main())

    assert found.requests[0].times == (0.0, 5.0)
    assert [call.at for call in calls_of(found)] == [0.0, 5.0]
    assert (found.began, found.duration) == (after(10.0), 10.0)


@pytest.mark.parametrize(
    ("kept", "says"),
    [(False, "nothing was asked since 2026-11-22 10:00:00 UTC"), (True, "nobody was called")],
    ids=["empty", "all refused"],
)
def test_a_span_without_anything_to_replay_is_refused(kept: bool, says: str) -> None:
    async def main() -> None:
        store = await opened()
        if kept:
            await keep(store, message(1.0))
        await recorded(store, since=TEN)

    with pytest.raises(IncidentError, match=says):
        run(main())


def test_a_span_before_what_is_looked_at_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zejzl.testing.recorded.MOST", 2)

    async def main() -> None:
        store = await opened()
        for at in (1.0, 2.0, 3.0):
            await keep(store, message(at), attempt())
        await recorded(store, since=TEN)

    with pytest.raises(IncidentError, match="since: is before the newest 2 messages"):
        run(main())


def test_progress_is_told_while_it_is_read() -> None:
    shares: list[float] = []

    async def main() -> None:
        store = await opened()
        for at in range(150):
            await keep(store, message(float(at)), attempt())
        await recorded(store, since=TEN, progress=shares.append)

    run(main())

    assert shares == [0.0, 100 / 150]


# The newest incident -----------------------------------------------------------------------------


def recovery(at: float, outcome: str = "ok", remedy: str = "retry") -> RecoveryRecorded:
    return RecoveryRecorded(
        target="ai_provider:alpha", issue="oh", failure_class="server_error", remedy=remedy,
        success=outcome == "ok", verified=True, energy_used=3.0, timestamp=after(at),
        outcome=outcome,
    )  # fmt: skip


def test_the_newest_incident_is_what_failed_with_no_ten_minutes_between() -> None:
    async def main() -> tuple[datetime, datetime]:
        store = await opened()
        for at in (0.0, 1_000.0, 1_500.0):
            await keep(store, message(at, error="failed"), attempt("server_error"))
        await keep(store, message(9_000.0, response="well"), attempt())
        await store.record([recovery(2_000.0), recovery(5_000.0, remedy="none")])
        return await newest_trouble(store)

    assert run(main()) == (after(1_000.0 - 60.0), after(2_000.0 + 60.0))


def test_where_nothing_has_failed_there_is_no_incident() -> None:
    async def main() -> None:
        store = await opened()
        await keep(store, message(1.0, response="well"), attempt())
        await newest_trouble(store)

    with pytest.raises(IncidentError, match="last: nothing has failed"):
        run(main())


# There and back ----------------------------------------------------------------------------------

Heals = dict[tuple[str, str, str], tuple[int, int]]


async def two_minutes(chance: str) -> tuple[Incident, Heals]:
    """Let a bus have trouble over real sockets; return what is kept, and what it did."""
    clock, rng, heals = virtual.VirtualClock(), Random("arrivals"), Counter[tuple[Any, bool]]()
    magic = FairyMagic(clock=clock, rng=Random(chance))
    store = InMemoryStore(clock=clock)
    well = faults.flaky(0.1, faults.status(500), otherwise=faults.ok(delay=between(0.2, 0.6)))
    async with (
        FaultServer() as server,
        AsyncMessageBus(Settings(), store=store, clock=clock, magic=magic) as bus,
    ):
        server.play("alpha", faults.outage(30, 60, faults.overloaded(), otherwise=well))
        server.play("beta", faults.ok(delay=between(0.3, 0.8)))
        for name in ("alpha", "beta"):
            adapter = OpenAICompatible(server.base_url(name), "key", "m", clock=clock)
            await bus.register_provider(name, adapter)
        since = datetime.fromtimestamp(clock.wall(), UTC)

        async def ask(number: int) -> None:
            with suppress(ZejzlError):
                await bus.send(f"question {number}")

        async with asyncio.TaskGroup() as requests:
            for number in range(240):
                await clock.sleep(rng.uniform(0.2, 0.8))
                requests.create_task(ask(number))
        incident = await recorded(store, since=since)
    for row in magic.healing_history:
        if row.remedy != "none":
            provider = row.target.removeprefix("ai_provider:")
            heals[(provider, row.failure_class, row.remedy), row.success] += 1
    rows = {row for row, _ in heals}
    return incident, {row: (heals[row, True] + heals[row, False], heals[row, True]) for row in rows}


def test_what_really_happened_happens_again_with_the_same_remedies() -> None:
    incident, heals = virtual.run(two_minutes("1/magic"))  # as `simulate` draws for seed 1

    again = simulate(parse(dump(incident)), seed=1)

    assert sum(tried for tried, _ in heals.values()) > 10
    assert {
        (heal.provider, heal.failure_class, heal.remedy): (heal.tried, heal.helped)
        for heal in again.heals
    } == heals
