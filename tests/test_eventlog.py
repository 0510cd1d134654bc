from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from enum import StrEnum
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.learning.eventlog import (
    ACTIVITIES,
    AGENTS,
    NAME,
    OTHERS,
    SIZE,
    TASKS,
    TOKENS,
    EventReader,
    Odd,
)
from zejzl.learning.outcome import FAILURE, SUCCESS, UNKNOWN, OutcomeRule

GOOD: dict[str, object] = {
    "type": "plan",
    "conversation_id": "a",
    "timestamp": 10,
    "data": {},
}


def problem(event: object) -> str:
    with pytest.raises(Odd) as found:
        EventReader().read(event)
    return str(found.value)


def outcome(**fields: object) -> int:
    token, *_ = EventReader().read({**GOOD, **fields})
    return token.outcome


class Kind(StrEnum):
    PLAN = "plan"


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class BrokenZone(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        raise OSError("gone")

    dst = tzname = utcoffset  # type: ignore[assignment]


class BrokenDict(dict[str, object]):
    def get(self, *_: object) -> object:
        raise OSError("gone")

    def keys(self) -> object:  # type: ignore[override]
        raise OSError("gone")

    __iter__ = keys  # type: ignore[assignment]
    __bool__ = keys


class BrokenText(str):
    def __hash__(self) -> int:
        raise OSError("gone")

    def __len__(self) -> int:
        raise OSError("gone")

    def __getitem__(self, _: object) -> str:
        raise OSError("gone")

    __eq__ = __getitem__  # type: ignore[assignment]
    __str__ = __repr__ = __hash__  # type: ignore[assignment]


class BrokenKey(str):
    hashed = 0

    def __hash__(self) -> int:
        self.hashed += 1
        if self.hashed > 1:
            raise OSError("gone")
        return 1


class BrokenInt(int):
    def __hash__(self) -> int:
        raise OSError("gone")

    def __mul__(self, _: object) -> int:
        raise OSError("gone")

    __eq__ = __ge__ = __le__ = __gt__ = __lt__ = __mul__  # type: ignore[assignment]
    __abs__ = __bool__ = __str__ = __repr__ = __hash__  # type: ignore[assignment]
    __rmul__ = __format__ = __mul__  # type: ignore[assignment]


class BrokenMapping(Mapping[str, object]):
    def __getitem__(self, key: str) -> object:
        raise OSError("gone")

    def __iter__(self) -> Iterator[str]:
        return iter(("type",))

    def __len__(self) -> int:
        return 1


def nested(depth: int) -> object:
    found: object = 1
    for _ in range(depth):
        found = (found,)
    return found


class View(Mapping[str, object]):
    """A mapping that is no dict."""

    def __init__(self, body: dict[str, object]) -> None:
        self._body = body

    def __getitem__(self, key: str) -> object:
        return self._body[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._body)

    def __len__(self) -> int:
        return len(self._body)


@pytest.mark.parametrize(
    ("event", "word"),
    [
        (None, "not_an_event"),
        ("plan", "not_an_event"),
        ([GOOD], "not_an_event"),
        (BrokenMapping(), "not_an_event"),
        ({}, "no_type"),
        ({**GOOD, "type": None}, "no_type"),
        ({**GOOD, "type": ""}, "no_type"),
        ({"type": "plan", "data": {}}, "no_time"),
        ({**GOOD, "timestamp": None}, "no_time"),
        ({"type": "plan", "timestamp": 1}, "no_data"),
        ({"type": "plan", "timestamp": 1, "conversation_id": "a", "id": 1}, "no_data"),
        ({**GOOD, "data": None}, "no_data"),
        ({**GOOD, "timestamp": "soon"}, "wrong_time"),
        ({**GOOD, "timestamp": "9" * 10_000}, "wrong_time"),
        ({**GOOD, "timestamp": float("nan")}, "wrong_time"),
        ({**GOOD, "timestamp": float("inf")}, "wrong_time"),
        ({**GOOD, "timestamp": 10**400}, "wrong_time"),
        ({**GOOD, "timestamp": 1_700_000_000_000}, "wrong_time"),
        ({**GOOD, "timestamp": True}, "wrong_type"),
        ({**GOOD, "timestamp": [1]}, "wrong_type"),
        ({**GOOD, "type": 5}, "wrong_type"),
        ({"data": {"type": 5}, "timestamp": 1}, "wrong_type"),
        ({**GOOD, "data": "text"}, "wrong_type"),
        ({**GOOD, "data": BrokenMapping()}, "wrong_type"),
        ({**GOOD, "agent": 5}, "wrong_type"),
        ({**GOOD, "agent": []}, "wrong_type"),
        ({**GOOD, "task_type": {}}, "wrong_type"),
        ({**GOOD, "status": 200}, "wrong_type"),
        ({**GOOD, "error": 5}, "wrong_type"),
        ({**GOOD, "is_valid": "yes"}, "wrong_type"),
        ({**GOOD, "valid": 2}, "wrong_type"),
        ({**GOOD, "conversation_id": 1.5}, "wrong_type"),
        ({**GOOD, "conversation_id": True}, "wrong_type"),
        ({**GOOD, "duration_ms": "3"}, "wrong_type"),
        ({**GOOD, "duration_ms": -1}, "wrong_type"),
        ({**GOOD, "duration_ms": float("nan")}, "wrong_type"),
        ({**GOOD, "id": 1.5}, "wrong_type"),
        ({**GOOD, "id": 10**20_000}, "wrong_type"),
        ({**GOOD, "id": 16**NAME}, "oversized"),
        ({**GOOD, "conversation_id": 10**20_000}, "wrong_type"),
        ({**GOOD, "agent": nested(1_000_000)}, "wrong_type"),
        ({**GOOD, "timestamp": datetime(2023, 1, 1, tzinfo=BrokenZone())}, "wrong_time"),
        (BrokenDict(GOOD), "not_an_event"),
        ({**GOOD, "data": BrokenDict()}, "wrong_type"),
        ({**GOOD, "agent": BrokenText("ann")}, "wrong_type"),
        ({**GOOD, BrokenKey("x"): 1}, "not_an_event"),
        ({**GOOD, "data": {"x": Broken()}}, "wrong_type"),
        ({**GOOD, "data": {"x": nested(100_000)}}, "wrong_type"),
        ({**GOOD, "type": "x" * (NAME + 1)}, "oversized"),
        ({**GOOD, "agent": "x" * (NAME + 1)}, "oversized"),
        ({**GOOD, "conversation_id": "x" * (NAME + 1)}, "oversized"),
        ({**GOOD, "id": "x" * (NAME + 1)}, "oversized"),
        ({**GOOD, "error": "x" * 10_000_000}, "oversized"),
        ({**GOOD, "data": {"text": "x" * 10_000_000}}, "oversized"),
        ({**GOOD, "x": 1, "data": {"type": "x" * 10_000_000}}, "oversized"),
        ({**GOOD, "data": {"x" * SIZE: 1}}, "oversized"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_what_is_wrong_with_an_event_is_told_by_a_word(event: object, word: str) -> None:
    assert problem(event) == word


@pytest.mark.parametrize(
    "data",
    [
        {"agent": 5, "task_type": [], "status": 200, "error": 0.5, "is_valid": "yes"},
        {"conversation_id": [], "duration_ms": "3", "valid": None, "id": []},
    ],
    ids=["optional", "others"],
)
def test_in_data_a_field_of_another_kind_is_not_this_field(data: dict[str, object]) -> None:
    token, task, case, _, _, duration, error = EventReader().read({**GOOD, "data": data})

    assert (token.agent, token.outcome, task, duration, error) == (None, UNKNOWN, None, None, None)
    assert case == "a"


def test_a_field_is_read_at_the_top_level_then_in_data() -> None:
    inner: dict[str, object] = {
        "type": "plan",
        "conversation_id": "a",
        "timestamp": 3,
        "agent": "ann",
        "task_type": "t",
        "duration_ms": 2.5,
        "error": "no",
    }

    below = EventReader().read({"data": inner})
    above = EventReader().read({**inner, "data": {name: "x" for name in inner}})
    beside = EventReader().read({**dict.fromkeys(inner), "data": inner})

    for token, task, case, at, _, duration, error in (below, above, beside):
        assert (token.activity, token.agent, token.outcome) == ("plan", "ann", FAILURE)
        assert (task, case, at, duration, error) == ("t", "a", 3_000_000, 2_500, "no")


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        (1, 1.0),
        (1.5, 1.5),
        (-1.5, -1.5),
        ("1970-01-01T00:00:02Z", 2.0),
        ("1970-01-01 00:00:02.25", 2.25),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("19700102", 86_400.0),
        (datetime(1970, 1, 1, 0, 0, 3, tzinfo=UTC), 3.0),
        (datetime(1970, 1, 1, 0, 0, 3), 3.0),  # noqa: DTZ001 - one without a zone is meant
        (datetime(1970, 1, 1, 2, 0, 3, tzinfo=timezone(timedelta(hours=2))), 3.0),
        (datetime(1, 1, 1, tzinfo=UTC), -62_135_596_800.0),
        (253_402_300_799, 253_402_300_799.0),
    ],
    ids=str,
)
def test_a_time_is_seconds_text_or_a_datetime_and_utc_without_a_zone(
    stamp: object, seconds: float
) -> None:
    _, _, _, at, *_ = EventReader().read({**GOOD, "timestamp": stamp})

    assert at == seconds * 1_000_000


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, UNKNOWN),
        ({"status": "OK"}, SUCCESS),
        ({"status": " Timed out "}, FAILURE),
        ({"status": "cancelled"}, UNKNOWN),
        ({"error": "no"}, FAILURE),
        ({"error": ""}, UNKNOWN),
        ({"error": False}, UNKNOWN),
        ({"error": True}, FAILURE),
        ({"error": ValueError("x")}, FAILURE),
        ({"error": []}, UNKNOWN),
        ({"error": {}}, UNKNOWN),
        ({"error": ["a", "b"]}, FAILURE),
        ({"error": "no", "status": "ok"}, FAILURE),
        ({"is_valid": True, "status": "failed"}, SUCCESS),
        ({"is_valid": False, "valid": True}, FAILURE),
        ({"valid": 0}, FAILURE),
        ({"type": "executor"}, SUCCESS),
        ({"type": "executor", "error": "no"}, FAILURE),
        ({"type": "executor", "status": "running"}, UNKNOWN),
    ],
    ids=str,
)
def test_an_event_says_how_it_ended(fields: dict[str, object], expected: int) -> None:
    assert outcome(**fields) == expected
    if "type" not in fields:
        assert outcome(data=fields) == expected


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("x" * 5000, "x" * 2000),
        (True, ""),
        (ValueError("bad"), "ValueError: bad"),
        ({"message": "gone", "type": "T"}, "gone"),
        ({"type": "T"}, "T"),
        ({"code": 5}, ""),
        (["first", "second"], "first"),
        ([5], ""),
    ],
    ids=["long", "true", "exception", "message", "type", "mapping", "texts", "list"],
)
def test_of_an_error_its_text_remains(error: object, said: str) -> None:
    assert EventReader().read({**GOOD, "error": error})[-1] == said


def test_an_error_that_cannot_be_told_is_told_by_its_name() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert EventReader().read({**GOOD, "error": Mute()})[-1] == "Mute"


def test_mappings_and_enumerations_are_read_as_what_they_are() -> None:
    reader = EventReader()

    plain = reader.read(GOOD)
    odd = reader.read(View({**GOOD, "type": Kind.PLAN, "data": View({})}))

    assert odd[:4] == plain[:4]
    assert type(odd[0].activity) is str


def test_a_case_may_be_named_by_a_whole_number() -> None:
    assert EventReader().read({**GOOD, "conversation_id": 17})[2] == "17"
    below = {**GOOD, "conversation_id": None, "data": {"conversation_id": 17}}
    assert EventReader().read(below)[2] == "17"


def test_equal_events_have_equal_marks_and_others_have_not() -> None:
    reader = EventReader()

    marks = [
        reader.read({**GOOD, **fields})[4]
        for fields in (
            {},
            {},
            {"data": {"x": 1}},
            {"data": {"x": 2}},
            {"data": {"status": "begun"}},
            {"data": {"status": "waiting"}},
            {"x": 1},
            {"duration_ms": 1},
            {"duration_ms": 2},
            {"error": "no 1"},
            {"error": "no 2"},
            {"data": {"x": "\ud800"}},
        )
    ]

    assert marks[0] == marks[1]
    assert len(set(marks)) == len(marks) - 1


@pytest.mark.parametrize("order", [*permutations((True, 1, 1.0))], ids=str)
def test_what_was_read_before_changes_nothing_of_what_is_equal_to_it(
    order: tuple[object, ...],
) -> None:
    rule = OutcomeRule.parse("success = flag == true")
    reader = EventReader(rule)

    for value in order:
        event = {**GOOD, "is_valid": value, "flag": value}
        alone = EventReader(rule).read(event)
        token, *_, mark, _, _ = reader.read(event)
        assert (token.vote, mark) == (alone[0].vote, alone[4])


@pytest.mark.parametrize(
    "fields",
    [
        {name: value}
        for name in ("type", "agent", "task_type", "status", "error", "conversation_id", "id", "x")
        for value in (BrokenText("x"), [BrokenText("x")], {"message": BrokenText("x")})
    ]
    + [
        {name: BrokenInt(1)}
        for name in ("timestamp", "duration_ms", "is_valid", "conversation_id", "id", "status")
    ],
    ids=lambda fields: "-".join(fields),
)
def test_a_class_whose_methods_raise_is_read_without_them_or_told_by_a_word(
    fields: dict[str, object],
) -> None:
    for event in ({**GOOD, **fields}, {**GOOD, "data": fields}, {**GOOD, "error": [fields]}):
        reader = EventReader()
        try:
            token, task, case, at, mark, duration, error = reader.read(event)
        except Odd as odd:
            assert str(odd) in ("wrong_type", "not_an_event")
            continue
        for value in (token.activity, token.agent, task, case, at, mark, duration, error):
            assert type(value) in (str, int, type(None))


def test_names_beyond_the_most_are_one_name() -> None:
    reader = EventReader()

    for number in range(ACTIVITIES + 1):
        last = reader.read({**GOOD, "type": f"t{number}"})[0]
    assert last.activity == OTHERS
    for number in range(AGENTS + 1):
        last = reader.read({**GOOD, "type": "t1", "agent": f"a{number}"})[0]
    assert (last.activity, last.agent) == ("t1", OTHERS)
    for number in range(TASKS + 1):
        task = reader.read({**GOOD, "type": "t1", "task_type": f"k{number}"})[1]
    assert task == OTHERS


def test_what_is_kept_of_ever_new_events_is_bounded() -> None:
    reader = EventReader()
    for number in range(TOKENS + 50):
        reader.token(f"t{number % 999}", f"a{number // 999}", UNKNOWN, UNKNOWN)
    for number in range(3_000):
        reader.read({**GOOD, f"field{number}": 1})
    rated = EventReader(OutcomeRule.parse("success = reward >= 1"))
    for number in range(12_000):
        rated.read({**GOOD, "data": {"reward": number}})

    assert len(reader.tokens) <= TOKENS + 1_000
    assert len(reader._shapes) <= 1_000
    assert sum(len(plan.known) for plan in rated._shapes.values()) <= 10_000


def test_a_rule_votes_by_the_field_that_it_names() -> None:
    reader = EventReader(OutcomeRule.parse("success = reward >= 1"))

    votes = [
        reader.read({**GOOD, "type": kind, **fields})[0].vote
        for kind, fields in (
            ("plan", {"reward": 1}),
            ("plan", {"data": {"reward": "0.0"}}),
            ("executor", {}),
        )
    ]

    assert votes == [SUCCESS, FAILURE, UNKNOWN]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [
        *("type", "data", "conversation_id", "timestamp", "agent", "task_type", "status"),
        *("error", "duration_ms", "is_valid", "valid", "id"),
    ]
)


@given(
    ANYTHING
    | st.dictionaries(FIELDS, ANYTHING)
    | st.builds(
        lambda top, data: {**GOOD, **top, "data": data},
        st.dictionaries(FIELDS, ANYTHING),
        st.dictionaries(FIELDS, ANYTHING),
    )
)
def test_nothing_but_its_word_is_ever_raised_and_twice_the_same(event: object) -> None:
    reader = EventReader()

    found = []
    for _ in range(2):
        try:
            found.append(reader.read(event))
        except Odd as odd:
            found.append(str(odd))  # type: ignore[arg-type]

    assert found[0] == found[1]
