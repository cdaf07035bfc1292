"""A router with its credentials, in the test's own event loop, by a configuration's text."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from prometheus_client import CollectorRegistry, generate_latest

from tests.support.router import channel_to, price_book
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub
from trunkline_server.app.credentials import Credentials
from trunkline_server.app.crediting import credentials_kept
from trunkline_server.app.worker import Worker
from trunkline_server.catalogue.known import known
from trunkline_server.clock import SystemClock
from trunkline_server.secrets.ports import SecretAudit
from trunkline_server.settings import Settings, parse
from trunkline_server.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from trunkline.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

_HEADER = "server: {listen: '127.0.0.1:0', drain_timeout: 1s}\n"


@dataclass
class Replica:
    """A router that serves."""

    worker: Worker
    credentials: Credentials
    address: str
    channel: grpc.aio.Channel
    registry: CollectorRegistry

    @property
    def stub(self) -> "InferenceServiceAsyncStub":
        """The generated stub."""
        return InferenceServiceStub(self.channel)

    @property
    def metrics(self) -> str:
        """All metrics as they are scraped."""
        return generate_latest(self.registry).decode()

    def changes(self, result: str, provider: str = "vendor") -> int:
        """How often a provider's credential met this fate."""
        labels = {"provider": provider, "result": result}
        name = "trunkline_credential_changes_total"
        return round(self.registry.get_sample_value(name, labels) or 0)


def settings_of(config: str, env: Mapping[str, str], base: Path | None = None) -> Settings:
    """The settings of a configuration that listens on a free port."""
    return parse(_HEADER + config, "test.yaml", env, known(), base=base)


@asynccontextmanager
async def replica(
    config: str,
    env: Mapping[str, str],
    *,
    audit: SecretAudit | None = None,
    base: Path | None = None,
) -> AsyncGenerator[Replica]:
    """Starts a router; raises what its start raises."""
    settings = settings_of(config, env, base)
    registry, clock = CollectorRegistry(), SystemClock()
    metrics = Metrics(registry)
    async with credentials_kept(settings, clock, metrics, audit) as credentials:
        worker = Worker(settings, price_book(), metrics, clock, credentials=credentials)
        address = f"127.0.0.1:{await worker.start()}"
        try:
            async with channel_to(address) as channel:
                yield Replica(worker, credentials, address, channel, registry)
        finally:
            await worker.drain(notice=0.0)
