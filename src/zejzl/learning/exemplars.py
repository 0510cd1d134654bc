"""A few cases to look at: always the same ones, whatever the order in which cases came."""

from zejzl.learning.patterns import Case
from zejzl.learning.sketch import FAR

MOST = 3

Kept = list[tuple[int, Case]]  # (figure, case), the smallest figure first


def order(entry: tuple[int, Case]) -> tuple[int, bool, str]:
    """Return what to sort by: the figure, then the case; None is before every text."""
    figure, case = entry
    return figure, case is not None, case or ""


def keep(kept: Kept, figure: int, case: Case) -> None:
    """Keep this case among the three of the smallest figure, each case once."""
    if len(kept) == MOST and figure > kept[-1][0]:
        return
    for place, (other, name) in enumerate(kept):
        if name == case:
            if figure < other:
                kept[place] = (figure, case)
                kept.sort(key=order)
            return
    kept.append((figure, case))
    kept.sort(key=order)
    del kept[MOST:]


def keep_all(kept: Kept, others: Kept) -> None:
    """Keep the best of both."""
    for figure, case in others:
        keep(kept, figure, case)


def names(kept: Kept) -> tuple[Case, ...]:
    """Return the cases alone."""
    return tuple(case for _, case in kept)


def read_kept(body: object) -> Kept:
    """Return what JSON made of `Kept`.

    Raises:
        ValueError: If it is something else.
    """
    if not isinstance(body, list) or len(body) > MOST:
        raise ValueError(f"not exemplars: more than {MOST}, or no list")
    kept: Kept = []
    for entry in body:
        match entry:
            case [int(figure), str() | None as case] if type(figure) is int:
                kept.append((figure, case))
            case _:
                raise ValueError("not an exemplar: other than a figure and a case")
    if kept != sorted(kept, key=order) or any(abs(figure) > FAR for figure, _ in kept):
        raise ValueError("not exemplars: out of order, or with figures that cannot be")
    return kept
