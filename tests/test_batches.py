"""With numpy and without: the same patterns. Skipped where numpy is not installed."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zejzl.learning import batches, columns
from zejzl.learning.mining import Miner
from zejzl.learning.patterns import Patterns

pytest.importorskip("numpy")

Event = dict[str, object]
KINDS = ("observation", "plan", "execution", "validation", "executor")


@pytest.fixture(autouse=True)
def _small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PORTION", 64)
    monkeypatch.setattr(columns, "BLOCK", 25)
    monkeypatch.setattr(batches, "LEAST", 1)


def learned(events: list[Event], *, vectors: bool, **more: object) -> Patterns:
    miner = Miner(vectors=vectors)
    for start in range(0, len(events), 150):
        miner.learn(events[start : start + 150], **more)  # type: ignore[arg-type]
    found = miner.patterns()
    miner.finish()
    assert miner.patterns() == replace(found, open_cases=0)
    return found


def log(chance: Random, size: int, *, odd: float) -> list[Event]:
    """Return interleaved runs; some events in a hundred are odd in one of many ways."""
    events: list[Event] = []
    under_way: list[list[object]] = []
    at = 1_700_000_000.0
    for number in range(size):
        if len(under_way) < 6:
            under_way.append([f"case {number}", 0])
        run = chance.choice(under_way)
        case, step = run
        assert isinstance(step, int)
        at += chance.choice([0.001, 0.5, 0.5, 3.0])
        event: Event = {
            "type": KINDS[step],
            "conversation_id": case,
            "timestamp": at,
            "agent": f"{KINDS[step]}er",
            "data": [
                {"text": "look"},
                {"steps": step},
                {"tool": chance.choice(["a", "b"])},
                {"is_valid": chance.random() < 0.8},
                {"status": chance.choice(["completed", "failed"])},
            ][step],
        }
        if chance.random() < odd:
            event = chance.choice(ODD)(event)
        events.append(event)
        run[1] = step + (chance.random() < 0.8)
        if run[1] == len(KINDS):
            under_way.remove(run)
            if chance.random() < odd:
                events.append({**event, "timestamp": at + 1, "type": "late"})
    return events


ODD: list[Callable[[Event], Event]] = [
    lambda event: {**event, "timestamp": 5},
    lambda event: {**event, "timestamp": int(str(event["timestamp"]).partition(".")[0])},
    lambda event: {**event, "timestamp": "2023-11-14T22:13:20Z"},
    lambda event: {**event, "timestamp": 10**400},
    lambda event: {**event, "timestamp": float("nan")},
    lambda event: {**event, "timestamp": 2e10},
    lambda event: {**event, "error": "no 17"},
    lambda event: {**event, "duration_ms": 12.5},
    lambda event: {**event, "task_type": "t"},
    lambda event: {**event, "id": 5},
    lambda event: {**event, "extra": [1]},
    lambda event: {**event, "extra": 10**5000},
    lambda event: {**event, "extra": "x" * 1_000_001},
    lambda event: {**event, "extra": 5},
    lambda event: {**event, "agent": None},
    lambda event: {**event, "agent": []},
    lambda event: {**event, "type": ["x"]},
    lambda event: {**event, "type": 5},
    lambda event: {**event, "conversation_id": None},
    lambda event: {**event, "conversation_id": 5},
    lambda event: {**event, "conversation_id": "x" * 501},
    lambda event: {**event, "data": None},
    lambda event: {**event, "data": {}},
    lambda event: {**event, "data": {"is_valid": 5}},
    lambda event: {**event, "type": "executor"},
    lambda event: {"type": "x"},
    lambda event: {},
]


@settings(deadline=None)  # the first portion sets numpy up
@given(st.randoms(use_true_random=False), st.integers(0, 200), st.sampled_from([0.0, 0.02, 0.3]))
def test_with_and_without_numpy_the_patterns_are_the_same(
    chance: Random, size: int, odd: float
) -> None:
    events = log(chance, size, odd=odd)

    assert learned(events, vectors=True) == learned(events, vectors=False)


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_each_odd_event_is_learned_as_without_numpy(odd: Callable[[Event], Event]) -> None:
    events = log(Random(1), 300, odd=0.0)
    for place in (20, 21, 150):
        events[place] = odd(events[place])

    assert learned(events, vectors=True) == learned(events, vectors=False)


def test_what_is_no_event_at_all_is_counted_as_without_numpy() -> None:
    events = log(Random(2), 300, odd=0.0)
    events[50:50] = [None, "x", {}]  # type: ignore[list-item]

    found = learned(events, vectors=True)

    assert found == learned(events, vectors=False)
    assert sum(found.skipped.values()) == 3


def test_what_is_from_the_future_is_skipped_as_without_numpy() -> None:
    events = log(Random(3), 300, odd=0.0)
    now = events[200]["timestamp"]

    found = learned(events, vectors=True, now=now)

    assert found == learned(events, vectors=False, now=now)
    assert found.skipped["future"] > 0


def test_events_in_no_order_of_time_are_learned_as_without_numpy() -> None:
    events = log(Random(4), 400, odd=0.0)
    Random(5).shuffle(events)

    assert learned(events, vectors=True) == learned(events, vectors=False)


def test_most_of_a_plain_log_is_not_handed_back() -> None:
    events: list[object] = [*log(Random(6), 300, odd=0.0)]

    left = batches.learn(Miner(), events, None)

    assert 0 < len(left) < 100


def test_near_a_limit_all_is_handed_back() -> None:
    events: list[object] = [*log(Random(7), 50, odd=0.0)]

    assert batches.learn(Miner(open_cases=3), events, None) is events


def test_few_events_are_handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LEAST", 51)
    events: list[object] = [*log(Random(7), 50, odd=0.0)]

    assert batches.learn(Miner(), events, None) is events


def test_events_of_ever_new_kinds_are_handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "KINDS", 20)
    events = log(Random(8), 300, odd=0.0)
    for number, event in enumerate(events):
        event["type"] = f"kind {number}"

    assert batches.learn(Miner(), [*events], None) == events
    assert learned(events, vectors=True) == learned(events, vectors=False)
