import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.learning.outcome import FAILURE, SUCCESS, UNKNOWN, OutcomeRule, decide, endings
from zejzl.learning.patterns import Endings


def rule(text: str) -> OutcomeRule:
    return OutcomeRule.parse(text)


@pytest.mark.parametrize(
    ("text", "activity", "before"),
    [
        ("failure = case contains 'Send for Credit Collection'", "Send for Credit Collection", ()),
        ('FAILURE=case  contains "it\'s"', "it's", ()),
        ("failure = case contains Add penalty", "Add penalty", ()),
        ("failure = case contains 'A' before 'B'", "A", ("B",)),
        ("failure = case contains A x before 'B, c', \"D\"", "A x", ("B, c", "D")),
        ("failure = case contains A before B, C", "A", ("B", "C")),
        ("failure = case contains A before b x, 'B, c' ,it's", "A", ("b x", "B, c", "it's")),
        ("failure = case contains 'A before' before \"before\"", "A before", ("before",)),
        ("failure = case contains beforehand", "beforehand", ()),
    ],
)
def test_a_rule_names_an_activity(text: str, activity: str, before: tuple[str, ...]) -> None:
    found = rule(text)

    assert (found.result, found.activity, found.before) == (FAILURE, activity, before)


@pytest.mark.parametrize(
    ("text", "field", "compare", "value"),
    [
        ("success = reward >= 1", "reward", ">=", 1.0),
        ("success = reward=1", "reward", "==", 1.0),
        ("success = total paid < 3.5", "total paid", "<", 3.5),
        ("success = 'a = b' != 'x y'", "a = b", "!=", "x y"),
        ("success = status == done", "status", "==", "done"),
        ("success = code == '1'", "code", "==", "1"),
    ],
)
def test_a_rule_compares_a_field(text: str, field: str, compare: str, value: object) -> None:
    found = rule(text)

    assert (found.result, found.field, found.compare, found.value) == (
        SUCCESS,
        field,
        compare,
        value,
    )


@pytest.mark.parametrize(
    "text",
    ["", "reward >= 1", "win = x > 1", "success =", "success = x", "success = x > many", "failure"],
)
def test_what_is_no_rule_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an outcome rule: .*for example \"failure = case"):
        rule(text)


@pytest.mark.parametrize(
    "said",
    [
        *("'a' before", "a before", "before", "before 'b'", "'a' before ''", "''", "'a"),
        *("'a', 'b'", "'a' after 'b'", "'a' before 'b' x", "'a' before 'b',", "a before b,,c"),
        *(
            "a before 'b' before 'c'",
            "a before b before c",
            "a before 'b",
            "x" * 1_000,
            "before = b",
        ),
    ],
)
def test_half_a_rule_about_activities_is_no_rule(said: str) -> None:
    with pytest.raises(ValueError, match=r"not an outcome rule: .*for example \"failure = case"):
        rule(f"failure = case contains {said}")


@given(st.text(max_size=40))
def test_any_text_is_a_rule_or_a_value_error(text: str) -> None:
    for said in (text, f"success = {text}", f"failure = case contains {text}"):
        try:
            found = rule(said)
        except ValueError:
            continue
        assert rule(found.text) == found


@pytest.mark.parametrize(
    ("text", "value", "vote"),
    [
        ("success = reward >= 1", 1, SUCCESS),
        ("success = reward >= 1", "1.0", SUCCESS),
        ("success = reward >= 1", 0.5, FAILURE),
        ("success = reward >= 1", "", UNKNOWN),
        ("success = reward >= 1", "many", UNKNOWN),
        ("success = reward >= 1", None, UNKNOWN),
        ("success = reward >= 1", [], UNKNOWN),
        ("success = reward >= 1", float("nan"), UNKNOWN),
        ("success = reward >= 1", 10**400, SUCCESS),
        ("success = reward == 1", True, SUCCESS),
        ("success = reward != 1", 2, SUCCESS),
        ("success = reward < 1", 0, SUCCESS),
        ("success = reward <= 1", 2, FAILURE),
        ("failure = reward > 1", 2, FAILURE),
        ("success = reward == Yes", "yes", SUCCESS),
        ("success = reward == true", True, SUCCESS),
        ("success = reward != yes", "no", SUCCESS),
        ("success = reward == yes", "", UNKNOWN),
        ("success = reward == yes", {}, UNKNOWN),
    ],
)
def test_an_event_votes_by_its_field(text: str, value: object, vote: int) -> None:
    assert rule(text).vote({"reward": value}, {}) == vote
    assert rule(text).vote({}, {"reward": value}) == vote


def test_a_case_that_contains_the_activity_ended_as_stated_and_else_the_contrary() -> None:
    found = rule("failure = case contains c before b")

    assert found.decide("abc", (0, 0, 0)) == (FAILURE, 1)
    assert found.decide("ab", (0, 0)) == (SUCCESS, 1)
    assert found.decide("acb", (0, 0, 0)) == (FAILURE, 1)
    assert found.decide("aa", (0, 0)) == (SUCCESS, 2)


def test_the_last_vote_decides_and_what_was_before_the_first_is_what_led_there() -> None:
    found = rule("success = reward >= 1")

    assert found.decide("abc", (0, FAILURE, SUCCESS)) == (SUCCESS, 1)
    assert found.decide("abc", (0, 0, 0)) == (UNKNOWN, 3)


def test_a_field_of_every_event_is_the_cases_own() -> None:
    assert rule("success = r = 1").decide("abc", (FAILURE,) * 3) == (FAILURE, 3)


def test_without_a_rule_the_executor_decides_else_the_last_validation() -> None:
    case = ("plan", "validation", "validation", "executor")

    assert decide(case, (0, SUCCESS, SUCCESS, FAILURE)) == (FAILURE, 3)
    assert decide(case, (0, SUCCESS, FAILURE, 0)) == (FAILURE, 2)
    assert decide(case, (0, SUCCESS, 0, 0)) == (SUCCESS, 1)
    assert decide(case, (SUCCESS, 0, 0, 0)) == (UNKNOWN, 4)


def test_counts_by_code_are_endings() -> None:
    assert endings([1, 2, 3]) == Endings(success=2, failure=3, unknown=1)
