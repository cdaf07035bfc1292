"""Findings on payloads: as protobuf's own parser sees them, and with their paths."""

from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline import v1
from trunkline_server.contract.payload import findings, parse_json
from trunkline_server.errors import TrunklineError


def paths(value: Any, message: Any = v1.GenerateRequest) -> list[str]:
    return [found.field for found in findings(value, message.DESCRIPTOR)]


def test_a_sound_payload_has_no_findings() -> None:
    payload = {
        "model": "m",
        "messages": [{"role": "ROLE_USER", "parts": [{"text": "q"}]}],
        # Either spelling, numbers as strings, an enum's number, a null that counts as absent.
        "config": {"maxOutputTokens": "10", "temperature": "0.5", "seed": 1.0, "topP": None},
        "routing": {"strategy": 1},
        "cache": {"ttl": "1.5s"},
        "provider_options": {"a": None},
    }
    assert paths(payload) == []


def test_every_wrong_field_is_named() -> None:
    payload = {
        "modle": "m",
        "messages": [
            {"role": "ROLE_USR", "parts": [{"text": "a", "image": {"data": "###"}}, None]},
            "no message",
        ],
        "config": {"temperature": "warm", "max_output_tokens": 2**31, "seed": True, "stop": "a"},
        "cache": {"ttl": "90"},
        "context": {"labels": {"a": 1}},
        "requirements": {"min_quality": 1, "minQuality": 1},
    }
    assert paths(payload) == [
        "modle",
        "messages[0].role",
        "messages[0].parts[0].image",
        "messages[0].parts[0].image.data",
        "messages[0].parts[1]",
        "messages[1]",
        "config.temperature",
        "config.max_output_tokens",
        "config.seed",
        "config.stop",
        "cache.ttl",
        "context.labels['a']",
        "requirements.minQuality",
    ]
    told = {
        each.field: each.description for each in findings(payload, v1.GenerateRequest.DESCRIPTOR)
    }
    assert "did you mean model?" in told["modle"]
    assert "did you mean ROLE_USER?" in told["messages[0].role"]
    assert "beside text" in told["messages[0].parts[0].image"]


def test_findings_do_not_quote_values() -> None:
    secret = "sk-a-secret-value"
    payload = {"model": [secret], "cache": {"ttl": secret}, "config": {"seed": secret}}
    assert not any(
        secret in found.description for found in findings(payload, v1.GenerateRequest.DESCRIPTOR)
    )


def test_depth_is_bounded() -> None:
    part: Any = {"text": "a"}
    for _ in range(60):
        part = {"tool_result": {"parts": [part]}}
    (found,) = findings({"messages": [{"parts": [part]}]}, v1.GenerateRequest.DESCRIPTOR)
    assert "levels deep" in found.description


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', "{", "", '{"a": {"b": 1, "b": 1}}'])
def test_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(TrunklineError) as error:
        parse_json(text)
    assert error.value.reason == v1.ERROR_REASON_INVALID_REQUEST


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["", "1", "-5", "1.5", "NaN", "1s", "ROLE_USER", "YQ==", "YQ", "x", "01", " 1"]
    ),
    st.text(max_size=4),
)
NAMES = st.sampled_from(
    [
        *(
            name
            for kind in (v1.GenerateRequest, v1.Message, v1.Part, v1.Image, v1.GenerationConfig)
            for field in kind.DESCRIPTOR.fields
            for name in (field.name, field.json_name)
        ),
        "a",
    ]
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(NAMES, inner, max_size=4)


VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | objects(inner), max_leaves=8
)


@pytest.mark.parametrize("kind", [v1.GenerateRequest, v1.Message, v1.Part, v1.GenerationConfig])
@settings(max_examples=150, deadline=None)
@given(value=objects(VALUES))
def test_what_has_no_findings_is_what_protobuf_takes(kind: Any, value: Any) -> None:
    found = list(findings(value, kind.DESCRIPTOR))
    try:
        json_format.ParseDict(value, kind())
    except (json_format.ParseError, OverflowError, AttributeError, TypeError, ValueError):
        # Its parser raises whatever it stumbles over.
        assert found, value
    else:
        # It decodes base64 that is none, takes numbers with spaces around them, and whatever is
        # empty for a message.
        lenient = ("is not base64", "must be a whole number", "must be a number", "half", "object")
        assert all(any(word in each.description for word in lenient) for each in found), (
            value,
            found,
        )
