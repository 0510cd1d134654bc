"""Tools: what a plan passes is checked, and the tools that are always there stay in bounds."""

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from zejzl.agents.basic_tools import MOST_HITS, basic_tools
from zejzl.agents.models import NeedsModel
from zejzl.agents.reports import cell, markdown
from zejzl.agents.tools import Desk, InputRefused, NoWorkspace, ResultRefused, Toolbox
from zejzl.agents.workspace import OutOfBounds, Workspace


async def double(number: Annotated[int, Field(ge=0)], times: int = 1) -> int:
    """Double a number.

    More than once.
    """
    return number << times


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("one two\nthree\n")
    (tmp_path / "notes/b.md").write_text("two four")
    return Workspace(tmp_path)


async def use(box: Toolbox, name: str, **inputs: object) -> object:
    tool = box.get(name)
    return await tool.call(tool.checked(inputs), Desk(key="k"))


# The box ---------------------------------------------------------------------------------------


async def test_a_tool_is_called_with_what_it_takes() -> None:
    box = Toolbox()
    tool = box.add(double)

    assert await use(box, "double", number=3) == 6
    assert await use(box, "double", number="3", times=2) == 12
    assert tool.description == "Double a number."
    assert list(box) == ["double"]


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({}, "number: Field required"),
        ({"number": "x"}, "number: Input should be a valid integer"),
        ({"number": -1}, "number: Input should be greater than or equal to 0"),
        ({"number": 1, "shell": "rm"}, "shell: Extra inputs are not permitted"),
    ],
    ids=["nothing", "a word", "out of range", "too much"],
)
def test_what_a_tool_does_not_take_is_refused_by_name(
    inputs: dict[str, object], problem: str
) -> None:
    tool = Toolbox().add(double)

    with pytest.raises(InputRefused) as refused:
        tool.checked(inputs)

    assert problem in str(refused.value)
    assert "tool 'double'" in str(refused.value)


def test_a_model_is_told_what_a_tool_takes_but_not_its_desk() -> None:
    box = Toolbox()

    async def note(text: str, desk: Desk) -> None:
        """Keep a note."""

    box.add(note)

    assert box.described() == [
        {
            "name": "note",
            "description": "Keep a note.",
            "inputs": {
                "type": "object",
                "properties": {"text": {"title": "Text", "type": "string"}},
                "required": ["text"],
                "additionalProperties": False,
            },
        }
    ]


def plain_function(x: int) -> int:
    return x


async def untyped(x) -> None:  # type: ignore[no-untyped-def]
    pass


async def many(*numbers: int) -> None:
    pass


async def positional(number: int, /) -> None:
    pass


async def unfillable(lock: asyncio.Lock) -> None:
    pass


async def unknown(x: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
    pass


async def unclosed(x: int) -> None:
    pass


async def failing(x: int) -> None:
    pass


unclosed.__annotations__["x"] = "int | ["
failing.__annotations__["x"] = "1/0"


async def two_desks(one: Desk, other: Desk) -> None:
    pass


async def desks(all: list[Desk]) -> None:
    pass


async def perhaps_desk(desk: Desk | str) -> None:
    pass


NO_TOOLS = [plain_function, untyped, many, positional, unfillable, unknown]
NO_TOOLS += [unclosed, failing, two_desks, desks, perhaps_desk]


@pytest.mark.parametrize("fn", NO_TOOLS)
def test_a_function_that_a_plan_could_not_call_is_no_tool(fn: object) -> None:
    with pytest.raises(TypeError):
        Toolbox().add(fn)  # type: ignore[arg-type]


async def test_a_parameter_may_have_any_name() -> None:
    box = Toolbox()

    async def odd(
        model_config: int, _x: Annotated[int, Field(ge=0)], schema: int, model_fields_set: int = 3
    ) -> list[int]:
        return [model_config, _x, schema, model_fields_set]

    box.add(odd)
    described = box.get("odd").described()["inputs"]

    assert await use(box, "odd", model_config=1, _x=2, schema=0) == [1, 2, 0, 3]
    with pytest.raises(InputRefused, match="_x: Input should be greater"):
        box.get("odd").checked({"model_config": 1, "_x": -2, "schema": 0})
    with pytest.raises(InputRefused, match="p0: Extra inputs"):
        box.get("odd").checked({"model_config": 1, "_x": 2, "schema": 0, "p0": 1})
    assert isinstance(described, dict)
    assert list(described["properties"]) == ["model_config", "_x", "schema", "model_fields_set"]


async def test_a_desk_that_may_be_left_out_is_given_and_no_input() -> None:
    box = Toolbox()

    async def key(desk: Desk | None = None) -> str:
        return "none" if desk is None else desk.key

    box.add(key)

    assert await use(box, "key") == "k"
    with pytest.raises(InputRefused, match="desk: Extra inputs"):
        box.get("key").checked({"desk": {"key": "stolen"}})


def test_a_name_is_an_identifier_and_belongs_to_one() -> None:
    box = Toolbox()
    box.add(double)

    with pytest.raises(ValueError, match="already"):
        box.add(double)
    with pytest.raises(ValueError, match="identifier"):
        box.add(double, name="rm -rf")
    with pytest.raises(ValueError, match="identifier"):
        box.add(partial(double, times=2))
    with pytest.raises(ValueError, match="unknown reach"):
        box.add(double, name="other", reach=("moon",))  # type: ignore[arg-type]
    with pytest.raises(LookupError, match="no tool named 'bash'; there are: double"):
        box.get("bash")


def test_a_tool_can_be_taken_out() -> None:
    box = Toolbox()
    box.add(double)

    box.remove("double")

    assert "double" not in box
    with pytest.raises(LookupError):
        box.remove("double")


def test_there_are_only_so_many_tools() -> None:
    box = Toolbox()
    for number in range(200):
        box.add(double, name=f"d{number}")

    with pytest.raises(ValueError, match="200 tools"):
        box.add(double)
    assert len(box) == 200


RESULTS = {
    "an object": object(),
    "not a number": float("nan"),
    "bytes": b"x",
    "too much": "x" * 1_000_001,
    "too deep": json.loads("[" * 200 + "]" * 200),
}


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
async def test_a_result_that_is_no_json_or_too_long_is_refused(result: object) -> None:
    async def tool() -> object:
        return result

    box = Toolbox()
    box.add(tool)

    with pytest.raises(ResultRefused, match="tool 'tool' returned"):
        await use(box, "tool")


async def test_a_result_that_holds_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)

    async def tool() -> object:
        return loop

    box = Toolbox()
    box.add(tool)

    with pytest.raises(ResultRefused):
        await use(box, "tool")


# The desk --------------------------------------------------------------------------------------


def test_a_desk_takes_writes_that_stay_inside() -> None:
    desk = Desk(key="k", staged={"taken.txt": "x"})

    assert desk.write("./out//a.txt", "text") == "out/a.txt"
    assert desk.writes == {"out/a.txt": "text"}
    for path in ("/etc/passwd", "../x", ".env", ""):
        with pytest.raises(OutOfBounds):
            desk.write(path, "x")
    with pytest.raises(ValueError, match="another subtask"):
        desk.write("taken.txt", "x")
    with pytest.raises(ValueError, match="more than 1000000"):
        desk.write("b.txt", "x" * 1_000_001)
    with pytest.raises(ValueError, match="UTF-8"):
        desk.write("b.txt", "\ud800")


# What is always there --------------------------------------------------------------------------


async def test_files_are_listed_and_read(workspace: Workspace) -> None:
    box = basic_tools(workspace, None)

    assert await use(box, "list_files", folder="notes") == ["notes/a.txt", "notes/b.md"]
    assert await use(box, "list_files", suffix=".md") == ["notes/b.md"]
    assert await use(box, "read_file", path="notes/b.md") == "two four"


async def test_a_file_is_not_written_before_the_work_is_validated(workspace: Workspace) -> None:
    box, desk = basic_tools(workspace, None), Desk(key="k")
    write = box.get("write_file")

    found = await write.call(write.checked({"path": "out.txt", "text": "hé"}), desk)

    assert isinstance(found, dict)
    assert (found["path"], found["bytes"]) == ("out.txt", 3)
    assert desk.writes == {"out.txt": "hé"}
    assert "out.txt" not in workspace.files()


async def test_what_was_written_in_the_same_work_is_read_back(workspace: Workspace) -> None:
    box = basic_tools(workspace, None)
    read = box.get("read_file")

    found = await read.call({"path": "./new.txt"}, Desk(key="k", staged={"new.txt": "staged"}))

    assert found == "staged"


async def test_lines_are_found_with_their_place(workspace: Workspace) -> None:
    (workspace.folder / "notes/c.bin").write_bytes(b"\xff two")
    box = basic_tools(workspace, None)

    found = await use(box, "search_text", query="two", folder="notes")
    one = await use(box, "search_text", query="three", path="notes/a.txt")

    assert isinstance(found, dict)
    assert found["hits"] == [
        {"path": "notes/a.txt", "line": 1, "text": "one two"},
        {"path": "notes/b.md", "line": 1, "text": "two four"},
    ]
    assert found["complete"] is True
    assert len(found["unread"]) == 1
    assert "notes/c.bin" in found["unread"][0]
    assert isinstance(one, dict)
    assert one["hits"] == [{"path": "notes/a.txt", "line": 2, "text": "three"}]


async def test_a_search_ends_at_so_many_hits_and_says_so(workspace: Workspace) -> None:
    (workspace.folder / "many.txt").write_text("x\n" * (MOST_HITS + 5))

    found = await use(basic_tools(workspace, None), "search_text", query="x", path="many.txt")

    assert isinstance(found, dict)
    assert (len(found["hits"]), found["complete"]) == (MOST_HITS, False)


async def test_a_search_for_nothing_or_in_what_cannot_be_read_is_refused(
    workspace: Workspace,
) -> None:
    box = basic_tools(workspace, None)

    with pytest.raises(ValueError, match="needs a text"):
        await use(box, "search_text", query="")
    with pytest.raises(FileNotFoundError):
        await use(box, "search_text", query="x", path="no.txt")


async def test_tokens_are_counted_in_a_text_or_in_files(workspace: Workspace) -> None:
    box = basic_tools(workspace, None)

    text = await use(box, "count_tokens", text="one two")
    files = await use(box, "count_tokens", paths=["notes/a.txt", "notes/b.md"])

    assert text == {"tokens": 2, "exact": True}
    assert isinstance(files, dict)
    assert [each["path"] for each in files["files"]] == ["notes/a.txt", "notes/b.md"]
    assert files["tokens"] == sum(each["tokens"] for each in files["files"]) > 4
    for wrong in ({}, {"text": "x", "paths": []}):
        with pytest.raises(ValueError, match="either text or paths"):
            await use(box, "count_tokens", **wrong)


async def test_files_that_are_no_text_are_told_and_the_others_counted(workspace: Workspace) -> None:
    (workspace.folder / "notes/c.bin").write_bytes(b"\xff")
    box = basic_tools(workspace, None)

    found = await use(box, "count_tokens", paths=["notes/c.bin", "notes/b.md", "no.txt"])

    assert isinstance(found, dict)
    assert [each["path"] for each in found["files"]] == ["notes/b.md"]
    assert found["unread"] == [
        "notes/c.bin: it is no UTF-8 text: invalid start byte",
        "no.txt: No such file or directory",
    ]
    with pytest.raises(ValueError, match="no UTF-8"):
        await use(box, "count_tokens", paths=["no.txt", "notes/c.bin"])
    with pytest.raises(OutOfBounds):
        await use(box, "count_tokens", paths=["notes/b.md", "../x"])


async def test_files_that_are_too_much_together_are_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zejzl.agents.basic_tools.MOST_SEARCHED", 20)
    box = basic_tools(workspace, None)

    with pytest.raises(ValueError, match="more than 20 characters"):
        await use(box, "count_tokens", paths=["notes/a.txt", "notes/b.md"])
    found = await use(box, "search_text", query="o")

    assert isinstance(found, dict)
    assert found["complete"] is False


async def test_arithmetic_is_computed() -> None:
    assert await use(basic_tools(None, None), "arithmetic", expression="6 * 7") == 42


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("list_files", {}),
        ("read_file", {"path": "a"}),
        ("write_file", {"path": "a", "text": "b"}),
        ("search_text", {"query": "a"}),
        ("count_tokens", {"paths": ["a"]}),
    ],
)
async def test_without_a_workspace_files_are_out_of_reach(
    name: str, inputs: dict[str, object]
) -> None:
    with pytest.raises(NoWorkspace, match="pass workspace=FOLDER"):
        await use(basic_tools(None, None), name, **inputs)


async def test_a_model_is_not_asked_where_there_is_none() -> None:
    with pytest.raises(NeedsModel, match="set a provider's key"):
        await use(basic_tools(None, None), "ask_model", prompt="hello")


# Reports ---------------------------------------------------------------------------------------


def test_a_report_shows_results_as_tables_and_lists() -> None:
    text = markdown("Work", {"s1": [{"path": "a", "n": 1}], "s2": {"x": 1, "y": ["a"]}, "s3": []})

    assert text == (
        "# Work\n\n## s1\n\n| path | n |\n| --- | --- |\n| a | 1 |\n"
        "\n## s2\n\n- x: 1\n\n### y\n\n- a\n\n## s3\n\nNothing.\n"
    )


def test_a_report_says_how_many_rows_it_leaves_out() -> None:
    assert "… and 500 more" in markdown("x", {"s1": list(range(1_500))})


def test_what_a_stranger_wrote_cannot_pose_as_structure() -> None:
    assert cell("a\n# b | <script> \\| `x` [l](u) \x1b[31m") == (
        "a # b \\| &lt;script> \\\\\\| \\`x\\` \\[l](u) �\\[31m"
    )
    assert len(cell("x" * 1_000)) == 200
