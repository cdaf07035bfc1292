"""Callers, requests and answers to test the cache with."""

from collections.abc import Callable
from dataclasses import dataclass

from trunkline import v1
from trunkline_server.cache.cache import Rules, Source
from trunkline_server.cache.key import fingerprint

ROUTE = fingerprint([("openai", "gpt-5"), ("azure", "gpt-5")])
SOURCE = Source(ROUTE)
ANY = Source(ROUTE, Rules(max_temperature=2.0))
VECTORS = Source(fingerprint([("openai", "embed")]), one_model=True)


@dataclass(frozen=True)
class Someone:
    """A caller."""

    name: str = "key"
    tenant: str = ""
    source: str = "keys"


@dataclass
class Waiter:
    """A call that waits."""

    id: str
    started: float
    deadline: float
    extend: Callable[[float], None] | None = None


ACME = Someone("app", "acme")
OTHER = Someone("app", "other")


def ask(text: str = "hi", **fields: object) -> v1.GenerateRequest:
    """A request that may be cached."""
    request = v1.GenerateRequest(
        model="gpt-5",
        messages=[v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text=text)])],
        config=v1.GenerationConfig(temperature=0.0),
    )
    request.MergeFrom(v1.GenerateRequest(**fields))  # type: ignore[arg-type]  # By name.
    return request


def answer(text: str = "hello", call_id: str = "first") -> v1.GenerateResponse:
    """A complete answer, every field of it set."""
    return v1.GenerateResponse(
        id=call_id,
        model="gpt-5-2026",
        provider="openai",
        deployment="openai-gpt-5",
        message=v1.Message(role=v1.ROLE_ASSISTANT, parts=[v1.Part(text=text)]),
        finish_reason=v1.FINISH_REASON_STOP,
        vendor_finish_reason="stop",
        usage=v1.Usage(input_tokens=7, output_tokens=3, source=v1.USAGE_SOURCE_PROVIDER),
        cost=v1.Cost(input=70, output=60, total=150),
        decision=v1.Decision(provider="openai", deployment="openai-gpt-5", model="gpt-5"),
        attempts=[
            v1.Attempt(outcome=v1.ATTEMPT_OUTCOME_FAILED, cost=v1.Cost(total=20)),
            v1.Attempt(outcome=v1.ATTEMPT_OUTCOME_SUCCEEDED, cost=v1.Cost(total=130)),
        ],
        cache_status=v1.CACHE_STATUS_MISS,
        timing=v1.Timing(total_us=900, upstream_us=800, first_token_us=0),
    )


def events(*texts: str, call_id: str = "first") -> list[v1.StreamGenerateResponse]:
    """A complete streamed answer."""
    whole = answer(call_id=call_id)
    start = v1.StreamStart(
        id=call_id,
        model="gpt-5",
        provider=whole.provider,
        deployment=whole.deployment,
        decision=whole.decision,
        cache_status=v1.CACHE_STATUS_MISS,
    )
    end = v1.StreamEnd(
        finish_reason=whole.finish_reason,
        vendor_finish_reason=whole.vendor_finish_reason,
        usage=whole.usage,
        cost=whole.cost,
        attempts=whole.attempts,
        timing=whole.timing,
        model=whole.model,
    )
    return [
        v1.StreamGenerateResponse(start=start),
        *(v1.StreamGenerateResponse(delta=v1.StreamDelta(text=text)) for text in texts),
        v1.StreamGenerateResponse(end=end),
    ]
