"""The sixteen public failover scenarios of `bench/failover.py`, on every wire.

Answered rightly with the defaults; passed, as the providers' logs see it too, with patience.
"""

import failover
import pytest
from failover_scenarios import SCENARIOS, Scenario

from zejzl.testing.behaviours import WireName

ONES = [(each, stream) for each in SCENARIOS for stream in each.ways]
every_wire = pytest.mark.parametrize("wire", ["openai", "anthropic", "gemini"])
every_scenario = pytest.mark.parametrize(
    ("scenario", "stream"),
    ONES,
    ids=[f"{each.title}, {failover.WAYS[stream]}" for each, stream in ONES],
)


def test_all_sixteen_are_there() -> None:
    assert {each.number for each in SCENARIOS} == set(range(1, 17))


@every_wire
@every_scenario
def test_with_the_defaults_it_is_answered_rightly(
    scenario: Scenario, stream: bool, wire: WireName
) -> None:
    played = failover.play(scenario, stream=stream, wire=wire)

    assert not played.missed, f"{played.caller}; {played.providers}"


@every_wire
@every_scenario
def test_with_patience_it_passes(scenario: Scenario, stream: bool, wire: WireName) -> None:
    played = failover.play(scenario, stream=stream, patient=True, wire=wire)

    assert not played.missed, f"{played.caller}; {played.providers}"


def test_a_client_that_swallows_what_is_cut_misses() -> None:
    """The judge itself: an answer of forty words is no answer, and two calls are not one."""
    cut = next(each for each in SCENARIOS if each.number == 8)
    silent = next(each for each in SCENARIOS if each.number == 6)

    heard = failover.play_peer(cut, stream=True)
    asked = failover.play_peer(silent, stream=False)

    assert "right %" in heard.missed
    assert {"right %", "primary calls"} <= set(asked.missed)
