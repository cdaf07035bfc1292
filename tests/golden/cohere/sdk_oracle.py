"""The vendor's SDK as judge: the types of its calls and answers, applied with pydantic.

The SDK's models take fields that they do not know and keep them apart; here these are errors.
"""

from functools import cache
from typing import Any, get_type_hints

from cohere.types.assistant_message_response import AssistantMessageResponse
from cohere.v2.client import V2Client
from cohere.v2.types.v2chat_response import V2ChatResponse
from cohere.v2.types.v2chat_stream_response import V2ChatStreamResponse
from pydantic import BaseModel, TypeAdapter


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _parameters(method: str) -> dict[str, Any]:
    """The types of what a call of the SDK takes, by the name that is also the field's."""
    hints = get_type_hints(getattr(V2Client, method), include_extras=True)
    return {name: hint for name, hint in hints.items() if name not in {"return", "request_options"}}


def check_chat(body: dict[str, Any]) -> None:
    """Raises ValueError or AssertionError for a body that the SDK could not have made."""
    body = dict(body)
    assert isinstance(body.pop("stream"), bool)
    _check("chat", body)


def check_embed(body: dict[str, Any]) -> None:
    """As check_chat, of an embedding."""
    _check("embed", body)


def check_order(body: dict[str, Any]) -> None:
    """As check_chat, of a reranking."""
    _check("rerank", body)


def _check(method: str, body: dict[str, Any]) -> None:
    known = _parameters(method)
    assert not body.keys() - known.keys()
    for name, value in body.items():
        _refuse_extras(_adapter(known[name]).validate_python(value), name)


def read_chat(body: dict[str, Any]) -> None:
    """Raises ValueError or AssertionError for an answer that the vendor could not have sent."""
    _refuse_extras(V2ChatResponse.model_validate(body), "answer")


def read_event(event: dict[str, Any]) -> None:
    """As read_chat, of an event of a stream."""
    if event["type"] == "message-start":
        # The vendor sends an empty message of every field, as recorded streams show; the SDK
        # knows its role alone.
        assert event["delta"]["message"].keys() <= AssistantMessageResponse.model_fields.keys()
        event = {**event, "delta": {"message": {"role": "assistant"}}}
    _refuse_extras(_adapter(V2ChatStreamResponse).validate_python(event), event["type"])


def _refuse_extras(value: Any, path: str) -> None:
    if isinstance(value, BaseModel):
        assert not value.model_extra, (path, value.model_extra)
        for name in type(value).model_fields:
            _refuse_extras(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_extras(item, f"{path}[{index}]")
