"""Vectors by InvokeModel, whose bodies are the models' own.

Shapes follow "Amazon Titan Text Embeddings", "Amazon Titan Multimodal Embeddings G1" and "Cohere
Embed" among the model parameters of the Bedrock user guide. None was recorded.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.providers.bedrock_decode import SHAPE_ERRORS
from trunkline_server.providers.bedrock_encode import plain
from trunkline_server.providers.bedrock_errors import bad_response
from trunkline_server.providers.codec import CodecTarget

Body = dict[str, Any]

# The most texts that Cohere's models take in a call.
_MOST_TEXTS = 96

_INPUT_TYPES: Mapping[v1.EmbedTask.ValueType, str] = {
    # The vendor demands a type; what is to be compared is embedded alike.
    v1.EMBED_TASK_UNSPECIFIED: "search_document",
    v1.EMBED_TASK_QUERY: "search_query",
    v1.EMBED_TASK_DOCUMENT: "search_document",
    v1.EMBED_TASK_SIMILARITY: "search_document",
    v1.EMBED_TASK_CLASSIFICATION: "classification",
    v1.EMBED_TASK_CLUSTERING: "clustering",
}

_RESERVED = frozenset({"inputText", "texts", "images", "inputs", "inputImage"})


def encode_texts(request: v1.EmbedRequest, target: CodecTarget) -> Body:
    """The body for a model, in the form that the flag `embed_as` names.

    Raises TrunklineError(INVALID_REQUEST) naming the field for what the model cannot be told.
    """
    encode = _FORMS.get(str(target.flags.get("embed_as", "")))
    if encode is None:
        raise invalid("model", "is not known to make vectors here; the flag embed_as tells how")
    body = encode(request)
    options = request.provider_options.fields
    for name in sorted(options):
        where = f"provider_options.{name}"
        if name in _RESERVED:
            raise invalid(where, "may not be replaced")
        body[name] = plain(options[name], where)
    return body


def decode_vectors(body: bytes, into: v1.EmbedResponse) -> None:
    """Fills the vectors; usage only where the body counts, as Titan's do."""
    try:
        answer = orjson.loads(body)
        for vector in _vectors(answer):
            into.embeddings.add().values.extend(vector)
        count = answer.get("inputTextTokenCount")
        if count is not None:
            into.usage.input_tokens = count
            into.usage.source = v1.USAGE_SOURCE_PROVIDER
    except SHAPE_ERRORS:
        into.ClearField("embeddings")
        into.ClearField("usage")
        raise bad_response("an answer that holds no vectors") from None


def _vectors(answer: Mapping[str, Any]) -> Sequence[Sequence[float]]:
    if "embedding" in answer:
        return [answer["embedding"]]
    vectors = answer["embeddings"]
    if isinstance(vectors, dict):
        # Answers by type: of several types asked for, the contract holds the one of floats.
        found: Sequence[Sequence[float]] = vectors["float"]
        return found
    listed: Sequence[Sequence[float]] = vectors
    return listed


def _one_text(request: v1.EmbedRequest) -> str:
    if len(request.inputs) != 1:
        raise invalid("inputs", "must hold one text: this model takes no more in a call")
    return request.inputs[0]


def _titan(request: v1.EmbedRequest) -> Body:
    body: Body = {"inputText": _one_text(request)}
    if request.HasField("dimensions"):
        body["dimensions"] = request.dimensions
    return body


def _titan_v1(request: v1.EmbedRequest) -> Body:
    _no_dimensions(request)
    return {"inputText": _one_text(request)}


def _titan_image(request: v1.EmbedRequest) -> Body:
    body: Body = {"inputText": _one_text(request)}
    if request.HasField("dimensions"):
        body["embeddingConfig"] = {"outputEmbeddingLength": request.dimensions}
    return body


def _cohere(request: v1.EmbedRequest) -> Body:
    _no_dimensions(request)
    return _cohere_texts(request)


def _cohere_v4(request: v1.EmbedRequest) -> Body:
    body = _cohere_texts(request)
    body["embedding_types"] = ["float"]
    if request.HasField("dimensions"):
        body["output_dimension"] = request.dimensions
    return body


def _cohere_texts(request: v1.EmbedRequest) -> Body:
    if len(request.inputs) > _MOST_TEXTS:
        raise invalid("inputs", f"must hold at most {_MOST_TEXTS} texts for this model")
    return {"texts": list(request.inputs), "input_type": _INPUT_TYPES[request.task]}


def _no_dimensions(request: v1.EmbedRequest) -> None:
    if request.HasField("dimensions"):
        raise invalid("dimensions", "this model's vectors have one length")


_FORMS: Mapping[str, Callable[[v1.EmbedRequest], Body]] = {
    "titan": _titan,
    "titan_v1": _titan_v1,
    "titan_image": _titan_image,
    "cohere": _cohere,
    "cohere_v4": _cohere_v4,
}
