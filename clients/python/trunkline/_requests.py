"""Requests from short forms, and text from answers."""

from collections.abc import Sequence

from trunkline import v1


def generate_request(request: v1.GenerateRequest | str, model: str) -> v1.GenerateRequest:
    """The request itself, or one user message to that model. Raises ValueError."""
    if isinstance(request, str):
        message = v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text=request)])
        return v1.GenerateRequest(model=model, messages=[message])
    _refuse_second_model(model)
    return request


def embed_request(request: v1.EmbedRequest | str | Sequence[str], model: str) -> v1.EmbedRequest:
    """The request itself, or one for these texts. Raises ValueError."""
    if isinstance(request, v1.EmbedRequest):
        _refuse_second_model(model)
        return request
    inputs = [request] if isinstance(request, str) else request
    return v1.EmbedRequest(model=model, inputs=inputs)


def route_request(request: v1.RouteRequest | None, model: str) -> v1.RouteRequest:
    """The request itself, or one for that model. Raises ValueError."""
    if request is None:
        return v1.RouteRequest(model=model)
    _refuse_second_model(model)
    return request


def _refuse_second_model(model: str) -> None:
    if model:
        raise ValueError("set the model in the request; model= is for the short forms")


def text_of(answer: v1.GenerateResponse | v1.Message) -> str:
    """The text parts of an answer, joined; reasoning and tool calls are left out."""
    message = answer.message if isinstance(answer, v1.GenerateResponse) else answer
    return "".join(part.text for part in message.parts)
