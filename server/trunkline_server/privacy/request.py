"""Masks whole requests: every text in them that a vendor would see.

Beside the messages these are the inputs of embeddings, prompts of pictures, what is to be spoken,
queries and documents, stop sequences, descriptions and schemas of tools and of the answer, and the
texts among the provider's own options. Pictures and sound are sent as they are. A context's
user_id that holds personal data is left out: a placeholder would name all users alike.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from trunkline import v1
from trunkline_server.privacy.mask import PLACEHOLDER, Find, Masker, MaskMap
from trunkline_server.privacy.rule import Span

Prompted = v1.GenerateImageRequest | v1.TranscribeSpec | v1.SynthesizeRequest | v1.RerankRequest
Request = v1.GenerateRequest | v1.EmbedRequest | v1.CountTokensRequest | Prompted


def texts_of(request: Request) -> list[str]:
    """The texts that masking would search, each once, for a finder that is asked ahead."""
    texts: dict[str, None] = {}

    def note(text: str) -> tuple[Span, ...]:
        texts[text] = None
        return ()

    _mask(request, Masker(note, MaskMap()))
    return list(texts)


def mask_request(
    request: Request, find: Find, texts: Sequence[str]
) -> tuple[Request | None, MaskMap]:
    """A copy with placeholders in place of what `find` finds, None if that is nothing, and the
    way back. `texts` are those of the request, see `texts_of`: the placeholders that stand in
    them already are not given out. The given request is not changed.
    """
    taken = {name for text in texts if "[" in text for name in PLACEHOLDER.findall(text)}
    as_json = (
        isinstance(request, v1.GenerateRequest)
        and request.response_format.WhichOneof("kind") is not None
    )
    masker = Masker(find, MaskMap(taken, text_is_json=as_json))
    return _mask(request, masker), masker.map


def _mask(request: Request, masker: Masker) -> Request | None:
    """A masked copy, or None."""
    match request:
        case v1.GenerateRequest():
            return _mask_generate(request, masker)
        case v1.EmbedRequest():
            return _mask_embed(request, masker)
        case v1.CountTokensRequest():
            return _mask_count(request, masker)
        case _:
            return _mask_prompted(request, masker)


def _mask_generate(request: v1.GenerateRequest, masker: Masker) -> v1.GenerateRequest | None:
    messages = [masker.message(message) for message in request.messages]
    stop = [masker.text(text) for text in request.config.stop]
    tools = [_mask_tool(tool, masker) for tool in request.tools]
    response_format = _mask_format(request.response_format, masker)
    options = _mask_options(request.provider_options, masker)
    nameless = _names_a_person(request.context, masker)
    renamed = any(new is not old for old, new in zip(request.messages, messages, strict=True))
    if not (len(masker.map) or nameless or renamed):
        return None
    made = v1.GenerateRequest()
    made.CopyFrom(request)
    for place, (old, new) in enumerate(zip(request.messages, messages, strict=True)):
        if new is not old:
            made.messages[place].CopyFrom(new)
    if stop:
        made.config.stop[:] = stop
    for place, tool in enumerate(tools):
        if tool is not None:
            made.tools[place].CopyFrom(tool)
    if response_format is not None:
        made.response_format.CopyFrom(response_format)
    if options is not None:
        made.provider_options.CopyFrom(options)
    if nameless:
        made.context.user_id = ""
    return made


def _mask_embed(request: v1.EmbedRequest, masker: Masker) -> v1.EmbedRequest | None:
    inputs = [masker.text(text) for text in request.inputs]
    options = _mask_options(request.provider_options, masker)
    nameless = _names_a_person(request.context, masker)
    if not (len(masker.map) or nameless):
        return None
    made = v1.EmbedRequest()
    made.CopyFrom(request)
    made.inputs[:] = inputs
    if options is not None:
        made.provider_options.CopyFrom(options)
    if nameless:
        made.context.user_id = ""
    return made


def _mask_count(request: v1.CountTokensRequest, masker: Masker) -> v1.CountTokensRequest | None:
    messages = [masker.message(message) for message in request.messages]
    tools = [_mask_tool(tool, masker) for tool in request.tools]
    nameless = _names_a_person(request.context, masker)
    renamed = any(new is not old for old, new in zip(request.messages, messages, strict=True))
    if not (len(masker.map) or nameless or renamed):
        return None
    made = v1.CountTokensRequest()
    made.CopyFrom(request)
    for place, message in enumerate(messages):
        made.messages[place].CopyFrom(message)
    for place, tool in enumerate(tools):
        if tool is not None:
            made.tools[place].CopyFrom(tool)
    if nameless:
        made.context.user_id = ""
    return made


# The texts of requests that have a few of them, each in a field of its own.
_TEXTS: Mapping[type[Message], tuple[str, ...]] = {
    v1.GenerateImageRequest: ("prompt", "negative_prompt"),
    v1.TranscribeSpec: ("prompt",),
    v1.SynthesizeRequest: ("text", "instructions"),
    v1.RerankRequest: ("query",),
}


def _mask_prompted(request: Prompted, masker: Masker) -> Prompted | None:
    texts = {name: masker.text(getattr(request, name)) for name in _TEXTS[type(request)]}
    documents: list[str] = []
    if isinstance(request, v1.RerankRequest):
        documents = [masker.text(text) for text in request.documents]
    options = _mask_options(request.provider_options, masker)
    nameless = _names_a_person(request.context, masker)
    if not (len(masker.map) or nameless):
        return None
    made: Prompted = deepcopy(request)
    for name, text in texts.items():
        setattr(made, name, text)
    if isinstance(made, v1.RerankRequest):
        made.documents[:] = documents
    if options is not None:
        made.provider_options.CopyFrom(options)
    if nameless:
        made.context.user_id = ""
    return made


def _mask_tool(tool: v1.Tool, masker: Masker) -> v1.Tool | None:
    """A changed copy, or None."""
    description = masker.text(tool.description)
    schema = masker.json(tool.parameters_json) if tool.parameters_json else ""
    old_options = tool.builtin.options_json
    options = masker.json(old_options) if old_options else ""
    if (description, schema, options) == (tool.description, tool.parameters_json, old_options):
        return None
    made = v1.Tool()
    made.CopyFrom(tool)
    made.description, made.parameters_json = description, schema
    if options:
        made.builtin.options_json = options
    return made


def _mask_format(wanted: v1.ResponseFormat, masker: Masker) -> v1.ResponseFormat | None:
    """A changed copy, or None."""
    if not wanted.HasField("json_schema"):
        return None
    old = wanted.json_schema
    description, schema = masker.text(old.description), masker.json(old.schema_json)
    if description == old.description and schema == old.schema_json:
        return None
    made = v1.ResponseFormat()
    made.CopyFrom(wanted)
    made.json_schema.description, made.json_schema.schema_json = description, schema
    return made


def _mask_options(options: Struct, masker: Masker) -> Struct | None:
    """A masked copy; None if there are none."""
    if not options.fields:
        return None
    made = Struct()
    made.CopyFrom(options)
    _mask_struct(made, masker)
    return made


def _mask_struct(struct: Struct, masker: Masker) -> None:
    for value in struct.fields.values():
        _mask_value(value, masker)


def _mask_list(values: ListValue, masker: Masker) -> None:
    for value in values.values:
        _mask_value(value, masker)


def _mask_value(value: Value, masker: Masker) -> None:
    match value.WhichOneof("kind"):
        case "string_value":
            value.string_value = masker.text(value.string_value)
        case "struct_value":
            _mask_struct(value.struct_value, masker)
        case "list_value":
            _mask_list(value.list_value, masker)


def _names_a_person(context: v1.CallContext, masker: Masker) -> bool:
    return bool(context.user_id and masker.find(context.user_id))
