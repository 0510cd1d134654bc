"""What travels: a question to a provider, its answer, and the message a conversation keeps.

Frozen values. `Message` is what a store keeps for good: one row is one whole turn, a question
and, once there is one, its answer, so that half a turn cannot exist.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from zejzl.errors import StoreTooNew

VERSION = 1
MOST_TOKENS = 2**53  # beyond which no number is a count, and arithmetic may fail

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "content_filter", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One side's words in a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a provider is asked.

    Attributes:
        content: The user's words.
        history: Earlier turns, oldest first, without `content`.
        system: Instructions for the model.
        model: The provider's own name of the model; None is the provider's default.
        max_tokens: Longest answer in tokens; None leaves it to the provider.
        temperature: Sampling temperature as the provider defines it.
    """

    content: str
    history: tuple[Turn, ...] = ()
    system: str | None = None
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them; None where it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def total_tokens(self) -> int | None:
        """Both together, if both are known."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Bill:
    """What one call costs: an estimate from the moment it is sent, settled at its end.

    Attributes:
        prompt_tokens: Of the question.
        completion_tokens: Of the answer, or of what is known of it.
        cost_usd: Money for these tokens; None where no price is known.
        settled: Whether the provider has counted them, or has refused and counts nothing. If
            not, they are estimated: the end of the call was not seen, or nobody counted.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    settled: bool = True


NOTHING = Bill()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of one provider.

    Attributes:
        provider: Name of the provider.
        model: Model asked for.
        outcome: "ok", a `FailureClass` value, or "interrupted" where the process died.
        seconds: How long it took.
        remedy: What led to it: "first", or the remedy that answered the failure before.
        error: What the failure said; "" when there was none.
        bill: What it costs.
        at: When it began, aware UTC; None where that was not written down.
    """

    provider: str
    model: str
    outcome: str
    seconds: float
    remedy: str = "first"
    error: str = ""
    bill: Bill = NOTHING
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer.

    Attributes:
        text: The whole answer.
        provider: Who gave it.
        model: The model that gave it, as the provider reports it.
        usage: Tokens as the provider counted them.
        finish_reason: Why the model stopped; "length" means that the answer is cut short.
        attempts: Every call that was made for it, the last one good.
        healed: Whether an attempt had failed before.
        latency_s: Seconds from asking to answer, all attempts included.
        cost_usd: Money for all attempts together; None where a price is not known.
        maybe_duplicate: Whether a provider may have answered this request in an earlier life of
            it: before a crash, in an earlier try of parked work, or under the same
            `idempotency_key`.
        id: The bus's id of the request.
        request_id: The provider's id of the call.
    """

    text: str
    provider: str
    model: str = ""
    usage: Usage = Usage()
    finish_reason: FinishReason = "stop"
    attempts: tuple[Attempt, ...] = ()
    healed: bool = False
    latency_s: float = 0.0
    cost_usd: float | None = None
    maybe_duplicate: bool = False
    id: str = ""
    request_id: str = ""

    @property
    def truncated(self) -> bool:
        """Whether the answer stopped at its token limit and not at its end."""
        return self.finish_reason == "length"


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer.

    Attributes:
        text: The next words; may be "" in the last piece.
        restart: "Discard what you have": the answer begins again with this piece.
        reply: The whole answer, in the last piece only.
    """

    text: str
    restart: bool = False
    reply: Reply | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A question, who it was for, and what came of it.

    Attributes:
        id: Unique.
        content: The question.
        timestamp: When it was asked, aware UTC.
        sender: Who asked.
        provider: Who was asked, then who answered.
        response: The answer; None until there is one.
        response_time: Seconds until the answer.
        error: Why there is no answer.
        conversation_id: The conversation it belongs to; None belongs to none.
    """

    id: str
    content: str
    timestamp: datetime
    sender: str
    provider: str
    response: str | None = None
    response_time: float | None = None
    error: str | None = None
    conversation_id: str | None = "default"

    @classmethod
    def create(
        cls, content: str, sender: str, provider: str, conversation_id: str | None = "default"
    ) -> "Message":
        """Return a new message with a fresh id and the present time."""
        return cls(
            id=uuid4().hex,
            content=content,
            timestamp=datetime.now(UTC),
            sender=sender,
            provider=provider,
            conversation_id=conversation_id,
        )

    def answered(self, response: str, provider: str, seconds: float) -> "Message":
        """Return the message with its answer."""
        # Not `replace`, on the path of every call: it looks every field up by name.
        return Message(
            id=self.id,
            content=self.content,
            timestamp=self.timestamp,
            sender=self.sender,
            provider=provider,
            response=response,
            response_time=seconds,
            error=self.error,
            conversation_id=self.conversation_id,
        )

    def turns(self) -> tuple[Turn, ...]:
        """Return question and answer, or nothing while there is no answer."""
        if self.response is None:
            return ()
        return Turn("user", self.content), Turn("assistant", self.response)

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values with a version."""
        body = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {"v": VERSION, **body, "timestamp": self.timestamp.isoformat()}

    @classmethod
    def from_json(cls, body: Mapping[str, object]) -> "Message":
        """Return the message that `to_json` wrote.

        Raises:
            StoreTooNew: If a newer version wrote it.
            ValueError: If it is no message.
        """
        if body.get("v") != VERSION:
            raise StoreTooNew(f"message of version {body.get('v')!r}; this zejzl reads {VERSION}")
        try:
            fields = {name: body[name] for name in cls.__dataclass_fields__}
            fields["timestamp"] = datetime.fromisoformat(str(body["timestamp"]))
            return cls(**fields)  # type: ignore[arg-type]
        except KeyError as missing:
            raise ValueError(f"not a message: {missing} is missing") from None
