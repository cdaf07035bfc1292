"""Calls as the server sees them and answers as the caller gets them, by both clients."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from tests.unit.client.scripted import (
    ClientDriver,
    Context,
    Served,
    end_event,
)
from trunkline import (
    AsyncClient,
    CallCancelledError,
    Client,
    DeadlineError,
    TrunklineError,
    UnavailableError,
    text_of,
    v1,
)

Connect = Callable[..., ClientDriver]


def answer(text: str) -> v1.GenerateResponse:
    return v1.GenerateResponse(
        message=v1.Message(role=v1.ROLE_ASSISTANT, parts=[v1.Part(text=text)])
    )


async def test_prompt_becomes_one_user_message(served: Served, connect: Connect) -> None:
    async def script(request: v1.GenerateRequest, context: Context) -> v1.GenerateResponse:
        return answer("hi " + request.messages[0].parts[0].text)

    served.router.on_generate = script
    response = await connect(served.target).generate("there", model="gpt-5")

    assert text_of(response) == "hi there"
    assert served.router.calls[0].request == v1.GenerateRequest(
        model="gpt-5",
        messages=[v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text="there")])],
    )


async def test_requests_travel_unchanged(served: Served, connect: Connect) -> None:
    async def generate(request: Any, context: Context) -> v1.GenerateResponse:
        return answer("ok")

    async def embed(request: v1.EmbedRequest, context: Context) -> v1.EmbedResponse:
        vectors = [v1.Embedding(values=[len(text), 0.5]) for text in request.inputs]
        return v1.EmbedResponse(embeddings=vectors)

    async def route(request: Any, context: Context) -> v1.RouteResponse:
        return v1.RouteResponse(decision=v1.Decision(deployment="d1"))

    served.router.on_generate, served.router.on_embed = generate, embed

    async def batch_route(request: Any, context: Context) -> v1.BatchRouteResponse:
        results = [v1.BatchRouteResult(response=v1.RouteResponse()) for _ in request.requests]
        return v1.BatchRouteResponse(results=results)

    served.router.on_route, served.router.on_batch_route = route, batch_route
    client = connect(served.target)
    sent = v1.GenerateRequest(model="m", config=v1.GenerationConfig(temperature=0))

    await client.generate(sent)
    embedded = await client.embed(["a", "bcd"], model="e")
    single = await client.embed("xy", model="e")
    routed = await client.route(v1.RouteRequest(model="m", input_tokens=7))
    await client.route(model="n")
    batch = [v1.RouteRequest(model="m"), v1.RouteRequest(model="n")]
    batched = await client.batch_route(iter(batch))

    assert len(batched.results) == 2
    assert [list(vector.values) for vector in embedded.embeddings] == [[1, 0.5], [3, 0.5]]
    assert [list(vector.values) for vector in single.embeddings] == [[2, 0.5]]
    assert routed.decision.deployment == "d1"
    requests = [call.request for call in served.router.calls]
    assert requests[0] == sent
    assert requests[0].config.HasField("temperature")
    assert requests[1] == v1.EmbedRequest(model="e", inputs=["a", "bcd"])
    assert requests[3] == v1.RouteRequest(model="m", input_tokens=7)
    assert requests[4] == v1.RouteRequest(model="n")
    assert requests[5] == v1.BatchRouteRequest(requests=batch)


async def test_model_beside_a_full_request_is_refused(served: Served, connect: Connect) -> None:
    client = connect(served.target)
    with pytest.raises(ValueError, match="model"):
        await client.generate(v1.GenerateRequest(), model="m")
    with pytest.raises(ValueError, match="model"):
        await client.route(v1.RouteRequest(), model="m")
    assert served.router.calls == []


async def test_deadline_reaches_the_server_and_ends_the_call(
    served: Served, connect: Connect
) -> None:
    async def wait(request: Any, context: Context) -> v1.GenerateResponse:
        await asyncio.Event().wait()
        return answer("never")

    served.router.on_generate = wait
    client = connect(served.target, timeout=40)

    with pytest.raises(DeadlineError) as caught:
        await client.generate(v1.GenerateRequest(request_id="r-1"), timeout=0.2)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.reason == v1.ERROR_REASON_UNSPECIFIED
    assert caught.value.request_id == "r-1"
    remaining = served.router.calls[0].remaining
    assert remaining is not None
    assert remaining < 1


async def test_every_method_has_the_clients_deadline(served: Served, connect: Connect) -> None:
    async def generate(request: Any, context: Context) -> v1.GenerateResponse:
        return answer("ok")

    async def embed(request: Any, context: Context) -> v1.EmbedResponse:
        return v1.EmbedResponse()

    async def route(request: Any, context: Context) -> v1.RouteResponse:
        return v1.RouteResponse()

    async def stream(request: Any, context: Context) -> AsyncIterator[v1.StreamGenerateResponse]:
        yield end_event()

    router = served.router
    router.on_generate, router.on_embed, router.on_route = generate, embed, route
    router.on_stream = stream
    clients = ((connect(served.target), 60), (connect(served.target, timeout=20), 20))
    for client, seconds in clients:
        router.calls.clear()
        await client.generate("x")
        await client.embed("x")
        await client.route()
        await (await client.stream("x")).message()
        assert len(router.calls) == 4
        for call in router.calls:
            assert call.remaining is not None
            # gRPC rounds deadlines up to its own coarse steps.
            assert seconds - 5 < call.remaining < seconds + 1, call.method


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
async def test_impossible_timeouts_are_refused(
    served: Served, connect: Connect, seconds: float
) -> None:
    with pytest.raises(ValueError, match="timeout"):
        connect(served.target, timeout=seconds)
    with pytest.raises(ValueError, match="timeout"):
        await connect(served.target).generate("x", timeout=seconds)


@pytest.mark.parametrize(
    ("method", "expected"), [("route", 3), ("generate", 1), ("embed", 1), ("stream", 1)]
)
async def test_only_route_is_tried_again(
    served: Served, connect: Connect, method: str, expected: int
) -> None:
    router = served.router

    async def unary(request: Any, context: Context) -> Any:
        if len(router.calls) < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        return v1.RouteResponse(decision=v1.Decision(deployment="third"))

    async def stream(request: Any, context: Context) -> AsyncIterator[v1.StreamGenerateResponse]:
        if len(router.calls) < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        yield end_event()

    router.on_generate = router.on_embed = router.on_route = unary
    router.on_stream = stream
    client = connect(served.target)
    if method == "route":
        assert (await client.route()).decision.deployment == "third"
    elif method == "stream":
        with pytest.raises(UnavailableError):
            await (await client.stream("x")).next()
    else:
        with pytest.raises(UnavailableError):
            await getattr(client, method)("x")
    assert len(router.calls) == expected


async def test_route_is_not_retried_after_a_refusal(served: Served, connect: Connect) -> None:
    async def script(request: Any, context: Context) -> Any:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")

    served.router.on_route = script
    with pytest.raises(TrunklineError):
        await connect(served.target).route()
    assert len(served.router.calls) == 1


async def test_metadata_of_a_call(served: Served, connect: Connect) -> None:
    async def script(request: Any, context: Context) -> v1.RouteResponse:
        return v1.RouteResponse()

    served.router.on_route = script
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    client = connect(
        served.target,
        api_key="tl-secret",
        metadata={"X-Team": "search"},
        propagate=lambda carrier: carrier.update({"traceparent": traceparent}),
    )
    await client.route(metadata={"X-Once": "1"})
    await client.route()

    first, second = (call.metadata for call in served.router.calls)
    assert first["authorization"] == "Bearer tl-secret"
    assert first["traceparent"] == traceparent
    assert first["x-team"] == "search"
    assert first["x-once"] == "1"
    assert str(first["user-agent"]).startswith("trunkline-python/")
    assert second["authorization"] == "Bearer tl-secret"
    assert "x-once" not in second


async def test_no_key_means_no_authorization(served: Served, connect: Connect) -> None:
    async def script(request: Any, context: Context) -> v1.RouteResponse:
        return v1.RouteResponse()

    served.router.on_route = script
    await connect(served.target).route()
    assert "authorization" not in served.router.calls[0].metadata


async def test_the_key_is_in_no_repr(served: Served, connect: Connect) -> None:
    assert "tl-secret" not in connect(served.target, api_key="tl-secret").shown()


async def test_messages_beyond_grpcs_own_limit(served: Served, connect: Connect) -> None:
    async def script(request: v1.GenerateRequest, context: Context) -> v1.GenerateResponse:
        return v1.GenerateResponse(message=request.messages[0])

    served.router.on_generate = script
    image = v1.Part(image=v1.Image(data=bytes(20 * 1024 * 1024), media_type="image/png"))
    message = v1.Message(role=v1.ROLE_USER, parts=[image])
    response = await connect(served.target).generate(v1.GenerateRequest(messages=[message]))
    assert response.message == message


async def test_reconnects_after_the_server_restarts(served: Served, connect: Connect) -> None:
    async def script(request: Any, context: Context) -> v1.GenerateResponse:
        return answer("ok")

    served.router.on_generate = script
    client = connect(served.target)
    await client.generate("x")

    await served.stop()
    with pytest.raises(UnavailableError) as caught:
        await client.generate("x")
    assert caught.value.reason == v1.ERROR_REASON_UNSPECIFIED

    await served.start()

    async def until_answered() -> v1.GenerateResponse:
        while True:
            try:
                return await client.generate("x")
            except UnavailableError:
                await asyncio.sleep(0.05)

    # The longest pause before a new connection is 5 seconds.
    assert text_of(await asyncio.wait_for(until_answered(), 15)) == "ok"


async def test_cancelling_the_task_cancels_the_call(served: Served) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def script(request: Any, context: Context) -> v1.GenerateResponse:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return answer("never")

    served.router.on_generate = script
    async with AsyncClient(served.target) as client:
        task = asyncio.create_task(client.generate("x"))
        await asyncio.wait_for(started.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(ended.wait(), 10)


async def test_a_call_that_was_begun_is_cancelled_from_another_thread(served: Served) -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def script(request: Any, context: Context) -> Any:
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    served.router.on_generate = script
    with Client(served.target) as client:
        pending = client.begin_generate(v1.GenerateRequest(request_id="mine"))
        waiting = asyncio.create_task(asyncio.to_thread(pending.result))
        await arrived.wait()
        pending.cancel()
        with pytest.raises(CallCancelledError) as caught:
            await waiting
        await gone.wait()
    assert caught.value.request_id == "mine"
    assert caught.value.reason == v1.ERROR_REASON_CANCELLED


async def test_a_call_that_was_begun_is_answered_or_fails_as_any_other(served: Served) -> None:
    async def script(request: v1.GenerateRequest, context: Context) -> v1.GenerateResponse:
        if not request.messages[0].parts[0].text:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        return answer("hi")

    served.router.on_generate = script
    with Client(served.target) as client:
        answered, failing = client.begin_generate("there"), client.begin_generate("")
        assert text_of(await asyncio.to_thread(answered.result)) == "hi"
        answered.cancel()  # Too late, and harmless.
        with pytest.raises(UnavailableError):
            await asyncio.to_thread(failing.result)
