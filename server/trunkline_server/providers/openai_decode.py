"""Reads whole answers in the OpenAI dialect.

The shapes are those of recorded answers (tests/corpus/test_openai.py) and of the types of
OpenAI's own SDK, which read the golden replies too (tests/golden/openai).
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from trunkline import v1
from trunkline_server.providers.openai_errors import reported_error
from trunkline_server.providers.openai_filters import Findings
from trunkline_server.providers.openai_messages import Json
from trunkline_server.providers.openai_parts import (
    ReasoningDetail,
    audio_part,
    call_fields,
    call_signature,
    content_pieces,
    decode_base64,
    detail_entries,
    image_parts,
    load,
    made_call_id,
    reasoning_text,
    senseless,
    tells_text,
    text_of,
)
from trunkline_server.providers.openai_sources import (
    note_annotations,
    note_sources,
    text_place,
)
from trunkline_server.providers.openai_usage import read_usage, true_total_tokens
from trunkline_server.providers.references import References

_FINISH_REASONS: Mapping[str, v1.FinishReason.ValueType] = {
    "stop": v1.FINISH_REASON_STOP,
    "length": v1.FINISH_REASON_LENGTH,
    "tool_calls": v1.FINISH_REASON_TOOL_CALLS,
    "content_filter": v1.FINISH_REASON_CONTENT_FILTER,
    "function_call": v1.FINISH_REASON_TOOL_CALLS,
    # Hosts that hand through the words of their model server or of another vendor.
    "end_turn": v1.FINISH_REASON_STOP,
    "eos": v1.FINISH_REASON_STOP,
    "eos_token": v1.FINISH_REASON_STOP,
    "stop_sequence": v1.FINISH_REASON_STOP,
    "max_tokens": v1.FINISH_REASON_LENGTH,
    "model_length": v1.FINISH_REASON_LENGTH,
    "tool_use": v1.FINISH_REASON_TOOL_CALLS,
    "refusal": v1.FINISH_REASON_REFUSAL,
    "sensitive": v1.FINISH_REASON_CONTENT_FILTER,
}

_Parts = RepeatedCompositeFieldContainer[v1.Part]

# What JSON's numbers become; a bool is none, though Python's int is its base.
_NUMBERS = frozenset({float, int})


def decode_chat(body: bytes, into: v1.GenerateResponse) -> None:
    """Fills the answer of /chat/completions; raises as Codec.decode_generate says."""
    document = load(body)
    error = reported_error(document)
    if error is not None:
        raise error
    choice = _first_choice(document)
    error = reported_error(choice)
    if error is not None:
        raise error
    message = choice.get("message")
    if message is None and choice.get("finish_reason"):
        message = {}  # Azure leaves out the message that its filter withheld.
    if not isinstance(message, dict):
        raise senseless("the answer holds no message")
    into.model = text_of(document.get("model"))
    answer = into.message
    answer.role = v1.ROLE_ASSISTANT
    _add_parts(message, text_of(document.get("id")), answer.parts)
    word = text_of(choice.get("finish_reason"))
    into.vendor_finish_reason = word
    into.finish_reason = finish_reason(word, refused=bool(message.get("refusal")))
    if "prompt_filter_results" in document or "content_filter_results" in choice:
        found = Findings()
        found.of_prompt(document)
        if "content_filter_results" in choice:
            found.of_answer(choice)
        into.filter_findings.extend(found)
    if "annotations" in message or "citations" in document or "search_results" in document:
        references = References()
        note_sources(document, references)
        note_annotations(message, text_place(answer.parts), references)
        references.fill(answer)
    usage = document.get("usage")
    if isinstance(usage, dict):
        true_total = true_total_tokens(message) if "provider_metadata" in message else 0
        read_usage(usage, into.usage, true_total)


def decode_embeddings(body: bytes, into: v1.EmbedResponse) -> None:
    """Fills the answer of /embeddings; raises as Codec.decode_embed says."""
    document = load(body)
    error = reported_error(document)
    if error is not None:
        raise error
    data = document.get("data")
    if not isinstance(data, list) or not data:
        raise senseless("the answer holds no embeddings")
    vectors: dict[int, Any] = {}
    for place, entry in enumerate(data):
        if not isinstance(entry, dict):
            raise senseless("an embedding is not an object")
        index = entry.get("index")
        vectors[index if isinstance(index, int) else place] = entry.get("embedding")
    if vectors.keys() != set(range(len(data))):
        raise senseless("the embeddings do not match the inputs")
    for place in range(len(data)):
        _fill_vector(vectors[place], into.embeddings.add())
    into.model = text_of(document.get("model"))
    usage = document.get("usage")
    if isinstance(usage, dict):
        # All tokens are input; Voyage gives only the total.
        tokens = usage.get("prompt_tokens") or usage.get("total_tokens")
        read_usage({"prompt_tokens": tokens}, into.usage)


def finish_reason(word: str, *, refused: bool) -> v1.FinishReason.ValueType:
    """What the vendor's word means; of a refusal, OpenAI says "stop"."""
    if refused:
        return v1.FINISH_REASON_REFUSAL
    if not word:
        return v1.FINISH_REASON_UNSPECIFIED
    return _FINISH_REASONS.get(word, v1.FINISH_REASON_OTHER)


def _first_choice(document: Json) -> Json:
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise senseless("the answer holds no choice")
    return choices[0]


def _add_parts(message: Json, response_id: str, parts: _Parts) -> None:
    """Adds the message's parts: reasoning, text, refusal, images, audio, tool calls."""
    texts: dict[str, str] = {}
    entries = detail_entries(message) if "reasoning_details" in message else []
    if entries:
        parts.extend(_detail_parts(entries))
    if not entries or not tells_text(entries):
        plain = reasoning_text(message)
        if plain:
            texts["reasoning"] = plain
    for kind, text in content_pieces(message.get("content")):
        if text:
            texts[kind] = texts.get(kind, "") + text
    for kind, text in texts.items():
        if kind == "text":
            parts.add().text = text
        else:
            parts.add().reasoning.text = text
    refusal = text_of(message.get("refusal"))
    if refusal:
        parts.add().text = refusal
    if "images" in message:
        parts.extend(image_parts(message))
    audio = message.get("audio")
    if isinstance(audio, dict):
        data = decode_base64(text_of(audio.get("data")))
        transcript = text_of(audio.get("transcript"))
        parts.append(audio_part(text_of(audio.get("id")), data, transcript))
    if "tool_calls" in message or "function_call" in message:
        parts.extend(_call_parts(message, response_id))


def _detail_parts(entries: list[Json]) -> list[v1.Part]:
    details: list[ReasoningDetail] = []
    for entry in entries:
        if details and details[-1].continues(entry):
            details[-1].add(entry)
        else:
            details.append(ReasoningDetail(entry))
    return [detail.part() for detail in details if not detail.empty]


def _call_parts(message: Json, response_id: str) -> Iterator[v1.Part]:
    calls = message.get("tool_calls")
    calls = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    legacy = message.get("function_call")
    if not calls and isinstance(legacy, dict):
        calls = [{"function": legacy}]
    for number, call in enumerate(calls):
        call_id, name, arguments = call_fields(call)
        yield v1.Part(
            tool_call=v1.ToolCall(
                id=call_id or made_call_id(response_id, number),
                name=name,
                arguments_json=arguments,
            ),
            signature=call_signature(call),
        )


def _fill_vector(value: Any, into: v1.Embedding) -> None:
    """Takes the coordinates: a list of numbers, or base64 of little-endian 32-bit floats."""
    if isinstance(value, str):
        data = decode_base64(value)
        if not data or len(data) % 4:
            raise senseless("an embedding is not made of 32-bit floats")
        # The very bytes that protobuf has between this message's head and its end.
        into.MergeFromString(_vector_head(len(data)) + data)
        return
    if not isinstance(value, list) or not value:
        raise senseless("an embedding holds no numbers")
    if not _NUMBERS.issuperset(map(type, value)):
        raise senseless("an embedding holds something that is no number")
    into.values.extend(value)


@lru_cache(maxsize=64)
def _vector_head(size: int) -> bytes:
    """What stands before the packed floats, `size` bytes of them, in an Embedding."""
    return v1.Embedding(values=[0.0] * (size // 4)).SerializeToString()[:-size]
