"""Orders of documents by InvokeModel, in the bodies of Cohere's and Amazon's models.

Shapes follow the examples for these models in the Bedrock user guide. None was recorded.
"""

from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.providers.bedrock_decode import SHAPE_ERRORS
from trunkline_server.providers.bedrock_encode import plain
from trunkline_server.providers.bedrock_errors import bad_response
from trunkline_server.providers.codec import CodecTarget

_RESERVED = frozenset({"query", "documents"})


def encode_documents(request: v1.RerankRequest, target: CodecTarget) -> dict[str, Any]:
    """The body for a model, in the form that the flag `rerank_as` names: "cohere" or "amazon".

    Raises TrunklineError(INVALID_REQUEST) naming the field for what the model cannot be told.
    """
    form = target.flags.get("rerank_as")
    if form not in {"cohere", "amazon"}:
        raise invalid("model", "is not known to rerank here; the flag rerank_as tells how")
    if request.HasField("max_tokens_per_document"):
        raise invalid("max_tokens_per_document", "this model does not offer it")
    body: dict[str, Any] = {"query": request.query, "documents": list(request.documents)}
    if request.HasField("top_n"):
        body["top_n"] = request.top_n
    if form == "cohere":
        body["api_version"] = 2
    options = request.provider_options.fields
    for name in sorted(options):
        where = f"provider_options.{name}"
        if name in _RESERVED:
            raise invalid(where, "may not be replaced")
        body[name] = plain(options[name], where)
    return body


def decode_order(body: bytes, request: v1.RerankRequest, into: v1.RerankResponse) -> None:
    """Fills the results; the body counts nothing."""
    try:
        found = orjson.loads(body)["results"]
        for each in sorted(found, key=lambda each: -each["relevance_score"]):
            index = each["index"]
            if type(index) is not int or not 0 <= index < len(request.documents):
                raise ValueError("no such document")
            into.results.add(index=index, relevance=each["relevance_score"])
    except SHAPE_ERRORS:
        into.ClearField("results")
        raise bad_response("an answer that holds no order of documents") from None
