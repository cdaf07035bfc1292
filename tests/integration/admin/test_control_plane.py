"""The control plane of running routers: what is made on one replica serves calls on another."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from tests.support.admin_server import CallError, Client
from tests.support.control import ROOT, Replica, converge, furnish, replica_of, write_config
from tests.support.process import START_SECONDS
from trunkline.admin import v1 as admin
from trunkline_server.simulator.app import Simulator


@pytest.fixture
async def simulator() -> AsyncGenerator[Simulator]:
    async with Simulator(port=0) as running:
        yield running


@pytest.fixture
def config(dsn: str, tmp_path: Path) -> Path:
    """The configuration of replicas on one database."""
    return write_config(tmp_path, dsn)


@pytest.fixture
async def two(config: Path) -> AsyncGenerator[tuple[Replica, Replica]]:
    """Two replicas on it."""
    async with AsyncExitStack() as stack:
        yield (
            await stack.enter_async_context(replica_of(config)),
            await stack.enter_async_context(replica_of(config)),
        )


async def failed(client: Client, method: str, **fields: object) -> CallError:
    """The failure of a call that must fail."""
    with pytest.raises(CallError) as caught:
        await client(method, **fields)
    return caught.value


async def test_what_is_made_on_one_replica_serves_on_another(
    two: tuple[Replica, Replica], simulator: Simulator
) -> None:
    here, there = two
    # Where the store owns the keys, nobody may call before there is one.
    assert await there.calls_as("").code() == "UNAUTHENTICATED"
    secret = await furnish(here.root, simulator)
    await there.reached(5)
    answer = await there.calls_as(secret).generate()
    assert (answer.model, answer.deployment) == ("sim-large", "first")
    assert answer.decision.snapshot_version
    assert await there.calls_as("").code() == "UNAUTHENTICATED"
    assert await there.calls_as(ROOT).code() == "UNAUTHENTICATED"
    # Callers' keys open the control plane as far as their roles reach: this one has none.
    stranger = there.root.as_(secret)
    assert (await failed(stranger, "ProviderService.ListProviders")).code == "PERMISSION_DENIED"
    prices = await there.root("DeploymentService.ListEffectivePrices")
    assert [(each.deployment, each.price.input) for each in prices.prices] == [
        ("first", "2"),
        ("second", "2"),
    ]


async def test_masks_etags_and_wrong_changes(
    two: tuple[Replica, Replica], simulator: Simulator
) -> None:
    here, there = two
    await furnish(here.root, simulator)
    got = (await there.root("DeploymentService.GetDeployment", name="second")).deployment
    changed = admin.Deployment(name="second", etag=got.etag, priority=0, weight=7)
    updated = (
        await there.root(
            "DeploymentService.UpdateDeployment",
            deployment=changed,
            update_mask=FieldMask(paths=["weight"]),
        )
    ).deployment
    assert (updated.weight, updated.priority, updated.price.input) == (7, 1, "2")
    stale = await failed(here.root, "DeploymentService.UpdateDeployment", deployment=changed)
    assert (stale.code, stale.reason) == ("ABORTED", "ABORTED")
    wrong = await failed(
        here.root,
        "DeploymentService.UpdateDeployment",
        deployment=admin.Deployment(name="second", region="eu", quality=3),
    )
    assert (wrong.code, wrong.violations[0][0]) == ("INVALID_ARGUMENT", "deployment.quality")
    used = await failed(here.root, "DeploymentService.DeleteDeployment", name="first")
    assert (used.code, used.violations[0][0]) == (
        "FAILED_PRECONDITION",
        "models[large].deployments[0]",
    )
    secretive = await failed(
        here.root,
        "ProviderService.UpdateProvider",
        provider=admin.Provider(name="sim", api_key="env:DSN"),
    )
    assert secretive.violations == [
        ("provider.api_key", "refers to what state.references does not permit")
    ]
    pages = await here.root.names("DeploymentService.ListDeployments", page_size=1)
    assert pages == [["first"], ["second"]]
    assert (await here.root("AuditService.VerifyAudit")).sound


async def test_a_drain_keeps_new_calls_away(
    two: tuple[Replica, Replica], simulator: Simulator
) -> None:
    here, there = two
    secret = await furnish(here.root, simulator)
    await there.reached(5)
    team = there.calls_as(secret)
    assert (await team.generate()).deployment == "first"
    await here.root("DeploymentService.DrainDeployment", name="first", reason="maintenance")
    await there.reached(6)
    assert (await team.generate()).deployment == "second"
    health = await there.root("ProviderService.GetProviderHealth", name="sim")
    assert [(each.deployment, each.drained) for each in health.deployments] == [
        ("first", True),
        ("second", False),
    ]
    assert health.deployments[1].latency_us > 0
    await here.root("ProviderService.DrainProvider", name="sim")
    await there.reached(7)
    assert await team.code() == "FAILED_PRECONDITION"
    await here.root("ProviderService.UndrainProvider", name="sim")
    await here.root("DeploymentService.UndrainDeployment", name="first")
    await there.reached(9)
    assert (await team.generate()).deployment == "first"


async def test_keys_rotate_with_an_overlap_and_are_revoked_at_once(
    two: tuple[Replica, Replica], simulator: Simulator
) -> None:
    here, there = two
    old = await furnish(here.root, simulator)
    rotated = await here.root("KeyService.RotateKey", name="team", overlap=Duration(seconds=3600))
    await there.reached(6)
    for secret in (old, rotated.secret):
        assert await there.calls_as(secret).code() == "OK"
    await here.root("KeyService.RotateKey", name="team", overlap=Duration())
    await there.reached(7)
    assert await there.calls_as(rotated.secret).code() == "UNAUTHENTICATED"
    # What an earlier rotation promised it keeps.
    assert await there.calls_as(old).code() == "OK"
    await here.root("KeyService.RevokeKey", name="team")
    await there.reached(8)
    assert await there.calls_as(old).code() == "UNAUTHENTICATED"


async def test_changes_under_load_reach_three_replicas_and_fail_no_call(
    config: Path, two: tuple[Replica, Replica], simulator: Simulator
) -> None:
    secret = await furnish(two[0].root, simulator)
    async with replica_of(config) as third:
        replicas = (*two, third)
        for replica in replicas:
            await replica.reached(5)
        found = await converge(replicas, secret, changes=8, callers=2)
    assert found.failures == []
    assert found.calls > 8
    # Every change was decided by on every replica, and all agree in the end.
    assert [len(each) for each in found.seconds] == [3] * 8
    assert len(set(found.versions)) == 1


async def test_what_calls_cost_is_told_and_counted(
    two: tuple[Replica, Replica], simulator: Simulator
) -> None:
    here, there = two
    secret = await furnish(here.root, simulator)
    await here.root(
        "BudgetService.CreateBudget",
        budget=admin.Budget(
            name="team",
            scope=admin.RULE_SCOPE_KEY,
            amount="5",
            period=admin.BUDGET_PERIOD_MONTHLY,
        ),
    )
    await there.reached(6)
    answers = [await there.calls_as(secret).generate() for _ in range(4)]
    spent = sum(answer.cost.total for answer in answers)
    assert spent > 0

    async def used() -> admin.QueryUsageResponse:
        answer: admin.QueryUsageResponse = await here.root(
            "UsageService.QueryUsage",
            group_by=[admin.UsageGroupKey(dimension=admin.USAGE_DIMENSION_KEY_NAME)],
        )
        return answer

    async with asyncio.timeout(START_SECONDS):
        # The other replica's events come by its journal.
        while sum(row.events for row in (await used()).rows) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    (row,) = (await used()).rows
    assert (list(row.group), row.succeeded, row.cost_total_nanos) == (["team"], 4, spent)
    events = await here.root("UsageService.ListUsageEvents", page_size=3)
    assert (len(events.events), bool(events.next_page_token)) == (3, True)
    export = b"".join(
        [part.data async for part in here.root.stream("UsageService.ExportUsage")]
    ).decode()
    assert export.count("\n") >= 5
    # Without Redis each replica counts for itself; the one that was called knows.
    (balance,) = (await there.root("BudgetService.ListBudgetBalances", budget="team")).balances
    assert (balance.subject, balance.spent_nanos) == ("team", spent)
    assert balance.remaining_nanos == 5_000_000_000 - spent
    acts = await here.root("AuditService.ListAuditEntries", action="admin.budgets")
    assert [(each.action, each.actor, each.resource) for each in acts.entries] == [
        ("admin.budgets.create", "admin.keys[root]", "budgets/team")
    ]


async def test_who_may_do_what_on_the_control_plane(two: tuple[Replica, Replica]) -> None:
    here, there = two
    # A role of one's own, a tenant's administrator, and what the rules say of both.
    await here.root("TenantService.CreateTenant", tenant=admin.Tenant(name="acme"))
    await here.root(
        "PolicyService.CreateRole",
        role=admin.Role(
            name="acme-keys",
            grants=[
                admin.Grant(permissions=["admin.keys.*"], resources=["tenants/acme/*"]),
            ],
        ),
    )
    made = await here.root(
        "KeyService.CreateKey", key=admin.Key(name="boss", tenant="acme", roles=["acme-keys"])
    )
    await there.reached(3)
    boss = there.root.as_(made.secret)
    own = await boss("KeyService.CreateKey", key=admin.Key(name="own", tenant="acme"))
    assert own.secret
    theirs = await failed(boss, "KeyService.CreateKey", key=admin.Key(name="theirs"))
    assert (theirs.code, "roles[acme-keys]" in theirs.metadata["rule"]) == (
        "PERMISSION_DENIED",
        True,
    )
    gift = admin.Key(name="gift", tenant="acme", roles=["admin"])
    assert (await failed(boss, "KeyService.CreateKey", key=gift)).code == "PERMISSION_DENIED"
    wrong = admin.Key(name="x", tenant="acme", roles=["nobody-s"])
    refused = await failed(here.root, "KeyService.CreateKey", key=wrong)
    assert (refused.code, refused.violations[0][0]) == ("INVALID_ARGUMENT", "key.roles")
    used = await failed(here.root, "TenantService.DeleteTenant", name="acme")
    assert used.code == "FAILED_PRECONDITION"
