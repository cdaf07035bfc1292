"""The configuration, as frozen dataclasses: every key, its meaning and its default.

Durations are seconds once read; in the file they are numbers of seconds or texts such as
250ms, 5s, 2m, 1h. Sizes are bytes; in the file numbers or texts such as 16KiB, 32MiB. A key
of the file is the field of the same name. Here is the whole; most sections have a module beside.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from trunkline_server.settings import values as read
from trunkline_server.settings.access import (
    AccessPolicySettings,
    AccessSettings,
    BindingSettings,
    RoleSettings,
)
from trunkline_server.settings.admin import ADMIN_LISTEN, AdminSettings, admin_address
from trunkline_server.settings.audit import AuditSettings
from trunkline_server.settings.caching import CacheSettings
from trunkline_server.settings.identity import (
    CertificateSettings,
    IssuerSettings,
    KeySettings,
    key,
)
from trunkline_server.settings.privacy import PrivacySettings
from trunkline_server.settings.providers import DeploymentSettings, ProviderSettings
from trunkline_server.settings.quotas import BudgetSettings, LimitSettings
from trunkline_server.settings.records import list_of, map_of, record
from trunkline_server.settings.routing import PolicySettings, RoutingSettings
from trunkline_server.settings.secret_managers import SecretsSettings
from trunkline_server.settings.secrets import Secret
from trunkline_server.settings.state import LedgerSettings, StateSettings
from trunkline_server.settings.tenants import ProjectSettings, TenantSettings, TierSettings
from trunkline_server.settings.values import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """`server.tls`: TLS for callers. All paths are PEM files."""

    # The server's certificate chain and its private key.
    cert: Annotated[Path, read.readable_file]
    key: Annotated[Path, read.readable_file]
    # The authorities whose client certificates are accepted. None: no client certificates. Goes
    # with require_client_cert.
    client_ca: Annotated[Path | None, read.readable_file] = None
    # Whether callers must present one.
    require_client_cert: Annotated[bool, read.boolean] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """`server`: how callers reach the router, and how much it takes on."""

    # Where gRPC listens.
    listen: Annotated[str, read.address] = "127.0.0.1:50051"
    # Where /metrics, /healthz and /readyz are served over HTTP. `off`: nowhere.
    ops_listen: Annotated[str, read.address_or_off] = "127.0.0.1:9464"
    # Where the control plane is served. `auto`: at 127.0.0.1:50052 once admin.keys are
    # configured, and otherwise nowhere. `off`: nowhere.
    admin_listen: Annotated[str, admin_address] = "auto"
    # Processes that share the port.
    workers: Annotated[int, read.integer(1, 256)] = 1
    # Where the OpenAI-compatible face is served over HTTP, such as 127.0.0.1:8080. `off`: nowhere.
    openai_listen: Annotated[str, read.address_or_off] = ""
    # None: plain text.
    tls: Annotated[TlsSettings | None, record(TlsSettings)] = None
    # Allows an address that other machines reach while no keys are configured.
    allow_unauthenticated: Annotated[bool, read.boolean] = False
    # The largest message of a caller, and the largest body of a provider.
    max_request_bytes: Annotated[int, read.size(1024)] = 32 * 2**20
    max_response_bytes: Annotated[int, read.size(1024)] = 64 * 2**20
    # The largest metadata of a call, all keys and values together.
    max_metadata_bytes: Annotated[int, read.size(1024, 2**20)] = 16 * 2**10
    # Calls in progress per worker; more are refused as overload.
    max_concurrent_calls: Annotated[int, read.integer(1, 10**6)] = 1000
    # Connections to one provider's host per worker; a call that finds none waits for one as
    # long as for connecting.
    max_upstream_connections: Annotated[int, read.integer(1, 100_000)] = 1000
    # After so long a connection is asked to close, so that load spreads to new replicas, and
    # after the grace its calls are cut.
    max_connection_age: Annotated[float, read.duration(1)] = 1800.0
    max_connection_age_grace: Annotated[float, read.duration(0)] = 600.0
    # An idle connection is pinged after keepalive_time and closed when the answer takes longer
    # than keepalive_timeout; a caller that pings more often than min_ping_interval is cut off.
    keepalive_time: Annotated[float, read.duration(1)] = 60.0
    keepalive_timeout: Annotated[float, read.duration(1)] = 20.0
    min_ping_interval: Annotated[float, read.duration(0)] = 10.0
    # When the server is told to stop: how long it still takes calls while its health says
    # NOT_SERVING, so that balancers notice, and how long calls may then still run.
    drain_notice: Annotated[float, read.duration(0, 300)] = 1.0
    drain_timeout: Annotated[float, read.duration(0)] = 30.0
    # The most time that a call gets, whatever deadline its caller sets.
    default_deadline: Annotated[float, read.duration(0.001)] = 600.0
    # Whether gRPC reflection describes the services to callers.
    reflection: Annotated[bool, read.boolean] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """`telemetry`: logs and traces. Metrics are at `server.ops_listen`."""

    log_level: Annotated[str, read.choice("debug", "info", "warning", "error")] = "info"
    log_format: Annotated[str, read.choice("json", "console")] = "json"
    # Where traces go by OTLP over gRPC, such as http://127.0.0.1:4317. Empty: nowhere.
    otlp_endpoint: Annotated[str, read.base_url] = ""
    # Headers for it. Values may be env:NAME or file:PATH.
    otlp_headers: Annotated[dict[str, str | Secret], read.header_values] = field(
        default_factory=dict
    )
    # The share of calls traced when the caller has not decided.
    trace_ratio: Annotated[float, read.number(0, 1)] = 0.01
    service_name: Annotated[str, read.text] = "trunkline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration."""

    server: Annotated[ServerSettings, record(ServerSettings)] = ServerSettings()
    # By configured name.
    providers: Annotated[dict[str, ProviderSettings], map_of(record(ProviderSettings))]
    deployments: Annotated[tuple[DeploymentSettings, ...], list_of(record(DeploymentSettings))] = ()
    # By public name, and by the NAME in route:NAME.
    models: Annotated[dict[str, PolicySettings], map_of(record(PolicySettings))] = field(
        default_factory=dict
    )
    routes: Annotated[dict[str, PolicySettings], map_of(record(PolicySettings))] = field(
        default_factory=dict
    )
    routing: Annotated[RoutingSettings, record(RoutingSettings)] = field(
        default_factory=RoutingSettings
    )
    # None: callers need none, where that is allowed.
    keys: Annotated[tuple[KeySettings, ...], list_of(key)] = ()
    telemetry: Annotated[TelemetrySettings, record(TelemetrySettings)] = TelemetrySettings()
    state: Annotated[StateSettings, record(StateSettings)] = field(default_factory=StateSettings)
    ledger: Annotated[LedgerSettings, record(LedgerSettings)] = field(
        default_factory=LedgerSettings
    )
    secrets: Annotated[SecretsSettings, record(SecretsSettings)] = field(
        default_factory=SecretsSettings
    )
    cache: Annotated[CacheSettings, record(CacheSettings)] = field(default_factory=CacheSettings)
    # By name.
    limits: Annotated[dict[str, LimitSettings], map_of(record(LimitSettings))] = field(
        default_factory=dict
    )
    budgets: Annotated[dict[str, BudgetSettings], map_of(record(BudgetSettings))] = field(
        default_factory=dict
    )
    # By name; projects by TENANT/PROJECT.
    tenants: Annotated[dict[str, TenantSettings], map_of(record(TenantSettings))] = field(
        default_factory=dict
    )
    projects: Annotated[dict[str, ProjectSettings], map_of(record(ProjectSettings))] = field(
        default_factory=dict
    )
    tiers: Annotated[dict[str, TierSettings], map_of(record(TierSettings))] = field(
        default_factory=dict
    )
    access: Annotated[AccessSettings, record(AccessSettings)] = field(
        default_factory=AccessSettings
    )
    roles: Annotated[dict[str, RoleSettings], map_of(record(RoleSettings))] = field(
        default_factory=dict
    )
    bindings: Annotated[dict[str, BindingSettings], map_of(record(BindingSettings))] = field(
        default_factory=dict
    )
    policies: Annotated[dict[str, AccessPolicySettings], map_of(record(AccessPolicySettings))] = (
        field(default_factory=dict)
    )
    issuers: Annotated[dict[str, IssuerSettings], map_of(record(IssuerSettings))] = field(
        default_factory=dict
    )
    certificates: Annotated[
        tuple[CertificateSettings, ...], list_of(record(CertificateSettings))
    ] = ()
    # None: no audit trail is kept.
    audit: Annotated[AuditSettings | None, record(AuditSettings)] = None
    # None: labels mean nothing, and nothing is masked.
    privacy: Annotated[PrivacySettings | None, record(PrivacySettings)] = None
    admin: Annotated[AdminSettings, record(AdminSettings)] = field(default_factory=AdminSettings)
    # Not keys: the files besides the configuration that its values come from.
    files: tuple[Path, ...] = ()
    # The text that they were read from.
    text: str = field(default="", repr=False, compare=False)
    # Whether what the store owns is yet to be read.
    partial: bool = False
    # What the store says gets no new calls, such as providers/openai, and at which revision.
    drained: frozenset[str] = frozenset()
    revision: int = 0

    @property
    def admin_address(self) -> str:
        """Where the control plane is served; empty is nowhere."""
        if self.server.admin_listen != "auto":
            return self.server.admin_listen
        return ADMIN_LISTEN if self.admin.keys else ""


read_settings: Reader[Settings] = record(Settings)
