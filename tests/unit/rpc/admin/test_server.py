"""The server itself: what it offers, its health, and the spans of its calls."""

import asyncio
import random
from itertools import chain

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.admin_server import (
    OPTIONS,
    CallError,
    Client,
    access,
    identity,
    serving,
)
from tests.support.admin_stores import MemoryTrail
from tests.support.admin_world import World
from trunkline.admin import v1 as admin
from trunkline.admin.v1 import key_service_pb2
from trunkline_server.clock import SystemClock
from trunkline_server.rpc.admin.gate import AccessGate
from trunkline_server.rpc.admin.handlers import Reception
from trunkline_server.rpc.admin.server import AdminServer, services

SERVICES = {
    f"trunkline.admin.v1.{name}Service"
    for name in (
        *("Audit", "Budget", "Credential", "Deployment", "Key", "Limit", "Policy", "Provider"),
        *("Route", "Tenant", "Usage"),
    )
}


async def test_every_service_of_the_contract_is_offered(world: World) -> None:
    offered = {descriptor.full_name: methods for descriptor, methods in services(world.sources())}
    assert offered.keys() == SERVICES
    for descriptor, methods in services(world.sources()):
        assert {method.name for method in descriptor.methods} == methods.keys()


async def test_a_method_too_many_or_too_few_is_refused(world: World, root: Client) -> None:
    reception = Reception(
        gate=AccessGate(identity(), access(), world.clock),
        trail=MemoryTrail(),
        watch=world.heard,
        clock=SystemClock(),
        rng=random.Random(1),
        max_request_bytes=1,
    )
    (service,) = key_service_pb2.DESCRIPTOR.services_by_name.values()
    methods = next(methods for found, methods in services(world.sources()) if found == service)
    reception.handler(service, methods)
    fewer = {name: method for name, method in methods.items() if name != "RotateKey"}
    with pytest.raises(ValueError, match="RotateKey"):
        reception.handler(service, fewer)
    with pytest.raises(ValueError, match="Another"):
        reception.handler(service, {**methods, "Another": methods["GetKey"]})


async def test_health_of_each_service(root: Client) -> None:
    stub = health_pb2_grpc.HealthStub(root._channel)
    for service in ("", *SERVICES):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_tells_the_contract(root: Client) -> None:
    target = root.target

    def ask() -> tuple[set[str], list[str]]:
        with grpc.insecure_channel(target) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            file = database.FindFileContainingSymbol("trunkline.admin.v1.KeyService")
            return set(database.get_services()), [each.name for each in file.service]

    offered, found = await asyncio.to_thread(ask)
    assert offered >= SERVICES
    assert found == ["KeyService"]


async def test_a_span_for_each_call_and_none_of_its_secrets(world: World) -> None:
    spans = InMemorySpanExporter()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    async with world.serving(tracing) as root:
        secret = (await root("KeyService.CreateKey", key=admin.Key(name="ci"))).secret
        with pytest.raises(CallError):
            await root("KeyService.GetKey", name="gone")
        _ = [each async for each in root.stream("AuditService.ExportAudit")]
        stub = health_pb2_grpc.HealthStub(root._channel)
        await stub.Check(health_pb2.HealthCheckRequest())
    finished = spans.get_finished_spans()
    assert [span.name for span in finished] == [
        "/trunkline.admin.v1.KeyService/CreateKey",
        "/trunkline.admin.v1.KeyService/GetKey",
        "/trunkline.admin.v1.AuditService/ExportAudit",
    ]
    codes = [(span.attributes or {}).get("rpc.grpc.status_code") for span in finished]
    assert codes == [0, 5, 0]
    told = "".join(span.to_json() for span in finished)
    for value in chain((secret,), (value for _, value in root._metadata)):
        assert value not in told
    tracing.shutdown()


async def test_a_stream_ends_when_its_caller_leaves(world: World, root: Client) -> None:
    stream = root.stream("UsageService.StreamUsageEvents")
    waiting = asyncio.ensure_future(anext(stream))
    async with asyncio.timeout(10):
        await world.live.came.wait()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await world.live.went.wait()


async def test_over_tls(world: World) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
    offered = grpc.ssl_server_credentials([pair])
    trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    running = serving(
        world.sources(),
        world.trail,
        world.heard,
        world.clock,
        credentials=offered,
        trusted=trusted,
    )
    async with running as root:
        assert await root.names("ProviderService.ListProviders") == [[]]


async def test_a_port_that_is_taken(root: Client, world: World) -> None:
    reception = Reception(
        gate=AccessGate(identity(), access(), world.clock),
        trail=world.trail,
        watch=world.heard,
        clock=world.clock,
        rng=random.Random(1),
        max_request_bytes=1,
    )
    server = AdminServer(services(world.sources()), reception, OPTIONS)
    with pytest.raises(OSError, match=f"cannot listen on {root.target}"):
        await server.start(root.target)
    await server.stop(0)
