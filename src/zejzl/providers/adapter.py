"""What the three wire formats share: ask, read the answer whole or in pieces, judge it.

An adapter translates and does nothing else: no retries, no caching, no logging of content.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import TypeVar

from yarl import URL

from zejzl.clock import Clock
from zejzl.errors import (
    ContentFiltered,
    EmptyAnswer,
    Incomplete,
    Malformed,
    ProviderError,
    shorten,
)
from zejzl.messages import MOST_TOKENS, Delta, FinishReason, Reply, Request, Usage
from zejzl.policies.quota import Seen
from zejzl.providers.transport import Http, Json, checked_key
from zejzl.settings import Secret

E = TypeVar("E", bound=ProviderError)


class Reader(ABC):
    """Collects one answer, whole or in pieces, and says at its end what it was.

    Attributes:
        model: The one asked for.
        reported: The one that the provider names.
        call_id: The provider's id of the call, as far as known.
        done: Whether the provider said that nothing more will come.
        finish: Why the model stopped, once it is known.
    """

    def __init__(self, provider: str, model: str) -> None:
        self.provider = provider
        self.model = model
        self.reported = ""
        self.call_id = ""
        self.done = False
        self.finish: FinishReason | None = None
        self._texts: list[str] = []
        self._refusal = ("", "")
        self._usage = Usage()

    @abstractmethod
    def whole(self, answer: Json) -> None:
        """Take in a plain answer."""

    @abstractmethod
    def piece(self, event: Json) -> str:
        """Take in one event of a stream and return the text it adds."""

    @property
    def usage(self) -> Usage:
        """Tokens as far as they were counted."""
        return self._usage

    @property
    def text(self) -> str:
        """What has arrived."""
        return "".join(self._texts)

    def keep(self, text: object) -> str:
        """Add text to the answer and return it.

        Raises:
            Malformed: If it is none.
        """
        if text is None:
            return ""
        if not isinstance(text, str):
            raise self.malformed(f"text was expected, not {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError:  # half a surrogate pair, which nobody could write anywhere
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        self._texts.append(text)
        return text

    def name(self, model: object) -> None:
        """Take in the model's name, if it is one."""
        if isinstance(model, str):
            self.reported = shorten(model) or self.reported

    def count(self, prompt: object, completion: object) -> None:
        """Take in token counts; what is none leaves what was known before."""
        known = self._usage
        self._usage = Usage(
            tokens(prompt, known.prompt_tokens), tokens(completion, known.completion_tokens)
        )

    def stop(self, reason: object, known: Mapping[str, FinishReason]) -> None:
        """Take in the provider's word for why the model stopped; None: it has not yet.

        Raises:
            Malformed: If the word is not known.
        """
        if reason is None:
            return
        if not isinstance(reason, str) or reason not in known:
            what = repr(reason) if isinstance(reason, str) else type(reason).__name__
            raise self.malformed(f"unknown finish reason {shorten(what)}")
        if known[reason] == "content_filter":
            self.refuse(reason)
        elif self.finish != "content_filter":
            self.finish = known[reason]

    def refuse(self, code: str, words: object = None) -> None:
        """Take in that the provider refused the content, and its words for it, maybe in pieces."""
        self.finish = "content_filter"
        first, said = self._refusal
        self._refusal = (first or code, said + (words if isinstance(words, str) else ""))

    def reply(self) -> Reply:
        """Return the answer.

        Raises:
            Incomplete: If it has no finish reason: it was cut short.
            ContentFiltered: If the provider refused it.
            EmptyAnswer: If it holds no text.
        """
        if self.finish is None:
            broken = self.failure(Incomplete, "the answer ended without a finish reason")
            broken.prefix = self.text
            raise broken
        if self.finish == "content_filter":
            code, words = self._refusal
            what = f"the provider refused the content: {shorten(words or code)}"
            raise self.failure(ContentFiltered, what, shorten(code))
        if not self.text.strip():
            what = f"the answer holds no text (finish reason: {self.finish})"
            raise self.failure(EmptyAnswer, what)
        return Reply(
            text=self.text,
            provider=self.provider,
            model=self.reported or self.model,
            usage=self._usage,
            finish_reason=self.finish,
            request_id=self.call_id,
        )

    def malformed(self, what: str) -> Malformed:
        return self.failure(Malformed, f"the answer cannot be read: {what}")

    def failure(self, kind: type[E], what: str, code: str = "") -> E:
        failed = kind(
            what, provider=self.provider, model=self.model, code=code, request_id=self.call_id
        )
        failed.usage = self._usage
        return failed


def tokens(count: object, otherwise: int | None = None) -> int | None:
    """Return a token count as a provider wrote it, or `otherwise` if it cannot be one."""
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MOST_TOKENS:
        return otherwise
    return count


class Adapter(ABC):
    """A provider over HTTP.

    Args:
        base_url: As the vendor's own SDK takes it.
        api_key: Sent to that address only, never shown.
        model: Used where a request names none.
        name: In a bus; short, lower-case.
        connect_timeout: Seconds to open a connection; None is no limit.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | Secret = "",
        model: str = "",
        *,
        name: str,
        connect_timeout: float | None = 5.0,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.default_model = model
        key = checked_key(api_key)
        self._http = Http(
            name,
            base_url,
            self.headers(key),
            key=key,
            connect_timeout=connect_timeout,
            clock=clock,
        )

    @abstractmethod
    def headers(self, api_key: str) -> dict[str, str]:
        """Return the headers that carry the key and the API's version."""

    @abstractmethod
    def url(self, model: str, *, stream: bool) -> URL:
        """Return where a request goes."""

    @abstractmethod
    def body(self, request: Request, model: str, *, stream: bool) -> Json:
        """Return the request in the vendor's shape."""

    @abstractmethod
    def reader(self, model: str) -> Reader:
        """Return what reads one answer."""

    async def generate(self, request: Request) -> Reply:
        """Answer once, wholly."""
        model = request.model or self.default_model
        reader = self.reader(model)
        body = self.body(request, model, stream=False)
        answer, reader.call_id = await self._http.post(self.url(model, stream=False), body, model)
        reader.whole(answer)
        return reader.reply()

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """Yield the answer piece by piece; the last piece carries the Reply."""
        model = request.model or self.default_model
        reader = self.reader(model)
        body = self.body(request, model, stream=True)
        async with aclosing(self._http.events(self.url(model, stream=True), body, model)) as events:
            try:
                async for event, call_id in events:
                    reader.call_id = reader.call_id or call_id
                    if event.data == "[DONE]":
                        break
                    if not event.data:
                        continue
                    announced = event.name == "error"
                    text = reader.piece(
                        self._http.read(event.data, model, call_id, announced=announced)
                    )
                    if text:
                        yield Delta(text)
                    if reader.done:
                        break
            except Incomplete as broken:
                # A connection that breaks after the finish reason has lost nothing.
                if reader.finish is None:
                    broken.prefix, broken.usage = reader.text, reader.usage
                    raise
            yield Delta("", reply=reader.reply())
            with suppress(ProviderError):  # the answer is whole, whatever still comes
                async for _ in events:  # to the end, so that the connection can be used again
                    pass

    def quota(self, model: str) -> tuple[float, Seen] | None:
        """Return what the newest response said of the model's rate limits; None: none did.

        With it comes when its headers came, by the clock's `now`.
        """
        return self._http.quotas.get(model)

    async def reconnect(self) -> None:
        """Use fresh connections from here on."""
        await self._http.reconnect()

    async def cleanup(self) -> None:
        """Close the connections."""
        await self._http.close()
