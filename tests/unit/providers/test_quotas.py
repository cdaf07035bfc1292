"""Quotas that vendors tell in headers: their names and their forms."""

import pytest

from tests.support.corpus import exchanges
from tests.unit.governance.world import MARCH
from trunkline_server.providers.quotas import told_quotas


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("12ms", 0.012),
        ("1h2m3.5s", 3723.5),
        ("0d1h", 3600.0),
        ("7m12.5s", 432.5),
        ("2m", 120.0),
        ("60", 60.0),
        ("0.25", 0.25),
        ("2026-03-01T00:00:30Z", 30.0),
        ("2026-03-01T01:00:30+01:00", 30.0),
        ("Sun, 01 Mar 2026 00:01:00 GMT", 60.0),
        ("2026-02-28T23:59:00Z", 0.0),
        ("9999d", 86_400.0),
        # Moments, in seconds and in milliseconds.
        (str(int(MARCH) + 90), 90.0),
        (f"{int(MARCH) + 90}500", 90.5),
        # What is not understood is believed for a minute.
        ("soon", 60.0),
        ("-5", 60.0),
        ("nan", 60.0),
        ("", 60.0),
        ("5s6m", 60.0),
    ],
)
def test_forms_of_a_reset(text: str, seconds: float) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": text}
    told = told_quotas(headers, MARCH)
    assert told.keys() == {"requests"}
    assert told["requests"] == pytest.approx((0.0, seconds))


@pytest.mark.parametrize("amount", ["", "many", "-1", "inf", "nan"])
def test_an_amount_that_is_none_is_passed_over(amount: str) -> None:
    assert told_quotas({"x-ratelimit-remaining-tokens": amount}, MARCH) == {}


def test_of_two_headers_for_one_kind_the_tighter_counts() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-remaining-requests-day": "3",
        "x-ratelimit-reset-requests-day": "7000",
        "x-ratelimit-remaining": "5",
    }
    assert told_quotas(headers, MARCH) == {"requests": (3.0, 7000.0)}


def test_input_and_output_are_told_apart_where_the_vendor_does() -> None:
    headers = {
        "anthropic-ratelimit-input-tokens-remaining": "1000",
        "anthropic-ratelimit-input-tokens-reset": "2026-03-01T00:00:10Z",
        "anthropic-ratelimit-output-tokens-remaining": "50",
        "anthropic-ratelimit-output-tokens-reset": "2026-03-01T00:00:20Z",
    }
    assert told_quotas(headers, MARCH) == {
        "input_tokens": (1000.0, 10.0),
        "output_tokens": (50.0, 20.0),
    }


def test_recorded_answers_are_understood() -> None:
    """Of every vendor whose answers tell of what is left; Azure tells -1 for no limit."""
    understood = passed = 0
    for exchange in exchanges():
        headers = {name.lower(): value for name, value in exchange.headers.items()}
        told = told_quotas(headers, MARCH)
        mentioned = [name for name in headers if "ratelimit" in name and "remaining" in name]
        if mentioned and not told:
            values = {headers[name] for name in mentioned}
            assert exchange.provider == "mistral" or values == {"-1"}, mentioned
            passed += 1
        understood += bool(told)
    assert understood > 1000
    assert passed < 100
