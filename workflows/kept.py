"""What the workflows remember from one run to the next: JSON files in `.zejzl/`.

A file is replaced as a whole or not at all. One that cannot be read is put aside under another
name, never overwritten.
"""

import json
import os
from pathlib import Path
from typing import Any

VERSION = 1


def load(path: Path) -> tuple[dict[str, Any], str]:
    """Return what a file holds and "", or nothing and why; a damaged file is put aside."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, ""
    except ValueError:
        found = None
    if isinstance(found, dict) and found.get("version") == VERSION:
        return found, ""
    aside = path.with_name(f"{path.name}.damaged")
    os.replace(path, aside)
    return {}, f"{path.name} could not be read and is now {aside.name}"


def save(path: Path, values: dict[str, Any]) -> None:
    """Write a file for its owner only, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"version": VERSION, **values}, file, indent=1, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
