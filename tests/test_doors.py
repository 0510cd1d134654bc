"""The doors at the root lead to the one package, also in a clone that nobody installed."""

import ast
import importlib
import shutil
import site
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tree import ROOT, SRC, label, listed, python

DOORS = sorted([*SRC.glob("*.py"), *SRC.glob("agents/*.py")])
NAMES = ["CircuitBreaker", "CircuitBreakerConfig", "CircuitBreakerState", "FairyMagic"]

AGENTS = sorted(
    path.stem
    for path in SRC.glob("zejzl/agents/*.py")
    if f"class {path.stem.title()}Agent" in path.read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files in a folder with a blank in its name."""
    folder = tmp_path_factory.mktemp("a bare") / "clone of it"
    for path in listed():
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    return folder


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that is installed except zejzl."""
    folder = tmp_path_factory.mktemp("dependencies")
    for entry in site_packages():
        if not entry.name.startswith(("zejzl", "ai_framework")) and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return folder


def site_packages() -> Iterator[Path]:
    for place in site.getsitepackages():
        if Path(place).is_dir():
            yield from Path(place).iterdir()


@pytest.mark.parametrize("name", [*NAMES, "HealingRecord"])
def test_src_magic_holds_the_very_classes_of_zejzl_magic(name: str) -> None:
    door, room = importlib.import_module("src.magic"), importlib.import_module("zejzl.magic")

    assert getattr(door, name) is getattr(room, name)


def test_every_agent_has_its_door() -> None:
    for agent in AGENTS:
        door = importlib.import_module(f"src.agents.{agent}")
        room = importlib.import_module(f"zejzl.agents.{agent}")
        name = f"{agent.title()}Agent"
        assert getattr(door, name) is getattr(room, name)


@pytest.mark.parametrize("path", [door for door in DOORS if door.name != "__init__.py"], ids=label)
def test_a_door_holds_aliases_and_nothing_else(path: Path) -> None:
    first, *rest = ast.parse(path.read_text(encoding="utf-8")).body

    assert isinstance(first, ast.Expr), "a docstring"
    for node in rest:
        assert isinstance(node, ast.ImportFrom)
        assert node.level == 0
        assert (node.module or "").startswith("zejzl.")
        assert all(alias.asname == alias.name for alias in node.names)


def test_a_bare_clone_finds_its_own_package(clone: Path, dependencies: Path) -> None:
    blind = python("-c", "import zejzl", cwd=clone, path=dependencies)
    through_src = python(
        "-c",
        "from src.magic import FairyMagic; import zejzl; print(zejzl.__file__, FairyMagic())",
        cwd=clone,
        path=dependencies,
    )

    assert "No module named 'zejzl'" in blind.stderr, "the test must not see an installed one"
    assert through_src.stderr == ""
    assert through_src.stdout.startswith(str(clone / "src/zejzl/__init__.py"))


def test_the_bus_works_in_a_bare_clone(clone: Path, dependencies: Path) -> None:
    program = """
import asyncio
from ai_framework import AsyncMessageBus
from src.magic import FairyMagic

async def main():
    async with AsyncMessageBus() as bus:
        assert isinstance(bus.magic, FairyMagic)
        print(await bus.send_message("hello", "offline"))

asyncio.run(main())
"""
    done = python("-c", program, cwd=clone, path=dependencies)

    assert done.stderr == ""
    assert "offline" in done.stdout.lower()


@pytest.mark.parametrize(
    "command",
    [
        ("ai_framework.py", "status"),
        ("-c", "from ai_framework import AsyncMessageBus; AsyncMessageBus()"),
    ],
    ids=["command line", "library"],
)
def test_where_dependencies_are_missing_the_error_names_the_start_script(
    clone: Path, command: tuple[str, ...]
) -> None:
    done = python(*command, cwd=clone)

    assert done.returncode != 0
    assert "./start.sh" in done.stderr


def test_run_as_a_program_no_class_is_made_twice(clone: Path, dependencies: Path) -> None:
    program = """
import gc, runpy, sys
sys.argv = ["ai_framework.py", "--help"]
try:
    runpy.run_path("ai_framework.py", run_name="__main__")
except SystemExit:
    pass
classes = [item for item in gc.get_objects() if isinstance(item, type)]
buses = [item.__module__ for item in classes if item.__name__ == "AsyncMessageBus"]
print("buses:", buses)
"""
    done = python("-c", program, cwd=clone, path=dependencies)

    assert "__main__" not in done.stdout.rpartition("buses:")[2]
    assert done.stdout.count("'ai_framework'") <= 1
    assert done.returncode == 0, done.stderr


def test_the_path_is_left_alone_where_zejzl_is_found(clone: Path) -> None:
    program = "import sys; before = sys.path[:]; import src.magic; print(sys.path == before)"

    done = python("-c", program, cwd=clone, path=clone / "src")

    assert (done.stdout, done.stderr) == ("True\n", "")
