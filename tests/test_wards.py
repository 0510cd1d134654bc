"""A guarded file is found out when it changes, and comes back as it was; nothing is ever lost."""

# ruff: noqa: ASYNC230, ASYNC240 - files are what this is about, and these are small

import asyncio
import errno
import hashlib
import itertools
import json
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.tree import SRC
from zejzl.errors import StoreTooNew
from zejzl.events import Event, GuardedFileChanged
from zejzl.magic.wards import CHUNK, Ward, Wards
from zejzl.stores import InMemoryStore
from zejzl.testing import FakeClock

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def listed(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return tmp_path / "state" / "guards"


@pytest.fixture
def wards(shelf: Path) -> Wards:
    return Wards(FakeClock(wall=NOON.timestamp()), shelf)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "deploy.toml"
    path.write_bytes(b"replicas = 3\n")
    return path


async def state(wards: Wards) -> list[str]:
    return [report.state for report in await wards.check()]


# Guarding -------------------------------------------------------------------------------------


async def test_a_guard_tells_what_it_keeps(wards: Wards, shelf: Path, file: Path) -> None:
    file.chmod(0o640)

    ward = await wards.guard(file)

    digest = sha256(b"replicas = 3\n")
    assert ward == Ward(
        path=file, sha256=digest, size=13, mode=0o640, copy=shelf / f"{digest}.copy", at=NOON
    )
    assert ward.copy.read_bytes() == b"replicas = 3\n"


async def test_what_is_kept_is_for_its_owner_only(wards: Wards, shelf: Path, file: Path) -> None:
    file.chmod(0o666)

    await wards.guard(str(file))

    assert shelf.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in shelf.iterdir()} == {0o600}


@pytest.mark.parametrize("size", [0, 1, CHUNK, 3 * CHUNK + 1], ids="{} bytes".format)
async def test_a_file_of_any_size_comes_back(wards: Wards, file: Path, size: int) -> None:
    content = os.urandom(size)
    file.write_bytes(content)

    ward = await wards.guard(file)
    file.unlink()

    assert (ward.size, ward.sha256) == (size, sha256(content))
    assert await wards.restore(file)
    assert file.read_bytes() == content


async def test_a_link_guards_what_it_leads_to(wards: Wards, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)

    ward = await wards.guard(link)
    file.write_bytes(b"replicas = 0\n")

    assert ward.path == file
    assert await wards.restore(link)
    assert (link.is_symlink(), file.read_bytes()) == (True, b"replicas = 3\n")


async def test_a_name_that_is_no_text_is_guarded_like_any_other(
    shelf: Path, tmp_path: Path
) -> None:
    heard: list[Event] = []
    file = tmp_path / os.fsdecode(b"\xff\n caf\xc3\xa9")
    file.write_bytes(b"x")

    await Wards(FakeClock(), shelf, heard.append).guard(file)
    file.write_bytes(b"y")
    later = Wards(FakeClock(), shelf, heard.append)

    assert [report.path for report in await later.check()] == [file]
    assert await later.restore(file)
    assert file.read_bytes() == b"x"
    store = InMemoryStore(clock=FakeClock())
    await store.open()
    await store.record(heard)  # it takes nothing that UTF-8 cannot hold


async def test_guarding_anew_takes_the_new_content_and_drops_the_old(
    wards: Wards, shelf: Path, file: Path
) -> None:
    old = await wards.guard(file)
    file.write_bytes(b"replicas = 4\n")

    new = await wards.guard(file)

    assert listed(shelf) == {"index.json", "lock", new.copy.name}
    assert new.copy != old.copy
    assert await state(wards) == ["intact"]


async def test_files_of_one_content_share_a_copy_until_the_last_is_forgotten(
    wards: Wards, file: Path, tmp_path: Path
) -> None:
    twin = tmp_path / "twin"
    twin.write_bytes(file.read_bytes())
    first, second = await wards.guard(file), await wards.guard(twin)

    await wards.forget(file)
    shared = second.copy.exists()
    await wards.forget(twin)

    assert first.copy == second.copy
    assert (shared, second.copy.exists()) == (True, False)
    assert await wards.check() == []


async def test_many_at_once_are_all_kept(shelf: Path, tmp_path: Path) -> None:
    # Two objects hold the lock as two processes would.
    one, other = Wards(FakeClock(), shelf), Wards(FakeClock(), shelf)
    files = [tmp_path / f"{number}" for number in range(20)]
    for path in files:
        path.write_text(path.name)

    await asyncio.gather(
        *(wards.guard(path) for path, wards in zip(files, [one, other] * 10, strict=True))
    )

    reports = await one.check()
    assert {report.path for report in reports} == {*files}
    assert {report.state for report in reports} == {"intact"}


async def test_a_caller_that_leaves_leaves_no_half_guard(
    wards: Wards, shelf: Path, file: Path
) -> None:
    task = asyncio.create_task(wards.guard(file))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    # The thread goes on; whoever comes next waits for it.
    ward = await wards.guard(file)
    assert await state(wards) == ["intact"]
    assert listed(shelf) == {"index.json", "lock", ward.copy.name}


# What cannot be guarded -----------------------------------------------------------------------


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (Path.mkdir, IsADirectoryError, "guard the files in it one by one"),
        (lambda path: None, FileNotFoundError, "No such file"),
        (make_pipe, OSError, "not a regular file"),
        (make_loop, OSError, "symbolic links"),
    ],
    ids=["a folder", "nothing", "a pipe", "a link to itself"],
)
async def test_what_is_no_file_is_refused_by_name(
    wards: Wards,
    shelf: Path,
    tmp_path: Path,
    make: Callable[[Path], None],
    error: type[OSError],
    words: str,
) -> None:
    make(tmp_path / "odd")

    with pytest.raises(error, match=words) as refused:
        await wards.guard(tmp_path / "odd")

    assert str(tmp_path / "odd") in str(refused.value)
    assert await wards.check() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_that_may_not_be_read_is_refused(wards: Wards, file: Path) -> None:
    file.chmod(0)

    with pytest.raises(PermissionError, match=r"deploy\.toml"):
        await wards.guard(file)


async def test_a_path_that_cannot_be_is_a_value_error(wards: Wards) -> None:
    with pytest.raises(ValueError, match="null"):
        await wards.guard("a\0b")


def meddle(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[int], None]) -> None:
    """Call `act` with 1, 2, … before each call of a function of os."""
    real = getattr(os, name)
    calls = itertools.count(1)

    def meddled(*arguments: object, **named: object) -> object:
        act(next(calls))
        return real(*arguments, **named)

    monkeypatch.setattr(os, name, meddled)


async def test_a_file_that_keeps_changing_is_refused_and_leaves_nothing(
    wards: Wards, shelf: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The copy is written out after the file was read and before the two are compared.
    def grow(call: int) -> None:
        file.write_bytes(b"x" * call)

    meddle(monkeypatch, "fsync", grow)

    with pytest.raises(OSError, match="keeps changing") as refused:
        await wards.guard(file)

    assert refused.value.errno == errno.EBUSY
    assert listed(shelf) == {"lock"}


def same_size(file: Path) -> None:
    file.write_bytes(b"replicas = 9\n")


def replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"replicas = 9\n")
    other.replace(file)


def replace_by_its_twin(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    other.replace(file)


@pytest.mark.parametrize("change", [same_size, replace, replace_by_its_twin])
async def test_a_file_that_changes_once_while_it_is_copied_is_copied_again(
    wards: Wards, file: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    meddle(monkeypatch, "fsync", lambda call: change(file) if call == 1 else None)

    ward = await wards.guard(file)

    assert ward.copy.read_bytes() == file.read_bytes()
    assert await state(wards) == ["intact"]


async def test_a_file_that_is_written_through_memory_is_copied_again(
    wards: Wards, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), 0) as memory:
        memory[0:1] = b"R"  # from here on its times need not tell

        def write(call: int) -> None:
            if call == 1:
                memory[11:12] = b"9"

        meddle(monkeypatch, "fsync", write)

        ward = await wards.guard(file)

    assert ward.copy.read_bytes() == b"Replicas = 9\n"
    assert await state(wards) == ["intact"]


async def test_permissions_are_those_of_the_moment_that_was_copied(
    wards: Wards, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.chmod(0o644)
    meddle(monkeypatch, "fsync", lambda call: file.chmod(0o600) if call == 1 else None)

    ward = await wards.guard(file)

    assert ward.mode == 0o600


# Checking -------------------------------------------------------------------------------------


def swap_for_link(file: Path) -> None:
    twin = file.with_name("twin")
    twin.write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(twin)


def swap_for_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def swap_for_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "inside").write_bytes(b"kept")


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (lambda file: None, "intact"),
        (lambda file: os.utime(file, (1, 1)), "intact"),
        (lambda file: file.write_bytes(b"replicas = 0\n"), "changed"),
        (lambda file: file.write_bytes(b""), "changed"),
        (swap_for_link, "changed"),
        (swap_for_pipe, "changed"),
        (swap_for_folder, "changed"),
        (lambda file: file.unlink(), "missing"),
    ],
    ids=["nothing", "its time", "content", "emptied", "a link", "a pipe", "a folder", "deleted"],
)
async def test_a_check_tells_what_became_of_a_file(
    shelf: Path, wards: Wards, file: Path, tamper: Callable[[Path], None], expected: str
) -> None:
    await wards.guard(file)

    tamper(file)

    # Also in a later process.
    for each in (wards, Wards(FakeClock(), shelf)):
        (report,) = await each.check()
        assert (report.path, report.state, report.mendable) == (file, expected, True)
        assert (report.found == report.sha256) == (expected == "intact")


@pytest.mark.parametrize(
    "spoil",
    [lambda copy: copy.unlink(), lambda copy: copy.write_bytes(b"replicas = 0\n")],
    ids=["gone", "altered"],
)
async def test_a_damaged_copy_is_reported_and_mended_by_guarding_again(
    wards: Wards, file: Path, spoil: Callable[[Path], None]
) -> None:
    ward = await wards.guard(file)

    spoil(ward.copy)
    (damaged,) = await wards.check()
    await wards.guard(file)
    (mended,) = await wards.check()

    assert (damaged.state, damaged.mendable) == ("copy damaged", False)
    assert (mended.state, mended.mendable) == ("intact", True)


async def test_a_file_that_is_changed_and_cannot_be_mended_is_told_as_such(
    wards: Wards, file: Path
) -> None:
    ward = await wards.guard(file)
    ward.copy.unlink()
    file.write_bytes(b"bad")

    (report,) = await wards.check()

    assert (report.state, report.found, report.mendable) == ("changed", sha256(b"bad"), False)


@pytest.mark.parametrize("swap", [swap_for_link, swap_for_pipe])
async def test_a_file_that_is_swapped_while_it_is_opened_is_neither_followed_nor_waited_for(
    wards: Wards, file: Path, monkeypatch: pytest.MonkeyPatch, swap: Callable[[Path], None]
) -> None:
    really = os.open

    def swapping(path: str, *how: int) -> int:
        if path == str(file):
            swap(file)
        return really(path, *how)

    await wards.guard(file)
    monkeypatch.setattr(os, "open", swapping)

    assert await state(wards) == ["changed"]


async def test_reports_are_sorted_by_path(wards: Wards, tmp_path: Path) -> None:
    for name in ("b", "c", "a"):
        (tmp_path / name).write_text(name)
        await wards.guard(tmp_path / name)

    assert [report.path.name for report in await wards.check()] == ["a", "b", "c"]


async def test_a_folder_stays_the_same_when_the_working_folder_changes(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wards = Wards(FakeClock(), Path("state"))
    await wards.guard("deploy.toml")
    monkeypatch.chdir("/")

    assert await state(wards) == ["intact"]


async def test_where_nothing_is_guarded_a_check_makes_nothing(wards: Wards, shelf: Path) -> None:
    assert await wards.check() == []
    assert not shelf.exists()


# Restoring ------------------------------------------------------------------------------------


async def test_a_tampered_file_comes_back_and_what_was_there_is_kept(
    wards: Wards, file: Path, tmp_path: Path
) -> None:
    file.chmod(0o640)
    await wards.guard(file)

    for bad in (b"one", b"two"):
        file.write_bytes(bad)
        file.chmod(0o777)
        assert await wards.restore(file)

    assert file.read_bytes() == b"replicas = 3\n"
    assert file.stat().st_mode & 0o7777 == 0o640
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("*.tampered-*")}
    assert kept == {"deploy.toml.tampered-1": b"one", "deploy.toml.tampered-2": b"two"}
    assert await state(wards) == ["intact"]


async def test_a_restored_file_does_not_run_as_whoever_restored_it(
    wards: Wards, file: Path
) -> None:
    file.chmod(0o4755)
    await wards.guard(file)
    file.unlink()

    await wards.restore(file)

    assert file.stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("swap", [swap_for_link, swap_for_pipe, swap_for_folder])
async def test_whatever_took_a_files_place_makes_way_and_is_kept(
    wards: Wards, file: Path, swap: Callable[[Path], None]
) -> None:
    await wards.guard(file)
    swap(file)
    before = os.lstat(file)

    assert await wards.restore(file)

    assert (file.is_symlink(), file.read_bytes()) == (False, b"replicas = 3\n")
    kept = os.lstat(file.with_name("deploy.toml.tampered-1"))
    assert (kept.st_ino, kept.st_mode) == (before.st_ino, before.st_mode)


async def test_a_deleted_file_comes_back_with_its_folder(wards: Wards, tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "file"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    await wards.guard(file)
    file.unlink()
    file.parent.rmdir()

    assert await wards.restore(file)
    assert file.read_bytes() == b"x"
    assert listed(file.parent) == {"file"}


async def test_an_intact_file_is_left_alone(wards: Wards, file: Path, tmp_path: Path) -> None:
    ward = await wards.guard(file)
    ward.copy.unlink()
    before = file.stat()

    assert await wards.restore(file)

    assert file.stat().st_ino == before.st_ino
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert not list(tmp_path.glob("*.tampered-*"))


@pytest.mark.parametrize(
    "spoil",
    [lambda copy: copy.unlink(), lambda copy: copy.write_bytes(b"replicas = 666\n")],
    ids=["gone", "altered"],
)
async def test_a_damaged_copy_is_never_put_in_a_files_place(
    wards: Wards, file: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    ward = await wards.guard(file)
    spoil(ward.copy)
    file.write_bytes(b"replicas = 0\n")

    assert await wards.restore(file) is False

    assert file.read_bytes() == b"replicas = 0\n"
    assert listed(tmp_path) == {"deploy.toml", "state"}


async def test_what_a_disk_wrote_wrongly_is_never_put_in_a_files_place(
    wards: Wards, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def garble(call: int) -> None:
        (part,) = tmp_path.glob(".*.part")
        part.write_bytes(b"replicas = 666\n")

    await wards.guard(file)
    file.write_bytes(b"replicas = 0\n")
    meddle(monkeypatch, "fsync", garble)

    assert await wards.restore(file) is False

    assert file.read_bytes() == b"replicas = 0\n"
    assert listed(tmp_path) == {"deploy.toml", "state"}


async def test_where_somebody_else_keeps_a_tampered_file_too_both_are_kept(
    wards: Wards, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_faster(call: int) -> None:
        if call == 1:
            file.with_name("deploy.toml.tampered-1").write_bytes(b"theirs")

    await wards.guard(file)
    file.write_bytes(b"bad")
    meddle(monkeypatch, "link", be_faster)

    assert await wards.restore(file)
    assert file.with_name("deploy.toml.tampered-1").read_bytes() == b"theirs"
    assert file.with_name("deploy.toml.tampered-2").read_bytes() == b"bad"


async def test_where_links_cannot_be_made_the_tampered_file_is_kept_all_the_same(
    wards: Wards, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(call: int) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    await wards.guard(file)
    file.write_bytes(b"bad")
    meddle(monkeypatch, "link", refused)

    assert await wards.restore(file)
    assert file.read_bytes() == b"replicas = 3\n"
    assert file.with_name("deploy.toml.tampered-1").read_bytes() == b"bad"


async def test_a_tampered_files_path_is_never_empty(
    wards: Wards, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = []
    await wards.guard(file)
    file.write_bytes(b"bad")
    meddle(monkeypatch, "replace", lambda call: there.append(file.exists()))

    await wards.restore(file)

    assert there == [True]


@pytest.mark.parametrize("known", ["other", "nowhere/at/all", "deploy.toml/inside"])
async def test_a_path_that_is_not_guarded_is_refused_by_name(
    wards: Wards, file: Path, tmp_path: Path, known: str
) -> None:
    await wards.guard(file)

    for act in (wards.restore, wards.forget):
        with pytest.raises(ValueError, match=f"{known} is not guarded"):
            await act(tmp_path / known)


async def test_what_was_forgotten_is_not_guarded(wards: Wards, file: Path) -> None:
    await wards.guard(file)
    await wards.forget(file)
    file.write_bytes(b"changed")

    with pytest.raises(ValueError, match="not guarded"):
        await wards.restore(file)

    assert await wards.check() == []


# Without a folder of its own ------------------------------------------------------------------


async def test_without_a_folder_the_copy_lies_beside_the_file_and_is_found_later(
    file: Path, tmp_path: Path
) -> None:
    first = Wards(FakeClock(), None)
    ward = await first.guard(file)
    file.write_bytes(b"bad")

    later = Wards(FakeClock(), None)
    unseen = await later.check()
    restored = await later.restore(file)

    assert ward.copy.parent == tmp_path / ".wards"
    assert ward.copy.parent.stat().st_mode & 0o777 == 0o700
    assert (unseen, restored, file.read_bytes()) == ([], True, b"replicas = 3\n")
    assert (await state(first), await state(later)) == (["intact"], ["intact"])


async def test_without_a_folder_asking_makes_none(tmp_path: Path) -> None:
    wards = Wards(FakeClock(), None)

    with pytest.raises(ValueError, match="not guarded"):
        await wards.restore(tmp_path / "file")

    assert listed(tmp_path) == set()


# Full disks, dying processes, damage ----------------------------------------------------------


def no_room(at: int) -> Callable[[int], None]:
    def act(call: int) -> None:
        if call == at:
            raise OSError(errno.ENOSPC, "No space left on device")

    return act


@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_a_disk_that_is_full_leaves_the_old_guard_and_no_half_copy(
    wards: Wards, shelf: Path, file: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    old = await wards.guard(file)
    file.write_bytes(b"replicas = 4\n")

    with monkeypatch.context() as patched:
        meddle(patched, "fsync", no_room(at))
        try:
            kept = await wards.guard(file)
        except OSError as full:
            assert full.errno == errno.ENOSPC
            kept = old

    assert listed(shelf) == {"index.json", "lock", kept.copy.name}
    (report,) = await wards.check()
    assert (report.sha256, report.mendable) == (kept.sha256, True)


@pytest.mark.parametrize("at", [1, 2])
async def test_a_disk_that_is_full_leaves_the_tampered_file_or_the_restored_one(
    wards: Wards, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    await wards.guard(file)
    file.write_bytes(b"bad")

    with monkeypatch.context() as patched:
        meddle(patched, "fsync", no_room(at))
        try:
            assert await wards.restore(file)
            expected = {"deploy.toml": b"replicas = 3\n", "deploy.toml.tampered-1": b"bad"}
        except OSError:
            expected = {"deploy.toml": b"bad"}

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == (
        expected
    )


DYING = """
import asyncio, os, sys
from pathlib import Path
from zejzl.magic.wards import Wards
from zejzl.testing import FakeClock

shelf, file, what, last = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
calls = 0

def dying(real):
    def call(*arguments, **named):
        global calls
        calls += 1
        if calls == last:
            os._exit(9)
        return real(*arguments, **named)
    return call

for name in ("fsync", "replace", "link", "unlink", "chmod"):
    setattr(os, name, dying(getattr(os, name)))
asyncio.run(getattr(Wards(FakeClock(), shelf), what)(file))
"""


def die(shelf: Path, file: Path, what: str, last: int) -> bool:
    """Do `what` in a process that dies at its `last` change of the disk; False: it had fewer."""
    command = [sys.executable, "-B", "-c", DYING, str(shelf), str(file), what, str(last)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(SRC)}, capture_output=True, check=False
    )
    assert done.returncode in (0, 9), done.stderr.decode()
    return done.returncode == 9


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_process_that_dies_anywhere_in_guarding_leaves_the_old_guard_or_the_new(
    wards: Wards, shelf: Path, file: Path
) -> None:
    contents = [b"old", b"new"]
    file.write_bytes(b"old")
    await wards.guard(file)
    file.write_bytes(b"new")
    last = 1

    while die(shelf, file, "guard", last):
        (report,) = await Wards(FakeClock(), shelf).check()
        assert report.mendable
        assert report.sha256 in map(sha256, contents)
        assert listed(shelf) == {"index.json", "lock", f"{report.sha256}.copy"}
        last += 1

    assert last > 4
    assert await state(wards) == ["intact"]


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_process_that_dies_anywhere_in_restoring_loses_neither_file(
    wards: Wards, shelf: Path, file: Path, tmp_path: Path
) -> None:
    await wards.guard(file)
    last = 1

    file.write_bytes(b"bad")
    while die(shelf, file, "restore", last):
        there = {path.read_bytes() for path in tmp_path.glob("deploy.toml*")}
        assert file.read_bytes() in (b"bad", b"replicas = 3\n")
        assert b"bad" in there
        file.write_bytes(b"bad")
        last += 1

    assert last > 3
    assert file.read_bytes() == b"replicas = 3\n"
    assert all(name.startswith("deploy.toml") for name in listed(tmp_path) - {"state"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"v": 1}',
        '{"v": 1, "wards": [{"path": "x"}]}',
        '{"v": 1, "wards": 3}',
    ],
)
async def test_a_damaged_index_is_named_and_nothing_is_thrown_away(
    wards: Wards, shelf: Path, file: Path, text: str
) -> None:
    await wards.guard(file)
    (shelf / "index.json").write_text(text)
    before = listed(shelf)

    for act in (wards.check(), wards.guard(file), wards.restore(file), wards.forget(file)):
        with pytest.raises(
            ValueError, match=r"index\.json cannot be read .* guard the files again"
        ):
            await act

    assert listed(shelf) == before


async def test_an_index_of_a_newer_version_is_left_alone(
    wards: Wards, shelf: Path, file: Path
) -> None:
    ward = await wards.guard(file)
    newer = json.dumps({"v": 2, "guards": {}})
    (shelf / "index.json").write_text(newer)

    with pytest.raises(StoreTooNew, match="version 2"):
        await wards.guard(file)

    assert (shelf / "index.json").read_text() == newer
    assert ward.copy.exists()


async def test_only_what_is_ours_is_swept(file: Path, tmp_path: Path) -> None:
    shared = Wards(FakeClock(), tmp_path)
    ours = ["new.part", f"{'0' * 64}.copy"]
    others = ["letter.copy", "old.part", f"{'z' * 64}.copy", "index.json.bak"]
    for name in (*ours, *others):
        (tmp_path / name).write_bytes(b"x")

    ward = await shared.guard(file)

    assert listed(tmp_path) == {*others, "deploy.toml", "index.json", "lock", ward.copy.name}


# What is told ---------------------------------------------------------------------------------


async def test_every_change_of_state_is_told_once(shelf: Path, file: Path) -> None:
    heard: list[Event] = []
    clock = FakeClock(wall=NOON.timestamp())
    wards = Wards(clock, shelf, heard.append)

    await wards.guard(file)
    await wards.check()
    file.write_bytes(b"bad")
    await wards.check()
    await wards.check()
    await wards.restore(file)
    await wards.check()
    file.write_bytes(b"replicas = 4\n")
    await wards.guard(file)
    await wards.forget(file)

    told = [event for event in heard if isinstance(event, GuardedFileChanged)]
    assert [(event.before, event.after, event.reason) for event in told] == [
        ("unguarded", "intact", "guarded"),
        ("intact", "changed", "checked"),
        ("changed", "intact", "restored; what was there is now deploy.toml.tampered-1"),
        ("intact", "intact", "guarded anew"),
        ("intact", "unguarded", "forgotten"),
    ]
    assert {(event.path, event.timestamp) for event in told} == {(str(file), NOON)}
    assert told[0].sha256 == sha256(b"replicas = 3\n")


# The whole, against a model -------------------------------------------------------------------


class Guarding(RuleBasedStateMachine):
    """Any sequence of acts on two files agrees with a dictionary."""

    names = st.sampled_from(["a", "b"])
    contents = st.sampled_from([b"", b"1", b"2"])

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.home = Path(self.folder.name).resolve()
        self.there: dict[str, bytes] = {}
        self.guarded: dict[str, bytes] = {}
        self.aside: list[bytes] = []
        self.restart()

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule()
    def restart(self) -> None:
        self.wards = Wards(FakeClock(), self.home / "state")

    @rule(name=names, content=contents)
    def write(self, name: str, content: bytes) -> None:
        (self.home / name).write_bytes(content)
        self.there[name] = content

    @rule(name=names)
    def delete(self, name: str) -> None:
        (self.home / name).unlink(missing_ok=True)
        self.there.pop(name, None)

    @precondition(lambda self: self.there)
    @rule(name=names)
    def guard(self, name: str) -> None:
        if name in self.there:
            asyncio.run(self.wards.guard(self.home / name))
            self.guarded[name] = self.there[name]

    @precondition(lambda self: self.guarded)
    @rule(name=names)
    def restore(self, name: str) -> None:
        if name in self.guarded:
            assert asyncio.run(self.wards.restore(self.home / name))
            if self.there.get(name, self.guarded[name]) != self.guarded[name]:
                self.aside.append(self.there[name])
            self.there[name] = self.guarded[name]

    @precondition(lambda self: self.guarded)
    @rule(name=names)
    def forget(self, name: str) -> None:
        if name in self.guarded:
            asyncio.run(self.wards.forget(self.home / name))
            del self.guarded[name]

    @invariant()
    def agrees(self) -> None:
        found = {report.path.name: report.state for report in asyncio.run(self.wards.check())}
        kept = [path.read_bytes() for path in self.home.glob("*.tampered-*")]
        copies = [path.read_bytes() for path in self.home.glob("state/*.copy")]
        assert found == {
            name: "missing"
            if name not in self.there
            else ("intact" if self.there[name] == content else "changed")
            for name, content in self.guarded.items()
        }
        assert sorted(kept) == sorted(self.aside)
        assert sorted(copies) == sorted({*self.guarded.values()})
        for name, content in self.there.items():
            assert (self.home / name).read_bytes() == content


TestGuarding = Guarding.TestCase
TestGuarding.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
