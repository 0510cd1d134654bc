"""What is public is named in `__all__`; an import is quiet and light."""

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

import pytest

from tests.tree import ROOT, SRC, label

PUBLIC = {
    "ai_framework": ROOT / "ai_framework.py",
    "zejzl": SRC / "zejzl/__init__.py",
    **{
        f"zejzl.{room}": SRC / f"zejzl/{room}/__init__.py"
        for room in ("agents", "magic", "providers", "stores", "testing")
        if (SRC / f"zejzl/{room}").is_dir() and any((SRC / f"zejzl/{room}").glob("*.py"))
    },
}
HEAVY = {"aiohttp", "click", "dotenv", "pydantic", "redis", "rich", "sqlite3", "tiktoken"}

WATCHED_IMPORT = """
import json, sys, threading
seen = []
def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & 3:
            seen.append(f"open {path} {mode}")
    elif event.startswith(("socket.", "subprocess.", "os.system", "os.mkdir", "_thread.start")):
        seen.append(event)
before = set(sys.modules)
sys.addaudithook(watch)
__import__(sys.argv[1])
sys.stderr.write(json.dumps({
    "seen": seen,
    "threads": threading.active_count(),
    "loaded": sorted({name.partition(".")[0] for name in set(sys.modules) - before}),
}))
"""


def own_names(path: Path) -> set[str]:
    """Return the public classes and functions that the module itself defines or passes on."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names if alias.asname == alias.name}
    return {name for name in names if not name.startswith("_")}


class Found(TypedDict):
    seen: list[str]
    threads: int
    loaded: list[str]


def watched_import(module: str) -> tuple[Found, str]:
    """Import in a process of its own; return what was seen there, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED_IMPORT, module],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: Found = json.loads(done.stderr)
    return found, done.stdout


def own_words(module: str) -> list[str]:
    words: list[str] = importlib.import_module(module).__all__
    return words


def test_every_public_module_exists() -> None:
    missing = [label(path) for path in PUBLIC.values() if not path.is_file()]

    assert not missing


@pytest.mark.parametrize("module", PUBLIC)
def test_all_names_what_the_module_defines_and_each_once(module: str) -> None:
    words = own_words(module)

    # That they are sorted is ruff's rule RUF022.
    assert len(words) == len(set(words))
    assert own_names(PUBLIC[module]) <= set(words)


@pytest.mark.parametrize("module", PUBLIC)
def test_what_all_names_is_there(module: str) -> None:
    there = importlib.import_module(module)

    assert not [word for word in own_words(module) if not hasattr(there, word)]


@pytest.mark.parametrize("module", PUBLIC)
def test_a_front_module_that_only_passes_on_passes_all_of_it_on(module: str) -> None:
    tree = ast.parse(PUBLIC[module].read_text(encoding="utf-8"))
    if any(isinstance(node, ast.ClassDef | ast.FunctionDef) for node in tree.body):
        return  # it imports what it needs for itself

    passed = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zejzl")
        for alias in node.names
    }

    assert passed <= set(own_words(module))


@pytest.mark.parametrize("module", ["ai_framework", "zejzl.magic", "zejzl.stores", "src.magic"])
def test_an_import_is_quiet_and_starts_nothing(module: str) -> None:
    found, printed = watched_import(module)

    assert printed == ""
    assert found["seen"] == []
    assert found["threads"] == 1


@pytest.mark.parametrize("module", ["ai_framework", "zejzl"])
def test_an_import_loads_nothing_heavy(module: str) -> None:
    found, _ = watched_import(module)

    assert not HEAVY & {*found["loaded"]}
