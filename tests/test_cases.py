import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.learning.cases import REMEMBERED, Closed, OpenCase
from zejzl.learning.eventlog import Token

TOKENS = [Token("a", None, 0, 0), Token("b", None, 0, 0)]


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(TOKENS), st.integers(0, 2))))
def test_events_are_in_the_order_of_time_and_arrival_each_once(
    seen: list[tuple[int, Token, int]],
) -> None:
    case = OpenCase("a")

    added = [case.add(at, token, mark) for at, token, mark in seen]

    first_times = [event not in seen[:place] for place, event in enumerate(seen)]
    assert added == first_times
    expected = sorted(dict.fromkeys(seen), key=lambda event: event[0])
    assert list(zip(case.times(), case.tokens(), strict=True)) == [e[:2] for e in expected]


def test_the_task_type_is_that_of_the_earliest_event_that_names_one() -> None:
    case = OpenCase("a")

    case.name_task(5, "late")
    case.name_task(3, "early")
    case.name_task(3, "as early")

    assert case.task == "early"


def test_the_cases_closed_last_are_remembered_and_no_more_than_twice_as_many() -> None:
    closed = Closed()

    for number in range(5 * REMEMBERED):
        closed.add(str(number))

    assert str(4 * REMEMBERED) in closed
    assert "0" not in closed
    assert len(closed.newer) + len(closed.older) <= 2 * REMEMBERED


@pytest.mark.parametrize("size", [1, 1_000, REMEMBERED + 1])
def test_cases_closed_together_are_remembered_as_one_by_one(size: int) -> None:
    names: list[str | None] = [str(number) for number in range(3 * REMEMBERED)]
    together, singly = Closed(), Closed()

    for start in range(0, len(names), size):
        together.add_all(names[start : start + size])
    for name in names:
        singly.add(name)

    assert (together.newer, together.older) == (singly.newer, singly.older)
