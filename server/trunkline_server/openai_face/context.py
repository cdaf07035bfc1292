"""An HTTP request as the methods of the contract see a call: metadata, peer, failure."""

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
from aiohttp import web
from google.rpc import status_pb2

# What the methods read of a call's metadata; HTTP's header names are those of gRPC.
_METADATA = ("authorization", "x-forwarded-for", "traceparent", "tracestate")
# The trailer that holds a failure's google.rpc.Status.
_DETAILS = "grpc-status-details-bin"
_REQUEST_ID = "trunkline-request-id"

Write = Callable[[object], Awaitable[None]]
Metadata = tuple[tuple[str, str], ...]


class CallFailedError(Exception):
    """A method ended with a failure; `request_id` is empty while there is none."""

    def __init__(self, status: status_pb2.Status, request_id: str) -> None:
        super().__init__(status.message)
        self.status = status
        self.request_id = request_id


class HttpContext:
    """The part of gRPC's ServicerContext that the methods use, over one HTTP request.

    A client that goes away cancels the task that serves it, as gRPC does.
    """

    def __init__(self, request: web.Request, write: Write | None = None) -> None:
        """`write` takes each event of a streamed answer."""
        self._request = request
        self._metadata: Metadata = tuple(
            (name, value) for name in _METADATA for value in request.headers.getall(name, ())
        )
        self._write = write

    def invocation_metadata(self) -> Metadata:
        """As gRPC's."""
        return self._metadata

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """As gRPC's: the client's certificate, where TLS has verified one."""
        transport = self._request.transport
        tls = None if transport is None else transport.get_extra_info("ssl_object")
        certificate = None if tls is None else tls.getpeercert(binary_form=True)
        if certificate is None:
            return {}
        return {"x509_pem_cert": [ssl.DER_cert_to_PEM_cert(certificate).encode()]}

    def peer(self) -> str:
        """As gRPC names peers; empty once the client is gone."""
        transport = self._request.transport
        name = None if transport is None else transport.get_extra_info("peername")
        if not name:
            return ""
        host, port = name[:2]
        return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def time_remaining(self) -> float | None:
        """As gRPC's: HTTP callers name no deadline, so the router's own holds."""
        return None

    async def write(self, event: object) -> None:
        """As gRPC's."""
        if self._write is None:
            raise TypeError("this call is answered in one piece")
        await self._write(event)

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str,
        trailing_metadata: Sequence[tuple[str, Any]],
    ) -> NoReturn:
        """As gRPC's. Raises CallFailedError."""
        trailers = dict(trailing_metadata)
        status = status_pb2.Status.FromString(trailers[_DETAILS])
        raise CallFailedError(status, trailers[_REQUEST_ID])
