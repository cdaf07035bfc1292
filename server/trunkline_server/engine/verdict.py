"""What a failed attempt means: for the next attempt, for the target's health, for the caller."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from trunkline import v1
from trunkline_server.errors import TrunklineError, UpstreamError


class Blame(Enum):
    """What a failure says of the deployment's health."""

    NONE = "none"
    FAILURE = "failure"
    COOLDOWN = "cooldown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`retry`: the same target may be tried again. `fallback`: the next one may.

    `hope` ranks failures by how likely it is that the caller's next try succeeds; of several
    failed attempts the most hopeful one is told.
    """

    retry: bool
    fallback: bool
    blame: Blame
    hope: int


_BROKEN = Verdict(retry=True, fallback=True, blame=Blame.FAILURE, hope=4)
_MISCONFIGURED = Verdict(retry=False, fallback=True, blame=Blame.FAILURE, hope=1)
_CALLERS_OWN = Verdict(retry=False, fallback=False, blame=Blame.NONE, hope=9)

VERDICTS: Mapping[v1.ErrorReason.ValueType, Verdict] = {
    v1.ERROR_REASON_SERVICE_UNAVAILABLE: _BROKEN,
    v1.ERROR_REASON_TIMEOUT: _BROKEN,
    v1.ERROR_REASON_UNKNOWN: Verdict(retry=False, fallback=True, blame=Blame.FAILURE, hope=2),
    v1.ERROR_REASON_BAD_PROVIDER_RESPONSE: _BROKEN,
    v1.ERROR_REASON_STREAM_INTERRUPTED: _BROKEN,
    v1.ERROR_REASON_RATE_LIMIT: Verdict(True, True, Blame.COOLDOWN, hope=5),
    v1.ERROR_REASON_QUOTA_EXCEEDED: Verdict(False, True, Blame.COOLDOWN, hope=3),
    v1.ERROR_REASON_AUTHENTICATION: _MISCONFIGURED,
    v1.ERROR_REASON_AUTHORIZATION: _MISCONFIGURED,
    # A larger window elsewhere may hold the prompt.
    v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED: Verdict(False, True, Blame.NONE, hope=6),
    v1.ERROR_REASON_MODEL_NOT_FOUND: Verdict(False, True, Blame.FAILURE, hope=0),
    # A refused prompt is not shopped around until some vendor takes it.
    v1.ERROR_REASON_CONTENT_FILTER: _CALLERS_OWN,
    v1.ERROR_REASON_INVALID_REQUEST: _CALLERS_OWN,
}


def verdict_on(error: TrunklineError) -> Verdict:
    """The verdict on an attempt's failure."""
    return VERDICTS[error.reason]


# What the caller is told where the attempt's own reason would mislead: the vendor refused the
# router's credentials, not the caller's.
_TOLD_AS = {
    v1.ERROR_REASON_AUTHENTICATION: v1.ERROR_REASON_PROVIDER_CREDENTIALS,
    v1.ERROR_REASON_AUTHORIZATION: v1.ERROR_REASON_PROVIDER_CREDENTIALS,
    v1.ERROR_REASON_STREAM_INTERRUPTED: v1.ERROR_REASON_SERVICE_UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt: where and why."""

    provider: str
    error: UpstreamError


def told_to_caller(failures: Sequence[Failure], retry_after: float | None) -> TrunklineError:
    """The error of a call all of whose attempts failed.

    `retry_after` is the time in seconds after which the first of its targets is expected back.
    """
    chosen = max(failures, key=lambda failure: verdict_on(failure.error).hope)
    error = chosen.error
    reason = _TOLD_AS.get(error.reason, error.reason)
    metadata = {"provider": chosen.provider, "attempts": str(len(failures))}
    if error.http_status:
        metadata["http_status"] = str(error.http_status)
    if reason in {v1.ERROR_REASON_RATE_LIMIT, v1.ERROR_REASON_QUOTA_EXCEEDED}:
        metadata["scope"] = "provider"
    times = f"{len(failures)} attempts failed; " if len(failures) > 1 else ""
    transient = reason in {v1.ERROR_REASON_RATE_LIMIT, v1.ERROR_REASON_SERVICE_UNAVAILABLE}
    return TrunklineError(
        reason,
        f"{times}{chosen.provider}: {error.message}",
        metadata=metadata,
        violations=error.violations,
        retry_after=(error.retry_after or retry_after) if transient else None,
    )
