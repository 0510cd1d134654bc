"""Which of the stores that share a database file are still open.

Each open store holds an exclusive lock on a file of its own. The kernel lets go of it when the
process ends, however it ends, so a lock that is free, or a file that is missing, means: gone.
Nothing here trusts a process id (they are reused) or a heartbeat (a stopped process has none).

A child made by fork() without exec shares its parent's locks: open the store after forking.
"""

import fcntl
import os
import re
from pathlib import Path
from uuid import uuid4

_IDS = re.compile(r"\w{1,64}", re.ASCII)


def open_stores(database: Path) -> int:
    """Return how many stores have the database open, in whatever process."""
    folder = database.with_name(database.name + ".owners")
    return sum(map(_held, folder.glob("*.lock")))


class OwnerLock:
    """One store's sign of life, held from construction to `release`.

    Attributes:
        owner: The store's id; new each time, so that it cannot be taken for a dead one's.
    """

    def __init__(self, database: Path) -> None:
        self.owner = uuid4().hex
        self._folder = database.with_name(database.name + ".owners")
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._path = self._folder / f"{self.owner}.lock"
        # Locked under another name first: nobody may find it free.
        unborn = self._path.with_suffix(".new")
        self._file = os.open(unborn, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(self._file, f"{os.getpid()}\n".encode())
            unborn.rename(self._path)
        except BaseException:
            unborn.unlink(missing_ok=True)
            os.close(self._file)
            raise

    def release(self) -> None:
        """Let go."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)

    def runs(self, owner: str) -> bool:
        """Return whether the store of that id is open somewhere."""
        if not _IDS.fullmatch(str(owner)):  # no store of ours: it must not become a path
            return False
        return owner == self.owner or _held(self._folder / f"{owner}.lock")

    def sweep(self) -> None:
        """Remove what the dead left lying here."""
        for path in self._folder.glob("*.lock"):
            if path != self._path and not _held(path):
                path.unlink(missing_ok=True)


def _held(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who ask at once do not take each other for the owner.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
