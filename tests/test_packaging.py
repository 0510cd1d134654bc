"""The wheel holds the package and the roof beam, and nothing that would be in a host's way."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.tree import ROOT, SRC, label, listed


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in a wheel built from this tree."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        return archive.namelist()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_holds_the_package_and_the_bus_only(wheel: list[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"zejzl", "ai_framework.py"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_holds_everything_the_package_needs(wheel: list[str]) -> None:
    needed = {
        path.relative_to(SRC).as_posix() for path in listed() if path.is_relative_to(SRC / "zejzl")
    }

    assert needed - {*wheel} == set()
    assert "zejzl/py.typed" in wheel
    assert any(re.fullmatch(r"zejzl/stores/schema/\d{3}_\w+\.sql", name) for name in wheel)


def test_the_pins_name_no_host_no_file_and_no_option() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()

    pins = [line for line in lines if line and not line.lstrip().startswith("#")]

    assert pins
    assert not [pin for pin in pins if not re.fullmatch(r"[a-z0-9.-]+==[\w.]+", pin)]
    assert not [line for line in lines if "://" in line]


def test_every_direct_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.M)

    names = {re.split(r"[<>=\[;]", dependency)[0].strip() for dependency in wanted}

    assert names <= {*pinned}


def test_no_committed_file_names_a_place_of_one_machine() -> None:
    # Written apart, so that this file does not find itself.
    places = re.compile("/(?:root|work|home/\\w+)" + "/")
    texts = [path for path in listed() if path.suffix not in (".png", ".ico", ".db")]

    found = [
        f"{label(path)}:{number}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if places.search(line)
    ]

    assert not found


def test_the_scripts_can_be_run() -> None:
    scripts = [ROOT / "start.sh", ROOT / "orchestrate.sh", ROOT / ".ci/run"]

    assert not [script.name for script in scripts if not Path(script).stat().st_mode & 0o100]
