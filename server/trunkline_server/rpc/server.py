"""The gRPC server: its bounds, its TLS, and the services that every operator expects."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from trunkline_server.rpc import inference
from trunkline_server.rpc.reflection import enable_reflection
from trunkline_server.rpc.schemas import SERVICE as SCHEMA_SERVICE
from trunkline_server.rpc.schemas import SchemaServicer

# The transport's own limit stands above the router's, so that a request between the two is
# answered with a typed error and not with the transport's generic one.
_TRANSPORT_SLACK = 4 * 1024 * 1024

_PENDING_CALLS = 1_000_000


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """PEM bytes. `client_ca` empty means that clients show no certificate."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes = b""
    require_client_certificate: bool = False


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Bounds and times of the transport; times in seconds, sizes in bytes."""

    max_request_bytes: int
    max_response_bytes: int
    max_metadata_bytes: int
    max_connection_age: float
    max_connection_age_grace: float
    keepalive_time: float
    keepalive_timeout: float
    min_ping_interval: float
    reuse_port: bool = False
    reflection: bool = True

    def channel_arguments(self) -> list[tuple[str, int]]:
        """The same as gRPC core names it."""
        arguments = [
            ("grpc.so_reuseport", int(self.reuse_port)),
            ("grpc.max_receive_message_length", self.max_request_bytes + _TRANSPORT_SLACK),
            ("grpc.max_send_message_length", self.max_response_bytes),
            ("grpc.max_metadata_size", self.max_metadata_bytes),
            ("grpc.absolute_max_metadata_size", self.max_metadata_bytes),
            ("grpc.keepalive_time_ms", _milliseconds(self.keepalive_time)),
            ("grpc.keepalive_timeout_ms", _milliseconds(self.keepalive_timeout)),
            ("grpc.keepalive_permit_without_calls", 1),
            (
                "grpc.http2.min_recv_ping_interval_without_data_ms",
                _milliseconds(self.min_ping_interval),
            ),
            ("grpc.enable_channelz", 1),
            # Calls that arrive in one burst wait here for the event loop. Beyond its own bound
            # the transport would cancel them without a word; the router refuses them by name.
            ("grpc.server.max_pending_requests", _PENDING_CALLS),
            ("grpc.server.max_pending_requests_hard_limit", _PENDING_CALLS),
        ]
        if self.max_connection_age:
            arguments += [
                ("grpc.max_connection_age_ms", _milliseconds(self.max_connection_age)),
                ("grpc.max_connection_age_grace_ms", _milliseconds(self.max_connection_age_grace)),
            ]
        return arguments


class RpcServer:
    """One listening gRPC server."""

    def __init__(
        self,
        servicer: inference.InferenceServicer,
        options: ServerOptions,
        tls: Callable[[], TlsMaterial] | None = None,
        *,
        schemas: SchemaServicer | None = None,
    ) -> None:
        """`tls` gives the material for each handshake, so that a renewed certificate needs no
        restart; None serves plain text."""
        self._tls = tls
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=options.channel_arguments())
        self._services = [inference.SERVICE]
        self._server.add_generic_rpc_handlers((servicer.handlers(),))
        if schemas is not None:
            self._services.append(SCHEMA_SERVICE)
            self._server.add_generic_rpc_handlers((schemas.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        channelz.add_channelz_servicer(self._server)
        if options.reflection:
            services = (*self._services, health.SERVICE_NAME, "grpc.channelz.v1.Channelz")
            enable_reflection(services, self._server)

    async def start(self, address: str) -> int:
        """Listens on host:port and serves; returns the port. Raises OSError if it cannot."""
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, server_credentials(self._tls))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from error
        for service in ("", *self._services):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        return port

    async def drain(self, notice: float, patience: float) -> None:
        """Stops without failing a call.

        The health service says NOT_SERVING first. After `notice` seconds, in which balancers
        turn away, no new connection is taken, clients are told to go elsewhere, and the calls
        under way have `patience` seconds to end.
        """
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(notice)
        await self._server.stop(patience)


def server_credentials(tls: Callable[[], TlsMaterial]) -> grpc.ServerCredentials:
    """Credentials that are read anew for each handshake. Raises OSError."""
    material = tls()
    latest = material

    def renewed() -> Any:
        nonlocal latest
        current = tls()
        if current == latest:
            return None
        latest = current
        return _configuration(current)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(material), renewed, material.require_client_certificate
    )


def _configuration(material: TlsMaterial) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], material.client_ca or None
    )


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
