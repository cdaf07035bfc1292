"""The control plane's own gRPC server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry.instrumentation.grpc import aio_server_interceptor, filters
from opentelemetry.trace import TracerProvider

from trunkline.admin.v1 import (
    audit_service_pb2,
    budget_service_pb2,
    credential_service_pb2,
    deployment_service_pb2,
    key_service_pb2,
    limit_service_pb2,
    policy_service_pb2,
    provider_service_pb2,
    route_service_pb2,
    tenant_service_pb2,
    usage_service_pb2,
)
from trunkline_server.governance.access.access import Access
from trunkline_server.governance.audit.ports import AuditStore
from trunkline_server.ledger.live import LiveEvents
from trunkline_server.ledger.queries import UsageQueries
from trunkline_server.rpc.admin.audit import Audit
from trunkline_server.rpc.admin.budgets import Budgets
from trunkline_server.rpc.admin.credentials import CredentialServicer
from trunkline_server.rpc.admin.crud import crud
from trunkline_server.rpc.admin.handlers import Methods, Reception
from trunkline_server.rpc.admin.keys import Keys
from trunkline_server.rpc.admin.kinds import LIMITS, MODELS, PROJECTS, ROUTES, TENANTS, TIERS
from trunkline_server.rpc.admin.policies import PolicyServicer
from trunkline_server.rpc.admin.ports import Balances, Checkpoints, Credentials, Table
from trunkline_server.rpc.admin.providers import Providers
from trunkline_server.rpc.admin.resources import ResourceEngine
from trunkline_server.rpc.admin.usage import Usage
from trunkline_server.rpc.reflection import enable_reflection
from trunkline_server.rpc.server import ServerOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What the services are made of. `credentials` None leaves CredentialService out, and
    `checkpoints` None means that this replica keeps none."""

    engine: ResourceEngine
    table: Table
    balances: Balances
    usage: UsageQueries
    live: LiveEvents
    audit: AuditStore
    checkpoints: Checkpoints | None
    credentials: Credentials | None
    access: Callable[[], Access]


Service = tuple[ServiceDescriptor, Methods]


def services(sources: Sources) -> Sequence[Service]:
    """Every service with its methods."""
    engine = sources.engine
    providers = Providers(engine, sources.table)
    found: list[tuple[object, Methods]] = [
        (provider_service_pb2, providers.provider_methods()),
        (deployment_service_pb2, providers.deployment_methods()),
        (route_service_pb2, {**crud(engine, MODELS), **crud(engine, ROUTES)}),
        (key_service_pb2, Keys(engine).methods()),
        (
            tenant_service_pb2,
            {**crud(engine, TENANTS), **crud(engine, PROJECTS), **crud(engine, TIERS)},
        ),
        (limit_service_pb2, dict(crud(engine, LIMITS))),
        (budget_service_pb2, Budgets(engine, sources.balances).methods()),
        (usage_service_pb2, Usage(sources.usage, sources.live).methods()),
        (audit_service_pb2, Audit(sources.audit, sources.checkpoints).methods()),
        (policy_service_pb2, PolicyServicer(engine, sources.access).methods()),
    ]
    if sources.credentials is not None:
        methods = CredentialServicer(sources.credentials).methods()
        found.append((credential_service_pb2, methods))
    return [(_only_service(module), methods) for module, methods in found]


def _only_service(module: object) -> ServiceDescriptor:
    (service,) = module.DESCRIPTOR.services_by_name.values()  # type: ignore[attr-defined] # Every pb2 module has one.
    found: ServiceDescriptor = service
    return found


class AdminServer:
    """A listening gRPC server of the control plane, with health, reflection and a span for
    every call."""

    def __init__(
        self,
        offered: Sequence[Service],
        reception: Reception,
        options: ServerOptions,
        *,
        credentials: grpc.ServerCredentials | None = None,
        tracing: TracerProvider | None = None,
    ) -> None:
        """`credentials` None serves plain text; `tracing` None is the process's own."""
        self._credentials = credentials
        self._names = [descriptor.full_name for descriptor, _ in offered]
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            interceptors=[
                aio_server_interceptor(  # type: ignore[no-untyped-call] # It has no annotations.
                    tracing, filter_=filters.negate(filters.health_check())
                )
            ],
            options=options.channel_arguments(),
        )
        self._server.add_generic_rpc_handlers(
            [reception.handler(descriptor, methods) for descriptor, methods in offered]
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if options.reflection:
            enable_reflection((*self._names, health.SERVICE_NAME), self._server)

    async def start(self, address: str) -> int:
        """Listens on host:port and serves; returns the port. Raises OSError if it cannot."""
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from error
        for service in ("", *self._names):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        return port

    async def stop(self, patience: float) -> None:
        """Takes no new calls, and gives those under way so many seconds to end."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(patience)
