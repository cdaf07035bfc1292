"""Embeddings requests and answers."""

from array import array
from base64 import b64encode
from dataclasses import dataclass
from sys import byteorder

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.openai_face.chat_answer import particulars
from trunkline_server.openai_face.extension import COMMON_FIELDS, read_extension
from trunkline_server.openai_face.reading import Fields, Json, unsupported

# The fields of the contract that the extension `trunkline` may set.
_EXTENSION = (*COMMON_FIELDS, "task")
_FORMATS = {"float": False, "base64": True}


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """What was asked for, and whether vectors are written in base64."""

    embed: v1.EmbedRequest
    base64: bool


def read_embeddings(body: Fields) -> EmbeddingsRequest:
    """The request. Raises INVALID_REQUEST, naming OpenAI's field."""
    body.only("model", "input", "dimensions", "encoding_format", "user", "trunkline")
    body.required("model")
    request = v1.EmbedRequest(model=body.text("model"))
    read_extension(body, request, _EXTENSION)
    given = body.required("input")
    for i, text in enumerate([given] if isinstance(given, str) else body.list("input")):
        if isinstance(text, int | list):
            raise unsupported("input", "give texts, since tokens mean nothing to other vendors")
        if not isinstance(text, str):
            raise invalid(f"input[{i}]", "must be a string")
        request.inputs.append(text)
    dimensions = body.integer("dimensions")
    if dimensions is not None:
        request.dimensions = dimensions
    if user := body.text("user"):
        request.context.user_id = user
    return EmbeddingsRequest(request, bool(body.word("encoding_format", _FORMATS)))


def embeddings(answer: v1.EmbedResponse, asked: str, *, base64: bool) -> Json:
    """The answer. `asked` is the model that the caller named."""
    tokens = answer.usage.input_tokens
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": _encoded(vector) if base64 else list(vector.values),
            }
            for index, vector in enumerate(answer.embeddings)
        ],
        "model": answer.model or asked,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "trunkline": particulars(answer),
    }


def _encoded(vector: v1.Embedding) -> str:
    """Little-endian floats of 32 bits in base64, as OpenAI's SDK decodes them."""
    values = array("f", vector.values)
    if byteorder == "big":
        values.byteswap()
    return b64encode(values.tobytes()).decode()
