"""The sums with which budgets begin, from both databases, against sums made by hand."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import pytest

from tests.integration.ledger.seeded import DAY_US, START_US, TENANTS, seeded_events
from tests.unit.governance.world import SetClock
from trunkline.admin import v1 as admin
from trunkline_server.app.spending import LedgerSums
from trunkline_server.governance.quotas.periods import Calendar, seed_starts
from trunkline_server.governance.quotas.rules import Budget, Period
from trunkline_server.governance.quotas.seeding import Seeds
from trunkline_server.store.usage_sql import UsageTable

EVENTS = seeded_events(17, 2000)
Match = Mapping[str, tuple[str, ...]]


@pytest.fixture
async def filled(table: UsageTable) -> UsageTable:
    await table.insert(EVENTS)
    return table


def names(event: admin.UsageEvent) -> dict[str, str]:
    """An event's fields as a demand has them."""
    return {
        "key": event.key_name,
        "user": event.user_id,
        "project": event.project,
        "tenant": event.tenant,
        "service": event.service or event.agent_id,
        "model": event.requested_model or event.model,
        "provider": event.provider,
    }


def by_hand(
    scope: str, subject: tuple[str, str], starts: Sequence[float], end: float, match: Match
) -> list[int]:
    sums = [0] * len(starts)
    of_attempts = scope == "provider"
    for event in EVENTS:
        own = names(event)
        wanted = admin.USAGE_EVENT_KIND_ATTEMPT if of_attempts else admin.USAGE_EVENT_KIND_CALL
        mine = own[scope] == subject[1] and (scope == "provider" or own["tenant"] == subject[0])
        matched = all(
            any(fnmatchcase(own[name], pattern) for pattern in patterns)
            for name, patterns in match.items()
        )
        at = event.start_time_unix_us / 1e6
        if event.kind == wanted and mine and matched and starts[0] <= at < end:
            sums[max(place for place, start in enumerate(starts) if start <= at)] += (
                event.cost.total
            )
    return sums


SUBJECTS = [
    ("tenant", ("o'brien", "o'brien")),
    ("project", ("acme", "search")),
    ("key", (TENANTS[3], "key-2")),
    ("service", ("acme", "billing")),
    ("service", ("acme", "planner")),
    ("provider", ("", "beta")),
]
MATCHES: list[Match] = [
    {},
    {"model": ("alpha/*",)},
    {"service": ("b*", "o'ps"), "user": ("u-?",)},
    {"model": ("small", "none")},
]


@pytest.mark.parametrize("period", list(Period))
async def test_budgets_begin_with_what_their_own_calls_cost(
    filled: UsageTable, period: Period
) -> None:
    clock = SetClock(START_US / 1e6 + 2.4 * DAY_US / 1e6)
    seeds = Seeds(LedgerSums(filled), clock, timeout=30.0)
    told = 0
    for scope, subject in SUBJECTS:
        for match in MATCHES:
            budget = Budget(
                name="b",
                scope=scope,
                amount=10**15,
                period=period,
                window=40 * 3600 if period is Period.ROLLING else 0,
                match=match,
            )
            span = Calendar(period).span(clock.wall())
            buckets, starts = seed_starts(budget, span, clock.wall())
            expected = by_hand(scope, subject, starts, clock.wall(), match)
            amounts = await seeds.amounts(budget, subject, span)
            assert amounts == list(zip(buckets, expected, strict=True))
            told += sum(1 for amount in expected if amount)
    assert told > 20
