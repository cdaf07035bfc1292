"""How a failed call ends on the wire."""

from typing import Any, NoReturn

import grpc

from trunkline import v1
from trunkline_server.errors import TrunklineError, to_status

STATUS_DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "trunkline-request-id"

# HTTP/2 peers bound header lists, gRPC's own by 8 KiB unless told otherwise; what does not
# fit would cost the caller the whole status.
_MAX_DETAILS_BYTES = 6 * 1024
_MAX_MESSAGE_CHARS = 1024


async def abort(
    context: grpc.aio.ServicerContext[Any, Any],
    error: TrunklineError,
    request_id: str,
    report: v1.CallReport | None,
) -> NoReturn:
    """Ends the call with the error's status and details."""
    details = to_status(error, report).SerializeToString()
    if len(details) > _MAX_DETAILS_BYTES and report is not None:
        slim = v1.CallReport(id=report.id, usage=report.usage, cost=report.cost)
        details = to_status(error, slim).SerializeToString()
    if len(details) > _MAX_DETAILS_BYTES:
        details = to_status(error.shortened()).SerializeToString()
    await context.abort(
        error.code,
        error.message[:_MAX_MESSAGE_CHARS],
        ((STATUS_DETAILS_KEY, details), (REQUEST_ID_KEY, request_id)),
    )
    raise AssertionError("abort returns to nobody")  # Its type does not say so.
