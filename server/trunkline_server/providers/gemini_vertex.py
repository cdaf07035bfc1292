"""Embeddings as Vertex AI has them, where they differ from the Gemini API's.

Models of the Gemini family are asked by embedContent and, for several texts, by
batchEmbedContents, as the vendor's own SDK asks them; the older text models by predict. After
cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api.
"""

from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.providers.gemini_encode import embed_options, embed_task


def vertex_embed(request: v1.EmbedRequest, *, predict: bool) -> tuple[str, bytes]:
    """The verb and the body. Raises TrunklineError with INVALID_REQUEST."""
    task = embed_task(request)
    options = embed_options(request)
    if predict:
        return "predict", _predict_body(request, task, options)
    config: dict[str, Any] = {}
    if task:
        config["taskType"] = task
    if request.HasField("dimensions"):
        config["outputDimensionality"] = request.dimensions
    config |= options
    shared: dict[str, Any] = {"embedContentConfig": config} if config else {}
    each = [{"content": {"parts": [{"text": text}]}, **shared} for text in request.inputs]
    if len(each) == 1:
        return "embedContent", orjson.dumps(each[0])
    return "batchEmbedContents", orjson.dumps({"requests": each})


def _predict_body(request: v1.EmbedRequest, task: str, options: dict[str, Any]) -> bytes:
    if "instances" in options:
        raise invalid("provider_options.instances", "cannot be replaced")
    shared = {"task_type": task} if task else {}
    body: dict[str, Any] = {"instances": [{"content": text, **shared} for text in request.inputs]}
    parameters: dict[str, Any] = {}
    if request.HasField("dimensions"):
        parameters["outputDimensionality"] = request.dimensions
    parameters |= options
    if parameters:
        body["parameters"] = parameters
    return orjson.dumps(body)
