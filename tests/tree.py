"""The project's own files, for tests that look at them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
UNSHIPPED = {".git", ".venv", "__pycache__", "build", "dist", "mutants"}


def listed() -> list[Path]:
    """Return every file that git has or would take, sorted."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found = {ROOT / name for name in done.stdout.split("\0") if name}
    else:  # an unpacked sdist, or mutmut's copy
        found = {path for path in ROOT.rglob("*") if not UNSHIPPED & {*path.parts}}
    return sorted(path for path in found if path.is_file())


def label(path: Path) -> str:
    """Return the path as it is written in the project."""
    return path.relative_to(ROOT).as_posix()


def python(
    *arguments: str, cwd: Path, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python without the installed packages; `path` is what it gets to see in their place.

    The environment holds no keys and no settings, and its home is `cwd`.
    """
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTHONDONTWRITEBYTECODE": "1"}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    # -S: no site-packages, so neither an installed zejzl nor the finder of an editable install.
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
