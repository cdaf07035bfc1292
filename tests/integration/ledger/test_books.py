"""From calls to answers about them: what callers were told is what the ledger adds up."""

import asyncio
import random
from pathlib import Path

from tests.support.plain_dialect import Answer
from tests.support.virtual_time import run
from tests.unit.engine.world import World, ask
from tests.unit.ledger.world import Watch
from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server.clock import SystemClock
from trunkline_server.engine.attempt import Services
from trunkline_server.engine.call import Call
from trunkline_server.engine.engine import Engine
from trunkline_server.errors import TrunklineError
from trunkline_server.ledger.ledger import Ledger, LedgerOptions
from trunkline_server.ledger.queries import Dimension, Result, UsageFilter, UsageQuery
from trunkline_server.ledger.recorder import Origin, Owner, Recorder
from trunkline_server.routing.snapshot import AttemptPolicy
from trunkline_server.store.usage_sql import UsageTable

ATTEMPT = admin.USAGE_EVENT_KIND_ATTEMPT
CALLS = 300


class Told:
    """What the callers of one run were told."""

    def __init__(self) -> None:
        self.answered: list[v1.GenerateResponse] = []
        self.failed: list[TrunklineError] = []
        self.cancelled = 0
        self.reports: list[v1.CallReport] = []


async def calls(events: list[bytes], told: Told) -> None:
    """Seeded calls of every fate, one after the other."""
    rng = random.Random(17)

    def answers() -> list[Answer]:
        kinds = [Answer(delay=1), Answer(b"busy", status=503), Answer(delay=100)]
        return rng.choices(kinds, [7, 3, 1], k=3 * CALLS)

    script = {host: answers() for host in ("alpha", "beta", "gamma")}
    world = World(script, AttemptPolicy(retries=1))
    recorder = Recorder(
        events.append, world.clock, Origin(), owner_of=lambda caller: Owner(tenant="acme")
    )
    services = Services(world.http, world.clock, recorder, world.budget, world.rng)
    engine = Engine(services, world.table)
    for _ in range(CALLS):
        request = ask()
        call: Call = world.call(request, patience=20.0)
        try:
            async with asyncio.timeout(rng.choice([10.0, 60.0])):
                answer = await engine.generate(call, request)
            assert isinstance(answer, v1.GenerateResponse)
            told.answered.append(answer)
        except TrunklineError as error:
            told.failed.append(error)
            told.reports.append(call.report())
        except TimeoutError:
            told.cancelled += 1
            told.reports.append(call.report())
        # Breakers close, the retry budget fills.
        await asyncio.sleep(60)


def recorded() -> tuple[list[bytes], Told]:
    events: list[bytes] = []
    told = Told()
    run(lambda: calls(events, told))
    return events, told


async def test_the_ledger_adds_up_to_what_callers_were_told(
    table: UsageTable, tmp_path: Path
) -> None:
    # On a loop of its own, whose time is virtual.
    events, told = await asyncio.to_thread(recorded)
    ledger = Ledger(tmp_path / "journal", table, SystemClock(), Watch(), LedgerOptions())
    for event in events:
        ledger.write(event)
    await ledger.journal.committed()
    assert await ledger.shipper.drain(60)
    await ledger.close()

    assert told.answered
    assert told.failed
    assert told.cancelled
    (row,) = await table.summarize(UsageQuery())
    assert row.events == CALLS
    assert row.succeeded == len(told.answered)
    assert row.failed == len(told.failed)
    assert row.cancelled == told.cancelled
    bills: list[v1.GenerateResponse | v1.CallReport] = [*told.answered, *told.reports]
    cost = sum(bill.cost.total for bill in bills)
    assert row.cost_total_nanos == cost > 0
    assert row.attempts == sum(len(bill.attempts) for bill in bills)
    assert await table.spent({Dimension.TENANT: "acme"}, 0) == cost

    # The attempts' events say the same, by another way.
    attempts = [attempt for bill in bills for attempt in bill.attempts]
    by_provider = await table.summarize(
        UsageQuery(UsageFilter(kind=ATTEMPT), (Dimension.PROVIDER, Result.OUTCOME))
    )
    for each in by_provider:
        provider, outcome = each.group
        same = [
            attempt
            for attempt in attempts
            if attempt.provider == provider
            and v1.AttemptOutcome.Name(attempt.outcome) == outcome.replace("USAGE_", "ATTEMPT_")
        ]
        assert each.events == len(same)
        assert each.cost_total_nanos == sum(attempt.cost.total for attempt in same)
        assert each.input_tokens == sum(attempt.usage.input_tokens for attempt in same)
    assert sum(each.events for each in by_provider) == len(attempts)
