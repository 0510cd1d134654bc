"""Gemini's wire: what is asked in its words, and what its answers mean."""

from typing import Any

import pytest

from zejzl.errors import ContentFiltered, Incomplete, Malformed
from zejzl.messages import FinishReason, Reply, Request, Turn, Usage
from zejzl.providers.adapter import Reader
from zejzl.providers.gemini import Gemini, GeminiReader


def answer(*texts: Any, finish: Any = "STOP", **more: Any) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": text} for text in texts or ("hello",)]}
    return {"candidates": [{"content": content, "finishReason": finish}], **more}


def whole(body: dict[str, Any]) -> Reply:
    reader = GeminiReader("p", "asked")
    reader.whole(body)
    return reader.reply()


def fed(*events: dict[str, Any]) -> Reader:
    reader = GeminiReader("p", "asked")
    for event in events:
        reader.piece(event)
    return reader


# ── what is asked ─────────────────────────────────────────────────────────────────────────────


def test_a_bare_request_holds_nothing_that_was_not_asked_for() -> None:
    body = Gemini().body(Request(content="hi"), "m", stream=False)

    assert body == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def test_instructions_stand_apart_wherever_they_were_given() -> None:
    history = (Turn("user", "one"), Turn("system", "aside"), Turn("assistant", "two"))

    body = Gemini().body(
        Request(content="three", history=history, system="be brief"), "m", stream=False
    )

    assert body["systemInstruction"] == {"parts": [{"text": "be brief\n\naside"}]}
    said = [(content["role"], content["parts"][0]["text"]) for content in body["contents"]]
    assert said == [("user", "one"), ("model", "two"), ("user", "three")]


def test_a_temperature_of_zero_is_sent() -> None:
    body = Gemini().body(Request(content="hi", temperature=0.0), "m", stream=False)

    assert body["generationConfig"] == {"temperature": 0.0}


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-2.5-flash", "/v1beta/models/gemini-2.5-flash:generateContent"),
        ("../files?x=1#y", "/v1beta/models/..%2Ffiles%3Fx%3D1%23y:generateContent"),
    ],
    ids=["a name", "mischief"],
)
def test_a_model_is_one_step_of_the_path_whatever_it_is_called(model: str, path: str) -> None:
    url = Gemini("http://host").url(model, stream=False)

    assert (url.raw_path, url.query_string, url.fragment) == (path, "", "")


# ── what the answer means ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("finish", "expected"), [("STOP", "stop"), ("MAX_TOKENS", "length")])
def test_a_finish_reason_is_normalised(finish: str, expected: FinishReason) -> None:
    assert whole(answer(finish=finish)).finish_reason == expected


@pytest.mark.parametrize(
    "finish", ["SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"]
)
def test_an_answer_stopped_for_its_content_is_refused_with_the_reason(finish: str) -> None:
    with pytest.raises(ContentFiltered, match=f"content: {finish}") as caught:
        whole(answer(finish=finish))

    assert caught.value.code == finish


@pytest.mark.parametrize(
    ("feedback", "words"),
    [
        ({"blockReason": "OTHER"}, "OTHER"),
        ({"blockReason": "SAFETY", "blockReasonMessage": "It is unsafe."}, "It is unsafe."),
    ],
    ids=["a reason", "words"],
)
def test_a_blocked_prompt_is_refused_with_the_reason(feedback: dict[str, str], words: str) -> None:
    with pytest.raises(ContentFiltered, match=f"content: {words}") as caught:
        whole({"promptFeedback": feedback})

    assert caught.value.code == feedback["blockReason"]


def test_feedback_that_blocks_nothing_is_no_refusal() -> None:
    assert whole(answer(promptFeedback={"safetyRatings": []})).text == "hello"


def test_an_unspecified_reason_is_none() -> None:
    with pytest.raises(Incomplete):
        whole(answer(finish="FINISH_REASON_UNSPECIFIED"))


def test_thoughts_are_counted_but_not_part_of_the_text() -> None:
    parts = [{"text": "hm", "thought": True}, {"text": "hello"}, {"inlineData": {}}, "?"]
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 1, "thoughtsTokenCount": 9}
    candidate = {"content": {"parts": parts}, "finishReason": "STOP"}

    reply = whole({"candidates": [candidate], "usageMetadata": usage})

    assert (reply.text, reply.usage) == ("hello", Usage(3, 10))


def test_a_stream_is_its_texts_with_the_last_counts_and_its_own_id() -> None:
    reader = fed(
        answer("a", "b", finish=None, responseId="r1", usageMetadata={"promptTokenCount": 3}),
        {"usageMetadata": {"candidatesTokenCount": 1}},
        {"candidates": []},
        {"candidates": [{"content": {"role": "model"}}]},
        {"candidates": [{"finishReason": "STOP"}], "modelVersion": "told", "responseId": "r1"},
        {"usageMetadata": {"candidatesTokenCount": 2}},
    )

    expected = Reply(text="ab", provider="p", model="told", usage=Usage(3, 2), request_id="r1")
    assert reader.reply() == expected


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"candidates": []},
        {"candidates": {"a": 1}},
        {"candidates": ["hello"]},
        {"candidates": [{"content": "hello"}]},
        {"candidates": [{"content": {"parts": "hello"}}]},
        answer(7),
        answer(["hello"]),
        answer(finish="BECAUSE"),
        answer(finish={"STOP": True}),
        answer(finish=["STOP"]),
    ],
    ids=repr,
)
def test_what_the_api_does_not_promise_is_malformed(body: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        whole(body)
