"""Embeddings of the OpenAI dialect."""

import base64
import struct
from collections.abc import Mapping
from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.dialect import Call, Reply
from trunkline_server.simulator.embedding import DIMENSIONS, embed
from trunkline_server.simulator.known_fields import OPENAI_EMBEDDINGS
from trunkline_server.simulator.openai_messages import missing, wrong, wrong_type
from trunkline_server.simulator.vendor_error import VendorError

_MOST_INPUTS = 2048


def embeddings(call: Call) -> Reply:
    """POST /embeddings."""
    body = call.body
    if not call.model.embedding:
        raise VendorError(
            "permission", "You are not allowed to generate embeddings from this model", param=None
        )
    for name in body:
        if name not in OPENAI_EMBEDDINGS:
            raise wrong(
                name, f"Unrecognized request argument supplied: {name}", "unknown_parameter"
            )
    dimensions = body.get("dimensions", DIMENSIONS)
    if not isinstance(dimensions, int) or isinstance(dimensions, bool):
        raise wrong_type("dimensions", "an integer")
    if dimensions < 1:
        raise wrong("dimensions", f"{dimensions} is less than the minimum of 1 - 'dimensions'")
    if dimensions > DIMENSIONS:
        raise wrong("dimensions", f"Invalid value for 'dimensions': must be <= {DIMENSIONS}.")
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise wrong("encoding_format", f"Invalid encoding_format: {encoding!r}.")
    inputs = _inputs(body)
    data = [
        {"object": "embedding", "index": i, "embedding": _encode(embed(text, dimensions), encoding)}
        for i, (text, _) in enumerate(inputs)
    ]
    read = sum(count for _, count in inputs)
    usage = {"prompt_tokens": read, "total_tokens": read}
    reply = {"object": "list", "data": data, "model": call.honest_name, "usage": usage}
    return Reply(orjson.dumps(reply))


def _inputs(body: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The texts, or token arrays as texts of numbers, each with its count of tokens."""
    value = body.get("input")
    if value is None:
        raise missing("input")
    single = isinstance(value, str) or (isinstance(value, list) and _is_token_array(value))
    items = [value] if single else value
    if not isinstance(items, list) or not items:
        raise wrong("input", "'$.input' is invalid. Please check the API reference.", "invalid")
    if len(items) > _MOST_INPUTS:
        raise wrong("input", f"'$.input' is too long: at most {_MOST_INPUTS}.", "too_long")
    read = []
    for item in items:
        if isinstance(item, str) and item:
            read.append((item, tokens.count(item)))
        elif isinstance(item, list) and _is_token_array(item):
            read.append((" ".join(map(str, item)), len(item)))
        else:
            raise wrong("input", "'$.input' is invalid. Please check the API reference.", "invalid")
    return read


def _is_token_array(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(n, int) and not isinstance(n, bool) for n in value)


def _encode(vector: list[float], encoding: str) -> list[float] | str:
    if encoding == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
