"""Secrets of the three clouds' managers, by their vendors' own clients.

Each client is made at its first use and kept: making one parses service models or looks for
the machine's identity, which takes long. Retries are left to the refresher.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trunkline_server.secrets.ports import (
    SecretRefusedError,
    SecretUnavailableError,
    SecretValue,
)
from trunkline_server.secrets.references import Reference, pick_field, vendor_module
from trunkline_server.secrets.threads import BlockingPool


class _Once:
    """Clients by what they are for, each made once whatever threads ask."""

    def __init__(self) -> None:
        # Re-entrant: making one client may need another.
        self._lock = threading.RLock()
        self._made: dict[str, Any] = {}

    def get(self, what: str, make: Callable[[], Any]) -> Any:
        with self._lock:
            if what not in self._made:
                self._made[what] = make()
            return self._made[what]

    def close(self) -> None:
        """Closes all clients."""
        with self._lock:
            made, self._made = self._made, {}
        for client in made.values():
            # Google's has its connections in its transport.
            getattr(client, "transport", client).close()


@dataclass(frozen=True, slots=True)
class AwsSettings:
    """Empty: as boto3 finds them in environment, profile or instance. The credentials always
    come from there."""

    region: str = ""
    endpoint_url: str = ""


class AwsSource:
    """`aws:name-or-arn#field`: AWS Secrets Manager."""

    # After the service's API reference, GetSecretValue, Errors.
    _REFUSALS = frozenset(
        {
            "ResourceNotFoundException",
            "InvalidParameterException",
            "InvalidRequestException",
            "DecryptionFailure",
            "AccessDeniedException",
            "UnrecognizedClientException",
            "InvalidSignatureException",
        }
    )

    def __init__(self, settings: AwsSettings, pool: BlockingPool) -> None:
        self._settings = settings
        self._pool = pool
        self._clients = _Once()

    def close(self) -> None:
        """Closes the connections."""
        self._clients.close()

    async def fetch(self, reference: str) -> SecretValue:
        """As SecretSource.fetch."""
        parsed = Reference.parse(reference)
        boto3 = vendor_module("boto3", "aws")
        core = vendor_module("botocore.exceptions", "aws")
        try:
            return await self._pool.run(reference, lambda: self._fetch(boto3, parsed))
        except core.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in self._REFUSALS:
                raise SecretRefusedError(f"{reference}: AWS refuses: {code}") from None
            raise SecretUnavailableError(f"{reference}: AWS fails: {code}") from None
        except (core.NoCredentialsError, core.NoRegionError) as error:
            kind = type(error).__name__
            raise SecretRefusedError(f"{reference}: AWS is not set up: {kind}") from None
        except core.BotoCoreError as error:
            kind = type(error).__name__
            raise SecretUnavailableError(f"{reference}: AWS cannot be reached: {kind}") from None

    def _fetch(self, boto3: Any, reference: Reference) -> SecretValue:
        name = reference.path
        # arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME
        named = name.split(":")[3] if name.startswith("arn:") and name.count(":") > 5 else ""
        region = named or self._settings.region
        client = self._clients.get(region, lambda: self._connect(boto3, region))
        reply = client.get_secret_value(SecretId=name)
        text = reply.get("SecretString")
        if text is None:
            try:
                text = bytes(reply["SecretBinary"]).decode()
            except UnicodeDecodeError:
                raise SecretRefusedError(f"{reference.text}: the secret is no text") from None
        return SecretValue(pick_field(reference, text), str(reply["VersionId"]))

    def _connect(self, boto3: Any, region: str) -> Any:
        config = vendor_module("botocore.config", "aws").Config(
            connect_timeout=self._pool.timeout / 2,
            read_timeout=self._pool.timeout,
            retries={"total_max_attempts": 1},
        )
        # A session of its own: the default one is not safe to share between threads.
        return boto3.session.Session().client(
            "secretsmanager",
            region_name=region or None,
            endpoint_url=self._settings.endpoint_url or None,
            config=config,
        )


@dataclass(frozen=True, slots=True)
class AzureSettings:
    """`vault_url` has {vault} where the vault's name goes; sovereign clouds have their own.

    `credential` makes an azure-identity credential; None: the default chain (environment,
    workload identity, managed identity). `options` go to the client as they are.
    """

    vault_url: str = "https://{vault}.vault.azure.net"
    credential: Callable[[], Any] | None = None
    options: tuple[tuple[str, Any], ...] = ()


class AzureSource:
    """`azure:vault/name` or `azure:vault/name/version`: Azure Key Vault."""

    def __init__(self, settings: AzureSettings, pool: BlockingPool) -> None:
        self._settings = settings
        self._pool = pool
        self._clients = _Once()

    def close(self) -> None:
        """Closes the connections."""
        self._clients.close()

    async def fetch(self, reference: str) -> SecretValue:
        """As SecretSource.fetch."""
        parsed = Reference.parse(reference)
        vault, _, name = parsed.path.partition("/")
        if not vault or not name:
            raise SecretRefusedError(f"{reference}: write azure:vault/name")
        secrets = vendor_module("azure.keyvault.secrets", "azure")
        core = vendor_module("azure.core.exceptions", "azure")
        try:
            return await self._pool.run(reference, lambda: self._fetch(secrets, parsed))
        except (core.ResourceNotFoundError, core.ClientAuthenticationError) as error:
            kind = type(error).__name__
            raise SecretRefusedError(f"{reference}: Azure refuses: {kind}") from None
        except core.HttpResponseError as error:
            if error.status_code in {400, 403}:
                raise SecretRefusedError(
                    f"{reference}: Azure refuses with HTTP {error.status_code}"
                ) from None
            raise SecretUnavailableError(
                f"{reference}: Azure fails with HTTP {error.status_code}"
            ) from None
        except ValueError:
            # The client's word for an address that is no https URL, and for a vault that asks
            # for a token that is not meant for it.
            raise SecretRefusedError(
                f"{reference}: the vault's address is wrong, or it asks for another's token"
            ) from None
        except core.AzureError as error:
            kind = type(error).__name__
            raise SecretUnavailableError(f"{reference}: Azure cannot be reached: {kind}") from None

    def _fetch(self, secrets: Any, reference: Reference) -> SecretValue:
        vault, _, name = reference.path.partition("/")
        name, _, version = name.partition("/")
        client = self._clients.get(vault, lambda: self._connect(secrets, vault))
        secret = client.get_secret(name, version or None)
        expires = secret.properties.expires_on
        return SecretValue(
            pick_field(reference, secret.value or ""),
            str(secret.properties.version),
            expires.timestamp() if expires else None,
        )

    def _connect(self, secrets: Any, vault: str) -> Any:
        settings = self._settings
        make = settings.credential or self._default_credential
        return secrets.SecretClient(
            settings.vault_url.format(vault=vault),
            self._clients.get("", make),
            connection_timeout=self._pool.timeout / 2,
            read_timeout=self._pool.timeout,
            retry_total=0,
            **dict(settings.options),
        )

    @staticmethod
    def _default_credential() -> Any:
        return vendor_module("azure.identity", "azure").DefaultAzureCredential()


class GcpSource:
    """`gcp:projects/P/secrets/S/versions/V`: Google Secret Manager.

    `connect` makes its client; None: with the application default credentials.
    """

    # gRPC codes of google.api_core's exceptions that another try does not change.
    _REFUSALS = ("NotFound", "PermissionDenied", "Unauthenticated", "InvalidArgument")

    def __init__(self, pool: BlockingPool, connect: Callable[[], Any] | None = None) -> None:
        self._pool = pool
        self._connect = connect
        self._clients = _Once()

    def close(self) -> None:
        """Closes the connections."""
        self._clients.close()

    async def fetch(self, reference: str) -> SecretValue:
        """As SecretSource.fetch."""
        parsed = Reference.parse(reference)
        core = vendor_module("google.api_core.exceptions", "gcp")
        auth = vendor_module("google.auth.exceptions", "gcp")
        try:
            return await self._pool.run(reference, lambda: self._fetch(parsed))
        except core.GoogleAPICallError as error:
            kind = type(error).__name__
            refusals = tuple(getattr(core, name) for name in self._REFUSALS)
            # A disabled version is a FailedPrecondition, which is a BadRequest.
            if isinstance(error, (*refusals, core.FailedPrecondition)):
                raise SecretRefusedError(f"{reference}: Google refuses: {kind}") from None
            raise SecretUnavailableError(f"{reference}: Google fails: {kind}") from None
        except auth.DefaultCredentialsError:
            raise SecretRefusedError(
                f"{reference}: Google's application default credentials are not set up"
            ) from None
        except auth.GoogleAuthError as error:
            kind = type(error).__name__
            raise SecretUnavailableError(f"{reference}: Google cannot be reached: {kind}") from None

    def _fetch(self, reference: Reference) -> SecretValue:
        client = self._clients.get("", self._connect or self._default_client)
        reply = client.access_secret_version(
            request={"name": reference.path}, timeout=self._pool.timeout, retry=None
        )
        try:
            text = reply.payload.data.decode()
        except UnicodeDecodeError:
            raise SecretRefusedError(f"{reference.text}: the secret is no text") from None
        # "latest" comes back as the number it stands for.
        return SecretValue(pick_field(reference, text), reply.name.rpartition("/")[2])

    @staticmethod
    def _default_client() -> Any:
        return vendor_module("google.cloud.secretmanager_v1", "gcp").SecretManagerServiceClient()
