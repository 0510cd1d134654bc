"""The process map: how cases go from one activity to the next, drawn as SVG.

Drawn are the most frequent transitions that make 95 % of all. An edge is as thick as it is
frequent, and as red as its share of the time is large; a scheduled wait is blue and dashed.

Names come from the log. They are made harmless, shortened and escaped; the drawing has no script
and refers to nothing outside. The layout is graphlay's (the extra `learn`).
"""

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log1p
from pathlib import Path
from secrets import token_hex
from types import ModuleType
from unicodedata import combining, east_asian_width
from xml.sax.saxutils import escape

from zejzl.cli.findings import usual
from zejzl.cli.terminal import in_brief, safe
from zejzl.learning.bottlenecks import is_timer, spoken
from zejzl.learning.patterns import Edge, Patterns

COVERED, MOST_EDGES = 0.95, 80  # share of all transitions that is drawn, and at most so many
NAME, ROW, ROWS = 44, 22, 2  # letters of a name, of a row of it, and rows
LETTER, LINE = 7.0, 15.0  # width and height of a letter, about
THIN, THICK = 1.2, 6.0  # graphlay draws nothing thicker
START, END = "start", "end"
QUIET, WARM, HOT, WAIT = (0x8A, 0x94, 0xA6), (0xE8, 0x9C, 0x1E), (0xC6, 0x28, 0x28), "#2f6fc4"
WHITE, FULL = (0xFF, 0xFF, 0xFF), (0xB9, 0xD5, 0xF7)
INK, DIM = "#1d2533", "#4a5568"

Node = str | tuple[str]  # an activity is a tuple, so that one called "start" is another
Scene = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Arrow:
    """One edge of the drawing."""

    source: Node
    target: Node
    n: int
    edge: Edge | None = None

    @property
    def label(self) -> str:
        if self.edge is None:
            return f"{self.n:,}"
        timer = " (scheduled)" if is_timer(self.edge.times) else ""
        return f"{self.n:,} · {spoken(usual(self.edge.times))}{timer}"


def library() -> ModuleType:
    """Return the library that lays the map out.

    Raises:
        ImportError: If it is not installed; the message says how to install it.
    """
    try:
        import graphlay
    except ImportError as missing:
        raise ImportError(
            "a process map is drawn with graphlay, which is not installed: "
            "pip install 'zejzl[learn]'"
        ) from missing
    return graphlay


def process_map(patterns: Patterns, *, title: str = "") -> str:
    """Return the map as an SVG document.

    Args:
        title: What it is of.

    Raises:
        ImportError: As `library` does.
    """
    graphlay = library()
    arrows = _arrows(patterns)
    graph = graphlay.Graph()
    counts = {(each.name,): each.n for each in patterns.activities}
    nodes = [*dict.fromkeys(node for arrow in arrows for node in (arrow.source, arrow.target))]
    for number, node in enumerate(nodes):
        width, height = _size(node, counts)
        shape = "ellipse" if isinstance(node, str) else "box"
        graph.node(number, label="", width=width, height=height, shape=shape)
    at = {node: number for number, node in enumerate(nodes)}
    most = max((arrow.n for arrow in arrows), default=1)
    for arrow in arrows:
        graph.edge(
            at[arrow.source],
            at[arrow.target],
            weight=1.0 + log1p(arrow.n),
            thickness=_thickness(arrow.n, most),
            label_size={"width": LETTER * _cells(arrow.label), "height": LINE},
        )
    layout = graphlay.layout(graph, preset="process_map")
    scene = layout.sketch_scene()
    busiest = max((n for n in counts.values()), default=1)
    for node, drawn in zip(nodes, scene["nodes"], strict=True):
        drawn.update(_node_style(node, counts, busiest, drawn))
    for arrow, drawn, routed in zip(arrows, scene["edges"], layout.edges, strict=True):
        _style_edge(arrow, drawn, routed)
    scene["nodes"].append(_caption(patterns, arrows, layout.bounds, scene["nodes"]))
    return _titled(str(graphlay.render_scene(scene)), title)


def _arrows(patterns: Patterns) -> list[_Arrow]:
    """Return what is drawn: the most frequent edges, and where cases start and end."""
    ranked = sorted(patterns.edges, key=lambda edge: -edge.times.n)
    kept = _covering([edge.times.n for edge in ranked])
    arrows = [_Arrow((edge.source,), (edge.target,), edge.times.n, edge) for edge in ranked[:kept]]
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    for path in patterns.variants:
        if path.sequence:
            first, last = path.sequence[0], path.sequence[-1]
            starts[first] = starts.get(first, 0) + path.n
            ends[last] = ends.get(last, 0) + path.n
    begun = [_Arrow(START, (name,), n) for name, n in _most(starts)]
    ended = [_Arrow((name,), END, n) for name, n in _most(ends)]
    return [*begun, *arrows, *ended]


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ranked[: _covering([n for _, n in ranked])]


def _covering(counts: Sequence[int]) -> int:
    """Return how many of these, the largest first, make the share that is drawn."""
    needed, seen = COVERED * sum(counts), 0
    for place, n in enumerate(counts):
        if seen >= needed or place >= MOST_EDGES:
            return place
        seen += n
    return len(counts)


# Looks ---------------------------------------------------------------------------------------


def _shown(text: str, limit: int = NAME) -> str:
    """Return outside text on one line, short, without what XML forbids or what steers."""
    harmless = safe(in_brief(text, limit))
    return "".join(sign for sign in harmless if sign not in "\ufffe\uffff") or "(no name)"


def _rows(name: str) -> list[str]:
    """Return a name in at most two rows, broken at blanks and signs where there are any."""
    text = _shown(name)
    rows: list[str] = []
    while text and len(rows) < ROWS:
        if len(text) <= ROW or len(rows) == ROWS - 1:
            rows.append(text if len(text) <= ROW + 4 else f"{text[: ROW + 3]}…")
            break
        cut = max((at for at in range(ROW // 2, ROW + 1) if text[at - 1] in " :_-/."), default=ROW)
        rows.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return rows


def _cells(text: str) -> int:
    """Return how wide a text is, in letters."""
    return sum(
        0 if combining(sign) else 2 if east_asian_width(sign) in "WF" else 1 for sign in text
    )


def _size(node: Node, counts: Mapping[tuple[str], int]) -> tuple[float, float]:
    rows = _lines(node, counts)
    width = LETTER * max(map(_cells, rows)) + 24.0
    return max(width, 64.0), LINE * len(rows) + 14.0


def _lines(node: Node, counts: Mapping[tuple[str], int]) -> list[str]:
    return [node] if isinstance(node, str) else [*_rows(node[0]), f"{counts.get(node, 0):,}"]


def _thickness(n: int, most: int) -> float:
    return THIN + (THICK - THIN) * n / max(1, most)


def _mixed(low: Sequence[int], high: Sequence[int], share: float) -> str:
    parts = (round(a + (b - a) * share) for a, b in zip(low, high, strict=True))
    return "#" + "".join(f"{part:02x}" for part in parts)


def _heat(share: float) -> str:
    """Return the colour for a share of the time: half of it, and more, is red."""
    heat = min(1.0, 2.0 * share)
    if heat < 0.5:
        return _mixed(QUIET, WARM, 2.0 * heat)
    return _mixed(WARM, HOT, 2.0 * heat - 1.0)


def _text(text: str, **more: object) -> Scene:
    return {
        "text": text,
        "size": 12.0,
        "color": INK,
        "anchor": "middle",
        "baseline": "central",
        **more,
    }


def _node_style(
    node: Node, counts: Mapping[tuple[str], int], busiest: int, drawn: Mapping[str, object]
) -> Scene:
    rows = _lines(node, counts)
    top = -LINE * (len(rows) - 1) / 2
    content = []
    for number, row in enumerate(rows):
        count = number == len(rows) - 1 and number > 0
        look = {"color": DIM, "size": 11.0} if count else {"weight": 600.0}
        content.append({"kind": "text", **_text(row, dx=0.0, dy=top + LINE * number, **look)})
    if isinstance(node, str):
        fill, line = ("#dff2e1", "#2e7d32") if node == START else ("#e5e7eb", "#4a5568")
    else:
        fill, line = _mixed(WHITE, FULL, counts.get(node, 0) / max(1, busiest)), "#2f3a4d"
    stroke = drawn["stroke"]
    assert isinstance(stroke, dict)
    return {"fill": fill, "stroke": {**stroke, "paint": line, "width": 1.4}, "content": content}


def _style_edge(arrow: _Arrow, drawn: Scene, routed: Mapping[str, object]) -> None:
    edge, stroke = arrow.edge, drawn["stroke"]
    assert isinstance(stroke, dict)
    stroke["paint"] = _heat(edge.share_of_time if edge else 0.0)
    if edge is not None and is_timer(edge.times):
        stroke.update(paint=WAIT, dash="7 4")
    points = routed["points"]
    assert isinstance(points, list)
    low, high = points[(len(points) - 1) // 2], points[len(points) // 2]
    middle = {"x": (low["x"] + high["x"]) / 2, "y": (low["y"] + high["y"]) / 2}
    look: Scene = {"size": 11.0, "color": DIM, "halo": {"color": "#ffffff", "width": 4.0}}
    at = routed["label_anchor"] or middle
    if routed["kind"] == "selfloop":  # beside it, or its activity would cover the label
        left = middle["x"] < points[0]["x"]
        look["anchor"] = "end" if left else "start"
        at = {**middle, "x": middle["x"] + (-6.0 if left else 6.0)}
    drawn["labels"] = [{"text": _text(arrow.label, **look), "at": at}]


def _caption(
    patterns: Patterns,
    arrows: Iterable[_Arrow],
    bounds: Mapping[str, Mapping[str, float]],
    nodes: Sequence[Mapping[str, object]],
) -> Scene:
    """Return a box without a frame, below the drawing, that says what is drawn."""
    shown = [arrow.edge.times.n for arrow in arrows if arrow.edge is not None]
    every = sum(edge.times.n for edge in patterns.edges)
    share = f", {sum(shown) / every:.0%} of all transitions" if every else ""
    rows = [
        f"{patterns.cases:,} cases, {patterns.events:,} events; "
        f"{len(shown)} of {len(patterns.edges)} edges{share}",
        "number · median time; red: most of the time; blue, dashed: a scheduled wait",
    ]
    width = LETTER * max(map(len, rows))
    left = (bounds["min"]["x"] + bounds["max"]["x"] - width) / 2
    return {
        "rect": {
            "x": left,
            "y": ceil(bounds["max"]["y"]) + 2 * LINE,
            "w": width,
            "h": LINE * len(rows),
        },
        "shape": {"kind": "rect", "corner_radius": 0.0},
        "fill": "none",
        "stroke": {"paint": "none", "width": 0.0},
        "content": [
            {"kind": "text", **_text(row, dx=0.0, dy=LINE * (at - 0.5), size=11.0, color=DIM)}
            for at, row in enumerate(rows)
        ],
        "attrs": nodes[0]["attrs"] if nodes else {},
    }


def _titled(svg: str, title: str) -> str:
    """Return the drawing with a title, for those who have it read to them."""
    head, start, rest = svg.partition("<svg ")
    opening, _, body = rest.partition(">")
    words = escape(f"Process map{f' of {_shown(title, 200)}' if title else ''}")
    return f'{head}{start}role="img" {opening}>\n<title>{words}</title>{body}'


# Files ---------------------------------------------------------------------------------------


def check_place(path: Path) -> None:
    """Say before long work that a file cannot be written there.

    Raises:
        OSError: If it is a folder, or its folder is not there or may not be written.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "the map would be a folder", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path.parent))
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError(errno.EACCES, "it may not be written", str(path))


def save(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: If it cannot be written; one that was there is as before then.
    """
    check_place(path)
    if path.exists() and not path.is_file():  # a pipe, a terminal: nothing to replace
        path.write_text(text, encoding="utf-8")
        return
    real = path.resolve()  # what a link leads to
    part = real.with_name(f".{token_hex(6)}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, real)
    finally:
        part.unlink(missing_ok=True)
