import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai_framework import AsyncMessageBus
from tests.driving import make_bus
from tests.test_mining import tampered
from zejzl.agents.learner import FAILURES, LEARNINGS, SUCCESSES, LearnerAgent
from zejzl.errors import StoreTooNew
from zejzl.testing import FakeClock

WALL = 1_700_000_000.0
KEYS = {
    *("patterns_analyzed", "success_rate", "success_rate_n", "bottlenecks_identified"),
    *("optimizations_suggested", "learned_patterns", "bottlenecks", "optimizations", "timestamp"),
}

Event = dict[str, object]


def run(
    case: str, *, kinds: str = "plan execution validation executor", **last: object
) -> list[Event]:
    start = WALL - 10_000 + float(int(case.strip("abc") or 0)) * 20
    names = kinds.split()
    events: list[Event] = [
        {"type": kind, "conversation_id": case, "timestamp": start + at, "data": {"step": at}}
        for at, kind in enumerate(names)
    ]
    return [*events[:-1], {**events[-1], **last}]


def names_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(wall=WALL)


@pytest.fixture
async def bus(clock: FakeClock) -> AsyncIterator[AsyncMessageBus]:
    async with make_bus(clock) as bus:
        yield bus


async def test_alone_it_learns_from_events_and_says_so_in_the_words_of_the_contract(
    clock: FakeClock,
) -> None:
    events = [*run("a1"), *run("a2"), *run("a3", error="no seat 17")]

    learned = await LearnerAgent(clock=clock).learn(events)

    assert set(learned) == KEYS
    assert f"{learned['success_rate']:.1%}" == "66.7%"
    assert (learned["success_rate_n"], learned["patterns_analyzed"]) == (3, 1)
    assert learned["timestamp"] == "2023-11-14T22:13:20+00:00"
    bottlenecks = learned["bottlenecks"]
    assert isinstance(bottlenecks, list)
    (bottleneck,) = bottlenecks
    assert bottleneck["type"] == "execution_error"
    assert bottleneck["where"] == {"activity": "executor", "signature": "no seat <n>"}
    assert (bottleneck["n"], bottleneck["n_reference"]) == (1, 3)
    assert bottleneck["effect"]["ci95"][0] < 1 / 3 < bottleneck["effect"]["ci95"][1]
    assert bottleneck["evidence"]["case_ids"] == ["a3"]
    assert learned["bottlenecks_identified"] == 1
    assert json.loads(json.dumps(learned)) == learned


async def test_every_suggestion_says_what_it_rests_on(clock: FakeClock) -> None:
    events = [event for n in range(40) for event in run(f"a{n}", kinds="plan validation")]
    for event in events[1::8]:
        event["is_valid"] = False

    learned = await LearnerAgent(clock=clock).learn(events)

    optimizations = learned["optimizations"]
    assert isinstance(optimizations, list)
    assert learned["optimizations_suggested"] == len(optimizations) > 0
    found = {finding["id"] for finding in learned["learned_patterns"]["findings"]}  # type: ignore[index]
    for each in optimizations:
        assert "blue spark healing for validation failures: 10 of 40" in each["suggestion"]
        assert each["finding_ids"] and set(each["finding_ids"]) <= found
        assert each["evidence"]["case_ids"]


async def test_from_nothing_nothing_is_learned(clock: FakeClock) -> None:
    learned = await LearnerAgent(clock=clock).learn([])

    assert (learned["success_rate"], learned["success_rate_n"]) == (0.0, 0)
    assert learned["bottlenecks"] == learned["optimizations"] == []
    assert learned["learned_patterns"]["success"]["success_rate"] is None  # type: ignore[index]


async def test_what_is_learned_adds_up_whatever_the_portions(clock: FakeClock) -> None:
    events = [event for n in range(700) for event in run(f"a{n}")]
    parts = LearnerAgent(clock=clock)

    for start in range(0, len(events), 501):
        last = await parts.learn(iter(events[start : start + 501]))

    whole = await LearnerAgent(clock=clock).learn(events)
    for answer in (last, whole):
        answer["learned_patterns"]["success_paths"] = []  # type: ignore[index]
    assert last == whole


async def test_what_is_no_event_is_counted_and_changes_nothing_else(clock: FakeClock) -> None:
    good = run("a1")
    future = {**good[0], "timestamp": WALL + 3600}

    learned = await LearnerAgent(clock=clock).learn([None, *good, {}, future, "x"])
    clean = await LearnerAgent(clock=clock).learn(good)

    patterns = learned["learned_patterns"]
    assert isinstance(patterns, dict)
    assert patterns.pop("skipped") == {"future": 1, "no_type": 1, "not_an_event": 2}
    clean["learned_patterns"].pop("skipped")  # type: ignore[attr-defined]
    assert learned == clean


async def test_the_last_paths_of_each_learning_are_kept(clock: FakeClock) -> None:
    learner = LearnerAgent(clock=clock)

    for round in range(2):
        events = []
        for n in range(8):
            step = f"{'ab'[round]}{n} executor"
            events += run(f"a{100 * round + n}", kinds=step)
            events += run(f"b{100 * round + n}", kinds=step, status="failed")
        await learner.learn(events)

    assert [path[0] for path in learner.success_patterns] == [
        *("a3", "a4", "a5", "a6", "a7"),
        *("b3", "b4", "b5", "b6", "b7"),
    ]
    assert [path[0] for path in learner.failure_patterns] == ["a5", "a6", "a7", "b5", "b6", "b7"]


async def test_paths_of_no_more_than_so_many_learnings_are_kept(clock: FakeClock) -> None:
    learner = LearnerAgent(clock=clock)

    for n in range(8 * LEARNINGS):
        await learner.learn([*run(f"a{n}"), *run(f"b{n}", error="no")])

    assert len(learner.success_patterns) == SUCCESSES * LEARNINGS
    assert len(learner.failure_patterns) == FAILURES * LEARNINGS


async def test_a_rule_may_say_what_a_success_is(clock: FakeClock) -> None:
    learner = LearnerAgent(clock=clock, outcome="success = step >= 3")

    learned = await learner.learn([*run("a1"), *run("a2", kinds="plan execution")])

    assert (learned["success_rate"], learned["success_rate_n"]) == (0.5, 2)
    with pytest.raises(ValueError, match="not an outcome rule"):
        LearnerAgent(outcome="nonsense")


async def test_saved_and_loaded_it_goes_on_as_if_never_stopped(
    clock: FakeClock, tmp_path: Path
) -> None:
    first, rest = [*run("a1"), *run("a2")[:2]], [*run("a2")[2:], *run("a3", error="no")]
    path = tmp_path / "learned.json"
    one, other, never = (LearnerAgent(clock=clock) for _ in range(3))

    await one.learn(first)
    one.feedback("retry_policy-1", "bad", "too dear")
    await one.save(path)
    assert await other.load(path)

    await never.learn(first)
    never.feedback("retry_policy-1", "bad", "too dear")
    assert await other.learn(rest) == await never.learn(rest)
    assert other.success_patterns == never.success_patterns
    assert names_in(tmp_path) == ["learned.json"]


async def test_with_a_bus_its_store_keeps_what_was_learned(bus: AsyncMessageBus) -> None:
    learner = LearnerAgent(bus)
    fresh = LearnerAgent(bus)

    assert not await fresh.load()
    learned = await learner.learn(run("a1"))
    await learner.save()

    assert await fresh.load()
    assert (await fresh.learn([]))["success_rate_n"] == learned["success_rate_n"] == 1


async def test_without_a_bus_or_a_path_there_is_nowhere_to_save(clock: FakeClock) -> None:
    learner = LearnerAgent(clock=clock)

    with pytest.raises(ValueError, match="give the path of a file"):
        await learner.save()
    with pytest.raises(ValueError, match="give the path of a file"):
        await learner.load()


async def test_what_is_not_there_is_not_loaded(clock: FakeClock, tmp_path: Path) -> None:
    assert not await LearnerAgent(clock=clock).load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "change",
    [
        {"v": "1"},
        {"miner": {}},
        {"success_patterns": 5},
        {"failure_patterns": [5]},
        {"feedback": []},
        {"feedback": {"x": 5}},
        {"feedback": {"x": {"verdict": 5}}},
        {"v": 0},
        {"v": True},
        {"success_patterns": [["plan", 5]]},
        {"success_patterns": "plan"},
        {"success_patterns": [["plan"]] * 101},
        {"failure_patterns": [["plan"]] * 61},
        {"feedback": {str(n): {"verdict": "good", "note": ""} for n in range(5_000)}},
        {"feedback": {"x": {"verdict": "good"}}},
        {"feedback": {"x": {"verdict": "good", "note": "", "by": ""}}},
        {"feedback": {"": {"verdict": "good", "note": ""}}},
        {"feedback": {"x": {"verdict": "", "note": ""}}},
        {"feedback": {"x": {"verdict": "good", "note": "y" * 1_001}}},
        {"feedback": {"x" * 1_001: {"verdict": "good", "note": ""}}},
    ],
    ids=lambda change: str(change)[:40],
)
async def test_what_is_damaged_is_refused_and_changes_nothing(
    clock: FakeClock, tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "learned.json"
    learner = LearnerAgent(clock=clock)
    before = await learner.learn(run("a1"))
    await learner.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(ValueError, match=r"not |is empty|at most"):
        await learner.load(path)

    after = await learner.learn([])
    assert after["learned_patterns"] == before["learned_patterns"]


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000], ids=["", "list", "half", "deep"])
async def test_what_is_something_else_is_refused(
    clock: FakeClock, tmp_path: Path, text: str
) -> None:
    (tmp_path / "x").write_text(text)

    with pytest.raises(ValueError, match="not what a learner kept"):
        await LearnerAgent(clock=clock).load(tmp_path / "x")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_damage_is_told_when_it_is_loaded_or_learning_goes_on(
    tmp_path: Path, clock: FakeClock, chance: Random
) -> None:
    async def scenario() -> None:
        path = tmp_path / "learned.json"
        first = LearnerAgent(clock=clock)
        learned = await first.learn([*run("a1"), *run("a2", error="no 17"), *run("a3")[:2]])
        first.feedback("x", "good", "why")
        await first.save(path)
        body = json.loads(path.read_text())
        tampered(body, chance)
        try:
            text = json.dumps(body)
        except (ValueError, RecursionError):
            return  # what JSON cannot hold
        path.write_text(text)

        again = LearnerAgent(clock=clock)
        try:
            await again.load(path)
        except (ValueError, StoreTooNew):
            assert (await again.learn([]))["learned_patterns"]["events"] == 0  # type: ignore[index]
        else:
            assert set(await again.learn(run("a4"))) == set(learned)
            await again.save(path)

    asyncio.run(scenario())


async def test_what_is_no_text_is_refused(clock: FakeClock, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ValueError, match=r"not what a learner kept: .*x is no text"):
        await LearnerAgent(clock=clock).load(tmp_path / "x")


async def test_what_a_newer_version_wrote_is_refused(clock: FakeClock, tmp_path: Path) -> None:
    (tmp_path / "x").write_text('{"v": 2}')

    with pytest.raises(StoreTooNew, match="version 2"):
        await LearnerAgent(clock=clock).load(tmp_path / "x")


async def test_a_file_that_cannot_be_written_leaves_nothing_behind(
    clock: FakeClock, tmp_path: Path
) -> None:
    (tmp_path / "x").mkdir()

    with pytest.raises(OSError):
        await LearnerAgent(clock=clock).save(tmp_path / "x")

    assert names_in(tmp_path) == ["x"]


async def test_feedback_weighs_on_the_ranking_and_is_shown_with_it(clock: FakeClock) -> None:
    learner = LearnerAgent(clock=clock)
    events = [event for n in range(60) for event in run(f"a{n}")]
    for event in events[1::8]:
        event["error"] = "no answer"
    for event in events[2::12]:
        event["is_valid"] = False
    first = await learner.learn(events)
    order = [each["id"] for each in first["optimizations"]]  # type: ignore[attr-defined]

    learner.feedback(order[0], "bad", "tried, no use")
    again = await learner.learn([])

    ranked = again["optimizations"]
    assert isinstance(ranked, list)
    assert len(order) > 1
    assert [each["id"] for each in ranked] != order
    shown = {each["id"]: each["feedback"] for each in ranked}
    assert shown[order[0]] == {"verdict": "bad", "note": "tried, no use"}
    assert again["learned_patterns"]["feedback"] == {order[0]: shown[order[0]]}  # type: ignore[index]


async def test_feedback_on_what_is_no_id_is_told_which_ids_there_are(clock: FakeClock) -> None:
    learner = LearnerAgent(clock=clock)
    events = [event for n in range(60) for event in run(f"a{n}")]
    for event in events[1::8]:
        event["error"] = "no answer"

    for wrong in (5, None, ["x"], ""):
        with pytest.raises(ValueError, match=r"improvement_id is .*; known: none so far"):
            learner.feedback(wrong, "x")  # type: ignore[arg-type]
    learned = await learner.learn(events)

    known = ", ".join(each["id"] for each in learned["optimizations"])  # type: ignore[attr-defined]
    for wrong in (5, ""):
        with pytest.raises(ValueError, match=f"improvement_id is .*; known: {known}"):
            learner.feedback(wrong, "x")  # type: ignore[arg-type]
    for verdict, note in ((5, ""), ("good", 5), (None, ""), ("good", None)):
        with pytest.raises(ValueError, match=r"(verdict|note) is not a text but of type"):
            learner.feedback(known, verdict, note)  # type: ignore[arg-type]


def test_feedback_says_what_it_is_about_in_few_words() -> None:
    learner = LearnerAgent()

    for wrong in (("", "good", ""), ("x", "", ""), ("x", "good", "y" * 1_001)):
        with pytest.raises(ValueError, match=r"is empty|at most"):
            learner.feedback(*wrong)
    for number in range(1_010):
        learner.feedback(str(number), "good")

    assert len(learner._opinions) == 1_000


async def test_with_a_bus_it_tells_that_it_learned(bus: AsyncMessageBus) -> None:
    inbox = await bus.subscribe("agents.learner")

    await LearnerAgent(bus).learn(run("a1"), conversation_id="c")

    event = json.loads((await inbox.get()).content)
    assert (event["type"], event["conversation_id"]) == ("learning", "c")
    assert event["data"]["success_rate_n"] == 1
