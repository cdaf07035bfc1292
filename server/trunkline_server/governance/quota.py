"""Quotas of providers' accounts, learnt from the headers of their answers.

Sources of the header names and of their forms, as the vendors document them:
- x-ratelimit-{limit,remaining,reset}-{requests,tokens}: OpenAI's and many that follow it. A reset
  is a duration such as "6m0s", "1s" or "12ms", with some a plain number of seconds.
- anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}:
  Anthropic's. A reset is a moment in RFC 3339.
- retry-after (RFC 9110: seconds, or an HTTP date) and retry-after-ms (milliseconds).
Any provider may send any of them; the names of providers play no part here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
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
)
# What is told without a moment of renewal is believed for this long, in seconds.
_DEFAULT_RESET = 60.0
# No account is kept away from for longer, whatever its headers say.
_MAX_RESET = 86400.0
_MAX_ACCOUNTS = 10_000


@dataclass(slots=True)
class Remaining:
    """What an account had left when it last told, until `resets` (monotonic seconds).

    `amount` goes down by what is sent meanwhile; it can be below zero.
    """

    amount: float
    resets: float


def parse_quota(
    headers: Mapping[str, str], now: float, wall: float
) -> tuple[dict[str, Remaining], float | None]:
    """What an answer tells: what is left by kind, and the moment before which nothing should
    be sent, if it names one. `headers` have lower-case names; moments are monotonic seconds.

    Headers that cannot be understood are passed over.
    """
    kinds: dict[str, Remaining] = {}
    for kind, remaining, reset in _HEADERS:
        amount = _number(headers.get(remaining))
        if amount is None:
            continue
        seconds = _seconds_until(headers.get(reset), wall)
        until = now + (_DEFAULT_RESET if seconds is None else seconds)
        kinds[kind] = Remaining(amount, until)
    return kinds, _retry_at(headers, now, wall)


class QuotaTable:
    """What is known of each account, by any name the caller gives it. Synchronous, in memory."""

    def __init__(self) -> None:
        self._accounts: dict[str, dict[str, Remaining]] = {}
        self._closed: dict[str, float] = {}

    def learn(self, account: str, headers: Mapping[str, str], now: float, wall: float) -> None:
        """Takes note of the headers of an answer, also of one that refuses."""
        kinds, retry_at = parse_quota(headers, now, wall)
        if kinds:
            if account not in self._accounts and len(self._accounts) >= _MAX_ACCOUNTS:
                self._accounts.clear()
            self._accounts.setdefault(account, {}).update(kinds)
        if retry_at is not None:
            if len(self._closed) >= _MAX_ACCOUNTS:
                self._closed.clear()
            self._closed[account] = max(retry_at, self._closed.get(account, 0.0))

    def sent(self, account: str, input_tokens: int, output_tokens: int) -> None:
        """Counts a request that was sent and whose answer has not told yet."""
        kinds = self._accounts.get(account)
        if kinds is None:
            return
        for kind, need in _needs(input_tokens, output_tokens):
            known = kinds.get(kind)
            if known is not None:
                known.amount -= need

    def admits_at(self, account: str, input_tokens: int, output_tokens: int, now: float) -> float:
        """The moment from which the account is believed to have room: `now` or earlier if it
        has, later if it is better passed over until then."""
        free = self._closed.get(account, now)
        kinds = self._accounts.get(account)
        if kinds is None:
            return free
        for kind, need in _needs(input_tokens, output_tokens):
            known = kinds.get(kind)
            if known is not None and known.amount < need and known.resets > free:
                free = known.resets
        return free

    def admits(self, account: str, input_tokens: int, output_tokens: int, now: float) -> bool:
        """Whether a request may be sent without being refused, as far as is known."""
        return self.admits_at(account, input_tokens, output_tokens, now) <= now


def _needs(input_tokens: int, output_tokens: int) -> tuple[tuple[str, int], ...]:
    return (
        ("requests", 1),
        ("tokens", input_tokens + output_tokens),
        ("input_tokens", input_tokens),
        ("output_tokens", output_tokens),
    )


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if isfinite(value) and value >= 0.0 else None


def _seconds_until(text: str | None, wall: float) -> float | None:
    """Seconds from a duration, a number of seconds or a moment; None if it is none of them."""
    if not text:
        return None
    text = text.strip()
    seconds = _number(text)
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


def _retry_at(headers: Mapping[str, str], now: float, wall: float) -> float | None:
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return now + min(milliseconds / 1000.0, _MAX_RESET)
    seconds = _seconds_until(headers.get("retry-after"), wall)
    return None if seconds is None else now + seconds
