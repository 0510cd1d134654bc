"""`zejzl pantheon`: the nine agents from the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shell import STEERING, Shell

TASK = "count the tokens of each file in notes, then write a report to report.md"


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    made = Shell(tmp_path, monkeypatch, capsys)
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "sky.txt").write_text("hello world")
    yield made
    made.end()


def test_a_task_is_done_and_told(shell: Shell) -> None:
    done = shell("pantheon", TASK)

    assert done.code == 0
    assert "written: report.md" in done.out
    assert "completed in" in done.out
    assert [line for line in done.err.splitlines() if "actor: " not in line] == [
        f"✓ {agent}"
        for agent in (
            *("observer", "reasoner", "actor", "validator", "executor"),
            *("memory", "analyzer", "learner", "improver"),
        )
    ]
    assert "| notes/sky.txt | 2 |" in (shell.folder / "report.md").read_text()


def test_a_run_of_the_same_key_is_done_once(shell: Shell) -> None:
    first = shell("pantheon", "--key", "nightly", "--json", *TASK.split())
    (shell.folder / "report.md").unlink()
    again = shell("pantheon", "--key", "nightly", TASK)

    assert first.json["status"] == "completed"
    assert "resumed (key nightly)" in again.out
    assert not (shell.folder / "report.md").exists()


def test_a_task_that_needs_a_model_says_so(shell: Shell) -> None:
    done = shell("pantheon", "translate notes/sky.txt into French")

    assert done.code == 2
    assert "needs a language model, and there is none" in done.err


def test_a_run_that_may_write_nothing_writes_nothing(shell: Shell) -> None:
    done = shell("pantheon", "--read-only", TASK)

    assert done.code == 2
    assert "write_file" in done.err
    assert not (shell.folder / "report.md").exists()


def test_only_the_workspace_is_read(shell: Shell) -> None:
    done = shell("pantheon", "-w", "notes", "read ../secret.txt")

    assert done.code == 1
    assert "../secret.txt" in done.out + done.err


def test_what_a_file_says_cannot_steer_the_terminal(shell: Shell) -> None:
    (shell.folder / "notes" / "evil.txt").write_text("\x1b[31mred\x1b]0;title\x07")

    done = shell("pantheon", 'read "notes/evil.txt"')

    assert not STEERING.search((done.out + done.err).replace("\n", ""))


def test_a_workspace_is_a_folder(shell: Shell) -> None:
    done = shell("pantheon", "-w", "nowhere", TASK)

    assert (done.code, done.out) == (2, "")
    assert "nowhere" in done.err
