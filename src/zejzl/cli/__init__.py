"""The command line: `zejzl …`, `python -m zejzl …` and `python ai_framework.py …`.

Here is what all commands share: exit codes, and no traceback for anybody. The commands themselves
are in `commands`, which needs click; it is imported when one is run.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from threading import current_thread, main_thread

from zejzl.cli.terminal import FAILED, INTERRUPTED, TERMINATED, explained, safe, word


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 well, 1 failed, 2 usage, 3 unhealthy.

    Args:
        argv: Its words; default is the process's own.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever calls: nobody listens
            nobody = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - to the very end
            setattr(sys, name, nobody)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a letter that the terminal lacks is no failure
            stream.reconfigure(errors="backslashreplace")
    with _terminated_as_interrupted() as terminated:
        return _ended(argv, terminated)


def _ended(argv: Sequence[str] | None, terminated: Sequence[int]) -> int:
    """Run one command; return its exit code, whatever it ends with."""
    try:
        code = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one more would only garble the goodbye
        if terminated:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return TERMINATED if terminated else INTERRUPTED
    except OSError as problem:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        if not isinstance(problem, BrokenPipeError):  # the reader of `zejzl history | head -1`
            print(*explained(problem), sep="\n", file=sys.stderr)
        return FAILED
    except SystemExit as left:  # click and rich end like this when the reader has gone
        return left.code if isinstance(left.code, int) else FAILED


@contextmanager
def _terminated_as_interrupted() -> Iterator[Sequence[int]]:
    """Let SIGTERM, as a service's end is told, be what Ctrl-C is; yield where it is noted."""
    noted: list[int] = []

    def terminate(number: int, frame: object) -> None:
        noted.append(number)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a job in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    is_ours = current_thread() is main_thread() and (
        signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # else a program has one of its own
    )
    if is_ours:
        signal.signal(signal.SIGTERM, terminate)
    try:
        yield noted
    finally:
        if is_ours and not noted:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(argv: list[str]) -> int:
    try:
        import click

        from zejzl.cli.commands import zejzl
    except ImportError as missing:
        print(*explained(missing), sep="\n", file=sys.stderr)
        return FAILED
    try:
        code = zejzl.main(argv, prog_name=word(), standalone_mode=False)
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as wrong:
        said = StringIO()
        wrong.show(said)
        sys.stderr.write(safe(said.getvalue()))
        return wrong.exit_code
    return code if isinstance(code, int) else 0
