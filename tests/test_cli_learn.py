"""What logs and requests teach, from the command line."""

import asyncio
import csv
import gzip
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.shell import HOSTILE, STEERING, Shell, Typing
from zejzl.cli.findings import (
    advised,
    case_name,
    gain,
    late,
    percent,
    rated,
    sentence,
    steps,
    usual,
)
from zejzl.cli.lessons import path_name
from zejzl.engine.changes import NAME as CHANGES
from zejzl.learning.change import KEEP_AWAY, Action, Improvement, Verification
from zejzl.learning.evidence import Effect, Evidence, Finding, Kind
from zejzl.learning.patterns import Endings, Times
from zejzl.messages import Attempt, Message
from zejzl.stores import SqliteStore

DATA = Path(__file__).parents[2] / "shared/data"
CREDIT = "failure = case contains 'Send for Credit Collection'"
LOGS = {"traffic_fines_10k": CREDIT, "taubench_gpt4o_airline": "success = reward == 1"}
ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
VERIFICATION = Verification(
    metric="success", minimum_effect=0.1, n_needed=200, stop_rule="stop when; undecided after 800"
)

real = pytest.mark.skipif(not DATA.is_dir(), reason="the logs of ../shared/data are absent")


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    made = Shell(tmp_path, monkeypatch, capsys)
    yield made
    made.end()


def log_of(shell: Shell, rows: Sequence[Sequence[object]], name: str = "log.csv") -> str:
    with (shell.folder / name).open("w", newline="", encoding="utf-8") as file:
        made = csv.writer(file)
        made.writerow(["case", "activity", "time", "agent", "error"])
        made.writerows(rows)
    return name


def claims(n: int = 40) -> list[tuple[object, ...]]:
    """Half of the claims are checked by bea and rejected, slowly, with an error."""
    rows: list[tuple[object, ...]] = []
    for case in range(n):
        who = "ann" if case % 2 else "bea"
        rows += [
            (f"c{case}", "open", 100 * case, who, ""),
            (f"c{case}", "check", 100 * case + 5, who),
        ]
        if who == "bea":
            rows.append((f"c{case}", "check", 100 * case + 65, who, f"Error: form {case} is empty"))
            rows.append((f"c{case}", "reject", 100 * case + 70, who))
        else:
            rows.append((f"c{case}", "pay", 100 * case + 6, who))
    return [(*row, *[""] * (5 - len(row))) for row in rows]


REJECTED = ("--outcome", "failure = case contains 'reject'")


# Logs ----------------------------------------------------------------------------------------


def test_a_log_is_told_in_figures_and_then_in_what_to_do(shell: Shell) -> None:
    done = shell("learn", log_of(shell, claims()), *REJECTED)

    assert (done.code, done.err) == (0, "")
    for line in (
        r"events: +140, 1970-01-01 00:00 to 1970-01-01 01:05 UTC",
        r"cases: +40$",
        r"success rate: 50.0% of 40 \(95 %: 35.2% to 64.8%\)",
        r"   20    50%     100%     6 s  open → check → pay",
        r"   20    50%       0%    70 s  open → check ×2 → reject",
        r"  79%     20    60 s  60 s  check → check",
        r"    20  20   100%  open → check ×2 → reject",
        r"   20    50%     20  check again",
        r"   20  check  Error: form <n> is empty",
        r"    80       0%  20  bea",
        r"• with .* 100% fail, without 0% \(n = 20 and 20, q < 0.001\)",
        r"1\. \w",
        r"   gain: could ",
        r"   verify: how ",
        r"to verify, divide cases at random",
    ):
        assert re.search(f"^{line}", done.out, re.M), line


def test_json_is_one_value_with_everything(shell: Shell) -> None:
    found = shell("learn", log_of(shell, claims()), *REJECTED, "--json").json

    assert (found["source"], found["map"], found["notes"]) == ("log.csv", None, [])
    assert found["columns"] == {
        **{"case": "case", "activity": "activity"},
        **{"time": "time", "agent": "agent"},
    }
    assert found["patterns"]["success"]["success_rate"] == 0.5
    assert found["patterns"]["variants"][0]["n"] == 20
    assert {each["kind"] for each in found["findings"]} >= {"execution_error", "agent_gap"}
    assert all(each["sentence"] for each in found["findings"])
    assert all(each["suggestion"] and each["steps"] for each in found["improvements"])
    assert "execution_errors" in found["suggestions"]


def test_without_a_rule_nobody_knows_how_cases_ended(shell: Shell) -> None:
    done = shell("learn", log_of(shell, [row[:4] for row in claims()]))

    assert re.search(r"^success rate: unknown\nunknown: +40 of the cases", done.out, re.M)
    assert "--outcome tells it" in done.out
    assert "success  path" not in done.out and "open:" not in done.out


def test_open_cases_are_provisional_where_others_are_closed(shell: Shell) -> None:
    events = [
        {"type": kind, "data": {}, "conversation_id": case, "timestamp": at}
        for at, (case, kind) in enumerate([("a", "plan"), ("a", "executor"), ("b", "plan")])
    ]
    (shell.folder / "log.jsonl").write_text("\n".join(map(json.dumps, events)))

    done = shell("learn", "log.jsonl")

    assert re.search(r"^cases: +2, 1 of them open: what they give is provisional$", done.out, re.M)


def test_what_is_no_event_is_counted_and_changes_nothing_else(shell: Shell) -> None:
    bad = [("x", "", 1), ("x", "y", "noon"), ("x", "y", ""), ("x", "y", 9e9), ("x", "z" * 501, 1)]
    log_of(shell, claims(), "good.csv")
    log_of(shell, [*bad, *claims()], "mixed.csv")
    with (shell.folder / "mixed.csv").open("a") as file:
        file.write("short\n")

    good = shell("learn", "good.csv", *REJECTED, "--json").json
    mixed = shell("learn", "mixed.csv", *REJECTED, "--json").json

    skipped = {"future": 1, "no_time": 1, "no_type": 1, "oversized": 1, "too_few_cells": 1}
    assert mixed["patterns"].pop("skipped") == {**skipped, "wrong_time": 1}
    assert good["patterns"].pop("skipped") == {}
    assert mixed["patterns"] == good["patterns"]
    assert (
        "skipped:      6 that are no events: future 1" in shell("learn", "mixed.csv", *REJECTED).out
    )


def test_a_log_without_any_event_fails_and_says_what_to_do(shell: Shell) -> None:
    (shell.folder / "log.csv").write_text("case,activity,time\na,x,noon\n")

    done = shell("learn", "log.csv")

    assert done.code == 1
    assert "skipped: 1 that are no events: wrong_time 1" in done.out
    assert "name the columns with --case" in done.err


def test_a_header_alone_is_a_log_without_events(shell: Shell) -> None:
    done = shell("learn", log_of(shell, []))

    assert (done.code, done.err) == (0, "there are no events in it\n")
    assert shell("learn", "log.csv", "--json").json["patterns"]["cases"] == 0


def test_late_events_are_told_with_what_to_do(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [("a", "executor", 1), ("a", "plan", 2)]

    done = shell("learn", log_of(shell, events))

    assert re.search(r"^late: +1 event of cases that were closed", done.out, re.M)


@pytest.mark.parametrize(
    ("words", "code", "about"),
    [
        (["log.csv", "--case", "x"], 2, "no column 'x' for --case; the log has: case, activity"),
        (["log.csv", "--outcome", "nonsense"], 2, "not an outcome rule: 'nonsense' must begin"),
        (["log.csv", "--outcome", "success = prize > 1"], 2, "no column 'prize' for the outcome"),
        (["log.csv", "--limit", "5"], 2, "--limit is for the bus's own requests"),
        (["--case", "x"], 2, "--case is for a LOG, and none is given"),
        (["--encoding", "latin-1"], 2, "--encoding is for a LOG"),
        (["empty.csv"], 2, "empty.csv is empty"),
        (["binary"], 2, "binary is a binary file"),
        (["."], 1, "Is a directory"),
        (["nowhere.csv"], 1, "No such file"),
        (["log.csv", "--map", "."], 1, "the map would be a folder"),
        (["log.csv", "--map", "no/map.svg"], 1, "there is no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    words: list[str], code: int, about: str, shell: Shell
) -> None:
    log_of(shell, claims(2))
    (shell.folder / "empty.csv").touch()
    (shell.folder / "binary").write_bytes(bytes(range(256)))

    done = shell("learn", *words)

    assert (done.code, done.out) == (code, "")
    assert about in done.err.splitlines()[-1]


def test_names_of_a_log_never_steer_a_terminal(shell: Shell) -> None:
    rows = [(HOSTILE, f"{HOSTILE} {n}", n, HOSTILE, f"Error: {HOSTILE}") for n in range(9)]
    log = log_of(shell, [*rows, *[(f"{HOSTILE}{n}", HOSTILE, n, HOSTILE) for n in range(50)]])

    for more in ([], ["--json"], ["--outcome", f"failure = case contains {HOSTILE!r}"]):
        done = shell("learn", log, *more, "--map", "map.svg")

        assert not STEERING.search(done.out + done.err)
    assert "[red]" in done.out and ":boom:" in done.out
    ElementTree.parse(shell.folder / "map.svg")


def test_a_narrow_terminal_shows_all_of_it(shell: Shell) -> None:
    shell.set(COLUMNS="40", NO_COLOR="1")
    log = log_of(shell, claims())
    typing = Typing(shell, "learn", log, *REJECTED)

    assert typing.end() == 0

    assert not re.search(r"\x1b\[[0-9;]*m", typing.seen)  # neither colour nor bold
    lines = ANSI.sub("", typing.seen.split("read:")[-1]).splitlines()
    assert max(map(len, lines)) <= 40
    assert "check → check" in "\n".join(lines)


def test_top_says_how_many_rows_and_what_is_left(shell: Shell) -> None:
    done = shell("learn", log_of(shell, claims()), *REJECTED, "--top", "1")

    assert "1 of 2 agents" in done.out
    assert done.out.count("open → check") == 2  # the most frequent path, the most failing one
    assert re.search(r"--top \d shows \d more", done.out)


def test_a_log_from_a_pipe_is_read(shell: Shell) -> None:
    process = shell.start("learn", "-", "--json")

    out, err = process.communicate("case;activity;time\na;x;1\na;y;2\n")

    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["source"] == "stdin"
    assert json.loads(out)["patterns"]["events"] == 2


def test_a_map_is_drawn_and_named(shell: Shell) -> None:
    log = log_of(shell, claims())

    done = shell("learn", log, "--map", "map.svg")
    found = shell("learn", log, "--map", "map.svg", "--json").json

    assert "the process map is in map.svg" in done.out
    assert found["map"] == "map.svg"
    assert ElementTree.parse(shell.folder / "map.svg").getroot().tag.endswith("svg")


def test_without_the_library_nothing_is_read(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "graphlay", None)

    done = shell("learn", "nowhere.csv", "--map", "map.svg")

    assert done.code == 1
    assert "pip install 'zejzl[learn]'" in done.err
    assert not (shell.folder / "map.svg").exists()


# Real logs -----------------------------------------------------------------------------------


@real
@pytest.mark.parametrize("log", LOGS)
def test_figures_of_real_logs_are_the_true_ones(log: str, shell: Shell) -> None:
    path = DATA / f"{log}.csv.gz"
    truth = json.loads((DATA / f"{log}.truth.json").read_text("utf-8"))

    found = shell("learn", str(path), "--outcome", LOGS[log], "--json").json["patterns"]

    assert (found["events"], found["cases"]) == (truth["events"], truth["cases"])
    assert (found["variants_n"], found["skipped"]) == (truth["variants"], {})
    shown = Counter({tuple(each["sequence"]): each["n"] for each in found["variants"]})
    assert (
        shown.items() >= {tuple(top["seq"]): top["n"] for top in truth["top_variants"][:2]}.items()
    )
    edges = {(each["from"], each["to"]): each["n"] for each in found["edges"]}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        rows = sorted(csv.DictReader(lines), key=lambda row: (row["case"], float(row["ts"])))
    counted = Counter(
        (one["activity"], two["activity"])
        for one, two in pairwise(rows)
        if one["case"] == two["case"]
    )
    assert edges.items() <= counted.items()
    assert len(edges) == min(100, len(counted))


@real
def test_the_wait_of_sixty_days_is_scheduled_and_nothing_to_speed_up(shell: Shell) -> None:
    done = shell("learn", str(DATA / "traffic_fines_10k.csv.gz"), "--outcome", CREDIT)
    found = shell("learn", str(DATA / "traffic_fines_10k.csv.gz"), "--outcome", CREDIT, "--json")

    edge = "Insert Fine Notification → Add penalty"
    assert f"{edge} is a scheduled wait of 60 d (4,417 times)" in done.out
    assert re.search(rf"8.9%  4,417 +60 d +60 d  {edge} +scheduled wait: not slow", done.out)
    assert [each["from"] for each in found.json["patterns"]["edges"] if each["timer"]] == [
        "Insert Fine Notification"
    ]
    assert edge not in {each["target"] for each in found.json["improvements"]}
    assert edge not in done.out.partition("What to do first")[2]


# The bus's own -------------------------------------------------------------------------------


def in_store(shell: Shell, requests: int, settings: dict[str, str] | None = None) -> None:
    """Let so many requests have been asked of alpha, half of them in vain, then of beta."""

    async def work() -> None:
        store = SqliteStore(shell.folder / "home/zejzl.db")
        await store.open()
        began = datetime(2026, 1, 1, tzinfo=UTC)
        for n in range(requests):
            at = began + timedelta(minutes=n)
            message = Message.create("secret", "user", "alpha")
            await store.accept(message, "alpha", "large")
            tried = [Attempt("alpha", "large", "ok", 1.0, at=at)]
            if n % 2:
                failed = Attempt("alpha", "large", "server_error", 1.0, error="HTTP 500", at=at)
                tried = [failed, Attempt("beta", "large", "ok", 0.5, "failover", at=at)]
            await store.settle(message.answered("42", tried[-1].provider, 1.5), tried)
        for name, value in (settings or {}).items():
            await store.keep_setting(name, value)
        await store.close()

    asyncio.run(work())


def test_without_a_log_it_learns_from_requests_that_were_made(shell: Shell) -> None:
    in_store(shell, 60)

    done = shell("learn")
    found = shell("learn", "--json").json
    few = shell("learn", "--limit", "10", "--json").json

    assert "read:         the bus's own requests" in done.out
    assert "success rate: 100.0% of 60" in done.out
    assert "call:alpha → executor" in done.out
    assert found["columns"] is None
    assert (found["patterns"]["cases"], few["patterns"]["cases"]) == (60, 10)
    assert "secret" not in done.out + json.dumps(found)


def test_looking_starts_no_bus(shell: Shell) -> None:
    in_store(shell, 2)

    shell("learn")

    assert shell("status", "--json").json["buses"] == []


def test_before_the_first_request_there_is_nothing_to_learn(shell: Shell) -> None:
    done = shell("learn")

    assert (done.code, "ask hello" in done.err) == (0, True)
    assert not (shell.folder / "home").exists()
    assert shell("learn", "--json").json["patterns"]["cases"] == 0


def test_an_improvement_is_told_with_the_setting_and_what_was_thought_of_it(shell: Shell) -> None:
    shell.set(ZEJZL_FAILOVER="alpha,beta")
    in_store(shell, 200)
    (first, *_) = shell("learn", "--json").json["improvements"]
    opinions = {first["id"]: {"verdict": "bad", "note": "tried before"}}
    learner = json.dumps({"v": 1, "feedback": opinions})
    in_store(shell, 0, {"learner.patterns": learner})

    done = shell("learn")

    assert (first["action"], first["settings"]) == (
        "reorder_providers",
        {"failover": ["beta", "alpha"]},
    )
    assert "Ask alpha last: beta, alpha" in done.out
    assert "bus.apply sets failover = ['beta', 'alpha'], bus.revert takes it back" in done.out
    assert "you said: bad (tried before)" in done.out


@pytest.mark.parametrize("kept", ["nonsense", "[]", '{"feedback": 3}', "[" * 100_000])
def test_opinions_that_cannot_be_read_are_none(kept: str, shell: Shell) -> None:
    in_store(shell, 2, {"learner.patterns": kept})

    assert shell("learn").code == 0


def test_a_change_that_stands_is_not_proposed_again(shell: Shell) -> None:
    shell.set(ZEJZL_FAILOVER="alpha,beta")
    change = {
        **{"id": "x", "settings": {"failover": ["beta", "alpha"]}, "reason": "better"},
        **{"applied_at": "2026-01-01T00:00:00+00:00", "reverted_at": None, "reverted_because": ""},
    }
    in_store(shell, 200, {CHANGES: json.dumps({"v": 1, "changes": [change]})})

    done = shell("learn", "--json")

    assert done.err == ""
    assert "reorder_providers" not in {each["action"] for each in done.json["improvements"]}


# In words ------------------------------------------------------------------------------------


def found(kind: Kind, where: dict[str, str], **more: Any) -> Finding:
    counts = {"failures": 30, "successes": 70, "failures_without": 5, "successes_without": 95}
    times = {"p50_s": 60.0, "p95_s": 600.0, "mean_s": 90.0, "loops": 7}
    return Finding(
        kind=kind,
        where=where,
        **{
            **{"effect": Effect(0.3, "share", (0.2, 0.4)), "n": 30, "n_reference": 100},
            **{"q": 0.01, "evidence": Evidence(counts={**counts, **times})},
            **more,
        },
    )


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        (
            found("validation_failure", {"activity": "validation"}),
            "validation failed 30 of 100 times (30%, 95 %: 20% to 40%)",
        ),
        (
            found("execution_error", {"activity": "a", "signature": "no"}, effect=Effect(0.3, "x")),
            "a failed 30 of 100 times with 'no' (30%)",
        ),
        (
            found("slow_edge", {"from": "a", "to": "b"}, share_of_time=0.4, test="so", caveat="!"),
            "a → b takes 60 s at the median and 10 min at the slow end, 40% of all time: 0.3 × "
            "(so); !",
        ),
        (
            found("timer", {"from": "a", "to": "b"}, effect=Effect(89.5, "s"), caveat="!"),
            "a → b is a scheduled wait of 90 s (30 times): as long as somebody set it, nothing to "
            "speed up",
        ),
        (found("rework_loop", {"activity": "a"}), "a is done more than once in 30 of 100 cases"),
        (
            found("ping_pong", {"from": "a", "to": "b"}),
            "a ⇄ b goes to and fro 7 times in 30 of 100 cases",
        ),
        (
            found("failing_path", {"rework": "a"}),
            "with a again 30% fail, without 5.0% (n = 30 and 100, q = 0.01)",
        ),
        (
            found("agent_gap", {"agent": "x", "by": "cases"}, q=1e-9),
            "with agent x 30% fail, without 5.0% (n = 30 and 100, q < 0.001)",
        ),
        (
            found("agent_gap", {"agent": "x", "by": "time"}),
            "x takes 60 s at the median and 10 min at the slow end: 0.3 × (compared)",
        ),
        (found("drift", {"of": "all cases"}), "all cases: 30% fail, 5.0% did before (q = 0.01)"),
        (
            found("failing_path", {"from": "a", "to": "b", "task_type": "t"}),
            "with a → b (t) 30% fail, without 5.0% (n = 30 and 100, q = 0.01)",
        ),
    ],
    ids=lambda value: value.kind if isinstance(value, Finding) else "",
)
def test_a_finding_is_a_sentence_with_its_numbers(finding: Finding, said: str) -> None:
    assert sentence(finding) == said


def improvement(action: Action, **more: Any) -> Improvement:
    return Improvement(
        action=action,
        **{
            **{"finding_ids": ("slow_edge-1",), "target": "x", "cost_risk": "none"},
            **{"expected_gain": Effect(0.2, "difference of shares", (0.1, 0.3))},
            **{"how_to_verify": VERIFICATION},
            **more,
        },
    )


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (improvement("retry_policy"), "Try x once more where it fails in passing"),
        (
            improvement("retry_policy", settings={"max_attempts": 4}, parameters={"after": 4}),
            "Allow one attempt more: 4 in all",
        ),
        (
            improvement("timeout", parameters={"provider": "x", "after": 2.5}),
            "Give up a late answer of x after 2.5 s",
        ),
        (improvement("reorder_providers", parameters={"after": ["y", "x"]}), "Ask x last: y, x"),
        (improvement("cache"), "Keep the result of x instead of doing it again"),
        (improvement("add_guard"), "Check before x what makes it fail"),
        (
            improvement("add_guard", finding_ids=("ping_pong-1",)),
            "Stop x where it turns in circles",
        ),
        (
            improvement("add_guard", finding_ids=("agent_gap-1",)),
            "See what agent x does otherwise than the others, and check its work",
        ),
        (improvement("lower_concurrency"), "Call x less often"),
        (
            improvement("lower_concurrency", parameters={"requests_per_minute": 9}),
            "Call x less often: at most 9 times a minute",
        ),
        (
            improvement("raise_max_tokens", parameters={"after": 9}),
            "Allow longer answers: 9 tokens",
        ),
        (improvement(KEEP_AWAY), "Keep cases away from x unless somebody insists"),
        (improvement("parallelise"), "Do other work beside x, or begin it earlier"),
        (improvement("prompt_feedback"), "Give back what x turns down, with the reason"),
    ],
    ids=lambda value: value.action if isinstance(value, Improvement) else "",
)
def test_an_improvement_is_something_to_do(made: Improvement, said: str) -> None:
    assert advised(made) == said


def test_an_improvement_tells_its_gain_its_cost_and_how_to_verify() -> None:
    made = improvement("cache", evidence=Evidence(case_ids=("a", None, "")))

    assert list(steps(made)) == [
        "gain: could make 20 points fewer fail where it applies, at most (95 %: 10 to 30)",
        "cost: none",
        "verify: how many end well: 200 cases with it and as many without show a difference of "
        "10 points 8 times in 10 (undecided after 800)",
        "look at: a, (none), ''",
    ]


def test_a_gain_in_time_is_told_in_time() -> None:
    times = Verification(metric="seconds", minimum_effect=90.0, n_needed=20, stop_rule="a; b")
    made = improvement("cache", expected_gain=Effect(7200.0, "s per case"), how_to_verify=times)

    assert gain(made) == "could save 2 h a case, at most"
    assert "how long they take: 20 cases" in [*steps(made)][2]
    assert "a difference of 90 s" in [*steps(made)][2]


def test_numbers_are_as_exact_as_they_are() -> None:
    assert [percent(share) for share in (0, 1e-9, 0.05, 0.5, 0.996, 0.99999, 1)] == [
        *("0%", "<0.1%", "5.0%", "50%", "99.6%", ">99.9%", "100%")
    ]
    exact, spread = Times(mean_s=60, p50_s=59.9, p95_s=59.9), Times(mean_s=60, p50_s=9, p95_s=99)
    assert (usual(exact), late(exact), usual(spread), late(spread)) == (60, 60, 9, 99)
    assert rated(Endings(unknown=3)) == "unknown"
    assert case_name("x" * 99).endswith("x…")


def test_a_long_path_is_told_by_its_ends() -> None:
    names = [f"s{n}" for n in range(30)]

    assert path_name(["a", "b", "b", "b"]) == "a → b ×3"
    assert path_name(names) == (
        "s0 → s1 → s2 → s3 → s4 → s5 → … 19 more … → s25 → s26 → s27 → s28 → s29"
    )
    assert path_name([]) == "(nothing)"
