"""What aiohttp's exceptions before the response's headers mean to the attempt loop."""

import aiohttp
from aiohttp.http_exceptions import LineTooLong

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.upstream import accounts
from trunkline_server.upstream.aiohttp_pool import Attempt
from trunkline_server.upstream.http import HttpRequest

_STALE_SECONDS = accounts.STALE_SECONDS


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
            account = accounts.late_headers(request) if sent else accounts.late_connection(request)
            return v1.ERROR_REASON_TIMEOUT, account
        if isinstance(cause, aiohttp.ClientHttpProxyError):
            account = f"the proxy refused the connection with status {cause.status}"
            return v1.ERROR_REASON_SERVICE_UNAVAILABLE, account
        if isinstance(cause, aiohttp.ClientResponseError):
            # Raised from aiohttp's parser error, which is raised from the parser's own.
            too_large = isinstance(cause.__cause__, LineTooLong) or (
                cause.__cause__ is not None and isinstance(cause.__cause__.__cause__, LineTooLong)
            )
            account = accounts.HEAD_TOO_LARGE if too_large else accounts.NOT_HTTP
            return v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, account
        return v1.ERROR_REASON_SERVICE_UNAVAILABLE, _no_connection(cause)


def _no_connection(cause: Exception) -> str:
    """Why no connection could be had, or why it was lost."""
    if isinstance(cause, aiohttp.ClientConnectorCertificateError):
        told = getattr(cause.certificate_error, "verify_message", "")
        return accounts.certificate_refused(told)
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        return accounts.NAME_UNKNOWN
    if isinstance(cause, aiohttp.ClientConnectorError):
        what = "the proxy" if isinstance(cause, aiohttp.ClientProxyConnectionError) else "it"
        return accounts.unreachable(cause.os_error, what)
    return accounts.ENDED_BEFORE_HEADERS
