"""What all methods of trunkline.v1.InferenceService have in common: the bound on calls, who
calls, whether they may, and how failures end."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from copy import copy
from functools import wraps
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.engine.call import Call
from trunkline_server.engine.engine import Engine
from trunkline_server.engine.requests import Request
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

AskedT = TypeVar("AskedT", bound=Request)
ResponseT = TypeVar("ResponseT")
SentT = TypeVar("SentT")
MessageT = TypeVar("MessageT", bound=Message)
ServicerT = TypeVar("ServicerT", bound="Service")
_Handler = Callable[[ServicerT, Ticket, SentT, Context], Awaitable[ResponseT]]
_Rpc = Callable[[ServicerT, SentT, Context], Coroutine[Any, Any, ResponseT]]

# A call that was shed may find room after the usual length of a call or so.
OVERLOAD_RETRY_SECONDS = 1.0


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


def guarded(
    operation: str,
) -> Callable[[_Handler[ServicerT, SentT, ResponseT]], _Rpc[ServicerT, SentT, ResponseT]]:
    """Makes a handler an RPC: it runs within the bound on concurrent calls, once more if only
    a fetch of an issuer's keys could tell who calls, and its failures end well."""
    permission = f"{INFERENCE}{operation}"

    def protected(
        handler: _Handler[ServicerT, SentT, ResponseT],
    ) -> _Rpc[ServicerT, SentT, ResponseT]:
        @wraps(handler)
        async def rpc(self: ServicerT, sent: SentT, context: Context) -> ResponseT:
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
                    return await handler(self, ticket, sent, context)
                except KeysPendingError as pending:
                    await self._known_in_time(ticket, pending)
                return await handler(self, ticket, sent, context)
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

    return protected


class Service:
    """What methods work with. Reconfigured in place, replaced never."""

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


def serialized(message: Any) -> bytes:
    """The bytes of a message, or of an answer that was kept as bytes."""
    # For every chunk of a stream: this asks without a call.
    raw: bytes = message if message.__class__ is bytes else message.SerializeToString()
    return raw
