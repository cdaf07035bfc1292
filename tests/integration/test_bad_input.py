"""What cannot be served, in every dialect: the error says which field, and where another
deployment can serve it, that one does."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.support.dialects import SPOKEN
from tests.support.plain_dialect import PlainCodec
from tests.support.router import PATIENCE, Router, ask, detail, reason, router
from trunkline import v1
from trunkline_server.catalogue.extensions import dialects
from trunkline_server.errors import TrunklineError
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.simulator.app import Simulator

# Parts that vendors differ in: what one cannot take, another can.
PARTS = {
    "sound by reference": v1.Part(audio=v1.Audio(uri="gs://b/a.wav", media_type="audio/wav")),
    "odd sound": v1.Part(audio=v1.Audio(data=b"x", media_type="audio/x-odd")),
    "a vendor's file": v1.Part(file=v1.File(file_id="file-1")),
    "a file by reference": v1.Part(file=v1.File(uri="https://a.example/b.pdf")),
    "a picture without a type": v1.Part(image=v1.Image(data=b"x")),
    "a picture somewhere": v1.Part(image=v1.Image(uri="ftp://a.example/b.png")),
}
EVERYTHING = "[chat, streaming, tools, vision, audio, file, structured_output, reasoning]"


def refused(dialect: str) -> tuple[v1.GenerateRequest, str]:
    """A request with a part that the dialect cannot carry, and the field that is at fault."""
    codec = dialects()[dialect]
    for part in PARTS.values():
        request = ask()
        request.messages[0].parts.append(part)
        try:
            codec.encode_generate(
                request, CodecTarget(SPOKEN[dialect].model.format("m"), 100), stream=False
            )
        except TrunklineError as error:
            # A fault without its field has no violation, and fails here.
            return request, error.violations[0].field
    raise AssertionError(f"{dialect} takes everything that is tried here")


@asynccontextmanager
async def two(
    dialect: str,
    *,
    first: str = EVERYTHING,
    key: str = "env:TEST_KEY",
    second: bool = False,
    residency: str = "",
) -> AsyncGenerator[Router]:
    """A router whose model has a deployment that speaks a dialect, and perhaps another one that
    can do everything."""
    spoken = SPOKEN[dialect]
    async with Simulator() as simulator:
        lines = [
            "providers:",
            spoken.provider("one", dialect, simulator.url, key),
            f"  two: {{dialect: openai, base_url: '{simulator.url}/openai/v1', "
            "api_key: 'env:TEST_KEY', flags: {file_urls: true}}",
            "deployments:",
            f"  - {{name: d1, provider: one, model: '{spoken.model.format('sim-large')}', "
            f"capabilities: {first}, max_output_tokens: 100{residency}}}",
            f"  - {{name: d2, provider: two, model: sim-large, priority: 1, "
            f"capabilities: {EVERYTHING}, residency: [eu]}}",
            f"models: {{large: {{deployments: [d1{', d2' if second else ''}], "
            "attempts: {retries: 0}}}",
        ]
        env = {"TEST_KEY": "sk-test", "EXPIRED": "invalid"}
        async with router("\n".join(lines), env=env) as running:
            yield running


async def failure(running: Router, request: v1.GenerateRequest) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub.Generate(request, timeout=PATIENCE)
    with pytest.raises(grpc.aio.AioRpcError) as streamed:
        await running.stub.StreamGenerate(request, timeout=PATIENCE).read()
    assert streamed.value.code() == caught.value.code()
    assert reason(streamed.value) == reason(caught.value)
    return caught.value


def fields(error: grpc.aio.AioRpcError) -> list[str]:
    return [each.field for each in detail(error, error_details_pb2.BadRequest).field_violations]


def test_every_dialect_of_the_simulator_is_here() -> None:
    assert SPOKEN.keys() <= dialects().keys()
    assert PlainCodec.dialect not in dialects()


@pytest.mark.parametrize("dialect", SPOKEN)
async def test_a_part_that_the_dialect_cannot_carry(dialect: str) -> None:
    request, field = refused(dialect)
    assert field.startswith("messages[0].parts[1]")
    async with two(dialect) as running:
        error = await failure(running, request)
    assert reason(error) == v1.ERROR_REASON_INVALID_REQUEST
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert fields(error) == [field]


@pytest.mark.parametrize("dialect", [name for name in SPOKEN if name != "openai"])
async def test_it_goes_to_one_that_can_carry_it(dialect: str) -> None:
    """A tool's schema is strict, or a picture in a message: somebody takes it."""
    codec = dialects()[dialect]
    request = ask()
    request.messages[0].parts.append(v1.Part(audio=v1.Audio(data=b"RIFF", media_type="audio/wav")))
    target = CodecTarget(SPOKEN[dialect].model.format("m"), 100)
    try:
        codec.encode_generate(request, target, stream=False)
    except TrunklineError:
        carries = "two"
    else:
        carries = "one"
    async with two(dialect, second=True) as running:
        answer = await running.stub.Generate(request, timeout=PATIENCE)
        assert answer.provider == carries
        events = [event async for event in running.stub.StreamGenerate(request, timeout=PATIENCE)]
        assert events[0].start.provider == carries
    # What is passed over was never sent, and is no attempt.
    assert len(answer.attempts) == 1


@pytest.mark.parametrize("dialect", SPOKEN)
async def test_a_model_without_the_capability(dialect: str) -> None:
    request = ask()
    request.messages[0].parts.append(v1.Part(image=v1.Image(data=b"x", media_type="image/png")))
    async with two(dialect, first="[chat, streaming]") as running:
        error = await failure(running, request)
        assert reason(error) == v1.ERROR_REASON_INVALID_REQUEST
        assert fields(error) == ["messages[0].parts[1]"]
        asked = ask()
        asked.requirements.capabilities.append("vision")
        error = await failure(running, asked)
        info = detail(error, error_details_pb2.ErrorInfo)
        assert info.reason == "ERROR_REASON_NO_ELIGIBLE_DEPLOYMENT"
        assert info.metadata["capability"] == "1"
    async with two(dialect, first="[chat, streaming]", second=True) as running:
        request.messages[0].parts[1].image.data = _png()
        answer = await running.stub.Generate(request, timeout=PATIENCE)
        assert answer.deployment == "d2"


def _png() -> bytes:
    return b"\x89PNG\r\n\x1a\n" + bytes(32)


@pytest.mark.parametrize("dialect", SPOKEN)
async def test_a_region_that_nobody_has(dialect: str) -> None:
    request = ask()
    request.requirements.data_residency = "atlantis"
    async with two(dialect, second=True, residency=", residency: [us]") as running:
        error = await failure(running, request)
        info = detail(error, error_details_pb2.ErrorInfo)
        assert info.reason == "ERROR_REASON_NO_ELIGIBLE_DEPLOYMENT"
        assert info.metadata["data_residency"] == "2"
        request.requirements.data_residency = "eu"
        answer = await running.stub.Generate(request, timeout=PATIENCE)
        assert answer.deployment == "d2"


@pytest.mark.parametrize("dialect", SPOKEN)
async def test_a_credential_that_has_expired(dialect: str) -> None:
    async with two(dialect, key="env:EXPIRED") as running:
        error = await failure(running, ask())
        assert reason(error) == v1.ERROR_REASON_PROVIDER_CREDENTIALS
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert detail(error, error_details_pb2.ErrorInfo).metadata["provider"] == "one"
        attempt = detail(error, v1.CallReport).attempts[0]
        # Some vendors say that a key is bad with 403.
        assert attempt.reason in {v1.ERROR_REASON_AUTHENTICATION, v1.ERROR_REASON_AUTHORIZATION}
    async with two(dialect, key="env:EXPIRED", second=True) as running:
        answer = await running.stub.Generate(ask(), timeout=PATIENCE)
        assert [attempt.deployment for attempt in answer.attempts] == ["d1", "d2"]
        events = [event async for event in running.stub.StreamGenerate(ask(), timeout=PATIENCE)]
        assert events[0].start.deployment == "d2"
