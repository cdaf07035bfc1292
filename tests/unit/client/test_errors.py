"""Failures: from the status on the wire to the class and the fields that callers see."""

import pickle
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

import trunkline
from tests.unit.client.scripted import ClientDriver, Context, Served, fail
from trunkline import FieldViolation, QuotaViolation, TrunklineError, v1

Connect = Callable[..., ClientDriver]

# From the comments of error_reason.proto: each reason's gRPC code, and the class for it.
REASONS = {
    "AUTHENTICATION": ("UNAUTHENTICATED", trunkline.AuthenticationError),
    "AUTHORIZATION": ("PERMISSION_DENIED", trunkline.PermissionDeniedError),
    "RATE_LIMIT": ("RESOURCE_EXHAUSTED", trunkline.RateLimitError),
    "QUOTA_EXCEEDED": ("RESOURCE_EXHAUSTED", trunkline.QuotaExceededError),
    "INVALID_REQUEST": ("INVALID_ARGUMENT", trunkline.InvalidRequestError),
    "MODEL_NOT_FOUND": ("NOT_FOUND", trunkline.ModelNotFoundError),
    "CONTEXT_LENGTH_EXCEEDED": ("INVALID_ARGUMENT", trunkline.ContextLengthError),
    "CONTENT_FILTER": ("FAILED_PRECONDITION", trunkline.ContentFilterError),
    "SERVICE_UNAVAILABLE": ("UNAVAILABLE", trunkline.UnavailableError),
    "TIMEOUT": ("DEADLINE_EXCEEDED", trunkline.DeadlineError),
    "UNKNOWN": ("UNKNOWN", trunkline.TrunklineError),
    "OVERLOADED": ("RESOURCE_EXHAUSTED", trunkline.RateLimitError),
    "NO_ELIGIBLE_DEPLOYMENT": ("FAILED_PRECONDITION", trunkline.NoEligibleDeploymentError),
    "PROVIDER_CREDENTIALS": ("FAILED_PRECONDITION", trunkline.ProviderCredentialsError),
    "BAD_PROVIDER_RESPONSE": ("UNAVAILABLE", trunkline.UnavailableError),
    "STREAM_INTERRUPTED": ("UNAVAILABLE", trunkline.StreamInterruptedError),
    "CACHE_MISS": ("NOT_FOUND", trunkline.CacheMissError),
    "CANCELLED": ("CANCELLED", trunkline.CallCancelledError),
    "INTERNAL": ("INTERNAL", trunkline.InternalError),
    "NOT_FOUND": ("NOT_FOUND", trunkline.TrunklineError),
    "ALREADY_EXISTS": ("ALREADY_EXISTS", trunkline.TrunklineError),
    "ABORTED": ("ABORTED", trunkline.TrunklineError),
    "FAILED_PRECONDITION": ("FAILED_PRECONDITION", trunkline.TrunklineError),
}


def test_every_reason_is_covered() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in v1.ErrorReason.keys()}  # noqa: SIM118 - the wrapper is no mapping
    assert names - {"UNSPECIFIED"} == set(REASONS)


def fails(
    code: grpc.StatusCode, message: str, *details: Any, status_code: int = -1
) -> Callable[..., Any]:
    async def script(request: Any, context: Context) -> None:
        await fail(context, code, message, *details, status_code=status_code)

    return script


async def caught_from(served: Served, client: ClientDriver, script: Any) -> TrunklineError:
    served.router.on_generate = script
    with pytest.raises(TrunklineError) as caught:
        await client.generate(v1.GenerateRequest(request_id="r-7"))
    return caught.value


@pytest.mark.parametrize("reason", sorted(REASONS))
async def test_reason_gives_class_and_every_detail(
    served: Served, connect: Connect, reason: str
) -> None:
    code_name, kind = REASONS[reason]
    code = grpc.StatusCode[code_name]
    report = v1.CallReport(
        id="call-3",
        attempts=[v1.Attempt(provider="openai", http_status=503)],
        cost=v1.Cost(total=12),
    )
    details = [
        error_details_pb2.ErrorInfo(
            reason=f"ERROR_REASON_{reason}", domain="trunkline", metadata={"provider": "openai"}
        ),
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field="model", description="unknown")
            ]
        ),
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)),
        error_details_pb2.QuotaFailure(
            violations=[
                error_details_pb2.QuotaFailure.Violation(subject="team", description="spent")
            ]
        ),
        report,
    ]
    error = await caught_from(served, connect(served.target), fails(code, "went wrong", *details))

    assert type(error) is kind
    assert error.code is code
    assert error.reason == v1.ErrorReason.Value(f"ERROR_REASON_{reason}")
    assert error.message == "went wrong"
    assert str(error) == f"{reason}: went wrong"
    assert error.metadata == {"provider": "openai"}
    assert error.retry_after == 2.5
    assert error.field_violations == (FieldViolation("model", "unknown"),)
    assert error.quota_violations == (QuotaViolation("team", "spent"),)
    assert error.report == report
    assert error.request_id == "call-3"
    assert isinstance(error.__cause__, grpc.RpcError)


async def test_streams_raise_the_same(served: Served, connect: Connect) -> None:
    async def script(request: Any, context: Context) -> AsyncIterator[v1.StreamGenerateResponse]:
        info = error_details_pb2.ErrorInfo(
            reason="ERROR_REASON_RATE_LIMIT", domain="trunkline", metadata={"request_id": "c-5"}
        )
        retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=3))
        await fail(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down", info, retry)
        yield v1.StreamGenerateResponse()

    served.router.on_stream = script
    stream = await connect(served.target).stream("x")
    with pytest.raises(trunkline.RateLimitError, match="slow down") as caught:
        await stream.next()
    assert caught.value.retry_after == 3
    assert caught.value.request_id == "c-5"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("UNAUTHENTICATED", trunkline.AuthenticationError),
        ("PERMISSION_DENIED", trunkline.PermissionDeniedError),
        ("INVALID_ARGUMENT", trunkline.InvalidRequestError),
        ("UNAVAILABLE", trunkline.UnavailableError),
        ("DEADLINE_EXCEEDED", trunkline.DeadlineError),
        ("CANCELLED", trunkline.CallCancelledError),
        ("INTERNAL", trunkline.InternalError),
        ("DATA_LOSS", trunkline.InternalError),
        # Several reasons share these codes, so without a reason nothing more is claimed.
        ("RESOURCE_EXHAUSTED", TrunklineError),
        ("NOT_FOUND", TrunklineError),
        ("FAILED_PRECONDITION", TrunklineError),
        ("UNIMPLEMENTED", TrunklineError),
    ],
)
async def test_without_details_the_code_decides(
    served: Served, connect: Connect, code: str, kind: type[TrunklineError]
) -> None:
    async def script(request: Any, context: Context) -> None:
        await context.abort(grpc.StatusCode[code], "from a proxy")

    error = await caught_from(served, connect(served.target), script)
    assert type(error) is kind
    assert error.code is grpc.StatusCode[code]
    assert error.reason == v1.ERROR_REASON_UNSPECIFIED
    assert str(error) == f"{code}: from a proxy"
    assert error.retry_after is None
    assert error.report is None
    assert error.request_id == "r-7"


@pytest.mark.parametrize(
    "info",
    [
        error_details_pb2.ErrorInfo(reason="ERROR_REASON_RATE_LIMIT", domain="elsewhere.example"),
        error_details_pb2.ErrorInfo(reason="ERROR_REASON_OF_TOMORROW", domain="trunkline"),
    ],
)
async def test_reasons_that_are_not_ours_are_not_taken(
    served: Served, connect: Connect, info: error_details_pb2.ErrorInfo
) -> None:
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1))
    script = fails(grpc.StatusCode.UNAVAILABLE, "busy", info, retry)
    error = await caught_from(served, connect(served.target), script)
    assert type(error) is trunkline.UnavailableError
    assert error.reason == v1.ERROR_REASON_UNSPECIFIED
    assert error.metadata == {}
    assert error.retry_after == 1


async def test_a_status_that_contradicts_the_call_is_ignored(
    served: Served, connect: Connect
) -> None:
    info = error_details_pb2.ErrorInfo(reason="ERROR_REASON_RATE_LIMIT", domain="trunkline")
    code = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    script = fails(grpc.StatusCode.UNAVAILABLE, "x", info, status_code=code)
    error = await caught_from(served, connect(served.target), script)
    assert type(error) is trunkline.UnavailableError
    assert error.reason == v1.ERROR_REASON_UNSPECIFIED


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x08\x0e\x1a\x02\x0a"])
async def test_garbled_details_hide_no_failure(
    served: Served, connect: Connect, garbage: bytes
) -> None:
    async def script(request: Any, context: Context) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", garbage),))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")

    error = await caught_from(served, connect(served.target), script)
    assert type(error) is trunkline.UnavailableError
    assert error.message == "busy"


async def test_one_garbled_detail_spares_the_others(served: Served, connect: Connect) -> None:
    async def script(request: Any, context: Context) -> None:
        status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0])
        status.details.add(
            type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff\xff"
        )
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=4)))
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")

    error = await caught_from(served, connect(served.target), script)
    assert error.retry_after == 4
    assert error.reason == v1.ERROR_REASON_UNSPECIFIED


def test_errors_survive_pickling() -> None:
    error = trunkline.RateLimitError(
        "slow",
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason=v1.ERROR_REASON_RATE_LIMIT,
        metadata={"scope": "key"},
        retry_after=1.5,
        field_violations=[FieldViolation("a", "b")],
        quota_violations=[QuotaViolation("c", "d")],
        report=v1.CallReport(id="call-1"),
        request_id="call-1",
    )
    error.add_note("while testing")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is trunkline.RateLimitError
    assert (copy.code, copy.reason) == (error.code, error.reason)
    assert (copy.metadata, copy.retry_after) == ({"scope": "key"}, 1.5)
    assert copy.field_violations == (FieldViolation("a", "b"),)
    assert copy.quota_violations == (QuotaViolation("c", "d"),)
    assert (copy.report, copy.request_id) == (v1.CallReport(id="call-1"), "call-1")
    assert str(copy) == "RATE_LIMIT: slow"
