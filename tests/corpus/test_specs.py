"""Outgoing requests against the OpenAPI documents that the vendors publish.

The requests are those of the golden cases. `oneOf` is read as `anyOf`: the documents mean it so,
for their alternatives overlap (a message without a `type` fits two of OpenAI's). Fields that a
document does not name are refused here, though JSON Schema lets them pass.
"""

import gzip
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tests.support.corpus import corpus_dir

GOLDEN = Path(__file__).parents[1] / "golden"

OWN_RESPONSES = (
    "a_custom_tool", "a_model_that_does_not_reason", "any_json", "every_knob", "host_azure",
    "host_without_encryption", "items_of_the_vendors", "json_by_schema", "minimal",
    "no_reasoning_at_all", "own_options", "reasoning_in_the_open",
    "reasoning_that_the_vendor_stores", "reasoning_that_was_changed",
    "reasoning_that_was_not_kept", "senses", "streamed", "system_messages", "tools",
    "tools_of_the_vendors", "turns", "turns_of_another_dialect",
)  # fmt: skip
OWN_CHATS = (
    "any_json", "every_knob_at_zero", "host_azure", "json_by_schema", "minimal", "own_options",
    "proof_of_another_host", "reasoning_model", "recording_of_the_model_itself", "senses",
    "streamed", "tools", "tools_any_of_them", "tools_none_of_them",
)  # fmt: skip


class Case(NamedTuple):
    """Requests of a golden folder, and the vendor's path that they are for."""

    spec: str
    path: str
    folder: str
    names: tuple[str, ...]


CASES = (
    Case("openai", "/responses", "openai_responses/requests", OWN_RESPONSES),
    Case("openai", "/chat/completions", "openai/requests", OWN_CHATS),
    Case("openai", "/embeddings", "openai/embeddings", ("azure", "base64", "numbers")),
    Case("openrouter", "/responses", "openai_responses/requests", ("host_openrouter", "minimal")),
    Case("openrouter", "/chat/completions", "openai/requests", ("host_openrouter", "minimal")),
    Case("openrouter", "/embeddings", "openai/embeddings", ("numbers",)),
    Case("mistral", "/v1/chat/completions", "openai/requests", ("host_mistral", "minimal")),
    Case("mistral", "/v1/embeddings", "openai/embeddings", ("host_mistral",)),
    # Together's document demands of a call that goes back what only a stream's has, an index.
    Case("together", "/chat/completions", "openai/requests", ("minimal", "host_together")),
    Case("together", "/embeddings", "openai/embeddings", ("host_together",)),
)


@cache
def document(vendor: str) -> Any:
    path = corpus_dir() / "specs" / f"{vendor}__openapi.yaml.gz"
    return overlapping(yaml.load(gzip.decompress(path.read_bytes()), Loader=yaml.CSafeLoader))


def overlapping(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("nullable") is True and isinstance(value.get("type"), str):
            value = {**value, "type": [value["type"], "null"]}  # As OpenAPI 3.0 had it.
        return {
            ("anyOf" if key == "oneOf" else key): overlapping(inner) for key, inner in value.items()
        }
    return [overlapping(inner) for inner in value] if isinstance(value, list) else value


@cache
def validator(vendor: str, path: str) -> Draft202012Validator:
    """The validator of a path's request body."""
    spec = document(vendor)
    content = spec["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    resource = DRAFT202012.create_resource(spec)
    registry: Registry[Any] = Registry().with_resource("urn:spec", resource)
    return Draft202012Validator(absolute(content["schema"]), registry=registry)


def absolute(value: Any) -> Any:
    """The schema with its references into the document."""
    if isinstance(value, dict):
        return {
            key: f"urn:spec{inner}" if key == "$ref" else absolute(inner)
            for key, inner in value.items()
        }
    return [absolute(inner) for inner in value] if isinstance(value, list) else value


def fields(vendor: str, schema: Any) -> Iterator[str]:
    """The names of the fields that an object's schema knows."""
    if "$ref" in schema:
        target = document(vendor)
        for step in schema["$ref"].rpartition("#/")[2].split("/"):
            target = target[step]
        yield from fields(vendor, target)
    yield from schema.get("properties", ())
    for inner in (*schema.get("allOf", ()), *schema.get("anyOf", ())):
        yield from fields(vendor, inner)


def problems(case: Case, body: Any) -> list[str]:
    checker = validator(case.spec, case.path)
    found = [f"{error.json_path}: {error.message}"[:300] for error in checker.iter_errors(body)]
    known = set(fields(case.spec, checker.schema))
    return found + [f"unknown field: {name}" for name in body if name not in known]


def bodies(case: Case) -> Iterator[tuple[str, Any]]:
    for name in case.names:
        body = json.loads((GOLDEN / case.folder / f"{name}.json").read_text())["body"]
        if case.spec == "together":
            for message in body.get("messages", ()):
                for index, call in enumerate(message.get("tool_calls", ())):
                    call["index"] = index
        yield name, body


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.spec}{case.path}")
def test_requests_are_valid_by_the_vendors_document(case: Case) -> None:
    found = {name: problems(case, body) for name, body in bodies(case)}
    assert not {name: each for name, each in found.items() if each}


def test_every_golden_request_is_listed_or_of_another_host() -> None:
    left_out = {"recording", "host_openrouter"}
    folder = GOLDEN / "openai_responses" / "requests"
    assert {path.stem for path in folder.glob("*.json")} == {*OWN_RESPONSES, *left_out}


def test_the_documents_refuse_what_is_wrong() -> None:
    case = CASES[0]
    good = {"model": "m", "input": [{"role": "user", "content": "hi"}]}
    assert problems(case, good) == []
    for wrong in (
        {**good, "stop": ["x"]},
        {**good, "input": [{"role": "user", "content": [{"type": "image"}]}]},
        {**good, "input": [{"type": "function_call", "name": "f"}]},
        {**good, "tools": [{"type": "function", "name": "f"}]},
        {**good, "text": {"format": {"type": "json_schema"}}},
    ):
        assert problems(case, wrong), wrong
