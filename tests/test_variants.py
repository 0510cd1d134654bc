import pytest

from zejzl.learning import variants
from zejzl.learning.eventlog import OTHERS, Token
from zejzl.learning.variants import Tally


def tallied(*cases: str, most: int = 100) -> Tally:
    tally = Tally(None, most)
    tokens = {name: Token(name, None, 0, 0) for name in "".join(cases)}
    for number, case in enumerate(cases):
        tally.add(str(number), None, list(range(len(case))), [tokens[name] for name in case])
    tally.settle()
    return tally


def test_settled_in_between_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = ("abc", "ab", "abc", "aba", "ab", "abab")
    expected = tallied(*cases)

    for limit in ("PROFILES", "TOUCHED"):
        monkeypatch.setattr(variants, limit, 2)
        found = tallied(*cases)

        assert {key: way.ends for key, way in found.ways.items()} == {
            key: way.ends for key, way in expected.ways.items()
        }
        assert found.cases == expected.cases == {"a": 6, "b": 6, "c": 2}
        loops = {key: again.n for key, again in found.loops.items()}
        assert loops == {("a", "b"): 2, ("b", "a"): 1}


def test_merged_beyond_the_cap_variants_are_others() -> None:
    tally = tallied("a", "b", most=2)

    tally.merge(tallied("a", "c", "c"))

    assert {key: way.ends[0] for key, way in tally.ways.items()} == {("a",): 2, ("b",): 1}
    assert tally.others == 2
    assert sum(tally.tasks[None]) == 5


def test_long_variants_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "STEPS", 5)

    tally = tallied("aaaa", "b", "cc", "aaaa")

    assert set(tally.ways) == {tuple("aaaa"), ("b",)}
    assert tally.others == 1


def test_edges_loops_and_features_beyond_the_room_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "ROOM", 3)

    tally = tallied("abcdefg", "axa", "byb", "czc", "dwd", "eve")

    assert len(tally.links) == 4
    assert tally.links[OTHERS, OTHERS, None].took.times().n == 13
    assert len(tally.loops) == 4
    assert tally.loops[OTHERS, OTHERS].n == 2
    assert len(tally.traits) <= 3 + len(("activity", "edge", "rework"))
