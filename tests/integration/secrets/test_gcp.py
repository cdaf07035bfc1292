"""Google Secret Manager by its own client, against a local gRPC server of the same service."""

from collections.abc import AsyncIterator

import grpc
import pytest
from google.cloud import secretmanager_v1
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceGrpcTransport,
)

from trunkline_server.secrets.cloud import GcpSource
from trunkline_server.secrets.ports import (
    SecretRefusedError,
    SecretUnavailableError,
    SecretValue,
)
from trunkline_server.secrets.threads import BlockingPool

LATEST = "projects/p/secrets/openai/versions/latest"


class SecretManager:
    """AccessSecretVersion."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.code: grpc.StatusCode | None = None
        self.data = b'{"key": "sk-1"}'

    async def access(
        self,
        request: secretmanager_v1.AccessSecretVersionRequest,
        context: grpc.aio.ServicerContext[
            secretmanager_v1.AccessSecretVersionRequest,
            secretmanager_v1.AccessSecretVersionResponse,
        ],
    ) -> secretmanager_v1.AccessSecretVersionResponse:
        self.asked.append(request.name)
        if self.code is not None:
            await context.abort(self.code, "it is so")
        return secretmanager_v1.AccessSecretVersionResponse(
            name="projects/123/secrets/openai/versions/7",
            payload=secretmanager_v1.SecretPayload(data=self.data),
        )


class World:
    def __init__(self, manager: SecretManager, source: GcpSource) -> None:
        self.manager = manager
        self.source = source


@pytest.fixture
async def world(pool: BlockingPool) -> AsyncIterator[World]:
    manager = SecretManager()
    server = grpc.aio.server()
    kind = secretmanager_v1.AccessSecretVersionRequest
    handler = grpc.unary_unary_rpc_method_handler(
        manager.access,
        request_deserializer=kind.deserialize,
        response_serializer=secretmanager_v1.AccessSecretVersionResponse.serialize,
    )
    name = "google.cloud.secretmanager.v1.SecretManagerService"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(name, {"AccessSecretVersion": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    def connect() -> secretmanager_v1.SecretManagerServiceClient:
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        transport = SecretManagerServiceGrpcTransport(channel=channel)
        return secretmanager_v1.SecretManagerServiceClient(transport=transport)

    source = GcpSource(pool, connect)
    yield World(manager, source)
    source.close()
    await server.stop(None)


async def test_a_secret_and_its_field(world: World) -> None:
    assert await world.source.fetch(f"gcp:{LATEST}#key") == SecretValue("sk-1", "7")
    assert (await world.source.fetch(f"gcp:{LATEST}")).value == '{"key": "sk-1"}'
    assert world.manager.asked == [LATEST, LATEST]


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNAUTHENTICATED,
    ],
)
async def test_refusals(world: World, code: grpc.StatusCode) -> None:
    world.manager.code = code
    with pytest.raises(SecretRefusedError):
        await world.source.fetch(f"gcp:{LATEST}")


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ],
)
async def test_failures_are_told_once(world: World, code: grpc.StatusCode) -> None:
    world.manager.code = code
    with pytest.raises(SecretUnavailableError):
        await world.source.fetch(f"gcp:{LATEST}")
    # Retries are the refresher's.
    assert len(world.manager.asked) == 1


async def test_bytes_that_are_no_text_are_refused(world: World) -> None:
    world.manager.data = b"\xff\xfe"
    with pytest.raises(SecretRefusedError, match="no text"):
        await world.source.fetch(f"gcp:{LATEST}")
