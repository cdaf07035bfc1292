"""Reranking beside the OpenAI dialect: /rerank, as Jina, Together, vLLM and others have it.

The request is Cohere's of old; answers hold `results` and count the tokens, or the searches.
"""

from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.providers.codec import CodecTarget, WireRequest
from trunkline_server.providers.openai_encode import merge_options
from trunkline_server.providers.openai_errors import reported_error
from trunkline_server.providers.openai_flags import operation_path, word
from trunkline_server.providers.openai_messages import Json
from trunkline_server.providers.openai_parts import load, senseless, text_of
from trunkline_server.providers.openai_usage import counts_of

_OWN_FIELDS = frozenset({"model", "query", "documents", "return_documents"})


def encode_rerank(request: v1.RerankRequest, target: CodecTarget) -> WireRequest:
    """The call; raises as RerankCodec.encode_rerank says."""
    if request.HasField("max_tokens_per_document"):
        raise invalid("max_tokens_per_document", "this provider does not support it")
    body: Json = {
        "model": target.provider_model,
        "query": request.query,
        "documents": list(request.documents),
        # The caller has them.
        "return_documents": False,
    }
    if request.HasField("top_n"):
        body[word(target, "rerank_top_field")] = request.top_n
    if request.HasField("provider_options"):
        merge_options(request.provider_options, _OWN_FIELDS, body)
    return WireRequest(operation_path(word(target, "rerank_path"), target), orjson.dumps(body))


def decode_rerank(body: bytes, request: v1.RerankRequest, into: v1.RerankResponse) -> None:
    """Fills the answer; raises as RerankCodec.decode_rerank says."""
    document = load(body)
    error = reported_error(document)
    if error is not None:
        raise error
    # Voyage has them under the name of embeddings.
    results = document.get("results", document.get("data"))
    if not isinstance(results, list):
        raise senseless("the answer holds no order")
    found: dict[int, float] = {}
    for each in results:
        index, relevance = _place(each)
        if not 0 <= index < len(request.documents) or index in found:
            raise senseless("the answer names a document that was not sent, or one twice")
        found[index] = relevance
    for index in sorted(found, key=found.__getitem__, reverse=True):
        into.results.add(index=index, relevance=found[index])
    into.model = text_of(document.get("model"))
    _usage(document, into.usage)


def _place(result: Any) -> tuple[int, float]:
    if isinstance(result, dict):
        index, score = result.get("index"), result.get("relevance_score")
        # By type and not by isinstance: True is no place.
        if type(index) is int and (type(score) is int or type(score) is float):
            return index, float(score)
    raise senseless("the answer holds a document without its place")


def _usage(document: Json, into: v1.Usage) -> None:
    meta = document.get("meta")
    billed = counts_of(meta.get("billed_units") if isinstance(meta, dict) else None)
    counts = counts_of(document.get("usage"))
    tokens = counts.get("total_tokens") or counts.get("prompt_tokens", 0)
    if "search_units" in billed or tokens:
        into.source = v1.USAGE_SOURCE_PROVIDER
        into.search_units = billed.get("search_units", 0)
        into.input_tokens = tokens
