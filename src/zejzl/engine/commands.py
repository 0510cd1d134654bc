"""What another process may ask of a running bus: taken from the store, done, answered.

    ask ─▶ waiting ─▶ (twice a second) taken ─▶ a handler in its own task ─▶ done or failed ─▶ ask

Both ends are here. A command carries the time until which it is wanted, so that a bus that hung
for an hour does not then do what people have long given up.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from zejzl.clock import Clock
from zejzl.engine.journal import unheard
from zejzl.errors import StoreError, ZejzlError, shorten
from zejzl.events import Event, RunbookPerformed, to_json
from zejzl.magic import FairyMagic
from zejzl.policies.breaker import State
from zejzl.ports import Store

log = logging.getLogger(__name__)

Handler = Callable[[Mapping[str, object]], Awaitable[object]]

POLL_SPACING = 0.5
ANSWER_SPACING = 0.05
PATIENCE = 10.0
MOST_AT_ONCE = 16
LETTING_GO = 5.0  # seconds that what is under way is given to end, once it was cancelled
_EXPIRES_AT: Final = "expires_at"  # wall seconds: the two processes share one machine's clock


class Commands:
    """Does what other processes ask.

    Args:
        owner: The bus's own key among the snapshots.
        handlers: What can be asked, by name; each takes the arguments and returns what JSON holds.
    """

    def __init__(
        self, store: Store, clock: Clock, owner: str, handlers: Mapping[str, Handler]
    ) -> None:
        self._store = store
        self._clock = clock
        self._owner = owner
        self._handlers = handlers
        self._unreadable = False

    async def run(self) -> None:
        """Do what is asked until cancelled; what is under way then is cancelled and answered.

        What goes on all the same is not waited for longer than 5 s.
        """
        room = asyncio.Semaphore(MOST_AT_ONCE)
        under_way: set[asyncio.Task[str]] = set()
        try:
            while True:
                for id, name, body in await self._taken():
                    task = asyncio.create_task(self._do(room, name, body), name="zejzl-command")
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                    # Not at the end of the task itself: one cancelled at once never begins.
                    task.add_done_callback(partial(self._answer, id, _about(name, body)))
                await self._clock.sleep(POLL_SPACING)
        finally:
            await self._let_go(under_way)

    async def _let_go(self, under_way: set["asyncio.Task[str]"]) -> None:
        for task in under_way:
            task.cancel()
        try:
            async with self._clock.timeout(LETTING_GO):
                while under_way:
                    await asyncio.wait(under_way)
        except TimeoutError:
            log.warning("stopped with %d commands that go on although cancelled", len(under_way))

    async def _taken(self) -> list[tuple[int, str, str]]:
        try:
            taken = await self._store.take_commands(self._owner)
        except StoreError as problem:
            if not self._unreadable:  # told once, not twice a second
                log.warning("commands cannot be read from the store: %s", problem)
            self._unreadable = True
            return []
        self._unreadable = False
        return taken

    async def _do(self, room: asyncio.Semaphore, name: str, body: str) -> str:
        async with room:
            asked = json.loads(body)
            if not isinstance(asked, dict):
                raise ValueError("a command's body must be a JSON object")
            handler = self._handlers.get(name)
            if handler is None:
                known = ", ".join(sorted(self._handlers))
                raise ValueError(f"unknown command {name!r}; known: {known}")
            expires_at = asked.get(_EXPIRES_AT)
            if isinstance(expires_at, int | float) and self._clock.wall() > expires_at:
                raise TimeoutError("it came too late and was not done: nobody waits for it now")
            return json.dumps(await handler(asked))

    def _answer(self, id: int, what: str, task: "asyncio.Task[str]") -> None:
        ok = False
        if task.cancelled():
            answer = _told("CancelledError", "it was cancelled: the bus stops")
        elif (problem := task.exception()) is not None:
            answer = _told(type(problem).__name__, str(problem))
        else:
            ok, answer = True, task.result()
        log.info("command %s: %s", what, "done" if ok else "failed")
        try:
            unheard(self._store.answer_command(id, ok, answer))
        except StoreError as problem:
            log.warning("command %s was not answered: %s", what, problem)


async def ask(
    store: Store,
    clock: Clock,
    owner: str,
    name: str,
    arguments: Mapping[str, object],
    *,
    patience: float = PATIENCE,
) -> tuple[str, object]:
    """Have the bus `owner` do something; return the command's state and the answer, None: none.

    Waits at most `patience` seconds. A command that is still "waiting" then will not be done.
    """
    end = clock.now() + patience
    body = {**arguments, _EXPIRES_AT: clock.wall() + patience}
    id = await store.post_command(owner, name, json.dumps(body))
    while True:
        over = clock.now() > end  # before the look, so that the look is the last word
        found = await store.command(id)
        if found is None:
            raise StoreError(f"command {id} was deleted before it was answered")
        state, answer = found
        if answer or over:
            return state, json.loads(answer) if answer else None
        await clock.sleep(ANSWER_SPACING)


async def every(clock: Clock, seconds: float) -> AsyncIterator[None]:
    """Yield at once, and again `seconds` after what was done about it."""
    while True:
        yield
        await clock.sleep(seconds)


def handlers(magic: FairyMagic) -> dict[str, Handler]:
    """Return what may be asked of a bus with this controller.

    reset {name}; heal {component, issue}: the new row of the recovery log; ritual {name,
    target_file}; shield {raised}. A provider's breaker goes by the provider's name, too.
    """
    performed: dict[str, bool] = {}

    def note(event: Event) -> None:
        if isinstance(event, RunbookPerformed):
            performed[event.name] = event.success

    magic.listen(note)

    async def reset(asked: Mapping[str, object]) -> object:
        name = magic.recoveries.known(_text(asked, "name"))
        await magic.reset_circuit_breaker(name)
        breaker = await magic.get_circuit_breaker_status(name)
        return {"name": name, "state": breaker["state"] if breaker else State.CLOSED.value}

    async def heal(asked: Mapping[str, object]) -> object:
        component = magic.recoveries.known(_text(asked, "component"))
        await magic.blue_spark_heal(component, _text(asked, "issue"))
        rows = (row for row in reversed(magic.healing_history) if row.target == component)
        return to_json(next(rows))

    async def ritual(asked: Mapping[str, object]) -> object:
        name = _text(asked, "name")
        file = None if asked.get("target_file") is None else _text(asked, "target_file")
        said = await magic.perform_ritual(name, target_file=file)
        return {"name": name, "success": performed[name], "said": said}

    async def shield(asked: Mapping[str, object]) -> object:
        raised = asked.get("raised")
        if not isinstance(raised, bool):
            raise ValueError(f"raised must be true or false, not {raised!r}")
        energy = f"(energy {magic.energy_level:.1f} of {magic.max_energy:g})"
        if not await magic.fairy_shield(raised):
            raise ZejzlError(f"not raised: retry budget is short {energy}")
        return {"raised": magic.is_shielded, "energy_level": magic.energy_level}

    return {"heal": heal, "reset": reset, "ritual": ritual, "shield": shield}


def _about(name: str, body: str) -> str:
    """Return for the log what was asked, and of whom; nothing else of it, it may be private."""
    with suppress(ValueError, RecursionError, AttributeError):
        asked = json.loads(body)
        if whom := asked.get("name") or asked.get("component"):
            return shorten(f"{name!r} ({whom})")
    return repr(name)


def _text(asked: Mapping[str, object], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {value!r}")
    return value


def _told(kind: str, words: str) -> str:
    return json.dumps({"type": kind, "message": words})
