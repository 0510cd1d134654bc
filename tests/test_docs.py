"""What the documentation says is so: examples run, links lead somewhere, every setting is there.

`python -m tests.test_docs` writes the generated pages anew.
"""

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import pytest

from tests.tree import ROOT, SRC, label, listed
from zejzl.settings import VENDOR_KEYS, Settings

PAGES = [path for path in listed() if path.suffix == ".md"]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)
SETTINGS_PAGE = ROOT / "docs/reference/settings.md"

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

    def __str__(self) -> str:
        return f"{label(self.page)}:{self.line}"


def examples() -> Iterator[Example]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in FENCE.finditer(text):
            if found[1] == "python":
                yield Example(page, text.count("\n", 0, found.start(2)) + 1, found[2])


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
        for default in [shown(item.default)]
    ]
    vendors = [
        f"| {vendor} | {' or '.join(f'`{key}`' for key in keys)} "
        f"| `{vendor.upper()}_BASE_URL` | `{vendor.upper()}_MODEL` |"
        for vendor, keys in VENDOR_KEYS.items()
    ]
    return SETTINGS.format(rows="\n".join(rows), vendors="\n".join(vendors))


def shown(default: object) -> str:
    if default is MISSING:
        return "`zejzl` in your state folder (`~/.local/state`)"
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
that a vendor's own tools use (`OPENAI_BASE_URL`) are read as well. Keys are never logged, stored
or shown.

| provider | key | address | model |
| --- | --- | --- | --- |
{vendors}
"""


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


def test_the_settings_page_tells_every_setting() -> None:
    # `python -m tests.test_docs` writes it anew.
    assert SETTINGS_PAGE.read_text(encoding="utf-8") == settings_page()


def test_the_page_for_agents_is_short() -> None:
    assert len((ROOT / "AGENTS.md").read_text(encoding="utf-8").splitlines()) <= 100


if __name__ == "__main__":
    SETTINGS_PAGE.write_text(settings_page(), encoding="utf-8")
