"""What calls cost is written when they are sent, and settled when they end."""

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from tests.driving import finished, learn_pace, make_bus, register
from zejzl.engine.ledger import Ledger, octets, total_cost
from zejzl.errors import (
    AuthFailed,
    ConnectFailed,
    ContentFiltered,
    EmptyAnswer,
    Incomplete,
    Malformed,
    ServerError,
    SpendLimitReached,
)
from zejzl.events import utc
from zejzl.messages import NOTHING, Attempt, Bill, Delta, Reply, Request, Turn, Usage
from zejzl.policies.prices import Price, Prices
from zejzl.testing import FakeClock, ScriptedProvider

QUESTION = 400  # bytes: a hundred tokens, before anything was counted
PRICES = Prices(rows={"a/*": Price(1.0, 10.0)})


def ledger() -> Ledger:
    made = Ledger()
    made.prices = PRICES
    return made


def test_a_question_has_the_bytes_of_all_its_parts() -> None:
    asked = Request(content="é", history=(Turn("user", "abc"),), system="日本")

    assert octets(asked) == 2 + 3 + 6


def test_a_call_is_estimated_before_it_is_made() -> None:
    bill = ledger().estimate("a", "m", QUESTION, None)

    assert bill == Bill(100, 256, (100 * 1.0 + 256 * 10.0) / 1e6, settled=False)


def test_an_answer_is_expected_to_be_no_longer_than_its_limit() -> None:
    assert ledger().estimate("a", "m", QUESTION, 5).completion_tokens == 5


def test_what_the_provider_counted_is_settled_and_learned() -> None:
    books = ledger()
    reply = Reply(text="y" * 40, provider="a", usage=Usage(50, 20))

    bills = [books.answered("a", "m", QUESTION, reply) for _ in range(300)]

    assert bills[0] == Bill(50, 20, (50 * 1.0 + 20 * 10.0) / 1e6)
    assert books.estimate("a", "m", QUESTION, None).prompt_tokens == 50
    assert books.estimate("a", "other", QUESTION, None).prompt_tokens == 100


@pytest.mark.parametrize("usage", [Usage(), Usage(50, None), Usage(None, 20)], ids=str)
def test_what_nobody_counted_is_estimated_and_stays_unsettled(usage: Usage) -> None:
    reply = Reply(text="y" * 40, provider="a", usage=usage)

    bill = ledger().answered("a", "m", QUESTION, reply)

    assert not bill.settled
    assert bill.prompt_tokens == (usage.prompt_tokens or 100)
    assert bill.completion_tokens == (usage.completion_tokens or 10)


def unsent() -> ConnectFailed:
    failure = ConnectFailed("refused")
    failure.sent = False
    return failure


@pytest.mark.parametrize(
    "failure",
    [ServerError("x", status=500), AuthFailed("x", status=401), unsent()],
    ids=["5xx", "401", "not connected"],
)
def test_a_call_that_was_refused_or_never_arrived_costs_nothing(failure: Exception) -> None:
    assert ledger().ended_badly("a", "m", QUESTION, 40, failure) == NOTHING


@pytest.mark.parametrize(
    "failure",
    [Incomplete("cut"), ConnectFailed("lost"), TimeoutError(), ServerError("inside a 200")],
    ids=["cut", "lost", "late", "error inside a 200"],
)
def test_a_call_whose_end_was_not_seen_costs_what_is_known_of_it(failure: Exception) -> None:
    bill = ledger().ended_badly("a", "m", QUESTION, 40, failure)

    assert bill == Bill(100, 10, (100 * 1.0 + 10 * 10.0) / 1e6, settled=False)


@pytest.mark.parametrize("failure", [Incomplete("cut"), Malformed("no JSON")], ids=["cut", "torn"])
def test_an_answer_of_which_nothing_could_be_read_is_taken_to_be_as_long_as_usual(
    failure: Exception,
) -> None:
    bill = ledger().ended_badly("a", "m", QUESTION, 0, failure)

    assert (bill.completion_tokens, bill.settled) == (256, False)


def test_what_was_counted_on_the_way_is_not_thrown_away() -> None:
    cut = Incomplete("cut")
    cut.usage = Usage(77, 1)

    bill = ledger().ended_badly("a", "m", QUESTION, 40, cut)

    assert (bill.prompt_tokens, bill.completion_tokens, bill.settled) == (77, 10, False)


@pytest.mark.parametrize("kind", [EmptyAnswer, ContentFiltered])
def test_a_whole_answer_that_is_none_is_billed_as_counted(
    kind: type[EmptyAnswer] | type[ContentFiltered],
) -> None:
    failure = kind("nothing")
    failure.usage = Usage(77, 3)

    bill = ledger().ended_badly("a", "m", QUESTION, 0, failure)

    assert (bill.prompt_tokens, bill.completion_tokens, bill.settled) == (77, 3, True)


def test_a_sum_with_an_unknown_price_is_not_known() -> None:
    known, unknown = Bill(1, 1, 0.25), Bill(1, 1, None)

    assert total_cost([Attempt("a", "m", "ok", 0.1, bill=known)] * 2) == 0.5
    assert (
        total_cost([Attempt("a", "m", "ok", 0.1, bill=each) for each in (known, unknown)]) is None
    )


# Through the bus


async def test_every_attempt_of_a_reply_has_its_bill_and_all_of_them_its_cost() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        bus._engine.ledger.prices = Prices(rows={"a/*": Price(1.0, 1.0), "b/*": Price(2.0, 4.0)})
        await register(bus, clock, a=("half of it", Incomplete("cut")), b="all of it")

        async def streamed() -> list[Delta]:
            return [each async for each in bus.stream("one two three four", allow_restart=True)]

        pieces = await finished(clock, streamed())

        reply = pieces[-1].reply
        assert reply is not None
        *cut, last = reply.attempts
        assert {(each.outcome, each.bill.settled) for each in cut} == {("cut_stream", False)}
        assert last.bill == Bill(4, 3, (4 * 2.0 + 3 * 4.0) / 1e6)
        costs = [each.bill.cost_usd or 0.0 for each in reply.attempts]
        assert all(costs)
        assert reply.cost_usd == pytest.approx(sum(costs))
        assert [each.provider for each in await bus.costs()] == ["a", "b"]


async def test_a_call_that_lost_a_race_and_one_whose_caller_left_are_in_the_ledger() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=[None], b="at once")
        learn_pace(bus, "a", "b")
        await finished(clock, bus.send("hello"))
        asking = asyncio.create_task(bus.send("hello", "a"))
        await clock.advance(0.05)
        asking.cancel()
        await clock.advance(0.0)

        lost, won = await bus.costs()

        assert (lost.provider, lost.calls, lost.unsettled) == ("a", 2, 2)
        assert (won.provider, won.calls, won.unsettled) == ("b", 1, 0)


async def test_a_request_beyond_the_days_limit_is_refused_before_it_is_sent() -> None:
    clock = FakeClock()
    async with make_bus(clock, spend_limit_day=0.001) as bus:
        bus._engine.ledger.prices = Prices(rows={"a/*": Price(1.0, 100.0)})
        (a,) = await register(bus, clock, a="well")

        with pytest.raises(SpendLimitReached, match="day"):
            await bus.send("hello")
        reply = await bus.send("hello", max_tokens=5)

        assert len(a.requests) == 1
        assert reply.cost_usd == pytest.approx((1 * 1.0 + 1 * 100.0) / 1e6)


async def test_a_retry_that_may_not_be_paid_for_leaves_the_first_cause_standing() -> None:
    clock = FakeClock()
    async with make_bus(clock, spend_limit_conversation=0.0001) as bus:
        rows = {"a/*": Price(0.0, 100.0), "b/*": Price(0.0, 1000.0)}
        bus._engine.ledger.prices = Prices(rows=rows)
        a, b = await register(bus, clock, a=ServerError("broken", status=500), b="dear")

        with pytest.raises(ServerError, match="broken") as raised:
            await finished(
                clock, bus.send("hello", conversation_id="c", max_tokens=1, failover=True)
            )

        assert (len(b.requests), len(a.requests) > 0) == (0, True)
        assert any("spend limit" in note for note in raised.value.__notes__)
        limits = (await bus.magic.get_system_status())["limits"]
        assert all(lane["in_flight"] == 0 for lane in limits.values())  # type: ignore[attr-defined]


async def test_the_bus_knows_the_prices_of_its_vendors_and_the_users_own(tmp_path: object) -> None:
    from pathlib import Path

    table = Path(str(tmp_path)) / "prices.toml"
    table.write_text('[prices]\n"mine/*" = { prompt = 1000.0, completion = 1000.0 }\n')
    clock = FakeClock()
    async with make_bus(clock, prices=table) as bus:
        await register(bus, clock, mine="two words")

        reply = await bus.send("three small words")

    assert reply.cost_usd == pytest.approx(5 * 1000.0 / 1e6)


async def test_a_provider_without_a_price_has_no_cost() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, nobody="well")

        reply = await bus.send("hello")
        (spent,) = await bus.costs()

    assert reply.cost_usd is None
    assert (spent.unpriced, spent.cost_usd) == (1, 0.0)


async def test_usage_that_is_no_usage_is_not_believed() -> None:
    class Liar(ScriptedProvider):
        async def generate(self, request: Request) -> Reply:
            failure = EmptyAnswer("nothing")
            failure.usage = "many"
            raise failure

        async def stream(self, request: Request):  # type: ignore[no-untyped-def]
            yield Delta("x")

    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("liar", Liar(name="liar", clock=clock))

        with pytest.raises(EmptyAnswer) as raised:
            await finished(clock, bus.send("hello"))

    assert raised.value.usage is None


async def test_a_moment_is_the_day_of_utc_that_it_is_in() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a="ok")
        await finished(clock, bus.send("hello"))
        now = utc(clock.wall())

        by_day = await bus.costs(since=now.date())
        by_moment = await bus.costs(since=now)
        elsewhere = await bus.costs(since=now.astimezone(timezone(timedelta(hours=14))))

        assert len(by_day) == 1
        assert by_day == by_moment == elsewhere


@pytest.mark.parametrize(
    "how",
    [
        {"since": "2026-01-01"},
        {"since": datetime.fromisoformat("2026-01-01")},
        {"conversation_id": 5},
    ],
    ids=["a text", "without a zone", "no name"],
)
async def test_what_is_no_day_and_no_conversation_is_refused(how: dict[str, Any]) -> None:
    async with make_bus(FakeClock()) as bus:
        with pytest.raises(TypeError):
            await bus.costs(**how)
