"""Streams: their events, their ends, and what leaving one early does, by both clients."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.unit.client.scripted import (
    ClientDriver,
    Context,
    Served,
    end_event,
    fail,
    start_event,
    text_event,
)
from trunkline import (
    AsyncClient,
    AsyncStream,
    CallCancelledError,
    InternalError,
    StreamInterruptedError,
    v1,
)

Connect = Callable[..., ClientDriver]


async def test_stream_gives_events_text_and_message(served: Served, connect: Connect) -> None:
    async def script(request: Any, context: Context) -> AsyncIterator[v1.StreamGenerateResponse]:
        yield start_event()
        yield text_event("Hel")
        yield v1.StreamGenerateResponse(
            delta=v1.StreamDelta(
                part_index=1,
                tool_call=v1.ToolCallDelta(id="t", name="f", arguments_json='{"a"'),
            )
        )
        yield text_event("lo")
        yield v1.StreamGenerateResponse(
            delta=v1.StreamDelta(part_index=1, tool_call=v1.ToolCallDelta(arguments_json=":1}"))
        )
        yield end_event()

    served.router.on_stream = script
    client = connect(served.target)

    stream = await client.stream("x")
    events = []
    while (event := await stream.next()) is not None:
        events.append(event.WhichOneof("event"))
    assert events == ["start", "delta", "delta", "delta", "delta", "end"]
    assert stream.end is not None
    assert stream.end.usage.output_tokens == 2
    assert await stream.next() is None

    assert await (await client.stream("x")).texts() == ["Hel", "lo"]
    message = await (await client.stream("x")).message()
    assert message == v1.Message(
        role=v1.ROLE_ASSISTANT,
        parts=[
            v1.Part(text="Hello"),
            v1.Part(tool_call=v1.ToolCall(id="t", name="f", arguments_json='{"a":1}')),
        ],
    )


@pytest.mark.parametrize("how", ["cancel", "leave", "close the text"])
async def test_leaving_a_stream_cancels_it_at_the_server(
    served: Served, connect: Connect, how: str
) -> None:
    ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def script(request: Any, context: Context) -> AsyncIterator[v1.StreamGenerateResponse]:
        # Nothing but a cancellation ends this, wherever it strikes.
        try:
            yield start_event()
            yield text_event("one")
            await asyncio.Event().wait()
        finally:
            ended.set_result(True)

    served.router.on_stream = script
    stream = await connect(served.target).stream("x")
    if how == "close the text":
        assert await stream.texts(limit=1) == ["one"]
    else:
        assert await stream.next() == start_event()
        await (stream.cancel() if how == "cancel" else stream.leave())

    assert await asyncio.wait_for(ended, 10)
    with pytest.raises(CallCancelledError) as caught:
        await stream.next()
    assert caught.value.reason == v1.ERROR_REASON_CANCELLED
    assert caught.value.request_id == "call-1"


async def test_cancelling_beside_a_waiting_read(served: Served, connect: Connect) -> None:
    waiting = asyncio.Event()

    async def script(request: Any, context: Context) -> AsyncIterator[v1.StreamGenerateResponse]:
        yield start_event()
        waiting.set()
        await asyncio.Event().wait()

    served.router.on_stream = script
    stream = await connect(served.target).stream("x")
    await stream.next()
    reading = asyncio.create_task(stream.next())
    await asyncio.wait_for(waiting.wait(), 10)
    await stream.cancel()
    with pytest.raises(CallCancelledError):
        await asyncio.wait_for(reading, 10)


async def test_cancelling_the_reading_task_cancels_the_stream(served: Served) -> None:
    waiting, ended = asyncio.Event(), asyncio.Event()

    async def script(request: Any, context: Context) -> AsyncIterator[v1.StreamGenerateResponse]:
        try:
            yield start_event()
            waiting.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    served.router.on_stream = script
    async with AsyncClient(served.target) as client:
        reading = asyncio.create_task(client.stream("x").message())
        await asyncio.wait_for(waiting.wait(), 10)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(ended.wait(), 10)


async def read_one(stream: AsyncStream) -> bool:
    return await anext(stream, None) is not None


async def test_cancelling_the_reader_before_it_wakes_up(served: Served) -> None:
    ended = asyncio.Event()

    async def script(request: Any, context: Context) -> AsyncIterator[v1.StreamGenerateResponse]:
        try:
            yield start_event()
            await asyncio.Event().wait()
        finally:
            ended.set()

    served.router.on_stream = script
    async with AsyncClient(served.target) as client:
        stream = client.stream("x")
        # gRPC's own task that sends the request; the reader waits for it first. Our callback
        # stands before the reader's wake-up, so the cancellation falls into the gap.
        sending = stream._call._preparation  # type: ignore[attr-defined] # It has no public name.
        reading: asyncio.Task[bool]
        sending.add_done_callback(lambda _: reading.cancel())
        reading = asyncio.create_task(read_one(stream))
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert stream._call.cancelled()
        # The cancellation may overtake the request; the server then never sees the call.
        if served.router.calls:
            await asyncio.wait_for(ended.wait(), 10)


async def test_leaving_after_the_end_event_cancels_nothing(
    served: Served, connect: Connect
) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def script(request: Any, context: Context) -> AsyncIterator[v1.StreamGenerateResponse]:
        try:
            yield end_event()
            await leave.wait()
        except asyncio.CancelledError:
            ended.set_result("cancelled")
            raise
        ended.set_result("finished")

    served.router.on_stream = script
    stream = await connect(served.target).stream("x")
    assert await stream.next() == end_event()
    await stream.leave()
    leave.set()
    assert await asyncio.wait_for(ended, 10) == "finished"
    assert await stream.next() is None


async def test_stream_that_breaks_off_raises(served: Served, connect: Connect) -> None:
    async def script(request: Any, context: Context) -> AsyncIterator[v1.StreamGenerateResponse]:
        yield start_event()
        yield text_event("Hel")
        info = error_details_pb2.ErrorInfo(
            reason="ERROR_REASON_STREAM_INTERRUPTED", domain="trunkline"
        )
        report = v1.CallReport(id="call-1", usage=v1.Usage(output_tokens=1))
        await fail(context, grpc.StatusCode.UNAVAILABLE, "cut", info, report)

    served.router.on_stream = script
    stream = await connect(served.target).stream("x")
    with pytest.raises(StreamInterruptedError) as caught:
        await stream.texts()
    assert caught.value.report is not None
    assert caught.value.report.usage.output_tokens == 1
    assert stream.end is None


async def test_stream_without_its_end_event_is_no_success(served: Served, connect: Connect) -> None:
    async def script(request: Any, context: Context) -> AsyncIterator[v1.StreamGenerateResponse]:
        yield start_event("call-9")
        yield text_event("Hel")

    served.router.on_stream = script
    with pytest.raises(InternalError, match="without its end event") as caught:
        await (await connect(served.target).stream("x")).message()
    assert caught.value.request_id == "call-9"
