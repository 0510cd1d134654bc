"""Experiments on a bus: divided by conversation, ended by themselves, carried out."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.driving import finished, make_bus, register
from zejzl.engine.trial_shelf import read_experiments, shown
from zejzl.errors import (
    BadRequest,
    NoSuchChange,
    Rejected,
    ServerError,
    SettingsError,
    StoreError,
    StoreTooNew,
)
from zejzl.events import ExperimentEnded
from zejzl.learning.experiment import assign
from zejzl.messages import Reply, Request, Usage
from zejzl.settings import Settings
from zejzl.stores import InMemoryStore, SqliteStore
from zejzl.testing import FakeClock

BETTER = {"id": "better", "settings": {"default_provider": "good"}}
ARMS = {"as it is": None, "better": BETTER}
TO_WORSE = {"id": "worse", "settings": {"default_provider": "bad"}}


class Flaky:
    """Fails every `nth` call at once, with what no other call would help against."""

    default_model = "m"

    def __init__(self, name: str, nth: int, failure: type[Exception] = ServerError) -> None:
        self.name = name
        self.calls = 0
        self._nth = nth
        self._failure = failure

    async def generate(self, request: Request) -> Reply:
        self.calls += 1
        if self._nth and self.calls % self._nth == 0:
            raise self._failure("it fails now and then")
        return Reply(text="yes", provider=self.name, model="m", usage=Usage(1, 1))

    async def cleanup(self) -> None:
        pass


async def with_two(clock: FakeClock, bad: int = 2, **settings: Any) -> AsyncMessageBus:
    """Return a bus that asks a bad provider first, and nobody after it."""
    usual: dict[str, Any] = {"max_attempts": 1, "hedging": False, "default_provider": "bad"}
    bus = make_bus(clock, **usual | settings)
    await bus.start()
    await bus.register_provider("bad", Flaky("bad", bad))
    await bus.register_provider("good", Flaky("good", 0))
    return bus


async def send_many(
    bus: AsyncMessageBus, clock: FakeClock, names: Sequence[str | None]
) -> list[str | None]:
    """Return who answered each; None: nobody."""
    answers: list[str | None] = []
    for name in names:
        await clock.advance(60.0)  # no circuit breaker stays open that long
        try:
            reply = await finished(clock, bus.send("hello", conversation_id=name, failover=False))
            answers.append(reply.provider)
        except (ServerError, Rejected):
            answers.append(None)
    return answers


def conversations(n: int) -> list[str]:
    return [f"c{number}" for number in range(n)]


async def test_a_better_arm_is_kept_and_in_use_from_then_on() -> None:
    clock = FakeClock()
    bus = await with_two(clock)

    begun = await bus.experiment("try", arms=ARMS)
    await send_many(bus, clock, conversations(300))

    assert (begun["state"], begun["change"]) == ("running", "better")
    (ended,) = bus.experiments
    assert ended["state"] == "kept"
    assert [each.id for each in bus.changes] == ["better"]
    assert bus.settings.default_provider == "good"
    assert set(await send_many(bus, clock, conversations(20))) == {"good"}
    (told,) = await bus.store.events(type="experiment_ended")
    assert isinstance(told, ExperimentEnded)
    assert (told.name, told.verdict) == ("try", "kept")
    evidence = json.loads(told.evidence)
    assert evidence["treatment"]["share"] == 1.0
    assert evidence["control"]["share"] < 0.7
    await bus.stop()


async def test_a_conversation_never_changes_sides() -> None:
    clock = FakeClock()
    bus = await with_two(clock, bad=0)
    await bus.experiment("try", arms=ARMS)
    names = conversations(30)

    first, second = await send_many(bus, clock, names), await send_many(bus, clock, names)

    assert first == second
    shares = {"better": 0.5, "as it is": 0.5}
    sides = {"better": "good", "as it is": "bad"}
    begun = bus._trials.running["try"].trial.token
    assert first == [sides[assign("try", name, shares, begun)] for name in names]
    await bus.stop()


async def test_a_worse_change_that_stands_already_is_taken_back_by_itself() -> None:
    clock = FakeClock()
    bus = await with_two(clock, default_provider="good")
    await bus.apply(TO_WORSE)
    assert await send_many(bus, clock, ["x"]) == ["bad"]

    await bus.experiment("watch", arms={"before": {}, "after": TO_WORSE})
    await send_many(bus, clock, conversations(300))

    assert [each["state"] for each in bus.experiments] == ["reverted"]
    (change,) = bus.changes
    assert not change.stands
    assert change.reverted_because.startswith("experiment watch: ")
    assert set(await send_many(bus, clock, conversations(10))) == {"good"}
    await bus.stop()


async def test_a_worse_arm_that_never_stood_is_never_in_use() -> None:
    clock = FakeClock()
    bus = await with_two(clock, default_provider="good")

    await bus.experiment("try", arms={"now": None, "then": TO_WORSE})
    await send_many(bus, clock, conversations(300))

    assert [each["state"] for each in bus.experiments] == ["reverted"]
    assert bus.changes == []
    assert bus.settings.default_provider == "good"
    await bus.stop()


async def test_arms_that_are_alike_end_undecided_and_leave_all_as_it_was() -> None:
    clock = FakeClock()
    bus = await with_two(clock, bad=0)

    await bus.experiment("try", arms=ARMS, most=60)
    await send_many(bus, clock, conversations(80))

    assert [each["state"] for each in bus.experiments] == ["undecided"]
    assert bus.changes == []
    assert set(await send_many(bus, clock, conversations(5))) == {"bad"}
    await bus.stop()


async def test_arms_may_both_be_tables_of_settings() -> None:
    clock = FakeClock()
    bus = await with_two(clock)

    arms = {"none": {"default_provider": "bad"}, "magic": {"default_provider": "good"}}
    await bus.experiment("a/b", arms=arms)
    await send_many(bus, clock, conversations(300))

    assert [each["state"] for each in bus.experiments] == ["kept"]
    assert [each.id for each in bus.changes] == ["experiment:a/b"]
    await bus.stop()


async def test_mistakes_of_callers_say_nothing_of_an_arm() -> None:
    clock = FakeClock()
    bus = make_bus(clock, max_attempts=1)
    await bus.start()
    await bus.register_provider("a", Flaky("a", 1, BadRequest))
    await bus.experiment("try", arms={"now": {}, "then": {"max_tokens": 5}})

    for number in range(10):
        with pytest.raises(BadRequest):
            await finished(clock, bus.send("hello", conversation_id=f"c{number}"))

    ruling = bus.experiments[0]["ruling"]
    assert isinstance(ruling, dict)
    assert (ruling["treatment"]["n"], ruling["control"]["n"]) == (0, 0)
    await bus.stop()


async def test_streams_have_their_part_in_it() -> None:
    clock = FakeClock()
    bus = await with_two(clock, bad=0)
    await bus.experiment("try", arms=ARMS)

    async def streamed(name: str) -> None:
        async for _ in bus.stream("hello", conversation_id=name):
            pass

    for name in conversations(10):
        await finished(clock, streamed(name))

    ruling = bus.experiments[0]["ruling"]
    assert isinstance(ruling, dict)
    assert ruling["treatment"]["n"] + ruling["control"]["n"] == 10
    await bus.stop()


async def test_an_experiment_goes_on_after_a_restart(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "z.db"
    bus = await with_two(clock, store=SqliteStore(path), bad=0)
    await bus.experiment("try", arms=ARMS)
    await send_many(bus, clock, conversations(7))
    before = bus.experiments
    await bus.stop()

    again = await with_two(clock, store=SqliteStore(path), bad=0)

    assert again.experiments == before
    assert await send_many(again, clock, conversations(7)) == await send_many(
        again, clock, conversations(7)
    )
    await again.stop()


async def test_one_that_is_stopped_by_hand_leaves_all_as_it_was() -> None:
    clock = FakeClock()
    bus = await with_two(clock)
    await bus.experiment("try", arms=ARMS)

    ended = await bus.stop_experiment("try")

    assert (ended["state"], ended["reason"]) == ("undecided", "it was stopped by hand")
    assert bus.changes == []
    with pytest.raises(NoSuchChange, match="no such experiment runs: 'try'; there is none"):
        await bus.stop_experiment("try")
    await bus.stop()


async def test_two_experiments_divide_the_requests_independently() -> None:
    clock = FakeClock()
    bus = await with_two(clock, bad=0)
    await bus.experiment("one", arms=ARMS)
    await bus.experiment("two", arms={"long": None, "short": {"max_tokens": 3}})

    await send_many(bus, clock, conversations(100))

    for each in bus.experiments:
        ruling = each["ruling"]
        assert isinstance(ruling, dict)
        assert 25 < ruling["treatment"]["n"] < 75
    await bus.stop()


@pytest.mark.parametrize(
    ("name", "arms", "how", "wrong", "says"),
    [
        ("", ARMS, {}, ValueError, "name must not be empty"),
        ("x", {"a": None}, {}, ValueError, "a table of two"),
        ("x", [1, 2], {}, ValueError, "a table of two"),
        ("x", {"a": None, "b": {}}, {}, ValueError, "the arms are alike"),
        ("x", {"a": None, "b": {"home": "/"}}, {}, SettingsError, "cannot be changed"),
        ("x", {"a": None, "b": {"max_attempts": 0}}, {}, SettingsError, "whole number"),
        ("x", {"a": None, "b": 5}, {}, TypeError, "has `settings`"),
        ("x", ARMS, {"share": 1.0}, ValueError, "shares"),
        ("x", ARMS, {"goal": "joy"}, ValueError, "goal must be one of"),
        ("x", ARMS, {"most": 3}, ValueError, "most must be"),
    ],
)
async def test_what_is_no_experiment_is_not_begun(
    name: str, arms: Any, how: dict[str, Any], wrong: type[Exception], says: str
) -> None:
    async with make_bus(FakeClock()) as bus:
        with pytest.raises(wrong, match=says):
            await bus.experiment(name, arms=arms, **how)

        assert bus.experiments == []
        assert await bus.store.setting("experiments") is None


async def test_a_name_runs_once() -> None:
    async with make_bus(FakeClock()) as bus:
        await bus.experiment("x", arms=ARMS)

        with pytest.raises(ValueError, match="runs already"):
            await bus.experiment("x", arms=ARMS)


@pytest.mark.parametrize("kept", ["{", '{"v": 1}', '{"v": 1, "running": [{}], "over": []}'])
async def test_experiments_that_cannot_be_read_are_set_aside(kept: str) -> None:
    store = InMemoryStore()
    await store.open()
    await store.keep_setting("experiments", kept)

    async with make_bus(FakeClock(), store=store) as bus:
        assert bus.experiments == []
        assert await store.setting("experiments.damaged") == kept


async def test_experiments_of_a_newer_version_are_left_alone() -> None:
    store = InMemoryStore()
    await store.open()
    await store.keep_setting("experiments", json.dumps({"v": 2}))

    with pytest.raises(StoreTooNew, match="version 2"):
        await make_bus(FakeClock(), store=store).start()


async def test_without_an_experiment_nothing_is_assigned() -> None:
    clock = FakeClock()
    bus = await with_two(clock, bad=0)

    question = bus._intake.question("hello", "c", "user", _options())

    assert question.part is None
    assert bus.settings == Settings(max_attempts=1, hedging=False, default_provider="bad")
    await bus.stop()


def _options() -> Any:
    from zejzl.engine.options import Options

    return Options()


async def test_only_the_first_outcome_of_a_conversation_counts() -> None:
    clock = FakeClock()
    bus = await with_two(clock, bad=0)
    await bus.experiment("try", arms=ARMS)

    await send_many(bus, clock, ["same"] * 5 + [None] * 3)

    ruling = bus.experiments[0]["ruling"]
    assert isinstance(ruling, dict)
    assert ruling["treatment"]["n"] + ruling["control"]["n"] == 4
    await bus.stop()


async def test_an_experiment_belongs_to_one_process_and_to_the_next_after_its_end(
    tmp_path: Path,
) -> None:
    clock, path = FakeClock(), tmp_path / "z.db"
    one = await with_two(clock, store=SqliteStore(path))
    await one.experiment("try", arms=ARMS)
    await clock.advance(5.0)  # its snapshot is written
    other = await with_two(clock, store=SqliteStore(path))

    of_the_other = other.experiments
    with pytest.raises(ValueError, match="in another process"):
        await other.experiment("try", arms=ARMS)
    await send_many(one, clock, conversations(10))
    await one.stop()
    after_it = await with_two(clock, store=SqliteStore(path))

    assert of_the_other == []
    (found,) = after_it.experiments
    ruling = found["ruling"]
    assert isinstance(ruling, dict)
    assert ruling["treatment"]["n"] + ruling["control"]["n"] == 10
    await send_many(after_it, clock, conversations(10))  # counted already
    assert after_it.experiments == [found]
    await send_many(after_it, clock, conversations(300))
    await after_it.stop()
    told = await other.store.events(type="experiment_ended")
    assert [isinstance(each, ExperimentEnded) and each.verdict for each in told] == ["kept"]
    await other.stop()


async def test_processes_do_not_overwrite_each_others_experiments(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "z.db"
    one = await with_two(clock, store=SqliteStore(path), bad=0)
    other = await with_two(clock, store=SqliteStore(path), bad=0)
    await one.experiment("mine", arms=ARMS)
    await other.experiment("theirs", arms={"long": None, "short": {"max_tokens": 3}})
    await one.stop_experiment("mine")
    await one.stop()
    await other.stop()

    again = await with_two(clock, store=SqliteStore(path), bad=0)

    assert [(each["name"], each["state"]) for each in again.experiments] == [
        ("mine", "undecided"),
        ("theirs", "running"),
    ]
    await again.stop()


class Failing(InMemoryStore):
    """A store in memory that will not revise anything for a while."""

    fails = False

    def revise(self, name: str, change: Any) -> Any:
        if self.fails:
            raise StoreError("the disk is full")
        return super().revise(name, change)


async def test_a_verdict_that_cannot_be_written_costs_no_answer_and_is_carried_out_later() -> None:
    clock, store = FakeClock(), Failing()
    bus = await with_two(clock, store=store)
    await bus.experiment("try", arms=ARMS)
    store.fails = True

    answers = await send_many(bus, clock, conversations(300))
    while_it_fails = [each["state"] for each in bus.experiments], bus.changes
    store.fails = False
    await send_many(bus, clock, ["one more"])

    assert answers.count("good") > 100
    assert while_it_fails == (["kept"], [])
    assert [each.id for each in bus.changes] == ["better"]
    assert list(bus._trials.running) == []
    await bus.stop()


async def test_a_change_that_does_not_go_together_with_an_arm_breaks_no_request() -> None:
    clock = FakeClock()
    bus = await with_two(clock, bad=0)
    await bus.experiment("try", arms={"now": None, "patient": {"patience": 50.0}})

    await bus.apply({"id": "hasty", "settings": {"deadline": 10.0}})
    answers = await send_many(bus, clock, conversations(20))

    assert set(answers) == {"bad"}
    await bus.stop()


async def test_a_request_under_way_survives_the_end_of_its_experiment() -> None:
    clock = FakeClock()
    bus = make_bus(clock)
    await bus.start()
    (a,) = await register(bus, clock, a=[5.0, "yes"])
    await bus.experiment("x", arms={"now": None, "short": {"max_tokens": 5}})
    asking = asyncio.create_task(bus.send("hello", conversation_id="c"))
    await clock.advance(1.0)

    await bus.stop_experiment("x")
    await bus.experiment("x", arms={"now": None, "long": {"max_tokens": 500}})
    await clock.advance(10.0)

    assert (await asking).text == "yes"
    ruling = bus.experiments[-1]["ruling"]
    assert isinstance(ruling, dict)
    assert (ruling["treatment"]["n"], ruling["control"]["n"]) == (0, 0)
    assert len(a.requests) == 1
    await bus.stop()


async def test_an_experiment_that_does_not_fit_is_left_as_it_is_and_the_others_go_on() -> None:
    clock, store = FakeClock(), InMemoryStore()
    bus = await with_two(clock, store=store, bad=0)
    await bus.experiment("patient", arms={"now": None, "then": {"patience": 40.0}})
    await bus.experiment("other", arms=ARMS)
    await bus.stop()

    hasty = await with_two(clock, store=store, bad=0, deadline=10.0)
    seen = [each["name"] for each in hasty.experiments]
    await hasty.stop()
    again = await with_two(clock, store=store, bad=0)

    assert seen == ["other"]
    assert sorted(str(each["name"]) for each in again.experiments) == ["other", "patient"]
    await again.stop()


async def test_a_change_that_somebody_took_back_meanwhile_is_not_kept() -> None:
    clock = FakeClock()
    bus = await with_two(clock)
    await bus.apply(BETTER)
    await bus.experiment("try", arms={"before": None, "better": BETTER})
    await send_many(bus, clock, conversations(10))
    await bus.revert("better")

    await send_many(bus, clock, conversations(300))

    (ended,) = bus.experiments
    assert ended["state"] == "undecided"
    assert "taken back meanwhile" in str(ended["reason"])
    assert [each.stands for each in bus.changes] == [False]
    await bus.stop()


async def test_what_is_better_but_does_not_fit_any_more_is_not_told_as_kept() -> None:
    clock = FakeClock()
    bus = await with_two(clock)
    better = {"settings": {"default_provider": "good", "patience": 50.0}}
    await bus.experiment("try", arms={"now": None, "better": better})
    await send_many(bus, clock, conversations(100))
    running = bus._trials.running.get("try")
    if running is not None:
        await bus.apply({"id": "hasty", "settings": {"deadline": 10.0}})
        bus._trials._end(running, "kept", "better in success")
        await clock.advance(0.0)

    (ended,) = bus.experiments
    assert ended["state"] in ("undecided", "kept")
    assert (ended["state"] == "kept") == any(each.id == "experiment:try" for each in bus.changes)
    await bus.stop()


async def test_an_id_that_is_in_use_with_other_settings_is_not_tried() -> None:
    async with make_bus(FakeClock()) as bus:
        await bus.apply({"id": "t", "settings": {"attempt_timeout": 12.0}})

        with pytest.raises(ValueError, match="in use with other settings"):
            await bus.experiment(
                "x", arms={"now": None, "t": {"id": "t", "settings": {"attempt_timeout": 9.0}}}
            )


@pytest.mark.parametrize("name", ["history_turns", "context_tokens"])
async def test_what_matters_in_later_turns_is_not_tried(name: str) -> None:
    async with make_bus(FakeClock()) as bus:
        with pytest.raises(SettingsError, match="matters in later turns"):
            await bus.experiment("x", arms={"now": None, "then": {name: 5}})


async def test_an_answer_that_there_was_already_is_no_outcome() -> None:
    clock = FakeClock()
    bus = await with_two(clock, bad=0)
    await bus.experiment("try", arms=ARMS)

    for _ in range(5):
        await finished(clock, bus.send("hello", idempotency_key="k"))

    ruling = bus.experiments[0]["ruling"]
    assert isinstance(ruling, dict)
    assert ruling["treatment"]["n"] + ruling["control"]["n"] == 1
    await bus.stop()


class Slow(InMemoryStore):
    """A store in memory that takes for ever to revise anything, once it is told to."""

    hangs = False

    async def _never(self) -> Any:
        await asyncio.Event().wait()

    def revise(self, name: str, change: Any) -> Any:
        return self._never() if self.hangs else super().revise(name, change)


async def test_a_store_that_hangs_at_the_verdict_keeps_nobody_waiting() -> None:
    clock, store = FakeClock(), Slow()
    bus = await with_two(clock, store=store)
    await bus.experiment("try", arms=ARMS)
    store.hangs = True

    answers = await send_many(bus, clock, conversations(200))
    stopping = asyncio.create_task(bus.stop())
    await clock.advance(30.0)

    assert answers.count("good") > 10
    assert stopping.done()


async def test_one_that_finds_nothing_ends_after_a_month() -> None:
    clock = FakeClock()
    bus = await with_two(clock, bad=0)
    await bus.experiment("try", arms=ARMS)

    await clock.advance(31 * 86_400.0)
    await send_many(bus, clock, ["c"])

    (ended,) = bus.experiments
    assert (ended["state"], ended["reason"]) == ("undecided", "30 days are over")
    await bus.stop()


async def test_a_verdict_whose_process_died_before_it_acted_is_carried_out_by_the_next() -> None:
    clock, store = FakeClock(), InMemoryStore()
    bus = await with_two(clock, store=store, bad=0)
    await bus.experiment("try", arms=ARMS)
    running = bus._trials.running.pop("try")
    await bus._trials._shelf.end(shown(running) | {"state": "kept", "reason": "better"})
    await bus.stop()

    again = await with_two(clock, store=store, bad=0)

    assert [each.id for each in again.changes] == ["better"]
    assert again._trials._shelf.pending == []
    await again.stop()


# What older versions and strange hands have left ---------------------------------------------


async def with_an_older_row(store: InMemoryStore) -> None:
    """Keep two experiments, "old" being of the first version, as a process left them that died."""
    clock = FakeClock()
    bus = await with_two(clock, store=store, bad=0)
    await bus.experiment("old", arms=ARMS)
    await bus.experiment("new", arms={"long": None, "short": {"max_tokens": 3}})
    await bus.stop()
    await store.open()
    body = json.loads(await store.setting("experiments") or "")
    for row in body["running"]:
        if row["name"] == "old":
            row["trial"]["v"] = 1
    await store.keep_setting("experiments", json.dumps(body))


async def test_an_experiment_of_an_older_version_is_shown_as_ended_and_why() -> None:
    store = InMemoryStore()
    await with_an_older_row(store)

    shown_first = {each["name"]: each for each in await read_experiments(store)}
    bus = await with_two(FakeClock(), store=store, bad=0)
    on_the_bus = {each["name"]: each for each in bus.experiments}

    for found in (shown_first, on_the_bus):
        assert {name: each["state"] for name, each in found.items()} == {
            "old": "undecided",
            "new": "running",
        }
        assert "version 1 cannot go on" in str(found["old"]["reason"])
        assert found["old"]["settings"] == {"default_provider": "good"}
    assert await bus.store.setting("experiments.damaged") is None
    await bus.stop()


async def test_a_row_that_cannot_go_on_does_not_keep_its_name() -> None:
    store, theirs = InMemoryStore(), InMemoryStore()
    bus = await with_two(FakeClock(), store=store, bad=0)
    await with_an_older_row(theirs)
    await store.keep_setting("experiments", await theirs.setting("experiments"))

    begun = await bus.experiment("old", arms=ARMS)

    assert begun["state"] == "running"
    states = [(each["name"], each["state"]) for each in await read_experiments(store)]
    assert states == [("old", "undecided"), ("new", "running"), ("old", "running")]
    await bus.stop()


async def test_a_row_of_a_newer_version_keeps_its_name_and_blocks_no_other() -> None:
    store = InMemoryStore()
    await with_an_older_row(store)
    kept = (await store.setting("experiments") or "").replace('"v": 1, "name"', '"v": 99, "name"')
    await store.keep_setting("experiments", kept)

    bus = await with_two(FakeClock(), store=store, bad=0)

    assert [each["name"] for each in bus.experiments] == ["new"]
    (newer,) = [each for each in await read_experiments(store) if each["name"] == "old"]
    assert (newer["state"], "version 99" in str(newer["reason"])) == ("running", True)
    with pytest.raises(ValueError, match="runs already"):
        await bus.experiment("old", arms=ARMS)
    await bus.stop()


async def test_rows_without_a_name_are_set_aside_and_the_others_go_on() -> None:
    store = InMemoryStore()
    await with_an_older_row(store)
    body = json.loads(await store.setting("experiments") or "")
    body["running"] += [{}, 5]
    body["over"] += [None]
    kept = json.dumps(body)
    await store.keep_setting("experiments", kept)

    names = [each["name"] for each in await read_experiments(store)]
    bus = await with_two(FakeClock(), store=store, bad=0)

    assert sorted(map(str, names)) == ["new", "old"]
    assert [each["name"] for each in bus.experiments] == ["old", "new"]
    assert await store.setting("experiments.damaged") == kept
    await bus.stop()


async def test_begun_again_under_its_name_an_experiment_divides_conversations_anew() -> None:
    clock = FakeClock()
    bus = await with_two(clock, bad=0)
    names = conversations(200)

    await bus.experiment("try", arms=ARMS)
    first = [bus._trials.part(name).usual.settings.default_provider for name in names]
    await bus.stop_experiment("try")
    await clock.advance(1.0)
    await bus.experiment("try", arms=ARMS)
    second = [bus._trials.part(name).usual.settings.default_provider for name in names]

    same = sum(a == b for a, b in zip(first, second, strict=True))
    assert 70 < same < 130
    await bus.stop()


async def test_after_a_restart_an_experiment_divides_conversations_as_before() -> None:
    clock, store = FakeClock(), InMemoryStore()
    names = conversations(50)
    bus = await with_two(clock, store=store, bad=0)
    await bus.experiment("try", arms=ARMS)
    first = [bus._trials.part(name).usual.settings.default_provider for name in names]
    await bus.stop()
    await clock.advance(1.0)

    again = await with_two(clock, store=store, bad=0)
    second = [again._trials.part(name).usual.settings.default_provider for name in names]

    assert first == second
    await again.stop()


@pytest.mark.parametrize("part", ["arm", "name", "share", "goal", "most"])
async def test_what_is_nested_without_end_is_told_as_a_wrong_value(part: str) -> None:
    value: dict[str, object] | list[object] = {"a": 1}
    for _ in range(5_000):
        value = {"a": value} if part == "arm" else [value]
    how: dict[str, Any] = {"name": "x", "arms": ARMS}
    if part == "arm":
        how["arms"] = {"now": None, "deep": {"rate_limits": value}}
    else:
        how[part] = value

    async with make_bus(FakeClock()) as bus:
        with pytest.raises((TypeError, ValueError)):
            await bus.experiment(**how)

        assert bus.experiments == []
