"""What a request needs of a deployment, read off the request itself."""

from collections.abc import Iterable, Sequence

from trunkline import v1
from trunkline_server.engine.requests import Cacheable, Request
from trunkline_server.errors import TrunklineError, Violation, invalid, invalid_fields
from trunkline_server.providers.codec import OPTIONAL_FACULTIES
from trunkline_server.routing.query import Kind, Query
from trunkline_server.routing.snapshot import Deployment

# A token is about four characters of English text in the vocabularies in use. Only used to keep
# prompts away from windows that cannot hold them, and to settle answers whose vendor did not
# count: a vendor's own count always wins.
CHARS_PER_TOKEN = 4
# Vendors charge a picture between about 85 and 1,600 tokens, by size and detail.
TOKENS_PER_MEDIA_PART = 800

_MEDIA = {"image": "vision", "audio": "audio", "file": "file"}
_NONE: frozenset[str] = frozenset()


def tokens_in(size: int) -> int:
    """Estimated tokens in `size` characters of text."""
    return (size + CHARS_PER_TOKEN - 1) // CHARS_PER_TOKEN


def generate_query(
    request: v1.GenerateRequest, stream: bool, permitted: frozenset[str] | None
) -> Query:
    """The routing query of a generation. `permitted`: as Query.models."""
    size, needs = _walk(request.messages)
    if request.tools:
        # What a vendor's own tool demands of a model, only its dialect and the vendor know.
        if not all(tool.HasField("builtin") for tool in request.tools):
            needs.add("tools")
        size += sum(tool.ByteSize() for tool in request.tools)
    if stream:
        needs.add("streaming")
    if request.HasField("response_format") and request.response_format.HasField("json_schema"):
        needs.add("structured_output")
    room = 0
    if request.HasField("config"):
        config = request.config
        room = config.max_output_tokens
        if config.HasField("reasoning") and _wants_reasoning(config.reasoning):
            needs.add("reasoning")
    query = Query(
        request.model,
        tokens_in(size),
        room,
        "chat",
        stream,
        frozenset(needs) if needs else _NONE,
        models=permitted,
    )
    _add_wishes(query, request)
    return query


def embed_query(request: v1.EmbedRequest, permitted: frozenset[str] | None) -> Query:
    """The routing query of an embedding; its context need is that of the longest input."""
    longest = max(map(len, request.inputs))
    query = Query(request.model, tokens_in(longest), kind="embedding", models=permitted)
    _add_wishes(query, request)
    return query


def image_query(request: v1.GenerateImageRequest, permitted: frozenset[str] | None) -> Query:
    """The routing query of pictures; a model must see those that it begins from."""
    needs = frozenset({"vision"}) if request.images or request.HasField("mask") else _NONE
    query = Query(
        request.model,
        tokens_in(len(request.prompt)),
        kind="image_generation",
        capabilities=needs,
        models=permitted,
    )
    _add_wishes(query, request)
    return query


def recording_query(spec: v1.TranscribeSpec, permitted: frozenset[str] | None) -> Query:
    """The routing query of a transcript."""
    query = Query(spec.model, kind="transcription", models=permitted)
    _add_wishes(query, spec)
    return query


def speech_query(request: v1.SynthesizeRequest, permitted: frozenset[str] | None) -> Query:
    """The routing query of speech."""
    query = Query(request.model, tokens_in(len(request.text)), kind="speech", models=permitted)
    _add_wishes(query, request)
    return query


def rerank_query(request: v1.RerankRequest, permitted: frozenset[str] | None) -> Query:
    """The routing query of an order; its context need is that of the query and the longest
    document, or as much of it as is to be looked at."""
    longest = tokens_in(max(map(len, request.documents)))
    if request.HasField("max_tokens_per_document"):
        longest = min(longest, request.max_tokens_per_document)
    size = tokens_in(len(request.query)) + longest
    query = Query(request.model, size, kind="rerank", models=permitted)
    _add_wishes(query, request)
    return query


def count_query(request: v1.CountTokensRequest, permitted: frozenset[str] | None) -> Query:
    """The routing query of a count: of a conversation's. Whether it fits is not asked."""
    _, needs = _walk(request.messages)
    if request.tools:
        needs.add("tools")
    query = Query(
        request.model, kind="chat", capabilities=frozenset(needs) or _NONE, models=permitted
    )
    _add_wishes(query, request)
    return query


def estimate_tokens(request: v1.CountTokensRequest) -> int:
    """The tokens of a conversation, by the length of its text."""
    size, _ = _walk(request.messages)
    return tokens_in(size + sum(tool.ByteSize() for tool in request.tools))


def route_query(request: v1.RouteRequest, permitted: frozenset[str] | None) -> Query:
    """The routing query of a dry run: of whatever the model named can do, or else of a chat
    unless embedding is among the capabilities asked for."""
    model = request.model
    kind: Kind = ""
    if not model:
        kind = "embedding" if "embedding" in request.requirements.capabilities else "chat"
    query = Query(model, request.input_tokens, request.max_output_tokens, kind, models=permitted)
    _add_wishes(query, request)
    return query


def estimate_usage(request: Cacheable, output_chars: int) -> v1.Usage:
    """The usage of an answer that its vendor did not count, or not to the end: never more
    output than the request allows."""
    output = tokens_in(output_chars)
    if isinstance(request, v1.EmbedRequest):
        size = sum(len(text) for text in request.inputs)
    else:
        size, _ = _walk(request.messages)
        size += sum(tool.ByteSize() for tool in request.tools)
        output = min(output, request.config.max_output_tokens or output)
    return v1.Usage(
        input_tokens=tokens_in(size),
        output_tokens=output,
        source=v1.USAGE_SOURCE_ESTIMATE,
    )


def unmet_needs(
    request: Request, query: Query, members: Sequence[Deployment]
) -> TrunklineError | None:
    """The error for what a request itself contains, or is, and no deployment of its model takes,
    by field; None when something else stands in the way."""
    if isinstance(request, v1.EmbedRequest) or not members:
        return None
    if query.kind in OPTIONAL_FACULTIES and not any(
        query.kind in member.capabilities for member in members
    ):
        return invalid("model", f"no deployment of {query.model!r} can do this: {query.kind}")
    asked = set(request.requirements.capabilities)
    violations = [
        Violation(_field_of(request, need), f"no deployment of {query.model!r} takes this: {need}")
        for need in sorted(query.capabilities - asked)
        if not any(need in member.capabilities for member in members)
    ]
    return invalid_fields(violations) if violations else None


_FIELDS = {
    "tools": "tools",
    "structured_output": "response_format.json_schema",
    "reasoning": "config.reasoning",
}


def _field_of(request: Request, need: str) -> str:
    """The path of the first field that needs a capability."""
    if isinstance(request, v1.GenerateImageRequest):
        return "images" if request.images else "mask"
    if not isinstance(request, v1.GenerateRequest | v1.CountTokensRequest):
        return "requirements.capabilities"
    for place, message in enumerate(request.messages):
        for number, part in enumerate(message.parts):
            path = f"messages[{place}].parts[{number}]"
            if _MEDIA.get(part.WhichOneof("kind") or "") == need:
                return path
            for inner, nested in enumerate(part.tool_result.parts):
                if _MEDIA.get(nested.WhichOneof("kind") or "") == need:
                    return f"{path}.tool_result.parts[{inner}]"
    return _FIELDS.get(need, "requirements.capabilities")


def _wants_reasoning(reasoning: v1.ReasoningConfig) -> bool:
    if reasoning.HasField("budget_tokens"):
        return reasoning.budget_tokens > 0
    return reasoning.effort > v1.REASONING_EFFORT_NONE


def _walk(messages: Iterable[v1.Message]) -> tuple[int, set[str]]:
    """The size of the text in characters, media counted as if they were text, and what it needs."""
    size = 0
    needs: set[str] = set()
    for message in messages:
        for part in message.parts:
            text = part.text
            if text:
                size += len(text)
                continue
            kind = part.WhichOneof("kind")
            if kind in _MEDIA:
                needs.add(_MEDIA[kind])
                size += TOKENS_PER_MEDIA_PART * CHARS_PER_TOKEN
            elif kind == "tool_result":
                for inner in part.tool_result.parts:
                    inner_kind = inner.WhichOneof("kind")
                    if inner_kind in _MEDIA:
                        needs.add(_MEDIA[inner_kind])
                        size += TOKENS_PER_MEDIA_PART * CHARS_PER_TOKEN
                    else:
                        size += inner.ByteSize()
            elif kind != "text":
                size += part.ByteSize()
    return size, needs


def _add_wishes(query: Query, request: Request | v1.RouteRequest) -> None:
    """Adds what the caller demands and prefers; most say nothing of the kind."""
    if request.HasField("requirements"):
        requirements = request.requirements
        if requirements.capabilities:
            query.capabilities = query.capabilities.union(requirements.capabilities)
        query.max_cost_per_token = requirements.max_cost_per_token
        query.max_latency_ms = requirements.max_latency_ms
        query.data_residency = requirements.data_residency
        query.min_quality = requirements.min_quality
    if request.HasField("routing"):
        routing = request.routing
        query.strategy = routing.strategy
        query.allowed_providers = tuple(routing.allowed_providers)
        query.denied_providers = tuple(routing.denied_providers)
        query.no_fallback = routing.no_fallback
