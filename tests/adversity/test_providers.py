"""What providers do wrong, seen from a caller of the real router."""

import asyncio
import json
import socket
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.support.fault_server import (
    FaultConnection,
    FaultServer,
    Step,
    hang,
    read_request,
    reset,
    response,
    send,
)
from tests.support.router import (
    PATIENCE,
    Router,
    ask,
    channel_to,
    detail,
    openai_at,
    reason,
    routed,
    router,
)
from trunkline import v1
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "model": "gpt-test-2026",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
).encode()
JSON = "content-type: application/json"
GOOD = [read_request, send(response(ANSWER, JSON))]

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def delta(text: str) -> bytes:
    event = {"model": "gpt-test-2026", "choices": [{"index": 0, "delta": {"content": text}}]}
    return chunked(b"data: " + json.dumps(event).encode() + b"\n\n")


FINISH = chunked(
    b'data: {"model":"gpt-test-2026","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}\n\n'
    b"data: [DONE]\n\n"
) + b"0\r\n\r\n"  # fmt: skip


async def collect(trunkline: Router, into: list[v1.StreamGenerateResponse]) -> None:
    """Reads a whole stream; what came before a failure is there all the same."""
    async for event in trunkline.stub.StreamGenerate(ask(), timeout=PATIENCE):
        into.append(event)  # noqa: PERF401 - a comprehension would lose what came first


async def settled(condition: Callable[[], bool]) -> None:
    """Lets the loop turn until the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - metrics send no events
            await asyncio.sleep(0)


@contextmanager
def unanswering_port() -> Generator[int]:
    """A port whose connections are never completed, because its backlog is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_a_provider_that_refuses_connections_is_passed_over() -> None:
    nobody = f"http://127.0.0.1:{closed_port()}"
    async with FaultServer(GOOD) as good, router(openai_at(nobody, good.url)) as trunkline:
        answer = await trunkline.stub.Generate(ask(), timeout=PATIENCE)
    assert answer.provider == "p1"
    assert answer.message.parts[0].text == "hi"
    assert answer.attempts[0].reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert answer.cost.total == 60_000


async def test_when_every_provider_refuses_the_caller_is_told_why() -> None:
    async with router(openai_at(f"http://127.0.0.1:{closed_port()}")) as trunkline:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await trunkline.stub.Generate(ask(), timeout=PATIENCE)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert reason(caught.value) == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert detail(caught.value, v1.CallReport).attempts[0].deployment == "d0"


async def test_a_hang_before_the_headers_is_cut_and_passed_over() -> None:
    policy = "attempts: {retries: 0, attempt_timeout: 200ms}"
    async with routed([read_request, hang], GOOD, policy=policy) as (trunkline, servers):
        answer = await trunkline.stub.Generate(ask(), timeout=PATIENCE)
        await servers[0].closed_at()
    assert answer.provider == "p1"
    assert answer.attempts[0].reason == v1.ERROR_REASON_TIMEOUT


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (reset, v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        (send(b"\x00\xff garbage, not HTTP\r\n\r\n"), v1.ERROR_REASON_BAD_PROVIDER_RESPONSE),
        (send(response(b"<html>busy</html>")), v1.ERROR_REASON_BAD_PROVIDER_RESPONSE),
        (send(response(ANSWER, JSON)[:-20]), v1.ERROR_REASON_BAD_PROVIDER_RESPONSE),
        (
            send(response(b"{}", JSON, status="500 Internal Server Error")),
            v1.ERROR_REASON_SERVICE_UNAVAILABLE,
        ),
    ],
    ids=["reset", "garbage", "html", "cut short", "500"],
)
async def test_a_broken_answer_is_passed_over(
    ending: Step, expected: v1.ErrorReason.ValueType
) -> None:
    async with routed([read_request, ending], GOOD) as (trunkline, _):
        answer = await trunkline.stub.Generate(ask(), timeout=PATIENCE)
    assert answer.provider == "p1"
    assert answer.attempts[0].reason == expected


async def test_a_body_over_the_bound_is_refused_without_being_held() -> None:
    huge = 50 * 1024 * 1024

    async def pour(connection: FaultConnection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(huge // 65536):
            await connection.send(chunked(b"x" * 65536))

    async with routed(pour, GOOD, max_response_bytes="1MiB") as (trunkline, servers):
        answer = await trunkline.stub.Generate(ask(), timeout=PATIENCE)
        assert servers[0].connections[0].sent < huge // 2
    assert answer.provider == "p1"
    assert answer.attempts[0].reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


async def test_a_50_mb_body_within_the_bound_is_read() -> None:
    text = "x" * (50 * 1024 * 1024)
    body = ANSWER.replace(b'"hi"', json.dumps(text).encode())
    unbounded = ("grpc.max_receive_message_length", -1)
    async with (
        routed([read_request, send(response(body, JSON))]) as (trunkline, _),
        channel_to(trunkline.address, unbounded) as channel,
    ):
        answer = await InferenceServiceStub(channel).Generate(ask(), timeout=PATIENCE)
    assert len(answer.message.parts[0].text) == len(text)


async def test_a_rate_limit_is_told_with_its_pause_and_remembered() -> None:
    limited = response(
        b'{"error": {"message": "Slow down", "type": "requests"}}',
        JSON,
        "retry-after: 17",
        status="429 Too Many Requests",
    )
    async with routed([read_request, send(limited)], GOOD) as (trunkline, _):
        only_first = ask()
        only_first.routing.allowed_providers.append("p0")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await trunkline.stub.Generate(only_first, timeout=PATIENCE)
        dry_run = await trunkline.stub.Route(v1.RouteRequest(model="large"), timeout=PATIENCE)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason(caught.value) == v1.ERROR_REASON_RATE_LIMIT
    assert detail(caught.value, error_details_pb2.RetryInfo).retry_delay.seconds == 17
    assert dry_run.decision.provider == "p1"
    assert dry_run.candidates[1].exclusion.reason == v1.EXCLUSION_REASON_COOLDOWN


async def test_a_storm_of_500s_opens_the_breaker_and_spares_the_provider() -> None:
    def always(answer: bytes) -> Step:
        async def serve(connection: FaultConnection) -> None:
            while True:
                await connection.read_request()
                await connection.send(answer)

        return serve

    failing = response(b"{}", JSON, status="500 Internal Server Error")
    async with routed(always(failing), always(response(ANSWER, JSON))) as (trunkline, servers):
        for _ in range(60):
            answer = await trunkline.stub.Generate(ask(), timeout=PATIENCE)
            assert answer.provider == "p1"
        # The breaker's five failures in a row, then silence.
        assert len(servers[0].requests) == 5
        state = trunkline.metric("trunkline_circuit_state", provider="p0", deployment="d0")
        assert state == v1.CIRCUIT_STATE_OPEN


@pytest.mark.parametrize(
    "ending", [[reset], [send(b"ffff\r\ndata: {")], []], ids=["reset", "half a chunk", "closed"]
)
async def test_a_stream_that_breaks_after_a_delta_ends_non_ok(ending: list[Step]) -> None:
    events: list[v1.StreamGenerateResponse] = []
    async with routed([read_request, send(STREAM_HEAD + delta("half")), *ending]) as (trunkline, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(trunkline, into=events)
    assert events[1].delta.text == "half"
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert reason(caught.value) == v1.ERROR_REASON_STREAM_INTERRUPTED
    report = detail(caught.value, v1.CallReport)
    assert report.usage.output_tokens > 0
    assert report.cost.estimated


async def test_a_stream_that_breaks_before_a_delta_falls_back() -> None:
    bad = [read_request, send(STREAM_HEAD), reset]
    good = [read_request, send(STREAM_HEAD + delta("fine") + FINISH)]
    events: list[v1.StreamGenerateResponse] = []
    async with routed(bad, good) as (trunkline, _):
        await collect(trunkline, into=events)
    assert events[0].start.provider == "p1"
    assert events[1].delta.text == "fine"
    assert events[-1].end.usage.output_tokens == 5
    assert [attempt.provider for attempt in events[-1].end.attempts] == ["p0", "p1"]


async def test_a_stream_that_hangs_ends_by_its_idle_timeout() -> None:
    script = [read_request, send(STREAM_HEAD + delta("half")), hang]
    policy = "attempts: {retries: 0, idle_timeout: 200ms}"
    async with routed(script, policy=policy) as (trunkline, servers):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(trunkline, into=[])
        await servers[0].closed_at()
    assert reason(caught.value) == v1.ERROR_REASON_STREAM_INTERRUPTED


async def test_a_deadline_shorter_than_any_attempt_ends_as_one() -> None:
    async with routed([read_request, hang]) as (trunkline, servers):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await trunkline.stub.Generate(ask(), timeout=0.3)
        await servers[0].closed_at()
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_routers_own_deadline_holds_where_the_caller_sets_none() -> None:
    async with routed([read_request, hang], default_deadline="300ms") as (trunkline, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await trunkline.stub.Generate(ask())
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert reason(caught.value) == v1.ERROR_REASON_TIMEOUT


async def test_a_hedged_stream_is_relayed_from_the_faster_provider() -> None:
    """A real race over sockets: the first provider hangs once its latency is known."""
    whole = STREAM_HEAD + delta("fine") + FINISH
    known = [step for _ in range(20) for step in (read_request, send(whole))]
    policy = "attempts: {retries: 0}, hedge: {percentile: 0.9, min_delay: 1ms}"
    other = [read_request, send(STREAM_HEAD + delta("hedged") + FINISH)]
    async with routed([*known, read_request, hang], other, policy=policy) as (trunkline, servers):
        only_first = ask()
        only_first.routing.allowed_providers.append("p0")
        for _ in range(20):
            stream = trunkline.stub.StreamGenerate(only_first, timeout=PATIENCE)
            assert [event async for event in stream][-1].HasField("end")
        events: list[v1.StreamGenerateResponse] = []
        await collect(trunkline, into=events)
        await servers[0].closed_at()
    assert events[0].start.provider == "p1"
    assert events[1].delta.text == "hedged"
    assert [attempt.hedged for attempt in events[-1].end.attempts] == [False, True]


class TestCancel:
    """The upstream sees the close within 100 ms of loop time."""

    WITHIN = 0.1

    async def test_before_the_first_byte(self) -> None:
        async with routed([read_request, hang]) as (trunkline, servers):
            call = trunkline.stub.Generate(ask(), timeout=PATIENCE)
            await servers[0].until(lambda: len(servers[0].requests) == 1)
            cancelled_at = asyncio.get_running_loop().time()
            call.cancel()
            assert await servers[0].closed_at() - cancelled_at < self.WITHIN
            with pytest.raises(asyncio.CancelledError):
                await call

    async def test_in_the_middle_of_a_stream(self) -> None:
        script = [read_request, send(STREAM_HEAD + delta("one")), hang]
        async with routed(script) as (trunkline, servers):
            call = trunkline.stub.StreamGenerate(ask(), timeout=PATIENCE)
            first = await call.read()
            assert isinstance(first, v1.StreamGenerateResponse)
            assert first.HasField("start")
            cancelled_at = asyncio.get_running_loop().time()
            call.cancel()
            assert await servers[0].closed_at() - cancelled_at < self.WITHIN
            label = {"operation": "stream_generate", "caller": "anonymous"}
            assert trunkline.metric("trunkline_calls_total", **label, reason="cancelled") == 1

    async def test_while_connecting(self) -> None:
        with unanswering_port() as port:
            async with router(openai_at(f"http://127.0.0.1:{port}")) as trunkline:
                call = trunkline.stub.Generate(ask(), timeout=PATIENCE)
                await settled(lambda: trunkline.metric("trunkline_calls_in_flight") == 1)
                call.cancel()
                await settled(lambda: trunkline.metric("trunkline_calls_in_flight") == 0)
                with pytest.raises(asyncio.CancelledError):
                    await call
