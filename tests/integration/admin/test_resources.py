"""The control plane over real databases: what only they, and several replicas, can show."""

import asyncio
import random
from hashlib import sha256

import pytest

from tests.integration.admin.conftest import Replica
from tests.support.admin_server import CallError, Client
from trunkline.admin import v1 as admin
from trunkline_server.governance.audit.verify import verify

LOCAL = {"dialect": "openai", "base_url": "http://127.0.0.1:1/v1"}


async def code_of(client: Client, method: str, **fields: object) -> str:
    """The code with which a call ends."""
    try:
        await client(method, **fields)
    except CallError as error:
        return error.code
    return "OK"


async def test_a_resource_from_its_making_to_its_end(replicas: tuple[Replica, Replica]) -> None:
    here, there = (each.client for each in replicas)
    made = admin.Provider(name="local", **LOCAL, residency=["eu"])  # type: ignore[arg-type] # Text.
    created = (await here("ProviderService.CreateProvider", provider=made)).provider
    assert (await there("ProviderService.GetProvider", name="local")).provider == created
    assert await code_of(there, "ProviderService.CreateProvider", provider=made) == (
        "ALREADY_EXISTS"
    )
    asked = admin.Provider(name="local", etag=created.etag, region="eu")
    updated = (await there("ProviderService.UpdateProvider", provider=asked)).provider
    assert (updated.revision, updated.create_time) == (2, created.create_time)
    assert await code_of(here, "ProviderService.UpdateProvider", provider=asked) == "ABORTED"
    assert (
        await code_of(here, "ProviderService.DeleteProvider", name="local", etag=created.etag)
        == "ABORTED"
    )
    await here("ProviderService.DeleteProvider", name="local", etag=updated.etag)
    assert await code_of(there, "ProviderService.GetProvider", name="local") == "NOT_FOUND"


async def test_pages_stay_in_order_while_others_change_the_list(
    replicas: tuple[Replica, Replica],
) -> None:
    """What stays is listed once; what comes and goes is listed at most once."""
    here, there = (each.client for each in replicas)
    stay = [f"t{number:02}" for number in range(0, 40, 2)]
    for name in stay:
        await here("TenantService.CreateTenant", tenant=admin.Tenant(name=name))
    rng = random.Random(11)
    come_and_go = [f"t{number:02}" for number in range(1, 40, 2)]
    rng.shuffle(come_and_go)

    async def disturb() -> None:
        for name in come_and_go:
            await there("TenantService.CreateTenant", tenant=admin.Tenant(name=name))
            if rng.random() < 0.5:
                await there("TenantService.DeleteTenant", name=name)

    async def read() -> list[str]:
        pages = await here.names("TenantService.ListTenants", page_size=3)
        return [name for page in pages for name in page]

    disturbing = asyncio.ensure_future(disturb())
    reads = []
    while not disturbing.done():
        reads.append(await read())
    await disturbing
    reads.append(await read())
    assert len(reads) > 1
    for names in reads:
        assert names == sorted(set(names))
        assert [name for name in names if name in stay] == stay


async def test_tokens_that_no_list_gave(root: Client) -> None:
    for number in range(3):
        await root("TenantService.CreateTenant", tenant=admin.Tenant(name=f"t{number}"))
    token = (await root("TenantService.ListTenants", page_size=1)).next_page_token
    for method, fields in (
        ("TenantService.ListTenants", {"page_token": token, "prefix": "t"}),
        ("TenantService.ListTiers", {"page_token": token}),
        ("TenantService.ListTenants", {"page_token": token[:-3]}),
        ("TenantService.ListTenants", {"page_token": "%%%"}),
    ):
        with pytest.raises(CallError) as caught:
            await root(method, **fields)
        assert caught.value.code == "INVALID_ARGUMENT"
        assert caught.value.violations[0][0] == "page_token"


async def test_of_changes_with_one_etag_one_is_made(replicas: tuple[Replica, Replica]) -> None:
    clients = [each.client for each in replicas]
    made = admin.Tenant(name="acme")
    etag = (await clients[0]("TenantService.CreateTenant", tenant=made)).tenant.etag
    codes = await asyncio.gather(
        *(
            code_of(
                clients[number % 2],
                "TenantService.UpdateTenant",
                tenant=admin.Tenant(name="acme", etag=etag, display_name=f"n{number}"),
            )
            for number in range(8)
        )
    )
    assert sorted(codes) == ["ABORTED"] * 7 + ["OK"]
    winner = (await clients[0]("TenantService.GetTenant", name="acme")).tenant
    assert winner.display_name == f"n{codes.index('OK')}"


async def test_changes_that_do_not_fit_together_are_not_both_made(
    replicas: tuple[Replica, Replica],
) -> None:
    """One replica removes a provider while the other gives it a deployment, many times."""
    here, there = (each.client for each in replicas)
    outcomes = set()
    for number in range(12):
        name = f"p{number}"
        made = admin.Provider(name=name, **LOCAL)  # type: ignore[arg-type] # Text.
        await here("ProviderService.CreateProvider", provider=made)
        deployment = admin.Deployment(name=f"d{number}", provider=name, model=f"m{number}")
        first, second = (here, there) if number % 2 else (there, here)
        removed, added = await asyncio.gather(
            code_of(first, "ProviderService.DeleteProvider", name=name),
            code_of(second, "DeploymentService.CreateDeployment", deployment=deployment),
        )
        outcomes.add((removed, added))
    assert outcomes <= {("OK", "INVALID_ARGUMENT"), ("FAILED_PRECONDITION", "OK")}
    left = [name for page in await here.names("ProviderService.ListProviders") for name in page]
    found = (await here("DeploymentService.ListDeployments")).deployments
    assert sorted(each.provider for each in found) == left


async def test_every_change_is_in_the_trail_and_nothing_else(
    replicas: tuple[Replica, Replica],
) -> None:
    here, there = replicas
    await asyncio.gather(
        *(
            replicas[number % 2].client(
                "TenantService.CreateTenant", tenant=admin.Tenant(name=f"t{number}")
            )
            for number in range(10)
        )
    )
    body = (await here.resources.get("tenants", "t0")).body
    await there.client("TenantService.UpdateTenant", tenant=admin.Tenant(name="t0", suspended=True))
    after = (await here.resources.get("tenants", "t0")).body
    codes = [
        await code_of(here.client, "TenantService.CreateTenant", tenant=admin.Tenant(name="t1")),
        await code_of(here.client, "TenantService.DeleteTenant", name="t2", etag="another"),
        await code_of(here.client.as_("reader"), "TenantService.DeleteTenant", name="t2"),
    ]
    assert codes == ["ALREADY_EXISTS", "ABORTED", "PERMISSION_DENIED"]
    entries = (await here.client("AuditService.ListAuditEntries", action="admin.tenants")).entries
    assert [entry.seq for entry in entries] == list(range(11, 0, -1))
    assert entries[0].action == "admin.tenants.update"
    assert entries[0].before_digest == sha256(body).digest()
    assert entries[0].after_digest == sha256(after).digest()
    assert entries[0].details["fields"] == "suspended"
    assert sorted(entry.resource for entry in entries[1:]) == sorted(
        f"tenants/t{number}" for number in range(10)
    )
    assert (await verify(here.audit.stream)).sound
    (denied,) = here.trail.others
    assert (denied.outcome, denied.resource) == ("denied", "tenants/t2")


async def test_a_drain_is_seen_by_the_other_replica(replicas: tuple[Replica, Replica]) -> None:
    here, there = (each.client for each in replicas)
    made = admin.Provider(name="local", **LOCAL)  # type: ignore[arg-type] # Text.
    await here("ProviderService.CreateProvider", provider=made)
    drain = (await here("ProviderService.DrainProvider", name="local", reason="upkeep")).drain
    health = await there("ProviderService.GetProviderHealth", name="local")
    assert health.drain == drain
    await there("ProviderService.DeleteProvider", name="local")
    await there("ProviderService.CreateProvider", provider=made)
    health = await here("ProviderService.GetProviderHealth", name="local")
    assert not health.HasField("drain")


async def test_a_secret_is_not_in_the_database(replica: Replica) -> None:
    answer = await replica.client("KeyService.CreateKey", key=admin.Key(name="ci"))
    rotated = await replica.client("KeyService.RotateKey", name="ci")
    everything = repr(await replica.resources.read_all(["keys"]))
    everything += repr([record async for record in replica.audit.stream()])
    assert answer.key.prefix in everything
    for secret in (answer.secret, rotated.secret):
        assert secret not in everything
        assert sha256(secret.encode()).hexdigest() in everything
