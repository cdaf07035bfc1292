"""Logs, metrics and spans of whole calls through the real engine, on virtual time."""

import io
import json
from collections.abc import Awaitable, Callable, Generator
from dataclasses import replace

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from tests.support.plain_dialect import Answer
from tests.support.virtual_time import EPOCH, VirtualClock, run
from tests.unit.engine.world import SECRET, World, ask
from trunkline import v1
from trunkline_server.engine.attempt import Services
from trunkline_server.engine.engine import Engine
from trunkline_server.engine.ports import Observer
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.health import BreakerPolicy
from trunkline_server.telemetry.logs import CallLog
from trunkline_server.telemetry.metrics import PASSTHROUGH, CallMetrics, Metrics
from trunkline_server.telemetry.observers import Observers
from trunkline_server.telemetry.tracing import CallTracer, tracer_provider

PARENT = f"00-{'a1' * 16}-{'b2' * 8}-01"
DOWN = Answer(b"down", status=503, delay=0.5)
OK = Answer(b"hello", delay=0.25)


def watched(world: World, *observers: Observer) -> World:
    """The world with these observers in place of its own."""
    services = Services(world.http, world.clock, Observers(observers), world.budget, world.rng)
    world.engine = Engine(services, world.table)
    return world


def go(main: Callable[[], Awaitable[None]]) -> None:
    async def inner() -> None:
        await main()

    run(inner)


def test_metrics_of_a_call_with_a_fallback() -> None:
    registry = CollectorRegistry()

    async def main() -> None:
        world = World({"alpha": [DOWN], "beta": [OK]})
        watched(world, CallMetrics(Metrics(registry)))
        await world.generate()

    go(main)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"trunkline_{name}", labels)

    alpha = {"provider": "alpha", "deployment": "alpha-large"}
    beta = {"provider": "beta", "deployment": "beta-large"}
    failed = {"outcome": "failed", "reason": "service_unavailable"}
    assert value("calls_total", operation="generate", caller="anonymous", reason="ok") == 1
    assert value("call_duration_seconds_sum", operation="generate") == pytest.approx(0.75)
    assert value("attempts_total", **alpha, **failed) == 1
    assert value("attempts_total", **beta, outcome="succeeded", reason="") == 1
    assert value("attempt_duration_seconds_sum", **beta) == pytest.approx(0.25)
    assert value("tokens_total", **beta, kind="input") == 10
    assert value("tokens_total", **beta, kind="output") == 5
    assert value("cost_usd_total", **beta) == pytest.approx(60e-6)
    assert value("calls_in_flight") == 0
    assert value("unpriced_attempts_total", **beta) == 0


def test_unpriced_attempts_are_counted_apart_from_money() -> None:
    registry = CollectorRegistry()

    async def main() -> None:
        world = watched(World({"alpha": [OK]}, priced=False), CallMetrics(Metrics(registry)))
        await world.generate()

    go(main)
    alpha = {"provider": "alpha", "deployment": "alpha-large"}
    assert registry.get_sample_value("trunkline_unpriced_attempts_total", alpha) == 1
    assert registry.get_sample_value("trunkline_cost_usd_total", alpha) == 0


def test_metrics_of_a_stream_and_of_the_breakers_behind_it() -> None:
    registry = CollectorRegistry()
    spoken = Answer(chunks=[(0.2, b"data: hello\n\n"), (0.3, b"data: [end]\n\n")])

    async def main() -> None:
        world = watched(World({"alpha": [DOWN], "beta": [spoken]}), CallMetrics(Metrics(registry)))
        world.health.policy = BreakerPolicy(consecutive_failures=1)
        await world.stream()

    go(main)

    def value(name: str, provider: str, **labels: str) -> float | None:
        where = {"provider": provider, "deployment": f"{provider}-large", **labels}
        return registry.get_sample_value(f"trunkline_{name}", where)

    # The first delta came 0.2 seconds into the second attempt, after 0.5 at the first.
    assert value("first_token_seconds_sum", "beta") == pytest.approx(0.7)
    assert value("first_token_seconds_bucket", "beta", le="0.5") == 0
    assert value("first_token_seconds_bucket", "beta", le="1.0") == 1
    assert value("first_token_seconds_count", "alpha") == 0
    assert value("circuit_state", "alpha") == v1.CIRCUIT_STATE_OPEN
    assert value("circuit_state", "beta") == v1.CIRCUIT_STATE_CLOSED


def test_models_that_are_passed_through_are_counted_together() -> None:
    registry = CollectorRegistry()

    async def main() -> None:
        world = World({})
        metrics = CallMetrics(Metrics(registry))
        call = world.call(ask())
        usage = v1.Usage(input_tokens=9, output_tokens=2, cached_input_tokens=4)
        for number in range(3):
            target = replace(world.deployments[0], name=f"alpha/model-{number}")
            record = v1.Attempt(outcome=v1.ATTEMPT_OUTCOME_SUCCEEDED, usage=usage)
            metrics.attempt_ended(call, target, record, None)

    go(main)
    where = {"provider": "alpha", "deployment": PASSTHROUGH}
    ended = {**where, "outcome": "succeeded", "reason": ""}
    assert registry.get_sample_value("trunkline_attempts_total", ended) == 3
    for kind, count in (("input", 27), ("output", 6), ("cached_input", 12)):
        tokens = {**where, "kind": kind}
        assert registry.get_sample_value("trunkline_tokens_total", tokens) == count


@pytest.fixture
def log_lines() -> Generator[Callable[[], list[dict[str, object]]]]:
    """Structured logging into memory; gives the lines."""
    stream = io.StringIO()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()


def test_a_failed_call_has_one_line_for_each_attempt_and_one_for_itself(
    log_lines: Callable[[], list[dict[str, object]]],
) -> None:
    async def main() -> None:
        refused = Answer(f"no such key {SECRET}".encode(), status=401)
        world = watched(World({"alpha": [refused]}), CallLog("info"))
        request = ask(routing=v1.RoutingOptions(no_fallback=True))
        call = world.call(request)
        call.traceparent = PARENT
        with pytest.raises(TrunklineError):
            await world.engine.generate(call, request)

    go(main)
    attempt, call = log_lines()
    assert attempt["event"] == "attempt failed"
    assert attempt["reason"] == "ERROR_REASON_AUTHENTICATION"
    assert attempt["http_status"] == 401
    assert call["event"] == "call failed"
    assert call["reason"] == "ERROR_REASON_PROVIDER_CREDENTIALS"
    assert call["request_id"] == attempt["request_id"] == "id-1"
    assert call["trace_id"] == "a1" * 16
    assert SECRET not in str(log_lines())


def test_what_a_vendor_may_quote_of_the_prompt_stays_out_of_the_log(
    log_lines: Callable[[], list[dict[str, object]]],
) -> None:
    async def main() -> None:
        quoting = Answer(b"'my private text' is not allowed", status=400)
        world = watched(World({"alpha": [quoting]}), CallLog("debug"))
        with pytest.raises(TrunklineError, match="my private text"):
            await world.generate()

    go(main)
    assert len(log_lines()) == 2
    assert "private" not in str(log_lines())


def test_answered_calls_are_logged_at_debug_only(
    log_lines: Callable[[], list[dict[str, object]]],
) -> None:
    async def main() -> None:
        await watched(World({"alpha": [OK]}), CallLog("info")).generate()
        assert log_lines() == []
        await watched(World({"alpha": [OK]}), CallLog("debug")).generate()

    go(main)
    (line,) = log_lines()
    assert line["event"] == "call answered"
    assert line["cost_usd"] == pytest.approx(60e-6)
    assert "hi there" not in str(line)


def traced(
    script: dict[str, list[Answer]], ratio: float, parent: str, *, begins: bool
) -> tuple[list[ReadableSpan], list[str]]:
    """The spans of one call, and the traceparent that each upstream request carried."""
    exporter = InMemorySpanExporter()
    provider = tracer_provider(SimpleSpanProcessor(exporter))
    upstream: list[str] = []

    async def main() -> None:
        world = watched(World(script), CallTracer(provider, VirtualClock(), ratio))
        request = ask()
        call = world.call(request)
        call.traceparent = parent
        call.begins_trace = begins
        await world.engine.generate(call, request)
        upstream.extend(dict(sent.headers)["traceparent"] for sent in world.http.requests)

    go(main)
    return list(exporter.get_finished_spans()), upstream


def test_a_sampled_call_is_a_span_with_a_child_for_each_attempt() -> None:
    spans, upstream = traced({"alpha": [DOWN], "beta": [OK]}, 0.0, PARENT, begins=False)
    first, second, call = spans
    assert call.context.trace_id == int("a1" * 16, 16)
    assert call.parent is not None
    assert call.parent.span_id == int("b2" * 8, 16)
    assert call.attributes is not None
    assert call.attributes["gen_ai.operation.name"] == "chat"
    assert call.attributes["gen_ai.request.model"] == "large"
    assert call.attributes["gen_ai.response.model"] == "plain-1"
    assert call.attributes["gen_ai.usage.input_tokens"] == 10
    assert call.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert call.attributes["gen_ai.provider.name"] == "beta"
    for attempt in (first, second):
        assert attempt.parent is not None
        assert attempt.parent.span_id == call.context.span_id
    assert first.attributes is not None
    assert first.attributes["error.type"] == "ERROR_REASON_SERVICE_UNAVAILABLE"
    assert first.attributes["http.response.status_code"] == 503
    assert not first.status.is_ok
    assert second.start_time == pytest.approx((EPOCH + 0.5) * 1e9, abs=1e4)
    assert second.end_time == pytest.approx((EPOCH + 0.75) * 1e9, abs=1e4)
    # The upstream continues the call's own span.
    expected = f"00-{'a1' * 16}-{call.context.span_id:016x}-01"
    assert upstream == [expected, expected]


def test_an_unsampled_caller_is_left_unsampled_and_still_propagated() -> None:
    unsampled = PARENT[:-1] + "0"
    spans, upstream = traced({"alpha": [OK]}, 1.0, unsampled, begins=False)
    assert spans == []
    assert upstream == [unsampled]


@pytest.mark.parametrize(("ratio", "count"), [(1.0, 2), (0.0, 0)])
def test_traces_that_begin_here_are_sampled_by_ratio(ratio: float, count: int) -> None:
    spans, _ = traced({"alpha": [OK]}, ratio, PARENT[:-1] + "0", begins=True)
    assert len(spans) == count


@pytest.mark.parametrize(
    ("trace_id", "count"),
    [(f"{'f' * 16}7{'f' * 15}", 2), (f"{'0' * 15}18{'0' * 15}", 0), (f"{'f' * 16}{'0' * 16}", 2)],
)
def test_the_latter_half_of_the_trace_id_decides(trace_id: str, count: int) -> None:
    spans, _ = traced({"alpha": [OK]}, 0.5, f"00-{trace_id}-{'b2' * 8}-00", begins=True)
    assert len(spans) == count
