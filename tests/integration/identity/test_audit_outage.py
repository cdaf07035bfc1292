"""A router whose audit trail's database is away: what calls meet, and what becomes of entries."""

import json
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest

from tests.support.callers import NOWHERE, key, shows
from tests.support.router import ENVIRONMENT, PATIENCE, Router, openai_at, router
from trunkline import v1
from trunkline_server.governance.audit.ports import Record
from trunkline_server.governance.audit.verify import verify
from trunkline_server.store.audit import SqlAuditStore

REQUEST = v1.RouteRequest(model="large")
# Nobody listens there.
AWAY = "postgres://user:password@127.0.0.1:9/nothing"
OK, DENIED, UNAVAILABLE = (
    grpc.StatusCode.OK,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAVAILABLE,
)


def config(audit: str) -> str:
    return f"""{openai_at(NOWHERE)}
state: {{database: env:AUDIT_DSN}}
audit: {{{audit}}}
keys:
{key("team")}
{key("scoped", "models: [small]")}
"""


def env(dsn: str) -> dict[str, str]:
    return {**ENVIRONMENT, "AUDIT_DSN": dsn}


async def code(trunkline: Router, who: str) -> grpc.StatusCode:
    call = trunkline.stub.Route(REQUEST, metadata=shows(who), timeout=PATIENCE)
    return await call.code()


async def entries(trail: SqlAuditStore) -> list[Record]:
    async with aclosing(trail.stream()) as records:
        return [record async for record in records]


async def test_calls_go_on_and_their_entries_are_written_once_it_is_back(
    dsn: str, trail: SqlAuditStore, tmp_path: Path
) -> None:
    spooling = config(f"decisions: all, spool: '{tmp_path / 'spool'}'")
    async with router(spooling, env=env(AWAY)) as trunkline:
        codes = [await code(trunkline, who) for who in ("team", "scoped", "team")]
    assert codes == [OK, DENIED, OK]
    assert await entries(trail) == []
    async with router(spooling, env=env(dsn)) as trunkline:
        assert await code(trunkline, "team") == OK
    found = await entries(trail)
    assert [(row.actor, json.loads(row.details)["outcome"]) for row in found] == [
        ("trunkline", "ok"),
        ("keys[team]", "ok"),
        ("keys[scoped]", "denied"),
        ("keys[team]", "ok"),
        ("trunkline", "ok"),
        ("keys[team]", "ok"),
    ]
    assert (await verify(trail.stream)).sound


@pytest.mark.parametrize(
    ("on_full", "granted"), [("deny", [OK] * 3 + [UNAVAILABLE]), ("drop", [OK] * 4)]
)
async def test_a_trail_without_room_refuses_or_drops_as_configured(
    on_full: str, granted: list[grpc.StatusCode]
) -> None:
    """One of four places has the configuration that was loaded."""
    small = config(f"decisions: all, on_full: {on_full}, max_waiting: 4")
    async with router(small, env=env(AWAY)) as trunkline:
        assert [await code(trunkline, "team") for _ in range(4)] == granted
        # Whoever is refused is refused all the same.
        assert await code(trunkline, "scoped") == DENIED
        lost = trunkline.metric("trunkline_audit_entries_total", fate="lost")
    assert lost == (1 if on_full == "deny" else 2)


async def test_strangers_keep_nobody_from_calling() -> None:
    small = config("decisions: all, max_waiting: 8")
    async with router(small, env=env(AWAY)) as trunkline:
        for _ in range(20):
            assert await code(trunkline, "nobody") is grpc.StatusCode.UNAUTHENTICATED
        assert await code(trunkline, "team") == OK


async def test_where_denials_alone_are_recorded_grants_need_no_room() -> None:
    async with router(config("decisions: denied, max_waiting: 1"), env=env(AWAY)) as trunkline:
        assert [await code(trunkline, "team") for _ in range(4)] == [OK] * 4
        assert await code(trunkline, "scoped") == DENIED
