"""Where releases are: an environment's folder, its releases, and the link to the current one.

    .zejzl/releases/                $ZEJZL_RELEASES
      .lock                         held while somebody deploys
      staging/  production/
        current -> releases/NAME    switched in one step
        home/zejzl.db               the store of this environment
        releases/NAME/              NAME is version+commit-time
          venv/  *.whl  constraints.txt
          STORE.json                how to take back what is done to the store; before it is done
          RELEASE.json              written last: a folder without it is half written

A release is proven once its smoke test went well through the link as well. Whatever is not proven
belongs to a deployment that was interrupted.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.steps import Failed

KEPT_RELEASES = 5
FACTS, STORE = "RELEASE.json", "STORE.json"


@dataclass(frozen=True, slots=True)
class Release:
    """A folder with a venv, a wheel, and what is known of them."""

    path: Path

    @property
    def facts(self) -> dict[str, Any]:
        """What RELEASE.json says; {} where the release is half written."""
        return _read(self.path / FACTS)

    @property
    def store(self) -> dict[str, Any]:
        """How to take back what was done to the store; {} where nothing was."""
        return _read(self.path / STORE)

    @property
    def proven(self) -> bool:
        """Whether its smoke test went well through the link."""
        return self.facts.get("proven") is True

    @property
    def at(self) -> str:
        """When it was written, as text that sorts."""
        return str(self.facts.get("at", ""))

    @property
    def wheel(self) -> Path:
        """The wheel that is installed in it."""
        return self.path / str(self.facts.get("wheel", "none.whl"))

    @property
    def zejzl(self) -> Path:
        """Its command line."""
        return self.path / "venv" / "bin" / "zejzl"

    def keep(self, name: str, facts: dict[str, Any]) -> None:
        """Write one of its two files, whole or not at all."""
        part = self.path / f"{name}.part"
        with part.open("w", encoding="utf-8") as file:
            json.dump(facts, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path / name)

    def remove(self) -> None:
        """Delete it. What a killed deletion leaves is no release, and takes nothing back."""
        (self.path / STORE).unlink(missing_ok=True)
        (self.path / FACTS).unlink(missing_ok=True)
        shutil.rmtree(self.path)


class Environment:
    """Staging or production.

    Args:
        name: Which.
        root: The project's folder.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.folder = releases_folder(root) / name
        self.link = self.folder / "current"
        self.home = self.folder / "home"
        backups = os.environ.get("ZEJZL_BACKUPS")
        self.backups = (Path(backups) if backups else root / ".zejzl" / "backups") / name
        self.backups = self.backups.absolute()

    @property
    def database(self) -> Path:
        """The store of this environment."""
        return self.home / "zejzl.db"

    @property
    def current(self) -> Release | None:
        """The release that the link leads to; None where it leads to no whole one."""
        try:
            release = Release(self.folder / os.readlink(self.link))
        except OSError:
            return None
        return release if release.facts else None

    def all(self) -> list[Release]:
        """Return every release folder, half-written ones too, newest first."""
        folder = self.folder / "releases"
        found = [Release(path) for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(found, key=lambda release: (release.at, release.path.name), reverse=True)

    def proven(self) -> list[Release]:
        """Return the releases that can be gone back to, newest first."""
        return [release for release in self.all() if release.proven]

    def begun(self, name: str) -> Release:
        """Make the folder of a new release."""
        release = Release(self.folder / "releases" / name)
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        release.path.mkdir(mode=0o700, parents=True)
        return release

    def switch(self, release: Release | None) -> None:
        """Let the link lead to a release, in one step; None takes it away."""
        if release is None:
            self.link.unlink(missing_ok=True)
            return
        new = self.folder / "current.new"
        new.unlink(missing_ok=True)
        new.symlink_to(Path("releases") / release.path.name)
        new.replace(self.link)

    def prune(self, spared: set[str], keep: int = KEPT_RELEASES) -> list[str]:
        """Delete all but the last `keep` releases; return the names of those that went.

        Args:
            spared: SHA-256 of wheels whose releases stay in any case.
        """
        current = self.current
        gone = []
        for release in self.proven()[keep:]:
            if release != current and release.facts["sha256"] not in spared:
                release.remove()
                gone.append(release.path.name)
        return gone


def remove_old(root: Path) -> list[str]:
    """Delete all but the last releases of both environments; return the names of those that went.

    The current one stays, and what holds the wheel that production runs. Hold `deploying`.
    """
    staging, production = Environment("staging", root), Environment("production", root)
    there = production.current
    spared = {there.facts["sha256"]} if there else set()
    return [*staging.prune(spared), *production.prune(spared)]


def releases_folder(root: Path) -> Path:
    """Return where a project's releases are."""
    return Path(os.environ.get("ZEJZL_RELEASES") or root / ".zejzl" / "releases").absolute()


@contextmanager
def deploying(root: Path, *, dry_run: bool) -> Iterator[None]:
    """Let one process at a time deploy; the kernel lets go of the lock however that one ends."""
    if dry_run:  # it changes nothing, so it may look at any time
        yield
        return
    folder = releases_folder(root)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise Failed(
            f"nothing can be written to {folder}: {exc.strerror}; "
            "ZEJZL_RELEASES may name another folder"
        ) from exc
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            by = os.pread(file, 20, 0).decode().strip()
            raise Failed(
                f"another deployment is under way (process {by}); wait for its end"
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(file)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
