"""An incident played to the real bus: what it counts is what happened, and the same every time."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tree import ROOT, SRC
from zejzl.errors import SettingsError
from zejzl.policies.prices import Price
from zejzl.settings import Secret, Settings, VendorSettings
from zejzl.testing import virtual
from zejzl.testing.incidents import Fault, Incident, Load, ProviderScript, RecordedCall
from zejzl.testing.simulate import Heal, Minute, Simulation, simulate, simulated

DOWN = Fault(kind="overloaded", start=60.0, end=120.0)
ALPHA = ProviderScript(name="alpha", latency=(0.2, 0.4))
BETA = ProviderScript(name="beta", latency=(0.3, 0.5))
STEADY = Load(rate=2.0)

PLAY = """
import hashlib, json, sys
from zejzl.testing.simulate import Incident, simulate
found = simulate(Incident.from_toml(sys.argv[1]), seed=int(sys.argv[2]))
print(hashlib.sha256(json.dumps(found.to_json()).encode()).hexdigest())
"""
STORM = """
schema = 1
duration = 180

[[requests]]
rate = 4
conversation = "c1"
to = 90

[[requests]]
rate = 4
stream = true
criticality = "sheddable"

[[providers]]
name = "alpha"
latency = [0.1, 0.6]
capacity = 3
faults = [
  { from = 20, to = 60, kind = "rate_limited", share = 0.7, retry_after = 2 },
  { from = 60, to = 90, kind = "slow", latency = [3, 9] },
  { kind = "cut_stream", share = 0.1 },
]

[[providers]]
name = "beta"
latency = [0.2, 0.9]
pace = 0.01
faults = [{ from = 50, to = 100, kind = "connect", share = 0.5 }]
"""


def incident(*providers: ProviderScript, load: Load = STEADY, duration: float = 180.0) -> Incident:
    return Incident(duration=duration, requests=(load,), providers=providers or (ALPHA,))


def down(*faults: Fault, **how: Any) -> ProviderScript:
    return ProviderScript(
        **{"name": "alpha", "latency": (0.2, 0.4), "faults": faults or (DOWN,), **how}
    )


def alike(found: Simulation) -> str:
    return hashlib.sha256(json.dumps(found.to_json()).encode()).hexdigest()


def ends(found: Simulation) -> int:
    return found.answered + found.wrong + sum(found.failed.values())


def test_a_healthy_provider_answers_everything_in_its_own_time() -> None:
    found = simulate(incident())

    assert (found.requests, found.answered, found.wrong, dict(found.failed)) == (360, 360, 0, {})
    assert found.p50 is not None and found.p99 is not None
    assert 0.2 <= found.p50 <= found.p99 <= 0.4
    assert found.attempts == {"alpha": {"ok": 360}}
    assert found.calls_per_request == 1.0
    assert (found.healed, found.heals) == (0, [])
    assert 180.0 <= found.seconds <= 181.0


def test_an_outage_is_healed_by_the_next_provider() -> None:
    found = simulate(incident(down(), BETA))

    assert found.answered == found.requests
    assert found.healed > 0
    assert found.attempts["alpha"]["overloaded"] == sum(heal.tried for heal in found.heals)
    (heal,) = found.heals
    assert (heal.provider, heal.failure_class, heal.remedy) == ("alpha", "overloaded", "failover")
    assert found.remedies == {"failover": (heal.helped, heal.tried)}
    assert heal.helped == found.healed


def test_an_outage_with_nobody_else_fails_what_comes_in_it() -> None:
    found = simulate(incident(down()))

    assert ends(found) == found.requests
    assert {*found.failed} == {"CircuitOpen", "ProviderOverloaded"}
    assert found.refused == found.failed["CircuitOpen"] > 0
    before, during, after = (minute.failed for minute in found.timeline)
    assert before == 0
    assert during > 100
    assert after < 10  # until a probe has found it well


def test_the_timeline_holds_every_request_and_call_in_the_minute_it_came() -> None:
    found = simulate(incident(down(), BETA))

    assert [minute.requests for minute in found.timeline] == [120, 120, 120]
    assert sum(minute.calls for minute in found.timeline) == found.calls
    assert sum(minute.answered for minute in found.timeline) == found.answered
    assert all(0.0 < (minute.slowest or 0.0) < 5.0 for minute in found.timeline)


def test_a_minute_without_requests_is_empty() -> None:
    found = simulate(incident(load=Load(times=(1.0, 130.0))))

    assert found.timeline[1] == Minute()
    assert len(found.timeline) == 3


def test_settings_make_the_difference_that_they_make_for_a_real_bus() -> None:
    brief = Fault(kind="overloaded", start=60.0, end=62.0)
    hasty = simulate(incident(down(brief)), Settings(patience=0.0))
    patient = simulate(incident(down(brief)), Settings(patience=9.0))

    assert sum(patient.failed.values()) <= 2 < sum(hasty.failed.values())
    assert (patient.p99 or 0.0) > (hasty.p99 or 0.0)


def test_a_deadline_of_the_requests_own_holds() -> None:
    silent = down(Fault(kind="first_token_timeout"))

    found = simulate(incident(silent, load=Load(rate=0.5, deadline=2.0), duration=20.0))

    assert not found.answered
    assert found.seconds <= 24.0


def test_a_stream_is_right_when_it_is_the_text_of_one_answer() -> None:
    cut = down(Fault(kind="cut_stream", share=0.3))
    load = Load(rate=2.0, stream=True, repeats=True)

    found = simulate(incident(cut, load=load))

    assert found.wrong == 0
    assert found.healed > 20
    assert found.answered > simulate(incident(cut, load=replace(load, repeats=False))).answered


def test_streams_that_last_long_are_no_late_answers() -> None:
    lasting = ProviderScript(name="alpha", latency=(0.4, 0.6), pace=0.02)
    load = Load(rate=2.0, stream=True, answer_tokens=200)  # four seconds each

    found = simulate(incident(lasting, load=load))

    assert found.answered == found.requests


def test_a_cut_stream_that_cannot_be_gone_on_with_is_a_failure_and_no_wrong_answer() -> None:
    cut = down(Fault(kind="cut_stream", share=0.3))

    found = simulate(incident(cut, load=Load(rate=2.0, stream=True)))

    assert found.wrong == 0
    assert found.failed["Incomplete"] > 20


def test_an_answer_cut_at_its_limit_is_counted_as_cut() -> None:
    found = simulate(incident(load=Load(rate=0.1, max_tokens=10)))

    assert found.answered == 18
    assert 0 < found.cut <= 18  # some have grown


def test_a_request_without_an_end_is_told_as_unfinished() -> None:
    silent = down(Fault(kind="first_token_timeout"))
    endless = Settings(attempt_timeout=None, deadline=None, hedging=False)

    found = simulate(incident(silent, load=Load(times=(1.0,)), duration=10.0), endless)

    assert found.failed == {"unfinished": 1}
    assert found.seconds == pytest.approx(3_601.0)


# Money -------------------------------------------------------------------------------------------


def test_the_money_is_that_of_all_tokens_the_providers_counted() -> None:
    price = Price(1_000.0, 2_000.0)
    found = simulate(incident(down(price=price), load=Load(times=(1.0, 2.0))))

    assert (found.prompt_tokens, found.completion_tokens) == (200, 100)
    assert found.cost_usd == pytest.approx(0.4)


def test_without_a_price_no_money_is_told() -> None:
    assert simulate(incident(load=Load(times=(1.0,)))).cost_usd is None


def test_a_price_that_nobody_needs_is_not_missed() -> None:
    free = ProviderScript(name="alpha", latency=(0.2, 0.4), price=Price(0.0, 0.0))

    assert simulate(incident(free, BETA, load=Load(times=(1.0,)))).cost_usd == 0.0


def test_the_price_table_is_asked_for_a_known_model(tmp_path: Path) -> None:
    table = tmp_path / "prices.toml"
    table.write_text('[prices]\n"alpha/big" = { prompt = 1000.0, completion = 2000.0 }\n')
    big = ProviderScript(name="alpha", model="big", latency=(0.2, 0.4))

    found = simulate(incident(big, load=Load(times=(1.0, 2.0))), Settings(prices=table))

    assert found.cost_usd == pytest.approx(0.4)


# The same again ----------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_result_and_another_one_another() -> None:
    played = incident(down(), BETA)

    assert simulate(played, seed=3) == simulate(played, seed=3)
    assert simulate(played, seed=3) != simulate(played, seed=4)


def test_another_process_with_other_hashes_gives_the_same_result_to_the_last_bit(
    tmp_path: Path,
) -> None:
    path = tmp_path / "storm.toml"
    path.write_text(STORM)
    found = {alike(simulate(Incident.from_toml(path), seed=7))}

    for hashes in ("0", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", PLAY, str(path), "7"],
            env={
                **os.environ,
                "PYTHONHASHSEED": hashes,
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(SRC)]),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout.strip())

    assert len(found) == 1


def test_progress_goes_from_nothing_to_all() -> None:
    shares: list[float] = []

    simulate(incident(), progress=shares.append)

    assert shares[0] < 0.1
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    assert len(shares) == 5


# Where it may be called --------------------------------------------------------------------------


async def test_in_a_running_loop_it_says_what_to_call() -> None:
    with pytest.raises(RuntimeError, match=r"await asyncio\.to_thread\(simulate"):
        simulate(incident())
    with pytest.raises(RuntimeError, match=r"await asyncio\.to_thread\(simulate"):
        await simulated(incident())

    found = await asyncio.to_thread(simulate, incident())
    assert found == await asyncio.to_thread(simulate, incident())


def test_in_a_program_on_virtual_time_it_is_awaited() -> None:
    assert virtual.run(simulated(incident()), wall=0.0, sealed=True) == simulate(incident())


def test_no_vendor_is_asked_whatever_the_settings_say() -> None:
    vendors = {"chatgpt": VendorSettings(api_key=Secret("sk-test"), base_url="http://127.0.0.1:9")}

    found = simulate(incident(), Settings(vendors=vendors))

    assert {*found.attempts} == {"alpha"}


@pytest.mark.parametrize("setting", ["failover", "default_provider"])
def test_a_setting_that_names_somebody_else_is_refused(setting: str) -> None:
    asked: Any = {"failover": ("alpha", "beta"), "default_provider": "beta"}[setting]

    with pytest.raises(SettingsError, match=f"{setting}: 'beta' is not in the incident"):
        simulate(incident(), Settings(**{setting: asked}))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"incident": "outage.toml"}, "incident must be an Incident, not str: Incident.from_toml"),
        ({"settings": {"patience": 3}}, "settings must be Settings, not dict"),
        ({"seed": 1.5}, "seed must be a whole number, not float"),
        ({"seed": True}, "seed must be a whole number, not bool"),
        ({"progress": 5}, "progress must be a function, not int"),
    ],
    ids=str,
)
async def test_an_argument_of_another_kind_is_refused_by_its_name(
    wrong: dict[str, Any], says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        simulate(**{"incident": incident(), **wrong})
    with pytest.raises(TypeError, match=says):
        await simulated(**{"incident": incident(), **wrong})


# What was recorded -------------------------------------------------------------------------------


def test_a_recorded_incident_is_played_as_it_was() -> None:
    calls = (
        RecordedCall(at=1.0, outcome="server_error", seconds=0.1, request=0),
        RecordedCall(at=1.1, outcome="ok", seconds=0.4, request=0),
        RecordedCall(at=2.0, outcome="ok", seconds=0.3, request=1),
        RecordedCall(at=3.0, outcome="bad_request", seconds=0.1, request=2),
    )
    load = Load(times=(1.0, 2.0, 3.0))

    found = simulate(incident(ProviderScript(name="alpha", calls=calls), load=load))

    assert found.attempts == {"alpha": {"bad_request": 1, "ok": 2, "server_error": 1}}
    assert found.heals == [
        Heal(provider="alpha", failure_class="server_error", remedy="retry", tried=1, helped=1)
    ]
    assert found.failed == {"BadRequest": 1}
    assert found.p99 == pytest.approx(0.5)
