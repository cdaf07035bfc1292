"""Vertex AI: Google's own models in Gemini's dialect, and Anthropic's in theirs.

Follows https://cloud.google.com/vertex-ai/docs/reference/rest and
https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai. What distinguishes them
from the vendors' own hosts: paths below a project and a location, OAuth's tokens, predict for
embeddings, and Anthropic's model in the path with the version in the body.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from aiohttp import web

from trunkline_server.simulator import tokens
from trunkline_server.simulator.anthropic import Anthropic, create
from trunkline_server.simulator.dialect import Call, Endpoint, ErrorReply, Reply
from trunkline_server.simulator.embedding import DIMENSIONS, embed
from trunkline_server.simulator.gemini import Gemini, run
from trunkline_server.simulator.gemini_contents import wrong
from trunkline_server.simulator.vendor_error import VendorError

_PREFIX = "/{version:v1|v1beta1}/projects/{project}/locations/{location}/publishers"
# The one that the documentation has, and the one that the newer SDKs send.
_ANTHROPIC_VERSIONS = frozenset({"vertex-2023-10-16", "2026-10-21"})
_INSTANCE = frozenset({"content", "task_type", "title"})


def _token(request: web.BaseRequest) -> str:
    """The access token. Raises VendorError when it is missing or invalid."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or token in {"", "invalid"}:
        raise VendorError("authentication", code="ACCESS_TOKEN_TYPE_UNSUPPORTED")
    return token


class VertexGemini(Gemini):
    """Google's models."""

    name = "vertex"
    listings = ()

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        return (Endpoint(f"/vertex{_PREFIX}/google/models/{{target:.+}}", _run),)

    def key(self, request: web.BaseRequest) -> str:
        return _token(request)

    def target(self, request: web.Request, body: Mapping[str, Any]) -> tuple[str, str]:
        model, _, operation = request.match_info["target"].rpartition(":")
        if operation == "predict" and model:
            return model, operation
        return super().target(request, body)


def _run(call: Call) -> Reply:
    return _predict(call) if call.operation == "predict" else run(call)


def _predict(call: Call) -> Reply:
    if not call.model.embedding:
        raise VendorError("invalid", f"{call.name} does not support predict.")
    instances = call.body.get("instances")
    if not isinstance(instances, list) or not instances:
        raise wrong("instances", "* PredictRequest.instances: instances is empty")
    parameters = call.body.get("parameters") or {}
    dimensions = parameters.get("outputDimensionality", DIMENSIONS)
    predictions = []
    for i, instance in enumerate(instances):
        if not isinstance(instance, dict) or not instance.get("content"):
            raise wrong(f"instances[{i}].content", "* content is empty")
        if unknown := instance.keys() - _INSTANCE:
            raise wrong(f"instances[{i}]", f"Unknown name {min(unknown)!r}: Cannot find field.")
        text = instance["content"]
        statistics = {"token_count": tokens.count(text), "truncated": False}
        embedding = {"values": embed(text, dimensions), "statistics": statistics}
        predictions.append({"embeddings": embedding})
    metadata = {"billableCharacterCount": sum(len(each["content"]) for each in instances)}
    return Reply(orjson.dumps({"predictions": predictions, "metadata": metadata}))


class VertexAnthropic(Anthropic):
    """Anthropic's models."""

    name = "vertex-anthropic"
    listings = ()

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        return (Endpoint(f"/vertex{_PREFIX}/anthropic/models/{{target:.+}}", _raw_predict),)

    def key(self, request: web.BaseRequest) -> str:
        return _token(request)

    def target(self, request: web.Request, body: Mapping[str, Any]) -> tuple[str, str]:
        model, _, operation = request.match_info["target"].rpartition(":")
        if not model or operation not in {"rawPredict", "streamRawPredict"}:
            raise VendorError("not_found")
        if "model" in body:
            raise VendorError("invalid", "model: Extra inputs are not permitted", param="model")
        if body.get("anthropic_version") not in _ANTHROPIC_VERSIONS:
            raise VendorError("invalid", "anthropic_version: Field required")
        return model, operation

    def error(self, refusal: VendorError, request: web.BaseRequest) -> ErrorReply:
        if refusal.kind in {"authentication", "permission", "not_found", "model"}:
            # Google answers these, before Anthropic's models are asked.
            return Gemini().error(refusal, request)
        return super().error(refusal, request)


def _raw_predict(call: Call) -> Reply:
    body = {name: value for name, value in call.body.items() if name != "anthropic_version"}
    call.body = {"model": call.name, **body}
    call.headers = {**call.headers, "anthropic-version": "2023-06-01"}
    return create(call)
