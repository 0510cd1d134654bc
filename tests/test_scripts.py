"""orchestrate.sh and .ci/run: with a Python that pretends, and in folders with the real one."""

import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.shell import until
from tests.tree import ROOT

TOOLS = ("bash", "sh", "cat", "cksum", "cp", "dirname", "env", "mkdir", "mv", "readlink", "rm")
COMMANDS = [
    *("setup", "dev", "test", "bench", "deploy-staging", "deploy-production", "recovery"),
    *("maintenance", "monitor", "optimize", "security", "docs", "health", "infinite"),
    *("tools", "menu", "help"),
]

# Answers as CPython would, as far as the scripts ask; `-m pip install` "installs" programs that
# tell how they were called. What it did is in python.log.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >> "$LOG"
case "$1 $2" in
    "-c "*) echo "${FAKE_VERSION:-3.12.1 ok}" ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip")
        [ "$3" = install ] || exit 0
        cat > .venv/bin/zejzl <<END
#!/bin/sh
printf '[%s]' "zejzl" "\\$@"
END
        chmod +x .venv/bin/zejzl
        cp .venv/bin/zejzl .venv/bin/shellcheck
        cp .venv/bin/zejzl .venv/bin/shfmt
        ;;
    "-m ruff") [ -z "${RUFF_FAILS:-}" ] ;;
    "-m pytest") echo "=== 1 passed ===" ;;
    "- ") cat > /dev/null ;;
esac
"""
SETTINGS = """
[tool.mypy]
files = ["a.py"]
[tool.ruff]
exclude = ["workflows"]
"""
BROKEN_PYTHON = "#!/bin/sh\nexit 126\n"


@dataclass
class Project:
    """A folder with the scripts, and a PATH on which stands only what a test puts there."""

    folder: Path
    bin: Path
    log: Path
    env: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def python(self) -> None:
        self.write(self.bin / "python3", FAKE_PYTHON)

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

    def did(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

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


@pytest.fixture
def real(project: Project, tmp_path: Path) -> Project:
    """A project with this Python and the real workflows; only start.sh pretends."""
    project.write(project.folder / "start.sh", '#!/bin/sh\necho "start.sh $*" >> "$LOG"\n')
    (project.folder / ".venv").symlink_to(sys.prefix)
    shutil.copytree(ROOT / "workflows", project.folder / "workflows")
    project.write(project.folder / "pyproject.toml", SETTINGS)
    (project.folder / "a.py").write_text("x = 1\n")
    project.env = {"ZEJZL_HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    return project


@dataclass
class Terminal:
    """A terminal on which orchestrate.sh runs, and somebody who types."""

    process: "subprocess.Popen[bytes]"
    ours: int
    seen: str = ""

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def press_ctrl_c(self) -> None:
        """Let all that runs on the terminal hear it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def read_until(self, text: str) -> str:
        while text not in self.seen:
            self.seen += os.read(self.ours, 65536).decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def end(self) -> int:
        try:
            while True:
                self.seen += os.read(self.ours, 65536).decode(errors="replace")
        except OSError:  # how Linux tells that nobody has the terminal open any more
            return self.process.wait()


@contextmanager
def on_terminal(project: Project, *words: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [str(project.folder / "orchestrate.sh"), *words],
        env=project.environment({"NO_COLOR": "1", "TERM": "xterm"}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            os.close(ours)


# ── what is asked ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("word", "near"),
    [("tset", "test"), ("helth", "health"), ("deploy", ""), ("deploy-stagin", "deploy-staging")],
)
def test_an_unknown_command_names_the_nearest_one_or_all(
    project: Project, word: str, near: str
) -> None:
    done = project.run("orchestrate.sh", word)

    hint = f"did you mean {near}?" if near else f"known: {' '.join(COMMANDS)}"
    assert done.returncode == 2
    assert done.stderr == f"orchestrate.sh: unknown command '{word}'; {hint}\n"


def test_every_known_command_is_explained(project: Project) -> None:
    known = project.run("orchestrate.sh", "?").stderr.rpartition("known: ")[2].split()

    explained = project.run("orchestrate.sh").stdout

    assert known == COMMANDS
    assert all(f"\n  {command} " in explained for command in known)


@pytest.mark.parametrize("command", ["setup", "bench"])
def test_an_unknown_option_is_one_line_and_nothing_is_done(project: Project, command: str) -> None:
    project.python()

    done = project.run("orchestrate.sh", command, "--dry-rum")

    assert done.returncode == 2
    assert "unknown option" in done.stderr
    assert "did you mean --dry-run?" in done.stderr
    assert not project.did()


def test_an_unknown_option_of_a_workflow_is_said_before_anything_is_made_ready(
    real: Project,
) -> None:
    done = real.run("orchestrate.sh", "infinite", "--cycle", "3")

    assert done.returncode == 2
    assert "did you mean --cycles?" in done.stderr
    assert not real.did()


def test_a_menu_needs_a_terminal(project: Project) -> None:
    done = project.run("orchestrate.sh", "menu")

    assert done.returncode == 2
    assert "menu needs a terminal" in done.stderr
    assert done.stderr.count("\n") == 1


# ── on a bare machine ─────────────────────────────────────────────────────────────────────────


def test_tools_and_help_need_nothing_but_bash(project: Project) -> None:
    for tool in [*project.bin.iterdir()]:
        tool.unlink()
    bash = str(shutil.which("bash"))

    done = {
        word: subprocess.run(
            [bash, "orchestrate.sh", word],
            cwd=project.folder,
            env={"PATH": str(project.bin)},
            capture_output=True,
            text=True,
            check=False,
        )
        for word in ("tools", "help", "tset")
    }

    assert [each.returncode for each in done.values()] == [0, 0, 2]
    rows = {line.split()[0]: line for line in done["tools"].stdout.splitlines()}
    assert "missing" not in rows["bash"]
    assert "missing" in rows["Python"] and "3.11 or newer" in rows["Python"]
    assert "./orchestrate.sh setup" in rows["ruff"]
    assert "pip install pip-audit" in rows["pip-audit"]
    assert "did you mean test?" in done["tset"].stderr


def test_tools_tells_the_versions_of_what_is_there(real: Project) -> None:
    done = real.run("orchestrate.sh", "tools")

    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()}
    assert rows["pytest"] == pytest.__version__
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("command", "code"), [("health", 3), ("maintenance", 1), ("recovery", 1), ("monitor", 1)]
)
def test_without_a_venv_that_works_the_remedy_is_named(
    project: Project, command: str, code: int
) -> None:
    missing = project.run("orchestrate.sh", command)
    project.write(project.folder / ".venv/bin/python", BROKEN_PYTHON)
    broken = project.run("orchestrate.sh", command)

    assert missing.returncode == broken.returncode == code
    assert missing.stderr == "there is no .venv yet; ./orchestrate.sh setup makes it\n"
    assert broken.stderr == ".venv does not work; ./orchestrate.sh setup makes it anew\n"


def test_a_dry_setup_reports_and_changes_nothing(project: Project) -> None:
    project.python()
    before = project.listing()

    done = project.run("orchestrate.sh", "setup", "--dry-run")

    assert done.returncode == 0
    assert ".venv: to be made" in done.stderr
    assert project.listing() == before


# ── what CI runs ──────────────────────────────────────────────────────────────────────────────


def test_the_tests_come_last_and_get_the_arguments(project: Project) -> None:
    project.python()

    done = project.run("orchestrate.sh", "test", "-k", "two words")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "=== 1 passed ==="
    assert project.did()[-1] == "-m pytest -k two words"
    assert "[zejzl][-i][4][-ci][-d]" in done.stdout  # shfmt


def test_a_step_that_fails_fails_the_whole_and_pytest_still_ends_it(project: Project) -> None:
    project.python()

    done = project.run(".ci/run", RUFF_FAILS="1")

    assert done.returncode == 1
    assert "FAILED: ruff check, ruff format" in done.stdout
    assert done.stdout.splitlines()[-1] == "=== 1 passed ==="


def test_each_step_tells_its_time_and_result(project: Project) -> None:
    project.python()

    told = project.run("orchestrate.sh", "test", RUFF_FAILS="1").stdout.splitlines()

    assert told[:6:2] == ["── ruff check", "── ruff format", "── mypy"]
    assert told[1] == "FAILED, 0 s"
    assert told[5] == "ok, 0 s"


def test_real_installs_the_local_model_and_is_passed_on(project: Project) -> None:
    project.python()

    project.run("orchestrate.sh", "test", "--real", "-k", "one")

    assert any("[dev,local]" in line for line in project.did())
    assert project.did()[-1] == "-m pytest --real -k one"


def test_a_dry_test_runs_nothing(project: Project) -> None:
    project.python()

    done = project.run("orchestrate.sh", "test", "--dry-run", "-k", "one")

    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "would run: .venv/bin/python -m pytest -k one"
    assert not project.did()


def test_a_benchmark_that_fails_is_named_and_the_others_run(project: Project) -> None:
    project.python()
    for name in ("a.py", "b.py"):
        project.write(project.folder / "bench" / name, "")
    fails = '#!/bin/sh\n[ "$1" != bench/a.py ] || exit 1\n'
    project.run("start.sh", "--setup", "dev")
    fake = FAKE_PYTHON.removeprefix("#!/bin/sh\n")
    project.write(project.folder / ".venv/bin/python", f"{fails}{fake}")

    done = project.run("orchestrate.sh", "bench")

    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "── FAILED: bench/a.py"
    assert "── bench/b.py\nok" in done.stdout


def test_what_is_piped_has_no_colours(project: Project) -> None:
    project.python()

    done = project.run("orchestrate.sh", "test")

    assert "\033" not in done.stdout + done.stderr


@pytest.mark.parametrize("tool", [["shellcheck"], ["shfmt", "-i", "4", "-ci", "-d"]], ids=str)
def test_the_scripts_are_clean(tool: list[str]) -> None:
    program = Path(sys.executable).with_name(tool[0])
    if not program.exists():
        pytest.skip(f"{tool[0]} is not installed")
    scripts = [*ROOT.glob("*.sh"), ROOT / ".ci/run"]

    done = subprocess.run(
        [program, *tool[1:], *scripts], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "")


# ── workflows ─────────────────────────────────────────────────────────────────────────────────


def test_a_workflow_runs_from_any_folder_and_through_a_link(real: Project, tmp_path: Path) -> None:
    link = tmp_path / "care here"
    link.symlink_to(Path("my project's folder/orchestrate.sh"))

    done = subprocess.run(
        [str(link), "health", "--no-providers"],
        cwd="/",
        env=real.environment({}),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "── health: 4 ok, 1 skipped" in done.stdout
    (log,) = (real.folder / ".zejzl" / "logs").iterdir()
    assert "environment: Python" in log.read_text()


def test_a_place_for_the_logs_may_be_named(real: Project, tmp_path: Path) -> None:
    real.run("orchestrate.sh", "health", "--no-providers", ZEJZL_LOGS=str(tmp_path / "logs"))

    assert len([*(tmp_path / "logs").iterdir()]) == 1
    assert not (real.folder / ".zejzl").exists()


def test_an_adventure_of_one_cycle_earns_its_first_steps(real: Project) -> None:
    done = real.run("orchestrate.sh", "infinite", "--cycles", "1", "--interval", "0")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "achievement: First steps" in done.stdout
    assert "First steps" in (real.folder / ".zejzl" / "achievements.json").read_text()
    assert real.did() == ["start.sh --setup dev"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_adventure_ends_with_a_summary(real: Project, number: int, code: int) -> None:
    kept = real.folder / ".zejzl" / "achievements.json"
    command = [str(real.folder / "orchestrate.sh"), "infinite", "--interval", "600"]
    with subprocess.Popen(
        command, env=real.environment({}), stdout=subprocess.PIPE, text=True
    ) as process:
        until(kept.exists)
        process.send_signal(number)
        told, _ = process.communicate()

    assert process.returncode == code
    assert "The panda rests after " in told
    assert "── infinite: stopped by " in told


def test_a_dry_run_of_a_workflow_makes_nothing_ready(real: Project) -> None:
    before = real.listing()

    done = real.run("orchestrate.sh", "infinite", "--dry-run")

    assert done.returncode == 0
    assert "would do security every 3 cycles" in done.stdout
    assert real.listing() == before
    assert not real.did()


def test_monitor_watches_the_bus(project: Project) -> None:
    project.python()
    project.run("start.sh", "--setup", "dev")

    assert project.run("orchestrate.sh", "monitor", "--json").stdout == (
        "[zejzl][status][--watch][--json]"
    )


def test_monitor_ends_with_ctrl_c(real: Project) -> None:
    with on_terminal(real, "monitor") as terminal:
        terminal.read_until("no bus has run yet")
        terminal.press_ctrl_c()

        assert terminal.end() in (0, 130)


# ── the menu ──────────────────────────────────────────────────────────────────────────────────

PROMPT = "(q: leave): "


def test_the_menu_is_what_a_terminal_gets_and_a_number_runs_its_command(project: Project) -> None:
    project.python()
    with on_terminal(project) as terminal:
        shown = terminal.read_until(PROMPT)
        number = next(line.split()[0] for line in shown.splitlines() if " setup " in line)
        terminal.type(f"{number} --dry-run\n")
        told = terminal.read_until("setup: exit code 0")
        terminal.read_until(PROMPT)
        terminal.type("q\n")

        assert terminal.end() == 0
    assert all(f"  {name} " in shown for name in COMMANDS if name != "menu")
    assert ".venv: to be made" in told


def test_the_menu_takes_names_and_survives_nonsense(project: Project) -> None:
    with on_terminal(project, "menu") as terminal:
        for typed, answer in (
            ("99", "numbers go from 1 to 16"),
            ("0", "numbers go from 1 to 16"),
            ("08 --dry-rum", "exit code 1"),
            ("helth", "did you mean health?"),
            ("* ?", "unknown command '*'"),
            ("tools", "tools: exit code 0"),
        ):
            terminal.read_until(PROMPT)
            terminal.type(f"{typed}\n")
            terminal.read_until(answer)
        terminal.read_until(PROMPT)
        terminal.type("\n")
        terminal.read_until(PROMPT)
        terminal.type("\x04")

        assert terminal.end() == 0


def test_ctrl_c_leaves_the_menu(project: Project) -> None:
    with on_terminal(project) as terminal:
        terminal.read_until(PROMPT)
        terminal.press_ctrl_c()

        assert terminal.end() == 130


def test_ctrl_c_in_a_command_comes_back_to_the_menu(real: Project) -> None:
    with on_terminal(real) as terminal:
        terminal.read_until(PROMPT)
        terminal.type("infinite --interval 600\n")
        terminal.read_until("panda wisdom")
        terminal.press_ctrl_c()
        terminal.read_until("infinite: exit code 130")
        terminal.read_until(PROMPT)
        terminal.type("quit\n")

        assert terminal.end() == 0
