"""Logs of other programs: what is read of them, and what is told of rows that are none."""

import csv
import gzip
import io
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.cli.logs import LINE, Columns, EventLog, moment_of, opened_log
from zejzl.learning.mining import Miner

HEADER = "case,activity,time\n"
texts = st.text(max_size=20).filter(lambda text: "\r" not in text and "\n" not in text)


def read(path: Path, columns: Columns | None = None, **how: Any) -> tuple[list[Any], EventLog]:
    with opened_log(str(path), columns or Columns(), **how) as log:
        return list(log.events), log


def written(folder: Path, text: str | bytes, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def said(events: Sequence[Any]) -> list[tuple[object, object, object]]:
    return [(each["conversation_id"], each["type"], each["timestamp"]) for each in events]


# Columns -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "case,activity,time",
        "Case ID,Activity,Timestamp",
        "case:concept:name,concept:name,time:timestamp",
        "conversation_id,type,ts",
        "session,event,created_at",
    ],
)
def test_columns_are_found_by_their_names(header: str, tmp_path: Path) -> None:
    events, _ = read(written(tmp_path, f"{header}\na,open,5\n"))

    assert said(events) == [("a", "open", 5.0)]


def test_a_column_that_is_named_is_read_and_no_other(tmp_path: Path) -> None:
    path = written(tmp_path, "case,order,activity,what,ts,who\na,o1,x,pay,5,ann\n")

    events, log = read(path, Columns(case="order", activity="what", agent="who"))

    assert said(events) == [("o1", "pay", 5.0)]
    assert events[0]["agent"] == "ann"
    assert log.columns == Columns(case="order", activity="what", time="ts", agent="who")


@pytest.mark.parametrize(
    ("columns", "about"),
    [
        (Columns(case="order"), r"no column 'order' for --case; the log has: case, activity, time"),
        (Columns(agent="who"), r"no column 'who' for --agent"),
    ],
)
def test_a_wrong_name_is_refused_with_the_known_ones(
    columns: Columns, about: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=about):
        read(written(tmp_path, HEADER), columns)


def test_what_cannot_be_guessed_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"which column is the activity\? Name it with --activity"):
        read(written(tmp_path, "case,x,time\n"))


def test_a_rule_gets_its_column_and_only_one_that_is_there(tmp_path: Path) -> None:
    path = written(tmp_path, "case,activity,time,reward\na,x,5,0.5\n")

    events, _ = read(path, field="reward")

    assert events[0]["data"]["reward"] == "0.5"
    with pytest.raises(ValueError, match="no column 'prize' for the outcome rule"):
        read(path, field="prize")


def test_a_header_of_many_columns_is_named_in_part(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"c28, c29 and 70 more$"):
        read(written(tmp_path, ",".join(f"c{n}" for n in range(100)) + "\n"))


# Cells ---------------------------------------------------------------------------------------


def test_text_is_text(tmp_path: Path) -> None:
    path = written(tmp_path, f'{HEADER}NA,None,1\n,nan,2\n007,1e3,3\n" a ",x,4\n')

    events, _ = read(path)

    first, second, third, fourth = said(events)
    assert (first, second) == (("NA", "None", 1.0), ("", "nan", 2.0))
    assert (third, fourth) == (("007", "1e3", 3.0), (" a ", "x", 4.0))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_of_the_header(delimiter: str, tmp_path: Path) -> None:
    rows = [["case", "activity", "time"], ["a,b;c", 'say "x"\nonce', "5"]]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)

    events, _ = read(written(tmp_path, text.getvalue()))

    assert said(events) == [("a,b;c", 'say "x"\nonce', 5.0)]


@given(
    rows=st.lists(st.tuples(texts, texts.filter(bool)), min_size=1, max_size=8),
    name=st.sampled_from(["log.csv", "log.jsonl", "log.csv.gz", "log"]),
)
def test_what_was_written_is_read(
    rows: list[tuple[str, str]], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("log")
    out = io.StringIO()
    if "jsonl" in name:
        for case, activity in rows:
            out.write(json.dumps({"case": case, "activity": activity, "time": 5.0}) + "\n")
    else:
        made = csv.writer(out, quoting=csv.QUOTE_ALL)
        made.writerow(["case", "activity", "time"])
        made.writerows([case, activity, "5"] for case, activity in rows)
    body = out.getvalue().encode()

    events, log = read(written(folder, gzip.compress(body) if "gz" in name else body, name))

    assert said(events) == [(case, activity, 5.0) for case, activity in rows]
    assert not log.skipped


@pytest.mark.parametrize(
    ("cell", "moment"),
    [
        ("1153699200", 1153699200.0),
        ("1153699200000", 1153699200.0),
        ("1153699200000000", 1153699200.0),
        ("1153699200000000000", 1153699200.0),
        (1153699200000, 1153699200.0),
        ("0", 0.0),
        ("-5.5", -5.5),
        ("2006-07-24T00:00:00Z", "2006-07-24T00:00:00Z"),
        ("2006-07-24 00:00", "2006-07-24 00:00"),
        ("yesterday", "yesterday"),
        ("", None),
        (True, True),
        (None, None),
    ],
    ids=repr,
)
def test_a_time_is_iso_or_a_number_whose_size_tells_its_unit(cell: object, moment: object) -> None:
    assert moment_of(cell) == moment


def test_cells_that_say_how_it_ended_are_read_as_what_they_are(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "case,activity,time,status,error,Duration (ms),duration_ms,is_valid,task_type\n"
        "a,validation,1,ok,none,7,12.5,no,\n"
        "a,x,2,,Timeout,7,soon,maybe,refund\n",
    )

    (first, second), _ = read(path)

    row = {"status": "ok", "error": None, "duration_ms": 12.5, "is_valid": False, "task_type": None}
    assert first["data"] == {"row": 0, **row}
    assert second["data"] == {
        **{"row": 1, "status": None, "error": "Timeout", "duration_ms": None},
        **{"is_valid": None, "task_type": "refund"},
    }


def test_two_rows_that_say_the_same_are_two_events(tmp_path: Path) -> None:
    events, _ = read(written(tmp_path, HEADER + "a,x,5\n" * 3))
    miner = Miner()

    miner.learn(events)

    assert miner.patterns().events == 3


# Rows that are none --------------------------------------------------------------------------


def test_rows_that_are_none_are_counted_by_what_is_wrong(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"{HEADER}a,x,1\n\na\na,x\na,x,2,\na,x,3,more\na,{'y' * 200_000},4\n"
        f"a,{'z' * 10_000_000},5\na,x,6\n",
    )

    events, log = read(path)

    assert [each["timestamp"] for each in events] == [1.0, 2.0, 6.0]
    assert log.skipped == {"too_few_cells": 2, "too_many_cells": 1, "oversized": 2}


def test_a_lost_quote_costs_the_rows_it_swallows_and_no_more(tmp_path: Path) -> None:
    rows = [f"case {n},activity,{n}\n" for n in range(20_000)]
    rows[100] = 'case 100,"activity,100\n'

    events, log = read(written(tmp_path, HEADER + "".join(rows)))

    assert len(events) + log.skipped["oversized"] == 20_000
    assert 1 < log.skipped["oversized"] < 10_000


def test_lines_that_are_no_json_are_counted(tmp_path: Path) -> None:
    good = '{"case": "a", "activity": "x", "time": 1}\n'
    path = written(tmp_path, f"{good}nonsense\n\n{'[' * 100_000}\n[1]\n{good}", "log.jsonl")

    events, log = read(path)

    assert said([each for each in events if isinstance(each, dict)]) == [("a", "x", 1)] * 2
    assert log.skipped == {"not_json": 2}
    assert [each for each in events if not isinstance(each, dict)] == [[1]]  # the miner tells it


def test_a_nul_is_a_letter_like_others(tmp_path: Path) -> None:
    events, _ = read(written(tmp_path, f"{HEADER}a,x\0y,1\n"))

    assert said(events) == [("a", "x\0y", 1.0)]


# JSONL ---------------------------------------------------------------------------------------


def test_events_stay_what_they_are_but_for_the_unit_of_time(tmp_path: Path) -> None:
    event = {"type": "plan", "data": {"x": 1}, "conversation_id": None, "timestamp": 5}
    late = {**event, "timestamp": 1153699200000}
    path = written(tmp_path, f"{json.dumps(event)}\n{json.dumps(late)}\n", "log.jsonl")

    events, log = read(path)

    assert events == [event, {**event, "timestamp": 1153699200.0}]
    assert log.columns is None


def test_columns_of_objects_are_read_at_the_top_then_in_data(tmp_path: Path) -> None:
    row = {"id": 7, "data": {"step": "x", "when": "2006-07-24", "duration_ms": "3", "id": 9}}
    path = written(tmp_path, json.dumps(row), "log")

    (event,), _ = read(path, Columns(case="id", activity="step", time="when"))

    assert said([event]) == [(7, "x", "2006-07-24")]
    assert event["data"]["duration_ms"] == 3.0


# Files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_says_the_encoding(encoding: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}é,日,1\n".encode(encoding))

    events, log = read(path, encoding="utf-8" if encoding == "utf-8-sig" else None)

    assert said(events) == [("é", "日", 1.0)]
    assert not log.notes


def test_another_encoding_is_noted_until_it_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}é,x,1\n".encode("latin-1"))

    unnamed, log = read(path)
    named, quiet = read(path, encoding="latin-1")

    assert said(unnamed) == [("\\xe9", "x", 1.0)]
    assert ["--encoding latin-1" in note for note in log.notes] == [True]
    assert said(named) == [("é", "x", 1.0)]
    assert not quiet.notes
    with pytest.raises(ValueError, match="'hex' is no encoding of text"):
        read(path, encoding="hex")


@pytest.mark.parametrize(
    ("body", "name", "about"),
    [
        (b"", "log.csv", "log.csv is empty"),
        (b"\n\r\n \n", "log.csv", "log.csv is empty"),
        (b"", "log.jsonl", "no JSON object in it"),
        (b"3\n", "log.jsonl", "no JSON object in it"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\xff", "log.csv", "is a binary file"),
        (b"SQLite format 3\0" + bytes(100), "log", "is a binary file"),
        (b'[{"type": "x"}]', "log.json", "one JSON array"),
    ],
)
def test_what_is_no_log_is_refused(body: bytes, name: str, about: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=about):
        read(written(tmp_path, body, name))


def test_a_part_of_an_archive_is_told_as_damaged(tmp_path: Path) -> None:
    rows = "".join(f"{n},x,{n * n}\n" for n in range(50_000))
    whole = gzip.compress((HEADER + rows).encode())

    with pytest.raises(OSError, match=r"log\.csv is damaged, or only a part"):
        read(written(tmp_path, whole[: len(whole) // 2]))


def test_stdin_is_read_as_any_other_log() -> None:
    program = (
        "from zejzl.cli.logs import Columns, opened_log\n"
        "with opened_log('-', Columns()) as log: print(len(list(log.events)))"
    )
    body = gzip.compress((HEADER + "a,x,1\n" * 5).encode())

    done = subprocess.run([sys.executable, "-c", program], input=body, capture_output=True)

    assert (done.stdout, done.stderr) == (b"5\n", b"")


def test_no_stdin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)

    with pytest.raises(ValueError, match="no stdin"), opened_log("-", Columns()):
        pass


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + "some case,some activity,5\n" * 100_000)

    tracemalloc.start()
    with opened_log(str(path), Columns()) as log:
        count = sum(1 for _ in log.events)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert count == 100_000
    assert most < 1_000_000


def test_a_line_without_end_is_read_past(tmp_path: Path) -> None:
    long = "x" * (3 * LINE)

    events, log = read(written(tmp_path, f"{HEADER}a,{long},1\n{long}"))

    assert (events, log.skipped) == ([], {"oversized": 2})
