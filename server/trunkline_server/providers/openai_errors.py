"""Reads failures in the OpenAI dialect, of OpenAI and of the hosts that speak it.

Each host spells the same failure in its own way: by a code, a type or, where there is neither,
by a sentence. The codes and sentences are those by which the hosts' failures are commonly known.
Recorded answers (tests/corpus/test_openai.py) confirm the shapes of OpenAI, Azure OpenAI,
OpenRouter, Groq and xAI, and of the words below `invalid_api_key`, `model_not_found`,
`deploymentnotfound`, "violates usage guidelines", "is not supported in this model" and "no
endpoints found that support". The other words, and what is said of other hosts, are unproven.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError, Violation
from trunkline_server.providers.common import (
    MAX_RETRY_AFTER,
    reason_for_status,
    retry_after_seconds,
    shorten,
)
from trunkline_server.providers.openai_filters import filtered_for

# By the vendor's `code` or `type`, in lower case.
_BY_CODE: Mapping[str, v1.ErrorReason.ValueType] = {
    "invalid_api_key": v1.ERROR_REASON_AUTHENTICATION,
    "invalid_authentication_error": v1.ERROR_REASON_AUTHENTICATION,
    "authentication_error": v1.ERROR_REASON_AUTHENTICATION,
    "context_length_exceeded": v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
    "exceed_context_size_error": v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
    "1261": v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
    "content_filter": v1.ERROR_REASON_CONTENT_FILTER,
    "content_policy_violation": v1.ERROR_REASON_CONTENT_FILTER,
    "responsibleaipolicyviolation": v1.ERROR_REASON_CONTENT_FILTER,
    "image_content_policy_violation": v1.ERROR_REASON_CONTENT_FILTER,
    "data_inspection_failed": v1.ERROR_REASON_CONTENT_FILTER,
    "1301": v1.ERROR_REASON_CONTENT_FILTER,
    "insufficient_quota": v1.ERROR_REASON_QUOTA_EXCEEDED,
    "exceeded_current_quota_error": v1.ERROR_REASON_QUOTA_EXCEEDED,
    "billing_hard_limit_reached": v1.ERROR_REASON_QUOTA_EXCEEDED,
    "billing_not_active": v1.ERROR_REASON_QUOTA_EXCEEDED,
    "1113": v1.ERROR_REASON_QUOTA_EXCEEDED,
    "arrearage": v1.ERROR_REASON_QUOTA_EXCEEDED,
    "model_not_found": v1.ERROR_REASON_MODEL_NOT_FOUND,
    "deploymentnotfound": v1.ERROR_REASON_MODEL_NOT_FOUND,
    # Mistral and Perplexity; Groq; Hugging Face; Z.AI.
    "invalid_model": v1.ERROR_REASON_MODEL_NOT_FOUND,
    "model_decommissioned": v1.ERROR_REASON_MODEL_NOT_FOUND,
    "model_not_supported": v1.ERROR_REASON_MODEL_NOT_FOUND,
    "1211": v1.ERROR_REASON_MODEL_NOT_FOUND,
    "rate_limit_exceeded": v1.ERROR_REASON_RATE_LIMIT,
    "rate_limit_error": v1.ERROR_REASON_RATE_LIMIT,
    "1302": v1.ERROR_REASON_RATE_LIMIT,
    "permission_denied": v1.ERROR_REASON_AUTHORIZATION,
    "server_error": v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    "internal_server_error": v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    "overloaded_error": v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    "service_unavailable": v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    # TGI, with status 424 and 500.
    "generation": v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    "incomplete_generation": v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    # Failed responses of the Responses API, by OpenAI's OpenAPI document (ResponseErrorCode).
    "vector_store_timeout": v1.ERROR_REASON_TIMEOUT,
    **dict.fromkeys(
        (
            "empty_image_file",
            "failed_to_download_image",
            "image_file_not_found",
            "image_file_too_large",
            "image_parse_error",
            "image_too_large",
            "image_too_small",
            "invalid_base64_image",
            "invalid_image",
            "invalid_image_format",
            "invalid_image_mode",
            "invalid_image_url",
            "unsupported_image_media_type",
        ),
        v1.ERROR_REASON_INVALID_REQUEST,
    ),
}
# The same for classes of failure so wide that a sentence may say more.
_BY_WIDE_TYPE: Mapping[str, v1.ErrorReason.ValueType] = {
    "invalid_request_error": v1.ERROR_REASON_INVALID_REQUEST,
    "invalidrequesterror": v1.ERROR_REASON_INVALID_REQUEST,
    "badrequesterror": v1.ERROR_REASON_INVALID_REQUEST,
    "validation": v1.ERROR_REASON_INVALID_REQUEST,
    # Of a failed response; mostly a prompt that was flagged, which a sentence says then.
    "invalid_prompt": v1.ERROR_REASON_INVALID_REQUEST,
}
# By a sentence, for hosts that send no code. Each names who is known to write so.
_BY_MESSAGE: tuple[tuple[re.Pattern[str], v1.ErrorReason.ValueType], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (
            # OpenAI, DeepSeek, vLLM, OpenRouter; xAI; Mistral; llama.cpp; Moonshot; Anthropic's
            # models behind gateways; Together; TGI.
            r"maximum (?:context|prompt) length|context (?:length|window)|context_length"
            r"|context size|exceeded model token limit|prompt is too long|input is too long"
            r"|tokens`? \+ `?max_(?:new_)?tokens|`inputs` must have less than",
            v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
        ),
        (
            # Azure; xAI; OpenRouter's moderation.
            r"content management policy|violates? usage guidelines|flagged (?:by|as)"
            r"|requires moderation",
            v1.ERROR_REASON_CONTENT_FILTER,
        ),
        (
            # DeepSeek and Z.AI; OpenRouter; xAI.
            r"insufficient (?:account )?balance|insufficient credits|more credits"
            r"|used all (?:available )?credits|spending limit|n't have any credits",
            v1.ERROR_REASON_QUOTA_EXCEEDED,
        ),
        (
            # xAI and Google's compatible API answer so with 400.
            r"incorrect api key|invalid api key|api key not valid",
            v1.ERROR_REASON_AUTHENTICATION,
        ),
        (
            # OpenAI and OpenRouter answer so with 404, though the model exists.
            r"is not supported in this model|no endpoints found that support",
            v1.ERROR_REASON_INVALID_REQUEST,
        ),
        (
            # OpenAI; OpenRouter; vLLM.
            r"\bmodel\b.{0,200}\b(?:does not exist|not found)|is not a valid model",
            v1.ERROR_REASON_MODEL_NOT_FOUND,
        ),
    )
)
# Statuses whose own meaning is certain, whatever the sentence happens to say.
_PLAIN_STATUSES = frozenset({401, 402, 408, 429, 502, 503, 504, 529})

# Statuses of hosts that cannot answer now: TGI's, whose model failed, and Groq's, without room.
_UNAVAILABLE = frozenset({424, 498})

# Where a vendor's parameter stands in the contract.
_FIELDS: Mapping[str, str] = {
    "dimensions": "dimensions",
    "frequency_penalty": "config.frequency_penalty",
    "input": "inputs",
    "max_completion_tokens": "config.max_output_tokens",
    "max_output_tokens": "config.max_output_tokens",
    "max_tokens": "config.max_output_tokens",
    "messages": "messages",
    "model": "model",
    "parallel_tool_calls": "tool_choice.disable_parallel",
    "presence_penalty": "config.presence_penalty",
    "reasoning": "config.reasoning",
    "reasoning_effort": "config.reasoning.effort",
    "response_format": "response_format",
    "seed": "config.seed",
    "stop": "config.stop",
    "temperature": "config.temperature",
    "text": "response_format",
    "thinking": "config.reasoning",
    "tool_choice": "tool_choice",
    "tools": "tools",
    "top_k": "config.top_k",
    "top_p": "config.top_p",
}
_PARAM = re.compile(r"([a-z_]+)(?:\.|\[)?")
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DURATION = re.compile(
    r"(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9}(?:\.\d{1,9})?)ms)?",
    re.ASCII,
)


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """The failure that a non-2xx answer reports."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    return _error(status, status, headers, _Report(document))


def reported_error(document: dict[str, Any]) -> UpstreamError | None:
    """The failure that a body or an event sent with status 200 reports, or None."""
    is_error = document.get("error") or (
        document.get("object") == "error" and "choices" not in document
    )
    if not is_error:
        return None
    report = _Report(document)
    return _error(200, report.status, {}, report)


class _Report:
    """What a vendor says of a failure, wherever it says so."""

    def __init__(self, document: Any) -> None:
        self.message = ""
        self.param = ""
        self.status = 0
        self.codes: list[str] = []
        self.moderated = False
        self.filtered = ""
        self._read(document, depth=0)

    def _read(self, document: Any, depth: int) -> None:
        # Google's compatible API wraps the error in a list; gateways wrap another vendor's
        # error in theirs, as JSON text, and the innermost says most.
        if isinstance(document, list) and document:
            document = document[0]
        if not isinstance(document, dict) or depth > 3:
            return
        error = document.get("error")
        if isinstance(error, str):
            self.message = error
        elif isinstance(error, dict | list):
            self._read(error, depth + 1)
        self._read_fields(document)
        self.filtered = self.filtered or filtered_for(document)
        metadata = document.get("metadata")
        if isinstance(metadata, dict):
            self.moderated |= bool(metadata.get("reasons"))
            self._read_wrapped(metadata.get("raw"), depth)
        self._read(document.get("innererror"), depth + 1)

    def _read_fields(self, document: dict[str, Any]) -> None:
        for name in ("message", "detail", "msg"):
            text = _sentence(document.get(name))
            if text and not self.message:
                self.message = text
        if isinstance(document.get("param"), str):
            self.param = document["param"]
        # TGI has a type beside its sentence.
        for name in ("code", "type", "error_type"):
            code = document.get(name)
            if isinstance(code, str | int):
                self.codes.append(str(code).lower())
        for name in ("status_code", "status", "code", "http_status_code"):
            status = document.get(name)
            if isinstance(status, int) and 400 <= status <= 599 and not self.status:
                self.status = status

    def _read_wrapped(self, raw: Any, depth: int) -> None:
        if not isinstance(raw, str) or not raw:
            return
        try:
            inner = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return  # A sentence of the model's own making: payload, not to be quoted.
        outer, self.message = self.message, ""
        self._read(inner, depth + 1)
        self.message = self.message or outer

    def reason(self, status: int) -> v1.ErrorReason.ValueType:
        """What failed, by the most exact thing said. `status` is 0 when there is none."""
        for code in self.codes:
            if code in _BY_CODE:
                return _BY_CODE[code]
        if self.moderated:
            return v1.ERROR_REASON_CONTENT_FILTER
        if status not in _PLAIN_STATUSES:
            for pattern, reason in _BY_MESSAGE:
                if pattern.search(self.message):
                    return reason
        if status in _UNAVAILABLE:
            return v1.ERROR_REASON_SERVICE_UNAVAILABLE
        if status:
            return reason_for_status(status)
        for code in self.codes:
            if code in _BY_WIDE_TYPE:
                return _BY_WIDE_TYPE[code]
        return v1.ERROR_REASON_SERVICE_UNAVAILABLE


def _sentence(value: Any) -> str:
    """A vendor's message; of a list of complaints, each with its place but without its input."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _sentence(value.get("detail") or value.get("message"))
    if isinstance(value, list):
        complaints = []
        for item in value[:5]:
            if isinstance(item, dict) and isinstance(item.get("msg"), str):
                location = item.get("loc")
                place = ".".join(map(str, location)) if isinstance(location, list) else ""
                complaints.append(f"{place}: {item['msg']}" if place else item["msg"])
        return "; ".join(complaints)
    return ""


def _error(
    http_status: int, status: int, headers: Mapping[str, str], report: _Report
) -> UpstreamError:
    reason = report.reason(status)
    if reason == v1.ERROR_REASON_AUTHENTICATION:
        # Vendors quote the key that they refuse, whole or in part.
        code = next((code for code in report.codes if _CODE.fullmatch(code)), "")
        message = "the provider refused the credentials" + (f" ({code})" if code else "")
    else:
        message = shorten(report.message) or f"the provider answered with status {http_status}"
    if report.filtered:
        message += f" (filtered for {report.filtered})"
    retry_after = retry_after_seconds(headers)
    if retry_after is None and reason == v1.ERROR_REASON_RATE_LIMIT:
        retry_after = _reset_seconds(headers)
    return UpstreamError(
        reason,
        message,
        http_status=http_status,
        retry_after=retry_after,
        violations=_violations(reason, report, message),
        provider_request_id=shorten(
            headers.get("x-request-id") or headers.get("apim-request-id") or ""
        ),
    )


def _violations(
    reason: v1.ErrorReason.ValueType, report: _Report, message: str
) -> tuple[Violation, ...]:
    if reason not in {
        v1.ERROR_REASON_INVALID_REQUEST,
        v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
        v1.ERROR_REASON_MODEL_NOT_FOUND,
    }:
        return ()
    match = _PARAM.match(report.param)
    field = _FIELDS.get(match[1]) if match else None
    return (Violation(field, message),) if field else ()


def _reset_seconds(headers: Mapping[str, str]) -> float | None:
    """When an exhausted limit is free again, by `x-ratelimit-reset-*`, in seconds.

    Of limits that have room left nothing can be said, so they do not count.
    """
    waits = []
    for name, value in headers.items():
        if name.startswith("x-ratelimit-reset-"):
            kind = name.removeprefix("x-ratelimit-reset-")
            if headers.get(f"x-ratelimit-remaining-{kind}", "0") == "0":
                wait = _duration(value)
                if wait is not None:
                    waits.append(wait)
    return max(waits, default=None)


def _duration(text: str) -> float | None:
    """Seconds of a duration in Go's notation, such as "6m0s" or "120ms"."""
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        return None
    hours, minutes, seconds, milliseconds = (float(group or 0) for group in match.groups())
    total = hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    return total if total <= MAX_RETRY_AFTER else None
