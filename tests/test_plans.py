"""Plans: what can be performed is accepted, everything else is named."""

import json
import tracemalloc
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.agents.plans import (
    LARGEST_INPUTS,
    LONGEST_TEXT,
    MOST_SUBTASKS,
    Plan,
    PlanRefused,
    Subtask,
    read_object,
    read_plan,
    resolved,
    schema,
)

TOOLS = {"read_file", "count_tokens"}


def subtask(id: str = "a", **more: object) -> dict[str, object]:
    return {"id": id, "tool": "read_file", **more}


def test_subtasks_come_in_an_order_in_which_they_can_be_done() -> None:
    plan = Plan.of([subtask("c", needs=["b"]), subtask("b", needs=["a"]), subtask("a")])

    assert [each.id for each in plan.subtasks] == ["a", "b", "c"]


@given(st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=10))
def test_an_order_never_puts_a_need_behind_what_needs_it(needs: list[set[int]]) -> None:
    body = [
        subtask(str(number), needs=[str(need) for need in known if need < number])
        for number, known in enumerate(needs)
    ]

    plan = Plan.of(body[::-1])

    seen: set[str] = set()
    for each in plan.subtasks:
        assert set(each.needs) <= seen
        seen.add(each.id)


def test_what_an_input_refers_to_is_needed() -> None:
    inputs = {"deep": [{"x": {"result_of": "a", "at": "0"}}]}

    plan = Plan.of([subtask("b", inputs=inputs), subtask("a")])

    assert plan.subtasks[1].needs == ("a",)


REFUSED: dict[str, tuple[object, str]] = {
    "no list": ("x", "list"),
    "nothing": ([], "1 to 200 subtasks"),
    "no object": ([1], "subtasks.0"),
    "no tool": ([{"id": "a"}], "subtasks.0.tool: Field required"),
    "an unknown field": ([subtask(shell="rm")], "subtasks.0.shell"),
    "an id twice": ([subtask(), subtask()], "two subtasks have the id 'a'"),
    "an empty id": ([subtask("")], "a name has 1 to 64"),
    "an id with a newline": ([subtask("a\nb")], "a name has 1 to 64"),
    "an unknown tool": ([subtask(tool="bash")], "wants the tool 'bash', which is unknown"),
    "a need that is not there": ([subtask(needs=["x"])], "needs 'x', which is not in the plan"),
    "a need of its own": ([subtask(needs=["a"])], "circle: a → a"),
    "a circle": (
        [subtask("a", needs=["b"]), subtask("b", inputs={"x": {"result_of": "a"}})],
        "in a circle",
    ),
    "an unknown rule": ([subtask(expected=[{"rule": "vibes"}])], "subtasks.0.expected.0.rule"),
    "a rule that lacks a bound": ([subtask(expected=[{"rule": "range"}])], "needs at_least"),
    "a costly pattern": (
        [subtask(expected=[{"rule": "pattern", "pattern": "(a+)+"}])],
        "repeat within a repeat",
    ),
    "an unknown criticality": ([subtask(criticality="urgent")], "criticality"),
}


@pytest.mark.parametrize(("body", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_plan_that_cannot_be_performed_is_refused_with_the_reason(
    body: object, problem: str
) -> None:
    with pytest.raises(PlanRefused) as refused:
        Plan.of(body, TOOLS)

    assert problem in str(refused.value)


def test_a_refusal_names_the_subtasks_it_is_about() -> None:
    with pytest.raises(PlanRefused) as circle:
        Plan.of([subtask("a", needs=["b"]), subtask("b", needs=["a"]), subtask("c")])
    with pytest.raises(PlanRefused) as typed:
        Plan.of([subtask("a"), {"id": "b"}])

    assert set(circle.value.subtasks) == {"a", "b"}
    assert typed.value.subtasks == ("b",)


def test_only_so_many_subtasks_and_so_deep_inputs_are_accepted() -> None:
    deep: object = "x"
    for _ in range(100):
        deep = [deep]

    with pytest.raises(PlanRefused, match="at most 200"):
        Plan.of([subtask(str(n)) for n in range(MOST_SUBTASKS + 1)])
    with pytest.raises(PlanRefused, match="nested deeper"):
        Plan.of([subtask(inputs={"x": deep})])
    with pytest.raises(PlanRefused, match="longer than"):
        Plan.of([subtask(inputs={"x": "y" * 3_000_000})])


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**5000], ids=["∞", "nan", "large"])
def test_inputs_that_no_journal_could_keep_are_refused(value: object) -> None:
    with pytest.raises(PlanRefused, match="inputs are no JSON"):
        Plan.of([subtask(inputs={"x": [value]})])


def test_a_description_that_no_journal_could_keep_is_refused() -> None:
    with pytest.raises(PlanRefused, match="description"):
        Plan.of([subtask(description="\ud800")])


def test_an_error_tells_the_first_five_problems_and_how_many_there_are() -> None:
    with pytest.raises(PlanRefused) as refused:
        Plan.of([{"id": str(n)} for n in range(20)])

    assert str(refused.value).count("Field required") == 5
    assert str(refused.value).endswith("and 15 more")


def test_a_plan_that_went_through_json_is_the_same_plan() -> None:
    rules = [
        {"rule": "one_of", "at": "x", "one_of": [1, None, True]},
        {"rule": "type", "type": "text"},
    ]
    plan = Plan.of(
        [subtask("a", expected=rules), subtask("b", needs=["a"], criticality="critical")]
    )

    again = Plan.of(json.loads(json.dumps(plan.to_json())), TOOLS)

    assert again == plan


def test_a_reference_is_replaced_by_what_was_found() -> None:
    results = {"a": {"files": [{"path": "x"}, {"path": "y"}]}}

    assert resolved({"p": {"result_of": "a", "at": "files.1.path"}}, results) == {"p": "y"}
    assert resolved([{"result_of": "a", "at": "files.*.path"}], results) == [["x", "y"]]
    assert resolved({"result_of": "a", "other": 1}, results) == {"result_of": "a", "other": 1}
    with pytest.raises(LookupError, match="result of 'a': files has no element '2'"):
        resolved({"result_of": "a", "at": "files.2"}, results)


def test_what_an_input_would_grow_to_has_a_limit() -> None:
    result = {"files": ["x" * 99] * 10_000}
    whole, part = {"result_of": "a"}, {"result_of": "a", "at": "files.*"}

    tracemalloc.start()
    for many in ([whole] * 10_000, [part] * 10_000):
        with pytest.raises(ValueError, match=f"more than {LARGEST_INPUTS} characters"):
            resolved(many, {"a": result})
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < 5_000_000
    assert resolved([whole, whole], {"a": result}) == [result, result]


def test_a_plan_is_found_in_whatever_a_model_writes_around_it() -> None:
    answer = f"Sure! Here it is:\n```json\n{json.dumps({'subtasks': [subtask()]})}\n```\nEnjoy."

    assert [each.id for each in read_plan(answer, TOOLS).subtasks] == ["a"]


ANSWERS = {
    "words": ("I would rather not.", "no JSON object"),
    "cut short": ('{"subtasks": [{"id": "a"', "no JSON"),
    "another object": ('{"plan": []}', 'no "subtasks"'),
    "deep nesting": ('{"subtasks": ' + "[" * 100_000, "no JSON"),
    "deep objects": ('{"a":' * 30_000, "no JSON"),
    "infinity": ('{"subtasks": [{"id": "a", "tool": "read", "inputs": {"x": 1e999}}]}', "no JSON"),
    "a number of many digits": ('{"subtasks": ' + "9" * 9_999, "no JSON"),
    "a deep enum": (
        '{"subtasks": [{"id": "a", "tool": "x", "expected": [{"rule": "schema", "schema": '
        + '{"enum": '
        + "[" * 500
        + "]" * 500
        + "}}]}]}",
        "nested deeper",
    ),
    "not a number": ('{"subtasks": [{"id": NaN}]}', "no JSON"),
    "ten megabytes": ('{"subtasks": [' + "x" * 10_000_000, "characters"),
    "braces inside": ("{{{{", "no JSON"),
}


@pytest.mark.parametrize(("answer", "problem"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_holds_no_plan_is_refused_with_the_reason(answer: str, problem: str) -> None:
    with pytest.raises(PlanRefused, match=problem):
        read_plan(answer, TOOLS)


@given(st.text(max_size=200))
def test_no_text_is_more_than_refused(text: str) -> None:
    try:
        found = read_object(text)
    except PlanRefused:
        return

    assert isinstance(found, dict)


def test_the_longest_answer_is_read() -> None:
    blanks = " " * (LONGEST_TEXT - 2)

    assert read_object(f"{{{blanks}}}") == {}


def test_the_schema_names_what_a_subtask_has() -> None:
    text = json.dumps(schema())

    assert all(f'"{field}"' in text for field in [each.name for each in fields(Subtask)])
