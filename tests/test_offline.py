"""The provider without a model says so, and is deterministic."""

import pytest

from zejzl.messages import Request, Turn, Usage
from zejzl.ports import Provider
from zejzl.providers.offline import SIGN, Offline

TURN = (Turn("user", "one"), Turn("assistant", "two"))


def test_it_is_a_provider() -> None:
    assert isinstance(Offline(), Provider)


@pytest.mark.parametrize(
    ("request_", "counted"),
    [
        (Request(content="hello"), "You wrote 1 word: hello"),
        (Request(content="hello you"), "You wrote 2 words: hello you"),
        (Request(content="a b", history=TURN), "You wrote 2 words after 1 earlier turn: a b"),
        (Request(content="a", history=TURN * 2), "You wrote 1 word after 2 earlier turns: a"),
    ],
    ids=["a word", "words", "a turn", "turns"],
)
async def test_the_answer_names_itself_and_what_it_counted(request_: Request, counted: str) -> None:
    reply = await Offline().generate(request_)

    assert reply.text.startswith(f"{SIGN} No model has seen this")
    assert reply.text.endswith(counted)
    assert (reply.provider, reply.model, reply.finish_reason) == ("offline", "offline", "stop")


async def test_the_same_question_has_the_same_answer() -> None:
    request = Request(content="why?", history=TURN)

    assert await Offline().generate(request) == await Offline().generate(request)


async def test_a_word_is_a_token() -> None:
    reply = await Offline().generate(Request(content="one two three"))

    assert reply.usage == Usage(3, len(reply.text.split()))


async def test_a_limit_cuts_the_answer_and_says_so() -> None:
    reply = await Offline().generate(Request(content="one two", max_tokens=3))

    assert reply.text == f"{SIGN} No model"
    assert (reply.truncated, reply.usage) == (True, Usage(2, 3))


async def test_there_is_nothing_to_release() -> None:
    await Offline().cleanup()
