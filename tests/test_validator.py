"""The validator: says which rule does not hold, and where."""

import asyncio
import json

import pytest

from tests.driving import make_bus
from zejzl.agents.plans import PlanRefused
from zejzl.agents.tools import Toolbox
from zejzl.agents.validator import ValidatorAgent
from zejzl.testing import FakeClock, ScriptedProvider

Document = dict[str, object]


def execution(*subtasks: Document, results: list[Document] | None = None) -> Document:
    """Return an execution in which every subtask is done, unless `results` say otherwise."""
    done: list[Document] = [{"status": "done", "reach": [], **each} for each in results or []]
    plan = {"task": "t", "subtasks": [{"tool": "x", **each} for each in subtasks]}
    return {"plan": plan, "results": done, "key": "k", "timestamp": "t"}


async def notes(work: Document, validator: ValidatorAgent | None = None) -> list[str]:
    found = await (validator or ValidatorAgent()).validate(work)
    assert found["is_valid"] is found["valid"]
    assert isinstance(found["notes"], list)
    return found["notes"]


async def test_work_that_is_as_expected_is_valid() -> None:
    rule = {"rule": "type", "type": "integer"}

    found = await ValidatorAgent().validate(
        execution({"id": "a", "expected": [rule]}, results=[{"id": "a", "result": 1}])
    )

    assert found["is_valid"] is True
    assert found["valid"] is True
    assert found["notes"] == []
    assert found["execution_summary"] == {
        "task": "t",
        "subtasks": 1,
        "done": 1,
        "failed": 0,
        "skipped": 0,
        "writes": [],
    }
    assert found["timestamp"]


async def test_a_breach_names_subtask_rule_and_place() -> None:
    rule = {"rule": "range", "at": "files.*.n", "at_least": 1}
    result = {"files": [{"n": 1}, {"n": 0}]}

    found = await ValidatorAgent().validate(
        execution({"id": "a", "expected": [rule]}, results=[{"id": "a", "result": result}])
    )

    assert found["is_valid"] is False
    assert found["notes"] == ["a: rule 'range' does not hold at files.1.n: it is 0, less than 1"]
    assert found["breaches"] == [
        {"subtask": "a", "rule": "range", "where": "files.1.n", "problem": "it is 0, less than 1"}
    ]


async def test_what_was_not_done_is_not_valid_unless_it_was_sheddable() -> None:
    failed: Document = {"id": "a", "status": "failed", "error": "x"}

    strict = await notes(execution({"id": "a"}, {"id": "b"}, results=[failed]))
    lenient = await ValidatorAgent().validate(
        execution({"id": "a", "criticality": "sheddable"}, results=[failed])
    )

    assert strict == [
        "a: rule 'done' does not hold: it was failed: x",
        "b: rule 'done' does not hold: it was missing: it has no result",
    ]
    assert (lenient["is_valid"], lenient["notes"]) == (
        True,
        ["a: it was failed: x; it was sheddable"],
    )


WRITES = [
    {"path": "../x", "text": "1"},
    {"path": ".bashrc", "text": "2"},
    {"path": "a", "text": ""},
]


async def test_what_the_workspace_forbids_is_a_breach() -> None:
    work = execution(
        {"id": "a"}, results=[{"id": "a", "result": 1, "reach": ["files"], "writes": WRITES}]
    )

    found = await notes(work)

    assert len(found) == 2
    assert "rule 'workspace' does not hold at writes: path '../x' is not allowed" in found[0]
    assert "hidden files are out of reach" in found[1]


@pytest.mark.parametrize("reach", ["network", "commands", "anything"])
async def test_what_reaches_beyond_what_is_allowed_is_a_breach(reach: str) -> None:
    work = execution({"id": "a"}, results=[{"id": "a", "result": 1, "reach": [reach]}])

    assert await notes(work) == [
        f"a: rule 'workspace' does not hold at tool: 'x' reaches {reach}: not allowed here"
    ]


async def test_the_tools_own_word_counts_not_that_of_the_execution() -> None:
    async def x() -> None: ...

    box = Toolbox()
    box.add(x, reach=("commands",))
    validator = ValidatorAgent(tools=box)
    lying: Document = {"id": "a", "result": 1, "reach": []}

    assert (
        "reaches commands" in (await notes(execution({"id": "a"}, results=[lying]), validator))[0]
    )
    unknown = execution({"id": "a", "tool": "y"}, results=[lying])
    assert "no tool 'y'" in (await notes(unknown, validator))[0]


async def test_who_writes_files_must_say_so() -> None:
    work = execution(
        {"id": "a"}, results=[{"id": "a", "result": 1, "writes": [{"path": "a", "text": ""}]}]
    )

    assert "does not say that it writes files" in (await notes(work))[0]


# Invariants ------------------------------------------------------------------------------------


async def test_an_invariant_is_a_function_of_the_result() -> None:
    validator = ValidatorAgent()

    @validator.invariant("even")
    def even(value: object) -> object:
        return isinstance(value, int) and value % 2 == 0

    @validator.invariant("small")
    def small(value: object) -> object:
        return None if value == 2 else "it is not 2"

    @validator.invariant("broken")
    def broken(value: object) -> object:
        raise RuntimeError("boom")

    def rule(name: str) -> Document:
        return {"rule": "invariant", "name": name, "at": "n"}

    async def of(name: str, number: int) -> list[str]:
        work = execution(
            {"id": "a", "expected": [rule(name)]}, results=[{"id": "a", "result": {"n": number}}]
        )
        return [note.partition("hold at n: ")[2] for note in await notes(work, validator)]

    assert await of("even", 2) == await of("small", 2) == []
    assert await of("even", 3) == ["even does not hold: 3"]
    assert await of("small", 3) == ["it is not 2"]
    assert await of("broken", 3) == ["broken raised RuntimeError: boom"]
    assert await of("odd", 3) == ["no invariant named 'odd'; there are: broken, even, small"]
    with pytest.raises(ValueError, match="already"):
        validator.invariant("even")


async def test_an_invariant_of_a_place_that_is_not_there_does_not_hold() -> None:
    rule = {"rule": "invariant", "name": "x", "at": "n"}
    work = execution({"id": "a", "expected": [rule]}, results=[{"id": "a", "result": {}}])

    assert await notes(work) == ["a: rule 'invariant' does not hold at n: the result has no 'n'"]


# Judges ----------------------------------------------------------------------------------------


async def judged(answer: str, result: object = "text") -> list[str]:
    clock = FakeClock()
    rule = {"rule": "judge", "question": "Is it kind?"}
    work = execution({"id": "a", "expected": [rule]}, results=[{"id": "a", "result": result}])
    async with make_bus(clock) as bus:
        await bus.register_provider("m", ScriptedProvider([answer], clock=clock))
        return await notes(work, ValidatorAgent(bus))


async def test_a_judge_decides() -> None:
    assert await judged('{"ok": true}') == []
    assert await judged('{"ok": false, "why": "rude"}') == [
        "a: rule 'judge' does not hold: the judge says no: rude"
    ]


@pytest.mark.parametrize(
    "answer", ["yes", '{"ok": "true"}', '{"ok": 1}', "{}", "{" * 99_999], ids=str.__len__
)
async def test_a_judge_that_is_not_clear_has_not_said_yes(answer: str) -> None:
    assert len(await judged(answer)) == 1


async def test_a_judge_is_not_shown_more_than_it_can_read() -> None:
    for long in ("x" * 30_000, [1] * 9_000):
        [note] = await judged('{"ok": true}', long)

        assert "nobody could judge: the data for the model has more than 20000 characters" in note


@pytest.mark.parametrize("result", ["\ud800", 10**5000, float("inf")], ids=["half", "large", "∞"])
async def test_a_result_that_cannot_be_sent_is_not_judged(result: object) -> None:
    [note] = await judged('{"ok": true}', result)

    assert "nobody could judge" in note


async def test_where_nobody_can_judge_it_is_not_valid() -> None:
    rule = {"rule": "judge", "question": "Is it kind?"}
    work = execution({"id": "a", "expected": [rule]}, results=[{"id": "a", "result": "x"}])

    assert "nobody could judge" in (await notes(work))[0]


# Shapes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, {}, {"plan": {}}, {"plan": {}, "results": 1}, []])
async def test_what_is_no_execution_is_refused(wrong: object) -> None:
    with pytest.raises(PlanRefused):
        await ValidatorAgent().validate(wrong)  # type: ignore[arg-type]


async def test_only_so_many_notes_are_told() -> None:
    many: list[Document] = [{"id": str(n)} for n in range(80)]

    found = await notes(execution(*many))

    assert (len(found), found[-1]) == (51, "and 30 more")


async def test_a_validation_is_told_on_the_bus_with_its_outcome() -> None:
    clock = FakeClock()

    async with make_bus(clock) as bus:
        inbox = await bus.subscribe("agents.validator")
        await ValidatorAgent(bus).validate(execution({"id": "a"}))
        told = json.loads((await inbox.get()).content)

    assert (told["type"], told["data"]["is_valid"]) == ("validation", False)


@pytest.mark.parametrize("raised", [SystemExit("bye"), GeneratorExit(), ValueError("no")], ids=str)
async def test_whatever_an_invariant_raises_is_a_breach(raised: BaseException) -> None:
    validator = ValidatorAgent()

    @validator.invariant("well")
    def well(value: object) -> bool:
        raise raised

    rule = {"rule": "invariant", "name": "well"}
    work = execution({"id": "a", "expected": [rule]}, results=[{"id": "a", "result": 1}])

    [note] = await notes(work, validator)

    assert f"well raised {type(raised).__name__}" in note


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), asyncio.CancelledError()], ids=repr)
async def test_an_end_from_outside_is_no_breach(raised: BaseException) -> None:
    validator = ValidatorAgent()

    @validator.invariant("well")
    def well(value: object) -> bool:
        raise raised

    rule = {"rule": "invariant", "name": "well"}
    work = execution({"id": "a", "expected": [rule]}, results=[{"id": "a", "result": 1}])

    with pytest.raises(type(raised)):
        await notes(work, validator)
