"""What several dialects share in reading failures: statuses, waiting times, vendor messages."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from trunkline import v1

# The longest pause, in seconds, that a vendor's header is believed to mean.
MAX_RETRY_AFTER = 30 * 86_400.0

_MESSAGE_LENGTH = 500

_REASONS: Mapping[int, v1.ErrorReason.ValueType] = {
    400: v1.ERROR_REASON_INVALID_REQUEST,
    401: v1.ERROR_REASON_AUTHENTICATION,
    402: v1.ERROR_REASON_QUOTA_EXCEEDED,
    403: v1.ERROR_REASON_AUTHORIZATION,
    404: v1.ERROR_REASON_MODEL_NOT_FOUND,
    408: v1.ERROR_REASON_TIMEOUT,
    413: v1.ERROR_REASON_INVALID_REQUEST,
    415: v1.ERROR_REASON_INVALID_REQUEST,
    422: v1.ERROR_REASON_INVALID_REQUEST,
    # A service that another one stands on has failed: TGI's model, a gateway's vendor.
    424: v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    429: v1.ERROR_REASON_RATE_LIMIT,
    # Portkey: its guardrails have refused.
    446: v1.ERROR_REASON_CONTENT_FILTER,
    504: v1.ERROR_REASON_TIMEOUT,
    # Cloudflare, which stands before several vendors: the origin did not answer in time.
    522: v1.ERROR_REASON_TIMEOUT,
    524: v1.ERROR_REASON_TIMEOUT,
}

# Credentials as vendors print them, whole or partly masked, when they complain of them.
_CREDENTIAL = re.compile(
    r"\b(?:sk|pk|gsk|csk|xai|hf|vck|tgp)[-_][\w*.-]{6,}"
    r"|\bAIza[\w*-]{8,}|\bya29\.[\w*.-]+|\beyJ[\w-]{8,}\.[\w.-]+"
    r"|(?i:\bbearer)\s+[\w*.~+/=-]{6,}"
)
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,9})?", re.ASCII)


def reason_for_status(status: int) -> v1.ErrorReason.ValueType:
    """What a non-2xx status means when the body tells no more."""
    reason = _REASONS.get(status)
    if reason is not None:
        return reason
    if 500 <= status <= 599:
        return v1.ERROR_REASON_SERVICE_UNAVAILABLE
    return v1.ERROR_REASON_UNKNOWN


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """The pause that `retry-after-ms` or `retry-after` asks for, in seconds.

    Header names are lower case. A date is measured from the answer's own `date` header, so
    that no clock is needed. None when there is neither, or when it makes no sense.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return _sane(milliseconds / 1000)
    value = headers.get("retry-after", "")
    seconds = _number(value)
    if seconds is None and "date" in headers:
        seconds = _seconds_between(headers["date"], value)
    return None if seconds is None else _sane(seconds)


def shorten(message: str) -> str:
    """A vendor's message for people: on one line, at most 500 characters, credentials struck."""
    line = _CREDENTIAL.sub("[redacted]", " ".join(message.split()))
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= _MESSAGE_LENGTH else line[: _MESSAGE_LENGTH - 1] + "…"


def _number(text: str) -> float | None:
    # Digits only: float() would also take "nan", "1e999" and "1_0".
    match = _NUMBER.fullmatch(text.strip())
    return float(match[0]) if match else None


def _seconds_between(start: str, end: str) -> float | None:
    try:
        return (parsedate_to_datetime(end) - parsedate_to_datetime(start)).total_seconds()
    except (TypeError, ValueError):
        return None  # Not dates, or one of them without its zone.


def _sane(seconds: float) -> float | None:
    return max(seconds, 0.0) if seconds <= MAX_RETRY_AFTER else None
