"""`zejzl tour`, which is `python token_haze.py`: five topics, every figure measured on the way."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from itertools import chain
from typing import TYPE_CHECKING

import click

from zejzl.cli.group import command
from zejzl.cli.terminal import INTERRUPTED, PIPED_WIDTH, WELL, Terminal, line, safe, word

if TYPE_CHECKING:
    from zejzl.settings import Settings

HEADER = r"""
               _        _
 ____   ___   (_) ____ | |
|_  /  / _ \  | ||_  / | |
 / /  |  __/  | | / /  | |
/___|  \___| _/ |/___| |_|
            |__/
"""
WELCOME = "A message bus for language models that heals itself. Every figure below is measured now."
TOPICS = {
    "tokens": "how text falls into tokens, and what that costs",
    "performance": "what the bus does on this machine, with healing and without",
    "pantheon": "nine agents on one small task",
    "system": "versions, store, Redis, providers, disk, what is missing",
    "quickstart": "what to type next",
    "all": "all of the above",
}
NAMES = tuple(TOPICS)
LEAVE = ("q", "quit", "exit", "7")


class Topic(click.ParamType[str]):
    """A topic's number or name."""

    name = "topic"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        asked = str(value).strip().lower()
        if asked.isdecimal() and 1 <= int(asked) <= len(NAMES):
            return NAMES[int(asked) - 1]
        if asked in NAMES:
            return asked
        near = get_close_matches(asked, NAMES, 1)
        known = (
            f"did you mean {near[0]}?" if near else f"known: 1 to {len(NAMES)}, {', '.join(NAMES)}"
        )
        self.fail(f"no topic {line(asked)!r}; {known}", param, ctx)


@command("tour")
@click.option(
    "-t", "--topic", "topics", type=Topic(), multiple=True, help="Only this one; may be repeated."
)
@click.option("-i", "--interactive", is_flag=True, help="Choose topics one after the other.")
@click.option("--text", help="A text of your own, for the tokens.")
@click.option("--plain", is_flag=True, help="No colours, no bars, nothing but text.")
def tour(
    terminal: Terminal, topics: tuple[str, ...], interactive: bool, text: str | None, plain: bool
) -> int:
    """See what zejzl is and does.

    It takes a few seconds and needs no key.

    Topics: 1 tokens, 2 performance, 3 pantheon, 4 system, 5 quickstart, 6 all. Nothing is kept,
    and no network is needed.
    """
    from zejzl.settings import Settings

    if interactive and (topics or terminal.as_json):
        raise click.UsageError("--interactive asks for the topics: leave out --topic and --json")
    if text is not None and not text.strip():
        raise click.UsageError("--text needs a text: it is empty")
    if plain:
        from rich.console import Console

        terminal.out, terminal.err = (
            Console(stderr=err, highlight=False, force_terminal=False, width=PIPED_WIDTH)
            for err in (False, True)
        )
    settings = Settings.from_env()
    if interactive:
        return _interactive(terminal, settings, text)
    chosen = wanted(topics or ("all",))
    if terminal.as_json:
        found = {name: asyncio.run(_look(name, settings, text)) for name in chosen}
        terminal.json(found)
        return WELL
    _welcome(terminal)
    for name in chosen:
        _visit(terminal, name, settings, text)
    if "quickstart" not in chosen:
        terminal.say(f"\nmore: {word()} tour --topic all", "dim")
    return WELL


def wanted(topics: Sequence[str]) -> list[str]:
    """Return the topics to visit, each once, in the tour's order."""
    every = [name for name in NAMES if name != "all"]
    asked = set(chain.from_iterable(every if name == "all" else [name] for name in topics))
    return [name for name in every if name in asked]


async def _look(name: str, settings: "Settings", text: str | None) -> object:
    """Return what a topic has to show; what it needs is imported when it is visited."""
    if name == "tokens":
        from zejzl.cli.tour import tokens

        return await tokens.look(settings, tokens.SAMPLE if text is None else text)
    if name == "performance":
        from zejzl.cli.tour import performance

        return await performance.look()
    if name == "pantheon":
        from zejzl.cli.tour import nine

        return await nine.look()
    if name == "system":
        from zejzl.cli.tour import system

        return await system.look(settings)
    from zejzl.cli.tour import quickstart

    return quickstart.look()


def _show(name: str) -> Callable[[Terminal, object], None]:
    from zejzl.cli.tour import nine, performance, quickstart, system, tokens

    shows: dict[str, Callable[[Terminal, object], None]] = {
        "tokens": tokens.show,  # type: ignore[dict-item]  # each is shown what it has found
        "performance": performance.show,  # type: ignore[dict-item]
        "pantheon": nine.show,  # type: ignore[dict-item]
        "system": system.show,  # type: ignore[dict-item]
        "quickstart": quickstart.show,  # type: ignore[dict-item]
    }
    return shows[name]


def _welcome(terminal: Terminal) -> None:
    terminal.say(HEADER.strip("\n"), "bold cyan")
    terminal.say("")
    terminal.say(WELCOME, prose=True)


def _visit(terminal: Terminal, name: str, settings: "Settings", text: str | None) -> None:
    number = NAMES.index(name) + 1
    terminal.say(f"\n{number}  {name}: {TOPICS[name]}", "bold magenta", prose=True)
    with terminal.waiting("looking …"):
        found = asyncio.run(_look(name, settings, text))
    _show(name)(terminal, found)


def _interactive(terminal: Terminal, settings: "Settings", text: str | None) -> int:
    """Let somebody choose, until they leave."""
    _welcome(terminal)
    try:
        while (asked := _asked(terminal)) is not None:
            try:
                chosen = wanted([Topic().convert(asked, None, None)])
            except click.BadParameter as problem:
                terminal.say(problem.message, "yellow", prose=True)
                continue
            for name in chosen:
                own = text
                if chosen == ["tokens"] and sys.stdin and sys.stdin.isatty():
                    own = _line("a text of yours (Enter: ours)? ") or text
                _visit(terminal, name, settings, own)
    except KeyboardInterrupt:
        terminal.say("\nGoodbye.")
        return INTERRUPTED
    terminal.say("Goodbye.")
    return WELL


def _asked(terminal: Terminal) -> str | None:
    """Return what was chosen; None: to leave."""
    terminal.say("")
    for number, (name, does) in enumerate(TOPICS.items(), 1):
        terminal.say(f"{number}  {name:<12} {does}", prose=True)
    terminal.say("q  leave")
    while True:
        said = _line("which? ")
        if said is None or said.strip().lower() in LEAVE:
            return None
        if said.strip():
            return safe(said.strip())


def _line(prompt: str) -> str | None:
    """Return a line that was typed or piped in; None at the end of it."""
    print(prompt, end="", flush=True)
    said = sys.stdin.readline() if sys.stdin else ""
    if not (sys.stdin and sys.stdin.isatty()):
        print(line(said))  # as a terminal would show it
    elif not said:
        print()
    return said.rstrip("\n") if said else None
