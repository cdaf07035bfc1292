"""An OpenAPI 3.1 document of the HTTP/JSON face, from the contract's annotations and comments."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.rpc import status_pb2

from trunkline_server.contract.comments import comment
from trunkline_server.contract.descriptors import HttpRule, http_rules, services
from trunkline_server.contract.json_schema import WELL_KNOWN, definitions, field_schema

Json = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
_STATUS: Descriptor = status_pb2.Status.DESCRIPTOR  # type: ignore[assignment] # As upb has it.
_ABOUT = (
    "The HTTP/JSON face of Trunkline, a router for language-model traffic. Bodies are the JSON "
    "form of the gRPC contract's messages, by the contract's own names. A failure is a "
    "google.rpc.Status whose details hold a google.rpc.ErrorInfo with the reason. Streams are "
    "lines of JSON, or server-sent events where the accept header asks for them; one that ends "
    "without its last event has failed."
)


@cache
def openapi_yaml() -> str:
    """The document as YAML."""
    # Written by the C library where it is there: the other takes seconds.
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(openapi(), Dumper=dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def openapi() -> Json:
    """The document."""
    paths: dict[str, Json] = {}
    used: list[Descriptor] = [_STATUS]
    for service in services():
        for method in service.methods:
            used += (method.input_type, method.output_type)
            for number, rule in enumerate(http_rules(method), 1):
                operation = _operation(method, rule, number)
                paths.setdefault(rule.path, {})[rule.verb.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Trunkline",
            "version": "v1",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {}],
        "tags": [
            {"name": service.name, "description": comment(service.full_name)}
            for service in services()
        ],
        "paths": paths,
        "components": {
            "schemas": definitions(used, _SCHEMAS),
            "responses": {
                "Failure": {
                    "description": "The call failed.",
                    "content": {"application/json": {"schema": _ref(_STATUS)}},
                }
            },
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of the router, or a token of an issuer that it trusts.",
                }
            },
        },
    }


def _operation(method: MethodDescriptor, rule: HttpRule, number: int) -> Json:
    text = comment(method.full_name)
    name = f"{method.containing_service.name}_{method.name}"
    operation: Json = {
        "operationId": name if number == 1 else f"{name}_{number}",
        "tags": [method.containing_service.name],
        "summary": text.partition(". ")[0].rstrip("."),
        "description": text,
    }
    parameters = list(_parameters(method.input_type, rule))
    if parameters:
        operation["parameters"] = parameters
    if rule.body:
        operation["requestBody"] = _body(method, rule)
    operation["responses"] = {
        "200": _answer(method),
        "default": {"$ref": "#/components/responses/Failure"},
    }
    return operation


def _parameters(request: Descriptor, rule: HttpRule) -> Iterator[Json]:
    in_path = re.findall(r"\{([^}=]+)[^}]*\}", rule.path)
    for path in in_path:
        schema = field_schema(_field(request, path), _SCHEMAS)
        text = schema.pop("description", "")
        yield {"name": path, "in": "path", "required": True, "description": text, "schema": schema}
    if rule.body == "*":
        return
    taken = {path.partition(".")[0] for path in in_path} | {rule.body}
    for field in request.fields:
        if field.name in taken:
            continue
        kind = field.message_type
        if kind is not None and kind.full_name not in WELL_KNOWN:
            raise ValueError(f"{field.full_name}: a message is no query parameter")
        schema = field_schema(field, _SCHEMAS)
        text = schema.pop("description", "")
        yield {"name": field.name, "in": "query", "description": text, "schema": schema}


def _field(message: Descriptor, path: str) -> FieldDescriptor:
    first, _, rest = path.partition(".")
    field = message.fields_by_name[first]
    if not rest:
        return field
    if field.message_type is None:
        raise ValueError(f"{message.full_name}: {path} leads nowhere")
    return _field(field.message_type, rest)


def _body(method: MethodDescriptor, rule: HttpRule) -> Json:
    if rule.body == "*":
        schema = _ref(method.input_type)
    else:
        schema = field_schema(_field(method.input_type, rule.body), _SCHEMAS)
    if method.client_streaming:
        schema = {"type": "array", "items": schema}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _answer(method: MethodDescriptor) -> Json:
    schema = _ref(method.output_type)
    text = comment(method.output_type.full_name)
    if not method.server_streaming:
        return {"description": text, "content": {"application/json": {"schema": schema}}}
    return {
        "description": f"{text} One in each line, or in each event.",
        "content": {
            "application/json": {"schema": schema},
            "text/event-stream": {"schema": schema},
        },
    }


def _ref(message: Descriptor) -> Json:
    return {"$ref": _SCHEMAS + message.full_name}
