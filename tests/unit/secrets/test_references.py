"""References, master keys, and the bounded threads."""

import sys
import threading

import pytest

from tests.unit.secrets.test_envelope import OLD, ring
from tests.unit.secrets.world import ScriptedSource
from trunkline_server.clock import SystemClock
from trunkline_server.secrets.cloud import (
    AwsSettings,
    AwsSource,
    AzureSettings,
    AzureSource,
    GcpSource,
)
from trunkline_server.secrets.master_keys import keyring_of, new_key
from trunkline_server.secrets.ports import (
    SecretError,
    SecretRefusedError,
    SecretSource,
    SecretUnavailableError,
    SecretValue,
)
from trunkline_server.secrets.references import Reference, Sources, pick_field
from trunkline_server.secrets.threads import BlockingPool
from trunkline_server.secrets.vault import TokenAuth, VaultSettings, VaultSource


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("vault:secret/app/openai#key", ("vault", "secret/app/openai", "key")),
        (
            "aws:arn:aws:secretsmanager:eu-west-1:1:secret:n-AbCdEf#k",
            ("aws", "arn:aws:secretsmanager:eu-west-1:1:secret:n-AbCdEf", "k"),
        ),
        ("gcp:projects/p/secrets/s", ("gcp", "projects/p/secrets/s", "")),
    ],
)
def test_references_are_taken_apart(text: str, parts: tuple[str, str, str]) -> None:
    parsed = Reference.parse(text)
    assert (parsed.scheme, parsed.path, parsed.field) == parts


@pytest.mark.parametrize("text", ["sk-oops-the-key-itself", "https://x", "x:y", "vaults:a"])
def test_what_is_no_reference_is_not_quoted(text: str) -> None:
    with pytest.raises(SecretRefusedError) as refused:
        Reference.parse(text)
    assert text not in refused.value.message
    with pytest.raises(SecretRefusedError, match="names nothing"):
        Reference.parse("vault:")


async def test_each_reference_goes_to_its_source() -> None:
    sources = Sources({"aws": ScriptedSource(SecretValue("a", "1"))})
    assert (await sources.fetch("aws:A")).value == "a"
    with pytest.raises(SecretRefusedError, match="no source for vault:"):
        await sources.fetch("vault:a/b")


def test_fields_of_json_secrets() -> None:
    secret = '{"key": "a", "n": 1}'
    assert pick_field(Reference.parse("vault:m/p#key"), secret) == "a"
    assert pick_field(Reference.parse("vault:m/p"), secret) == secret
    for wrong, text in (("x", secret), ("n", secret), ("key", "plain-secret"), ("key", "[1]")):
        with pytest.raises(SecretRefusedError) as refused:
            pick_field(Reference.parse(f"vault:m/p#{wrong}"), text)
        assert "plain-secret" not in refused.value.message


def test_master_keys_are_base64_or_hex_and_the_first_seals() -> None:
    keys = keyring_of({"new": new_key(), "old": OLD.hex()})
    assert keys.writes_with == "new"
    assert keys.open("secret", "a", ring(old=OLD).seal("secret", "a", b"x")) == b"x"
    assert new_key() != new_key()
    for wrong in ("too-short", "x" * 64, "not base64!"):
        with pytest.raises(ValueError, match="master key 'new'") as refused:
            keyring_of({"new": wrong})
        assert wrong not in str(refused.value)


async def test_a_call_that_hangs_is_given_up_and_the_pool_lives_on() -> None:
    pool = BlockingPool(workers=2, timeout=0.05)
    release = threading.Event()
    with pytest.raises(SecretUnavailableError, match="vault:a/b: no answer within"):
        await pool.run("vault:a/b", release.wait)
    assert await pool.run("vault:a/b", lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await pool.run("vault:a/b", lambda: 1 // 0)
    release.set()
    pool.close()


@pytest.mark.parametrize(
    ("modules", "extra", "reference"),
    [
        (["hvac"], "vault", "vault:secret/a#b"),
        (["boto3"], "aws", "aws:a"),
        (["azure.keyvault.secrets"], "azure", "azure:a/b"),
        (["google.api_core.exceptions"], "gcp", "gcp:projects/p/secrets/s/versions/1"),
    ],
)
async def test_an_absent_client_is_told_with_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch, modules: list[str], extra: str, reference: str
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    pool = BlockingPool(1)
    vault = VaultSettings("http://127.0.0.1:1", TokenAuth("t"))
    sources: dict[str, SecretSource] = {
        "vault": VaultSource(vault, pool, SystemClock()),
        "aws": AwsSource(AwsSettings(), pool),
        "azure": AzureSource(AzureSettings(), pool),
        "gcp": GcpSource(pool),
    }
    with pytest.raises(SecretError, match=rf"trunkline-server\[{extra}\]"):
        await Sources(sources).fetch(reference)
    pool.close()
