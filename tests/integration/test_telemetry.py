"""Traces as a collector receives them: OTLP over gRPC, from a whole router."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc

from tests.support.router import PATIENCE, ask, router
from trunkline_server.simulator.app import Simulator

Context = grpc.aio.ServicerContext[Any, Any]

TRACE = "a1" * 16
PARENT = f"00-{TRACE}-{'b2' * 8}-01"


class Collector(otlp_grpc.TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[otlp.ExportTraceServiceRequest] = []
        self.keys: list[str] = []
        self.received = asyncio.Event()

    async def Export(  # noqa: N802 - gRPC's name
        self,
        request: otlp.ExportTraceServiceRequest,
        context: Context,
    ) -> otlp.ExportTraceServiceResponse:
        self.requests.append(request)
        self.keys += [
            str(value) for key, value in context.invocation_metadata() or () if key == "x-key"
        ]
        self.received.set()
        return otlp.ExportTraceServiceResponse()


@pytest.fixture
async def collector() -> AsyncGenerator[tuple[Collector, int]]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    kept = Collector()
    add: Any = otlp_grpc.add_TraceServiceServicer_to_server  # Generated without annotations.
    add(kept, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield kept, port
    await server.stop(None)


async def test_sampled_calls_reach_the_collector(collector: tuple[Collector, int]) -> None:
    kept, port = collector
    async with Simulator(port=0) as simulator:
        config = (
            f"telemetry: {{otlp_endpoint: 'http://127.0.0.1:{port}', "
            "otlp_headers: {x-key: 'env:TEST_KEY'}, trace_ratio: 0, service_name: edge}\n"
            "providers: {vendor: {kind: openai, "
            f"base_url: '{simulator.url}/openai/v1', api_key: 'env:TEST_KEY'}}}}"
        )
        async with router(config) as trunkline:
            request = ask(model="vendor/sim-large")
            await trunkline.stub.Generate(request, timeout=PATIENCE)  # Not sampled.
            await trunkline.stub.Generate(
                request, timeout=PATIENCE, metadata=[("traceparent", PARENT)]
            )
        # The router has flushed its spans on its way out.
        await asyncio.wait_for(kept.received.wait(), PATIENCE)
    (resource,) = kept.requests[0].resource_spans
    names = {row.key: row.value.string_value for row in resource.resource.attributes}
    assert names["service.name"] == "edge"
    spans = {span.name: span for span in resource.scope_spans[0].spans}
    assert set(spans) == {"chat vendor/sim-large", "chat sim-large"}
    call, attempt = spans["chat vendor/sim-large"], spans["chat sim-large"]
    assert call.trace_id.hex() == attempt.trace_id.hex() == TRACE
    assert call.parent_span_id.hex() == "b2" * 8
    assert attempt.parent_span_id == call.span_id
    assert len(kept.keys) == len(kept.requests) == 1
