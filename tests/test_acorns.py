"""Burst credits, and whom they are spent on."""

from typing import Any

import pytest

from zejzl.events import CreditSpent, Event
from zejzl.magic import FairyMagic
from zejzl.magic.acorns import REMEMBERED, Acorns
from zejzl.magic.lanes import Lane
from zejzl.policies.boost import Lengths
from zejzl.testing import FakeClock

WALL = 1_700_000_000.0


def make(clock: FakeClock | None = None) -> tuple[Acorns, list[Event]]:
    events: list[Event] = []
    return Acorns(clock or FakeClock(), events.append), events


def seen(*tokens: int) -> Lengths:
    lengths = Lengths()
    for each in tokens:
        lengths.push(each)
    return lengths


# By hand ----------------------------------------------------------------------------------------


def test_a_boost_spends_one_and_grows_the_limit_and_nothing_else() -> None:
    acorns, events = make()
    config = {"max_tokens": 1000, "temperature": 0.7}

    boost = acorns.boost("agent", config, None)

    assert boost == {
        "vitality_boost": 1.25,
        "new_config": {"max_tokens": 1250, "temperature": 0.7},
        "acorns_remaining": 4,
    }
    assert config == {"max_tokens": 1000, "temperature": 0.7}
    (event,) = events
    assert isinstance(event, CreditSpent)
    assert (event.target, event.factor, event.max_tokens, event.left) == ("agent", 1.25, 1250, 4)
    assert event.timestamp.timestamp() == WALL


@pytest.mark.parametrize(
    ("lengths", "factor"),
    [((10,), 1.1), ((1300,) * 20, 1.3), ((9000,), 1.5)],
    ids=["short answers", "longer ones", "far longer ones"],
)
def test_a_boost_follows_the_lengths_seen_within_bounds(
    lengths: tuple[int, ...], factor: float
) -> None:
    acorns, _ = make()

    boost = acorns.boost("agent", {"max_tokens": 1000}, seen(*lengths))

    assert boost["vitality_boost"] == pytest.approx(factor)
    assert boost["new_config"] == {"max_tokens": round(1000 * factor)}


def test_a_boost_is_larger_by_one_token_at_least() -> None:
    acorns, _ = make()

    assert acorns.boost("agent", {"max_tokens": 1}, None)["new_config"] == {"max_tokens": 2}


@pytest.mark.parametrize(
    ("config", "reason"),
    [({"max_tokens": 9}, "no_acorns"), ({"model": "m"}, "no_max_tokens"), ({}, "no_max_tokens")],
    ids=["none left", "no limit", "nothing"],
)
def test_where_there_is_none_or_no_limit_nothing_is_changed_and_the_reason_told(
    config: dict[str, object], reason: str
) -> None:
    acorns, events = make()
    left = 5
    while reason == "no_acorns" and acorns.left:
        acorns.boost("agent", {"max_tokens": 9}, None)
        left = 0
    events.clear()

    boost = acorns.boost("agent", config, None)

    assert boost == {
        "vitality_boost": 1.0,
        "new_config": config,
        "acorns_remaining": left,
        "reason": reason,
    }
    assert boost["new_config"] is not config
    assert events == []


@pytest.mark.parametrize("config", [None, 7, [("max_tokens", 9)]], ids=repr)
def test_a_configuration_is_a_mapping(config: Any) -> None:
    acorns, _ = make()

    with pytest.raises(TypeError, match="mapping"):
        acorns.boost("agent", config, None)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "100", 2**54], ids=repr)
def test_a_limit_is_a_whole_number_from_1(limit: Any) -> None:
    acorns, _ = make()

    with pytest.raises(ValueError, match="max_tokens"):
        acorns.boost("agent", {"max_tokens": limit}, None)

    assert acorns.left == 5


@pytest.mark.parametrize("agent", ["claude", "provider_claude"])
async def test_a_providers_own_lengths_are_known_by_its_name(agent: str) -> None:
    magic = FairyMagic(clock=FakeClock())
    for _ in range(20):
        magic.acorns.answered(magic.gate.lane("claude"), "c", 1400, cut=False)

    boost = await magic.acorn_vitality_boost(agent, {"max_tokens": 1000})

    assert boost["vitality_boost"] == pytest.approx(1.4)
    assert magic.acorn_reserve == 4


# By the bus -------------------------------------------------------------------------------------


def test_a_limit_grows_from_the_start_only_where_the_last_answer_was_cut() -> None:
    acorns, _ = make()
    a, b = Lane("a"), Lane("b")

    acorns.answered(a, "c", None, cut=True)
    cut = acorns.before(a, "m", "c", 100)
    others = acorns.before(a, "m", "d", 100), acorns.before(b, "m", "c", 100)
    acorns.answered(a, "c", None, cut=False)
    whole_again = acorns.before(a, "m", "c", 100)

    assert (cut, others, whole_again, acorns.left) == (125, (100, 100), 100, 4)


def test_the_answers_seen_are_a_lanes_own() -> None:
    acorns, _ = make()
    a, b = Lane("a"), Lane("b")
    acorns.answered(a, "c", 150, cut=True)
    acorns.answered(a, "c", None, cut=True)

    assert (acorns.after(a, "m", 100), acorns.after(b, "m", 100)) == (150, 125)


def test_without_a_credit_no_limit_grows() -> None:
    acorns, events = make()
    lane = Lane("a")
    acorns.answered(lane, "c", None, cut=True)

    grown = [acorns.before(lane, "m", "c", 100) for _ in range(6)]

    assert grown == [125] * 5 + [100]
    assert acorns.after(lane, "m", 100) is None
    assert [event.left for event in events if isinstance(event, CreditSpent)] == [4, 3, 2, 1, 0]


def test_a_model_is_never_asked_for_more_than_it_has_refused() -> None:
    acorns, events = make()
    lane = Lane("a")
    acorns.answered(lane, "c", None, cut=True)

    acorns.too_much(lane, "small", 110)

    assert acorns.after(lane, "small", 100) == 110
    assert acorns.after(lane, "small", 110) is None
    assert acorns.before(lane, "small", "c", 200) == 200
    assert acorns.after(lane, "large", 110) == 137
    assert acorns.after(Lane("b"), "small", 110) == 137
    assert len(events) == 3


def test_a_credit_given_back_is_there_again_and_never_a_sixth() -> None:
    acorns, _ = make()
    acorns.after(Lane("a"), "m", 100)

    acorns.give_back()
    acorns.give_back()

    assert acorns.left == 5


async def test_one_grows_back_in_a_minute_in_which_something_succeeded() -> None:
    clock = FakeClock()
    acorns, _ = make(clock)
    lane = Lane("a")
    await clock.advance(1_000.0)
    acorns.after(lane, "m", 100)
    left = []

    for seconds, answered in [(59.9, True), (0.2, False), (0.0, True), (30.0, True)]:
        await clock.advance(seconds)
        if answered:
            acorns.answered(lane, "c", 1, cut=False)
        left.append(acorns.left)

    assert left == [4, 4, 5, 5]


def test_a_thousand_whose_answers_were_cut_are_remembered_the_newest() -> None:
    acorns, _ = make()
    lane = Lane("a")
    for n in range(REMEMBERED):
        acorns.answered(lane, str(n), None, cut=True)
    acorns.answered(lane, "0", None, cut=True)  # the oldest is the newest now

    acorns.answered(lane, "one more", None, cut=True)

    grows = {who: acorns.before(lane, "m", who, 100) > 100 for who in ("0", "1", "one more")}
    assert grows == {"0": True, "1": False, "one more": True}
