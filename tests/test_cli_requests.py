"""What requests cost, what waits, and what a crash left, from the command line."""

import asyncio
import re
import signal
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from ai_framework import AsyncMessageBus
from tests.shell import HOSTILE, STEERING, Done, Shell, Typing, until
from zejzl.cli.advice import CHAT, SHELL
from zejzl.cli.terminal import Terminal, explained, in_columns, usd
from zejzl.engine.prices import load
from zejzl.errors import (
    GivenUp,
    NoSuchRequest,
    Parked,
    RateLimited,
    RequestUnderWay,
    SettingsError,
    SpendLimitReached,
)
from zejzl.events import utc
from zejzl.messages import Attempt, Bill, Message
from zejzl.ports import Terms
from zejzl.settings import Settings
from zejzl.stores import SqliteStore
from zejzl.testing import CANONICAL, FakeClock, FaultServer, faults

T = TypeVar("T")
DAY = 86_400.0
FIRST, SECOND = "a" * 31 + "1", "a" * 31 + "2"
OTHER = "b" * 32
PINNED = '{"provider": "chatgpt"}'


class Loop:
    """An event loop in a thread: a command runs one of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    made = Shell(tmp_path, monkeypatch, capsys)
    yield made
    made.end()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.end()


@pytest.fixture
def server(loop: Loop) -> Iterator[FaultServer]:
    made = FaultServer()
    loop.do(made.start())
    yield made
    loop.do(made.stop())


@pytest.fixture
def online(shell: Shell, server: FaultServer) -> Shell:
    shell.with_vendors(server)
    return shell


def store_of(shell: Shell, clock: FakeClock | None = None) -> SqliteStore:
    return SqliteStore(shell.folder / "home/zejzl.db", clock=clock)


def in_store(shell: Shell, work: Callable[[SqliteStore], Coroutine[Any, Any, T]]) -> T:
    """Return what comes of `work` with the database, opened by itself."""

    async def run() -> T:
        store = store_of(shell)
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


# ── costs ────────────────────────────────────────────────────────────────────────────────────────


def spend(
    shell: Shell,
    at: datetime,
    cost: float | None,
    *,
    who: tuple[str, str] = ("claude", "big"),
    settled: bool = True,
    conversation: str | None = None,
) -> None:
    """Let a call of 100 tokens and an answer of 10 have been made at that time."""

    async def work() -> None:
        store = store_of(shell, FakeClock(wall=at.timestamp()))
        await store.open()
        message = Message.create("hello", "user", who[0], conversation)
        bill = Bill(100, 10, cost, settled)
        await store.accept(message, *who, bill=bill)
        ended = Attempt(*who, "ok", 0.1, bill=bill, at=at)
        await store.settle(message.answered("yes", who[0], 0.1), [ended])
        await store.close()

    asyncio.run(work())


def noon(days_ago: int = 0) -> datetime:
    today = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    return today - timedelta(days=days_ago)


def names(found: Any) -> list[str]:
    return [row["name"] for row in found["rows"]]


def test_without_a_call_nothing_was_spent(shell: Shell) -> None:
    done = shell("costs")

    assert done.code == 0
    assert done.out.startswith("no calls yet, so nothing was spent")
    assert shell("costs", "--json").json["total"]["cost_usd"] == 0.0


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("day", ["2026-03-01", "2026-03-02"]),
        ("provider", ["grok", "claude"]),
        ("model", ["grok/4", "claude/small", "claude/big"]),
    ],
)
def test_costs_are_summed_by_day_in_order_or_by_who_took_most(
    shell: Shell, by: str, expected: list[str]
) -> None:
    first, second = datetime(2026, 3, 1, 23, tzinfo=UTC), datetime(2026, 3, 2, 1, tzinfo=UTC)
    spend(shell, second, 2.0, who=("claude", "big"))
    spend(shell, second, 3.0, who=("claude", "small"))
    spend(shell, first, 7.0, who=("grok", "4"))

    done, found = shell("costs", "--by", by), shell("costs", "--by", by, "--json").json

    assert names(found) == expected
    assert re.findall(r"^(\S+) +\d", done.out, re.M) == [*expected, "total"]
    assert re.search(r"^total +3 +300 +30 +12\.0000$", done.out, re.M)
    total = found["total"]
    assert (total["calls"], total["prompt_tokens"], total["completion_tokens"]) == (3, 300, 30)
    assert total["cost_usd"] == sum(row["cost_usd"] for row in found["rows"]) == 12.0


@pytest.mark.parametrize("words", [("--days", "2"), ("--since", noon(1).date().isoformat())])
def test_only_the_days_that_are_asked_for_are_counted_and_the_rest_is_told(
    shell: Shell, words: tuple[str, ...]
) -> None:
    spend(shell, noon(2), 4.0)
    spend(shell, noon(1), 2.0)
    spend(shell, noon(0), 1.0)

    done, found = shell("costs", *words), shell("costs", *words, "--json").json

    assert (len(found["rows"]), found["total"]["cost_usd"]) == (2, 3.0)
    assert f"before {noon(1).date()}: $4.0000 for 1 call\n" in done.out


def test_a_time_without_calls_is_told_with_what_was_before(shell: Shell) -> None:
    spend(shell, noon(9), 4.0)

    done = shell("costs", "--days", "3")

    assert done.code == 0
    assert done.out.startswith(f"no calls since {noon(2).date()}; before that: $4.0000 for 1 call")


def test_costs_of_one_conversation_are_its_own(shell: Shell) -> None:
    shell.set(ZEJZL_SPEND_LIMIT_CONVERSATION="8", ZEJZL_SPEND_LIMIT_DAY="20")
    spend(shell, noon(1), 4.0, conversation="mine")
    spend(shell, noon(0), 2.0)

    done, found = shell("costs", "-c", "mine"), shell("costs", "-c", "mine", "--json").json

    assert found["total"]["cost_usd"] == 4.0
    assert "this conversation: $4.0000 of $8 are spent, 50%" in done.out
    assert f"today, {noon().date()} UTC: $2.0000 of $20 are spent, 10%" in done.out
    assert "no calls in the conversation yours" in shell("costs", "-c", "yours").out


def test_what_is_estimated_is_told_and_explained_in_a_line(shell: Shell) -> None:
    spend(shell, noon(), 2.0)
    without = shell("costs").out
    spend(shell, noon(), 0.5, settled=False)

    done = shell("costs")

    assert "estimated" not in without
    assert re.search(r"^\S+ +2 +200 +20 +2\.5000 +0\.5000$", done.out, re.M)
    (said,) = re.findall(r"^estimated, .*$", done.out, re.M)
    assert "1 call)" in said and "nobody heard the end" in said


def test_a_call_without_a_price_is_named_and_not_shown_as_free(shell: Shell) -> None:
    spend(shell, noon(), None, who=("mine", "m1"))
    spend(shell, noon(), 1.0)

    done = shell("costs", "--by", "model")

    assert re.search(r"^mine/m1 +1 +100 +10 +– +1$", done.out, re.M)
    assert "no price is known for mine/m1: that money is missing here" in done.out
    assert shell("costs", "--json").json["unpriced"] == ["mine/m1"]


def test_the_day_of_the_built_in_prices_is_told(shell: Shell) -> None:
    done, found = shell("costs"), shell("costs", "--json").json

    assert f"prices: built in, as of {load(None).as_of} or later" in done.out
    assert "ZEJZL_PRICES" in done.out
    assert found["prices"] == {"builtin_as_of": load(None).as_of, "own": None, "own_as_of": ""}


def test_prices_of_ones_own_are_told_with_their_day(shell: Shell) -> None:
    own = shell.folder / "own.toml"
    own.write_text('as_of = "2026-11-01"\n[prices]\n"m" = { prompt = 1.0, completion = 2.0 }\n')
    shell.set(ZEJZL_PRICES=str(own))

    assert f"{own}, as of 2026-11-01" in shell("costs").out
    own.write_text('[prices]\n"m" = { prompt = 1.0, completion = 2.0 }\n')
    assert f"win over them: {own} (" in shell("costs").out


def test_prices_that_cannot_be_are_a_usage_error(shell: Shell) -> None:
    (shell.folder / "own.toml").write_text('[prices]\n"m" = { prompt = -1, completion = 2 }\n')
    shell.set(ZEJZL_PRICES=str(shell.folder / "own.toml"))

    done = shell("costs")

    assert (done.code, done.out) == (2, "")
    assert "own.toml, row 'm': prompt must be" in done.err


def test_the_form_that_the_help_shows_for_prices_can_be_read(shell: Shell) -> None:
    shown = shell("costs", "--help").out
    form = re.findall(r'^ +(\[prices\]|".*})$', shown, re.M)
    (shell.folder / "own.toml").write_text("\n".join(form))

    assert load(shell.folder / "own.toml").find("chatgpt", "gpt-5-mini") is not None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["costs", "--days", "0"], "--days"),
        (["costs", "--days", "3", "--since", "2026-01-01"], "--days and --since"),
        (["costs", "--since", "tomorrow"], "tomorrow"),
        (["costs", "--by", "colour"], "colour"),
        (["ask", "hello", "--park", "--stream"], "--park and --stream"),
        (["parked", "--run", "--drop", "all"], "one at a time"),
        (["parked", "--result", "a", "--replay", "b"], "one at a time"),
        (["parked", "--drop", " "], "which request?"),
        (["parked", "--result", ""], "which request?"),
        (["parked", "--drop", "abc"], "no such request as 'abc'"),
        (["parked", "--result", "abc"], "no such request as 'abc'"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_asked_is_a_usage_error_that_names_it(
    shell: Shell, words: list[str], said: str
) -> None:
    done = shell(*words)

    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (shell.folder / "home").exists()


def test_failed_and_cut_calls_are_in_the_costs(online: Shell, server: FaultServer) -> None:
    server.play("chatgpt", [faults.status(500), faults.cut(5)])
    online("ask", "hello", "-p", "chatgpt")
    cut = [call for call in server.calls("chatgpt") if call.outcome.startswith("cut")]

    found = online("costs", "--json").json

    assert found["total"]["calls"] == len(server.calls("chatgpt"))
    assert found["total"]["unsettled"] == len(cut) > 0
    assert 0.0 < found["total"]["unsettled_usd"] == found["total"]["cost_usd"]


def test_a_bar_beside_each_row_is_for_terminals_with_room(shell: Shell) -> None:
    spend(shell, noon(1), 4.0)
    spend(shell, noon(0), 1.0)
    shell.set(TERM="xterm", NO_COLOR="1")

    def drawn(columns: int) -> list[int]:
        shell.set(COLUMNS=str(columns))
        seen = Typing(shell, "costs")
        assert seen.end() == 0
        assert "\x1b[3" not in seen.seen
        *table, _ = seen.seen.replace("\r", "").partition("total")[0].splitlines()
        assert max(map(len, table)) <= columns
        return [row.count("█") for row in seen.seen.splitlines() if row.startswith("20")]

    assert drawn(100) == [20, 5]
    assert drawn(50) == [0, 0]
    assert "█" not in shell("costs").out


@given(st.floats(0.0, 1e6))
def test_money_is_never_shown_as_none_where_there_is_some(amount: float) -> None:
    shown = usd(amount)

    assert (float(shown.strip("<").replace(",", "")) > 0.0) is (amount > 0.0)
    assert len(shown) <= len("1,000,000.00")


# ── parked ───────────────────────────────────────────────────────────────────────────────────────


def park(
    shell: Shell,
    id: str = FIRST,
    *,
    due_in: float | None = 600.0,
    text: str = "why is the sky blue?",
    error: str = "parked: it is down",
    ended: bool = True,
) -> None:
    """Let a request wait, or have been given up (due in None), or be under way with nobody left."""

    async def work(store: SqliteStore) -> None:
        message = replace(Message.create(text, "user", "chatgpt", None), id=id)
        await store.accept(message, "chatgpt", "m", terms=Terms(parks=True, options=PINNED))
        if ended:
            due_at = None if due_in is None else datetime.now(UTC) + timedelta(seconds=due_in)
            tried = [Attempt("chatgpt", "m", "overloaded", 0.1, error="it is down")]
            await store.park(replace(message, error=error), tried, tries=2, due_at=due_at)

    in_store(shell, work)


def states(shell: Shell) -> dict[str, str]:
    return {one["id"]: one["state"] for one in shell("parked", "--json").json["requests"]}


def due_now(shell: Shell) -> list[str]:
    async def work(store: SqliteStore) -> list[str]:
        now = utc(datetime.now(UTC).timestamp() + 1.0)
        found = await store.parked()
        return [one.message.id for one in found if one.due_at is not None and one.due_at <= now]

    return in_store(shell, work)


def test_nothing_parked_is_said_kindly(shell: Shell) -> None:
    assert shell("parked").out.startswith("nothing is parked: ")
    assert shell("parked", "--json").json == {"running": False, "requests": []}
    for what in ("--replay", "--drop"):
        assert shell("parked", what, "all") == Done(0, "nothing is parked\n", "")
    assert shell("parked", "--run") == Done(0, "nothing waits\n", "")
    assert not (shell.folder / "home").exists()


def test_a_question_that_nobody_can_answer_is_kept_and_that_is_well(
    online: Shell, server: FaultServer
) -> None:
    server.play("chatgpt", faults.overloaded())

    done = online("ask", "hello", "-p", "chatgpt", "--park")
    told = online("ask", "again", "-p", "chatgpt", "--park", "--json")

    first, _ = online("parked", "--json").json["requests"]
    ticket, *hints = done.err.splitlines()
    assert (done.code, done.out) == (0, "")
    assert ticket.startswith(f"parked as {first['id']}, ")
    assert hints[0].endswith(f" parked --result {first['id']}` shows the answer once there is one")
    assert "no bus runs" in hints[1]
    assert (told.code, told.json["parked"]["type"]) == (0, "Parked")


def test_a_question_that_is_answered_is_not_kept(online: Shell) -> None:
    assert online("ask", "hello", "--park") == Done(0, f"{CANONICAL}\n", "")
    assert states(online) == {}


def test_without_park_a_question_that_fails_has_failed(online: Shell, server: FaultServer) -> None:
    server.play("chatgpt", faults.overloaded())

    done = online("ask", "hello", "-p", "chatgpt")

    assert (done.code, states(online)) == (1, {})


def test_what_waits_was_given_up_or_was_interrupted_is_listed_oldest_first(shell: Shell) -> None:
    park(shell, FIRST)
    park(shell, SECOND, due_in=None, error="given up: it is down")
    park(shell, OTHER, ended=False)

    done = shell("parked")

    head, *rows, counted, mend, nobody = done.out.splitlines()
    assert head.split("  ")[0] == "ticket"
    assert [row.split("  ")[0] for row in rows] == [FIRST, SECOND, OTHER]  # as long as it takes
    assert ["waiting" in rows[0], "given up" in rows[1], "interrupted" in rows[2]] == [True] * 3
    assert "why is the sky blue?" in rows[0] and rows[0].endswith("  it is down")
    assert re.search(r" 2  in 10 min ", rows[0])
    assert counted == "1 waiting, 1 given up, 1 interrupted"
    assert "--replay ID` tries one again" in mend
    assert "parked --run`" in nobody


def test_a_ticket_is_as_short_as_it_may_be(shell: Shell) -> None:
    park(shell, FIRST)
    park(shell, OTHER)

    assert re.findall(r"^([ab]+) ", shell("parked").out, re.M) == ["a" * 8, "b" * 8]


@pytest.mark.parametrize("columns", [80, 120])
def test_a_request_takes_one_line_of_a_terminal(shell: Shell, columns: int) -> None:
    park(shell, FIRST, text="why? " * 100, error=f"parked: {'it is down ' * 50}")
    park(shell, OTHER, text="なぜ空は青いのですか" * 20)
    shell.set(COLUMNS=str(columns), TERM="xterm", NO_COLOR="1")

    shown = Typing(shell, "parked")
    assert shown.end() == 0

    _, first, other, counted, *_ = shown.seen.splitlines()
    assert (first[:8], other[:8], counted) == ("a" * 8, "b" * 8, "2 waiting")
    assert max(cell_len(first.rstrip()), cell_len(other.rstrip())) <= columns
    assert "…" in first and "…" in other


def test_where_not_even_that_has_room_each_fact_takes_one(shell: Shell) -> None:
    park(shell, text="why? " * 100)
    shell.set(COLUMNS="50", TERM="xterm", NO_COLOR="1")

    shown = Typing(shell, "parked")
    assert shown.end() == 0

    facts = dict(row.split(": ", 1) for row in shown.seen.replace("\r", "").splitlines()[:7])
    assert facts["ticket"] == "aaaaaaaa"
    assert facts["question"].endswith("…") and 30 < len(facts["question"]) <= 40
    assert facts["last cause"] == "it is down"


def test_hostile_questions_causes_and_ids_are_shown_and_not_obeyed(shell: Shell) -> None:
    park(shell, HOSTILE, text=HOSTILE, error=f"given up: {HOSTILE}", due_in=None)
    spend(shell, noon(), None, who=(HOSTILE, HOSTILE), conversation=HOSTILE)

    for words in (
        ["parked"],
        ["parked", "--result", HOSTILE],
        ["parked", "--result", HOSTILE[:9]],
        ["costs", "--by", "model"],
        ["costs", "-c", HOSTILE],
        ["costs", "-c", f"{HOSTILE}?"],
        ["parked", "--replay", HOSTILE],
        ["parked", "--drop", "all"],
        ["parked", "--drop", HOSTILE],
        ["status"],
    ):
        done = shell(*words)
        assert not STEERING.search(done.out + done.err), words
        assert "Traceback" not in done.err


def test_what_is_replayed_is_due_now_and_what_is_dropped_is_over(shell: Shell) -> None:
    park(shell, FIRST)
    park(shell, SECOND, due_in=None)
    park(shell, OTHER)

    replayed = shell("parked", "--replay", SECOND)
    dropped = shell("parked", "--drop", "b")

    assert replayed.out.startswith(f"due now: {SECOND}\nno bus runs")
    assert dropped == Done(0, f"dropped: {OTHER}\n", "")
    assert due_now(shell) == [SECOND]
    assert states(shell) == {FIRST: "waiting", SECOND: "waiting"}


@pytest.mark.parametrize("what", ["--replay", "--drop"])
def test_all_are_steered_but_those_under_way(shell: Shell, loop: Loop, what: str) -> None:
    park(shell, FIRST)
    park(shell, SECOND, due_in=None)
    park(shell, OTHER, ended=False)
    busy = store_of(shell)
    loop.do(busy.open())
    loop.do(reopened(busy, OTHER))

    done = shell("parked", what, "all")
    alone = shell("parked", what, OTHER)
    told = shell("parked", what, "all", "--json").json
    loop.do(busy.close())

    assert (done.code, done.err) == (0, "1 request under way: left alone\n")
    assert "2 requests" in done.out
    assert (alone.code, alone.out) == (1, "")
    assert "under way at this moment" in alone.err
    assert told["under_way"] == [OTHER]
    assert due_now(shell) == ([FIRST, SECOND] if what == "--replay" else [])


async def reopened(store: SqliteStore, id: str) -> bool:
    return await store.reopen(id)


def test_the_beginning_of_an_id_is_enough_if_it_is_that_of_one(shell: Shell) -> None:
    park(shell, FIRST)
    park(shell, SECOND)

    both, none = shell("parked", "--drop", "aaaa"), shell("parked", "--drop", "c")

    assert (both.code, none.code) == (2, 2)
    assert f"'aaaa' begins several ids: {FIRST}, {SECOND}" in both.err
    assert "no such request as 'c'" in none.err
    assert states(shell) == {FIRST: "waiting", SECOND: "waiting"}


def test_the_answer_of_any_request_is_its_result(online: Shell) -> None:
    id = online("ask", "hello", "--json").json["id"]

    done, told = online("parked", "--result", id[:12]), online("parked", "--result", id, "--json")

    assert done == Done(0, f"{CANONICAL}\n", "")
    assert (told.json["text"], told.json["id"]) == (CANONICAL, id)


def test_one_that_waits_has_no_result_yet_and_that_is_told_with_what_to_do(shell: Shell) -> None:
    park(shell)

    done = shell("parked", "--result", "a")

    assert (done.code, done.out) == (1, "")
    assert "no bus runs that takes it up: " in done.err


def test_one_that_was_given_up_says_how_to_try_it_again(shell: Shell) -> None:
    park(shell, due_in=None)

    done = shell("parked", "--result", FIRST)

    assert done.code == 1
    assert f"parked --replay {FIRST}` tries it again" in done.err


def test_one_that_is_over_says_what_became_of_it_and_is_not_steered(shell: Shell) -> None:
    park(shell)
    shell("parked", "--drop", FIRST)

    result, again = shell("parked", "--result", FIRST), shell("parked", "--replay", FIRST)

    assert (result.code, again.code) == (1, 2)
    assert "was not answered, and is over: dropped by hand" in result.err
    assert "waits no more" in again.err and "--replay" not in result.err


def test_a_running_bus_takes_up_what_is_replayed(
    online: Shell, loop: Loop, server: FaultServer
) -> None:
    park(online)
    bus = AsyncMessageBus(Settings.from_env())
    loop.do(bus.start())
    until(lambda: online("parked", "--json").json["running"])
    early = online("parked")

    done = online("parked", "--replay", FIRST)
    until(lambda: not states(online))
    answer = online("parked", "--result", FIRST)
    loop.do(bus.stop())

    assert "no bus runs" not in early.out + done.out
    assert "the running bus takes it up" in done.out
    assert (answer.code, answer.out) == (0, f"{CANONICAL}\n")
    assert answer.err.startswith("healed: chatgpt failed (overloaded), asked again later → chatgpt")


def test_a_bus_of_ones_own_answers_what_waits(online: Shell, server: FaultServer) -> None:
    online.set(ZEJZL_PARK_SPACING="0.1")
    server.play("chatgpt", [*[faults.overloaded()] * 9, faults.ok("well again")])
    park(online, due_in=0.0)
    park(online, SECOND, due_in=0.0)
    park(online, OTHER, due_in=None)

    done = online("parked", "--run")

    assert done.code == 0
    assert done.out.count("well again") == 2
    assert "aaaaaaaa in vain, again in" in done.err
    assert states(online) == {OTHER: "given up"}


def test_what_is_given_up_meanwhile_is_told_and_is_1(online: Shell, server: FaultServer) -> None:
    online.set(ZEJZL_PARK_SPACING="0.1", ZEJZL_PARK_TRIES="1")
    server.play("chatgpt", faults.auth())
    server.play("claude", faults.auth())
    park(online, due_in=0.0)

    done = online("parked", "--run", "--json")

    assert (done.code, states(online)) == (1, {FIRST: "given up"})
    (ended,) = done.json
    assert (ended["error"]["type"], ended["error"]["id"]) == ("GivenUp", FIRST)


def test_what_a_bus_of_ones_own_answers_is_told_whole_to_programs(
    online: Shell, server: FaultServer
) -> None:
    park(online, due_in=0.0)

    done = online("parked", "--run", "--json")

    assert done.json == [online("parked", "--result", FIRST, "--json").json]
    assert done.json[0]["text"] == CANONICAL


def test_without_a_key_what_may_wait_is_kept_for_a_model(shell: Shell) -> None:
    done = shell("ask", "hello", "--park")

    assert (done.code, done.out) == (0, "")
    assert "nobody can be asked: no provider's key is set" in done.err
    assert [*states(shell).values()] == ["waiting"]


@pytest.mark.parametrize("words", [("parked", "--run"), ("recover", "--resend")], ids=" ".join)
def test_the_offline_stand_in_answers_nothing_that_was_meant_for_a_model(
    shell: Shell, words: tuple[str, ...]
) -> None:
    park(shell, due_in=0.0)

    done = shell(*words)

    assert (done.code, done.out) == (2, "")
    assert "no provider's key is set" in done.err
    assert states(shell) == {FIRST: "waiting"}


@pytest.mark.parametrize("how", ["--stream", "--no-stream"])
def test_asked_again_under_its_key_it_has_its_answer_and_no_provider_is_called(
    online: Shell, server: FaultServer, how: str
) -> None:
    first, again = (online("ask", "hello", "--key", "k", how) for _ in range(2))
    another = online("ask", "something else", "--key", "k")

    assert first == again == Done(0, f"{CANONICAL}\n", "")
    assert len(server.log) == 1
    assert (another.code, another.out) == (2, "")


@pytest.mark.parametrize(("more", "code"), [((), 1), (("--park",), 0)])
def test_asked_again_under_its_key_it_is_not_parked_twice(
    online: Shell, server: FaultServer, more: tuple[str, ...], code: int
) -> None:
    server.play("chatgpt", faults.overloaded())
    online("ask", "hello", "-p", "chatgpt", "--key", "k", "--park")

    done = online("ask", "hello", "-p", "chatgpt", "--key", "k", *more)

    assert (done.code, done.out, len(states(online))) == (code, "", 1)
    assert " parked --result " in done.err


# ── recover, status, advice ──────────────────────────────────────────────────────────────────────


def left_in_flight(online: Shell, server: FaultServer) -> None:
    """Kill a process while it asks."""
    server.play("chatgpt", faults.silence())
    process = online.start("ask", "hello", "-p", "chatgpt", stdin=subprocess.DEVNULL)
    until(lambda: server.in_flight("chatgpt"))
    process.kill()
    process.communicate()


def test_what_a_killed_process_left_is_asked_once_more(online: Shell, server: FaultServer) -> None:
    left_in_flight(online, server)
    server.play("chatgpt", faults.ok("well again"))

    done, again = online("recover", "--resend"), online("recover", "--resend")
    (message,) = online("history", "--all", "--json").json
    result = online("parked", "--result", message["id"])

    assert done.code == 0
    assert (result.code, result.out) == (0, "well again\n")
    assert "a provider may have answered this before" in result.err
    assert "  hello\n" in done.out and "  well again\n" in done.out
    assert "it may be paid for twice" in done.out
    assert again == Done(0, "nothing was left in flight\n", "")
    assert len(server.calls("chatgpt")) == 2


def test_what_was_left_is_looked_at_first_and_nothing_is_settled(
    online: Shell, server: FaultServer
) -> None:
    left_in_flight(online, server)
    server.play("chatgpt", faults.ok("well again"))

    looks = [online("recover", "--dry-run") for _ in range(2)]
    (found,) = online("recover", "--dry-run", "--json").json
    both = online("recover", "--dry-run", "--resend")
    done = online("recover", "--resend")

    assert looks[0] == looks[1]
    assert "hello" in looks[0].out
    assert "recover --resend` asks each once more" in looks[0].out
    assert found["content"] == "hello"
    assert (both.code, both.out) == (2, "")
    assert "well again" in done.out
    assert online("recover", "--dry-run").out == "nothing was left in flight\n"


def test_a_folder_that_cannot_be_is_told_in_words(shell: Shell) -> None:
    shell.set(ZEJZL_HOME=str(shell.folder / ("x" * 300)))

    done = shell("costs")

    assert (done.code, done.out) == (1, "")
    assert "zejzl.db cannot be opened: File name too long" in done.err
    assert "Errno" not in done.err


def test_what_is_settled_is_told_to_be_so_for_good(online: Shell, server: FaultServer) -> None:
    left_in_flight(online, server)

    done = online("recover")

    assert done.out.splitlines()[-1].startswith("settled as failed, for good: ")
    assert " recover --resend` asks again what is not yet" in done.out


def test_a_program_that_runs_a_command_has_its_way_to_end_back(shell: Shell) -> None:
    before = signal.getsignal(signal.SIGTERM)

    shell("costs")

    assert signal.getsignal(signal.SIGTERM) is before


def test_the_end_of_a_service_is_what_ctrl_c_is(online: Shell, server: FaultServer) -> None:
    park(online, due_in=0.0)
    server.play("chatgpt", faults.silence())
    process = online.start("parked", "--run", stdin=subprocess.DEVNULL)
    until(lambda: server.in_flight("chatgpt"))

    process.terminate()
    process.communicate()

    assert process.returncode == 143
    assert states(online) == {FIRST: "waiting"}
    assert "the last one died" not in online("status").out


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_one_that_fails_again_is_told_and_is_1(
    online: Shell, server: FaultServer, more: tuple[str, ...]
) -> None:
    left_in_flight(online, server)
    server.play("chatgpt", faults.auth())

    done = online("recover", "--resend", *more)

    assert done.code == 1
    if more:
        assert done.json[0]["error"]["type"] == "AuthFailed"
        assert done.json[0]["reply"] is None
    else:
        assert "no answer from chatgpt: AuthFailed" in done.out
        assert "→ check OPENAI_API_KEY" in done.out


def test_status_counts_parked_work_apart_from_failures(shell: Shell) -> None:
    park(shell, FIRST)
    park(shell, SECOND, due_in=None, error="given up: it is down")
    park(shell, OTHER, ended=False)

    done, found = shell("status"), shell("status", "--json").json

    assert found["messages"] == {"parked": 2, "failed": 1}
    assert found["parked"] == {"waiting": 1, "given up": 1, "interrupted": 1}
    assert re.search(r"^parked work: +1 given up, 1 interrupted, 1 waiting; `", done.out, re.M)
    assert done.out.count("failed at ") == 1
    assert " recover " not in done.out


def test_status_tells_todays_money_if_there_is_any(shell: Shell) -> None:
    spend(shell, noon(1), 4.0)
    before = shell("status").out
    spend(shell, noon(0), 1.5)
    shell.set(ZEJZL_SPEND_LIMIT_DAY="20")

    done, found = shell("status"), shell("status", "--json").json

    assert "spent today" not in before and "parked work" not in before
    assert re.search(r"^spent today \(UTC\): +\$1\.5000 of \$20; `", done.out, re.M)
    assert (found["spent_today_usd"], found["spend_limit_day_usd"]) == (1.5, 20.0)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Parked("i d", 0, None, "down"), "parked --result 'i d'` shows the answer"),
        (GivenUp("id", ("down",)), "parked --replay id` tries it again"),
        (NoSuchRequest("id"), " parked` for what waits"),
        (RequestUnderWay("x"), "wait for its end"),
        (SpendLimitReached("day", 9.0, "$4 of $5 are spent"), "ZEJZL_SPEND_LIMIT_DAY"),
        (SpendLimitReached("c", float("inf"), "no price is known for a/b"), "add its price"),
        (SettingsError("prices", "p.toml, row 'x': has no prompt"), "ZEJZL_PRICES) names the file"),
        (SettingsError("ZEJZL_DEADLINE", "must be above 0"), "in the environment, .env or"),
        (RateLimited("x", retry_after=9_000.0), "later, or keep it until somebody can answer: --p"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_advice_fits_the_failure(failure: Exception, said: str) -> None:
    _, advice = explained(failure, place=SHELL)

    assert said in advice


def test_a_chat_in_which_nothing_can_be_kept_does_not_advise_it() -> None:
    _, advice = explained(RateLimited("x", retry_after=9_000.0), place=CHAT)

    assert advice == "  → try again later"


def test_a_wait_that_is_over_any_moment_is_over_now(shell: Shell) -> None:
    park(shell, due_in=0.3)

    assert shell("parked").out.splitlines()[1].split()[5] == "now"


# ── Tables ───────────────────────────────────────────────────────────────────────────────────────

CELLS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Mn", "Cf"]), max_size=90)


@given(st.lists(CELLS, min_size=1, max_size=4), st.integers(21, 120))
def test_a_table_that_is_brief_takes_a_line_a_row_however_narrow(
    texts: list[str], room: int
) -> None:
    made = in_columns(
        ["id", "text"], [["0123456", text] for text in texts], brief=["text"], room=room
    )
    console = Console(file=StringIO(), width=room, color_system=None)
    with console.capture() as shown:
        console.print(made)

    rows = [row for row in shown.get().splitlines() if "0123456" in row]
    assert len(shown.get().splitlines()) == 1 + len(texts) == 1 + len(rows)
    assert all(cell_len(row.rstrip()) <= room for row in rows)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=9))
def test_a_bar_is_seen_wherever_there_is_something_and_ends_with_the_line(
    shares: list[float],
) -> None:
    terminal = Terminal()
    terminal.out = Console(file=StringIO(), width=40, force_terminal=True, color_system=None)

    terminal.table(["n"], [[at] for at in range(len(shares))], bars=shares)

    shown = terminal.out.file.getvalue().splitlines()[1:]  # type: ignore[attr-defined]
    bars = [row.partition(" ")[2].strip() for row in shown]
    assert [bool(bar) for bar in bars] == [share > 0.0 for share in shares]
    assert all(len(bar) <= 20 for bar in bars)
