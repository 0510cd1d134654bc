"""ObserverAgent: what it gathers is there; what it could not read is said, with why."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from ai_framework import AsyncMessageBus
from tests.driving import make_bus
from zejzl.agents import files as reading_files
from zejzl.agents.files import Reading, decoded, fits, gather
from zejzl.agents.memory import MemoryAgent
from zejzl.agents.observer import ObserverAgent
from zejzl.clock import Clock
from zejzl.errors import StoreError
from zejzl.events import BudgetRestored, utc
from zejzl.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(wall=1_700_000_000.0)


@pytest.fixture
async def bus(clock: FakeClock) -> AsyncIterator[AsyncMessageBus]:
    async with make_bus(clock) as bus:
        yield bus


async def seen(task: Any, **settings: Any) -> dict[str, Any]:
    """Return the data of an observation."""
    observation: dict[str, Any] = await ObserverAgent(**settings).observe(task)
    data: dict[str, Any] = observation["data"]
    return data


def put(folder: Path, **contents: str | bytes) -> None:
    for name, content in contents.items():
        path = folder / name.replace("__", "/")
        path = path.with_name(path.name.replace("_", "."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def paths(data: dict[str, Any], root: Path) -> list[str]:
    return [str(Path(each["path"]).relative_to(root)) for each in data["files"]]


NULL = "embedded null"


def why(unread: dict[str, str]) -> str:
    """Return why something was not read; of a null in a name, what all Pythons say of it."""
    return NULL if NULL in unread["why"] else unread["why"]


def reasons(data: dict[str, Any]) -> dict[str, str]:
    """Return why what was not read, by the last part of its name."""
    return {each["what"].rpartition("/")[2]: why(each) for each in data["unread"]}


async def test_observer_agent(tmp_path: Path, clock: FakeClock) -> None:
    put(tmp_path, a_txt="hello", sub__b_md="# world", sub__c_bin=b"\x00\x01")
    task = {"task": "count the words", "folder": tmp_path, "files": [str(tmp_path / "none.txt")]}

    observation = await ObserverAgent(clock=clock).observe(task)

    assert observation == {
        "task": "count the words",
        "timestamp": "2023-11-14T22:13:20+00:00",
        "data": {
            "text": "count the words",
            "files": [
                {"path": f"{tmp_path}/a.txt", "text": "hello", "encoding": "utf-8", "bytes": 5},
                {"path": f"{tmp_path}/sub/b.md", "text": "# world", "encoding": "utf-8",
                 "bytes": 7},
            ],
            "unread": [
                {"what": f"{tmp_path}/none.txt", "why": "No such file or directory"},
                {"what": f"{tmp_path}/sub/c.bin", "why": "binary, not text"},
            ],
        },
    }  # fmt: skip


async def test_a_task_may_be_words_alone() -> None:
    assert await seen("say hello") == {"text": "say hello", "unread": []}
    assert await seen({"task": "sum up", "text": "a long text"}) == {
        "text": "a long text",
        "unread": [],
    }


@pytest.mark.parametrize(
    ("task", "error", "problem"),
    [
        (7, TypeError, "text or a mapping, not int"),
        (["a"], TypeError, "text or a mapping, not list"),
        ({"file": "a"}, ValueError, "has no file; it may have task, text, files"),
        ({"task": 7}, TypeError, "task must be text, not int"),
        ({"files": 7}, TypeError, "files must be a list, not int"),
        ({"files": b"a"}, TypeError, "files must be a list, not bytes"),
        ({"files": [7]}, TypeError, "files must hold text, not int"),
        ({"folder": 7}, TypeError, "folder must hold text, not int"),
    ],
)
async def test_what_is_no_task_is_refused(task: Any, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        await ObserverAgent().observe(task)


@pytest.mark.parametrize(
    "wrong", [{"largest": 0}, {"total": 0}, {"most_files": 0}, {"seconds": 0.0}]
)
def test_limits_are_positive(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        ObserverAgent(**wrong)


async def test_an_observation_is_told_and_remembered_under_its_conversation(
    tmp_path: Path, clock: FakeClock
) -> None:
    put(tmp_path, a_txt="hello", b_bin=b"\0")
    observer = ObserverAgent(clock=clock)
    observer.memory = memory = MemoryAgent()

    await observer.observe({"task": "look", "folder": str(tmp_path)}, conversation_id="c")

    (event,) = await memory.recall(conversation_id="c", type="observation")
    assert event["data"] == {
        "task": "look",
        "gathered": {"files": 1},
        "unread": [{"what": f"{tmp_path}/b.bin", "why": "binary, not text"}],
    }
    assert (event["agent"], event["duration_ms"]) == ("observer", 0.0)


# Encodings


@pytest.mark.parametrize(
    ("content", "text", "encoding"),
    [
        (b"", "", "utf-8"),
        ("naïve 👍".encode(), "naïve 👍", "utf-8"),
        ("naïve".encode("utf-8-sig"), "naïve", "utf-8-sig"),
        ("naïve".encode("utf-16"), "naïve", "utf-16"),
        ("\ufeffnaïve".encode("utf-16-be"), "naïve", "utf-16"),
        ("naïve".encode("utf-32"), "naïve", "utf-32"),
        ("\ufeffnaïve".encode("utf-32-be"), "naïve", "utf-32"),
        ("naïve\n".encode("latin-1"), "naïve\n", "latin-1"),
        (b"\x1b[1mbold\x1b[0m", "\x1b[1mbold\x1b[0m", "utf-8"),
    ],
    ids=["empty", "utf-8", "its mark", "utf-16", "big", "utf-32", "its big", "latin-1", "escapes"],
)
def test_text_is_read_as_it_is_encoded(content: bytes, text: str, encoding: str) -> None:
    assert decoded(content) == (text, encoding)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x00", "binary"),
        (b"text with a \x00 in it", "binary"),
        (b"\x89PNG\r\n\x1a\n", "binary"),
        (b"\xff\xfea", "not utf-16, as its mark says"),
        (b"\xef\xbb\xbf\xff", "not utf-8-sig, as its mark says"),
    ],
)
def test_what_is_no_text_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decoded(content)


@given(st.binary())
def test_whatever_is_read_can_be_written_as_utf_8(content: bytes) -> None:
    try:
        text, _ = decoded(content)
    except ValueError:
        return

    assert text.encode() is not None


# Folders


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("*.txt", ["a.txt"]),
        ("**/*.txt", ["a.txt", "sub/b.txt", "sub/deep/c.txt"]),
        ("sub/*", ["sub/b.txt"]),
        ("sub/**/*", ["sub/b.txt", "sub/deep/c.txt"]),
        ("**/deep/*", ["sub/deep/c.txt"]),
        ("**", ["a.txt", "d.md", "sub/b.txt", "sub/deep/c.txt"]),
        ("[ad].*", ["a.txt", "d.md"]),
        ("?.md", ["d.md"]),
        (".hidden/*", [".hidden/e.txt"]),
        (["*.md", "**/c.*"], ["d.md", "sub/deep/c.txt"]),
        ("none", []),
    ],
    ids=str,
)
async def test_a_glob_finds_what_it_says(
    tmp_path: Path, glob: str | list[str], found: list[str]
) -> None:
    put(tmp_path, a_txt="a", sub__b_txt="b", sub__deep__c_txt="c", d_md="d")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden/e.txt").write_text("e")

    data = await seen({"folder": tmp_path, "glob": glob})

    assert paths(data, tmp_path) == found
    assert data["unread"] == []


@pytest.mark.parametrize("glob", ["../*", "/etc/*", "a/../../*"])
async def test_a_glob_stays_in_its_folder(tmp_path: Path, glob: str) -> None:
    put(tmp_path, out_txt="out", sub__in_txt="in")

    data = await seen({"folder": tmp_path / "sub", "glob": glob})

    assert (data["files"], data["unread"][0]["what"]) == ([], glob)


def test_many_stars_take_no_time() -> None:
    assert not fits(["a"] * 500, ["**", "a"] * 100 + ["b"])


async def test_a_link_leads_nowhere_outside_of_the_folder(tmp_path: Path) -> None:
    put(tmp_path, secret_txt="secret", sub__a_txt="a")
    sub = tmp_path / "sub"
    (sub / "within").symlink_to(sub / "a.txt")
    (sub / "out").symlink_to(tmp_path / "secret.txt")
    (sub / "up").symlink_to(tmp_path)
    (sub / "loop").symlink_to(sub / "loop")
    (sub / "self").symlink_to(sub)
    (sub / "broken").symlink_to(sub / "none")

    data = await seen({"folder": sub})

    assert [each["text"] for each in data["files"]] == ["a"], "once, whatever it is called"
    assert set(reasons(data)) == {"out", "up", "loop", "self", "broken"}
    assert set(reasons(data).values()) == {"a link that leads to no file in the folder"}


async def test_a_link_that_may_not_be_followed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, a_txt="a")
    (tmp_path / "link").symlink_to("a.txt")
    usual = os.path.realpath

    def secretive(path: str, **more: Any) -> str:
        if path.endswith("link"):  # as /proc does with another user's process
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return usual(path, **more)

    monkeypatch.setattr(os.path, "realpath", secretive)
    data = await seen({"folder": tmp_path})

    assert paths(data, tmp_path) == ["a.txt"]
    assert reasons(data) == {"link": "a link that leads to no file in the folder"}


async def test_a_folder_that_is_a_link_is_looked_through(tmp_path: Path) -> None:
    put(tmp_path, sub__a_txt="a")
    (tmp_path / "link").symlink_to(tmp_path / "sub")

    data = await seen({"folder": tmp_path / "link"})

    assert paths(data, tmp_path) == ["link/a.txt"]


async def test_what_is_no_file_is_told_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        names = ["pipe", "folder", "socket", "loop", "a\0b", "x" * 300]
        files = ["/dev/zero", "", *(str(tmp_path / name) for name in names)]

        data = await seen({"files": files})

    assert data["files"] == []
    assert [why(each) for each in data["unread"]] == [
        "a device, not a file",
        "No such file or directory",
        "a pipe, not a file",
        "a folder, not a file",
        "a socket, not a file",
        os.strerror(errno.ELOOP),
        NULL,
        "File name too long",
    ]


async def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    put(tmp_path, a_txt="a")

    none = await seen({"folder": tmp_path / "none"})
    file = await seen({"folder": tmp_path / "a.txt"})
    odd = await seen({"folder": "a\0b"})

    assert reasons(none) == {"none": "No such file or directory"}
    assert reasons(file) == {"a.txt": "Not a directory"}
    assert reasons(odd) == {"a\0b": NULL}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    put(tmp_path, a_txt="a", sub__b_txt="b")
    (tmp_path / "a.txt").chmod(0)
    (tmp_path / "sub").chmod(0)

    data = await seen({"folder": tmp_path})

    (tmp_path / "sub").chmod(0o700)
    assert reasons(data) == {"a.txt": "Permission denied", "sub": "Permission denied"}


async def test_what_fails_while_it_is_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, gone_txt="a", swapped_txt="b", late_txt="c")
    usual = os.open

    def moody(path: str, flags: int, *rest: Any, **more: Any) -> int:
        if path.endswith("gone.txt"):
            os.unlink(path)
        if path.endswith("swapped.txt"):
            return usual("/dev/null", flags)
        if path.endswith("late.txt"):
            os.unlink(path)
            os.mkfifo(path)
        return usual(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", moody)
    data = await seen({"folder": tmp_path})

    assert reasons(data) == {
        "gone.txt": "No such file or directory",
        "late.txt": "a pipe, not a file",
        "swapped.txt": "a device, not a file",
    }


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
async def test_a_file_that_says_it_is_empty_and_is_not_is_read_up_to_the_limit() -> None:
    data = await seen({"files": ["/proc/self/status", "/proc/self/mem"]})
    small = await seen({"files": ["/proc/self/status"]}, largest=10)

    assert data["files"][0]["text"].startswith("Name:")
    assert reasons(data) == {"mem": os.strerror(errno.EIO)}
    assert reasons(small) == {"status": "more than 10 bytes"}


async def test_a_file_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    put(tmp_path, a_txt="x" * 10, b_txt="x" * 11)

    data = await seen({"folder": tmp_path}, largest=10)

    assert paths(data, tmp_path) == ["a.txt"]
    assert reasons(data) == {"b.txt": "11 bytes; 10 are the most"}


async def test_all_files_together_have_a_limit(tmp_path: Path) -> None:
    put(tmp_path, a_txt="x" * 10, b_txt="x" * 10, c_txt="x" * 5, d_txt="x" * 20)

    data = await seen({"folder": tmp_path}, largest=10, total=16)

    assert paths(data, tmp_path) == ["a.txt", "c.txt"]
    assert reasons(data) == {
        "b.txt": "the observation is full: it has room for 6 more bytes",
        "d.txt": "20 bytes; 10 are the most",
    }


async def test_only_so_many_files_are_read_and_the_rest_is_counted(tmp_path: Path) -> None:
    put(tmp_path, **{f"f{n}_txt": "x" for n in range(5)})

    data = await seen({"folder": tmp_path}, most_files=2)

    assert paths(data, tmp_path) == ["f0.txt", "f1.txt"]
    assert data["unread"] == [{"what": "further files", "why": "3 of them: 2 are the most"}]


def test_of_very_much_that_cannot_be_read_the_rest_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_files, "MOST_UNREAD", 2)
    reading = Reading(10, 10, 10)

    gather(reading, ["/none/a", "/none/b", "/none/\ud83d", "/none/d"], None, ())

    told = reading.told()
    assert [each["what"] for each in told] == ["/none/a", "/none/b", "…"]
    assert told[-1]["why"] == "2 more could not be read"


async def test_a_name_that_is_no_utf_8_is_shown_with_marks(tmp_path: Path) -> None:
    (tmp_path / "\udcff.txt").write_text("x")  # as Python spells the byte 0xff

    data = await seen({"folder": tmp_path})

    assert paths(data, tmp_path) == ["?.txt"]


async def test_a_folder_without_end_is_left_at_some_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, a__b__c__d_txt="x", z_txt="z")

    monkeypatch.setattr(reading_files, "MOST_DEPTH", 2)
    deep = await seen({"folder": tmp_path})
    monkeypatch.setattr(reading_files, "MOST_ENTRIES", 2)
    wide = await seen({"folder": tmp_path})

    assert paths(deep, tmp_path) == ["z.txt"]
    assert reasons(deep) == {"b": "more than 2 folders deep"}
    assert paths(wide, tmp_path) == ["z.txt"]
    assert reasons(wide) == {"a": "more than 2 names; the rest is not looked at"}


# Pages

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def site(**pages: Page) -> AsyncIterator[str]:
    """Serve pages on loopback; yield the address before their names."""
    app = web.Application()
    for name, page in pages.items():
        app.router.add_get(f"/{name}", page)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        place = web.TCPSite(runner, "127.0.0.1", 0)
        await place.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def answer(content: bytes, type: str = "text/plain", **more: Any) -> Page:
    async def page(request: web.Request) -> web.Response:
        return web.Response(body=content, headers={"Content-Type": type}, **more)

    return page


def redirect(target: str) -> Page:
    async def page(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": target})

    return page


async def test_a_page_is_fetched_where_that_is_allowed() -> None:
    async with site(a=answer("naïve".encode()), b=redirect("/a")) as base:
        data = await seen({"urls": [f"{base}/a", f"{base}/b"]}, urls=True)
        forbidden = await seen({"urls": f"{base}/a"})

    page = {"status": 200, "type": "text/plain", "text": "naïve", "encoding": "utf-8", "bytes": 6}
    assert data["urls"] == [{"url": f"{base}/a", **page}, {"url": f"{base}/b", **page}]
    assert data["unread"] == []
    assert forbidden["urls"] == []
    assert "are not fetched" in reasons(forbidden)["a"]


@pytest.mark.parametrize(
    ("content", "type", "text", "encoding"),
    [
        ("naïve".encode("cp1252"), "text/html; charset=windows-1252", "naïve", "cp1252"),
        ("naïve".encode(), "text/html; charset=nonsense", "naïve", "utf-8"),
        ("naïve".encode(), "text/html; charset=ascii", "naïve", "utf-8"),
        (b"a", "text/html; charset=punycode", "a", "utf-8"),
        (b"a", "text/html; charset=base64", "a", "utf-8"),
        (rb"a\n", "text/html; charset=unicode-escape", r"a\n", "utf-8"),
        (rb"\u0061", "text/html; charset=raw-unicode-escape", r"\u0061", "utf-8"),
        ("naïve".encode("utf-16"), "text/html", "naïve", "utf-16"),
    ],
    ids=["as it says", "unknown", "wrong", "slow", "no text", "escapes", "raw escapes", "mark"],
)
async def test_a_page_is_text_as_its_server_says_or_as_it_looks(
    content: bytes, type: str, text: str, encoding: str
) -> None:
    async with site(a=answer(content, type)) as base:
        data = await seen({"urls": [f"{base}/a"]}, urls=True)

    assert (data["urls"][0]["text"], data["urls"][0]["encoding"]) == (text, encoding)


async def test_a_page_that_cannot_be_had_is_told() -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with site(
        missing=answer(b"no", status=404),
        picture=answer(b"\x89PNG\0"),
        large=answer(b"x" * 101),
        endless=redirect("/endless"),
        file=redirect("file:///etc/passwd"),
        nowhere=answer(b"moved", status=302),
        broken=broken,
    ) as base:
        names = ["missing", "picture", "large", "endless", "file", "nowhere", "broken"]
        data = await seen({"urls": [f"{base}/{name}" for name in names]}, urls=True, largest=100)

    why = reasons(data)
    assert data["urls"] == []
    assert why["missing"] == "the server says 404"
    assert why["picture"] == "binary, not text"
    assert why["large"] == "more than 100 bytes"
    assert why["endless"] == "more than 3 redirects"
    assert "file:///etc/passwd" in why["file"]
    assert why["nowhere"] == "the server says 302"
    assert "disconnected" in why["broken"].lower()


async def test_a_small_answer_that_holds_a_large_page_is_left() -> None:
    async def packed(request: web.Request) -> web.StreamResponse:
        response = web.Response(body=b"x" * 5_000_000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with site(packed=packed) as base:
        data = await seen({"urls": [f"{base}/packed"]}, urls=True)

    assert reasons(data) == {"packed": "more than 1000000 bytes"}


@pytest.mark.parametrize(
    ("url", "shown", "why"),
    [
        ("file:///etc/passwd", "file:///etc/passwd", "not an address that begins"),
        ("ftp://host/a", "ftp://host/a", "not an address that begins"),
        ("", "", "not an address that begins"),
        ("http://", "http://", "not an address that begins"),
        ("http://[::1", "http://[::1", "not an address: Invalid IPv6"),
        ("http://me:secret@host/", "http://…@host", "with a password is not asked"),
        ("http://127.0.0.1:1/", "http://127.0.0.1:1/", "Cannot connect"),
        ("http://127.0.0.1:99999/", "http://127.0.0.1:99999/", ""),
    ],
)
async def test_an_address_that_is_none_is_told(url: str, shown: str, why: str) -> None:
    data = await seen({"urls": [url]}, urls=True)

    assert data["urls"] == []
    assert data["unread"][0]["what"] == shown
    assert why in data["unread"][0]["why"]


async def test_a_page_has_a_time_limit(clock: FakeClock) -> None:
    asked = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody waits")

    async with site(slow=slow) as base:
        task = asyncio.create_task(seen({"urls": [f"{base}/slow"]}, urls=True, clock=clock))
        await asked.wait()
        await clock.advance(10.0)
        data = await task

    assert reasons(data) == {"slow": "no whole answer within 10 s"}


# The bus


async def test_the_buss_status_and_events_are_seen(bus: AsyncMessageBus) -> None:
    await bus.store.record([BudgetRestored(amount=1.0, reason="by hand", timestamp=utc(0.0))])

    data = await seen("look", bus=bus)

    assert data["bus"]["providers"] == bus.providers
    assert data["bus"]["magic"]["energy_level"] == 100.0
    assert [event["reason"] for event in data["events"]] == ["by hand"]
    assert data["unread"] == []


async def test_a_store_that_does_not_answer_is_told(
    bus: AsyncMessageBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(**_: object) -> list[object]:
        raise StoreError("the disk is gone")

    monkeypatch.setattr(bus.store, "events", broken)
    data = await seen("look", bus=bus)

    assert (data["events"], reasons(data)) == ([], {"the bus's recent events": "the disk is gone"})


async def test_an_observer_goes_by_the_clock_it_is_given(clock: Clock) -> None:
    observation = await ObserverAgent(clock=clock).observe("x")

    assert observation["timestamp"] == "2023-11-14T22:13:20+00:00"
