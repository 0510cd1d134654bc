"""Users' own remedies and probes: run within a limit, their end told in words and contained.

First as the controller runs them, then as a bus does in the middle of a request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest

from tests.driving import finished, make_bus, register
from zejzl.errors import (
    AuthFailed,
    BadRequest,
    ContentFiltered,
    FailureClass,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    ServerError,
)
from zejzl.magic import FairyMagic
from zejzl.magic.remedies import Ended, Remedies, fitting
from zejzl.policies.breaker import Pin
from zejzl.policies.diagnosis import Remedy
from zejzl.testing import FakeClock

F = FailureClass
Own = Callable[..., Awaitable[object]]


class Unshowable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


def returning(value: object, name: str = "own") -> Own:
    async def own() -> object:
        return value

    own.__name__ = name
    return own


def raising(failure: BaseException) -> Own:
    async def own() -> object:
        raise failure

    return own


async def applied(own: Own, *, clock: FakeClock | None = None) -> Ended:
    """Return how a remedy ends."""
    clock = clock or FakeClock()
    remedies = Remedies(clock)
    remedies.remedy("tool_call")(own)
    return await finished(clock, remedies.apply("tool_call", own.__name__, ServerError("x")))


async def checked(own: Own, *, clock: FakeClock | None = None) -> Ended | None:
    """Return how a probe ends."""
    clock = clock or FakeClock()
    remedies = Remedies(clock)
    remedies.probe("tool_call")(own)
    return await finished(clock, remedies.check("tool_call"))


# Adding -----------------------------------------------------------------------------------------


def test_a_remedy_is_offered_for_its_component_and_its_children_and_nobody_else() -> None:
    remedies = Remedies(FakeClock())
    remedies.remedy("tool_call")(returning(True, "restart"))
    remedies.remedy("tool_call:db")(returning(True, "reopen"))

    offered = {
        component: remedies.offered(component, F.UNKNOWN)
        for component in ("tool_call", "tool_call:db", "tool_call:mail", "tool_calls")
    }

    assert offered == {
        "tool_call": ["restart"],
        "tool_call:db": ["reopen", "restart"],
        "tool_call:mail": ["restart"],
        "tool_calls": [],
    }


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (None, set(F) - {F.AUTH, F.BAD_REQUEST, F.CONTENT_FILTERED, F.CANCELLED}),
        ("connect", {F.CONNECT}),
        (F.CONNECT, {F.CONNECT}),
        (["connect", F.AUTH], {F.CONNECT, F.AUTH}),
        ([], set()),
    ],
    ids=["none named", "a name", "a class", "both", "an empty list"],
)
def test_a_remedy_is_for_the_classes_it_names(classes: Any, expected: set[F]) -> None:
    remedies = Remedies(FakeClock())

    remedies.remedy("tool_call", classes)(returning(True))

    assert {each for each in F if remedies.offered("tool_call", each)} == expected


@pytest.mark.parametrize(
    "classes",
    ["bad_request", ["content_filtered"], [F.CANCELLED, "connect"], "no_such_class"],
    ids=["400", "filter", "cancelled", "unknown"],
)
def test_nothing_can_be_done_about_a_callers_mistake(classes: Any) -> None:
    remedies = Remedies(FakeClock())

    with pytest.raises(ValueError, match=r"bad_request|content_filtered|cancelled|no_such_class"):
        remedies.remedy("tool_call", classes)


def test_a_name_is_taken_once_in_a_component_and_never_a_built_in_ones() -> None:
    remedies = Remedies(FakeClock())
    remedies.remedy("tool_call")(returning(True, "restart"))

    remedies.remedy("persistence")(returning(True, "restart"))
    for name in ("restart", *Remedy):
        with pytest.raises(ValueError, match=name):
            remedies.remedy("tool_call")(returning(True, str(name)))

    assert remedies.offered("tool_call", F.UNKNOWN) == ["restart"]


@pytest.mark.parametrize("component", ["", "  ", None, 3])
def test_a_component_is_a_name(component: Any) -> None:
    remedies = Remedies(FakeClock())

    for decorate in (remedies.remedy, remedies.probe):
        with pytest.raises(ValueError, match="component"):
            decorate(component)


def test_a_name_that_could_not_be_written_down_is_refused() -> None:
    remedies = Remedies(FakeClock())

    for decorate in (remedies.remedy, remedies.probe):
        with pytest.raises(ValueError, match="component is not storable"):
            decorate("tool_call:\ud800")
    with pytest.raises(ValueError, match="the remedy's name is not storable"):
        remedies.remedy("tool_call")(returning(True, "mend\ud800"))

    assert remedies.offered("tool_call", F.UNKNOWN) == []


@pytest.mark.parametrize(
    ("component", "full"),
    [
        ("alpha", "ai_provider:alpha"),
        (" Alpha", "ai_provider:alpha"),
        ("ai_provider:later", "ai_provider:later"),
        ("tool_call:db", "tool_call:db"),
    ],
)
def test_a_component_of_a_controller_goes_by_its_name_and_a_provider_by_its_own(
    component: str, full: str
) -> None:
    magic = FairyMagic(clock=FakeClock())
    magic.gate.provider("alpha")

    magic.remedy(component)(returning(True))
    magic.probe(component)(returning(True))

    assert magic.remedies.offered(full, F.UNKNOWN) == ["own"]
    assert magic.remedies.probed == [full]


def test_a_component_that_a_controller_does_not_know_is_refused_with_those_it_knows() -> None:
    magic = FairyMagic(clock=FakeClock())

    for decorate in (magic.remedy, magic.probe):
        with pytest.raises(ValueError, match=r"'p_typo'; known: ai_provider, .*comes later is "):
            decorate("p_typo")
        with pytest.raises(TypeError, match="component must be text"):
            decorate(returning(True))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [lambda: True, "restart", object(), print])
def test_what_is_not_async_is_refused(wrong: Any) -> None:
    remedies = Remedies(FakeClock())

    for decorate in (remedies.remedy("tool_call"), remedies.probe("tool_call")):
        with pytest.raises(TypeError, match="async"):
            decorate(wrong)

    assert (remedies.offered("tool_call", F.UNKNOWN), remedies.probed) == ([], [])


async def test_a_remedy_has_a_name_and_a_probe_needs_none() -> None:
    remedies = Remedies(FakeClock())
    nameless = partial(returning(True))

    with pytest.raises(TypeError, match="name"):
        remedies.remedy("tool_call")(nameless)
    remedies.probe("tool_call")(nameless)

    assert await remedies.check("tool_call") == Ended(True, "ok")


def test_what_is_decorated_stays_what_it_was() -> None:
    magic = FairyMagic(clock=FakeClock())
    remedy, probe = returning(True, "restart"), returning(True)

    assert magic.remedy("tool_call")(remedy) is remedy
    assert magic.probe("tool_call")(probe) is probe


# What they are given ----------------------------------------------------------------------------


def test_a_function_gets_as_many_values_as_it_takes() -> None:
    def none() -> None: ...
    def one(failure: object) -> None: ...
    def two(failure: object, component: object, /) -> None: ...
    def three(failure: object, component: object, more: object) -> None: ...
    def any_number(*values: object) -> None: ...
    def named(*, failure: object = None) -> None: ...

    taken = [fitting(fn, (1, 2)) for fn in (none, one, two, three, any_number, named)]

    assert taken == [(), (1,), (1, 2), (1, 2), (1, 2), ()]


async def test_a_remedy_is_given_the_failure_and_the_component_that_failed() -> None:
    remedies = Remedies(FakeClock())
    given: list[tuple[object, ...]] = []

    async def own(*values: object) -> None:
        given.append(values)

    remedies.remedy("tool_call")(own)
    await remedies.apply("tool_call:db", "own", "it broke")

    assert given == [("it broke", "tool_call:db")]


async def test_a_component_s_own_remedy_comes_before_its_familys_of_the_same_name() -> None:
    remedies = Remedies(FakeClock())
    remedies.remedy("tool_call")(returning(False, "restart"))
    remedies.remedy("tool_call:db")(returning(True, "restart"))

    assert (await remedies.apply("tool_call:db", "restart", "x")).ok
    assert not (await remedies.apply("tool_call:mail", "restart", "x")).ok


async def test_a_probe_is_given_the_component_and_the_nearest_one_is_asked() -> None:
    remedies = Remedies(FakeClock())
    given: list[object] = []

    def noting(well: bool) -> Own:
        async def own(component: str) -> bool:
            given.append(component)
            return well

        return own

    nobodys = await remedies.check("tool_call:db")
    remedies.probe("tool_call")(noting(False))
    parents = await remedies.check("tool_call:db")
    remedies.watch("tool_call:db", noting(True))
    usual = await remedies.check("tool_call:db")
    remedies.probe("tool_call:db")(noting(False))
    own = await remedies.check("tool_call:db")

    assert (nobodys, parents, usual, own) == (
        None,
        Ended(False, "it said no"),
        Ended(True, "ok"),
        Ended(False, "it said no"),
    )
    assert given == ["tool_call:db"] * 3


async def test_what_is_watched_is_probed_until_it_is_not() -> None:
    remedies = Remedies(FakeClock())
    remedies.probe("b")(returning(True))
    remedies.watch("a", returning(True))
    remedies.watch("b", returning(False))

    both = remedies.probed
    for component in ("a", "b", "never"):
        remedies.watch(component, None)

    assert (both, remedies.probed) == (["b", "a"], ["b"])


# How they end -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "remedy", "probe"),
    [
        (returning(True), Ended(True, "ok"), Ended(True, "ok")),
        (
            returning(None),
            Ended(True, "ok"),
            Ended(False, "it returned NoneType, not True or False"),
        ),
        (returning(False), *[Ended(False, "it said no")] * 2),
        (returning("yes"), *[Ended(False, "it returned str, not True or False")] * 2),
        (returning(1), *[Ended(False, "it returned int, not True or False")] * 2),
        (raising(ValueError("boom")), *[Ended(False, "ValueError: boom")] * 2),
        (raising(TimeoutError("mine")), *[Ended(False, "mine")] * 2),
        (raising(Unshowable()), *[Ended(False, "Unshowable: it cannot be shown")] * 2),
        (
            raising(asyncio.CancelledError()),
            *[Ended(False, "its own work was cancelled")] * 2,
        ),
    ],
    ids=[
        *("True", "nothing", "False", "rubbish", "one", "raises", "its own limit", "unshowable"),
        "its own work is cancelled",
    ],
)
async def test_an_end_is_told_in_words_and_silence_is_consent_of_a_remedy_alone(
    own: Own, remedy: Ended, probe: Ended
) -> None:
    assert await applied(own) == remedy
    assert await checked(own) == probe


async def test_a_function_that_wants_more_than_there_is_is_told_so() -> None:
    async def own(failure: object, component: object, more: object) -> None:
        pass

    ended = await applied(own)

    assert not ended.ok and ended.said.startswith("TypeError: ") and "more" in ended.said


async def test_what_it_says_is_kept_on_one_short_line() -> None:
    ended = await applied(raising(ValueError("one\n" * 10_000)))

    assert len(ended.said) <= 500 and ended.said.isprintable()


async def test_one_that_hangs_is_ended_after_ten_seconds() -> None:
    clock = FakeClock()

    async def own() -> None:
        await clock.sleep(1e6)

    ended = await applied(own, clock=clock)

    assert ended == Ended(False, "no end within 10 s")
    assert clock.now() == pytest.approx(10.0, abs=0.1)


async def test_one_that_does_not_heed_its_cancellation_is_cancelled_again_a_second_later() -> None:
    clock = FakeClock()

    async def own() -> None:
        try:
            await clock.sleep(1e6)
        except asyncio.CancelledError:
            await clock.sleep(1e6)

    ended = await applied(own, clock=clock)

    assert ended == Ended(False, "no end within 10 s")
    assert clock.now() == pytest.approx(11.0, abs=0.1)


async def test_one_that_answers_late_but_answers_is_believed() -> None:
    clock = FakeClock()

    async def own() -> bool:
        try:
            await clock.sleep(1e6)
        except asyncio.CancelledError:
            return True
        return False

    assert await applied(own, clock=clock) == Ended(True, "ok")


async def test_whoever_cancels_a_remedy_is_obeyed() -> None:
    clock = FakeClock()
    remedies = Remedies(clock)

    async def own() -> None:
        await clock.sleep(5.0)

    remedies.remedy("tool_call")(own)
    task = asyncio.create_task(remedies.apply("tool_call", "own", "x"))
    await clock.advance(1.0)

    task.cancel()
    await clock.advance(0.0)

    assert task.cancelled()


# In the middle of a request ----------------------------------------------------------------------


def outcomes(attempts: Sequence[object]) -> list[tuple[str, str, str]]:
    return [(each.provider, each.outcome, each.remedy) for each in attempts]  # type: ignore[attr-defined]


def teach(magic: FairyMagic, failure_class: str, remedy: str, *, helped: bool = True) -> None:
    """Let a remedy have been tried thirty times, at no cost."""
    for _ in range(30):
        magic.recoveries.record(
            "ai_provider:a",
            "a lesson",
            failure_class,
            remedy,
            success=helped,
            verified=True,
            energy_used=0.0,
            outcome="ok" if helped else "server_error",
            cost=0.0,
        )


async def test_a_request_is_healed_by_a_remedy_of_ones_own() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=QuotaExhausted("no money"))
        given: list[tuple[Any, str]] = []

        @bus.magic.remedy("ai_provider", classes="quota_exhausted")
        async def top_up(failure: ProviderError, component: str) -> None:
            given.append((failure, component))
            a.play("well again")

        reply = await finished(clock, bus.send("hello"))

        assert (reply.text, reply.healed) == ("well again", True)
        assert outcomes(reply.attempts) == [
            ("a", "quota_exhausted", "first"),
            ("a", "ok", "top_up"),
        ]
        ((failure, component),) = given
        assert (type(failure), component) == (QuotaExhausted, "ai_provider:a")
        (row,) = bus.magic.healing_history
        assert (row.remedy, row.success, row.verified, row.energy_used) == (
            *("top_up", True, True),
            10.0,
        )
        assert bus.magic.energy_level == pytest.approx(90.0, abs=0.1)
        learned = {each["remedy"]: each["tried"] for each in bus.magic.preferences()}
        assert learned["top_up"] == 1


async def test_what_it_mends_is_in_use_again_at_once() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=AuthFailed("the old key"))

        @bus.magic.remedy("ai_provider:a", classes="auth")
        async def new_key() -> None:
            a.play("well again")

        await finished(clock, bus.send("hello"))
        reply = await bus.send("hello")

        assert outcomes(reply.attempts) == [("a", "ok", "first")]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (returning(False), "it said no"),
        (returning("rubbish"), "it returned str, not True or False"),
        (raising(Unshowable()), "Unshowable: it cannot be shown"),
        (raising(asyncio.CancelledError()), "its own work was cancelled"),
    ],
    ids=["says no", "rubbish", "unshowable", "its own work is cancelled"],
)
async def test_one_that_does_not_help_takes_nothing_down_with_it(own: Own, said: str) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=QuotaExhausted("no money"))
        bus.magic.remedy("ai_provider")(own)

        with pytest.raises(QuotaExhausted, match="no money") as caught:
            await finished(clock, bus.send("hello"))

        assert len(a.requests) == 1
        assert outcomes(caught.value.attempts) == [("a", "quota_exhausted", "first")]
        (row,) = bus.magic.healing_history
        assert (row.success, row.verified, row.outcome) == (False, False, said)
        assert row.energy_used == 10.0
        assert bus.magic.preferences()[0]["remedy"] != "own"


async def test_one_that_hangs_is_ended_at_the_deadline_and_nobody_is_called_after_it() -> None:
    clock = FakeClock()
    async with make_bus(clock, deadline=3.0) as bus:
        a, b = await register(bus, clock, a=ServerError("down"), b="from b")

        @bus.magic.remedy("ai_provider")
        async def restart() -> None:
            await clock.sleep(1e6)

        teach(bus.magic, "server_error", "restart")

        with pytest.raises(ServerError, match="down") as caught:
            await finished(clock, bus.send("hello"))

        assert clock.now() == pytest.approx(3.0, abs=0.06)
        assert (len(a.requests), len(b.requests)) == (1, 0)
        assert bus.magic.healing_history[-1].outcome == "no end before the deadline"
        assert any("deadline" in note for note in caught.value.__notes__)


async def test_one_whose_call_fails_again_is_not_tried_twice() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=QuotaExhausted("no money"))
        tried = []

        @bus.magic.remedy("ai_provider")
        async def top_up() -> None:
            tried.append(clock.now())

        with pytest.raises(QuotaExhausted) as caught:
            await finished(clock, bus.send("hello"))

        assert (len(tried), len(a.requests)) == (1, 2)
        assert outcomes(caught.value.attempts)[-1] == ("a", "quota_exhausted", "top_up")
        (row,) = bus.magic.healing_history
        assert (row.remedy, row.success, row.outcome) == ("top_up", False, "quota_exhausted")


@pytest.mark.parametrize("why", ["no budget", "enough calls"])
async def test_one_that_cannot_be_paid_or_followed_by_a_call_is_not_tried(why: str) -> None:
    clock = FakeClock()
    async with make_bus(clock, max_attempts=1 if why == "enough calls" else 3) as bus:
        await register(bus, clock, a=QuotaExhausted("no money"))
        bus.magic.remedy("ai_provider")(raising(AssertionError("tried all the same")))
        if why == "no budget":
            bus.magic.charge(91.0)

        with pytest.raises(QuotaExhausted) as caught:
            await finished(clock, bus.send("hello"))

        assert not bus.magic.healing_history
        if why == "no budget":
            assert any("retry budget is short" in note for note in caught.value.__notes__)


async def test_one_that_helped_somebody_who_cannot_be_called_is_told_as_unverified() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=QuotaExhausted("no money"))

        @bus.magic.remedy("ai_provider")
        async def top_up() -> None:
            bus.magic.gate.provider("a").rule.pin = Pin.FORCED_OPEN

        with pytest.raises(QuotaExhausted):
            await finished(clock, bus.send("hello"))

        assert len(a.requests) == 1
        row = bus.magic.healing_history[-1]
        assert (row.success, row.verified, row.cost) == (False, None, None)
        assert "it is pinned open" in row.outcome


@pytest.mark.parametrize("failure", [BadRequest("x"), ContentFiltered("x"), AuthFailed("x")])
async def test_one_for_all_failures_is_for_none_that_are_the_callers_own(
    failure: ProviderError,
) -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        (a,) = await register(bus, clock, a=failure)
        bus.magic.remedy("ai_provider")(raising(AssertionError("tried all the same")))
        bus.magic.prefer("own", "failover")

        with pytest.raises(type(failure)):
            await finished(clock, bus.send("hello"))

        assert len(a.requests) == 1
        assert not bus.magic.healing_history


async def test_a_caller_who_leaves_while_it_works_leaves_nothing_behind() -> None:
    clock = FakeClock()
    async with make_bus(clock) as bus:
        await register(bus, clock, a=RateLimited("x", retry_after=60.0))
        ended = []

        @bus.magic.remedy("ai_provider")
        async def restart() -> None:
            try:
                await clock.sleep(1e6)
            finally:
                ended.append(clock.now())

        bus.magic.prefer("restart", "wait")
        task = asyncio.create_task(bus.send("hello"))
        await clock.advance(2.0)

        task.cancel()
        await clock.advance(0.0)

        assert task.cancelled() and ended == [2.0]
        assert bus.magic.gate.lane("a").limiter.in_flight == 0
        (message,) = await bus.store.messages()
        assert message.error == "cancelled: the caller left"
