"""What services do beside changing documents: drains, health, prices, balances, access."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.support.admin_server import CallError, Client
from tests.support.admin_stores import MemoryResources
from tests.support.admin_world import World
from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server.rpc.admin.ports import Balance, HealthRow


async def stored(resources: MemoryResources, kind: str, **documents: bytes) -> None:
    async with resources.change() as change:
        for name, body in documents.items():
            await change.create(kind, name, body)


async def test_what_is_drained_stays_so_until_it_is_undrained(root: Client, world: World) -> None:
    world.files.owned["providers"] = {"a": {}, "b": {}}
    world.table.rows = [
        HealthRow(
            deployment=name,
            provider=provider,
            available=True,
            circuit_state=v1.CIRCUIT_STATE_CLOSED,
            success_rate=0.75,
            latency=0.25,
            cooldown_remaining=1.5,
            in_flight=3,
            last_failure=v1.ERROR_REASON_TIMEOUT,
        )
        for name, provider in (("d2", "a"), ("d1", "a"), ("d3", "b"))
    ]
    drained = (await root("ProviderService.DrainProvider", name="a", reason="upkeep")).drain
    assert (drained.reason, drained.actor) == ("upkeep", "keys[root]")
    again = (await root("ProviderService.DrainProvider", name="a", reason="more upkeep")).drain
    assert (again.reason, again.since) == ("more upkeep", drained.since)
    health = await root("ProviderService.GetProviderHealth", name="a")
    assert (health.replica, health.drain) == ("replica-1", again)
    assert [each.deployment for each in health.deployments] == ["d1", "d2"]
    first = health.deployments[0]
    assert (first.available, first.drained, first.in_flight) == (False, True, 3)
    assert (first.success_rate, first.latency_us, first.first_token_us) == (0.75, 250_000, 0)
    assert first.cooldown_remaining.ToMilliseconds() == 1500
    assert not first.HasField("open_remaining")
    assert first.last_failure == v1.ERROR_REASON_TIMEOUT
    other = await root("ProviderService.GetProviderHealth", name="b")
    assert not other.HasField("drain")
    assert (other.deployments[0].available, other.deployments[0].drained) == (True, False)
    for _ in range(2):
        await root("ProviderService.UndrainProvider", name="a")
    health = await root("ProviderService.GetProviderHealth", name="a")
    assert not health.HasField("drain")
    assert health.deployments[0].available
    assert [(act.action, act.resource) for act in world.acts] == [
        ("admin.providers.drain", "providers/a"),
        ("admin.providers.drain", "providers/a"),
        ("admin.providers.undrain", "providers/a"),
    ]


async def test_a_drain_goes_with_what_it_drains(root: Client, world: World) -> None:
    await stored(world.resources, "providers", p=b'{"dialect":"openai","base_url":"http://a"}')
    for _ in range(2):
        made = admin.Deployment(name="d", provider="p", model="m")
        await root("DeploymentService.CreateDeployment", deployment=made)
        health = await root("DeploymentService.GetDeploymentHealth", name="d")
        assert not health.HasField("drain")
        assert health.health == admin.DeploymentHealth(deployment="d", provider="p")
        await root("DeploymentService.DrainDeployment", name="d")
        assert (await root("DeploymentService.GetDeploymentHealth", name="d")).HasField("drain")
        await root("DeploymentService.DeleteDeployment", name="d")
        assert [kind for kind, _ in world.resources.rows] == ["providers"]


async def test_a_reason_is_short(root: Client, world: World) -> None:
    world.files.owned["providers"] = {"a": {}}
    with pytest.raises(CallError) as caught:
        await root("ProviderService.DrainProvider", name="a", reason="x" * 501)
    assert caught.value.violations == [("reason", "is longer than 500 characters")]


async def test_prices_come_by_name_and_page(root: Client, world: World) -> None:
    world.table.charged = [
        admin.EffectivePrice(deployment=f"d{place}", provider="pq"[place % 2])
        for place in (4, 1, 3, 0, 2)
    ]
    pages: list[list[str]] = []
    token = ""
    while not pages or token:
        answer = await root("DeploymentService.ListEffectivePrices", page_size=2, page_token=token)
        pages.append([each.deployment for each in answer.prices])
        token = answer.next_page_token
    assert pages == [["d0", "d1"], ["d2", "d3"], ["d4"]]
    answer = await root("DeploymentService.ListEffectivePrices", provider="q")
    assert [each.deployment for each in answer.prices] == ["d1", "d3"]


async def test_balances(root: Client, world: World) -> None:
    await root(
        "BudgetService.CreateBudget",
        budget=admin.Budget(name="cap", scope=admin.RULE_SCOPE_KEY, amount="5.00"),
    )
    world.balances.kept["cap"] = [
        Balance(
            tenant=tenant,
            subject=subject,
            start=1_000_000,
            end=None if subject == "k2" else 2_000_000,
            amount=5_000_000_000,
            spent=4_000_000_000,
            reserved=2_000_000_000,
        )
        for tenant, subject in (("b", "k1"), ("a", "k2"), ("a", "k1"))
    ]
    seen: list[tuple[str, str]] = []
    token = ""
    while not seen or token:
        answer = await root(
            "BudgetService.ListBudgetBalances", budget="cap", page_size=1, page_token=token
        )
        seen += [(each.tenant, each.subject) for each in answer.balances]
        token = answer.next_page_token
    assert seen == [("a", "k1"), ("a", "k2"), ("b", "k1")]
    answer = await root("BudgetService.ListBudgetBalances", budget="cap", tenant="a", subject="k2")
    (only,) = answer.balances
    assert (only.budget, only.remaining_nanos) == ("cap", -1_000_000_000)
    assert only.start_time == Timestamp(seconds=1)
    assert not only.HasField("end_time")
    for budget, code in (("", "INVALID_ARGUMENT"), ("gone", "NOT_FOUND")):
        with pytest.raises(CallError) as caught:
            await root("BudgetService.ListBudgetBalances", budget=budget)
        assert caught.value.code == code


async def test_access_is_tried_and_nothing_done(root: Client, world: World) -> None:
    await stored(world.resources, "tenants", acme=b"{}")
    await root(
        "KeyService.CreateKey",
        key=admin.Key(name="ci", tenant="acme", models=["gpt-*"], networks=["10.0.0.0/8"]),
    )

    async def tried(**fields: object) -> admin.TestAccessResponse:
        answer: admin.TestAccessResponse = await root("PolicyService.TestAccess", **fields)
        return answer

    key = admin.AccessCaller(key="ci")
    asked = {"caller": key, "permission": "inference.generate", "address": "10.1.2.3"}
    answer = await tried(**asked, target="gpt-5")
    assert (answer.allowed, answer.rule, list(answer.roles)) == (True, "", ["caller"])
    answer = await tried(**asked, target="claude")
    assert (answer.allowed, answer.rule) == (False, "keys[ci].models")
    assert "'claude'" in answer.message
    answer = await tried(**{**asked, "address": "192.0.2.1"}, target="gpt-5")
    assert answer.rule == "keys[ci].networks"
    answer = await tried(**{**asked, "permission": "admin.keys.read"}, target="keys/ci")
    assert answer.rule == "roles[caller].permissions"
    who = admin.AccessCaller(attributes=admin.CallerAttributes(roles=["auditor"]))
    answer = await tried(caller=who, permission="admin.audit.verify", target="audit")
    assert answer.allowed
    who.attributes.scopes.append("admin.usage.*")
    answer = await tried(caller=who, permission="admin.audit.verify", target="audit")
    assert answer.rule == "test.scopes"
    for fields, field in (
        ({"permission": "x"}, "caller"),
        ({"caller": key}, "permission"),
        ({**asked, "address": "here"}, "address"),
        (
            {
                "caller": admin.AccessCaller(attributes=admin.CallerAttributes(kind="ghost")),
                "permission": "x",
            },
            "caller.attributes.kind",
        ),
    ):
        with pytest.raises(CallError) as caught:
            await tried(**fields)
        assert caught.value.violations[0][0] == field
    assert [act.action for act in world.acts] == ["admin.keys.create"]


async def test_a_ledger_that_is_away_is_said_to_be_so(root: Client) -> None:
    for method in ("QueryUsage", "ListUsageEvents"):
        with pytest.raises(CallError) as caught:
            await root(f"UsageService.{method}")
        assert (caught.value.code, caught.value.message) == ("UNAVAILABLE", "the database is away")
    with pytest.raises(CallError) as caught:
        _ = [each async for each in root.stream("UsageService.ExportUsage")]
    assert caught.value.code == "UNAVAILABLE"
