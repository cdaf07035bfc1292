"""trunkline.v1.InferenceService: from the wire to the engine and back."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from copy import copy
from functools import wraps
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.engine.call import Call
from trunkline_server.engine.engine import Engine
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.access.access import Access, Permit
from trunkline_server.governance.access.roles import INFERENCE
from trunkline_server.governance.addresses import Callers
from trunkline_server.governance.audit.decisions import DecisionAudit
from trunkline_server.governance.identity.identity import Identity
from trunkline_server.governance.identity.pending import KeysPendingError
from trunkline_server.governance.identity.principal import Principal
from trunkline_server.rpc.faults import abort
from trunkline_server.rpc.metadata import (
    CallMetadata,
    read_authorization,
    read_metadata,
)
from trunkline_server.rpc.requests import Requests
from trunkline_server.rpc.ticket import Context, Ticket
from trunkline_server.rpc.validation import (
    validate_batch_route,
    validate_embed,
    validate_route,
)

SERVICE = "trunkline.v1.InferenceService"

AskedT = TypeVar("AskedT", v1.GenerateRequest, v1.EmbedRequest)
ResponseT = TypeVar("ResponseT")
MessageT = TypeVar("MessageT", bound=Message)
_Handler = Callable[["InferenceServicer", Ticket, bytes, Context], Awaitable[ResponseT]]
_Rpc = Callable[["InferenceServicer", bytes, Context], Coroutine[Any, Any, ResponseT]]

# A call that was shed may find room after the usual length of a call or so.
OVERLOAD_RETRY_SECONDS = 1.0

# So many decisions of a batch are made before other calls get their turn.
BATCH_STRIDE = 128


class FrontDoor(Protocol):
    """Hears of what the engine does not see: calls that end before they reach it, decisions
    that are no calls, and defects."""

    def decided(self, operation: str, count: int) -> None:
        """So many decisions were told."""
        ...

    def refused(self, operation: str, caller: str, error: TrunklineError) -> None:
        """A call was turned away before it was admitted; `caller` is empty while unknown."""
        ...

    def defect(self, operation: str, request_id: str, error: Exception) -> None:
        """An exception nobody expected ended a call."""
        ...


def _guarded(operation: str) -> Callable[[_Handler[ResponseT]], _Rpc[ResponseT]]:
    """Makes a handler an RPC: it runs within the bound on concurrent calls, once more if only
    a fetch of an issuer's keys could tell who calls, and its failures end well."""
    permission = f"{INFERENCE}{operation}"

    def guarded(handler: _Handler[ResponseT]) -> _Rpc[ResponseT]:
        @wraps(handler)
        async def rpc(self: "InferenceServicer", raw: bytes, context: Context) -> ResponseT:
            ticket = Ticket(operation, permission, context, self.callers)
            self.in_flight += 1
            try:
                if self.in_flight > self.max_concurrent_calls:
                    raise TrunklineError(
                        v1.ERROR_REASON_OVERLOADED,
                        f"{self.max_concurrent_calls} calls are under way, the most allowed here",
                        metadata={"limit": "max_concurrent_calls"},
                        retry_after=OVERLOAD_RETRY_SECONDS,
                    )
                try:
                    return await handler(self, ticket, raw, context)
                except KeysPendingError as pending:
                    await self._known_in_time(ticket, pending)
                return await handler(self, ticket, raw, context)
            except TrunklineError as error:
                if ticket.call is None:
                    self._door.refused(operation, ticket.name, error)
                if self.audit is not None:
                    ticket.record_denial(self.audit, error)
                return await abort(context, error, ticket.id, ticket.report())
            except Exception as error:  # noqa: BLE001 - the boundary: told, logged with its trace
                self._door.defect(operation, ticket.id, error)
                told = TrunklineError(
                    v1.ERROR_REASON_INTERNAL,
                    "internal error; the log line with this request id says more",
                    metadata={"request_id": ticket.id},
                )
                return await abort(context, told, ticket.id, ticket.report())
            finally:
                self.in_flight -= 1

        return rpc

    return guarded


class InferenceServicer:
    """Serves the four RPCs. One instance a process, replaced never, reconfigured in place.

    Requests arrive as bytes: a body that is no protobuf message is then the caller's typed
    error, and not a generic one of the transport.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        rng: random.Random,
        door: FrontDoor,
        *,
        identity: Identity,
        access: Access,
        callers: Callers,
        audit: DecisionAudit | None = None,
        max_request_bytes: int,
        max_concurrent_calls: int,
        default_deadline: float,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._rng = rng
        self._door = door
        self.identity = identity
        self.access = access
        self.callers = callers
        self.audit = audit
        self.max_concurrent_calls = max_concurrent_calls
        self.default_deadline = default_deadline
        self.in_flight = 0
        self._requests = Requests(max_request_bytes, cached=engine.caches)

    def limit_requests(self, max_bytes: int) -> None:
        """Sets the size that requests may have from now on."""
        self._requests.max_bytes = max_bytes

    def handlers(self) -> grpc.GenericRpcHandler:
        """The service as grpc.aio registers it."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                # What the cache kept is serialised already.
                "Generate": grpc.unary_unary_rpc_method_handler(self.generate, None, None),
                "StreamGenerate": grpc.unary_stream_rpc_method_handler(
                    self.stream_generate, None, _serialized
                ),
                "Embed": grpc.unary_unary_rpc_method_handler(self.embed, None, None),
                # It gives bytes.
                "Route": grpc.unary_unary_rpc_method_handler(self.route, None, None),
                "BatchRoute": grpc.unary_unary_rpc_method_handler(
                    self.batch_route, None, v1.BatchRouteResponse.SerializeToString
                ),
            },
        )

    @_guarded("generate")
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

    @_guarded("stream_generate")
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

    @_guarded("embed")
    async def embed(self, ticket: Ticket, raw: bytes, context: Context) -> bytes:
        """Embed."""
        caller, metadata = self._authenticate(ticket)
        request = self._requests.parse(v1.EmbedRequest, raw)
        validate_embed(request)
        call, request = self._admit(ticket, request, caller, metadata)
        return _serialized(await self._engine.embed(call, request))

    @_guarded("route")
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

    @_guarded("batch_route")
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

    def read(self, kind: type[MessageT], raw: bytes) -> MessageT:
        """A request of another service, within the bound of size. Raises INVALID_REQUEST."""
        return self._requests.parse(kind, raw)

    async def admit(self, operation: str, context: Any) -> Principal:
        """The caller, who may do `operation`, a permission without its prefix: for what is asked
        beside the methods. `context` is gRPC's or of its shape. Raises TrunklineError, which the
        audit trail hears of."""
        ticket = Ticket(operation, f"{INFERENCE}{operation}", context, self.callers)
        try:
            try:
                caller, _ = self._authenticate(ticket)
            except KeysPendingError as pending:
                await self._known_in_time(ticket, pending)
                caller, _ = self._authenticate(ticket)
            self._decide(ticket, caller, "")
        except TrunklineError as error:
            if self.audit is not None:
                ticket.record_denial(self.audit, error)
            raise
        if self.audit is not None:
            ticket.record_grant(self.audit, caller)
        return caller

    def _authenticate(self, ticket: Ticket) -> tuple[Principal, CallMetadata]:
        metadata = read_metadata(ticket.context.invocation_metadata(), self._rng)
        return self._identify(ticket, metadata.authorization), metadata

    def _identify(self, ticket: Ticket, authorization: str) -> Principal:
        now = ticket.now = self._clock.wall()
        caller = self.identity.authenticate(authorization, ticket.context.auth_context, now)
        ticket.caller = caller
        return caller

    async def _known_in_time(self, ticket: Ticket, pending: KeysPendingError) -> None:
        """Waits until it can be told who calls; raises `pending` if the call's time is up."""
        context = ticket.context
        authorization = read_authorization(context.invocation_metadata())
        try:
            async with asyncio.timeout(self._remaining(context)):
                await self.identity.authenticate_in_time(
                    authorization, context.auth_context, self._clock.wall
                )
        except TimeoutError:
            raise pending from None

    def _decide(self, ticket: Ticket, caller: Principal, target: str) -> Permit:
        ticket.target = target
        return self.access.decide(caller, ticket.permission, target, ticket.now, ticket)

    def _remaining(self, context: Context) -> float:
        """How many seconds a call has, at most."""
        remaining = context.time_remaining()
        if remaining is None or remaining > self.default_deadline:
            return self.default_deadline
        return remaining

    def _admit(
        self,
        ticket: Ticket,
        request: AskedT,
        caller: Principal,
        metadata: CallMetadata,
        raw: bytes = b"",
    ) -> tuple[Call, AskedT]:
        """The call, and its request, which is a copy where bounds will be written into it."""
        ticket.request = request
        permit = self._decide(ticket, caller, request.model)
        if permit.tier is not None and self._requests.shares:
            # A tier's bounds are written into the request, which others may ask again.
            request = ticket.request = copy(request)
        now = self._clock.monotonic()
        call = Call(
            operation=ticket.operation,
            request=request,
            id=request.request_id or f"{self._rng.getrandbits(96):024x}",
            caller=caller,
            started=now,
            deadline=now + self._remaining(ticket.context),
            traceparent=metadata.traceparent,
            tracestate=metadata.tracestate,
            begins_trace=metadata.begins_trace,
            raw=raw,
            constraints=permit.constraints,
            bounds=permit.tier,
        )
        if self.audit is not None:
            ticket.record_grant(self.audit, caller, call.id)
        ticket.call = call
        return call, request


def _serialized(message: Any) -> bytes:
    """The bytes of a message, or of an answer that was kept as bytes."""
    # For every chunk of a stream: this asks without a call.
    raw: bytes = message if message.__class__ is bytes else message.SerializeToString()
    return raw
