"""The commands about requests that were made: what they cost, what waits, what a crash left."""

from datetime import datetime
from typing import TYPE_CHECKING

import click

from zejzl.cli.group import command, named, shown
from zejzl.cli.reports import RECENT, kept
from zejzl.cli.terminal import FAILED, WELL, Terminal, explained, told, word
from zejzl.messages import Message
from zejzl.settings import Settings

if TYPE_CHECKING:
    from ai_framework import RecoveredRequest

MOST_DAYS = 36_500
ID_OR_ALL = "ID|all"


@command("costs")
@click.option("--days", type=click.IntRange(1, MOST_DAYS), help="The last so many days of UTC.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), metavar="DAY", help="Or: from then on.")
@click.option(
    "--by",
    type=click.Choice(["day", "provider", "model"]),
    default="day",
    show_default=True,
    help="What a row is of.",
)
@click.option(
    "-c", "--conversation", metavar="ID", callback=named, help="Of this conversation alone."
)
async def costs(
    terminal: Terminal,
    days: int | None,
    since: datetime | None,
    by: str,
    conversation: str | None,
) -> int:
    """Show what calls cost, failed and cut ones included.

    A call is estimated when it is sent, and settled when the provider has counted its tokens.
    Money needs a price. One of your own is a row, in USD per million tokens, of a TOML file whose
    name is in ZEJZL_PRICES:

    \b
      [prices]
      "chatgpt/gpt-5-mini" = { prompt = 0.25, completion = 2.0 }
    """
    from zejzl.cli import costs as ledger

    if days is not None and since is not None:
        raise click.UsageError("--days and --since say the same: give one of them")
    first = since.date() if since is not None else None
    found = await ledger.costs(
        Settings.from_env(), by=by, days=days, since=first, conversation=conversation
    )
    return shown(terminal, found, ledger.show_costs)


@command("parked")
@click.option("--result", metavar="ID", help="Print the answer; the exit code is 1 without one.")
@click.option("--replay", metavar=ID_OR_ALL, help="Have it taken up now, as if it were new.")
@click.option("--drop", metavar=ID_OR_ALL, help="Give it up for good.")
@click.option("--run", is_flag=True, help="Run a bus here until nothing waits any more.")
async def parked(
    terminal: Terminal, result: str | None, replay: str | None, drop: str | None, run: bool
) -> int:
    """Show the work that waits for better times, or was given up.

    It was sent with `park` because it can wait, and nobody could answer. A running bus takes it
    up when it is due or a provider is well again; after so many tries in vain (ZEJZL_PARK_TRIES)
    it is given up. The beginning of an ID is enough where no other begins so.
    """
    from zejzl.cli import parked as work

    if sum([result is not None, replay is not None, drop is not None, run]) > 1:
        raise click.UsageError("--result, --replay, --drop and --run: one at a time")
    settings = Settings.from_env()
    if run:
        return await work.run(terminal, settings)
    if replay is not None:
        return shown(terminal, await work.replay(settings, replay), work.show_steered)
    if drop is not None:
        return shown(terminal, await work.drop(settings, drop), work.show_steered)
    if result is not None:
        from zejzl.cli.chat import show_answer

        return shown(terminal, await work.result(settings, result), show_answer)
    return shown(terminal, await work.parked(settings), work.show_parked)


@command("recover")
@click.option("--resend", is_flag=True, help="Ask each once more, and print the answers.")
@click.option("--dry-run", is_flag=True, help="Only show what was left; settle nothing.")
async def recover(terminal: Terminal, resend: bool, dry_run: bool) -> int:
    """Settle what was in flight when a process died.

    What is settled without --resend has failed for good: look with --dry-run first. Each request
    is shown with whether its provider may have answered (and been paid) already.
    Parked work is left out: a bus takes it up by itself. With --resend the exit code is 1 if
    one got no answer.
    """
    from ai_framework import AsyncMessageBus
    from zejzl.cli.chat import check_models

    if dry_run and resend:
        raise click.UsageError("--dry-run and --resend exclude each other")
    if dry_run:
        return shown(terminal, await _left_behind(Settings.from_env()), _show_left_behind)
    async with AsyncMessageBus() as bus:
        if resend:
            check_models(bus)
        with terminal.waiting("recovering …"):
            found = await bus.recover(resend=resend)
    if terminal.as_json:
        terminal.json([_as_json(one) for one in found])
    elif not found:
        terminal.say("nothing was left in flight")
    for one in found if not terminal.as_json else ():
        _show(terminal, one)
    if found and not resend and not terminal.as_json:
        terminal.say(
            f"settled as failed, for good: `{word()} recover --resend` asks again what is not yet"
        )
    return FAILED if any(one.error is not None for one in found) else WELL


async def _left_behind(settings: Settings) -> list[Message]:
    """Return what a process that died had under way, among the newest messages; none is claimed."""
    async with kept(settings) as store:
        if store is None:
            return []
        found = []
        for message in await store.messages(limit=RECENT):
            if message.response is None and message.error is None:
                one = await store.kept(id=message.id)
                if one is not None and one.abandoned and not one.terms.parks:
                    found.append(message)
        return found


def _show_left_behind(terminal: Terminal, found: list[Message]) -> None:
    from zejzl.cli import chat

    if not found:
        terminal.say("nothing was left in flight")
        return
    for message in found:
        terminal.say(chat.told(message))
    again = f"`{word()} recover --resend` asks each once more"
    terminal.say(f"{again}; `{word()} recover` settles them as failed")


def _as_json(one: "RecoveredRequest") -> dict[str, object]:
    return {
        "message": one.message,
        "maybe_duplicate": one.maybe_duplicate,
        "reply": one.reply,
        "error": None if one.error is None else told(one.error),
    }


def _show(terminal: Terminal, one: "RecoveredRequest") -> None:
    from zejzl.cli import chat

    terminal.say(chat.told(one.message))
    if one.error is not None:
        _, *advice = explained(one.error, verbose=terminal.verbose)
        for said in advice:
            terminal.say(said)
    elif one.maybe_duplicate and one.reply is None:
        terminal.say("  its provider may have answered: asking again may pay twice", "yellow")
    elif one.maybe_duplicate:
        terminal.say("  its provider may have answered before: it may be paid for twice", "yellow")
