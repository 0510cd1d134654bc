"""Starting, stopping and finding the server; the caller's process never holds a model."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from zejzl.local import record, weights

SERVER = (sys.executable, "-P", "-m", "zejzl.local.server")
LOADING = 300.0  # seconds that a model may take to load, and that another start is waited for
GENTLE, FIRM = 5.0, 5.0  # seconds between SIGTERM and SIGKILL, and after that
ANSWER = 2.0  # seconds that a server may take to say that it is well
LAST_LINES = 3  # of the log, told where a start failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What there is of a server.

    Attributes:
        state: "running", "silent" (it runs and does not answer), "starting" or "stopped".
        url: What LOCAL_BASE_URL is to be; empty unless it runs.
        model: What it serves, for LOCAL_MODEL; empty unless it runs or starts.
        pid: Its process; 0 if there is none.
        port: Its port, or its last one; 0 if there never was one.
        log: The file with what it logs.
    """

    state: str
    url: str
    model: str
    pid: int
    port: int
    log: Path


def status(home: Path) -> Status:
    """Return what there is of the server of a home folder; nothing is made or changed."""
    lives, found = record.look(home)
    log = home / record.LOG_FILE
    if not lives:
        return Status(state="stopped", url="", model="", pid=0, port=found.port, log=log)
    state = "starting"
    if found.url:
        state = "running" if _answers(found.url) else "silent"
    return Status(
        state=state, url=found.url, model=found.model, pid=found.pid, port=found.port, log=log
    )


def start(
    home: Path,
    *,
    model: Path | None = None,
    port: int = 0,
    patience: float = LOADING,
) -> Status:
    """Return the running server, which is started unless it runs already.

    Args:
        home: The folder of its files; each has one server at most.
        model: A GGUF file; default is the one that runs, or SmolLM2-135M.
        port: On loopback; 0 is the last one if it is free, and any free one otherwise.
        patience: Seconds to wait for another start or stop, and then for the answer.

    Raises:
        ValueError: The model is none, the port is taken, or a server runs with another of them.
        FileNotFoundError: The model or what serves it is not installed.
        ChildProcessError: It did not start, or runs and does not answer.
        TimeoutError: It took longer than `patience`; nothing is left running.
    """
    file = None if model is None else weights.checked(model)
    with record.alone(home, patience):
        lives, found = record.look(home)
        if lives and found.url:
            return _as_asked(status(home), found, file, port)
        if what := weights.missing():
            raise FileNotFoundError(what)
        file = file or weights.built_in()
        held = record.opened(home / record.PID_FILE)
        try:
            # One whose starter was killed ends by itself once it has loaded its model.
            if not record.lock(held, patience):
                raise TimeoutError(_slow(home, patience))
            new = record.ServerRecord(
                port=_port(port, found.port), model=weights.name_of(file), file=str(file)
            )
            record.write(held, new)
            _launch(home, held, new, patience)
        finally:
            os.close(held)
        return status(home)


def stop(home: Path, *, gentle: float = GENTLE, firm: float = FIRM) -> bool:
    """End the server, by force if it does not go; return whether there was one.

    Args:
        home: The folder of its files.
        gentle: Seconds that it has to end by itself.
        firm: Seconds after which one that was killed must be gone.

    Raises:
        ChildProcessError: It is still there, which only a broken machine can do.
    """
    if not (home / record.PID_FILE).exists():
        return False
    with record.alone(home, LOADING):
        lives, found = record.look(home)
        if not lives:
            return False
        for sign, patience in ((signal.SIGTERM, gentle), (signal.SIGKILL, firm)):
            # Who holds the lock wrote the number, so it is nobody else's.
            if record.look(home)[0]:
                _signal(found.pid, sign)
            if record.ended(home, patience):
                return True
    raise ChildProcessError(f"process {found.pid} does not end, although it was killed")


def _as_asked(now: Status, found: record.ServerRecord, file: Path | None, port: int) -> Status:
    """Return the server that runs, unless another was asked for."""
    if now.state != "running":
        raise ChildProcessError(
            f"the local model runs (process {now.pid}) but does not answer; stop and start it"
        )
    if (file and str(file) != found.file) or (port and port != found.port):
        raise ValueError(f"{found.model} runs at port {found.port} already; stop it first")
    return now


def _port(asked: int, last: int) -> int:
    """Return the port to be used; 0 lets the server choose."""
    for port in (asked, last):
        if port:
            try:
                with socket.socket() as trial:
                    trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    trial.bind(("127.0.0.1", port))
            except (OSError, OverflowError) as problem:
                if asked:
                    raise ValueError(f"port {asked} cannot be used: {problem}") from problem
            else:
                return port
    return 0


def _launch(home: Path, held: int, new: record.ServerRecord, patience: float) -> None:
    """Run the server, and return once it has said that it answers."""
    answers, said = os.pipe()
    log = os.open(home / record.LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    # A model needs no keys: what is not there cannot leak.
    env = {name: text for name, text in os.environ.items() if not name.endswith("_API_KEY")}
    try:
        subprocess.run(
            [*SERVER, str(held), str(said), new.file, new.model, str(new.port)],
            pass_fds=(held, said),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=home,
            env=env,
            check=False,
        )
        os.close(said)
        said = -1
        heard = bool(select.select([answers], [], [], patience)[0])
        answer = os.read(answers, 4096) if heard else b""
    finally:
        os.close(log)
        os.close(answers)
        if said >= 0:
            os.close(said)
    if not heard:
        _signal(record.look(home)[1].pid, signal.SIGKILL)
        raise TimeoutError(_slow(home, patience))
    problem = json.loads(answer)["error"] if answer not in (b"{}", b"") else ""
    if answer != b"{}":
        raise ChildProcessError(_failed(home / record.LOG_FILE, problem))


def _failed(log: Path, problem: str) -> str:
    """Return what a server that did not start has said last."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = " / ".join([line.strip() for line in lines if line.strip()][-LAST_LINES:])
    return f"the local model did not start: {problem or last or 'it said nothing'} (log: {log})"


def _slow(home: Path, patience: float) -> str:
    return f"the local model did not start in {patience:g} s (log: {home / record.LOG_FILE})"


def _signal(pid: int, sign: signal.Signals) -> None:
    if pid:  # 0 would be everybody of our own group
        with suppress(ProcessLookupError):  # it went by itself
            os.kill(pid, sign)


def _answers(url: str) -> bool:
    """Return whether a server says that it is well. No proxy is asked: it is on this machine."""
    place = urlsplit(url)
    link = HTTPConnection(place.hostname or "", place.port, timeout=ANSWER)
    try:
        link.request("GET", "/health")
        return link.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        link.close()
