"""The configuration, as frozen dataclasses: every key, its meaning and its default.

Durations are seconds once read; in the file they are numbers of seconds or texts such as
250ms, 5s, 2m, 1h. Sizes are bytes; in the file numbers or texts such as 16KiB, 32MiB. A key
of the file is the field of the same name.
"""

from dataclasses import dataclass, field
from decimal import Decimal
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
from trunkline_server.settings.quotas import BudgetSettings, LimitSettings
from trunkline_server.settings.records import list_of, map_of, record
from trunkline_server.settings.secret_managers import SecretsSettings
from trunkline_server.settings.secrets import Secret
from trunkline_server.settings.state import LedgerSettings, StateSettings
from trunkline_server.settings.tenants import ProjectSettings, TenantSettings, TierSettings
from trunkline_server.settings.values import Context, Reader
from trunkline_server.settings.yaml_source import Node

STRATEGIES = (
    "priority",
    "weighted",
    "round_robin",
    "lowest_cost",
    "least_latency",
    "highest_availability",
    "feature_based",
    "balanced",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """`server.tls`: TLS for callers. All paths are PEM files."""

    # The server's certificate chain and its private key.
    cert: Annotated[Path, read.readable_file]
    key: Annotated[Path, read.readable_file]
    # The authorities whose client certificates are accepted. None: no client certificates.
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
    # How long calls may still run when the server is told to stop.
    drain_timeout: Annotated[float, read.duration(0)] = 30.0
    # The most time that a call gets, whatever deadline its caller sets.
    default_deadline: Annotated[float, read.duration(0.001)] = 600.0
    # Whether gRPC reflection describes the services to callers.
    reflection: Annotated[bool, read.boolean] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """`providers.NAME.auth`: where the API key stands in a request."""

    # The header's name, such as authorization or x-api-key.
    header: Annotated[str, read.header_name]
    # What stands before the key, such as "Bearer " with its space. Empty: nothing.
    prefix: Annotated[str, read.text_or_empty] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """`providers.NAME.probe`: an active health check, off unless set."""

    # What is fetched with GET, relative to the base URL, credentials included.
    path: Annotated[str, read.text] = "/models"
    # If set, a one-token answer is asked of this model instead, which costs money.
    model: Annotated[str, read.text] = ""
    # How often.
    interval: Annotated[float, read.duration(1)] = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """`providers.NAME`: one vendor endpoint and account. Unset fields come from the kind."""

    # The catalogue row it is made from. Empty: the row of the provider's own name, if any.
    kind: Annotated[str, read.text] = ""
    # The dialect it speaks; needed, with base_url, for hosts that have no row.
    dialect: Annotated[str, read.text] = ""
    base_url: Annotated[str, read.base_url] = ""
    # A reference: env:NAME, file:PATH, or into a secret manager, which `secrets` is about.
    # None: the variable that the row names, if base_url is the row's.
    api_key: Annotated[Secret | None, read.provider_secret] = None
    auth: Annotated[AuthSettings | None, record(AuthSettings)] = None
    # Further headers of every request. Values may be references, as of api_key.
    headers: Annotated[dict[str, str | Secret], read.provider_headers] = field(default_factory=dict)
    # Switches of the dialect, for hosts that deviate from it; each codec documents its own.
    flags: Annotated[dict[str, str | int | bool], read.flags] = field(default_factory=dict)
    # Where the endpoint is, and where it processes data, such as [eu]. Deployments inherit both.
    region: Annotated[str, read.text] = ""
    residency: Annotated[tuple[str, ...] | None, read.words] = None
    # The provider of the price table whose prices hold here.
    price_provider: Annotated[str, read.text] = ""
    # To an established connection, and from the request to the answer's headers.
    connect_timeout: Annotated[float, read.duration(0.001, 300)] = 5.0
    header_timeout: Annotated[float, read.duration(0.001, 86_400)] = 600.0
    probe: Annotated[ProbeSettings | None, record(ProbeSettings)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilitySettings:
    """`deployments[].capabilities`: a list replaces what the catalogue says of the model; a map
    with `add` and `remove` changes it."""

    replace: tuple[str, ...] | None = None
    add: Annotated[tuple[str, ...], read.words] = ()
    remove: Annotated[tuple[str, ...], read.words] = ()


def _capabilities(node: Node, context: Context) -> CapabilitySettings:
    if node.kind == "map":
        return record(CapabilitySettings)(node, context)
    return CapabilitySettings(replace=read.words(node, context))


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSettings:
    """`deployments[].price`: USD per million tokens, `per_request` in USD; exact decimals.

    What is left out is charged as the kind that contains it: cached_input, cache_write and
    input_audio as input, cache_write_1h as cache_write, reasoning and output_audio as output.
    """

    input: Annotated[Decimal | None, read.dollars] = None
    output: Annotated[Decimal | None, read.dollars] = None
    cached_input: Annotated[Decimal | None, read.dollars] = None
    cache_write: Annotated[Decimal | None, read.dollars] = None
    cache_write_1h: Annotated[Decimal | None, read.dollars] = None
    reasoning: Annotated[Decimal | None, read.dollars] = None
    input_audio: Annotated[Decimal | None, read.dollars] = None
    output_audio: Annotated[Decimal | None, read.dollars] = None
    cached_input_audio: Annotated[Decimal | None, read.dollars] = None
    per_request: Annotated[Decimal, read.dollars] = Decimal(0)


def _price(node: Node, context: Context) -> PriceSettings:
    if node.kind == "map" and not {"input", "output"} & node.entries.keys():
        context.report(node, "lacks input and output; set at least one")
    return record(PriceSettings)(node, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSettings:
    """`deployments[]`: a provider's model in a region. Unset facts come from the catalogue."""

    # A key of `providers`, and the vendor's own id of the model.
    provider: Annotated[str, read.text]
    model: Annotated[str, read.text]
    # Unique, without a slash. Empty: PROVIDER-MODEL, slashes as hyphens.
    name: Annotated[str, read.text] = ""
    # Empty or None: the provider's.
    region: Annotated[str, read.text] = ""
    residency: Annotated[tuple[str, ...] | None, read.words] = None
    # For the strategies: the lowest priority goes first; weight is relative, and 0 means only
    # when nothing else is left.
    priority: Annotated[int, read.integer(0, 10**6)] = 0
    weight: Annotated[float, read.number(0, 10**6)] = 1.0
    # From 0 to 1.
    quality: Annotated[float | None, read.number(0, 1)] = None
    capabilities: Annotated[CapabilitySettings | None, _capabilities] = None
    # What fits into the context window, and the most that the model writes.
    context_tokens: Annotated[int | None, read.integer(1, 10**9)] = None
    max_output_tokens: Annotated[int | None, read.integer(1, 10**9)] = None
    # Replaces the price table's price.
    price: Annotated[PriceSettings | None, _price] = None
    # False keeps it out of every plan.
    enabled: Annotated[bool, read.boolean] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSettings:
    """`attempts`: how each target of a plan is tried. None: as `routing.attempts` says."""

    # Further tries of the same target, after a random part of a pause that doubles from
    # backoff_base up to backoff_max.
    retries: Annotated[int | None, read.integer(0, 10)] = None
    backoff_base: Annotated[float | None, read.duration(0, 60)] = None
    backoff_max: Annotated[float | None, read.duration(0, 600)] = None
    # A whole answer in one piece; the first byte of a stream; the longest silence in one. For
    # the first two, 0 leaves it to the caller's deadline.
    attempt_timeout: Annotated[float | None, read.duration(0, 86_400)] = None
    first_byte_timeout: Annotated[float | None, read.duration(0, 86_400)] = None
    idle_timeout: Annotated[float | None, read.duration(0.001, 86_400)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeSettings:
    """`hedge`: a second attempt beside a slow first one; `false` switches it off."""

    # It starts when the first attempt takes longer than this share of earlier ones did, and
    # not before min_delay. A percentile of 0 is none: hedging is off.
    percentile: Annotated[float, read.number(0.5, 0.9999)] = 0.95
    min_delay: Annotated[float, read.duration(0.001, 600)] = 0.05


NO_HEDGE = HedgeSettings(percentile=0.0)


def _hedge(node: Node, context: Context) -> HedgeSettings:
    if node.kind == "bool":
        return HedgeSettings() if read.boolean(node, context) else NO_HEDGE
    return record(HedgeSettings)(node, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceSettings:
    """`balance`: how much each ingredient of the balanced strategy counts."""

    cost: Annotated[float, read.number(0, 1000)] = 0.4
    latency: Annotated[float, read.number(0, 1000)] = 0.3
    availability: Annotated[float, read.number(0, 1000)] = 0.2
    quality: Annotated[float, read.number(0, 1000)] = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """`models.NAME` and `routes.NAME`: a policy over deployments.

    What is unset is as `routing` says. A model lists the deployments that answer under its
    public name, each of which belongs to one model; a deployment that no model lists is
    public under its own model id. A route is asked for as route:NAME and may list any.
    """

    deployments: Annotated[tuple[str, ...], read.texts]
    strategy: Annotated[str | None, read.choice(*STRATEGIES)] = None
    # How many deployments one call may try.
    max_targets: Annotated[int | None, read.integer(1, 20)] = None
    balance: Annotated[BalanceSettings | None, record(BalanceSettings)] = None
    attempts: Annotated[AttemptSettings, record(AttemptSettings)] = AttemptSettings()
    hedge: Annotated[HedgeSettings | None, _hedge] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """`routing.breaker`: when a deployment is left alone, and for how long."""

    # It opens after so many failures in a row, or at this share of failures among at least
    # min_calls recent calls.
    consecutive_failures: Annotated[int, read.integer(1, 10_000)] = 5
    error_rate: Annotated[float, read.number(0.01, 1)] = 0.5
    min_calls: Annotated[int, read.integer(1, 100_000)] = 20
    # For how long, and how many calls then try whether it is well again.
    open_time: Annotated[float, read.duration(0.001, 86_400)] = 10.0
    half_open_calls: Annotated[int, read.integer(1, 1000)] = 2
    # How fast averages of latency and success forget.
    averaging_time: Annotated[float, read.duration(0.1, 86_400)] = 30.0
    # The pause after a rate limit that names none, and the longest that is believed.
    default_cooldown: Annotated[float, read.duration(0, 86_400)] = 5.0
    max_cooldown: Annotated[float, read.duration(0, 86_400)] = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudgetSettings:
    """`routing.retry_budget`: retries and hedges are at most this share of the calls, plus
    `min_per_second`."""

    ratio: Annotated[float, read.number(0, 10)] = 0.2
    min_per_second: Annotated[float, read.number(0, 1e6)] = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixAffinitySettings:
    """`routing.prefix_affinity`: calls that begin alike go where the vendor has their beginning
    cached, when the price says that it pays; `false` switches it off."""

    # How long a vendor is taken to keep a prompt after its last use.
    ttl: Annotated[float, read.duration(1, 86_400)] = 300.0
    # How much is remembered by each worker, in blocks of about 512 tokens. 0: nothing; it is off.
    blocks: Annotated[int, read.integer(1, 10_000_000)] = 100_000
    # What load is worth, as a part of the prompt's price: more spreads calls more evenly.
    load: Annotated[float, read.number(0, 100)] = 0.5


NO_AFFINITY = PrefixAffinitySettings(blocks=0)


def _affinity(node: Node, context: Context) -> PrefixAffinitySettings:
    if node.kind == "bool":
        return PrefixAffinitySettings() if read.boolean(node, context) else NO_AFFINITY
    return record(PrefixAffinitySettings)(node, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSettings:
    """`routing`: what holds for every model and route that does not say otherwise."""

    strategy: Annotated[str, read.choice(*STRATEGIES)] = "priority"
    max_targets: Annotated[int, read.integer(1, 20)] = 3
    balance: Annotated[BalanceSettings, record(BalanceSettings)] = BalanceSettings()
    attempts: Annotated[AttemptSettings, record(AttemptSettings)] = AttemptSettings()
    hedge: Annotated[HedgeSettings, _hedge] = NO_HEDGE
    breaker: Annotated[BreakerSettings, record(BreakerSettings)] = BreakerSettings()
    retry_budget: Annotated[RetryBudgetSettings, record(RetryBudgetSettings)] = (
        RetryBudgetSettings()
    )
    prefix_affinity: Annotated[PrefixAffinitySettings, _affinity] = NO_AFFINITY


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
    routing: Annotated[RoutingSettings, record(RoutingSettings)] = RoutingSettings()
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
