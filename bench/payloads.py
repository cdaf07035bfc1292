"""The messages that scenarios send and floors answer with, the same for all who are compared."""

from pathlib import Path

import orjson
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor

from trunkline import v1
from trunkline.v1 import inference_service_pb2

MODEL = "bench"
# Ends the text of every chunk that the upstream writes.
WORD = b'token "'
_SENTENCE = "Rivers bend because water erodes the outer bank and rests at the inner one. "


def prose(size: int) -> str:
    """Text of so many bytes."""
    return (_SENTENCE * (size // len(_SENTENCE) + 1))[:size]


def route_request(model: str = MODEL) -> v1.RouteRequest:
    """What a dry run asks."""
    return v1.RouteRequest(
        model=model,
        input_tokens=1200,
        max_output_tokens=400,
        requirements=v1.Requirements(capabilities=["tools"]),
    )


def generate_request(model: str = MODEL, size: int = 1024) -> v1.GenerateRequest:
    """A system message and a prompt of `size` bytes."""
    system = v1.Message(role=v1.ROLE_SYSTEM, parts=[v1.Part(text="Answer in one sentence.")])
    user = v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text=prose(size))])
    config = v1.GenerationConfig(max_output_tokens=256, temperature=0.0)
    return v1.GenerateRequest(model=model, messages=[system, user], config=config)


def embed_request(inputs: int, model: str = "bench-embed") -> v1.EmbedRequest:
    """So many short texts."""
    return v1.EmbedRequest(model=model, inputs=[prose(80)] * inputs)


def chat_json(model: str = MODEL, size: int = 1024, *, stream: bool = False) -> bytes:
    """`generate_request` as OpenAI's clients send it."""
    body: dict[str, object] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "Answer in one sentence."},
            {"role": "user", "content": prose(size)},
        ],
        "max_tokens": 256,
        "temperature": 0.0,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return orjson.dumps(body)


def embed_json(inputs: int) -> bytes:
    """`embed_request` as OpenAI's clients send it."""
    return orjson.dumps({"model": "bench", "input": [prose(80)] * inputs})


def _decision() -> v1.Decision:
    return v1.Decision(
        provider="upstream",
        deployment="bench-0",
        provider_model="bench",
        model=MODEL,
        strategy=v1.STRATEGY_PRIORITY,
        snapshot_version="0123456789abcdef",
        estimated_cost=v1.Cost(input=3_000_000, output=4_000_000, total=7_000_000, estimated=True),
        candidate_count=1,
    )


def route_response() -> v1.RouteResponse:
    """A reply of the router's size."""
    return v1.RouteResponse(decision=_decision())


def generate_response(tokens: int = 16) -> v1.GenerateResponse:
    """A reply of the router's size."""
    answer = v1.Message(role=v1.ROLE_ASSISTANT, parts=[v1.Part(text="token " * tokens)])
    usage = v1.Usage(input_tokens=300, output_tokens=tokens, source=v1.USAGE_SOURCE_PROVIDER)
    cost = v1.Cost(input=600_000, output=128_000, total=728_000)
    attempt = v1.Attempt(
        provider="upstream",
        deployment="bench-0",
        outcome=v1.ATTEMPT_OUTCOME_SUCCEEDED,
        http_status=200,
        duration_us=300,
        usage=usage,
        cost=cost,
    )
    return v1.GenerateResponse(
        id="0123456789abcdef01234567",
        model="bench",
        provider="upstream",
        deployment="bench-0",
        message=answer,
        finish_reason=v1.FINISH_REASON_STOP,
        vendor_finish_reason="stop",
        usage=usage,
        cost=cost,
        decision=_decision(),
        attempts=[attempt],
        timing=v1.Timing(total_us=400, upstream_us=300),
    )


def embed_response(inputs: int, dimensions: int = 1536) -> v1.EmbedResponse:
    """So many vectors."""
    vector = v1.Embedding(values=[0.0123] * dimensions)
    return v1.EmbedResponse(embeddings=[vector] * inputs)


def start() -> v1.StreamGenerateResponse:
    """The first event of a stream."""
    begun = v1.StreamStart(id="0123456789abcdef01234567", model="bench", decision=_decision())
    return v1.StreamGenerateResponse(start=begun)


def delta() -> v1.StreamGenerateResponse:
    """One token."""
    return v1.StreamGenerateResponse(delta=v1.StreamDelta(text="token "))


def end() -> v1.StreamGenerateResponse:
    """The last event of a stream."""
    whole = generate_response()
    return v1.StreamGenerateResponse(
        end=v1.StreamEnd(
            finish_reason=v1.FINISH_REASON_STOP,
            usage=whole.usage,
            cost=whole.cost,
            attempts=whole.attempts,
        )
    )


def write_protoset(path: Path) -> Path:
    """The contract with all it imports, in the form that ghz reads."""
    files = descriptor_pb2.FileDescriptorSet()
    seen: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name in seen:
            return
        seen.add(file.name)
        for imported in file.dependencies:
            add(imported)
        file.CopyToProto(files.file.add())

    add(inference_service_pb2.DESCRIPTOR)
    path.write_bytes(files.SerializeToString())
    return path
