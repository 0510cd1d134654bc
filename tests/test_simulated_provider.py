"""A simulated provider: it answers, fails and takes its time as its part says."""

import asyncio
from collections.abc import Coroutine, Sequence
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.errors import ERRORS, FailureClass, Incomplete, ProviderError
from zejzl.messages import Reply, Request
from zejzl.policies.diagnosis import diagnose
from zejzl.testing import virtual
from zejzl.testing.incidents import (
    Fault,
    Incident,
    Load,
    ProviderScript,
    RecordedCall,
)
from zejzl.testing.simulated_provider import AT_ONCE, Cue, SimulatedProvider, Tape

T = TypeVar("T")
F = FailureClass
SILENT = {F.FIRST_TOKEN_TIMEOUT, F.STALLED}
FAILS = [kind for kind in F if kind not in SILENT | {F.CANCELLED, F.DEADLINE, F.TRUNCATED}]


def run(work: Coroutine[Any, Any, T]) -> T:
    return virtual.run(work, sealed=True)


def make(
    *faults: Fault,
    seed: int = 1,
    load: Load | None = None,
    said: dict[int, list[str]] | None = None,
    **how: Any,
) -> SimulatedProvider:
    """Return a provider of an incident with a request every second; call it in a virtual loop."""
    script = ProviderScript(**{"name": "alpha", "latency": (1.0, 2.0), "faults": faults, **how})
    load = load or Load(times=tuple(map(float, range(100))))
    incident = Incident(duration=1_000.0, requests=(load,), providers=(script,))
    return SimulatedProvider(
        script,
        incident.arrivals(seed),
        seed=seed,
        clock=virtual.VirtualClock(),
        said={} if said is None else said,
        their_own={},
    )


def asked(number: int, max_tokens: int | None = None) -> Request:
    return Request(content=f"{number}:xxx", max_tokens=max_tokens)


async def timed(work: Coroutine[Any, Any, T]) -> tuple[float, T | BaseException]:
    """Return how long something took, and what it came to."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        found: T | BaseException = await work
    except (ProviderError, TimeoutError) as failure:
        found = failure
    return loop.time() - began, found


async def streamed(provider: SimulatedProvider, request: Request) -> tuple[list[str], Reply]:
    texts, reply = [], None
    async for delta in provider.stream(request):
        texts.append(delta.text)
        reply = delta.reply
    assert reply is not None
    return texts, reply


def test_an_answer_takes_a_time_within_its_latency_and_counts_its_tokens() -> None:
    async def main() -> list[tuple[float, Any]]:
        provider = make()
        return [await timed(provider.generate(asked(number))) for number in range(50)]

    found = run(main())

    assert all(1.0 <= seconds <= 2.0 for seconds, _ in found)
    assert len({seconds for seconds, _ in found}) == 50
    assert {(reply.provider, reply.model) for _, reply in found} == {("alpha", "simulated")}
    assert {(r.usage.prompt_tokens, r.usage.completion_tokens) for _, r in found} == {(100, 50)}


@given(st.permutations(range(8)))
def test_what_a_request_gets_does_not_depend_on_others(order: Sequence[int]) -> None:
    fault = Fault(kind="server_error", share=0.5)

    async def main(order: Sequence[int]) -> dict[int, tuple[float, str]]:
        provider = make(fault)
        found = {}
        for number in order:
            seconds, end = await timed(provider.generate(asked(number)))
            found[number] = round(seconds, 9), type(end).__name__
        return found

    assert run(main(order)) == run(main(range(8)))


def test_another_seed_is_another_chance() -> None:
    async def main(seed: int) -> float:
        return (await timed(make(seed=seed).generate(asked(0))))[0]

    assert run(main(1)) != run(main(2))


@pytest.mark.parametrize("kind", FAILS)
def test_a_fault_is_raised_as_an_adapter_would(kind: FailureClass) -> None:
    async def main() -> tuple[float, Any]:
        return await timed(make(Fault(kind=kind, retry_after=7.0)).generate(asked(0)))

    seconds, failure = run(main())

    assert diagnose(failure).failure_class is kind
    assert diagnose(failure).retry_after == 7.0
    assert type(failure) is ERRORS.get(kind, type(failure))
    assert (failure.provider, failure.model) == ("alpha", "simulated")
    assert failure.status == AT_ONCE.get(kind)
    assert (seconds == 0.0) is (kind in AT_ONCE)


@pytest.mark.parametrize("kind", sorted(SILENT))
def test_a_silent_one_never_answers(kind: FailureClass) -> None:
    async def main() -> tuple[float, Any]:
        provider = make(Fault(kind=kind))
        async with asyncio.timeout(1_000.0):
            return await timed(provider.generate(asked(0)))

    with pytest.raises(TimeoutError):
        run(main())


def test_a_fault_shows_after_its_own_latency() -> None:
    fault = Fault(kind="overloaded", latency=(5.0, 5.0))

    async def main() -> float:
        return (await timed(make(fault).generate(asked(0))))[0]

    assert run(main()) == 5.0


def test_a_slow_one_answers_all_the_same() -> None:
    async def main() -> tuple[float, Any]:
        fault = Fault(kind="slow", latency=(9.0, 9.0))
        return await timed(make(fault).generate(asked(0)))

    seconds, reply = run(main())

    assert seconds == 9.0
    assert reply.finish_reason == "stop"


def test_a_fault_strikes_only_in_its_time_and_its_share() -> None:
    fault = Fault(kind="overloaded", start=50.0, end=100.0, share=0.5)

    async def main() -> list[bool]:
        provider = make(fault, latency=(0.0, 0.0))
        found = []
        for number in range(100):
            _, end = await timed(provider.generate(asked(number)))
            found.append(isinstance(end, ProviderError))
            await asyncio.sleep(1.0)
        return found

    failed = run(main())

    assert not any(failed[:50])
    assert 10 < sum(failed[50:]) < 40


def test_of_two_faults_at_one_time_the_first_that_strikes_is_played() -> None:
    async def main() -> Any:
        faults = Fault(kind="connect", share=0.0), Fault(kind="auth"), Fault(kind="empty")
        return (await timed(make(*faults).generate(asked(0))))[1]

    assert diagnose(run(main())).failure_class is F.AUTH


# Streams -----------------------------------------------------------------------------------------


def test_a_stream_comes_in_pieces_at_its_pace_and_says_what_a_plain_answer_does() -> None:
    async def main() -> tuple[float, Any, Any]:
        provider = make(load=Load(times=(0.0,), repeats=True), pace=0.1)
        plain = await provider.generate(asked(0))
        seconds, found = await timed(streamed(provider, asked(0)))
        return seconds, found, plain

    seconds, (texts, reply), plain = run(main())

    assert "".join(texts) == reply.text == plain.text
    assert len(texts) == 17  # the last piece has no words
    assert 1.0 + 0.1 * 50 * 15 / 16 <= seconds + 1e-6 <= 2.0 + 0.1 * 50


def test_a_long_stream_is_never_silent_for_long() -> None:
    async def main() -> float:
        provider = make(load=Load(times=(0.0,), answer_tokens=10_000), pace=0.05)
        loop, gaps = asyncio.get_running_loop(), []
        at = loop.time()
        async for _ in provider.stream(asked(0)):
            gaps.append(loop.time() - at)
            at = loop.time()
        return max(gaps)

    assert run(main()) <= 2.0


@pytest.mark.parametrize(
    ("fault", "heard"),
    [
        (Fault(kind="cut_stream"), 8),
        (Fault(kind="cut_stream", after=0.0), 0),
        (Fault(kind="overloaded", after=0.25), 4),
        (Fault(kind="overloaded"), 0),
        (Fault(kind="malformed", after=1.0), 16),
    ],
    ids=["half", "before the first piece", "an error inside", "refused", "at its very end"],
)
def test_a_stream_breaks_after_its_share(fault: Fault, heard: int) -> None:
    async def main() -> tuple[int, ProviderError]:
        count = 0
        try:
            async for _ in make(fault).stream(asked(0)):
                count += 1
        except ProviderError as failure:
            return count, failure
        raise AssertionError("it did not fail")

    count, failure = run(main())

    assert count == heard
    assert diagnose(failure).failure_class == fault.kind
    assert failure.status == (503 if (fault.kind, heard) == ("overloaded", 0) else None)
    if isinstance(failure, Incomplete):
        assert len(failure.prefix.split()) == heard


def test_a_stream_that_stalls_says_half_and_falls_silent() -> None:
    async def main() -> int:
        stream, count = make(Fault(kind="stalled")).stream(asked(0)), 0
        try:
            while True:
                async with asyncio.timeout(100.0):
                    await anext(stream)
                count += 1
        except TimeoutError:
            return count

    assert run(main()) == 8


def test_an_answer_begun_again_is_another_text_unless_it_repeats() -> None:
    async def main(load: Load) -> tuple[str, str]:
        provider = make(load=load)
        first, second = [await provider.generate(asked(0)) for _ in range(2)]
        return first.text, second.text

    one, other = run(main(Load(times=(0.0,))))
    assert one != other
    one, other = run(main(Load(times=(0.0,), repeats=True)))
    assert one == other


# Tokens ------------------------------------------------------------------------------------------


def test_an_answer_stops_at_the_token_limit() -> None:
    async def main() -> tuple[Reply, Reply]:
        provider = make(load=Load(times=(0.0,), repeats=True))
        return await provider.generate(asked(0, 10)), await provider.generate(asked(0))

    cut, whole = run(main())

    assert cut.truncated and not whole.truncated
    assert cut.usage.completion_tokens == 10
    assert whole.text.startswith(cut.text) and cut.text


def test_a_truncated_one_stops_half_way() -> None:
    async def main() -> Reply:
        return await make(Fault(kind="truncated")).generate(asked(0))

    reply = run(main())

    assert reply.truncated
    assert reply.usage.completion_tokens == 25


@pytest.mark.parametrize(
    ("fault", "stream", "wait", "counted"),
    [
        (None, False, None, (100, 50)),
        (None, True, None, (100, 50)),
        (None, False, 0.6, (100, 25)),
        (None, True, 1.6, (100, 9)),
        (Fault(kind="overloaded"), False, None, None),
        (Fault(kind="connect"), True, None, None),
        (Fault(kind="cut_stream"), True, None, (100, 25)),
        (Fault(kind="empty"), False, None, (100, 0)),
        (Fault(kind="stalled"), False, 60.0, (100, 0)),
        (Fault(kind="truncated"), False, None, (100, 25)),
    ],
    ids=[
        "answered", "streamed", "left half way", "left a stream", "refused", "not reached",
        "cut", "empty", "silent", "truncated",
    ],
)  # fmt: skip
def test_a_call_is_billed_for_what_was_done(
    fault: Fault | None, stream: bool, wait: float | None, counted: tuple[int, int] | None
) -> None:
    async def main() -> dict[str, tuple[int, int]]:
        faults = () if fault is None else (fault,)
        provider = make(*faults, latency=(1.2, 1.2), pace=0.05)
        work: Any = streamed(provider, asked(0)) if stream else provider.generate(asked(0))
        try:
            async with asyncio.timeout(wait):
                await work
        except (ProviderError, TimeoutError):
            pass
        return provider.served

    assert run(main()) == ({} if counted is None else {"simulated": counted})


def test_each_model_has_a_bill_of_its_own() -> None:
    async def main() -> dict[str, tuple[int, int]]:
        provider = make(model="small")
        await provider.generate(asked(0))
        await provider.generate(Request(content="1:", model="big"))
        return provider.served

    assert run(main()) == {"small": (100, 50), "big": (100, 50)}


# Capacity ----------------------------------------------------------------------------------------


def test_beyond_its_places_and_its_queue_a_call_is_refused_at_once() -> None:
    async def main() -> list[tuple[float, Any]]:
        provider = make(latency=(1.0, 1.0), capacity=2, queue=1)
        return await asyncio.gather(
            *(timed(provider.generate(asked(number))) for number in range(4))
        )

    found = run(main())

    assert [round(seconds, 6) for seconds, _ in found] == [1.0, 1.0, 2.0, 0.0]
    assert [diagnose(end).failure_class for _, end in found[3:]] == [F.OVERLOADED]


def test_a_caller_who_leaves_gives_the_place_back() -> None:
    async def main() -> float:
        provider = make(latency=(1.0, 1.0), capacity=1)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await provider.generate(asked(0))
        return (await timed(provider.generate(asked(1))))[0]

    assert run(main()) == pytest.approx(1.0)


# What was recorded -------------------------------------------------------------------------------


def call(at: float, outcome: str = "ok", seconds: float = 0.5, request: int = 0) -> RecordedCall:
    return RecordedCall(at=at, outcome=outcome, seconds=seconds, request=request)


def cue(
    calls: Sequence[RecordedCall],
    number: int,
    at: float,
    *,
    tape: Tape | None = None,
    streamed: bool = False,
    their_own: dict[int, RecordedCall] | None = None,
) -> Cue:
    load = Load(times=tuple(map(float, range(20))))
    incident = Incident(
        duration=1_000.0, requests=(load,), providers=(ProviderScript(name="a", latency=(0, 0)),)
    )
    tape = tape or Tape(calls, their_own or {})
    return tape.cue(incident.arrivals(1)[number], at, Random(1), streamed=streamed)


def test_a_request_gets_what_it_got() -> None:
    calls = [call(1.0, seconds=0.1, request=0), call(1.0, "overloaded", 0.2, request=1)]

    assert cue(calls, 0, 1.3) == Cue("ok", 0.1)
    assert cue(calls, 1, 1.3) == Cue("overloaded", 0.2)


def test_its_second_call_gets_what_its_second_call_got() -> None:
    calls = [call(1.0, "server_error", 0.1), call(1.1, "ok", 0.4)]
    tape = Tape(calls, {})

    assert [cue(calls, 0, at, tape=tape).kind for at in (1.0, 1.1)] == ["server_error", "ok"]


def test_a_call_that_was_never_made_gets_what_was_recorded_nearest_in_time() -> None:
    calls = [call(at, "ok" if at < 50 else "overloaded", request=0) for at in range(100)]

    assert {cue(calls, 7, float(at)).kind for at in range(0, 48)} == {"ok"}
    assert {cue(calls, 7, float(at)).kind for at in range(52, 100)} == {"overloaded"}


def test_a_request_whose_turn_came_much_later_gets_what_that_time_had() -> None:
    calls = [call(1.0, "overloaded", request=3), call(60.0, "ok", request=4)]

    assert cue(calls, 3, 59.0).kind == "ok"


def test_a_request_that_was_refused_for_itself_is_refused_always_and_no_other_for_its_sake() -> (
    None
):
    bad, good = call(1.0, "bad_request", 0.1, request=3), call(1.1, "ok", 0.5, request=4)

    assert cue([bad, good], 3, 500.0) == Cue("bad_request", 0.1)
    assert cue([bad, good], 9, 1.0).kind == "ok"
    assert cue([good], 3, 1.1, their_own={3: bad}) == Cue("bad_request", 0.1)


def test_where_all_was_refused_for_itself_that_is_all_there_is() -> None:
    assert cue([call(1.0, "content_filtered", request=3)], 9, 1.0).kind == "content_filtered"


@pytest.mark.parametrize("outcome", ["cancelled", "deadline", "first_token_timeout"])
def test_one_that_was_given_up_gets_a_longer_answer_of_about_then(outcome: str) -> None:
    calls = [
        call(0.0, "ok", 9.0, request=1),
        call(10.0, outcome, 2.0, request=2),
        call(11.0, "ok", 1.0, request=3),
        call(14.0, "ok", 3.0, request=4),
    ]

    assert cue(calls, 2, 10.0) == Cue("ok", 3.0)


def test_one_that_was_given_up_is_silent_where_nobody_took_longer() -> None:
    calls = [call(1.0, "ok", 1.0, request=1), call(2.0, "first_token_timeout", 30.0, request=2)]

    assert cue(calls, 2, 2.0) == Cue("first_token_timeout", None)


def test_a_recorded_stream_lasts_as_long_as_it_did() -> None:
    found = cue([call(1.0, "ok", 3.4)], 0, 1.0, streamed=True)

    assert found.latency is not None
    assert found.latency + found.lasts * 16 / 16 == pytest.approx(3.4)
    assert found.latency == pytest.approx(0.2)


def test_a_recorded_wait_is_asked_for_again() -> None:
    recorded = RecordedCall(at=1.0, outcome="rate_limited", seconds=0.1, request=0, retry_after=2.5)

    assert cue([recorded], 0, 1.0).retry_after == 2.5
