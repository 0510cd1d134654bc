"""The process map: what is drawn of a log, and that nothing of the log acts in the drawing."""

import os
import re
import stat
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.cli.process_map import COVERED, MOST_EDGES, check_place, process_map, save
from zejzl.learning.mining import Miner
from zejzl.learning.patterns import Patterns

SVG = "{http://www.w3.org/2000/svg}"
DRAWN = {"svg", "title", "defs", "marker", "path", "rect", "ellipse", "text", "tspan", "g"}
HOSTILE = [
    "</svg><script>alert(1)</script>",
    "<![CDATA[ & ]]> \"'`",
    "\x00\x01\x1b[31m\x9b2J\x7f\ufffe\uffff",
    "a\nb\r\n\tc",
    "\u202egnp.exe \u2066x\u2069",
    "שלום עולם",
    "👩‍👩‍👧‍👦 日本語の名前",
    "\ud800 half",
    "&lt;&#0;&xxe;",
    "x" * 499,
    " ",
]


def mined(*paths: list[str], seconds: float = 60.0) -> Patterns:
    miner = Miner()
    miner.learn(
        {"type": step, "data": {}, "conversation_id": f"c{n}", "timestamp": n + at * seconds}
        for n, path in enumerate(paths)
        for at, step in enumerate(path)
    )
    return miner.patterns()


def drawn(patterns: Patterns, title: str = "") -> ElementTree.Element:
    """Return the map; it must be well-formed, and hold shapes and texts alone."""
    svg = process_map(patterns, title=title)
    svg.encode("utf-8")
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in DRAWN
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on") and "href" not in name
            assert "url(" not in value or re.fullmatch(r"url\(#[\w-]+\)", value)
    return root


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def test_a_map_tells_activities_and_edges_with_numbers_and_times() -> None:
    root = drawn(mined(["open", "check", "close"], ["open", "close"]), title="a log")

    shown = texts(root)
    assert {"start", "open", "check", "close", "end"} <= {*shown}
    assert "1 · 2 min" not in shown and shown.count("1 · 60 s") == 3
    assert "2 cases, 5 events; 3 of 3 edges, 100% of all transitions" in shown
    assert root.findtext(f"{SVG}title") == "Process map of a log"


def test_an_activity_called_start_is_not_the_start() -> None:
    shown = texts(drawn(mined(["start", "end"])))

    assert (shown.count("start"), shown.count("end")) == (2, 2)


def test_the_most_frequent_edges_alone_are_drawn() -> None:
    patterns = mined(*[["a", "b"]] * 96, *[["a", f"rare {n}"] for n in range(4)])

    shown = texts(drawn(patterns))

    assert "96 · 60 s" in shown
    assert "100 cases, 200 events; 1 of 5 edges, 96% of all transitions" in shown
    assert not [text for text in shown if "rare" in text]


def test_a_map_of_many_activities_stays_small() -> None:
    patterns = mined(*[[f"a{n}", f"b{n}"] for n in range(400)])

    root = drawn(patterns)

    assert sum("·" in text for text in texts(root)) <= MOST_EDGES + 1
    assert COVERED < 1


def test_a_scheduled_wait_is_dashed_and_named() -> None:
    root = drawn(mined(*[["a", "b"]] * 100, seconds=86_400.0 * 60))

    dashed = [path for path in root.iter(f"{SVG}path") if path.get("stroke-dasharray")]
    assert "100 · 60 d (scheduled)" in texts(root)
    assert [path.get("stroke") for path in dashed] == ["#2f6fc4"]


def test_the_thicker_an_edge_the_more_go_there_the_redder_the_more_time() -> None:
    patterns = mined(*[["a", "b"]] * 8, *[["a", "c"]] * 2)

    edges = {
        (float(path.get("stroke-width") or 0), path.get("stroke"))
        for path in drawn(patterns).iter(f"{SVG}path")
        if path.get("fill") == "none"
    }

    # 2, 8 and 10 go there; to start and to end takes no time.
    quiet = {(width, "#8a94a6") for width in (2.16, 5.04, 6.0)}
    assert edges == {*quiet, (5.04, "#c62828"), (2.16, "#d59a39")}


def test_who_goes_back_to_the_same_activity_is_drawn_beside_it() -> None:
    root = drawn(mined(["a", "a", "b"]))

    beside = [
        text.get("text-anchor") for text in root.iter(f"{SVG}text") if text.text == "1 · 60 s"
    ]
    assert sorted(map(str, beside)) in (["end", "middle"], ["middle", "start"])


def test_nothing_of_a_log_acts_in_the_drawing() -> None:
    shown = "\n".join(texts(drawn(mined(HOSTILE, HOSTILE[::-1]), title=HOSTILE[0])))

    assert "</svg><script>" in shown  # as text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe]", shown)
    assert max(map(len, shown.splitlines())) < 120


@given(st.lists(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=4), max_size=5))
def test_any_names_make_a_well_formed_drawing(paths: list[list[str]]) -> None:
    patterns = mined(*paths)

    root = drawn(patterns)

    assert len(texts(root)) >= 2


def test_nothing_learned_is_an_empty_map() -> None:
    assert texts(drawn(Patterns()))[0] == "0 cases, 0 events; 0 of 0 edges"


def test_a_missing_library_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "graphlay", None)

    with pytest.raises(ImportError, match=r"pip install 'zejzl\[learn\]'"):
        process_map(Patterns())


# Files ---------------------------------------------------------------------------------------


def test_a_map_replaces_what_was_there_and_leaves_nothing_beside(tmp_path: Path) -> None:
    place = tmp_path / "map.svg"
    link = tmp_path / "link.svg"
    link.symlink_to(place)
    place.write_text("old")

    save(link, "new ✓")

    assert place.read_text(encoding="utf-8") == "new ✓"
    assert link.is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"map.svg", "link.svg"}


def test_a_map_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "map.svg"
    place.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        save(place, "new")

    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_place_that_cannot_be_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_place(tmp_path / "map.svg")

    with pytest.raises(IsADirectoryError, match="would be a folder"):
        check_place(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        save(tmp_path / "nowhere" / "map.svg", "")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="may not be written"):
        check_place(tmp_path / "map.svg")


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    save(pipe, "drawing")

    assert os.read(end, 100) == b"drawing"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(end)
