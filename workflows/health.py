"""`./orchestrate.sh health`: is this installation well? Exit code 3 where it is not."""

import argparse
import shutil
import sys
from importlib import import_module

from workflows.maintenance import UNHEALTHY, zejzl
from workflows.steps import Failed, Workflow

NEEDED = ("aiohttp", "click", "dotenv", "pydantic", "rich", "zejzl")
LEAST_FREE = 200_000_000  # bytes: room for the database, a copy of it, and the logs


def check(flow: Workflow, options: argparse.Namespace) -> int:
    """Environment, store, providers, disk."""
    well(flow, ask=not options.no_providers)
    return UNHEALTHY if flow.ended() else 0


def well(flow: Workflow, *, ask: bool) -> bool:
    """Look at everything; `ask`: every provider is asked a tiny question, for a few tokens."""
    found = [
        flow.step("environment", environment, changes=False),
        flow.step("settings", lambda: settings(flow), changes=False),
        flow.step("store", lambda: _store(flow), changes=False),
        flow.step("disk", lambda: _disk(flow), changes=False),
    ]
    if ask:
        found.append(flow.step("providers", lambda: _providers(flow), attempts=2, changes=False))
    else:
        flow.skip("providers", "not asked, which would cost tokens; `./orchestrate.sh health` asks")
    return all(found)


def environment() -> str:
    """Say whether what zejzl needs can be imported."""
    missing = []
    for name in NEEDED:
        try:
            import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise Failed(f"not installed: {', '.join(missing)}; `./orchestrate.sh setup` installs it")
    return f"Python {sys.version.split()[0]}, and all that zejzl needs"


def settings(flow: Workflow) -> str:
    """Say whether .env can be read, by its owner only."""
    path = flow.root / ".env"
    if path.is_dir():
        return ".env is a folder and is not read: settings come from the environment alone"
    if not path.exists():
        return "there is no .env: settings come from the environment; `./start.sh` makes one"
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise Failed(f".env may be read by others (mode {mode:o}); `chmod 600 .env`")
    return ".env is there, for its owner only"


def _store(flow: Workflow) -> str:
    code, found, said = zejzl(flow, "health", "--no-providers")
    if not isinstance(found, list):
        raise Failed(said)
    problems = [each["problem"] for each in found if not each["healthy"]]
    if problems or code:
        raise Failed("; ".join(problems) or said)
    return "the database answers"


def _providers(flow: Workflow) -> str:
    _, found, said = zejzl(flow, "health")
    if not isinstance(found, list):
        raise Failed(said)
    asked = [each for each in found if each["name"] != "database"]
    ill = [f"{each['name']}: {each['problem']}" for each in asked if not each["healthy"]]
    if ill:
        raise Failed("; ".join(ill))
    return f"{', '.join(each['name'] for each in asked) or 'none'} answered"


def _disk(flow: Workflow) -> str:
    free = shutil.disk_usage(flow.root).free
    if free < LEAST_FREE:
        raise Failed(f"{free / 1e6:,.0f} MB are free, fewer than {LEAST_FREE / 1e6:,.0f} MB")
    return f"{free / 1e9:,.1f} GB are free"
