"""A trial may be looked at after every observation, and still tells truth from chance."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, product
from math import inf, nan
from random import Random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.errors import StoreTooNew
from zejzl.learning.betting import FEW, Bet, Rail
from zejzl.learning.experiment import RAIL, STOP, Goal, State, Trial, assign

HALVES = {"new": 0.5, "old": 0.5}
Draw = Callable[[str], tuple[bool, float | None, float | None]]


def trial(share: float = 0.5, goal: Goal = "success", most: int = 1_000) -> Trial:
    return Trial("patience", "new", "old", share=share, goal=goal, most=most)


def ended(made: Trial, draw: Draw, rng: Random, most: int) -> State:
    """Feed a trial, looking each time, until it ends."""
    share = made.shares["new"]
    for _ in range(most):
        arm = "new" if rng.random() < share else "old"
        if (state := made.observe(arm, *draw(arm))) != "running":
            return state
    return "running"


def ends(runs: int, draw: Callable[[Random], Draw], **settings: object) -> Counter[str]:
    """Return how many of some trials ended in which way."""
    found: Counter[str] = Counter()
    for seed in range(runs):
        rng = Random(seed)
        made = trial(**settings)  # type: ignore[arg-type]
        found[ended(made, draw(rng), rng, made.most)] += 1
    return found


def succeeding(new: float, old: float) -> Callable[[Random], Draw]:
    return lambda rng: lambda arm: (rng.random() < (new if arm == "new" else old), None, None)


def costing(
    seconds: float = 1.0, usd: float = 1.0, hanging: float = 0.0
) -> Callable[[Random], Draw]:
    """Return requests that mostly succeed; the new arm's times and costs are so much larger."""

    def draw(rng: Random) -> Draw:
        def one(arm: str) -> tuple[bool, float, float]:
            new = arm == "new"
            took = rng.lognormvariate(0, 0.5) * (seconds if new else 1.0)
            took = 30.0 if new and rng.random() < hanging else took
            return (rng.random() < 0.9, took, rng.lognormvariate(-6, 0.5) * (usd if new else 1.0))

        return one

    return draw


# Who gets which arm --------------------------------------------------------------------------


def test_a_conversation_gets_the_same_arm_in_every_process() -> None:
    arms = [assign("patience", key, HALVES) for key in ("a", "b", "c", "d", "NA", "", "ä")]

    assert arms == ["old", "new", "new", "new", "new", "old", "old"]


def test_each_arm_gets_its_share() -> None:
    shares = {"new": 0.1, "old": 0.6, "none": 0.3}

    found = Counter(assign("patience", str(key), shares) for key in range(20_000))

    assert {arm: n / 20_000 for arm, n in found.items()} == pytest.approx(shares, abs=0.01)


def test_another_experiment_divides_the_same_conversations_anew() -> None:
    both = Counter(
        (assign("patience", str(key), HALVES), assign("timeouts", str(key), HALVES))
        for key in range(20_000)
    )

    assert all(n == pytest.approx(5_000, rel=0.05) for n in both.values())


def test_another_beginning_of_an_experiment_divides_the_same_conversations_anew() -> None:
    shared = sum(
        assign("patience", str(key), HALVES, "monday")
        == assign("patience", str(key), HALVES, "friday")
        for key in range(2_000)
    )

    assert 900 < shared < 1_100


def test_a_trial_that_was_put_away_keeps_what_it_divides_by() -> None:
    begun = Trial("patience", "new", "old", token="monday")

    again = Trial.from_json(json.loads(json.dumps(begun.to_json())))

    keys = [str(key) for key in range(100)]
    assert [again.arm(key) for key in keys] == [begun.arm(key) for key in keys]
    assert [trial().arm(key) for key in keys] != [begun.arm(key) for key in keys]


def test_a_name_and_a_key_are_not_taken_for_another_name_and_key() -> None:
    one = [assign("a", f"b{key}", HALVES) for key in range(64)]
    other = [assign("ab", str(key), HALVES) for key in range(64)]

    assert one != other


def test_half_characters_have_an_arm_too() -> None:
    assert assign("patience", "\udc80", HALVES) in HALVES


@pytest.mark.parametrize(
    "shares",
    [{"new": 1.0}, {"new": 0.5, "old": 0.6}, {"new": 0.0, "old": 1.0}, {}],
    ids=["one arm", "more than all", "nothing for one", "none"],
)
def test_shares_that_divide_nothing_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="shares must"):
        assign("patience", "a", shares)


# Bets ----------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=60),
    st.floats(0.01, 0.99),
    st.booleans(),
)
def test_a_bet_is_fair_whatever_came_before_and_whatever_comes(
    past: list[tuple[int, bool]], share: float, happened: bool
) -> None:
    # Nothing is assumed of the outcome, of this one or of those before: its arm alone is drawn.
    before, *after = (Bet(share) for _ in range(3))
    for bet in (before, *after):
        for step in past:
            bet.see(*step)

    for arm, bet in enumerate(after):
        bet.see(arm, happened)

    expected = share * after[0].e_value + (1 - share) * after[1].e_value
    assert expected == pytest.approx(before.e_value, rel=1e-9)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.floats(0, 9)), min_size=80, max_size=120),
    st.floats(0, 9),
)
def test_a_rail_is_fair_whatever_came_before_and_whatever_comes(
    amounts: list[tuple[int, float]], amount: float
) -> None:
    before, *after = (Rail(0.3, 0.9) for _ in range(3))
    for rail in (before, *after):
        for step in amounts:
            rail.see(*step)

    for arm, rail in enumerate(after):
        rail.see(arm, amount)

    expected = 0.3 * after[0].bet.e_value + 0.7 * after[1].bet.e_value
    assert expected == pytest.approx(before.bet.e_value, rel=1e-9)


def test_a_bet_grows_where_the_arms_differ_and_knows_by_how_much() -> None:
    bet = Bet(0.5)

    bet.see(0, True)
    first = bet.e_value
    bet.see(1, False)

    # ½ of ¾ and ½ made a success so far, ½ of ¼ and ½ a failure.
    assert first == 1.0
    assert bet.e_value == pytest.approx(0.5 / 0.375)
    assert bet.shares == (1.0, 0.0)
    assert bet.counts == [[1, 0], [0, 1]]


def test_what_hits_both_arms_is_no_evidence_however_far_one_is_ahead() -> None:
    bet = Bet(0.5)

    for happened in (True, False):
        for _ in range(300):
            bet.see(0, happened)
            bet.see(1, happened)
        for _ in range(40):  # one arm had more of the good times, and of the bad ones
            bet.see(0, happened)

    assert bet.e_value < 1.0


def test_a_bet_won_for_ever_is_still_a_number() -> None:
    bet = Bet(0.5)

    for _ in range(3_000):
        bet.see(0, True)
        bet.see(1, False)

    assert json.loads(json.dumps(bet.e_value)) > 1e300


def test_what_is_large_is_told_by_the_first_of_the_arm_with_less() -> None:
    rail = Rail(0.5, 0.9)

    for amount in range(FEW):
        rail.see(0, float(amount))
        rail.see(1, float(amount + 20))
    for _ in range(FEW):
        rail.see(0, 36.0)
        rail.see(1, 1.0)

    assert rail.limit == 17.0
    assert rail.bet.shares == (1.0, 0.0)
    assert rail.mean(0) == pytest.approx((sum(range(20)) + 20 * 36) / 40)
    assert rail.p95(0) == pytest.approx(36.0, rel=0.02)


def test_a_rail_without_amounts_says_nothing() -> None:
    rail = Rail(0.5, 0.9)

    assert (rail.mean(0), rail.p95(1), rail.bet.e_value) == (None, None, 1.0)


# Verdicts ------------------------------------------------------------------------------------


def test_nothing_is_claimed_under_twenty_in_each_arm() -> None:
    made = trial()
    for _ in range(500):
        made.observe("old", False)
    states = [made.observe("new", True) for _ in range(FEW)]

    assert states == ["running"] * (FEW - 1) + ["kept"]


def test_the_better_arm_is_kept_with_its_evidence() -> None:
    made = trial()
    for _ in range(40):
        made.observe("new", True, 1.0, 0.01)
        made.observe("old", False, 1.0, 0.01)

    ruling = made.ruling()

    assert ruling.state == "kept"
    assert ruling.e_value >= STOP
    assert ruling.reason.startswith("better in success")
    assert (ruling.treatment.n, ruling.control.n) == (20, 20)
    assert ruling.ci95[0] > 0.5 < ruling.difference == 1.0
    assert ruling.treatment.mean_usd == pytest.approx(0.01)
    assert json.loads(json.dumps(ruling.to_json()))["treatment"]["successes"] == 20


@pytest.mark.parametrize("share", [0.1, 0.8])
def test_the_odds_are_the_shares_that_arms_are_drawn_by(share: float) -> None:
    made, success, large = trial(share=share), Bet(share), Bet(share)
    for number in range(FEW + 4):
        amount = 9.0 if number >= FEW else 1.0  # large, once the limits stand
        for arm, name in enumerate(("new", "old")):
            made.observe(name, number % 2 == arm, amount * (1 - arm), amount * (1 - arm))
            success.see(arm, number % 2 == arm)
            if number >= FEW:
                large.see(arm, arm == 0)

    ruling = made.ruling()

    assert ruling.state == "running"
    assert (ruling.e_value, ruling.e_slower) == (success.e_value, large.e_value)
    assert ruling.e_dearer == ruling.e_slower != 1.0


def test_the_worse_arm_is_reverted() -> None:
    made = trial()
    for _ in range(20):
        made.observe("new", False)
        state = made.observe("old", True)

    assert state == "reverted"
    assert made.ruling().reason.startswith("worse in success")


def test_what_has_ended_is_not_changed_by_what_comes_later() -> None:
    made = trial()
    for _ in range(20):
        made.observe("new", True)
        made.observe("old", False)
    before = made.to_json()

    states = {made.observe("new", False) for _ in range(200)}

    assert states == {"kept"}
    assert made.to_json() == before


def test_without_a_difference_it_ends_undecided() -> None:
    made = trial(most=60)
    for number in range(30):
        made.observe("new", number % 2 == 0)
        state = made.observe("old", number % 2 == 0)

    assert state == "undecided"
    assert made.ruling().reason == "no clear difference after 60 outcomes"


def test_an_arm_that_nobody_gets_ends_undecided_too() -> None:
    made = trial(most=60)
    states = [made.observe("old", True) for _ in range(60)]

    assert states[-2:] == ["running", "undecided"]


def test_outcomes_that_nobody_knows_count_for_time_alone() -> None:
    made = trial()
    for _ in range(50):
        made.observe("new", None, 2.0)

    ruling = made.ruling()

    assert (ruling.treatment.n, ruling.treatment.mean_s) == (0, 2.0)
    assert ruling.state == "running"


def test_an_arm_that_answers_more_but_is_much_slower_is_not_kept() -> None:
    made = trial(most=400)
    for _ in range(60):
        made.observe("new", True, 9.0)
        state = made.observe("old", False, 1.0)

    assert state == "reverted"
    assert made.ruling().reason.startswith("slower: p95")
    assert made.ruling().e_slower >= RAIL


def test_while_a_better_arm_only_looks_slower_it_goes_on() -> None:
    made = trial()
    for _ in range(25):
        made.observe("new", True, 2.0)
        state = made.observe("old", False, 1.0)

    assert state == "running"
    assert made.ruling().reason.startswith("slower: p95")


def test_a_faster_arm_that_loses_successes_is_not_kept() -> None:
    made = trial(goal="seconds", most=80)
    for number in range(40):
        made.observe("new", number % 8 > 0, 1.0)
        state = made.observe("old", True, 1.0 if number < 20 else 5.0)

    assert state == "undecided"
    assert made.ruling().reason.startswith("fewer successes, it seems")


def test_a_faster_arm_that_mostly_fails_is_reverted() -> None:
    made = trial(goal="seconds")
    for _ in range(40):
        made.observe("new", False, 1.0)
        state = made.observe("old", True, 5.0)

    assert state == "reverted"
    assert made.ruling().reason.startswith("fewer successes: e-value")


def test_an_arm_that_costs_more_than_the_limit_is_reverted() -> None:
    made = trial()
    for number in range(60):
        made.observe("new", True, 1.0, 0.003 + 0.0001 * (number % 7))
        state = made.observe("old", True, 1.0, 0.001 + 0.0001 * (number % 7))

    assert state == "reverted"
    assert made.ruling().reason.startswith("dearer: 0.003")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"control": "new"}, "must differ"),
        ({"share": 1.0}, "shares must"),
        ({"goal": "luck"}, "goal must be"),
        ({"most": 39}, "40 or more"),
        ({"most": 100.0}, "a whole number"),
        ({"most": 100.5}, "a whole number"),
        ({"most": inf}, "a whole number"),
        ({"most": nan}, "a whole number"),
        ({"most": True}, "a whole number"),
        ({"most": "100"}, "a whole number"),
        ({"most": 10**9 + 1}, "up to 1,000,000,000"),
    ],
)
def test_a_trial_that_could_not_end_is_refused(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Trial("patience", "new", **{"control": "old", **settings})  # type: ignore[arg-type]


def test_an_arm_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no arm 'magic'; there are new and old"):
        trial().observe("magic", True)


@pytest.mark.parametrize("amount", [nan, inf, -inf, 1e300])
def test_an_amount_that_is_no_number_is_refused_and_nothing_taken_in(amount: float) -> None:
    made = trial()

    for seconds, cost in ((amount, 0.1), (0.1, amount)):
        with pytest.raises(ValueError, match="cannot be"):
            made.observe("new", True, seconds, cost)

    assert made.to_json() == trial().to_json()


def test_a_trial_knows_the_arm_of_a_conversation() -> None:
    assert trial().arm("a") == assign("patience", "a", HALVES)


# Kept and taken up again ---------------------------------------------------------------------


@pytest.mark.parametrize("half", [0, 15, 60, 150])
def test_a_trial_that_was_put_away_goes_on_as_if_it_never_was(half: int) -> None:
    rng, draw = Random(3), costing(seconds=1.2)(Random(4))
    steps = [
        (arm, *draw(arm)) for arm in ("new" if rng.random() < 0.3 else "old" for _ in "x" * 300)
    ]
    straight, first = trial(share=0.3), trial(share=0.3)

    for step in steps:
        straight.observe(*step)
    for step in steps[:half]:
        first.observe(*step)
    second = Trial.from_json(json.loads(json.dumps(first.to_json())))
    for step in steps[half:]:
        second.observe(*step)

    assert second.to_json() == straight.to_json()
    assert second.ruling() == straight.ruling()


def test_a_trial_that_has_ended_has_ended_after_a_restart_too() -> None:
    made = trial()
    for _ in range(20):
        made.observe("new", True)
        made.observe("old", False)

    again = Trial.from_json(json.loads(json.dumps(made.to_json())))

    assert again.observe("new", False) == "kept"
    assert again.ruling() == made.ruling()


def test_a_trial_of_a_newer_version_is_left_alone() -> None:
    with pytest.raises(StoreTooNew):
        Trial.from_json({**trial().to_json(), "v": 99})


def test_a_trial_that_was_counted_in_pairs_cannot_go_on_and_says_so() -> None:
    with pytest.raises(ValueError, match="version 1 cannot go on"):
        Trial.from_json({**trial().to_json(), "v": 1, "ended": None})


EMPTY: dict[str, object] = {"ln": 0.0, "counts": [[0, 0], [0, 0]]}
RAIL_EMPTY: dict[str, object] = {"bet": EMPTY, "sketches": [[0], [0]], "first": [[], []]}


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("v", None),
        ("v", 2.0),
        ("v", True),
        ("ended", ["kept", "because"]),
        ("success", None),
        ("success", {**EMPTY, "counts": [[0, 0]]}),
        ("success", {**EMPTY, "counts": [[0, -1], [0, 0]]}),
        ("success", {**EMPTY, "counts": [[0, 10**16], [0, 0]]}),
        ("success", {**EMPTY, "counts": [[0, True], [0, 0]]}),
        ("success", {**EMPTY, "counts": [[0, 1.0], [0, 0]]}),
        ("success", {**EMPTY, "counts": ["00", [0, 0]]}),
        ("success", {**EMPTY, "ln": 0}),
        ("success", {**EMPTY, "ln": nan}),
        ("success", {**EMPTY, "waiting": ["", ""]}),
        ("seconds", {**RAIL_EMPTY, "sketches": 3}),
        ("seconds", {**RAIL_EMPTY, "sketches": [[0, 7, 1, 5, 1], [0]]}),
        ("seconds", {**RAIL_EMPTY, "sketches": [[0, 5, 1, 5, 1], [0]]}),
        ("seconds", {**RAIL_EMPTY, "first": [["x"], []]}),
        ("seconds", {**RAIL_EMPTY, "first": [[1.0] * 21, []]}),
        ("seconds", {**RAIL_EMPTY, "first": [[1.0] * 20, [1.0] * 21]}),
        ("seconds", {**RAIL_EMPTY, "bet": {**EMPTY, "counts": [[1, 0], [0, 0]]}}),
        ("share", "half"),
        ("name", 3),
        ("most", 100.0),
        ("goal", "luck"),
        ("more", 1),
    ],
)
def test_a_damaged_trial_is_told_not_believed(part: str, value: object) -> None:
    whole = {**trial().to_json(), "success": EMPTY, "seconds": RAIL_EMPTY, "cost": RAIL_EMPTY}
    assert Trial.from_json(whole).to_json() == trial().to_json()

    with pytest.raises(ValueError, match=r"not|cannot|must"):
        Trial.from_json({**whole, part: value})


def test_a_trial_with_times_larger_than_any_is_told_too() -> None:
    made = trial()
    for _ in range(20):
        made.observe("new", True, 1.0)
        made.observe("old", False, 1.0)
    seconds = json.loads(json.dumps(made.to_json()["seconds"]))
    seconds["sketches"][0][0] = 10**400

    with pytest.raises(ValueError, match="cannot be"):
        Trial.from_json({**made.to_json(), "seconds": seconds})


@pytest.mark.parametrize("part", sorted(trial().to_json()))
def test_a_trial_without_one_of_its_parts_is_none(part: str) -> None:
    with pytest.raises(ValueError, match=r"not|cannot"):
        Trial.from_json({key: value for key, value in trial().to_json().items() if key != part})


# Simulated: false alarms and power -----------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.05, 0.5, 0.7, 0.95])
def test_alike_arms_are_told_apart_in_five_trials_of_a_hundred_at_most(rate: float) -> None:
    found = ends(500, succeeding(rate, rate))

    assert found["kept"] + found["reverted"] <= 25


@pytest.mark.slow
@pytest.mark.parametrize("goal", ["success", "seconds", "cost"])
def test_with_rails_too_there_are_false_alarms_in_five_of_a_hundred_at_most(goal: Goal) -> None:
    found = ends(200, costing(), goal=goal)

    assert found["kept"] + found["reverted"] <= 10


World = Callable[[Random], Iterator[tuple[bool, float, float]]]


def outages(rng: Random) -> Iterator[tuple[bool, float, float]]:
    """Good times and bad ones, in which everything is late and fails."""
    while True:
        for _ in range(rng.randint(50, 400)):
            yield True, rng.lognormvariate(0, 0.3), 0.001
        for _ in range(rng.randint(20, 150)):
            yield False, rng.lognormvariate(2, 0.3), 0.001


def step(rng: Random) -> Iterator[tuple[bool, float, float]]:
    """All is well, and from some moment on nothing."""
    for _ in range(300):
        yield True, 0.1, 0.001
    while True:
        yield False, 10.0, 0.01


def drift(rng: Random) -> Iterator[tuple[bool, float, float]]:
    """It gets worse little by little."""
    for number in count():
        bad = min(1.0, number / 1_000)
        yield rng.random() > 0.6 * bad, rng.lognormvariate(bad, 0.5), 0.001 * (1 + 2 * bad)


def alike(rng: Random) -> Iterator[tuple[bool, float, float]]:
    """Conversations fare as those before them did, mostly."""
    good = True
    while True:
        if rng.random() < 0.05:
            good = rng.random() < 0.7
        yield good, rng.lognormvariate(0 if good else 1, 0.3), 0.001


@pytest.mark.slow
@pytest.mark.parametrize("world", [outages, step, drift, alike])
def test_what_hits_both_arms_gives_a_claim_in_five_trials_of_a_hundred_at_most(
    world: World,
) -> None:
    claims = 0
    for goal, share in product(get_args(Goal)[:2], (0.5, 0.1)):
        for seed in range(100):
            made = trial(share=share, goal=goal)
            for number, outcome in enumerate(world(Random(seed))):
                state = made.observe(made.arm(f"{seed}-{number}"), *outcome)
                if state != "running":
                    break
            claims += state != "undecided"

    assert claims <= 20  # of 400


@pytest.mark.slow
def test_nine_successes_of_ten_are_told_from_seven() -> None:
    better, worse = ends(200, succeeding(0.9, 0.7)), ends(200, succeeding(0.7, 0.9))

    assert better["kept"] >= 190
    assert worse["reverted"] >= 190
    assert better["reverted"] == worse["kept"] == 0


@pytest.mark.slow
def test_a_small_share_of_traffic_is_enough() -> None:
    assert ends(100, succeeding(0.7, 0.9), share=0.1, most=2_000)["reverted"] >= 95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "least"),
    [({"seconds": 2.0}, 190), ({"usd": 1.5}, 190), ({"hanging": 0.15}, 180)],
    ids=["twice as slow", "half as much again", "some hang"],
)
def test_what_harms_breaks_a_rail(harm: dict[str, float], least: int) -> None:
    found = ends(200, costing(**harm), most=2_000)

    assert found["reverted"] >= least
    assert found["kept"] <= 2


@pytest.mark.slow
def test_what_is_tried_for_speed_is_kept_for_speed() -> None:
    assert ends(200, costing(seconds=0.5), goal="seconds")["kept"] >= 190
