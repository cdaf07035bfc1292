"""The vendor's SDK as judge of encoded requests: its parameter types, applied with pydantic."""

from typing import Any

from anthropic.types.message_create_params import (
    MessageCreateParamsNonStreaming,
    MessageCreateParamsStreaming,
)
from pydantic import BaseModel, TypeAdapter

_WHOLE: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)
_STREAMED: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsStreaming)

# The API takes these, as recorded calls show, but the SDK has left them out of its types since
# newer models refuse them. Their bounds are those of the API reference.
_SAMPLING = {"temperature": (0, 1), "top_p": (0, 1), "top_k": (0, 2**31)}


def check_request(body: dict[str, Any]) -> None:
    """Raises pydantic.ValidationError, or AssertionError for fields the SDK does not know."""
    body = dict(body)
    for name, (least, most) in _SAMPLING.items():
        assert least <= body.pop(name, least) <= most, name
    adapter = _STREAMED if body.get("stream") else _WHOLE
    known = _settled(adapter.validate_python(body))
    assert known == body, "the SDK's types drop fields that they do not know"


def _settled(value: Any) -> Any:
    """The value with its lazy iterables read, which is when pydantic validates their items."""
    if isinstance(value, BaseModel):
        # The types also take the blocks of answers, which are models.
        return value.model_dump(exclude_unset=True)
    if isinstance(value, dict):
        return {name: _settled(item) for name, item in value.items()}
    if isinstance(value, str | int | float | None):
        return value
    return [_settled(item) for item in value]
