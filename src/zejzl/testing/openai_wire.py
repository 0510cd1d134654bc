"""OpenAI's wire format: chat completions.

Sources: https://platform.openai.com/docs/api-reference/chat, …/docs/guides/rate-limits, the types
of openai 3.54; the words of the errors as users report them.
"""

from collections.abc import Mapping, Sequence
from math import ceil

from zejzl.testing.behaviours import Answer, Call, Kind, Refusal, WireName
from zejzl.testing.wires import (
    CREATED,
    PLACE,
    ErrorParts,
    Frames,
    Json,
    around,
    count,
    event,
    invalid,
    prefill,
    retry_headers,
    split,
    whole,
)


class OpenAIWire:
    """`POST …/v1/chat/completions`."""

    name: WireName = "openai"
    continues = False

    # Status, type, code, param and message of each.
    errors: Mapping[Kind, tuple[int, str, str | None, str | None, str]] = {
        "auth": (
            401,
            "invalid_request_error",
            "invalid_api_key",
            None,
            "Incorrect API key provided: sk-****. You can find your API key at "
            "https://platform.openai.com/account/api-keys.",
        ),
        "bad_request": (400, "invalid_request_error", None, None, "Invalid request."),
        "content_filtered": (
            400,
            "invalid_request_error",
            "content_filter",
            "prompt",
            "The response was filtered due to the prompt triggering the content management policy. "
            "Please modify your prompt and retry.",
        ),
        "context_overflow": (
            400,
            "invalid_request_error",
            "context_length_exceeded",
            "messages",
            "This model's maximum context length is 8192 tokens. However, your messages resulted "
            "in 9001 tokens. Please reduce the length of the messages.",
        ),
        "failed": (
            500,
            "server_error",
            None,
            None,
            "The server had an error while processing your request. Sorry about that!",
        ),
        "forbidden": (
            403,
            "invalid_request_error",
            "unsupported_country_region_territory",
            None,
            "Country, region, or territory not supported",
        ),
        "not_found": (
            404,
            "invalid_request_error",
            "model_not_found",
            None,
            "The model `{model}` does not exist or you do not have access to it.",
        ),
        "overloaded": (
            503,
            "service_unavailable_error",
            "server_is_overloaded",
            None,
            "Our servers are currently overloaded. Please try again later.",
        ),
        "quota_exhausted": (
            429,
            "insufficient_quota",
            "insufficient_quota",
            None,
            "You exceeded your current quota, please check your plan and billing details. For more "
            "information on this error, read the docs: "
            "https://platform.openai.com/docs/guides/error-codes/api-errors.",
        ),
        "rate_limited": (
            429,
            "requests",
            "rate_limit_exceeded",
            None,
            "Rate limit reached for {model} in organization org-zejzl on requests per min (RPM): "
            "Limit 3, Used 3, Requested 1.",
        ),
    }
    finishes: Mapping[str, str] = {
        "stop": "stop",
        "length": "length",
        "content_filter": "content_filter",
        "blocked": "content_filter",
    }
    roles = ("system", "assistant", "user", "function", "tool", "developer")

    def problem(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Refusal | None:
        if headers.get("authorization", "").lower().startswith("bearer ") or "api-key" in headers:
            return None
        message = (
            "You didn't provide an API key. You need to provide your API key in an Authorization "
            "header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
        return Refusal(name="rejected: no API key", kind="auth", code="", message=message)

    def ask(self, call: Call) -> Refusal | None:
        messages = call.body.get("messages")
        limit = call.body.get("max_completion_tokens", call.body.get("max_tokens"))
        if not call.model:
            return invalid("you must provide a model parameter")
        if not isinstance(messages, list):
            return invalid("Missing required parameter: 'messages'.")
        if not messages:
            return invalid(
                "Invalid 'messages': empty array. Expected an array with minimum length 1, "
                "but got an empty array instead."
            )
        for place, message in enumerate(messages):
            if not isinstance(message, dict) or message.get("role") not in self.roles:
                return invalid(f"Invalid value for 'messages[{place}].role'.")
        if limit is not None and (whole(limit) or 0) < 1:
            return invalid("Invalid 'max_tokens': integer below minimum value.")
        call.max_tokens = whole(limit)
        call.prefill = prefill(messages, "assistant", "content")
        call.prompt_tokens = count(*(message.get("content") for message in messages))
        return None

    def headers(self, call: Call) -> dict[str, str]:
        own = {"x-request-id": f"req_{call.request_id}", "openai-version": "2020-10-01"}
        for what, allowed in call.allowances.items():
            own[f"x-ratelimit-limit-{what}"] = str(allowed.limit)
            own[f"x-ratelimit-remaining-{what}"] = str(allowed.remaining)
            own[f"x-ratelimit-reset-{what}"] = _duration(allowed.reset)
        return own

    def error(self, refusal: Refusal, call: Call) -> ErrorParts:
        status, type_, code, param, message = self.errors[refusal.kind]
        body = {
            "message": refusal.message or message.format(model=call.model),
            "type": type_,
            "param": param,
            "code": code if refusal.code is None else refusal.code or None,
        }
        headers = retry_headers(refusal)
        if refusal.kind == "rate_limited" and not call.allowances:
            headers |= {"x-ratelimit-limit-requests": "3", "x-ratelimit-remaining-requests": "0"}
        return refusal.status or status, headers, {"error": body}

    def error_event(self, refusal: Refusal, call: Call) -> bytes:
        return event(self.error(refusal, call)[2])

    def plain(self, answer: Answer, words: Sequence[str], call: Call) -> Frames:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": PLACE, "refusal": None},
            "logprobs": None,
            "finish_reason": answer.finish and self.finishes[answer.finish],
        }
        body = self._shell(call, "chat.completion")
        return split({**body, "choices": [choice], "usage": _usage(call, words)}, words)

    def stream(self, answer: Answer, words: Sequence[str], call: Call) -> Frames:
        shell = self._shell(call, "chat.completion.chunk")
        options = call.body.get("stream_options")
        counted = isinstance(options, dict) and options.get("include_usage") is True
        extra: Json = {"usage": None} if counted else {}

        def chunk(delta: Json, finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return event({**shell, "choices": [choice], **extra})

        each, garbled = around(chunk({"content": PLACE}), words)
        finish = b""
        if answer.finish is not None:
            finish = chunk({}, self.finishes[answer.finish])
            if counted:
                usage = _usage(call, words)
                finish += event({**shell, "choices": [], "usage": usage})
        head = chunk({"role": "assistant", "content": "", "refusal": None})
        return Frames(head, each, finish, b"data: [DONE]\n\n", garbled)

    def models(self, names: Sequence[str]) -> Json:
        data = [
            {"id": name, "object": "model", "created": CREATED, "owned_by": "zejzl"}
            for name in names
        ]
        return {"object": "list", "data": data}

    def _shell(self, call: Call, kind: str) -> Json:
        return {
            "id": f"chatcmpl-{call.request_id}",
            "object": kind,
            "created": CREATED,
            "model": call.model,
            "service_tier": "default",
            "system_fingerprint": "fp_zejzl",
        }


def _duration(seconds: float) -> str:
    """Return seconds as Go writes them: "12ms", "1.5s", "6m0s"."""
    milliseconds = ceil(seconds * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{whole}{rest / 1000:g}s"


def _usage(call: Call, words: Sequence[str]) -> Json:
    asked, answered = call.prompt_tokens, len(words)
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
    }
