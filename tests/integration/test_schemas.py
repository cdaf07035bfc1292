"""trunkline.v1.SchemaService over gRPC."""

from collections.abc import AsyncGenerator
from typing import Any

import grpc
import jsonschema
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tests.support.router import PATIENCE, Router, ask, reason, router
from trunkline import v1
from trunkline.v1.schema_service_pb2_grpc import SchemaServiceStub

CONFIG = """
providers:
  openai: {base_url: "http://127.0.0.1:9/v1", api_key: "env:TEST_KEY"}
  anthropic: {base_url: "http://127.0.0.1:9", api_key: "env:TEST_KEY"}
  odd:
    dialect: openai
    base_url: "http://127.0.0.1:9/v1"
    flags: {max_tokens_field: max_tokens, seed_field: "", user_field: user, top_k: true}
"""
KEYS = 'keys: [{name: caller, hash: "sha256:' + "0" * 64 + '"}]'


@pytest.fixture
async def trunkline() -> AsyncGenerator[Router]:
    """A router of three providers, which are never called."""
    async with router(CONFIG) as trunkline:
        yield trunkline


def stub(trunkline: Router) -> Any:
    return SchemaServiceStub(trunkline.channel)


async def mapping(trunkline: Router, provider: str) -> dict[str, v1.FieldMapping]:
    asked = v1.GetProviderSchemaRequest(provider=provider)
    answer = await stub(trunkline).GetProviderSchema(asked, timeout=PATIENCE)
    return {row.field: row for row in answer.schema.fields if row.message == "GenerateRequest"}


async def test_all_schemas(trunkline: Router) -> None:
    brief = await stub(trunkline).ListSchemas(v1.ListSchemasRequest(), timeout=PATIENCE)
    names = [row.name for row in brief.messages]
    assert names == sorted(names)
    generate = brief.messages[names.index("trunkline.v1.GenerateRequest")]
    assert generate.methods == [
        "trunkline.v1.InferenceService.Generate",
        "trunkline.v1.InferenceService.StreamGenerate",
    ]
    assert generate.description.startswith("GenerateRequest asks")
    assert [row.provider for row in brief.providers] == ["anthropic", "odd", "openai"]
    assert not any(row.fields for row in brief.providers)
    asked = v1.ListSchemasRequest(include_documents=True)
    whole = await stub(trunkline).ListSchemas(asked, timeout=PATIENCE)
    for row in whole.messages:
        schema = json_format.MessageToDict(row.json_schema)
        jsonschema.Draft202012Validator.check_schema(schema)
        assert row.name in schema["$defs"]
    assert all(row.fields for row in whole.providers)


async def test_the_contract_in_each_language(trunkline: Router) -> None:
    async def told(
        format_: v1.SchemaFormat.ValueType, message: str = ""
    ) -> v1.GetUnifiedSchemaResponse:
        asked = v1.GetUnifiedSchemaRequest(format=format_, message=message)
        answer: v1.GetUnifiedSchemaResponse = await stub(trunkline).GetUnifiedSchema(
            asked, timeout=PATIENCE
        )
        return answer

    schema = json_format.MessageToDict((await told(v1.SCHEMA_FORMAT_UNSPECIFIED)).json_schema)
    assert "trunkline.admin.v1.Budget" in schema["$defs"]
    files = FileDescriptorSet.FromString(
        (await told(v1.SCHEMA_FORMAT_FILE_DESCRIPTOR_SET)).file_descriptor_set
    )
    assert "trunkline/v1/schema_service.proto" in [file.name for file in files.file]
    assert (await told(v1.SCHEMA_FORMAT_OPENAPI)).openapi_yaml.startswith("openapi: 3.1.0")
    one = json_format.MessageToDict(
        (await told(v1.SCHEMA_FORMAT_JSON_SCHEMA, "trunkline.v1.Cost")).json_schema
    )
    assert list(one["$defs"]) == ["trunkline.v1.Cost"]
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await told(v1.SCHEMA_FORMAT_JSON_SCHEMA, "NoSuch")
    assert reason(error.value) == v1.ERROR_REASON_NOT_FOUND


async def test_mappings_follow_dialect_and_flags(trunkline: Router) -> None:
    openai, odd = await mapping(trunkline, "openai"), await mapping(trunkline, "odd")
    anthropic = await mapping(trunkline, "anthropic")
    tokens = "config.max_output_tokens"
    assert list(openai[tokens].vendor_fields) == ["max_completion_tokens"]
    assert list(odd[tokens].vendor_fields) == ["max_tokens"]
    assert list(anthropic[tokens].vendor_fields) == ["max_tokens"]
    assert openai["config.top_k"].support == v1.FIELD_SUPPORT_REFUSED
    assert "does not support it" in openai["config.top_k"].detail
    assert odd["config.top_k"].support == v1.FIELD_SUPPORT_CARRIED
    assert odd["config.seed"].support == v1.FIELD_SUPPORT_REFUSED
    assert openai["context.user_id"].support == v1.FIELD_SUPPORT_IGNORED
    assert list(odd["context.user_id"].vendor_fields) == ["user"]
    assert openai["routing"].support == v1.FIELD_SUPPORT_ROUTER
    asked = v1.GetProviderSchemaRequest(provider="odd")
    answer = await stub(trunkline).GetProviderSchema(asked, timeout=PATIENCE)
    assert answer.schema.dialect == "openai"
    assert answer.schema.provider_model == ""
    assert answer.schema.flags["max_tokens_field"] == "max_tokens"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await mapping(trunkline, "nobody")
    assert reason(error.value) == v1.ERROR_REASON_NOT_FOUND


async def findings(trunkline: Router, **fields: Any) -> list[tuple[str, str]]:
    answer = await stub(trunkline).Validate(v1.ValidateRequest(**fields), timeout=PATIENCE)
    errors = [row for row in answer.findings if row.severity == v1.FINDING_SEVERITY_ERROR]
    assert answer.valid is not bool(errors)
    return [
        (row.field, v1.FindingSeverity.Name(row.severity).rpartition("_")[2])
        for row in answer.findings
    ]


async def test_payloads_are_judged_by_form_and_by_bounds(trunkline: Router) -> None:
    sound = json_format.MessageToJson(ask())
    assert await findings(trunkline, json_text=sound) == []
    assert await findings(trunkline, binary=ask().SerializeToString()) == []
    wrong = '{"model": 7, "messages": [{"role": "ROLE_USER", "parts": [{"txt": "a"}]}]}'
    assert await findings(trunkline, json_text=wrong) == [
        ("model", "ERROR"),
        ("messages[0].parts[0].txt", "ERROR"),
    ]
    request = ask()
    request.config.temperature = 7
    request.config.max_output_tokens = 0
    bounds = [("config.max_output_tokens", "ERROR"), ("config.temperature", "ERROR")]
    assert sorted(await findings(trunkline, binary=request.SerializeToString())) == bounds
    assert await findings(trunkline, binary=b"\xff") == [("", "ERROR")]
    assert await findings(trunkline, json_text="{") == [("", "ERROR")]
    # Any message of the contract may be asked for.
    price = '{"name": "acme", "suspendd": true}'
    assert await findings(trunkline, json_text=price, message="trunkline.admin.v1.Tenant") == [
        ("suspendd", "ERROR")
    ]


async def test_payloads_are_judged_by_provider(trunkline: Router) -> None:
    request = ask()
    request.config.top_k = 5
    request.context.user_id = "u"
    raw = request.SerializeToString()
    assert await findings(trunkline, binary=raw) == []
    # The dialect's refusal names its field; nothing else is looked for beside it.
    told = await findings(trunkline, binary=raw, provider="openai")
    assert told == [("config.top_k", "ERROR"), ("context.user_id", "WARNING")]
    assert await findings(trunkline, binary=raw, provider="odd") == []


async def test_wrong_questions_fail(trunkline: Router) -> None:
    for wrong in (
        v1.ValidateRequest(),
        v1.ValidateRequest(binary=b"", message="RouteRequest", provider="openai"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub(trunkline).Validate(wrong, timeout=PATIENCE)
        assert reason(error.value) == v1.ERROR_REASON_INVALID_REQUEST


async def test_it_is_for_callers() -> None:
    async with router(CONFIG + KEYS) as trunkline:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub(trunkline).ListSchemas(v1.ListSchemasRequest(), timeout=PATIENCE)
        assert reason(error.value) == v1.ERROR_REASON_AUTHENTICATION
