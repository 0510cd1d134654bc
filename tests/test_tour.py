"""The tour as a newcomer takes it: piped, on a terminal, narrow, without colours, without a net."""

import asyncio
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.shell import HOSTILE, KEY, STEERING, Shell, Typing
from tests.tree import ROOT, python
from zejzl.cli.tour import NAMES, TOPICS, wanted
from zejzl.cli.tour import system as machine
from zejzl.cli.tour.quickstart import NEXT
from zejzl.engine import tokens as vocabulary
from zejzl.settings import Settings
from zejzl.stores.connection import APPLICATION_ID


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    made = Shell(tmp_path, monkeypatch, capsys)
    yield made
    made.end()


# All of it -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_tour_shows_every_topic_in_order_and_leaves_nothing_behind(shell: Shell) -> None:
    before = set(Path("/tmp").glob("zejzl-tour-*"))

    done = shell("tour")

    headings = [f"\n{number}  {name}: " for number, name in enumerate(NAMES[:-1], 1)]
    places = [done.out.index(heading) for heading in headings]
    assert done.code == 0
    assert places == sorted(places)
    assert not list(shell.folder.iterdir())
    assert set(Path("/tmp").glob("zejzl-tour-*")) == before
    assert "\x1b" not in done.out


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_for_programs_the_whole_tour_is_one_value(shell: Shell) -> None:
    found = shell("tour", "--json").json

    assert list(found) == list(NAMES[:-1])
    assert found["tokens"]["ids"][0] == 976
    assert found["pantheon"]["status"] == "completed"
    assert len(found["pantheon"]["steps"]) == 9
    on, off = found["performance"]["healing on"], found["performance"]["healing off"]
    assert on["answered"] == 1.0 > off["answered"]
    assert min(on["per_second"], off["per_second"], on["p50_ms"], off["p95_ms"]) > 0
    assert found["system"]["packages"]["zejzl"] != "missing"
    assert any(command.endswith(" chat") for command in found["quickstart"])


def test_topics_are_visited_once_and_in_the_tours_order() -> None:
    assert wanted(["system", "tokens", "system"]) == ["tokens", "system"]
    assert wanted(["quickstart", "all"]) == list(NAMES[:-1])


@pytest.mark.parametrize("asked", ["5", "quickstart", " QuickStart "])
def test_a_topic_is_called_by_its_number_or_name(shell: Shell, asked: str) -> None:
    done = shell("tour", "--topic", asked)

    assert done.code == 0
    assert "5  quickstart" in done.out
    assert "tokens:" not in done.out


@pytest.mark.parametrize(
    ("asked", "said"),
    [("sistem", "did you mean system?"), ("0", "known: 1 to 6"), ("9", "known: 1 to 6")],
)
def test_an_unknown_topic_is_told_with_the_nearest_known_one(
    shell: Shell, asked: str, said: str
) -> None:
    done = shell("tour", "--topic", asked)

    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["-i", "--topic", "1"], ["-i", "--json"], ["--text", " "]], ids=" ".join
)
def test_what_does_not_go_together_is_refused(shell: Shell, words: list[str]) -> None:
    assert shell("tour", *words).code == 2


def test_what_fails_is_told_and_the_rest_is_shown(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(settings: Settings) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(machine, "look", full)
    words = ["tour", "-t", "system", "-t", "5"]

    done, programs = shell(*words), shell(*words, "--json")

    assert (done.code, programs.code) == (1, 1)
    assert done.err.count("no space left on device") == 1
    assert "In your own program" in done.out
    assert programs.json["system"]["error"]["type"] == "OSError"
    assert any(command.endswith(" chat") for command in programs.json["quickstart"])


def test_where_nothing_can_be_written_counts_are_exact_all_the_same(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    monkeypatch.setattr(vocabulary, "_encoding", vocabulary._encoding.__wrapped__)

    done = shell("tour", "-t", "tokens", "-t", "pantheon", "-t", "system")

    assert done.code == 1
    assert done.err.count("no usable temporary directory") == 1
    assert "976 4853" in done.out
    assert "zejzl.db, not made yet" in done.out


# This machine ----------------------------------------------------------------------------------


async def test_the_system_is_looked_at_and_no_key_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: Shell
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    found = await machine.look(Settings.from_env())

    (chatgpt,) = [one for one in found.providers if one.name == "chatgpt"]
    assert (chatgpt.registered, chatgpt.key) == (True, "sk-…WXYZ")
    assert KEY not in repr(found)
    assert found.database_bytes is None
    assert not (tmp_path / "home").exists()


async def test_a_redis_that_answers_is_found_and_one_that_is_silent_is_not_waited_for() -> None:
    left = asyncio.Queue[None]()

    async def pong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline() == b"PING\r\n":
            writer.write(b"-NOAUTH\r\n")
        await silent(reader, writer)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.put_nowait(None)

    said = []
    for serve in (pong, silent):
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        said.append(await machine._redis(f"redis://:secret@127.0.0.1:{port}/0"))
        await left.get()
        server.close()

    assert said[0].startswith("answers at 127.0.0.1:")
    assert said[1].startswith("none at 127.0.0.1:")
    assert "secret" not in "".join(said)
    assert await machine._redis("redis://host:port") == "REDIS_URL is no address"


async def test_a_slow_name_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answered = threading.Event(), threading.Event()

    def slow(*where: object, **how: object) -> None:
        asked.set()
        answered.wait(15.0)
        raise OSError

    monkeypatch.setattr("socket.getaddrinfo", slow)

    said = await machine._redis("redis://redis.example")

    assert asked.is_set()
    assert said.startswith("none at redis.example:6379")
    answered.set()


async def test_the_users_database_is_neither_opened_nor_migrated(tmp_path: Path) -> None:
    database = tmp_path / "zejzl.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    before = database.read_bytes()

    found = await machine.look(Settings(home=tmp_path))

    assert found.database_bytes == len(before)
    assert found.trouble == []
    assert database.read_bytes() == before
    assert os.listdir(tmp_path) == [database.name]


async def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "zejzl.db").write_text("a diary")

    (said,) = (await machine.look(Settings(home=tmp_path))).trouble

    assert "is no database" in said


def test_a_package_that_is_missing_is_told_with_the_command_that_adds_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = machine._version
    monkeypatch.setattr(machine, "_version", lambda n: "missing" if n == "rich" else there(n))

    assert "missing: rich: ./start.sh --setup" in shell("tour", "-t", "system").out


def test_what_adds_the_local_provider_is_its_address(shell: Shell) -> None:
    done = shell("tour", "-t", "system")

    assert "LOCAL_BASE_URL" in done.out
    assert "LOCAL_API_KEY" not in done.out


@pytest.mark.parametrize(
    ("mode", "said"),
    [(0o600, "for its owner only"), (0o644, "chmod 600 .env")],
    ids=["ours", "everybodys"],
)
def test_who_may_read_the_keys_is_told(shell: Shell, mode: int, said: str) -> None:
    (shell.folder / ".env").write_text("")
    (shell.folder / ".env").chmod(mode)

    assert said in shell("tour", "--topic", "system").out


def test_an_env_that_is_a_folder_is_told() -> None:
    assert machine._env_file(Path("/")) == "is a folder, and is not read"


def test_what_is_missing_is_told_with_the_command_that_adds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "_version", lambda name: "missing")
    remedies = {name: machine._remedy(name, needs) for name, needs in machine.EXTRAS.items()}
    monkeypatch.setattr(machine, "ROOT", Path("/nowhere"))
    elsewhere = machine._remedy("local", machine.EXTRAS["local"])

    assert remedies["learn"] == "./start.sh --setup learn"
    assert elsewhere.startswith("pip install 'zejzl[local]' && pip install --no-deps")


# By hand ---------------------------------------------------------------------------------------


def test_piped_choices_are_taken_and_the_end_of_them_is_a_goodbye(shell: Shell) -> None:
    done = shell("tour", "--interactive", stdin="quickstart\nnonsense\n5\n")

    assert done.code == 0
    assert done.out.count("In your own program") == 2
    assert "no topic 'nonsense'" in done.out
    assert done.out.endswith("Goodbye.\n")


def test_what_is_typed_to_steer_the_terminal_is_shown(shell: Shell) -> None:
    done = shell("tour", "-i", stdin=f"{HOSTILE}\nq\n")

    assert not STEERING.search(done.out)


def test_on_a_terminal_topics_are_chosen_and_ctrl_c_leaves_politely(shell: Shell) -> None:
    typing = Typing(shell, "tour", "-i")
    typing.read_until("which?")
    typing.type("1\n")
    typing.read_until("a text of yours")
    typing.type("hello world\n")
    shown = typing.read_until("which?")
    typing.press_ctrl_c_until("Goodbye.")

    assert "24912 2375" in shown
    assert typing.end() == 130


def test_a_terminal_of_forty_columns_has_room_for_it(shell: Shell) -> None:
    shell.set(COLUMNS="40", TERM="xterm")
    typing = Typing(shell, "tour", "-t", "1", "-t", "4")
    code = typing.end()

    shown = "".join(re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", typing.seen))
    long = [row for row in shown.replace("\r", "\n").split("\n") if cell_len(row) > 40]
    assert code == 0
    assert "38;5" in typing.seen or "\x1b[3" in typing.seen
    assert [row for row in long if " " in row.strip()] == []


def test_no_colours_are_used_where_they_are_not_wanted(shell: Shell) -> None:
    for words, env in ((["--plain"], {}), ([], {"NO_COLOR": "1"})):
        shell.set(TERM="xterm", **env)
        typing = Typing(shell, "tour", "-t", "1", *words)
        typing.end()

        assert "\x1b[3" not in typing.seen
        assert "|The| quick|" in typing.seen


def test_being_terminated_at_the_menu_is_told_as_such(shell: Shell) -> None:
    typing = Typing(shell, "tour", "-i")
    typing.read_until("which?")
    typing.process.terminate()
    typing.read_until("Goodbye.")

    assert typing.end() == 143


def test_a_topic_that_fails_is_told_and_the_menu_goes_on(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(settings: Settings) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(machine, "look", full)

    done = shell("tour", "-i", stdin="system\n5\n")

    assert "no space left on device" in done.err
    assert "In your own program" in done.out


def test_a_vocabulary_that_nobody_put_there_is_gone_afterwards(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = shell.folder / "tmp"
    place.mkdir()
    process = shell.start("tour", "-t", "1", env=os.environ | {"TMPDIR": str(place)})
    shown, _ = process.communicate()

    assert "976 4853" in shown
    assert list(place.iterdir()) == []


def test_the_task_of_the_quick_start_needs_no_model(shell: Shell) -> None:
    (shell.folder / "docs").mkdir()
    (shell.folder / "docs" / "one.txt").write_text("one two")
    (command,) = [each for each in NEXT if each.startswith("pantheon")]

    assert shell(*shlex.split(command)).code == 0


# The door --------------------------------------------------------------------------------------


def test_the_door_is_the_tour(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ZEJZL_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "token_haze.py"), "--topic", "5", "--json"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )

    assert list(json.loads(done.stdout)) == ["quickstart"]


def test_in_a_bare_clone_the_door_says_how_to_get_in(tmp_path: Path) -> None:
    done = python(str(ROOT / "token_haze.py"), cwd=tmp_path)

    assert done.returncode != 0
    assert "./start.sh" in done.stderr


def test_every_topic_says_what_it_shows() -> None:
    assert len(TOPICS) == 6
    assert all(TOPICS.values())
