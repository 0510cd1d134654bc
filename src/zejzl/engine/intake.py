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
from zejzl.engine.options import Options
from zejzl.engine.record import Engine
from zejzl.engine.registry import Registry
from zejzl.engine.targets import Target
from zejzl.engine.trials import Part, Trials
from zejzl.engine.usual import Usual, usual
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
        usual: How it is treated where it does not say.
        part: The part it has in an experiment.
        start: Where it begins, if that is known already.
    """

    request: Request
    conversation_id: str | None
    sender: str
    terms: Terms
    limits: Limits
    asked: Asked
    chain: list[Target]
    usual: Usual
    part: Part | None = None
    start: Start | None = None

    def ended(self, how: Reply | Exception) -> None:
        """Take in how its journey ended."""
        if self.part is not None:
            self.part.ended(how)


class Intake:
    """Takes questions in.

    Args:
        begun: Called for each that goes on its way.
        trials: The experiments that run.

    Attributes:
        usual: How requests are treated that say nothing of it.
        conversations: Whose turn it is.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        store: Store,
        settings: Settings,
        begun: Callable[[], None],
        trials: Trials,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._store = store
        self._clock: Clock = engine.clock
        self._begun = begun
        self._given = settings
        self.usual = usual(settings)
        self._trials = trials
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
        critical, part, usual = self._engine.magic.is_critical, None, self.usual
        if self._trials.running:
            part = self._trials.part(conversation_id if conversation_id is not None else key)
            usual = part.usual
        settings = usual.settings
        changed = None if settings is self._given else settings
        provider, failover, model = options.provider, options.failover, options.model
        return Question(
            request=options.request(content, settings.max_tokens),
            conversation_id=conversation_id,
            sender=checked_text("sender", sender),
            limits=options.limits(usual.limits),
            asked=options.asked(conversation_id, streamed=streamed, critical=critical),
            chain=self._registry.chain(provider, failover, model, changed),
            terms=options.terms(
                key, parks, streamed=streamed
            ),  # the last: only what is right can be written down
            usual=usual,
            part=part,
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
                reply = await call(begun)
                question.ended(reply)
                return reply
            except KeyTaken:
                continue  # by another process, in this moment: wait for its answer
            except Exception as why:
                question.ended(why)
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
        question.part = None  # its time is not what an experiment compares
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
            told = await self._told(whose, question.usual.settings)
            request = replace(request, history=told)
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

    async def _told(self, conversation_id: str, settings: Settings) -> tuple[Turn, ...]:
        """Return what of a conversation is sent along with its next question."""
        messages = await self._store.history(conversation_id, settings.history_turns)
        return await fitting(messages, settings.context_tokens)
