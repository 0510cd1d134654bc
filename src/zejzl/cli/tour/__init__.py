"""`zejzl tour`, which is `python token_haze.py`: five topics, every figure measured on the way."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zejzl.cli.group import command
from zejzl.cli.terminal import PIPED_WIDTH, WELL, Terminal, line, safe, told, word

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
WELCOME = (
    "A message bus for language models that heals itself. What it counts and times is measured now."
)
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


def topic(said: str) -> str:
    """Return the topic that a number or name means.

    Raises:
        ValueError: If there is none; says which is nearest.
    """
    asked = said.strip().lower()
    if asked.isdecimal() and 1 <= int(asked) <= len(NAMES):
        return NAMES[int(asked) - 1]
    if asked in NAMES:
        return asked
    near = get_close_matches(asked, NAMES, 1)
    known = f"did you mean {near[0]}?" if near else f"known: 1 to {len(NAMES)}, {', '.join(NAMES)}"
    raise ValueError(f"no topic {line(asked)!r}; {known}")


@command("tour")
@click.option(
    "-t",
    "--topic",
    "topics",
    metavar="TOPIC",
    multiple=True,
    help="Only this one, by number or name; may be repeated.",
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
    if text is not None:
        from zejzl.cli.tour.tokens import checked

        checked(text)
    if plain:
        from rich.console import Console

        terminal.out, terminal.err = (
            Console(stderr=err, highlight=False, force_terminal=False, width=PIPED_WIDTH)
            for err in (False, True)
        )
    chosen = wanted([topic(each) for each in topics] or ["all"])
    settings = Settings.from_env()
    with _no_trace():
        if interactive:
            return _interactive(terminal, settings, text)
        return _all(terminal, chosen, settings, text)


def _all(terminal: Terminal, chosen: list[str], settings: "Settings", text: str | None) -> int:
    """Visit topics one after the other, the others where one fails; return the worst code."""
    codes: list[int] = [WELL]
    found: dict[str, object] = {}
    if not terminal.as_json:
        _welcome(terminal)
    for name in chosen:
        try:
            if terminal.as_json:
                found[name] = asyncio.run(_look(name, settings, text))
            else:
                _visit(terminal, name, settings, text)
        except BrokenPipeError:
            raise
        except Exception as problem:  # noqa: BLE001 - told; what is sick is seen in what follows
            codes.append(terminal.fail(problem))
            found[name] = {"error": told(problem)}
    if terminal.as_json:
        terminal.json(found)
    elif "quickstart" not in chosen:
        terminal.say(f"\nmore: {word()} tour --topic all", "dim")
    return max(codes)


@contextmanager
def _no_trace() -> Iterator[None]:
    """Let tiktoken's vocabulary, where nobody has put it yet, be gone when the tour is over."""
    if {"TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"} & os.environ.keys():
        yield
        return
    with ExitStack() as stack:
        with suppress(OSError):  # no place to write: the vocabulary is not put anywhere
            if not (Path(tempfile.gettempdir()) / "data-gym-cache").exists():
                made = tempfile.TemporaryDirectory(prefix="zejzl-tour-")
                os.environ["TIKTOKEN_CACHE_DIR"] = stack.enter_context(made)
                stack.callback(os.environ.pop, "TIKTOKEN_CACHE_DIR")
        yield


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
                chosen = wanted([topic(asked)])
            except ValueError as problem:
                terminal.say(str(problem), "yellow", prose=True)
                continue
            own = text
            if chosen == ["tokens"] and sys.stdin and sys.stdin.isatty():
                own = _line("a text of yours (Enter: ours)? ") or text
            for name in chosen:
                try:
                    _visit(terminal, name, settings, own)
                except BrokenPipeError:
                    raise
                except Exception as problem:  # noqa: BLE001 - told; another topic may do better
                    terminal.fail(problem)
    except KeyboardInterrupt:
        terminal.say("\nGoodbye.")
        raise  # the command line knows whether it was Ctrl-C or SIGTERM
    terminal.say("Goodbye.")
    return WELL


def _asked(terminal: Terminal) -> str | None:
    """Return what was chosen; None: to leave."""
    terminal.say("")
    choices = [(str(number), *of) for number, of in enumerate(TOPICS.items(), 1)]
    terminal.table(["", "topic", "shows"], [*choices, ("q", "leave", "")])
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
