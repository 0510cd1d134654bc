"""The commands: their names, options and help. What they do is in chat, reports and demo.

Each takes `--json` (one JSON value on stdout) and `-v` (the log, and all that was tried).
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

import zejzl as package
from zejzl.cli.terminal import UNHEALTHY, WELL, Terminal, told, word
from zejzl.events import to_json
from zejzl.settings import VENDOR_KEYS, Settings

if TYPE_CHECKING:
    from zejzl.cli.providers import Checked

Work = Callable[..., int | Coroutine[None, None, int]]
EVERYBODY = "*"
FAILOVER = "--failover"


class Commands(click.Group):
    """All commands in the order of a newcomer's interest, and the seed's other names for them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, "providers" if cmd_name == "list" else cmd_name)


class Command(click.Command):
    """A command whose `--failover` may stand alone: `--failover=NAMES` names some, as with ls."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        whole = [f"{FAILOVER}={EVERYBODY}" if word == FAILOVER else word for word in args[:end]]
        return super().parse_args(ctx, whole + args[end:])


@click.group(cls=Commands, invoke_without_command=True)
@click.version_option(package.__version__, "--version", message="zejzl %(version)s")
@click.pass_context
def zejzl(ctx: click.Context) -> None:
    """Talk to language models through a message bus that heals itself.

    It finds providers by their keys in the environment or in .env (the command providers lists
    them); with none, an offline provider answers. The command demo shows the healing, without a
    key or a network.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def command(name: str) -> Callable[[Work], click.Command]:
    """Make a command of a function that takes the terminal and the options.

    It returns the exit code, or a coroutine that does. Failures are told and become exit codes.
    """

    def make(work: Work) -> click.Command:
        @zejzl.command(name, cls=Command)
        @click.option("--json", "as_json", is_flag=True, help="Print one JSON value, for programs.")
        @click.option("-v", "--verbose", is_flag=True, help="Show the log, and all that was tried.")
        @wraps(work)
        def run(as_json: bool, verbose: bool, **options: Any) -> int:
            terminal = Terminal(as_json=as_json, verbose=verbose)
            with terminal.logging():
                try:
                    done = work(terminal, **options)
                    return done if isinstance(done, int) else asyncio.run(done)
                except (BrokenPipeError, click.ClickException):
                    raise
                except Exception as problem:  # noqa: BLE001 - told; a traceback helps nobody here
                    if as_json:
                        terminal.json({"error": told(problem)})
                    return terminal.fail(problem)

        return run

    return make


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
@click.option("-c", "--conversation", help="Remember the turns under this name.")
@click.option("--stream/--no-stream", default=None, help="Show the answer while it comes.")
@asking
def ask(
    terminal: Terminal,
    words: tuple[str, ...],
    provider: str | None,
    conversation: str | None,
    stream: bool | None,
    **how: Any,
) -> Coroutine[None, None, int]:
    """Ask one question and print the answer.

    The question is WORDS, what is piped in, or both: WORDS, a blank line, and what is piped in.
    """
    return _ask(
        terminal,
        _question(words),
        stream=sys.stdout.isatty() if stream is None else stream,
        provider=provider,
        conversation_id=conversation,
        **how,
    )


async def _ask(terminal: Terminal, question: str, *, stream: bool, **how: Any) -> int:
    from ai_framework import AsyncMessageBus
    from zejzl.cli.chat import Asking
    from zejzl.cli.chat import ask as ask_once

    async with AsyncMessageBus() as bus:
        reply = await ask_once(terminal, bus, question, Asking(**how), streams=stream)
    if terminal.as_json:
        terminal.json(reply)
    return WELL


@command("chat")
@click.argument("provider", required=False)
@click.argument("text", required=False)
@click.option(
    "-c", "--conversation", default="default", show_default=True, help="Which one to go on with."
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

    found = await who.providers(Settings.from_env())
    terminal.json(found) if terminal.as_json else who.show_providers(terminal, found)
    return WELL


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
        seen = [bus.body.get("providers", ()) for bus in await reports.buses(store)]
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
async def status(terminal: Terminal) -> int:
    """Show whether a bus runs, and how requests ended."""
    from zejzl.cli import reports

    found = await reports.status(Settings.from_env())
    terminal.json(found) if terminal.as_json else reports.show_status(terminal, found)
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

    terminal.json(found) if terminal.as_json else who.show_health(terminal, found)
    return WELL if all(one.healthy for one in found) else UNHEALTHY


@command("history")
@click.argument("conversation", default="default")
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
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--probe", is_flag=True, help="Ask every provider now instead, as `health` does.")
async def heal(terminal: Terminal, component: str | None, limit: int, probe: bool) -> int:
    """Show what failed and what was done about it.

    This is the recovery log, newest first: every retry, failover and wait, and whether it
    helped; of one COMPONENT or provider if it is named.
    """
    from zejzl.cli import providers as who
    from zejzl.cli import reports

    settings = Settings.from_env()
    if probe:
        return _judged(terminal, await who.health(settings, asks=True))
    async with reports.kept(settings) as store:
        found = await reports.recoveries(store, component)
    if terminal.as_json:
        terminal.json(
            {
                "recoveries": [to_json(one) for one in found[:limit]],
                "counted": len(found),
                "success_rate": sum(one.success for one in found) / len(found) if found else None,
            }
        )
    else:
        reports.show_recoveries(terminal, found, limit=limit)
    return WELL


@command("recover")
async def recover(terminal: Terminal) -> int:
    """Settle what was in flight when a process died.

    Each request is shown with whether its provider may have answered (and been paid) already.
    """
    from ai_framework import AsyncMessageBus
    from zejzl.cli import chat

    async with AsyncMessageBus() as bus:
        found = await bus.recover()
    if terminal.as_json:
        terminal.json(found)
    elif not found:
        terminal.say("nothing was left in flight")
    for one in found if not terminal.as_json else ():
        terminal.say(chat.told(one.message))
        if one.maybe_duplicate:
            terminal.say("  its provider may have answered: asking again may pay twice", "yellow")
    return WELL


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
