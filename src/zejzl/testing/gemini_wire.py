"""Gemini's wire format: generateContent and streamGenerateContent.

It has no request id header: the `responseId` of a good answer is all there is. A stream has no end
mark either; the finish reason is its end.

Sources: https://ai.google.dev/api/generate-content, …/docs/troubleshooting, google.rpc's error
details, the types of google-genai 3.4; the words of the errors as users report them.
"""

from collections.abc import Mapping, Sequence

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

RPC = "type.googleapis.com/google.rpc."
BAD_KEY = "API key not valid. Please pass a valid API key."
OVER_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more "
    "information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits."
)


class GeminiWire:
    """`POST …/v1beta/models/{model}:generateContent` and `:streamGenerateContent?alt=sse`."""

    name: WireName = "gemini"
    continues = True

    # Status and message of each.
    errors: Mapping[Kind, tuple[int, str]] = {
        "auth": (400, BAD_KEY),
        "bad_request": (400, "Request contains an invalid argument."),
        "content_filtered": (400, "The input was blocked for its content."),
        "context_overflow": (
            400,
            "The input token count (1048577) exceeds the maximum number of tokens allowed "
            "(1048576).",
        ),
        "failed": (500, "An internal error has occurred. Please retry or report the problem."),
        "forbidden": (403, "The caller does not have permission"),
        "not_found": (
            404,
            "models/{model} is not found for API version v1beta, or is not supported for "
            "generateContent. Call ListModels to see the list of available models.",
        ),
        "overloaded": (503, "The model is overloaded. Please try again later."),
        "quota_exhausted": (429, OVER_QUOTA),
        "rate_limited": (429, OVER_QUOTA),
    }
    states: Mapping[int, str] = {
        400: "INVALID_ARGUMENT",
        401: "UNAUTHENTICATED",
        402: "FAILED_PRECONDITION",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        409: "ABORTED",
        429: "RESOURCE_EXHAUSTED",
        499: "CANCELLED",
        501: "UNIMPLEMENTED",
        503: "UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
    }
    finishes: Mapping[str, str] = {
        "stop": "STOP",
        "length": "MAX_TOKENS",
        "content_filter": "SAFETY",
    }

    def problem(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Refusal | None:
        if "x-goog-api-key" in headers or "key" in query:
            return None
        message = (
            "Method doesn't allow unregistered callers (callers without established identity). "
            "Please use API Key or other form of API consumer identity to call this API."
        )
        return Refusal(name="rejected: no API key", kind="forbidden", message=message)

    def ask(self, call: Call) -> Refusal | None:
        contents = call.body.get("contents")
        config = call.body.get("generationConfig")
        limit = config.get("maxOutputTokens") if isinstance(config, dict) else None
        if not isinstance(contents, list) or not contents:
            return invalid("* GenerateContentRequest.contents: contents is not specified\n")
        for content in contents:
            if not isinstance(content, dict) or content.get("role", "user") not in (
                "user",
                "model",
            ):
                return invalid("Please use a valid role: user, model.")
            if not content.get("parts"):
                return invalid("* GenerateContentRequest.contents.parts: contents.parts is empty\n")
        if limit is not None and (whole(limit) or 0) < 1:
            return invalid("* GenerateContentRequest.generation_config.max_output_tokens: positive")
        system = call.body.get("systemInstruction")
        asked = [system, *contents] if isinstance(system, dict) else contents
        call.prompt_tokens = count(*(content.get("parts") for content in asked))
        call.prefill = prefill(contents, "model", "parts")
        call.max_tokens = whole(limit)
        return None

    def headers(self, call: Call) -> dict[str, str]:
        return {}

    def error(self, refusal: Refusal, call: Call) -> ErrorParts:
        usual, message = self.errors[refusal.kind]
        status = refusal.status or usual
        state = self.states.get(status, "INTERNAL" if status >= 500 else "FAILED_PRECONDITION")
        error: Json = {
            "code": status,
            "message": refusal.message or message.format(model=call.model),
            "status": refusal.code or state,
        }
        details = self._details(refusal, status, call)
        if details:
            error["details"] = details
        return status, retry_headers(refusal), {"error": error}

    def error_event(self, refusal: Refusal, call: Call) -> bytes:
        return event(self.error(refusal, call)[2])

    def plain(self, answer: Answer, words: Sequence[str], call: Call) -> Frames:
        return split(self._response(answer, PLACE if words else "", call, len(words)), words)

    def stream(self, answer: Answer, words: Sequence[str], call: Call) -> Frames:
        unsaid = Answer(finish=None)
        each, garbled = around(event(self._response(unsaid, PLACE, call, None)), words)
        finish = b""
        if answer.finish is not None:
            finish = event(self._response(answer, "", call, len(words)))
        return Frames(b"", each, finish, b"", garbled)

    def models(self, names: Sequence[str]) -> Json:
        models = [
            {
                "name": f"models/{name}",
                "version": "001",
                "displayName": name.title(),
                "inputTokenLimit": 1048576,
                "outputTokenLimit": 8192,
                "supportedGenerationMethods": ["generateContent", "countTokens"],
            }
            for name in names
        ]
        return {"models": models}

    def _response(self, answer: Answer, text: str, call: Call, answered: int | None) -> Json:
        """Return one GenerateContentResponse; `answered` counts words, None does not yet."""
        usage = {"promptTokenCount": call.prompt_tokens}
        if answered is not None and answer.finish != "blocked":
            usage["candidatesTokenCount"] = answered
        usage["totalTokenCount"] = sum(usage.values())
        tail = {"usageMetadata": usage, "modelVersion": call.model, "responseId": call.request_id}
        if answer.finish == "blocked":
            return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **tail}
        content: Json = {"parts": [{"text": text}]} if text else {}
        candidate: Json = {"content": {**content, "role": "model"}, "index": 0}
        if answer.finish is not None:
            candidate["finishReason"] = self.finishes[answer.finish]
        return {"candidates": [candidate], **tail}

    def _details(self, refusal: Refusal, status: int, call: Call) -> list[Json]:
        match refusal.kind:
            case "auth" if status == 400:
                reason = {
                    "@type": f"{RPC}ErrorInfo",
                    "reason": "API_KEY_INVALID",
                    "domain": "googleapis.com",
                    "metadata": {"service": "generativelanguage.googleapis.com"},
                }
                words = {"@type": f"{RPC}LocalizedMessage", "locale": "en-US", "message": BAD_KEY}
                return [reason, words]
            case "quota_exhausted" | "rate_limited" if status == 429:
                period = "Minute" if refusal.kind == "rate_limited" else "Day"
                service = "generativelanguage.googleapis.com"
                violation = {
                    "quotaMetric": f"{service}/generate_content_free_tier_requests",
                    "quotaId": f"GenerateRequestsPer{period}PerProjectPerModel-FreeTier",
                    "quotaDimensions": {"location": "global", "model": call.model},
                    "quotaValue": "15" if refusal.kind == "rate_limited" else "250",
                }
                quota = {"@type": f"{RPC}QuotaFailure", "violations": [violation]}
                return [quota, *_retry_info(refusal)]
        return _retry_info(refusal)


def _retry_info(refusal: Refusal) -> list[Json]:
    if refusal.retry_after is None:
        return []
    return [{"@type": f"{RPC}RetryInfo", "retryDelay": f"{refusal.retry_after:g}s"}]
