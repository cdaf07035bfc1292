"""Secrets of HashiCorp Vault, by hvac: KV version 1 and 2, and engines that lease.

After Vault's HTTP API (developer.hashicorp.com/vault/api-docs): /sys/internal/ui/mounts tells
which engine a path belongs to, as it does for Vault's own command line.
"""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline_server.clock import Clock
from trunkline_server.secrets.ports import (
    SecretError,
    SecretRefusedError,
    SecretUnavailableError,
    SecretValue,
)
from trunkline_server.secrets.references import Reference, pick, vendor_module
from trunkline_server.secrets.threads import BlockingPool

# Of a token's or lease's life, the share after which it is renewed.
_RENEW_AFTER = 0.6
KUBERNETES_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True, slots=True)
class TokenAuth:
    """A token that was handed out; renewed where Vault lets it be."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AppRoleAuth:
    """The approle method."""

    role_id: str
    secret_id: str = field(repr=False)
    mount: str = "approle"


@dataclass(frozen=True, slots=True)
class KubernetesAuth:
    """The kubernetes method; the service account's token is read at every login, since the
    cluster replaces it."""

    role: str
    token_file: Path = KUBERNETES_TOKEN
    mount: str = "kubernetes"


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """`ca` is a PEM file of authorities; None: those of the system."""

    url: str
    auth: TokenAuth | AppRoleAuth | KubernetesAuth
    namespace: str = ""
    ca: Path | None = None


@dataclass(slots=True)
class _Lease:
    """A leased secret: when it began and ends, in Unix seconds."""

    id: str
    data: dict[str, Any] = field(repr=False)
    renewable: bool
    granted: int
    began: float
    ends: float


class VaultSource:
    """`vault:mount/path#field`."""

    def __init__(self, settings: VaultSettings, pool: BlockingPool, clock: Clock) -> None:
        self._settings = settings
        self._pool = pool
        self._clock = clock
        self._lock = threading.Lock()
        self._client: Any = None
        # When the token is to be renewed and when it ends, Unix seconds; 0: never.
        self._renew_at = 0.0
        self._token_ends = 0.0
        # Engines by path are not remembered: a mount may be upgraded. Leases are, by path.
        self._leases: dict[str, _Lease] = {}

    async def fetch(self, reference: str) -> SecretValue:
        """As SecretSource.fetch."""
        parsed = Reference.parse(reference)
        mount, _, path = parsed.path.partition("/")
        if not mount or not path:
            raise SecretRefusedError(f"{reference}: write vault:mount/path#field")
        hvac = vendor_module("hvac", "vault")
        requests = vendor_module("requests", "vault")
        try:
            return await self._pool.run(reference, lambda: self._fetch(hvac, parsed))
        except (requests.RequestException, OSError) as error:
            raise SecretUnavailableError(
                f"{reference}: Vault cannot be reached: {type(error).__name__}"
            ) from None
        except hvac.exceptions.VaultError as error:
            raise _told(hvac, reference, error) from None

    def close(self) -> None:
        """Closes the connections. What is fetched afterwards logs in anew."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.adapter.close()

    def _fetch(self, hvac: Any, reference: Reference) -> SecretValue:
        # One at a time: the token is the client's, and logins must not cross.
        with self._lock:
            self._authenticate(hvac)
            try:
                return self._read(hvac, reference)
            except hvac.exceptions.Forbidden:
                if isinstance(self._settings.auth, TokenAuth):
                    raise
                # The token may have been revoked; a new login settles whether that was it.
                self._login(hvac)
                return self._read(hvac, reference)

    def _authenticate(self, hvac: Any) -> None:
        now = self._clock.wall()
        if self._client is None or (self._token_ends and now >= self._token_ends):
            self._login(hvac)
        elif self._renew_at and now >= self._renew_at:
            try:
                self._remember(self._client.auth.token.renew_self()["auth"])
            except hvac.exceptions.VaultError:
                # Past its greatest age a token is not renewed.
                self._login(hvac)

    def _login(self, hvac: Any) -> None:
        settings = self._settings
        auth = settings.auth
        if self._client is None:
            self._client = hvac.Client(
                url=settings.url,
                token="",  # Else it would take VAULT_TOKEN or ~/.vault-token.
                namespace=settings.namespace or None,
                verify=str(settings.ca) if settings.ca else True,
                timeout=self._pool.timeout,
                allow_redirects=False,
            )
        client = self._client
        match auth:
            case TokenAuth(token):
                client.token = token
                found = client.auth.token.lookup_self()["data"]
                self._schedule(int(found.get("ttl") or 0), bool(found.get("renewable")))
            case AppRoleAuth(role_id, secret_id, mount):
                reply = client.auth.approle.login(role_id, secret_id, mount_point=mount)
                self._remember(reply["auth"])
            case KubernetesAuth(role, token_file, mount):
                jwt = token_file.read_text(encoding="ascii").strip()
                reply = client.auth.kubernetes.login(role, jwt, mount_point=mount)
                self._remember(reply["auth"])

    def _remember(self, auth: dict[str, Any]) -> None:
        self._client.token = auth["client_token"]
        self._schedule(int(auth.get("lease_duration") or 0), bool(auth.get("renewable")))

    def _schedule(self, seconds: int, renewable: bool) -> None:
        now = self._clock.wall()
        self._token_ends = now + seconds if seconds else 0.0
        self._renew_at = now + seconds * _RENEW_AFTER if seconds and renewable else 0.0

    def _read(self, hvac: Any, reference: Reference) -> SecretValue:
        client, path = self._client, reference.path
        lease = self._leases.get(path)
        if lease is not None and self._renewed(hvac, lease):
            return SecretValue(pick(reference, lease.data), lease.id, lease.ends)
        mount, version = self._mount(hvac, path)
        if version == "2":
            reply = client.secrets.kv.v2.read_secret_version(
                path[len(mount) :], mount_point=mount.rstrip("/"), raise_on_deleted_version=True
            )["data"]
            return SecretValue(pick(reference, reply["data"]), str(reply["metadata"]["version"]))
        reply = client.read(path)
        if reply is None:
            raise SecretRefusedError(f"{reference.text}: Vault has no such secret")
        return self._leased(reference, reply)

    def _leased(self, reference: Reference, reply: dict[str, Any]) -> SecretValue:
        """Of an engine that leases, or of KV version 1, whose lease is but advice on age."""
        seconds = int(reply.get("lease_duration") or 0)
        now = self._clock.wall()
        expires = now + seconds if seconds else None
        version = reply.get("lease_id") or ""
        if version and expires is not None:
            renewable = bool(reply.get("renewable"))
            lease = _Lease(version, reply["data"], renewable, seconds, now, expires)
            self._leases[reference.path] = lease
        return SecretValue(pick(reference, reply["data"]), version or "unversioned", expires)

    def _renewed(self, hvac: Any, lease: _Lease) -> bool:
        """Whether a lease still has most of its first length, if need be by renewing it."""
        now = self._clock.wall()
        if now < lease.began + (lease.ends - lease.began) * _RENEW_AFTER:
            return True
        if not lease.renewable or now >= lease.ends:
            return False
        try:
            reply = self._client.sys.renew_lease(lease.id, increment=lease.granted)
        except (hvac.exceptions.InvalidRequest, hvac.exceptions.Forbidden):
            return False
        seconds = int(reply.get("lease_duration") or 0)
        lease.began, lease.ends = now, now + seconds
        lease.renewable = bool(reply.get("renewable"))
        # Near its greatest age Vault grants less each time: then a new one is due.
        return seconds >= lease.granted / 2

    def _mount(self, hvac: Any, path: str) -> tuple[str, str]:
        """The mount that a path belongs to, with its slash, and its KV version or ""."""
        try:
            reply = self._client.adapter.get(f"/v1/sys/internal/ui/mounts/{path}")["data"]
        except hvac.exceptions.Forbidden:
            # Old servers, and tokens that may read nothing there at all: KV 2 is the default.
            return path.partition("/")[0] + "/", "2"
        options = reply.get("options") or {}
        return str(reply["path"]), str(options.get("version") or "") if reply[
            "type"
        ] == "kv" else ""


def _told(hvac: Any, reference: str, error: Exception) -> SecretError:
    """Vault's error as ours. Its own text is left out: it may quote what was sent."""
    kind = type(error).__name__
    kinds = hvac.exceptions
    refusals = (kinds.Forbidden, kinds.InvalidPath, kinds.InvalidRequest, kinds.Unauthorized)
    if isinstance(error, refusals):
        return SecretRefusedError(f"{reference}: Vault refuses: {kind}")
    return SecretUnavailableError(f"{reference}: Vault fails: {kind}")
