"""From the wire to a method of a servicer and back: parsing, authentication, failures."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from inspect import isasyncgenfunction
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError, invalid
from trunkline_server.governance.addresses import Callers
from trunkline_server.governance.identity.principal import Kind, Principal
from trunkline_server.rpc.admin.calls import Call
from trunkline_server.rpc.admin.gate import PeerFacts
from trunkline_server.rpc.admin.ports import Context, Gate, Trail, Visitor, Watch
from trunkline_server.rpc.faults import abort

# A method takes the call and its request, and gives the response, or yields responses.
Unary = Callable[[Call, Any], Awaitable[Message]]
Streaming = Callable[[Call, Any], AsyncIterator[Message]]
Methods = Mapping[str, Unary | Streaming]


class Reception:
    """Receives calls and hands them to methods, each with its caller."""

    def __init__(
        self,
        *,
        gate: Gate,
        trail: Trail,
        watch: Watch,
        clock: Clock,
        rng: random.Random,
        max_request_bytes: int,
    ) -> None:
        self._gate = gate
        self._trail = trail
        self._watch = watch
        self._clock = clock
        self._rng = rng
        self._max_request_bytes = max_request_bytes

    def handler(self, service: ServiceDescriptor, methods: Methods) -> grpc.GenericRpcHandler:
        """A service as grpc.aio registers it. Raises ValueError unless the methods are those
        of the contract."""
        wanted = {method.name for method in service.methods}
        if wanted != methods.keys():
            raise ValueError(f"{service.full_name}: {sorted(wanted ^ methods.keys())} differ")
        handlers = {
            name: self._handler(service.methods_by_name[name], method)
            for name, method in methods.items()
        }
        return grpc.method_handlers_generic_handler(service.full_name, handlers)

    def _handler(
        self, descriptor: MethodDescriptor, method: Unary | Streaming
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        operation = f"{descriptor.containing_service.name}.{descriptor.name}"
        kind = GetMessageClass(descriptor.input_type)
        serialize = GetMessageClass(descriptor.output_type).SerializeToString
        if isasyncgenfunction(method):
            if not descriptor.server_streaming:
                raise ValueError(f"{operation} gives one response")
            streaming = self._streaming(operation, kind, method)
            return grpc.unary_stream_rpc_method_handler(streaming, None, serialize)
        return grpc.unary_unary_rpc_method_handler(
            self._unary(operation, kind, method), None, serialize
        )

    def _unary(self, operation: str, kind: type[Message], method: Any) -> Any:
        async def rpc(raw: bytes, context: Context) -> Message:
            ticket = _Ticket(operation, self._rng)
            try:
                call = await self._identify(ticket, context)
                answer: Message = await method(call, self._parse(kind, raw))
            except Exception as error:  # noqa: BLE001 - The boundary: told, and logged.
                await self._fail(ticket, error, context)
            return answer

        return rpc

    def _streaming(self, operation: str, kind: type[Message], method: Any) -> Any:
        async def rpc(raw: bytes, context: Context) -> AsyncIterator[Message]:
            ticket = _Ticket(operation, self._rng)
            try:
                call = await self._identify(ticket, context)
                async with aclosing(method(call, self._parse(kind, raw))) as answers:
                    async for answer in answers:
                        yield answer
            except Exception as error:  # noqa: BLE001 - As above.
                await self._fail(ticket, error, context)

        return rpc

    async def _identify(self, ticket: "_Ticket", context: Context) -> Call:
        try:
            visitor = await self._gate.identify(context)
        except TrunklineError as error:
            if error.reason == v1.ERROR_REASON_AUTHENTICATION:
                stranger = Principal(kind=Kind.ANONYMOUS, name="unknown", source="unknown")
                self._call(ticket, Visitor(stranger, PeerFacts(context, Callers()))).record(
                    f"admin.{ticket.operation}",
                    "",
                    outcome="denied",
                    details={"rule": error.message},
                )
            raise
        ticket.caller = visitor.principal.name
        return self._call(ticket, visitor)

    def _call(self, ticket: "_Ticket", visitor: Visitor) -> Call:
        return Call(
            ticket.operation,
            ticket.id,
            visitor,
            gate=self._gate,
            trail=self._trail,
            clock=self._clock,
        )

    def _parse(self, kind: type[Message], raw: bytes) -> Message:
        if len(raw) > self._max_request_bytes:
            most = self._max_request_bytes
            raise invalid("(request)", f"is {len(raw)} bytes; at most {most} are allowed")
        request = kind()
        try:
            request.ParseFromString(raw)
        except DecodeError:
            raise invalid("(request)", f"is not a {kind.DESCRIPTOR.full_name}") from None
        return request

    async def _fail(self, ticket: "_Ticket", error: Exception, context: Context) -> NoReturn:
        if isinstance(error, TrunklineError):
            self._watch.refused(ticket.operation, ticket.caller, error)
            await abort(context, error, ticket.id, None)
        self._watch.defect(ticket.operation, ticket.id, error)
        told = TrunklineError(
            v1.ERROR_REASON_INTERNAL,
            "internal error; the log line with this request id says more",
            metadata={"request_id": ticket.id},
        )
        await abort(context, told, ticket.id, None)


class _Ticket:
    """What is known of a call while it is served."""

    __slots__ = ("caller", "id", "operation")

    def __init__(self, operation: str, rng: random.Random) -> None:
        self.operation = operation
        self.id = f"{rng.getrandbits(96):024x}"
        self.caller = ""
