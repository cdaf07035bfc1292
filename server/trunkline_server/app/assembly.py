"""From settings to the parts they describe."""

from collections.abc import Callable, Iterable
from functools import partial

from opentelemetry.sdk.trace import TracerProvider

from trunkline_server.app.credentials import Credentials
from trunkline_server.catalogue.compile import CompiledTable, compile_snapshot
from trunkline_server.catalogue.compile import Endpoint as Compiled
from trunkline_server.catalogue.extensions import dialects
from trunkline_server.catalogue.prices import PriceBook
from trunkline_server.clock import Clock
from trunkline_server.engine.ports import Credential, Observer
from trunkline_server.engine.probe import Probe
from trunkline_server.engine.sites import sites_of
from trunkline_server.engine.table import Endpoint, FixedCredential, Following, Gateway, Table
from trunkline_server.privacy.redact import redact, redact_but_machines
from trunkline_server.providers.codec import Codec
from trunkline_server.providers.exchange import ExchangeCodec
from trunkline_server.routing.health import BreakerPolicy, HealthTable
from trunkline_server.rpc.server import ServerOptions, TlsMaterial
from trunkline_server.settings import (
    BreakerSettings,
    GatewaySettings,
    ServerSettings,
    Settings,
    TelemetrySettings,
    TlsSettings,
)
from trunkline_server.telemetry.logs import CallLog, Redaction
from trunkline_server.telemetry.metrics import CallMetrics, Metrics
from trunkline_server.telemetry.observers import Observers
from trunkline_server.telemetry.tracing import CallTracer, otlp_processor, tracer_provider
from trunkline_server.upstream.framing import framing_of


def build_table(
    settings: Settings,
    book: PriceBook,
    now: float,
    previous: HealthTable | None,
    credentials: Credentials | None = None,
) -> Table:
    """The routing table of a configuration, its prices those of `now` in Unix seconds.

    Deployments that were there before keep the health of `previous`. `credentials` None takes
    providers' secrets as the configuration has them.
    """
    if credentials is not None:
        settings = credentials.available(settings)
    compiled = compile_snapshot(settings, book, now=now)
    held = {} if credentials is None else credentials.of(compiled.endpoints)
    endpoints = {
        name: _endpoint(endpoint, held.get(name) or _fixed(endpoint))
        for name, endpoint in compiled.endpoints.items()
    }
    health = HealthTable(compiled.health_names, breaker_policy(settings.routing.breaker), previous)
    manner_of = partial(_manner, compiled)
    return Table(
        compiled.snapshot,
        endpoints,
        health,
        compiled.flags_of,
        compiled.headers_of,
        manner_of=manner_of,
    )


def _following(endpoint: Compiled) -> Following | None:
    codec = dialects()[endpoint.dialect]
    if not isinstance(codec, ExchangeCodec):
        return None
    return Following(codec, sites_of(endpoint.base_url, endpoint.follow))


def _gateway(headers: GatewaySettings | None) -> Gateway | None:
    if headers is None:
        return None
    return Gateway(headers.request_id, headers.trace_id, headers.cache_status)


def _endpoint(endpoint: Compiled, credential: Credential) -> Endpoint:
    return Endpoint(
        provider=endpoint.name,
        codec=dialects()[endpoint.dialect],
        base_url=endpoint.base_url,
        credential=credential,
        connect_timeout=endpoint.connect_timeout,
        header_timeout=endpoint.header_timeout,
        max_body_bytes=endpoint.max_body_bytes,
        framing=framing_of(dialects()[endpoint.dialect]),
        following=_following(endpoint),
        gateway=_gateway(endpoint.gateway),
        sign=credential.sign,
    )


def _manner(compiled: CompiledTable, provider: str, model: str, dialect: str) -> tuple[Codec, bool]:
    """The codec for a model, and whether the model may reason; `dialect` goes before what the
    catalogue says."""
    usual, reasons = compiled.manner_of(provider, model)
    return dialects()[dialect or usual], reasons


def _fixed(endpoint: Compiled) -> FixedCredential:
    if endpoint.cloud is not None:
        raise ValueError(f"{endpoint.name}: nobody keeps the credential that its identity gives")
    secrets = tuple(secret.reveal() for secret in endpoint.secrets)
    return FixedCredential(endpoint.headers, secrets)


def build_probes(settings: Settings) -> dict[str, Probe]:
    """The active health checks, by provider."""
    return {
        name: Probe(provider.probe.path, provider.probe.model, provider.probe.interval)
        for name, provider in settings.providers.items()
        if provider.probe is not None
    }


def breaker_policy(breaker: BreakerSettings) -> BreakerPolicy:
    """The breaker's policy in the routing core's words."""
    return BreakerPolicy(
        consecutive_failures=breaker.consecutive_failures,
        error_rate=breaker.error_rate,
        min_calls=breaker.min_calls,
        open_seconds=breaker.open_time,
        half_open_calls=breaker.half_open_calls,
        ewma_seconds=breaker.averaging_time,
        default_cooldown=breaker.default_cooldown,
        max_cooldown=breaker.max_cooldown,
    )


# The log and traces are redacted whatever is configured.
REDACTION = Redaction(of_others=redact, own=redact_but_machines)


def build_observer(
    telemetry: TelemetrySettings, metrics: Metrics, clock: Clock, others: Iterable[Observer] = ()
) -> tuple[Observer, Callable[[], None]]:
    """What watches calls, `others` among them, and how to flush and close it."""
    observers: list[Observer] = [CallMetrics(metrics), CallLog(telemetry.log_level), *others]
    provider = otlp_provider(telemetry)
    if provider is None:
        return Observers(observers), lambda: None
    # First, so that the others see the span's own trace context.
    observers.insert(0, CallTracer(provider, clock, telemetry.trace_ratio, redact))
    return Observers(observers), provider.shutdown


def otlp_provider(telemetry: TelemetrySettings) -> TracerProvider | None:
    """What sends spans to the collector; None if there is none."""
    if not telemetry.otlp_endpoint:
        return None
    headers = {
        name: value if isinstance(value, str) else value.reveal()
        for name, value in telemetry.otlp_headers.items()
    }
    return tracer_provider(otlp_processor(telemetry.otlp_endpoint, headers), telemetry.service_name)


def server_options(server: ServerSettings, *, shared: bool = True) -> ServerOptions:
    """The transport's bounds and times; `shared` is whether workers share the port."""
    return ServerOptions(
        max_request_bytes=server.max_request_bytes,
        max_response_bytes=server.max_response_bytes,
        max_metadata_bytes=server.max_metadata_bytes,
        max_connection_age=server.max_connection_age,
        max_connection_age_grace=server.max_connection_age_grace,
        keepalive_time=server.keepalive_time,
        keepalive_timeout=server.keepalive_timeout,
        min_ping_interval=server.min_ping_interval,
        reuse_port=shared and server.workers > 1,
        reflection=server.reflection,
    )


def read_tls(tls: TlsSettings) -> TlsMaterial:
    """The certificate, key and authorities as they are on disk now. Raises OSError."""
    return TlsMaterial(
        certificate=tls.cert.read_bytes(),
        key=tls.key.read_bytes(),
        client_ca=tls.client_ca.read_bytes() if tls.client_ca is not None else b"",
        require_client_certificate=tls.require_client_cert,
    )
