"""Incidents as TOML: read whole or not at all, and written so that they read the same."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.policies.prices import Price
from zejzl.testing.incident_files import dump, load, parse
from zejzl.testing.incidents import (
    KINDS,
    OUTCOMES,
    Fault,
    Incident,
    IncidentError,
    Load,
    ProviderScript,
    RecordedCall,
)

WHOLE = """
schema = 1
name = "Tuesday"
duration = 600
began = 2026-11-22T10:00:00Z

[[requests]]
rate = 2.5
from = 10
stream = true
deadline = 20
criticality = "critical"

[[requests]]
times = [1, 2.5]
prompt_tokens = [10, 20]
provider = "beta"
failover = ["alpha"]

[[providers]]
name = "alpha"
latency = [0.2, 0.6]
capacity = 4
price = { prompt = 2, completion = 8 }
faults = [
  { from = 60, to = 120, kind = "rate_limited", share = 0.5, retry_after = 2 },
]

[[providers]]
name = "beta"
calls = [
  { at = 1, outcome = "ok", seconds = 0.25, request = 0 },
]
"""
LEAST = """
schema = 1
duration = 60
[requests]
rate = 1
[[providers]]
name = "alpha"
latency = [0.1, 0.2]
"""

seconds = st.floats(0.0, 50.0)
tokens = st.integers(1, 1_000)
words = st.text(st.characters(exclude_categories=("C", "Z")), max_size=20)
spans = st.tuples(seconds, seconds).map(lambda pair: (min(pair), max(pair)))
maybe = st.none()
faults = st.builds(
    Fault,
    kind=st.sampled_from(KINDS),
    start=seconds,
    end=maybe | st.floats(50.5, 1e4),
    share=st.floats(0.0, 1.0),
    retry_after=maybe | seconds,
    latency=spans,
    after=maybe | st.floats(0.0, 1.0),
)
calls = st.builds(
    RecordedCall,
    at=seconds,
    outcome=st.sampled_from(OUTCOMES),
    seconds=seconds,
    request=st.just(0),
    retry_after=maybe | seconds,
)
prices = st.builds(Price, prompt=st.floats(0, 100), completion=st.floats(0, 100))
scripted = st.builds(
    ProviderScript,
    name=st.just("alpha"),
    model=words,
    latency=spans,
    pace=seconds,
    capacity=maybe | tokens,
    queue=tokens,
    price=maybe | prices,
    faults=st.lists(faults, max_size=3).map(tuple),
)
as_recorded = st.builds(
    ProviderScript,
    name=st.just("beta"),
    calls=st.lists(calls, min_size=1).map(lambda each: tuple(sorted(each, key=lambda c: c.at))),
)
rates = st.builds(
    Load,
    rate=st.floats(1.0, 100.0),
    stream=st.booleans(),
    repeats=st.booleans(),
    prompt_tokens=tokens,
    conversation=words,
    provider=maybe | st.just("alpha"),
    model=maybe | words,
    failover=maybe | st.booleans() | st.just(("beta",)),
    deadline=maybe | st.floats(0.1, 60.0),
    patience=maybe | seconds,
    criticality=st.sampled_from(["sheddable", "normal", "critical", "critical_plus"]),
    max_tokens=maybe | tokens,
)
timed = st.lists(st.tuples(seconds, tokens, words), min_size=1).map(
    lambda each: Load(
        times=tuple(sorted(at for at, _, _ in each)),
        answer_tokens=tuple(count for _, count, _ in each),
        conversation=tuple(word for _, _, word in each),
    )
)
incidents = st.builds(
    Incident,
    duration=st.floats(51.0, 1e3),
    requests=st.tuples(timed, rates),
    providers=st.tuples(scripted, as_recorded),
    name=words,
    began=maybe | st.datetimes(datetime(1970, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)


def test_a_whole_incident_is_read_as_it_is_written() -> None:
    assert parse(WHOLE) == Incident(
        name="Tuesday",
        duration=600.0,
        began=datetime(2026, 11, 22, 10, tzinfo=UTC),
        requests=(
            Load(rate=2.5, start=10.0, stream=True, deadline=20.0, criticality="critical"),
            Load(times=(1.0, 2.5), prompt_tokens=(10, 20), provider="beta", failover=("alpha",)),
        ),
        providers=(
            ProviderScript(
                name="alpha",
                latency=(0.2, 0.6),
                capacity=4,
                price=Price(2.0, 8.0),
                faults=(Fault(kind="rate_limited", start=60, end=120, share=0.5, retry_after=2.0),),
            ),
            ProviderScript(
                name="beta",
                calls=(RecordedCall(at=1.0, outcome="ok", seconds=0.25, request=0),),
            ),
        ),
    )


@given(incidents)
def test_what_is_written_reads_the_same(incident: Incident) -> None:
    assert parse(dump(incident)) == incident


def test_one_table_of_requests_will_do() -> None:
    assert parse(LEAST) == parse(LEAST.replace("[requests]", "[[requests]]"))


def test_a_byte_order_mark_is_no_trouble() -> None:
    assert parse(b"\xef\xbb\xbf" + LEAST.encode()) == parse(LEAST)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("schema = 1", "", "schema: is missing: an incident begins with schema = 1"),
        ("schema = 1", "schema = 2", "schema: is 2: another one; this zejzl reads 1"),
        ("schema = 1", "schema = true", "schema: is True: another one; this zejzl reads 1"),
        ("schema = 1", "schema = 1\nspeed = 3", "speed: unknown; known: duration, requests"),
        ("duration = 60", "durations = 60", "durations: unknown; did you mean duration?"),
        ("duration = 60", "", "duration: is missing"),
        ("duration = 60", 'duration = 60\nbegan = "now"', "began: must be a time, as 2026"),
        ("rate = 1", "rate = -1", "requests[0].rate: must be a number from 0, not -1"),
        ("rate = 1", "rate = 1\nform = 3", "requests[0].form: unknown; did you mean from?"),
        ("rate = 1", "rate = 1\nstart = 3", "requests[0].start: unknown"),
        ("[requests]\nrate = 1", "requests = 3", "requests: must be a list of tables, written as"),
        ("[requests]\nrate = 1", "requests = [3]", "requests[0]: must be a table, not 3"),
        ('name = "alpha"', "", "providers[0].name: is missing"),
        ("[0.1, 0.2]", "[0.1]", "providers[0].latency: must be two numbers"),
        (
            "[0.1, 0.2]",
            '[0.1, 0.2]\nfaults = [{ kind = "connect" }, { kind = "connect", from = -5 }]',
            "providers[0].faults[1].from: must be a number from 0 to 3.16224e+07, not -5",
        ),
        (
            "[0.1, 0.2]",
            "[0.1, 0.2]\nfaults = [{ from = 3 }]",
            "providers[0].faults[0].kind: is missing",
        ),
        ("[0.1, 0.2]", "[0.1, 0.2]\nfaults = 3", "providers[0].faults: must be a list of tables"),
        (
            "[0.1, 0.2]",
            "[0.1, 0.2]\nprice = { prompt = 1 }",
            "providers[0].price: must be { prompt = …, completion = … }",
        ),
        (
            "[0.1, 0.2]",
            "[0.1, 0.2]\nprice = { prompt = 1, completion = -1 }",
            "providers[0].price: completion must be a finite number from 0",
        ),
        ("schema = 1", "schema == 1", "this is no TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_its_place(before: str, after: str, says: str) -> None:
    with pytest.raises(IncidentError) as refused:
        parse(LEAST.replace(before, after))

    assert str(refused.value).startswith(says)


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"a = " + b"[" * 100_000], ids=["bytes", "deep"])
def test_a_file_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(IncidentError, match="this is no TOML"):
        parse(body)


def test_a_file_is_named_in_what_is_told_of_it(tmp_path: Path) -> None:
    path = tmp_path / "tuesday.toml"
    path.write_text(LEAST.replace("rate = 1", "rate = 0"))

    with pytest.raises(IncidentError) as refused:
        Incident.from_toml(path)

    assert refused.value.place == f"{path}: requests[0].rate"


def test_an_incident_goes_into_a_file_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "tuesday.toml"
    path.write_text(parse(WHOLE).to_toml(), encoding="utf-8")

    assert load(path) == parse(WHOLE) == Incident.from_toml(str(path))


def test_a_file_too_large_for_any_incident_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "huge.toml"
    path.write_text(LEAST)
    monkeypatch.setattr("zejzl.testing.incident_files.MOST_BYTES", 10)

    with pytest.raises(IncidentError, match="has more than 10 bytes"):
        load(path)
