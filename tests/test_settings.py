"""Settings are checked once, refused by name, and never show a key."""

import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tree import ROOT
from zejzl.errors import SettingsError
from zejzl.settings import VENDOR_KEYS, Secret, Settings, VendorSettings, state_folder

PLAIN = [item.name for item in fields(Settings) if item.name != "vendors"]
SECONDS = [name for name in PLAIN if name.endswith("timeout")]
SECONDS += ["deadline", "patience", "retention_days"]
COUNTS = ["max_attempts", "context_tokens", "history_turns", "subscriber_queue", "max_tokens"]
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")


def read(env: dict[str, str], folder: Path, **arguments: object) -> Settings:
    return Settings.from_env(env=env, folder=folder, **arguments)


# ── where they come from ──────────────────────────────────────────────────────────────────────


def test_with_nothing_set_the_defaults_hold(tmp_path: Path) -> None:
    assert read({}, tmp_path) == Settings()


def test_stronger_sources_win(tmp_path: Path) -> None:
    (tmp_path / "zejzl.toml").write_text(
        "deadline = 11\nmax_attempts = 11\nhistory_turns = 11\ncontext_tokens = 11\n"
    )
    (tmp_path / ".env").write_text(
        "ZEJZL_MAX_ATTEMPTS=12\nZEJZL_HISTORY_TURNS=12\nZEJZL_CONTEXT_TOKENS=12\n"
    )
    env = {"ZEJZL_HISTORY_TURNS": "13", "ZEJZL_CONTEXT_TOKENS": "13"}

    got = read(env, tmp_path, context_tokens=14)

    found = (got.deadline, got.max_attempts, got.history_turns, got.context_tokens)
    assert found == (11.0, 12, 13, 14)


def test_the_processs_environment_and_folder_are_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zejzl.toml").write_text("deadline = 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEJZL_MAX_TOKENS", "99")

    got = Settings.from_env()

    assert (got.deadline, got.max_tokens) == (7.0, 99)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("ZEJZL_DEADLINE=2.5", "deadline", 2.5),
        ("ZEJZL_DEADLINE=none", "deadline", None),
        ("ZEJZL_DEADLINE=Off", "deadline", None),
        ("ZEJZL_DEADLINE=", "deadline", 60.0),
        ("ZEJZL_PATIENCE=0", "patience", 0.0),
        ("ZEJZL_FAILOVER= claude, chatgpt ,", "failover", ("claude", "chatgpt")),
        ("ZEJZL_FAILOVER=none", "failover", None),
        ("ZEJZL_DURABILITY=full", "durability", "full"),
        ("ZEJZL_HOME=/somewhere", "home", Path("/somewhere")),
        ("export ZEJZL_DEADLINE='3'  # quoted", "deadline", 3.0),
    ],
    ids=[
        "a number",
        "none is no limit",
        "off is no limit",
        "empty is not set",
        "no patience at all",
        "names in order",
        "all may answer",
        "a word",
        "a folder",
        "as a shell would write it",
    ],
)
def test_a_line_of_env_is_read(tmp_path: Path, line: str, name: str, value: object) -> None:
    (tmp_path / ".env").write_text(f"# a comment\n\n{line}\n", encoding="utf-8")

    assert getattr(read({}, tmp_path), name) == value


def test_a_byte_order_mark_does_not_hide_the_first_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ZEJZL_DEADLINE=4\n", encoding="utf-8-sig")

    assert read({}, tmp_path).deadline == 4.0


def test_a_tilde_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".env").write_text("ZEJZL_HOME=~/zejzl\n")

    assert read({}, tmp_path).home == tmp_path / "zejzl"


def test_the_database_lives_in_the_users_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "zejzl"

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings().home == tmp_path / ".local/state/zejzl"


# ── what is refused ───────────────────────────────────────────────────────────────────────────


def test_what_the_projects_scripts_read_is_no_typo(tmp_path: Path) -> None:
    names = dict.fromkeys(("ZEJZL_BACKUPS", "ZEJZL_LOGS", "ZEJZL_RELEASES"), "somewhere")

    assert Settings.from_env(env=names, folder=tmp_path) == Settings.from_env(
        env={}, folder=tmp_path
    )


def test_a_typo_in_the_environment_is_refused_with_what_was_meant(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean ZEJZL_DEADLINE") as caught:
        read({"ZEJZL_DEADLIEN": "5"}, tmp_path)

    assert caught.value.setting == "ZEJZL_DEADLIEN"


def test_a_typo_in_the_file_is_refused_with_what_was_meant(tmp_path: Path) -> None:
    (tmp_path / "zejzl.toml").write_text("deadlien = 5\n")

    with pytest.raises(SettingsError, match=r"deadlien: unknown.*did you mean deadline"):
        read({}, tmp_path)


def test_a_yes_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "zejzl.toml").write_text("max_attempts = true\n")

    with pytest.raises(SettingsError, match="max_attempts"):
        Settings.from_env(env={}, folder=tmp_path)


def test_names_of_others_are_none_of_our_business(tmp_path: Path) -> None:
    assert read({"PATH": "/bin", "ZEJZ": "1", "EDITOR": "vi"}, tmp_path) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ZEJZL_DEADLINE", "soon"),
        ("ZEJZL_DEADLINE", "0"),
        ("ZEJZL_DEADLINE", "-1"),
        ("ZEJZL_DEADLINE", "nan"),
        ("ZEJZL_DEADLINE", "inf"),
        ("ZEJZL_PATIENCE", "-0.1"),
        ("ZEJZL_MAX_ATTEMPTS", "0"),
        ("ZEJZL_MAX_ATTEMPTS", "1.5"),
        ("ZEJZL_MAX_ATTEMPTS", "none"),
        ("ZEJZL_MAX_TOKENS", "0"),
        ("ZEJZL_RETENTION_DAYS", "0"),
        ("ZEJZL_FAILOVER", ","),
        ("ZEJZL_DURABILITY", "mostly"),
    ],
)
def test_an_impossible_value_is_refused_by_name(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read({name: value}, tmp_path)

    assert caught.value.setting == name
    assert str(caught.value).startswith(f"{name}: ")


def test_a_value_is_told_by_the_name_under_which_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "zejzl.toml").write_text("deadline = -1\n[vendors.zai]\nbase_url = 'z.ai'\n")
    told = []

    for env, arguments in (
        ({"ZEJZL_DEADLINE": "-2"}, {}),
        ({"ZEJZL_DEADLINE": "-2"}, {"deadline": -3}),
        ({}, {}),
        ({"ZEJZL_DEADLINE": "1"}, {}),
    ):
        with pytest.raises(SettingsError) as caught:
            read(env, tmp_path, **arguments)
        told.append(caught.value.setting)

    assert told == ["ZEJZL_DEADLINE", "deadline", "deadline", "vendors.zai.base_url"]
    with pytest.raises(SettingsError, match=r"^XAI_BASE_URL: must start with"):
        read({"XAI_BASE_URL": "x.ai"}, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("deadline", True),
        ("deadline", "60"),
        ("connect_timeout", float("inf")),
        ("max_attempts", True),
        ("max_attempts", 2.0),
        ("failover", "claude"),
        ("failover", ()),
        *[("failover", 5), ("failover", True), ("failover", ["a", 5]), ("failover", [" "])],
        ("default_provider", ""),
        *[("default_provider", " "), ("default_provider", 5), ("default_provider", True)],
        *[("vendors", []), ("vendors", 3), ("vendors", "chatgpt"), ("vendors", None)],
        ("durability", "mostly"),
        *[(name, 10**400) for name in [*SECONDS, *COUNTS]],
        *[(name, 10**5_000) for name in [*PLAIN, "vendors"]],
    ],
    ids=lambda value: repr(value)[:20] if not isinstance(value, int) else "",
)
def test_the_constructor_refuses_it_as_well(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: "):
        Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [5, b"sk-secret", ["sk-secret"]])
def test_the_constructor_refuses_a_vendor_that_cannot_be_and_shows_no_key(key: object) -> None:
    for of in (VendorSettings(api_key=key), {"api_key": key}):  # type: ignore[arg-type]
        with pytest.raises(SettingsError, match=r"^vendors\.chatgpt\.api_key: must be") as caught:
            Settings(vendors={"chatgpt": of})  # type: ignore[dict-item]
        assert "secret" not in str(caught.value)


def test_names_may_come_in_a_list_and_a_vendor_in_a_table() -> None:
    given = Settings(failover=["a", "b"], vendors={"zai": {"model": "m"}})  # type: ignore[arg-type, dict-item]

    assert given == Settings(failover=("a", "b"), vendors={"zai": VendorSettings(model="m")})


@pytest.mark.parametrize(
    "text",
    ["vendors = 3", "vendors.claude = 'sk-secret'", "vendors.claude.api_key = 12345"],
    ids=["no table", "no vendor table", "no text"],
)
def test_a_wrong_vendors_table_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "zejzl.toml").write_text(text)

    for env in ({}, {"ANTHROPIC_API_KEY": "sk-other"}):
        if env and "api_key" in text:
            continue  # the environment's key stands in front of the file's
        with pytest.raises(SettingsError, match="vendors") as caught:
            read(env, tmp_path)
        assert "secret" not in str(caught.value)
        assert "12345" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("zejzl.toml", b"deadline = = 5"),
        ("zejzl.toml", b"\xff\xfe"),
        (".env", b"ZEJZL_DEADLINE 5"),
        (".env", b"\xff\xfeZEJZL"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: bytes) -> None:
    (tmp_path / name).write_bytes(text)

    with pytest.raises(SettingsError) as caught:
        read({}, tmp_path)

    assert caught.value.setting == name


def test_a_bad_line_is_told_by_its_number_and_not_by_its_content(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ZEJZL_DEADLINE=5\nsk-ant-forgot-the-name\n")

    with pytest.raises(SettingsError, match="line 2") as caught:
        read({}, tmp_path)

    assert "forgot" not in str(caught.value)


# ── vendors and their keys ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("vendor", "key"), [(vendor, key) for vendor, keys in VENDOR_KEYS.items() for key in keys]
)
def test_a_vendors_key_address_and_model_are_found(tmp_path: Path, vendor: str, key: str) -> None:
    prefix = key.removesuffix("_API_KEY")
    env = {
        key: " sk-1\n",
        f"{prefix}_BASE_URL": "https://gateway.example/v1",
        f"{prefix}_MODEL": "small",
    }

    assert read(env, tmp_path).vendors == {
        vendor: VendorSettings(Secret("sk-1"), "https://gateway.example/v1", "small")
    }


def test_a_vendors_own_name_goes_before_its_keys_name(tmp_path: Path) -> None:
    env = {"OPENAI_MODEL": "theirs", "CHATGPT_MODEL": "ours"}

    assert read(env, tmp_path).vendors["chatgpt"].model == "ours"


def test_a_blank_key_is_no_key(tmp_path: Path) -> None:
    assert read({"OPENAI_API_KEY": "  "}, tmp_path).vendors == {}


def test_a_file_and_the_environment_may_share_a_vendor(tmp_path: Path) -> None:
    (tmp_path / "zejzl.toml").write_text("[vendors.claude]\nmodel = 'small'\n")

    claude = read({"ANTHROPIC_API_KEY": "sk-1"}, tmp_path).vendors["claude"]

    assert claude == VendorSettings(Secret("sk-1"), None, "small")


@pytest.mark.parametrize("given_as", [Secret("sk-1"), "sk-1"], ids=["Secret", "text"])
def test_a_key_may_be_passed_as_text_or_as_a_secret(tmp_path: Path, given_as: object) -> None:
    got = read({}, tmp_path, vendors={"claude": {"api_key": given_as}})

    assert got.vendors["claude"].api_key.get_secret_value() == "sk-1"


@pytest.mark.parametrize("key", ["sk 1", "sk\n1", "sk-é", "“sk”"])
def test_a_key_that_makes_no_header_is_refused_without_showing_it(tmp_path: Path, key: str) -> None:
    with pytest.raises(SettingsError, match="OPENAI_API_KEY") as caught:
        read({"OPENAI_API_KEY": key}, tmp_path)

    assert key not in str(caught.value)


def test_an_address_without_its_scheme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="LOCAL_BASE_URL: must start with http"):
        read({"LOCAL_BASE_URL": "localhost:8080"}, tmp_path)


@pytest.mark.parametrize("address", ["localhost:99999", "localhost:abc", "[::1"])
def test_an_address_with_a_port_that_cannot_be_is_refused_by_the_variables_name(
    tmp_path: Path, address: str
) -> None:
    with pytest.raises(SettingsError, match="LOCAL_BASE_URL: has a port") as refused:
        read({"LOCAL_BASE_URL": f"http://{address}/v1"}, tmp_path)

    assert address in str(refused.value)


@pytest.mark.parametrize("name", ["vendors.clod.model", "vendors.claude.modle"])
def test_an_unknown_vendor_or_part_of_one_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "zejzl.toml").write_text(f"{name} = 'small'\n")

    with pytest.raises(SettingsError, match="unknown"):
        read({}, tmp_path)


@given(st.text())
def test_a_secret_shows_itself_nowhere(text: str) -> None:
    value = f"sk-{text}"
    secret = Secret(value)

    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>30}",
        repr(VendorSettings(secret)),
    ]

    assert not [text for text in shown if value in text]
    assert secret.get_secret_value() == value


def test_secrets_compare_by_what_they_hold() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert (bool(Secret("a")), bool(Secret(""))) == (True, False)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().deadline = 1.0  # type: ignore[misc]


# ── the example file ──────────────────────────────────────────────────────────────────────────


def test_the_example_names_every_setting_and_every_vendors_names() -> None:
    wanted = {f"ZEJZL_{name.upper()}" for name in PLAIN}
    wanted |= {key for keys in VENDOR_KEYS.values() for key in keys}
    wanted |= {
        f"{vendor.upper()}_{part}" for vendor in VENDOR_KEYS for part in ("BASE_URL", "MODEL")
    }

    assert {*re.findall(r"^# ([A-Z_]+)=", EXAMPLE, re.M)} == wanted


def test_the_example_sets_nothing_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(EXAMPLE, encoding="utf-8")

    assert read({}, tmp_path) == Settings()


def test_every_line_of_the_example_works_once_its_mark_is_off(tmp_path: Path) -> None:
    used = re.sub(r"^# (?=[A-Z_]+=)", "", EXAMPLE, flags=re.M)
    (tmp_path / ".env").write_text(used, encoding="utf-8")

    got = read({}, tmp_path)

    assert {*got.vendors} == {*VENDOR_KEYS}
    defaults = Settings()
    examples = {"home", "failover", "default_provider", "max_tokens", "prices"}
    same = [name for name in PLAIN if getattr(got, name) == getattr(defaults, name)]
    assert {*same} == {*PLAIN} - examples
