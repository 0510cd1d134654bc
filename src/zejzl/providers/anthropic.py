"""Anthropic's messages.

Source: https://docs.anthropic.com/en/api/messages, API version 2023-06-01.
"""

from yarl import URL

from zejzl.clock import Clock
from zejzl.messages import FinishReason, Request
from zejzl.providers.adapter import Adapter, Reader
from zejzl.providers.transport import Json
from zejzl.settings import Secret

MAX_TOKENS = 4096  # the API demands a limit; this one every model on offer accepts

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class AnthropicReader(Reader):
    def whole(self, answer: Json) -> None:
        blocks = answer.get("content")
        if not isinstance(blocks, list):
            raise self.malformed("it has no content")
        self._head(answer)
        for block in blocks:
            if isinstance(block, dict) and block.get("type") == "text":
                self.keep(block.get("text"))
        self._end(answer)

    def piece(self, event: Json) -> str:
        match event.get("type"):
            case "message_start":
                self._head(self._object(event, "message"))
            case "content_block_start":
                block = self._object(event, "content_block")
                return self.keep(block.get("text")) if block.get("type") == "text" else ""
            case "content_block_delta":
                delta = self._object(event, "delta")
                return self.keep(delta.get("text")) if delta.get("type") == "text_delta" else ""
            case "message_delta":
                self._end(self._object(event, "delta"))
                self._counts(event)
            case "message_stop":
                self.done = True
            case "message":  # a server that ignores `stream` sends its plain answer instead
                before = len(self._texts)
                self.whole(event)
                return "".join(self._texts[before:])
        return ""  # ping, content_block_stop, and what later versions add

    def _object(self, event: Json, name: str) -> Json:
        found = event.get(name)
        if not isinstance(found, dict):
            raise self.malformed(f"its {event.get('type')} has no {name}")
        return found

    def _head(self, message: Json) -> None:
        self.name(message.get("model"))
        self._counts(message)

    def _counts(self, body: Json) -> None:
        usage = body.get("usage")
        if isinstance(usage, dict):
            self.count(usage.get("input_tokens"), usage.get("output_tokens"))

    def _end(self, body: Json) -> None:
        stop, details = body.get("stop_reason"), body.get("stop_details")
        if stop == "refusal" and isinstance(details, dict):
            self.refuse("refusal", details.get("explanation") or details.get("category"))
        self.stop(stop, _FINISH)


class Anthropic(Adapter):
    """Messages at `base_url`, which has no version at its end."""

    def __init__(
        self,
        base_url: str = "https://api.anthropic.com",
        api_key: str | Secret = "",
        model: str = "",
        *,
        name: str = "claude",
        connect_timeout: float | None = 5.0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            base_url, api_key, model, name=name, connect_timeout=connect_timeout, clock=clock
        )
        self._url = self._http.url("/v1/messages")

    def headers(self, api_key: str) -> dict[str, str]:
        key = {"x-api-key": api_key} if api_key else {}
        return {"anthropic-version": "2023-06-01", **key}

    def url(self, model: str, *, stream: bool) -> URL:
        return self._url

    def body(self, request: Request, model: str, *, stream: bool) -> Json:
        # The API knows no system role among the messages: those words go where it wants them.
        system = [turn.content for turn in request.history if turn.role == "system"]
        if request.system is not None:
            system.insert(0, request.system)
        messages = [
            {"role": turn.role, "content": turn.content}
            for turn in request.history
            if turn.role != "system"
        ]
        messages.append({"role": "user", "content": request.content})
        body: Json = {
            "model": model,
            "max_tokens": request.max_tokens or MAX_TOKENS,
            "messages": messages,
        }
        if system:
            body["system"] = "\n\n".join(system)
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if stream:
            body["stream"] = True
        return body

    def reader(self, model: str) -> Reader:
        return AnthropicReader(self.name, model)
