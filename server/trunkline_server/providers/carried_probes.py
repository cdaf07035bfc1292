"""Pairs of requests that differ in one field each, for `carried` to have encoded.

A probe may be wrong about a dialect's demands on other fields; what it then tells is the refusal,
in the dialect's words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar

from google.protobuf import text_format

from trunkline import v1

RequestT = TypeVar("RequestT", v1.GenerateRequest, v1.EmbedRequest)


@dataclass(frozen=True, slots=True)
class Probe(Generic[RequestT]):
    """Two requests that differ in the value of one field."""

    field: str
    requests: tuple[RequestT, RequestT]


# Templates are protobuf's text format, `$` standing for the value; those without messages get
# one of a user.
_ASKED = 'messages { role: ROLE_USER parts { text: "q" } }'
_USER = 'messages { role: ROLE_USER parts { text: "q" } parts { %s } }'
_ASSISTANT = f"{_ASKED} messages {{ role: ROLE_ASSISTANT parts {{ %s }} }} {_ASKED}"
_IMAGE = _USER % "image { %s }"
_AUDIO = _USER % "audio { %s }"
_FILE = _USER % "file { %s }"
_PNG, _WAV, _PDF = (
    'media_type: "image/png"',
    'media_type: "audio/wav"',
    ('media_type: "application/pdf"'),
)
_LOOK = 'tools { name: "look" } tools { name: "watch" }'
_ROUND = (
    f"{_ASKED} messages {{ role: ROLE_ASSISTANT parts {{ tool_call {{ id: %s name: %s "
    "arguments_json: %s } } } messages { role: ROLE_TOOL parts { tool_result { tool_call_id: %s "
    f"name: %s %s }} }} }} {_LOOK}"
)
_ID, _NAME, _NO_ARGUMENTS, _TEXT = '"call_1"', '"look"', '"{}"', 'parts { text: "r" }'
# Reasoning that vendors take back is signed.
_SIGNED = 'signature { dialect: "DIALECT" value: "YQ==" }'
_OBJECT = '\'{"type": "object"}\''
_CITED = (
    f'{_ASKED} messages {{ role: ROLE_ASSISTANT parts {{ text: "abcdef" }} sources {{ '
    'id: "s1" uri: "https://example.com/a" title: "A" %s } citations { source_indexes: 0 '
    f"start: 0 end: 3 %s }} }} {_ASKED}"
)

# Field, template, and two values.
_Row = tuple[str, str, str, str]
_MESSAGES: tuple[_Row, ...] = (
    (
        "messages.role",
        f'{_ASKED} messages {{ role: $ parts {{ text: "a" }} }}',
        "ROLE_SYSTEM",
        "ROLE_USER",
    ),
    ("messages.name", 'messages { role: ROLE_USER name: $ parts { text: "q" } }', '"ann"', '"bob"'),
    ("messages.parts.text", "messages { role: ROLE_USER parts { text: $ } }", '"q"', '"r"'),
    ("messages.parts.image.data", _IMAGE % f"data: $ {_PNG}", '"a"', '"b"'),
    (
        "messages.parts.image.uri",
        _IMAGE % f"uri: $ {_PNG}",
        '"https://example.com/a.png"',
        '"https://example.com/b.png"',
    ),
    (
        "messages.parts.image.media_type",
        _IMAGE % 'data: "a" media_type: $',
        '"image/png"',
        '"image/jpeg"',
    ),
    (
        "messages.parts.image.detail",
        _IMAGE % f'data: "a" {_PNG} detail: $',
        "IMAGE_DETAIL_LOW",
        "IMAGE_DETAIL_HIGH",
    ),
    ("messages.parts.audio.data", _AUDIO % f"data: $ {_WAV}", '"a"', '"b"'),
    (
        "messages.parts.audio.uri",
        _AUDIO % f"uri: $ {_WAV}",
        '"https://example.com/a.wav"',
        '"https://example.com/b.wav"',
    ),
    (
        "messages.parts.audio.media_type",
        _AUDIO % 'data: "a" media_type: $',
        '"audio/wav"',
        '"audio/mpeg"',
    ),
    ("messages.parts.audio.transcript", _AUDIO % f'data: "a" {_WAV} transcript: $', '"a"', '"b"'),
    ("messages.parts.file.data", _FILE % f"data: $ {_PDF}", '"a"', '"b"'),
    (
        "messages.parts.file.uri",
        _FILE % f"uri: $ {_PDF}",
        '"https://example.com/a.pdf"',
        '"https://example.com/b.pdf"',
    ),
    ("messages.parts.file.file_id", _FILE % "file_id: $", '"file-a"', '"file-b"'),
    (
        "messages.parts.file.media_type",
        _FILE % 'data: "a" media_type: $',
        '"application/pdf"',
        '"text/plain"',
    ),
    ("messages.parts.file.filename", _FILE % f'data: "a" {_PDF} filename: $', '"a.pdf"', '"b.pdf"'),
    (
        "messages.parts.tool_call.id",
        _ROUND % ("$", _NAME, _NO_ARGUMENTS, _ID, _NAME, _TEXT),
        _ID,
        '"call_2"',
    ),
    (
        "messages.parts.tool_call.name",
        _ROUND % (_ID, "$", _NO_ARGUMENTS, _ID, _NAME, _TEXT),
        _NAME,
        '"watch"',
    ),
    (
        "messages.parts.tool_call.arguments_json",
        _ROUND % (_ID, _NAME, "$", _ID, _NAME, _TEXT),
        _NO_ARGUMENTS,
        "'{\"a\": 1}'",
    ),
    (
        "messages.parts.tool_result.tool_call_id",
        _ROUND % (_ID, _NAME, _NO_ARGUMENTS, "$", _NAME, _TEXT),
        _ID,
        '"call_2"',
    ),
    (
        "messages.parts.tool_result.name",
        _ROUND % (_ID, _NAME, _NO_ARGUMENTS, _ID, "$", _TEXT),
        _NAME,
        '"watch"',
    ),
    (
        "messages.parts.tool_result.parts",
        _ROUND % (_ID, _NAME, _NO_ARGUMENTS, _ID, _NAME, "parts { text: $ }"),
        '"r"',
        '"s"',
    ),
    (
        "messages.parts.tool_result.is_error",
        _ROUND % (_ID, _NAME, _NO_ARGUMENTS, _ID, _NAME, f"{_TEXT} is_error: $"),
        "false",
        "true",
    ),
    (
        "messages.parts.reasoning.text",
        _ASSISTANT % 'reasoning { text: $ } SIGNED } parts { text: "a"',
        '"a"',
        '"b"',
    ),
    (
        "messages.parts.reasoning.redacted_data",
        _ASSISTANT % 'reasoning { redacted_data: $ } SIGNED } parts { text: "a"',
        '"a"',
        '"b"',
    ),
    (
        "messages.parts.reasoning.id",
        _ASSISTANT % 'reasoning { text: "t" id: $ } SIGNED } parts { text: "a"',
        '"a"',
        '"b"',
    ),
    (
        "messages.parts.vendor_item.json",
        _ASSISTANT % 'vendor_item { dialect: "DIALECT" type: "item" json: $ } } parts { text: "a"',
        "'{\"a\": 1}'",
        "'{\"a\": 2}'",
    ),
    (
        "messages.parts.signature.value",
        _ASSISTANT
        % 'reasoning { text: "t" } signature { dialect: "DIALECT" value: $ } } parts { text: "a"',
        '"YQ=="',
        '"Yg=="',
    ),
    ("messages.parts.cache_breakpoint", _USER % 'text: "r" cache_breakpoint: $', "false", "true"),
    (
        "messages.sources.uri",
        _CITED.replace('"https://example.com/a"', "$") % ("", ""),
        '"https://example.com/a"',
        '"https://example.com/b"',
    ),
    ("messages.citations.quote", _CITED % ("", "quote: $"), '"abc"', '"abd"'),
)
_KNOBS: tuple[_Row, ...] = (
    ("config.max_output_tokens", "config { max_output_tokens: $ }", "10", "20"),
    ("config.temperature", "config { temperature: $ }", "0.5", "0.25"),
    ("config.top_p", "config { top_p: $ }", "0.5", "0.25"),
    ("config.top_k", "config { top_k: $ }", "5", "6"),
    ("config.stop", "config { stop: $ }", '"a"', '"b"'),
    ("config.seed", "config { seed: $ }", "1", "2"),
    ("config.presence_penalty", "config { presence_penalty: $ }", "0.5", "0.25"),
    ("config.frequency_penalty", "config { frequency_penalty: $ }", "0.5", "0.25"),
    (
        "config.reasoning.effort",
        "config { reasoning { effort: $ } }",
        "REASONING_EFFORT_LOW",
        "REASONING_EFFORT_HIGH",
    ),
    ("config.reasoning.budget_tokens", "config { reasoning { budget_tokens: $ } }", "1024", "2048"),
    (
        "config.reasoning.include_reasoning",
        "config { reasoning { effort: REASONING_EFFORT_LOW include_reasoning: $ } }",
        "true",
        "false",
    ),
    ("tools.name", "tools { name: $ }", _NAME, '"watch"'),
    ("tools.description", 'tools { name: "look" description: $ }', '"a"', '"b"'),
    (
        "tools.parameters_json",
        'tools { name: "look" parameters_json: $ }',
        _OBJECT,
        '\'{"type": "object", "title": "A"}\'',
    ),
    (
        "tools.strict",
        f'tools {{ name: "look" parameters_json: {_OBJECT} strict: $ }}',
        "true",
        "false",
    ),
    ("tools.builtin.type", "tools { builtin { type: $ } }", '"web_search"', '"code_interpreter"'),
    (
        "tools.builtin.options_json",
        'tools { builtin { type: "web_search" options_json: $ } }',
        "'{\"a\": 1}'",
        "'{\"a\": 2}'",
    ),
    (
        "tool_choice.mode",
        f"{_LOOK} tool_choice {{ mode: $ }}",
        "TOOL_CHOICE_MODE_REQUIRED",
        "TOOL_CHOICE_MODE_NONE",
    ),
    (
        "tool_choice.name",
        f"{_LOOK} tool_choice {{ mode: TOOL_CHOICE_MODE_REQUIRED name: $ }}",
        _NAME,
        '"watch"',
    ),
    (
        "tool_choice.disable_parallel",
        f"{_LOOK} tool_choice {{ disable_parallel: $ }}",
        "true",
        "false",
    ),
    ("response_format.json_object", "$", "response_format { json_object {} }", ""),
    (
        "response_format.json_schema.name",
        f"response_format {{ json_schema {{ schema_json: {_OBJECT} name: $ }} }}",
        '"a"',
        '"b"',
    ),
    (
        "response_format.json_schema.description",
        f"response_format {{ json_schema {{ schema_json: {_OBJECT} description: $ }} }}",
        '"a"',
        '"b"',
    ),
    (
        "response_format.json_schema.schema_json",
        "response_format { json_schema { schema_json: $ } }",
        _OBJECT,
        '\'{"type": "object", "title": "A"}\'',
    ),
    (
        "response_format.json_schema.strict",
        f"response_format {{ json_schema {{ schema_json: {_OBJECT} strict: $ }} }}",
        "true",
        "false",
    ),
    ("context.user_id", "context { user_id: $ }", '"a"', '"b"'),
    (
        "provider_options",
        'provider_options { fields { key: "x" value { number_value: $ } } }',
        "1",
        "2",
    ),
)
_EMBED: tuple[_Row, ...] = (
    ("inputs", "inputs: $", '"a"', '"b"'),
    ("dimensions", 'inputs: "a" dimensions: $', "8", "16"),
    ("task", 'inputs: "a" task: $', "EMBED_TASK_QUERY", "EMBED_TASK_DOCUMENT"),
    ("context.user_id", 'inputs: "a" context { user_id: $ }', '"a"', '"b"'),
    (
        "provider_options",
        'inputs: "a" provider_options { fields { key: "x" value { number_value: $ } } }',
        "1",
        "2",
    ),
)


@cache
def generate_probes(dialect: str) -> Sequence[Probe[v1.GenerateRequest]]:
    """The probes of GenerateRequest. Signatures and vendor items are of `dialect`, since no codec
    writes those of others."""
    return [
        _probe(v1.GenerateRequest, row, "" if "messages" in row[1] else _ASKED, dialect)
        for row in (*_MESSAGES, *_KNOBS)
    ]


@cache
def embed_probes() -> Sequence[Probe[v1.EmbedRequest]]:
    """The probes of EmbedRequest."""
    return [_probe(v1.EmbedRequest, row) for row in _EMBED]


def _probe(kind: type[RequestT], row: _Row, before: str = "", dialect: str = "") -> Probe[RequestT]:
    field, template, *values = row

    def request(value: str) -> RequestT:
        text = template.replace("$", value).replace("SIGNED", _SIGNED)
        text = text.replace("DIALECT", dialect)
        return text_format.Parse(f"{before} {text}", kind(model="model"))

    first, second = map(request, values)
    return Probe(field, (first, second))
