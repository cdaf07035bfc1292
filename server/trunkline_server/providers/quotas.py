"""What vendors tell of their own limits, in the headers of their answers.

Sources of the header names and of their forms, as the vendors document them and as recorded
answers have them:
- x-ratelimit-remaining-{requests,tokens} with x-ratelimit-reset-{requests,tokens}: OpenAI's,
  Azure's, and many that follow them. A reset is a duration such as "6m0s", "1s" or "12ms", with
  some a plain number of seconds.
- anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{remaining,reset}: Anthropic's.
  A reset is a moment in RFC 3339.
- x-ratelimit-remaining and x-ratelimit-reset, of requests: hosts of open models. A reset is a
  number of seconds, or a moment as seconds or milliseconds since the Unix epoch.
- x-ratelimit-remaining-{requests-day,tokens-minute} likewise: Cerebras.
Any provider may send any of them; the names of providers play no part here.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite

_DURATION = re.compile(
    r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
)
_DURATION_UNITS = (86400.0, 3600.0, 60.0, 1.0, 0.001)
# Header names of what is left and of when it is whole again, by kind.
_HEADERS = (
    ("requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("requests", "anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("tokens", "anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    (
        "input_tokens",
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-input-tokens-reset",
    ),
    (
        "output_tokens",
        "anthropic-ratelimit-output-tokens-remaining",
        "anthropic-ratelimit-output-tokens-reset",
    ),
    ("requests", "x-ratelimit-remaining", "x-ratelimit-reset"),
    ("requests", "x-ratelimit-remaining-requests-day", "x-ratelimit-reset-requests-day"),
    ("tokens", "x-ratelimit-remaining-tokens-minute", "x-ratelimit-reset-tokens-minute"),
)
# What is told without a moment of renewal is believed for this long, in seconds.
_DEFAULT_RESET = 60.0
# No deployment is kept away from for longer, whatever its headers say.
_MAX_RESET = 86400.0
# A number from here on is a moment since the Unix epoch, in seconds, or in milliseconds.
_MOMENTS, _MOMENTS_MS = 1e9, 1e12


def told_quotas(headers: Mapping[str, str], wall: float) -> dict[str, tuple[float, float]]:
    """What is left by kind (requests, tokens, input_tokens, output_tokens), and the seconds
    until it is whole again. `headers` have lower-case names; `wall` is Unix seconds.

    Headers that cannot be understood are passed over; of two that tell of a kind counts the
    one with less.
    """
    told: dict[str, tuple[float, float]] = {}
    for kind, remaining, reset in _HEADERS:
        text = headers.get(remaining)
        if text is None:
            continue
        amount = _number(text)
        if amount is None:
            continue
        seconds = _seconds_until(headers.get(reset), wall)
        before = told.get(kind)
        if before is None or amount < before[0]:
            told[kind] = (amount, _DEFAULT_RESET if seconds is None else seconds)
    return told


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) and value >= 0.0 else None


def _seconds_until(text: str | None, wall: float) -> float | None:
    """Seconds from a duration, a number of seconds or a moment; None if it is none of them."""
    if not text:
        return None
    text = text.strip()
    seconds = _number(text)
    if seconds is not None and seconds >= _MOMENTS:
        seconds = (seconds / 1000.0 if seconds >= _MOMENTS_MS else seconds) - wall
    if seconds is None and (match := _DURATION.fullmatch(text)) and text:
        parts = zip(match.groups(), _DURATION_UNITS, strict=True)
        seconds = sum(float(part) * unit for part, unit in parts if part)
    if seconds is None and (moment := _moment(text)) is not None:
        seconds = moment - wall
    return None if seconds is None else min(max(seconds, 0.0), _MAX_RESET)


def _moment(text: str) -> float | None:
    """Unix seconds of a moment in RFC 3339 or of an HTTP date."""
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = parse(text)
        except ValueError:
            continue
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None
