"""What operators read of degraded modes: /readyz, and lines that do not come as often as calls."""

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from trunkline_server.telemetry.conditions import JOURNAL, conditions
from trunkline_server.telemetry.metrics import Metrics
from trunkline_server.telemetry.ops import OpsServer
from trunkline_server.telemetry.sparsely import Sparsely


def test_conditions_are_those_whose_metric_is_set() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    assert conditions(registry) == {}
    metrics.quota_outage.set(1)
    metrics.ledger_away.set(1)
    assert list(conditions(registry).values()) == [
        "the shared counters of limits and budgets are away",
        "the ledger's database is away",
    ]
    metrics.quota_outage.set(0)
    metrics.ledger_away.set(0)
    metrics.store_away.set(1)
    metrics.ledger_blocked.set(1)
    assert set(conditions(registry)) == {JOURNAL, "trunkline_store_away"}


@pytest.mark.parametrize(
    ("fatal", "reason", "status", "body"),
    [
        ((), None, 200, {"status": "ready", "degraded": ["the usage journal cannot be written"]}),
        (
            (JOURNAL,),
            None,
            503,
            {
                "status": "not ready",
                "reason": "the usage journal cannot be written",
                "degraded": ["the usage journal cannot be written"],
            },
        ),
        (
            (JOURNAL,),
            "draining",
            503,
            {
                "status": "not ready",
                "reason": "draining",
                "degraded": ["the usage journal cannot be written"],
            },
        ),
    ],
)
async def test_readyz_names_what_is_amiss(
    fatal: tuple[str, ...], reason: str | None, status: int, body: dict[str, object]
) -> None:
    registry = CollectorRegistry()
    Metrics(registry).ledger_blocked.set(1)
    server = OpsServer(lambda: registry, lambda: reason, dict, fatal)
    port = await server.start("127.0.0.1", 0)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/readyz") as answer,
    ):
        assert answer.status == status
        assert await answer.json() == body
    await server.stop()


def test_what_comes_often_is_told_at_once_and_then_in_sums() -> None:
    now = 100.0
    sparsely = Sparsely(lambda: now)
    told = []
    for second in range(25):
        now = 100.0 + second
        told.append(sparsely.due(2))
    assert told[0] == 2
    assert [(second, count) for second, count in enumerate(told) if count] == [
        (0, 2),
        (10, 20),
        (20, 20),
    ]
