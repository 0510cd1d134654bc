"""`zejzl wards`: the guarded files, looked at and mended. No bus need run for that."""

from collections.abc import Sequence

from zejzl.cli.terminal import Terminal, word
from zejzl.clock import SystemClock
from zejzl.events import Event, GuardedFileChanged
from zejzl.magic.wards import WardReport, Wards
from zejzl.settings import Settings


async def wards(
    terminal: Terminal, settings: Settings, *, restore: str | None, forget: str | None
) -> list[WardReport]:
    """Restore or forget one file, if that is asked; return how all are then.

    Raises:
        ValueError: If it is not guarded, or the index is damaged.
        OSError: If it cannot be written.
    """

    def note(event: Event) -> None:
        if isinstance(event, GuardedFileChanged) and event.after in ("intact", "unguarded"):
            terminal.note(f"{event.path}: {event.reason}")

    kept = Wards(SystemClock(), settings.home / "guarded", note)  # as a bus keeps them
    if restore is not None and not await kept.restore(restore):
        terminal.note(f"{restore}: not restored, its copy is damaged, too; guard it again")
    if forget is not None:
        await kept.forget(forget)
    return await kept.check()


def show_wards(terminal: Terminal, found: Sequence[WardReport]) -> None:
    """Print how the guarded files are."""
    if not found:
        terminal.say(f"no file is guarded: `{word()} ritual fairy_ward --file FILE` guards one")
        return
    terminal.table(
        ["guarded file", "state", "can be restored", "why"],
        [
            (one.path, one.state, "yes" if one.mendable else "no", one.problem or "")
            for one in found
        ],
    )
    if any(one.state in ("changed", "missing") and one.mendable for one in found):
        terminal.say(f"→ `{word()} wards --restore FILE` makes a file what it was")
