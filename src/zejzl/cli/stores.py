"""The commands `store …`: the care of the database file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from zejzl.cli.group import command, shown, zejzl
from zejzl.cli.reports import opened
from zejzl.cli.terminal import UNHEALTHY, WELL, Terminal, line, word
from zejzl.clock import SystemClock
from zejzl.errors import StoreError
from zejzl.events import utc
from zejzl.settings import Settings
from zejzl.stores.backups import KEPT, Backup, back_up, backups, newest_good, restore, verify
from zejzl.stores.compaction import compactable, refuse_unless_compactable, vacuum
from zejzl.stores.examine import Examined, examine, size_of


@zejzl.group("store")
def store() -> None:
    """Take care of the database: check, back up, restore, compact.

    Its folder is the setting home (ZEJZL_HOME). Each command takes --json.
    """


folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where backups are.  [default: backups/ beside the database]",
)
dry_run = click.option("--dry-run", is_flag=True, help="Tell what would be done; change nothing.")


def _database() -> Path:
    return Settings.from_env().home / "zejzl.db"


def _backups(folder: Path | None, database: Path) -> Path:
    return (folder or database.parent / "backups").absolute()


def _now() -> datetime:
    return utc(SystemClock().wall())


def _there(database: Path) -> None:
    """Refuse politely where there is nothing to work on."""
    try:
        if database.exists():
            return
    except OSError as problem:
        raise StoreError(f"the database {database} cannot be opened: {problem.strerror}") from None
    raise StoreError(f"there is no database {database} yet; ZEJZL_HOME may name another folder")


@command("check", within=store)
def check(terminal: Terminal) -> int:
    """Look whether the database is whole.

    All of it is read, and nothing is changed. The exit code is 3 if something is wrong. That
    there is no database yet is not wrong.
    """
    database = _database()
    if not database.exists():
        empty = {"path": database, "exists": False, "problems": []}
        return shown(terminal, empty, lambda to, _: to.say(f"there is no database {database} yet"))
    found = examine(database)
    told = {"exists": True, **asdict(found)}
    shown(terminal, told, lambda to, _: _show_examined(to, found))
    return UNHEALTHY if found.problems else WELL


def _show_examined(terminal: Terminal, found: Examined) -> None:
    for problem in found.problems:
        terminal.say(line(problem), "red", prose=True)
    if found.damaged:
        terminal.say(f"`{word()} store restore` puts the last good backup in its place")
    if found.problems:
        return
    terminal.say(f"{found.path} is whole", "green")
    behind = "; migrated when a bus opens it" if found.schema != found.known_schema else ""
    used = f", open {found.open_stores} times" if found.open_stores else ""
    terminal.say(f"{found.bytes:,} bytes, schema {found.schema}{behind}{used}")


@command("backup", within=store)
@folder_option
@click.option(
    "--keep", type=click.IntRange(1), default=KEPT, show_default=True, help="The last so many stay."
)
@click.option("--list", "listed", is_flag=True, help="Only show which there are.")
@dry_run
def backup(terminal: Terminal, folder: Path | None, keep: int, listed: bool, dry_run: bool) -> int:
    """Copy the database, whether or not a bus uses it.

    The copy is one file with its SHA-256 beside it. It is checked before it gets its name, and
    older ones go only then.
    """
    database = _database()
    place = _backups(folder, database)
    if listed:
        found = [{"path": path, "bytes": path.stat().st_size} for path in backups(place)]
        return shown(terminal, found, _show_backups)
    _there(database)
    if dry_run:
        going = backups(place)[keep - 1 :]
        told: dict[str, Any] = {"dry_run": True, "folder": place, "would_remove": going}
        return shown(terminal, told, lambda to, _: _show_plan(to, database, place, going))
    made = back_up(database, place, at=_now(), keep=keep)
    return shown(terminal, asdict(made), lambda to, _: _show_backup(to, made))


def _show_backups(terminal: Terminal, found: Sequence[Mapping[str, Any]]) -> None:
    if not found:
        terminal.say(f"there is no backup yet; `{word()} store backup` makes one")
        return
    rows = [(str(each["path"]), f"{each['bytes']:,}") for each in found]
    terminal.table(["backup", "bytes"], rows, right=["bytes"])


def _show_plan(terminal: Terminal, database: Path, place: Path, going: Sequence[Path]) -> None:
    terminal.say(f"would copy {database} ({size_of(database):,} bytes) to {place}")
    for path in going:
        terminal.say(f"would remove {path}")


def _show_backup(terminal: Terminal, made: Backup) -> None:
    terminal.say(f"{made.path}: {made.bytes:,} bytes, whole", "green")
    if made.removed:
        terminal.say(f"removed, as older than those kept: {len(made.removed)}")


@command("restore", within=store)
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@folder_option
@dry_run
def put_back(terminal: Terminal, file: Path | None, folder: Path | None, dry_run: bool) -> int:
    """Put a backup in the database's place.

    FILE, or the newest that is whole. The backup is verified first. No bus may be running. What
    was there stays beside it under another name.
    """
    database = _database()
    chosen = verify(file.absolute()) if file else _newest(terminal, _backups(folder, database))
    if dry_run:
        told: dict[str, Any] = {"dry_run": True, "path": database, "backup": chosen.path}
        told |= {"replaces": database.exists(), "schema": chosen.schema}
        said = f"would put {chosen.path} (whole, schema {chosen.schema}) in place of {database}"
        return shown(terminal, told, lambda to, _: to.say(said))
    done = restore(chosen.path, database, at=_now())

    def show(to: Terminal, _: object) -> None:
        to.say(f"{done.path} is again what {done.backup.name} holds", "green")
        if done.kept is not None:
            to.say(f"what was there is kept: {done.kept}")

    return shown(terminal, asdict(done), show)


def _newest(terminal: Terminal, folder: Path) -> Backup:
    found, wrong = newest_good(folder)
    for problem in wrong:
        terminal.note(f"passed over: {problem}")
    if found is None:
        which = "a backup that is whole" if wrong else "a backup"
        raise StoreError(f"there is nothing to go back to: {folder} does not hold {which}")
    return found


@command("compact", within=store)
@dry_run
async def compact(terminal: Terminal, dry_run: bool) -> int:
    """Delete what is old, and give the room back to the disk.

    The setting retention_days says how old. No bus may be running, and the disk needs room for
    two copies for a while.
    """
    settings = Settings.from_env()
    database = settings.home / "zejzl.db"
    _there(database)
    days = settings.retention_days
    before = None if days is None else utc(max(0.0, SystemClock().wall() - days * 86_400.0))
    plan = compactable(database, before=before)
    if dry_run:
        told = {"dry_run": True, "path": database, **asdict(plan)}
        said = f"would delete {plan.old:,} old messages and events; {plan.free:,} bytes are empty"
        return shown(terminal, told, lambda to, _: to.say(said))
    refuse_unless_compactable(database)
    rows = 0
    if before is not None:
        async with opened(settings) as kept:
            rows = await kept.prune(before=before)
    vacuum(database)
    after = size_of(database)
    done = {"path": database, "rows_deleted": rows, "bytes_before": plan.bytes}
    done |= {"bytes_after": after, "bytes_saved": plan.bytes - after}
    return shown(terminal, done, _show_compacted)


def _show_compacted(terminal: Terminal, done: Mapping[str, Any]) -> None:
    rows, saved, after = done["rows_deleted"], done["bytes_saved"], done["bytes_after"]
    terminal.say(f"{rows:,} old rows deleted, {saved:,} bytes saved; {after:,} are left")
