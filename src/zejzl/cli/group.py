"""How a command is made: what all of them take, and how their failures are told."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

import click

import zejzl as package
from zejzl.cli.terminal import WELL, Terminal, told

T = TypeVar("T")
Work = Callable[..., int | Coroutine[None, None, int]]
EVERYBODY = "*"
FAILOVER = "--failover"
WHICH = "Which bus, where several run: the beginning of its id."


class CommandGroup(click.Group):
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


@click.group(cls=CommandGroup, invoke_without_command=True)
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


def command(name: str, *, within: click.Group = zejzl) -> Callable[[Work], click.Command]:
    """Make a command of a function that takes the terminal and the options.

    It returns the exit code, or a coroutine that does. Failures are told and become exit codes.

    Args:
        within: The group it belongs to.
    """

    def make(work: Work) -> click.Command:
        @within.command(name, cls=Command)
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


def shown(terminal: Terminal, found: T, show: Callable[[Terminal, T], None]) -> int:
    """Print what was found, for programs or for people; return the exit code for that."""
    terminal.json(found) if terminal.as_json else show(terminal, found)
    return WELL


def named(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse the name of a conversation that is none."""
    if value is not None and not value.strip():
        raise click.UsageError(f"{param.opts[0]} needs a name: it is empty", ctx)
    return value


def of_bus(work: Work) -> Work:
    """Add the option that says which running bus is meant."""
    return click.option("--bus", default="", metavar="ID", help=WHICH)(work)
