"""The HTTP server of the face."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError, invalid
from trunkline_server.openai_face.chat_answer import completion
from trunkline_server.openai_face.chat_request import ChatRequest, read_chat
from trunkline_server.openai_face.chat_stream import ChunkWriter
from trunkline_server.openai_face.context import CallFailedError, HttpContext
from trunkline_server.openai_face.embeddings import embeddings, read_embeddings
from trunkline_server.openai_face.failures import Failure, failure, failure_of
from trunkline_server.openai_face.models import model, model_list
from trunkline_server.openai_face.ports import Door, Inference, Models
from trunkline_server.openai_face.reading import Fields, Json, parse_body

# What is quoted of a model's name.
_QUOTED = 128
# How long a client may take to send a request's body. Seconds.
_BODY_SECONDS = 60.0
# JSON carries pictures and recordings in base64, which the contract does not.
_ROOM = 4 / 3

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class OpenAIFace:
    """Serves /v1/chat/completions, /v1/embeddings and /v1/models."""

    def __init__(
        self,
        inference: Inference,
        models: Models,
        door: Door,
        clock: Clock,
        *,
        max_request_bytes: Callable[[], int],
        patience: float,
        body_seconds: float = _BODY_SECONDS,
    ) -> None:
        """`max_request_bytes` is asked for each request; `patience` is how many seconds calls
        under way have to end once it stops, `body_seconds` how many a body may take to come."""
        self._inference = inference
        self._known = models
        self._door = door
        self._clock = clock
        self._max_request_bytes = max_request_bytes
        self._body_seconds = body_seconds
        application = web.Application(middlewares=[self._guarded])
        route = application.router
        route.add_post("/v1/chat/completions", self._chat)
        route.add_post("/v1/embeddings", self._embeddings)
        route.add_get("/v1/models", self._models)
        # Names may hold slashes, as provider/model has.
        route.add_get("/v1/models/{name:.+}", self._model)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            # A client that goes away cancels its call, which closes the upstream.
            handler_cancellation=True,
            shutdown_timeout=patience,
        )

    async def start(
        self, host: str, port: int, tls: ssl.SSLContext | None = None, *, reuse_port: bool = False
    ) -> int:
        """Listens and serves; returns the port. Raises OSError if it cannot."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=tls, reuse_port=reuse_port)
        await site.start()
        _, bound, *_ = self._runner.addresses[0]
        return int(bound)

    async def stop(self) -> None:
        """Takes no new connections, and ends once the calls under way have, or their patience
        has."""
        await self._runner.cleanup()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Tells failures in OpenAI's shape."""
        try:
            return await handler(request)
        except CallFailedError as error:
            return _told(failure(error.status, error.request_id))
        except TrunklineError as error:
            # What a method refuses, it has told the door itself.
            self._door.refused(_operation(request), "", error)
            return _told(failure_of(error))
        except web.HTTPException as error:
            return _told(_of_http(request, error))
        except Exception as error:  # noqa: BLE001 - the boundary: told, and logged with its trace
            self._door.defect(_operation(request), "", error)
            told = TrunklineError(v1.ERROR_REASON_INTERNAL, "internal error; the log says more")
            return _told(failure_of(told))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        chat = read_chat(await self._body(request))
        if chat.stream:
            return await self._streamed(request, chat)
        raw = chat.generate.SerializeToString()
        answer = v1.GenerateResponse.FromString(
            await self._inference.generate(raw, HttpContext(request))
        )
        return _json(completion(answer, chat.generate.model, self._now()), answer.id)

    async def _streamed(self, request: web.Request, chat: ChatRequest) -> web.StreamResponse:
        writer = ChunkWriter(chat.generate.model, self._now(), include_usage=chat.include_usage)
        response = web.StreamResponse(
            headers={"content-type": "text/event-stream", "cache-control": "no-cache"}
        )

        async def write(event: object) -> None:
            for chunk in writer.chunks(_event(event)):
                if not response.prepared:
                    response.headers["x-request-id"] = writer.id
                    await response.prepare(request)
                await response.write(b"data: %b\n\n" % orjson.dumps(chunk))

        raw = chat.generate.SerializeToString()
        try:
            await self._inference.stream_generate(raw, HttpContext(request, write))
        except CallFailedError as error:
            if not response.prepared:
                raise
            # The status line is out: the failure is the last event, and no [DONE] follows.
            told = orjson.dumps(failure(error.status).body)
            await response.write(b"data: %b\n\n" % told)
        else:
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        asked = read_embeddings(await self._body(request))
        answer = v1.EmbedResponse.FromString(
            await self._inference.embed(asked.embed.SerializeToString(), HttpContext(request))
        )
        return _json(embeddings(answer, asked.embed.model, base64=asked.base64), answer.id)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        return _json(model_list(await self._known.models(HttpContext(request))))

    async def _model(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        for known in await self._known.models(HttpContext(request)):
            if known.name == name:
                return _json(model(known))
        raise TrunklineError(
            v1.ERROR_REASON_MODEL_NOT_FOUND,
            "there is no such model that this caller may use",
            metadata={"model": name[:_QUOTED]},
        )

    async def _body(self, request: web.Request) -> Fields:
        """The request's JSON. Raises INVALID_REQUEST."""
        most = round(self._max_request_bytes() * _ROOM)
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                async for piece in request.content.iter_any():
                    body += piece
                    if len(body) > most:
                        raise invalid("(request)", f"is larger than {most} bytes, the most allowed")
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        return parse_body(bytes(body))

    def _now(self) -> int:
        return int(self._clock.wall())


def _event(event: object) -> v1.StreamGenerateResponse:
    """A streamed event, which comes as bytes where it was kept in the cache."""
    if isinstance(event, v1.StreamGenerateResponse):
        return event
    if isinstance(event, bytes):
        return v1.StreamGenerateResponse.FromString(event)
    raise TypeError(f"{type(event).__name__} is no event of a streamed answer")


def _json(body: Json, request_id: str = "") -> web.Response:
    headers = {"x-request-id": request_id} if request_id else {}
    return web.Response(body=orjson.dumps(body), content_type="application/json", headers=headers)


def _told(told: Failure) -> web.Response:
    return web.Response(
        status=told.http_status,
        body=orjson.dumps(told.body),
        content_type="application/json",
        headers=told.headers,
    )


def _of_http(request: web.Request, error: web.HTTPException) -> Failure:
    """What is no call at all: unknown paths and methods, and bodies that do not come."""
    message = f"{request.method} {request.path} is not served: {error.reason}"
    body = {
        "error": {
            "message": message,
            "type": "invalid_request_error",
            "param": None,
            "code": "timeout" if error.status == 408 else "unknown_url",
        }
    }
    return Failure(error.status, body, {"x-should-retry": "false"})


def _operation(request: web.Request) -> str:
    """What the metrics call it; paths that are not served are one thing."""
    return {
        "/v1/chat/completions": "generate",
        "/v1/embeddings": "embed",
        "/v1/models": "list_models",
    }.get(request.path, "unknown")
