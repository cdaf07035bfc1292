"""What one call asks of the simulator: faults, delays and the length of the answer.

A script is written as `key=value` settings joined by `;` or `&`. It is read from, in rising
order of precedence: the server's defaults, the preset that the model's name stands for, the
model's suffix (`sim-large?latency_ms=50`), the URL's query, and the header `x-sim-script`.
The package's docstring holds the table of keys and presets.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

SCRIPT_HEADER = "x-sim-script"

# Faults that strike before the response's headers, those that strike inside the body, and the
# one that ends an answer in good order with the vendor's own mark of a filter.
EARLY_FAULTS = frozenset({"hang", "reset", "close", "garbage", "not-http", "html", "empty"})
MIDSTREAM_FAULTS = frozenset(
    {
        "hang-midstream",
        "reset-midstream",
        "close-midstream",
        "end-midstream",
        "garbage-midstream",
        "error-midstream",
    }
)
FAULTS = EARLY_FAULTS | MIDSTREAM_FAULTS | {"filter"}

# Named failures of the vendor itself; each dialect knows its status and words.
ERRORS = frozenset(
    {
        "authentication",
        "context",
        "filter",
        "model",
        "overloaded",
        "permission",
        "quota",
        "timeout",
    }
)

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "sim-slow": {"latency_ms": 1000.0, "chunk_ms": 100.0},
    "sim-flaky": {"status": 503, "error_rate": 0.5},
    "sim-error-quota": {"error": "quota"},
    "sim-error-context": {"error": "context"},
    "sim-error-filter": {"error": "filter"},
    "sim-error-model": {"error": "model"},
    "sim-error-overloaded": {"error": "overloaded"},
    "sim-filter": {"fault": "filter"},
    "sim-hang": {"fault": "hang"},
    "sim-reset": {"fault": "reset"},
    "sim-close": {"fault": "close"},
    "sim-garbage": {"fault": "garbage"},
    "sim-not-http": {"fault": "not-http"},
    "sim-html": {"fault": "html"},
    "sim-empty": {"fault": "empty"},
    "sim-hang-midstream": {"fault": "hang-midstream"},
    "sim-reset-midstream": {"fault": "reset-midstream"},
    "sim-close-midstream": {"fault": "close-midstream"},
    "sim-end-midstream": {"fault": "end-midstream"},
    "sim-garbage-midstream": {"fault": "garbage-midstream"},
    "sim-error-midstream": {"fault": "error-midstream"},
}

_ERROR_STATUS = re.compile(r"sim-error-([45]\d\d)")
_SEPARATOR = re.compile("[;&]")


class ScriptError(ValueError):
    """A setting that makes no sense; the message names it and what is allowed."""


@dataclass(frozen=True, slots=True)
class Script:
    """How one call is to go. The package's docstring explains each key.

    `retry_after` below zero means none.
    """

    latency_ms: float = 0.0
    chunk_ms: float = 0.0
    tokens: int = 0
    chunk_tokens: int = 4
    status: int = 0
    error: str = ""
    fault: str = ""
    at_chunk: int = 3
    retry_after: float = -1.0
    fail_first: int = 0
    error_rate: float = 0.0
    seed: int = 0
    rpm: int = 0
    redacted: int = 0

    @property
    def may_fail(self) -> bool:
        return bool(self.status or self.error or self.fault)


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"must be from {low:g} to {high:g}")
        return value

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(f"must be from {low} to {high}")
        return value

    return read


def _one_of(words: frozenset[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(sorted(words))}")
        return text

    return read


# A day in milliseconds and in seconds, and as many tokens as anybody streams in a test.
KEYS: Mapping[str, Callable[[str], Any]] = {
    "latency_ms": _number(0, 86_400_000),
    "chunk_ms": _number(0, 86_400_000),
    "tokens": _whole(1, 1_000_000),
    "chunk_tokens": _whole(1, 1_000_000),
    "status": _whole(400, 599),
    "error": _one_of(ERRORS),
    "fault": _one_of(FAULTS),
    "at_chunk": _whole(0, 1_000_000),
    "retry_after": _number(0, 86_400),
    "fail_first": _whole(1, 1_000_000),
    "error_rate": _number(0, 1),
    "seed": _whole(0, 2**63 - 1),
    "rpm": _whole(1, 1_000_000_000),
    "redacted": _whole(0, 1),
}


def parse(text: str) -> dict[str, Any]:
    """The settings of a script's text. Raises ScriptError."""
    settings: dict[str, Any] = {}
    for item in _SEPARATOR.split(text):
        key, equals, value = item.strip().partition("=")
        if not key and not equals:
            continue
        read = KEYS.get(key)
        if read is None:
            raise ScriptError(f"unknown key {key!r} in a script; known are {', '.join(KEYS)}")
        try:
            settings[key] = read(value)
        except ValueError as error:
            raise ScriptError(f"{key}={value!r} in a script: {error}") from None
    return settings


def split_model(model: str) -> tuple[str, str]:
    """The model's name and its suffix, without the question mark between them."""
    name, _, suffix = model.partition("?")
    return name, suffix


def preset(name: str) -> Mapping[str, Any]:
    """The settings that a model's name stands for; none for an ordinary model."""
    found = PRESETS.get(name)
    if found is not None:
        return found
    status = _ERROR_STATUS.fullmatch(name)
    return {"status": int(status[1])} if status else {}


@lru_cache(maxsize=4096)
def resolve(model: str, query: str, header: str, defaults: Script) -> Script:
    """The script of a call: its model with suffix, its query, its header. Raises ScriptError."""
    name, suffix = split_model(model)
    settings = {**preset(name), **parse(suffix), **parse(query), **parse(header)}
    if settings.keys() & {"fail_first", "error_rate"} and not (
        settings.keys() & {"status", "error", "fault"}
    ):
        settings["status"] = 500
    return replace(defaults, **settings) if settings else defaults
