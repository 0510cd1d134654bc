"""Open cases counted from report to report: the same figures as counted all at once."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.learning import standing
from zejzl.learning.exemplars import Kept, keep
from zejzl.learning.mining import Miner
from zejzl.learning.standing import Least

Event = dict[str, object]

EVENTS = st.builds(
    lambda kind, case, at, more: {
        "type": kind,
        "conversation_id": f"case {case}",
        "timestamp": at,
        "data": {},
        **more,
    },
    st.sampled_from(["plan", "plan", "plan", "execution", "execution", "executor"]),
    st.integers(0, 25),
    st.integers(0, 20),
    st.sampled_from([{}, {}, {"agent": "ann"}, {"task_type": "t"}, {"status": "failed"}]),
)
PORTIONS = st.lists(st.lists(EVENTS, max_size=25), min_size=2, max_size=8)


@pytest.fixture(autouse=True, scope="module")
def _short_reserve() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standing, "RESERVE", 4)
        yield


@given(PORTIONS, st.sampled_from([20_000, 8]))
def test_a_report_does_not_depend_on_the_reports_before(
    portions: list[list[Event]], open_cases: int
) -> None:
    looked, blind = Miner(open_cases=open_cases), Miner(open_cases=open_cases)

    for portion in portions:
        looked.learn(portion)
        blind.learn(portion)
        looked.patterns()

    assert looked.patterns() == blind.patterns()
    looked.finish()
    blind.finish()
    assert looked.patterns() == blind.patterns()


@pytest.mark.parametrize("seed", range(20))
def test_exemplars_are_found_again_when_those_known_are_closed(seed: int) -> None:
    chance, looked, blind = Random(seed), Miner(), Miner()
    kinds = ["plan", "plan", "execution", "execution", "validation", "executor"]

    for _ in range(8):
        portion = [
            {
                "type": chance.choice(kinds),
                "conversation_id": f"case {chance.randrange(50)}",
                "timestamp": chance.randrange(20),
                "data": {},
            }
            for _ in range(25)
        ]
        looked.learn(portion)
        blind.learn(portion)
        found = looked.patterns()

        assert found == Miner.from_json(blind.to_json()).patterns()


@given(PORTIONS)
def test_miners_merge_after_a_report_as_before_one(portions: list[list[Event]]) -> None:
    found = []
    for looks in (True, False):
        one, other = Miner(), Miner()
        one.learn(event for portion in portions[::2] for event in portion)
        other.learn(event for portion in portions[1::2] for event in portion)
        if looks:
            one.patterns()
            other.patterns()
        one.merge(other)
        found.append(one.patterns())

    assert found[0] == found[1]


def test_a_report_counts_again_only_the_cases_that_changed() -> None:
    miner = Miner()
    miner.learn(
        {"type": "x", "conversation_id": f"case {n}", "timestamp": n, "data": {}} for n in range(9)
    )
    miner.patterns()
    held = {case: (one.group, one.counted) for case, one in miner.open.items()}

    miner.learn([{"type": "y", "conversation_id": "case 3", "timestamp": 99, "data": {}}])

    assert [one.case for one in miner.standing.changed] == ["case 3"]
    miner.patterns()
    assert not miner.standing.changed
    assert {c for c, one in miner.open.items() if (one.group, one.counted) != held[c]} == {"case 3"}


def test_what_is_closed_is_no_longer_held_as_open() -> None:
    miner = Miner()
    miner.learn(
        {"type": "x", "conversation_id": str(n), "timestamp": n, "data": {}} for n in range(9)
    )
    miner.patterns()

    miner.learn(
        {"type": "executor", "conversation_id": str(n), "timestamp": 99, "data": {}}
        for n in range(9)
    )
    miner.patterns()

    assert all(not group.n for group in miner.standing.groups.values())
    assert all(not link.took.counts for link in miner.standing.links.values())
    assert not miner.standing.changed


ENTRIES = st.lists(st.tuples(st.integers(0, 6), st.sampled_from([None, *"abcdefgh"])), max_size=30)


@given(ENTRIES, st.lists(st.sampled_from([None, *"abcdefgh"])))
def test_the_least_are_told_or_it_is_said_that_they_cannot_be(
    entries: list[tuple[int, str | None]], gone: list[str | None]
) -> None:
    least = Least()
    for figure, case in entries:
        least.add(figure, case)
    for figure, case in entries:
        if case in gone:
            least.remove(figure, case)

    left = [(figure, case) for figure, case in entries if case not in gone]
    expected: Kept = []
    for figure, case in left:
        keep(expected, figure, case)
    assert least.first() in (expected, None)
    assert Least(left).first() == expected
    assert least.first() == expected or len(entries) > standing.RESERVE
