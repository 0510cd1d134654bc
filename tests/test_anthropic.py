"""Anthropic's wire: what is asked in its words, and what its answers mean."""

from typing import Any

import pytest

from zejzl.errors import ContentFiltered, Malformed
from zejzl.messages import FinishReason, Reply, Request, Turn, Usage
from zejzl.providers.adapter import Reader
from zejzl.providers.anthropic import MAX_TOKENS, Anthropic, AnthropicReader


def answer(*blocks: Any, stop: Any = "end_turn", **more: Any) -> dict[str, Any]:
    found = list(blocks or (text("hello"),))
    return {"type": "message", "content": found, "stop_reason": stop, **more}


def text(words: Any) -> dict[str, Any]:
    return {"type": "text", "text": words}


def delta(words: Any, kind: str = "text_delta") -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": kind, "text": words}}


def end(stop: Any = "end_turn", **more: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": stop}, **more}


def whole(body: dict[str, Any]) -> Reply:
    reader = AnthropicReader("p", "asked")
    reader.whole(body)
    return reader.reply()


def fed(*events: dict[str, Any]) -> Reader:
    reader = AnthropicReader("p", "asked")
    for event in events:
        reader.piece(event)
    return reader


# ── what is asked ─────────────────────────────────────────────────────────────────────────────


def test_a_bare_request_has_the_limit_that_the_api_demands_and_nothing_more() -> None:
    body = Anthropic().body(Request(content="hi"), "m", stream=False)

    messages = [{"role": "user", "content": "hi"}]
    assert body == {"model": "m", "max_tokens": MAX_TOKENS, "messages": messages}


def test_instructions_stand_apart_wherever_they_were_given() -> None:
    history = (Turn("user", "one"), Turn("system", "aside"), Turn("assistant", "two"))

    body = Anthropic().body(
        Request(content="three", history=history, system="be brief"), "m", stream=False
    )

    assert body["system"] == "be brief\n\naside"
    said = [(message["role"], message["content"]) for message in body["messages"]]
    assert said == [("user", "one"), ("assistant", "two"), ("user", "three")]


def test_a_temperature_of_zero_is_sent() -> None:
    body = Anthropic().body(Request(content="hi", temperature=0.0), "m", stream=False)

    assert body["temperature"] == 0.0


# ── what the answer means ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("tool_use", "tool_calls"),
    ],
)
def test_a_stop_reason_is_normalised(stop: str, expected: FinishReason) -> None:
    assert whole(answer(stop=stop)).finish_reason == expected


@pytest.mark.parametrize(
    ("details", "words"),
    [
        (None, "refusal"),
        ({"category": None, "explanation": None}, "refusal"),
        ({"category": "bio"}, "bio"),
        ({"category": "bio", "explanation": "It is about germs."}, "It is about germs."),
        ({"category": 7}, "refusal"),
    ],
    ids=["no details", "empty", "a category", "an explanation", "nonsense"],
)
def test_a_refusal_is_told_with_its_reason(details: Any, words: str) -> None:
    with pytest.raises(ContentFiltered, match=f"content: {words}") as caught:
        whole(answer(text(""), stop="refusal", stop_details=details))

    assert caught.value.code == "refusal"


def test_only_the_texts_of_an_answer_are_its_text() -> None:
    thoughts = {"type": "thinking", "thinking": "hm", "text": "hm"}

    assert whole(answer(thoughts, text("one "), "?", text(None), text("two"))).text == "one two"


def test_a_stream_is_its_texts_with_the_usage_of_both_ends() -> None:
    head = {"model": "told", "usage": {"input_tokens": 3, "output_tokens": 1}}
    reader = fed(
        {"type": "message_start", "message": head},
        {"type": "ping"},
        {"type": "content_block_start", "content_block": text("a")},
        delta("b"),
        delta("hm", "thinking_delta"),
        {"type": "content_block_stop"},
        {"type": "content_block_start", "content_block": {"type": "tool_use", "text": "no"}},
        {"type": "of_a_later_version", "text": "no"},
        end(usage={"output_tokens": 2}),
        {"type": "message_stop"},
    )

    assert reader.reply() == Reply(text="ab", provider="p", model="told", usage=Usage(3, 2))
    assert reader.done


def test_a_stream_is_not_done_before_its_stop() -> None:
    assert not fed(delta("a"), end()).done


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"content": None},
        {"content": "hello"},
        answer(text(7)),
        answer(text(["hello"])),
        answer(stop="because"),
        answer(stop={"end_turn": True}),
        answer(stop=["end_turn"]),
    ],
    ids=repr,
)
def test_what_the_api_does_not_promise_is_malformed(body: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        whole(body)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "message_start"},
        {"type": "content_block_start", "content_block": "text"},
        {"type": "content_block_delta", "delta": None},
        {"type": "message_delta"},
        delta(7),
    ],
    ids=repr,
)
def test_an_event_that_the_api_does_not_promise_is_malformed(event: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        fed(event)
