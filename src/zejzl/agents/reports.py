"""A report of results as Markdown. Pure; what a stranger wrote cannot pose as its structure."""

from collections.abc import Mapping

MOST_ROWS = 1_000
LONGEST_CELL = 200


def markdown(title: str, sections: Mapping[str, object]) -> str:
    """Return a title and a section for each result."""
    lines = [f"# {cell(title)}"]
    for name, value in sections.items():
        lines += ["", f"## {cell(name)}", "", *_body(value)]
    return "\n".join(lines) + "\n"


def _body(value: object) -> list[str]:
    if isinstance(value, Mapping):
        plain = {k: v for k, v in value.items() if not isinstance(v, Mapping | list)}
        lines = [f"- {cell(key)}: {cell(each)}" for key, each in plain.items()]
        for key, each in value.items():
            if key not in plain:
                lines += ["", f"### {cell(key)}", "", *_rows(each)]
        return lines
    return _rows(value)


def _rows(value: object) -> list[str]:
    """Return a table of objects of the same fields, or a list of whatever it is."""
    if not isinstance(value, list):
        return [cell(value)]
    more = [f"… and {len(value) - MOST_ROWS} more"] if len(value) > MOST_ROWS else []
    rows = value[:MOST_ROWS]
    fields = list(rows[0]) if rows and isinstance(rows[0], Mapping) else []
    if not fields or any(not isinstance(row, Mapping) or list(row) != fields for row in rows):
        return [*(f"- {cell(row)}" for row in rows), *more] or ["Nothing."]
    head = [f"| {' | '.join(map(cell, fields))} |", f"|{' --- |' * len(fields)}"]
    body = [f"| {' | '.join(cell(row[field]) for field in fields)} |" for row in rows]
    return [*head, *body, *more]


def cell(value: object) -> str:
    """Return a value on one line, without what Markdown or HTML would take for its own."""
    text = " ".join(str(value).split())
    text = text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"
    text = "".join(char if char.isprintable() else "�" for char in text)
    for sign in "\\|`[*":  # the backslash first, or it would undo those that follow
        text = text.replace(sign, f"\\{sign}")
    return text.replace("&", "&amp;").replace("<", "&lt;")
