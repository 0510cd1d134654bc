"""What a breaker is told: rules that cannot be are named, and a delay follows from its rung."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.policies.breaker_rules import BreakerRules

SECONDS = st.floats(0.01, 1e4)
RULES = st.builds(
    BreakerRules,
    failure_threshold=st.integers(1, 100),
    recovery_timeout=SECONDS,
    first_probe_after=SECONDS | st.none(),
    max_probe_delay=SECONDS,
    failure_ratio=st.floats(0.01, 1) | st.none(),
    minimum_calls=st.integers(1, 64),
)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"failure_threshold": bad} for bad in (0, -1, 1.0, True)),
        *({"permits": bad} for bad in (0, 1.5)),
        *({"minimum_calls": bad} for bad in (0, "10")),
        *({"recovery_timeout": bad} for bad in (0, -1.0, float("inf"), float("nan"))),
        *({"max_probe_delay": bad} for bad in (0.0, float("inf"))),
        *({"first_probe_after": bad} for bad in (0.0, float("inf"))),
        *({"jitter": bad} for bad in (-0.1, 1.0)),
        *({"failure_ratio": bad} for bad in (0.0, 1.1)),
    ],
    ids=str,
)
def test_rules_that_cannot_be_are_named(wrong: dict[str, float]) -> None:
    ((name, value),) = wrong.items()

    with pytest.raises(ValueError, match=rf"^{name} must be .*, not {value!r}$"):
        BreakerRules(**wrong)  # type: ignore[arg-type]


def test_rules_may_be_as_tight_as_one_call() -> None:
    rules = BreakerRules(
        failure_threshold=1,
        permits=1,
        minimum_calls=1,
        recovery_timeout=0.01,
        max_probe_delay=0.5,
        first_probe_after=0.01,
        failure_ratio=1.0,
        jitter=0.0,
    )

    assert rules.delay(0) == 0.01


def test_a_breaker_on_its_own_waits_as_long_every_time() -> None:
    rules = BreakerRules(recovery_timeout=30.0, max_probe_delay=10.0)

    assert {rules.delay(step) for step in range(10)} == {30.0}


@pytest.mark.parametrize(
    ("rules", "delays"),
    [
        (BreakerRules(first_probe_after=0.5), [0.5, 1.5, 4.5, 9.0, 9.0]),
        (BreakerRules(first_probe_after=0.5, recovery_timeout=2.0), [0.5, 1.5, 2.0, 2.0, 2.0]),
        (BreakerRules(first_probe_after=0.5, max_probe_delay=20.0), [0.5, 1.5, 4.5, 13.5, 20.0]),
        (BreakerRules(first_probe_after=20.0), [9.0] * 5),
    ],
    ids=["of the bus", "of a short timeout", "of a long last step", "of a late first one"],
)
def test_the_ladder_triples_up_to_its_top(rules: BreakerRules, delays: list[float]) -> None:
    assert [rules.delay(step) for step in range(5)] == delays


@given(RULES, st.integers(0, 10**6))
def test_no_delay_is_longer_than_the_recovery_timeout_or_than_the_next(
    rules: BreakerRules, step: int
) -> None:
    assert 0 < rules.delay(step) <= rules.delay(step + 1) <= rules.recovery_timeout


@pytest.mark.parametrize(
    ("threshold", "hardened"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (100, 50)]
)
def test_hardened_rules_open_after_half_the_failures_and_one_at_the_least(
    threshold: int, hardened: int
) -> None:
    assert BreakerRules(failure_threshold=threshold).hardened().failure_threshold == hardened


@pytest.mark.parametrize(("ratio", "hardened"), [(0.5, 0.25), (1.0, 0.5), (None, None)])
def test_hardened_rules_open_at_half_the_share_where_there_is_one(
    ratio: float | None, hardened: float | None
) -> None:
    assert BreakerRules(failure_ratio=ratio).hardened().failure_ratio == hardened


@given(RULES, st.integers(0, 100))
def test_hardened_rules_wait_as_long_as_usual(rules: BreakerRules, step: int) -> None:
    hardened = rules.hardened()

    assert hardened.delay(step) == rules.delay(step)
    assert (hardened.permits, hardened.minimum_calls) == (rules.permits, rules.minimum_calls)
    assert hardened.failure_threshold <= rules.failure_threshold
