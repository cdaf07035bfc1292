"""Many events that look like a month's traffic, the same for the same seed."""

import random

from trunkline import v1
from trunkline.admin import v1 as admin

START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z.
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US

# Names that would break a statement that quotes values itself.
TENANTS = ["acme", "o'brien", 'a"b', "100%_", "Zürich"]
OK = admin.USAGE_OUTCOME_SUCCEEDED
OUTCOMES = [OK, admin.USAGE_OUTCOME_FAILED, admin.USAGE_OUTCOME_CANCELLED]
REASONS = [v1.ERROR_REASON_TIMEOUT, v1.ERROR_REASON_SERVICE_UNAVAILABLE]
CACHE = [v1.CACHE_STATUS_UNSPECIFIED, v1.CACHE_STATUS_HIT, v1.CACHE_STATUS_MISS]
LABELS = ["team", 'od"d', "do.t", "$x"]


def seeded_events(seed: int, count: int) -> list[admin.UsageEvent]:
    """Events of both kinds, in no order of time."""
    rng = random.Random(seed)
    return [_event(rng, number) for number in range(count)]


def _event(rng: random.Random, number: int) -> admin.UsageEvent:
    start = START_US + rng.randrange(4 * DAY_US)
    # Rounded, so that equal latencies occur.
    duration = rng.choice([0, rng.randrange(1, 40) * 1000, int(rng.expovariate(1e-6))])
    outcome = rng.choices(OUTCOMES, [8, 2, 1])[0]
    streamed = rng.random() < 0.5
    event = admin.UsageEvent(
        event_id=f"{number:032x}",
        kind=rng.choice([admin.USAGE_EVENT_KIND_CALL, admin.USAGE_EVENT_KIND_ATTEMPT]),
        call_id=f"{number // 2:032x}",
        request_id=f"request-{number}",
        tenant=rng.choice(TENANTS),
        project=rng.choice(["", "search", "chat"]),
        key_name=rng.choice(["key-1", "key-2", "key-3"]),
        service=rng.choice(["", "billing", "o'ps"]),
        user_id=rng.choice(["", "u-1", "u-2"]),
        agent_id=rng.choice(["", "planner", "billing"]),
        requested_model=rng.choice(["", "large", "alpha/big"]),
        operation="stream_generate" if streamed else "generate",
        streamed=streamed,
        model=rng.choice(["large", "small"]),
        provider=rng.choice(["alpha", "beta"]),
        deployment=rng.choice(["alpha-large", "beta-large", "beta-small"]),
        region=rng.choice(["eu", "us", ""]),
        start_time_unix_us=start,
        end_time_unix_us=start + duration,
        duration_us=duration,
        first_token_us=duration // 3 if streamed else 0,
        attempt_count=rng.randrange(1, 4),
        retry_count=rng.randrange(2),
        fallback_count=rng.randrange(2),
        hedge_count=rng.randrange(2),
        outcome=outcome,
        error_reason=v1.ERROR_REASON_UNSPECIFIED if outcome == OK else rng.choice(REASONS),
        cache_status=rng.choice(CACHE),
        saved_cost_nanos=rng.randrange(3) * 1000,
    )
    for label in LABELS:
        if rng.random() < 0.5:
            event.labels[label] = rng.choice(["red", "green", "it's"])
    if rng.random() < 0.9:
        event.usage.CopyFrom(
            v1.Usage(
                input_tokens=rng.randrange(10_000),
                output_tokens=rng.randrange(3_000),
                cached_input_tokens=rng.randrange(100),
                cache_write_tokens=rng.randrange(100),
                reasoning_tokens=rng.randrange(100),
            )
        )
        # Sums beyond what 32 bits and a float's mantissa hold.
        cost = v1.Cost(input=rng.randrange(10**15), output=rng.randrange(10**15))
        cost.total = cost.input + cost.output
        cost.estimated = rng.random() < 0.2
        event.cost.CopyFrom(v1.Cost(unpriced=True) if rng.random() < 0.1 else cost)
    return event
