"""Structured logs: one JSON object a line on standard error."""

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple

import orjson
import structlog

from trunkline import v1
from trunkline_server.engine.call import Call
from trunkline_server.engine.ports import NullObserver
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.snapshot import Deployment

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

# The clouds' libraries, which tell of each request and quote what refuses them. Whoever uses them
# tells of failures in the router's own words.
_TALKATIVE = ("azure", "botocore", "google", "msal")

# Failures that are the caller's own are the caller's to notice; at level info they are told,
# not raised.
_CALLERS_OWN = frozenset(
    {
        v1.ERROR_REASON_AUTHENTICATION,
        v1.ERROR_REASON_AUTHORIZATION,
        v1.ERROR_REASON_INVALID_REQUEST,
        v1.ERROR_REASON_MODEL_NOT_FOUND,
        v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
        v1.ERROR_REASON_CONTENT_FILTER,
        v1.ERROR_REASON_CACHE_MISS,
        v1.ERROR_REASON_CANCELLED,
    }
)

# A refusal whose metadata name one of these is a limit's, a budget's or an access rule's of the
# router, which its caller met; the same reason without it comes from a provider.
_RULES = frozenset({"limit", "budget", "rule"})

# Vendors quote the offending part of a request when they refuse it.
_QUOTING = frozenset(
    {
        v1.ERROR_REASON_INVALID_REQUEST,
        v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
        v1.ERROR_REASON_CONTENT_FILTER,
    }
)


class Redaction(NamedTuple):
    """What takes personal data and keys out of text: of callers and vendors, and of the
    router's own and its libraries'."""

    of_others: Callable[[str], str]
    own: Callable[[str], str]


# What a call consumed that is not counted in tokens: fields of Usage, and of a line.
_UNITS = (
    *("output_images", "input_audio_ms", "output_audio_ms", "input_characters", "search_units"),
)

# Lines with one of these are about a call: what callers and vendors wrote may stand in them.
_OF_CALLS = ("request_id", "operation")
# Fields that are made here and hold nothing of the kind.
_MADE_HERE = frozenset({"level", "snapshot", "time", "trace_id"})


# Stands in the log for a message that may hold text of a caller's.
WITHHELD = "(withheld)"


def configure_logging(level: str, style: str, redaction: Redaction | None = None) -> None:
    """Sends everything, the libraries' own records too, to standard error.

    `level` is one of LEVELS, `style` "json" or "console". Every text of a line is redacted, but
    for those that name what was called or when.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    if redaction is not None:
        shared.append(_redacting(redaction))
    renderer: Any = (
        structlog.dev.ConsoleRenderer()
        if style == "console"
        else structlog.processors.JSONRenderer(serializer=_dump)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        # Workers share standard error: a line and its end must go out in one write, or the
        # lines of two of them would mix.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processor=renderer)
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(LEVELS[level], logging.INFO))
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _redacting(
    redaction: Redaction,
) -> Callable[[Any, str, MutableMapping[str, Any]], MutableMapping[str, Any]]:
    """A structlog processor."""

    def clean(value: Any, redact: Callable[[str], str]) -> Any:
        if isinstance(value, str):
            return redact(value)
        if isinstance(value, (list, tuple)):
            return [clean(item, redact) for item in value]
        if isinstance(value, dict):
            return {key: clean(item, redact) for key, item in value.items()}
        return value

    def process(
        _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        of_call = any(key in event for key in _OF_CALLS)
        redact = redaction.of_others if of_call else redaction.own
        for key, value in event.items():
            if key not in _MADE_HERE and not key.startswith("_"):
                event[key] = clean(value, redact)
        return event

    return process


def _dump(event: dict[str, Any], **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()


class CallLog(NullObserver):
    """Writes a line for each call that failed, and at level debug for each call."""

    def __init__(self, level: str) -> None:
        self._log = structlog.get_logger()
        self._all = level == "debug"

    def attempt_ended(
        self, call: Call, target: Deployment, attempt: v1.Attempt, error: TrunklineError | None
    ) -> None:
        """A failed attempt is worth a line even when the call then succeeds."""
        if error is not None:
            self._log.warning(
                "attempt failed",
                request_id=call.id,
                trace_id=trace_id(call),
                provider=target.provider,
                deployment=target.name,
                reason=v1.ErrorReason.Name(error.reason),
                http_status=attempt.http_status,
                provider_request_id=attempt.provider_request_id,
                duration_ms=attempt.duration_us / 1000,
                error=_of_call(call, error),
            )

    def call_ended(self, call: Call, error: TrunklineError | None) -> None:
        """The one line of a call."""
        if error is None:
            if self._all:
                self._log.debug("call answered", **_fields(call))
        elif error.reason in _CALLERS_OWN or not _RULES.isdisjoint(error.metadata):
            self._log.info("call refused", **_fields(call), **_failure(call, error))
        else:
            self._log.error("call failed", **_fields(call), **_failure(call, error))


def trace_id(call: Call) -> str:
    """The W3C trace id of a call."""
    return call.traceparent[3:35]


def _fields(call: Call) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": call.id,
        "trace_id": trace_id(call),
        "operation": call.operation,
        "caller": call.caller.name,
        "model": call.request.model,
        "attempts": len(call.attempts),
        "duration_ms": round((call.ended - call.started) * 1000, 3),
    }
    if call.decision is not None:
        fields["deployment"] = call.decision.deployment
        fields["snapshot"] = call.decision.snapshot_version
    if call.cache_status:
        status = v1.CacheStatus.Name(call.cache_status).removeprefix("CACHE_STATUS_")
        fields["cache"] = status.lower()
    if call.usage is not None:
        fields["input_tokens"] = call.usage.input_tokens
        fields["output_tokens"] = call.usage.output_tokens
        for name in _UNITS if call.units is not None else ():
            if count := getattr(call.usage, name):
                fields[name] = count
    if call.cost is not None and not call.cost.unpriced:
        fields["cost_usd"] = call.cost.total / 1e9
    return fields


def _failure(call: Call, error: TrunklineError) -> dict[str, Any]:
    return {
        "code": error.code.name,
        "reason": v1.ErrorReason.Name(error.reason),
        "error": _of_call(call, error),
    }


def _of_call(call: Call, error: TrunklineError) -> str:
    """The error's message, unless it may hold text of a call whose text may not be kept."""
    treatment = call.treatment
    if treatment is not None and not treatment.may_store_text and call.attempts:
        return WITHHELD
    return loggable(error)


def loggable(error: TrunklineError) -> str:
    """The error's message, unless it may quote the caller's text: payload stays out of logs."""
    return WITHHELD if error.reason in _QUOTING else error.message
