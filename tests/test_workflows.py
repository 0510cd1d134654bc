"""The workflows' steps: what is told, logged, tried again, and left behind when stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.shell import until
from tests.tree import ROOT
from workflows import __main__ as door
from workflows import kept, steps
from workflows.steps import Failed, Skipped, Workflow, prune_logs, run

PYTHON = sys.executable


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workflow:
    monkeypatch.setattr(steps, "PAUSE", 0.001)
    monkeypatch.delenv("ZEJZL_LOGS", raising=False)
    return Workflow("trial", root=tmp_path)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def logged(flow: Workflow) -> str:
    assert flow.log is not None
    return flow.log.read_text()


# ── a step ────────────────────────────────────────────────────────────────────────────────────


def test_each_step_tells_its_time_and_result_and_the_summary_tells_all(
    flow: Workflow, capsys: pytest.CaptureFixture[str]
) -> None:
    def impossible() -> str:
        raise Skipped("no anvil; buy one")

    def wrong() -> str:
        raise Failed("it is Monday; wait")

    assert flow.step("one", lambda: "three files")
    assert flow.step("two", impossible)
    assert not flow.step("three", wrong)
    flow.skip("four", "nobody asked")
    code = flow.ended()

    told = lines(capsys)
    assert code == 1
    assert told[0] == "ok          0.0 s  one: three files"
    assert told[1] == "skipped     0.0 s  two: no anvil; buy one"
    assert told[2] == "FAILED      0.0 s  three: it is Monday; wait"
    assert told[4].startswith("── trial: 1 ok, 1 FAILED, 2 skipped, in 0.0 s; failed: three; log: ")
    assert len(told) == 5


def test_a_workflow_whose_steps_went_well_ends_with_zero(flow: Workflow) -> None:
    flow.step("one", lambda: None)
    flow.skip("two", "not here")

    assert flow.ended() == 0


def test_a_failed_command_shows_its_last_lines_and_the_log_has_them_all(
    flow: Workflow, capsys: pytest.CaptureFixture[str]
) -> None:
    program = "for n in range(100): print('line', n)\nraise SystemExit(7)"

    assert not flow.step("count", [PYTHON, "-c", program])

    told = "\n".join(lines(capsys))
    assert "exit code 7" in told
    assert "| line 99" in told
    assert "| line 5\n" not in told
    assert "\nline 5\n" in logged(flow)


def test_a_command_that_is_not_there_is_told_without_a_traceback(
    flow: Workflow, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not flow.step("hammer", ["no-such-hammer"])

    assert "no-such-hammer cannot be run: No such file" in lines(capsys)[0]


def test_an_unexpected_failure_is_one_line_and_its_traceback_is_in_the_log(
    flow: Workflow, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not flow.step("divide", lambda: str(1 // 0))

    (told,) = lines(capsys)
    assert told.endswith("divide: ZeroDivisionError: integer division or modulo by zero")
    assert "Traceback" in logged(flow)


def test_a_file_that_cannot_be_written_is_named_in_one_line(
    flow: Workflow, capsys: pytest.CaptureFixture[str]
) -> None:
    path = flow.root / "no" / "such" / "folder"

    assert not flow.step("write", lambda: str(path.write_text("x")))

    assert lines(capsys) == [f"FAILED      0.0 s  write: {path}: No such file or directory"]


def test_a_folder_that_is_read_only_is_looked_at_without_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(_path: Path, _mode: int) -> bool:
        return False

    told: list[str] = []
    program = "import os; print(os.environ['RUFF_NO_CACHE'], os.environ['MYPY_CACHE_DIR'])"
    monkeypatch.setattr(os, "access", read_only)

    assert run([PYTHON, "-c", program], tmp_path, told.append) == 0

    assert told == ["true /dev/null"]


def test_a_step_is_tried_as_often_as_it_may_be_and_no_oftener(flow: Workflow) -> None:
    tries: list[int] = []

    def third() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise Failed("not yet")
        return "at last"

    assert not flow.step("too few", third, attempts=2)
    assert flow.step("enough", third, attempts=2)
    assert len(tries) == 3


def test_a_dry_run_tells_what_would_change_and_does_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flow = Workflow("trial", root=tmp_path, dry_run=True)

    def remove() -> str:
        """Remove the old files."""
        raise AssertionError

    assert flow.step("old files", remove)
    assert flow.step("make", ["touch", "a file"])
    assert flow.step("look", lambda: "seen", changes=False)
    assert flow.ended() == 0

    told = lines(capsys)
    assert told[0].endswith("old files: Remove the old files.")
    assert told[1].endswith("make: would run touch 'a file'")
    assert told[2].endswith("look: seen")
    assert not [*tmp_path.iterdir()]


# ── the log ───────────────────────────────────────────────────────────────────────────────────


def test_a_log_is_for_its_owner_only_and_the_last_twenty_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / ".zejzl" / "logs"
    folder.mkdir(parents=True)
    for number in range(30):
        (folder / f"old-{number}.log").touch()
        os.utime(folder / f"old-{number}.log", (number, number))

    flow = Workflow("trial", root=tmp_path)

    assert flow.log is not None
    assert flow.log.stat().st_mode & 0o777 == 0o600
    assert len([*folder.iterdir()]) == 20
    assert not (folder / "old-10.log").exists()
    assert prune_logs(folder, keep=1) and [*folder.iterdir()] == [flow.log]


def test_without_a_place_for_a_log_the_steps_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".zejzl").write_text("a file where the folder should be")

    flow = Workflow("trial", root=tmp_path)

    assert flow.step("one", lambda: "done")
    assert flow.ended() == 0
    assert "no log is kept" in capsys.readouterr().err


def test_a_full_disk_ends_the_log_and_not_the_workflow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    flow = Workflow("trial", root=tmp_path, log=full)

    assert flow.step("one", lambda: "done")
    assert flow.step("two", lambda: "done")

    assert capsys.readouterr().err == "the log ends here: No space left on device\n"


# ── stopping ──────────────────────────────────────────────────────────────────────────────────

SLOW = """
import sys
from pathlib import Path
from workflows import __main__ as door
root = Path(sys.argv[1])
door.ROOT = root

class Slow(door.Entry):
    def load(self):
        def work(flow, options):
            program = f"import pathlib, time; pathlib.Path('begun').touch(); time.sleep(60)"
            flow.step("sleep", [sys.executable, "-c", program])
            flow.step("never", lambda: (root / "never").touch())
            return flow.ended()
        return work

door.WORKFLOWS["slow"] = Slow("x:x", "sleep")
sys.exit(door.main(["slow"]))
"""


@pytest.mark.parametrize(
    ("number", "code", "by"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_workflow_that_is_stopped_ends_its_command_and_says_so(
    tmp_path: Path, number: int, code: int, by: str
) -> None:
    with subprocess.Popen(
        [PYTHON, "-c", SLOW, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        until((tmp_path / "begun").exists)
        began = time.monotonic()
        process.send_signal(number)
        told, _ = process.communicate()

    assert process.returncode == code
    assert time.monotonic() - began < 10
    assert f"── slow: stopped by {by}, no step was done" in told
    assert not (tmp_path / "never").exists()


def test_a_command_leaves_no_process_behind_when_its_reader_fails(tmp_path: Path) -> None:
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    seen: list[int] = []

    def heard(line: str) -> None:
        seen.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([PYTHON, "-c", program], tmp_path, heard)

    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


# ── the door ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", door.WORKFLOWS)
def test_every_workflow_can_be_loaded_and_has_help(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(door.WORKFLOWS[name].load())
    with pytest.raises(SystemExit) as left:
        door.main([name, "--help"])

    assert left.value.code == 0
    assert "--dry-run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["helth"], "did you mean health?"),
        (["nothing-like-it"], "known: dev "),
        (["health", "--dry-rum"], "unknown option '--dry-rum'; did you mean --dry-run?"),
        (["infinite", "--cycle=3"], "unknown option '--cycle'; did you mean --cycles?"),
        (["health", "9"], "unknown option '9'; known: --dry-run"),
        (["infinite", "--cycles", "0"], "must be a whole number from 1 on, not '0'"),
        (["infinite", "--interval", "nan"], "must be seconds from 0 to 86400, not 'nan'"),
        (["infinite", "--interval", "soon"], "must be seconds from 0 to 86400, not 'soon'"),
    ],
)
def test_what_is_asked_wrongly_is_one_line_and_exit_code_two(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = door.main(["--parse", *words])
    except SystemExit as left:
        code = left.code

    told = capsys.readouterr().err
    assert code == 2
    assert said in told
    assert told.count("\n") == 1


# ── what is kept ──────────────────────────────────────────────────────────────────────────────


def test_what_was_saved_is_loaded_and_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kept.json"

    kept.save(path, {"nuts": 3})
    kept.save(path, {"nuts": 4})

    assert kept.load(path) == ({"version": 1, "nuts": 4}, "")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\xff\xfe", b'{"version": 99}'])
def test_a_damaged_file_is_put_aside_and_said_so(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "kept.json"
    path.write_bytes(damage)

    values, said = kept.load(path)

    assert values == {}
    assert said == "kept.json could not be read and is now kept.json.damaged"
    assert (tmp_path / "kept.json.damaged").read_bytes() == damage
    assert kept.load(path) == ({}, "")


def test_values_that_cannot_be_written_leave_the_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    kept.save(path, {"nuts": 3})

    with pytest.raises(TypeError):
        kept.save(path, {"nuts": object()})

    assert kept.load(path)[0]["nuts"] == 3
    assert [*tmp_path.iterdir()] == [path]
