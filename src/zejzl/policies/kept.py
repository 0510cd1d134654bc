"""Numbers from outside, read back from disk or handed in: what is none is told, not believed.

Pure.
"""

from math import inf, nextafter

MOST_COUNT = 2**64 - 1  # a window of 64 outcomes with every bit set
MOST_AMOUNT = nextafter(inf, 0.0)  # the largest float; a whole number may be larger


def whole(value: object) -> int:
    """Return a count: a whole number from 0, below 2**64.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_COUNT:
        raise ValueError(f"not a count: {value!r}")
    return value


def amount(value: object) -> float:
    """Return an amount, of seconds or points: a number from 0, infinity included.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"not an amount: {value!r}")
    if not (0 <= value <= MOST_AMOUNT or value == inf):
        raise ValueError(f"not an amount: {value!r}")
    return float(value)


def finite(name: str, value: object) -> float:
    """Return an amount that a caller handed in: a finite number from 0.

    Raises:
        TypeError: If it is no number.
        ValueError: If it cannot be.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not 0 <= value <= MOST_AMOUNT:
        raise ValueError(f"{name} must be a finite number from 0, not {value!r}")
    return float(value)
