"""A control plane in the test's own event loop: real sockets, real gRPC, real access rules."""

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.trace import NoOpTracerProvider, TracerProvider

from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.access.access import Access
from trunkline_server.governance.access.roles import Grant, Role, Roles
from trunkline_server.governance.identity.identity import Identity
from trunkline_server.governance.identity.keys import Key, KeyRing, digest_of
from trunkline_server.rpc.admin.gate import AccessGate
from trunkline_server.rpc.admin.handlers import Reception
from trunkline_server.rpc.admin.ports import Trail
from trunkline_server.rpc.admin.server import AdminServer, Sources, services
from trunkline_server.rpc.server import ServerOptions

PATIENCE = 20.0

# Keys that callers of the tests show, by the name of the caller.
CALLERS = ("root", "reader", "acme", "writer", "office", "nobody")
SECRETS = {name: f"tk_{name}_secret-of-{name}" for name in CALLERS}
ROLES = (
    Role(
        "acme-admin",
        (
            Grant(
                permissions=("admin.keys.*", "admin.projects.*", "admin.usage.read"),
                resources=("tenants/acme/*",),
            ),
        ),
    ),
    Role("office", (Grant(permissions=("admin.tenants.*", "admin.bindings.*")),)),
    Role("role-writer", (Grant(permissions=("admin.roles.write", "admin.roles.read")),)),
)
_ROLES_OF = {
    "root": "admin",
    "reader": "viewer",
    "acme": "acme-admin",
    "writer": "role-writer",
    "office": "office",
    "nobody": "caller",
}


class SetClock:
    """A clock that stands where it is put."""

    def __init__(self, wall: float = 1_800_000_000.0) -> None:
        self.now = wall

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@dataclass
class Heard:
    """What was heard of calls that failed."""

    refusals: list[tuple[str, str, TrunklineError]] = field(default_factory=list)
    defects: list[tuple[str, str, Exception]] = field(default_factory=list)

    def refused(self, operation: str, caller: str, error: TrunklineError) -> None:
        self.refusals.append((operation, caller, error))

    def defect(self, operation: str, request_id: str, error: Exception) -> None:
        self.defects.append((operation, request_id, error))


def access() -> Access:
    """The access rules of the tests."""
    return Access(roles=Roles(ROLES))


def identity() -> Identity:
    """Keys, each with one role."""
    return Identity(
        KeyRing(
            Key(
                name,
                digest_of(secret),
                roles=frozenset({_ROLES_OF[name]}),
                tenant="acme" if name == "acme" else "",
            )
            for name, secret in SECRETS.items()
        )
    )


@dataclass
class CallError(Exception):
    """A call that failed."""

    code: str
    reason: str
    message: str
    metadata: dict[str, str]
    violations: list[tuple[str, str]]
    raw: bytes

    def __str__(self) -> str:
        return f"{self.code}: {self.message} {self.metadata} {self.violations}"


class Client:
    """Calls the control plane as somebody, by the contract's descriptors."""

    def __init__(self, channel: grpc.aio.Channel, secret: str, target: str) -> None:
        self._channel = channel
        self.target = target
        self._metadata = (("authorization", f"Bearer {secret}"),) if secret else ()

    def as_(self, name: str) -> "Client":
        """The same as another caller, or, for the empty name, as a stranger."""
        return Client(self._channel, SECRETS.get(name, name), self.target)

    async def __call__(self, method: str, request: Any = None, /, **fields: Any) -> Any:
        """The answer to SERVICE.METHOD; the request is made of the fields unless given."""
        path, request, answer = _method(method, request, fields)
        call = self._channel.unary_unary(path, type(request).SerializeToString, answer.FromString)
        try:
            return await call(request, metadata=self._metadata, timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None

    async def raw(self, method: str, body: bytes) -> Any:
        """The answer to whatever bytes stand where a request should."""
        path, _, answer = _method(method, None, {})
        call: Any = self._channel.unary_unary(path, None, answer.FromString)
        try:
            return await call(body, metadata=self._metadata, timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None

    async def stream(self, method: str, **fields: Any) -> AsyncGenerator[Any]:
        """The answers to a streaming method."""
        path, request, answer = _method(method, None, fields)
        call = self._channel.unary_stream(path, type(request).SerializeToString, answer.FromString)
        try:
            async for each in call(request, metadata=self._metadata, timeout=PATIENCE):
                yield each
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None

    async def names(self, method: str, **fields: Any) -> list[list[str]]:
        """The names on every page of a list."""
        pages, token = [], ""
        while True:
            answer = await self(method, page_token=token, **fields)
            ((_, resources), *_) = [
                (row, value) for row, value in answer.ListFields() if row.is_repeated
            ] or [(None, [])]
            pages.append([each.name for each in resources])
            token = answer.next_page_token
            if not token:
                return pages


def _method(method: str, request: Any, fields: dict[str, Any]) -> tuple[str, Any, Any]:
    service, _, name = method.partition(".")
    found = descriptor_pool.Default().FindServiceByName(f"trunkline.admin.v1.{service}")
    row = found.methods_by_name[name]
    made = request if request is not None else GetMessageClass(row.input_type)(**fields)
    return f"/{found.full_name}/{name}", made, GetMessageClass(row.output_type)


def _failure(error: grpc.aio.AioRpcError) -> CallError:
    metadata = error.trailing_metadata()
    raw = cast("bytes", metadata.get("grpc-status-details-bin", b"") if metadata else b"")
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(raw).details:
        detail.Unpack(info) or detail.Unpack(bad)
    return CallError(
        code=error.code().name,
        reason=info.reason.removeprefix("ERROR_REASON_"),
        message=error.details() or "",
        metadata=dict(info.metadata),
        violations=[(each.field, each.description) for each in bad.field_violations],
        raw=raw,
    )


OPTIONS = ServerOptions(
    max_request_bytes=1 << 20,
    max_response_bytes=64 << 20,
    max_metadata_bytes=16 << 10,
    max_connection_age=0,
    max_connection_age_grace=0,
    keepalive_time=60,
    keepalive_timeout=20,
    min_ping_interval=10,
)


@asynccontextmanager
async def serving(
    sources: Sources,
    trail: Trail,
    heard: Heard,
    clock: Clock,
    *,
    tracing: TracerProvider | None = None,
    credentials: grpc.ServerCredentials | None = None,
    trusted: grpc.ChannelCredentials | None = None,
) -> AsyncGenerator[Client]:
    """Serves the control plane, and gives a client that calls it as root. With `credentials`
    it serves TLS, which the client trusts by `trusted`."""
    reception = Reception(
        gate=AccessGate(identity(), access(), clock),
        trail=trail,
        watch=heard,
        clock=clock,
        rng=random.Random(7),
        max_request_bytes=OPTIONS.max_request_bytes,
    )
    server = AdminServer(
        services(sources),
        reception,
        OPTIONS,
        credentials=credentials,
        tracing=tracing or NoOpTracerProvider(),
    )
    port = await server.start("127.0.0.1:0")
    # Channels share connections by address, and ports are given out again.
    options = (("grpc.use_local_subchannel_pool", 1),)
    if trusted is None:
        target = f"127.0.0.1:{port}"
        channel = grpc.aio.insecure_channel(target, options=options)
    else:
        target = f"localhost:{port}"
        channel = grpc.aio.secure_channel(target, trusted, options=options)
    async with channel:
        yield Client(channel, SECRETS["root"], target)
    await server.stop(0)
