"""What the databases answer, against the same sums made by hand over the same events."""

import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest

from tests.integration.ledger.seeded import (
    DAY_US,
    HOUR_US,
    LABELS,
    OUTCOMES,
    START_US,
    TENANTS,
    seeded_events,
)
from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server.errors import TrunklineError
from trunkline_server.ledger.queries import (
    Dimension,
    GroupKey,
    Label,
    Result,
    UsageFilter,
    UsageQuery,
    UsageRow,
)
from trunkline_server.store.usage_sql import UsageTable

EVENTS = seeded_events(11, 3000)
CALL = admin.USAGE_EVENT_KIND_CALL
ATTEMPT = admin.USAGE_EVENT_KIND_ATTEMPT


@pytest.fixture
async def filled(table: UsageTable) -> UsageTable:
    for start in range(0, len(EVENTS), 500):
        await table.insert(EVENTS[start : start + 500])
    return table


def meets(event: admin.UsageEvent, where: UsageFilter) -> bool:
    """Whether an event is among those that a filter means."""
    if event.kind != where.kind:
        return False
    if where.start_us is not None and event.start_time_unix_us < where.start_us:
        return False
    if where.end_us is not None and event.start_time_unix_us >= where.end_us:
        return False
    if any(getattr(event, key) not in wanted for key, wanted in where.among.items() if wanted):
        return False
    if where.outcomes and event.outcome not in where.outcomes:
        return False
    return all(event.labels.get(name) == value for name, value in where.labels.items())


def group_text(event: admin.UsageEvent, key: GroupKey) -> str:
    if isinstance(key, Label):
        return event.labels.get(key.name, "")
    if key is Result.OUTCOME:
        return admin.UsageOutcome.Name(event.outcome)
    if key is Result.ERROR_REASON:
        return v1.ErrorReason.Name(event.error_reason)
    if key is Result.CACHE_STATUS:
        return v1.CacheStatus.Name(event.cache_status)
    return str(getattr(event, key))


def percentile(values: Sequence[int], share: float) -> float | None:
    """By the standard library, which has it for hundredths."""
    if not values:
        return None
    if len(values) == 1:
        return float(values[0])
    if share in {0.0, 1.0}:
        return float(min(values) if share == 0.0 else max(values))
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def by_hand(query: UsageQuery) -> dict[tuple[int, tuple[str, ...]], dict[str, Any]]:
    """What each row must say."""
    groups: defaultdict[tuple[int, tuple[str, ...]], list[admin.UsageEvent]] = defaultdict(list)
    for event in EVENTS:
        if meets(event, query.where):
            width = query.bucket_us
            bucket = event.start_time_unix_us // width * width if width else 0
            key = tuple(group_text(event, each) for each in query.group_by)
            groups[bucket, key].append(event)
    answers = {}
    for place, events in groups.items():
        good = [event for event in events if event.outcome == admin.USAGE_OUTCOME_SUCCEEDED]
        firsts = [event.first_token_us for event in good if event.first_token_us]
        answers[place] = {
            "events": len(events),
            "succeeded": len(good),
            "failed": sum(event.outcome == admin.USAGE_OUTCOME_FAILED for event in events),
            "cancelled": sum(event.outcome == admin.USAGE_OUTCOME_CANCELLED for event in events),
            "attempts": sum(event.attempt_count for event in events),
            "retries": sum(event.retry_count for event in events),
            "fallbacks": sum(event.fallback_count for event in events),
            "hedges": sum(event.hedge_count for event in events),
            "cache_hits": sum(event.cache_status == v1.CACHE_STATUS_HIT for event in events),
            "input_tokens": sum(event.usage.input_tokens for event in events),
            "output_tokens": sum(event.usage.output_tokens for event in events),
            "cached_input_tokens": sum(event.usage.cached_input_tokens for event in events),
            "cache_write_tokens": sum(event.usage.cache_write_tokens for event in events),
            "reasoning_tokens": sum(event.usage.reasoning_tokens for event in events),
            "cost_input_nanos": sum(event.cost.input for event in events),
            "cost_output_nanos": sum(event.cost.output for event in events),
            "cost_total_nanos": sum(event.cost.total for event in events),
            "saved_cost_nanos": sum(event.saved_cost_nanos for event in events),
            "unpriced": sum(event.cost.unpriced for event in events),
            "estimated": sum(event.cost.estimated for event in events),
            "duration_us": [
                percentile([event.duration_us for event in good], share)
                for share in query.percentiles
            ],
            "first_token_us": [percentile(firsts, share) for share in query.percentiles],
        }
    return answers


def check(query: UsageQuery, rows: Sequence[UsageRow]) -> None:
    expected = by_hand(query)
    assert {(row.bucket_us, row.group) for row in rows} == set(expected)
    assert len(rows) == len(expected)
    for row in rows:
        for name, value in expected[row.bucket_us, row.group].items():
            got = getattr(row, name)
            if name in {"duration_us", "first_token_us"}:
                assert [each is None for each in got] == [each is None for each in value]
                known = [each for each in value if each is not None]
                assert [each for each in got if each is not None] == pytest.approx(known, 1e-12)
            else:
                assert got == value, name


QUERIES = {
    "everything": UsageQuery(percentiles=(0.0, 0.5, 0.9, 0.99, 1.0)),
    "attempts by place": UsageQuery(
        UsageFilter(kind=ATTEMPT),
        (Dimension.PROVIDER, Dimension.DEPLOYMENT, Dimension.REGION),
        percentiles=(0.5,),
    ),
    "days": UsageQuery(bucket_us=DAY_US, percentiles=(0.95,)),
    "hours of one tenant": UsageQuery(
        UsageFilter(among={Dimension.TENANT: ["acme"]}), bucket_us=HOUR_US, percentiles=(0.5,)
    ),
    "tenants by day": UsageQuery(group_by=(Dimension.TENANT, Dimension.MODEL), bucket_us=DAY_US),
    "results": UsageQuery(group_by=(Result.OUTCOME, Result.ERROR_REASON, Result.CACHE_STATUS)),
    "by labels": UsageQuery(
        group_by=(Label('od"d'), Label("do.t"), Label("missing")), percentiles=(0.25,)
    ),
    "a range": UsageQuery(UsageFilter(start_us=START_US + DAY_US, end_us=START_US + 2 * DAY_US)),
    "none": UsageQuery(UsageFilter(among={Dimension.TENANT: ["nobody"]}), percentiles=(0.5,)),
    "strange names": UsageQuery(
        UsageFilter(among={Dimension.TENANT: TENANTS[1:4]}, labels={'od"d': "it's"}),
        (Dimension.TENANT, Label("$x")),
    ),
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
async def test_sums_are_those_made_by_hand(filled: UsageTable, query: UsageQuery) -> None:
    rows = await filled.summarize(query)
    check(query, rows)
    assert [(row.bucket_us, row.group) for row in rows] == sorted(
        ((row.bucket_us, row.group) for row in rows), key=lambda each: each[0]
    )


async def test_seeded_questions_are_answered_as_by_hand(filled: UsageTable) -> None:
    rng = random.Random(5)
    values = {
        Dimension.TENANT: TENANTS,
        Dimension.PROJECT: ["", "search", "other"],
        Dimension.KEY: ["key-1", "key-2"],
        Dimension.SERVICE: ["", "billing", "o'ps"],
        Dimension.USER: ["u-1", "u-2"],
        Dimension.MODEL: ["large", "small"],
        Dimension.PROVIDER: ["alpha", "beta"],
        Dimension.DEPLOYMENT: ["alpha-large", "beta-small"],
        Dimension.OPERATION: ["generate"],
    }
    keys: list[GroupKey] = [*values, *Result, *map(Label, LABELS)]
    for _ in range(40):
        where = UsageFilter(
            kind=rng.choice([CALL, ATTEMPT]),
            start_us=rng.choice([None, START_US + rng.randrange(3 * DAY_US)]),
            end_us=rng.choice([None, START_US + rng.randrange(DAY_US, 5 * DAY_US)]),
            among={
                dimension: rng.sample(some, rng.randrange(len(some) + 1))
                for dimension, some in rng.sample(sorted(values.items()), 2)
            },
            outcomes=rng.choice([[], OUTCOMES[:1], OUTCOMES[1:]]),
            labels=rng.choice([{}, {"team": "red"}, {"do.t": "it's"}]),
        )
        query = UsageQuery(
            where,
            rng.sample(keys, rng.randrange(4)),
            rng.choice([0, HOUR_US * 7, DAY_US]),
            rng.choice([(), (0.5,), (0.01, 0.99)]),
        )
        check(query, await filled.summarize(query))


async def test_a_limit_gives_the_first_rows_in_order(filled: UsageTable) -> None:
    whole = await filled.summarize(UsageQuery(bucket_us=HOUR_US, percentiles=(0.5,)))
    some = await filled.summarize(UsageQuery(bucket_us=HOUR_US, percentiles=(0.5,), limit=7))
    assert some == whole[:7]


def test_the_error_rate_leaves_cancelled_ones_aside() -> None:
    def row(succeeded: int, failed: int) -> UsageRow:
        counts = {"succeeded": succeeded, "failed": failed, "cancelled": 7}
        names = [name for name in UsageRow.__dataclass_fields__ if name not in counts]
        return UsageRow(**dict.fromkeys(names, 0), **counts)  # type: ignore[arg-type]  # zeros

    assert row(3, 1).error_rate == 0.25
    assert row(0, 0).error_rate == 0.0


async def test_spending_is_of_calls_for_payers_and_of_attempts_for_places(
    filled: UsageTable,
) -> None:
    since, until = START_US + DAY_US // 2, START_US + 3 * DAY_US

    def total(kind: int, **fields: str) -> int:
        return sum(
            event.cost.total
            for event in EVENTS
            if event.kind == kind
            and since <= event.start_time_unix_us < until
            and all(getattr(event, name) == value for name, value in fields.items())
        )

    assert await filled.spent({}, since, until) == total(CALL)
    who = {Dimension.TENANT: "o'brien", Dimension.PROJECT: "search"}
    assert await filled.spent(who, since, until) == total(CALL, tenant="o'brien", project="search")
    where = {Dimension.PROVIDER: "beta", Dimension.TENANT: "acme"}
    expected = total(ATTEMPT, provider="beta", tenant="acme")
    assert await filled.spent(where, since, until) == expected > 0
    assert await filled.spent({Dimension.KEY: "nobody"}, since) == 0


@pytest.mark.parametrize("size", [1, 97, 5000])
async def test_pages_give_every_event_once_in_order(filled: UsageTable, size: int) -> None:
    where = UsageFilter(kind=ATTEMPT, among={Dimension.TENANT: ["acme", 'a"b']})
    if size == 1:
        where = UsageFilter(among={Dimension.REQUEST: [f"request-{n}" for n in range(20)]})
    expected = sorted(
        (event for event in EVENTS if meets(event, where)),
        key=lambda event: (event.start_time_unix_us, event.event_id),
    )
    assert expected
    got: list[admin.UsageEvent] = []
    token = ""
    while True:
        page = await filled.page(where, size, token)
        assert len(page.events) <= size
        got += page.events
        token = page.next_page_token
        if not token:
            break
    assert got == expected


async def test_a_token_of_another_question_is_refused(filled: UsageTable) -> None:
    page = await filled.page(UsageFilter(), 5)
    with pytest.raises(TrunklineError) as caught:
        await filled.page(UsageFilter(kind=ATTEMPT), 5, page.next_page_token)
    assert caught.value.reason == v1.ERROR_REASON_INVALID_REQUEST


async def test_a_scan_gives_every_event_in_batches(filled: UsageTable) -> None:
    where = UsageFilter(kind=CALL)
    batches = [batch async for batch in filled.scan(where)]
    assert max(map(len, batches)) <= 200
    got = [event for batch in batches for event in batch]
    assert got == sorted(
        (event for event in EVENTS if meets(event, where)),
        key=lambda event: (event.start_time_unix_us, event.event_id),
    )


async def test_retention_deletes_the_oldest_first_in_batches(filled: UsageTable) -> None:
    end = START_US + DAY_US
    old = sum(event.start_time_unix_us < end for event in EVENTS)
    assert old > 200
    deleted = []
    while count := await filled.delete_before(end, 200):
        deleted.append(count)
    assert deleted == [200] * (old // 200) + ([old % 200] if old % 200 else [])
    kinds = (UsageFilter(kind=CALL), UsageFilter(kind=ATTEMPT))
    left = [event async for batch in filled.scan(kinds[0]) for event in batch]
    left += [event async for batch in filled.scan(kinds[1]) for event in batch]
    assert {event.event_id for event in left} == {
        event.event_id for event in EVENTS if event.start_time_unix_us >= end
    }
