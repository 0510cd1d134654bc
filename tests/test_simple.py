"""A user's own provider of the seed's shape is a full one to the bus."""

import pytest

from zejzl.errors import EmptyAnswer, Malformed
from zejzl.messages import Reply, Request, Turn
from zejzl.ports import AIProvider, Provider, SimpleProvider
from zejzl.providers.simple import Simple

TURNS = (Turn("user", "one"), Turn("assistant", "two"))


class Own:
    """Answers with what it is told to; keeps what it was asked."""

    name = "own"

    def __init__(self, answer: object = "an answer") -> None:
        self.answer = answer
        self.asked: list[tuple[str, list[dict[str, str]]]] = []
        self.life: list[str] = []

    async def generate_response(self, message: str, history: list[dict[str, str]]) -> str:
        self.asked.append((message, history))
        return self.answer  # type: ignore[return-value]


class Modelled(AIProvider):
    name = "modelled"
    default_model = "house"

    async def generate_response(self, message: str, history: list[dict[str, str]]) -> str:
        return message.upper()


class Holding(Own):
    async def initialize(self) -> None:
        self.life.append("initialized")

    async def cleanup(self) -> None:
        self.life.append("cleaned up")


def test_it_is_a_provider() -> None:
    assert isinstance(Own(), SimpleProvider)
    assert isinstance(Simple(Own()), Provider)


async def test_the_text_becomes_a_reply() -> None:
    reply = await Simple(Own()).generate(Request(content="hello"))

    assert reply == Reply(text="an answer", provider="own")


async def test_it_sees_the_turns_oldest_first_and_the_instructions_before_them() -> None:
    own = Own()

    await Simple(own).generate(Request(content="three", history=TURNS, system="be brief"))

    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
    ]
    assert own.asked == [("three", turns)]


async def test_the_list_of_turns_is_its_own_to_change() -> None:
    own = Own()
    request = Request(content="three", history=TURNS)
    await Simple(own).generate(request)
    own.asked[0][1].clear()

    await Simple(own).generate(request)

    assert [turn["content"] for turn in own.asked[1][1]] == ["one", "two"]


@pytest.mark.parametrize(
    ("model", "expected"), [("", "house"), ("mine", "mine")], ids=["its default", "given"]
)
async def test_its_model_is_the_one_it_was_made_with(model: str, expected: str) -> None:
    simple = Simple(Modelled(model=model))

    reply = await simple.generate(Request(content="hello"))

    assert (simple.default_model, reply.model, reply.text) == (expected, expected, "HELLO")


@pytest.mark.parametrize(
    "answer", [None, b"bytes", 42, ["a", "list"]], ids=["none", "bytes", "a number", "a list"]
)
async def test_what_is_no_text_is_malformed(answer: object) -> None:
    with pytest.raises(Malformed, match=f"must return str, not {type(answer).__name__}") as caught:
        await Simple(Own(answer)).generate(Request(content="hello"))

    assert caught.value.provider == "own"


@pytest.mark.parametrize("answer", ["", " \n\t"], ids=["nothing", "blanks"])
async def test_a_text_without_words_is_no_answer(answer: str) -> None:
    with pytest.raises(EmptyAnswer) as caught:
        await Simple(Own(answer)).generate(Request(content="hello"))

    assert caught.value.provider == "own"


async def test_its_own_error_passes_as_it_is() -> None:
    class Failing(Own):
        async def generate_response(self, message: str, history: list[dict[str, str]]) -> str:
            raise OSError("its socket broke")

    with pytest.raises(OSError, match="its socket broke"):
        await Simple(Failing()).generate(Request(content="hello"))


async def test_it_may_prepare_and_release_what_it_holds() -> None:
    holding = Holding()

    await Simple(holding).initialize()
    await Simple(holding).cleanup()

    assert holding.life == ["initialized", "cleaned up"]


async def test_one_that_holds_nothing_need_do_neither() -> None:
    await Simple(Own()).initialize()
    await Simple(Own()).cleanup()
