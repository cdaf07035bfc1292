"""The kinds of bare server.

| kind | what one call does |
| --- | --- |
| echo-raw | takes bytes, gives prepared bytes |
| echo | parses the request, serialises a prepared reply |
| forward | as echo, and between the two posts a prepared body upstream and reads the answer |
| forward-aiohttp | the same by aiohttp |
| translate | as forward, with the JSON of both directions made and read for each call |
| stream | sends prepared events, without an upstream |
| stream-forward | posts upstream and sends a prepared event for each one that arrives |
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import aiohttp
import grpc
import orjson

from bench.floors.lean_http import LeanClient
from bench.payloads import (
    WORD,
    delta,
    embed_response,
    end,
    generate_response,
    route_response,
    start,
)
from trunkline import v1

Context = grpc.aio.ServicerContext[Any, Any]
# Generic in its stubs, not when it runs.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Handlers: TypeAlias = "dict[str, grpc.RpcMethodHandler[Any, Any]]"
# Posts the body upstream and gives the answer's.
Post = Callable[[bytes], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Material:
    """What a kind works with."""

    upstream: str
    path: str
    body: bytes
    chunks: int
    vectors: int


def _echo_raw(_material: Material) -> Handlers:
    replies = {
        "Route": route_response().SerializeToString(),
        "Generate": generate_response().SerializeToString(),
    }

    def handler(reply: bytes) -> Handler:
        async def answer(_request: bytes, _context: Context) -> bytes:
            return reply

        return grpc.unary_unary_rpc_method_handler(answer, None, None)

    return {name: handler(reply) for name, reply in replies.items()}


def _echo(_material: Material) -> Handlers:
    reply = route_response()

    async def route(_request: v1.RouteRequest, _context: Context) -> v1.RouteResponse:
        return reply

    answer = generate_response()

    async def generate(_request: v1.GenerateRequest, _context: Context) -> v1.GenerateResponse:
        return answer

    return {
        "Route": grpc.unary_unary_rpc_method_handler(
            route, v1.RouteRequest.FromString, v1.RouteResponse.SerializeToString
        ),
        "Generate": grpc.unary_unary_rpc_method_handler(
            generate, v1.GenerateRequest.FromString, v1.GenerateResponse.SerializeToString
        ),
    }


def _forwarding(material: Material, post: Post) -> Handlers:
    reply = generate_response()
    vectors = embed_response(max(material.vectors, 1))
    body = material.body

    async def generate(_request: v1.GenerateRequest, _context: Context) -> v1.GenerateResponse:
        await post(body)
        return reply

    async def embed(_request: v1.EmbedRequest, _context: Context) -> v1.EmbedResponse:
        await post(body)
        return vectors

    return {
        "Generate": grpc.unary_unary_rpc_method_handler(
            generate, v1.GenerateRequest.FromString, v1.GenerateResponse.SerializeToString
        ),
        "Embed": grpc.unary_unary_rpc_method_handler(
            embed, v1.EmbedRequest.FromString, v1.EmbedResponse.SerializeToString
        ),
    }


def _forward(material: Material) -> Handlers:
    return _forwarding(material, LeanClient(material.upstream, material.path).post)


def _forward_aiohttp(material: Material) -> Handlers:
    url = f"http://{material.upstream}{material.path}"
    headers = {"Content-Type": "application/json"}
    session: aiohttp.ClientSession | None = None

    async def post(body: bytes) -> bytes:
        nonlocal session
        if session is None:
            connector = aiohttp.TCPConnector(limit=0)
            session = aiohttp.ClientSession(connector=connector, raise_for_status=True)
        async with session.post(url, data=body, headers=headers) as answer:
            return await answer.read()

    return _forwarding(material, post)


def _translate(material: Material) -> Handlers:
    client = LeanClient(material.upstream, material.path)

    async def generate(request: v1.GenerateRequest, _context: Context) -> v1.GenerateResponse:
        messages = [
            {"role": "user", "content": "".join(part.text for part in message.parts)}
            for message in request.messages
        ]
        body = {"model": "bench", "messages": messages}
        answer = orjson.loads(await client.post(orjson.dumps(body)))
        reply = v1.GenerateResponse(id=answer["id"], model=answer["model"])
        reply.message.parts.add(text=answer["choices"][0]["message"]["content"])
        reply.finish_reason = v1.FINISH_REASON_STOP
        reply.usage.input_tokens = answer["usage"]["prompt_tokens"]
        reply.usage.output_tokens = answer["usage"]["completion_tokens"]
        return reply

    return {
        "Generate": grpc.unary_unary_rpc_method_handler(
            generate, v1.GenerateRequest.FromString, v1.GenerateResponse.SerializeToString
        )
    }


def _stream(material: Material) -> Handlers:
    async def generate(
        _request: v1.GenerateRequest, _context: Context
    ) -> AsyncIterator[v1.StreamGenerateResponse]:
        yield start()
        piece = delta()
        for _ in range(material.chunks):
            yield piece
        yield end()

    return _streamed(generate)


def _stream_forward(material: Material) -> Handlers:
    client = LeanClient(material.upstream, material.path)

    async def generate(_request: v1.GenerateRequest, context: Context) -> None:
        pieces: asyncio.Queue[bytes] = asyncio.Queue()
        call = asyncio.ensure_future(client.post(material.body, pieces.put_nowait))
        # Empty, which no piece is: the end.
        call.add_done_callback(lambda _: pieces.put_nowait(b""))
        await context.write(start())
        event, rest = delta(), b""
        while data := await pieces.get():
            # An event ends with an empty line; only those with text are passed on.
            *whole, rest = (rest + data).split(b"\n\n")
            for text in whole:
                if WORD in text:
                    await context.write(event)
        await call
        await context.write(end())

    return _streamed(generate)


def _streamed(behaviour: Any) -> Handlers:
    return {
        "StreamGenerate": grpc.unary_stream_rpc_method_handler(
            behaviour, v1.GenerateRequest.FromString, v1.StreamGenerateResponse.SerializeToString
        )
    }


KINDS: Mapping[str, Callable[[Material], Handlers]] = {
    "echo-raw": _echo_raw,
    "echo": _echo,
    "forward": _forward,
    "forward-aiohttp": _forward_aiohttp,
    "translate": _translate,
    "stream": _stream,
    "stream-forward": _stream_forward,
}
