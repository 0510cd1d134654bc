"""What kind of failure it is, what that means to the breaker, and what the runbook says."""

import asyncio
from email.message import Message as Headers
from types import MappingProxyType, SimpleNamespace
from typing import Never
from urllib.error import HTTPError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.errors import (
    ERRORS,
    CircuitOpen,
    ConversationBusy,
    FailureClass,
    NoSuchProvider,
    ProviderError,
    RateLimited,
    StoreLocked,
)
from zejzl.policies.diagnosis import (
    HOPELESS,
    ONCE_MORE,
    RUNBOOK,
    THROTTLED,
    TIMEOUTS,
    Diagnosis,
    Remedy,
    Verdict,
    classify,
    classify_status,
    diagnose,
)

F = FailureClass
FAIL, VOID, PAUSE, PAUSE_KEY = Verdict.FAIL, Verdict.VOID, Verdict.PAUSE, Verdict.PAUSE_KEY

every_class = pytest.mark.parametrize("kind", F)


class SdkError(Exception):
    """An error as SDKs raise them: facts in attributes."""

    def __init__(self, message: str = "", /, **facts: object) -> None:
        super().__init__(message)
        self.__dict__ |= facts


def response(**headers: str) -> SimpleNamespace:
    return SimpleNamespace(headers={name.replace("_", "-"): v for name, v in headers.items()})


# The table: what each class means without and with a Retry-After, and what is tried, in order.
R = Remedy
PAGES: dict[FailureClass, tuple[Verdict, Verdict, list[Remedy]]] = {
    F.RATE_LIMITED: (FAIL, PAUSE, [R.FAILOVER, R.WAIT]),
    F.OVERLOADED: (FAIL, PAUSE, [R.FAILOVER, R.WAIT]),
    F.FIRST_TOKEN_TIMEOUT: (FAIL, FAIL, [R.FAILOVER, R.WAIT]),
    F.STALLED: (FAIL, FAIL, [R.FAILOVER, R.WAIT]),
    F.SERVER_ERROR: (FAIL, FAIL, [R.RETRY, R.FAILOVER, R.WAIT]),
    F.CONNECT: (FAIL, FAIL, [R.RECONNECT, R.FAILOVER, R.WAIT]),
    F.CUT_STREAM: (FAIL, FAIL, [R.RECONNECT, R.FAILOVER, R.WAIT]),
    F.MALFORMED: (FAIL, FAIL, [R.RETRY, R.FAILOVER, R.WAIT]),
    F.EMPTY: (FAIL, FAIL, [R.RETRY, R.FAILOVER, R.WAIT]),
    F.UNKNOWN: (FAIL, FAIL, [R.RETRY, R.FAILOVER, R.WAIT]),
    F.CONTEXT_OVERFLOW: (VOID, VOID, [R.FAILOVER, R.SHRINK_CONTEXT]),
    F.AUTH: (PAUSE_KEY, PAUSE_KEY, [R.FAILOVER, R.WAIT]),
    F.QUOTA_EXHAUSTED: (PAUSE_KEY, PAUSE_KEY, [R.FAILOVER, R.WAIT]),
    F.DEADLINE: (FAIL, FAIL, []),
    F.TRUNCATED: (VOID, VOID, [Remedy.GROW_ANSWER]),
    F.CONTENT_FILTERED: (VOID, VOID, []),
    F.BAD_REQUEST: (VOID, VOID, []),
    F.CANCELLED: (VOID, VOID, []),
}


def test_the_runbook_has_a_page_for_every_class() -> None:
    assert set(RUNBOOK) == set(PAGES) == set(F)


@every_class
def test_a_failure_means_what_the_table_says(kind: FailureClass) -> None:
    plain, asked, remedies = PAGES[kind]

    found = diagnose(ProviderError("x", failure_class=kind))
    waiting = diagnose(ProviderError("x", failure_class=kind, retry_after=7.0))

    assert found == Diagnosis(kind, plain, None)
    assert waiting == Diagnosis(kind, asked, 7.0)
    assert list(found.remedies) == remedies


@every_class
def test_no_remedy_is_tried_twice_nor_is_the_first_call_one(kind: FailureClass) -> None:
    remedies = RUNBOOK[kind]

    assert len({*remedies}) == len(remedies)
    assert Remedy.FIRST not in remedies


@pytest.mark.parametrize("kind", [F.BAD_REQUEST, F.CONTENT_FILTERED, F.CONTEXT_OVERFLOW])
def test_a_callers_mistake_is_never_counted_nor_sent_again_as_it_is(kind: FailureClass) -> None:
    found = diagnose(ERRORS[kind]("x", retry_after=1.0))

    assert found.verdict is VOID
    assert not found.same_again_may_help
    assert not {R.RETRY, R.RECONNECT, R.WAIT} & {*found.remedies}


@pytest.mark.parametrize("kind", [F.AUTH, F.QUOTA_EXHAUSTED])
def test_a_refused_key_is_not_tried_again_but_the_next_provider_is(kind: FailureClass) -> None:
    found = diagnose(ERRORS[kind]("x"))

    assert not found.same_again_may_help
    assert found.remedies[0] is R.FAILOVER


@every_class
def test_the_same_again_may_help_unless_it_is_hopeless_or_over(kind: FailureClass) -> None:
    no_use = {F.AUTH, F.QUOTA_EXHAUSTED, F.CONTEXT_OVERFLOW, F.BAD_REQUEST}
    no_use |= {F.CONTENT_FILTERED, F.DEADLINE, F.CANCELLED}

    assert Diagnosis(kind, FAIL).same_again_may_help is (kind not in no_use)


def test_the_classes_that_are_treated_alike() -> None:
    assert {F.AUTH, F.QUOTA_EXHAUSTED, F.CONTEXT_OVERFLOW, F.BAD_REQUEST} == HOPELESS
    assert {F.MALFORMED, F.EMPTY} == ONCE_MORE
    assert {F.FIRST_TOKEN_TIMEOUT, F.STALLED} == TIMEOUTS
    assert {F.RATE_LIMITED, F.OVERLOADED} == THROTTLED


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, F.BAD_REQUEST),
        (401, F.AUTH),
        (402, F.QUOTA_EXHAUSTED),
        (403, F.AUTH),
        (404, F.BAD_REQUEST),
        (408, F.SERVER_ERROR),
        (409, F.SERVER_ERROR),
        (413, F.CONTEXT_OVERFLOW),
        (422, F.BAD_REQUEST),
        (429, F.RATE_LIMITED),
        (499, F.BAD_REQUEST),
        (500, F.SERVER_ERROR),
        (502, F.SERVER_ERROR),
        (503, F.OVERLOADED),
        (504, F.SERVER_ERROR),
        (520, F.SERVER_ERROR),
        (529, F.OVERLOADED),
        (599, F.SERVER_ERROR),
        (200, F.MALFORMED),
        (302, F.MALFORMED),
        (399, F.MALFORMED),
    ],
)
def test_what_a_status_tells(status: int, kind: FailureClass) -> None:
    assert classify_status(status) is kind


@pytest.mark.parametrize("name", ["status_code", "status", "code"])
@given(status=st.integers(100, 599))
def test_an_sdks_error_is_judged_by_its_status(name: str, status: int) -> None:
    failure = SdkError("503 Overloaded: 429 too many requests, invalid key", **{name: status})

    assert classify(failure) is classify_status(status)


@pytest.mark.parametrize("status", [0, 1, 99, 600, 1006, True, None, "500", 500.0], ids=repr)
def test_a_number_that_is_no_status_tells_nothing(status: object) -> None:
    assert classify(SdkError(status_code=status, status=status, code=status)) is F.UNKNOWN


def test_the_first_attribute_that_holds_a_status_counts() -> None:
    failure = SdkError(status_code=None, status="RESOURCE_EXHAUSTED", code=429)

    assert classify(failure) is F.RATE_LIMITED


def test_a_status_counts_for_more_than_the_type() -> None:
    failure = HTTPError("http://localhost/", 401, "Unauthorized", Headers(), None)
    with failure:
        assert classify(failure) is F.AUTH


@pytest.mark.parametrize(
    ("failure", "kind", "verdict"),
    [
        (TimeoutError(), F.FIRST_TOKEN_TIMEOUT, FAIL),
        (ConnectionResetError(104, "reset"), F.CONNECT, FAIL),
        (ConnectionRefusedError(), F.CONNECT, FAIL),
        (OSError("no route"), F.CONNECT, FAIL),
        (EOFError(), F.CONNECT, FAIL),
        (asyncio.IncompleteReadError(b"", 4), F.CONNECT, FAIL),
        (asyncio.CancelledError(), F.CANCELLED, VOID),
        (KeyboardInterrupt(), F.CANCELLED, VOID),
        (GeneratorExit(), F.CANCELLED, VOID),
        (ValueError("429 rate limit exceeded"), F.UNKNOWN, FAIL),
        (RuntimeError("invalid api key"), F.UNKNOWN, FAIL),
        (StoreLocked("busy"), F.UNKNOWN, FAIL),
        (NoSuchProvider("a", ()), F.UNKNOWN, VOID),
        (ConversationBusy("busy"), F.FIRST_TOKEN_TIMEOUT, VOID),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_anything_else_is_judged_by_its_type(
    failure: BaseException, kind: FailureClass, verdict: Verdict
) -> None:
    assert diagnose(failure) == Diagnosis(kind, verdict)


def test_a_refusal_of_an_inner_layer_is_no_failure_and_says_how_long() -> None:
    found = diagnose(CircuitOpen("inner", 12.0))

    assert (found.verdict, found.retry_after) == (VOID, 12.0)


def test_facts_that_cannot_be_looked_at_are_none() -> None:
    class Moody(TimeoutError):
        @property
        def status_code(self) -> int:
            raise RuntimeError("no response")

        retry_after = response = headers = status_code

    assert diagnose(Moody()) == Diagnosis(F.FIRST_TOKEN_TIMEOUT, FAIL)


def test_cancelling_is_void_whatever_it_carries() -> None:
    cancelled = asyncio.CancelledError()
    cancelled.status_code = 500  # type: ignore[attr-defined]

    assert diagnose(cancelled) == Diagnosis(F.CANCELLED, VOID)


@pytest.mark.parametrize("status", [429, 503, 529])
@pytest.mark.parametrize(
    "asked",
    [
        {"retry_after": 7},
        {"retry_after": 7.0},
        {"retry_after": "7"},
        {"headers": {"retry-after": "7"}},
        {"headers": {"Retry-After": "7"}},
        {"headers": MappingProxyType({"retry-after": "7.0"})},
        {"response": response(retry_after="7")},
        {"response": response(retry_after="7"), "headers": {"retry-after": "9"}},
    ],
    ids=[
        *("a number", "a fraction", "a text", "a header", "a header in capitals"),
        *("read-only headers", "the response's header", "the response's before its own"),
    ],
)
def test_a_provider_that_says_how_long_is_left_alone_for_that(
    status: int, asked: dict[str, object]
) -> None:
    found = diagnose(SdkError(status_code=status, **asked))

    assert (found.verdict, found.retry_after) == (PAUSE, 7.0)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"},
        {"retry_after": -1.0},
        {"retry_after": float("nan")},
        {"retry_after": float("inf")},
        {"retry_after": [7]},
        {"headers": {}},
        {"headers": ["retry-after", "7"]},
        {"response": None},
        {"response": response(date="7")},
    ],
    ids=str,
)
def test_what_cannot_be_read_as_seconds_is_not_asked_for(asked: dict[str, object]) -> None:
    found = diagnose(SdkError(status_code=429, **asked))

    assert found == Diagnosis(F.RATE_LIMITED, FAIL)


def test_being_asked_to_wait_no_time_is_being_asked() -> None:
    assert diagnose(SdkError(status_code=429, retry_after=0)).verdict is PAUSE


class NoHeaders(dict[str, str]):
    def get(self, *names: object) -> Never:
        raise KeyError("they were never read")


@pytest.mark.parametrize(
    "asked",
    [
        {"retry_after": 10**400},
        {"headers": {"retry-after": 10**400}},
        {"headers": NoHeaders()},
        {"response": SimpleNamespace(headers=NoHeaders())},
    ],
    ids=["too large", "too large in a header", "headers that fail", "a response's that fail"],
)
@pytest.mark.parametrize("ours", [False, True], ids=["an SDK's", "one of ours"])
def test_a_wait_that_cannot_be_read_leaves_the_rest_of_the_diagnosis(
    asked: dict[str, object], ours: bool
) -> None:
    failure = ProviderError("x", failure_class=F.RATE_LIMITED) if ours else SdkError()
    vars(failure).update({"status_code": 429, **asked})

    assert diagnose(failure) == Diagnosis(F.RATE_LIMITED, FAIL)


def test_a_response_that_counts_as_false_is_read_all_the_same() -> None:
    class Refused(SimpleNamespace):
        """As those of `requests`: true for a success only."""

        def __bool__(self) -> bool:
            return False

    found = diagnose(SdkError(status_code=429, response=Refused(headers={"retry-after": "7"})))

    assert (found.verdict, found.retry_after) == (PAUSE, 7.0)


class Spelled(RateLimited):
    default_class = "overloaded"  # type: ignore[assignment]

    def __init__(self, **fields: object) -> None:
        vars(self).update(fields)  # and no super().__init__()


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Spelled(failure_class="stalled"), F.STALLED),
        (Spelled(failure_class="garbage"), F.OVERLOADED),
        (Spelled(failure_class=["stalled"]), F.OVERLOADED),
        (Spelled(), F.OVERLOADED),
        (Spelled(default_class=None), F.UNKNOWN),
    ],
    ids=["as text", "no class", "no text", "left out", "not even a default"],
)
def test_an_error_of_ours_with_an_odd_class_has_the_one_it_means(
    failure: ProviderError, kind: FailureClass
) -> None:
    assert classify(failure) is kind


@given(st.builds(SdkError, status_code=st.integers(), retry_after=st.floats() | st.text()))
def test_whatever_an_exception_carries_it_is_judged(failure: SdkError) -> None:
    found = diagnose(failure)

    assert found.remedies == RUNBOOK[found.failure_class]
    assert found.retry_after is None or 0.0 <= found.retry_after < float("inf")
