"""The command line: what people type, what programs read, and what neither must ever see."""

import asyncio
import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_framework import AsyncMessageBus
from tests.shell import HOSTILE, KEY, STEERING, Done, Shell, Typing, until
from tests.tree import ROOT
from zejzl.cli.advice import CHAT, SHELL, Place
from zejzl.cli.providers import masked
from zejzl.cli.terminal import explained, in_columns, safe, told
from zejzl.errors import (
    AttemptTimeout,
    BadRequest,
    CircuitOpen,
    ContextOverflow,
    FailureClass,
    Incomplete,
    NoSuchProvider,
    NotNow,
    Overloaded,
    RateLimited,
    Shielded,
)
from zejzl.messages import Attempt
from zejzl.settings import VENDOR_KEYS, Secret, Settings
from zejzl.stores import SqliteStore
from zejzl.testing import CANONICAL, FaultServer, faults

READING = [
    ("providers",),
    ("status",),
    ("health",),
    ("history",),
    ("history", "--all"),
    ("heal",),
    ("rituals",),
    ("preferences",),
    ("recover",),
    ("costs",),
    ("parked",),
]


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    made = Shell(tmp_path, monkeypatch, capsys)
    yield made
    made.end()


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A fault server in a thread: a command runs an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    made = FaultServer()
    asyncio.run_coroutine_threadsafe(made.start(), loop).result()
    yield made
    asyncio.run_coroutine_threadsafe(made.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def online(shell: Shell, server: FaultServer) -> Shell:
    shell.with_vendors(server)
    return shell


# ── Help, usage, exit codes ──────────────────────────────────────────────────────────────────────


def test_no_arguments_show_the_help(shell: Shell) -> None:
    done = shell()

    assert done.code == 0
    assert "ask " in done.out and "demo " in done.out


def test_every_command_has_a_help_with_json_in_it(shell: Shell) -> None:
    names = re.findall(r"^  ([a-z-]+) {2,}\S", shell("--help").out.partition("Commands:")[2], re.M)

    assert len(names) >= 10
    for name in names:
        done = shell(name, "--help")
        assert (done.code, done.err) == (0, "")
        assert "--json" in done.out


def test_the_help_of_no_command_is_cut_short(shell: Shell) -> None:
    assert "..." not in shell("--help").out.partition("Commands:")[2]


def test_the_version_is_told(shell: Shell) -> None:
    assert re.fullmatch(r"zejzl \S+\n", shell("--version").out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fly"], "fly"),
        (["ask", "--wings", "hello"], "--wings"),
        (["ask", "hello", "--max-tokens", "many"], "--max-tokens"),
        (["ask", "hello", "--max-tokens", "0"], "max_tokens"),
        (["ask", "hello", "--deadline", "-1"], "deadline"),
        (["ask", "hello", "--temperature", "nan"], "temperature"),
        (["ask", " "], "What is the question?"),
        (["ask"], "What is the question?"),
        (["ask", "-"], "What is the question?"),
        (["ask", "hello", "-p", "nobody"], "nobody"),
        (["ask", "hello", "-c", ""], "-c needs a name"),
        (["chat", "-c", " "], "-c needs a name"),
        (["costs", "-c", ""], "-c needs a name"),
        (["history", ""], "conversation needs a name"),
        (["ask", "hello", "--failover=nobody"], "nobody"),
        (["ask", "hello", "--failover="], "--failover= names nobody"),
        (["chat", "chatgpt", "hello", "--failover=,"], "--failover= names nobody"),
        (["chat", "chatgpt", "hello"], "chatgpt"),
        (["chat", "nobody"], "nobody"),
        (["set-default", "nobody"], "claude"),
        (["history", "--limit", "0"], "--limit"),
        (["demo", "--seconds", "0"], "--seconds"),
        (["status", "--interval", "0"], "--interval"),
        (["shield", "sideways"], "sideways"),
        (["heal", "--issue", "x"], "--issue"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_asked_is_a_usage_error_that_names_it(
    shell: Shell, words: list[str], said: str
) -> None:
    done = shell(*words)

    assert done.code == 2
    assert done.out == ""
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_setting_that_cannot_be_is_named(shell: Shell) -> None:
    shell.set(ZEJZL_DEADLINE="soon")

    done = shell("ask", "hello")

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("zejzl: ZEJZL_DEADLINE: ")


@pytest.mark.parametrize("command", ["ask hello", "status", "providers"])
def test_rubbish_in_dotenv_is_told_with_its_line(shell: Shell, command: str) -> None:
    (shell.folder / ".env").write_text("A=1\nwhat is this\n")

    done = shell(*command.split())

    assert done.code == 2
    assert ".env: line 2" in done.err


def test_a_failure_says_what_and_what_to_do_and_is_1(online: Shell, server: FaultServer) -> None:
    server.play("chatgpt", faults.auth())

    done = online("ask", "hello", "-p", "chatgpt")

    assert (done.code, done.out) == (1, "")
    what, *_, advice = done.err.splitlines()
    assert what.startswith("zejzl: chatgpt: ") and "401" in what
    assert advice == "  → check OPENAI_API_KEY in the environment or .env"


def test_verbose_tells_every_attempt(online: Shell, server: FaultServer) -> None:
    server.play("chatgpt", faults.status(500))
    server.play("claude", faults.auth())

    done = online("ask", "hello", "-v")

    assert "1. chatgpt/gpt-5-mini (first): server_error" in done.err
    assert "(failover): auth" in done.err


def test_notes_tell_why_nothing_more_was_tried() -> None:
    failure = RateLimited("slow down", provider="chatgpt")
    failure.add_note("not retried: retry budget is short")
    failure.attempts = (Attempt("chatgpt", "m", "rate_limited", 0.1),)

    assert explained(failure) == [
        "zejzl: chatgpt: slow down",
        "  not retried: retry budget is short",
        "  → try again later",
    ]


PINNED = replace(SHELL, pinned=True)
SHOWN = replace(SHELL, shown=True)
REFUSED = "claude: its key was refused: claude: invalid x-api-key (HTTP 401), for 9.0 s"
F = FailureClass


@pytest.mark.parametrize(
    ("failure", "place", "said"),
    [
        (RateLimited("x"), SHELL, "try again later"),
        (RateLimited("x"), PINNED, "try again later, or let others answer too: --failover"),
        (RateLimited("x"), replace(CHAT, pinned=True), "or ask somebody else: /provider"),
        (RateLimited("x", retry_after=11.2), SHELL, "or let it wait so long: --patience 15"),
        (RateLimited("x", retry_after=3.0), SHELL, "--patience 4"),
        (RateLimited("x", retry_after=50.0), SHELL, "--patience 65 (and more than that: --dead"),
        (CircuitOpen("claude", 12.0), PINNED, "or let others answer too: --failover"),
        (CircuitOpen("claude", 9.0, REFUSED), SHELL, "check ANTHROPIC_API_KEY in the environment"),
        (CircuitOpen("claude", 9.0, REFUSED), PINNED, ".env, or let others answer too: --failover"),
        (AttemptTimeout("x"), SHELL, "ZEJZL_ATTEMPT_TIMEOUT; of a stream: ZEJZL_FIRST_TOKEN_TIME"),
        (AttemptTimeout("x", failure_class=F.DEADLINE), SHELL, "--deadline, ZEJZL_DEADLINE"),
        (AttemptTimeout("x", failure_class=F.STALLED), SHELL, "ZEJZL_IDLE_TIMEOUT"),
        (Incomplete("x", failure_class=F.STALLED), SHELL, "ZEJZL_IDLE_TIMEOUT"),
        (Incomplete("x"), SHELL, "try again"),
        (Incomplete("x"), SHOWN, "what had arrived is shown above"),
        (BadRequest("x", status=404), SHELL, "end in /v1: `python -m zejzl providers` shows"),
        (BadRequest("x", status=400), SHELL, "check the model's name (--model)"),
        (ContextOverflow("x"), CHAT, "begin another conversation: /new"),
        (ImportError("x"), SHELL, "run ./start.sh"),
    ],
)
def test_the_advice_fits_the_failure_and_the_place(
    shell: Shell, failure: Exception, place: Place, said: str
) -> None:
    shell.set(PATH="")

    _, advice = explained(failure, place=place)

    assert said in advice
    assert "pip install" not in advice
    assert place is not CHAT or "--" not in advice


def test_an_answer_that_stalls_half_shown_has_two_advices() -> None:
    _, above, times = explained(Incomplete("x", failure_class=F.STALLED), place=SHOWN)

    assert "shown above" in above and "ZEJZL_IDLE_TIMEOUT" in times


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("ask", "hello", "-p", "chatgpt"), "--failover"),
        (("ask", "hello"), None),
        (("ask", "hello", "-p", "chatgpt", "--failover=claude"), None),
        (("chat", "chatgpt"), "/provider"),
        (("chat",), None),
    ],
)
def test_others_are_suggested_only_where_they_were_left_out(
    online: Shell, server: FaultServer, words: tuple[str, ...], hint: str | None
) -> None:
    for name in ("chatgpt", "claude"):
        server.play(name, faults.status(500))

    done = online(*words, stdin="hello\n" if words[0] == "chat" else "")

    assert done.code == 1
    assert [word for word in ("--failover", "/provider") if word in done.err] == [hint] * bool(hint)


@pytest.mark.parametrize(
    ("called", "on_path", "word"),
    [
        ("/opt/venv/bin/zejzl", True, "zejzl"),
        ("/opt/venv/bin/zejzl", False, "/opt/venv/bin/zejzl"),
        ("/opt/my venv/bin/zejzl", False, "'/opt/my venv/bin/zejzl'"),
        (".venv/bin/zejzl", False, ".venv/bin/zejzl"),
        ("/somewhere/zejzl/__main__.py", False, "python -m zejzl"),
        ("/somewhere/ai_framework.py", False, "python ai_framework.py"),
    ],
)
def test_hints_say_what_works_here(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, called: str, on_path: bool, word: str
) -> None:
    if on_path:
        (shell.folder / "zejzl").touch(0o755)
    shell.set(PATH=str(shell.folder))
    monkeypatch.setattr("sys.argv", [called])
    other = "./start.sh"

    usage, wrong, none = shell("--help"), shell("ask", "--wings"), shell("ask")
    status, who = shell("status"), shell("ask", "hello", "-p", "nobody")

    assert usage.out.startswith(f"Usage: {word} ")
    assert f"Try '{word} ask --help'" in wrong.err
    assert f"For example: {word} ask" in none.err
    assert f"`{word} demo`" in status.out
    assert f"`{word} providers`" in who.err
    for done in (usage, wrong, none, status, who):
        assert f"{other} ask" not in done.out + done.err and f"`{other}" not in done.out + done.err


def test_one_who_comes_by_start_sh_is_sent_there_again(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.set(PATH="")
    monkeypatch.setattr("sys.argv", [".venv/bin/zejzl"])
    monkeypatch.chdir(ROOT)

    assert shell("--help").out.startswith("Usage: ./start.sh ")


def test_a_refused_key_is_named_also_once_its_breaker_is_open(
    online: Shell, server: FaultServer
) -> None:
    server.play("chatgpt", faults.auth())

    done = online("chat", "chatgpt", stdin="hello\nhello\n")

    first, second = re.findall(r"^  → (.*)$", done.err, re.M)
    assert "check OPENAI_API_KEY" in first and "check OPENAI_API_KEY" in second
    assert "circuit breaker of 'chatgpt' is open" in done.err


def test_an_accident_is_one_line_and_its_place_is_in_the_log(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(bus: AsyncMessageBus) -> None:
        raise RuntimeError("oh")

    monkeypatch.setattr(AsyncMessageBus, "start", broken)

    quiet, verbose = shell("ask", "hello"), shell("ask", "hello", "-v")

    assert quiet.code == verbose.code == 1
    assert quiet.err == "zejzl: unexpected RuntimeError: oh (-v shows where)\n"
    assert "Traceback" in verbose.err


# ── For programs ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("words", [*READING, ("set-default", "claude")], ids=" ".join)
def test_json_is_one_value_and_nothing_else(online: Shell, words: tuple[str, ...]) -> None:
    online("ask", "hello", "-c", "default")

    done = online(*words, "--json")

    assert done.code == 0
    assert isinstance(done.json, dict | list)


def test_json_of_an_answer_is_the_whole_reply(online: Shell, server: FaultServer) -> None:
    server.play("chatgpt", faults.status(500))

    reply = online("ask", "hello", "--json").json

    assert reply["text"] == CANONICAL
    assert reply["provider"] == "claude"
    assert reply["healed"] is True
    assert [tried["outcome"] for tried in reply["attempts"]][-1] == "ok"
    assert {"usage", "model", "finish_reason", "latency_s", "cost_usd", "id"} <= reply.keys()


def test_json_of_a_failure_is_an_error_with_its_attempts(
    online: Shell, server: FaultServer
) -> None:
    server.play("chatgpt", faults.auth())

    done = online("ask", "hello", "-p", "chatgpt", "--json")

    error = done.json["error"]
    assert done.code == 1
    assert (error["type"], error["provider"], error["status"]) == ("AuthFailed", "chatgpt", 401)
    assert error["attempts"][0]["outcome"] == "auth"


def test_json_of_a_broken_answer_holds_what_had_arrived(online: Shell, server: FaultServer) -> None:
    server.play("chatgpt", faults.cut(5))

    done = online("ask", "hello", "-p", "chatgpt", "--json")

    assert done.json["error"]["type"] == "Incomplete"
    assert isinstance(done.json["error"]["prefix"], str)
    assert "above" not in done.err


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_piped_output_holds_no_escape_codes(online: Shell, words: tuple[str, ...]) -> None:
    online("ask", "hello", "-c", "default")

    done = online(*words)

    assert "\x1b" not in done.out + done.err
    assert done.out


def test_on_a_terminal_there_is_colour_unless_it_is_not_wanted(shell: Shell) -> None:
    shell("ask", "hello")
    shell.set(TERM="xterm-256color")
    coloured = Typing(shell, "health")
    assert coloured.end() == 0
    shell.set(NO_COLOR="1")
    plain = Typing(shell, "health")
    assert plain.end() == 0

    assert "\x1b[32m" in coloured.seen
    assert not re.search(r"\x1b\[[0-9;]*m", plain.seen)


@pytest.mark.parametrize("columns", [50, 80])
@pytest.mark.parametrize("command", ["providers", "heal"])
def test_no_name_is_cut_however_narrow_the_terminal(
    online: Shell, server: FaultServer, command: str, columns: int
) -> None:
    server.play("chatgpt", faults.rate_limited(30))
    online("ask", "hello")
    online.set(COLUMNS=str(columns), TERM="xterm", NO_COLOR="1")

    shown = Typing(online, command)
    assert shown.end() == 0

    *table, _ = shown.seen.splitlines()
    assert max(map(len, table)) <= columns
    assert (": " in shown.seen) is (columns == 50), "at 80 it is a table"
    assert "…" not in shown.seen.replace("sk-…", "")
    words = shown.seen.split()
    names = {"heal": ["chatgpt", "rate_limited", "failover"]}.get(
        command, [*VENDOR_KEYS, *(key for keys in VENDOR_KEYS.values() for key in keys)]
    )
    for name in {*names} - {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "LOCAL_API_KEY"}:
        assert name in words


def test_a_table_without_room_is_lines() -> None:
    made = in_columns(["", "provider", "key"], [["*", "a" * 30, "k" * 30], ["", "b", "c"]], room=40)

    assert str(made) == f"*\nprovider: {'a' * 30}\nkey: {'k' * 30}\n\nprovider: b\nkey: c"


def test_an_import_of_the_command_line_is_light() -> None:
    heavy = {"ai_framework", "asyncio", "click", "rich"}
    program = f"import sys, zejzl.cli; print(*{heavy} & {{*sys.modules}})"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout == "\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_without_anybody_to_talk_to_the_work_is_done_all_the_same(
    shell: Shell, closed: str
) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m zejzl providers {closed}"

    done = subprocess.run(
        ["sh", "-c", command], cwd=shell.folder, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "words", [("history",), ("--help",), ("status", "--json"), ("ask", "-"), ("chat",)]
)
def test_a_reader_that_has_left_is_nothing_to_talk_about(
    shell: Shell, words: tuple[str, ...]
) -> None:
    shell("ask", "hello", "-c", "default")
    reader, writer = os.pipe()
    os.close(reader)

    process = shell.start(*words, stdout=writer)
    os.close(writer)
    _, err = process.communicate("hello\nagain\n")

    assert (process.returncode, err) == (1, "")
    assert "again" not in shell("history").out


# ── Hostile text ─────────────────────────────────────────────────────────────────────────────────


@given(st.text())
def test_safe_text_steers_no_terminal_and_keeps_the_rest(text: str) -> None:
    shown = safe(text)

    assert not STEERING.search(shown)
    shown.encode()  # no half characters either
    if not STEERING.search(text) and text.isprintable():
        assert shown == text


def test_a_hostile_answer_is_shown_and_not_obeyed(online: Shell, server: FaultServer) -> None:
    server.play("chatgpt", faults.ok(HOSTILE))

    done = online("ask", "hello", "-p", "chatgpt")
    streamed = online("ask", "hello", "-p", "chatgpt", "--stream")

    for shown in (done.out, streamed.out):
        assert not STEERING.search(shown)
        assert "[red]" in shown and ":boom:" in shown and r"\x1b[31m" in shown


def test_hostile_questions_and_errors_are_shown_and_not_obeyed(
    online: Shell, server: FaultServer
) -> None:
    server.play("chatgpt", faults.bad_request(HOSTILE))
    failed = online("ask", HOSTILE, "-p", "chatgpt", "-v")
    server.play("chatgpt", faults.ok(HOSTILE))
    online("ask", HOSTILE, "-p", "chatgpt", "-c", "default")

    for words in READING:
        done = online(*words)
        assert not STEERING.search(done.out + done.err)
    assert "[red]" in online("history").out
    assert failed.code == 1
    assert "[red]" in failed.err
    assert not STEERING.search(failed.err)


@pytest.mark.parametrize(
    "words", [[HOSTILE], ["ask", "x", "-p", HOSTILE], ["ask", HOSTILE, HOSTILE]]
)
def test_hostile_arguments_are_shown_and_not_obeyed(shell: Shell, words: list[str]) -> None:
    done = shell(*words)

    assert not STEERING.search(done.out + done.err)


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=80))
def test_a_masked_key_shows_at_most_its_kind_and_its_last_four(key: str) -> None:
    shown = masked(Secret(key))

    assert shown in ("****", f"…{key[-4:]}", f"sk-…{key[-4:]}")
    assert len(key) >= 12 or shown == "****"


@pytest.mark.parametrize("words", [*READING, ("ask", "hi", "-v"), ("chat", "claude", "hi", "-v")])
def test_no_command_prints_a_key(
    online: Shell, server: FaultServer, words: tuple[str, ...]
) -> None:
    server.play("chatgpt", faults.auth())

    for more in ((), ("--json",)):
        done = online(*words, *more)
        assert KEY[:-4] not in done.out + done.err


def test_a_password_in_an_address_is_not_shown(shell: Shell) -> None:
    shell.set(LOCAL_BASE_URL="http://me:pass/word@127.0.0.1:1/v1")

    for words in (("providers",), ("providers", "--json")):
        assert "word@" not in shell(*words).out


# ── ask ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_answer_alone_is_on_stdout(online: Shell) -> None:
    assert online("ask", "hello") == Done(0, f"{CANONICAL}\n", "")


@pytest.mark.parametrize(("words", "piped"), [(["-"], True), ([], True), (["hello", "you"], False)])
def test_the_question_is_words_or_what_is_piped_in(
    online: Shell, server: FaultServer, words: list[str], piped: bool
) -> None:
    online("ask", *words, stdin="from the pipe\n" if piped else "")

    (call,) = server.calls("chatgpt")
    question = call.body["messages"][-1]["content"].strip()
    assert question == ("from the pipe" if piped else "hello you")


def test_words_and_what_is_piped_in_are_one_question(online: Shell, server: FaultServer) -> None:
    online("ask", "summarise", "this", "-", stdin="a text\nof two lines")

    (call,) = server.calls("chatgpt")
    assert call.body["messages"][-1]["content"] == "summarise this\n\na text\nof two lines"


def test_words_alone_leave_the_input_to_others(online: Shell, server: FaultServer) -> None:
    online("ask", "hello", stdin="the next line of a script")

    (call,) = server.calls("chatgpt")
    assert call.body["messages"][-1]["content"] == "hello"


def test_without_any_stdin_the_words_are_the_question(online: Shell) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -m zejzl ask hello <&-', sys.executable],
        cwd=online.folder,
        capture_output=True,
        text=True,
        check=True,
    )

    assert (done.stdout, done.stderr) == (f"{CANONICAL}\n", "")


def test_a_chat_without_any_stdin_says_what_to_do(online: Shell) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -m zejzl chat <&-', sys.executable],
        cwd=online.folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "a chat needs an input" in done.stderr


def test_options_reach_the_provider(online: Shell, server: FaultServer) -> None:
    how = ["-p", "claude", "-m", "big", "--system", "be brief", "--max-tokens", "7"]

    done = online("ask", "hello", *how, "--temperature", "0.5")

    call, longer = server.calls("claude")
    assert (call.model, call.max_tokens, longer.max_tokens) == ("big", 7, 8)
    assert (call.body["system"], call.body["temperature"]) == ("be brief", 0.5)
    assert "token limit" in done.err


def test_a_healed_answer_says_on_stderr_what_was_done(online: Shell, server: FaultServer) -> None:
    server.play("chatgpt", faults.rate_limited(30))

    done = online("ask", "hello")

    assert (done.code, done.out) == (0, f"{CANONICAL}\n")
    assert re.fullmatch(
        r"healed: chatgpt failed \(rate_limited\), failover → claude answered, [\d.]+ s in all\n",
        done.err,
    )


@pytest.mark.parametrize(
    ("option", "answers"),
    [([], False), (["--failover"], True), (["--failover=claude"], True)],
    ids=["pinned", "anybody", "named"],
)
def test_a_named_provider_is_alone_unless_failover_is_allowed(
    online: Shell, server: FaultServer, option: list[str], answers: bool
) -> None:
    server.play("chatgpt", faults.auth())

    done = online("ask", "-p", "chatgpt", *option, "hello")

    assert (done.code == 0) is answers
    assert len(server.calls("claude")) == answers


def test_with_no_key_the_answer_says_that_it_is_offline(shell: Shell) -> None:
    assert shell("ask", "hello").out.startswith("[offline]")


def test_a_stream_comes_piece_by_piece_and_whole(online: Shell) -> None:
    assert online("ask", "hello", "--stream").out == f"{CANONICAL}\n"


def test_a_stream_that_breaks_shows_what_came_and_fails(online: Shell, server: FaultServer) -> None:
    server.play("chatgpt", faults.cut(5))

    done = online("ask", "hello", "-p", "chatgpt", "--stream")

    assert done.code == 1
    assert done.out.endswith("\n") and CANONICAL.startswith(done.out.strip())
    assert "broke off" in done.err
    assert "shown above" in done.err


def test_ctrl_c_during_an_answer_leaves_politely(online: Shell, server: FaultServer) -> None:
    server.play("chatgpt", faults.silence())
    process = online.start("ask", "hello", "-p", "chatgpt", stdin=subprocess.DEVNULL)
    until(lambda: server.in_flight("chatgpt"))

    process.send_signal(signal.SIGINT)
    out, err = process.communicate()

    assert process.returncode == 130
    assert (out.strip(), err.strip()) == ("", "")
    until(lambda: server.calls("chatgpt")[0].hung_up)


# ── chat ─────────────────────────────────────────────────────────────────────────────────────────


def test_chat_with_a_text_answers_once(online: Shell, server: FaultServer) -> None:
    done = online("chat", "claude", "hello")

    assert done == Done(0, f"{CANONICAL}\n", "")
    assert len(server.calls("claude")) == 1


def test_piped_lines_are_one_conversation(online: Shell, server: FaultServer) -> None:
    done = online("chat", "chatgpt", stdin="first\n\n second\n/quit\nthird\n")

    assert done.out == f"{CANONICAL}\n" * 2
    first, second = server.calls("chatgpt")
    assert [turn["role"] for turn in second.body["messages"]] == ["user", "assistant", "user"]
    assert second.body["messages"][0] == first.body["messages"][0]


def test_commands_change_how_the_next_line_is_asked(online: Shell, server: FaultServer) -> None:
    lines = ["/provider claude", "/model big", "/system be brief", "one", "/new", "two"]

    done = online("chat", stdin="\n".join([*lines, "/system", "/model", "three"]))

    one, two, three = server.calls("claude")
    assert (one.model, one.body["system"]) == ("big", "be brief")
    assert len(two.body["messages"]) == 1  # of the new conversation
    assert len(three.body["messages"]) == 3
    assert "system" not in three.body and three.model != "big"
    assert "provider: claude\n" in done.out


def test_commands_that_tell_something(online: Shell) -> None:
    done = online("chat", stdin="hello\n/help\n/history\n/status\n/tokens\n")

    assert done.code == 0
    assert "/provider [NAME]" in done.out
    assert done.out.count(CANONICAL) == 2  # the answer, and the history
    assert re.search(r"^chatgpt +gpt-5-mini +closed", done.out, re.M)
    assert re.search(r"^\d+ tokens in 1 turn;", done.out, re.M)


def test_a_line_that_fails_ends_nothing_but_is_told_in_the_end(
    online: Shell, server: FaultServer
) -> None:
    done = online("chat", stdin="/fly\n/provider nobody\nhello\n")

    assert done.code == 2
    assert done.out == f"{CANONICAL}\n"
    assert "/fly" in done.err and "nobody" in done.err


def test_chat_in_json_is_the_list_of_replies(online: Shell) -> None:
    replies = online("chat", "--json", stdin="/status\nhello\nagain\n").json

    assert [reply["text"] for reply in replies] == [CANONICAL, CANONICAL]


def test_ctrl_c_stops_the_answer_and_not_the_chat(online: Shell, server: FaultServer) -> None:
    server.play("chatgpt", [faults.stall(3), faults.ok()])
    chat = Typing(online, "chat", "chatgpt")

    chat.read_until("you: ")
    chat.type("hello\n")
    chat.read_until("Rivers carry mountains")
    chat.press_ctrl_c()
    said = chat.read_until("you: ")
    chat.type("again\n")
    chat.read_until("harbours.")
    chat.read_until("you: ")
    chat.type("\x04")

    assert chat.end() == 0
    assert "Traceback" not in chat.seen
    assert "the half answer is dropped" in said
    _, second = server.calls("chatgpt")
    assert len(second.body["messages"]) == 1


def test_a_second_ctrl_c_at_the_prompt_leaves(shell: Shell) -> None:
    chat = Typing(shell, "chat")

    chat.read_until("you: ")
    chat.press_ctrl_c_until("(Ctrl-C again or Ctrl-D leaves)")
    with suppress(OSError):  # it has left
        chat.press_ctrl_c_until("nothing that it says")

    # On a slow machine it is pressed again while Python is already on its way out.
    assert chat.end() in (130, -signal.SIGINT)
    assert "Traceback" not in chat.seen


@pytest.mark.parametrize("asked", [False, True], ids=["at the prompt", "during an answer"])
def test_the_end_of_a_session_leaves_the_chat_at_once(
    online: Shell, server: FaultServer, asked: bool
) -> None:
    server.play("chatgpt", faults.silence())
    chat = Typing(online, "chat")
    chat.read_until("you: ")
    if asked:
        chat.type("hello\n")
        until(lambda: server.in_flight("chatgpt"))

    while chat.process.poll() is None:  # CPython may miss it right after its prompt
        chat.process.terminate()
        select.select([], [], [], 0.3)

    assert chat.end() == 143
    assert "Traceback" not in chat.seen
    assert "again or Ctrl-D" not in chat.seen


# ── What the database tells ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "words",
    [("status",), ("history",), ("heal",), ("rituals",), ("preferences",), ("costs",), ("parked",)],
)
def test_looking_makes_no_database(shell: Shell, words: tuple[str, ...]) -> None:
    assert shell(*words).code == 0
    assert not (shell.folder / "home").exists()


def test_status_before_any_bus_says_so(shell: Shell) -> None:
    assert "no bus has run yet" in shell("status").out
    assert shell("status", "--json").json["buses"] == []


def test_status_after_a_bus_ran_tells_when_and_what(online: Shell, server: FaultServer) -> None:
    server.play("chatgpt", faults.status(500))
    online("ask", "hello")
    server.play("claude", faults.auth())
    online("ask", "hello", "-p", "claude")

    done, found = online("status"), online("status", "--json").json

    assert re.search(r"no bus is running, last seen \d s ago", done.out)
    assert "1 answered, 1 failed" in done.out
    assert "as that bus last had them (it has ended)" in done.out
    assert "ai_provider" not in done.out + online("heal").out
    assert (found["running"], found["messages"]) == (False, {"failed": 1, "answered": 1})
    assert found["recoveries"]["helped"] == 1
    assert found["bytes"] > 0


def test_status_tells_of_a_rate_limit_that_holds_for_nobody(online: Shell) -> None:
    online.set(ZEJZL_RATE_LIMITS="claud=5, chatgpt=500")
    online("ask", "hello")

    done = online("status")

    assert re.search(r"rate limits of nobody: +claud: check their names\n", done.out)


def test_one_message_and_one_remedy_are_not_told_as_several(
    online: Shell, server: FaultServer
) -> None:
    server.play("chatgpt", [faults.overloaded(), faults.ok("well again")])
    online("ask", "hello", "-p", "chatgpt")

    done = online("status")

    assert re.search("^newest message: +1 answered$", done.out, re.M)
    assert re.search("^newest remedy: +1 helped; ", done.out, re.M)


def test_status_leaves_no_trace_of_its_own(shell: Shell) -> None:
    shell("ask", "hello")

    before = asyncio.run(snapshots(shell))
    shell("status")
    shell("providers")

    assert asyncio.run(snapshots(shell)) == before


async def snapshots(shell: Shell) -> list[object]:
    store = SqliteStore(shell.folder / "home/zejzl.db")
    await store.open()
    try:
        return [*await store.snapshots()]
    finally:
        await store.close()


def test_status_sees_a_bus_that_runs_and_one_that_died(shell: Shell) -> None:
    process = shell.start("chat")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("hello\n")
    process.stdin.flush()
    process.stdout.readline()

    running = shell("status")
    process.kill()
    process.communicate()
    dead = shell("status")

    assert running.out.startswith("a bus is running")
    assert "it has ended" not in running.out
    assert "the last one died" in dead.out


def test_history_shows_questions_and_answers_oldest_first(online: Shell) -> None:
    for question in ("first", "second"):
        online("ask", question, "-c", "default")
    online("ask", "elsewhere", "-c", "other")
    online("ask", "nowhere")

    shown, newest = online("history").out, online("history", "--limit", "1").out

    assert re.findall(r"^  (first|second|elsewhere|nowhere)$", shown, re.M) == ["first", "second"]
    assert "second" in newest and "first" not in newest
    assert "elsewhere" in online("history", "other").out
    assert len(online("history", "--all", "--json").json) == 4


def test_the_recovery_log_tells_what_failed_and_what_helped(
    online: Shell, server: FaultServer
) -> None:
    server.play("chatgpt", faults.rate_limited(30))
    online("ask", "hello")

    done, found = online("heal"), online("heal", "chatgpt", "--log", "--json").json

    assert "1 of 1 remedies helped (100%)" in done.out
    (record,) = found["recoveries"]
    assert (record["failure_class"], record["remedy"]) == ("rate_limited", "failover")
    assert found["success_rate"] == 1.0
    assert online("heal", "claude", "--log", "--json").json["recoveries"] == []


def test_what_a_killed_process_left_is_settled_once(online: Shell, server: FaultServer) -> None:
    server.play("chatgpt", faults.silence())
    process = online.start("ask", "hello", "-p", "chatgpt", stdin=subprocess.DEVNULL)
    until(lambda: server.in_flight("chatgpt"))
    process.kill()
    process.communicate()

    status = online("status").out
    (found,) = online("recover", "--json").json
    again = online("recover")

    assert found["maybe_duplicate"] is True
    assert found["message"]["content"] == "hello"
    assert "nothing was left in flight" in again.out
    assert re.search("^`.* recover --dry-run` shows", status, re.M)
    assert " recover " not in online("status").out


# ── Providers, health, default ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["providers", "list"])
def test_providers_shows_who_is_there_and_what_is_missing(online: Shell, name: str) -> None:
    done = online(name)

    assert re.search(r"^\* +chatgpt .* sk-…WXYZ ", done.out, re.M)
    assert re.search(r"^ +claude .* sk-…-too ", done.out, re.M)
    assert re.search(r"^ +gemini .* set GEMINI_API_KEY ", done.out, re.M)


def test_providers_in_json(online: Shell, server: FaultServer) -> None:
    found = {one["name"]: one for one in online("providers", "--json").json}

    assert found["chatgpt"]["default"] and found["chatgpt"]["registered"]
    assert found["claude"]["base_url"] == server.base_url("claude", "anthropic")
    assert not found["gemini"]["registered"]
    assert found["gemini"]["key_names"] == ["GEMINI_API_KEY"]


def test_health_is_well_when_everybody_answers(online: Shell, server: FaultServer) -> None:
    done = online("health")

    assert done.code == 0
    assert re.findall(r"^(\w+) +ok", done.out, re.M) == ["database", "chatgpt", "claude"]
    assert len(server.calls("chatgpt")) == len(server.calls("claude")) == 1


@pytest.mark.parametrize("words", [("health",), ("heal", "--probe")])
def test_one_that_does_not_answer_is_unhealthy(
    online: Shell, server: FaultServer, words: tuple[str, ...]
) -> None:
    server.play("claude", faults.auth())

    done = online(*words)

    assert done.code == 3
    assert re.search(r"^claude +failed .*401", done.out, re.M)


def test_one_left_out_of_failover_is_there_all_the_same(online: Shell, server: FaultServer) -> None:
    online.set(ZEJZL_FAILOVER="claude")

    providers, health, chat = online("providers"), online("health"), online("chat", "chatgpt", "hi")

    assert re.findall(r"^[* ] +(\w+) .*sk-…", providers.out, re.M) == ["claude", "chatgpt"]
    assert re.findall(r"^(\w+) +ok", health.out, re.M) == ["database", "claude", "chatgpt"]
    assert chat.out == f"{CANONICAL}\n"


def test_a_failover_that_names_nobody_can_be_looked_into(online: Shell) -> None:
    online.set(ZEJZL_FAILOVER="nobody")

    asked, providers = online("ask", "hello"), online("providers")

    assert asked.code == 2
    assert " providers` for who can be asked" in asked.err
    assert "chatgpt" in providers.out


def test_health_keeps_nothing_of_its_probes(online: Shell) -> None:
    online("health")

    assert online("history", "--all", "--json").json == []
    assert asyncio.run(snapshots(online)) == []


def test_health_without_a_key_says_that_nobody_is_asked(shell: Shell) -> None:
    done = shell("health")

    assert done.code == 0
    assert "No provider's key is set" in done.out
    assert "No provider's key" not in shell("health", "--no-providers").out


def test_health_without_providers_asks_nobody(online: Shell, server: FaultServer) -> None:
    assert online("health", "--no-providers").code == 0
    assert not server.log


def test_a_damaged_database_is_unhealthy(shell: Shell) -> None:
    (shell.folder / "home").mkdir()
    (shell.folder / "home/zejzl.db").write_bytes(b"this is no database" * 100)

    health, status = shell("health"), shell("status")

    assert health.code == 3
    assert status.code == 1
    assert "move it away" in status.err


def test_the_default_that_is_kept_is_asked_first(online: Shell, server: FaultServer) -> None:
    done = online("set-default", "Claude")
    online("ask", "hello")

    assert done.code == 0
    assert [call.provider for call in server.log] == ["claude"]
    assert re.search(r"^\* +claude", online("providers").out, re.M)


@pytest.mark.parametrize(
    ("name", "missing"), [("grok", "GROK_API_KEY or XAI_API_KEY"), ("local", "LOCAL_BASE_URL")]
)
def test_a_default_without_its_key_is_first_once_it_has_one(
    online: Shell, name: str, missing: str
) -> None:
    done = online("set-default", name)

    assert done == Done(0, f"{name} is asked first once {missing} is set\n", "")


def test_a_default_in_the_environment_wins_and_that_is_told(online: Shell) -> None:
    online.set(ZEJZL_DEFAULT_PROVIDER="chatgpt")

    done = online("set-default", "claude")

    assert "default_provider=chatgpt wins" in done.err
    assert re.search(r"^\* +chatgpt", online("providers").out, re.M)


def test_a_provider_of_ones_own_that_runs_can_be_the_default(shell: Shell) -> None:
    class Mine:
        name = "mine"

        async def generate_response(self, message: str, history: list[dict[str, str]]) -> str:
            return "mine"

    async def runs() -> None:
        async with AsyncMessageBus(Settings.from_env()) as bus:
            await bus.register_provider("mine", Mine())

    asyncio.run(runs())

    assert shell("set-default", "mine").code == 0


def test_the_seeds_way_in_is_the_same_command_line(shell: Shell) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "ai_framework.py"), "chat", "offline", "hello there"],
        capture_output=True,
        text=True,
        check=True,
        cwd=shell.folder,
    )

    assert done.stderr == ""
    assert done.stdout.startswith("[offline]") and "hello there" in done.stdout


def test_an_open_circuit_says_when_to_come_back() -> None:
    what, advice = explained(CircuitOpen("claude", 12.0))

    assert "12.0 s" in what
    assert advice == "  → try again later"


@pytest.mark.parametrize("kind", [CircuitOpen, Overloaded, Shielded])
def test_a_refusal_in_json_says_whose_for_how_long_and_why(kind: type[NotNow]) -> None:
    found = told(kind("claude", 3.5, "it is what it is"))

    assert found["type"] == kind.__name__
    assert (found["name"], found["retry_after"]) == ("claude", 3.5)
    assert found["reason"] == "it is what it is"
    assert found.get("last_error", "") == ""
    assert not [name for name in found if name.startswith("_")]


def test_a_failure_in_json_holds_what_json_can_say() -> None:
    forever = told(CircuitOpen("claude", float("inf")))
    unknown = told(NoSuchProvider("x", ("a", "b")))

    assert json.loads(json.dumps(forever, allow_nan=False))["retry_after"] is None
    assert (unknown["name"], unknown["known"]) == ("x", ("a", "b"))
