"""What aiohttp's exceptions before the response's headers mean to the attempt loop."""

import os
import ssl

import aiohttp
from aiohttp.http_exceptions import LineTooLong

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.upstream.aiohttp_pool import Attempt
from trunkline_server.upstream.http import HttpRequest

# A connection that the peer had dropped answers a request with a reset within a round trip.
# One that ends later was alive: its vendor may have begun to work, and asking again may pay
# twice.
_STALE_SECONDS = 1.0


class Failure:
    """An attempt that got no response. `now` is the loop's time at which it failed."""

    __slots__ = ("_attempt", "_cause", "repeatable")

    def __init__(self, cause: Exception, attempt: Attempt, now: float) -> None:
        self._cause = cause
        self._attempt = attempt
        protocol = attempt.protocol
        # True when the request surely met a connection that was dead before: it was used
        # before, nothing came back, and it ended as dead connections end.
        self.repeatable = (
            protocol is not None
            and protocol.uses > 1
            and not protocol.heard
            and isinstance(cause, aiohttp.ClientConnectionError)
            and now - attempt.started < _STALE_SECONDS
        )

    def error(self, request: HttpRequest, peer: str) -> UpstreamError:
        """The failure as the port tells it. Its message names the peer and the cause only:
        aiohttp's own messages may quote the URL with its query or bytes of the response."""
        sent = self._attempt.protocol is not None
        reason, account = self._classify(request, sent=sent)
        return UpstreamError(reason, f"{peer}: {account}", sent=sent)

    def _classify(
        self, request: HttpRequest, *, sent: bool
    ) -> tuple[v1.ErrorReason.ValueType, str]:
        cause = self._cause
        if isinstance(cause, TimeoutError):
            if sent:
                account = f"no response headers within {request.header_timeout:g} s"
            else:
                account = f"no connection within {request.connect_timeout:g} s"
            return v1.ERROR_REASON_TIMEOUT, account
        if isinstance(cause, aiohttp.ClientHttpProxyError):
            account = f"the proxy refused the connection with status {cause.status}"
            return v1.ERROR_REASON_SERVICE_UNAVAILABLE, account
        if isinstance(cause, aiohttp.ClientResponseError):
            # Raised from aiohttp's parser error, which is raised from the parser's own.
            too_large = isinstance(cause.__cause__, LineTooLong) or (
                cause.__cause__ is not None and isinstance(cause.__cause__.__cause__, LineTooLong)
            )
            account = "headers too large" if too_large else "the response is not valid HTTP"
            return v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, account
        return v1.ERROR_REASON_SERVICE_UNAVAILABLE, _no_connection(cause)


def _no_connection(cause: Exception) -> str:
    """Why no connection could be had, or why it was lost."""
    if isinstance(cause, aiohttp.ClientConnectorCertificateError):
        told = getattr(cause.certificate_error, "verify_message", "")
        return f"the server's certificate was refused: {told}"
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        return "the host name cannot be resolved"
    if isinstance(cause, aiohttp.ClientConnectorError):
        what = "the proxy" if isinstance(cause, aiohttp.ClientProxyConnectionError) else "it"
        return f"cannot connect to {what}: {_os_cause(cause.os_error)}"
    return "the connection ended before the response's headers"


def _os_cause(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason}"
    return os.strerror(error.errno) if error.errno else type(error).__name__
