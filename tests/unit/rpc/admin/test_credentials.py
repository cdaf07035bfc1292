"""CredentialService: what can be written, what can be seen, what is tried first."""

from itertools import pairwise

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from tests.support.admin_server import CallError, Client
from tests.support.admin_world import World
from trunkline.admin import v1 as admin
from trunkline_server.rpc.admin.ports import Canary


async def created(root: Client, name: str, value: str = "", **fields: str) -> admin.Credential:
    answer = await root(
        "CredentialService.CreateCredential",
        credential=admin.Credential(name=name, **fields),  # type: ignore[arg-type] # Passed on.
        value=value,
    )
    found: admin.Credential = answer.credential
    return found


async def test_a_value_goes_in_and_its_fingerprint_comes_out(root: Client, world: World) -> None:
    made = await created(root, "openai", "sk-1")
    assert world.credentials.values == {"openai": ["sk-1"]}
    (version,) = made.versions
    assert (version.state, len(version.fingerprint)) == (admin.CREDENTIAL_STATE_ACTIVE, 12)
    assert (await root("CredentialService.GetCredential", name="openai")).credential == made
    answer = await root(
        "CredentialService.RotateCredential", name="openai", value="sk-2", etag=made.etag
    )
    assert world.credentials.values == {"openai": ["sk-2", "sk-1"]}
    now, before = answer.credential.versions
    assert (now.state, before.state) == (
        admin.CREDENTIAL_STATE_ACTIVE,
        admin.CREDENTIAL_STATE_GRACE,
    )
    assert before.fingerprint == version.fingerprint != now.fingerprint
    assert before.grace_until.seconds == 3600
    assert answer.canary.verdict == admin.CANARY_VERDICT_SKIPPED
    answer = await root(
        "CredentialService.RotateCredential", name="openai", value="sk-3", grace=Duration()
    )
    assert len(answer.credential.versions) == 1
    with pytest.raises(CallError) as caught:
        await root("CredentialService.DeleteCredential", name="openai", etag=made.etag)
    assert caught.value.code == "ABORTED"
    await root("CredentialService.DeleteCredential", name="openai")
    assert not world.credentials.values
    assert [(act.action, act.details["phase"]) for act in world.acts] == [
        ("admin.credentials.create", "begun"),
        ("admin.credentials.create", "done"),
        ("admin.credentials.rotate", "begun"),
        ("admin.credentials.rotate", "done"),
        ("admin.credentials.rotate", "begun"),
        ("admin.credentials.rotate", "done"),
        ("admin.credentials.delete", "begun"),
        ("admin.credentials.delete", "begun"),
        ("admin.credentials.delete", "done"),
    ]
    digests = [(act.before, act.after) for act in world.acts if act.details["phase"] == "done"]
    assert digests[0][0] is None
    assert digests[-1][1] is None
    for (_, after), (before_, _) in pairwise(digests):
        assert after == before_ is not None


async def test_a_value_that_its_provider_refuses_is_not_used(root: Client, world: World) -> None:
    verdicts = {"good": Canary("accepted"), "bad": Canary("refused", "401 from the provider")}
    world.credentials.tried = verdicts.__getitem__
    made = await created(root, "openai", "good", canary_provider="openai")
    answer = await root("CredentialService.RotateCredential", name="openai", value="bad")
    assert answer.canary == admin.CanaryResult(
        verdict=admin.CANARY_VERDICT_REFUSED, detail="401 from the provider"
    )
    assert answer.credential == made
    assert world.credentials.values == {"openai": ["good"]}
    assert world.acts[-1].details["canary"] == "refused"
    with pytest.raises(CallError) as caught:
        await created(root, "other", "bad", canary_provider="openai")
    assert caught.value.reason == "PROVIDER_CREDENTIALS"


async def test_a_value_or_a_reference(root: Client) -> None:
    for name, value, fields, field in (
        ("", "v", {}, "credential.name"),
        ("a/b", "v", {}, "credential.name"),
        ("a", "", {}, "value"),
        ("a", "v", {"reference": "vault:x#y"}, "value"),
        ("a", "x" * 65_537, {}, "value"),
    ):
        with pytest.raises(CallError) as caught:
            await created(root, name, value, **fields)
        assert caught.value.violations[0][0] == field
    await created(root, "a", reference="vault:x#y")
    with pytest.raises(CallError) as caught:
        await root("CredentialService.RotateCredential", name="a", value="v")
    assert caught.value.violations[0][0] == "value"
    await root("CredentialService.RotateCredential", name="a")


async def test_an_update_by_mask(root: Client) -> None:
    await created(root, "a", reference="vault:x#y", canary_provider="openai")
    asked = admin.Credential(name="a", reference="vault:x#z")
    got = await root("CredentialService.UpdateCredential", credential=asked)
    assert (got.credential.reference, got.credential.canary_provider) == ("vault:x#z", "openai")
    mask = FieldMask(paths=["canary_provider"])
    got = await root("CredentialService.UpdateCredential", credential=asked, update_mask=mask)
    assert (got.credential.reference, got.credential.canary_provider) == ("vault:x#z", "")
    for paths in (["versions"], ["name"], ["value"]):
        with pytest.raises(CallError) as caught:
            await root(
                "CredentialService.UpdateCredential",
                credential=asked,
                update_mask=FieldMask(paths=paths),
            )
        assert caught.value.violations[0][0] == "update_mask"
    with pytest.raises(CallError) as caught:
        await root("CredentialService.UpdateCredential", credential=admin.Credential(name="a"))
    assert caught.value.violations[0][0] == "update_mask"


async def test_pages(root: Client) -> None:
    for name in ("c", "a", "d", "b"):
        await created(root, name, "v")
    assert await root.names("CredentialService.ListCredentials", page_size=3) == [
        ["a", "b", "c"],
        ["d"],
    ]
    token = (await root("CredentialService.ListCredentials", page_size=1)).next_page_token
    with pytest.raises(CallError) as caught:
        await root("CredentialService.ListCredentials", page_token=token, prefix="a")
    assert caught.value.violations[0][0] == "page_token"
