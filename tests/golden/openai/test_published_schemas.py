"""Golden requests of hosts that publish an OpenAPI document, held to its schema."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.corpus import corpus_dir

FOLDER = Path(__file__).parent / "requests"
# libyaml where it is compiled in, ten times as fast.
_Loader: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)
# The schema of a chat's request by row, and what the document leaves out though the host takes
# it, with who says so.
SCHEMAS: dict[str, tuple[str, dict[str, str]]] = {
    "mistral": ("ChatCompletionRequest", {}),
    "together": (
        "ChatCompletionRequest",
        {"stream_options": "it is ignored: usage comes with the last chunk unasked"},
    ),
    "openrouter": ("ChatRequest", {}),
}


@cache
def validator(kind: str) -> Any:
    with gzip.open(corpus_dir() / "specs" / f"{kind}__openapi.yaml.gz", "rt") as text:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one
    schema = {
        "$ref": f"#/components/schemas/{SCHEMAS[kind][0]}",
        "components": _with_null(document["components"]),
    }
    return jsonschema.Draft202012Validator(schema)


def _with_null(schema: Any) -> Any:
    """The schema with OpenAPI 3.0's `nullable` as JSON Schema has it."""
    if isinstance(schema, list):
        return [_with_null(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _with_null(value) for name, value in schema.items() if name != "nullable"}
    if schema.get("nullable") is True and "type" in plain:
        plain["type"] = [plain["type"], "null"]
    return plain


def complaints(kind: str, body: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator(kind).iter_errors(body)]


@pytest.mark.parametrize("kind", SCHEMAS)
def test_requests_are_valid_by_the_published_schema(kind: str) -> None:
    paths = sorted(FOLDER.glob("*.json"))
    cases = [json.loads(path.read_text("utf-8")) for path in paths]
    bodies = [case["body"] for case in cases if case["flags"] == kind]
    assert bodies
    for body in bodies:
        for name in SCHEMAS[kind][1]:
            body.pop(name, None)
        assert not complaints(kind, body)


def test_the_published_schemas_refuse_what_is_wrong() -> None:
    good: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    for kind in SCHEMAS:
        assert not complaints(kind, good)
        assert complaints(kind, {**good, "messages": "Hi"})
    assert complaints("mistral", {**good, "seed": 1})
    assert complaints("mistral", {**good, "messages": [{**good["messages"][0], "name": "ann"}]})
