"""What ends a case well or badly: the seed's own rule, or one that a user states.

A vote is what one event says of its case. Codes, not an enum: they are compared once per event,
and index a list of three counts.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from zejzl.learning.patterns import Endings

UNKNOWN, SUCCESS, FAILURE = 0, 1, 2

EXECUTOR = "executor"
VALIDATION = "validation"

LONGEST = 1_000  # characters of a rule

_QUOTED = r"""(?:'[^']+'|"[^"]+")"""
_BARE = r"""(?!['"]|before\b)(?:(?!\s+before\b).)+?"""
_LISTED = r"""(?!['"]|before\b)(?:(?!\s+before\b)[^,])+?"""
_STATED = re.compile(r"\s*(success|failure)\s*=\s*(?=\S)(.*\S)\s*", re.IGNORECASE | re.DOTALL)
_CONTAINS = re.compile(
    rf"case\s+contains\s+({_QUOTED}|{_BARE})"
    rf"(?:\s+before\s+((?:{_QUOTED}|{_LISTED})(?:\s*,\s*(?:{_QUOTED}|{_LISTED}))*))?",
    re.IGNORECASE | re.DOTALL,
)
_NAMES = re.compile(rf"\s*({_QUOTED}|{_LISTED})\s*(?:,|$)", re.IGNORECASE | re.DOTALL)
_COMPARES = re.compile(
    rf"({_QUOTED}|[^\s'\"=<>!](?:[^'\"=<>!]*[^\s'\"=<>!])?)\s*(>=|<=|==|!=|=|>|<)\s*"
    rf"('[^']*'|\"[^\"]*\"|[^\s'\"=<>!]+)",
)
_EXAMPLES = '"failure = case contains \'Send for Credit Collection\'" or "success = reward >= 1"'


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRule:
    """A user's rule for the outcome of a case; made by `parse`, written as its `text`.

    Either the case holds an activity, or the last event that has a field compares as stated. The
    rule says what is a success (or a failure); every other case of which it can be said is the
    contrary. A case without the field is neither.

    Attributes:
        result: What the rule describes: SUCCESS or FAILURE.
        activity: What the case contains, or None.
        before: Activities that belong to the outcome too: features are taken from before them.
        field: The field that is compared, or "".
        compare: One of >= <= == != > <.
        value: A number, or a text (compared without regard to case).
    """

    text: str
    result: int
    activity: str | None = None
    before: tuple[str, ...] = ()
    field: str = ""
    compare: str = ""
    value: float | str = ""

    @classmethod
    def parse(cls, text: str) -> "OutcomeRule":
        """Return the rule that a text states.

        The forms: `failure = case contains 'A'`, the same with ` before 'B', 'C'` behind it, and
        `success = field >= 1` with any of >= <= == = != > <. Quotes are needed only around names
        that begin with one, or have these signs, a comma or the word "before" in them.

        Raises:
            ValueError: If it states none; the message says what is wrong and how rules look.
        """
        if len(text) > LONGEST:
            raise ValueError(
                f"not an outcome rule: it has {len(text):,} characters, {LONGEST:,} at most; "
                f"for example {_EXAMPLES}"
            )
        stated = _STATED.fullmatch(text)
        if stated is None:
            raise ValueError(
                f"not an outcome rule: {text!r:.100} must begin with 'success =' or 'failure ='; "
                f"for example {_EXAMPLES}"
            )
        result = SUCCESS if stated[1].lower() == "success" else FAILURE
        if found := _CONTAINS.fullmatch(stated[2]):
            before = _names(found[2]) if found[2] else ()
            return cls(text=text, result=result, activity=_bare(found[1]), before=before)
        if re.match(r"case\s+contains\b", stated[2], re.IGNORECASE):
            raise ValueError(
                f"not an outcome rule: {stated[2]!r:.100} must be \"case contains 'A'\", with "
                f"\" before 'B', 'C'\" behind it or nothing; for example {_EXAMPLES}"
            )
        if found := _COMPARES.fullmatch(stated[2]):
            compare = "==" if found[2] == "=" else found[2]
            value = _bare(found[3]) if found[3] != _bare(found[3]) else _number(found[3])
            if compare not in ("==", "!=") and isinstance(value, str):
                raise ValueError(
                    f"not an outcome rule: {compare} needs a number behind it, not {value!r:.60}; "
                    f"for example {_EXAMPLES}"
                )
            return cls(
                text=text, result=result, field=_bare(found[1]), compare=compare, value=value
            )
        raise ValueError(
            f"not an outcome rule: {stated[2]!r:.100} is neither \"case contains 'A'\" nor a "
            f"comparison of a field; for example {_EXAMPLES}"
        )

    def vote(self, event: Mapping[str, object], data: Mapping[str, object]) -> int:
        """Return what the event's field says; UNKNOWN where it has none that can be compared."""
        value = event.get(self.field)
        value = data.get(self.field) if value is None else value
        holds = _holds(value, self.compare, self.value)
        if holds is None:
            return UNKNOWN
        return self.result if holds else SUCCESS + FAILURE - self.result

    def decide(self, activities: Sequence[str], votes: Sequence[int]) -> tuple[int, int]:
        """Return the case's outcome, and how many of its events were there before it was known."""
        if self.activity is not None:
            known = [*self.before, self.activity]
            cut = min((activities.index(name) for name in known if name in activities), default=-1)
            held = self.activity in activities
            outcome = self.result if held else SUCCESS + FAILURE - self.result
            return outcome, cut if cut >= 0 else len(activities)
        cast = [place for place, vote in enumerate(votes) if vote]
        if not cast:
            return UNKNOWN, len(votes)
        # A field that all events have is the case's own, not news of the first event.
        return votes[cast[-1]], len(votes) if len(cast) == len(votes) else cast[0]


def decide(activities: Sequence[str], votes: Sequence[int]) -> tuple[int, int]:
    """Return a case's outcome and how many events were before it: the executor's, else the last
    validation's."""
    for deciding in (EXECUTOR, VALIDATION):
        for place in range(len(votes) - 1, -1, -1):
            if votes[place] and activities[place] == deciding:
                return votes[place], place
    return UNKNOWN, len(votes)


def endings(counts: Sequence[int]) -> Endings:
    """Return counts by code as a value."""
    return Endings(success=counts[SUCCESS], failure=counts[FAILURE], unknown=counts[UNKNOWN])


def _bare(name: str) -> str:
    return name[1:-1] if name[:1] in ("'", '"') else name.strip()


def _names(text: str) -> tuple[str, ...]:
    return tuple(_bare(name) for name in _NAMES.findall(text))


def _number(text: str) -> float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    return number if isfinite(number) else text


def _holds(value: object, compare: str, wanted: float | str) -> bool | None:
    """Say whether the comparison holds; None where there is nothing to compare."""
    if isinstance(wanted, str):
        if not isinstance(value, str | bool | int | float) or value == "":
            return None
        return (str(value).casefold() == wanted.casefold()) == (compare == "==")
    found = _number(value) if isinstance(value, str) else value
    if not isinstance(found, int | float) or (isinstance(found, float) and not isfinite(found)):
        return None
    return {
        ">=": found >= wanted,
        "<=": found <= wanted,
        "==": found == wanted,
        "!=": found != wanted,
        ">": found > wanted,
        "<": found < wanted,
    }[compare]
