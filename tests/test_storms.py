"""The load scenarios of `bench/storms.py`, one seed each: a storm that was weathered stays so."""

import pytest
import storms
from storm_run import Scenario, measure
from storm_scenarios import SCENARIOS


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario",
    [each for each in SCENARIOS if each.scored],
    ids=lambda each: f"{each.name} {each.variant}".strip().replace("×", "times"),
)
def test_a_storm_is_weathered(scenario: Scenario) -> None:
    figures = measure(scenario, "bus", seed=1)

    assert not storms.missed(scenario, figures, 1.0)
