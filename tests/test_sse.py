"""Server-sent events: however the network tears the bytes, the same events come out."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.providers.sse import MAX_EVENT, Event, Parser, TooLong


def parsed(*chunks: bytes) -> list[Event]:
    parser = Parser()
    found = [event for chunk in chunks for event in parser.feed(chunk)]
    last = parser.rest()
    return [*found, last] if last else found


def reference(raw: bytes) -> list[Event]:
    """Return the events of a whole stream, line by line as the standard tells it."""
    found: list[Event] = []
    name = ""
    data: list[str] = []
    for line in [*re.split("\r\n|\n|\r", raw.decode().removeprefix("\ufeff")), ""]:
        if not line:
            if data:
                found.append(Event(name, "\n".join(data)))
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
    return found


lines = st.one_of(
    st.sampled_from(["", "", "data:", "data: x", "data:y", "event: error", ": ping", "id: 1", "z"]),
    st.text("dat: é水🐎\ufeff\u2028", max_size=8),
)
streams = st.lists(st.tuples(lines, st.sampled_from(["\n", "\r\n", "\r"]))).map(
    lambda parts: "".join(line + end for line, end in parts).encode()
)


@given(streams, st.booleans())
def test_the_events_are_those_of_the_standard_and_a_last_one_without_its_blank_line(
    raw: bytes, mark: bool
) -> None:
    raw = b"\xef\xbb\xbf" + raw if mark else raw

    assert parsed(raw) == reference(raw)


@given(streams, st.data())
def test_any_split_of_the_bytes_gives_the_same_events(raw: bytes, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(raw)))) if raw else []
    cuts = [0, *sorted(places), len(raw)]

    chunks = [raw[start:end] for start, end in pairwise(cuts)]

    assert parsed(*chunks) == parsed(raw)


@given(streams)
def test_byte_by_byte_gives_the_same_events(raw: bytes) -> None:
    assert parsed(*(raw[place : place + 1] for place in range(len(raw)))) == parsed(raw)


def test_an_event_comes_out_as_soon_as_its_blank_line_is_there() -> None:
    parser = Parser()

    early = list(parser.feed(b"data: one\n"))
    whole = list(parser.feed(b"\ndata: tw"))

    assert (early, whole) == ([], [Event("", "one")])


@pytest.mark.parametrize(
    "raw",
    [b": keep-alive\n\n", b"event: ping\n\n", b"id: 7\nretry: 3\n\n", b"\n\n\n", b""],
    ids=["a comment", "a name alone", "other fields", "blank lines", "nothing"],
)
def test_what_carries_no_data_is_no_event(raw: bytes) -> None:
    assert parsed(raw) == []


def test_the_name_of_an_event_without_data_does_not_stick() -> None:
    assert parsed(b"event: ping\n\ndata: x\n\n") == [Event("", "x")]


def test_a_byte_order_mark_is_one_at_the_beginning_only() -> None:
    mark = b"\xef\xbb\xbf"

    assert parsed(mark + b"data: a\n\n" + mark + b"data: b\n\n") == [Event("", "a")]


def test_several_data_lines_are_one_datum() -> None:
    assert parsed(b'event: error\ndata: {\ndata: "a": 1}\n\n') == [Event("error", '{\n"a": 1}')]


@pytest.mark.parametrize("field", ["data", "event"])
def test_bytes_that_are_no_utf8_are_refused_after_what_came_before(field: str) -> None:
    events = Parser().feed(f"data: x\n\n{field}: ".encode() + b"\xff\n\n")

    assert next(events) == Event("", "x")
    with pytest.raises(UnicodeDecodeError):
        next(events)


@pytest.mark.parametrize(
    "raw",
    [
        b"data: " + b"x" * (MAX_EVENT + 1) + b"\n\n",
        b"data: " + b"x" * (MAX_EVENT + 1),
        b"data: xxx\n" * (MAX_EVENT // 3 + 1),
    ],
    ids=["one line", "a line without an end", "many lines"],
)
def test_an_event_beyond_the_limit_is_refused(raw: bytes) -> None:
    with pytest.raises(TooLong, match=str(MAX_EVENT)):
        parsed(raw)


def test_the_limit_is_for_one_event_not_for_the_stream() -> None:
    parser = Parser()
    event = b"data: " + b"x" * (MAX_EVENT // 2) + b"\n\n"

    found = [len(list(parser.feed(event))) for _ in range(3)]

    assert found == [1, 1, 1]
