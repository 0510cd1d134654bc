"""What the documentation says is so: examples run, links lead somewhere, every setting is there.

`python -m tests.test_docs` writes the generated pages anew.
"""

import inspect
import itertools
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from tests.tree import ROOT, SRC, label, listed
from zejzl.events import TYPES
from zejzl.settings import VENDOR_KEYS, Settings

PAGES = [path for path in listed() if path.suffix == ".md"]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)
REFERENCE = ROOT / "docs/reference"

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


def settings_page() -> str:
    """Return the settings page: what Settings' docstring says, as tables."""
    docstring = str(Settings.__doc__).partition("Attributes:\n")[2]
    entries = re.findall(r"^(\w+): (.*(?:\n +.*)*)", textwrap.dedent(docstring), re.M)
    meaning = {name: " ".join(words.split()) for name, words in entries}
    rows = [
        f"| `{item.name}` | `ZEJZL_{item.name.upper()}` | {meaning[item.name]} | {default} |"
        for item in fields(Settings)
        if item.name != "vendors"
        for default in [shown(item)]
    ]
    vendors = [
        f"| {vendor} | {' or '.join(f'`{key}`' for key in keys)} "
        f"| `{vendor.upper()}_BASE_URL` | `{vendor.upper()}_MODEL` |"
        for vendor, keys in VENDOR_KEYS.items()
    ]
    return SETTINGS.format(rows="\n".join(rows), vendors="\n".join(vendors))


def commands_page() -> str:
    """Return the commands page: what click shows of each command."""
    import click

    from zejzl.cli.commands import zejzl

    sections = []
    for name, command in sorted(zejzl.commands.items()):
        if command.hidden:
            continue
        context = click.Context(command, info_name=f"zejzl {name}", terminal_width=96)
        sections.append(f"## {name}\n\n```text\n{command.get_help(context).rstrip()}\n```")
    return COMMANDS.format(sections="\n\n".join(sections))


def events_page() -> str:
    """Return the events page: what the docstrings of events.py say."""
    sections = []
    for tag, cls in sorted(TYPES.items()):
        lead, _, attributes = inspect.cleandoc(str(cls.__doc__)).partition("Attributes:")
        names = ", ".join(f"`{item.name}`" for item in fields(cls))
        entries = re.findall(
            r"^(\w+): (.*(?:\n +.*)*)", textwrap.dedent(attributes.lstrip("\n")), re.M
        )
        rows = [f"- `{name}`: {' '.join(words.split())}" for name, words in entries]
        body = "\n".join(rows) if rows else f"Fields: {names}."
        sections.append(f"## {tag}\n\n{lead.strip()}\n\n{body}")
    return EVENTS.format(sections="\n\n".join(sections))


def shown(setting: Field[Any]) -> str:
    """Return a setting's default, as a table says it."""
    default = setting.default
    if setting.name == "home":
        return "`zejzl` in your state folder (`~/.local/state`)"
    if default is MISSING:  # made anew for each: an empty table
        return "none"
    return "none" if default is None else f"`{default}`"


SETTINGS = """\
# Settings

<!-- Made from the docstring of zejzl.settings by `python -m tests.test_docs`. -->

Settings belong to one bus. They are read once, checked, and then fixed. The strongest comes
first: arguments, the environment, `.env`, `zejzl.toml` (both in the current folder), what the bus
keeps in its database (only the default provider), defaults. In the environment and in `.env` a
setting has the second name, in `zejzl.toml` and as an argument of `Settings` the first. `none` or
`off` switches a limit off. A name that is unknown and a value that cannot be are refused with a
`SettingsError`.

| setting | in the environment | meaning | default |
| --- | --- | --- | --- |
{rows}

## Vendors

A vendor whose key is set becomes a provider of the bus; `local` needs its address and no key. In
`zejzl.toml` the three are `api_key`, `base_url` and `model` in a table `[vendors.NAME]`. The names
that a vendor's own tools use (`OPENAI_BASE_URL`) are read as well. Keys are never logged or
stored; `providers` shows the last four letters of one.

| provider | key | address | model |
| --- | --- | --- | --- |
{vendors}
"""


COMMANDS = """\
# Commands

<!-- Made from the commands' own help by `python -m tests.test_docs`. -->

`./start.sh NAME …`, `zejzl NAME …`, `python -m zejzl NAME …` and `python ai_framework.py NAME …`
are the same. Exit codes: 0 well, 1 failed, 2 wrong usage, 3 unhealthy.

{sections}
"""

EVENTS = """\
# Events

<!-- Made from the docstrings of zejzl.events by `python -m tests.test_docs`. -->

What a bus writes down beside messages, in the table `events` of its database, as JSON with a
version `v` and a `type`. `bus.store.events(type=…)` reads it back.

{sections}
"""

GENERATED = {"settings": settings_page, "commands": commands_page, "events": events_page}


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


@pytest.mark.parametrize("page", GENERATED)
def test_a_reference_page_tells_everything_there_is(page: str) -> None:
    # `python -m tests.test_docs` writes it anew.
    text = (REFERENCE / f"{page}.md").read_text(encoding="utf-8")

    assert text == GENERATED[page]()


def test_the_page_for_agents_is_short() -> None:
    assert len((ROOT / "AGENTS.md").read_text(encoding="utf-8").splitlines()) <= 100


if __name__ == "__main__":
    for name, made in GENERATED.items():
        (REFERENCE / f"{name}.md").write_text(made(), encoding="utf-8")
