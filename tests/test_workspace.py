"""A workspace: hostile paths lead nowhere, and what is written is written whole."""

import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.agents.workspace import (
    LARGEST,
    OutOfBounds,
    ReadOnly,
    Workspace,
    WorkspaceBusy,
    checked_path,
)

HOSTILE = {
    "absolute": "/etc/passwd",
    "up": "../../etc/passwd",
    "up in the middle": "notes/../../x",
    "home": "~/.bashrc",
    "another user's home": "~root/x",
    "drive": "C:/x",
    "backslash": "..\\x",
    "hidden": ".env",
    "hidden folder": ".git/hooks/pre-commit",
    "newline": "a\nb",
    "null": "a\x00b",
    "right to left": "a\u202egnp.exe",
    "surrogate": "a\ud800",
    "long": "x" * 5_000,
    "long name": "x" * 255,
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    folder = tmp_path / "work"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    return Workspace(folder)


@pytest.mark.parametrize("path", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_path_is_refused_by_every_method(workspace: Workspace, path: str) -> None:
    for use in (workspace.read_bytes, workspace.remove, workspace.files, workspace.sweep):
        with pytest.raises(OutOfBounds):
            use(path)
    with pytest.raises(OutOfBounds):
        workspace.write_bytes(path, b"x")

    assert os.listdir(workspace.folder) == []


@given(st.text(st.sampled_from("./~\\ab: \n\x00é"), max_size=12))
def test_an_allowed_path_never_leads_up_or_away(text: str) -> None:
    try:
        path = checked_path(text)
    except OutOfBounds:
        return

    assert Path("/w", path).is_relative_to("/w")
    assert os.path.normpath(f"/w/{path}").startswith("/w")
    assert checked_path(path) == path
    assert not any(part.startswith((".", "~")) for part in path.split("/")[:1])


def test_a_path_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="a path is text"):
        checked_path(None)  # type: ignore[arg-type]


def test_what_was_written_is_read_back_in_folders_that_were_made(workspace: Workspace) -> None:
    workspace.write_bytes("a/b/c.txt", "häh".encode())
    workspace.write_bytes("a/b/c.txt", b"new")

    assert workspace.read_text("./a//b/c.txt") == "new"
    assert workspace.files() == ["a/b/c.txt"]
    assert os.listdir(workspace.folder / "a/b") == ["c.txt"]


@pytest.mark.parametrize("link", ["file.txt", "folder", "folder/inner.txt"])
def test_a_symbolic_link_is_not_followed(workspace: Workspace, tmp_path: Path, link: str) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away/inner.txt").write_text("away")
    (workspace.folder / "file.txt").symlink_to(tmp_path / "secret.txt")
    (workspace.folder / "folder").symlink_to(tmp_path / "away")

    with pytest.raises(OutOfBounds, match=r"link|regular"):
        workspace.write_bytes(link, b"x")
    with pytest.raises((OutOfBounds, OSError)):
        workspace.read_bytes(link)

    assert workspace.files() == []
    assert (tmp_path / "secret.txt").read_text() == "secret"
    assert (tmp_path / "away/inner.txt").read_text() == "away"


def test_a_link_within_the_workspace_is_no_way_either(workspace: Workspace) -> None:
    workspace.write_bytes("real.txt", b"x")
    (workspace.folder / "link.txt").symlink_to("real.txt")

    with pytest.raises(OutOfBounds, match="symbolic link"):
        workspace.read_bytes("link.txt")


def test_what_is_no_regular_file_is_not_read(workspace: Workspace) -> None:
    os.mkfifo(workspace.folder / "pipe")
    (workspace.folder / "folder").mkdir()

    for path in ("pipe", "folder"):
        with pytest.raises(OSError, match=rf"no regular file: '{path}'"):
            workspace.read_bytes(path)
    with pytest.raises(OutOfBounds, match="no regular file"):
        workspace.write_bytes("pipe", b"x")


def test_a_folder_cannot_be_written_over(workspace: Workspace) -> None:
    workspace.write_bytes("a/b.txt", b"x")

    with pytest.raises(OutOfBounds, match="no regular file"):
        workspace.write_bytes("a", b"x")


def test_too_much_is_neither_read_nor_written(workspace: Workspace) -> None:
    (workspace.folder / "big").write_bytes(b"x" * (LARGEST + 1))

    with pytest.raises(OSError, match="more than 1000000 bytes") as reading:
        workspace.read_bytes("big")
    with pytest.raises(OSError, match="more than 1000000 bytes"):
        workspace.write_bytes("new", b"x" * (LARGEST + 1))

    assert reading.value.errno == errno.EFBIG
    assert workspace.files() == ["big"]


def test_what_is_no_text_is_told_by_name(workspace: Workspace) -> None:
    workspace.write_bytes("a.bin", b"\xff\xfe")

    with pytest.raises(ValueError, match=r"a\.bin: it is no UTF-8 text"):
        workspace.read_text("a.bin")


def test_a_missing_file_is_named_as_it_was_asked_for(workspace: Workspace) -> None:
    with pytest.raises(FileNotFoundError, match=r"no/such\.txt"):
        workspace.read_bytes("no/such.txt")

    assert workspace.digest("no/such.txt") is None


def test_a_write_that_fails_leaves_what_was_there(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.write_bytes("a.txt", b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="full"):
        workspace.write_bytes("a.txt", b"new")

    assert workspace.read_text("a.txt") == "old"
    assert os.listdir(workspace.folder) == ["a.txt"]


def test_what_a_writer_that_died_left_is_swept_and_nothing_else(workspace: Workspace) -> None:
    others = (".b.txt.00112233.zejzl-part", ".a.txt.part", ".a.txt.movie.mp4.part", "a.txt")
    for name in (".a.txt.00112233.zejzl-part", *others):
        (workspace.folder / name).write_text("x")
    (workspace.folder / ".a.txt.44556677.zejzl-part").mkdir()

    workspace.sweep("a.txt")
    workspace.sweep("no/such")

    left = {*others, ".a.txt.44556677.zejzl-part"}
    assert set(os.listdir(workspace.folder)) == left


def test_a_file_that_is_gone_can_be_removed(workspace: Workspace) -> None:
    workspace.write_bytes("a.txt", b"x")

    workspace.remove("a.txt")
    workspace.remove("a.txt")

    assert workspace.files() == []


def test_names_that_no_plan_could_say_are_left_out_of_a_listing(workspace: Workspace) -> None:
    for name in ("fine.txt", ".hidden", "new\nline"):
        (workspace.folder / name).write_text("x")

    assert workspace.files() == ["fine.txt"]


def test_a_listing_has_a_limit(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zejzl.agents.workspace.MOST_FILES", 2)
    for name in "abc":
        workspace.write_bytes(name, b"x")

    with pytest.raises(OSError, match="more than 2 files"):
        workspace.files()


def test_the_workspace_itself_is_no_file(workspace: Workspace) -> None:
    for path in ("", ".", "./"):
        with pytest.raises(OutOfBounds, match="names no file"):
            workspace.write_bytes(path, b"x")


def test_a_workspace_is_a_folder_that_exists(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(NotADirectoryError):
        Workspace(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        Workspace(tmp_path / "missing")


def test_one_at_a_time_holds_the_lock(workspace: Workspace) -> None:
    stop = threading.Event()
    lock = workspace.lock(1.0, stop)

    with pytest.raises(WorkspaceBusy):
        Workspace(workspace.folder).lock(0.04, stop)
    workspace.unlock(lock)
    workspace.unlock(workspace.lock(0.0, stop))


def test_who_waits_for_the_lock_can_be_stopped(workspace: Workspace) -> None:
    stop = threading.Event()
    lock = workspace.lock(1.0, stop)
    stop.set()

    with pytest.raises(WorkspaceBusy):
        workspace.lock(1_000.0, stop)
    workspace.unlock(lock)


def test_a_file_that_is_replaced_is_for_the_same_eyes(workspace: Workspace) -> None:
    workspace.write_bytes("a.txt", b"old")
    (workspace.folder / "a.txt").chmod(0o600)

    workspace.write_bytes("a.txt", b"new")

    assert (workspace.folder / "a.txt").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_replaced_is_for_the_same_eyes_from_its_first_moment(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.write_bytes("a.txt", b"old")
    (workspace.folder / "a.txt").chmod(0o640)
    modes: list[int] = []
    change = os.fchmod

    def noted(file: int, mode: int) -> None:
        modes.append(os.fstat(file).st_mode & 0o777)
        change(file, mode)

    monkeypatch.setattr(os, "fchmod", noted)
    workspace.write_bytes("a.txt", b"new")

    assert modes == [0o600]


def test_a_folder_that_cannot_be_opened_hides_its_own_files_and_no_others(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("a.txt", "shut/b.txt", "z/c.txt"):
        workspace.write_bytes(path, b"x")
    opened = os.open

    def refusing(path: str, *arguments: object, **options: object) -> int:
        if path == "shut":
            raise PermissionError(errno.EACCES, "no", path)
        return opened(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)

    assert workspace.files() == ["a.txt", "z/c.txt"]


def test_a_workspace_for_reading_is_not_changed(workspace: Workspace) -> None:
    workspace.write_bytes("a.txt", b"x")
    reading = Workspace(workspace.folder, read_only=True)

    with pytest.raises(ReadOnly, match="only for reading"):
        reading.write_bytes("b.txt", b"y")
    with pytest.raises(ReadOnly, match="only for reading"):
        reading.remove("a.txt")

    assert reading.files() == ["a.txt"]
