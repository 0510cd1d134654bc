"""Pages as an observer fetches them: within a size and a time, and never an exception."""

import codecs
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from zejzl.agents.files import Reading, decoded
from zejzl.clock import Clock

if TYPE_CHECKING:
    import aiohttp

MOST_REDIRECTS = 3
PIECE = 65_536  # bytes
# Encodings that Python knows, and no page has; some take hours for a megabyte.
_NO_PAGES = {"idna", "punycode", "raw_unicode_escape", "unicode_escape", "undefined"}


async def fetch(
    url: str, reading: Reading, clock: Clock, *, seconds: float
) -> dict[str, object] | None:
    """Return url, status, type, text, encoding and bytes; None: it could not be, as is told."""
    import aiohttp

    shown, why = _shown(url)
    if not why:
        try:
            async with clock.timeout(seconds):
                page = await _fetched(url, reading)
            return {"url": shown, **page}
        except TimeoutError:
            why = f"no whole answer within {seconds:g} s"
        except aiohttp.TooManyRedirects:
            why = f"more than {MOST_REDIRECTS} redirects"
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            why = str(problem) or type(problem).__name__
    reading.tell(shown, why)
    return None


def _shown(url: str) -> tuple[str, str]:
    """Return an address that may be shown, and why it is not asked."""
    try:
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            return f"{parts.scheme}://…@{parts.hostname}", "an address with a password is not asked"
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return url, "not an address that begins with http:// or https://"
    except ValueError as problem:
        return url, f"not an address: {problem}"
    return url, ""


async def _fetched(url: str, reading: Reading) -> dict[str, object]:
    import aiohttp

    unlimited = aiohttp.ClientTimeout(total=None, connect=None)  # the clock's limit is the one
    async with (
        aiohttp.ClientSession(timeout=unlimited, cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.get(url, max_redirects=MOST_REDIRECTS) as response,
    ):
        if not 200 <= response.status < 300:  # a redirect to nowhere is no page
            raise ValueError(f"the server says {response.status}")
        content = await _content(response, reading)
        text, encoding = _text(content, response.charset)
        reading.left -= len(content)
        return {
            "status": response.status,
            "type": response.content_type,
            "text": text,
            "encoding": encoding,
            "bytes": len(content),
        }


async def _content(response: "aiohttp.ClientResponse", reading: Reading) -> bytes:
    pieces, size = [], 0
    async for piece in response.content.iter_chunked(PIECE):
        size += len(piece)
        if size > reading.most:  # unpacked: a small answer may hold a large page
            raise ValueError(reading.too_much())
        pieces.append(piece)
    return b"".join(pieces)


def _text(content: bytes, charset: str | None) -> tuple[str, str]:
    """Return the page's text as its server says that it is encoded, or as it looks."""
    if charset is not None:
        try:
            name = codecs.lookup(charset).name
            if name.replace("-", "_") not in _NO_PAGES:
                text = content.decode(name)
                text.encode()  # some encodings let half a character through
                return text, name
        except (LookupError, UnicodeError):
            pass
    return decoded(content)
