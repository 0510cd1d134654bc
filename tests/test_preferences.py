"""Learned preferences: what an attempt teaches, what a person may add, and what is kept."""

import json
from collections.abc import Callable
from itertools import chain, groupby, pairwise
from math import exp, isfinite, log
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.policies.diagnosis import RUNBOOK, Remedy
from zejzl.policies.preferences import ALL, CELLS, Preferences, Row

BOOK = {"connect": ["reconnect", "failover", "wait"], "empty": ["retry", "failover"], "auth": []}
COMPONENTS = ["db", "ai"]
CLASSES = [*BOOK, "unheard_of"]
WAIT = ("db", "connect", "wait")
REMEDIES = ["reconnect", "failover", "wait", "retry", "restart"]  # the last is a user's own


class Learnt(NamedTuple):
    component: str
    failure_class: str
    remedy: str
    success: bool
    cost: float

    def tell(self, preferences: Preferences) -> bool:
        return preferences.learn(*self[:3], success=self.success, cost=self.cost)


class Preferred(NamedTuple):
    winner: str
    loser: str
    author: str
    component: str | None
    failure_class: str | None

    def tell(self, preferences: Preferences) -> None:
        preferences.prefer(
            self.winner,
            self.loser,
            author=self.author,
            component=self.component,
            failure_class=self.failure_class,
        )


PLACES = st.tuples(st.sampled_from(COMPONENTS), st.sampled_from(CLASSES), st.sampled_from(REMEDIES))
ATTEMPTS = st.builds(
    lambda place, success, cost: Learnt(place[0], place[1], place[2], success, cost),
    PLACES,
    st.booleans(),
    st.floats(0, 1),
)
# Long runs of one outcome fill the counts and bring drift about.
RUNS = st.lists(st.tuples(ATTEMPTS, st.integers(1, 40)), max_size=12).map(
    lambda runs: [attempt for attempt, times in runs for _ in range(times)]
)
WISHES = st.builds(
    lambda pair, author, component, kind: Preferred(pair[0], pair[1], author, component, kind),
    st.permutations(REMEDIES).map(lambda names: names[:2]),
    st.sampled_from(["ann", "bob"]),
    st.sampled_from([None, *COMPONENTS]),
    st.sampled_from([None, *CLASSES]),
)
LOGS = st.lists(st.one_of(RUNS, st.lists(WISHES, max_size=3)), max_size=4).map(
    lambda parts: [entry for part in parts for entry in part]
)


def after(log: list[Learnt | Preferred], book: dict[str, list[str]] = BOOK) -> Preferences:
    preferences = Preferences(book)
    for entry in log:
        entry.tell(preferences)
    return preferences


def times(n: int, *names: str, success: bool, cost: float = 0.1) -> list[Learnt | Preferred]:
    component, failure_class, remedy = names
    return [Learnt(component, failure_class, remedy, success, cost)] * n


def row(preferences: Preferences, component: str, failure_class: str, remedy: str) -> Row:
    names = (component, failure_class, remedy)
    return next(
        each
        for each in preferences.rows()
        if (each.component, each.failure_class, each.remedy) == names
    )


def scores(preferences: Preferences) -> dict[tuple[str, str, str], float]:
    return {
        (each.component, each.failure_class, each.remedy): each.score for each in preferences.rows()
    }


# Deciding -----------------------------------------------------------------------------------


@given(st.dictionaries(st.text(), st.lists(st.text(), unique=True)), st.text())
def test_without_data_the_runbook_s_order_holds(book: dict[str, list[str]], place: str) -> None:
    preferences = Preferences(book)

    assert all(preferences.order(place, kind, page) == page for kind, page in book.items())


def test_the_bus_s_own_runbook_fits() -> None:
    preferences = Preferences(RUNBOOK)

    assert preferences.order("ai", "connect", [Remedy.WAIT, Remedy.RECONNECT]) == [
        "reconnect",
        "wait",
    ]


def test_without_data_the_pick_comes_first_and_ties_stay_as_they_were_given() -> None:
    preferences = Preferences(BOOK)

    order = preferences.order("db", "connect", ["wait", "restart", "reconnect", "failover"])

    assert order == ["reconnect", "wait", "restart", "failover"]


def test_where_the_pick_is_no_candidate_nobody_stands_in_for_it() -> None:
    preferences = Preferences(BOOK)

    shares = preferences.probabilities("db", "connect", ["wait", "failover"])

    assert shares == {"wait": 0.5, "failover": 0.5}


def test_a_candidate_given_twice_is_one() -> None:
    preferences = Preferences(BOOK)

    assert preferences.order("db", "connect", ["wait", "wait", "reconnect"]) == [
        "reconnect",
        "wait",
    ]
    assert preferences.probabilities("db", "auth", ["wait", "wait"]) == {"wait": 1.0}


def test_without_data_the_probabilities_are_those_of_the_priors() -> None:
    preferences = Preferences(BOOK)

    shares = preferences.probabilities("db", "connect", ["reconnect", "wait", "restart"])

    pick = exp((0.80 - 0.10) / 0.05 + 0.3 * log(0.70))
    other = exp((0.60 - 0.10) / 0.05 + 0.3 * log(0.15))
    assert shares == pytest.approx(
        {
            "reconnect": pick / (pick + 2 * other),
            "wait": other / (pick + 2 * other),
            "restart": other / (pick + 2 * other),
        }
    )


def test_probabilities_without_candidates_are_of_the_page_and_what_was_tried_there() -> None:
    preferences = after(times(1, "db", "empty", "restart", success=True))

    assert list(preferences.probabilities("db", "empty")) == ["retry", "failover", "restart"]
    assert list(preferences.probabilities("ai", "empty")) == ["retry", "failover"]
    assert preferences.probabilities("db", "auth") == {}


@given(LOGS, st.permutations(REMEDIES), st.integers(1, 5))
def test_probabilities_sum_to_1_and_rank_as_the_order_does(
    log: list[Learnt | Preferred], names: list[str], n: int
) -> None:
    preferences = after(log)

    for component in COMPONENTS:
        for kind in CLASSES:
            shares = preferences.probabilities(component, kind, names[:n])
            assert sum(shares.values()) == pytest.approx(1.0)
            assert all(share > 0 for share in shares.values())
            ranked = [shares[name] for name in preferences.order(component, kind, names[:n])]
            assert all(one >= two for one, two in pairwise(ranked))


@given(LOGS, st.permutations(REMEDIES))
def test_renaming_remedies_permutes_the_results(
    log: list[Learnt | Preferred], others: list[str]
) -> None:
    new = dict(zip(REMEDIES, others, strict=True))
    book = {kind: [new[name] for name in page] for kind, page in BOOK.items()}
    renamed: list[Learnt | Preferred] = [
        entry._replace(remedy=new[entry.remedy])
        if isinstance(entry, Learnt)
        else entry._replace(winner=new[entry.winner], loser=new[entry.loser])
        for entry in log
    ]

    one, two = after(log), after(renamed, book)

    for component in COMPONENTS:
        for kind in CLASSES:
            order = one.order(component, kind, REMEDIES)
            shares = one.probabilities(component, kind, REMEDIES)
            there = [new[name] for name in REMEDIES]
            assert two.order(component, kind, there) == [new[name] for name in order]
            assert two.probabilities(component, kind, there) == {
                new[name]: share for name, share in shares.items()
            }


# Learning -----------------------------------------------------------------------------------


def test_the_first_success_counts_in_the_class_and_once_more_in_the_cell() -> None:
    preferences = after(
        [
            *times(1, "db", "connect", "reconnect", success=True),
            *times(1, "ai", "connect", "wait", success=False),
        ]
    )

    m = (8 * 0.80 + 1) / 9
    assert row(preferences, "db", "connect", "reconnect").success_rate == (6 * m + 1) / 7
    assert row(preferences, "ai", "connect", "reconnect").success_rate == pytest.approx(m)
    m = (8 * 0.60) / 9
    assert row(preferences, "ai", "connect", "wait").success_rate == (6 * m) / 7
    assert row(preferences, "db", "connect", "wait").success_rate == pytest.approx(m)


@given(RUNS)
def test_estimates_equal_a_recount_of_the_whole_log(log: list[Learnt]) -> None:
    preferences = Preferences(BOOK)
    weights: dict[tuple[str, str], list[tuple[str, bool, float]]] = {}

    for entry in log:
        drifted = entry.tell(preferences)
        seen = weights.setdefault((entry.failure_class, entry.remedy), [])
        # An attempt ages what its class saw, and what its own component saw, apart from another.
        seen.append((entry.component, entry.success, 0.1 if drifted else 1.0))

    for each in preferences.rows():
        seen = weights.get((each.failure_class, each.remedy), [])
        prior = 0.80 if each.remedy == next(iter(BOOK.get(each.failure_class, [])), "") else 0.60
        m = recount(prior, 8.0, [(ok, shrunk, True) for _, ok, shrunk in seen])
        p = recount(m, 6.0, [(ok, shrunk, where == each.component) for where, ok, shrunk in seen])
        assert each.success_rate == pytest.approx(p)
        assert each.tried == sum(where == each.component for where, _, _ in seen)


def recount(prior: float, weight: float, seen: list[tuple[bool, float, bool]]) -> float:
    """Return the mean over a prior and what was seen: (success, factor afterwards, counted)."""
    good = total = 0.0
    for ok, factor, counted in seen:
        if counted:
            good, total = 0.95 * good + ok, 0.95 * total + 1.0
        good, total = good * factor, total * factor
    return (weight * prior + good) / (weight + total)


@given(RUNS, ATTEMPTS)
def test_success_at_equal_cost_lowers_no_score(log: list[Learnt], last: Learnt) -> None:
    preferences = after([*log, last])
    before = scores(preferences)
    cost = row(preferences, *last[:3]).cost

    last._replace(success=True, cost=cost).tell(preferences)

    mine, now = last[:3], scores(preferences)
    assert now[mine] >= before[mine] - 1e-12
    assert all(now[place] >= before[place] - 1e-12 for place in before)


@given(RUNS, ATTEMPTS)
def test_failure_at_any_cost_raises_no_score_unless_drift_is_told(
    log: list[Learnt], last: Learnt
) -> None:
    preferences = after([*log, last])
    before = scores(preferences)

    drifted = last._replace(success=False).tell(preferences)

    now = scores(preferences)
    assert drifted or all(now[place] <= before[place] + 1e-12 for place in before)


def test_failing_cheaply_makes_a_dear_remedy_no_better() -> None:
    log = times(20, "db", "connect", "wait", success=True, cost=1.0)
    preferences = after([*log, *times(3, "db", "connect", "wait", success=False, cost=1.0)])
    before = row(preferences, "db", "connect", "wait")

    preferences.learn("db", "connect", "wait", success=False, cost=0.0)

    now = row(preferences, "db", "connect", "wait")
    assert now.cost < before.cost
    assert now.score <= before.score + 1e-12


def test_an_attempt_changes_its_own_remedy_and_class_only() -> None:
    log = [
        *times(5, "db", "connect", "wait", success=True),
        *times(5, "db", "connect", "failover", success=False),
        *times(5, "db", "empty", "wait", success=False),
    ]
    preferences = after(log)
    before = scores(preferences)

    preferences.learn("db", "connect", "wait", success=True, cost=0.1)

    now = scores(preferences)
    assert {place for place in before if now[place] != before[place]} == {("db", "connect", "wait")}


def test_the_first_nine_costs_are_averaged_with_the_guess_and_later_ones_count_a_tenth() -> None:
    preferences = Preferences(BOOK)
    costs = [0.5, 0.3, 0.7, 0.1, 0.9, 0.2, 0.4, 0.6, 0.8]

    for number, cost in enumerate(costs, 1):
        preferences.learn("db", "connect", "wait", success=True, cost=cost)
        mean = (0.1 + sum(costs[:number])) / (number + 1)
        assert row(preferences, "db", "connect", "wait").cost == pytest.approx(mean)
    for _ in range(2):
        preferences.learn("db", "connect", "wait", success=True, cost=1.0)
        mean = 0.9 * mean + 0.1

    assert row(preferences, "db", "connect", "wait").cost == pytest.approx(mean)


def test_a_cost_above_1_counts_as_1() -> None:
    log = [*times(1, "db", "empty", "retry", success=True, cost=float("inf"))]

    assert row(after(log), "db", "empty", "retry").cost == pytest.approx((0.1 + 1.0) / 2)


@pytest.mark.parametrize("cost", [-0.1, float("nan")])
def test_a_cost_that_cannot_be_is_named_and_teaches_nothing(cost: float) -> None:
    preferences = Preferences(BOOK)

    with pytest.raises(ValueError, match=f"^cost must be from 0 to 1, not {cost}$"):
        preferences.learn("db", "connect", "wait", success=True, cost=cost)

    assert preferences.rows() == []


def test_a_remedy_that_does_better_elsewhere_comes_first_in_a_new_component() -> None:
    preferences = after(
        [
            *times(20, "db", "connect", "reconnect", success=False),
            *times(20, "db", "connect", "wait", success=True),
        ]
    )

    assert preferences.order("new", "connect", BOOK["connect"])[0] == "wait"


def test_the_log_told_again_gives_the_same_state_however_often_it_is_asked() -> None:
    log = [
        *times(30, "db", "connect", "wait", success=True),
        Preferred("wait", "failover", "ann", "db", None),
        *times(9, "db", "connect", "wait", success=False),
        *times(2, "ai", "connect", "restart", success=True, cost=0.7),
    ]

    live = Preferences(BOOK)
    for entry in log:
        entry.tell(live)
        live.order("db", "connect", REMEDIES)
        live.probabilities("ai", "connect")
        live.rows()

    assert live.snapshot() == after(log).snapshot()


@pytest.mark.slow
def test_a_million_attempts_leave_everything_finite() -> None:
    preferences = Preferences(BOOK)
    draw = 1

    for _ in range(1_000_000):
        draw = draw * 48271 % 2147483647
        preferences.learn(
            COMPONENTS[draw % 2],
            "connect",
            REMEDIES[draw // 2 % 5],
            success=draw // 16 % 16 < 3 * (draw // 2 % 5),
            cost=draw / 2147483647,
        )

    shares = preferences.probabilities("db", "connect")
    assert sum(shares.values()) == pytest.approx(1.0)
    assert all(isfinite(each.score) and 0 < each.success_rate < 1 for each in preferences.rows())
    again = Preferences(BOOK)
    again.restore(preferences.snapshot())
    assert again.rows() == preferences.rows()


# Drift --------------------------------------------------------------------------------------


def test_a_surprise_is_measured_against_what_was_expected_of_the_remedy() -> None:
    preferences = after(times(1, "db", "connect", "reconnect", success=False))

    cell = preferences.snapshot()["cells"]

    # Expected 0.8, so the failure lies 0.8 / √(0.8·0.2) = 2 below it; 0.5 of that is let pass.
    assert cell == [["db", "connect", "reconnect", 0.0, 1.0, 0.1, pytest.approx(1.5), 1]]


def test_one_failure_after_however_many_successes_is_no_drift() -> None:
    preferences = after(times(500, "db", "connect", "reconnect", success=True))

    assert not preferences.learn("db", "connect", "reconnect", success=False, cost=0.1)


def test_two_failures_in_a_row_after_many_successes_are_drift() -> None:
    preferences = after(times(500, "db", "connect", "reconnect", success=True))
    preferences.learn("db", "connect", "reconnect", success=False, cost=0.1)

    assert preferences.learn("db", "connect", "reconnect", success=False, cost=0.1)


def test_drift_leaves_a_tenth_of_what_was_known_of_that_remedy_against_that_class() -> None:
    log = [
        *times(500, "db", "connect", "reconnect", success=True),
        *times(10, "ai", "connect", "reconnect", success=True),
        *times(10, "ai", "connect", "wait", success=True),
        *times(10, "ai", "empty", "reconnect", success=True),
        *times(1, "db", "connect", "reconnect", success=False),
    ]
    preferences = after(log)
    before = counts(preferences)

    preferences.learn("db", "connect", "reconnect", success=False, cost=0.1)

    now = counts(preferences)
    good, bad = before["connect", "reconnect"]
    assert now["connect", "reconnect"] == pytest.approx((0.095 * good, 0.095 * bad + 0.1))
    good, bad = before["db", "connect", "reconnect"]
    assert now["db", "connect", "reconnect"] == pytest.approx((0.095 * good, 0.095 * bad + 0.1))
    good, bad = before["ai", "connect", "reconnect"]
    assert now["ai", "connect", "reconnect"] == pytest.approx((0.1 * good, 0.1 * bad))
    same = before.keys() - {place for place in before if place[-2:] == ("connect", "reconnect")}
    assert all(now[place] == before[place] for place in same)


def counts(preferences: Preferences) -> dict[tuple[str, ...], tuple[float, float]]:
    kept = json.loads(json.dumps(preferences.snapshot()))
    found = {(kind, remedy): (good, bad) for kind, remedy, good, bad in kept["classes"]}
    return found | {tuple(cell[:3]): (cell[3], cell[4]) for cell in kept["cells"]}


def test_drift_is_told_once_and_not_for_each_component() -> None:
    many = [f"component{number}" for number in range(8)]
    preferences = Preferences(BOOK)
    for component in many * 30:
        preferences.learn(component, "connect", "reconnect", success=True, cost=0.1)

    told = [
        preferences.learn(component, "connect", "reconnect", success=False, cost=0.1)
        for component in many * 10
    ]

    assert told.count(True) == 1
    assert told.index(True) < 2 * len(many)


def test_a_remedy_that_goes_on_as_before_does_not_drift() -> None:
    preferences = Preferences(BOOK)

    told = [
        preferences.learn("db", "connect", "wait", success=number % 4 > 0, cost=0.1)
        for number in range(2000)
    ]

    assert not any(told)


def test_getting_better_is_no_drift() -> None:
    preferences = after(times(50, "db", "connect", "wait", success=False))

    told = [entry.tell(preferences) for entry in times(50, *WAIT, success=True)]

    assert not any(told)


# Operators ----------------------------------------------------------------------------------


def test_a_preference_moves_both_scores_by_a_tenth_and_shows_its_author() -> None:
    preferences = after(times(3, *WAIT, success=True))
    before = row(preferences, *WAIT)
    assert preferences.order("db", "connect", BOOK["connect"]) == ["reconnect", "wait", "failover"]

    preferences.prefer("wait", "failover", author="ann")

    now = row(preferences, *WAIT)
    assert (now.offset, now.author, now.score) == (0.1, "ann", before.score + 0.1)
    other = row(preferences, "db", "connect", "failover")
    assert (other.offset, other.author) == (-0.1, "ann")
    assert row(preferences, "db", "connect", "reconnect").author is None
    assert preferences.order("db", "connect", BOOK["connect"]) == ["wait", "reconnect", "failover"]


@given(LOGS, WISHES)
def test_a_preference_said_twice_is_one_and_withdrawn_leaves_no_trace(
    log: list[Learnt | Preferred], wish: Preferred
) -> None:
    others = [
        entry
        for entry in log
        if not isinstance(entry, Preferred)
        or {entry.winner, entry.loser} != {wish.winner, wish.loser}
    ]
    preferences = after(others)
    before = preferences.snapshot()

    wish.tell(preferences)
    once = preferences.snapshot()
    wish.tell(preferences)
    twice = preferences.snapshot()
    scope = {"component": wish.component, "failure_class": wish.failure_class}
    wrong_way = preferences.withdraw(wish.loser, wish.winner, **scope)
    withdrawn = preferences.withdraw(wish.winner, wish.loser, **scope)
    again = preferences.withdraw(wish.winner, wish.loser, **scope)

    assert once == twice
    assert (wrong_way, withdrawn, again) == (False, True, False)
    assert preferences.snapshot() == before


@pytest.mark.parametrize(
    ("component", "failure_class", "places"),
    [
        (None, None, {("db", "connect"), ("ai", "connect"), ("db", "empty")}),
        ("db", None, {("db", "connect"), ("db", "empty")}),
        (None, "connect", {("db", "connect"), ("ai", "connect")}),
        ("db", "connect", {("db", "connect")}),
    ],
    ids=["everywhere", "a component", "a class", "a class in a component"],
)
def test_a_preference_counts_where_it_was_said_to(
    component: str | None, failure_class: str | None, places: set[tuple[str, str]]
) -> None:
    preferences = after(
        [
            *times(1, "db", "connect", "failover", success=False),
            *times(1, "ai", "connect", "failover", success=False),
            *times(1, "db", "empty", "failover", success=False),
        ]
    )

    preferences.prefer(
        "failover", "wait", author="ann", component=component, failure_class=failure_class
    )

    rows = [
        each
        for each in preferences.rows()
        if each.remedy == "failover" and ALL not in (each.component, each.failure_class)
    ]
    assert {(each.component, each.failure_class) for each in rows if each.offset > 0} == places
    decided = {
        (each.component, each.failure_class)
        for each in rows
        if preferences.order(each.component, each.failure_class, ["wait", "failover"])[0] != "wait"
    }
    assert decided == places


def offsets(*wishes: Preferred) -> list[float]:
    """Return the offsets of wait, failover and reconnect against connect in db."""
    preferences = after([*times(1, *WAIT, success=True), *wishes])
    names = ("wait", "failover", "reconnect")
    return [row(preferences, "db", "connect", name).offset for name in names]


def test_many_preferences_move_a_remedy_no_further_than_one() -> None:
    assert offsets(
        Preferred("wait", "failover", "ann", None, None),
        Preferred("wait", "reconnect", "ann", None, None),
        Preferred("wait", "failover", "bob", "db", None),
    ) == [0.1, -0.1, -0.1]


def test_above_one_and_below_another_a_remedy_stays_where_it_is() -> None:
    assert offsets(
        Preferred("wait", "failover", "ann", None, None),
        Preferred("failover", "reconnect", "bob", None, None),
    ) == [0.1, 0.0, -0.1]


def test_the_last_word_on_two_remedies_counts() -> None:
    assert offsets(
        Preferred("wait", "failover", "ann", None, None),
        Preferred("failover", "wait", "bob", None, None),
    ) == [-0.1, 0.1, 0.0]


@pytest.mark.parametrize(
    ("component", "failure_class"), [("db", None), (None, "connect"), ("db", "connect")]
)
def test_a_word_for_one_place_overrides_that_for_all_whichever_was_said_first(
    component: str | None, failure_class: str | None
) -> None:
    here = Preferred("failover", "wait", "bob", component, failure_class)
    everywhere = Preferred("wait", "failover", "ann", None, None)

    assert offsets(here, everywhere) == offsets(everywhere, here) == [-0.1, 0.1, 0.0]


def test_authors_who_agree_on_a_remedy_are_all_named() -> None:
    preferences = after(
        [
            *times(1, *WAIT, success=True),
            Preferred("wait", "failover", "ann", None, None),
            Preferred("wait", "reconnect", "bob", None, None),
            Preferred("wait", "retry", "ann", None, None),
        ]
    )

    assert row(preferences, *WAIT).author == "ann, bob"


def test_a_remedy_cannot_be_preferred_to_itself() -> None:
    with pytest.raises(ValueError, match=r"^'wait' cannot be preferred to itself$"):
        Preferences(BOOK).prefer("wait", "wait", author="ann")


# For people ---------------------------------------------------------------------------------


def test_rows_tell_all_of_a_place_that_has_something_to_tell_best_first() -> None:
    preferences = after(
        [
            *times(5, "db", "connect", "restart", success=True, cost=0.0),
            Preferred("failover", "retry", "ann", "ai", "empty"),
        ]
    )

    rows = preferences.rows()

    assert [(each.component, each.failure_class, each.remedy, each.tried) for each in rows] == [
        ("ai", "empty", "retry", 0),
        ("ai", "empty", "failover", 0),
        ("db", "connect", "restart", 5),
        ("db", "connect", "reconnect", 0),
        ("db", "connect", "failover", 0),
        ("db", "connect", "wait", 0),
    ]


@pytest.mark.parametrize(
    ("component", "failure_class", "place", "shown"),
    [
        (None, None, ("*", "*"), ["wait", "failover"]),
        ("db", None, ("db", "*"), ["wait", "failover"]),
        (None, "connect", ("*", "connect"), ["wait", "reconnect", "failover"]),
        ("db", "empty", ("db", "empty"), ["retry", "wait", "failover"]),
    ],
    ids=["everywhere", "a component", "a class", "a class in a component"],
)
def test_what_was_said_is_shown_at_once_where_it_was_said_to_count(
    component: str | None, failure_class: str | None, place: tuple[str, str], shown: list[str]
) -> None:
    preferences = after([Preferred("wait", "failover", "ann", component, failure_class)])

    rows = preferences.rows()

    assert {(each.component, each.failure_class) for each in rows} == {place}
    assert sorted(each.remedy for each in rows) == sorted(shown)
    assert {each.remedy: (each.offset, each.author) for each in rows if each.author} == {
        "wait": (0.1, "ann"),
        "failover": (-0.1, "ann"),
    }
    assert all(each.tried == 0 for each in rows)


def test_a_users_own_remedy_is_shown_before_it_was_tried() -> None:
    preferences = after(times(1, *WAIT, success=True))

    rows = preferences.rows(lambda component, kind: ["own"] if component == "db" else [])

    assert {each.remedy: each.tried for each in rows} == {
        **{"reconnect": 0, "failover": 0, "wait": 1},
        "own": 0,
    }


def test_the_remedies_that_are_known_are_the_runbook_s_and_those_that_were_tried() -> None:
    preferences = after(times(1, "db", "connect", "restart", success=True))

    assert preferences.remedies == {"restart", *chain.from_iterable(BOOK.values())}


def test_whatever_is_told_is_a_change_and_looking_is_none() -> None:
    preferences = Preferences(BOOK)
    wish = Preferred("wait", "failover", "ann", None, None)
    seen = []

    for tell in (
        lambda: Learnt(*WAIT, True, 0.1).tell(preferences),
        lambda: wish.tell(preferences),
        lambda: preferences.withdraw("failover", "wait"),  # nobody said that
        lambda: preferences.withdraw("wait", "failover"),
        lambda: preferences.restore(after(times(1, *WAIT, success=True)).snapshot()),
        lambda: (preferences.rows(), preferences.snapshot(), preferences.order(*WAIT[:2], [*BOOK])),
    ):
        before = preferences.changes
        tell()
        seen.append(preferences.changes > before)

    assert seen == [True, True, False, True, True, False]


@given(LOGS)
def test_rows_show_what_decides(log: list[Learnt | Preferred]) -> None:
    preferences = after(log)

    for (component, kind), rows in groupby(
        preferences.rows(), lambda each: (each.component, each.failure_class)
    ):
        shown = {each.remedy: each.probability for each in rows}
        assert preferences.probabilities(component, kind, list(shown)) == pytest.approx(shown)
    for each in preferences.rows():
        assert each.score == each.success_rate - each.cost + each.offset
        assert 0 < each.success_rate < 1
        assert 0 <= each.cost <= 1


# Keeping ------------------------------------------------------------------------------------


@given(LOGS, LOGS)
def test_restored_it_is_the_same_to_the_bit_and_behaves_so_ever_after(
    log: list[Learnt | Preferred], later: list[Learnt | Preferred]
) -> None:
    one, two = after(log), Preferences(BOOK)
    two.learn("old", "connect", "wait", success=True, cost=0.5)

    two.restore(json.loads(json.dumps(one.snapshot())))

    assert json.dumps(two.snapshot()) == json.dumps(one.snapshot())
    assert [entry.tell(two) for entry in later] == [entry.tell(one) for entry in later]
    assert two.rows() == one.rows()
    assert json.dumps(two.snapshot()) == json.dumps(one.snapshot())


def test_a_snapshot_is_json_of_plain_words_even_where_names_are_enums() -> None:
    preferences = Preferences(RUNBOOK)
    kind = next(iter(RUNBOOK))

    preferences.learn("ai", kind, Remedy.WAIT, success=True, cost=0.1)
    preferences.prefer(Remedy.WAIT, Remedy.RETRY, author="ann", failure_class=kind)

    assert preferences.snapshot() == {
        "v": 1,
        "classes": [["rate_limited", "wait", 1.0, 0.0]],
        "cells": [["ai", "rate_limited", "wait", 1.0, 0.0, 0.1, 0.0, 1]],
        "preferred": [[None, "rate_limited", "wait", "retry", "ann"]],
    }
    assert "<" not in repr(preferences.snapshot())


def test_ten_thousand_cells_are_kept_and_the_one_longest_untaught_goes_first() -> None:
    preferences = Preferences(BOOK)
    for number in range(CELLS):
        preferences.learn(f"c{number}", "connect", f"r{number // 2}", success=True, cost=0.1)
    preferences.learn("c0", "connect", "r0", success=True, cost=0.1)

    preferences.learn("one more", "connect", "r0", success=True, cost=0.1)
    preferences.learn("one more", "connect", "wait", success=True, cost=0.1)
    preferences.learn("one more", "connect", "failover", success=True, cost=0.1)

    kept = counts(preferences)
    assert sum(len(place) == 3 for place in kept) == CELLS
    assert ("c0", "connect", "r0") in kept
    assert not {("c1", "connect", "r0"), ("c2", "connect", "r1"), ("c3", "connect", "r1")} & {*kept}
    assert ("c4", "connect", "r2") in kept
    assert ("connect", "r0") in kept
    assert ("connect", "r1") not in kept  # without a cell nothing is known of it
    again = Preferences(BOOK)
    again.restore(preferences.snapshot())
    assert again.snapshot() == preferences.snapshot()


def test_an_unending_stream_of_new_names_leaves_nothing_behind() -> None:
    preferences = Preferences({})
    for number in range(CELLS + 5):
        preferences.learn("db", f"class{number}", "wait", success=True, cost=0.1)

    assert len(counts(preferences)) == 2 * CELLS
    assert list(preferences.probabilities("db", "class4")) == []
    assert list(preferences.probabilities("db", "class5")) == ["wait"]


Damage = Callable[[dict[str, list[list[object]]]], object]


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: kept.pop("cells"),
        lambda kept: kept.pop("classes"),
        lambda kept: kept.pop("preferred"),
        lambda kept: kept.update(more=[]),
        lambda kept: kept.update(cells={}),
        lambda kept: kept["cells"].append([]),
        lambda kept: kept["cells"].append("cell"),
        lambda kept: kept["cells"].append(kept["cells"][0]),
        lambda kept: kept["cells"].clear(),
        lambda kept: kept["classes"].clear(),
        lambda kept: kept["classes"].append(kept["classes"][0]),
        lambda kept: kept["classes"].append(["connect", "wait", 20.0, 1.0]),
        lambda kept: kept["preferred"].append(kept["preferred"][0]),
        lambda kept: kept["preferred"][0].__setitem__(2, "failover"),
        lambda kept: kept["preferred"][0].__setitem__(0, 7),
        lambda kept: kept["preferred"][0].__setitem__(4, None),
        *(
            lambda kept, place=place, value=value: kept["cells"][0].__setitem__(place, value)
            for place, value in [
                *((place, value) for place in (0, 1, 2) for value in (None, 7)),
                *((place, "1") for place in range(3, 8)),
                *((place, True) for place in range(3, 8)),
                *((place, -1) for place in range(3, 8)),
                *((place, float("nan")) for place in range(3, 8)),
                *((place, float("inf")) for place in range(3, 8)),
                (3, 21.0),
                (4, 10**400),
                (5, 1.5),
                (6, 4.5),
                (7, 2.5),
            ]
        ),
    ],
)
def test_a_damaged_snapshot_is_told_and_changes_nothing(damage: Damage) -> None:
    preferences = after(times(3, "ai", "empty", "retry", success=True))
    before = preferences.snapshot()
    log = [*times(3, *WAIT, success=False), Preferred("wait", "failover", "ann", None, None)]
    kept = json.loads(json.dumps(after(log).snapshot()))
    damage(kept)

    with pytest.raises(
        ValueError, match=r"not a|contradicts itself|without a cell|more than|preferred to itself"
    ):
        preferences.restore(kept)

    assert preferences.snapshot() == before


@pytest.mark.parametrize("kept", [None, [], "{}", 1], ids=repr)
def test_what_is_no_snapshot_at_all_is_told(kept: object) -> None:
    with pytest.raises(ValueError, match=r"^not a snapshot: "):
        Preferences(BOOK).restore(kept)


@pytest.mark.parametrize("version", [2, 0, None, True, "1"], ids=repr)
def test_another_version_is_told_by_both_names(version: object) -> None:
    kept = Preferences(BOOK).snapshot() | {"v": version}

    with pytest.raises(ValueError) as told:
        Preferences(BOOK).restore(kept)

    assert str(told.value) == f"a snapshot of version {version!r}, but version 1 is read"


def test_more_cells_than_are_ever_kept_are_told() -> None:
    cells = [
        [f"c{number}", "connect", "wait", 1.0, 0.0, 0.1, 0.0, 1] for number in range(CELLS + 1)
    ]
    kept = {"v": 1, "classes": [["connect", "wait", 1.0, 0.0]], "cells": cells, "preferred": []}

    with pytest.raises(ValueError, match=r"^a snapshot that contradicts itself$"):
        Preferences(BOOK).restore(kept)
