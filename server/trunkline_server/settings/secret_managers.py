"""The configuration of credentials: master keys, secret managers, renewal and rotation."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from trunkline_server.settings import values as read
from trunkline_server.settings.problems import InvalidValueError
from trunkline_server.settings.records import record
from trunkline_server.settings.secrets import Secret
from trunkline_server.settings.values import Context
from trunkline_server.settings.yaml_source import Node

_KUBERNETES_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def _master_keys(node: Node, context: Context) -> dict[str, Secret]:
    """A map of key ids to references."""
    if node.kind != "map":
        raise InvalidValueError("write a map of key ids to references, the one that seals first")
    found = {}
    for key_id, reference in node.entries.items():
        try:
            if not 1 <= len(key_id.encode()) <= 255:
                raise InvalidValueError("a key's id has 1 to 255 bytes")
            if reference.text.startswith("credential:"):
                raise InvalidValueError("a master key cannot be a secret that it is to open")
            found[key_id] = read.provider_secret(reference, context)
        except InvalidValueError as error:
            context.report(reference, str(error))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproleSettings:
    """`secrets.vault.auth.approle`: the approle method."""

    role_id: Annotated[str, read.text]
    # Required, though the type cannot say so.
    secret_id: Annotated[Secret | None, read.secret] = None
    mount: Annotated[str, read.text] = "approle"


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesSettings:
    """`secrets.vault.auth.kubernetes`: the kubernetes method."""

    role: Annotated[str, read.text]
    # Read at every login.
    token_file: Annotated[Path, read.folder] = _KUBERNETES_TOKEN
    mount: Annotated[str, read.text] = "kubernetes"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultAuthSettings:
    """`secrets.vault.auth`: how the router proves itself."""

    # Which of the following.
    method: Annotated[str, read.choice("token", "approle", "kubernetes")]
    token: Annotated[Secret | None, read.secret] = None
    approle: Annotated[ApproleSettings | None, record(ApproleSettings)] = None
    kubernetes: Annotated[KubernetesSettings | None, record(KubernetesSettings)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSettings:
    """`secrets.vault`: HashiCorp Vault, for `vault:` references."""

    url: Annotated[str, read.base_url]
    auth: Annotated[VaultAuthSettings, record(VaultAuthSettings)]
    namespace: Annotated[str, read.text] = ""
    # A PEM file of authorities. None: those of the system.
    ca: Annotated[Path | None, read.readable_file] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSettings:
    """`secrets.aws`: AWS Secrets Manager, for `aws:` references. Empty: as boto3 finds them in
    environment, profile or instance, where the router's own credentials come from in any case."""

    region: Annotated[str, read.text] = ""
    endpoint_url: Annotated[str, read.base_url] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSettings:
    """`secrets.azure`: Azure Key Vault, for `azure:` references."""

    # With {vault} where the vault's name goes; sovereign clouds have their own.
    vault_url: Annotated[str, read.text] = "https://{vault}.vault.azure.net"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsSettings:
    """`secrets`: where providers' credentials come from, and how they are changed."""

    # By key id, references to 32 bytes as base64 or hex. The first seals what the router keeps
    # in its database, all of them open it. Empty: it keeps no credentials.
    master_keys: Annotated[dict[str, Secret], _master_keys] = field(default_factory=dict)
    # What becomes of a start when a secret cannot be had: fail, or skip its providers until it
    # can.
    on_missing: Annotated[str, read.choice("fail", "skip")] = "fail"
    # How long one fetch may take.
    fetch_timeout: Annotated[float, read.duration(0.1, 300)] = 10.0
    # How often a secret is fetched again, and how soon after a fetch or a trial that failed.
    refresh_interval: Annotated[float, read.duration(1)] = 300.0
    retry: Annotated[float, read.duration(0.1, 3600)] = 1.0
    # For how long the last value is used while its manager is away. 0: for ever.
    max_stale: Annotated[float, read.duration(0)] = 0.0
    # For how long the credential before is kept beside its successor.
    grace: Annotated[float, read.duration(0, 30 * 86_400.0)] = 3600.0
    # Whether a new credential is tried at its provider before it is used.
    canary: Annotated[bool, read.boolean] = True
    vault: Annotated[VaultSettings | None, record(VaultSettings)] = None
    aws: Annotated[AwsSettings, record(AwsSettings)] = field(default_factory=AwsSettings)
    azure: Annotated[AzureSettings, record(AzureSettings)] = field(default_factory=AzureSettings)
