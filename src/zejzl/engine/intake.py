"""From a caller's question to a journey that is ready to go, or to an answer that there is already.

checked ─▶ its idempotency key's turn ─▶ its conversation's turn ─▶ history ─▶ Journey
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from secrets import token_hex

from zejzl.clock import Clock
from zejzl.engine.arguments import checked_text
from zejzl.engine.call import call
from zejzl.engine.history import fitting
from zejzl.engine.journal import Conversations
from zejzl.engine.journey import Journey, Limits
from zejzl.engine.once import FRESH, Once, Start, again
from zejzl.engine.options import Options, usual_limits
from zejzl.engine.record import Engine
from zejzl.engine.registry import Registry
from zejzl.engine.targets import Target
from zejzl.events import utc
from zejzl.magic.lanes import Asked
from zejzl.messages import Message, Reply, Request, Turn
from zejzl.ports import USUAL_TERMS, Kept, KeyTaken, Store, Terms
from zejzl.settings import Settings


@dataclass(slots=True, kw_only=True)
class Question:
    """What a caller asks, checked.

    Attributes:
        chain: Who may answer.
        start: Where it begins, if that is known already.
    """

    request: Request
    conversation_id: str | None
    sender: str
    terms: Terms
    limits: Limits
    asked: Asked
    chain: list[Target]
    start: Start | None = None


class Intake:
    """Takes questions in.

    Args:
        begun: Called for each that goes on its way.

    Attributes:
        conversations: Whose turn it is.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        store: Store,
        settings: Settings,
        begun: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._store = store
        self._settings = settings
        self._clock: Clock = engine.clock
        self._begun = begun
        self._usual_limits = usual_limits(settings)
        self._once = Once(store, engine.clock, engine.journal)
        self.conversations = Conversations(engine.clock)

    def question(
        self,
        content: str,
        conversation_id: str | None,
        sender: str,
        options: Options,
        *,
        key: str | None = None,
        parks: bool = False,
        streamed: bool = False,
    ) -> Question:
        """Return what is asked, checked; nothing is sent or stored.

        Raises:
            ValueError, TypeError: An argument cannot be.
            NoSuchProvider: Nobody of a name is there.
        """
        critical = self._engine.magic.is_critical
        return Question(
            request=options.request(content, self._settings.max_tokens),
            conversation_id=conversation_id,
            sender=checked_text("sender", sender),
            limits=options.limits(self._usual_limits),
            asked=options.asked(conversation_id, streamed=streamed, critical=critical),
            chain=self._registry.chain(options.provider, options.failover, options.model),
            terms=options.terms(
                key, parks, streamed=streamed
            ),  # the last: only what is right can be written down
        )

    async def answer(self, question: Question) -> Reply:
        """Return the answer to a question, asked whole.

        Raises:
            Parked, GivenUp: Nobody could answer, and it may wait, or has waited long enough.
        """
        while True:
            begun = await self.begin(question)
            try:
                if isinstance(begun, Reply):
                    return begun
                return await call(begun)
            except KeyTaken:
                continue  # by another process, in this moment: wait for its answer
            except Exception as why:
                if isinstance(begun, Journey) and begun.record.parked is not None:
                    raise begun.record.parked from why
                raise
            finally:
                self.end(question)

    async def take_up(self, kept: Kept, *, waited: bool = False) -> Reply:
        """Return the answer to a question of an earlier life; raises what `answer` does.

        Args:
            waited: Whether it was parked: nobody but its ticket waits for the answer.
        """
        message, options = kept.message, Options.from_json(kept.terms.options)
        question = self.question(message.content, message.conversation_id, message.sender, options)
        question.start = Start(again(kept, waited=waited), message)
        return await self.answer(question)

    async def begin(self, question: Question) -> Journey | Reply:
        """Wait for its turn, and return the request ready to go, or the answer there is already.

        What it holds from then on is let go of by `end`.
        """
        started, terms, whose = self._clock.now(), question.terms, question.conversation_id
        content, seconds = question.request.content, question.limits.deadline
        start = question.start or FRESH
        if start is FRESH and terms is not USUAL_TERMS:
            start = await self._once.begin(terms, content, whose, seconds)
        if start.reply is not None:
            question.conversation_id = None  # whose turn it did not wait for
            return start.reply
        try:
            await self.conversations.begin(whose, seconds)
        except BaseException:
            self._let_go(question)
            raise
        try:
            return await self._journey(question, start, started)
        except BaseException:
            self.end(question)
            raise

    def end(self, question: Question) -> None:
        """Let others have their turn."""
        self.conversations.end(question.conversation_id)
        self._let_go(question)

    def _let_go(self, question: Question) -> None:
        if question.start is None and question.terms is not USUAL_TERMS:
            self._once.end(question.terms)

    async def _journey(self, question: Question, start: Start, started: float) -> Journey:
        request, chain, whose = question.request, question.chain, question.conversation_id
        if whose is not None:
            request = replace(request, history=await self._told(whose))
        message = start.message or Message(
            id=token_hex(16),
            content=request.content,
            timestamp=utc(self._clock.wall()),
            sender=question.sender,
            provider=chain[0].name,
            conversation_id=whose,
        )
        self._begun()
        limits, asked = question.limits, question.asked
        return Journey(self._engine, message, request, chain, limits, started, asked, start.work)

    async def _told(self, conversation_id: str) -> tuple[Turn, ...]:
        """Return what of a conversation is sent along with its next question."""
        messages = await self._store.history(conversation_id, self._settings.history_turns)
        return await fitting(messages, self._settings.context_tokens)
