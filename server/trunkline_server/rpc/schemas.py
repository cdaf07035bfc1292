"""trunkline.v1.SchemaService: the contract, what providers carry of it, and wrong payloads."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct

from trunkline import v1
from trunkline_server.contract.comments import comment
from trunkline_server.contract.descriptors import (
    descriptor_set,
    descriptor_set_of,
    find_message,
    messages,
    methods,
)
from trunkline_server.contract.json_schema import schema_of, schema_of_all
from trunkline_server.contract.openapi import openapi_yaml
from trunkline_server.contract.payload import findings, parse_json
from trunkline_server.engine.engine import Engine
from trunkline_server.engine.mappings import provider_schema, provider_schemas, refusals
from trunkline_server.engine.table import Table
from trunkline_server.errors import TrunklineError, Violation, invalid
from trunkline_server.rpc.faults import abort
from trunkline_server.rpc.inference import InferenceServicer
from trunkline_server.rpc.service import FrontDoor
from trunkline_server.rpc.ticket import Context
from trunkline_server.rpc.validation import (
    validate_batch_route,
    validate_count_tokens,
    validate_embed,
    validate_generate,
    validate_generate_image,
    validate_list_models,
    validate_rerank,
    validate_route,
    validate_synthesize,
    validate_transcribe,
)

SERVICE = "trunkline.v1.SchemaService"

_MAX_FINDINGS = 100

RequestT = TypeVar("RequestT", bound=Message)
_Method = Callable[[Any], Awaitable[Message]]

# What judges a message beyond its form; others are judged where they are used.
_BOUNDS: Mapping[str, Callable[[Any], None]] = {
    "trunkline.v1.GenerateRequest": validate_generate,
    "trunkline.v1.EmbedRequest": validate_embed,
    "trunkline.v1.RouteRequest": validate_route,
    "trunkline.v1.BatchRouteRequest": validate_batch_route,
    "trunkline.v1.GenerateImageRequest": validate_generate_image,
    "trunkline.v1.TranscribeSpec": validate_transcribe,
    "trunkline.v1.SynthesizeRequest": validate_synthesize,
    "trunkline.v1.RerankRequest": validate_rerank,
    "trunkline.v1.CountTokensRequest": validate_count_tokens,
    "trunkline.v1.ListModelsRequest": validate_list_models,
}


class SchemaServicer:
    """Serves the four RPCs to those whom InferenceService lets in."""

    def __init__(self, inference: InferenceServicer, engine: Engine, door: FrontDoor) -> None:
        self._inference = inference
        self._engine = engine
        self._door = door
        # The last list with mappings, and the table it is of: making it takes a while.
        self._mapped: tuple[Table, Sequence[v1.ProviderSchema]] | None = None

    def handlers(self) -> grpc.GenericRpcHandler:
        """The service as grpc.aio registers it."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "ListSchemas": self._rpc("list_schemas", v1.ListSchemasRequest, self._list),
                "GetUnifiedSchema": self._rpc(
                    "get_unified_schema", v1.GetUnifiedSchemaRequest, self._unified
                ),
                "GetProviderSchema": self._rpc(
                    "get_provider_schema", v1.GetProviderSchemaRequest, self._provider
                ),
                "Validate": self._rpc("validate", v1.ValidateRequest, self._validate),
            },
        )

    def _rpc(
        self, operation: str, kind: type[RequestT], method: Callable[[RequestT], Message]
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """A method as an RPC. It runs in a thread: a whole schema takes longer to make than
        calls should wait."""

        async def rpc(raw: bytes, context: Context) -> bytes:
            try:
                await self._inference.admit(operation, context)
                request = self._inference.read(kind, raw)
                answer = await asyncio.to_thread(method, request)
            except TrunklineError as error:
                self._door.refused(operation, "", error)
                await abort(context, error, "", None)
            except Exception as error:  # noqa: BLE001 - the boundary: told, logged with its trace
                self._door.defect(operation, "", error)
                told = TrunklineError(v1.ERROR_REASON_INTERNAL, "internal error; the log says more")
                await abort(context, told, "", None)
            return answer.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(rpc, None, None)

    def _list(self, request: v1.ListSchemasRequest) -> v1.ListSchemasResponse:
        whole = request.include_documents
        answer = v1.ListSchemasResponse()
        for name, (message, used_by) in sorted(_served().items()):
            schema = answer.messages.add(name=name, description=comment(name), methods=used_by)
            if whole:
                schema.json_schema.CopyFrom(_json_schema(message))
        answer.providers.extend(self._mappings() if whole else self._briefly())
        return answer

    def _briefly(self) -> Sequence[v1.ProviderSchema]:
        return provider_schemas(self._engine.table, fields=False)

    def _mappings(self) -> Sequence[v1.ProviderSchema]:
        table, known = self._engine.table, self._mapped
        if known is None or known[0] is not table:
            known = self._mapped = (table, provider_schemas(table, fields=True))
        return known[1]

    def _unified(self, request: v1.GetUnifiedSchemaRequest) -> v1.GetUnifiedSchemaResponse:
        message = _wanted(request.message) if request.message else None
        answer = v1.GetUnifiedSchemaResponse()
        match request.format:
            case v1.SCHEMA_FORMAT_UNSPECIFIED | v1.SCHEMA_FORMAT_JSON_SCHEMA:
                schema = _whole_json_schema() if message is None else _json_schema(message)
                answer.json_schema.CopyFrom(schema)
            case v1.SCHEMA_FORMAT_FILE_DESCRIPTOR_SET:
                answer.file_descriptor_set = (
                    descriptor_set() if message is None else descriptor_set_of(message)
                )
            case v1.SCHEMA_FORMAT_OPENAPI:
                answer.openapi_yaml = openapi_yaml()
            case _:
                raise invalid("format", "is not a known format")
        return answer

    def _provider(self, request: v1.GetProviderSchemaRequest) -> v1.GetProviderSchemaResponse:
        if not request.provider:
            raise invalid("provider", "is required")
        schema = provider_schema(self._engine.table, request.provider, request.provider_model)
        return v1.GetProviderSchemaResponse(schema=schema)

    def _validate(self, request: v1.ValidateRequest) -> v1.ValidateResponse:
        message = _wanted(request.message or "GenerateRequest")
        payload = GetMessageClass(message)()
        wrong = list(_form(request, message, payload))
        if not wrong:
            wrong = list(_bounds(payload))
        warnings: Sequence[Violation] = ()
        if request.provider:
            if not isinstance(payload, v1.GenerateRequest | v1.EmbedRequest):
                raise invalid("provider", "goes only with GenerateRequest and EmbedRequest")
            table = self._engine.table
            schema = provider_schema(table, request.provider, request.provider_model)
            if not wrong:
                wrong = list(refusals(table, request.provider, request.provider_model, payload))
                warnings = _without_effect(schema, payload)
        answer = v1.ValidateResponse(valid=not wrong)
        for found, severity in (
            (wrong, v1.FINDING_SEVERITY_ERROR),
            (warnings, v1.FINDING_SEVERITY_WARNING),
        ):
            for each in found:
                answer.findings.add(
                    field=each.field, description=each.description, severity=severity
                )
        del answer.findings[_MAX_FINDINGS:]
        return answer


@cache
def _json_schema(message: Descriptor) -> Struct:
    return ParseDict(schema_of(message), Struct())


@cache
def _whole_json_schema() -> Struct:
    return ParseDict(schema_of_all(messages().values()), Struct())


@cache
def _served() -> dict[str, tuple[Descriptor, list[str]]]:
    """The messages that methods of trunkline.v1 take and give, and those methods' names."""
    found: dict[str, Descriptor] = {}
    used_by: defaultdict[str, list[str]] = defaultdict(list)
    for method in methods():
        if not method.full_name.startswith("trunkline.v1."):
            continue
        for message in (method.input_type, method.output_type):
            found[message.full_name] = message
            used_by[message.full_name].append(method.full_name)
    return {name: (message, used_by[name]) for name, message in found.items()}


def _wanted(name: str) -> Descriptor:
    message = find_message(name)
    if message is None:
        raise TrunklineError(
            v1.ERROR_REASON_NOT_FOUND,
            "the contract has no such message",
            metadata={"kind": "messages", "name": name[:128]},
        )
    return message


def _form(
    request: v1.ValidateRequest, message: Descriptor, payload: Message
) -> Iterator[Violation]:
    """What keeps the payload from being the message; without any, `payload` is filled."""
    match request.WhichOneof("payload"):
        case "binary":
            try:
                payload.ParseFromString(request.binary)
            except DecodeError:
                yield Violation("", f"is no serialised {message.full_name}")
            return
        case "json_text":
            try:
                value = parse_json(request.json_text)
            except TrunklineError as error:
                yield from (Violation("", each.description) for each in error.violations)
                return
        case "json":
            value = _whole_numbers(MessageToDict(request.json))
        case _:
            raise invalid("payload", "is required: json, json_text or binary")
    wrong = False
    for found in findings(value, message):
        wrong = True
        yield found
    if wrong:
        return
    try:
        ParseDict(value, payload)
    except ParseError:
        # Whatever its parser knows and `findings` do not.
        yield Violation("", f"is no {message.full_name}")


def _whole_numbers(value: Any) -> Any:
    """A value of google.protobuf.Value, all of whose numbers are doubles, as JSON had it."""
    if isinstance(value, dict):
        return {name: _whole_numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _bounds(payload: Message) -> Sequence[Violation]:
    """What the contract's comments forbid of a message that is well-formed."""
    judge = _BOUNDS.get(payload.DESCRIPTOR.full_name)
    if judge is None:
        return ()
    try:
        judge(payload)
    except TrunklineError as error:
        return error.violations
    return ()


def _without_effect(
    schema: v1.ProviderSchema, payload: v1.GenerateRequest | v1.EmbedRequest
) -> Sequence[Violation]:
    """The fields that a payload sets and the provider's dialect has no word for."""
    return [
        Violation(row.field, f"has no effect: {schema.provider} has no word for it")
        for row in schema.fields
        if row.support == v1.FIELD_SUPPORT_IGNORED
        and row.message == payload.DESCRIPTOR.name
        and _is_set(payload, row.field.split("."))
    ]


def _is_set(message: Any, path: Sequence[str]) -> bool:
    first, *rest = path
    field = message.DESCRIPTOR.fields_by_name[first]
    value = getattr(message, first)
    if field.is_repeated:
        return any(_is_set(each, rest) for each in value) if rest else bool(value)
    if field.has_presence and not message.HasField(first):
        return False
    return _is_set(value, rest) if rest else field.has_presence or bool(value)
