"""Reads the conversation of a chat completion request.

The shapes are those of OpenAI's own SDK, whose types the tests send. One message of OpenAI's
becomes one of the contract's, so that indices in error paths are the caller's own.
"""

from collections.abc import Mapping

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.openai_face.reading import (
    Fields,
    from_base64,
    from_data_url,
    unsupported,
)

_ROLES: Mapping[str, v1.Role.ValueType] = {
    "system": v1.ROLE_SYSTEM,
    "developer": v1.ROLE_SYSTEM,
    "user": v1.ROLE_USER,
    "assistant": v1.ROLE_ASSISTANT,
    "tool": v1.ROLE_TOOL,
}
_DETAILS: Mapping[str, v1.ImageDetail.ValueType] = {
    "auto": v1.IMAGE_DETAIL_UNSPECIFIED,
    "low": v1.IMAGE_DETAIL_LOW,
    "high": v1.IMAGE_DETAIL_HIGH,
}
_AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}
# What answers hold and callers send back with them; a next turn needs none of it.
_ECHOED = ("annotations", "images")


def read_messages(body: Fields, request: v1.GenerateRequest) -> None:
    """Adds the messages. Raises INVALID_REQUEST."""
    body.required("messages")
    names: dict[str, str] = {}
    for fields in body.objects("messages"):
        fields.required("role")
        role = fields.word("role", _ROLES)
        message = request.messages.add(role=role, name=fields.text("name"))
        if role == v1.ROLE_TOOL:
            _tool_result(fields, message, names)
        elif role == v1.ROLE_ASSISTANT:
            _assistant(fields, message, names)
        else:
            fields.only("role", "name", "content")
            fields.required("content")
            _content(fields, message)


def _assistant(fields: Fields, message: v1.Message, names: dict[str, str]) -> None:
    fields.only("role", "name", "content", "refusal", "tool_calls", "reasoning_content", *_ECHOED)
    if thought := fields.text("reasoning_content"):
        message.parts.add(reasoning=v1.Reasoning(text=thought))
    if fields.raw("content") not in (None, "", []):
        _content(fields, message)
    if refusal := fields.text("refusal"):
        message.parts.add(text=refusal)
    for call in fields.objects("tool_calls"):
        if call.text("type") not in {"", "function"}:
            raise unsupported(call.at("type"), "tools are functions")
        function = Fields(call.required("function"), call.at("function"))
        made = message.parts.add().tool_call
        made.id = call.text("id")
        made.name = function.text("name")
        made.arguments_json = function.text("arguments")
        names[made.id] = made.name
    if not message.parts:
        raise invalid(fields.at("content"), "is required unless there are tool_calls")


def _tool_result(fields: Fields, message: v1.Message, names: Mapping[str, str]) -> None:
    fields.only("role", "name", "content", "tool_call_id")
    fields.required("tool_call_id")
    fields.required("content")
    result = message.parts.add().tool_result
    result.tool_call_id = fields.text("tool_call_id")
    # Some vendors match results by the tool's name, which OpenAI's callers need not repeat.
    result.name = message.name or names.get(result.tool_call_id, "")
    message.ClearField("name")
    _content(fields, result)


def _content(fields: Fields, into: v1.Message | v1.ToolResult) -> None:
    content = fields.raw("content")
    if isinstance(content, str):
        into.parts.add(text=content)
        return
    for part in fields.objects("content"):
        _part(part, into.parts.add())


def _part(fields: Fields, part: v1.Part) -> None:
    fields.required("type")
    match fields.text("type"):
        case "text":
            part.text = fields.text("text")
        case "refusal":
            part.text = fields.text("refusal")
        case "image_url":
            _image(Fields(fields.required("image_url"), fields.at("image_url")), part.image)
        case "input_audio":
            _audio(Fields(fields.required("input_audio"), fields.at("input_audio")), part.audio)
        case "file":
            _file(Fields(fields.required("file"), fields.at("file")), part.file)
        case _:
            known = "text, refusal, image_url, input_audio, file"
            raise invalid(fields.at("type"), f"must be one of {known}")


def _image(fields: Fields, image: v1.Image) -> None:
    fields.only("url", "detail")
    fields.required("url")
    url = fields.text("url")
    inline = from_data_url(url, fields.at("url"))
    if inline is None:
        image.uri = url
    else:
        image.media_type, image.data = inline
    image.detail = fields.word("detail", _DETAILS) or v1.IMAGE_DETAIL_UNSPECIFIED


def _audio(fields: Fields, audio: v1.Audio) -> None:
    fields.only("data", "format")
    fields.required("format")
    audio.media_type = fields.word("format", _AUDIO_TYPES)
    audio.data = from_base64(fields.text("data"), fields.at("data"))


def _file(fields: Fields, file: v1.File) -> None:
    fields.only("file_data", "file_id", "filename")
    file.filename = fields.text("filename")
    data, file_id = fields.text("file_data"), fields.text("file_id")
    if bool(data) == bool(file_id):
        raise invalid(fields.path, "needs either file_data or file_id")
    if file_id:
        file.file_id = file_id
        return
    inline = from_data_url(data, fields.at("file_data"))
    # The bare base64 that OpenAI takes too is of PDFs, the files it reads.
    file.media_type, file.data = inline or (
        "application/pdf",
        from_base64(data, fields.at("file_data")),
    )
