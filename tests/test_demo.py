"""The demo: what it shows is measured, and it heals."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zejzl.cli.demo import Measured, _quantile, verdict

GOOD = Measured(
    requests=200, answered=200, wrong=0, healed=6, p50_ms=40.0, p99_ms=440.0, upstream_calls=208
)
BAD = replace(GOOD, answered=111, healed=0, upstream_calls=200)


def demo(folder: Path, *words: str, seconds: int = 2) -> "subprocess.Popen[str]":
    """Start the fast profile as a script does: no terminal, no settings, keys in the way."""
    env = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    env |= {"HOME": str(folder), "OPENAI_API_KEY": "sk-never-used-here", "ZEJZL_HOME": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-m", "zejzl", "demo", "--seconds", str(seconds), *words],
        cwd=folder,
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture(scope="module")
def piped(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("piped")
    process = demo(folder)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert not [*folder.iterdir()], "nothing is kept"
    return out


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    process = demo(tmp_path_factory.mktemp("told"), "--json", "--seed", "7")
    out, _ = process.communicate()
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out)
    return found


def test_it_says_first_what_will_be_shown_and_last_what_to_do_next(piped: str) -> None:
    lines = piped.splitlines()

    assert lines[0].startswith("zejzl demo: 2 seconds")
    assert [line.partition(":")[0] for line in lines[-2:]] == ["next", "next"]
    assert " chat` " in lines[-1] and ".env" in lines[-2]


def test_piped_there_is_a_line_every_second_and_no_escape_code(piped: str) -> None:
    assert re.findall(r"^ +(\d+) s ", piped, re.M)[:1] == ["1"]
    assert "\x1b" not in piped


def test_piped_no_line_is_wide(piped: str) -> None:
    assert max(map(len, piped.splitlines())) <= 80


def test_the_last_line_of_the_table_is_the_end(piped: str) -> None:
    (last,) = re.findall(r"^ +end .*", piped, re.M)

    asked, answered, _, failed = map(int, last.split()[1:5])
    assert asked == answered + failed == 40
    assert int(last.rpartition("|")[2]) == int(re.findall(r"(\d+) of 40$", piped, re.M)[0])


def test_one_second_is_shown_too(tmp_path: Path) -> None:
    out, _ = demo(tmp_path, seconds=1).communicate()

    assert out.startswith("zejzl demo: 1 second, ")
    assert re.search(r"^ +end +20 ", out, re.M)


def test_the_sentence_says_what_the_table_says(piped: str) -> None:
    table = re.search(r"^answered +(\d+) of (\d+) +(\d+) of \2$", piped, re.M)

    assert table is not None
    assert f"With healing {table[1]} of {table[2]} requests" in piped
    assert f"without it {table[3]};" in piped


def test_the_bus_answers_what_alpha_alone_does_not(told: dict[str, Any]) -> None:
    healing, alone = told["with_healing"], told["without_healing"]

    assert healing["requests"] == alone["requests"] == 40
    assert healing["answered"] == 40 > alone["answered"] > 0
    assert healing["healed"] > 0 == alone["healed"]
    assert healing["wrong"] == alone["wrong"] == 0


def test_calls_are_those_that_the_servers_saw(told: dict[str, Any]) -> None:
    healing, alone = told["with_healing"], told["without_healing"]

    assert healing["upstream_calls"] >= healing["requests"] + healing["healed"]
    assert alone["upstream_calls"] == alone["requests"]


def test_the_timetable_is_told(told: dict[str, Any]) -> None:
    assert (told["seed"], told["seconds"]) == (7, 2.0)
    assert told["alpha_cut_s"] == [0.4, 1.2]
    assert told["beta_limited_s"] == [0.6, 1.0]


def test_ctrl_c_ends_it_politely(tmp_path: Path) -> None:
    process = demo(tmp_path)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("  time"):
        pass

    process.send_signal(signal.SIGINT)
    out, err = process.communicate()

    assert process.returncode == 130
    assert "Traceback" not in out + err


def test_the_verdict_is_made_of_the_numbers() -> None:
    assert verdict(GOOD, BAD) == (
        "With healing 200 of 200 requests were answered, without it 111; that took +0.04 "
        "provider calls per request, and 0 of the answers were wrong."
    )


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50_000.0), (0.99, 99_000.0), (1.0, 100_000.0)]
)
def test_a_quantile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    values = [float(seconds) for seconds in range(100, 0, -1)]

    assert _quantile(values, share) == expected


def test_of_no_values_there_is_no_quantile() -> None:
    assert _quantile([], 0.5) is None
