"""Events on their way into real databases: whole, once, through crashes, cuts and bad values."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from tests.integration.ledger.conftest import FIELD
from tests.integration.ledger.seeded import seeded_events
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres_server import PostgresServer
from tests.unit.ledger.world import Watch
from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server.clock import SystemClock
from trunkline_server.ledger.ledger import Ledger, LedgerOptions
from trunkline_server.ledger.ports import SinkRefusedError
from trunkline_server.ledger.queries import UsageFilter
from trunkline_server.ledger.shipper import ShipperOptions
from trunkline_server.store.address import open_database
from trunkline_server.store.database import Database, Limits
from trunkline_server.store.migrate import upgrade
from trunkline_server.store.usage_postgres import PostgresUsage
from trunkline_server.store.usage_sql import COLUMNS, UsageTable

BOTH = (admin.USAGE_EVENT_KIND_CALL, admin.USAGE_EVENT_KIND_ATTEMPT)
QUICK = LedgerOptions(
    shipper=ShipperOptions(batch_events=16, poll=0.005, backoff_base=0.01, backoff_max=0.05)
)


async def kept(table: UsageTable) -> list[admin.UsageEvent]:
    """Every event in the table."""
    return [
        event
        for kind in BOTH
        async for batch in table.scan(UsageFilter(kind=kind))
        for event in batch
    ]


async def test_every_column_says_what_the_event_says(table: UsageTable, database: Database) -> None:
    event = admin.UsageEvent()
    for number, field in enumerate(event.DESCRIPTOR.fields, 1):
        if field.name in {"labels", "usage", "cost"}:
            continue
        if field.type == field.TYPE_STRING:
            setattr(event, field.name, f"{field.name} ü 'x'")
        elif field.type == field.TYPE_BOOL:
            setattr(event, field.name, True)
        elif field.type == field.TYPE_ENUM:
            assert field.enum_type is not None
            setattr(event, field.name, field.enum_type.values[-1].number)
        else:
            setattr(event, field.name, 1000 + number)
    event.labels.update({"team": "search", 'q"': "'"})
    event.usage.CopyFrom(
        v1.Usage(
            input_tokens=1,
            output_tokens=2,
            cached_input_tokens=3,
            cache_write_tokens=4,
            reasoning_tokens=5,
        )
    )
    event.cost.CopyFrom(v1.Cost(input=6, output=7, total=2**62, unpriced=True, estimated=True))
    await table.insert([event])
    row = await database.fetch_one("SELECT * FROM usage_events")
    assert row is not None
    # The schema has no other columns than those that are filled.
    names = set(dict(row))  # type: ignore[call-overload]  # Rows are mappings, beyond their port.
    assert names == set(COLUMNS)
    special = {
        "start_time_us": event.start_time_unix_us,
        "end_time_us": event.end_time_unix_us,
        "cost_input_nanos": 6,
        "cost_output_nanos": 7,
        "cost_total_nanos": 2**62,
        "cost_unpriced": True,
        "cost_estimated": True,
        "event": event.SerializeToString(),
    }
    for name in sorted(names - {"labels"}):
        if name in special:
            assert row[name] == special[name], name
        elif name in event.usage.DESCRIPTOR.fields_by_name:
            assert row[name] == getattr(event.usage, name), name
        else:
            assert row[name] == getattr(event, name), name
    assert orjson.loads(row["labels"]) == dict(event.labels)
    assert await kept(table) == [event]


async def test_the_same_event_is_kept_once_and_as_it_came_first(table: UsageTable) -> None:
    events = seeded_events(1, 30)
    await table.insert(events[:20])
    changed = admin.UsageEvent()
    changed.CopyFrom(events[5])
    changed.tenant = "another"
    # An overlap, a twin within the batch, and one with the same id that says otherwise.
    await table.insert([*events[10:], events[25], changed])
    got = {event.event_id: event for event in await kept(table)}
    assert got == {event.event_id: event for event in events}


async def test_a_batch_is_kept_whole_or_not_at_all(table: UsageTable) -> None:
    events = seeded_events(2, 5)
    # No enum of the contract has it; Postgres' column cannot hold it.
    events[3].strategy = 40_000  # type: ignore[assignment]  # wrong on purpose
    if isinstance(table, PostgresUsage):
        with pytest.raises(SinkRefusedError):
            await table.insert(events)
        assert await kept(table) == []
    else:
        await table.insert(events)
        assert len(await kept(table)) == 5


async def test_text_that_a_database_cannot_hold_does_not_keep_the_event_out(
    table: UsageTable,
) -> None:
    (event,) = seeded_events(3, 1)
    event.user_id = "a\0b"
    event.labels["k\0"] = "v\0"
    await table.insert([event])
    (page,) = [await table.page(UsageFilter(kind=event.kind), 5)]
    # The event itself is as it was journaled; what is searched has the replacement character.
    assert page.events == [event]
    where = UsageFilter(kind=event.kind, labels={"k\ufffd": "v\ufffd"})
    assert (await table.page(where, 5)).events == [event]


async def test_one_event_that_the_database_refuses_holds_no_other_up(
    table: UsageTable, tmp_path: Path
) -> None:
    watch = Watch()
    ledger = Ledger(tmp_path / "journal", table, SystemClock(), watch, QUICK)
    events = seeded_events(4, 40)
    for number in (7, 21):
        events[number].strategy = 40_000  # type: ignore[assignment]  # wrong on purpose
    for event in events:
        ledger.write(event.SerializeToString())
    await ledger.journal.committed()
    assert await ledger.shipper.drain(30)
    await ledger.close()
    good = {event.event_id for event in events}
    if isinstance(table, PostgresUsage):
        good -= {events[7].event_id, events[21].event_id}
        # The order of a map's entries is not that of another serialisation.
        aside = [
            admin.UsageEvent.FromString(path.read_bytes())
            for path in (tmp_path / "journal/quarantine").iterdir()
        ]
        assert sorted(aside, key=lambda event: event.event_id) == [events[7], events[21]]
        assert len(watch.all("unreadable")) == 2
    assert {event.event_id for event in await kept(table)} == good


class Writer:
    """Writes events one by one, as calls would, and says how far it is."""

    def __init__(self, ledger: Ledger, events: list[admin.UsageEvent]) -> None:
        self._ledger = ledger
        self._events = events
        self._written = 0
        self._moved = asyncio.Condition()

    async def run(self) -> None:
        """Writes all of them."""
        for event in self._events:
            self._ledger.write(event.SerializeToString())
            await self._ledger.journal.committed()
            async with self._moved:
                self._written += 1
                self._moved.notify_all()
            # The shipper has its turn.
            await asyncio.sleep(0)

    async def reached(self, share: float) -> None:
        """Returns once this share of them is written."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._written >= share * len(self._events))


async def failures(watch: Watch, count: int) -> None:
    """Returns once batches have failed so often."""
    async with asyncio.timeout(60):
        # The shipper goes on by itself, and tells nobody but the watch.
        while len(watch.all("ship_failed")) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.mark.slow
async def test_a_postgres_that_is_killed_again_and_again_gets_every_event_once(
    new_postgres: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    rng = random.Random(8)
    server = new_postgres()
    await upgrade(server.dsn(), FIELD)
    database = await open_database(server.dsn(), FIELD, Limits(acquire=1.0, statement=1.0))
    table, watch = PostgresUsage(database), Watch()
    ledger = Ledger(tmp_path, table, SystemClock(), watch, QUICK)
    ledger.start()
    events = seeded_events(8, 3000)
    writer = Writer(ledger, events)
    writing = asyncio.create_task(writer.run())
    for moment in sorted(rng.uniform(0.0, 0.9) for _ in range(5)):
        await writer.reached(moment)
        server.kill()
        # Calls go on without the store, and the shipper meets its absence.
        await failures(watch, len(watch.all("ship_failed")) + 1)
        await writer.reached(moment + 0.05)
        server.start()
    await writing
    await ledger.close(30.0)
    assert watch.all("ship_failed"), "no kill met a batch on its way"
    got = Counter(event.event_id for event in await kept(table))
    assert set(got.values()) == {1}
    assert set(got) == {event.event_id for event in events}
    rows = await table.spent({}, 0)
    assert rows == sum(event.cost.total for event in events if event.kind == BOTH[0])
    await database.close()


async def test_a_cut_line_in_the_middle_of_a_batch_leaves_no_gap_and_no_twin(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    async with (
        postgres_server.database() as name,
        FaultProxy(postgres_server.host, postgres_server.port) as proxy,
    ):
        await upgrade(postgres_server.dsn(name), FIELD)
        limits = Limits(acquire=0.5, statement=0.5)
        database = await open_database(postgres_server.dsn(name, port=proxy.port), FIELD, limits)
        table, watch = PostgresUsage(database), Watch()
        ledger = Ledger(tmp_path, table, SystemClock(), watch, QUICK)
        ledger.start()
        events = seeded_events(9, 1500)
        writer = Writer(ledger, events)
        writing = asyncio.create_task(writer.run())
        rng = random.Random(9)
        for moment in sorted(rng.uniform(0.0, 0.9) for _ in range(20)):
            await writer.reached(moment)
            proxy.cut()
        proxy.stall()
        # A statement that gets no answer has to run into its limit.
        await failures(watch, len(watch.all("ship_failed")) + 1)
        proxy.flow()
        await writing
        await ledger.close(30.0)
        assert watch.all("ship_failed"), "no cut met a batch on its way"
        got = Counter(event.event_id for event in await kept(table))
        assert got == Counter(event.event_id for event in events)
        await database.close()


async def test_an_error_that_nobody_foresaw_is_an_outage_and_no_loss(
    table: UsageTable, database: Database, tmp_path: Path
) -> None:
    watch = Watch()
    ledger = Ledger(tmp_path / "journal", table, SystemClock(), watch, QUICK)
    events = seeded_events(10, 10)
    refuse = "ALTER TABLE usage_events RENAME TO elsewhere"
    allow = "ALTER TABLE elsewhere RENAME TO usage_events"
    async with database.transaction() as transaction:
        await transaction.script(refuse)
    await Writer(ledger, events).run()
    assert not await ledger.shipper.ship()
    assert watch.all("ship_failed")
    async with database.transaction() as transaction:
        await transaction.script(allow)
    assert await ledger.shipper.drain(10)
    await ledger.close()
    assert {event.event_id for event in await kept(table)} == {e.event_id for e in events}
