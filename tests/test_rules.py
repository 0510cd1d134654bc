"""Rules: each says yes to what it describes, no to the rest, and where."""

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.agents.plans import Plan, PlanRefused
from zejzl.agents.regexes import check_pattern, matches
from zejzl.agents.rules import Expectation, breaches, shown
from zejzl.agents.schemas import check_schema, larger, schema_problems, type_of


def told(expected: Expectation, value: object) -> list[tuple[str, str]]:
    return [(breach.where, breach.problem) for breach in breaches("s1", expected, value)]


TYPES = {
    "text": "x",
    "number": 1.5,
    "integer": 1,
    "boolean": True,
    "list": [],
    "object": {},
    "null": None,
}


@pytest.mark.parametrize("name", TYPES)
def test_a_type_is_that_type_and_no_other(name: str) -> None:
    rule = Expectation(rule="type", type=name)  # type: ignore[arg-type]

    well = {other for other, value in TYPES.items() if not told(rule, value)}

    assert well == ({"number", "integer"} if name == "number" else {name})


def test_a_range_holds_for_numbers_and_for_lengths() -> None:
    rule = Expectation(rule="range", at_least=2, at_most=3)

    assert told(rule, 2) == told(rule, 3.0) == told(rule, "abc") == told(rule, [1, 2]) == []
    assert told(rule, 1) == [("", "it is 1, less than 2")]
    assert told(rule, "abcd") == [("", "its length is 4, more than 3")]
    assert told(rule, None) == [("", "it is null, which has no size")]
    assert told(rule, True) == [("", "it is boolean, which has no size")]
    assert told(rule, float("nan")) == [("", "it is number, which has no size")]


def test_a_rule_says_where_it_does_not_hold() -> None:
    rule = Expectation(rule="range", at="files.*.tokens", at_least=1)
    value = {"files": [{"tokens": 3}, {"tokens": 0}, {"tokens": -1}]}

    found = breaches("s7", rule, value)

    assert [each.where for each in found] == ["files.1.tokens", "files.2.tokens"]
    assert str(found[0]) == (
        "s7: rule 'range' does not hold at files.1.tokens: it is 0, less than 1"
    )


def test_a_place_that_is_not_there_is_a_breach() -> None:
    rule = Expectation(rule="type", at="a.0.b", type="text")

    assert told(rule, {"a": []}) == [("a.0.b", "a has no element '0'")]
    assert told(rule, {}) == [("a.0.b", "the result has no 'a'")]
    assert told(rule, {"a": ["x"]}) == [("a.0.b", "a.0 is text, it has no 'b'")]


def test_one_of_compares_as_json_does() -> None:
    rule = Expectation(rule="one_of", one_of=(1, "a", None))

    assert told(rule, 1) == told(rule, "a") == told(rule, None) == []
    assert told(rule, True) == [("", 'true is none of "a", 1, null')]
    assert told(rule, [1]) == [("", '[1] is none of "a", 1, null')]


def test_a_pattern_is_matched_by_the_whole_text() -> None:
    rule = Expectation(rule="pattern", pattern="[a-z]{2,3}")

    assert told(rule, "abc") == []
    assert told(rule, "abcd") == [("", "\"abcd\" is not of the pattern '[a-z]{2,3}'")]
    assert told(rule, 5) == [("", "it is integer, not text")]


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|aa)*",
        "(a?){50}a{50}",
        r"(\w+\s?)*",
        "(?=a)a",
        r"(a)\1",
        "(?>a)",
        "a" * 300,
        "[[a]",
        "(",
    ],
)
def test_a_pattern_whose_cost_cannot_be_told_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        check_pattern(pattern)
    with pytest.raises(ValueError, match="pattern"):
        Expectation(rule="pattern", pattern=pattern)


def test_a_pattern_that_is_too_dear_for_a_text_is_not_matched_and_that_is_a_breach() -> None:
    rule = Expectation(rule="pattern", pattern=".*a.*b.*c.*d")

    assert told(rule, "xaxbxcxd") == []
    [(_, problem)] = told(rule, "x" * 5_000)
    assert "could take" in problem


@given(st.text(st.sampled_from("ab*+?{}2,()|[]^$.-&~"), max_size=12), st.text("ab", max_size=300))
def test_no_pattern_takes_long(pattern: str, text: str) -> None:
    started = time.process_time()

    with suppress(ValueError):
        matches(pattern, text)

    assert time.process_time() - started < 5.0


SCHEMA = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 3, "pattern": "[a-z]*"},
        "sizes": {"type": "array", "maxItems": 2, "items": {"type": "number", "minimum": 0}},
        "kind": {"enum": ["a", 1]},
    },
}


def test_a_schema_tells_each_way_in_which_a_value_is_not_of_it() -> None:
    check_schema(SCHEMA)

    assert schema_problems(SCHEMA, {"name": "abc", "sizes": [1, 2.5], "kind": 1}) == []
    assert schema_problems(SCHEMA, []) == [("", "it is list, not object")]
    assert schema_problems(SCHEMA, {"x": 1}) == [
        ("", "it has no 'name'"),
        ("x", "nothing of that name may be there"),
    ]
    assert schema_problems(SCHEMA, {"name": "ABCD", "sizes": [-1, "x", 3], "kind": True}) == [
        ("name", "maxLength is 3, and it has 4"),
        ("name", "it is not of the pattern '[a-z]*'"),
        ("sizes", "maxItems is 2, and it has 3"),
        ("sizes.0", "minimum is 0, and it has -1"),
        ("sizes.1", "it is text, not number"),
        ("kind", "it is none of the values of the enum"),
    ]


def test_a_schema_tells_only_so_many_problems() -> None:
    schema = {"items": {"type": "string"}}

    assert len(schema_problems(schema, [1] * 1_000)) == 21


def test_a_pattern_of_a_schema_that_is_too_dear_is_a_problem() -> None:
    [(_, problem)] = schema_problems({"pattern": ".*a.*b.*c.*d"}, "x" * 5_000)

    assert "could take" in problem


def test_a_schema_as_a_rule_says_where() -> None:
    rule = Expectation(rule="schema", at="a", schema={"items": {"type": "string"}})

    assert told(rule, {"a": ["x", 1]}) == [("a.1", "it is integer, not text")]


BAD_SCHEMAS: dict[str, object] = {
    "no object": [],
    "an unknown keyword": {"$ref": "#/x"},
    "an unknown type": {"type": "date"},
    "a bound that is no number": {"minimum": "1"},
    "an enum that is no list": {"enum": 1},
    "required that is no list": {"required": "name"},
    "required that holds no names": {"required": [1]},
    "properties that are no object": {"properties": []},
    "more properties as a schema": {"additionalProperties": {}},
    "a bad schema inside": {"items": {"type": "date"}},
    "a costly pattern": {"pattern": "(a*)*"},
    "a pattern that is no text": {"pattern": 1},
}


@pytest.mark.parametrize("schema", BAD_SCHEMAS.values(), ids=BAD_SCHEMAS)
def test_a_schema_that_could_not_be_checked_wholly_is_refused(schema: object) -> None:
    with pytest.raises(ValueError, match=r"schema|pattern"):
        check_schema(schema)


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, object] = {}
    for _ in range(100):
        schema = {"items": schema}

    with pytest.raises(ValueError, match="nested deeper"):
        Expectation(rule="schema", schema=schema)


def test_what_json_has_no_word_for_is_called_by_its_type() -> None:
    assert type_of(b"x") == "bytes"


@pytest.mark.parametrize("rule", ["type", "range", "pattern", "one_of", "schema", "invariant"])
def test_a_rule_that_lacks_what_it_needs_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match=f"rule '{rule}' needs"):
        Expectation(rule=rule)  # type: ignore[arg-type]


# What cannot be weighed ------------------------------------------------------------------------

HUGE = 2**4000


def deep(levels: int) -> object:
    value: object = "x"
    for _ in range(levels):
        value = [value]
    return value


def test_a_whole_number_of_any_size_is_compared() -> None:
    rule = Expectation(rule="range", at_least=1, at_most=10)
    schema = {"minimum": 1, "maximum": 10}

    assert told(Expectation(rule="range", at_least=1), HUGE) == []
    assert told(rule, HUGE) == [("", "it is a whole number of 4001 bits, more than 10")]
    assert told(rule, -HUGE) == [("", "it is a whole number of 4001 bits, less than 1")]
    assert schema_problems(schema, HUGE) == [
        ("", "maximum is 10, and it has a whole number of 4001 bits")
    ]
    assert schema_problems({"maximum": HUGE}, HUGE + 1) == [
        ("", "maximum is a whole number of 4001 bits, and it has a whole number of 4001 bits")
    ]


@pytest.mark.parametrize("bound", ["nan", "inf", float("nan"), float("-inf")])
@pytest.mark.parametrize("side", ["at_least", "at_most"])
def test_a_bound_is_a_finite_number(side: str, bound: object) -> None:
    with pytest.raises(PlanRefused, match=f"{side} must be a finite number"):
        Plan.of([{"id": "a", "tool": "x", "expected": [{"rule": "range", side: bound}]}])


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "one_of", "one_of": [float("inf")]},
        {"rule": "one_of", "one_of": [10**5000]},
        {"rule": "schema", "schema": {"minimum": float("nan")}},
        {"rule": "schema", "schema": {"enum": [float("inf")]}},
        {"rule": "schema", "schema": {"enum": deep(5_000)}},
        {"rule": "schema", "schema": {"title": deep(5_000)}},
        {"rule": "schema", "schema": {"enum": [{1, 2}]}},
        {"rule": "judge", "question": "is it \ud800?"},
        {"rule": "pattern", "pattern": "\ud800"},
        {"rule": "invariant", "name": "\ud800"},
        {"rule": "type", "type": "text", "at": "\ud800"},
    ],
    ids=range(11),
)
def test_a_rule_that_could_not_be_written_down_is_refused(rule: dict[str, object]) -> None:
    with pytest.raises(PlanRefused, match=r"subtasks.0.expected.0"):
        Plan.of([{"id": "a", "tool": "x", "expected": [rule]}])


def test_a_place_of_very_many_digits_is_not_there() -> None:
    rule = Expectation(rule="type", at="9" * 5_000, type="text")

    [(_, problem)] = told(rule, ["x"])

    assert problem.startswith("the result has no element '999")
    assert told(Expectation(rule="type", at="0", type="text"), ["x"]) == []


@pytest.mark.parametrize("value", [deep(5_000), 10**5000, float("inf")], ids=["deep", "large", "∞"])
def test_a_value_that_is_no_json_is_none_of_those_that_are_allowed(value: object) -> None:
    assert len(told(Expectation(rule="one_of", one_of=(1,)), value)) == 1
    assert len(schema_problems({"enum": [1]}, value)) == 1
    assert shown(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text("ab", max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("ab"), inner, max_size=5),
)


@given(JSON)
def test_a_value_is_weighed_about_as_long_as_it_is_written(value: object) -> None:
    length = len(json.dumps(value))

    assert not larger(value, length)
    assert larger(value, length // 5 - 1)
