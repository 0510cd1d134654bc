import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zejzl.errors import StoreTooNew
from zejzl.learning import batches
from zejzl.learning.cases import LENGTH
from zejzl.learning.findings import find
from zejzl.learning.mining import Miner
from zejzl.learning.outcome import OutcomeRule
from zejzl.learning.patterns import Case, Endings, Patterns

Event = dict[str, object]


def deep_tuple() -> object:
    """Return something of which a hash cannot be taken: the stack is too small."""
    found: object = 1
    for _ in range(1_000_000):
        found = (found,)
    return found


def event(kind: str, case: Case, at: float, **more: object) -> Event:
    return {"type": kind, "conversation_id": case, "timestamp": at, "data": {}, **more}


def run(case: Case, kinds: str, start: float = 0.0, **more: object) -> list[Event]:
    return [event(kind, case, start + at, **more) for at, kind in enumerate(kinds.split())]


def learned(events: Iterable[object], **options: object) -> Patterns:
    miner = Miner(**options)  # type: ignore[arg-type]
    miner.learn(events)
    return miner.patterns()


CASES = st.sampled_from([None, "", "NA", "a", "Ω≠"])
KINDS = st.sampled_from(["observation", "plan", "execution", "validation", "executor"])
EVENTS = st.lists(
    st.builds(
        lambda kind, case, at, agent, task, error, valid, ms, text: {
            "type": kind,
            "conversation_id": case,
            "timestamp": at,
            **({"agent": agent} if agent else {}),
            "data": {
                **({"task_type": task} if task else {}),
                **({"error": error} if error else {}),
                **({"is_valid": valid} if valid is not None else {}),
                **({"duration_ms": ms} if ms else {}),
                "text": text,
            },
        },
        KINDS,
        CASES,
        st.integers(0, 40) | st.floats(0, 40),
        st.sampled_from(["", "", "ann", "bob"]),
        st.sampled_from(["", "", "easy", "hard"]),
        st.sampled_from(["", "", "", "no 17 left", "no 18 left", "boom"]),
        st.sampled_from([None, None, True, False]),
        st.sampled_from([0, 0, 3, 700.5]),
        st.sampled_from(["x", "y"]),
    ),
    max_size=60,
)
BAD: st.SearchStrategy[object] = st.sampled_from(
    [
        None,
        7,
        [],
        {},
        {"type": "plan"},
        {"type": 5, "timestamp": 1, "data": {}},
        {"type": "plan", "timestamp": "soon", "data": {}},
        {"type": "plan", "timestamp": float("nan"), "data": {"x": 1}},
        {"type": "plan", "timestamp": 3, "data": "text"},
        {"type": "plan", "timestamp": 3, "data": {}, "agent": []},
    ]
)


def test_variants_edges_and_outcomes_are_counted() -> None:
    found = learned(
        [
            *run("a", "plan execution executor"),
            *run("b", "plan execution executor", 10.0),
            *run("c", "plan executor", 20.0, error="no"),
        ]
    )

    assert [(path.sequence, path.n) for path in found.variants] == [
        (("plan", "execution", "executor"), 2),
        (("plan", "executor"), 1),
    ]
    assert found.outcomes == Endings(success=2, failure=1)
    assert [(edge.source, edge.target, edge.times.n) for edge in found.edges] == [
        ("execution", "executor", 2),
        ("plan", "execution", 2),
        ("plan", "executor", 1),
    ]
    assert (found.cases, found.open_cases, found.events) == (3, 0, 8)
    assert (found.first, found.last) == (0.0, 21.0)
    assert found.coverage == {1: 2 / 3, 5: 1.0, 10: 1.0, 20: 1.0}


def test_nothing_seen_is_nothing_known() -> None:
    assert learned([]) == Patterns()


def test_an_executor_decides_over_a_validation() -> None:
    found = learned(
        [
            event("validation", "a", 0, is_valid=False),
            event("executor", "a", 1),
            event("validation", "b", 0, valid=True),
            event("executor", "b", 1, status="failed"),
        ]
    )

    assert found.outcomes == Endings(success=1, failure=1)


def test_the_last_validation_decides_where_there_is_no_executor() -> None:
    found = learned(
        [
            event("validation", "a", 0, is_valid=False),
            event("validation", "a", 1, is_valid=True),
            event("validation", "b", 0),
            event("plan", "c", 0, status="failed"),
        ]
    )

    assert found.outcomes == Endings(success=1, unknown=2)
    assert found.open_cases == 3


def test_an_executor_that_is_still_at_work_closes_nothing() -> None:
    found = learned([event("executor", "a", 0, status="running"), event("executor", "a", 1)])

    assert found.outcomes == Endings(success=1)
    assert found.late == 0


def test_events_of_a_closed_case_are_late_and_counted_nowhere_else() -> None:
    done = run("a", "plan executor")

    found = learned([*done, *run("a", "plan plan", 5.0)])

    assert found == replace(learned(done), late=2)


def test_without_a_name_the_next_case_begins_when_one_is_over() -> None:
    runs = [*run(None, "plan executor"), *run(None, "plan executor", 5.0, error="no")]

    found = learned([*runs, *runs, event("plan", None, 9)])

    assert (found.cases, found.late) == (3, 4)
    assert found.outcomes == Endings(success=1, failure=1, unknown=1)


def test_features_are_counted_only_from_before_the_outcome() -> None:
    found = learned(run("a", "plan plan execution validation executor", agent="ann", task_type="t"))

    assert {(feature.kind, feature.name) for feature in found.features} == {
        ("activity", ("plan",)),
        ("activity", ("execution",)),
        ("activity", ("validation",)),
        ("edge", ("plan", "plan")),
        ("edge", ("plan", "execution")),
        ("edge", ("execution", "validation")),
        ("rework", ("plan",)),
        ("agent", ("ann",)),
        ("task_type", ("t",)),
    }


def test_a_feature_says_how_its_cases_ended_by_task_type() -> None:
    found = learned(
        [
            *run("a", "plan executor", task_type="easy"),
            *run("b", "plan executor", task_type="hard", error="no"),
            *run("c", "execution executor", task_type="hard"),
        ]
    )

    (feature,) = [f for f in found.features if f.name == ("plan",)]
    assert feature.outcomes == Endings(success=1, failure=1)
    assert feature.by_task == {
        "easy": (Endings(success=1), Endings(success=1)),
        "hard": (Endings(failure=1), Endings(success=1, failure=1)),
    }
    assert feature.exemplars == ("b",)
    assert found.task_types == {"hard": Endings(1, 1), "easy": Endings(success=1)}


def test_rework_and_loops_are_counted_with_their_cases() -> None:
    found = learned([*run("a", "x y x y x"), *run("b", "x x"), *run("c", "x y")])

    assert [(r.activity, r.cases, r.extra) for r in found.rework] == [("x", 2, 3), ("y", 1, 1)]
    assert [(loop.first, loop.second, loop.n, loop.cases) for loop in found.loops] == [
        ("x", "y", 2, 1),
        ("y", "x", 1, 1),
    ]
    assert found.rework[0].exemplars == ("a", "b")
    assert found.loops[0].exemplars == ("a",)


def test_an_edge_belongs_to_the_agent_of_its_second_event() -> None:
    found = learned(
        [
            event("x", "a", 0, agent="ann"),
            event("y", "a", 10, agent="bob"),
            event("x", "b", 0),
            event("y", "b", 30, agent="cid"),
            event("x", "c", 0),
            event("y", "c", 20),
        ]
    )

    (edge,) = found.edges
    assert (edge.times.n, edge.times.total_s, edge.share_of_time) == (3, 60.0, 1.0)
    assert {agent: times.total_s for agent, times in edge.by_agent.items()} == {
        "bob": 10.0,
        "cid": 30.0,
    }
    assert edge.exemplars == ("b", "c", "a")


def test_an_event_tells_its_own_outcome_and_duration() -> None:
    found = learned(
        [
            event("call", "a", 0, agent="ann", duration_ms=100, status="ok"),
            event("call", "a", 1, agent="ann", duration_ms=300, status="error"),
            event("call", "b", 2, agent="bob"),
        ]
    )

    (call,) = found.activities
    assert (call.n, call.cases, call.outcomes) == (3, 2, Endings(1, 1, 1))
    assert call.times.total_s == pytest.approx(0.4)
    assert call.exemplars == ("a",)
    assert [(w.agent, w.n, w.outcomes, w.times.n) for w in found.workers] == [
        ("ann", 2, Endings(1, 1), 2),
        ("bob", 1, Endings(unknown=1), 0),
    ]


def test_errors_that_differ_in_numbers_are_one_failure() -> None:
    found = learned(
        [
            event("call", "a", 5, agent="ann", error="only 3 of 7 seats"),
            event("call", "b", 2, error="only 1 of 9 seats"),
            event("call", "b", 9, data={"error": {"message": "gone"}}),
        ]
    )

    assert [(f.signature, f.n, f.first, f.last) for f in found.failures] == [
        ("only <n> of <n> seats", 2, 2.0, 5.0),
        ("gone", 1, 9.0, 9.0),
    ]
    assert found.failures[0].activities == {"call": 2}
    assert found.failures[0].agents == {"ann": 1}
    assert found.failures[0].exemplars == ("b", "a")


def test_order_is_time_then_arrival() -> None:
    found = learned([event(kind, "a", at) for kind, at in (("c", 2), ("a", 0), ("d", 2), ("b", 1))])

    assert found.variants[0].sequence == ("a", "b", "c", "d")


def test_case_names_are_distinct_however_odd() -> None:
    names = [None, "", "NA", "None", "null", "Ω", " "]

    found = learned([event("x", name, at) for at, name in enumerate(names)])

    assert found.cases == len(names)


def test_an_equal_event_of_the_same_case_is_a_duplicate() -> None:
    first = event("x", "a", 0, data={"n": 1})

    found = learned(
        [
            first,
            {**first},
            event("x", "a", 0, data={"n": 2}),  # these are others
            event("x", "a", 0, data={"n": 1}, agent="ann"),
            event("x", "a", 1, data={"n": 1}),
            event("x", "b", 0, data={"n": 1}),
        ]
    )

    assert (found.events, found.skipped) == (5, {"duplicate": 1})


def test_where_there_are_ids_they_alone_make_a_duplicate() -> None:
    found = learned(
        [
            event("x", "a", 0, id="1"),
            event("x", "a", 0, id="2"),
            event("y", "a", 5, id="1"),
            event("x", "a", 6, id=7),
            event("x", "a", 7, id=7),
            event("x", "a", 8, data={"id": 7}),
            event("x", "a", 9, data={"id": 7}),
        ]
    )

    assert (found.events, found.skipped) == (5, {"duplicate": 2})


def test_what_is_later_than_now_is_from_the_future() -> None:
    miner = Miner()

    miner.learn([event("x", "a", 10), event("x", "a", 11)], now=10.0)
    miner.learn([event("x", "a", 12)])

    found = miner.patterns()
    assert (found.events, found.skipped) == (2, {"future": 1})


def test_beyond_the_cap_the_oldest_case_is_closed_and_its_events_are_late() -> None:
    found = learned(
        [event("x", str(n), n) for n in range(5)] + [event("x", "0", 9), event("x", "4", 9)],
        open_cases=3,
    )

    assert (found.cases, found.open_cases, found.evicted, found.late) == (5, 3, 2, 1)


def test_a_case_that_grows_without_end_is_closed() -> None:
    found = learned([event("x", "a", n) for n in range(LENGTH + 5)])

    assert (found.events, found.evicted, found.late) == (LENGTH, 1, 5)


def test_variants_beyond_the_cap_are_counted_as_others() -> None:
    found = learned(
        [*run("a", "x executor"), *run("b", "y executor"), *run("c", "x executor")], variants=1
    )

    assert (len(found.variants), found.others, found.cases) == (1, 1, 3)
    assert found.coverage[1] == 2 / 3


def test_an_idle_case_is_closed_by_what_comes_too_late() -> None:
    miner = Miner(idle_timeout=10.0)

    miner.learn([event("x", "a", 0), event("x", "a", 10), event("x", "a", 21)])
    miner.learn([event("x", "a", 22), event("x", "b", 22)])

    found = miner.patterns()
    assert (found.cases, found.late, found.open_cases) == (2, 2, 1)


def test_a_case_is_idle_when_others_went_on_without_it() -> None:
    found = learned([event("x", "a", 0), event("x", "b", 11)], idle_timeout=10.0)

    assert (found.cases, found.open_cases) == (2, 1)


def test_a_finished_log_has_no_open_cases() -> None:
    miner = Miner()
    miner.learn(run("a", "x y"))

    before = miner.patterns()
    miner.finish()
    miner.learn(run("a", "z"))

    assert miner.patterns() == replace(before, open_cases=0, late=1)


def test_a_rule_of_the_user_replaces_the_outcome() -> None:
    events = [
        *run("a", "validation executor refund"),
        *run("b", "validation executor", error="no"),
    ]

    found = learned(events, outcome=OutcomeRule.parse("failure = case contains refund"))

    assert found.outcomes == Endings(success=1, failure=1)
    assert {p.sequence: p.outcomes.failure for p in found.variants} == {
        ("validation", "executor", "refund"): 1,
        ("validation", "executor"): 0,
    }


@pytest.mark.parametrize(
    "options",
    [{"open_cases": 0}, {"variants": 0}, {"idle_timeout": 0}, {"idle_timeout": float("nan")}],
    ids=str,
)
def test_limits_that_cannot_be_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Miner(**options)  # type: ignore[arg-type]


@settings(deadline=None)  # it looks after each portion
@given(EVENTS, st.integers(1, 9))
def test_any_portions_give_the_same(events: list[Event], size: int) -> None:
    miner = Miner()

    for start in range(0, len(events), size):
        miner.learn(events[start : start + size])
        miner.patterns()  # looking changes nothing

    assert miner.patterns() == learned(events)


@given(EVENTS, st.randoms(use_true_random=False))
def test_any_interleaving_of_cases_gives_the_same(events: list[Event], chance: Random) -> None:
    queues: dict[object, list[Event]] = {}
    for one in events:
        queues.setdefault(one["conversation_id"], []).append(one)
    turns = [one["conversation_id"] for one in events]
    chance.shuffle(turns)

    interleaved = [queues[case].pop(0) for case in turns]

    assert learned(interleaved) == learned(events)


@given(EVENTS, st.integers(0, 60))
def test_saved_and_loaded_in_the_middle_it_is_the_same(events: list[Event], cut: int) -> None:
    miner = Miner()

    miner.learn(events[:cut])
    miner = Miner.from_json(json.loads(json.dumps(miner.to_json())))
    miner.learn(events[cut:])

    assert miner.patterns() == learned(events)


@given(EVENTS, st.sets(CASES))
def test_merged_from_shards_it_is_the_same(events: list[Event], here: set[Case]) -> None:
    one, other = Miner(), Miner()
    one.learn(e for e in events if e["conversation_id"] in here)
    other.learn(e for e in events if e["conversation_id"] not in here)
    before = other.patterns()

    one.merge(other)

    assert one.patterns() == learned(events)
    assert other.patterns() == before


@given(EVENTS, st.lists(st.tuples(st.integers(0, 60), BAD), max_size=10))
def test_what_is_no_event_changes_no_figure_of_others(
    events: list[Event], bad: list[tuple[int, object]]
) -> None:
    mixed: list[object] = [*events]
    for place, odd in bad:
        mixed.insert(place, odd)

    found, clean = learned(mixed), learned(events)

    assert sum(found.skipped.values()) == sum(clean.skipped.values()) + len(bad)
    assert replace(found, skipped={}) == replace(clean, skipped={})


@given(EVENTS)
def test_the_figures_fit_together(events: list[Event]) -> None:
    found = learned(events)

    cases = found.outcomes.known + found.outcomes.unknown
    assert cases == found.cases == sum(path.n for path in found.variants)
    assert found.events == sum(a.n for a in found.activities)
    assert found.events == sum(edge.times.n for edge in found.edges) + found.cases
    assert found.events + found.late + sum(found.skipped.values()) == len(events)
    assert sum(edge.share_of_time for edge in found.edges) == pytest.approx(
        1.0 if any(edge.times.total_s for edge in found.edges) else 0.0
    )


@pytest.mark.parametrize("first", [True, 1, 1.0], ids=repr)
def test_a_duplicate_is_one_whatever_came_before_and_after_a_load(first: object) -> None:
    events = [event("plan", "a", 1, valid=valid) for valid in (first, True, 1, 1.0, True)]
    whole, begun = Miner(), Miner()

    whole.learn(events)
    begun.learn(events[:1])
    again = Miner.from_json(begun.to_json())
    again.learn(events[1:])

    assert again.patterns() == whole.patterns()
    assert whole.skipped == {"duplicate": 2}


class Hostile(str):
    """Text that works until something is asked of it."""

    hashed = False

    def __hash__(self) -> int:
        if self.hashed:
            raise OSError("gone")
        self.hashed = True
        return 1

    def __eq__(self, _: object) -> bool:
        raise OSError("gone")

    __len__ = __repr__ = __str__ = __hash__  # type: ignore[assignment]


@pytest.mark.parametrize(
    "odd",
    [
        {Hostile("x"): 1},
        {"data": {Hostile("x"): 1}},
        {"agent": Hostile("x")},
        {"timestamp": Hostile("x")},
        {"conversation_id": deep_tuple()},
        {"type": deep_tuple()},
        {"agent": deep_tuple()},
        {"data": {"x": Hostile("x")}},
        {"data": {"is_valid": deep_tuple(), "x": 1}},
        {"conversation_id": 10**20_000},
        {"id": 10**20_000},
    ],
    ids=lambda odd: "-".join(map(str.__str__, odd)),
)
@pytest.mark.parametrize("vectors", [True, False])
def test_events_that_raise_are_counted_and_the_others_learned(
    odd: dict[str, object], vectors: bool
) -> None:
    good = [each for n in range(600) for each in run(f"c{n}", "plan executor", n, agent="ann")]
    miner = Miner(vectors=vectors)

    miner.learn([*good[:700], {**event("plan", "x", 0), **odd}, *good[700:]])

    assert sum(miner.skipped.values()) == 1
    assert replace(miner.patterns(), skipped={}) == learned(good)


def test_where_numpy_is_missing_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [e for n in range(900) for e in run(str(n), "plan validation executor", 9.0 * n)]
    expected = learned(events, vectors=False)
    monkeypatch.setitem(sys.modules, "numpy", None)
    batches.is_there.cache_clear()

    found = learned(events, vectors=True)

    batches.is_there.cache_clear()
    assert found == expected


def test_a_case_open_in_two_miners_becomes_one() -> None:
    one, other = Miner(), Miner()
    one.learn([event("x", "a", 0), event("z", "a", 2)])
    other.learn([event("y", "a", 1, task_type="t", id="1")])

    one.merge(other)
    one.learn([event("y", "a", 1, id="1")])

    found = one.patterns()
    assert [path.sequence for path in found.variants] == [("x", "y", "z")]
    assert found.skipped == {"duplicate": 1}
    assert found.task_types == {"t": Endings(unknown=1)}


def test_miners_with_different_rules_are_not_merged() -> None:
    with pytest.raises(ValueError, match="different outcome rules"):
        Miner().merge(Miner(outcome=OutcomeRule.parse("success = x = 1")))


def test_rules_and_limits_are_kept() -> None:
    rule = OutcomeRule.parse("success = reward >= 1")
    miner = Miner(outcome=rule, open_cases=2, variants=3, idle_timeout=4.5)

    again = Miner.from_json(miner.to_json())

    assert (again.outcome, again.limit, again.tally.most, again.idle_timeout) == (rule, 2, 3, 4.5)


def test_what_a_newer_version_wrote_is_refused() -> None:
    with pytest.raises(StoreTooNew, match="version 2"):
        Miner.from_json({**Miner().to_json(), "v": 2})


@pytest.mark.parametrize("body", [None, [], {}, {"v": "1"}], ids=repr)
def test_what_is_something_else_is_refused(body: object) -> None:
    with pytest.raises(ValueError, match="not what a miner wrote"):
        Miner.from_json(body)


@pytest.mark.parametrize("body", [{"v": 0}, {"v": -1}, {"v": True}, {"v": 1.0}], ids=repr)
def test_a_version_that_cannot_be_is_something_else(body: object) -> None:
    with pytest.raises(ValueError, match="not what a miner wrote"):
        Miner.from_json(body)


def deep() -> object:
    found: object = 1
    for _ in range(100_000):
        found = [found]
    return found


HOSTILE = [
    *(None, True, False, 0, 1, -1, 2, 7, 10**9, 10**13, 10**19, -(10**19), 10**400, 10**5_000),
    *(0.0, 1.5, -2.5, float("inf"), float("-inf"), float("nan"), "", "x", "plan", "\ud800"),
    *([], [[]], [0], [1, 0, 1], ["x"], {}, {"x": -1}, {"plan": 1}, deep()),
]


def tampered(body: object, chance: Random) -> None:
    """Change one thing in a body: a leaf, or a part, or that it is there, or there once."""
    place = body
    while isinstance(place, dict | list) and place:
        inside = place
        key = chance.choice([*inside] if isinstance(inside, dict) else range(len(inside)))
        place = inside[key]
        if chance.random() < 0.15:
            break
    match chance.randrange(4), inside:
        case 0, _:
            del inside[key]
        case 1, list():
            inside.append(inside[key])
        case _:
            inside[key] = chance.choice(HOSTILE)


@settings(max_examples=300, deadline=None)
@given(EVENTS, EVENTS, st.randoms(use_true_random=False), st.integers(1, 3))
def test_damage_is_told_when_it_is_loaded_or_it_is_none(
    events: list[Event], more: list[Event], chance: Random, times: int
) -> None:
    first = Miner()
    first.learn(events)
    body = json.loads(json.dumps(first.to_json()))
    for _ in range(times):
        tampered(body, chance)

    try:
        miner = Miner.from_json(body)
    except StoreTooNew:
        assert body["v"] > 1
    except ValueError as refusal:
        assert "damaged" in str(refusal) or "not what a miner wrote" in str(refusal)
    else:
        find(miner.patterns(), first.patterns())
        first.merge(miner)
        find(first.patterns(), miner.patterns())
        miner.learn(more)
        miner.merge(first)
        find(miner.patterns())
        miner.finish()
        find(miner.patterns())
        assert Miner.from_json(json.loads(json.dumps(miner.to_json()))).patterns()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *product(["idle_timeout"], [float("inf"), float("nan"), 0, -1, True, "x", []]),
        *product(["open_cases"], [0, -1, 1.5, True, 10**400]),
        ("counts", {"late": -1, "evicted": 0}),
        ("window", [0, 10**18, 0]),
        ("window", [5, 4, 0]),
        ("closed", [[], [], []]),
        ("open", [["a", [0, -1, 0], None, None, 0]]),
        ("open", [["a", [0, 10**30, 0], None, None, 0]]),
        ("open", [["a", [0, 0, 0], None, None, 0]] * 2),
        ("open", [["a", [5, 0, 0, 4, 0, 0], None, None, 0]]),
        ("open", [["a", [0, 0], None, None, 0]]),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_when_it_is_loaded(name: str, value: object) -> None:
    miner = Miner()
    miner.learn(run("a", "plan execution"))

    with pytest.raises(ValueError, match=r"damaged: ."):
        Miner.from_json({**miner.to_json(), name: value})
