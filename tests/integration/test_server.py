"""The server's own behaviour: who is let in, what is too much, what operators may ask."""

import asyncio
import hashlib
import random
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import pytest
import trustme
from google.rpc import error_details_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.fault_server import hang, read_request, response, send
from tests.support.router import (
    ENVIRONMENT,
    PATIENCE,
    Router,
    ask,
    detail,
    openai_at,
    reason,
    routed,
    router,
)
from tests.support.splits import at_random
from trunkline import v1
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub
from trunkline_server.simulator.app import Simulator

SERVICE = "trunkline.v1.InferenceService"
# Nobody listens there; what is tested ends before it is called.
NOWHERE = openai_at("http://127.0.0.1:9")
HANGING = [read_request, hang]


async def failure(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]  # a call of some response type
    return caught.value


def fields_of(error: grpc.aio.AioRpcError) -> list[str]:
    bad = detail(error, error_details_pb2.BadRequest)
    return [violation.field for violation in bad.field_violations]


class TestKeys:
    KEY = "tk_of_the_team"
    CONFIG = (
        NOWHERE
        + "\nroutes: {cheap: {deployments: [d0]}, dear: {deployments: [d0]}}"
        + f"\nkeys: [{{name: team, hash: 'sha256:{hashlib.sha256(KEY.encode()).hexdigest()}', "
        "models: [large], routes: [cheap]}]"
    )

    async def test_no_key_a_wrong_key_and_the_right_key(self) -> None:
        async with router(self.CONFIG) as trunkline:
            request = v1.RouteRequest(model="large")
            missing = await failure(trunkline.stub.Route(request, timeout=PATIENCE))
            wrong = await failure(
                trunkline.stub.Route(
                    request, timeout=PATIENCE, metadata=[("authorization", "Bearer tk_wrong")]
                )
            )
            answer = await trunkline.stub.Route(request, timeout=PATIENCE, metadata=self.bearer())
        for error in (missing, wrong):
            assert error.code() == grpc.StatusCode.UNAUTHENTICATED
            assert reason(error) == v1.ERROR_REASON_AUTHENTICATION
            assert "tk_" not in str(error.details())
        assert answer.decision.deployment == "d0"

    @pytest.mark.parametrize(
        ("model", "allowed"),
        [("large", True), ("route:cheap", True), ("route:dear", False), ("p0/any", False)],
    )
    async def test_a_key_reaches_what_it_is_scoped_to(self, model: str, allowed: bool) -> None:
        async with router(self.CONFIG) as trunkline:
            call = trunkline.stub.Route(
                v1.RouteRequest(model=model), timeout=PATIENCE, metadata=self.bearer()
            )
            if allowed:
                assert (await call).decision.deployment == "d0"
            else:
                error = await failure(call)
                assert error.code() == grpc.StatusCode.PERMISSION_DENIED
                assert reason(error) == v1.ERROR_REASON_AUTHORIZATION

    async def test_a_scope_may_name_a_vendors_models(self) -> None:
        config = self.CONFIG.replace("models: [large]", "models: [p0/*]")
        async with router(config) as trunkline:
            answer = await trunkline.stub.Route(
                v1.RouteRequest(model="p0/any"), timeout=PATIENCE, metadata=self.bearer()
            )
            refused = await failure(
                trunkline.stub.Route(
                    v1.RouteRequest(model="large"), timeout=PATIENCE, metadata=self.bearer()
                )
            )
        assert answer.decision.provider_model == "any"
        assert refused.code() == grpc.StatusCode.PERMISSION_DENIED

    def bearer(self) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.KEY}")]


class TestBadInput:
    """Wrong requests are refused with the field's path, before anybody is called."""

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"messages": []}, "messages"),
            (
                {"messages": [v1.Message(parts=[v1.Part(text="x")])]},
                "messages[0].role",
            ),
            (
                {"config": v1.GenerationConfig(max_output_tokens=-1)},
                "config.max_output_tokens",
            ),
            (
                {"requirements": v1.Requirements(max_cost_per_token=-1)},
                "requirements.max_cost_per_token",
            ),
            ({"request_id": "\n"}, "request_id"),
            (
                {"requirements": v1.Requirements(capabilities=["visoin"])},
                "requirements.capabilities",
            ),
            (
                {"routing": v1.RoutingOptions(allowed_providers=["p1"])},
                "routing.allowed_providers[0]",
            ),
        ],
    )
    async def test_fields(self, change: dict[str, object], field: str) -> None:
        request = ask()
        for name, value in change.items():
            request.ClearField(name)  # type: ignore[arg-type]  # as below
            request.MergeFrom(v1.GenerateRequest(**{name: value}))  # type: ignore[arg-type]  # by name
        async with router(NOWHERE) as trunkline:
            error = await failure(trunkline.stub.Generate(request, timeout=PATIENCE))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert reason(error) == v1.ERROR_REASON_INVALID_REQUEST
        assert fields_of(error) == [field]

    @pytest.mark.parametrize(
        ("model", "near"),
        [("larg", "large"), ("route:chep", "route:cheap"), ("p00/gpt", "p0/gpt"), ("zzz", None)],
    )
    async def test_an_unknown_model_is_told_its_neighbours(
        self, model: str, near: str | None
    ) -> None:
        config = NOWHERE + "\nroutes: {cheap: {deployments: [d0]}}"
        async with router(config) as trunkline:
            error = await failure(trunkline.stub.Generate(ask(model=model), timeout=PATIENCE))
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert reason(error) == v1.ERROR_REASON_MODEL_NOT_FOUND
        if near is not None:
            assert near in str(error.details())

    async def test_a_part_that_no_deployment_takes(self) -> None:
        request = ask()
        request.messages[0].parts.add(audio=v1.Audio(data=b"x", media_type="audio/wav"))
        async with router(NOWHERE) as trunkline:
            error = await failure(trunkline.stub.Generate(request, timeout=PATIENCE))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert fields_of(error) == ["messages[0].parts[1]"]
        assert "audio" in str(error.details())

    async def test_an_oversize_request_is_told_the_bound(self) -> None:
        async with router(NOWHERE, max_request_bytes=2048) as trunkline:
            error = await failure(trunkline.stub.Generate(ask("x" * 3000), timeout=PATIENCE))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert fields_of(error) == ["(request)"]
        assert "2048" in str(error.details())

    async def test_10000_malformed_requests_crash_nothing(self) -> None:
        """Random bytes, and valid requests cut, spliced and flipped; the router still serves."""
        rng = random.Random(20260101)
        valid = ask("a text that is long enough to be cut").SerializeToString()
        allowed = {
            grpc.StatusCode.OK,
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.FAILED_PRECONDITION,
            grpc.StatusCode.PERMISSION_DENIED,
        }
        answer = response(b'{"error": {"message": "no"}}', status="400 Bad Request")
        script = [step for _ in range(10_000) for step in (read_request, send(answer))]
        async with routed(script) as (trunkline, _):
            methods: list[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = [
                trunkline.channel.unary_unary(f"/{SERVICE}/{name}")
                for name in ("Generate", "Embed", "Route")
            ]
            stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = (
                trunkline.channel.unary_stream(f"/{SERVICE}/StreamGenerate")
            )
            for batch in range(100):
                calls: list[grpc.aio.Call] = [
                    methods[number % 3](malformed(rng, valid), timeout=PATIENCE)
                    for number in range(99)
                ]
                calls.append(stream(malformed(rng, valid), timeout=PATIENCE))
                codes = set(await asyncio.gather(*(call.code() for call in calls)))
                assert codes <= allowed, (batch, codes)
            assert trunkline.metric("trunkline_internal_errors_total", operation="generate") == 0
            routed_still = await trunkline.stub.Route(
                v1.RouteRequest(model="large"), timeout=PATIENCE
            )
        assert routed_still.decision.deployment == "d0"


def malformed(rng: random.Random, valid: bytes) -> bytes:
    """Bytes that are seldom a right request."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return valid[: rng.randrange(len(valid))]
    if kind == 2:
        pieces = at_random(valid, rng.randrange(1000))
        rng.shuffle(pieces)
        return b"".join(pieces)
    flipped = bytearray(valid)
    for _ in range(rng.randrange(1, 6)):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


async def test_too_many_calls_are_shed_with_a_pause() -> None:
    async with routed(HANGING, max_concurrent_calls=2) as (trunkline, servers):
        waiting = [trunkline.stub.Generate(ask(), timeout=PATIENCE) for _ in range(2)]
        await servers[0].until(lambda: len(servers[0].requests) == 2)
        error = await failure(trunkline.stub.Generate(ask(), timeout=PATIENCE))
        for call in waiting:
            call.cancel()
        label = {"operation": "generate", "reason": "overloaded"}
        assert trunkline.metric("trunkline_calls_not_admitted_total", **label) == 1
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason(error) == v1.ERROR_REASON_OVERLOADED
    assert detail(error, error_details_pb2.RetryInfo).retry_delay.seconds >= 1


async def test_a_burst_is_answered_or_shed_by_name() -> None:
    """5,000 calls at one instant, far beyond what the transport would keep waiting by itself."""
    async with router(NOWHERE, max_concurrent_calls=1) as trunkline:
        calls = [
            trunkline.stub.Route(v1.RouteRequest(model="large"), timeout=PATIENCE)
            for _ in range(5_000)
        ]
        codes = set(await asyncio.gather(*(call.code() for call in calls)))
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


async def test_metadata_over_its_bound_is_refused_by_the_transport() -> None:
    async with router(NOWHERE, max_metadata_bytes=4096) as trunkline:
        error = await failure(
            trunkline.stub.Route(
                v1.RouteRequest(model="large"), timeout=PATIENCE, metadata=[("x", "y" * 8192)]
            )
        )
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_calls_that_are_turned_away_are_counted() -> None:
    async with router(TestKeys.CONFIG) as trunkline:
        await failure(trunkline.stub.Route(v1.RouteRequest(model="large"), timeout=PATIENCE))
        await trunkline.stub.Route(
            v1.RouteRequest(model="large"), timeout=PATIENCE, metadata=TestKeys().bearer()
        )
        label = {"operation": "route", "reason": "authentication"}
        assert trunkline.metric("trunkline_calls_not_admitted_total", **label) == 1
        assert trunkline.metric("trunkline_decisions_total", operation="route") == 1


class TestOperators:
    async def test_health_of_the_service_and_of_the_whole(self) -> None:
        async with router(NOWHERE) as trunkline:
            stub = health_pb2_grpc.HealthStub(trunkline.channel)
            for name in ("", SERVICE):
                request = health_pb2.HealthCheckRequest(service=name)
                answer = await stub.Check(request, timeout=PATIENCE)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING

    async def test_reflection_finds_services_and_methods(self) -> None:
        async with router(NOWHERE) as trunkline:
            stub = reflection_pb2_grpc.ServerReflectionStub(trunkline.channel)
            requests = [
                reflection_pb2.ServerReflectionRequest(list_services=""),
                reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"{SERVICE}.Route"),
                reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"{SERVICE}.None"),
            ]
            listed, method, unknown = [
                answer
                async for answer in stub.ServerReflectionInfo(iter(requests), timeout=PATIENCE)
            ]
        names = {service.name for service in listed.list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health", "grpc.channelz.v1.Channelz"} <= names
        assert method.file_descriptor_response.file_descriptor_proto
        assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]

    async def test_channelz_knows_the_server(self) -> None:
        async with router(NOWHERE) as trunkline:
            stub = channelz_pb2_grpc.ChannelzStub(trunkline.channel)
            answer = await stub.GetServers(channelz_pb2.GetServersRequest(), timeout=PATIENCE)
        assert sum(server.data.calls_started for server in answer.server) >= 1


class TestTls:
    """Real handshakes with certificates of an authority made for the test."""

    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    def server(self, authority: trustme.CA, folder: Path, *, mutual: bool) -> dict[str, str | int]:
        certificate = authority.issue_cert("localhost")
        (folder / "key.pem").write_bytes(certificate.private_key_pem.bytes())
        (folder / "cert.pem").write_bytes(certificate.cert_chain_pems[0].bytes())
        (folder / "ca.pem").write_bytes(authority.cert_pem.bytes())
        tls = f"cert: {folder}/cert.pem, key: {folder}/key.pem"
        if mutual:
            tls += f", client_ca: {folder}/ca.pem, require_client_cert: true"
        return {"tls": f"{{{tls}}}"}

    async def ask(
        self, trunkline: Router, authority: trustme.CA, client: trustme.LeafCert | None = None
    ) -> v1.RouteResponse:
        credentials = grpc.ssl_channel_credentials(
            authority.cert_pem.bytes(),
            client.private_key_pem.bytes() if client else None,
            client.cert_chain_pems[0].bytes() if client else None,
        )
        address = trunkline.address.replace("127.0.0.1", "localhost")
        async with grpc.aio.secure_channel(address, credentials) as channel:
            stub = InferenceServiceStub(channel)
            answer: v1.RouteResponse = await stub.Route(
                v1.RouteRequest(model="large"), timeout=PATIENCE
            )
            return answer

    async def test_tls(self, authority: trustme.CA, tmp_path: Path) -> None:
        settings = self.server(authority, tmp_path, mutual=False)
        async with router(NOWHERE, env=ENVIRONMENT, **settings) as trunkline:
            assert (await self.ask(trunkline, authority)).decision.deployment == "d0"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await self.ask(trunkline, trustme.CA())
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE

    async def test_mutual_tls(self, authority: trustme.CA, tmp_path: Path) -> None:
        settings = self.server(authority, tmp_path, mutual=True)
        client = authority.issue_cert("team@example.com")
        stranger = trustme.CA().issue_cert("team@example.com")
        async with router(NOWHERE, env=ENVIRONMENT, **settings) as trunkline:
            assert (await self.ask(trunkline, authority, client)).decision.deployment == "d0"
            for refused in (None, stranger):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await self.ask(trunkline, authority, refused)
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE

    async def test_a_renewed_certificate_needs_no_restart(
        self, authority: trustme.CA, tmp_path: Path
    ) -> None:
        settings = self.server(authority, tmp_path, mutual=False)
        async with router(NOWHERE, env=ENVIRONMENT, **settings) as trunkline:
            await self.ask(trunkline, authority)
            renewed = trustme.CA()
            self.server(renewed, tmp_path, mutual=False)
            assert (await self.ask(trunkline, renewed)).decision.deployment == "d0"


@pytest.fixture
async def simulated() -> AsyncGenerator[Simulator]:
    simulator = Simulator(port=0)
    await simulator.start()
    yield simulator
    await simulator.stop()


async def test_a_vendor_model_that_no_catalogue_knows_passes_through_unpriced(
    simulated: Simulator,
) -> None:
    config = (
        "providers: {vendor: {kind: openai, "
        f"base_url: '{simulated.url}/openai/v1', api_key: 'env:TEST_KEY'}}}}"
    )
    async with router(config) as trunkline:
        answer = await trunkline.stub.Generate(
            ask(model="vendor/brand-new-model"), timeout=PATIENCE
        )
        label = {"provider": "vendor", "deployment": "(passthrough)"}
        unpriced = trunkline.metric("trunkline_unpriced_attempts_total", **label)
    assert answer.model == "sim-brand-new-model"
    assert answer.cost == v1.Cost(unpriced=True)
    assert answer.usage.output_tokens > 0
    assert unpriced == 1


@pytest.mark.parametrize("path", ["openai/v1", "anthropic", "gemini/v1beta"])
async def test_every_dialect_answers_whole_and_streamed_alike(
    simulated: Simulator, path: str
) -> None:
    kind = path.partition("/")[0]
    config = (
        f"providers: {{vendor: {{kind: {kind}, "
        f"base_url: '{simulated.url}/{path}', api_key: 'env:TEST_KEY'}}}}"
    )
    async with router(config) as trunkline:
        request = ask("Say something.", model="vendor/sim-large")
        whole = await trunkline.stub.Generate(request, timeout=PATIENCE)
        events = [event async for event in trunkline.stub.StreamGenerate(request, timeout=PATIENCE)]
    text = "".join(event.delta.text for event in events if event.HasField("delta"))
    assert text == whole.message.parts[0].text
    end = events[-1].end
    assert end.finish_reason == whole.finish_reason == v1.FINISH_REASON_STOP
    assert end.usage.input_tokens == whole.usage.input_tokens > 0
    assert end.usage.output_tokens == whole.usage.output_tokens > 0
    assert end.model == whole.model == "sim-large"


class TestBatchRoute:
    async def test_answers_come_in_order_and_failures_apart(self) -> None:
        config = NOWHERE + "\nroutes: {cheap: {deployments: [d0]}}"
        requests = [
            v1.RouteRequest(model="large", input_tokens=1000),
            v1.RouteRequest(model="larg"),
            v1.RouteRequest(model="large", input_tokens=-1),
            v1.RouteRequest(model="route:cheap", routing=v1.RoutingOptions(explain=True)),
        ]
        async with router(config) as trunkline:
            answer = await trunkline.stub.BatchRoute(
                v1.BatchRouteRequest(requests=requests), timeout=PATIENCE
            )
            single = await trunkline.stub.Route(requests[0], timeout=PATIENCE)
        first, unknown, negative, explained = answer.results
        assert first.response.decision == single.decision
        assert not first.response.candidates
        assert unknown.failure.reason == v1.ERROR_REASON_MODEL_NOT_FOUND
        assert "large" in unknown.failure.message
        assert negative.failure.reason == v1.ERROR_REASON_INVALID_REQUEST
        assert negative.failure.field == "input_tokens"
        assert explained.response.decision.route == "cheap"
        assert len(explained.response.candidates) == 1

    @pytest.mark.parametrize("count", [0, 10_001])
    async def test_its_size_is_bounded(self, count: int) -> None:
        batch = v1.BatchRouteRequest(requests=[v1.RouteRequest(model="large")] * count)
        async with router(NOWHERE) as trunkline:
            error = await failure(trunkline.stub.BatchRoute(batch, timeout=PATIENCE))
        assert fields_of(error) == ["requests"]

    async def test_a_key_binds_each_request(self) -> None:
        keys = TestKeys()
        batch = v1.BatchRouteRequest(
            requests=[v1.RouteRequest(model="large"), v1.RouteRequest(model="route:dear")]
        )
        async with router(keys.CONFIG) as trunkline:
            answer = await trunkline.stub.BatchRoute(
                batch, timeout=PATIENCE, metadata=keys.bearer()
            )
        allowed, denied = answer.results
        assert allowed.response.decision.deployment == "d0"
        assert denied.failure.reason == v1.ERROR_REASON_AUTHORIZATION
