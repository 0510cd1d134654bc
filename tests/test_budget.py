"""The retry budget: what second chances cost, and the bound that no storm breaks.

All times are multiples of 1/64 s, so that sums of them are exact.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from zejzl.policies.budget import HEALING_COST, Budget, Cost

TIMES = st.integers(0, 64 * 200).map(lambda ticks: ticks / 64)
PRICES = {"SAME": 10, "AFTER_TIMEOUT": 20, "WAITED": 5, "FAILOVER": 3, "HEDGE": 5}


class AgainstTheLedger(RuleBasedStateMachine):
    """Everything is written down; the balance is the sum, and the bound holds in any window."""

    @initialize(maximum=st.sampled_from([20.0, 100.0]), share=st.sampled_from([0.0, 0.5, 1.0]))
    def begin(self, maximum: float, share: float) -> None:
        self.now = self.lit = 0.0  # seconds in all, and those in which some provider was well
        self.maximum = self.sum = maximum
        self.sum *= share
        self.dark = False
        self.budget = Budget(0.0, balance=self.sum, maximum=maximum)
        self.ledger: list[tuple[str, float, float]] = []  # what, how much, after how long in light

    def gain(self, points: float) -> None:
        self.sum = min(self.maximum, self.sum + points)

    @rule(seconds=TIMES)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if not self.dark:
            self.lit += seconds
            self.gain(seconds)

    @rule(kind=st.sampled_from([*PRICES]), times=st.integers(1, 40))
    def extra_calls_are_wanted(self, kind: str, times: int) -> None:
        for _ in range(times):
            self.buy(kind, Cost[kind], PRICES[kind])

    @rule()
    def somebody_pays_for_healing(self) -> None:
        self.buy("healing", HEALING_COST, 10)

    def buy(self, kind: str, cost: float, price: float) -> None:
        enough = self.sum >= price

        assert self.budget.spend(cost, self.now) is enough

        if enough:
            self.sum -= price
            self.ledger.append((kind, -price, self.lit))

    @rule()
    def a_request_succeeds_at_its_first_call(self) -> None:
        self.budget.balance(self.now)
        self.budget.earn()
        self.gain(1.0)
        self.ledger.append(("success", 1.0, self.lit))

    @rule(points=st.sampled_from([0.0, 5.0, 30.0, 1000.0]))
    def somebody_restores(self, points: float) -> None:
        before = self.sum
        self.gain(points)

        assert self.budget.restore(points, self.now) == self.sum - before

        self.ledger.append(("by hand", self.sum - before, self.lit))

    @rule(dark=st.booleans())
    def all_providers_go_down_or_one_comes_back(self, dark: bool) -> None:
        self.budget.darken(dark, self.now)
        self.dark = dark

    @rule(cost=st.sampled_from([1.0, 10.0, 50.0, 200.0]))
    def somebody_asks_how_long_it_takes(self, cost: float) -> None:
        wait = self.budget.wait_for(cost, self.now)

        if self.sum >= cost:
            assert wait == 0.0
        elif self.dark or cost > self.maximum:
            assert wait == float("inf")
        else:
            assert wait == cost - self.sum

    @invariant()
    def the_balance_is_the_sum_of_the_ledger(self) -> None:
        assert self.budget.balance(self.now) == self.sum
        assert 0.0 <= self.sum <= self.maximum

    @invariant()
    def no_window_holds_more_extra_calls_than_the_bound(self) -> None:
        paid = calls = 0.0
        income = self.maximum
        for kind, points, lit in reversed(self.ledger):
            if points > 0:
                income += points
            elif points < 0:
                paid -= points
                calls += kind in PRICES
                assert paid <= income + (self.lit - lit)
                assert 3 * calls <= income + (self.lit - lit)


AgainstTheLedger.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None
)
TestTheBalanceIsItsLedger = AgainstTheLedger.TestCase


def test_the_prices_are_those_of_the_bound() -> None:
    prices = {name: float(cost) for name, cost in Cost.__members__.items()}

    assert prices == PRICES
    assert HEALING_COST == 10


def test_a_new_budget_is_full() -> None:
    budget = Budget(50.0)

    assert (budget.balance(50.0), budget.maximum) == (100.0, 100.0)


def test_an_outage_without_end_allows_what_was_saved_and_no_more() -> None:
    budget = Budget(0.0)
    budget.darken(True, 0.0)

    calls = sum(budget.spend(Cost.SAME, float(second)) for second in range(10_000))

    assert (calls, budget.balance(10_000.0)) == (10, 0.0)


def test_a_dark_night_of_hedging_ends_after_twenty_calls() -> None:
    budget = Budget(0.0)
    budget.darken(True, 0.0)

    hedges = sum(budget.spend(Cost.HEDGE, float(second)) for second in range(100))
    failover_is_left = budget.spend(Cost.FAILOVER, 100.0)

    assert (hedges, failover_is_left) == (20, False)


def test_ten_failures_in_a_hundred_calls_are_all_retried() -> None:
    budget = Budget(0.0, balance=10.0)
    budget.darken(True, 0.0)  # no income but from calls

    retried = 0
    for number in range(1000):
        if number % 11 == 10:
            retried += budget.spend(Cost.SAME, 0.0)
        else:
            budget.earn()

    assert retried == 90


def test_a_refused_price_is_not_taken_in_part() -> None:
    budget = Budget(0.0, balance=9.5)

    assert not budget.spend(10.0, 0.0)
    assert budget.balance(0.0) == 9.5
    assert budget.spend(9.5, 0.0)


def test_time_in_the_dark_is_not_made_up_for_afterwards() -> None:
    budget = Budget(0.0, balance=0.0)
    budget.balance(10.0)
    budget.darken(True, 10.0)
    budget.darken(True, 20.0)
    budget.darken(False, 50.0)

    assert budget.balance(55.0) == 15.0


def test_a_clock_that_stands_still_or_goes_back_earns_nothing() -> None:
    budget = Budget(100.0, balance=10.0)

    assert [budget.balance(now) for now in (100.0, 40.0, 100.0, 101.0)] == [10, 10, 10, 11]


@given(st.floats(0, 100), st.floats(0.001, 100), st.floats(0, 1e6))
def test_after_the_wait_it_told_the_price_is_there(balance: float, cost: float, now: float) -> None:
    budget = Budget(now, balance=balance)

    wait = budget.wait_for(cost, now)

    assert budget.spend(cost, now + wait + 1e-6)


def test_a_price_that_is_there_is_not_waited_for_in_the_dark_either() -> None:
    budget = Budget(0.0, balance=10.0)
    budget.darken(True, 0.0)

    assert budget.wait_for(10.0, 0.0) == 0.0
    assert budget.wait_for(10.5, 0.0) == float("inf")


def test_the_whole_maximum_can_be_waited_for_and_no_more() -> None:
    budget = Budget(0.0, balance=20.0, maximum=50.0)

    assert budget.wait_for(50.0, 0.0) == 30.0
    assert budget.wait_for(50.5, 0.0) == float("inf")


@pytest.mark.parametrize("maximum", [0.0, -1.0, float("inf"), float("nan")])
def test_a_maximum_that_cannot_be_is_named(maximum: float) -> None:
    with pytest.raises(ValueError, match=f"^maximum must be above 0, not {maximum}$"):
        Budget(0.0, balance=0.0, maximum=maximum)


@pytest.mark.parametrize("balance", [-0.5, 20.5, float("nan")])
def test_a_balance_that_cannot_be_is_named(balance: float) -> None:
    with pytest.raises(ValueError, match=f"^balance must be between 0 and 20, not {balance}$"):
        Budget(0.0, balance=balance, maximum=20.0)


@pytest.mark.parametrize("balance", [0.0, 20.0])
def test_a_balance_may_be_either_end(balance: float) -> None:
    assert Budget(0.0, balance=balance, maximum=20.0).balance(0.0) == balance


def test_a_maximum_may_be_below_one() -> None:
    assert Budget(0.0, balance=0.5, maximum=0.5).maximum == 0.5
