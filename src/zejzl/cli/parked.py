"""`zejzl parked`: work that waits for better times, or was given up.

It is looked at and steered in the database alone, whether or not a bus runs there: one that does
sees what is due within a second. Only `run` starts one.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from shlex import quote

from ai_framework import AsyncMessageBus
from zejzl.cli.advice import advice
from zejzl.cli.chat import check_models, told
from zejzl.cli.reports import SHORT, buses, kept, state_of
from zejzl.cli.terminal import FAILED, WELL, Terminal, age, counted, in_brief, line, word
from zejzl.cli.terminal import told as failure
from zejzl.clock import SystemClock
from zejzl.engine.commands import every
from zejzl.engine.once import causes_of, reply_of, ticket_of
from zejzl.engine.parking import ParkedRequest, ParkedWork
from zejzl.engine.record import GIVEN_UP, WAITS
from zejzl.errors import BusNotRunning, NoSuchRequest, Parked, RequestUnderWay, ZejzlError
from zejzl.events import utc
from zejzl.messages import Reply
from zejzl.policies.parking import Spacing
from zejzl.ports import Kept
from zejzl.settings import Settings
from zejzl.stores import SqliteStore

ALL = "all"
MOST = 100_000  # requests among which the beginning of an id is looked for
LISTED = 1_000  # requests that are shown, the oldest
LONG = 160  # letters of a question and of a cause where there is room
LOOKS = 0.5  # seconds between two looks at what a bus of our own does


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedReport:
    """Parked work.

    Attributes:
        running: Whether a bus runs that takes it up.
        requests: The oldest first. Their state is "waiting", "under way",
            "interrupted" (its process has died, a bus takes it up) or "given up".
    """

    running: bool
    requests: Sequence[ParkedRequest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steered:
    """What was done with parked work.

    Attributes:
        done: "replayed" or "dropped".
        ids: The requests that it was done with.
        under_way: Those that were just being tried, and were left alone.
        running: Whether a bus runs that takes up what is replayed.
    """

    done: str
    ids: Sequence[str]
    under_way: Sequence[str]
    running: bool


async def parked(settings: Settings, limit: int = LISTED) -> ParkedReport:
    """Return what waits, is under way or was given up: the oldest of it."""
    async with kept(settings) as store:
        if store is None:
            return ParkedReport(running=False, requests=())
        found = [_request(one) for one in await store.parked(limit=limit)]
        return ParkedReport(running=await _runs(store), requests=found)


def _request(one: Kept) -> ParkedRequest:
    return ParkedRequest(
        id=one.message.id,
        message=one.message,
        state=state_of(one),
        tries=one.tries,
        due_at=one.due_at,
        causes=causes_of(one),
        attempts=one.attempts,
    )


async def _runs(store: SqliteStore) -> bool:
    return any(bus.running for bus in await buses(store))


async def tell_ticket(terminal: Terminal, settings: Settings, ticket: Parked) -> int:
    """Tell that a question is kept, and how to get at its answer; return the exit code."""
    if terminal.as_json:
        terminal.json({"parked": failure(ticket)})
    async with kept(settings) as store:
        running = store is not None and await _runs(store)
    terminal.note(str(ticket))
    for said in advice(ticket, terminal.place, word()):
        terminal.note(f"→ {said}")
    if not running:
        terminal.note(f"→ no bus runs that takes it up: {_starts_one()}")
    return WELL


# Steering ------------------------------------------------------------------------------------


async def replay(settings: Settings, start: str) -> Steered:
    """Have parked work taken up now, with all its tries before it; raises as `_steered` does."""
    return await _steered(settings, start, "replayed", ParkedWork.replay)


async def drop(settings: Settings, start: str) -> Steered:
    """Give parked work up for good; raises as `_steered` does."""
    return await _steered(settings, start, "dropped", ParkedWork.drop)


async def _steered(
    settings: Settings,
    start: str,
    done: str,
    act: Callable[[ParkedWork, str], Awaitable[None]],
) -> Steered:
    """Do something with the request whose id begins so, or with all.

    Raises:
        ValueError: If it is the beginning of several, or of one that is over.
        NoSuchRequest: If it is that of none.
        RequestUnderWay: If that one is just being tried.
    """
    _check(start)
    async with kept(settings) as store:
        if store is None:
            if start == ALL:
                return Steered(done=done, ids=(), under_way=(), running=False)
            raise NoSuchRequest(start)
        work, running = _work(store, settings), await _runs(store)
        waiting = [one.message.id for one in await store.parked(limit=MOST)]
        if start != ALL:
            id = await _meant(store, start, waiting)
            if id not in waiting:
                over = ValueError(f"request {id} waits no more: it is over")
                over.add_note(f"→ `{word()} parked --result {quote(id)}` shows what became of it")
                raise over
            await act(work, id)
            return Steered(done=done, ids=[id], under_way=(), running=running)
        ids, busy = [], []
        for id in waiting:
            try:
                await act(work, id)
                ids.append(id)
            except RequestUnderWay:
                busy.append(id)
            except NoSuchRequest:  # it has ended meanwhile
                continue
        return Steered(done=done, ids=ids, under_way=busy, running=running)


async def result(settings: Settings, start: str) -> Reply:
    """Return the answer of the request whose id begins so.

    Raises:
        ValueError: If it is the beginning of several.
        Parked: If there is no answer yet; GivenUp: If there will be none.
        NoSuchRequest: If it is the beginning of none.
    """
    _check(start)
    async with kept(settings) as store:
        if store is None:
            raise NoSuchRequest(start)
        among = [one.message.id for one in await store.parked(limit=MOST)]
        among += [message.id for message in await store.messages(limit=MOST)]
        id = await _meant(store, start, among)
        one = await store.kept(id=id)
        if one is not None and one.state == "settled" and one.message.error is not None:
            raise ZejzlError(f"request {id} was not answered, and is over: {one.message.error}")
        try:
            return await _work(store, settings).result(id, 0.0)
        except Parked as ticket:
            if not await _runs(store):
                ticket.add_note(f"no bus runs that takes it up: {_starts_one()}")
            raise


def _check(start: str) -> None:
    if not start.strip():
        raise ValueError("which request? An id, or the beginning of one, is missing")


def _work(store: SqliteStore, settings: Settings) -> ParkedWork:
    spacing = Spacing(tries=settings.park_tries, first=settings.park_spacing)
    return ParkedWork(store, SystemClock(), spacing, _take_up, lambda: False)


async def _take_up(one: Kept) -> Reply:
    raise BusNotRunning("parked work is taken up by a running bus")


async def _meant(store: SqliteStore, start: str, among: Sequence[str]) -> str:
    """Return the one id that begins so."""
    if await store.kept(id=start) is not None:
        return start
    found = list(dict.fromkeys(id for id in among if id.startswith(start)))
    if not found:
        raise NoSuchRequest(start)
    if len(found) > 1:
        more = " and more" if len(found) > 5 else ""
        raise ValueError(f"{start!r} begins several ids: {', '.join(found[:5])}{more}")
    return found[0]


# Being the bus -------------------------------------------------------------------------------


async def run(terminal: Terminal, settings: Settings) -> int:
    """Be a bus until nothing waits any more; tell what became of each request.

    Raises:
        ValueError: If no provider's key is set.
    """
    waiting = _hopeful((await parked(settings, MOST)).requests)
    ended: list[Kept] = []
    if waiting:
        async with AsyncMessageBus(settings) as bus:
            check_models(bus)
            with terminal.waiting(f"{counted(len(waiting), 'request')} to answer …"):
                await _watch(terminal, bus, waiting, ended)
    if terminal.as_json:
        terminal.json([_ended(one) for one in ended])
    elif not ended:
        terminal.say("nothing waits")
    return WELL if all(one.message.response is not None for one in ended) else FAILED


def _ended(one: Kept) -> Reply | dict[str, object]:
    """Return what became of a request for programs, as `--result` would."""
    if one.message.response is not None:
        return reply_of(one)
    return {"error": failure(ticket_of(one))}


def _hopeful(found: Sequence[ParkedRequest]) -> dict[str, ParkedRequest]:
    return {one.id: one for one in found if one.state != "given up"}


async def _watch(
    terminal: Terminal,
    bus: AsyncMessageBus,
    waiting: dict[str, ParkedRequest],
    ended: list[Kept],
) -> None:
    clock = SystemClock()
    async for _ in every(clock, LOOKS):
        before, waiting = waiting, _hopeful(await bus.parked(MOST))
        for id in before:
            if id not in waiting and (one := await bus.store.kept(id=id)) is not None:
                ended.append(one)
                if not terminal.as_json:
                    terminal.say(told(one.message))
        for id, now in waiting.items():
            if now.due_at is not None and now.due_at != getattr(before.get(id), "due_at", None):
                terminal.note(f"{id[:SHORT]} in vain, again {_due(now.due_at)}: {_cause(now)}")
        if not waiting:
            return


# Showing it ----------------------------------------------------------------------------------


def show_parked(terminal: Terminal, found: ParkedReport) -> None:
    """Print parked work, a line each."""
    if not found.requests:
        terminal.say(
            f"nothing is parked: `{word()} ask --park` keeps what nobody can answer at present"
        )
        return
    length = _told_apart([one.id for one in found.requests])
    wall = SystemClock().wall()
    terminal.table(
        ["ticket", "state", "age", "tries", "due", "question", "last cause"],
        [
            (
                one.id[:length],
                one.state,
                age(wall - one.message.timestamp.timestamp()),
                one.tries,
                _due(one.due_at) if one.due_at is not None else "",
                in_brief(one.message.content, LONG),
                in_brief(_cause(one), LONG),
            )
            for one in found.requests
        ],
        right=["tries"],
        brief=["question", "last cause"],
    )
    states = Counter(one.state for one in found.requests)
    said = ", ".join(f"{count:,} {state}" for state, count in states.items())
    more = f"; the oldest {LISTED:,} are shown" if len(found.requests) == LISTED else ""
    terminal.say(f"{said}{more}")
    if states["given up"]:
        terminal.say(f"`{word()} parked --replay ID` tries one again, `--drop ID` forgets it")
    if not found.running and states.total() > states["given up"]:
        terminal.say(f"no bus runs that takes up what waits: {_starts_one()}")


def _told_apart(ids: Sequence[str]) -> int:
    """Return how many letters of each id tell it from the others."""
    return next(
        (length for length in range(SHORT, 32) if len({id[:length] for id in ids}) == len(ids)), 32
    )


def _due(due_at: datetime) -> str:
    wait = (due_at - utc(SystemClock().wall())).total_seconds()
    return f"in {age(wait)}" if wait >= 0.5 else "now"


def _cause(one: ParkedRequest) -> str:
    last = one.causes[-1] if one.causes else ""
    return last.removeprefix(f"{WAITS}: ").removeprefix(f"{GIVEN_UP}: ")


def _starts_one() -> str:
    return f"start your program, or `{word()} parked --run`"


def show_steered(terminal: Terminal, found: Steered) -> None:
    """Print what was done."""
    if found.ids:
        who = line(found.ids[0]) if len(found.ids) == 1 else counted(len(found.ids), "request")
        terminal.say(f"{'due now' if found.done == 'replayed' else found.done}: {who}")
    elif not found.under_way:
        terminal.say("nothing is parked")
    if found.under_way:
        terminal.note(f"{counted(len(found.under_way), 'request')} under way: left alone")
    if found.done == "dropped" or not found.ids:
        return
    terminal.say(
        "the running bus takes it up"
        if found.running
        else f"no bus runs that takes it up: {_starts_one()}"
    )
    if len(found.ids) == 1:
        terminal.say(
            f"`{word()} parked --result {quote(line(found.ids[0]))}` shows the answer then"
        )
