"""What a failed call raises, read from the google.rpc.Status that the router attaches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from trunkline import v1

DOMAIN = "trunkline"
STATUS_KEY = "grpc-status-details-bin"

# The arguments of TrunklineError beside its message.
_NAMED = (
    "code",
    "reason",
    "metadata",
    "retry_after",
    "field_violations",
    "quota_violations",
    "report",
    "request_id",
)

_M = TypeVar("_M", bound=Message)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request: its path, such as `messages[0].role`, and what is wrong."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """One spent quota: whose it is and what was reached."""

    subject: str
    description: str


class TrunklineError(Exception):
    """A call that failed. Its subclasses group the reasons that callers tell apart.

    `code` is gRPC's. `reason` is the router's own, `ERROR_REASON_UNSPECIFIED` when the
    failure carries none: then the router did not answer, or something between did.
    `metadata` holds the reason's particulars. `retry_after` is in seconds, None when the
    router named no pause. `report` says what the call did and cost before it failed, None
    when nothing was sent to a provider. `request_id` is the call's id in the router's log,
    empty when it is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: v1.ErrorReason.ValueType = v1.ERROR_REASON_UNSPECIFIED,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        field_violations: Sequence[FieldViolation] = (),
        quota_violations: Sequence[QuotaViolation] = (),
        report: v1.CallReport | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        self.field_violations = tuple(field_violations)
        self.quota_violations = tuple(quota_violations)
        self.report = report
        self.request_id = request_id

    def __str__(self) -> str:
        name = self.code.name
        if self.reason != v1.ERROR_REASON_UNSPECIFIED:
            name = v1.ErrorReason.Name(self.reason).removeprefix("ERROR_REASON_")
        return f"{name}: {self.message}"

    def __reduce__(self) -> tuple[partial[Self], tuple[str]]:
        # Exceptions pickle their positional arguments only, and ours need named ones.
        named = {name: getattr(self, name) for name in _NAMED}
        return partial(type(self), **named), (self.message,)


class AuthenticationError(TrunklineError):
    """The key or certificate is missing, unknown or expired."""


class PermissionDeniedError(TrunklineError):
    """The caller is known and may not do this."""


class RateLimitError(TrunklineError):
    """Too many calls for now, by the caller or for the router: wait `retry_after`, try again."""


class QuotaExceededError(TrunklineError):
    """A budget or quota is spent; waiting a moment does not help."""


class InvalidRequestError(TrunklineError):
    """The request is wrong; `field_violations` names the fields."""


class ContextLengthError(InvalidRequestError):
    """The prompt, with the room asked for the answer, exceeds the model's context window."""


class ModelNotFoundError(TrunklineError):
    """No such model or route; `metadata["near"]` names near matches."""


class CacheMissError(TrunklineError):
    """Only a cached answer would do and there is none."""


class ContentFilterError(TrunklineError):
    """A provider's filter refused the prompt."""


class NoEligibleDeploymentError(TrunklineError):
    """The requirements exclude every deployment; `metadata` counts the causes."""


class ProviderCredentialsError(TrunklineError):
    """A provider refused the router's own credentials: its operator must act."""


class UnavailableError(TrunklineError):
    """The router could not be reached, or providers failed; another try may succeed."""


class StreamInterruptedError(UnavailableError):
    """A stream broke after its first delta, so what was received is incomplete."""


class DeadlineError(TrunklineError):
    """The call's deadline, or the time that the router allows, has passed."""


class CallCancelledError(TrunklineError):
    """The call was cancelled."""


class InternalError(TrunklineError):
    """A defect in the router, or an answer against the contract."""


_BY_REASON: Mapping[v1.ErrorReason.ValueType, type[TrunklineError]] = {
    v1.ERROR_REASON_AUTHENTICATION: AuthenticationError,
    v1.ERROR_REASON_AUTHORIZATION: PermissionDeniedError,
    v1.ERROR_REASON_RATE_LIMIT: RateLimitError,
    v1.ERROR_REASON_QUOTA_EXCEEDED: QuotaExceededError,
    v1.ERROR_REASON_INVALID_REQUEST: InvalidRequestError,
    v1.ERROR_REASON_MODEL_NOT_FOUND: ModelNotFoundError,
    v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED: ContextLengthError,
    v1.ERROR_REASON_CONTENT_FILTER: ContentFilterError,
    v1.ERROR_REASON_SERVICE_UNAVAILABLE: UnavailableError,
    v1.ERROR_REASON_TIMEOUT: DeadlineError,
    v1.ERROR_REASON_UNKNOWN: TrunklineError,
    v1.ERROR_REASON_OVERLOADED: RateLimitError,
    v1.ERROR_REASON_NO_ELIGIBLE_DEPLOYMENT: NoEligibleDeploymentError,
    v1.ERROR_REASON_PROVIDER_CREDENTIALS: ProviderCredentialsError,
    v1.ERROR_REASON_BAD_PROVIDER_RESPONSE: UnavailableError,
    v1.ERROR_REASON_STREAM_INTERRUPTED: StreamInterruptedError,
    v1.ERROR_REASON_CACHE_MISS: CacheMissError,
    v1.ERROR_REASON_CANCELLED: CallCancelledError,
    v1.ERROR_REASON_INTERNAL: InternalError,
}

# For failures without a reason of ours: from gRPC itself, a proxy, or a newer router. The
# codes that several reasons share say too little to pick one, so they stay TrunklineError.
_BY_CODE: Mapping[grpc.StatusCode, type[TrunklineError]] = {
    grpc.StatusCode.UNAUTHENTICATED: AuthenticationError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.CANCELLED: CallCancelledError,
    grpc.StatusCode.INTERNAL: InternalError,
    grpc.StatusCode.DATA_LOSS: InternalError,
}


def from_rpc(
    code: grpc.StatusCode,
    message: str | None,
    trailing_metadata: Iterable[tuple[str, str | bytes]] | None,
    request_id: str,
) -> TrunklineError:
    """The error for one failed RPC; `request_id` is the one that the request named."""
    named: dict[str, Any] = {"code": code, "request_id": request_id}
    reason = v1.ERROR_REASON_UNSPECIFIED
    for detail in _details(code, trailing_metadata or ()):
        if info := _unpack(detail, error_details_pb2.ErrorInfo):
            if info.domain == DOMAIN and info.reason in v1.ErrorReason.keys():  # noqa: SIM118 - the wrapper is no mapping
                reason = v1.ErrorReason.Value(info.reason)
                named["metadata"] = info.metadata
                named["request_id"] = request_id or info.metadata.get("request_id", "")
        elif retry := _unpack(detail, error_details_pb2.RetryInfo):
            named["retry_after"] = retry.retry_delay.ToNanoseconds() / 1e9
        elif bad := _unpack(detail, error_details_pb2.BadRequest):
            named["field_violations"] = [
                FieldViolation(violation.field, violation.description)
                for violation in bad.field_violations
            ]
        elif quota := _unpack(detail, error_details_pb2.QuotaFailure):
            named["quota_violations"] = [
                QuotaViolation(violation.subject, violation.description)
                for violation in quota.violations
            ]
        elif report := _unpack(detail, v1.CallReport):
            named["report"] = report
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, TrunklineError)
    if (report := named.get("report")) is not None and report.id:
        named["request_id"] = report.id
    return kind(message or code.name, reason=reason, **named)


def _details(
    code: grpc.StatusCode, trailing_metadata: Iterable[tuple[str, str | bytes]]
) -> Sequence[AnyMessage]:
    """The details of the attached status, none when there is none that can be believed."""
    for key, value in trailing_metadata:
        if key != STATUS_KEY or not isinstance(value, bytes):
            continue
        try:
            status = status_pb2.Status.FromString(value)
        except DecodeError:
            return ()
        # A status that contradicts the call's own code was meant for another call.
        return status.details if status.code == code.value[0] else ()
    return ()


def _unpack(detail: AnyMessage, kind: type[_M]) -> _M | None:
    """The detail as that message, None when it is another or is garbled."""
    if detail.TypeName() != kind.DESCRIPTOR.full_name:
        return None
    try:
        return kind.FromString(detail.value)
    except DecodeError:
        return None
