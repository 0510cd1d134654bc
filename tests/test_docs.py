"""What the documentation says is so: examples run, links lead somewhere, everything is told.

The pages of docs/reference/ are made by `python -m workflows.reference`.
"""

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import click
import pytest

from tests.tree import ROOT, SRC, label, listed
from workflows import reference
from zejzl.cli.commands import zejzl
from zejzl.errors import FailureClass
from zejzl.events import TYPES
from zejzl.settings import VENDOR_KEYS, Settings

PAGES = [path for path in listed() if path.suffix == ".md"]
FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```$", re.M | re.S)
DOCS = ROOT / "docs"
DOORS = ("zejzl", "./start.sh", "./orchestrate.sh")
INLINE = re.compile(r"`((?:zejzl|\./start\.sh|\./orchestrate\.sh) [^`]+)`")
PROGRAM = re.compile(r"python ((?:bench|workflows)/[\w/]+\.py|-m (?:bench|workflows)[\w.]*)")

# Compiled as a notebook would: `await` may stand at the top.
RUNNER = """
import ast, asyncio, inspect, sys
path, source = sys.argv[1], sys.stdin.read()
code = compile(source, path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
names = {"__name__": "__main__"}
if code.co_flags & inspect.CO_COROUTINE:
    asyncio.run(eval(code, names))
else:
    exec(code, names)
"""


@dataclass(frozen=True)
class Example:
    page: Path
    line: int
    source: str
    output: str | None = None

    def __str__(self) -> str:
        return f"{label(self.page)}:{self.line}"


def examples() -> Iterator[Example]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = list(FENCE.finditer(text))
        for found, after in itertools.zip_longest(blocks, blocks[1:]):
            if found[1] == "python":
                line = text.count("\n", 0, found.start(2)) + 1
                shown = after is not None and after[1] == "text"
                yield Example(page, line, found[2], after[2] if shown else None)


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Yield (target, anchor) of every link to a file of ours; the target is "" for the page."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"`[^`\n]*`", "", text)
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of the page's headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("example", list(examples()), ids=str)
def test_an_example_runs_as_it_is_written(example: Example, tmp_path: Path) -> None:
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER, str(example)],
        input="\n" * (example.line - 1) + example.source,
        cwd=tmp_path,
        env={**clean, "PYTHONPATH": os.pathsep.join([str(ROOT), str(SRC)])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert example.output is None or done.stdout == example.output


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_a_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target, anchor in links(page):
        there = (page.parent / target).resolve() if target else page
        is_page = there.suffix == ".md" and there.is_file()
        if not there.exists() or (anchor and is_page and anchor not in anchors(there)):
            broken.append(f"{target}#{anchor}")

    assert not broken


def test_every_page_is_linked_from_another() -> None:
    linked = {
        (page.parent / target).resolve()
        for page in PAGES
        for target, _ in links(page)
        if (page.parent / target).resolve() != page
    }

    assert not [label(page) for page in PAGES if page.name != "README.md" and page not in linked]


@pytest.mark.parametrize("page", [path for path in PAGES if DOCS in path.parents], ids=label)
def test_a_page_of_the_site_links_to_no_file_outside_of_it(page: Path) -> None:
    targets = [(page.parent / target).resolve() for target, _ in links(page) if target]

    assert not [label(target) for target in targets if DOCS not in target.parents]


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    pages = "".join(page.read_text("utf-8") for page in tmp_path.rglob("*.html"))
    styles = "".join(style.read_text("utf-8") for style in tmp_path.rglob("*.css"))
    tags = re.findall(r"<(?:script|link|img|iframe|source|object)[^>]*>", pages)
    assert len(tags) > 100
    assert not [tag for tag in tags if re.search(r"""(?:src|href|data)=["']?(?:\w+:)?//""", tag)]
    assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", styles)


@pytest.mark.parametrize("page", reference.PAGES)
def test_a_reference_page_tells_everything_there_is(page: str) -> None:
    # `python -m workflows.reference` writes it anew.
    assert page not in reference.stale()


def test_every_command_setting_event_and_error_is_documented() -> None:
    text = {name: (reference.FOLDER / f"{name}.md").read_text("utf-8") for name in reference.PAGES}

    assert not [name for name, _ in reference.commands() if f"## {name}\n" not in text["commands"]]
    named = [f"`{item.name}`" for item in fields(Settings) if item.name != "vendors"]
    assert not [name for name in named if name not in text["settings"]]
    assert not [key for keys in VENDOR_KEYS.values() for key in keys if key not in text["settings"]]
    assert not [tag for tag in TYPES if f"## {tag}\n" not in text["events"]]
    errors = [kind.__name__ for kind in reference.error_classes()]
    assert not [name for name in errors if f"## {name}\n" not in text["errors"]]
    assert not [word for word in FailureClass if f"| `{word}` |" not in text["errors"]]


def test_the_drawing_of_the_errors_holds_every_class_below_its_base() -> None:
    drawn, above = {}, [""] * 10
    for line in reference.errors_page().split("```")[1].splitlines()[1:]:
        depth = re.match(r"[│├└─ ]*", line)
        assert depth is not None
        level = depth.end() // 4
        above[level] = name = line[depth.end() :].split()[0]
        drawn[name] = above[level - 1] if level else ""

    classes = {kind.__name__: kind.__bases__[0].__name__ for kind in reference.error_classes()}

    assert drawn == classes | {"ZejzlError": ""}


def test_pages_are_written_anew_where_they_differ_and_only_there(tmp_path: Path) -> None:
    assert sorted(reference.write(tmp_path)) == sorted(reference.PAGES)
    (tmp_path / "events.md").write_text("another", encoding="utf-8")

    assert reference.stale(tmp_path) == ["events"]
    assert reference.write(tmp_path) == ["events"]
    assert reference.stale(tmp_path) == []


def test_the_check_names_the_pages_that_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    (tmp_path / "errors.md").unlink()

    assert reference.main(["--check"]) == 1
    assert "docs/reference/errors.md;" in capsys.readouterr().err


@dataclass(frozen=True)
class Line:
    """A command line that a page shows."""

    page: Path
    text: str

    def __str__(self) -> str:
        return f"{label(self.page)}: {self.text}"


def command_lines() -> Iterator[Line]:
    """Yield every command line of a console block, and of the text around."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in FENCE.finditer(text):
            if found[1] == "console":
                for line in found[2].splitlines():
                    if line.lstrip().startswith("$ "):
                        typed = line.lstrip()[2:].partition("  #")[0]
                        yield Line(page, typed.rstrip(" \\"))
        for inline in INLINE.findall(FENCE.sub("", text)):
            yield Line(page, " ".join(inline.split()))


def unknown(words: list[str]) -> list[str]:
    """Return what of a command line of zejzl there is not: its command, or options."""
    at: click.Command = zejzl
    rest = list(words)
    while isinstance(at, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        if not re.fullmatch(r"[a-z][a-z-]*", name):  # NAME, …: of any
            return []
        found = at.get_command(click.Context(at), name)
        if found is None:
            return [name]
        at = found
    known = {"--help", *(option for each in at.params for option in each.opts)}
    known |= {option for each in at.params for option in each.secondary_opts}
    return [
        word for word in rest if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known
    ]


@cache
def helped(script: str) -> str:
    """Return the help of one of the two scripts."""
    done = subprocess.run(
        [ROOT / script, "help" if "orchestrate" in script else "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def missing(text: str) -> list[str]:
    """Return what there is not of a command line that a page shows."""
    text = re.split(r" (?:[|<>]|&&) ", text)[0].replace("…", "")
    absent = [path for path in map(path_of, PROGRAM.findall(text)) if not (ROOT / path).is_file()]
    door, *rest = shlex.split(text) or [""]
    if door not in DOORS:
        return absent
    if door == "./start.sh":
        while rest and rest[0].startswith("--"):
            option = rest.pop(0)
            if option not in helped(door):
                return [option]
            if option == "--setup":  # what follows names an extra
                return []
    if door == "./orchestrate.sh":
        told = re.search(rf"^ *{re.escape(rest[0])}\b", helped(door), re.M) if rest else True
        options = [word for word in rest if word.startswith("--") and word not in helped(door)]
        return options if told else rest[:1]
    return unknown(rest)


def path_of(program: str) -> str:
    """Return the file that `python PROGRAM` runs."""
    if not program.startswith("-m "):
        return program
    path = program.removeprefix("-m ").replace(".", "/")
    return f"{path}/__main__.py" if (ROOT / path).is_dir() else f"{path}.py"


@pytest.mark.parametrize("line", sorted(set(command_lines()), key=str), ids=str)
def test_a_command_that_is_shown_exists_with_its_options(line: Line) -> None:
    assert missing(line.text) == []


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        ("zejzl ask --park hello", []),
        ("zejzl ask --perk hello", ["--perk"]),
        ("zejzl ask -z", ["-z"]),
        ("zejzl sing", ["sing"]),
        ("zejzl NAME --json", []),
        ("./start.sh --check", []),
        ("./start.sh --chuck", ["--chuck"]),
        ("./start.sh sing", ["sing"]),
        ("./orchestrate.sh test -k x", []),
        ("./orchestrate.sh tost", ["tost"]),
        ("./orchestrate.sh test --real", []),
        ("./orchestrate.sh test --unreal", ["--unreal"]),
        ("python bench/storms.py", []),
        ("python bench/storm.py", ["bench/storm.py"]),
        ("python -m workflows.references", ["workflows/references.py"]),
        ("git status", []),
    ],
)
def test_a_command_that_there_is_not_is_found(text: str, absent: list[str]) -> None:
    assert missing(text) == absent


def test_the_page_for_agents_is_short() -> None:
    assert len((ROOT / "AGENTS.md").read_text(encoding="utf-8").splitlines()) <= 100
