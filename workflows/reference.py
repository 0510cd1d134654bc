"""The pages of docs/reference/: made of what the code says of itself, and never by hand.

python -m workflows.reference            writes them
python -m workflows.reference --check    compares; exit code 1, with the names of those that differ
"""

import argparse
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import click

from zejzl import errors
from zejzl.errors import FailureClass, ZejzlError
from zejzl.events import TYPES
from zejzl.settings import VENDOR_KEYS, Settings

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"

SETTINGS = """\
# Settings

<!-- Made from the docstring of zejzl.settings by `python -m workflows.reference`. -->

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

<!-- Made from the commands' own help by `python -m workflows.reference`. -->

`./start.sh NAME …`, `zejzl NAME …`, `python -m zejzl NAME …` and `python ai_framework.py NAME …`
are the same. Exit codes: 0 well, 1 failed, 2 wrong usage, 3 unhealthy.

{sections}
"""

EVENTS = """\
# Events

<!-- Made from the docstrings of zejzl.events by `python -m workflows.reference`. -->

What a bus writes down beside messages, in the table `events` of its database, as JSON with a
version `v` and a `type`. `bus.store.events(type=…)` reads it back.

{sections}
"""

ERRORS = """\
# Errors

<!-- Made from zejzl.errors by `python -m workflows.reference`. -->

What the bus raises, all of it in `zejzl.errors`. Catch as high in the tree as you can act:

```text
{tree}
```

{rules}

{sections}

## What went wrong, in one word

`failure_class` of a `ProviderError`, and what is stored and counted. Beside each stands the class
that says it as a rule; a word without one is said by another class (a stall by an `AttemptTimeout`
or an `Incomplete`), or only written down.

| word | as a rule a |
| --- | --- |
{words}
"""


def settings_page() -> str:
    """Return the settings page: what Settings' docstring says, as tables."""
    meaning = dict(attributes_of(Settings)[1])
    rows = [
        f"| `{item.name}` | `ZEJZL_{item.name.upper()}` | {meaning[item.name]} | {shown(item)} |"
        for item in fields(Settings)
        if item.name != "vendors"
    ]
    vendors = [
        f"| {vendor} | {' or '.join(f'`{key}`' for key in keys)} "
        f"| `{vendor.upper()}_BASE_URL` | `{vendor.upper()}_MODEL` |"
        for vendor, keys in VENDOR_KEYS.items()
    ]
    return SETTINGS.format(rows="\n".join(rows), vendors="\n".join(vendors))


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command that is not hidden, with its whole name: "chat", "store check"."""
    from zejzl.cli.commands import zejzl

    return below(zejzl, ())


def below(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    """Yield a group's commands, each before those below it."""
    for name, command in sorted(group.commands.items()):
        if not command.hidden:
            whole = (*path, name)
            yield " ".join(whole), command
            if isinstance(command, click.Group):
                yield from below(command, whole)


def commands_page() -> str:
    """Return the commands page: what click shows of each command."""
    sections = []
    for name, command in commands():
        context = click.Context(command, info_name=f"zejzl {name}", terminal_width=96)
        sections.append(f"## {name}\n\n```text\n{command.get_help(context).rstrip()}\n```")
    return COMMANDS.format(sections="\n\n".join(sections))


def events_page() -> str:
    """Return the events page: what the docstrings of events.py say."""
    sections = []
    for tag, cls in sorted(TYPES.items()):
        lead, entries = attributes_of(cls)
        names = ", ".join(f"`{item.name}`" for item in fields(cls))
        rows = [f"- `{name}`: {meaning}" for name, meaning in entries]
        body = "\n".join(rows) if rows else f"Fields: {names}."
        sections.append(f"## {tag}\n\n{lead}\n\n{body}")
    return EVENTS.format(sections="\n\n".join(sections))


def error_classes() -> list[type[ZejzlError]]:
    """Return every class of errors.py that can be raised, in the order of the file."""
    found = [
        kind
        for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, ZejzlError)
    ]
    return list(dict.fromkeys(found))


def errors_page() -> str:
    """Return the errors page: the tree, and of each class what it means and carries."""
    _, _, drawing = inspect.cleandoc(str(errors.__doc__)).partition("\n\n")
    lines = drawing.split("\n")
    tree = [line for line in lines if line.startswith("    ")]
    rules = " ".join(lines[len(tree) :]).strip()
    words = []
    for word in FailureClass:
        kind = errors.ERRORS.get(word)
        words.append(f"| `{word}` | {f'`{kind.__name__}`' if kind else '–'} |")
    return ERRORS.format(
        tree=textwrap.dedent("\n".join(tree)),
        rules=textwrap.fill(rules, 100),
        sections="\n\n".join(error_section(kind) for kind in error_classes()),
        words="\n".join(words),
    )


def error_section(kind: type[ZejzlError]) -> str:
    """Return what the page says of one class; what it inherits is told where it is from."""
    lead, entries = attributes_of(kind)
    bases = [base for base in kind.__bases__ if base is not Exception]
    above = " and ".join(f"`{base.__name__}`" for base in bases)
    rows = [f"- `{name}`: {meaning}" for name, meaning in entries]
    parts = [f"## {kind.__name__}", f"Is a {above}. {lead}" if above else lead, "\n".join(rows)]
    return "\n\n".join(part for part in parts if part)


def attributes_of(cls: type) -> tuple[str, list[tuple[str, str]]]:
    """Return what a docstring says of its class, and of each attribute."""
    lead, _, listed = inspect.cleandoc(str(cls.__doc__)).partition("Attributes:")
    entries = re.findall(r"^(\w+): (.*(?:\n +.*)*)", textwrap.dedent(listed.lstrip("\n")), re.M)
    return lead.strip(), [(name, " ".join(meaning.split())) for name, meaning in entries]


def shown(setting: Field[Any]) -> str:
    """Return a setting's default, as a table says it."""
    default = setting.default
    if setting.name == "home":
        return "`zejzl` in your state folder (`~/.local/state`)"
    if default is MISSING:  # made anew for each: an empty table
        return "none"
    return "none" if default is None else f"`{default}`"


PAGES: dict[str, Callable[[], str]] = {
    "commands": commands_page,
    "errors": errors_page,
    "events": events_page,
    "settings": settings_page,
}


def stale(folder: Path | None = None) -> list[str]:
    """Return the names of the pages that are not what the code says."""
    folder = folder or FOLDER
    return [name for name, made in PAGES.items() if _kept(folder / f"{name}.md") != made()]


def write(folder: Path | None = None) -> list[str]:
    """Write the pages that differ anew; return their names."""
    folder = folder or FOLDER
    changed = stale(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in changed:
        (folder / f"{name}.md").write_text(PAGES[name](), encoding="utf-8")
    return changed


def _kept(page: Path) -> str:
    try:
        return page.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or compare; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m workflows.reference", description="Make the pages of docs/reference/."
    )
    parser.add_argument("--check", action="store_true", help="only compare; 1 if a page differs")
    if not parser.parse_args(arguments).check:
        changed = write()
        print(f"written: {', '.join(changed)}" if changed else "nothing to write")
        return 0
    different = stale()
    if different:
        names = ", ".join(f"docs/reference/{name}.md" for name in different)
        remedy = "write them with `.venv/bin/python -m workflows.reference`"
        print(f"not what the code says: {names}; {remedy}", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
