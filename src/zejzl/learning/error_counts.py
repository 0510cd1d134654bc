"""Errors that events tell of, by what they have in common."""

from zejzl.learning.eventlog import OTHERS, Token
from zejzl.learning.exemplars import Kept, keep, keep_all
from zejzl.learning.patterns import Case
from zejzl.learning.signatures import signature

SIGNATURES = 1_000
UNSAID = "(no text)"


class ErrorCount:
    """Errors of one signature; times in µs."""

    __slots__ = ("activities", "agents", "first", "firsts", "last", "n")

    def __init__(self) -> None:
        self.n = 0
        self.activities: dict[str, int] = {}
        self.agents: dict[str, int] = {}
        self.first = 0
        self.last = 0
        self.firsts: Kept = []

    def seen(self, first: int, last: int, n: int) -> None:
        """Count `n` errors between these moments."""
        self.first = min(self.first, first) if self.n else first
        self.last = max(self.last, last) if self.n else last
        self.n += n

    def merge(self, other: "ErrorCount") -> None:
        """Add what another one counted."""
        self.seen(other.first, other.last, other.n)
        _add(self.activities, other.activities)
        _add(self.agents, other.agents)
        keep_all(self.firsts, other.firsts)


class ErrorCounts:
    """All errors of a log, by signature."""

    __slots__ = ("by_signature",)

    def __init__(self) -> None:
        self.by_signature: dict[str, ErrorCount] = {}

    def add(self, error: str, at: int, token: Token, case: Case) -> None:
        """Count an error of one event."""
        fault = self._at(signature(error) or UNSAID)
        fault.seen(at, at, 1)
        _add(fault.activities, {token.activity: 1})
        if token.agent is not None:
            _add(fault.agents, {token.agent: 1})
        keep(fault.firsts, at, case)

    def merge(self, other: "ErrorCounts") -> None:
        """Add what another one counted."""
        for said, fault in other.by_signature.items():
            self._at(said).merge(fault)

    def _at(self, said: str) -> ErrorCount:
        if said not in self.by_signature and len(self.by_signature) >= SIGNATURES:
            said = OTHERS
        return self.by_signature.setdefault(said, ErrorCount())


def _add(counts: dict[str, int], others: dict[str, int]) -> None:
    for name, n in others.items():
        counts[name] = counts.get(name, 0) + n
