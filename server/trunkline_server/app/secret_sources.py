"""The secret managers of a configuration, each by its vendor's own client."""

from trunkline_server.clock import Clock
from trunkline_server.secrets.cloud import (
    AwsSettings,
    AwsSource,
    AzureSettings,
    AzureSource,
    GcpSource,
)
from trunkline_server.secrets.ports import SecretSource, SecretValue
from trunkline_server.secrets.references import Sources
from trunkline_server.secrets.threads import BlockingPool
from trunkline_server.secrets.vault import (
    AppRoleAuth,
    KubernetesAuth,
    TokenAuth,
    VaultSettings,
    VaultSource,
)
from trunkline_server.settings import SecretsSettings
from trunkline_server.settings import VaultSettings as Wanted

# Fetches at the same time; each has a thread.
_WORKERS = 8


class SecretManagers:
    """Every secret manager as one source. Nothing connects before something is fetched."""

    def __init__(self, settings: SecretsSettings, clock: Clock) -> None:
        self._pool = BlockingPool(_WORKERS, settings.fetch_timeout)
        aws = AwsSettings(settings.aws.region, settings.aws.endpoint_url)
        self._aws = AwsSource(aws, self._pool)
        self._azure = AzureSource(AzureSettings(settings.azure.vault_url), self._pool)
        self._gcp = GcpSource(self._pool)
        sources: dict[str, SecretSource] = {
            "aws": self._aws,
            "azure": self._azure,
            "gcp": self._gcp,
        }
        self._vault: VaultSource | None = None
        if settings.vault is not None:
            self._vault = VaultSource(_vault(settings.vault), self._pool, clock)
            sources["vault"] = self._vault
        self._sources = Sources(sources)

    async def fetch(self, reference: str) -> SecretValue:
        """As SecretSource.fetch."""
        return await self._sources.fetch(reference)

    def close(self) -> None:
        """Closes their connections; fetches under way end by themselves."""
        self._pool.close()
        for source in (self._aws, self._azure, self._gcp, self._vault):
            if source is not None:
                source.close()


def _vault(wanted: Wanted) -> VaultSettings:
    auth = wanted.auth
    proof: TokenAuth | AppRoleAuth | KubernetesAuth
    if auth.method == "kubernetes" and auth.kubernetes is not None:
        each = auth.kubernetes
        proof = KubernetesAuth(each.role, each.token_file, each.mount)
    elif auth.method == "approle" and auth.approle is not None and auth.approle.secret_id:
        secret_id = auth.approle.secret_id.reveal()
        proof = AppRoleAuth(auth.approle.role_id, secret_id, auth.approle.mount)
    elif auth.token is not None:
        proof = TokenAuth(auth.token.reveal())
    else:
        raise AssertionError("settings have been checked")
    return VaultSettings(wanted.url, proof, wanted.namespace, wanted.ca)
