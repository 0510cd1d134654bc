"""The terminal pictures: recorded from real programs, and fetching nothing."""

import re
import signal
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.tree import ROOT, label
from workflows import pictures
from workflows.pictures import PICTURES, Picture, stale, svg, take
from workflows.recording import Recording, record, screen, traces

COMMITTED = sorted(pictures.FOLDER.glob("*.svg"))
NAMESPACE = "http://www.w3.org/2000/svg"


@pytest.mark.parametrize("path", COMMITTED, ids=label)
def test_a_picture_is_xml_that_fetches_nothing(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert ElementTree.fromstring(text).tag == f"{{{NAMESPACE}}}svg"
    assert "//" not in text.replace(NAMESPACE, "")
    assert not re.search(r"@import|@font-face|url\((?!#)|<script|<image|data:", text)


@pytest.mark.parametrize("path", COMMITTED, ids=label)
def test_a_picture_tells_nothing_of_the_machine(path: Path) -> None:
    words = " ".join(ElementTree.fromstring(path.read_text(encoding="utf-8")).itertext())

    assert traces(words, ROOT) == []


def test_every_picture_is_of_a_program_there_is_and_is_shown_on_a_page() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = "".join(page.read_text(encoding="utf-8") for page in pages)

    assert {path.stem for path in COMMITTED} <= {*PICTURES}
    assert not [path.name for path in COMMITTED if f"pictures/{path.name}" not in shown]


def test_a_program_is_recorded_on_a_terminal_with_its_colours(tmp_path: Path) -> None:
    code = (
        "import os, sys; print('\\x1b[31mred\\x1b[0m', sys.stdout.isatty(), os.get_terminal_size())"
    )

    made = record([sys.executable, "-c", code], tmp_path, columns=70, rows=9)

    size = "os.terminal_size(columns=70, lines=9)"
    assert made == Recording(f"\x1b[31mred\x1b[0m True {size}", 0)


def test_a_recorded_program_sees_no_key_and_no_home_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-secret")

    made = record(
        [sys.executable, "-c", "import os; print(os.environ)"],
        tmp_path,
        columns=4000,
        rows=9,
        settings={"ZEJZL_HOME": "here"},
    )

    assert "secret" not in made.screen
    assert "'ZEJZL_HOME': 'here'" in made.screen
    assert f"'HOME': '{tmp_path}'" in made.screen


def test_a_program_that_goes_on_for_ever_is_interrupted(tmp_path: Path) -> None:
    code = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('stopped')"

    made = record(
        [sys.executable, "-c", code], tmp_path, columns=70, rows=9, interrupt=(1.0, signal.SIGINT)
    )

    assert made == Recording("stopped", 0)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("one\r\ntwo\r\n", "one\ntwo"),
        ("one\r\ntwo\r\x1b[2K\x1b[1A\x1b[2Kthree", "three"),
        ("a\r\nb\r\nc\x1b[2A\x1b[2KA\r\n", "A\nb\nc"),
        ("a\r\nb\r\nc\x1b[2A\x1b[JA", "A"),
        ("\x1b[?25l\x1b[1mbold\x1b[0m\x1b[?25h", "\x1b[1mbold\x1b[0m"),
    ],
    ids=["lines", "redrawn", "one line redrawn", "the rest erased", "cursor hidden"],
)
def test_a_screen_holds_what_was_not_drawn_over(said: str, shown: str) -> None:
    assert screen(said) == shown


def test_colours_and_words_of_a_screen_are_in_its_picture() -> None:
    text = svg("\x1b[32mclosed\x1b[0m <&> 10", title="zejzl <demo>", name="demo", stamp="0" * 16)

    words = "".join(ElementTree.fromstring(text).itertext()).replace("\xa0", " ")
    assert "closed" in words
    assert "<&> 10" in words
    assert "zejzl <demo>" in words
    assert "#98a84b" in text


def test_what_tells_of_a_machine_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "ada-laptop")
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    monkeypatch.setattr("pathlib.Path.home", lambda: Path("/srv/people/ada"))
    shown = "\x1b[1mada\x1b[0m on ada-laptop, /srv/x, /srv/people/ada /Users/y sk-none-at-all"

    assert traces(shown, Path("/srv/x")) == [
        *["/srv/people/ada", "/srv/x", "ada", "ada-laptop"],
        *["/Users/y", "sk-none-at-all"],
    ]
    assert traces("adamant", Path("/srv/x")) == []


def _shows(screen: str, code: int = 0) -> Picture:
    return Picture("a program", ("workflows/pictures.py",), lambda _: Recording(screen, code))


def test_a_picture_is_stale_until_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Picture("not yet", ("src/not/there.py",), lambda _: Recording("", 0))
    monkeypatch.setattr(pictures, "PICTURES", {"one": _shows("hello"), "away": away})

    assert stale(tmp_path) == ["one"]
    take("one", tmp_path)
    assert stale(tmp_path) == []
    monkeypatch.setattr(Picture, "stamp", lambda self: "f" * 16)
    assert stale(tmp_path) == ["one"]


@pytest.mark.parametrize(
    ("picture", "why"),
    [(_shows("it broke", 1), "it broke"), (_shows("in /Users/secret"), "/Users/secret")],
    ids=["it failed", "it tells of the machine"],
)
def test_a_picture_that_must_not_be_is_not_taken(
    picture: Picture, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "PICTURES", {"one": picture})

    with pytest.raises(RuntimeError, match=why):
        take("one", tmp_path)

    assert list(tmp_path.iterdir()) == []


SHOWN = {
    "demo": "requests were answered, without it",
    "status": "ProviderOverloaded",  # of the breaker that the outage opened
    "tour": "tour",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, picture in PICTURES.items() if picture.exists])
def test_a_real_program_is_pictured(name: str, tmp_path: Path) -> None:
    take(name, tmp_path)

    made = ElementTree.fromstring((tmp_path / f"{name}.svg").read_text(encoding="utf-8"))
    assert SHOWN[name] in "".join(made.itertext()).replace("\xa0", " ")


def test_the_check_names_what_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pictures, "PICTURES", {"one": _shows("hello")})
    monkeypatch.setattr(pictures, "FOLDER", tmp_path)

    assert pictures.main(["--check"]) == 1
    assert "stale pictures: one" in capsys.readouterr().err
    assert pictures.main([]) == 0
    assert pictures.main(["--check"]) == 0
    assert pictures.main(["one"]) == 0
    with pytest.raises(SystemExit) as left:
        pictures.main(["two"])
    assert left.value.code == 2
