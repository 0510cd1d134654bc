"""A window remembers the newest, in order, and nothing else."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.policies.window import OUTCOMES, SAMPLES, Latencies, Outcomes

SECONDS = st.floats(0, 1e6)


@given(st.lists(st.booleans(), max_size=200))
def test_outcomes_equal_a_recount_of_the_last_64(outcomes: list[bool]) -> None:
    window = Outcomes()
    for done, failed in enumerate(outcomes, 1):
        window.push(failed)

        last = outcomes[:done][-64:]
        assert (window.calls, window.failures) == (len(last), sum(last))


def test_the_newest_outcome_is_bit_zero() -> None:
    window = Outcomes()

    for failed in (True, False, False):
        window.push(failed)

    assert window == Outcomes(bits=0b100, calls=3)


@given(st.lists(st.booleans(), max_size=100))
def test_outcomes_kept_are_outcomes_restored(outcomes: list[bool]) -> None:
    window = Outcomes()
    for failed in outcomes:
        window.push(failed)

    assert Outcomes.of([window.bits, window.calls]) == window


@pytest.mark.parametrize(
    "kept",
    [None, [], [1], [0, 1, 2], [-1, 5], [1, -1], [2, 1], [0, 65], [1.0, 1], [True, 1], (0, 0)],
    ids=repr,
)
def test_a_window_that_cannot_be_is_told(kept: object) -> None:
    with pytest.raises(ValueError, match=r"not a (window|count)"):
        Outcomes.of(kept)


def test_a_full_window_of_failures_can_be_restored() -> None:
    kept = [2**64 - 1, 64]

    window = Outcomes.of(kept)

    assert (window.failures, window.calls) == (64, OUTCOMES)


@given(st.lists(SECONDS, min_size=20, max_size=600), st.integers(0, 100))
def test_a_quantile_is_that_of_the_last_256_answers(answers: list[float], percent: int) -> None:
    latencies = Latencies()
    for seconds in answers:
        latencies.push(seconds)

    found = latencies.quantile(percent / 100)

    last = sorted(answers[-SAMPLES:])
    rank = max(1, ceil(percent / 100 * len(last)))
    assert found == last[rank - 1]


def test_it_remembers_256_answers_and_forgets_the_oldest_first() -> None:
    latencies = Latencies()
    for seconds in [9.0, *range(256)]:
        latencies.push(seconds)

    assert list(latencies.recent) == list(range(256))
    assert latencies.ordered == list(range(256))


@given(st.lists(SECONDS, min_size=20, max_size=300), st.floats(0.01, 1.0))
def test_a_quantile_is_the_smallest_with_its_share_at_or_below(
    answers: list[float], share: float
) -> None:
    latencies = Latencies()
    for seconds in answers:
        latencies.push(seconds)
    last = answers[-SAMPLES:]

    found = latencies.quantile(share)

    assert found is not None
    assert sum(seconds <= found for seconds in last) >= share * len(last)
    assert sum(seconds < found for seconds in last) < share * len(last)


@pytest.mark.parametrize(("answers", "known"), [(0, False), (19, False), (20, True)])
def test_below_twenty_answers_nothing_is_known(answers: int, known: bool) -> None:
    latencies = Latencies()
    for seconds in range(answers):
        latencies.push(float(seconds))

    assert (latencies.quantile(0.5) is not None) is known
