"""Regular expressions that a stranger may write: matched only where that cannot take long.

Python's matcher backtracks and cannot be stopped. So what a pattern can cost is computed before
it is used: all the ways in which its repeats can share the text out, and the steps of each. Forms
whose cost is not known so easily (a repeat within a repeat, a repeat of what may be empty,
alternatives within a repeat, references, looks ahead and behind, possessive and atomic groups,
conditions) are refused.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from re import _parser  # type: ignore[attr-defined]  # what `re.compile` itself uses
from typing import NamedTuple

LONGEST_PATTERN = 200
MOST_STEPS = 10_000_000  # about a second of the matcher

_PLAIN = {"LITERAL", "NOT_LITERAL", "ANY", "AT", "RANGE", "CATEGORY", "NEGATE"}
_AMBIGUOUS = ("[[", "[^[", "--", "&&", "~~", "||")  # Python warns of them within brackets
_REPEATS = {"MAX_REPEAT", "MIN_REPEAT"}


class _Cost(NamedTuple):
    """What matching may cost, at most, from one place in a text.

    Attributes:
        ways: In how many ways it can match; what comes after it is tried once for each.
        steps: Of the matcher until it has tried them all.
        width: Characters that it takes, at least.
    """

    ways: int
    steps: int
    width: int


def check_pattern(pattern: str) -> None:
    """Refuse a pattern that is none, or of a form whose cost cannot be told.

    Raises:
        ValueError: Says why, and what to write in its place.
    """
    _cost(pattern, 1)


def matches(pattern: str, text: str) -> bool:
    """Say whether the whole of `text` is of this pattern.

    Raises:
        ValueError: If the pattern cannot be used, or could take too long on so long a text.
    """
    if _cost(pattern, len(text)).steps > MOST_STEPS:
        raise ValueError(
            f"pattern {pattern!r} could take more than {MOST_STEPS} steps on {len(text)} "
            "characters: use fewer repeats, or a shorter text"
        )
    return _compiled(pattern).fullmatch(text) is not None


@lru_cache(maxsize=100)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _cost(pattern: str, length: int) -> _Cost:
    """Return what a pattern costs, at most, on a text of `length` characters."""
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"pattern has {len(pattern)} characters, {LONGEST_PATTERN} may be")
    for sign in _AMBIGUOUS:
        if sign in pattern:
            raise ValueError(f"pattern holds {sign!r}, which will mean something else in future")
    try:
        parsed = _parser.parse(pattern)
        # Each round of a repeat and each branch keeps the places of all groups.
        return _all(list(parsed), length, parsed.state.groups, repeated=False)
    except (re.error, RecursionError, OverflowError) as problem:
        raise ValueError(f"pattern is no regular expression: {problem}") from None


def _all(items: Iterable[object], length: int, groups: int, *, repeated: bool) -> _Cost:
    """Return what items cost, one after the other: each is tried for each way of those before."""
    ways, steps, width = 1, 1, 0
    for item in items:
        cost = _one(item, length, groups, repeated=repeated)
        steps += ways * cost.steps
        ways *= cost.ways
        width += cost.width
    return _Cost(ways, steps, width)


def _one(item: object, length: int, groups: int, *, repeated: bool) -> _Cost:
    assert isinstance(item, tuple)
    kind, details = str(item[0]), item[1]
    if kind in _PLAIN:
        return _Cost(1, 1, 0 if kind == "AT" else 1)
    if kind == "IN":
        return _Cost(1, len(details), 1)
    if kind == "SUBPATTERN":
        return _all(details[3], length, groups, repeated=repeated)
    if kind == "BRANCH" and not repeated:
        each = [_all(branch, length, groups, repeated=False) for branch in details[1]]
        ways, steps = sum(cost.ways for cost in each), sum(cost.steps for cost in each)
        return _Cost(ways, steps + len(each) * groups, min(cost.width for cost in each))
    if kind in _REPEATS:
        return _repeat(int(details[0]), int(details[1]), details[2], length, groups, repeated)
    words = kind.lower().replace("_", " ")
    raise ValueError(f"pattern has a form that is not allowed here: {words}")


def _repeat(
    low: int, high: int, inner: Iterable[object], length: int, groups: int, repeated: bool
) -> _Cost:
    if repeated and low != high:
        raise ValueError("pattern has a repeat within a repeat: write it without")
    cost = _all(inner, length, groups, repeated=repeated or high > 1)
    once = cost.steps + groups + 1
    if high <= 1:
        return _Cost(1 - low + cost.ways, once + 1, low * cost.width)
    if cost.width == 0:
        # The matcher goes its `low` rounds, however many, although none takes a character.
        raise ValueError("pattern repeats what may be empty: write it without")
    # What is repeated matches in one way only: it holds no choice, or it was refused above.
    rounds = min(high, length // cost.width)
    return _Cost(max(1, rounds - low + 1), (rounds + 1) * once, low * cost.width)
