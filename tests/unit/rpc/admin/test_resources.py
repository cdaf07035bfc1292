"""Resources over the wire: create, get, list, update by mask, delete, on stores in memory."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from tests.support.admin_server import CallError, Client
from tests.support.admin_world import World
from trunkline import v1
from trunkline.admin import v1 as admin

LOCAL = {"dialect": "openai", "base_url": "http://127.0.0.1:1/v1"}


async def provider(root: Client, name: str, **fields: object) -> admin.Provider:
    made = admin.Provider(name=name, **{**LOCAL, **fields})  # type: ignore[arg-type] # Passed on.
    answer = await root("ProviderService.CreateProvider", provider=made)
    created: admin.Provider = answer.provider
    return created


async def test_what_is_created_comes_back(root: Client) -> None:
    made = admin.Provider(
        name="local",
        dialect="openai",
        base_url="http://127.0.0.1:1/v1",
        api_key="env:OTHER_KEY",
        auth=admin.ProviderAuth(header="x-api-key"),
        headers={"x-team": "a"},
        region="eu-west",
        residency=["eu"],
        connect_timeout=Duration(nanos=250_000_000),
        probe=admin.ProviderProbe(interval=Duration(seconds=90)),
    )
    created = (await root("ProviderService.CreateProvider", provider=made)).provider
    assert created.etag
    assert created.revision == 1
    assert created.create_time == created.update_time
    assert created.create_time.seconds > 0
    got = (await root("ProviderService.GetProvider", name="local")).provider
    assert got == created
    for field in admin.Provider.DESCRIPTOR.fields:
        if field.number >= 10:
            assert getattr(got, field.name) == getattr(made, field.name), field.name


async def test_what_is_not_there_is_not_found(root: Client) -> None:
    for method, fields in (
        ("GetProvider", {"name": "gone"}),
        ("UpdateProvider", {"provider": admin.Provider(name="gone", region="x")}),
        ("DeleteProvider", {"name": "gone"}),
        ("DrainProvider", {"name": "gone"}),
        ("GetProviderHealth", {"name": "gone"}),
    ):
        with pytest.raises(CallError) as caught:
            await root(f"ProviderService.{method}", **fields)
        assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", "NOT_FOUND"), method
        assert caught.value.metadata == {"kind": "providers", "name": "gone"}


async def test_a_name_is_taken_once(root: Client, world: World) -> None:
    await provider(root, "local")
    with pytest.raises(CallError) as caught:
        await provider(root, "local", region="elsewhere")
    assert (caught.value.code, caught.value.reason) == ("ALREADY_EXISTS", "ALREADY_EXISTS")
    assert (await root("ProviderService.GetProvider", name="local")).provider.region == ""
    assert world.resources.revision == 1


@pytest.mark.parametrize("name", ["", "with space", "a/b", "-x", "ö", "x" * 129, "a\n"])
async def test_names_that_are_none(root: Client, name: str) -> None:
    with pytest.raises(CallError) as caught:
        await provider(root, name)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.violations[0][0] == "provider.name"


async def test_a_request_without_its_resource(root: Client) -> None:
    for method in ("CreateProvider", "UpdateProvider"):
        with pytest.raises(CallError) as caught:
            await root(f"ProviderService.{method}")
        assert caught.value.violations == [("provider", "is not set")]


async def test_a_request_without_a_name(root: Client) -> None:
    for method, fields, field in (
        ("GetProvider", {}, "name"),
        ("DeleteProvider", {}, "name"),
        ("UpdateProvider", {"provider": admin.Provider(region="eu")}, "provider.name"),
        ("DrainProvider", {}, "name"),
    ):
        with pytest.raises(CallError) as caught:
            await root(f"ProviderService.{method}", **fields)
        assert caught.value.violations == [(field, "is empty")]


async def test_an_old_etag_changes_nothing(root: Client, world: World) -> None:
    first = await provider(root, "local")
    changed = admin.Provider(name="local", etag=first.etag, region="eu")
    second = (await root("ProviderService.UpdateProvider", provider=changed)).provider
    assert second.etag != first.etag
    assert second.region == "eu"
    changed.region = "us"
    for method, fields in (
        ("UpdateProvider", {"provider": changed}),
        ("DeleteProvider", {"name": "local", "etag": first.etag}),
    ):
        with pytest.raises(CallError) as caught:
            await root(f"ProviderService.{method}", **fields)
        assert (caught.value.code, caught.value.reason) == ("ABORTED", "ABORTED")
    assert (await root("ProviderService.GetProvider", name="local")).provider == second
    # Without an etag nothing is asked, and the present one will do.
    await root("ProviderService.UpdateProvider", provider=admin.Provider(name="local", region="x"))
    third = (await root("ProviderService.GetProvider", name="local")).provider
    await root("ProviderService.DeleteProvider", name="local", etag=third.etag)
    assert not world.resources.rows


async def test_only_the_fields_of_the_mask_change(root: Client) -> None:
    await provider(
        root,
        "local",
        region="eu",
        residency=["eu"],
        headers={"x-a": "1"},
        probe=admin.ProviderProbe(path="/health", interval=Duration(seconds=10)),
    )
    asked = admin.Provider(
        name="local",
        region="ignored",
        headers={"x-b": "2"},
        probe=admin.ProviderProbe(path="/ignored", interval=Duration(seconds=20)),
    )
    mask = FieldMask(paths=["headers", "probe.interval", "residency"])
    got = (await root("ProviderService.UpdateProvider", provider=asked, update_mask=mask)).provider
    assert got.region == "eu"
    assert dict(got.headers) == {"x-b": "2"}  # Replaced whole.
    assert list(got.residency) == []  # Not set there, so cleared.
    assert got.probe == admin.ProviderProbe(path="/health", interval=Duration(seconds=20))


async def test_a_nested_field_that_is_not_set_is_cleared(root: Client) -> None:
    await provider(
        root, "local", probe=admin.ProviderProbe(path="/health", interval=Duration(seconds=10))
    )
    asked = admin.Provider(name="local")
    mask = FieldMask(paths=["probe.interval"])
    got = (await root("ProviderService.UpdateProvider", provider=asked, update_mask=mask)).provider
    assert got.probe == admin.ProviderProbe(path="/health")
    mask = FieldMask(paths=["probe"])
    got = (await root("ProviderService.UpdateProvider", provider=asked, update_mask=mask)).provider
    assert not got.HasField("probe")
    # Clearing inside what is not there makes nothing.
    mask = FieldMask(paths=["probe.interval"])
    got = (await root("ProviderService.UpdateProvider", provider=asked, update_mask=mask)).provider
    assert not got.HasField("probe")


async def test_an_empty_mask_is_all_that_is_set(root: Client) -> None:
    await provider(root, "local", region="eu", residency=["eu"])
    got = (
        await root(
            "ProviderService.UpdateProvider", provider=admin.Provider(name="local", region="us")
        )
    ).provider
    assert (got.region, list(got.residency), got.dialect) == ("us", ["eu"], "openai")


async def test_a_star_is_everything(root: Client) -> None:
    await provider(root, "local", region="eu", residency=["eu"])
    asked = admin.Provider(name="local", dialect="openai", base_url="http://127.0.0.1:2/v1")
    got = (
        await root(
            "ProviderService.UpdateProvider",
            provider=asked,
            update_mask=FieldMask(paths=["*"]),
        )
    ).provider
    assert (got.region, list(got.residency), got.dialect) == ("", [], "openai")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("regoin", "leads to no field"),
        ("probe.pth", "leads to no field"),
        ("region.code", "reaches into region, which is replaced whole"),
        ("headers.x-a", "reaches into headers, which is replaced whole"),
        ("residency.0", "reaches into residency, which is replaced whole"),
        ("", "leads to no field"),
        ("probe.", "leads to no field"),
        ("name", "leads to what cannot be changed"),
        ("etag", "leads to what cannot be changed"),
        ("create_time.seconds", "leads to what cannot be changed"),
    ],
)
async def test_paths_that_lead_nowhere(root: Client, world: World, path: str, problem: str) -> None:
    await provider(root, "local")
    with pytest.raises(CallError) as caught:
        await root(
            "ProviderService.UpdateProvider",
            provider=admin.Provider(name="local", region="us"),
            update_mask=FieldMask(paths=["region", path]),
        )
    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.violations == [("update_mask", f"the path {path!r} {problem}")]
    assert world.resources.revision == 1


async def test_zero_is_not_unset(root: Client) -> None:
    await provider(root, "local")
    made = admin.Deployment(
        name="d", provider="local", model="m", weight=0.0, priority=0, enabled=False
    )
    await root("DeploymentService.CreateDeployment", deployment=made)
    got = (await root("DeploymentService.GetDeployment", name="d")).deployment
    for field in ("weight", "priority", "enabled"):
        assert got.HasField(field), field
    assert not got.HasField("quality")
    asked = admin.Deployment(name="d")
    mask = FieldMask(paths=["weight", "enabled"])
    got = (
        await root("DeploymentService.UpdateDeployment", deployment=asked, update_mask=mask)
    ).deployment
    assert not got.HasField("weight")
    assert not got.HasField("enabled")
    assert got.HasField("priority")


async def test_what_would_not_load_is_not_stored(root: Client, world: World) -> None:
    with pytest.raises(CallError) as caught:
        await provider(
            root,
            "local",
            base_url="ftp://nowhere",
            connect_timeout=Duration(seconds=1000),
            probe=admin.ProviderProbe(interval=Duration(nanos=1_000_000)),
        )
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert {field for field, _ in caught.value.violations} == {
        "provider.base_url",
        "provider.connect_timeout",
        "provider.probe.interval",
    }
    assert not world.resources.rows
    assert not world.acts
    await provider(root, "local")
    with pytest.raises(CallError) as caught:
        await root(
            "ProviderService.UpdateProvider",
            provider=admin.Provider(name="local", dialect="esperanto"),
        )
    assert [field for field, _ in caught.value.violations] == ["provider.dialect"]
    assert (await root("ProviderService.GetProvider", name="local")).provider.dialect == "openai"


async def test_a_duration_that_is_none(root: Client) -> None:
    with pytest.raises(CallError) as caught:
        await provider(root, "local", connect_timeout=Duration(seconds=1, nanos=-1))
    assert caught.value.violations == [("provider.connect_timeout", "is out of range")]


async def test_what_others_refer_to_stays(root: Client, world: World) -> None:
    await provider(root, "local")
    made = admin.Deployment(name="d", provider="local", model="m")
    await root("DeploymentService.CreateDeployment", deployment=made)
    await root(
        "RouteService.CreateRoute",
        route=admin.Route(name="r", deployments=["d"], strategy=v1.STRATEGY_LOWEST_COST),
    )
    with pytest.raises(CallError) as caught:
        await root("ProviderService.DeleteProvider", name="local")
    assert caught.value.code == "FAILED_PRECONDITION"
    assert caught.value.reason == "FAILED_PRECONDITION"
    assert caught.value.violations[0][0] == "deployments[d].provider"
    assert "cannot be removed" in caught.value.message
    with pytest.raises(CallError) as caught:
        await root("DeploymentService.DeleteDeployment", name="d")
    assert caught.value.violations[0][0].startswith("routes[r].deployments")
    assert len(world.resources.rows) == 3
    for service, kind, name in (
        ("RouteService", "Route", "r"),
        ("DeploymentService", "Deployment", "d"),
        ("ProviderService", "Provider", "local"),
    ):
        await root(f"{service}.Delete{kind}", name=name)
    assert not world.resources.rows


async def test_a_reference_to_nothing(root: Client) -> None:
    made = admin.Deployment(name="d", provider="nobody", model="m")
    with pytest.raises(CallError) as caught:
        await root("DeploymentService.CreateDeployment", deployment=made)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.violations[0][0] == "deployment.provider"


async def test_what_never_changes(root: Client) -> None:
    await provider(root, "one")
    await provider(root, "two")
    made = admin.Deployment(name="d", provider="one", model="m")
    await root("DeploymentService.CreateDeployment", deployment=made)
    with pytest.raises(CallError) as caught:
        await root(
            "DeploymentService.UpdateDeployment",
            deployment=admin.Deployment(name="d", provider="two"),
        )
    assert caught.value.violations == [("deployment.provider", "cannot be changed")]
    same = admin.Deployment(name="d", provider="one", model="n")
    got = (await root("DeploymentService.UpdateDeployment", deployment=same)).deployment
    assert got.model == "n"


async def test_a_change_that_is_overtaken_is_judged_anew(root: Client, world: World) -> None:
    """Another replica removes the provider between the judgement and the change."""
    await provider(root, "local")

    async def meanwhile() -> None:
        world.resources.before_change = None
        async with world.resources.change() as change:
            await change.delete("providers", "local")

    world.resources.before_change = meanwhile
    made = admin.Deployment(name="d", provider="local", model="m")
    with pytest.raises(CallError) as caught:
        await root("DeploymentService.CreateDeployment", deployment=made)
    assert caught.value.violations[0][0] == "deployment.provider"
    assert not world.resources.rows


async def test_changes_without_end_are_made_to_wait(root: Client, world: World) -> None:
    turns = 0

    async def meanwhile() -> None:
        nonlocal turns
        turns += 1
        world.resources.revision += 1

    world.resources.before_change = meanwhile
    made = await provider(root, "local")
    assert (turns, made.revision) == (4, 5)
    assert [act.action for act in world.acts] == ["admin.providers.create"]


async def test_the_last_judgement_is_the_one_that_counts(root: Client, world: World) -> None:
    turns = 0

    async def meanwhile() -> None:
        nonlocal turns
        turns += 1
        if turns == 4:
            world.resources.before_change = None
            async with world.resources.change() as change:
                await change.create("providers", "local", b'{"region":"theirs"}')
        world.resources.revision += 1

    world.resources.before_change = meanwhile
    with pytest.raises(CallError) as caught:
        await provider(root, "local")
    assert (turns, caught.value.code) == (4, "ALREADY_EXISTS")
    assert world.resources.rows["providers", "local"].body == b'{"region":"theirs"}'
    assert not world.acts


@pytest.mark.parametrize("forgetting", [False, True])
async def test_what_others_changed_since_the_last_change_counts(
    root: Client, world: World, forgetting: bool
) -> None:
    await provider(root, "old")
    async with world.resources.change() as change:
        await change.delete("providers", "old")
        await change.create("providers", "new", b'{"dialect":"openai","base_url":"http://a"}')
    if forgetting:
        world.resources.forgotten = world.resources.revision + 1
    made = admin.Deployment(name="d", provider="new", model="m")
    await root("DeploymentService.CreateDeployment", deployment=made)
    made = admin.Deployment(name="e", provider="old", model="n")
    with pytest.raises(CallError) as caught:
        await root("DeploymentService.CreateDeployment", deployment=made)
    assert caught.value.violations[0][0] == "deployment.provider"
    # Once the file owns a kind, what the store still has of it no longer counts.
    world.files.owned["providers"] = {}
    with pytest.raises(CallError) as caught:
        await root("RouteService.CreateRoute", route=admin.Route(name="r", deployments=["d"]))
    assert caught.value.violations[0][0] == "deployments[d].provider"


async def test_fields_of_a_newer_version_survive_an_update(root: Client, world: World) -> None:
    async with world.resources.change() as change:
        await change.create("tenants", "acme", b'{"display_name":"Acme","since":2031}')
    got = (
        await root(
            "TenantService.UpdateTenant",
            tenant=admin.Tenant(name="acme", display_name="ACME", suspended=True),
        )
    ).tenant
    assert (got.display_name, got.suspended) == ("ACME", True)
    stored = world.resources.rows["tenants", "acme"].body
    assert stored == b'{"display_name":"ACME","since":2031,"suspended":true}'


async def test_a_document_that_cannot_be_read_is_named(root: Client, world: World) -> None:
    async with world.resources.change() as change:
        await change.create("tenants", "acme", b'{"suspended":"perhaps"}')
    with pytest.raises(CallError) as caught:
        await root("TenantService.GetTenant", name="acme")
    assert caught.value.code == "INTERNAL"
    assert caught.value.metadata == {"kind": "tenants", "name": "acme"}
    assert "suspended: is neither true nor false" in caught.value.message


async def test_a_project_has_its_tenants_name_before_its_own(root: Client) -> None:
    await root("TenantService.CreateTenant", tenant=admin.Tenant(name="acme"))
    for name, field in (("search", "name"), ("other/search", "name"), ("acme/a/b", "name")):
        with pytest.raises(CallError) as caught:
            await root(
                "TenantService.CreateProject", project=admin.Project(name=name, tenant="acme")
            )
        assert caught.value.violations[0][0] == f"project.{field}"
    with pytest.raises(CallError) as caught:
        await root("TenantService.CreateProject", project=admin.Project(name="acme/search"))
    assert caught.value.violations == [("project.tenant", "is empty")]
    made = admin.Project(name="acme/search", tenant="acme")
    await root("TenantService.CreateProject", project=made)
    assert await root.names("TenantService.ListProjects", tenant="acme") == [["acme/search"]]
    assert await root.names("TenantService.ListProjects", tenant="other") == [[]]


async def test_a_body_that_is_no_message(root: Client) -> None:
    with pytest.raises(CallError) as caught:
        await root.raw("KeyService.GetKey", b"\xff\xff")
    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.message == "(request): is not a trunkline.admin.v1.GetKeyRequest"


async def test_a_body_that_is_too_large(root: Client) -> None:
    with pytest.raises(CallError) as caught:
        await root.raw("KeyService.GetKey", bytes(2 << 20))
    assert caught.value.message == f"(request): is {2 << 20} bytes; at most {1 << 20} are allowed"


async def test_masks_set_what_may_be_zero(root: Client) -> None:
    await provider(root, "local")
    made = admin.Deployment(name="d", provider="local", model="m", weight=3)
    await root("DeploymentService.CreateDeployment", deployment=made)
    asked = admin.Deployment(name="d", weight=0.0, context_tokens=7, price=admin.Price(input="1.5"))
    mask = FieldMask(paths=["weight", "price", "weight"])
    got = (
        await root("DeploymentService.UpdateDeployment", deployment=asked, update_mask=mask)
    ).deployment
    assert (got.HasField("weight"), got.weight, got.price.input) == (True, 0.0, "1.5")
    assert not got.HasField("context_tokens")


async def test_masks_that_are_none(root: Client) -> None:
    await provider(root, "local")
    for paths, problem in (
        (["*", "region"], "the path '*' stands for all fields, and by itself"),
        ([f"f{number}" for number in range(257)], "has more than 256 paths"),
    ):
        with pytest.raises(CallError) as caught:
            await root(
                "ProviderService.UpdateProvider",
                provider=admin.Provider(name="local"),
                update_mask=FieldMask(paths=paths),
            )
        assert caught.value.violations == [("update_mask", problem)]
