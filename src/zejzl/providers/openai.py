"""OpenAI's chat completions, and everybody who speaks that wire.

Source: https://platform.openai.com/docs/api-reference/chat
"""

from yarl import URL

from zejzl.clock import Clock
from zejzl.errors import ProviderError, ProviderOverloaded, ServerError
from zejzl.messages import FinishReason, Request
from zejzl.providers.adapter import Adapter, Reader
from zejzl.providers.transport import Json
from zejzl.settings import Secret

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "model_context_window_exceeded": "length",  # Z.ai
    "content_filter": "content_filter",
    "sensitive": "content_filter",  # Z.ai
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}

_BREAKS: dict[str, type[ProviderError]] = {
    "insufficient_system_resource": ProviderOverloaded,  # DeepSeek
    "network_error": ServerError,  # Z.ai
}


class OpenAIReader(Reader):
    def whole(self, answer: Json) -> None:
        choice = self._choice(answer)
        if choice is None:
            raise self.malformed("it has no choices")
        message = choice.get("message")
        if not isinstance(message, dict):
            raise self.malformed("its choice has no message")
        self._take(choice, message)

    def piece(self, event: Json) -> str:
        choice = self._choice(event)
        if choice is None:
            return ""
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            # A server that ignores `stream` sends its plain answer instead.
            delta = choice.get("message")
        if not isinstance(delta, dict):
            raise self.malformed("its choice has no delta")
        return self._take(choice, delta)

    def _choice(self, body: Json) -> Json | None:
        usage = body.get("usage")
        if isinstance(usage, dict):
            self.count(usage.get("prompt_tokens"), usage.get("completion_tokens"))
        self.name(body.get("model"))
        choices = body.get("choices")
        if not isinstance(choices, list):
            raise self.malformed("it has no choices")
        if not choices:
            return None
        if not isinstance(choices[0], dict):
            raise self.malformed("its choice is no object")
        return choices[0]

    def _take(self, choice: Json, message: Json) -> str:
        refusal, finish = message.get("refusal"), choice.get("finish_reason")
        if isinstance(refusal, str) and refusal:
            self.refuse("refusal", refusal)
        text = self.keep(message.get("content"))
        if isinstance(finish, str) and finish in _BREAKS:
            raise self.failure(_BREAKS[finish], f"the answer broke off: {finish}", finish)
        self.stop(finish, _FINISH)
        return text


class OpenAICompatible(Adapter):
    """Chat completions at `base_url`, which ends in `/v1` as the SDK takes it.

    Args:
        max_tokens_field: What the server calls the limit of an answer.
    """

    def __init__(
        self,
        base_url: str = "https://api.openai.com/v1",
        api_key: str | Secret = "",
        model: str = "",
        *,
        name: str = "chatgpt",
        max_tokens_field: str = "max_tokens",
        connect_timeout: float | None = 5.0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            base_url, api_key, model, name=name, connect_timeout=connect_timeout, clock=clock
        )
        self._max_tokens_field = max_tokens_field
        self._url = self._http.url("/chat/completions")

    def headers(self, api_key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    def url(self, model: str, *, stream: bool) -> URL:
        return self._url

    def body(self, request: Request, model: str, *, stream: bool) -> Json:
        messages = [{"role": turn.role, "content": turn.content} for turn in request.history]
        if request.system is not None:
            messages.insert(0, {"role": "system", "content": request.system})
        messages.append({"role": "user", "content": request.content})
        body: Json = {"model": model, "messages": messages}
        if request.max_tokens is not None:
            body[self._max_tokens_field] = request.max_tokens
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    def reader(self, model: str) -> Reader:
        return OpenAIReader(self.name, model)
