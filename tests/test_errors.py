"""The error tree is the one drawn, and its messages can be acted on."""

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl import errors
from zejzl.errors import (
    MESSAGE_LIMIT,
    AttemptTimeout,
    BusNotRunning,
    CircuitOpen,
    ConnectFailed,
    FailureClass,
    Incomplete,
    NoSuchProvider,
    Overloaded,
    Permanent,
    ProviderError,
    RateLimited,
    Rejected,
    ServerError,
    SettingsError,
    Shielded,
    SpendLimitReached,
    Transient,
    ZejzlError,
    attributes,
    shorten,
)

CLASSES = [
    item
    for _, item in inspect.getmembers(errors, inspect.isclass)
    if issubclass(item, ZejzlError) and item.__module__ == errors.__name__
]


def drawn() -> dict[str, str | None]:
    """Return class → base, read off the tree in the module's docstring."""
    tree: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []  # (column, class), outermost first
    for line in str(errors.__doc__).splitlines():
        if found := re.match(r"    ([│ ]*[├└]── )?([A-Z]\w+)(?: .*)?$", line):
            column = len(found[1] or "")
            above = [node for node in above if node[0] < column]
            tree[found[2]] = above[-1][1] if above else None
            above.append((column, found[2]))
    return tree


def provider_errors() -> list[type[ProviderError]]:
    return [cls for cls in CLASSES if issubclass(cls, ProviderError)]


def test_the_tree_drawn_is_the_tree() -> None:
    # The first base is the tree's; what stands behind it is Python's own.
    real = {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES if cls is not ZejzlError}

    assert drawn() == {"ZejzlError": None, **real}


def test_what_a_program_may_already_catch_is_kept() -> None:
    assert issubclass(SettingsError, ValueError)
    assert issubclass(NoSuchProvider, LookupError)
    assert issubclass(AttemptTimeout, TimeoutError)


@pytest.mark.parametrize("cls", provider_errors(), ids=lambda cls: cls.__name__)
def test_a_provider_error_says_who_what_and_for_how_long(cls: type[ProviderError]) -> None:
    error = cls(
        "no luck",
        provider="claude",
        model="opus",
        status=418,
        code="teapot",
        request_id="req_7",
        retry_after=1.5,
    )

    assert str(error) == (
        "claude: no luck (HTTP 418, teapot, model opus, retry after 1.5 s, request req_7)"
    )


def test_a_provider_error_without_facts_is_its_message() -> None:
    assert str(ConnectFailed("refused")) == "refused"


def test_a_wait_of_no_seconds_is_a_fact() -> None:
    assert str(RateLimited("slow down", retry_after=0.0)) == "slow down (retry after 0 s)"


def test_a_failure_class_given_wins_over_the_classs_own() -> None:
    given_one = AttemptTimeout("late", failure_class=FailureClass.STALLED)

    assert given_one.failure_class is FailureClass.STALLED
    assert AttemptTimeout("late").failure_class is FailureClass.FIRST_TOKEN_TIMEOUT


def test_every_transient_error_knows_its_failure_class() -> None:
    unknown = {
        cls.__name__
        for cls in provider_errors()
        if cls.default_class is FailureClass.UNKNOWN and cls.__subclasses__() == []
    }

    assert not unknown


def test_an_error_is_transient_or_permanent_and_never_both() -> None:
    both = [cls for cls in CLASSES if issubclass(cls, Transient) and issubclass(cls, Permanent)]
    neither = [
        cls.__name__ for cls in provider_errors() if not issubclass(cls, Transient | Permanent)
    ]

    assert not both
    assert neither == ["ProviderError"]


def test_an_open_circuit_says_when_to_come_back() -> None:
    error = CircuitOpen("ai_provider:claude", 12.34, "it asked for a pause")

    assert str(error) == (
        "circuit breaker of 'ai_provider:claude' is open: it asked for a pause; try again in 12.3 s"
    )
    assert isinstance(error, Rejected)
    assert error.retry_after == 12.34
    assert str(CircuitOpen("a", float("inf"), "it was unregistered")) == (
        "circuit breaker of 'a' is open: it was unregistered"
    )


@pytest.mark.parametrize(
    ("name", "wait", "said"),
    [
        ("day", 85_526.0, "of the day: it is spent; try again in 23.8 h"),
        ("day", 40.0, "of the day: it is spent; try again in 1 min"),
        ("essay", float("inf"), "of conversation 'essay': it is spent"),
    ],
)
def test_a_spend_limit_says_whose_it_is_and_when_it_ends(name: str, wait: float, said: str) -> None:
    assert str(SpendLimitReached(name, wait, "it is spent")) == f"spend limit {said}"


@pytest.mark.parametrize(
    ("known", "listed"),
    [(("chatgpt", "claude"), "chatgpt, claude"), ((), "none")],
    ids=["two", "none"],
)
def test_an_unknown_provider_is_told_with_the_known_ones(
    known: tuple[str, ...], listed: str
) -> None:
    error = NoSuchProvider("cluade", known)

    assert str(error) == f"no provider named 'cluade'; registered: {listed}"
    assert (error.name, error.known) == ("cluade", known)


def test_attempts_of_one_error_are_not_anothers() -> None:
    first, second = ConnectFailed("a"), ConnectFailed("b")

    first.attempts = ("tried",)

    assert second.attempts == ()


def test_an_incomplete_answer_has_a_prefix_from_the_start() -> None:
    assert Incomplete("cut").prefix == ""


@given(st.text(max_size=3 * MESSAGE_LIMIT))
def test_a_shortened_text_is_one_printable_line_within_the_limit(text: str) -> None:
    line = shorten(text)

    assert len(line) <= MESSAGE_LIMIT
    assert line.isprintable()


def test_a_short_text_is_left_as_it_is() -> None:
    assert shorten("The key sk-… was refused.") == "The key sk-… was refused."


def test_what_was_cut_off_shows() -> None:
    assert shorten("x" * (MESSAGE_LIMIT + 1)) == "x" * (MESSAGE_LIMIT - 1) + "…"


def test_line_ends_become_blanks_and_escapes_go() -> None:
    assert shorten("one\r\n\ttwo \x1b[31mred") == "one two [31mred"


REFUSALS: dict[str, Callable[[], ZejzlError]] = {
    "circuit open": lambda: CircuitOpen("a", 3.5, "it keeps failing", "HTTP 500"),
    "circuit open, by keywords": lambda: CircuitOpen(name="a", retry_after=3.5),
    "overloaded": lambda: Overloaded(name="a", retry_after=1.0, reason="it is full"),
    "shielded": lambda: Shielded("a", 1.0, reason="the budget is empty"),
    "no such provider": lambda: NoSuchProvider("x", ("a", "b")),
    "a setting": lambda: SettingsError("deadline", "must be positive"),
    "a provider's": lambda: RateLimited("slow down", provider="a", status=429, retry_after=2.0),
    "not running": lambda: BusNotRunning("await bus.start() first"),
}


def sent(error: ZejzlError) -> ZejzlError:
    """Return an error as another process gets it."""
    return pickle.loads(pickle.dumps(error))  # type: ignore[no-any-return]  # noqa: S301


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, sent])
@pytest.mark.parametrize("make", REFUSALS.values(), ids=REFUSALS.keys())
def test_an_error_survives_copying_and_the_way_to_another_process(
    make: Callable[[], ZejzlError], way: Callable[[ZejzlError], ZejzlError]
) -> None:
    error = make()
    error.attempts = ("tried",)
    error.add_note("and that is why")

    other = way(error)

    assert (type(other), str(other), other.args) == (type(error), str(error), error.args)
    assert attributes(other) == attributes(error)
    assert other.__notes__ == ["and that is why"]


def test_what_an_error_carries_is_found_in_slots_too() -> None:
    assert attributes(CircuitOpen("a", 3.5, "it keeps failing")) == {
        "name": "a",
        "retry_after": 3.5,
        "reason": "it keeps failing",
        "last_error": "",
    }
    assert attributes(OSError(2, "gone")) == {}


class Curt(Transient):
    def __init__(self) -> None:
        self.why = "it never called super().__init__()"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"code": 500}, "x (500)"),
        ({"status": "abc", "model": 5, "request_id": 7}, "x (HTTP abc, model 5, request 7)"),
        ({"retry_after": "5"}, "x (retry after 5 s)"),
        ({"retry_after": 10**400}, f"x (retry after {10**400} s)"),
        ({"retry_after": 10**5000}, "x (retry after it cannot be shown s)"),
        ({"provider": 5}, "5: x"),
    ],
    ids=["code", "others", "a text", "too large", "absurd", "provider"],
)
def test_a_provider_error_with_odd_fields_can_be_shown(fields: Any, said: str) -> None:
    assert str(ServerError("x", **fields)) == said


def test_a_provider_error_without_a_message_is_its_name() -> None:
    assert str(Curt()) == "Curt"
