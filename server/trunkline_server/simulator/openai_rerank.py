"""Reranking as servers of the OpenAI dialect have it that have it at all."""

from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.dialect import Call, Reply
from trunkline_server.simulator.openai_messages import missing, wrong
from trunkline_server.simulator.vendor_error import VendorError

_KNOWN = frozenset({"model", "query", "documents", "top_n", "return_documents"})


def rerank(call: Call) -> Reply:
    """POST /rerank: the share of the query's words that a document has is its relevance."""
    body = call.body
    if not call.model.rerank:
        raise VendorError("permission", "You are not allowed to rerank with this model")
    for name in body:
        if name not in _KNOWN:
            raise wrong(name, f"Unknown parameter: '{name}'.", "unknown_parameter")
    query, documents = body.get("query"), body.get("documents")
    if not isinstance(query, str) or not query:
        raise missing("query")
    if not isinstance(documents, list) or not all(isinstance(one, str) for one in documents):
        raise missing("documents")
    top = body.get("top_n", len(documents))
    if not isinstance(top, int) or top < 1:
        raise wrong("top_n", "Invalid 'top_n': must be at least 1.")
    words = set(query.lower().split())
    results: list[dict[str, Any]] = [
        {
            "index": place,
            "relevance_score": len(words & set(document.lower().split())) / len(words),
        }
        for place, document in enumerate(documents)
    ]
    results.sort(key=lambda each: -each["relevance_score"])
    read = sum(map(tokens.count, documents)) + len(documents) * tokens.count(query)
    reply = {
        "id": f"rerank-sim{call.number:012d}",
        "model": call.honest_name,
        "results": results[:top],
        "usage": {"total_tokens": read},
    }
    return Reply(orjson.dumps(reply))
