"""Drives the Python client as tests/conformance/README.md says.

usage: python driver.py [--asyncio]

With --asyncio it is AsyncClient that is driven, otherwise Client, each call in a thread.
"""

import asyncio
import base64
import json
import sys
import threading
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from google.protobuf.message import Message
from opentelemetry import context, propagate

from trunkline import (
    AsyncClient,
    AsyncStream,
    CallCancelledError,
    Client,
    Pending,
    Stream,
    TlsOptions,
    TrunklineError,
    text_of,
    v1,
)

Line = Mapping[str, Any]

_REQUESTS: Mapping[str, tuple[type[Message], str]] = {
    "Generate": (v1.GenerateRequest, "generate"),
    "Embed": (v1.EmbedRequest, "embed"),
    "Route": (v1.RouteRequest, "route"),
    "BatchRoute": (v1.BatchRouteRequest, "batch_route"),
}

_writing = threading.Lock()


def write(number: int, **words: Any) -> None:
    """Writes one line of the answer."""
    with _writing:
        sys.stdout.write(json.dumps({"id": number, **words}) + "\n")
        sys.stdout.flush()


def encoded(message: Message) -> str:
    return base64.b64encode(message.SerializeToString()).decode()


def told(error: TrunklineError) -> dict[str, Any]:
    """The error as the harness reads it."""
    return {
        "code": error.code.name,
        "reason": v1.ErrorReason.Name(error.reason),
        "message": error.message,
        "metadata": error.metadata,
        "retry_after": error.retry_after,
        "field_violations": [
            {"field": each.field, "description": each.description}
            for each in error.field_violations
        ],
        "quota_violations": [
            {"subject": each.subject, "description": each.description}
            for each in error.quota_violations
        ],
        "report": None if error.report is None else encoded(error.report),
        "request_id": error.request_id,
    }


def arguments(options: Line) -> dict[str, Any]:
    """The client's arguments for the options of an `open`."""
    words = ("target", "api_key", "timeout", "metadata")
    given = {word: options[word] for word in words if word in options}
    files = {word: options.get(word) for word in ("cert_file", "key_file", "server_name")}
    if "ca_file" in options or any(files.values()):
        given["tls"] = TlsOptions.from_files(options.get("ca_file"), **files)
    # Channels share connections by address, and a case's router may be where another's was.
    given["channel_options"] = {"grpc.use_local_subchannel_pool": 1}
    given["propagate"] = propagate.inject
    return given


class Driver:
    """Holds the clients by name and the running calls by the number of their line."""

    def __init__(self, kind: type[Client] | type[AsyncClient]) -> None:
        self._kind = kind
        self._clients: dict[str, Client | AsyncClient] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._running: dict[int, Stream | AsyncStream | Pending[v1.GenerateResponse]] = {}
        self._cancelled: set[int] = set()

    async def take(self, line: Line) -> None:
        """Does what a line says; calls run on in the background."""
        number = int(line["id"])
        match line["op"]:
            case "open":
                self._open(number, line)
            case "close":
                await self._close(number, line)
            case "cancel":
                self._cancel(int(line["call"]))
            case "call" | "stream" as op:
                run = self._call if op == "call" else self._stream
                self._tasks[number] = asyncio.create_task(self._guard(number, run(number, line)))
            case op:
                write(number, failed=f"unknown op {op}")

    def _open(self, number: int, line: Line) -> None:
        options = line["options"]
        try:
            if "environment" in options:
                client = self._kind.from_environment(options["environment"])
            else:
                client = self._kind(**arguments(options))
        except (ValueError, OSError) as error:
            write(number, failed=str(error))
            return
        self._clients[line["client"]] = client
        write(number, ok=True)

    async def _close(self, number: int, line: Line) -> None:
        client = self._clients.pop(line["client"])
        if isinstance(client, AsyncClient):
            await client.close()
        else:
            await asyncio.to_thread(client.close)
        write(number, ok=True)

    def _cancel(self, call: int) -> None:
        self._cancelled.add(call)
        if (running := self._running.get(call)) is not None:
            running.cancel()
        else:
            self._tasks[call].cancel()

    async def _guard(self, number: int, running: Any) -> None:
        try:
            await running
        except CallCancelledError as error:
            if number in self._cancelled:
                write(number, cancelled=True)
            else:
                write(number, error=told(error))
        except TrunklineError as error:
            write(number, error=told(error))
        except asyncio.CancelledError:
            write(number, cancelled=True)
        except Exception as error:  # noqa: BLE001 - whatever else happens is a finding
            write(number, failed=f"{type(error).__name__}: {error}")

    async def _call(self, number: int, line: Line) -> None:
        kind, name = _REQUESTS[line["method"]]
        request: Any = kind.FromString(base64.b64decode(line["request"]))
        if line["method"] == "BatchRoute":
            request = request.requests
        client = self._clients[line["client"]]
        if line["cancellable"] and isinstance(client, Client) and line["method"] == "Generate":
            pending = client.begin_generate(request, timeout=line["timeout"])
            self._running[number] = pending
            answer: Any = await asyncio.to_thread(pending.result)
        else:
            answer = await self._with_trace(line, getattr(client, name), request)
        words = {"text": text_of(answer)} if isinstance(answer, v1.GenerateResponse) else {}
        write(number, response=encoded(answer), **words)

    async def _stream(self, number: int, line: Line) -> None:
        request = v1.GenerateRequest.FromString(base64.b64decode(line["request"]))
        client = self._clients[line["client"]]
        stream = await self._with_trace(line, client.stream, request)
        self._running[number] = stream
        if isinstance(stream, AsyncStream):
            await self._read_async(number, stream, line["read"])
        else:
            await asyncio.to_thread(self._read, number, stream, line["read"])

    async def _with_trace(self, line: Line, method: Any, request: Any) -> Any:
        """Calls within the trace that the line names, as instrumented code would."""
        own = propagate.extract({"traceparent": line["trace"]} if line["trace"] else {})
        token = context.attach(own)
        try:
            named = {"timeout": line["timeout"], "metadata": line["metadata"] or None}
            if self._kind is Client and line["op"] == "call":
                return await asyncio.to_thread(method, request, **named)
            answer = method(request, **named)
            return await answer if asyncio.iscoroutine(answer) else answer
        finally:
            context.detach(token)

    async def _read_async(self, number: int, stream: AsyncStream, how: str) -> None:
        match how:
            case "text":
                pieces = [piece async for piece in stream.text()]
                write(number, text="".join(pieces))
            case "message":
                write(number, message=encoded(await stream.message()))
            case "leave":
                async with stream:
                    async for event in stream:
                        if event.HasField("delta"):
                            break
                write(number, left=True)
            case _:
                async for event in stream:
                    write(number, event=encoded(event))
                write(number, done=True)

    def _read(self, number: int, stream: Stream, how: str) -> None:
        match how:
            case "text":
                write(number, text="".join(stream.text()))
            case "message":
                write(number, message=encoded(stream.message()))
            case "leave":
                with stream:
                    for event in stream:
                        if event.HasField("delta"):
                            break
                write(number, left=True)
            case _:
                with closing(stream):
                    for event in stream:
                        write(number, event=encoded(event))
                write(number, done=True)


async def main() -> None:
    driver = Driver(AsyncClient if "--asyncio" in sys.argv[1:] else Client)
    while line := await asyncio.to_thread(sys.stdin.readline):
        await driver.take(json.loads(line))


if __name__ == "__main__":
    asyncio.run(main())
