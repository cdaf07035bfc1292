"""Quotas learnt from headers: their forms, and when an account is passed over."""

import pytest

from tests.unit.governance.world import MARCH
from trunkline_server.governance.quota import QuotaTable, parse_quota

NOW = 500.0


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
    kinds, retry_at = parse_quota(headers, NOW, MARCH)
    assert kinds["requests"].resets == pytest.approx(NOW + seconds)
    assert retry_at is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "Sun, 01 Mar 2026 00:00:09 GMT"}, 9.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "1"}, 1.0),
    ],
)
def test_forms_of_retry_after(headers: dict[str, str], seconds: float) -> None:
    assert parse_quota(headers, NOW, MARCH)[1] == pytest.approx(NOW + seconds)


@pytest.mark.parametrize("amount", ["", "many", "-1", "inf", "nan"])
def test_an_amount_that_is_none_is_passed_over(amount: str) -> None:
    assert parse_quota({"x-ratelimit-remaining-tokens": amount}, NOW, MARCH) == ({}, None)


def test_an_account_is_passed_over_until_it_has_room_again() -> None:
    table = QuotaTable()
    assert table.admits("a", 10**9, 10**9, NOW)
    table.learn(
        "a",
        {
            "x-ratelimit-remaining-requests": "2",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-remaining-tokens": "100",
            "x-ratelimit-reset-tokens": "30s",
        },
        NOW,
        MARCH,
    )
    assert table.admits("a", 60, 40, NOW)
    assert not table.admits("a", 60, 41, NOW)
    assert table.admits_at("a", 60, 41, NOW) == NOW + 30.0
    assert table.admits("a", 60, 41, NOW + 30.0)
    assert table.admits("b", 60, 41, NOW)


def test_what_is_sent_meanwhile_counts_until_the_next_answer_tells() -> None:
    table = QuotaTable()
    told = {"anthropic-ratelimit-requests-remaining": "1"}
    table.learn("a", told, NOW, MARCH)
    table.sent("a", 1, 1)
    assert not table.admits("a", 1, 1, NOW)
    table.learn("a", told, NOW, MARCH)
    assert table.admits("a", 1, 1, NOW)


def test_input_and_output_are_counted_apart_where_the_vendor_does() -> None:
    table = QuotaTable()
    table.learn(
        "a",
        {
            "anthropic-ratelimit-input-tokens-remaining": "1000",
            "anthropic-ratelimit-input-tokens-reset": "2026-03-01T00:00:10Z",
            "anthropic-ratelimit-output-tokens-remaining": "50",
            "anthropic-ratelimit-output-tokens-reset": "2026-03-01T00:00:20Z",
        },
        NOW,
        MARCH,
    )
    assert table.admits("a", 1000, 50, NOW)
    assert table.admits_at("a", 1001, 50, NOW) == NOW + 10.0
    assert table.admits_at("a", 1001, 51, NOW) == NOW + 20.0


def test_a_refusal_closes_the_account_for_as_long_as_it_says() -> None:
    table = QuotaTable()
    table.learn("a", {"retry-after": "20"}, NOW, MARCH)
    table.learn("a", {"retry-after": "5"}, NOW, MARCH)
    assert table.admits_at("a", 0, 0, NOW) == NOW + 20.0
    assert table.admits("a", 0, 0, NOW + 20.0)
