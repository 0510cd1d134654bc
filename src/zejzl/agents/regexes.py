"""Regular expressions that a stranger may write: matched only where that cannot take long.

Python's matcher backtracks and cannot be stopped. So what a pattern can cost is computed before
it is used: the number of ways in which its repeats can share the text out. Forms whose cost is
not known so easily (a repeat within a repeat, alternatives within a repeat, references, looks
ahead and behind) are refused.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from re import _parser  # type: ignore[attr-defined]  # what `re.compile` itself uses

LONGEST_PATTERN = 200
MOST_STEPS = 10_000_000  # about a second of the matcher

_PLAIN = {"LITERAL", "NOT_LITERAL", "ANY", "IN", "AT", "RANGE", "CATEGORY", "NEGATE"}
_AMBIGUOUS = ("[[", "[^[", "--", "&&", "~~", "||")  # Python warns of them within brackets
_REPEATS = {"MAX_REPEAT", "MIN_REPEAT"}


def check_pattern(pattern: str) -> None:
    """Refuse a pattern that is none, or of a form whose cost cannot be told.

    Raises:
        ValueError: Says why, and what to write in its place.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"pattern has {len(pattern)} characters, {LONGEST_PATTERN} may be")
    for sign in _AMBIGUOUS:
        if sign in pattern:
            raise ValueError(f"pattern holds {sign!r}, which will mean something else in future")
    try:
        parsed = list(_parser.parse(pattern))
    except (re.error, RecursionError, OverflowError) as problem:
        raise ValueError(f"pattern is no regular expression: {problem}") from None
    _steps(parsed, 1, repeated=False)


def matches(pattern: str, text: str) -> bool:
    """Say whether the whole of `text` is of this pattern.

    Raises:
        ValueError: If the pattern cannot be used, or could take too long on so long a text.
    """
    check_pattern(pattern)
    steps = max(1, len(text)) * _steps(list(_parser.parse(pattern)), len(text), repeated=False)
    if steps > MOST_STEPS:
        raise ValueError(
            f"pattern {pattern!r} could take {steps:.0e} steps on {len(text)} characters: "
            "use fewer repeats, or a shorter text"
        )
    return _compiled(pattern).fullmatch(text) is not None


@lru_cache(maxsize=100)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _steps(items: Iterable[object], length: int, *, repeated: bool) -> int:
    """Return how many ways there are to match these items, at most, on `length` characters."""
    product = 1
    for item in items:
        assert isinstance(item, tuple)
        kind, details = str(item[0]), item[1]
        if kind in _PLAIN:
            continue
        if kind == "SUBPATTERN":
            product *= _steps(details[3], length, repeated=repeated)
        elif kind == "BRANCH" and not repeated:
            product *= sum(_steps(branch, length, repeated=False) for branch in details[1])
        elif kind in _REPEATS:
            low, high, inner = int(details[0]), int(details[1]), details[2]
            if repeated and low != high:
                raise ValueError("pattern has a repeat within a repeat: write it without")
            _steps(inner, length, repeated=repeated or high > 1)
            product *= max(1, min(high, length) - low + 1)
        else:
            words = kind.lower().replace("_", " ")
            raise ValueError(f"pattern has a form that is not allowed here: {words}")
    return product
