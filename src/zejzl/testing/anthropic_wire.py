"""Anthropic's wire format: messages.

Sources: https://docs.anthropic.com/en/api/messages, …/api/errors, the types of anthropic 2.12; the
words of the errors as users report them.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from zejzl.testing.behaviours import Answer, Call, Kind, Refusal, WireName
from zejzl.testing.wires import (
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


class AnthropicWire:
    """`POST …/v1/messages`."""

    name: WireName = "anthropic"
    continues = True

    # Status and message of each.
    errors: Mapping[Kind, tuple[int, str]] = {
        "auth": (401, "invalid x-api-key"),
        "bad_request": (400, "Invalid request"),
        "content_filtered": (400, "Output blocked by content filtering policy"),
        "context_overflow": (400, "prompt is too long: 208310 tokens > 200000 maximum"),
        "failed": (500, "Internal server error"),
        "forbidden": (403, "Your account does not have access to this resource"),
        "not_found": (404, "model: {model}"),
        "overloaded": (529, "Overloaded"),
        "quota_exhausted": (
            400,
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & "
            "Billing to upgrade or purchase credits.",
        ),
        "rate_limited": (
            429,
            "This request would exceed your organization's rate limit of 50 requests per minute.",
        ),
    }
    types: Mapping[int, str] = {
        400: "invalid_request_error",
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        504: "timeout_error",
        529: "overloaded_error",
    }
    finishes: Mapping[str, str] = {
        "stop": "end_turn",
        "length": "max_tokens",
        "content_filter": "refusal",
        "blocked": "refusal",
    }

    def problem(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Refusal | None:
        bearer = headers.get("authorization", "").lower().startswith("bearer ")
        if "x-api-key" not in headers and not bearer:  # the SDK sends Bearer since its version 2
            message = "x-api-key header is required"
            return Refusal(name="rejected: no API key", kind="auth", message=message)
        if "anthropic-version" not in headers:
            return invalid("anthropic-version: header is required")
        return None

    def ask(self, call: Call) -> Refusal | None:
        messages = call.body.get("messages")
        limit = call.body.get("max_tokens")
        if not call.model:
            return invalid("model: Field required")
        if limit is None:
            return invalid("max_tokens: Field required")
        if (whole(limit) or 0) < 1:
            return invalid("max_tokens: Input should be greater than or equal to 1")
        if not isinstance(messages, list):
            return invalid("messages: Field required")
        if not messages:
            return invalid("messages: at least one message is required")
        for place, message in enumerate(messages):
            if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
                return invalid(f"messages.{place}.role: Input should be 'user' or 'assistant'")
            if not message.get("content"):
                return invalid(f"messages.{place}: text content blocks must be non-empty")
        call.prefill = prefill(messages, "assistant", "content")
        if call.prefill != call.prefill.rstrip():
            return invalid("messages: final assistant content cannot end with trailing whitespace")
        call.max_tokens = whole(limit)
        contents = [message["content"] for message in messages]
        call.prompt_tokens = count(call.body.get("system"), *contents)
        return None

    def headers(self, call: Call) -> dict[str, str]:
        own = {"request-id": f"req_{call.request_id}"}
        for what, allowed in call.allowances.items():
            own[f"anthropic-ratelimit-{what}-limit"] = str(allowed.limit)
            own[f"anthropic-ratelimit-{what}-remaining"] = str(allowed.remaining)
            own[f"anthropic-ratelimit-{what}-reset"] = _time(allowed.until)
        return own

    def error(self, refusal: Refusal, call: Call) -> ErrorParts:
        usual, message = self.errors[refusal.kind]
        status = refusal.status or usual
        type_ = self.types.get(status, "api_error" if status >= 500 else self.types[400])
        error = {
            "type": refusal.code or type_,
            "message": refusal.message or message.format(model=call.model),
        }
        headers = retry_headers(refusal)
        wait = refusal.retry_after
        if refusal.kind == "rate_limited" and wait is not None and not call.allowances:
            free = datetime.now(UTC) + timedelta(seconds=wait)
            headers |= {
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": free.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        body = {"type": "error", "error": error, "request_id": f"req_{call.request_id}"}
        return status, headers, body

    def error_event(self, refusal: Refusal, call: Call) -> bytes:
        return event(self.error(refusal, call)[2], "error")

    def plain(self, answer: Answer, words: Sequence[str], call: Call) -> Frames:
        message = self._message(call)
        message["content"] = [{"type": "text", "text": PLACE}] if words else []
        message |= self._stop(answer)
        message["usage"]["output_tokens"] = len(words)
        return split(message, words)

    def stream(self, answer: Answer, words: Sequence[str], call: Call) -> Frames:
        start = event({"type": "message_start", "message": self._message(call)}, "message_start")
        ping = event({"type": "ping"}, "ping")
        block = {"type": "content_block_start", "index": 0}
        block |= {"content_block": {"type": "text", "text": ""}}
        delta = {"type": "text_delta", "text": PLACE}
        word = {"type": "content_block_delta", "index": 0, "delta": delta}
        each, garbled = around(event(word, "content_block_delta"), words)
        finish = b""
        if answer.finish is not None:
            if words:
                finish = event({"type": "content_block_stop", "index": 0}, "content_block_stop")
            usage = {"output_tokens": len(words)}
            last = {"type": "message_delta", "delta": self._stop(answer), "usage": usage}
            finish += event(last, "message_delta")
        head = start + (event(block, "content_block_start") if words else b"") + ping
        return Frames(head, each, finish, event({"type": "message_stop"}, "message_stop"), garbled)

    def models(self, names: Sequence[str]) -> Json:
        data = [
            {
                "type": "model",
                "id": name,
                "display_name": name.title(),
                "created_at": "2025-10-09T00:00:00Z",
                "lifecycle": "active",
            }
            for name in names
        ]
        return {"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}

    def _message(self, call: Call) -> Json:
        return {
            "id": f"msg_{call.request_id}",
            "type": "message",
            "role": "assistant",
            "model": call.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": call.prompt_tokens,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 1,
            },
        }

    def _stop(self, answer: Answer) -> Json:
        reason = answer.finish and self.finishes[answer.finish]
        stop: Json = {"stop_reason": reason, "stop_sequence": None}
        if reason == "refusal":
            stop["stop_details"] = {"type": "refusal", "category": None, "explanation": None}
        return stop


def _time(seconds: float) -> str:
    """Return a time as RFC 3339 has it: with thousandths, for windows of a second or so."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
