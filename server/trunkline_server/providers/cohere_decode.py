"""Reads whole answers in the Cohere dialect: chats, embeddings and orders."""

from collections.abc import Mapping
from typing import Any

from trunkline import v1
from trunkline_server.providers.cohere_json import (
    DIALECT,
    PLAN,
    THINKING,
    Json,
    count_at,
    finish,
    load,
    object_at,
    objects_at,
    read_usage,
    senseless,
    text_at,
)
from trunkline_server.providers.cohere_sources import read_citation
from trunkline_server.providers.references import References

# What JSON's numbers become; a bool is none, though Python's int is its base.
_NUMBERS = frozenset({float, int})


def decode_chat(body: bytes, into: v1.GenerateResponse) -> None:
    """Fills the answer of /v2/chat; raises as Codec.decode_generate says."""
    document = load(body)
    message = document.get("message")
    if not isinstance(message, dict):
        raise senseless("the answer holds no message")
    word = text_at(document, "finish_reason")
    into.finish_reason = finish(word)
    into.vendor_finish_reason = word
    into.message.role = v1.ROLE_ASSISTANT
    places = _add_parts(message, into.message)
    references = References()
    for citation in objects_at(message, "citations"):
        read_citation(citation, places, references)
    references.fill(into.message)
    read_usage(object_at(document, "usage"), into.usage)
    if not into.usage.source:
        into.ClearField("usage")


def _add_parts(message: Json, into: v1.Message) -> Mapping[int | str, int]:
    """Adds what was thought and said, the plan and the calls; gives the parts' indexes as
    cohere_sources.read_citation wants them."""
    places: dict[int | str, int] = {}
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    for index, piece in enumerate(content if isinstance(content, list) else ()):
        if not isinstance(piece, dict):
            continue
        kind = "thinking" if piece.get("type") == "thinking" else "text"
        text = text_at(piece, kind)
        if not text:
            continue
        places[index] = len(into.parts)
        places.setdefault(kind, len(into.parts))
        if kind == "thinking":
            into.parts.append(reasoning_part(text, THINKING))
        else:
            into.parts.add().text = text
    plan = text_at(message, "tool_plan")
    if plan:
        places["plan"] = len(into.parts)
        into.parts.append(reasoning_part(plan, PLAN))
    for call in objects_at(message, "tool_calls"):
        into.parts.add().tool_call.CopyFrom(tool_call(call))
    return places


def reasoning_part(text: str, kind: str) -> v1.Part:
    """A reasoning part that says in its signature what it was."""
    signature = v1.Signature(dialect=DIALECT, value=kind)
    return v1.Part(reasoning=v1.Reasoning(text=text), signature=signature)


def tool_call(call: Json) -> v1.ToolCall:
    """A call. Where a tool has no arguments the vendor may write "null"; that is none."""
    function = object_at(call, "function")
    name = text_at(function, "name")
    if not name:
        raise senseless("a tool call has no name")
    call_id = text_at(call, "id")
    if not call_id:
        raise senseless("a tool call has no id")
    arguments = text_at(function, "arguments")
    return v1.ToolCall(
        id=call_id, name=name, arguments_json="" if arguments == "null" else arguments
    )


def decode_embeddings(body: bytes, into: v1.EmbedResponse) -> None:
    """Fills the answer of /v2/embed; raises as Codec.decode_embed says."""
    document = load(body)
    vectors = object_at(document, "embeddings").get("float")
    if not isinstance(vectors, list) or not vectors:
        raise senseless("the answer holds no embeddings")
    for vector in vectors:
        into.embeddings.add().values.extend(_coordinates(vector))
    _billed(document, into.usage)


def _coordinates(vector: Any) -> list[float]:
    if not isinstance(vector, list) or not vector:
        raise senseless("an embedding holds no numbers")
    if not _NUMBERS.issuperset(map(type, vector)):
        raise senseless("an embedding holds something that is no number")
    return vector


def decode_order(body: bytes, request: v1.RerankRequest, into: v1.RerankResponse) -> None:
    """Fills the answer of /v2/rerank; raises BAD_PROVIDER_RESPONSE for what makes no sense, an
    index without a document included."""
    document = load(body)
    results = document.get("results")
    if not isinstance(results, list):
        raise senseless("the answer holds no results")
    seen: set[int] = set()
    for result in results:
        index = result.get("index") if isinstance(result, dict) else None
        score = result.get("relevance_score") if isinstance(result, dict) else None
        if type(index) is not int or not 0 <= index < len(request.documents) or index in seen:
            raise senseless("a result is of no document of the request")
        if type(score) not in _NUMBERS:
            raise senseless("a result has no score")
        seen.add(index)
        into.results.add(index=index, relevance=score)
    into.results.sort(key=lambda result: -result.relevance)
    _billed(document, into.usage)


def _billed(document: Json, into: v1.Usage) -> None:
    billed = object_at(object_at(document, "meta"), "billed_units")
    tokens, units = count_at(billed, "input_tokens"), count_at(billed, "search_units")
    # Pictures are counted apart, and no text is one.
    if tokens or units:
        into.source = v1.USAGE_SOURCE_PROVIDER
        into.input_tokens = tokens
        into.search_units = units
