"""trunkline.v1.InferenceService: from the wire to the engine and back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.rpc.lists import ListMethods
from trunkline_server.rpc.media import MediaMethods
from trunkline_server.rpc.metadata import read_authorization
from trunkline_server.rpc.service import guarded, serialized
from trunkline_server.rpc.ticket import Context, Ticket
from trunkline_server.rpc.validation import (
    validate_batch_route,
    validate_embed,
    validate_route,
)

SERVICE = "trunkline.v1.InferenceService"

# So many decisions of a batch are made before other calls get their turn.
BATCH_STRIDE = 128


class InferenceServicer(MediaMethods, ListMethods):
    """Serves the RPCs. One instance a process, replaced never, reconfigured in place.

    Requests arrive as bytes: a body that is no protobuf message is then the caller's typed
    error, and not a generic one of the transport.
    """

    def handlers(self) -> grpc.GenericRpcHandler:
        """The service as grpc.aio registers it."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                # What the cache kept is serialised already.
                "Generate": grpc.unary_unary_rpc_method_handler(self.generate, None, None),
                "StreamGenerate": grpc.unary_stream_rpc_method_handler(
                    self.stream_generate, None, serialized
                ),
                "Embed": grpc.unary_unary_rpc_method_handler(self.embed, None, None),
                "GenerateImage": _unary(self.generate_image),
                "Transcribe": grpc.stream_unary_rpc_method_handler(
                    self.transcribe, None, serialized
                ),
                "Synthesize": grpc.unary_stream_rpc_method_handler(
                    self.synthesize, None, serialized
                ),
                "Rerank": _unary(self.rerank),
                "CountTokens": _unary(self.count_tokens),
                "ListModels": _unary(self.list_models),
                "ListProviderHealth": _unary(self.list_provider_health),
                # It gives bytes.
                "Route": grpc.unary_unary_rpc_method_handler(self.route, None, None),
                "BatchRoute": grpc.unary_unary_rpc_method_handler(
                    self.batch_route, None, v1.BatchRouteResponse.SerializeToString
                ),
            },
        )

    @guarded("generate")
    async def generate(self, ticket: Ticket, raw: bytes, context: Context) -> bytes:
        """Generate."""
        caller, metadata = self._authenticate(ticket)
        known = self._requests.known(raw)
        request = known or self._requests.generation(raw)
        call, request = self._admit(ticket, request, caller, metadata, raw)
        answer = await self._engine.generate(call, request)
        if not isinstance(answer, bytes):
            return answer.SerializeToString()
        if known is None:
            # It came from the cache; who asks again need not be understood again.
            self._requests.remember(call)
        return answer

    @guarded("stream_generate")
    async def stream_generate(self, ticket: Ticket, raw: bytes, context: Context) -> None:
        """StreamGenerate. Events are written, not yielded: a cancelled call then unwinds
        through the engine at once, and closes the upstream."""
        caller, metadata = self._authenticate(ticket)
        known = self._requests.known(raw)
        request = known or self._requests.generation(raw)
        call, request = self._admit(ticket, request, caller, metadata, raw)
        await self._engine.stream_generate(call, request, context.write)
        if known is None and call.cache_status == v1.CACHE_STATUS_HIT:
            self._requests.remember(call)

    @guarded("embed")
    async def embed(self, ticket: Ticket, raw: bytes, context: Context) -> bytes:
        """Embed."""
        caller, metadata = self._authenticate(ticket)
        request = self._requests.parse(v1.EmbedRequest, raw)
        validate_embed(request)
        call, request = self._admit(ticket, request, caller, metadata)
        return serialized(await self._engine.embed(call, request))

    @guarded("route")
    async def route(self, ticket: Ticket, raw: bytes, context: Context) -> bytes:
        """Route."""
        caller = self._identify(ticket, read_authorization(context.invocation_metadata()))
        question = self._requests.question(raw, caller)
        request = ticket.request = question.request
        permit = self._decide(ticket, caller, request.model)
        if self.audit is not None:
            ticket.record_grant(self.audit, caller)
        response = self._engine.route(question, permit.constraints, permit.tier)
        self._door.decided(ticket.operation, 1)
        return response

    @guarded("batch_route")
    async def batch_route(
        self, ticket: Ticket, raw: bytes, context: Context
    ) -> v1.BatchRouteResponse:
        """BatchRoute."""
        caller = self._identify(ticket, read_authorization(context.invocation_metadata()))
        batch = self._requests.parse(v1.BatchRouteRequest, raw)
        validate_batch_route(batch)
        response = v1.BatchRouteResponse()
        add = response.results.add
        for number, request in enumerate(batch.requests, 1):
            result = add()
            try:
                validate_route(request)
                ticket.request = request
                permit = self._decide(ticket, caller, request.model)
                if self.audit is not None:
                    ticket.record_grant(self.audit, caller)
                self._engine.route_into(
                    result.response,
                    request,
                    caller,
                    permit.constraints,
                    permit.tier,
                )
            except TrunklineError as error:
                if self.audit is not None:
                    ticket.record_denial(self.audit, error)
                result.failure.reason = error.reason
                result.failure.message = error.message
                result.failure.field = error.metadata.get("field", "")
            if number % BATCH_STRIDE == 0:
                # Other calls wait no longer than some milliseconds for a large batch.
                await asyncio.sleep(0)
        self._door.decided(ticket.operation, len(batch.requests))
        return response


def _unary(method: Callable[[bytes, Context], Awaitable[Any]]) -> "grpc.RpcMethodHandler[Any, Any]":
    return grpc.unary_unary_rpc_method_handler(method, None, serialized)
