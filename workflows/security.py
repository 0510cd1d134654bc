"""`./orchestrate.sh security`: what an attacker would look at first.

Of ruff's bandit rules (S) these are left out: S101 (asserts tell mypy what is so; nothing is
guarded by one), S311 (chance spreads waits, and draws no secret), S603 and S607 (programs are
started from lists, never through a shell), S105 in errors.py (a name of a failure, no password) and
S608 in statements.py (put together of that file's own constants, which the step SQL looks at).
"""

import argparse
import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from workflows.secrets import Found, in_history, in_tree
from workflows.steps import Failed, Skipped, Workflow
from zejzl.errors import SettingsError
from zejzl.settings import Settings

CODE = ("src", "ai_framework.py", "token_haze.py", "workflows", "bench")
LEFT_OUT = "S101,S311,S603,S607"
LEFT_OUT_THERE = ("src/zejzl/errors.py:S105", "src/zejzl/stores/statements.py:S608")
UNTRACKED = {".git", ".venv", ".zejzl", "__pycache__", "build", "dist", "mutants", "site"}
# SQL that is put together where it is used, looked at by a person; a changed one is told again.
REVIEWED = {
    'f"{query} LIMIT {_SHOWN + 1}"',  # check.py: its own queries
    'f"PRAGMA synchronous = {durability}"',  # connection.py: one of two words
    'f"PRAGMA user_version = {number}"',  # connection.py: a migration's number
    'f"PRAGMA application_id = {APPLICATION_ID}"',
}


def patrol(flow: Workflow, options: argparse.Namespace) -> int:
    """Dependencies, secrets, permissions, code, SQL, shell."""
    del options
    guard(flow)
    return flow.ended()


def guard(flow: Workflow) -> bool:
    """Look at everything; nothing is changed."""
    root = flow.root
    bandit = [sys.executable, "-m", "ruff", "check", "--select", "S", "--ignore", LEFT_OUT]
    for place in LEFT_OUT_THERE:
        bandit += ["--extend-per-file-ignores", place]
    code = [name for name in CODE if (root / name).exists()]
    well = [
        flow.step("dependencies", lambda: audit(root), changes=False),
        flow.step("secrets in files", lambda: secrets_in_files(root), changes=False),
        flow.step("secrets in history", lambda: secrets_in_history(root), changes=False),
        flow.step("permissions", lambda: permissions(root), changes=False),
        flow.step("code", [*bandit, *code], changes=False),
        flow.step("SQL", lambda: sql(root), changes=False),
        flow.step("shell", lambda: shell(flow), changes=False),
    ]
    return all(well)


def audit(root: Path) -> str:
    """Ask an index which installed versions are known to be vulnerable."""
    if find_spec("pip_audit") is None:
        raise Skipped("pip-audit is not installed; `.venv/bin/python -m pip install pip-audit`")
    command = [sys.executable, "-m", "pip_audit", "--skip-editable", "--format", "json"]
    command += ["--progress-spinner", "off"]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=False, timeout=180
        )
    except subprocess.TimeoutExpired:
        raise Skipped("no index answered within 180 s; try again with a network") from None
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = done.stderr.strip().splitlines()[-1:] or ["it did not say why"]
        raise Skipped(f"no index answered: {last[0][:200]}; try again with a network") from None
    known = [
        f"{each['name']} {each['version']}: {', '.join(v['id'] for v in each['vulns'])}"
        for each in found
        if each.get("vulns")
    ]
    if known:
        raise Failed(f"{'; '.join(known)}; newer versions go into constraints.txt")
    return f"{len(found)} packages, none known to be vulnerable"


def tracked(root: Path) -> list[str]:
    """Return the files that git has or would take; without git, all but what is made."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        return sorted({name for name in done.stdout.split("\0") if name})
    except (OSError, subprocess.CalledProcessError):
        paths = (path.relative_to(root) for path in root.rglob("*"))
        return sorted(str(path) for path in paths if not UNTRACKED & {*path.parts})


def _told(found: list[Found], remedy: str) -> None:
    if found:
        shown = "".join(f"\n           | {each}" for each in found[:10])
        raise Failed(f"{len(found)} found; {remedy}{shown}")


def secrets_in_files(root: Path) -> str:
    """Look for keys in every file that git has or would take."""
    names = tracked(root)
    if ".env" in names and (root / ".git").exists():
        raise Failed(".env would be committed; `git rm --cached .env`, and .gitignore must name it")
    _told(in_tree(root, names), "take them out, and let their vendor revoke them")
    return f"none in {len(names)} files"


def secrets_in_history(root: Path) -> str:
    """Look for keys in every line that was ever committed."""
    if not (root / ".git").exists():
        raise Skipped("this folder is no git repository")
    try:
        found = in_history(root)
    except OSError as exc:
        raise Skipped(f"{exc}; `./orchestrate.sh tools` tells how to get git") from None
    _told(found, "whoever has a clone has them: let their vendor revoke them")
    return "none in any commit"


def permissions(root: Path) -> str:
    """Look whether others may read the keys or the messages."""
    try:
        home = Settings.from_env(folder=root).home
    except SettingsError as exc:
        raise Failed(str(exc)) from exc
    private = [root / ".env", *home.glob("zejzl.db*"), *root.glob(".zejzl/backups/*")]
    private = [path for path in private if path.exists()]
    open_ones = [path for path in private if path.is_file() and path.stat().st_mode & 0o077]
    if open_ones:
        names = " ".join(map(str, open_ones))
        raise Failed(f"others may read them; `chmod 600 {names}`")
    return f"{len(private)} files and folders looked at" if private else "there is nothing yet"


def sql(root: Path) -> str:
    """Look for SQL that is put together from strings where it is used."""
    found = [
        f"{path.relative_to(root)}:{line}: {text}"
        for path in sorted((root / "src").rglob("*.py"))
        for line, text in composed(path.read_text(encoding="utf-8"))
        if text not in REVIEWED
    ]
    if found:
        shown = "".join(f"\n           | {each}" for each in found)
        raise Failed(f"values belong into parameters (?), not into the text{shown}")
    return "every value is a parameter"


def composed(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each SQL text that is made where it is executed."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        text = node.args[0]
        made = isinstance(text, ast.JoinedStr | ast.BinOp) or (
            isinstance(text, ast.Call)
            and isinstance(text.func, ast.Attribute)
            and text.func.attr in ("format", "join", "replace")
        )
        if made and node.func.attr in ("execute", "executemany", "executescript"):
            yield node.lineno, ast.get_source_segment(source, text) or ast.unparse(text)


def shell(flow: Workflow) -> str:
    """Let shellcheck look at the scripts."""
    tool = Path(sys.executable).with_name("shellcheck")
    if not tool.exists():
        raise Skipped("shellcheck is not installed; `./orchestrate.sh setup` installs it")
    scripts = [*sorted(flow.root.glob("*.sh")), *sorted(flow.root.glob(".ci/run"))]
    done = subprocess.run(
        [tool, *scripts], cwd=flow.root, capture_output=True, text=True, check=False
    )
    flow.note(done.stdout)
    if done.returncode:
        raise Failed(f"{(done.stdout + done.stderr).strip()[:500]}")
    return f"{len(scripts)} scripts"
