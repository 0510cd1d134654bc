"""What was kept on disk is read back as what it is, or told as damaged."""

import pytest

from zejzl.policies.kept import amount, finite, whole

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [0, 1, 2**64 - 1])
def test_a_count_is_a_whole_number_from_0(value: int) -> None:
    assert whole(value) == value


@pytest.mark.parametrize("value", [-1, 1.0, True, "1", None, [], 2**64, 10**400], ids=repr)
def test_anything_else_is_no_count(value: object) -> None:
    with pytest.raises(ValueError, match=r"^not a count: "):
        whole(value)


@pytest.mark.parametrize("value", [0, 0.5, 3, INF])
def test_an_amount_is_a_number_from_0(value: float) -> None:
    found = amount(value)

    assert (found, type(found)) == (value, float)


@pytest.mark.parametrize("value", [-0.5, NAN, True, "1", None, [], 10**400], ids=repr)
def test_anything_else_is_no_amount(value: object) -> None:
    with pytest.raises(ValueError, match=r"^not an amount: "):
        amount(value)


@pytest.mark.parametrize("value", [0, 0.5, 3, 1e300])
def test_what_is_handed_in_is_a_finite_number_from_0(value: float) -> None:
    found = finite("cost", value)

    assert (found, type(found)) == (value, float)


@pytest.mark.parametrize("value", [-0.5, NAN, INF, -INF, 10**400, True, "1", None], ids=repr)
def test_anything_else_is_refused_by_name(value: object) -> None:
    number = isinstance(value, int | float) and value is not True

    with pytest.raises(ValueError if number else TypeError, match=r"^cost must be a "):
        finite("cost", value)
