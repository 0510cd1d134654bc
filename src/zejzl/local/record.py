"""The file that says which server runs, and the locks that make it true.

`local.pid` is locked, exclusively, by the process that it names, from before that process exists
(its starter hands the lock down) until after it has ended:

    no lock                 nothing runs, whatever the file says
    lock, without address   it is loading its model
    lock, with address      it answers there

`local.lock` is held by whoever starts or stops one, so that there is never more than one.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread

PID_FILE, LOCK_FILE, LOG_FILE = "local.pid", "local.lock", "local.log"
_MOST = 65_536  # bytes of a record that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRecord:
    """What the file says.

    Attributes:
        pid: The server's process; 0 before there is one.
        url: Its address for LOCAL_BASE_URL; empty until it answers.
        port: Its port; kept when it has ended, for the next one.
        model: What it serves, for LOCAL_MODEL.
        file: The model's file.
    """

    pid: int = 0
    url: str = ""
    port: int = 0
    model: str = ""
    file: str = ""


def opened(path: Path) -> int:
    """Return a new handle of a file that only its owner may read; it is made if need be."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def write(handle: int, record: ServerRecord) -> None:
    """Put a record into the file in place: a new file would not have the lock."""
    text = json.dumps(asdict(record)).encode()
    os.pwrite(handle, text.ljust(_length(handle)) + b"\n", 0)


def read(handle: int) -> ServerRecord:
    """Return what the file says; an empty record if that is nothing that we wrote."""
    try:
        found = json.loads(os.pread(handle, _MOST, 0))
        texts = {name: found[name] for name in ("url", "model", "file")}
        numbers = {name: found[name] for name in ("pid", "port")}
    except (ValueError, KeyError, TypeError):
        return ServerRecord()
    if not all(isinstance(text, str) for text in texts.values()):
        return ServerRecord()
    if not all(type(number) is int and number >= 0 for number in numbers.values()):
        return ServerRecord()
    return ServerRecord(**texts, **numbers)


def look(home: Path) -> tuple[bool, ServerRecord]:
    """Return whether a server lives, and what the file says. Nothing is made."""
    try:
        handle = os.open(home / PID_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False, ServerRecord()
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two may look at once
    except BlockingIOError:
        return True, read(handle)
    else:
        return False, read(handle)
    finally:
        os.close(handle)


def lock(handle: int, patience: float) -> bool:
    """Lock a file exclusively; return whether that was possible within `patience` seconds."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # The kernel wakes it in the moment the lock is free; nobody has to ask again and again.
        waiting = Thread(target=fcntl.flock, args=(handle, fcntl.LOCK_EX), daemon=True)
        waiting.start()
        waiting.join(patience)
        return not waiting.is_alive()
    return True


def ended(home: Path, patience: float) -> bool:
    """Return whether the server is gone, or goes within `patience` seconds."""
    handle = opened(home / PID_FILE)
    try:
        return lock(handle, patience)
    finally:
        os.close(handle)


@contextmanager
def alone(home: Path, patience: float) -> Iterator[None]:
    """Let nobody else start or stop a server meanwhile.

    Raises:
        TimeoutError: Somebody else has been at it for `patience` seconds.
    """
    handle = opened(home / LOCK_FILE)
    try:
        if not lock(handle, patience):
            raise TimeoutError(
                f"another start or stop of the local model has been under way for {patience:g} s"
            )
        yield
    finally:
        os.close(handle)


def _length(handle: int) -> int:
    """Return how many characters cover what is there: a shorter record leaves no rest behind."""
    return max(0, os.fstat(handle).st_size - 1)
