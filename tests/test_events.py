"""Events survive the way to JSON and back, in any version order."""

import json
import re
from datetime import UTC, datetime
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.errors import StoreTooNew
from zejzl.events import (
    TYPES,
    VERSION,
    BreakerChanged,
    Event,
    RecoveryRecorded,
    RunbookPerformed,
    RunbookStep,
    check_text,
    from_json,
    tag,
    to_json,
    utc,
)

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
CHANGED = BreakerChanged(
    name="ai_provider:claude",
    before="closed",
    after="open",
    generation=1,
    reason="3 failures",
    timestamp=NOON,
)
RECORDED = RecoveryRecorded(
    target="claude",
    issue="HTTP 500",
    failure_class="server_error",
    remedy="retry",
    success=True,
    verified=True,
    energy_used=10.0,
    timestamp=NOON,
    outcome="ok",
)
STEP: RunbookStep = {"what": "warm the cache", "ok": True, "seconds": 0.5, "said": "warmed"}
PERFORMED = RunbookPerformed(
    name="deploy", success=True, steps=(STEP,), sentence="deploy: warmed.", timestamp=NOON
)

times = st.datetimes(timezones=st.just(UTC))
numbers = st.floats(allow_nan=False, allow_infinity=False)
steps = st.fixed_dictionaries(
    {"what": st.text(), "ok": st.booleans(), "seconds": numbers, "said": st.text()}
)
CHOSEN: dict[object, st.SearchStrategy[object]] = {
    datetime: times,
    float: numbers,
    float | None: st.none() | numbers,
    tuple[RunbookStep, ...]: st.lists(steps).map(tuple),
}
events: st.SearchStrategy[Event] = st.one_of(
    [
        st.builds(
            cls,
            **{
                name: CHOSEN.get(hint, st.from_type(hint))
                for name, hint in get_type_hints(cls).items()
            },
        )
        for cls in TYPES.values()
    ]
)


@given(events)
def test_an_event_comes_back_from_json_as_it_was(event: Event) -> None:
    assert from_json(json.loads(json.dumps(to_json(event)))) == event


def test_every_event_has_a_tag_of_its_own_in_the_stored_form() -> None:
    assert len({*TYPES.values()}) == len(TYPES)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in TYPES)
    assert {*TYPES.values()} == {*Event.__args__}


def test_the_stored_form_is_what_other_programs_may_read() -> None:
    assert to_json(CHANGED) == {
        "v": 1,
        "type": "breaker_changed",
        "name": "ai_provider:claude",
        "before": "closed",
        "after": "open",
        "generation": 1,
        "reason": "3 failures",
        "timestamp": "2026-11-22T12:00:00.123456+00:00",
    }
    assert tag(CHANGED) == "breaker_changed"


def test_a_newer_version_is_refused_as_newer() -> None:
    with pytest.raises(StoreTooNew, match="version 2"):
        from_json({**to_json(CHANGED), "v": VERSION + 1})


def test_an_unknown_type_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'breaker_melted'"):
        from_json({**to_json(CHANGED), "type": "breaker_melted"})


def test_a_runbooks_steps_are_stored_as_plain_json() -> None:
    assert json.loads(json.dumps(to_json(PERFORMED)))["steps"] == [STEP]


def test_a_row_that_is_older_than_a_field_gets_the_fields_default() -> None:
    body = to_json(RECORDED)
    older = {name: value for name, value in body.items() if value is not None}

    assert "request_id" not in older
    assert from_json(older) == RECORDED


@pytest.mark.parametrize("field", ["name", "generation", "timestamp"])
def test_a_missing_field_is_named(field: str) -> None:
    body = {name: value for name, value in to_json(CHANGED).items() if name != field}

    with pytest.raises(ValueError, match=f"not a breaker_changed: '{field}' is missing"):
        from_json(body)


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="yesterday"):
        from_json({**to_json(CHANGED), "timestamp": "yesterday"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("target", None), ("target", 5), ("target", ["a"]), ("target", {})],
        *[("success", None), ("success", "no"), ("success", 1)],
        *[("verified", "no"), ("verified", 1)],
        *[("energy_used", None), ("energy_used", "x"), ("energy_used", True)],
        *[("energy_used", float("nan")), ("energy_used", 10**400)],
        *[("cost", "x"), ("cost", False), ("cost", float("inf"))],
        ("timestamp", "2026-11-22T12:00:00"),
        ("timestamp", 5),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_value_that_cannot_be_is_refused_and_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"^not a recovery_recorded: .*(time|'\w+' cannot be)"):
        from_json({**to_json(RECORDED), name: value})


@pytest.mark.parametrize("body", [[], [1], 5, "text", None, True], ids=repr)
def test_what_is_no_object_is_no_event(body: Any) -> None:
    with pytest.raises(ValueError, match="not an event"):
        from_json(body)


def test_a_whole_number_is_a_number() -> None:
    assert from_json({**to_json(RECORDED), "energy_used": 10}) == RECORDED


def test_text_is_checked_by_name() -> None:
    check_text("author", "añada")
    with pytest.raises(TypeError, match=r"^author must be text, not int$"):
        check_text("author", 7)
    with pytest.raises(ValueError, match=r"^author is not storable: .* at position 1$"):
        check_text("author", "a\ud800")


def test_a_field_that_is_not_ours_is_left_out() -> None:
    assert from_json({**to_json(CHANGED), "colour": "blue"}) == CHANGED


def test_wall_seconds_become_aware_utc() -> None:
    assert utc(0.0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert utc(0.0).utcoffset() is not None
