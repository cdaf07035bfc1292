"""The one table from failure to gRPC code, and the exceptions that carry failures to it.

Rooms raise `TrunklineError` (or `UpstreamError`, its kind for one upstream attempt) with an
`ErrorReason`; only `rpc/` turns them into a `google.rpc.Status`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from trunkline import v1

DOMAIN = "trunkline"

CODES: Mapping[v1.ErrorReason.ValueType, grpc.StatusCode] = {
    v1.ERROR_REASON_AUTHENTICATION: grpc.StatusCode.UNAUTHENTICATED,
    v1.ERROR_REASON_AUTHORIZATION: grpc.StatusCode.PERMISSION_DENIED,
    v1.ERROR_REASON_RATE_LIMIT: grpc.StatusCode.RESOURCE_EXHAUSTED,
    v1.ERROR_REASON_QUOTA_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    v1.ERROR_REASON_INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    v1.ERROR_REASON_MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED: grpc.StatusCode.INVALID_ARGUMENT,
    v1.ERROR_REASON_CONTENT_FILTER: grpc.StatusCode.FAILED_PRECONDITION,
    v1.ERROR_REASON_SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    v1.ERROR_REASON_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    v1.ERROR_REASON_UNKNOWN: grpc.StatusCode.UNKNOWN,
    v1.ERROR_REASON_OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    v1.ERROR_REASON_NO_ELIGIBLE_DEPLOYMENT: grpc.StatusCode.FAILED_PRECONDITION,
    v1.ERROR_REASON_PROVIDER_CREDENTIALS: grpc.StatusCode.FAILED_PRECONDITION,
    v1.ERROR_REASON_BAD_PROVIDER_RESPONSE: grpc.StatusCode.UNAVAILABLE,
    v1.ERROR_REASON_STREAM_INTERRUPTED: grpc.StatusCode.UNAVAILABLE,
    v1.ERROR_REASON_CACHE_MISS: grpc.StatusCode.NOT_FOUND,
    v1.ERROR_REASON_CANCELLED: grpc.StatusCode.CANCELLED,
    v1.ERROR_REASON_INTERNAL: grpc.StatusCode.INTERNAL,
    v1.ERROR_REASON_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    v1.ERROR_REASON_ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    v1.ERROR_REASON_ABORTED: grpc.StatusCode.ABORTED,
    v1.ERROR_REASON_FAILED_PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field of a request: its path, such as `messages[0].role`, and what is wrong."""

    field: str
    description: str


class TrunklineError(Exception):
    """A call that fails, with everything its caller is told.

    `message` and `metadata` reach callers and logs: they hold no secret and no payload.
    `retry_after` is in seconds.
    """

    def __init__(
        self,
        reason: v1.ErrorReason.ValueType,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status code."""
        return CODES[self.reason]

    def shortened(self) -> "TrunklineError":
        """The same error with as much of its particulars as fits a small trailer."""
        return TrunklineError(
            self.reason,
            self.message[:500],
            metadata={key: value[:100] for key, value in list(self.metadata.items())[:8]},
            violations=self.violations[:3],
            retry_after=self.retry_after,
        )


class UpstreamError(TrunklineError):
    """One upstream attempt that failed.

    `reason` classifies what the vendor or the network did; whether to retry or to fall back
    is the attempt loop's decision. `http_status` is 0 when no status line was received.
    `sent` is False only when certainly nothing of the request reached the vendor.
    """

    def __init__(
        self,
        reason: v1.ErrorReason.ValueType,
        message: str,
        *,
        http_status: int = 0,
        retry_after: float | None = None,
        violations: Sequence[Violation] = (),
        provider_request_id: str = "",
        sent: bool = True,
    ) -> None:
        super().__init__(reason, message, violations=violations, retry_after=retry_after)
        self.http_status = http_status
        self.provider_request_id = provider_request_id
        self.sent = sent


def invalid(field: str, description: str) -> TrunklineError:
    """The error for one wrong field of a request."""
    return invalid_fields([Violation(field, description)])


def invalid_fields(violations: Sequence[Violation]) -> TrunklineError:
    """The error for wrong fields of a request; the first one gives the message."""
    first = violations[0]
    return TrunklineError(
        v1.ERROR_REASON_INVALID_REQUEST,
        f"{first.field}: {first.description}",
        metadata={"field": first.field},
        violations=violations,
    )


def to_status(error: TrunklineError, report: v1.CallReport | None = None) -> status_pb2.Status:
    """The `google.rpc.Status` of a failure, its details in a fixed order."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=v1.ErrorReason.Name(error.reason), domain=DOMAIN, metadata=error.metadata
        )
    ]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field, description=violation.description
                    )
                    for violation in error.violations
                ]
            )
        )
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after * 1e9))
        details.append(retry)
    if error.reason == v1.ERROR_REASON_QUOTA_EXCEEDED or "limit" in error.metadata:
        details.append(
            error_details_pb2.QuotaFailure(
                violations=[
                    error_details_pb2.QuotaFailure.Violation(
                        subject=_subject(error.metadata), description=error.message
                    )
                ]
            )
        )
    if report is not None:
        details.append(report)
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _subject(metadata: Mapping[str, str]) -> str:
    """Whose quota it is, as google.rpc.QuotaFailure has it: its kind and its name."""
    if "subject" in metadata:
        return f"{metadata['scope']}:{metadata['subject']}"
    return metadata.get("provider", "")
