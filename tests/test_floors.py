"""The floor plan of AGENTS.md, checked: who imports whom, who sleeps, how large, what name."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tree import ROOT, SRC, label, listed

# Room → floor. A room is a module or package right under zejzl, or a module at the root.
FLOORS = {
    **dict.fromkeys(["zejzl", "errors", "clock", "messages", "events", "ports", "settings"], 0),
    **dict.fromkeys(["policies", "learning"], 1),
    "magic": 2,
    **dict.fromkeys(["engine", "stores", "providers", "local"], 3),
    "agents": 4,
    "ai_framework": 5,
    "testing": 5.5,  # what it simulates is the bus itself
    **dict.fromkeys(["cli", "__main__", "dashboard", "src"], 6),
    "token_haze": 6.5,  # a door to the command line
}
GROUND = {room for room, floor in FLOORS.items() if floor == 0}

# All that a pure module may import from outside; anything else could be a clock or a door.
PURE = {"bisect", "collections", "dataclasses", "enum", "functools", "heapq", "itertools", "math"}
PURE |= {"hashlib", "numpy", "operator", "random", "re", "statistics", "typing", "zlib"}
PURE_ROOMS = ("policies", "learning")

ROOT_FILES = {
    # the user's
    *("src", "tests", "ai_framework.py", "token_haze.py", "orchestrate.sh", "start.sh"),
    *("pyproject.toml", "AGENTS.md", "README.md"),
    # beside them
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "constraints.txt", "next_priorities.txt"),
    *("mkdocs.yml", ".env.example", ".gitignore", ".ci", "docs", "bench", "workflows"),
}


FILES = listed()
SHIPPED = sorted(
    path
    for path in FILES
    if path.suffix == ".py"
    and (path.is_relative_to(SRC) or path.name in ("ai_framework.py", "token_haze.py"))
)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=label(path))


def name_of(path: Path) -> str:
    """Return the module's dotted name; the doors are `src` and `src.x`."""
    base = SRC if path.is_relative_to(SRC / "zejzl") else ROOT
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    """Return the room that a dotted name lies in, or None where it is not ours."""
    first, _, rest = module.partition(".")
    if first == "zejzl":
        return rest.partition(".")[0] or "zejzl"
    return first if first in ("ai_framework", "token_haze", "src") else None


def imported(tree: ast.AST, *, inside: str = "") -> Iterator[str]:
    """Yield dotted names of what is imported anywhere below, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{inside}: imports are absolute"
            assert node.module is not None
            # `from zejzl import magic` is an import of zejzl.magic.
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            is_package = (SRC / node.module.replace(".", "/")).is_dir()
            yield from (name for name in submodules if is_package and exists(name))
            yield node.module


def exists(module: str) -> bool:
    path = SRC / module.replace(".", "/")
    return path.with_suffix(".py").is_file() or path.is_dir()


def is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def is_path_guard(node: ast.stmt) -> bool:
    """Say whether it is `if find_spec("zejzl") is None: sys.path.append(…)` and no more."""
    return (
        isinstance(node, ast.If)
        and ast.unparse(node.test) == "find_spec('zejzl') is None"
        and [ast.unparse(line).partition("(")[0] for line in node.body] == ["sys.path.append"]
        and not node.orelse
    )


def attributes(tree: ast.AST) -> list[ast.Attribute]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]


def allowed(path: Path, *places: str) -> bool:
    inside = label(path).removeprefix("src/zejzl/")
    return any(inside == place or inside.startswith(f"{place}/") for place in places)


every_module = pytest.mark.parametrize("path", SHIPPED, ids=label)
every_pure_module = pytest.mark.parametrize(
    "path", [path for path in SHIPPED if allowed(path, *PURE_ROOMS)], ids=label
)


@every_module
def test_imports_go_down(path: Path) -> None:
    own = room_of(name_of(path))
    tree = parsed(path)
    # Started as a program, the root's modules hand over to the command line above them.
    tree.body = [node for node in tree.body if not is_main_guard(node)]

    rooms = {room_of(name) for name in imported(tree, inside=label(path))} - {None, own}

    assert own in FLOORS, f"{own} stands on no floor: give it one here and in AGENTS.md"
    upward = {room for room in rooms if room and FLOORS[room] >= FLOORS[own]}
    assert not upward - GROUND, f"{own} (floor {FLOORS[own]}) imports {upward}"
    if own != "zejzl" and FLOORS[own] < 5:
        assert "zejzl" not in rooms, "import from the module, not from the package that re-exports"


def test_the_package_itself_imports_the_ground_only() -> None:
    rooms = {room_of(name) for name in imported(parsed(SRC / "zejzl/__init__.py"))} - {None}

    assert rooms <= GROUND


@every_pure_module
def test_rules_import_ground_rules_and_what_is_pure(path: Path) -> None:
    names = set(imported(parsed(path), inside=label(path)))

    outside = {name.partition(".")[0] for name in names if room_of(name) is None}
    rooms = {room for name in names if (room := room_of(name)) is not None}
    assert outside <= PURE
    assert rooms <= {*GROUND - {"clock", "ports", "settings", "zejzl"}, *PURE_ROOMS}


@every_pure_module
def test_rules_get_chance_handed_in(path: Path) -> None:
    own_chance = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            own_chance += [alias.name for alias in node.names if alias.name != "Random"]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random":
            own_chance += [node.attr] if node.attr != "Random" else []
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("Random", "random.Random"):
            own_chance.append("Random()")

    assert not own_chance


@every_pure_module
def test_rules_neither_await_nor_touch_the_outside(path: Path) -> None:
    outside = {"open", "print", "input", "exec", "eval", "compile", "__import__"}

    touched = [
        ast.unparse(node).partition("\n")[0]
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
        or (isinstance(node, ast.Call) and ast.unparse(node.func) in outside)
    ]

    assert not touched


@every_module
def test_time_is_read_by_the_clock_alone(path: Path) -> None:
    if allowed(path, "clock.py", "testing"):
        return
    tree = parsed(path)

    modules = {name.partition(".")[0] for name in imported(tree)}
    calls = {ast.unparse(node) for node in attributes(tree)}

    assert "time" not in modules
    timers = {"sleep", "timeout", "timeout_at", "wait_for"}
    assert not calls & {f"asyncio.{timer}" for timer in timers}
    assert not any(re.search(r"\bloop(\(\))?\.(time|call_later|call_at)$", call) for call in calls)
    if not allowed(path, "messages.py"):  # Message.create stamps the present, by contract
        assert not calls & {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}


@every_module
def test_only_the_engine_sleeps_and_sets_deadlines(path: Path) -> None:
    # The keeper's own auto_heal waits a backoff where there is no bus to do it; the demo spaces
    # out the requests that it sends.
    if allowed(path, "clock.py", "testing", "engine", "cli/demo.py"):
        return

    waits = {
        node.func.attr
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    } & {"sleep", "timeout"}

    # Recovery attempts by hand wait their backoff; users' code and strange pages get a limit.
    by_hand = {"magic/recoveries.py": "sleep", "magic/remedies.py": "timeout"}
    by_hand |= dict.fromkeys(("magic/rituals.py", "agents/pages.py"), "timeout")
    by_hand |= dict.fromkeys(("agents/performance.py", "cli/tour/system.py"), "timeout")
    assert waits <= {verb for place, verb in by_hand.items() if allowed(path, place)}


@every_module
def test_a_module_has_at_most_500_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


@every_module
def test_a_function_has_at_most_60_lines(path: Path) -> None:
    long = {
        node.name: lines
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > 60
    }

    assert not long


def test_sys_path_is_touched_by_the_two_guarded_doors_only() -> None:
    guarded, bare = set(), set()
    for path in FILES:
        if path.suffix != ".py":
            continue
        for node in parsed(path).body:
            if is_path_guard(node):
                guarded.add(label(path))
            elif any(ast.unparse(part) == "sys.path" for part in attributes(node)):
                bare.add(label(path))

    assert not bare
    assert guarded == {"src/__init__.py", "ai_framework.py"}


def test_no_module_has_a_name_that_could_hold_anything() -> None:
    vague = {"utils", "util", "helpers", "helper", "core", "common", "manager", "misc"}

    assert not [label(path) for path in SHIPPED if vague & {*name_of(path).split(".")}]


def test_a_class_name_has_one_home() -> None:
    names = Counter(
        node.name
        for path in SHIPPED
        for node in parsed(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )

    assert not [name for name, count in names.items() if count > 1]


def test_nothing_pretends() -> None:
    pretence = re.compile(
        r"placeholder|\bfor now\b|\bin production\b|simulated success|not implemented yet", re.I
    )
    elsewhere = (ROOT / "tests", ROOT / "docs", SRC / "zejzl/testing")

    found = [
        f"{label(path)}:{number}: {line.strip()}"
        for path in FILES
        if path.suffix in (".py", ".sh", ".sql", ".toml") or path.parent.name == ".ci"
        if not any(path.is_relative_to(folder) for folder in elsewhere)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pretence.search(line)
    ]

    assert not found


def test_the_root_holds_what_the_house_names() -> None:
    entries = {path.relative_to(ROOT).parts[0] for path in FILES}

    assert entries <= ROOT_FILES
