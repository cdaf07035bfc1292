"""OpenTelemetry spans for sampled calls, with the GenAI semantic conventions' names.

The decision to sample falls before any span exists, so an unsampled call costs one
comparison. Attribute names follow the OpenTelemetry GenAI semantic conventions.
"""

from collections.abc import Callable, Mapping

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.span import TraceFlags, TraceState

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.engine.call import Call
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.snapshot import Deployment

_OPERATIONS: Mapping[str, str] = {
    "generate": "chat",
    "stream_generate": "chat",
    "embed": "embeddings",
    # The conventions have no words for these yet: the contract's.
    "generate_image": "generate_image",
    "transcribe": "transcribe",
    "synthesize": "synthesize",
    "rerank": "rerank",
    "count_tokens": "count_tokens",
}

_TRACE_ID_BITS = 64
_SAMPLED = 0x01


def otlp_processor(endpoint: str, headers: Mapping[str, str]) -> SpanProcessor:
    """Sends spans in batches, from a thread of its own, by OTLP over gRPC.

    `endpoint` is an http or https URL; http sends in plain text.
    """
    # Imported only by those who trace: it takes as long as the rest of the start.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    return BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, headers=dict(headers)))


def tracer_provider(processor: SpanProcessor, service_name: str = "trunkline") -> TracerProvider:
    """A provider that hands every span to `processor`; sampling is decided before."""
    provider = TracerProvider(resource=Resource.create({"service.name": service_name}))
    provider.add_span_processor(processor)
    return provider


class CallTracer:
    """Records a span for each sampled call and for each of its attempts; an
    engine.ports.Observer.

    A call is sampled when its caller sampled the trace, or by `ratio`, from 0 to 1, of the
    traces that begin here.
    """

    def __init__(
        self,
        provider: TracerProvider,
        clock: Clock,
        ratio: float,
        redact: Callable[[str], str] = str,
    ) -> None:
        """`redact` takes personal data out of what callers name."""
        self._tracer = provider.get_tracer("trunkline_server")
        self._redact = redact
        self._clock = clock
        self._bound = round(ratio * 2**_TRACE_ID_BITS)

    def call_started(self, call: Call) -> None:
        """Opens the call's span if it is sampled, and puts it into call.traceparent."""
        context = None
        if call.begins_trace:
            # The latter half of the trace id.
            if int(call.traceparent[19:35], 16) >= self._bound:
                return
        else:
            if not int(call.traceparent[53:55], 16) & _SAMPLED:
                return
            remote = SpanContext(
                int(call.traceparent[3:35], 16),
                int(call.traceparent[36:52], 16),
                is_remote=True,
                trace_flags=TraceFlags(TraceFlags.SAMPLED),
                trace_state=TraceState.from_header([call.tracestate]),
            )
            context = trace.set_span_in_context(NonRecordingSpan(remote))
        model = self._redact(call.request.model)
        span = self._tracer.start_span(
            f"{_OPERATIONS[call.operation]} {model}".strip(),
            context=context,
            kind=SpanKind.SERVER,
            attributes={
                "gen_ai.operation.name": _OPERATIONS[call.operation],
                "gen_ai.request.model": model,
                "trunkline.request_id": self._redact(call.id),
                "trunkline.caller": call.caller.name,
            },
            start_time=self._nanos(call.started),
        )
        own = span.get_span_context()
        call.observed = span
        call.traceparent = f"00-{own.trace_id:032x}-{own.span_id:016x}-01"

    def attempt_ended(
        self, call: Call, target: Deployment, attempt: v1.Attempt, error: TrunklineError | None
    ) -> None:
        """Records the attempt as a child of the call's span."""
        parent = call.observed
        # Most calls have none, and looking for the kind of nothing is dear.
        if parent is None or not isinstance(parent, trace.Span):
            return
        end = self._nanos(self._clock.monotonic())
        # Of a model that is passed through, both are the caller's words.
        model, deployment = self._redact(target.provider_model), self._redact(target.name)
        span = self._tracer.start_span(
            f"{_OPERATIONS[call.operation]} {model}",
            context=trace.set_span_in_context(parent),
            kind=SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": _OPERATIONS[call.operation],
                "gen_ai.provider.name": target.provider,
                "gen_ai.request.model": model,
                "gen_ai.usage.input_tokens": attempt.usage.input_tokens,
                "gen_ai.usage.output_tokens": attempt.usage.output_tokens,
                "http.response.status_code": attempt.http_status,
                "trunkline.deployment": deployment,
                "trunkline.hedged": attempt.hedged,
            },
            start_time=end - attempt.duration_us * 1000,
        )
        _conclude(span, error)
        span.end(end)

    def call_ended(self, call: Call, error: TrunklineError | None) -> None:
        """Closes the call's span."""
        span = call.observed
        if span is None or not isinstance(span, trace.Span):
            return
        if call.decision is not None:
            span.set_attribute("gen_ai.provider.name", call.decision.provider)
            span.set_attribute("trunkline.deployment", self._redact(call.decision.deployment))
            span.set_attribute("trunkline.snapshot", call.decision.snapshot_version)
        if call.usage is not None:
            span.set_attribute("gen_ai.response.model", call.model)
            span.set_attribute("gen_ai.usage.input_tokens", call.usage.input_tokens)
            span.set_attribute("gen_ai.usage.output_tokens", call.usage.output_tokens)
        if call.finish_reason:
            reason = v1.FinishReason.Name(call.finish_reason).removeprefix("FINISH_REASON_")
            span.set_attribute("gen_ai.response.finish_reasons", (reason.lower(),))
        if call.cache_status:
            status = v1.CacheStatus.Name(call.cache_status).removeprefix("CACHE_STATUS_")
            span.set_attribute("trunkline.cache", status.lower())
        if call.cost is not None and not call.cost.unpriced:
            span.set_attribute("trunkline.cost_nanos", call.cost.total)
        _conclude(span, error)
        span.end(self._nanos(call.ended))

    def _nanos(self, monotonic: float) -> int:
        """A monotonic time as nanoseconds since the Unix epoch."""
        return round((self._clock.wall() - (self._clock.monotonic() - monotonic)) * 1e9)


def _conclude(span: trace.Span, error: TrunklineError | None) -> None:
    if error is not None:
        span.set_attribute("error.type", v1.ErrorReason.Name(error.reason))
        span.set_status(Status(StatusCode.ERROR))
