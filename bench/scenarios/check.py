"""One call to each server before it is measured: fast wrong answers are no result."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc

from bench.common.child import BenchError, Running
from bench.configs import KEY
from trunkline import v1
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub

_METADATA = (("authorization", f"Bearer {KEY}"),)
_PATIENCE = 30.0


@contextmanager
def _stub(server: Running) -> Iterator[InferenceServiceStub]:
    """Calls to the server; one that fails is a BenchError."""
    with grpc.insecure_channel(server.address) as channel:
        try:
            yield InferenceServiceStub(channel)
        except grpc.RpcError as error:
            raise BenchError(f"{server.name}: {error}") from error


def _expect(holds: bool, server: Running, what: str, got: object) -> None:
    if not holds:
        raise BenchError(f"{server.name}: expected {what}, got: {got}")


def check_route(server: Running, request: v1.RouteRequest, deployment: str = "bench-0") -> None:
    """Raises BenchError unless the decision names the deployment."""
    with _stub(server) as stub:
        answer = stub.Route(request, timeout=_PATIENCE, metadata=_METADATA)
    _expect(answer.decision.deployment == deployment, server, deployment, answer)


def check_decision(server: Running, request: v1.RouteRequest, candidates: int) -> None:
    """Raises BenchError unless the decision was made among so many candidates."""
    with _stub(server) as stub:
        answer = stub.Route(request, timeout=_PATIENCE, metadata=_METADATA)
    found = answer.decision.candidate_count
    _expect(found == candidates, server, f"{candidates} candidates", found)


def check_generate(
    server: Running,
    request: v1.GenerateRequest,
    *,
    outcomes: Sequence[v1.AttemptOutcome.ValueType] = (v1.ATTEMPT_OUTCOME_SUCCEEDED,),
    tokens: int = 16,
) -> None:
    """Raises BenchError unless the answer has so many tokens after these attempts."""
    with _stub(server) as stub:
        answer = stub.Generate(request, timeout=_PATIENCE, metadata=_METADATA)
    text = "".join(part.text for part in answer.message.parts)
    _expect(text == "token " * tokens, server, f"{tokens} tokens", answer)
    _expect(answer.usage.output_tokens == tokens, server, "their count as usage", answer)
    _expect(answer.cost.total > 0 and not answer.cost.unpriced, server, "a cost", answer)
    _expect(
        [each.outcome for each in answer.attempts] == list(outcomes), server, "attempts", answer
    )


def check_hit(
    server: Running, request: v1.GenerateRequest, kind: v1.CacheHitKind.ValueType
) -> None:
    """Raises BenchError unless the answer comes from the cache, from there."""
    with _stub(server) as stub:
        answer = stub.Generate(request, timeout=_PATIENCE, metadata=_METADATA)
    _expect(answer.cache_hit_kind == kind, server, v1.CacheHitKind.Name(kind), answer)
    _expect(answer.saved.total > 0 and not answer.cost.total, server, "a saved cost", answer)


def check_embed(server: Running, request: v1.EmbedRequest, dimensions: int) -> None:
    """Raises BenchError unless every input has a vector of so many numbers."""
    with _stub(server) as stub:
        answer = stub.Embed(request, timeout=_PATIENCE, metadata=_METADATA)
    found = [len(embedding.values) for embedding in answer.embeddings]
    _expect(found == [dimensions] * len(request.inputs), server, "a vector each", found)
    _expect(answer.usage.input_tokens > 0, server, "usage", answer.usage)


def check_stream(server: Running, request: v1.GenerateRequest, tokens: int) -> None:
    """Raises BenchError unless the stream has a start, so many deltas and an end."""
    with _stub(server) as stub:
        events = list(stub.StreamGenerate(request, timeout=_PATIENCE, metadata=_METADATA))
    kinds = [event.WhichOneof("event") for event in events]
    _expect(kinds == ["start", *["delta"] * tokens, "end"], server, f"{tokens} deltas", kinds)
    _expect(events[-1].end.usage.output_tokens == tokens, server, "usage", events[-1])


def check_batch(server: Running, request: v1.BatchRouteRequest) -> None:
    """Raises BenchError unless every result is a decision for bench-0."""
    with _stub(server) as stub:
        answer = stub.BatchRoute(request, timeout=_PATIENCE, metadata=_METADATA)
    found = [result.response.decision.deployment for result in answer.results]
    _expect(found == ["bench-0"] * len(request.requests), server, "decisions", set(found))
