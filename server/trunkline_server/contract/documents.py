"""The contract in the languages that the command line prints."""

import json

from trunkline_server.contract.descriptors import descriptor_set, messages
from trunkline_server.contract.json_schema import schema_of_all
from trunkline_server.contract.openapi import openapi_yaml


def document(language: str) -> bytes:
    """The whole contract: `descriptors`, `json-schema` or `openapi`."""
    match language:
        case "descriptors":
            return descriptor_set()
        case "json-schema":
            schema = schema_of_all(messages().values())
            return json.dumps(schema, indent=2, ensure_ascii=False).encode() + b"\n"
        case "openapi":
            return openapi_yaml().encode()
        case _:
            raise ValueError(f"{language!r} is no language of the contract")
