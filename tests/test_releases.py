"""Releases: what is switched, what goes back by itself, and what a kill leaves behind.

The scenarios build, install and run this very tree, committed to a folder of their own. The
dependencies are those of the environment that the tests run in (--reuse-environment).
"""

import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import sys
import zipfile
from argparse import Namespace
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.tree import ROOT
from workflows import releases
from workflows.release_folders import FACTS, STORE, Environment, Release, deploying, remove_old
from workflows.steps import Failed, Workflow
from workflows.wheels import asked, head, install, look_into
from zejzl.stores.connection import known_schema
from zejzl.stores.owners import OwnerLock

SHIPPED = ("src", "pyproject.toml", "ai_framework.py", "README.md", "LICENSE", "constraints.txt")
IDS = "SELECT id FROM messages ORDER BY seq"
SCHEMA = known_schema()
MIGRATION = "CREATE TABLE newer (x);\n"
PLANTED = """
from pathlib import Path
if "/current/venv/" in sys.argv[0] and (Path(sys.argv[0]).parents[3] / "planted").exists():
    raise SystemExit("planted")
"""
DRIVER = """
import sys
from argparse import Namespace
from pathlib import Path
from workflows import releases
from workflows.steps import Workflow
function, root, *rest = sys.argv[1:]
flow = Workflow(function, root=Path(root))
options = Namespace(yes="--yes" in rest, reuse_environment=True, find_links=None)
sys.exit(getattr(releases, function)(flow, options))
"""


@dataclass(frozen=True)
class Project:
    """A git repository with this tree in it."""

    root: Path

    @property
    def staging(self) -> Environment:
        return Environment("staging", self.root)

    @property
    def production(self) -> Environment:
        return Environment("production", self.root)

    def git(self, *words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *words], cwd=self.root, check=True, capture_output=True)

    def commit(self, file: str, text: str) -> None:
        """Write a file, or add to one, and commit that."""
        with (self.root / file).open("a", encoding="utf-8") as it:
            it.write(text)
        self.git("add", "-A")
        self.git("commit", "-qm", file)

    def do(self, function: str, **options: Any) -> int:
        """Run a workflow in this process; return its exit code."""
        dry_run = options.pop("dry_run", False)
        given = {"yes": True, "reuse_environment": True, "find_links": None, **options}
        flow = Workflow(function, root=self.root, dry_run=dry_run)
        code: int = getattr(releases, function)(flow, Namespace(**given))
        return code

    def begin(self, function: str, *words: str, **how: Any) -> "subprocess.Popen[str]":
        """Start a workflow in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-u", "-c", DRIVER, function, str(self.root), *words],
            cwd=ROOT,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **how},
        )

    def kill_after(self, step: str, function: str) -> None:
        """Run a workflow, and kill it right after one of its steps."""
        with self.begin(function, "--yes") as process:
            assert process.stdout is not None
            for line in process.stdout:
                if f"s  {step}" in line:
                    process.kill()
                    break
            process.stdout.read()
        assert process.returncode == -signal.SIGKILL, f"it ended before {step}"


def current(place: Environment) -> Release:
    release = place.current
    assert release is not None
    return release


def ask(place: Environment, text: str) -> None:
    """Ask something through the link, as whoever uses the environment does."""
    asked(place.link / "venv/bin/zejzl", "ask", text, home=place.home)


def rows_or_none(place: Environment) -> list[Any]:
    """Return the rows of a store that may be damaged."""
    try:
        return rows(place, IDS)
    except sqlite3.DatabaseError:
        return []


def rows(place: Environment, query: str) -> list[Any]:
    with closing(sqlite3.connect(place.database)) as connection:
        return [value for (value,) in connection.execute(query)]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose first commit is in both environments; every test leaves it usable."""
    project = Project(tmp_path_factory.mktemp("project"))
    for name in SHIPPED:
        whole = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__")
        if whole.is_dir():
            shutil.copytree(whole, project.root / name, ignore=ignored)
        else:
            shutil.copy2(whole, project.root / name)
    project.git("init", "-q")
    project.commit(".gitignore", ".zejzl/\n__pycache__/\n")
    if project.do("deploy_staging", reuse_environment=False):  # no index answers
        assert project.do("deploy_staging") == 0
    assert project.do("deploy_production") == 0
    return project


@pytest.fixture(scope="module")
def newer(deployed: Project) -> Project:
    """The same with a second commit on staging: it migrates, and fails linked where that is
    planted."""
    deployed.commit("src/zejzl/stores/schema/999_newer.sql", MIGRATION)
    deployed.commit("src/zejzl/cli/__init__.py", PLANTED)
    assert deployed.do("deploy_staging") == 0
    return deployed


# Scenarios with this tree --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_production_runs_exactly_the_wheel_that_staging_passed(deployed: Project) -> None:
    staged, made = deployed.staging.all()[-1], current(deployed.production)

    said = asked(deployed.production.link / "venv/bin/zejzl", "--version", home=deployed.root)
    again = deployed.do("deploy_production") if current(deployed.staging) == staged else 0

    assert made.proven
    assert made.facts["sha256"] == staged.facts["sha256"]
    assert made.wheel.read_bytes() == staged.wheel.read_bytes()
    assert said.stdout.startswith("zejzl ")
    assert not (made.path / STORE).exists()
    assert os.readlink(deployed.production.link) == f"releases/{made.path.name}"
    assert (again, deployed.production.all()) == (0, [made])  # it is there already


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_release_has_dependencies_of_its_own(deployed: Project) -> None:
    venv = deployed.staging.all()[-1].path / "venv"

    if list(venv.rglob("reused.pth")):
        pytest.skip("no index answered, so there was nothing to install dependencies from")
    assert list(venv.glob("lib/*/site-packages/aiohttp/__init__.py"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_release_that_fails_once_linked_goes_back_with_its_store(
    newer: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    place, before = newer.production, current(newer.production)
    ask(place, "remember me")
    kept = rows(place, IDS)
    (place.folder / "planted").write_text("")

    code = newer.do("deploy_production")

    (place.folder / "planted").unlink()
    said = capsys.readouterr().out
    assert code == 1
    assert f"from schema {SCHEMA} to {SCHEMA + 1}" in said
    assert "planted" in said
    assert f"back to {before.path.name}; the store is again as in" in said
    assert place.all() == [current(place)] == [before]
    assert rows(place, "PRAGMA user_version") == [SCHEMA]
    assert rows(place, IDS) == kept
    ask(place, "and it works")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_store_is_not_migrated_under_a_running_bus(
    newer: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    place, before = newer.production, current(newer.production)
    ask(place, "somebody is here")
    bus = OwnerLock(place.database)

    code = newer.do("deploy_production")

    bus.release()
    assert code == 1
    assert "but a bus runs on it" in capsys.readouterr().out
    assert place.all() == [before]
    assert rows(place, "PRAGMA user_version") == [SCHEMA]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_recovery_leaves_a_broken_release_and_a_migrated_store_goes_with_it(
    newer: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    place, before = newer.production, current(newer.production)
    ask(place, "before")
    kept = rows(place, IDS)
    assert newer.do("deploy_production") == 0
    made, migrated = current(place), rows(place, "PRAGMA user_version")
    (made.path / "venv/bin/python").unlink()
    capsys.readouterr()

    code = newer.do("recovery")

    said = capsys.readouterr().out
    assert "--version" in said or "cannot be run" in said  # as long as the path is, a shell tells
    assert f"has schema {SCHEMA + 1}, this zejzl knows {SCHEMA}" in said
    proven = made.proven  # and there to be gone to again
    made.remove()
    assert (code, migrated, proven) == (0, [SCHEMA + 1], True)
    assert current(place) == before != made
    assert rows(place, "PRAGMA user_version") == [SCHEMA]
    assert rows(place, IDS) == kept


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_recovery_puts_the_backup_of_a_damaged_store_back_and_keeps_the_release(
    deployed: Project,
) -> None:
    place, before = deployed.production, current(deployed.production)
    ask(place, "kept")
    asked(before.zejzl, "store", "backup", f"--folder={place.backups}", home=place.home)
    kept = rows(place, "SELECT count(*) FROM messages")
    content = place.database.read_bytes()
    place.database.write_bytes(content[:100] + b"\xa5" * 8000 + content[8100:])

    told = deployed.do("recovery", dry_run=True)
    unchanged = not rows_or_none(place)
    code = deployed.do("recovery")

    assert (told, unchanged, code) == (0, True, 0)
    assert current(place) == before
    assert rows(place, "SELECT count(*) FROM messages") == kept
    assert list(place.home.glob("zejzl.db.replaced-*"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_recovery_takes_an_interrupted_deployment_back_and_goes_no_step_further(
    deployed: Project,
) -> None:
    place, before = deployed.production, current(deployed.production)
    broken = recorded(place, "9", proven=False)
    broken.keep(STORE, {"previous": before.path.name, "backup": None, "schema": None})
    place.switch(broken)

    code = deployed.do("recovery")

    assert code == 0
    assert place.all() == [current(place)] == [before]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_deployment_killed_anywhere_is_finished_or_taken_back_by_the_next(
    newer: Project,
) -> None:
    place = newer.staging
    ask(place, "kept")
    kept = rows(place, IDS)

    for step in ("wheel", "migrate store", "switch"):
        newer.kill_after(step, "deploy_staging")
        ask(place, "the link works at any time")
    interrupted = current(place)
    code = newer.do("recovery", staging=True)

    assert code == 0
    assert interrupted.proven  # it had been switched to, so it was tried and kept
    assert current(place).at < interrupted.at
    assert all(release.proven for release in place.all())
    assert kept == rows(place, IDS)[: len(kept)]
    assert not list(place.folder.rglob("*.part"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_is_deployed_is_head_and_uncommitted_changes_are_told(
    deployed: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (deployed.root / "notes.txt").write_text("not committed")
    before = deployed.staging.all()

    code = deployed.do("deploy_staging", dry_run=True)

    (deployed.root / "notes.txt").unlink()
    said = capsys.readouterr().out
    assert code == 0
    assert "NOT part of it: what is uncommitted (1)" in said
    assert "would" in said
    assert deployed.staging.all() == before


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_production_asks_and_without_anybody_to_answer_refuses(deployed: Project) -> None:
    before, older = deployed.production.all(), current(deployed.production)
    facts = older.facts
    older.keep(FACTS, {**facts, "sha256": "0" * 64})  # so that there is something to deploy

    with deployed.begin("deploy_production", stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        told = process.stdout.read()
    ours, theirs = pty.openpty()
    os.write(ours, b"n\n")
    with deployed.begin("deploy_production", stdin=theirs) as declined:
        assert declined.stdout is not None
        answer = declined.stdout.read()
    os.close(ours)
    os.close(theirs)

    older.keep(FACTS, facts)
    assert (process.returncode, declined.returncode) == (2, 1)
    assert "--yes says yes" in told
    assert "[y/N]" in answer
    assert "nothing was changed" in answer
    assert deployed.production.all() == before


# Refusals ------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_without_a_git_repository_nothing_is_deployed(
    bare: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    code = bare.do("deploy_staging")

    assert code == 1
    assert "is no git repository" in capsys.readouterr().out
    assert bare.staging.all() == []


def test_a_folder_without_a_commit_or_below_the_top_is_told(bare: Project) -> None:
    bare.git("init", "-q")
    (bare.root / "below").mkdir()

    with pytest.raises(Failed, match="has no commit yet"):
        head(bare.root)
    with pytest.raises(Failed, match="is not its top"):
        head(bare.root / "below")


def test_without_git_the_remedy_is_named(bare: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bare.root))

    with pytest.raises(Failed, match="git is not installed"):
        head(bare.root)


def test_production_takes_nothing_that_staging_has_not_passed(
    bare: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    release = recorded(bare.staging, "1", proven=True)

    none = bare.do("deploy_production")
    bare.staging.switch(release)
    release.wheel.write_bytes(b"another")
    other = bare.do("deploy_production")

    said = capsys.readouterr().out
    assert (none, other) == (1, 1)
    assert "staging has passed nothing yet" in said
    assert "is not the wheel that staging passed" in said


def test_with_nothing_to_go_back_to_recovery_says_so(
    bare: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bare.do("recovery") == 1
    assert "no earlier one to go back to" in capsys.readouterr().out


def test_two_deployments_at_once_are_refused(
    bare: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with deploying(bare.root, dry_run=False):
        code = bare.do("deploy_staging")
        looked = bare.do("recovery", dry_run=True)

    assert (code, looked) == (1, 1)
    said = capsys.readouterr().out
    assert f"another deployment is under way (process {os.getpid()})" in said
    assert said.count("under way") == 1  # who only looks may do so at any time


def test_a_folder_that_cannot_be_written_is_told(
    bare: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (bare.root / "file").write_text("")
    monkeypatch.setenv("ZEJZL_RELEASES", str(bare.root / "file" / "releases"))

    assert bare.do("deploy_staging") == 1
    assert "ZEJZL_RELEASES may name another folder" in capsys.readouterr().out


# Folders -------------------------------------------------------------------------------------


def recorded(place: Environment, name: str, *, proven: bool, sha256: str = "") -> Release:
    """Make a release folder without a venv."""
    release = place.begun(name)
    (release.path / "zejzl.whl").write_bytes(b"wheel")
    facts = {"wheel": "zejzl.whl", "sha256": sha256 or name, "at": name, "version": "1"}
    release.keep(FACTS, {**facts, "proven": proven})
    return release


def test_the_last_releases_stay_with_the_current_one_and_those_spared(bare: Project) -> None:
    place = bare.staging
    made = [recorded(place, str(number), proven=True) for number in range(9)]
    place.switch(made[0])

    gone = place.prune({"2"}, keep=5)

    left = sorted(release.path.name for release in place.all())
    assert gone == ["3", "1"]
    assert left == ["0", "2", "4", "5", "6", "7", "8"]


def test_the_wheel_that_production_runs_stays_on_staging_too(bare: Project) -> None:
    for number in range(7):
        recorded(bare.staging, str(number), proven=True, sha256=f"wheel {number}")
    bare.production.switch(recorded(bare.production, "first", proven=True, sha256="wheel 0"))

    gone = remove_old(bare.root)

    assert gone == ["1"]
    assert bare.staging.all()[-1].path.name == "0"


def test_what_is_half_written_is_removed_by_the_next_run(
    bare: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    bare.git("init", "-q")
    whole = recorded(bare.staging, "1", proven=True)
    half = bare.staging.begun("2")
    (half.path / f"{FACTS}.part").write_text("{")

    bare.commit("pyproject.toml", "")
    bare.do("deploy_staging")

    assert bare.staging.all() == [whole]
    assert "2 deleted" in capsys.readouterr().out


def test_a_link_that_leads_nowhere_is_no_release_and_is_replaced(bare: Project) -> None:
    place = bare.production
    release = recorded(place, "1", proven=True)
    place.link.symlink_to("releases/none")

    nowhere = place.current
    place.switch(release)

    assert nowhere is None
    assert place.current == release
    place.switch(None)
    assert place.current is None


def test_a_removed_release_takes_nothing_back_wherever_its_deletion_stopped(bare: Project) -> None:
    release = recorded(bare.production, "1", proven=False)
    release.keep(STORE, {"backup": "b.db", "schema": 1})

    seen = []
    for name in (STORE, FACTS):
        seen.append((release.path / name).exists())
    release.remove()

    assert seen == [True, True]
    assert not release.path.exists()
    assert (release.facts, release.store) == ({}, {})


# Wheels --------------------------------------------------------------------------------------

RECORD = "zejzl/__init__.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n"  # of nothing
WHOLE = {
    "zejzl/__init__.py": "",
    "zejzl/stores/schema/001_first.sql": "",
    "ai_framework.py": "",
    "zejzl-1.0.dist-info/METADATA": "Name: zejzl\nVersion: 1.0\n",
    "zejzl-1.0.dist-info/RECORD": RECORD,
}


def wheel(folder: Path, files: dict[str, str]) -> Path:
    path = folder / "zejzl-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_a_wheel_that_holds_what_it_must_says_its_version(tmp_path: Path) -> None:
    assert look_into(wheel(tmp_path, WHOLE)) == "1.0"


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"zejzl/__init__.py": "x"}, "is not what RECORD says"),
        ({"tests/test_it.py": ""}, "holds ai_framework.py, tests, zejzl"),
        ({"zejzl-1.0.dist-info/METADATA": "Name: zejzl\nVersion: 2\n"}, "says it is zejzl 2"),
        ({"zejzl/stores/schema/001_first.sql": None}, "holds no tables"),
        ({"zejzl-1.0.dist-info/RECORD": None}, "has no RECORD"),
    ],
    ids=["changed", "tests in it", "another version", "no tables", "no record"],
)
def test_a_wheel_that_does_not_is_refused(
    tmp_path: Path, changed: dict[str, str | None], problem: str
) -> None:
    files = {name: text for name, text in {**WHOLE, **changed}.items() if text is not None}

    with pytest.raises(Failed, match=problem):
        look_into(wheel(tmp_path, files))


def test_dependencies_come_from_a_folder_of_wheels_or_the_remedy_is_told(tmp_path: Path) -> None:
    def made(name: str, needs: str) -> Path:
        info = f"{name}-1.0.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}"
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        path = tmp_path / f"{name}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}.py", "")
            archive.writestr(f"{info}/METADATA", metadata)
            archive.writestr(f"{info}/WHEEL", tag)
            archive.writestr(f"{info}/RECORD", f"{name}.py,,\n")
        return path

    flow = Workflow("install", root=tmp_path)
    ours = made("zejzl", "Requires-Dist: theirs\n")

    with pytest.raises(Failed, match="pip download"):
        install(flow, ours, tmp_path / "first", find_links=tmp_path)
    made("theirs", "")
    install(flow, ours, tmp_path / "second", find_links=tmp_path)

    assert {path.stem for path in (tmp_path / "second").rglob("site-packages/*.py")} == {
        "theirs",
        "zejzl",
    }


def test_a_release_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="cannot be run"):
        asked(tmp_path / "zejzl", "--version", home=tmp_path)
