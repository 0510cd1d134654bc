"""Messages are whole turns: frozen, versioned, and the same after a trip through JSON."""

import json
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.errors import StoreTooNew
from zejzl.messages import VERSION, Message, Reply, Turn, Usage

texts = st.text()
messages = st.builds(
    Message,
    timestamp=st.datetimes(timezones=st.just(UTC)),
    response_time=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


def asked() -> Message:
    return Message.create("What is zejzl?", "ann", "claude", "support-42")


@given(messages)
def test_a_message_comes_back_from_json_as_it_was(message: Message) -> None:
    assert Message.from_json(json.loads(json.dumps(message.to_json()))) == message


def test_a_new_message_has_its_own_id_the_present_time_and_no_answer() -> None:
    first, second = asked(), asked()

    assert first.id != second.id
    assert first.timestamp.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - first.timestamp) < timedelta(minutes=1)
    assert (first.response, first.response_time, first.error) == (None, None, None)


def test_a_message_belongs_to_the_default_conversation_unless_told() -> None:
    assert Message.create("hi", "ann", "claude").conversation_id == "default"
    assert Message.create("hi", "ann", "claude", None).conversation_id is None


def test_half_a_turn_is_no_turn() -> None:
    assert asked().turns() == ()


def test_an_answered_message_is_question_and_answer() -> None:
    question = asked()

    whole = question.answered("An async message bus.", "chatgpt", 0.5)

    assert whole.turns() == (
        Turn("user", "What is zejzl?"),
        Turn("assistant", "An async message bus."),
    )
    assert (whole.provider, whole.response_time) == ("chatgpt", 0.5)
    assert (whole.id, whole.sender, whole.timestamp) == (
        question.id,
        question.sender,
        question.timestamp,
    )
    assert question.response is None


def test_an_empty_answer_is_an_answer() -> None:
    assert len(asked().answered("", "claude", 0.1).turns()) == 2


def test_a_message_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        asked().content = "something else"  # type: ignore[misc]


def test_a_newer_version_is_refused_as_newer() -> None:
    with pytest.raises(StoreTooNew, match="version 2"):
        Message.from_json({**asked().to_json(), "v": VERSION + 1})


def test_a_missing_field_is_named() -> None:
    body = asked().to_json()
    del body["sender"]

    with pytest.raises(ValueError, match="not a message: 'sender' is missing"):
        Message.from_json(body)


def test_a_reply_cut_at_its_limit_is_truncated() -> None:
    assert Reply(text="and then", provider="claude", finish_reason="length").truncated
    assert not Reply(text="the end", provider="claude").truncated


def test_usage_adds_up() -> None:
    assert Usage(prompt_tokens=7, completion_tokens=5).total_tokens == 12
    assert Usage(prompt_tokens=7).total_tokens is None
