"""What tokens cost: whose row of a price table a call falls under, and the money for it.

Rows are named, strictest first: "provider/model", "model" at any provider, "provider/*". A model
that has no row of its own and is named as a dated snapshot has the price of what it is one of:

    ask for ──▶ provider/model ──▶ model ──▶ the same two without -2024-08-06 ──▶ provider/*
                                                                         └──▶ `base`, likewise

Capitals make no difference. A name with a slash is always a provider's: a reseller's model
"deepseek/deepseek-chat" is not priced as DeepSeek's own. Nothing is guessed from names that only
look alike: no row, no price.

Pure. Units: USD, per million tokens in a table.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from zejzl.errors import shorten, words
from zejzl.policies.kept import MOST_AMOUNT

PER = 1_000_000  # tokens that a price is for
MOST_LOOKUPS = 1_000  # (provider, model) pairs whose price is remembered

_SNAPSHOT = re.compile(
    r"(?:[-@]20[0-9]{2}(-?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12][0-9]|3[01])|-latest|-0[0-9]{2})\Z"
)


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens of the question and of the answer.

    Raises:
        ValueError: If one of them is no finite number from 0.
    """

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        for name in ("prompt", "completion"):
            object.__setattr__(self, name, _amount(name, getattr(self, name)))

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the money for so many tokens."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / PER


@dataclass(frozen=True, slots=True)
class Prices:
    """A price table.

    Attributes:
        as_of: Day of its oldest figures, as 2026-11-22; "" if that is not known.
        rows: Its own rows, by name in small letters, as which they are kept.
        base: Who is asked where no row here fits. So any row here wins over any there.

    Raises:
        ValueError: If a row has no name that could ever be found, or one that another has.
    """

    as_of: str = ""
    rows: Mapping[str, Price] = field(default_factory=dict)
    base: "Prices | None" = None
    # Every call asks for its price: a hit costs one look into this, emptied when it is full.
    _found: dict[tuple[str, str], Price | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        rows: dict[str, Price] = {}
        for name, price in self.rows.items():
            _check_name(name)
            if name.lower() in rows:
                raise ValueError(f"{shorten(repr(name))} is there twice: capitals do not matter")
            rows[name.lower()] = price
        object.__setattr__(self, "rows", rows)

    def find(self, provider: str, model: str) -> Price | None:
        """Return the price of a provider's model, or None where it is not known."""
        key = provider, model
        try:
            return self._found[key]
        except KeyError:
            price = self._look_up(provider.lower(), model.lower())
        if len(self._found) >= MOST_LOOKUPS:
            self._found.clear()
        self._found[key] = price
        return price

    def cost(
        self, provider: str, model: str, prompt_tokens: int, completion_tokens: int
    ) -> float | None:
        """Return the money for so many tokens; None where the price is not known.

        No tokens cost nothing, whatever their price.
        """
        if not prompt_tokens and not completion_tokens:
            return 0.0
        price = self.find(provider, model)
        return None if price is None else price.cost(prompt_tokens, completion_tokens)

    def _look_up(self, provider: str, model: str) -> Price | None:
        for name in (model, _undated(model)):
            if (price := self.rows.get(f"{provider}/{name}")) is not None:
                return price
            if "/" not in name and (price := self.rows.get(name)) is not None:
                return price
        if (price := self.rows.get(f"{provider}/*")) is not None:
            return price
        return None if self.base is None else self.base.find(provider, model)


def _undated(model: str) -> str:
    """Return what a dated snapshot is one of; any other name as it is."""
    found = _SNAPSHOT.search(model)
    return model[: found.start()] if found else model


def _amount(name: str, value: object) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= MOST_AMOUNT
    ):
        raise ValueError(
            f"{name} must be a finite number from 0, in USD per million tokens, "
            f"not {shorten(repr(value) if isinstance(value, str) else words(value))}"
        )
    return float(value)


def _check_name(name: str) -> None:
    provider, slash, model = name.partition("/")
    parts = (provider, model) if slash else (provider,)
    if (
        any(not part or part != part.strip() for part in parts)
        or "*" in provider
        or ("*" in model and model != "*")
    ):
        raise ValueError(
            f'{shorten(repr(name))} names no price: write "provider/model", "model" for that '
            'model at any provider, or "provider/*" for all of its models'
        )
