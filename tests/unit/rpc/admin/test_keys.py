"""KeyService: secrets are told once; rotation overlaps; revocation is for good."""

import hashlib
import re

import orjson
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from tests.support.admin_server import CallError, Client
from tests.support.admin_world import World
from trunkline.admin import v1 as admin
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.identity.keys import Key, KeyRing, RetiredSecret

DAY = 86_400


async def created(root: Client, name: str = "ci", **fields: object) -> admin.CreateKeyResponse:
    made = admin.Key(name=name, **fields)  # type: ignore[arg-type] # Passed on.
    answer: admin.CreateKeyResponse = await root("KeyService.CreateKey", key=made)
    return answer


def ring(world: World, name: str = "ci") -> KeyRing:
    """The key as the data plane would know it, from what is stored alone."""
    document = orjson.loads(world.resources.rows["keys", name].body)

    def digest(text: str) -> bytes:
        return bytes.fromhex(text.removeprefix("sha256:"))

    def moment(text: str) -> float:
        row = admin.Key()
        row.expires.FromJsonString(text)
        return row.expires.ToNanoseconds() / 1e9

    key = Key(
        name,
        digest(document["hash"]),
        expires=moment(document["expires"]) if "expires" in document else None,
        retired=tuple(
            RetiredSecret(digest(old["hash"]), moment(old["until"]))
            for old in document.get("retired", [])
        ),
    )
    return KeyRing([key])


def opens(world: World, secret: str, at: float) -> bool:
    try:
        ring(world).authenticate(f"Bearer {secret}", at)
    except TrunklineError:
        return False
    return True


async def test_a_secret_opens_and_is_told_once(root: Client, world: World) -> None:
    answer = await created(root)
    assert re.fullmatch(r"tk_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", answer.secret)
    assert answer.secret.startswith(answer.key.prefix + "_")
    assert opens(world, answer.secret, world.clock.now)
    got = (await root("KeyService.GetKey", name="ci")).key
    assert got == answer.key
    listed = await root("KeyService.ListKeys")
    for message in (got, listed, answer.key):
        assert answer.secret not in str(message)
        assert hashlib.sha256(answer.secret.encode()).hexdigest() not in str(message)


async def test_both_secrets_open_until_the_overlap_ends(root: Client, world: World) -> None:
    first = (await created(root)).secret
    answer = await root("KeyService.RotateKey", name="ci", overlap=Duration(seconds=3600))
    now = world.clock.now
    assert answer.secret != first
    assert (answer.key.retired[0].until.seconds, len(answer.key.retired)) == (now + 3600, 1)
    assert first.startswith(answer.key.retired[0].prefix + "_")
    assert opens(world, answer.secret, now)
    assert opens(world, first, now + 3599)
    assert not opens(world, first, now + 3600)
    # A third one: the second is retired as well, and the first keeps its time.
    world.clock.now += 1800
    third = await root("KeyService.RotateKey", name="ci", overlap=Duration(seconds=3600))
    assert [each.until.seconds for each in third.key.retired] == [now + 3600, now + 5400]
    # What has ended is forgotten at the next one.
    world.clock.now += 2000
    fourth = await root("KeyService.RotateKey", name="ci")
    until = [each.until.seconds for each in fourth.key.retired]
    assert until == [now + 5400, world.clock.now + DAY]
    last = await root("KeyService.RotateKey", name="ci", overlap=Duration())
    assert len(last.key.retired) == 2
    assert not opens(world, fourth.secret, world.clock.now)
    assert opens(world, last.secret, world.clock.now)


@pytest.mark.parametrize("seconds", [-1, 90 * DAY + 1])
async def test_overlaps_out_of_bounds(root: Client, seconds: int) -> None:
    await created(root)
    with pytest.raises(CallError) as caught:
        await root("KeyService.RotateKey", name="ci", overlap=Duration(seconds=seconds))
    assert caught.value.violations == [("overlap", "must be from 0 to 7.776e+06 seconds")]


async def test_what_is_revoked_never_opens_again(root: Client, world: World) -> None:
    first = (await created(root)).secret
    second = (await root("KeyService.RotateKey", name="ci")).secret
    revoked = (await root("KeyService.RevokeKey", name="ci")).key
    assert revoked.expires.seconds == world.clock.now
    assert not revoked.retired
    later = admin.Key(name="ci")
    later.expires.FromSeconds(int(world.clock.now) + DAY)
    await root("KeyService.UpdateKey", key=later, update_mask=FieldMask(paths=["expires"]))
    for secret in (first, second):
        assert not opens(world, secret, world.clock.now - 10)
    assert [act.action for act in world.acts] == [
        "admin.keys.create",
        "admin.keys.rotate",
        "admin.keys.revoke",
        "admin.keys.update",
    ]


async def test_an_etag_guards_rotation_and_revocation(root: Client, world: World) -> None:
    answer = await created(root)
    await root("KeyService.UpdateKey", key=admin.Key(name="ci", models=["gpt-*"]))
    for method in ("RotateKey", "RevokeKey"):
        with pytest.raises(CallError) as caught:
            await root(f"KeyService.{method}", name="ci", etag=answer.key.etag)
        assert caught.value.code == "ABORTED"
    assert opens(world, answer.secret, world.clock.now)


async def test_an_update_keeps_the_secret(root: Client, world: World) -> None:
    answer = await created(root)
    asked = admin.Key(name="ci", prefix="tk_forged", models=["gpt-*"])
    for paths in ([], ["*"]):
        got = await root("KeyService.UpdateKey", key=asked, update_mask=FieldMask(paths=paths))
        assert got.key.prefix == answer.key.prefix
        assert opens(world, answer.secret, world.clock.now)
    for path in ("prefix", "retired"):
        with pytest.raises(CallError) as caught:
            await root("KeyService.UpdateKey", key=asked, update_mask=FieldMask(paths=[path]))
        assert "cannot be changed" in caught.value.message


async def test_keys_of_a_tenant(root: Client) -> None:
    for tenant in ("acme", "globex"):
        await root("TenantService.CreateTenant", tenant=admin.Tenant(name=tenant))
    for name, tenant in (("a", "acme"), ("b", "globex"), ("c", "acme"), ("d", "")):
        await created(root, name, tenant=tenant)
    assert await root.names("KeyService.ListKeys", tenant="acme") == [["a", "c"]]
    assert await root.names("KeyService.ListKeys") == [["a", "b", "c", "d"]]
    with pytest.raises(CallError) as caught:
        await root("KeyService.UpdateKey", key=admin.Key(name="a", tenant="globex"))
    assert caught.value.violations == [("key.tenant", "cannot be changed")]
    with pytest.raises(CallError) as caught:
        await created(root, "e", tenant="initech")
    assert caught.value.violations == [("key.tenant", "names no tenant that there is")]
