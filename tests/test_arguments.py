"""The edge, as properties; `test_ai_framework.py` shows it through the bus."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.driving import assert_nothing_is_left, finished, make_bus, register
from zejzl.engine.arguments import checked_name, checked_reply, checked_text
from zejzl.errors import Malformed, ZejzlError
from zejzl.messages import MOST_TOKENS, FinishReason, Reply, Request, Usage
from zejzl.testing import FakeClock


@given(st.text())
def test_text_is_taken_as_it_is_or_refused_as_a_value(text: str) -> None:
    try:
        taken = checked_text("content", text)
    except ValueError as refused:
        assert not text.strip() or any("\ud800" <= char <= "\udfff" for char in text)
        assert not isinstance(refused, ZejzlError)
    else:
        assert taken == text


@given(st.text())
def test_a_name_is_kept_in_one_form_that_is_safe_to_show(text: str) -> None:
    try:
        name = checked_name(text)
    except ValueError:
        return

    assert name == checked_name(name) == name.strip().lower()
    assert name.isprintable() and not set(name) & set("/: \t\n[]")


COUNTS = st.none() | st.integers(0, MOST_TOKENS)


def answer(**fields: Any) -> Reply:
    return Reply(**{"text": "an answer", "provider": "a", **fields})


def count(prompt: Any, completion: Any) -> Usage:
    return Usage(prompt, completion)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"usage": None}, "usage must be Usage, not None"),
        ({"usage": (1, 2)}, "usage must be Usage, not tuple"),
        ({"usage": count(0, "abc")}, "completion_tokens must be a number .* or None, not 'abc'"),
        ({"usage": count(0.5, 1)}, "prompt_tokens must be a number of tokens or None, not 0.5"),
        ({"usage": count(0, 10**400)}, "completion_tokens must be a number .* or None, not int"),
        ({"model": None}, "model must be str, not None"),
        ({"model": 5}, "model must be str, not int"),
        ({"finish_reason": "end_turn"}, "finish_reason must be one of stop, length, .*'end_turn'"),
        ({"finish_reason": None}, "finish_reason must be one of .*, not None"),
        ({"finish_reason": ["stop"]}, "finish_reason must be one of .*, not list"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_an_answer_of_which_a_part_cannot_be_is_malformed(fields: Any, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        checked_reply(answer(**fields))


@pytest.mark.parametrize("reason", get_args(FinishReason))
@given(usage=st.builds(Usage, COUNTS, COUNTS), model=st.text())
def test_an_answer_as_it_should_be_is_taken_as_it_is(
    reason: FinishReason, usage: Usage, model: str
) -> None:
    reply = answer(usage=usage, model=model, finish_reason=reason)

    assert checked_reply(reply) is reply


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    "fields",
    [
        {"usage": None, "finish_reason": "length"},
        {"usage": count(0, 10**400), "finish_reason": "length"},
        {"model": object()},
    ],
    ids=["no usage", "too many tokens", "no model"],
)
async def test_such_an_answer_is_healed_like_any_failure(
    fields: dict[str, object], streamed: bool
) -> None:
    class Mine:
        name, default_model = "mine", "m"

        async def generate(self, request: Request) -> Reply:
            return answer(**fields)

        async def cleanup(self) -> None:
            pass

    clock = FakeClock()
    async with make_bus(clock) as bus:
        await bus.register_provider("mine", Mine())
        await register(bus, clock, b="from b")

        async def ask() -> Reply | None:
            if not streamed:
                return await bus.send("hello", max_tokens=100)
            *_, last = [delta async for delta in bus.stream("hello", max_tokens=100)]
            return last.reply

        reply = await finished(clock, ask())

        assert reply is not None and reply.text == "from b"
        assert {each.outcome for each in reply.attempts[:-1]} == {"malformed"}
        await assert_nothing_is_left(bus)
