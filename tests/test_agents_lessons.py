import json

import pytest

from zejzl.agents.lessons import MOST, lessons, newly, rated, sequences
from zejzl.learning.mining import Miner
from zejzl.learning.patterns import Endings, Path, Patterns


def mined(*cases: str, apart: float = 1.0) -> Patterns:
    miner = Miner()
    for number, kinds in enumerate(cases):
        for step, kind in enumerate(kinds.split()):
            miner.learn(
                [
                    {
                        "type": kind,
                        "conversation_id": str(number),
                        "timestamp": number + step * apart,
                        "agent": "ann",
                        "data": {},
                    }
                ]
            )
    return miner.patterns()


def test_patterns_are_told_with_shares_intervals_and_examples() -> None:
    told = lessons(mined("plan executor", "plan executor", "plan plan"))

    assert json.loads(json.dumps(told)) == told
    assert told["success"] == rated(Endings(success=2, unknown=1))
    first = told["variants"][0]  # type: ignore[index]
    assert first["sequence"] == ["plan", "executor"]
    assert (first["n"], first["share"], first["exemplar_ids"]) == (2, 2 / 3, ["0", "1"])
    assert told["rework"][0]["share"] == 1 / 3  # type: ignore[index]
    assert told["edges"][0]["total_s"] == 2.0  # type: ignore[index]
    assert told["agents"][0]["agent"] == "ann"  # type: ignore[index]
    assert told["agents"][0]["p50_s"] is None  # type: ignore[index]


def test_what_nobody_knows_is_null_and_not_zero() -> None:
    told = lessons(Patterns())

    assert told["success"] == {
        "success": 0,
        "failure": 0,
        "unknown": 0,
        "success_rate": None,
        "success_rate_n": 0,
        "ci95": None,
    }
    assert told["times"]["p50_s"] is None  # type: ignore[index]


def test_a_scheduled_wait_is_marked() -> None:
    told = lessons(mined(*["plan executor"] * 100, apart=3600.0))

    assert told["edges"][0]["timer"] is True  # type: ignore[index]


def test_only_the_most_frequent_are_told_and_all_are_counted() -> None:
    told = lessons(mined(*(f"plan step{number} executor" for number in range(MOST + 5))))

    assert (len(told["variants"]), told["variants_n"]) == (MOST, MOST + 5)  # type: ignore[arg-type]


def test_paths_that_ended_since_are_told_the_latest_last() -> None:
    paths = (
        Path(sequence=("a",), n=3, outcomes=Endings(2, 1), last=9.0),
        Path(sequence=("b",), n=2, outcomes=Endings(2), last=5.0),
        Path(sequence=("c",), n=2, outcomes=Endings(1, 1), last=7.0),
    )

    well, badly = newly(Patterns(variants=paths), {("c",): Endings(1), ("b",): Endings(1)})

    assert well == [("b",), ("a",)]
    assert badly == [("c",), ("a",)]


def test_paths_are_read_back() -> None:
    assert sequences([["a", "b"], []], 2) == [("a", "b"), ()]
    for wrong in (None, 5, [5], "ab", [["a", 5]], [["a"]] * 3):
        with pytest.raises(ValueError, match=r"not a? ?path"):
            sequences(wrong, 2)
