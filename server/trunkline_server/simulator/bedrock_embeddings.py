"""Vectors of the Bedrock dialect, in the bodies of Titan's and of Cohere's models."""

from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.dialect import Call, Reply
from trunkline_server.simulator.embedding import DIMENSIONS, embed
from trunkline_server.simulator.vendor_error import VendorError

_MOST_TEXTS = 96
_TITAN = frozenset({"inputText", "dimensions", "normalize", "embeddingTypes"})
_COHERE = frozenset(
    {"texts", "input_type", "truncate", "embedding_types", "output_dimension", "max_tokens"}
)
_INPUT_TYPES = ("search_document", "search_query", "classification", "clustering")


def invoke(call: Call) -> Reply:
    """POST /model/{model}/invoke: only vectors are simulated."""
    body = call.body
    if not call.model.embedding:
        raise _malformed("this model makes no vectors")
    if "inputText" in body:
        return Reply(orjson.dumps(_titan(body)))
    if "texts" in body:
        return Reply(orjson.dumps(_cohere(call, body)))
    raise _malformed("required key [inputText] not found")


def _malformed(what: str) -> VendorError:
    return VendorError(
        "invalid", f"Malformed input request: #: {what}, please reformat your input and try again."
    )


def _titan(body: dict[str, Any]) -> dict[str, Any]:
    _check_names(body, _TITAN)
    text = body["inputText"]
    if not isinstance(text, str) or not text:
        raise _malformed("expected minLength: 1, actual: 0")
    vector = embed(text, _dimensions(body.get("dimensions", DIMENSIONS)))
    return {
        "embedding": vector,
        "embeddingsByType": {"float": vector},
        "inputTextTokenCount": tokens.count(text),
    }


def _cohere(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    _check_names(body, _COHERE)
    texts = body["texts"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _malformed("expected type: JSONArray of String")
    if not 0 < len(texts) <= _MOST_TEXTS:
        raise _malformed(f"expected maximum item count: {_MOST_TEXTS}, found: {len(texts)}")
    if body.get("input_type") not in _INPUT_TYPES:
        raise _malformed("required key [input_type] not found")
    dimensions = _dimensions(body.get("output_dimension", DIMENSIONS))
    vectors = [embed(text, dimensions) for text in texts]
    answer: dict[str, Any] = {"id": f"sim-{call.number}", "texts": texts}
    if body.get("embedding_types"):
        return {**answer, "response_type": "embeddings_by_type", "embeddings": {"float": vectors}}
    return {**answer, "response_type": "embeddings_floats", "embeddings": vectors}


def _check_names(body: dict[str, Any], known: frozenset[str]) -> None:
    for name in body:
        if name not in known:
            raise _malformed(f"extraneous key [{name}] is not permitted")


def _dimensions(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= DIMENSIONS:
        raise _malformed(f"{value} is not a valid enum value")
    return value
