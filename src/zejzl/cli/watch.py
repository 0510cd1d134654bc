"""`zejzl status --watch`: the status again and again, until somebody stops it."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from zejzl.cli.reports import LAST, StatusReport, show_recoveries, show_status, status
from zejzl.cli.terminal import Terminal, explained, moment, told
from zejzl.clock import SystemClock
from zejzl.engine.commands import every
from zejzl.errors import StoreError
from zejzl.events import utc
from zejzl.settings import Settings

if TYPE_CHECKING:
    from rich.live import Live

Seen = StatusReport | StoreError


async def watch(terminal: Terminal, settings: Settings, interval: float) -> None:
    """Show the status every `interval` seconds: redrawn on a terminal, else whenever it changes.

    A database that cannot be read is shown as that, and looked at again. Ends by being cancelled.
    """
    # rich draws nothing again and again on a terminal that cannot move its cursor.
    if terminal.as_json or not terminal.out.is_terminal or terminal.out.is_dumb_terminal:
        await _list(terminal, settings, interval)
    else:
        from rich.live import Live

        with Live(console=terminal.out, auto_refresh=False) as live:
            await _redraw(terminal, live, settings, interval)


async def _look(settings: Settings) -> Seen:
    try:
        return await status(settings)
    except StoreError as problem:
        return problem


async def _redraw(terminal: Terminal, live: "Live", settings: Settings, interval: float) -> None:
    async for _ in every(SystemClock(), interval):
        seen = await _look(settings)
        live.update(terminal.drawn(partial(_show, seen=seen)), refresh=True)


async def _list(terminal: Terminal, settings: Settings, interval: float) -> None:
    clock = SystemClock()
    last: object = None
    async for _ in every(clock, interval):
        seen = await _look(settings)
        if (now := _ageless(seen)) == last:
            continue
        last = now
        if terminal.as_json:
            value = {"error": told(seen)} if isinstance(seen, StoreError) else seen
            terminal.json(value, indent=None)
        else:
            terminal.say(f"── {moment(utc(clock.wall()))}")
            _show(terminal, seen)
            terminal.say("")


def _show(terminal: Terminal, seen: Seen) -> None:
    if isinstance(seen, StoreError):
        terminal.say("\n".join(explained(seen)), "red")
        return
    show_status(terminal, seen)
    if seen.last_recoveries:
        show_recoveries(terminal, seen.last_recoveries, limit=LAST)


def _ageless(seen: Seen) -> object:
    """Return what is another only when something happened, not because time went by."""
    if isinstance(seen, StoreError):
        return str(seen)
    buses = [(bus.owner, bus.running, bus.body) for bus in seen.buses]
    return buses, replace(seen, buses=(), bytes=0)
