"""HTTP to providers: one pool of kept-alive connections each, bodies and event streams.

Everything that can go wrong on the way becomes an error of the tree. Cancelling a call, or closing
a stream's iterator, closes its socket. No retries, no redirects: a redirect would carry the key to
another host.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError
from yarl import URL

from zejzl.clock import Clock, SystemClock
from zejzl.errors import (
    ConnectFailed,
    Incomplete,
    Malformed,
    ProviderError,
    SettingsError,
    shorten,
)
from zejzl.policies.quota import Seen
from zejzl.providers import faults, quotas
from zejzl.providers.sse import Event, Parser, TooLong
from zejzl.settings import Secret

Json = dict[str, Any]

UNCONNECTED = aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError  # nothing was sent
MAX_ANSWER = 16 * 1024 * 1024  # bytes of a plain answer; a longer one is an attack or a defect
MOST_MODELS = 1_000  # of whose rate limits is known
MAX_ERROR = 64 * 1024  # bytes of an error that are read; its beginning says what it is


class Http:
    """Connections to one provider.

    Args:
        provider: Its name, for errors.
        base_url: Where its API begins.
        headers: Sent with every request; never shown.
        key: Part of the headers; never repeated, even where the provider does.
        connect_timeout: Seconds to open a connection; None is no limit.

    Attributes:
        quotas: Of a model: what headers said of its rate limits, the newest, and when they came.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        headers: Mapping[str, str],
        *,
        key: str = "",
        connect_timeout: float | None = 5.0,
        clock: Clock | None = None,
    ) -> None:
        self.provider = provider
        self._base = checked_url(base_url)
        self._headers = {**headers, "content-type": "application/json"}
        self._key = key
        self._connect_timeout = connect_timeout
        self._clock = clock or SystemClock()
        self.quotas: dict[str, tuple[float, Seen]] = {}
        self._pool: _Pool | None = None
        self._retired: set[_Pool] = set()
        self._closed = False

    def url(self, path: str) -> URL:
        """Return the address of `path` below the base; it is sent as it stands."""
        return URL(self._base + path, encoded=True)

    async def post(self, url: URL, body: Json, model: str) -> tuple[Json, str]:
        """Return the JSON object that answers `body`, and the provider's id of the call."""
        async with self._answer(url, body, model) as response:
            call_id = faults.request_id(response.headers)
            try:
                raw = await _body(response)
            except (aiohttp.ClientError, OSError) as broken:
                raise self._broken("answer", broken, model, call_id) from broken
            except TooLong as wrong:
                raise self._malformed(str(wrong), model, call_id) from None
        return self.read(raw, model, call_id), call_id

    async def events(
        self, url: URL, body: Json, model: str
    ) -> AsyncGenerator[tuple[Event, str], None]:
        """Yield the events that answer `body`, each with the provider's id of the call.

        A connection that breaks raises `Incomplete`; whether the answer was whole before that
        is for the reader of the events to say.
        """
        async with self._answer(url, body, model) as response:
            call_id = faults.request_id(response.headers)
            kind = response.content_type
            try:
                if "json" in kind:
                    # Not a stream at all: an error inside a 200, or a server that ignores `stream`.
                    yield (
                        Event("", (await _body(response)).decode("utf-8-sig")),
                        call_id,
                    )
                    return
                parser, seen = Parser(), False
                async for chunk in response.content.iter_any():
                    for event in parser.feed(chunk):
                        seen = True
                        yield event, call_id
                last = parser.rest()
                if last is not None and _whole(last):  # a torn one is nothing
                    seen = True
                    yield last, call_id
                if not seen and kind != "text/event-stream":
                    raise self._malformed(f"not a stream but {shorten(kind)}", model, call_id)
            except (aiohttp.ClientError, OSError) as broken:
                raise self._broken("stream", broken, model, call_id) from broken
            except TooLong as wrong:
                raise self._malformed(str(wrong), model, call_id) from None
            except UnicodeDecodeError as wrong:
                raise self._malformed("the stream is no UTF-8", model, call_id) from wrong

    def read(self, text: str | bytes, model: str, call_id: str, *, announced: bool = False) -> Json:
        """Return the JSON object in an answer or event; raises what an error inside it means.

        `announced` says that the event's name is "error".
        """
        try:
            found = faults.parse(text)
        except ValueError as wrong:
            raise self._malformed("the answer is no JSON", model, call_id) from wrong
        error = faults.error_in(found, announced=announced)
        if error is not None:
            failure = faults.from_error(error, provider=self.provider, model=model, key=self._key)
            failure.request_id = call_id or faults.request_id({}, found)
            raise failure
        if not isinstance(found, dict):
            raise self._malformed("the answer is no JSON object", model, call_id)
        return found

    async def reconnect(self) -> None:
        """Use fresh connections from here on; calls under way keep theirs to their end."""
        if self._pool is not None:
            self._retired.add(self._pool)
            self._pool = None
        idle = {pool for pool in self._retired if not pool.busy}
        self._retired -= idle
        for pool in idle:
            await pool.close()

    async def close(self) -> None:
        """Close every connection, also those of calls under way, and refuse new ones."""
        self._closed = True
        pools = [*self._retired, *([self._pool] if self._pool else [])]
        self._retired, self._pool = set(), None
        for pool in pools:
            await pool.close()

    @asynccontextmanager
    async def _answer(
        self, url: URL, body: Json, model: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Hold the response once its headers are there and say 200.

        Its connection goes back to the pool if the body was read to its end, and is closed if not.
        """
        pool = self._open(model)
        asked = self._clock.now()
        response = await self._send(pool, url, body, model)
        pool.responses.add(response)
        try:
            self._hear(response, model, asked)
            if not 200 <= response.status < 300:
                raise await self._refusal(response, model)
            yield response
        finally:
            response.release()
            pool.responses.discard(response)

    def _hear(self, response: aiohttp.ClientResponse, model: str, asked: float) -> None:
        now, refused = self._clock.now(), not response.ok
        told = quotas.seen(response.headers, self._clock.wall(), age=now - asked, refused=refused)
        if told is not None:
            if len(self.quotas) >= MOST_MODELS and model not in self.quotas:
                self.quotas.pop(next(iter(self.quotas)))  # the one that was first heard of
            self.quotas[model] = now, told

    async def _send(
        self, pool: "_Pool", url: URL, body: Json, model: str
    ) -> aiohttp.ClientResponse:
        """Return the response once its headers are there."""
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in a task
        pool.sending.add(task)
        try:
            return await pool.session.post(
                url, data=json.dumps(body).encode(), allow_redirects=False
            )
        except aiohttp.ClientResponseError as wrong:
            # Shows the request's headers, and the key among them, so it must not be the cause.
            failure = self._malformed(f"not HTTP: {shorten(wrong.message)}", model, "")
        except (aiohttp.ClientError, OSError) as broken:
            failed = self._unconnected(_why(broken), model)
            failed.sent = not isinstance(broken, UNCONNECTED)
            raise failed from broken
        except asyncio.CancelledError:
            if not pool.session.closed or task.uncancel():
                raise
            raise self._unconnected("closed", model) from None  # by `close`, not by the caller
        finally:
            pool.sending.discard(task)
        raise failure

    async def _refusal(self, response: aiohttp.ClientResponse, model: str) -> ProviderError:
        try:
            raw = await _read(response, MAX_ERROR)
        except (aiohttp.ClientError, OSError):
            raw = b""  # status and headers have said what it is
        return faults.from_response(
            response.status,
            response.headers,
            raw,
            provider=self.provider,
            model=model,
            wall=self._clock.wall(),
            key=self._key,
        )

    def _open(self, model: str) -> "_Pool":
        if self._closed:
            raise self._unconnected("closed", model)
        if self._pool is None:
            session = aiohttp.ClientSession(
                headers=self._headers,
                # How many may be under way is for admission control to say, not for the pool.
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            self._pool = _Pool(session)
        return self._pool

    def _malformed(self, what: str, model: str, call_id: str) -> Malformed:
        return Malformed(what, provider=self.provider, model=model, request_id=call_id)

    def _broken(self, what: str, why: Exception, model: str, call_id: str) -> ProviderError:
        if isinstance(why.__cause__, ContentEncodingError):
            return self._malformed(f"the {what} cannot be unpacked", model, call_id)
        return Incomplete(
            f"the {what} broke off before its end",
            provider=self.provider,
            model=model,
            request_id=call_id,
        )

    def _unconnected(self, why: str, model: str) -> ConnectFailed:
        return ConnectFailed(f"{self._base}: {why}", provider=self.provider, model=model)


class _Pool:
    """Connections of one age, and the calls that are under way over them."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.sending: set[asyncio.Task[Any]] = set()
        self.responses: set[aiohttp.ClientResponse] = set()

    @property
    def busy(self) -> bool:
        return bool(self.sending or self.responses)

    async def close(self) -> None:
        """Close the connections; whoever waits for one, or for an answer, is told.

        Closing the session alone would leave both waiting for ever.
        """
        for task in self.sending:
            task.cancel()
        for response in self.responses:
            response.close()
        await self.session.close()


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Return the body; raises TooLong where it is beyond MAX_ANSWER."""
    raw = await _read(response, MAX_ANSWER)
    if len(raw) > MAX_ANSWER:
        raise TooLong(f"the answer is longer than {MAX_ANSWER} bytes")
    return raw


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Return the body, or its beginning: more than `most` bytes, but not all that follow."""
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        parts.append(chunk)
        size += len(chunk)
        if size > most:
            break
    return b"".join(parts)


def _whole(event: Event) -> bool:
    try:
        faults.parse(event.data)
    except ValueError:
        return False
    return True


def _why(broken: Exception) -> str:
    if isinstance(broken, aiohttp.ConnectionTimeoutError):
        return "no connection in time"
    if isinstance(broken, aiohttp.ClientConnectorError):
        return f"no connection: {shorten(str(broken.os_error))}"
    return f"the connection was lost before an answer: {shorten(str(broken)) or 'closed'}"


def checked_url(base_url: str) -> str:
    """Return the address without a slash at its end.

    Raises:
        SettingsError: If it is no plain http or https address of a host.
    """
    try:
        url = URL(base_url)
        host = (url.raw_host or "").encode("idna")  # what looking it up will do
        wrong = url.scheme not in ("http", "https") or not host
    except ValueError:
        wrong = True
    if wrong or any(char.isspace() for char in base_url):
        shown = "that" if "@" in base_url else repr(base_url)  # it may hold a password
        raise SettingsError("base_url", f"must be an http:// or https:// address, not {shown}")
    if url.user is not None or url.query_string or url.fragment:
        raise SettingsError("base_url", "must hold no user, no password, no ? and no #")
    return str(url).rstrip("/")


def checked_key(api_key: str | Secret) -> str:
    """Return the key as text that may stand in a header.

    Raises:
        SettingsError: If it holds a blank, a line end or a character that is not ASCII.
    """
    key = api_key.get_secret_value() if isinstance(api_key, Secret) else api_key
    if key and (not key.isascii() or not key.isprintable() or " " in key):
        raise SettingsError("api_key", "holds a blank, a line end or a non-ASCII character")
    return key
