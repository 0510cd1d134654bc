"""What a figure needs beside it: date, machine, Python, commit and command."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path


def print_machine() -> None:
    """Print two lines that say where and when the figures below them were measured."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    commit = found.stdout.strip() or "unknown"
    print(f"{datetime.now(UTC):%Y-%m-%d}  {platform.platform()}  {os.cpu_count()} cores")
    print(f"Python {platform.python_version()}  commit {commit}  python {' '.join(sys.argv)}")
