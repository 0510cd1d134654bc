"""Reading back what was kept on disk: a file that was damaged is told, not believed.

Pure.
"""


def whole(value: object) -> int:
    """Return a count: a whole number from 0.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"not a count: {value!r}")
    return value


def amount(value: object) -> float:
    """Return an amount, of seconds or points: a number from 0, infinity included.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"not an amount: {value!r}")
    return float(value)
