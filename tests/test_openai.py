"""OpenAI's wire: what is asked in its words, and what its answers mean."""

from typing import Any

import pytest

from zejzl.errors import (
    ContentFiltered,
    Malformed,
    ProviderError,
    ProviderOverloaded,
    ServerError,
)
from zejzl.messages import FinishReason, Reply, Request, Turn, Usage
from zejzl.providers.adapter import Reader
from zejzl.providers.openai import OpenAICompatible, OpenAIReader


def answer(content: Any = "hello", finish: Any = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def chunk(finish: Any = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def whole(body: dict[str, Any]) -> Reply:
    reader = OpenAIReader("p", "asked")
    reader.whole(body)
    return reader.reply()


def fed(*events: dict[str, Any]) -> Reader:
    reader = OpenAIReader("p", "asked")
    for event in events:
        reader.piece(event)
    return reader


# ── what is asked ─────────────────────────────────────────────────────────────────────────────


def test_a_bare_request_holds_nothing_that_was_not_asked_for() -> None:
    body = OpenAICompatible().body(Request(content="hi"), "m", stream=False)

    assert body == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_instructions_come_first_and_earlier_ones_stay_where_they_were() -> None:
    history = (Turn("user", "one"), Turn("system", "aside"), Turn("assistant", "two"))

    body = OpenAICompatible().body(
        Request(content="three", history=history, system="be brief"), "m", stream=False
    )

    said = [(message["role"], message["content"]) for message in body["messages"]]
    assert said == [
        ("system", "be brief"),
        ("user", "one"),
        ("system", "aside"),
        ("assistant", "two"),
        ("user", "three"),
    ]


def test_the_limit_is_called_what_the_server_calls_it() -> None:
    provider = OpenAICompatible(max_tokens_field="max_completion_tokens")

    body = provider.body(Request(content="hi", max_tokens=5), "m", stream=False)

    assert body["max_completion_tokens"] == 5
    assert "max_tokens" not in body


def test_a_temperature_of_zero_is_sent() -> None:
    body = OpenAICompatible().body(Request(content="hi", temperature=0.0), "m", stream=False)

    assert body["temperature"] == 0.0


# ── what the answer means ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
    ],
)
def test_a_finish_reason_is_normalised(finish: str, expected: FinishReason) -> None:
    assert whole(answer(finish=finish)).finish_reason == expected


@pytest.mark.parametrize(
    ("finish", "expected"),
    [("insufficient_system_resource", ProviderOverloaded), ("network_error", ServerError)],
    ids=["DeepSeek", "Z.ai"],
)
def test_a_finish_reason_that_is_a_failure_is_raised(
    finish: str, expected: type[ProviderError]
) -> None:
    with pytest.raises(expected) as caught:
        whole(answer(finish=finish))

    assert caught.value.code == finish


@pytest.mark.parametrize("finish", ["content_filter", "sensitive"])
def test_filtered_content_is_refused_with_the_providers_reason(finish: str) -> None:
    with pytest.raises(ContentFiltered, match=finish) as caught:
        whole(answer(finish=finish))

    assert caught.value.code == finish


def test_a_refusal_is_told_in_its_own_words() -> None:
    with pytest.raises(ContentFiltered, match="I cannot help with that") as caught:
        whole(answer(content=None, refusal="I cannot help with that"))

    assert caught.value.code == "refusal"


def test_a_refusal_in_pieces_is_put_together() -> None:
    reader = fed(
        chunk(role="assistant", content=None, refusal=""),
        chunk(refusal="I cannot "),
        chunk(refusal="help"),
        chunk(finish="stop"),
    )

    with pytest.raises(ContentFiltered, match="I cannot help"):
        reader.reply()


def test_the_usage_of_a_stream_comes_after_its_finish_reason() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    reader = fed(
        {**chunk(content="a"), "usage": None, "model": "told"},
        chunk(finish="stop"),
        {"choices": [], "usage": usage, "model": "told"},
    )

    expected = Reply(text="a", provider="p", model="told", usage=Usage(3, 2))
    assert reader.reply() == expected


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": None},
        {"choices": "stop"},
        {"choices": []},
        {"choices": ["stop"]},
        {"choices": [{}]},
        {"choices": [{"message": "hello"}]},
        answer(content=["hello"]),
        answer(content=7),
        answer(finish="because"),
        answer(finish={"stop": True}),
        answer(finish=["stop"]),
        answer(finish=True),
    ],
    ids=repr,
)
def test_what_the_api_does_not_promise_is_malformed(body: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        whole(body)


@pytest.mark.parametrize("event", [{}, {"choices": [{}]}, {"choices": [{"delta": 1}]}], ids=repr)
def test_an_event_that_the_api_does_not_promise_is_malformed(event: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        fed(event)
