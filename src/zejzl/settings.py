"""Settings of one bus: frozen, checked once, each with its unit and default.

Where they come from, strongest first: arguments, environment, `.env`, `zejzl.toml`, what the bus
keeps in its store (only `default_provider`), defaults. A setting is `ZEJZL_` and its name in
capitals in the environment and in `.env`, and its plain name in `zejzl.toml`; a vendor's are named
as `VENDOR_KEYS` says. What is unknown or impossible is refused: a typo must not become a default.
"""

import difflib
import math
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from zejzl.errors import SettingsError, shorten

MOST_COUNT = 1_000_000_000  # of anything that is counted: no queue and no database holds more
OF_SCRIPTS = ("ZEJZL_BACKUPS", "ZEJZL_LOGS", "ZEJZL_RELEASES")  # orchestrate.sh's, no settings
# Vendor → names of its API key in the environment. The order is that of registration.
VENDOR_KEYS: dict[str, tuple[str, ...]] = {
    "chatgpt": ("OPENAI_API_KEY",),
    "claude": ("ANTHROPIC_API_KEY",),
    "gemini": ("GEMINI_API_KEY",),
    "grok": ("GROK_API_KEY", "XAI_API_KEY"),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "qwen": ("QWEN_API_KEY", "DASHSCOPE_API_KEY"),
    "zai": ("ZAI_API_KEY",),
    "local": ("LOCAL_API_KEY",),
}


class Secret:
    """A text that does not show itself: not in a repr, a log, an error or a traceback."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        """Return the text itself."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('**********')" if self._value else "Secret('')"

    __str__ = __repr__


NO_KEY = Secret("")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How much a provider, or one of its models, may be asked in a minute; None is no limit.

    Attributes:
        requests: Calls.
        tokens: Of questions and answers together.
    """

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class VendorSettings:
    """What is set of one built-in vendor; None leaves it to the vendor table."""

    api_key: Secret = NO_KEY
    base_url: str | None = None
    model: str | None = None


def state_folder() -> Path:
    """Return the user's folder for what programs keep: where zejzl's database lives."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "zejzl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one bus behaves.

    Attributes:
        home: Folder of the database.
        connect_timeout: Seconds to reach a provider; None is no limit, here and below.
        first_token_timeout: Seconds a stream may stay silent before its first piece.
        idle_timeout: Seconds a stream may stay silent after that.
        attempt_timeout: Seconds a plain call may take.
        deadline: Seconds for all attempts of one request together; of a stream, up to its
            first piece.
        patience: Seconds to wait for the preferred provider before moving on, and for any when
            there is none. None: move on at once, and wait about a second (or the slowest
            provider's usual answer) when nobody can take the call.
        max_attempts: Most calls of one provider for one request.
        hedging: Whether a call whose answer is late may have a second one, of the next
            provider, beside it; the first answer counts.
        failover: Providers that may answer when none is named, in order; None is every one, in
            order of registration.
        default_provider: Who is asked first when none is named.
        max_tokens: Longest answer in tokens where a call says nothing; None leaves it to the
            provider.
        context_tokens: Most tokens of history sent with a question.
        history_turns: Most earlier messages of a conversation that are looked at.
        subscriber_queue: Messages a subscriber may fall behind before it misses the oldest.
        retention_days: Days that messages and events are kept; None keeps them for good.
        durability: "normal" survives a killed process, "full" a power cut as well.
        prices: A TOML file with prices of your own; they win over the built-in ones.
        spend_limit_day: USD that may be spent in a day of UTC; None is no limit.
        spend_limit_conversation: USD that may be spent in one conversation; None is no limit.
        park_tries: How often parked work is taken up again in vain before it is given up.
        park_spacing: Seconds before its first try; each further wait is twice as long.
        rate_limits: Most calls and tokens a minute, by provider or "provider/model"; all who use
            the store share them, and a minute's may be used at once. As text: "claude=50/40000,
            claude/opus=5": calls, or calls/tokens; in a file `claude = "50/40000"` or `claude = 5`
            in a table `[rate_limits]`.
        auto_improve: Whether the bus looks for improvements by itself, tries each on half of the
            conversations, and keeps what is better.
        vendors: What is set of the built-in vendors, by name.
    """

    home: Path = field(default_factory=state_folder)
    connect_timeout: float | None = 5.0
    first_token_timeout: float | None = 10.0
    idle_timeout: float | None = 10.0
    attempt_timeout: float | None = 30.0
    deadline: float | None = 60.0
    patience: float | None = None
    max_attempts: int = 3
    hedging: bool = True
    failover: tuple[str, ...] | None = None
    default_provider: str | None = None
    max_tokens: int | None = None
    context_tokens: int = 8_000
    history_turns: int = 200
    subscriber_queue: int = 1_000
    retention_days: float | None = 30.0
    durability: Literal["normal", "full"] = "normal"
    prices: Path | None = None
    spend_limit_day: float | None = None
    spend_limit_conversation: float | None = None
    park_tries: int = 8
    park_spacing: float = 30.0
    rate_limits: Mapping[str, RateLimit] = field(default_factory=dict)
    auto_improve: bool = False
    vendors: Mapping[str, VendorSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.home, str | os.PathLike):
            raise SettingsError("home", f"must be a folder, not {_shown(self.home)}")
        object.__setattr__(self, "home", Path(self.home))
        for name in ("connect_timeout", "first_token_timeout", "idle_timeout", "attempt_timeout"):
            check_seconds(name, getattr(self, name))
        check_seconds("deadline", self.deadline)
        check_seconds("patience", self.patience, zero=True)
        check_seconds("retention_days", self.retention_days)
        counts = "max_attempts", "context_tokens", "history_turns", "subscriber_queue", "park_tries"
        for name in counts:
            check_count(name, getattr(self, name))
        if self.park_spacing is None:
            raise SettingsError("park_spacing", "must be a number of seconds above 0, not None")
        check_seconds("park_spacing", self.park_spacing)
        for name in ("spend_limit_day", "spend_limit_conversation"):
            _check_money(name, getattr(self, name))
        if not isinstance(self.prices, str | os.PathLike | None):
            raise SettingsError("prices", f"must be a file, not {_shown(self.prices)}")
        if self.prices is not None:
            object.__setattr__(self, "prices", Path(self.prices))
        for name in ("hedging", "auto_improve"):
            if not isinstance(getattr(self, name), bool):
                wrong = f"must be true or false, not {_shown(getattr(self, name))}"
                raise SettingsError(name, wrong)
        if self.patience is not None and self.patience > (self.deadline or math.inf):
            raise SettingsError(
                "patience", f"{self.patience:g} s is longer than the deadline, {self.deadline:g} s"
            )
        if self.max_tokens is not None:
            check_count("max_tokens", self.max_tokens)
        if self.durability not in ("normal", "full"):
            wrong = f"must be normal or full, not {_shown(self.durability)}"
            raise SettingsError("durability", wrong)
        if self.default_provider is not None:
            _check_provider("default_provider", self.default_provider)
        if self.failover is not None:
            object.__setattr__(self, "failover", _providers("failover", self.failover))
        object.__setattr__(self, "rate_limits", _rate_limits(self.rate_limits))
        if not isinstance(self.vendors, Mapping):
            raise SettingsError("vendors", "must be a table of vendors")
        vendors = {vendor: _vendor(vendor, of) for vendor, of in self.vendors.items()}
        object.__setattr__(self, "vendors", vendors)

    @classmethod
    def from_env(
        cls,
        *,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
        **arguments: Any,
    ) -> "Settings":
        """Return the settings that environment, `.env` and `zejzl.toml` give.

        Args:
            env: The environment; default is the process's.
            folder: Where `.env` and `zejzl.toml` are looked for; default is the current folder.
            arguments: Settings that win over all of these.

        Raises:
            SettingsError: If one is unknown or impossible, or a file cannot be read.
        """
        folder = folder or Path.cwd()
        found = dict(_from_toml(folder / "zejzl.toml"))
        written: dict[str, str] = {}
        for source in (_dotenv(folder / ".env"), os.environ if env is None else env):
            for name, setting, value in _from_names(source):
                _put(found, setting, value)
                written[setting] = name
        found |= arguments
        try:
            return _validated(cls, found)
        except SettingsError as wrong:
            name = wrong.setting
            if name not in written or name.partition(".")[0] in arguments:
                raise
            problem = str(wrong).removeprefix(f"{name}: ")
            raise SettingsError(written[name], problem) from None  # as the user wrote it


def check_seconds(name: str, value: float | None, *, zero: bool = False) -> None:
    """Raise SettingsError unless `value` is None or a finite number above 0 (or 0, if allowed)."""
    if value is None:
        return
    if not _is_number(value):
        raise SettingsError(name, f"must be a number of seconds or None, not {_shown(value)}")
    if value < 0 or (value == 0 and not zero):
        raise SettingsError(name, f"must be {'0 or more' if zero else 'above 0'}, not {value!r}")


def check_count(name: str, value: int) -> None:
    """Raise SettingsError unless `value` is a whole number from 1 to 1,000,000,000."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_COUNT:
        raise SettingsError(
            name, f"must be a whole number from 1 to {MOST_COUNT:,}, not {_shown(value)}"
        )


def _check_money(name: str, value: float | None) -> None:
    """Raise SettingsError unless `value` is None or a finite number of USD above 0."""
    if value is None:
        return
    if not _is_number(value):
        raise SettingsError(name, f"must be a number of USD or None, not {_shown(value)}")
    if value <= 0:
        raise SettingsError(
            name, f"must be above 0, not {value!r}: to spend nothing, register no paid provider"
        )


def _is_number(value: object) -> bool:
    """Say whether it is a finite number; a whole one may be larger than any float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max


def _shown(value: object) -> str:
    """Return a value for an error, in brief; a number of thousands of digits has no repr."""
    try:
        return shorten(repr(value))
    except ValueError:
        return "a number of thousands of digits"


def _check_provider(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise SettingsError(name, f"must be a provider's name, not {_shown(value)}")
    if not value.strip():
        raise SettingsError(name, "must name a provider, or be left out")


def _providers(name: str, value: object) -> tuple[str, ...]:
    """Return the names of providers that a setting holds."""
    if not isinstance(value, list | tuple):
        raise SettingsError(name, f"must be a tuple of names, not {_shown(value)}")
    for one in value or ("",):
        _check_provider(name, one)
    return tuple(value)


def _dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    from dotenv.parser import parse_stream

    try:
        with path.open(encoding="utf-8-sig") as stream:  # some editors write a byte order mark
            lines = list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as problem:
        raise SettingsError(str(path.name), f"cannot be read: {problem}") from problem
    for line in lines:
        if line.error or (line.key is not None and line.value is None):
            raise SettingsError(path.name, f"line {line.original.line} is not NAME=value")
    return {line.key: line.value for line in lines if line.key is not None and line.value}


def _from_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise SettingsError(path.name, f"cannot be read: {problem}") from problem


def _from_names(source: Mapping[str, str]) -> Iterator[tuple[str, str, Any]]:
    """Yield (name, setting, value) of every name in `source` that is ours."""
    known = {f"ZEJZL_{name.upper()}": name for name in _plain_names()}
    for name, value in source.items():
        if name in known:
            if value != "":
                yield name, known[name], value
        elif name.startswith("ZEJZL_") and name not in OF_SCRIPTS:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
            raise SettingsError(name, f"unknown setting{hint}")
    for vendor, keys in VENDOR_KEYS.items():
        names = {
            "api_key": list(keys),
            # The vendor's own SDK reads OPENAI_BASE_URL; a user who has it set means it.
            "base_url": [f"{prefix}_BASE_URL" for prefix in _prefixes(vendor)],
            "model": [f"{prefix}_MODEL" for prefix in _prefixes(vendor)],
        }
        for what, candidates in names.items():
            chosen = next((name for name in candidates if source.get(name, "").strip()), None)
            if chosen is not None:
                yield chosen, f"vendors.{vendor}.{what}", source[chosen].strip()


def _prefixes(vendor: str) -> list[str]:
    return [vendor.upper(), *(key.removesuffix("_API_KEY") for key in VENDOR_KEYS[vendor])]


def _put(found: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    for part in path:
        found = found.setdefault(part, {})
        if not isinstance(found, dict):
            raise SettingsError(name.rpartition(".")[0], "must be a table")
    found[last] = value


def _plain_names() -> list[str]:
    return [item.name for item in fields(Settings) if item.name != "vendors"]


def _validated(cls: type[Settings], found: dict[str, Any]) -> Settings:
    unknown = next((name for name in found if name not in (*_plain_names(), "vendors")), None)
    if unknown is not None:
        close = difflib.get_close_matches(unknown, _plain_names(), n=1)
        raise SettingsError(
            unknown, f"unknown setting{f'; did you mean {close[0]}?' if close else ''}"
        )
    from pydantic import TypeAdapter, ValidationError

    values: dict[str, Any] = {}
    hints: dict[str, Any] = {item.name: item.type for item in fields(cls)}
    for name, value in found.items():
        if name in ("vendors", "rate_limits"):  # they check themselves
            values[name] = value
            continue
        if isinstance(value, bool) and hints[name] != "bool" and hints[name] is not bool:
            raise SettingsError(name, f"is no yes or no: {value!r}")
        if isinstance(value, str):
            if value.strip().lower() in ("none", "off"):
                value = None
            elif name == "failover":
                value = [part.strip() for part in value.split(",") if part.strip()]
            elif name in ("home", "prices"):
                value = os.path.expanduser(value)  # no shell has read .env or zejzl.toml
        try:
            values[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as problem:
            raise SettingsError(
                name, f"{problem.errors()[0]['msg']}, not {_shown(value)}"
            ) from None
    return cls(**values)


def _vendor(vendor: str, of: object) -> VendorSettings:
    """Return what is set of one vendor, checked; its key is in no error."""
    path = f"vendors.{vendor}"
    if vendor not in VENDOR_KEYS:
        raise SettingsError(path, f"unknown; known: {', '.join(VENDOR_KEYS)}")
    known = [item.name for item in fields(VendorSettings)]
    if isinstance(of, VendorSettings):
        of = {name: getattr(of, name) for name in known}
    if not isinstance(of, Mapping):
        raise SettingsError(path, f"must be a table of {', '.join(known)}")
    unknown = next((name for name in of if name not in known), None)
    if unknown is not None:
        raise SettingsError(f"{path}.{unknown}", "unknown setting")
    values: dict[str, Any] = {name: value for name, value in of.items() if value is not None}
    if isinstance(key := values.get("api_key"), str):
        values["api_key"] = Secret(key)
    for name, value in values.items():
        if not isinstance(value, Secret if name == "api_key" else str):
            raise SettingsError(f"{path}.{name}", "must be text")  # it may be a key
    made = VendorSettings(**values)
    key, url = made.api_key.get_secret_value(), made.base_url
    if not key.isascii() or not key.isprintable() or " " in key:
        # A pasted key with a blank or a line end makes a header that no provider accepts.
        raise SettingsError(f"{path}.api_key", "holds a blank, a line end or a non-ASCII character")
    if url is not None and not url.startswith(("http://", "https://")):
        raise SettingsError(f"{path}.base_url", f"must start with http:// or https://, not {url!r}")
    host = (url or "").partition("//")[2].rpartition("@")[2]  # without a password
    try:
        urlsplit(f"//{host}").port  # noqa: B018 - read only when it is asked for
    except ValueError:
        wrong = f"has a port that is no number up to 65535, or no host: {host!r}"
        raise SettingsError(f"{path}.base_url", wrong) from None
    return made


def _rate_limits(value: object) -> dict[str, RateLimit]:
    """Return rate limits by name, from a table or from text."""
    if not isinstance(value, str | Mapping):
        raise SettingsError("rate_limits", "must be a table of names and limits")
    made: dict[str, RateLimit] = {}
    for written, of in _from_words(value) if isinstance(value, str) else value.items():
        name = _limited(written)
        if name in made:
            raise SettingsError(f"rate_limits.{name}", "is there twice: leave one of them out")
        made[name] = _rate_limit(f"rate_limits.{name}", of)
    return made


def _from_words(text: str) -> Iterator[tuple[str, str]]:
    """Yield the names and the counts of "name=calls/tokens, name=calls"."""
    for part in text.split(","):
        name, sign, counts = part.partition("=")
        if part.strip() and part.strip().lower() not in ("none", "off"):
            yield name, counts if sign else f"{part} without ="


def _limited(written: object) -> str:
    """Return whom a rate limit is for, as providers are named."""
    parts = written.lower().split("/", 1) if isinstance(written, str) and "*" not in written else ""
    name = "/".join(part.strip() for part in parts)
    if not name or name.startswith("/") or name.endswith("/"):
        wrong = f"needs the name of a provider, or of provider/model, not {_shown(written)}"
        raise SettingsError("rate_limits", wrong)
    return name


def _counts(said: str | int) -> RateLimit:
    """Return the limit that "calls/tokens" says, or "calls", or "/tokens"."""
    try:
        calls, _, tokens = str(said).partition("/")
        return RateLimit(*(int(count) if count.strip() else None for count in (calls, tokens)))
    except ValueError:
        wrong = f"must be like claude=50/40000 (calls/tokens), not {_shown(said)}"
        raise SettingsError("rate_limits", wrong) from None


def _rate_limit(path: str, of: object) -> RateLimit:
    known = [item.name for item in fields(RateLimit)]
    if isinstance(of, str | int) and not isinstance(of, bool):
        of = _counts(of)
    if isinstance(of, RateLimit):
        of = {name: getattr(of, name) for name in known}
    if not isinstance(of, Mapping):
        wrong = f"must be a number of calls, calls/tokens, or a table of {', '.join(known)}"
        raise SettingsError(path, wrong)
    unknown = next((name for name in of if name not in known), None)
    if unknown is not None:
        raise SettingsError(f"{path}.{unknown}", f"unknown; known: {', '.join(known)}")
    for what, count in of.items():
        if count == 0 and not isinstance(count, bool):
            wrong = "a limit of 0 would wait for ever: leave it out of `failover` instead"
            raise SettingsError(f"{path}.{what}", wrong)
        if count is not None:
            check_count(f"{path}.{what}", count)
    made = RateLimit(**of)
    if made == RateLimit():
        raise SettingsError(path, f"sets no limit: give {' or '.join(known)}")
    return made
