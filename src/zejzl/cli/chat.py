"""Asking: one question (`zejzl ask`), or a conversation (`zejzl chat`).

The chat runs the event loop while it waits for an answer and not while it waits for a line, so
that Ctrl-C means the one or the other: it stops the answer, or leaves the prompt.
"""

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from textwrap import indent
from types import FrameType
from uuid import uuid4

from ai_framework import OFFLINE, AsyncMessageBus
from zejzl.cli.advice import CHAT
from zejzl.cli.reports import breaker_state
from zejzl.cli.terminal import WELL, Terminal, counted, moment, word
from zejzl.engine.tokens import count_all
from zejzl.errors import NoSuchProvider, StoreError
from zejzl.messages import Message, Reply
from zejzl.policies.diagnosis import Remedy

HISTORY_SHOWN = 10
HELP = """\
/help              this list
/provider [NAME]   who is asked from here on (NAME or NAME/MODEL); without NAME: everybody in order
/model [NAME]      which model is asked; without NAME: the provider's own choice
/system [TEXT]     instructions for the model; without TEXT: none
/history           the last turns of this conversation
/new               begin a new conversation
/status            providers, their circuit breakers, and the retry budget (energy)
/tokens            how long this conversation is, in tokens
/quit              leave (so does Ctrl-D)
A line that begins with a blank is never a command. Ctrl-C stops an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How questions are asked: what `bus.send` takes beside the question itself."""

    provider: str | None = None
    conversation_id: str | None = None
    model: str | None = None
    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    deadline: float | None = None
    patience: float | None = None
    failover: bool | tuple[str, ...] | None = None
    idempotency_key: str | None = None
    park: bool = False

    def options(self) -> dict[str, object]:
        """Return the keyword arguments of `send`."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def streamed(self) -> dict[str, object]:
        """Return the keyword arguments of `stream`: nobody waits for a stream that may be late."""
        return {name: value for name, value in self.options().items() if name != "park"}


async def ask(
    terminal: Terminal, bus: AsyncMessageBus, question: str, asking: Asking, *, streams: bool
) -> Reply:
    """Ask, show the answer and what was healed on the way, and return it.

    Raises what `bus.send` raises. An answer that came and could not be stored is shown before.
    """
    streams = streams and not terminal.as_json
    pinned = asking.provider is not None and asking.failover is None
    terminal.place = replace(terminal.place, pinned=pinned, shown=False)
    try:
        if streams:
            reply = await _streamed(terminal, bus, question, asking)
        else:
            reply = await bus.send(question, **asking.options())  # type: ignore[arg-type]
            _show(terminal, reply)
    except StoreError as problem:
        if isinstance(problem.reply, Reply) and not streams:
            _show(terminal, problem.reply)
        raise
    _notes(terminal, reply)
    return reply


def show_answer(terminal: Terminal, reply: Reply) -> None:
    """Print an answer, and on stderr what was done for it."""
    _show(terminal, reply)
    _notes(terminal, reply)


def _notes(terminal: Terminal, reply: Reply) -> None:
    if reply.healed:
        terminal.note(f"healed: {healing(reply)}")
    if reply.truncated:
        terminal.note("the answer stopped at its token limit: --max-tokens, ZEJZL_MAX_TOKENS")
    if reply.maybe_duplicate:
        terminal.note("a provider may have answered this before: it may be paid for twice")


def check_models(bus: AsyncMessageBus) -> None:
    """Raise ValueError unless the bus has anybody to ask but the offline stand-in."""
    if OFFLINE in bus.providers:
        nobody = ValueError("nobody can be asked: no provider's key is set")
        nobody.add_note(f"→ `{word()} providers` lists the keys")
        raise nobody


def _show(terminal: Terminal, reply: Reply) -> None:
    if not terminal.as_json:
        terminal.write(f"{reply.text}\n")


async def _streamed(
    terminal: Terminal, bus: AsyncMessageBus, question: str, asking: Asking
) -> Reply:
    written = ""
    reply: Reply | None = None
    pieces = bus.stream(question, **asking.streamed())  # type: ignore[arg-type]
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if piece.restart:
                    terminal.write("\n")
                written = piece.text or written
                terminal.write(piece.text)
                reply = piece.reply or reply
    finally:
        if written:
            terminal.write("\n")
        terminal.place = replace(terminal.place, shown=bool(written))
    assert reply is not None  # the last piece carries it
    return reply


def healing(reply: Reply) -> str:
    """Return who failed on the way to an answer and what was done, in one line."""
    steps = [
        f"{tried.provider} failed ({tried.outcome}), "
        f"{'asked again later' if then.remedy == Remedy.FIRST else then.remedy} → "
        for tried, then in zip(reply.attempts, reply.attempts[1:], strict=False)
    ]
    return f"{''.join(steps)}{reply.provider} answered, {reply.latency_s:.1f} s in all"


def told(message: Message) -> str:
    """Return a turn for people to read."""
    took = "" if message.response_time is None else f" ({message.response_time:.1f} s)"
    answer = f"{message.provider}{took}:\n{indent(message.response or '', '  ')}"
    if message.response is None:
        answer = f"no answer from {message.provider}: {message.error or 'still under way'}"
    question = indent(message.content, "  ")
    return f"{moment(message.timestamp)} {message.sender}:\n{question}\n{answer}"


class Chat:
    """A conversation over lines, typed or piped.

    Args:
        terminal: Where it is shown.
        bus: Who is asked; started by `run`, and stopped.
        asking: How, at first.
    """

    def __init__(self, terminal: Terminal, bus: AsyncMessageBus, asking: Asking) -> None:
        self._terminal = terminal
        terminal.place = CHAT
        self._bus = bus
        self._asking = asking
        self._typed = sys.stdin.isatty()
        self._leaves = False
        self._replies: list[Reply] = []
        self._failure = WELL
        self._commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: self._say(HELP),
            "provider": self._set_provider,
            "model": lambda name: self._ask_with("model", name, model=name or None),
            "system": lambda text: self._ask_with("system", text, system=text or None),
            "history": self._history,
            "new": self._new,
            "status": self._status,
            "tokens": self._tokens,
        }

    def run(self) -> int:
        """Answer line after line; return the exit code."""
        with asyncio.Runner() as self._runner:
            try:
                self._leave_when_terminated()
                self._runner.run(self._bus.start())
                if self._asking.provider is not None:
                    self._check(self._asking.provider)
                if self._typed:
                    self._greet()
                return self._lines()
            finally:
                self._runner.run(self._bus.stop())

    def _leave_when_terminated(self) -> None:
        """Let SIGTERM, which is a Ctrl-C to the command line, leave at once: it comes but once."""
        before = signal.getsignal(signal.SIGTERM)
        if callable(before):

            def leave(number: int, frame: FrameType | None) -> None:
                self._leaves = True
                before(number, frame)

            signal.signal(signal.SIGTERM, leave)

    def _lines(self) -> int:
        pressed = False  # Ctrl-C, since the last line
        while True:
            try:
                text = self._read()
                if text is None or text.strip() in ("/quit", "/exit"):
                    break
                pressed = False
                self._take(text)
            except KeyboardInterrupt:
                if not self._typed or pressed or self._leaves:
                    raise
                pressed = True
                self._say("\n(Ctrl-C again or Ctrl-D leaves)")
            except BrokenPipeError:  # nobody reads: no further question is worth its price
                raise
            except Exception as problem:  # noqa: BLE001 - told, and the next line may do better
                self._failure = self._terminal.fail(problem)
        if self._terminal.as_json:
            self._terminal.json(self._replies)
        return WELL if self._typed else self._failure

    def _read(self) -> str | None:
        """Return the next line; None: there is none."""
        if not self._typed:
            return sys.stdin.readline() or None
        try:
            return input("you: ")
        except EOFError:
            self._say("")
            return None

    def _take(self, text: str) -> None:
        if not text.strip():
            return
        if text.startswith("/"):
            name, _, rest = text[1:].partition(" ")
            command = self._commands.get(name.strip())
            if command is None:
                raise ValueError(f"unknown command /{name.strip()}; /help lists them")
            command(rest.strip())
            return
        streams = self._typed or sys.stdout.isatty()
        asked = ask(self._terminal, self._bus, text.strip(), self._asking, streams=streams)
        try:
            self._replies.append(self._runner.run(asked))
        except KeyboardInterrupt:
            if self._typed:
                self._say("\n(stopped: the half answer is dropped, and not in the conversation)")
            raise

    def _say(self, text: str) -> None:
        self._terminal.say(text)

    def _greet(self) -> None:
        with suppress(ImportError):  # line editing in input(), where there is any
            import readline  # noqa: F401
        turns = len(self._past())
        first = self._asking.provider or next(iter(self._bus.providers))
        self._say(
            f"Talking to {first}. Conversation: {self._asking.conversation_id}, "
            f"earlier turns: {turns}. /help lists commands."
        )

    def _past(self) -> list[Message]:
        limit = self._bus.settings.history_turns
        conversation = self._asking.conversation_id
        return self._runner.run(self._bus.history(str(conversation), limit))

    # Commands --------------------------------------------------------------------------------

    def _check(self, provider: str) -> None:
        """Raise NoSuchProvider unless it can be asked."""
        known = self._bus.providers
        names = {provider, *(provider.partition(sign)[0] for sign in "/:")}  # with a model, too
        if not any(name.strip().lower() in known for name in names):
            raise NoSuchProvider(provider, tuple(known))

    def _set_provider(self, name: str) -> None:
        if name:
            self._check(name)
        self._ask_with("provider", name, provider=name or None)

    def _new(self, _: str) -> None:
        name = f"chat-{uuid4().hex[:8]}"
        self._ask_with("conversation", name, conversation_id=name)

    def _ask_with(self, what: str, value: str, **change: str | None) -> None:
        self._asking = replace(self._asking, **change)  # type: ignore[arg-type]
        self._say(f"{what}: {value or 'not set'}")

    def _history(self, _: str) -> None:
        for message in self._past()[-HISTORY_SHOWN:]:
            self._say(told(message))

    def _status(self, _: str) -> None:
        magic = self._bus.magic
        rows = []
        for name, model in self._bus.providers.items():
            breaker = magic.gate.provider(name).get_status()
            rows.append((name, model, breaker_state(breaker), breaker["last_error"]))
        self._terminal.table(["provider", "model", "breaker", "last failure"], rows)
        self._say(f"retry budget: {magic.energy_level:.0f} of {magic.max_energy:.0f} (energy)")

    def _tokens(self, _: str) -> None:
        past = self._past()
        texts = [turn.content for message in past for turn in message.turns()]
        counts = self._runner.run(count_all(texts))
        total = sum(count.tokens for count in counts)
        about = "" if all(count.exact for count in counts) else "about "
        self._say(
            f"{about}{counted(total, 'token')} in {counted(len(past), 'turn')}; "
            f"up to {self._bus.settings.context_tokens} are sent along"
        )
        if self._replies:
            usage = self._replies[-1].usage
            self._say(
                f"last answer: {usage.prompt_tokens} asked, {usage.completion_tokens} answered"
            )
