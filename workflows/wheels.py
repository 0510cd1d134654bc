"""A wheel: built from what is committed, looked into, installed in a venv, and tried there."""

import base64
import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from workflows.steps import SHOWN_LINES, Failed, Workflow, run

TOPS = {"zejzl", "ai_framework.py"}  # what a wheel holds beside its metadata
PATIENCE = 120.0  # seconds for one command of a smoke test
OUTSIDE = re.compile(r"^(ZEJZL_|PYTHON|VIRTUAL_ENV$|PIP_TARGET$|NO_COLOR$|FORCE_COLOR$)|_API_KEY$")
ADDRESSES = re.compile(r"_(BASE_URL|MODEL)$")

MIGRATE = """
import asyncio, sys
from zejzl.stores import SqliteStore
async def migrate(path):
    store = SqliteStore(path)
    await store.open()
    await store.close()
asyncio.run(migrate(sys.argv[1]))
"""


@dataclass(frozen=True, slots=True)
class Commit:
    """What is deployed: HEAD, and how many files differ from it."""

    id: str
    epoch: int
    uncommitted: int


def head(root: Path) -> Commit:
    """Return what HEAD is.

    Raises:
        Failed: If that cannot be told; says why.
    """
    try:
        prefix = _git(root, "rev-parse", "--show-prefix")
    except FileNotFoundError:
        raise Failed(
            "git is not installed, and a release is built from a commit; apt install git"
        ) from None
    except subprocess.CalledProcessError as exc:
        raise Failed(
            f"{root} is no git repository that can be read, and a release is built from a commit "
            f"({exc.stderr.strip()})"
        ) from None
    if prefix:
        raise Failed(f"{root} lies in a git repository but is not its top: what is its commit?")
    try:
        commit, epoch = _git(root, "log", "-1", "--format=%H %ct", "HEAD").split()
    except subprocess.CalledProcessError:
        raise Failed(f"{root} has no commit yet: `git commit` first") from None
    changed = _git(root, "status", "--porcelain").splitlines()
    return Commit(commit, int(epoch), len(changed))


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def build(flow: Workflow, commit: Commit, folder: Path) -> Path:
    """Build the wheel from a clean copy of the commit; return it, with constraints.txt beside."""
    missing = [name for name in ("build", "hatchling") if find_spec(name) is None]
    if "build" in missing:
        raise Failed("the package build is not installed; ./orchestrate.sh setup installs it")
    with TemporaryDirectory(dir=folder, prefix="source-") as name:
        source = Path(name)
        archive = source / "head.tar"
        command(flow, ["git", "archive", "--format=tar", f"--output={archive}", commit.id])
        with tarfile.open(archive) as tar:
            # Of our own making; Python 3.11.0 to 3.11.3 know no filters yet.
            safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(source / "tree", **safe)  # type: ignore[arg-type]
        isolated = ["--no-isolation"] if not missing else []  # so that it needs no network
        words = [sys.executable, "-m", "build", "--wheel", *isolated, "--outdir", str(folder)]
        env = {
            **_clean(),
            "SOURCE_DATE_EPOCH": str(commit.epoch),
        }  # the same commit, the same wheel
        command(flow, [*words, str(source / "tree")], env=env)
        pins = source / "tree" / "constraints.txt"
        if pins.exists():
            pins.replace(folder / "constraints.txt")
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise Failed(f"the build left {len(wheels)} wheels, not one")
    return wheels[0]


def look_into(wheel: Path) -> str:
    """Return the version of a wheel that is whole and holds what it must, and no more.

    Raises:
        Failed: If it does not.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        info = next((name for name in names if name.endswith(".dist-info/RECORD")), None)
        if info is None:
            raise Failed(f"{wheel.name} has no RECORD")
        for name, digest, _ in csv.reader(io.StringIO(archive.read(info).decode())):
            if digest and digest != f"sha256={_short_digest(archive.read(name))}":
                raise Failed(f"{wheel.name}: {name} is not what RECORD says")
        folder = info.partition("/")[0]
        facts = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())
    tops = {name.partition("/")[0] for name in names} - {folder}
    if tops != TOPS:
        raise Failed(f"{wheel.name} holds {', '.join(sorted(tops))}, not {', '.join(sorted(TOPS))}")
    if not any(re.fullmatch(r"zejzl/stores/schema/\d{3}_\w+\.sql", name) for name in names):
        raise Failed(f"{wheel.name} holds no tables of the store (zejzl/stores/schema)")
    if facts["Name"] != "zejzl" or not wheel.name.startswith(f"zejzl-{facts['Version']}-"):
        raise Failed(f"{wheel.name} says it is {facts['Name']} {facts['Version']}")
    return str(facts["Version"])


def _short_digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def digest(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def install(
    flow: Workflow, wheel: Path, venv: Path, *, reuse: bool = False, find_links: Path | None = None
) -> None:
    """Make a venv and install the wheel in it, with the dependencies of constraints.txt.

    Args:
        reuse: The dependencies are those of the environment this runs in, through a .pth file.
        find_links: A folder of wheels to take the dependencies from; then no index is asked.
    """
    command(flow, [sys.executable, "-m", "venv", "--without-pip", str(venv)])
    python = str(venv / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    words = [*pip, "--python", python, "install", "--quiet"]
    pins = wheel.with_name("constraints.txt")
    if pins.exists():
        words += ["--constraint", str(pins)]
    if reuse:
        words += ["--no-deps", "--no-index"]
        place = sysconfig.get_path("purelib", vars={"base": str(venv), "platbase": str(venv)})
        (Path(place) / "reused.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    elif find_links is not None:
        words += ["--no-index", "--find-links", str(find_links.absolute())]
    try:
        command(flow, [*words, str(wheel)], env=_clean())
    except Failed as exc:
        raise Failed(
            f"{exc}\n           The dependencies come from an index, from --find-links FOLDER "
            "(`pip download -c constraints.txt WHEEL` fills one), or are shared: "
            "--reuse-environment"
        ) from None


def try_out(zejzl: Path, version: str) -> None:
    """Have a release say its version and answer, without keys and without its store.

    Raises:
        Failed: If it does not.
    """
    with TemporaryDirectory(prefix="zejzl-smoke-") as name:
        home = Path(name)
        said = asked(zejzl, "--version", home=home).stdout.strip()
        if said != f"zejzl {version}":
            raise Failed(f"`zejzl --version` says {said!r}, not 'zejzl {version}'")
        answer = _json(asked(zejzl, "ask", "--json", "are you there?", home=home), "ask")
        if answer.get("provider") != "offline" or not answer.get("text"):
            raise Failed("`zejzl ask` had no answer of the offline provider")


def store_state(zejzl: Path, home: Path) -> dict[str, Any]:
    """Return what a release says of the store in a folder; `problems` tells what is wrong."""
    return _json(asked(zejzl, "store", "check", "--json", home=home, codes=(0, 3)), "store check")


def store_done(zejzl: Path, home: Path, *words: str) -> dict[str, Any]:
    """Have a release do something with the store in a folder; return what came of it."""
    return _json(asked(zejzl, "store", *words, "--json", home=home), f"store {words[0]}")


def migrate(zejzl: Path, database: Path) -> None:
    """Have a release bring a store up to date."""
    asked(zejzl.with_name("python"), "-c", MIGRATE, str(database), home=database.parent)


def asked(
    program: Path, *words: str, home: Path, codes: tuple[int, ...] = (0,)
) -> "subprocess.CompletedProcess[str]":
    """Run a release's program, with none of this process's keys and settings.

    Raises:
        Failed: If it does not run, takes too long, or ends with a code that is not among `codes`.
    """
    shown = f"`{program.name} {' '.join(words[:2])}`"
    with TemporaryDirectory(prefix="zejzl-away-") as away:  # where no .env lies
        try:
            done = subprocess.run(
                [str(program), *words],
                cwd=away,
                env={**_clean(), "ZEJZL_HOME": str(home)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PATIENCE,
                check=False,
            )
        except OSError as exc:
            raise Failed(f"{program} cannot be run: {exc.strerror}") from exc
        except subprocess.TimeoutExpired:
            raise Failed(f"{shown} did not end within {PATIENCE:g} s") from None
    if done.returncode not in codes:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise Failed(f"{shown} ended with {done.returncode}: {' '.join(last)}")
    return done


def command(flow: Workflow, words: list[str], *, env: dict[str, str] | None = None) -> None:
    """Run a command line in the project's folder; its output goes to the log.

    Raises:
        Failed: If its exit code is not 0, with its last lines.
    """
    lines: list[str] = []

    def told(line: str) -> None:
        lines.append(line)
        flow.note(line)

    flow.note(f"$ {' '.join(words)}")
    try:
        code = run(words, flow.root, told, env=env)
    except OSError as exc:
        raise Failed(f"{words[0]} cannot be run: {exc.strerror}") from exc
    if code:
        last = "".join(f"\n           | {line}" for line in lines[-SHOWN_LINES:])
        raise Failed(f"exit code {code}: {' '.join(words[:4])} …{last}")


def _json(done: "subprocess.CompletedProcess[str]", what: str) -> dict[str, Any]:
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Failed(f"`zejzl {what} --json` printed no JSON")
    return found


def _clean() -> dict[str, str]:
    """Return the environment without settings, keys and addresses: a test must cost nothing."""
    return {
        name: value
        for name, value in os.environ.items()
        if not OUTSIDE.search(name) and not ADDRESSES.search(name)
    }
