"""Requests from short forms, and text from answers."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence

from trunkline import v1

# Bytes of a recording in one message; gRPC servers refuse messages of more than 4 MiB unless
# they are told otherwise.
_PIECE = 1 << 20


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


def image_request(request: v1.GenerateImageRequest | str, model: str) -> v1.GenerateImageRequest:
    """The request itself, or one for this prompt. Raises ValueError."""
    if isinstance(request, str):
        return v1.GenerateImageRequest(model=model, prompt=request)
    _refuse_second_model(model)
    return request


def speech_request(
    request: v1.SynthesizeRequest | str, model: str, voice: str
) -> v1.SynthesizeRequest:
    """The request itself, or one for this text. Raises ValueError."""
    if isinstance(request, str):
        return v1.SynthesizeRequest(model=model, text=request, voice=voice)
    _refuse_second_model(model)
    if voice:
        raise ValueError("set the voice in the request; voice= is for the short form")
    return request


def count_request(request: v1.CountTokensRequest | str, model: str) -> v1.CountTokensRequest:
    """The request itself, or one for a user message of this text. Raises ValueError."""
    if isinstance(request, str):
        message = v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text=request)])
        return v1.CountTokensRequest(model=model, messages=[message])
    _refuse_second_model(model)
    return request


def recording(
    spec: v1.TranscribeSpec, audio: bytes | Iterable[bytes]
) -> Iterator[v1.TranscribeRequest]:
    """The messages of a recording, none larger than servers take by default."""
    yield v1.TranscribeRequest(spec=spec)
    for chunk in (audio,) if isinstance(audio, bytes) else audio:
        for start in range(0, len(chunk), _PIECE):
            yield v1.TranscribeRequest(audio=chunk[start : start + _PIECE])


async def async_recording(
    spec: v1.TranscribeSpec, audio: bytes | Iterable[bytes] | AsyncIterable[bytes]
) -> AsyncIterator[v1.TranscribeRequest]:
    """The same, of a recording that may come by and by."""
    if not isinstance(audio, AsyncIterable):
        for message in recording(spec, audio):
            yield message
        return
    yield v1.TranscribeRequest(spec=spec)
    async for chunk in audio:
        for start in range(0, len(chunk), _PIECE):
            yield v1.TranscribeRequest(audio=chunk[start : start + _PIECE])


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
