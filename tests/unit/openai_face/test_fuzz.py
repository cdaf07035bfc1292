"""Whatever JSON comes, it is a request of the contract or a typed error that names a field."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import completion_create_params

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.openai_face.chat_request import read_chat
from trunkline_server.openai_face.embeddings import read_embeddings
from trunkline_server.openai_face.reading import parse_body

NAMES = st.sampled_from(
    [
        *completion_create_params.CompletionCreateParamsNonStreaming.__annotations__,
        *completion_create_params.CompletionCreateParamsBase.__annotations__,
        *("role", "content", "type", "text", "image_url", "url", "input_audio", "data", "format"),
        *("file", "file_id", "file_data", "tool_calls", "id", "function", "name", "arguments"),
        *("tool_call_id", "parameters", "strict", "json_schema", "schema", "include_usage"),
        *("trunkline", "routing", "requirements", "config", "request_id", "input", "dimensions"),
    ]
)
WORDS = st.sampled_from(
    [
        *("user", "assistant", "tool", "system", "text", "image_url", "input_audio", "file"),
        *("function", "auto", "none", "required", "low", "json_schema", "json_object", "wav"),
        *("data:image/png;base64,AAA=", "data:,x", "https://a", "AAAA", ""),
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS
    | st.text(max_size=3)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.lists(st.dictionaries(NAMES, VALUES, max_size=4), max_size=3)


@pytest.mark.parametrize("read", [read_chat, read_embeddings])
@settings(max_examples=80, deadline=None)
@given(body=st.dictionaries(NAMES, VALUES, max_size=5), messages=MESSAGES)
def test_whatever_comes_is_read_or_refused(read: Any, body: Any, messages: Any) -> None:
    raw = orjson.dumps({"model": "m", "messages": messages, "input": "a", **body})
    refused = None
    try:
        read(parse_body(raw))
    except TrunklineError as error:
        refused = error
    if refused is not None:
        assert refused.reason == v1.ERROR_REASON_INVALID_REQUEST
        assert refused.violations[0].field
