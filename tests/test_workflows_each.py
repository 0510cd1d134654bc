"""The project's workflows in folders of their own: what each finds, does, and refuses to do."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest

from workflows import dev, docs, health, infinite, kept, maintenance, optimize, secrets, security
from workflows.steps import Failed, Result, Skipped, Workflow

# Put together here, so that no line of this file is one that the patrol should tell.
KEY = "sk-" + "proj-9fQzT7LmWx2RkVbN4sHcYp8G"
GOOGLE = "AIza" + "SyB9fQzT7LmWx2RkVbN4sHcYp8GdJ1uEoA3"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The database's folder; nothing of this machine's environment is left."""
    for name in list(os.environ):
        if name.startswith("ZEJZL_") or name.endswith(("_API_KEY", "_BASE_URL", "_MODEL")):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    monkeypatch.setenv("ZEJZL_HOME", str(folder))
    return folder


@pytest.fixture
def flow(tmp_path: Path, home: Path) -> Workflow:
    assert home
    root = tmp_path / "project"
    root.mkdir()
    return Workflow("trial", root=root)


def results(flow: Workflow) -> dict[str, tuple[str, str]]:
    return {result.name: (result.outcome, result.text) for result in flow.results}


def git(root: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)


def ask(flow: Workflow) -> None:
    """Make a database with one message."""
    command = [sys.executable, "-m", "zejzl", "ask", "hello"]
    subprocess.run(command, cwd=flow.root, check=True, capture_output=True)


# ── secrets ───────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_found_in_a_file_and_never_shown_whole(flow: Workflow) -> None:
    (flow.root / "notes.md").write_text(f"one\nuse {KEY} and {GOOGLE}\n")

    with pytest.raises(Failed) as told:
        security.secrets_in_files(flow.root)

    assert "2 found" in str(told.value)
    assert "OpenAI key sk-pro… (32 characters) in notes.md:2" in str(told.value)
    assert "Google key AIzaSy… (39 characters) in notes.md:2" in str(told.value)
    assert KEY[8:] not in str(told.value)


@pytest.mark.parametrize(
    "text",
    [
        "sk-test-0123456789abcdefWXYZ",
        "sk-your-key-goes-here-and-nowhere-else",
        "sk-" + "a1" * 20,
        "risk-" + "9fQzT7LmWx2RkVbN4sHcYp8G",
        "AIza is how they begin",
    ],
)
def test_an_example_of_a_key_is_passed_over(text: str) -> None:
    assert not [*secrets.keys_in(text, "here")]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("sk-ant-" + "api03-9fQzT7LmWx2RkVbN4sHcYp8GdJ1u", "Anthropic key"),
        ("ghp_" + "9fQzT7LmWx2RkVbN4sHcYp8GdJ1uEoA3iB6K", "GitHub token"),
        ("AKIA" + "Q3ZT7LMWX2RKVBN4", "AWS key id"),
        ("-----BEGIN RSA " + "PRIVATE KEY-----", "private key"),
    ],
)
def test_each_kind_of_key_is_called_by_its_name(text: str, kind: str) -> None:
    assert [found.kind for found in secrets.keys_in(f"x = '{text}'", "here")] == [kind]


def test_a_key_that_was_taken_out_again_is_found_in_the_history(flow: Workflow) -> None:
    git(flow.root, "init", "-q")
    (flow.root / "a.txt").write_text(f"{KEY}\n")
    git(flow.root, "add", "a.txt")
    git(flow.root, "commit", "-qm", "one")
    (flow.root / "a.txt").write_text("nothing\n")
    git(flow.root, "commit", "-qam", "two")

    assert "none in" in security.secrets_in_files(flow.root)
    with pytest.raises(Failed, match=r"1 found.*\n.*a\.txt of commit [0-9a-f]{7}"):
        security.secrets_in_history(flow.root)


def test_an_env_that_would_be_committed_is_told(flow: Workflow) -> None:
    git(flow.root, "init", "-q")
    (flow.root / ".env").write_text("")

    with pytest.raises(Failed, match="would be committed"):
        security.secrets_in_files(flow.root)
    (flow.root / ".gitignore").write_text(".env\n")
    assert security.secrets_in_files(flow.root).startswith("none in ")


def test_without_a_repository_the_history_is_skipped(flow: Workflow) -> None:
    with pytest.raises(Skipped, match="no git repository"):
        security.secrets_in_history(flow.root)


# ── the rest of security ──────────────────────────────────────────────────────────────────────


def test_a_file_that_others_may_read_is_told_with_the_remedy(flow: Workflow, home: Path) -> None:
    home.mkdir()
    for path in (flow.root / ".env", home / "zejzl.db"):
        path.touch()
        path.chmod(0o644)

    with pytest.raises(Failed, match=f"chmod 600 {flow.root}/.env {home}/zejzl.db"):
        security.permissions(flow.root)
    (flow.root / ".env").chmod(0o600)
    (home / "zejzl.db").chmod(0o600)
    assert security.permissions(flow.root) == "2 files and folders looked at"


def test_sql_that_is_put_together_from_values_is_told(flow: Workflow) -> None:
    (flow.root / "src").mkdir()
    (flow.root / "src" / "a.py").write_text(
        'db.execute("SELECT ?", (x,))\n'
        'db.execute(f"SELECT {x}")\n'
        'db.executemany("DELETE " + x)\n'
        'db.execute("SELECT {}".format(x))\n'
    )

    with pytest.raises(Failed) as told:
        security.sql(flow.root)

    assert [line.strip() for line in str(told.value).splitlines()[1:]] == [
        '| src/a.py:2: f"SELECT {x}"',
        '| src/a.py:3: "DELETE " + x',
        '| src/a.py:4: "SELECT {}".format(x)',
    ]


@pytest.mark.skipif(
    not Path(sys.executable).with_name("shellcheck").exists(), reason="needs shellcheck"
)
def test_a_careless_script_is_told(flow: Workflow) -> None:
    (flow.root / "a.sh").write_text("#!/bin/sh\nrm -rf $1/*\n")

    with pytest.raises(Failed, match="SC2086"):
        security.shell(flow)


AUDIT = """
import json, os, sys
said = os.environ["AUDIT"]
print(said)
print("no connection", file=sys.stderr)
sys.exit(1)
"""


@pytest.mark.parametrize(
    ("said", "error", "told"),
    [
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', None, "1 packages"),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]}]}',
            Failed,
            "a 1: CVE-1",
        ),
        ("", Skipped, "no index answered: no connection"),
    ],
)
def test_what_an_audit_says_is_understood(
    flow: Workflow,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    error: type[Exception] | None,
    told: str,
) -> None:
    (flow.root / "pip_audit.py").write_text(AUDIT)
    monkeypatch.setenv("AUDIT", said)
    monkeypatch.syspath_prepend(str(flow.root))

    if error is None:
        assert told in security.audit(flow.root)
    else:
        with pytest.raises(error, match=told):
            security.audit(flow.root)


def test_without_pip_audit_the_audit_is_skipped_with_the_remedy(
    flow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(_name: str) -> None:
        return None

    monkeypatch.setattr(security, "find_spec", nothing)

    with pytest.raises(Skipped, match="pip install pip-audit"):
        security.audit(flow.root)


def test_a_dangerous_call_is_found_by_ruff(flow: Workflow) -> None:
    (flow.root / "src").mkdir()
    (flow.root / "src" / "a.py").write_text("import pickle\npickle.loads(b'')\n")

    assert not security.guard(flow)

    found = results(flow)
    assert found["code"][0] == "FAILED"
    assert "S301" in found["code"][1]
    assert found["SQL"][0] == "ok"


# ── health and maintenance ────────────────────────────────────────────────────────────────────


def test_a_fresh_folder_is_well_and_all_was_looked_at(flow: Workflow) -> None:
    assert health.check(flow, Namespace(no_providers=False)) == 0

    found = results(flow)
    assert [*found] == ["environment", "settings", "store", "disk", "providers"]
    assert found["providers"] == ("ok", "offline answered")


def test_an_env_for_everybody_is_unhealthy_with_exit_code_three(flow: Workflow) -> None:
    (flow.root / ".env").touch(0o644)
    (flow.root / ".env").chmod(0o644)

    assert health.check(flow, Namespace(no_providers=True)) == 3
    assert "chmod 600" in results(flow)["settings"][1]
    assert results(flow)["providers"][0] == "skipped"


def test_an_env_that_is_a_folder_is_said(flow: Workflow) -> None:
    (flow.root / ".env").mkdir()

    assert health.settings(flow).startswith(".env is a folder")


def test_a_disk_that_is_nearly_full_is_unhealthy(
    flow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "LEAST_FREE", 1 << 62)

    health.check(flow, Namespace(no_providers=True))

    assert flow.failed == ["disk"]


def test_maintenance_leaves_a_whole_backup(flow: Workflow) -> None:
    ask(flow)

    assert maintenance.maintain(flow, Namespace()) == 0

    (copy,) = (flow.root / ".zejzl" / "backups").glob("*.db")
    connection = sqlite3.connect(copy)
    assert connection.execute("SELECT content FROM messages").fetchall() == [("hello",)]
    connection.close()
    assert {outcome for outcome, _ in results(flow).values()} == {"ok"}


def test_nothing_is_deleted_where_no_backup_can_be_made(flow: Workflow) -> None:
    ask(flow)
    (flow.root / ".zejzl" / "backups").write_text("a file where the folder should be")

    assert maintenance.maintain(flow, Namespace()) == 1

    found = results(flow)
    assert found["backup"][0] == "FAILED"
    assert found["retention and room"] == ("skipped", "nothing is deleted without a backup")


def test_beside_a_running_bus_there_is_a_backup_and_the_rest_is_left_to_the_bus(
    flow: Workflow, home: Path
) -> None:
    program = (
        "import asyncio\n"
        "from ai_framework import AsyncMessageBus\n"
        "async def main():\n"
        "    async with AsyncMessageBus():\n"
        "        print('runs', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=flow.root, stdout=subprocess.PIPE, text=True) as bus:
        assert bus.stdout is not None
        assert bus.stdout.readline() == "runs\n"
        code = maintenance.maintain(flow, Namespace())
        bus.kill()

    assert home.exists()
    assert code == 0
    assert results(flow)["backup"][0] == "ok"
    assert results(flow)["retention and room"][0] == "skipped"
    assert "stop the bus" in results(flow)["retention and room"][1]


def test_before_there_is_a_database_maintenance_has_nothing_to_do(flow: Workflow) -> None:
    assert maintenance.maintain(flow, Namespace()) == 0
    assert results(flow)["backup"][0] == "skipped"


def test_a_damaged_database_is_told_and_neither_copied_nor_packed(
    flow: Workflow, home: Path
) -> None:
    ask(flow)
    path = home / "zejzl.db"
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + os.urandom(len(whole) - 8192))
    damaged = path.read_bytes()

    assert maintenance.maintain(flow, Namespace()) == 1

    found = results(flow)
    assert "./orchestrate.sh recovery" in found["integrity"][1]
    assert found["backup"][0] == found["retention and room"][0] == "skipped"
    assert path.read_bytes() == damaged
    assert not (flow.root / ".zejzl" / "backups").exists()


# ── dev ───────────────────────────────────────────────────────────────────────────────────────


def test_dev_formats_and_tells_what_is_wrong_and_what_changed(flow: Workflow) -> None:
    git(flow.root, "init", "-q")
    (flow.root / "a.py").write_text("x = [1,2]\nimport os\n")
    (flow.root / "pyproject.toml").write_text('[tool.mypy]\nfiles = ["a.py"]\n')

    assert dev.develop(flow, Namespace(quick=True, k=None)) == 1

    found = results(flow)
    assert (flow.root / "a.py").read_text().startswith("x = [1, 2]\n")
    assert found["lint"][0] == "FAILED"
    assert "F401" in found["lint"][1]
    assert found["types"][0] == "ok"
    assert found["what changed"][1].endswith("files differ from the last commit")


def test_dev_measures_what_the_chosen_tests_ran(flow: Workflow) -> None:
    (flow.root / "src" / "zejzl").mkdir(parents=True)
    (flow.root / "src" / "zejzl" / "__init__.py").touch()
    (flow.root / "ai_framework.py").write_text(
        "def f():\n    return 1\n\n\ndef g():\n    return 2\n"
    )
    (flow.root / "test_a.py").write_text(
        "import ai_framework\n\n\ndef test_one():\n    assert ai_framework.f() == 1\n\n\n"
        "def test_two():\n    assert False\n"
    )
    (flow.root / "pyproject.toml").write_text('[tool.mypy]\nfiles = ["ai_framework.py"]\n')

    dev.develop(flow, Namespace(quick=False, k="test_one"))

    found = results(flow)
    assert "1 passed" in found["tests"][1]
    assert found["coverage"][1].startswith("75% of the statements")
    assert found["what changed"] == ("skipped", "this folder is no git repository")


# ── optimize ──────────────────────────────────────────────────────────────────────────────────

BREAKER = """
from pathlib import Path
times = Path("times")
runs = len(times.read_text()) if times.exists() else 0
times.write_text("x" * (runs + 1))
print('  good call                        {}  4.45 x bare')
print("  policy: try_acquire and ok       241  2.05 x bare")
print("  refusal, by token                1,385  3.28 x bare")
"""


def measured(flow: Workflow, nanoseconds: str) -> optimize.Compared:
    bench = flow.root / "bench"
    bench.mkdir(exist_ok=True)
    script = bench / "breaker.py"
    script.write_text(BREAKER.replace("{}", nanoseconds))
    return optimize.benchmark(flow, script)


def test_figures_are_kept_with_date_machine_and_commit(flow: Workflow) -> None:
    found = measured(flow, "523")

    values = json.loads((flow.root / ".zejzl" / "figures.json").read_text())
    run = values["benches"]["breaker"]
    assert found.said.endswith("the first run")
    assert run["figures"] == {
        "ns of a good call": 523.0,
        "ns of the rule alone": 241.0,
        "ns of a refusal": 1385.0,
    }
    assert set(run) == {"date", "machine", "commit", "command", "figures"}


def test_a_figure_is_compared_with_the_last_run(flow: Workflow) -> None:
    measured(flow, "500")

    same = measured(flow, "510")
    better = measured(flow, "250")

    assert "nothing notable" in same.said
    assert better.better == ["ns of a good call"]
    assert "510 → 250 (-51%)" in better.said


def test_what_seems_slower_is_measured_once_more_and_the_better_counts(flow: Workflow) -> None:
    measured(flow, "500")
    (flow.root / "times").unlink()

    once = measured(flow, "' + ('900' if runs == 0 else '500') + '")
    slow = measured(flow, "1,000")

    assert once.worse == []
    assert slow.worse == ["ns of a good call"]


def test_another_machine_s_figures_are_not_compared(flow: Workflow) -> None:
    measured(flow, "500")
    path = flow.root / ".zejzl" / "figures.json"
    path.write_text(path.read_text().replace("cores", "turnips"))

    assert measured(flow, "5").said.endswith("the last run was on another machine")


def test_a_benchmark_that_fails_or_tells_nothing_is_a_failure(flow: Workflow) -> None:
    (flow.root / "bench").mkdir()
    script = flow.root / "bench" / "breaker.py"
    script.write_text("print('hello')")
    with pytest.raises(Failed, match="does not tell the ns of a good call"):
        optimize.benchmark(flow, script)

    script.write_text("raise SystemExit('out of nuts')")
    with pytest.raises(Failed, match="out of nuts"):
        optimize.benchmark(flow, script)


def test_the_learner_s_suggestions_come_from_the_requests_in_the_database(
    flow: Workflow, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Skipped, match="ask hello"):
        optimize.suggestions(flow)
    with pytest.raises(Skipped):
        optimize.preferences(flow)
    ask(flow)

    assert optimize.suggestions(flow) == "1 of them"
    assert "call:offline" in capsys.readouterr().out


def test_only_what_can_be_run_is_a_benchmark(flow: Workflow) -> None:
    bench = flow.root / "bench"
    bench.mkdir()
    (bench / "import.py").write_text("if __name__ == '__main__': pass")
    (bench / "storms.py").write_text("if __name__ == '__main__': pass")
    (bench / "machine.py").write_text("x = 1")

    assert [path.name for path in optimize.scripts(flow.root, every=False)] == ["import.py"]
    assert len(optimize.scripts(flow.root, every=True)) == 2


# ── infinite ──────────────────────────────────────────────────────────────────────────────────


def cycle(*steps: tuple[str, str], activity: str = "quality", faster: str = "") -> infinite.Cycle:
    made = [Result(name, outcome, "text", 0.0) for name, outcome in steps]
    return infinite.Cycle({activity: made}, [faster] if faster else [])


def test_each_activity_has_its_turn() -> None:
    turns = {number: infinite.activities(number)[2:] for number in range(1, 211)}

    assert all(infinite.activities(number)[:2] == ["health", "quality"] for number in turns)
    assert [number for number in range(1, 11) if "security" in turns[number]] == [3, 6, 9]
    assert [number for number in range(1, 11) if "performance" in turns[number]] == [5, 10]
    assert [number for number in range(1, 15) if "documentation" in turns[number]] == [7, 14]
    assert [number for number in range(1, 21) if "maintenance" in turns[number]] == [10, 20]
    assert len(turns[210]) == 4


@pytest.mark.parametrize(
    ("journal", "happened", "name"),
    [
        (infinite.Journal(), cycle(("lint", "FAILED")), "First steps"),
        (infinite.Journal(cycles=9), cycle(("lint", "FAILED")), "Bamboo grove"),
        (infinite.Journal(cycles=99), cycle(("lint", "FAILED")), "Bamboo forest"),
        (infinite.Journal(), cycle(("lint", "ok")), "Clear water"),
        (infinite.Journal(clear=6), cycle(("lint", "ok")), "Seven clear days"),
        (infinite.Journal(), cycle(("SQL", "ok"), activity="security"), "Nothing in the bushes"),
        (infinite.Journal(), cycle(("site", "ok"), activity="documentation"), "True words"),
        (infinite.Journal(), cycle(("backup", "ok")), "Nuts for winter"),
        (infinite.Journal(), cycle(faster="ns"), "Lighter paws"),
        (infinite.Journal(failed=["lint"]), cycle(("lint", "ok")), "Up again"),
    ],
)
def test_an_achievement_is_earned_by_what_happened_and_only_once(
    journal: infinite.Journal, happened: infinite.Cycle, name: str
) -> None:
    nothing = cycle(("lint", "FAILED"), ("backup", "skipped"))
    now = infinite.earned(journal, happened)
    journal.achievements[name] = {}

    assert now[name]
    assert name not in infinite.earned(journal, happened)
    if name != "First steps":
        assert set(infinite.earned(infinite.Journal(cycles=3), nothing)) == {"First steps"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each activity be one small step."""

    def one(name: str) -> object:
        def steps(flow: Workflow, **_how: object) -> list[str]:
            flow.step(name, lambda: "done")
            return ["ns"] if name == "bench" else []

        return steps

    replaced: list[tuple[ModuleType, str, str]] = [
        (health, "well", "disk"),
        (dev, "quality", "lint"),
        (security, "guard", "SQL"),
        (optimize, "measure", "bench"),
        (docs, "true", "site"),
        (maintenance, "care", "backup"),
    ]
    for module, function, name in replaced:
        monkeypatch.setattr(module, function, one(name))


@pytest.mark.usefixtures("quick")
def test_ten_cycles_earn_what_they_earn_and_the_next_run_goes_on(
    flow: Workflow, capsys: pytest.CaptureFixture[str]
) -> None:
    path = flow.root / ".zejzl" / "achievements.json"

    assert infinite.adventure(flow, Namespace(cycles=10, interval=0.0)) == 0
    first = capsys.readouterr().out
    again = Workflow("again", root=flow.root)
    infinite.adventure(again, Namespace(cycles=1, interval=0.0))
    second = capsys.readouterr().out

    values, _ = kept.load(path)
    assert values["cycles"] == 11
    assert values["clear"] == 11
    assert len(values["achievements"]) == 8
    assert first.count("panda wisdom:") == 10
    assert "── cycle 10: health, quality, performance, maintenance" in first
    assert "The panda rests after 10 cycles of this run. 10 cycles in all" in first
    assert "cycle 11:" in second
    assert "Earned now: nothing new." in second


@pytest.mark.usefixtures("quick")
def test_damaged_achievements_are_put_aside_and_the_adventure_begins_anew(flow: Workflow) -> None:
    path = flow.root / ".zejzl" / "achievements.json"
    path.write_text("{")

    infinite.adventure(flow, Namespace(cycles=1, interval=0.0))

    assert kept.load(path)[0]["cycles"] == 1
    assert path.with_name("achievements.json.damaged").read_text() == "{"


@pytest.mark.parametrize("value", [None, -1, "many", [1], {"a": 1}, True])
def test_values_without_a_meaning_are_passed_over(value: object) -> None:
    found = infinite.read({"cycles": value, "clear": value, "failed": value, "achievements": value})

    assert found == infinite.Journal()


@pytest.mark.usefixtures("quick")
def test_ctrl_c_ends_the_adventure_with_what_was_earned(
    flow: Workflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []

    def interrupted(seconds: float) -> None:
        waited.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)

    with pytest.raises(KeyboardInterrupt):
        infinite.adventure(flow, Namespace(cycles=None, interval=60.0))

    assert waited == [60.0]
    assert "after 1 cycles of this run" in capsys.readouterr().out
    assert kept.load(flow.root / ".zejzl" / "achievements.json")[0]["cycles"] == 1


def test_a_dry_adventure_goes_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flow = Workflow("infinite", root=tmp_path, dry_run=True)

    assert infinite.adventure(flow, Namespace(cycles=None, interval=60.0)) == 0
    assert "would do maintenance every 10 cycles" in capsys.readouterr().out
    assert not [*tmp_path.iterdir()]
