"""The vendor's own SDK and discovery document as judges of encoded requests.

The SDK's types forbid fields they do not know; the discovery document is Vertex AI's, of whose
GenerateContentRequest the Gemini API's v1beta takes the same fields.
"""

import gzip
import json
from functools import cache
from typing import Any

from google.genai import types

from tests.support.corpus import corpus_dir

_ROOT = "GoogleCloudAiplatformV1"
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def check_with_sdk(body: dict[str, Any]) -> None:
    """Raises pydantic.ValidationError for what the SDK's types do not allow."""
    types.GenerationConfig.model_validate(body.get("generationConfig", {}))
    types.ToolConfig.model_validate(body.get("toolConfig", {}))
    for content in [*body["contents"], body.get("systemInstruction", {})]:
        types.Content.model_validate(content)
    for tool in body.get("tools", []):
        types.Tool.model_validate(tool)
    for setting in body.get("safetySettings", []):
        types.SafetySetting.model_validate(setting)


@cache
def _schemas() -> dict[str, Any]:
    with gzip.open(corpus_dir() / "specs" / "google__aiplatform.v1.json.gz") as file:
        schemas: dict[str, Any] = json.load(file)["schemas"]
    return schemas


def check_with_discovery(body: dict[str, Any], kind: str = "GenerateContentRequest") -> None:
    """Raises AssertionError for a field, type or enum value that the document does not know.

    Skips, by name, without the reference data.
    """
    _check(body, {"$ref": _ROOT + kind}, "body")


def _check(value: Any, schema: dict[str, Any], path: str) -> None:
    if "$ref" in schema:
        schema = {"type": "object", **_schemas()[schema["$ref"]]}
    kind = schema["type"]
    if kind == "any":
        return
    if kind == "array":
        assert isinstance(value, list), path
        for i, item in enumerate(value):
            _check(item, schema["items"], f"{path}[{i}]")
        return
    if kind != "object":
        assert isinstance(value, _TYPES[kind]), f"{path} is {value!r}, not a {kind}"
        assert kind == "boolean" or not isinstance(value, bool), path
        assert value in schema.get("enum", [value]), f"{path} cannot be {value!r}"
        return
    assert isinstance(value, dict), path
    if "properties" not in schema:
        return
    for key, inner in value.items():
        assert key in schema["properties"], f"{path}.{key} is not known"
        _check(inner, schema["properties"][key], f"{path}.{key}")
