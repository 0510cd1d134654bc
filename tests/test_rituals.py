"""A runbook does what it can, says what it did, and takes nobody down with it."""

import asyncio
import json
import math
import os
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.driving import finished
from zejzl.errors import ServerError
from zejzl.events import Event, RecoveryRecorded, RunbookPerformed, to_json
from zejzl.magic.remedies import Ended
from zejzl.magic.rituals import Keeper, Rituals, Runbook, Step
from zejzl.magic.wards import Wards
from zejzl.policies.budget import Budget
from zejzl.stores import InMemoryStore
from zejzl.testing import FakeClock

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
WELL = Ended(True, "ok")
BUILT_IN = ("holly_blessing", "oak_fortification", "fairy_ward", "mana_surge")


class House:
    """A keeper that does the least that is promised, and can be looked at."""

    max_energy = 100.0

    def __init__(self, folder: Path | None = None, *, energy: float = 100.0) -> None:
        self.clock = FakeClock(wall=NOON.timestamp())
        self.heard: list[Event] = []
        self.wards = Wards(self.clock, folder, self.emit)
        self.healing_history: list[RecoveryRecorded] = []
        self.answers: dict[str, Ended] = {}
        self.hardened: list[float] = []
        self.shielded = False
        # In the dark, so that time alone changes nothing.
        self._budget = Budget(0.0, balance=energy)
        self._budget.darken(True, 0.0)

    @property
    def energy_level(self) -> float:
        return self._budget.balance(self.clock.now())

    async def check_all(self) -> dict[str, Ended]:
        return self.answers

    def harden(self, seconds: float) -> None:
        self.hardened.append(seconds)

    async def fairy_shield(self, raised: bool) -> bool:
        self.shielded = raised and self._budget.spend(10.0, self.clock.now())
        return self.shielded

    def restore_energy(self, amount: float, reason: str) -> float:
        return self._budget.restore(amount, self.clock.now())

    def charge(self, cost: float) -> float:
        taken = min(cost, self.energy_level)
        self._budget.spend(taken, self.clock.now())
        return taken

    def emit(self, event: Event) -> None:
        self.heard.append(event)

    def performed(self) -> RunbookPerformed:
        (event,) = [each for each in self.heard if isinstance(each, RunbookPerformed)]
        return event

    def fail(self, *classes: str) -> None:
        self.healing_history += [
            RecoveryRecorded(
                target="a",
                issue="it broke",
                failure_class=failure,
                remedy="wait",
                success=True,
                verified=None,
                energy_used=10.0,
                timestamp=NOON,
                outcome="ok",
            )
            for failure in classes
        ]


def saying(words: object) -> Callable[[], Awaitable[object]]:
    async def act() -> object:
        return words

    return act


def raising(failure: BaseException) -> Callable[[], Awaitable[object]]:
    async def act() -> object:
        raise failure

    return act


def plan(*steps: Step) -> Runbook:
    return lambda: steps


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "state")


@pytest.fixture
def rituals(house: House) -> Rituals:
    return Rituals(house)


# Names ----------------------------------------------------------------------------------------


def test_a_keeper_is_whatever_has_its_methods(house: House) -> None:
    keeper: Keeper = house  # mypy's word for it

    assert Rituals(keeper).names() == BUILT_IN


async def test_own_runbooks_stand_behind_the_built_in_ones(rituals: Rituals) -> None:
    @rituals.decorate("deploy_blessing")
    async def deploy_blessing() -> str:
        return "deployed"

    rituals.add("night_watch", deploy_blessing)

    assert rituals.names() == (*BUILT_IN, "deploy_blessing", "night_watch")
    assert await deploy_blessing() == "deployed"


async def test_an_unknown_name_is_refused_with_the_known_ones(
    rituals: Rituals, house: House
) -> None:
    rituals.add("deploy_blessing", saying_nothing)

    known = re.escape(", ".join([*BUILT_IN, "deploy_blessing"]))
    with pytest.raises(ValueError, match=f"no runbook named 'hex'; known: {known}"):
        await rituals.perform("hex")

    assert (house.heard, house.energy_level) == ([], 100.0)


async def saying_nothing() -> None:
    return None


@pytest.mark.parametrize(
    "name",
    ["", "  ", "a\nb", "\ud800", None, 7, saying_nothing, *BUILT_IN],
    ids=lambda name: getattr(name, "__name__", repr(name)),
)
def test_a_name_is_text_and_not_a_built_in_ones(rituals: Rituals, name: str) -> None:
    for add in (rituals.decorate, lambda name: rituals.add(name, saying_nothing)):
        with pytest.raises(ValueError, match="name"):
            add(name)

    assert rituals.names() == BUILT_IN


async def test_an_own_runbook_may_be_replaced(rituals: Rituals) -> None:
    async def better() -> str:
        return "better"

    rituals.add("deploy", saying_nothing)
    rituals.add("deploy", better)

    assert await rituals.perform("deploy") == "deploy: better."


# What a runbook may be ------------------------------------------------------------------------


async def test_an_async_function_is_one_step(rituals: Rituals, house: House) -> None:
    async def deploy() -> str:
        await house.clock.sleep(2.0)
        return "Migrated 3 tables."

    rituals.add("deploy_blessing", deploy)

    sentence = await finished(house.clock, rituals.perform("deploy_blessing"))

    assert sentence == "deploy_blessing: Migrated 3 tables."
    assert house.performed() == RunbookPerformed(
        name="deploy_blessing",
        success=True,
        steps=(
            {"what": "deploy blessing", "ok": True, "seconds": 2.0, "said": "Migrated 3 tables."},
        ),
        sentence=sentence,
        timestamp=datetime(2026, 11, 22, 12, 0, 2, tzinfo=UTC),
    )


async def test_steps_are_done_in_order_and_tell_what_they_did(
    rituals: Rituals, house: House
) -> None:
    rituals.add(
        "deploy",
        plan(
            Step("migrate", saying("migrated 3 tables")),
            Step("warm the cache", saying(None)),
            Step("tell", saying("")),
            Step("open", saying("open.")),
        ),
    )

    sentence = await rituals.perform("deploy")

    assert sentence == "deploy: migrated 3 tables; warm the cache: done; tell: done; open."
    assert [step["said"] for step in house.performed().steps] == [
        "migrated 3 tables",
        "",
        "",
        "open.",
    ]


async def asks_nothing() -> str:
    return "nothing"


async def asks_the_keeper(keeper: Keeper) -> str:
    return f"energy {keeper.energy_level:g}"


async def may_ask(keeper: Keeper | None = None) -> str:
    return "a keeper" if keeper else "nothing"


async def takes_all(*keepers: Keeper) -> str:
    return f"{len(keepers)} keeper"


async def with_an_option(keeper: Keeper, loud: bool = False) -> str:
    return f"loud is {loud}"


def plans() -> list[Step]:
    return [Step("x", saying("planned"))]


def plans_with_the_keeper(keeper: Keeper) -> tuple[Step, ...]:
    return (Step("x", saying(f"planned at {keeper.energy_level:g}")),)


def plans_nothing() -> list[Step]:
    return []


class Deploys:
    async def __call__(self) -> str:
        return "called"

    async def method(self, keeper: Keeper) -> str:
        return f"method at {keeper.energy_level:g}"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (asks_nothing, "nothing"),
        (asks_the_keeper, "energy 90"),
        (may_ask, "a keeper"),
        (takes_all, "1 keeper"),
        (with_an_option, "loud is False"),
        (plans, "planned"),
        (plans_with_the_keeper, "planned at 90"),
        (plans_nothing, "nothing to do"),
        (Deploys(), "called"),
        (Deploys().method, "method at 90"),
    ],
)
async def test_a_function_gets_the_keeper_if_it_takes_one(
    rituals: Rituals, house: House, made: Runbook, said: str
) -> None:
    rituals.add("own", made)

    assert await rituals.perform("own") == f"own: {said}."
    assert house.performed().success


async def asks_for_two(keeper: Keeper, more: object) -> None: ...
async def asks_by_name(*, keeper: Keeper) -> None: ...


@pytest.mark.parametrize("made", [asks_for_two, asks_by_name])
def test_a_function_that_wants_anything_else_is_refused(rituals: Rituals, made: Runbook) -> None:
    with pytest.raises(ValueError, match="own must take nothing, or one argument"):
        rituals.add("own", made)


def test_what_cannot_be_called_is_refused(rituals: Rituals) -> None:
    with pytest.raises(TypeError, match="not a callable"):
        rituals.decorate("own")(5)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("what", "act", "seconds"),
    [
        ("", saying_nothing, 1.0),
        (" ", saying_nothing, 1.0),
        (None, saying_nothing, 1.0),
        ("x", None, 1.0),
        ("x", saying_nothing, 0.0),
        ("x", saying_nothing, -1.0),
        ("x", saying_nothing, math.inf),
        ("x", saying_nothing, math.nan),
        ("x", saying_nothing, 10**400),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_step_that_cannot_be_is_refused(
    what: str, act: Callable[[], Awaitable[object]], seconds: float
) -> None:
    with pytest.raises(ValueError, match=r"^(what|act|seconds) "):
        Step(what, act, seconds)


@pytest.mark.parametrize("seconds", [True, "5", None])
def test_seconds_are_a_number(seconds: Any) -> None:
    with pytest.raises(TypeError, match=r"^seconds of 'x' must be a number, not "):
        Step("x", saying_nothing, seconds)


def test_one_without_a_docstring_is_listed_as_that(rituals: Rituals) -> None:
    async def told() -> None:
        """

        Migrates the tables.

        At night.
        """

    rituals.add("told", told)
    rituals.add("untold", saying_nothing)
    rituals.add("partial", partial(told))

    lines = rituals.described()

    assert list(lines) == [*BUILT_IN, "told", "untold", "partial"]
    assert lines["told"] == "Migrates the tables."
    assert lines["untold"] == "one of your own; its function has no docstring"
    assert all(lines.values())


# What goes wrong ------------------------------------------------------------------------------


def returning(value: object) -> Callable[[], object]:
    return lambda: value


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (raising(ServerError("it broke", status=500)), "ServerError: it broke (HTTP 500)"),
        (raising(ValueError()), "ValueError"),
        (raising(TimeoutError("the database")), "TimeoutError: the database"),
        (raising(ValueError("two\nlines \ud800")), "ValueError: two lines "),
        (raising(Unspeakable()), "Unspeakable: it cannot be shown"),
        (raising(asyncio.CancelledError()), "CancelledError: its own work was cancelled"),
        (raising(ExceptionGroup("two", [ValueError()])), "ExceptionGroup: two (1 sub-exception)"),
        (saying(7), "it must return a sentence or None, not int"),
        (saying(True), "it must return a sentence or None, not bool"),
        (saying([]), "it must return a sentence or None, not list"),
        (returning(None), "TypeError: object NoneType can't be used in 'await' expression"),
    ],
)
async def test_a_runbook_stops_at_the_step_that_fails_and_says_so(
    rituals: Rituals, house: House, act: Callable[[], Awaitable[object]], said: str
) -> None:
    rituals.add(
        "deploy",
        plan(
            Step("migrate", saying("migrated 3 tables")),
            Step("warm the cache", act),
            Step("open", saying("never")),
        ),
    )

    sentence = await rituals.perform("deploy")

    assert sentence == (
        f"deploy stopped at step 2 of 3 (warm the cache): {said}; done before: migrated 3 tables."
    )
    event = house.performed()
    assert (event.success, event.sentence) == (False, sentence)
    assert [(step["what"], step["ok"]) for step in event.steps] == [
        ("migrate", True),
        ("warm the cache", False),
    ]


async def test_a_step_that_hangs_is_stopped_at_its_limit(rituals: Rituals, house: House) -> None:
    stopped = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    rituals.add("deploy", plan(Step("warm the cache", hang, 12.5)))

    sentence = await finished(house.clock, rituals.perform("deploy"))

    assert sentence == (
        "deploy stopped at step 1 of 1 (warm the cache): TimeoutError: no end within 12.5 s; "
        "done before: nothing."
    )
    assert stopped.is_set()
    assert house.performed().steps[0]["seconds"] == pytest.approx(12.5)


async def test_an_async_function_has_thirty_seconds(rituals: Rituals, house: House) -> None:
    async def slow() -> None:
        await house.clock.sleep(31.0)

    rituals.add("deploy", slow)

    assert "no end within 30 s" in await finished(house.clock, rituals.perform("deploy"))


def breaks() -> list[Step]:
    raise KeyError("replicas")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (breaks, "KeyError: 'replicas'"),
        (returning(None), "TypeError: it must be async or return a list of Steps, not NoneType"),
        (returning("done"), "TypeError: it must be async or return a list of Steps, not str"),
        (returning(""), "TypeError: it must be async or return a list of Steps, not str"),
        (returning([1]), "TypeError: it must be async or return a list of Steps, not list"),
        (returning({}), "TypeError: it must be async or return a list of Steps, not dict"),
    ],
)
async def test_a_plan_that_cannot_be_made_is_told_and_nothing_is_done(
    rituals: Rituals, house: House, made: Runbook, said: str
) -> None:
    rituals.add("deploy", made)

    assert await rituals.perform("deploy") == f"deploy stopped before its first step: {said}"
    assert (house.performed().success, house.performed().steps) == (False, ())


async def test_who_cancels_a_runbook_is_obeyed_and_it_is_still_told(
    rituals: Rituals, house: House
) -> None:
    rituals.add(
        "deploy",
        plan(Step("migrate", saying("migrated")), Step("wait", asyncio.Event().wait)),
    )
    task = asyncio.create_task(rituals.perform("deploy"))
    await house.clock.advance(3.0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    event = house.performed()
    assert not event.success
    assert event.sentence == (
        "deploy stopped at step 2 of 2 (wait): CancelledError; done before: migrated."
    )


async def test_a_limit_around_a_runbook_is_the_callers(rituals: Rituals, house: House) -> None:
    rituals.add("deploy", plan(Step("wait", asyncio.Event().wait, 60.0)))

    async def hurried() -> str:
        async with house.clock.timeout(1.0):
            return await rituals.perform("deploy")

    with pytest.raises(TimeoutError):
        await finished(house.clock, hurried())

    assert "CancelledError" in house.performed().sentence


def test_an_interrupt_is_not_held_up(house: House) -> None:
    rituals = Rituals(house)
    rituals.add("deploy", plan(Step("x", raising(KeyboardInterrupt()))))

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(rituals.perform("deploy"))

    assert "KeyboardInterrupt" in house.performed().sentence


texts = st.text(st.characters())  # halves of characters as well


@given(
    st.lists(
        st.one_of(
            texts.map(saying),
            st.just(saying(None)),
            st.integers().map(saying),
            texts.map(lambda words: raising(RuntimeError(words))),
        ),
        max_size=5,
    ),
    texts.filter(str.strip),
)
@example([saying(None)], "\ud800")
async def test_whatever_a_runbook_does_is_one_event_that_any_store_takes(
    acts: list[Callable[[], Awaitable[object]]], what: str
) -> None:
    house = House()
    rituals = Rituals(house)
    store = InMemoryStore(clock=house.clock)
    rituals.add("own", plan(*(Step(what, act) for act in acts)))

    sentence = await rituals.perform("own")

    event = house.performed()
    assert event.sentence == sentence
    assert event.success is (len(event.steps) == len(acts) and all(s["ok"] for s in event.steps))
    assert [step["ok"] for step in event.steps[:-1]] == [True] * (len(event.steps) - 1)
    assert json.loads(json.dumps(to_json(event), ensure_ascii=False).encode())["v"] == 1
    await store.open()
    await store.record([event])


# What it costs --------------------------------------------------------------------------------


@pytest.mark.parametrize(("energy", "left"), [(100.0, 90.0), (10.0, 0.0), (4.0, 0.0), (0.0, 0.0)])
async def test_an_own_runbook_costs_ten_or_what_there_is(energy: float, left: float) -> None:
    house = House(energy=energy)
    rituals = Rituals(house)
    rituals.add("deploy", saying_nothing)

    sentence = await rituals.perform("deploy")

    assert (sentence, house.energy_level) == ("deploy: deploy: done.", left)


@pytest.mark.parametrize("name", ["holly_blessing", "oak_fortification"])
async def test_a_built_in_runbook_costs_nothing(rituals: Rituals, house: House, name: str) -> None:
    await rituals.perform(name)

    assert house.energy_level == 100.0


# The four that are built in -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({}, "there is nothing to probe"),
        ({"a": WELL, "b": WELL}, "answered: a, b"),
        (
            {"a": WELL, "b": Ended(True, "circuit breaker closed")},
            "answered: a, b (circuit breaker closed)",
        ),
    ],
)
async def test_holly_blessing_names_who_answered_and_whose_breaker_it_closed(
    rituals: Rituals, house: House, answers: dict[str, Ended], said: str
) -> None:
    house.answers = answers

    sentence = await rituals.perform("holly_blessing")

    assert sentence == f"holly_blessing: {said}; nobody is unwell."
    assert house.performed().success


@pytest.mark.parametrize(
    ("others", "said"), [({}, "nobody answered"), ({"b": WELL}, "answered: b")]
)
async def test_holly_blessing_tells_why_one_did_not_answer_and_has_not_succeeded_then(
    rituals: Rituals, house: House, others: dict[str, Ended], said: str
) -> None:
    house.answers = {"a": Ended(False, "ServerError: down"), **others}

    sentence = await rituals.perform("holly_blessing")

    assert sentence == (
        "holly_blessing stopped at step 2 of 2 (find all well): did not answer: "
        f"a (ServerError: down); done before: {said}."
    )
    assert not house.performed().success


async def test_oak_fortification_hardens_and_names_what_it_guards_against(
    rituals: Rituals, house: House
) -> None:
    house.fail("stalled", "server_error", "rate_limited", "server_error", "connect", "connect")

    sentence = await rituals.perform("oak_fortification")

    assert house.hardened == [600.0]
    assert sentence == (
        "oak_fortification: thresholds and concurrency limits halved, hedging off, for 10 minutes; "
        "guards against connect (2), server_error (2), rate_limited (1), stalled (1)."
    )


async def test_oak_fortification_says_when_it_knows_of_no_failure(rituals: Rituals) -> None:
    assert (await rituals.perform("oak_fortification")).endswith(
        "for 10 minutes; nothing in the recovery log yet."
    )


async def test_fairy_ward_raises_the_shield(rituals: Rituals, house: House) -> None:
    sentence = await rituals.perform("fairy_ward")

    assert house.shielded
    assert sentence == (
        "fairy_ward: admission control lets only critical work pass (shield raised)."
    )


async def test_fairy_ward_says_when_there_is_too_little_energy(tmp_path: Path) -> None:
    house = House(tmp_path, energy=3.0)

    sentence = await Rituals(house).perform("fairy_ward")

    assert not house.shielded
    assert sentence == (
        "fairy_ward stopped at step 1 of 1 (raise the shield): retry budget is too low "
        "(energy 3.0 of 100), shield not raised; done before: nothing."
    )
    assert not house.performed().success


@pytest.mark.parametrize("energy", [100.0, 3.0])
async def test_fairy_ward_guards_a_file_also_when_there_is_too_little_energy(
    tmp_path: Path, energy: float
) -> None:
    house = House(tmp_path / "state", energy=energy)
    file = tmp_path / "deploy.toml"
    file.write_bytes(b"replicas = 3\n")

    sentence = await Rituals(house).perform("fairy_ward", target_file=file)
    file.write_bytes(b"replicas = 0\n")

    (report,) = await house.wards.check()
    assert (report.path, report.state) == (file, "changed")
    assert f"guards {file} (13 bytes, sha256 {report.sha256})" in sentence
    assert house.performed().success is (energy == 100.0)


async def test_fairy_ward_with_a_path_that_is_wrong_does_and_costs_nothing(
    rituals: Rituals, house: House, tmp_path: Path
) -> None:
    sentence = await rituals.perform("fairy_ward", target_file=str(tmp_path / "nowhere"))

    assert sentence.startswith(
        "fairy_ward stopped at step 1 of 2 (guard the file): FileNotFoundError: "
    )
    assert (house.shielded, house.energy_level) == (False, 100.0)


async def test_fairy_ward_can_tell_of_a_name_that_is_no_text(
    rituals: Rituals, house: House, tmp_path: Path
) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9")
    file.write_bytes(b"x")

    sentence = await rituals.perform("fairy_ward", target_file=file)

    assert house.performed().success
    assert sentence.encode()


async def test_only_fairy_ward_takes_a_file(rituals: Rituals, house: House) -> None:
    rituals.add("deploy", saying_nothing)

    for name in {*rituals.names()} - {"fairy_ward"}:
        with pytest.raises(ValueError, match=f"{name} takes no target_file"):
            await rituals.perform(name, target_file="x")

    assert (house.heard, house.energy_level) == ([], 100.0)


@pytest.mark.parametrize(
    ("energy", "given", "left"), [(20.0, "30", "50.0"), (95.0, "5", "100.0"), (100.0, "0", "100.0")]
)
async def test_mana_surge_restores_thirty_or_what_there_is_room_for(
    energy: float, given: str, left: str
) -> None:
    house = House(energy=energy)

    assert await Rituals(house).perform("mana_surge") == (
        f"mana_surge: retry budget restored by {given} (energy {left} of 100)."
    )


async def test_mana_surge_helps_at_most_once_a_minute() -> None:
    house = House(energy=0.0)
    rituals = Rituals(house)

    await rituals.perform("mana_surge")
    await house.clock.advance(17.5)
    house.heard.clear()
    early = await rituals.perform("mana_surge")
    after_early = house.energy_level
    refused = house.performed()
    await house.clock.advance(42.5)
    await rituals.perform("mana_surge")

    assert early == (
        "mana_surge stopped at step 1 of 1 (restore the retry budget): "
        "nothing restored, next possible in 43 s; done before: nothing."
    )
    assert not refused.success
    assert (after_early, house.energy_level) == (30.0, 60.0)


async def test_a_mana_surge_into_a_full_budget_does_not_use_up_the_minute() -> None:
    house = House()
    rituals = Rituals(house)

    await rituals.perform("mana_surge")
    house.charge(50.0)
    await rituals.perform("mana_surge")

    assert house.energy_level == 80.0
