"""Statistics of counts: intervals, tests, corrections for many tests, sizes of samples.

Pure. Shares are from 0 to 1; intervals hold 95 % unless another `z` is given. Every function is
total on counts that can occur: no trials give the widest interval, no contrast gives p = 1.

Sources: Wilson, "Probable inference", JASA 1927; Newcombe, Statistics in Medicine 17, 1998
(I: one share, II: method 10, two shares); Fisher, "The logic of inductive inference", 1935;
Benjamini & Hochberg, JRSS B 57, 1995; Greenland & Robins, Biometrics 41, 1985 (the stratified
difference); Fleiss, Levin & Paik, *Statistical Methods for Rates and Proportions*, 3rd ed., 4.3.
"""

from collections.abc import Callable, Iterable, Sequence
from math import ceil, exp, lgamma, log, sqrt
from statistics import NormalDist

Z95 = 1.959963984540054
_TIE = 1e-7  # tables whose probabilities differ by less are as unlikely as one another
_NEGLIGIBLE = 1e-18
_MOST_NEEDED = 10_000_000  # a difference that needs more is none that anybody will see

Interval = tuple[float, float]


def wilson(successes: float, n: float, z: float = Z95) -> Interval:
    """Return the Wilson interval of a share; of no trials it is (0, 1).

    Raises:
        ValueError: If there are more successes than trials, or fewer than none.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be between 0 and {n!r}, not {successes!r}")
    if n == 0:
        return (0.0, 1.0)
    share, square = successes / n, z * z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = z * sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    # At the ends the formula gives 0 and 1 but for rounding.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return (min(low, share), max(high, share))


def difference_interval(
    successes: float, n: float, reference: float, n_reference: float, z: float = Z95
) -> Interval:
    """Return the interval of successes/n − reference/n_reference (Newcombe's method 10).

    Raises:
        ValueError: As `wilson`.
    """
    low, high = wilson(successes, n, z)
    low0, high0 = wilson(reference, n_reference, z)
    if not n or not n_reference:
        return (-1.0, 1.0)
    share, share0 = successes / n, reference / n_reference
    difference = share - share0
    return (
        max(-1.0, difference - sqrt((share - low) ** 2 + (high0 - share0) ** 2)),
        min(1.0, difference + sqrt((high - share) ** 2 + (share0 - low0) ** 2)),
    )


def fisher_exact(a: int, b: int, c: int, d: int) -> float:
    """Return the two-sided p of the table (a b / c d): of all tables no likelier than it.

    Sums outwards from the observed table and from its counterpart on the other side, so that a
    table of a million takes some thousand steps at most.

    Raises:
        ValueError: If a count is negative.
    """
    if min(a, b, c, d) < 0:
        raise ValueError(f"counts must be 0 or more, not {(a, b, c, d)!r}")
    row, column, n = a + b, a + c, a + b + c + d
    lowest, highest = max(0, row + column - n), min(row, column)
    if lowest == highest:
        return 1.0
    fixed = _ln_choose(n, column)

    def ln_chance(x: int) -> float:
        return _ln_choose(row, x) + _ln_choose(n - row, column - x) - fixed

    limit = ln_chance(a) + _TIE
    mode = min(highest, (row + 1) * (column + 1) // (n + 2))
    if ln_chance(mode) <= limit:
        return 1.0
    # The chances rise up to the mode and fall after it: each side has one border.
    left = _last(lowest, mode, lambda x: ln_chance(x) <= limit)
    right = _last(-highest, -mode, lambda x: ln_chance(-x) <= limit)
    total = 0.0
    if left is not None:
        total += _tail(ln_chance(left), left, lowest, row, column, n)
    if right is not None:
        # Mirrored: counting what is not in the row turns the upper tail into a lower one.
        total += _tail(ln_chance(-right), column + right, column - highest, n - row, column, n)
    return min(1.0, total)


def _ln_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _last(low: int, high: int, holds: Callable[[int], bool]) -> int | None:
    """Return the last x of low..high where `holds` does, if it holds up to some x only."""
    if not holds(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _tail(ln_first: float, x: int, lowest: int, row: int, column: int, n: int) -> float:
    """Return the chance of x and all below it, of which x has e^ln_first."""
    term = total = 1.0
    while x > lowest and term > _NEGLIGIBLE * total:
        # The chance of x − 1 over that of x.
        term *= x * (n - row - column + x) / ((row - x + 1) * (column - x + 1))
        total += term
        x -= 1
    return exp(ln_first) * total


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return the q of each p: the least false discovery rate at which it would count."""
    n = len(p_values)
    order = sorted(range(n), key=p_values.__getitem__, reverse=True)
    q_values = [1.0] * n
    least = 1.0
    for behind, index in enumerate(order):
        least = min(least, p_values[index] * n / (n - behind))
        q_values[index] = least
    return q_values


def stratified_difference(strata: Iterable[tuple[int, int, int, int]]) -> float | None:
    """Return the difference of two shares within strata, weighted as Mantel and Haenszel do.

    Args:
        strata: Of each one: successes, trials, the others' successes, the others' trials.

    Returns:
        None where no stratum has trials on both sides: then nothing can be compared.
    """
    weights = total = 0.0
    for successes, n, reference, n_reference in strata:
        if n and n_reference:
            weight = n * n_reference / (n + n_reference)
            weights += weight
            total += weight * (successes / n - reference / n_reference)
    return total / weights if weights else None


def needed_for_shares(
    share: float, other: float, *, alpha: float = 0.05, power: float = 0.8
) -> int:
    """Return the trials per arm that show a difference of two shares (no continuity correction).

    Equal shares need more than anybody has: 10,000,000 stands for that, and is the most.
    """
    difference = abs(share - other)
    if difference == 0:
        return _MOST_NEEDED
    mean = (share + other) / 2
    spread = _z(1 - alpha / 2) * sqrt(2 * mean * (1 - mean))
    spread += _z(power) * sqrt(share * (1 - share) + other * (1 - other))
    return max(2, min(_MOST_NEEDED, ceil((spread / difference) ** 2)))


def needed_for_ratio(
    p25: float, p75: float, ratio: float, *, alpha: float = 0.05, power: float = 0.8
) -> int:
    """Return the trials per arm that show that durations became `ratio` times as long.

    Durations are taken as log-normal, their spread from the quartiles (1.349 standard
    deviations lie between them). The most is 10,000,000, as in `needed_for_shares`.
    """
    if ratio <= 0 or ratio == 1:
        return _MOST_NEEDED
    if p25 <= 0 or p75 <= p25:
        return 2
    deviation = log(p75 / p25) / 1.349
    z = _z(1 - alpha / 2) + _z(power)
    return max(2, min(_MOST_NEEDED, ceil(2 * (z * deviation / log(ratio)) ** 2)))


def _z(share: float) -> float:
    return NormalDist().inv_cdf(share)
