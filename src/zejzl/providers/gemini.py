"""Gemini's generateContent.

Source: https://ai.google.dev/api/generate-content, v1beta.
"""

from urllib.parse import quote

from yarl import URL

from zejzl.clock import Clock
from zejzl.errors import shorten
from zejzl.messages import FinishReason, Request
from zejzl.providers.adapter import Adapter, Reader, tokens
from zejzl.providers.transport import Json
from zejzl.settings import Secret

_REFUSALS = (
    "SAFETY",
    "RECITATION",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
)
_FINISH: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(_REFUSALS, "content_filter"),
}


_ANSWER_TOKENS = ("candidatesTokenCount", "thoughtsTokenCount")


class GeminiReader(Reader):
    def whole(self, answer: Json) -> None:
        if not answer.get("candidates") and not answer.get("promptFeedback"):
            raise self.malformed("it has no candidates")
        self.piece(answer)

    def piece(self, event: Json) -> str:
        usage = event.get("usageMetadata")
        if isinstance(usage, dict):
            # Thoughts are billed as part of the answer, and counted apart from it.
            spent = [tokens(usage.get(name)) for name in _ANSWER_TOKENS]
            known = [count for count in spent if count is not None]
            self.count(usage.get("promptTokenCount"), sum(known) if known else None)
        self.name(event.get("modelVersion"))
        if isinstance(event.get("responseId"), str):  # there is no header for it
            self.call_id = self.call_id or shorten(event["responseId"])
        feedback = event.get("promptFeedback")
        if isinstance(feedback, dict) and isinstance(feedback.get("blockReason"), str):
            self.refuse(feedback["blockReason"], feedback.get("blockReasonMessage"))
            return ""
        candidates = event.get("candidates", [])
        if not isinstance(candidates, list):
            raise self.malformed("its candidates are no list")
        return self._candidate(candidates[0]) if candidates else ""

    def _candidate(self, candidate: object) -> str:
        if not isinstance(candidate, dict):
            raise self.malformed("its candidate is no object")
        content = candidate.get("content") or {}
        parts = content.get("parts") or [] if isinstance(content, dict) else None
        if not isinstance(parts, list):
            raise self.malformed("its content has no parts")
        texts = [
            self.keep(part.get("text"))
            for part in parts
            if isinstance(part, dict) and not part.get("thought")
        ]
        finish = candidate.get("finishReason")
        self.stop(None if finish == "FINISH_REASON_UNSPECIFIED" else finish, _FINISH)
        return "".join(texts)


class Gemini(Adapter):
    """generateContent at `base_url`, which has no version at its end."""

    def __init__(
        self,
        base_url: str = "https://generativelanguage.googleapis.com",
        api_key: str | Secret = "",
        model: str = "",
        *,
        name: str = "gemini",
        connect_timeout: float | None = 5.0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            base_url, api_key, model, name=name, connect_timeout=connect_timeout, clock=clock
        )

    def headers(self, api_key: str) -> dict[str, str]:
        return {"x-goog-api-key": api_key} if api_key else {}

    def url(self, model: str, *, stream: bool) -> URL:
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return self._http.url(f"/v1beta/models/{quote(model, safe='')}:{verb}")

    def body(self, request: Request, model: str, *, stream: bool) -> Json:
        system = [turn.content for turn in request.history if turn.role == "system"]
        if request.system is not None:
            system.insert(0, request.system)
        contents = [
            {"role": "model" if turn.role == "assistant" else "user", "parts": _text(turn.content)}
            for turn in request.history
            if turn.role != "system"
        ]
        contents.append({"role": "user", "parts": _text(request.content)})
        body: Json = {"contents": contents}
        if system:
            body["systemInstruction"] = {"parts": _text("\n\n".join(system))}
        config: Json = {}
        if request.max_tokens is not None:
            config["maxOutputTokens"] = request.max_tokens
        if request.temperature is not None:
            config["temperature"] = request.temperature
        if config:
            body["generationConfig"] = config
        return body

    def reader(self, model: str) -> Reader:
        return GeminiReader(self.name, model)


def _text(text: str) -> list[Json]:
    return [{"text": text}]
