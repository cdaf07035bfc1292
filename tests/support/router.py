"""A whole router in the test's own event loop: real sockets, real gRPC, no child process."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import CollectorRegistry

from tests.support.fault_server import FaultServer, Script
from trunkline import v1
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub
from trunkline_server.app.auditing import audit_kept
from trunkline_server.app.caching import caching_kept
from trunkline_server.app.quotas import quotas_kept
from trunkline_server.app.worker import Worker
from trunkline_server.catalogue.known import known
from trunkline_server.catalogue.prices import PriceBook
from trunkline_server.clock import SystemClock
from trunkline_server.settings import parse
from trunkline_server.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from trunkline.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

ENVIRONMENT = {"TEST_KEY": "sk-test-credential-of-a-test"}

price_book = cache(PriceBook)

MessageT = TypeVar("MessageT", bound=Message)

# No test waits this long; a call that would is a failure with a name.
PATIENCE = 20.0


@dataclass
class Router:
    """A router that serves, and a channel to it."""

    worker: Worker
    address: str
    channel: grpc.aio.Channel
    registry: CollectorRegistry

    @property
    def stub(self) -> "InferenceServiceAsyncStub":
        """The generated stub."""
        return InferenceServiceStub(self.channel)

    @property
    def openai_url(self) -> str:
        """The base URL of the OpenAI-compatible face, where `openai_listen` has it served."""
        assert self.worker.openai_port, "the face is off: give the router openai_listen"
        return f"http://127.0.0.1:{self.worker.openai_port}/v1"

    def metric(self, name: str, **labels: str) -> float:
        """A sample of the router's metrics; 0 if there is none."""
        return self.registry.get_sample_value(name, labels) or 0.0


def channel_to(address: str, *options: tuple[str, int]) -> grpc.aio.Channel:
    """A channel with connections of its own.

    Channels share them by address, and the kernel gives ports out again: the back-off of an
    earlier test's server must not hold for this one's.
    """
    own = [("grpc.use_local_subchannel_pool", 1), *options]
    return grpc.aio.insecure_channel(address, options=own)


@asynccontextmanager
async def router(
    config: str, /, *, env: Mapping[str, str] = ENVIRONMENT, **server: str | int
) -> AsyncGenerator[Router]:
    """A router with this configuration, listening on a free port; `server` are its settings."""
    registry = CollectorRegistry()
    book = price_book()
    lines = {"listen": "127.0.0.1:0", "drain_timeout": "1s", **server}
    header = "server: {" + ", ".join(f"{key}: {value}" for key, value in lines.items()) + "}\n"
    settings = parse(header + config, "test.yaml", env, known())
    metrics, clock = Metrics(registry), SystemClock()
    async with (
        quotas_kept(settings, clock, metrics, None) as quotas,
        caching_kept(settings, clock, metrics) as caching,
        # Where the database is away there is nothing to wait for.
        audit_kept(settings, clock, metrics, last_writes=0.1) as audit,
    ):
        worker = Worker(settings, book, metrics, clock, quotas=quotas, caching=caching, audit=audit)
        port = await worker.start()
        address = f"127.0.0.1:{port}"
        try:
            async with channel_to(address) as channel:
                yield Router(worker, address, channel, registry)
        finally:
            # Of a test that fails too: a server that is only dropped hangs the whole run.
            await worker.drain(notice=0.0)


def openai_at(*urls: str, policy: str = "attempts: {retries: 0}") -> str:
    """A configuration of one model, `large`, whose deployments are OpenAI-like hosts."""
    providers = [
        f"  p{number}: {{kind: openai, base_url: '{url}/v1', api_key: 'env:TEST_KEY'}}"
        for number, url in enumerate(urls)
    ]
    deployments = [
        f"  - {{name: d{number}, provider: p{number}, model: gpt-test, priority: {number}, "
        "capabilities: [chat, streaming, tools, vision, embedding], "
        "price: {input: '2', output: '8'}}"
        for number in range(len(urls))
    ]
    names = ", ".join(f"d{number}" for number in range(len(urls)))
    return "\n".join(
        [
            "providers:",
            *providers,
            "deployments:",
            *deployments,
            f"models: {{large: {{deployments: [{names}], {policy}}}}}",
        ]
    )


@asynccontextmanager
async def routed(
    *scripts: Script, policy: str = "attempts: {retries: 0}", **server: str | int
) -> AsyncGenerator[tuple[Router, list[FaultServer]]]:
    """A router whose model `large` is served by one faulty server for each script, in order."""
    async with AsyncExitStack() as stack:
        faulty = [await stack.enter_async_context(FaultServer(script)) for script in scripts]
        config = openai_at(*(each.url for each in faulty), policy=policy)
        yield await stack.enter_async_context(router(config, env=ENVIRONMENT, **server)), faulty


def ask(text: str = "hello", model: str = "large") -> v1.GenerateRequest:
    """A small request."""
    message = v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text=text)])
    return v1.GenerateRequest(model=model, messages=[message])


def detail(error: grpc.RpcError, kind: type[MessageT]) -> MessageT:
    """The one detail of this kind in a failed call's google.rpc.Status."""
    assert isinstance(error, grpc.aio.AioRpcError)
    raw = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    status = status_pb2.Status.FromString(raw)
    assert status.code == error.code().value[0]
    found = kind()
    assert [packed.Unpack(found) for packed in status.details].count(True) == 1, status
    return found


def reason(error: grpc.RpcError) -> v1.ErrorReason.ValueType:
    """The reason in a failed call's ErrorInfo."""
    info = detail(error, error_details_pb2.ErrorInfo)
    assert info.domain == "trunkline"
    return v1.ErrorReason.Value(info.reason)
