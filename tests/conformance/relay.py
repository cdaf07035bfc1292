"""A gRPC server between a client and the router: it sees what arrives, and breaks what is asked.

It passes bytes, so that it neither knows the contract nor changes a message.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Self

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2

from tests.support.router import channel_to

_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@dataclass(frozen=True)
class Seen:
    """One call as it arrived; `remaining` is its deadline in seconds, None for none."""

    method: str
    metadata: dict[str, str]
    remaining: float | None


@dataclass
class Fault:
    """What becomes of the next `times` calls of a method.

    `code` fails them, with these details; `drop_end` forwards a stream but for its last message
    and then ends it with OK; neither answers with an empty message and does not forward.
    """

    method: str
    times: int = 1
    code: str = ""
    message: str = "by order of the test"
    details: list[Message] = field(default_factory=list)
    # The code inside the status, where it is to contradict the call's own.
    inner_code: str = ""
    drop_end: bool = False


class Relay(grpc.GenericRpcHandler):
    """Listens on `address`, port 0 for any, and forwards to `router`."""

    def __init__(self, router: str, address: str = "127.0.0.1:0") -> None:
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []
        self.address = address
        self._router = router

    async def __aenter__(self) -> Self:
        self._channel = channel_to(self._router, *_UNLIMITED)
        # Without reuse, a port that another server has is an error and not shared with it.
        options = [*_UNLIMITED, ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers([self])
        host = self.address.rpartition(":")[0]
        self.address = f"{host}:{self._server.add_insecure_port(self.address)}"
        await self._server.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._server.stop(None)
        await self._channel.close()

    def calls(self, method: str) -> int:
        """How many calls of a method have arrived."""
        return sum(each.method == method for each in self.seen)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        path = str(handler_call_details.method)

        async def serve(
            requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
        ) -> AsyncIterator[bytes]:
            async for answer in self._serve(path, requests, context):
                yield answer

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _serve(
        self,
        path: str,
        requests: AsyncIterator[bytes],
        context: grpc.aio.ServicerContext[bytes, bytes],
    ) -> AsyncIterator[bytes]:
        method = path.rpartition("/")[2]
        metadata = [(key, value) for key, value in context.invocation_metadata() or ()]
        told = {key: str(value) for key, value in metadata}
        self.seen.append(Seen(method, told, context.time_remaining()))
        fault = self._fault(method)
        if fault is not None and fault.code:
            await _fail(context, fault)
        if fault is not None and not fault.drop_end:
            yield b""
            return
        method_at: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method_at = self._channel.stream_stream(path)
        call = method_at(
            requests,
            timeout=context.time_remaining(),
            metadata=[(key, value) for key, value in metadata if _passes(key)],
        )
        held: list[bytes] = []
        try:
            async for answer in call:
                held.append(answer)
                # With a fault the newest is held back, and the last never sent.
                if fault is None or len(held) > 1:
                    yield held.pop(0)
        except grpc.aio.AioRpcError as error:
            context.set_trailing_metadata(tuple(error.trailing_metadata() or ()))
            await context.abort(error.code(), error.details() or "")
        finally:
            call.cancel()

    def _fault(self, method: str) -> Fault | None:
        for fault in self.faults:
            if fault.method == method and fault.times:
                fault.times -= 1
                return fault
        return None


def _passes(key: str) -> bool:
    return not key.startswith("grpc-") and key != "user-agent"


async def _fail(context: grpc.aio.ServicerContext[bytes, bytes], fault: Fault) -> None:
    code = grpc.StatusCode[fault.code]
    if fault.details:
        inner = grpc.StatusCode[fault.inner_code] if fault.inner_code else code
        status = status_pb2.Status(code=inner.value[0], message=fault.message)
        for detail in fault.details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        raw = status.SerializeToString()
        context.set_trailing_metadata((("grpc-status-details-bin", raw),))
    await context.abort(code, fault.message)
