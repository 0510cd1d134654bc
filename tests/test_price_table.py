"""The price table that comes with zejzl, and the user's own over it."""

import os
import tomllib
from datetime import date
from pathlib import Path

import pytest

from tests.tree import ROOT, SRC, listed
from zejzl.engine.prices import load
from zejzl.errors import SettingsError
from zejzl.policies.prices import Price
from zejzl.providers.vendors import VENDORS

TABLE = SRC / "zejzl/prices.toml"
BUILTIN = load(None)
ROW = '"chatgpt/gpt-5-mini" = { prompt = 1, completion = 2.5 }'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


def refusal(file: Path) -> str:
    """Return what is said of a file that is refused."""
    with pytest.raises(SettingsError) as refused:
        load(file)
    assert refused.value.setting == "prices"
    return str(refused.value)


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_default_model_has_a_price(vendor: str) -> None:
    assert BUILTIN.find(vendor, VENDORS[vendor].model) is not None


@pytest.mark.parametrize("provider", ["local", "offline"])
def test_what_runs_here_is_free(provider: str) -> None:
    assert BUILTIN.find(provider, "whatever-it-is") == Price(0.0, 0.0)


def test_the_figures_are_within_reason() -> None:
    paid = {name: row for name, row in BUILTIN.rows.items() if not name.endswith("/*")}

    assert len(paid) >= 40
    assert not [name for name, row in paid.items() if not 0 < row.prompt <= 1_000]
    assert not [name for name, row in paid.items() if not row.prompt < row.completion <= 1_000]


def test_every_price_is_a_vendors_and_says_whose_page_it_is_from() -> None:
    sources = tomllib.loads(TABLE.read_text(encoding="utf-8"))["sources"]
    vendors = {name.partition("/")[0] for name in BUILTIN.rows}

    assert vendors == {*VENDORS, "offline"}
    assert {*sources} == vendors - {"local", "offline"}
    assert all(source["page"].startswith("https://") for source in sources.values())


def test_the_table_is_as_old_as_its_oldest_source() -> None:
    sources = tomllib.loads(TABLE.read_text(encoding="utf-8"))["sources"]

    assert BUILTIN.as_of == min(source["read"] for source in sources.values())
    assert date.fromisoformat(BUILTIN.as_of)


def test_the_wheel_and_the_sdist_carry_the_table() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]

    targets = build["build"]["targets"]

    assert "src/zejzl" in targets["wheel"]["only-include"]
    assert "src" in targets["sdist"]["include"]
    assert not [key for key in (*build["build"], *targets["wheel"]) if key == "exclude"]
    assert TABLE in listed()  # what git ignores is not shipped


def test_a_users_row_wins_and_the_others_stay(file: Path) -> None:
    file.write_text(f"[prices]\n{ROW}\n")

    prices = load(file)

    assert prices.find("chatgpt", "gpt-5-mini") == Price(1.0, 2.5)
    assert prices.find("chatgpt", "gpt-5") == BUILTIN.find("chatgpt", "gpt-5")
    assert prices.find("mirror", "gpt-5-mini") is None


@pytest.mark.parametrize("name", ["gpt-5-mini", "chatgpt/*", "chatgpt/gpt-5-mini"])
def test_a_users_row_wins_however_it_is_named(file: Path, name: str) -> None:
    file.write_text(f'[prices]\n"{name}" = {{ prompt = 0.5, completion = 0 }}\n')

    found = load(file).find("chatgpt", "gpt-5-mini-2025-08-07")

    assert found == Price(0.5, 0.0)


@pytest.mark.parametrize(
    ("line", "as_of"),
    [
        ('as_of = "2027-01-31"', "2027-01-31"),
        ("as_of = 2027-01-31", "2027-01-31"),
        ("", BUILTIN.as_of),
    ],
    ids=["a text", "a date", "left out"],
)
def test_the_users_day_is_the_tables_day(file: Path, line: str, as_of: str) -> None:
    file.write_text(f"{line}\n[prices]\n{ROW}\n")

    assert load(file).as_of == as_of


def test_a_users_file_may_be_a_copy_of_the_built_in_one(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + TABLE.read_bytes())

    prices = load(file)

    assert (prices.as_of, prices.rows) == (BUILTIN.as_of, BUILTIN.rows)


def test_a_table_without_rows_changes_nothing(file: Path) -> None:
    file.write_text("[prices]\n")

    assert load(file).find("chatgpt", "gpt-5") == BUILTIN.find("chatgpt", "gpt-5")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "{file}: has no table [prices]"),
        ("prices = 1", "{file}: prices must be a table, written as [prices]"),
        ("[prices", "{file}: is no TOML: Expected"),
        ("a = " + "[" * 5_000, "{file}: is no TOML: "),
        ("a = " + "9" * 5_000, "{file}: is no TOML: "),
        ("[price]", "{file}: unknown 'price'; did you mean prices?"),
        ("[prices]\n[zzz]", "{file}: unknown 'zzz'; known: as_of, sources, prices"),
        (ROW, "{file}: unknown 'chatgpt/gpt-5-mini'; known: as_of, sources, prices; a name with a"),
        ('as_of = "soon"\n[prices]', "{file}: as_of must be a day such as 2026-11-22, not 'soon'"),
        ("as_of = true\n[prices]", "{file}: as_of must be a day such as 2026-11-22, not True"),
        ("[prices]\no3 = 3", "{file}, row 'o3': must be {{ prompt = …, completion = … }}"),
        ("[prices]\no3 = {}", "{file}, row 'o3': has no prompt: 0 says that it is free"),
        ("[prices]\no3 = { prompt = 1 }", "{file}, row 'o3': has no completion: 0 says that"),
        ("[prices]\no3 = { completion = 1 }", "{file}, row 'o3': has no prompt: 0 says that"),
        (
            "[prices]\no3 = { prompt = 1, compltion = 1 }",
            "{file}, row 'o3': unknown 'compltion'; did you mean completion?",
        ),
        (
            "[prices]\ngpt-4.1 = { prompt = 1, completion = 1 }",
            "{file}, row 'gpt-4': unknown '1'; known: prompt, completion; a name with a dot needs",
        ),
        ("[prices.o3]\nprompt = 1\ncompletion = -1", "{file}, row 'o3': completion must be a fin"),
        ("[prices.o3]\nprompt = nan\ncompletion = 1", "{file}, row 'o3': prompt must be a finite"),
        ("[prices.o3]\nprompt = inf\ncompletion = 1", "{file}, row 'o3': prompt must be a finite"),
        ("[prices.o3]\nprompt = true\ncompletion = 1", "{file}, row 'o3': prompt must be a finit"),
        ('[prices.o3]\nprompt = "1"\ncompletion = 1', "{file}, row 'o3': prompt must be a finite"),
        ('[prices.""]\nprompt = 1\ncompletion = 1', "{file}: '' names no price: write"),
        ('[prices."grok/"]\nprompt = 1\ncompletion = 1', "{file}: 'grok/' names no price: write"),
    ],
)
def test_bad_input_is_refused_and_says_where_it_is(file: Path, text: str, said: str) -> None:
    file.write_text(text)

    assert refusal(file).startswith(f"prices: {said.format(file=file)}")


def test_a_file_in_another_encoding_is_refused(file: Path) -> None:
    file.write_bytes("# prix très élevés\n[prices]".encode("latin-1"))

    assert refusal(file).startswith(f"prices: {file}: is no TOML: 'utf-8' codec")


def test_a_missing_file_is_refused(file: Path) -> None:
    assert refusal(file) == f"prices: there is no file {file}"


@pytest.mark.parametrize("name", ["folder", "nul\0byte"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()

    said = refusal(tmp_path / name)

    assert said.startswith(f"prices: {tmp_path / name} cannot be read: ")
    assert "Errno" not in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(file: Path) -> None:
    file.touch(mode=0o000)

    assert refusal(file).startswith(f"prices: {file} cannot be read: ")


def test_one_bad_row_spoils_the_file(file: Path) -> None:
    file.write_text(f"[prices]\n{ROW}\no3 = {{ prompt = 1 }}\n")

    assert "row 'o3'" in refusal(file)
