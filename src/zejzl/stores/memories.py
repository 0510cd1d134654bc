"""What it means to remember: words, order, bounds. `Shelf` is all of it, in memory.

Text is split into words here and not by a database, so that every store finds the same.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import Literal
from unicodedata import normalize

from zejzl.ports import ANY, MOST_MEMORIES, Done, Memory, Whichever
from zejzl.stores.arguments import MOST_ROWS, check_limit, check_texts, check_zone, stamp
from zejzl.stores.rows import Tables

LONGEST_WORD = 100  # characters that count
LONGEST_QUERY = 100_000  # characters of a text that is looked for
MOST_WORDS = 1_000  # different words of it
# A word is a run of letters and digits; where writing puts no blanks between words, one letter.
_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")


def words_of(text: str) -> list[str]:
    """Return the different words of `text`, in one case and one way of writing accents."""
    found = _WORD.findall(normalize("NFKC", normalize("NFKC", text).casefold()))
    return list(dict.fromkeys(word[:LONGEST_WORD] for word in found))


def line_of(words: Sequence[str]) -> str:
    """Return words as one text in which " word " finds each."""
    return f" {' '.join(words)} "


def holds(line: str, words: Sequence[str]) -> bool:
    """Whether a line has all `words`, and there are any."""
    return bool(words) and all(f" {word} " in line for word in words)


def check_memories(memories: Sequence[Memory], keep: int) -> None:
    """Refuse what could not be read back."""
    check_limit(keep)
    if keep < 1:
        raise ValueError("keep must be 1 or more: nothing could be remembered")
    for memory in memories:
        check_texts(
            id=memory.id,
            type=memory.type,
            conversation_id=memory.conversation_id,
            body=memory.body,
            text=memory.text,
        )
        check_zone(memory.at)


def _kind(value: object) -> str:
    return type(value).__name__


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a recall asks for, checked; see `Store.recall`."""

    type: str | None = None
    conversation_id: str | Literal[Whichever.ANY] | None = ANY
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    limit: int = 100

    def __post_init__(self) -> None:
        check_limit(self.limit)
        whose = None if self.conversation_id is ANY else self.conversation_id
        for name, text in (("type", self.type), ("conversation_id", whose), ("text", self.text)):
            if text is not None and not isinstance(text, str):
                raise TypeError(f"{name} must be text, not {_kind(text)}")
            check_texts(**{name: text})
        for name, moment in (("since", self.since), ("until", self.until)):
            if moment is None:
                continue
            if not isinstance(moment, datetime):
                raise TypeError(f"{name} must be a datetime, not {_kind(moment)}")
            stamp(moment)
        if len(self.text or "") > LONGEST_QUERY:
            raise ValueError(f"text has {len(self.text or '')} characters, {LONGEST_QUERY} may be")
        if len(self.words) > MOST_WORDS:
            raise ValueError(
                f"text has {len(self.words)} words, {MOST_WORDS} may be: look for fewer"
            )

    @property
    def words(self) -> list[str]:
        """The words of `text`."""
        return words_of(self.text or "")

    def fits(self, memory: Memory, line: str, words: Sequence[str]) -> bool:
        """Whether it asks for `memory`, whose words are `line`; `words` are those of `text`."""
        return (
            (self.type is None or memory.type == self.type)
            and (self.conversation_id is ANY or memory.conversation_id == self.conversation_id)
            and (self.since is None or memory.at >= self.since)
            and (self.until is None or memory.at < self.until)
            and (self.text is None or holds(line, words))
        )


class Shelf:
    """Memories in memory, each with the line of its words, in order of arrival."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Memory, str]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, memories: Sequence[Memory], keep: int) -> None:
        """Keep memories, at most `keep` of all."""
        check_memories(memories, keep)
        for memory in memories:
            if memory.id not in self._kept:
                self._kept[memory.id] = memory, line_of(words_of(memory.text))
        for id in list(islice(self._kept, max(0, len(self._kept) - keep))):
            del self._kept[id]

    def find(self, wanted: Wanted) -> list[Memory]:
        """Return what is asked for, oldest first."""
        words = wanted.words
        found = [each for each, line in self._kept.values() if wanted.fits(each, line, words)]
        found.sort(key=lambda memory: memory.at)  # stable: of one time, as they came
        return found[max(0, len(found) - wanted.limit) :]

    def forget(self, before: datetime) -> int:
        """Drop what is older; return how many that were."""
        old = [id for id, (memory, _) in self._kept.items() if memory.at < before]
        for id in old:
            del self._kept[id]
        return len(old)


class MemoriesInMemory(ABC):
    """What of an `InMemoryStore` is about memories."""

    _limit: int = MOST_ROWS

    @property
    @abstractmethod
    def _rows(self) -> Tables:
        """Raise unless the store is open."""

    @cached_property
    def _shelf(self) -> Shelf:
        return Shelf()

    def remember(self, memories: Sequence[Memory], *, keep: int = MOST_MEMORIES) -> Awaitable[None]:
        _ = self._rows
        self._shelf.put(memories, min(keep, self._limit))
        return Done(None)

    async def recall(
        self,
        *,
        type: str | None = None,
        conversation_id: str | Literal[Whichever.ANY] | None = ANY,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        limit: int = 100,
    ) -> list[Memory]:
        _ = self._rows
        return self._shelf.find(Wanted(type, conversation_id, since, until, text, limit))
