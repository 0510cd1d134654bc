"""start.sh, orchestrate.sh and .ci/run, with a Python that pretends: no network, no waiting."""

import os
import pty
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.tree import ROOT

TOOLS = ("bash", "sh", "cat", "cksum", "cp", "dirname", "env", "mkdir", "mv", "readlink", "rm")

# Answers as CPython would, as far as the scripts ask; `-m pip install` "installs" a zejzl that
# tells how it was called. What it did is in python.log.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >> "$LOG"
case "$1 $2" in
    "-c "*) echo "${FAKE_VERSION:-3.12.1 ok}" ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip")
        [ "$3" = install ] || exit 0
        [ -z "${PIP_FAILS:-}" ] || exit 1
        cat > .venv/bin/zejzl <<END
#!/bin/sh
printf '[%s]' "zejzl" "\\$@"
exit ${ZEJZL_EXIT:-0}
END
        chmod +x .venv/bin/zejzl
        cp .venv/bin/zejzl .venv/bin/shellcheck
        ;;
    "-m ruff") [ -z "${RUFF_FAILS:-}" ] ;;
    "-m pytest") echo "=== 1 passed ===" ;;
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


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "my project's folder", tmp_path / "bin", tmp_path / "python.log")
    made.folder.mkdir()
    made.bin.mkdir()
    for name in ("start.sh", "orchestrate.sh", "pyproject.toml", "constraints.txt", ".env.example"):
        shutil.copy2(ROOT / name, made.folder / name)
    (made.folder / ".ci").mkdir()
    shutil.copy2(ROOT / ".ci/run", made.folder / ".ci/run")
    for tool in (*TOOLS, "chmod"):
        (made.bin / tool).symlink_to(str(shutil.which(tool)))
    return made


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
    assert f"no extra named '{name}'; known: learn dev" in done.stderr
    assert not project.installs()


def test_an_extra_that_pip_once_passed_over_is_not_claimed(project: Project) -> None:
    project.python()
    project.run("start.sh")
    stamp = project.folder / ".venv/zejzl-installed"
    mark, _, root = stamp.read_text().splitlines()
    stamp.write_text(f"{mark}\nnosuch\n{root}\n")

    assert "zejzl: installed\n" in project.run("start.sh", "--check").stderr


# ── launching ─────────────────────────────────────────────────────────────────────────────────


def test_without_a_terminal_the_demo_runs(project: Project) -> None:
    project.python()

    assert project.run("start.sh").stdout == "[zejzl][demo]"


def test_on_a_terminal_the_chat_starts(project: Project) -> None:
    project.python()
    ours, theirs = pty.openpty()

    subprocess.run(
        [str(project.folder / "start.sh")],
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


# ── orchestrate.sh and CI ─────────────────────────────────────────────────────────────────────


def test_an_unknown_command_names_the_known_ones(project: Project) -> None:
    done = project.run("orchestrate.sh", "tset")

    assert done.returncode == 2
    assert "'tset'" in done.stderr
    assert "setup test bench help" in done.stderr


def test_every_known_command_is_explained(project: Project) -> None:
    known = project.run("orchestrate.sh", "?").stderr.rpartition("known: ")[2].split()

    explained = project.run("orchestrate.sh").stdout

    assert known
    assert all(f"\n  {command} " in explained for command in known)


def test_the_tests_come_last_and_get_the_arguments(project: Project) -> None:
    project.python()

    done = project.run("orchestrate.sh", "test", "-k", "two words")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "=== 1 passed ==="
    assert project.log.read_text().splitlines()[-1] == "-m pytest -k two words"


def test_a_step_that_fails_fails_the_whole_and_pytest_still_ends_it(project: Project) -> None:
    project.python()

    done = project.run(".ci/run", RUFF_FAILS="1")

    assert done.returncode == 1
    assert "FAILED: ruff check, ruff format" in done.stdout
    assert done.stdout.splitlines()[-1] == "=== 1 passed ==="


def test_what_is_piped_has_no_colours(project: Project) -> None:
    project.python()

    done = project.run("orchestrate.sh", "test")

    assert "\033" not in done.stdout + done.stderr
