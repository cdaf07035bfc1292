"""What failed, in the words that both clients use: they name the cause and quote nothing."""

import os
import socket
import ssl

from trunkline_server.upstream.http import HttpRequest

# A connection that the peer had dropped answers a request with a reset within a round trip.
# One that ends later was alive: its vendor may have begun to work, and asking again may pay
# twice.
STALE_SECONDS = 1.0

NOT_HTTP = "the response is not valid HTTP"
HEAD_TOO_LARGE = "headers too large"
ENDED_BEFORE_HEADERS = "the connection ended before the response's headers"
ENDED_INSIDE_BODY = "the connection ended inside the response's body"
BODY_MALFORMED = "the response's body is not framed or compressed as its headers say"
NAME_UNKNOWN = "the host name cannot be resolved"
CLOSED = "the HTTP client is closed"


def late_headers(request: HttpRequest) -> str:
    return f"no response headers within {request.header_timeout:g} s"


def late_connection(request: HttpRequest) -> str:
    return f"no connection within {request.connect_timeout:g} s"


def body_too_large(limit: int) -> str:
    return f"the response's body exceeds {limit} bytes"


def certificate_refused(told: str) -> str:
    return f"the server's certificate was refused: {told}"


def unreachable(error: OSError, what: str = "it") -> str:
    """Why no connection could be made; `what` is what it was to be made to."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return certificate_refused(error.verify_message)
    if isinstance(error, socket.gaierror):
        return NAME_UNKNOWN
    if isinstance(error, ssl.SSLError):
        cause = f"TLS: {error.reason}"
    else:
        cause = os.strerror(error.errno) if error.errno else type(error).__name__
    return f"cannot connect to {what}: {cause}"
