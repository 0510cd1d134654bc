"""`bench/kills.py`: what is accepted outlives kill -9, in flight or parked."""

import kills
import pytest


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_kill_9_loses_no_accepted_request_and_leaves_no_parked_one_unanswered() -> None:
    found = await kills.kill_many(5, 100, seed=9)

    assert [each.is_whole for each in found] == [True] * 5
    assert sum(each.in_flight for each in found) > 0
    assert sum(each.parked for each in found) > 0
