"""`zejzl replay`: an incident, and side by side what each variant of the settings made of it."""

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ai_framework import AsyncMessageBus
from tests.shell import KEY, STEERING, Done, Shell, Typing
from zejzl.cli.replay import bar
from zejzl.errors import ServerError
from zejzl.settings import Settings
from zejzl.stores import SqliteStore
from zejzl.testing import ScriptedProvider
from zejzl.testing.incidents import Incident
from zejzl.testing.simulate import Minute, simulate

OUTAGE = """
schema = 1
name = "alpha goes down"
duration = 120

[requests]
rate = 2

[[providers]]
name = "alpha"
latency = [0.2, 0.6]
price = { prompt = 1000, completion = 1000 }
faults = [{ from = 30, to = 60, kind = "overloaded" }]

[[providers]]
name = "beta"
latency = [0.3, 0.9]
price = { prompt = 10, completion = 10 }
"""
USUAL = ["as it is", "patience=3", "hedging=false", "max_attempts=1", "alpha alone"]
USUAL += ["alpha alone, once"]


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    made = Shell(tmp_path, monkeypatch, capsys)
    (tmp_path / "outage.toml").write_text(OUTAGE)
    yield made
    made.end()


def live(shell: Shell) -> None:
    """Let a bus of this folder have trouble."""

    async def main() -> None:
        home = shell.folder / "home"
        store = SqliteStore(home / "zejzl.db")
        async with AsyncMessageBus(Settings(home=home), store=store) as bus:
            alpha = ScriptedProvider(["well", ServerError("oh"), "well"])
            await bus.register_provider("alpha", alpha)
            await bus.register_provider("beta", ScriptedProvider(["well too"]))
            for at in range(3):
                await bus.send(f"secret {at}")

    asyncio.run(main())


def names(done: Done) -> list[str]:
    return [variant["name"] for variant in done.json["variants"]]


def rows(done: Done) -> dict[str, list[str]]:
    """Return the cells of the table by the row's name."""
    lines = done.out.partition("USD\n")[2].partition("p50, p95")[0].splitlines()
    return {cells[0]: cells[1:] for line in lines for cells in [re.split(r"  +", line)]}


def test_an_incident_is_shown_side_by_side_with_what_other_settings_make_of_it(
    shell: Shell,
) -> None:
    done = shell("replay", "outage.toml")

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("alpha goes down: 0:02:00 long, 240 requests to alpha, beta\n")
    table = rows(done)
    assert [*table] == USUAL
    assert table["as it is"][0] == "100.00%"
    assert float(table["alpha alone"][0].rstrip("%")) < 90.0
    assert "as it is: nothing failed" in done.out
    assert re.search(r"alpha alone: [\d,]+ CircuitOpen", done.out)


def test_what_is_shown_is_what_the_simulator_counts(shell: Shell) -> None:
    done = shell("replay", "outage.toml", "--json", "--seed", "3")

    found = simulate(Incident.from_toml(shell.folder / "outage.toml"), seed=3)
    first = done.json["variants"][0]
    assert first["answered"] == found.answered
    assert first["p99"] == found.p99
    assert first["cost_usd"] == found.cost_usd
    assert first["timeline"] == json.loads(json.dumps(found.to_json()["timeline"]))
    assert done.json["incident"] == {
        "name": "alpha goes down",
        "duration": 120.0,
        "began": None,
        "providers": ["alpha", "beta"],
    }
    assert (done.json["seed"], names(done)) == (3, USUAL)


def test_an_alternative_of_ones_own_takes_the_place_of_the_usual_ones(shell: Shell) -> None:
    done = shell(
        "replay", "outage.toml", "--json",
        "--against", "failover=beta,alpha,hedging=off",
        "--against", "deadline=5",
    )  # fmt: skip

    assert names(done) == ["as it is", "failover=beta,alpha,hedging=off", "deadline=5"]
    assert done.json["variants"][1]["changes"] == {"failover": "beta,alpha", "hedging": "off"}
    assert done.json["variants"][1]["attempts"]["beta"]["ok"] == 240


def test_rate_limits_may_be_several_in_a_row(shell: Shell) -> None:
    limits = "rate_limits=alpha=5, beta=6/900,hedging=off"

    done = shell("replay", "outage.toml", "--json", "--set", limits, "--against", limits)

    changes = {"rate_limits": "alpha=5,beta=6/900", "hedging": "off"}
    assert done.json["variants"][1]["changes"] == changes
    assert max(minute["calls"] for minute in done.json["variants"][0]["timeline"]) <= 22


def test_what_is_set_holds_for_all_variants(shell: Shell) -> None:
    done = shell("replay", "outage.toml", "--json", "--set", "failover=beta", "--set", "deadline=2")

    ends = [variant["attempts"] for variant in done.json["variants"]]
    assert [*ends[0]] == ["beta"]
    assert "patience=3" not in names(done)  # which is longer than the deadline


def test_the_present_settings_are_those_of_the_environment(shell: Shell) -> None:
    shell.set(ZEJZL_FAILOVER="beta,chatgpt", ZEJZL_DEFAULT_PROVIDER="chatgpt", OPENAI_API_KEY=KEY)

    done = shell("replay", "outage.toml", "--json", "--against", "hedging=false")

    assert [*done.json["variants"][0]["attempts"]] == ["beta"]
    assert done.err == "failover, default_provider: who is not in the incident is left out\n"


def test_with_verbose_the_calls_are_shown_and_not_the_log_of_a_bus_that_never_was(
    shell: Shell,
) -> None:
    done = shell("replay", "outage.toml", "-v", "--against", "hedging=false")

    assert "calls of alpha: " in done.out
    assert re.search(r"alpha overloaded: failover helped \d+ of \d+ times", done.out)
    assert "circuit breaker" not in done.err


# Of the database ---------------------------------------------------------------------------------


def test_the_newest_incident_of_the_database_is_replayed(shell: Shell) -> None:
    live(shell)

    done = shell("replay", "last", "--json")

    assert done.code == 0
    first = done.json["variants"][0]
    assert first["requests"] == first["answered"] == 3
    assert first["attempts"]["alpha"]["server_error"] == 1
    assert done.json["incident"]["providers"] == ["alpha"]
    assert first["heals"] == [
        {
            "provider": "alpha",
            "failure_class": "server_error",
            "remedy": "retry",
            "tried": 1,
            "helped": 1,
        }
    ]


def test_a_span_of_the_database_is_replayed(shell: Shell) -> None:
    live(shell)

    ago = shell("replay", "--since", "2h", "--json", "--against", "hedging=off")
    written = shell(
        "replay", "--json", "--against", "hedging=off",
        "--since", (datetime.now(UTC) - timedelta(hours=1)).isoformat(),
        "--until", (datetime.now() + timedelta(hours=1)).isoformat()[:16],  # noqa: DTZ005
    )  # fmt: skip

    assert [found.json["variants"][0]["requests"] for found in (ago, written)] == [3, 3]


def test_an_incident_is_saved_and_can_be_replayed_from_the_file(shell: Shell) -> None:
    live(shell)

    saved = shell("replay", "last", "--save", "kept.toml", "--json")
    again = shell("replay", "kept.toml", "--json")

    assert again.json == saved.json
    assert "kept.toml" in saved.err
    assert "secret" not in (shell.folder / "kept.toml").read_text()


def test_a_file_that_is_there_is_not_written_over(shell: Shell) -> None:
    before = (shell.folder / "outage.toml").read_text()

    done = shell("replay", "outage.toml", "--save", "outage.toml")

    assert (done.code, done.out) == (2, "")
    assert done.err == "zejzl: outage.toml exists already: choose another name\n"
    assert (shell.folder / "outage.toml").read_text() == before


def test_what_cannot_be_written_whole_leaves_nothing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Incident, "to_toml", lambda incident: "half of it \ud800")

    done = shell("replay", "outage.toml", "--save", "kept.toml")

    assert (done.code, done.out) == (2, "")
    assert not (shell.folder / "kept.toml").exists()


def test_a_folder_that_is_not_there_is_told_before_anything_is_replayed(shell: Shell) -> None:
    done = shell("replay", "outage.toml", "--save", "nowhere/kept.toml")

    assert (done.code, done.out) == (1, "")
    said = "zejzl: nowhere/kept.toml cannot be written: No such file or directory"
    assert said in done.err.splitlines()


# What cannot be ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "which one? Give a file, `last`, or --since"),
        (("nowhere.toml",), "nowhere.toml: there is no such file; `last` is the newest"),
        (("outage.toml", "--since", "2h"), "--since and --until are for what the database has"),
        (("last", "--until", "2h"), "--since and --until are for what the database has, not last"),
        ((".",), ".: cannot be read: Is a directory"),
        (("outage.toml", "--stream"), "--stream: is for what the database has: a file says itself"),
        (("last",), "there is no database yet"),
        (("--since", "yesterday"), "--since: must be a time as 2026-11-22T10:00"),
        (("--since", "1h", "--until", "2h"), "--until: must be later than --since"),
        (("outage.toml", "--set", "patiense=3"), "patiense: unknown setting; did you mean"),
        (("outage.toml", "--set", "patience"), "patience: must be NAME=VALUE"),
        (("outage.toml", "--set", ""), "'': must be NAME=VALUE"),
        (("outage.toml", "--against", "deadline=-1"), "deadline: must be above 0"),
        (("outage.toml", "--against", "failover=gone"), "failover: 'gone' is not in the incident"),
        (("outage.toml", "--against", "patience=9,deadline=5"), "patience: 9 s is longer"),
        (("pyproject.toml",), "pyproject.toml: schema: is missing"),
        (("other.toml",), "other.toml: schema: is 2: another one; this zejzl reads 1"),
        (("text.toml",), "text.toml: this is no TOML"),
    ],
)
def test_what_cannot_be_is_wrong_usage_and_says_why(
    shell: Shell, words: tuple[str, ...], says: str
) -> None:
    (shell.folder / "pyproject.toml").write_text("[project]\n")
    (shell.folder / "other.toml").write_text(OUTAGE.replace("schema = 1", "schema = 2"))
    (shell.folder / "text.toml").write_text("no incident at all")

    done = shell("replay", *words)

    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert "environment" not in done.err


def test_a_span_in_which_nothing_was_asked_is_told(shell: Shell) -> None:
    live(shell)

    done = shell("replay", "--since", "2020-01-01", "--until", "2020-01-02")

    assert done.code == 2
    assert "nothing was asked since 2020-01-01" in done.err


def test_a_failure_is_told_to_programs_too(shell: Shell) -> None:
    done = shell("replay", "outage.toml", "--json", "--set", "x=1")

    assert done.code == 2
    assert done.json["error"]["type"] == "SettingsError"


# On a terminal -----------------------------------------------------------------------------------


def test_a_name_that_would_steer_a_terminal_is_refused(shell: Shell) -> None:
    path = shell.folder / "hostile.toml"
    path.write_text(OUTAGE.replace("alpha goes down", "\\u001b]0;title\\u0007"))

    done = shell("replay", "hostile.toml")

    assert done.code == 2
    assert not STEERING.search(done.err.replace("\n", ""))


def test_piped_nothing_is_coloured_and_no_progress_is_shown(shell: Shell) -> None:
    process = shell.start("replay", "outage.toml", "--against", "hedging=off")
    out, err = process.communicate()

    assert (process.returncode, err) == (0, "")
    assert not STEERING.search(out.replace("\n", ""))


def test_on_a_terminal_progress_is_shown_and_goes(shell: Shell) -> None:
    shell.set(TERM="xterm", COLUMNS="80")
    typing = Typing(shell, "replay", "outage.toml", "--against", "hedging=off")

    typing.read_until("as it is")
    assert typing.end() == 0


def test_ctrl_c_ends_it_quietly(shell: Shell) -> None:
    (shell.folder / "long.toml").write_text(OUTAGE.replace("duration = 120", "duration = 36000"))
    shell.set(TERM="xterm")
    typing = Typing(shell, "replay", "long.toml")

    typing.read_until("%")
    typing.press_ctrl_c()

    assert typing.end() == 130
    assert "Traceback" not in typing.seen


def minutes(*shares: tuple[int, int]) -> list[Minute]:
    return [Minute(requests=asked, failed=failed) for asked, failed in shares]


@pytest.mark.parametrize(
    ("timeline", "per", "shown"),
    [
        (minutes((10, 0), (10, 10), (10, 5), (10, 1)), 1, "·█▅▁"),
        (minutes((0, 0), (10, 0)), 1, " ·"),
        (minutes((10, 0), (10, 10), (10, 10)), 2, "▅█"),
        ([], 1, ""),
    ],
    ids=["shares", "nothing asked", "two a letter", "none"],
)
def test_a_bar_has_a_letter_for_each_span_that_grows_with_what_failed(
    timeline: list[Minute], per: int, shown: Any
) -> None:
    assert bar(timeline, per) == shown
