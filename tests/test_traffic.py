"""What happened on a bus, as the Learner reads it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.driving import finished, make_bus, register
from zejzl.engine.traffic import events_of
from zejzl.errors import ServerError
from zejzl.learning.mining import Miner
from zejzl.messages import Attempt, Message
from zejzl.testing import FakeClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ASKED = Message(id="r1", content="secret", timestamp=NOON, sender="ann", provider="a")


def test_a_request_is_a_case_of_its_calls_and_its_end() -> None:
    failed = Attempt("a", "m", "server_error", 0.5, "first", "down", at=NOON)
    well = Attempt("b", "m", "ok", 1.0, "failover", at=NOON + timedelta(seconds=1))

    first, second, end = events_of(ASKED.answered("an answer", "b", 2.0), [failed, well])

    assert (first["type"], first["status"], first["error"]) == (
        "call:a", "error", "server_error: down",
    )  # fmt: skip
    assert (first["timestamp"], first["duration_ms"]) == ("2026-01-01T12:00:00.500000+00:00", 500.0)
    assert (second["type"], second["agent"], second["status"]) == ("call:b", "b", "ok")
    assert (end["type"], end["status"]) == ("executor", "ok")
    assert end["timestamp"] == "2026-01-01T12:00:02.000000+00:00"
    assert {each["conversation_id"] for each in (first, second, end)} == {"r1"}


def test_what_somebody_has_given_up_is_neither_a_success_nor_a_failure() -> None:
    dropped = replace(ASKED, error="dropped by hand; nobody could answer")
    miner = Miner()

    (end,) = events_of(dropped, [])
    miner.learn([end])

    assert (end["status"], "error" in end) == ("dropped", False)
    ends = miner.patterns().outcomes
    assert (ends.success, ends.failure, ends.unknown) == (0, 0, 1)


def test_the_end_comes_last_whatever_the_clocks_said() -> None:
    late = Attempt("a", "m", "ok", 9.0, at=NOON)

    call, end = events_of(ASKED.answered("yes", "a", 0.1), [late])

    assert str(end["timestamp"]) >= str(call["timestamp"])


def test_nothing_of_what_was_said_is_in_it() -> None:
    events = [*events_of(ASKED.answered("hidden", "a", 2.0), [Attempt("a", "m", "ok", 1.0)])]

    assert "secret" not in str(events)
    assert "hidden" not in str(events)


async def test_the_learner_reads_what_a_bus_tells() -> None:
    clock = FakeClock()
    async with make_bus(clock, max_attempts=1) as bus:
        await register(bus, clock, a=[ServerError("down", status=500), "well"], b="well")
        await finished(clock, bus.send("hello"))
        await finished(clock, bus.send("hello"))
        miner = Miner()

        miner.learn(await bus.traffic())
        found = miner.patterns()

        assert found.skipped == {}
        assert (found.outcomes.success, found.outcomes.failure) == (2, 0)
        assert {path.sequence for path in found.variants} == {
            ("call:a", "call:b", "executor"),
            ("call:a", "executor"),
        }


async def test_a_request_that_is_under_way_is_left_out() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.store.accept(ASKED, "a", "m")

        assert await bus.traffic() == []


@pytest.mark.parametrize("limit", [0, -1, True, 2.5])
async def test_a_limit_is_a_number_of_requests(limit: int) -> None:
    async with make_bus(FakeClock()) as bus:
        with pytest.raises(ValueError, match="limit"):
            await bus.traffic(limit)
