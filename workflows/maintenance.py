"""`./orchestrate.sh maintenance`: the store is copied, checked and tidied; old files go."""

import argparse
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from workflows.release_folders import Environment
from workflows.steps import Failed, Skipped, Workflow, logs_folder, prune_logs

UNHEALTHY = 3


def maintain(flow: Workflow, options: argparse.Namespace) -> int:
    """Backup, integrity, retention, room, old releases and logs."""
    del options
    care(flow)
    return flow.ended()


def care(flow: Workflow) -> bool:
    """Do all of it. A database that is not whole is neither copied over good backups nor packed."""
    well = [flow.step("integrity", lambda: _checked(flow), changes=False)]
    if well[0]:
        well.append(flow.step("backup", partial(_backed_up, flow), attempts=2))
        why = "nothing is deleted without a backup"
    else:
        flow.skip("backup", "the database is not whole; `./orchestrate.sh recovery` mends that")
        why = "the database is not whole"
    if all(well):
        well.append(flow.step("retention and room", partial(_compacted, flow)))
    else:
        flow.skip("retention and room", why)
    well.append(flow.step("old releases", partial(_old_releases, flow)))
    well.append(flow.step("old logs", partial(_old_logs, flow)))
    return all(well)


def zejzl(flow: Workflow, *words: str) -> tuple[int, Any, str]:
    """Run a command of zejzl; return its exit code, its JSON value and what it said besides."""
    command = [sys.executable, "-m", "zejzl", *words, "--json"]
    done = subprocess.run(
        command,
        cwd=flow.root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    flow.note(f"$ zejzl {' '.join(words)} --json\n{done.stdout}{done.stderr}")
    try:
        value = json.loads(done.stdout)
    except ValueError:
        value = None
    return done.returncode, value, _reason(value, done.stderr)


def _reason(value: Any, said: str) -> str:
    if isinstance(value, dict) and isinstance(error := value.get("error"), dict):
        return str(error.get("message"))
    lines = said.strip().splitlines()
    return lines[-1] if lines else "it did not say why"


def _checked(flow: Workflow) -> str:
    code, found, said = zejzl(flow, "store", "check")
    if not isinstance(found, dict) or "problems" not in found:
        raise Failed(f"the database could not be checked: {said}")
    if found["problems"]:
        problems = "; ".join(str(problem) for problem in found["problems"][:3])
        raise Failed(f"{found['path']}: {problems}; `./orchestrate.sh recovery` goes back")
    if code:
        raise Failed(said)
    if not found.get("exists", True):
        return f"there is no database {found['path']} yet"
    return f"{found['path']} is whole, {found['bytes']:,} bytes"


def _there(flow: Workflow) -> None:
    _, found, _ = zejzl(flow, "store", "check")
    if isinstance(found, dict) and found.get("exists") is False:
        raise Skipped("there is no database yet; `./start.sh` makes one")


def backups_folder(root: Path) -> Path:
    """Return where the store's backups are."""
    return Path(os.environ.get("ZEJZL_BACKUPS") or root / ".zejzl" / "backups")


def _backed_up(flow: Workflow) -> str:
    """Copy the database beside the others, and check the copy."""
    _there(flow)
    folder = backups_folder(flow.root)
    code, made, said = zejzl(flow, "store", "backup", "--folder", str(folder))
    if code:
        raise Failed(said)
    return f"{made['path']}, {made['bytes']:,} bytes, whole"


def _compacted(flow: Workflow) -> str:
    """Delete what is older than retention_days, and give the room back."""
    _there(flow)
    code, done, said = zejzl(flow, "store", "compact")
    if code and done["error"]["type"] == "StoreLocked":
        raise Skipped(said)
    if code:
        raise Failed(said)
    return f"{done['rows_deleted']:,} old rows deleted, {done['bytes_saved']:,} bytes saved"


def _old_releases(flow: Workflow) -> str:
    """Remove all but the last five releases of staging and of production."""
    staging, production = (Environment(name, flow.root) for name in ("staging", "production"))
    removed = staging.prune(set()) + production.prune(set())
    return f"{len(removed)} removed"


def _old_logs(flow: Workflow) -> str:
    """Remove all but the last twenty logs."""
    return f"{len(prune_logs(logs_folder(flow.root)))} removed"
