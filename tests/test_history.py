"""What a provider is told of a conversation."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from zejzl.engine.history import fitting, without_older_half
from zejzl.messages import Message, Request, Turn


def asked(question: str, answer: str) -> Message:
    message = Message.create(content=question, sender="me", provider="a")
    return message.answered(answer, "a", 0.1)


async def test_all_of_a_short_conversation_is_told_in_order() -> None:
    messages = [asked("one", "1"), asked("two", "2")]

    turns = await fitting(messages, 1_000)

    assert [turn.content for turn in turns] == ["one", "1", "two", "2"]
    assert [turn.role for turn in turns] == ["user", "assistant"] * 2


async def test_the_newest_whole_turns_that_fit_are_told() -> None:
    messages = [asked(f"question {n} " + "word " * 20, "answer " * 20) for n in range(10)]

    turns = await fitting(messages, 100)

    assert 2 <= len(turns) <= 4
    assert turns[-2].content == messages[-1].content


async def test_an_answer_that_never_came_is_not_told() -> None:
    unanswered = Message.create(content="one", sender="me", provider="a")

    assert await fitting([unanswered, replace(unanswered, error="x")], 100) == ()


@given(st.lists(st.text(max_size=30), min_size=1, max_size=12))
def test_half_a_history_keeps_whole_newest_turns_and_is_shorter(texts: list[str]) -> None:
    history = tuple(
        turn for text in texts for turn in (Turn("user", text), Turn("assistant", text))
    )

    halved = without_older_half(Request(content="now", history=history)).history

    assert len(halved) < len(history)
    assert len(halved) % 2 == 0
    assert history[len(history) - len(halved) :] == halved
