"""The reading of failures that all dialects share."""

import pytest

from trunkline import v1
from trunkline_server.providers import common


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, v1.ERROR_REASON_INVALID_REQUEST),
        (401, v1.ERROR_REASON_AUTHENTICATION),
        (402, v1.ERROR_REASON_QUOTA_EXCEEDED),
        (403, v1.ERROR_REASON_AUTHORIZATION),
        (404, v1.ERROR_REASON_MODEL_NOT_FOUND),
        (408, v1.ERROR_REASON_TIMEOUT),
        (418, v1.ERROR_REASON_UNKNOWN),
        (429, v1.ERROR_REASON_RATE_LIMIT),
        (500, v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        (504, v1.ERROR_REASON_TIMEOUT),
        (529, v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        (302, v1.ERROR_REASON_UNKNOWN),
    ],
)
def test_status_alone(status: int, reason: v1.ErrorReason.ValueType) -> None:
    assert common.reason_for_status(status) == reason


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "20", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "\x1c\n2"}, 2.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "\N{ARABIC-INDIC DIGIT ONE}"}, None),
        ({"retry-after": "99999999999"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            30.0,
        ),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT",
                "date": "Wed, 21 Oct 2026 07:29:00 GMT",
            },
            0.0,
        ),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "today"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert common.retry_after_seconds(headers) == seconds


def test_shorten_keeps_a_short_message() -> None:
    assert common.shorten("Model `x` not found.") == "Model `x` not found."


def test_shorten_bounds_length_and_lines() -> None:
    short = common.shorten("a\r\nb\x1b[31m " + "c" * 1000)
    assert len(short) == 500
    assert short.startswith("a b?[31m ccc")
    assert short.endswith("c…")


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF123456",
        "sk-abc***********wxyz",
        "gsk_0123456789abcdef",
        "AIzaSyA0123456789abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "Bearer abcdef0123456789",
    ],
)
def test_shorten_strikes_credentials(secret: str) -> None:
    assert common.shorten(f"Incorrect API key provided: {secret}, see") == (
        "Incorrect API key provided: [redacted], see"
    )
