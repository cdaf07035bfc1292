"""Who may do what, what the trail keeps of it, and what nobody gets to see."""

import logging
from hashlib import sha256

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tests.support.admin_server import SECRETS, CallError, Client
from tests.support.admin_world import World
from trunkline.admin import v1 as admin

LOCAL = admin.Provider(name="local", dialect="openai", base_url="http://127.0.0.1:1/v1")


async def refused(client: Client, method: str, **fields: object) -> CallError:
    with pytest.raises(CallError) as caught:
        await client(method, **fields)
    return caught.value


async def test_strangers_are_turned_away_and_noted(root: Client, world: World) -> None:
    for secret in ("", "tk_nobody-knows-this"):
        error = await refused(root.as_(secret), "ProviderService.ListProviders")
        assert (error.code, error.reason) == ("UNAUTHENTICATED", "AUTHENTICATION")
    assert [(act.actor, act.action, act.outcome) for act in world.acts] == [
        ("unknown", "admin.ProviderService.ListProviders", "denied")
    ] * 2
    assert {act.address for act in world.acts} == {"127.0.0.1"}
    assert all("tk_nobody-knows-this" not in repr(act) for act in world.acts)


async def test_readers_read_and_callers_do_nothing(root: Client, world: World) -> None:
    await root("ProviderService.CreateProvider", provider=LOCAL)
    reader, nobody = root.as_("reader"), root.as_("nobody")
    assert await reader.names("ProviderService.ListProviders") == [["local"]]
    for client, method, fields, permission, target in (
        (reader, "CreateProvider", {"provider": LOCAL}, "write", "providers/local"),
        (reader, "UpdateProvider", {"provider": LOCAL}, "write", "providers/local"),
        (reader, "DeleteProvider", {"name": "local"}, "write", "providers/local"),
        (reader, "DrainProvider", {"name": "local"}, "drain", "providers/local"),
        (nobody, "ListProviders", {}, "read", "providers"),
        (nobody, "GetProvider", {"name": "local"}, "read", "providers/local"),
        # Nobody learns of what is not there.
        (nobody, "GetProvider", {"name": "gone"}, "read", "providers/gone"),
        (nobody, "DeleteProvider", {"name": "gone"}, "write", "providers/gone"),
    ):
        before = len(world.acts)
        error = await refused(client, f"ProviderService.{method}", **fields)
        assert (error.code, error.reason) == ("PERMISSION_DENIED", "AUTHORIZATION")
        assert error.metadata["permission"] == f"admin.providers.{permission}"
        assert error.metadata["resource"] == target
        assert error.metadata["rule"].endswith(".permissions")
        assert len(world.acts) == before + 1
    denied = world.trail.acts[-1]
    assert (denied.outcome, denied.action) == ("denied", "admin.providers.write")
    assert (denied.actor, denied.resource) == ("keys[nobody]", "providers/gone")
    assert denied.details["rule"] == "roles[caller].permissions"
    assert denied.details["method"] == "ProviderService.DeleteProvider"


async def test_one_tenants_admin_stays_within_it(root: Client) -> None:
    acme = root.as_("acme")
    for tenant in ("acme", "globex"):
        await root("TenantService.CreateTenant", tenant=admin.Tenant(name=tenant))
    await root("KeyService.CreateKey", key=admin.Key(name="theirs", tenant="globex"))
    made = admin.Key(name="ours", tenant="acme")
    secret = (await acme("KeyService.CreateKey", key=made)).secret
    assert secret
    assert await acme.names("KeyService.ListKeys", tenant="acme") == [["ours"]]
    assert (await acme("KeyService.GetKey", name="ours")).key.tenant == "acme"
    await acme("KeyService.RotateKey", name="ours")
    await acme("KeyService.DeleteKey", name="ours")
    for method, fields in (
        ("ListKeys", {}),
        ("ListKeys", {"tenant": "globex"}),
        ("GetKey", {"name": "theirs"}),
        ("RotateKey", {"name": "theirs"}),
        ("DeleteKey", {"name": "theirs"}),
        ("CreateKey", {"key": admin.Key(name="free")}),
        ("CreateKey", {"key": admin.Key(name="x", tenant="globex")}),
    ):
        error = await refused(acme, f"KeyService.{method}", **fields)
        assert error.code == "PERMISSION_DENIED", method
    # What is another tenant's looks like what is not there.
    theirs = await refused(acme, "KeyService.GetKey", name="theirs")
    gone = await refused(acme, "KeyService.GetKey", name="gone0")
    assert theirs.message.replace("theirs", "gone0") == gone.message
    assert "globex" not in theirs.message + str(theirs.metadata)
    error = await refused(acme, "TenantService.UpdateTenant", tenant=admin.Tenant(name="acme"))
    assert error.code == "PERMISSION_DENIED"


async def test_nobody_gives_what_they_may_not_give(root: Client, world: World) -> None:
    acme = root.as_("acme")
    await root("TenantService.CreateTenant", tenant=admin.Tenant(name="acme"))
    await root("TenantService.CreateTier", tier=admin.Tier(name="gold"))
    for fields, permission, target in (
        ({"roles": ["admin"]}, "admin.roles.grant", "roles/admin"),
        ({"tier": "gold"}, "admin.tiers.grant", "tiers/gold"),
    ):
        made = admin.Key(name="mine", tenant="acme", **fields)
        error = await refused(acme, "KeyService.CreateKey", key=made)
        assert error.metadata["permission"] == permission
        assert error.metadata["resource"] == target
    await acme("KeyService.CreateKey", key=admin.Key(name="mine", tenant="acme"))
    asked = admin.Key(name="mine", roles=["admin"])
    error = await refused(acme, "KeyService.UpdateKey", key=asked)
    assert error.metadata["permission"] == "admin.roles.grant"
    # Nor do they learn the secret of a key that has it from somebody else.
    await root("KeyService.UpdateKey", key=asked)
    error = await refused(acme, "KeyService.RotateKey", name="mine")
    assert error.metadata["permission"] == "admin.roles.grant"
    # What it had before is no gift: other fields may be changed.
    await acme("KeyService.UpdateKey", key=admin.Key(name="mine", roles=["admin"], user="u"))
    # Taking away is no gift either.
    mask = FieldMask(paths=["roles"])
    got = await acme("KeyService.UpdateKey", key=admin.Key(name="mine"), update_mask=mask)
    assert not got.key.roles


async def test_changing_a_role_is_giving_it(root: Client) -> None:
    writer = root.as_("writer")
    made = admin.Role(name="mine", grants=[admin.Grant(permissions=["admin.roles.write"])])
    mighty = admin.Role(name="mine", grants=[admin.Grant(permissions=["admin.*"])])
    await root("PolicyService.CreateRole", role=made)
    for method, role in (("UpdateRole", mighty), ("CreateRole", admin.Role(name="other"))):
        error = await refused(writer, f"PolicyService.{method}", role=role)
        assert error.metadata["permission"] == "admin.roles.grant"
        assert error.metadata["resource"] == f"roles/{role.name}"
    assert (await root("PolicyService.GetRole", name="mine")).role.grants == made.grants
    await root("PolicyService.UpdateRole", role=mighty)
    assert (await root("PolicyService.GetRole", name="mine")).role.grants == mighty.grants


async def test_changes_are_recorded_with_digests(root: Client, world: World) -> None:
    await root("ProviderService.CreateProvider", provider=LOCAL)
    first = world.resources.rows["providers", "local"].body
    await root("ProviderService.UpdateProvider", provider=admin.Provider(name="local", region="a"))
    second = world.resources.rows["providers", "local"].body
    await root("ProviderService.DeleteProvider", name="local")
    told = [(act.action, act.before, act.after, act.details["fields"]) for act in world.acts]
    one, two = sha256(first).digest(), sha256(second).digest()
    assert told == [
        ("admin.providers.create", None, one, "base_url,dialect"),
        ("admin.providers.update", one, two, "region"),
        ("admin.providers.delete", two, None, "base_url,dialect,region"),
    ]
    for act in world.acts:
        assert (act.actor, act.resource, act.outcome) == ("keys[root]", "providers/local", "ok")
        assert act.at == world.clock.now * 1e6
        assert (act.address, len(act.request_id)) == ("127.0.0.1", 24)


async def test_a_change_that_cannot_be_recorded_does_not_happen(
    root: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(change: object, act: object) -> None:
        raise RuntimeError("the trail is full")

    monkeypatch.setattr(world.trail, "record_within", full)
    error = await refused(root, "ProviderService.CreateProvider", provider=LOCAL)
    assert error.code == "INTERNAL"
    assert not world.resources.rows
    ((operation, request_id, defect),) = world.heard.defects
    assert (operation, str(defect)) == ("ProviderService.CreateProvider", "the trail is full")
    assert error.metadata["request_id"] == request_id
    assert "trail" not in error.message


async def test_a_kind_of_the_file_is_read_and_not_changed(root: Client, world: World) -> None:
    world.files.owned["providers"] = {
        "openai": {"api_key": "env:OPENAI_API_KEY", "connect_timeout": "250ms"},
        "local": {"dialect": "openai", "residency": "eu", "probe": {"interval": 30}},
        "other": {},
    }
    assert await root.names("ProviderService.ListProviders", page_size=2) == [
        ["local", "openai"],
        ["other"],
    ]
    assert await root.names("ProviderService.ListProviders", prefix="o") == [["openai", "other"]]
    got = (await root("ProviderService.GetProvider", name="openai")).provider
    assert (got.etag, got.revision, got.HasField("create_time")) == ("", 0, False)
    assert got.api_key == "env:OPENAI_API_KEY"
    assert got.connect_timeout.ToMilliseconds() == 250
    got = (await root("ProviderService.GetProvider", name="local")).provider
    assert (list(got.residency), got.probe.interval.seconds) == (["eu"], 30)
    for method, fields in (
        ("CreateProvider", {"provider": LOCAL}),
        ("UpdateProvider", {"provider": admin.Provider(name="openai", region="x")}),
        ("DeleteProvider", {"name": "openai"}),
        ("DeleteProvider", {"name": "gone"}),
    ):
        error = await refused(root, f"ProviderService.{method}", **fields)
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "FAILED_PRECONDITION")
        assert error.metadata == {"kind": "providers", "owner": "trunkline.yaml"}
        assert error.message == "providers are owned by trunkline.yaml: change them there"
    assert not world.resources.rows
    error = await refused(root.as_("reader"), "ProviderService.DeleteProvider", name="openai")
    assert error.code == "PERMISSION_DENIED"
    token = (await root("ProviderService.ListProviders", page_size=1)).next_page_token
    for fields in ({"prefix": "o"}, {}):
        changed = token if fields else token[:-2] + "AA"
        error = await refused(root, "ProviderService.ListProviders", page_token=changed, **fields)
        assert error.violations[0][0] == "page_token"


async def test_secrets_are_nowhere_to_be_found(
    root: Client, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Every secret that goes in or comes out is looked for in all that is kept, told or logged."""
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []

    async def do(client: Client, method: str, **fields: object) -> object:
        try:
            answer = await client(method, **fields)
        except CallError as error:
            seen.append(repr(error) + str(error) + repr(error.raw))
            return None
        if hasattr(answer, "secret"):
            secrets.append(answer.secret)
            answer.ClearField("secret")
        seen.append(repr(answer) + str(answer))
        return answer

    secrets = list(SECRETS.values())
    for number, method in enumerate(("CreateKey", "RotateKey", "RotateKey")):
        fields = {"name": "ci"} if number else {"key": admin.Key(name="ci")}
        await do(root, f"KeyService.{method}", **fields)
    value = "sk-live-value-that-nobody-may-see"
    other = "sk-live-other-that-nobody-may-see"
    secrets += [value, other]
    named = admin.Credential(name="openai")
    await do(root, "CredentialService.CreateCredential", credential=named, value=value)
    await do(root, "CredentialService.CreateCredential", credential=named, value=value)
    await do(root, "CredentialService.RotateCredential", name="openai", value=other)
    await do(root, "CredentialService.RotateCredential", name="gone", value=other)
    await do(root, "CredentialService.RotateCredential", name="openai", value=other, etag="x")
    await do(
        root,
        "CredentialService.CreateCredential",
        credential=admin.Credential(name="both", reference="env:X"),
        value=value,
    )
    for client in (root, root.as_("reader"), root.as_("nobody"), root.as_("")):
        await do(client, "CredentialService.CreateCredential", credential=named, value=value)
        for method in ("KeyService.ListKeys", "CredentialService.ListCredentials"):
            await do(client, method)
        await do(client, "KeyService.GetKey", name="ci")
        await do(client, "CredentialService.GetCredential", name="openai")
    # A secret where a reference belongs is refused, and not quoted.
    wrong = admin.Provider(name="p", kind="openai", api_key=value, headers={"x-api-key": other})
    await do(root, "ProviderService.CreateProvider", provider=wrong)
    assert len(secrets) == len(SECRETS) + 5
    kept = [repr(row) for row in world.resources.rows.values()]
    kept += [repr(act) for act in world.acts]
    kept += [repr(each) + str(each[2]) for each in world.heard.refusals]
    kept.append(repr(await world.credentials.get("openai")))
    everything = "\n".join([*seen, *kept, caplog.text])
    assert len(seen) > 20
    assert len(world.acts) > 10
    for secret in secrets:
        assert secret not in everything


async def test_who_may_write_tenants_gives_away_no_role(root: Client) -> None:
    office = root.as_("office")
    await root("TenantService.CreateTier", tier=admin.Tier(name="gold"))
    await office("TenantService.CreateTenant", tenant=admin.Tenant(name="acme"))
    for made, permission in (
        (admin.Tenant(name="t", roles=["admin"]), "admin.roles.grant"),
        (admin.Tenant(name="t", tier="gold"), "admin.tiers.grant"),
    ):
        error = await refused(office, "TenantService.CreateTenant", tenant=made)
        assert error.metadata["permission"] == permission
    binding = admin.Binding(
        name="b", roles=["admin"], callers=admin.CallerMatch(user=["me@example.com"])
    )
    error = await refused(office, "PolicyService.CreateBinding", binding=binding)
    assert error.metadata["permission"] == "admin.roles.grant"
    await root("PolicyService.CreateBinding", binding=binding)
