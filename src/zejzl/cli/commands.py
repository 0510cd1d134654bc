"""The commands: their names, options and help. What they do is in the other modules here.

Each takes `--json` (one JSON value on stdout) and `-v` (the log, and all that was tried).
"""

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zejzl.cli.group import EVERYBODY, FAILOVER, Work, command, named, of_bus, shown, zejzl
from zejzl.cli.terminal import FAILED, UNHEALTHY, WELL, Terminal, word
from zejzl.errors import Parked
from zejzl.events import to_json
from zejzl.settings import VENDOR_KEYS, Settings

if TYPE_CHECKING:
    from zejzl.cli.providers import Checked

__all__ = ["zejzl"]


def _who_else(
    ctx: click.Context, param: click.Parameter, failover: str | None
) -> bool | tuple[str, ...] | None:
    if failover is None or failover == EVERYBODY:
        return None if failover is None else True
    names = tuple(name.strip() for name in failover.split(",") if name.strip())
    if not names:
        raise click.UsageError(f"{FAILOVER}= names nobody: give names, or {FAILOVER} alone", ctx)
    return names


def asking(work: Work) -> Work:
    """Add the options that say how a question is asked."""
    for option in (
        click.option(
            FAILOVER,
            callback=_who_else,
            metavar="[=NAMES]",
            help="Let every other provider answer if it fails; or only NAMES (a,b).",
        ),
        click.option("--patience", type=float, help="Seconds to wait for the preferred provider."),
        click.option("--deadline", type=float, help="Seconds for everything together."),
        click.option("--temperature", type=float, help="Sampling temperature."),
        click.option("--max-tokens", type=int, help="Longest answer in tokens."),
        click.option("--system", metavar="TEXT", help="Instructions for the model."),
        click.option("-m", "--model", help="The provider's own name of the model."),
    ):
        work = option(work)
    return work


def _question(words: tuple[str, ...]) -> str:
    """Return what is asked: the words; with `-` among them, or none, what is piped in as well.

    Words alone leave the input be: it may belong to the script around, or never end.
    """
    dash = "-" in words
    typed = " ".join(word for word in words if word != "-")
    reads = sys.stdin is not None and (dash or (not words and not sys.stdin.isatty()))
    piped = sys.stdin.read() if reads else ""
    question = "\n\n".join(text for text in (typed, piped) if text.strip())
    if not question:
        raise click.UsageError(
            f'What is the question? For example: {word()} ask "why is the sky blue"'
        )
    return question


@command("ask")
@click.argument("words", nargs=-1)
@click.option("-p", "--provider", help="Who is to answer, and nobody else; NAME or NAME/MODEL.")
@click.option("-c", "--conversation", callback=named, help="Remember the turns under this name.")
@click.option("--stream/--no-stream", default=None, help="Show the answer while it comes.")
@click.option("--park", is_flag=True, help="Keep it where nobody can answer at present.")
@click.option("--key", help="Your own name for it: asked again under that, it is answered once.")
@asking
def ask(
    terminal: Terminal,
    words: tuple[str, ...],
    provider: str | None,
    conversation: str | None,
    stream: bool | None,
    park: bool,
    key: str | None,
    **how: Any,
) -> Coroutine[None, None, int]:
    """Ask one question and print the answer.

    The question is WORDS, what is piped in, or both: WORDS, a blank line, and what is piped in.

    With --park, one that nobody can answer at present is kept, as you asked for: the exit code
    is 0, stdout stays empty (it is for answers; with --json: {"parked": …}), and stderr tells
    the ticket. The command parked has the answer later.
    """
    if park and stream:
        raise click.UsageError("--park and --stream exclude each other: nobody waits for a stream")
    return _ask(
        terminal,
        _question(words),
        stream=sys.stdout.isatty() and not park if stream is None else stream,
        provider=provider,
        conversation_id=conversation,
        park=park,
        idempotency_key=key,
        **how,
    )


async def _ask(terminal: Terminal, question: str, *, stream: bool, **how: Any) -> int:
    from ai_framework import AsyncMessageBus
    from zejzl.cli.chat import Asking
    from zejzl.cli.chat import ask as ask_once

    asking = Asking(**how)
    try:
        async with AsyncMessageBus() as bus:
            reply = await ask_once(terminal, bus, question, asking, streams=stream)
    except Parked as ticket:
        if not asking.park:
            raise
        from zejzl.cli.parked import tell_ticket

        return await tell_ticket(terminal, Settings.from_env(), ticket)
    if terminal.as_json:
        terminal.json(reply)
    return WELL


@command("chat")
@click.argument("provider", required=False)
@click.argument("text", required=False)
@click.option(
    "-c",
    "--conversation",
    default="default",
    show_default=True,
    callback=named,
    help="Which one to go on with.",
)
@asking
def chat(
    terminal: Terminal,
    provider: str | None,
    text: str | None,
    conversation: str,
    **how: Any,
) -> int | Coroutine[None, None, int]:
    """Talk with PROVIDER, or with whoever can answer.

    /help lists what else you can do. With TEXT, ask that and leave. Piped lines are asked one
    after another.
    """
    how |= {"provider": provider, "conversation_id": conversation}
    if text is not None:
        return _ask(terminal, text, stream=sys.stdout.isatty(), **how)
    if sys.stdin is None:
        raise click.UsageError(f"a chat needs an input; for one question: {word()} ask QUESTION")
    if terminal.as_json and sys.stdin.isatty():
        raise click.UsageError("--json is for a TEXT or for piped lines")

    from ai_framework import AsyncMessageBus
    from zejzl.cli.chat import Asking, Chat

    return Chat(terminal, AsyncMessageBus(), Asking(**how)).run()


@command("providers")
async def providers(terminal: Terminal) -> int:
    """Show who can be asked, and which keys are missing."""
    from zejzl.cli import providers as who

    return shown(terminal, await who.providers(Settings.from_env()), who.show_providers)


@command("set-default")
@click.argument("provider")
async def set_default(terminal: Terminal, provider: str) -> int:
    """Let PROVIDER be asked first where none is named.

    It is kept in the database; ZEJZL_DEFAULT_PROVIDER wins over it.
    """
    from zejzl.cli import providers as who
    from zejzl.cli import reports

    settings = Settings.from_env()
    name = provider.strip().lower()
    async with reports.opened(settings) as store:
        seen = [bus.body["providers"] for bus in await reports.buses(store)]
        known = list(dict.fromkeys([*VENDOR_KEYS, *chain.from_iterable(seen)]))
        if name not in known:
            raise ValueError(f"no provider named {provider!r}; known: {', '.join(known)}")
        await store.keep_setting("default_provider", name)
    missing = who.missing(settings, name)
    if terminal.as_json:
        terminal.json(
            {
                "default_provider": name,
                "overridden_by": settings.default_provider,
                "missing": missing,
            }
        )
    elif missing:
        terminal.say(f"{name} is asked first once {' or '.join(missing)} is set")
    else:
        terminal.say(f"{name} is asked first from here on")
    if settings.default_provider not in (None, name):
        terminal.note(f"but the setting default_provider={settings.default_provider} wins over it")
    return WELL


@command("status")
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="Seconds between two looks of --watch.",
)
def status(terminal: Terminal, watch: bool, interval: float) -> int:
    """Show whether a bus runs, how it is, and how requests ended.

    With --watch it is redrawn on a terminal. Piped, there is one block (with --json: one line)
    whenever something has changed.
    """
    from zejzl.cli import reports

    settings = Settings.from_env()
    if not watch:
        return shown(terminal, asyncio.run(reports.status(settings)), reports.show_status)
    with suppress(KeyboardInterrupt):
        from zejzl.cli.watch import watch as look

        asyncio.run(look(terminal, settings, interval))
    return WELL


@command("health")
@click.option("--no-providers", is_flag=True, help="Ask nobody: only check the database.")
async def health(terminal: Terminal, no_providers: bool) -> int:
    """Check the database and every provider.

    Each provider is asked one tiny question, which costs a few tokens. The exit code is 3 if
    anything is not well.
    """
    from zejzl.cli import providers as who

    return _judged(terminal, await who.health(Settings.from_env(), asks=not no_providers))


def _judged(terminal: Terminal, found: "list[Checked]") -> int:
    from zejzl.cli import providers as who

    shown(terminal, found, who.show_health)
    return WELL if all(one.healthy for one in found) else UNHEALTHY


@command("history")
@click.argument("conversation", default="default", callback=named)
@click.option("--all", "everything", is_flag=True, help="The newest messages of all, failed too.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
async def history(terminal: Terminal, conversation: str, everything: bool, limit: int) -> int:
    """Show the turns of CONVERSATION, oldest first."""
    from zejzl.cli import chat, reports

    async with reports.kept(Settings.from_env()) as store:
        if store is None:
            found = []
        elif everything:
            found = await store.messages(limit=limit)
        else:
            found = await store.history(conversation, limit)
    if terminal.as_json:
        terminal.json([message.to_json() for message in found])
    elif not found:
        terminal.note("nothing there yet" if everything else f"{conversation} has no turns yet")
    else:
        terminal.say("\n\n".join(chat.told(message) for message in found))
    return WELL


@command("heal")
@click.argument("component", required=False)
@click.option("--issue", help="What is wrong with COMPONENT, for the record.")
@click.option("--log", is_flag=True, help="Leave COMPONENT be: show its recovery log.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--probe", is_flag=True, help="Ask every provider now instead, as `health` does.")
@of_bus
async def heal(
    terminal: Terminal,
    component: str | None,
    issue: str | None,
    log: bool,
    limit: int,
    probe: bool,
    bus: str,
) -> int:
    """Show what failed and what was done; or heal COMPONENT.

    Alone, this is the recovery log, newest first: every retry, failover and wait, and whether it
    helped. With a COMPONENT or provider, the running bus makes one recovery attempt (a blue
    spark) and tells what it did; the exit code is 3 if that did not help, or nothing was tried.
    """
    from zejzl.cli import controls, reports
    from zejzl.cli import providers as who

    settings = Settings.from_env()
    if probe:
        return _judged(terminal, await who.health(settings, asks=True))
    if component is not None and not log:
        asked = {"component": component, "issue": issue or "asked for by hand"}
        row = await controls.have(terminal, settings, bus, "heal", **asked)
        shown(terminal, row, controls.show_healed)
        return WELL if row["success"] else UNHEALTHY
    if issue is not None:
        raise click.UsageError("--issue is for a COMPONENT that is to be healed")
    async with reports.kept(settings) as store:
        found = await reports.recoveries(store, component)
    if terminal.as_json:
        helped, tried = reports.counts(found)
        terminal.json(
            {
                "recoveries": [to_json(one) for one in found[:limit]],
                "counted": tried,
                "success_rate": helped / tried if tried else None,
            }
        )
    else:
        reports.show_recoveries(terminal, found, limit=limit)
    return WELL


@command("reset")
@click.argument("name")
@of_bus
async def reset(terminal: Terminal, name: str, bus: str) -> int:
    """Close a circuit breaker of the running bus.

    NAME is a provider or a component; what belongs to it is closed as well.
    """
    from zejzl.cli import controls

    done = await controls.have(terminal, Settings.from_env(), bus, "reset", name=name)
    return shown(terminal, done, controls.show_reset)


@command("rituals")
@of_bus
async def rituals(terminal: Terminal, bus: str) -> int:
    """Show the rituals (runbooks) and what each does.

    Those of one's own are known to a running bus alone.
    """
    from zejzl.cli import controls

    found = controls.rituals(await controls.looked_at(terminal, Settings.from_env(), bus))
    return shown(terminal, found, controls.show_rituals)


@command("ritual")
@click.argument("name")
@click.option(
    "--file",
    type=click.Path(resolve_path=True),
    help="The file it is about (fairy_ward guards it).",
)
@of_bus
async def ritual(terminal: Terminal, name: str, file: str | None, bus: str) -> int:
    """Perform a ritual (a runbook) in the running bus.

    The command rituals lists them. The exit code is 1 if a step failed, and 3 if holly_blessing
    found anybody unwell.
    """
    from zejzl.cli import controls
    from zejzl.magic.rituals import HOLLY_BLESSING

    asked = {"name": name, "target_file": file}
    done = await controls.have(terminal, Settings.from_env(), bus, "ritual", **asked)
    shown(terminal, done, controls.show_ritual)
    if done["success"]:
        return WELL
    return UNHEALTHY if name == HOLLY_BLESSING else FAILED


@command("wards")
@click.option("--restore", metavar="FILE", help="First make FILE what it was when guarded.")
@click.option("--forget", metavar="FILE", help="First guard FILE no longer.")
async def wards(terminal: Terminal, restore: str | None, forget: str | None) -> int:
    """Check the files that are guarded (by a ward).

    The ritual fairy_ward guards one. What a restored file was instead is kept beside it, as
    FILE.tampered-1. No bus need run. The exit code is 3 if a file is not intact.
    """
    from zejzl.cli import wards as guards

    found = await guards.wards(terminal, Settings.from_env(), restore=restore, forget=forget)
    shown(terminal, found, guards.show_wards)
    return WELL if all(one.state == "intact" for one in found) else UNHEALTHY


@command("shield")
@click.argument("position", type=click.Choice(["up", "down"]))
@of_bus
async def shield(terminal: Terminal, position: str, bus: str) -> int:
    """Raise or lower the fairy shield (admission control).

    While it is up in the running bus, critical requests alone pass. Raising takes 10 of the
    retry budget; the exit code is 1 if there is less.
    """
    from zejzl.cli import controls

    asked = {"raised": position == "up"}
    done = await controls.have(terminal, Settings.from_env(), bus, "shield", **asked)
    return shown(terminal, done, controls.show_shield)


@command("preferences")
@of_bus
async def preferences(terminal: Terminal, bus: str) -> int:
    """Show which remedy is preferred for what, and why.

    This is what the recovery policy has learned: how often each remedy is chosen first, how often
    it helps, its cost (of 1), how often it was tried, and what an operator has added.
    """
    from zejzl.cli import controls

    found = controls.preferences(await controls.looked_at(terminal, Settings.from_env(), bus))
    return shown(terminal, found, controls.show_preferences)


@command("replay")
@click.argument("incident", required=False)
@click.option(
    "--since", metavar="TIME", help="What the database has since then; or 2h: so long ago."
)
@click.option("--until", metavar="TIME", help="And before then.")
@click.option("--stream", is_flag=True, help="The answers of that time were streamed.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change a setting.")
@click.option(
    "--against", multiple=True, metavar="NAME=VALUE,…", help="Compare with these; may be repeated."
)
@click.option("--save", type=click.Path(path_type=Path), help="Keep the incident as a TOML file.")
@click.option("--seed", type=int, default=1, show_default=True, help="Repeats the same chance.")
def replay(
    terminal: Terminal,
    incident: str | None,
    since: str | None,
    until: str | None,
    stream: bool,
    **how: Any,
) -> int:
    """Show what other settings would have made of an incident.

    INCIDENT is a TOML script, or `last`: the newest failures that the database has, or --since.
    It is simulated: no provider is asked, and an hour takes seconds.
    """
    from zejzl.cli.replay import Span
    from zejzl.cli.replay import replay as play

    span = Span(incident=incident, since=since, until=until, stream=stream)
    return play(terminal, span, **how)


@command("demo")
@click.option(
    "--seconds",
    type=click.FloatRange(1.0, 600.0),
    default=10.0,
    show_default=True,
    help="How long the traffic lasts.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Repeats the same traffic.")
async def demo(terminal: Terminal, seconds: float, seed: int) -> int:
    """Watch the bus heal itself, without a key.

    Three providers on this machine fail by a timetable while requests come. No key and no
    network is needed, and nothing is kept. Everything shown is measured.
    """
    from zejzl.cli import demo as show

    return await show.run(terminal, seconds=seconds, seed=seed)


# The help lists the commands in the order in which they are made: these come after those above.
from zejzl.cli import (  # noqa: E402, F401
    experiments,
    learn,
    local,
    pantheon,
    requests,
    stores,
    tour,
)
