"""trunkline.v1.InferenceService: from the wire to the engine and back."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from copy import copy
from functools import wraps
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.engine.call import Call
from trunkline_server.engine.engine import Engine
from trunkline_server.engine.questions import Question, Questions
from trunkline_server.errors import TrunklineError, invalid
from trunkline_server.governance.access import Access, Permit
from trunkline_server.governance.addresses import Callers, IpAddress
from trunkline_server.governance.audit.decisions import DecisionAudit
from trunkline_server.governance.identity import Identity
from trunkline_server.governance.pending import KeysPendingError
from trunkline_server.governance.principal import Principal
from trunkline_server.governance.roles import INFERENCE
from trunkline_server.routing.lru import Lru
from trunkline_server.rpc.faults import abort
from trunkline_server.rpc.metadata import (
    CallMetadata,
    read_authorization,
    read_forwarded_for,
    read_metadata,
)
from trunkline_server.rpc.validation import (
    validate_batch_route,
    validate_embed,
    validate_generate,
    validate_route,
)

SERVICE = "trunkline.v1.InferenceService"

Context = grpc.aio.ServicerContext[Any, Any]
RequestT = TypeVar("RequestT", bound=Message)
AskedT = TypeVar("AskedT", v1.GenerateRequest, v1.EmbedRequest)
ResponseT = TypeVar("ResponseT")
_Handler = Callable[["InferenceServicer", "_Ticket", bytes, Context], Awaitable[ResponseT]]
_Rpc = Callable[["InferenceServicer", bytes, Context], Coroutine[Any, Any, ResponseT]]

# A call that was shed may find room after the usual length of a call or so.
OVERLOAD_RETRY_SECONDS = 1.0

# Failures that say who was not let in.
_DENIALS = frozenset({v1.ERROR_REASON_AUTHENTICATION, v1.ERROR_REASON_AUTHORIZATION})

# So many Route requests are remembered, of at most so many bytes. With their answers one takes
# some 10 KB, and at most 50.
_QUESTIONS = 1_024
_REMEMBERED_BYTES = 1_024

# The bytes that parsed requests may take, of calls that the cache answered, and the largest one.
_KNOWN_REQUESTS = 8 * 2**20
_KNOWN_REQUEST = 16 * 2**10

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
            ticket = _Ticket(operation, permission, context, self)
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
                    self._record_denial(self.audit, ticket, error)
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
        self.max_request_bytes = max_request_bytes
        self.max_concurrent_calls = max_concurrent_calls
        self.default_deadline = default_deadline
        self.in_flight = 0
        self._questions = Questions(_QUESTIONS)
        self._requests: Lru[bytes, v1.GenerateRequest] | None = (
            Lru(_KNOWN_REQUESTS) if engine.caches else None
        )

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
    async def generate(self, ticket: "_Ticket", raw: bytes, context: Context) -> bytes:
        """Generate."""
        caller, metadata = self._authenticate(ticket)
        known = self._known(raw)
        request = known or self._generation(raw)
        call, request = self._admit(ticket, request, caller, metadata, raw)
        answer = await self._engine.generate(call, request)
        if not isinstance(answer, bytes):
            return answer.SerializeToString()
        if known is None:
            # It came from the cache; who asks again need not be understood again.
            self._remember(call)
        return answer

    @_guarded("stream_generate")
    async def stream_generate(self, ticket: "_Ticket", raw: bytes, context: Context) -> None:
        """StreamGenerate. Events are written, not yielded: a cancelled call then unwinds
        through the engine at once, and closes the upstream."""
        caller, metadata = self._authenticate(ticket)
        known = self._known(raw)
        request = known or self._generation(raw)
        call, request = self._admit(ticket, request, caller, metadata, raw)
        await self._engine.stream_generate(call, request, context.write)
        if known is None and call.cache_status == v1.CACHE_STATUS_HIT:
            self._remember(call)

    @_guarded("embed")
    async def embed(self, ticket: "_Ticket", raw: bytes, context: Context) -> bytes:
        """Embed."""
        caller, metadata = self._authenticate(ticket)
        request = self._parse(v1.EmbedRequest, raw)
        validate_embed(request)
        call, request = self._admit(ticket, request, caller, metadata)
        return _serialized(await self._engine.embed(call, request))

    @_guarded("route")
    async def route(self, ticket: "_Ticket", raw: bytes, context: Context) -> bytes:
        """Route."""
        caller = self._identify(ticket, read_authorization(context.invocation_metadata()))
        question = self._questions.get((raw, caller)) or self._ask(raw, caller)
        request = ticket.request = question.request
        permit = self._decide(ticket, caller, request.model)
        if self.audit is not None:
            self._record_grant(self.audit, ticket, caller)
        response = self._engine.route(question, permit.constraints, permit.tier)
        self._door.decided(ticket.operation, 1)
        return response

    @_guarded("batch_route")
    async def batch_route(
        self, ticket: "_Ticket", raw: bytes, context: Context
    ) -> v1.BatchRouteResponse:
        """BatchRoute."""
        caller = self._identify(ticket, read_authorization(context.invocation_metadata()))
        batch = self._parse(v1.BatchRouteRequest, raw)
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
                    self._record_grant(self.audit, ticket, caller)
                self._engine.route_into(
                    result.response,
                    request,
                    caller,
                    permit.constraints,
                    permit.tier,
                )
            except TrunklineError as error:
                if self.audit is not None:
                    self._record_denial(self.audit, ticket, error)
                result.failure.reason = error.reason
                result.failure.message = error.message
                result.failure.field = error.metadata.get("field", "")
            if number % BATCH_STRIDE == 0:
                # Other calls wait no longer than some milliseconds for a large batch.
                await asyncio.sleep(0)
        self._door.decided(ticket.operation, len(batch.requests))
        return response

    def _authenticate(self, ticket: "_Ticket") -> tuple[Principal, CallMetadata]:
        metadata = read_metadata(ticket.context.invocation_metadata(), self._rng)
        return self._identify(ticket, metadata.authorization), metadata

    def _identify(self, ticket: "_Ticket", authorization: str) -> Principal:
        now = ticket.now = self._clock.wall()
        caller = self.identity.authenticate(authorization, ticket.context.auth_context, now)
        ticket.caller = caller
        return caller

    async def _known_in_time(self, ticket: "_Ticket", pending: KeysPendingError) -> None:
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

    def _decide(self, ticket: "_Ticket", caller: Principal, target: str) -> Permit:
        ticket.target = target
        return self.access.decide(caller, ticket.permission, target, ticket.now, ticket)

    @staticmethod
    def _record_grant(
        audit: DecisionAudit, ticket: "_Ticket", caller: Principal, request_id: str = ""
    ) -> None:
        if audit.records_grants:
            audit.granted(
                caller, ticket.permission, ticket.target, facts=ticket, request_id=request_id
            )

    @staticmethod
    def _record_denial(audit: DecisionAudit, ticket: "_Ticket", error: TrunklineError) -> None:
        # Where routing found nothing because of access rules, it names them too.
        if error.reason in _DENIALS or "rule" in error.metadata:
            audit.denied(
                error,
                ticket.caller,
                ticket.permission,
                ticket.target,
                facts=ticket,
                request_id=ticket.id,
            )

    def _remaining(self, context: Context) -> float:
        """How many seconds a call has, at most."""
        remaining = context.time_remaining()
        if remaining is None or remaining > self.default_deadline:
            return self.default_deadline
        return remaining

    def _ask(self, raw: bytes, caller: Principal) -> Question:
        """A Route request that is not known yet."""
        request = self._parse(v1.RouteRequest, raw)
        validate_route(request)
        question = Question(request, caller)
        if len(raw) <= _REMEMBERED_BYTES:
            self._questions.put((raw, caller), question)
        return question

    def _known(self, raw: bytes) -> v1.GenerateRequest | None:
        """The request of these bytes, if it was answered from the cache before."""
        known = self._requests
        if known is None or len(raw) > _KNOWN_REQUEST or len(raw) > self.max_request_bytes:
            return None
        return known.get(raw)

    def _remember(self, call: Call) -> None:
        """Keeps the parsed request of a call. One that its caller's bounds may change is not
        kept."""
        known, raw = self._requests, call.raw
        if (
            known is not None
            and raw
            and len(raw) <= _KNOWN_REQUEST
            and call.bounds is None
            and isinstance(call.request, v1.GenerateRequest)
        ):
            # Parsed, it takes a few times as much.
            known.put(raw, call.request, 4 * len(raw) + 512)

    def _generation(self, raw: bytes) -> v1.GenerateRequest:
        request = self._parse(v1.GenerateRequest, raw)
        validate_generate(request)
        return request

    def _parse(self, kind: type[RequestT], raw: bytes) -> RequestT:
        if len(raw) > self.max_request_bytes:
            raise invalid(
                "(request)", f"is {len(raw)} bytes; at most {self.max_request_bytes} are allowed"
            )
        request = kind()
        try:
            request.ParseFromString(raw)
        except DecodeError:
            raise invalid("(request)", f"is not a {kind.DESCRIPTOR.full_name}") from None
        return request

    def _admit(
        self,
        ticket: "_Ticket",
        request: AskedT,
        caller: Principal,
        metadata: CallMetadata,
        raw: bytes = b"",
    ) -> tuple[Call, AskedT]:
        """The call, and its request, which is a copy where bounds will be written into it."""
        ticket.request = request
        permit = self._decide(ticket, caller, request.model)
        if permit.tier is not None and self._requests is not None:
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
            self._record_grant(self.audit, ticket, caller, call.id)
        ticket.call = call
        return call, request


def _serialized(message: Any) -> bytes:
    """The bytes of a message, or of an answer that was kept as bytes."""
    # For every chunk of a stream: this asks without a call.
    raw: bytes = message if message.__class__ is bytes else message.SerializeToString()
    return raw


class _Ticket:
    """What is known of a call while it is served; the call itself once it is admitted. To access
    rules, the facts of it that only some of them ask for."""

    __slots__ = (
        "_servicer",
        "call",
        "caller",
        "context",
        "now",
        "operation",
        "permission",
        "request",
        "target",
    )

    def __init__(
        self, operation: str, permission: str, context: Context, servicer: InferenceServicer
    ) -> None:
        self.operation = operation
        self.permission = permission
        self.context = context
        self._servicer = servicer
        self.caller: Principal | None = None
        self.target = ""
        self.request: v1.GenerateRequest | v1.EmbedRequest | v1.RouteRequest | None = None
        self.call: Call | None = None
        # When it was asked who calls, in Unix seconds.
        self.now = 0.0

    @property
    def id(self) -> str:
        """The call's id; empty before it is admitted."""
        return "" if self.call is None else self.call.id

    @property
    def name(self) -> str:
        """The caller's name; empty while it is unknown."""
        return "" if self.caller is None else self.caller.name

    def address(self) -> IpAddress | None:
        """As governance.access.Facts."""
        context = self.context
        forwarded = read_forwarded_for(context.invocation_metadata())
        return self._servicer.callers.address(context.peer(), forwarded)

    def label(self, name: str) -> str:
        """As governance.access.Facts."""
        return "" if self.request is None else self.request.context.labels.get(name, "")

    def report(self) -> v1.CallReport | None:
        """What the call did before it failed, if it called anyone."""
        return self.call.report() if self.call is not None and self.call.attempts else None
