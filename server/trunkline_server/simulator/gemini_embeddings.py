"""Embeddings of the Gemini dialect."""

from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.dialect import Call, Reply
from trunkline_server.simulator.embedding import DIMENSIONS, embed
from trunkline_server.simulator.gemini_contents import fields, texts_of, wrong
from trunkline_server.simulator.vendor_error import VendorError


def _embed_one(call: Call, request: Any, path: str) -> tuple[list[float], int]:
    if not call.model.embedding:
        raise VendorError(
            "model", f"models/{call.name} is not found for API version v1beta, or is not "
            "supported for embedContent.",
        )  # fmt: skip
    named = fields(request, path)
    named = {**fields(named.get("embedContentConfig") or {}, path), **named}
    dimensions = named.get("outputDimensionality", DIMENSIONS)
    if not isinstance(dimensions, int) or not 1 <= dimensions <= DIMENSIONS:
        raise wrong(
            f"{path}output_dimensionality",
            f"* EmbedContentRequest.output_dimensionality: must be from 1 to {DIMENSIONS}.",
        )
    text = "".join(texts_of(named.get("content"), f"{path}content"))
    if not text:
        raise wrong(f"{path}content", "* EmbedContentRequest.content: content is empty")
    return embed(text, dimensions), tokens.count(text)


def embed_content(call: Call) -> Reply:
    values, read = _embed_one(call, call.body, "")
    usage = {"promptTokenCount": read, "totalTokenCount": read}
    return Reply(orjson.dumps({"embedding": {"values": values}, "usageMetadata": usage}))


def batch_embed_contents(call: Call) -> Reply:
    requests = call.body.get("requests")
    if not isinstance(requests, list) or not requests:
        raise wrong("requests", "* BatchEmbedContentsRequest.requests: requests is empty")
    found = []
    read = 0
    for i, request in enumerate(requests):
        values, count = _embed_one(call, request, f"requests[{i}].")
        found.append({"values": values})
        read += count
    usage = {"promptTokenCount": read, "totalTokenCount": read}
    return Reply(orjson.dumps({"embeddings": found, "usageMetadata": usage}))
