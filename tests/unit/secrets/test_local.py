"""References, sources of this machine, and the bounded threads."""

import os
import sys
import threading
from pathlib import Path

import pytest

from tests.unit.secrets.test_envelope import OLD, ring
from tests.unit.secrets.world import Ears, MemoryStore, ScriptedSource
from trunkline_server.clock import SystemClock
from trunkline_server.secrets.cloud import (
    AwsSettings,
    AwsSource,
    AzureSettings,
    AzureSource,
    GcpSource,
)
from trunkline_server.secrets.local import RECORD_KIND, EnvSource, FileSource, StoreSource
from trunkline_server.secrets.master_keys import keyring_from
from trunkline_server.secrets.ports import (
    SecretError,
    SecretRefusedError,
    SecretSource,
    SecretUnavailableError,
    SecretValue,
)
from trunkline_server.secrets.records import EncryptedRecords
from trunkline_server.secrets.references import Reference, Sources, pick_field
from trunkline_server.secrets.threads import BlockingPool
from trunkline_server.secrets.vault import TokenAuth, VaultSettings, VaultSource


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("env:KEY", ("env", "KEY", "")),
        ("file:/a/b#c", ("file", "/a/b#c", "")),
        ("vault:secret/app/openai#key", ("vault", "secret/app/openai", "key")),
        (
            "aws:arn:aws:secretsmanager:eu-west-1:1:secret:n-AbCdEf#k",
            ("aws", "arn:aws:secretsmanager:eu-west-1:1:secret:n-AbCdEf", "k"),
        ),
        ("gcp:projects/p/secrets/s", ("gcp", "projects/p/secrets/s", "")),
        ("store:openai", ("store", "openai", "")),
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
    env = ScriptedSource(SecretValue("a", "1"))
    sources = Sources({"env": env})
    assert (await sources.fetch("env:A")).value == "a"
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


async def test_the_environment_is_read() -> None:
    source = EnvSource({"KEY": " value \n", "EMPTY": " "})
    assert (await source.fetch("env:KEY")).value == "value"
    for name in ("MISSING", "EMPTY", "no-name"):
        with pytest.raises(SecretRefusedError):
            await source.fetch(f"env:{name}")


async def test_a_swapped_link_of_a_mounted_secret_is_noticed(tmp_path: Path) -> None:
    """As the kubelet's atomic writer has it: ..data is a link to a folder of that moment."""
    for moment, value in (("..1", "first"), ("..2", "again")):
        (tmp_path / moment).mkdir()
        (tmp_path / moment / "key").write_text(value)
        os.utime(tmp_path / moment / "key", ns=(10**18, 10**18))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "key").symlink_to("..data/key")
    source = FileSource(tmp_path)
    first = await source.fetch("file:key")
    assert first == await source.fetch("file:key")
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    second = await source.fetch("file:key")
    # Of the same size and time: only the file is another one.
    assert (first.value, second.value) == ("first", "again")
    assert first.version != second.version


async def test_files_that_hold_no_secret_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    source = FileSource(tmp_path)
    for name in ("empty", "binary", "large", "missing"):
        with pytest.raises(SecretRefusedError):
            await source.fetch(f"file:{name}")
    with pytest.raises(SecretUnavailableError):
        await source.fetch(f"file:{tmp_path}")


async def test_our_own_records_are_a_source() -> None:
    records = EncryptedRecords(MemoryStore(), ring(k=OLD), Ears())
    etag = await records.write(RECORD_KIND, "openai", b"sk-1")
    source = StoreSource(records)
    assert await source.fetch("store:openai") == SecretValue("sk-1", etag)
    with pytest.raises(SecretRefusedError):
        await source.fetch("store:other")


async def test_master_keys_come_by_reference() -> None:
    keys = await keyring_from(
        {"new": "env:NEW", "old": "env:OLD"}, EnvSource({"NEW": "11" * 32, "OLD": OLD.hex()})
    )
    assert keys.writes_with == "new"
    assert keys.open("secret", "a", ring(old=OLD).seal("secret", "a", b"x")) == b"x"


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
