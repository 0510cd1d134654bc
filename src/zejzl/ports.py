"""What the bus needs from others, as Protocols; and the seed's base class for providers.

A plug-in satisfies a Protocol and inherits nothing. `tests/test_providers.py` and
`tests/test_stores.py` enforce these docstrings on every implementation.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, Generic, Literal, Protocol, TypeVar, runtime_checkable

from zejzl.events import Event
from zejzl.messages import NOTHING, Attempt, Bill, Delta, Message, Reply, Request

T = TypeVar("T")


@runtime_checkable
class SimpleProvider(Protocol):
    """The least a provider can be: text in, text out."""

    name: str

    async def generate_response(self, message: str, history: list[dict[str, str]]) -> str:
        """Answer `message`; `history` is oldest first, without it, and the callee's own copy."""


@runtime_checkable
class Provider(Protocol):
    """A full provider: usage, limits and streams.

    An adapter translates and does nothing else: no retries, no caching, no logging of content.
    There is no timeout argument: the bus cancels an attempt that is late. One that can also
    stream has a method `stream`, see `StreamingProvider`.
    """

    name: str
    default_model: str

    async def generate(self, request: Request) -> Reply:
        """Answer once, wholly.

        Raises:
            Transient: Trying again may help.
            Permanent: It will not.
        """

    async def cleanup(self) -> None:
        """Release connections. Called once; may be called before any request."""


@runtime_checkable
class StreamingProvider(Provider, Protocol):
    """A provider that also answers piece by piece."""

    def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Yield the answer piece by piece; the last piece carries the Reply.

        A stream that ends without a finish reason raises `Incomplete`. Closing the iterator
        closes the connection.
        """


class AIProvider:
    """Base for a provider of one's own: override `generate_response`.

    Attributes:
        name: Short and unique in a bus; appears in statistics and on disk.
        default_model: Model used where the caller names none.
    """

    name = "custom"
    default_model = ""

    def __init__(self, api_key: str = "", model: str = "") -> None:
        self.api_key = api_key
        self.model = model or self.default_model

    async def initialize(self) -> None:
        """Prepare; called once, when the provider is registered."""

    async def generate_response(self, message: str, history: list[dict[str, str]]) -> str:
        """Return the answer to `message`."""
        raise NotImplementedError  # never asked: one that does not override it is not registered

    async def cleanup(self) -> None:
        """Release what `initialize` took; called once, when the bus lets go of the provider."""


class Done(Generic[T]):
    """An awaitable that is over: it gives its value to whoever asks, at once."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[None, None, T]:
        return self._value
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is kept with a request, so that it can be taken up again.

    Attributes:
        key: The caller's own name for it: of two requests with one key, one is answered.
        options: How it was asked, JSON; None: as usual.
        parks: Whether it may wait for better times where nobody can answer.
    """

    key: str | None = None
    options: str | None = None
    parks: bool = False


USUAL_TERMS = Terms()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendLimits:
    """Money that may be spent, in USD; None is no limit.

    Attributes:
        day: In one day of UTC, by everybody who uses the store.
        conversation: In one conversation.
    """

    day: float | None = None
    conversation: float | None = None


class KeyTaken(ValueError):
    """A request with this idempotency key was accepted already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A request as the store has it.

    Attributes:
        message: With its answer or error, if it has one.
        state: "accepted", "settled", "parked" (it waits to be taken up again) or "dead" (it was
            given up).
        attempts: What was tried.
        terms: What was kept with it.
        model: That answered, as the provider reports it.
        finish_reason: Of the answer; "" without one.
        maybe_duplicate: Whether it may not have been the first answer.
        tries: How often it was taken up again in vain.
        due_at: When it is to be taken up again, if it is parked.
        abandoned: Whether it is "accepted" by an owner that is gone.
    """

    message: Message
    state: str
    attempts: tuple[Attempt, ...]
    terms: Terms
    model: str = ""
    finish_reason: str = ""
    maybe_duplicate: bool = False
    tries: int = 0
    due_at: datetime | None = None
    abandoned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What the calls of one model cost on one day, or in one conversation.

    Attributes:
        day: Of UTC, ISO.
        cost_usd: Money, as far as prices are known.
        unpriced: Calls with tokens of no known price.
        unsettled: Calls whose tokens are estimated.
        unsettled_usd: Of `cost_usd`, what is estimated.
    """

    day: str
    provider: str
    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    unpriced: int
    unsettled: int
    unsettled_usd: float


@dataclass(frozen=True, slots=True)
class InFlight:
    """A journal row that was accepted and never settled.

    Attributes:
        message: The request.
        attempts: How many provider calls had begun.
    """

    message: Message
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """An event of the user's or an agent's own, as a store keeps it.

    Attributes:
        id: Unique; of two with one id, the first is kept.
        conversation_id: The conversation it belongs to; None belongs to none.
        at: When it happened, aware.
        body: The event, JSON.
        text: What a search looks through.
    """

    id: str
    type: str
    conversation_id: str | None
    at: datetime
    body: str
    text: str = ""


class Whichever(Enum):
    """Says "whichever conversation" where None says "of none"."""

    ANY = "any"


ANY: Final = Whichever.ANY
MOST_MEMORIES = 100_000


class Store(Protocol):
    """Where messages, their journal, events, memories and kept settings live.

    Writes are queued when called and durable when awaited: a write whose awaitable is dropped
    still happens, in order, unless the process dies first. One that is written already may return
    `Done`: nobody sets a timer for it. Every method may raise StoreError.

    The journal: `accept` (request and its first attempt, together) → `attempt` for each further
    call → `settle` (attempts, outcome, answer and events, together). A message becomes part of
    its conversation's history in the commit that settles it with a response, whole. Work that can
    wait is parked in place of being settled, and taken up again from there.

    The ledger: each attempt carries its bill, an estimate until it is settled; what is told of
    spending counts both.

    Commands: `post_command` → `take_commands` by the one they are for → `answer_command`.

    Attributes:
        shared: Whether other processes can reach what is kept here.
    """

    shared: bool

    async def open(self) -> None:
        """Make ready; create or migrate what is missing."""

    async def close(self) -> None:
        """Write what is queued and let go."""

    def accept(
        self,
        message: Message,
        provider: str,
        model: str,
        *,
        bill: Bill = NOTHING,
        terms: Terms = USUAL_TERMS,
        limits: SpendLimits | None = None,
        at: datetime | None = None,
    ) -> Awaitable[None]:
        """Journal a request together with its first attempt, before anything is sent.

        Args:
            bill: What the attempt will cost, about.
            terms: What is kept with the request.
            limits: What may be spent.
            at: When the attempt begins; None: now.

        Raises:
            ValueError: If a message of that id exists.
            KeyTaken: If one with the key of its terms does.
            SpendLimitReached: If its bill would be beyond `limits`; nothing was written.
        """

    def attempt(
        self,
        message_id: str,
        number: int,
        provider: str,
        model: str,
        *,
        bill: Bill = NOTHING,
        limits: SpendLimits | None = None,
        at: datetime | None = None,
    ) -> Awaitable[None]:
        """Journal that attempt `number` (from 2) begins; raises `SpendLimitReached` as `accept`."""

    def settle(
        self,
        message: Message,
        attempts: Sequence[Attempt],
        events: Sequence[Event] = (),
        *,
        model: str = "",
        finish_reason: str = "",
        maybe_duplicate: bool = False,
    ) -> Awaitable[None]:
        """Write the outcome: `message` with response or error, what was tried, what was learned.

        Args:
            model: That answered, as the provider reports it.
            finish_reason: Of the answer.
            maybe_duplicate: Whether a provider may have answered in an earlier life of it.
        """

    async def orphans(self) -> list[InFlight]:
        """Claim and return unsettled requests whose owner is gone, oldest first.

        They are the caller's from then on, in one step: of two that ask, each gets other rows,
        and what a live owner holds, the caller included, is left out. Each wants a `settle`.
        What may be parked is left out, too: `take_parked` finds it.
        """

    async def kept(self, *, id: str | None = None, key: str | None = None) -> Kept | None:
        """Return the request of that id, or of that idempotency key; None: there is none."""

    def reopen(self, message_id: str) -> Awaitable[bool]:
        """Make a request accepted again, and the caller's: failed, parked, dead or abandoned.

        False where it is answered, or somebody else has it. Its attempts stay; further ones go on
        from their number.
        """

    def park(
        self,
        message: Message,
        attempts: Sequence[Attempt],
        events: Sequence[Event] = (),
        *,
        tries: int,
        due_at: datetime | None,
    ) -> Awaitable[None]:
        """Let an accepted request wait until `due_at`; None: give it up, for people to look at.

        Args:
            message: With the reason as its error.
            attempts: All of them, as for `settle`.
            tries: How often it was taken up again in vain.
        """

    async def parked(self, *, limit: int = 1_000) -> list[Kept]:
        """Return what waits or was given up, and what may wait and is under way, oldest first."""

    async def take_parked(self, *, before: datetime, limit: int = 100) -> list[Kept]:
        """Claim what is due `before`, as `orphans` does, and what its dead owner had in hand.

        Each is accepted then, and wants a `settle` or a `park`; the longest due come first.
        """

    async def next_due(self) -> datetime | None:
        """Return when the next parked request is due; None: none waits."""

    async def history(self, conversation_id: str, limit: int) -> list[Message]:
        """Return the newest `limit` answered messages of a conversation, oldest first."""

    async def messages(
        self, *, conversation_id: str | None = None, limit: int = 100
    ) -> list[Message]:
        """Return the newest `limit` messages, answered or not, oldest first."""

    async def attempts(self, message_id: str) -> list[Attempt]:
        """Return what was tried for a message, in order."""

    async def spending(
        self, *, since: str = "", conversation_id: str | None = None
    ) -> list[Spending]:
        """Return what calls cost, by day, provider and model, oldest first.

        Args:
            since: First day, ISO.
            conversation_id: Of this conversation alone, as far as its messages are kept.
        """

    def revise(
        self, name: str, change: Callable[[str | None], tuple[str | None, T]]
    ) -> Awaitable[T]:
        """Replace a kept setting by what `change` makes of it, and return what that says.

        `change` takes the present value (None: there is none) and returns the new one with its
        result. Of several, also in other processes, one comes after the other. It may run in
        another thread.
        """

    def record(self, events: Sequence[Event]) -> Awaitable[None]:
        """Append events."""

    async def events(
        self, *, type: str | None = None, since: datetime | None = None, limit: int = 100
    ) -> list[Event]:
        """Return the newest `limit` events, oldest first."""

    def remember(self, memories: Sequence[Memory], *, keep: int = MOST_MEMORIES) -> Awaitable[None]:
        """Keep memories; of an id that is known, nothing is written.

        Args:
            memories: All of them or, where one cannot be written, none.
            keep: Most that are kept of all; what was remembered first goes first.
        """

    async def recall(
        self,
        *,
        type: str | None = None,
        conversation_id: str | Literal[Whichever.ANY] | None = ANY,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        limit: int = 100,
    ) -> list[Memory]:
        """Return the newest `limit` memories, oldest first: by time, then as they came.

        Args:
            type: Of this type alone.
            conversation_id: Of this conversation alone; None: of those that belong to none.
            since: From then on.
            until: Before then.
            text: With all of its words, in any order; case does not matter, and nothing in it is
                syntax. A text without a word is found nowhere.
        """

    async def setting(self, name: str) -> str | None:
        """Return a setting the bus keeps, or None."""

    def keep_setting(self, name: str, value: str | None) -> Awaitable[None]:
        """Keep a setting; None forgets it."""

    def keep_snapshot(self, owner: str, body: str) -> Awaitable[None]:
        """Keep a running bus's latest state, JSON, in place of its last."""

    async def snapshots(self) -> list[tuple[str, datetime, bool, str]]:
        """Return (owner, when, whether it still runs, JSON) of each snapshot, newest first."""

    def post_command(self, owner: str, name: str, body: str) -> Awaitable[int]:
        """Ask the running bus whose snapshot has the key `owner` to do something; return an id.

        Nobody checks that it runs: a command for one that is gone stays waiting.
        """

    async def take_commands(self, owner: str) -> list[tuple[int, str, str]]:
        """Return (id, name, body) of each command that waits for `owner`, oldest first.

        Each is given out once: of two that ask, each gets other commands. Made to be asked often:
        where nothing waits, nothing is written.
        """

    def answer_command(self, id: int, ok: bool, body: str) -> Awaitable[None]:
        """Write what became of a command that was taken.

        Raises:
            ValueError: If it is unknown, was not taken, or has an answer already.
        """

    async def command(self, id: int) -> tuple[str, str] | None:
        """Return a command's state and answer, "" while there is none; None: unknown.

        The state is "waiting", "taken", "done" or "failed".
        """

    async def check(self) -> list[str]:
        """Return what is wrong with the stored data; [] when nothing is."""

    def prune(self, *, before: datetime) -> Awaitable[int]:
        """Delete what is older than `before`, except messages that are not settled.

        Returns how many they were.
        """
