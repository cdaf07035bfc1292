"""Requests for vectors, and for an order of documents."""

from trunkline import v1
from trunkline_server.errors import invalid_fields
from trunkline_server.rpc.validation.common import (
    Found,
    add,
    check_cache,
    check_request_id,
    check_routing_fields,
)

_MAX_INPUTS = 2048
_MAX_DOCUMENTS = 1000
_EMBED_TASKS = frozenset(v1.EmbedTask.values())


def validate_embed(request: v1.EmbedRequest) -> None:
    """Raises as validate_generate does."""
    found: Found = []
    inputs = request.inputs
    if not 1 <= len(inputs) <= _MAX_INPUTS:
        add(found, "inputs", f"must hold 1 to {_MAX_INPUTS} texts, not {len(inputs)}")
    for i, text in enumerate(inputs):
        if not text:
            add(found, f"inputs[{i}]", "must not be empty")
    if request.HasField("dimensions") and request.dimensions < 1:
        add(found, "dimensions", "must be at least 1")
    if request.task not in _EMBED_TASKS:
        add(found, "task", "is not a known task")
    if request.HasField("cache"):
        check_cache(found, request.cache)
    check_request_id(found, request.request_id)
    check_routing_fields(found, request)
    if found:
        raise invalid_fields(found)


def validate_rerank(request: v1.RerankRequest) -> None:
    """Raises as validate_generate does."""
    found: Found = []
    if not request.query:
        add(found, "query", "must not be empty")
    documents = request.documents
    if not 1 <= len(documents) <= _MAX_DOCUMENTS:
        add(found, "documents", f"must hold 1 to {_MAX_DOCUMENTS} texts, not {len(documents)}")
    for i, text in enumerate(documents):
        if not text:
            add(found, f"documents[{i}]", "must not be empty")
    if request.HasField("top_n") and request.top_n < 1:
        add(found, "top_n", "must be at least 1")
    if request.HasField("max_tokens_per_document") and request.max_tokens_per_document < 1:
        add(found, "max_tokens_per_document", "must be at least 1")
    check_request_id(found, request.request_id)
    check_routing_fields(found, request)
    if found:
        raise invalid_fields(found)
