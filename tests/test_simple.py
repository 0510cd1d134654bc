"""A user's own provider of the seed's shape is a full one to the bus."""

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.driving import make_bus
from zejzl.errors import EmptyAnswer, Malformed
from zejzl.messages import Reply, Request, Turn
from zejzl.ports import AIProvider, Provider, SimpleProvider
from zejzl.providers.simple import Simple, full
from zejzl.testing import FakeClock

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


@pytest.mark.parametrize(
    "model", [None, 5, object()], ids=["none", "a number", "the model itself, maybe"]
)
def test_a_model_that_is_no_name_names_none(model: object) -> None:
    own = Own()
    own.model = model  # type: ignore[attr-defined]

    assert Simple(own).default_model == ""


# What is taken for a provider -------------------------------------------------------------------


class Full:
    """A full provider that has nothing to clean up."""

    name, default_model = "full", "full-1"

    async def generate(self, request: Request) -> Reply:
        return Reply(text="from full", provider="full")


def traced(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return wrapper


class Traced(Full):
    generate = traced(Full.generate)


class Called(Full):
    class Ask:
        async def __call__(self, request: Request) -> Reply:
            return Reply(text="from an object", provider="full")

    generate = Ask()


class Both(Own):
    """Has a `generate` of another meaning, and is a simple one: it names no default model."""

    def generate(self, prompt: str) -> str:
        return prompt


@pytest.mark.parametrize("kind", [Full, Traced, Called])
async def test_a_full_provider_need_have_nothing_to_clean_up(kind: Callable[[], Any]) -> None:
    provider = kind()

    async with make_bus(FakeClock()) as bus:
        await bus.register_provider("full", provider)

        assert (await bus.send_message("hello")).startswith("from ")
        await bus.unregister_provider("full")
        await bus.register_provider("full", provider)


def test_what_is_full_is_taken_as_it_is_and_what_is_simple_is_wrapped() -> None:
    provider: Any = Full()

    assert full(provider) is provider
    assert isinstance(full(Own()), Simple)
    assert isinstance(full(Both()), Simple)


class Unnamed:
    async def generate(self, request: Request) -> Reply:
        raise NotImplementedError


class Plain(Full):
    def generate(self, request: Request) -> Reply:  # type: ignore[override]
        return Reply(text="x", provider="full")


class Yields(Full):
    async def generate(self, request: Request) -> AsyncIterator[str]:  # type: ignore[override]
        yield "x"


class PlainOwn(Own):
    def generate_response(self, message: str, history: list[dict[str, str]]) -> str:  # type: ignore[override]
        return message


class NoModel(Full):
    default_model = None  # type: ignore[assignment]


class NoName(Full):
    name = 5  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        (Unnamed(), "Unnamed has no name, no default_model: "),
        (Plain(), r"Plain\.generate must be async: write `async def generate\(…\)`"),
        (Yields(), r"Yields\.generate must be async: .* without a yield"),
        (PlainOwn(), r"PlainOwn\.generate_response must be async: write `async def generate_resp"),
        (object(), "object has no name, no default_model, no generate: "),
        (NoModel(), "the provider's default_model must be str, not NoneType"),
        (NoName(), "the provider's name must be str, not int"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
async def test_what_lacks_something_is_refused_with_what_it_lacks(provider: Any, said: str) -> None:
    async with make_bus(FakeClock()) as bus:
        with pytest.raises(TypeError, match=said):
            await bus.register_provider("a", provider)

        assert bus.providers == {"offline": "offline"}


@pytest.mark.parametrize("name", ["offline", " Offline"])
async def test_the_name_of_the_buss_own_provider_is_not_given_away(name: str) -> None:
    async with make_bus(FakeClock()) as bus:
        with pytest.raises(ValueError, match=r"'offline' is the bus's own"):
            await bus.register_provider(name, Own())

        assert (await bus.send("hello")).text.startswith("[offline]")
