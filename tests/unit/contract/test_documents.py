"""The contract as documents: judged by other readers of their languages."""

import re
from collections import Counter
from typing import Any

import jsonschema
import pytest
import yaml
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from openapi_spec_validator import validate
from tools.reference import TARGET, reference

from trunkline import v1
from trunkline_server.contract.comments import comments
from trunkline_server.contract.descriptors import (
    descriptor_set,
    descriptor_set_of,
    find_message,
    http_rules,
    messages,
    methods,
    services,
)
from trunkline_server.contract.documents import document
from trunkline_server.contract.json_schema import schema_of, schema_of_all
from trunkline_server.contract.openapi import openapi, openapi_yaml

# The quicker of the two, where it is there.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What the requirements call paths by, of those whose methods exist.
REQUIRED = {
    ("POST", "/api/v1/generate"),
    ("POST", "/api/v1/embed"),
    ("POST", "/api/v1/edge/execute"),
    ("POST", "/api/v1/edge/route"),
    ("GET", "/api/v1/edge/providers/health"),
    ("GET", "/api/v1/schemas"),
    ("GET", "/api/v1/schemas/{provider}"),
    ("GET", "/api/v1/schemas/unified"),
    ("POST", "/api/v1/validate"),
    ("GET", "/api/v1/config/credentials"),
    ("POST", "/api/v1/config/credentials"),
    ("POST", "/api/v1/config/credentials/{name}/rotate"),
    ("POST", "/api/v1/governance/metrics/export"),
    ("POST", "/api/v1/governance/metrics/stream"),
    ("POST", "/api/v1/governance/authorize"),
    ("GET", "/api/v1/governance/audit/log"),
    ("POST", "/api/v1/governance/costs/track"),
}


def test_every_method_has_a_path_of_its_own() -> None:
    rules = [(rule.verb, rule.path) for method in methods() for rule in http_rules(method)]
    assert all(path.startswith("/api/v1/") for _, path in rules)
    # Whatever variables are called, they match the same.
    shapes = Counter((verb, re.sub(r"\{[^}]*\}", "{}", path)) for verb, path in rules)
    assert [shape for shape, count in shapes.items() if count > 1] == []
    assert set(rules) >= REQUIRED


def test_methods_that_change_nothing_are_gets() -> None:
    for method in methods():
        verb = http_rules(method)[0].verb
        if verb == "GET":
            assert method.name.startswith(("Get", "List", "Export")), method.full_name


def test_the_descriptor_set_builds_a_pool_of_its_own() -> None:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(descriptor_set()).file:
        # Raises where an import is missing or comes later.
        pool.Add(file)
    for service in services():
        found = pool.FindServiceByName(service.full_name)
        assert [method.name for method in found.methods] == [m.name for m in service.methods]
    assert pool.FindMessageTypeByName("google.rpc.ErrorInfo") is not None
    assert pool.FindMessageTypeByName("trunkline.v1.CallReport") is not None


def test_one_message_takes_no_more_files_than_it_needs() -> None:
    message = find_message("Usage")
    assert message is not None
    files = FileDescriptorSet.FromString(descriptor_set_of(message)).file
    assert [file.name for file in files] == [
        "trunkline/v1/error_reason.proto",
        "trunkline/v1/usage.proto",
    ]


def test_every_name_of_the_contract_has_a_comment() -> None:
    known = comments()
    for service in services():
        assert known[service.full_name]
        assert all(known[method.full_name] for method in service.methods)
    for message in messages().values():
        assert known[message.full_name]
        assert all(known[field.full_name] for field in message.fields)


def test_the_reference_is_that_of_the_contract() -> None:
    """`make generate` writes it; a name without a comment raises."""
    assert TARGET.read_text("utf-8") == reference()


def test_the_json_schema_is_one() -> None:
    whole = schema_of_all(messages().values())
    jsonschema.Draft202012Validator.check_schema(whole)
    assert whole["$defs"].keys() >= messages().keys()


def check(message: str, value: Any) -> list[str]:
    descriptor = find_message(message)
    assert descriptor is not None
    judge = jsonschema.Draft202012Validator(schema_of(descriptor))
    return [error.json_path for error in judge.iter_errors(value)]


REQUEST = v1.GenerateRequest(
    model="m",
    messages=[
        v1.Message(
            role=v1.ROLE_USER,
            parts=[v1.Part(text="q"), v1.Part(image=v1.Image(data=b"\x00\xff", media_type="a/b"))],
        )
    ],
    config=v1.GenerationConfig(temperature=0, seed=2**60, stop=["a"]),
    context=v1.CallContext(labels={"a": "b"}),
)
REQUEST.cache.ttl.seconds = 90
REQUEST.provider_options.update({"a": [1, None, {"b": True}]})


def test_the_json_schema_takes_what_protobuf_writes() -> None:
    written = json_format.MessageToDict(REQUEST, preserving_proto_field_name=True)
    assert check("GenerateRequest", written) == []


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"modle": "m"}, "$"),
        ({"model": 7}, "$.model"),
        ({"messages": {}}, "$.messages"),
        ({"messages": [{"role": "ROLE_NARRATOR"}]}, "$.messages[0].role"),
        ({"messages": [{"parts": [{"text": "a", "file": {}}]}]}, "$.messages[0].parts[0]"),
        ({"config": {"seed": "1e5"}}, "$.config.seed"),
        ({"config": {"max_output_tokens": 2**31}}, "$.config.max_output_tokens"),
        ({"cache": {"ttl": "90"}}, "$.cache.ttl"),
        ({"context": {"labels": {"a": 1}}}, "$.context.labels.a"),
    ],
)
def test_the_json_schema_refuses_what_is_wrong(value: Any, path: str) -> None:
    found = check("GenerateRequest", value)
    assert any(each.startswith(path) for each in found), found


def test_secrets_are_written_and_never_read() -> None:
    descriptor = find_message("trunkline.admin.v1.RotateCredentialRequest")
    assert descriptor is not None
    schema = schema_of(descriptor)["$defs"][descriptor.full_name]
    assert schema["properties"]["value"]["writeOnly"] is True


def test_the_openapi_document_is_one() -> None:
    made = openapi()
    validate(made)
    assert yaml.load(openapi_yaml(), Loader=LOADER) == made  # noqa: S506 - a safe one
    for method in methods():
        for rule in http_rules(method):
            assert rule.verb.lower() in made["paths"][rule.path]


def test_the_command_line_prints_each() -> None:
    assert document("descriptors") == descriptor_set()
    assert b'"$defs"' in document("json-schema")
    assert document("openapi").startswith(b"openapi: 3.1.0\n")
